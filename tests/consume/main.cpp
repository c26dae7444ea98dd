// SPDX-License-Identifier: MIT

// Uses posenc from outside: one header alone, the umbrella, and the version that the build system was told.

#include <posenc/rope.hpp>

#include <posenc/posenc.hpp>

#include <cmath>
#include <iostream>
#include <string>

int main(int argc, char** argv) {
  const std::string version = std::to_string(POSENC_VERSION_MAJOR) + '.' + std::to_string(POSENC_VERSION_MINOR) + '.' +
                              std::to_string(POSENC_VERSION_PATCH);
  if (argc != 2 || argv[1] != version) {
    std::cerr << "The headers are of version " << version << ", the package is " << (argc == 2 ? argv[1] : "") << '\n';
    return 1;
  }
  Eigen::MatrixXf x = Eigen::MatrixXf::Ones(8, 3);
  const posenc::Rope rope(posenc::RopeOptions{.head_dim = 8});
  rope.apply_query(x, posenc::positions(3));
  const float expected = std::cos(2.0F) - std::sin(2.0F);  // the fastest pair at position 2
  if (std::abs(x(0, 2) - expected) > 1e-6F) {
    std::cerr << "Rotated to " << x(0, 2) << " instead of " << expected << '\n';
    return 1;
  }
}
