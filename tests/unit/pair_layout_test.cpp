// SPDX-License-Identifier: MIT
#include "../property/allocations.hpp"

#include <posenc/pair_layout.hpp>

#include <posenc/multi_head_attention.hpp>
#include <posenc/rope.hpp>

#include <complex>
#include <cstdint>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include "../catch.hpp"
#include "../support.hpp"

using namespace posenc;
using support::message_of;

namespace {

constexpr auto interleaved = PairLayout::interleaved, half_split = PairLayout::half_split;

/// Where the numbers 0, 1, 2, ... of a column go.
std::vector<int> reordered(Index rows, const RotaryFeatures& features, PairLayout from, PairLayout to) {
  Eigen::VectorXi column(rows);
  std::iota(column.begin(), column.end(), 0);
  change_pair_layout(column, features, from, to);
  return {column.begin(), column.end()};
}

/// Each column divided by its length and multiplied feature by feature, as a model with a norm of q and k does it.
Matrix<float> normalised(const Matrix<float>& x, const Vector<float>& weight, Index head_dim) {
  Matrix<float> out = x;
  for (Index head = 0; head < x.rows(); head += head_dim)
    for (Index t = 0; t < x.cols(); ++t) {
      auto part = out.col(t).segment(head, head_dim);
      part = part.normalized().cwiseProduct(weight).eval();
    }
  return out;
}

}  // namespace

TEST_CASE("change_pair_layout: which feature goes where", "[pair_layout]") {
  using Order = std::vector<int>;
  CHECK(reordered(8, {.head_dim = 8}, interleaved, half_split) == Order{0, 2, 4, 6, 1, 3, 5, 7});
  CHECK(reordered(8, {.head_dim = 8}, half_split, interleaved) == Order{0, 4, 1, 5, 2, 6, 3, 7});
  CHECK(reordered(8, {.head_dim = 8}, interleaved, interleaved) == Order{0, 1, 2, 3, 4, 5, 6, 7});
  CHECK(reordered(8, {.head_dim = 8, .rotary_dim = 4}, interleaved, half_split) == Order{0, 2, 1, 3, 4, 5, 6, 7});
  CHECK(reordered(8, {.head_dim = 8, .rotary_dim = 4, .rotary_offset = 3}, interleaved, half_split) ==
        Order{0, 1, 2, 3, 5, 4, 6, 7});
  CHECK(reordered(8, {.head_dim = 8, .rotary_offset = 2}, interleaved, half_split) == Order{0, 1, 2, 4, 6, 3, 5, 7});
  CHECK(reordered(8, {.head_dim = 4}, interleaved, half_split) == Order{0, 2, 1, 3, 4, 6, 5, 7});  // two heads
  CHECK(reordered(6, {.head_dim = 2}, interleaved, half_split) == Order{0, 1, 2, 3, 4, 5});
}

TEST_CASE("change_pair_layout: there and back", "[pair_layout]") {
  const auto features =
      GENERATE(RotaryFeatures{.head_dim = 8}, RotaryFeatures{.head_dim = 12, .rotary_dim = 6},
               RotaryFeatures{.head_dim = 11, .rotary_dim = 4, .rotary_offset = 5}, RotaryFeatures{.head_dim = 1024});
  const auto before = support::random_matrix<float>(2 * features.head_dim, 5);
  for (const auto& [from, to] : {std::pair(interleaved, half_split), std::pair(half_split, interleaved)}) {
    Matrix<float> x = before;
    change_pair_layout(x, features, from, to);
    CHECK_FALSE(support::same_bits(x, before));
    change_pair_layout(x, features, to, from);
    CHECK(support::same_bits(x, before));
  }
}

TEST_CASE("change_pair_layout: every scalar, order and view, without allocation", "[pair_layout]") {
  const RotaryFeatures features{.head_dim = 8, .rotary_dim = 6};
  const auto plain = [&] {
    Matrix<float> x = support::random_matrix<float>(16, 3);
    change_pair_layout(x, features, interleaved, half_split);
    return x;
  }();
  const auto before = support::random_matrix<float>(16, 3);
  Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> row_major = before;
  Matrix<float> larger = Matrix<float>::Zero(20, 5), transposed = before.transpose();
  larger.block(2, 1, 16, 3) = before;
  Matrix<Eigen::half> half = before.cast<Eigen::half>();
  Matrix<std::complex<double>> complex = before.cast<std::complex<double>>();
  Eigen::Array<std::int8_t, 16, 3> quantised = (before * 20).cast<std::int8_t>();
  const auto quantised_before = quantised;
  CHECK_FALSE(laws::allocates([&] {
    change_pair_layout(row_major, features, interleaved, half_split);
    change_pair_layout(larger.block(2, 1, 16, 3), features, interleaved, half_split);
    change_pair_layout(transposed.transpose(), features, interleaved, half_split);
    change_pair_layout(half, features, interleaved, half_split);
    change_pair_layout(complex, {.head_dim = 8, .rotary_dim = 6}, interleaved, half_split);
    change_pair_layout(quantised, features, interleaved, half_split);
    change_pair_layout(Eigen::Map<Matrix<float>>(nullptr, 16, 0), features, interleaved, half_split);
  }));
  CHECK(support::same_bits(row_major, plain));
  CHECK(support::same_bits(larger.block(2, 1, 16, 3), plain));
  CHECK((larger.topRows(2).isZero(0) && larger.bottomRows(2).isZero(0) && larger.leftCols(1).isZero(0)));
  CHECK(support::same_bits(transposed.transpose(), plain));
  CHECK(support::same_bits(half, plain.cast<Eigen::half>()));
  CHECK(support::same_bits(complex.real(), plain.cast<double>()));
  CHECK((quantised.row(3) == quantised_before.row(1)).all());
}

TEST_CASE("A model whose weights are reordered: the same attention with the other layout", "[pair_layout]") {
  // Grouped heads, biases, some features of each head, and a cache.
  const Index model_dim = 12, head_dim = 10, num_heads = 4, num_kv_heads = 2, num_tokens = 7;
  const RotaryFeatures features{.head_dim = head_dim, .rotary_dim = 6, .rotary_offset = GENERATE(0, 3)};
  const auto rope_with = [&](PairLayout layout) {
    return Rope({.head_dim = head_dim, .rotary_dim = 6, .rotary_offset = features.rotary_offset, .layout = layout});
  };
  ProjectionWeights<float> weights{.query = support::random_matrix<float>(num_heads * head_dim, model_dim, 1),
                                   .key = support::random_matrix<float>(num_kv_heads * head_dim, model_dim, 2),
                                   .value = support::random_matrix<float>(num_kv_heads * head_dim, model_dim, 3),
                                   .output = support::random_matrix<float>(model_dim, num_heads * head_dim, 4),
                                   .query_bias = support::random_matrix<float>(num_heads * head_dim, 1, 5),
                                   .key_bias = support::random_matrix<float>(num_kv_heads * head_dim, 1, 6),
                                   .value_bias = {},
                                   .output_bias = {}};
  const MultiHeadAttentionOptions options{.num_heads = num_heads, .num_kv_heads = num_kv_heads};
  const auto x = support::random_matrix<float>(model_dim, num_tokens, 7);
  const auto at = positions(num_tokens, 100);
  const MultiHeadAttention origin(weights, options, rope_with(interleaved));

  ProjectionWeights<float> other = weights;
  change_pair_layout(other.query, features, interleaved, half_split);
  change_pair_layout(other.key, features, interleaved, half_split);
  change_pair_layout(other.query_bias, features, interleaved, half_split);
  change_pair_layout(other.key_bias, features, interleaved, half_split);
  const MultiHeadAttention ported(other, options, rope_with(half_split));
  for (Index head = 0; head < num_heads; ++head)
    CHECK(support::distance(ported.weights(x, at, head), origin.weights(x, at, head)) < 2e-6);
  CHECK(support::distance(ported(x, at), origin(x, at)) < 2e-5);
  // A layout that was not changed gives noise.
  CHECK(support::distance(MultiHeadAttention(weights, options, rope_with(half_split))(x, at), origin(x, at)) > 1e-2);

  // Back again: the weights are those of the origin.
  change_pair_layout(other.query, features, half_split, interleaved);
  CHECK(support::same_bits(other.query, weights.query));

  // Keys of a cache are reordered as the rows of their weights.
  Matrix<float> cached = (weights.key * x).colwise() + weights.key_bias, keys = cached;
  rope_with(interleaved)(cached, at);
  change_pair_layout(cached, features, interleaved, half_split);
  change_pair_layout(keys, features, interleaved, half_split);
  rope_with(half_split)(keys, at);
  CHECK(support::distance(cached, keys) < 1e-6);
}

TEST_CASE("A norm of q and k: its weight is reordered with them", "[pair_layout]") {
  const Index head_dim = 8;
  const RotaryFeatures features{.head_dim = head_dim, .rotary_dim = 6};
  const Matrix<float> q = support::random_matrix<float>(2 * head_dim, 3, 1),
                      k = support::random_matrix<float>(2 * head_dim, 3, 2);
  Vector<float> weight = support::random_matrix<float>(head_dim, 1, 3);
  const auto scores = [&](PairLayout layout, const Matrix<float>& q_in, const Matrix<float>& k_in) {
    const Rope rope({.head_dim = head_dim, .rotary_dim = 6, .layout = layout});
    Matrix<float> queries = normalised(q_in, weight, head_dim), keys = normalised(k_in, weight, head_dim);
    rope(queries, positions(3, 5));
    rope(keys, positions(3, 1));
    return Matrix<float>(keys.topRows(head_dim).transpose() * queries.topRows(head_dim));
  };
  const auto expected = scores(interleaved, q, k);
  Matrix<float> q_other = q, k_other = k;
  change_pair_layout(q_other, features, interleaved, half_split);
  change_pair_layout(k_other, features, interleaved, half_split);
  change_pair_layout(weight, features, interleaved, half_split);
  CHECK(support::distance(scores(half_split, q_other, k_other), expected) < 1e-6);
}

TEST_CASE("change_pair_layout: errors, and nothing is written", "[pair_layout]") {
  const auto before = support::random_matrix<float>(12, 2);
  Matrix<float> x = before;
  const auto message = [&](const RotaryFeatures& features) {
    return message_of<std::invalid_argument>([&] { change_pair_layout(x, features, interleaved, half_split); });
  };
  CHECK(message({}) == "posenc::Rope: head_dim must be positive, got 0");
  CHECK(message({.head_dim = 7}) == "posenc::Rope: head_dim must be even, got 7");
  CHECK(message({.head_dim = 8}) ==
        "posenc::change_pair_layout: features of a column must be a multiple of head_dim = 8, got 12");
  CHECK(message({.head_dim = 6, .rotary_dim = 3}) == "posenc::Rope: rotary_dim must be even, got 3");
  CHECK(message({.head_dim = 6, .rotary_dim = -2}) == "posenc::Rope: rotary_dim must not be negative, got -2");
  CHECK(message({.head_dim = 6, .rotary_dim = 4, .rotary_offset = 4}) ==
        "posenc::Rope: rotary_dim must be at most head_dim - rotary_offset, got 4");
  CHECK(message({.head_dim = 6, .rotary_offset = -1}) == "posenc::Rope: rotary_offset must not be negative, got -1");
  CHECK(message({.head_dim = 6, .rotary_offset = 6}) == "posenc::Rope: rotary_offset must be below head_dim, got 6");
  CHECK(message({.head_dim = 1026}) == "posenc::change_pair_layout: rotary_dim must be at most 1024, got 1026");
  CHECK(support::same_bits(x, before));
}
