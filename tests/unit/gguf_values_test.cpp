// SPDX-License-Identifier: MIT

#include <posenc/gguf_values.hpp>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "../catch.hpp"

using posenc::GgufLookup;
using posenc::GgufOptions;
using posenc::GgufValue;

TEST_CASE("A lookup gives a value with its type, or nothing", "[gguf]") {
  const std::map<std::string, GgufValue> file{{"whole", std::int64_t{131072}},
                                              {"real", 1e6},
                                              {"flag", true},
                                              {"text", std::string("llama")},
                                              {"list", std::vector<double>{16, 24, 24}}};
  const GgufLookup lookup = [&](const std::string& key) -> std::optional<GgufValue> {
    const auto found = file.find(key);
    return found == file.end() ? std::nullopt : std::optional(found->second);
  };
  CHECK(std::get<std::int64_t>(lookup("whole").value()) == 131072);
  CHECK(std::get<double>(lookup("real").value()) == 1e6);
  CHECK(std::get<bool>(lookup("flag").value()));
  CHECK(std::get<std::string>(lookup("text").value()) == "llama");
  CHECK(std::get<std::vector<double>>(lookup("list").value()) == std::vector<double>{16, 24, 24});
  CHECK_FALSE(lookup("absent").has_value());
}

TEST_CASE("Without options a file has no tensors of its own and names no keys", "[gguf]") {
  const GgufOptions options;
  CHECK(options.rope_freqs.size() == 0);
  CHECK(options.rope_factors_short.size() == 0);
  CHECK(options.rope_factors_long.size() == 0);
  CHECK(options.keys.empty());
}
