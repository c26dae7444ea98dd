// SPDX-License-Identifier: MIT

// ggml's rotations, all modes: ggml_rope.

#include <posenc/rope.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include <posenc/rope_axes.hpp>
#include <posenc/rope_parity.hpp>
#include <posenc/rope_yarn.hpp>

#include "files.hpp"
#include "rotations.hpp"

namespace golden {
namespace {

/// Which axis turns which pair. Empty for one axis.
std::vector<Index> axes_of_pairs(Case& c, const std::string& mode, Index num_pairs) {
  if (mode == "NORMAL" || mode == "NEOX") return {};
  const auto sections = c.get<std::vector<Index>>("sections");
  std::vector<Index> pair_axes;
  if (mode == "IMROPE") {
    pair_axes = posenc::mrope_interleaved(sections, posenc::MropeTail::extra);
  } else if (mode == "MROPE" || mode == "VISION") {
    pair_axes = posenc::mrope_chunks(sections);
  } else {
    throw UnknownKind("mode " + mode);
  }
  if (pair_axes.empty()) throw UnknownKind("sections that are empty");
  const std::size_t period = pair_axes.size();  // sections that are too short begin again, those too long are cut
  pair_axes.resize(static_cast<std::size_t>(num_pairs));
  for (std::size_t i = period; i < pair_axes.size(); ++i) pair_axes[i] = pair_axes[i - period];
  return pair_axes;
}

/// What ggml's arguments mean, without its rounding.
RopeFrequencies exact_frequencies(Case& c, const posenc::GgmlRopeOptions& ggml, const std::vector<Index>& pair_axes) {
  const double factor = 1 / static_cast<double>(ggml.freq_scale);
  double low = 0, high = 0;  // of the ramp
  const auto stretched = [&](Index pair) {
    const double ramp = std::clamp((static_cast<double>(pair) - low) / std::max(0.001, high - low), 0.0, 1.0);
    const double kept = (1 - ramp) * static_cast<double>(ggml.ext_factor);
    return kept + (1 - kept) / factor;
  };
  RopeFrequencies progression;
  if (ggml.ext_factor == 0) {
    progression = posenc::divided(posenc::rope_frequencies(ggml.n_dims, ggml.freq_base), factor);
    progression.magnitude = ggml.attn_factor;
  } else {
    progression = posenc::yarn_rope_frequencies(
        ggml.n_dims, ggml.freq_base,
        {.factor = factor,
         .original_max_position_embeddings = ggml.n_ctx_orig,
         .beta_fast = ggml.beta_fast,
         .beta_slow = ggml.beta_slow,
         .extrapolation = ggml.ext_factor,
         .attention_factor = static_cast<double>(ggml.attn_factor) * (1 + 0.1 * std::log(factor))});

    // The peer's ends of the ramp, in our frequencies.
    const auto ends = c.array<float>("yarn_corr_dims");
    low = static_cast<double>(ends(0));
    high = static_cast<double>(ends(1));
    const RopeFrequencies plain = posenc::rope_frequencies(ggml.n_dims, ggml.freq_base);
    Vector<double> expected(plain.size());
    for (Index i = 0; i < plain.size(); ++i) expected[i] = plain.values[i] * stretched(i);
    c.compare("frequencies between the given ends of the ramp", float_frequencies(), progression.values, expected);
  }
  if (ggml.restart_axes) {  // the progression begins again in every section, and the ramp does not
    Vector<double> values(static_cast<Index>(pair_axes.size()));
    Index in_axis = 0;
    for (std::size_t i = 0; i < pair_axes.size(); ++i) {
      in_axis = i > 0 && pair_axes[i] == pair_axes[i - 1] ? in_axis + 1 : 0;
      values[static_cast<Index>(i)] = std::pow(static_cast<double>(ggml.freq_base),
                                               -2 * static_cast<double>(in_axis) / static_cast<double>(ggml.n_dims)) *
                                      stretched(static_cast<Index>(i));
    }
    progression = {.values = values, .magnitude = progression.magnitude};
  }
  if (ggml.freq_factors.size() != 0) progression = posenc::divided(progression, ggml.freq_factors);
  progression.axes = pair_axes;
  return progression;
}

}  // namespace

void ggml_rope(Case& c) {
  const auto mode = c.get<std::string>("mode");
  const auto head_dim = c.get<Index>("head_dim");
  posenc::GgmlRopeOptions ggml{.n_dims = c.get<Index>("n_dims"),
                               .freq_base = c.get<float>("freq_base"),
                               .freq_scale = c.get<float>("freq_scale"),
                               .ext_factor = c.get<float>("ext_factor"),
                               .attn_factor = c.get<float>("attn_factor"),
                               .beta_fast = c.get<float>("beta_fast"),
                               .beta_slow = c.get<float>("beta_slow"),
                               .n_ctx_orig = c.get<Index>("n_ctx_orig"),
                               .restart_axes = mode == "VISION"};
  if (c.has_array("freq_factors")) ggml.freq_factors = c.array<float>("freq_factors").matrix().reshaped();
  // VISION turns the whole head, whose halves are n_dims long.
  const Index rotary_dim = mode == "VISION" ? 2 * ggml.n_dims : ggml.n_dims;
  const auto pair_axes = axes_of_pairs(c, mode, rotary_dim / 2);
  RopeFrequencies frequencies = exact_frequencies(c, ggml, pair_axes);
  const auto backward = c.get<bool>("backward");  // the gradient: the other way round, with the same magnitude
  if (backward) frequencies = posenc::reversed(frequencies);
  const RopeOptions options{.head_dim = head_dim,
                            .rotary_dim = rotary_dim,
                            .rotary_offset = c.get<Index>("n_offs"),
                            .layout = mode == "NORMAL" ? PairLayout::interleaved : PairLayout::half_split};
  const Rope rope(frequencies, options);

  const auto layout = posenc::TensorLayout::bthd;
  const Heads before = heads(c, "x", layout), after = heads(c, "out", layout);
  c.expect("n_heads", before.num_heads());
  const auto pos = c.array<std::int64_t>("pos");  // [seq] or [4, seq]
  const Index num_axes = pos.rank() == 2 ? pos.size(0) : 1;
  for (Index batch = 0; batch < before.num_batches(); ++batch)
    for (Index t = 0; t < before.num_tokens(); ++t) {
      std::vector<std::int64_t> here;
      for (Index axis = 0; axis < num_axes; ++axis) here.push_back(pos.data()[axis * before.num_tokens() + t]);
      const auto positions = Positions::axes(here, num_axes);
      const auto [first, last] = std::minmax_element(here.begin(), here.end());
      const auto farthest = static_cast<double>(std::max(std::abs(*first), std::abs(*last)));
      const Matrix<float> given = before.together(batch).col(t), peer = after.together(batch).col(t);

      Matrix<float> x = given;
      rope(x, positions);
      c.compare("x" + std::string(farthest > 2000 ? ", beyond 2000" : ""),
                Tolerance::absolute(1e-5 * std::max(1.0, farthest / 20), "1e-5 max(1, position/20)"), x, peer);

      // ggml's float32 arithmetic: the same angles, however inexact they are.
      const auto table = posenc::ggml_rope_table(rope, ggml, *last - *first + 1, *first);
      x = given;
      RopeTable<float>(rope, table.cos(), (backward ? -1.0f : 1.0f) * table.sin(), *first)(x, positions);
      const double size = std::max(1.0, given.cast<double>().cwiseAbs().maxCoeff() * rope.frequencies().magnitude);
      c.compare("x in ggml's float32" + std::string(farthest > 2000 ? ", beyond 2000" : ""),
                Tolerance::absolute(2e-6 * size, "2e-6 |x|"), x, peer);
    }
}

}  // namespace golden
