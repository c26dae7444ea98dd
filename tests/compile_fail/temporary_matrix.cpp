// SPDX-License-Identifier: MIT

// A hook writes in place: in a temporary matrix the result would be lost.
// expect: MutableDense

#include <posenc/rope.hpp>

void rotate(const posenc::Rope& rope, Eigen::MatrixXf& x, const posenc::Positions& positions) {
  rope.apply_query(x.leftCols(2), positions);  // a temporary view of x
#ifdef POSENC_SHOULD_FAIL
  rope.apply_query(Eigen::MatrixXf(x.leftCols(2)), positions);
#endif
}
