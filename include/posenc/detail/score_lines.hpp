// SPDX-License-Identifier: MIT
#pragma once

// Scores along the memory where positions are contiguous: a column is the keys of a query, one behind the other, and a
// bias that is linear in the distance is linear along it.

#include <Eigen/Core>
#include <algorithm>
#include <array>
#include <cstdint>
#include <type_traits>

#include <posenc/concepts.hpp>
#include <posenc/detail/lines.hpp>
#include <posenc/detail/packet.hpp>
#include <posenc/detail/scalar.hpp>
#include <posenc/detail/tile.hpp>
#include <posenc/positions.hpp>

namespace posenc::inline v0::detail {

/// Whether keys and queries are contiguous, and so far from the ends that differences are exact in double.
inline bool are_lines(const Positions& key_positions, const Positions& query_positions) {
  constexpr std::int64_t limit = std::int64_t{1} << 52;
  const auto is_line = [](const Positions& positions) {
    if (!positions.is_contiguous() || positions.size() > limit) return false;
    return positions.size() == 0 || (positions[0] >= -limit && positions[0] <= limit);
  };
  return is_line(key_positions) && is_line(query_positions);
}

/// Copies around the caches; finish_streaming comes behind.
template <class Real>
void stream_copy(const Real* from, Index n, Real* to) {
  constexpr Index lanes = Simd<Real>::lanes;
  const auto misaligned = static_cast<Index>(reinterpret_cast<std::uintptr_t>(to) / sizeof(Real) % lanes);
  Index i = std::min((lanes - misaligned) % lanes, n);
  std::copy_n(from, i, to);
  for (; i + lanes <= n; i += lanes) stream(to + i, load(from + i));
  std::copy_n(from + i, n - i, to + i);
}

/// x[i] += slope * (first + i), i = 0, ..., n - 1, computed in double and rounded once.
template <class Scalar>
void add_linear(Scalar* x, Index n, double first, double slope) {
  if constexpr (!std::is_same_v<Scalar, compute_t<Scalar>>) {  // half and bfloat16, some at a time
    constexpr Index some = 64;
    for (Index i = 0, m; i < n; i += m) {
      m = std::min(some, n - i);
      std::array<float, some> added{};
      add_linear(added.data(), m, first + static_cast<double>(i), slope);
      add_line(x + i, added.data(), m);
    }
  } else {
    constexpr Index lanes = Simd<double>::lanes, step = 2 * lanes;
    Index i = 0;
    if constexpr (std::is_same_v<Scalar, double> || Simd<Scalar>::lanes == step) {
      double distances[step];
      for (Index j = 0; j < step; ++j) distances[j] = first + static_cast<double>(j);
      const auto all_slope = broadcast(slope), all_step = broadcast(static_cast<double>(step));
      auto low = load(distances), high = load(distances + lanes);
      for (; i + step <= n; i += step, low = sum(low, all_step), high = sum(high, all_step)) {
        const auto a = multiply(all_slope, low), b = multiply(all_slope, high);
        if constexpr (std::is_same_v<Scalar, double>) {
          store(x + i, sum(load(x + i), a));
          store(x + i + lanes, sum(load(x + i + lanes), b));
        } else {
          store(x + i, sum(load(x + i), rounded<Order::joined>(a, b)));
        }
      }
    }
    for (; i < n; ++i) add(x[i], slope * (first + static_cast<double>(i)));
  }
}

/// The same along a column or row of scores: from score `begin` on, n of them.
template <class Line>
void add_linear(Line line, Index begin, Index n, double first, double slope) {
  if (n <= 0) return;
  if (line.innerStride() == 1)
    add_linear(&line.coeffRef(begin), n, first, slope);
  else
    for (Index i = 0; i < n; ++i) add(line.coeffRef(begin + i), slope * (first + static_cast<double>(i)));
}

/// And the same number to each of them.
template <class Line>
void add_constant(Line line, Index begin, Index n, double value) {
  for (Index i = 0; i < n; ++i) add(line.coeffRef(begin + i), value);
}

/// Adds a bias of key - query, a function from double to double, to every score, rounded once. Where positions are
/// contiguous it is computed once for all scores of a square that are as far apart.
template <class Scores, class Bias>
void add_by_distance(Scores& scores, const Positions& key_positions, const Positions& query_positions, Bias bias) {
  using Matrix = std::remove_cvref_t<Scores>;
  using Scalar = typename Matrix::Scalar;
  if (!are_lines(key_positions, query_positions))
    return for_each_score(scores, [&](Index key, Index query, auto& score) {
      add(score, bias(offset(key_positions[key], query_positions[query])));
    });
  constexpr bool by_key = Matrix::IsRowMajor;  // a line is a row: the queries of a key
  constexpr Index side = 256;
  Addends<Scalar, 2 * side> biases;
  const Index num_lines = by_key ? scores.rows() : scores.cols(), length = by_key ? scores.cols() : scores.rows();
  for (Index outer = 0, m; outer < num_lines; outer += m) {
    m = std::min(side, num_lines - outer);
    for (Index inner = 0, n; inner < length; inner += n) {  // from the first score of the last line on
      n = next_block(length - inner, side);
      const Index last = outer + m - 1;
      const double first = by_key ? offset(key_positions[last], query_positions[inner])
                                  : offset(key_positions[inner], query_positions[last]);
      for (Index i = 0; i < m + n - 1; ++i)
        biases.set(i, static_cast<compute_t<Scalar>>(bias(first + static_cast<double>(by_key ? -i : i))));
      for (Index k = 0; k < m; ++k) {
        auto* const x = by_key ? &scores.coeffRef(outer + k, inner) : &scores.coeffRef(inner, outer + k);
        const Index of_line = m - 1 - k;
        if (scores.innerStride() == 1)
          biases.add_to(x, of_line, n);
        else
          for (Index i = 0; i < n; ++i) add(x[i * scores.innerStride()], biases[of_line + i]);
      }
    }
  }
}

}  // namespace posenc::inline v0::detail
