// SPDX-License-Identifier: MIT
#pragma once

// Not part of posenc.hpp, as model_config.hpp, but needs nothing besides Eigen.

#include <posenc/detail/config/gguf_resolve.hpp>
#include <posenc/gguf_values.hpp>
#include <posenc/model_encoding.hpp>
#include <posenc/model_encoding_text.hpp>

namespace posenc::inline v0 {

/// What a model does with positions, from the metadata of its GGUF file, as llama.cpp reads it.
///
///   general.architecture                                the pair layout: NORMAL is interleaved, NEOX half_split
///   A.attention.head_count, .head_count_kv,             dims; A is the architecture
///   .key_length, A.embedding_length, A.context_length
///   A.rope.freq_base, .dimension_count, .scaling.*,     Rope
///   .dimension_sections, .freq_base_swa
///   A.attention.max_alibi_bias                          Alibi
///   A.attention.relative_buckets_count                  ModelBuckets (llama.cpp fixes the distance at 128)
///   A.attention.sliding_window, _pattern, .scale        the window of layers, the softmax scale
///
/// \param lookup   called with a key; returns std::optional<GgufValue>.
/// \param options  tensors that belong to positions, and the keys of the file, so that none is overlooked.
/// \throws std::invalid_argument "posenc::gguf: <key> <rule>, got <value>" for an architecture that is not known, a key
///         that is missing, of another type or out of its range, and one that contradicts another.
/// Source: llama.cpp of 2026. Its files of gpt-oss do not say that the ramp of YaRN is not to be rounded; it rounds it,
///         and so does this.
inline ModelEncoding from_gguf(const GgufLookup& lookup, const GgufOptions& options = {}) {
  return detail::config::GgufResolver(lookup, options).resolve();
}

}  // namespace posenc::inline v0
