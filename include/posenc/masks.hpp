// SPDX-License-Identifier: MIT
#pragma once

// Masks are biases: minus infinity where a query must not attend, nothing elsewhere. They stack with every other bias.

#include <Eigen/Core>
#include <algorithm>
#include <cstdint>
#include <limits>
#include <ranges>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include <posenc/concepts.hpp>
#include <posenc/detail/check.hpp>
#include <posenc/detail/score_lines.hpp>
#include <posenc/detail/tile.hpp>

namespace posenc::inline v0 {
namespace detail {

inline double mask_value(bool visible) { return visible ? 0 : -std::numeric_limits<double>::infinity(); }

/// Sets scores begin, ..., end - 1 of a column or row to minus infinity.
template <class Line>
void hide(Line line, Index begin, Index end) {
  using Scalar = typename Line::Scalar;
  line.segment(begin, end - begin).setConstant(static_cast<Scalar>(-std::numeric_limits<float>::infinity()));
}

/// Sets the scores of which visible(key, query) is false to minus infinity.
template <class Scores, class Visible>
void mask(Scores& scores, Visible visible) {
  using Scalar = typename std::remove_cvref_t<Scores>::Scalar;
  for_each_score(scores, [&](Index key, Index query, Scalar& score) {
    if (!visible(key, query)) score = static_cast<Scalar>(-std::numeric_limits<float>::infinity());
  });
}

/// Hides all keys but those at most `left` positions before and `right` positions after the query.
template <class Scores>
void mask_window(Scores& scores, const Positions& key_positions, const Positions& query_positions, double left,
                 double right) {
  if (!are_lines(key_positions, query_positions)) {
    mask(scores, [&](Index key, Index query) {
      const double distance = offset(key_positions[key], query_positions[query]);
      return -left <= distance && distance <= right;
    });
    return;
  }
  // Along the memory, what is seen is one stretch of each line.
  const auto mask_line = [](auto line, double first, double last) {
    const auto size = static_cast<double>(line.size());
    hide(line, 0, static_cast<Index>(std::clamp(first, 0.0, size)));
    hide(line, static_cast<Index>(std::clamp(last + 1, 0.0, size)), line.size());
  };
  if constexpr (std::remove_cvref_t<Scores>::IsRowMajor) {
    for (Index key = 0; key < scores.rows(); ++key) {
      const double distance = scores.cols() == 0 ? 0 : offset(key_positions[key], query_positions[0]);
      mask_line(scores.row(key), distance - right, distance + left);
    }
  } else {
    for (Index query = 0; query < scores.cols(); ++query) {
      const double distance = scores.rows() == 0 ? 0 : -offset(key_positions[0], query_positions[query]);
      mask_line(scores.col(query), distance - left, distance + right);
    }
  }
}

/// Neighbouring tokens of which something is the same.
struct TokenRun {
  Index begin, end;
  std::int64_t value;
};

inline std::vector<TokenRun> token_runs(const std::vector<std::int64_t>& values) {
  std::vector<TokenRun> runs;
  for (std::size_t token = 0; token < values.size(); ++token) {
    const auto begin = static_cast<Index>(token);
    if (runs.empty() || runs.back().value != values[token]) runs.push_back({begin, begin, values[token]});
    runs.back().end = begin + 1;
  }
  return runs;
}

/// Hides the tokens of a column or row for which is_hidden(value). Its first score is of token `first`.
template <class Line, class IsHidden>
void mask_runs(Line line, Index first, const std::vector<TokenRun>& runs, IsHidden is_hidden) {
  const Index last = first + line.size();
  auto run = std::partition_point(runs.begin(), runs.end(), [&](const TokenRun& r) { return r.end <= first; });
  for (; run != runs.end() && run->begin < last; ++run)
    if (is_hidden(run->value)) hide(line, std::max(run->begin, first) - first, std::min(run->end, last) - first);
}

}  // namespace detail

/// No key after the query: -inf where the position n of the key is above the position m of the query.
///
///   query m   0 1 2 3        '.' visible, 'x' hidden
///   key n  0  . . . .
///          1  x . . .
///          2  x x . .
///          3  x x x .
///
/// Errors: std::invalid_argument for a shape that does not fit; nothing is written then.
/// Cost:   writes what it hides, and looks at nothing else, where positions are contiguous. Allocates nothing.
struct CausalMask {
  static constexpr bool is_relative = true;

  template <MutableDense Scores>
  void operator()(Scores&& scores, const Positions& key_positions, const Positions& query_positions,
                  Index /*head*/ = 0) const {
    detail::require_tile(scores, key_positions, query_positions, "posenc::CausalMask");
    if (detail::are_lines(key_positions, query_positions))
      detail::mask_window(scores, key_positions, query_positions, std::numeric_limits<double>::infinity(), 0);
    else
      detail::mask(scores, [&](Index key, Index query) { return key_positions[key] <= query_positions[query]; });
  }

  /// Depends on key - query alone; see DistanceBias and BoundedBias.
  double at_distance(std::int64_t key_minus_query, Index /*head*/) const {
    return detail::mask_value(key_minus_query <= 0);
  }
  BiasBounds bounds(const Positions& key_positions, const Positions& query_positions, Index /*head*/) const {
    if (key_positions.size() == 0 || query_positions.size() == 0) return {0, 0};
    const PositionRange keys = range(key_positions), queries = range(query_positions);
    return {detail::mask_value(keys.last <= queries.first), detail::mask_value(keys.first <= queries.last)};
  }

  /// The hook of ScoreBias.
  template <MutableDense Scores>
  void add_bias(Scores&& scores, const Positions& key_positions, const Positions& query_positions,
                Index head = 0) const {
    (*this)(scores, key_positions, query_positions, head);
  }
};

/// How far a query sees. A side that is not named is not limited.
struct SlidingWindowOptions {
  std::int64_t left = std::numeric_limits<std::int64_t>::max();   ///< positions before the query
  std::int64_t right = std::numeric_limits<std::int64_t>::max();  ///< positions after the query
};

/// Local attention: -inf but for keys at most `left` positions before and `right` positions after the query.
///
///   {.left = 1, .right = 0}      query m   0 1 2 3
///                                key n  0  . . x x
///                                       1  x . . x
///                                       2  x x . .
///                                       3  x x x .
///
/// A model's sliding_window of w tokens counts the query itself: it is {.left = w - 1, .right = 0}.
///
/// Errors: std::invalid_argument for a negative side or a shape that does not fit; nothing is written then.
/// Cost:   writes what it hides, and looks at nothing else, where positions are contiguous. Allocates nothing.
/// Source: Beltagy et al. 2020, Longformer, arXiv:2004.05150v2, section 3.1.
class SlidingWindow {
 public:
  static constexpr bool is_relative = true;

  explicit SlidingWindow(const SlidingWindowOptions& options)
      : left_(static_cast<double>(options.left)), right_(static_cast<double>(options.right)) {
    detail::require(options.left >= 0, "posenc::SlidingWindow: left must not be negative", options.left);
    detail::require(options.right >= 0, "posenc::SlidingWindow: right must not be negative", options.right);
  }

  template <MutableDense Scores>
  void operator()(Scores&& scores, const Positions& key_positions, const Positions& query_positions,
                  Index /*head*/ = 0) const {
    detail::require_tile(scores, key_positions, query_positions, "posenc::SlidingWindow");
    detail::mask_window(scores, key_positions, query_positions, left_, right_);
  }

  /// Depends on key - query alone; see DistanceBias and BoundedBias.
  double at_distance(std::int64_t key_minus_query, Index /*head*/) const {
    const auto offset = static_cast<double>(key_minus_query);
    return detail::mask_value(-left_ <= offset && offset <= right_);
  }
  BiasBounds bounds(const Positions& key_positions, const Positions& query_positions, Index /*head*/) const {
    const auto [first, last] = detail::offsets(key_positions, query_positions);
    return {detail::mask_value(-left_ <= first && last <= right_),
            detail::mask_value(last >= -left_ && first <= right_)};
  }

  /// The hook of ScoreBias.
  template <MutableDense Scores>
  void add_bias(Scores&& scores, const Positions& key_positions, const Positions& query_positions,
                Index head = 0) const {
    (*this)(scores, key_positions, query_positions, head);
  }

 private:
  double left_, right_;
};

/// Hides padding: -inf for the keys of which the mask is zero. It goes by token, not by position.
///
///   mask  0 0 1 1 1     the first two keys are padding, for every query
///
/// The mask has one entry a key of the whole sequence; a tile finds its own through Positions::token.
///
/// Errors: std::invalid_argument for a shape that does not fit, std::out_of_range for a key beyond the mask; nothing is
///         written then.
/// Cost:   writes what it hides, and looks at nothing else. Allocates nothing.
class PaddingMask {
 public:
  /// \param mask any range of integers or bools: zero is padding. Copied.
  template <std::ranges::input_range Mask>
  explicit PaddingMask(const Mask& mask) {
    std::vector<std::int64_t> hidden;
    for (const auto& visible : mask) hidden.push_back(visible ? 0 : 1);
    runs_ = detail::token_runs(hidden);
    num_tokens_ = static_cast<Index>(hidden.size());
  }

  template <MutableDense Scores>
  void operator()(Scores&& scores, const Positions& key_positions, const Positions& query_positions,
                  Index /*head*/ = 0) const {
    detail::require_tile(scores, key_positions, query_positions, "posenc::PaddingMask");
    detail::require_tokens(key_positions, num_tokens_,
                           "posenc::PaddingMask: keys must be at most the entries of the mask");
    if constexpr (std::remove_cvref_t<Scores>::IsRowMajor) {
      for (const detail::TokenRun& run : runs_)
        if (run.value != 0)
          for (Index token = std::max(run.begin, key_positions.token(0));
               token < std::min(run.end, key_positions.token(scores.rows())); ++token)
            detail::hide(scores.row(token - key_positions.token(0)), 0, scores.cols());
    } else {
      for (Index query = 0; query < scores.cols(); ++query)
        detail::mask_runs(scores.col(query), key_positions.token(0), runs_,
                          [](std::int64_t hidden) { return hidden != 0; });
    }
  }

  /// The hook of ScoreBias.
  template <MutableDense Scores>
  void add_bias(Scores&& scores, const Positions& key_positions, const Positions& query_positions,
                Index head = 0) const {
    (*this)(scores, key_positions, query_positions, head);
  }

 private:
  std::vector<detail::TokenRun> runs_;  ///< of value 1 where they are hidden
  Index num_tokens_ = 0;
};

/// Packed sequences: -inf between tokens of different documents. It goes by token, not by position.
///
///   documents 0 0 0 1 1         query   0 1 2 3 4
///                               key  0  . . . x x
///                                    1  . . . x x
///                                    2  . . . x x
///                                    3  x x x . .
///                                    4  x x x . .
///
/// `packed_documents` (positions.hpp) makes the numbers from lengths. Queries and keys may have numbers of their own.
///
/// Errors: std::invalid_argument for a shape that does not fit, std::out_of_range for a token that has no number;
///         nothing is written then.
/// Cost:   writes what it hides, and for each query compares documents, not tokens. Allocates nothing.
class DocumentMask {
 public:
  explicit DocumentMask(const std::vector<std::int64_t>& documents) : DocumentMask(documents, documents) {}
  DocumentMask(std::vector<std::int64_t> key_documents, std::vector<std::int64_t> query_documents)
      : key_documents_(std::move(key_documents)),
        query_documents_(std::move(query_documents)),
        key_runs_(detail::token_runs(key_documents_)),
        query_runs_(detail::token_runs(query_documents_)) {}

  template <MutableDense Scores>
  void operator()(Scores&& scores, const Positions& key_positions, const Positions& query_positions,
                  Index /*head*/ = 0) const {
    detail::require_tile(scores, key_positions, query_positions, "posenc::DocumentMask");
    detail::require_tokens(key_positions, static_cast<Index>(key_documents_.size()),
                           "posenc::DocumentMask: keys must be at most the numbered ones");
    detail::require_tokens(query_positions, static_cast<Index>(query_documents_.size()),
                           "posenc::DocumentMask: queries must be at most the numbered ones");
    if constexpr (std::remove_cvref_t<Scores>::IsRowMajor) {
      for (Index key = 0; key < scores.rows(); ++key) {
        const std::int64_t own = key_documents_[static_cast<std::size_t>(key_positions.token(key))];
        detail::mask_runs(scores.row(key), query_positions.token(0), query_runs_,
                          [&](std::int64_t d) { return d != own; });
      }
    } else {
      for (Index query = 0; query < scores.cols(); ++query) {
        const std::int64_t own = query_documents_[static_cast<std::size_t>(query_positions.token(query))];
        detail::mask_runs(scores.col(query), key_positions.token(0), key_runs_,
                          [&](std::int64_t d) { return d != own; });
      }
    }
  }

  /// See BoundedBias. Documents are taken to overlap where the ranges of their numbers do.
  BiasBounds bounds(const Positions& key_positions, const Positions& query_positions, Index /*head*/) const {
    if (key_positions.size() == 0 || query_positions.size() == 0) return {0, 0};
    const PositionRange keys = documents(key_documents_, key_positions);
    const PositionRange queries = documents(query_documents_, query_positions);
    const bool same = keys.first == keys.last && queries.first == queries.last && keys.first == queries.first;
    return {detail::mask_value(same), detail::mask_value(keys.first <= queries.last && queries.first <= keys.last)};
  }

  /// The hook of ScoreBias.
  template <MutableDense Scores>
  void add_bias(Scores&& scores, const Positions& key_positions, const Positions& query_positions,
                Index head = 0) const {
    (*this)(scores, key_positions, query_positions, head);
  }

 private:
  static PositionRange documents(const std::vector<std::int64_t>& numbers, const Positions& tokens) {
    detail::require_tokens(tokens, static_cast<Index>(numbers.size()),
                           "posenc::DocumentMask: tokens must be at most the numbered ones");
    return range(
        std::span(numbers).subspan(static_cast<std::size_t>(tokens.token(0)), static_cast<std::size_t>(tokens.size())));
  }

  std::vector<std::int64_t> key_documents_, query_documents_;
  std::vector<detail::TokenRun> key_runs_, query_runs_;
};

}  // namespace posenc::inline v0
