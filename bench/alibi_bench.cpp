// SPDX-License-Identifier: MIT
// ALiBi: the biases of all heads written out, and the bias of one head added to its scores.

#include <posenc/alibi.hpp>
#include <posenc/bias_matrix.hpp>

#include "bench.hpp"

namespace {

using bench::Index;
using bench::Matrix;
using posenc::Alibi;

template <class Real>
Real plain_bias(Index key, Index query, Real slope) {
  return -slope * static_cast<Real>(key < query ? query - key : key - query);
}

template <class Scalar>
struct WrittenCase {
  using Limit = bench::Fill;

  WrittenCase(Index num_heads, Index num_tokens)
      : alibi(num_heads), biases(Matrix<Scalar>::Ones(num_tokens, num_heads * num_tokens)) {}

  void ours() {
    const auto positions = posenc::positions(biases.rows());
    for (Index h = 0; h < alibi.num_heads(); ++h)
      posenc::write_bias(alibi, biases.middleCols(h * biases.rows(), biases.rows()), positions, positions, h);
  }
  void plain() {
    const Index num_tokens = biases.rows();
    for (Index h = 0; h < alibi.num_heads(); ++h) {
      const auto slope = static_cast<Scalar>(alibi.slopes()[h]);
      for (Index query = 0; query < num_tokens; ++query)
        for (Index key = 0; key < num_tokens; ++key)
          biases(key, h * num_tokens + query) = plain_bias(key, query, slope);
    }
  }
  auto& result() { return biases; }
  bench::Work work() { return {.tokens = biases.cols(), .bytes = bench::bytes_of(biases)}; }

  Alibi alibi;
  Matrix<Scalar> biases;
};

template <class Scalar>
struct AddedCase {
  using Limit = bench::Scale;

  AddedCase(Index num_keys, Index num_queries)
      : alibi(8), scores(bench::random_matrix<Scalar>(num_keys, num_queries)) {}

  void ours() {
    alibi(scores, posenc::positions(scores.rows()), posenc::positions(scores.cols(), scores.rows() - scores.cols()), 3);
  }
  void plain() {
    using Real = posenc::detail::compute_t<Scalar>;
    const auto slope = static_cast<Real>(alibi.slopes()[3]);
    const Index first_query = scores.rows() - scores.cols();
    for (Index query = 0; query < scores.cols(); ++query)
      for (Index key = 0; key < scores.rows(); ++key)
        scores(key, query) =
            static_cast<Scalar>(static_cast<Real>(scores(key, query)) + plain_bias(key, first_query + query, slope));
  }
  auto& result() { return scores; }
  bench::Work work() { return {.tokens = scores.cols(), .bytes = 2 * bench::bytes_of(scores)}; }

  Alibi alibi;
  Matrix<Scalar> scores;
};

}  // namespace

void add_benchmarks() {
  bench::add<WrittenCase<float>>("alibi/written/float", {"H", "T"}, {{8, 64}, {8, 500}, {8, 512}, {32, 2048}});
  bench::add<AddedCase<float>>("alibi/added/float", {"Tk", "Tq"}, {{4096, 1}, {500, 500}, {512, 512}, {4096, 4096}});
  bench::add<AddedCase<double>>("alibi/added/double", {"Tk", "Tq"}, {{512, 512}});
  bench::add<AddedCase<Eigen::half>>("alibi/added/half", {"Tk", "Tq"}, {{512, 512}});
  bench::add<AddedCase<Eigen::bfloat16>>("alibi/added/bfloat16", {"Tk", "Tq"}, {{512, 512}});
}
