// SPDX-License-Identifier: MIT
#pragma once

#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>

#include <posenc/concepts.hpp>
#include <posenc/detail/angle.hpp>
#include <posenc/detail/check.hpp>
#include <posenc/detail/rotate.hpp>
#include <posenc/detail/scalar.hpp>
#include <posenc/rope.hpp>

namespace posenc::inline v0 {

struct XPosOptions {
  double scale_base = 512;  ///< positions over which a pair decays by its own factor
  std::int64_t center = 0;  ///< the position that is neither magnified nor shrunk; the same for queries and keys
};

/// xPos: RoPE whose scores also decay with the distance, the slow pairs less than the fast ones.
///
///   q_m = s_i^( (m - c) / S) R_m q        s_i = (2 i + 0.4 r) / (1.4 r), from 0.286 for pair 0 to almost 1
///   k_n = s_i^(-(n - c) / S) R_n k        S   = scale_base, c = center, r = rotary_dim
///
///   <q_m, k_n> = sum over pairs of s_i^((m - n) / S) <R_m q, R_n k>_i
///
///   pair              0      16     32     63        r = 128: what is left of its share of a score
///   m - n = 1 S       0.286  0.464  0.643  0.989
///           4 S       0.007  0.046  0.171  0.956
///
/// The centre cancels where queries and keys have the same one, and only there: it must not follow the length of the
/// sequence, as it does elsewhere, or keys in a cache no longer fit. Far from it the powers leave the range of the
/// scalar (35 thousand tokens with scale_base 512 in float, on either side: put the centre in the middle), and that is
/// an error. `move_keys` puts cached keys in front of another centre.
///
/// For causal attention: a score with a key after the query grows without bound.
///
/// Shapes:   as Rope. Units: positions in tokens.
/// Errors:   std::invalid_argument for a shape that does not fit; std::out_of_range for a position so far from the
///           centre that the largest power would exceed 1/16 of the largest number of the scalar; nothing is written
///           then.
/// Accuracy: powers in double, rounded once, together with the cosine or sine.
/// Source:   Sun et al. 2022, A Length-Extrapolatable Transformer, arXiv:2212.10554v1, section 3.2 (and torchscale).
class XPos {
 public:
  static constexpr bool is_relative = true;

  /// \param rope frequencies, features and layout; without output_layout.
  /// \throws std::invalid_argument unless scale_base is positive and finite.
  explicit XPos(Rope rope, const XPosOptions& options = {}) : rope_(std::move(rope)), options_(options) {
    detail::require(options.scale_base > 0 && std::isfinite(options.scale_base),
                    "posenc::XPos: scale_base must be positive and finite", options.scale_base);
    detail::require(!rope_.options().output_layout, "posenc::XPos: the Rope must have one layout", rope_.rotary_dim());
  }

  Index head_dim() const { return rope_.head_dim(); }
  const Rope& rope() const { return rope_; }
  const XPosOptions& options() const { return options_; }

  /// The factor s_i of a pair.
  double decay(Index pair) const {
    const auto r = static_cast<double>(rope_.rotary_dim());
    return (2 * static_cast<double>(pair) + 0.4 * r) / (1.4 * r);
  }

  /// The hooks of QueryKeyEncoding.
  template <MutableDense X>
  void apply_query(X&& queries, const Positions& positions, Index head = 0) const {
    apply(queries, positions, head, 1);
  }
  template <MutableDense X>
  void apply_key(X&& keys, const Positions& positions, Index head = 0) const {
    apply(keys, positions, head, -1);
  }

  /// Moves keys that this XPos rotated to other positions of another one, which may have another centre, by the exact
  /// difference: turned by p' w' - p w, and multiplied by s^((p - c - p' + c') / S).
  ///
  ///   xpos.move_keys(keys, positions, recentred, positions);
  ///
  /// \throws as apply_key, and std::invalid_argument if the two differ in features, layout or scale_base.
  template <MutableDense X>
  void move_keys(X&& keys, const Positions& old_positions, const XPos& to, const Positions& new_positions) const {
    detail::require(to.options_.scale_base == options_.scale_base,
                    "posenc::XPos: scale_base must be the same on both sides of a move", to.options_.scale_base);
    detail::require_size(new_positions.size(), old_positions.size(),
                         "posenc::XPos: new positions must be as many as the old ones");
    const Index num_heads = detail::require_heads(keys, rope_.head_dim(), old_positions, "posenc::XPos");
    const detail::HeadLayout head = detail::stored_layout(rope_);
    detail::require(head == detail::stored_layout(to.rope_), "posenc::XPos: both sides must rotate the same features",
                    to.rope_.rotary_dim());
    detail::require(rope_.options().num_rotary_heads == to.rope_.options().num_rotary_heads,
                    "posenc::XPos: both sides must rotate the same heads", to.rope_.options().num_rotary_heads);
    require_near<X>(old_positions);
    to.require_near<X>(new_positions);
    using Real = detail::compute_t<typename std::remove_cvref_t<X>::Scalar>;
    const double magnitude = to.rope_.frequencies().magnitude / rope_.frequencies().magnitude;
    detail::rotate<double>(keys, head, rope_.num_rotating(num_heads, 0), detail::Direction::forward,
                           detail::ComputedAngles{[&](Index t, Index pair) {
                             const detail::DoubleDouble turn = to.angle(new_positions, t, pair) +
                                                               detail::DoubleDouble{-1} * angle(old_positions, t, pair);
                             const double power =
                                 exponent(old_positions, t, pair) - to.exponent(new_positions, t, pair);
                             const double scale = magnitude * std::pow(decay(pair), power);
                             const auto [cos, sin] = detail::cos_sin<detail::wide_t<Real>>(turn);
                             return detail::CosSin{cos * scale, sin * scale};
                           }});
  }

 private:
  detail::DoubleDouble angle(const Positions& positions, Index t, Index pair) const {
    return detail::angle(static_cast<double>(positions.axis(rope_.frequencies().axis(pair))[t]),
                         rope_.frequencies().exact(pair));
  }

  double exponent(const Positions& positions, Index t, Index pair) const {
    const auto position = static_cast<double>(positions.axis(rope_.frequencies().axis(pair))[t]);
    return (position - static_cast<double>(options_.center)) / options_.scale_base;
  }

  /// No power may leave the range of the scalar that it is stored in.
  template <class X>
  void require_near(const Positions& positions) const {
    using Feature = typename Eigen::NumTraits<typename std::remove_cvref_t<X>::Scalar>::Real;
    const double range = std::log(static_cast<double>(Eigen::NumTraits<Feature>::highest()) / 16);
    const double farthest = options_.scale_base * range / -std::log(decay(0));
    detail::require_axes(rope_.frequencies(), positions, "posenc::XPos: an axis must be an axis of the positions");
    for (Index axis = 0; axis < positions.num_axes(); ++axis)
      for (Index t = 0; t < positions.size(); ++t) {
        const std::int64_t position = positions.axis(axis)[t];
        detail::require_in_range(
            std::abs(static_cast<double>(position) - static_cast<double>(options_.center)) <= farthest,
            "posenc::XPos: a position must be near enough to the centre for the scalar", position);
      }
  }

  template <class X>
  void apply(X& x, const Positions& positions, Index head, double sign) const {
    const Index num_heads = detail::require_heads(x, rope_.head_dim(), positions, "posenc::XPos");
    require_near<X>(positions);
    using Real = detail::compute_t<typename std::remove_cvref_t<X>::Scalar>;
    detail::rotate(x, detail::stored_layout(rope_), rope_.num_rotating(num_heads, head), detail::Direction::forward,
                   detail::ComputedAngles{[&](Index t, Index pair) {
                     const double scale =
                         rope_.frequencies().magnitude * std::pow(decay(pair), sign * exponent(positions, t, pair));
                     const auto [cos, sin] = detail::cos_sin<detail::wide_t<Real>>(angle(positions, t, pair));
                     return detail::CosSin{cos * scale, sin * scale};
                   }});
  }

  Rope rope_;
  XPosOptions options_;
};

/// The same as from.move_keys, under the name that Rope has it (rope_move.hpp).
template <MutableDense Keys>
void move_keys(Keys&& keys, const XPos& from, const Positions& old_positions, const XPos& to,
               const Positions& new_positions) {
  from.move_keys(keys, old_positions, to, new_positions);
}

}  // namespace posenc::inline v0
