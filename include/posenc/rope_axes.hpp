// SPDX-License-Identifier: MIT
#pragma once

// RoPE with several coordinates: an image in a text has a time, a row and a column. Each pair of features turns by one
// of them. Which one is part of the frequencies (RopeFrequencies::axes); the coordinates are part of the positions
// (Positions::axes), so Rope and every attention work unchanged.
//
//   RopeFrequencies f = rope_frequencies(128, 1e6);
//   f.axes = mrope_chunks({16, 24, 24});                          // Qwen2-VL: time, height, width
//   const Rope rope(f, {.head_dim = 128});
//   rope(q, Positions::axes(ids, 3));                             // ids: [3, T]

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

#include <posenc/concepts.hpp>
#include <posenc/detail/angle.hpp>
#include <posenc/detail/check.hpp>
#include <posenc/rope_frequencies.hpp>

namespace posenc::inline v0 {

/// M-RoPE in chunks: the first sections[0] pairs turn by axis 0, the next sections[1] by axis 1, and so on.
///
///   sections {2, 3, 3}   pairs [tt hhh www]          Qwen2-VL, Qwen2.5-VL; ggml MROPE
///
/// \throws std::invalid_argument if a section is negative.
/// Source: Wang et al. 2024, Qwen2-VL, arXiv:2409.12191v2, section 2.1; the order of the pairs from its published code.
inline std::vector<Index> mrope_chunks(const std::vector<Index>& sections) {
  std::vector<Index> axes;
  for (std::size_t axis = 0; axis < sections.size(); ++axis) {
    detail::require(sections[axis] >= 0, "posenc::mrope_chunks: a section must not be negative", sections[axis]);
    axes.insert(axes.end(), static_cast<std::size_t>(sections[axis]), static_cast<Index>(axis));
  }
  return axes;
}

/// Which axis turns the pairs of interleaved M-RoPE that no section reaches.
enum class MropeTail {
  time,   ///< axis 0: Hugging Face, vLLM
  extra,  ///< axis 3: ggml IMROPE, whose positions have a fourth row
};

/// M-RoPE interleaved: time, height and width take turns, as long as their sections last.
///
///   sections {4, 2, 2}      pairs [t h w t h w t t]     Qwen3-VL; ggml IMROPE
///   sections {2, 2, 2, 2}   pairs [t h w t h w e e]     ggml IMROPE with a fourth section
///
/// Pair i turns by height if i mod 3 = 1 and i < 3 sections[1], by width if i mod 3 = 2 and i < 3 sections[2]. The two
/// conventions differ in the others, unless the extra axis repeats the time.
///
/// \param sections time, height and width; with MropeTail::extra also a fourth, which adds pairs at the end.
/// \throws std::invalid_argument unless there are three sections (or the four of the extra axis), none of them negative.
/// Source: the published code of Qwen3-VL (time) and of ggml (extra).
inline std::vector<Index> mrope_interleaved(const std::vector<Index>& sections, MropeTail tail = MropeTail::time) {
  if (sections.size() != 4 || tail != MropeTail::extra)
    detail::require(sections.size() == 3, "posenc::mrope_interleaved: there must be three sections", sections.size());
  Index pairs = 0;
  for (const Index section : sections) {
    detail::require(section >= 0, "posenc::mrope_interleaved: a section must not be negative", section);
    pairs += section;
  }
  std::vector<Index> axes;
  for (Index i = 0; i < pairs; ++i) {
    const Index axis = i % 3;
    const bool reached = i < 3 * sections[static_cast<std::size_t>(axis)];
    axes.push_back(reached ? axis : tail == MropeTail::time ? 0 : 3);
  }
  return axes;
}

/// M-RoPE of ERNIE 4.5 VL: height and width alternate in front, time is behind.
///
///   sections {2, 2, 4} (height, width, time)   pairs [h w h w t t t t]
///
/// \throws std::invalid_argument unless there are three sections, none negative, the first two equal.
/// Source: the published code of ERNIE 4.5 VL.
inline std::vector<Index> mrope_ernie(const std::vector<Index>& sections) {
  detail::require(sections.size() == 3, "posenc::mrope_ernie: there must be three sections", sections.size());
  for (const Index section : sections)
    detail::require(section >= 0, "posenc::mrope_ernie: a section must not be negative", section);
  detail::require(sections[0] == sections[1], "posenc::mrope_ernie: the sections of height and width must be equal",
                  sections[1]);
  std::vector<Index> axes;
  for (Index i = 0; i < sections[0] + sections[1]; ++i) axes.push_back(1 + i % 2);
  axes.insert(axes.end(), static_cast<std::size_t>(sections[2]), 0);
  return axes;
}

/// Frequencies of several parts, one behind the other; part a turns by axis a.
///
///   joined({f, g})   pairs [f0 f1 ... | g0 g1 ...]
///
/// \throws std::invalid_argument if there is no part, or their magnitudes differ.
inline RopeFrequencies joined(std::span<const RopeFrequencies> parts) {
  detail::require(!parts.empty(), "posenc::joined: there must be at least one part", parts.size());
  RopeFrequencies all{.magnitude = parts.front().magnitude};
  Index pairs = 0;
  for (const RopeFrequencies& part : parts) pairs += part.size();
  all.values.resize(pairs);
  all.low_parts.resize(pairs);
  Index next = 0;
  for (std::size_t axis = 0; axis < parts.size(); ++axis) {
    detail::require(parts[axis].magnitude == all.magnitude, "posenc::joined: the magnitudes of all parts must be equal",
                    parts[axis].magnitude);
    for (Index i = 0; i < parts[axis].size(); ++i, ++next) {
      const detail::DoubleDouble frequency = parts[axis].exact(i);
      all.values[next] = frequency.high;
      all.low_parts[next] = frequency.low;
      all.axes.push_back(static_cast<Index>(axis));
    }
  }
  return all;
}

/// How the frequencies of an image are dealt out to its axes.
enum class AxialFrequencies {
  restart,  ///< every axis has the progression of rotary_dim / num_axes features: Qwen2-VL, Llama 4, ggml VISION
  strided,  ///< axis a has every num_axes-th frequency of the whole from number a on: Pixtral
};

/// RoPE on a grid, in any number of dimensions: an equal block of pairs for every axis.
///
///   num_axes 2, 8 pairs   [y y y y | x x x x]
///
///   restart   w = base^(-2 i / (rotary_dim / num_axes)),      i = 0, 1, ... in every block
///   strided   w = base^(-2 (num_axes i + a) / rotary_dim),    in the block of axis a
///
/// Which coordinate is axis 0 is the caller's choice: Qwen2-VL, Pixtral and ggml VISION have y first, Llama 4 has x
/// first and counts from 1 (position 0 for its class token).
///
/// \throws std::invalid_argument unless rotary_dim is a positive multiple of 2 num_axes, and base positive and finite.
/// Accuracy: values + low_parts is within 1e-30, relatively.
/// Source:   the published code of Qwen2-VL, Llama 4 and Pixtral.
inline RopeFrequencies axial_rope_frequencies(Index num_axes, Index rotary_dim, double base = 10000,
                                              AxialFrequencies dealt = AxialFrequencies::restart) {
  detail::require(num_axes > 0, "posenc::axial_rope_frequencies: num_axes must be positive", num_axes);
  detail::require(rotary_dim > 0 && rotary_dim % (2 * num_axes) == 0,
                  "posenc::axial_rope_frequencies: rotary_dim must be a positive multiple of 2 * num_axes", rotary_dim);
  const Index pairs = rotary_dim / 2 / num_axes;
  const bool restart = dealt == AxialFrequencies::restart;
  const RopeFrequencies progression = rope_frequencies(restart ? rotary_dim / num_axes : rotary_dim, base);
  RopeFrequencies all = detail::make_frequencies(num_axes * pairs, [&](Index pair) {
    const Index axis = pair / pairs, i = pair % pairs;
    return progression.exact(restart ? i : num_axes * i + axis);
  });
  for (Index pair = 0; pair < all.size(); ++pair) all.axes.push_back(pair / pairs);
  return all;
}

/// Frequencies for positions between -1 and 1 (RealPositions), as images have them in lucidrains' library ("pixel").
///
///   w_i = pi (1 + i (max_frequency / 2 - 1) / (n - 1)),   i = 0, ..., n - 1,   n = rotary_dim / 2
///
/// \throws std::invalid_argument unless rotary_dim is positive and even, and max_frequency finite.
/// Accuracy: values + low_parts is within 1e-30, relatively.
/// Source:   rotary-embedding-torch (lucidrains), freqs_for="pixel".
inline RopeFrequencies pixel_rope_frequencies(Index rotary_dim, double max_frequency = 10) {
  detail::require(rotary_dim > 0 && rotary_dim % 2 == 0,
                  "posenc::pixel_rope_frequencies: rotary_dim must be positive and even", rotary_dim);
  detail::require(std::isfinite(max_frequency), "posenc::pixel_rope_frequencies: max_frequency must be finite",
                  max_frequency);
  const Index pairs = rotary_dim / 2;
  const detail::DoubleDouble rise = detail::DoubleDouble{max_frequency / 2} - detail::DoubleDouble{1};
  return detail::make_frequencies(pairs, [&](Index i) {
    if (i == 0) return detail::pi;
    const detail::DoubleDouble share = rise * detail::DoubleDouble{static_cast<double>(i)};
    return detail::pi * (detail::DoubleDouble{1} + share / static_cast<double>(pairs - 1));
  });
}

}  // namespace posenc::inline v0
