// SPDX-License-Identifier: MIT
#pragma once

// One input of the fuzzer: a text that is either refused with std::invalid_argument, or resolves to an encoding that
// can be built and printed. Anything else, another exception or a number that is not finite, ends the program.
//
// A text with a field "general.architecture" stands for the metadata of a GGUF file, one field a key.

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <optional>
#include <posenc/gguf_config.hpp>
#include <posenc/model_config.hpp>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace config_fuzz {

inline void expect(bool ok, const char* what) {
  if (ok) return;
  std::fprintf(stderr, "expected: %s\n", what);
  std::abort();
}

/// Everything that can be asked of a result.
inline void use(const posenc::ModelEncoding& model) {
  using posenc::Index;
  expect(!model.kinds.empty(), "a kind of layers");
  expect(std::isfinite(model.softmax_scale) && model.softmax_scale > 0, "a softmax scale");
  for (const posenc::LayerKind& kind : model.kinds) {
    if (const auto* alibi = std::get_if<posenc::ModelAlibi>(&kind.encoding)) alibi->alibi();
    const auto* rope = std::get_if<posenc::ModelRope>(&kind.encoding);
    if (rope == nullptr) continue;
    for (const Index num_tokens : {Index{0}, Index{1}, model.max_positions, Index{1} << 40}) {
      const posenc::RopeFrequencies frequencies = rope->frequencies(num_tokens);
      expect(frequencies.values.allFinite() && std::isfinite(frequencies.magnitude), "finite frequencies");
      expect(frequencies.size() * 2 == rope->options.rotary_dim, "rotary_dim / 2 frequencies");
      rope->rope(num_tokens);
    }
  }
  for (Index l = 0; l < model.num_layers; ++l) model.layer(l);
  std::ostringstream text;
  text << model;
  expect(!text.str().empty(), "a description");
}

inline std::optional<posenc::GgufValue> gguf_value(const nlohmann::json& value) {
  if (value.is_boolean()) return value.get<bool>();
  if (value.is_number_integer()) return value.get<std::int64_t>();
  if (value.is_number()) return value.get<double>();
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_array()) return {};
  std::vector<double> list;
  for (const auto& entry : value)
    if (entry.is_number()) list.push_back(entry.get<double>());
  return list;
}

inline void resolve_gguf(const nlohmann::json& file) {
  posenc::GgufOptions options;
  const auto tensor = [&](const char* name, posenc::Vector<double>& values) {
    const auto found = file.find(name);
    if (found == file.end()) return;
    if (const auto value = gguf_value(*found))
      if (const auto* list = std::get_if<std::vector<double>>(&*value))
        values = Eigen::Map<const posenc::Vector<double>>(list->data(), static_cast<posenc::Index>(list->size()));
  };
  tensor("rope_freqs.weight", options.rope_freqs);
  tensor("rope_factors_short.weight", options.rope_factors_short);
  tensor("rope_factors_long.weight", options.rope_factors_long);
  for (const auto& field : file.items()) options.keys.push_back(field.key());
  use(posenc::from_gguf(
      [&](const std::string& key) -> std::optional<posenc::GgufValue> {
        const auto found = file.find(key);
        if (found == file.end()) return {};
        return gguf_value(*found);
      },
      options));
}

/// Whether it resolved.
inline bool run(std::string_view text) {
  try {
    const nlohmann::json parsed = nlohmann::json::parse(text, nullptr, false);
    if (text.size() < 10000 && parsed.is_object() && parsed.contains("general.architecture"))
      resolve_gguf(parsed);
    else
      use(posenc::from_config(text));
    return true;
  } catch (const std::invalid_argument& error) {
    const std::string_view message = error.what();
    expect(message.substr(0, 8) == "posenc::", "a message of this library");
    expect(message.size() < 2000, "a message of reasonable length");
  }
  try {  // the same with a layout, for names that are not known
    use(posenc::from_config(text, {.layout = posenc::PairLayout::interleaved}));
    return true;
  } catch (const std::invalid_argument&) {
    return false;
  }
}

}  // namespace config_fuzz
