// SPDX-License-Identifier: MIT
// RoPE in place and from one matrix into another, with its cosines and sines from a table and without one.

#include <posenc/detail/packet.hpp>
#include <posenc/rope.hpp>
#include <posenc/rope_table.hpp>

#include <algorithm>

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

/// The limit of what is changed in a part of every head.
class ScalePart {
 public:
  template <class Case>
  explicit ScalePart(Case& of) : x_(of.result()), head_dim_(of.table.head_dim()) {}
  void operator()() {
    using Part = Eigen::Array<float, rotary_dim, 1>;
    float* const end = x_.data() + x_.size();
    for (float* head = x_.data(); head < end; head += head_dim_) Eigen::Map<Part>{head} *= one_;
  }

  static constexpr int rotary_dim = 32;

 private:
  Matrix<float> x_;
  Index head_dim_;
  float one_ = 1;
};

/// A quarter of each head rotates, as in GPT-NeoX.
template <PairLayout layout>
struct PartialCase {
  using Limit = ScalePart;

  PartialCase(Index num_heads, Index head_dim, Index num_tokens)
      : x(bench::random_matrix<float>(num_heads * head_dim, num_tokens)),
        table(Rope({.head_dim = head_dim, .rotary_dim = Limit::rotary_dim, .layout = layout}), num_tokens,
              first_position) {}

  void ours() { table(x, posenc::positions(x.cols(), first_position)); }
  void plain() {
    for (Index t = 0; t < x.cols(); ++t)
      for (Index row = 0; row < x.rows(); row += table.head_dim())
        plain_rotate<layout>(&x(row, t), &table.cos()(0, t), &table.sin()(0, t), table.cos().rows());
  }
  auto& result() { return x; }
  bench::Work work() {
    return {.tokens = x.cols(), .bytes = 2 * bench::bytes_of(x) / table.head_dim() * Limit::rotary_dim};
  }

  Matrix<float> x;
  RopeTable<float> table;
};

/// The limit of what is made of another matrix: a copy past the caches.
class StreamedCopy {
 public:
  template <class Case>
  explicit StreamedCopy(Case& of) : to_(bench::as_large_as_result(of)), from_(to_) {}
  void operator()() {
    using posenc::detail::Simd;
    float* const to = to_.data();
    const float* const from = from_.data();
    for (Index i = 0; i < to_.size(); i += Simd<float>::lanes)
      posenc::detail::stream(to + i, posenc::detail::load(from + i));
    posenc::detail::finish_streaming();
  }

 private:
  Vector<float> to_, from_;
};

/// From one matrix into another.
template <PairLayout layout>
struct IntoCase {
  using Limit = StreamedCopy;

  IntoCase(Index num_heads, Index head_dim, Index num_tokens)
      : x(bench::random_matrix<float>(num_heads * head_dim, num_tokens)),
        out(Matrix<float>::Zero(x.rows(), x.cols())),
        table(Rope({.head_dim = head_dim, .layout = layout}), num_tokens, first_position) {}

  void ours() { table.rotate_into(out, x, posenc::positions(x.cols(), first_position)); }
  void plain() {
    for (Index t = 0; t < x.cols(); ++t)
      for (Index row = 0; row < x.rows(); row += table.head_dim()) {
        std::copy_n(&x(row, t), table.head_dim(), &out(row, t));
        plain_rotate<layout>(&out(row, t), &table.cos()(0, t), &table.sin()(0, t), table.head_dim() / 2);
      }
  }
  auto& result() { return out; }
  bench::Work work() { return {.tokens = x.cols(), .bytes = 2 * bench::bytes_of(x)}; }

  Matrix<float> x, out;
  RopeTable<float> table;
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

/// The same tokens and heads for every size of a head.
Shapes small() {
  Shapes shapes;
  for (const Index head_dim : {48, 64, 80, 96, 112, 128, 256})
    for (const Index num_tokens : {1, 500, 512, 4096}) shapes.push_back({8, head_dim, num_tokens});
  return shapes;
}

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
  add<float, layout>(small(), {});
  add<double, layout>(few, {});
  add<Eigen::half, layout>(few, {});
  add<Eigen::bfloat16, layout>(few, {});

  const std::string name = layout == PairLayout::interleaved ? "rope/interleaved/float/" : "rope/half_split/float/";
  bench::add<PartialCase<layout>>(name + "partial", {"H", "D", "T"}, {{8, 128, 1}, {8, 128, 500}, {8, 128, 512}});
  bench::add<IntoCase<layout>>(name + "into", {"H", "D", "T"}, {{32, 128, 1}, {8, 64, 512}, {32, 128, 4096}});
}

}  // namespace

void add_benchmarks() {
  add<PairLayout::half_split>();
  add<PairLayout::interleaved>();
}
