// SPDX-License-Identifier: MIT
// Queries multiplied by a factor of their position.

#include <posenc/query_temperature.hpp>

#include "bench.hpp"

namespace {

using bench::Index;
using bench::Matrix;
using posenc::QueryTemperature;

constexpr Index first_position = 200000;  // where the factors are above 1

template <class Scalar>
struct TemperatureCase {
  using Limit = bench::Scale;

  TemperatureCase(Index num_heads, Index head_dim, Index num_tokens)
      : queries(bench::random_matrix<Scalar>(num_heads * head_dim, num_tokens)) {}

  void ours() { temperature(queries, posenc::positions(queries.cols(), first_position)); }
  void plain() {
    using Real = posenc::detail::compute_t<Scalar>;
    for (Index t = 0; t < queries.cols(); ++t) {
      const double periods = std::floor(static_cast<double>(first_position + t + 1) / 8192);
      const auto factor = static_cast<Real>(1 + 0.1 * std::log1p(periods));
      for (Index i = 0; i < queries.rows(); ++i)
        queries(i, t) = static_cast<Scalar>(static_cast<Real>(queries(i, t)) * factor);
    }
  }
  auto& result() { return queries; }
  bench::Work work() { return {.tokens = queries.cols(), .bytes = 2 * bench::bytes_of(queries)}; }

  QueryTemperature temperature = QueryTemperature::llama4();
  Matrix<Scalar> queries;
};

template <class Scalar>
void add(const std::vector<std::array<Index, 3>>& shapes) {
  bench::add<TemperatureCase<Scalar>>("query_temperature/" + bench::scalar_name<Scalar>(), {"H", "D", "T"}, shapes);
}

}  // namespace

void add_benchmarks() {
  add<float>({{32, 128, 1}, {8, 64, 500}, {8, 64, 512}, {8, 80, 512}, {32, 128, 512}, {32, 128, 4096}});
  add<double>({{8, 64, 512}});
  add<Eigen::half>({{8, 64, 512}});
  add<Eigen::bfloat16>({{8, 64, 512}});
}
