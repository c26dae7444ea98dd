// SPDX-License-Identifier: MIT
#pragma once

#include <Eigen/Core>
#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

#include <posenc/concepts.hpp>
#include <posenc/detail/angle.hpp>
#include <posenc/detail/check.hpp>
#include <posenc/detail/rotate.hpp>
#include <posenc/rope_frequencies.hpp>

namespace posenc::inline v0 {

/// Which two features are a pair. A head of 8 features, 4 of which rotate; the same letter marks a pair, '.' is left:
///
///   interleaved   [aabb....]   (0, 1) (2, 3) ...            Llama's own code, GPT-J, complex numbers; ggml NORMAL
///   half_split    [abab....]   (0, r/2) (1, r/2 + 1) ...    GPT-NeoX, Hugging Face Llama (rotate_half); ggml NEOX
///
/// r is the number of features that rotate. A checkpoint is trained with one of them, and the other gives noise.
enum class PairLayout { interleaved, half_split };

struct RopeOptions {
  Index head_dim = 0;    ///< features of one head
  Index rotary_dim = 0;  ///< the first rotary_dim features rotate, the others stay; 0: all
  double base = 10000;   ///< rope_theta in model configurations
  PairLayout layout = PairLayout::half_split;
};

template <class Scalar>
class RopeTable;

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
/// Holds frequencies and no table; RopeTable (rope_table.hpp) is the same with cosines and sines looked up.
///
/// Shapes:   see above; T may be 0. Any storage order and stride. float, double, std::complex of them, half, bfloat16
///           (the last two are computed with in float).
/// Units:    positions in tokens, |position| <= 2^53; real-valued positions (RealPositions) as well.
/// Accuracy: every cosine and sine is within 1 ulp of float of the exact value for |position| < 2^31, and within 1.1
/// ulp
///           of double for |position| <= 2^24.
/// Errors:   std::invalid_argument for a shape that does not fit, std::out_of_range for a position beyond 2^53;
///           nothing is written then.
/// Cost:     6 flops a pair and a head, one cosine and sine a pair and token. Allocates nothing.
/// Source:   Su et al. 2021, RoFormer, arXiv:2104.09864v5, equations (15) and (34).
class Rope {
 public:
  static constexpr bool is_relative = true;
  static constexpr bool preserves_norm = true;

  explicit Rope(const RopeOptions& options)
      : Rope(rope_frequencies(checked_rotary_dim(options), options.base), options) {}

  /// With frequencies of your own: `options.base` is not used, and `options.rotary_dim` is twice their number, or 0.
  Rope(RopeFrequencies frequencies, const RopeOptions& options)
      : frequencies_(std::move(frequencies)), head_dim_(options.head_dim), layout_(options.layout) {
    checked_rotary_dim(options);
    const Index rotary_dim = 2 * frequencies_.size();
    detail::require(rotary_dim > 0, "posenc::Rope: there must be at least one frequency", frequencies_.size());
    detail::require(rotary_dim <= head_dim_, "posenc::Rope: twice the number of frequencies must be at most head_dim",
                    rotary_dim);
    if (options.rotary_dim != 0)
      detail::require_size(options.rotary_dim, rotary_dim, "posenc::Rope: rotary_dim must be twice the frequencies");
    if (frequencies_.low_parts.size() == 0) frequencies_.low_parts = Vector<double>::Zero(frequencies_.size());
    detail::require_size(frequencies_.low_parts.size(), frequencies_.size(),
                         "posenc::Rope: low_parts must be as many as the values");
    detail::require(frequencies_.values.allFinite(), "posenc::Rope: frequencies must be finite",
                    frequencies_.values.sum());
    detail::require(frequencies_.magnitude > 0 && std::isfinite(frequencies_.magnitude),
                    "posenc::Rope: magnitude must be positive and finite", frequencies_.magnitude);
  }

  Index head_dim() const { return head_dim_; }
  Index rotary_dim() const { return 2 * frequencies_.size(); }
  PairLayout layout() const { return layout_; }
  const RopeFrequencies& frequencies() const { return frequencies_; }

  /// Rotates x in place, queries or keys: they are treated alike.
  template <MutableDense X>
  void operator()(X&& x, const Positions& positions) const {
    rotate(x, positions, detail::Direction::forward);
  }
  template <MutableDense X>
  void operator()(X&& x, const RealPositions& positions) const {
    rotate(x, positions, detail::Direction::forward);
  }

  /// Undoes the rotation: rope(x, p) and then apply_inverse(x, p) gives x back, to rounding.
  template <MutableDense X>
  void apply_inverse(X&& x, const Positions& positions) const {
    rotate(x, positions, detail::Direction::inverse);
  }
  template <MutableDense X>
  void apply_inverse(X&& x, const RealPositions& positions) const {
    rotate(x, positions, detail::Direction::inverse);
  }

  /// The hooks of QueryKeyEncoding.
  template <MutableDense X>
  void apply_query(X&& queries, const Positions& positions, Index /*head*/ = 0) const {
    rotate(queries, positions, detail::Direction::forward);
  }
  template <MutableDense X>
  void apply_key(X&& keys, const Positions& positions, Index /*head*/ = 0) const {
    rotate(keys, positions, detail::Direction::forward);
  }

  /// The rotation of a position as a matrix R, head_dim x head_dim: R x is what rope makes of one column x.
  Matrix<double> matrix(double position) const {
    Matrix<double> rotation = Matrix<double>::Identity(head_dim_, head_dim_);
    const std::vector<double> everywhere(static_cast<std::size_t>(head_dim_), position);
    (*this)(rotation, everywhere);
    return rotation;
  }

 private:
  template <class Scalar>
  friend class RopeTable;

  /// Cosine and sine, times the magnitude, of a pair at a position.
  detail::CosSin cos_sin(double position, Index pair) const {
    const auto [cos, sin] = detail::cos_sin(position, {frequencies_.values[pair], frequencies_.low_parts[pair]});
    return {cos * frequencies_.magnitude, sin * frequencies_.magnitude};
  }

  /// Where the pairs of a head are.
  detail::HeadLayout head_layout() const {
    const bool interleaved = layout_ == PairLayout::interleaved;
    return {.head_dim = head_dim_,
            .num_pairs = frequencies_.size(),
            .pair_step = interleaved ? 2 : 1,
            .partner = interleaved ? 1 : frequencies_.size()};
  }

  static Index checked_rotary_dim(const RopeOptions& options) {
    detail::require(options.head_dim > 0, "posenc::Rope: head_dim must be positive", options.head_dim);
    detail::require(options.head_dim % 2 == 0 || options.rotary_dim != 0, "posenc::Rope: head_dim must be even",
                    options.head_dim);
    detail::require(options.rotary_dim >= 0, "posenc::Rope: rotary_dim must not be negative", options.rotary_dim);
    detail::require(options.rotary_dim % 2 == 0, "posenc::Rope: rotary_dim must be even", options.rotary_dim);
    detail::require(options.rotary_dim <= options.head_dim, "posenc::Rope: rotary_dim must be at most head_dim",
                    options.rotary_dim);
    return options.rotary_dim == 0 ? options.head_dim : options.rotary_dim;
  }

  /// Angles computed where they are asked for.
  template <class Value>
  struct ComputedAngles {
    const Rope& rope;
    const BasicPositions<Value>& positions;
    double scale;

    template <class Real>
    void compute(Index t, Index pair, Real& cos, Real& sin) const {
      const auto exact = rope.cos_sin(static_cast<double>(positions[t]), pair);
      cos = static_cast<Real>(exact.cos * scale);
      sin = static_cast<Real>(exact.sin * scale);
    }
    template <class Real>
    detail::Angles<Real> of_token(Index t, Index pair, Index n, detail::AngleBuffer<Real>& buffer) const {
      for (Index i = 0; i < n; ++i) compute(t, pair + i, buffer.cos[i], buffer.sin[i]);
      return {buffer.cos.data(), buffer.sin.data()};
    }
    template <class Real>
    detail::Angles<Real> of_pair(Index pair, Index t, Index n, detail::AngleBuffer<Real>& buffer) const {
      for (Index i = 0; i < n; ++i) compute(t + i, pair, buffer.cos[i], buffer.sin[i]);
      return {buffer.cos.data(), buffer.sin.data()};
    }
  };

  template <class X, class Value>
  void rotate(X& x, const BasicPositions<Value>& positions, detail::Direction direction) const {
    detail::require_heads(x, head_dim_, positions.size(), "posenc::Rope");
    detail::require_exact_positions(positions, "posenc::Rope: |position| must be at most 2^53");
    // The magnitude is in the cosines and sines; to undo it they are divided by its square.
    const double m = frequencies_.magnitude;
    const double scale = direction == detail::Direction::forward ? 1 : 1 / (m * m);
    detail::rotate(x, head_layout(), direction, ComputedAngles<Value>{*this, positions, scale});
  }

  RopeFrequencies frequencies_;
  Index head_dim_;
  PairLayout layout_;
};

}  // namespace posenc::inline v0
