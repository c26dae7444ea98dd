// SPDX-License-Identifier: MIT

#include <posenc/views.hpp>

#include <Eigen/Core>
#include <numeric>
#include <stdexcept>
#include <vector>

#include "../catch.hpp"

using namespace posenc;
using Catch::Matchers::Message;

namespace {

/// A buffer in which every number is its own place.
std::vector<float> buffer(Index size) {
  std::vector<float> numbers(static_cast<std::size_t>(size));
  std::iota(numbers.begin(), numbers.end(), 0.0f);
  return numbers;
}

}  // namespace

TEST_CASE("A row-major [T, D] buffer is a D x T matrix, byte for byte", "[views]") {
  const Index num_tokens = 3, num_features = 4;
  auto data = buffer(12);
  auto x = tokens(data.data(), {.num_features = num_features, .num_tokens = num_tokens});
  REQUIRE(x.rows() == num_features);
  REQUIRE(x.cols() == num_tokens);
  CHECK(x.data() == data.data());
  for (Index t = 0; t < num_tokens; ++t)
    for (Index i = 0; i < num_features; ++i) CHECK(&x(i, t) == &data[static_cast<std::size_t>(t * num_features + i)]);
  x(1, 2) = -1;
  CHECK(data[9] == -1);

  const Matrix<float> copy = x;  // the same bytes in the same order
  CHECK(std::vector<float>(copy.data(), copy.data() + 12) == data);
}

TEST_CASE("Tokens may lie further apart than their features", "[views]") {
  auto data = buffer(20);
  const auto x = tokens(data.data() + 2, {.num_features = 3, .num_tokens = 3, .token_stride = 7});
  CHECK(x(0, 0) == 2);
  CHECK(x(2, 2) == 18);
  CHECK(x.outerStride() == 7);
}

TEST_CASE("A const buffer gives a view that cannot be written", "[views]") {
  const auto data = buffer(6);
  const auto x = tokens(data.data(), {.num_features = 2, .num_tokens = 3});
  CHECK(x(1, 2) == 5);
  STATIC_REQUIRE_FALSE(MutableDense<decltype(x)>);
  STATIC_REQUIRE_FALSE(MutableDense<TokenMap<const float>>);
  STATIC_REQUIRE(MutableDense<TokenMap<float>>);
}

TEST_CASE("Heads of [B, T, H, D] and [B, H, T, D]", "[views]") {
  const TensorShape shape{.num_batches = 2, .num_tokens = 3, .num_heads = 4, .head_dim = 5};
  auto data = buffer(2 * 3 * 4 * 5);
  for (Index b = 0; b < 2; ++b)
    for (Index h = 0; h < 4; ++h) {
      const auto bthd = head_view(data.data(), shape, TensorLayout::bthd, b, h);
      const auto bhtd = head_view(data.data(), shape, TensorLayout::bhtd, b, h);
      REQUIRE((bthd.rows() == 5 && bthd.cols() == 3 && bhtd.rows() == 5 && bhtd.cols() == 3));
      for (Index t = 0; t < 3; ++t)
        for (Index i = 0; i < 5; ++i) {
          CHECK(bthd(i, t) == static_cast<float>(((b * 3 + t) * 4 + h) * 5 + i));
          CHECK(bhtd(i, t) == static_cast<float>(((b * 4 + h) * 3 + t) * 5 + i));
        }
    }
}

TEST_CASE("All heads of [B, T, H, D] lie one below the other", "[views]") {
  const TensorShape shape{.num_batches = 2, .num_tokens = 3, .num_heads = 4, .head_dim = 5};
  auto data = buffer(2 * 3 * 4 * 5);
  const auto all = all_heads_view(data.data(), shape, 1);
  REQUIRE(all.rows() == 20);
  REQUIRE(all.cols() == 3);
  for (Index h = 0; h < 4; ++h)
    CHECK(all.middleRows(h * 5, 5) == head_view(data.data(), shape, TensorLayout::bthd, 1, h));
}

TEST_CASE("Empty buffers are legal", "[views]") {
  float* const none = nullptr;
  CHECK(tokens(none, {.num_features = 4, .num_tokens = 0}).cols() == 0);
  CHECK(tokens(none, {}).size() == 0);
  CHECK(head_view(none, {.num_heads = 1, .head_dim = 4}, TensorLayout::bhtd, 0, 0).cols() == 0);
}

TEST_CASE("Views of what is not there are refused", "[views]") {
  float number = 0;
  const auto view = [&](const TokensShape& shape) { return tokens(&number, shape); };
  CHECK_THROWS_MATCHES(view({.num_features = 3, .num_tokens = 1, .token_stride = 2}), std::invalid_argument,
                       Message("posenc::tokens: token_stride must be at least num_features, got 2"));
  CHECK_THROWS_MATCHES(view({.num_features = -1, .num_tokens = 1}), std::invalid_argument,
                       Message("posenc::tokens: num_features must not be negative, got -1"));
  CHECK_THROWS_MATCHES(view({.num_features = 1, .num_tokens = -2}), std::invalid_argument,
                       Message("posenc::tokens: num_tokens must not be negative, got -2"));

  const TensorShape shape{.num_batches = 2, .num_tokens = 3, .num_heads = 4, .head_dim = 5};
  for (const auto layout : {TensorLayout::bthd, TensorLayout::bhtd}) {
    CHECK_THROWS_MATCHES(head_view(&number, shape, layout, 2, 0), std::out_of_range,
                         Message("posenc::head_view: batch must be in the tensor, got 2"));
    CHECK_THROWS_MATCHES(head_view(&number, shape, layout, 0, 4), std::out_of_range,
                         Message("posenc::head_view: head must be in the tensor, got 4"));
    CHECK_THROWS_AS(head_view(&number, shape, layout, -1, 0), std::out_of_range);
    CHECK_THROWS_AS(head_view(&number, shape, layout, 0, -1), std::out_of_range);
  }
  CHECK_THROWS_MATCHES(all_heads_view(&number, shape, 2), std::out_of_range,
                       Message("posenc::all_heads_view: batch must be in the tensor, got 2"));
  for (const TensorShape& bad : {TensorShape{.num_batches = -1}, TensorShape{.num_tokens = -1},
                                 TensorShape{.num_heads = -1}, TensorShape{.head_dim = -1}})
    CHECK_THROWS_AS(all_heads_view(&number, bad, 0), std::invalid_argument);
  CHECK_THROWS_MATCHES(head_view(&number, {.head_dim = -3}, TensorLayout::bthd, 0, 0), std::invalid_argument,
                       Message("posenc::TensorShape: head_dim must not be negative, got -3"));
}
