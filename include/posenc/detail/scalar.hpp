// SPDX-License-Identifier: MIT
#pragma once

// Storage and arithmetic: half and bfloat16 are stored, and computed with in float.

#include <Eigen/Core>
#include <complex>
#include <type_traits>

namespace posenc::inline v0::detail {

template <class Scalar>
struct Compute {
  using type = Scalar;
};
template <>
struct Compute<Eigen::half> {
  using type = float;
};
template <>
struct Compute<Eigen::bfloat16> {
  using type = float;
};

/// The real scalar that arithmetic on matrices of Scalar is done in.
template <class Scalar>
using compute_t = typename Compute<typename Eigen::NumTraits<Scalar>::Real>::type;

template <class Scalar>
inline constexpr bool is_complex = Eigen::NumTraits<Scalar>::IsComplex;

/// x += value, in the arithmetic of x.
template <class Scalar, class Value>
void add(Scalar& x, Value value) {
  x = static_cast<Scalar>(static_cast<compute_t<Scalar>>(x) + static_cast<compute_t<Scalar>>(value));
}

}  // namespace posenc::inline v0::detail
