// SPDX-License-Identifier: MIT
// Learned absolute positions: columns of a table gathered and added.

#include <posenc/learned.hpp>

#include "bench.hpp"

namespace {

using bench::Index;
using bench::Matrix;
using posenc::LearnedAbsolute;
using posenc::detail::compute_t;

enum class Order { contiguous, shuffled };

template <class Scalar, Order order>
struct GatherCase {
  using Limit = bench::Add;

  GatherCase(Index dim, Index num_tokens)
      : learned(bench::random_matrix<Scalar>(dim, num_tokens, 2)),
        x(bench::random_matrix<Scalar>(dim, num_tokens)),
        shuffled(static_cast<std::size_t>(num_tokens)) {
    // A step that shares no factor with any of the numbers of tokens below visits each position once.
    for (Index t = 0; t < num_tokens; ++t) shuffled[static_cast<std::size_t>(t)] = t * 9973 % num_tokens;
  }

  posenc::Positions positions() const {
    return order == Order::contiguous ? posenc::positions(x.cols()) : posenc::Positions(shuffled);
  }
  void ours() { learned(x, positions()); }
  void plain() {
    const posenc::Positions where = positions();
    for (Index t = 0; t < x.cols(); ++t)
      for (Index i = 0; i < x.rows(); ++i)
        x(i, t) = static_cast<Scalar>(static_cast<compute_t<Scalar>>(x(i, t)) +
                                      static_cast<compute_t<Scalar>>(learned.table()(i, where[t])));
  }
  auto& result() { return x; }
  bench::Work work() { return {.tokens = x.cols(), .bytes = 3 * bench::bytes_of(x)}; }

  LearnedAbsolute<Scalar> learned;
  Matrix<Scalar> x;
  std::vector<std::int64_t> shuffled;
};

using Shapes = std::vector<std::array<Index, 2>>;

template <class Scalar>
void add(const Shapes& shapes) {
  const std::string scalar = bench::scalar_name<Scalar>();
  bench::add<GatherCase<Scalar, Order::contiguous>>("learned/contiguous/" + scalar, {"D", "T"}, shapes);
  bench::add<GatherCase<Scalar, Order::shuffled>>("learned/shuffled/" + scalar, {"D", "T"}, shapes);
}

}  // namespace

void add_benchmarks() {
  add<float>({{64, 1}, {64, 500}, {64, 512}, {64, 4096}, {80, 512}, {128, 512}, {1024, 1}, {1024, 512}, {1024, 8192}});
  add<double>({{128, 512}});
  add<Eigen::half>({{128, 512}});
  add<Eigen::bfloat16>({{128, 512}});
}
