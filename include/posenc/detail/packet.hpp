// SPDX-License-Identifier: MIT
#pragma once

// The one place that uses Eigen's packets, which are not part of its public interface: the names below exist in Eigen
// 3.4 and 5.0 for every instruction set, and where there is none a packet is a scalar.

#include <Eigen/Core>
#include <cmath>
#include <complex>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

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
#pragma GCC diagnostic ignored "-Wuninitialized"       // of g++ 12 itself: its AVX-512 intrinsics, GCC bug 105593
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
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
  using Square = Eigen::internal::PacketBlock<packet_t<Real>, static_cast<int>(Simd<Real>::lanes)>;
};

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

/// In bytes: what is larger would for the most part not be found in the caches afterwards.
inline constexpr Eigen::Index streamed_bytes = Eigen::Index{8} << 20;

/// A store around the caches, for what is larger than they are, to a multiple of the size of a packet; other than on
/// x86 an ordinary one. Between such stores and the end of a function stands finish_streaming.
template <class Scalar, class Packet>
EIGEN_ALWAYS_INLINE void stream(Scalar* to, const Packet& packet) {
#if defined(EIGEN_VECTORIZE_AVX512)
  if constexpr (sizeof(packet) == 64) return _mm512_stream_si512((__m512i*)to, (__m512i)packet);
#endif
#if defined(EIGEN_VECTORIZE_AVX)
  if constexpr (sizeof(packet) == 32) return _mm256_stream_si256((__m256i*)to, (__m256i)packet);
#endif
#if defined(EIGEN_VECTORIZE_SSE)
  if constexpr (sizeof(packet) == 16) return _mm_stream_si128((__m128i*)to, (__m128i)packet);
#endif
  std::memcpy(static_cast<void*>(to), &packet, sizeof(packet));
}
template <class Real>
bool may_stream(const Real* to) {
  return reinterpret_cast<std::uintptr_t>(to) % sizeof(packet_t<Real>) == 0;
}
inline void finish_streaming() {
#if defined(EIGEN_VECTORIZE_SSE)
  _mm_sfence();
#endif
}

template <class Packet>
EIGEN_ALWAYS_INLINE Packet multiply(const Packet& a, const Packet& b) {
  return Eigen::internal::pmul(a, b);
}
/// a b + c.
template <class Packet>
EIGEN_ALWAYS_INLINE Packet multiply_add(const Packet& a, const Packet& b, const Packet& c) {
  return Eigen::internal::pmadd(a, b, c);
}
template <class Packet>
EIGEN_ALWAYS_INLINE Packet sum(const Packet& a, const Packet& b) {
  return Eigen::internal::padd(a, b);
}
template <class Packet>
EIGEN_ALWAYS_INLINE Packet negate(const Packet& a) {
  return Eigen::internal::pnegate(a);
}
template <class Packet>
EIGEN_ALWAYS_INLINE Packet magnitude(const Packet& a) {
  return Eigen::internal::pabs(a);
}
template <class Packet>
EIGEN_ALWAYS_INLINE Packet smaller(const Packet& a, const Packet& b) {
  return Eigen::internal::pmin(a, b);
}
template <class Packet>
EIGEN_ALWAYS_INLINE auto smallest_element(const Packet& a) {
  return Eigen::internal::predux_min(a);
}

/// Two packets of double rounded to float: one behind the other, or taking turns. Only where floats are packed by twice
/// as many as doubles.
///
///   joined    a0 a1 ... b0 b1 ...         zipped    a0 b0 a1 b1 ...
enum class Order { joined, zipped };
template <Order order, class Wide, int... lane>
EIGEN_ALWAYS_INLINE packet_t<float> rounded(const Wide& a, const Wide& b, std::integer_sequence<int, lane...>) {
  constexpr int n = sizeof...(lane) / 2;
#if defined(__GNUC__)
  typedef float Part __attribute__((vector_size(n * sizeof(float))));
  const Part x = __builtin_convertvector(a, Part), y = __builtin_convertvector(b, Part);
  return __builtin_shufflevector(x, y, (order == Order::joined ? lane : lane % 2 * n + lane / 2)...);
#else
  double from[2 * n];
  store(from, a);
  store(from + n, b);
  const float to[] = {static_cast<float>(from[order == Order::joined ? lane : lane % 2 * n + lane / 2])...};
  return load(to);
#endif
}
template <Order order, class Wide>
EIGEN_ALWAYS_INLINE packet_t<float> rounded(const Wide& a, const Wide& b) {
  return rounded<order>(a, b, std::make_integer_sequence<int, static_cast<int>(Simd<float>::lanes)>());
}

template <class Packet>
EIGEN_ALWAYS_INLINE Packet difference(const Packet& a, const Packet& b) {
  return Eigen::internal::psub(a, b);
}
/// The larger of a and b; which of them where one is NaN depends on the machine.
template <class Packet>
EIGEN_ALWAYS_INLINE Packet larger(const Packet& a, const Packet& b) {
  return Eigen::internal::pmax(a, b);
}
template <class Packet>
EIGEN_ALWAYS_INLINE auto largest_element(const Packet& a) {
  return Eigen::internal::predux_max(a);
}
template <class Packet>
EIGEN_ALWAYS_INLINE auto sum_of_elements(const Packet& a) {
  return Eigen::internal::predux(a);
}

/// Rows of a square of as many numbers as a packet holds become columns:
/// to[i * to_step + j] = factor * from[j * from_step + i].
template <class Real>
EIGEN_ALWAYS_INLINE void transpose(const Real* from, Eigen::Index from_step, Real factor, Real* to,
                                   Eigen::Index to_step) {
  constexpr int n = static_cast<int>(Simd<Real>::lanes);
  typename SimdParts<Real>::Square square;
  for (int i = 0; i < n; ++i) square.packet[i] = multiply(load(from + i * from_step), broadcast(factor));
  if constexpr (n > 1) Eigen::internal::ptranspose(square);
  for (int i = 0; i < n; ++i) store(to + i * to_step, packet_t<Real>(square.packet[i]));
}

/// Calls action(packet) with packets of half and then of a quarter as many numbers, for the sake of their types.
template <class Real, class Action>
EIGEN_ALWAYS_INLINE void for_smaller_packets(Action action) {
  action(typename SimdParts<Real>::Half());
  action(typename SimdParts<Real>::Quarter());
}
/// Rows become columns, of as many packets as each holds numbers.
template <class Packet, std::size_t n>
EIGEN_ALWAYS_INLINE void transpose(Packet (&square)[n]) {
  Eigen::internal::PacketBlock<Packet, static_cast<int>(n)> block;
  for (std::size_t i = 0; i < n; ++i) block.packet[i] = square[i];
  Eigen::internal::ptranspose(block);
  for (std::size_t i = 0; i < n; ++i) square[i] = block.packet[i];
}
/// What a packet is made of: `size` numbers of `type`; and `half`, a packet of half as many.
template <class Packet>
struct PacketTraits : Eigen::internal::unpacket_traits<Packet> {};

/// Of the size of the packet that is given.
template <class Packet>
inline constexpr Eigen::Index size_of = PacketTraits<Packet>::size;
template <class Packet, class Real>
EIGEN_ALWAYS_INLINE Packet load_as(const Real* from) {
  return Eigen::internal::ploadu<Packet>(from);
}
template <class Packet, class Real>
EIGEN_ALWAYS_INLINE void store_as(Real* to, const Packet& packet) {
  Eigen::internal::pstoreu(to, packet);
}
template <class Packet, class Real>
EIGEN_ALWAYS_INLINE Packet broadcast_as(Real value) {
  return Eigen::internal::pset1<Packet>(value);
}

/// e^x for x <= 0, element by element: 1 for 0, exactly 0 below -87 (float) or -708.4 (double), NaN for NaN.
///
/// For float: x = n ln 2 + r, and e^r by a polynomial, both doubled and halved so that nothing is denormal. The low bits
/// of x / ln 2 + 1.5 * 2^23 + 126, moved up to where an exponent is, are 2^(n - 1), and 0 for n = -126, to which all
/// smaller ones are raised. Relative error below 2e-7 for x > -16, and 4e-7 from there on. Eleven instructions.
template <class Real>
EIGEN_ALWAYS_INLINE packet_t<Real> exp_of_negative(const packet_t<Real>& x) {
  using namespace Eigen::internal;
  using Packet = packet_t<Real>;
  if constexpr (std::is_same_v<Real, float> && Simd<Real>::lanes > 1) {
    using Integers = typename SimdBits<Real>::Packet;
    const auto constant = [](float value) { return pset1<Packet>(value); };
    const Packet raised = pmax(x, constant(-87.3365447f));
    const Packet shifted = pmadd(raised, constant(1.44269504f), constant(12583038.0f));  // 1.5 * 2^23 + 126 + n
    const Packet n = psub(shifted, constant(12583038.0f));
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
    const Packet r = pmadd(n, constant(-0.693147182f), raised);
#else  // n ln 2 in two parts, the first exact in few bits
    const Packet r = pmadd(n, constant(2.12194440e-4f), pmadd(n, constant(-0.693359375f), raised));
#endif
    Packet series = pmadd(r, constant(0.0166302733f), constant(0.0837969854f));
    series = pmadd(series, r, constant(0.333345085f));
    series = pmadd(series, r, constant(0.999982893f));
    series = pmadd(series, r, constant(1.99999964f));
    series = pmadd(series, r, constant(2.0f));
    return pmul(series, preinterpret<Packet>(plogical_shift_left<23>(preinterpret<Integers>(shifted))));
  } else {
    constexpr Real smallest = std::is_same_v<Real, float> ? Real(-87.3365) : Real(-708.396);
    if constexpr (Simd<Real>::lanes > 1)
      return pandnot(pexp(x), pcmp_lt(x, pset1<Packet>(smallest)));
    else
      return x < smallest ? Packet(0) : Packet(std::exp(x));
  }
}

// Weights relative to a maximum m in the units of the instructions that round to and scale by powers of two, where there
// are such: e^(s - m) is 2^(s log2 e - m log2 e), one rounding of a fused multiply-add, and no clamping is needed. The
// rounding of m log2 e is a factor that all weights have in common, and that is why m must be moderate.
#if defined(EIGEN_VECTORIZE_AVX512) && defined(__AVX512DQ__)
template <class Real>
inline constexpr bool weighs_by_powers = std::is_same_v<Real, float>;

/// Whether all elements are -inf or below 2^20 in magnitude.
EIGEN_ALWAYS_INLINE bool are_moderate(const __m512& x) {
  const __mmask16 is_small = _mm512_cmp_ps_mask(_mm512_abs_ps(x), _mm512_set1_ps(1048576.0f), _CMP_LT_OQ);
  return (is_small | _mm512_fpclass_ps_mask(x, 0x10)) == 0xffff;
}
/// 2^x for x < 1, element by element: exactly 0 below -125.5, NaN for NaN. Relative error below 2e-7. Eight instructions.
EIGEN_ALWAYS_INLINE __m512 power_of_two(const __m512& x) {
  const auto constant = [](float value) { return _mm512_set1_ps(value); };
  const __mmask16 is_something = _mm512_cmp_ps_mask(x, constant(-125.5f), _CMP_NLT_UQ);
  const __m512 r = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF);  // x - floor x
  __m512 series = _mm512_fmadd_ps(r, constant(0.00186713075f), constant(0.00901702885f));
  series = _mm512_fmadd_ps(series, r, constant(0.0557999164f));
  series = _mm512_fmadd_ps(series, r, constant(0.240164444f));
  series = _mm512_fmadd_ps(series, r, constant(0.693151295f));
  series = _mm512_fmadd_ps(series, r, constant(1.0f));
  return _mm512_maskz_scalef_ps(is_something, series, x);
}
#else
template <class Real>
inline constexpr bool weighs_by_powers = false;
template <class Packet>
bool are_moderate(const Packet& x);
template <class Packet>
Packet power_of_two(const Packet& x);
#endif

// What the rotation of features takes (rotate_packets.hpp): packets that come from half and bfloat16 as well.

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wignored-attributes"  // as above
#pragma GCC diagnostic ignored "-Wuninitialized"       // g++ 12 warns of its own AVX-512 header: its bug 105593
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

template <class Packet>
using packet_scalar_t = typename PacketTraits<Packet>::type;

template <class Packet>
using half_packet_t = typename PacketTraits<Packet>::half;

inline constexpr bool many_registers = EIGEN_ARCH_DEFAULT_NUMBER_OF_REGISTERS >= 32;

/// How a packet of numbers to compute with comes from memory and goes back: through a packet of as many stored ones.
template <class Scalar, class Packet>
struct PacketMemory {
  using Real = packet_scalar_t<Packet>;
  using Stored = typename Eigen::internal::find_best_packet<Scalar, size_of<Packet>>::type;

  /// Whether Eigen converts as many at a time as there are in a packet.
  static constexpr bool available =
      sizeof(Scalar) == 2 && sizeof(Real) == 4 && Eigen::internal::unpacket_traits<Stored>::size == size_of<Packet> &&
      static_cast<bool>(Eigen::internal::type_casting_traits<Scalar, Real>::VectorizedCast) &&
      static_cast<bool>(Eigen::internal::type_casting_traits<Real, Scalar>::VectorizedCast);

  static EIGEN_ALWAYS_INLINE Packet load(const Scalar* from) {
    return Eigen::internal::pcast<Stored, Packet>(Eigen::internal::ploadu<Stored>(from));
  }
  static EIGEN_ALWAYS_INLINE Stored stored(const Packet& x) { return Eigen::internal::pcast<Packet, Stored>(x); }
  static EIGEN_ALWAYS_INLINE void store(Scalar* to, const Packet& x) { Eigen::internal::pstoreu(to, stored(x)); }
};

/// As it is.
template <class Packet>
struct PacketMemory<typename Eigen::internal::unpacket_traits<Packet>::type, Packet> {
  using Real = packet_scalar_t<Packet>;
  static constexpr bool available = size_of<Packet> > 1;
  static EIGEN_ALWAYS_INLINE Packet load(const Real* from) { return Eigen::internal::ploadu<Packet>(from); }
  /// x0 x0 x1 x1 ...
  static EIGEN_ALWAYS_INLINE Packet load_each_twice(const Real* from) {
#if defined(EIGEN_VECTORIZE_AVX512)
    if constexpr (sizeof(Packet) == 64 && size_of<Packet> == 16) {  // one permutation instead of Eigen's two
      const __m512i order = _mm512_set_epi32(7, 7, 6, 6, 5, 5, 4, 4, 3, 3, 2, 2, 1, 1, 0, 0);
      return _mm512_permutexvar_ps(order, _mm512_castps256_ps512(_mm256_loadu_ps(from)));
    }
#endif
    return Eigen::internal::ploaddup<Packet>(from);
  }
  static EIGEN_ALWAYS_INLINE const Packet& stored(const Packet& x) { return x; }
  static EIGEN_ALWAYS_INLINE void store(Real* to, const Packet& x) { Eigen::internal::pstoreu(to, x); }
};

/// a b + c d, where c d is rounded first and the sum once if the machine has a fused multiply-add: the same bits for a
/// packet, for a packet of another size and for a number alone, which the compiler would otherwise fuse as it likes.
template <class Packet>
EIGEN_ALWAYS_INLINE Packet sum_of_products(const Packet& a, const Packet& b, const Packet& c, const Packet& d) {
  if constexpr (constexpr Eigen::Index size = size_of<Packet>; size > 1) {
    return Eigen::internal::pmadd(a, b, Eigen::internal::pmul(c, d));
  } else {
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA) || defined(EIGEN_VECTORIZE_FMA) || \
    defined(EIGEN_HAS_SINGLE_INSTRUCTION_MADD)
    return std::fma(a, b, c * d);
#else
    return a * b + c * d;
#endif
  }
}

/// A minus as a factor: Eigen's negation makes 0 of 0 with AVX-512.
template <class Packet>
EIGEN_ALWAYS_INLINE Packet with_sign(const Packet& x, packet_scalar_t<Packet> sign) {
  return Eigen::internal::pmul(x, Eigen::internal::pset1<Packet>(sign));
}
/// -x0 x1 -x2 x3 ... if `first`, else x0 -x1 x2 -x3 ...
template <class Packet>
EIGEN_ALWAYS_INLINE Packet with_signs(const Packet& x, bool first) {
  using Real = packet_scalar_t<Packet>;
  static constexpr Real signs[] = {-1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1};
  static_assert(size_of<Packet> < static_cast<Eigen::Index>(sizeof(signs) / sizeof(Real)));
  return Eigen::internal::pmul(x, Eigen::internal::ploadu<Packet>(signs + (first ? 0 : 1)));
}

/// x1 x0 x3 x2 ...
template <class Packet>
EIGEN_ALWAYS_INLINE Packet swap_neighbours(const Packet& x) {
  using Complex =
      typename Eigen::internal::find_best_packet<std::complex<packet_scalar_t<Packet>>, size_of<Packet> / 2>::type;
  return Eigen::internal::pcplxflip(Complex(x)).v;
}

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

}  // namespace posenc::inline v0::detail

#include <posenc/detail/packet_storage.hpp>
