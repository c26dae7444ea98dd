// SPDX-License-Identifier: MIT

#include <posenc/alibi.hpp>

#include <posenc/attention.hpp>
#include <posenc/masks.hpp>

#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <vector>

#include "../catch.hpp"
#include "../exact.hpp"

using namespace posenc;
using Catch::Matchers::Message;

static_assert(ScoreBias<Alibi, float> && ScoreBias<Alibi, double>);
static_assert(ScoreBias<Alibi, Eigen::half> && ScoreBias<Alibi, Eigen::bfloat16>);
static_assert(is_relative<Alibi> && !QueryKeyEncoding<Alibi>);

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

/// The bias alone, keys and queries at 0, ..., 3.
Matrix<double> written_out(const Alibi& alibi, Index head = 0) {
  Matrix<double> scores = Matrix<double>::Zero(4, 4);
  alibi(scores, positions(4), positions(4), head);
  return scores;
}

}  // namespace

TEST_CASE("Slopes of 8 and of 12 heads are those of the paper's code", "[alibi]") {
  Eigen::VectorXd eight(8), twelve(12);
  for (Index h = 0; h < 8; ++h) eight[h] = std::ldexp(1.0, -static_cast<int>(h) - 1);
  twelve << eight, std::exp2(-0.5), std::exp2(-1.5), std::exp2(-2.5), std::exp2(-3.5);
  CHECK(alibi_slopes(8) == eight);
  CHECK(alibi_slopes(12) == twelve);
  CHECK(alibi_slopes(1) == Eigen::VectorXd::Constant(1, 1.0 / 256));
  CHECK(alibi_slopes(2) == Eigen::Vector2d(1.0 / 16, 1.0 / 256));
  CHECK(alibi_slopes(3) == Eigen::Vector3d(1.0 / 16, 1.0 / 256, 1.0 / 4));
  CHECK(alibi_slopes(1, 16) == Eigen::VectorXd::Constant(1, std::exp2(-16)));
}

TEST_CASE("Slopes are within 1 ulp of double, for every number of heads", "[alibi][accuracy]") {
  const double max_bias = GENERATE(4.0, 8.0, 16.0);
  double largest = 0;
  for (Index num_heads = 1; num_heads <= 256; ++num_heads) {
    Index n = 1;
    while (2 * n <= num_heads) n *= 2;
    const Vector<double> slopes = alibi_slopes(num_heads, max_bias);
    REQUIRE(slopes.size() == num_heads);
    for (Index h = 0; h < num_heads; ++h) {
      const Index numerator = h < n ? 2 * (h + 1) : 2 * (h - n) + 1;
      const exact::Number exponent =
          exact::Number(-max_bias * static_cast<double>(numerator)) / static_cast<double>(2 * n);
      largest = std::max(largest, exact::ulps(slopes[h], pow(exact::Number(2), exponent)));
    }
  }
  CHECK(largest <= 1);
}

TEST_CASE("The generators of three other libraries give the same slopes", "[alibi]") {
  for (Index num_heads = 1; num_heads <= 256; ++num_heads) {
    const Vector<double> slopes = alibi_slopes(num_heads);
    Index below = 1, above = 1;
    while (2 * below <= num_heads) below *= 2;
    while (above < num_heads) above *= 2;
    // MPT: of the next larger power of two every second slope, and then the others.
    std::vector<double> mpt;
    if (above == num_heads)
      for (Index k = 1; k <= above; ++k)
        mpt.push_back(std::exp2(-8.0 * static_cast<double>(k) / static_cast<double>(above)));
    else
      for (const Index first : {2, 1})
        for (Index k = first; k <= above; k += 2)
          mpt.push_back(std::exp2(-8.0 * static_cast<double>(k) / static_cast<double>(above)));
    for (Index h = 0; h < num_heads; ++h) {
      // ggml: powers of two bases.
      const double m0 = std::exp2(-8.0 / static_cast<double>(below)), m1 = std::exp2(-4.0 / static_cast<double>(below));
      const double ggml =
          h < below ? std::pow(m0, static_cast<double>(h + 1)) : std::pow(m1, static_cast<double>(2 * (h - below) + 1));
      CHECK(std::abs(slopes[h] - mpt[static_cast<std::size_t>(h)]) <= 1e-15 * slopes[h]);
      CHECK(std::abs(slopes[h] - ggml) <= 1e-13 * slopes[h]);
    }
  }
}

TEST_CASE("The three forms, written out", "[alibi]") {
  const Eigen::VectorXd half = Eigen::VectorXd::Constant(1, 0.5);
  Matrix<double> distance(4, 4), causal(4, 4), key_only(4, 4);
  distance << 0, -.5, -1, -1.5,  //
      -.5, 0, -.5, -1,           //
      -1, -.5, 0, -.5,           //
      -1.5, -1, -.5, 0;
  causal = distance;
  for (Index query = 0; query < 4; ++query)
    for (Index key = query + 1; key < 4; ++key) causal(key, query) = -infinity;
  for (Index key = 0; key < 4; ++key) key_only.row(key).setConstant(0.5 * static_cast<double>(key - 3));

  CHECK(written_out(Alibi(half)) == distance);
  CHECK(written_out(Alibi(half, AlibiForm::causal)) == causal);
  CHECK(written_out(Alibi(half, AlibiForm::key_only, 3)) == key_only);
}

TEST_CASE("Queries have positions of their own, and heads slopes of their own", "[alibi]") {
  const Alibi alibi(12);
  const std::vector<std::int64_t> keys{7, -3, 7};
  const Positions queries = positions(2, 100);
  for (Index head = 0; head < 12; ++head) {
    Matrix<double> scores = Matrix<double>::Constant(3, 2, 2.5);
    alibi.add_bias(scores, keys, queries, head);
    for (Index query = 0; query < 2; ++query)
      for (Index key = 0; key < 3; ++key) {
        const double distance = std::abs(static_cast<double>(keys[static_cast<std::size_t>(key)] - queries[query]));
        CHECK(std::abs(scores(key, query) - (2.5 - alibi.slopes()[head] * distance)) <= 1e-14 * distance);
        CHECK(alibi.bias(keys[static_cast<std::size_t>(key)], queries[query], head) ==
              -alibi.slopes()[head] * distance);
      }
  }
}

TEST_CASE("Some heads may go without a bias", "[alibi]") {
  const Alibi alibi({.num_heads = 3, .total_heads = 5});
  REQUIRE(alibi.num_heads() == 5);
  CHECK(alibi.slopes().head(3) == alibi_slopes(3));
  CHECK(alibi.slopes().tail(2).isZero(0));
  CHECK(written_out(alibi, 4).isZero(0));
  CHECK(written_out(Alibi({.num_heads = 1, .total_heads = 2, .form = AlibiForm::causal}), 1)(1, 0) == -infinity);
}

TEST_CASE("The bias is computed in double and rounded once", "[alibi]") {
  const Alibi alibi(12);
  for (Index head = 0; head < 12; ++head) {
    Matrix<float> scores = Matrix<float>::Zero(40, 1);
    const Positions keys = positions(40, 999'983);
    alibi(scores, keys, positions(1, 1'000'003), head);
    for (Index key = 0; key < 40; ++key)
      CHECK(scores(key, 0) == static_cast<float>(alibi.bias(keys[key], 1'000'003, head)));
  }
}

TEST_CASE("key_only gives the same weights as the distance, behind a causal mask", "[alibi]") {
  const Matrix<double> q = Matrix<double>::Random(4, 6), k = Matrix<double>::Random(4, 6);
  const AttentionOptions at{.query_positions = positions(6), .key_positions = positions(6), .head = 1};
  const Matrix<double> distance = attention_weights(q, k, at, Alibi(2), CausalMask{});
  CHECK(attention_weights(q, k, at, Alibi({.num_heads = 2, .form = AlibiForm::causal})).isApprox(distance, 1e-14));
  for (const std::int64_t anchor : {0, 5, -70}) {
    const Alibi key_only({.num_heads = 2, .form = AlibiForm::key_only, .anchor = anchor});
    CHECK(attention_weights(q, k, at, key_only, CausalMask{}).isApprox(distance, 1e-13));
  }
}

TEST_CASE("Infinities and NaN stay what they are", "[alibi]") {
  Matrix<float> scores(3, 1);
  scores << -std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN(), 1;
  Alibi(1)(scores, positions(3), positions(1, 2));
  CHECK(scores(0) == -std::numeric_limits<float>::infinity());
  CHECK(std::isnan(scores(1)));
  CHECK(scores(2) == 1);
}

TEST_CASE("Slopes of one's own, of any scalar and in a row as well", "[alibi]") {
  const Eigen::RowVectorXf slopes = Eigen::RowVectorXf::LinSpaced(3, 1, 3);
  CHECK(Alibi(slopes).slopes() == Eigen::Vector3d(1, 2, 3));
  CHECK(Alibi(2 * Eigen::Vector2d(1, -1)).slopes() == Eigen::Vector2d(2, -2));
  CHECK(Alibi(Eigen::Vector2d(0, 1)).form() == AlibiForm::distance);
}

TEST_CASE("What makes no sense is refused", "[alibi]") {
  CHECK_THROWS_MATCHES(alibi_slopes(0), std::invalid_argument,
                       Message("posenc::alibi_slopes: num_heads must be positive, got 0"));
  CHECK_THROWS_MATCHES(alibi_slopes(-3), std::invalid_argument,
                       Message("posenc::alibi_slopes: num_heads must be positive, got -3"));
  CHECK_THROWS_MATCHES(alibi_slopes(4, 0), std::invalid_argument,
                       Message("posenc::alibi_slopes: max_bias must be positive and finite, got 0"));
  CHECK_THROWS_AS(alibi_slopes(4, infinity), std::invalid_argument);
  CHECK_THROWS_AS(Alibi(0), std::invalid_argument);
  CHECK_THROWS_MATCHES(Alibi({.num_heads = 4, .total_heads = 3}), std::invalid_argument,
                       Message("posenc::Alibi: total_heads must be at least num_heads, got 3"));
  CHECK_THROWS_MATCHES(Alibi({.num_heads = 4, .anchor = 3}), std::invalid_argument,
                       Message("posenc::Alibi: anchor must be 0 for a form other than key_only, got 3"));
  CHECK_THROWS_MATCHES(Alibi(Eigen::VectorXd()), std::invalid_argument,
                       Message("posenc::Alibi: there must be at least one slope, got 0"));
  CHECK_THROWS_AS(Alibi(Eigen::Vector2d(1, infinity)), std::invalid_argument);

  const Alibi alibi(4);
  const Matrix<float> before = Matrix<float>::Random(3, 2);
  Matrix<float> scores = before;
  CHECK_THROWS_MATCHES(alibi(scores, positions(3), positions(2), 4), std::out_of_range,
                       Message("posenc::Alibi: head must be below num_heads, got 4"));
  CHECK_THROWS_AS(alibi(scores, positions(3), positions(2), -1), std::out_of_range);
  CHECK_THROWS_MATCHES(alibi(scores, positions(2), positions(2)), std::invalid_argument,
                       Message("posenc::Alibi: rows of the scores must be the number of key positions = 2, got 3"));
  CHECK_THROWS_MATCHES(
      alibi(scores, positions(3), positions(3)), std::invalid_argument,
      Message("posenc::Alibi: columns of the scores must be the number of query positions = 3, got 2"));
  CHECK(scores == before);
}

TEST_CASE("Contiguous positions are biased as an array of them is, in both orders", "[alibi]") {
  const auto form = GENERATE(AlibiForm::distance, AlibiForm::causal, AlibiForm::key_only);
  const std::int64_t first = GENERATE(-60, -7, 0, 3, 60);  // of the queries; keys begin at 0
  const Alibi alibi(Eigen::Vector2d(0.3, 0.7), form);
  std::vector<std::int64_t> keys, queries;
  for (std::int64_t t = 0; t < 45; ++t) keys.push_back(t);
  for (std::int64_t t = 0; t < 23; ++t) queries.push_back(first + t);
  const Matrix<float> before = Matrix<float>::Random(45, 23);
  Matrix<float> line = before, entries = before;
  Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> rows = before;
  alibi(line, positions(45), positions(23, first), 1);
  alibi(rows, positions(45), positions(23, first), 1);
  alibi(entries, keys, queries, 1);
  const auto same = [&](const Matrix<float>& got) {  // but for a product and a sum that may be fused
    return (got.array() == entries.array() || (got - entries).array().abs() <= 4e-6F).all();
  };
  CHECK(same(line));
  CHECK(same(rows));
  Matrix<Eigen::half> small = before.cast<Eigen::half>();
  const Matrix<float> widened = small.cast<float>();
  Matrix<float> expected = widened;
  alibi(small, positions(45), positions(23, first), 1);
  alibi(expected, positions(45), positions(23, first), 1);
  CHECK(small.cast<float>() == expected.cast<Eigen::half>().cast<float>());
}
