// SPDX-License-Identifier: MIT

// relative_misc: Swin's windows; XLNet's table of sinusoids and its shift; x-transformers' bias from a small network.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <posenc/bias_matrix.hpp>
#include <posenc/sinusoidal.hpp>
#include <posenc/streaming_attention.hpp>
#include <posenc/swin_bias.hpp>

#include "files.hpp"

namespace golden {
namespace {

using posenc::Positions;

/// Tokens by their numbers, and by their rows and columns.
void swin(Case& c) {
  const auto table = c.array<float>("table"), peer = c.array<float>("bias");  // [1, heads, query, key]
  const auto window = c.get<std::vector<Index>>("window");
  const posenc::SwinBias bias(table.matrix(), {.height = window.at(0), .width = window.at(1)});
  c.expect("heads", bias.num_heads());

  const Index num_tokens = window[0] * window[1];
  const auto index = c.array<std::int64_t>("index");
  Vector<double> ours(num_tokens * num_tokens);
  for (Index query = 0; query < num_tokens; ++query)
    for (Index key = 0; key < num_tokens; ++key)
      ours[query * num_tokens + key] = static_cast<double>(bias.index(key, query));
  c.compare("Swin index", Tolerance::exact(), ours, index.matrix());

  const Positions numbers = posenc::positions(num_tokens);
  std::vector<std::int64_t> rows_and_columns;
  for (Index t = 0; t < num_tokens; ++t) rows_and_columns.push_back(100 + t / window[1]);
  for (Index t = 0; t < num_tokens; ++t) rows_and_columns.push_back(-7 + t % window[1]);
  const Positions coordinates = Positions::axes(rows_and_columns, 2);
  for (Index head = 0; head < bias.num_heads(); ++head) {
    c.compare("Swin bias", Tolerance::exact(), posenc::bias_matrix<float>(bias, numbers, numbers, head),
              peer.at(0, head));
    c.compare("Swin bias, by coordinates", Tolerance::exact(),
              posenc::bias_matrix<float>(bias, coordinates, coordinates, head), peer.at(0, head));
    // With queries of zeros and values that are unit vectors, an attention gives its weights.
    const Matrix<float> zeros = Matrix<float>::Zero(4, num_tokens);
    Matrix<float> weights = peer.at(0, head);
    posenc::softmax_columns(weights);
    c.compare("Swin weights, streamed", Tolerance::absolute(5e-6),
              posenc::streaming_attend(zeros, zeros, Matrix<float>::Identity(num_tokens, num_tokens),
                                       {.query_positions = numbers, .key_positions = numbers, .head = head}, bias),
              weights);
  }
}

/// XLNet: sinusoids of distances from the number of keys down, in a causal model ("uni") to 0. Beyond clamp_len, where
/// it is positive, a distance is clamp_len.
void table_of_distances(Case& c) {
  const auto peer = c.array<float>("table");
  const Index num_keys = c.get<Index>("k_len"), num_queries = c.get<Index>("q_len");
  const auto attn_type = c.get<std::string>("attn_type");
  if (attn_type != "bi" && attn_type != "uni") throw UnknownKind("attn_type " + attn_type);
  const Index end = attn_type == "bi" ? -num_queries : -1;
  const auto clamp_len = c.get<std::int64_t>("clamp_len");
  std::vector<std::int64_t> distances;
  for (Index distance = num_keys; distance > end; --distance)
    distances.push_back(clamp_len > 0 ? std::clamp<std::int64_t>(distance, -clamp_len, clamp_len) : distance);
  const posenc::Sinusoidal sinusoidal(posenc::SinusoidalOptions::roformer(c.get<Index>("d_model")));
  c.compare("XLNet table", Tolerance::absolute(5e-6), sinusoidal.table<float>(distances), peer.matrix());
}

/// An encoding of the runner's own: a score for each query and distance, in columns from the number of keys down. What
/// Transformer-XL calls a shift is reading it by distance.
class GivenByDistance {
 public:
  GivenByDistance(Matrix<float> scores, Index largest) : scores_(std::move(scores)), largest_(largest) {}

  template <posenc::MutableDense Scores>
  void add_bias(Scores&& scores, const Positions& keys, const Positions& queries, Index /*head*/) const {
    for (Index query = 0; query < scores.cols(); ++query)
      for (Index key = 0; key < scores.rows(); ++key)
        scores(key, query) += scores_(largest_ - (queries[query] - keys[key]), queries.token(query));
  }

 private:
  Matrix<float> scores_;
  Index largest_;
};
static_assert(posenc::ScoreBias<GivenByDistance>);

void relative_shift(Case& c) {
  c.expect("axes", "b n i j");
  const auto x = c.array<float>("x"), out = c.array<float>("out");
  const auto num_keys = c.get<Index>("klen");
  const Index num_queries = x.size(2);
  const Positions keys = posenc::positions(num_keys), queries = posenc::positions(num_queries, num_keys - num_queries);
  for (Index batch = 0; batch < x.size(0); ++batch)
    for (Index head = 0; head < x.size(1); ++head)
      c.compare("XLNet shift", Tolerance::exact(),
                posenc::bias_matrix<float>(GivenByDistance(x.at(batch, head), num_keys), keys, queries),
                out.at(batch, head));
}

/// Another one: a network of the distance, with SiLU between its layers.
class DistanceNetwork {
 public:
  DistanceNetwork(std::vector<Matrix<double>> weights, std::vector<Vector<double>> biases, bool of_logarithm)
      : weights_(std::move(weights)), biases_(std::move(biases)), of_logarithm_(of_logarithm) {}

  double at_distance(std::int64_t key_minus_query, Index head) const {
    const auto distance = -static_cast<double>(key_minus_query);
    Vector<double> x(1);
    x[0] = of_logarithm_ ? std::copysign(std::log1p(std::abs(distance)), distance) : distance;
    for (std::size_t layer = 0; layer < weights_.size(); ++layer) {
      x = weights_[layer] * x + biases_[layer];
      if (layer + 1 < weights_.size()) x = x.unaryExpr([](double y) { return y / (1 + std::exp(-y)); });
    }
    return x[head];
  }

  template <posenc::MutableDense Scores>
  void add_bias(Scores&& scores, const Positions& keys, const Positions& queries, Index head) const {
    for (Index query = 0; query < scores.cols(); ++query)
      for (Index key = 0; key < scores.rows(); ++key)
        scores(key, query) += static_cast<float>(at_distance(keys[key] - queries[query], head));
  }

 private:
  std::vector<Matrix<double>> weights_;
  std::vector<Vector<double>> biases_;
  bool of_logarithm_;
};
static_assert(posenc::ScoreBias<DistanceNetwork> && posenc::DistanceBias<DistanceNetwork>);

void distance_network(Case& c) {
  c.expect("activation", "silu");
  const auto depth = c.get<Index>("depth");
  std::vector<Matrix<double>> weights;
  std::vector<Vector<double>> biases;
  for (Index layer = 0; layer <= depth; ++layer) {
    const std::string prefix = "mlp_" + std::to_string(layer) + (layer < depth ? "_0_" : "_");
    weights.push_back(c.array<float>(prefix + "weight").matrix().transpose().cast<double>());
    biases.push_back(c.array<float>(prefix + "bias").matrix().reshaped().cast<double>());
  }
  c.expect("dim", weights.front().rows());
  c.expect("heads", weights.back().rows());
  const auto peer = c.array<float>("bias");
  const Index num_keys = c.get<Index>("k_len"), num_queries = c.get<Index>("q_len");
  const DistanceNetwork network(std::move(weights), std::move(biases), c.get<bool>("log_distance"));
  for (Index head = 0; head < peer.size(0); ++head)
    c.compare("network of the distance", Tolerance::absolute(5e-6),
              posenc::bias_matrix<float>(network, posenc::positions(num_keys),
                                         posenc::positions(num_queries, num_keys - num_queries), head),
              peer.at(head));
}

}  // namespace

void relative_misc(Case& c) {
  if (c.has("window"))
    swin(c);
  else if (c.has("clamp_len"))
    table_of_distances(c);
  else if (c.has("klen"))
    relative_shift(c);
  else if (c.has("log_distance"))
    distance_network(c);
  else
    throw UnknownKind("it has neither window nor clamp_len nor klen nor log_distance");
}

}  // namespace golden
