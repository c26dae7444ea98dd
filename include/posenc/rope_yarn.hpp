// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <optional>

#include <posenc/concepts.hpp>
#include <posenc/detail/angle.hpp>
#include <posenc/detail/check.hpp>
#include <posenc/rope_frequencies.hpp>

namespace posenc::inline v0 {

/// The fields of a YaRN configuration, with their usual names and defaults.
struct YarnOptions {
  double factor = 1;                           ///< how many times longer than trained
  Index original_max_position_embeddings = 0;  ///< the trained length L
  double beta_fast = 32;                       ///< pairs that turn more often than this within L keep their frequency
  double beta_slow = 1;                        ///< pairs that turn less often are interpolated: divided by factor
  bool truncate = true;                        ///< whether the ends of the ramp are rounded to whole pairs
  double extrapolation = 1;                    ///< share of the kept frequencies; ggml's ext_factor
  std::optional<double> attention_factor{};    ///< the magnitude, if it is given
  std::optional<double> mscale{};              ///< else: with both of these, the quotient of their magnitudes
  std::optional<double> mscale_all_dim{};
};

/// The magnitude that YaRN gives to a factor: 1 + 0.1 mscale ln(factor), and 1 for a factor of at most 1.
///
///   factor 4 -> 1.13863      factor 16 -> 1.27726
///
/// Models of the DeepSeek kind also multiply the scale of their softmax by yarn_magnitude(factor, mscale_all_dim)^2.
inline double yarn_magnitude(double factor, double mscale = 1) {
  return factor <= 1 ? 1 : 0.1 * mscale * std::log(factor) + 1;
}

/// YaRN ("NTK by parts"): fast pairs keep their frequency, slow ones are interpolated, with a ramp between them.
///
///   c(beta) = r ln(L / (2 pi beta)) / (2 ln base)     the pair that turns beta times within L
///   g_i     = clip((i - low) / (high - low), 0, 1)    low = c(beta_fast), high = c(beta_slow)
///   w_i     = base^(-2 i / r) ((1 - g_i) + g_i / factor)
///
///   pair        0   ...   low   ...   high   ...   r/2 - 1
///   divided by  1    1     1    ramp  factor  ...   factor
///
/// With `truncate` low is rounded down and high up; both are kept within 0 and r - 1, and a ramp that would be empty or
/// run backwards is a step of 0.001 pairs. The magnitude, which multiplies the rotated features and so the scores by
/// its square, is attention_factor if given, else the quotient of the magnitudes of mscale and mscale_all_dim if both
/// are given and not zero, else yarn_magnitude(factor).
///
/// \throws std::invalid_argument if rotary_dim is odd or not positive, base is not above 1 and finite, or a field is
///         out of its range.
/// Accuracy: values + low_parts is within 1e-30, relatively.
/// Source: Peng et al. 2023, YaRN, arXiv:2309.00071v2, equations (20) to (23); the rounding and the clipping to r - 1
///         are those of its published code, Hugging Face and ggml.
inline RopeFrequencies yarn_rope_frequencies(Index rotary_dim, double base, const YarnOptions& options) {
  const auto positive = [](double value, const char* rule) {
    detail::require(value > 0 && std::isfinite(value), rule, value);
  };
  detail::require(base > 1, "posenc::yarn_rope_frequencies: base must be above 1", base);
  detail::require(options.original_max_position_embeddings > 0,
                  "posenc::yarn_rope_frequencies: original_max_position_embeddings must be positive",
                  options.original_max_position_embeddings);
  positive(options.factor, "posenc::yarn_rope_frequencies: factor must be positive and finite");
  positive(options.beta_fast, "posenc::yarn_rope_frequencies: beta_fast must be positive and finite");
  positive(options.beta_slow, "posenc::yarn_rope_frequencies: beta_slow must be positive and finite");
  detail::require(options.extrapolation >= 0 && options.extrapolation <= 1,
                  "posenc::yarn_rope_frequencies: extrapolation must be between 0 and 1", options.extrapolation);

  using detail::DoubleDouble;
  const RopeFrequencies plain = rope_frequencies(rotary_dim, base);
  const auto r = static_cast<double>(rotary_dim),
             length = static_cast<double>(options.original_max_position_embeddings);
  const DoubleDouble log_base = detail::log(base);
  const auto pair_that_turns = [&](double times) {
    const DoubleDouble log_turns = detail::log(length) - detail::log(times) - detail::log(detail::pi + detail::pi);
    return DoubleDouble{r} * log_turns / (log_base + log_base);
  };
  DoubleDouble low = pair_that_turns(options.beta_fast), high = pair_that_turns(options.beta_slow);
  if (options.truncate) {
    low = {std::floor(low.high)};
    high = {std::ceil(high.high)};
  }
  if (low.high < 0) low = {0};
  if (high.high > r - 1) high = {r - 1};
  DoubleDouble ramp_length = high - low;
  if (ramp_length.high < 0.001) ramp_length = {0.001};

  RopeFrequencies frequencies = detail::make_frequencies(plain.size(), [&](Index i) {
    DoubleDouble ramp = (DoubleDouble{static_cast<double>(i)} - low) / ramp_length;
    if (ramp.high < 0) ramp = {0};
    if (ramp.high > 1) ramp = {1};
    const DoubleDouble kept = (DoubleDouble{1} - ramp) * DoubleDouble{options.extrapolation};
    return plain.exact(i) * (kept + (DoubleDouble{1} - kept) / options.factor);
  });
  if (options.attention_factor)
    frequencies.magnitude = *options.attention_factor;
  else if (options.mscale.value_or(0) != 0 && options.mscale_all_dim.value_or(0) != 0)
    frequencies.magnitude =
        yarn_magnitude(options.factor, *options.mscale) / yarn_magnitude(options.factor, *options.mscale_all_dim);
  else
    frequencies.magnitude = yarn_magnitude(options.factor);
  positive(frequencies.magnitude, "posenc::yarn_rope_frequencies: the magnitude must be positive and finite");
  return frequencies;
}

}  // namespace posenc::inline v0
