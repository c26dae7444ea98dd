// SPDX-License-Identifier: MIT
// RoPE in place, with its cosines and sines from a table and without one.

#include <posenc/rope.hpp>
#include <posenc/rope_table.hpp>

#include "bench.hpp"

namespace {

using bench::Index;
using bench::Matrix;
using bench::Vector;
using posenc::PairLayout;
using posenc::Rope;
using posenc::RopeTable;

constexpr Index first_position = 1000;  // position 0 would rotate nothing

/// One head: the pairs (x[0], x[1]), (x[2], x[3]), ... or (x[0], x[n]), (x[1], x[n + 1]), ...
template <PairLayout layout, class Scalar, class Real>
void plain_rotate(Scalar* x, const Real* cos, const Real* sin, Index num_pairs) {
  constexpr bool interleaved = layout == PairLayout::interleaved;
  for (Index i = 0; i < num_pairs; ++i) {
    Scalar& first = x[interleaved ? 2 * i : i];
    Scalar& second = x[interleaved ? 2 * i + 1 : num_pairs + i];
    const Real a = static_cast<Real>(first), b = static_cast<Real>(second);
    first = static_cast<Scalar>(a * cos[i] - b * sin[i]);
    second = static_cast<Scalar>(a * sin[i] + b * cos[i]);
  }
}

template <class Scalar, PairLayout layout>
struct TableCase {
  using Limit = bench::Scale;
  using Real = posenc::detail::compute_t<Scalar>;

  TableCase(Index num_heads, Index head_dim, Index num_tokens)
      : x(bench::random_matrix<Scalar>(num_heads * head_dim, num_tokens)),
        table(Rope({.head_dim = head_dim, .layout = layout}), num_tokens, first_position) {}

  void ours() { table(x, posenc::positions(x.cols(), first_position)); }
  void plain() {
    for (Index t = 0; t < x.cols(); ++t)
      for (Index row = 0; row < x.rows(); row += table.head_dim())
        plain_rotate<layout>(&x(row, t), &table.cos()(0, t), &table.sin()(0, t), table.head_dim() / 2);
  }
  auto& result() { return x; }
  bench::Work work() { return {.tokens = x.cols(), .bytes = 2 * bench::bytes_of(x)}; }

  Matrix<Scalar> x;
  RopeTable<Real> table;
};

template <class Scalar, PairLayout layout>
struct TableFreeCase {
  using Limit = bench::Scale;
  using Real = posenc::detail::compute_t<Scalar>;

  TableFreeCase(Index num_heads, Index head_dim, Index num_tokens)
      : x(bench::random_matrix<Scalar>(num_heads * head_dim, num_tokens)),
        rope({.head_dim = head_dim, .layout = layout}),
        cos(head_dim / 2),
        sin(head_dim / 2) {}

  void ours() { rope(x, posenc::positions(x.cols(), first_position)); }
  void plain() {
    for (Index t = 0; t < x.cols(); ++t) {
      for (Index i = 0; i < cos.size(); ++i) {
        const double angle = static_cast<double>(first_position + t) * rope.frequencies().values[i];
        cos[i] = static_cast<Real>(std::cos(angle));
        sin[i] = static_cast<Real>(std::sin(angle));
      }
      for (Index row = 0; row < x.rows(); row += rope.head_dim())
        plain_rotate<layout>(&x(row, t), cos.data(), sin.data(), cos.size());
    }
  }
  auto& result() { return x; }
  bench::Work work() { return {.tokens = x.cols(), .bytes = 2 * bench::bytes_of(x)}; }

  Matrix<Scalar> x;
  Rope rope;
  Vector<Real> cos, sin;
};

using Shapes = std::vector<std::array<Index, 3>>;
const Shapes large = {{32, 128, 1}, {32, 128, 500}, {32, 128, 512}, {32, 128, 4096}};
const Shapes small = {{8, 64, 1}, {8, 64, 500}, {8, 64, 512}, {8, 64, 4096},
                      {8, 80, 1}, {8, 80, 500}, {8, 80, 512}, {8, 80, 4096}};
const Shapes few = {{32, 128, 1}, {8, 64, 512}};

template <class Scalar, PairLayout layout>
void add(const Shapes& with_table, const Shapes& table_free) {
  const std::string name =
      (layout == PairLayout::interleaved ? "rope/interleaved/" : "rope/half_split/") + bench::scalar_name<Scalar>();
  bench::add<TableCase<Scalar, layout>>(name, {"H", "D", "T"}, with_table);
  bench::add<TableFreeCase<Scalar, layout>>(name + "/table_free", {"H", "D", "T"}, table_free);
}

template <PairLayout layout>
void add() {
  add<float, layout>(large, {{32, 128, 1}, {32, 128, 512}, {8, 64, 512}});
  add<float, layout>(small, {});
  add<double, layout>(few, {});
  add<Eigen::half, layout>(few, {});
  add<Eigen::bfloat16, layout>(few, {});
}

}  // namespace

void add_benchmarks() {
  add<PairLayout::half_split>();
  add<PairLayout::interleaved>();
}
