// SPDX-License-Identifier: MIT

#include <posenc/t5_bias.hpp>

#include <Eigen/Core>
#include <cstdint>
#include <limits>
#include <set>
#include <stdexcept>
#include <vector>

#include "../catch.hpp"
#include "bias_checks.hpp"

using namespace posenc;
using Catch::Matchers::Message;

static_assert(ScoreBias<T5Bias, float> && ScoreBias<T5Bias, double>);
static_assert(ScoreBias<T5Bias, Eigen::half> && ScoreBias<T5Bias, Eigen::bfloat16>);
static_assert(DistanceBias<T5Bias> && BoundedBias<T5Bias>);
static_assert(is_relative<T5Bias> && !QueryKeyEncoding<T5Bias>);

namespace {

constexpr T5Options causal{.direction = T5Direction::causal};

/// Integers of any size, as products; the lowest digit comes first.
using Digits = std::vector<std::uint32_t>;

Digits product(std::uint32_t a, Index a_power, std::uint32_t b, Index b_power) {
  Digits digits{1};
  for (Index n = 0; n < a_power + b_power; ++n) {
    std::uint64_t carry = 0;
    for (std::uint32_t& digit : digits) {
      carry += std::uint64_t{digit} * (n < a_power ? a : b);
      digit = static_cast<std::uint32_t>(carry);
      carry >>= 32;
    }
    if (carry > 0) digits.push_back(static_cast<std::uint32_t>(carry));
  }
  return digits;
}

bool at_most(const Digits& a, const Digits& b) {
  if (a.size() != b.size()) return a.size() < b.size();
  for (std::size_t i = a.size(); i-- > 0;)
    if (a[i] != b[i]) return a[i] < b[i];
  return true;
}

/// Bucket E + j begins at the first a with (M / E)^j <= (a / E)^(B' - E): M^j E^(B' - E) <= a^(B' - E) E^j.
Index causal_bucket_by_integers(std::uint32_t distance, Index num_buckets, std::uint32_t max_distance) {
  const auto single = static_cast<std::uint32_t>(num_buckets / 2);
  const Index growing = num_buckets - num_buckets / 2;
  if (distance < single) return distance;
  Index j = 0;
  while (j + 1 < growing &&
         at_most(product(max_distance, j + 1, single, growing), product(distance, growing, single, j + 1)))
    ++j;
  return num_buckets / 2 + j;
}

/// Numbers that tell their column and row.
Matrix<float> numbered(Index num_heads, Index num_buckets) {
  Matrix<float> table(num_heads, num_buckets);
  for (Index head = 0; head < num_heads; ++head)
    for (Index bucket = 0; bucket < num_buckets; ++bucket)
      table(head, bucket) = static_cast<float>(100 * head + bucket);
  return table;
}

}  // namespace

TEST_CASE("T5's buckets of 32 to distance 128", "[t5_bias]") {
  CHECK(t5_bucket(0) == 0);
  CHECK(t5_bucket(1) == 17);
  CHECK(t5_bucket(-1) == 1);
  CHECK(t5_bucket(-8) == 8);
  CHECK(t5_bucket(-16) == 10);
  CHECK(t5_bucket(-32) == 12);
  CHECK(t5_bucket(-64) == 14);
  CHECK(t5_bucket(-128) == 15);
  CHECK(t5_bucket(16) == 26);
  CHECK(t5_bucket(std::numeric_limits<std::int64_t>::max()) == 31);
  CHECK(t5_bucket(std::numeric_limits<std::int64_t>::min()) == 15);

  CHECK(t5_bucket(-16, causal) == 16);
  CHECK(t5_bucket(-32, causal) == 21);
  CHECK(t5_bucket(-64, causal) == 26);
  CHECK(t5_bucket(-112, causal) == 30);
  CHECK(t5_bucket(-113, causal) == 31);
  for (const std::int64_t after : {std::int64_t{0}, std::int64_t{1}, std::numeric_limits<std::int64_t>::max()})
    CHECK(t5_bucket(after, causal) == 0);
}

TEST_CASE("Exact buckets begin where whole numbers say", "[t5_bias][accuracy]") {
  for (const Index num_buckets : {2, 3, 4, 5, 8, 9, 15, 16, 18, 19, 32, 36, 64})
    for (const std::uint32_t max_distance : {33u, 49u, 50u, 64u, 81u, 100u, 125u, 128u, 200u}) {
      const T5Options options{
          .num_buckets = num_buckets, .max_distance = max_distance, .direction = T5Direction::causal};
      const Matrix<float> table = Matrix<float>::Zero(1, num_buckets);
      const T5Bias bias(table, options);
      for (std::uint32_t distance = 0; distance <= max_distance + 2; ++distance) {
        const Index expected = causal_bucket_by_integers(distance, num_buckets, max_distance);
        CAPTURE(num_buckets, max_distance, distance);
        REQUIRE(t5_bucket(-std::int64_t{distance}, options) == expected);
        REQUIRE(bias.bucket(-std::int64_t{distance}) == expected);
      }
    }
}

TEST_CASE("The two arithmetics differ only where a logarithm is a whole number", "[t5_bias]") {
  // ln(30/18) / ln(50/18) = 1/2 and 18 buckets grow: the tenth of them begins at 30. In float it is missed.
  T5Options options{.num_buckets = 36, .max_distance = 50, .direction = T5Direction::causal};
  CHECK(t5_bucket(-30, options) == 27);
  options.arithmetic = T5Arithmetic::float32;
  CHECK(t5_bucket(-30, options) == 26);
  CHECK(T5Bias(Matrix<float>::Zero(1, 36), options).bucket(-30) == 26);

  // In double the first of these would be missed: 5 ln 2 / ln 32 comes out below 1.
  for (const T5Arithmetic arithmetic : {T5Arithmetic::exact, T5Arithmetic::float32}) {
    const T5Options other{.num_buckets = 18, .max_distance = 128, .arithmetic = arithmetic};
    CHECK(t5_bucket(-8, other) == 5);
    CHECK(t5_bucket(-16, other) == 6);
    CHECK(t5_bucket(64, other) == 17);
  }

  // The usual sizes are the same in both, at every distance.
  for (const T5Direction direction : {T5Direction::bidirectional, T5Direction::causal})
    for (std::int64_t distance = -300; distance <= 300; ++distance)
      CHECK(t5_bucket(distance, {.direction = direction}) ==
            t5_bucket(distance, {.direction = direction, .arithmetic = T5Arithmetic::float32}));
}

TEST_CASE("Buckets never fall with the distance, and all are used", "[t5_bias]") {
  for (const T5Arithmetic arithmetic : {T5Arithmetic::exact, T5Arithmetic::float32})
    for (const Index num_buckets : {4, 7, 18, 32, 38, 64}) {
      const T5Options options{.num_buckets = num_buckets, .max_distance = 1000, .arithmetic = arithmetic};
      std::set<Index> before, after;
      for (std::int64_t distance = 0; distance <= 1100; ++distance) {
        const Index left = t5_bucket(-distance, options), right = t5_bucket(distance, options);
        if (distance > 0) {
          CHECK(left >= *before.rbegin());
          CHECK(right == left + num_buckets / 2);
          after.insert(right);
        }
        before.insert(left);
      }
      CHECK(before.size() == static_cast<std::size_t>(num_buckets / 2));
      CHECK(after.size() == static_cast<std::size_t>(num_buckets / 2) - 1);  // distance 0 is not after the query
    }
}

TEST_CASE("T5Bias adds the number of the bucket", "[t5_bias]") {
  const Matrix<float> table = numbered(3, 32);
  const T5Bias bias(table);
  CHECK(bias.num_heads() == 3);
  CHECK(bias.options().num_buckets == 32);
  CHECK(bias.table() == table.cast<double>());
  const Positions keys = positions(40), queries = positions(3, 37);  // the tail of a cache
  for (Index head = 0; head < 3; ++head) {
    Matrix<float> scores = Matrix<float>::Constant(40, 3, 0.5f);
    bias(scores, keys, queries, head);
    for (Index query = 0; query < 3; ++query)
      for (Index key = 0; key < 40; ++key)
        CHECK(scores(key, query) == 0.5f + table(head, t5_bucket(key - (37 + query))));
  }
}

TEST_CASE("A row-major table of buckets by heads is the table", "[t5_bias]") {
  const std::vector<float> weight{0, 10, 1, 11, 2, 12, 3, 13};  // [num_buckets = 4, heads = 2]
  const Eigen::Map<const Eigen::Matrix<float, 2, 4>> table(weight.data());
  const T5Bias bias(table, {.num_buckets = 4, .max_distance = 8});
  CHECK(bias.at_distance(0, 0) == 0);
  CHECK(bias.at_distance(-1, 0) == 1);
  CHECK(bias.at_distance(1, 1) == 13);
}

TEST_CASE("T5Bias at a distance, and its bounds", "[t5_bias]") {
  std::mt19937_64 engine(3);
  std::normal_distribution<float> normal;
  for (const T5Direction direction : {T5Direction::bidirectional, T5Direction::causal})
    for (const Index num_buckets : {8, 32}) {
      const Matrix<float> table = Matrix<float>::NullaryExpr(4, num_buckets, [&] { return normal(engine); });
      const T5Bias bias(table, {.num_buckets = num_buckets, .max_distance = 70, .direction = direction});
      bias_checks::distance_is_hook(bias, 4, -100, 100);
      bias_checks::distance_is_hook(bias, 4, -(std::int64_t{1} << 50), std::int64_t{1} << 50);
      CHECK(bias_checks::bounds_hold(bias, 4, -40, 40) > 100);
      bias_checks::bounds_hold(bias, 4, -200, 200);
    }
}

TEST_CASE("T5Bias in streaming attention", "[t5_bias][streaming]") {
  bias_checks::streams_like_reference(T5Bias(support::random_matrix<float>(3, 32), causal), 2, 150);
}

TEST_CASE("T5Bias: errors", "[t5_bias][errors]") {
  CHECK_THROWS_MATCHES(t5_bucket(1, {.num_buckets = 3}), std::invalid_argument,
                       Message("posenc::t5_bucket: num_buckets must be at least 4 (2 if causal), got 3"));
  CHECK_THROWS_MATCHES(t5_bucket(1, {.num_buckets = 1, .direction = T5Direction::causal}), std::invalid_argument,
                       Message("posenc::t5_bucket: num_buckets must be at least 4 (2 if causal), got 1"));
  CHECK_THROWS_MATCHES(
      t5_bucket(1, {.num_buckets = 32, .max_distance = 8}), std::invalid_argument,
      Message("posenc::t5_bucket: max_distance must be above the distances that have a bucket of their own, got 8"));
  CHECK_THROWS_MATCHES(t5_bucket(1, {.max_distance = (std::int64_t{1} << 53) + 1}), std::invalid_argument,
                       Message("posenc::t5_bucket: max_distance must be at most 2^53, got 9007199254740993"));
  CHECK(t5_bucket(1, {.max_distance = std::int64_t{1} << 53}) == 17);

  const Matrix<float> table = numbered(2, 32);
  CHECK_THROWS_MATCHES(T5Bias(table, {.num_buckets = 16}), std::invalid_argument,
                       Message("posenc::T5Bias: columns of the table must be num_buckets = 16, got 32"));
  CHECK_THROWS_MATCHES(T5Bias(table, {.max_distance = (1 << 24) + 1}), std::invalid_argument,
                       Message("posenc::T5Bias: max_distance must be at most 2^24, got 16777217"));
  CHECK_THROWS_MATCHES(T5Bias(Matrix<float>(0, 32)), std::invalid_argument,
                       Message("posenc::T5Bias: the table must have a row for each head, got 0"));
  Matrix<float> infinite = table;
  infinite(1, 3) = std::numeric_limits<float>::infinity();
  CHECK_THROWS_MATCHES(T5Bias(infinite), std::invalid_argument,
                       Message("posenc::T5Bias: the table must be finite, got inf"));

  const T5Bias bias(table);
  const Positions two = positions(2);
  Matrix<float> scores = Matrix<float>::Zero(2, 2);
  CHECK_THROWS_MATCHES(bias(scores, two, two, 2), std::out_of_range,
                       Message("posenc::T5Bias: head must be below num_heads, got 2"));
  CHECK_THROWS_MATCHES(bias.at_distance(0, -1), std::out_of_range,
                       Message("posenc::T5Bias: head must be below num_heads, got -1"));
  CHECK_THROWS_AS(bias.bounds(two, two, 2), std::out_of_range);
  CHECK_THROWS_MATCHES(bias(scores, positions(3), two), std::invalid_argument,
                       Message("posenc::T5Bias: rows of the scores must be the number of key positions = 3, got 2"));
  CHECK_THROWS_MATCHES(
      bias(scores, two, positions(1)), std::invalid_argument,
      Message("posenc::T5Bias: columns of the scores must be the number of query positions = 1, got 2"));
  CHECK(scores.isZero(0));
}
