// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <cstddef>
#include <iomanip>
#include <numbers>
#include <ostream>
#include <sstream>
#include <string>
#include <variant>

#include <posenc/model_encoding.hpp>

namespace posenc::inline v0 {

inline const char* name_of(EncodingFamily family) {
  switch (family) {
    case EncodingFamily::rope:
      return "RoPE";
    case EncodingFamily::alibi:
      return "ALiBi";
    case EncodingFamily::relative_buckets:
      return "relative buckets";
    case EncodingFamily::learned:
      return "learned absolute";
    case EncodingFamily::sinusoidal:
      return "sinusoidal";
    case EncodingFamily::none:
      break;
  }
  return "none";
}

inline const char* name_of(PairLayout layout) {
  return layout == PairLayout::interleaved ? "interleaved" : "half_split";
}

namespace detail {

/// One stream for a whole description, whatever the flags of the stream that it goes to.
class ModelText {
 public:
  explicit ModelText(const ModelEncoding& model) : model_(model) {
    text_ << std::setprecision(7) << (model.model_type.empty() ? "model" : model.model_type) << ": "
          << name_of(model.family()) << '\n';
    line("heads") << model.num_heads << ", keys and values " << model.num_kv_heads << ", head_dim " << model.head_dim
                  << '\n';
    if (model.num_layers > 0) line("layers") << model.num_layers << '\n';
    if (model.max_positions > 0) line("positions") << model.max_positions << '\n';
    line("softmax scale") << model.softmax_scale << '\n';
    std::visit([&](const auto& input) { add(input); }, model.input);
    for (std::size_t k = 0; k < model.kinds.size(); ++k) add(model.kinds[k], k);
  }

  std::string str() const { return text_.str(); }

 private:
  std::ostream& line(const char* what) { return text_ << "  " << std::left << std::setw(16) << what << std::right; }

  void add(const NoEncoding&) {}
  void add(const ModelLearned& learned) {
    line("learned table") << learned.dim << " x " << learned.num_columns << ", position p is column p + "
                          << learned.options.offset << '\n';
  }
  void add(const SinusoidalOptions& options) {
    line("sinusoids") << "dim " << options.dim << ", base " << options.base << ", first position "
                      << options.first_position << '\n';
    wavelengths(Sinusoidal(options).frequencies());
  }

  void add(const LayerKind& kind, std::size_t number) {
    text_ << "layers: " << kind.name;
    if (!model_.layer_kinds.empty()) {
      text_ << " (";
      std::size_t shown = 0, all = 0;
      for (std::size_t l = 0; l < model_.layer_kinds.size(); ++l)
        if (model_.layer_kinds[l] == number && ++all && shown < 8) text_ << (shown++ == 0 ? "" : ", ") << l;
      text_ << (all > shown ? ", ..." : "") << ')';
    }
    text_ << '\n';
    if (kind.window) line("window") << *kind.window << " tokens\n";
    if (kind.chunk) line("chunks") << *kind.chunk << " tokens\n";
    if (kind.temperature)
      line("temperature") << "queries times " << kind.temperature->factor(0) << " at position 0, "
                          << kind.temperature->factor(131072) << " at 131072\n";
    std::visit([&](const auto& encoding) { add_kind(encoding); }, kind.encoding);
  }

  void add_kind(const NoEncoding&) {
    if (model_.family() == EncodingFamily::rope) line("encoding") << "none\n";
  }
  void add_kind(const ModelAlibi& alibi) {
    line("slopes");
    for (Index h = 0; h < alibi.slopes.size(); ++h) text_ << (h == 0 ? "" : " ") << alibi.slopes[h];
    text_ << '\n';
  }
  void add_kind(const ModelBuckets& buckets) {
    line("buckets") << buckets.num_buckets << ", " << (buckets.bidirectional ? "bidirectional" : "causal")
                    << ", distances below " << buckets.max_distance << '\n';
  }
  void add_kind(const ModelRope& rope) {
    line("rope") << std::visit([](const auto& scheme) { return described(scheme); }, rope.scaling) << ", base "
                 << rope.options.base << '\n';
    const Index first = rope.options.rotary_offset;
    line("rotary features") << first << " to " << first + rope.options.rotary_dim - 1 << " of " << rope.options.head_dim
                            << ", " << name_of(rope.options.layout);
    if (rope.options.output_layout) text_ << ", written " << name_of(*rope.options.output_layout);
    text_ << '\n';
    const RopeFrequencies frequencies = rope.frequencies();
    line("magnitude") << frequencies.magnitude << '\n';
    if (!rope.depends_on_length()) {
      wavelengths(frequencies.values, frequencies.axes);
      return;
    }
    line("sequences") << "as long as in training\n";
    wavelengths(frequencies.values, frequencies.axes);
    if (model_.max_positions == 0) return;
    line("sequences") << "of " << model_.max_positions << " tokens\n";
    const RopeFrequencies of_long = rope.frequencies(model_.max_positions);
    wavelengths(of_long.values, of_long.axes);
  }

  static std::string described(const PlainRope&) { return "default"; }
  static std::string described(const LinearRope& s) { return "linear" + number(", factor ", s.factor); }
  static std::string described(const ProportionalRope& s) {
    return "proportional" + number(", factor ", s.factor) + number(", live features ", s.rotary_dim);
  }
  static std::string described(const DynamicNtkOptions& s) {
    return "dynamic" + number(", factor ", s.factor) + number(", trained length ", s.max_position_embeddings);
  }
  static std::string described(const YarnOptions& s) {
    return "yarn" + number(", factor ", s.factor) + number(", trained length ", s.original_max_position_embeddings) +
           number(", beta_fast ", s.beta_fast) + number(", beta_slow ", s.beta_slow) +
           (s.truncate ? "" : ", not truncated");
  }
  static std::string described(const Llama3RopeOptions& s) {
    return "llama3" + number(", factor ", s.factor) + number(", trained length ", s.original_max_position_embeddings) +
           number(", low_freq_factor ", s.low_freq_factor) + number(", high_freq_factor ", s.high_freq_factor);
  }
  static std::string described(const LongRopeOptions& s) {
    return "longrope" + number(", factor ", s.factor) + number(", trained length ", s.original_max_position_embeddings);
  }
  template <class Value>
  static std::string number(const char* name, Value value) {
    std::ostringstream text;
    text << name << value;
    return text.str();
  }

  void wavelengths(const Vector<double>& frequencies, const std::vector<Index>& axes = {}) {
    text_ << "      pair    rad per token      tokens a turn" << (axes.empty() ? "" : "   axis") << '\n';
    for (Index i = 0; i < frequencies.size(); ++i) {
      text_ << std::setw(10) << i << std::setw(17) << frequencies[i] << std::setw(19);
      if (frequencies[i] == 0)
        text_ << "never";
      else
        text_ << 2 * std::numbers::pi / std::abs(frequencies[i]);
      if (!axes.empty()) text_ << std::setw(7) << axes[static_cast<std::size_t>(i)];
      text_ << '\n';
    }
  }

  const ModelEncoding& model_;
  std::ostringstream text_;
};

}  // namespace detail

/// All of it: type, dims, softmax scale, and for every kind of layers the frequencies in radians per token with their
/// wavelengths in tokens, and the magnitude.
inline std::ostream& operator<<(std::ostream& stream, const ModelEncoding& model) {
  return stream << detail::ModelText(model).str();
}

}  // namespace posenc::inline v0
