// SPDX-License-Identifier: MIT
#pragma once

#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include <posenc/concepts.hpp>
#include <posenc/detail/angle.hpp>
#include <posenc/detail/check.hpp>
#include <posenc/detail/rotate.hpp>
#include <posenc/detail/scalar.hpp>
#include <posenc/pair_layout.hpp>
#include <posenc/rope_frequencies.hpp>

namespace posenc::inline v0 {

struct RopeOptions {
  Index head_dim = 0;                          ///< features of one head
  Index rotary_dim = 0;                        ///< how many features rotate; 0: all from rotary_offset on
  Index rotary_offset = 0;                     ///< the first of them; those around stay as they are
  double base = 10000;                         ///< rope_theta in model configurations
  PairLayout layout = PairLayout::half_split;  ///< how the pairs lie in a real matrix
  std::optional<PairLayout> output_layout{};   ///< how they lie afterwards, if not the same (DeepSeek-V3)
  Index num_rotary_heads = 0;                  ///< heads from this one on stay as they are; 0: all rotate
};

template <class Scalar>
class RopeTable;

namespace detail {

/// Positions of several axes must have those that the frequencies name.
template <class Value>
void require_axes(const RopeFrequencies& frequencies, const BasicPositions<Value>& positions, const char* rule) {
  if (positions.num_axes() == 1) return;
  for (const Index axis : frequencies.axes) require(axis < positions.num_axes(), rule, axis);
}

}  // namespace detail

/// Rotary position embedding: turns each pair of features of a query or key by an angle that grows with its position.
///
///   [a']   [cos p w_i   -sin p w_i] [a]        p   = positions[t]
///   [b'] = [sin p w_i    cos p w_i] [b]        w_i = frequencies().values[i], radians per position
///
/// so that scores depend on differences of positions only:  <R_m q, R_n k> = <q, R_{n-m} k>.
///
/// A matrix holds one token a column and any number of heads, one below the other; the angles of a token are computed
/// once for all of them:
///
///   x   (H * head_dim) x T                        real, pairs as PairLayout says
///       (H * head_dim / 2) x T   std::complex     a pair is one number, and the rotation is its product with e^{i p w}
///
/// Holds frequencies and no table; RopeTable (rope_table.hpp) is the same with cosines and sines looked up. With
/// frequencies that name axes (rope_axes.hpp) each pair turns by its own coordinate of the positions.
///
/// Shapes:   see above; T may be 0. Any storage order and stride. float, double, std::complex of them, half, bfloat16
///           (the last two are computed with in float).
/// Units:    positions in tokens, |position| <= 2^53; real-valued positions (RealPositions) as well.
/// Accuracy: every cosine and sine is within 1 ulp of the exact value: of float for |position| < 2^31, of double for
///           |position| <= 2^24 and frequencies of at most 1.
/// Errors:   std::invalid_argument for a shape that does not fit, std::out_of_range for a position beyond 2^53;
///           nothing is written then.
/// Cost:     6 flops a pair and a head, one cosine and sine a pair and token. Allocates nothing.
/// Source:   Su et al. 2021, RoFormer, arXiv:2104.09864v5, equations (15) and (34).
class Rope {
 public:
  static constexpr bool is_relative = true;
  static constexpr bool preserves_norm = true;

  /// \throws std::invalid_argument "posenc::Rope: <rule>, got <value>" if the options do not fit together.
  explicit Rope(const RopeOptions& options)
      : Rope(rope_frequencies(detail::checked_rotary_dim(features(options)), options.base), options) {}

  /// With frequencies of your own: `options.base` is not used, and `options.rotary_dim` is twice their number, or 0.
  Rope(RopeFrequencies frequencies, const RopeOptions& options)
      : frequencies_(std::move(frequencies)), options_(options) {
    const Index rotary_dim = 2 * frequencies_.size();
    detail::require(rotary_dim > 0, "posenc::Rope: there must be at least one frequency", frequencies_.size());
    if (options.rotary_dim != 0)
      detail::require_size(options.rotary_dim, rotary_dim, "posenc::Rope: rotary_dim must be twice the frequencies");
    options_.rotary_dim = rotary_dim;
    head_ = detail::head_layout(features(options_), options.layout);

    detail::require_finite(frequencies_.values, "posenc::Rope: frequencies must be finite");
    if (frequencies_.low_parts.size() != 0)
      detail::require_size(frequencies_.low_parts.size(), frequencies_.size(),
                           "posenc::Rope: low_parts must be as many as the values");
    detail::require(frequencies_.magnitude > 0 && std::isfinite(frequencies_.magnitude),
                    "posenc::Rope: magnitude must be positive and finite", frequencies_.magnitude);
    if (!frequencies_.axes.empty())
      detail::require_size(static_cast<Index>(frequencies_.axes.size()), frequencies_.size(),
                           "posenc::Rope: axes must be as many as the frequencies");
    for (const Index axis : frequencies_.axes)
      detail::require(axis >= 0, "posenc::Rope: an axis must not be negative", axis);
    detail::require(options.num_rotary_heads >= 0, "posenc::Rope: num_rotary_heads must not be negative",
                    options.num_rotary_heads);
    if (options.output_layout)
      detail::require(rotary_dim <= detail::max_reordered_features,
                      "posenc::Rope: rotary_dim with an output_layout must be at most 1024", rotary_dim);
  }

  Index head_dim() const { return options_.head_dim; }
  Index rotary_dim() const { return options_.rotary_dim; }
  PairLayout layout() const { return options_.layout; }
  const RopeOptions& options() const { return options_; }
  const RopeFrequencies& frequencies() const { return frequencies_; }

  /// Rotates x in place, queries or keys: they are treated alike.
  template <MutableDense X>
  void operator()(X&& x, const Positions& positions) const {
    rotate(x, positions, 0, detail::Direction::forward);
  }
  template <MutableDense X>
  void operator()(X&& x, const RealPositions& positions) const {
    rotate(x, positions, 0, detail::Direction::forward);
  }

  /// The same into another matrix: out = x; rope(out, positions), in one pass over memory.
  ///
  ///   rope.rotate_into(q, qkv.topRows(num_heads * head_dim), positions);
  ///
  /// Features that do not rotate are copied. `out` and `x` have the same shape and scalar, any storage order and
  /// stride; they must not overlap, unless they are the same features in the same place. An output of 32 MiB or more
  /// is written past the caches.
  /// \param head the number of the first head, for num_rotary_heads.
  template <MutableDense Out, DenseExpression X>
  void rotate_into(Out&& out, const X& x, const Positions& positions, Index head = 0) const {
    rotate_into_checked(out, x, positions, head);
  }
  template <MutableDense Out, DenseExpression X>
  void rotate_into(Out&& out, const X& x, const RealPositions& positions, Index head = 0) const {
    rotate_into_checked(out, x, positions, head);
  }

  /// Undoes the rotation: rope(x, p) and then apply_inverse(x, p) gives x back, to rounding.
  template <MutableDense X>
  void apply_inverse(X&& x, const Positions& positions) const {
    rotate(x, positions, 0, detail::Direction::inverse);
  }
  template <MutableDense X>
  void apply_inverse(X&& x, const RealPositions& positions) const {
    rotate(x, positions, 0, detail::Direction::inverse);
  }

  /// The hooks of QueryKeyEncoding. \param head the number of the first head of the matrix, for num_rotary_heads.
  template <MutableDense X>
  void apply_query(X&& queries, const Positions& positions, Index head = 0) const {
    rotate(queries, positions, head, detail::Direction::forward);
  }
  template <MutableDense X>
  void apply_key(X&& keys, const Positions& positions, Index head = 0) const {
    rotate(keys, positions, head, detail::Direction::forward);
  }

  /// How many of num_heads heads rotate, the first of them being number `head`.
  Index num_rotating(Index num_heads, Index head) const {
    return options_.num_rotary_heads == 0 ? num_heads
                                          : std::clamp<Index>(options_.num_rotary_heads - head, 0, num_heads);
  }

  /// The rotation of a position as a matrix R, head_dim x head_dim: R x is what rope makes of one column x.
  template <class Scalar = double>
  Matrix<Scalar> matrix(double position) const {
    Matrix<Scalar> rotation = Matrix<Scalar>::Identity(head_dim(), head_dim());
    const std::vector<double> everywhere(static_cast<std::size_t>(head_dim()), position);
    (*this)(rotation, everywhere);
    return rotation;
  }

 private:
  template <class Scalar>
  friend class RopeTable;

  static RotaryFeatures features(const RopeOptions& options) {
    return {options.head_dim, options.rotary_dim, options.rotary_offset};
  }

  /// Cosine and sine, times the magnitude, of a pair at a position.
  template <class Real>
  detail::CosSin cos_sin(double position, Index pair) const {
    const auto [cos, sin] = detail::cos_sin<detail::wide_t<Real>>(position, frequencies_.exact(pair));
    return {cos * frequencies_.magnitude, sin * frequencies_.magnitude};
  }

  /// A complex number is two features: a head, and what rotates of it, must begin with one.
  template <class X>
  void require_pairs_of() const {
    if constexpr (detail::is_complex<typename X::Scalar>) {
      detail::require(head_dim() % 2 == 0, "posenc::Rope: head_dim of complex matrices must be even", head_dim());
      detail::require(head_.first % 2 == 0, "posenc::Rope: rotary_offset of complex matrices must be even",
                      head_.first);
    }
  }

  /// The number of heads in x, after all checks.
  template <class X, class Value>
  Index checked_heads(const X& x, const BasicPositions<Value>& positions) const {
    const Index num_heads = detail::require_heads(x, head_dim(), positions, "posenc::Rope");
    require_pairs_of<X>();
    detail::require_axes(frequencies_, positions,
                         "posenc::Rope: an axis of the frequencies must be an axis of the positions");
    detail::require_exact_positions(positions, "posenc::Rope: |position| must be at most 2^53");
    return num_heads;
  }

  template <class Real, class Value>
  auto angles(const BasicPositions<Value>& positions, detail::Direction direction) const {
    // The magnitude is in the cosines and sines; to undo it they are divided by its square.
    const double m = frequencies_.magnitude;
    const double scale = direction == detail::Direction::forward ? 1 : 1 / (m * m);
    return detail::ComputedAngles{[this, &positions, scale](Index t, Index pair) {
      const Value position = positions.axis(frequencies_.axis(pair))[t];
      const auto [cos, sin] = cos_sin<Real>(static_cast<double>(position), pair);
      return detail::CosSin{cos * scale, sin * scale};
    }};
  }

  template <class X, class Value>
  void rotate(X& x, const BasicPositions<Value>& positions, Index head, detail::Direction direction) const {
    const Index num_heads = checked_heads(x, positions);
    rotate_pairs(x, num_rotating(num_heads, head), direction,
                 angles<detail::compute_t<typename X::Scalar>>(positions, direction));
  }
  template <class Out, class X, class Value>
  void rotate_into_checked(Out& out, const X& x, const BasicPositions<Value>& positions, Index head) const {
    const Index num_heads = checked_heads(x, positions);
    detail::require_same_shape(out, x, "posenc::Rope");
    rotate_pairs_into(out, x, num_rotating(num_heads, head),
                      angles<detail::compute_t<typename X::Scalar>>(positions, detail::Direction::forward));
  }

  bool keeps_layout() const { return !options_.output_layout || *options_.output_layout == options_.layout; }

  /// The rotation itself, and the change of layout behind it (or before it, on the way back).
  template <class X, class Source>
  void rotate_pairs(X& x, Index num_heads, detail::Direction direction, const Source& source) const {
    if (detail::is_complex<typename X::Scalar> || keeps_layout())  // a complex matrix has no layout
      return detail::rotate(x, head_, num_heads, direction, source);
    if constexpr (!detail::is_complex<typename X::Scalar>) {
      const bool forward = direction == detail::Direction::forward;
      const detail::HeadLayout output = detail::head_layout(features(options_), *options_.output_layout);
      auto rotating = x.topRows(num_heads * head_dim());
      detail::rotate(x, forward ? head_ : output, num_heads, direction, source);
      detail::reorder(rotating, forward ? head_ : output, forward ? output : head_);
    }
  }
  template <class Out, class X, class Source>
  void rotate_pairs_into(Out& out, const X& x, Index num_heads, const Source& source) const {
    if (detail::is_complex<typename X::Scalar> || keeps_layout())
      return detail::rotate_into(out, x, head_, num_heads, source);
    out.matrix() = x.matrix();
    rotate_pairs(out, num_heads, detail::Direction::forward, source);
  }

  RopeFrequencies frequencies_;
  RopeOptions options_;
  detail::HeadLayout head_{};
};

namespace detail {

/// Where the pairs are in what a Rope has rotated.
inline HeadLayout stored_layout(const Rope& rope) {
  const RopeOptions& options = rope.options();
  return head_layout({options.head_dim, options.rotary_dim, options.rotary_offset},
                     options.output_layout.value_or(options.layout));
}

}  // namespace detail

}  // namespace posenc::inline v0
