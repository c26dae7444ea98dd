// SPDX-License-Identifier: MIT
#pragma once

// Small things that unit tests share.

#include <posenc/concepts.hpp>

#include <Eigen/Core>
#include <cstdint>
#include <cstring>
#include <exception>
#include <random>
#include <string>
#include <type_traits>

namespace support {

using posenc::Index;
using posenc::Matrix;

/// What an action throws: it must be an Error, and nothing that was derived from it.
template <class Error, class Action>
std::string message_of(const Action& action) {
  try {
    action();
  } catch (const Error& error) {
    return typeid(error) == typeid(Error) ? error.what() : std::string("an error of another type: ") + error.what();
  } catch (const std::exception& error) {
    return std::string("an error of another type: ") + error.what();
  }
  return "accepted";
}

template <class Scalar>
Matrix<Scalar> random_matrix(Index rows, Index cols, std::uint64_t seed = 1) {
  std::mt19937_64 engine(seed);
  std::normal_distribution<double> normal;
  Matrix<Scalar> matrix(rows, cols);
  for (Index j = 0; j < cols; ++j)
    for (Index i = 0; i < rows; ++i) {
      if constexpr (Eigen::NumTraits<Scalar>::IsComplex)
        matrix(i, j) = Scalar(static_cast<typename Scalar::value_type>(normal(engine)),
                              static_cast<typename Scalar::value_type>(normal(engine)));
      else
        matrix(i, j) = static_cast<Scalar>(normal(engine));
    }
  return matrix;
}

/// Equal to the last bit.
template <class A, class B>
bool same_bits(const Eigen::DenseBase<A>& a, const Eigen::DenseBase<B>& b) {
  static_assert(std::is_same_v<typename A::Scalar, typename B::Scalar>);
  if (a.rows() != b.rows() || a.cols() != b.cols()) return false;
  for (Index j = 0; j < a.cols(); ++j)
    for (Index i = 0; i < a.rows(); ++i) {
      const typename A::Scalar x = a.derived().coeff(i, j), y = b.derived().coeff(i, j);
      if (std::memcmp(&x, &y, sizeof x) != 0) return false;
    }
  return true;
}

/// The largest |a - b|.
template <class A, class B>
double distance(const Eigen::DenseBase<A>& a, const Eigen::DenseBase<B>& b) {
  if (a.rows() != b.rows() || a.cols() != b.cols()) return 1e300;
  if (a.size() == 0) return 0;
  return (a.derived().template cast<double>().matrix() - b.derived().template cast<double>().matrix())
      .cwiseAbs()
      .maxCoeff();
}

}  // namespace support
