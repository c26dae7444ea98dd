// SPDX-License-Identifier: MIT
#pragma once

#include <Eigen/Core>
#include <algorithm>
#include <cstdint>
#include <type_traits>
#include <utility>

#include <posenc/concepts.hpp>
#include <posenc/detail/check.hpp>
#include <posenc/detail/integer_rotations.hpp>
#include <posenc/detail/rotate.hpp>
#include <posenc/rope.hpp>

namespace posenc::inline v0 {

/// RoPE with its cosines and sines in a table, made once and shared by all layers, heads and threads.
///
///   column      0      1      2     ...
///   position  first  first+1 first+2         cos(), sin():  rotary_dim / 2 x num_positions
///
/// Same calls as the Rope that it was made from, and its cosines and sines, looked up: the same to 1 ulp of float, to the
/// bit of double. They do not depend on where the table begins.
///
/// \tparam Scalar float or double: the arithmetic of the matrices that are rotated. A float table serves float,
///                std::complex<float>, half and bfloat16 matrices.
/// Errors: std::out_of_range for a position outside the table, std::invalid_argument for a shape that does not fit;
///         nothing is written then.
/// Cost:   rotary_dim * num_positions scalars of memory, made in float at the speed of writing them; rotation at the
///         speed of reading and writing x.
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
    fill();
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

  /// The same into another matrix, with the rules of Rope::rotate_into: out = x; table(out, positions), in one pass.
  template <MutableDense Out, DenseExpression X>
  void rotate_into(Out&& out, const X& x, const Positions& positions, Index head = 0) const {
    const Index num_heads = checked_heads(x, positions);
    detail::require_same_shape(out, x, "posenc::RopeTable");
    rope_.rotate_pairs_into(out, x, rope_.num_rotating(num_heads, head), TableAngles{*this, positions, 1});
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
      if (scale == 1 && positions.num_axes() == 1) {  // one column of the table, as it lies
        const Index at = static_cast<Index>(positions[t] - table.first_) * table.cos_.rows() + pair;
        return {table.cos_.data() + at, table.sin_.data() + at};
      }
      for (Index i = 0; i < n; ++i) look_up(t, pair + i, buffer.cos[i], buffer.sin[i]);
      return {buffer.cos.data(), buffer.sin.data()};
    }
    /// The angles of all tokens, one behind the other, if they are so in the table.
    detail::Angles<Scalar> of_tokens() const {
      if (scale != 1 || !positions.is_contiguous() || positions.size() == 0) return {nullptr, nullptr};
      const Index at = static_cast<Index>(positions[0] - table.first_) * table.cos_.rows();
      return {table.cos_.data() + at, table.sin_.data() + at};
    }
    detail::Angles<Scalar> of_pair(Index pair, Index t, Index n, detail::AngleBuffer<Scalar>& buffer) const {
      for (Index i = 0; i < n; ++i) look_up(t + i, pair, buffer.cos[i], buffer.sin[i]);
      return {buffer.cos.data(), buffer.sin.data()};
    }
  };

  void fill() {
    if (num_positions() == 0) return;
    if constexpr (std::is_same_v<Scalar, float>) {
      using detail::IntegerRotations;
      const RopeFrequencies& frequencies = rope_.frequencies();
      const IntegerRotations rotations(
          frequencies.size(), frequencies.magnitude, [&](Index pair) { return frequencies.exact(pair); },
          detail::bits_of_range(first_, first_ + num_positions() - 1));
      const Index stride = cos_.rows();
      const bool around =
          rotations.can_stream(cos_.data(), sin_.data(), stride, 2 * cos_.size() * Index{sizeof(Scalar)});
      for (Index pair = 0; pair < stride; pair += IntegerRotations::max_group) {
        const Index size = std::min(IntegerRotations::max_group, stride - pair);
        const auto write = [&](Index t, const IntegerRotations::Run& run) {
          const detail::Waves<float> to{&cos_(pair, t), &sin_(pair, t)};
          if (around)
            run.stream<detail::WaveOrder::separate>(to, stride);
          else
            run.write<detail::WaveOrder::separate>(to, stride);
        };
        rotations.for_each_run(posenc::positions(num_positions(), first_), 0, pair, size, num_positions(), write);
      }
      if (around) detail::finish_streaming();
    } else {
      const RopeFrequencies& frequencies = rope_.frequencies();
      const Vector<double>& high = frequencies.values;
      const Vector<double> low =
          frequencies.low_parts.size() == 0 ? Vector<double>::Zero(high.size()).eval() : frequencies.low_parts;
      const double fastest = detail::largest_magnitude(high);
      for (Index t = 0; t < num_positions(); ++t)
        detail::cos_sin<detail::wide_t<Scalar>>(static_cast<double>(first_ + t), high.data(), low.data(), high.size(),
                                                fastest, &cos_.coeffRef(0, t), &sin_.coeffRef(0, t));
      if (frequencies.magnitude != 1) {
        cos_ *= frequencies.magnitude;
        sin_ *= frequencies.magnitude;
      }
    }
  }

  /// In unsigned numbers, whose difference is defined for every position; one before the table is then far behind it.
  bool contains(std::int64_t position) const {
    return static_cast<std::uint64_t>(position) - static_cast<std::uint64_t>(first_) <
           static_cast<std::uint64_t>(num_positions());
  }

  void require_in_table(const Positions& positions) const {
    if (positions.is_contiguous() && positions.size() > 0 && contains(positions[0]) &&
        positions.size() <= num_positions() - static_cast<Index>(positions[0] - first_))
      return;
    for (Index a = 0; a < positions.num_axes(); ++a) {
      const Positions axis = positions.axis(a);
      for (Index t = 0; t < axis.size(); ++t)
        detail::require_in_range(contains(axis[t]), "posenc::RopeTable: a position must be in the table", axis[t]);
    }
  }

  /// The number of heads in x, after all checks.
  template <class X>
  Index checked_heads(const X& x, const Positions& positions) const {
    static_assert(std::is_same_v<detail::compute_t<typename X::Scalar>, Scalar>,
                  "posenc::RopeTable: a double matrix needs a RopeTable<double>, every other one a RopeTable<float>");
    const Index num_heads = detail::require_heads(x, head_dim(), positions, "posenc::RopeTable");
    rope_.template require_pairs_of<X>();
    detail::require_axes(rope_.frequencies(), positions,
                         "posenc::RopeTable: an axis of the frequencies must be an axis of the positions");
    require_in_table(positions);
    return num_heads;
  }

  template <class X>
  void rotate(X& x, const Positions& positions, Index head, detail::Direction direction) const {
    const Index num_heads = checked_heads(x, positions);
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
