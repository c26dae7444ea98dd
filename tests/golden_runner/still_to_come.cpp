// SPDX-License-Identifier: MIT
#include "still_to_come.hpp"

#include "files.hpp"

namespace golden {
namespace {

/// The one list of what is not consumed yet. An entry goes when its feature arrives.
constexpr StillToCome list[] = {
    // Cases of files that are consumed otherwise.
    {"relative_misc", "DeBERTa's log buckets", [](const Case& c) { return c.has("bucket_size"); }},

    // Whole files.
    {"grad_attention_bias", "gradients of score biases"},
    {"grad_learned", "gradients of learned tables"},
    {"grad_rope", "gradients of rotations"},
    {"grad_shaw", "gradients of clipped-relative tables"},
    {"pope_xtr", "polar embedding (PoPE)"},
};

}  // namespace

const StillToCome* find_still_to_come(std::string_view stem, const Case& golden_case) {
  const std::string_view group = group_of(stem);
  for (const auto& entry : list)
    if ((entry.file == stem || entry.file == group) && (!entry.applies || entry.applies(golden_case))) return &entry;
  return nullptr;
}

}  // namespace golden
