// SPDX-License-Identifier: MIT
#pragma once

// What the metadata of a GGUF file does not say because llama.cpp knows it by the name of the architecture.

#include <algorithm>
#include <string_view>

#include <posenc/concepts.hpp>
#include <posenc/pair_layout.hpp>

namespace posenc::inline v0::detail::config {

enum class GgufFamily { rope, mla, mrope, imrope, alibi, learned, buckets };

struct GgufModel {
  std::string_view name;
  GgufFamily family;
  PairLayout layout = PairLayout::half_split;
  Index period = 0;     ///< with a window, every period-th layer has none; 1: all have it; 0: none may be given
  double swa_base = 0;  ///< Gemma 3: the base of layers with a window, which are not stretched; 0: the same as others
  Index large_layers = 0;      ///< Gemma: with so many layers the softmax scale is by embedding_length / head_count
  bool still_full = false;     ///< layers without a window do not rotate
  bool plain_windows = false;  ///< layers with a window are not stretched
  Index still_period = 0;      ///< every so many-th layer does not rotate
};

/// Names, and how the pairs of a head lie: llama.cpp's NORMAL is interleaved, its NEOX half_split. "llama" is NORMAL,
/// though Hugging Face has it in halves: the converter reorders the rows of W_q and W_k.
inline constexpr GgufModel gguf_models[] = {
    // NORMAL
    {"llama", GgufFamily::rope, PairLayout::interleaved, 1},
    {"llama4", GgufFamily::rope, PairLayout::interleaved, 4, 0, 0, true},
    {"mistral3", GgufFamily::rope, PairLayout::interleaved, 1},
    {"deci", GgufFamily::rope, PairLayout::interleaved},
    {"internlm2", GgufFamily::rope, PairLayout::interleaved},
    {"minicpm", GgufFamily::rope, PairLayout::interleaved},
    {"xverse", GgufFamily::rope, PairLayout::interleaved},
    {"command-r", GgufFamily::rope, PairLayout::interleaved},
    {"cohere2", GgufFamily::rope, PairLayout::interleaved, 4, 0, 0, true},
    {"olmo", GgufFamily::rope, PairLayout::interleaved},
    {"deepseek", GgufFamily::rope, PairLayout::interleaved},
    {"deepseek2", GgufFamily::mla, PairLayout::interleaved},
    {"chatglm", GgufFamily::rope, PairLayout::interleaved},
    {"glm4", GgufFamily::rope, PairLayout::interleaved},
    {"granite", GgufFamily::rope, PairLayout::interleaved},
    {"granitemoe", GgufFamily::rope, PairLayout::interleaved},
    {"chameleon", GgufFamily::rope, PairLayout::interleaved},
    {"arcee", GgufFamily::rope, PairLayout::interleaved},
    {"smollm3", GgufFamily::rope, PairLayout::interleaved, 0, 0, 0, false, false, 4},
    {"ernie4_5", GgufFamily::rope, PairLayout::interleaved},
    {"ernie4_5-moe", GgufFamily::rope, PairLayout::interleaved},
    // NEOX
    {"falcon", GgufFamily::rope},
    {"falcon-h1", GgufFamily::rope},
    {"stablelm", GgufFamily::rope},
    {"nomic-bert", GgufFamily::rope},
    {"qwen", GgufFamily::rope},
    {"qwen2", GgufFamily::rope},
    {"qwen2moe", GgufFamily::rope},
    {"qwen3", GgufFamily::rope},
    {"qwen3moe", GgufFamily::rope},
    {"olmo2", GgufFamily::rope, PairLayout::half_split, 4, 0, 0, false, true},  // and OLMo 3
    {"olmoe", GgufFamily::rope},
    {"phi2", GgufFamily::rope},
    {"phi3", GgufFamily::rope, PairLayout::half_split, 1},
    {"phimoe", GgufFamily::rope, PairLayout::half_split, 1},
    {"gemma", GgufFamily::rope},
    {"gemma2", GgufFamily::rope, PairLayout::half_split, 2, 0, 46},
    {"gemma3", GgufFamily::rope, PairLayout::half_split, 6, 10000, 62},
    {"starcoder2", GgufFamily::rope, PairLayout::half_split, 1},
    {"gptneox", GgufFamily::rope},
    {"codeshell", GgufFamily::rope},
    {"orion", GgufFamily::rope},
    {"nemotron", GgufFamily::rope},
    {"exaone", GgufFamily::rope},
    {"seed_oss", GgufFamily::rope},
    {"glm4moe", GgufFamily::rope},
    {"gpt-oss", GgufFamily::rope, PairLayout::half_split, 2},
    // several axes
    {"qwen2vl", GgufFamily::mrope},
    {"qwen3vl", GgufFamily::imrope},
    {"qwen3vlmoe", GgufFamily::imrope},
    // no rotation
    {"bloom", GgufFamily::alibi},
    {"refact", GgufFamily::alibi},
    {"jina-bert-v2", GgufFamily::alibi},
    {"jais", GgufFamily::alibi},
    {"mpt", GgufFamily::alibi},
    {"gpt2", GgufFamily::learned},
    {"starcoder", GgufFamily::learned},
    {"bert", GgufFamily::learned},
    {"t5", GgufFamily::buckets},
    {"t5encoder", GgufFamily::buckets},
};

inline const GgufModel* find_gguf_model(std::string_view name) {
  const auto* found =
      std::find_if(std::begin(gguf_models), std::end(gguf_models), [&](const auto& m) { return m.name == name; });
  return found == std::end(gguf_models) ? nullptr : found;
}

}  // namespace posenc::inline v0::detail::config
