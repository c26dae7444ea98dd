// SPDX-License-Identifier: MIT

#include <posenc/fire.hpp>

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

static_assert(ScoreBias<Fire, float> && ScoreBias<Fire, double>);
static_assert(ScoreBias<Fire, Eigen::half> && ScoreBias<Fire, Eigen::bfloat16>);
static_assert(!DistanceBias<Fire> && BoundedBias<Fire>);
static_assert(!is_relative<Fire>);

namespace {

FireWeights<float> some_weights(Index num_heads = 3, Index width = 32) {
  return {.hidden_weight = support::random_matrix<float>(width, 1, 1).col(0),
          .hidden_bias = support::random_matrix<float>(width, 1, 2).col(0),
          .output_weight = support::random_matrix<float>(num_heads, width, 3),
          .output_bias = support::random_matrix<float>(num_heads, 1, 4).col(0),
          .threshold = 20};
}

/// The formula in 400 bits.
double formula(const FireWeights<float>& weights, std::int64_t key, std::int64_t query, Index head) {
  const auto psi = [&](double x) { return log(abs(Number(weights.c) * Number(x)) + Number(1)); };
  const Number x = psi(static_cast<double>(key - query)) /
                   (psi(std::max(static_cast<double>(query), weights.threshold)) + Number(weights.epsilon));
  Number sum(weights.output_bias[head]);
  for (Index i = 0; i < weights.hidden_weight.size(); ++i)
    sum = sum + Number(weights.output_weight(head, i)) *
                    max(Number(), Number(weights.hidden_weight[i]) * x + Number(weights.hidden_bias[i]));
  return static_cast<double>(sum);
}

}  // namespace

TEST_CASE("Fire is the formula", "[fire][accuracy]") {
  for (const double c : {0.1, -3.0}) {
    auto weights = some_weights();
    weights.c = c;
    const Fire fire(weights);
    CHECK(fire.num_heads() == 3);
    CHECK(fire.width() == 32);
    const std::vector<std::int64_t> keys{0, 1, 7, 30, 19, 100, -5, 1 << 20}, queries{0, 1, 19, 20, 21, 1000, -3};
    for (Index head = 0; head < 3; ++head) {
      const Matrix<double> written = bias_matrix<double>(fire, keys, queries, head);
      for (Index query = 0; query < written.cols(); ++query)
        for (Index key = 0; key < written.rows(); ++key) {
          const std::int64_t n = keys[static_cast<std::size_t>(key)], m = queries[static_cast<std::size_t>(query)];
          CHECK(std::abs(written(key, query) - formula(weights, n, m, head)) <= 1e-12);
          CHECK(fire.bias(n, m, head) == written(key, query));
        }
    }
  }
}

TEST_CASE("Fire: 0 at the query, 1 at the first token, whatever the length", "[fire]") {
  // One unit and one head that hand x through.
  FireWeights<double> weights{.hidden_weight = Eigen::VectorXd::Ones(1),
                              .hidden_bias = Eigen::VectorXd::Zero(1),
                              .output_weight = Eigen::MatrixXd::Ones(1, 1),
                              .output_bias = Eigen::VectorXd::Zero(1),
                              .threshold = 8,
                              .epsilon = 0};
  const Fire fire(weights);
  for (const std::int64_t query : {8, 9, 1000, 100000}) {
    CHECK(fire.bias(query, query, 0) == 0);
    CHECK(fire.bias(0, query, 0) == 1);
  }
  CHECK(fire.bias(0, 4, 0) == std::log1p(0.4) / std::log1p(0.8));  // before the threshold
  weights.epsilon = 0.5;
  CHECK(Fire(weights).bias(0, 9, 0) == std::log1p(0.1 * 9) / (std::log1p(0.1 * 9) + 0.5));
}

TEST_CASE("Fire adds to scores of any order", "[fire]") {
  const Fire fire(some_weights());
  Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> scores =
      Eigen::MatrixXd::Constant(40, 30, 2.5);
  const Matrix<double> before = scores;
  fire.add_bias(scores, positions(40), positions(30, 10), 2);
  CHECK(scores == before + bias_matrix<double>(fire, positions(40), positions(30, 10), 2));
}

TEST_CASE("Fire: bounds and streaming", "[fire][streaming]") {
  for (const Index width : {1, 8, 32}) {
    auto weights = some_weights(3, width);
    weights.hidden_weight[0] = 0;
    const Fire fire(weights);
    bias_checks::bounds_hold(fire, 3, 0, 60);
    bias_checks::bounds_hold(fire, 3, -100, 100);
    bias_checks::bounds_hold(fire, 3, 0, 100000);
  }
  bias_checks::streams_like_reference(Fire(some_weights()), 1, 150);

  // A single key and query: the bounds are the bias, but for what rounding may add.
  const Fire fire(some_weights());
  const BiasBounds bounds = fire.bounds(positions(1, 3), positions(1, 50), 0);
  CHECK(bounds.highest - bounds.lowest < 1e-11);
}

TEST_CASE("Fire: errors", "[fire][errors]") {
  const auto with = [](auto change) {
    auto weights = some_weights();
    change(weights);
    return weights;
  };
  using Weights = FireWeights<float>;
  CHECK_THROWS_MATCHES(Fire(Weights{}), std::invalid_argument,
                       Message("posenc::Fire: there must be at least one head, got 0"));
  CHECK_THROWS_MATCHES(Fire(with([](Weights& w) { w.hidden_bias.conservativeResize(31); })), std::invalid_argument,
                       Message("posenc::Fire: entries of hidden_bias must be those of hidden_weight = 32, got 31"));
  CHECK_THROWS_MATCHES(
      Fire(with([](Weights& w) { w.output_weight.conservativeResize(3, 30); })), std::invalid_argument,
      Message("posenc::Fire: columns of output_weight must be the entries of hidden_weight = 32, got 30"));
  CHECK_THROWS_MATCHES(Fire(with([](Weights& w) { w.output_weight.conservativeResize(2, 32); })), std::invalid_argument,
                       Message("posenc::Fire: rows of output_weight must be the entries of output_bias = 3, got 2"));
  CHECK_THROWS_MATCHES(Fire(with([](Weights& w) { w.output_bias[1] = std::numeric_limits<float>::infinity(); })),
                       std::invalid_argument, Message("posenc::Fire: weights must be finite, got inf"));
  CHECK_THROWS_MATCHES(Fire(with([](Weights& w) { w.c = 0; })), std::invalid_argument,
                       Message("posenc::Fire: c must be finite and not 0, got 0"));
  CHECK_THROWS_MATCHES(Fire(with([](Weights& w) { w.threshold = 0; })), std::invalid_argument,
                       Message("posenc::Fire: threshold must be positive and finite, got 0"));
  CHECK_THROWS_MATCHES(Fire(with([](Weights& w) { w.epsilon = -1; })), std::invalid_argument,
                       Message("posenc::Fire: epsilon must be finite and not negative, got -1"));

  const Fire fire(some_weights());
  const Positions two = positions(2);
  Matrix<float> scores = Matrix<float>::Zero(2, 2);
  CHECK_THROWS_MATCHES(fire(scores, two, two, 3), std::out_of_range,
                       Message("posenc::Fire: head must be below num_heads, got 3"));
  CHECK_THROWS_AS(fire.bias(0, 0, -1), std::out_of_range);
  CHECK_THROWS_AS(fire.bounds(two, two, 3), std::out_of_range);
  CHECK_THROWS_MATCHES(fire(scores, positions(3), two), std::invalid_argument,
                       Message("posenc::Fire: rows of the scores must be the number of key positions = 3, got 2"));
  CHECK(scores.isZero(0));
}
