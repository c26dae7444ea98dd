// SPDX-License-Identifier: MIT
#pragma once

// A text as numbers, without a trained model: words, a vector for each, and the weights of an attention layer. All
// random numbers follow from a seed, in the same way on every machine.

#include <cctype>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <numbers>
#include <posenc/multi_head_attention.hpp>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace tour {

/// The first words of a file: runs of letters, digits, apostrophes and whatever is not ASCII, in lower case.
/// \throws std::runtime_error if there is no such file.
inline std::vector<std::string> read_words(const std::string& path, std::size_t most) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error(path + " cannot be read");
  std::vector<std::string> words;
  std::string word;
  for (int c = file.get(); words.size() < most; c = file.get()) {
    if (c >= 0x80 || std::isalnum(c) || (c == '\'' && !word.empty()))
      word += static_cast<char>(c < 0x80 ? std::tolower(c) : c);
    else if (!word.empty())
      words.push_back(std::exchange(word, {}));
    if (c == std::ifstream::traits_type::eof()) break;
  }
  return words;
}

/// Normal numbers with mean 0 and variance 1: SplitMix64 and Box-Muller, as <random> differs from library to library.
inline posenc::Matrix<float> normal_numbers(posenc::Index rows, posenc::Index cols, std::uint64_t seed) {
  const auto uniform = [&seed] {  // in (0, 1)
    std::uint64_t bits = seed += 0x9e3779b97f4a7c15;
    bits = (bits ^ (bits >> 30)) * 0xbf58476d1ce4e5b9;
    bits = (bits ^ (bits >> 27)) * 0x94d049bb133111eb;
    return (static_cast<double>((bits ^ (bits >> 31)) >> 11) + 0.5) * 0x1p-53;
  };
  posenc::Matrix<float> numbers(rows, cols);
  for (float& number : numbers.reshaped())
    number = static_cast<float>(std::sqrt(-2 * std::log(uniform())) * std::cos(2 * std::numbers::pi * uniform()));
  return numbers;
}

/// A vector for each word, which depends on nothing but its letters and the seed: equal words have equal vectors. Half
/// of it (of its squared length) is the same for all words, as trained embeddings have a direction in common.
inline posenc::Matrix<float> embed(const std::vector<std::string>& words, posenc::Index num_features,
                                   std::uint64_t seed) {
  const posenc::Vector<float> common = normal_numbers(num_features, 1, seed);
  posenc::Matrix<float> x(num_features, static_cast<posenc::Index>(words.size()));
  for (posenc::Index t = 0; t < x.cols(); ++t) {
    std::uint64_t hash = 0xcbf29ce484222325 ^ seed;  // FNV-1a
    for (const char letter : words[static_cast<std::size_t>(t)])
      hash = (hash ^ static_cast<unsigned char>(letter)) * 0x100000001b3;
    x.col(t) = (common + normal_numbers(num_features, 1, hash)) * std::sqrt(0.5f);
  }
  return x;
}

/// Random weights. Queries and keys have the same ones, so that like attracts like: a word another one of its kind, a
/// position those that are near to it.
inline posenc::ProjectionWeights<float> random_weights(posenc::Index num_features, std::uint64_t seed) {
  const float scale = 1 / std::sqrt(static_cast<float>(num_features));
  const posenc::Matrix<float> query_and_key = normal_numbers(num_features, num_features, seed + 1) * scale;
  return {.query = query_and_key,
          .key = query_and_key,
          .value = normal_numbers(num_features, num_features, seed + 2) * scale,
          .output = normal_numbers(num_features, num_features, seed + 3) * scale};
}

}  // namespace tour
