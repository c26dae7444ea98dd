// SPDX-License-Identifier: MIT
#pragma once

#include <posenc/concepts.hpp>

namespace posenc::inline v0 {

/// What a score bias adds, written out: to look at, to draw, or to hand to an attention of another library.
///
///   auto b = posenc::bias_matrix<float>(posenc::Alibi(8), keys, queries, head);     // Tk x Tq
///
/// Memory: Tk x Tq scalars. An attention of this library needs none of it.
template <class Scalar = float, ScoreBias<Scalar> Bias>
Matrix<Scalar> bias_matrix(const Bias& bias, const Positions& key_positions, const Positions& query_positions,
                           Index head = 0) {
  Matrix<Scalar> scores = Matrix<Scalar>::Zero(key_positions.size(), query_positions.size());
  Eigen::Ref<Matrix<Scalar>> view = scores;
  bias.add_bias(view, key_positions, query_positions, head);
  return scores;
}

}  // namespace posenc::inline v0
