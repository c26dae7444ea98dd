// SPDX-License-Identifier: MIT
#pragma once

// The one place that uses Eigen's packets, which are not part of its public interface: the names below exist in Eigen
// 3.4 and 5.0 for every instruction set, and where there is none a packet is a scalar.

#include <Eigen/Core>
#include <cmath>
#include <type_traits>

namespace posenc::inline v0::detail {

/// The widest packet of Real, and how large a tile of them fits the registers: 6 x 4 packets of 32, 6 x 2 of 16.
template <class Real>
struct Simd {
  using Packet = typename Eigen::internal::packet_traits<Real>::type;
  static constexpr Eigen::Index lanes = Eigen::internal::unpacket_traits<Packet>::size;
  static constexpr int tile_rows = 6;
  static constexpr int tile_packets = EIGEN_ARCH_DEFAULT_NUMBER_OF_REGISTERS >= 32 ? 4 : 2;
  static constexpr Eigen::Index tile_width = tile_packets * lanes;
};

template <class Real>
using packet_t = typename Simd<Real>::Packet;

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wignored-attributes"  // of the vector type as a template argument, and harmless
#endif
/// As many integers as a packet of Real holds numbers: its bits.
template <class Real>
struct SimdBits {
  using Packet = typename Eigen::internal::unpacket_traits<packet_t<Real>>::integer_packet;
};

/// Packets of half and of a quarter as many numbers, where there are such: for what is left behind the last whole packet.
template <class Real>
struct SimdParts {
  using Half = typename Eigen::internal::unpacket_traits<packet_t<Real>>::half;
  using Quarter = typename Eigen::internal::unpacket_traits<Half>::half;
};
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

template <class Real>
EIGEN_ALWAYS_INLINE packet_t<Real> load(const Real* from) {
  return Eigen::internal::ploadu<packet_t<Real>>(from);
}
template <class Real>
EIGEN_ALWAYS_INLINE packet_t<Real> broadcast(Real value) {
  return Eigen::internal::pset1<packet_t<Real>>(value);
}
template <class Real>
EIGEN_ALWAYS_INLINE void store(Real* to, const packet_t<Real>& packet) {
  Eigen::internal::pstoreu(to, packet);
}

/// e^x for x <= 0, element by element: exactly 0 below ln of the smallest normal number, NaN for NaN.
///
/// For float: x = n ln 2 + r. The low bits of x / ln 2 + 1.5 * 2^23 + 127, moved up to where an exponent is, are 2^n, by
/// which the polynomial of e^r is multiplied. Relative error below 2e-7; a fifth faster than the general exponential.
template <class Real>
EIGEN_ALWAYS_INLINE packet_t<Real> exp_of_negative(const packet_t<Real>& x) {
  using namespace Eigen::internal;
  using Packet = packet_t<Real>;
  if constexpr (std::is_same_v<Real, float> && Simd<Real>::lanes > 1) {
    using Integers = typename SimdBits<Real>::Packet;
    const auto constant = [](float value) { return pset1<Packet>(value); };
    const Packet shifted = pmadd(x, constant(1.44269504f), constant(12583039.0f));  // 1.5 * 2^23 + 127 + n
    const Packet n = psub(shifted, constant(12583039.0f));
    Packet r = pmadd(n, constant(-0.693359375f), x);  // ln 2 in two parts, the first exact in few bits
    r = pmadd(n, constant(2.12194440e-4f), r);
    Packet series = pmadd(r, constant(0.001392617612010237f), constant(0.008363173074517644f));
    series = pmadd(series, r, constant(0.041666554662048556f));
    series = pmadd(series, r, constant(0.16666577025597937f));
    series = pmadd(series, r, constant(0.5f));
    series = padd(pmadd(pmul(series, r), r, r), constant(1.0f));
    const Packet power = preinterpret<Packet>(plogical_shift_left<23>(preinterpret<Integers>(shifted)));
    return pandnot(pmul(series, power), pcmp_lt(x, constant(-87.3365f)));
  } else {
    constexpr Real smallest = std::is_same_v<Real, float> ? Real(-87.3365) : Real(-708.396);
    if constexpr (Simd<Real>::lanes > 1)
      return pandnot(pexp(x), pcmp_lt(x, pset1<Packet>(smallest)));
    else
      return x < smallest ? Packet(0) : Packet(std::exp(x));
  }
}

}  // namespace posenc::inline v0::detail
