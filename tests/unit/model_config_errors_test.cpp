// SPDX-License-Identifier: MIT

// What is refused, and that the message names the field and what it holds.

#include <limits>
#include <nlohmann/json.hpp>
#include <posenc/model_config.hpp>
#include <stdexcept>
#include <string>

#include "../catch.hpp"

namespace {

using nlohmann::json;

std::string message_of(const std::string& text) {
  try {
    posenc::from_config(text);
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
  return "resolved";
}

std::string message_of(const json& config) {
  try {
    posenc::from_config(config);
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
  return "resolved";
}

struct Refused {
  const char* patch;    // laid over the configuration: null takes a field away
  const char* message;  // behind "posenc::config: "
};

/// Each patch alone must be refused with its message, and the configuration without one must resolve.
void check(const char* valid, std::initializer_list<Refused> cases) {
  REQUIRE(message_of(std::string(valid)) == "resolved");
  for (const Refused& refused : cases) {
    INFO(refused.patch);
    json config = json::parse(valid);
    config.merge_patch(json::parse(refused.patch));
    CHECK(message_of(config) == std::string("posenc::config: ") + refused.message);
  }
}

}  // namespace

TEST_CASE("Refused: fields of a model that rotates", "[config]") {
  check(
      R"({"model_type": "llama", "hidden_size": 512, "num_attention_heads": 8, "num_key_value_heads": 2,
            "max_position_embeddings": 4096, "rope_theta": 10000.0, "vocab_size": 32000})",
      {
          {R"({"model_type": null})", "model_type is missing: the encoding needs it"},
          {R"({"model_type": 7})", "model_type must be a string, got 7"},
          {R"({"model_type": "novel"})",
           "model_type is not known, got \"novel\" (ConfigOptions::layout reads it as a model like Llama)"},
          {R"({"num_attention_heads": null})", "num_attention_heads is missing: model_type llama needs it"},
          {R"({"num_attention_heads": 0})", "num_attention_heads must be at least 1, got 0"},
          {R"({"num_attention_heads": -8})", "num_attention_heads must be at least 1, got -8"},
          {R"({"num_attention_heads": 8.5})", "num_attention_heads must be a whole number, got 8.5"},
          {R"({"num_attention_heads": "8"})", "num_attention_heads must be a number, got \"8\""},
          {R"({"num_attention_heads": [8]})", "num_attention_heads must be a number, got a list of 1"},
          {R"({"num_attention_heads": true})", "num_attention_heads must be a number, got true"},
          {R"({"num_attention_heads": 1000000})", "num_attention_heads must be at most 16384, got 1000000"},
          {R"({"num_attention_heads": 7})", "hidden_size must be a multiple of num_attention_heads = 7, got 512"},
          {R"({"num_key_value_heads": 3})", "num_attention_heads must be a multiple of num_key_value_heads = 3, got 8"},
          {R"({"hidden_size": null})", "head_dim is missing: without hidden_size the encoding needs it"},
          {R"({"hidden_size": 9223372036854775807})", "hidden_size must be at most 67108864, got 9223372036854775807"},
          {R"({"hidden_size": 18446744073709551615})",
           "hidden_size must be at most 67108864, got 18446744073709551615"},
          {R"({"hidden_size": 67108864})", "head_dim must be at most 16384, got 8388608"},
          {R"({"head_dim": -64})", "head_dim must be at least 1, got -64"},
          {R"({"head_dim": 63})", "the number of rotary features must be even and positive, got 63 of 63"},
          {R"({"head_dim": 1})", "the number of rotary features must be even and positive, got 1 of 1"},
          {R"({"head_dim": 4294967296})", "head_dim must be at most 16384, got 4294967296"},
          {R"({"max_position_embeddings": 0})", "max_position_embeddings must be at least 1, got 0"},
          {R"({"max_position_embeddings": 1e300})",
           "max_position_embeddings must be at most 1099511627776, got 1e+300"},
          {R"({"rope_theta": 0})", "rope_theta must be positive, got 0"},
          {R"({"rope_theta": -10000.0})", "rope_theta must be positive, got -10000.0"},
          {R"({"rope_theta": 1})", "rope_theta must be above 1, got 1.0"},
          {R"({"rope_theta": 1e300})", "rope_theta must be at most 1e+30, got 1e+300"},
          {R"({"rope_theta": "10000"})", "rope_theta must be a number, got \"10000\""},
          {R"({"partial_rotary_factor": 1.5})", "partial_rotary_factor must be at most 1.0, got 1.5"},
          {R"({"partial_rotary_factor": 0.01})",
           "the number of rotary features must be even and positive, got 0 of 64"},
          {R"({"rotary_pct": 0.25})", "rotary_pct is not of model_type llama, got 0.25"},
          {R"({"rope_tetha": 5e5})", "rope_tetha is not known for model_type llama, got 500000.0"},
          {R"({"sliding_window": 4096})", "sliding_window is not known for model_type llama, got 4096"},
          {R"({"alibi": true})", "alibi is not known for model_type llama, got true"},
          {R"({"relative_attention_num_buckets": 32})",
           "relative_attention_num_buckets is not known for model_type llama, got 32"},
          {R"({"query_pre_attn_scalar": 256})", "query_pre_attn_scalar is not known for model_type llama, got 256"},
          {R"({"attn_temperature_tuning": true})",
           "attn_temperature_tuning is not known for model_type llama, got true"},
          {R"({"position_embedding_type": "alibi"})",
           "position_embedding_type contradicts model_type llama, got \"alibi\""},
          {R"({"original_max_position_embeddings": 8192})",
           "max_position_embeddings must be at least original_max_position_embeddings = 8192, got 4096"},
          {R"({"rope_scaling": 2.0})", "rope_scaling must be an object, got 2.0"},
          {R"({"rope_scaling": {"mrope_section": [8, 12, 12]}})",
           "rope_scaling.mrope_section is not a field of rope_type default, got a list of 3"},
          {R"({"rope_scaling": {"type": "mrope", "mrope_section": [8, 12, 12]}})",
           "rope_scaling.type is not of this model_type, got \"mrope\""},
          {R"({"rope_parameters": {"rope_theta": 500000.0}})",
           "rope_parameters.rope_theta contradicts the top level, which has 10000.0, got 500000.0"},
          {R"({"rope_parameters": {"full_attention": {}, "local": {}}})",
           "rope_parameters.local is not the type of a layer, got an object of 0 fields"},
          {R"({"rope_parameters": {"factor": 2}, "rope_scaling": {"factor": 3}})",
           "rope_scaling contradicts rope_parameters, got an object of 1 fields"},
          {R"({"layer_types": ["linear_attention"]})", "layer_types[0] is not known, got \"linear_attention\""},
          {R"({"layer_types": ["sliding_attention"]})", "sliding_window is missing: layer_types needs it"},
          {R"({"num_hidden_layers": 2, "layer_types": ["full_attention"]})",
           "layer_types must have num_hidden_layers = 2 entries, got a list of 1"},
          {R"({"global_head_dim": 512})", "global_head_dim is not known for model_type llama, got 512"},
          {R"({"use_mrope": true})", "use_mrope contradicts model_type llama, got true"},
          {R"({"rope_interleaved": true})", "rope_interleaved contradicts model_type llama, got true"},
          {R"({"scale_attn_weights": false})", "scale_attn_weights is not supported, got false"},
          {R"({"use_sliding_window": true})", "use_sliding_window is not supported, got true"},
          {R"({"dual_chunk_attention_config": {"chunk_size": 262144}})",
           "dual_chunk_attention_config is not known for model_type llama, got an object of 1 fields"},
          {R"({"text_config": {"model_type": "llama"}})",
           "max_position_embeddings is beside text_config, which has none, got 4096"},
          {R"({"text_config": {"model_type": "llama", "max_position_embeddings": 2048, "rope_theta": 10000}})",
           "max_position_embeddings contradicts text_config.max_position_embeddings = 2048, got 4096"},
      });
}

TEST_CASE("Refused: dictionaries of RoPE", "[config]") {
  const auto refused = [](const char* dictionary, const char* message) {
    json config = {{"model_type", "llama"},           {"head_dim", 8},
                   {"num_attention_heads", 1},        {"rope_theta", 10000.0},
                   {"max_position_embeddings", 4096}, {"rope_scaling", json::parse(dictionary)}};
    INFO(dictionary);
    CHECK(message_of(config) == std::string("posenc::config: ") + message);
  };
  refused(R"({"type": "linear", "factr": 8.0, "factor": 2})", "rope_scaling.factr is not known, got 8.0");
  refused(R"({"type": "linear"})", "rope_scaling.factor is missing: rope_type linear needs it");
  refused(R"({"type": "linear", "factor": null})", "rope_scaling.factor is missing: rope_type linear needs it");
  refused(R"({"type": "linear", "factor": 0.5})", "rope_scaling.factor must be at least 1.0, got 0.5");
  refused(R"({"type": "linear", "factor": -2})", "rope_scaling.factor must be at least 1.0, got -2");
  refused(R"({"type": "linear", "factor": 1e300})", "rope_scaling.factor must be at most 1000000000.0, got 1e+300");
  refused(R"({"type": "linear", "factor": [2]})", "rope_scaling.factor must be a number, got a list of 1");
  refused(R"({"type": "linear", "factor": 2, "beta_fast": 32})",
          "rope_scaling.beta_fast is not a field of rope_type linear, got 32");
  refused(R"({"factor": 2})", "rope_scaling.factor is not a field of rope_type default, got 2");
  refused(R"({"type": "ntk", "factor": 2})", "rope_scaling.type is not known, got \"ntk\"");
  refused(R"({"rope_type": 3})", "rope_scaling.rope_type must be a string, got 3");
  refused(R"({"type": "linear", "rope_type": "yarn", "factor": 2})",
          "rope_scaling.type contradicts rope_scaling.rope_type = \"yarn\", got \"linear\"");
  refused(R"({"type": "linear", "factor": 2, "rope_theta": 5e5})",
          "rope_scaling.rope_theta contradicts the top level, which has 10000.0, got 500000.0");
  refused(R"({"type": "linear", "factor": 2, "max_position_embeddings": 8192})",
          "rope_scaling.max_position_embeddings contradicts max_position_embeddings = 4096, got 8192");
  refused(R"({"type": "dynamic"})", "rope_scaling.factor is missing: rope_type dynamic needs it");
  refused(R"({"type": "dynamic", "factor": 2, "alpha": 1000})", "rope_scaling.alpha is not known, got 1000");
  refused(R"({"type": "dynamic", "factor": 2, "partial_rotary_factor": 0.25})",
          "rope_type dynamic needs at least 4 rotary features, got 2");
  refused(R"({"type": "yarn"})", "rope_scaling.factor is missing: rope_type yarn needs it");
  refused(R"({"type": "yarn", "factor": null, "original_max_position_embeddings": 8192})",
          "max_position_embeddings must be at least original_max_position_embeddings = 8192, got 4096");
  refused(R"({"type": "yarn", "factor": 4, "beta_fast": 0})", "rope_scaling.beta_fast must be positive, got 0");
  refused(R"({"type": "yarn", "factor": 4, "beta_fast": 1, "beta_slow": 2})",
          "rope_scaling.beta_fast must be at least beta_slow = 2.0, got 1.0");
  refused(R"({"type": "yarn", "factor": 4, "attention_factor": -1})",
          "rope_scaling.attention_factor must be positive, got -1");
  refused(R"({"type": "yarn", "factor": 4, "mscale": "1"})", "rope_scaling.mscale must be a number, got \"1\"");
  refused(R"({"type": "yarn", "factor": 4, "truncate": 0})", "rope_scaling.truncate must be true or false, got 0");
  refused(R"({"type": "yarn", "factor": 4, "finetuned": false})", "rope_scaling.finetuned is not supported, got false");
  refused(R"({"type": "yarn", "factor": 4, "original_max_position_embeddings": 0})",
          "rope_scaling.original_max_position_embeddings must be at least 1, got 0");
  refused(R"({"type": "yarn", "factor": 4, "llama_4_scaling_beta": 0.1})",
          "rope_scaling.llama_4_scaling_beta is not a field of rope_type yarn, got 0.1");
  refused(R"({"type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4})",
          "rope_scaling.original_max_position_embeddings is missing: rope_type llama3 needs it");
  refused(R"({"type": "llama3", "factor": 8, "high_freq_factor": 4, "original_max_position_embeddings": 1024})",
          "rope_scaling.low_freq_factor is missing: rope_type llama3 needs it");
  refused(R"({"type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 1,
              "original_max_position_embeddings": 1024})",
          "rope_scaling.high_freq_factor must be at least low_freq_factor = 4.0, got 1");
  refused(R"({"type": "longrope", "short_factor": [1, 1, 1, 1]})",
          "rope_scaling.long_factor is missing: rope_type longrope needs it");
  refused(R"({"type": "longrope", "short_factor": [1, 1, 1], "long_factor": [2, 2, 2, 2]})",
          "rope_scaling.short_factor must have 4 entries, one a pair of rotary features, got a list of 3");
  refused(R"({"type": "longrope", "short_factor": [1, 1, 0, 1], "long_factor": [2, 2, 2, 2]})",
          "rope_scaling.short_factor[2] must be positive and at most 1e9, got 0");
  refused(R"({"type": "longrope", "short_factor": [1, 1, 1, 1], "long_factor": [2, null, 2, 2]})",
          "rope_scaling.long_factor[1] must be a number, got null");
  refused(R"({"type": "longrope", "short_factor": "1", "long_factor": [2, 2, 2, 2]})",
          "rope_scaling.short_factor must be a list of numbers, got \"1\"");
  refused(R"({"type": "longrope", "short_factor": [1, 1, 1, 1], "long_factor": [2, 2, 2, 2],
              "original_max_position_embeddings": 8192})",
          "max_position_embeddings must be at least original_max_position_embeddings = 8192, got 4096");
  refused(R"({"type": "longrope", "short_factor": [1, 1, 1, 1], "long_factor": [2, 2, 2, 2],
              "original_max_position_embeddings": 2048, "short_mscale": 1.1, "long_mscale": 1.2})",
          "rope_scaling.long_mscale must be short_mscale = 1.1: two magnitudes are not supported");
  refused(R"({"type": "proportional", "factor": 0})", "rope_scaling.factor must be at least 1.0, got 0");
}

TEST_CASE("Refused: fields of single models", "[config]") {
  check(R"({"model_type": "qwen2_vl", "head_dim": 128, "num_attention_heads": 8, "rope_theta": 1e6,
            "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]}})",
        {
            {R"({"rope_theta": null})", "rope_theta is missing: this model_type has no usual one"},
            {R"({"rope_scaling": null})", "rope_scaling.mrope_section is missing: this model_type needs it"},
            {R"({"rope_scaling": {"mrope_section": null}})",
             "rope_scaling.mrope_section is missing: this model_type needs it"},
            {R"({"rope_scaling": {"mrope_section": [16, 24]}})",
             "rope_scaling.mrope_section must be a list of three numbers, got a list of 2"},
            {R"({"rope_scaling": {"mrope_section": [16, 24, 23]}})",
             "rope_scaling.mrope_section must add up to 64 pairs, got 63"},
            {R"({"rope_scaling": {"mrope_section": [16, 24, -1]}})",
             "rope_scaling.mrope_section[2] must be a whole number from 0 to 64, got -1"},
            {R"({"rope_scaling": {"mrope_interleaved": 1}})",
             "rope_scaling.mrope_interleaved must be true or false, got 1"},
            {R"({"use_sliding_window": true})", "sliding_window is missing: use_sliding_window needs it"},
        });
  check(
      R"({"model_type": "gemma3_text", "head_dim": 256, "num_attention_heads": 8, "num_hidden_layers": 6,
            "query_pre_attn_scalar": 256, "sliding_window": 1024})",
      {
          {R"({"sliding_window": null})", "sliding_window is missing: model_type gemma3_text needs it"},
          {R"({"num_hidden_layers": null})", "num_hidden_layers is missing: sliding_window_pattern needs it"},
          {R"({"sliding_window_pattern": 6, "_sliding_window_pattern": 5})",
           "_sliding_window_pattern contradicts sliding_window_pattern = 6, got 5"},
          {R"({"rope_local_base_freq": 1})", "rope_local_base_freq must be above 1, got 1.0"},
          {R"({"sliding_window_pattern": 3, "layer_types": ["sliding_attention", "sliding_attention",
                 "sliding_attention", "sliding_attention", "sliding_attention", "full_attention"]})",
           "layer_types contradicts sliding_window_pattern = 3"},
          {R"({"rope_parameters": {"full_attention": {"rope_theta": 1e6}}})",
           "rope_parameters.sliding_attention is missing: layer_types needs it"},
          {R"({"rope_parameters": {"full_attention": {"rope_type": "linear"}, "sliding_attention": {}}})",
           "rope_parameters.full_attention.factor is missing: rope_type linear needs it"},
          {R"({"rope_local_base_freq": 1e4, "rope_parameters": {"full_attention": {}, "sliding_attention": {"rope_theta": 2e4}}})",
           "rope_parameters.sliding_attention.rope_theta contradicts the top level, which has 10000.0, got 20000.0"},
      });
  check(R"({"model_type": "deepseek_v3", "num_attention_heads": 4, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64})",
        {
            {R"({"qk_rope_head_dim": null})", "qk_rope_head_dim is missing: model_type deepseek_v3 needs it"},
            {R"({"qk_head_dim": 128})", "qk_head_dim must be qk_nope_head_dim + qk_rope_head_dim = 192, got 128"},
            {R"({"head_dim": 128})", "head_dim must be qk_rope_head_dim = 64, got 128"},
            {R"({"rope_interleave": "yes"})", "rope_interleave must be true or false, got \"yes\""},
            {R"({"partial_rotary_factor": 0.5})", "partial_rotary_factor must be 1 beside qk_rope_head_dim, got 0.5"},
        });
  check(R"({"model_type": "gpt_neox", "hidden_size": 512, "num_attention_heads": 8, "rotary_pct": 0.25})",
        {
            {R"({"rotary_emb_base": 10000, "rope_theta": 20000})",
             "rotary_emb_base contradicts rope_theta = 20000, got 10000"},
            {R"({"partial_rotary_factor": 0.5})", "rotary_pct contradicts partial_rotary_factor = 0.5, got 0.25"},
        });
  check(R"({"model_type": "gptj", "n_embd": 4096, "n_head": 16, "rotary_dim": 64, "n_positions": 2048})",
        {
            {R"({"rotary_dim": null})", "rotary_dim is missing: model_type gptj needs it"},
            {R"({"rotary_dim": 63})", "the number of rotary features must be even and positive, got 63 of 256"},
            {R"({"rotary_dim": 512})", "rotary_dim must be at most the features of a head, 256, got 512"},
            {R"({"rotary": false})", "rotary is not supported, got false"},
            {R"({"n_ctx": 1024})", "n_ctx contradicts n_positions = 2048, got 1024"},
            {R"({"rope_scaling": {"type": "linear", "factor": 2}})",
             "rope_scaling is not known for model_type gptj, got an object of 2 fields"},
        });
  check(
      R"({"model_type": "llama4_text", "head_dim": 128, "num_attention_heads": 8, "num_hidden_layers": 4})",
      {
          {R"({"no_rope_layers": [1, 0]})", "no_rope_layers must have an entry for each of 4 layers, got a list of 2"},
          {R"({"no_rope_layers": [1, 1, 2, 1]})", "no_rope_layers[2] must be 0 or 1, got 2"},
          {R"({"no_rope_layers": 4})", "no_rope_layers must be a list with an entry a layer, got 4"},
          {R"({"attn_temperature_tuning": "on"})", "attn_temperature_tuning must be true or false, got \"on\""},
          {R"({"floor_scale": 0})", "floor_scale must be at least 1, got 0"},
      });
  check(R"({"model_type": "falcon", "alibi": true, "hidden_size": 512, "num_attention_heads": 8})",
        {
            {R"({"alibi": "yes"})", "alibi must be true or false, got \"yes\""},
            {R"({"rope_theta": 10000})", "rope_theta is not known for model_type falcon, got 10000"},
        });
  check(R"({"model_type": "bloom", "hidden_size": 512, "n_head": 8})",
        {
            {R"({"n_head": null})", "n_head is missing: model_type bloom needs it"},
            {R"({"n_embed": 1024})", "n_embed contradicts hidden_size = 512, got 1024"},
            {R"({"num_attention_heads": 16})", "num_attention_heads contradicts n_head = 8, got 16"},
        });
  check(R"({"model_type": "mpt", "d_model": 512, "n_heads": 8, "max_seq_len": 2048, "attn_config": {"alibi": true}})",
        {
            {R"({"attn_config": {"alibi_bias_max": 0}})", "attn_config.alibi_bias_max must be positive, got 0"},
            {R"({"attn_config": {"alibi_bias_mx": 8}})", "attn_config.alibi_bias_mx is not known, got 8"},
            {R"({"attn_config": {"rope": true}})", "attn_config.rope is not supported, got true"},
            {R"({"attn_config": 3})", "attn_config must be an object, got 3"},
            {R"({"max_seq_len": null})", "max_seq_len is missing: model_type mpt needs it"},
        });
  check(R"({"model_type": "t5", "d_kv": 64, "num_heads": 8})",
        {
            {R"({"relative_attention_num_buckets": 2})", "relative_attention_num_buckets must be at least 4, got 2"},
            {R"({"relative_attention_num_buckets": 33})", "relative_attention_num_buckets must be even, got 33"},
            {R"({"relative_attention_max_distance": 16})",
             "relative_attention_max_distance must be above half of relative_attention_num_buckets = 32, got 16"},
            {R"({"relative_attention_num_bucket": 32})",
             "relative_attention_num_bucket is not known for model_type t5, got 32"},
        });
  check(R"({"model_type": "bert", "hidden_size": 512, "num_attention_heads": 8, "max_position_embeddings": 512})",
        {
            {R"({"position_embedding_type": "relative_key"})",
             "position_embedding_type is not supported, got \"relative_key\""},
            {R"({"max_position_embeddings": null})", "max_position_embeddings is missing: model_type bert needs it"},
        });
  check(
      R"({"model_type": "gpt2", "n_embd": 768, "n_head": 12, "n_positions": 1024})",
      {{R"({"scale_attn_by_inverse_layer_idx": true})", "scale_attn_by_inverse_layer_idx is not supported, got true"}});
  check(R"({"model_type": "gpt_neo", "hidden_size": 512, "num_heads": 8, "max_position_embeddings": 2048,
            "attention_types": [[["global", "local"], 2]]})",
        {
            {R"({"attention_types": [[["global", "local"], 1e9]]})",
             "attention_types must be a list like [[[\"global\", \"local\"], 12]], got a list of 1"},
            {R"({"attention_types": [[["near"], 2]]})",
             "attention_types must be a list like [[[\"global\", \"local\"], 12]], got a list of 1"},
            {R"({"num_layers": 5})", "attention_types must make num_layers = 5 layers, got 4"},
        });
  check(R"({"model_type": "bart", "d_model": 512, "encoder_attention_heads": 8, "max_position_embeddings": 1024})",
        {
            {R"({"decoder_attention_heads": 4})", "decoder_attention_heads must be encoder_attention_heads = 8, got 4"},
            {R"({"static_position_embeddings": true})",
             "static_position_embeddings contradicts model_type bart, got true"},
        });
}

TEST_CASE("Refused: hostile text", "[config]") {
  const auto starts = [](const std::string& text, const std::string& message) {
    CHECK_THAT(message_of(text), Catch::Matchers::StartsWith("posenc::config: " + message));
  };
  starts("", "not JSON at byte ");
  starts("{", "not JSON at byte ");
  starts("nonsense", "not JSON at byte ");
  starts("{\"model_type\": \"llama\"} {}", "not JSON at byte ");
  starts("{\"rope_theta\": NaN}", "not JSON at byte ");
  starts("{\"rope_theta\": 1e400}", "not JSON at byte ");
  starts("{\"rope_theta\": -1e400}", "not JSON at byte ");
  starts("{\"model_type\": \"\xff\xfe\"}", "not JSON at byte ");
  starts("[]", "the configuration must be an object, got a list of 0");
  starts("null", "the configuration must be an object, got null");
  starts("3", "the configuration must be an object, got 3");
  starts("{}", "model_type is missing");
  starts(R"({"rope_theta": 1e4, "rope_theta": 5e5})", "\"rope_theta\" is given twice in one object");
  starts(R"({"rope_scaling": {"factor": 2, "factor": 4}})", "\"factor\" is given twice in one object");
  starts(std::string(100000, '['), "is nested deeper than 64 levels");
  starts(
      [] {
        std::string deep;
        for (int i = 0; i < 100000; ++i) deep += "{\"a\":";
        return deep;
      }(),
      "is nested deeper than 64 levels");
  starts(std::string(100'000'000, 'x'), "the text must be at most 16777216 bytes, got 100000000");
  starts("{\"model_type\": \"" + std::string(2'000'000, 'x') + "\"}", "model_type is not known, got \"xxxx");
  CHECK(message_of("\"" + std::string(2'000'000, 'x')).size() < 400);
  CHECK(message_of("{\"model_type\": \"" + std::string(2'000'000, 'x') + "\"}").size() < 400);
}

TEST_CASE("Refused: values that no text can hold", "[config]") {
  json config = {{"model_type", "llama"}, {"head_dim", 64}, {"num_attention_heads", 8}};
  config["rope_theta"] = std::numeric_limits<double>::quiet_NaN();
  CHECK(message_of(config) == "posenc::config: rope_theta must be finite, got nan");
  config["rope_theta"] = std::numeric_limits<double>::infinity();
  CHECK_THAT(message_of(config), Catch::Matchers::StartsWith("posenc::config: rope_theta must be finite"));
  config["rope_theta"] = "\xff\xfe";
  CHECK_THAT(message_of(config), Catch::Matchers::StartsWith("posenc::config: rope_theta must be a number"));
  config.erase("rope_theta");

  json deep;
  for (int i = 0; i < 1000; ++i) deep = json::array({std::move(deep)});
  config["architectures"] = std::move(deep);
  CHECK(message_of(config) == "posenc::config: is nested deeper than 64 levels");
}

TEST_CASE("A field that is null is not there", "[config]") {
  CHECK(message_of(std::string(R"({"model_type": "llama", "head_dim": 64, "num_attention_heads": 8, "alibi": null,
      "sliding_window": null, "rope_theta": null, "rope_scaling": {"rope_type": "default", "factor": null}})")) ==
        "resolved");
  CHECK(message_of(std::string(R"({"model_type": "llama", "head_dim": 64, "num_attention_heads": 8,
      "rope_scaling": {"factr": null}})")) == "posenc::config: rope_scaling.factr is not known, got null");
}

TEST_CASE("Fields of published configurations that have no effect", "[config]") {
  for (const char* text :
       {R"({"model_type": "bloom", "n_embed": 1024, "num_attention_heads": 16, "n_layer": 24, "offset_alibi": 100})",
        R"({"model_type": "smollm3", "hidden_size": 2048, "num_attention_heads": 16, "num_hidden_layers": 4,
            "max_window_layers": 28, "sliding_window": null, "use_sliding_window": false, "no_rope_layer_interval": 4})",
        R"({"model_type": "gemma2", "head_dim": 256, "num_attention_heads": 16, "num_hidden_layers": 42,
            "query_pre_attn_scalar": 256, "sliding_window": 4096, "sliding_window_size": 4096})",
        R"({"model_type": "llama", "hidden_size": 4096, "num_attention_heads": 32, "rope_scaling":
            {"type": "yarn", "factor": 16.0, "original_max_position_embeddings": 4096, "finetuned": true}})"})
    CHECK(message_of(std::string(text)) == "resolved");
}

TEST_CASE("What is not about positions is not looked at", "[config]") {
  CHECK(message_of(std::string(R"({"model_type": "llama", "head_dim": 64, "num_attention_heads": 8, "vocab_size": -1,
      "hidden_act": 7, "vision_config": {"rope_theta": "x"}, "torch_dtype": null, "id2label": {"0": "a"},
      "intermediate_size": 1e300, "chunk_size_feed_forward": 0, "temperature": 1.0, "num_local_experts": 8,
      "properties": 1, "europe": 2})")) == "resolved");
}

TEST_CASE("Refused: hybrid models, and windows to both sides", "[config]") {
  check(R"({"model_type": "granitemoehybrid", "head_dim": 64, "num_attention_heads": 8, "attention_multiplier": 0.125,
            "layer_types": ["mamba", "attention"], "position_embedding_type": "rope"})",
        {
            {R"({"position_embedding_type": null})",
             "position_embedding_type is missing: model_type granitemoehybrid needs it"},
            {R"({"position_embedding_type": "alibi"})",
             "position_embedding_type contradicts model_type granitemoehybrid, got \"alibi\""},
            {R"({"layer_types": null})", "layer_types is missing: model_type granitemoehybrid needs it"},
            {R"({"layer_types": ["mamba", "conv"]})", "layer_types[1] is not known, got \"conv\""},
        });
  check(R"({"model_type": "qwen3_next", "head_dim": 64, "num_attention_heads": 8, "rope_theta": 1e7,
            "num_hidden_layers": 4, "full_attention_interval": 4})",
        {
            {R"({"full_attention_interval": null})", "layer_types is missing: model_type qwen3_next needs it"},
            {R"({"num_hidden_layers": null})", "num_hidden_layers is missing: full_attention_interval needs it"},
            {R"({"layer_types": ["full_attention", "full_attention", "full_attention", "full_attention"]})",
             "layer_types contradicts full_attention_interval = 4"},
        });
  check(R"({"model_type": "deepseek_v32", "num_attention_heads": 8, "qk_nope_head_dim": 64, "qk_rope_head_dim": 32,
            "index_head_dim": 64})",
        {
            {R"({"index_head_dim": null})", "index_head_dim is missing: model_type deepseek_v32 needs it"},
            {R"({"index_head_dim": 16})", "index_head_dim must be at least qk_rope_head_dim = 32, got 16"},
        });
  check(R"({"model_type": "gemma3_text", "head_dim": 64, "num_attention_heads": 8, "num_hidden_layers": 6,
            "query_pre_attn_scalar": 64, "sliding_window": 512, "use_bidirectional_attention": false})",
        {
            {R"({"use_bidirectional_attention": true})", "use_bidirectional_attention is not supported, got true"},
        });
}

TEST_CASE("Refused: fields within text_config, by their whole path", "[config]") {
  check(
      R"({"model_type": "outer", "text_config": {"model_type": "llama", "hidden_size": 512, "num_attention_heads": 8,
            "num_key_value_heads": 2, "max_position_embeddings": 4096}})",
      {
          {R"({"text_config": {"model_type": "novel"}})",
           "text_config.model_type is not known, got \"novel\" (ConfigOptions::layout reads it as a model like Llama)"},
          {R"({"text_config": {"num_attention_heads": 7}})",
           "text_config.hidden_size must be a multiple of num_attention_heads = 7, got 512"},
          {R"({"text_config": {"num_key_value_heads": 3}})",
           "text_config.num_attention_heads must be a multiple of num_key_value_heads = 3, got 8"},
          {R"({"text_config": {"rope_theta": 1}})", "text_config.rope_theta must be above 1, got 1.0"},
          {R"({"text_config": {"original_max_position_embeddings": 8192}})",
           "text_config.max_position_embeddings must be at least original_max_position_embeddings = 8192, got 4096"},
          {R"({"text_config": {"max_position_embeddings": null, "rope_scaling": {"type": "dynamic", "factor": 2}}})",
           "text_config.max_position_embeddings is missing: rope_type dynamic needs it"},
          {R"({"text_config": {"rope_scaling": {"type": "yarn", "factor": 4, "beta": 32}}})",
           "text_config.rope_scaling.beta is not known, got 32"},
      });
}
