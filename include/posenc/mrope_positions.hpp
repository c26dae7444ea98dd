// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

#include <posenc/concepts.hpp>
#include <posenc/detail/check.hpp>

namespace posenc::inline v0 {

/// A grid of tokens: an image has one frame. Sides are counted in tokens, that is in patches divided by the merge size.
struct TokenGrid {
  Index frames = 1;
  Index rows = 0;
  Index cols = 0;
};

/// Builds the positions of text, images and videos in one sequence: time, height and width of every token.
///
///   text text  image 2 x 3       text
///   t  0   1   2 2 2 2 2 2        5        an image has one time; what follows is behind its longest side
///   h  0   1   2 2 2 3 3 3        5
///   w  0   1   2 3 4 2 3 4        5
///
///   MropePositions ids;
///   ids.add_text(2);
///   ids.add_grid({.rows = 2, .cols = 3});
///   ids.add_text(1);
///   rope(q, Positions::axes(ids.entries(), 3));
///
/// Units: tokens. Source: Wang et al. 2024, Qwen2-VL, arXiv:2409.12191v2, section 2.1, and its published code.
class MropePositions {
 public:
  /// Tokens of a text: all three axes go on by one. \throws std::invalid_argument if there are fewer than 0.
  void add_text(Index num_tokens) {
    detail::require(num_tokens >= 0, "posenc::MropePositions: the number of tokens must not be negative", num_tokens);
    for (Index i = 0; i < num_tokens; ++i, ++next_) add(next_, next_, next_);
    largest_ = std::max(largest_, next_ - 1);
    counted_ += num_tokens;
  }

  /// Tokens of an image or a video, frame by frame and row by row. What follows begins behind the longer of rows and
  /// columns.
  /// \param interval time between two frames: frame k is at trunc(k * interval). Tokens per second times seconds per
  ///                 frame in Qwen2.5-VL; 1 otherwise.
  /// \throws std::invalid_argument if a side is not positive, or the interval negative or not finite;
  ///         std::out_of_range if the last frame would be beyond 2^53.
  void add_grid(const TokenGrid& grid, double interval = 1) {
    for (const Index side : {grid.frames, grid.rows, grid.cols})
      detail::require(side > 0, "posenc::MropePositions: a side of a grid must be positive", side);
    detail::require(interval >= 0 && std::isfinite(interval),
                    "posenc::MropePositions: the interval must not be negative and must be finite", interval);
    const double last = static_cast<double>(grid.frames - 1) * interval;
    detail::require_in_range(last <= 0x1p53, "posenc::MropePositions: the last frame must be at most at 2^53", last);
    for (Index frame = 0; frame < grid.frames; ++frame) {
      const auto time = static_cast<std::int64_t>(static_cast<double>(frame) * interval);
      for (Index row = 0; row < grid.rows; ++row)
        for (Index col = 0; col < grid.cols; ++col) add(next_ + time, next_ + row, next_ + col);
      largest_ = std::max({largest_, next_ + time, next_ + grid.rows - 1, next_ + grid.cols - 1});
    }
    counted_ += grid.frames * grid.rows * grid.cols;
    next_ += std::max(grid.rows, grid.cols);
  }

  /// Padding: a fixed position on all axes, which is not counted.
  void add_padding(Index num_tokens, std::int64_t position = 0) {
    detail::require(num_tokens >= 0, "posenc::MropePositions: the number of tokens must not be negative", num_tokens);
    for (Index i = 0; i < num_tokens; ++i) add(position, position, position);
  }

  Index num_tokens() const { return static_cast<Index>(times_.size()); }

  /// [3, T]: all times, then all heights, then all widths, as Positions::axes takes them.
  std::vector<std::int64_t> entries() const {
    std::vector<std::int64_t> all = times_;
    all.insert(all.end(), rows_.begin(), rows_.end());
    all.insert(all.end(), cols_.begin(), cols_.end());
    return all;
  }

  /// The position of the next token of a text.
  std::int64_t next() const { return next_; }

  /// The largest position + 1, less the number of tokens, neither of padding: a decoder that counts tokens adds it to
  /// get positions ("rope_deltas").
  std::int64_t delta() const { return largest_ + 1 - counted_; }

 private:
  void add(std::int64_t time, std::int64_t row, std::int64_t col) {
    times_.push_back(time);
    rows_.push_back(row);
    cols_.push_back(col);
  }

  std::vector<std::int64_t> times_, rows_, cols_;
  std::int64_t next_ = 0;
  std::int64_t largest_ = -1;
  Index counted_ = 0;
};

/// The rows and columns of the patches of an image, in the order in which a vision encoder has them: blocks of merge x
/// merge patches, row by row within the block and over the blocks; the frames of a video repeat it.
///
///   rows 2, cols 4, merge 2      patch   0 1 2 3 4 5 6 7
///     0 1 | 4 5                  row     0 0 1 1 0 0 1 1
///     2 3 | 6 7                  column  0 1 0 1 2 3 2 3
///
/// \returns [2, frames * rows * cols]: all rows, then all columns, as Positions::axes takes them. Merge 1 is row by
/// row. \throws std::invalid_argument if a side or merge is not positive, or merge does not divide rows and columns.
inline std::vector<std::int64_t> patch_positions(const TokenGrid& patches, Index merge = 1) {
  for (const Index side : {patches.frames, patches.rows, patches.cols, merge})
    detail::require(side > 0, "posenc::patch_positions: a side must be positive", side);
  detail::require(patches.rows % merge == 0, "posenc::patch_positions: merge must divide rows", patches.rows);
  detail::require(patches.cols % merge == 0, "posenc::patch_positions: merge must divide cols", patches.cols);
  std::vector<std::int64_t> rows, cols;
  for (Index frame = 0; frame < patches.frames; ++frame)
    for (Index block_row = 0; block_row < patches.rows; block_row += merge)
      for (Index block_col = 0; block_col < patches.cols; block_col += merge)
        for (Index row = block_row; row < block_row + merge; ++row)
          for (Index col = block_col; col < block_col + merge; ++col) {
            rows.push_back(row);
            cols.push_back(col);
          }
  rows.insert(rows.end(), cols.begin(), cols.end());
  return rows;
}

}  // namespace posenc::inline v0
