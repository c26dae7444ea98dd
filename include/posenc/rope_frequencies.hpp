// SPDX-License-Identifier: MIT
#pragma once

#include <Eigen/Core>
#include <cmath>
#include <span>
#include <utility>
#include <vector>

#include <posenc/concepts.hpp>
#include <posenc/detail/angle.hpp>
#include <posenc/detail/check.hpp>

namespace posenc::inline v0 {

/// How fast each pair of features turns. Frequencies are data: Rope takes any vector of them.
///
///   RopeFrequencies mine{.values = my_vector};      // radians per position, one entry a pair
///
/// A frequency that comes from a formula is known to more digits than a double holds; `low_parts` carries the rest, so
/// that angles stay exact at large positions. It is empty, when `values` are meant exactly, or of the same size.
struct RopeFrequencies {
  Vector<double> values = {};     ///< one entry a pair, in radians per position; negative turns the other way
  Vector<double> low_parts = {};  ///< what is to be added to `values`; empty means zero
  double magnitude = 1;           ///< multiplies the rotated features (YaRN, LongRoPE); 1 keeps norms
  std::vector<Index> axes = {};   ///< which axis of the positions turns a pair; empty means axis 0 for all

  Index size() const { return values.size(); }

  /// Frequency i with all its digits.
  detail::DoubleDouble exact(Index i) const { return {values[i], low_parts.size() == 0 ? 0 : low_parts[i]}; }

  /// The axis of the positions that turns pair i.
  Index axis(Index i) const { return axes.empty() ? 0 : axes[static_cast<std::size_t>(i)]; }
};

namespace detail {

/// n frequencies from a function of their number.
template <class Frequency>
RopeFrequencies make_frequencies(Index n, Frequency frequency) {
  RopeFrequencies frequencies{.values = Vector<double>(n), .low_parts = Vector<double>(n)};
  for (Index i = 0; i < n; ++i) {
    const DoubleDouble exact = frequency(i);
    frequencies.values[i] = exact.high;
    frequencies.low_parts[i] = exact.low;
  }
  return frequencies;
}

inline void require_base(Index rotary_dim, double base) {
  require(rotary_dim > 0, "posenc::rope_frequencies: rotary_dim must be positive", rotary_dim);
  require(rotary_dim % 2 == 0, "posenc::rope_frequencies: rotary_dim must be even", rotary_dim);
  require(base > 0 && std::isfinite(base), "posenc::rope_frequencies: base must be positive and finite", base);
}

}  // namespace detail

/// The frequencies of the paper: a geometric progression from 1 radian per position down to almost 1 / base.
///
///   w_i = base^(-2 i / rotary_dim),   i = 0, ..., rotary_dim / 2 - 1
///
/// \param rotary_dim how many features rotate; even.
/// \param base       called rope_theta in model configurations: 10000 in most, 500000 in Llama 3.
/// \throws std::invalid_argument if rotary_dim is odd or not positive, or base is not a positive finite number.
/// Accuracy: values + low_parts is within 1e-30 of w_i, relatively.
/// Source:   Su et al. 2021, RoFormer, arXiv:2104.09864v5, section 3.2.2 (base 10000).
inline RopeFrequencies rope_frequencies(Index rotary_dim, double base = 10000) {
  detail::require_base(rotary_dim, base);
  const detail::DoubleDouble log_base = detail::log(base);
  return detail::make_frequencies(rotary_dim / 2, [&](Index i) {
    return detail::geometric_frequency(log_base, static_cast<double>(2 * i), static_cast<double>(rotary_dim));
  });
}

/// Frequencies divided one by one: w_i / factors(i). ggml's freq_factors, the short and long lists of LongRoPE.
/// \throws std::invalid_argument unless there are as many factors as frequencies, all positive and finite.
template <DenseExpression Factors>
RopeFrequencies divided(const RopeFrequencies& frequencies, const Factors& factors) {
  detail::require_size(factors.size(), frequencies.size(),
                       "posenc::divided: the number of factors must be the number of frequencies");
  for (Index i = 0; i < factors.size(); ++i)
    detail::require(factors(i) > 0 && std::isfinite(static_cast<double>(factors(i))),
                    "posenc::divided: factors must be positive and finite", static_cast<double>(factors(i)));
  RopeFrequencies result = detail::make_frequencies(
      frequencies.size(), [&](Index i) { return frequencies.exact(i) / static_cast<double>(factors(i)); });
  result.magnitude = frequencies.magnitude;
  result.axes = frequencies.axes;
  return result;
}

/// Position interpolation ("linear"): all frequencies divided by one factor, as if positions were that much closer.
/// \throws std::invalid_argument unless the factor is positive and finite.
/// Source: Chen et al. 2023, arXiv:2306.15595v2, equation (4).
inline RopeFrequencies divided(const RopeFrequencies& frequencies, double factor) {
  return divided(frequencies, Vector<double>::Constant(frequencies.size(), factor));
}

/// The same rotation the other way round: frequencies with their signs changed. (NanoChat turns this way.)
inline RopeFrequencies reversed(RopeFrequencies frequencies) {
  for (double& w : frequencies.values) w = -w;
  for (double& w : frequencies.low_parts) w = -w;
  return frequencies;
}

/// Proportional partial rotation, as Gemma 4 has it: of all pairs of a whole head the first few turn, at the
/// frequencies that they have in the whole head, and the others stand still.
///
///   w_i = base^(-2 i / head_dim) / factor   for i < rotary_dim / 2,   0 for the other pairs of the head
///
///   head_dim 8, rotary_dim 4, half_split   [ab..ab..]      (a prefix of 4 features would be [abab....])
///
/// Take it with RopeOptions::rotary_dim 0, the whole head.
/// \throws std::invalid_argument if a dimension is odd or not positive, rotary_dim above head_dim, or base or factor
///         not a positive finite number.
/// Source: the rope_type "proportional" of transformers 5, for Gemma 4.
inline RopeFrequencies proportional_rope_frequencies(Index head_dim, Index rotary_dim, double base = 10000,
                                                     double factor = 1) {
  detail::require_base(rotary_dim, base);
  detail::require(rotary_dim <= head_dim, "posenc::proportional_rope_frequencies: rotary_dim must be at most head_dim",
                  rotary_dim);
  RopeFrequencies frequencies = divided(rope_frequencies(head_dim, base), factor);
  for (Index i = rotary_dim / 2; i < frequencies.size(); ++i) frequencies.values[i] = frequencies.low_parts[i] = 0;
  return frequencies;
}

}  // namespace posenc::inline v0
