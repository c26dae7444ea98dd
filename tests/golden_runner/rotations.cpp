// SPDX-License-Identifier: MIT
#include "rotations.hpp"

#include <cmath>
#include <optional>
#include <set>

#include <posenc/rope_llama3.hpp>
#include <posenc/rope_longrope.hpp>
#include <posenc/rope_ntk.hpp>
#include <posenc/rope_parity.hpp>
#include <posenc/rope_yarn.hpp>

namespace golden {
namespace {

using nlohmann::json;

/// The keys of a dictionary, each of which must be asked for.
class Keys {
 public:
  explicit Keys(const json& dictionary) : dictionary_(dictionary) {}

  bool has(const std::string& key) const { return dictionary_.contains(key) && !dictionary_.at(key).is_null(); }

  /// Absent and null are the same, as in the peer.
  template <class T>
  std::optional<T> find(const std::string& key) {
    read_.insert(key);
    if (!has(key)) return std::nullopt;
    return dictionary_.at(key).get<T>();
  }

  template <class T>
  T get(const std::string& key) {
    const auto value = find<T>(key);
    if (!value) throw UnknownKind("rope parameters without " + key + ": " + dictionary_.dump());
    return *value;
  }

  void all_read() const {
    for (const auto& [key, value] : dictionary_.items())
      if (!read_.contains(key)) throw UnknownKind("rope parameter " + key + " is " + value.dump());
  }

 private:
  const json& dictionary_;
  std::set<std::string> read_;
};

Vector<double> vector_of(const std::vector<double>& entries) {
  return Eigen::Map<const Vector<double>>(entries.data(), static_cast<Index>(entries.size()));
}

}  // namespace

Matrix<float> one_per_pair(const Eigen::Ref<const Matrix<float>>& given, Index num_pairs) {
  if (given.rows() == num_pairs) return given;
  if (given.rows() != 2 * num_pairs) throw UnknownKind("cosines of " + std::to_string(given.rows()) + " features");
  if (given.topRows(num_pairs) == given.bottomRows(num_pairs)) return given.topRows(num_pairs);
  Matrix<float> entries(num_pairs, given.cols());
  for (Index i = 0; i < num_pairs; ++i) {
    if (given.row(2 * i) != given.row(2 * i + 1)) throw UnknownKind("cosines that are repeated in no known way");
    entries.row(i) = given.row(2 * i);
  }
  return entries;
}

CosSinColumns float32_columns(const Rope& rope, const Positions& positions) {
  const Index pairs = rope.frequencies().size();
  CosSinColumns columns{Matrix<float>(pairs, positions.size()), Matrix<float>(pairs, positions.size())};
  for (Index t = 0; t < positions.size(); ++t)
    for (Index axis = 0; axis < positions.num_axes(); ++axis) {
      const auto table = posenc::float32_rope_table(rope, /*num_positions=*/1, positions.axis(axis)[t]);
      for (Index i = 0; i < pairs; ++i)
        if (rope.frequencies().axis(i) == axis) {
          columns.cos(i, t) = table.cos()(i, 0);
          columns.sin(i, t) = table.sin()(i, 0);
        }
    }
  return columns;
}

Index partial_rotary_dim(Index head_dim, const json& rope_parameters) {
  if (rope_type(rope_parameters) == "proportional") return head_dim;
  return static_cast<Index>(static_cast<double>(head_dim) * rope_parameters.value("partial_rotary_factor", 1.0));
}

std::string rope_type(const json& rope_parameters) {
  for (const char* key : {"rope_type", "type"})
    if (rope_parameters.contains(key)) return rope_parameters.at(key).get<std::string>();
  return "default";
}

RopeFrequencies scheduled_frequencies(const json& rope_parameters, const RopeContext& context) {
  Keys keys(rope_parameters);
  const auto type = rope_type(rope_parameters);
  keys.find<std::string>("rope_type");
  keys.find<std::string>("type");
  const auto base = keys.get<double>("rope_theta");
  const auto share = keys.find<double>("partial_rotary_factor").value_or(1);
  const Index rotary_dim = partial_rotary_dim(context.head_dim, rope_parameters);
  const auto factor = keys.find<double>("factor");
  const auto factor_of = [&](const std::string& schedule) {
    if (!factor) throw UnknownKind(schedule + " without a factor");
    return *factor;
  };
  // Outside the dictionary it counts more than inside, and the whole length stands in for it.
  const auto original = [&] {
    const auto inside = keys.find<Index>("original_max_position_embeddings");
    if (context.original_max_position_embeddings != 0) return context.original_max_position_embeddings;
    return inside.value_or(context.max_position_embeddings);
  };
  const auto times_longer = [&](Index length) {
    if (!factor && context.max_position_embeddings == 0) throw UnknownKind("neither a factor nor a length");
    return factor.value_or(static_cast<double>(context.max_position_embeddings) / static_cast<double>(length));
  };

  RopeFrequencies frequencies;
  if (type == "default") {
    frequencies = posenc::rope_frequencies(rotary_dim, base);
  } else if (type == "linear") {
    frequencies = posenc::divided(posenc::rope_frequencies(rotary_dim, base), factor_of(type));
  } else if (type == "dynamic") {
    frequencies = posenc::dynamic_ntk_rope_frequencies(
        rotary_dim, base, {.factor = factor_of(type), .max_position_embeddings = context.max_position_embeddings},
        context.num_tokens);
  } else if (type == "yarn") {
    const Index length = original();
    posenc::YarnOptions options{.factor = times_longer(length),
                                .original_max_position_embeddings = length,
                                .truncate = keys.find<bool>("truncate").value_or(true),
                                .attention_factor = keys.find<double>("attention_factor"),
                                .mscale = keys.find<double>("mscale"),
                                .mscale_all_dim = keys.find<double>("mscale_all_dim")};
    if (const double beta = keys.find<double>("beta_fast").value_or(0); beta != 0) options.beta_fast = beta;
    if (const double beta = keys.find<double>("beta_slow").value_or(0); beta != 0) options.beta_slow = beta;
    frequencies = posenc::yarn_rope_frequencies(rotary_dim, base, options);
  } else if (type == "longrope" || type == "su") {
    const Index length = original();
    // Given outside the dictionary, as Phi-3 has it, the two lengths are the factor.
    const double longer = context.original_max_position_embeddings != 0
                              ? static_cast<double>(context.max_position_embeddings) / static_cast<double>(length)
                              : times_longer(length);
    frequencies =
        posenc::longrope_frequencies(rotary_dim, base,
                                     {.short_factors = vector_of(keys.get<std::vector<double>>("short_factor")),
                                      .long_factors = vector_of(keys.get<std::vector<double>>("long_factor")),
                                      .original_max_position_embeddings = length,
                                      .factor = longer,
                                      .attention_factor = keys.find<double>("attention_factor")},
                                     context.num_tokens);
  } else if (type == "llama3") {
    frequencies = posenc::llama3_rope_frequencies(rotary_dim, base,
                                                  {.factor = factor_of(type),
                                                   .low_freq_factor = keys.get<double>("low_freq_factor"),
                                                   .high_freq_factor = keys.get<double>("high_freq_factor"),
                                                   .original_max_position_embeddings = original()});
  } else if (type == "proportional") {
    const auto pairs = static_cast<Index>(std::floor(share * static_cast<double>(context.head_dim) / 2));
    frequencies = posenc::proportional_rope_frequencies(context.head_dim, 2 * pairs, base, factor.value_or(1));
  } else {
    throw UnknownKind("rope_type " + type);
  }
  keys.all_read();
  return frequencies;
}

}  // namespace golden
