// SPDX-License-Identifier: MIT
#pragma once

// A term by distance, clipped-relative keys and values, as a part of the walk over the tiles of some panels of queries.

#include <Eigen/Core>
#include <algorithm>
#include <cstdint>
#include <type_traits>
#include <utility>

#include <posenc/attention_workspace.hpp>
#include <posenc/concepts.hpp>
#include <posenc/detail/attention_tile.hpp>
#include <posenc/detail/check.hpp>
#include <posenc/detail/read_ahead.hpp>
#include <posenc/detail/tile_runs.hpp>

namespace posenc::inline v0::detail {

/// What a term adds to the sums of tiles and what it makes of their weights. For the queries of a panel that is a matter of
/// y, how far a key is behind the first of them, plus max_left:
///
///   skewed(y, i) = <a_clip(y - i), q_i>          rows 0 and below, and the last and above, are the clipped ones
///
/// These two edges, which are the same for all keys that are far from a panel, are kept for every panel of a block. All
/// rows exist for one panel at a time: from the first tile of nearer keys, which enters it, until its tiles of a stretch are
/// done or it sees keys that are far again; then the weights that each distance got meet its value vector.
///
/// Only columns 0, ..., last_distance of the tables are used, those that some bias by distance does not hide.
template <class Scalar, class Term>
class FusedTerm {
 public:
  FusedTerm(AttentionWorkspace<Scalar>& workspace, const Term& term, Index head, Index last_distance)
      : work_(workspace), term_(term), head_(head), last_distance_(last_distance) {}

  /// Where the queries of a panel may be put before it begins or is entered.
  Scalar* scratch() { return work_.skewed_scores_.data(); }

  /// Begins with a panel of transposed queries as they were given, times the scale: terms do not see a rotation.
  void begin(Index p, const Scalar* queries, Index dim, Index value_dim) {
    const auto keys = term_.key_vectors(head_);
    const auto values = term_.value_vectors(head_);
    has_values_ = values.size() != 0;
    dim_ = dim;
    value_dim_ = value_dim;
    if (keys.size() != 0)
      require_size(keys.rows(), dim, "posenc::streaming_attend: rows of a key table must be those of the queries");
    if (has_values_)
      require_size(values.rows(), value_dim,
                   "posenc::streaming_attend: rows of a value table must be those of the values");
    for (const bool is_last : {false, true}) {
      std::fill_n(edge_scores(p, is_last), panel, Scalar(0));
      std::fill_n(edge_weights(p, is_last), panel, Scalar(0));
      for (Index d = 0; d < keys.rows() && keys.size() != 0; ++d)
        add_multiple(static_cast<Scalar>(keys.coeff(d, is_last ? last_distance_ : 0)), queries + d * panel,
                     edge_scores(p, is_last));
    }
  }

  /// The rows with which the sums of consecutive keys begin. Enters the panel if it must: make_queries() gives what it
  /// began with.
  template <class MakeQueries>
  void find_rows(Index p, std::int64_t first_query, std::int64_t first_key, Index num_keys, const Scalar** rows,
                 ReadAhead& ahead, MakeQueries make_queries) {
    first_row_ = first_key - first_query + term_.max_left();
    num_keys_ = num_keys;
    if (is_edge()) {
      std::fill_n(rows, num_keys, edge_scores(p, first_row_ > 0));
      return;
    }
    if (!is_entered_) enter(make_queries(), ahead);
    for (Index j = 0; j < num_keys; ++j) rows[j] = work_.skewed_scores_.data() + row_of(j) * panel;
  }

  /// Adds the weights of these keys, whose sums are given as well; what is there is corrected first.
  void add(Index p, const Scalar* weights, const TileRuns& runs, const Scalar* sums, const Scalar* correction,
           bool is_corrected, Scalar* outputs) {
    if (!has_values_) return;
    // A tile of which nothing is seen is as if it were not there. So no rounding depends on whether it is left out.
    if (std::all_of(sums, sums + panel, [](Scalar sum) { return sum == 0; })) return;
    if (is_edge()) leave(outputs);
    if (is_corrected) {
      scale_rows(edge_weights(p, false), 1, correction);
      scale_rows(edge_weights(p, true), 1, correction);
      if (is_entered_) scale_rows(weights_of(low_), high_ - low_, correction);
    }
    if (is_edge()) {
      add_multiple(Scalar(1), sums, edge_weights(p, first_row_ > 0));
      return;
    }
    for (const TileRun& run : runs)
      for (Index j = run.key; j < run.key + run.num_keys; ++j) {
        const Index first = run.packet * lanes, last = first + run.num_packets * lanes;
        Scalar* const row = weights_of(row_of(j));
        for (Index i = first; i < last; i += lanes)
          store(row + i, detail::sum(load(row + i), load(weights + j * panel + i)));
      }
    low_ = std::min(low_, row_of(0));
    high_ = std::max(high_, row_of(num_keys_ - 1) + 1);
  }

  /// The weights that every distance got meet its value vector, if the panel of these outputs has been entered.
  void leave(Scalar* outputs) {
    if (!std::exchange(is_entered_, false) || low_ >= high_) return;
    const Scalar* const skewed = work_.skewed_weights_.data();
    Scalar* const sums = work_.term_.data();
    for (Index c = 1; c < last_distance_; ++c)
      for (Index i = 0; i < panel; ++i) sums[c * panel + i] = skewed[(c + i) * panel + i];
    Scalar* const near = sums;  // clipped: distances of columns 0 and below, and the last and above
    Scalar* const far = sums + last_distance_ * panel;
    std::fill_n(near, panel, Scalar(0));
    std::fill_n(far, panel, Scalar(0));
    for (Index y = low_; y < std::min(high_, panel); ++y)
      for (Index i = y; i < panel && last_distance_ > 0; ++i) near[i] += skewed[y * panel + i];
    for (Index y = std::max(low_, last_distance_); y < high_; ++y)
      for (Index i = 0; i <= std::min(y - last_distance_, panel - 1); ++i) far[i] += skewed[y * panel + i];
    if (last_distance_ == 0)  // one column, and all are clipped to it
      for (Index y = low_; y < high_; ++y)
        for (Index i = y + 1; i < panel; ++i) far[i] += skewed[y * panel + i];
    with_columns(term_.value_vectors(head_).leftCols(last_distance_ + 1), work_.output_columns_,
                 [&](const Scalar* table, Index step, Index first, Index size) {
                   multiply_panel<Scalar>(packets, value_dim_, {table, 1, step}, sums + first * panel, size, outputs,
                                          OutputStart<Scalar>{outputs});
                 });
  }

  /// The weights of keys that are far, behind all others.
  void finish(Index p, Scalar* outputs) {
    if (!has_values_) return;
    const auto values = term_.value_vectors(head_);
    for (const bool is_last : {false, true}) {
      const Scalar* const weights = edge_weights(p, is_last);
      if (std::all_of(weights, weights + panel, [](Scalar weight) { return weight == 0; })) continue;
      for (Index d = 0; d < value_dim_; ++d)
        add_multiple(static_cast<Scalar>(values.coeff(d, is_last ? last_distance_ : 0)), weights, outputs + d * panel);
    }
  }

 private:
  static constexpr Index panel = Simd<Scalar>::tile_width, lanes = Simd<Scalar>::lanes;
  static constexpr Index packets = Simd<Scalar>::tile_packets;

  Index num_rows() const { return last_distance_ + panel; }
  /// Of key j of the tile.
  Index row_of(Index j) const {
    return static_cast<Index>(std::clamp<std::int64_t>(first_row_ + j, 0, static_cast<std::int64_t>(num_rows() - 1)));
  }
  /// Whether all keys of the tile are far, on one side.
  bool is_edge() const { return row_of(0) == row_of(num_keys_ - 1) && (row_of(0) == 0 || row_of(0) == num_rows() - 1); }
  Scalar* edge_scores(Index p, bool is_last) { return work_.edges_.data() + (4 * p + (is_last ? 1 : 0)) * panel; }
  Scalar* edge_weights(Index p, bool is_last) { return edge_scores(p, is_last) + 2 * panel; }
  static void add_multiple(Scalar factor, const Scalar* x, Scalar* to) {
    for (Index i = 0; i < panel; i += lanes) store(to + i, multiply_add(broadcast(factor), load(x + i), load(to + i)));
  }
  Scalar* weights_of(Index row) { return work_.skewed_weights_.data() + row * panel; }

  void enter(const Scalar* queries, ReadAhead& ahead) {
    is_entered_ = true;
    low_ = num_rows();
    high_ = 0;
    std::fill_n(weights_of(0), num_rows() * panel, Scalar(0));
    const auto keys = term_.key_vectors(head_);
    if (keys.size() == 0) {
      std::fill_n(work_.skewed_scores_.data(), num_rows() * panel, Scalar(0));
      return;
    }
    Scalar* const products = work_.term_.data();
    ScoreStart<Scalar> start;
    start.ahead = &ahead;
    with_columns(
        keys.leftCols(last_distance_ + 1), work_.rotated_columns_,
        [&](const Scalar* table, Index step, Index first, Index size) {
          multiply_panel<Scalar>(packets, size, {table, step, 1}, queries, dim_, products + first * panel, start);
        });
    for (Index y = 0; y < num_rows(); ++y) {
      Scalar* const row = work_.skewed_scores_.data() + y * panel;
      const Index first = std::max<Index>(0, y - last_distance_), last = std::min(y, panel - 1);
      std::copy_n(products + last_distance_ * panel, first, row);  // clipped on the far side
      for (Index i = first; i <= last; ++i) row[i] = products[(y - i) * panel + i];
      std::copy(products + last + 1, products + panel, row + last + 1);  // clipped on the near side
    }
  }

  /// Calls action(columns, step, first, size) for a matrix whose columns can be read as Scalar, converted piece by
  /// piece into the scratch where they cannot.
  template <class Columns, class Action>
  static void with_columns(const Columns& columns, Matrix<Scalar>& scratch, Action action) {
    if constexpr (!Columns::IsRowMajor && static_cast<bool>(Columns::Flags & Eigen::DirectAccessBit) &&
                  std::is_same_v<typename Columns::Scalar, Scalar>)
      if (columns.innerStride() == 1) return action(columns.data(), columns.outerStride(), Index{0}, columns.cols());
    for (Index first = 0; first < columns.cols(); first += scratch.cols()) {
      const Index size = std::min(scratch.cols(), columns.cols() - first);
      scratch.topLeftCorner(columns.rows(), size) = columns.middleCols(first, size).template cast<Scalar>();
      action(scratch.data(), scratch.outerStride(), first, size);
    }
  }

  AttentionWorkspace<Scalar>& work_;
  const Term& term_;
  Index head_, last_distance_, dim_ = 0, value_dim_ = 0;
  bool has_values_ = false;
  std::int64_t first_row_ = 0;  // of the tile, and its keys
  Index num_keys_ = 1;
  bool is_entered_ = false;   // one panel
  Index low_ = 0, high_ = 0;  // of which these rows have got weights
};

}  // namespace posenc::inline v0::detail
