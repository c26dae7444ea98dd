// SPDX-License-Identifier: MIT
#pragma once

// Laws of attention with a pack of encodings: what holds for each of them must hold for all of them together.

#include "calls.hpp"

#include <posenc/attention.hpp>

#include <Eigen/Core>
#include <array>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <random>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

namespace laws {

/// Encodings that are used together.
template <class... Encodings>
class Pack {
 public:
  explicit Pack(Encodings... encodings) : encodings_(std::move(encodings)...) {}

  template <class Q, class K, class V>
  auto attend(const Q& q, const K& k, const V& v, const Place& at) const {
    return std::apply([&](const auto&... e) { return posenc::attend(q, k, v, options(at), e...); }, encodings_);
  }
  template <class Q, class K>
  auto weights(const Q& q, const K& k, const Place& at) const {
    return std::apply([&](const auto&... e) { return posenc::attention_weights(q, k, options(at), e...); }, encodings_);
  }

 private:
  static posenc::AttentionOptions options(const Place& at) {
    return {.query_positions = at.queries, .key_positions = at.keys, .head = at.head, .kv_head = at.head};
  }

  std::tuple<Encodings...> encodings_;
};

/// A pack and where it may be tried.
///
/// Scores of 8 features are off by less than 60 eps and biases of tokens this near to each other by as much: so are
/// weights, relatively, and outputs, which are means of numbers up to 1. `bound` is in eps.
template <class P>
struct PackSubject {
  P pack;
  Limits limits = {.queries_near_keys = true};
  bool by_token = false;
  double bound = 300;
};

template <class Scalar>
struct Tokens {
  Matrix<Scalar> q, k, v;

  explicit Tokens(const Case& c)
      : q(random_matrix<Scalar>(8, static_cast<Index>(c.query_positions.size()), c.seed)),
        k(random_matrix<Scalar>(8, static_cast<Index>(c.key_positions.size()), c.seed + 1)),
        v(random_matrix<Scalar>(8, static_cast<Index>(c.key_positions.size()), c.seed + 2)) {}
};

template <class Scalar, class A, class B, class P>
Verdict same_outputs(const PackSubject<P>& subject, const A& a, const B& b, const char* otherwise) {
  const Matrix<double> bound = Matrix<double>::Constant(1, 1, subject.bound * epsilon<Scalar>());
  return close(a.template cast<double>(), b.template cast<double>(), bound) ? Verdict() : Verdict(otherwise);
}

/// All positions shifted by any amount: the same outputs. For packs in which all are relative.
template <class Scalar, class P>
Verdict attention_is_relative(const PackSubject<P>& subject, const Case& c) {
  const Case moved = shifted(c);
  const Tokens<Scalar> x(c);
  return same_outputs<Scalar>(subject, subject.pack.attend(x.q, x.k, x.v, place(c)),
                              subject.pack.attend(x.q, x.k, x.v, place(moved)),
                              "outputs depend on where the tokens are");
}

/// Keys and values in another order with their positions: the same outputs.
template <class Scalar, class P>
Verdict order_of_keys_does_not_matter(const PackSubject<P>& subject, const Case& c) {
  const Tokens<Scalar> x(c);
  std::mt19937_64 engine(c.seed);
  Case permuted = c;
  Matrix<Scalar> k = x.k, v = x.v;
  for (Index last = k.cols() - 1; last > 0; --last) {
    const auto other = static_cast<Index>(engine() % static_cast<std::uint64_t>(last + 1));
    k.col(last).swap(k.col(other));
    v.col(last).swap(v.col(other));
    std::swap(permuted.key_positions[static_cast<std::size_t>(last)],
              permuted.key_positions[static_cast<std::size_t>(other)]);
  }
  return same_outputs<Scalar>(subject, subject.pack.attend(x.q, x.k, x.v, place(c)),
                              subject.pack.attend(x.q, k, v, place(permuted)), "the order of the keys matters");
}

/// Queries one at a time, as behind a KV cache: the same outputs.
template <class Scalar, class P>
Verdict one_query_at_a_time(const PackSubject<P>& subject, const Case& c) {
  const Tokens<Scalar> x(c);
  const Place at = place(c);
  Matrix<Scalar> outputs(x.v.rows(), x.q.cols());
  for (Index query = 0; query < x.q.cols(); ++query)
    outputs.col(query) = subject.pack.attend(x.q.col(query), x.k, x.v, at.tile(0, at.keys.size(), query, 1));
  return same_outputs<Scalar>(subject, outputs, subject.pack.attend(x.q, x.k, x.v, at), "queries see each other");
}

/// Each column of the weights is a distribution, or zeros where a query sees nothing.
template <class Scalar, class P>
Verdict weights_are_distributions(const PackSubject<P>& subject, const Case& c) {
  const Tokens<Scalar> x(c);
  const Matrix<Scalar> weights = subject.pack.weights(x.q, x.k, place(c));
  if (!(weights.array() >= 0).all()) return Verdict("a weight is negative, or not a number");
  for (Index query = 0; query < weights.cols(); ++query) {
    const auto sum = static_cast<double>(weights.col(query).sum());
    if (sum != 0 && std::abs(sum - 1) > 40 * epsilon<Scalar>()) return Verdict("weights do not sum to 1");
  }
  return {};
}

/// Row-major matrices, blocks and expressions are read as what they are.
template <class Scalar, class P>
Verdict every_input_view(const PackSubject<P>& subject, const Case& c) {
  using RowMajor = Eigen::Matrix<Scalar, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const Tokens<Scalar> x(c);
  Matrix<Scalar> larger = Matrix<Scalar>::Constant(10, x.k.cols() + 1, std::numeric_limits<Scalar>::quiet_NaN());
  larger.block(1, 1, 8, x.k.cols()) = x.k;
  const auto a = subject.pack.attend(x.q, x.k, x.v, place(c));
  const auto b = subject.pack.attend(RowMajor(x.q), larger.block(1, 1, 8, x.k.cols()), x.v * Scalar(1), place(c));
  return same_outputs<Scalar>(subject, a, b, "views are read otherwise than plain matrices");
}

template <class P>
Verdict attention_in_float_is_double(const PackSubject<P>& subject, const Case& c) {
  const Tokens<float> x(c);
  const Tokens<double> y(c);
  return same_outputs<float>(subject, subject.pack.attend(x.q, x.k, x.v, place(c)),
                             subject.pack.attend(y.q, y.k, y.v, place(c)), "float is not double, rounded");
}

template <class Scalar, class P>
Verdict attention_in_threads(const PackSubject<P>& subject, const Case& c) {
  const Tokens<Scalar> x(c);
  std::array<Matrix<Scalar>, 2> outputs;
  const auto run = [&](Matrix<Scalar>& out) { out = subject.pack.attend(x.q, x.k, x.v, place(c)); };
  std::thread other(run, std::ref(outputs[1]));
  run(outputs[0]);
  other.join();
  return same_bits(outputs[0], outputs[1]) ? Verdict() : Verdict("two threads get different bits");
}

}  // namespace laws
