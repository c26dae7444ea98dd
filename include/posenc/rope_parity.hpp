// SPDX-License-Identifier: MIT
#pragma once

// Tables with the rounding errors of other systems, so that a port can be compared with its origin number by number.
// They are wrong by up to 0.1 at a million tokens, as their origins are: for everything else make a RopeTable of a
// Rope.

#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <utility>

#include <posenc/concepts.hpp>
#include <posenc/detail/check.hpp>
#include <posenc/rope.hpp>
#include <posenc/rope_table.hpp>

namespace posenc::inline v0 {

/// The frequencies of the paper as PyTorch computes them in float32: 1 / base^(2 i / rotary_dim), the exponent, the
/// power and the quotient each rounded to float. Where a checkpoint stores its inv_freq, take that instead: a power in
/// float differs by an ulp from library to library, and an ulp of the frequency is 0.06 radians at a million tokens.
/// \throws std::invalid_argument as rope_frequencies.
inline RopeFrequencies float32_rope_frequencies(Index rotary_dim, double base = 10000) {
  detail::require_base(rotary_dim, base);
  RopeFrequencies frequencies{.values = Vector<double>(rotary_dim / 2)};
  for (Index i = 0; i < rotary_dim / 2; ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(rotary_dim);
    frequencies.values[i] = 1.0f / std::pow(static_cast<float>(base), exponent);
  }
  return frequencies;
}

/// A table whose angles are formed in float32, float(position) * float(frequency), as PyTorch, Hugging Face, Meta and
/// torchtune do.
///
/// \param rope frequencies (rounded to float here), magnitude, features and layout.
/// Parity: the angles are bit for bit those of the origin when the frequencies are; cosine and sine are within 1 ulp of
///         float of the origin's, whose mathematics library may be another.
/// \throws std::invalid_argument if num_positions is negative.
inline RopeTable<float> float32_rope_table(const Rope& rope, Index num_positions, std::int64_t first = 0) {
  detail::require(num_positions >= 0, "posenc::float32_rope_table: num_positions must not be negative", num_positions);
  const RopeFrequencies& frequencies = rope.frequencies();
  Matrix<float> cos(frequencies.size(), num_positions), sin(frequencies.size(), num_positions);
  const auto magnitude = static_cast<float>(frequencies.magnitude);
  for (Index t = 0; t < num_positions; ++t)
    for (Index i = 0; i < frequencies.size(); ++i) {
      const float angle = static_cast<float>(first + t) * static_cast<float>(frequencies.values[i]);
      cos(i, t) = std::cos(angle) * magnitude;
      sin(i, t) = std::sin(angle) * magnitude;
    }
  return {rope, std::move(cos), std::move(sin), first};
}

/// The arguments of ggml_rope_ext, under its names.
struct GgmlRopeOptions {
  Index n_dims = 0;  ///< how many features rotate
  float freq_base = 10000;
  float freq_scale = 1;   ///< 1 / factor
  float ext_factor = 0;   ///< not 0: YaRN
  float attn_factor = 1;  ///< magnitude; ggml multiplies it by 1 + 0.1 ln(1 / freq_scale) if ext_factor is not 0
  float beta_fast = 32;
  float beta_slow = 1;
  Index n_ctx_orig = 0;
  Vector<float> freq_factors{};  ///< n_dims / 2 divisors of the angles, or none
  bool restart_axes = false;     ///< whether the progression begins anew with every axis of the pairs (VISION)
};

/// A table whose angles come from repeated multiplication in float32, theta *= freq_base^(-2 / n_dims), as in ggml and
/// llama.cpp, YaRN included.
///
/// \param rope features, layout and axes; its frequencies and magnitude are not used.
/// Parity: the order of the float32 operations is ggml's, and in the mix of YaRN one product is fused with the sum, as
///         in a ggml that is compiled for a processor with FMA (its default). One that is compiled for another, or with
///         another C library (cosf, sinf, powf and logf are from there), has angles that differ by an ulp or two.
/// \throws std::invalid_argument if a number does not fit the Rope, or is out of its range.
inline RopeTable<float> ggml_rope_table(const Rope& rope, const GgmlRopeOptions& options, Index num_positions,
                                        std::int64_t first = 0) {
  const Index pairs = rope.frequencies().size();
  detail::require(num_positions >= 0, "posenc::ggml_rope_table: num_positions must not be negative", num_positions);
  detail::require(options.n_dims > 0 && options.n_dims % 2 == 0,
                  "posenc::ggml_rope_table: n_dims must be positive and even", options.n_dims);
  detail::require(options.freq_base > 0, "posenc::ggml_rope_table: freq_base must be positive", options.freq_base);
  detail::require(options.freq_scale > 0, "posenc::ggml_rope_table: freq_scale must be positive", options.freq_scale);
  if (options.ext_factor != 0) {
    detail::require(options.n_ctx_orig > 0, "posenc::ggml_rope_table: n_ctx_orig must be positive", options.n_ctx_orig);
    detail::require(options.beta_fast > 0 && options.beta_slow > 0,
                    "posenc::ggml_rope_table: beta_fast and beta_slow must be positive", options.beta_slow);
  }
  if (options.freq_factors.size() != 0)
    detail::require_size(options.freq_factors.size(), pairs,
                         "posenc::ggml_rope_table: freq_factors must be as many as the pairs");

  const auto dims = static_cast<float>(options.n_dims);
  const float step = std::pow(options.freq_base, -2.0f / dims);
  float low = 0, high = 0, magnitude = options.attn_factor;
  if (options.ext_factor != 0) {
    const auto pair_that_turns = [&](float times) {
      const float turns = static_cast<float>(options.n_ctx_orig) / (times * 2 * std::numbers::pi_v<float>);
      return dims * std::log(turns) / (2 * std::log(options.freq_base));
    };
    low = std::max(0.0f, std::floor(pair_that_turns(options.beta_fast)));
    high = std::min(dims - 1, std::ceil(pair_that_turns(options.beta_slow)));
    magnitude *= 1.0f + 0.1f * std::log(1.0f / options.freq_scale);
  }

  Matrix<float> cos(pairs, num_positions), sin(pairs, num_positions);
  for (Index t = 0; t < num_positions; ++t) {
    const auto position = static_cast<float>(first + t);
    float theta = position;
    for (Index i = 0; i < pairs; ++i) {
      if (options.restart_axes && i > 0 && rope.frequencies().axis(i) != rope.frequencies().axis(i - 1))
        theta = position;
      const float extrapolated = theta / (options.freq_factors.size() == 0 ? 1.0f : options.freq_factors[i]);
      float angle = options.freq_scale * extrapolated;
      if (options.ext_factor != 0) {
        const float ramp = (static_cast<float>(i) - low) / std::max(0.001f, high - low);  // i is not restarted
        const float kept = (1 - std::min(1.0f, std::max(0.0f, ramp))) * options.ext_factor;
        angle = std::fma(angle, 1 - kept, extrapolated * kept);  // as ggml's builds with FMA contract it
      }
      cos(i, t) = std::cos(angle) * magnitude;
      sin(i, t) = std::sin(angle) * magnitude;
      theta *= step;
    }
  }
  RopeFrequencies frequencies = rope.frequencies();
  frequencies.magnitude = magnitude;  // for apply_inverse, which takes it back
  return {Rope(std::move(frequencies), rope.options()), std::move(cos), std::move(sin), first};
}

}  // namespace posenc::inline v0
