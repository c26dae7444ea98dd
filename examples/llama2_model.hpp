// SPDX-License-Identifier: MIT
#pragma once

// A Llama 2 model as llama2.c stores it, run on posenc: RoPE from a table, a KV cache, streaming attention of grouped
// query heads.
//
//   llama2::Model model(llama2::load_checkpoint("stories260K.bin"));
//   Eigen::VectorXf logits = model.forward(token, position);  // position = 0, 1, 2, ...
//
//   D features of a head, H query heads, G key and value heads, T tokens so far
//
//   x : (H*D)         the token's embedding, to which every layer adds
//   q : (H*D)         its queries; those of head h are rows h*D, ..., h*D + D - 1
//   K, V : (G*D) x T  keys and values of one layer, one token a column: the KV cache

#include <Eigen/Core>
#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <posenc/attention.hpp>
#include <posenc/attention_workspace.hpp>
#include <posenc/kv_cache.hpp>
#include <posenc/rope.hpp>
#include <posenc/rope_table.hpp>
#include <posenc/streaming_heads.hpp>

#include "llama2_file.hpp"

namespace llama2 {

using posenc::Index;

struct Config {
  Index dim = 0;           ///< features of an embedding, H*D
  Index hidden_dim = 0;    ///< features inside the feed-forward network
  Index num_layers = 0;    ///< each of them attention and then feed-forward
  Index num_heads = 0;     ///< H
  Index num_kv_heads = 0;  ///< G, a divisor of H: that many query heads share a key head
  Index vocab_size = 0;    ///< number of different tokens
  Index seq_len = 0;       ///< the most tokens that the model can read

  /// Whether the token embeddings are also the last matrix, the one that logits come from.
  bool shares_classifier = true;

  Index head_dim() const { return dim / num_heads; }
  Index kv_dim() const { return num_kv_heads * head_dim(); }
};

/// The weights in the order of the file.
enum class Weight {
  token_embedding,
  attention_norm,
  query,
  key,
  value,
  attention_output,
  feed_forward_norm,
  gate,
  down,
  up,
  final_norm,
  rope_cos,  // of no use: posenc computes its own
  rope_sin,
  classifier,
};

/// Weights of one kind: a row-major matrix [rows, cols] for each layer, one behind the other.
struct WeightBlock {
  std::string_view name;
  Index num_matrices, rows, cols;

  Index size() const { return num_matrices * rows * cols; }
};

inline std::array<WeightBlock, 14> weight_blocks(const Config& c) {
  return {{
      {"token_embedding", 1, c.vocab_size, c.dim},
      {"attention_norm", c.num_layers, c.dim, 1},
      {"query", c.num_layers, c.dim, c.dim},
      {"key", c.num_layers, c.kv_dim(), c.dim},
      {"value", c.num_layers, c.kv_dim(), c.dim},
      {"attention_output", c.num_layers, c.dim, c.dim},
      {"feed_forward_norm", c.num_layers, c.dim, 1},
      {"gate", c.num_layers, c.hidden_dim, c.dim},
      {"down", c.num_layers, c.dim, c.hidden_dim},
      {"up", c.num_layers, c.hidden_dim, c.dim},
      {"final_norm", 1, c.dim, 1},
      {"rope_cos", 1, c.seq_len, c.head_dim() / 2},
      {"rope_sin", 1, c.seq_len, c.head_dim() / 2},
      {"classifier", c.shares_classifier ? 0 : 1, c.vocab_size, c.dim},
  }};
}

/// The content of a checkpoint file. Weights are looked at where they lie, in one long array.
class Checkpoint {
 public:
  using Matrix = Eigen::Map<const Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>;
  using Vector = Eigen::Map<const Eigen::VectorXf>;

  /// \param values the weights of all blocks, in their order
  Checkpoint(const Config& config, std::vector<float> values)
      : config_(config), blocks_(weight_blocks(config)), values_(std::move(values)) {
    Index size = 0;
    for (std::size_t i = 0; i < blocks_.size(); ++i) {
      first_[i] = size;
      size += blocks_[i].size();
    }
    if (size != static_cast<Index>(values_.size()))
      throw std::runtime_error("llama2::Checkpoint: the configuration asks for " + std::to_string(size) +
                               " weights, got " + std::to_string(values_.size()));
  }

  const Config& config() const { return config_; }

  /// The matrix of a layer, [out, in]: y = W x.
  Matrix matrix(Weight weight, Index layer = 0) const {
    const auto i = static_cast<std::size_t>(weight);
    const auto& [name, num_matrices, rows, cols] = blocks_[i];
    return {values_.data() + first_[i] + layer * rows * cols, rows, cols};
  }

  Vector vector(Weight weight, Index layer = 0) const {
    const Matrix column = matrix(weight, layer);
    return {column.data(), column.rows()};
  }

 private:
  Config config_;
  std::array<WeightBlock, 14> blocks_;
  std::array<Index, 14> first_{};
  std::vector<float> values_;
};

namespace detail {

/// Seven int32 of which none is believed: the limits keep every product of them far from overflow.
inline Config read_config(BinaryFile& file) {
  const auto field = [&file](const char* name, std::int64_t limit, bool may_be_negative = false) -> Index {
    const std::int64_t value = file.read<std::int32_t>("its header");
    const std::int64_t size = may_be_negative ? std::abs(value) : value;
    if (size < 1 || size > limit)
      file.fail(std::string(name) + " must be from 1 to " + std::to_string(limit) + ", got " + std::to_string(value));
    return value;
  };
  Config config;
  config.dim = field("dim", 1 << 16);
  config.hidden_dim = field("hidden_dim", 1 << 20);
  config.num_layers = field("n_layers", 1 << 10);
  config.num_heads = field("n_heads", 1 << 16);
  config.num_kv_heads = field("n_kv_heads", 1 << 16);
  const Index vocab_size = field("vocab_size", 1 << 24, /*may_be_negative=*/true);
  config.seq_len = field("seq_len", 1 << 24);
  config.vocab_size = std::abs(vocab_size);
  config.shares_classifier = vocab_size > 0;  // that is what the sign says

  const auto require = [&file](bool ok, const char* rule, Index a, Index b) {
    if (!ok) file.fail(std::string(rule) + ", got " + std::to_string(a) + " and " + std::to_string(b));
  };
  require(config.dim % config.num_heads == 0, "dim must be a multiple of n_heads", config.dim, config.num_heads);
  require(config.num_heads % config.num_kv_heads == 0, "n_heads must be a multiple of n_kv_heads", config.num_heads,
          config.num_kv_heads);
  require(config.head_dim() % 2 == 0, "dim / n_heads must be even", config.dim, config.num_heads);
  return config;
}

/// x / rms(x), each feature times its weight.
inline Eigen::VectorXf rms_norm(const Eigen::VectorXf& x, const Checkpoint::Vector& weight) {
  const float scale = 1 / std::sqrt(x.squaredNorm() / static_cast<float>(x.size()) + 1e-5f);
  return x.cwiseProduct(weight) * scale;
}

}  // namespace detail

/// Reads a checkpoint of llama2.c (version 0, the "legacy" one): the header, then float32 weights.
///
///   int32 dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size (negative: has a classifier of its own), seq_len
///
/// \throws std::runtime_error in one line if the file cannot be read or is not just as long as its header says.
inline Checkpoint load_checkpoint(const std::filesystem::path& path) {
  BinaryFile file(path);
  const Config config = detail::read_config(file);

  std::uint64_t num_weights = 0;
  for (const WeightBlock& block : weight_blocks(config)) {
    num_weights += static_cast<std::uint64_t>(block.size());
    if (num_weights * sizeof(float) > file.remaining())
      file.fail("ends within the weights '" + std::string(block.name) + "': " + std::to_string(file.size()) +
                " bytes are too few for what its header says");
  }
  if (const std::uint64_t excess = file.remaining() - num_weights * sizeof(float); excess != 0)
    file.fail("has " + std::to_string(excess) + " bytes more than its header says");

  std::vector<float> values(num_weights);
  file.read(std::span(values), "the weights");
  if (!Checkpoint::Vector(values.data(), static_cast<Index>(values.size())).allFinite())
    file.fail("holds a weight that is not a finite number");
  return {config, std::move(values)};
}

/// The model and its KV cache: it reads one token after the other.
class Model {
 public:
  explicit Model(Checkpoint checkpoint)
      : checkpoint_(std::move(checkpoint)),
        rope_(posenc::Rope({.head_dim = config().head_dim(), .layout = posenc::PairLayout::interleaved}),
              config().seq_len),
        caches_(index(config().num_layers), posenc::KvCache<float>({.num_kv_heads = config().num_kv_heads,
                                                                    .head_dim = config().head_dim(),
                                                                    .capacity = config().seq_len})),
        workspaces_{posenc::AttentionWorkspace<float>(config().head_dim(), config().head_dim())},
        query_(Eigen::VectorXf::Zero(config().dim)) {}

  const Config& config() const { return checkpoint_.config(); }

  /// Takes in the token at a position, and returns a logit for each token that may come next.
  ///
  /// Positions count up from 0. An earlier one may be given again: what came after it is forgotten.
  /// \throws std::out_of_range if there is no such token, or the position leaves one out or is not below seq_len.
  Eigen::VectorXf forward(Index token, Index position) {
    if (token < 0 || token >= config().vocab_size)
      throw std::out_of_range("llama2::Model: there is no token " + std::to_string(token));
    if (position < 0 || position > num_tokens() || position >= config().seq_len)
      throw std::out_of_range("llama2::Model: position " + std::to_string(position) + " cannot follow " +
                              std::to_string(num_tokens()) + " tokens of at most " + std::to_string(config().seq_len));
    for (posenc::KvCache<float>& cache : caches_) cache.truncate(position);

    const Checkpoint& w = checkpoint_;  // its matrices are mapped, not copied
    const posenc::Positions here = posenc::positions(1, position);
    Eigen::VectorXf x = w.matrix(Weight::token_embedding).row(token);
    for (Index layer = 0; layer < config().num_layers; ++layer) {
      Eigen::VectorXf normed = detail::rms_norm(x, w.vector(Weight::attention_norm, layer));
      query_ = w.matrix(Weight::query, layer) * normed;
      rope_(query_, here);  // all heads at once
      caches_[index(layer)].append(w.matrix(Weight::key, layer) * normed, w.matrix(Weight::value, layer) * normed, here,
                                   rope_);  // rotates the key, which is never rotated again
      x += w.matrix(Weight::attention_output, layer) * attention(layer);

      normed = detail::rms_norm(x, w.vector(Weight::feed_forward_norm, layer));
      const Eigen::ArrayXf gate = w.matrix(Weight::gate, layer) * normed;
      const Eigen::ArrayXf up = w.matrix(Weight::up, layer) * normed;
      x += w.matrix(Weight::down, layer) * (gate / (1 + (-gate).exp()) * up).matrix();
    }
    return w.matrix(config().shares_classifier ? Weight::token_embedding : Weight::classifier) *
           detail::rms_norm(x, w.vector(Weight::final_norm));
  }

  /// What the cache holds of a layer, (G*D) x T. Keys are rotated.
  auto cached_keys(Index layer) const { return caches_.at(index(layer)).keys(); }
  auto cached_values(Index layer) const { return caches_.at(index(layer)).values(); }

  /// The rotated queries of the newest token in the last layer, (H*D).
  const Eigen::VectorXf& last_query() const { return query_; }

  /// How much the newest token takes from each token in the last layer, T x H: a column is a head.
  posenc::Matrix<float> last_attention_weights() const;

 private:
  static std::size_t index(Index layer) { return static_cast<std::size_t>(layer); }

  Index num_tokens() const { return caches_.back().size(); }

  /// What the newest token takes from the values of all tokens, (H*D).
  ///
  /// No encoding goes along: queries and keys are rotated already. Nor does a mask: the cache holds nothing of the future.
  Eigen::VectorXf attention(Index layer) {
    const posenc::KvCache<float>& cache = caches_[index(layer)];
    Eigen::VectorXf output(config().dim);
    posenc::streaming_attend_heads_into(output, query_, cache.keys(), cache.values(),
                                        {.query_positions = posenc::positions(1, cache.size() - 1),
                                         .key_positions = cache.positions(),
                                         .num_heads = config().num_heads,
                                         .num_kv_heads = config().num_kv_heads},
                                        workspaces_, posenc::OnCallingThread{});
    return output;
  }

  Checkpoint checkpoint_;
  posenc::RopeTable<float> rope_;
  std::vector<posenc::KvCache<float>> caches_;                   // one a layer
  std::array<posenc::AttentionWorkspace<float>, 1> workspaces_;  // one a thread
  Eigen::VectorXf query_;  // (H*D), of the newest token, in the layer computed last
};

inline posenc::Matrix<float> Model::last_attention_weights() const {
  const posenc::KvCache<float>& cache = caches_.back();
  const Index head_dim = config().head_dim(), group_size = config().num_heads / config().num_kv_heads;
  posenc::Matrix<float> weights(cache.size(), config().num_heads);
  for (Index head = 0; cache.size() > 0 && head < config().num_heads; ++head)
    weights.col(head) =
        posenc::attention_weights(query_.middleRows(head * head_dim, head_dim), cache.keys(head / group_size),
                                  {.query_positions = posenc::positions(1, cache.size() - 1),
                                   .key_positions = cache.positions(),
                                   .head = head,
                                   .kv_head = head / group_size});
  return weights;
}

}  // namespace llama2
