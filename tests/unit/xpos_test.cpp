// SPDX-License-Identifier: MIT
#include "../property/allocations.hpp"

#include <posenc/xpos.hpp>

#include <posenc/attention.hpp>
#include <posenc/masks.hpp>
#include <posenc/rope_axes.hpp>
#include <posenc/rope_move.hpp>

#include <cmath>
#include <complex>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <vector>

#include "../catch.hpp"
#include "../support.hpp"

using namespace posenc;
using support::message_of;

static_assert(QueryKeyEncoding<XPos, float> && QueryKeyEncoding<XPos, double> && QueryKeyEncoding<XPos, Eigen::half>);
static_assert(is_relative<XPos> && !preserves_norm<XPos>);

namespace {

Rope interleaved_rope(Index dim) { return Rope({.head_dim = dim, .layout = PairLayout::interleaved}); }

/// The score of a query at m and a key at n from the paper's sum over pairs, in long double. Interleaved.
long double score(const Eigen::VectorXd& q, const Eigen::VectorXd& k, std::int64_t distance, double scale_base) {
  const auto r = static_cast<long double>(q.size());
  long double sum = 0;
  for (Index i = 0; i < q.size() / 2; ++i) {
    const long double frequency = std::pow(10000.0L, -2 * static_cast<long double>(i) / r);
    const long double angle = static_cast<long double>(distance) * frequency;
    const long double decay = (2 * static_cast<long double>(i) + 0.4L * r) / (1.4L * r);
    const long double qa = q(2 * i), qb = q(2 * i + 1), ka = k(2 * i), kb = k(2 * i + 1);
    const long double turned_a = qa * std::cos(angle) - qb * std::sin(angle);
    const long double turned_b = qb * std::cos(angle) + qa * std::sin(angle);
    sum += std::pow(decay, static_cast<long double>(distance) / scale_base) * (turned_a * ka + turned_b * kb);
  }
  return sum;
}

template <class Scalar>
Matrix<Scalar> as_queries(const XPos& xpos, Matrix<Scalar> x, const Positions& positions) {
  xpos.apply_query(x, positions);
  return x;
}
template <class Scalar>
Matrix<Scalar> as_keys(const XPos& xpos, Matrix<Scalar> x, const Positions& positions) {
  xpos.apply_key(x, positions);
  return x;
}

}  // namespace

TEST_CASE("XPos: the decay of a pair", "[xpos]") {
  const XPos xpos(interleaved_rope(8));
  const double expected[] = {3.2 / 11.2, 5.2 / 11.2, 7.2 / 11.2, 9.2 / 11.2};
  for (Index i = 0; i < 4; ++i) CHECK(std::abs(xpos.decay(i) - expected[i]) < 1e-15);
  const XPos usual(interleaved_rope(128));
  CHECK(std::abs(usual.decay(0) - 0.2857142857142857) < 1e-15);
  // the picture of the doc comment
  const Index pairs[] = {0, 16, 32, 63};
  const double once[] = {0.286, 0.464, 0.643, 0.989}, four_times[] = {0.007, 0.046, 0.171, 0.956};
  for (std::size_t i = 0; i < 4; ++i) {
    CHECK(std::abs(usual.decay(pairs[i]) - once[i]) <= 0.0005);
    CHECK(std::abs(std::pow(usual.decay(pairs[i]), 4) - four_times[i]) <= 0.0005);
  }
}

TEST_CASE("XPos: rotation times a power of the decay, and its reciprocal", "[xpos]") {
  const double scale_base = GENERATE(512.0, 64.0);
  const std::int64_t center = GENERATE(0, 3, -100);
  const Rope rope({.head_dim = 12, .rotary_dim = 8});
  const XPos xpos(rope, {.scale_base = scale_base, .center = center});
  const auto x = support::random_matrix<double>(12, 4);
  const std::vector<std::int64_t> at{-30, 0, 3, 250};
  Matrix<double> turned = x;
  rope(turned, at);
  const auto queries = as_queries(xpos, x, at), keys = as_keys(xpos, x, at);
  for (Index t = 0; t < 4; ++t)
    for (Index i = 0; i < 12; ++i) {
      const double power = static_cast<double>(at[static_cast<std::size_t>(t)] - center) / scale_base;
      const double scale = i < 8 ? std::pow(xpos.decay(i % 4), power) : 1;
      CHECK(std::abs(queries(i, t) - turned(i, t) * scale) <= 1e-15 * std::abs(turned(i, t)) * scale);
      CHECK(std::abs(keys(i, t) - turned(i, t) / scale) <= 1e-15 * std::abs(turned(i, t)) / scale);
    }
}

TEST_CASE("XPos: scores go by the distance, wherever the tokens and the centre are", "[xpos]") {
  const auto q = support::random_matrix<double>(16, 3, 1), k = support::random_matrix<double>(16, 7, 2);
  for (const std::int64_t first : {0, 1000, -20000, 30000})
    for (const std::int64_t center : {std::int64_t{0}, first}) {
      CAPTURE(first, center);
      const XPos xpos(interleaved_rope(16), {.center = center});
      const auto at_queries = positions(3, first + 4), at_keys = positions(7, first);
      const Matrix<double> scores = as_keys(xpos, k, at_keys).transpose() * as_queries(xpos, q, at_queries);
      const Matrix<float> in_float = as_keys<float>(xpos, k.cast<float>(), at_keys).transpose() *
                                     as_queries<float>(xpos, q.cast<float>(), at_queries);
      for (Index query = 0; query < 3; ++query)
        for (Index key = 0; key <= query + 4; ++key) {
          const auto expected =
              static_cast<double>(score(q.col(query), k.col(key), at_queries[query] - at_keys[key], 512));
          const double size = q.col(query).norm() * k.col(key).norm();
          CHECK(std::abs(scores(key, query) - expected) < 1e-14 * size);
          CHECK(std::abs(static_cast<double>(in_float(key, query)) - expected) < 1e-6 * size);
        }
    }
}

TEST_CASE("XPos: keys of a cache that grows fit the queries that come later", "[xpos]") {
  const Index num_tokens = 40;
  const auto q = support::random_matrix<float>(8, num_tokens, 1), k = support::random_matrix<float>(8, num_tokens, 2),
             v = support::random_matrix<float>(4, num_tokens, 3);
  const XPos xpos(Rope({.head_dim = 8}), {.center = 7});
  const Matrix<float> all = attend(q, k, v, positions(num_tokens), xpos, CausalMask{});
  Matrix<float> cached(8, 0);
  for (Index t = 0; t < num_tokens; ++t) {  // token by token: every key is rotated once, when it comes
    cached.conservativeResize(Eigen::NoChange, t + 1);
    cached.col(t) = k.col(t);
    xpos.apply_key(cached.col(t), positions(1, t));
    Matrix<float> query = q.col(t);
    xpos.apply_query(query, positions(1, t));
    const AttentionOptions options{.query_positions = positions(1, t), .key_positions = positions(t + 1)};
    CHECK(support::distance(attend(query, cached, v.leftCols(t + 1), options), all.col(t)) < 1e-6);
  }
  CHECK(support::same_bits(cached, as_keys(xpos, k, positions(num_tokens))));
}

TEST_CASE("XPos: 65536 tokens in float, with the centre in the middle", "[xpos]") {
  const Index num_tokens = 65536;
  const XPos xpos(interleaved_rope(8), {.center = num_tokens / 2});
  const auto q = support::random_matrix<float>(8, num_tokens, 1), k = support::random_matrix<float>(8, num_tokens, 2);
  const auto queries = as_queries(xpos, q, positions(num_tokens)), keys = as_keys(xpos, k, positions(num_tokens));
  CHECK(queries.allFinite());
  CHECK(keys.allFinite());
  for (const Index query : {0, 1, 1000, 32767, 32768, 50000, 65535})
    for (const Index distance : {0, 1, 7, 100, 511, 2000, 20000, 65535}) {
      const Index key = query - distance;
      if (key < 0) continue;
      CAPTURE(query, key);
      const double got = queries.col(query).cast<double>().dot(keys.col(key).cast<double>());
      const auto expected =
          static_cast<double>(score(q.col(query).cast<double>(), k.col(key).cast<double>(), distance, 512));
      const double size = q.col(query).norm() * k.col(key).norm();
      CHECK(std::abs(got - expected) < 4e-7 * size * std::pow(xpos.decay(3), static_cast<double>(distance) / 512));
      Matrix<double> q_double = q.col(query).cast<double>(), k_double = k.col(key).cast<double>();
      xpos.apply_query(q_double, positions(1, query));
      xpos.apply_key(k_double, positions(1, key));
      CHECK(std::abs(q_double.col(0).dot(k_double.col(0)) - expected) < 1e-14 * size);
    }
}

TEST_CASE("XPos: a position that is too far from the centre is an error, and nothing is written", "[xpos]") {
  const XPos xpos(interleaved_rope(8), {.center = 100});
  const auto farthest = [&]<class Scalar>(Scalar) {  // by bisection
    std::int64_t fine = 0, far = 10000000;
    while (far - fine > 1) {
      const std::int64_t middle = (fine + far) / 2;
      Matrix<Scalar> x = Matrix<Scalar>::Ones(8, 1);
      const auto at = positions(1, 100 + middle);
      (message_of<std::out_of_range>([&] { xpos.apply_key(x, at); }) == "accepted" ? fine : far) = middle;
    }
    Matrix<Scalar> x = Matrix<Scalar>::Ones(8, 1);
    xpos.apply_key(x, positions(1, 100 + fine));
    CHECK(x.template cast<float>().array().isFinite().all());
    xpos.apply_key(x = Matrix<Scalar>::Ones(8, 1), positions(1, 100 - fine));
    return fine;
  };
  CHECK(farthest(0.0f) == 35127);  // "35 thousand tokens"
  CHECK(farthest(Eigen::half()) == 3399);
  CHECK(farthest(Eigen::bfloat16()) > 35000);

  const auto before = support::random_matrix<float>(8, 2);
  Matrix<float> x = before;
  const std::vector<std::int64_t> far{0, 65535};
  CHECK(message_of<std::out_of_range>([&] { xpos.apply_query(x, far); }) ==
        "posenc::XPos: a position must be near enough to the centre for the scalar, got 65535");
  CHECK(message_of<std::out_of_range>([&] {
          xpos.apply_key(x, positions(2, std::numeric_limits<std::int64_t>::min()));
        }) == "posenc::XPos: a position must be near enough to the centre for the scalar, got -9223372036854775808");
  CHECK(support::same_bits(x, before));
  Matrix<double> wide = Matrix<double>::Ones(8, 2);
  xpos.apply_query(wide, far);
  CHECK(wide.allFinite());
}

TEST_CASE("XPos::move_keys: another centre, other positions, another magnitude", "[xpos]") {
  const Index num_tokens = 50;
  const auto k = support::random_matrix<double>(16, num_tokens);
  const XPos old(Rope({.head_dim = 8}), {.center = 1000});
  const XPos recentred(Rope({.head_dim = 8}), {.center = 31000});
  const auto at = positions(num_tokens, 30000), shifted = positions(num_tokens, 29000);
  const auto compare = [&](const XPos& to, const Positions& where) {
    Matrix<double> moved = as_keys(old, k, at);
    old.move_keys(moved, at, to, where);
    const auto expected = as_keys(to, k, where);
    for (Index t = 0; t < num_tokens; ++t)
      for (Index i = 0; i < 16; ++i) {  // the error is that of a pair, whose decay is its own
        const Index first = i / 8 * 8 + i % 4;
        const double pair = std::hypot(expected(first, t), expected(first + 4, t));
        CHECK(std::abs(moved(i, t) - expected(i, t)) < 4e-15 * pair * 8);
      }
    Matrix<float> in_float = as_keys<float>(old, k.cast<float>(), at);
    old.move_keys(in_float, at, to, where);
    CHECK(support::distance(in_float.cwiseQuotient(expected.cast<float>()).cwiseAbs().cwiseMin(2),
                            Matrix<float>::Ones(16, num_tokens)) < 1e-3);
  };
  compare(recentred, at);
  compare(old, shifted);
  compare(recentred, shifted);
  compare(
      XPos(Rope({.values = rope_frequencies(8, 500000).values, .magnitude = 1.25}, {.head_dim = 8}), {.center = 31000}),
      shifted);

  // What it is for: queries of the new centre have the scores that they had.
  const auto q = support::random_matrix<float>(8, 3, 9), few = support::random_matrix<float>(8, 6, 8);
  const auto later = positions(3, 30050);
  Matrix<float> keys = as_keys(old, few, positions(6, 30044));
  const Matrix<float> before = keys.transpose() * as_queries(old, q, later);
  old.move_keys(keys, positions(6, 30044), recentred, positions(6, 30044));
  CHECK(support::distance(keys.transpose() * as_queries(recentred, q, later), before) < 1e-5);
}

TEST_CASE("MovableKeys of XPos: n moves are one move, to the bit", "[xpos]") {
  const XPos old(Rope({.head_dim = 8}), {.center = 1000}), recentred(Rope({.head_dim = 8}), {.center = 1200});
  const auto at = positions(6, 900), there = positions(6, 1300);
  const Matrix<float> stored = as_keys(old, support::random_matrix<float>(16, 6), at);
  MovableKeys<float, XPos> often(stored, old, at);
  for (std::int64_t n = 0; n < 50; ++n) {
    often.move_to(positions(6, 40 * n));
    often.move_to(XPos(Rope({.head_dim = 8}), {.center = 30 * n}), positions(6, 20 * n));
  }
  often.move_to(recentred, there);
  Matrix<float> once = stored;
  move_keys(once, old, at, recentred, there);
  CHECK(support::same_bits(often.keys(), once));
  often.move_to(at);
  CHECK(support::same_bits(often.keys(), stored));  // home again
}

TEST_CASE("XPos::move_keys: errors", "[xpos]") {
  using Invalid = std::invalid_argument;
  const XPos xpos(Rope({.head_dim = 8}));
  const auto before = support::random_matrix<float>(8, 2);
  Matrix<float> x = before;
  const auto message = [&](const XPos& to, const Positions& old_positions, const Positions& new_positions) {
    return message_of<Invalid>([&] { xpos.move_keys(x, old_positions, to, new_positions); });
  };
  CHECK(message(XPos(Rope({.head_dim = 8}), {.scale_base = 64}), positions(2), positions(2)) ==
        "posenc::XPos: scale_base must be the same on both sides of a move, got 64");
  CHECK(message(xpos, positions(2), positions(3)) ==
        "posenc::XPos: new positions must be as many as the old ones = 2, got 3");
  CHECK(message(xpos, positions(3), positions(3)) ==
        "posenc::XPos: columns must be the number of positions = 3, got 2");
  CHECK(message(XPos(interleaved_rope(8)), positions(2), positions(2)) ==
        "posenc::XPos: both sides must rotate the same features, got 8");
  CHECK(message(XPos(Rope({.head_dim = 8, .num_rotary_heads = 1})), positions(2), positions(2)) ==
        "posenc::XPos: both sides must rotate the same heads, got 1");
  CHECK(message_of<std::out_of_range>([&] { xpos.move_keys(x, positions(2), xpos, positions(2, 65536)); }) ==
        "posenc::XPos: a position must be near enough to the centre for the scalar, got 65536");
  CHECK(message_of<std::out_of_range>([&] { xpos.move_keys(x, positions(2, 65536), xpos, positions(2)); }) ==
        "posenc::XPos: a position must be near enough to the centre for the scalar, got 65536");
  CHECK(support::same_bits(x, before));
}

TEST_CASE("XPos: what does not fit", "[xpos]") {
  using Invalid = std::invalid_argument;
  constexpr double infinity = std::numeric_limits<double>::infinity();
  const Rope rope({.head_dim = 8});
  CHECK(message_of<Invalid>([&] { XPos(rope, {.scale_base = 0}); }) ==
        "posenc::XPos: scale_base must be positive and finite, got 0");
  CHECK(message_of<Invalid>([&] { XPos(rope, {.scale_base = infinity}); }) ==
        "posenc::XPos: scale_base must be positive and finite, got inf");
  CHECK(message_of<Invalid>([&] {
          XPos(Rope({.head_dim = 8, .layout = PairLayout::interleaved, .output_layout = PairLayout::half_split}));
        }).starts_with("posenc::XPos: the Rope must have one layout"));
  const XPos xpos(rope);
  const auto before = support::random_matrix<float>(12, 2);
  Matrix<float> x = before;
  CHECK(message_of<Invalid>([&] { xpos.apply_query(x, positions(2)); }) ==
        "posenc::XPos: features of a column must be a multiple of head_dim = 8, got 12");
  CHECK(message_of<Invalid>([&] { xpos.apply_key(x.topRows(8), positions(3)); }) ==
        "posenc::XPos: columns must be the number of positions = 3, got 2");
  CHECK(support::same_bits(x, before));
}

TEST_CASE("XPos: heads, features that stay, orders, complex numbers, small scalars, no allocation", "[xpos]") {
  const Rope rope({.head_dim = 10, .rotary_dim = 6, .rotary_offset = 2, .num_rotary_heads = 2});
  const XPos xpos(rope, {.center = 5});
  const auto x = support::random_matrix<float>(30, 5);
  Matrix<float> whole = x;
  Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> row_major = x;
  Matrix<Eigen::half> half = x.cast<Eigen::half>();
  Matrix<Eigen::bfloat16> bfloat = x.cast<Eigen::bfloat16>();
  CHECK_FALSE(laws::allocates([&] {
    xpos.apply_key(whole, positions(5, 90));
    xpos.apply_key(row_major, positions(5, 90));
    xpos.apply_key(half, positions(5, 90));
    xpos.apply_key(bfloat, positions(5, 90));
  }));
  CHECK(support::same_bits(whole, row_major));
  CHECK(support::same_bits(whole.bottomRows(10), x.bottomRows(10)));  // the third head stays
  for (const Index i : {0, 1, 8, 9, 10, 11, 18, 19}) CHECK(support::same_bits(whole.row(i), x.row(i)));
  CHECK(support::distance(half, whole) < 8e-3);
  CHECK(support::distance(bfloat, whole) < 7e-2);
  Matrix<float> head = x.middleRows(10, 10);
  xpos.apply_key(head, positions(5, 90), /*head=*/1);
  CHECK(support::same_bits(head, whole.middleRows(10, 10)));
  head = x.bottomRows(10);
  xpos.apply_key(head, positions(5, 90), /*head=*/2);
  CHECK(support::same_bits(head, x.bottomRows(10)));

  const XPos pairs(interleaved_rope(6));
  const auto z = support::random_matrix<std::complex<double>>(3, 4);
  Matrix<std::complex<double>> turned = z;
  pairs.apply_query(turned, positions(4, 20));
  for (Index t = 0; t < 4; ++t)
    for (Index i = 0; i < 3; ++i) {
      const double angle = static_cast<double>(20 + t) * pairs.rope().frequencies().values[i];
      const double scale = std::pow(pairs.decay(i), static_cast<double>(20 + t) / 512);
      CHECK(std::abs(turned(i, t) - z(i, t) * std::polar(scale, angle)) < 1e-15 * 4);
    }
  Matrix<float> none(30, 0);
  xpos.apply_query(none, positions(0));
}

TEST_CASE("XPos of several axes", "[xpos]") {
  RopeFrequencies frequencies = rope_frequencies(8);
  frequencies.axes = mrope_chunks({1, 1, 2});
  const XPos xpos(Rope(frequencies, {.head_dim = 8}), {.center = 2});
  const std::vector<std::int64_t> entries{1, 50, 2, 60, 3, 70};
  const auto at = Positions::axes(entries, 3);
  const auto x = support::random_matrix<double>(8, 2);
  const auto got = as_queries(xpos, x, at);
  for (Index axis = 0; axis < 3; ++axis) {  // as with this axis alone
    const auto alone = as_queries(xpos, x, at.axis(axis));
    for (Index i = 0; i < 4; ++i)
      if (frequencies.axes[static_cast<std::size_t>(i)] == axis) {
        CHECK(support::same_bits(got.row(i), alone.row(i)));
        CHECK(support::same_bits(got.row(i + 4), alone.row(i + 4)));
      }
  }
  Matrix<double> wrong = x;
  CHECK(message_of<std::invalid_argument>([&] {
          xpos.apply_query(wrong, Positions::axes(std::vector<std::int64_t>{1, 2, 3, 4}, 2));
        }) == "posenc::XPos: an axis must be an axis of the positions, got 2");
}
