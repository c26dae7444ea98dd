// SPDX-License-Identifier: MIT

#include <posenc/kerple.hpp>

#include <posenc/alibi.hpp>

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

static_assert(ScoreBias<Kerple, float> && ScoreBias<Kerple, double>);
static_assert(ScoreBias<Kerple, Eigen::half> && ScoreBias<Kerple, Eigen::bfloat16>);
static_assert(DistanceBias<Kerple> && BoundedBias<Kerple>);
static_assert(is_relative<Kerple> && !QueryKeyEncoding<Kerple>);

namespace {

const Eigen::Vector4d a(0.01, 0.37, 1, 25), p(0.01, 0.5, 1, 1.7);
constexpr double infinity = std::numeric_limits<double>::infinity();

}  // namespace

TEST_CASE("Kerple is the formula, to 2 ulp of double at any distance", "[kerple][accuracy]") {
  const Kerple logarithmic = Kerple::logarithmic(p, a), power = Kerple::power(a, p);
  CHECK(logarithmic.num_heads() == 4);
  CHECK(logarithmic.form() == KerpleForm::logarithmic);
  CHECK(power.form() == KerpleForm::power);
  CHECK(power.a() == a);
  CHECK(power.p() == p);
  double worst = 0;
  for (Index head = 0; head < 4; ++head) {
    const Number rate(a[head]), exponent(p[head]);
    for (const std::int64_t distance : {0LL, 1LL, 2LL, 7LL, 1000LL, 65537LL, (1LL << 31) - 1, 1LL << 50}) {
      const Number d(static_cast<double>(distance));
      for (const std::int64_t offset : {distance, -distance}) {
        worst = std::max(worst,
                         exact::ulps(logarithmic.at_distance(offset, head), -(exponent * log(Number(1) + rate * d))));
        worst = std::max(worst, exact::ulps(power.at_distance(offset, head), -(rate * pow(d, exponent))));
      }
    }
  }
  CHECK(worst <= 2);
}

TEST_CASE("Kerple's power of contiguous positions is within 1e-13 of the formula before it is rounded to float",
          "[kerple][accuracy]") {
  const Kerple kerple = Kerple::power(a, p);
  double worst = 0;
  for (const std::int64_t first : {0LL, 100LL, 1000LL, -40LL, 1LL << 40})
    for (Index head = 0; head < 4; ++head) {
      const Matrix<float> keys = bias_matrix<float>(kerple, positions(700, first), positions(1), head),
                          queries = bias_matrix<float>(kerple, positions(1), positions(700, first), head);
      CHECK(keys == queries.transpose());
      for (Index t = 0; t < keys.rows(); ++t) {
        const auto distance = static_cast<double>(std::abs(first + t));
        worst = std::max(worst, exact::ulps(keys(t, 0), -(Number(a[head]) * pow(Number(distance), Number(p[head])))));
      }
    }
  CHECK(worst <= 0.5 + 0x1p24 * 1e-13);
}

TEST_CASE("Kerple: numbers of its picture", "[kerple]") {
  const Eigen::VectorXf one = Eigen::VectorXf::Ones(1), half = Eigen::VectorXf::Constant(1, 0.5f);
  const Kerple logarithmic = Kerple::logarithmic(one, one), power = Kerple::power(one, half);
  const std::vector<std::int64_t> keys{0, -1, 2, -4, 8, 16};
  const std::vector<double> logarithms{0, -0.69, -1.10, -1.61, -2.20, -2.83}, roots{0, -1, -1.41, -2, -2.83, -4};
  for (std::size_t i = 0; i < keys.size(); ++i) {
    CHECK(std::abs(logarithmic.at_distance(keys[i], 0) - logarithms[i]) < 0.005);
    CHECK(std::abs(power.at_distance(keys[i], 0) - roots[i]) < 0.005);
  }
}

TEST_CASE("Kerple's power 1 is ALiBi", "[kerple]") {
  const Vector<double> slopes = alibi_slopes(12);
  const Kerple kerple = Kerple::power(slopes, Vector<double>::Ones(12));
  for (Index head = 0; head < 12; ++head)
    CHECK(bias_matrix<float>(kerple, positions(9), positions(4, 5), head) ==
          bias_matrix<float>(Alibi(12), positions(9), positions(4, 5), head));
}

TEST_CASE("Kerple adds to scores, each head its own", "[kerple]") {
  const Kerple kerple = Kerple::logarithmic(p, a);
  const std::vector<std::int64_t> keys{7, -3, 7};
  Matrix<double> scores = Matrix<double>::Constant(3, 2, 2.5);
  kerple.add_bias(scores, keys, positions(2, 100), 3);
  for (Index query = 0; query < 2; ++query)
    for (Index key = 0; key < 3; ++key) {
      const auto distance = static_cast<double>(100 + query - keys[static_cast<std::size_t>(key)]);
      CHECK(std::abs(scores(key, query) - (2.5 - 1.7 * std::log(1 + 25 * distance))) <= 1e-13);
    }
}

TEMPLATE_TEST_CASE("Kerple: contiguous positions are biased as an array of them is, in both orders", "[kerple]", float,
                   double, Eigen::half, Eigen::bfloat16) {
  using RowMajor = Eigen::Matrix<TestType, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const Kerple kerple = Kerple::logarithmic(p, a);
  const Index num_keys = 530, num_queries = 270;  // several squares of 256, and what is left of them
  const Positions keys = positions(num_keys, -3), queries = positions(num_queries, 200);
  std::vector<std::int64_t> each_key, each_query;
  for (Index t = 0; t < num_keys; ++t) each_key.push_back(keys[t]);
  for (Index t = 0; t < num_queries; ++t) each_query.push_back(queries[t]);

  const Matrix<TestType> before = support::random_matrix<TestType>(num_keys, num_queries);
  Matrix<TestType> expected = before, by_column = before;
  kerple(expected, each_key, each_query, 2);
  kerple(by_column, keys, queries, 2);
  CHECK(by_column == expected);
  RowMajor by_row = before;
  kerple(by_row, keys, queries, 2);
  CHECK(Matrix<TestType>(by_row) == expected);
  Matrix<TestType> apart = Matrix<TestType>::Zero(2 * num_keys, num_queries);
  auto every_other = apart(Eigen::seqN(0, num_keys, Eigen::fix<2>), Eigen::seqN(0, apart.cols()));
  every_other = before;
  kerple(Eigen::Map<Matrix<TestType>, 0, Eigen::Stride<Eigen::Dynamic, 2>>(apart.data(), num_keys, num_queries,
                                                                           {2 * num_keys, 2}),
         keys, queries, 2);
  CHECK(Matrix<TestType>(every_other) == expected);
}

TEST_CASE("Kerple at a distance, its bounds, and streaming", "[kerple][streaming]") {
  for (const Kerple& kerple : {Kerple::logarithmic(p, a), Kerple::power(a, p)}) {
    bias_checks::distance_is_hook(kerple, 4, -1000, 1000);
    bias_checks::distance_is_hook(kerple, 4, -(std::int64_t{1} << 50), std::int64_t{1} << 50);
    CHECK(bias_checks::bounds_hold(kerple, 4, -40, 40) > 100);
    bias_checks::bounds_hold(kerple, 4, -10000, 10000);
  }
  bias_checks::streams_like_reference(Kerple::logarithmic(p, a), 1, 150);
  bias_checks::streams_like_reference(Kerple::power(a, p), 3, 150);
}

TEST_CASE("Kerple: errors", "[kerple][errors]") {
  const Eigen::Vector2d good(0.5, 1);
  const auto with = [](double second) { return Eigen::Vector2d(0.5, second); };
  CHECK_THROWS_MATCHES(Kerple::logarithmic(Eigen::VectorXd(), Eigen::VectorXd()), std::invalid_argument,
                       Message("posenc::Kerple: there must be at least one head, got 0"));
  CHECK_THROWS_MATCHES(Kerple::logarithmic(p, good), std::invalid_argument,
                       Message("posenc::Kerple: entries of p must be those of a = 2, got 4"));
  CHECK_THROWS_MATCHES(Kerple::logarithmic(good, with(0)), std::invalid_argument,
                       Message("posenc::Kerple: a must be positive and finite, got 0"));
  CHECK_THROWS_MATCHES(Kerple::power(with(infinity), good), std::invalid_argument,
                       Message("posenc::Kerple: a must be positive and finite, got inf"));
  CHECK_THROWS_MATCHES(Kerple::logarithmic(with(-1), good), std::invalid_argument,
                       Message("posenc::Kerple: p must be positive and finite, got -1"));
  CHECK_THROWS_MATCHES(Kerple::power(good, with(2.5)), std::invalid_argument,
                       Message("posenc::Kerple: p of the power form must be at most 2, got 2.5"));
  CHECK(Kerple::logarithmic(with(2.5), good).p()[1] == 2.5);
  CHECK(Kerple::power(good, with(2)).p()[1] == 2);

  const Kerple kerple = Kerple::power(good, good);
  const Positions two = positions(2);
  Matrix<float> scores = Matrix<float>::Zero(2, 2);
  CHECK_THROWS_MATCHES(kerple(scores, two, two, 2), std::out_of_range,
                       Message("posenc::Kerple: head must be below num_heads, got 2"));
  CHECK_THROWS_AS(kerple.at_distance(0, 2), std::out_of_range);
  CHECK_THROWS_AS(kerple.bounds(two, two, -1), std::out_of_range);
  CHECK_THROWS_MATCHES(kerple(scores, positions(3), two), std::invalid_argument,
                       Message("posenc::Kerple: rows of the scores must be the number of key positions = 3, got 2"));
  CHECK(scores.isZero(0));
}
