// SPDX-License-Identifier: MIT
#pragma once

// Sums, products and roundings along contiguous memory, in packets where there are some of the scalar.

#include <Eigen/Core>
#include <array>
#include <cstddef>
#include <limits>
#include <type_traits>

#include <posenc/detail/packet.hpp>
#include <posenc/detail/scalar.hpp>
#include <posenc/detail/unroll.hpp>

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wignored-attributes"  // of the vector type as a template argument, and harmless
#endif

namespace posenc::inline v0::detail {

/// Adds the packet addend(i) to x[i] and what follows, i = 0, ..., n - 1. What does not fill a last packet is in one that
/// overlaps the one before it, and is hence loaded before that is stored. False if n numbers do not fill one: then
/// nothing is done.
template <class Packet, class Scalar, class Addend>
EIGEN_ALWAYS_INLINE bool add_in_packets(Scalar* x, Eigen::Index n, Addend addend) {
  using Memory = PacketMemory<Scalar, Packet>;
  if constexpr (Memory::available) {
    constexpr Eigen::Index size = size_of<Packet>;
    if (n < size) return false;
    const auto sum_at = [&](Eigen::Index i) { return sum(Memory::load(x + i), addend(i)); };
    const Packet last = sum_at(n - size);
    Eigen::Index i = 0;
    for (; i + 4 * size <= n; i += 4 * size) {
      POSENC_DETAIL_UNROLL
      for (Eigen::Index j = i; j < i + 4 * size; j += size) Memory::store(x + j, sum_at(j));
    }
    for (; i + size <= n; i += size) Memory::store(x + i, sum_at(i));
    if (i < n) Memory::store(x + n - size, last);
    return true;
  }
  return false;
}

/// x[i] += factor * added[i], i = 0, ..., n - 1, in the arithmetic of x.
template <class Scalar, class Added>
void add_line(Scalar* x, const Added* added, Eigen::Index n, compute_t<Scalar> factor = 1) {
  using Real = compute_t<Scalar>;
  const auto add_packets_of = [&]<class Packet>(std::type_identity<Packet>) {
    using From = PacketMemory<Added, Packet>;
    if constexpr (From::available) {
      const auto all_factor = broadcast(factor);
      return add_in_packets<Packet>(x, n, [&](Eigen::Index i) { return multiply(all_factor, From::load(added + i)); });
    }
    return false;
  };
  if (add_packets_of(std::type_identity<working_packet_t<Scalar, Real>>())) return;
  if (add_packets_of(std::type_identity<packet_t<Real>>())) return;
  for (Eigen::Index i = 0; i < n; ++i) add(x[i], factor * static_cast<Real>(added[i]));
}

/// x[i] *= factor, i = 0, ..., n - 1.
template <class Scalar>
void scale_line(Scalar* x, Eigen::Index n, compute_t<Scalar> factor) {
  using Real = compute_t<Scalar>;
  using Memory = PacketMemory<Scalar, packet_t<Real>>;
  Eigen::Index i = 0;
  if constexpr (Memory::available) {
    const auto all_factor = broadcast(factor);
    POSENC_DETAIL_UNROLL
    for (; i + Simd<Real>::lanes <= n; i += Simd<Real>::lanes)
      Memory::store(x + i, multiply(Memory::load(x + i), all_factor));
  }
  for (; i < n; ++i) x[i] = static_cast<Scalar>(static_cast<Real>(x[i]) * factor);
}

/// to[i] = from[i], i = 0, ..., n - 1, rounded.
template <class Scalar>
void round_line(const compute_t<Scalar>* from, Eigen::Index n, Scalar* to) {
  using Packet = packet_t<compute_t<Scalar>>;
  using Memory = PacketMemory<Scalar, Packet>;
  Eigen::Index i = 0;
  if constexpr (Memory::available)
    for (; i + size_of<Packet> <= n; i += size_of<Packet>) Memory::store(to + i, load(from + i));
  for (; i < n; ++i) to[i] = static_cast<Scalar>(from[i]);
}

/// Up to `max` numbers, an even one, that are added to many lines of Scalar: in the order of its packets.
template <class Scalar, Eigen::Index max>
class Addends {
  using Real = compute_t<Scalar>;
  using Packet = working_packet_t<Scalar, Real>;
  static constexpr bool apart = !std::is_same_v<Packet, packet_t<Real>>;  // first those of even index, see EvenOdd

 public:
  /// A NaN for bfloat16 becomes one that its packets can round.
  void set(Eigen::Index i, Real value) {
    values_[place(i)] = apart && value != value ? std::numeric_limits<Real>::quiet_NaN() : value;
  }
  Real operator[](Eigen::Index i) const { return values_[place(i)]; }

  /// x[i] += the number of index first + i, i = 0, ..., n - 1.
  void add_to(Scalar* x, Eigen::Index first, Eigen::Index n) const {
    const Real* const from = &values_[place(first)];
    if constexpr (apart) {
      if (n % 2 == 1) --n, add(x[n], (*this)[first + n]);  // hence packets begin at an even i
      const Real* const next = &values_[place(first + 1)];
      if (add_in_packets<Packet>(x, n, [=](Eigen::Index i) { return Packet{load(from + i / 2), load(next + i / 2)}; }))
        return;
    } else {
      if (add_in_packets<Packet>(x, n, [=](Eigen::Index i) { return load(from + i); })) return;
    }
    for (Eigen::Index i = 0; i < n; ++i) add(x[i], (*this)[first + i]);
  }

 private:
  static std::size_t place(Eigen::Index i) { return static_cast<std::size_t>(apart ? i / 2 + i % 2 * (max / 2) : i); }
  std::array<Real, static_cast<std::size_t>(max)> values_;
};

}  // namespace posenc::inline v0::detail

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif
