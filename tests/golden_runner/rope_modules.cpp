// SPDX-License-Identifier: MIT

// Rotations of libraries for training: rope_torchtune, rope_flash_attn, rope_lucidrains.

#include <posenc/rope.hpp>

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <posenc/rope_axes.hpp>
#include <posenc/rope_ntk.hpp>
#include <posenc/xpos.hpp>

#include "files.hpp"
#include "rotations.hpp"

namespace golden {
namespace {

using posenc::XPos;

PairLayout pair_layout(const std::string& name) {
  if (name == "half") return PairLayout::half_split;
  if (name == "interleaved") return PairLayout::interleaved;
  throw UnknownKind("layout " + name);
}

/// Patches of a square tile row by row, then the class token: x and y from 1, and 0 for the class token.
std::vector<std::int64_t> tile_positions(Index patches_per_side) {
  std::vector<std::int64_t> x, y;
  for (Index row = 0; row < patches_per_side; ++row)
    for (Index col = 0; col < patches_per_side; ++col) {
      x.push_back(col + 1);
      y.push_back(row + 1);
    }
  x.push_back(0);
  y.push_back(0);
  x.insert(x.end(), y.begin(), y.end());
  return x;
}

void torchtune_vision(Case& c) {
  const auto tolerance = Tolerance::absolute(5e-4);
  const Heads before = heads(c, "x", axes(c)), after = heads(c, "out", axes(c));
  const Rope rope(posenc::axial_rope_frequencies(/*num_axes=*/2, before.head_dim()),
                  {.head_dim = c.get<Index>("head_dim"), .layout = PairLayout::interleaved});
  const auto entries = tile_positions(c.get<Index>("tile_size") / c.get<Index>("patch_size"));
  const Positions positions = Positions::axes(entries, 2);
  const auto cache = c.array<float>("cache");  // [tokens, head_dim/2, 2]
  Matrix<float> cos(cache.size(1), cache.size(0)), sin(cache.size(1), cache.size(0));
  for (Index t = 0; t < cache.size(0); ++t) {
    cos.col(t) = cache.at(t).row(0);
    sin.col(t) = cache.at(t).row(1);
  }
  const auto float32 = float32_columns(rope, positions);
  c.compare("cos, sin", tolerance, float32.cos, cos);
  c.compare("cos, sin", tolerance, float32.sin, sin);
  for (Index batch = 0; batch < before.num_batches(); ++batch) {
    Matrix<float> x = before.together(batch);
    rope(x, positions);
    c.compare("x, two axes", tolerance, x, after.together(batch));
    x = before.together(batch);
    RopeTable<float>(rope, *std::max_element(entries.begin(), entries.end()) + 1)(x, positions);
    c.compare("x, two axes, own table", tolerance, x, after.together(batch));
    x = before.together(batch);
    Rope flat({.values = rope.frequencies().values}, rope.options());
    RopeTable<float>(flat, cos, sin)(x, posenc::positions(x.cols()));
    c.compare("x, given cache", given_angles(), x, after.together(batch));
  }
}

/// Frequencies of the lucidrains module.
RopeFrequencies lucidrains_frequencies(Case& c, Index rotary_dim) {
  const auto what = c.get_or<std::string>("freqs_for", "lang");
  if (what == "pixel") return posenc::pixel_rope_frequencies(rotary_dim, c.get<double>("max_freq"));
  if (what == "constant") return {.values = Vector<double>::Ones(c.get<Index>("num_freqs"))};
  if (what != "lang") throw UnknownKind("freqs_for " + what);
  const auto base = c.get_or<double>("theta", 10000);
  const auto rescale = c.get_or<double>("theta_rescale_factor", 1);
  return rescale == 1 ? posenc::rope_frequencies(rotary_dim, base)
                      : posenc::ntk_rope_frequencies(rotary_dim, base, rescale);
}

const Tolerance lucidrains_tolerance = Tolerance::absolute(2e-4);

/// One array of queries from an offset on.
void lucidrains_rotation(Case& c) {
  if (c.has("layout")) c.expect("layout", "interleaved");
  const Heads before = heads(c, "q", axes(c)), after = heads(c, "q_out", axes(c));
  const auto head_dim = c.get_or<Index>("head_dim", before.head_dim());
  const auto rotary_dim = c.get_or<Index>("rotary_dim", head_dim);
  RopeFrequencies frequencies = lucidrains_frequencies(c, rotary_dim);
  if (c.has_array("freqs"))
    c.compare("frequencies", float_frequencies(), frequencies.values, c.array<float>("freqs").matrix());
  frequencies = posenc::divided(frequencies, c.get_or<double>("interpolate_factor", 1));
  const Rope rope(frequencies, {.head_dim = head_dim, .layout = PairLayout::interleaved});
  const Positions positions = posenc::positions(before.num_tokens(), c.get<std::int64_t>("offset"));
  compare_heads(
      c, "q", lucidrains_tolerance, {before, after, /*are_keys=*/false}, [&](Index) -> const Rope& { return rope; },
      [&](Index) { return positions; });
}

/// Queries and keys, with or without xPos: its centre follows the length of each of them here.
void lucidrains_queries_and_keys(Case& c) {
  const Rotated queries{heads(c, "q"), heads(c, "q_out"), false}, keys{heads(c, "k"), heads(c, "k_out"), true};
  const Rope rope({.head_dim = c.get<Index>("head_dim"), .layout = PairLayout::interleaved});
  const auto scale_base = c.get<double>("scale_base");
  const Index num_keys = keys.before.num_tokens(), num_queries = queries.before.num_tokens();
  const Positions key_positions = posenc::positions(num_keys);
  const Positions query_positions = posenc::positions(num_queries, num_keys - num_queries);
  const auto compare = [&](const auto& for_queries, const auto& for_keys) {
    compare_heads(
        c, "q", lucidrains_tolerance, queries, [&](Index) -> const auto& { return for_queries; },
        [&](Index) { return query_positions; });
    compare_heads(
        c, "k", lucidrains_tolerance, keys, [&](Index) -> const auto& { return for_keys; },
        [&](Index) { return key_positions; });
  };
  if (c.has("xpos") && !c.get<bool>("xpos")) return compare(rope, rope);
  const XPos for_queries(rope, {.scale_base = scale_base, .center = num_queries / 2});
  const XPos for_keys(rope, {.scale_base = scale_base, .center = num_keys / 2});
  if (c.has_array("scale")) {
    Vector<double> decay(rope.frequencies().size());
    for (Index i = 0; i < decay.size(); ++i) decay[i] = for_keys.decay(i);
    c.compare("decay", float_frequencies(), decay, c.array<float>("scale").matrix());
  }
  compare(for_queries, for_keys);
}

/// An image whose rows and columns are from -1 to 1.
void lucidrains_axial(Case& c) {
  const auto dim = c.get<Index>("dim"), height = c.get<Index>("height"), width = c.get<Index>("width");
  const auto max_frequency = c.get<double>("max_freq");
  const RopeFrequencies one_axis = posenc::pixel_rope_frequencies(dim, max_frequency);
  const Rope rope(posenc::joined(std::vector{one_axis, one_axis}),
                  {.head_dim = 2 * dim, .layout = PairLayout::interleaved});
  const auto between = [](Index i, Index n) {
    return n == 1 ? -1 : -1 + 2 * static_cast<double>(i) / static_cast<double>(n - 1);
  };
  std::vector<double> entries(static_cast<std::size_t>(2 * height * width));
  for (Index row = 0; row < height; ++row)
    for (Index col = 0; col < width; ++col) {
      entries[static_cast<std::size_t>(row * width + col)] = between(row, height);
      entries[static_cast<std::size_t>((height + row) * width + col)] = between(col, width);
    }
  const auto positions = posenc::RealPositions::axes(entries, 2);

  const auto freqs = c.array<float>("freqs");  // [height, width, 2 dim]: angles, each twice
  const Matrix<float> given = one_per_pair(freqs.matrix(), dim);
  Matrix<double> angles(dim, height * width);
  for (Index t = 0; t < angles.cols(); ++t)
    for (Index i = 0; i < dim; ++i)
      angles(i, t) = positions.axis(rope.frequencies().axis(i))[t] * rope.frequencies().values[i];
  const double largest = one_axis.values.cwiseAbs().maxCoeff();
  c.compare("angles", Tolerance::absolute(5e-6 * largest, "5e-6 of the largest"), angles, given);

  const auto q = c.array<float>("q"), q_out = c.array<float>("q_out");  // [batch, height, width, 2 dim]
  Matrix<float> x = q.matrix();
  for (Index batch = 0; batch < q.size(0); ++batch)
    rope(x.middleCols(batch * height * width, height * width), positions);
  c.compare("q, two axes", lucidrains_tolerance, x, q_out.matrix());
}

}  // namespace

void rope_torchtune(Case& c) {
  if (c.has_array("cache")) return torchtune_vision(c);
  const RopeOptions options{.head_dim = c.get<Index>("head_dim"),
                            .base = c.get<double>("base"),
                            .layout = pair_layout(c.get<std::string>("layout"))};
  nlohmann::json parameters = c.has("scaling") ? c.json("scaling") : nlohmann::json::object();
  parameters["rope_theta"] = options.base;
  const Rope rope(scheduled_frequencies(parameters, {.head_dim = options.head_dim}), options);
  const auto theta = c.array<float>("theta");
  c.compare("frequencies", float_frequencies(), rope.frequencies().values, theta.matrix());

  const Rotated rotated{heads(c, "x", axes(c)), heads(c, "out", axes(c)), false};
  const auto input_pos = c.array<std::int64_t>("input_pos");
  const auto positions = [&](Index batch) { return Positions(input_pos.row(batch)); };
  compare_heads(
      c, "x", Tolerance::absolute(5e-4), rotated, [&](Index) -> const Rope& { return rope; }, positions);
  const Rope given({.values = theta.matrix().cast<double>()}, options);
  compare_heads(
      c, "x in float32", given_angles(), rotated,
      [&](Index batch) {
        const auto columns = float32_columns(given, positions(batch));
        return RopeTable<float>(given, columns.cos, columns.sin);
      },
      [&](Index) { return posenc::positions(rotated.before.num_tokens()); });
}

void rope_flash_attn(Case& c) {
  const auto tolerance = Tolerance::absolute(5e-6);
  const auto layout = posenc::TensorLayout::bthd;
  const RopeOptions options{.head_dim = c.get<Index>("head_dim"),
                            .rotary_dim = c.get<Index>("rotary_dim"),
                            .base = c.get<double>("base"),
                            .layout = c.get<bool>("interleaved") ? PairLayout::interleaved : PairLayout::half_split};
  const Rope rope(options);
  const auto num_tokens = c.get<Index>("seq");
  const Positions positions = posenc::positions(num_tokens);
  const Rotated queries{heads(c, "x", layout), heads(c, "out", layout), false};
  const auto compare = [&](const Rotated& rotated, const auto& rotation, const std::string& check,
                           const Tolerance& how_far) {
    compare_heads(
        c, check, how_far, rotated, [&](Index) -> const auto& { return rotation; }, [&](Index) { return positions; });
  };
  const RopeTable<float> given(rope, c.array<float>("cos").matrix(), c.array<float>("sin").matrix());
  compare(queries, given, "q, k, given cos, sin", given_angles());
  if (c.json("scale_base").is_null()) {
    const RopeTable<float> table(rope, num_tokens);
    c.compare("cos, sin", tolerance, table.cos(), given.cos());
    c.compare("cos, sin", tolerance, table.sin(), given.sin());
    compare(queries, rope, "q, k", tolerance);
    return;
  }
  const XPos xpos(rope, {.scale_base = c.get<double>("scale_base"), .center = num_tokens / 2});
  const Rotated keys{queries.before, heads(c, "k_out", layout), true};
  const RopeTable<float> given_keys(rope, c.array<float>("cos_k").matrix(), c.array<float>("sin_k").matrix());
  compare(keys, given_keys, "q, k, given cos, sin", given_angles());
  compare(queries, xpos, "q, k, xPos", tolerance);
  compare(keys, xpos, "q, k, xPos", tolerance);
}

void rope_lucidrains(Case& c) {
  if (c.has_array("k"))
    lucidrains_queries_and_keys(c);
  else if (c.has("height"))
    lucidrains_axial(c);
  else
    lucidrains_rotation(c);
}

}  // namespace golden
