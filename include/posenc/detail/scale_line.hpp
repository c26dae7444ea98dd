// SPDX-License-Identifier: MIT
#pragma once

// Products along contiguous memory, in packets where there are some of the scalar.

#include <Eigen/Core>

#include <posenc/detail/packet.hpp>
#include <posenc/detail/scalar.hpp>
#include <posenc/detail/unroll.hpp>

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wignored-attributes"  // of the vector type as a template argument, and harmless
#endif

namespace posenc::inline v0::detail {

/// x[i] *= factor, i = 0, ..., n - 1.
template <class Scalar>
void scale_line(Scalar* x, Eigen::Index n, compute_t<Scalar> factor) {
  using Real = compute_t<Scalar>;
  using Memory = PacketMemory<Scalar, packet_t<Real>>;
  Eigen::Index i = 0;
  if constexpr (Memory::available) {
    const auto all_factor = broadcast(factor);
    POSENC_DETAIL_UNROLL
    for (; i + Simd<Real>::lanes <= n; i += Simd<Real>::lanes)
      Memory::store(x + i, multiply(Memory::load(x + i), all_factor));
  }
  for (; i < n; ++i) x[i] = static_cast<Scalar>(static_cast<Real>(x[i]) * factor);
}

}  // namespace posenc::inline v0::detail

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif
