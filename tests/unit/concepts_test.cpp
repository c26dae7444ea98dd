// SPDX-License-Identifier: MIT

// An encoding of the user's own: a struct with a member function. What the concepts accept and reject at compile time
// is in static/concepts_test.cpp; here such types do their work.

#include <posenc/concepts.hpp>

#include <posenc/attention.hpp>

#include <Eigen/Core>
#include <cmath>
#include <cstdint>
#include <type_traits>

#include "../catch.hpp"

using namespace posenc;

namespace {

/// A bias with a plain Eigen::Ref signature, for float alone.
struct PreferEven {
  void add_bias(Eigen::Ref<Eigen::MatrixXf> scores, const Positions& keys, const Positions& queries, Index) const {
    for (Index query = 0; query < queries.size(); ++query)
      for (Index key = 0; key < keys.size(); ++key)
        if (keys[key] % 2 != 0) scores(key, query) -= 1000;
  }
};

/// The same as a template, for every scalar.
struct PreferEvenTemplate {
  template <MutableDense Scores>
  void add_bias(Scores&& scores, const Positions& keys, const Positions&, Index) const {
    for (Index key = 0; key < keys.size(); ++key)
      if (keys[key] % 2 != 0) scores.row(key).array() -= typename std::remove_cvref_t<Scores>::Scalar(1000);
  }
};

/// Two hooks in one type: turns features round in queries and keys, and hides a key from itself.
struct TwoHooks {
  static constexpr bool preserves_norm = true;

  void apply_query(Eigen::Ref<Eigen::MatrixXf> x, const Positions&, Index) const { x.colwise().reverseInPlace(); }
  void apply_key(Eigen::Ref<Eigen::MatrixXf> x, const Positions&, Index) const { x.colwise().reverseInPlace(); }
  void add_bias(Eigen::Ref<Eigen::MatrixXf> scores, const Positions&, const Positions&, Index) const {
    scores.diagonal().array() -= 1000;
  }
};

static_assert(ScoreBias<PreferEven> && !ScoreBias<PreferEven, double> && ScoreBias<PreferEvenTemplate, double>);
static_assert(QueryKeyEncoding<TwoHooks> && ScoreBias<TwoHooks> && !ScoreTerm<TwoHooks>);
static_assert(preserves_norm<TwoHooks> && !is_relative<TwoHooks> && !preserves_norm<PreferEven>);

}  // namespace

TEST_CASE("A type with the right member function plugs in", "[concepts]") {
  const Eigen::MatrixXf q = Eigen::MatrixXf::Random(4, 3), k = Eigen::MatrixXf::Random(4, 6);
  const AttentionOptions at{.query_positions = positions(3), .key_positions = positions(6)};
  const Eigen::MatrixXf w = attention_weights(q, k, at, PreferEven{});
  for (Index key = 1; key < 6; key += 2) CHECK(w.row(key).isZero(0));
  CHECK(w == attention_weights(q, k, at, PreferEvenTemplate{}));
}

TEST_CASE("A type with several hooks acts in each of them", "[concepts]") {
  const Eigen::MatrixXf q = Eigen::MatrixXf::Random(4, 3), k = Eigen::MatrixXf::Random(4, 3);
  const AttentionOptions at{.query_positions = positions(3), .key_positions = positions(3)};
  const Eigen::MatrixXf reversed_q = q.colwise().reverse(), reversed_k = k.colwise().reverse();
  Eigen::MatrixXf scores = reversed_k.transpose() * reversed_q / 2;
  scores.diagonal().array() -= 1000;
  softmax_columns(scores);
  CHECK(scores.isApprox(attention_weights(q, k, at, TwoHooks{})));
}

TEST_CASE("Matrices of this library are column-major, whatever Eigen's default is", "[concepts]") {
  STATIC_REQUIRE(!Matrix<float>::IsRowMajor);
  Matrix<float> x(2, 3);
  x << 1, 2, 3,  //
      4, 5, 6;
  CHECK(x.data()[1] == 4);
}
