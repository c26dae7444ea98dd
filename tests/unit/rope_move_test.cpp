// SPDX-License-Identifier: MIT
#include "../property/allocations.hpp"

#include <posenc/rope_move.hpp>

#include <posenc/attention.hpp>
#include <posenc/rope_axes.hpp>
#include <posenc/rope_longrope.hpp>
#include <posenc/rope_ntk.hpp>
#include <posenc/rope_yarn.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <stdexcept>
#include <vector>

#include "../catch.hpp"
#include "../support.hpp"

using namespace posenc;
using support::message_of;

namespace {

template <class Scalar>
Matrix<Scalar> rotated(const Rope& rope, Matrix<Scalar> x, const Positions& positions) {
  rope(x, positions);
  return x;
}

/// The exact rotation of half-split pairs, in long double; positions to a million.
Matrix<long double> exact_rotation(const Rope& rope, const Matrix<long double>& x,
                                   const std::vector<std::int64_t>& positions) {
  Matrix<long double> out = x;
  const Index pairs = rope.frequencies().size();
  for (Index t = 0; t < x.cols(); ++t)
    for (Index i = 0; i < pairs; ++i) {
      const long double frequency = static_cast<long double>(rope.frequencies().exact(i).high) +
                                    static_cast<long double>(rope.frequencies().exact(i).low);
      const long double angle = static_cast<long double>(positions[static_cast<std::size_t>(t)]) * frequency;
      out(i, t) = x(i, t) * std::cos(angle) - x(pairs + i, t) * std::sin(angle);
      out(pairs + i, t) = x(pairs + i, t) * std::cos(angle) + x(i, t) * std::sin(angle);
    }
  return out;
}

/// Errors of features in eps (2^-23) of the length of their pair.
struct Errors {
  double largest = 0, mean_square = 0;
};

Errors errors(const Matrix<float>& got, const Matrix<long double>& expected) {
  const Index pairs = got.rows() / 2;
  Errors found;
  for (Index t = 0; t < got.cols(); ++t)
    for (Index i = 0; i < pairs; ++i) {
      const auto length = static_cast<double>(std::hypot(expected(i, t), expected(pairs + i, t)));
      for (const Index row : {i, pairs + i}) {
        const auto error = static_cast<double>(static_cast<long double>(got(row, t)) - expected(row, t));
        found.largest = std::max(found.largest, std::abs(error) / (length * 0x1p-23));
        found.mean_square += std::pow(error / (length * 0x1p-23), 2) / static_cast<double>(got.size());
      }
    }
  return found;
}

std::vector<std::int64_t> random_positions(Index n, std::int64_t limit, std::uint64_t seed) {
  std::mt19937_64 engine(seed);
  std::vector<std::int64_t> positions;
  for (Index t = 0; t < n; ++t)
    positions.push_back(static_cast<std::int64_t>(engine() % static_cast<std::uint64_t>(2 * limit)) - limit);
  return positions;
}

}  // namespace

TEST_CASE("move_keys: one rotation by the difference, off by at most half an ulp", "[rope_move]") {
  const Rope rope({.head_dim = 64, .base = GENERATE(10000.0, 500000.0)});
  const Index num_tokens = 2000;
  const auto from = random_positions(num_tokens, 1000000, 1), to = random_positions(num_tokens, 1000000, 2);
  const auto stored = rotated(rope, support::random_matrix<float>(64, num_tokens), from);
  std::vector<std::int64_t> difference;
  for (std::size_t t = 0; t < from.size(); ++t) difference.push_back(to[t] - from[t]);
  Matrix<float> moved = stored;
  move_keys(moved, rope, from, to);
  const auto expected = exact_rotation(rope, stored.cast<long double>(), difference);
  CHECK(errors(moved, expected).largest <= 0.5);
  CHECK((moved.cast<long double>() - expected).cwiseQuotient(expected).cwiseAbs().maxCoeff() <= 0x1.001p-24);

  // Far away the difference is exact all the same: positions that double angles could not tell apart.
  const std::int64_t far = std::int64_t{1} << 40;
  Matrix<float> near = stored.leftCols(5), far_away = near;
  move_keys(near, rope, positions(5, 3), positions(5, 1));
  move_keys(far_away, rope, positions(5, far + 3), positions(5, far + 1));
  CHECK(support::same_bits(near, far_away));
  Matrix<float> there = stored.leftCols(5);
  move_keys(there, rope, positions(5, far), positions(5, far));
  CHECK(support::same_bits(there, stored.leftCols(5)));
}

TEST_CASE("move_keys: a hundred moves in place add up as documented, and keep norms", "[rope_move]") {
  const bool by_one = GENERATE(false, true);
  CAPTURE(by_one);
  const Rope rope({.head_dim = 64});
  const Index num_tokens = 1000;
  const auto stored = rotated(rope, support::random_matrix<float>(64, num_tokens), positions(num_tokens));
  Matrix<float> moved = stored;
  std::vector<std::int64_t> at(static_cast<std::size_t>(num_tokens)), difference(at.size());
  for (std::size_t t = 0; t < at.size(); ++t) at[t] = static_cast<std::int64_t>(t);
  const auto origin = at;
  for (int n = 0; n < 100; ++n) {
    auto next = random_positions(num_tokens, 100000, static_cast<std::uint64_t>(n));
    if (by_one)
      for (std::size_t t = 0; t < at.size(); ++t) next[t] = at[t] - 1;
    move_keys(moved, rope, at, next);
    at = next;
  }
  for (std::size_t t = 0; t < at.size(); ++t) difference[t] = at[t] - origin[t];
  const auto error = errors(moved, exact_rotation(rope, stored.cast<long double>(), difference));
  CHECK(std::sqrt(error.mean_square) < 1.6);
  CHECK(error.largest < (by_one ? 30 : 10));
  CHECK(error.largest > 0.5);  // it does add up
  for (Index t = 0; t < num_tokens; ++t)
    CHECK(std::abs(moved.col(t).cast<double>().norm() / stored.col(t).cast<double>().norm() - 1) < 1e-6);
}

TEST_CASE("MovableKeys: n moves are one move, to the bit", "[rope_move]") {
  const Rope rope({.head_dim = 16});
  const auto stored = rotated(rope, support::random_matrix<float>(32, 20), positions(20, 5));
  MovableKeys<float> often(stored, rope, positions(20, 5)), once = often;
  CHECK(support::same_bits(often.keys(), stored));
  for (int n = 0; n < 100; ++n) often.move_to(random_positions(20, 1000000, static_cast<std::uint64_t>(n)));
  const auto last = random_positions(20, 1000, 7);
  often.move_to(last);
  once.move_to(last);
  CHECK(support::same_bits(often.keys(), once.keys()));
  often.move_to(positions(20, 5));
  CHECK(support::same_bits(often.keys(), stored));  // home again
  const Rope slower(rope_frequencies(16, 500000), {.head_dim = 16});
  often.move_to(slower, last);
  Matrix<float> expected = stored;
  move_keys(expected, rope, positions(20, 5), slower, last);
  CHECK(support::same_bits(often.keys(), expected));
  CHECK(message_of<std::invalid_argument>([&] { often.move_to(positions(19)); }) ==
        "posenc::move_keys: new positions must be as many as the old ones = 20, got 19");
  CHECK(support::same_bits(often.keys(), expected));
  CHECK(message_of<std::invalid_argument>([&] { MovableKeys<float>(stored, rope, positions(19)); }) ==
        "posenc::MovableKeys: columns must be the number of positions = 19, got 20");
}

TEST_CASE("move_keys: a magnitude is never applied twice", "[rope_move]") {
  const auto yarn = yarn_rope_frequencies(16, 10000, {.factor = 4, .original_max_position_embeddings = 64});
  const Rope rope(yarn, {.head_dim = 20});
  REQUIRE(yarn.magnitude > 1.13);
  const auto k = support::random_matrix<double>(20, 10);
  const auto stored = rotated(rope, k, positions(10, 100));
  Matrix<double> moved = stored;
  for (std::int64_t n = 1; n <= 10; ++n) move_keys(moved, rope, positions(10, 100 + n - 1), positions(10, 100 + n));
  CHECK(support::distance(moved, rotated(rope, k, positions(10, 110))) < 1e-14);
  for (Index t = 0; t < 10; ++t)  // not 1.139^10 = 3.66 times as long
    CHECK(std::abs(moved.col(t).head(16).norm() / k.col(t).head(16).norm() - yarn.magnitude) < 1e-14);

  // Between two magnitudes their quotient is applied.
  RopeFrequencies louder = yarn;
  louder.magnitude = 1.5;
  moved = stored;
  move_keys(moved, rope, positions(10, 100), Rope(louder, {.head_dim = 20}), positions(10, 7));
  CHECK(support::distance(moved, rotated(Rope(louder, {.head_dim = 20}), k, positions(10, 7))) < 1e-14);
}

TEST_CASE("move_keys: from one schedule to another", "[rope_move]") {
  const auto k = support::random_matrix<double>(24, 30);
  const auto check = [&](const RopeFrequencies& from, const RopeFrequencies& to, const Positions& old_positions,
                         const Positions& new_positions) {
    const Rope old_rope(from, {.head_dim = 24}), new_rope(to, {.head_dim = 24});
    Matrix<double> moved = rotated(old_rope, k, old_positions);
    move_keys(moved, old_rope, old_positions, new_rope, new_positions);
    CHECK(support::distance(moved, rotated(new_rope, k, new_positions)) < 1e-14);
  };
  SECTION("LongRoPE, past its trained length") {
    const LongRopeOptions options{.short_factors = Vector<double>::LinSpaced(12, 1, 1.2),
                                  .long_factors = Vector<double>::LinSpaced(12, 1, 40),
                                  .original_max_position_embeddings = 4096,
                                  .factor = 32};
    check(longrope_frequencies(24, 10000, options, 4096), longrope_frequencies(24, 10000, options, 4097),
          positions(30, 4066), positions(30, 4066));
  }
  SECTION("dynamic NTK, as a sequence grows") {
    const DynamicNtkOptions options{.factor = 2, .max_position_embeddings = 100};
    check(dynamic_ntk_rope_frequencies(24, 10000, options, 150), dynamic_ntk_rope_frequencies(24, 10000, options, 151),
          positions(30, 120), positions(30, 120));
  }
  SECTION("another base, and other positions") {
    check(rope_frequencies(24, 10000), rope_frequencies(24, 500000), positions(30, 1000), positions(30, 3));
  }
  SECTION("the other way round") {
    check(rope_frequencies(24), reversed(rope_frequencies(24)), positions(30, 1000), positions(30, 3));
  }
}

TEST_CASE("move_keys: several axes", "[rope_move]") {
  RopeFrequencies frequencies = rope_frequencies(16);
  frequencies.axes = mrope_chunks({2, 3, 3});
  const Rope rope(frequencies, {.head_dim = 16});
  const auto old_entries = random_positions(12, 1000, 1), new_entries = random_positions(12, 1000, 2);
  const auto old_positions = Positions::axes(old_entries, 3), new_positions = Positions::axes(new_entries, 3);
  const auto k = support::random_matrix<double>(32, 4);
  Matrix<double> moved = rotated(rope, k, old_positions);
  const auto stored = moved;
  move_keys(moved, rope, old_positions, new_positions);
  CHECK(support::distance(moved, rotated(rope, k, new_positions)) < 1e-14);
  MovableKeys<double> cached(stored, rope, old_positions);
  cached.move_to(positions(4));
  cached.move_to(new_positions);
  CHECK(support::same_bits(cached.keys(), moved));

  // Only along the time: pairs of the other axes keep their bits but for a rotation by nothing.
  auto later = old_entries;
  for (std::size_t t = 0; t < 4; ++t) later[t] += 10;
  moved = stored;
  move_keys(moved, rope, old_positions, Positions::axes(later, 3));
  for (const Index row : {2, 3, 4, 5, 6, 7, 10, 15}) CHECK(support::same_bits(moved.row(row), stored.row(row)));
  // From a text to an image: to axes that were not there.
  const Rope plain(rope_frequencies(16), {.head_dim = 16});
  moved = rotated(plain, k, positions(4, 9));
  move_keys(moved, plain, positions(4, 9), rope, new_positions);
  CHECK(support::distance(moved, rotated(rope, k, new_positions)) < 1e-14);
}

TEST_CASE("move_keys: features, heads and layouts of the Rope", "[rope_move]") {
  const auto options = GENERATE(
      RopeOptions{.head_dim = 10, .rotary_dim = 6, .layout = PairLayout::interleaved},
      RopeOptions{.head_dim = 10, .rotary_dim = 4, .rotary_offset = 3},
      RopeOptions{.head_dim = 10, .num_rotary_heads = 2},
      RopeOptions{
          .head_dim = 10, .rotary_dim = 8, .layout = PairLayout::interleaved, .output_layout = PairLayout::half_split},
      RopeOptions{.head_dim = 10, .layout = PairLayout::half_split, .output_layout = PairLayout::interleaved});
  const Rope rope(options);
  const auto k = support::random_matrix<double>(30, 7);
  Matrix<double> moved = rotated(rope, k, positions(7, 50));
  move_keys(moved, rope, positions(7, 50), positions(7, -3));
  CHECK(support::distance(moved, rotated(rope, k, positions(7, -3))) < 1e-14);
  rope.apply_inverse(moved, positions(7, -3));
  CHECK(support::distance(moved, k) < 1e-14);
}

TEMPLATE_TEST_CASE("move_keys: every scalar and order, without allocation", "[rope_move]", float, double, Eigen::half,
                   Eigen::bfloat16) {
  using Scalar = TestType;
  const Rope rope({.head_dim = 8});
  const auto stored = rotated(rope, support::random_matrix<Scalar>(16, 9), positions(9, 40));
  Matrix<Scalar> moved = stored;
  Eigen::Matrix<Scalar, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> row_major = stored;
  CHECK_FALSE(laws::allocates([&] {
    move_keys(moved, rope, positions(9, 40), positions(9));
    move_keys(row_major, rope, positions(9, 40), positions(9));
    move_keys(moved.leftCols(0), rope, positions(0), positions(0));
  }));
  CHECK(support::same_bits(moved, row_major));
  const Matrix<double> expected = [&] {
    Matrix<double> x = stored.template cast<double>();
    move_keys(x, rope, positions(9, 40), positions(9));
    return x;
  }();
  const double epsilon = std::is_same_v<Scalar, double>        ? 1e-15
                         : std::is_same_v<Scalar, float>       ? 1e-6
                         : std::is_same_v<Scalar, Eigen::half> ? 2e-3
                                                               : 2e-2;
  CHECK(support::distance(moved, expected) < epsilon);
}

TEMPLATE_TEST_CASE("move_keys: tokens that move as far, in a row or not, turn as each for itself", "[rope_move]", float,
                   double, Eigen::half, Eigen::bfloat16) {
  using Scalar = TestType;
  const Index head_dim = GENERATE(6, 64, 320);  // the last has more pairs than are asked for at a time
  const Rope rope({.head_dim = head_dim});
  const auto keys = support::random_matrix<Scalar>(2 * head_dim, 8);
  const std::vector<std::int64_t> from{5, 6, 7, 100, 101, 20, 21, 21}, to{2, 3, 4, 90, 91, 17, 18, 19};
  Matrix<Scalar> together = keys, each = keys;
  Eigen::Matrix<Scalar, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> row_major = keys;
  move_keys(together, rope, from, to);
  move_keys(row_major, rope, from, to);
  for (Index t = 0; t < keys.cols(); ++t)
    move_keys(each.col(t), rope, positions(1, from[static_cast<std::size_t>(t)]),
              positions(1, to[static_cast<std::size_t>(t)]));
  CHECK(support::same_bits(together, each));
  CHECK(support::same_bits(together, row_major));
}

TEST_CASE("move_keys: axes that move differently", "[rope_move]") {
  RopeFrequencies frequencies = rope_frequencies(8);
  frequencies.axes = {0, 1, 0, 1};
  const Rope rope(frequencies, {.head_dim = 8});
  const auto keys = support::random_matrix<float>(8, 3);
  const std::vector<std::int64_t> from{4, 5, 6, 9, 9, 9}, to{1, 2, 3, 9, 9, 8};  // the last token alone on the second
  Matrix<float> together = keys, each = keys;
  move_keys(together, rope, Positions::axes(from, 2), Positions::axes(to, 2));
  for (std::size_t t = 0; t < 3; ++t) {
    const std::vector<std::int64_t> one_from{from[t], from[3 + t]}, one_to{to[t], to[3 + t]};
    move_keys(each.col(static_cast<Index>(t)), rope, Positions::axes(one_from, 2), Positions::axes(one_to, 2));
  }
  CHECK(support::same_bits(together, each));
}

TEST_CASE("move_keys after an eviction: attention is as if the tokens had never been there", "[rope_move]") {
  const Rope rope({.head_dim = 8});
  const auto q = support::random_matrix<float>(8, 1, 1), k = support::random_matrix<float>(8, 20, 2),
             v = support::random_matrix<float>(8, 20, 3);
  Matrix<float> cache = rotated(rope, k, positions(20));
  // Tokens 4, ..., 11 go; those behind move up.
  Matrix<float> kept(8, 12), values(8, 12), plain(8, 12);
  kept << cache.leftCols(4), cache.rightCols(8);
  plain << k.leftCols(4), k.rightCols(8);
  values << v.leftCols(4), v.rightCols(8);
  move_keys(kept.rightCols(8), rope, positions(8, 12), positions(8, 4));
  const Matrix<float> query = rotated(rope, q, positions(1, 12));
  const AttentionOptions options{.query_positions = positions(1, 12), .key_positions = positions(12)};
  CHECK(support::distance(attend(query, kept, values, options), attend(q, plain, values, options, rope)) < 1e-6);
}

TEST_CASE("move_keys: errors, and nothing is written", "[rope_move]") {
  using Invalid = std::invalid_argument;
  const Rope rope({.head_dim = 8});
  const auto before = support::random_matrix<float>(8, 3);
  Matrix<float> x = before;
  const auto message = [&](const Rope& from, const Positions& old_positions, const Rope& to,
                           const Positions& new_positions) {
    return message_of<Invalid>([&] { move_keys(x, from, old_positions, to, new_positions); });
  };
  CHECK(message(rope, positions(2), rope, positions(2)) ==
        "posenc::move_keys: columns must be the number of positions = 2, got 3");
  CHECK(message(rope, positions(3), rope, positions(4)) ==
        "posenc::move_keys: new positions must be as many as the old ones = 3, got 4");
  CHECK(message(Rope({.head_dim = 6}), positions(3), rope, positions(3)) ==
        "posenc::move_keys: features of a column must be a multiple of head_dim = 6, got 8");
  CHECK(message(rope, positions(3), Rope({.head_dim = 8, .layout = PairLayout::interleaved}), positions(3)) ==
        "posenc::move_keys: both Ropes must rotate the same features, got 8");
  CHECK(message(rope, positions(3), Rope({.head_dim = 8, .rotary_dim = 4}), positions(3)) ==
        "posenc::move_keys: both Ropes must rotate the same features, got 4");
  CHECK(message(rope, positions(3), Rope({.head_dim = 8, .num_rotary_heads = 1}), positions(3)) ==
        "posenc::move_keys: both Ropes must rotate the same heads, got 1");
  RopeFrequencies frequencies = rope_frequencies(8);
  frequencies.axes = {0, 0, 1, 2};
  const Rope with_axes(frequencies, {.head_dim = 8});
  const std::vector<std::int64_t> two_axes(6);
  CHECK(message(with_axes, Positions::axes(two_axes, 2), rope, positions(3)) ==
        "posenc::move_keys: an axis must be among the old positions, got 2");
  CHECK(message(rope, positions(3), with_axes, Positions::axes(two_axes, 2)) ==
        "posenc::move_keys: an axis must be among the new positions, got 2");
  const auto far = positions(3, (std::int64_t{1} << 53) - 1);
  CHECK(message_of<std::out_of_range>([&] { move_keys(x, rope, far, positions(3)); }) ==
        "posenc::move_keys: |position| must be at most 2^53, got 9007199254740993");
  CHECK(message_of<std::out_of_range>([&] { move_keys(x, rope, positions(3), far); }) ==
        "posenc::move_keys: |position| must be at most 2^53, got 9007199254740993");
  CHECK(support::same_bits(x, before));
}
