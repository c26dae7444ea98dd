// SPDX-License-Identifier: MIT
#pragma once

// What every hook on a tile of scores has in common: the check of its shape, and the walk over it in memory order.

#include <Eigen/Core>
#include <string>

#include <posenc/concepts.hpp>
#include <posenc/detail/check.hpp>
#include <posenc/positions.hpp>

namespace posenc::inline v0::detail {

/// scores must be keys x queries.
template <class Scores>
void require_tile(const Scores& scores, const Positions& key_positions, const Positions& query_positions,
                  const char* who) {
  static_assert(RealScalar<typename Scores::Scalar>,
                "posenc: scores, weights and outputs must be of float, double, half or bfloat16");
  if (scores.rows() != key_positions.size()) [[unlikely]]
    fail_size((std::string(who) + ": rows of the scores must be the number of key positions").c_str(),
              key_positions.size(), scores.rows());
  if (scores.cols() != query_positions.size()) [[unlikely]]
    fail_size((std::string(who) + ": columns of the scores must be the number of query positions").c_str(),
              query_positions.size(), scores.cols());
}

/// Every token of a view must be below `size`: what goes by token has an entry for it.
inline void require_tokens(const Positions& positions, Index size, const char* rule) {
  if (positions.size() > 0) {
    const Index last = positions.token(positions.size() - 1);
    require_in_range(last < size, rule, last + 1);
  }
}

/// Calls action(key, query, score) for every score, along the memory.
template <class Scores, class Action>
void for_each_score(Scores& scores, Action action) {
  if constexpr (std::remove_cvref_t<Scores>::IsRowMajor) {
    for (Index key = 0; key < scores.rows(); ++key)
      for (Index query = 0; query < scores.cols(); ++query) action(key, query, scores.coeffRef(key, query));
  } else {
    for (Index query = 0; query < scores.cols(); ++query)
      for (Index key = 0; key < scores.rows(); ++key) action(key, query, scores.coeffRef(key, query));
  }
}

/// How many of the rest of a side are in its next block of at most `most`: the last two share what is left evenly, so that
/// none is short.
inline Index next_block(Index rest, Index most) {
  return rest <= most ? rest : rest < 2 * most ? (rest + 1) / 2 : most;
}

/// key - query: how far the key is behind (> 0) or before (< 0) the query, in tokens. Exact to 2^53.
inline double offset(std::int64_t key_position, std::int64_t query_position) {
  return static_cast<double>(key_position) - static_cast<double>(query_position);
}

/// The smallest and the largest key - query of a tile. Nothing, {0, 0}, for an empty one.
struct OffsetRange {
  double first, last;
};
inline OffsetRange offsets(const Positions& key_positions, const Positions& query_positions) {
  if (key_positions.size() == 0 || query_positions.size() == 0) return {0, 0};
  const PositionRange keys = range(key_positions), queries = range(query_positions);
  return {offset(keys.first, queries.last), offset(keys.last, queries.first)};
}

}  // namespace posenc::inline v0::detail
