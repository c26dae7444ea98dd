// SPDX-License-Identifier: MIT

// Rotations: rope_half_*, rope_interleaved_*, rope_complex_llama.

#include <posenc/rope.hpp>

#include <complex>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include <posenc/rope_table.hpp>

#include "files.hpp"
#include "heads.hpp"
#include "rotations.hpp"

namespace golden {
namespace {

/// What a peer does with its pairs, in this library's terms.
struct Convention {
  PairLayout layout = PairLayout::half_split;
  std::optional<PairLayout> output_layout{};
  bool turns_backwards = false;  ///< by -p w

  static Convention named(const std::string& name) {
    if (name == "half") return {};
    if (name == "half_negative_angle") return {.turns_backwards = true};
    if (name == "interleaved") return {.layout = PairLayout::interleaved};
    if (name == "interleaved_in_half_out")
      return {.layout = PairLayout::interleaved, .output_layout = PairLayout::half_split};
    throw UnknownKind("layout " + name);
  }
};

/// Queries and keys that a peer rotated by its position_ids, and the cosines and sines that it used.
/// \param own_angles the tolerance where this library computes the angles itself.
/// \param suffix     for the names of these checks.
void rotation(Case& c, RopeOptions options, const Convention& convention, const Tolerance& own_angles,
              const std::string& suffix = "") {
  options.layout = convention.layout;
  options.output_layout = convention.output_layout;
  const auto turned = [&](RopeFrequencies frequencies) {
    return convention.turns_backwards ? posenc::reversed(std::move(frequencies)) : frequencies;
  };
  const RopeFrequencies forwards = posenc::rope_frequencies(options.rotary_dim, options.base);
  const Rope rope(turned(forwards), options);
  const auto layout = axes(c);
  const Rotated rotations[] = {{heads(c, "q", layout), heads(c, "q_out", layout), false},
                               {heads(c, "k", layout), heads(c, "k_out", layout), true}};
  c.expect("n_heads", rotations[0].before.num_heads());
  if (c.has("n_kv_heads")) c.expect("n_kv_heads", rotations[1].before.num_heads());
  if (c.has_array("attention_scaling"))
    c.compare("magnitude", Tolerance::exact(), Matrix<double>::Constant(1, 1, rope.frequencies().magnitude),
              c.array<double>("attention_scaling").matrix());

  // Angles of our own.
  const auto position_ids = c.array<std::int64_t>("position_ids");
  const auto positions = [&](Index batch) { return Positions(position_ids.row(batch)); };
  for (const auto& rotated : rotations) {
    compare_heads(
        c, "q, k" + suffix, own_angles, rotated, [&](Index) -> const Rope& { return rope; }, positions);
    for (Index batch = 0; batch < rotated.before.num_batches(); ++batch) {
      Matrix<float> x = rotated.before.together(batch);
      rope(x, positions(batch));
      c.compare("q, k, all heads at once" + suffix, own_angles, x, rotated.after.together(batch));
    }
  }

  // The peer's cosines and sines: a table with a column for each token, whatever its position.
  const auto given_cos = c.array<float>("cos"), given_sin = c.array<float>("sin");
  const auto cos = [&](Index batch) { return one_per_pair(given_cos.at(batch), rope.frequencies().size()); };
  const auto sin = [&](Index batch) -> Matrix<float> {
    return (convention.turns_backwards ? -1.0f : 1.0f) * one_per_pair(given_sin.at(batch), rope.frequencies().size());
  };
  const auto table = [&](Index batch) { return RopeTable<float>(rope, cos(batch), sin(batch)); };
  const auto every_column = [&](Index) { return posenc::positions(given_cos.size(1)); };
  for (const auto& rotated : rotations)
    compare_heads(c, "q, k, given cos, sin", given_angles(), rotated, table, every_column);

  // And these against ours.
  for (Index batch = 0; batch < given_cos.size(0); ++batch)
    for (Index t = 0; t < given_cos.size(1); ++t) {
      const RopeTable<float> ours(rope, /*num_positions=*/1, positions(batch)[t]);
      c.compare("cos, sin" + suffix, own_angles, ours.cos(), cos(batch).col(t));
      c.compare("cos, sin" + suffix, own_angles, ours.sin(), sin(batch).col(t));
    }

  // The peer's frequencies, and its float32 arithmetic from these on: then even inexact angles are the same.
  if (!c.has_array("inv_freq")) return;
  const auto inv_freq = c.array<float>("inv_freq");
  c.compare("frequencies", float_frequencies(), forwards.values, inv_freq.matrix());
  const Rope given(turned({.values = inv_freq.matrix().cast<double>()}), options);
  for (Index batch = 0; batch < given_cos.size(0); ++batch) {
    const auto float32 = float32_columns(given, positions(batch));
    c.compare("cos, sin in float32" + suffix, given_angles(), float32.cos, cos(batch));
    c.compare("cos, sin in float32" + suffix, given_angles(), float32.sin, sin(batch));
    const RopeTable<float> rotation_here(given, float32.cos, float32.sin);
    for (const auto& rotated : rotations) {
      Matrix<float> x = rotated.before.together(batch);
      rotation_here(x, posenc::positions(x.cols()));
      c.compare("q, k in float32" + suffix, given_angles(), x, rotated.after.together(batch));
    }
  }
}

/// Tensors of complex numbers, D/2 x T, whose entries are the pairs of interleaved features.
Matrix<std::complex<float>> as_complex(const Eigen::Ref<const Matrix<float>, 0, Eigen::OuterStride<>>& x) {
  Matrix<std::complex<float>> z(x.rows() / 2, x.cols());
  for (Index t = 0; t < x.cols(); ++t)
    for (Index i = 0; i < z.rows(); ++i) z(i, t) = {x(2 * i, t), x(2 * i + 1, t)};
  return z;
}

}  // namespace

/// Llama, GPT-NeoX of Hugging Face. Where the case says that the peer's float32 angles are inexact, they are compared
/// loosely, and the rotation by the given ones tightly.
void rope_half(Case& c) {
  const bool partial = c.has("partial_rotary_factor");
  const RopeOptions options{
      .head_dim = c.get<Index>("head_dim"), .rotary_dim = c.get<Index>("rotary_dim"), .base = c.get<double>("base")};
  if (partial)
    c.expect("rotary_dim",
             static_cast<Index>(static_cast<double>(options.head_dim) * c.get<double>("partial_rotary_factor")));
  c.expect("layout", "half");
  const bool inexact = c.get_or("angles_inexact", false);
  rotation(c, options, {}, Tolerance::absolute(inexact ? 0.1 : partial ? 1e-4 : 2e-5), inexact ? ", far" : "");
}

/// GPT-J of Hugging Face.
void rope_interleaved_gptj(Case& c) {
  c.expect("layout", "interleaved");
  const RopeOptions options{
      .head_dim = c.get<Index>("head_dim"), .rotary_dim = c.get<Index>("rotary_dim"), .base = c.get<double>("base")};
  rotation(c, options, {.layout = PairLayout::interleaved}, Tolerance::absolute(3e-4));
}

/// Cohere, GLM, DeepSeek-V3, gpt-oss and NanoChat of Hugging Face.
void rope_variants(Case& c) {
  const auto convention = Convention::named(c.get<std::string>("layout"));
  const RopeOptions options{
      .head_dim = c.get<Index>("head_dim"), .rotary_dim = c.get<Index>("rotary_dim"), .base = c.get<double>("base")};
  rotation(c, options, convention, Tolerance::absolute(5e-4));
}

/// Llama's own code: pairs of neighbours are complex numbers, freqs_cis[t] = e^(i p w).
void rope_complex(Case& c) {
  const auto peer = c.get<std::string>("peer");
  if (peer != "llama" && peer != "llama3" && peer != "llama4" && peer != "llama2c") throw UnknownKind("peer " + peer);
  c.expect("layout", "interleaved");
  const RopeOptions options{
      .head_dim = c.get<Index>("head_dim"), .base = c.get<double>("base"), .layout = PairLayout::interleaved};
  nlohmann::json parameters = c.json("scaling");
  if (parameters.is_null()) parameters = nlohmann::json::object();
  parameters["rope_theta"] = options.base;
  const Rope rope(scheduled_frequencies(parameters, {.head_dim = options.head_dim}), options);
  const auto layout = axes(c);
  const Rotated rotations[] = {{heads(c, "q", layout), heads(c, "q_out", layout), false},
                               {heads(c, "k", layout), heads(c, "k_out", layout), true}};
  c.expect("n_heads", rotations[0].before.num_heads());
  c.expect("n_kv_heads", rotations[1].before.num_heads());

  const auto freqs_cis = c.array<float>("freqs_cis");  // [seq, head_dim/2, 2]
  const Index num_tokens = freqs_cis.size(0);
  c.expect("seq", num_tokens);
  Matrix<float> cos(freqs_cis.size(1), num_tokens), sin(freqs_cis.size(1), num_tokens);
  for (Index t = 0; t < num_tokens; ++t) {
    cos.col(t) = freqs_cis.at(t).row(0);
    sin.col(t) = freqs_cis.at(t).row(1);
  }
  const RopeTable<float> given(cos, sin, options);
  const auto first = c.get<std::int64_t>("start");

  const auto compare = [&](const std::string& check, const Tolerance& tolerance, const auto& rotation_here,
                           const Positions& positions) {
    for (const auto& rotated : rotations) {
      compare_heads(
          c, "q, k" + check, tolerance, rotated, [&](Index) -> const auto& { return rotation_here; },
          [&](Index) { return positions; });
      for (Index batch = 0; batch < rotated.before.num_batches(); ++batch) {
        auto z = as_complex(rotated.before.together(batch));
        rotation_here(z, positions);
        const auto peer_z = as_complex(rotated.after.together(batch));
        c.compare("q, k, complex" + check, tolerance, z.real(), peer_z.real());
        c.compare("q, k, complex" + check, tolerance, z.imag(), peer_z.imag());
      }
    }
  };
  compare(", given freqs_cis", given_angles(), given, posenc::positions(num_tokens));
  // Beyond 2000 the peer's angles are inexact, by up to three roundings of float32 times the length of a pair: a wrong
  // schedule is seen nevertheless.
  const bool far = first + num_tokens > 2000;
  const auto own_angles = far ? Tolerance::absolute(1e-6 * static_cast<double>(first + num_tokens), "1e-6 position")
                              : Tolerance::absolute(5e-5);
  const std::string suffix = far ? ", far" : "";
  const RopeTable<float> table(rope, num_tokens, first);
  compare(suffix, own_angles, rope, posenc::positions(num_tokens, first));
  compare(", own table" + suffix, own_angles, table, posenc::positions(num_tokens, first));
  c.compare("freqs_cis" + suffix, own_angles, table.cos(), cos);
  c.compare("freqs_cis" + suffix, own_angles, table.sin(), sin);
}

}  // namespace golden
