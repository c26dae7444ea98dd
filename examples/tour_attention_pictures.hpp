// SPDX-License-Identifier: MIT
#pragma once

// Pictures of what encodings do to attention on a text.

#include <algorithm>
#include <cmath>
#include <posenc/concepts.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "tour_gnuplot.hpp"

namespace tour {

/// Attention that is this small is none: a mask hides the key.
inline constexpr float masked = 1e-30f;

/// How one encoding makes attention fall: entry i of `weights` is the mean attention to a token i + 1 positions before.
struct Decay {
  std::string title;
  posenc::Vector<double> weights;
};

/// How attention falls with distance, a curve an encoding.
inline void draw_decay(const Gnuplot& gnuplot, const std::string& name, const std::vector<Decay>& decays,
                       posenc::Index num_tokens) {
  auto data = gnuplot.data(name);
  double highest = 0;
  std::string titles;
  for (const auto& [title, weights] : decays) {
    titles += '"' + title + "\", ";
    const posenc::Index size = weights.size();
    if (size > 0) highest = std::max(highest, 100 * weights.maxCoeff());
    for (posenc::Index distance = 1; distance + distance / 4 <= size; distance += 1 + distance / 32) {
      // Which words stand there makes noise: the mean over the distances near by, but for those that a mask hides.
      const posenc::Index reach = distance / 4;
      const auto around = weights.segment(distance - 1 - reach, 2 * reach + 1).array();
      if (weights[distance - 1] > masked)
        data << distance << ' ' << 100 * around.sum() / static_cast<double>((around > masked).count()) << '\n';
    }
    data << "\n\n";
  }
  data.close();

  gnuplot.draw(name, 1000,
               "array titles = [" + titles.substr(0, titles.size() - 2) + "]\nhighest = " + std::to_string(highest) +
                   "\neven_share = 100.0 / " + std::to_string(num_tokens) + R"gp(
set title "attention to one word, mean over words and heads (a line ends where a mask hides the rest)"
set xlabel "distance back from the query to the word (tokens)"
set ylabel "share of the attention (%)"
set logscale xy
set key samplen 4
set xrange [1:] noextend
set xtics (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
set yrange [even_share / 12:highest * 1.5]
set ytics ("0.003" 0.003, "0.01" 0.01, "0.03" 0.03, "0.1" 0.1, "0.3" 0.3, "1" 1, "3" 3, "10" 10, "30" 30, "100" 100)
colors = "0x999999 0x56b4e9 0xe69f00 0xcc79a7 0x0072b2 0xd55e00 0x000000 0x009e73 0x000000"
dash(i) = i == 0 || i == 6 ? 2 : 1
plot even_share with lines linewidth 1 dashtype 3 linecolor rgb 0x303030 title "an even share", \
  for [i=0:|titles|-1] data index i with lines linewidth 2 dashtype dash(i) linecolor rgb int(word(colors, i % 9 + 1)) \
    title titles[i + 1]
)gp");
}

/// A word of at most 10 characters of UTF-8, for the axes.
inline std::string shortened(const std::string& word) {
  std::size_t end = 0;
  for (int characters = 0; end < word.size(); ++end)
    if ((word[end] & 0xc0) != 0x80 && ++characters > 10) return word.substr(0, end) + "…";
  return word;
}

struct AttentionMap {
  std::string title;
  posenc::Matrix<float> weights;  // keys x queries
};

/// Attention maps of the same words side by side, three in a row.
inline void draw_attention_maps(const Gnuplot& gnuplot, const std::string& name, const std::vector<AttentionMap>& maps,
                                const std::vector<std::string>& words) {
  auto data = gnuplot.data(name);
  for (const AttentionMap& map : maps) {  // a line of the file is a query; the number -9 is drawn white
    const auto logarithm = [](float weight) { return weight > masked ? std::log10(std::max(100 * weight, 0.3f)) : -9; };
    data << map.weights.unaryExpr(logarithm).transpose() << "\n\n\n";
  }
  data.close();

  std::ostringstream tics;
  for (std::size_t t = 0; t < words.size(); ++t) tics << (t ? ", " : "(") << '"' << shortened(words[t]) << "\" " << t;
  tics << ") noenhanced scale 0 font \",13\"\n";

  // All in pixels of the picture.
  const double width = 2000, side = 530, column_step = 550, row_step = 600, left = 195, top = 60;
  const double height = top + row_step * static_cast<double>((maps.size() + 2) / 3) + 100;
  std::ostringstream script;
  script << "last = " << words.size() << " - 0.5\n"
         << R"gp(
unset grid
unset key
set multiplot
set xrange [-0.5:last]
set yrange [last:-0.5]
set cbrange [-0.53:2]
set cbtics ("0.3" log10(0.3), "1" 0, "3" log10(3), "10" 1, "30" log10(30), "100" 2)
set cblabel "share of the query's attention (%), mean of the heads; white: masked"
set palette defined (-0.53 'white', -0.523 'white', -0.523 '#440154', -0.243 '#482878', 0.037 '#3e4989', \
  0.318 '#31688e', 0.598 '#26828e', 0.879 '#1f9e89', 1.159 '#35b779', 1.439 '#6ece58', 1.72 '#b5de2b', 2 '#fde725')
)gp";
  for (std::size_t i = 0; i < maps.size(); ++i) {
    const bool leftmost = i % 3 == 0, lowest = i + 3 >= maps.size(), last = i + 1 == maps.size();
    const double x = left + column_step * static_cast<double>(i % 3), y = top + row_step * static_cast<double>(i / 3);
    script << "set lmargin at screen " << x / width << "; set rmargin at screen " << (x + side) / width
           << "; set tmargin at screen " << 1 - y / height << "; set bmargin at screen " << 1 - (y + side) / height
           << "\nset title \"" << maps[i].title << "\" offset 0,-0.7\n"
           << (leftmost ? "set ylabel \"query\" offset 2\nset ytics " + tics.str() : "unset ylabel\nunset ytics\n")
           << (lowest ? "set xlabel \"key\" offset 0,1.2\nset xtics rotate by 90 right " + tics.str()
                      : "unset xlabel\nunset xtics\n")
           << (last ? "set colorbox user origin screen 0.925, screen 0.25 size screen 0.015, screen 0.5\n"
                    : "unset colorbox\n")
           << "plot data index " << i << " matrix with image\n";
  }
  script << "unset multiplot\n";
  gnuplot.draw(name, static_cast<int>(height), script.str());
}

}  // namespace tour
