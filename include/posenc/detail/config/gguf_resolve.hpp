// SPDX-License-Identifier: MIT
#pragma once

// Metadata of a GGUF file to a ModelEncoding, as llama.cpp reads it.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include <posenc/alibi.hpp>
#include <posenc/detail/config/gguf_fields.hpp>
#include <posenc/detail/config/gguf_models.hpp>
#include <posenc/detail/config/limits.hpp>
#include <posenc/gguf_values.hpp>
#include <posenc/model_encoding.hpp>
#include <posenc/rope_axes.hpp>
#include <posenc/rope_yarn.hpp>

namespace posenc::inline v0::detail::config {

class GgufResolver {
 public:
  GgufResolver(const GgufLookup& lookup, const GgufOptions& options) : fields_(lookup), options_(options) {}

  ModelEncoding resolve() {
    const auto name = fields_.text("general.architecture");
    if (!name) fields_.missing("general.architecture");
    const GgufModel* model = find_gguf_model(*name);
    if (model == nullptr) fields_.refuse("general.architecture", "is not known", *name);
    model_ = model;
    fields_.set_architecture(*name);

    result_.model_type = *name;
    result_.num_layers = fields_.integer("block_count", 1, max_layers).value_or(0);
    result_.max_positions = fields_.integer("context_length", 1, max_length).value_or(0);
    read_heads();
    switch (model->family) {
      case GgufFamily::alibi:
        alibi();
        break;
      case GgufFamily::learned:
        learned();
        break;
      case GgufFamily::buckets:
        buckets();
        break;
      default:
        rope();
        break;
    }
    require_all_used();
    require_tensors_used();
    for (const LayerKind& kind : result_.kinds)
      if (const auto* rope = std::get_if<ModelRope>(&kind.encoding)) {
        rope->rope();
        rope->rope(result_.max_positions);
      }
    return std::move(result_);
  }

 private:
  void read_heads() {
    const auto heads = fields_.common("attention.head_count", 1, max_heads);
    if (!heads) fields_.missing("attention.head_count");
    result_.num_heads = *heads;
    result_.num_kv_heads = fields_.common("attention.head_count_kv", 1, max_heads).value_or(*heads);
    // The latent attention of DeepSeek is stored with one compressed head for keys and values.
    if (result_.num_heads % result_.num_kv_heads != 0)
      fields_.refuse("attention.head_count",
                     "must be a multiple of head_count_kv = " + std::to_string(result_.num_kv_heads),
                     std::int64_t{result_.num_heads});
    features_ = fields_.integer("embedding_length", 1, max_features).value_or(0);
    auto head = fields_.integer("attention.key_length", 1, max_head_dim);
    if (model_->family == GgufFamily::mla)
      if (const auto whole = fields_.integer("attention.key_length_mla", 1, max_head_dim)) head = whole;
    if (!head) {
      if (features_ == 0) fields_.missing("embedding_length");
      if (features_ % result_.num_heads != 0)
        fields_.refuse("embedding_length",
                       "must be a multiple of attention.head_count = " + std::to_string(result_.num_heads),
                       std::int64_t{features_});
      head = features_ / result_.num_heads;
      if (*head > max_head_dim)
        fields_.refuse("embedding_length", "makes heads that are too large", std::int64_t{features_});
    }
    result_.head_dim = *head;
    result_.softmax_scale = 1 / std::sqrt(static_cast<double>(*head));
    if (model_->large_layers != 0 && model_->large_layers == result_.num_layers && features_ != 0)
      result_.softmax_scale = 1 / std::sqrt(static_cast<double>(features_) / static_cast<double>(result_.num_heads));
    if (const auto scale = fields_.number("attention.scale", 0, max_factor); scale && *scale != 0)
      result_.softmax_scale = *scale;
  }

  void alibi() {
    auto max_bias = fields_.number("attention.max_alibi_bias", 0, 1024);
    if (model_->name == "bloom" || model_->name == "refact" || model_->name == "jina-bert-v2") {
      if (max_bias && *max_bias != 8) fields_.refuse("attention.max_alibi_bias", "must be 8", *max_bias);
      max_bias = 8;
    }
    if (max_bias.value_or(0) == 0) {
      learned();
      return;
    }
    result_.kinds = {{.encoding = ModelAlibi{.slopes = alibi_slopes(result_.num_heads, *max_bias)}}};
  }

  void learned() {
    if (features_ == 0) fields_.missing("embedding_length");
    if (result_.max_positions == 0) fields_.missing("context_length");
    result_.input = ModelLearned{.dim = features_, .num_columns = result_.max_positions};
    result_.kinds = {LayerKind{}};
  }

  void buckets() {
    ModelBuckets buckets{.num_buckets = fields_.needed("attention.relative_buckets_count", 1 << 20)};
    if (buckets.num_buckets < 4 || buckets.num_buckets % 2 != 0)
      fields_.refuse("attention.relative_buckets_count", "must be even and at least 4",
                     std::int64_t{buckets.num_buckets});
    result_.softmax_scale = 1;
    buckets.bidirectional = true;
    result_.kinds.push_back({.name = "encoder", .encoding = buckets});
    buckets.bidirectional = false;
    if (model_->name == "t5") result_.kinds.push_back({.name = "decoder", .encoding = buckets});
  }

  // RoPE ------------------------------------------------------------------------------------------------------------

  void rope() {
    ModelRope rope;
    rope.options.head_dim = result_.head_dim;
    rope.options.layout = model_->layout;
    rope.options.base = fields_.number("rope.freq_base", 1.0000001, max_base).value_or(10000);
    Index dim = fields_.integer("rope.dimension_count", 2, max_head_dim).value_or(result_.head_dim);
    if (dim > result_.head_dim || dim % 2 != 0)
      fields_.refuse("rope.dimension_count", "must be even and at most " + std::to_string(result_.head_dim),
                     std::int64_t{dim});
    rope.options.rotary_dim = dim;
    if (model_->family == GgufFamily::mla) rope.options.rotary_offset = result_.head_dim - dim;
    for (const char* key : {"rope.dimension_count_swa", "attention.key_length_swa"})
      if (const auto other = fields_.integer(key, 1, max_head_dim);
          other && *other != (std::string_view(key) == "rope.dimension_count_swa" ? dim : result_.head_dim))
        fields_.refuse(key, "must be the same as for other layers", std::int64_t{*other});
    sections(rope);
    if (options_.rope_freqs.size() != 0) {
      require_factors(options_.rope_freqs, "rope_freqs.weight", dim / 2);
      rope.divisors = options_.rope_freqs;
    }
    scaling(rope);
    layers(rope);
  }

  void require_factors(const Vector<double>& factors, const char* tensor, Index num_pairs) const {
    if (factors.size() != num_pairs)
      fields_.refuse(std::string(tensor) + " must have " + std::to_string(num_pairs) + " entries, got " +
                     std::to_string(factors.size()));
    for (Index i = 0; i < factors.size(); ++i)
      if (!(factors[i] > 0 && factors[i] <= 1e30))
        fields_.refuse(std::string(tensor) + "[" + std::to_string(i) + "] must be positive, got " +
                       gguf_shown(factors[i]));
  }

  void sections(ModelRope& rope) {
    const auto value = fields_.take("rope.dimension_sections");
    const bool several = model_->family == GgufFamily::mrope || model_->family == GgufFamily::imrope;
    const auto* list = value ? std::get_if<std::vector<double>>(&*value) : nullptr;
    if (!value) {
      if (several) fields_.missing("rope.dimension_sections");
      return;
    }
    if (list == nullptr || list->size() < 3 || list->size() > 4)
      fields_.refuse("rope.dimension_sections", "must be a list of three or four numbers", *value);
    std::vector<Index> sections;
    Index sum = 0;
    for (const double entry : *list) {
      if (!(entry >= 0 && entry <= static_cast<double>(max_head_dim)) || entry != std::floor(entry))
        fields_.refuse("rope.dimension_sections", "must hold whole numbers", entry);
      sections.push_back(static_cast<Index>(entry));
      sum += sections.back();
    }
    if (sum == 0 && !several) return;
    // GLM 4 with a picture: the same architecture, but halves and axes
    if (!several && model_->name != "glm4" && model_->name != "glm4moe")
      fields_.refuse("rope.dimension_sections", "is not of this architecture", *value);
    if (sum != rope.options.rotary_dim / 2)
      fields_.refuse("rope.dimension_sections",
                     "must add up to " + std::to_string(rope.options.rotary_dim / 2) + " pairs", std::int64_t{sum});
    rope.options.layout = PairLayout::half_split;
    if (model_->family != GgufFamily::imrope) {
      rope.axes = mrope_chunks(sections);
      return;
    }
    rope.axes = mrope_interleaved(sections, MropeTail::extra);
  }

  void scaling(ModelRope& rope) {
    const std::string type = fields_.text("rope.scaling.type").value_or("linear");
    auto factor = fields_.number("rope.scaling.factor", 0, max_factor);
    const auto old = fields_.number("rope.scale_linear", 0, max_factor);
    if (factor && old && *factor != *old)
      fields_.refuse("rope.scale_linear", "contradicts rope.scaling.factor = " + gguf_shown(*factor), *old);
    if (!factor) factor = old;
    const double stretch = factor.value_or(0) == 0 ? 1 : *factor;
    if (stretch < 1) fields_.refuse("rope.scaling.factor", "must be 0 or at least 1", stretch);
    const double attn_factor = fields_.number("rope.scaling.attn_factor", 1e-9, max_factor).value_or(1);
    trained_ = fields_.integer("rope.scaling.original_context_length", 1, max_length);
    if (!trained_ && result_.max_positions != 0) trained_ = result_.max_positions;
    const auto finetuned = fields_.take("rope.scaling.finetuned");  // of no effect on the numbers
    if (finetuned && !std::holds_alternative<bool>(*finetuned))
      fields_.refuse("rope.scaling.finetuned", "must be true or false", *finetuned);
    if (const auto alpha = fields_.number("rope.scaling.alpha", 0, max_factor); alpha && *alpha != 0)
      fields_.refuse("rope.scaling.alpha", "is not supported", *alpha);

    if (type == "none") {
      if (stretch != 1) fields_.refuse("rope.scaling.factor", "contradicts rope.scaling.type = none", stretch);
      rope.magnitude = attn_factor;
    } else if (type == "linear") {
      if (stretch != 1) rope.scaling = LinearRope{stretch};
      rope.magnitude = attn_factor;
    } else if (type == "yarn") {
      yarn(rope, stretch, attn_factor);
    } else if (type == "longrope") {
      if (stretch != 1) fields_.refuse("rope.scaling.factor", "is not supported with longrope", stretch);
      longrope(rope, attn_factor);
    } else {
      fields_.refuse("rope.scaling.type", "is not known", type);
    }
  }

  /// As llama.cpp: the ramp is always rounded to whole pairs; the magnitude is the usual one of the factor, or with
  /// yarn_log_multiplier a quotient, and for DeepSeek the softmax scale has its square.
  void yarn(ModelRope& rope, double factor, double attn_factor) {
    if (!trained_) fields_.missing("rope.scaling.original_context_length");
    YarnOptions yarn{.factor = factor, .original_max_position_embeddings = *trained_};
    yarn.extrapolation = fields_.number("rope.scaling.yarn_ext_factor", -1, 1).value_or(1);
    if (yarn.extrapolation < 0) yarn.extrapolation = 1;  // not set
    yarn.beta_fast = fields_.number("rope.scaling.yarn_beta_fast", 1e-9, max_factor).value_or(32);
    yarn.beta_slow = fields_.number("rope.scaling.yarn_beta_slow", 1e-9, max_factor).value_or(1);
    const bool mla = model_->family == GgufFamily::mla;
    double log_multiplier = fields_.number("rope.scaling.yarn_log_multiplier", 0, max_factor).value_or(0);
    if (mla) log_multiplier = static_cast<double>(static_cast<float>(log_multiplier) / 0.1F);  // stored times 0.1

    double magnitude = attn_factor;
    if (yarn.extrapolation != 0) {
      const double numerator = mla && log_multiplier != 1 ? log_multiplier : 1;
      magnitude *= log_multiplier == 0 ? yarn_magnitude(factor)
                                       : yarn_magnitude(factor, numerator) / yarn_magnitude(factor, log_multiplier);
    }
    // llama.cpp computes this factor itself and does not look at the key; a file in which they differ means something
    // that it does not do.
    if (const auto given = fields_.number("rope.scaling.yarn_attn_factor", 0, max_factor);
        given && *given != 1 && std::abs(*given - magnitude) > 1e-5 * magnitude)
      fields_.refuse("rope.scaling.yarn_attn_factor",
                     "contradicts the magnitude of the other keys, " + gguf_shown(magnitude), *given);
    yarn.attention_factor = magnitude;
    rope.scaling = yarn;
    if (mla) {
      const double mscale = magnitude * (1 + 0.1 * log_multiplier * std::log(factor));
      result_.softmax_scale *= mscale * mscale;
    }
  }

  void longrope(ModelRope& rope, double attn_factor) {
    if (!trained_ || *trained_ < 2) fields_.missing("rope.scaling.original_context_length");
    const Index num_pairs = rope.options.rotary_dim / 2;
    require_factors(options_.rope_factors_short, "rope_factors_short.weight", num_pairs);
    require_factors(options_.rope_factors_long, "rope_factors_long.weight", num_pairs);
    rope.scaling = LongRopeOptions{.short_factors = options_.rope_factors_short,
                                   .long_factors = options_.rope_factors_long,
                                   .original_max_position_embeddings = *trained_,
                                   .attention_factor = attn_factor};
  }

  // Layers ----------------------------------------------------------------------------------------------------------

  void layers(const ModelRope& rope) {
    auto window = fields_.integer("attention.sliding_window", 0, max_length);
    const bool llama4 = model_->name == "llama4";
    if (llama4 && !window) window = 8192;
    if (window && *window == 0) window.reset();
    std::vector<bool> windowed = pattern(window.has_value());
    const auto temperature_scale = fields_.number("attention.temperature_scale", 0, max_factor);
    std::optional<QueryTemperature> temperature;
    if (temperature_scale && *temperature_scale != 0) {
      if (model_->name != "mistral3")
        fields_.refuse("attention.temperature_scale", "is not supported for this architecture", *temperature_scale);
      if (!trained_) fields_.missing("rope.scaling.original_context_length");
      temperature = QueryTemperature::ministral(*temperature_scale, *trained_);
    }

    const auto kind = [&](bool has_window, std::string name) {
      LayerKind layers{.name = std::move(name)};
      layers.temperature = temperature;
      if (has_window) (llama4 ? layers.chunk : layers.window) = window;
      if (!has_window && model_->still_full && window) {
        if (llama4) layers.temperature = QueryTemperature::llama4();
        return layers;
      }
      ModelRope own = rope;
      if (has_window && model_->swa_base != 0) {
        own.options.base = swa_base_;
        own.scaling = PlainRope{};
      }
      if (has_window && model_->plain_windows) {
        own.scaling = PlainRope{};
        own.magnitude = 1;
      }
      layers.encoding = std::move(own);
      return layers;
    };
    swa_base_ = fields_.number("rope.freq_base_swa", 1.0000001, max_base).value_or(model_->swa_base);
    if (model_->swa_base == 0 && swa_base_ != 0 && swa_base_ != rope.options.base)
      fields_.refuse("rope.freq_base_swa", "must be rope.freq_base for this architecture", swa_base_);

    const bool some = std::find(windowed.begin(), windowed.end(), true) != windowed.end();
    const bool others = std::find(windowed.begin(), windowed.end(), false) != windowed.end();
    if (model_->still_period != 0) {
      if (result_.num_layers == 0) fields_.missing("block_count");
      result_.kinds.push_back(kind(false, "full_attention"));
      result_.kinds.push_back({.name = "full_attention without rope"});
      for (Index l = 0; l < result_.num_layers; ++l)
        result_.layer_kinds.push_back((l + 1) % model_->still_period == 0 ? 1 : 0);
      return;
    }
    if (!some || !others) {
      result_.kinds.push_back(kind(some, "all"));
      return;
    }
    const char* name = llama4 ? "chunked_attention" : "sliding_attention";
    result_.kinds.push_back(kind(windowed.front(), windowed.front() ? name : "full_attention"));
    result_.kinds.push_back(kind(!windowed.front(), windowed.front() ? "full_attention" : name));
    for (const bool has_window : windowed) result_.layer_kinds.push_back(has_window == windowed.front() ? 0 : 1);
  }

  /// Which layers have the window.
  std::vector<bool> pattern(bool has_window) {
    const auto given = fields_.take("attention.sliding_window_pattern");
    if (!has_window) return {false};
    if (given)
      if (const auto* list = std::get_if<std::vector<double>>(&*given)) {
        if (result_.num_layers == 0 || list->size() != static_cast<std::size_t>(result_.num_layers))
          fields_.refuse("attention.sliding_window_pattern", "must have an entry a layer", *given);
        std::vector<bool> windowed;
        for (const double entry : *list) windowed.push_back(entry != 0);
        return windowed;
      }
    if (model_->period == 0) fields_.refuse(fields_.path("attention.sliding_window") + " is not of this architecture");
    const Index period = given ? *fields_.integer("attention.sliding_window_pattern", 1, max_layers) : model_->period;
    if (!given && period == 1) return {true};
    if (result_.num_layers == 0) fields_.missing("block_count");
    std::vector<bool> windowed(static_cast<std::size_t>(result_.num_layers));
    for (std::size_t l = 0; l < windowed.size(); ++l) windowed[l] = (l + 1) % static_cast<std::size_t>(period) != 0;
    return windowed;
  }

  void require_all_used() const {
    for (const std::string& key : options_.keys) {
      if (key.substr(0, fields_.prefix().size()) != fields_.prefix() || fields_.is_taken(key)) continue;
      const std::string_view name = std::string_view(key).substr(fields_.prefix().size());
      for (const std::string_view word : {"rope", "alibi", "relative", "sliding", "temperature"})
        if (name.find(word) != std::string_view::npos) fields_.refuse(key + " is not known");
    }
  }

  /// Tensors that were given although the metadata has no use for them.
  void require_tensors_used() const {
    bool rotates = false, longrope = false;
    for (const LayerKind& kind : result_.kinds)
      if (const auto* rope = std::get_if<ModelRope>(&kind.encoding)) {
        rotates = true;
        longrope |= std::holds_alternative<LongRopeOptions>(rope->scaling);
      }
    if (options_.rope_freqs.size() != 0 && (!rotates || longrope))
      fields_.refuse("rope_freqs.weight is not used by this model");
    if (options_.rope_factors_short.size() + options_.rope_factors_long.size() != 0 && !longrope)
      fields_.refuse("rope_factors_short.weight and rope_factors_long.weight are not used by this model");
  }

  GgufFields fields_;
  const GgufOptions& options_;
  const GgufModel* model_ = nullptr;
  ModelEncoding result_ = {};
  Index features_ = 0;
  double swa_base_ = 0;
  std::optional<Index> trained_ = {};
};

}  // namespace posenc::inline v0::detail::config
