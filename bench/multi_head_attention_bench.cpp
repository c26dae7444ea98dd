// SPDX-License-Identifier: MIT
// A whole attention layer, with RoPE and a causal mask: the readable algorithm against the streaming one.

#include <posenc/masks.hpp>
#include <posenc/multi_head_attention.hpp>
#include <posenc/rope.hpp>
#include <posenc/rope_table.hpp>

#include "bench.hpp"

namespace {

using bench::Index;
using bench::Matrix;
using posenc::AttentionAlgorithm;

/// The limit: the four products of the projections, with nothing between them.
class Projections {
 public:
  template <class Case>
  explicit Projections(Case& of) : weights_(of.weights), x_(of.x), q_(x_), k_(x_), v_(x_) {}
  void operator()() {
    q_.noalias() = weights_.query * x_;
    k_.noalias() = weights_.key * x_;
    v_.noalias() = weights_.value * x_;
    y_.noalias() = weights_.output * v_;
  }

 private:
  posenc::ProjectionWeights<float> weights_;
  Matrix<float> x_, q_, k_, v_, y_;
};

struct LayerCase {
  using Limit = Projections;
  static constexpr const char* other = "reference";
  static constexpr double tolerance = 1e-5;

  LayerCase(Index num_heads, Index head_dim, Index num_tokens)
      : x(bench::random_matrix<float>(num_heads * head_dim, num_tokens)),
        y(Matrix<float>::Zero(x.rows(), x.cols())),
        table(posenc::Rope({.head_dim = head_dim}), num_tokens),
        heads(num_heads) {
    const float size = 1 / std::sqrt(static_cast<float>(x.rows()));
    const auto map = [&](std::uint32_t seed) {
      return Matrix<float>(size * bench::random_matrix<float>(x.rows(), x.rows(), seed));
    };
    weights = {.query = map(2), .key = map(3), .value = map(4), .output = map(5)};
  }

  Matrix<float> run(AttentionAlgorithm algorithm) const {
    const posenc::MultiHeadAttention layer(weights, {.num_heads = heads, .algorithm = algorithm}, table,
                                           posenc::CausalMask{});
    return layer(x, posenc::positions(x.cols()));
  }
  void ours() { y = run(AttentionAlgorithm::streaming); }
  void plain() { y = run(AttentionAlgorithm::reference); }
  auto& result() { return y; }
  bench::Work work() {
    return {.tokens = x.cols(),
            .bytes = 2 * bench::bytes_of(x) + 4 * bench::bytes_of(weights.query),
            .flops = 8 * weights.query.size() * x.cols() + 2 * x.size() * x.cols()};
  }

  Matrix<float> x, y;
  posenc::RopeTable<float> table;
  Index heads;
  posenc::ProjectionWeights<float> weights;
};

}  // namespace

void add_benchmarks() {
  bench::add<LayerCase>("multi_head_attention/float", {"H", "D", "T"},
                        {{8, 64, 1}, {8, 64, 500}, {8, 64, 512}, {8, 80, 512}, {8, 128, 512}, {8, 64, 4096}});
}
