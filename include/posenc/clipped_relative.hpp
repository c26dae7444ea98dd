// SPDX-License-Identifier: MIT
#pragma once

#include <Eigen/Core>
#include <algorithm>
#include <optional>
#include <type_traits>
#include <utility>

#include <posenc/concepts.hpp>
#include <posenc/detail/check.hpp>
#include <posenc/detail/clipped_lines.hpp>
#include <posenc/detail/scalar.hpp>
#include <posenc/detail/score_lines.hpp>
#include <posenc/detail/tile.hpp>

namespace posenc::inline v0 {

/// Which way a relative distance is counted, n being the position of the key and m that of the query.
enum class RelativeDirection { key_minus_query, query_minus_key };

/// What happens to a distance beyond the table.
enum class BeyondTable {
  clip,   ///< it uses the last column of its side, as in the paper
  error,  ///< std::out_of_range
};

/// Which products of content and position are added to a score.
enum class RelativeScores {
  query,          ///< q . a_c               the paper, and relative_key of BERT
  query_and_key,  ///< q . a_c + k . a_c     relative_key_query of BERT
};

struct ClippedRelativeOptions {
  Index num_heads = 1;              ///< heads that have tables of their own, one below the other; 1: all share one
  std::optional<Index> max_left{};  ///< the distance of column 0 is -max_left; not given: the table is symmetric
  RelativeDirection direction = RelativeDirection::key_minus_query;
  BeyondTable beyond = BeyondTable::clip;
  RelativeScores scores = RelativeScores::query;
};

/// Relative position representations: a learned vector for each distance, up to a clipping distance, added to the keys
/// and to the values.
///
///   c(n, m) = clip(n - m, -k, k) + k                       the column for a key at n and a query at m
///   S(n, m) += <q_m, A^K_c>         O_m += sum_n W(n, m) A^V_c
///
///   k = 2          query m  0 1 2 3 4
///   key n  0                2 1 0 0 0
///          1                3 2 1 0 0
///          2                4 3 2 1 0
///          3                4 4 3 2 1
///          4                4 4 4 3 2
///
/// Never a tensor of Tq x Tk x D: a product is made once for each distance that a query meets, and weights are summed
/// over a run of keys of the same distance before they meet a value.
///
/// Shapes:  key table D x (2k + 1), value table Dv x (2k + 1), a column a distance. Either may be empty: then keys or
///          values are left alone. With tables for each head, head h is rows h D, ..., (h + 1) D - 1.
/// Units:   distances in tokens. The score term is added before the factor 1/sqrt(D), as q . k is.
/// Errors:  std::invalid_argument for a shape that does not fit, std::out_of_range for a head, or a distance with
///          BeyondTable::error; nothing is written then.
/// Cost:    O(Tq (2k + 1) D + Tq Tk) where keys lie in the order of their positions; matrix products for a block of
///          queries at a time where positions are contiguous. Allocates nothing.
/// Source:  Shaw et al. 2018, arXiv:1803.02155v2, equations (3) and (4), and section 3.3.
template <class Scalar_>
class ClippedRelative {
 public:
  using Scalar = Scalar_;
  static constexpr bool is_relative = true;

  ClippedRelative(Matrix<Scalar> key_table, Matrix<Scalar> value_table, const ClippedRelativeOptions& options = {})
      : key_table_(std::move(key_table)), value_table_(std::move(value_table)), options_(options) {
    const Index distances = std::max(key_table_.cols(), value_table_.cols());
    detail::require(distances > 0, "posenc::ClippedRelative: there must be a key table or a value table", distances);
    if (has_keys() && has_values())
      detail::require_size(value_table_.cols(), key_table_.cols(),
                           "posenc::ClippedRelative: columns of the value table must be those of the key table");
    detail::require(options.num_heads > 0, "posenc::ClippedRelative: num_heads must be positive", options.num_heads);
    detail::require(key_table_.rows() % options.num_heads == 0,
                    "posenc::ClippedRelative: rows of the key table must be a multiple of num_heads",
                    key_table_.rows());
    detail::require(value_table_.rows() % options.num_heads == 0,
                    "posenc::ClippedRelative: rows of the value table must be a multiple of num_heads",
                    value_table_.rows());
    if (!options.max_left)
      detail::require(distances % 2 == 1,
                      "posenc::ClippedRelative: a table without max_left must have an odd number of columns",
                      distances);
    left_ = options.max_left.value_or((distances - 1) / 2);
    right_ = distances - 1 - left_;
    detail::require(left_ >= 0 && right_ >= 0, "posenc::ClippedRelative: max_left must be a column of the table",
                    left_);
  }

  /// BERT's position_embedding_type "relative_key" and "relative_key_query": D x (2 M - 1) for sequences of at most M
  /// tokens, counted from the query to the key (the other way round than in the paper), not clipped, no value table.
  static ClippedRelative bert(Matrix<Scalar> table, RelativeScores scores) {
    return {std::move(table),
            {},
            {.direction = RelativeDirection::query_minus_key, .beyond = BeyondTable::error, .scores = scores}};
  }

  bool has_keys() const { return key_table_.cols() > 0; }
  bool has_values() const { return value_table_.cols() > 0; }
  const Matrix<Scalar>& key_table() const { return key_table_; }
  const Matrix<Scalar>& value_table() const { return value_table_; }
  Index max_left() const { return left_; }
  Index max_right() const { return right_; }

  Index num_distances() const { return left_ + 1 + right_; }

  /// Whether it has the form of a DistanceTerm, and then its vectors for a head; nothing where there is no table.
  /// \throws std::out_of_range for a head that is not there.
  bool is_by_distance() const {
    return options_.direction == RelativeDirection::key_minus_query && options_.beyond == BeyondTable::clip &&
           options_.scores == RelativeScores::query;
  }
  auto key_vectors(Index head) const { return table_of(key_table_, head); }
  auto value_vectors(Index head) const { return table_of(value_table_, head); }

  /// The column of the tables for a key and a query.
  Index column(std::int64_t key_position, std::int64_t query_position) const {
    const double distance = std::clamp(distance_between(key_position, query_position), -static_cast<double>(left_),
                                       static_cast<double>(right_));
    return static_cast<Index>(distance) + left_;
  }

  /// The hook of ScoreTerm. Adds <q, A^K_c> to every score; keys are read only by RelativeScores::query_and_key.
  template <MutableDense Scores, DenseExpression Keys, DenseExpression Queries>
  void add_scores(Scores&& scores, const Keys& keys, const Queries& queries, const Positions& key_positions,
                  const Positions& query_positions, Index head = 0) const {
    if (!has_keys()) return;
    detail::require_tile(scores, key_positions, query_positions, "posenc::ClippedRelative");
    const auto table = table_of(key_table_, head);
    detail::require_size(queries.rows(), table.rows(),
                         "posenc::ClippedRelative: rows of the queries must be those of "
                         "the key table");
    detail::require_size(queries.cols(), scores.cols(),
                         "posenc::ClippedRelative: columns of the queries must be those "
                         "of the scores");
    const bool with_keys = options_.scores == RelativeScores::query_and_key;
    if (with_keys) {
      detail::require_size(keys.rows(), table.rows(),
                           "posenc::ClippedRelative: rows of the keys must be those of the "
                           "key table");
      detail::require_size(keys.cols(), scores.rows(),
                           "posenc::ClippedRelative: columns of the keys must be the rows "
                           "of the scores");
    }
    require_within_table(key_positions, query_positions);

    using Stored = typename std::remove_cvref_t<Scores>::Scalar;
    using Real = detail::compute_t<Stored>;
    const bool sums_are_rounded_once = !with_keys || std::is_same_v<Stored, Real>;
    if (sums_are_rounded_once && detail::ClippedBlock<Real>::fits(table.rows()) &&
        detail::are_lines(key_positions, query_positions)) {
      if (scores.size() == 0) return;
      const double first = detail::offset(key_positions[0], query_positions[0]);
      detail::add_clipped_scores(scores, queries, clipped(table), first);
      if (with_keys) {  // the same with keys and queries exchanged
        auto by_key = scores.transpose();
        const bool backwards = options_.direction == RelativeDirection::key_minus_query;
        detail::add_clipped_scores(by_key, keys, clipped(table, backwards), -first);
      }
      return;
    }
    for (Index query = 0; query < scores.cols(); ++query) {
      Index known = -1;  // the column whose product with the query is at hand
      Real of_query = 0;
      for (Index key = 0; key < scores.rows(); ++key) {
        const Index c = column(key_positions[key], query_positions[query]);
        if (c != known) {
          of_query = table.col(c).template cast<Real>().dot(queries.col(query).template cast<Real>().matrix());
          known = c;
        }
        Real term = of_query;
        if (with_keys) term += table.col(c).template cast<Real>().dot(keys.col(key).template cast<Real>().matrix());
        detail::add(scores.coeffRef(key, query), term);
      }
    }
  }

  /// The hook of ValueTerm. Adds sum_n W(n, m) A^V_c to every output.
  template <MutableDense Outputs, DenseExpression Weights>
  void add_values(Outputs&& outputs, const Weights& weights, const Positions& key_positions,
                  const Positions& query_positions, Index head = 0) const {
    if (!has_values()) return;
    detail::require_tile(weights, key_positions, query_positions, "posenc::ClippedRelative");
    const auto table = table_of(value_table_, head);
    detail::require_size(outputs.rows(), table.rows(),
                         "posenc::ClippedRelative: rows of the outputs must be those of "
                         "the value table");
    detail::require_size(outputs.cols(), weights.cols(),
                         "posenc::ClippedRelative: columns of the outputs must be "
                         "those of the weights");
    require_within_table(key_positions, query_positions);

    using Real = detail::compute_t<typename std::remove_cvref_t<Outputs>::Scalar>;
    if (detail::ClippedBlock<Real>::fits(table.rows()) && detail::are_lines(key_positions, query_positions)) {
      if (weights.size() > 0)
        detail::add_clipped_values(outputs, weights, clipped(table),
                                   detail::offset(key_positions[0], query_positions[0]));
      return;
    }
    for (Index query = 0; query < weights.cols(); ++query) {
      const auto add_run = [&](Index c, Real weight) {
        for (Index i = 0; i < table.rows(); ++i)
          detail::add(outputs.coeffRef(i, query), weight * static_cast<Real>(table(i, c)));
      };
      Index run = -1;  // the column of the keys seen last, and the sum of their weights
      Real weight = 0;
      for (Index key = 0; key < weights.rows(); ++key) {
        const Index c = column(key_positions[key], query_positions[query]);
        if (c != run) {
          if (run >= 0) add_run(run, weight);
          run = c;
          weight = 0;
        }
        weight += static_cast<Real>(weights.coeff(key, query));
      }
      if (run >= 0) add_run(run, weight);
    }
  }

 private:
  double distance_between(std::int64_t key_position, std::int64_t query_position) const {
    const double offset = detail::offset(key_position, query_position);
    return options_.direction == RelativeDirection::key_minus_query ? offset : -offset;
  }

  /// The columns of a table in the order of key - query, or of query - key.
  template <class Table>
  detail::ClippedVectors<Table> clipped(const Table& table, bool backwards) const {
    return backwards ? detail::ClippedVectors<Table>{table, right_, left_, true}
                     : detail::ClippedVectors<Table>{table, left_, right_};
  }
  template <class Table>
  detail::ClippedVectors<Table> clipped(const Table& table) const {
    return clipped(table, options_.direction == RelativeDirection::query_minus_key);
  }

  auto table_of(const Matrix<Scalar>& tables, Index head) const {
    detail::require_in_range(head >= 0 && (options_.num_heads == 1 || head < options_.num_heads),
                             "posenc::ClippedRelative: head must be below num_heads", head);
    const Index rows = tables.rows() / options_.num_heads;
    return tables.middleRows(options_.num_heads == 1 ? 0 : head * rows, rows);
  }

  void require_within_table(const Positions& key_positions, const Positions& query_positions) const {
    if (options_.beyond == BeyondTable::clip) return;
    for (Index query = 0; query < query_positions.size(); ++query)
      for (Index key = 0; key < key_positions.size(); ++key) {
        const double distance = distance_between(key_positions[key], query_positions[query]);
        detail::require_in_range(-static_cast<double>(left_) <= distance && distance <= static_cast<double>(right_),
                                 "posenc::ClippedRelative: a distance must be in the table", distance);
      }
  }

  Matrix<Scalar> key_table_, value_table_;
  ClippedRelativeOptions options_;
  Index left_ = 0, right_ = 0;
};

}  // namespace posenc::inline v0
