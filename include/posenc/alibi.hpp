// SPDX-License-Identifier: MIT
#pragma once

#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

#include <posenc/concepts.hpp>
#include <posenc/detail/check.hpp>
#include <posenc/detail/scalar.hpp>
#include <posenc/detail/score_lines.hpp>
#include <posenc/detail/tile.hpp>

namespace posenc::inline v0 {

/// The slopes of ALiBi's heads: a geometric progression, and for a number of heads that is not a power of two, the
/// progression of the next smaller power of two followed by every other slope of the next larger one.
///
///   n = 2^floor(log2 H)
///   slope_h = 2^(-max_bias (h + 1) / n)                        h = 0, ..., n - 1
///   slope_h = 2^(-max_bias (2 (h - n) + 1) / (2 n))            h = n, ..., H - 1
///
///   H = 8     1/2  1/4  1/8 ... 1/256
///   H = 12    1/2  1/4  1/8 ... 1/256   2^-0.5  2^-1.5  2^-2.5  2^-3.5      (not sorted, and not to be sorted)
///
/// \param num_heads any positive number.
/// \param max_bias  the exponent of the last slope of a power of two: 8 in the paper; MPT and ggml let it be chosen.
/// \throws std::invalid_argument if num_heads is not positive, or max_bias is not a positive finite number.
/// Accuracy: within 1 ulp of double.
/// Source:   Press et al. 2022, ALiBi, arXiv:2108.12409v2, section 3, and its published code for numbers of heads that
///           are not powers of two. The generators of Bloom, MPT, Falcon, ggml and flash-attention give the same
///           slopes.
inline Vector<double> alibi_slopes(Index num_heads, double max_bias = 8) {
  detail::require(num_heads > 0, "posenc::alibi_slopes: num_heads must be positive", num_heads);
  detail::require(max_bias > 0 && std::isfinite(max_bias), "posenc::alibi_slopes: max_bias must be positive and finite",
                  max_bias);
  Index n = 1;
  while (n <= num_heads / 2) n *= 2;
  Vector<double> slopes(num_heads);
  for (Index h = 0; h < num_heads; ++h) {
    const double exponent = h < n ? static_cast<double>(h + 1) / static_cast<double>(n)
                                  : static_cast<double>(2 * (h - n) + 1) / static_cast<double>(2 * n);
    slopes[h] = std::exp2(-max_bias * exponent);
  }
  return slopes;
}

/// How the bias of a head with slope s depends on the positions m of the query and n of the key.
///
///             keys n = 0 1 2 3, query m = 2
///   distance  -2s  -s    0   -s      -s |m - n|, the same on both sides
///   causal    -2s  -s    0  -inf     -s (m - n), and no key after the query
///   key_only   0    s   2s   3s       s (n - anchor), the same for every query
///
/// `key_only` differs from the others by a constant of each query, which softmax does not see: but only where a causal
/// mask hides the keys after the query, and not with attention sinks, a soft cap or where scores themselves are wanted.
/// Its numbers grow with the position, and so does its rounding error. It is there to reproduce Bloom (anchor 0) and
/// MPT (anchor = last key).
enum class AlibiForm { distance, causal, key_only };

struct AlibiOptions {
  Index num_heads = 0;    ///< heads that are biased, for which slopes are generated
  Index total_heads = 0;  ///< heads of the attention: those from num_heads on get no bias; 0: all are biased
  double max_bias = 8;    ///< see alibi_slopes
  AlibiForm form = AlibiForm::distance;
  std::int64_t anchor = 0;  ///< the position of bias 0 of AlibiForm::key_only; must be 0 otherwise
};

/// Attention with linear biases: the further a key is from the query, the lower its score, at a rate of the head's own.
///
///   S(n, m) += -slope_h |m - n|          (AlibiForm has the other forms)
///
/// \param scores          Tk x Tq, written in place: any storage order and stride; after the factor 1/sqrt(D).
/// \param key_positions   Tk entries.   \param query_positions   Tq entries: the tail of a cache has an offset here.
/// \param head            0, ..., num_heads() - 1.
/// Units:    positions in tokens, slopes in score per token.
/// Accuracy: the bias is computed in double and rounded once.
/// Errors:   std::invalid_argument for a shape that does not fit, std::out_of_range for a head; nothing is written then.
/// Cost:     2 flops a score. Allocates nothing.
/// Source:   Press et al. 2022, ALiBi, arXiv:2108.12409v2, section 3.
class Alibi {
 public:
  static constexpr bool is_relative = true;

  explicit Alibi(Index num_heads) : Alibi(AlibiOptions{.num_heads = num_heads}) {}

  explicit Alibi(const AlibiOptions& options)
      : Alibi(padded(alibi_slopes(options.num_heads, options.max_bias), options), options.form, options.anchor) {}

  /// With slopes of your own, one a head; a head with slope 0 is not biased. RetNet's decay gamma^(m - n), with
  /// gamma = 1 - 2^(-5 - h), is as a bias the causal form with slopes -ln(1 - 2^(-5 - h)).
  template <DenseExpression Slopes>
  explicit Alibi(const Slopes& slopes, AlibiForm form = AlibiForm::distance, std::int64_t anchor = 0)
      : slopes_(slopes.template cast<double>()), form_(form), anchor_(anchor) {
    detail::require(slopes_.size() > 0, "posenc::Alibi: there must be at least one slope", slopes_.size());
    detail::require_finite(slopes_, "posenc::Alibi: slopes must be finite");
    detail::require(anchor == 0 || form == AlibiForm::key_only,
                    "posenc::Alibi: anchor must be 0 for a form other than key_only", anchor);
  }

  Index num_heads() const { return slopes_.size(); }
  const Vector<double>& slopes() const { return slopes_; }
  AlibiForm form() const { return form_; }

  /// Whether the bias depends on key - query alone, and then its value there; see DistanceBias.
  bool is_by_distance() const { return form_ != AlibiForm::key_only; }
  double at_distance(std::int64_t key_minus_query, Index head) const {
    require_head(head);
    return at_offset(static_cast<double>(key_minus_query), slopes_[head]);
  }

  /// The extremes in a tile; see BoundedBias.
  BiasBounds bounds(const Positions& key_positions, const Positions& query_positions, Index head) const {
    require_head(head);
    const double slope = slopes_[head];
    if (form_ == AlibiForm::key_only) {
      const PositionRange keys = range(key_positions);
      const double a = slope * detail::offset(keys.first, anchor_), b = slope * detail::offset(keys.last, anchor_);
      return {std::min(a, b), std::max(a, b)};
    }
    const auto [first, last] = detail::offsets(key_positions, query_positions);
    const double nearest = first > 0 ? first : last < 0 ? -last : 0, farthest = std::max(-first, last);
    const double a = -slope * nearest, b = -slope * farthest;
    if (form_ == AlibiForm::causal && last > 0) {
      constexpr double hidden = -std::numeric_limits<double>::infinity();
      return {hidden, first > 0 ? hidden : std::max(0.0, -slope * -first)};
    }
    return {std::min(a, b), std::max(a, b)};
  }

  /// The bias of one score.
  double bias(std::int64_t key_position, std::int64_t query_position, Index head) const {
    if (form_ == AlibiForm::key_only) return slopes_[head] * detail::offset(key_position, anchor_);
    return at_offset(detail::offset(key_position, query_position), slopes_[head]);
  }

  template <MutableDense Scores>
  void operator()(Scores&& scores, const Positions& key_positions, const Positions& query_positions,
                  Index head = 0) const {
    detail::require_tile(scores, key_positions, query_positions, "posenc::Alibi");
    require_head(head);
    using Scalar = typename std::remove_cvref_t<Scores>::Scalar;
    if (!std::is_same_v<Scalar, detail::compute_t<Scalar>> && is_by_distance())  // half and bfloat16
      detail::add_by_distance(scores, key_positions, query_positions,
                              [&](double offset) { return at_offset(offset, slopes_[head]); });
    else if (detail::are_lines(key_positions, query_positions))
      add_to_lines(scores, key_positions, query_positions, slopes_[head]);
    else
      detail::for_each_score(scores, [&](Index key, Index query, auto& score) {
        detail::add(score, bias(key_positions[key], query_positions[query], head));
      });
  }

  /// The hook of ScoreBias.
  template <MutableDense Scores>
  void add_bias(Scores&& scores, const Positions& key_positions, const Positions& query_positions,
                Index head = 0) const {
    (*this)(scores, key_positions, query_positions, head);
  }

 private:
  double at_offset(double key_minus_query, double slope) const {
    if (form_ == AlibiForm::causal && key_minus_query > 0) return -std::numeric_limits<double>::infinity();
    return -slope * std::abs(key_minus_query);
  }

  void require_head(Index head) const {
    detail::require_in_range(head >= 0 && head < num_heads(), "posenc::Alibi: head must be below num_heads", head);
  }

  /// Contiguous positions: two linear pieces in each column or row, on both sides of the diagonal.
  template <class Scores>
  void add_to_lines(Scores& scores, const Positions& key_positions, const Positions& query_positions,
                    double slope) const {
    if (scores.size() == 0) return;
    constexpr bool by_key = std::remove_cvref_t<Scores>::IsRowMajor;  // a row: the queries of a key
    const auto add_to_line = [&](auto line, double offset) {          // inner - outer position of its first score
      const Index n = line.size();
      const auto before = static_cast<Index>(std::clamp(-offset, 0.0, static_cast<double>(n)));  // offsets < 0
      const double after = offset + static_cast<double>(before);
      constexpr double hidden = -std::numeric_limits<double>::infinity();
      if (form_ == AlibiForm::causal && by_key)
        detail::add_constant(line, 0, before, hidden);
      else
        detail::add_linear(line, 0, before, offset, slope);
      if (form_ == AlibiForm::causal && !by_key) {
        const Index visible = std::min(before + (after == 0 ? 1 : 0), n);  // the query itself
        detail::add_constant(line, visible, n - visible, hidden);
      } else {
        detail::add_linear(line, before, n - before, after, -slope);
      }
    };
    for (Index outer = 0; outer < (by_key ? scores.rows() : scores.cols()); ++outer) {
      if constexpr (by_key) {
        if (form_ == AlibiForm::key_only)
          detail::add_constant(scores.row(outer), 0, scores.cols(),
                               slope * detail::offset(key_positions[outer], anchor_));
        else
          add_to_line(scores.row(outer), detail::offset(query_positions[0], key_positions[outer]));
      } else {
        if (form_ == AlibiForm::key_only)
          detail::add_linear(scores.col(outer), 0, scores.rows(), detail::offset(key_positions[0], anchor_), slope);
        else
          add_to_line(scores.col(outer), detail::offset(key_positions[0], query_positions[outer]));
      }
    }
  }

  static Vector<double> padded(const Vector<double>& slopes, const AlibiOptions& options) {
    if (options.total_heads == 0) return slopes;
    detail::require(options.total_heads >= options.num_heads, "posenc::Alibi: total_heads must be at least num_heads",
                    options.total_heads);
    Vector<double> all(options.total_heads);
    for (Index h = 0; h < all.size(); ++h) all[h] = h < slopes.size() ? slopes[h] : 0;
    return all;
  }

  Vector<double> slopes_;
  AlibiForm form_;
  std::int64_t anchor_;
};

}  // namespace posenc::inline v0
