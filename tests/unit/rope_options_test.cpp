// SPDX-License-Identifier: MIT
#include "../property/allocations.hpp"

#include <posenc/rope.hpp>

#include <posenc/attention.hpp>
#include <posenc/masks.hpp>
#include <posenc/rope_table.hpp>

#include <cmath>
#include <complex>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <vector>

#include "../catch.hpp"
#include "../exact.hpp"
#include "../support.hpp"

// Which features, which heads, which way round, in which order: the options of Rope beyond those of the paper, and the
// frequencies made for them.

using namespace posenc;
using exact::Number;
using support::message_of;

namespace {

constexpr auto interleaved = PairLayout::interleaved, half_split = PairLayout::half_split;

template <class R, class Scalar>
Matrix<Scalar> rotated(const R& rope, Matrix<Scalar> x, const Positions& positions, Index head = 0) {
  rope.apply_query(x, positions, head);
  return x;
}

/// The two features of a pair, counted by hand.
struct Pair {
  Index a, b;
};
Pair pair_at(Index first, Index num_pairs, Index i, PairLayout layout) {
  return layout == interleaved ? Pair{first + 2 * i, first + 2 * i + 1} : Pair{first + i, first + num_pairs + i};
}

}  // namespace

TEST_CASE("rotary_offset: a middle slice of every head rotates", "[rope_options]") {
  const auto layout = GENERATE(interleaved, half_split);
  const RopeOptions options{.head_dim = 10, .rotary_dim = 4, .rotary_offset = 3, .layout = layout};
  const Rope rope(options);
  const auto x = support::random_matrix<double>(20, 3);
  const auto got = rotated(rope, x, positions(3, 40));
  for (Index t = 0; t < 3; ++t)
    for (Index head = 0; head < 20; head += 10) {
      for (const Index i : {0, 1, 2, 7, 8, 9}) CHECK(got(head + i, t) == x(head + i, t));
      for (Index i = 0; i < 2; ++i) {
        const auto [a, b] = pair_at(head + 3, 2, i, layout);
        const double angle = static_cast<double>(40 + t) * std::pow(10000.0, -static_cast<double>(2 * i) / 4);
        CHECK(std::abs(got(a, t) - (x(a, t) * std::cos(angle) - x(b, t) * std::sin(angle))) < 1e-14);
        CHECK(std::abs(got(b, t) - (x(b, t) * std::cos(angle) + x(a, t) * std::sin(angle))) < 1e-14);
      }
    }
  // rotary_dim 0: all from the offset on, with an odd head if need be.
  const Rope rest({.head_dim = 9, .rotary_offset = 3, .layout = layout});
  CHECK(rest.rotary_dim() == 6);
  const auto y = support::random_matrix<double>(9, 2);
  const auto turned = rotated(rest, y, positions(2, 1));
  CHECK(support::same_bits(turned.topRows(3), y.topRows(3)));
  const Rope whole({.head_dim = 6, .layout = layout});
  const Matrix<double> tail = y.bottomRows(6);
  CHECK(support::same_bits(turned.bottomRows(6), rotated(whole, tail, positions(2, 1))));
}

TEST_CASE("output_layout: pairs are read in one order and written in another, as DeepSeek-V3 does", "[rope_options]") {
  const auto layout = GENERATE(interleaved, half_split);
  const auto output = layout == interleaved ? half_split : interleaved;
  const RotaryFeatures features{.head_dim = 10, .rotary_dim = 6, .rotary_offset = GENERATE(0, 4)};
  RopeOptions options{.head_dim = 10, .rotary_dim = 6, .rotary_offset = features.rotary_offset, .layout = layout};
  const Rope plain(options);
  options.output_layout = output;
  const Rope rope(options);
  const RopeTable<float> table(rope, 20, 90);
  const auto x = support::random_matrix<float>(20, 5);
  Matrix<float> expected = rotated(plain, x, positions(5, 100));
  change_pair_layout(expected, features, layout, output);
  Matrix<float> got = x, looked_up = x;
  Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> row_major = x;
  CHECK_FALSE(laws::allocates([&] {
    rope(got, positions(5, 100));
    table(looked_up, positions(5, 100));
    rope(row_major, positions(5, 100));
  }));
  CHECK(support::same_bits(got, expected));
  CHECK(support::same_bits(looked_up, expected));
  CHECK(support::same_bits(row_major, expected));
  rope.apply_inverse(got, positions(5, 100));
  CHECK(support::distance(got, x) < 1e-6);
  table.apply_inverse(looked_up, positions(5, 100));
  CHECK(support::distance(looked_up, x) < 1e-6);
  rope.apply_inverse(row_major, positions(5, 100));
  CHECK(support::distance(row_major, x) < 1e-6);

  // Scores do not see the order.
  const auto k = support::random_matrix<float>(10, 4, 2);
  const Matrix<float> q = x.topRows(10);
  const AttentionOptions at{.query_positions = positions(5, 3), .key_positions = positions(4)};
  CHECK(support::distance(attention_weights(q, k, at, rope), attention_weights(q, k, at, plain)) < 1e-6);

  // The same layout twice is no change, and complex numbers have none.
  options.output_layout = layout;
  CHECK(support::same_bits(rotated(Rope(options), x, positions(5, 100)), rotated(plain, x, positions(5, 100))));
  const auto z = support::random_matrix<std::complex<float>>(3, 2);
  const Rope of_six({.head_dim = 6, .layout = layout, .output_layout = output});
  CHECK(support::same_bits(rotated(of_six, z, positions(2, 7)).real(),
                           rotated(Rope({.head_dim = 6}), z, positions(2, 7)).real()));
}

TEST_CASE("num_rotary_heads: the heads behind keep their bits", "[rope_options]") {
  const Rope all({.head_dim = 6}), some({.head_dim = 6, .num_rotary_heads = 3});
  const RopeTable<float> table(some, 30);
  const auto x = support::random_matrix<float>(30, 4);
  const auto got = rotated(some, x, positions(4, 9)), every = rotated(all, x, positions(4, 9));
  CHECK(support::same_bits(got.topRows(18), every.topRows(18)));
  CHECK(support::same_bits(got.bottomRows(12), x.bottomRows(12)));
  CHECK(support::same_bits(rotated(table, x, positions(4, 9)), got));
  for (Index head = 0; head < 5; ++head) {  // head by head, as an attention calls it
    const Matrix<float> one = x.middleRows(6 * head, 6);
    CHECK(support::same_bits(rotated(some, one, positions(4, 9), head), got.middleRows(6 * head, 6)));
    CHECK(support::same_bits(rotated(table, one, positions(4, 9), head), got.middleRows(6 * head, 6)));
    Matrix<float> key = one;
    some.apply_key(key, positions(4, 9), head);
    CHECK(support::same_bits(key, got.middleRows(6 * head, 6)));
  }
  const Matrix<float> middle = x.middleRows(12, 18);  // heads 2, 3 and 4
  CHECK(support::same_bits(rotated(some, middle, positions(4, 9), 2), got.middleRows(12, 18)));
  const Matrix<float> last = x.bottomRows(6);
  CHECK(support::same_bits(rotated(some, last, positions(4, 9), 1000), last));
  CHECK(some.num_rotating(5, 0) == 3);
  CHECK(some.num_rotating(5, 2) == 1);
  CHECK(some.num_rotating(5, 3) == 0);
  CHECK(all.num_rotating(5, 3) == 5);
  CHECK(Rope({.head_dim = 6, .num_rotary_heads = 100}).num_rotating(5, 0) == 5);

  // Reordering leaves them alone, too.
  const Rope reordering({.head_dim = 6, .layout = interleaved, .output_layout = half_split, .num_rotary_heads = 3});
  CHECK(support::same_bits(rotated(reordering, x, positions(4, 9)).bottomRows(12), x.bottomRows(12)));
}

TEST_CASE("reversed: the rotation the other way round", "[rope_options]") {
  const auto frequencies = rope_frequencies(8);
  const Rope forwards(frequencies, {.head_dim = 8}), backwards(reversed(frequencies), {.head_dim = 8});
  const auto x = support::random_matrix<float>(8, 5);
  Matrix<float> inverse = x;
  forwards.apply_inverse(inverse, positions(5, 70));
  const auto got = rotated(backwards, x, positions(5, 70));
  CHECK(support::distance(got, inverse) == 0);
  const std::vector<std::int64_t> negative{-70, -71, -72, -73, -74};
  CHECK(support::distance(got, rotated(forwards, x, negative)) == 0);
  RopeFrequencies loud = frequencies;
  loud.magnitude = 1.5;
  loud.axes = {0, 1, 0, 1};
  const auto twice = reversed(reversed(loud));
  CHECK(twice.values == loud.values);
  CHECK(twice.low_parts == loud.low_parts);
  CHECK(twice.magnitude == 1.5);
  CHECK(twice.axes == loud.axes);
  CHECK(reversed(RopeFrequencies{.values = Eigen::Vector2d(1, 0.5)}).low_parts.size() == 0);
}

TEST_CASE("divided: linear interpolation and factors one by one", "[rope_options]") {
  auto frequencies = rope_frequencies(16, 500000);
  const double factor = GENERATE(1.0, 2.0, 7.7, 0.3);
  auto expected = exact::geometric(16, Number(500000));
  for (Number& frequency : expected) frequency = frequency / Number(factor);
  const auto error = exact::accuracy(divided(frequencies, factor), expected);
  CHECK(error.frequencies < 1e-30);
  CHECK(error.float_ulps <= 1);
  CHECK(error.double_ulps <= 1);

  // As if the positions were that much closer.
  const Rope slowed(divided(frequencies, 4), {.head_dim = 16}), plain(frequencies, {.head_dim = 16});
  const auto x = support::random_matrix<double>(16, 3);
  Matrix<double> closer = x;
  plain(closer, std::vector<double>{0.25, 2.5, -0.75});
  CHECK(support::distance(rotated(slowed, x, std::vector<std::int64_t>{1, 10, -3}), closer) < 1e-14);

  frequencies.magnitude = 1.25;
  frequencies.axes = {0, 0, 1, 1, 0, 0, 1, 1};
  const Eigen::VectorXf factors = Eigen::VectorXf::LinSpaced(8, 1, 3);
  const auto one_by_one = divided(frequencies, factors);
  for (Index i = 0; i < 8; ++i)
    CHECK(std::abs(one_by_one.values[i] * static_cast<double>(factors[i]) / frequencies.values[i] - 1) < 4e-16);
  CHECK(one_by_one.magnitude == 1.25);
  CHECK(one_by_one.axes == frequencies.axes);

  using Invalid = std::invalid_argument;
  CHECK(message_of<Invalid>([&] { divided(frequencies, Eigen::Vector3d(1, 2, 3)); }) ==
        "posenc::divided: the number of factors must be the number of frequencies = 8, got 3");
  CHECK(message_of<Invalid>([&] { divided(frequencies, -2); }) ==
        "posenc::divided: factors must be positive and finite, got -2");
  CHECK(message_of<Invalid>([&] { divided(frequencies, std::numeric_limits<double>::infinity()); }) ==
        "posenc::divided: factors must be positive and finite, got inf");
}

TEST_CASE("proportional: the first pairs of the whole head turn, the others stand still", "[rope_options]") {
  const Index head_dim = 16, rotary_dim = GENERATE(2, 8, 16);
  const double factor = GENERATE(1.0, 8.0);
  const auto got = proportional_rope_frequencies(head_dim, rotary_dim, 1e6, factor);
  const auto whole = exact::geometric(head_dim, Number(1e6));
  REQUIRE(got.size() == head_dim / 2);
  for (Index i = 0; i < head_dim / 2; ++i) {
    if (i < rotary_dim / 2)
      CHECK(exact::ulps(got.values[i], whole[static_cast<std::size_t>(i)] / Number(factor)) <= 0.5001);
    else
      CHECK((got.values[i] == 0 && got.low_parts[i] == 0));
  }
  const Rope rope(got, {.head_dim = head_dim});
  const auto x = support::random_matrix<float>(head_dim, 3);
  const auto turned = rotated(rope, x, positions(3, 1000));
  for (Index i = rotary_dim / 2; i < head_dim / 2; ++i) {
    CHECK(support::same_bits(turned.row(i), x.row(i)));
    CHECK(support::same_bits(turned.row(head_dim / 2 + i), x.row(head_dim / 2 + i)));
  }
  if (rotary_dim < head_dim)  // not what a prefix of the head is
    CHECK(support::distance(turned, rotated(Rope({.head_dim = head_dim, .rotary_dim = rotary_dim, .base = 1e6}), x,
                                            positions(3, 1000))) > 0.1);

  using Invalid = std::invalid_argument;
  CHECK(message_of<Invalid>([] { proportional_rope_frequencies(8, 10); }) ==
        "posenc::proportional_rope_frequencies: rotary_dim must be at most head_dim, got 10");
  CHECK(message_of<Invalid>([] { proportional_rope_frequencies(8, 3); }) ==
        "posenc::rope_frequencies: rotary_dim must be even, got 3");
  CHECK(message_of<Invalid>([] { proportional_rope_frequencies(8, 0); }) ==
        "posenc::rope_frequencies: rotary_dim must be positive, got 0");
  CHECK(message_of<Invalid>([] { proportional_rope_frequencies(9, 4); }) ==
        "posenc::rope_frequencies: rotary_dim must be even, got 9");
  CHECK(message_of<Invalid>([] { proportional_rope_frequencies(8, 4, 10000, 0); }) ==
        "posenc::divided: factors must be positive and finite, got 0");
}

TEMPLATE_TEST_CASE("The options with half, bfloat16 and complex numbers", "[rope_options]", Eigen::half,
                   Eigen::bfloat16) {
  using Scalar = TestType;
  const double epsilon = std::is_same_v<Scalar, Eigen::half> ? 4e-3 : 3e-2;
  const Rope rope({.head_dim = 10,
                   .rotary_dim = 6,
                   .rotary_offset = 2,
                   .layout = interleaved,
                   .output_layout = half_split,
                   .num_rotary_heads = 2});
  const auto x = support::random_matrix<Scalar>(30, 4);
  Matrix<Scalar> stored = x;
  CHECK_FALSE(laws::allocates([&] { rope(stored, positions(4, 1000)); }));
  const Matrix<float> computed = rotated<Rope, float>(rope, x.template cast<float>(), positions(4, 1000));
  CHECK(support::distance(stored, computed) < epsilon);
  CHECK(support::same_bits(stored.bottomRows(10), x.bottomRows(10)));
}

TEST_CASE("A complex head with an offset: half as many numbers", "[rope_options]") {
  const Rope rope({.head_dim = 8, .rotary_dim = 4, .rotary_offset = 2, .layout = interleaved});
  const auto z = support::random_matrix<std::complex<double>>(8, 3);  // two heads
  Matrix<double> parts(16, 3);
  for (Index t = 0; t < 3; ++t)
    for (Index i = 0; i < 8; ++i) {
      parts(2 * i, t) = z(i, t).real();
      parts(2 * i + 1, t) = z(i, t).imag();
    }
  const auto got = rotated(rope, z, positions(3, 5));
  const auto expected = rotated(rope, parts, positions(3, 5));
  for (Index t = 0; t < 3; ++t)
    for (Index i = 0; i < 8; ++i) CHECK(got(i, t) == std::complex<double>(expected(2 * i, t), expected(2 * i + 1, t)));
}

TEST_CASE("Options of Rope: errors", "[rope_options]") {
  const auto message = [](const RopeOptions& options) {
    return message_of<std::invalid_argument>([&] { Rope{options}; });
  };
  CHECK(message({.head_dim = 8, .rotary_offset = -1}) == "posenc::Rope: rotary_offset must not be negative, got -1");
  CHECK(message({.head_dim = 8, .rotary_offset = 8}) == "posenc::Rope: rotary_offset must be below head_dim, got 8");
  CHECK(message({.head_dim = 8, .rotary_dim = 6, .rotary_offset = 3}) ==
        "posenc::Rope: rotary_dim must be at most head_dim - rotary_offset, got 6");
  CHECK(message({.head_dim = 8, .rotary_offset = 3}) == "posenc::Rope: head_dim must be even, got 8");
  CHECK(message({.head_dim = 8, .num_rotary_heads = -1}) ==
        "posenc::Rope: num_rotary_heads must not be negative, got -1");
  CHECK(message({.head_dim = 1026, .layout = interleaved, .output_layout = half_split}) ==
        "posenc::Rope: rotary_dim with an output_layout must be at most 1024, got 1026");
  CHECK(message({.head_dim = 1026}) == "accepted");
}
