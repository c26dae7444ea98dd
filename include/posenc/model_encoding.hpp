// SPDX-License-Identifier: MIT
#pragma once

// How a model sees positions: what its configuration says, resolved into the types of this library.
//
//   from_config (model_config.hpp)   reads a config.json of Hugging Face
//   from_gguf   (gguf_config.hpp)    reads the metadata of a GGUF file
//
//   const ModelEncoding model = from_config(json);
//   const Rope rope = model.rope().rope();              // for all layers that rotate alike
//   std::cout << model;                                 // dims, frequencies, wavelengths, magnitude, softmax scale

#include <Eigen/Core>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include <posenc/alibi.hpp>
#include <posenc/concepts.hpp>
#include <posenc/detail/check.hpp>
#include <posenc/learned.hpp>
#include <posenc/query_temperature.hpp>
#include <posenc/rope.hpp>
#include <posenc/rope_llama3.hpp>
#include <posenc/rope_longrope.hpp>
#include <posenc/rope_ntk.hpp>
#include <posenc/rope_yarn.hpp>
#include <posenc/sinusoidal.hpp>

namespace posenc::inline v0 {

enum class EncodingFamily { none, rope, alibi, relative_buckets, learned, sinusoidal };

/// No encoding: layers that see no positions ("NoPE"), or a model that adds none to its input.
struct NoEncoding {};

/// Frequencies as they are.
struct PlainRope {};

/// Frequencies divided by a factor: position interpolation.
struct LinearRope {
  double factor = 1;
};

/// See proportional_rope_frequencies; the whole head is rotary then, and most of its pairs stand still.
struct ProportionalRope {
  Index rotary_dim = 0;
  double factor = 1;
};

/// How a model's frequencies are stretched. "default", "linear", "dynamic", "yarn", "llama3", "longrope" and
/// "proportional" in configurations.
using RopeScaling = std::variant<PlainRope, LinearRope, DynamicNtkOptions, YarnOptions, Llama3RopeOptions,
                                 LongRopeOptions, ProportionalRope>;

/// The rotation of a model, resolved: all but the length of the sequence, which two of the schemes depend on.
struct ModelRope {
  RopeOptions options = {};      ///< dims, pair layout, base
  RopeScaling scaling = {};      ///< how the frequencies come from the base
  std::vector<Index> axes = {};  ///< the axis of each pair (M-RoPE); empty: one axis
  Vector<double> divisors = {};  ///< divide the frequencies one by one (rope_freqs of GGUF); empty: none
  double magnitude = 1;          ///< a further factor on the magnitude of the scheme

  /// Whether the frequencies are others for a longer sequence: dynamic NTK and LongRoPE.
  bool depends_on_length() const {
    return std::holds_alternative<DynamicNtkOptions>(scaling) || std::holds_alternative<LongRopeOptions>(scaling);
  }

  /// \param num_tokens the length of the sequence, cache included: the largest position + 1. 0 stands for any length
  ///        that the model was trained for.
  RopeFrequencies frequencies(Index num_tokens = 0) const {
    RopeFrequencies result = std::visit([&](const auto& scheme) { return of(scheme, num_tokens); }, scaling);
    if (divisors.size() != 0) result = divided(result, divisors);
    result.magnitude *= magnitude;
    result.axes = axes;
    return result;
  }

  /// The encoding. \param num_tokens as above.
  Rope rope(Index num_tokens = 0) const { return Rope(frequencies(num_tokens), options); }

 private:
  Index dim() const { return options.rotary_dim; }
  double base() const { return options.base; }

  RopeFrequencies of(const PlainRope&, Index) const { return rope_frequencies(dim(), base()); }
  RopeFrequencies of(const LinearRope& linear, Index) const {
    return divided(rope_frequencies(dim(), base()), linear.factor);
  }
  RopeFrequencies of(const DynamicNtkOptions& dynamic, Index num_tokens) const {
    return dynamic_ntk_rope_frequencies(dim(), base(), dynamic, num_tokens);
  }
  RopeFrequencies of(const YarnOptions& yarn, Index) const { return yarn_rope_frequencies(dim(), base(), yarn); }
  RopeFrequencies of(const Llama3RopeOptions& llama3, Index) const {
    return llama3_rope_frequencies(dim(), base(), llama3);
  }
  RopeFrequencies of(const LongRopeOptions& longrope, Index num_tokens) const {
    return longrope_frequencies(dim(), base(), longrope, num_tokens);
  }
  RopeFrequencies of(const ProportionalRope& proportional, Index) const {
    return proportional_rope_frequencies(dim(), proportional.rotary_dim, base(), proportional.factor);
  }
};

/// The linear biases of a model. The slopes are to be added to scores that were scaled already; for Falcon, which
/// scales scores and biases together, they have the factor 1/sqrt(head_dim) in them.
struct ModelAlibi {
  Vector<double> slopes = {};
  AlibiForm form = AlibiForm::distance;

  Alibi alibi() const { return Alibi(slopes, form); }
};

/// The trained biases of T5: one number for every bucket of distances and every head.
struct ModelBuckets {
  Index num_buckets = 32;
  Index max_distance = 128;    ///< distances from here on share the last bucket
  bool bidirectional = false;  ///< an encoder, whose buckets tell before from after
};

/// A trained table that is added to the input.
struct ModelLearned {
  Index dim = 0;
  Index num_columns = 0;  ///< of the table; the first `options.offset` of them are not positions
  LearnedAbsoluteOptions options = {};
};

/// Layers of one kind. Configurations name them full_attention, sliding_attention and so on; it is "all" where there
/// is one kind only. "indexer" is no layer: the heads with which every layer of DeepSeek-V3.2 chooses its keys.
struct LayerKind {
  std::string name = "all";
  std::variant<NoEncoding, ModelRope, ModelAlibi, ModelBuckets> encoding = {};
  std::optional<Index> window = {};  ///< how many keys a query sees, itself included: SlidingWindow({window - 1, 0})
  std::optional<Index> chunk = {};   ///< queries see keys of their own chunk of so many positions only (Llama 4)
  std::optional<QueryTemperature> temperature = {};
};

/// What a model does with positions.
struct ModelEncoding {
  std::string model_type = {};
  Index num_heads = 0;
  Index num_kv_heads = 0;
  Index head_dim = 0;        ///< features of a query and a key, rotary or not
  Index num_layers = 0;      ///< 0: not stated
  Index max_positions = 0;   ///< the longest sequence; 0: not stated
  double softmax_scale = 0;  ///< what scores are multiplied with: AttentionOptions::scale
  std::variant<NoEncoding, ModelLearned, SinusoidalOptions> input = {};
  std::vector<LayerKind> kinds = {};  ///< at least one
  std::vector<std::size_t> layer_kinds =
      {};  ///< which of them layer l is; empty: there is one, or they are named apart

  EncodingFamily family() const {
    if (std::holds_alternative<ModelLearned>(input)) return EncodingFamily::learned;
    if (std::holds_alternative<SinusoidalOptions>(input)) return EncodingFamily::sinusoidal;
    for (const LayerKind& kind : kinds) {
      if (std::holds_alternative<ModelRope>(kind.encoding)) return EncodingFamily::rope;
      if (std::holds_alternative<ModelAlibi>(kind.encoding)) return EncodingFamily::alibi;
      if (std::holds_alternative<ModelBuckets>(kind.encoding)) return EncodingFamily::relative_buckets;
    }
    return EncodingFamily::none;
  }

  /// \throws std::invalid_argument if there is no such kind.
  const LayerKind& kind(std::string_view name) const {
    for (const LayerKind& kind : kinds)
      if (kind.name == name) return kind;
    detail::fail<std::invalid_argument>("posenc::ModelEncoding: there are no layers of the kind " + std::string(name));
  }

  /// \throws std::out_of_range if there is no such layer.
  const LayerKind& layer(Index number) const {
    detail::require_in_range(number >= 0 && (num_layers == 0 || number < num_layers),
                             "posenc::ModelEncoding: layer must be below num_layers", number);
    return kinds.at(layer_kinds.empty() ? 0 : layer_kinds.at(static_cast<std::size_t>(number)));
  }

  /// The first kind of layers that rotate, or the one of that name.
  /// \throws std::invalid_argument if it does not rotate.
  const ModelRope& rope() const { return first<ModelRope>("posenc::ModelEncoding: no layer rotates"); }
  const ModelRope& rope(std::string_view name) const {
    const auto* rope = std::get_if<ModelRope>(&kind(name).encoding);
    if (rope == nullptr)
      detail::fail<std::invalid_argument>("posenc::ModelEncoding: layers of the kind " + std::string(name) +
                                          " do not rotate");
    return *rope;
  }
  const ModelAlibi& alibi() const { return first<ModelAlibi>("posenc::ModelEncoding: no layer has linear biases"); }

 private:
  template <class Encoding>
  const Encoding& first(const char* rule) const {
    for (const LayerKind& kind : kinds)
      if (const auto* encoding = std::get_if<Encoding>(&kind.encoding)) return *encoding;
    detail::fail<std::invalid_argument>(rule);
  }
};

}  // namespace posenc::inline v0
