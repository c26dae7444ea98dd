// SPDX-License-Identifier: MIT
#pragma once

// Random cases for the laws. Nothing of Eigen or rapidcheck is seen here, so that this is compiled once (cases.cpp).

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace laws {

/// What a law found: that it holds, or where it does not.
class Verdict {
 public:
  Verdict() = default;
  explicit Verdict(std::string violation) : violation_(std::move(violation)) {}

  bool holds() const { return violation_.empty(); }
  const std::string& violation() const { return violation_; }

 private:
  std::string violation_;
};

/// Where an encoding may be tried.
struct Limits {
  std::int64_t first_position = -(std::int64_t{1} << 33);
  std::int64_t last_position = std::int64_t{1} << 33;
  int max_tokens = 36;
  int num_heads = 1;
  bool queries_near_keys = false;  ///< otherwise some cases have them far from each other
};

/// Where the tokens of a random case are, and the seed of what they hold.
struct Case {
  std::vector<std::int64_t> key_positions;    ///< contiguous, or repeated and in any order
  std::vector<std::int64_t> query_positions;  ///< near the keys, or far from them
  std::int64_t shift = 0;                     ///< shifted by it, all positions are still within the limits
  int head = 0;
  std::uint64_t seed = 0;
};

std::string to_string(const Case& c);

/// Tries a law on random cases, always the same ones, and reports the smallest case that breaks it.
Verdict for_all_cases(const Limits& limits, const std::function<Verdict(const Case&)>& law);

}  // namespace laws
