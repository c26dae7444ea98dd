// SPDX-License-Identifier: MIT
#pragma once

// Sums along contiguous memory, in packets where there are some of the scalar.

#include <Eigen/Core>

#include <posenc/detail/packet.hpp>
#include <posenc/detail/scalar.hpp>
#include <posenc/detail/unroll.hpp>

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wignored-attributes"  // of the vector type as a template argument, and harmless
#endif

namespace posenc::inline v0::detail {

/// x[i] += factor * added[i], i = 0, ..., n - 1, in the arithmetic of x.
template <class Scalar, class Added>
void add_line(Scalar* x, const Added* added, Eigen::Index n, compute_t<Scalar> factor = 1) {
  using Real = compute_t<Scalar>;
  using To = PacketMemory<Scalar, packet_t<Real>>;
  using From = PacketMemory<Added, packet_t<Real>>;
  Eigen::Index i = 0;
  if constexpr (To::available && From::available) {
    const auto all_factor = broadcast(factor);
    POSENC_DETAIL_UNROLL
    for (; i + Simd<Real>::lanes <= n; i += Simd<Real>::lanes)
      To::store(x + i, sum(To::load(x + i), multiply(all_factor, From::load(added + i))));
  }
  for (; i < n; ++i) add(x[i], factor * static_cast<Real>(added[i]));
}

}  // namespace posenc::inline v0::detail

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif
