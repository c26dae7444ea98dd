// SPDX-License-Identifier: MIT
#pragma once

// Biases added to the scores of one head. `With` holds the bias and says what the plain loop adds:
//
//   struct With {
//     SomeBias bias;
//     template <class Real>
//     Real plain(Index key, Index query) const;      // the bias of one score, by its formula
//   };

#include <string>

#include "bench.hpp"

namespace bench {

template <class Scalar, class With>
struct BiasCase {
  using Limit = Scale;

  BiasCase(Index num_keys, Index num_queries) : scores(random_matrix<Scalar>(num_keys, num_queries)) {}

  static constexpr Index head = 1;
  Index first_query() const { return scores.rows() - scores.cols(); }

  void ours() {
    with.bias.add_bias(scores, posenc::positions(scores.rows()), posenc::positions(scores.cols(), first_query()), head);
  }
  void plain() {
    using Real = posenc::detail::compute_t<Scalar>;
    for (Index query = 0; query < scores.cols(); ++query)
      for (Index key = 0; key < scores.rows(); ++key)
        scores(key, query) = static_cast<Scalar>(static_cast<Real>(scores(key, query)) +
                                                 with.template plain<Real>(key, first_query() + query));
  }
  auto& result() { return scores; }
  Work work() { return {.tokens = scores.cols(), .bytes = 2 * bytes_of(scores)}; }

  With with;
  Matrix<Scalar> scores;
};

/// One step of decoding, and squares of scores.
template <class With>
void add_bias(const std::string& name, Index largest) {
  const auto add = [&]<class Scalar>(Scalar, const std::vector<std::array<Index, 2>>& shapes) {
    bench::add<BiasCase<Scalar, With>>(name + '/' + scalar_name<Scalar>(), {"Tk", "Tq"}, shapes);
  };
  add(float{}, {{4096, 1}, {500, 500}, {512, 512}, {largest, largest}});
  add(double{}, {{512, 512}});
  add(Eigen::half{}, {{512, 512}});
  add(Eigen::bfloat16{}, {{512, 512}});
}

}  // namespace bench
