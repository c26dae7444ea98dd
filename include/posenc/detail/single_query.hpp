// SPDX-License-Identifier: MIT
#pragma once

// The kernels of attention for single queries, of which some may read the same keys side by side: scores down a column of
// keys, at the speed of reading keys and values.

#include <Eigen/Core>
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <utility>

#include <posenc/detail/packet.hpp>
#include <posenc/detail/read_ahead.hpp>
#include <posenc/detail/unroll.hpp>

namespace posenc::inline v0::detail {

using Eigen::Index;

/// Keys or values, one every `step` numbers.
template <class Real>
struct TokenColumns {
  const Real* data = nullptr;
  Index step = 0;

  const Real* operator[](Index token) const { return data + token * step; }
};

/// Bytes between what is read now and what is read next, wherever that is.
inline Index bytes_between(const void* now, const void* next) {
  return static_cast<Index>(reinterpret_cast<std::uintptr_t>(next) - reinterpret_cast<std::uintptr_t>(now));
}
/// 0 bytes: there is nothing to ask for.
EIGEN_ALWAYS_INLINE void prefetch_ahead(const void* now, Index bytes) {
  const auto next = reinterpret_cast<std::uintptr_t>(now) + static_cast<std::uintptr_t>(bytes);
  if (bytes != 0) prefetch_line<3>(reinterpret_cast<const void*>(next));
}
/// How many numbers a line of the caches holds.
template <class Real>
inline constexpr Index line_size = 64 / static_cast<Index>(sizeof(Real));

/// Calls action.operator()<4>(i), <2>(i) or <1>(i) for 0, ..., n - 1: as many at a time as there are registers for.
template <class Action>
EIGEN_ALWAYS_INLINE void for_each_some(Index n, Action action) {
  Index i = 0;
  if constexpr (many_registers)
    for (; i + 4 <= n; i += 4) action.template operator()<4>(i);
  for (; i + 2 <= n; i += 2) action.template operator()<2>(i);
  for (; i < n; ++i) action.template operator()<1>(i);
}

#if defined(__GNUC__)
/// The sums of the elements of four packets of four or more.
///
///   a0 a1 a2 a3 ...     a0+a2 b0+b2 a1+a3 b1+b3 ...     a b c d ...     fours are added to each other until one is left
///   b0 b1 b2 b3 ...     c0+c2 d0+d2 c1+c3 d1+d3 ...
///   c0 c1 c2 c3 ...
///   d0 d1 d2 d3 ...
template <class Packet, int... lane>
EIGEN_ALWAYS_INLINE auto sums_in_fours(const Packet* x, std::integer_sequence<int, lane...>) {
  constexpr int n = sizeof...(lane);
  const auto zipped = [](const Packet& a, const Packet& b) {
    return Packet(__builtin_shufflevector(a, b, (lane / 4 * 4 + lane % 4 / 2 + lane % 2 * n)...) +
                  __builtin_shufflevector(a, b, (lane / 4 * 4 + lane % 4 / 2 + lane % 2 * n + 2)...));
  };
  const Packet ab = zipped(x[0], x[1]), cd = zipped(x[2], x[3]);
  return Packet(__builtin_shufflevector(ab, cd, (lane / 4 * 4 + lane % 2 + lane % 4 / 2 * n)...) +
                __builtin_shufflevector(ab, cd, (lane / 4 * 4 + lane % 2 + lane % 4 / 2 * n + 2)...));
}
template <class Packet, int... lane>
EIGEN_ALWAYS_INLINE auto sum_of_fours(const Packet& x, std::integer_sequence<int, lane...>) {
  constexpr int n = sizeof...(lane);
  if constexpr (n == 2)
    return x;
  else
    return sum_of_fours(__builtin_shufflevector(x, x, lane...) + __builtin_shufflevector(x, x, (lane + n)...),
                        std::make_integer_sequence<int, n / 2>());
}
template <class Real>
EIGEN_ALWAYS_INLINE void store_sums(const packet_t<Real>* x, Real factor, Real* to) {
  constexpr int n = static_cast<int>(Simd<Real>::lanes);
  if constexpr (n >= 4) {
    const auto sums =
        sum_of_fours(sums_in_fours(x, std::make_integer_sequence<int, n>()), std::make_integer_sequence<int, n / 2>()) *
        factor;
    std::memcpy(to, &sums, sizeof(sums));
  } else {
    for (int i = 0; i < 4; ++i) to[i] = sum_of_elements(x[i]) * factor;
  }
}
#else
template <class Real>
void store_sums(const packet_t<Real>* x, Real factor, Real* to) {
  for (int i = 0; i < 4; ++i) to[i] = sum_of_elements(x[i]) * factor;
}
#endif

/// <a, b> of what is shorter than a packet.
template <class Real>
Real dot_rest(const Real* a, const Real* b, Index dim) {
  Real sum = 0;
  Index d = 0;
  const auto less = [&]<class Packet>(Packet) {
    for (; d + size_of<Packet> <= dim; d += size_of<Packet>)
      sum += sum_of_elements(multiply(load_as<Packet>(a + d), load_as<Packet>(b + d)));
  };
  for_smaller_packets<Real>(less);
  for (; d < dim; ++d) sum += a[d] * b[d];
  return sum;
}

/// Some queries by some keys.
template <int Queries, int Keys, class Real>
void dot_some(const Real* const* queries, TokenColumns<Real> keys, Index dim, Index key, Real scale,
              Real* const* scores, Index ahead) {
  constexpr Index lanes = Simd<Real>::lanes;
  packet_t<Real> sums[Queries][Keys];
  const Real *q[Queries], *k[Keys];
  POSENC_DETAIL_UNROLL
  for (int j = 0; j < Keys; ++j) k[j] = keys[key + j];
  POSENC_DETAIL_UNROLL
  for (int i = 0; i < Queries; ++i) {
    q[i] = queries[i];
    POSENC_DETAIL_UNROLL
    for (int j = 0; j < Keys; ++j) sums[i][j] = broadcast(Real(0));
  }
  Index d = 0;
  for (; d + lanes <= dim; d += lanes) {
    packet_t<Real> some_k[Keys];
    POSENC_DETAIL_UNROLL
    for (int j = 0; j < Keys; ++j) {
      some_k[j] = load(k[j] + d);
      if (lanes >= line_size<Real> || d % line_size<Real> == 0) prefetch_ahead(k[j] + d, ahead);
    }
    POSENC_DETAIL_UNROLL
    for (int i = 0; i < Queries; ++i) {
      const packet_t<Real> some_q = load(q[i] + d);
      POSENC_DETAIL_UNROLL
      for (int j = 0; j < Keys; ++j) sums[i][j] = multiply_add(some_k[j], some_q, sums[i][j]);
    }
  }
  POSENC_DETAIL_UNROLL
  for (int i = 0; i < Queries; ++i) {
    if constexpr (Keys == 4)
      store_sums(sums[i], scale, scores[i] + key);
    else
      scores[i][key] = sum_of_elements(sums[i][0]) * scale;
  }
  if (d < dim)
    for (int i = 0; i < Queries; ++i)
      for (int j = 0; j < Keys; ++j) scores[i][key + j] += dot_rest(k[j] + d, q[i] + d, dim - d) * scale;
}

/// For single queries: scores[i][j] = scale * <k_j, q_i>, j = begin, ..., end - 1, four keys at a time. For every line of
/// keys, that which lies `ahead` bytes from it is asked for.
template <class Real>
void dot_keys(const Real* const* queries, Index num_queries, TokenColumns<Real> keys, Index dim, Index begin, Index end,
              Real scale, Real* const* scores, Index ahead) {
  Index key = begin;
  for (; key + 4 <= end; key += 4)
    for_each_some(num_queries, [&]<int Queries>(Index i) {
      dot_some<Queries, 4>(queries + i, keys, dim, key, scale, scores + i, i == 0 ? ahead : 0);
    });
  for (; key < end; ++key)
    for (Index i = 0; i < num_queries; ++i) dot_some<1, 1>(queries + i, keys, dim, key, scale, scores + i, ahead);
}

/// For a single query, one step of the online softmax: raises the running maximum, turns the scores into weights relative
/// to it, adds them to the running sum, and returns what everything that was weighed before must be multiplied by.
template <class Real>
Real softmax_column(Real* scores, Index num_keys, Real& maximum, Real& total) {
  constexpr Index lanes = Simd<Real>::lanes;
  constexpr Real nothing = -std::numeric_limits<Real>::infinity();
  Real rest[lanes];  // the last keys, filled up with those that weigh nothing
  const Index full = num_keys / lanes * lanes;
  std::fill(std::copy(scores + full, scores + num_keys, rest), rest + lanes, nothing);

  packet_t<Real> largest = broadcast(maximum);
  for (Index key = 0; key < full; key += lanes) largest = larger(largest, load(scores + key));
  largest = larger(largest, load(rest));
  const Real before = maximum;
  maximum = largest_element(largest);
  const packet_t<Real> reference = broadcast(std::max(maximum, std::numeric_limits<Real>::lowest()));
  packet_t<Real> weights = exp_of_negative<Real>(difference(load(rest), reference));
  store(rest, weights);
  for (Index key = 0; key < full; key += lanes) {
    const packet_t<Real> weight = exp_of_negative<Real>(difference(load(scores + key), reference));
    store(scores + key, weight);
    weights = sum(weights, weight);
  }
  std::copy(rest, rest + (num_keys - full), scores + full);
  store(rest, exp_of_negative<Real>(difference(broadcast(before), reference)));
  const Real correction = rest[0];
  total = total * correction + sum_of_elements(weights);
  return correction;
}

/// Some queries, some features of the values.
template <int Queries, int Packets, class Packet, class Real>
void sum_some(const Real* const* weights, TokenColumns<Real> values, Index d, Index begin, Index end,
              const Real* corrections, Real* const* outputs, Index ahead) {
  constexpr Index size = size_of<Packet>;
  Packet sums[Queries][Packets];
  const Real* w[Queries];
  POSENC_DETAIL_UNROLL
  for (int i = 0; i < Queries; ++i) {
    w[i] = weights[i];
    const Packet correction = broadcast_as<Packet>(corrections[i]);
    POSENC_DETAIL_UNROLL
    for (int p = 0; p < Packets; ++p) sums[i][p] = multiply(load_as<Packet>(outputs[i] + d + p * size), correction);
  }
  for (Index key = begin; key < end; ++key) {
    const Real* const value = values[key] + d;
    Packet v[Packets];
    POSENC_DETAIL_UNROLL
    for (int p = 0; p < Packets; ++p) {
      v[p] = load_as<Packet>(value + p * size);
      if (p * size % line_size<Real> == 0) prefetch_ahead(value + p * size, ahead);
    }
    POSENC_DETAIL_UNROLL
    for (int i = 0; i < Queries; ++i) {
      const Packet weight = broadcast_as<Packet>(w[i][key]);
      POSENC_DETAIL_UNROLL
      for (int p = 0; p < Packets; ++p) sums[i][p] = multiply_add(weight, v[p], sums[i][p]);
    }
  }
  POSENC_DETAIL_UNROLL
  for (int i = 0; i < Queries; ++i) {
    POSENC_DETAIL_UNROLL
    for (int p = 0; p < Packets; ++p) store_as(outputs[i] + d + p * size, sums[i][p]);
  }
}

/// For single queries: outputs[i] = corrections[i] * outputs[i] + the sum of weights[i][j] v_j, j = begin, ..., end - 1,
/// four packets of features at a time. For ahead see dot_keys.
template <class Real>
void sum_values(const Real* const* weights, Index num_queries, TokenColumns<Real> values, Index dim, Index begin,
                Index end, const Real* corrections, Real* const* outputs, Index ahead) {
  Index d = 0;
  const auto some = [&]<int Packets, class Packet>(Packet) {
    for (; d + Packets * size_of<Packet> <= dim; d += Packets * size_of<Packet>)
      for_each_some(num_queries, [&]<int Queries>(Index i) {
        sum_some<Queries, Packets, Packet>(weights + i, values, d, begin, end, corrections + i, outputs + i,
                                           i == 0 ? ahead : 0);
      });
  };
  some.template operator()<4>(packet_t<Real>());
  some.template operator()<1>(packet_t<Real>());
  const auto less = [&]<class Packet>(Packet) {
    for (; d + size_of<Packet> <= dim; d += size_of<Packet>)
      for (Index i = 0; i < num_queries; ++i)
        sum_some<1, 1, Packet>(weights + i, values, d, begin, end, corrections + i, outputs + i, 0);
  };
  for_smaller_packets<Real>(less);
  for (; d < dim; ++d)
    for (Index i = 0; i < num_queries; ++i) {
      Real sum = outputs[i][d] * corrections[i];
      for (Index key = begin; key < end; ++key) sum += weights[i][key] * values[key][d];
      outputs[i][d] = sum;
    }
}

}  // namespace posenc::inline v0::detail
