// SPDX-License-Identifier: MIT
#pragma once

// Models that do not rotate: ALiBi, the buckets of T5, and tables that are added to the input.

#include <cmath>
#include <cstddef>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <posenc/alibi.hpp>
#include <posenc/detail/config/fields.hpp>
#include <posenc/detail/config/models.hpp>
#include <posenc/detail/config/resolve_rope.hpp>
#include <posenc/model_encoding.hpp>

namespace posenc::inline v0::detail::config {

class OtherResolver {
 public:
  OtherResolver(Fields& top, const KnownModel& model) : top_(top), model_(model) {}

  ModelEncoding resolve() {
    result_.model_type = model_.name;
    switch (model_.dialect) {
      case Dialect::bloom:
        bloom();
        break;
      case Dialect::falcon:
        falcon();
        break;
      case Dialect::mpt:
        mpt();
        break;
      case Dialect::t5:
        t5();
        break;
      case Dialect::gpt2:
        gpt2();
        break;
      case Dialect::gpt_neo:
        gpt_neo();
        break;
      case Dialect::bert:
      case Dialect::roberta:
      case Dialect::opt:
        encoder_like();
        break;
      default:
        encoder_decoder();
        break;
    }
    require_head_groups(top_, result_);
    if (result_.kinds.empty()) result_.kinds.push_back({});
    return std::move(result_);
  }

 private:
  using Names = std::initializer_list<std::string_view>;

  void read_heads(Names heads, Names features, Names layers) {
    result_.num_heads = needed(top_, heads, max_heads, model_);
    result_.num_kv_heads = result_.num_heads;
    features_ = needed(top_, features, max_features, model_);
    result_.head_dim = divided_head_dim(top_, features_, result_.num_heads);
    result_.num_layers = top_.integer(layers, 1, max_layers).value_or(0);
    result_.softmax_scale = 1 / std::sqrt(static_cast<double>(result_.head_dim));
  }

  void add_alibi(double max_bias, double factor = 1) {
    result_.kinds.push_back({.encoding = ModelAlibi{.slopes = factor * alibi_slopes(result_.num_heads, max_bias)}});
  }

  void learned(Index num_columns, const LearnedAbsoluteOptions& options = {}) {
    result_.input = ModelLearned{.dim = features_, .num_columns = num_columns, .options = options};
    result_.max_positions = num_columns - static_cast<Index>(options.offset);
  }

  void bloom() {
    read_heads({"n_head", "num_attention_heads"}, {"hidden_size", "n_embed"}, {"n_layer", "num_hidden_layers"});
    result_.max_positions = top_.integer("seq_length", 1, max_length).value_or(0);  // as trained, not a limit
    top_.number("offset_alibi");  // of old configurations: adds the same to all scores of a query
    add_alibi(8);
  }

  /// With alibi: true. The scores and the bias are scaled together.
  void falcon() {
    read_heads({"num_attention_heads", "n_head"}, {"hidden_size"}, {"num_hidden_layers", "n_layer"});
    const auto kv_heads = top_.integer({"num_kv_heads", "n_head_kv"}, 1, max_heads);
    const bool grouped = top_.flag("new_decoder_architecture").value_or(model_.name == "RefinedWeb");
    const bool shared = top_.flag("multi_query").value_or(true);
    result_.num_kv_heads = grouped ? kv_heads.value_or(result_.num_heads) : shared ? 1 : result_.num_heads;
    top_.take("alibi");
    result_.max_positions = top_.integer("max_position_embeddings", 1, max_length).value_or(0);
    add_alibi(8, result_.softmax_scale);
  }

  void mpt() {
    read_heads({"n_heads"}, {"d_model"}, {"n_layers"});
    const Index length = needed(top_, {"max_seq_len"}, max_length, model_);
    auto attention = top_.object("attn_config");
    const bool alibi = attention && attention->flag("alibi").value_or(false);
    if (attention) {
      if (attention->flag("rope").value_or(false)) attention->refuse_field("rope", "is not supported");
      if (const auto scale = attention->positive("softmax_scale", max_factor)) result_.softmax_scale = *scale;
      if (const auto window = attention->number("sliding_window_size"); window && *window != -1)
        attention->refuse_field("sliding_window_size", "is not supported");
      if (const auto heads = attention->integer("kv_n_heads", 1, max_heads)) result_.num_kv_heads = *heads;
    }
    const bool has_table = top_.flag("learned_pos_emb").value_or(true);  // ALiBi turns it off
    if (alibi) {
      result_.max_positions = length;
      add_alibi(attention->positive("alibi_bias_max", 1024).value_or(8));
    } else if (has_table) {
      learned(length);
    }
    if (attention)
      attention->for_each([&](const std::string& key, const Json& value) {
        // The fields of a rope that is off are of no effect.
        const bool off = key.substr(0, 5) == "rope_" || (key == "alibi_bias_max" && !alibi);
        if (is_positional(key) && !attention->is_taken(key) && !off)
          refuse(attention->path(key), "is not known", value);
      });
  }

  void t5() {
    result_.num_heads = needed(top_, {"num_heads"}, max_heads, model_);
    result_.num_kv_heads = result_.num_heads;
    result_.head_dim = needed(top_, {"d_kv"}, max_head_dim, model_);
    result_.num_layers = top_.integer("num_layers", 1, max_layers).value_or(0);
    top_.integer("n_positions", 1, max_length);  // as trained; nothing in the model is limited by it
    result_.softmax_scale = 1;
    ModelBuckets buckets;
    buckets.num_buckets = top_.integer("relative_attention_num_buckets", 4, 1 << 20).value_or(32);
    buckets.max_distance = top_.integer("relative_attention_max_distance", 2, max_length).value_or(128);
    if (buckets.num_buckets % 2 != 0) top_.refuse_field("relative_attention_num_buckets", "must be even");
    if (buckets.max_distance <= buckets.num_buckets / 2)
      refuse("relative_attention_max_distance must be above half of relative_attention_num_buckets = " +
             std::to_string(buckets.num_buckets) + ", got " + std::to_string(buckets.max_distance));
    buckets.bidirectional = true;
    result_.kinds.push_back({.name = "encoder", .encoding = buckets});
    if (!top_.flag("is_encoder_decoder").value_or(true)) return;
    buckets.bidirectional = false;
    result_.kinds.push_back({.name = "decoder", .encoding = buckets});
  }

  void gpt2() {
    read_heads({"n_head", "num_attention_heads"}, {"n_embd", "hidden_size"}, {"n_layer", "num_hidden_layers"});
    if (model_.name == "gpt_bigcode" && top_.flag("multi_query").value_or(true)) result_.num_kv_heads = 1;
    learned(needed(top_, {"n_positions", "n_ctx", "max_position_embeddings"}, max_length, model_));
    if (!top_.flag("scale_attn_weights").value_or(true)) result_.softmax_scale = 1;
    if (top_.flag("scale_attn_by_inverse_layer_idx").value_or(false))
      top_.refuse_field("scale_attn_by_inverse_layer_idx", "is not supported");
  }

  /// Every layer is global, or local with a window; scores are not scaled.
  void gpt_neo() {
    read_heads({"num_heads"}, {"hidden_size"}, {"num_layers"});
    result_.softmax_scale = 1;
    learned(needed(top_, {"max_position_embeddings"}, max_length, model_));
    const Index window = top_.integer("window_size", 1, max_length).value_or(256);
    const Json* types = top_.take("attention_types");  // [[["global", "local"], 12]]
    if (types == nullptr) top_.missing("attention_types", "model_type gpt_neo");
    const auto bad = [&] {
      top_.refuse_field("attention_types", "must be a list like [[[\"global\", \"local\"], 12]]");
    };
    if (!types->is_array()) bad();
    for (const Json& group : *types) {
      if (!group.is_array() || group.size() != 2 || !group[0].is_array() || !group[1].is_number_integer()) bad();
      const auto times = group[1].get<double>();
      if (times < 1 || times * static_cast<double>(group[0].size()) > static_cast<double>(max_layers)) bad();
      for (Index i = 0; i < static_cast<Index>(times); ++i)
        for (const Json& type : group[0]) {
          if (type != "global" && type != "local") bad();
          result_.layer_kinds.push_back(type == "local" ? 1 : 0);
          if (result_.layer_kinds.size() > static_cast<std::size_t>(max_layers)) bad();
        }
    }
    if (result_.num_layers != 0 && result_.layer_kinds.size() != static_cast<std::size_t>(result_.num_layers))
      refuse("attention_types must make num_layers = " + std::to_string(result_.num_layers) + " layers, got " +
             std::to_string(result_.layer_kinds.size()));
    result_.num_layers = static_cast<Index>(result_.layer_kinds.size());
    result_.kinds = {{.name = "global"}, {.name = "local", .window = window}};
  }

  void encoder_like() {
    if (model_.name == "distilbert")
      read_heads({"n_heads"}, {"dim"}, {"n_layers"});
    else
      read_heads({"num_attention_heads"}, {"hidden_size"}, {"num_hidden_layers"});
    if (const auto type = top_.text("position_embedding_type"); type && *type != "absolute")
      top_.refuse_field("position_embedding_type", "is not supported");
    const Index length = needed(top_, {"max_position_embeddings"}, max_length, model_);
    if (model_.dialect == Dialect::opt) {
      learned(length + 2, LearnedAbsoluteOptions::opt());
    } else if (model_.dialect == Dialect::roberta) {
      const Index padding = top_.integer("pad_token_id", 0, max_length).value_or(1);
      if (padding + 1 >= length)
        refuse("max_position_embeddings must be above pad_token_id + 1 = " + std::to_string(padding + 1) + ", got " +
               std::to_string(length));
      learned(length, LearnedAbsoluteOptions::roberta(padding));
    } else if (top_.flag("sinusoidal_pos_embds").value_or(false)) {
      sinusoidal(SinusoidalOptions::vaswani(features_), length);
    } else {
      learned(length);
    }
  }

  void sinusoidal(const SinusoidalOptions& options, Index length) {
    result_.input = options;
    result_.max_positions = length;
  }

  void encoder_decoder() {
    if (model_.name == "xglm") {
      read_heads({"attention_heads"}, {"d_model"}, {"num_layers"});
    } else {
      const auto decoder = top_.integer("decoder_attention_heads", 1, max_heads);
      read_heads({"encoder_attention_heads"}, {"d_model"}, {"encoder_layers"});
      if (decoder && *decoder != result_.num_heads)
        top_.refuse_field("decoder_attention_heads",
                          "must be encoder_attention_heads = " + std::to_string(result_.num_heads));
    }
    const Index length = needed(top_, {"max_position_embeddings"}, max_length, model_);
    const bool table = model_.dialect == Dialect::bart;
    if (const auto fixed = top_.flag("static_position_embeddings"); fixed && *fixed == table)
      top_.refuse_field("static_position_embeddings", "contradicts model_type " + std::string(model_.name));
    const auto extra = top_.integer("extra_pos_embeddings", 0, max_length);  // of old configurations
    if (table) {
      if (extra && *extra != 2) top_.refuse_field("extra_pos_embeddings", "must be 2");
      learned(length + 2, LearnedAbsoluteOptions::bart());
    } else if (model_.dialect == Dialect::marian) {
      sinusoidal(SinusoidalOptions::roformer(features_), length);
    } else {
      const Index padding = top_.integer("pad_token_id", 0, max_length).value_or(1);
      if (model_.name == "xglm" && padding != 1) top_.refuse_field("pad_token_id", "must be 1");
      sinusoidal(SinusoidalOptions::fairseq(features_, padding), length);
    }
  }

  Fields& top_;
  const KnownModel& model_;
  ModelEncoding result_ = {};
  Index features_ = 0;
};

}  // namespace posenc::inline v0::detail::config
