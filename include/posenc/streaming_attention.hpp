// SPDX-License-Identifier: MIT
#pragma once

#include <Eigen/Core>
#include <algorithm>
#include <type_traits>
#include <vector>

#include <posenc/attention.hpp>
#include <posenc/attention_state.hpp>
#include <posenc/attention_workspace.hpp>
#include <posenc/concepts.hpp>
#include <posenc/detail/attention_stream.hpp>
#include <posenc/detail/attention_trial.hpp>
#include <posenc/detail/check.hpp>
#include <posenc/detail/read_ahead.hpp>
#include <posenc/detail/scalar.hpp>

namespace posenc::inline v0 {

namespace detail {

template <class Workspace, class... Encodings, class Queries, class Keys, class Values>
void require_streaming(const Queries& q, const Keys& k, const Values& v, const AttentionOptions& options,
                       const Workspace& workspace) {
  using Scalar = typename Workspace::Scalar;
  static_assert(std::is_same_v<Scalar, compute_t<typename Queries::Scalar>>,
                "posenc::streaming_attend: the workspace must be of the scalar that the queries are computed with");
  static_assert((acts_in_attention<Scalar, Encodings> && ...),
                "posenc::streaming_attend: every encoding needs a hook for queries and keys, scores or values with "
                "this scalar (concepts.hpp lists them); an InputEncoding is added to the embeddings before");
  require_attention(q, k, options);
  require_size(v.cols(), k.cols(), "posenc::streaming_attend: columns of the values must be those of the keys");
  require_size(q.rows(), workspace.head_dim(),
               "posenc::streaming_attend: rows of the queries must be head_dim of the "
               "workspace");
  require_size(v.rows(), workspace.value_dim(),
               "posenc::streaming_attend: rows of the values must be value_dim of the "
               "workspace");
}

}  // namespace detail

/// Attention of one head in tiles, with an online softmax: the results of `attend` to rounding, in memory that does not
/// grow with the sequence.
///
///   for every block of queries                       for every tile of keys, the nearest first
///     m = -inf, l = 0, a = 0                           S  = K^T Q + biases             64 keys x a panel of queries
///                                                      m' = max(m, max S),  W = e^(S - m'),  c = e^(m - m')
///     O = a / l                                        l  = c l + sum W,    a = c a + V W,   m = m'
///
///   AttentionWorkspace<float> workspace(head_dim, value_dim);
///   streaming_attend_into(o, q, k, v, {.query_positions = p, .key_positions = p}, workspace, alibi, CausalMask{});
///
/// Takes every encoding that `attend` takes. A bias by distance (DistanceBias) is what the sums begin with; a tile that
/// bounded biases (BoundedBias) prove to weigh nothing is left out, and the bits of the result are the same as if it had
/// not been. Keys are rotated anew for every block of queries: rotate them once before, or take a RopeTable.
///
/// \param outputs Dv x Tq, written in place; any storage order and stride.
/// \param q, k, v D x Tq, D x Tk, Dv x Tk. float or double columns with contiguous features are read where they lie.
/// \returns how many tiles were computed and skipped.
/// \throws  std::invalid_argument if shapes or options do not fit, and what an encoding throws at the outermost positions;
///          nothing is written then.
/// Accuracy: a weight e^x to 2e-7 + 8e-8 |x|; one below e^-87 of the largest is 0. A query that sees nothing gives zeros.
///           A NaN in a query or a key, and a score of +inf, give NaN to every query that sees it; a NaN value does so where
///           its tile is computed. What is hidden should be finite: a mask by distance does not keep a NaN away. A score
///           of -inf is a key that is hidden; finite scores may be as large as the scalar.
/// Cost:     4 D flops and one exponential a visible score. Allocates nothing.
/// Source:   Milakov and Gimelshein 2018, arXiv:1805.02867v2 (online softmax); Dao et al. 2022, arXiv:2205.14135v2.
template <MutableDense Outputs, DenseExpression Queries, DenseExpression Keys, DenseExpression Values, class Scalar,
          class... Encodings>
StreamCount streaming_attend_into(Outputs&& outputs, const Queries& q, const Keys& k, const Values& v,
                                  const AttentionOptions& options, AttentionWorkspace<Scalar>& workspace,
                                  const Encodings&... encodings) {
  detail::require_streaming<AttentionWorkspace<Scalar>, Encodings...>(q, k, v, options, workspace);
  detail::require_size(outputs.rows(), v.rows(),
                       "posenc::streaming_attend: rows of the outputs must be those of the "
                       "values");
  detail::require_size(outputs.cols(), q.cols(),
                       "posenc::streaming_attend: columns of the outputs must be those of "
                       "the queries");
  if (q.cols() > 1)  // one query is written when all is done
    (detail::AttentionTrial<Scalar>(workspace, options)(encodings), ...);
  using Out = typename std::remove_cvref_t<Outputs>::Scalar;
  detail::AttentionStream<Scalar, Queries, Keys, Values, Encodings...> stream(q, k, v, options, workspace,
                                                                              encodings...);
  const auto columns = detail::output_columns<Scalar>(outputs);
  StreamCount count;
  for (Index first = 0; first < q.cols(); first += stream.block_queries())
    count += stream.run(first, std::min(stream.block_queries(), q.cols() - first), columns,
                        [&](Index query, Scalar, Scalar sum, const Scalar* values) {
                          const Scalar factor = sum == 0 ? Scalar(0) : 1 / sum;
                          auto output = outputs.col(query);
                          for (Index d = 0; d < output.size(); ++d)
                            output.coeffRef(d) = static_cast<Out>(values[d] * factor);
                        });
  return count;
}

/// The same, into a matrix of its own and with a workspace of its own.
template <DenseExpression Queries, DenseExpression Keys, DenseExpression Values, class... Encodings>
auto streaming_attend(const Queries& q, const Keys& k, const Values& v, const AttentionOptions& options,
                      const Encodings&... encodings) {
  using Scalar = detail::compute_t<typename Queries::Scalar>;
  AttentionWorkspace<Scalar> workspace(q.rows(), v.rows());
  Matrix<Scalar> outputs(v.rows(), q.cols());
  streaming_attend_into(outputs, q, k, v, options, workspace, encodings...);
  return outputs;
}

/// Self-attention: queries and keys at the same positions.
template <DenseExpression Queries, DenseExpression Keys, DenseExpression Values, class... Encodings>
auto streaming_attend(const Queries& q, const Keys& k, const Values& v, const Positions& positions,
                      const Encodings&... encodings) {
  return streaming_attend(q, k, v, AttentionOptions{.query_positions = positions, .key_positions = positions},
                          encodings...);
}

/// Attention over some of the keys, to be merged with that over others.
/// \returns an AttentionState of Dv x Tq. The other parameters and errors are those of streaming_attend_into.
template <DenseExpression Queries, DenseExpression Keys, DenseExpression Values, class Scalar, class... Encodings>
AttentionState<Scalar> streaming_attend_part(const Queries& q, const Keys& k, const Values& v,
                                             const AttentionOptions& options, AttentionWorkspace<Scalar>& workspace,
                                             const Encodings&... encodings) {
  detail::require_streaming<AttentionWorkspace<Scalar>, Encodings...>(q, k, v, options, workspace);
  AttentionState<Scalar> state(v.rows(), q.cols());
  detail::AttentionStream<Scalar, Queries, Keys, Values, Encodings...> stream(q, k, v, options, workspace,
                                                                              encodings...);
  for (Index first = 0; first < q.cols(); first += stream.block_queries())
    stream.template run<true>(first, std::min(stream.block_queries(), q.cols() - first),
                              detail::OutputColumns<Scalar>(),
                              [&](Index query, Scalar maximum, Scalar sum, const Scalar* values) {
                                state.maxima[query] = maximum;
                                state.sums[query] = sum;
                                state.values.col(query) = Eigen::Map<const Vector<Scalar>>(values, v.rows());
                              });
  return state;
}

}  // namespace posenc::inline v0
