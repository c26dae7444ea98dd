// SPDX-License-Identifier: MIT
#pragma once

#include <Eigen/Core>
#include <algorithm>
#include <array>
#include <cstdint>
#include <type_traits>

#include <posenc/concepts.hpp>
#include <posenc/detail/check.hpp>
#include <posenc/detail/scalar.hpp>
#include <posenc/detail/tile.hpp>

namespace posenc::inline v0 {

/// The size of a window of an image, in tokens.
struct SwinWindow {
  Index height = 0;  ///< Wh
  Index width = 0;   ///< Ww
};

/// Swin's relative bias: a learned number for each head and each offset of two tokens of a window of Wh x Ww.
///
///   S(n, m) += table(head, index(n, m))        index = (y_m - y_n + Wh - 1) (2 Ww - 1) + (x_m - x_n + Ww - 1)
///
///   2 x 3 window   0 1 2      index of each key for query 4    13 12 11
///                  3 4 5                                        8  7  6
///
/// Positions are the numbers of the tokens, row by row: positions(Wh * Ww) for a whole window. Or they are coordinates,
/// two axes, y and x (Positions::axes); then only the offsets of the tokens have to fit into a window, wherever it is.
///
///   posenc::SwinBias bias(table, {.height = 7, .width = 7});
///   attend(q, k, v, posenc::positions(49), bias);                     // one window and head
///   attend(q, k, v, posenc::positions(49), bias, DocumentMask(region)) // shifted windows: a number for each region
///
/// Shapes:   table H x (2 Wh - 1) (2 Ww - 1): the row-major [offsets, heads] relative_position_bias_table is that matrix.
/// \param scores          Tk x Tq, written in place: any storage order and stride; after the factor 1/sqrt(D).
/// \param key_positions   Tk entries, of one axis or two.   \param query_positions   Tq entries, likewise.
/// \param head            0, ..., num_heads() - 1.
/// Accuracy: the number of the table, rounded once to the scalar of the scores.
/// Errors:   std::invalid_argument for a shape that does not fit, std::out_of_range for a head, a token that is not in
///           the window, or tokens too far from each other; nothing is written then.
/// Cost:     a look-up and a sum a score. Allocates nothing.
/// Source:   Liu et al. 2021, Swin Transformer, arXiv:2103.14030v2, equation (4).
class SwinBias {
 public:
  /// \throws std::invalid_argument unless the window is not empty, and the table has a row a head and a column an
  ///         offset, all finite.
  template <DenseExpression Table>
  SwinBias(const Table& table, const SwinWindow& window) : table_(table.template cast<double>()), window_(window) {
    constexpr Index limit = Index{1} << 15;
    detail::require(window.height > 0 && window.height <= limit,
                    "posenc::SwinBias: height must be positive and at most 2^15", window.height);
    detail::require(window.width > 0 && window.width <= limit,
                    "posenc::SwinBias: width must be positive and at most 2^15", window.width);
    detail::require(table_.rows() > 0, "posenc::SwinBias: the table must have a row for each head", table_.rows());
    detail::require_size(table_.cols(), (2 * window.height - 1) * (2 * window.width - 1),
                         "posenc::SwinBias: columns of the table must be (2 height - 1) (2 width - 1)");
    detail::require_finite(table_, "posenc::SwinBias: the table must be finite");
    lowest_ = table_.rowwise().minCoeff();
    highest_ = table_.rowwise().maxCoeff();
  }

  Index num_heads() const { return table_.rows(); }
  const SwinWindow& window() const { return window_; }
  const Matrix<double>& table() const { return table_; }

  /// The column of the table for two tokens of the window, by their numbers.
  /// \throws std::out_of_range for a token that is not there.
  Index index(Index key_token, Index query_token) const {
    require_token(key_token);
    require_token(query_token);
    return index_of({key_token / window_.width, key_token % window_.width},
                    {query_token / window_.width, query_token % window_.width});
  }

  /// The extremes of a head's table; see BoundedBias.
  /// \throws std::out_of_range for a head that is not there.
  BiasBounds bounds(const Positions& key_positions, const Positions& query_positions, Index head) const {
    require_head(head);
    if (key_positions.size() == 0 || query_positions.size() == 0) return {0, 0};
    return {lowest_[head], highest_[head]};
  }

  template <MutableDense Scores>
  void operator()(Scores&& scores, const Positions& key_positions, const Positions& query_positions,
                  Index head = 0) const {
    detail::require_tile(scores, key_positions, query_positions, "posenc::SwinBias");
    require_head(head);
    const bool by_number = key_positions.num_axes() == 1;
    detail::require(key_positions.num_axes() <= 2, "posenc::SwinBias: positions must have one axis or two",
                    key_positions.num_axes());
    detail::require_size(query_positions.num_axes(), key_positions.num_axes(),
                         "posenc::SwinBias: axes of the query positions must be those of the key positions");
    if (by_number) {
      for (const Positions* tokens : {&key_positions, &query_positions}) require_in_window(*tokens);
      const auto by_token = [width = static_cast<std::uint64_t>(window_.width)](const Positions& tokens) {
        return [&tokens, width](Index t) {
          const auto token = static_cast<std::uint64_t>(tokens[t]);
          return token < width ? token : token + token / width * (width - 1);  // no division in the first row
        };
      };
      return add_numbers(scores, by_token(key_positions), by_token(query_positions), head);
    }
    require_near(key_positions, query_positions);
    const auto by_place = [columns = static_cast<std::uint64_t>(2 * window_.width - 1)](const Positions& tokens) {
      return [y = tokens.axis(0), x = tokens.axis(1), columns](Index t) {
        return static_cast<std::uint64_t>(y[t]) * columns + static_cast<std::uint64_t>(x[t]);
      };
    };
    add_numbers(scores, by_place(key_positions), by_place(query_positions), head);
  }

  /// The hook of ScoreBias.
  template <MutableDense Scores>
  void add_bias(Scores&& scores, const Positions& key_positions, const Positions& query_positions,
                Index head = 0) const {
    (*this)(scores, key_positions, query_positions, head);
  }

 private:
  struct Coordinates {
    std::int64_t y, x;
  };

  void require_in_window(const Positions& tokens) const {
    const Index n = tokens.size();
    if (tokens.is_contiguous() && n > 0 && is_in_window(tokens[0]) && is_in_window(tokens[n - 1])) return;
    for (Index t = 0; t < n; ++t) require_token(tokens[t]);
  }

  void require_near(const Positions& keys, const Positions& queries) const {
    for (const Positions* positions : {&keys, &queries})
      detail::require_exact_positions(*positions, "posenc::SwinBias: |position| must be at most 2^53");
    const auto farthest = [&](Index a) {
      const auto [first, last] = detail::offsets(keys.axis(a), queries.axis(a));
      return std::max(-first, last);
    };
    const double rows = farthest(0), columns = farthest(1);
    detail::require_in_range(rows < static_cast<double>(window_.height),
                             "posenc::SwinBias: rows of two tokens must be less than height apart", rows);
    detail::require_in_range(columns < static_cast<double>(window_.width),
                             "posenc::SwinBias: columns of two tokens must be less than width apart", columns);
  }

  void require_head(Index head) const {
    detail::require_in_range(head >= 0 && head < num_heads(), "posenc::SwinBias: head must be below num_heads", head);
  }
  bool is_in_window(std::int64_t token) const { return token >= 0 && token < window_.height * window_.width; }
  void require_token(std::int64_t token) const {
    detail::require_in_range(is_in_window(token), "posenc::SwinBias: a token must be in the window", token);
  }

  /// The columns of the table are numbered as tokens of an image of 2 width - 1 columns would be, so that an index is the
  /// difference of two such numbers: of a query and of a key. In unsigned numbers, whose differences always exist.
  template <class Scores, class OfKey, class OfQuery>
  void add_numbers(Scores& scores, OfKey of_key, OfQuery of_query, Index head) const {
    constexpr bool by_key = std::remove_cvref_t<Scores>::IsRowMajor;  // a line is a row: the queries of a key
    constexpr Index some = 256;
    const Index num_lines = by_key ? scores.rows() : scores.cols(), length = by_key ? scores.cols() : scores.rows();
    const auto same_place = static_cast<std::uint64_t>(table_.cols() / 2);
    std::array<std::uint64_t, some> numbers;
    for (Index begin = 0, n; begin < length; begin += n) {
      n = std::min(some, length - begin);
      for (Index i = 0; i < n; ++i)
        numbers[static_cast<std::size_t>(i)] = by_key ? of_query(begin + i) : of_key(begin + i);
      for (Index line = 0; line < num_lines; ++line) {
        const std::uint64_t of_line = by_key ? of_key(line) : of_query(line);
        for (Index i = 0; i < n; ++i) {
          const std::uint64_t number = numbers[static_cast<std::size_t>(i)];
          const std::uint64_t index = same_place + (by_key ? number - of_line : of_line - number);
          detail::add(by_key ? scores.coeffRef(line, begin + i) : scores.coeffRef(begin + i, line),
                      table_(head, static_cast<Index>(index)));
        }
      }
    }
  }

  Index index_of(Coordinates key, Coordinates query) const {
    return (query.y - key.y + window_.height - 1) * (2 * window_.width - 1) + query.x - key.x + window_.width - 1;
  }

  Matrix<double> table_;
  SwinWindow window_;
  Vector<double> lowest_, highest_;  // of each head
};

}  // namespace posenc::inline v0
