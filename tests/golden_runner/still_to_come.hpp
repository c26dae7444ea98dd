// SPDX-License-Identifier: MIT
#pragma once

#include <string_view>

#include "golden.hpp"

namespace golden {

/// A golden case whose feature is not in the library yet. The list is in still_to_come.cpp, and nowhere else: what is
/// neither consumed nor on it fails the run.
struct StillToCome {
  std::string_view file;                   ///< the name without ".json", and without the number of a continuation
  std::string_view feature;                ///< what is missing, in a few words
  bool (*applies)(const Case&) = nullptr;  ///< to one case of the file; null: to the whole file
};

/// The entry for a case, null if there is none.
const StillToCome* find_still_to_come(std::string_view stem, const Case& golden_case);

}  // namespace golden
