// SPDX-License-Identifier: MIT

// Rotations by several coordinates: mrope_hf, rope_vision_hf.

#include <posenc/rope.hpp>

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <posenc/mrope_positions.hpp>
#include <posenc/rope_axes.hpp>

#include "files.hpp"
#include "rotations.hpp"

namespace golden {
namespace {

/// The grids of a kind of tokens, one after the other, in tokens.
class Grids {
 public:
  Grids(Case& c, const std::string& array, Index merge) {
    if (!c.has_array(array)) return;
    const auto entries = c.array<std::int64_t>(array);  // [grids, 3], in patches
    for (Index i = 0; i < entries.size(0); ++i)
      grids_.push_back({.frames = static_cast<Index>(entries(i, Index{0})),
                        .rows = static_cast<Index>(entries(i, Index{1})) / merge,
                        .cols = static_cast<Index>(entries(i, Index{2})) / merge});
  }

  const posenc::TokenGrid& next() {
    if (next_ == grids_.size()) throw UnknownKind("more images or videos than grids");
    return grids_[next_++];
  }

  bool all_used() const { return next_ == grids_.size(); }

 private:
  std::vector<posenc::TokenGrid> grids_;
  std::size_t next_ = 0;
};

/// The positions of text, images and videos, from the kinds of tokens and the sizes of the grids.
void mrope_index(Case& c) {
  const auto merge = c.get<Index>("spatial_merge_size");
  const auto token_types = c.array<std::int64_t>("token_types");    // [batch, seq]: text, image, video
  const auto position_ids = c.array<std::int64_t>("position_ids");  // [3, batch, seq]
  const auto delta = c.array<std::int64_t>("delta");
  Tensor<std::int64_t> visible;
  if (c.has_array("attention_mask")) visible = c.array<std::int64_t>("attention_mask");
  Grids images(c, "image_grid_thw", merge), videos(c, "video_grid_thw", merge);

  for (Index batch = 0; batch < token_types.size(0); ++batch) {
    const auto types = token_types.row(batch);
    const auto padding = [&](std::size_t t) { return visible.size() != 0 && visible.row(batch)[t] == 0; };
    posenc::MropePositions ids;
    for (std::size_t t = 0; t < types.size();) {
      const Index before = ids.num_tokens();
      if (padding(t))
        ids.add_padding(1);
      else if (types[t] == 0)
        ids.add_text(1);
      else
        ids.add_grid(types[t] == 1 ? images.next() : videos.next());
      t += static_cast<std::size_t>(ids.num_tokens() - before);
    }
    const auto entries = ids.entries();
    const auto all = Positions::axes(entries, 3);
    Matrix<double> ours(all.size(), 3), peer(all.size(), 3);
    if (all.size() != static_cast<Index>(types.size())) throw UnknownKind("grids that do not fit the tokens");
    for (Index axis = 0; axis < 3; ++axis)
      for (Index t = 0; t < all.size(); ++t) {
        ours(t, axis) = static_cast<double>(all.axis(axis)[t]);
        peer(t, axis) = static_cast<double>(position_ids(axis, batch, t));
      }
    c.compare("position ids", Tolerance::exact(), ours, peer);
    c.require("delta", ids.delta() == delta.matrix()(0, batch));
  }
  c.require("every grid is used", images.all_used() && videos.all_used());
}

/// Which axis turns which pair, and how the pairs lie.
std::pair<std::vector<Index>, PairLayout> mrope_convention(Case& c) {
  const auto layout = c.get<std::string>("layout");
  if (c.has("mrope_section_hwt")) {
    if (layout != "interleaved") throw UnknownKind("layout " + layout);
    return {posenc::mrope_ernie(c.get<std::vector<Index>>("mrope_section_hwt")), PairLayout::interleaved};
  }
  const auto sections = c.get<std::vector<Index>>("mrope_section");
  if (layout == "half") return {posenc::mrope_chunks(sections), PairLayout::half_split};
  if (layout == "half, interleaved sections") return {posenc::mrope_interleaved(sections), PairLayout::half_split};
  throw UnknownKind("layout " + layout);
}

/// The peer's frequencies, pair by pair. ERNIE keeps those of the height first, then those of the width and the time.
Vector<double> in_order_of_pairs(Case& c, const std::vector<Index>& pair_axes) {
  const auto inv_freq = c.array<float>("inv_freq");
  if (!c.has("mrope_section_hwt")) return inv_freq.matrix().cast<double>();
  Vector<double> frequencies(inv_freq.size());
  Index next = 0;
  for (const Index axis : {1, 2, 0})
    for (Index i = 0; i < frequencies.size(); ++i)
      if (pair_axes.at(static_cast<std::size_t>(i)) == axis) frequencies[i] = static_cast<double>(inv_freq(next++));
  return frequencies;
}

void mrope_rotation(Case& c) {
  const auto tolerance = Tolerance::absolute(5e-5);
  const auto head_dim = c.get<Index>("head_dim");
  const auto [pair_axes, layout] = mrope_convention(c);
  const RopeOptions options{.head_dim = head_dim, .layout = layout};
  RopeFrequencies frequencies = posenc::rope_frequencies(head_dim, c.get<double>("base"));
  frequencies.axes = pair_axes;
  const Rope rope(frequencies, options);
  const Vector<double> inv_freq = in_order_of_pairs(c, pair_axes);
  c.compare("frequencies", float_frequencies(), frequencies.values, inv_freq);
  const Rope given({.values = inv_freq, .axes = pair_axes}, options);
  const Rope one_axis({.values = frequencies.values}, options);

  const Rotated rotations[] = {{heads(c, "q"), heads(c, "q_out"), false}, {heads(c, "k"), heads(c, "k_out"), true}};
  c.expect("n_heads", rotations[0].before.num_heads());
  c.expect("n_kv_heads", rotations[1].before.num_heads());
  const auto position_ids = c.array<std::int64_t>("position_ids");  // [3, batch, seq]
  Tensor<float> cos, sin;
  if (c.has_array("cos")) {
    cos = c.array<float>("cos");
    sin = c.array<float>("sin");
  }
  for (Index batch = 0; batch < position_ids.size(1); ++batch) {
    std::vector<std::int64_t> entries;
    for (Index axis = 0; axis < position_ids.size(0); ++axis)
      for (const std::int64_t position : position_ids.row(axis, batch)) entries.push_back(position);
    const auto positions = Positions::axes(entries, position_ids.size(0));
    const auto float32 = float32_columns(given, positions);
    const RopeTable<float> table(rope, *std::max_element(entries.begin(), entries.end()) + 1);
    for (const Rotated& rotated : rotations) {
      const auto compare = [&](const std::string& check, const Tolerance& how_far, const auto& rotation,
                               const Positions& where) {
        Matrix<float> x = rotated.before.together(batch);
        rotation(x, where);
        c.compare(check, how_far, x, rotated.after.together(batch));
      };
      const auto columns = posenc::positions(rotated.before.num_tokens());
      compare("q, k", tolerance, rope, positions);
      compare("q, k, own table", tolerance, table, positions);
      compare("q, k in float32", given_angles(), RopeTable<float>(one_axis, float32.cos, float32.sin), columns);
      if (cos.size() == 0) continue;
      const RopeTable<float> of_peer(one_axis, one_per_pair(cos.at(batch), frequencies.size()),
                                     one_per_pair(sin.at(batch), frequencies.size()));
      compare("q, k, given cos, sin", given_angles(), of_peer, columns);
      c.compare("cos, sin", tolerance, float32.cos, of_peer.cos());
      c.compare("cos, sin", tolerance, float32.sin, of_peer.sin());
    }
  }
}

const Tolerance vision_tolerance = Tolerance::absolute(1e-5);

/// Queries and keys of an image at positions of two axes. \param table the peer's cosines and sines, a column a token.
void vision_rotation(Case& c, const Rope& rope, const Positions& positions, posenc::TensorLayout layout,
                     const CosSinColumns& table) {
  const Rope one_axis({.values = rope.frequencies().values}, rope.options());
  const RopeTable<float> given(one_axis, table.cos, table.sin);
  for (const bool are_keys : {false, true}) {
    const auto of_a_batch = [&](const std::string& array) {
      auto tensor = c.array<float>(array);
      if (tensor.rank() == 4) return Heads(tensor, layout);
      auto shape = tensor.shape();
      shape.insert(shape.begin(), 1);
      return Heads({shape, {tensor.data(), tensor.data() + tensor.size()}}, layout);
    };
    const Heads before = of_a_batch(are_keys ? "k" : "q"), after = of_a_batch(are_keys ? "k_out" : "q_out");
    c.expect("heads", before.num_heads());
    for (Index batch = 0; batch < before.num_batches(); ++batch) {
      Matrix<float> x = before.together(batch);
      rope(x, positions);
      c.compare("q, k", vision_tolerance, x, after.together(batch));
      x = before.together(batch);
      given(x, posenc::positions(x.cols()));
      c.compare("q, k, given cos, sin", given_angles(), x, after.together(batch));
    }
  }
  const auto float32 = float32_columns(rope, positions);
  c.compare("cos, sin", vision_tolerance, float32.cos, table.cos);
  c.compare("cos, sin", vision_tolerance, float32.sin, table.sin);
}

/// Patches in blocks, rows first.
void qwen2_vl_vision(Case& c) {
  const auto head_dim = c.get<Index>("head_dim"), merge = c.get<Index>("spatial_merge_size");
  std::vector<std::int64_t> rows, cols;
  for (const auto& [frames, height, width] : c.get<std::vector<std::array<Index, 3>>>("grid_thw")) {
    const auto entries = posenc::patch_positions({.frames = frames, .rows = height, .cols = width}, merge);
    const auto half = entries.begin() + static_cast<std::ptrdiff_t>(entries.size() / 2);
    rows.insert(rows.end(), entries.begin(), half);
    cols.insert(cols.end(), half, entries.end());
  }
  std::vector<std::int64_t> entries = rows;
  entries.insert(entries.end(), cols.begin(), cols.end());
  const auto positions = Positions::axes(entries, 2);
  const auto peer_positions = c.array<std::int64_t>("patch_positions_hw");  // [patches, 2]
  Matrix<double> ours(2, positions.size());
  for (Index t = 0; t < positions.size(); ++t)
    ours.col(t) << static_cast<double>(positions.axis(0)[t]), static_cast<double>(positions.axis(1)[t]);
  c.compare("patch positions", Tolerance::exact(), ours, peer_positions.matrix());

  const Rope rope(posenc::axial_rope_frequencies(2, head_dim, c.get<double>("base")), {.head_dim = head_dim});
  const auto angles = c.array<float>("angles");  // [patches, head_dim/2]
  Matrix<double> own_angles(head_dim / 2, positions.size());
  for (Index t = 0; t < positions.size(); ++t)
    for (Index i = 0; i < own_angles.rows(); ++i)
      own_angles(i, t) = ours(rope.frequencies().axis(i), t) * rope.frequencies().values[i];
  c.compare("angles", vision_tolerance, own_angles, angles.matrix());
  vision_rotation(c, rope, positions, posenc::TensorLayout::bthd,
                  {angles.matrix().array().cos().matrix(), angles.matrix().array().sin().matrix()});
}

/// Patches row by row, columns first, counted from 1; then the class token at 0.
void llama4_vision(Case& c) {
  const auto head_dim = c.get<Index>("head_dim");
  const Index side = c.get<Index>("image_size") / c.get<Index>("patch_size");
  const auto patches = posenc::patch_positions({.rows = side, .cols = side});
  std::vector<std::int64_t> entries;
  for (const Index first : {side * side, Index{0}}) {  // columns, rows
    for (Index t = 0; t < side * side; ++t) entries.push_back(patches[static_cast<std::size_t>(first + t)] + 1);
    entries.push_back(0);
  }
  const auto freqs = c.array<float>("freqs_ci");  // [patches + 1, 1, head_dim/2, 2]
  CosSinColumns table{Matrix<float>(freqs.size(2), freqs.size(0)), Matrix<float>(freqs.size(2), freqs.size(0))};
  for (Index t = 0; t < freqs.size(0); ++t) {
    table.cos.col(t) = freqs.at(t, Index{0}).row(0);
    table.sin.col(t) = freqs.at(t, Index{0}).row(1);
  }
  const Rope rope(posenc::axial_rope_frequencies(2, head_dim, c.get<double>("base")),
                  {.head_dim = head_dim, .layout = PairLayout::interleaved});
  vision_rotation(c, rope, Positions::axes(entries, 2), posenc::TensorLayout::bthd, table);
}

/// A position is row * side + column; rows have the even frequencies, columns the odd ones.
void pixtral_vision(Case& c) {
  const auto head_dim = c.get<Index>("head_dim");
  const auto side = c.get<std::int64_t>("max_patches_per_side");
  const auto position_ids = c.array<std::int64_t>("position_ids");
  std::vector<std::int64_t> entries;
  for (const std::int64_t id : position_ids.row()) entries.push_back(id / side);
  for (const std::int64_t id : position_ids.row()) entries.push_back(id % side);
  const Rope rope(posenc::axial_rope_frequencies(2, head_dim, c.get<double>("base"), posenc::AxialFrequencies::strided),
                  {.head_dim = head_dim});
  const auto cos = c.array<float>("cos"), sin = c.array<float>("sin");  // [patches, head_dim]
  vision_rotation(c, rope, Positions::axes(entries, 2), posenc::TensorLayout::bhtd,
                  {one_per_pair(cos.matrix(), head_dim / 2), one_per_pair(sin.matrix(), head_dim / 2)});
}

}  // namespace

void mrope(Case& c) {
  if (c.has_array("token_types"))
    mrope_index(c);
  else
    mrope_rotation(c);
}

void rope_vision(Case& c) {
  if (c.has_array("patch_positions_hw"))
    qwen2_vl_vision(c);
  else if (c.has_array("freqs_ci"))
    llama4_vision(c);
  else
    pixtral_vision(c);
}

}  // namespace golden
