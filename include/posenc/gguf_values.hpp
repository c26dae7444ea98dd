// SPDX-License-Identifier: MIT
#pragma once

// What from_gguf (gguf_config.hpp) is given.

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include <posenc/concepts.hpp>

namespace posenc::inline v0 {

/// A value of GGUF metadata. Integers of all sizes are int64, both floats are double, and a list of numbers or bools is
/// a list of doubles.
using GgufValue = std::variant<bool, std::int64_t, double, std::string, std::vector<double>>;

/// What a file holds under a key; nothing if it has no such key.
using GgufLookup = std::function<std::optional<GgufValue>(const std::string& key)>;

/// What belongs to positions in a GGUF file and is not metadata.
struct GgufOptions {
  Vector<double> rope_freqs = {};          ///< the tensor rope_freqs.weight (Llama 3); empty: the file has none
  Vector<double> rope_factors_short = {};  ///< rope_factors_short.weight (LongRoPE)
  Vector<double> rope_factors_long = {};   ///< rope_factors_long.weight
  std::vector<std::string> keys = {};      ///< all keys of the file: one about positions that is not used is refused
};

}  // namespace posenc::inline v0
