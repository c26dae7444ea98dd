// SPDX-License-Identifier: MIT
#pragma once

// A term by distance, clipped-relative keys and values, as a part of the walk over the tiles of some panels of queries.

#include <Eigen/Core>
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include <posenc/attention_workspace.hpp>
#include <posenc/concepts.hpp>
#include <posenc/detail/attention_tile.hpp>
#include <posenc/detail/check.hpp>
#include <posenc/detail/read_ahead.hpp>
#include <posenc/detail/tile_runs.hpp>

namespace posenc::inline v0::detail {

/// Row y of the skewed scores is what a key that is y - max_left positions behind the first query of the panel adds to
/// the score of every query of it, and with which the sums of the tile begin; the skewed weights are what such keys got:
///
///   skewed(y, i) = <a_clip(y - i), q_i>          rows 0 and below, and the last and above, are the clipped ones
///
/// Only columns 0, ..., last_distance of the tables are used, those that some bias by distance does not hide.
template <class Scalar, class Term>
class FusedTerm {
 public:
  FusedTerm(AttentionWorkspace<Scalar>& workspace, const Term& term, Index head, Index last_distance)
      : work_(workspace), term_(term), head_(head), last_distance_(last_distance) {}

  /// How many panels the workspace holds the rows of, with room for one of unrotated queries of so many features.
  Index max_panels(Index dim) const {
    const Index most = work_.num_skewed_;
    return std::clamp<Index>((most - std::max(dim, num_rows())) / num_rows() + 1, 1,
                             std::min(static_cast<Index>(states_.size()), work_.block_queries() / panel));
  }
  /// Where the unrotated queries of a panel may be put before it begins; all panels are begun in their order.
  Scalar* scratch(Index p) { return scores_of(p); }

  /// Begins with a panel of transposed queries as they were given, times the scale: terms do not see a rotation.
  void begin(Index p, const Scalar* queries, Index dim, std::int64_t first_query, ReadAhead& ahead) {
    State& state = states_[static_cast<std::size_t>(p)];
    state.first_query = first_query;
    state.pending.fill(1);
    state.is_pending = false;
    for (auto& edge : state.edges) edge.fill(0);
    has_values_ = term_.value_vectors(head_).size() != 0;
    std::fill_n(weights_of(p), num_rows() * panel, Scalar(0));
    const auto keys = term_.key_vectors(head_);
    if (keys.size() == 0) {
      std::fill_n(scores_of(p), num_rows() * panel, Scalar(0));
      return;
    }
    require_size(keys.rows(), dim, "posenc::streaming_attend: rows of a key table must be those of the queries");
    Scalar* const products = work_.term_.data();
    ScoreStart<Scalar> start;
    start.ahead = &ahead;
    with_columns(
        keys.leftCols(last_distance_ + 1), work_.keys_, [&](const Scalar* table, Index step, Index first, Index size) {
          multiply_panel<Scalar>(packets, size, {table, step, 1}, queries, dim, products + first * panel, start);
        });
    for (Index y = 0; y < num_rows(); ++y) {
      Scalar* const row = scores_of(p) + y * panel;
      const Index first = std::max<Index>(0, y - last_distance_), last = std::min(y, panel - 1);
      std::copy_n(products + last_distance_ * panel, first, row);  // clipped on the far side
      for (Index i = first; i <= last; ++i) row[i] = products[(y - i) * panel + i];
      std::copy(products + last + 1, products + panel, row + last + 1);  // clipped on the near side
    }
  }

  /// The rows with which the sums of consecutive keys begin.
  void find_rows(Index p, std::int64_t first_key, Index num_keys, const Scalar** rows) {
    for (Index j = 0; j < num_keys; ++j) rows[j] = scores_of(p) + row_of(p, first_key + j) * panel;
  }

  /// Adds the weights of a tile, whose sums are given as well; what is there is corrected first. All keys of a tile that
  /// is far from the panel have the same row: then the sums are all that is needed, and correcting the others waits.
  void add(Index p, std::int64_t first_key, Index num_keys, const Scalar* weights, const TileRuns& runs,
           const Scalar* sums, const Scalar* correction, bool is_corrected) {
    if (!has_values_) return;
    State& state = states_[static_cast<std::size_t>(p)];
    if (is_corrected) {
      scale_rows(state.pending.data(), 1, correction);
      state.is_pending = true;
      for (auto& edge : state.edges) scale_rows(edge.data(), 1, correction);
    }
    // A tile of which nothing is seen is as if it were not there. So no rounding depends on whether it is left out.
    if (std::all_of(sums, sums + panel, [](Scalar sum) { return sum == 0; })) return;
    if (const Index row = row_of(p, first_key);
        row == row_of(p, first_key + num_keys - 1) && (row == 0 || row == num_rows() - 1)) {
      auto& edge = state.edges[row == 0 ? 0 : 1];
      for (std::size_t i = 0; i < edge.size(); ++i) edge[i] += sums[i];
      return;
    }
    apply_pending(p);
    for (const TileRun& run : runs)
      for (Index j = run.key; j < run.key + run.num_keys; ++j) {
        const Index first = run.packet * lanes, last = first + run.num_packets * lanes;
        Scalar* const row = weights_of(p) + row_of(p, first_key + j) * panel;
        for (Index i = first; i < last; i += lanes)
          store(row + i, detail::sum(load(row + i), load(weights + j * panel + i)));
      }
  }

  /// The weights that every distance got meet its value vector.
  void finish(Index p, Scalar* outputs, Index value_dim) {
    if (!has_values_) return;
    const auto vectors = term_.value_vectors(head_);
    require_size(vectors.rows(), value_dim,
                 "posenc::streaming_attend: rows of a value table must be those of the values");
    apply_pending(p);
    Scalar* const skewed = weights_of(p);
    const auto& edges = states_[static_cast<std::size_t>(p)].edges;
    for (Index i = 0; i < panel; ++i) {
      skewed[i] += edges[0][static_cast<std::size_t>(i)];
      skewed[(num_rows() - 1) * panel + i] += edges[1][static_cast<std::size_t>(i)];
    }
    Scalar* const sums = work_.term_.data();
    for (Index c = 1; c < last_distance_; ++c)
      for (Index i = 0; i < panel; ++i) sums[c * panel + i] = skewed[(c + i) * panel + i];
    Scalar* const near = sums;  // clipped: distances of columns 0 and below, and the last and above
    Scalar* const far = sums + last_distance_ * panel;
    std::fill_n(near, panel, Scalar(0));
    std::fill_n(far, panel, Scalar(0));
    for (Index y = 0; y < panel; ++y)
      for (Index i = y; i < panel && last_distance_ > 0; ++i) near[i] += skewed[y * panel + i];
    for (Index y = last_distance_; y < num_rows(); ++y)
      for (Index i = 0; i <= std::min(y - last_distance_, panel - 1); ++i) far[i] += skewed[y * panel + i];
    if (last_distance_ == 0)  // one column, and all are clipped to it
      for (Index y = 0; y < num_rows(); ++y)
        for (Index i = y + 1; i < panel; ++i) far[i] += skewed[y * panel + i];
    with_columns(vectors.leftCols(last_distance_ + 1), work_.values_,
                 [&](const Scalar* table, Index step, Index first, Index size) {
                   multiply_panel<Scalar>(packets, value_dim, {table, 1, step}, sums + first * panel, size, outputs,
                                          OutputStart<Scalar>{outputs});
                 });
  }

 private:
  static constexpr Index panel = Simd<Scalar>::tile_width, lanes = Simd<Scalar>::lanes;
  static constexpr Index packets = Simd<Scalar>::tile_packets;
  using PanelArray = std::array<Scalar, static_cast<std::size_t>(panel)>;

  Index num_rows() const { return last_distance_ + panel; }
  Index row_of(Index p, std::int64_t key_position) const {
    return static_cast<Index>(
        std::clamp<std::int64_t>(key_position - states_[static_cast<std::size_t>(p)].first_query + term_.max_left(), 0,
                                 static_cast<std::int64_t>(num_rows() - 1)));
  }
  Scalar* scores_of(Index p) { return work_.skewed_scores_.data() + p * num_rows() * panel; }
  Scalar* weights_of(Index p) { return work_.skewed_weights_.data() + p * num_rows() * panel; }

  void apply_pending(Index p) {
    State& state = states_[static_cast<std::size_t>(p)];
    if (!state.is_pending) return;
    scale_rows(weights_of(p), num_rows(), state.pending.data());
    state.pending.fill(1);
    state.is_pending = false;
  }

  /// Of a panel.
  struct State {
    std::int64_t first_query = 0;
    bool is_pending = false;
    PanelArray pending;               // what all rows of the weights are still to be multiplied by
    std::array<PanelArray, 2> edges;  // weights of whole tiles of the first and of the last row
  };

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
  Index head_, last_distance_;
  bool has_values_ = false;
  std::array<State, 16> states_;
};

}  // namespace posenc::inline v0::detail
