// SPDX-License-Identifier: MIT

// Relative representations of keys and values: shaw_*. Some of the peers' layers have other encodings to choose from as
// well, which are checked here with them.

#include <posenc/clipped_relative.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <utility>

#include <posenc/alibi.hpp>
#include <posenc/attention.hpp>
#include <posenc/multi_head_attention.hpp>
#include <posenc/rope.hpp>
#include <posenc/rope_table.hpp>
#include <posenc/sinusoidal.hpp>
#include <posenc/t5_bias.hpp>

#include "files.hpp"
#include "heads.hpp"
#include "layers.hpp"

namespace golden {
namespace {

using posenc::AttentionOptions;
using posenc::ClippedRelative;
using posenc::MultiHeadAttentionOptions;
using posenc::Positions;
using posenc::ProjectionWeights;

/// The column of the table for each key and query, read off a table of one feature that holds its own column numbers.
void index_matrix(Case& c) {
  const auto max_relative = c.get<Index>("max_relative");
  const Matrix<double> table =
      Vector<double>::LinSpaced(2 * max_relative + 1, 0, static_cast<double>(2 * max_relative)).transpose();
  const ClippedRelative<double> relative(table, {});
  const auto num_queries = c.get<Index>("q_len"), num_keys = c.get<Index>("k_len");
  const Positions keys = posenc::positions(num_keys), queries = posenc::positions(num_queries, num_keys - num_queries);
  Matrix<double> scores = Matrix<double>::Zero(num_keys, num_queries);
  const Matrix<double> ones = Matrix<double>::Ones(1, std::max(num_keys, num_queries));
  relative.add_scores(scores, ones.leftCols(num_keys), ones.leftCols(num_queries), keys, queries);
  c.compare("index", Tolerance::exact(), scores, c.array<std::int64_t>("index").matrix());
}

/// Transformer-XL's scores, an encoding of the runner's own: a projected sinusoid R for each distance from key to
/// query, and two biases in the place of the query's own position.
///
///   S(n, m) = q_m . k_n  +  u_h . k_n  +  (q_m + v_h) . R_h(m - n)
///
/// Column r of `relative` is distance num_tokens - 1 - r; head h is rows h D, ..., (h + 1) D - 1 of it, and column h of
/// u and v.
class TransformerXl {
 public:
  TransformerXl(Matrix<float> u, Matrix<float> v, Matrix<float> relative)
      : u_(std::move(u)), v_(std::move(v)), relative_(std::move(relative)) {}

  template <posenc::MutableDense Scores, posenc::DenseExpression Keys, posenc::DenseExpression Queries>
  void add_scores(Scores&& scores, const Keys& keys, const Queries& queries, const Positions& key_positions,
                  const Positions& query_positions, Index head) const {
    const auto relative = relative_.middleRows(head * u_.rows(), u_.rows());
    const Index zero_distance = (relative.cols() - 1) / 2;
    for (Index query = 0; query < scores.cols(); ++query)
      for (Index key = 0; key < scores.rows(); ++key) {
        const Index column = zero_distance - (query_positions[query] - key_positions[key]);
        scores(key, query) +=
            keys.col(key).dot(u_.col(head)) + (queries.col(query) + v_.col(head)).dot(relative.col(column));
      }
  }

 private:
  Matrix<float> u_, v_, relative_;
};
static_assert(posenc::ScoreTerm<TransformerXl>);

}  // namespace

/// tensor2tensor: tables for keys and values, and no scale.
void shaw_tensor2tensor(Case& c) {
  if (c.has_array("index")) return index_matrix(c);
  const auto mode = c.get<std::string>("mode");
  if (mode != "self" && mode != "memory" && mode != "cache" && mode != "pad") throw UnknownKind("mode " + mode);
  c.get<bool>("causal");  // `visible` says it

  const auto tolerance = Tolerance::absolute(5e-6);
  const Heads q = heads(c, "q"), k = heads(c, "k"), v = heads(c, "v"), out = heads(c, "out");
  const auto rel_k = c.array<float>("rel_k"), rel_v = c.array<float>("rel_v");
  const ClippedRelative<float> relative(rel_k.matrix(), rel_v.matrix());
  c.expect("batch", q.num_batches());
  c.expect("heads", q.num_heads());
  c.expect("q_len", q.num_tokens());
  c.expect("k_len", k.num_tokens());
  c.expect("head_dim", q.head_dim());
  c.expect("max_relative", relative.max_left());
  const auto visible = c.array<std::int64_t>("visible");
  const auto logits = c.array<float>("logits"), peer_weights = c.array<float>("weights");

  const Positions keys = posenc::positions(k.num_tokens());
  const Positions queries = posenc::positions(q.num_tokens(), c.get<std::int64_t>("query_offset"));
  for (Index batch = 0; batch < q.num_batches(); ++batch)
    for (Index head = 0; head < q.num_heads(); ++head) {
      Matrix<float> scores = k(batch, head).transpose() * q(batch, head);
      relative.add_scores(scores, k(batch, head), q(batch, head), keys, queries, head);
      const VisibleMask mask(visible, batch);
      for (Index query = 0; query < scores.cols(); ++query)
        for (Index key = 0; key < scores.rows(); ++key)
          if (!mask.is_visible(key, query, head)) scores(key, query) = 0;
      c.compare("logits", tolerance, scores, logits.at(batch, head));

      with_masks(visible, batch, keys, queries, [&](const std::string& suffix, const auto&... masks) {
        const AttentionOptions options{
            .query_positions = queries, .key_positions = keys, .scale = 1, .head = head, .kv_head = head};
        c.compare("weights" + suffix, tolerance,
                  posenc::attention_weights(q(batch, head), k(batch, head), options, relative, masks...),
                  peer_weights.at(batch, head));
        attend_both_ways(
            q(batch, head), k(batch, head), v(batch, head), options,
            [&](const std::string& way, const Matrix<float>& output) {
              c.compare("output" + suffix + way, tolerance, output, out(batch, head));
            },
            relative, masks...);
      });
    }
}

/// OpenNMT-py: one layer with a choice of encodings, told by max_relative_positions. Its clipped-relative mode has one
/// table for keys and values.
void shaw_opennmt(Case& c) {
  const auto tolerance = Tolerance::absolute(5e-6);
  const ProjectionWeights<float> weights{.query = linear_weight(c, "w_q"),
                                         .key = linear_weight(c, "w_k"),
                                         .value = linear_weight(c, "w_v"),
                                         .output = linear_weight(c, "w_o")};
  c.expect("model_dim", weights.query.cols());
  const MultiHeadAttentionOptions options{.num_heads = c.get<Index>("heads"),
                                          .num_kv_heads = c.get_or<Index>("num_kv", 0)};
  const bool bidirectional = c.get<bool>("bidirectional");  // of the buckets only

  const auto x = c.array<float>("x"), attn = c.array<float>("attn"), out = c.array<float>("out");
  const auto visible = c.array<std::int64_t>("visible");
  const Positions positions = posenc::positions(x.size(1));
  const auto compare_with = [&](const auto&... encodings) {
    for (Index batch = 0; batch < x.size(0); ++batch)
      with_masks(visible, batch, positions, positions, [&](const std::string& suffix, const auto&... masks) {
        compare_layer(c, suffix, tolerance, {weights, options}, self_attention(x.at(batch), positions), batch, attn,
                      out, encodings..., masks...);
      });
  };

  const auto mode = c.get<int>("max_relative_positions");
  if (c.get_or<Index>("relative_positions_buckets", 0) > 0) {
    const posenc::T5Bias bias(
        c.array<float>("bias_table").matrix(),
        {.num_buckets = c.get<Index>("relative_positions_buckets"),
         .max_distance = mode,
         .direction = bidirectional ? posenc::T5Direction::bidirectional : posenc::T5Direction::causal,
         .arithmetic = posenc::T5Arithmetic::float32});
    const auto bucket = c.array<std::int64_t>("bucket");  // [query, key]
    for (Index query = 0; query < bucket.size(0); ++query)
      for (Index key = 0; key < bucket.size(1); ++key)
        c.require("bucket", bias.bucket(positions[key] - positions[query]) == bucket(query, key));
    compare_with(bias);
  } else if (mode > 0) {
    const auto rel = c.array<float>("rel");
    const ClippedRelative<float> relative(rel.matrix(), rel.matrix());
    c.require("clipping distance", relative.max_left() == mode);
    compare_with(relative);
  } else if (mode == -1) {
    const auto layout =
        c.get<bool>("rotary_interleave") ? posenc::PairLayout::interleaved : posenc::PairLayout::half_split;
    compare_with(posenc::Rope({.head_dim = weights.query.rows() / options.num_heads,
                               .rotary_dim = c.get_or<Index>("rotary_dim", 0),
                               .base = c.get_or("rotary_theta", 1e4),
                               .layout = layout}));
  } else if (mode == -2) {
    compare_with(posenc::Alibi(options.num_heads));
  } else if (mode == 0) {
    compare_with();
  } else {
    throw UnknownKind("max_relative_positions " + std::to_string(mode));
  }
}

/// BERT's relative_key and relative_key_query. A single query behind a cache is at the last key.
void shaw_bert(Case& c) {
  const auto tolerance = Tolerance::absolute(5e-6);
  const auto type = c.get<std::string>("type");
  if (type != "relative_key" && type != "relative_key_query") throw UnknownKind("type " + type);
  const auto embedding = c.array<float>("distance_embedding");
  c.expect("max_position_embeddings", (embedding.size(0) + 1) / 2);
  const auto relative =
      ClippedRelative<float>::bert(embedding.matrix(), type == "relative_key" ? posenc::RelativeScores::query
                                                                              : posenc::RelativeScores::query_and_key);

  const Heads q = heads(c, "q"), k = heads(c, "k"), v = heads(c, "v"), out = heads(c, "out", axes(c, "out_axes"));
  c.expect("heads", q.num_heads());
  c.expect("head_dim", q.head_dim());
  const auto visible = c.array<std::int64_t>("visible");
  const auto probs = c.array<float>("probs");
  const Positions keys = posenc::positions(k.num_tokens());
  const std::int64_t first_query = c.get<bool>("use_cache") ? k.num_tokens() - q.num_tokens() : 0;
  const Positions queries = posenc::positions(q.num_tokens(), first_query);
  for (Index batch = 0; batch < q.num_batches(); ++batch)
    with_masks(visible, batch, keys, queries, [&](const std::string& suffix, const auto&... masks) {
      for (Index head = 0; head < q.num_heads(); ++head) {
        const AttentionOptions options{
            .query_positions = queries, .key_positions = keys, .head = head, .kv_head = head};
        c.compare("weights" + suffix, tolerance,
                  posenc::attention_weights(q(batch, head), k(batch, head), options, relative, masks...),
                  probs.at(batch, head));
        attend_both_ways(
            q(batch, head), k(batch, head), v(batch, head), options,
            [&](const std::string& way, const Matrix<float>& output) {
              c.compare("output" + suffix + way, tolerance, output, out(batch, head));
            },
            relative, masks...);
      }
    });
}

/// Wav2Vec2-BERT: a layer with three encodings to choose from.
void shaw_wav2vec2_bert(Case& c) {
  const auto tolerance = Tolerance::absolute(3e-5);
  const ProjectionWeights<float> weights{.query = linear_weight(c, "w_linear_q_weight"),
                                         .key = linear_weight(c, "w_linear_k_weight"),
                                         .value = linear_weight(c, "w_linear_v_weight"),
                                         .output = linear_weight(c, "w_linear_out_weight"),
                                         .query_bias = vector(c, "w_linear_q_bias"),
                                         .key_bias = vector(c, "w_linear_k_bias"),
                                         .value_bias = vector(c, "w_linear_v_bias"),
                                         .output_bias = vector(c, "w_linear_out_bias")};
  const MultiHeadAttentionOptions options{.num_heads = c.get<Index>("heads")};
  c.expect("head_dim", weights.query.rows() / options.num_heads);
  const auto x = c.array<float>("x"), out = c.array<float>("out"), probs = c.array<float>("probs");
  const Index num_tokens = x.size(1), head_dim = weights.query.rows() / options.num_heads;
  const Positions positions = posenc::positions(num_tokens);
  const auto compare_with = [&](const auto& encoding) {
    for (Index batch = 0; batch < x.size(0); ++batch)
      compare_layer(c, "", tolerance, {weights, options}, self_attention(x.at(batch), positions), batch, probs, out,
                    encoding);
  };

  const auto type = c.get<std::string>("type");
  if (type == "relative_key") {  // a table for keys only, which clips left and right at different distances
    const ClippedRelative<float> relative(c.array<float>("w_distance_embedding_weight").matrix(), {},
                                          {.max_left = c.get<Index>("left_max")});
    c.expect("right_max", relative.max_right());
    compare_with(relative);
  } else if (type == "relative") {
    const auto given = c.array<float>("relative_position_embeddings");  // [1, 2 T - 1, features]
    const posenc::Sinusoidal sinusoidal({.dim = given.size(2)});
    std::vector<std::int64_t> distances;
    for (std::int64_t distance = num_tokens - 1; distance > -num_tokens; --distance) distances.push_back(distance);
    c.compare("sinusoids of distances", tolerance, sinusoidal.table<float>(distances), given.at(0));
    compare_with(TransformerXl(c.array<float>("w_pos_bias_u").matrix(), c.array<float>("w_pos_bias_v").matrix(),
                               linear_weight(c, "w_linear_pos_weight") * given.at(0)));
  } else if (type == "rotary") {  // of what goes into the projections of queries and keys, not of what comes out
    const auto given = c.array<float>("relative_position_embeddings");  // [cos or sin, T, 1, 1, head_dim]
    const posenc::Rope rope({.head_dim = head_dim});
    const posenc::RopeTable<float> table(rope, num_tokens);
    const auto given_cos = given.matrix().leftCols(num_tokens), given_sin = given.matrix().rightCols(num_tokens);
    c.compare("cos, sin", tolerance, table.cos(), given_cos.topRows(head_dim / 2));
    c.compare("cos, sin", tolerance, table.sin(), given_sin.topRows(head_dim / 2));
    for (Index batch = 0; batch < x.size(0); ++batch) {
      auto input = self_attention(x.at(batch), positions);
      rope(input.query, positions);
      rope(input.key, positions);
      compare_layer(c, "", tolerance, {weights, options}, input, batch, probs, out);
    }
  } else {
    throw UnknownKind("type " + type);
  }
}

}  // namespace golden
