// SPDX-License-Identifier: MIT
#pragma once

// What a configuration does not say because the code of its model does: the family, how pairs lie, the values of fields
// that are left out, which layers have a window.

#include <algorithm>
#include <string_view>

#include <posenc/concepts.hpp>
#include <posenc/pair_layout.hpp>

namespace posenc::inline v0::detail::config {

/// How the fields of a model are to be read.
enum class Dialect {
  rope,      ///< head_dim or hidden_size / num_attention_heads, rope_theta, rope_scaling or rope_parameters
  neox,      ///< the same, with rotary_pct and rotary_emb_base
  gptj,      ///< n_embd, n_head, rotary_dim
  deepseek,  ///< qk_nope_head_dim features that stay and qk_rope_head_dim that turn
  falcon,    ///< RoPE or ALiBi
  bloom,     ///< ALiBi
  mpt,       ///< attn_config
  t5,        ///< buckets
  gpt2,      ///< learned, n_positions
  gpt_neo,   ///< learned, scores that are not scaled, a window in some layers
  bert,      ///< learned, or what position_embedding_type says
  roberta,   ///< learned, behind the padding
  opt,       ///< learned, two columns later
  bart,      ///< the same, with an encoder
  marian,    ///< sinusoidal, sines then cosines
  fairseq,   ///< sinusoidal, behind the padding
};

/// Which layers have the window of `sliding_window`, where layer_types does not list them.
enum class WindowRule {
  none,         ///< the model knows no window
  every_layer,  ///< all, if there is a window
  from_layer,   ///< those from max_window_layers on, if use_sliding_window is true (Qwen)
  periodic,     ///< all but every n-th
};

/// Which layers do not rotate.
enum class StillRule {
  none,      ///< all rotate
  listed,    ///< those with a 0 in no_rope_layers, or every no_rope_layer_interval-th
  windowed,  ///< those without a window, in a model that has one
  hybrid,    ///< those that are no attention (mamba, linear_attention); all, if position_embedding_type is nope
};

struct KnownModel {
  std::string_view name;
  Dialect dialect;
  PairLayout layout = PairLayout::half_split;
  WindowRule window = WindowRule::none;
  Index period = 0;        ///< WindowRule::periodic: every period-th layer has no window
  double base = 10000;     ///< rope_theta where it is left out; 0: it must be there
  double rotary_part = 1;  ///< partial_rotary_factor where it is left out
  bool sections = false;   ///< M-RoPE: mrope_section is needed
  StillRule still = StillRule::none;
  bool plain_windows = false;  ///< layers with a window are not stretched
};

inline constexpr KnownModel known_models[] = {
    // rotate_half
    {"llama", Dialect::rope},
    {"mistral", Dialect::rope, PairLayout::half_split, WindowRule::every_layer},
    {"ministral", Dialect::rope, PairLayout::half_split, WindowRule::every_layer},
    {"ministral3", Dialect::rope, PairLayout::half_split, WindowRule::every_layer},
    {"mixtral", Dialect::rope, PairLayout::half_split, WindowRule::every_layer, 0, 0},
    {"qwen2", Dialect::rope, PairLayout::half_split, WindowRule::from_layer},
    {"qwen2_moe", Dialect::rope, PairLayout::half_split, WindowRule::from_layer},
    {"qwen3", Dialect::rope, PairLayout::half_split, WindowRule::from_layer},
    {"qwen3_moe", Dialect::rope, PairLayout::half_split, WindowRule::from_layer},
    {"qwen3_next", Dialect::rope, PairLayout::half_split, WindowRule::none, 0, 0, 0.25, false, StillRule::hybrid},
    {"qwen2_vl", Dialect::rope, PairLayout::half_split, WindowRule::from_layer, 0, 0, 1, true},
    {"qwen2_vl_text", Dialect::rope, PairLayout::half_split, WindowRule::from_layer, 0, 0, 1, true},
    {"qwen2_5_vl", Dialect::rope, PairLayout::half_split, WindowRule::from_layer, 0, 0, 1, true},
    {"qwen2_5_vl_text", Dialect::rope, PairLayout::half_split, WindowRule::from_layer, 0, 0, 1, true},
    {"qwen3_vl_text", Dialect::rope, PairLayout::half_split, WindowRule::none, 0, 0, 1, true},
    {"qwen3_vl_moe_text", Dialect::rope, PairLayout::half_split, WindowRule::none, 0, 0, 1, true},
    {"phi", Dialect::rope, PairLayout::half_split, WindowRule::none, 0, 10000, 0.5},
    {"phi3", Dialect::rope, PairLayout::half_split, WindowRule::every_layer},
    {"phimoe", Dialect::rope, PairLayout::half_split, WindowRule::every_layer, 0, 0},
    {"gemma", Dialect::rope},
    {"gemma2", Dialect::rope, PairLayout::half_split, WindowRule::periodic, 2},
    {"gemma3_text", Dialect::rope, PairLayout::half_split, WindowRule::periodic, 6, 1000000},
    {"gpt_neox", Dialect::neox, PairLayout::half_split, WindowRule::none, 0, 10000, 0.25},
    {"gpt_oss", Dialect::rope, PairLayout::half_split, WindowRule::periodic, 2, 150000},
    {"stablelm", Dialect::rope, PairLayout::half_split, WindowRule::none, 0, 10000, 0.25},
    {"persimmon", Dialect::rope, PairLayout::half_split, WindowRule::none, 0, 0, 0.5},
    {"nemotron", Dialect::rope, PairLayout::half_split, WindowRule::none, 0, 10000, 0.5},
    {"starcoder2", Dialect::rope, PairLayout::half_split, WindowRule::every_layer},
    {"olmo", Dialect::rope},
    {"olmo2", Dialect::rope},
    {"olmo3", Dialect::rope, PairLayout::half_split, WindowRule::periodic, 4, 0, 1, false, StillRule::none, true},
    {"olmoe", Dialect::rope},
    {"granite", Dialect::rope},
    {"granitemoe", Dialect::rope},
    {"granitemoehybrid", Dialect::rope, PairLayout::half_split, WindowRule::none, 0, 10000, 1, false,
     StillRule::hybrid},
    {"arcee", Dialect::rope, PairLayout::half_split, WindowRule::none, 0, 0},
    {"apertus", Dialect::rope, PairLayout::half_split, WindowRule::none, 0, 0},
    {"falcon_h1", Dialect::rope, PairLayout::half_split, WindowRule::none, 0, 0, 1, false, StillRule::hybrid},
    {"seed_oss", Dialect::rope},
    {"smollm3", Dialect::rope, PairLayout::half_split, WindowRule::none, 0, 2000000, 1, false, StillRule::listed},
    {"glm4_moe", Dialect::rope, PairLayout::half_split, WindowRule::none, 0, 10000, 0.5},
    {"falcon", Dialect::falcon},
    {"RefinedWeb", Dialect::falcon},
    {"RefinedWebModel", Dialect::falcon},
    // adjacent features
    {"gptj", Dialect::gptj, PairLayout::interleaved},
    {"codegen", Dialect::gptj, PairLayout::interleaved},
    {"cohere", Dialect::rope, PairLayout::interleaved, WindowRule::none, 0, 0},
    {"cohere2", Dialect::rope, PairLayout::interleaved, WindowRule::periodic, 4, 0, 1, false, StillRule::windowed},
    {"glm", Dialect::rope, PairLayout::interleaved, WindowRule::none, 0, 10000, 0.5},
    {"glm4", Dialect::rope, PairLayout::interleaved, WindowRule::none, 0, 10000, 0.5},
    {"ernie4_5", Dialect::rope, PairLayout::interleaved, WindowRule::none, 0, 0},
    {"ernie4_5_moe", Dialect::rope, PairLayout::interleaved, WindowRule::none, 0, 0},
    {"llama4_text", Dialect::rope, PairLayout::interleaved, WindowRule::none, 0, 500000, 1, false, StillRule::listed},
    {"deepseek_v2", Dialect::deepseek, PairLayout::interleaved},
    {"deepseek_v3", Dialect::deepseek, PairLayout::interleaved},
    {"deepseek_v32", Dialect::deepseek, PairLayout::interleaved},
    {"kimi_k2", Dialect::deepseek, PairLayout::interleaved},
    // no rotation
    {"bloom", Dialect::bloom},
    {"mpt", Dialect::mpt},
    {"t5", Dialect::t5},
    {"mt5", Dialect::t5},
    {"umt5", Dialect::t5},
    {"gpt2", Dialect::gpt2},
    {"gpt_bigcode", Dialect::gpt2},
    {"gpt_neo", Dialect::gpt_neo},
    {"bert", Dialect::bert},
    {"distilbert", Dialect::bert},
    {"roberta", Dialect::roberta},
    {"xlm-roberta", Dialect::roberta},
    {"camembert", Dialect::roberta},
    {"opt", Dialect::opt},
    {"bart", Dialect::bart},
    {"mbart", Dialect::bart},
    {"marian", Dialect::marian},
    {"pegasus", Dialect::marian},
    {"m2m_100", Dialect::fairseq},
    {"xglm", Dialect::fairseq},
};

inline const KnownModel* find_model(std::string_view name) {
  const auto* found =
      std::find_if(std::begin(known_models), std::end(known_models), [&](const auto& m) { return m.name == name; });
  return found == std::end(known_models) ? nullptr : found;
}

/// Whether a field of the top level is about positions, by the words in its name. Such a field is used or refused;
/// any other that is not read is not this library's business.
inline bool is_positional(std::string_view key) {
  static constexpr std::string_view words[] = {"rope",      "nope",       "rotary",     "alibi",    "position",
                                               "positions", "positional", "pos",        "relative", "window",
                                               "sliding",   "mrope",      "sinusoidal", "xpos",     "yarn",
                                               "ntk",       "logn",       "longrope",   "theta"};
  static constexpr std::string_view names[] = {"layer_types",
                                               "attention_chunk_size",
                                               "attn_config",
                                               "attn_scale",
                                               "attn_temperature_tuning",
                                               "floor_scale",
                                               "attention_types",
                                               "attention_multiplier",
                                               "query_pre_attn_scalar",
                                               "softmax_scale",
                                               "scale_attn_weights",
                                               "scale_attn_by_inverse_layer_idx",
                                               "initial_context_length",
                                               "global_head_dim",
                                               "dual_chunk_attention_config",
                                               "full_attention_interval",
                                               "llama_4_scaling_beta"};
  if (std::find(std::begin(names), std::end(names), key) != std::end(names)) return true;
  while (!key.empty()) {
    const std::size_t end = std::min(key.find('_'), key.size());
    if (std::find(std::begin(words), std::end(words), key.substr(0, end)) != std::end(words)) return true;
    key.remove_prefix(std::min(end + 1, key.size()));
  }
  return false;
}

}  // namespace posenc::inline v0::detail::config
