// SPDX-License-Identifier: MIT
#pragma once

// The kernel that all rotary encodings share: the walk over tokens, pairs and heads in memory order. The angles come
// from the caller.

#include <Eigen/Core>
#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>

#include <posenc/concepts.hpp>
#include <posenc/detail/angle.hpp>
#include <posenc/detail/check.hpp>
#include <posenc/detail/packet.hpp>
#include <posenc/detail/rotate_packets.hpp>
#include <posenc/detail/scalar.hpp>

namespace posenc::inline v0::detail {

enum class Direction { forward, inverse };

/// Where the pairs of a head are: pair i is features feature(i) and feature(i) + partner.
struct HeadLayout {
  Index head_dim;
  Index first;
  Index num_pairs;
  Index pair_step;
  Index partner;

  Index feature(Index pair) const { return first + pair * pair_step; }
  bool operator==(const HeadLayout&) const = default;
};

/// How many cosines and sines the walk asks for at a time; a buffer of them lies on the stack.
inline constexpr Index max_angles = 128;

template <class Real>
struct AngleBuffer {
  std::array<Real, max_angles> cos, sin;
};

template <class Real>
struct Angles {
  const Real* cos;
  const Real* sin;
};

/// A source of angles, as `rotate` asks for them, from a function of a token and a pair that returns a cosine and a
/// sine.
template <class Function>
struct ComputedAngles {
  Function function;

  template <class Real>
  Angles<Real> of_token(Index t, Index pair, Index n, AngleBuffer<Real>& buffer) const {
    for (Index i = 0; i < n; ++i) put(function(t, pair + i), i, buffer);
    return {buffer.cos.data(), buffer.sin.data()};
  }
  template <class Real>
  Angles<Real> of_pair(Index pair, Index t, Index n, AngleBuffer<Real>& buffer) const {
    for (Index i = 0; i < n; ++i) put(function(t + i, pair), i, buffer);
    return {buffer.cos.data(), buffer.sin.data()};
  }

 private:
  template <class Real>
  static void put(const CosSin& exact, Index i, AngleBuffer<Real>& buffer) {
    buffer.cos[static_cast<std::size_t>(i)] = static_cast<Real>(exact.cos);
    buffer.sin[static_cast<std::size_t>(i)] = static_cast<Real>(exact.sin);
  }
};

template <class Function>
ComputedAngles(Function) -> ComputedAngles<Function>;

/// The features of a matrix in memory: row_step from one to the next, token_step from one column to the next. A complex
/// number is a pair of adjacent features, whatever the layout of real matrices.
template <class X>
struct FeaturesOf {
  using Real = typename Eigen::NumTraits<typename X::Scalar>::Real;
  using Feature = std::conditional_t<std::is_const_v<X>, const Real, Real>;
  static constexpr Index parts = is_complex<typename X::Scalar> ? 2 : 1;

  EIGEN_ALWAYS_INLINE explicit FeaturesOf(X& x)
      : data(reinterpret_cast<Feature*>(x.data())),
        row_step(parts * (X::IsRowMajor ? x.outerStride() : x.innerStride())),
        token_step(parts * (X::IsRowMajor ? x.innerStride() : x.outerStride())) {}

  Feature* data;
  Index row_step, token_step;
};

/// The pairs of the first num_heads heads of the first token.
template <class Real, class Out, class In>
EIGEN_ALWAYS_INLINE auto first_pairs(const FeaturesOf<Out>& out, const FeaturesOf<In>& in, const HeadLayout& head,
                                     Index num_heads, Direction direction) {
  using Feature = typename FeaturesOf<Out>::Feature;
  constexpr Index parts = FeaturesOf<Out>::parts;
  const bool forward = direction == Direction::forward;
  const Index partner = parts == 2 ? 1 : head.partner * out.row_step;
  // To rotate back is to rotate by the negative angle: a and b change places.
  const Index first = head.first / parts * out.row_step + (forward ? 0 : partner);
  return PairsOfToken<Feature, Real>{.in = in.data + first,
                                     .out = out.data + first,
                                     .cos = nullptr,
                                     .sin = nullptr,
                                     .num_pairs = head.num_pairs,
                                     .num_heads = num_heads,
                                     .pair_step = parts == 2 ? out.row_step : head.pair_step * out.row_step,
                                     .partner = forward ? partner : -partner,
                                     .head_step = head.head_dim / parts * out.row_step};
}

/// The walk over a matrix whose angles are asked for piece by piece.
template <bool tokens_are_together, Store store, class Feature, class Real, class Source>
void walk(const PairsOfToken<Feature, Real>& first, const TokenSteps& steps, const Source& source) {
  AngleBuffer<Real> buffer;
  PairsOfToken<Feature, Real> part = first;
  const auto rotate = [&](Index pair, Index t, const Angles<Real>& angles) {
    part.in = first.in + pair * first.pair_step + t * steps.in;
    part.out = first.out + pair * first.pair_step + t * steps.out;
    part.cos = angles.cos;
    part.sin = angles.sin;
    rotate_pairs<store>(part, {});
  };
  if constexpr (tokens_are_together) {  // a run of tokens that share a pair looks like a run of pairs of one token
    part.pair_step = steps.out;
    for (Index pair = 0; pair < first.num_pairs; ++pair)
      for (Index t = 0; t < steps.num_tokens; t += max_angles) {
        part.num_pairs = std::min(max_angles, steps.num_tokens - t);
        rotate(pair, t, source.of_pair(pair, t, part.num_pairs, buffer));
      }
  } else {
    for (Index t = 0; t < steps.num_tokens; ++t)
      for (Index pair = 0; pair < first.num_pairs; pair += max_angles) {
        part.num_pairs = std::min(max_angles, first.num_pairs - pair);
        rotate(pair, t, source.of_token(t, pair, part.num_pairs, buffer));
      }
  }
}

/// Rotates every pair of the first num_heads heads of every column of `in` into `out`: the same matrix, or one of the
/// same storage order and step between features, and if they are row-major between tokens.
///
/// `source.of_token(t, pair, n, buffer)` gives the n angles of column t from `pair` on, `source.of_pair(pair, t, n,
/// buffer)` those of one pair from column t on. Either may fill the buffer, which is always the same, or return memory
/// of its own, and is asked once for all heads, in the order of tokens. A source may also have `of_tokens()`, the angles
/// of all tokens one behind the other, or nullptr.
template <class Real, Store store, class Out, class In, class Source>
EIGEN_ALWAYS_INLINE void rotate_heads(Out& x_out, In& x_in, const HeadLayout& head, Index num_heads,
                                      Direction direction, const Source& source) {
  const FeaturesOf<Out> out(x_out);
  const FeaturesOf<In> in(x_in);
  auto pairs = first_pairs<Real>(out, in, head, num_heads, direction);
  TokenSteps steps{x_out.cols(), in.token_step, out.token_step, head.num_pairs};
  if constexpr (!Out::IsRowMajor && requires { source.of_tokens(); })
    if (const Angles<Real> all = source.of_tokens(); all.cos != nullptr) {
      pairs.cos = all.cos;
      pairs.sin = all.sin;
      return rotate_pairs<store>(pairs, steps);
    }
  walk<Out::IsRowMajor, store>(pairs, steps, source);
}

/// The same in place.
///
/// \tparam Arithmetic what to compute in, if not in the arithmetic of x.
template <class Arithmetic = void, class X, class Source>
EIGEN_ALWAYS_INLINE void rotate(X& x, const HeadLayout& head, Index num_heads, Direction direction,
                                const Source& source) {
  using Real = std::conditional_t<std::is_void_v<Arithmetic>, compute_t<typename X::Scalar>, Arithmetic>;
  rotate_heads<Real, Store::cached>(x, x, head, num_heads, direction, source);
}

/// Results that no cache would hold go past them: from this many bytes on.
inline constexpr Index streamed_rotation_bytes = Index{1} << 25;

/// Whether every run of features that a token's pairs are written to is whole lines of 64 bytes.
template <class Feature, class Real>
bool writes_whole_lines(const PairsOfToken<Feature, Real>& pairs, Index token_step) {
  const auto whole = [](Index features) { return features * static_cast<Index>(sizeof(Feature)) % 64 == 0; };
  const bool adjacent = pairs.pair_step == 2 && pairs.partner == 1;
  return reinterpret_cast<std::uintptr_t>(pairs.out) % 64 == 0 && whole(token_step) && whole(pairs.head_step) &&
         (adjacent ? whole(2 * pairs.num_pairs)
                   : pairs.pair_step == 1 && whole(pairs.partner) && whole(pairs.num_pairs));
}

/// Rotates `in` into `out`, a matrix of the same shape that does not overlap it, or is in the same place. Features that
/// do not rotate are copied.
template <class Out, class In, class Source>
void rotate_into(Out& out, const In& in, const HeadLayout& head, Index num_heads, const Source& source) {
  using Real = compute_t<typename Out::Scalar>;
  constexpr bool in_memory = static_cast<bool>(In::Flags & Eigen::DirectAccessBit);
  if constexpr (in_memory && static_cast<bool>(Out::IsRowMajor) == static_cast<bool>(In::IsRowMajor)) {
    const FeaturesOf<Out> to(out);
    const FeaturesOf<const In> from(in);
    if (to.row_step == from.row_step && (!Out::IsRowMajor || to.token_step == from.token_step)) {
      constexpr Index parts = FeaturesOf<Out>::parts;
      const auto copy = [&](Index first, Index n) {
        if (n > 0 && to.data != from.data) out.matrix().middleRows(first, n) = in.matrix().middleRows(first, n);
      };
      const Index head_dim = head.head_dim / parts, before = head.first / parts,
                  rotary = (parts == 2 ? 1 : 2) * head.num_pairs;
      for (Index h = 0; h < num_heads; ++h) {
        copy(h * head_dim, before);
        copy(h * head_dim + before + rotary, head_dim - before - rotary);
      }
      copy(num_heads * head_dim, out.rows() - num_heads * head_dim);

      const bool large = out.size() * static_cast<Index>(sizeof(typename Out::Scalar)) >= streamed_rotation_bytes;
      const auto pairs = first_pairs<Real>(to, from, head, num_heads, Direction::forward);
      if (!Out::IsRowMajor && large && to.data != from.data && writes_whole_lines(pairs, to.token_step)) {
        rotate_heads<Real, Store::streamed>(out, in, head, num_heads, Direction::forward, source);
        finish_streaming();
      } else {
        rotate_heads<Real, Store::cached>(out, in, head, num_heads, Direction::forward, source);
      }
      return;
    }
  }
  out.matrix() = in.matrix();
  rotate(out, head, num_heads, Direction::forward, source);
}

/// The features of a column must be whole heads. Returns how many.
inline Index require_heads(Index num_features, Index head_dim, const char* who) {
  if (num_features == 0 || num_features % head_dim != 0) [[unlikely]]
    fail_size((std::string(who) + ": features of a column must be a multiple of head_dim").c_str(), head_dim,
              num_features);
  return num_features / head_dim;
}

/// The same for a matrix of tokens, whose columns must be the positions.
template <class X, class Positions>
Index require_heads(const X& x, Index head_dim, const Positions& positions, const char* who) {
  static_assert(
      RealScalar<typename Eigen::NumTraits<typename X::Scalar>::Real>,
      "posenc: queries and keys must be of float, double, half or bfloat16, or of std::complex of the first two");
  const Index num_heads = require_heads(x.rows() * (is_complex<typename X::Scalar> ? 2 : 1), head_dim, who);
  if (x.cols() != positions.size()) [[unlikely]]
    fail_size((std::string(who) + ": columns must be the number of positions").c_str(), positions.size(), x.cols());
  return num_heads;
}

/// What is written must be of the shape of what is read.
template <class Out, class In>
void require_same_shape(const Out& out, const In& in, const char* who) {
  static_assert(std::is_same_v<typename Out::Scalar, typename In::Scalar>,
                "posenc: a matrix is rotated into one of the same scalar");
  if (out.rows() != in.rows()) [[unlikely]]
    fail_size((std::string(who) + ": rows of the output must be those of the input").c_str(), in.rows(), out.rows());
  if (out.cols() != in.cols()) [[unlikely]]
    fail_size((std::string(who) + ": columns of the output must be those of the input").c_str(), in.cols(), out.cols());
}

}  // namespace posenc::inline v0::detail
