// SPDX-License-Identifier: MIT

// Replays the fuzzer's inputs without libFuzzer: those in tests/fuzz/corpus, and the configurations of real models.

#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>
#include <string>

#include "../catch.hpp"
#include "../fuzz/config_input.hpp"

namespace {

std::string read(const std::filesystem::path& path) {
  std::ifstream stream(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

const std::filesystem::path tests = POSENC_TESTS_DIR;

}  // namespace

TEST_CASE("Every input of the corpus resolves or is refused", "[config][gguf]") {
  const std::set<std::string> to_be_refused = {"bytes", "cut", "deep", "empty", "overflow", "twice"};
  int inputs = 0;
  for (const auto& entry : std::filesystem::directory_iterator(tests / "fuzz" / "corpus")) {
    const std::string name = entry.path().stem().string();
    INFO(name);
    CHECK(config_fuzz::run(read(entry.path())) == (to_be_refused.count(name) == 0 && name.substr(0, 6) != "found_"));
    ++inputs;
  }
  CHECK(inputs >= 30);
}

TEST_CASE("Every configuration of a real model resolves, and nothing that is cut out of it does harm", "[config]") {
  for (const auto& entry : std::filesystem::directory_iterator(tests / "configs")) {
    INFO(entry.path().stem().string());
    const std::string text = read(entry.path());
    CHECK(config_fuzz::run(text));
    for (std::size_t length = 0; length + 2 < text.size(); length += 1 + text.size() / 50)
      CHECK_FALSE(config_fuzz::run(text.substr(0, length)));
    // One field less at a time: resolves or is refused, and run() checks which.
    const nlohmann::json whole = nlohmann::json::parse(text);
    for (const auto& field : whole.items()) {
      nlohmann::json less = whole;
      less.erase(field.key());
      config_fuzz::run(less.dump());
    }
  }
}
