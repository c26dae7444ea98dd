// SPDX-License-Identifier: MIT
// Kerple's two kernels of the distance.

#include <posenc/kerple.hpp>

#include "bias_case.hpp"

namespace {

using bench::Index;

template <class Real>
Real distance(Index key, Index query) {
  return static_cast<Real>(std::abs(key - query));
}

const Eigen::Vector2d p(0.5, 0.75), a(1, 0.25);

struct Logarithmic {
  template <class Real>
  Real plain(Index key, Index query) const {
    return -static_cast<Real>(p[1]) * std::log1p(static_cast<Real>(a[1]) * distance<Real>(key, query));
  }
  posenc::Kerple bias = posenc::Kerple::logarithmic(p, a);
};

struct Power {
  template <class Real>
  Real plain(Index key, Index query) const {
    return -static_cast<Real>(a[1]) * std::pow(distance<Real>(key, query), static_cast<Real>(p[1]));
  }
  posenc::Kerple bias = posenc::Kerple::power(a, p);
};

}  // namespace

void add_benchmarks() {
  bench::add_bias<Logarithmic>("kerple/logarithmic", 4096);
  bench::add_bias<Power>("kerple/power", 4096);
}
