// SPDX-License-Identifier: MIT
#pragma once

// A block of queries of streaming attention, in panels: what they begin with, and how their outputs are written.

#include <Eigen/Core>
#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <type_traits>
#include <utility>

#include <posenc/attention.hpp>
#include <posenc/attention_workspace.hpp>
#include <posenc/concepts.hpp>
#include <posenc/detail/attention_inputs.hpp>
#include <posenc/detail/attention_single.hpp>
#include <posenc/detail/attention_tile.hpp>
#include <posenc/detail/fused_term.hpp>
#include <posenc/detail/read_ahead.hpp>

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
class AttentionPanels : protected SingleQueryStream<Scalar, Queries, Keys, Values, Encodings...> {
 protected:
  using Single = SingleQueryStream<Scalar, Queries, Keys, Values, Encodings...>;
  using Inputs = typename Single::Inputs;
  using Inputs::has_bounds, Inputs::has_terms, Inputs::has_value_terms, Inputs::is_bounded, Inputs::rotates;
  using typename Inputs::Columns;

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

  AttentionPanels(const Queries& q, const Keys& k, const Values& v, const AttentionOptions& options,
                  AttentionWorkspace<Scalar>& workspace, const Encodings&... encodings)
      : Single(q, k, v, options, workspace, encodings...) {
    has_only_distances_ = this->has_distances_ && ((!ScoreBias<Encodings, Scalar> || is_by_distance(encodings)) && ...);
    if constexpr (has_fusible_term) {
      const Term& term = *find_term(encodings...);
      constexpr Index most =
          AttentionWorkspace<Scalar>::max_distances;  // what the scratch holds, and of features as well
      if (this->by_distance_ && !are_few_queries<Scalar>(q.cols()) && k.cols() > 0 && term.is_by_distance() &&
          term.num_distances() <= most && q.rows() <= most)
        term_.emplace(workspace, term, options.head, last_distance(term));
    }
  }

  /// The queries of a panel as a term sees them: not rotated.
  const Scalar* queries_of_term(Index p) {
    if constexpr (rotates) {
      const Index begin = p * panel;
      make_panel(this->raw_queries_.from(begin), std::min(panel, this->num_queries_ - begin), this->scale_,
                 term_->scratch());
      return term_->scratch();
    } else {
      return queries_of(p);
    }
  }
  /// Transposes a panel of queries, and starts its running maxima, sums and outputs, if it has not begun yet.
  void begin_panel(Index p) {
    if (std::exchange(has_begun_[static_cast<std::size_t>(p)], true)) return;
    const Index begin = p * panel, size = std::min(panel, this->num_queries_ - begin);
    const auto sink = static_cast<Scalar>(this->options_.sink);  // a score that is there already
    make_panel(this->rotated_queries(begin, size), size, has_terms && !is_fused() ? Scalar(1) : this->scale_,
               queries_of(p));
    query_norms_[static_cast<std::size_t>(p)] = -1;
    this->work_.shifts_[p] = shift_of(begin, size);
    this->work_.maxima_.segment(begin, panel).setConstant(sink - this->work_.shifts_[p]);
    this->work_.sums_.segment(begin, panel).setZero();
    this->work_.scores_.head(panel) = this->work_.maxima_.segment(begin, panel);  // the weight of a sink
    weigh<packets>(this->work_.scores_.data(), 1, this->work_.maxima_.data() + begin, this->work_.sums_.data() + begin);
    is_empty_[static_cast<std::size_t>(p)] = true;
    if constexpr (has_fusible_term)
      if (is_fused()) term_->begin(p, queries_of_term(p), this->k_.rows(), this->v_.rows());
    if constexpr (!rotates)
      ahead_.add(column_bytes(this->q_), this->first_ + begin + size,
                 std::min(panel, this->num_queries_ - begin - size), calls_of_panel_);
  }

  /// Writes the outputs of a panel as columns.
  void write_panel(Index begin, Index size) {
    alignas(64) std::array<Scalar, static_cast<std::size_t>(panel)> factors;
    for (Index i = 0; i < panel; ++i) {
      const Scalar sum = this->work_.sums_[begin + i];
      factors[static_cast<std::size_t>(i)] = sum == 0 ? Scalar(0) : 1 / sum;
    }
    Scalar* const values = outputs_of(begin / panel);
    scale_rows<Scalar>(values, this->v_.rows(), factors.data());
    transpose(values, panel, Scalar(1), size, this->v_.rows(), outputs_.data + (this->first_ + begin) * outputs_.step,
              outputs_.step);
  }
  /// Hands the queries of a panel over, one by one. For merging with other keys, sums and values are as if the weight of a
  /// score of maximum were 1, and not what the rounding of that has made of it.
  template <bool for_merging, class Finish>
  void hand_over_panel(Index begin, Index size, Finish finish) {
    Matrix<Scalar>& columns = this->work_.output_columns_;
    if constexpr (for_merging) {
      alignas(64) std::array<Scalar, static_cast<std::size_t>(panel)> factors{}, unused{};
      Scalar* const weights = this->work_.scores_.data();
      std::copy_n(this->work_.maxima_.data() + begin, panel, weights);
      weigh<packets>(weights, 1, this->work_.maxima_.data() + begin, unused.data());
      std::transform(weights, weights + panel, factors.begin(), [](Scalar w) { return w == 0 ? Scalar(1) : 1 / w; });
      scale_rows<Scalar>(outputs_of(begin / panel), this->v_.rows(), factors.data());
      scale_rows<Scalar>(this->work_.sums_.data() + begin, 1, factors.data());
    }
    transpose(outputs_of(begin / panel), panel, Scalar(1), size, this->v_.rows(), columns.data(), this->v_.rows());
    for (Index query = begin; query < begin + size; ++query)
      finish(this->first_ + query, this->work_.maxima_[query] + this->work_.shifts_[begin / panel],
             this->work_.sums_[query], columns.data() + (query - begin) * this->v_.rows());
  }

  void make_panel(const Columns& columns, Index size, Scalar scale, Scalar* to) const {
    const Index dim = this->q_.rows();
    if (size < panel) std::fill_n(to, panel * dim, Scalar(0));
    transpose(columns.data, columns.step, scale, dim, size, to, panel);
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

  /// How often the two products of a tile give time to read ahead, about.
  Index calls_of_tile() const { return (tile_keys + this->v_.rows()) / Simd<Scalar>::tile_rows; }
  /// The largest norm of the queries of a panel, which are scaled already.
  double query_norm(Index p) {
    double& norm = query_norms_[static_cast<std::size_t>(p)];
    if (norm == -1) norm = largest_norm(queries_of(p), this->k_.rows());
    return norm;
  }

  std::optional<FusedTerm<Scalar, Term>> term_;
  bool has_only_distances_ = false;  // biases, and they are consecutive
  std::array<bool, static_cast<std::size_t>(AttentionWorkspace<Scalar>::max_queries / panel)> has_begun_{};
  decltype(has_begun_) is_empty_{};  // nothing has been added to the outputs of a panel, nor have they been set to zero
  OutputColumns<Scalar> outputs_;
  std::array<double, static_cast<std::size_t>(AttentionWorkspace<Scalar>::max_queries / panel)> query_norms_{};
  ReadAhead ahead_;
  Index calls_of_panel_ = 1;  // of it, for the tiles of a panel in the stretch
};

}  // namespace posenc::inline v0::detail
