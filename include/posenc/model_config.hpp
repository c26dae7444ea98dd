// SPDX-License-Identifier: MIT
#pragma once

// Not part of posenc.hpp: this header needs nlohmann_json (3.10 or newer). In CMake it is a component:
//
//   find_package(posenc COMPONENTS config)
//   target_link_libraries(app PRIVATE posenc::config)

#include <concepts>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include <posenc/detail/config/fields.hpp>
#include <posenc/detail/config/models.hpp>
#include <posenc/detail/config/parse.hpp>
#include <posenc/detail/config/resolve_others.hpp>
#include <posenc/detail/config/resolve_rope.hpp>
#include <posenc/model_encoding.hpp>
#include <posenc/model_encoding_text.hpp>

namespace posenc::inline v0 {

struct ConfigOptions {
  /// How the pairs of a model_type lie that this library does not know. The model is then read as Llama is.
  std::optional<PairLayout> layout = {};
};

namespace detail::config {

inline bool is_rope_model(Fields& top, const KnownModel& model) {
  if (model.dialect == Dialect::falcon) return !top.flag("alibi").value_or(false);
  return model.dialect <= Dialect::deepseek;
}

/// What a model with a text and other parts says beside text_config must be what it says within.
inline void require_same(const Fields& outer, const Fields& text) {
  outer.for_each([&](const std::string& key, const Json& value) {
    if (!is_positional(key) || value.is_null()) return;
    if (!text.json().contains(key)) refuse(key, "is beside text_config, which has none", value);
    const Json& within = text.json().at(key);
    if (within != value) refuse(key, "contradicts text_config." + key + " = " + shown(within), value);
  });
}

inline ModelEncoding resolve(Fields& top, const std::string& model_type, const ConfigOptions& options) {
  const KnownModel* known = find_model(model_type);
  if (known == nullptr && !options.layout)
    refuse(top.path("model_type") + " is not known, got " + shown(Json(model_type)) +
           " (ConfigOptions::layout reads it as a model like Llama)");
  if (known != nullptr && options.layout && known->layout != *options.layout)
    refuse(top.path("model_type") + " contradicts ConfigOptions::layout, got " + shown(Json(model_type)));
  const KnownModel unknown{model_type, Dialect::rope, options.layout.value_or(PairLayout::half_split)};
  const KnownModel& model = known != nullptr ? *known : unknown;

  ModelEncoding result =
      is_rope_model(top, model) ? RopeResolver(top, model).resolve() : OtherResolver(top, model).resolve();
  top.for_each([&](const std::string& key, const Json& value) {
    if (is_positional(key) && !top.is_taken(key) && !value.is_null())
      refuse(top.path(key), "is not known for model_type " + std::string(model.name), value);
  });
  // Whatever else cannot be built is refused now, and not when it is used.
  for (const LayerKind& kind : result.kinds)
    if (const auto* rope = std::get_if<ModelRope>(&kind.encoding)) {
      rope->rope();
      rope->rope(result.max_positions);
    }
  if (const auto* sinusoidal = std::get_if<SinusoidalOptions>(&result.input)) Sinusoidal{*sinusoidal};
  return result;
}

}  // namespace detail::config

/// What a model does with positions, from its config.json (Hugging Face).
///
///   rope_theta, rope_scaling | rope_parameters,    Rope: the layout is that of the model_type; nested by layer type as
///   partial_rotary_factor, head_dim, ...           well; types default, linear, dynamic, yarn, llama3, longrope (su),
///                                                  proportional, mrope
///   alibi, attn_config.alibi, Bloom                Alibi
///   relative_attention_num_buckets, ...            ModelBuckets of T5
///   n_positions, max_position_embeddings           LearnedAbsolute of GPT-2, BERT, OPT, BART, ...; or Sinusoidal of
///                                                  Marian, M2M-100, ...
///
/// Of the fields in a dictionary of RoPE, and of those in the top level with a word in their name that is about
/// positions (rope, rotary, alibi, position, relative, window, ...), every one is used or refused. Others are not
/// looked at: sizes of layers, the vocabulary, vision_config. A field that is null counts as absent. What a
/// configuration leaves out has the value that the model's own code gives it, where that is beyond doubt
/// (detail/config/models.hpp); where not, the error names the field that is missing.
///
/// \param config  the parsed file; of a model with a text and other parts, text_config is read.
/// \throws std::invalid_argument "posenc::config: <path of the field> <rule>, got <value>", whatever the input:
///
///   posenc::config: rope_scaling.factr is not known, got 8.0
///   posenc::config: rope_parameters.rope_theta contradicts the top level, which has 10000.0, got 500000.0
///   posenc::config: rope_scaling.factor is missing: rope_type linear needs it
///
/// Cost: linear in the size of the input; a few kB of memory for what comes out.
/// Source: configurations as transformers 4 and 5 read them; differences are errors here, never warnings.
template <std::same_as<nlohmann::json> Config>
ModelEncoding from_config(const Config& config, const ConfigOptions& options = {}) {
  using namespace detail::config;
  require_depth(config);
  Fields outer(config, "");
  if (auto text = outer.object("text_config")) {
    require_same(outer, *text);
    auto model_type = text->text("model_type");
    if (!model_type && outer.text("model_type") == "gemma3") model_type = "gemma3_text";
    if (!model_type && outer.text("model_type") == "llama4") model_type = "llama4_text";
    if (!model_type) text->missing("model_type", "the encoding");
    return resolve(*text, *model_type, options);
  }
  const auto model_type = outer.text("model_type");
  if (!model_type) outer.missing("model_type", "the encoding");
  return resolve(outer, *model_type, options);
}

/// The same from text.
/// \throws std::invalid_argument also if the text is not JSON, larger than 16 MiB, deeper than 64 levels, or has a key
///         twice in one object.
inline ModelEncoding from_config(std::string_view text, const ConfigOptions& options = {}) {
  return from_config(detail::config::parse(text), options);
}

}  // namespace posenc::inline v0
