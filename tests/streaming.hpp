// SPDX-License-Identifier: MIT
#pragma once

// What the tests of streaming attention share: tokens, places, packs of encodings, and the comparison with the reference.

#include <Eigen/Core>
#include <algorithm>
#include <cstdint>
#include <limits>
#include <random>
#include <tuple>
#include <type_traits>
#include <vector>

#include <posenc/attention.hpp>
#include <posenc/streaming_attention.hpp>

#include "catch.hpp"
#include "support.hpp"

namespace streaming {

using posenc::AttentionOptions;
using posenc::Index;
using posenc::Matrix;
using posenc::Positions;

inline constexpr double infinity = std::numeric_limits<double>::infinity();
inline constexpr double nan = std::numeric_limits<double>::quiet_NaN();

/// The promise of streaming_attention.hpp, relative to the largest output. Half and bfloat16 are computed with in float.
template <class Scalar>
inline constexpr double promised = std::is_same_v<Scalar, double> ? 1e-14 : 2e-6;

struct Shape {
  Index num_queries, num_keys, dim, value_dim;
};

template <class Scalar>
struct Tokens {
  Matrix<Scalar> q, k, v;

  explicit Tokens(const Shape& shape, std::uint64_t seed = 1)
      : q(support::random_matrix<Scalar>(shape.dim, shape.num_queries, seed)),
        k(support::random_matrix<Scalar>(shape.dim, shape.num_keys, seed + 1)),
        v(support::random_matrix<Scalar>(shape.value_dim, shape.num_keys, seed + 2)) {}
};

/// Where the tokens of both sides are: consecutive positions, or arrays.
struct Place {
  const char* name;
  Positions consecutive_queries = {}, consecutive_keys = {};
  std::vector<std::int64_t> query_array = {}, key_array = {};

  Positions queries() const { return query_array.empty() ? consecutive_queries : Positions(query_array); }
  Positions keys() const { return key_array.empty() ? consecutive_keys : Positions(key_array); }
  AttentionOptions options() const { return {.query_positions = queries(), .key_positions = keys()}; }
};

/// Every token at its own number, from 0.
inline Place from_zero(Index num_queries, Index num_keys) {
  return {"from zero", posenc::positions(num_queries), posenc::positions(num_keys)};
}

/// The queries are the last of the keys, as behind a cache.
inline Place behind_a_cache(Index num_queries, Index num_keys) {
  return {"behind a cache", posenc::positions(num_queries, 1000 + num_keys - num_queries),
          posenc::positions(num_keys, 1000)};
}

/// The same positions as arrays, for which there is no fast path.
inline Place as_arrays(const Place& place) {
  Place arrays{"as arrays"};
  for (Index t = 0; t < place.queries().size(); ++t) arrays.query_array.push_back(place.queries()[t]);
  for (Index t = 0; t < place.keys().size(); ++t) arrays.key_array.push_back(place.keys()[t]);
  return arrays;
}

/// Unordered, repeated and negative positions.
inline Place anywhere(Index num_queries, Index num_keys) {
  std::mt19937_64 engine(7);
  Place place{"anywhere"};
  const auto some = [&](std::vector<std::int64_t>& entries, Index size) {
    for (Index t = 0; t < size; ++t) entries.push_back(static_cast<std::int64_t>(engine() % 90) - 30);
  };
  some(place.query_array, num_queries);
  some(place.key_array, num_keys);
  return place;
}

inline std::vector<Place> places(Index num_queries, Index num_keys) {
  return {from_zero(num_queries, num_keys), behind_a_cache(num_queries, num_keys),
          as_arrays(behind_a_cache(num_queries, num_keys)), anywhere(num_queries, num_keys)};
}

/// |a - b| at its largest, over the largest |b|. Infinite where one has a NaN and the other has not.
template <class A, class B>
double relative_distance(const Eigen::DenseBase<A>& a, const Eigen::DenseBase<B>& b) {
  if (a.rows() != b.rows() || a.cols() != b.cols()) return infinity;
  double largest = 0, difference = 0;
  for (Index j = 0; j < a.cols(); ++j)
    for (Index i = 0; i < a.rows(); ++i) {
      const auto x = static_cast<double>(a.derived().coeff(i, j)), y = static_cast<double>(b.derived().coeff(i, j));
      if (std::isnan(x) && std::isnan(y)) continue;
      if (std::isnan(x) != std::isnan(y)) return infinity;
      largest = std::max(largest, std::abs(y));
      difference = std::max(difference, std::abs(x - y));
    }
  return difference == 0 ? 0 : difference / largest;
}

/// Encodings that are used together, once for float and once for the double that both algorithms are measured by.
template <class Single, class Wide = Single>
struct Pack {
  Single single;
  Wide wide;
};
template <class... Encodings>
auto pack(const Encodings&... encodings) {
  return Pack<std::tuple<Encodings...>>{std::tuple(encodings...), std::tuple(encodings...)};
}
template <class... Single, class... Wide>
auto pack(std::tuple<Single...> single, std::tuple<Wide...> wide) {
  return Pack<std::tuple<Single...>, std::tuple<Wide...>>{std::move(single), std::move(wide)};
}

template <class X, class Encodings>
auto reference(const X& x, const AttentionOptions& options, const Encodings& encodings) {
  return std::apply([&](const auto&... e) { return posenc::attend(x.q, x.k, x.v, options, e...); }, encodings);
}
template <class X, class Encodings>
auto streamed(const X& x, const AttentionOptions& options, const Encodings& encodings) {
  return std::apply([&](const auto&... e) { return posenc::streaming_attend(x.q, x.k, x.v, options, e...); },
                    encodings);
}

/// Streaming gives what the reference gives in double, within what is promised; or where scores are so large that float
/// cannot keep it, not much farther off than the reference in float.
template <bool scores_are_large = false, class Scalar, class P>
void expect_reference(const Tokens<Scalar>& x, const AttentionOptions& options, const P& encodings) {
  struct {
    Matrix<double> q, k, v;
  } wide{x.q.template cast<double>(), x.k.template cast<double>(), x.v.template cast<double>()};
  const Matrix<double> exact = reference(wide, options, encodings.wide);
  const auto ours = streamed(x, options, encodings.single);
  double allowed = promised<Scalar>;
  if constexpr (scores_are_large)
    allowed = std::max(allowed, 2 * relative_distance(reference(x, options, encodings.single), exact));
  const double error = relative_distance(ours, exact);
  CAPTURE(error, exact.rows(), exact.cols(), x.k.cols(), x.k.rows());
  CHECK(error <= allowed);
}

}  // namespace streaming
