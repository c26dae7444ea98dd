// SPDX-License-Identifier: MIT

// Angles against 400-bit arithmetic, to position 2^31 - 1: exact_sincos.

#include <posenc/alibi.hpp>
#include <posenc/rope.hpp>
#include <posenc/rope_table.hpp>
#include <posenc/sinusoidal.hpp>

#include <cstdint>
#include <string>

#include "files.hpp"

namespace golden {
namespace {

using posenc::Positions;

/// The last rounding is all that may differ.
const Tolerance one_ulp = Tolerance::ulps(1);

/// "positions to 1e5: 1e-10; beyond: 1 ulp for a careful one"; ours is meant to be careful.
void compare_at(Case& c, std::int64_t position, const Matrix<double>& ours, const Matrix<double>& exact) {
  if (position <= 100000)
    c.compare("cos, sin to 1e5", Tolerance::absolute(1e-10), ours, exact);
  else
    c.compare("cos, sin beyond", one_ulp, ours, exact);
}

/// base^(-2i/dim): what RoPE turns by.
void rope_angles(Case& c) {
  const posenc::Rope rope({.head_dim = c.get<Index>("dim"), .base = c.get<double>("base")});
  c.compare("frequencies", one_ulp, rope.frequencies().values, c.array<double>("theta").matrix());

  const auto positions = c.array<std::int64_t>("positions");
  const auto cos = c.array<double>("cos"), sin = c.array<double>("sin");
  for (Index t = 0; t < positions.size(); ++t) {
    const posenc::RopeTable<double> table(rope, /*num_positions=*/1, positions(t));
    compare_at(c, positions(t), table.cos(), cos.matrix().col(t));
    compare_at(c, positions(t), table.sin(), sin.matrix().col(t));
  }
  if (!c.has_array("cos_f32")) return;
  const auto cos_f32 = c.array<float>("cos_f32"), sin_f32 = c.array<float>("sin_f32");
  for (Index t = 0; t < positions.size(); ++t) {
    const posenc::RopeTable<float> table(rope, /*num_positions=*/1, positions(t));
    c.compare("nearest float", Tolerance::exact(), table.cos(), cos_f32.matrix().col(t));
    c.compare("nearest float", Tolerance::exact(), table.sin(), sin_f32.matrix().col(t));
  }
}

/// base^(-i/(dim/2 - 1)): the sinusoidal table of tensor2tensor.
void tensor2tensor_angles(Case& c) {
  c.expect("exponent", "i/(dim/2-1)");
  auto options = posenc::SinusoidalOptions::tensor2tensor(c.get<Index>("dim"));
  options.base = c.get<double>("base");
  const posenc::Sinusoidal sinusoidal(options);
  const Index num_waves = options.dim / 2;
  c.compare("frequencies", one_ulp, sinusoidal.frequencies(), c.array<double>("theta").matrix());

  const auto positions = c.array<std::int64_t>("positions");
  const auto cos = c.array<double>("cos"), sin = c.array<double>("sin");
  const Matrix<double> table = sinusoidal.table<double>(Positions(positions.row()));
  for (Index t = 0; t < positions.size(); ++t) {
    compare_at(c, positions(t), table.col(t).head(num_waves), sin.matrix().col(t));
    compare_at(c, positions(t), table.col(t).segment(num_waves, num_waves), cos.matrix().col(t));
  }
}

}  // namespace

void exact_sincos(Case& c) {
  if (c.has_array("slopes"))
    c.compare("ALiBi slopes", one_ulp, posenc::alibi_slopes(c.get<Index>("n_heads")),
              c.array<double>("slopes").matrix());
  else if (c.has("exponent"))
    tensor2tensor_angles(c);
  else
    rope_angles(c);
}

}  // namespace golden
