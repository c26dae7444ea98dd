// SPDX-License-Identifier: MIT
#pragma once

// Laws of rotations: of encodings that turn queries and keys, and keep their lengths. R_p is what the encoding does to a
// vector at position p.

#include "laws.hpp"

#include <Eigen/Core>
#include <complex>

namespace laws {

/// |R_p x| = |x|.
struct LengthStays {
  static constexpr auto name = "|R x| = |x|";
  template <class Scalar>
  static Verdict test(const Hooks<Scalar>& hooks, Hook hook, const Case& c);
};

/// R_p^T R_p = I.
struct Orthogonal {
  static constexpr auto name = "R^T R = I";
  template <class Scalar>
  static Verdict test(const Hooks<Scalar>& hooks, Hook hook, const Case& c);
};

/// R_a R_b = R_{a + b}: a cached key is moved by one rotation.
struct SumOfPositions {
  static constexpr auto name = "R_a R_b = R_{a+b}";
  template <class Scalar>
  static Verdict test(const Hooks<Scalar>& hooks, Hook hook, const Case& c);
};

/// <R_a x, R_b y> = <x, R_{b-a} y>.
struct RelativeProduct {
  static constexpr auto name = "<R_a x, R_b y> = <x, R_{b-a} y>";
  template <class Scalar>
  static Verdict test(const Hooks<Scalar>& hooks, Hook hook, const Case& c);
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
