// SPDX-License-Identifier: MIT

// A real pretrained model, run by examples/llama2_model.hpp on this library: llama2c_stories260K.

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "files.hpp"
#include "llama2_model.hpp"
#include "llama2_tokenizer.hpp"

namespace golden {
namespace {

const Tolerance of_logits = Tolerance::absolute(1e-3);

/// Where best and second are nearer to each other than this, another order of summation may swap them.
constexpr double smallest_margin = 1e-3;

/// What the recording says of the model must be what its file says.
void expect_model(Case& c, const llama2::Config& config) {
  c.expect("dim", config.dim);
  c.expect("hidden_dim", config.hidden_dim);
  c.expect("n_layers", config.num_layers);
  c.expect("n_heads", config.num_heads);
  c.expect("n_kv_heads", config.num_kv_heads);
  c.expect("vocab_size", config.vocab_size);
  c.expect("seq_len", config.seq_len);
  c.expect("norm_eps", 1e-5);      // what llama2_model.hpp
  c.expect("rope_base", 10000.0);  // has built in
}

/// A folder that has the weights and the tokenizer in it.
std::filesystem::path models_folder() {
  const char* variable = std::getenv("POSENC_MODELS");
  const std::filesystem::path folder = variable ? variable : "";
  if (folder.empty())
    throw Skipped("no pretrained model: set POSENC_MODELS to the folder of stories260K.bin and tok512.bin");
  for (const char* file : {"stories260K.bin", "tok512.bin"})
    if (!exists(folder / file))
      throw Skipped("POSENC_MODELS is " + folder.string() + ", where there is no " + file +
                    ": set POSENC_MODELS to the folder of stories260K.bin and tok512.bin");
  return folder;
}

/// The five largest logits are those recorded; where two are almost equal their order does not matter.
void compare_top(Case& c, const Eigen::VectorXf& logits, const Tensor<std::int64_t>& ids, const Tensor<float>& values,
                 Index position) {
  Eigen::VectorXf sorted = logits;
  std::ranges::sort(sorted, std::greater<>());
  for (Index rank = 0; rank < ids.size(1); ++rank) {
    const Eigen::Vector2f ours(logits[ids(position, rank)], sorted[rank]);
    c.compare("largest logits", of_logits, ours, Eigen::Vector2f::Constant(values(position, rank)));
  }
}

/// Queries, keys, values and attention weights at a position that the recording has them for.
void compare_inside(Case& c, const llama2::Model& model, Index position) {
  const auto at = [&](const std::string& what) { return what + "_pos" + std::to_string(position); };
  const Index heads = model.config().num_heads, kv_heads = model.config().num_kv_heads;
  const Index head_dim = model.config().head_dim();
  if (c.has_array(at("q_last")))
    c.compare("queries", of_logits, model.last_query().reshaped(head_dim, heads),
              c.array<float>(at("q_last")).matrix());
  if (c.has_array(at("att_last")))
    c.compare("attention weights", of_logits, model.last_attention_weights(), c.array<float>(at("att_last")).matrix());
  for (Index layer = 0; layer < model.config().num_layers; ++layer) {
    if (c.has_array(at("k")))
      c.compare("keys", of_logits, model.cached_keys(layer).col(position).reshaped(head_dim, kv_heads),
                c.array<float>(at("k")).at(layer));
    if (c.has_array(at("v")))
      c.compare("values", of_logits, model.cached_values(layer).col(position).reshaped(head_dim, kv_heads),
                c.array<float>(at("v")).at(layer));
  }
}

}  // namespace

/// Greedy decoding behind a prompt: each token, and what the model thought on the way.
void llama2c(Case& c) {
  const auto folder = models_folder();
  llama2::Model model(llama2::load_checkpoint(folder / "stories260K.bin"));
  const auto tokenizer = llama2::load_tokenizer(folder / "tok512.bin", model.config().vocab_size);
  expect_model(c, model.config());

  const auto tokens = c.array<std::int64_t>("tokens"), prompt = c.array<std::int64_t>("prompt_tokens");
  const auto margin = c.array<float>("margin");
  const auto top_ids = c.array<std::int64_t>("top5_ids");
  const auto top_logits = c.array<float>("top5_logits");
  c.expect("n_tokens", tokens.size());
  c.compare("smallest margin", Tolerance::exact(), Matrix<double>::Constant(1, 1, c.get<double>("min_margin")),
            Matrix<float>::Constant(1, 1, margin.matrix().minCoeff()));
  c.require("prompt tokens", std::ranges::equal(tokenizer.encode(c.get<std::string>("prompt")), prompt.row()));

  // Every step gets the recorded token, so that one swap of two almost equal logits would not change all that follow.
  std::vector<int> ours = {static_cast<int>(tokens(0))};
  for (Index position = 0; position < margin.size(); ++position) {
    const Eigen::VectorXf logits = model.forward(tokens(position), position);
    const auto full = "logits_pos" + std::to_string(position);
    if (c.has_array(full)) c.compare("all logits", of_logits, logits, c.array<float>(full).matrix().reshaped());
    if (position < top_ids.size(0)) compare_top(c, logits, top_ids, top_logits, position);
    compare_inside(c, model, position);

    Index best = 0;
    logits.maxCoeff(&best);
    const bool in_prompt = position + 1 < prompt.size();
    const bool is_last = position + 1 == tokens.size();  // the model chose to stop here, by another BOS
    const std::int64_t next = is_last ? llama2::Tokenizer::begin_of_sequence : tokens(position + 1);
    if (!in_prompt && margin(position) > smallest_margin) c.require("greedy tokens", best == next);
    if (!is_last) ours.push_back(static_cast<int>(in_prompt || margin(position) <= smallest_margin ? next : best));
  }
  const bool stopped = margin.size() == tokens.size();
  c.expect("stopped_by_bos_at", stopped ? tokens.size() : -1);
  c.require("text", tokenizer.decode(ours) == c.get<std::string>("text"));
}

}  // namespace golden
