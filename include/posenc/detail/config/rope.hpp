// SPDX-License-Identifier: MIT
#pragma once

// rope_scaling and rope_parameters: one dictionary to one ModelRope.

#include <algorithm>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <posenc/detail/config/fields.hpp>
#include <posenc/model_encoding.hpp>
#include <posenc/rope_axes.hpp>

namespace posenc::inline v0::detail::config {

/// What a dictionary does not hold itself.
struct RopeContext {
  std::string path = {};                 ///< of the object that it is in, with a dot behind; empty: the top
  RopeOptions options = {};              ///< head_dim, rotary_offset, layouts; rotary_dim and base to be found
  Index rotary_head = 0;                 ///< the features that rotary_part is a part of
  double default_base = 0;               ///< 0: the base must be given
  double default_part = 1;               ///< partial_rotary_factor where none is given
  std::optional<double> base = {};       ///< of the top level
  std::string base_name = "rope_theta";  ///< its name there
  std::optional<double> part = {};       ///< likewise
  std::optional<Index> rotary_dim = {};  ///< given as a number of features instead
  std::optional<Index> max_positions = {};
  std::optional<Index> original_positions = {};  ///< of the top level
  bool sections = false;                         ///< the model has M-RoPE
  bool temperature = false;                      ///< the model has llama_4_scaling_beta in its dictionary (Ministral 3)
};

/// A resolved dictionary, with what it says besides.
struct ResolvedRope {
  ModelRope rope = {};
  double softmax_factor = 1;  ///< DeepSeek multiplies its softmax scale by this
  std::optional<QueryTemperature> temperature = {};
};

enum class RopeType { plain, linear, dynamic, yarn, llama3, longrope, proportional };

inline constexpr std::string_view rope_type_names[] = {"default", "linear",   "dynamic",     "yarn",
                                                       "llama3",  "longrope", "proportional"};

/// The fields that any type has; another type's field is told apart from a misspelt one.
inline bool is_rope_field(std::string_view key) {
  static constexpr std::string_view names[] = {
      "factor",         "attention_factor",  "beta_fast",           "beta_slow",   "mscale",
      "mscale_all_dim", "truncate",          "short_factor",        "long_factor", "short_mscale",
      "long_mscale",    "low_freq_factor",   "high_freq_factor",    "finetuned",   "original_max_position_embeddings",
      "mrope_section",  "mrope_interleaved", "llama_4_scaling_beta"};
  return std::find(std::begin(names), std::end(names), key) != std::end(names);
}

class RopeDictionary {
 public:
  /// \param fields  the dictionary; nullptr: there is none.
  RopeDictionary(Fields* fields, const RopeContext& context) : fields_(fields), context_(context) {}

  ResolvedRope resolve() {
    type_ = type();
    ResolvedRope resolved;
    resolved.rope.options = context_.options;
    resolved.rope.options.base = base();
    const Index live = rotary_dim();
    dim_ = type_ == RopeType::proportional ? context_.rotary_head : live;
    resolved.rope.options.rotary_dim = dim_;
    if (fields_ != nullptr) {
      const auto length = fields_->integer("max_position_embeddings", 1, max_length);
      if (length && context_.max_positions && *length != *context_.max_positions)
        fields_->refuse_field("max_position_embeddings",
                              "contradicts max_position_embeddings = " + std::to_string(*context_.max_positions));
    }
    scheme(resolved, live);
    if (context_.sections) resolved.rope.axes = sections(dim_ / 2);
    if (fields_ != nullptr)
      fields_->for_each([&](const std::string& key, const Json& value) {
        if (fields_->is_taken(key) || (value.is_null() && is_rope_field(key))) return;
        refuse(fields_->path(key),
               is_rope_field(key) ? "is not a field of rope_type " + std::string(type_name()) : "is not known", value);
      });
    return resolved;
  }

 private:
  /// The path of a field beside the dictionary.
  std::string beside(std::string_view key) const { return context_.path + std::string(key); }

  std::string_view type_name() const { return rope_type_names[static_cast<std::size_t>(type_)]; }

  /// rope_type, or type; "su" is longrope, and "mrope" is default with sections.
  RopeType type() {
    if (fields_ == nullptr) return RopeType::plain;
    const auto read = [&](std::string_view key) -> std::optional<RopeType> {
      const auto name = fields_->text(key);
      if (!name) return {};
      if (*name == "su") return RopeType::longrope;
      if (*name == "mrope") {
        if (!context_.sections) fields_->refuse_field(key, "is not of this model_type");
        return RopeType::plain;
      }
      const auto* found = std::find(std::begin(rope_type_names), std::end(rope_type_names), *name);
      if (found == std::end(rope_type_names)) fields_->refuse_field(key, "is not known");
      return static_cast<RopeType>(found - std::begin(rope_type_names));
    };
    return fields_->agreed({"rope_type", "type"}, read).value_or(RopeType::plain);
  }

  /// A number that may be given in the dictionary and beside it.
  std::optional<double> both(std::string_view key, const std::optional<double>& beside, double most) {
    const auto within = fields_ == nullptr ? std::nullopt : fields_->positive(key, most);
    if (within && beside && *within != *beside)
      fields_->refuse_field(key, "contradicts the top level, which has " + Json(*beside).dump());
    return within ? within : beside;
  }

  double base() {
    const auto given = both("rope_theta", context_.base, max_base);
    if (given && *given <= 1) {
      const bool within = fields_ != nullptr && fields_->has("rope_theta");
      refuse(within ? fields_->path("rope_theta") : beside(context_.base_name), "must be above 1", Json(*given));
    }
    if (!given && context_.default_base == 0)
      refuse(beside("rope_theta") + " is missing: this model_type has no usual one");
    return given ? *given : context_.default_base;
  }

  Index rotary_dim() {
    const Index whole = context_.rotary_head;
    const auto part = both("partial_rotary_factor", context_.part, 1);
    Index dim = static_cast<Index>(static_cast<double>(whole) * part.value_or(context_.default_part));
    if (type_ == RopeType::proportional) dim = 2 * (dim / 2);
    if (context_.rotary_dim) {
      if (part && dim != *context_.rotary_dim)
        refuse(beside("rotary_dim"), "contradicts partial_rotary_factor, which makes " + std::to_string(dim),
               Json(*context_.rotary_dim));
      dim = *context_.rotary_dim;
    }
    if (dim < 2 || dim % 2 != 0)
      refuse("the number of rotary features must be even and positive, got " + std::to_string(dim) + " of " +
             std::to_string(whole));
    if (dim > whole)
      refuse(beside("rotary_dim") + " must be at most the features of a head, " + std::to_string(whole) + ", got " +
             std::to_string(dim));
    return dim;
  }

  double needed(std::string_view key, std::optional<double> value) {
    if (!value) fields_->missing(key, "rope_type " + std::string(type_name()));
    return *value;
  }

  double factor() { return needed("factor", fields_->number("factor", 1, max_factor)); }

  /// factor, or where it is null (or may be left out) how many times longer the model is than trained.
  double factor_or_ratio(Index trained, bool may_be_absent) {
    if (const auto given = fields_->number("factor", 1, max_factor)) return *given;
    if (!may_be_absent && !fields_->is_null("factor"))
      fields_->missing("factor", "rope_type " + std::string(type_name()));
    if (!context_.max_positions)
      refuse(beside("max_position_embeddings") + " is missing: " + fields_->path("factor") + " follows from it");
    const double ratio = static_cast<double>(*context_.max_positions) / static_cast<double>(trained);
    if (ratio < 1)
      refuse(beside("max_position_embeddings") + " must be at least original_max_position_embeddings = " +
             std::to_string(trained) + ", got " + std::to_string(*context_.max_positions));
    return ratio;
  }

  /// original_max_position_embeddings, in the dictionary or beside it.
  std::optional<Index> trained_length() {
    const auto within = fields_->integer("original_max_position_embeddings", 1, max_length);
    const auto& beside = context_.original_positions;
    if (within && beside && *within != *beside)
      fields_->refuse_field("original_max_position_embeddings",
                            "contradicts the top level, which has " + std::to_string(*beside));
    return within ? within : beside;
  }
  Index trained_length_or_max() {
    if (const auto length = trained_length()) return *length;
    if (context_.max_positions) return *context_.max_positions;
    fields_->missing("original_max_position_embeddings", "rope_type " + std::string(type_name()));
  }

  void scheme(ResolvedRope& resolved, Index live) {
    switch (type_) {
      case RopeType::plain:
        temperature(resolved);
        return;
      case RopeType::linear:
        resolved.rope.scaling = LinearRope{factor()};
        return;
      case RopeType::dynamic:
        if (!context_.max_positions)
          refuse(beside("max_position_embeddings") + " is missing: rope_type dynamic needs it");
        if (dim_ < 4) refuse("rope_type dynamic needs at least 4 rotary features, got " + std::to_string(dim_));
        resolved.rope.scaling =
            DynamicNtkOptions{.factor = factor(), .max_position_embeddings = *context_.max_positions};
        return;
      case RopeType::yarn:
        yarn(resolved);
        return;
      case RopeType::llama3:
        llama3(resolved.rope);
        return;
      case RopeType::longrope:
        longrope(resolved.rope);
        return;
      case RopeType::proportional:
        resolved.rope.scaling =
            ProportionalRope{.rotary_dim = live, .factor = fields_->number("factor", 1, max_factor).value_or(1)};
        return;
    }
  }

  void yarn(ResolvedRope& resolved) {
    YarnOptions yarn;
    yarn.original_max_position_embeddings = trained_length_or_max();
    yarn.factor = factor_or_ratio(yarn.original_max_position_embeddings, false);
    yarn.beta_fast = fields_->positive("beta_fast", max_factor).value_or(32);
    yarn.beta_slow = fields_->positive("beta_slow", max_factor).value_or(1);
    if (yarn.beta_fast < yarn.beta_slow)
      refuse(fields_->path("beta_fast") + " must be at least beta_slow = " + Json(yarn.beta_slow).dump() + ", got " +
             Json(yarn.beta_fast).dump());
    yarn.truncate = fields_->flag("truncate").value_or(true);
    yarn.attention_factor = fields_->positive("attention_factor", max_factor);
    yarn.mscale = fields_->number("mscale", 0, max_factor);
    yarn.mscale_all_dim = fields_->number("mscale_all_dim", 0, max_factor);
    // Of no effect on the numbers where it is true; false asks for frequencies that depend on the length.
    if (const auto finetuned = fields_->flag("finetuned"); finetuned && !*finetuned)
      fields_->refuse_field("finetuned", "is not supported");
    if (yarn.mscale_all_dim) {
      const double magnitude = yarn_magnitude(yarn.factor, *yarn.mscale_all_dim);
      resolved.softmax_factor = magnitude * magnitude;
    }
    resolved.rope.scaling = yarn;
    temperature(resolved);
  }

  /// Ministral 3 keeps the temperature of its queries here.
  void temperature(ResolvedRope& resolved) {
    if (fields_ == nullptr || !context_.temperature) return;
    const auto scale = fields_->number("llama_4_scaling_beta", 0, max_factor);
    if (!scale) return;
    resolved.temperature = QueryTemperature::ministral(*scale, trained_length_or_max());
  }

  void llama3(ModelRope& rope) {
    Llama3RopeOptions llama3;
    llama3.factor = factor();
    llama3.low_freq_factor = needed("low_freq_factor", fields_->positive("low_freq_factor", max_factor));
    llama3.high_freq_factor = needed("high_freq_factor", fields_->positive("high_freq_factor", max_factor));
    if (llama3.high_freq_factor < llama3.low_freq_factor)
      fields_->refuse_field("high_freq_factor",
                            "must be at least low_freq_factor = " + Json(llama3.low_freq_factor).dump());
    const auto length = trained_length();
    if (!length) fields_->missing("original_max_position_embeddings", "rope_type llama3");
    llama3.original_max_position_embeddings = *length;
    rope.scaling = llama3;
  }

  void longrope(ModelRope& rope) {
    LongRopeOptions longrope;
    const auto short_factors = fields_->positives("short_factor", dim_ / 2);
    const auto long_factors = fields_->positives("long_factor", dim_ / 2);
    if (!short_factors) fields_->missing("short_factor", "rope_type longrope");
    if (!long_factors) fields_->missing("long_factor", "rope_type longrope");
    longrope.short_factors = *short_factors;
    longrope.long_factors = *long_factors;
    longrope.original_max_position_embeddings = trained_length_or_max();
    if (longrope.original_max_position_embeddings < 2)
      refuse("original_max_position_embeddings must be at least 2, got " +
             std::to_string(longrope.original_max_position_embeddings));
    longrope.attention_factor = fields_->positive("attention_factor", max_factor);
    // Phi-3.5-MoE gives the magnitude of short and of long sequences, and they are the same.
    if (const auto of_short = fields_->positive("short_mscale", max_factor)) {
      if (fields_->positive("long_mscale", max_factor) != of_short)
        refuse(fields_->path("long_mscale") + " must be short_mscale = " + Json(*of_short).dump() +
               ": two magnitudes are not supported");
      if (longrope.attention_factor && longrope.attention_factor != of_short)
        fields_->refuse_field("short_mscale",
                              "contradicts attention_factor = " + Json(*longrope.attention_factor).dump());
      longrope.attention_factor = of_short;
    }
    longrope.factor = factor_or_ratio(longrope.original_max_position_embeddings, true);
    rope.scaling = longrope;
  }

  std::vector<Index> sections(Index num_pairs) {
    const Json* list = fields_ == nullptr ? nullptr : fields_->take("mrope_section");
    if (list == nullptr) {
      if (fields_ == nullptr) refuse(beside("rope_scaling.mrope_section") + " is missing: this model_type needs it");
      fields_->missing("mrope_section", "this model_type");
    }
    if (!list->is_array() || list->size() != 3)
      fields_->refuse_field("mrope_section", "must be a list of three numbers");
    std::vector<Index> sections;
    Index sum = 0;
    for (std::size_t axis = 0; axis < list->size(); ++axis) {
      const Json& entry = (*list)[axis];
      const auto section = entry.is_number_integer() ? entry.get<double>() : -1;
      if (section < 0 || section > static_cast<double>(num_pairs))
        refuse(fields_->path("mrope_section") + "[" + std::to_string(axis) + "]",
               "must be a whole number from 0 to " + std::to_string(num_pairs), entry);
      sections.push_back(static_cast<Index>(section));
      sum += sections.back();
    }
    if (sum != num_pairs)
      refuse(fields_->path("mrope_section") + " must add up to " + std::to_string(num_pairs) + " pairs, got " +
             std::to_string(sum));
    return fields_->flag("mrope_interleaved").value_or(false) ? mrope_interleaved(sections) : mrope_chunks(sections);
  }

  Fields* fields_;
  const RopeContext& context_;
  RopeType type_ = RopeType::plain;
  Index dim_ = 0;
};

}  // namespace posenc::inline v0::detail::config
