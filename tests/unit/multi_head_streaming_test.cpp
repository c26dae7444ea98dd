// SPDX-License-Identifier: MIT

// MultiHeadAttention with the streaming algorithm, soft caps and sinks; the rest of it is in multi_head_attention_test.cpp.

#include <posenc/alibi.hpp>
#include <posenc/clipped_relative.hpp>
#include <posenc/masks.hpp>
#include <posenc/multi_head_attention.hpp>
#include <posenc/rope.hpp>
#include <posenc/sinusoidal.hpp>

#include <Eigen/Core>
#include <stdexcept>

#include "../streaming.hpp"

using namespace posenc;
using namespace streaming;
using support::message_of;
using support::random_matrix;

namespace {

template <class Scalar = float>
ProjectionWeights<Scalar> some_weights(Index num_heads, Index num_kv_heads) {
  const auto map = [](Index rows, Index cols, std::uint64_t seed) -> Matrix<Scalar> {
    return (random_matrix<float>(rows, cols, seed) * 0.3f).cast<Scalar>();
  };
  return {map(num_heads * 8, 24, 1), map(num_kv_heads * 8, 24, 2), map(num_kv_heads * 6, 24, 3),
          map(24, num_heads * 6, 4)};
}

/// The largest difference of the two algorithms, relative to the largest output.
template <class Scalar = float, class... Encodings>
double difference(MultiHeadAttentionOptions options, const Encodings&... encodings) {
  const auto weights = some_weights<Scalar>(options.num_heads, options.num_kv_heads);
  const auto x = random_matrix<Scalar>(24, 150, 7), other = random_matrix<Scalar>(24, 90, 8);
  const MultiHeadAttention<Scalar, Encodings...> reference(weights, options, encodings...);
  options.algorithm = AttentionAlgorithm::streaming;
  const MultiHeadAttention<Scalar, Encodings...> streaming(weights, options, encodings...);
  const double self = relative_distance(streaming(x, positions(150)), reference(x, positions(150)));
  const auto cross = [&](const auto& layer) { return layer(other, x, x, positions(90, 60), positions(150)); };
  return std::max(self, relative_distance(cross(streaming), cross(reference)));
}

}  // namespace

TEST_CASE("The streaming layer gives what the reference gives", "[multi_head_attention]") {
  const MultiHeadAttentionOptions plain{.num_heads = 4, .num_kv_heads = 4}, grouped{.num_heads = 4, .num_kv_heads = 2},
      multi_query{.num_heads = 4, .num_kv_heads = 1, .scale = 1};
  const Rope rope({.head_dim = 8});
  for (const auto& options : {plain, grouped, multi_query}) {
    CHECK(difference(options) <= 3e-6);
    CHECK(difference(options, rope, Alibi(4), CausalMask{}) <= 3e-6);
  }
  CHECK(difference(plain, Sinusoidal({.dim = 24}), CausalMask{}) <= 3e-6);
  const ClippedRelative<float> relative(random_matrix<float>(8, 9, 1), random_matrix<float>(6, 9, 2));
  CHECK(difference(grouped, relative, rope, SlidingWindow({.left = 20, .right = 5})) <= 3e-6);
  CHECK(difference<double>(grouped, rope, CausalMask{}) <= 1e-14);
  CHECK(difference<Eigen::bfloat16>(grouped, rope, CausalMask{}) <= 8e-3);  // a unit of the storage
}

TEST_CASE("Soft cap and sinks reach every head of both algorithms", "[multi_head_attention]") {
  MultiHeadAttentionOptions options{.num_heads = 4, .num_kv_heads = 2};
  options.soft_cap = 1.5;
  options.sinks = Vector<double>::LinSpaced(4, -2, 3);
  CHECK(difference(options, Rope({.head_dim = 8}), CausalMask{}) <= 3e-6);

  const auto weights = some_weights(4, 2);
  const auto x = random_matrix<float>(24, 30, 7);
  const MultiHeadAttention layer(weights, options, CausalMask{});
  Matrix<float> heads(24, 30);
  for (Index head = 0; head < 4; ++head) {
    const Matrix<float> q = weights.query.middleRows(head * 8, 8) * x, k = weights.key.middleRows(head / 2 * 8, 8) * x,
                        v = weights.value.middleRows(head / 2 * 6, 6) * x;
    const AttentionOptions one{.query_positions = positions(30),
                               .key_positions = positions(30),
                               .soft_cap = 1.5,
                               .sink = options.sinks[head],
                               .head = head,
                               .kv_head = head / 2};
    heads.middleRows(head * 6, 6) = attend(q, k, v, one, CausalMask{});
    CHECK(support::distance(layer.weights(x, positions(30), head), attention_weights(q, k, one, CausalMask{})) < 1e-6);
  }
  CHECK(relative_distance(layer(x, positions(30)), Matrix<float>(weights.output * heads)) <= 3e-6);
}

TEST_CASE("A soft cap or sinks that cannot be are errors", "[multi_head_attention]") {
  const auto error = [](const MultiHeadAttentionOptions& options) {
    return message_of<std::invalid_argument>([&] { MultiHeadAttention<float>(some_weights(4, 4), options); });
  };
  CHECK(error({.num_heads = 4, .soft_cap = -1}) ==
        "posenc::MultiHeadAttention: soft_cap must be 0 or positive and finite, got -1");
  CHECK(error({.num_heads = 4, .sinks = Vector<double>::Zero(3)}) ==
        "posenc::MultiHeadAttention: the number of sinks must be num_heads = 4, got 3");
}
