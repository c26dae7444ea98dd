// SPDX-License-Identifier: MIT
#pragma once

// The walk of streaming attention over blocks of queries, stretches of keys, panels and tiles.

#include <Eigen/Core>
#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <tuple>
#include <type_traits>

#include <posenc/attention.hpp>
#include <posenc/attention_workspace.hpp>
#include <posenc/concepts.hpp>
#include <posenc/detail/attention_inputs.hpp>
#include <posenc/detail/attention_single.hpp>
#include <posenc/detail/attention_tile.hpp>
#include <posenc/detail/fused_term.hpp>
#include <posenc/detail/stream_count.hpp>
#include <posenc/detail/tile_runs.hpp>

namespace posenc::inline v0::detail {

struct NoTerm {};

/// The one DistanceTerm of a pack, or NoTerm.
inline const NoTerm* find_term() { return nullptr; }
template <class Encoding, class... Rest>
auto find_term(const Encoding& encoding, const Rest&... rest) {
  if constexpr (DistanceTerm<Encoding>)
    return &encoding;
  else
    return find_term(rest...);
}

template <class Scalar, class Queries, class Keys, class Values, class... Encodings>
class AttentionStream : private SingleQueryStream<Scalar, Queries, Keys, Values, Encodings...> {
  using Single = SingleQueryStream<Scalar, Queries, Keys, Values, Encodings...>;
  using Inputs = typename Single::Inputs;

 public:
  AttentionStream(const Queries& q, const Keys& k, const Values& v, const AttentionOptions& options,
                  AttentionWorkspace<Scalar>& workspace, const Encodings&... encodings)
      : Single(q, k, v, options, workspace, encodings...) {
    has_only_distances_ = this->has_distances_ && ((!ScoreBias<Encodings, Scalar> || is_by_distance(encodings)) && ...);
    if constexpr (has_fusible_term) {
      const Term& term = *find_term(encodings...);
      constexpr Index most =
          AttentionWorkspace<Scalar>::max_distances;  // what the scratch holds, and of features as well
      if (this->by_distance_ && 4 * q.cols() > panel && k.cols() > 0 && term.is_by_distance() &&
          term.num_distances() <= most && q.rows() <= most)
        term_.emplace(workspace, term, options.head, last_distance(term));
    }
  }

  /// How many queries `run` takes at a time: with a fused term fewer, since its products are kept for every panel.
  Index block_queries() const {
    if constexpr (has_fusible_term)
      if (is_fused()) return panel * term_->max_panels(this->k_.rows());
    return this->work_.block_queries();
  }

  /// Computes the outputs of queries first, ..., first + num_queries - 1, at most a block, and hands each to
  /// finish(query, maximum, sum, weighted values). A few queries go a way of their own, one by one, at the speed of
  /// reading the keys and values.
  template <class Finish>
  StreamCount run(Index first, Index num_queries, Finish finish) {
    StreamCount count;
    if (4 * num_queries <= panel) {
      for (Index query = 0; query < num_queries; ++query) count += this->run_single(first + query, finish);
      return count;
    }
    this->load_queries(first, num_queries);
    begin_block();
    near_to_far(
        this->num_stretches(),
        [&](Index s) { return this->highest(this->stretch_at(s), this->queries_at(0, this->num_queries_)); },
        [&](Index s) { count += run_stretch(this->stretch_at(s)); });
    for (Index begin = 0; begin < this->num_queries_; begin += panel) {
      const Index size = std::min(panel, this->num_queries_ - begin);
      if constexpr (has_fusible_term)
        if (is_fused()) term_->finish(begin / panel, outputs_of(begin / panel), this->v_.rows());
      Matrix<Scalar>& columns = this->work_.output_columns_;
      transpose(outputs_of(begin / panel), panel, Scalar(1), size, this->v_.rows(), columns.data(), this->v_.rows());
      for (Index query = begin; query < begin + size; ++query)
        finish(first + query, this->work_.maxima_[query] + this->work_.shifts_[begin / panel], this->work_.sums_[query],
               columns.data() + (query - begin) * this->v_.rows());
    }
    return count;
  }

 private:
  using Inputs::has_bounds, Inputs::has_terms, Inputs::has_value_terms, Inputs::is_bounded, Inputs::rotates;

  static constexpr Index panel = AttentionWorkspace<Scalar>::panel;
  static constexpr Index tile_keys = AttentionWorkspace<Scalar>::tile_keys;
  static constexpr int packets = Simd<Scalar>::tile_packets;
  static constexpr Index lanes = Simd<Scalar>::lanes;

  /// One term by distance, and no other term, is fused into the walk.
  static constexpr bool has_fusible_term =
      ((DistanceTerm<Encodings> ? 1 : 0) + ... + 0) == 1 &&
      ((DistanceTerm<Encodings> || !(ScoreTerm<Encodings, Scalar> || ValueTerm<Encodings, Scalar>)) && ...);
  using Term = std::remove_cvref_t<decltype(*find_term(std::declval<const Encodings&>()...))>;

  bool is_fused() const {
    if constexpr (has_fusible_term) return term_.has_value();
    return false;
  }

  Scalar* queries_of(Index p) { return this->work_.query_panels_.data() + p * panel * this->k_.rows(); }
  Scalar* outputs_of(Index p) { return this->work_.output_panels_.data() + p * panel * this->v_.rows(); }

  /// Transposes the queries into panels, and starts the running maxima, sums and outputs.
  void begin_block() {
    const auto sink = static_cast<Scalar>(this->options_.sink);  // a score that is there already
    for (Index begin = 0; begin < this->num_queries_; begin += panel) {
      const Index size = std::min(panel, this->num_queries_ - begin), p = begin / panel;
      make_panel(this->queries(), begin, size, has_terms && !is_fused() ? Scalar(1) : this->scale_, queries_of(p));
      this->work_.shifts_[p] = shift_of(begin, size);
      this->work_.maxima_.segment(begin, panel).setConstant(sink - this->work_.shifts_[p]);
      this->work_.sums_.segment(begin, panel)
          .setConstant(sink == -std::numeric_limits<Scalar>::infinity() ? Scalar(0) : Scalar(1));
      std::fill_n(outputs_of(p), panel * this->v_.rows(), Scalar(0));
    }
    if constexpr (has_fusible_term)
      for (Index begin = 0; is_fused() && begin < this->num_queries_; begin += panel) {
        const Index p = begin / panel;
        Scalar* queries = queries_of(p);
        if constexpr (rotates) {
          queries = term_->scratch(p);
          make_panel(this->work_.query_columns_, begin, std::min(panel, this->num_queries_ - begin), this->scale_,
                     queries);
        }
        term_->begin(p, queries, this->k_.rows(), this->options_.query_positions[this->first_ + begin]);
      }
  }

  static void make_panel(const Matrix<Scalar>& columns, Index begin, Index size, Scalar scale, Scalar* to) {
    if (size < panel) std::fill_n(to, panel * columns.rows(), Scalar(0));
    transpose(columns.data() + begin * columns.rows(), columns.rows(), scale, columns.rows(), size, to, panel);
  }

  /// What the scores of a panel are taken relative to: the largest bias by distance that one of its keys can have. Far
  /// from all keys that is a large number, in which the digits of the products would be lost. 0 where it is not known.
  Scalar shift_of(Index begin, Index size) const {
    double largest = 0;
    if (this->has_distances_)
      this->for_each_encoding([&](const auto& encoding) {
        using Encoding = std::remove_cvref_t<decltype(encoding)>;
        if constexpr (DistanceBias<Encoding> && BoundedBias<Encoding>)
          if (is_by_distance(encoding))
            largest += encoding.bounds(this->options_.key_positions, this->queries_at(begin, size), this->options_.head)
                           .highest;
      });
    const auto shift = static_cast<Scalar>(largest);
    return std::isfinite(shift) ? shift : Scalar(0);
  }

  /// The last column of a term by distance that is needed: from the largest distance of a key and a query down to one
  /// that no bias by distance hides. All beyond it are hidden, so that nothing is clipped to it that it is not for.
  template <class OneTerm>
  Index last_distance(const OneTerm& term) const {
    const std::int64_t first = -static_cast<std::int64_t>(term.max_left());
    std::int64_t distance =
        std::max(first, this->options_.key_positions[this->k_.cols() - 1] - this->options_.query_positions[0]);
    if (const std::int64_t last = first + term.num_distances() - 1; distance > last) {  // all from there on, or none
      if (!are_hidden(last, distance)) return term.num_distances() - 1;
      distance = last;
    }
    const auto is_hidden = [&] {
      bool any_hides = false;
      this->for_each_encoding([&](const auto& encoding) {
        if constexpr (DistanceBias<std::remove_cvref_t<decltype(encoding)>>)
          if (is_by_distance(encoding))
            any_hides = any_hides || std::isinf(encoding.at_distance(distance, this->options_.head));
      });
      return any_hides;
    };
    while (distance > first && is_hidden()) --distance;
    return static_cast<Index>(distance - first);
  }

  /// Whether one bias by distance is known to hide all distances from first to last.
  bool are_hidden(std::int64_t first, std::int64_t last) const {
    const auto keys = posenc::positions(static_cast<Index>(last - first + 1), first), query = posenc::positions(1);
    bool any_hides = false;
    this->for_each_encoding([&](const auto& encoding) {
      using Encoding = std::remove_cvref_t<decltype(encoding)>;
      if constexpr (DistanceBias<Encoding> && BoundedBias<Encoding>)
        if (is_by_distance(encoding))
          any_hides = any_hides || encoding.bounds(keys, query, this->options_.head).highest == Inputs::hidden;
    });
    return any_hides;
  }

  StreamCount run_stretch(Span stretch) {
    const Index num_tiles = (stretch.size + tile_keys - 1) / tile_keys;
    if (this->highest(stretch, this->queries_at(0, this->num_queries_)) == Inputs::hidden)
      return {0, num_tiles * ((this->num_queries_ + panel - 1) / panel)};
    this->load_stretch(stretch);
    last_of_stretch_ = stretch.size - 1;
    if (this->has_distances_) load_distances(stretch);
    StreamCount count;
    for (Index begin = 0; begin < this->num_queries_; begin += panel) {
      const Index size = std::min(panel, this->num_queries_ - begin);
      const auto tile_at = [&](Index t) {
        return Span{stretch.begin + t * tile_keys, std::min(tile_keys, stretch.size - t * tile_keys)};
      };
      near_to_far(
          num_tiles, [&](Index t) { return this->highest(tile_at(t), this->queries_at(begin, size)); },
          [&](Index t) { ++(run_tile(stretch, tile_at(t), begin, size) ? count.tiles : count.skipped); });
    }
    return count;
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
  bool run_tile(Span stretch, Span tile, Index begin, Index size) {
    const Positions key_positions = this->keys_at(tile), query_positions = this->queries_at(begin, size);
    const Index key = tile.begin - stretch.begin, p = begin / panel;
    BiasBounds bias{Inputs::hidden, -Inputs::hidden};
    if constexpr (has_bounds) {
      bias = this->bounds(key_positions, query_positions);
      if (bias.highest == Inputs::hidden) return false;
      if constexpr (is_bounded)
        if (this->is_nothing(key, tile.size,
                             smallest_of<Scalar>(this->work_.maxima_.data() + begin, size) + this->work_.shifts_[p],
                             bias))
          return false;
    }
    const bool unbiased = bias.lowest == 0 && bias.highest == 0 && this->work_.shifts_[p] == 0;
    const bool preload =
        this->has_distances_ && !unbiased && (!has_terms || is_fused()) && this->options_.soft_cap == 0;
    TileRuns runs;
    if (has_bounds && preload && has_only_distances_ && bias.lowest == Inputs::hidden)
      runs = visible_runs(tile, begin, size);
    else
      runs.add({0, tile.size, 0, packets});

    ScoreStart<Scalar> start;
    if (preload) {
      start.distances = this->work_.distances_.data() + begin + last_of_stretch_ - key;
      start.shift = this->work_.shifts_[p];
    }
    std::array<const Scalar*, static_cast<std::size_t>(tile_keys)> rows;  // of a fused term
    if constexpr (has_fusible_term)
      if (is_fused()) {
        term_->find_rows(p, key_positions[0], tile.size, rows.data());
        start.rows = rows.data();
      }
    Scalar* const scores = this->work_.scores_.data();
    for (const TileRun& run : runs) {
      const Index first = run.packet * lanes;
      start.first_key = run.key;
      start.first_query = first;
      multiply_panel<Scalar>(run.num_packets, run.num_keys,
                             {this->keys_.data + (key + run.key) * this->keys_.step, this->keys_.step, 1},
                             queries_of(p) + first, this->k_.rows(), scores + run.key * panel + first, start);
    }
    if (!(preload && has_only_distances_) || (has_terms && !is_fused()))
      add_to_scores(tile, key, begin, size, preload, unbiased);
    weigh_and_sum(tile, key, begin, runs);
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
        const auto queries = this->work_.query_columns_.middleCols(begin, size);
        this->for_each_encoding([&](const auto& encoding) {
          if constexpr (ScoreTerm<std::remove_cvref_t<decltype(encoding)>, Scalar>)
            in_columns(block, this->work_.score_columns_, [&](auto& view) {
              const Eigen::Ref<const Matrix<Scalar>> k = this->raw_keys(key, tile.size), q = queries;
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
  void weigh_and_sum(Span tile, Index key, Index begin, const TileRuns& runs) {
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
        term_->add(begin / panel, this->options_.key_positions[tile.begin], tile.size, scores, runs, sums.data(),
                   correction.data(), is_corrected);
    Scalar* const outputs = outputs_of(begin / panel);
    if (is_corrected && !runs.is_whole(packets)) {
      scale_rows<Scalar>(outputs, this->v_.rows(), correction.data());
      is_corrected = false;
    }
    for (const TileRun& run : runs) {
      const Index first = run.packet * lanes;
      multiply_panel<Scalar>(run.num_packets, this->v_.rows(),
                             {this->values_.data + (key + run.key) * this->values_.step, 1, this->values_.step},
                             scores + run.key * panel + first, run.num_keys, outputs + first,
                             OutputStart<Scalar>{outputs + first, is_corrected ? correction.data() : nullptr});
    }
  }

  void add_value_terms(Span tile, Index begin, Index size) {
    const Positions key_positions = this->keys_at(tile), query_positions = this->queries_at(begin, size);
    Tile block(this->work_.scores_.data(), tile.size, size, Eigen::OuterStride<>(panel));
    Tile output_block(outputs_of(begin / panel), this->v_.rows(), size, Eigen::OuterStride<>(panel));
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

  std::optional<FusedTerm<Scalar, Term>> term_;
  bool has_only_distances_ = false;  // biases, and they are consecutive
  Index last_of_stretch_ = 0;
};

}  // namespace posenc::inline v0::detail
