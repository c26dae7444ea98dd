// SPDX-License-Identifier: MIT

// What every positional encoding does to attention, on a real text: a table to read, and pictures to look at.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <posenc/posenc.hpp>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "tour_attention_pictures.hpp"
#include "tour_encoding_pictures.hpp"
#include "tour_text.hpp"

namespace {

constexpr posenc::Index num_heads = 8, head_dim = 32, num_features = num_heads * head_dim;
constexpr posenc::Index table_size = 1024;  // positions of the learned table
constexpr int moved_by = 1000;              // positions
constexpr posenc::Index distances[] = {1, 8, 64};
constexpr posenc::Index num_map_words = 26;

/// What was found out about one encoding.
struct Finding {
  std::string name, remark;
  double change = 0;                       // of the output, relative, when the text is moved
  std::string refusal = {};                // or why it could not be moved
  posenc::Vector<double> weight_at = {};   // mean attention to the word i + 1 words before
  posenc::Matrix<float> first_words = {};  // attention among the first words, keys x queries
};

/// Runs multi-head attention on a text, with any encodings.
struct Study {
  posenc::Matrix<float> x;  // embeddings, features x tokens
  posenc::ProjectionWeights<float> weights;

  template <class... Encodings>
  Finding operator()(const std::string& name, const std::string& remark, const Encodings&... encodings) const {
    Finding finding{.name = name, .remark = remark};
    const posenc::MultiHeadAttention layer(weights, {.num_heads = num_heads}, encodings...);
    const posenc::Index num_tokens = x.cols();
    const auto here = posenc::positions(num_tokens), there = posenc::positions(num_tokens, moved_by);

    const posenc::Matrix<float> output = layer(x, here);
    try {
      finding.change = (layer(x, there) - output).norm() / output.norm();
    } catch (const std::out_of_range& error) {
      finding.refusal = error.what();
    }

    // Over the later half of the queries: all of them have so many words before them.
    const posenc::Matrix<float> attention = mean_of_heads(layer, num_tokens);
    finding.weight_at.resize(num_tokens / 2);
    for (posenc::Index i = 0; i < num_tokens / 2; ++i)
      finding.weight_at[i] = attention.diagonal(i + 1).tail(num_tokens - num_tokens / 2).cast<double>().mean();

    finding.first_words = mean_of_heads(layer, std::min(num_map_words, num_tokens));
    return finding;
  }

 private:
  /// The attention among the first tokens, keys x queries.
  template <class Layer>
  posenc::Matrix<float> mean_of_heads(const Layer& layer, posenc::Index num_tokens) const {
    posenc::Matrix<float> sum = posenc::Matrix<float>::Zero(num_tokens, num_tokens);
    for (posenc::Index head = 0; head < num_heads; ++head)
      sum += layer.weights(x.leftCols(num_tokens), posenc::positions(num_tokens), head);
    return sum / num_heads;
  }
};

std::vector<Finding> study_all(const Study& study, std::uint64_t seed) {
  const posenc::Sinusoidal sinusoidal({.dim = num_features});
  const auto learned = posenc::LearnedAbsolute<float>::normal(
      {.dim = num_features, .num_positions = std::max(table_size, study.x.cols()), .stddev = 0.7, .seed = seed});
  const posenc::ClippedRelative<float> clipped(tour::normal_numbers(head_dim, 2 * 8 + 1, seed + 4),
                                               tour::normal_numbers(head_dim, 2 * 8 + 1, seed + 5));
  const posenc::Rope half_split({.head_dim = head_dim, .layout = posenc::PairLayout::half_split});
  const posenc::Rope interleaved({.head_dim = head_dim, .layout = posenc::PairLayout::interleaved});
  const posenc::Alibi alibi(num_heads);
  const posenc::CausalMask causal;
  const posenc::SlidingWindow window({.left = 15, .right = 0});

  return {study("no encoding", "sees no order at all"),
          study("sinusoidal", "waves that tell where a word stands", sinusoidal),
          study("learned", "a vector a position, until they end", learned),
          study("clipped relative", "tells 8 words on each side apart", clipped),
          study("RoPE, half-split", "turns queries and keys with position", half_split),
          study("RoPE, interleaved", "the same with other pairs of features", interleaved),
          study("ALiBi", "each head fades at its own rate", alibi),
          study("causal mask", "hides what comes after", causal),
          study("sliding window", "hides all but the last 16 words", window),
          study("RoPE + ALiBi + window", "three in a stack", half_split, alibi, window)};
}

/// A path as seen from where the program was started.
std::string seen_from_here(const std::filesystem::path& path) {
  return std::filesystem::absolute(path)
      .lexically_normal()
      .lexically_proximate(std::filesystem::current_path())
      .string();
}

std::string join(const std::vector<std::string>& names) {
  std::string list;
  for (const std::string& name : names) list += (list.empty() ? "" : ", ") + name;
  return list;
}

void print(const std::vector<Finding>& findings, const std::vector<std::string>& words, const std::string& text) {
  std::vector<std::string> unmoved, moved, refused;
  for (const Finding& finding : findings)
    (!finding.refusal.empty() ? refused : finding.change < 1e-3 ? unmoved : moved).push_back(finding.name);
  std::printf("Moved by %d positions, the text looks the same to %zu of %zu encodings: they see distances at most.\n",
              moved_by, unmoved.size(), findings.size());
  if (!moved.empty()) std::printf("It looks different to: %s. ", join(moved).c_str());
  if (!refused.empty()) std::printf("It is out of range for: %s.", join(refused).c_str());
  std::printf("\n\n");

  std::string beginning;
  for (std::size_t i = 0; i < std::min<std::size_t>(words.size(), 10); ++i) beginning += words[i] + ' ';
  std::printf("text    %s\n        %zu words, %zu of them different: \"%s...\"\n", seen_from_here(text).c_str(),
              words.size(), std::set<std::string>(words.begin(), words.end()).size(), beginning.c_str());
  std::printf(
      "model   none that was trained: a word is a random vector, the same wherever it stands, half of it\n"
      "        common to all words; %d heads of %d features have random weights, equal for queries and\n"
      "        keys, so that like attends to like. What differs from line to line is the encoding.\n\n",
      static_cast<int>(num_heads), static_cast<int>(head_dim));

  std::printf(
      "                        attention to one word     output changes\n"
      "encoding                1 back  8 back  64 back   when moved      what it does\n");
  for (const Finding& finding : findings) {
    std::printf("%-22s", finding.name.c_str());
    for (const posenc::Index distance : distances)
      if (distance <= finding.weight_at.size())
        std::printf("%6.2f %%", 100 * finding.weight_at[distance - 1]);
      else
        std::printf("%8s", "-");
    if (finding.refusal.empty())
      std::printf("%12.2f %%", 100 * finding.change);
    else
      std::printf("%14s", "out of range");
    std::printf("  %s\n", finding.remark.c_str());
  }
  std::printf("(With an even share for every word, attention would be %.2f %%.)\n",
              100. / static_cast<double>(words.size()));
  for (const Finding& finding : findings)
    if (!finding.refusal.empty())
      std::printf("(The table of \"%s\" ends, and says so:\n %s)\n", finding.name.c_str(), finding.refusal.c_str());
}

void draw(const std::vector<Finding>& findings, std::vector<std::string> words, const std::filesystem::path& folder) {
  const tour::Gnuplot gnuplot(folder);
  const std::string shown_folder = seen_from_here(folder);
  if (gnuplot.is_installed())
    std::printf("\nPictures in %s\n", shown_folder.c_str());
  else
    std::printf(
        "\nGNUPLOT IS NOT INSTALLED, SO NO PICTURE IS DRAWN (Debian, Ubuntu: apt install gnuplot-nox).\n"
        "The scripts and their numbers are there; `gnuplot NAME.gp` draws one. They are in\n%s\n",
        shown_folder.c_str());
  std::fflush(stdout);
  const auto tell = [&](const std::string& name, const char* caption) {
    std::printf("  %-28s %s\n", (name + (gnuplot.is_installed() ? ".png" : ".gp")).c_str(), caption);
    return name;
  };

  tour::draw_sinusoidal_table(gnuplot, tell("1_sinusoidal_table", "the waves that are added, position by dimension"));
  tour::draw_sinusoidal_waves(gnuplot, tell("2_sinusoidal_waves", "dimensions 4 to 7 of such a table, 20 wide"));
  tour::draw_rope_decay(gnuplot, tell("3_rope_decay", "RoPE's score against distance, for three bases"));
  tour::draw_alibi(gnuplot, tell("4_alibi", "ALiBi's line of each head"));
  tour::draw_clipped_index(gnuplot, tell("5_clipped_relative", "which vector the clipped-relative encoding takes"));

  std::vector<tour::Decay> decays;
  std::vector<tour::AttentionMap> maps;
  for (const Finding& finding : findings) {
    if (finding.name == "RoPE, interleaved") continue;  // looks as half-split does
    decays.push_back({finding.name, finding.weight_at});
    maps.push_back({finding.name, finding.first_words});
  }
  tour::draw_decay(gnuplot, tell("6_attention_by_distance", "the table above, at every distance"), decays,
                   static_cast<posenc::Index>(words.size()));
  words.resize(std::min<std::size_t>(words.size(), num_map_words));
  tour::draw_attention_maps(gnuplot, tell("7_attention_maps", "who attends to whom among the first words"), maps,
                            words);
}

}  // namespace

int main(int argc, char** argv) {
  std::string text = POSENC_TOUR_TEXT;
  std::string out = (std::filesystem::path(argv[0]).parent_path() / "tour_pictures").string();
  std::size_t num_tokens = 512;
  std::uint64_t seed = 1;
  CLI::App app("What every positional encoding does to attention, on a text: a table, and pictures.");
  app.add_option("--text", text, "a text file of your own")->capture_default_str();
  app.add_option("--out", out, "folder of the pictures")->capture_default_str();
  app.add_option("--tokens", num_tokens, "words of the text to take")
      ->check(CLI::Range(8, 2048))
      ->capture_default_str();
  app.add_option("--seed", seed, "of the random vectors and weights")->capture_default_str();
  CLI11_PARSE(app, argc, argv);

  try {
    const std::vector<std::string> words = tour::read_words(text, num_tokens);
    if (words.size() < 8) throw std::runtime_error(text + " must be a text of at least 8 words");
    const Study study{tour::embed(words, num_features, seed), tour::random_weights(num_features, seed)};
    const std::vector<Finding> findings = study_all(study, seed);
    print(findings, words, text);
    draw(findings, words, out);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "tour: %s\n", error.what());
    return 1;
  }
}
