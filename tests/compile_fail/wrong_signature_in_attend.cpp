// SPDX-License-Identifier: MIT

// A hook whose signature does not fit must not be ignored.
// expect: posenc::attend: every encoding needs a hook

#include <posenc/attention.hpp>

struct MyBias {
  void add_bias(Eigen::Ref<Eigen::MatrixXf> scores, const posenc::Positions& key_positions,
                const posenc::Positions& query_positions, posenc::Index head) const;
};

struct ForgotTheHead {
  void add_bias(Eigen::Ref<Eigen::MatrixXf> scores, const posenc::Positions& key_positions,
                const posenc::Positions& query_positions) const;
};

void attend(const Eigen::MatrixXf& x, const posenc::Positions& positions) {
  posenc::attend(x, x, x, positions, MyBias());
#ifdef POSENC_SHOULD_FAIL
  posenc::attend(x, x, x, positions, ForgotTheHead());
#endif
}
