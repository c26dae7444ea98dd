// SPDX-License-Identifier: MIT
#pragma once

#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <limits>

#include <posenc/concepts.hpp>
#include <posenc/detail/check.hpp>

namespace posenc::inline v0 {

/// Attention over some of the keys, in a form that two of them can be merged: what several threads over the keys of one
/// query, a cache in pieces and machines in a ring need.
///
///   maxima  m     the largest score of a query                   -inf: no key was visible
///   sums    l     sum of exp(score - m)
///   values  a     sum of exp(score - m) v, Dv x Tq
///
///   merged:  m = max(m1, m2),  l = l1 e^(m1 - m) + l2 e^(m2 - m),  a = a1 e^(m1 - m) + a2 e^(m2 - m)
///   outputs: a / l
///
/// Merging is commutative, associative to rounding, and has AttentionState(Dv, Tq), nothing seen, as its zero. An
/// attention sink is one more key, of which only one part may know.
template <class Scalar_>
struct AttentionState {
  using Scalar = Scalar_;

  AttentionState() = default;

  /// Nothing seen. \throws std::invalid_argument if a size is negative.
  AttentionState(Index value_dim, Index num_queries) {
    detail::require(value_dim >= 0, "posenc::AttentionState: value_dim must not be negative", value_dim);
    detail::require(num_queries >= 0, "posenc::AttentionState: num_queries must not be negative", num_queries);
    maxima.setConstant(num_queries, -std::numeric_limits<Scalar>::infinity());
    sums.setZero(num_queries);
    values.setZero(value_dim, num_queries);
  }

  /// Adds what the other has seen; the two must have seen different keys.
  /// \throws std::invalid_argument if the shapes differ; nothing is changed then.
  void merge(const AttentionState& other) {
    detail::require_size(other.values.rows(), values.rows(), "posenc::AttentionState: value_dim of both must be equal");
    detail::require_size(other.values.cols(), values.cols(), "posenc::AttentionState: queries of both must be equal");
    for (Index query = 0; query < values.cols(); ++query) {
      const Scalar largest = std::max(maxima[query], other.maxima[query]);
      if (largest == -std::numeric_limits<Scalar>::infinity()) continue;  // neither has seen anything
      // The same operations whichever of both is called, for the same bits. Beside infinity all is NaN.
      const bool is_behind = maxima[query] < largest;
      const Scalar smaller = is_behind ? maxima[query] : other.maxima[query];
      const Scalar factor = std::exp(smaller - largest) + (largest - largest);
      if (is_behind) {
        values.col(query) = factor * values.col(query) + other.values.col(query);
        sums[query] = factor * sums[query] + other.sums[query];
      } else {
        values.col(query) += factor * other.values.col(query);
        sums[query] += factor * other.sums[query];
      }
      maxima[query] = largest;
    }
  }

  /// Dv x Tq. A query that has seen nothing gives zeros.
  Matrix<Scalar> outputs() const {
    Matrix<Scalar> result = values;
    for (Index query = 0; query < result.cols(); ++query)
      if (sums[query] != 0) result.col(query) /= sums[query];
    return result;
  }

  Vector<Scalar> maxima, sums;
  Matrix<Scalar> values;
};

}  // namespace posenc::inline v0
