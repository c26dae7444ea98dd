// SPDX-License-Identifier: MIT

// A sum has no memory to write to.
// expect: MutableDense

#include <posenc/sinusoidal.hpp>

void add(const posenc::Sinusoidal& sinusoidal, Eigen::MatrixXf& x, const posenc::Positions& positions) {
  sinusoidal.add_to(x, positions);
#ifdef POSENC_SHOULD_FAIL
  sinusoidal.add_to(x + x, positions);
#endif
}
