// SPDX-License-Identifier: MIT
#pragma once

// What the walks of streaming attention read: queries, keys, values and encodings of one head, a block of queries and a
// stretch of keys at a time.

#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <tuple>
#include <type_traits>

#include <posenc/attention.hpp>
#include <posenc/attention_workspace.hpp>
#include <posenc/concepts.hpp>
#include <posenc/detail/score_lines.hpp>

namespace posenc::inline v0::detail {

template <class Encoding>
bool is_by_distance(const Encoding& encoding) {
  if constexpr (DistanceBias<Encoding>) {
    if constexpr (requires { encoding.is_by_distance(); }) return encoding.is_by_distance();
    return true;
  } else {
    return false;
  }
}

/// Consecutive tokens.
struct Span {
  Index begin, size;
};

/// The last of 0, ..., n - 1 with the highest bound.
template <class Bound>
Index nearest_of(Index n, Bound bound) {
  Index nearest = n - 1;
  double best = -std::numeric_limits<double>::infinity();
  for (Index i = 0; i < n; ++i)
    if (const double b = bound(i); b >= best) {
      nearest = i;
      best = b;
    }
  return nearest;
}
/// Calls action for 0, ..., n - 1: from the nearest down, and then up from there.
template <class Action>
void from_nearest(Index n, Index nearest, Action action) {
  for (Index i = nearest; i >= 0; --i) action(i);
  for (Index i = nearest + 1; i < n; ++i) action(i);
}
template <class Bound, class Action>
void near_to_far(Index n, Bound bound, Action action) {
  from_nearest(n, nearest_of(n, bound), action);
}

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // of g++ 12 itself, see packet.hpp
#endif
/// Scores s become cap * tanh(s / cap); nothing for a cap of 0.
template <class Tile>
void cap_scores(Tile& scores, double cap) {
  using Scalar = typename Tile::Scalar;
  if (cap != 0) scores = static_cast<Scalar>(cap) * (scores / static_cast<Scalar>(cap)).array().tanh();
}
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

template <class Scalar, class Queries, class Keys, class Values, class... Encodings>
class AttentionInputs {
 protected:
  AttentionInputs(const Queries& q, const Keys& k, const Values& v, const AttentionOptions& options,
                  AttentionWorkspace<Scalar>& workspace, const Encodings&... encodings)
      : q_(q), k_(k), v_(v), options_(options), work_(workspace), encodings_(encodings...) {
    scale_ = static_cast<Scalar>(options.scale == 0 ? 1 / std::sqrt(static_cast<double>(q.rows())) : options.scale);
    by_distance_ = are_lines(options.key_positions, options.query_positions);
    has_distances_ = by_distance_ && (is_by_distance(encodings) || ...);
  }

  static constexpr double hidden = -std::numeric_limits<double>::infinity();
  static constexpr bool rotates = (QueryKeyEncoding<Encodings, Scalar> || ...);
  static constexpr bool has_terms = (ScoreTerm<Encodings, Scalar> || ...);
  static constexpr bool has_value_terms = (ValueTerm<Encodings, Scalar> || ...);
  static constexpr bool has_bounds = (BoundedBias<Encodings> || ...);
  static constexpr bool is_bounded = !has_terms && has_bounds;

  template <class Action>
  void for_each_encoding(Action action) const {
    std::apply([&](const auto&... encodings) { (action(encodings), ...); }, encodings_);
  }

  Index num_stretches() const { return (k_.cols() + work_.keys_.cols() - 1) / work_.keys_.cols(); }
  Span stretch_at(Index s) const {
    const Index stretch = work_.keys_.cols();
    return {s * stretch, std::min(stretch, k_.cols() - s * stretch)};
  }
  Positions keys_at(Span span) const { return options_.key_positions.segment(span.begin, span.size); }
  Positions queries_at(Index begin, Index size) const { return options_.query_positions.segment(first_ + begin, size); }

  /// Bounds of all biases together; -inf to inf where one does not tell.
  BiasBounds bounds(const Positions& keys, const Positions& queries) const {
    BiasBounds sum{0, 0};
    for_each_encoding([&](const auto& encoding) {
      using Encoding = std::remove_cvref_t<decltype(encoding)>;
      if constexpr (BoundedBias<Encoding>) {
        const BiasBounds one = encoding.bounds(keys, queries, options_.head);
        sum.lowest += one.lowest;
        // A tile that one bias hides is hidden, whatever the others say of it.
        sum.highest = sum.highest == hidden || one.highest == hidden ? hidden : sum.highest + one.highest;
      } else if constexpr (ScoreBias<Encoding, Scalar>) {
        sum.lowest = hidden;
        if (sum.highest != hidden) sum.highest = std::numeric_limits<double>::infinity();
      }
    });
    return sum;
  }
  double highest(Span keys, const Positions& queries) const {
    if constexpr (has_bounds) return bounds(keys_at(keys), queries).highest;
    return 0;
  }

  struct Columns {
    const Scalar* data = nullptr;
    Index step = 0;

    Columns from(Index first) const { return {data + first * step, step}; }
  };
  using ColumnsMap = Eigen::Map<const Matrix<Scalar>, 0, Eigen::OuterStride<>>;
  static ColumnsMap map(const Columns& columns, Index rows, Index size) {
    return {columns.data, rows, size, Eigen::OuterStride<>(columns.step)};
  }

  /// Whether columns are read where they lie.
  template <class X>
  static bool is_in_place(const X& x) {
    return columns_of(x, {0, 0}).data != nullptr;
  }
  /// How many queries load_queries takes.
  Index max_queries() const { return is_in_place(q_) ? work_.block_queries() : work_.query_columns_.cols(); }
  /// Reads a block of queries.
  void load_queries(Index first, Index num_queries) {
    first_ = first;
    num_queries_ = num_queries;
    raw_queries_ = columns_of(q_, {first, num_queries});
    if (raw_queries_.data == nullptr) raw_queries_ = copied(q_, {first, num_queries}, work_.query_columns_, 0);
  }
  /// Some queries of the block, at most a panel, rotated; until the next call.
  Columns rotated_queries(Index begin, Index size) {
    if constexpr (rotates) {
      auto rotated = work_.rotated_columns_.leftCols(size);
      rotated = raw_queries(begin, size);
      for_each_encoding([&](const auto& encoding) {
        if constexpr (QueryKeyEncoding<std::remove_cvref_t<decltype(encoding)>, Scalar>) {
          Eigen::Ref<Matrix<Scalar>> view = rotated;
          encoding.apply_query(view, queries_at(begin, size), options_.head);
        }
      });
      return {rotated.data(), rotated.outerStride()};
    }
    return raw_queries_.from(begin);
  }

  /// Keys and values of a stretch as columns of Scalar: where they lie if they can be read there, else a copy.
  void load_stretch(Span stretch) {
    begin_stretch(stretch, false);
    load_keys(0, stretch.size);
    load_values(0, stretch.size);
  }
  /// The same, but nothing is copied yet: load_keys and load_values have to be called for what is read. With `packs`,
  /// columns that are far from each other are copied as well, for what reads them many times: at the strides of heads
  /// in one matrix, most of which are powers of two, they would share a few sets of the first cache.
  void begin_stretch(Span stretch, bool packs) {
    const auto begin = [&](const auto& x, Matrix<Scalar>& copy, bool& copies) {
      const Columns columns = columns_of(x, stretch);
      copies = columns.data == nullptr || (packs && columns.step != x.rows());
      return copies ? Columns{copy.data(), copy.outerStride()} : columns;
    };
    stretch_ = stretch;
    raw_keys_ = begin(k_, work_.keys_, copies_keys_);
    values_ = begin(v_, work_.values_, copies_values_);
    keys_ = raw_keys_;
    if constexpr (rotates) {
      load_keys(0, stretch.size);
      copies_keys_ = false;
      work_.rotated_keys_.leftCols(stretch.size) = raw_keys(0, stretch.size);
      for_each_encoding([&](const auto& encoding) {
        if constexpr (QueryKeyEncoding<std::remove_cvref_t<decltype(encoding)>, Scalar>) {
          Eigen::Ref<Matrix<Scalar>> view = work_.rotated_keys_.leftCols(stretch.size);
          encoding.apply_key(view, keys_at(stretch), options_.kv_head);
        }
      });
      keys_ = {work_.rotated_keys_.data(), work_.rotated_keys_.outerStride()};
    }
  }
  void load_keys(Index begin, Index size) {
    if (copies_keys_) copied(k_, {stretch_.begin + begin, size}, work_.keys_, begin);
  }
  void load_values(Index begin, Index size) {
    if (copies_values_) copied(v_, {stretch_.begin + begin, size}, work_.values_, begin);
  }

  ColumnsMap raw_keys(Index begin, Index size) const { return map(raw_keys_.from(begin), k_.rows(), size); }
  ColumnsMap raw_queries(Index begin, Index size) const { return map(raw_queries_.from(begin), q_.rows(), size); }

  /// Whether every weight of a tile is zero: the largest score that its keys can have is so far below the running
  /// maxima, of which `smallest` is the smallest, that its exponential is. key_norm() and query_norm() are the
  /// largest norms of its keys and of its queries times the scale.
  template <class KeyNorm, class QueryNorm>
  bool is_nothing(Scalar smallest, const BiasBounds& bias, KeyNorm key_norm, QueryNorm query_norm) const {
    if (bias.highest == hidden) return true;
    const double nothing = static_cast<double>(smallest) + least_exponent - 1;  // 1 for roundings
    if (!(bias.highest < nothing)) return false;                                // cheap, and almost always so
    double largest = query_norm() * key_norm() * 1.0001;
    if (options_.soft_cap < largest && options_.soft_cap != 0) largest = options_.soft_cap;
    return largest + bias.highest < nothing;
  }

  static double largest_column_norm(const ColumnsMap& columns) {
    return static_cast<double>(columns.colwise().norm().template maxCoeff<Eigen::PropagateNaN>());
  }
  double largest_key_norm(Index key, Index size) const {
    return largest_column_norm(map(keys_.from(key), k_.rows(), size));
  }

  const Queries& q_;
  const Keys& k_;
  const Values& v_;
  const AttentionOptions& options_;
  AttentionWorkspace<Scalar>& work_;
  std::tuple<const Encodings&...> encodings_;
  Scalar scale_ = 1;
  bool by_distance_ = false;           // both sides are at consecutive positions
  bool has_distances_ = false;         // and a bias depends on their difference only
  Index first_ = 0, num_queries_ = 0;  // the block
  Columns raw_queries_;                // of which; raw are not rotated
  Span stretch_{0, 0};
  Columns raw_keys_, keys_, values_;

 private:
  /// Below it an exponential is 0.
  static constexpr double least_exponent = std::is_same_v<Scalar, float> ? -87.34 : -708.4;

  /// Columns where they lie, or nothing if they are not to be read there.
  template <class X>
  static Columns columns_of(const X& x, Span span) {
    if constexpr (!X::IsRowMajor && static_cast<bool>(X::Flags & Eigen::DirectAccessBit) &&
                  std::is_same_v<typename X::Scalar, Scalar>)
      if (x.innerStride() == 1) return {x.data() + span.begin * x.outerStride(), x.outerStride()};
    return {};
  }
  template <class X>
  static Columns copied(const X& x, Span span, Matrix<Scalar>& to, Index begin) {
    to.middleCols(begin, span.size) = x.middleCols(span.begin, span.size).template cast<Scalar>();
    return {to.data() + begin * to.outerStride(), to.outerStride()};
  }

  bool copies_keys_ = false, copies_values_ = false;
};

}  // namespace posenc::inline v0::detail
