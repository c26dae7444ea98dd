// SPDX-License-Identifier: MIT

// An encoding of your own needs one member function, and nothing from posenc to inherit or to register with. This one
// lowers scores with the logarithm of the distance: gently far away, where ALiBi's straight lines are strict.

#include <cmath>
#include <cstdlib>
#include <iomanip>
#include <iostream>
#include <posenc/attention.hpp>
#include <posenc/masks.hpp>

struct LogDistance {
  float strength;

  static constexpr bool is_relative = true;  // a promise to the reader, and to tests

  // scores: keys x queries. Works on any block of them, since the positions come along.
  void add_bias(Eigen::Ref<Eigen::MatrixXf> scores, const posenc::Positions& key_positions,
                const posenc::Positions& query_positions, posenc::Index /*head*/) const {
    for (posenc::Index query = 0; query < scores.cols(); ++query)
      for (posenc::Index key = 0; key < scores.rows(); ++key) {
        const auto distance = static_cast<float>(std::abs(key_positions[key] - query_positions[query]));
        scores(key, query) -= strength * std::log1p(distance);
      }
  }
};

static_assert(posenc::ScoreBias<LogDistance>);  // says at once if the function does not fit

int main() {
  // Tokens that are all alike, so that only the encoding makes a difference.
  const posenc::Matrix<float> q = posenc::Matrix<float>::Ones(4, 5), k = q;
  const posenc::Matrix<float> v = posenc::Matrix<float>::Identity(5, 5);  // outputs are the weights

  // It stacks with whatever else is given.
  const posenc::Matrix<float> attention =
      posenc::attend(q, k, v, posenc::positions(5), LogDistance{.strength = 1}, posenc::CausalMask{});
  std::cout << std::fixed << std::setprecision(3);
  std::cout << "a column is a query, and says how much it attends to each token:\n" << attention << '\n';
}
