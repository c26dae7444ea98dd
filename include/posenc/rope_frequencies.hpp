// SPDX-License-Identifier: MIT
#pragma once

#include <Eigen/Core>
#include <utility>

#include <posenc/concepts.hpp>
#include <posenc/detail/angle.hpp>
#include <posenc/detail/check.hpp>

namespace posenc::inline v0 {

/// How fast each pair of features turns. Frequencies are data: Rope takes any vector of them.
///
///   RopeFrequencies mine{.values = my_vector};      // radians per position, one entry a pair
///
/// A frequency that comes from a formula is known to more digits than a double holds; `low_parts` carries the rest, so
/// that angles stay exact at large positions. It is either empty, when `values` are meant exactly, or of the same size.
struct RopeFrequencies {
  Vector<double> values;     ///< rotary_dim / 2 entries, in radians per position
  Vector<double> low_parts;  ///< what is to be added to `values`; empty means zero
  double magnitude = 1;      ///< multiplies the rotated features (YaRN, LongRoPE); 1 keeps norms

  Index size() const { return values.size(); }
};

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
  detail::require(rotary_dim > 0, "posenc::rope_frequencies: rotary_dim must be positive", rotary_dim);
  detail::require(rotary_dim % 2 == 0, "posenc::rope_frequencies: rotary_dim must be even", rotary_dim);
  detail::require(base > 0 && std::isfinite(base), "posenc::rope_frequencies: base must be positive and finite", base);
  RopeFrequencies frequencies{.values = Vector<double>(rotary_dim / 2), .low_parts = Vector<double>(rotary_dim / 2)};
  for (Index i = 0; i < rotary_dim / 2; ++i) {
    const auto frequency =
        detail::geometric_frequency(base, static_cast<double>(2 * i), static_cast<double>(rotary_dim));
    frequencies.values[i] = frequency.high;
    frequencies.low_parts[i] = frequency.low;
  }
  return frequencies;
}

}  // namespace posenc::inline v0
