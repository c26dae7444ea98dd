// SPDX-License-Identifier: MIT
#include "files.hpp"

#include <algorithm>
#include <cctype>

namespace golden {
namespace {

constexpr File files[] = {
    {"alibi_attention", alibi_attention},
    {"alibi_bias", alibi_bias},
    {"alibi_slopes", alibi_slopes},
    {"attention_core", attention_core},
    {"exact_sincos", exact_sincos},
    {"ggml_rope", ggml_rope},
    {"ggml_softmax_alibi", ggml_softmax_alibi},
    {"learned_absolute", learned_absolute},
    {"llama2c_stories260K", llama2c},
    {"mha_llama", llama_layer},
    {"mha_torch", torch_multi_head_attention},
    {"mlx_layers", mlx_layers},
    {"mrope_hf", mrope},
    {"relative_misc", relative_misc},
    {"rope_complex_hf_llama4", rope_complex_llama4},
    {"rope_complex_llama", rope_complex},
    {"rope_flash_attn", rope_flash_attn},
    {"rope_half_hf_llama", rope_half},
    {"rope_half_hf_llama_2", rope_half},
    {"rope_half_partial_hf_neox", rope_half},
    {"rope_interleaved_hf_gptj", rope_interleaved_gptj},
    {"rope_interleaved_hf_others", rope_variants},
    {"rope_lucidrains", rope_lucidrains},
    {"rope_scaling_hf", rope_scaling},
    {"rope_scaling_hf_2", rope_scaling},
    {"rope_scaling_hf_v4", rope_scaling},
    {"rope_torchtune", rope_torchtune},
    {"rope_vision_hf", rope_vision},
    {"shaw_hf_bert", shaw_bert},
    {"shaw_hf_wav2vec2bert", shaw_wav2vec2_bert},
    {"shaw_onmt", shaw_opennmt},
    {"shaw_t2t", shaw_tensor2tensor},
    {"sinusoidal", sinusoidal},
    {"t5_bias", t5_bias},
    {"t5_bucket", t5_bucket},
    {"xpos", xpos},
};

}  // namespace

std::span<const File> known_files() { return files; }

std::string_view group_of(std::string_view stem) {
  const auto underscore = stem.rfind('_');
  if (underscore == std::string_view::npos || underscore + 1 == stem.size()) return stem;
  const auto number = stem.substr(underscore + 1);
  const bool continues = std::all_of(number.begin(), number.end(), [](unsigned char c) { return std::isdigit(c); });
  return continues ? stem.substr(0, underscore) : stem;
}

const File* find_file(std::string_view stem) {
  for (const std::string_view name : {stem, group_of(stem)})
    for (const auto& file : files)
      if (file.stem == name) return &file;
  return nullptr;
}

}  // namespace golden
