// SPDX-License-Identifier: MIT

// Whole layers with linear biases: alibi_attention.

#include <posenc/alibi.hpp>

#include <cmath>
#include <cstdint>
#include <string>
#include <utility>

#include <posenc/attention.hpp>
#include <posenc/multi_head_attention.hpp>

#include "files.hpp"
#include "heads.hpp"
#include "layers.hpp"

namespace golden {
namespace {

using posenc::Alibi;
using posenc::AlibiForm;
using posenc::Positions;
using posenc::ProjectionWeights;

const Tolerance of_layers = Tolerance::absolute(2e-5);
const Tolerance of_biases = Tolerance::relative(1e-6);

/// How the rows of a fused projection are divided.
struct FusedHeads {
  std::string layout;
  Index num_heads, num_kv_heads, head_dim;

  /// The rows of all queries (part 0), keys (1) or values (2).
  Matrix<float> part(const Matrix<float>& fused, Index part) const {
    const Index queries = num_heads * head_dim, keys = num_kv_heads * head_dim;
    if (fused.rows() != queries + 2 * keys) throw UnknownKind("fused weights of other heads");
    if (layout == "rows [q(all heads), k(all heads), v(all heads)]" ||
        layout == "rows: all query heads, then one key head, then one value head")
      return part == 0 ? fused.topRows(queries) : fused.middleRows(queries + (part - 1) * keys, keys);
    if (layout == "rows grouped per head: [head][q,k,v][head_dim]" && num_kv_heads == num_heads) {
      Matrix<float> rows(queries, fused.cols());
      for (Index head = 0; head < num_heads; ++head)
        rows.middleRows(head * head_dim, head_dim) = fused.middleRows((3 * head + part) * head_dim, head_dim);
      return rows;
    }
    throw UnknownKind("qkv_layout " + layout);
  }
};

/// One peer's layer: fused weights and what comes behind them.
Layer fused_layer(Case& c) {
  const auto num_heads = c.get<Index>("n_heads");
  const FusedHeads heads{.layout = c.get<std::string>("qkv_layout"),
                         .num_heads = num_heads,
                         .num_kv_heads = c.get_or("n_kv_heads", num_heads),
                         .head_dim = c.get<Index>("head_dim")};
  const Matrix<float> fused = linear_weight(c, "Wqkv");
  ProjectionWeights<float> weights{.query = heads.part(fused, 0),
                                   .key = heads.part(fused, 1),
                                   .value = heads.part(fused, 2),
                                   .output = linear_weight(c, c.has_array("out_proj") ? "out_proj" : "dense_w")};
  if (c.has_array("bqkv")) {
    const Matrix<float> bias = vector(c, "bqkv");
    weights.query_bias = heads.part(bias, 0);
    weights.key_bias = heads.part(bias, 1);
    weights.value_bias = heads.part(bias, 2);
  }
  if (c.has_array("dense_b")) weights.output_bias = vector(c, "dense_b");
  return {std::move(weights), {.num_heads = num_heads, .num_kv_heads = heads.num_kv_heads}};
}

/// One batch of the layer with a bias, against the peer's weights, its heads before the output map, and its output.
template <class Bias>
void compare_batch(Case& c, const Layer& layer, const Positions& positions, Index batch, const Bias& bias) {
  const auto visible = c.array<std::int64_t>("visible");
  const auto probs = c.array<float>("probs"), output = c.array<float>("output"), context = c.array<float>("context");
  const auto input = self_attention(c.array<float>("hidden_states").at(batch), positions);
  Layer without_output = layer;
  without_output.weights.output.setIdentity(layer.weights.query.rows(), layer.weights.query.rows());
  without_output.weights.output_bias.resize(0);
  with_masks(visible, batch, positions, positions, [&](const std::string& suffix, const auto&... masks) {
    compare_layer(c, suffix, of_layers, layer, input, batch, probs, output, bias, masks...);
    compare_layer(c, suffix + ", heads", of_layers, without_output, input, batch, probs, context, bias, masks...);
  });
}

/// The bias [heads, 1, key] of a peer against ours, which is the same for every query.
template <class Scalar = float>
void compare_bias(Case& c, const std::string& check, const Tolerance& tolerance, const Alibi& alibi,
                  const Positions& keys, const Tensor<float>& peer) {
  for (Index head = 0; head < alibi.num_heads(); ++head)
    c.compare(check, tolerance, posenc::bias_matrix<Scalar>(alibi, keys, posenc::positions(1), head), peer.at(head));
}

/// MPT: slope (n - last key).
void mpt(Case& c) {
  const auto layer = fused_layer(c);
  const Index num_tokens = c.array<float>("hidden_states").size(1);
  const Positions positions = posenc::positions(num_tokens);
  const Alibi alibi({.num_heads = layer.options.num_heads, .form = AlibiForm::key_only, .anchor = num_tokens - 1});
  compare_bias(c, "bias", of_biases, alibi, positions, c.array<float>("bias"));
  for (Index batch = 0; batch < c.array<float>("hidden_states").size(0); ++batch)
    compare_batch(c, layer, positions, batch, alibi);
}

/// Bloom, Falcon: slope n, where n counts what is not padding. Falcon rounds to bfloat16, and its bias is divided by
/// sqrt(head_dim) as the scores are; so its layer is compared with the bias that it gives.
void bloom_or_falcon(Case& c, bool is_falcon) {
  const auto layer = fused_layer(c);
  const Alibi alibi({.num_heads = layer.options.num_heads, .form = AlibiForm::key_only});
  const auto mask = c.array<std::int64_t>("attention_mask");
  const auto peer = c.array<float>("alibi");  // [batch, heads, 1, key]
  for (Index batch = 0; batch < mask.size(0); ++batch) {
    const auto positions = posenc::padded_positions(mask.row(batch));
    Tensor<float> given({peer.size(1), peer.size(2), peer.size(3)},
                        {&peer(batch, 0, 0, 0), &peer(batch, 0, 0, 0) + peer.size() / peer.size(0)});
    if (is_falcon) {
      compare_bias<Eigen::bfloat16>(c, "bias, bfloat16", Tolerance::relative(0x1p-7), alibi, positions, given);
      compare_batch(c, layer, positions, batch,
                    GivenBias(given, 1 / std::sqrt(static_cast<float>(c.get<Index>("head_dim")))));
    } else {
      compare_bias(c, "bias", of_biases, alibi, positions, given);
      compare_batch(c, layer, positions, batch, alibi);
    }
  }
}

/// OpenNMT-py: heads as they are, -slope |m - n|, the queries at the end of the keys.
void symmetric(Case& c) {
  const Heads q = heads(c, "q"), k = heads(c, "k"), v = heads(c, "v"), out = heads(c, "out");
  const auto peer_scores = c.array<float>("scores"), probs = c.array<float>("probs");
  c.expect("q_len", q.num_tokens());
  c.expect("k_len", k.num_tokens());
  c.expect("head_dim", q.head_dim());
  const Alibi alibi(c.get<Index>("n_heads"));
  const Positions keys = posenc::positions(k.num_tokens());
  const Positions queries = posenc::positions(q.num_tokens(), k.num_tokens() - q.num_tokens());
  for (Index batch = 0; batch < q.num_batches(); ++batch)
    for (Index head = 0; head < q.num_heads(); ++head) {
      Matrix<float> scores = k(batch, head).transpose() * q(batch, head) / std::sqrt(static_cast<float>(q.head_dim()));
      alibi(scores, keys, queries, head);
      c.compare("scores", of_layers, scores, peer_scores.at(batch, head));
      const posenc::AttentionOptions options{
          .query_positions = queries, .key_positions = keys, .head = head, .kv_head = head};
      c.compare("weights", of_layers, posenc::attention_weights(q(batch, head), k(batch, head), options, alibi),
                probs.at(batch, head));
      attend_both_ways(
          q(batch, head), k(batch, head), v(batch, head), options,
          [&](const std::string& way, const Matrix<float>& output) {
            c.compare("output" + way, of_layers, output, out(batch, head));
          },
          alibi);
    }
}

}  // namespace

/// The peer is the first word of a case's name: Bloom's and Falcon's cases look alike and mean different things.
void alibi_attention(Case& c) {
  const auto peer = c.peer();
  c.expect("causal", peer != "onmt");
  if (peer == "mpt")
    mpt(c);
  else if (peer == "bloom" || peer == "falcon")
    bloom_or_falcon(c, peer == "falcon");
  else if (peer == "onmt")
    symmetric(c);
  else
    throw UnknownKind("peer " + peer);
}

}  // namespace golden
