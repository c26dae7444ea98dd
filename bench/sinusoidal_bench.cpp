// SPDX-License-Identifier: MIT
// Sinusoidal encodings: added on the fly, as a table, and added from a table that is ready.

#include <posenc/sinusoidal.hpp>

#include "bench.hpp"

namespace {

using bench::Index;
using bench::Matrix;
using posenc::Sinusoidal;
using posenc::detail::compute_t;

/// The formula of the paper, for feature 2 i and 2 i + 1 of a token.
template <class Action>
void plain_waves(const Sinusoidal& sinusoidal, Index num_tokens, Action action) {
  for (Index t = 0; t < num_tokens; ++t)
    for (Index i = 0; i < sinusoidal.dim() / 2; ++i) {
      const double angle = static_cast<double>(t) * sinusoidal.frequencies()[i];
      action(2 * i, t, std::sin(angle));
      action(2 * i + 1, t, std::cos(angle));
    }
}

template <class Scalar>
void plain_add(Scalar& x, double value) {
  x = static_cast<Scalar>(static_cast<compute_t<Scalar>>(x) + static_cast<compute_t<Scalar>>(value));
}

template <class Scalar>
struct OnTheFlyCase {
  using Limit = bench::Add;

  OnTheFlyCase(Index dim, Index num_tokens)
      : sinusoidal({.dim = dim}), x(bench::random_matrix<Scalar>(dim, num_tokens)) {}

  void ours() { sinusoidal(x, posenc::positions(x.cols())); }
  void plain() {
    plain_waves(sinusoidal, x.cols(), [&](Index i, Index t, double wave) { plain_add(x(i, t), wave); });
  }
  auto& result() { return x; }
  bench::Work work() { return {.tokens = x.cols(), .bytes = 3 * bench::bytes_of(x)}; }

  Sinusoidal sinusoidal;
  Matrix<Scalar> x;
};

template <class Scalar>
struct TableCase {
  using Limit = bench::Fill;

  TableCase(Index dim, Index num_tokens) : sinusoidal({.dim = dim}), table(Matrix<Scalar>::Zero(dim, num_tokens)) {}

  void ours() { table = sinusoidal.table<Scalar>(posenc::positions(table.cols())); }
  void plain() {
    plain_waves(sinusoidal, table.cols(),
                [&](Index i, Index t, double wave) { table(i, t) = static_cast<Scalar>(wave); });
  }
  auto& result() { return table; }
  bench::Work work() { return {.tokens = table.cols(), .bytes = bench::bytes_of(table)}; }

  Sinusoidal sinusoidal;
  Matrix<Scalar> table;
};

template <class Scalar>
struct ReadyTableCase {
  using Limit = bench::Add;

  ReadyTableCase(Index dim, Index num_tokens)
      : table(Sinusoidal({.dim = dim}).table<Scalar>(posenc::positions(num_tokens))),
        x(bench::random_matrix<Scalar>(dim, num_tokens)) {}

  void ours() { x += table; }
  void plain() {
    for (Index t = 0; t < x.cols(); ++t)
      for (Index i = 0; i < x.rows(); ++i) x(i, t) += table(i, t);
  }
  auto& result() { return x; }
  bench::Work work() { return {.tokens = x.cols(), .bytes = 3 * bench::bytes_of(x)}; }

  Matrix<Scalar> table, x;
};

using Shapes = std::vector<std::array<Index, 2>>;

template <class Scalar>
void add(const Shapes& shapes) {
  const std::string scalar = bench::scalar_name<Scalar>();
  bench::add<OnTheFlyCase<Scalar>>("sinusoidal/on_the_fly/" + scalar, {"D", "T"}, shapes);
  bench::add<TableCase<Scalar>>("sinusoidal/table/" + scalar, {"D", "T"}, shapes);
  bench::add<ReadyTableCase<Scalar>>("sinusoidal/ready_table/" + scalar, {"D", "T"}, shapes);
}

}  // namespace

void add_benchmarks() {
  add<float>({{64, 1}, {64, 500}, {64, 512}, {64, 4096}, {80, 512}, {128, 512}, {1024, 1}, {1024, 512}, {1024, 8192}});
  add<double>({{128, 512}});
  add<Eigen::half>({{128, 512}});
  add<Eigen::bfloat16>({{128, 512}});
}
