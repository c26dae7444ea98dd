// SPDX-License-Identifier: MIT

#include <posenc/multi_head_attention.hpp>

#include <posenc/alibi.hpp>
#include <posenc/clipped_relative.hpp>
#include <posenc/masks.hpp>
#include <posenc/rope.hpp>
#include <posenc/sinusoidal.hpp>

#include <Eigen/Core>
#include <cmath>
#include <stdexcept>
#include <type_traits>

#include "../catch.hpp"

using namespace posenc;
using Catch::Matchers::Message;

namespace {

/// 4 heads of 6 features and values of 5 on embeddings of 8, out to 7.
ProjectionWeights<double> random_weights(Index num_kv_heads, bool biases) {
  const auto matrix = [](Index rows, Index cols) { return Matrix<double>(Matrix<double>::Random(rows, cols)); };
  const auto vector = [&](Index size) {
    return biases ? Vector<double>(Vector<double>::Random(size)) : Vector<double>();
  };
  return {.query = matrix(4 * 6, 8),
          .key = matrix(num_kv_heads * 6, 8),
          .value = matrix(num_kv_heads * 5, 8),
          .output = matrix(7, 4 * 5),
          .query_bias = vector(4 * 6),
          .key_bias = vector(num_kv_heads * 6),
          .value_bias = vector(num_kv_heads * 5),
          .output_bias = vector(7)};
}

Matrix<double> apply(const Matrix<double>& map, const Vector<double>& bias, const Matrix<double>& x) {
  Matrix<double> y = map * x;
  if (bias.size() > 0) y.colwise() += bias;
  return y;
}

/// The layer in its parts: projections, a call of `attend` for each head, the output.
template <class... Encodings>
Matrix<double> in_parts(const ProjectionWeights<double>& w, Index num_kv_heads, const Matrix<double>& x,
                        const Matrix<double>& y, const Matrix<double>& z, const Positions& queries,
                        const Positions& keys, const Encodings&... encodings) {
  const Matrix<double> q = apply(w.query, w.query_bias, x), k = apply(w.key, w.key_bias, y),
                       v = apply(w.value, w.value_bias, z);
  Matrix<double> heads(4 * 5, x.cols());
  for (Index h = 0; h < 4; ++h) {
    const Index g = h * num_kv_heads / 4;
    heads.middleRows(5 * h, 5) =
        attend(q.middleRows(6 * h, 6), k.middleRows(6 * g, 6), v.middleRows(5 * g, 5),
               {.query_positions = queries, .key_positions = keys, .head = h, .kv_head = g}, encodings...);
  }
  return apply(w.output, w.output_bias, heads);
}

const Rope rope({.head_dim = 6});

}  // namespace

TEST_CASE("A layer is projections, heads and an output", "[multi_head_attention]") {
  const Index num_kv_heads = GENERATE(4, 2, 1);  // grouped queries, and one head of keys for all
  const bool biases = GENERATE(false, true);
  const auto w = random_weights(num_kv_heads, biases);
  const Matrix<double> x = Matrix<double>::Random(8, 5);
  const MultiHeadAttention layer(w, {.num_heads = 4, .num_kv_heads = num_kv_heads}, rope, Alibi(4), CausalMask{});
  CHECK(layer.num_heads() == 4);
  CHECK(layer.num_kv_heads() == num_kv_heads);
  CHECK(layer.head_dim() == 6);
  CHECK(layer.value_dim() == 5);
  const Matrix<double> y = layer(x, positions(5, 2));
  REQUIRE((y.rows() == 7 && y.cols() == 5));
  CHECK(y.isApprox(in_parts(w, num_kv_heads, x, x, x, positions(5, 2), positions(5, 2), rope, Alibi(4), CausalMask{}),
                   1e-13));
}

TEST_CASE("Grouped heads are heads whose keys and values are repeated", "[multi_head_attention]") {
  const auto grouped = random_weights(2, true);
  auto repeated = grouped;
  const auto repeat = [](const Matrix<double>& map, Index head_dim) {
    Matrix<double> all(4 * head_dim, map.cols());
    for (Index h = 0; h < 4; ++h) all.middleRows(h * head_dim, head_dim) = map.middleRows(h / 2 * head_dim, head_dim);
    return all;
  };
  repeated.key = repeat(grouped.key, 6);
  repeated.value = repeat(grouped.value, 5);
  repeated.key_bias = repeat(grouped.key_bias, 6);
  repeated.value_bias = repeat(grouped.value_bias, 5);
  const Matrix<double> x = Matrix<double>::Random(8, 5);
  const MultiHeadAttention a(grouped, {.num_heads = 4, .num_kv_heads = 2}, rope);
  const MultiHeadAttention b(repeated, {.num_heads = 4}, rope);
  CHECK(a(x, positions(5)).isApprox(b(x, positions(5)), 1e-14));
}

TEST_CASE("Cross attention has inputs and positions of its own for keys and values", "[multi_head_attention]") {
  auto w = random_weights(2, true);
  w.key = Matrix<double>::Random(12, 3);
  w.value = Matrix<double>::Random(10, 4);
  const Matrix<double> x = Matrix<double>::Random(8, 5), y = Matrix<double>::Random(3, 9),
                       z = Matrix<double>::Random(4, 9);
  const MultiHeadAttention layer(w, {.num_heads = 4, .num_kv_heads = 2}, rope, Alibi(4));
  const Matrix<double> expected = in_parts(w, 2, x, y, z, positions(5, 100), positions(9, 50), rope, Alibi(4));
  CHECK(layer(x, y, z, positions(5, 100), positions(9, 50)).isApprox(expected, 1e-13));
}

TEST_CASE("Weights of a head to look at", "[multi_head_attention]") {
  const auto w = random_weights(2, true);
  const Matrix<double> x = Matrix<double>::Random(8, 5), y = Matrix<double>::Random(8, 9);
  const MultiHeadAttention layer(w, {.num_heads = 4, .num_kv_heads = 2}, rope, CausalMask{});
  const Matrix<double> q = apply(w.query, w.query_bias, x), k = apply(w.key, w.key_bias, y);
  for (Index h = 0; h < 4; ++h)
    CHECK(layer.weights(x, y, positions(5, 4), positions(9), h)
              .isApprox(attention_weights(q.middleRows(6 * h, 6), k.middleRows(6 * (h / 2), 6),
                                          {.query_positions = positions(5, 4), .key_positions = positions(9)}, rope,
                                          CausalMask{}),
                        1e-13));
  CHECK(layer.weights(x, positions(5), 1) == layer.weights(x, x, positions(5), positions(5), 1));
  CHECK_THROWS_MATCHES(layer.weights(x, positions(5), 4), std::out_of_range,
                       Message("posenc::MultiHeadAttention: head must be below num_heads, got 4"));
  CHECK_THROWS_AS(layer.weights(x, positions(5), -1), std::out_of_range);
}

TEST_CASE("Input encodings are added before the projections, and to the keys' input as well",
          "[multi_head_attention]") {
  const auto w = random_weights(4, false);
  const Sinusoidal sinusoidal({.dim = 8});
  const Matrix<double> x = Matrix<double>::Random(8, 5);
  Matrix<double> added = x;
  sinusoidal(added, positions(5, 3));
  const MultiHeadAttention layer(w, {.num_heads = 4}, sinusoidal, CausalMask{});
  const MultiHeadAttention plain(w, {.num_heads = 4}, CausalMask{});
  CHECK(layer(x, positions(5, 3)).isApprox(plain(added, positions(5, 3)), 1e-14));
  CHECK(layer.weights(x, positions(5, 3), 2).isApprox(plain.weights(added, positions(5, 3), 2), 1e-14));
}

TEST_CASE("Relative keys and values act in every head", "[multi_head_attention]") {
  const auto w = random_weights(4, false);
  const ClippedRelative<double> relative(Matrix<double>::Random(24, 5), Matrix<double>::Random(20, 5),
                                         {.num_heads = 4});
  const Matrix<double> x = Matrix<double>::Random(8, 6);
  const MultiHeadAttention layer(w, {.num_heads = 4}, relative);
  CHECK(layer(x, positions(6)).isApprox(in_parts(w, 4, x, x, x, positions(6), positions(6), relative), 1e-13));
}

TEST_CASE("A scale of one's own", "[multi_head_attention]") {
  auto w = random_weights(4, false);
  const Matrix<double> x = Matrix<double>::Random(8, 5);
  const MultiHeadAttention scaled(w, {.num_heads = 4, .scale = 2 / std::sqrt(6.0)});
  const auto expected = scaled(x, positions(5));
  w.query *= 2;
  CHECK(MultiHeadAttention(w, {.num_heads = 4})(x, positions(5)).isApprox(expected, 1e-13));
}

TEST_CASE("bfloat16 weights are computed with in float", "[multi_head_attention]") {
  using Small = Eigen::bfloat16;
  const auto w = random_weights(2, true);
  const auto small = [](const auto& x) { return x.template cast<float>().template cast<Small>().eval(); };
  const ProjectionWeights<Small> stored{small(w.query),      small(w.key),        small(w.value),
                                        small(w.output),     small(w.query_bias), small(w.key_bias),
                                        small(w.value_bias), small(w.output_bias)};
  const auto wide = [](const auto& x) { return x.template cast<float>().eval(); };
  const ProjectionWeights<float> computed{wide(stored.query),      wide(stored.key),        wide(stored.value),
                                          wide(stored.output),     wide(stored.query_bias), wide(stored.key_bias),
                                          wide(stored.value_bias), wide(stored.output_bias)};
  const Matrix<Small> x = Matrix<float>::Random(8, 5).cast<Small>();
  const MultiHeadAttention a(stored, {.num_heads = 4, .num_kv_heads = 2}, rope, Alibi(4));
  const MultiHeadAttention b(computed, {.num_heads = 4, .num_kv_heads = 2}, rope, Alibi(4));
  const auto y = a(x, positions(5));
  STATIC_REQUIRE(std::is_same_v<decltype(y), const Matrix<Small>>);
  CHECK(y == b(x.cast<float>(), positions(5)).cast<Small>());
}

TEST_CASE("Inputs may be arrays and views", "[multi_head_attention]") {
  const MultiHeadAttention layer(random_weights(4, true), {.num_heads = 4}, rope);
  const Matrix<double> x = Matrix<double>::Random(8, 5);
  const Matrix<double> transposed = x.transpose();
  const auto y = layer(x, positions(5));
  CHECK(layer(x.array(), positions(5)).isApprox(y, 1e-15));
  CHECK(layer(transposed.transpose(), positions(5)).isApprox(y, 1e-15));
}

TEST_CASE("No tokens", "[multi_head_attention]") {
  const MultiHeadAttention layer(random_weights(4, true), {.num_heads = 4}, rope, CausalMask{});
  const Matrix<double> none(8, 0), x = Matrix<double>::Random(8, 3);
  CHECK(layer(none, positions(0)).cols() == 0);
  CHECK(layer(x, none, none, positions(3), positions(0)).allFinite());  // the bias of the output alone
}

TEST_CASE("Weights and inputs that do not fit are refused", "[multi_head_attention]") {
  const auto refused = [](const ProjectionWeights<double>& w, const MultiHeadAttentionOptions& options,
                          const char* message) {
    CHECK_THROWS_MATCHES(MultiHeadAttention(w, options), std::invalid_argument, Message(message));
  };
  const auto w = random_weights(2, true);
  refused(w, {}, "posenc::MultiHeadAttention: num_heads must be positive, got 0");
  refused(w, {.num_heads = 4, .num_kv_heads = 3},
          "posenc::MultiHeadAttention: num_kv_heads must divide num_heads, got 3");
  refused(w, {.num_heads = 4, .num_kv_heads = -2},
          "posenc::MultiHeadAttention: num_kv_heads must divide num_heads, got -2");
  refused(w, {.num_heads = 5},
          "posenc::MultiHeadAttention: rows of the query weights must be a multiple of num_heads, got 24");
  refused(w, {.num_heads = 4},
          "posenc::MultiHeadAttention: rows of the key weights must be num_kv_heads * head_dim = 24, got 12");
  auto bad = w;
  bad.value.conservativeResize(9, 8);
  refused(bad, {.num_heads = 4, .num_kv_heads = 2},
          "posenc::MultiHeadAttention: rows of the value weights must be a multiple of num_kv_heads, got 9");
  bad = w;
  bad.output.conservativeResize(7, 19);
  refused(bad, {.num_heads = 4, .num_kv_heads = 2},
          "posenc::MultiHeadAttention: columns of the output weights must be num_heads * value_dim = 20, got 19");
  bad = w;
  bad.key_bias.conservativeResize(11);
  refused(bad, {.num_heads = 4, .num_kv_heads = 2},
          "posenc::MultiHeadAttention: entries of a bias must be the rows of its weights = 12, got 11");

  const MultiHeadAttention layer(w, {.num_heads = 4, .num_kv_heads = 2});
  const Matrix<double> x = Matrix<double>::Random(9, 5);
  CHECK_THROWS_MATCHES(
      layer(x, positions(5)), std::invalid_argument,
      Message("posenc::MultiHeadAttention: rows of an input must be the columns of its weights = 8, got 9"));
  CHECK_THROWS_MATCHES(
      layer(x.topRows(8), positions(4)), std::invalid_argument,
      Message("posenc::MultiHeadAttention: columns of an input must be the number of its positions = 4, got 5"));
  CHECK_THROWS_AS(layer(x.topRows(8), x.topRows(8), x.topRows(8).leftCols(3), positions(5), positions(5)),
                  std::invalid_argument);
}
