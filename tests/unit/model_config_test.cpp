// SPDX-License-Identifier: MIT

// Configurations of well-known models, in tests/configs: the published values, without most of what is not about
// positions. What they resolve to was computed apart, with mpmath, from the formulas and the values written here.

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <optional>
#include <posenc/model_config.hpp>
#include <sstream>
#include <stdexcept>
#include <string>
#include <variant>
#include <vector>

#include "../catch.hpp"

namespace {

using Catch::Matchers::WithinRel;
using nlohmann::json;
using posenc::Index;
using posenc::PairLayout;

std::string read(const std::string& path) {
  std::ifstream stream(std::string(POSENC_TESTS_DIR) + "/" + path, std::ios::binary);
  if (!stream) throw std::runtime_error("cannot read " + path);
  return {std::istreambuf_iterator<char>(stream), {}};
}

posenc::ModelEncoding resolved(const std::string& model) {
  return posenc::from_config(read("configs/" + model + ".json"));
}

struct Frequency {
  Index pair;
  double value;
};

struct Expected {
  std::string model, kind;
  Index num_tokens, num_heads, num_kv_heads, head_dim, rotary_offset, rotary_dim;
  PairLayout layout;
  std::optional<PairLayout> output_layout;
  double base, magnitude, softmax_scale;
  Index max_positions;
  std::vector<Frequency> frequencies;
};

constexpr PairLayout half = PairLayout::half_split, adjacent = PairLayout::interleaved;

// clang-format off
const std::vector<Expected> rope_models = {
    {"llama2_7b", "all", 0, 32, 32, 128, 0, 128, half, {}, 10000.0, 1.0, 0.0883883476483184, 4096,
     {{0, 1.0}, {1, 0.865964323360065}, {16, 0.1}, {21, 0.0486967525165863}, {32, 0.01}, {42, 0.00237137370566166}, {63, 0.000115478198468946}}},
    {"llama3_1_8b", "all", 0, 32, 8, 128, 0, 128, half, {}, 500000.0, 1.0, 0.0883883476483184, 131072,
     {{0, 1.0}, {1, 0.814617233856545}, {16, 0.0376060309308639}, {21, 0.0134904198902267}, {32, 0.000524846160992955}, {42, 2.27489286018282e-5}, {63, 3.06892598891451e-7}}},
    {"llama3_2_1b", "all", 0, 32, 8, 64, 0, 64, half, {}, 500000.0, 1.0, 0.125, 131072,
     {{0, 1.0}, {1, 0.663601237696088}, {8, 0.0376060309308639}, {10, 0.0165604400809944}, {16, 0.000429556796559368}, {21, 5.68723215045705e-6}, {31, 9.41830672543491e-8}}},
    {"llama4_scout", "chunked_attention", 0, 40, 8, 128, 0, 128, adjacent, {}, 500000.0, 1.0, 0.0883883476483184, 10485760,
     {{0, 1.0}, {1, 0.814617233856545}, {16, 0.0376060309308639}, {21, 0.0134904198902267}, {32, 0.0014142135623731}, {42, 1.13744643009141e-5}, {63, 1.53446299445726e-7}}},
    {"mistral_7b", "all", 0, 32, 8, 128, 0, 128, half, {}, 10000.0, 1.0, 0.0883883476483184, 32768,
     {{0, 1.0}, {1, 0.865964323360065}, {16, 0.1}, {21, 0.0486967525165863}, {32, 0.01}, {42, 0.00237137370566166}, {63, 0.000115478198468946}}},
    {"mixtral_8x7b", "all", 0, 32, 8, 128, 0, 128, half, {}, 1000000.0, 1.0, 0.0883883476483184, 32768,
     {{0, 1.0}, {1, 0.805842187761482}, {16, 0.0316227766016838}, {21, 0.0107460782832132}, {32, 0.001}, {42, 0.000115478198468946}, {63, 1.24093776075172e-6}}},
    {"ministral3_8b", "all", 0, 32, 8, 128, 0, 128, half, {}, 1000000.0, 1.0, 0.0883883476483184, 262144,
     {{0, 1.0}, {1, 0.805842187761482}, {16, 0.0316227766016838}, {21, 0.0101534636720066}, {32, 0.000338235294117647}, {42, 7.21738740430911e-6}, {63, 7.75586100469825e-8}}},
    {"qwen2_5_7b_yarn", "all", 0, 28, 4, 128, 0, 128, half, {}, 1000000.0, 1.13862943611199, 0.0883883476483184, 32768,
     {{0, 1.0}, {1, 0.805842187761482}, {16, 0.0316227766016838}, {21, 0.0107460782832132}, {32, 0.000602941176470588}, {42, 2.88695496172365e-5}, {63, 3.1023444018793e-7}}},
    {"qwen2_vl_7b", "all", 0, 28, 4, 128, 0, 128, half, {}, 1000000.0, 1.0, 0.0883883476483184, 32768,
     {{0, 1.0}, {1, 0.805842187761482}, {16, 0.0316227766016838}, {21, 0.0107460782832132}, {32, 0.001}, {42, 0.000115478198468946}, {63, 1.24093776075172e-6}}},
    {"qwen3_vl_8b", "all", 0, 32, 8, 128, 0, 128, half, {}, 5000000.0, 1.0, 0.0883883476483184, 262144,
     {{0, 1.0}, {1, 0.785829980419635}, {16, 0.0211474252688113}, {21, 0.0063372445609004}, {32, 0.000447213595499958}, {42, 4.01606686246617e-5}, {63, 2.54507978803761e-7}}},
    {"phi3_5_mini_128k", "all", 4096, 32, 32, 96, 0, 96, half, {}, 10000.0, 1.19023807142381, 0.102062072615966, 131072,
     {{0, 1.0}, {1, 0.809219804610452}, {12, 0.0862069078914916}, {16, 0.0346387279391431}, {24, 0.00502512650713665}, {32, 0.0010612980164675}, {47, 4.26594330513909e-5}}},
    {"phi3_5_mini_128k", "all", 4097, 32, 32, 96, 0, 96, half, {}, 10000.0, 1.19023807142381, 0.102062072615966, 131072,
     {{0, 0.925925889132937}, {1, 0.743607364532099}, {12, 0.0129870125044657}, {16, 0.00189762413957579}, {24, 0.000198649169882839}, {32, 3.43555189033551e-5}, {47, 1.86848816633971e-6}}},
    {"phi3_mini_4k", "all", 0, 32, 32, 96, 0, 96, half, {}, 10000.0, 1.0, 0.102062072615966, 4096,
     {{0, 1.0}, {1, 0.825404185268018}, {12, 0.1}, {16, 0.0464158883361278}, {24, 0.01}, {32, 0.00215443469003188}, {47, 0.000121152765862859}}},
    {"phi2", "all", 0, 32, 32, 80, 0, 32, half, {}, 10000.0, 1.0, 0.111803398874989, 2048,
     {{0, 1.0}, {1, 0.562341325190349}, {4, 0.1}, {5, 0.0562341325190349}, {8, 0.01}, {10, 0.00316227766016838}, {15, 0.000177827941003892}}},
    {"deepseek_v3", "all", 0, 128, 128, 192, 128, 64, adjacent, half, 10000.0, 1.0, 0.13523377886088, 163840,
     {{0, 1.0}, {1, 0.749894209332456}, {8, 0.1}, {10, 0.0562341325190349}, {16, 0.0055}, {21, 0.00041499039849079}, {31, 3.33380358040831e-6}}},
    {"deepseek_v2_lite", "all", 0, 16, 16, 192, 128, 64, adjacent, {}, 10000.0, 1.0, 0.114721386792926, 163840,
     {{0, 1.0}, {1, 0.749894209332456}, {8, 0.1}, {10, 0.0562341325190349}, {16, 0.0055}, {21, 0.00041499039849079}, {31, 3.33380358040831e-6}}},
    {"gpt_oss_20b", "full_attention", 0, 64, 8, 64, 0, 64, half, {}, 150000.0, 1.34657359027997, 0.125, 131072,
     {{0, 1.0}, {1, 0.689044305888163}, {8, 0.0508132748154615}, {10, 0.0193350011265404}, {16, 0.00045648391922324}, {21, 1.2532569824095e-5}, {31, 3.02351142811921e-7}}},
    {"gpt_oss_20b", "sliding_attention", 0, 64, 8, 64, 0, 64, half, {}, 150000.0, 1.34657359027997, 0.125, 131072,
     {{0, 1.0}, {1, 0.689044305888163}, {8, 0.0508132748154615}, {10, 0.0193350011265404}, {16, 0.00045648391922324}, {21, 1.2532569824095e-5}, {31, 3.02351142811921e-7}}},
    {"gemma2_27b", "sliding_attention", 0, 32, 16, 128, 0, 128, half, {}, 10000.0, 1.0, 0.0833333333333333, 8192,
     {{0, 1.0}, {1, 0.865964323360065}, {16, 0.1}, {21, 0.0486967525165863}, {32, 0.01}, {42, 0.00237137370566166}, {63, 0.000115478198468946}}},
    {"gemma3_4b", "full_attention", 0, 8, 4, 256, 0, 256, half, {}, 1000000.0, 1.0, 0.0625, 131072,
     {{0, 0.125}, {1, 0.112210891555914}, {32, 0.00395284707521047}, {42, 0.00134325978540165}, {64, 0.000125}, {85, 1.29579116054712e-5}, {127, 1.3924673249935e-7}}},
    {"gemma3_4b", "sliding_attention", 0, 8, 4, 256, 0, 256, half, {}, 10000.0, 1.0, 0.0625, 131072,
     {{0, 1.0}, {1, 0.930572040929699}, {32, 0.1}, {42, 0.0486967525165863}, {64, 0.01}, {85, 0.00220673406908459}, {127, 0.000107460782832132}}},
    {"gemma3_4b_nested", "full_attention", 0, 8, 4, 256, 0, 256, half, {}, 1000000.0, 1.0, 0.0625, 131072,
     {{0, 0.125}, {1, 0.112210891555914}, {32, 0.00395284707521047}, {42, 0.00134325978540165}, {64, 0.000125}, {85, 1.29579116054712e-5}, {127, 1.3924673249935e-7}}},
    {"gemma3_4b_nested", "sliding_attention", 0, 8, 4, 256, 0, 256, half, {}, 10000.0, 1.0, 0.0625, 131072,
     {{0, 1.0}, {1, 0.930572040929699}, {32, 0.1}, {42, 0.0486967525165863}, {64, 0.01}, {85, 0.00220673406908459}, {127, 0.000107460782832132}}},
    {"gpt_neox_20b", "all", 0, 64, 64, 96, 0, 24, half, {}, 10000.0, 1.0, 0.102062072615966, 2048,
     {{0, 1.0}, {1, 0.464158883361278}, {3, 0.1}, {4, 0.0464158883361278}, {6, 0.01}, {8, 0.00215443469003188}, {11, 0.000215443469003188}}},
    {"gptj_6b", "all", 0, 16, 16, 256, 0, 64, adjacent, {}, 10000.0, 1.0, 0.0625, 2048,
     {{0, 1.0}, {1, 0.749894209332456}, {8, 0.1}, {10, 0.0562341325190349}, {16, 0.01}, {21, 0.00237137370566166}, {31, 0.000133352143216332}}},
    {"codegen_350m", "all", 0, 16, 16, 64, 0, 32, adjacent, {}, 10000.0, 1.0, 0.125, 2048,
     {{0, 1.0}, {1, 0.562341325190349}, {4, 0.1}, {5, 0.0562341325190349}, {8, 0.01}, {10, 0.00316227766016838}, {15, 0.000177827941003892}}},
    {"glm4_9b", "all", 0, 32, 2, 128, 0, 64, adjacent, {}, 10000.0, 1.0, 0.0883883476483184, 32768,
     {{0, 1.0}, {1, 0.749894209332456}, {8, 0.1}, {10, 0.0562341325190349}, {16, 0.01}, {21, 0.00237137370566166}, {31, 0.000133352143216332}}},
    {"command_r7b", "sliding_attention", 0, 32, 8, 128, 0, 128, adjacent, {}, 50000.0, 1.0, 0.0883883476483184, 132096,
     {{0, 1.0}, {1, 0.844459048688527}, {16, 0.0668740304976422}, {21, 0.028717753759651}, {32, 0.00447213595499958}, {42, 0.000824709380999951}, {63, 2.36838009268308e-5}}},
    {"qwen3_8b", "all", 0, 32, 8, 128, 0, 128, half, {}, 1000000.0, 1.0, 0.0883883476483184, 40960,
     {{0, 1.0}, {1, 0.805842187761482}, {16, 0.0316227766016838}, {21, 0.0107460782832132}, {32, 0.001}, {42, 0.000115478198468946}, {63, 1.24093776075172e-6}}},
    {"qwen3_next_80b", "full_attention", 0, 16, 2, 256, 0, 64, half, {}, 10000000.0, 1.0, 0.0625, 262144,
     {{0, 1.0}, {1, 0.604296390238133}, {8, 0.0177827941003892}, {10, 0.00649381631576211}, {16, 0.000316227766016838}, {21, 2.54829674797935e-5}, {31, 1.65481709994318e-7}}},
    {"glm4_5", "all", 0, 96, 8, 128, 0, 64, half, {}, 1000000.0, 1.0, 0.0883883476483184, 131072,
     {{0, 1.0}, {1, 0.649381631576211}, {8, 0.0316227766016838}, {10, 0.0133352143216332}, {16, 0.001}, {21, 0.000115478198468946}, {31, 1.53992652605949e-6}}},
    {"deepseek_v3_2", "all", 0, 128, 128, 192, 128, 64, adjacent, half, 10000.0, 1.0, 0.13523377886088, 163840,
     {{0, 1.0}, {1, 0.749894209332456}, {8, 0.1}, {10, 0.0562341325190349}, {16, 0.0055}, {21, 0.00041499039849079}, {31, 3.33380358040831e-6}}},
    {"smollm3_3b", "full_attention", 0, 16, 4, 128, 0, 128, half, {}, 5000000.0, 1.0, 0.0883883476483184, 65536,
     {{0, 1.0}, {1, 0.785829980419635}, {16, 0.0211474252688113}, {21, 0.0063372445609004}, {32, 0.000447213595499958}, {42, 4.01606686246617e-5}, {63, 2.54507978803761e-7}}},
    {"phi4", "all", 0, 40, 10, 128, 0, 128, half, {}, 250000.0, 1.0, 0.0883883476483184, 16384,
     {{0, 1.0}, {1, 0.823487833938654}, {16, 0.0447213595499958}, {21, 0.0169356135343738}, {32, 0.002}, {42, 0.000286815005785665}, {63, 4.85738809384521e-6}}},
    {"mistral_small_24b", "all", 0, 32, 8, 128, 0, 128, half, {}, 100000000.0, 1.0, 0.0883883476483184, 32768,
     {{0, 1.0}, {1, 0.749894209332456}, {16, 0.01}, {21, 0.00237137370566166}, {32, 0.0001}, {42, 5.62341325190349e-6}, {63, 1.33352143216332e-8}}},
    {"olmo3_7b", "full_attention", 0, 32, 32, 128, 0, 128, half, {}, 500000.0, 1.20794415416798, 0.0883883476483184, 65536,
     {{0, 1.0}, {1, 0.814617233856545}, {16, 0.0376060309308639}, {21, 0.0114073403483535}, {32, 0.000395147907133659}, {42, 2.27489286018282e-5}, {63, 3.06892598891451e-7}}},
    {"olmo3_7b", "sliding_attention", 0, 32, 32, 128, 0, 128, half, {}, 500000.0, 1.0, 0.0883883476483184, 65536,
     {{0, 1.0}, {1, 0.814617233856545}, {16, 0.0376060309308639}, {21, 0.0134904198902267}, {32, 0.0014142135623731}, {42, 0.000181991428814625}, {63, 2.45514079113161e-6}}},
    {"falcon_h1_7b", "all", 0, 12, 2, 128, 0, 128, half, {}, 100000000000.0, 1.0, 0.0883883476483184, 262144,
     {{0, 1.0}, {1, 0.673170382414498}, {16, 0.00177827941003892}, {21, 0.00024582440689202}, {32, 3.16227766016838e-6}, {42, 6.04296390238133e-8}, {63, 1.48550801717277e-11}}},
    {"command_a_111b", "sliding_attention", 0, 96, 8, 128, 0, 128, adjacent, {}, 50000.0, 1.0, 0.0883883476483184, 131072,
     {{0, 1.0}, {1, 0.844459048688527}, {16, 0.0668740304976422}, {21, 0.028717753759651}, {32, 0.00447213595499958}, {42, 0.000824709380999951}, {63, 2.36838009268308e-5}}},
    {"falcon_7b", "all", 0, 71, 1, 64, 0, 64, half, {}, 10000.0, 1.0, 0.125, 0,
     {{0, 1.0}, {1, 0.749894209332456}, {8, 0.1}, {10, 0.0562341325190349}, {16, 0.01}, {21, 0.00237137370566166}, {31, 0.000133352143216332}}},
};
// clang-format on

/// A configuration of one layer kind, without anything that the test is not about.
json llama(const json& more = json::object()) {
  json config = {
      {"model_type", "llama"}, {"head_dim", 64}, {"num_attention_heads", 4}, {"max_position_embeddings", 4096}};
  config.update(more);
  return config;
}

}  // namespace

TEST_CASE("Models that rotate resolve to their published values", "[config]") {
  for (const Expected& expected : rope_models) {
    INFO(expected.model << ", " << expected.kind << ", " << expected.num_tokens << " tokens");
    const posenc::ModelEncoding model = resolved(expected.model);
    CHECK(model.family() == posenc::EncodingFamily::rope);
    CHECK(model.num_heads == expected.num_heads);
    CHECK(model.num_kv_heads == expected.num_kv_heads);
    CHECK(model.head_dim == expected.head_dim);
    CHECK(model.max_positions == expected.max_positions);
    CHECK_THAT(model.softmax_scale, WithinRel(expected.softmax_scale, 1e-13));

    const posenc::ModelRope& rope = model.rope(expected.kind);
    CHECK(rope.options.head_dim == expected.head_dim);
    CHECK(rope.options.rotary_offset == expected.rotary_offset);
    CHECK(rope.options.rotary_dim == expected.rotary_dim);
    CHECK(rope.options.layout == expected.layout);
    CHECK(rope.options.output_layout == expected.output_layout);
    CHECK(rope.options.base == expected.base);
    const posenc::RopeFrequencies frequencies = rope.frequencies(expected.num_tokens);
    REQUIRE(frequencies.size() == expected.rotary_dim / 2);
    CHECK_THAT(frequencies.magnitude, WithinRel(expected.magnitude, 1e-13));
    for (const Frequency& frequency : expected.frequencies) {
      INFO("pair " << frequency.pair);
      CHECK_THAT(frequencies.values[frequency.pair], WithinRel(frequency.value, 1e-13));
    }
    CHECK(rope.rope(expected.num_tokens).rotary_dim() == expected.rotary_dim);
  }
}

TEST_CASE("Windows, chunks and layers that do not rotate", "[config]") {
  SECTION("Gemma 3: five with a window, one without") {
    for (const char* name : {"gemma3_4b", "gemma3_4b_nested"}) {
      const posenc::ModelEncoding model = resolved(name);
      REQUIRE(model.num_layers == 34);
      for (Index l = 0; l < 34; ++l) {
        const bool full = l % 6 == 5;
        CHECK(model.layer(l).name == (full ? "full_attention" : "sliding_attention"));
        CHECK(model.layer(l).window == (full ? std::nullopt : std::optional<Index>(1024)));
      }
      CHECK_THROWS_AS(model.layer(34), std::out_of_range);
      CHECK_THROWS_AS(model.layer(-1), std::out_of_range);
    }
  }
  SECTION("Gemma 2 and gpt-oss: every other layer") {
    const posenc::ModelEncoding gemma = resolved("gemma2_27b"), gpt = resolved("gpt_oss_20b");
    for (Index l = 0; l < 24; ++l) {
      CHECK(gemma.layer(l).window.value_or(0) == (l % 2 == 0 ? 4096 : 0));
      CHECK(gpt.layer(l).window.value_or(0) == (l % 2 == 0 ? 128 : 0));
    }
  }
  SECTION("Mistral and Phi-3: all layers, or none") {
    CHECK(resolved("mistral_7b").layer(0).window == 4096);
    CHECK(resolved("mistral_7b").layer(31).window == 4096);
    CHECK(resolved("phi3_mini_4k").layer(0).window == 2047);
    CHECK_FALSE(resolved("mixtral_8x7b").layer(0).window);
    CHECK_FALSE(resolved("qwen2_5_7b_yarn").layer(0).window);
  }
  SECTION("Qwen with a window: from a layer on") {
    json config = json::parse(read("configs/qwen2_5_7b_yarn.json"));
    config["use_sliding_window"] = true;
    config["max_window_layers"] = 21;
    const posenc::ModelEncoding model = posenc::from_config(config);
    CHECK_FALSE(model.layer(20).window);
    CHECK(model.layer(21).window == 131072);
  }
  SECTION("Llama 4: every fourth layer sees all, does not rotate, and has a temperature") {
    const posenc::ModelEncoding model = resolved("llama4_scout");
    for (Index l = 0; l < 48; ++l) {
      const posenc::LayerKind& layer = model.layer(l);
      const bool still = l % 4 == 3;
      CHECK(std::holds_alternative<posenc::NoEncoding>(layer.encoding) == still);
      CHECK(layer.chunk == (still ? std::nullopt : std::optional<Index>(8192)));
      CHECK(layer.temperature.has_value() == still);
    }
    CHECK(model.layer(3).temperature->factor(8190) == 1);
    CHECK_THAT(model.layer(3).temperature->factor(8191), WithinRel(1 + 0.1 * std::log(2.0), 1e-14));
  }
  SECTION("Ministral 3: a temperature in every layer") {
    const posenc::ModelEncoding model = resolved("ministral3_8b");
    REQUIRE(model.kind("all").temperature);
    CHECK(model.kind("all").temperature->factor(16383) == 1);
    CHECK_THAT(model.kind("all").temperature->factor(16384), WithinRel(1 + 0.1 * std::log(2.0), 1e-14));
  }
  SECTION("Cohere 2: layers without a window do not rotate") {
    const posenc::ModelEncoding model = resolved("command_r7b");
    CHECK(model.layer(2).window == 4096);
    CHECK(std::holds_alternative<posenc::ModelRope>(model.layer(2).encoding));
    CHECK_FALSE(model.layer(3).window);
    CHECK(std::holds_alternative<posenc::NoEncoding>(model.layer(3).encoding));
    CHECK_THROWS_AS(model.rope("full_attention"), std::invalid_argument);
  }
  SECTION("SmolLM3: every fourth layer does not rotate") {
    const posenc::ModelEncoding model = resolved("smollm3_3b");
    for (Index l = 0; l < 36; ++l)
      CHECK(std::holds_alternative<posenc::NoEncoding>(model.layer(l).encoding) == (l % 4 == 3));
  }
  SECTION("OLMo 3: layers with a window are not stretched") {
    const posenc::ModelEncoding model = resolved("olmo3_7b");
    CHECK(model.layer(2).window == 4096);
    CHECK(std::holds_alternative<posenc::PlainRope>(model.rope("sliding_attention").scaling));
    CHECK_FALSE(model.layer(3).window);
    CHECK(std::holds_alternative<posenc::YarnOptions>(model.rope("full_attention").scaling));
    // spelt out for each, it is what it says
    json config = json::parse(read("configs/olmo3_7b.json"));
    const json yarn = config["rope_scaling"];
    config.erase("rope_scaling");
    config["rope_parameters"] = {{"sliding_attention", {{"rope_type", "linear"}, {"factor", 2}}},
                                 {"full_attention", yarn}};
    CHECK(std::holds_alternative<posenc::LinearRope>(posenc::from_config(config).rope("sliding_attention").scaling));
  }
  SECTION("Qwen3-Next and Granite 4: layers that are no attention") {
    const posenc::ModelEncoding qwen = resolved("qwen3_next_80b"), granite = resolved("granite4_h_small");
    for (Index l = 0; l < 48; ++l) {
      CHECK(qwen.layer(l).name == (l % 4 == 3 ? "full_attention" : "linear_attention"));
      CHECK(std::holds_alternative<posenc::ModelRope>(qwen.layer(l).encoding) == (l % 4 == 3));
    }
    CHECK(granite.family() == posenc::EncodingFamily::none);
    CHECK(granite.softmax_scale == 0.0078125);
    CHECK(granite.layer(5).name == "attention");
    CHECK(granite.layer(6).name == "mamba");

    json config = json::parse(read("configs/granite4_h_small.json"));
    config["position_embedding_type"] = "rope";
    const posenc::ModelEncoding rotating = posenc::from_config(config);
    CHECK(std::holds_alternative<posenc::ModelRope>(rotating.layer(5).encoding));
    CHECK(std::holds_alternative<posenc::NoEncoding>(rotating.layer(6).encoding));
  }
  SECTION("DeepSeek-V3.2: the heads that choose keys turn their first features, as halves") {
    const posenc::ModelEncoding model = resolved("deepseek_v3_2");
    CHECK(model.layer(60).name == "all");
    const posenc::ModelRope& indexer = model.rope("indexer");
    CHECK(indexer.options.head_dim == 128);
    CHECK(indexer.options.rotary_offset == 0);
    CHECK(indexer.options.rotary_dim == 64);
    CHECK(indexer.options.layout == half);
    CHECK_FALSE(indexer.options.output_layout);
    CHECK(indexer.frequencies().values == model.rope().frequencies().values);
    CHECK(indexer.rope().head_dim() == 128);
  }
  SECTION("no_rope_layers spelt out") {
    const posenc::ModelEncoding model = posenc::from_config(json{{"model_type", "smollm3"},
                                                                 {"head_dim", 64},
                                                                 {"num_attention_heads", 4},
                                                                 {"num_hidden_layers", 3},
                                                                 {"no_rope_layers", {1, 0, 1}},
                                                                 {"rope_theta", 5e6}});
    CHECK(std::holds_alternative<posenc::ModelRope>(model.layer(0).encoding));
    CHECK(std::holds_alternative<posenc::NoEncoding>(model.layer(1).encoding));
    CHECK(model.layer(1).name == "full_attention without rope");
  }
}

TEST_CASE("Flags that say what the model_type says already", "[config]") {
  for (const json& flags :
       {json{{"use_mrope", false}}, json{{"rope_interleaved", false}}, json{{"scale_attn_weights", true}},
        json{{"use_sliding_window", false}, {"sliding_window", 4096}, {"max_window_layers", 2}}}) {
    INFO(flags.dump());
    const posenc::ModelEncoding model = posenc::from_config(llama(flags));
    CHECK(model.rope().frequencies().values == posenc::from_config(llama()).rope().frequencies().values);
    CHECK_FALSE(model.kind("all").window);
  }
}

TEST_CASE("Gemma 3: what its published files leave out is as in its code", "[config]") {
  json config = json::parse(read("configs/gemma3_4b.json"));
  const std::string all = [&] {
    std::ostringstream text;
    text << posenc::from_config(config);
    return text.str();
  }();
  for (const char* field : {"head_dim", "max_position_embeddings", "num_attention_heads", "num_key_value_heads",
                            "query_pre_attn_scalar", "rope_local_base_freq", "rope_theta", "sliding_window_pattern"}) {
    REQUIRE(config["text_config"].contains(field));
    config["text_config"].erase(field);
    std::ostringstream text;
    text << posenc::from_config(config);
    CHECK(text.str() == all);
  }
}

TEST_CASE("M-RoPE", "[config]") {
  const std::vector<Index> chunks = resolved("qwen2_vl_7b").rope().axes;
  REQUIRE(chunks.size() == 64);
  for (std::size_t i = 0; i < 64; ++i) CHECK(chunks[i] == (i < 16 ? 0 : i < 40 ? 1 : 2));
  const std::vector<Index> interleaved = resolved("qwen3_vl_8b").rope().axes;
  REQUIRE(interleaved.size() == 64);
  for (std::size_t i = 0; i < 64; ++i) CHECK(interleaved[i] == (i < 60 ? static_cast<Index>(i % 3) : 0));

  // with YaRN, as the model card of Qwen2.5-VL has it
  json config = json::parse(read("configs/qwen2_vl_7b.json"));
  config["model_type"] = "qwen2_5_vl";
  config["rope_scaling"] = {
      {"type", "yarn"}, {"mrope_section", {16, 24, 24}}, {"factor", 4}, {"original_max_position_embeddings", 32768}};
  const posenc::ModelEncoding model = posenc::from_config(config);
  CHECK(model.rope().axes == chunks);
  CHECK_THAT(model.rope().frequencies().magnitude, WithinRel(1.138629436111989, 1e-14));
}

TEST_CASE("Models with linear biases", "[config]") {
  SECTION("Bloom: 112 heads, not a power of two") {
    const posenc::ModelEncoding model = resolved("bloom_176b");
    CHECK(model.family() == posenc::EncodingFamily::alibi);
    CHECK(model.head_dim == 128);
    const posenc::Vector<double>& slopes = model.alibi().slopes;
    REQUIRE(slopes.size() == 112);
    CHECK_THAT(slopes[0], WithinRel(std::exp2(-1.0 / 8), 1e-14));  // 2^(-8/64)
    CHECK_THAT(slopes[63], WithinRel(1.0 / 256, 1e-14));
    CHECK_THAT(slopes[64], WithinRel(std::exp2(-1.0 / 16), 1e-14));
    CHECK_THAT(slopes[111], WithinRel(std::exp2(-95.0 / 16), 1e-14));
    CHECK(model.alibi().alibi().num_heads() == 112);
  }
  SECTION("MPT") {
    const posenc::ModelEncoding model = resolved("mpt_7b");
    CHECK(model.max_positions == 2048);
    for (Index h = 0; h < 32; ++h)
      CHECK_THAT(model.alibi().slopes[h], WithinRel(std::exp2(-static_cast<double>(h + 1) / 4), 1e-14));

    json config = json::parse(read("configs/mpt_7b.json"));
    config["attn_config"]["alibi_bias_max"] = 16;
    config["attn_config"]["softmax_scale"] = 0.5;
    const posenc::ModelEncoding other = posenc::from_config(config);
    CHECK_THAT(other.alibi().slopes[0], WithinRel(std::exp2(-0.5), 1e-14));
    CHECK(other.softmax_scale == 0.5);

    config["attn_config"]["alibi"] = false;
    config["attn_config"].erase("alibi_bias_max");
    CHECK(posenc::from_config(config).family() == posenc::EncodingFamily::learned);
  }
  SECTION("Falcon: the bias is scaled as the scores are") {
    const posenc::ModelEncoding model = resolved("falcon_rw_1b");
    CHECK(model.num_kv_heads == 32);
    CHECK(model.softmax_scale == 0.125);
    for (Index h = 0; h < 32; ++h)
      CHECK_THAT(model.alibi().slopes[h], WithinRel(std::exp2(-static_cast<double>(h + 1) / 4) / 8, 1e-14));
  }
}

TEST_CASE("T5: buckets, and scores that are not scaled", "[config]") {
  const posenc::ModelEncoding model = resolved("t5_small");
  CHECK(model.family() == posenc::EncodingFamily::relative_buckets);
  CHECK(model.softmax_scale == 1);
  CHECK(model.head_dim == 64);
  const auto& encoder = std::get<posenc::ModelBuckets>(model.kind("encoder").encoding);
  const auto& decoder = std::get<posenc::ModelBuckets>(model.kind("decoder").encoding);
  CHECK(encoder.bidirectional);
  CHECK_FALSE(decoder.bidirectional);
  CHECK(encoder.num_buckets == 32);
  CHECK(decoder.max_distance == 128);
}

TEST_CASE("Tables that are added to the input", "[config]") {
  struct Table {
    const char* model;
    Index dim, num_columns, max_positions;
    std::int64_t offset;
  };
  for (const Table& expected : {Table{"gpt2", 768, 1024, 1024, 0},
                                {"bert_base", 768, 512, 512, 0},
                                {"roberta_base", 768, 514, 512, 2},
                                {"opt_1_3b", 2048, 2050, 2048, 2},
                                {"bart_large", 1024, 1026, 1024, 2},
                                {"gpt_neo_1_3b", 2048, 2048, 2048, 0}}) {
    INFO(expected.model);
    const posenc::ModelEncoding model = resolved(expected.model);
    CHECK(model.family() == posenc::EncodingFamily::learned);
    const auto& learned = std::get<posenc::ModelLearned>(model.input);
    CHECK(learned.dim == expected.dim);
    CHECK(learned.num_columns == expected.num_columns);
    CHECK(learned.options.offset == expected.offset);
    CHECK(model.max_positions == expected.max_positions);
  }
  const posenc::ModelEncoding neo = resolved("gpt_neo_1_3b");
  CHECK(neo.softmax_scale == 1);
  CHECK_FALSE(neo.layer(0).window);
  CHECK(neo.layer(1).window == 256);
  CHECK(resolved("gpt2").softmax_scale == 0.125);

  const auto marian = std::get<posenc::SinusoidalOptions>(resolved("opus_mt_en_de").input);
  CHECK(marian.layout == posenc::SinusoidalLayout::sin_cos);
  CHECK(marian.exponent == posenc::SinusoidalExponent::two_i_over_dim);
  CHECK(marian.dim == 512);
  const auto m2m = std::get<posenc::SinusoidalOptions>(resolved("m2m_100_418m").input);
  CHECK(m2m.exponent == posenc::SinusoidalExponent::i_over_half_dim_minus_one);
  CHECK(m2m.first_position == 2);
  CHECK(m2m.zero_position == 1);
}

TEST_CASE("Old and new spelling are the same", "[config]") {
  const json old = llama(
      {{"rope_theta", 5e5}, {"rope_scaling", {{"type", "linear"}, {"factor", 2.0}}}, {"partial_rotary_factor", 0.5}});
  const json now =
      llama({{"rope_parameters",
              {{"rope_type", "linear"}, {"factor", 2}, {"rope_theta", 500000}, {"partial_rotary_factor", 0.5}}}});
  const json both = llama({{"rope_theta", 5e5},
                           {"rope_scaling", {{"type", "linear"}, {"factor", 2.0}}},
                           {"partial_rotary_factor", 0.5},
                           {"rope_parameters", {{"type", "linear"}, {"factor", 2.0}}}});
  const auto a = posenc::from_config(old), b = posenc::from_config(now), c = posenc::from_config(both);
  CHECK(a.rope().frequencies().values == b.rope().frequencies().values);
  CHECK(a.rope().frequencies().values == c.rope().frequencies().values);
  CHECK(a.rope().options.rotary_dim == 32);

  const std::vector<double> ones(32, 1.0), twos(32, 2.0);
  const auto longrope = [&](const json& type) {
    json scaling = {{"short_factor", ones}, {"long_factor", twos}, {"original_max_position_embeddings", 1024}};
    scaling.update(type);
    return posenc::from_config(llama({{"rope_scaling", scaling}})).rope().frequencies(1025).values;
  };
  CHECK(longrope({{"type", "su"}}) == longrope({{"rope_type", "longrope"}}));
  CHECK(longrope({{"type", "su"}, {"rope_type", "longrope"}}) == longrope({{"rope_type", "longrope"}}));
}

TEST_CASE("hidden_size need not be head_dim times heads", "[config]") {
  CHECK(posenc::from_config(llama({{"hidden_size", 1000}})).head_dim == 64);
  json config = llama({{"hidden_size", 512}});
  config.erase("head_dim");
  CHECK(posenc::from_config(config).head_dim == 128);
}

TEST_CASE("Truncation as in Python", "[config]") {
  // int(0.29 * 100) is 28
  CHECK(posenc::from_config(llama({{"head_dim", 100}, {"partial_rotary_factor", 0.29}})).rope().options.rotary_dim ==
        28);
}

TEST_CASE("A model that is not known is read as Llama, if the layout is given", "[config]") {
  const json config = {{"model_type", "novel"}, {"head_dim", 8}, {"num_attention_heads", 2}};
  CHECK_THROWS_AS(posenc::from_config(config), std::invalid_argument);
  CHECK(posenc::from_config(config, {.layout = adjacent}).rope().options.layout == adjacent);
  CHECK(posenc::from_config(config, {.layout = half}).rope().options.layout == half);
}

TEST_CASE("The result prints itself", "[config]") {
  std::ostringstream text;
  text << posenc::from_config(read("configs/deepseek_v3.json"));
  for (const char* part :
       {"deepseek_v3: RoPE", "heads           128", "head_dim 192", "softmax scale   0.135233", "yarn, factor 40",
        "rotary features 128 to 191 of 192, interleaved, written half_split", "magnitude       1\n",
        "pair    rad per token      tokens a turn", "0                1           6.283185\n"})
    CHECK_THAT(text.str(), Catch::Matchers::ContainsSubstring(part));

  std::ostringstream phi;
  phi << resolved("phi3_5_mini_128k");
  CHECK_THAT(phi.str(), Catch::Matchers::ContainsSubstring("of 131072 tokens"));
  for (const char* model : {"bloom_176b", "t5_small", "gpt2", "opus_mt_en_de", "llama4_scout", "qwen2_vl_7b"}) {
    std::ostringstream other;
    other << std::hex << resolved(model);
    CHECK_FALSE(other.str().empty());
  }
}

// Every dictionary in the golden files of rope types, as its file spells it.
TEST_CASE("The rope dictionaries of the golden files resolve", "[config][golden]") {
  int cases = 0;
  for (const char* file : {"rope_scaling_hf", "rope_scaling_hf_2", "rope_scaling_hf_v4"}) {
    const json golden = json::parse(read(std::string("golden/") + file + ".json"));
    const json& arrays = golden.at("arrays");
    for (const json& entry : golden.at("params").at("cases")) {
      const auto name = entry.at("name").get<std::string>();
      INFO(file << ", " << name);
      json config = {{"model_type", "llama"}, {"num_attention_heads", 1}};
      for (const char* key : {"head_dim", "max_position_embeddings", "rope_theta", "rope_parameters", "rope_scaling",
                              "original_max_position_embeddings"})
        if (entry.contains(key)) config[key] = entry[key];
      const posenc::ModelRope rope = posenc::from_config(config).rope();

      const auto compare = [&](const std::string& array, const posenc::RopeFrequencies& frequencies) {
        const auto values = arrays.at(name + "/" + array + "inv_freq").at("data").get<std::vector<double>>();
        REQUIRE(frequencies.size() == static_cast<Index>(values.size()));
        for (Index i = 0; i < frequencies.size(); ++i)
          CHECK(std::abs(frequencies.values[i] - values[static_cast<std::size_t>(i)]) <=
                5e-6 * std::abs(values[static_cast<std::size_t>(i)]));
        ++cases;
      };
      const auto length_of = [&](const std::string& array) {
        const auto positions = arrays.at(name + "/" + array).at("data").get<std::vector<Index>>();
        return *std::max_element(positions.begin(), positions.end()) + 1;
      };
      if (!entry.contains("n_calls")) {
        Index length = entry.value("seq_len", Index{0});
        if (length == 0 && arrays.contains(name + "/position_ids")) length = length_of("position_ids");
        const posenc::RopeFrequencies frequencies = rope.frequencies(length);
        compare("", frequencies);
        if (arrays.contains(name + "/attention_scaling")) {
          const json& magnitude = arrays[name + "/attention_scaling"]["data"];
          CHECK_THAT(frequencies.magnitude,
                     WithinRel((magnitude.is_array() ? magnitude[0] : magnitude).get<double>(), 1e-6));
        }
        continue;
      }
      if (entry.contains("attention_scaling"))
        CHECK_THAT(rope.frequencies().magnitude, WithinRel(entry["attention_scaling"].get<double>(), 1e-6));
      // The module of the peer remembers its longest length, until a sequence is as short as in training.
      const Index trained = entry.at("max_position_embeddings");
      Index remembered = trained;
      for (int call = 0; call < entry["n_calls"].get<int>(); ++call) {
        const std::string prefix = "call" + std::to_string(call) + "_";
        const Index length = length_of(prefix + "position_ids");
        remembered = length < trained ? trained : std::max(remembered, length);
        compare(prefix, rope.frequencies(std::holds_alternative<posenc::DynamicNtkOptions>(rope.scaling) ? remembered
                                                                                                         : length));
      }
    }
  }
  CHECK(cases > 60);
}
