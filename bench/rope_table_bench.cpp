// SPDX-License-Identifier: MIT
// The table of RoPE's cosines and sines.

#include <posenc/rope_table.hpp>

#include "bench.hpp"

namespace {

using bench::Index;
using bench::Matrix;
using posenc::Rope;
using posenc::RopeTable;

template <class Scalar>
struct TableCase {
  using Limit = bench::Fill;

  TableCase(Index head_dim, Index num_tokens) : rope({.head_dim = head_dim}), num_positions(num_tokens) {}

  void ours() { table = RopeTable<Scalar>(rope, num_positions); }
  void plain() {
    const Index num_pairs = rope.frequencies().size();
    Matrix<Scalar> cos(num_pairs, num_positions), sin(num_pairs, num_positions);
    for (Index t = 0; t < num_positions; ++t)
      for (Index i = 0; i < num_pairs; ++i) {
        const double angle = static_cast<double>(t) * rope.frequencies().values[i];
        cos(i, t) = static_cast<Scalar>(std::cos(angle));
        sin(i, t) = static_cast<Scalar>(std::sin(angle));
      }
    table = RopeTable<Scalar>(std::move(cos), std::move(sin), {.head_dim = rope.head_dim()});
  }
  Matrix<Scalar> result() {
    Matrix<Scalar> both = Matrix<Scalar>::Zero(rope.head_dim(), num_positions);
    if (table.num_positions() > 0) both << table.cos(), table.sin();
    return both;
  }
  bench::Work work() {
    return {.tokens = num_positions, .bytes = rope.head_dim() * num_positions * static_cast<Index>(sizeof(Scalar))};
  }

  Rope rope;
  Index num_positions;
  RopeTable<Scalar> table{rope, 0};
};

template <class Scalar>
void add(const std::vector<std::array<Index, 2>>& shapes) {
  bench::add<TableCase<Scalar>>("rope_table/" + bench::scalar_name<Scalar>(), {"D", "T"}, shapes);
}

}  // namespace

void add_benchmarks() {
  add<float>({{64, 1}, {64, 500}, {64, 512}, {64, 4096}, {80, 512}, {128, 512}, {128, 4096}, {128, 131072}});
  add<double>({{128, 512}});
}
