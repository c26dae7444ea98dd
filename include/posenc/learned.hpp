// SPDX-License-Identifier: MIT
#pragma once

#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <random>
#include <type_traits>
#include <utility>

#include <posenc/concepts.hpp>
#include <posenc/detail/check.hpp>
#include <posenc/detail/lines.hpp>
#include <posenc/detail/read_ahead.hpp>
#include <posenc/detail/scalar.hpp>
#include <posenc/positions.hpp>

namespace posenc::inline v0 {

/// What a position outside a table means.
///
///   error    std::out_of_range; nothing is written
///   clamp    the nearest column of the table
///   skip     nothing is added to that token
enum class OutOfRange { error, clamp, skip };

/// How positions find their column. Presets for tables in which the first columns are not positions:
///
///   preset            column of position p    scale     padding
///   bart              p + 2                   1         counts like any token
///   opt               p + 2                   1         column 1
///   roberta           p + padding_idx + 1     1         column padding_idx; also fairseq, whose column is zero
///   x_transformers    p                       D^-0.5    counts like any token
///
/// Where padding has a column of its own it is position -1: positions are `padded_positions(mask, {.padding = -1})`.
/// For ids that were counted elsewhere, with the offset in them, leave `offset` at 0.
struct LearnedAbsoluteOptions {
  std::int64_t offset = 0;  ///< position p is column p + offset
  double scale = 1;         ///< multiplies the columns
  OutOfRange out_of_range = OutOfRange::error;

  static LearnedAbsoluteOptions bart() { return {.offset = 2}; }
  static LearnedAbsoluteOptions opt() { return {.offset = 2}; }
  static LearnedAbsoluteOptions roberta(std::int64_t padding_idx = 1) { return {.offset = padding_idx + 1}; }
  static LearnedAbsoluteOptions x_transformers(Index dim) { return {.scale = 1 / std::sqrt(static_cast<double>(dim))}; }
};

/// A table to begin training with: independent normal numbers around 0.
struct NormalTable {
  Index dim = 0;
  Index num_positions = 0;
  double stddev = 0.02;    ///< 0.02 is BERT's and GPT-2's
  std::uint64_t seed = 0;  ///< same seed, same table: with every compiler and standard library
};

/// Which points of the old and the new table lie on each other when a table is stretched from 3 to 5 columns:
///
///   corners    old  0     1     2         the first and the last stay what they are;
///              new  0  1  2  3  4         align_corners=True in PyTorch, what torchtune uses
///
///   centers    old  |  0 |  1 |  2 |      cells cover the same length, ends are repeated outwards;
///              new  |0 |1 |2 |3 |4 |      align_corners=False in PyTorch, its default
enum class TableAlignment { corners, centers };

/// The sides of a grid of tokens, row by row: token r * cols + c is at row r and column c.
struct GridShape {
  Index rows = 0;
  Index cols = 0;
};

/// Adds to each token a trained vector that belongs to its position.
///
///   x(:, t) += scale * table(:, positions(t) + offset)
///
///   table   D x N      column   0  1 | 2  3  4  5 ...      with offset 2, as OPT has it
///                    position        | 0  1  2  3 ...
///
/// The table is given (its columns are the rows of nn.Embedding, so a row-major [N, D] buffer is it as it lies), or
/// drawn. It does not change afterwards: what resizes it returns another LearnedAbsolute with the same options.
///
///   LearnedAbsolute<float> learned(table, LearnedAbsoluteOptions::opt());
///   learned(x, padded_positions(mask, {.padding = -1}));
///
/// Units:    positions in tokens.
/// Accuracy: the column as it is stored, times scale with one rounding, plus x with one rounding; in float where table
///           and x are half or bfloat16. What resizes is computed in double and rounded once.
/// Cost:     a look-up reads D numbers a token and allocates nothing.
/// Source:   Gehring et al. 2017, arXiv:1705.03122v3, section 3.1. Resizing in two dimensions: Dosovitskiy et al. 2021,
///           arXiv:2010.11929v2, section 3.2.
template <class Scalar_>
class LearnedAbsolute {
 public:
  using Scalar = Scalar_;
  static_assert(RealScalar<Scalar>, "posenc::LearnedAbsolute: Scalar must be float, double, half or bfloat16");

  /// \param table D x N, a column a position.
  /// \throws std::invalid_argument if the table is empty, the scale is not finite or the offset beyond 2^62.
  explicit LearnedAbsolute(Matrix<Scalar> table, const LearnedAbsoluteOptions& options = {})
      : table_(std::move(table)), options_(options) {
    detail::require(dim() > 0, "posenc::LearnedAbsolute: dim must be positive", dim());
    detail::require(num_positions() > 0, "posenc::LearnedAbsolute: num_positions must be positive", num_positions());
    detail::require(std::isfinite(options.scale), "posenc::LearnedAbsolute: scale must be finite", options.scale);
    constexpr std::int64_t max_offset = std::int64_t{1} << 62;  // so that no sum with a position wraps into the table
    detail::require(options.offset >= -max_offset && options.offset <= max_offset,
                    "posenc::LearnedAbsolute: offset must be at most 2^62 from 0", options.offset);
  }

  /// A table of normal numbers.
  /// \throws std::invalid_argument if a size is not positive, or stddev is negative or not finite.
  static LearnedAbsolute normal(const NormalTable& drawn, const LearnedAbsoluteOptions& options = {}) {
    detail::require(drawn.dim > 0, "posenc::LearnedAbsolute: dim must be positive", drawn.dim);
    detail::require(drawn.num_positions > 0, "posenc::LearnedAbsolute: num_positions must be positive",
                    drawn.num_positions);
    Matrix<Scalar> table(drawn.dim, drawn.num_positions);
    draw(table, 0, drawn.stddev, drawn.seed);
    return LearnedAbsolute(std::move(table), options);
  }

  /// Adds the column of positions(t) to column t of x.
  ///
  /// \param x         dim() x T, one token a column; any storage order and stride, and any scalar.
  /// \param positions T entries; may be repeated or unordered.
  /// \throws std::invalid_argument if the shapes do not fit; x is then unchanged.
  /// \throws std::out_of_range     if a position is not in the table, unless the options say otherwise; likewise.
  template <MutableDense X>
  void add_to(X&& x, const Positions& positions) const {
    using Stored = std::remove_cvref_t<X>;
    static_assert(RealScalar<typename Stored::Scalar>,
                  "posenc::LearnedAbsolute: x must hold float, double, half or bfloat16");
    detail::require_size(x.rows(), dim(), "posenc::LearnedAbsolute: rows of x must be dim");
    detail::require_size(x.cols(), positions.size(),
                         "posenc::LearnedAbsolute: columns of x must be the number of positions");
    if (options_.out_of_range == OutOfRange::error)
      for (Index t = 0; t < positions.size(); ++t)
        detail::require_in_range(contains(positions[t]), "posenc::LearnedAbsolute: positions must be in the table",
                                 positions[t]);

    const auto scale = static_cast<Real>(options_.scale);
    const auto add_feature = [&](Index i, Index t, Index column) {
      detail::add(x.coeffRef(i, t), scale * static_cast<Real>(table_(i, column)));
    };
    if constexpr (Stored::IsRowMajor) {  // tokens are contiguous: features outside, tokens inside
      for (Index i = 0; i < dim(); ++i)
        for (Index t = 0; t < x.cols(); ++t)
          if (const Index column = column_of(positions[t]); column != none) add_feature(i, t, column);
    } else {
      constexpr bool in_lines = std::is_same_v<detail::compute_t<typename Stored::Scalar>, Real>;
      for (Index t = 0; t < x.cols(); ++t) {
        const Index column = column_of(positions[t]), next = t + 1 < x.cols() ? column_of(positions[t + 1]) : none;
        if (next != none && next != column + 1)
          detail::prefetch(&table_(0, next), dim() * static_cast<Index>(sizeof(Scalar)));
        if (column == none) continue;
        if (in_lines && x.innerStride() == 1)
          detail::add_line(&x.coeffRef(0, t), &table_(0, column), dim(), scale);
        else
          for (Index i = 0; i < dim(); ++i) add_feature(i, t, column);
      }
    }
  }

  /// add_to.
  template <MutableDense X>
  void operator()(X&& x, const Positions& positions) const {
    add_to(x, positions);
  }

  /// The first n columns.
  /// \throws std::invalid_argument unless 0 < n <= num_positions().
  LearnedAbsolute truncated(Index n) const {
    detail::require(n > 0 && n <= num_positions(),
                    "posenc::LearnedAbsolute: truncated needs from 1 to num_positions columns", n);
    return LearnedAbsolute(table_.leftCols(n), options_);
  }

  /// The table with columns of normal numbers behind it, n in all. They are those that `normal` with the same seed has
  /// there, so a table that was drawn and extended is the one that would have been drawn longer.
  /// \throws std::invalid_argument if n < num_positions(), or stddev is negative or not finite.
  LearnedAbsolute extended(Index n, double stddev = 0.02, std::uint64_t seed = 0) const {
    detail::require(n >= num_positions(), "posenc::LearnedAbsolute: extended needs at least num_positions columns", n);
    Matrix<Scalar> table(dim(), n);
    table.leftCols(num_positions()) = table_;
    draw(table, num_positions(), stddev, seed);
    return LearnedAbsolute(std::move(table), options_);
  }

  /// The table stretched or shrunk linearly to n columns; the first num_prefix_tokens are kept apart, as they are (with
  /// OPT's and BART's offset: 2). As F.interpolate(mode="linear", size=...) of PyTorch.
  /// \throws std::invalid_argument unless 0 <= num_prefix_tokens < n, num_positions().
  LearnedAbsolute interpolated(Index n, TableAlignment alignment, Index num_prefix_tokens = 0) const {
    return interpolated_2d({.rows = 1, .cols = num_positions() - num_prefix_tokens},
                           {.rows = 1, .cols = n - num_prefix_tokens}, alignment, num_prefix_tokens);
  }

  /// The same for tokens that are a grid, such as the patches of an image behind a class token (num_prefix_tokens = 1).
  ///
  ///   C 0 1    2 x 2 with a class token    C 0 . 1    2 x 3, corners
  ///     2 3                                  2 . 3
  ///
  /// As F.interpolate(mode="bilinear", size=...) of PyTorch without antialias; its "bicubic" is not offered.
  /// \throws std::invalid_argument unless both grids are not empty and `from` has num_positions() - num_prefix_tokens
  ///         tokens.
  LearnedAbsolute interpolated_2d(GridShape from, GridShape to, TableAlignment alignment,
                                  Index num_prefix_tokens = 0) const {
    const Index prefix = num_prefix_tokens;
    detail::require(prefix >= 0, "posenc::LearnedAbsolute: num_prefix_tokens must not be negative", prefix);
    for (const Index side : {from.rows, from.cols, to.rows, to.cols})
      detail::require(side > 0, "posenc::LearnedAbsolute: sides of a grid must be positive", side);
    detail::require_size(prefix + from.rows * from.cols, num_positions(),
                         "posenc::LearnedAbsolute: prefix and grid must be num_positions");

    Matrix<Scalar> table(dim(), prefix + to.rows * to.cols);
    table.leftCols(prefix) = table_.leftCols(prefix);
    for (Index r = 0; r < to.rows; ++r) {
      const Between y = between(r, from.rows, to.rows, alignment);
      for (Index c = 0; c < to.cols; ++c) {
        const Between x = between(c, from.cols, to.cols, alignment);
        for (Index i = 0; i < dim(); ++i) {
          const auto old = [&](Index row, Index col) {
            return static_cast<double>(static_cast<Real>(table_(i, prefix + row * from.cols + col)));
          };
          const double upper = std::lerp(old(y.low, x.low), old(y.low, x.high), x.weight);
          const double lower = std::lerp(old(y.high, x.low), old(y.high, x.high), x.weight);
          table(i, prefix + r * to.cols + c) = rounded(std::lerp(upper, lower, y.weight));
        }
      }
    }
    return LearnedAbsolute(std::move(table), options_);
  }

  Index dim() const { return table_.rows(); }

  /// Columns of the table: those before the first position are among them.
  Index num_positions() const { return table_.cols(); }

  const Matrix<Scalar>& table() const { return table_; }
  const LearnedAbsoluteOptions& options() const { return options_; }

 private:
  using Real = detail::compute_t<Scalar>;
  static constexpr Index none = -1;

  static Scalar rounded(double value) { return static_cast<Scalar>(static_cast<Real>(value)); }

  /// Unsigned, so that the sum is defined for every position; one in front of the table is then far behind it.
  std::uint64_t unsigned_column(std::int64_t position) const {
    return static_cast<std::uint64_t>(position) + static_cast<std::uint64_t>(options_.offset);
  }

  bool contains(std::int64_t position) const {
    return unsigned_column(position) < static_cast<std::uint64_t>(num_positions());
  }

  Index column_of(std::int64_t position) const {
    if (contains(position)) return static_cast<Index>(unsigned_column(position));
    if (options_.out_of_range != OutOfRange::clamp) return none;
    return position < -options_.offset ? 0 : num_positions() - 1;
  }

  /// Fills the columns from `first` on with what a fresh table would have there: Box-Muller, two draws a number.
  static void draw(Matrix<Scalar>& table, Index first, double stddev, std::uint64_t seed) {
    detail::require(stddev >= 0 && std::isfinite(stddev),
                    "posenc::LearnedAbsolute: stddev must not be negative and must be finite", stddev);
    std::mt19937_64 engine(seed);
    engine.discard(2 * static_cast<unsigned long long>(first * table.rows()));
    const auto uniform = [&] { return static_cast<double>((engine() >> 11) + 1) * 0x1p-53; };  // in (0, 1]
    for (Index column = first; column < table.cols(); ++column)
      for (Index i = 0; i < table.rows(); ++i) {
        const double radius = std::sqrt(-2 * std::log(uniform()));
        table(i, column) = rounded(stddev * radius * std::cos(2 * std::numbers::pi * uniform()));
      }
  }

  /// Two neighbours in an axis of the old table, and how far from the first to the second.
  struct Between {
    Index low, high;
    double weight;
  };

  /// Where entry k of an axis of `to` entries is in one of `from`. A fraction of integers, so that points which
  /// coincide do so exactly.
  static Between between(Index k, Index from, Index to, TableAlignment alignment) {
    const bool corners = alignment == TableAlignment::corners;
    const Index numerator = corners ? k * (from - 1) : std::max<Index>((2 * k + 1) * from - to, 0);
    const Index denominator = corners ? std::max<Index>(to - 1, 1) : 2 * to;
    const Index low = numerator / denominator;
    const Index remainder = numerator % denominator;
    return {low, std::min(low + (remainder > 0), from - 1),
            static_cast<double>(remainder) / static_cast<double>(denominator)};
  }

  Matrix<Scalar> table_;
  LearnedAbsoluteOptions options_;
};

}  // namespace posenc::inline v0
