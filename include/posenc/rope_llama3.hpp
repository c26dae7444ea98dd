// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>

#include <posenc/concepts.hpp>
#include <posenc/detail/angle.hpp>
#include <posenc/detail/check.hpp>
#include <posenc/rope_frequencies.hpp>

namespace posenc::inline v0 {

/// The fields of a Llama 3 configuration; the defaults are Llama 3.1's.
struct Llama3RopeOptions {
  double factor = 8;
  double low_freq_factor = 1;
  double high_freq_factor = 4;
  Index original_max_position_embeddings = 8192;
};

/// The frequencies of Llama 3.1 and later: pairs with a short wave keep their frequency, pairs with a long one are
/// slowed by `factor`, with a smooth transition between them.
///
///   turns = L w_i / (2 pi)                                 how often pair i turns within the trained length L
///   t     = (turns - low_freq_factor) / (high_freq_factor - low_freq_factor)
///
///   w'_i  = w_i                          turns > high_freq_factor
///           w_i ((1 - t) / factor + t)   between
///           w_i / factor                 turns < low_freq_factor
///
/// \throws std::invalid_argument as rope_frequencies, and if a factor is not positive and finite, high_freq_factor is
///         below low_freq_factor, or the length is not positive. Equal factors are a step (Llama 4).
/// Accuracy: values + low_parts is within 1e-30, relatively.
/// Source: the published code of Llama 3.1 (Meta 2024); Grattafiori et al. 2024, arXiv:2407.21783v3, section 3.
inline RopeFrequencies llama3_rope_frequencies(Index rotary_dim, double base, const Llama3RopeOptions& options = {}) {
  const auto positive = [](double value, const char* rule) {
    detail::require(value > 0 && std::isfinite(value), rule, value);
  };
  positive(options.factor, "posenc::llama3_rope_frequencies: factor must be positive and finite");
  positive(options.low_freq_factor, "posenc::llama3_rope_frequencies: low_freq_factor must be positive and finite");
  positive(options.high_freq_factor, "posenc::llama3_rope_frequencies: high_freq_factor must be positive and finite");
  detail::require(options.high_freq_factor >= options.low_freq_factor,
                  "posenc::llama3_rope_frequencies: high_freq_factor must be at least low_freq_factor",
                  options.high_freq_factor);
  detail::require(options.original_max_position_embeddings > 0,
                  "posenc::llama3_rope_frequencies: original_max_position_embeddings must be positive",
                  options.original_max_position_embeddings);
  using detail::DoubleDouble;
  const RopeFrequencies plain = rope_frequencies(rotary_dim, base);
  return detail::make_frequencies(plain.size(), [&](Index i) {
    const DoubleDouble frequency = plain.exact(i), slowed = frequency / options.factor;
    const DoubleDouble turns = DoubleDouble{static_cast<double>(options.original_max_position_embeddings)} * frequency /
                               (detail::pi + detail::pi);
    if (turns.high > options.high_freq_factor) return frequency;
    if (turns.high < options.low_freq_factor) return slowed;
    if (options.high_freq_factor == options.low_freq_factor) return frequency;  // on the step itself
    const DoubleDouble low{options.low_freq_factor}, high{options.high_freq_factor};
    const DoubleDouble t = (turns - low) / (high - low);
    return (DoubleDouble{1} - t) * slowed + t * frequency;
  });
}

}  // namespace posenc::inline v0
