// SPDX-License-Identifier: MIT
#pragma once

// Models that rotate queries and keys.

#include <cmath>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include <posenc/detail/config/fields.hpp>
#include <posenc/detail/config/layers.hpp>
#include <posenc/detail/config/models.hpp>
#include <posenc/detail/config/rope.hpp>
#include <posenc/model_encoding.hpp>

namespace posenc::inline v0::detail::config {

/// A whole number that must be there, under one of several names.
inline Index needed(Fields& top, std::initializer_list<std::string_view> keys, Index most, const KnownModel& model) {
  const auto value = top.integer(keys, 1, most);
  if (!value) top.missing(*keys.begin(), "model_type " + std::string(model.name));
  return *value;
}

/// hidden_size / num_attention_heads, which must have no remainder.
inline Index divided_head_dim(const Fields& top, Index features, Index num_heads) {
  if (features % num_heads != 0)
    refuse(top.path("hidden_size") + " must be a multiple of num_attention_heads = " + std::to_string(num_heads) +
           ", got " + std::to_string(features));
  return features / num_heads;
}

inline void require_head_groups(const Fields& top, const ModelEncoding& result) {
  if (result.num_heads % result.num_kv_heads != 0)
    refuse(top.path("num_attention_heads") + " must be a multiple of num_key_value_heads = " +
           std::to_string(result.num_kv_heads) + ", got " + std::to_string(result.num_heads));
}

class RopeResolver {
 public:
  RopeResolver(Fields& top, const KnownModel& model) : top_(top), model_(model) {}

  ModelEncoding resolve() {
    result_.model_type = model_.name;
    switch (model_.dialect) {
      case Dialect::gptj:
        read_gptj();
        break;
      case Dialect::deepseek:
        read_deepseek();
        break;
      case Dialect::falcon:
        read_falcon();
        break;
      default:
        read_usual();
        break;
    }
    require_head_groups(top_, result_);
    context_.path = top_.path("");
    context_.options.head_dim = result_.head_dim;
    context_.default_base = model_.base;
    context_.default_part = model_.rotary_part;
    context_.sections = model_.sections;
    context_.temperature = model_.name == "ministral3";
    context_.max_positions = result_.max_positions == 0 ? std::nullopt : std::optional(result_.max_positions);
    read_scale();

    const LayerPlan plan(top_, model_);
    if (plan.num_layers() != 0) result_.num_layers = plan.num_layers();
    result_.layer_kinds = plan.layer_kinds;
    resolve_layers(plan);
    if (model_.name == "deepseek_v32") add_indexer();
    return std::move(result_);
  }

 private:
  void read_usual() {
    const bool gemma3 = model_.name == "gemma3_text";  // whose published files leave out what is as in its code
    const auto heads = top_.integer("num_attention_heads", 1, max_heads),
               features = top_.integer("hidden_size", 1, max_features);
    if (!heads && !gemma3) top_.missing("num_attention_heads", "model_type " + std::string(model_.name));
    result_.num_heads = heads.value_or(8);
    result_.num_kv_heads = top_.integer("num_key_value_heads", 1, max_heads).value_or(gemma3 ? 4 : result_.num_heads);
    auto given = top_.integer("head_dim", 1, max_head_dim);
    if (!given && gemma3) given = 256;
    if (!given && !features) top_.missing("head_dim", "without hidden_size the encoding");
    result_.head_dim = given ? *given : divided_head_dim(top_, *features, result_.num_heads);
    require_sane_head();
    context_.rotary_head = result_.head_dim;
    context_.options.layout = model_.layout;

    const bool neox = model_.dialect == Dialect::neox;
    context_.base = top_.agreed({"rope_theta", neox ? "rotary_emb_base" : "rope_theta"},
                                [&](std::string_view key) { return top_.positive(key, max_base); });
    if (neox && !top_.has("rope_theta")) context_.base_name = "rotary_emb_base";
    context_.part = top_.agreed({"partial_rotary_factor", neox ? "rotary_pct" : "partial_rotary_factor"},
                                [&](std::string_view key) { return top_.positive(key, 1); });
    if (!neox)
      if (const auto part = top_.number("rotary_pct"); part && *part != 1)
        top_.refuse_field("rotary_pct", "is not of model_type " + std::string(model_.name));
    require_usual_flags();
    if (const auto type = top_.text("position_embedding_type")) {
      const bool fits = *type == "rope" || *type == "rotary" ||
                        (*type == "rope_gptj" && model_.layout == PairLayout::interleaved) ||
                        (*type == "nope" && model_.name == "granitemoehybrid");  // LayerPlan has read it as well
      if (!fits) top_.refuse_field("position_embedding_type", "contradicts model_type " + std::string(model_.name));
    }
    read_lengths();
  }

  /// Flags that many files have, and that say what the model_type says already.
  void require_usual_flags() {
    const std::string contradicts = "contradicts model_type " + std::string(model_.name);
    if (const auto axes = top_.flag("use_mrope"); axes && *axes != model_.sections)
      top_.refuse_field("use_mrope", contradicts);
    if (const auto adjacent = top_.flag("rope_interleaved");
        adjacent && *adjacent != (model_.layout == PairLayout::interleaved))
      top_.refuse_field("rope_interleaved", contradicts);
    if (const auto scaled = top_.flag("scale_attn_weights"); scaled && !*scaled)
      top_.refuse_field("scale_attn_weights", "is not supported");
  }

  void read_lengths() {
    const auto length = top_.integer("max_position_embeddings", 1, max_length);
    result_.max_positions = length.value_or(model_.name == "gemma3_text" ? 131072 : 0);
    context_.original_positions = top_.integer("original_max_position_embeddings", 1, max_length);
    if (model_.name == "gpt_oss")
      context_.original_positions =
          top_.integer({"original_max_position_embeddings", "initial_context_length"}, 1, max_length);
    if (context_.original_positions && result_.max_positions != 0 &&
        *context_.original_positions > result_.max_positions)
      refuse(top_.path("max_position_embeddings") + " must be at least original_max_position_embeddings = " +
             std::to_string(*context_.original_positions) + ", got " + std::to_string(result_.max_positions));
  }

  void read_gptj() {
    result_.num_heads = needed(top_, {"n_head", "num_attention_heads"}, max_heads, model_);
    result_.num_kv_heads = result_.num_heads;
    const Index features = needed(top_, {"n_embd", "hidden_size"}, max_features, model_);
    result_.head_dim = divided_head_dim(top_, features, result_.num_heads);
    require_sane_head();
    result_.num_layers = top_.integer({"n_layer", "num_hidden_layers"}, 1, max_layers).value_or(0);
    result_.max_positions =
        top_.integer({"n_positions", "n_ctx", "max_position_embeddings"}, 1, max_length).value_or(0);
    context_.rotary_head = result_.head_dim;
    context_.rotary_dim = needed(top_, {"rotary_dim"}, max_head_dim, model_);
    context_.options.layout = model_.layout;
    if (const auto scaled = top_.flag("scale_attn_weights"); scaled && !*scaled)
      top_.refuse_field("scale_attn_weights", "is not supported");
    if (const auto rotary = top_.flag("rotary"); rotary && !*rotary) top_.refuse_field("rotary", "is not supported");
  }

  void read_deepseek() {
    result_.num_heads = needed(top_, {"num_attention_heads"}, max_heads, model_);
    result_.num_kv_heads = top_.integer("num_key_value_heads", 1, max_heads).value_or(result_.num_heads);
    const Index still = needed(top_, {"qk_nope_head_dim"}, max_head_dim / 2, model_);
    const Index turns = needed(top_, {"qk_rope_head_dim"}, max_head_dim / 2, model_);
    result_.head_dim = still + turns;
    if (const auto whole = top_.integer("qk_head_dim", 1, max_head_dim); whole && *whole != result_.head_dim)
      top_.refuse_field("qk_head_dim",
                        "must be qk_nope_head_dim + qk_rope_head_dim = " + std::to_string(still + turns));
    if (const auto head = top_.integer("head_dim", 1, max_head_dim);
        head && *head != turns && *head != result_.head_dim)
      top_.refuse_field("head_dim", "must be qk_rope_head_dim = " + std::to_string(turns));
    context_.rotary_head = turns;
    context_.options.rotary_offset = still;
    context_.base = top_.positive("rope_theta", max_base);
    context_.part = top_.positive("partial_rotary_factor", 1);
    if (context_.part && *context_.part != 1)
      top_.refuse_field("partial_rotary_factor", "must be 1 beside qk_rope_head_dim");
    // Features are read in adjacent pairs. Version 3 writes them in halves, which no score can tell.
    const bool version_2 = model_.name == "deepseek_v2";
    const bool adjacent = version_2 || top_.flag("rope_interleave").value_or(true);
    context_.options.layout = adjacent ? PairLayout::interleaved : PairLayout::half_split;
    if (adjacent && !version_2) context_.options.output_layout = PairLayout::half_split;
    read_lengths();
  }

  void read_falcon() {
    result_.num_heads = needed(top_, {"num_attention_heads", "n_head"}, max_heads, model_);
    result_.num_layers = top_.integer({"num_hidden_layers", "n_layer"}, 1, max_layers).value_or(0);
    const Index features = needed(top_, {"hidden_size"}, max_features, model_);
    const auto kv_heads = top_.integer({"num_kv_heads", "n_head_kv"}, 1, max_heads);
    const bool grouped = top_.flag("new_decoder_architecture").value_or(model_.name == "RefinedWeb");
    const bool shared = top_.flag("multi_query").value_or(true);
    result_.num_kv_heads = grouped ? kv_heads.value_or(result_.num_heads) : shared ? 1 : result_.num_heads;
    result_.head_dim = divided_head_dim(top_, features, result_.num_heads);
    require_sane_head();
    context_.rotary_head = result_.head_dim;
    context_.options.layout = model_.layout;
    context_.base = top_.positive("rope_theta", max_base);
    context_.part = top_.positive("partial_rotary_factor", 1);
    read_lengths();
  }

  void require_sane_head() const {
    if (result_.head_dim > max_head_dim)
      refuse(top_.path("head_dim") + " must be at most " + std::to_string(max_head_dim) + ", got " +
             std::to_string(result_.head_dim));
  }

  void read_scale() {
    result_.softmax_scale = 1 / std::sqrt(static_cast<double>(result_.head_dim));
    if (model_.name == "gemma2" || model_.name == "gemma3_text") {
      auto scalar = top_.positive("query_pre_attn_scalar", max_factor);
      if (!scalar && model_.name == "gemma3_text") scalar = 256;
      if (!scalar) top_.missing("query_pre_attn_scalar", "model_type " + std::string(model_.name));
      result_.softmax_scale = 1 / std::sqrt(*scalar);
    }
    if (model_.name.substr(0, 7) == "granite") {
      const auto multiplier = top_.positive("attention_multiplier", max_factor);
      if (!multiplier) top_.missing("attention_multiplier", "model_type " + std::string(model_.name));
      result_.softmax_scale = *multiplier;
    }
  }

  /// rope_parameters, or rope_scaling as it was called before; absent in models that have never heard of either.
  std::optional<Fields> dictionary() {
    if (model_.dialect == Dialect::gptj) return {};
    auto parameters = top_.object("rope_parameters"), scaling = top_.object("rope_scaling");
    if (parameters && scaling && parameters->json() != scaling->json())
      top_.refuse_field("rope_scaling", "contradicts rope_parameters");
    return parameters ? parameters : scaling;
  }

  void resolve_layers(const LayerPlan& plan) {
    const auto local_base =
        model_.name == "gemma3_text" ? top_.positive("rope_local_base_freq", max_base) : std::nullopt;
    std::optional<Fields> fields = dictionary();
    bool nested = false;
    if (fields) fields->for_each([&](const std::string&, const Json& value) { nested |= value.is_object(); });
    if (nested)
      fields->for_each([&](const std::string& key, const Json& value) {
        if (!plan.has(key)) refuse(fields->path(key), "is not the type of a layer", value);
      });

    double softmax_factor = 1;
    for (const LayerPlan::Kind& kind : plan.kinds) {
      LayerKind layers{.name = plan.name(kind)};
      if (kind.type == "sliding_attention") layers.window = plan.window;
      if (kind.type == "chunked_attention") layers.chunk = plan.chunk;
      // Gemma 3: layers with a window have a base of their own, and are not stretched.
      RopeContext context = context_;
      std::optional<Fields> own = fields;
      const bool local = model_.name == "gemma3_text" && kind.type == "sliding_attention";
      if (local) {
        context.base = local_base;
        context.base_name = "rope_local_base_freq";
        context.default_base = 10000;
        if (!nested) own.reset();
      }
      if (nested) {
        own = fields->object(kind.type);
        if (!own) fields->missing(kind.type, "layer_types");
      }
      ResolvedRope rope = RopeDictionary(own ? &*own : nullptr, context).resolve();
      softmax_factor = rope.softmax_factor;
      layers.temperature = rope.temperature;
      if (model_.plain_windows && layers.window && !nested) rope.rope.scaling = PlainRope{};
      if (kind.rotates) layers.encoding = std::move(rope.rope);
      if (!kind.rotates && model_.name == "llama4_text") layers.temperature = still_temperature();
      result_.kinds.push_back(std::move(layers));
    }
    if (model_.name == "llama4_text") still_temperature();  // so that its fields are read
    if (model_.dialect == Dialect::deepseek) result_.softmax_scale *= softmax_factor;
  }

  /// DeepSeek-V3.2 chooses the keys that a query sees by heads of their own in every layer: the first features of these
  /// turn as the last of the others do, but as halves.
  void add_indexer() {
    ModelRope rope = result_.rope();
    rope.options.head_dim = needed(top_, {"index_head_dim"}, max_head_dim, model_);
    rope.options.rotary_offset = 0;
    rope.options.layout = PairLayout::half_split;
    rope.options.output_layout.reset();
    if (rope.options.rotary_dim > rope.options.head_dim)
      top_.refuse_field("index_head_dim",
                        "must be at least qk_rope_head_dim = " + std::to_string(rope.options.rotary_dim));
    result_.kinds.push_back({.name = "indexer", .encoding = std::move(rope)});
  }

  /// Llama 4: queries of the layers that do not rotate grow with their position.
  std::optional<QueryTemperature> still_temperature() {
    const auto scale = top_.number("attn_scale", 0, max_factor).value_or(0.1);
    const auto length = top_.integer("floor_scale", 1, max_length).value_or(8192);
    const Json* tuned = top_.take("attn_temperature_tuning");  // true or false, or 4 or 0
    if (tuned != nullptr && !tuned->is_boolean() && !tuned->is_number())
      top_.refuse_field("attn_temperature_tuning", "must be true or false");
    if (tuned != nullptr && (*tuned == false || *tuned == 0)) return {};
    return QueryTemperature::llama4(scale, length);
  }

  Fields& top_;
  const KnownModel& model_;
  ModelEncoding result_ = {};
  RopeContext context_ = {};
};

}  // namespace posenc::inline v0::detail::config
