// SPDX-License-Identifier: MIT
#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <type_traits>
#include <utility>

#include <posenc/concepts.hpp>
#include <posenc/detail/check.hpp>
#include <posenc/detail/rotate.hpp>
#include <posenc/rope.hpp>

namespace posenc::inline v0 {

/// RoPE with its cosines and sines in a table, made once and shared by all layers, heads and threads.
///
///   column      0      1      2     ...
///   position  first  first+1 first+2         cos(), sin():  rotary_dim / 2 x num_positions
///
/// Same calls and same results as the Rope that it was made from; the cosines and sines are looked up.
///
/// \tparam Scalar float or double: the arithmetic of the matrices that are rotated. A float table serves float,
///                std::complex<float>, half and bfloat16 matrices.
/// Errors: std::out_of_range for a position outside the table, std::invalid_argument for a shape that does not fit;
///         nothing is written then.
/// Cost:   rotary_dim * num_positions scalars of memory; rotation at the speed of reading and writing x.
template <class Scalar_>
class RopeTable {
  static_assert(std::is_same_v<Scalar_, float> || std::is_same_v<Scalar_, double>,
                "posenc::RopeTable: Scalar must be float or double; half and bfloat16 matrices use a float table");

 public:
  using Scalar = Scalar_;
  static constexpr bool is_relative = true;
  static constexpr bool preserves_norm = true;

  /// Positions first, ..., first + num_positions - 1 of a Rope.
  RopeTable(const Rope& rope, Index num_positions, std::int64_t first = 0)
      : head_(rope.head_layout()), first_(first), magnitude_(rope.frequencies().magnitude) {
    detail::require(num_positions >= 0, "posenc::RopeTable: num_positions must not be negative", num_positions);
    detail::require_exact_positions(posenc::positions(num_positions, first),
                                    "posenc::RopeTable: |position| must be at most 2^53");
    cos_.resize(head_.num_pairs, num_positions);
    sin_.resize(head_.num_pairs, num_positions);
    for (Index t = 0; t < num_positions; ++t)
      for (Index pair = 0; pair < head_.num_pairs; ++pair) {
        const auto exact = rope.cos_sin(static_cast<double>(first + t), pair);
        cos_(pair, t) = static_cast<Scalar>(exact.cos);
        sin_(pair, t) = static_cast<Scalar>(exact.sin);
      }
  }

  /// Cosines and sines of another implementation, rotary_dim / 2 x num_positions, column t for position first + t.
  /// For a port that must reproduce its origin bit for bit. Of the options, base is not used; `magnitude` is what the
  /// given cosines and sines were multiplied by.
  RopeTable(Matrix<Scalar> cos, Matrix<Scalar> sin, const RopeOptions& options, std::int64_t first = 0,
            double magnitude = 1)
      : head_(Rope({.values = Vector<double>::Zero(cos.rows()), .magnitude = magnitude}, options).head_layout()),
        first_(first),
        magnitude_(magnitude),
        cos_(std::move(cos)),
        sin_(std::move(sin)) {
    detail::require_size(sin_.rows(), cos_.rows(), "posenc::RopeTable: rows of sin must be those of cos");
    detail::require_size(sin_.cols(), cos_.cols(), "posenc::RopeTable: columns of sin must be those of cos");
  }

  Index head_dim() const { return head_.head_dim; }
  Index num_positions() const { return cos_.cols(); }
  std::int64_t first_position() const { return first_; }
  const Matrix<Scalar>& cos() const { return cos_; }
  const Matrix<Scalar>& sin() const { return sin_; }

  /// Rotates x in place: (H * head_dim) x T, or H * head_dim / 2 complex numbers a column.
  template <MutableDense X>
  void operator()(X&& x, const Positions& positions) const {
    rotate(x, positions, detail::Direction::forward);
  }

  /// Undoes the rotation.
  template <MutableDense X>
  void apply_inverse(X&& x, const Positions& positions) const {
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

 private:
  struct TableAngles {
    const RopeTable& table;
    const Positions& positions;
    Scalar scale;

    Index column(Index t) const { return static_cast<Index>(positions[t] - table.first_); }
    void look_up(Index t, Index pair, Scalar& cos, Scalar& sin) const {
      cos = table.cos_(pair, column(t)) * scale;
      sin = table.sin_(pair, column(t)) * scale;
    }
    detail::Angles<Scalar> of_token(Index t, Index pair, Index n, detail::AngleBuffer<Scalar>& buffer) const {
      if (scale == 1) return {&table.cos_(pair, column(t)), &table.sin_(pair, column(t))};
      for (Index i = 0; i < n; ++i) look_up(t, pair + i, buffer.cos[i], buffer.sin[i]);
      return {buffer.cos.data(), buffer.sin.data()};
    }
    detail::Angles<Scalar> of_pair(Index pair, Index t, Index n, detail::AngleBuffer<Scalar>& buffer) const {
      for (Index i = 0; i < n; ++i) look_up(t + i, pair, buffer.cos[i], buffer.sin[i]);
      return {buffer.cos.data(), buffer.sin.data()};
    }
  };

  template <class X>
  void rotate(X& x, const Positions& positions, detail::Direction direction) const {
    static_assert(std::is_same_v<detail::compute_t<typename X::Scalar>, Scalar>,
                  "posenc::RopeTable: a double matrix needs a RopeTable<double>, every other one a RopeTable<float>");
    detail::require_heads(x, head_.head_dim, positions.size(), "posenc::RopeTable");
    for (Index t = 0; t < positions.size(); ++t)
      detail::require_in_range(positions[t] >= first_ && positions[t] - first_ < num_positions(),
                               "posenc::RopeTable: a position must be in the table", positions[t]);
    const double scale = direction == detail::Direction::forward ? 1 : 1 / (magnitude_ * magnitude_);
    detail::rotate(x, head_, direction, TableAngles{*this, positions, static_cast<Scalar>(scale)});
  }

  detail::HeadLayout head_;
  std::int64_t first_;
  double magnitude_;
  Matrix<Scalar> cos_, sin_;
};

}  // namespace posenc::inline v0
