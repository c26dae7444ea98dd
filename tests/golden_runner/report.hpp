// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <iosfwd>
#include <string>
#include <vector>

namespace golden {

/// What came out of one file: a line of the table for each kind of check, and what went wrong.
struct FileReport {
  /// One kind of check, over all cases of the file.
  struct Check {
    std::string name;
    std::string tolerance;
    std::size_t numbers = 0;   ///< how many numbers were compared
    double largest_error = 0;  ///< in the tolerance's unit; NaN once any was NaN
    bool ok = true;
  };

  std::string file;
  std::size_t cases = 0;
  std::size_t consumed = 0;
  std::size_t still_to_come = 0;
  std::size_t skipped = 0;
  std::vector<Check> checks;
  std::vector<std::string> failures;  ///< one line each; the run fails if there is any

  Check& check(const std::string& name, const std::string& tolerance);
  bool ok() const { return failures.empty(); }
};

/// A feature whose golden cases are there before it is.
struct StillToComeLine {
  std::string file;
  std::string feature;
  std::vector<std::string> cases;  ///< empty: the whole file
};

/// The table, then what is skipped, what is still to come, what failed, and the sum in one line.
void print(std::ostream& out, const std::vector<FileReport>& files, const std::vector<StillToComeLine>& still_to_come,
           const std::vector<std::string>& skipped, const std::vector<std::string>& failures);

}  // namespace golden
