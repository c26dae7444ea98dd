// SPDX-License-Identifier: MIT
#pragma once

#include <Eigen/Core>
#include <algorithm>
#include <cstdint>
#include <type_traits>
#include <utility>
#include <vector>

#include <posenc/concepts.hpp>
#include <posenc/detail/angle.hpp>
#include <posenc/detail/check.hpp>
#include <posenc/detail/rotate.hpp>
#include <posenc/rope.hpp>

namespace posenc::inline v0 {

namespace detail {

/// The turns of a move. With one Rope they depend only on how far a token moves: tokens in a row that move as far turn by
/// the same angles, which are computed once.
template <class Real>
class MoveAngles {
 public:
  MoveAngles(const Rope& from, const Positions& old_positions, const Rope& to, const Positions& new_positions)
      : from_(from), to_(to), old_(old_positions), new_(new_positions) {}

  template <class Arithmetic>
  Angles<Arithmetic> of_token(Index t, Index pair, Index n, AngleBuffer<Arithmetic>& buffer) const {
    const bool are_there = t > 0 && n == from_.frequencies().size() && are_as_far(t - 1, t);
    for (Index i = 0; i < (are_there ? 0 : n); ++i) put(turn(t, pair + i), i, buffer);
    return {buffer.cos.data(), buffer.sin.data()};
  }
  template <class Arithmetic>
  Angles<Arithmetic> of_pair(Index pair, Index t, Index n, AngleBuffer<Arithmetic>& buffer) const {
    for (Index i = 0; i < n; ++i) {
      const auto at = static_cast<std::size_t>(i);
      if (i > 0 && are_as_far(t + i - 1, t + i)) {
        buffer.cos[at] = buffer.cos[at - 1];
        buffer.sin[at] = buffer.sin[at - 1];
      } else {
        put(turn(t + i, pair), i, buffer);
      }
    }
    return {buffer.cos.data(), buffer.sin.data()};
  }

 private:
  bool are_as_far(Index s, Index t) const {
    if (&from_ != &to_) return false;
    for (Index a = 0; a < std::min(old_.num_axes(), new_.num_axes()); ++a)
      if (new_.axis(a)[t] - old_.axis(a)[t] != new_.axis(a)[s] - old_.axis(a)[s]) return false;
    return true;
  }

  DoubleDouble turn(Index t, Index pair) const {
    const RopeFrequencies &w = from_.frequencies(), &to_w = to_.frequencies();
    const auto p = static_cast<double>(old_.axis(w.axis(pair))[t]),
               to_p = static_cast<double>(new_.axis(to_w.axis(pair))[t]);
    if (&from_ == &to_) return two_sum(to_p, -p) * w.exact(pair);
    return angle(to_p, to_w.exact(pair)) + DoubleDouble{-1} * angle(p, w.exact(pair));
  }

  template <class Arithmetic>
  void put(const DoubleDouble& turn, Index i, AngleBuffer<Arithmetic>& buffer) const {
    const auto [cos, sin] = cos_sin<wide_t<Real>>(turn);
    buffer.cos[static_cast<std::size_t>(i)] = static_cast<Arithmetic>(cos * scale_);
    buffer.sin[static_cast<std::size_t>(i)] = static_cast<Arithmetic>(sin * scale_);
  }

  const Rope &from_, &to_;
  const Positions &old_, &new_;
  double scale_ = to_.frequencies().magnitude / from_.frequencies().magnitude;
};

}  // namespace detail

/// Moves rotated keys of a cache to other positions, other frequencies or both: one rotation by the exact difference.
///
///   k at p with frequencies w   ->   k at p' with frequencies w':      turned by p' w' - p w, times m' / m
///
///   after an eviction     move_keys(keys, rope, old_positions, new_positions);
///   past a trained length move_keys(keys, short_rope, positions, long_rope, positions);     LongRoPE, dynamic NTK
///
/// A magnitude (YaRN, LongRoPE) is in the keys once and stays so: only the quotient of the two is applied. Positions
/// may have axes, as those of the Ropes.
///
/// \param keys (num_kv_heads * head_dim) x T, rotated by `from` at `old_positions`; written in place.
/// \throws std::invalid_argument if the shapes do not fit, or the two Ropes rotate different features;
///         std::out_of_range for a position beyond 2^53; nothing is written then.
/// Accuracy: the angle is exact, and the rotation is computed in double, in float for half and bfloat16, and rounded
///           once: in float storage one move is off by at most half an ulp of each feature, 0.5 eps (2^-23) of the
///           length of its pair. n moves in place add up to 0.15 sqrt(n) eps on average and n / 2 at most; measured
///           after 100: 1.5 on average, at most 10 for random moves and 30 for moves by one token. Norms are kept as
///           well as that. MovableKeys does not accumulate.
/// Cost:     one cosine and sine a pair and token, with one Rope only for the first of tokens in a row that move as far;
///           6 flops a pair and head. Allocates nothing.
template <MutableDense Keys>
void move_keys(Keys&& keys, const Rope& from, const Positions& old_positions, const Rope& to,
               const Positions& new_positions) {
  const Index num_heads = detail::require_heads(keys, from.head_dim(), old_positions, "posenc::move_keys");
  detail::require_size(new_positions.size(), old_positions.size(),
                       "posenc::move_keys: new positions must be as many as the old ones");
  const detail::HeadLayout head = detail::stored_layout(from);
  detail::require(head == detail::stored_layout(to), "posenc::move_keys: both Ropes must rotate the same features",
                  to.rotary_dim());
  detail::require(from.options().num_rotary_heads == to.options().num_rotary_heads,
                  "posenc::move_keys: both Ropes must rotate the same heads", to.options().num_rotary_heads);
  for (const auto* move : {&old_positions, &new_positions})
    detail::require_exact_positions(*move, "posenc::move_keys: |position| must be at most 2^53");
  detail::require_axes(from.frequencies(), old_positions, "posenc::move_keys: an axis must be among the old positions");
  detail::require_axes(to.frequencies(), new_positions, "posenc::move_keys: an axis must be among the new positions");

  using Real = detail::compute_t<typename std::remove_cvref_t<Keys>::Scalar>;
  using Stored = typename Eigen::NumTraits<typename std::remove_cvref_t<Keys>::Scalar>::Real;
  using Arithmetic = std::conditional_t<(sizeof(Stored) < sizeof(float)), float, double>;
  detail::rotate<Arithmetic>(keys, head, from.num_rotating(num_heads, 0), detail::Direction::forward,
                             detail::MoveAngles<Real>(from, old_positions, to, new_positions));
}

/// The same with one Rope: only the positions change.
template <MutableDense Keys>
void move_keys(Keys&& keys, const Rope& rope, const Positions& old_positions, const Positions& new_positions) {
  move_keys(keys, rope, old_positions, rope, new_positions);
}

/// Keys that remember where they were rotated first, and are always moved from there: moving them n times gives the
/// same bits as moving them once to where they end.
///
///   MovableKeys<float> cached(keys, rope, positions);      // rotated once
///   cached.move_to(shifted);                               // as often as you like
///   attend(q, cached.keys(), v, ...)
///
///   MovableKeys<float, XPos> decaying(keys, xpos, positions);
///   decaying.move_to(recentred, shifted);
///
/// Memory: twice the keys.
/// \tparam Encoding Rope, or another type that move_keys can be called with.
template <class Scalar_, class Encoding = Rope>
class MovableKeys {
 public:
  using Scalar = Scalar_;

  /// \param keys (num_kv_heads * head_dim) x T, rotated by `encoding` at `positions`.
  /// \throws std::invalid_argument if the shapes do not fit.
  MovableKeys(Matrix<Scalar> keys, Encoding encoding, const Positions& positions)
      : encoding_(std::move(encoding)), origin_(std::move(keys)), keys_(origin_) {
    detail::require_heads(origin_, encoding_.head_dim(), positions, "posenc::MovableKeys");
    for (Index axis = 0; axis < positions.num_axes(); ++axis)
      for (Index t = 0; t < positions.size(); ++t) positions_.push_back(positions.axis(axis)[t]);
    num_axes_ = positions.num_axes();
  }

  /// The keys where they are now.
  const Matrix<Scalar>& keys() const { return keys_; }

  /// Moves the keys from their origin to new positions. \throws as move_keys; the keys are then unchanged.
  void move_to(const Positions& positions) { move_to(encoding_, positions); }

  /// The same, to the frequencies of another Rope (the centre of another XPos).
  void move_to(const Encoding& other, const Positions& positions) {
    Matrix<Scalar> moved = origin_;
    move_keys(moved, encoding_, Positions::axes(positions_, num_axes_), other, positions);
    keys_ = std::move(moved);
  }

 private:
  Encoding encoding_;
  Matrix<Scalar> origin_, keys_;
  std::vector<std::int64_t> positions_;
  Index num_axes_ = 1;
};

}  // namespace posenc::inline v0
