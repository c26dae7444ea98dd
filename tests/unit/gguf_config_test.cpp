// SPDX-License-Identifier: MIT

// Metadata as the converter of llama.cpp writes it for well-known models. The numbers that are expected were computed
// apart, with mpmath.

#include <cmath>
#include <limits>
#include <map>
#include <optional>
#include <posenc/gguf_config.hpp>
#include <sstream>
#include <stdexcept>
#include <string>
#include <variant>
#include <vector>

#include "../catch.hpp"

namespace {

using Catch::Matchers::WithinRel;
using posenc::GgufValue;
using posenc::Index;
using posenc::PairLayout;

using Metadata = std::map<std::string, GgufValue>;

GgufValue whole(std::int64_t value) { return value; }
GgufValue text(const char* value) { return std::string(value); }

/// Keys without the name of the architecture in front.
Metadata metadata(const std::string& architecture, const Metadata& keys) {
  Metadata all{{"general.architecture", architecture}};
  for (const auto& [key, value] : keys) all[architecture + "." + key] = value;
  return all;
}

posenc::ModelEncoding resolve(const Metadata& file, posenc::GgufOptions options = {}) {
  for (const auto& [key, value] : file) options.keys.push_back(key);
  return posenc::from_gguf(
      [&](const std::string& key) -> std::optional<GgufValue> {
        const auto found = file.find(key);
        return found == file.end() ? std::nullopt : std::optional(found->second);
      },
      options);
}

std::string message_of(const Metadata& file, const posenc::GgufOptions& options = {}) {
  try {
    resolve(file, options);
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
  return "resolved";
}

const Metadata llama_keys{
    {"block_count", whole(32)},          {"context_length", whole(131072)},     {"embedding_length", whole(4096)},
    {"attention.head_count", whole(32)}, {"attention.head_count_kv", whole(8)}, {"rope.dimension_count", whole(128)},
    {"rope.freq_base", 500000.0}};

Metadata with(Metadata keys, const Metadata& more) {
  for (const auto& [key, value] : more) keys[key] = value;
  return keys;
}

}  // namespace

TEST_CASE("GGUF: Llama 3.1, whose scaling is a tensor", "[gguf]") {
  // The converter stores frequency / scaled frequency: 8 for the slowest pairs.
  posenc::GgufOptions options;
  options.rope_freqs = posenc::Vector<double>::Ones(64);
  options.rope_freqs.tail(29).setConstant(8);
  const posenc::ModelEncoding model = resolve(metadata("llama", llama_keys), options);
  CHECK(model.family() == posenc::EncodingFamily::rope);
  CHECK(model.num_heads == 32);
  CHECK(model.num_kv_heads == 8);
  CHECK(model.head_dim == 128);
  CHECK(model.num_layers == 32);
  CHECK(model.max_positions == 131072);
  CHECK(model.rope().options.layout == PairLayout::interleaved);  // the converter reorders W_q and W_k
  const posenc::RopeFrequencies frequencies = model.rope().frequencies();
  CHECK(frequencies.values[0] == 1);
  CHECK_THAT(frequencies.values[63], WithinRel(3.06892598891451e-7, 1e-12));
  CHECK(frequencies.magnitude == 1);
}

TEST_CASE("GGUF: pair layouts by architecture", "[gguf]") {
  const auto layout = [](const char* architecture) {
    return resolve(metadata(architecture, llama_keys)).rope().options.layout;
  };
  for (const char* name : {"llama", "command-r", "internlm2", "chatglm", "glm4", "granite", "ernie4_5"})
    CHECK(layout(name) == PairLayout::interleaved);
  for (const char* name : {"qwen2", "qwen3", "gptneox", "falcon", "phi2", "phi3", "gemma", "stablelm", "glm4moe"})
    CHECK(layout(name) == PairLayout::half_split);
}

TEST_CASE("GGUF: Qwen 2.5 with YaRN", "[gguf]") {
  const posenc::ModelEncoding model =
      resolve(metadata("qwen2", {{"context_length", whole(131072)},
                                 {"embedding_length", whole(3584)},
                                 {"attention.head_count", whole(28)},
                                 {"attention.head_count_kv", whole(4)},
                                 {"rope.freq_base", 1e6},
                                 {"rope.scaling.type", text("yarn")},
                                 {"rope.scaling.factor", 4.0},
                                 {"rope.scaling.original_context_length", whole(32768)}}));
  const posenc::RopeFrequencies frequencies = model.rope().frequencies();
  CHECK_THAT(frequencies.values[40], WithinRel(4.44569852509731e-5, 1e-12));
  CHECK_THAT(frequencies.magnitude, WithinRel(1.13862943611199, 1e-13));
}

TEST_CASE("GGUF: DeepSeek, latent attention and the square of its magnitude", "[gguf]") {
  const auto deepseek = [](double log_multiplier) {
    return metadata("deepseek2", {{"context_length", whole(163840)},
                                  {"embedding_length", whole(7168)},
                                  {"attention.head_count", whole(128)},
                                  {"attention.head_count_kv", whole(1)},
                                  {"attention.key_length", whole(576)},
                                  {"attention.key_length_mla", whole(192)},
                                  {"rope.dimension_count", whole(64)},
                                  {"rope.freq_base", 10000.0},
                                  {"rope.scaling.type", text("yarn")},
                                  {"rope.scaling.factor", 40.0},
                                  {"rope.scaling.original_context_length", whole(4096)},
                                  {"rope.scaling.yarn_log_multiplier", log_multiplier}});
  };
  const posenc::ModelEncoding v3 = resolve(deepseek(static_cast<double>(0.1F)));
  CHECK(v3.head_dim == 192);
  CHECK(v3.rope().options.rotary_offset == 128);
  CHECK(v3.rope().options.rotary_dim == 64);
  CHECK(v3.rope().frequencies().magnitude == 1);
  CHECK_THAT(v3.rope().frequencies().values[20], WithinRel(0.000790569415042095, 1e-12));
  CHECK_THAT(v3.softmax_scale, WithinRel(0.13523377886088, 1e-6));
  const posenc::ModelEncoding v2 = resolve(deepseek(static_cast<double>(0.0707F)));
  CHECK(v2.rope().frequencies().magnitude == 1);
  CHECK_THAT(v2.softmax_scale, WithinRel(0.114721386792926, 1e-6));
}

TEST_CASE("GGUF: Ministral 3 and gpt-oss", "[gguf]") {
  const posenc::ModelEncoding ministral =
      resolve(metadata("mistral3", with(llama_keys, {{"rope.freq_base", 1e6},
                                                     {"rope.scaling.type", text("yarn")},
                                                     {"rope.scaling.factor", 16.0},
                                                     {"rope.scaling.original_context_length", whole(16384)},
                                                     {"rope.scaling.yarn_beta_fast", 32.0},
                                                     {"rope.scaling.yarn_beta_slow", 1.0},
                                                     {"rope.scaling.yarn_log_multiplier", 1.0},
                                                     {"attention.temperature_scale", 0.1}})));
  CHECK(ministral.rope().frequencies().magnitude == 1);
  CHECK_THAT(ministral.rope().frequencies().values[30], WithinRel(0.000690702338894331, 1e-12));
  CHECK_THAT(ministral.kind("all").temperature->factor(16384), WithinRel(1 + 0.1 * std::log(2.0), 1e-14));

  const posenc::ModelEncoding gpt =
      resolve(metadata("gpt-oss", {{"block_count", whole(24)},
                                   {"context_length", whole(131072)},
                                   {"embedding_length", whole(2880)},
                                   {"attention.head_count", whole(64)},
                                   {"attention.head_count_kv", whole(8)},
                                   {"attention.key_length", whole(64)},
                                   {"attention.sliding_window", whole(128)},
                                   {"rope.freq_base", 150000.0},
                                   {"rope.scaling.type", text("yarn")},
                                   {"rope.scaling.factor", 32.0},
                                   {"rope.scaling.original_context_length", whole(4096)}}));
  CHECK_THAT(gpt.rope().frequencies().magnitude, WithinRel(1.34657359027997, 1e-13));
  CHECK_THAT(gpt.rope("full_attention").frequencies().values[12], WithinRel(0.00701571391050439, 1e-12));
  CHECK(gpt.layer(0).window == 128);
  CHECK_FALSE(gpt.layer(1).window);
}

TEST_CASE("GGUF: Gemma 3 and Cohere 2, windows", "[gguf]") {
  const Metadata keys = {{"block_count", whole(34)},
                         {"context_length", whole(131072)},
                         {"embedding_length", whole(2560)},
                         {"attention.head_count", whole(8)},
                         {"attention.key_length", whole(256)},
                         {"attention.sliding_window", whole(1024)},
                         {"rope.freq_base", 1e6},
                         {"rope.scaling.type", text("linear")},
                         {"rope.scaling.factor", 8.0}};
  const posenc::ModelEncoding gemma = resolve(metadata("gemma3", keys));
  CHECK(gemma.softmax_scale == 0.0625);
  for (Index l = 0; l < 34; ++l) CHECK(gemma.layer(l).window.value_or(0) == (l % 6 == 5 ? 0 : 1024));
  CHECK(gemma.rope("sliding_attention").frequencies().values[1] == std::pow(10000.0, -2.0 / 256));
  CHECK_THAT(gemma.rope("full_attention").frequencies().values[1], WithinRel(std::pow(1e6, -2.0 / 256) / 8, 1e-13));

  // 27B: scaled by embedding_length / heads, which is 168 and not head_dim
  const posenc::ModelEncoding large = resolve(metadata("gemma3", with(keys, {{"block_count", whole(62)},
                                                                             {"embedding_length", whole(5376)},
                                                                             {"attention.head_count", whole(32)},
                                                                             {"attention.key_length", whole(128)}})));
  CHECK_THAT(large.softmax_scale, WithinRel(1 / std::sqrt(168.0), 1e-14));

  const posenc::ModelEncoding cohere =
      resolve(metadata("cohere2", with(llama_keys, {{"attention.sliding_window", whole(4096)}})));
  CHECK(std::holds_alternative<posenc::ModelRope>(cohere.layer(0).encoding));
  CHECK(std::holds_alternative<posenc::NoEncoding>(cohere.layer(3).encoding));

  const posenc::ModelEncoding llama4 = resolve(metadata("llama4", with(llama_keys, {{"block_count", whole(48)}})));
  CHECK(llama4.layer(0).chunk == 8192);
  CHECK(llama4.layer(3).temperature.has_value());

  std::vector<double> pattern(32, 1);
  pattern[5] = 0;
  const posenc::ModelEncoding listed = resolve(metadata(
      "phi3",
      with(llama_keys, {{"attention.sliding_window", whole(2047)}, {"attention.sliding_window_pattern", pattern}})));
  CHECK(listed.layer(4).window == 2047);
  CHECK_FALSE(listed.layer(5).window);
}

TEST_CASE("GGUF: LongRoPE from two tensors", "[gguf]") {
  posenc::GgufOptions options;
  options.rope_factors_short = posenc::Vector<double>::Constant(48, 1.5);
  options.rope_factors_long = posenc::Vector<double>::Constant(48, 6);
  const Metadata file = metadata("phi3", {{"context_length", whole(131072)},
                                          {"embedding_length", whole(3072)},
                                          {"attention.head_count", whole(32)},
                                          {"rope.dimension_count", whole(96)},
                                          {"rope.scaling.type", text("longrope")},
                                          {"rope.scaling.attn_factor", 1.19},
                                          {"rope.scaling.original_context_length", whole(4096)}});
  const posenc::ModelEncoding model = resolve(file, options);
  CHECK_THAT(model.rope().frequencies(4096).values[0], WithinRel(1 / 1.5, 1e-14));
  CHECK_THAT(model.rope().frequencies(4097).values[0], WithinRel(1.0 / 6, 1e-14));
  CHECK(model.rope().frequencies().magnitude == 1.19);
  CHECK(message_of(file) == "posenc::gguf: rope_factors_short.weight must have 48 entries, got 0");
}

TEST_CASE("GGUF: several axes", "[gguf]") {
  const Metadata qwen2vl =
      metadata("qwen2vl", with(llama_keys, {{"rope.dimension_sections", std::vector<double>{16, 24, 24, 0}}}));
  const std::vector<Index> chunks = resolve(qwen2vl).rope().axes;
  for (std::size_t i = 0; i < 64; ++i) CHECK(chunks[i] == (i < 16 ? 0 : i < 40 ? 1 : 2));
  const Metadata qwen3vl =
      metadata("qwen3vl", with(llama_keys, {{"rope.dimension_sections", std::vector<double>{24, 20, 20, 0}}}));
  const std::vector<Index> interleaved = resolve(qwen3vl).rope().axes;
  // ggml turns the pairs 61 and 62, which no section reaches, by its fourth axis
  for (std::size_t i = 0; i < 64; ++i) CHECK(interleaved[i] == (i == 61 || i == 62 ? 3 : static_cast<Index>(i % 3)));
  const Metadata fourth =
      metadata("qwen3vl", with(llama_keys, {{"rope.dimension_sections", std::vector<double>{16, 16, 16, 16}}}));
  const std::vector<Index> of_four = resolve(fourth).rope().axes;
  for (std::size_t i = 0; i < 64; ++i) CHECK(of_four[i] == (i < 48 ? static_cast<Index>(i % 3) : 3));
  CHECK(resolve(metadata("glm4", with(llama_keys, {{"rope.dimension_sections", std::vector<double>{24, 20, 20, 0}}})))
            .rope()
            .options.layout == PairLayout::half_split);
}

TEST_CASE("GGUF: OLMo 3 and SmolLM3", "[gguf]") {
  const Metadata yarn = {{"attention.sliding_window", whole(4096)},
                         {"rope.scaling.type", text("yarn")},
                         {"rope.scaling.factor", 8.0},
                         {"rope.scaling.original_context_length", whole(8192)}};
  const posenc::ModelEncoding olmo = resolve(metadata("olmo2", with(llama_keys, yarn)));
  CHECK(olmo.layer(2).window == 4096);  // layers with a window are not stretched
  CHECK(olmo.rope("sliding_attention").frequencies().magnitude == 1);
  CHECK_THAT(olmo.rope("sliding_attention").frequencies().values[63], WithinRel(2.45514079113161e-6, 1e-12));
  CHECK_FALSE(olmo.layer(3).window);
  CHECK_THAT(olmo.rope("full_attention").frequencies().magnitude, WithinRel(1 + 0.1 * std::log(8.0), 1e-12));
  CHECK_THAT(olmo.rope("full_attention").frequencies().values[63], WithinRel(3.06892598891451e-7, 1e-12));
  CHECK(resolve(metadata("olmo2", llama_keys)).kinds.size() == 1);

  const posenc::ModelEncoding smol = resolve(metadata("smollm3", llama_keys));
  CHECK(smol.rope().options.layout == PairLayout::interleaved);
  for (Index l = 0; l < 32; ++l)
    CHECK(std::holds_alternative<posenc::NoEncoding>(smol.layer(l).encoding) == (l % 4 == 3));
  CHECK(message_of(metadata("smollm3", {{"attention.head_count", whole(8)}, {"attention.key_length", whole(64)}})) ==
        "posenc::gguf: smollm3.block_count is missing");
}

TEST_CASE("GGUF: models that do not rotate", "[gguf]") {
  const Metadata keys = {
      {"context_length", whole(2048)}, {"embedding_length", whole(512)}, {"attention.head_count", whole(8)}};
  CHECK_THAT(resolve(metadata("bloom", keys)).alibi().slopes[0], WithinRel(0.5, 1e-14));
  CHECK_THAT(resolve(metadata("mpt", with(keys, {{"attention.max_alibi_bias", 16.0}}))).alibi().slopes[0],
             WithinRel(0.25, 1e-14));
  CHECK(resolve(metadata("mpt", keys)).family() == posenc::EncodingFamily::learned);
  CHECK(std::get<posenc::ModelLearned>(resolve(metadata("gpt2", keys)).input).num_columns == 2048);
  const posenc::ModelEncoding t5 = resolve(metadata(
      "t5", with(keys, {{"attention.key_length", whole(64)}, {"attention.relative_buckets_count", whole(32)}})));
  CHECK(t5.softmax_scale == 1);
  CHECK(std::get<posenc::ModelBuckets>(t5.kind("encoder").encoding).bidirectional);
  CHECK(std::get<posenc::ModelBuckets>(t5.kind("decoder").encoding).max_distance == 128);
}

TEST_CASE("GGUF: refused", "[gguf]") {
  const auto refused = [](const Metadata& more, const std::string& message) {
    CHECK(message_of(metadata("llama", with(llama_keys, more))) == "posenc::gguf: " + message);
  };
  CHECK(message_of({}) == "posenc::gguf: general.architecture is missing");
  CHECK(message_of({{"general.architecture", text("novel")}}) ==
        "posenc::gguf: general.architecture is not known, got \"novel\"");
  CHECK(message_of({{"general.architecture", text("gptj")}}) ==
        "posenc::gguf: general.architecture is not known, got \"gptj\"");
  CHECK(message_of({{"general.architecture", whole(3)}}) ==
        "posenc::gguf: general.architecture must be a string, got 3");
  CHECK(message_of({{"general.architecture", text("llama")}}) == "posenc::gguf: llama.attention.head_count is missing");
  refused({{"attention.head_count", whole(0)}}, "llama.attention.head_count must be from 1 to 16384, got 0");
  refused({{"attention.head_count", text("32")}}, "llama.attention.head_count must be a whole number, got \"32\"");
  refused({{"attention.head_count", whole(31)}},
          "llama.attention.head_count must be a multiple of head_count_kv = 8, got 31");
  refused({{"attention.head_count_kv", std::vector<double>{8, 4}}},
          "llama.attention.head_count_kv must be the same for every layer, got a list of 2");
  refused({{"attention.head_count_kv", std::vector<double>{}}},
          "llama.attention.head_count_kv must not be empty, got a list of 0");
  refused({{"embedding_length", whole(std::numeric_limits<std::int64_t>::max())}},
          "llama.embedding_length must be from 1 to 67108864, got 9223372036854775807");
  refused({{"rope.dimension_count", whole(127)}}, "llama.rope.dimension_count must be even and at most 128, got 127");
  refused({{"rope.dimension_count", whole(130)}}, "llama.rope.dimension_count must be even and at most 128, got 130");
  refused({{"rope.freq_base", std::numeric_limits<double>::quiet_NaN()}},
          "llama.rope.freq_base must be from 1 to 1e+30, got nan");
  refused({{"rope.freq_base", 0.5}}, "llama.rope.freq_base must be from 1 to 1e+30, got 0.5");
  refused({{"rope.scaling.type", text("su")}}, "llama.rope.scaling.type is not known, got \"su\"");
  refused({{"rope.scaling.factor", 0.5}}, "llama.rope.scaling.factor must be 0 or at least 1, got 0.5");
  refused({{"rope.scaling.type", text("none")}, {"rope.scaling.factor", 4.0}},
          "llama.rope.scaling.factor contradicts rope.scaling.type = none, got 4");
  refused({{"rope.scaling.factor", 4.0}, {"rope.scale_linear", 2.0}},
          "llama.rope.scale_linear contradicts rope.scaling.factor = 4, got 2");
  refused({{"rope.scaling.alpha", 1000.0}}, "llama.rope.scaling.alpha is not supported, got 1000");
  refused({{"rope.scaling.type", text("yarn")}, {"rope.scaling.factor", 4.0}, {"rope.scaling.yarn_attn_factor", 2.0}},
          "llama.rope.scaling.yarn_attn_factor contradicts the magnitude of the other keys, 1.138629436, got 2");
  refused({{"rope.scaling.beta", 2.0}}, "llama.rope.scaling.beta is not known");
  refused({{"rope.freq_base_swa", 1e4}},
          "llama.rope.freq_base_swa must be rope.freq_base for this architecture, got 10000");
  refused({{"rope.dimension_sections", std::vector<double>{16, 24, 24, 0}}},
          "llama.rope.dimension_sections is not of this architecture, got a list of 4");
  refused({{"attention.temperature_scale", 0.1}},
          "llama.attention.temperature_scale is not supported for this architecture, got 0.1");
  CHECK(message_of(metadata("qwen2", with(llama_keys, {{"attention.sliding_window", whole(4096)}}))) ==
        "posenc::gguf: qwen2.attention.sliding_window is not of this architecture");
  CHECK(message_of(metadata("llama", llama_keys), {.rope_freqs = posenc::Vector<double>::Ones(63)}) ==
        "posenc::gguf: rope_freqs.weight must have 64 entries, got 63");
  CHECK(message_of(metadata("llama", llama_keys), {.rope_freqs = posenc::Vector<double>::Zero(64)}) ==
        "posenc::gguf: rope_freqs.weight[0] must be positive, got 0");
  CHECK(message_of(metadata("gpt2", {{"context_length", whole(1024)},
                                     {"embedding_length", whole(768)},
                                     {"attention.head_count", whole(12)}}),
                   {.rope_freqs = posenc::Vector<double>::Ones(64)}) ==
        "posenc::gguf: rope_freqs.weight is not used by this model");
  CHECK(message_of(metadata("llama", llama_keys), {.rope_factors_long = posenc::Vector<double>::Ones(64)}) ==
        "posenc::gguf: rope_factors_short.weight and rope_factors_long.weight are not used by this model");
}
