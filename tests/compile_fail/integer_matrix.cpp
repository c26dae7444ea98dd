// SPDX-License-Identifier: MIT

// A matrix of integers would round every encoding away.
// expect: posenc::Sinusoidal: x must hold float, double, half or bfloat16

#include <posenc/sinusoidal.hpp>

void add(const posenc::Sinusoidal& sinusoidal, Eigen::MatrixXf& x, Eigen::MatrixXi& integers,
         const posenc::Positions& positions) {
  sinusoidal(x, positions);
#ifdef POSENC_SHOULD_FAIL
  sinusoidal(integers, positions);
#endif
  static_cast<void>(integers);
}
