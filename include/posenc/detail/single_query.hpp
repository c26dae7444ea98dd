// SPDX-License-Identifier: MIT
#pragma once

// The kernels of attention for a single query: scores down a column of keys, at the speed of reading keys and values.

#include <Eigen/Core>
#include <algorithm>
#include <limits>

#include <posenc/detail/packet.hpp>
#include <posenc/detail/unroll.hpp>

namespace posenc::inline v0::detail {

using Eigen::Index;

/// For a single query: scores[j] = scale * <k_j, q>, four keys at a time.
template <class Real>
void dot_keys(const Real* query, const Real* keys, Index key_step, Index dim, Index num_keys, Real scale,
              Real* scores) {
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
      for (int j = 0; j < Keys; ++j) sums[j] = multiply_add(load(rows[j] + d), q, sums[j]);
    }
    const auto less = [&]<class Packet>(Packet) {
      for (; d + size_of<Packet> <= dim; d += size_of<Packet>) {
        POSENC_DETAIL_UNROLL
        for (int j = 0; j < Keys; ++j)
          rest[j] += sum_of_elements(multiply(load_as<Packet>(rows[j] + d), load_as<Packet>(query + d)));
      }
    };
    for_smaller_packets<Real>(less);
    for (; d < dim; ++d) {
      POSENC_DETAIL_UNROLL
      for (int j = 0; j < Keys; ++j) rest[j] += rows[j][d] * query[d];
    }
    POSENC_DETAIL_UNROLL
    for (int j = 0; j < Keys; ++j) scores[key + j] = (sum_of_elements(sums[j]) + rest[j]) * scale;
  };
  Index key = 0;
  for (; key + 4 <= num_keys; key += 4) some.template operator()<4>(key);
  for (; key < num_keys; ++key) some.template operator()<1>(key);
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

/// For a single query: output = correction * output + sum_j weights[j] v_j, four packets of features at a time.
template <class Real>
void sum_values(const Real* weights, const Real* values, Index value_step, Index dim, Index num_keys, Real correction,
                Real* output) {
  constexpr Index lanes = Simd<Real>::lanes;
  const auto some = [&]<int Packets, class Packet>(Index d, Packet) {
    constexpr Index size = size_of<Packet>;
    Packet sums[Packets];
    POSENC_DETAIL_UNROLL
    for (int i = 0; i < Packets; ++i)
      sums[i] = multiply(load_as<Packet>(output + d + i * size), broadcast_as<Packet>(correction));
    for (Index key = 0; key < num_keys; ++key) {
      const Packet weight = broadcast_as<Packet>(weights[key]);
      POSENC_DETAIL_UNROLL
      for (int i = 0; i < Packets; ++i)
        sums[i] = multiply_add(weight, load_as<Packet>(values + key * value_step + d + i * size), sums[i]);
    }
    POSENC_DETAIL_UNROLL
    for (int i = 0; i < Packets; ++i) store_as(output + d + i * size, sums[i]);
  };
  Index d = 0;
  for (; d + 4 * lanes <= dim; d += 4 * lanes) some.template operator()<4>(d, packet_t<Real>());
  const auto less = [&]<class Packet>(Packet packet) {
    for (; d + size_of<Packet> <= dim; d += size_of<Packet>) some.template operator()<1>(d, packet);
  };
  less(packet_t<Real>());
  for_smaller_packets<Real>(less);
  for (; d < dim; ++d) {
    Real sum = output[d] * correction;
    for (Index key = 0; key < num_keys; ++key) sum += weights[key] * values[key * value_step + d];
    output[d] = sum;
  }
}

}  // namespace posenc::inline v0::detail
