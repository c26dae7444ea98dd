// SPDX-License-Identifier: MIT
#pragma once

#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include <posenc/concepts.hpp>
#include <posenc/detail/angle.hpp>
#include <posenc/detail/check.hpp>
#include <posenc/detail/scalar.hpp>
#include <posenc/detail/score_lines.hpp>
#include <posenc/detail/tile.hpp>

namespace posenc::inline v0 {

/// Whether keys after the query have buckets of their own.
enum class T5Direction {
  bidirectional,  ///< half of the buckets for each side: encoders
  causal,         ///< all buckets for keys before the query, those after it are in bucket 0: decoders
};

/// How a logarithm is rounded down to a bucket. With the usual 32 buckets to distance 128 there is no difference; with
/// others there is, for the distances whose logarithm is a whole number of buckets.
enum class T5Arithmetic {
  exact,    ///< the formula: a bucket begins where its logarithm is reached
  float32,  ///< in float, operation by operation as Hugging Face and others do: sometimes one bucket off
};

struct T5Options {
  Index num_buckets = 32;           ///< B, of both directions together
  std::int64_t max_distance = 128;  ///< M: from here on, the last bucket
  T5Direction direction = T5Direction::bidirectional;
  T5Arithmetic arithmetic = T5Arithmetic::exact;
};

namespace detail {

/// The buckets of one side: the first E have one distance each, those behind it grow with the logarithm.
class T5Buckets {
 public:
  explicit T5Buckets(const T5Options& options)
      : bidirectional_(options.direction == T5Direction::bidirectional),
        in_float_(options.arithmetic == T5Arithmetic::float32),
        count_(bidirectional_ ? options.num_buckets / 2 : options.num_buckets),
        single_(count_ / 2),
        max_distance_(static_cast<double>(options.max_distance)) {
    require(single_ >= 1, "posenc::t5_bucket: num_buckets must be at least 4 (2 if causal)", options.num_buckets);
    require(options.max_distance > single_,
            "posenc::t5_bucket: max_distance must be above the distances that have a bucket of their own",
            options.max_distance);
    require(options.max_distance <= std::int64_t{1} << 53, "posenc::t5_bucket: max_distance must be at most 2^53",
            options.max_distance);
    log_ratio_ = ratio(max_distance_);
  }

  Index count() const { return count_; }

  /// The side and the distance on it that a key is at.
  Index first_bucket(double key_minus_query) const { return bidirectional_ && key_minus_query > 0 ? count_ : 0; }
  double distance(double key_minus_query) const {
    return bidirectional_ ? std::abs(key_minus_query) : std::max(-key_minus_query, 0.0);
  }

  /// 0, ..., count() - 1.
  Index operator()(double distance) const {
    if (distance < static_cast<double>(single_)) return static_cast<Index>(distance);
    if (!(distance < max_distance_)) return count_ - 1;
    return single_ + std::min(in_float_ ? steps_in_float(distance) : steps(distance), count_ - single_ - 1);
  }

 private:
  DoubleDouble ratio(double distance) const { return log(DoubleDouble{distance} / static_cast<double>(single_)); }

  /// The largest j with (count - E) ln(a / E) >= j ln(M / E). Where double cannot tell, 100 bits do: what agrees to 26
  /// digits is equal, and equal is reached.
  Index steps(double distance) const {
    const auto scale = static_cast<double>(count_ - single_);
    const double estimate = scale * std::log(distance / static_cast<double>(single_)) / log_ratio_.high;
    const double nearest = std::round(estimate);
    if (std::abs(estimate - nearest) > 1e-6) return static_cast<Index>(estimate);
    const DoubleDouble beyond = DoubleDouble{scale} * ratio(distance) - DoubleDouble{nearest} * log_ratio_;
    return static_cast<Index>(nearest) - (beyond.high < -1e-26 * nearest * log_ratio_.high ? 1 : 0);
  }

  Index steps_in_float(double distance) const {
    const auto single = static_cast<double>(single_);
    const float logarithm = std::log(static_cast<float>(distance) / static_cast<float>(single));
    const float fraction = logarithm / static_cast<float>(std::log(max_distance_ / single));
    return static_cast<Index>(fraction * static_cast<float>(count_ - single_));
  }

  bool bidirectional_, in_float_;
  Index count_, single_;
  double max_distance_;
  DoubleDouble log_ratio_;
};

}  // namespace detail

/// The bucket that T5 puts a key in, from its distance to the query.
///
///   B' = floor(B / 2), or B if causal      start = B' if n > m, or 0 if causal
///   E  = floor(B' / 2)                     a = |m - n|, or max(m - n, 0) if causal
///   bucket = start + a                                                         a < E
///            start + min(B' - 1, E + floor((B' - E) ln(a / E) / ln(M / E)))    otherwise
///
///   B = 32, M = 128     n - m     ... -16  -8  -2  -1   0   1   2   8  16 ...
///                       bucket    ...  10   8   2   1   0  17  18  24  26 ...
///
/// \param key_minus_query n - m, the position of the key less that of the query.
/// \returns 0, ..., num_buckets - 1. (Bidirectional with an odd number: the last one is never used.)
/// \throws  std::invalid_argument unless 1 <= E < M <= 2^53.
inline Index t5_bucket(std::int64_t key_minus_query, const T5Options& options = {}) {
  const detail::T5Buckets buckets(options);
  const auto offset = static_cast<double>(key_minus_query);
  return buckets.first_bucket(offset) + buckets(buckets.distance(offset));
}

/// T5's relative bias: a learned number for each head and bucket of distances.
///
///   S(n, m) += table(head, t5_bucket(n - m))
///
///   const Eigen::Map<const Eigen::MatrixXf> table(weights, num_heads, 32);     // relative_attention_bias.weight
///   posenc::T5Bias bias(table, {.direction = posenc::T5Direction::causal});
///   attend(q, k, v, {.query_positions = p, .key_positions = p, .scale = 1}, bias, CausalMask{});
///
/// The numbers are added as they are. T5 has no factor 1/sqrt(D): give the attention `scale = 1`. In T5 only the first
/// layer of a stack has a table, and all layers use it. A query behind a cache of keys is at the end of it, Tk - Tq: the
/// positions say so.
///
/// Shapes:   table H x B, a column a bucket: the row-major [num_buckets, heads] weight of Hugging Face is that matrix.
/// \param scores          Tk x Tq, written in place: any storage order and stride.
/// \param key_positions   Tk entries.   \param query_positions   Tq entries.
/// \param head            0, ..., num_heads() - 1.
/// Accuracy: the number of the table, rounded once to the scalar of the scores.
/// Errors:   std::invalid_argument for a shape that does not fit, std::out_of_range for a head; nothing is written
///           then.
/// Cost:     two look-ups and a sum a score. Allocates nothing. Memory: a bucket number a distance below max_distance.
/// Source:   Raffel et al. 2020, T5, arXiv:1910.10683v4, section 2.1, and its published code for the buckets.
class T5Bias {
 public:
  static constexpr bool is_relative = true;

  /// \throws std::invalid_argument unless the table has a row a head and num_buckets columns, all finite, and the
  ///         options are those of a bucket (t5_bucket) with max_distance at most 2^24.
  template <DenseExpression Table>
  explicit T5Bias(const Table& table, const T5Options& options = {})
      : table_(table.template cast<double>()), options_(options), arithmetic_(options) {
    detail::require(table_.rows() > 0, "posenc::T5Bias: the table must have a row for each head", table_.rows());
    detail::require_size(table_.cols(), options.num_buckets,
                         "posenc::T5Bias: columns of the table must be num_buckets");
    detail::require_finite(table_, "posenc::T5Bias: the table must be finite");
    detail::require(options.max_distance <= std::int64_t{1} << 24, "posenc::T5Bias: max_distance must be at most 2^24",
                    options.max_distance);
    for (double distance = 0; buckets_.empty() || buckets_.back() < arithmetic_.count() - 1; ++distance)
      buckets_.push_back(static_cast<std::int32_t>(arithmetic_(distance)));
  }

  Index num_heads() const { return table_.rows(); }
  const Matrix<double>& table() const { return table_; }
  const T5Options& options() const { return options_; }

  /// The column of the table for a key at this distance from the query.
  Index bucket(std::int64_t key_minus_query) const { return bucket_at(static_cast<double>(key_minus_query)); }

  /// Depends on key - query alone; see DistanceBias.
  /// \throws std::out_of_range for a head that is not there; so does bounds.
  double at_distance(std::int64_t key_minus_query, Index head) const {
    require_head(head);
    return table_(head, bucket(key_minus_query));
  }

  /// The extremes in a tile, over the buckets between its ends; see BoundedBias.
  BiasBounds bounds(const Positions& key_positions, const Positions& query_positions, Index head) const {
    require_head(head);
    const auto [first, last] = detail::offsets(key_positions, query_positions);
    const double here = table_(head, bucket_at(first));
    BiasBounds found{here, here};
    const auto add = [&](double from, double to) {  // on one side of the query, or at it
      const Index a = bucket_at(from), b = bucket_at(to);
      for (Index between = std::min(a, b); between <= std::max(a, b); ++between)
        found = {std::min(found.lowest, table_(head, between)), std::max(found.highest, table_(head, between))};
    };
    if (first <= 0) add(first, std::min(last, 0.0));
    if (last > 0) add(std::max(first, 1.0), last);
    return found;
  }

  template <MutableDense Scores>
  void operator()(Scores&& scores, const Positions& key_positions, const Positions& query_positions,
                  Index head = 0) const {
    detail::require_tile(scores, key_positions, query_positions, "posenc::T5Bias");
    require_head(head);
    detail::add_by_distance(scores, key_positions, query_positions,
                            [&](double offset) { return table_(head, bucket_at(offset)); });
  }

  /// The hook of ScoreBias.
  template <MutableDense Scores>
  void add_bias(Scores&& scores, const Positions& key_positions, const Positions& query_positions,
                Index head = 0) const {
    (*this)(scores, key_positions, query_positions, head);
  }

 private:
  void require_head(Index head) const {
    detail::require_in_range(head >= 0 && head < num_heads(), "posenc::T5Bias: head must be below num_heads", head);
  }

  Index bucket_at(double key_minus_query) const {
    const double distance = arithmetic_.distance(key_minus_query);
    const bool known = distance < static_cast<double>(buckets_.size());
    return arithmetic_.first_bucket(key_minus_query) +
           (known ? buckets_[static_cast<std::size_t>(distance)] : buckets_.back());
  }

  Matrix<double> table_;
  T5Options options_;
  detail::T5Buckets arithmetic_;
  std::vector<std::int32_t> buckets_;  // of the distances until the last bucket begins
};

}  // namespace posenc::inline v0
