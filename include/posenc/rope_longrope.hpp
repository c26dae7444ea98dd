// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <optional>

#include <posenc/concepts.hpp>
#include <posenc/detail/check.hpp>
#include <posenc/rope_frequencies.hpp>

namespace posenc::inline v0 {

/// The fields of a LongRoPE ("su") configuration.
struct LongRopeOptions {
  Vector<double> short_factors;                ///< rotary_dim / 2 numbers, for sequences of at most L tokens
  Vector<double> long_factors;                 ///< and for longer ones
  Index original_max_position_embeddings = 0;  ///< L, the trained length
  double factor = 1;                           ///< how many times longer: max_position_embeddings / L if not configured
  std::optional<double> attention_factor{};    ///< the magnitude, if it is given
};

/// The magnitude that LongRoPE gives to a factor s: sqrt(1 + ln s / ln L), and 1 for a factor of at most 1.
///
///   s = 32, L = 4096 -> 1.19024
///
/// \throws std::invalid_argument if L is below 2.
inline double longrope_magnitude(double factor, Index original_max_position_embeddings) {
  detail::require(original_max_position_embeddings > 1,
                  "posenc::longrope_magnitude: original_max_position_embeddings must be above 1",
                  original_max_position_embeddings);
  if (factor <= 1) return 1;
  return std::sqrt(1 + std::log(factor) / std::log(static_cast<double>(original_max_position_embeddings)));
}

/// LongRoPE: every frequency has a divisor of its own, found by search; one list for short sequences, one for long
/// ones.
///
///   w_i = base^(-2 i / r) / f_i         f = long_factors if num_tokens > L, else short_factors
///
///   pair      0     1    ...  47         Phi-3.5-mini, r = 96, L = 4096
///   short     1.00  1.02 ...  2.84
///   long      1.08  1.11 ...  64.84
///
/// L itself is short. A sequence that grows past L changes all its frequencies, and keys that were rotated before do
/// not fit the new ones: move them (move_keys in rope_move.hpp), or choose num_tokens once.
///
/// \param num_tokens the length of the sequence, cache included: the largest position + 1.
/// \throws std::invalid_argument as rope_frequencies and `divided`, and if L is below 2, num_tokens negative, or a
///         factor not positive and finite.
/// Accuracy: values + low_parts is within 1e-30, relatively.
/// Source:   Ding et al. 2024, LongRoPE, arXiv:2402.13753v1, section 3; the magnitude as in Phi-3's published code.
inline RopeFrequencies longrope_frequencies(Index rotary_dim, double base, const LongRopeOptions& options,
                                            Index num_tokens) {
  const Index trained = options.original_max_position_embeddings;
  detail::require(trained > 1, "posenc::longrope_frequencies: original_max_position_embeddings must be above 1",
                  trained);
  detail::require(num_tokens >= 0, "posenc::longrope_frequencies: num_tokens must not be negative", num_tokens);
  detail::require(options.factor > 0 && std::isfinite(options.factor),
                  "posenc::longrope_frequencies: factor must be positive and finite", options.factor);
  const RopeFrequencies plain = rope_frequencies(rotary_dim, base);
  RopeFrequencies in_short = divided(plain, options.short_factors);  // both lists are checked, whichever is used
  RopeFrequencies in_long = divided(plain, options.long_factors);
  RopeFrequencies frequencies = num_tokens > trained ? std::move(in_long) : std::move(in_short);
  frequencies.magnitude = options.attention_factor.value_or(longrope_magnitude(options.factor, trained));
  detail::require(frequencies.magnitude > 0 && std::isfinite(frequencies.magnitude),
                  "posenc::longrope_frequencies: attention_factor must be positive and finite", frequencies.magnitude);
  return frequencies;
}

}  // namespace posenc::inline v0
