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
  RopeTable(const Rope& rope, Index num_positions, std::int64_t first = 0) : rope_(rope), first_(first) {
    detail::require(num_positions >= 0, "posenc::RopeTable: num_positions must not be negative", num_positions);
    detail::require_exact_positions(posenc::positions(num_positions, first),
                                    "posenc::RopeTable: |position| must be at most 2^53");
    cos_.resize(rope.frequencies().size(), num_positions);
    sin_.resize(rope.frequencies().size(), num_positions);
    for (Index t = 0; t < num_positions; ++t)
      for (Index pair = 0; pair < cos_.rows(); ++pair) {
        const auto exact = rope.template cos_sin<Scalar>(static_cast<double>(first + t), pair);
        cos_(pair, t) = static_cast<Scalar>(exact.cos);
        sin_(pair, t) = static_cast<Scalar>(exact.sin);
      }
  }

  /// Cosines and sines of another implementation, rotary_dim / 2 x num_positions, column t for position first + t.
  /// For a port that must reproduce its origin bit for bit. Of the Rope only the layout of its heads, its axes and its
  /// magnitude, by which the given numbers have been multiplied, are used.
  /// \throws std::invalid_argument if the tables do not fit each other or the Rope.
  RopeTable(const Rope& rope, Matrix<Scalar> cos, Matrix<Scalar> sin, std::int64_t first = 0)
      : rope_(rope), first_(first), cos_(std::move(cos)), sin_(std::move(sin)) {
    detail::require_size(cos_.rows(), rope.frequencies().size(),
                         "posenc::RopeTable: rows of cos must be the number of pairs");
    detail::require_size(sin_.rows(), cos_.rows(), "posenc::RopeTable: rows of sin must be those of cos");
    detail::require_size(sin_.cols(), cos_.cols(), "posenc::RopeTable: columns of sin must be those of cos");
  }

  /// The same without a Rope at hand.
  RopeTable(const Matrix<Scalar>& cos, const Matrix<Scalar>& sin, const RopeOptions& options, std::int64_t first = 0)
      : RopeTable(Rope({.values = Vector<double>::Zero(cos.rows())}, options), cos, sin, first) {}

  const Rope& rope() const { return rope_; }
  Index head_dim() const { return rope_.head_dim(); }
  Index num_positions() const { return cos_.cols(); }
  std::int64_t first_position() const { return first_; }
  const Matrix<Scalar>& cos() const { return cos_; }
  const Matrix<Scalar>& sin() const { return sin_; }

  /// Rotates x in place: (H * head_dim) x T, or H * head_dim / 2 complex numbers a column.
  template <MutableDense X>
  void operator()(X&& x, const Positions& positions) const {
    rotate(x, positions, 0, detail::Direction::forward);
  }

  /// Undoes the rotation.
  template <MutableDense X>
  void apply_inverse(X&& x, const Positions& positions) const {
    rotate(x, positions, 0, detail::Direction::inverse);
  }

  /// The hooks of QueryKeyEncoding.
  template <MutableDense X>
  void apply_query(X&& queries, const Positions& positions, Index head = 0) const {
    rotate(queries, positions, head, detail::Direction::forward);
  }
  template <MutableDense X>
  void apply_key(X&& keys, const Positions& positions, Index head = 0) const {
    rotate(keys, positions, head, detail::Direction::forward);
  }

 private:
  struct TableAngles {
    const RopeTable& table;
    const Positions& positions;
    Scalar scale;

    Index column(Index t, Index pair) const {
      return static_cast<Index>(positions.axis(table.rope_.frequencies().axis(pair))[t] - table.first_);
    }
    void look_up(Index t, Index pair, Scalar& cos, Scalar& sin) const {
      cos = table.cos_(pair, column(t, pair)) * scale;
      sin = table.sin_(pair, column(t, pair)) * scale;
    }
    detail::Angles<Scalar> of_token(Index t, Index pair, Index n, detail::AngleBuffer<Scalar>& buffer) const {
      if (scale == 1 && positions.num_axes() == 1)  // one column of the table, as it lies
        return {&table.cos_(pair, column(t, pair)), &table.sin_(pair, column(t, pair))};
      for (Index i = 0; i < n; ++i) look_up(t, pair + i, buffer.cos[i], buffer.sin[i]);
      return {buffer.cos.data(), buffer.sin.data()};
    }
    detail::Angles<Scalar> of_pair(Index pair, Index t, Index n, detail::AngleBuffer<Scalar>& buffer) const {
      for (Index i = 0; i < n; ++i) look_up(t + i, pair, buffer.cos[i], buffer.sin[i]);
      return {buffer.cos.data(), buffer.sin.data()};
    }
  };

  /// In unsigned numbers, whose difference is defined for every position; one before the table is then far behind it.
  bool contains(std::int64_t position) const {
    return static_cast<std::uint64_t>(position) - static_cast<std::uint64_t>(first_) <
           static_cast<std::uint64_t>(num_positions());
  }

  template <class X>
  void rotate(X& x, const Positions& positions, Index head, detail::Direction direction) const {
    static_assert(std::is_same_v<detail::compute_t<typename X::Scalar>, Scalar>,
                  "posenc::RopeTable: a double matrix needs a RopeTable<double>, every other one a RopeTable<float>");
    const Index num_heads = detail::require_heads(x, head_dim(), positions, "posenc::RopeTable");
    detail::require_axes(rope_.frequencies(), positions,
                         "posenc::RopeTable: an axis of the frequencies must be an axis of the positions");
    for (Index a = 0; a < positions.num_axes(); ++a) {
      const Positions axis = positions.axis(a);
      for (Index t = 0; t < axis.size(); ++t)
        detail::require_in_range(contains(axis[t]), "posenc::RopeTable: a position must be in the table", axis[t]);
    }
    const double m = rope_.frequencies().magnitude;
    const double scale = direction == detail::Direction::forward ? 1 : 1 / (m * m);
    rope_.rotate_pairs(x, rope_.num_rotating(num_heads, head), direction,
                       TableAngles{*this, positions, static_cast<Scalar>(scale)});
  }

  Rope rope_;
  std::int64_t first_;
  Matrix<Scalar> cos_, sin_;
};

}  // namespace posenc::inline v0
