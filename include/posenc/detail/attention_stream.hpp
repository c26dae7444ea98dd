// SPDX-License-Identifier: MIT
#pragma once

// The walk of streaming attention over blocks of queries, stretches of keys, panels and tiles.

#include <Eigen/Core>
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <tuple>

#include <posenc/attention.hpp>
#include <posenc/attention_workspace.hpp>
#include <posenc/concepts.hpp>
#include <posenc/detail/attention_tile.hpp>
#include <posenc/detail/scalar.hpp>

namespace posenc::inline v0 {

/// What a streaming attention did: tiles of 64 keys by a panel of queries, or of up to 512 keys by a single query.
struct StreamCount {
  Index tiles = 0;    ///< that were computed
  Index skipped = 0;  ///< that were not, since their weights are zero

  StreamCount& operator+=(const StreamCount& other) {
    tiles += other.tiles;
    skipped += other.skipped;
    return *this;
  }
};

namespace detail {

template <class Encoding>
bool is_by_distance(const Encoding& encoding) {
  if constexpr (DistanceBias<Encoding>) {
    if constexpr (requires { encoding.is_by_distance(); }) return encoding.is_by_distance();
    return true;
  } else {
    return false;
  }
}

template <class Scalar, class Queries, class Keys, class Values, class... Encodings>
class AttentionStream {
 public:
  AttentionStream(const Queries& q, const Keys& k, const Values& v, const AttentionOptions& options,
                  AttentionWorkspace<Scalar>& workspace, const Encodings&... encodings)
      : q_(q), k_(k), v_(v), options_(options), work_(workspace), encodings_(encodings...) {
    scale_ = static_cast<Scalar>(options.scale == 0 ? 1 / std::sqrt(static_cast<double>(q.rows())) : options.scale);
    by_distance_ = options.query_positions.is_contiguous() && options.key_positions.is_contiguous();
    has_distances_ = by_distance_ && (is_by_distance(encodings) || ...);
    if constexpr (has_fusible_term) {
      constexpr Index most =
          AttentionWorkspace<Scalar>::max_distances;  // what the scratch holds, and of features as well
      is_fused_ = by_distance_ && 4 * q.cols() > panel && k.cols() > 0 && term().is_by_distance() &&
                  term().num_distances() <= most && q.rows() <= most;
      if (is_fused_) last_distance_ = last_distance();
    }
  }

  /// How many queries `run` takes at a time: with a term by distance, whose products are kept for one panel, a panel.
  Index block_queries() const { return is_fused_ ? panel : work_.block_queries(); }

  /// Computes the outputs of queries first, ..., first + num_queries - 1, at most a block, and hands each to
  /// finish(query, maximum, sum, feature -> weighted value). A few queries go a way of their own, one by one, at the speed
  /// of reading the keys and values.
  template <class Finish>
  StreamCount run(Index first, Index num_queries, Finish finish) {
    if (4 * num_queries <= panel) {
      StreamCount count;
      for (Index query = 0; query < num_queries; ++query) count += run_single(first + query, finish);
      return count;
    }
    first_ = first;
    num_queries_ = num_queries;
    begin_block();
    StreamCount count;
    const Index stretch = work_.keys_.cols(), num_stretches = (k_.cols() + stretch - 1) / stretch;
    near_to_far(
        num_stretches, [&](Index s) { return highest(stretch_at(s), queries_at(0, num_queries_)); },
        [&](Index s) { count += run_stretch(stretch_at(s)); });
    if constexpr (has_fusible_term)
      if (is_fused_) finish_term();
    for (Index query = 0; query < num_queries_; ++query) {
      const Scalar* const output = outputs_of(query / panel) + query % panel;
      finish(first_ + query, work_.maxima_[query] + work_.shifts_[query / panel], work_.sums_[query],
             [&](Index feature) { return output[feature * panel]; });
    }
    return count;
  }

 private:
  static constexpr Index panel = AttentionWorkspace<Scalar>::panel;
  static constexpr Index tile_keys = AttentionWorkspace<Scalar>::tile_keys;
  static constexpr int packets = Simd<Scalar>::tile_packets;
  static constexpr Index lanes = Simd<Scalar>::lanes;
  static constexpr Scalar infinity = std::numeric_limits<Scalar>::infinity();
  static constexpr bool rotates = (QueryKeyEncoding<Encodings, Scalar> || ...);
  static constexpr bool has_terms = (ScoreTerm<Encodings, Scalar> || ...);
  static constexpr bool has_value_terms = (ValueTerm<Encodings, Scalar> || ...);
  static constexpr bool is_bounded = !has_terms && (BoundedBias<Encodings> || ...);

  /// One term by distance, and no other term, is fused into the walk.
  static constexpr bool has_fusible_term =
      ((DistanceTerm<Encodings> ? 1 : 0) + ... + 0) == 1 &&
      ((DistanceTerm<Encodings> || !(ScoreTerm<Encodings, Scalar> || ValueTerm<Encodings, Scalar>)) && ...);

  /// Consecutive tokens.
  struct Span {
    Index begin, size;
  };

  Span stretch_at(Index s) const {
    const Index stretch = work_.keys_.cols();
    return {s * stretch, std::min(stretch, k_.cols() - s * stretch)};
  }
  Positions keys_at(Span span) const { return options_.key_positions.segment(span.begin, span.size); }
  Positions queries_at(Index begin, Index size) const { return options_.query_positions.segment(first_ + begin, size); }
  Scalar* queries_of(Index p) { return work_.query_panels_.data() + p * panel * q_.rows(); }
  Scalar* outputs_of(Index p) { return work_.output_panels_.data() + p * panel * v_.rows(); }

  /// The term that is fused.
  const auto& term() const {
    return std::get<0>(std::apply(
        [](const auto&... encodings) {
          const auto pick = [](const auto& encoding) {
            if constexpr (DistanceTerm<std::remove_cvref_t<decltype(encoding)>>)
              return std::tie(encoding);
            else
              return std::tuple<>();
          };
          return std::tuple_cat(pick(encodings)...);
        },
        encodings_));
  }

  template <class Action>
  void for_each_encoding(Action action) const {
    std::apply([&](const auto&... encodings) { (action(encodings), ...); }, encodings_);
  }

  /// Bounds of all biases together; -inf to inf where one does not tell.
  BiasBounds bounds(const Positions& keys, const Positions& queries) const {
    BiasBounds sum{0, 0};
    for_each_encoding([&](const auto& encoding) {
      using Encoding = std::remove_cvref_t<decltype(encoding)>;
      if constexpr (BoundedBias<Encoding>) {
        const BiasBounds one = encoding.bounds(keys, queries, options_.head);
        sum.lowest += one.lowest;
        // A tile that one bias hides is hidden, whatever the others say of it.
        sum.highest = std::isinf(sum.highest) && sum.highest < 0   ? sum.highest
                      : std::isinf(one.highest) && one.highest < 0 ? one.highest
                                                                   : sum.highest + one.highest;
      } else if constexpr (ScoreBias<Encoding, Scalar>) {
        sum.lowest = -std::numeric_limits<double>::infinity();
        if (!(std::isinf(sum.highest) && sum.highest < 0)) sum.highest = std::numeric_limits<double>::infinity();
      }
    });
    return sum;
  }
  double highest(Span keys, const Positions& queries) const {
    if constexpr ((BoundedBias<Encodings> || ...)) return bounds(keys_at(keys), queries).highest;
    return 0;
  }

  /// Calls action for 0, ..., n - 1: from the last of those with the highest bound down, and then up from there.
  template <class Bound, class Action>
  static void near_to_far(Index n, Bound bound, Action action) {
    Index nearest = n - 1;
    double best = -std::numeric_limits<double>::infinity();
    for (Index i = 0; i < n; ++i)
      if (const double b = bound(i); b >= best) {
        nearest = i;
        best = b;
      }
    for (Index i = nearest; i >= 0; --i) action(i);
    for (Index i = nearest + 1; i < n; ++i) action(i);
  }

  /// Rotates the queries, transposes them into panels, and starts the running maxima, sums and outputs.
  void begin_block() {
    const Index dim = q_.rows();
    auto columns = work_.query_columns_.leftCols(num_queries_);
    columns = q_.middleCols(first_, num_queries_).template cast<Scalar>();
    auto rotated = work_.rotated_columns_.leftCols(num_queries_);
    if constexpr (rotates) {
      rotated = columns;
      for_each_encoding([&](const auto& encoding) {
        if constexpr (QueryKeyEncoding<std::remove_cvref_t<decltype(encoding)>, Scalar>) {
          Eigen::Ref<Matrix<Scalar>> view = rotated;
          encoding.apply_query(view, queries_at(0, num_queries_), options_.head);
        }
      });
    }
    const auto& source = rotates ? work_.rotated_columns_ : work_.query_columns_;
    const Scalar scale = has_terms && !is_fused_ ? Scalar(1) : scale_;
    for (Index begin = 0; begin < num_queries_; begin += panel) {
      const Index size = std::min(panel, num_queries_ - begin);
      Scalar* const to = queries_of(begin / panel);
      if (size < panel) std::fill(to, to + panel * dim, Scalar(0));
      for (Index query = 0; query < size; ++query) {
        const Scalar* const from = source.data() + (begin + query) * dim;
        for (Index d = 0; d < dim; ++d) to[d * panel + query] = from[d] * scale;
      }
    }
    // A sink is a score that is there already.
    const auto sink = static_cast<Scalar>(options_.sink);
    const Index num_panels = (num_queries_ + panel - 1) / panel;
    for (Index p = 0; p < num_panels; ++p) {
      work_.shifts_[p] = shift_of(p * panel, std::min(panel, num_queries_ - p * panel));
      work_.maxima_.segment(p * panel, panel).setConstant(sink - work_.shifts_[p]);
    }
    work_.sums_.head(num_panels * panel).setConstant(sink == -infinity ? Scalar(0) : Scalar(1));
    work_.output_panels_.head(num_panels * panel * v_.rows()).setZero();
    if constexpr (has_fusible_term)
      if (is_fused_) begin_term();
    if constexpr (is_bounded)
      query_norm_ =
          source.leftCols(num_queries_).colwise().norm().template maxCoeff<Eigen::PropagateNaN>() * std::abs(scale_);
  }

  /// What the scores of a panel are taken relative to: the largest bias by distance that one of its keys can have. Far from
  /// all keys that is a large number, in which the digits of the products would be lost. 0 where it is not known.
  Scalar shift_of(Index begin, Index size) const {
    double largest = 0;
    if (has_distances_ && num_queries_ > 1)
      for_each_encoding([&](const auto& encoding) {
        using Encoding = std::remove_cvref_t<decltype(encoding)>;
        if constexpr (DistanceBias<Encoding> && BoundedBias<Encoding>)
          if (is_by_distance(encoding))
            largest += encoding.bounds(options_.key_positions, queries_at(begin, size), options_.head).highest;
      });
    return std::isfinite(largest) ? static_cast<Scalar>(largest) : Scalar(0);
  }

  /// A term by distance, in the form in which a tile can begin its sums with it. Row y of the skewed scores is what a key
  /// that is y - max_left positions behind the first query of the panel adds to every query of it:
  ///
  ///   skewed(y, i) = <a_clip(y - i), q_i>          rows 0 and below, and the last and above, are the clipped ones
  ///
  /// Only distances that some bias by distance does not hide are computed (last_distance).
  void begin_term() {
    const Index rows = last_distance_ + panel;
    work_.skewed_weights_.head(rows * panel).setZero();
    const auto keys = term().key_vectors(options_.head);
    if (keys.size() == 0) {
      work_.skewed_scores_.head(rows * panel).setZero();
      return;
    }
    require_size(keys.rows(), q_.rows(), "posenc::streaming_attend: rows of a key table must be those of the queries");
    Scalar* const products = work_.term_.data();
    const Scalar* const queries = unrotated_panel();
    with_columns(keys.leftCols(last_distance_ + 1), work_.keys_,
                 [&](const Scalar* table, Index step, Index first, Index size) {
                   multiply<packets>(size, table, step, 1, queries, panel, q_.rows(), products + first * panel, panel,
                                     [](Index, int) { return broadcast(Scalar(0)); });
                 });
    for (Index y = 0; y < rows; ++y) {
      Scalar* const row = work_.skewed_scores_.data() + y * panel;
      const Index first = std::max<Index>(0, y - last_distance_), last = std::min(y, panel - 1);
      std::copy_n(products + last_distance_ * panel, first, row);  // clipped on the far side
      for (Index i = first; i <= last; ++i) row[i] = products[(y - i) * panel + i];
      std::copy(products + last + 1, products + panel, row + last + 1);  // clipped on the near side
    }
  }

  /// The last column of a term by distance that is needed: from the largest distance of a key and a query down to one that
  /// no bias by distance hides. All beyond it are hidden, so that nothing is clipped to it that it is not for.
  Index last_distance() const {
    const std::int64_t first = -static_cast<std::int64_t>(term().max_left());
    std::int64_t distance = std::max(first, options_.key_positions[k_.cols() - 1] - options_.query_positions[0]);
    const auto is_hidden = [&] {
      bool hidden = false;
      for_each_encoding([&](const auto& encoding) {
        if constexpr (DistanceBias<std::remove_cvref_t<decltype(encoding)>>)
          if (is_by_distance(encoding)) hidden = hidden || std::isinf(encoding.at_distance(distance, options_.head));
      });
      return hidden;
    };
    while (distance > first && is_hidden()) --distance;
    return static_cast<Index>(std::min<std::int64_t>(distance - first, term().num_distances() - 1));
  }

  /// The panel of queries as they were given, times the scale: terms do not see the rotation.
  const Scalar* unrotated_panel() {
    if constexpr (!rotates) return queries_of(0);
    Scalar* const to = work_.skewed_scores_.data();  // not in use yet
    for (Index d = 0; d < q_.rows(); ++d)
      for (Index query = 0; query < panel; ++query)
        to[d * panel + query] = query < num_queries_ ? work_.query_columns_(d, query) * scale_ : Scalar(0);
    return to;
  }

  /// Calls action(columns, step, first, size) for a matrix whose columns can be read as Scalar, converted piece by piece
  /// into the scratch where they cannot.
  template <class Columns, class Action>
  static void with_columns(const Columns& columns, Matrix<Scalar>& scratch, Action action) {
    if constexpr (std::is_same_v<typename Columns::Scalar, Scalar>) {
      action(columns.data(), columns.outerStride(), Index{0}, columns.cols());
    } else {
      for (Index first = 0; first < columns.cols(); first += scratch.cols()) {
        const Index size = std::min(scratch.cols(), columns.cols() - first);
        scratch.topLeftCorner(columns.rows(), size) = columns.middleCols(first, size).template cast<Scalar>();
        action(scratch.data(), scratch.outerStride(), first, size);
      }
    }
  }

  /// The row of the skewed scores and weights for a key.
  Index skewed_row(Index key_token) const {
    const std::int64_t behind = options_.key_positions[key_token] - options_.query_positions[first_];
    return static_cast<Index>(
        std::clamp<std::int64_t>(behind + term().max_left(), 0, static_cast<std::int64_t>(last_distance_ + panel - 1)));
  }

  /// Weights of a tile to the rows of their distances; what is there is corrected first.
  void add_skewed_weights(Span tile, const Scalar* weights, bool is_corrected) {
    using Row = Eigen::Map<Eigen::Array<Scalar, panel, 1>>;
    using ConstRow = Eigen::Map<const Eigen::Array<Scalar, panel, 1>>;
    if (is_corrected)
      for (Index y = 0; y < last_distance_ + panel; ++y)
        Row(work_.skewed_weights_.data() + y * panel) *= ConstRow(work_.correction_.data());
    for (Index j = 0; j < tile.size; ++j)
      Row(work_.skewed_weights_.data() + skewed_row(tile.begin + j) * panel) += ConstRow(weights + j * panel);
  }

  /// The weights that every distance got meet its value vector.
  void finish_term() {
    const auto vectors = term().value_vectors(options_.head);
    if (vectors.size() == 0) return;
    require_size(vectors.rows(), v_.rows(),
                 "posenc::streaming_attend: rows of a value table must be those of the values");
    Scalar* const sums = work_.term_.data();
    std::fill_n(sums, (last_distance_ + 1) * panel, Scalar(0));
    for (Index y = 0; y < last_distance_ + panel; ++y) {
      const Scalar* const row = work_.skewed_weights_.data() + y * panel;
      for (Index i = 0; i < panel; ++i) sums[std::clamp<Index>(y - i, 0, last_distance_) * panel + i] += row[i];
    }
    Scalar* const outputs = outputs_of(0);
    with_columns(vectors.leftCols(last_distance_ + 1), work_.values_,
                 [&](const Scalar* table, Index step, Index first, Index size) {
                   multiply<packets>(v_.rows(), table, 1, step, sums + first * panel, panel, size, outputs, panel,
                                     [&](Index d, int q) { return load(outputs + d * panel + q * lanes); });
                 });
  }

  StreamCount run_stretch(Span stretch) {
    if (highest(stretch, queries_at(0, num_queries_)) == -std::numeric_limits<double>::infinity())
      return {0, (stretch.size + tile_keys - 1) / tile_keys * ((num_queries_ + panel - 1) / panel)};
    load_stretch(stretch);
    StreamCount count;
    for (Index begin = 0; begin < num_queries_; begin += panel) {
      const Index size = std::min(panel, num_queries_ - begin);
      const Index num_tiles = (stretch.size + tile_keys - 1) / tile_keys;
      const auto tile_at = [&](Index t) {
        return Span{stretch.begin + t * tile_keys, std::min(tile_keys, stretch.size - t * tile_keys)};
      };
      near_to_far(
          num_tiles, [&](Index t) { return highest(tile_at(t), queries_at(begin, size)); },
          [&](Index t) { ++(run_tile(stretch, tile_at(t), begin, size) ? count.tiles : count.skipped); });
    }
    return count;
  }

  /// Keys and values of a stretch as columns of Scalar: where they lie if they can be read there, else a copy.
  void load_stretch(Span stretch) {
    constexpr bool as_they_lie = !Keys::IsRowMajor && static_cast<bool>(Keys::Flags & Eigen::DirectAccessBit) &&
                                 std::is_same_v<typename Keys::Scalar, Scalar>;
    raw_keys_ = nullptr;
    if constexpr (as_they_lie)
      if (k_.innerStride() == 1) {
        raw_keys_ = k_.data() + stretch.begin * k_.outerStride();
        raw_key_step_ = k_.outerStride();
      }
    if (raw_keys_ == nullptr) {
      work_.keys_.leftCols(stretch.size) = k_.middleCols(stretch.begin, stretch.size).template cast<Scalar>();
      raw_keys_ = work_.keys_.data();
      raw_key_step_ = work_.keys_.outerStride();
    }
    keys_ = raw_keys_;
    key_step_ = raw_key_step_;
    if constexpr (rotates) {
      work_.rotated_keys_.leftCols(stretch.size) = raw_keys(0, stretch.size);
      for_each_encoding([&](const auto& encoding) {
        if constexpr (QueryKeyEncoding<std::remove_cvref_t<decltype(encoding)>, Scalar>) {
          Eigen::Ref<Matrix<Scalar>> view = work_.rotated_keys_.leftCols(stretch.size);
          encoding.apply_key(view, keys_at(stretch), options_.kv_head);
        }
      });
      keys_ = work_.rotated_keys_.data();
      key_step_ = work_.rotated_keys_.outerStride();
    }

    constexpr bool values_lie = !Values::IsRowMajor && static_cast<bool>(Values::Flags & Eigen::DirectAccessBit) &&
                                std::is_same_v<typename Values::Scalar, Scalar>;
    values_ = nullptr;
    if constexpr (values_lie)
      if (v_.innerStride() == 1) {
        values_ = v_.data() + stretch.begin * v_.outerStride();
        value_step_ = v_.outerStride();
      }
    if (values_ == nullptr) {
      work_.values_.leftCols(stretch.size) = v_.middleCols(stretch.begin, stretch.size).template cast<Scalar>();
      values_ = work_.values_.data();
      value_step_ = work_.values_.outerStride();
    }

    if (has_distances_ && num_queries_ > 1) load_distances(stretch);
  }

  /// distances[x] is the bias of a key that is x - (size - 1) positions before the first query of the block plus ...:
  /// the bias of query i of the block and key j of the stretch is at x = i - j + size - 1.
  void load_distances(Span stretch) {
    const Index n = num_queries_ + stretch.size - 1;
    const std::int64_t largest =
        options_.key_positions[stretch.begin + stretch.size - 1] - options_.query_positions[first_];
    work_.distances_.head(n).setZero();
    work_.distances_.tail(work_.distances_.size() - n).setZero();  // what padded lanes read
    for_each_encoding([&](const auto& encoding) {
      if constexpr (DistanceBias<std::remove_cvref_t<decltype(encoding)>>)
        if (is_by_distance(encoding))
          for (Index x = 0; x < n; ++x)
            work_.distances_[x] += static_cast<Scalar>(encoding.at_distance(largest - x, options_.head));
    });
  }

  Eigen::Map<const Matrix<Scalar>, 0, Eigen::OuterStride<>> raw_keys(Index begin, Index size) const {
    return {raw_keys_ + begin * raw_key_step_, k_.rows(), size, Eigen::OuterStride<>(raw_key_step_)};
  }

  /// Whether every weight of a tile is zero: the largest score that its keys can have is so far below the running maxima
  /// that its exponential is.
  bool is_nothing(Index key, Index size, Index begin, Index num_queries, const BiasBounds& bias) const {
    if (bias.highest == -std::numeric_limits<double>::infinity()) return true;
    if (!std::isfinite(bias.highest)) return false;
    const Scalar smallest = work_.maxima_.segment(begin, num_queries).minCoeff() + work_.shifts_[begin / panel];
    if (!(bias.highest < static_cast<double>(smallest))) return false;  // cheap, and almost always so
    const Eigen::Map<const Matrix<Scalar>, 0, Eigen::OuterStride<>> keys(keys_ + key * key_step_, k_.rows(), size,
                                                                         Eigen::OuterStride<>(key_step_));
    double largest =
        static_cast<double>(query_norm_ * keys.colwise().norm().template maxCoeff<Eigen::PropagateNaN>()) * 1.0001;
    if (options_.soft_cap < largest && options_.soft_cap != 0) largest = options_.soft_cap;
    return largest + bias.highest - static_cast<double>(smallest) < least_exponent - 1;  // 1 for roundings
  }

  /// Keys `tile` by queries begin, ..., begin + size - 1 of the block. Returns whether anything was to be computed.
  bool run_tile(Span stretch, Span tile, Index begin, Index size) {
    const Positions key_positions = keys_at(tile), query_positions = queries_at(begin, size);
    const Index key = tile.begin - stretch.begin;
    BiasBounds bias{-std::numeric_limits<double>::infinity(), std::numeric_limits<double>::infinity()};
    if constexpr ((BoundedBias<Encodings> || ...)) {
      bias = bounds(key_positions, query_positions);
      if constexpr (is_bounded) {
        if (is_nothing(key, tile.size, begin, size, bias)) return false;
      } else if (bias.highest == -std::numeric_limits<double>::infinity()) {
        return false;
      }
    }
    const bool unbiased = bias.lowest == 0 && bias.highest == 0 && work_.shifts_[begin / panel] == 0;

    Scalar* const scores = work_.scores_.data();
    const Scalar* const keys = keys_ + key * key_step_;
    const bool preload = has_distances_ && !unbiased && (!has_terms || is_fused_) && options_.soft_cap == 0;
    const Scalar* const distances = work_.distances_.data() + begin + stretch.size - 1 - key;
    const packet_t<Scalar> shift = broadcast(work_.shifts_[begin / panel]);
    const auto distance = [&](Index j, int q) { return Eigen::internal::psub(load(distances - j + q * lanes), shift); };
    const auto score = [&](const auto& start) {
      multiply<packets>(tile.size, keys, key_step_, 1, queries_of(begin / panel), panel, k_.rows(), scores, panel,
                        start);
    };
    const auto score_from = [&](const Scalar* const* rows) {  // rows of a fused term
      if (preload)
        score([&](Index j, int q) { return Eigen::internal::padd(load(rows[j] + q * lanes), distance(j, q)); });
      else
        score([&](Index j, int q) { return load(rows[j] + q * lanes); });
    };
    if constexpr (has_fusible_term) {
      if (is_fused_) {
        std::array<const Scalar*, tile_keys> rows;
        for (Index j = 0; j < tile.size; ++j)
          rows[static_cast<std::size_t>(j)] = work_.skewed_scores_.data() + skewed_row(tile.begin + j) * panel;
        score_from(rows.data());
      }
    }
    if (!is_fused_) {
      if (preload)
        score(distance);
      else
        score([](Index, int) { return broadcast(Scalar(0)); });
    }

    using Tile =
        Eigen::Map<Eigen::Matrix<Scalar, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>, 0, Eigen::OuterStride<>>;
    Tile block(scores, tile.size, size, Eigen::OuterStride<>(panel));
    if constexpr (has_terms) {
      const auto queries = work_.query_columns_.middleCols(begin, size);
      if (!is_fused_)
        for_each_encoding([&](const auto& encoding) {
          if constexpr (ScoreTerm<std::remove_cvref_t<decltype(encoding)>, Scalar>)
            in_columns(block, work_.score_columns_, [&](auto& view) {
              const Eigen::Ref<const Matrix<Scalar>> k = raw_keys(key, tile.size), q = queries;
              encoding.add_scores(view, k, q, key_positions, query_positions, options_.head);
            });
        });
      if (!is_fused_) block *= scale_;
    }
    if (options_.soft_cap != 0) {
      const auto cap = static_cast<Scalar>(options_.soft_cap);
      block = cap * (block / cap).array().tanh();
    }
    if (has_distances_ && !preload && !unbiased)
      for (Index j = 0; j < tile.size; ++j)
        block.row(j).array() +=
            Eigen::Map<const Vector<Scalar>>(distances - j, size).transpose().array() - work_.shifts_[begin / panel];
    if (!unbiased)
      for_each_encoding([&](const auto& encoding) {
        if constexpr (ScoreBias<std::remove_cvref_t<decltype(encoding)>, Scalar>)
          if (!(has_distances_ && is_by_distance(encoding)))
            in_columns(block, work_.score_columns_,
                       [&](auto& view) { encoding.add_bias(view, key_positions, query_positions, options_.head); });
      });

    Scalar* const correction = work_.correction_.data();
    [[maybe_unused]] const bool is_corrected =
        softmax_step<packets>(scores, tile.size, work_.maxima_.data() + begin, work_.sums_.data() + begin, correction);
    Scalar* const outputs = outputs_of(begin / panel);
    multiply<packets>(v_.rows(), values_ + key * value_step_, 1, value_step_, scores, panel, tile.size, outputs, panel,
                      [&](Index d, int q) {
                        return Eigen::internal::pmul(load(outputs + d * panel + q * lanes),
                                                     load(correction + q * lanes));
                      });
    if constexpr (has_fusible_term)
      if (is_fused_) add_skewed_weights(tile, scores, is_corrected);
    if constexpr (has_value_terms) {
      if (is_fused_) return true;
      Tile output_block(outputs, v_.rows(), size, Eigen::OuterStride<>(panel));
      for_each_encoding([&](const auto& encoding) {
        if constexpr (ValueTerm<std::remove_cvref_t<decltype(encoding)>, Scalar>)
          in_columns(output_block, work_.output_columns_, [&](auto& output_view) {
            in_columns(block, work_.score_columns_, [&](auto& weights) {
              const Eigen::Ref<const Matrix<Scalar>> read = weights;
              encoding.add_values(output_view, read, key_positions, query_positions, options_.head);
            });
          });
      });
    }
    return true;
  }

  /// Hands a tile to a hook as a column-major view, which is what every hook takes.
  template <class Tile, class Hook>
  static void in_columns(Tile& tile, Matrix<Scalar>& scratch, Hook hook) {
    Eigen::Ref<Matrix<Scalar>> view = scratch.topLeftCorner(tile.rows(), tile.cols());
    view = tile;
    hook(view);
    tile = view;
  }

  /// One query: scores down a column of keys, a stretch at a time.
  template <class Finish>
  StreamCount run_single(Index first, Finish finish) {
    first_ = first;
    num_queries_ = 1;
    begin_block();
    const Index stretch = work_.keys_.cols(), num_stretches = (k_.cols() + stretch - 1) / stretch;
    Scalar* const output = work_.output_panels_.data();
    StreamCount count;
    near_to_far(
        num_stretches, [&](Index s) { return highest(stretch_at(s), queries_at(0, 1)); },
        [&](Index s) { ++(run_single_stretch(stretch_at(s), output) ? count.tiles : count.skipped); });
    finish(first_, work_.maxima_[0], work_.sums_[0], [&](Index feature) { return output[feature]; });
    return count;
  }

  bool run_single_stretch(Span span, Scalar* output) {
    const Positions key_positions = keys_at(span), query_positions = queries_at(0, 1);
    BiasBounds bias{-std::numeric_limits<double>::infinity(), std::numeric_limits<double>::infinity()};
    if constexpr ((BoundedBias<Encodings> || ...)) {
      bias = bounds(key_positions, query_positions);
      if (bias.highest == -std::numeric_limits<double>::infinity()) return false;
    }
    load_stretch(span);
    if constexpr (is_bounded)
      if (is_nothing(0, span.size, 0, 1, bias)) return false;

    const auto& source = rotates ? work_.rotated_columns_ : work_.query_columns_;
    Eigen::Map<Matrix<Scalar>> scores(work_.single_scores_.data(), span.size, 1);
    dot_keys(source.data(), keys_, key_step_, k_.rows(), span.size, has_terms ? Scalar(1) : scale_, scores.data());
    Eigen::Ref<Matrix<Scalar>> view = scores;
    if constexpr (has_terms) {
      for_each_encoding([&](const auto& encoding) {
        if constexpr (ScoreTerm<std::remove_cvref_t<decltype(encoding)>, Scalar>) {
          const Eigen::Ref<const Matrix<Scalar>> k = raw_keys(0, span.size), q = work_.query_columns_.leftCols(1);
          encoding.add_scores(view, k, q, key_positions, query_positions, options_.head);
        }
      });
      scores *= scale_;
    }
    if (options_.soft_cap != 0) {
      const auto cap = static_cast<Scalar>(options_.soft_cap);
      scores = cap * (scores / cap).array().tanh();
    }
    if (!(bias.lowest == 0 && bias.highest == 0))
      for_each_encoding([&](const auto& encoding) {
        if constexpr (ScoreBias<std::remove_cvref_t<decltype(encoding)>, Scalar>)
          encoding.add_bias(view, key_positions, query_positions, options_.head);
      });

    const Scalar correction = softmax_column(scores.data(), span.size, work_.maxima_[0], work_.sums_[0]);
    sum_values(scores.data(), values_, value_step_, v_.rows(), span.size, correction, output);
    if constexpr (has_value_terms) {
      Eigen::Ref<Matrix<Scalar>> outputs = Eigen::Map<Matrix<Scalar>>(output, v_.rows(), 1);
      const Eigen::Ref<const Matrix<Scalar>> weights = scores;
      for_each_encoding([&](const auto& encoding) {
        if constexpr (ValueTerm<std::remove_cvref_t<decltype(encoding)>, Scalar>)
          encoding.add_values(outputs, weights, key_positions, query_positions, options_.head);
      });
    }
    return true;
  }

  /// Below it an exponential is 0.
  static constexpr double least_exponent = std::is_same_v<Scalar, float> ? -87.34 : -708.4;

  const Queries& q_;
  const Keys& k_;
  const Values& v_;
  const AttentionOptions& options_;
  AttentionWorkspace<Scalar>& work_;
  std::tuple<const Encodings&...> encodings_;
  Scalar scale_ = 1, query_norm_ = 0;
  bool by_distance_ = false, has_distances_ = false, is_fused_ = false;
  Index last_distance_ = 0;  // of the fused term: the last that is not hidden

  Index first_ = 0, num_queries_ = 0;  // the block
  const Scalar* raw_keys_ = nullptr;   // the stretch
  const Scalar* keys_ = nullptr;
  const Scalar* values_ = nullptr;
  Index raw_key_step_ = 0, key_step_ = 0, value_step_ = 0;
};

}  // namespace detail
}  // namespace posenc::inline v0
