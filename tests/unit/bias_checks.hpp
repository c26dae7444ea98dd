// SPDX-License-Identifier: MIT
#pragma once

// What every score bias says of itself in several ways, checked against its hook: its value at a distance, its bounds in
// a tile, and what streaming attention makes of both.

#include <posenc/attention.hpp>
#include <posenc/bias_matrix.hpp>
#include <posenc/concepts.hpp>
#include <posenc/masks.hpp>
#include <posenc/streaming_attention.hpp>

#include <algorithm>
#include <cstdint>
#include <random>
#include <vector>

#include "../catch.hpp"
#include "../support.hpp"

namespace bias_checks {

using posenc::Index;
using posenc::Matrix;
using posenc::Positions;

/// Where the tokens of a random tile are: contiguous, or repeated and in any order.
class Tile {
 public:
  Tile(std::mt19937_64& engine, std::int64_t first, std::int64_t last)
      : key_entries_(some(engine, first, last)), query_entries_(some(engine, first, last)) {
    keys = view(engine, key_entries_);
    queries = view(engine, query_entries_);
  }
  Tile(const Tile&) = delete;
  Tile& operator=(const Tile&) = delete;

  Positions keys, queries;

 private:
  static std::vector<std::int64_t> some(std::mt19937_64& engine, std::int64_t first, std::int64_t last) {
    const std::int64_t near =
        first + static_cast<std::int64_t>(engine() % static_cast<std::uint64_t>(last - first + 1));
    const auto width = static_cast<std::int64_t>(1 + engine() % 60);
    std::vector<std::int64_t> entries(1 + engine() % 12);
    for (auto& entry : entries)
      entry = std::clamp(near + static_cast<std::int64_t>(engine() % static_cast<std::uint64_t>(width)), first, last);
    return entries;
  }

  /// All of these end within the limits, wherever they begin.
  static Positions view(std::mt19937_64& engine, const std::vector<std::int64_t>& entries) {
    if (engine() % 2 == 0) return entries;
    const auto size = static_cast<Index>(entries.size());
    return posenc::positions(size, *std::max_element(entries.begin(), entries.end()) - size + 1);
  }

  std::vector<std::int64_t> key_entries_, query_entries_;
};

/// at_distance is what the hook adds to a score of zero, to the bit.
template <class Bias>
void distance_is_hook(const Bias& bias, Index num_heads, std::int64_t first, std::int64_t last) {
  static_assert(posenc::DistanceBias<Bias>);
  std::mt19937_64 engine(1);
  for (int n = 0; n < 200; ++n) {
    const Tile tile(engine, first, last);
    const Index head = n % num_heads;
    const Matrix<double> written = posenc::bias_matrix<double>(bias, tile.keys, tile.queries, head);
    for (Index query = 0; query < written.cols(); ++query)
      for (Index key = 0; key < written.rows(); ++key)
        REQUIRE(bias.at_distance(tile.keys[key] - tile.queries[query], head) == written(key, query));
  }
}

/// No score of a tile is outside the bounds. Returns how often both bounds were met exactly, of 400 tiles.
template <class Bias>
int bounds_hold(const Bias& bias, Index num_heads, std::int64_t first, std::int64_t last) {
  static_assert(posenc::BoundedBias<Bias>);
  std::mt19937_64 engine(2);
  int tight = 0;
  for (int n = 0; n < 400; ++n) {
    const Tile tile(engine, first, last);
    const Index head = n % num_heads;
    const Matrix<double> written = posenc::bias_matrix<double>(bias, tile.keys, tile.queries, head);
    const posenc::BiasBounds bounds = bias.bounds(tile.keys, tile.queries, head);
    CAPTURE(n, head, bounds.lowest, bounds.highest, written);
    REQUIRE(bounds.lowest <= written.minCoeff());
    REQUIRE(written.maxCoeff() <= bounds.highest);
    tight += bounds.lowest == written.minCoeff() && bounds.highest == written.maxCoeff();
  }
  return tight;
}

/// Streaming attention, which begins its sums with at_distance and leaves out what bounds prove to be nothing, gives what
/// the reference gives with the hook.
template <class Bias>
void streams_like_reference(const Bias& bias, Index head, Index num_tokens) {
  const Index dim = 8;
  const Matrix<float> q = support::random_matrix<float>(dim, num_tokens, 1),
                      k = support::random_matrix<float>(dim, num_tokens, 2),
                      v = support::random_matrix<float>(dim, num_tokens, 3);
  std::vector<std::int64_t> scattered;
  for (Index t = 0; t < num_tokens; ++t) scattered.push_back(t / 2);
  for (const Positions& positions : {posenc::positions(num_tokens), Positions(scattered)}) {
    const posenc::AttentionOptions options{.query_positions = positions, .key_positions = positions, .head = head};
    CHECK(support::distance(posenc::streaming_attend(q, k, v, options, bias, posenc::CausalMask{}),
                            posenc::attend(q, k, v, options, bias, posenc::CausalMask{})) <= 4e-6);
  }
}

}  // namespace bias_checks
