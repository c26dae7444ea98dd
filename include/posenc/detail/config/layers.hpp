// SPDX-License-Identifier: MIT
#pragma once

// Which layers of a model are of which kind: with a window or without, rotating or not.

#include <cstddef>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <posenc/detail/config/fields.hpp>
#include <posenc/detail/config/models.hpp>
#include <posenc/model_encoding.hpp>

namespace posenc::inline v0::detail::config {

/// The kinds of layers of a model, before their encodings are known.
class LayerPlan {
 public:
  struct Kind {
    std::string type;  ///< full_attention, sliding_attention, chunked_attention; or a type of a hybrid model
    bool rotates = true;
    bool operator==(const Kind&) const = default;
  };

  LayerPlan(Fields& top, const KnownModel& model) : top_(top), model_(model) {
    num_layers_ = top.integer("num_hidden_layers", 1, max_layers);
    read_window();
    std::vector<std::string> types = listed_types();
    if (types.empty()) types = usual_types();
    std::vector<char> still(types.size(), 0);
    if (model.still == StillRule::hybrid) still = layers_without_attention(types);
    if (model.still == StillRule::listed) still = still_layers(types);
    if (model.still == StillRule::windowed && window)
      for (std::size_t l = 0; l < types.size(); ++l) still[l] = types[l] != "sliding_attention";

    for (std::size_t l = 0; l < types.size(); ++l) {
      const Kind kind{types[l], still[l] == 0};
      std::size_t number = 0;
      while (number < kinds.size() && !(kinds[number] == kind)) ++number;
      if (number == kinds.size()) kinds.push_back(kind);
      layer_kinds.push_back(number);
    }
    if (kinds.size() == 1) layer_kinds.clear();
    require_used();
  }

  std::vector<Kind> kinds = {};
  std::vector<std::size_t> layer_kinds = {};  ///< empty if there is one kind
  std::optional<Index> window = {}, chunk = {};

  Index num_layers() const { return num_layers_.value_or(0); }

  bool has(std::string_view type) const {
    for (const Kind& kind : kinds)
      if (kind.type == type) return true;
    return false;
  }

  /// The name of a kind in the result.
  std::string name(const Kind& kind) const {
    if (kinds.size() == 1) return "all";
    std::size_t of_type = 0;
    for (const Kind& other : kinds) of_type += other.type == kind.type ? 1 : 0;
    return kind.type + (of_type > 1 && !kind.rotates ? " without rope" : "");
  }

 private:
  void read_window() {
    if (model_.window != WindowRule::none) window = top_.integer("sliding_window", 1, max_length);
    if (model_.name == "gemma2") window = top_.integer({"sliding_window", "sliding_window_size"}, 1, max_length);
    if (model_.window == WindowRule::from_layer) {
      const bool slides = top_.flag("use_sliding_window").value_or(false);
      first_windowed_ = top_.integer("max_window_layers", 0, max_layers);
      if (!slides) window.reset();
      if (slides && !window) top_.missing("sliding_window", "use_sliding_window");
    }
    if (model_.window == WindowRule::periodic && !window)
      top_.missing("sliding_window", "model_type " + std::string(model_.name));
    if (model_.name == "llama4_text") chunk = top_.integer("attention_chunk_size", 1, max_length);
    if (model_.name == "gemma3_text" && top_.flag("use_bidirectional_attention").value_or(false))
      top_.refuse_field("use_bidirectional_attention", "is not supported");  // windows to both sides
    const bool unused = model_.window == WindowRule::none && top_.has("use_sliding_window");
    if (unused || model_.name == "smollm3") {  // these fields are there, and of no effect unless the first is true
      if (top_.flag("use_sliding_window").value_or(false)) top_.refuse_field("use_sliding_window", "is not supported");
      top_.integer("sliding_window", 1, max_length);
      top_.integer("max_window_layers", 0, max_layers);
    }
  }

  std::size_t layers_needed(std::string_view by) const {
    if (!num_layers_) top_.missing("num_hidden_layers", by);
    return static_cast<std::size_t>(*num_layers_);
  }

  std::vector<std::string> listed_types() {
    const Json* list = top_.take("layer_types");
    if (list == nullptr) return {};
    if (!list->is_array() || list->empty() || list->size() > static_cast<std::size_t>(max_layers))
      top_.refuse_field("layer_types", "must be a list with an entry a layer");
    if (num_layers_ && list->size() != static_cast<std::size_t>(*num_layers_))
      top_.refuse_field("layer_types", "must have num_hidden_layers = " + std::to_string(*num_layers_) + " entries");
    num_layers_ = static_cast<Index>(list->size());
    std::vector<std::string> types;
    for (std::size_t l = 0; l < list->size(); ++l) {
      const Json& entry = (*list)[l];
      const bool hybrid = model_.still == StillRule::hybrid && (entry == "attention" || entry == "mamba" ||
                                                                entry == "linear_attention" || entry == "hybrid");
      const bool known =
          hybrid || entry == "full_attention" || entry == "sliding_attention" || entry == "chunked_attention";
      if (!known) refuse(top_.path("layer_types") + "[" + std::to_string(l) + "]", "is not known", entry);
      types.push_back(entry.get<std::string>());
    }
    if (const auto period = given_period(); period && types != periodic(*period, "sliding_attention"))
      refuse(top_.path("layer_types") + " contradicts sliding_window_pattern = " + std::to_string(*period));
    if (const auto interval = given_interval(); interval && types != periodic(*interval, "linear_attention"))
      refuse(top_.path("layer_types") + " contradicts full_attention_interval = " + std::to_string(*interval));
    return types;
  }

  std::optional<Index> given_period() {
    if (model_.window != WindowRule::periodic) return {};
    return top_.integer({"sliding_window_pattern", "_sliding_window_pattern"}, 1, max_layers);
  }

  std::optional<Index> given_interval() {
    if (model_.name != "qwen3_next") return {};
    return top_.integer("full_attention_interval", 1, max_layers);
  }

  /// Every period-th layer sees all, and the others are of another type.
  std::vector<std::string> periodic(Index period, const char* others) const {
    const bool windows = model_.window == WindowRule::periodic;
    std::vector<std::string> types(layers_needed(windows ? "sliding_window_pattern" : "full_attention_interval"),
                                   others);
    for (std::size_t l = 0; l < types.size(); ++l)
      if ((l + 1) % static_cast<std::size_t>(period) == 0) types[l] = "full_attention";
    return types;
  }

  std::vector<std::string> usual_types() {
    switch (model_.window) {
      case WindowRule::every_layer:
        return {window ? "sliding_attention" : "full_attention"};
      case WindowRule::periodic:
        return periodic(given_period().value_or(model_.period), "sliding_attention");
      case WindowRule::from_layer: {
        if (!window) return {"full_attention"};
        if (!first_windowed_) top_.missing("max_window_layers", "use_sliding_window");
        std::vector<std::string> types(layers_needed("max_window_layers"), "full_attention");
        for (std::size_t l = static_cast<std::size_t>(*first_windowed_); l < types.size(); ++l)
          types[l] = "sliding_attention";
        return types;
      }
      case WindowRule::none:
        break;
    }
    if (model_.still == StillRule::hybrid && model_.name != "falcon_h1") {
      const auto interval = given_interval();
      if (!interval) top_.missing("layer_types", "model_type " + std::string(model_.name));
      return periodic(*interval, "linear_attention");
    }
    if (model_.still != StillRule::listed) return {"full_attention"};
    std::vector<std::string> types(layers_needed("no_rope_layers"), "full_attention");
    if (chunk) {
      const std::vector<char> still = still_layers(types);
      for (std::size_t l = 0; l < types.size(); ++l)
        if (still[l] == 0) types[l] = "chunked_attention";
    }
    return types;
  }

  /// Or with attention that sees no positions.
  std::vector<char> layers_without_attention(const std::vector<std::string>& types) {
    const auto embedding = top_.text("position_embedding_type");
    if (!embedding && model_.name == "granitemoehybrid")
      top_.missing("position_embedding_type", "model_type " + std::string(model_.name));
    const bool none = embedding == "nope";
    std::vector<char> still;
    for (const std::string& type : types) still.push_back(none || type == "mamba" || type == "linear_attention");
    return still;
  }

  /// no_rope_layers has a 1 for every layer that rotates; where it is empty, every fourth does not.
  std::vector<char> still_layers(const std::vector<std::string>& types) {
    const Index interval = top_.integer("no_rope_layer_interval", 1, max_layers).value_or(4);
    std::vector<char> still(types.size(), 0);
    const Json* list = top_.take("no_rope_layers");
    if (list != nullptr && !list->is_array())
      top_.refuse_field("no_rope_layers", "must be a list with an entry a layer");
    if (list == nullptr || list->empty()) {
      for (std::size_t l = 0; l < still.size(); ++l) still[l] = (l + 1) % static_cast<std::size_t>(interval) == 0;
      return still;
    }
    if (list->size() != types.size())
      top_.refuse_field("no_rope_layers", "must have an entry for each of " + std::to_string(types.size()) + " layers");
    for (std::size_t l = 0; l < still.size(); ++l) {
      const Json& entry = (*list)[l];
      if (entry != 0 && entry != 1)
        refuse(top_.path("no_rope_layers") + "[" + std::to_string(l) + "]", "must be 0 or 1", entry);
      still[l] = entry == 0;
    }
    return still;
  }

  void require_used() const {
    if (has("sliding_attention") && !window) top_.missing("sliding_window", "layer_types");
    if (window && !has("sliding_attention")) top_.refuse_field("sliding_window", "is of no layer in layer_types");
    if (has("chunked_attention") && !chunk) top_.missing("attention_chunk_size", "layer_types");
    if (chunk && !has("chunked_attention")) top_.refuse_field("attention_chunk_size", "is of no layer in layer_types");
  }

  Fields& top_;
  const KnownModel& model_;
  std::optional<Index> num_layers_ = {}, first_windowed_ = {};
};

}  // namespace posenc::inline v0::detail::config
