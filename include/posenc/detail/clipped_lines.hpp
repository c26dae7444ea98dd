// SPDX-License-Identifier: MIT
#pragma once

// What belongs to a clipped distance, where keys and queries are contiguous. Along the keys of a query the columns are
//
//   0 0 0 0 1 2 3 4 ... last last last        one for each key near the query, and its first and last neighbours'
//
// so a block of queries needs one matrix product with the columns that it meets, in scratch of a fixed size.

#include <Eigen/Core>
#include <algorithm>
#include <array>
#include <type_traits>

#include <posenc/concepts.hpp>
#include <posenc/detail/scalar.hpp>
#include <posenc/detail/tile.hpp>

namespace posenc::inline v0::detail {

/// Vectors for the distances -left, ..., right of a key from a query, one a column of `table`, or from right to left.
template <class Table>
struct ClippedVectors {
  const Table& table;
  Index left, right;
  bool backwards = false;

  Index size() const { return table.cols(); }
  Index column(double distance) const {
    return static_cast<Index>(std::clamp(distance, -static_cast<double>(left), static_cast<double>(right))) + left;
  }
  auto vector(Index column) const { return table.col(backwards ? size() - 1 - column : column); }
};

/// The keys of one query: those before `begin` have column 0, those from `end` on the last, and the others, in their
/// order, `first`, first + 1, ...
struct ClippedLine {
  Index begin, end, first;

  template <class Vectors>
  ClippedLine(const Vectors& vectors, Index num_keys, double first_distance) {
    const auto last_key = static_cast<double>(num_keys);
    begin = static_cast<Index>(std::clamp(1 - static_cast<double>(vectors.left) - first_distance, 0.0, last_key));
    end = std::max(begin,
                   static_cast<Index>(std::clamp(static_cast<double>(vectors.right) - first_distance, 0.0, last_key)));
    first = vectors.column(first_distance + static_cast<double>(begin));
  }
};

/// Scratch for a block of queries and the columns of a stretch of keys.
template <class Real>
class ClippedBlock {
 public:
  using Map = Eigen::Map<Matrix<Real>>;

  static bool fits(Index dim) { return dim <= size; }

  ClippedBlock(Index num_columns, Index dim, Index num_keys) : dim_(dim) {
    keys_ = num_columns <= max_columns ? std::max<Index>(num_keys, 1) : max_columns / 2;
    const Index columns = std::min(num_columns, keys_ + max_queries);
    queries_ = std::clamp<Index>(size / std::max({columns, dim, Index{1}}), 1, max_queries);
    if (queries_ > 4) queries_ -= queries_ % 4;
    vectors_ = std::max<Index>(size / std::max<Index>(dim, 1), 1);
  }

  Index num_queries() const { return queries_; }
  Index num_keys() const { return keys_; }

  Map of_queries(Index queries) { return {of_queries_.data(), dim_, queries}; }  ///< dim x queries
  Map by_column(Index columns, Index queries) { return {by_column_.data(), columns, queries}; }

  /// action(vectors first, ..., first + n - 1 as columns, first - begin, n) for all from begin to end.
  template <class Vectors, class Action>
  void for_vectors(const Vectors& vectors, Index begin, Index end, Action action) {
    for (Index first = begin, n; first < end; first += n) {
      n = std::min(vectors_, end - first);
      Map some(vector_.data(), dim_, n);
      for (Index j = 0; j < n; ++j) some.col(j) = vectors.vector(first + j).template cast<Real>();
      action(some, first - begin, n);
    }
  }

 private:
  static constexpr Index size = 32768 / sizeof(Real), max_columns = 1024, max_queries = 64;
  using Scratch = std::array<Real, static_cast<std::size_t>(size)>;

  Index dim_, keys_, queries_, vectors_;
  alignas(64) Scratch of_queries_;
  alignas(64) Scratch by_column_;
  alignas(64) Scratch vector_;
};

/// Calls action(first query, queries, first key, keys, first column, last column) for blocks of scores.
template <class Block, class Vectors, class Action>
void for_each_clipped_block(const Block& block, const Vectors& vectors, Index num_keys, Index num_queries,
                            double first_distance, Action action) {
  for (Index query = 0, queries; query < num_queries; query += queries) {
    queries = next_block(num_queries - query, block.num_queries());
    for (Index key = 0, keys; key < num_keys; key += keys) {
      keys = std::min(block.num_keys(), num_keys - key);
      const double distance = first_distance + static_cast<double>(key - query);
      action(query, queries, key, keys, vectors.column(distance - static_cast<double>(queries - 1)),
             vectors.column(distance + static_cast<double>(keys - 1)));
    }
  }
}

/// x(i) += values(i) along a column of scores: all in Real, and rounded once.
template <class Line, class Values>
void add_values_to(Line&& line, const Values& values) {
  using Scalar = typename std::remove_cvref_t<Line>::Scalar;
  using Real = compute_t<Scalar>;
  line.array() = (line.array().template cast<Real>() + values).template cast<Scalar>();
}

/// scores(key, query) += <query, vector of their distance>. `first_distance` is that of the first key and query.
template <class Scores, class Queries, class Vectors>
void add_clipped_scores(Scores& scores, const Queries& queries, const Vectors& vectors, double first_distance) {
  using Real = compute_t<typename Scores::Scalar>;
  using Constant = Eigen::Array<Real, Eigen::Dynamic, 1>;
  ClippedBlock<Real> block(vectors.size(), queries.rows(), scores.rows());
  for_each_clipped_block(
      block, vectors, scores.rows(), scores.cols(), first_distance,
      [&](Index query, Index num_queries, Index key, Index num_keys, Index first, Index last) {
        auto q = block.of_queries(num_queries);
        q = queries.middleCols(query, num_queries).template cast<Real>().matrix();
        auto products = block.by_column(last - first + 1, num_queries);
        block.for_vectors(vectors, first, last + 1, [&](const auto& some, Index begin, Index n) {
          products.middleRows(begin, n).noalias() = some.transpose() * q;
        });
        for (Index i = 0; i < num_queries; ++i) {
          const ClippedLine line(vectors, num_keys, first_distance + static_cast<double>(key - query - i));
          auto column = scores.col(query + i).segment(key, num_keys);
          const auto of_column = products.col(i).array();
          const Index near = line.end - line.begin;
          if (line.begin > 0) add_values_to(column.head(line.begin), Constant::Constant(line.begin, of_column(0)));
          if (near > 0) add_values_to(column.segment(line.begin, near), of_column.segment(line.first - first, near));
          if (line.end < num_keys)
            add_values_to(column.tail(num_keys - line.end),
                          Constant::Constant(num_keys - line.end, of_column(last - first)));
        }
      });
}

/// outputs(., query) += sum over keys of weights(key, query) * vector of their distance.
template <class Outputs, class Weights, class Vectors>
void add_clipped_values(Outputs& outputs, const Weights& weights, const Vectors& vectors, double first_distance) {
  using Real = compute_t<typename Outputs::Scalar>;
  ClippedBlock<Real> block(vectors.size(), outputs.rows(), weights.rows());
  for_each_clipped_block(
      block, vectors, weights.rows(), weights.cols(), first_distance,
      [&](Index query, Index num_queries, Index key, Index num_keys, Index first, Index last) {
        auto sums = block.by_column(last - first + 1, num_queries);
        sums.setZero();
        for (Index i = 0; i < num_queries; ++i) {
          const ClippedLine line(vectors, num_keys, first_distance + static_cast<double>(key - query - i));
          const auto column = weights.col(query + i).segment(key, num_keys).template cast<Real>();
          const Index near = line.end - line.begin;
          if (near > 0) sums.col(i).segment(line.first - first, near) = column.segment(line.begin, near).matrix();
          if (line.begin > 0) sums(0, i) += column.head(line.begin).sum();
          if (line.end < num_keys) sums(last - first, i) += column.tail(num_keys - line.end).sum();
        }
        auto added = block.of_queries(num_queries);
        added.setZero();
        block.for_vectors(vectors, first, last + 1, [&](const auto& some, Index begin, Index n) {
          added.noalias() += some * sums.middleRows(begin, n);
        });
        for (Index i = 0; i < num_queries; ++i) add_values_to(outputs.col(query + i), added.col(i).array());
      });
}

}  // namespace posenc::inline v0::detail
