// SPDX-License-Identifier: MIT
#pragma once

// The walk of streaming attention over blocks of queries, stretches of keys, panels and tiles.

#include <Eigen/Core>
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#include <posenc/attention.hpp>
#include <posenc/attention_workspace.hpp>
#include <posenc/concepts.hpp>
#include <posenc/detail/attention_inputs.hpp>
#include <posenc/detail/attention_panels.hpp>
#include <posenc/detail/attention_single.hpp>
#include <posenc/detail/attention_tile.hpp>
#include <posenc/detail/read_ahead.hpp>
#include <posenc/detail/stream_count.hpp>
#include <posenc/detail/tile_runs.hpp>

namespace posenc::inline v0::detail {

template <class Scalar, class Queries, class Keys, class Values, class... Encodings>
class AttentionStream : private AttentionPanels<Scalar, Queries, Keys, Values, Encodings...> {
  using Panels = AttentionPanels<Scalar, Queries, Keys, Values, Encodings...>;
  using Inputs = typename Panels::Inputs;

 public:
  AttentionStream(const Queries& q, const Keys& k, const Values& v, const AttentionOptions& options,
                  AttentionWorkspace<Scalar>& workspace, const Encodings&... encodings)
      : Panels(q, k, v, options, workspace, encodings...) {}

  /// How many queries `run` takes at a time.
  Index block_queries() const { return this->max_queries(); }

  /// Computes the outputs of queries first, ..., first + num_queries - 1, at most a block: weighted values over sums,
  /// written to `outputs`. Where those cannot be written as columns of Scalar, `outputs` is nothing, and each query is
  /// handed to finish(query, maximum, sum, weighted values), for_merging with other keys or not. A few queries go a way of
  /// their own and always to finish, one by one, at the speed of reading the keys and values.
  template <bool for_merging = false, class Finish>
  StreamCount run(Index first, Index num_queries, const OutputColumns<Scalar>& outputs, Finish finish) {
    StreamCount count;
    if (are_few_queries<Scalar>(num_queries)) {
      for (Index query = 0; query < num_queries; ++query) count += this->run_single(first + query, finish);
      return count;
    }
    this->load_queries(first, num_queries);
    this->outputs_ = outputs;
    this->has_begun_.fill(false);
    near_to_far(
        this->num_stretches(),
        [&](Index s) { return this->highest(this->stretch_at(s), this->queries_at(0, this->num_queries_)); },
        [&](Index s) { count += run_stretch(this->stretch_at(s)); });
    for (Index begin = 0; begin < this->num_queries_; begin += panel) {
      const Index size = std::min(panel, this->num_queries_ - begin);
      this->begin_panel(begin / panel);
      if (std::exchange(this->is_empty_[static_cast<std::size_t>(begin / panel)], false))
        std::fill_n(this->outputs_of(begin / panel), panel * this->v_.rows(), Scalar(0));
      if constexpr (has_fusible_term)
        if (is_fused()) this->term_->finish(begin / panel, this->outputs_of(begin / panel));
      if (outputs.data != nullptr)
        this->write_panel(begin, size);
      else
        this->template hand_over_panel<for_merging>(begin, size, finish);
    }
    return count;
  }

 private:
  using Inputs::has_bounds, Inputs::has_terms, Inputs::has_value_terms, Inputs::is_bounded;
  using Panels::has_fusible_term, Panels::is_fused, Panels::panel, Panels::tile_keys, Panels::packets, Panels::lanes;

  StreamCount run_stretch(Span stretch) {
    const Index num_tiles = (stretch.size + tile_keys - 1) / tile_keys;
    if (this->highest(stretch, this->queries_at(0, this->num_queries_)) == Inputs::hidden)
      return {0, num_tiles * ((this->num_queries_ + panel - 1) / panel)};
    this->begin_stretch(stretch, true);
    loaded_keys_ = loaded_values_ = 0;
    last_of_stretch_ = stretch.size - 1;
    if (this->has_distances_) load_distances(stretch);
    StreamCount count;
    for (Index begin = 0; begin < this->num_queries_; begin += panel) {
      const Index size = std::min(panel, this->num_queries_ - begin);
      const Positions queries = this->queries_at(begin, size);
      const auto tile_at = [&](Index t) {
        return Span{stretch.begin + t * tile_keys, std::min(tile_keys, stretch.size - t * tile_keys)};
      };
      std::array<BiasBounds, static_cast<std::size_t>(AttentionWorkspace<Scalar>::max_tiles)> bounds;
      bounds.fill({Inputs::hidden, -Inputs::hidden});
      if constexpr (has_bounds) {
        bounds.fill(this->bounds(this->keys_at(stretch), queries));
        if (bounds[0].highest == Inputs::hidden) {
          count.skipped += num_tiles;
          continue;
        }
        if (bounds[0].lowest != bounds[0].highest)
          for (Index t = 0; t < num_tiles; ++t)
            bounds[static_cast<std::size_t>(t)] = this->bounds(this->keys_at(tile_at(t)), queries);
      }
      this->calls_of_panel_ =
          this->calls_of_tile() * std::count_if(bounds.begin(), bounds.begin() + num_tiles, [](const auto& one) {
            return !has_bounds || one.highest != Inputs::hidden;
          });
      if (stretch.begin == 0)  // most likely the last
        this->ahead_.add(column_bytes(this->outputs_), this->first_ + begin, size, this->calls_of_panel_);
      near_to_far(
          num_tiles, [&](Index t) { return bounds[static_cast<std::size_t>(t)].highest; },
          [&](Index t) {
            const bool is_computed = run_tile(stretch, tile_at(t), begin, size, bounds[static_cast<std::size_t>(t)]);
            ++(is_computed ? count.tiles : count.skipped);
          });
      if constexpr (has_fusible_term)
        if (is_fused()) this->term_->leave(this->outputs_of(begin / panel));
    }
    return count;
  }

  /// The keys of a tile, at the first panel that reads them.
  void load_keys_of_tile(Index key, Index size) {
    const unsigned bit = 1u << key / tile_keys;
    if ((loaded_keys_ & bit) != 0) return;
    this->load_keys(key, size);
    key_norms_[static_cast<std::size_t>(key / tile_keys)] = -1;
    loaded_keys_ |= bit;
  }
  /// What is likely to be read after a tile: the one before it, else the one behind it, else what is before the stretch.
  void look_ahead(Span stretch, Index tile) {
    const auto is_new = [&](Index t) { return (loaded_values_ >> t & 1u) == 0; };
    Index begin = stretch.begin + (tile - 1) * tile_keys;
    if (tile == 0 || !is_new(tile - 1)) {
      begin += 2 * tile_keys;
      if (begin >= stretch.begin + stretch.size || !is_new(tile + 1)) begin = stretch.begin - tile_keys;
    }
    if (begin < 0) return;
    const Index size = std::min(tile_keys, this->k_.cols() - begin);
    const Index num_calls =
        begin == stretch.begin + (tile - 1) * tile_keys ? this->calls_of_tile() : this->calls_of_panel_;
    this->ahead_.add(column_bytes(this->k_), begin, size, num_calls);
    this->ahead_.add(column_bytes(this->v_), begin, size, num_calls);
  }
  /// The largest of a tile.
  double key_norm(Index key, Index size) {
    load_keys_of_tile(key, size);
    double& norm = key_norms_[static_cast<std::size_t>(key / tile_keys)];
    if (norm == -1) norm = this->largest_key_norm(key, size);
    return norm;
  }

  /// The bias of query i of the block and key j of the stretch is distances[i - j + size - 1].
  void load_distances(Span stretch) {
    const Index n = this->num_queries_ + stretch.size - 1;
    const std::int64_t largest =
        this->options_.key_positions[stretch.begin + stretch.size - 1] - this->options_.query_positions[this->first_];
    this->work_.distances_.head(n).setZero();
    this->work_.distances_.tail(this->work_.distances_.size() - n).setZero();  // what padded lanes read
    this->for_each_encoding([&](const auto& encoding) {
      if constexpr (DistanceBias<std::remove_cvref_t<decltype(encoding)>>)
        if (is_by_distance(encoding))
          for (Index x = 0; x < n; ++x)
            this->work_.distances_[x] += static_cast<Scalar>(encoding.at_distance(largest - x, this->options_.head));
    });
  }

  /// A tile without its corners that bounds prove to be hidden.
  TileRuns visible_runs(Span tile, Index begin, Index size) const {
    TileRuns runs;
    for (Index key = 0; key < tile.size; key += TileRuns::keys) {
      TileRun run{key, std::min(TileRuns::keys, tile.size - key), 0, (size + lanes - 1) / lanes};
      const Positions keys = this->keys_at({tile.begin + key, run.num_keys});
      const auto is_hidden = [&](Index packet) {
        const Index first = packet * lanes;
        return this->bounds(keys, this->queries_at(begin + first, std::min(lanes, size - first))).highest ==
               Inputs::hidden;
      };
      for (; run.num_packets > 0 && is_hidden(run.packet); --run.num_packets) ++run.packet;
      while (run.num_packets > 0 && is_hidden(run.packet + run.num_packets - 1)) --run.num_packets;
      runs.add(run);
    }
    return runs;
  }

  /// Keys `tile` by queries begin, ..., begin + size - 1 of the block. Returns whether anything was to be computed.
  bool run_tile(Span stretch, Span tile, Index begin, Index size, const BiasBounds& bias) {
    const Index key = tile.begin - stretch.begin, p = begin / panel;
    if (has_bounds && bias.highest == Inputs::hidden) return false;
    this->begin_panel(p);
    if constexpr (is_bounded)
      if (this->is_nothing(
              smallest_of<Scalar>(this->work_.maxima_.data() + begin, size) + this->work_.shifts_[p], bias,
              [&] { return key_norm(key, tile.size); }, [&] { return this->query_norm(p); }))
        return false;
    load_keys_of_tile(key, tile.size);
    if (const unsigned bit = 1u << key / tile_keys; (loaded_values_ & bit) == 0) {
      this->load_values(key, tile.size);
      loaded_values_ |= bit;
      look_ahead(stretch, key / tile_keys);
    }
    const bool unbiased = bias.lowest == 0 && bias.highest == 0 && this->work_.shifts_[p] == 0;
    const bool preload =
        this->has_distances_ && !unbiased && (!has_terms || is_fused()) && this->options_.soft_cap == 0;
    TileRuns runs;
    if (has_bounds && preload && this->has_only_distances_ && bias.lowest == Inputs::hidden)
      runs = visible_runs(tile, begin, size);
    else
      runs.add({0, tile.size, 0, packets});

    ScoreStart<Scalar> start;
    start.ahead = &this->ahead_;
    if (preload) {
      start.distances = this->work_.distances_.data() + begin + last_of_stretch_ - key;
      start.shift = this->work_.shifts_[p];
    }
    std::array<const Scalar*, static_cast<std::size_t>(tile_keys)> rows;  // of a fused term
    if constexpr (has_fusible_term)
      if (is_fused()) {
        this->term_->find_rows(p, this->options_.query_positions[this->first_ + begin],
                               this->options_.key_positions[tile.begin], tile.size, rows.data(), this->ahead_,
                               [&] { return this->queries_of_term(p); });
        start.rows = rows.data();
      }
    Scalar* const scores = this->work_.scores_.data();
    for (const TileRun& run : runs) {
      const Index first = run.packet * lanes;
      start.first_key = run.key;
      start.first_query = first;
      multiply_panel<Scalar>(run.num_packets, run.num_keys,
                             {this->keys_.data + (key + run.key) * this->keys_.step, this->keys_.step, 1},
                             this->queries_of(p) + first, this->k_.rows(), scores + run.key * panel + first, start);
    }
    if (!(preload && this->has_only_distances_) || (has_terms && !is_fused()))
      add_to_scores(tile, key, begin, size, preload, unbiased);
    weigh_and_sum(key, begin, runs);
    if constexpr (has_value_terms)
      if (!is_fused()) add_value_terms(tile, begin, size);
    return true;
  }

  using Tile =
      Eigen::Map<Eigen::Matrix<Scalar, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>, 0, Eigen::OuterStride<>>;

  /// What the sums of a tile did not begin with: terms, the scale behind them, the cap, and other biases.
  void add_to_scores(Span tile, Index key, Index begin, Index size, bool preload, bool unbiased) {
    const Positions key_positions = this->keys_at(tile), query_positions = this->queries_at(begin, size);
    Tile block(this->work_.scores_.data(), tile.size, size, Eigen::OuterStride<>(panel));
    if constexpr (has_terms) {
      if (!is_fused()) {
        this->for_each_encoding([&](const auto& encoding) {
          if constexpr (ScoreTerm<std::remove_cvref_t<decltype(encoding)>, Scalar>)
            in_columns(block, this->work_.score_columns_, [&](auto& view) {
              const Eigen::Ref<const Matrix<Scalar>> k = this->raw_keys(key, tile.size),
                                                     q = this->raw_queries(begin, size);
              encoding.add_scores(view, k, q, key_positions, query_positions, this->options_.head);
            });
        });
        block *= this->scale_;
      }
    }
    cap_scores(block, this->options_.soft_cap);
    if (unbiased) return;
    if (this->has_distances_ && !preload) {
      const Scalar* const distances = this->work_.distances_.data() + begin + last_of_stretch_ - key;
      for (Index j = 0; j < tile.size; ++j)
        block.row(j).array() += Eigen::Map<const Vector<Scalar>>(distances - j, size).transpose().array() -
                                this->work_.shifts_[begin / panel];
    }
    this->for_each_encoding([&](const auto& encoding) {
      if constexpr (ScoreBias<std::remove_cvref_t<decltype(encoding)>, Scalar>)
        if (!(this->has_distances_ && is_by_distance(encoding)))
          in_columns(block, this->work_.score_columns_,
                     [&](auto& view) { encoding.add_bias(view, key_positions, query_positions, this->options_.head); });
    });
  }

  /// One step of the online softmax: raises the running maxima to those of the scores, turns the scores into weights
  /// relative to them, and adds up weights and weighted values, of which the earlier ones are corrected.
  void weigh_and_sum(Index key, Index begin, const TileRuns& runs) {
    alignas(64) std::array<Scalar, static_cast<std::size_t>(panel)> before, sums{}, correction;
    Scalar* const scores = this->work_.scores_.data();
    Scalar* const maxima = this->work_.maxima_.data() + begin;
    std::copy_n(maxima, panel, before.data());
    const auto for_each_part = [&](auto whole, auto single) {
      for (const TileRun& run : runs)
        if (run.num_packets == packets)
          whole(run.key, run.num_keys);
        else
          for (Index q = run.packet * lanes; q < (run.packet + run.num_packets) * lanes; q += lanes)
            single(run.key, run.num_keys, q);
    };
    for_each_part([&](Index j, Index n) { raise_maxima<packets>(scores + j * panel, n, maxima); },
                  [&](Index j, Index n, Index q) { raise_maxima<1>(scores + j * panel + q, n, maxima + q); });
    bool is_corrected = correct<Scalar>(before.data(), maxima, correction.data());
    for_each_part([&](Index j, Index n) { weigh<packets>(scores + j * panel, n, maxima, sums.data()); },
                  [&](Index j, Index n, Index q) { weigh<1>(scores + j * panel + q, n, maxima + q, sums.data() + q); });
    scale_and_add<Scalar>(this->work_.sums_.data() + begin, correction.data(), sums.data());

    if constexpr (has_fusible_term)
      if (is_fused())
        this->term_->add(begin / panel, scores, runs, sums.data(), correction.data(), is_corrected,
                         this->outputs_of(begin / panel));
    Scalar* const outputs = this->outputs_of(begin / panel);
    bool is_empty = std::exchange(this->is_empty_[static_cast<std::size_t>(begin / panel)], false);
    if (is_empty && (runs.begin() == runs.end() || runs.begin()->num_packets < packets)) {
      std::fill_n(outputs, panel * this->v_.rows(), Scalar(0));
      is_empty = false;
    }
    if (is_corrected && !is_empty && !runs.is_whole(packets)) {
      scale_rows<Scalar>(outputs, this->v_.rows(), correction.data());
      is_corrected = false;
    }
    ReadAhead* const ahead = runs.is_whole(packets) ? &this->ahead_ : nullptr;
    for (const TileRun& run : runs) {
      const Index first = run.packet * lanes;
      multiply_panel<Scalar>(
          run.num_packets, this->v_.rows(),
          {this->values_.data + (key + run.key) * this->values_.step, 1, this->values_.step},
          scores + run.key * panel + first, run.num_keys, outputs + first,
          OutputStart<Scalar>{is_empty ? nullptr : outputs + first, is_corrected ? correction.data() : nullptr, ahead});
      is_empty = is_corrected = false;
    }
  }

  void add_value_terms(Span tile, Index begin, Index size) {
    const Positions key_positions = this->keys_at(tile), query_positions = this->queries_at(begin, size);
    Tile block(this->work_.scores_.data(), tile.size, size, Eigen::OuterStride<>(panel));
    Tile output_block(this->outputs_of(begin / panel), this->v_.rows(), size, Eigen::OuterStride<>(panel));
    this->for_each_encoding([&](const auto& encoding) {
      if constexpr (ValueTerm<std::remove_cvref_t<decltype(encoding)>, Scalar>)
        in_columns(output_block, this->work_.output_columns_, [&](auto& output_view) {
          in_columns(block, this->work_.score_columns_, [&](auto& weights) {
            const Eigen::Ref<const Matrix<Scalar>> read = weights;
            encoding.add_values(output_view, read, key_positions, query_positions, this->options_.head);
          });
        });
    });
  }

  /// Hands a tile to a hook as a column-major view, which is what every hook takes.
  template <class Hook>
  static void in_columns(Tile& tile, Matrix<Scalar>& scratch, Hook hook) {
    Eigen::Ref<Matrix<Scalar>> view = scratch.topLeftCorner(tile.rows(), tile.cols());
    view = tile;
    hook(view);
    tile = view;
  }

  Index last_of_stretch_ = 0;
  unsigned loaded_keys_ = 0, loaded_values_ = 0;  // a bit for every tile of the stretch
  std::array<double, static_cast<std::size_t>(AttentionWorkspace<Scalar>::max_tiles)> key_norms_{};
};

}  // namespace posenc::inline v0::detail
