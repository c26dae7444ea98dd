// SPDX-License-Identifier: MIT
#pragma once

// What the cases of whole attention layers share: masks and biases that come as data, and the comparison of a layer
// or a head.

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include <posenc/attention.hpp>
#include <posenc/bias_matrix.hpp>
#include <posenc/concepts.hpp>
#include <posenc/masks.hpp>
#include <posenc/multi_head_attention.hpp>
#include <posenc/streaming_attention.hpp>

#include "golden.hpp"

namespace golden {

/// A mask of a peer, [1 or batch, 1 or heads, query, key]: 1 where a query may attend. An encoding of the runner's own,
/// as a user would write it: it goes by token, not by position, so that it works on tiles and behind a cache.
class VisibleMask {
 public:
  VisibleMask(const Tensor<std::int64_t>& visible, Index batch)
      : visible_(&visible), batch_(visible.size(0) == 1 ? 0 : batch) {}

  template <posenc::MutableDense Scores>
  void add_bias(Scores&& scores, const posenc::Positions& keys, const posenc::Positions& queries, Index head) const {
    for (Index query = 0; query < scores.cols(); ++query)
      for (Index key = 0; key < scores.rows(); ++key)
        if (!is_visible(keys.token(key), queries.token(query), head))
          scores(key, query) = -std::numeric_limits<float>::infinity();
  }

  bool is_visible(Index key, Index query, Index head) const {
    return (*visible_)(batch_, visible_->size(1) == 1 ? 0 : head, query, key) != 0;
  }

 private:
  const Tensor<std::int64_t>* visible_;
  Index batch_;
};
static_assert(posenc::ScoreBias<VisibleMask>);

/// A bias of a peer, [heads, 1 or query, key], added as it is given, times a factor.
class GivenBias {
 public:
  explicit GivenBias(Tensor<float> bias, float factor = 1) : bias_(std::move(bias)), factor_(factor) {}

  template <posenc::MutableDense Scores>
  void add_bias(Scores&& scores, const posenc::Positions& keys, const posenc::Positions& queries, Index head) const {
    for (Index query = 0; query < scores.cols(); ++query)
      for (Index key = 0; key < scores.rows(); ++key)
        scores(key, query) += factor_ * bias_(head, bias_.size(1) == 1 ? 0 : queries.token(query), keys.token(key));
  }

 private:
  Tensor<float> bias_;
  float factor_;
};
static_assert(posenc::ScoreBias<GivenBias>);

/// Calls f(suffix, masks...) with the peer's mask as data, and once more with this library's masks if they hide the
/// same: padding, or padding and what comes after the query. The suffix is for the name of a check.
template <class F>
void with_masks(const Tensor<std::int64_t>& visible, Index batch, const posenc::Positions& keys,
                const posenc::Positions& queries, F f) {
  const VisibleMask given(visible, batch);
  f("", given);
  if (visible.size(1) != 1) return;

  std::vector<bool> any_query_sees(static_cast<std::size_t>(keys.size()));
  for (Index key = 0; key < keys.size(); ++key)
    for (Index query = 0; query < queries.size(); ++query)
      if (given.is_visible(key, query, 0)) any_query_sees[static_cast<std::size_t>(key)] = true;
  const posenc::PaddingMask padding(any_query_sees);
  const Matrix<float> hidden = posenc::bias_matrix<float>(given, keys, queries);
  Matrix<float> ours = posenc::bias_matrix<float>(padding, keys, queries);
  if (ours == hidden) f(", own masks", padding);
  posenc::CausalMask{}(ours, keys, queries);
  if (ours == hidden) f(", own masks", padding, posenc::CausalMask{});
}

/// A weight of a linear map, [out, in] in the file and in memory row-major, as out x in.
inline Matrix<float> linear_weight(const Tensor<float>& weight) { return weight.matrix().transpose(); }
inline Matrix<float> linear_weight(Case& c, const std::string& array) { return linear_weight(c.array<float>(array)); }
inline Vector<float> vector(Case& c, const std::string& array) { return c.array<float>(array).matrix().reshaped(); }

/// What a layer is given, for one batch: features x tokens, and where the tokens are.
struct LayerInput {
  Matrix<float> query, key, value;
  posenc::Positions query_positions, key_positions;
};

inline LayerInput self_attention(Matrix<float> x, const posenc::Positions& positions) {
  return {x, x, x, positions, positions};
}

/// What a layer is made of, but for its encodings.
struct Layer {
  posenc::ProjectionWeights<float> weights;
  posenc::MultiHeadAttentionOptions options;
};

/// A layer with some encodings against the peer's output [batch, query, features] and weights [batch, heads, query,
/// key]; the output as the reference attention makes it and as the streaming one does.
template <class... Encodings>
void compare_layer(Case& c, const std::string& suffix, const Tolerance& tolerance, Layer of, const LayerInput& input,
                   Index batch, const Tensor<float>& weights, const Tensor<float>& output,
                   const Encodings&... encodings) {
  for (const bool is_streaming : {false, true}) {
    of.options.algorithm = is_streaming ? posenc::AttentionAlgorithm::streaming : posenc::AttentionAlgorithm::reference;
    const posenc::MultiHeadAttention layer(of.weights, of.options, encodings...);
    if (!is_streaming)
      for (Index head = 0; head < layer.num_heads(); ++head)
        c.compare("weights" + suffix, tolerance,
                  layer.weights(input.query, input.key, input.query_positions, input.key_positions, head),
                  weights.at(batch, head));
    c.compare("output" + suffix + (is_streaming ? ", streamed" : ""), tolerance,
              layer(input.query, input.key, input.value, input.query_positions, input.key_positions), output.at(batch));
  }
}

/// Calls f(suffix, output) with the output of one head as the reference attention makes it, and as the streaming one
/// does.
template <class Queries, class Keys, class Values, class F, class... Encodings>
void attend_both_ways(const Queries& q, const Keys& k, const Values& v, const posenc::AttentionOptions& options, F f,
                      const Encodings&... encodings) {
  f("", posenc::attend(q, k, v, options, encodings...));
  f(", streamed", posenc::streaming_attend(q, k, v, options, encodings...));
}

}  // namespace golden
