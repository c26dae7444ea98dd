// SPDX-License-Identifier: MIT
#pragma once

// The walk of streaming attention over blocks of queries, stretches of keys, panels and tiles.

#include <Eigen/Core>
#include <algorithm>
#include <cmath>
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
  }

  /// Computes the outputs of queries first, ..., first + num_queries - 1, at most a block, and hands each to
  /// finish(query, maximum, sum, feature -> weighted value). A single query goes a way of its own, at the speed of reading
  /// the keys and values.
  template <class Finish>
  StreamCount run(Index first, Index num_queries, Finish finish) {
    if (num_queries == 1) return run_single(first, finish);
    first_ = first;
    num_queries_ = num_queries;
    begin_block();
    StreamCount count;
    const Index stretch = work_.keys_.cols(), num_stretches = (k_.cols() + stretch - 1) / stretch;
    near_to_far(
        num_stretches, [&](Index s) { return highest(stretch_at(s), queries_at(0, num_queries_)); },
        [&](Index s) { count += run_stretch(stretch_at(s)); });
    for (Index query = 0; query < num_queries_; ++query) {
      const Scalar* const output = outputs_of(query / panel) + query % panel;
      finish(first_ + query, work_.maxima_[query], work_.sums_[query],
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
  static constexpr bool is_bounded = !has_terms && (BoundedBias<Encodings> || ...);

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
    const Scalar scale = has_terms ? Scalar(1) : scale_;
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
    const Index padded = (num_queries_ + panel - 1) / panel * panel;
    work_.maxima_.head(padded).setConstant(sink);
    work_.sums_.head(padded).setConstant(sink == -infinity ? Scalar(0) : Scalar(1));
    work_.output_panels_.head(padded * v_.rows()).setZero();
    if constexpr (is_bounded)
      query_norm_ = source.leftCols(num_queries_).colwise().norm().maxCoeff() * std::abs(scale_);
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
    const Scalar smallest = work_.maxima_.segment(begin, num_queries).minCoeff();
    if (!(bias.highest < static_cast<double>(smallest))) return false;  // cheap, and almost always so
    const Eigen::Map<const Matrix<Scalar>, 0, Eigen::OuterStride<>> keys(keys_ + key * key_step_, k_.rows(), size,
                                                                         Eigen::OuterStride<>(key_step_));
    double largest = static_cast<double>(query_norm_ * keys.colwise().norm().maxCoeff()) * 1.0001;
    if (options_.soft_cap != 0) largest = std::min(largest, options_.soft_cap);
    return largest + bias.highest - static_cast<double>(smallest) < least_exponent;
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
    const bool unbiased = bias.lowest == 0 && bias.highest == 0;

    Scalar* const scores = work_.scores_.data();
    const Scalar* const keys = keys_ + key * key_step_;
    const bool preload = has_distances_ && !unbiased && !has_terms && options_.soft_cap == 0;
    const Scalar* const distances = work_.distances_.data() + begin + stretch.size - 1 - key;
    if (preload)
      multiply<packets>(tile.size, keys, key_step_, 1, queries_of(begin / panel), panel, k_.rows(), scores, panel,
                        [&](Index j, int q) { return load(distances - j + q * lanes); });
    else
      multiply<packets>(tile.size, keys, key_step_, 1, queries_of(begin / panel), panel, k_.rows(), scores, panel,
                        [](Index, int) { return broadcast(Scalar(0)); });

    using Tile =
        Eigen::Map<Eigen::Matrix<Scalar, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>, 0, Eigen::OuterStride<>>;
    Tile block(scores, tile.size, size, Eigen::OuterStride<>(panel));
    if constexpr (has_terms) {
      const auto queries = work_.query_columns_.middleCols(begin, size);
      for_each_encoding([&](const auto& encoding) {
        if constexpr (ScoreTerm<std::remove_cvref_t<decltype(encoding)>, Scalar>)
          in_columns(block, work_.score_columns_, [&](auto& view) {
            const Eigen::Ref<const Matrix<Scalar>> k = raw_keys(key, tile.size), q = queries;
            encoding.add_scores(view, k, q, key_positions, query_positions, options_.head);
          });
      });
      block *= scale_;
    }
    if (options_.soft_cap != 0) {
      const auto cap = static_cast<Scalar>(options_.soft_cap);
      block = cap * (block / cap).array().tanh();
    }
    if (has_distances_ && !preload && !unbiased)
      for (Index j = 0; j < tile.size; ++j)
        block.row(j) += Eigen::Map<const Vector<Scalar>>(distances - j, size).transpose();
    if (!unbiased)
      for_each_encoding([&](const auto& encoding) {
        if constexpr (ScoreBias<std::remove_cvref_t<decltype(encoding)>, Scalar>)
          if (!(has_distances_ && is_by_distance(encoding)))
            in_columns(block, work_.score_columns_,
                       [&](auto& view) { encoding.add_bias(view, key_positions, query_positions, options_.head); });
      });

    Scalar* const correction = work_.correction_.data();
    softmax_step<packets>(scores, tile.size, work_.maxima_.data() + begin, work_.sums_.data() + begin, correction);
    Scalar* const outputs = outputs_of(begin / panel);
    multiply<packets>(v_.rows(), values_ + key * value_step_, 1, value_step_, scores, panel, tile.size, outputs, panel,
                      [&](Index d, int q) {
                        return Eigen::internal::pmul(load(outputs + d * panel + q * lanes),
                                                     load(correction + q * lanes));
                      });
    if constexpr ((ValueTerm<Encodings, Scalar> || ...)) {
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

    const Scalar before = work_.maxima_[0];
    const Scalar largest = std::max(before, scores.template maxCoeff<Eigen::PropagateNaN>());
    const Scalar reference = std::max(largest, std::numeric_limits<Scalar>::lowest());
    work_.maxima_[0] = largest;
    const Scalar correction = before == -infinity ? Scalar(0) : std::exp(before - reference);
    scores = (scores.array() < static_cast<Scalar>(least_exponent) + reference)
                 .select(Scalar(0), (scores.array() - reference).exp());
    work_.sums_[0] = work_.sums_[0] * correction + scores.sum();
    sum_values(scores.data(), values_, value_step_, v_.rows(), span.size, correction, output);
    if constexpr ((ValueTerm<Encodings, Scalar> || ...)) {
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
  bool by_distance_ = false, has_distances_ = false;

  Index first_ = 0, num_queries_ = 0;  // the block
  const Scalar* raw_keys_ = nullptr;   // the stretch
  const Scalar* keys_ = nullptr;
  const Scalar* values_ = nullptr;
  Index raw_key_step_ = 0, key_step_ = 0, value_step_ = 0;
};

}  // namespace detail
}  // namespace posenc::inline v0
