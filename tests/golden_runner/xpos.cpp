// SPDX-License-Identifier: MIT

// xPos: torchscale, x-transformers; and the angles and the decay of RetNet, which come from it.

#include <posenc/xpos.hpp>

#include <cmath>
#include <cstdint>
#include <string>
#include <utility>

#include <posenc/alibi.hpp>
#include <posenc/bias_matrix.hpp>
#include <posenc/rope_ntk.hpp>
#include <posenc/sinusoidal.hpp>

#include "files.hpp"
#include "rotations.hpp"

namespace golden {
namespace {

using posenc::XPos;

/// "2e-4; short sequences 5e-6"
Tolerance own_angles(Index last_position) { return Tolerance::absolute(last_position < 30 ? 5e-6 : 2e-4); }

Vector<double> decays(const XPos& xpos) {
  Vector<double> decay(xpos.rope().frequencies().size());
  for (Index i = 0; i < decay.size(); ++i) decay[i] = xpos.decay(i);
  return decay;
}

/// Heads [batch * heads, seq, dim] from an offset on; the centre is half of the whole length, rounded up.
void torchscale(Case& c) {
  const auto q = c.array<float>("q"), k = c.array<float>("k");
  const auto q_out = c.array<float>("q_out"), k_out = c.array<float>("k_out"), scores = c.array<float>("scores");
  const auto offset = c.get<std::int64_t>("offset");
  const Index num_tokens = q.size(1);
  c.expect("seq", num_tokens);
  const Rope rope({.head_dim = c.get<Index>("head_dim"), .layout = PairLayout::interleaved});
  const auto scale_base = c.get<double>("scale_base");
  const XPos xpos(rope, {.scale_base = scale_base, .center = (num_tokens + offset + 1) / 2});
  const XPos elsewhere(rope, {.scale_base = scale_base, .center = -7});
  const auto tolerance = own_angles(num_tokens + offset - 1);
  c.compare("decay", float_frequencies(), decays(xpos), c.array<float>("scale").matrix());

  const Positions positions = posenc::positions(num_tokens, offset);
  for (Index head = 0; head < q.size(0); ++head) {
    const auto rotated = [&](const XPos& by) {
      std::pair<Matrix<float>, Matrix<float>> both{q.at(head), k.at(head)};
      by.apply_query(both.first, positions);
      by.apply_key(both.second, positions);
      return both;
    };
    const auto [queries, keys] = rotated(xpos);
    c.compare("q, k", tolerance, queries, q_out.at(head));
    c.compare("q, k", tolerance, keys, k_out.at(head));
    c.compare("scores", tolerance, keys.transpose() * queries, scores.at(head));
    const auto [other_queries, other_keys] = rotated(elsewhere);
    c.compare("scores, another centre", tolerance, other_keys.transpose() * other_queries, scores.at(head));
  }
}

/// The centre is half of the length, rounded down; interpolation slows the rotation and not the decay.
void x_transformers(Case& c) {
  const Rotated queries{heads(c, "q"), heads(c, "q_out"), false}, keys{heads(c, "k"), heads(c, "k_out"), true};
  const Index num_tokens = queries.before.num_tokens();
  c.expect("seq", num_tokens);
  const auto rotary_dim = c.get<Index>("rotary_dim");
  const auto rescale = c.get<double>("base_rescale_factor");
  const RopeFrequencies frequencies =
      rescale == 1 ? posenc::rope_frequencies(rotary_dim) : posenc::ntk_rope_frequencies(rotary_dim, 10000, rescale);
  const Rope rope(posenc::divided(frequencies, c.get<double>("interpolation_factor")),
                  {.head_dim = c.get<Index>("head_dim"), .layout = PairLayout::interleaved});
  const XPos xpos(rope, {.scale_base = c.get<double>("scale_base"), .center = num_tokens / 2});
  const auto tolerance = own_angles(num_tokens - 1);

  const auto angles = c.array<float>("freqs"), scale = c.array<float>("scale");  // [1, seq, rotary_dim]
  const Matrix<float> given_angles = one_per_pair(angles.at(Index{0}), rope.frequencies().size());
  const Matrix<float> given_scale = one_per_pair(scale.at(Index{0}), rope.frequencies().size());
  for (Index t = 0; t < num_tokens; ++t) {
    c.compare("angles", tolerance, static_cast<double>(t) * rope.frequencies().values, given_angles.col(t));
    const double power = static_cast<double>(t - num_tokens / 2) / xpos.options().scale_base;
    c.compare("scale", float_frequencies(), decays(xpos).array().pow(power).matrix(), given_scale.col(t));
  }
  for (const auto& rotated : {queries, keys})
    compare_heads(
        c, "q, k", tolerance, rotated, [&](Index) -> const XPos& { return xpos; },
        [&](Index) { return posenc::positions(num_tokens); });
}

/// RetNet: frequencies from 1 to exactly 1/10000, and a decay with the distance that is a bias under an exponential.
void retnet(Case& c) {
  const auto num_heads = c.get<Index>("heads"), num_tokens = c.get<Index>("seq");
  const Index head_dim = c.get<Index>("embed_dim") / num_heads;
  const posenc::Sinusoidal waves(posenc::SinusoidalOptions::tensor2tensor(head_dim));
  const auto angle = c.array<float>("angle");
  c.compare("frequencies", float_frequencies(), waves.frequencies(), one_per_pair(angle.matrix(), head_dim / 2));

  const Rope rope({.values = waves.frequencies()}, {.head_dim = head_dim, .layout = PairLayout::interleaved});
  const RopeTable<float> table(rope, num_tokens);
  const auto cos = c.array<float>("cos"), sin = c.array<float>("sin");
  c.compare("cos, sin", own_angles(num_tokens - 1), table.cos(), one_per_pair(cos.matrix(), head_dim / 2));
  c.compare("cos, sin", own_angles(num_tokens - 1), table.sin(), one_per_pair(sin.matrix(), head_dim / 2));

  Vector<double> slopes(num_heads);  // gamma = 1 - 2^(-5 - head)
  for (Index head = 0; head < num_heads; ++head)
    slopes[head] = -std::log1p(-std::exp2(-5.0 - static_cast<double>(head)));
  c.compare("decay", float_frequencies(), -slopes, c.array<float>("decay").matrix());
  const posenc::Alibi decay(slopes, posenc::AlibiForm::causal);
  const auto mask = c.array<float>("mask");  // [heads, query, key]
  for (Index head = 0; head < num_heads; ++head) {
    const auto here = posenc::positions(num_tokens);
    Matrix<float> weights = posenc::bias_matrix<float>(decay, here, here, head).array().exp();
    for (Index query = 0; query < num_tokens; ++query) weights.col(query) /= std::sqrt(weights.col(query).sum());
    c.compare("decay mask", own_angles(num_tokens - 1), weights, mask.at(head));
  }
}

}  // namespace

void xpos(Case& c) {
  if (c.has_array("scores"))
    torchscale(c);
  else if (c.has("interpolation_factor"))
    x_transformers(c);
  else if (c.has_array("mask"))
    retnet(c);
  else
    throw UnknownKind("an xPos of another peer");
}

}  // namespace golden
