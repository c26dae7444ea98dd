// SPDX-License-Identifier: MIT

#include <posenc/rope_table.hpp>

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

static_assert(QueryKeyEncoding<RopeTable<float>> && QueryKeyEncoding<RopeTable<double>, double>);
static_assert(is_relative<RopeTable<float>> && preserves_norm<RopeTable<float>>);

TEST_CASE("The table holds a column a position", "[rope_table]") {
  const RopeTable<double> table(Rope({.head_dim = 4}), 5, -2);
  CHECK(table.head_dim() == 4);
  CHECK(table.num_positions() == 5);
  CHECK(table.first_position() == -2);
  REQUIRE((table.cos().rows() == 2 && table.cos().cols() == 5 && table.sin().rows() == 2 && table.sin().cols() == 5));
  for (Index t = 0; t < 5; ++t) {
    const auto p = static_cast<double>(t - 2);
    CHECK(table.cos().col(t).isApprox(Eigen::Vector2d(std::cos(p), std::cos(p / 100)), 1e-15));
    CHECK((table.sin().col(t) - Eigen::Vector2d(std::sin(p), std::sin(p / 100))).norm() < 1e-15);
  }
}

TEST_CASE("Looked up is computed, forwards and back", "[rope_table]") {
  const auto layout = GENERATE(PairLayout::interleaved, PairLayout::half_split);
  const Rope rope({.head_dim = 10, .rotary_dim = 6, .layout = layout});
  const RopeTable<float> table(rope, 100, -20);
  const std::vector<std::int64_t> at{-20, 79, 0, 0, 5};
  const Matrix<float> x = Matrix<float>::Random(20, 5);
  Matrix<float> computed = x, looked_up = x;
  rope(computed, at);
  table(looked_up, at);
  CHECK(looked_up.isApprox(computed, 1e-6f));
  Matrix<float> again = x;
  table.apply_query(again, at, 0);
  CHECK(again == looked_up);
  again = x;
  table.apply_key(again, at, 0);
  CHECK(again == looked_up);
  table.apply_inverse(looked_up, at);
  CHECK(looked_up.isApprox(x, 1e-6f));
}

TEST_CASE("A float table serves half, bfloat16 and complex matrices", "[rope_table]") {
  const Rope rope({.head_dim = 8, .layout = PairLayout::interleaved});
  const RopeTable<float> table(rope, 50);
  const auto check = [&](auto x) {
    auto y = x;
    rope(x, positions(4, 7));
    table(y, positions(4, 7));
    CHECK((x - y).norm() == 0);
  };
  check(Matrix<Eigen::half>(Matrix<float>::Random(8, 4).cast<Eigen::half>()));
  check(Matrix<Eigen::bfloat16>(Matrix<float>::Random(8, 4).cast<Eigen::bfloat16>()));
  check(Eigen::MatrixXcf(Eigen::MatrixXcf::Random(8, 4)));
}

TEST_CASE("A magnitude is in the table, and taken out again", "[rope_table]") {
  const Rope rope({.values = Eigen::Vector2d(1, 0.1), .magnitude = 1.5}, {.head_dim = 4});
  const RopeTable<double> table(rope, 10);
  CHECK(std::abs(table.cos()(0, 3) - 1.5 * std::cos(3)) < 1e-15);
  const Matrix<double> x = Matrix<double>::Random(4, 10);
  Matrix<double> y = x;
  table(y, positions(10));
  CHECK(std::abs(y.norm() - 1.5 * x.norm()) < 1e-14);
  table.apply_inverse(y, positions(10));
  CHECK(y.isApprox(x, 1e-15));
}

TEST_CASE("Cosines and sines of another implementation are used as they are", "[rope_table]") {
  Matrix<float> cos(2, 3), sin(2, 3);
  cos << 1, 0, .5f,  //
      1, 2, 3;
  sin << 0, 1, .25f,  //
      0, 4, 5;
  const RopeTable<float> table(cos, sin, {.head_dim = 4}, 10);
  CHECK(table.cos() == cos);
  CHECK(table.sin() == sin);
  Matrix<float> x(4, 1);
  x << 1, 2, 3, 4;
  table(x, positions(1, 11));
  CHECK(x == Eigen::Vector4f(1 * 0 - 3 * 1, 2 * 2 - 4 * 4, 3 * 0 + 1 * 1, 4 * 2 + 2 * 4));

  const auto make = [](const Matrix<float>& c, const Matrix<float>& s) {
    return RopeTable<float>(c, s, {.head_dim = 4});
  };
  CHECK_THROWS_MATCHES(make(cos, sin.topRows(1)), std::invalid_argument,
                       Message("posenc::RopeTable: rows of sin must be those of cos = 2, got 1"));
  CHECK_THROWS_MATCHES(make(cos, sin.leftCols(2)), std::invalid_argument,
                       Message("posenc::RopeTable: columns of sin must be those of cos = 3, got 2"));
  CHECK_THROWS_AS(make(Matrix<float>(3, 3), Matrix<float>(3, 3)), std::invalid_argument);
}

TEST_CASE("Positions outside the table are refused, and nothing is written", "[rope_table]") {
  const RopeTable<float> table(Rope({.head_dim = 4}), 5, -2);
  const Matrix<float> before = Matrix<float>::Random(4, 3);
  Matrix<float> x = before;
  CHECK_THROWS_MATCHES(table(x, positions(3, 1)), std::out_of_range,
                       Message("posenc::RopeTable: a position must be in the table, got 3"));
  CHECK_THROWS_MATCHES(table(x, positions(3, -3)), std::out_of_range,
                       Message("posenc::RopeTable: a position must be in the table, got -3"));
  for (const std::int64_t far : {std::numeric_limits<std::int64_t>::min(), std::numeric_limits<std::int64_t>::max()}) {
    const std::vector<std::int64_t> at{0, 1, far};
    CHECK_THROWS_AS(table(x, at), std::out_of_range);
    CHECK_THROWS_AS(table.apply_inverse(x, at), std::out_of_range);
  }
  CHECK_THROWS_MATCHES(table(x, positions(2)), std::invalid_argument,
                       Message("posenc::RopeTable: columns must be the number of positions = 2, got 3"));
  CHECK_THROWS_MATCHES(table(x.topRows(3), positions(3)), std::invalid_argument,
                       Message("posenc::RopeTable: features of a column must be a multiple of head_dim = 4, got 3"));
  CHECK(x == before);
}

TEST_CASE("A table may be empty, and not negative", "[rope_table]") {
  const Rope rope({.head_dim = 4});
  const RopeTable<float> none(rope, 0);
  Matrix<float> x(4, 1), nothing(4, 0);
  CHECK_NOTHROW(none(nothing, positions(0)));
  CHECK_THROWS_AS(none(x, positions(1)), std::out_of_range);
  CHECK_THROWS_MATCHES(RopeTable<float>(rope, -1), std::invalid_argument,
                       Message("posenc::RopeTable: num_positions must not be negative, got -1"));
  CHECK_THROWS_MATCHES(RopeTable<float>(rope, 2, std::int64_t{1} << 53), std::out_of_range,
                       Message("posenc::RopeTable: |position| must be at most 2^53, got 9007199254740993"));
}

TEST_CASE("A float table is within 3.1e-8 and 0.51 ulp of the exact cosines and sines", "[rope_table][accuracy]") {
  const std::int64_t first =
      GENERATE(std::int64_t{0}, std::int64_t{-700}, (std::int64_t{1} << 20) - 300, std::int64_t{10000000} - 600,
               (std::int64_t{1} << 31) - 600, -(std::int64_t{1} << 31));
  const Rope rope({.head_dim = 80});  // no multiple of a packet
  const RopeTable<float> table(rope, 600, first);
  const RopeTable<double> exact(rope, 600, first);  // to 1 ulp of double, see rope_test.cpp
  double error = 0, ulps = 0;
  const auto compare = [&](const Matrix<float>& got, const Matrix<double>& expected) {
    for (Index t = 0; t < got.cols(); ++t)
      for (Index i = 0; i < got.rows(); ++i) {
        int exponent = 0;
        std::frexp(expected(i, t), &exponent);
        const double off = std::abs(static_cast<double>(got(i, t)) - expected(i, t));
        error = std::max(error, off);
        ulps = std::max(ulps, off / std::ldexp(1.0, exponent - 24));
      }
  };
  compare(table.cos(), exact.cos());
  compare(table.sin(), exact.sin());
  CAPTURE(first);
  CHECK(error <= 3.1e-8);
  CHECK(ulps <= 0.51);
}

TEST_CASE("A float table is within 1 ulp where a cosine or sine is nearly 0", "[rope_table][accuracy]") {
  const Rope rope({.head_dim = 64, .base = 500000});
  std::vector<exact::Number> frequencies = exact::geometric(64, exact::Number(500000));
  for (Index i = 0; i < 32; ++i)
    for (const std::int64_t p :
         exact::hardest_positions(frequencies[static_cast<std::size_t>(i)], exact::float_limit)) {
      const RopeTable<float> table(rope, 1, p);
      const exact::Number angle = exact::Number(static_cast<double>(p)) * frequencies[static_cast<std::size_t>(i)];
      CAPTURE(i, p);
      CHECK(exact::ulps(table.cos()(i, 0), cos(angle)) <= 1);
      CHECK(exact::ulps(table.sin()(i, 0), sin(angle)) <= 1);
    }
}

TEST_CASE("The bits of a float table do not depend on where it begins", "[rope_table]") {
  const Rope rope({.head_dim = 128});
  const Index large = 17000;  // so large that it is written around the caches
  const RopeTable<float> table(rope, large, -100);
  for (const Index begin : {Index{0}, Index{90}, Index{99}, Index{100}, Index{4000}, large - 37})
    for (const Index size : {1, 37}) {
      const RopeTable<float> part(rope, size, begin - 100);
      CAPTURE(begin, size);
      CHECK(part.cos() == table.cos().middleCols(begin, size));
      CHECK(part.sin() == table.sin().middleCols(begin, size));
    }
}

TEST_CASE("A float table of frequencies 0 and of very low ones", "[rope_table]") {
  const Rope rope({.values = Eigen::Vector3d(0, 1e-9, 0.5)}, {.head_dim = 6});
  const RopeTable<float> table(rope, 100);
  CHECK(table.cos().row(0) == Eigen::RowVectorXf::Ones(100));
  CHECK(table.sin().row(0) == Eigen::RowVectorXf::Zero(100));
  for (Index p = 0; p < 100; ++p) CHECK(table.sin()(1, p) == static_cast<float>(1e-9 * static_cast<double>(p)));
}
