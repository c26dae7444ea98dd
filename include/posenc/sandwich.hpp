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

/// The compression ratios of the heads: 8/H, 16/H, ..., 8. The later a head, the flatter its bias.
/// \throws std::invalid_argument if num_heads is not positive.
inline Vector<double> sandwich_ratios(Index num_heads) {
  detail::require(num_heads > 0, "posenc::sandwich_ratios: num_heads must be positive", num_heads);
  Vector<double> ratios(num_heads);
  for (Index h = 0; h < num_heads; ++h) ratios[h] = 8 * static_cast<double>(h + 1) / static_cast<double>(num_heads);
  return ratios;
}

/// Which frequencies base^(-2i/dim) are summed.
enum class SandwichFrequencies {
  from_zero,  ///< i = 0, ..., dim/2 - 1: those of the sinusoidal encoding, as in the paper's code and attention-gym
  from_one,   ///< i = 1, ..., dim/2: as in NeMo
};

/// What is added to all scores alike. Softmax does not see it; rounding does.
enum class SandwichLevel {
  as_summed,           ///< nothing: a key at the query itself has dim/2 / ratio
  zero_at_distance_0,  ///< that is subtracted, so that no bias is positive, as in NeMo
};

struct SandwichOptions {
  Index num_heads = 0;  ///< heads, for which ratios are generated
  Index dim = 128;      ///< features of the sinusoidal encoding behind it: the paper's one parameter, even
  double base = 10000;
  SandwichFrequencies frequencies = SandwichFrequencies::from_zero;
  SandwichLevel level = SandwichLevel::as_summed;
  Index table_size = 2048;  ///< distances below it are computed once, at construction; the others whenever they are met
};

/// What is left of the sinusoidal encoding when only the product of two positions is kept: a bias that falls with the
/// distance roughly as a logarithm does, without a parameter to learn.
///
///   S(n, m) += 1 / r_h  sum_i cos((m - n) w_i)         w_i = base^(-2i/dim)
///            = 1 / r_h  <p_m, p_n>                     p = sinusoidal encoding of dim features
///   r_h      = 8 (h + 1) / H                           sandwich_ratios; or ratios of your own
///
///   |m - n|             0     1     2     4     8    16    64   256  1024       dim 128, r = 1
///   bias               64  62.1  57.4  48.6  45.7  39.7  30.5  20.5  13.1
///
/// The form with frequencies from 0 and ratios is that of the paper's own listing as others reproduce it; the one code
/// in wide use (NeMo) counts frequencies from 1 and sets the level to 0. Both are options here. No trained checkpoint
/// was at hand to decide between them.
///
/// \param scores          Tk x Tq, written in place: any storage order and stride; after the factor 1/sqrt(D).
/// \param key_positions   Tk entries, |position| <= 2^53.   \param query_positions   Tq entries, likewise.
/// \param head            0, ..., num_heads() - 1.
/// Accuracy: the sum is within 1e-13 dim of the formula, at any position; then it is rounded once.
/// Errors:   std::invalid_argument for a shape that does not fit, std::out_of_range for a head or a position; nothing
///           is written then.
/// Cost:     a sum and at most a look-up a score, dim/2 cosines for a distance that is not tabulated: once for 256 x 256
///           scores at contiguous positions. Allocates nothing.
/// Source:   Chi et al. 2023, arXiv:2212.10356v2, Sandwich.
class Sandwich {
 public:
  static constexpr bool is_relative = true;

  explicit Sandwich(Index num_heads) : Sandwich(SandwichOptions{.num_heads = num_heads}) {}

  /// \throws std::invalid_argument unless num_heads and base are positive, dim is positive and even, and table_size is
  ///         not negative.
  explicit Sandwich(const SandwichOptions& options) : Sandwich(sandwich_ratios(options.num_heads), options) {}

  /// With ratios of your own, one a head; options.num_heads is their number, or 0.
  template <DenseExpression Ratios>
  explicit Sandwich(const Ratios& ratios, const SandwichOptions& options = {})
      : ratios_(ratios.template cast<double>()), options_(options) {
    detail::require(ratios_.size() > 0, "posenc::Sandwich: there must be at least one ratio", ratios_.size());
    detail::require(options.num_heads == 0 || options.num_heads == ratios_.size(),
                    "posenc::Sandwich: num_heads must be 0 or the number of ratios", options.num_heads);
    for (const double ratio : ratios_)
      detail::require(ratio > 0 && std::isfinite(ratio), "posenc::Sandwich: a ratio must be positive and finite",
                      ratio);
    detail::require(options.dim > 0 && options.dim % 2 == 0, "posenc::Sandwich: dim must be positive and even",
                    options.dim);
    detail::require(options.base > 0 && std::isfinite(options.base),
                    "posenc::Sandwich: base must be positive and finite", options.base);
    detail::require(options.table_size >= 0, "posenc::Sandwich: table_size must not be negative", options.table_size);
    options_.num_heads = ratios_.size();
    factors_ = ratios_.cwiseInverse();
    const Index first = options.frequencies == SandwichFrequencies::from_zero ? 0 : 1;
    for (Index i = first; i < first + options.dim / 2; ++i)
      frequencies_.push_back(
          detail::geometric_frequency(options.base, static_cast<double>(2 * i), static_cast<double>(options.dim)));
    table_.resize(options.table_size);
    for (Index distance = 0; distance < options.table_size; ++distance)
      table_[distance] = sum(static_cast<double>(distance));
  }

  Index num_heads() const { return ratios_.size(); }
  const Vector<double>& ratios() const { return ratios_; }
  const SandwichOptions& options() const { return options_; }

  /// Depends on key - query alone; see DistanceBias.
  /// \throws std::out_of_range for a head that is not there; so does bounds.
  double at_distance(std::int64_t key_minus_query, Index head) const {
    require_head(head);
    return at(std::abs(static_cast<double>(key_minus_query)), head);
  }

  /// The extremes in a tile, where all its distances are in the table; the extremes at any distance otherwise. See
  /// BoundedBias.
  BiasBounds bounds(const Positions& key_positions, const Positions& query_positions, Index head) const {
    require_head(head);
    const auto [first, last] = detail::offsets(key_positions, query_positions);
    const double nearest = first > 0 ? first : last < 0 ? -last : 0, farthest = std::max(-first, last);
    if (farthest < static_cast<double>(table_.size())) {
      const auto [lowest, highest] = std::minmax_element(table_.begin() + static_cast<std::ptrdiff_t>(nearest),
                                                         table_.begin() + static_cast<std::ptrdiff_t>(farthest) + 1);
      return {factors_[head] * *lowest, factors_[head] * *highest};
    }
    const auto count = static_cast<double>(frequencies_.size());
    return {factors_[head] * (-count - level()), factors_[head] * (count - level())};
  }

  template <MutableDense Scores>
  void operator()(Scores&& scores, const Positions& key_positions, const Positions& query_positions,
                  Index head = 0) const {
    detail::require_tile(scores, key_positions, query_positions, "posenc::Sandwich");
    require_head(head);
    for (const Positions* positions : {&key_positions, &query_positions})
      detail::require_exact_positions(*positions, "posenc::Sandwich: |position| must be at most 2^53");
    const auto end_of_table = static_cast<double>(table_.size());
    const double factor = factors_[head];
    // One query or key at a time, as in decoding: no two scores are as far apart, so nothing is kept for others.
    if (scores.size() > 0 && (scores.cols() == 1 || scores.rows() == 1) &&
        detail::are_lines(key_positions, query_positions)) {
      const double first = detail::offset(key_positions[0], query_positions[0]);
      const bool of_one_query = scores.cols() == 1;
      const double last = of_one_query ? first + static_cast<double>(scores.rows() - 1)
                                       : first - static_cast<double>(scores.cols() - 1);
      if (std::max(std::abs(first), std::abs(last)) < end_of_table)
        return of_one_query ? add_known(scores.col(0), static_cast<Index>(first), factor)
                            : add_known(scores.row(0), static_cast<Index>(-first), factor);
    }
    detail::add_by_distance(scores, key_positions, query_positions, [&](double offset) {
      const double distance = std::abs(offset);
      return factor * (distance < end_of_table ? table_[static_cast<Index>(distance)] : sum(distance));
    });
  }

  /// The hook of ScoreBias.
  template <MutableDense Scores>
  void add_bias(Scores&& scores, const Positions& key_positions, const Positions& query_positions,
                Index head = 0) const {
    (*this)(scores, key_positions, query_positions, head);
  }

 private:
  void require_head(Index head) const {
    detail::require_in_range(head >= 0 && head < num_heads(), "posenc::Sandwich: head must be below num_heads", head);
  }

  /// To a line of scores at offsets first, first + 1, ..., all of them in the table.
  template <class Line>
  void add_known(Line line, Index first, double factor) const {
    auto* const x = &line.coeffRef(0);
    const Index step = line.innerStride(), before = std::clamp<Index>(-first, 0, line.size());
    const double* const sums = table_.data();
    for (Index i = 0; i < before; ++i) detail::add(x[i * step], factor * sums[-first - i]);
    for (Index i = before; i < line.size(); ++i) detail::add(x[i * step], factor * sums[first + i]);
  }

  double level() const {
    return options_.level == SandwichLevel::as_summed ? 0 : static_cast<double>(frequencies_.size());
  }

  double sum(double distance) const {
    double sum = 0;
    for (const detail::DoubleDouble& frequency : frequencies_) sum += detail::cos_sin(distance, frequency).cos;
    return sum - level();
  }

  double at(double distance, Index head) const {
    const bool known = distance < static_cast<double>(table_.size());
    return factors_[head] * (known ? table_[static_cast<Index>(distance)] : sum(distance));
  }

  Vector<double> ratios_, factors_;  // 1 / ratio
  SandwichOptions options_;
  std::vector<detail::DoubleDouble> frequencies_;
  Vector<double> table_;  // sums, before the ratio
};

}  // namespace posenc::inline v0
