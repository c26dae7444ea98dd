// SPDX-License-Identifier: MIT

// Schedules of frequencies as Hugging Face has them: rope_scaling_hf, rope_scaling_hf_v4, rope_complex_hf_llama4.

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include <posenc/rope_parity.hpp>

#include "files.hpp"
#include "rotations.hpp"

namespace golden {
namespace {

using nlohmann::json;

/// Doubles from the same formula, in another order perhaps.
const Tolerance magnitudes = Tolerance::relative(1e-12);

/// A configuration in either spelling, as the newer one.
struct Configuration {
  json rope_parameters;
  RopeContext context;

  explicit Configuration(Case& c) {
    context.head_dim = c.get<Index>("head_dim");
    context.max_position_embeddings = c.get_or<Index>("max_position_embeddings", 0);
    context.original_max_position_embeddings = c.get_or<Index>("original_max_position_embeddings", 0);
    if (c.has("rope_parameters")) {
      rope_parameters = c.json("rope_parameters");
    } else {
      rope_parameters = c.json("rope_scaling").is_null() ? json::object() : c.json("rope_scaling");
      rope_parameters["rope_theta"] = c.json("rope_theta");
    }
  }

  RopeFrequencies frequencies(Index num_tokens) const {
    RopeContext here = context;
    here.num_tokens = num_tokens;
    return scheduled_frequencies(rope_parameters, here);
  }
};

Index last_position(const Tensor<std::int64_t>& position_ids) {
  return static_cast<Index>(position_ids.matrix().maxCoeff());
}

void compare_magnitude(Case& c, double ours, double peer) {
  c.compare("magnitude", magnitudes, Matrix<double>::Constant(1, 1, ours), Matrix<double>::Constant(1, 1, peer));
}

/// Own angles from the peer's frequencies against the peer's, token by token: its float32 product is worse the farther
/// the token is.
template <class Ours, class Peer>
void compare_own_angles(Case& c, const std::string& check, std::int64_t position, const Ours& ours, const Peer& peer) {
  if (position <= 5000)
    c.compare(check + " to 5000", Tolerance::absolute(3e-4), ours, peer);
  else if (position <= 131072)
    c.compare(check + " to 1.3e5", Tolerance::absolute(1e-2), ours, peer);
}

/// Cosines and sines of the peer at positions of one batch, half-split; and the tables that reproduce them.
void compare_angles(Case& c, const Rope& given, const Positions& positions, const Matrix<float>& cos,
                    const Matrix<float>& sin) {
  const auto float32 = float32_columns(given, positions);
  c.compare("cos, sin in float32", given_angles(), float32.cos, cos);
  c.compare("cos, sin in float32", given_angles(), float32.sin, sin);
  for (Index t = 0; t < positions.size(); ++t) {
    const RopeTable<float> ours(given, /*num_positions=*/1, positions[t]);
    compare_own_angles(c, "cos, sin", positions[t], ours.cos(), cos.col(t));
    compare_own_angles(c, "cos, sin", positions[t], ours.sin(), sin.col(t));
  }
}

/// A function that makes frequencies was called with a length.
void of_a_length(Case& c, const Configuration& configuration) {
  const auto frequencies = configuration.frequencies(c.get<Index>("seq_len"));
  c.compare("frequencies", float_frequencies(), frequencies.values, c.array<float>("inv_freq").matrix());
  compare_magnitude(c, frequencies.magnitude, c.array<double>("attention_factor")(0));
}

/// One module that was called several times. Frequencies that depend on the length are made anew when a call goes
/// beyond the longest sequence so far, and go back when one is shorter than the trained length (dynamic NTK); LongRoPE
/// goes by each call alone.
void of_a_module(Case& c, const Configuration& configuration) {
  const bool remembers = rope_type(configuration.rope_parameters) == "dynamic";
  const Index trained = configuration.context.max_position_embeddings;
  Index longest = trained;
  const auto num_calls = c.get<Index>("n_calls");
  for (Index call = 0; call < num_calls; ++call) {
    const std::string prefix = "call" + std::to_string(call) + "_";
    const auto position_ids = c.array<std::int64_t>(prefix + "position_ids");
    const Index num_tokens = last_position(position_ids) + 1;
    longest = remembers && num_tokens >= trained ? std::max(longest, num_tokens) : trained;
    const auto frequencies = configuration.frequencies(remembers ? longest : num_tokens);
    const auto inv_freq = c.array<float>(prefix + "inv_freq");
    c.compare("frequencies", float_frequencies(), frequencies.values, inv_freq.matrix());
    if (c.has("attention_scaling")) compare_magnitude(c, frequencies.magnitude, c.get<double>("attention_scaling"));

    const Rope given({.values = inv_freq.matrix().cast<double>(), .magnitude = frequencies.magnitude},
                     {.head_dim = 2 * frequencies.size()});
    const auto cos = c.array<float>(prefix + "cos"), sin = c.array<float>(prefix + "sin");
    for (Index batch = 0; batch < cos.size(0); ++batch)
      compare_angles(c, given, position_ids.row(batch), one_per_pair(cos.at(batch), frequencies.size()),
                     one_per_pair(sin.at(batch), frequencies.size()));
  }
}

/// One call: heads before and after.
void of_a_rotation(Case& c, const Configuration& configuration) {
  const auto position_ids = c.array<std::int64_t>("position_ids");
  const auto frequencies = configuration.frequencies(last_position(position_ids) + 1);
  if (c.has("rotary_dim")) c.expect("rotary_dim", 2 * frequencies.size());
  const auto inv_freq = c.array<float>("inv_freq");
  c.compare("frequencies", float_frequencies(), frequencies.values, inv_freq.matrix());
  compare_magnitude(c, frequencies.magnitude, c.array<double>("attention_scaling")(0));

  const Rope given({.values = inv_freq.matrix().cast<double>(), .magnitude = frequencies.magnitude},
                   {.head_dim = configuration.context.head_dim});
  const Heads q = heads(c, "q"), q_out = heads(c, "q_out");
  const auto cos = c.array<float>("cos"), sin = c.array<float>("sin");
  for (Index batch = 0; batch < q.num_batches(); ++batch) {
    const Positions positions = position_ids.row(batch);
    const Matrix<float> cos_here = one_per_pair(cos.at(batch), frequencies.size());
    const Matrix<float> sin_here = one_per_pair(sin.at(batch), frequencies.size());
    compare_angles(c, given, positions, cos_here, sin_here);

    Matrix<float> x = q.together(batch);
    given(x, positions);
    for (Index t = 0; t < positions.size(); ++t)
      compare_own_angles(c, "q", positions[t], x.col(t), q_out.together(batch).col(t));
    x = q.together(batch);
    RopeTable<float>(given, cos_here, sin_here)(x, posenc::positions(x.cols()));
    c.compare("q, given cos, sin", given_angles(), x, q_out.together(batch));
    const auto float32 = float32_columns(given, positions);
    x = q.together(batch);
    RopeTable<float>(given, float32.cos, float32.sin)(x, posenc::positions(x.cols()));
    c.compare("q in float32", given_angles(), x, q_out.together(batch));
  }
}

}  // namespace

void rope_scaling(Case& c) {
  const Configuration configuration(c);
  if (c.has("seq_len"))
    of_a_length(c, configuration);
  else if (c.has("n_calls"))
    of_a_module(c, configuration);
  else
    of_a_rotation(c, configuration);
}

/// Llama 4 of Hugging Face: adjacent pairs, cosines and sines as complex numbers, times the magnitude.
void rope_complex_llama4(Case& c) {
  c.expect("layout", "interleaved");
  const Configuration configuration(c);
  const auto position_ids = c.array<std::int64_t>("position_ids");
  const auto frequencies = configuration.frequencies(last_position(position_ids) + 1);
  const auto inv_freq = c.array<float>("inv_freq");
  c.compare("frequencies", float_frequencies(), frequencies.values, inv_freq.matrix());
  compare_magnitude(c, frequencies.magnitude, c.array<double>("attention_scaling")(0));

  const Rope given({.values = inv_freq.matrix().cast<double>(), .magnitude = frequencies.magnitude},
                   {.head_dim = configuration.context.head_dim, .layout = PairLayout::interleaved});
  const auto freqs_cis = c.array<float>("freqs_cis");  // [batch, seq, head_dim/2, 2]
  const auto layout = axes(c);
  for (const bool are_keys : {false, true}) {
    const Heads before = heads(c, are_keys ? "k" : "q", layout), after = heads(c, are_keys ? "k_out" : "q_out", layout);
    for (Index batch = 0; batch < before.num_batches(); ++batch) {
      const Positions positions = position_ids.row(batch);
      Matrix<float> cos(frequencies.size(), positions.size()), sin(frequencies.size(), positions.size());
      for (Index t = 0; t < positions.size(); ++t) {
        cos.col(t) = freqs_cis.at(batch, t).row(0);
        sin.col(t) = freqs_cis.at(batch, t).row(1);
      }
      compare_angles(c, given, positions, cos, sin);
      Matrix<float> x = before.together(batch);
      RopeTable<float>(given, cos, sin)(x, posenc::positions(x.cols()));
      c.compare("q, k, given freqs_cis", given_angles(), x, after.together(batch));
      x = before.together(batch);
      given(x, positions);
      for (Index t = 0; t < positions.size(); ++t)
        compare_own_angles(c, "q, k", positions[t], x.col(t), after.together(batch).col(t));
    }
  }
}

}  // namespace golden
