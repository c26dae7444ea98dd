// SPDX-License-Identifier: MIT

// An encoding that is written for float matrices does not act on double ones, and must not be ignored there.
// expect: posenc::attend: every encoding needs a hook

#include <posenc/attention.hpp>

struct MyBias {
  void add_bias(Eigen::Ref<Eigen::MatrixXf> scores, const posenc::Positions& key_positions,
                const posenc::Positions& query_positions, posenc::Index head) const;
};

void attend(const Eigen::MatrixXf& x, const Eigen::MatrixXd& wide, const posenc::Positions& positions) {
  posenc::attend(x, x, x, positions, MyBias());
#ifdef POSENC_SHOULD_FAIL
  posenc::attend(wide, wide, wide, positions, MyBias());
#endif
  static_cast<void>(wide);
}
