// SPDX-License-Identifier: MIT

// What is added to the embeddings has no place in attention, and must not be ignored there.
// expect: posenc::attend: every encoding needs a hook

#include <posenc/attention.hpp>
#include <posenc/rope.hpp>
#include <posenc/sinusoidal.hpp>

void attend(const Eigen::MatrixXf& x, const posenc::Positions& positions, const posenc::Rope& rope,
            const posenc::Sinusoidal& sinusoidal) {
  posenc::attend(x, x, x, positions, rope);
#ifdef POSENC_SHOULD_FAIL
  posenc::attend(x, x, x, positions, rope, sinusoidal);
#endif
  static_cast<void>(sinusoidal);
}
