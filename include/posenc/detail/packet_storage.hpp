// SPDX-License-Identifier: MIT
#pragma once

// The conversions of half and bfloat16 that Eigen does number by number. A part of packet.hpp, which includes it.

#include <Eigen/Core>

#include <posenc/detail/packet.hpp>

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wignored-attributes"  // of the vector type as a template argument, and harmless
#pragma GCC diagnostic ignored "-Wuninitialized"       // g++ 12 warns of its own AVX-512 header: its bug 105593
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

namespace posenc::inline v0::detail {

#if defined(__F16C__) && defined(EIGEN_VECTORIZE_AVX)
// Eigen 3.4 with g++ converts half number by number, in software.
template <>
struct PacketMemory<Eigen::half, __m256> {
  static constexpr bool available = true;
  static EIGEN_ALWAYS_INLINE __m256 load(const Eigen::half* from) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  }
  static EIGEN_ALWAYS_INLINE __m128i stored(const __m256& x) { return _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT); }
  static EIGEN_ALWAYS_INLINE void store(Eigen::half* to, const __m256& x) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), stored(x));
  }
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
  static EIGEN_ALWAYS_INLINE void store(Eigen::half* to, const __m512& x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), stored(x));
  }
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

}  // namespace posenc::inline v0::detail

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif
