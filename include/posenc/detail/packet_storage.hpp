// SPDX-License-Identifier: MIT
#pragma once

// The conversions that Eigen does number by number or not at all: of half and bfloat16, and of float to compute with in
// double; and packets of bfloat16 in an order of their own. A part of packet.hpp, which includes it.

#include <Eigen/Core>
#include <cstdint>
#include <cstring>
#include <limits>

#include <posenc/detail/packet.hpp>

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wignored-attributes"  // of the vector type as a template argument, and harmless
#pragma GCC diagnostic ignored "-Wuninitialized"       // g++ 12 warns of its own AVX-512 header: its bug 105593
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

namespace posenc::inline v0::detail {

#if defined(__GNUC__)
template <class Packet>
inline constexpr bool holds_doubles = std::is_same_v<Packet, packet_t<double>>&& Simd<double>::lanes > 1;

/// Stored as float and computed with in double.
template <class Packet>
requires holds_doubles<Packet>
struct PacketMemory<float, Packet> {
  typedef float Stored __attribute__((vector_size(Simd<double>::lanes * sizeof(float))));
  static constexpr bool available = true;
  static EIGEN_ALWAYS_INLINE Packet load(const float* from) {
    Stored x;
    std::memcpy(&x, from, sizeof x);
    return __builtin_convertvector(x, Packet);
  }
  static EIGEN_ALWAYS_INLINE void store(float* to, const Packet& wide) {
    const auto x = __builtin_convertvector(wide, Stored);
    std::memcpy(to, &x, sizeof x);
  }
};
#endif

/// Memory is copied to, because g++ 12 makes one instruction of that and the conversion, which costs less than the two.
template <class Scalar, class Stored>
EIGEN_ALWAYS_INLINE void store_converted(Scalar* to, const Stored& x) {
  std::memcpy(static_cast<void*>(to), &x, sizeof x);
}

#if defined(EIGEN_VECTORIZE_SSE2) && !defined(EIGEN_VECTORIZE_AVX)
EIGEN_ALWAYS_INLINE __m128i select(const __m128i& mask, const __m128i& yes, const __m128i& no) {
  return _mm_or_si128(_mm_and_si128(mask, yes), _mm_andnot_si128(mask, no));
}
EIGEN_ALWAYS_INLINE __m128i load_four(const void* from) { return _mm_loadl_epi64(static_cast<const __m128i*>(from)); }
/// The lower halves of four integers that fit into them.
EIGEN_ALWAYS_INLINE std::uint64_t four_of(const __m128i& x) {
  std::uint64_t to = 0;
  _mm_storel_epi64(reinterpret_cast<__m128i*>(&to), _mm_packs_epi32(x, x));
  return to;
}

template <>
struct PacketMemory<Eigen::bfloat16, __m128> {
  static constexpr bool available = true;
  static EIGEN_ALWAYS_INLINE __m128 load(const Eigen::bfloat16* from) {
    return _mm_castsi128_ps(_mm_unpacklo_epi16(_mm_setzero_si128(), load_four(from)));
  }
  static EIGEN_ALWAYS_INLINE std::uint64_t stored(const __m128& x) {
    const __m128i bits = _mm_castps_si128(x), odd = _mm_and_si128(_mm_srli_epi32(bits, 16), _mm_set1_epi32(1));
    __m128i up = _mm_add_epi32(_mm_add_epi32(bits, _mm_set1_epi32(0x7fff)), odd);  // ties to even
    if (const __m128 nan = _mm_cmpunord_ps(x, x); _mm_movemask_ps(nan) != 0) [[unlikely]] {
      const __m128 minus = _mm_set1_ps(-0.0F), quiet = _mm_set1_ps(std::numeric_limits<float>::quiet_NaN());
      up = select(_mm_castps_si128(nan), _mm_castps_si128(_mm_or_ps(_mm_and_ps(x, minus), quiet)), up);
    }
    return four_of(_mm_srai_epi32(up, 16));
  }
  static EIGEN_ALWAYS_INLINE void store(Eigen::bfloat16* to, const __m128& x) { store_converted(to, stored(x)); }
};

/// Between 2^-14, the smallest normal half, and 2^16, where infinity begins, exponents differ by a constant, 112.
template <>
struct PacketMemory<Eigen::half, __m128> {
  static constexpr bool available = true;
  static EIGEN_ALWAYS_INLINE __m128 load(const Eigen::half* from) {
    const __m128i words = _mm_unpacklo_epi16(load_four(from), _mm_setzero_si128());
    const __m128i magnitude = _mm_and_si128(words, _mm_set1_epi32(0x7fff)), bias = _mm_set1_epi32(112 << 23);
    const __m128i normal = _mm_add_epi32(_mm_slli_epi32(magnitude, 13), bias);
    const __m128i is_infinite = _mm_cmpgt_epi32(magnitude, _mm_set1_epi32(0x7bff));  // or NaN
    const __m128i is_denormal = _mm_cmpgt_epi32(_mm_set1_epi32(0x0400), magnitude);
    const __m128 denormal = _mm_mul_ps(_mm_cvtepi32_ps(magnitude), _mm_set1_ps(0x1p-24F));
    const __m128i x = _mm_add_epi32(normal, _mm_and_si128(is_infinite, bias));
    const __m128i sign = _mm_slli_epi32(_mm_xor_si128(words, magnitude), 16);
    return _mm_castsi128_ps(_mm_or_si128(select(is_denormal, _mm_castps_si128(denormal), x), sign));
  }
  static EIGEN_ALWAYS_INLINE std::uint64_t stored(const __m128& x) {
    const __m128 minus = _mm_set1_ps(-0.0F), half = _mm_set1_ps(0.5F);  // a denormal one begins where those of 0.5 end
    const __m128 magnitude = _mm_min_ps(_mm_andnot_ps(minus, x), _mm_set1_ps(0x1p16F));  // of NaN as well
    const __m128i bits = _mm_castps_si128(magnitude), odd = _mm_and_si128(_mm_srli_epi32(bits, 13), _mm_set1_epi32(1));
    const __m128i up = _mm_add_epi32(_mm_add_epi32(bits, _mm_set1_epi32(0xfff - (112 << 23))), odd);  // ties to even
    const __m128i denormal = _mm_sub_epi32(_mm_castps_si128(_mm_add_ps(magnitude, half)), _mm_castps_si128(half));
    const __m128i is_denormal = _mm_cmpgt_epi32(_mm_set1_epi32(113 << 23), bits);
    const __m128i nan = _mm_and_si128(_mm_castps_si128(_mm_cmpunord_ps(x, x)), _mm_set1_epi32(0x0200));
    const __m128i sign = _mm_srai_epi32(_mm_castps_si128(_mm_and_ps(x, minus)), 16);
    return four_of(_mm_or_si128(select(is_denormal, denormal, _mm_srli_epi32(up, 13)), _mm_or_si128(nan, sign)));
  }
  static EIGEN_ALWAYS_INLINE void store(Eigen::half* to, const __m128& x) { store_converted(to, stored(x)); }
};
#endif

#if defined(__F16C__) && defined(EIGEN_VECTORIZE_AVX)
// Eigen 3.4 with g++ converts half number by number, in software.
template <>
struct PacketMemory<Eigen::half, __m256> {
  static constexpr bool available = true;
  static EIGEN_ALWAYS_INLINE __m256 load(const Eigen::half* from) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  }
  static EIGEN_ALWAYS_INLINE __m128i stored(const __m256& x) { return _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT); }
  static EIGEN_ALWAYS_INLINE void store(Eigen::half* to, const __m256& x) { store_converted(to, stored(x)); }
};
#endif

#if defined(EIGEN_VECTORIZE_AVX512)
template <>
struct PacketMemory<Eigen::half, __m512> {
  static constexpr bool available = true;
  static EIGEN_ALWAYS_INLINE __m512 load(const Eigen::half* from) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
  }
  static EIGEN_ALWAYS_INLINE __m256i stored(const __m512& x) { return _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT); }
  static EIGEN_ALWAYS_INLINE void store(Eigen::half* to, const __m512& x) { store_converted(to, stored(x)); }
};

#endif

#if defined(EIGEN_VECTORIZE_AVX2)
template <>
struct PacketMemory<Eigen::bfloat16, __m256> {
  static constexpr bool available = true;
  static EIGEN_ALWAYS_INLINE __m256 load(const Eigen::bfloat16* from) {
    const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
  }
  static EIGEN_ALWAYS_INLINE __m128i stored(const __m256& x) {
    const __m256i bits = _mm256_castps_si256(x);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    __m256i up = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);  // ties to even
    if (const __m256 nan = _mm256_cmp_ps(x, x, _CMP_UNORD_Q); _mm256_movemask_ps(nan) != 0) [[unlikely]]
      up = _mm256_blendv_epi8(up, _mm256_or_si256(bits, _mm256_set1_epi32(0x400000)), _mm256_castps_si256(nan));
    const __m256i upper_halves = _mm256_set1_epi64x(0x0f0e0b0a07060302);
    return _mm256_castsi256_si128(_mm256_permute4x64_epi64(_mm256_shuffle_epi8(up, upper_halves), 0x08));
  }
  static EIGEN_ALWAYS_INLINE void store(Eigen::bfloat16* to, const __m256& x) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), stored(x));
  }
};
#endif

#if defined(EIGEN_VECTORIZE_AVX512) && defined(__AVX512BW__) && defined(__AVX512DQ__)
template <>
struct PacketMemory<Eigen::bfloat16, __m512> {
  static constexpr bool available = true;

  /// Moves the upper half of every number to where the lower half of a float is, and back.
  static EIGEN_ALWAYS_INLINE __m512 load(const Eigen::bfloat16* from) {
    const __m512i each_in_upper_half = _mm512_set_epi16(15, 0, 14, 0, 13, 0, 12, 0, 11, 0, 10, 0, 9, 0, 8, 0, 7, 0, 6,
                                                        0, 5, 0, 4, 0, 3, 0, 2, 0, 1, 0, 0, 0);
    const __m512i bits = _mm512_castsi256_si512(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
    return _mm512_castsi512_ps(_mm512_maskz_permutexvar_epi16(0xaaaaaaaa, each_in_upper_half, bits));
  }
  static EIGEN_ALWAYS_INLINE __m256i stored(const __m512& x) {
#if defined(EIGEN_VECTORIZE_AVX512BF16)
    // The instruction makes zeros of denormal numbers.
    if (_mm512_fpclass_ps_mask(x, 0x20) == 0) [[likely]]
      return (__m256i)_mm512_cvtneps_pbh(x);
#endif
    return rounded(x);
  }
  static EIGEN_ALWAYS_INLINE __m256i rounded(const __m512& x) {
    const __m512i bits = _mm512_castps_si512(x);
    const __mmask16 odd = _mm512_test_epi32_mask(bits, _mm512_set1_epi32(0x10000));
    __m512i up = _mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff));
    up = _mm512_mask_add_epi32(up, odd, up, _mm512_set1_epi32(1));  // ties to even
    const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    up = _mm512_mask_or_epi32(up, nan, bits, _mm512_set1_epi32(0x400000));
    const __m512i upper_halves = _mm512_set_epi16(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 31, 29, 27, 25, 23,
                                                  21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1);
    return _mm512_castsi512_si256(_mm512_permutexvar_epi16(upper_halves, up));
  }
  static EIGEN_ALWAYS_INLINE void store(Eigen::bfloat16* to, const __m512& x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), stored(x));
  }
};
#endif

/// Numbers of even and of odd index, apart. Two neighbours of bfloat16 are a word of 32 bits: the even one comes from
/// it by a shift and the odd one by a mask, which costs less than a packet of them in order, and they change places for
/// nothing.
template <class Packet>
struct EvenOdd {
  Packet even, odd;
};

template <class Packet>
struct PacketTraits<EvenOdd<Packet>> {
  using type = packet_scalar_t<Packet>;
  using half = Packet;
  static constexpr Eigen::Index size = 2 * size_of<Packet>;
};

/// Of other scalars than those below.
template <class Scalar, class Packet>
struct PacketMemory<Scalar, EvenOdd<Packet>> {
  static constexpr bool available = false;
};

template <class Packet>
EIGEN_ALWAYS_INLINE EvenOdd<Packet> sum(const EvenOdd<Packet>& a, const EvenOdd<Packet>& b) {
  return {sum(a.even, b.even), sum(a.odd, b.odd)};
}
template <class Packet>
EIGEN_ALWAYS_INLINE EvenOdd<Packet> multiply(const Packet& a, const EvenOdd<Packet>& b) {
  return {multiply(a, b.even), multiply(a, b.odd)};
}
template <class Packet>
EIGEN_ALWAYS_INLINE EvenOdd<Packet> with_sign(const EvenOdd<Packet>& x, packet_scalar_t<Packet> sign) {
  return {with_sign(x.even, sign), with_sign(x.odd, sign)};
}
template <class Packet>
EIGEN_ALWAYS_INLINE EvenOdd<Packet> sum_of_products(const EvenOdd<Packet>& a, const EvenOdd<Packet>& b,
                                                    const EvenOdd<Packet>& c, const EvenOdd<Packet>& d) {
  return {sum_of_products(a.even, b.even, c.even, d.even), sum_of_products(a.odd, b.odd, c.odd, d.odd)};
}
template <class Packet>
EIGEN_ALWAYS_INLINE EvenOdd<Packet> with_signs(const EvenOdd<Packet>& x, bool first) {
  const packet_scalar_t<Packet> sign = first ? -1 : 1;
  return {with_sign(x.even, sign), with_sign(x.odd, -sign)};
}
template <class Packet>
EIGEN_ALWAYS_INLINE EvenOdd<Packet> swap_neighbours(const EvenOdd<Packet>& x) {
  return {x.odd, x.even};
}

/// The packet to compute in with what is stored as Scalar, where packets of Real are of this type and any order will do.
template <class Scalar, class Packet>
struct WorkingPacket {
  using type = Packet;
};
template <class Scalar, class Real>
using working_packet_t = typename WorkingPacket<Scalar, packet_t<Real>>::type;

// with_short_nan makes of every NaN one whose lower half is zero: rounded as if it were a number, it stays NaN. apart
// takes the numbers of even and of odd index out of a packet and the next one.
#if defined(EIGEN_VECTORIZE_AVX512) && defined(__AVX512BW__)
EIGEN_ALWAYS_INLINE __m512 with_short_nan(const __m512& x) {
  return _mm512_fixupimm_ps(x, x, _mm512_set1_epi32(0x33), 0);  // the NaN of invalid operations for any
}
EIGEN_ALWAYS_INLINE EvenOdd<__m512> apart(const __m512& a, const __m512& b) {
  const __m512i even = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
  const __m512i odd = _mm512_or_si512(even, _mm512_set1_epi32(1));
  return {_mm512_permutex2var_ps(a, even, b), _mm512_permutex2var_ps(a, odd, b)};
}
template <>
struct WorkingPacket<Eigen::bfloat16, __m512> {
  using type = EvenOdd<__m512>;
};
template <>
struct PacketMemory<Eigen::bfloat16, EvenOdd<__m512>> {
  static constexpr bool available = true;
  static EIGEN_ALWAYS_INLINE EvenOdd<__m512> load(const Eigen::bfloat16* from) {
    const __m512i words = _mm512_loadu_si512(from);
    return {_mm512_castsi512_ps(_mm512_slli_epi32(words, 16)),
            _mm512_castsi512_ps(_mm512_and_si512(words, _mm512_set1_epi32(-0x10000)))};
  }
  static EIGEN_ALWAYS_INLINE __m512i stored(const EvenOdd<__m512>& x) {
    const __m512i even = _mm512_castps_si512(x.even), odd = _mm512_castps_si512(x.odd), one = _mm512_set1_epi16(1);
#if defined(__AVX512VBMI2__)
    const __m512i even_upper = _mm512_shldi_epi32(odd, even, 16), odd_lower = even_upper;  // both in one word
#else
    const __m512i even_upper = _mm512_srli_epi32(even, 16), odd_lower = _mm512_slli_epi32(odd, 16);
#endif
    const __m512i upper = _mm512_mask_blend_epi16(0xaaaaaaaa, even_upper, odd);
    const __m512i lower = _mm512_mask_blend_epi16(0xaaaaaaaa, even, odd_lower);
    const __m512i rest = _mm512_ternarylogic_epi32(lower, upper, one, 0xf8);  // lower | (upper & 1): ties to even
    return _mm512_mask_add_epi16(upper, _mm512_cmpgt_epu16_mask(rest, _mm512_set1_epi16(-0x8000)), upper, one);
  }
  static EIGEN_ALWAYS_INLINE void store(Eigen::bfloat16* to, const EvenOdd<__m512>& x) {
    _mm512_storeu_si512(to, stored(x));
  }
};
#elif defined(EIGEN_VECTORIZE_AVX2)
EIGEN_ALWAYS_INLINE __m256 with_short_nan(const __m256& x) {
  constexpr float nan = std::numeric_limits<float>::quiet_NaN();  // of its sign the smallest as an integer
  const __m256i positive = _mm256_min_epi32(_mm256_castps_si256(x), _mm256_castps_si256(_mm256_set1_ps(nan)));
  return _mm256_castsi256_ps(_mm256_min_epu32(positive, _mm256_castps_si256(_mm256_set1_ps(-nan))));
}
EIGEN_ALWAYS_INLINE EvenOdd<__m256> apart(const __m256& a, const __m256& b) {
  const auto in_order = [](const __m256& x) {
    return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(x), 0xd8));
  };
  return {in_order(_mm256_shuffle_ps(a, b, 0x88)), in_order(_mm256_shuffle_ps(a, b, 0xdd))};
}
template <>
struct WorkingPacket<Eigen::bfloat16, __m256> {
  using type = EvenOdd<__m256>;
};
template <>
struct PacketMemory<Eigen::bfloat16, EvenOdd<__m256>> {
  static constexpr bool available = true;
  static EIGEN_ALWAYS_INLINE EvenOdd<__m256> load(const Eigen::bfloat16* from) {
    const __m256i words = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
    return {_mm256_castsi256_ps(_mm256_slli_epi32(words, 16)),
            _mm256_castsi256_ps(_mm256_and_si256(words, _mm256_set1_epi32(-0x10000)))};
  }
  static EIGEN_ALWAYS_INLINE __m256i stored(const EvenOdd<__m256>& x) {
    const __m256i even = _mm256_castps_si256(x.even), odd = _mm256_castps_si256(x.odd);
    const __m256i upper = _mm256_blend_epi16(_mm256_srli_epi32(even, 16), odd, 0xaa);
    const __m256i lower = _mm256_blend_epi16(even, _mm256_slli_epi32(odd, 16), 0xaa);
    const __m256i is_even = _mm256_andnot_si256(upper, _mm256_set1_epi16(1));  // ties to even
    return _mm256_add_epi16(upper, _mm256_srli_epi16(_mm256_subs_epu16(lower, is_even), 15));
  }
  static EIGEN_ALWAYS_INLINE void store(Eigen::bfloat16* to, const EvenOdd<__m256>& x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), stored(x));
  }
};
#endif

/// What is computed with bfloat16. It only comes from memory.
template <class Packet>
struct PacketMemory<float, EvenOdd<Packet>> {
  static constexpr bool available = true;
  static EIGEN_ALWAYS_INLINE EvenOdd<Packet> load(const float* from) {
    return apart(with_short_nan(load_as<Packet>(from)), with_short_nan(load_as<Packet>(from + size_of<Packet>)));
  }
  static EIGEN_ALWAYS_INLINE EvenOdd<Packet> load_each_twice(const float* from) {
    const Packet each = with_short_nan(load_as<Packet>(from));
    return {each, each};
  }
};

}  // namespace posenc::inline v0::detail

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif
