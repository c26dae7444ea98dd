// SPDX-License-Identifier: MIT
#pragma once

// The pictures of the tour, one function each: first the numbers, which posenc computes, then the script that draws
// them.

#include <algorithm>
#include <cmath>
#include <complex>
#include <posenc/posenc.hpp>
#include <string>
#include <utility>
#include <vector>

#include "tour_gnuplot.hpp"

namespace tour {

/// The same sinusoidal table in two orders of its dimensions.
inline void draw_sinusoidal_table(const Gnuplot& gnuplot, const std::string& name) {
  const posenc::Index dim = 128, num_positions = 128;
  auto data = gnuplot.data(name);
  for (const auto& options : {posenc::SinusoidalOptions::vaswani(dim), posenc::SinusoidalOptions::roformer(dim)})
    data << posenc::Sinusoidal(options).table<double>(posenc::positions(num_positions)).transpose() << "\n\n\n";
  data.close();

  gnuplot.draw(name, 1060, R"gp(
unset grid
set multiplot
set tmargin at screen 0.92; set bmargin at screen 0.11
set xrange [-0.5:127.5]
set yrange [127.5:-0.5]
set cbrange [-1:1]
set xtics 0, 16
set ytics 0, 16
set cbtics 0.5
set xlabel "dimension"
set ylabel "position (tokens)" offset 1
unset colorbox
set lmargin at screen 0.065; set rmargin at screen 0.475
set title "interleaved, as in the paper: sin, cos, sin, cos, …"
plot data index 0 matrix with image notitle
unset ylabel
set format y ""
set lmargin at screen 0.495; set rmargin at screen 0.905
set colorbox user origin screen 0.92, screen 0.11 size screen 0.015, screen 0.81
set cblabel "value added to the embedding"
set title "concatenated: all sines, then all cosines"
plot data index 1 matrix with image notitle
unset multiplot
)gp");
}

/// Dimensions 4 to 7 of a table of 20: two waves, each as a sine and a cosine.
inline void draw_sinusoidal_waves(const Gnuplot& gnuplot, const std::string& name) {
  std::vector<double> positions;  // between the tokens as well, for a smooth line
  for (double position = 0; position <= 100; position += 0.25) positions.push_back(position);
  const posenc::Matrix<double> table = posenc::Sinusoidal({.dim = 20}).table<double>(positions);
  auto data = gnuplot.data(name);
  for (posenc::Index t = 0; t < table.cols(); ++t)
    data << positions[static_cast<std::size_t>(t)] << ' ' << table.col(t).segment(4, 4).transpose() << '\n';
  data.close();

  gnuplot.draw(name, 900, R"gp(
set title "four of the 20 dimensions of a sinusoidal table"
set xlabel "position (tokens)"
set ylabel "value added to the embedding"
set xrange [0:100]
set yrange [-1.05:1.05]
set xtics 10
set ytics 0.5
set key samplen 4
plot data using 1:2 with lines linewidth 2 linecolor rgb blue title "dimension 4, sine", \
     data using 1:3 with lines linewidth 2 linecolor rgb blue dashtype 2 title "dimension 5, cosine", \
     data using 1:4 with lines linewidth 2 linecolor rgb orange title "dimension 6, sine", \
     data using 1:5 with lines linewidth 2 linecolor rgb orange dashtype 2 title "dimension 7, cosine"
)gp");
}

/// How RoPE's scores fall with distance: the score of a key that equals its query, and the bound of the paper.
///
/// The bound (Su et al. 2021, arXiv:2104.09864v5, section 3.4.3) is the mean of |S_1|, ..., |S_{D/2}|, where S_j is the
/// sum of e^{i distance w_i} over the first j pairs; whatever query and key are, their score is at most a multiple of
/// it.
inline void draw_rope_decay(const Gnuplot& gnuplot, const std::string& name) {
  const posenc::Index num_pairs = 64;
  auto data = gnuplot.data(name);
  for (const double base : {100., 1e4, 5e5}) {
    const posenc::Rope rope({.head_dim = 2 * num_pairs, .base = base});
    double last = 0;
    for (int eighths = 0; eighths <= 8 * 17; ++eighths) {  // of an octave: distances 1 to 2^17
      const double distance = std::round(std::exp2(eighths / 8.));
      if (distance == std::exchange(last, distance)) continue;
      std::vector<double> around;  // the waves of the fast pairs would hide the trend: take the distances near by
      const double reach = std::floor(distance / 4);
      for (double near = distance - reach; near <= distance + reach; near += std::max(1., std::floor(reach / 40)))
        around.push_back(near);

      // A key of ones as complex numbers: the rotation makes e^{i distance w_i} of pair i.
      posenc::Matrix<std::complex<double>> waves(num_pairs, static_cast<posenc::Index>(around.size()));
      waves.setOnes();
      rope(waves, around);
      const Eigen::RowVectorXd scores = waves.real().colwise().mean();
      double bound = 0;
      for (posenc::Index i = 0; i < waves.cols(); ++i) {
        std::complex<double> sum = 0;
        for (posenc::Index pair = 0; pair < num_pairs; ++pair) bound += std::abs(sum += waves(pair, i));
      }
      const double bound_at_0 = num_pairs * (num_pairs + 1) / 2. * static_cast<double>(waves.cols());
      data << distance << ' ' << scores.mean() << ' ' << scores.minCoeff() << ' ' << scores.maxCoeff() << ' '
           << bound / bound_at_0 << '\n';
    }
    data << "\n\n";
  }
  data.close();

  gnuplot.draw(name, 1300, R"gp(
set multiplot
set lmargin at screen 0.085; set rmargin at screen 0.83
set logscale x 2
set xrange [1:131072]
set ytics 0.25
title(i) = "base ".word("100 10,000 500,000", i + 1)
color(i) = i == 0 ? green : i == 1 ? blue : orange
set tmargin at screen 0.94; set bmargin at screen 0.545
set title "a key equal to its query: mean (line) and range (band) of the scores around a distance"
set ylabel "score, relative to distance 0"
set xtics ("" 1, "" 4, "" 16, "" 64, "" 256, "" 1024, "" 4096, "" 16384, "" 65536)
set yrange [-0.4:1]
set style fill transparent solid 0.2 noborder
plot for [i=0:2] data index i using 1:3:4 with filledcurves linecolor rgb color(i) notitle, \
     for [i=0:2] data index i using 1:2 with lines linewidth 2 linecolor rgb color(i) title title(i)
unset key
set tmargin at screen 0.475; set bmargin at screen 0.09
set title "any key: RoFormer's upper bound on the score, mean around a distance"
set xlabel "distance from query to key (tokens)"
set ylabel "bound, relative to distance 0"
set xtics ("1" 1, "4" 4, "16" 16, "64" 64, "256" 256, "1,024" 1024, "4,096" 4096, "16,384" 16384, "65,536" 65536)
set yrange [0:1]
plot for [i=0:2] data index i using 1:5 with lines linewidth 2 linecolor rgb color(i)
unset multiplot
)gp");
}

/// ALiBi's bias in each of 8 heads, and what is left of the attention.
inline void draw_alibi(const Gnuplot& gnuplot, const std::string& name) {
  const posenc::Alibi alibi(8);
  const auto query = posenc::positions(1);
  const auto keys = posenc::positions(2049, -2048);
  auto data = gnuplot.data(name);
  for (posenc::Index head = 0; head < alibi.num_heads(); ++head) {
    const posenc::Matrix<double> bias = posenc::bias_matrix<double>(alibi, keys, query, head);
    for (posenc::Index n = keys.size() - 1; n >= 0; --n)
      data << query[0] - keys[n] << ' ' << bias(n, 0) << ' ' << std::exp(bias(n, 0)) << '\n';
    data << "\n\n";
  }
  data.close();

  gnuplot.draw(name, 1000, R"gp(
set multiplot
set tmargin at screen 0.92; set bmargin at screen 0.125
set lmargin at screen 0.07; set rmargin at screen 0.41
unset key
set title "added to the score"
set xlabel "distance from query to key (tokens)"
set ylabel "bias"
set xrange [0:64]
set yrange [-16:0.4]
set xtics 16
plot for [h=0:7] data index h using 1:2 with lines linewidth 2 linecolor rgb shade(h, 8)
set lmargin at screen 0.495; set rmargin at screen 0.835
set key at screen 0.85, screen 0.93 left top title "slope per token" left
set title "what it multiplies the attention by"
set ylabel "exp(bias)"
set logscale x 2
set xrange [1:2048]
set yrange [0:1]
set xtics ("1" 1, "4" 4, "16" 16, "64" 64, "256" 256, "1,024" 1024)
plot for [h=0:7] data index h using 1:3 with lines linewidth 2 linecolor rgb shade(h, 8) \
  title sprintf("head %d: 1/%d", h, 2 ** (h + 1))
unset multiplot
)gp");
}

/// Which column of its tables the clipped-relative encoding takes for a query and a key.
inline void draw_clipped_index(const Gnuplot& gnuplot, const std::string& name) {
  const posenc::Index num_positions = 16;
  const posenc::Matrix<float> table = posenc::Matrix<float>::Zero(1, 9);
  auto data = gnuplot.data(name);
  for (const posenc::Index max_left : {4, 6}) {
    const posenc::ClippedRelative<float> clipped(table, {}, {.max_left = max_left});
    for (posenc::Index query = 0; query < num_positions; ++query) {
      for (posenc::Index key = 0; key < num_positions; ++key) data << clipped.column(key, query) << ' ';
      data << '\n';
    }
    data << "\n\n";
  }
  data.close();

  gnuplot.draw(name, 1060, R"gp(
unset grid
unset key
set multiplot
set tmargin at screen 0.92; set bmargin at screen 0.11
set xrange [-0.5:15.5]
set yrange [15.5:-0.5]
set cbrange [0:8]
set xtics 1 scale 0
set ytics 1 scale 0
set xlabel "position of the key (tokens)"
set ylabel "position of the query (tokens)" offset 1
unset colorbox
ink(i) = i < 4.5 ? 0xffffff : 0x000000
set lmargin at screen 0.065; set rmargin at screen 0.475
set title "clip(key − query, −4, 4) + 4"
plot data index 0 matrix with image, \
     data index 0 matrix using 1:2:(sprintf("%d", $3)):(ink($3)) with labels font ",17" textcolor rgb variable
unset ylabel
set format y ""
set lmargin at screen 0.495; set rmargin at screen 0.905
set colorbox user origin screen 0.92, screen 0.11 size screen 0.015, screen 0.81
set cbtics 1
set cblabel "column of the table"
set title "clip(key − query, −6, 2) + 6"
plot data index 1 matrix with image, \
     data index 1 matrix using 1:2:(sprintf("%d", $3)):(ink($3)) with labels font ",17" textcolor rgb variable
unset multiplot
)gp");
}

}  // namespace tour
