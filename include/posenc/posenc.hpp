// SPDX-License-Identifier: MIT
#pragma once

// Everything but the configurations of models, in the order of the table in README.md: model_config.hpp, which needs
// nlohmann-json, gguf_config.hpp and gguf_values.hpp, and what both resolve to, model_encoding.hpp and
// model_encoding_text.hpp, are for programs that load models. An encoding can be included alone as well.

#include <posenc/version.hpp>
// vocabulary
#include <posenc/concepts.hpp>
#include <posenc/positions.hpp>
#include <posenc/views.hpp>
// added to the input
#include <posenc/learned.hpp>
#include <posenc/sinusoidal.hpp>
// queries and keys
#include <posenc/pair_layout.hpp>
#include <posenc/rope.hpp>
#include <posenc/rope_table.hpp>
// the frequencies of RoPE, and its positions on several axes
#include <posenc/mrope_positions.hpp>
#include <posenc/rope_axes.hpp>
#include <posenc/rope_frequencies.hpp>
#include <posenc/rope_llama3.hpp>
#include <posenc/rope_longrope.hpp>
#include <posenc/rope_ntk.hpp>
#include <posenc/rope_yarn.hpp>
// around RoPE
#include <posenc/query_temperature.hpp>
#include <posenc/rope_move.hpp>
#include <posenc/rope_parity.hpp>
#include <posenc/xpos.hpp>
// scores
#include <posenc/alibi.hpp>
#include <posenc/bias_matrix.hpp>
#include <posenc/fire.hpp>
#include <posenc/kerple.hpp>
#include <posenc/masks.hpp>
#include <posenc/sandwich.hpp>
#include <posenc/swin_bias.hpp>
#include <posenc/t5_bias.hpp>
// keys and values
#include <posenc/clipped_relative.hpp>
// what they plug into
#include <posenc/attention.hpp>
#include <posenc/attention_state.hpp>
#include <posenc/attention_workspace.hpp>
#include <posenc/kv_cache.hpp>
#include <posenc/multi_head_attention.hpp>
#include <posenc/streaming_attention.hpp>
#include <posenc/streaming_heads.hpp>
