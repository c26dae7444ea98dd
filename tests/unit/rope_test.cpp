// SPDX-License-Identifier: MIT

#include <posenc/rope.hpp>

#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <complex>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <vector>

#include "../catch.hpp"
#include "../exact.hpp"

using namespace posenc;
using Catch::Matchers::Message;

static_assert(QueryKeyEncoding<Rope, float> && QueryKeyEncoding<Rope, double>);
static_assert(QueryKeyEncoding<Rope, Eigen::half> && QueryKeyEncoding<Rope, Eigen::bfloat16>);
static_assert(is_relative<Rope> && preserves_norm<Rope> && !InputEncoding<Rope> && !ScoreBias<Rope>);

namespace {

/// The formula, feature by feature, in long double.
Matrix<double> rotated(const Matrix<double>& x, const std::vector<std::int64_t>& at, const RopeOptions& options) {
  const Index r = options.rotary_dim == 0 ? options.head_dim : options.rotary_dim;
  const bool interleaved = options.layout == PairLayout::interleaved;
  Matrix<double> y = x;
  for (Index t = 0; t < x.cols(); ++t)
    for (Index head = 0; head < x.rows(); head += options.head_dim)
      for (Index i = 0; i < r / 2; ++i) {
        const Index a = head + (interleaved ? 2 * i : i), b = head + (interleaved ? 2 * i + 1 : i + r / 2);
        const long double angle =
            static_cast<long double>(at[static_cast<std::size_t>(t)]) *
            std::pow(static_cast<long double>(options.base), -2.0L * i / static_cast<long double>(r));
        y(a, t) = static_cast<double>(x(a, t) * std::cos(angle) - x(b, t) * std::sin(angle));
        y(b, t) = static_cast<double>(x(b, t) * std::cos(angle) + x(a, t) * std::sin(angle));
      }
  return y;
}

/// The largest error of any cosine and sine in ulp of Real, at positions to a limit.
template <class Real>
double largest_error(double base, Index rotary_dim, std::int64_t limit) {
  const auto frequencies = rope_frequencies(rotary_dim, base);
  const auto expected = exact::geometric(rotary_dim, base);
  double largest = 0;
  for (Index i = 0; i < rotary_dim / 2; i += std::max<Index>(1, rotary_dim / 16)) {
    const RopeFrequencies one{.values = frequencies.values.segment(i, 1),
                              .low_parts = frequencies.low_parts.segment(i, 1)};
    const std::vector<exact::Number> w{expected[static_cast<std::size_t>(i)]};
    largest = std::max(largest, exact::worst_ulps<Real>(one, w, limit));
  }
  return largest;
}

}  // namespace

TEST_CASE("Known values: head_dim 4 at position 1 and 2", "[rope]") {
  // w = 1 and 1/100.
  Eigen::Matrix<double, 4, 2> x;
  x << 1, 1,  //
      2, 2,   //
      3, 3,   //
      4, 4;
  const auto c = [](double angle) { return std::cos(angle); };
  const auto s = [](double angle) { return std::sin(angle); };

  Eigen::Matrix<double, 4, 2> half_split = x;
  Rope({.head_dim = 4})(half_split, positions(2, 1));
  Eigen::Matrix<double, 4, 2> expected;
  expected << c(1) - 3 * s(1), c(2) - 3 * s(2),          // features 0 and 2
      2 * c(.01) - 4 * s(.01), 2 * c(.02) - 4 * s(.02),  // features 1 and 3
      3 * c(1) + s(1), 3 * c(2) + s(2),                  //
      4 * c(.01) + 2 * s(.01), 4 * c(.02) + 2 * s(.02);
  CHECK(half_split.isApprox(expected, 1e-15));

  Eigen::Matrix<double, 4, 2> interleaved = x;
  Rope({.head_dim = 4, .layout = PairLayout::interleaved})(interleaved, positions(2, 1));
  expected << c(1) - 2 * s(1), c(2) - 2 * s(2),          // features 0 and 1
      2 * c(1) + s(1), 2 * c(2) + s(2),                  //
      3 * c(.01) - 4 * s(.01), 3 * c(.02) - 4 * s(.02),  // features 2 and 3
      4 * c(.01) + 3 * s(.01), 4 * c(.02) + 3 * s(.02);
  CHECK(interleaved.isApprox(expected, 1e-15));
}

TEST_CASE("Rotation is the formula, for every size, layout and base", "[rope]") {
  const auto layout = GENERATE(PairLayout::interleaved, PairLayout::half_split);
  const double base = GENERATE(10000.0, 500000.0);
  const std::vector<std::int64_t> at{0, 1, -5, 1000, 1000, 3};
  for (const Index head_dim : {2, 4, 6, 10, 16, 34, 130, 260})
    for (const Index rotary_dim : {Index{0}, Index{2}, head_dim / 4 * 2})
      for (const Index num_heads : {1, 3}) {
        const RopeOptions options{.head_dim = head_dim, .rotary_dim = rotary_dim, .base = base, .layout = layout};
        CAPTURE(head_dim, rotary_dim, num_heads, base, layout == PairLayout::interleaved);
        const Matrix<double> x = Matrix<double>::Random(num_heads * head_dim, 6);
        const Rope rope(options);
        Matrix<double> y = x;
        rope(y, at);
        CHECK((y - rotated(x, at, options)).cwiseAbs().maxCoeff() < 1e-14);
        Matrix<float> z = x.cast<float>();
        rope(z, at);
        CHECK((z.cast<double>() - rotated(x, at, options)).cwiseAbs().maxCoeff() < 5e-7);
      }
}

TEST_CASE("A part of each head rotates, and the rest keeps its bits", "[rope]") {
  const Rope rope({.head_dim = 7, .rotary_dim = 4});
  CHECK(rope.rotary_dim() == 4);
  const Matrix<float> x = Matrix<float>::Random(14, 5);
  Matrix<float> y = x;
  rope(y, positions(5, 3));
  for (const Index head : {0, 7}) {
    CHECK(y.middleRows(head + 4, 3) == x.middleRows(head + 4, 3));
    CHECK(y.middleRows(head, 4) != x.middleRows(head, 4));
  }
}

TEST_CASE("All heads at once are each head alone", "[rope]") {
  const Rope rope({.head_dim = 6});
  const Matrix<float> x = Matrix<float>::Random(18, 4);
  Matrix<float> all = x, each = x;
  rope(all, positions(4, 9));
  for (Index head = 0; head < 3; ++head) rope.apply_query(each.middleRows(6 * head, 6), positions(4, 9), head);
  CHECK(all == each);
}

TEST_CASE("Complex numbers are multiplied by e^(i p w)", "[rope]") {
  const auto layout = GENERATE(PairLayout::interleaved, PairLayout::half_split);  // of no effect
  const Rope rope({.head_dim = 6, .layout = layout});
  Eigen::MatrixXcd z = Eigen::MatrixXcd::Random(6, 3);  // two heads
  const Eigen::MatrixXcd before = z;
  rope(z, positions(3, 2));
  for (Index t = 0; t < 3; ++t)
    for (Index i = 0; i < 6; ++i) {
      const double angle = static_cast<double>(2 + t) * rope.frequencies().values[i % 3];
      CHECK(std::abs(z(i, t) - before(i, t) * std::polar(1.0, angle)) < 1e-14);
    }
}

TEST_CASE("The rotation matrix of a position", "[rope]") {
  const Rope rope({.head_dim = 6, .rotary_dim = 4, .layout = PairLayout::interleaved});
  const Matrix<double> r = rope.matrix(3);
  Matrix<double> expected = Matrix<double>::Identity(6, 6);
  expected.block<2, 2>(0, 0) << std::cos(3), -std::sin(3), std::sin(3), std::cos(3);
  expected.block<2, 2>(2, 2) << std::cos(.03), -std::sin(.03), std::sin(.03), std::cos(.03);
  CHECK(r.isApprox(expected, 1e-15));
  CHECK(rope.matrix(0) == Matrix<double>::Identity(6, 6));
  CHECK((rope.matrix(2.5) * rope.matrix(0.5)).isApprox(r, 1e-15));
  CHECK(rope.matrix<float>(3).isApprox(r.cast<float>(), 1e-6f));
  CHECK((r.transpose() * r).isIdentity(1e-15));

  const Matrix<double> x = Matrix<double>::Random(6, 1);
  Matrix<double> y = x;
  rope(y, positions(1, 3));
  CHECK(y.isApprox(r * x, 1e-15));
}

TEST_CASE("Real positions, and integers as real numbers", "[rope]") {
  const Rope rope({.head_dim = 4});
  const std::vector<double> at{0.5, -3, 1e6};
  const std::vector<std::int64_t> whole{-3, 1'000'000};
  const Matrix<double> x = Matrix<double>::Random(4, 3);
  Matrix<double> y = x, z = x.rightCols(2);
  rope(y, at);
  rope(z, whole);
  CHECK(y.rightCols(2) == z);
  CHECK(y.col(0).isApprox(rope.matrix(0.5) * x.col(0), 1e-15));
  rope.apply_inverse(y, at);
  CHECK(y.isApprox(x, 1e-15));
}

TEST_CASE("Frequencies of one's own, with a magnitude", "[rope]") {
  const Eigen::Vector2d values(0.5, -2);
  const Rope rope({.values = values, .magnitude = 1.25}, {.head_dim = 4, .layout = PairLayout::interleaved});
  CHECK(rope.rotary_dim() == 4);
  const Matrix<double> x = Matrix<double>::Ones(4, 1);
  Matrix<double> y = x;
  rope(y, positions(1, 3));
  const Eigen::Vector4d expected =
      1.25 * Eigen::Vector4d(std::cos(1.5) - std::sin(1.5), std::cos(1.5) + std::sin(1.5),
                             std::cos(-6.0) - std::sin(-6.0), std::cos(-6.0) + std::sin(-6.0));
  CHECK(y.isApprox(expected, 1e-15));
  rope.apply_inverse(y, positions(1, 3));
  CHECK(y.isApprox(x, 1e-15));
}

TEST_CASE("Cosines and sines are within 1 ulp of float below position 2^31", "[rope][accuracy]") {
  const double base = GENERATE(10000.0, 500000.0, 1e6, 150000.0, 1e7, 1e8, 1e11);
  for (const Index dim : {2, 4, 6, 64, 128, 256}) {
    CAPTURE(base, dim);
    CHECK(largest_error<float>(base, dim, (std::int64_t{1} << 31) - 1) <= 1);
  }
}

TEST_CASE("Cosines and sines are within 1 ulp of double to position 2^24", "[rope][accuracy]") {
  const double base = GENERATE(10000.0, 500000.0, 1e6, 150000.0, 1e7, 1e8, 1e11);
  for (const Index dim : {2, 4, 6, 64, 128, 256}) {
    CAPTURE(base, dim);
    CHECK(largest_error<double>(base, dim, std::int64_t{1} << 24) <= 1);
  }
}

TEST_CASE("half and bfloat16 are computed with in float and rounded once", "[rope]") {
  const Rope rope({.head_dim = 8});
  const auto check = [&]<class Scalar>(Scalar) {
    const Matrix<Scalar> x = Matrix<float>::Random(8, 6).cast<Scalar>();
    Matrix<Scalar> stored = x;
    Matrix<float> computed = x.template cast<float>();
    rope(stored, positions(6, 1000));
    rope(computed, positions(6, 1000));
    CHECK(stored == computed.template cast<Scalar>());
  };
  check(Eigen::half());
  check(Eigen::bfloat16());
}

TEST_CASE("A fixed-size matrix, an array and a single column are rotated as well", "[rope]") {
  const Rope rope({.head_dim = 4});
  Eigen::Matrix4f fixed = Eigen::Matrix4f::Random();
  Matrix<float> plain = fixed;
  Eigen::ArrayXXf array = fixed;
  rope(fixed, positions(4, 1));
  rope(array, positions(4, 1));
  Eigen::VectorXf column = plain.col(2);
  rope(column, positions(1, 3));
  rope(plain, positions(4, 1));
  CHECK(plain == fixed);
  CHECK(plain == array.matrix());
  CHECK(plain.col(2) == column);
}

TEST_CASE("Options that make no sense are refused", "[rope]") {
  const auto make = [](const RopeOptions& options) { return Rope(options); };
  CHECK_THROWS_MATCHES(make({.head_dim = 7}), std::invalid_argument,
                       Message("posenc::Rope: head_dim must be even, got 7"));
  CHECK_THROWS_MATCHES(make({}), std::invalid_argument, Message("posenc::Rope: head_dim must be positive, got 0"));
  CHECK_THROWS_MATCHES(make({.head_dim = -4}), std::invalid_argument,
                       Message("posenc::Rope: head_dim must be positive, got -4"));
  CHECK_THROWS_MATCHES(make({.head_dim = 8, .rotary_dim = 3}), std::invalid_argument,
                       Message("posenc::Rope: rotary_dim must be even, got 3"));
  CHECK_THROWS_MATCHES(make({.head_dim = 8, .rotary_dim = -2}), std::invalid_argument,
                       Message("posenc::Rope: rotary_dim must not be negative, got -2"));
  CHECK_THROWS_AS(make({.head_dim = 8, .rotary_dim = 10}), std::invalid_argument);
  CHECK_THROWS_AS(make({.head_dim = 8, .base = 0}), std::invalid_argument);
  CHECK_NOTHROW(make({.head_dim = 7, .rotary_dim = 6}));
}

TEST_CASE("Frequencies that make no sense are refused", "[rope]") {
  const Vector<double> two = Vector<double>::Ones(2);
  const auto make = [](const RopeFrequencies& frequencies, const RopeOptions& options) {
    return Rope(frequencies, options);
  };
  CHECK_THROWS_MATCHES(make({}, {.head_dim = 4}), std::invalid_argument,
                       Message("posenc::Rope: there must be at least one frequency, got 0"));
  CHECK_THROWS_AS(make({.values = two}, {.head_dim = 2}), std::invalid_argument);
  CHECK_THROWS_MATCHES(make({.values = two}, {.head_dim = 8, .rotary_dim = 6}), std::invalid_argument,
                       Message("posenc::Rope: rotary_dim must be twice the frequencies = 4, got 6"));
  CHECK_THROWS_MATCHES(make({.values = two, .low_parts = Vector<double>::Zero(1)}, {.head_dim = 4}),
                       std::invalid_argument,
                       Message("posenc::Rope: low_parts must be as many as the values = 2, got 1"));
  CHECK_THROWS_MATCHES(make({.values = two * std::numeric_limits<double>::infinity()}, {.head_dim = 4}),
                       std::invalid_argument, Message("posenc::Rope: frequencies must be finite, got inf"));
  for (const double magnitude : {0.0, -1.0, std::numeric_limits<double>::infinity()})
    CHECK_THROWS_AS(make({.values = two, .magnitude = magnitude}, {.head_dim = 4}), std::invalid_argument);
}

TEST_CASE("Matrices and positions that do not fit are refused, and left as they are", "[rope]") {
  const Rope rope({.head_dim = 4});
  const Matrix<float> before = Matrix<float>::Random(6, 3);
  Matrix<float> x = before;
  CHECK_THROWS_MATCHES(rope(x, positions(3)), std::invalid_argument,
                       Message("posenc::Rope: features of a column must be a multiple of head_dim = 4, got 6"));
  CHECK_THROWS_MATCHES(rope(x.topRows(4), positions(2)), std::invalid_argument,
                       Message("posenc::Rope: columns must be the number of positions = 2, got 3"));
  CHECK_THROWS_MATCHES(rope.apply_inverse(x.topRows(4), positions(3, (std::int64_t{1} << 53) - 1)), std::out_of_range,
                       Message("posenc::Rope: |position| must be at most 2^53, got 9007199254740993"));
  const std::vector<double> not_a_number{0, 1, std::numeric_limits<double>::quiet_NaN()};
  CHECK_THROWS_AS(rope(x.topRows(4), not_a_number), std::out_of_range);
  Eigen::MatrixXcf z(3, 1);  // 6 features
  CHECK_THROWS_AS(rope(z, positions(1)), std::invalid_argument);
  CHECK(x == before);
}

TEST_CASE("No tokens and no heads", "[rope]") {
  const Rope rope({.head_dim = 4});
  Matrix<float> none(4, 0), no_features(0, 2);
  CHECK_NOTHROW(rope(none, positions(0)));
  CHECK_THROWS_AS(rope(no_features, positions(2)), std::invalid_argument);
}
