// SPDX-License-Identifier: MIT
// FIRE: a small network, of 32 hidden units, for every score.

#include <posenc/fire.hpp>

#include "bias_case.hpp"

namespace {

using bench::Index;

struct Fire {
  template <class Real>
  Real plain(Index key, Index query) const {
    const auto psi = [](Real x) { return std::log1p(static_cast<Real>(0.1) * x); };
    const Real x = psi(static_cast<Real>(std::abs(key - query))) /
                   (psi(static_cast<Real>(std::max<Index>(query, 512))) + static_cast<Real>(1e-6));
    Real sum = static_cast<Real>(weights.output_bias[1]);
    for (Index i = 0; i < weights.hidden_weight.size(); ++i)
      sum += static_cast<Real>(weights.output_weight(1, i)) *
             std::max(static_cast<Real>(0),
                      static_cast<Real>(weights.hidden_weight[i]) * x + static_cast<Real>(weights.hidden_bias[i]));
    return sum;
  }
  posenc::FireWeights<float> weights{.hidden_weight = bench::random_matrix<float>(32, 1, 1),
                                     .hidden_bias = bench::random_matrix<float>(32, 1, 2),
                                     .output_weight = bench::random_matrix<float>(8, 32, 3),
                                     .output_bias = bench::random_matrix<float>(8, 1, 4)};
  posenc::Fire bias{weights};
};

}  // namespace

void add_benchmarks() { bench::add_bias<Fire>("fire", 1024); }
