// SPDX-License-Identifier: MIT
// xPos: RoPE with a decay, whose cosines, sines and powers are computed for every token.

#include <posenc/xpos.hpp>

#include "bench.hpp"

namespace {

using bench::Index;
using bench::Matrix;
using bench::Vector;
using posenc::Rope;
using posenc::XPos;

constexpr Index first_position = 1000;

template <class Scalar>
struct QueryCase {
  using Limit = bench::Scale;
  using Real = posenc::detail::compute_t<Scalar>;

  QueryCase(Index num_heads, Index head_dim, Index num_tokens)
      : xpos(Rope({.head_dim = head_dim})),
        cos(head_dim / 2),
        sin(head_dim / 2),
        queries(bench::random_matrix<Scalar>(num_heads * head_dim, num_tokens)) {}

  void ours() { xpos.apply_query(queries, posenc::positions(queries.cols(), first_position)); }
  void plain() {
    const Index n = cos.size(), head_dim = 2 * n;
    for (Index t = 0; t < queries.cols(); ++t) {
      const auto position = static_cast<double>(first_position + t);
      for (Index i = 0; i < n; ++i) {
        const double angle = position * xpos.rope().frequencies().values[i];
        const double scale = std::pow(
            (static_cast<double>(i) + 0.2 * static_cast<double>(head_dim)) / (0.7 * static_cast<double>(head_dim)),
            position / 512);
        cos[i] = static_cast<Real>(std::cos(angle) * scale);
        sin[i] = static_cast<Real>(std::sin(angle) * scale);
      }
      for (Index row = 0; row < queries.rows(); row += head_dim)
        for (Index i = 0; i < n; ++i) {
          const Real a = static_cast<Real>(queries(row + i, t)), b = static_cast<Real>(queries(row + n + i, t));
          queries(row + i, t) = static_cast<Scalar>(a * cos[i] - b * sin[i]);
          queries(row + n + i, t) = static_cast<Scalar>(a * sin[i] + b * cos[i]);
        }
    }
  }
  auto& result() { return queries; }
  bench::Work work() { return {.tokens = queries.cols(), .bytes = 2 * bench::bytes_of(queries)}; }

  XPos xpos;
  Vector<Real> cos, sin;
  Matrix<Scalar> queries;
};

template <class Scalar>
void add(const std::vector<std::array<Index, 3>>& shapes) {
  bench::add<QueryCase<Scalar>>("xpos/" + bench::scalar_name<Scalar>(), {"H", "D", "T"}, shapes);
}

}  // namespace

void add_benchmarks() {
  add<float>({{32, 128, 1}, {8, 64, 500}, {8, 64, 512}, {8, 80, 512}, {32, 128, 512}, {8, 64, 4096}});
  add<double>({{8, 64, 512}});
  add<Eigen::half>({{8, 64, 512}});
  add<Eigen::bfloat16>({{8, 64, 512}});
}
