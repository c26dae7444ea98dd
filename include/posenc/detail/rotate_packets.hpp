// SPDX-License-Identifier: MIT
#pragma once

// The innermost loops of a rotation, in the widest registers of the machine that is compiled for.
//
//   a' = a cos + b (-sin)         one sum_of_products (packet.hpp) a feature, whatever the layout, the packet or the
//   b' = b cos + a   sin          loop: hence a feature becomes the same bits in all of them
//
// What makes them fast: the cosines and sines of a token stay in registers while all its heads are rotated (hence
// packs of packets, instead of loops over them), interleaved pairs take one swap of neighbours (in bfloat16 none, where
// even and odd features come apart: EvenOdd in packet_storage.hpp), and pairs that do not fill the last packet are
// rotated by one that overlaps the packet before:
//
//   pairs     0 1 2 3 4 5 6 7 8 9
//   packets  [0 1 2 3]   [6 7 8 9]      the last is loaded before the others are stored, so that 6 and 7, which are
//                    [4 5 6 7]          rotated twice, come out the same

#include <Eigen/Core>
#include <algorithm>
#include <type_traits>
#include <utility>

#include <posenc/detail/packet.hpp>
#include <posenc/positions.hpp>

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wignored-attributes"  // of the vector type as a template argument, and harmless
#endif

namespace posenc::inline v0::detail {

/// The pairs of a token. In all its heads, pair i turns by the angle of cos[i] and sin[i]; it is features
/// h * head_step + i * pair_step and `partner` behind it (before it, if that is negative). `in` and `out` may be the
/// same.
template <class Scalar, class Real>
struct PairsOfToken {
  const Scalar* in;
  Scalar* out;
  const Real* cos;
  const Real* sin;
  Index num_pairs, num_heads;
  Index pair_step, partner, head_step;
};

/// How many tokens there are, and how far it is from one to the next.
struct TokenSteps {
  Index num_tokens = 1;
  Index in = 0, out = 0, angles = 0;
};

/// Where results go: into the caches, or past them.
enum class Store { cached, streamed };

template <Store store, class Packet, class Scalar>
EIGEN_ALWAYS_INLINE void write(Scalar* to, const Packet& x) {
  using Memory = PacketMemory<Scalar, Packet>;
  if constexpr (store == Store::streamed)
    stream(to, Memory::stored(x));
  else
    Memory::store(to, x);
}

/// The pairs of one token, wherever they lie.
template <class Scalar, class Real>
EIGEN_ALWAYS_INLINE void rotate_one_by_one(const PairsOfToken<Scalar, Real>& x) {
  for (Index h = 0; h < x.num_heads; ++h)
    for (Index i = 0; i < x.num_pairs; ++i) {
      const Scalar* in = x.in + h * x.head_step + i * x.pair_step;
      Scalar* out = x.out + h * x.head_step + i * x.pair_step;
      const Real a = static_cast<Real>(in[0]), b = static_cast<Real>(in[x.partner]);
      out[0] = static_cast<Scalar>(sum_of_products(a, x.cos[i], b, -x.sin[i]));
      out[x.partner] = static_cast<Scalar>(sum_of_products(b, x.cos[i], a, x.sin[i]));
    }
}

/// A packet of pairs in two separate runs of features: a a a a ... b b b b.
template <class Packet>
struct SeparateRuns {
  using Real = packet_scalar_t<Packet>;
  struct Features {
    Packet a, b;
  };
  static constexpr bool in_packets = true;
  static constexpr Index size = size_of<Packet>, step = 1;
  static constexpr int max_packets = 4 * Simd<Real>::lanes / size_of<Packet>;

  Packet cos, sin, minus_sin;

  EIGEN_ALWAYS_INLINE SeparateRuns(const Real* cos_at, const Real* sin_at, Index /*partner*/)
      : cos(PacketMemory<Real, Packet>::load(cos_at)),
        sin(PacketMemory<Real, Packet>::load(sin_at)),
        minus_sin(with_sign(sin, -1)) {}

  template <class Scalar>
  static EIGEN_ALWAYS_INLINE Features load(const Scalar* in, Index partner) {
    return {PacketMemory<Scalar, Packet>::load(in), PacketMemory<Scalar, Packet>::load(in + partner)};
  }
  template <Store store, class Scalar>
  EIGEN_ALWAYS_INLINE void turn(const Features& x, Scalar* out, Index partner) const {
    write<store>(out, sum_of_products(x.a, cos, x.b, minus_sin));
    write<store>(out + partner, sum_of_products(x.b, cos, x.a, sin));
  }
};

/// A packet of adjacent features: a b a b a b a b, or b a b a b a b a if the partner is the one before.
template <class Packet>
struct Neighbours {
  using Real = packet_scalar_t<Packet>;
  using Features = Packet;
  using Angles = PacketMemory<Real, Packet>;
  static constexpr bool in_packets = true;
  static constexpr Index size = size_of<Packet> / 2, step = 2;
  static constexpr int max_packets = (many_registers ? 8 : 4) * Simd<Real>::lanes / size_of<Packet>;

  Packet cos, signed_sin;

  EIGEN_ALWAYS_INLINE Neighbours(const Real* cos_at, const Real* sin_at, Index partner)
      : cos(Angles::load_each_twice(cos_at)), signed_sin(with_signs(Angles::load_each_twice(sin_at), partner > 0)) {}

  template <class Scalar>
  static EIGEN_ALWAYS_INLINE Features load(const Scalar* in, Index partner) {
    return PacketMemory<Scalar, Packet>::load(in + std::min<Index>(partner, 0));
  }
  template <Store store, class Scalar>
  EIGEN_ALWAYS_INLINE void turn(const Features& x, Scalar* out, Index partner) const {
    write<store>(out + std::min<Index>(partner, 0), sum_of_products(x, cos, swap_neighbours(x), signed_sin));
  }
};

/// Pairs that lie otherwise.
template <class Packet>
struct Scattered {
  static constexpr bool in_packets = false;
};

/// Rotates n pairs of a token from `first` on, in all heads: as many packets as there are numbers in i, and the last.
template <class Pairs, Store store, class Scalar, class Real, int... i>
EIGEN_ALWAYS_INLINE void rotate_in_heads(const PairsOfToken<Scalar, Real>& x, Index first, Index n,
                                         std::integer_sequence<int, i...>) {
  const Real *cos = x.cos + first, *sin = x.sin + first;
  const Index end = n - Pairs::size;
  [[maybe_unused]] const Pairs pairs[] = {Pairs(cos + i * Pairs::size, sin + i * Pairs::size, x.partner)...,
                                          Pairs(cos + end, sin + end, x.partner)};
  constexpr int last = sizeof...(i);
  const Scalar* in = x.in + first * Pairs::step;
  Scalar* out = x.out + first * Pairs::step;
  for (Index h = 0; h < x.num_heads; ++h, in += x.head_step, out += x.head_step) {
    const auto end_of_head = Pairs::load(in + end * Pairs::step, x.partner);
    (pairs[i].template turn<store>(Pairs::load(in + i * Pairs::size * Pairs::step, x.partner),
                                   out + i * Pairs::size * Pairs::step, x.partner),
     ...);
    pairs[last].template turn<store>(end_of_head, out + end * Pairs::step, x.partner);
  }
}

/// Rotates n pairs of a token from `first` on, which fill at most `packets` packets and a last one.
template <class Pairs, Store store, int packets, class Scalar, class Real>
EIGEN_ALWAYS_INLINE void rotate_at_most(const PairsOfToken<Scalar, Real>& x, Index first, Index n) {
  if (packets == 0 || n > packets * Pairs::size)
    rotate_in_heads<Pairs, store>(x, first, n, std::make_integer_sequence<int, packets>());
  else if constexpr (packets > 0)
    rotate_at_most<Pairs, store, packets - 1>(x, first, n);
}

/// Rotates all pairs of a token: as many packets at a time as there are registers for; if they do not fill one, packets
/// of half the size; if they fill none, one by one.
template <template <class> class Kind, class Packet, Store store, class Scalar, class Real>
EIGEN_ALWAYS_INLINE void rotate_token(const PairsOfToken<Scalar, Real>& x) {
  using Pairs = Kind<Packet>;
  if constexpr (Pairs::in_packets && PacketMemory<Scalar, Packet>::available) {
    if (x.num_pairs >= Pairs::size) {
      constexpr bool is_widest = std::is_same_v<Packet, working_packet_t<Scalar, Real>>;
      constexpr int max = is_widest ? Pairs::max_packets : 2;
      Index first = 0, n = x.num_pairs;
      for (Index part; n > max * Pairs::size; first += part, n -= part) {
        part = std::min(max * Pairs::size, n - Pairs::size);  // leaves a whole packet
        rotate_at_most<Pairs, store, max - 1>(x, first, part);
      }
      return rotate_at_most<Pairs, store, max - 1>(x, first, n);
    }
    using Half = half_packet_t<Packet>;
    if constexpr (size_of<Half> < size_of<Packet>) return rotate_token<Kind, Half, store>(x);
  }
  rotate_one_by_one(x);
}

/// Rotates all tokens. A function of its own, so that each kind of pairs is compiled once for a scalar; its arguments
/// are numbers one by one, because they stay in registers then.
template <template <class> class Kind, Store store, class Scalar, class Real>
EIGEN_DONT_INLINE void rotate_tokens(const Scalar* in, Scalar* out, const Real* cos, const Real* sin, Index num_pairs,
                                     Index num_heads, Index pair_step, Index partner, Index head_step, Index num_tokens,
                                     Index in_step, Index out_step, Index angle_step) {
  for (; num_tokens > 0; --num_tokens, in += in_step, out += out_step, cos += angle_step, sin += angle_step)
    rotate_token<Kind, working_packet_t<Scalar, Real>, store>(
        PairsOfToken<Scalar, Real>{in, out, cos, sin, num_pairs, num_heads, pair_step, partner, head_step});
}

/// Rotates all pairs of some tokens, given the first of them.
template <Store store, class Scalar, class Real>
EIGEN_ALWAYS_INLINE void rotate_pairs(const PairsOfToken<Scalar, Real>& x, const TokenSteps& steps) {
  auto* rotate = &rotate_tokens<Scattered, store, Scalar, Real>;
  if (x.pair_step == 1) rotate = &rotate_tokens<SeparateRuns, store, Scalar, Real>;
  if (x.pair_step == 2 && (x.partner == 1 || x.partner == -1)) rotate = &rotate_tokens<Neighbours, store, Scalar, Real>;
  rotate(x.in, x.out, x.cos, x.sin, x.num_pairs, x.num_heads, x.pair_step, x.partner, x.head_step, steps.num_tokens,
         steps.in, steps.out, steps.angles);
}

}  // namespace posenc::inline v0::detail

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif
