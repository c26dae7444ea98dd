// SPDX-License-Identifier: MIT
#pragma once

// Draws pictures with gnuplot. A picture is three files with one stem in one folder: `name.dat` holds the numbers,
// `name.gp` the script that shows them, `name.png` the picture. After a change of the script: `gnuplot name.gp` there.

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <utility>

namespace tour {

/// What every script begins with: one width, one font, and colours that colour-blind readers tell apart as well: the
/// lines have those of Okabe and Ito, the surfaces a palette whose lightness grows evenly (viridis).
inline constexpr const char* gnuplot_style = R"gp(
if (strstrt(GPVAL_TERMINALS, "pngcairo")) {
  set terminal pngcairo size 2000, height font "DejaVu Sans,20" linewidth 2
} else {
  set terminal png size 2000, height font "DejaVu Sans,20" linewidth 2
}
set output name.".png"
data = name.".dat"
set encoding utf8
set border linewidth 0.6 linecolor rgb "#303030"
set tics nomirror out scale 0.6
set grid linetype 1 linewidth 0.4 linecolor rgb "#d0d0d0"
set title font ",22"
set key outside right top Left reverse samplen 3 spacing 1.6
blue = 0x0072b2; orange = 0xd55e00; green = 0x009e73
set palette defined (0 '#440154', 1 '#482878', 2 '#3e4989', 3 '#31688e', 4 '#26828e', \
                     5 '#1f9e89', 6 '#35b779', 7 '#6ece58', 8 '#b5de2b', 9 '#fde725')
shade(i, n) = int(word("0x440154 0x482878 0x3e4989 0x31688e 0x26828e 0x1f9e89 0x35b779 0x6ece58", \
                       1 + int(i * 7.0 / (n - 1) + 0.5)))
)gp";

class Gnuplot {
 public:
  /// \throws std::filesystem::filesystem_error if the folder cannot be made.
  explicit Gnuplot(std::filesystem::path folder) : folder_(std::move(folder)) {
    std::filesystem::create_directories(folder_);
    installed_ = std::system("gnuplot --version > /dev/null 2>&1") == 0;
  }

  const std::filesystem::path& folder() const { return folder_; }

  bool is_installed() const { return installed_; }

  /// Where the numbers of a picture go.
  std::ofstream data(const std::string& name) const { return open(name + ".dat"); }

  /// Writes the script of a picture, and draws it where gnuplot is installed.
  /// \throws std::runtime_error if gnuplot reports an error.
  void draw(const std::string& name, int height, const std::string& script) const {
    open(name + ".gp") << "# gnuplot " << name << ".gp   draws " << name << ".png\nname = \"" << name
                       << "\"\nheight = " << height << gnuplot_style << script;
    if (!installed_) return;
    const auto here = std::filesystem::current_path();
    std::filesystem::current_path(folder_);  // the script names its files without a folder
    const int status = std::system(("gnuplot " + name + ".gp").c_str());
    std::filesystem::current_path(here);
    if (status != 0) throw std::runtime_error("gnuplot could not draw " + (folder_ / (name + ".gp")).string());
  }

 private:
  std::ofstream open(const std::string& file) const {
    std::ofstream stream;
    stream.exceptions(std::ios::failbit | std::ios::badbit);
    stream.open(folder_ / file);
    return stream;
  }

  std::filesystem::path folder_;
  bool installed_ = false;
};

}  // namespace tour
