// SPDX-License-Identifier: MIT

#include <posenc/sandwich.hpp>

#include <posenc/sinusoidal.hpp>

#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <vector>

#include "../catch.hpp"
#include "../exact.hpp"
#include "bias_checks.hpp"

using namespace posenc;
using Catch::Matchers::Message;
using exact::Number;

static_assert(ScoreBias<Sandwich, float> && ScoreBias<Sandwich, double>);
static_assert(ScoreBias<Sandwich, Eigen::half> && ScoreBias<Sandwich, Eigen::bfloat16>);
static_assert(DistanceBias<Sandwich> && BoundedBias<Sandwich>);
static_assert(is_relative<Sandwich> && !QueryKeyEncoding<Sandwich>);

namespace {

Number sum_of_cosines(double distance, Index dim, Index first) {
  Number sum;
  for (Index i = first; i < first + dim / 2; ++i)
    sum = sum + cos(Number(distance) *
                    pow(Number(10000), Number(static_cast<double>(-2 * i)) / Number(static_cast<double>(dim))));
  return sum;
}

}  // namespace

TEST_CASE("Sandwich: ratios", "[sandwich]") {
  CHECK(sandwich_ratios(8) == Eigen::VectorXd::LinSpaced(8, 1, 8));
  CHECK(sandwich_ratios(1) == Eigen::VectorXd::Constant(1, 8));
  CHECK(sandwich_ratios(12)[0] == 8.0 / 12);
  CHECK_THROWS_MATCHES(sandwich_ratios(0), std::invalid_argument,
                       Message("posenc::sandwich_ratios: num_heads must be positive, got 0"));
}

TEST_CASE("Sandwich is the formula, at any distance", "[sandwich][accuracy]") {
  for (const Index dim : {2, 32, 128}) {
    const Sandwich ours({.num_heads = 8, .dim = dim});
    double worst = 0;
    for (const double distance : {0.0, 1.0, 2.0, 17.0, 2047.0, 2048.0, 65537.0, 0x1p31, 0x1p50}) {
      const Number sum = sum_of_cosines(distance, dim, 0);
      for (const Index head : {0, 7}) {
        const Number expected = sum / Number(static_cast<double>(head + 1));
        const double got = ours.at_distance(-static_cast<std::int64_t>(distance), head);
        worst = std::max(worst, std::abs(static_cast<double>(Number(got) - expected)));
      }
    }
    CHECK(worst <= 1e-13 * static_cast<double>(dim));
  }
}

TEST_CASE("Sandwich: numbers of its picture", "[sandwich]") {
  const Sandwich one(Eigen::VectorXd::Ones(1));
  CHECK(one.at_distance(0, 0) == 64);
  const std::vector<std::int64_t> distances{1, 2, 4, 8, 16, 64, 256, 1024};
  const std::vector<double> biases{62.1, 57.4, 48.6, 45.7, 39.7, 30.5, 20.5, 13.1};
  for (std::size_t i = 0; i < distances.size(); ++i)
    CHECK(std::abs(one.at_distance(distances[i], 0) - biases[i]) < 0.05);
}

TEST_CASE("Sandwich is the product of two sinusoidal encodings", "[sandwich]") {
  const Sinusoidal sinusoidal(SinusoidalOptions::vaswani(128));
  const Matrix<double> keys = sinusoidal.table<double>(positions(40)),
                       queries = sinusoidal.table<double>(positions(5, 35));
  const Sandwich sandwich(12);
  for (Index head = 0; head < 12; ++head)
    CHECK(support::distance(bias_matrix<double>(sandwich, positions(40), positions(5, 35), head),
                            keys.transpose() * queries / sandwich.ratios()[head]) <= 1e-11);
}

TEST_CASE("Sandwich as NeMo has it", "[sandwich]") {
  const Sandwich nemo({.num_heads = 4,
                       .dim = 64,
                       .frequencies = SandwichFrequencies::from_one,
                       .level = SandwichLevel::zero_at_distance_0});
  CHECK(nemo.at_distance(0, 3) == 0);
  for (const std::int64_t distance : {1, 5, 100, 5000})
    for (Index head = 0; head < 4; ++head) {
      const Number expected = (sum_of_cosines(static_cast<double>(distance), 64, 1) - Number(32)) /
                              Number(2 * static_cast<double>(head + 1));
      CHECK(std::abs(nemo.at_distance(distance, head) - static_cast<double>(expected)) <= 1e-11);
    }
}

TEST_CASE("Sandwich: the table changes nothing", "[sandwich]") {
  const Sandwich all({.num_heads = 2, .table_size = 300}), none({.num_heads = 2, .table_size = 0});
  for (std::int64_t distance = -310; distance <= 310; ++distance)
    CHECK(all.at_distance(distance, 1) == none.at_distance(distance, 1));
}

TEST_CASE("Sandwich at a distance, its bounds, and streaming", "[sandwich][streaming]") {
  for (const SandwichLevel level : {SandwichLevel::as_summed, SandwichLevel::zero_at_distance_0}) {
    const Sandwich sandwich({.num_heads = 4, .dim = 16, .level = level, .table_size = 128});
    bias_checks::distance_is_hook(sandwich, 4, -300, 300);
    bias_checks::distance_is_hook(sandwich, 4, -(std::int64_t{1} << 50), std::int64_t{1} << 50);
    bias_checks::bounds_hold(sandwich, 4, -30, 30);
    bias_checks::bounds_hold(sandwich, 4, -300, 300);
  }
  bias_checks::streams_like_reference(Sandwich(8), 1, 150);
}

TEST_CASE("Sandwich: errors", "[sandwich][errors]") {
  CHECK_THROWS_MATCHES(Sandwich(SandwichOptions{}), std::invalid_argument,
                       Message("posenc::sandwich_ratios: num_heads must be positive, got 0"));
  CHECK_THROWS_MATCHES(Sandwich({.num_heads = 1, .dim = 7}), std::invalid_argument,
                       Message("posenc::Sandwich: dim must be positive and even, got 7"));
  CHECK_THROWS_MATCHES(Sandwich({.num_heads = 1, .base = 0}), std::invalid_argument,
                       Message("posenc::Sandwich: base must be positive and finite, got 0"));
  CHECK_THROWS_MATCHES(Sandwich({.num_heads = 1, .table_size = -1}), std::invalid_argument,
                       Message("posenc::Sandwich: table_size must not be negative, got -1"));
  CHECK_THROWS_MATCHES(Sandwich(Eigen::VectorXd()), std::invalid_argument,
                       Message("posenc::Sandwich: there must be at least one ratio, got 0"));
  CHECK_THROWS_MATCHES(Sandwich(Eigen::Vector2d(1, 0)), std::invalid_argument,
                       Message("posenc::Sandwich: a ratio must be positive and finite, got 0"));
  CHECK_THROWS_MATCHES(Sandwich(Eigen::Vector2d(1, 2), {.num_heads = 3}), std::invalid_argument,
                       Message("posenc::Sandwich: num_heads must be 0 or the number of ratios, got 3"));

  const Sandwich sandwich({.num_heads = 2, .table_size = 10});
  const Positions two = positions(2);
  Matrix<float> scores = Matrix<float>::Zero(2, 2);
  CHECK_THROWS_MATCHES(sandwich(scores, two, two, 2), std::out_of_range,
                       Message("posenc::Sandwich: head must be below num_heads, got 2"));
  CHECK_THROWS_AS(sandwich.at_distance(0, 2), std::out_of_range);
  CHECK_THROWS_AS(sandwich.bounds(two, two, -1), std::out_of_range);
  CHECK_THROWS_MATCHES(sandwich(scores, two, positions(2, std::int64_t{1} << 53)), std::out_of_range,
                       Message("posenc::Sandwich: |position| must be at most 2^53, got 9007199254740993"));
  CHECK_THROWS_MATCHES(sandwich(scores, positions(3), two), std::invalid_argument,
                       Message("posenc::Sandwich: rows of the scores must be the number of key positions = 3, got 2"));
  CHECK(scores.isZero(0));
}
