// SPDX-License-Identifier: MIT
#pragma once

// Which code consumes which golden file. One function consumes one case, and decides by what the case says about
// itself, its parameters and the arrays it has, never by which case it is: other files of the same kind must pass
// unchanged.

#include <span>
#include <string_view>

#include "golden.hpp"

namespace golden {

/// A file that this runner knows: it must be there, and `consume` is called for each of its cases.
struct File {
  std::string_view stem;  ///< the name without ".json"
  void (*consume)(Case&);
};

std::span<const File> known_files();

/// The group that a file belongs to: `name` for `name` and for `name_2`, which continues it.
std::string_view group_of(std::string_view stem);

/// The entry for a file: its own, or that of the group it continues (`name_3` continues `name`); null if there is none.
const File* find_file(std::string_view stem);

// rope.cpp
void rope_half(Case&);
void rope_interleaved_gptj(Case&);
void rope_variants(Case&);
void rope_complex(Case&);
// rope_scaling.cpp
void rope_scaling(Case&);
void rope_complex_llama4(Case&);
// rope_modules.cpp
void rope_torchtune(Case&);
void rope_flash_attn(Case&);
void rope_lucidrains(Case&);
// multi_axis.cpp
void mrope(Case&);
void rope_vision(Case&);
// xpos.cpp, ggml_rope.cpp
void xpos(Case&);
void ggml_rope(Case&);
// alibi.cpp
void alibi_slopes(Case&);
void alibi_bias(Case&);
void alibi_attention(Case&);
// alibi_peers.cpp
void mlx_layers(Case&);
void ggml_softmax_alibi(Case&);
// t5.cpp, relative_misc.cpp
void t5_bucket(Case&);
void t5_bias(Case&);
void relative_misc(Case&);
// sinusoidal.cpp, learned.cpp
void sinusoidal(Case&);
void learned_absolute(Case&);
// clipped_relative.cpp
void shaw_tensor2tensor(Case&);
void shaw_opennmt(Case&);
void shaw_bert(Case&);
void shaw_wav2vec2_bert(Case&);
// attention.cpp
void torch_multi_head_attention(Case&);
void llama_layer(Case&);
void attention_core(Case&);
// exact_sincos.cpp
void exact_sincos(Case&);
// llama2c.cpp
void llama2c(Case&);

}  // namespace golden
