// SPDX-License-Identifier: MIT
#include "../property/allocations.hpp"

#include <posenc/query_temperature.hpp>

#include <posenc/attention.hpp>
#include <posenc/rope.hpp>

#include <cmath>
#include <cstdint>
#include <iterator>
#include <limits>
#include <stdexcept>
#include <vector>

#include "../catch.hpp"
#include "../support.hpp"

using namespace posenc;
using support::message_of;

static_assert(QueryKeyEncoding<QueryTemperature, float> && QueryKeyEncoding<QueryTemperature, double>);
static_assert(QueryKeyEncoding<QueryTemperature, Eigen::half> && QueryKeyEncoding<QueryTemperature, Eigen::bfloat16>);
static_assert(!is_relative<QueryTemperature> && !preserves_norm<QueryTemperature>);

namespace {

const std::vector<std::int64_t> some_positions{
    0, 1, 2046, 2047, 2048, 8190, 8191, 8192, 16383, 131071, 131072, 1000000, std::int64_t{1} << 40};

}  // namespace

TEST_CASE("QueryTemperature: the three formulas", "[query_temperature]") {
  const auto log_n = QueryTemperature::log_n(2048);
  const auto llama4 = QueryTemperature::llama4(), ministral = QueryTemperature::ministral(0.1, 16384);
  for (const std::int64_t position : some_positions) {
    CAPTURE(position);
    const auto m = static_cast<long double>(position);
    const auto close = [](double got, long double expected) {
      return std::abs(got - expected) <= 2e-16L * std::abs(expected) * 2;
    };
    CHECK(close(log_n.factor(position), std::max(1.0L, std::log(m + 1) / std::log(2048.0L))));
    CHECK(close(llama4.factor(position), 1 + 0.1L * std::log(1 + std::floor((m + 1) / 8192))));
    CHECK(close(ministral.factor(position), 1 + 0.1L * std::log(1 + std::floor(m / 16384))));
  }
}

TEST_CASE("QueryTemperature: the numbers of the doc comment", "[query_temperature]") {
  const std::int64_t positions[] = {0, 2047, 8190, 8191, 16383, 65535, 1048575};
  const double log_n[] = {1, 1, 1.18, 1.18, 1.27, 1.45, 1.82}, llama4[] = {1, 1, 1, 1.07, 1.11, 1.22, 1.49};
  for (std::size_t i = 0; i < std::size(positions); ++i) {
    CAPTURE(positions[i]);
    CHECK(std::abs(QueryTemperature::log_n(2048).factor(positions[i]) - log_n[i]) <= 0.005);
    CHECK(std::abs(QueryTemperature::llama4().factor(positions[i]) - llama4[i]) <= 0.005);
  }
}

TEST_CASE("QueryTemperature: where it begins", "[query_temperature]") {
  const auto log_n = QueryTemperature::log_n(2048);
  CHECK(log_n.factor(0) == 1);
  CHECK(log_n.factor(2047) == 1);
  CHECK(log_n.factor(2048) > 1);
  CHECK(log_n.factor(2048 * 2048 - 1) == 2);
  const auto llama4 = QueryTemperature::llama4();
  CHECK(llama4.factor(8190) == 1);
  CHECK(llama4.factor(8191) > 1);  // the 8192nd token
  const auto ministral = QueryTemperature::ministral(0.1, 8192);
  CHECK(ministral.factor(8191) == 1);
  CHECK(ministral.factor(8192) == llama4.factor(8191));
}

TEMPLATE_TEST_CASE("QueryTemperature multiplies queries and leaves keys alone", "[query_temperature]", float, double,
                   Eigen::half, Eigen::bfloat16) {
  using Scalar = TestType;
  const auto temperature = QueryTemperature::log_n(64);
  const auto before = support::random_matrix<Scalar>(6, static_cast<Index>(some_positions.size()));
  Matrix<Scalar> queries = before, keys = before;
  Eigen::Matrix<Scalar, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> row_major = before;
  CHECK_FALSE(laws::allocates([&] {
    temperature.apply_query(queries, some_positions);
    temperature.apply_key(keys, some_positions, 3);
    temperature(row_major, some_positions);
  }));
  CHECK(support::same_bits(keys, before));
  CHECK(support::same_bits(queries, row_major));
  using Real = std::conditional_t<std::is_same_v<Scalar, double>, double, float>;
  for (Index t = 0; t < queries.cols(); ++t)
    for (Index i = 0; i < queries.rows(); ++i) {
      const auto factor = static_cast<Real>(temperature.factor(some_positions[static_cast<std::size_t>(t)]));
      CHECK(queries(i, t) == static_cast<Scalar>(static_cast<Real>(before(i, t)) * factor));
    }
  Matrix<Scalar> none(6, 0);
  temperature(none, positions(0));
}

TEST_CASE("QueryTemperature in attention is a scale that grows", "[query_temperature]") {
  const auto q = support::random_matrix<double>(8, 3, 1), k = support::random_matrix<double>(8, 5, 2);
  const auto temperature = QueryTemperature::ministral(0.3, 100);
  const Rope rope({.head_dim = 8});
  const std::vector<std::int64_t> at{50, 150, 950};
  const AttentionOptions options{.query_positions = at, .key_positions = positions(5)};
  const Matrix<double> with = attention_weights(q, k, options, rope, temperature);
  for (Index t = 0; t < 3; ++t) {
    AttentionOptions alone = options;
    alone.query_positions = options.query_positions.segment(t, 1);
    alone.scale = temperature.factor(at[static_cast<std::size_t>(t)]) / std::sqrt(8.0);
    CHECK(support::distance(with.col(t), attention_weights(q.col(t), k, alone, rope)) < 1e-15);
  }
}

TEST_CASE("QueryTemperature: errors", "[query_temperature]") {
  using Invalid = std::invalid_argument;
  CHECK(message_of<Invalid>([] { QueryTemperature::log_n(1); }) ==
        "posenc::QueryTemperature: length must be above 1, got 1");
  CHECK(message_of<Invalid>([] { QueryTemperature::llama4(0.1, 0); }) ==
        "posenc::QueryTemperature: length must be positive, got 0");
  CHECK(message_of<Invalid>([] { QueryTemperature::ministral(0.1, -5); }) ==
        "posenc::QueryTemperature: length must be positive, got -5");
  CHECK(message_of<Invalid>([] { QueryTemperature::ministral(std::numeric_limits<double>::infinity(), 5); }) ==
        "posenc::QueryTemperature: scale must be finite, got inf");
  const auto temperature = QueryTemperature::log_n(64);
  const auto before = support::random_matrix<float>(4, 3);
  Matrix<float> x = before;
  CHECK(message_of<Invalid>([&] { temperature(x, positions(2)); }) ==
        "posenc::QueryTemperature: columns must be the number of positions = 2, got 3");
  CHECK(message_of<Invalid>([&] { temperature.apply_key(x, positions(2)); }) ==
        "posenc::QueryTemperature: columns must be the number of positions = 2, got 3");
  const std::vector<std::int64_t> negative{1000, 2000, -1};
  CHECK(message_of<std::out_of_range>([&] { temperature(x, negative); }) ==
        "posenc::QueryTemperature: a position must not be negative, got -1");
  CHECK(support::same_bits(x, before));
}
