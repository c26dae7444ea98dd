// SPDX-License-Identifier: MIT
#pragma once

// Streaming attention for single queries: a way of its own, at the speed of reading the keys and values.

#include <Eigen/Core>
#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <limits>
#include <span>
#include <type_traits>

#include <posenc/detail/attention_inputs.hpp>
#include <posenc/detail/single_query.hpp>
#include <posenc/detail/stream_count.hpp>

namespace posenc::inline v0::detail {

/// One query of one head, alone or side by side with other queries and heads that work in the same workspace: keys and
/// values come from memory once for all of them, in the order in which they lie there.
///
///   for every stretch of keys        for every few keys of the stretch    for every query    scores
///                                    for every query                      biases, softmax
///                                    for every few keys of the stretch    for every query    weighted values
///
/// What is computed for a query, and in which order, does not depend on those beside it.
template <class Scalar, class Queries, class Keys, class Values, class... Encodings>
class SingleQueryStream : protected AttentionInputs<Scalar, Queries, Keys, Values, Encodings...> {
 protected:
  using Inputs = AttentionInputs<Scalar, Queries, Keys, Values, Encodings...>;
  using Inputs::has_terms, Inputs::has_value_terms, Inputs::has_bounds, Inputs::is_bounded, Inputs::rotates;

 public:
  SingleQueryStream(const Queries& q, const Keys& k, const Values& v, const AttentionOptions& options,
                    AttentionWorkspace<Scalar>& workspace, const Encodings&... encodings)
      : Inputs(q, k, v, options, workspace, encodings...) {}

  /// How many of them a workspace is large enough for.
  static Index most_side_by_side(const AttentionWorkspace<Scalar>& work) {
    return std::min({max_streams, work.block_queries(), work.skewed_scores_.size() / work.keys_.cols()});
  }
  static constexpr Index max_streams = 32;

  using Streams = std::span<SingleQueryStream* const>;

  /// Number `place` of those side by side begins with a query of its head.
  void begin(Index query, Index place) {
    place_ = place;
    this->load_queries(query, 1);
    query_ = this->work_.query_panels_.data() + place * this->q_.rows();
    std::copy_n(this->rotated_queries(0, 1).data, this->q_.rows(), query_);
    maximum_ = static_cast<Scalar>(this->options_.sink);  // a score that is there already
    sum_ = maximum_ == -std::numeric_limits<Scalar>::infinity() ? Scalar(0) : Scalar(1);
    std::fill_n(output(), this->v_.rows(), Scalar(0));
    nearest_ = nearest_of(this->num_stretches(),
                          [&](Index s) { return this->highest(this->stretch_at(s), this->queries_at(0, 1)); });
  }

  /// Runs streams that have begun, in their places. For finish see AttentionStream::run; `query` is the place.
  template <class Finish>
  static StreamCount run_side_by_side(Streams streams, Finish finish) {
    StreamCount count;
    for_each_alike(
        streams, [](const SingleQueryStream* stream) { return stream->nearest_; },
        [&](Streams together) {
          from_nearest(together[0]->num_stretches(), together[0]->nearest_, [&](Index s) {
            const Span stretch = together[0]->stretch_at(s);
            if (together[0]->copies())  // into memory for one head
              for_each_alike(together, kv_head, [&](Streams of_head) { count += run_stretch(of_head, stretch); });
            else
              count += run_stretch(together, stretch);
          });
        });
    for (const SingleQueryStream* stream : streams)
      finish(stream->place_, stream->maximum_, stream->sum_, stream->output());
    return count;
  }

 protected:
  template <class Finish>
  StreamCount run_single(Index query, Finish finish) {
    begin(query, 0);
    SingleQueryStream* const stream = this;
    return run_side_by_side(Streams(&stream, 1), [&](Index, Scalar maximum, Scalar sum, const Scalar* values) {
      finish(query, maximum, sum, values);
    });
  }

 private:
  /// Calls action for all runs of streams that have a property in common.
  template <class Property, class Action>
  static void for_each_alike(Streams streams, Property property, Action action) {
    while (!streams.empty()) {
      const auto differs = [&](const SingleQueryStream* other) { return property(other) != property(streams[0]); };
      const auto size =
          static_cast<std::size_t>(std::find_if(streams.begin(), streams.end(), differs) - streams.begin());
      action(streams.first(size));
      streams = streams.subspan(size);
    }
  }

  static StreamCount run_stretch(Streams streams, Span stretch) {
    std::array<SingleQueryStream*, max_streams> active;
    std::array<const Scalar*, max_streams> queries;
    std::array<Scalar*, max_streams> scores, outputs;
    std::array<Scalar, max_streams> corrections;
    std::size_t n = 0;
    for (SingleQueryStream* stream : streams)
      if (stream->enter(stretch, n == 0 ? nullptr : active[n - 1])) {
        active[n] = stream;
        queries[n] = stream->query_;
        scores[n] = stream->scores();
        outputs[n++] = stream->output();
      }
    std::array<Streams, max_streams> groups;  // of the same keys
    std::size_t num_groups = 0;
    for_each_alike(Streams(active.data(), n), kv_head, [&](Streams group) { groups[num_groups++] = group; });

    // A few tokens of all heads, which lie together, and meanwhile the next few are asked for. A text of one stretch is
    // likely to be in a cache, and so is what has been copied.
    const bool asks = streams[0]->num_stretches() > 1 && !streams[0]->copies();
    const Index some_tokens = streams[0]->num_stretches() > 1 ? 16 : stretch.size;
    const auto for_some_tokens = [&](auto action) {
      for (Index begin = 0, end; begin < stretch.size; begin = end) {
        end = std::min(begin + some_tokens, stretch.size);
        for (std::size_t g = 0; g < num_groups; ++g)
          action(static_cast<std::size_t>(groups[g].data() - active.data()), static_cast<Index>(groups[g].size()),
                 *groups[g][0], begin, end);
      }
    };
    const auto ahead = [&](TokenColumns<Scalar> columns, Index begin, Index end, const Scalar* behind) {
      return asks ? bytes_between(columns[begin], end < stretch.size ? columns[end] : behind) : 0;
    };
    for_some_tokens([&](std::size_t i, Index size, const SingleQueryStream& of, Index begin, Index end) {
      const TokenColumns<Scalar> keys{of.keys_.data, of.keys_.step};
      dot_keys(&queries[i], size, keys, of.k_.rows(), begin, end, has_terms ? Scalar(1) : of.scale_, &scores[i],
               ahead(keys, begin, end, of.values_.data));
    });
    for (std::size_t i = 0; i < n; ++i) corrections[i] = active[i]->weigh(stretch);
    for_some_tokens([&](std::size_t i, Index size, const SingleQueryStream& of, Index begin, Index end) {
      const TokenColumns<Scalar> values{of.values_.data, of.values_.step};
      const Index back = asks ? std::min(of.work_.keys_.cols(), stretch.begin) : 0;  // to the stretch before
      sum_values(&scores[i], size, values, of.v_.rows(), begin, end, &corrections[i], &outputs[i],
                 ahead(values, begin, end, of.keys_.data - back * of.keys_.step));
      std::fill_n(&corrections[i], size, Scalar(1));
    });
    if constexpr (has_value_terms)
      for (std::size_t i = 0; i < n; ++i) active[i]->add_value_terms(stretch);
    return {static_cast<Index>(n), static_cast<Index>(streams.size() - n)};
  }

  /// Reads a stretch, or takes it from one that has read the same; returns whether there is anything in it.
  bool enter(Span stretch, const SingleQueryStream* other) {
    bias_ = {Inputs::hidden, -Inputs::hidden};
    if constexpr (has_bounds) {
      bias_ = this->bounds(this->keys_at(stretch), this->queries_at(0, 1));
      if (bias_.highest == Inputs::hidden) return false;
    }
    if (other != nullptr && copies()) {
      this->raw_keys_ = other->raw_keys_;
      this->keys_ = other->keys_;
      this->values_ = other->values_;
    } else {
      this->load_stretch(stretch);
    }
    if constexpr (is_bounded) {
      const auto query_norm = [&] {
        return this->largest_column_norm(this->map({query_, 1}, this->k_.rows(), 1)) *
               std::abs(static_cast<double>(this->scale_));
      };
      if (this->is_nothing(
              maximum_, bias_, [&] { return this->largest_key_norm(0, stretch.size); }, query_norm))
        return false;
    }
    return true;
  }

  /// What is added to the products of a stretch, and one step of the online softmax. Returns what everything that was
  /// weighed before must be multiplied by.
  Scalar weigh(Span stretch) {
    const Positions key_positions = this->keys_at(stretch), query_positions = this->queries_at(0, 1);
    Eigen::Map<Matrix<Scalar>> block(scores(), stretch.size, 1);
    Eigen::Ref<Matrix<Scalar>> view = block;
    if constexpr (has_terms) {
      this->load_queries(this->first_, 1);  // where another may have been since
      this->for_each_encoding([&](const auto& encoding) {
        if constexpr (ScoreTerm<std::remove_cvref_t<decltype(encoding)>, Scalar>) {
          const Eigen::Ref<const Matrix<Scalar>> k = this->raw_keys(0, stretch.size), q = this->raw_queries(0, 1);
          encoding.add_scores(view, k, q, key_positions, query_positions, this->options_.head);
        }
      });
      block *= this->scale_;
    }
    cap_scores(block, this->options_.soft_cap);
    if (!(bias_.lowest == 0 && bias_.highest == 0))
      this->for_each_encoding([&](const auto& encoding) {
        if constexpr (ScoreBias<std::remove_cvref_t<decltype(encoding)>, Scalar>)
          encoding.add_bias(view, key_positions, query_positions, this->options_.head);
      });
    return softmax_column(block.data(), stretch.size, maximum_, sum_);
  }

  void add_value_terms(Span stretch) {
    Eigen::Ref<Matrix<Scalar>> outputs = Eigen::Map<Matrix<Scalar>>(output(), this->v_.rows(), 1);
    const Eigen::Ref<const Matrix<Scalar>> weights = Eigen::Map<Matrix<Scalar>>(scores(), stretch.size, 1);
    this->for_each_encoding([&](const auto& encoding) {
      if constexpr (ValueTerm<std::remove_cvref_t<decltype(encoding)>, Scalar>)
        encoding.add_values(outputs, weights, this->keys_at(stretch), this->queries_at(0, 1), this->options_.head);
    });
  }

  /// Whether keys or values are not read where they lie.
  bool copies() const { return rotates || !this->is_in_place(this->k_) || !this->is_in_place(this->v_); }
  static Index kv_head(const SingleQueryStream* stream) { return stream->options_.kv_head; }

  Scalar* scores() const { return this->work_.skewed_scores_.data() + place_ * this->work_.keys_.cols(); }
  Scalar* output() const { return this->work_.output_panels_.data() + place_ * this->v_.rows(); }

  Index place_ = 0, nearest_ = 0;
  Scalar* query_ = nullptr;  // rotated
  Scalar maximum_ = 0, sum_ = 0;
  BiasBounds bias_{0, 0};  // of the stretch
};

/// A query, and all that it is attended to with.
template <class Scalar, class Queries, class Keys, class Values, class... Encodings>
struct SingleHead {
  using Stream = SingleQueryStream<Scalar, Queries, Keys, Values, Encodings...>;

  SingleHead(const Queries& q_, const Keys& k_, const Values& v_, const AttentionOptions& options_,
             AttentionWorkspace<Scalar>& workspace, const Encodings&... encodings)
      : q(q_), k(k_), v(v_), options(options_), stream(q, k, v, options, workspace, encodings...) {}

  Queries q;
  Keys k;
  Values v;
  AttentionOptions options;
  Stream stream;
};

/// Whether queries are so few that they go as single ones.
template <class Scalar>
bool are_few_queries(Index num_queries) {
  return 4 * num_queries <= Simd<Scalar>::tile_width;
}

}  // namespace posenc::inline v0::detail
