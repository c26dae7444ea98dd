// SPDX-License-Identifier: MIT
// Sandwich: the sums of cosines are looked up by distance, here as in a plain loop.

#include <posenc/sandwich.hpp>

#include "bias_case.hpp"

namespace {

using bench::Index;

struct Sandwich {
  Sandwich() {
    for (Index distance = 0; distance < 4096; ++distance) {
      double sum = 0;
      for (Index i = 0; i < 64; ++i)
        sum += std::cos(static_cast<double>(distance) * std::pow(10000.0, -static_cast<double>(i) / 64));
      sums.push_back(sum / bias.ratios()[1]);
    }
  }
  template <class Real>
  Real plain(Index key, Index query) const {
    return static_cast<Real>(sums[static_cast<std::size_t>(std::abs(key - query))]);
  }
  posenc::Sandwich bias{{.num_heads = 8, .dim = 128, .table_size = 4096}};
  std::vector<double> sums;
};

}  // namespace

void add_benchmarks() { bench::add_bias<Sandwich>("sandwich", 4096); }
