// SPDX-License-Identifier: MIT
#pragma once

// Errors of encodings before anything is written.

#include <Eigen/Core>
#include <cstdint>

#include <posenc/attention.hpp>
#include <posenc/attention_workspace.hpp>
#include <posenc/concepts.hpp>

namespace posenc::inline v0::detail {

/// Calls action(token) for the tokens at which an encoding may have a limit: the last, and those at the smallest and the
/// largest position of every axis.
template <class Action>
void for_each_outermost(const Positions& positions, Action action) {
  if (positions.size() == 0) return;
  action(positions.size() - 1);
  for (Index a = 0; a < positions.num_axes(); ++a) {
    const Positions axis = positions.axis(a);
    Index smallest = 0, largest = axis.is_contiguous() ? axis.size() - 1 : 0;
    for (Index t = 1; t < axis.size() && !axis.is_contiguous(); ++t) {
      if (axis[t] < axis[smallest]) smallest = t;
      if (axis[t] > axis[largest]) largest = t;
    }
    action(smallest);
    action(largest);
  }
}

/// Calls the hooks of encodings for the outermost tokens, one key and one query at a time, so that a position outside a
/// table, a head that is not there or a token without a mask is an error now, and not behind the first block of queries.
template <class Scalar>
class AttentionTrial {
 public:
  AttentionTrial(AttentionWorkspace<Scalar>& workspace, const AttentionOptions& options)
      : work_(workspace), options_(options) {
    work_.query_columns_.col(0).setZero();
    work_.keys_.col(0).setZero();
    work_.score_columns_(0, 0) = 0;
    work_.output_columns_.col(0).setZero();
  }

  template <class Encoding>
  void operator()(const Encoding& encoding) const {
    Eigen::Ref<Matrix<Scalar>> query = work_.query_columns_.leftCols(1), key = work_.keys_.leftCols(1);
    Eigen::Ref<Matrix<Scalar>> score = work_.score_columns_.topLeftCorner(1, 1),
                               output = work_.output_columns_.leftCols(1);
    const Eigen::Ref<const Matrix<Scalar>> read_query = query, read_key = key, read_weight = score;
    for_each_outermost(options_.query_positions, [&](Index m) {
      const Positions at_query = options_.query_positions.segment(m, 1);
      if constexpr (QueryKeyEncoding<Encoding, Scalar>) encoding.apply_query(query, at_query, options_.head);
      for_each_outermost(options_.key_positions, [&](Index n) {
        const Positions at_key = options_.key_positions.segment(n, 1);
        if constexpr (QueryKeyEncoding<Encoding, Scalar>) encoding.apply_key(key, at_key, options_.kv_head);
        if constexpr (ScoreTerm<Encoding, Scalar>)
          encoding.add_scores(score, read_key, read_query, at_key, at_query, options_.head);
        if constexpr (ScoreBias<Encoding, Scalar>) encoding.add_bias(score, at_key, at_query, options_.head);
        if constexpr (ValueTerm<Encoding, Scalar>)
          encoding.add_values(output, read_weight, at_key, at_query, options_.head);
      });
    });
  }

 private:
  AttentionWorkspace<Scalar>& work_;
  const AttentionOptions& options_;
};

}  // namespace posenc::inline v0::detail
