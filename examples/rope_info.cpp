// SPDX-License-Identifier: MIT

// What the config.json of a model says about positions, resolved, and a picture of its wavelengths against its context:
//
//   rope_info config.json                    of a model on Hugging Face
//   rope_info config.json --tokens 100000    frequencies for a sequence of that length
//   rope_info config.json --plot pictures    with gnuplot as well: pictures/wavelengths.png

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <exception>
#include <fstream>
#include <iostream>
#include <iterator>
#include <numbers>
#include <posenc/model_config.hpp>
#include <string>

#include "tour_gnuplot.hpp"

namespace {

using posenc::Index;

/// In tokens; infinite for a pair that stands still.
double wavelength(const posenc::RopeFrequencies& frequencies, Index pair) {
  return 2 * std::numbers::pi / std::abs(frequencies.values[pair]);
}

/// A pair is a bar as long as its wave, on a logarithmic scale, with the context as a line across:
///
///   pair  1         10        100       1k
///      0  =======                  :
///      9  =========================:===          turns less than once within the context
void draw(const posenc::RopeFrequencies& frequencies, Index context) {
  constexpr Index most_rows = 32;
  constexpr double columns_a_decade = 10;
  const auto column = [&](double tokens) {
    return static_cast<int>(std::lround(std::log10(tokens) * columns_a_decade));
  };

  double longest = static_cast<double>(context);
  for (Index i = 0; i < frequencies.size(); ++i)
    if (frequencies.values[i] != 0) longest = std::max(longest, wavelength(frequencies, i));
  const int decades = static_cast<int>(std::ceil(std::log10(longest)));
  const auto width = static_cast<std::size_t>(decades * static_cast<int>(columns_a_decade) + 1);

  std::string scale(width, ' ');
  for (int d = 0; d <= decades; ++d) {
    const std::string label = d < 3   ? std::to_string(static_cast<int>(std::pow(10, d)))
                              : d < 6 ? std::to_string(static_cast<int>(std::pow(10, d - 3))) + "k"
                                      : "1e" + std::to_string(d);
    scale.replace(static_cast<std::size_t>(d * static_cast<int>(columns_a_decade)), label.size(), label);
  }
  scale.erase(scale.find_last_not_of(' ') + 1);
  std::printf("   pair  %s\n", scale.c_str());

  const Index step = (frequencies.size() + most_rows - 1) / most_rows;
  for (Index i = 0; i < frequencies.size(); i += step) {
    std::string row(width, ' ');
    const bool still = frequencies.values[i] == 0;
    const int end = still ? static_cast<int>(width) - 1 : std::max(0, column(wavelength(frequencies, i)));
    std::fill(row.begin(), row.begin() + std::min<std::ptrdiff_t>(end + 1, static_cast<std::ptrdiff_t>(width)),
              still ? '.' : '=');
    bool beyond = still;
    if (context > 0) {
      row[static_cast<std::size_t>(column(static_cast<double>(context)))] = ':';
      beyond = still || wavelength(frequencies, i) > static_cast<double>(context);
    }
    if (still) row += "  stands still";
    if (beyond && !still) row += "  less than one turn";
    row.erase(row.find_last_not_of(' ') + 1);
    std::printf("%7td  %s\n", static_cast<std::ptrdiff_t>(i), row.c_str());
  }
}

void plot(const tour::Gnuplot& gnuplot, const posenc::ModelEncoding& model, Index num_tokens) {
  auto data = gnuplot.data("wavelengths");
  std::string curves;
  int block = 0;
  for (const posenc::LayerKind& kind : model.kinds) {
    const auto* rope = std::get_if<posenc::ModelRope>(&kind.encoding);
    if (rope == nullptr) continue;
    const auto frequencies = rope->frequencies(num_tokens);
    for (Index i = 0; i < frequencies.size(); ++i)
      if (frequencies.values[i] != 0) data << i << ' ' << wavelength(frequencies, i) << '\n';
    data << "\n\n";
    curves += (block == 0 ? "" : ", ") + ("data index " + std::to_string(block)) +
              " with linespoints title \"layers: " + kind.name + "\" noenhanced";
    ++block;
  }
  data.close();
  std::string script = "set logscale y\nset xlabel \"pair of features\"\nset ylabel \"tokens a turn\"\n";
  if (model.max_positions > 0)
    curves += ", " + std::to_string(model.max_positions) + " with lines dashtype 2 title \"context\"";
  gnuplot.draw("wavelengths", 900, script + "plot " + curves + "\n");
}

}  // namespace

int main(int argc, char** argv) try {
  CLI::App app("What a model's config.json says about positions, and its wavelengths against its context");
  std::string file, layout, folder;
  Index num_tokens = 0;
  app.add_option("config", file, "config.json of the model")->required();
  app.add_option("--tokens", num_tokens, "length of the sequence (default: the model's longest)")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--layout", layout, "how pairs lie in a model whose model_type is not known")
      ->check(CLI::IsMember({"half_split", "interleaved"}));
  app.add_option("--plot", folder, "draw with gnuplot into this folder");
  CLI11_PARSE(app, argc, argv);

  std::ifstream stream(file, std::ios::binary);
  if (!stream) throw std::runtime_error("cannot read " + file);
  const std::string text{std::istreambuf_iterator<char>(stream), {}};
  posenc::ConfigOptions options;
  if (!layout.empty())
    options.layout = layout == "interleaved" ? posenc::PairLayout::interleaved : posenc::PairLayout::half_split;
  const posenc::ModelEncoding model = posenc::from_config(text, options);
  std::cout << model;

  if (num_tokens == 0) num_tokens = model.max_positions;
  for (const posenc::LayerKind& kind : model.kinds) {
    const auto* rope = std::get_if<posenc::ModelRope>(&kind.encoding);
    if (rope == nullptr) continue;
    std::printf("\nTokens a turn, layers: %s", kind.name.c_str());
    if (num_tokens > 0) std::printf("    (: is at %td tokens)", static_cast<std::ptrdiff_t>(num_tokens));
    std::printf("\n\n");
    draw(rope->frequencies(num_tokens), num_tokens);
  }
  if (!folder.empty() && model.family() == posenc::EncodingFamily::rope) {
    const tour::Gnuplot gnuplot(folder);
    plot(gnuplot, model, num_tokens);
    std::printf("\n%s\n", (gnuplot.folder() / (gnuplot.is_installed() ? "wavelengths.png" : "wavelengths.gp")).c_str());
  }
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
