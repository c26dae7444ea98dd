// SPDX-License-Identifier: MIT

// T5: t5_bucket, t5_bias. (OpenNMT-py's layer with buckets is with that peer's other encodings, clipped_relative.cpp.)

#include <posenc/t5_bias.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <posenc/bias_matrix.hpp>
#include <posenc/multi_head_attention.hpp>

#include "files.hpp"
#include "layers.hpp"

namespace golden {
namespace {

using posenc::Positions;
using posenc::ProjectionWeights;
using posenc::T5Arithmetic;
using posenc::T5Bias;
using posenc::T5Options;

/// Float32 is the peers' arithmetic.
T5Options options(Case& c, T5Arithmetic arithmetic = T5Arithmetic::float32) {
  return {.num_buckets = c.get<Index>("num_buckets"),
          .max_distance = c.get<std::int64_t>("max_distance"),
          .direction = c.get<bool>("bidirectional") ? posenc::T5Direction::bidirectional : posenc::T5Direction::causal,
          .arithmetic = arithmetic};
}

/// A product of integers of any size: whether a bucket begins at a distance is a comparison of two of them.
class Product {
 public:
  Product& times(std::uint32_t factor, Index power) {
    for (Index n = 0; n < power; ++n) {
      std::uint64_t carry = 0;
      for (auto& digit : digits_) {
        carry += std::uint64_t{digit} * factor;
        digit = static_cast<std::uint32_t>(carry);
        carry >>= 32;
      }
      if (carry > 0) digits_.push_back(static_cast<std::uint32_t>(carry));
    }
    return *this;
  }

  friend bool operator<=(const Product& a, const Product& b) {
    if (a.digits_.size() != b.digits_.size()) return a.digits_.size() < b.digits_.size();
    for (std::size_t i = a.digits_.size(); i-- > 0;)
      if (a.digits_[i] != b.digits_[i]) return a.digits_[i] < b.digits_[i];
    return true;
  }

 private:
  std::vector<std::uint32_t> digits_{1};  // the lowest first
};

/// The bucket by integers alone: j (E + j of its side) is reached at the distance a where (M/E)^j <= (a/E)^K, K being
/// the number of buckets that grow.
Index bucket_by_integers(std::int64_t key_minus_query, const T5Options& options) {
  const bool bidirectional = options.direction == posenc::T5Direction::bidirectional;
  const Index count = bidirectional ? options.num_buckets / 2 : options.num_buckets;
  const Index single = count / 2, growing = count - single;
  const Index first = bidirectional && key_minus_query > 0 ? count : 0;
  const std::int64_t distance = bidirectional ? std::abs(key_minus_query) : std::max<std::int64_t>(-key_minus_query, 0);
  if (distance < single) return first + distance;
  const auto a = static_cast<std::uint32_t>(std::min(distance, options.max_distance));
  const auto e = static_cast<std::uint32_t>(single), m = static_cast<std::uint32_t>(options.max_distance);
  Index j = 0;
  while (j + 1 < growing && Product().times(m, j + 1).times(e, growing) <= Product().times(a, growing).times(e, j + 1))
    ++j;
  return first + single + j;
}

/// A layer without a factor 1/sqrt(D).
void layer(Case& c) {
  const auto tolerance = Tolerance::absolute(5e-6);
  const ProjectionWeights<float> weights{.query = linear_weight(c, "w_q"),
                                         .key = linear_weight(c, "w_k"),
                                         .value = linear_weight(c, "w_v"),
                                         .output = linear_weight(c, "w_o")};
  const Index num_heads = c.get<Index>("heads"), dim = weights.query.rows() / num_heads;
  c.expect("d_model", weights.query.cols());
  c.expect("d_kv", dim);
  const T5Bias bias(c.array<float>("table").matrix(), options(c));
  const auto x = c.array<float>("x"), attn = c.array<float>("attn"), out = c.array<float>("out");
  const auto visible = c.array<std::int64_t>("visible");
  const Positions positions = posenc::positions(x.size(1));
  for (Index batch = 0; batch < x.size(0); ++batch)
    with_masks(visible, batch, positions, positions, [&](const std::string& suffix, const auto&... masks) {
      compare_layer(c, suffix, tolerance, {weights, {.num_heads = num_heads, .scale = 1}},
                    self_attention(x.at(batch), positions), batch, attn, out, bias, masks...);
    });
}

}  // namespace

/// The peers' logarithms are float32: ours in float32 are theirs to the bit. Where theirs are off, what decides about
/// exact arithmetic is not the peers' code in double, which is off elsewhere, but whole numbers.
void t5_bucket(Case& c) {
  c.require("peers agree", c.get<bool>("xtr_equal") && c.get<bool>("onmt_equal"));
  const T5Options exact = options(c, T5Arithmetic::exact), in_float = options(c);
  const auto distances = c.array<std::int64_t>("relative_position");
  const auto bucket = c.array<std::int64_t>("bucket"), bucket_in_double = c.array<std::int64_t>("bucket_f64");

  // Where no distance is left for buckets that grow, the peers' fall with the distance and leave the table.
  const Index count = exact.direction == posenc::T5Direction::causal ? exact.num_buckets : exact.num_buckets / 2;
  if (exact.max_distance <= count / 2) {
    bool refused = false;
    try {
      posenc::t5_bucket(0, exact);
    } catch (const std::invalid_argument&) {
      refused = true;
    }
    c.get<std::int64_t>("n_float_differs");
    return c.require("refused: not a bucket of the table",
                     refused && (bucket.matrix().minCoeff() < 0 || bucket_in_double.matrix().minCoeff() < 0));
  }

  const Matrix<float> no_table = Matrix<float>::Zero(1, exact.num_buckets);
  const T5Bias bias(no_table, exact), bias_in_float(no_table, in_float);

  std::int64_t differs = 0;
  Vector<double> ours(distances.size()), ours_in_float(distances.size()), integers(distances.size()),
      peer(distances.size());
  for (Index i = 0; i < distances.size(); ++i) {
    const std::int64_t distance = distances(i);
    ours[i] = static_cast<double>(posenc::t5_bucket(distance, exact));
    ours_in_float[i] = static_cast<double>(posenc::t5_bucket(distance, in_float));
    integers[i] = static_cast<double>(bucket_by_integers(distance, exact));
    peer[i] = static_cast<double>(bucket(i));
    differs += bucket(i) != bucket_in_double(i);
    c.require("bucket of T5Bias", static_cast<double>(bias.bucket(distance)) == ours[i] &&
                                      static_cast<double>(bias_in_float.bucket(distance)) == ours_in_float[i]);
    if (bucket(i) == bucket_in_double(i)) c.require("exact where the peers' two agree", ours[i] == peer[i]);
  }
  c.expect("n_float_differs", differs);
  c.compare("float32 arithmetic", Tolerance::exact(), ours_in_float, peer);
  c.compare("exact arithmetic, by integers", Tolerance::exact(), ours, integers);
}

void t5_bias(Case& c) {
  if (c.has_array("w_q")) return layer(c);
  const auto table = c.array<float>("table"), peer = c.array<float>("bias");  // [1, heads, query, key]
  const T5Bias bias(table.matrix(), options(c));                              // [B, H] in memory is our H x B
  c.expect("heads", bias.num_heads());
  const Positions keys = posenc::positions(c.get<Index>("k_len"));
  const Positions queries = posenc::positions(c.get<Index>("q_len"), c.get<std::int64_t>("past"));
  for (Index head = 0; head < bias.num_heads(); ++head)
    c.compare("bias", Tolerance::exact(), posenc::bias_matrix<float>(bias, keys, queries, head), peer.at(0, head));
}

}  // namespace golden
