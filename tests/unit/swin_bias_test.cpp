// SPDX-License-Identifier: MIT

#include <posenc/swin_bias.hpp>

#include <Eigen/Core>
#include <cstdint>
#include <limits>
#include <random>
#include <stdexcept>
#include <vector>

#include "../catch.hpp"
#include "bias_checks.hpp"

using namespace posenc;
using Catch::Matchers::Message;

static_assert(ScoreBias<SwinBias, float> && ScoreBias<SwinBias, double>);
static_assert(ScoreBias<SwinBias, Eigen::half> && ScoreBias<SwinBias, Eigen::bfloat16>);
static_assert(!DistanceBias<SwinBias> && BoundedBias<SwinBias>);
static_assert(!is_relative<SwinBias>);

namespace {

constexpr SwinWindow window{.height = 3, .width = 4};

const Matrix<float>& table() {
  static const Matrix<float> numbers = support::random_matrix<float>(2, 5 * 7);
  return numbers;
}

/// Row and column of each token of a window whose first one is at (y, x).
std::vector<std::int64_t> coordinates(std::int64_t y, std::int64_t x) {
  std::vector<std::int64_t> entries;
  for (std::int64_t t = 0; t < window.height * window.width; ++t) entries.push_back(y + t / window.width);
  for (std::int64_t t = 0; t < window.height * window.width; ++t) entries.push_back(x + t % window.width);
  return entries;
}

}  // namespace

TEST_CASE("SwinBias: the index of its picture", "[swin_bias]") {
  const SwinBias bias(Matrix<float>::Zero(1, 15), {.height = 2, .width = 3});
  const std::vector<Index> of_query_4{13, 12, 11, 8, 7, 6};
  for (Index key = 0; key < 6; ++key) CHECK(bias.index(key, 4) == of_query_4[static_cast<std::size_t>(key)]);
}

TEST_CASE("SwinBias adds the number of the offset of two tokens", "[swin_bias]") {
  const SwinBias bias(table(), window);
  CHECK(bias.num_heads() == 2);
  CHECK(bias.window().width == 4);
  const Positions tokens = positions(12);
  for (Index head = 0; head < 2; ++head) {
    Matrix<float> scores = Matrix<float>::Constant(12, 12, 0.5f);
    bias(scores, tokens, tokens, head);
    for (Index query = 0; query < 12; ++query)
      for (Index key = 0; key < 12; ++key) {
        const Index down = query / 4 - key / 4, right = query % 4 - key % 4;
        CHECK(bias.index(key, query) == (down + 2) * 7 + right + 3);
        CHECK(scores(key, query) == 0.5f + table()(head, (down + 2) * 7 + right + 3));
      }
  }
}

TEST_CASE("SwinBias: a window of many tokens, in both orders", "[swin_bias]") {
  const SwinWindow large{.height = 15, .width = 20};
  const SwinBias bias(support::random_matrix<float>(2, 29 * 39), large);
  Matrix<double> by_column = Matrix<double>::Zero(300, 300);
  Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> by_row = by_column;
  bias(by_column, positions(300), positions(300), 1);
  bias(by_row, positions(300), positions(300), 1);
  CHECK(Matrix<double>(by_row) == by_column);
  for (Index query = 0; query < 300; ++query)
    for (Index key = 0; key < 300; ++key) REQUIRE(by_column(key, query) == bias.table()(1, bias.index(key, query)));
}

TEST_CASE("SwinBias: coordinates of a window anywhere are its numbers", "[swin_bias]") {
  const SwinBias bias(table(), window);
  const Matrix<float> by_number = bias_matrix<float>(bias, positions(12), positions(12), 1);
  for (const std::int64_t corner : {std::int64_t{0}, std::int64_t{-7}, std::int64_t{1} << 40}) {
    const auto entries = coordinates(corner, 1000 - corner);
    const Positions tokens = Positions::axes(entries, 2);
    CHECK(bias_matrix<float>(bias, tokens, tokens, 1) == by_number);
    // A tile of it.
    Matrix<float> tile = Matrix<float>::Zero(5, 3);
    bias.add_bias(tile, tokens.segment(2, 5), tokens.segment(7, 3), 1);
    CHECK(tile == by_number.block(2, 7, 5, 3));
  }
}

TEST_CASE("SwinBias: bounds and streaming", "[swin_bias][streaming]") {
  const SwinBias bias(table(), window);
  std::mt19937_64 engine(1);
  for (int n = 0; n < 300; ++n) {
    std::vector<std::int64_t> keys(1 + engine() % 12), queries(1 + engine() % 12);
    for (auto* tokens : {&keys, &queries})
      for (auto& token : *tokens) token = static_cast<std::int64_t>(engine() % 12);
    const Index head = n % 2;
    const Matrix<double> written = bias_matrix<double>(bias, keys, queries, head);
    const BiasBounds bounds = bias.bounds(keys, queries, head);
    REQUIRE(bounds.lowest <= written.minCoeff());
    REQUIRE(written.maxCoeff() <= bounds.highest);
  }
  const BiasBounds of_nothing = bias.bounds(positions(0), positions(3), 0);
  CHECK((of_nothing.lowest == 0 && of_nothing.highest == 0));
  bias_checks::streams_like_reference(SwinBias(support::random_matrix<float>(2, 19 * 23), {.height = 10, .width = 12}),
                                      1, 120);
}

TEST_CASE("SwinBias: errors", "[swin_bias][errors]") {
  CHECK_THROWS_MATCHES(SwinBias(table(), {.height = 0, .width = 4}), std::invalid_argument,
                       Message("posenc::SwinBias: height must be positive and at most 2^15, got 0"));
  CHECK_THROWS_MATCHES(SwinBias(table(), {.height = 3, .width = 40000}), std::invalid_argument,
                       Message("posenc::SwinBias: width must be positive and at most 2^15, got 40000"));
  CHECK_THROWS_MATCHES(
      SwinBias(table(), {.height = 4, .width = 4}), std::invalid_argument,
      Message("posenc::SwinBias: columns of the table must be (2 height - 1) (2 width - 1) = 49, got 35"));
  CHECK_THROWS_MATCHES(SwinBias(Matrix<float>(0, 35), window), std::invalid_argument,
                       Message("posenc::SwinBias: the table must have a row for each head, got 0"));
  Matrix<float> infinite = table();
  infinite(1, 3) = std::numeric_limits<float>::infinity();
  CHECK_THROWS_MATCHES(SwinBias(infinite, window), std::invalid_argument,
                       Message("posenc::SwinBias: the table must be finite, got inf"));

  const SwinBias bias(table(), window);
  const Positions two = positions(2);
  Matrix<float> scores = Matrix<float>::Zero(2, 2);
  CHECK_THROWS_MATCHES(bias(scores, two, two, 2), std::out_of_range,
                       Message("posenc::SwinBias: head must be below num_heads, got 2"));
  CHECK_THROWS_AS(bias.bounds(two, two, -1), std::out_of_range);
  CHECK_THROWS_MATCHES(bias(scores, two, positions(2, 11)), std::out_of_range,
                       Message("posenc::SwinBias: a token must be in the window, got 12"));
  CHECK_THROWS_MATCHES(bias(scores, positions(2, -1), two), std::out_of_range,
                       Message("posenc::SwinBias: a token must be in the window, got -1"));
  CHECK_THROWS_MATCHES(bias.index(0, 12), std::out_of_range,
                       Message("posenc::SwinBias: a token must be in the window, got 12"));

  const auto axes = [](const std::vector<std::int64_t>& entries) { return Positions::axes(entries, 2); };
  const std::vector<std::int64_t> here{0, 1, 5, 5}, below{2, 3, 5, 5}, beside{0, 1, 8, 9},
      far{0, 1 + (std::int64_t{1} << 53), 5, 5}, cube{0, 0, 0, 0, 0, 0};
  CHECK_THROWS_MATCHES(bias(scores, axes(here), axes(below)), std::out_of_range,
                       Message("posenc::SwinBias: rows of two tokens must be less than height apart, got 3"));
  CHECK_THROWS_MATCHES(bias(scores, axes(beside), axes(here)), std::out_of_range,
                       Message("posenc::SwinBias: columns of two tokens must be less than width apart, got 4"));
  CHECK_THROWS_MATCHES(bias(scores, axes(far), axes(here)), std::out_of_range,
                       Message("posenc::SwinBias: |position| must be at most 2^53, got 9007199254740993"));
  CHECK_THROWS_MATCHES(bias(scores, Positions::axes(cube, 3), Positions::axes(cube, 3)), std::invalid_argument,
                       Message("posenc::SwinBias: positions must have one axis or two, got 3"));
  CHECK_THROWS_MATCHES(
      bias(scores, axes(here), two), std::invalid_argument,
      Message("posenc::SwinBias: axes of the query positions must be those of the key positions = 2, got 1"));
  CHECK_THROWS_MATCHES(bias(scores, positions(3), two), std::invalid_argument,
                       Message("posenc::SwinBias: rows of the scores must be the number of key positions = 3, got 2"));
  CHECK(scores.isZero(0));
}
