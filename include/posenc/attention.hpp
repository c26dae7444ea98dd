// SPDX-License-Identifier: MIT
#pragma once

#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <limits>

#include <posenc/concepts.hpp>
#include <posenc/detail/check.hpp>
#include <posenc/detail/scalar.hpp>

namespace posenc::inline v0 {

/// Where the queries and keys of one head are, and what else an attention needs to know.
struct AttentionOptions {
  Positions query_positions;  ///< Tq entries
  Positions key_positions;    ///< Tk entries
  double scale = 0;           ///< factor of the scores; 0: 1 / sqrt(D). T5 has 1.
  double soft_cap = 0;        ///< scores become c tanh(score / c), after the scale and before biases (Gemma 2); 0: none
  double sink = -std::numeric_limits<double>::infinity();  ///< a score more in the softmax, without a value (gpt-oss)
  Index head = 0;                                          ///< the query head, for encodings that differ by head
  Index kv_head = 0;                                       ///< the key and value head that it reads
};

/// Softmax of each column, in place; `sink` is one more score in the denominator. A column of minus infinities, a query
/// that may attend to nothing, becomes zeros. A weight that would be denormal, or next to it, is 0. NaN stays NaN.
template <class Scalar>
void softmax_columns(Matrix<Scalar>& scores, Scalar sink = -std::numeric_limits<Scalar>::infinity()) {
  using Limits = std::numeric_limits<Scalar>;
  const auto least_exponent = static_cast<Scalar>(std::log(Limits::min()) + 1);  // so that nothing is denormal
  Eigen::Array<Scalar, Eigen::Dynamic, 1> exponents(scores.rows());
  for (Index query = 0; query < scores.cols(); ++query) {
    auto column = scores.col(query).array();
    if (column.size() == 0) continue;
    const Scalar largest = column.template maxCoeff<Eigen::PropagateNaN>();
    if (largest == -Limits::infinity()) {
      column.setZero();
      continue;
    }
    if (!(largest < Limits::infinity())) {
      column.setConstant(Limits::quiet_NaN());
      continue;
    }
    const Scalar reference = largest < sink ? sink : largest;
    exponents = (column - reference).cwiseMax(least_exponent);
    column = exponents.exp();
    // A key that is hidden has no weight at all.
    if (exponents.minCoeff() == least_exponent) column = (exponents == least_exponent).select(Scalar(0), column);
    column /= column.sum() + std::exp(sink - reference);
  }
}

namespace detail {

/// Calls action(first, n) for blocks of queries, so small that their scores are still in the second cache when another
/// hook gets them; for no queries once, with none, so that hooks check what they are given.
template <class Action>
void for_blocks_of_queries(Index num_queries, Action action) {
  constexpr Index most = 128;
  Index first = 0;
  do {
    const Index n = std::min(most, num_queries - first);
    action(first, n);
    first += n;
  } while (first < num_queries);
}

template <class Scalar, class Encoding>
inline constexpr bool acts_in_attention = QueryKeyEncoding<Encoding, Scalar> || ScoreBias<Encoding, Scalar> ||
                                          ScoreTerm<Encoding, Scalar> || ValueTerm<Encoding, Scalar>;

template <class Scalar, class Encoding>
void rotate(const Encoding& encoding, Matrix<Scalar>& queries, Matrix<Scalar>& keys, const AttentionOptions& options) {
  if constexpr (QueryKeyEncoding<Encoding, Scalar>) {
    Eigen::Ref<Matrix<Scalar>> q = queries, k = keys;
    encoding.apply_query(q, options.query_positions, options.head);
    encoding.apply_key(k, options.key_positions, options.kv_head);
  }
}

/// A tile of scores: all keys of some queries.
template <class Scalar>
struct ScoreTile {
  Eigen::Ref<Matrix<Scalar>> scores;
  Positions key_positions, query_positions;
  Index head;
};

template <class Scalar, class Encoding, class Keys, class Queries>
void add_scores(const Encoding& encoding, ScoreTile<Scalar>& tile, const Keys& k, const Queries& q) {
  if constexpr (ScoreTerm<Encoding, Scalar>) {
    const Eigen::Ref<const Matrix<Scalar>> read_keys = k, read_queries = q;
    encoding.add_scores(tile.scores, read_keys, read_queries, tile.key_positions, tile.query_positions, tile.head);
  }
}

template <class Scalar, class Encoding>
void add_bias(const Encoding& encoding, ScoreTile<Scalar>& tile) {
  if constexpr (ScoreBias<Encoding, Scalar>)
    encoding.add_bias(tile.scores, tile.key_positions, tile.query_positions, tile.head);
}

template <class Scalar, class Encoding, class Weights>
void add_values(const Encoding& encoding, Eigen::Ref<Matrix<Scalar>> outputs, const Weights& weights,
                const Positions& key_positions, const Positions& query_positions, Index head) {
  if constexpr (ValueTerm<Encoding, Scalar>) {
    const Eigen::Ref<const Matrix<Scalar>> w = weights;
    encoding.add_values(outputs, w, key_positions, query_positions, head);
  }
}

template <class Queries, class Keys>
void require_attention(const Queries& q, const Keys& k, const AttentionOptions& options) {
  require_size(k.rows(), q.rows(), "posenc::attend: rows of the keys must be those of the queries");
  require_size(q.cols(), options.query_positions.size(),
               "posenc::attend: columns of the queries must be the number of query positions");
  require_size(k.cols(), options.key_positions.size(),
               "posenc::attend: columns of the keys must be the number of key positions");
  require(std::isfinite(options.scale), "posenc::attend: scale must be finite", options.scale);
  require(options.soft_cap >= 0 && std::isfinite(options.soft_cap),
          "posenc::attend: soft_cap must be 0 or positive and finite", options.soft_cap);
  require(options.sink < std::numeric_limits<double>::infinity(), "posenc::attend: sink must be below infinity",
          options.sink);
}

}  // namespace detail

/// The weights of one head: how much each query attends to each key.
///
///   Q', K'  = Q, K rotated by every QueryKeyEncoding
///   S  = K'^T Q'            Tk x Tq, a column is a query
///   S += content terms      of every ScoreTerm; they see Q and K as given, so that relative encodings stack
///   S  = scale * S
///   S  = c tanh(S / c)      with a soft cap c
///   S += biases             of every ScoreBias
///   W  = softmax(S)         of each column, with the sink in its denominator; zeros where all is masked
///
/// \param q          D x Tq   \param k   D x Tk: any dense expressions of the same scalar. Not changed.
/// \param options    positions, scale, cap, sink and head.
/// \param encodings  any number of them, applied in their order; each acts where it has a hook.
/// \returns Tk x Tq, in float for half and bfloat16 inputs. Each column sums to 1 (less with a sink, 0 if masked).
/// \throws  std::invalid_argument if shapes or options do not fit.
template <DenseExpression Queries, DenseExpression Keys, class... Encodings>
auto attention_weights(const Queries& q, const Keys& k, const AttentionOptions& options,
                       const Encodings&... encodings) {
  using Scalar = detail::compute_t<typename Queries::Scalar>;
  static_assert((detail::acts_in_attention<Scalar, Encodings> && ...),
                "posenc::attend: every encoding needs a hook for queries and keys, scores or values with this scalar "
                "(concepts.hpp lists them); an InputEncoding is added to the embeddings, before the projections");
  detail::require_attention(q, k, options);

  Matrix<Scalar> scores;
  if constexpr ((QueryKeyEncoding<Encodings, Scalar> || ...)) {
    Matrix<Scalar> queries = q.template cast<Scalar>(), keys = k.template cast<Scalar>();
    (detail::rotate(encodings, queries, keys, options), ...);
    scores = keys.transpose() * queries;
  } else {
    scores = k.template cast<Scalar>().matrix().transpose() * q.template cast<Scalar>().matrix();
  }
  constexpr bool has_terms = (ScoreTerm<Encodings, Scalar> || ...);
  const auto as_given = [](const auto& x) -> Matrix<Scalar> {
    if constexpr (has_terms) return x.template cast<Scalar>();
    return {};
  };
  const Matrix<Scalar> keys = as_given(k), queries = as_given(q);
  const auto scale =
      static_cast<Scalar>(options.scale == 0 ? 1 / std::sqrt(static_cast<double>(q.rows())) : options.scale);
  detail::for_blocks_of_queries(scores.cols(), [&](Index begin, Index n) {
    detail::ScoreTile<Scalar> tile{scores.middleCols(begin, n), options.key_positions,
                                   options.query_positions.segment(begin, n), options.head};
    (detail::add_scores(encodings, tile, keys, queries.middleCols(has_terms ? begin : 0, has_terms ? n : 0)), ...);
    tile.scores *= scale;
    if (options.soft_cap != 0) {
      const auto cap = static_cast<Scalar>(options.soft_cap);
      tile.scores = cap * (tile.scores / cap).array().tanh();
    }
    (detail::add_bias(encodings, tile), ...);
  });

  softmax_columns(scores, static_cast<Scalar>(options.sink));
  return scores;
}

/// Attention of one head, as the formula says it: the reference that everything faster is tested against.
///
///   W = attention_weights(Q, K)       Tk x Tq
///   O = V W + value terms             Dv x Tq, of every ValueTerm
///
///   Matrix<float> o = posenc::attend(q, k, v, posenc::positions(T), rope, posenc::CausalMask{});
///   Matrix<float> o = posenc::attend(q, k, v, {.query_positions = posenc::positions(1, T - 1),   // one step, and
///                                              .key_positions = posenc::positions(T)}, rope);    // a cache of T
///
/// \param v  Dv x Tk. The other parameters are those of attention_weights.
/// \returns Dv x Tq, in float for half and bfloat16 inputs.
/// \throws  std::invalid_argument if shapes do not fit.
/// Memory:  the whole Tk x Tq matrix of scores.
/// Source:  Vaswani et al. 2017, arXiv:1706.03762v7, equation (1).
template <DenseExpression Queries, DenseExpression Keys, DenseExpression Values, class... Encodings>
auto attend(const Queries& q, const Keys& k, const Values& v, const AttentionOptions& options,
            const Encodings&... encodings) {
  using Scalar = detail::compute_t<typename Queries::Scalar>;
  detail::require_size(v.cols(), k.cols(), "posenc::attend: columns of the values must be those of the keys");
  const Matrix<Scalar> weights = attention_weights(q, k, options, encodings...);
  Matrix<Scalar> outputs(v.rows(), q.cols());
  detail::for_blocks_of_queries(q.cols(), [&](Index begin, Index n) {
    auto some = outputs.middleCols(begin, n);
    some.noalias() = v.template cast<Scalar>().matrix() * weights.middleCols(begin, n);
    (detail::add_values<Scalar>(encodings, some, weights.middleCols(begin, n), options.key_positions,
                                options.query_positions.segment(begin, n), options.head),
     ...);
  });
  return outputs;
}

/// Self-attention: queries and keys at the same positions.
template <DenseExpression Queries, DenseExpression Keys, DenseExpression Values, class... Encodings>
auto attend(const Queries& q, const Keys& k, const Values& v, const Positions& positions,
            const Encodings&... encodings) {
  return attend(q, k, v, AttentionOptions{.query_positions = positions, .key_positions = positions}, encodings...);
}

}  // namespace posenc::inline v0
