// SPDX-License-Identifier: MIT
#pragma once

// The kernel that all rotary encodings share: the walk over tokens, pairs and heads in memory order. The angles come
// from the caller.

#include <Eigen/Core>
#include <algorithm>
#include <array>
#include <string>
#include <type_traits>
#include <utility>

#include <posenc/concepts.hpp>
#include <posenc/detail/angle.hpp>
#include <posenc/detail/check.hpp>
#include <posenc/detail/scalar.hpp>

namespace posenc::inline v0::detail {

enum class Direction { forward, inverse };

/// Where the pairs of a head are: pair i is features feature(i) and feature(i) + partner.
struct HeadLayout {
  Index head_dim;
  Index first;
  Index num_pairs;
  Index pair_step;
  Index partner;

  Index feature(Index pair) const { return first + pair * pair_step; }
  bool operator==(const HeadLayout&) const = default;
};

/// (a, b) -> (a cos - b sin, b cos + a sin) for n pairs, `step` apart.
template <class Scalar, class Real>
void rotate_pairs(Scalar* a, Scalar* b, Index step, const Real* cos, const Real* sin, Index n) {
  for (Index i = 0; i < n; ++i) {
    const Real x = static_cast<Real>(a[i * step]), y = static_cast<Real>(b[i * step]);
    a[i * step] = static_cast<Scalar>(x * cos[i] - y * sin[i]);
    b[i * step] = static_cast<Scalar>(y * cos[i] + x * sin[i]);
  }
}

/// Two separate runs of features: vectorises.
template <class Scalar, class Real>
void rotate_runs(Scalar* EIGEN_RESTRICT a, Scalar* EIGEN_RESTRICT b, const Real* EIGEN_RESTRICT cos,
                 const Real* EIGEN_RESTRICT sin, Index n) {
  rotate_pairs(a, b, 1, cos, sin, n);
}

/// Adjacent features, of which number A plays the part of a: vectorises.
template <int A, class Scalar, class Real>
void rotate_adjacent(Scalar* EIGEN_RESTRICT x, const Real* EIGEN_RESTRICT cos, const Real* EIGEN_RESTRICT sin,
                     Index n) {
  rotate_pairs(x + A, x + 1 - A, 2, cos, sin, n);
}

template <class Scalar, class Real>
void rotate_any(Scalar* a, Scalar* b, Index step, const Real* cos, const Real* sin, Index n) {
  if (step == 1)
    rotate_runs(a, b, cos, sin, n);
  else if (step == 2 && b == a + 1)
    rotate_adjacent<0>(a, cos, sin, n);
  else if (step == 2 && a == b + 1)
    rotate_adjacent<1>(b, cos, sin, n);
  else
    rotate_pairs(a, b, step, cos, sin, n);
}

/// How many cosines and sines the walk asks for at a time; a buffer of them lies on the stack.
inline constexpr Index max_angles = 128;

template <class Real>
struct AngleBuffer {
  std::array<Real, max_angles> cos, sin;
};

template <class Real>
struct Angles {
  const Real* cos;
  const Real* sin;
};

/// A source of angles, as `rotate` asks for them, from a function of a token and a pair that returns a cosine and a
/// sine.
template <class Function>
struct ComputedAngles {
  Function function;

  template <class Real>
  Angles<Real> of_token(Index t, Index pair, Index n, AngleBuffer<Real>& buffer) const {
    for (Index i = 0; i < n; ++i) put(function(t, pair + i), i, buffer);
    return {buffer.cos.data(), buffer.sin.data()};
  }
  template <class Real>
  Angles<Real> of_pair(Index pair, Index t, Index n, AngleBuffer<Real>& buffer) const {
    for (Index i = 0; i < n; ++i) put(function(t + i, pair), i, buffer);
    return {buffer.cos.data(), buffer.sin.data()};
  }

 private:
  template <class Real>
  static void put(const CosSin& exact, Index i, AngleBuffer<Real>& buffer) {
    buffer.cos[static_cast<std::size_t>(i)] = static_cast<Real>(exact.cos);
    buffer.sin[static_cast<std::size_t>(i)] = static_cast<Real>(exact.sin);
  }
};

template <class Function>
ComputedAngles(Function) -> ComputedAngles<Function>;

/// Rotates every pair of the first num_heads heads of every column of x.
///
/// `source.of_token(t, pair, n, buffer)` gives the n angles of column t from `pair` on, `source.of_pair(pair, t, n,
/// buffer)` those of one pair from column t on. Either may fill the buffer or return memory of its own, and is asked
/// once for all heads.
///
/// \tparam Arithmetic what to compute in, if not in the arithmetic of x.
template <class Arithmetic = void, class X, class Source>
void rotate(X& x, const HeadLayout& head, Index num_heads, Direction direction, const Source& source) {
  using Scalar = typename X::Scalar;
  using Real = std::conditional_t<std::is_void_v<Arithmetic>, compute_t<Scalar>, Arithmetic>;
  using Feature = typename Eigen::NumTraits<Scalar>::Real;

  // A complex number is a pair of adjacent features, whatever the layout of real matrices.
  constexpr Index parts = is_complex<Scalar> ? 2 : 1;
  const Index row_step = parts * (X::IsRowMajor ? x.outerStride() : x.innerStride());
  const Index token_step = parts * (X::IsRowMajor ? x.innerStride() : x.outerStride());
  const Index pair_step = is_complex<Scalar> ? row_step : head.pair_step * row_step;
  const Index partner = is_complex<Scalar> ? 1 : head.partner * row_step;
  const Index head_step = head.head_dim / parts * row_step;

  Feature* const data = reinterpret_cast<Feature*>(x.data()) + head.first / parts * row_step;
  const auto rotate_in_all_heads = [&](Index pair, Index t, Index step, const Angles<Real>& angles, Index n) {
    for (Index h = 0; h < num_heads; ++h) {
      Feature* a = data + h * head_step + t * token_step + pair * pair_step;
      Feature* b = a + partner;
      if (direction == Direction::inverse) std::swap(a, b);  // rotates by the negative angle
      rotate_any(a, b, step, angles.cos, angles.sin, n);
    }
  };

  AngleBuffer<Real> buffer;
  if constexpr (X::IsRowMajor) {  // tokens are contiguous
    for (Index pair = 0; pair < head.num_pairs; ++pair)
      for (Index t = 0; t < x.cols(); t += max_angles) {
        const Index n = std::min(max_angles, x.cols() - t);
        rotate_in_all_heads(pair, t, token_step, source.of_pair(pair, t, n, buffer), n);
      }
  } else {  // features are contiguous
    for (Index t = 0; t < x.cols(); ++t)
      for (Index pair = 0; pair < head.num_pairs; pair += max_angles) {
        const Index n = std::min(max_angles, head.num_pairs - pair);
        rotate_in_all_heads(pair, t, pair_step, source.of_token(t, pair, n, buffer), n);
      }
  }
}

/// The features of a column must be whole heads. Returns how many.
inline Index require_heads(Index num_features, Index head_dim, const char* who) {
  if (num_features == 0 || num_features % head_dim != 0) [[unlikely]]
    fail_size((std::string(who) + ": features of a column must be a multiple of head_dim").c_str(), head_dim,
              num_features);
  return num_features / head_dim;
}

/// The same for a matrix of tokens, whose columns must be the positions.
template <class X, class Positions>
Index require_heads(const X& x, Index head_dim, const Positions& positions, const char* who) {
  static_assert(
      RealScalar<typename Eigen::NumTraits<typename X::Scalar>::Real>,
      "posenc: queries and keys must be of float, double, half or bfloat16, or of std::complex of the first two");
  const Index num_heads = require_heads(x.rows() * (is_complex<typename X::Scalar> ? 2 : 1), head_dim, who);
  if (x.cols() != positions.size()) [[unlikely]]
    fail_size((std::string(who) + ": columns must be the number of positions").c_str(), positions.size(), x.cols());
  return num_heads;
}

}  // namespace posenc::inline v0::detail
