// SPDX-License-Identifier: MIT

// Attention with nothing but masks and RoPE in it: attention_core, mha_torch, mha_llama.

#include <posenc/attention.hpp>

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <posenc/alibi.hpp>
#include <posenc/multi_head_attention.hpp>
#include <posenc/rope.hpp>

#include "files.hpp"
#include "heads.hpp"
#include "layers.hpp"
#include "rotations.hpp"

namespace golden {
namespace {

using posenc::AttentionOptions;
using posenc::Positions;
using posenc::ProjectionWeights;

/// What is left of a large score's digits, rounded to float by the peer and by us, is what its weight may differ by.
Tolerance of_scores(double largest) {
  return Tolerance::absolute(std::max(5e-6, 0x1p-22 * largest), "5e-6, 2^-22 |score|");
}

/// Llama's layer, `chunks` tokens at a time: keys are rotated once and kept. Returns the output of all tokens.
template <class Mask>
Matrix<float> in_chunks(const ProjectionWeights<float>& weights, const posenc::Rope& rope, Index num_kv_heads,
                        const Matrix<float>& x, const Positions& positions, const std::vector<Index>& chunks,
                        const Mask& mask, Matrix<float>& keys, Matrix<float>& values) {
  const Index dim = rope.head_dim(), num_heads = weights.query.rows() / dim;
  keys.resize(weights.key.rows(), 0);
  values.resize(weights.value.rows(), 0);
  Matrix<float> output(weights.output.rows(), 0);
  for (const Index chunk : chunks) {
    const Index begin = keys.cols(), end = begin + chunk;
    const Positions here = positions.segment(begin, chunk);
    Matrix<float> queries = weights.query * x.middleCols(begin, chunk);
    rope(queries, here);

    keys.conservativeResize(Eigen::NoChange, end);
    values.conservativeResize(Eigen::NoChange, end);
    keys.rightCols(chunk) = weights.key * x.middleCols(begin, chunk);
    values.rightCols(chunk) = weights.value * x.middleCols(begin, chunk);
    rope(keys.rightCols(chunk), here);

    Matrix<float> heads(queries.rows(), chunk);
    for (Index head = 0; head < num_heads; ++head) {
      const Index kv_head = head / (num_heads / num_kv_heads);
      heads.middleRows(head * dim, dim) =
          posenc::attend(queries.middleRows(head * dim, dim), keys.middleRows(kv_head * dim, dim),
                         values.middleRows(kv_head * dim, dim),
                         {.query_positions = here, .key_positions = positions.segment(0, end), .head = head}, mask);
    }
    output.conservativeResize(Eigen::NoChange, end);
    output.rightCols(chunk) = weights.output * heads;
  }
  return output;
}

}  // namespace

/// Heads with a scale and a mask, some with a soft cap or a sink. Where all keys of a query are hidden the peer
/// averages, and this library gives zeros: that is required of these, and the others are compared.
void attention_core(Case& c) {
  const Heads q = heads(c, "q"), k = heads(c, "k"), v = heads(c, "v");
  const Heads out = heads(c, "out", posenc::TensorLayout::bthd);
  const auto visible = c.array<std::int64_t>("visible");
  const auto probs = c.array<float>("probs");
  c.expect("n_heads", q.num_heads());
  c.expect("n_kv_heads", k.num_heads());
  c.expect("head_dim", q.head_dim());
  const auto scale = c.get<double>("scale");
  const double soft_cap = c.get_or("softcap", 0.0);
  const bool has_sinks = c.has_array("sinks");
  const auto sinks = has_sinks ? vector(c, "sinks") : Vector<float>();

  // Queries are at the end of the keys.
  const Positions keys = posenc::positions(k.num_tokens());
  const Positions queries = posenc::positions(q.num_tokens(), k.num_tokens() - q.num_tokens());
  for (Index batch = 0; batch < q.num_batches(); ++batch)
    with_masks(visible, batch, keys, queries, [&](const std::string& suffix, const auto&... masks) {
      const VisibleMask mask(visible, batch);
      for (Index head = 0; head < q.num_heads(); ++head) {
        const Index kv_head = head / (q.num_heads() / k.num_heads());
        AttentionOptions options{.query_positions = queries,
                                 .key_positions = keys,
                                 .scale = scale,
                                 .soft_cap = soft_cap,
                                 .head = head,
                                 .kv_head = kv_head};
        if (has_sinks) options.sink = static_cast<double>(sinks[head]);
        const Tolerance tolerance =
            of_scores(scale * (k(batch, kv_head).transpose() * q(batch, head)).cwiseAbs().maxCoeff());
        const Matrix<float> weights = posenc::attention_weights(q(batch, head), k(batch, kv_head), options, masks...);
        const auto compare = [&](const std::string& check, const Matrix<float>& ours, const auto& peer) {
          for (Index query = 0; query < queries.size(); ++query) {
            bool sees_any = false;
            for (Index key = 0; key < keys.size(); ++key) sees_any = sees_any || mask.is_visible(key, query, head);
            if (sees_any)
              c.compare(check, tolerance, ours.col(query), peer.col(query));
            else
              c.require("zeros where all is hidden: " + check, ours.col(query).isZero(0));
          }
        };
        compare("weights" + suffix, weights, probs.at(batch, head));
        attend_both_ways(
            q(batch, head), k(batch, kv_head), v(batch, kv_head), options,
            [&](const std::string& way, const Matrix<float>& output) {
              compare("output" + suffix + way, output, out(batch, head));
            },
            masks...);
      }
    });
}

/// torch.nn.MultiheadAttention: biases, inputs of different widths, masks, and a bias of the scores for each head.
void torch_multi_head_attention(Case& c) {
  const auto tolerance = Tolerance::absolute(2e-5);
  const auto embed_dim = c.get<Index>("embed_dim");
  ProjectionWeights<float> weights{.query = {}, .key = {}, .value = {}, .output = linear_weight(c, "out_proj_weight")};
  if (c.has_array("in_proj_bias")) {  // not where the module was made without biases
    const Vector<float> in_bias = vector(c, "in_proj_bias");
    weights.query_bias = in_bias.head(embed_dim);
    weights.key_bias = in_bias.segment(embed_dim, embed_dim);
    weights.value_bias = in_bias.tail(embed_dim);
  }
  if (c.has_array("out_proj_bias")) weights.output_bias = vector(c, "out_proj_bias");
  if (c.has_array("in_proj_weight")) {
    const Matrix<float> in = linear_weight(c, "in_proj_weight");
    weights.query = in.topRows(embed_dim);
    weights.key = in.middleRows(embed_dim, embed_dim);
    weights.value = in.bottomRows(embed_dim);
  } else {
    weights.query = linear_weight(c, "q_proj_weight");
    weights.key = linear_weight(c, "k_proj_weight");
    weights.value = linear_weight(c, "v_proj_weight");
  }
  c.expect("kdim", weights.key.cols());
  c.expect("vdim", weights.value.cols());
  const posenc::MultiHeadAttentionOptions options{.num_heads = c.get<Index>("heads")};

  const auto query = c.array<float>("query"), key = c.array<float>("key"), value = c.array<float>("value");
  const auto visible = c.array<std::int64_t>("visible");
  const auto peer_weights = c.array<float>("weights"), out = c.array<float>("out");
  const Positions queries = posenc::positions(query.size(1)), keys = posenc::positions(key.size(1));
  for (Index batch = 0; batch < query.size(0); ++batch) {
    const LayerInput input{query.at(batch), key.at(batch), value.at(batch), queries, keys};
    with_masks(visible, batch, keys, queries, [&](const std::string& suffix, const auto&... masks) {
      const auto compare = [&](const std::string& with, const auto&... biases) {
        compare_layer(c, suffix + with, tolerance, {weights, options}, input, batch, peer_weights, out, biases...,
                      masks...);
      };
      if (!c.has_array("bias")) return compare("");
      const auto bias = c.array<float>("bias");
      compare("", GivenBias(bias));
      if (c.peer() != "alibi") return;
      const posenc::Alibi alibi(options.num_heads);
      for (Index head = 0; head < options.num_heads; ++head)
        c.compare("bias", Tolerance::relative(1e-6), posenc::bias_matrix<float>(alibi, keys, queries, head),
                  bias.at(head));
      compare(", Alibi", alibi);
    });
  }
}

/// Llama of Hugging Face: all tokens at once, and in chunks behind a cache.
void llama_layer(Case& c) {
  const auto tolerance = Tolerance::absolute(5e-5);
  const auto head_dim = c.get<Index>("head_dim");
  const posenc::Rope rope(
      scheduled_frequencies(c.json("rope_parameters"),
                            {.head_dim = head_dim,
                             .max_position_embeddings = c.get<Index>("max_position_embeddings"),
                             .num_tokens = 1 + c.array<std::int64_t>("position_ids").matrix().maxCoeff()}),
      {.head_dim = head_dim});
  c.compare("frequencies", Tolerance::relative(5e-6), rope.frequencies().values, c.array<float>("inv_freq").matrix());
  c.compare("magnitude", Tolerance::relative(1e-12), Matrix<double>::Constant(1, 1, rope.frequencies().magnitude),
            c.array<double>("attention_scaling").matrix());

  const ProjectionWeights<float> weights{.query = linear_weight(c, "w_q"),
                                         .key = linear_weight(c, "w_k"),
                                         .value = linear_weight(c, "w_v"),
                                         .output = linear_weight(c, "w_o")};
  c.expect("hidden", weights.query.cols());
  const posenc::MultiHeadAttentionOptions options{.num_heads = c.get<Index>("n_heads"),
                                                  .num_kv_heads = c.get<Index>("n_kv_heads")};
  const auto chunks = c.get<std::vector<Index>>("chunks");

  const auto x = c.array<float>("x");
  const auto position_ids = c.array<std::int64_t>("position_ids"), visible = c.array<std::int64_t>("visible");
  const auto probs = c.array<float>("probs"), full = c.array<float>("full"), step = c.array<float>("step");
  const auto cached_keys = c.array<float>("cached_k"), cached_values = c.array<float>("cached_v");
  for (Index batch = 0; batch < x.size(0); ++batch) {
    const Positions positions = position_ids.row(batch);
    const auto input = self_attention(x.at(batch), positions);
    with_masks(visible, batch, positions, positions, [&](const std::string& suffix, const auto&... masks) {
      compare_layer(c, suffix, tolerance, {weights, options}, input, batch, probs, full, rope, masks...);
    });

    Matrix<float> keys, values;
    const Matrix<float> output = in_chunks(weights, rope, options.num_kv_heads, input.query, positions, chunks,
                                           VisibleMask(visible, batch), keys, values);
    c.compare("output in chunks", tolerance, output, step.at(batch));
    for (Index head = 0; head < options.num_kv_heads; ++head) {
      const Index dim = rope.head_dim();
      c.compare("cached keys", tolerance, keys.middleRows(head * dim, dim), cached_keys.at(batch, head));
      c.compare("cached values", tolerance, values.middleRows(head * dim, dim), cached_values.at(batch, head));
    }
  }
}

}  // namespace golden
