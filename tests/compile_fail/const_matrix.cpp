// SPDX-License-Identifier: MIT

// What is const is not written to.
// expect: MutableDense

#include <posenc/rope.hpp>

void rotate(const posenc::Rope& rope, const Eigen::MatrixXf& x, const posenc::Positions& positions) {
  Eigen::MatrixXf copy = x;
  rope(copy, positions);
#ifdef POSENC_SHOULD_FAIL
  rope(x, positions);
#endif
}
