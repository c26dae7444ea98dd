// SPDX-License-Identifier: MIT
#pragma once

// Streaming attention for one query: a way of its own, at the speed of reading the keys and values.

#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <limits>

#include <posenc/detail/attention_inputs.hpp>
#include <posenc/detail/single_query.hpp>
#include <posenc/detail/stream_count.hpp>

namespace posenc::inline v0::detail {

template <class Scalar, class Queries, class Keys, class Values, class... Encodings>
class SingleQueryStream : protected AttentionInputs<Scalar, Queries, Keys, Values, Encodings...> {
 protected:
  using Inputs = AttentionInputs<Scalar, Queries, Keys, Values, Encodings...>;
  using Inputs::has_terms, Inputs::has_value_terms, Inputs::has_bounds, Inputs::is_bounded;
  using Inputs::Inputs;

  /// Scores down a column of keys, a stretch at a time. For finish see AttentionStream::run.
  template <class Finish>
  StreamCount run_single(Index query, Finish finish) {
    this->load_queries(query, 1);
    query_ = this->rotated_queries(0, 1).data;
    const auto sink = static_cast<Scalar>(this->options_.sink);  // a score that is there already
    Scalar maximum = sink, sum = sink == -std::numeric_limits<Scalar>::infinity() ? Scalar(0) : Scalar(1);
    Scalar* const output = this->work_.output_panels_.data();
    std::fill_n(output, this->v_.rows(), Scalar(0));
    StreamCount count;
    near_to_far(
        this->num_stretches(), [&](Index s) { return this->highest(this->stretch_at(s), this->queries_at(0, 1)); },
        [&](Index s) { ++(run_stretch(this->stretch_at(s), maximum, sum, output) ? count.tiles : count.skipped); });
    finish(query, maximum, sum, output);
    return count;
  }

 private:
  bool run_stretch(Span span, Scalar& maximum, Scalar& sum, Scalar* output) {
    const Positions key_positions = this->keys_at(span), query_positions = this->queries_at(0, 1);
    BiasBounds bias{Inputs::hidden, -Inputs::hidden};
    if constexpr (has_bounds) {
      bias = this->bounds(key_positions, query_positions);
      if (bias.highest == Inputs::hidden) return false;
    }
    this->load_stretch(span);
    if constexpr (is_bounded) {
      const auto query_norm = [&] {
        return this->largest_column_norm(this->map({query_, 1}, this->k_.rows(), 1)) *
               std::abs(static_cast<double>(this->scale_));
      };
      if (this->is_nothing(
              maximum, bias, [&] { return this->largest_key_norm(0, span.size); }, query_norm))
        return false;
    }

    Eigen::Map<Matrix<Scalar>> scores(this->work_.single_scores_.data(), span.size, 1);
    dot_keys(query_, this->keys_.data, this->keys_.step, this->k_.rows(), span.size,
             has_terms ? Scalar(1) : this->scale_, scores.data());
    Eigen::Ref<Matrix<Scalar>> view = scores;
    if constexpr (has_terms) {
      this->for_each_encoding([&](const auto& encoding) {
        if constexpr (ScoreTerm<std::remove_cvref_t<decltype(encoding)>, Scalar>) {
          const Eigen::Ref<const Matrix<Scalar>> k = this->raw_keys(0, span.size), q = this->raw_queries(0, 1);
          encoding.add_scores(view, k, q, key_positions, query_positions, this->options_.head);
        }
      });
      scores *= this->scale_;
    }
    cap_scores(scores, this->options_.soft_cap);
    if (!(bias.lowest == 0 && bias.highest == 0))
      this->for_each_encoding([&](const auto& encoding) {
        if constexpr (ScoreBias<std::remove_cvref_t<decltype(encoding)>, Scalar>)
          encoding.add_bias(view, key_positions, query_positions, this->options_.head);
      });

    const Scalar correction = softmax_column(scores.data(), span.size, maximum, sum);
    sum_values(scores.data(), this->values_.data, this->values_.step, this->v_.rows(), span.size, correction, output);
    if constexpr (has_value_terms) {
      Eigen::Ref<Matrix<Scalar>> outputs = Eigen::Map<Matrix<Scalar>>(output, this->v_.rows(), 1);
      const Eigen::Ref<const Matrix<Scalar>> weights = scores;
      this->for_each_encoding([&](const auto& encoding) {
        if constexpr (ValueTerm<std::remove_cvref_t<decltype(encoding)>, Scalar>)
          encoding.add_values(outputs, weights, key_positions, query_positions, this->options_.head);
      });
    }
    return true;
  }

  const Scalar* query_ = nullptr;  // rotated
};

}  // namespace posenc::inline v0::detail
