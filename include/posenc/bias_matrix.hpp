// SPDX-License-Identifier: MIT
#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <type_traits>

#include <posenc/concepts.hpp>
#include <posenc/detail/scalar.hpp>
#include <posenc/detail/score_lines.hpp>
#include <posenc/detail/tile.hpp>

namespace posenc::inline v0 {
namespace detail {

template <class Bias>
bool bias_is_by_distance(const Bias& bias) {
  if constexpr (requires { bias.is_by_distance(); })
    return bias.is_by_distance();
  else
    return DistanceBias<Bias>;
}

/// What a bias adds to 0, along the memory: computed once for each distance, then copied.
template <class Bias, class Scores>
void write_by_distance(const Bias& bias, Scores& scores, const Positions& key_positions,
                       const Positions& query_positions, Index head) {
  using Scalar = typename Scores::Scalar;
  constexpr bool by_key = Scores::IsRowMajor;  // a row: the queries of a key
  const Index inner = by_key ? scores.cols() : scores.rows(), outer = by_key ? scores.rows() : scores.cols();
  const std::int64_t first = by_key ? key_positions[outer - 1] - query_positions[0]  // of the last row or column
                                    : key_positions[0] - query_positions[outer - 1];
  Vector<Scalar> at_distance(inner + outer - 1);
  for (Index i = 0; i < at_distance.size(); ++i)
    at_distance[i] =
        static_cast<Scalar>(static_cast<compute_t<Scalar>>(0 + bias.at_distance(by_key ? first - i : first + i, head)));
  if constexpr (std::is_same_v<Scalar, float> || std::is_same_v<Scalar, double>)
    if (scores.innerStride() == 1 && scores.size() * static_cast<Index>(sizeof(Scalar)) >= streamed_bytes) {
      for (Index i = 0; i < outer; ++i)
        stream_copy(&at_distance[outer - 1 - i], inner, by_key ? &scores.coeffRef(i, 0) : &scores.coeffRef(0, i));
      return finish_streaming();
    }
  for (Index i = 0; i < outer; ++i) {
    const auto line = at_distance.segment(outer - 1 - i, inner);
    if constexpr (by_key)
      scores.row(i).matrix() = line.transpose();
    else
      scores.col(i).matrix() = line;
  }
}

}  // namespace detail

/// What a score bias adds, written over what is there: into memory of your own.
///
///   posenc::write_bias(posenc::Alibi(8), scores, keys, queries, head);      // Tk x Tq: any storage order and stride
///
/// \throws what the bias throws, and std::invalid_argument if scores do not fit the positions; nothing is written then.
/// Cost:    that of filling the memory, where positions are contiguous and the bias is a DistanceBias: it is computed
///          for Tk + Tq - 1 distances and copied. Any other is added to a matrix of zeros, which is copied.
template <MutableDense Scores, ScoreBias<typename std::remove_cvref_t<Scores>::Scalar> Bias>
void write_bias(const Bias& bias, Scores&& scores, const Positions& key_positions, const Positions& query_positions,
                Index head = 0) {
  using Scalar = typename std::remove_cvref_t<Scores>::Scalar;
  detail::require_tile(scores, key_positions, query_positions, "posenc::write_bias");
  if constexpr (DistanceBias<Bias>)
    if (scores.size() > 0 && detail::bias_is_by_distance(bias) && detail::are_lines(key_positions, query_positions))
      return detail::write_by_distance(bias, scores, key_positions, query_positions, head);
  Matrix<Scalar> added = Matrix<Scalar>::Zero(scores.rows(), scores.cols());
  Eigen::Ref<Matrix<Scalar>> view = added;
  bias.add_bias(view, key_positions, query_positions, head);
  scores.matrix() = added;
}

/// The same as a matrix: to look at, to draw, or to hand to an attention of another library.
///
///   auto b = posenc::bias_matrix<float>(posenc::Alibi(8), keys, queries, head);     // Tk x Tq
///
/// Memory: Tk x Tq scalars. An attention of this library needs none of it.
template <class Scalar = float, ScoreBias<Scalar> Bias>
Matrix<Scalar> bias_matrix(const Bias& bias, const Positions& key_positions, const Positions& query_positions,
                           Index head = 0) {
  Matrix<Scalar> scores(key_positions.size(), query_positions.size());
  if constexpr (DistanceBias<Bias>) {
    write_bias(bias, scores, key_positions, query_positions, head);
  } else {
    scores.setZero();
    Eigen::Ref<Matrix<Scalar>> view = scores;
    bias.add_bias(view, key_positions, query_positions, head);
  }
  return scores;
}

}  // namespace posenc::inline v0
