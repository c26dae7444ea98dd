// SPDX-License-Identifier: MIT
// Rotation from one matrix into another, and the same bits whatever the path through memory.

#include <posenc/rope.hpp>
#include <posenc/rope_table.hpp>

#include <Eigen/Core>
#include <cmath>
#include <complex>
#include <cstdint>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <vector>

#include "../catch.hpp"

using namespace posenc;
using Catch::Matchers::Message;

namespace {

template <class Scalar>
using RowMajor = Eigen::Matrix<Scalar, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

template <class Scalar>
bool same_bits(const Matrix<Scalar>& a, const Matrix<Scalar>& b) {
  return a.rows() == b.rows() && a.cols() == b.cols() &&
         std::memcmp(a.data(), b.data(), static_cast<std::size_t>(a.size()) * sizeof(Scalar)) == 0;
}

template <class Scalar>
Matrix<Scalar> random(Index rows, Index cols) {
  return Matrix<float>::Random(rows, cols).cast<Scalar>();
}

/// The formula, one feature at a time, in the one way of rounding that all loops have.
template <class Scalar, class Real>
Matrix<Scalar> one_by_one(const Matrix<Scalar>& x, const RopeTable<Real>& table) {
  const RopeOptions& options = table.rope().options();
  const Index n = table.cos().rows();
  const bool interleaved = options.layout == PairLayout::interleaved;
  Matrix<Scalar> y = x;
  for (Index t = 0; t < x.cols(); ++t)
    for (Index head = options.rotary_offset; head < x.rows(); head += options.head_dim)
      for (Index i = 0; i < n; ++i) {
        const Index first = head + (interleaved ? 2 * i : i), second = interleaved ? first + 1 : first + n;
        const Real a = static_cast<Real>(x(first, t)), b = static_cast<Real>(x(second, t));
        const Real cos = table.cos()(i, t), sin = table.sin()(i, t);
        y(first, t) = static_cast<Scalar>(detail::sum_of_products(a, cos, b, -sin));
        y(second, t) = static_cast<Scalar>(detail::sum_of_products(b, cos, a, sin));
      }
  return y;
}

/// Every way to rotate x gives the same bits.
template <class Scalar>
void check_bits(const RopeOptions& options, Index num_heads, Index num_tokens) {
  CAPTURE(options.head_dim, options.rotary_dim, options.rotary_offset, num_heads, num_tokens,
          options.layout == PairLayout::interleaved, sizeof(Scalar));
  const std::int64_t first = 1000;
  const RopeTable<detail::compute_t<Scalar>> table(Rope(options), num_tokens, first);
  const auto at = positions(num_tokens, first);
  const Matrix<Scalar> x = random<Scalar>(num_heads * options.head_dim, num_tokens), expected = one_by_one(x, table);

  Matrix<Scalar> in_place = x;
  table(in_place, at);
  CHECK(same_bits(in_place, expected));

  Matrix<Scalar> out = Matrix<Scalar>::Zero(x.rows(), x.cols());
  table.rotate_into(out, x, at);
  CHECK(same_bits(out, expected));

  Matrix<Scalar> token_by_token = x;
  for (Index t = 0; t < num_tokens; ++t) {
    const std::vector<std::int64_t> here{first + t};
    table(token_by_token.col(t), here);
  }
  CHECK(same_bits(token_by_token, expected));

  RowMajor<Scalar> transposed = x;
  table(transposed, at);
  CHECK(same_bits(Matrix<Scalar>(transposed), expected));

  Matrix<Scalar> wide = Matrix<Scalar>::Zero(2 * x.rows(), x.cols());  // a distance between features
  Eigen::Map<Matrix<Scalar>, 0, Eigen::Stride<Eigen::Dynamic, 2>> apart(
      wide.data(), x.rows(), x.cols(), Eigen::Stride<Eigen::Dynamic, 2>(wide.rows(), 2));
  table.rotate_into(apart, x, at);
  CHECK(same_bits(Matrix<Scalar>(apart), expected));
}

}  // namespace

TEST_CASE("The same bits for every size, layout, storage order and scalar", "[rope][rope_table]") {
  const auto layout = GENERATE(PairLayout::half_split, PairLayout::interleaved);
  for (const Index head_dim :
       {2, 4, 6, 8, 10, 14, 16, 18, 24, 30, 32, 34, 48, 64, 66, 80, 96, 112, 128, 130, 160, 256, 300}) {
    const RopeOptions options{.head_dim = head_dim, .layout = layout};
    check_bits<float>(options, 2, 3);
    check_bits<double>(options, 2, 3);
    check_bits<Eigen::half>(options, 2, 3);
    check_bits<Eigen::bfloat16>(options, 2, 3);
  }
  for (const Index rotary_dim : {2, 16, 32, 40}) {
    check_bits<float>({.head_dim = 128, .rotary_dim = rotary_dim, .layout = layout}, 3, 17);
    check_bits<float>({.head_dim = 65, .rotary_dim = rotary_dim, .rotary_offset = 7, .layout = layout}, 3, 17);
  }
}

TEMPLATE_TEST_CASE("An output larger than the caches has the same bits", "[rope][rope_table]", float, Eigen::half,
                   Eigen::bfloat16) {
  using Scalar = TestType;
  const auto layout = GENERATE(PairLayout::half_split, PairLayout::interleaved);
  const Index num_heads = 32, head_dim = 128;
  const Index rotary_dim = GENERATE(128, 64, 48);
  const Index num_tokens =
      detail::streamed_rotation_bytes / (num_heads * head_dim * static_cast<Index>(sizeof(Scalar))) + 1;
  const RopeTable<float> table(Rope({.head_dim = head_dim, .rotary_dim = rotary_dim, .layout = layout}), num_tokens);
  const Matrix<Scalar> x = random<Scalar>(num_heads * head_dim, num_tokens);
  Matrix<Scalar> in_place = x, out = Matrix<Scalar>::Zero(x.rows(), x.cols());
  table(in_place, positions(num_tokens));
  table.rotate_into(out, x, positions(num_tokens));
  CHECK(same_bits(out, in_place));
}

TEST_CASE("Denormal numbers, infinities and NaN of bfloat16 are rounded as they are alone", "[rope]") {
  using Eigen::bfloat16;
  const RopeTable<float> turn(Matrix<float>::Ones(32, 1), Matrix<float>::Zero(32, 1), {.head_dim = 64});
  const float limit = std::numeric_limits<float>::infinity();
  for (const float value : {1e-39f, -1e-40f, 9.2e-41f, 1.17549e-38f, limit, -limit, 3.3e38f, -0.0f}) {
    Matrix<bfloat16> x = Matrix<bfloat16>::Constant(64, 1, bfloat16(value));
    const bfloat16 before = x(0, 0);
    turn(x, positions(1));
    if (std::isfinite(value)) CHECK((x.array() == before).all());
    CHECK(same_bits(x, one_by_one(Matrix<bfloat16>::Constant(64, 1, before).eval(), turn)));
  }
  Matrix<bfloat16> x = Matrix<bfloat16>::Zero(64, 1);
  x(5, 0) = std::numeric_limits<bfloat16>::quiet_NaN();
  turn(x, positions(1));
  for (Index i = 0; i < 64; ++i) CHECK((Eigen::numext::isnan)(x(i, 0)) == (i == 5 || i == 37));
}

TEST_CASE("bfloat16 is rounded to the nearest, ties to even, in packets as alone", "[rope]") {
  using Eigen::bfloat16;
  const auto layout = GENERATE(PairLayout::half_split, PairLayout::interleaved);
  Matrix<float> cos(64, 1);
  for (Index i = 0; i < 64; ++i) cos(i) = 1 + static_cast<float>(i) / 256;  // a tie if i is odd
  const auto before = Matrix<bfloat16>::Ones(128, 1).eval();
  for (const float next : {0.5f, 1.0f, 2.0f}) {  // to the next float, on either side of a tie
    const Matrix<float> near = cos.unaryExpr([&](float x) { return std::nextafter(x, x * next); });
    for (const float sign : {1.0f, -1.0f}) {
      const RopeTable<float> turn(sign * near, Matrix<float>::Zero(64, 1), {.head_dim = 128, .layout = layout});
      Matrix<bfloat16> x = before;
      turn(x, positions(1));
      CHECK(same_bits(x, one_by_one(before, turn)));
    }
  }
}

TEST_CASE("A NaN of any bits in a table makes NaN of bfloat16", "[rope]") {
  using Eigen::bfloat16;
  const auto layout = GENERATE(PairLayout::half_split, PairLayout::interleaved);
  Matrix<float> cos = Matrix<float>::Ones(32, 1), sin = Matrix<float>::Zero(32, 1);
  const auto set = [](float& to, std::uint32_t bits) { std::memcpy(&to, &bits, sizeof bits); };
  set(cos(3), 0x7fffffff);
  set(cos(4), 0xffffffff);
  set(sin(10), 0x7fffffff);
  set(sin(17), 0xffffffff);
  Matrix<bfloat16> x = Matrix<bfloat16>::Ones(64, 1);
  const RopeTable<float> turn(cos, sin, {.head_dim = 64, .layout = layout});
  turn(x, positions(1));
  for (Index i = 0; i < 64; ++i) {
    const Index pair = layout == PairLayout::interleaved ? i / 2 : i % 32;
    CHECK((Eigen::numext::isnan)(x(i, 0)) == (pair == 3 || pair == 4 || pair == 10 || pair == 17));
  }
}

TEST_CASE("rotate_into is a copy and a rotation, from any matrix to any", "[rope]") {
  const auto layout = GENERATE(PairLayout::half_split, PairLayout::interleaved);
  const Rope rope({.head_dim = 20, .rotary_dim = 12, .rotary_offset = 3, .layout = layout, .num_rotary_heads = 3});
  const std::vector<std::int64_t> at{5, -3, 1000, 7, 7};
  const Matrix<float> x = Matrix<float>::Random(80, 5), before = x;
  Matrix<float> expected = x;
  rope(expected, at);

  Matrix<float> out = Matrix<float>::Zero(80, 5);
  rope.rotate_into(out, x, at);
  CHECK(out == expected);
  RowMajor<float> other_order = RowMajor<float>::Zero(80, 5), from = x;
  rope.rotate_into(other_order, x, at);
  CHECK(other_order == expected);
  rope.rotate_into(out.setZero(), from, at);
  CHECK(out == expected);
  rope.rotate_into(other_order.setZero(), from, at);
  CHECK(other_order == expected);
  Matrix<float> larger = Matrix<float>::Zero(90, 7);
  rope.rotate_into(larger.block(4, 1, 80, 5), 1.0f * x, at);  // an expression
  CHECK(larger.block(4, 1, 80, 5) == expected);
  CHECK(larger.topRows(4).isZero(0));
  CHECK(larger.bottomRows(6).isZero(0));
  Eigen::ArrayXXf array(80, 5);
  rope.rotate_into(array, x, at);
  CHECK(array.matrix() == expected);
  CHECK(x == before);

  Matrix<float> same = x;  // in its own place
  rope.rotate_into(same, same, at);
  CHECK(same == expected);

  rope.rotate_into(out.topRows(40), x.middleRows(40, 40), at, 2);  // heads 2 and 3, of which 2 rotates
  CHECK(out.topRows(40) == expected.middleRows(40, 40));
  const std::vector<double> real{5, -3, 1000, 7, 7};
  rope.rotate_into(out, x, real);
  CHECK(out == expected);
}

TEST_CASE("rotate_into with another layout, a magnitude, axes and complex numbers", "[rope]") {
  const auto check = [](const Rope& rope, const auto& x, const Positions& at) {
    auto expected = x, out = x;
    rope(expected, at);
    out.setZero();
    rope.rotate_into(out, x, at);
    CHECK(out == expected);
    const RopeTable<double> table(rope, 50);
    expected = x;
    table(expected, at);
    out.setZero();
    table.rotate_into(out, x, at);
    CHECK(out == expected);
  };
  const Matrix<double> x = Matrix<double>::Random(16, 4);
  const Eigen::MatrixXcd z = Eigen::MatrixXcd::Random(8, 4);
  const Rope reordered({.head_dim = 8, .layout = PairLayout::interleaved, .output_layout = PairLayout::half_split});
  const Rope partial({.head_dim = 8, .rotary_dim = 4, .rotary_offset = 2});
  const Rope magnified({.values = Eigen::Vector2d(1, .1), .magnitude = 1.5}, {.head_dim = 8, .rotary_dim = 4});
  const Rope axes({.values = Eigen::Vector2d(1, .1), .axes = {1, 0}}, {.head_dim = 8, .rotary_dim = 4});
  for (const Rope* rope : {&reordered, &partial, &magnified}) {
    check(*rope, x, positions(4, 3));
    check(*rope, z, positions(4, 3));
  }
  const std::vector<std::int64_t> two{1, 2, 3, 4, 40, 30, 20, 10};
  check(axes, x, Positions::axes(two, 2));
}

TEST_CASE("rotate_into refuses what does not fit, and writes nothing then", "[rope]") {
  const Rope rope({.head_dim = 4});
  const RopeTable<float> table(rope, 10);
  const Matrix<float> x = Matrix<float>::Random(8, 3);
  Matrix<float> few_rows = Matrix<float>::Constant(4, 3, 7), few_columns = Matrix<float>::Constant(8, 2, 7),
                out = Matrix<float>::Constant(8, 3, 7);
  CHECK_THROWS_MATCHES(rope.rotate_into(few_rows, x, positions(3)), std::invalid_argument,
                       Message("posenc::Rope: rows of the output must be those of the input = 8, got 4"));
  CHECK_THROWS_MATCHES(table.rotate_into(few_columns, x, positions(3)), std::invalid_argument,
                       Message("posenc::RopeTable: columns of the output must be those of the input = 3, got 2"));
  CHECK_THROWS_MATCHES(rope.rotate_into(out, x, positions(2)), std::invalid_argument,
                       Message("posenc::Rope: columns must be the number of positions = 2, got 3"));
  CHECK_THROWS_MATCHES(table.rotate_into(out, x, positions(3, 8)), std::out_of_range,
                       Message("posenc::RopeTable: a position must be in the table, got 10"));
  CHECK((few_rows.array() == 7).all());
  CHECK((few_columns.array() == 7).all());
  CHECK((out.array() == 7).all());
}

TEST_CASE("Rotation between row-major matrices of different steps between tokens", "[rope_into]") {
  using Strided = Eigen::Map<RowMajor<float>, 0, Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>>;
  const Index dim = 8, num_tokens = 5;
  const Rope rope({.head_dim = dim});
  std::vector<float> every_second(static_cast<std::size_t>(2 * dim * num_tokens), 7), dense(every_second);
  Strided sparse_view(every_second.data(), dim, num_tokens, {2 * num_tokens, 2});
  Strided dense_view(dense.data(), dim, num_tokens, {2 * num_tokens, 1});
  const Matrix<float> x = random<float>(dim, num_tokens);
  Matrix<float> expected = x;
  rope(expected, positions(num_tokens, 3));

  sparse_view = x;
  rope.rotate_into(dense_view, sparse_view, positions(num_tokens, 3));
  CHECK(same_bits<float>(dense_view, expected));
  dense_view = x;
  rope.rotate_into(sparse_view, dense_view, positions(num_tokens, 3));
  CHECK(same_bits<float>(sparse_view, expected));
}

TEST_CASE("A head of complex numbers, and what rotates of it, begins with a whole number", "[rope_into]") {
  Matrix<std::complex<float>> x = Matrix<std::complex<float>>::Ones(8, 2);
  const Rope odd_offset({.head_dim = 8, .rotary_dim = 6, .rotary_offset = 1}),
      odd_head({.head_dim = 7, .rotary_dim = 6});
  CHECK_THROWS_MATCHES(odd_offset(x, positions(2)), std::invalid_argument,
                       Message("posenc::Rope: rotary_offset of complex matrices must be even, got 1"));
  Matrix<std::complex<float>> seven = Matrix<std::complex<float>>::Ones(7, 2);
  CHECK_THROWS_MATCHES(odd_head(seven, positions(2)), std::invalid_argument,
                       Message("posenc::Rope: head_dim of complex matrices must be even, got 7"));
}
