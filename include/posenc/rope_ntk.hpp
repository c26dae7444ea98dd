// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>

#include <posenc/concepts.hpp>
#include <posenc/detail/angle.hpp>
#include <posenc/detail/check.hpp>
#include <posenc/rope_frequencies.hpp>

namespace posenc::inline v0 {

namespace detail {

/// base^(-2 i / r) with the base times factor^(r / (r - 2)).
inline RopeFrequencies ntk_rope_frequencies(Index rotary_dim, double base, DoubleDouble factor) {
  require_base(rotary_dim, base);
  require(rotary_dim > 2, "posenc::ntk_rope_frequencies: rotary_dim must be above 2", rotary_dim);
  require(factor.high > 0 && std::isfinite(factor.high),
          "posenc::ntk_rope_frequencies: factor must be positive and finite", factor.high);
  const auto r = static_cast<double>(rotary_dim);
  const DoubleDouble log_base = log(base) + log(factor) * DoubleDouble{r} / (r - 2);
  return make_frequencies(rotary_dim / 2,
                          [&](Index i) { return geometric_frequency(log_base, static_cast<double>(2 * i), r); });
}

}  // namespace detail

/// NTK-aware scaling: a larger base, chosen so that the slowest frequency is divided by exactly `factor` and the
/// fastest stays as it is.
///
///   b'  = base * factor^(r / (r - 2))         r = rotary_dim
///   w_i = b'^(-2 i / r)
///
///   pair        0      1     ...    r/2 - 1
///   divided by  1   a little ...    factor
///
/// \throws std::invalid_argument if rotary_dim is odd or below 4 (the exponent divides by r - 2), or base or factor is
///         not a positive finite number.
/// Accuracy: values + low_parts is within 1e-30, relatively; so are those of the other schedules here.
/// Source:   "bloc97", NTK-Aware Scaled RoPE, 2023; Peng et al. 2023, YaRN, arXiv:2309.00071v2, section 3.1.
inline RopeFrequencies ntk_rope_frequencies(Index rotary_dim, double base, double factor) {
  return detail::ntk_rope_frequencies(rotary_dim, base, detail::DoubleDouble{factor});
}

/// NTK scaling with a fixed share of interpolation: every pair is slowed by factor^(2/r), the slowest by factor in all.
///
///   w_i = (base * factor)^(-2 i / r) * factor^(-2 / r)
///
/// \throws std::invalid_argument if rotary_dim is odd or not positive, or base or factor is not a positive finite
/// number. Source: the NTK-fixed scheme of vLLM and of bojone's "transformer-upgrade" series, 2023.
inline RopeFrequencies ntk_fixed_rope_frequencies(Index rotary_dim, double base, double factor) {
  detail::require_base(rotary_dim, base);
  detail::require(factor > 0 && std::isfinite(factor),
                  "posenc::ntk_fixed_rope_frequencies: factor must be positive and finite", factor);
  const auto r = static_cast<double>(rotary_dim);
  const detail::DoubleDouble log_factor = detail::log(factor), log_base = detail::log(base) + log_factor;
  return detail::make_frequencies(rotary_dim / 2, [&](Index i) {
    return detail::geometric_frequency(log_base, static_cast<double>(2 * i), r) *
           detail::geometric_frequency(log_factor, 2, r);
  });
}

/// NTK scaling with a share of interpolation that grows with the pair: the slowest frequency is divided by factor.
///
///   w_i = base^(-2 i / r) / exp(a (i + 1)^exponent),   a = ln(factor) / (r / 2)^exponent
///
/// \param exponent 0.625 in the original; 1 is geometric, and the same as ntk_fixed_rope_frequencies.
/// \throws std::invalid_argument if rotary_dim is odd or not positive, or base, factor or exponent is not a positive
///         finite number.
/// Source: the NTK-mixed scheme of vLLM and of bojone's "transformer-upgrade" series, 2023.
inline RopeFrequencies ntk_mixed_rope_frequencies(Index rotary_dim, double base, double factor,
                                                  double exponent = 0.625) {
  detail::require_base(rotary_dim, base);
  detail::require(factor > 0 && std::isfinite(factor),
                  "posenc::ntk_mixed_rope_frequencies: factor must be positive and finite", factor);
  detail::require(exponent > 0 && std::isfinite(exponent),
                  "posenc::ntk_mixed_rope_frequencies: exponent must be positive and finite", exponent);
  const Index pairs = rotary_dim / 2;
  const RopeFrequencies plain = rope_frequencies(rotary_dim, base);
  const detail::DoubleDouble log_factor = detail::log(factor);
  return detail::make_frequencies(pairs, [&](Index i) {
    const detail::DoubleDouble log_pair =
        detail::log(static_cast<double>(i + 1)) - detail::log(static_cast<double>(pairs));
    const detail::DoubleDouble share = detail::exp(detail::DoubleDouble{exponent} * log_pair);
    return plain.exact(i) / detail::exp(share * log_factor);
  });
}

/// What dynamic NTK scaling needs to know of a model.
struct DynamicNtkOptions {
  double factor = 1;
  Index max_position_embeddings = 0;  ///< the length that the model was trained for
};

/// Dynamic NTK scaling: the base grows with the length of the sequence, and is the model's own up to its trained
/// length.
///
///   T*  = max(num_tokens, max_position_embeddings)
///   w   = ntk_rope_frequencies(rotary_dim, base, factor * T* / max_position_embeddings - (factor - 1))
///
/// The frequencies change as a sequence grows, and keys that were rotated before do not fit the new ones: move them
/// (move_keys in rope_move.hpp), or choose num_tokens once for the longest sequence.
///
/// \param num_tokens the length of the sequence, cache included: the largest position + 1.
/// \throws std::invalid_argument as ntk_rope_frequencies, and if a length is not positive or the factor is below 1.
/// Source: "emozilla", dynamically scaled RoPE, 2023; Peng et al. 2023, arXiv:2309.00071v2, section 3.3.
inline RopeFrequencies dynamic_ntk_rope_frequencies(Index rotary_dim, double base, const DynamicNtkOptions& options,
                                                    Index num_tokens) {
  detail::require(options.max_position_embeddings > 0,
                  "posenc::dynamic_ntk_rope_frequencies: max_position_embeddings must be positive",
                  options.max_position_embeddings);
  detail::require(options.factor >= 1 && std::isfinite(options.factor),
                  "posenc::dynamic_ntk_rope_frequencies: factor must be at least 1", options.factor);
  detail::require(num_tokens >= 0, "posenc::dynamic_ntk_rope_frequencies: num_tokens must not be negative", num_tokens);
  const auto longest = static_cast<double>(std::max(num_tokens, options.max_position_embeddings));
  const auto trained = static_cast<double>(options.max_position_embeddings);
  using detail::DoubleDouble;
  const DoubleDouble factor = DoubleDouble{options.factor} * DoubleDouble{longest} / trained;
  return detail::ntk_rope_frequencies(rotary_dim, base, factor - (DoubleDouble{options.factor} - DoubleDouble{1}));
}

}  // namespace posenc::inline v0
