// SPDX-License-Identifier: MIT
#pragma once

// Cosines and sines to the last bit of double but for a hundredth, of angles that are sums of two doubles: alone, and as
// many at a time as a packet holds. With s = pi / 32, k the nearest integer to angle / s and r = angle - k s,
//
//   sin(k s + r) = sin(k s) + cos(k s) r + (cos(k s) (sin r - r) - sin(k s) (1 - cos r))        |r| <= pi / 64
//
// and cos(k s + r) likewise with cos(k s) and -sin(k s). Those come from a table, as the sum of a head of 26 bits and a
// tail; r is exact far beyond double, and has a head too. So the product of two heads is exact, and so is its sum with a
// head as that of two doubles; all other terms together are so small that their roundings hardly show. Where k is a
// multiple of 16, what remains is r or 1: a result near zero is as good as any other.
//
// No term depends on the number of lanes: a packet gives the bits that its angles give alone.

#include <Eigen/Core>
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>

#include <posenc/detail/packet.hpp>

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wignored-attributes"  // of the vector type as a template argument, and harmless
#endif

namespace posenc::inline v0::detail {

struct CosSin {
  double cos;
  double sin;
};

/// Whether a b + c in one rounding is an instruction. A compiler may then use it wherever it likes: nothing below relies
/// on the rounding of a product that is added to something.
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA) || defined(__FP_FAST_FMA) || defined(EIGEN_VECTORIZE_FMA) || \
    defined(EIGEN_VECTORIZE_AVX512) || defined(EIGEN_HAS_SINGLE_INSTRUCTION_MADD)
inline constexpr bool fuses = true;
#else
inline constexpr bool fuses = false;
#endif

/// sin(k pi / 32) for k = 0, ..., 16, as head and tail.
inline constexpr double sines_of_quarter[17][2] = {{0, 0},
                                                   {0x1.917a6cp-4, -0x1.eb25ea0f138c7p-31},
                                                   {0x1.8f8b84p-3, -0x1.cb2cfaa4da337p-30},
                                                   {0x1.294063p-2, -0x1.2a60fa574a369p-30},
                                                   {0x1.87de2a8p-2, -0x1.51569d2e59dbap-30},
                                                   {0x1.e2b5d38p-2, 0x1.bd8ec78362475p-36},
                                                   {0x1.1c73b38p-1, 0x1.ae68c86c9774ap-29},
                                                   {0x1.44cf328p-1, -0x1.7b7114f3fc4afp-28},
                                                   {0x1.6a09e68p-1, -0x1.80c4336f74d05p-29},
                                                   {0x1.8bc8068p-1, 0x1.8a8ba05a743dap-28},
                                                   {0x1.a9b6628p-1, 0x1.0ea1a3033ec62p-29},
                                                   {0x1.c38b2fp-1, 0x1.80bdb0d23e9d1p-29},
                                                   {0x1.d906bdp-1, -0x1.9ae573aea067cp-30},
                                                   {0x1.e9f4158p-1, -0x1.39d225a27d387p-29},
                                                   {0x1.f6297dp-1, -0x1.1469faa77a357p-34},
                                                   {0x1.fd88dap-1, 0x1.e89292cf04139p-28},
                                                   {1, 0}};

/// sin, cos (heads), sin, cos (tails) of k pi / 32 for k = 0, ..., 63.
struct alignas(32) SineCosine {
  double parts[4];
};
inline constexpr std::array<SineCosine, 64> sines_and_cosines = [] {
  std::array<SineCosine, 64> all{};
  for (std::size_t k = 0; k < 64; ++k)
    for (std::size_t part = 0; part < 4; ++part) {
      const std::size_t of_sine = (k + part % 2 * 16) % 64, half = of_sine % 32;
      const double value = sines_of_quarter[half <= 16 ? half : 32 - half][part / 2];
      all[k].parts[part] = of_sine < 32 ? value : -value;
    }
  return all;
}();

/// The sum of two packets of double, or of two doubles.
template <class Packet>
struct Angle {
  Packet high, low;
};

/// In radians: below it k has 28 bits, which its products with the parts of pi / 32 have room for.
inline constexpr double small_angle = 0x1.8p24;

template <class Packet>
struct SmallAngles {
  static constexpr Eigen::Index lanes = size_of<Packet>;
  using Sum = Angle<Packet>;

  /// a b + c.
  static EIGEN_ALWAYS_INLINE Packet fused(const Packet& a, const Packet& b, const Packet& c) {
    if constexpr (lanes > 1)
      return multiply_add(a, b, c);
    else
      return fuses ? std::fma(a, b, c) : a * b + c;
  }
  static EIGEN_ALWAYS_INLINE Packet constant(double value) {
    if constexpr (lanes > 1)
      return broadcast_as<Packet>(value);
    else
      return value;
  }

  /// The first 26 bits of x, rounded.
  static EIGEN_ALWAYS_INLINE Packet head(const Packet& x) {
    const Packet large = multiply(x, constant(134217729));  // 2^27 + 1
    return difference(large, difference(large, x));
  }

  /// position (high + low).
  static EIGEN_ALWAYS_INLINE Sum product(const Packet& position, const Packet& high, const Packet& low) {
    const Packet rounded = multiply(position, high);
    Packet rest;
    if constexpr (fuses) {
      rest = fused(position, high, negate(rounded));
    } else {
      const Packet a = head(position), b = head(high), c = difference(position, a), d = difference(high, b);
      rest = sum(difference(multiply(a, b), rounded), sum(multiply(a, d), multiply(c, b)));
      rest = sum(rest, multiply(c, d));
    }
    return {rounded, fused(position, low, rest)};
  }

  /// The integers nearest to x y; the last bits of theirs are those of `bits`.
  static EIGEN_ALWAYS_INLINE Packet nearest(const Packet& x, const Packet& y, std::uint64_t (&bits)[lanes]) {
    Packet shifted = fused(x, y, constant(0x1.8p52));
    EIGEN_OPTIMIZATION_BARRIER(shifted)  // or -ffast-math takes it back
    std::memcpy(bits, &shifted, sizeof bits);
    return difference(shifted, constant(0x1.8p52));
  }

  /// The parts of sines_and_cosines.
  static EIGEN_ALWAYS_INLINE void look_up(const std::uint64_t (&bits)[lanes], Packet (&parts)[4]) {
    const auto at = [&](Eigen::Index lane) { return sines_and_cosines[bits[lane] % 64].parts; };
    if constexpr (lanes == 1) {
      std::copy_n(at(0), 4, parts);
    } else if constexpr (lanes == 2) {
      for (int n = 0; n < 4; n += 2) {
        Packet square[] = {load_as<Packet>(at(0) + n), load_as<Packet>(at(1) + n)};
        transpose(square);
        std::copy_n(square, 2, parts + n);
      }
    } else if constexpr (lanes == 4) {
      for (int n = 0; n < 4; ++n) parts[n] = load_as<Packet>(at(n));
      transpose(parts);
    } else {
      alignas(64) double values[4][lanes];
      for (Eigen::Index lane = 0; lane < lanes; ++lane)
        for (int n = 0; n < 4; ++n) values[n][lane] = at(lane)[n];
      for (int n = 0; n < 4; ++n) parts[n] = load_as<Packet>(values[n]);
    }
  }

  /// first + second r + small, of which `first` and `second` are heads; the sum of the two largest is exact.
  static EIGEN_ALWAYS_INLINE Packet sum_of_large(const Packet& first, const Packet& second, const Packet& r_head,
                                                 const Packet& small) {
    Packet large, rest;
    if constexpr (fuses) {
      large = fused(second, r_head, first);
      rest = fused(second, r_head, difference(first, large));
    } else {
      const Packet exact = multiply(second, r_head);
      large = sum(first, exact);
      rest = difference(exact, difference(large, first));
    }
    return sum(large, sum(rest, small));
  }

  /// For |angle.high| < small_angle.
  static EIGEN_ALWAYS_INLINE void cos_sin(const Sum& angle, Packet& cos, Packet& sin) {
    std::uint64_t bits[lanes];
    Packet parts[4];
    const Packet k = nearest(angle.high, constant(0x1.45f306dc9c883p+3), bits);
    look_up(bits, parts);

    // pi / 32 in parts of 25, 24 and 53 bits: the products of the first two with k are exact, and so are the differences.
    const Packet exact =
        difference(difference(angle.high, multiply(k, constant(0x1.921fb5p-4))), multiply(k, constant(0x1.110b46p-30)));
    const Packet rest = fused(k, constant(-0x1.1a62633145c07p-58), angle.low);
    const Packet r = sum(exact, rest), low = difference(rest, difference(r, exact));
    const Packet r_head = fuses ? r : head(r), r_tail = difference(r, r_head);

    const Packet r2 = multiply(r, r), r4 = multiply(r2, r2);
    const auto series = [&](double a, double b, double c, double d) {  // a r^2 + b r^4 + c r^6 + d r^8
      return multiply(r2, fused(r4, fused(r2, constant(d), constant(c)), fused(r2, constant(b), constant(a))));
    };
    const Packet sin_tail = sum(r_tail, fused(r, series(-1 / 6., 1 / 120., -1 / 5040., 1 / 362880.), low));
    const Packet sin_r = sum(r_head, sin_tail), cos_r_1 = series(-1 / 2., 1 / 24., -1 / 720., 1 / 40320.);
    const auto turned = [&](const Packet& head, const Packet& tail, const Packet& other, const Packet& other_tail) {
      const Packet small =
          sum(fused(sum(head, tail), cos_r_1, tail), fused(other_tail, sin_r, multiply(other, sin_tail)));
      return sum_of_large(head, other, r_head, small);
    };
    sin = turned(parts[0], parts[2], parts[1], parts[3]);
    cos = turned(parts[1], parts[3], negate(parts[0]), negate(parts[2]));
  }
};

/// Of position (high + low), if that is small; `position` is at most 2^53.
inline bool is_small(double position, double high) {
  return std::abs(position * high) < small_angle && std::abs(high) < 0x1p900;
}
inline CosSin cos_sin_of_small(double high, double low) {
  CosSin result;
  SmallAngles<double>::cos_sin({high, low}, result.cos, result.sin);
  return result;
}
inline CosSin cos_sin_of_small(double position, double high, double low) {
  const Angle<double> angle = SmallAngles<double>::product(position, high, low);
  return cos_sin_of_small(angle.high, angle.low);
}

/// The same for n frequencies, in packets.
inline void cos_sin_of_small(double position, const double* high, const double* low, Eigen::Index n, double* cos,
                             double* sin) {
  using Packet = packet_t<double>;
  constexpr Eigen::Index lanes = Simd<double>::lanes;
  const Packet all_position = broadcast(position);
  const auto put = [&](const double* from, const double* from_low, double* to_cos, double* to_sin) {
    Packet c, s;
    SmallAngles<Packet>::cos_sin(SmallAngles<Packet>::product(all_position, load(from), load(from_low)), c, s);
    store(to_cos, c);
    store(to_sin, s);
  };
  Eigen::Index i = 0;
  for (; i + lanes <= n; i += lanes) put(high + i, low + i, cos + i, sin + i);
  if (i < n) {
    double parts[4][lanes] = {};
    std::copy(high + i, high + n, parts[0]);
    std::copy(low + i, low + n, parts[1]);
    put(parts[0], parts[1], parts[2], parts[3]);
    std::copy_n(parts[2], n - i, cos + i);
    std::copy_n(parts[3], n - i, sin + i);
  }
}

}  // namespace posenc::inline v0::detail

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif
