// SPDX-License-Identifier: MIT
#include "report.hpp"

#include <algorithm>
#include <numeric>
#include <ostream>

#include "tolerance.hpp"

namespace golden {
namespace {

std::string padded(const std::string& text, std::size_t width) {
  return text.size() < width ? text + std::string(width - text.size(), ' ') : text;
}

std::string number_of_cases(std::size_t number) { return std::to_string(number) + (number == 1 ? " case" : " cases"); }

}  // namespace

FileReport::Check& FileReport::check(const std::string& name, const std::string& tolerance) {
  for (auto& check : checks)
    if (check.name == name && check.tolerance == tolerance) return check;
  return checks.emplace_back(Check{.name = name, .tolerance = tolerance});
}

void print(std::ostream& out, const std::vector<FileReport>& files, const std::vector<StillToComeLine>& still_to_come,
           const std::vector<std::string>& skipped, const std::vector<std::string>& failures) {
  std::size_t file_width = 4, check_width = 5, tolerance_width = 9;
  for (const auto& file : files) {
    file_width = std::max(file_width, file.file.size());
    for (const auto& check : file.checks) {
      check_width = std::max(check_width, check.name.size());
      tolerance_width = std::max(tolerance_width, check.tolerance.size());
    }
  }

  const auto line = [&](const std::string& file, const std::string& cases, const std::string& check,
                        const std::string& numbers, const std::string& error, const std::string& tolerance,
                        const std::string& verdict) {
    out << padded(file, file_width) << "  " << padded(cases, 7) << "  " << padded(check, check_width) << "  "
        << padded(numbers, 7) << "  " << padded(error, 13) << "  " << padded(tolerance, tolerance_width) << "  "
        << verdict << "\n";
  };

  line("file", "cases", "check", "numbers", "largest error", "tolerance", "");
  for (const auto& file : files) {
    std::string name = file.file;  // of a file and its cases, on its first line only
    std::string cases = std::to_string(file.consumed) + "/" + std::to_string(file.cases);
    std::string to_come = file.still_to_come > 0 ? ", " + number_of_cases(file.still_to_come) + " still to come" : "";
    for (const auto& check : file.checks) {
      line(name, cases, check.name, std::to_string(check.numbers), short_scientific(check.largest_error, 2),
           check.tolerance, (check.ok ? "ok" : "FAIL") + to_come);
      name = cases = to_come = "";
    }
    // A file of which nothing was compared gets its line as well, and so does what fails without being compared.
    const std::size_t failed = file.cases - file.consumed - file.still_to_come - file.skipped;
    if (!file.ok())
      line(name, cases, number_of_cases(failed) + " not consumed", "", "", "", "FAIL");
    else if (file.checks.empty())
      line(name, cases, "", "", "", "", file.skipped > 0 ? "SKIPPED" : "still to come");
  }

  if (!still_to_come.empty()) out << "\n";
  for (const auto& entry : still_to_come) {
    out << "still to come: " << entry.feature << ": " << entry.file;
    for (std::size_t i = 0; i < entry.cases.size(); ++i) out << (i == 0 ? ": " : ", ") << entry.cases[i];
    out << "\n";
  }
  if (!skipped.empty()) out << "\n";
  for (const auto& entry : skipped) out << "SKIPPED: " << entry << "\n";
  if (!failures.empty()) out << "\n";
  for (const auto& entry : failures) out << "FAIL: " << entry << "\n";

  const auto sum = [&](std::size_t FileReport::*count) {
    return std::accumulate(files.begin(), files.end(), std::size_t{0},
                           [&](std::size_t total, const FileReport& file) { return total + file.*count; });
  };
  out << "\n"
      << sum(&FileReport::consumed) << " of " << sum(&FileReport::cases) << " cases in " << files.size()
      << " files agree, " << sum(&FileReport::still_to_come) << " are still to come, " << sum(&FileReport::skipped)
      << " skipped, " << failures.size() << " failures\n";
}

}  // namespace golden
