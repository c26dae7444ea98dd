// SPDX-License-Identifier: MIT
// Rotated keys of a cache moved by the same number of positions: one more rotation.

#include <posenc/rope_move.hpp>

#include "bench.hpp"

namespace {

using bench::Index;
using bench::Matrix;
using posenc::Rope;

constexpr Index from = 5000, to = 1000;

template <class Scalar>
struct MoveCase {
  using Limit = bench::Scale;
  using Real = posenc::detail::compute_t<Scalar>;

  MoveCase(Index num_heads, Index head_dim, Index num_tokens)
      : rope({.head_dim = head_dim}), keys(bench::random_matrix<Scalar>(num_heads * head_dim, num_tokens)) {}

  void ours() {
    posenc::move_keys(keys, rope, posenc::positions(keys.cols(), from), posenc::positions(keys.cols(), to));
  }
  /// All move as far: one angle a pair.
  void plain() {
    const Index n = rope.frequencies().size();
    for (Index i = 0; i < n; ++i) {
      const double angle = static_cast<double>(to - from) * rope.frequencies().values[i];
      const Real cos = static_cast<Real>(std::cos(angle)), sin = static_cast<Real>(std::sin(angle));
      for (Index t = 0; t < keys.cols(); ++t)
        for (Index row = 0; row < keys.rows(); row += rope.head_dim()) {
          const Real a = static_cast<Real>(keys(row + i, t)), b = static_cast<Real>(keys(row + n + i, t));
          keys(row + i, t) = static_cast<Scalar>(a * cos - b * sin);
          keys(row + n + i, t) = static_cast<Scalar>(a * sin + b * cos);
        }
    }
  }
  auto& result() { return keys; }
  bench::Work work() { return {.tokens = keys.cols(), .bytes = 2 * bench::bytes_of(keys)}; }

  Rope rope;
  Matrix<Scalar> keys;
};

template <class Scalar>
void add(const std::vector<std::array<Index, 3>>& shapes) {
  bench::add<MoveCase<Scalar>>("rope_move/" + bench::scalar_name<Scalar>(), {"H", "D", "T"}, shapes);
}

}  // namespace

void add_benchmarks() {
  add<float>({{8, 128, 1}, {8, 64, 500}, {8, 64, 512}, {8, 80, 512}, {8, 128, 512}, {8, 128, 4096}});
  add<double>({{8, 64, 512}});
  add<Eigen::half>({{8, 64, 512}});
  add<Eigen::bfloat16>({{8, 64, 512}});
}
