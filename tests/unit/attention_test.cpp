// SPDX-License-Identifier: MIT

#include <posenc/attention.hpp>

#include <posenc/alibi.hpp>
#include <posenc/clipped_relative.hpp>
#include <posenc/masks.hpp>
#include <posenc/rope.hpp>

#include <Eigen/Core>
#include <cmath>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <type_traits>
#include <vector>

#include "../catch.hpp"

using namespace posenc;
using Catch::Matchers::Message;

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

/// Attention in plain loops. `bias` has what is added to the scaled scores.
Matrix<double> naive_weights(const Matrix<double>& q, const Matrix<double>& k, double scale,
                             const Matrix<double>& bias) {
  Matrix<double> w(k.cols(), q.cols());
  for (Index m = 0; m < q.cols(); ++m) {
    double sum = 0;
    for (Index n = 0; n < k.cols(); ++n) {
      double score = 0;
      for (Index i = 0; i < q.rows(); ++i) score += k(i, n) * q(i, m);
      w(n, m) = std::exp(scale * score + bias(n, m));
      sum += w(n, m);
    }
    for (Index n = 0; n < k.cols(); ++n) w(n, m) = sum > 0 ? w(n, m) / sum : 0;
  }
  return w;
}

Matrix<double> naive_outputs(const Matrix<double>& v, const Matrix<double>& w) {
  Matrix<double> o = Matrix<double>::Zero(v.rows(), w.cols());
  for (Index m = 0; m < w.cols(); ++m)
    for (Index n = 0; n < w.rows(); ++n)
      for (Index i = 0; i < v.rows(); ++i) o(i, m) += v(i, n) * w(n, m);
  return o;
}

struct Heads {
  Matrix<double> q, k, v;
  explicit Heads(Index num_queries = 4, Index num_keys = 7)
      : q(Matrix<double>::Random(6, num_queries)),
        k(Matrix<double>::Random(6, num_keys)),
        v(Matrix<double>::Random(3, num_keys)) {}

  AttentionOptions at(std::int64_t first_query = 0) const {
    return {.query_positions = positions(q.cols(), first_query), .key_positions = positions(k.cols())};
  }
};

}  // namespace

TEST_CASE("Attention without encodings is the formula", "[attention]") {
  const Heads x;
  const Matrix<double> w = naive_weights(x.q, x.k, 1 / std::sqrt(6.0), Matrix<double>::Zero(7, 4));
  CHECK(attention_weights(x.q, x.k, x.at()).isApprox(w, 1e-14));
  const auto o = attend(x.q, x.k, x.v, x.at());
  STATIC_REQUIRE(std::is_same_v<decltype(o), const Matrix<double>>);
  CHECK(o.isApprox(naive_outputs(x.v, w), 1e-14));
  CHECK(o.rows() == 3);
  CHECK(o.cols() == 4);
}

TEST_CASE("The scale is 1/sqrt(D) unless one is given", "[attention]") {
  const Heads x;
  auto at = x.at();
  at.scale = 2.5;
  CHECK(attention_weights(x.q, x.k, at).isApprox(naive_weights(x.q, x.k, 2.5, Matrix<double>::Zero(7, 4)), 1e-13));
  at.scale = -1;
  CHECK(attention_weights(x.q, x.k, at).isApprox(naive_weights(x.q, x.k, -1, Matrix<double>::Zero(7, 4)), 1e-13));
}

TEST_CASE("Every kind of encoding acts in its place", "[attention]") {
  const Heads x;
  auto at = x.at(3);
  at.head = 1;
  const Rope rope({.head_dim = 6});
  const ClippedRelative<double> relative(Matrix<double>::Random(6, 5), Matrix<double>::Random(3, 5));
  const Alibi alibi(2);

  Matrix<double> q = x.q, k = x.k;
  rope(q, at.query_positions);
  rope(k, at.key_positions);
  const double scale = 1 / std::sqrt(6.0);
  Matrix<double> bias = Matrix<double>::Zero(7, 4);
  relative.add_scores(bias, x.k, x.q, at.key_positions, at.query_positions);  // from what is not rotated
  bias *= scale;
  alibi(bias, at.key_positions, at.query_positions, 1);
  CausalMask{}(bias, at.key_positions, at.query_positions);
  const Matrix<double> w = naive_weights(q, k, scale, bias);
  Matrix<double> o = naive_outputs(x.v, w);
  relative.add_values(o, w, at.key_positions, at.query_positions);

  CHECK(attention_weights(x.q, x.k, at, rope, relative, alibi, CausalMask{}).isApprox(w, 1e-13));
  CHECK(attend(x.q, x.k, x.v, at, rope, relative, alibi, CausalMask{}).isApprox(o, 1e-13));
  // Each has its place, whatever the order in which they are given.
  CHECK(attend(x.q, x.k, x.v, at, CausalMask{}, alibi, relative, rope).isApprox(o, 1e-13));
}

TEST_CASE("Positions alone are those of queries and keys", "[attention]") {
  const Heads x(5, 5);
  const std::vector<std::int64_t> where{4, 0, 0, 9, 2};
  const AttentionOptions at{.query_positions = where, .key_positions = where};
  CHECK(attend(x.q, x.k, x.v, where, Alibi(1)) == attend(x.q, x.k, x.v, at, Alibi(1)));
}

TEST_CASE("A query that may attend to nothing gets zeros", "[attention]") {
  const Heads x;
  const auto at = x.at(-2);  // the first two queries are before all keys
  const Matrix<double> w = attention_weights(x.q, x.k, at, CausalMask{});
  CHECK(w.leftCols(2).isZero(0));
  CHECK(w.rightCols(2).colwise().sum().isApprox(Eigen::RowVector2d(1, 1), 1e-14));
  CHECK(attend(x.q, x.k, x.v, at, CausalMask{}).leftCols(2).isZero(0));
}

TEST_CASE("A key that is hidden has no weight at all", "[attention]") {
  const auto check = [](auto scalar) {
    using Scalar = decltype(scalar);
    for (Index num_keys = 1; num_keys < 20; ++num_keys) {  // tails of packets too
      const Matrix<Scalar> q = Matrix<Scalar>::Random(4, 3), k = Matrix<Scalar>::Random(4, num_keys);
      const AttentionOptions at{.query_positions = positions(3, 4), .key_positions = positions(num_keys)};
      const auto w = attention_weights(q, k, at, CausalMask{});
      for (Index m = 0; m < 3; ++m)
        for (Index n = 0; n < num_keys; ++n) CHECK((w(n, m) == 0) == (n > m + 4));
    }
  };
  check(1.0f);
  check(1.0);
}

TEST_CASE("A weight that would be denormal, or next to it, is 0", "[attention]") {
  const auto check = [](auto scalar) {
    using Scalar = decltype(scalar);
    const Scalar least = std::log(std::numeric_limits<Scalar>::min());
    for (Index rest = 0; rest < 20; ++rest) {  // tails of packets too
      Matrix<Scalar> w = Matrix<Scalar>::Constant(3 + rest, 1, least - 1);
      w.topRows(2) << 0, least + 2;
      softmax_columns(w);
      CHECK(w(0, 0) == 1);
      CHECK(w(1, 0) >= std::numeric_limits<Scalar>::min());
      CHECK(w.bottomRows(1 + rest).isZero(0));
    }
  };
  check(1.0f);
  check(1.0);
}

TEST_CASE("Many queries at a time are each as if it were alone", "[attention]") {
  const Index num_tokens = 300, dim = 4;  // more than one block of them, and not a multiple
  const Matrix<double> q = Matrix<double>::Random(dim, num_tokens), k = Matrix<double>::Random(dim, num_tokens),
                       v = Matrix<double>::Random(dim, num_tokens);
  const ClippedRelative<double> relative(Matrix<double>(Matrix<double>::Random(dim, 7)),
                                         Matrix<double>(Matrix<double>::Random(dim, 7)));
  const Matrix<double> together = attend(q, k, v, positions(num_tokens), relative, Alibi(8), CausalMask{});
  for (Index t = 0; t < num_tokens; ++t) {
    const AttentionOptions at{.query_positions = positions(1, t), .key_positions = positions(num_tokens)};
    const Matrix<double> alone = attend(q.col(t), k, v, at, relative, Alibi(8), CausalMask{});
    REQUIRE((together.col(t) - alone).cwiseAbs().maxCoeff() < 1e-13);
  }
}

TEST_CASE("NaN in a token is not hidden", "[attention]") {
  Heads x;
  x.q(2, 1) = std::numeric_limits<double>::quiet_NaN();
  const Matrix<double> w = attention_weights(x.q, x.k, x.at());
  for (Index m = 0; m < 4; ++m) CHECK(w.col(m).hasNaN() == (m == 1));
  x = Heads();
  x.k(0, 3) = std::numeric_limits<double>::quiet_NaN();
  CHECK(attention_weights(x.q, x.k, x.at()).hasNaN());
  CHECK_FALSE(attention_weights(x.q, x.k, x.at(), PaddingMask(std::vector<int>{1, 1, 1, 0, 1, 1, 1})).hasNaN());
}

TEST_CASE("Scores may be as large as they like", "[attention]") {
  Heads x;
  auto at = x.at();
  at.scale = 1e5;
  const Matrix<double> w = attention_weights(x.q, x.k, at);
  CHECK(w.allFinite());
  CHECK(w.colwise().sum().isApproxToConstant(1, 1e-14));
  CHECK(attention_weights(x.q.cast<float>(), x.k.cast<float>(), at).allFinite());
}

TEST_CASE("Queries may be fewer than keys, and behind them", "[attention]") {
  const Heads all(7, 7);
  const Rope rope({.head_dim = 6});
  const auto whole = attend(all.q, all.k, all.v, positions(7), rope, CausalMask{});
  const auto last = attend(all.q.rightCols(1), all.k, all.v,
                           {.query_positions = positions(1, 6), .key_positions = positions(7)}, rope, CausalMask{});
  CHECK(last.isApprox(whole.rightCols(1), 1e-14));
}

TEST_CASE("No queries, and no keys", "[attention]") {
  const Heads none(0, 7), no_keys(4, 0);
  CHECK(attend(none.q, none.k, none.v, none.at(), CausalMask{}).cols() == 0);
  const auto o = attend(no_keys.q, no_keys.k, no_keys.v, no_keys.at(), CausalMask{});
  CHECK((o.rows() == 3 && o.cols() == 4));
  CHECK(o.isZero(0));
}

TEST_CASE("half and bfloat16 are computed with in float", "[attention]") {
  const Heads x;
  const auto check = [&]<class Scalar>(Scalar) {
    const auto q = x.q.cast<float>().cast<Scalar>().eval(), k = x.k.cast<float>().cast<Scalar>().eval(),
               v = x.v.cast<float>().cast<Scalar>().eval();
    const ClippedRelative<Scalar> relative(Matrix<float>::Random(6, 3).cast<Scalar>(),
                                           Matrix<float>::Random(3, 3).cast<Scalar>());
    const auto o = attend(q, k, v, x.at(), Rope({.head_dim = 6}), relative, Alibi(1));
    STATIC_REQUIRE(std::is_same_v<decltype(o), const Matrix<float>>);
    const auto expected = attend(q.template cast<float>(), k.template cast<float>(), v.template cast<float>(), x.at(),
                                 Rope({.head_dim = 6}), relative, Alibi(1));
    CHECK(o.isApprox(expected, 1e-6f));
  };
  check(Eigen::half());
  check(Eigen::bfloat16());
}

TEST_CASE("Any expression may be attended with, and is not changed", "[attention]") {
  const Heads x;
  const auto o = attend(x.q, x.k, x.v, x.at(), Rope({.head_dim = 6}), Alibi(1));
  const Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> q = x.q;
  const Matrix<double> larger =
      (Matrix<double>(8, 7) << Matrix<double>::Zero(1, 7), x.k, Matrix<double>::Zero(1, 7)).finished();
  CHECK(attend(q, larger.middleRows(1, 6), 1.0 * x.v, x.at(), Rope({.head_dim = 6}), Alibi(1)).isApprox(o, 1e-15));
  CHECK(attend(x.q.array(), x.k.array(), x.v.array(), x.at(), Rope({.head_dim = 6}), Alibi(1)).isApprox(o, 1e-15));
  CHECK(attend(x.q.array(), x.k.array(), x.v.array(), x.at()).isApprox(attend(x.q, x.k, x.v, x.at()), 1e-15));
  CHECK(q == x.q);
}

TEST_CASE("A soft cap and a sink", "[attention]") {
  const Heads x;
  auto at = x.at();
  at.scale = 3;
  at.soft_cap = 1.5;
  Matrix<double> scores = x.k.transpose() * x.q * 3;
  for (double& score : scores.reshaped()) score = 1.5 * std::tanh(score / 1.5);
  Matrix<double> expected = scores.array().exp();
  for (Index m = 0; m < 4; ++m) expected.col(m) /= expected.col(m).sum();
  CHECK(attention_weights(x.q, x.k, at).isApprox(expected, 1e-13));

  at.sink = 0.7;
  expected = scores.array().exp();
  for (Index m = 0; m < 4; ++m) expected.col(m) /= expected.col(m).sum() + std::exp(0.7);
  CHECK(attention_weights(x.q, x.k, at).isApprox(expected, 1e-13));
  at.query_positions = positions(4, -4);
  CHECK(attention_weights(x.q, x.k, at, CausalMask{}).isZero(0));
}

TEST_CASE("softmax of columns", "[attention]") {
  Matrix<double> scores(2, 5);
  scores << 0, 1000, -infinity, 1, std::numeric_limits<double>::quiet_NaN(),  //
      std::log(3.0), 1000, -infinity, -infinity, 0;
  softmax_columns(scores);
  CHECK(scores.col(0).isApprox(Eigen::Vector2d(0.25, 0.75), 1e-15));
  CHECK(scores.col(1) == Eigen::Vector2d(0.5, 0.5));
  CHECK(scores.col(2) == Eigen::Vector2d(0, 0));
  CHECK(scores.col(3) == Eigen::Vector2d(1, 0));
  CHECK(scores.col(4).array().isNaN().all());
  Matrix<float> none(0, 3), nothing(3, 0);
  CHECK_NOTHROW(softmax_columns(none));
  CHECK_NOTHROW(softmax_columns(nothing));
}

TEST_CASE("What does not fit is refused", "[attention]") {
  const Heads x;
  const auto refused = [](const Heads& heads, const AttentionOptions& at, const char* message) {
    CHECK_THROWS_MATCHES(attend(heads.q, heads.k, heads.v, at), std::invalid_argument, Message(message));
  };
  Heads bad = x;
  bad.k.conservativeResize(5, 7);
  refused(bad, x.at(), "posenc::attend: rows of the keys must be those of the queries = 6, got 5");
  bad = x;
  bad.v.conservativeResize(3, 6);
  refused(bad, x.at(), "posenc::attend: columns of the values must be those of the keys = 7, got 6");
  refused(x, {.query_positions = positions(3), .key_positions = positions(7)},
          "posenc::attend: columns of the queries must be the number of query positions = 3, got 4");
  refused(x, {.query_positions = positions(4), .key_positions = positions(8)},
          "posenc::attend: columns of the keys must be the number of key positions = 8, got 7");
  auto at = x.at();
  at.scale = infinity;
  refused(x, at, "posenc::attend: scale must be finite, got inf");
  at = x.at();
  at.soft_cap = -1;
  refused(x, at, "posenc::attend: soft_cap must be 0 or positive and finite, got -1");
  at = x.at();
  at.sink = infinity;
  refused(x, at, "posenc::attend: sink must be below infinity, got inf");
  at = x.at();
  at.head = 5;
  CHECK_THROWS_AS(attend(x.q, x.k, x.v, at, Alibi(2)), std::out_of_range);
}
