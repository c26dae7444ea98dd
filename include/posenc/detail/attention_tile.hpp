// SPDX-License-Identifier: MIT
#pragma once

// The kernels of streaming attention. A tile holds some keys of some queries with the *queries* side by side:
//
//   S   keys x queries, row-major: the scores of one key and a panel of queries are contiguous
//
// so that maxima, exponentials and sums are taken down a column without ever crossing lanes, and keys and values are read
// where they lie: both products broadcast their elements and stream packets of queries.
//
//   S[j][:]  = start + sum_d K[j][d] Q'[d][:]        Q' is the panel of queries, transposed once
//   O'[d][:] = start + sum_j V[j][d] W[j][:]         O' is transposed back once, at the end

#include <Eigen/Core>
#include <algorithm>
#include <limits>

#include <posenc/detail/packet.hpp>

#if defined(__clang__)
#define POSENC_DETAIL_UNROLL _Pragma("unroll")
#elif defined(__GNUC__)
#define POSENC_DETAIL_UNROLL _Pragma("GCC unroll 8")
#else
#define POSENC_DETAIL_UNROLL
#endif

namespace posenc::inline v0::detail {

using Eigen::Index;

/// c[r][:] = start(r, q) + sum_p a[r * a_row + p * a_step] * b[p * b_step + :] for Rows rows of Packets packets.
template <int Rows, int Packets, class Real, class Start>
EIGEN_ALWAYS_INLINE void multiply_tile(const Real* a, Index a_row, Index a_step, const Real* b, Index b_step,
                                       Index depth, Real* c, Index c_row, const Start& start) {
  using Eigen::internal::pmadd;
  constexpr Index lanes = Simd<Real>::lanes;
  packet_t<Real> sums[Rows][Packets];
  POSENC_DETAIL_UNROLL
  for (int r = 0; r < Rows; ++r) {
    POSENC_DETAIL_UNROLL
    for (int q = 0; q < Packets; ++q) sums[r][q] = start(r, q);
  }
  for (Index p = 0; p < depth; ++p, a += a_step, b += b_step) {
    packet_t<Real> row[Packets];
    POSENC_DETAIL_UNROLL
    for (int q = 0; q < Packets; ++q) row[q] = load(b + q * lanes);
    POSENC_DETAIL_UNROLL
    for (int r = 0; r < Rows; ++r) {
      const packet_t<Real> factor = broadcast(a[r * a_row]);
      POSENC_DETAIL_UNROLL
      for (int q = 0; q < Packets; ++q) sums[r][q] = pmadd(factor, row[q], sums[r][q]);
    }
  }
  POSENC_DETAIL_UNROLL
  for (int r = 0; r < Rows; ++r) {
    POSENC_DETAIL_UNROLL
    for (int q = 0; q < Packets; ++q) store(c + r * c_row + q * lanes, sums[r][q]);
  }
}

/// The same for any number of rows: six at a time, then what is left. start(row, packet).
template <int Packets, class Real, class Start>
void multiply(Index rows, const Real* a, Index a_row, Index a_step, const Real* b, Index b_step, Index depth, Real* c,
              Index c_row, const Start& start) {
  const auto some = [&]<int Rows>(Index row) {
    multiply_tile<Rows, Packets>(a + row * a_row, a_row, a_step, b, b_step, depth, c + row * c_row, c_row,
                                 [&](int r, int q) { return start(row + r, q); });
  };
  Index row = 0;
  for (; row + 6 <= rows; row += 6) some.template operator()<6>(row);
  switch (rows - row) {
    case 5:
      return some.template operator()<5>(row);
    case 4:
      return some.template operator()<4>(row);
    case 3:
      return some.template operator()<3>(row);
    case 2:
      return some.template operator()<2>(row);
    case 1:
      return some.template operator()<1>(row);
    default:
      return;
  }
}

/// One step of the online softmax of a panel: raises the running maxima to those of the scores, turns the scores into
/// weights relative to them, adds the weights to the running sums, and gives in `correction` what everything that was
/// weighed before must be multiplied by. A maximum of -inf, nothing visible yet, gives weights of 0.
/// Returns whether a correction is not 1.
template <int Packets, class Real>
bool softmax_step(Real* scores, Index num_keys, Real* maxima, Real* sums, Real* correction) {
  using namespace Eigen::internal;
  constexpr Index lanes = Simd<Real>::lanes, width = Packets * lanes;
  packet_t<Real> largest[Packets], sum[Packets];
  POSENC_DETAIL_UNROLL
  for (int q = 0; q < Packets; ++q) largest[q] = load(maxima + q * lanes);
  for (Index key = 0; key < num_keys; ++key) {
    POSENC_DETAIL_UNROLL
    for (int q = 0; q < Packets; ++q) largest[q] = pmax(largest[q], load(scores + key * width + q * lanes));
  }
  POSENC_DETAIL_UNROLL
  for (int q = 0; q < Packets; ++q) {
    const packet_t<Real> reference = pmax(largest[q], broadcast(std::numeric_limits<Real>::lowest()));
    store(correction + q * lanes, exp_of_negative<Real>(psub(load(maxima + q * lanes), reference)));
    store(maxima + q * lanes, largest[q]);
    largest[q] = reference;
    sum[q] = broadcast(Real(0));
  }
  for (Index key = 0; key < num_keys; ++key) {
    POSENC_DETAIL_UNROLL
    for (int q = 0; q < Packets; ++q) {
      Real* const score = scores + key * width + q * lanes;
      const packet_t<Real> weight = exp_of_negative<Real>(psub(load(score), largest[q]));
      store(score, weight);
      sum[q] = padd(sum[q], weight);
    }
  }
  POSENC_DETAIL_UNROLL
  for (int q = 0; q < Packets; ++q)
    store(sums + q * lanes, pmadd(load(sums + q * lanes), load(correction + q * lanes), sum[q]));
  return !std::all_of(correction, correction + width, [](Real c) { return c == 1; });
}

/// For a single query: scores[j] = scale * <k_j, q>, four keys at a time.
template <class Real>
void dot_keys(const Real* query, const Real* keys, Index key_step, Index dim, Index num_keys, Real scale,
              Real* scores) {
  using namespace Eigen::internal;
  constexpr Index lanes = Simd<Real>::lanes;
  const auto some = [&]<int Keys>(Index key) {
    packet_t<Real> sums[Keys];
    const Real* rows[Keys];
    Real rest[Keys];
    POSENC_DETAIL_UNROLL
    for (int j = 0; j < Keys; ++j) {
      sums[j] = broadcast(Real(0));
      rows[j] = keys + (key + j) * key_step;
      rest[j] = 0;
    }
    Index d = 0;
    for (; d + lanes <= dim; d += lanes) {
      const packet_t<Real> q = load(query + d);
      POSENC_DETAIL_UNROLL
      for (int j = 0; j < Keys; ++j) sums[j] = pmadd(load(rows[j] + d), q, sums[j]);
    }
    const auto less = [&]<class Packet>(Packet) {
      for (; d + unpacket_traits<Packet>::size <= dim; d += unpacket_traits<Packet>::size) {
        POSENC_DETAIL_UNROLL
        for (int j = 0; j < Keys; ++j) rest[j] += predux(pmul(ploadu<Packet>(rows[j] + d), ploadu<Packet>(query + d)));
      }
    };
    less(typename SimdParts<Real>::Half());
    less(typename SimdParts<Real>::Quarter());
    for (; d < dim; ++d) {
      POSENC_DETAIL_UNROLL
      for (int j = 0; j < Keys; ++j) rest[j] += rows[j][d] * query[d];
    }
    POSENC_DETAIL_UNROLL
    for (int j = 0; j < Keys; ++j) scores[key + j] = (predux(sums[j]) + rest[j]) * scale;
  };
  Index key = 0;
  for (; key + 4 <= num_keys; key += 4) some.template operator()<4>(key);
  for (; key < num_keys; ++key) some.template operator()<1>(key);
}

/// For a single query, one step of the online softmax: raises the running maximum, turns the scores into weights relative
/// to it, adds them to the running sum, and returns what everything that was weighed before must be multiplied by.
template <class Real>
Real softmax_column(Real* scores, Index num_keys, Real& maximum, Real& sum) {
  using namespace Eigen::internal;
  constexpr Index lanes = Simd<Real>::lanes;
  constexpr Real nothing = -std::numeric_limits<Real>::infinity();
  Real rest[lanes];  // the last keys, filled up with those that weigh nothing
  const Index full = num_keys / lanes * lanes;
  std::fill(std::copy(scores + full, scores + num_keys, rest), rest + lanes, nothing);

  packet_t<Real> largest = broadcast(maximum);
  for (Index key = 0; key < full; key += lanes) largest = pmax(largest, load(scores + key));
  largest = pmax(largest, load(rest));
  const Real before = maximum;
  maximum = predux_max(largest);
  const packet_t<Real> reference = broadcast(std::max(maximum, std::numeric_limits<Real>::lowest()));
  packet_t<Real> weights = exp_of_negative<Real>(psub(load(rest), reference));
  store(rest, weights);
  for (Index key = 0; key < full; key += lanes) {
    const packet_t<Real> weight = exp_of_negative<Real>(psub(load(scores + key), reference));
    store(scores + key, weight);
    weights = padd(weights, weight);
  }
  std::copy(rest, rest + (num_keys - full), scores + full);
  const Real correction = pfirst(exp_of_negative<Real>(psub(broadcast(before), reference)));
  sum = sum * correction + predux(weights);
  return correction;
}

/// For a single query: output = correction * output + sum_j weights[j] v_j, four packets of features at a time.
template <class Real>
void sum_values(const Real* weights, const Real* values, Index value_step, Index dim, Index num_keys, Real correction,
                Real* output) {
  using namespace Eigen::internal;
  constexpr Index lanes = Simd<Real>::lanes;
  const auto some = [&]<int Packets, class Packet>(Index d, Packet) {
    constexpr Index size = unpacket_traits<Packet>::size;
    Packet sums[Packets];
    POSENC_DETAIL_UNROLL
    for (int i = 0; i < Packets; ++i) sums[i] = pmul(ploadu<Packet>(output + d + i * size), pset1<Packet>(correction));
    for (Index key = 0; key < num_keys; ++key) {
      const Packet weight = pset1<Packet>(weights[key]);
      POSENC_DETAIL_UNROLL
      for (int i = 0; i < Packets; ++i)
        sums[i] = pmadd(weight, ploadu<Packet>(values + key * value_step + d + i * size), sums[i]);
    }
    POSENC_DETAIL_UNROLL
    for (int i = 0; i < Packets; ++i) pstoreu(output + d + i * size, sums[i]);
  };
  Index d = 0;
  for (; d + 4 * lanes <= dim; d += 4 * lanes) some.template operator()<4>(d, packet_t<Real>());
  const auto less = [&]<class Packet>(Packet packet) {
    for (; d + unpacket_traits<Packet>::size <= dim; d += unpacket_traits<Packet>::size)
      some.template operator()<1>(d, packet);
  };
  less(packet_t<Real>());
  less(typename SimdParts<Real>::Half());
  less(typename SimdParts<Real>::Quarter());
  for (; d < dim; ++d) {
    Real sum = output[d] * correction;
    for (Index key = 0; key < num_keys; ++key) sum += weights[key] * values[key * value_step + d];
    output[d] = sum;
  }
}

}  // namespace posenc::inline v0::detail

#undef POSENC_DETAIL_UNROLL
