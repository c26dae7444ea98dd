// SPDX-License-Identifier: MIT
#pragma once

// The kernels of streaming attention. A tile holds some keys of some queries with the *queries* side by side:
//
//   S   keys x queries, row-major: the scores of one key and a panel of queries are contiguous
//
// so that maxima, exponentials and sums are taken down a column without ever crossing lanes, and keys and values are
// read where they lie: both products broadcast their elements and stream packets of queries.
//
//   S[j][:]  = start + sum_d K[j][d] Q'[d][:]        Q' is the panel of queries, transposed once
//   O'[d][:] = start + sum_j V[j][d] W[j][:]         O' is transposed back once, at the end
//
// A panel is Simd<Real>::tile_width queries, and all matrices above have rows of that many; where only some packets of
// a panel are wanted, pointers point to the first of them.

#include <Eigen/Core>
#include <algorithm>
#include <array>
#include <limits>

#include <posenc/detail/packet.hpp>
#include <posenc/detail/unroll.hpp>

namespace posenc::inline v0::detail {

using Eigen::Index;

/// What the sums of a product of keys and queries begin with: rows of a fused term, and biases by distance; or zeros.
template <class Real>
struct ScoreStart {
  const Real* const* rows = nullptr;  ///< a row of a panel for every key, or none
  const Real* distances = nullptr;    ///< those of key j begin at distances - j; or none
  Real shift = 0;                     ///< what is subtracted from a distance
  Index first_key = 0, first_query = 0;

  template <int Rows, int Packets>
  EIGEN_ALWAYS_INLINE void operator()(Index row, packet_t<Real> (&sums)[Rows][Packets]) const {
    const Index key = first_key + row;
    const Real* const biases = distances == nullptr ? nullptr : distances - key + first_query;
    const auto fill = [&](auto value) {
      POSENC_DETAIL_UNROLL
      for (int r = 0; r < Rows; ++r) {
        POSENC_DETAIL_UNROLL
        for (int q = 0; q < Packets; ++q) sums[r][q] = value(r, q * Simd<Real>::lanes);
      }
    };
    if (biases == nullptr)
      fill([](int, Index) { return broadcast(Real(0)); });
    else
      fill([&](int r, Index query) { return load(biases - r + query); });
    if (shift != 0) POSENC_DETAIL_UNROLL
    for (auto& sums_of_row : sums)
      for (auto& one : sums_of_row) one = difference(one, broadcast(shift));
    if (rows != nullptr) POSENC_DETAIL_UNROLL
    for (int r = 0; r < Rows; ++r)
      for (int q = 0; q < Packets; ++q)
        sums[r][q] = sum(load(rows[key + r] + first_query + q * Simd<Real>::lanes), sums[r][q]);
  }
};

/// What the sums of a product of values and weights begin with: what is there already, times the correction if there is
/// one.
template <class Real>
struct OutputStart {
  const Real* outputs;
  const Real* correction = nullptr;

  template <int Rows, int Packets>
  EIGEN_ALWAYS_INLINE void operator()(Index feature, packet_t<Real> (&sums)[Rows][Packets]) const {
    constexpr Index lanes = Simd<Real>::lanes, width = Simd<Real>::tile_width;
    POSENC_DETAIL_UNROLL
    for (int r = 0; r < Rows; ++r) {
      POSENC_DETAIL_UNROLL
      for (int q = 0; q < Packets; ++q) sums[r][q] = load(outputs + (feature + r) * width + q * lanes);
    }
    if (correction != nullptr) {
      POSENC_DETAIL_UNROLL
      for (int r = 0; r < Rows; ++r) {
        POSENC_DETAIL_UNROLL
        for (int q = 0; q < Packets; ++q) sums[r][q] = multiply(sums[r][q], load(correction + q * lanes));
      }
    }
  }
};

/// A matrix whose elements are broadcast: element (row, step) is at data[row * row_step + step * depth_step].
template <class Real>
struct Broadcast {
  const Real* data;
  Index row_step, depth_step;
};

/// c[r][:] = start(r) + sum_p a(r, p) b[p][:] for Rows rows of Packets packets, as often as there are so many rows.
/// Returns how many rows are done.
template <int Rows, int Packets, class Real, class Start>
Index multiply_rows(Index row, Index num_rows, const Broadcast<Real>& a, const Real* b, Index depth, Real* c,
                    const Start& start) {
  constexpr Index lanes = Simd<Real>::lanes, width = Simd<Real>::tile_width;
  const Index row_step = a.row_step, depth_step = a.depth_step;
  for (; row + Rows <= num_rows; row += Rows) {
    packet_t<Real> sums[Rows][Packets];
    start(row, sums);
    const Real* factors = a.data + row * row_step;
    const Real* packets = b;
    for (Index p = 0; p < depth; ++p, factors += depth_step, packets += width) {
      packet_t<Real> b_row[Packets];
      POSENC_DETAIL_UNROLL
      for (int q = 0; q < Packets; ++q) b_row[q] = load(packets + q * lanes);
      POSENC_DETAIL_UNROLL
      for (int r = 0; r < Rows; ++r) {
        const packet_t<Real> factor = broadcast(factors[r * row_step]);
        POSENC_DETAIL_UNROLL
        for (int q = 0; q < Packets; ++q) sums[r][q] = multiply_add(factor, b_row[q], sums[r][q]);
      }
    }
    POSENC_DETAIL_UNROLL
    for (int r = 0; r < Rows; ++r) {
      POSENC_DETAIL_UNROLL
      for (int q = 0; q < Packets; ++q) store(c + (row + r) * width + q * lanes, sums[r][q]);
    }
  }
  return row;
}

/// The same for any number of rows and up to Packets packets of a panel.
template <class Real, class Start, int Packets = Simd<Real>::tile_packets>
void multiply_panel(Index num_packets, Index num_rows, const Broadcast<Real>& a, const Real* b, Index depth, Real* c,
                    const Start& start) {
  if constexpr (Packets > 1)
    if (num_packets < Packets)
      return multiply_panel<Real, Start, Packets - 1>(num_packets, num_rows, a, b, depth, c, start);
  Index row = multiply_rows<Simd<Real>::tile_rows, Packets>(0, num_rows, a, b, depth, c, start);
  row = multiply_rows<4, Packets>(row, num_rows, a, b, depth, c, start);
  row = multiply_rows<2, Packets>(row, num_rows, a, b, depth, c, start);
  multiply_rows<1, Packets>(row, num_rows, a, b, depth, c, start);
}

/// Raises maxima to those of the scores, column by column.
template <int Packets, class Real>
void raise_maxima(const Real* scores, Index num_keys, Real* maxima) {
  constexpr Index lanes = Simd<Real>::lanes, width = Simd<Real>::tile_width;
  packet_t<Real> largest[Packets], second[Packets];  // of every other key
  POSENC_DETAIL_UNROLL
  for (int q = 0; q < Packets; ++q) largest[q] = second[q] = load(maxima + q * lanes);
  Index key = 0;
  for (; key + 2 <= num_keys; key += 2, scores += 2 * width) {
    POSENC_DETAIL_UNROLL
    for (int q = 0; q < Packets; ++q) largest[q] = larger(largest[q], load(scores + q * lanes));
    POSENC_DETAIL_UNROLL
    for (int q = 0; q < Packets; ++q) second[q] = larger(second[q], load(scores + width + q * lanes));
  }
  POSENC_DETAIL_UNROLL
  for (int q = 0; q < Packets; ++q) {
    if (key < num_keys) largest[q] = larger(largest[q], load(scores + q * lanes));
    store(maxima + q * lanes, larger(largest[q], second[q]));
  }
}

/// Turns scores into weights relative to the maxima and adds them to the sums. A maximum of -inf, nothing visible yet,
/// gives weights of 0.
template <int Packets, class Real>
void weigh(Real* scores, Index num_keys, const Real* maxima, Real* sums) {
  constexpr Index lanes = Simd<Real>::lanes, width = Simd<Real>::tile_width;
  packet_t<Real> reference[Packets], total[Packets];
  POSENC_DETAIL_UNROLL
  for (int q = 0; q < Packets; ++q) {
    reference[q] = larger(load(maxima + q * lanes), broadcast(std::numeric_limits<Real>::lowest()));
    total[q] = load(sums + q * lanes);
  }
  for (Index key = 0; key < num_keys; ++key, scores += width) {
    POSENC_DETAIL_UNROLL
    for (int q = 0; q < Packets; ++q) {
      const packet_t<Real> weight = exp_of_negative<Real>(difference(load(scores + q * lanes), reference[q]));
      store(scores + q * lanes, weight);
      total[q] = sum(total[q], weight);
    }
  }
  POSENC_DETAIL_UNROLL
  for (int q = 0; q < Packets; ++q) store(sums + q * lanes, total[q]);
}

/// What all that was weighed relative to the maxima before must be multiplied by. Returns whether any of it is not 1.
template <class Real>
bool correct(const Real* before, const Real* maxima, Real* correction) {
  constexpr Index lanes = Simd<Real>::lanes;
  packet_t<Real> smallest = broadcast(Real(1));
  for (Index i = 0; i < Simd<Real>::tile_width; i += lanes) {
    const packet_t<Real> reference = larger(load(maxima + i), broadcast(std::numeric_limits<Real>::lowest()));
    const packet_t<Real> factor = exp_of_negative<Real>(difference(load(before + i), reference));
    store(correction + i, factor);
    smallest = smaller(smallest, factor);
  }
  return !(smallest_element(smallest) >= 1);
}

/// The smallest of some numbers, none of them NaN.
template <class Real>
Real smallest_of(const Real* x, Index n) {
  constexpr Index lanes = Simd<Real>::lanes;
  packet_t<Real> packet = broadcast(std::numeric_limits<Real>::infinity());
  Index i = 0;
  for (; i + lanes <= n; i += lanes) packet = smaller(packet, load(x + i));
  Real smallest = smallest_element(packet);
  for (; i < n; ++i) smallest = std::min(smallest, x[i]);
  return smallest;
}

/// x = x * factor + added for the queries of a panel.
template <class Real>
void scale_and_add(Real* x, const Real* factor, const Real* added) {
  constexpr Index lanes = Simd<Real>::lanes;
  for (Index i = 0; i < Simd<Real>::tile_width; i += lanes)
    store(x + i, multiply_add(load(x + i), load(factor + i), load(added + i)));
}
template <class Real>
void scale_rows(Real* x, Index num_rows, const Real* factor) {
  constexpr Index lanes = Simd<Real>::lanes, width = Simd<Real>::tile_width;
  for (Index row = 0; row < num_rows; ++row)
    for (Index i = 0; i < width; i += lanes)
      store(x + row * width + i, multiply(load(x + row * width + i), load(factor + i)));
}

/// to[i * to_step + j] = factor * from[j * from_step + i] for i < num_rows, j < num_columns: squares of packets, and what
/// is left at two sides one by one.
template <class Real>
void transpose(const Real* from, Index from_step, Real factor, Index num_rows, Index num_columns, Real* to,
               Index to_step) {
  constexpr Index lanes = Simd<Real>::lanes;
  const Index whole_rows = num_rows / lanes * lanes, whole_columns = num_columns / lanes * lanes;
  for (Index j = 0; j < whole_columns; j += lanes)
    for (Index i = 0; i < whole_rows; i += lanes)
      transpose(from + j * from_step + i, from_step, factor, to + i * to_step + j, to_step);
  for (Index j = 0; j < num_columns; ++j)
    for (Index i = j < whole_columns ? whole_rows : 0; i < num_rows; ++i)
      to[i * to_step + j] = factor * from[j * from_step + i];
}

}  // namespace posenc::inline v0::detail
