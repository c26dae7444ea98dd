// SPDX-License-Identifier: MIT

// Fuzzes the readers of configurations with libFuzzer, under the address and undefined behaviour sanitizers:
//
//   cd tests/fuzz
//   clang++ -std=c++20 -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all \
//     -I../../include -I/usr/include/eigen3 config_fuzz.cpp -o /tmp/config_fuzz
//   mkdir -p /tmp/found && /tmp/config_fuzz -max_total_time=600 -max_len=4096 -timeout=5 -malloc_limit_mb=64 \
//     -dict=config.dict /tmp/found corpus ../configs
//
// What it finds goes to /tmp/found; corpus/ and ../configs are only read. A new kind of input that is worth keeping goes
// to corpus/ by hand (named found_... if it is to be refused); CTest replays that folder without libFuzzer (tests/unit/config_corpus_test.cpp).

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "config_input.hpp"

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t max_size);

namespace {

using nlohmann::json;

/// Every object and list in a value, itself included.
void collect(json& value, std::vector<json*>& containers) {
  if (!value.is_structured()) return;
  containers.push_back(&value);
  for (json& entry : value) collect(entry, containers);
}

/// One field more, less or other.
void change(json& whole, std::mt19937& random) {
  static const char* const values[] = {"null",
                                       "true",
                                       "false",
                                       "0",
                                       "1",
                                       "2",
                                       "3",
                                       "4",
                                       "7",
                                       "8",
                                       "16",
                                       "64",
                                       "128",
                                       "-1",
                                       "0.5",
                                       "0.25",
                                       "1.5",
                                       "1e-9",
                                       "1e9",
                                       "1e30",
                                       "1e308",
                                       "4294967296",
                                       "1099511627776",
                                       "9223372036854775807",
                                       "\"yarn\"",
                                       "\"linear\"",
                                       "\"dynamic\"",
                                       "\"llama3\"",
                                       "\"su\"",
                                       "\"mrope\"",
                                       "\"proportional\"",
                                       "\"longrope\"",
                                       "\"default\"",
                                       "[1, 1, 1, 1]",
                                       "[1, 1, 2]",
                                       "[]",
                                       "{}",
                                       "[0, 1]",
                                       "\"none\""};
  static const char* const keys[] = {"factor",
                                     "rope_theta",
                                     "type",
                                     "rope_type",
                                     "head_dim",
                                     "partial_rotary_factor",
                                     "original_max_position_embeddings",
                                     "max_position_embeddings",
                                     "sliding_window",
                                     "layer_types",
                                     "attention_factor",
                                     "beta_fast",
                                     "beta_slow",
                                     "mscale",
                                     "mscale_all_dim",
                                     "truncate",
                                     "short_factor",
                                     "long_factor",
                                     "mrope_section",
                                     "rope_scaling",
                                     "rope_parameters",
                                     "num_hidden_layers",
                                     "hidden_size",
                                     "alibi"};
  const auto below = [&](std::size_t n) { return static_cast<std::size_t>(random() % n); };
  std::vector<json*> containers;
  collect(whole, containers);
  if (containers.empty()) return;
  json& container = *containers[below(containers.size())];
  const json value = json::parse(values[below(std::size(values))]);
  if (container.empty() || below(4) == 0) {
    if (container.is_object())
      container[keys[below(std::size(keys))]] = value;
    else
      container.push_back(value);
    return;
  }
  const auto entry = std::next(container.begin(), static_cast<std::ptrdiff_t>(below(container.size())));
  switch (below(4)) {
    case 0:
      container.erase(entry);
      break;
    case 1:
      if (entry->is_number()) {
        *entry = entry->get<double>() * (below(2) == 0 ? 0.5 : 2);
        break;
      }
      [[fallthrough]];
    default:
      *entry = value;
  }
}

}  // namespace

/// Half of the time a mutation of bytes; else one of the fields, so that what comes out is JSON still.
extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t max_size,
                                               unsigned int seed) {
  std::mt19937 random(seed);
  if (size < 10000 && random() % 2 == 0) {
    json whole = json::parse(data, data + size, nullptr, false);
    if (whole.is_object()) {
      for (auto times = 1 + random() % 3; times > 0; --times) change(whole, random);
      const std::string text = whole.dump(-1, ' ', false, json::error_handler_t::replace);
      if (text.size() <= max_size) {
        std::memcpy(data, text.data(), text.size());
        return text.size();
      }
    }
  }
  return LLVMFuzzerMutate(data, size, max_size);
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  config_fuzz::run({reinterpret_cast<const char*>(data), size});
  return 0;
}
