// SPDX-License-Identifier: MIT
#pragma once

// Laws of rotations: of encodings that turn queries and keys, and keep their lengths. R_p is what the encoding does to a
// vector at position p.

#include "laws.hpp"

#include <Eigen/Core>
#include <algorithm>
#include <complex>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace laws {

/// R_p x, with a position for each column.
template <Hook hook, class Scalar, class E>
Matrix<double> turned(const E& encoding, const Matrix<Scalar>& x, const std::vector<std::int64_t>& positions,
                      Index head) {
  Matrix<Scalar> y = x;
  call<hook>(encoding, y, Inputs<Matrix<Scalar>>(), {.keys = {}, .queries = positions, .head = head});
  return to_double(y);
}

/// Two positions a column, such that their sum and difference are positions as well.
struct TwoPositions {
  std::vector<std::int64_t> a, b, sum, difference;

  explicit TwoPositions(const Case& c) {
    for (std::size_t t = 0; t < c.query_positions.size(); ++t) {
      a.push_back(c.query_positions[t] / 2);
      b.push_back(c.key_positions.empty() ? 0 : c.key_positions[t % c.key_positions.size()] / 2);
      sum.push_back(a[t] + b[t]);
      difference.push_back(b[t] - a[t]);
    }
  }
};

/// |R_p x| = |x|.
struct LengthStays {
  static constexpr auto name = "|R x| = |x|";

  template <Hook hook, class Scalar, class E>
  static Verdict test(const Subject<E>& subject, const Case& c) {
    const Call<Scalar> given(hook, subject.num_features, c);
    const Matrix<double> before = lengths(to_double(given.out));
    const Matrix<double> after = lengths(turned<hook>(subject.encoding, given.out, c.query_positions, c.head));
    if (close(before, after, 3 * epsilon<Scalar>() * before)) return {};
    return Verdict("the length of a vector changes");
  }
};

/// R_p^T R_p = I.
struct Orthogonal {
  static constexpr auto name = "R^T R = I";

  template <Hook hook, class Scalar, class E>
  static Verdict test(const Subject<E>& subject, const Case& c) {
    const Index n = subject.num_features;
    const Matrix<Scalar> identity = Matrix<Scalar>::Identity(n, n);
    const Matrix<double> bound = Matrix<double>::Constant(1, 1, 6 * epsilon<Scalar>());
    for (std::size_t t = 0; t < std::min<std::size_t>(c.query_positions.size(), 2); ++t) {
      const std::vector<std::int64_t> everywhere(static_cast<std::size_t>(n), c.query_positions[t]);
      const Matrix<double> r = turned<hook>(subject.encoding, identity, everywhere, c.head);
      if (!close(r.transpose() * r, to_double(identity), bound)) return Verdict("a rotation is not orthogonal");
    }
    return {};
  }
};

/// R_a R_b = R_{a + b}: a cached key is moved by one rotation.
struct SumOfPositions {
  static constexpr auto name = "R_a R_b = R_{a+b}";

  template <Hook hook, class Scalar, class E>
  static Verdict test(const Subject<E>& subject, const Case& c) {
    const TwoPositions at(c);
    const Call<Scalar> given(hook, subject.num_features, c);
    Matrix<Scalar> x = given.out;
    call<hook>(subject.encoding, x, given.in, {.keys = {}, .queries = at.b, .head = c.head});
    if (close(turned<hook>(subject.encoding, x, at.a, c.head),
              turned<hook>(subject.encoding, given.out, at.sum, c.head),
              9 * epsilon<Scalar>() * lengths(to_double(given.out))))
      return {};
    return Verdict("two rotations are not the one of the sum");
  }
};

/// <R_a x, R_b y> = <x, R_{b-a} y>.
struct RelativeProduct {
  static constexpr auto name = "<R_a x, R_b y> = <x, R_{b-a} y>";

  template <Hook hook, class Scalar, class E>
  static Verdict test(const Subject<E>& subject, const Case& c) {
    const TwoPositions at(c);
    const Call<Scalar> given(hook, subject.num_features, c);
    const Matrix<double> x = to_double(given.out), y = to_double(given.in.queries);
    const Matrix<double> x_a = turned<Hook::apply_query>(subject.encoding, given.out, at.a, c.head);
    const Matrix<double> y_b = turned<Hook::apply_key>(subject.encoding, given.in.queries, at.b, c.head);
    const Matrix<double> y_difference =
        turned<Hook::apply_key>(subject.encoding, given.in.queries, at.difference, c.head);
    if (close(x_a.cwiseProduct(y_b).colwise().sum(), x.cwiseProduct(y_difference).colwise().sum(),
              9 * epsilon<Scalar>() * lengths(x).cwiseProduct(lengths(y))))
      return {};
    return Verdict("the product depends on more than the difference of positions");
  }
};

// Laws of two encodings, or of more than the hooks: functions of one case.

/// apply_inverse gives back what was rotated.
template <class Scalar, class E>
Verdict inverse_undoes(const Subject<E>& subject, const Case& c) {
  const Call<Scalar> given(Hook::apply_query, subject.num_features, c);
  Matrix<Scalar> x = given.out;
  subject.encoding(x, c.query_positions);
  subject.encoding.apply_inverse(x, c.query_positions);
  if (close(to_double(x), to_double(given.out), 6 * epsilon<Scalar>() * lengths(to_double(given.out)))) return {};
  return Verdict("the inverse gives something else back");
}

/// A column of complex numbers is the interleaved column of their real and imaginary parts.
template <class Scalar, class E, class Complex>
Verdict complex_is_interleaved(const Subject<E>& interleaved, const Complex& complex, const Case& c) {
  const Call<Scalar> given(Hook::apply_query, interleaved.num_features, c);
  Matrix<std::complex<Scalar>> z(given.out.rows() / 2, given.out.cols());
  for (Index t = 0; t < z.cols(); ++t)
    for (Index i = 0; i < z.rows(); ++i) z(i, t) = {given.out(2 * i, t), given.out(2 * i + 1, t)};
  complex.apply_query(z, c.query_positions);
  Matrix<Scalar> parts(given.out.rows(), given.out.cols());
  for (Index t = 0; t < z.cols(); ++t)
    for (Index i = 0; i < z.rows(); ++i) {
      parts(2 * i, t) = z(i, t).real();
      parts(2 * i + 1, t) = z(i, t).imag();
    }
  if (given.agree(result<Hook::apply_query>(interleaved.encoding, given), parts)) return {};
  return Verdict("complex numbers turn otherwise than pairs of real ones");
}

/// In each head of head_dim, of which rotary_dim turn, features 2i and 2i + 1 of the interleaved layout are i and
/// rotary_dim / 2 + i of the half-split one.
template <class Scalar, class E, class F>
Verdict interleaved_is_half_split(const Subject<E>& interleaved, const F& half_split, Index head_dim, Index rotary_dim,
                                  const Case& c) {
  const auto place = [&](Index feature) {
    const Index i = feature % head_dim;
    return i < rotary_dim ? feature - i + i / 2 + i % 2 * (rotary_dim / 2) : feature;
  };
  const Call<Scalar> given(Hook::apply_query, interleaved.num_features, c);
  Matrix<Scalar> permuted = given.out, back = given.out;
  for (Index i = 0; i < permuted.rows(); ++i) permuted.row(place(i)) = given.out.row(i);
  half_split.apply_query(permuted, c.query_positions);
  for (Index i = 0; i < permuted.rows(); ++i) back.row(i) = permuted.row(place(i));
  if (given.agree(result<Hook::apply_query>(interleaved.encoding, given), back)) return {};
  return Verdict("the two layouts are not permutations of each other");
}

}  // namespace laws
