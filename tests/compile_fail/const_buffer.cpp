// SPDX-License-Identifier: MIT

// A buffer that is only lent for reading is not written to.
// expect: MutableDense

#include <posenc/alibi.hpp>
#include <posenc/views.hpp>

void add(const posenc::Alibi& alibi, float* ours, const float* lent, const posenc::Positions& positions) {
  alibi(posenc::tokens(ours, {.num_features = 4, .num_tokens = 4}), positions, positions);
#ifdef POSENC_SHOULD_FAIL
  alibi(posenc::tokens(lent, {.num_features = 4, .num_tokens = 4}), positions, positions);
#endif
  static_cast<void>(lent);
}
