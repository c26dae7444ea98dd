// SPDX-License-Identifier: MIT

// Linear biases as two more engines have them: mlx_layers (with MLX's sinusoids) and ggml_softmax_alibi.

#include <cmath>
#include <cstdint>
#include <numbers>
#include <string>
#include <vector>

#include <posenc/alibi.hpp>
#include <posenc/attention.hpp>
#include <posenc/bias_matrix.hpp>
#include <posenc/sinusoidal.hpp>
#include <posenc/streaming_attention.hpp>

#include "files.hpp"
#include "layers.hpp"

namespace golden {
namespace {

using posenc::Alibi;
using posenc::AttentionOptions;
using posenc::Positions;
using posenc::Sinusoidal;
using posenc::SinusoidalOptions;

void mlx_sinusoidal(Case& c) {
  const auto dim = c.get<Index>("dims");
  auto options = SinusoidalOptions::mlx(dim, c.get_or("min_freq", 1e-4), c.get_or("max_freq", 1.0));
  if (c.get_or("full_turns", false)) options.frequency_scale *= 2 * std::numbers::pi;
  if (c.get_or("cos_first", false)) options.layout = posenc::SinusoidalLayout::cos_sin;
  c.compare("default scale", Tolerance::relative(1e-6), Matrix<double>::Constant(1, 1, options.scale),
            Matrix<double>::Constant(1, 1, std::sqrt(2 / static_cast<double>(dim))));
  options.scale = c.get<double>("scale");
  const Sinusoidal sinusoidal(options);

  c.compare("frequencies", Tolerance::relative(5e-6), sinusoidal.frequencies(), c.array<float>("sigmas").matrix());
  const auto x = c.array<double>("x");  // any real numbers
  c.compare("sinusoids", Tolerance::absolute(2e-4), sinusoidal.table<float>(posenc::RealPositions(x.row())),
            c.array<float>("out").matrix());
}

/// -slope |m - n|, the queries at `offset` behind a cache.
void mlx_alibi(Case& c) {
  const auto peer = c.array<float>("bias");  // [1, heads, query, key]
  const Alibi alibi(c.get<Index>("n_heads"));
  const Positions keys = posenc::positions(c.get<Index>("k_len"));
  const Positions queries = posenc::positions(c.get<Index>("q_len"), c.get<std::int64_t>("offset"));
  for (Index head = 0; head < alibi.num_heads(); ++head)
    c.compare("bias", Tolerance::relative(1e-6), posenc::bias_matrix<float>(alibi, keys, queries, head),
              peer.at(0, head));
}

}  // namespace

void mlx_layers(Case& c) {
  if (c.has("dims"))
    mlx_sinusoidal(c);
  else if (c.has("n_heads"))
    mlx_alibi(c);
  else
    throw UnknownKind("it has neither dims nor n_heads");
}

/// ggml: softmax(scale x + slope mask), where the user's mask holds -(distance), or -inf where nothing is to be seen.
/// With max_bias 0 the mask is added as it is. The queries are at the end of the keys.
void ggml_softmax_alibi(Case& c) {
  const auto tolerance = Tolerance::absolute(2e-6);
  const auto num_heads = c.get<Index>("n_heads");
  const auto max_bias = c.get<double>("max_bias"), scale = c.get<double>("scale");
  const auto mask = c.array<float>("mask_value");  // [query, key]
  auto visible = c.array<std::int64_t>("visible");
  const Index num_queries = mask.size(0), num_keys = mask.size(1);
  const Positions keys = posenc::positions(num_keys), queries = posenc::positions(num_queries, num_keys - num_queries);
  // The mask is what Alibi is told by positions, or nothing at all; hidden entries are recorded as 0.
  const double unit_slope = (mask.matrix().array() == 0).all() ? 0 : 1;
  const Vector<double> slopes = max_bias == 0 ? Vector<double>::Constant(num_heads, unit_slope)
                                              : Vector<double>(unit_slope * posenc::alibi_slopes(num_heads, max_bias));
  const Alibi alibi(slopes);
  const Matrix<float> distances =
      posenc::bias_matrix<float>(Alibi(Vector<double>::Constant(1, unit_slope)), keys, queries);
  c.compare("mask of distances", Tolerance::exact(), (visible.matrix().array() != 0).select(distances, 0.f),
            mask.matrix());
  const bool causal = c.get<bool>("causal");
  bool as_said = true;
  for (Index query = 0; query < num_queries; ++query)
    for (Index key = 0; key < num_keys; ++key)
      as_said = as_said && (visible(query, key) != 0) == (!causal || keys[key] <= queries[query]);
  c.require("causal", as_said);

  const Tensor<std::int64_t> visible_of_heads({1, 1, num_queries, num_keys},
                                              {visible.data(), visible.data() + visible.size()});
  const auto masked = [&](auto compare) { with_masks(visible_of_heads, 0, keys, queries, compare); };
  // The bias through the mask as ggml has it, a thing of the user's: slope times what is given.
  const auto given_mask = [&](Index head) {
    return GivenBias(Tensor<float>({1, num_queries, num_keys}, {mask.data(), mask.data() + mask.size()}),
                     static_cast<float>(max_bias == 0 ? 1 : slopes[head]));
  };

  if (c.has_array("q")) {
    const auto q = c.array<float>("q"), k = c.array<float>("k"), v = c.array<float>("v"), out = c.array<float>("out");
    c.expect("head_dim", q.size(2));
    c.expect("n_kv_heads", k.size(0));
    for (Index head = 0; head < num_heads; ++head) {
      const Index kv_head = head / (num_heads / k.size(0));
      AttentionOptions options{
          .query_positions = queries, .key_positions = keys, .scale = scale, .head = head, .kv_head = kv_head};
      masked([&](const std::string& suffix, const auto&... masks) {
        const auto compare_with = [&](const std::string& bias_name, const auto& bias) {
          attend_both_ways(
              q.at(head), k.at(kv_head), v.at(kv_head), options,
              [&](const std::string& way, const Matrix<float>& output) {
                c.compare("attention" + suffix + bias_name + way, tolerance, output, out.at(head));
              },
              bias, masks...);
        };
        compare_with("", alibi);
        options.head = 0;
        compare_with(", mask given", given_mask(head));
        options.head = head;
      });
    }
    return;
  }

  // Scores as they are: those of queries x and keys that are unit vectors.
  const auto x = c.array<float>("x"), out = c.array<float>("out");  // [batch, heads, query, key]
  const Matrix<float> unit = Matrix<float>::Identity(num_keys, num_keys);
  for (Index batch = 0; batch < x.size(0); ++batch)
    for (Index head = 0; head < num_heads; ++head) {
      AttentionOptions options{.query_positions = queries, .key_positions = keys, .scale = scale, .head = head};
      masked([&](const std::string& suffix, const auto&... masks) {
        c.compare("weights" + suffix, tolerance,
                  posenc::attention_weights(x.at(batch, head), unit, options, alibi, masks...), out.at(batch, head));
        c.compare("weights" + suffix + ", streamed", tolerance,
                  posenc::streaming_attend(x.at(batch, head), unit, unit, options, alibi, masks...),
                  out.at(batch, head));
        options.head = 0;
        c.compare("weights" + suffix + ", mask given", tolerance,
                  posenc::attention_weights(x.at(batch, head), unit, options, given_mask(head), masks...),
                  out.at(batch, head));
        options.head = head;
      });
    }
}

}  // namespace golden
