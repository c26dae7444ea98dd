// SPDX-License-Identifier: MIT

// A float table would take the accuracy from a double matrix.
// expect: posenc::RopeTable: a double matrix needs a RopeTable<double>

#include <posenc/rope_table.hpp>

void rotate(const posenc::RopeTable<float>& table, Eigen::MatrixXf& x, Eigen::MatrixXd& wide,
            const posenc::Positions& positions) {
  table(x, positions);
#ifdef POSENC_SHOULD_FAIL
  table(wide, positions);
#endif
  static_cast<void>(wide);
}
