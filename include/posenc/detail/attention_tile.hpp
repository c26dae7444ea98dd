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
#include <cmath>
#include <cstddef>
#include <limits>

#include <posenc/detail/packet.hpp>
#include <posenc/detail/read_ahead.hpp>
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
  ReadAhead* ahead = nullptr;

  template <int Rows, int Packets>
  EIGEN_ALWAYS_INLINE void operator()(Index row, packet_t<Real> (&sums)[Rows][Packets]) const {
    if (ahead != nullptr) ahead->some();
    const Index key = first_key + row;
    const Real* const biases = distances == nullptr ? nullptr : distances - key + first_query;
    const auto fill = [&](auto value) {
      POSENC_DETAIL_UNROLL
      for (int r = 0; r < Rows; ++r) {
        POSENC_DETAIL_UNROLL
        for (int q = 0; q < Packets; ++q) sums[r][q] = value(r, q * Simd<Real>::lanes);
      }
    };
    if (biases != nullptr) {
      fill([&](int r, Index query) { return load(biases - r + query); });
      if (shift != 0) POSENC_DETAIL_UNROLL
      for (auto& sums_of_row : sums)
        for (auto& one : sums_of_row) one = difference(one, broadcast(shift));
      if (rows != nullptr) POSENC_DETAIL_UNROLL
      for (int r = 0; r < Rows; ++r)
        for (int q = 0; q < Packets; ++q)
          sums[r][q] = sum(load(rows[key + r] + first_query + q * Simd<Real>::lanes), sums[r][q]);
    } else if (rows != nullptr) {
      fill([&](int r, Index query) { return load(rows[key + r] + first_query + query); });
    } else {
      fill([](int, Index) { return broadcast(Real(0)); });
    }
  }
};

/// What the sums of a product of values and weights begin with: what is there already, times the correction if there is
/// one; or zeros, if there are no outputs yet.
template <class Real>
struct OutputStart {
  const Real* outputs;
  const Real* correction = nullptr;
  ReadAhead* ahead = nullptr;

  template <int Rows, int Packets>
  EIGEN_ALWAYS_INLINE void operator()(Index feature, packet_t<Real> (&sums)[Rows][Packets]) const {
    if (ahead != nullptr) ahead->some();
    constexpr Index lanes = Simd<Real>::lanes, width = Simd<Real>::tile_width;
    if (outputs == nullptr) {
      POSENC_DETAIL_UNROLL
      for (int r = 0; r < Rows; ++r) {
        POSENC_DETAIL_UNROLL
        for (int q = 0; q < Packets; ++q) sums[r][q] = broadcast(Real(0));
      }
      return;
    }
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
  constexpr int most_rows = (Packets == 1 ? 2 : 1) * Simd<Real>::tile_rows;  // enough sums not to wait for any of them
  Index row = multiply_rows<most_rows, Packets>(0, num_rows, a, b, depth, c, start);
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

/// What scores are compared with to become weights: a maximum, or that in powers of two. A maximum of -inf, nothing visible
/// yet, is made the lowest number, so that all weights are 0.
template <class Real>
EIGEN_ALWAYS_INLINE packet_t<Real> reference_of(const packet_t<Real>& maximum, bool by_powers) {
  constexpr Real log2_e = Real(1.44269504);
  return larger(by_powers ? multiply(maximum, broadcast(log2_e)) : maximum,
                broadcast(std::numeric_limits<Real>::lowest()));
}
/// Whether the weights relative to some packets of maxima are computed as powers of two.
template <int Packets, class Real>
bool are_by_powers(const Real* maxima) {
  bool all = weighs_by_powers<Real>;
  if constexpr (weighs_by_powers<Real>)
    for (int q = 0; q < Packets; ++q) all = all && are_moderate(load(maxima + q * Simd<Real>::lanes));
  return all;
}

/// Turns scores into weights relative to the maxima and adds them to the sums.
template <int Packets, class Real>
void weigh(Real* scores, Index num_keys, const Real* maxima, Real* sums) {
  constexpr Index lanes = Simd<Real>::lanes, width = Simd<Real>::tile_width;
  const bool by_powers = are_by_powers<Packets>(maxima);
  packet_t<Real> reference[Packets], total[Packets];
  POSENC_DETAIL_UNROLL
  for (int q = 0; q < Packets; ++q) {
    reference[q] = reference_of<Real>(load(maxima + q * lanes), by_powers);
    total[q] = load(sums + q * lanes);
  }
  const auto weigh_with = [&](auto weight_of) {
    for (Index key = 0; key < num_keys; ++key, scores += width) {
      POSENC_DETAIL_UNROLL
      for (int q = 0; q < Packets; ++q) {
        const packet_t<Real> weight = weight_of(load(scores + q * lanes), reference[q]);
        store(scores + q * lanes, weight);
        total[q] = sum(total[q], weight);
      }
    }
  };
  if constexpr (weighs_by_powers<Real>) {
    if (by_powers) [[likely]]
      weigh_with([](const packet_t<Real>& score, const packet_t<Real>& of) {
        return power_of_two(multiply_add(score, broadcast(Real(1.44269504)), negate(of)));
      });
    else
      weigh_with([](const packet_t<Real>& score, const packet_t<Real>& of) {
        return exp_of_negative<Real>(difference(score, of));
      });
  } else {
    weigh_with([](const packet_t<Real>& score, const packet_t<Real>& of) {
      return exp_of_negative<Real>(difference(score, of));
    });
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
    packet_t<Real> factor;
    const bool by_powers = are_by_powers<1>(maxima + i) && are_by_powers<1>(before + i);
    const packet_t<Real> difference_to =
        difference(reference_of<Real>(load(before + i), by_powers), reference_of<Real>(load(maxima + i), by_powers));
    if constexpr (weighs_by_powers<Real>)
      factor = by_powers ? power_of_two(difference_to) : exp_of_negative<Real>(difference_to);
    else
      factor = exp_of_negative<Real>(difference_to);
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

/// The largest norm of the queries of a panel; NaN if one of them is.
template <class Real>
double largest_norm(const Real* x, Index num_rows) {
  constexpr Index lanes = Simd<Real>::lanes, width = Simd<Real>::tile_width;
  alignas(64) std::array<Real, static_cast<std::size_t>(width)> squares;
  for (Index i = 0; i < width; i += lanes) {
    packet_t<Real> square = broadcast(Real(0));
    for (Index row = 0; row < num_rows; ++row)
      square = multiply_add(load(x + row * width + i), load(x + row * width + i), square);
    store(squares.data() + i, square);
  }
  Real largest = 0;
  for (const Real square : squares) largest = square <= largest || std::isnan(largest) ? largest : square;
  return std::sqrt(static_cast<double>(largest));
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
