// SPDX-License-Identifier: MIT
// Swin's learned biases of the tokens of a square window.

#include <posenc/swin_bias.hpp>

#include "bench.hpp"

namespace {

using bench::Index;
using bench::Matrix;

template <class Scalar>
struct WindowCase {
  using Limit = bench::Scale;

  WindowCase(Index side, Index num_tokens)
      : bias(bench::random_matrix<float>(4, (2 * side - 1) * (2 * side - 1)), {.height = side, .width = side}),
        scores(bench::random_matrix<Scalar>(num_tokens, num_tokens)) {}

  void ours() { bias(scores, posenc::positions(scores.rows()), posenc::positions(scores.cols()), 1); }
  void plain() {
    using Real = posenc::detail::compute_t<Scalar>;
    const Index side = bias.window().width;
    for (Index query = 0; query < scores.cols(); ++query)
      for (Index key = 0; key < scores.rows(); ++key) {
        const Index column =
            (query / side - key / side + side - 1) * (2 * side - 1) + query % side - key % side + side - 1;
        scores(key, query) =
            static_cast<Scalar>(static_cast<Real>(scores(key, query)) + static_cast<Real>(bias.table()(1, column)));
      }
  }
  auto& result() { return scores; }
  bench::Work work() { return {.tokens = scores.cols(), .bytes = 2 * bench::bytes_of(scores)}; }

  posenc::SwinBias bias;
  Matrix<Scalar> scores;
};

template <class Scalar>
void add(const std::vector<std::array<Index, 2>>& shapes) {
  bench::add<WindowCase<Scalar>>("swin_bias/" + bench::scalar_name<Scalar>(), {"side", "T"}, shapes);
}

}  // namespace

void add_benchmarks() {
  add<float>({{1, 1}, {2, 4}, {7, 49}, {12, 144}, {32, 1024}, {64, 4096}});
  add<double>({{12, 144}});
  add<Eigen::half>({{12, 144}});
  add<Eigen::bfloat16>({{12, 144}});
}
