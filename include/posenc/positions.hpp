// SPDX-License-Identifier: MIT
#pragma once

#include <Eigen/Core>
#include <algorithm>
#include <concepts>
#include <cstdint>
#include <ranges>
#include <span>
#include <vector>

#include <posenc/detail/check.hpp>

namespace posenc::inline v0 {

using Index = Eigen::Index;

/// Where the tokens of a matrix are: one position for each of its columns. Positions are data, not an assumption.
///
///   column        0    1    2    3    4
///   positions     7    8    9   10   11     positions(5, 7): contiguous from an offset, as behind a KV cache
///   positions     0    1    2    0    1     an array: two packed documents
///   positions     0    0    0    1    2     an array: two tokens of left padding
///
/// A view, as std::span is: it refers to an array and does not own it, and copies in a few words. Positions may be
/// negative, repeated and in any order. A view that was cut out of a longer one by `segment` remembers which tokens of
/// the sequence it holds (`token`), so that what goes by token rather than by position, a padding mask for instance,
/// works on a tile as well.
///
/// A token may have several coordinates (time, height and width of an image in a text): `axes` views an array of them,
/// and `axis(a)` is one of them alone. Operator [] is axis 0, which is what an encoding without axes sees.
///
/// Units: tokens. `Positions` are 64-bit integers; `RealPositions` are doubles, for the encodings whose formula takes
/// them (sinusoidal, RoPE).
template <class Value_>
class BasicPositions {
 public:
  using Value = Value_;

  BasicPositions() = default;

  /// first, first + 1, ..., first + size - 1.
  BasicPositions(Index size, Value first) : size_(size), first_(first) {
    detail::require(size >= 0, "posenc::positions: the number of tokens must not be negative", size);
  }

  /// The entries of an array, a std::vector or anything else that lies contiguously. Not copied.
  template <std::ranges::contiguous_range Range>
  requires std::ranges::sized_range<Range> && std::same_as<std::ranges::range_value_t<Range>, Value> BasicPositions(
      const Range& entries)  // NOLINT(google-explicit-constructor): a view, as std::span is
      : data_(std::ranges::data(entries)), size_(static_cast<Index>(std::ranges::size(entries))), contiguous_(false) {}

  /// Several axes, one behind the other: entries[a * T + t] is axis a of token t, as [axes, T] tensors have it.
  /// \throws std::invalid_argument unless the entries divide into num_axes axes.
  static BasicPositions axes(std::span<const Value> entries, Index num_axes) {
    const auto count = static_cast<Index>(entries.size());
    detail::require(num_axes > 0, "posenc::Positions: the number of axes must be positive", num_axes);
    detail::require(count % num_axes == 0, "posenc::Positions: entries must be a multiple of the number of axes",
                    count);
    BasicPositions view(entries.first(entries.size() / static_cast<std::size_t>(num_axes)));
    view.num_axes_ = num_axes;
    view.axis_stride_ = count / num_axes;
    return view;
  }

  Index size() const { return size_; }
  Index num_axes() const { return num_axes_; }

  /// One axis. Positions of a single axis, such as those of a text, are the same on all.
  /// \throws std::out_of_range for an axis that is not there.
  BasicPositions axis(Index a) const {
    if (num_axes_ == 1) return *this;
    detail::require_in_range(a >= 0 && a < num_axes_, "posenc::Positions: axis must be below the number of axes", a);
    BasicPositions one = *this;
    one.data_ += a * axis_stride_;
    one.num_axes_ = 1;
    return one;
  }

  /// The position of column t.
  Value operator[](Index t) const { return contiguous_ ? first_ + static_cast<Value>(t) : data_[t]; }

  /// Whether operator[](t) is operator[](0) + t by construction.
  bool is_contiguous() const { return contiguous_; }

  /// The number of column t in the whole sequence that this view was cut from.
  Index token(Index t) const { return first_token_ + t; }

  /// Columns begin, ..., begin + size - 1: the positions of a tile.
  BasicPositions segment(Index begin, Index size) const {
    detail::require(begin >= 0 && begin <= size_, "posenc::Positions: a segment must begin within the positions",
                    begin);
    detail::require(size >= 0 && size <= size_ - begin,
                    "posenc::Positions: the size of a segment must be at most what is left from its begin on", size);
    BasicPositions part = *this;
    part.size_ = size;
    part.first_token_ += begin;
    if (contiguous_)
      part.first_ += static_cast<Value>(begin);
    else
      part.data_ += begin;
    return part;
  }

 private:
  const Value* data_ = nullptr;
  Index size_ = 0;
  Index first_token_ = 0;
  Index num_axes_ = 1;
  Index axis_stride_ = 0;
  Value first_ = 0;
  bool contiguous_ = true;
};

using Positions = BasicPositions<std::int64_t>;
using RealPositions = BasicPositions<double>;

/// first, first + 1, ..., first + num_tokens - 1.
/// \throws std::invalid_argument if num_tokens is negative.
inline Positions positions(Index num_tokens, std::int64_t first = 0) { return {num_tokens, first}; }

/// Positions of documents that lie one behind the other in one sequence: each begins again at 0.
///
///   lengths {3, 2}   ->   0 1 2 0 1
///
/// Give `packed_documents` of the same lengths to a DocumentMask (masks.hpp), so that none attends to another.
/// \throws std::invalid_argument if a length is negative.
inline std::vector<std::int64_t> packed_positions(std::span<const Index> lengths) {
  std::vector<std::int64_t> entries;
  for (const Index length : lengths) {
    detail::require(length >= 0, "posenc::packed_positions: a length must not be negative", length);
    for (Index t = 0; t < length; ++t) entries.push_back(t);
  }
  return entries;
}

/// The number of the document that each token of a packed sequence belongs to.
///
///   lengths {3, 2}   ->   0 0 0 1 1
///
/// \throws std::invalid_argument if a length is negative.
inline std::vector<std::int64_t> packed_documents(std::span<const Index> lengths) {
  std::vector<std::int64_t> entries;
  for (std::size_t document = 0; document < lengths.size(); ++document) {
    detail::require(lengths[document] >= 0, "posenc::packed_documents: a length must not be negative",
                    lengths[document]);
    entries.insert(entries.end(), static_cast<std::size_t>(lengths[document]), static_cast<std::int64_t>(document));
  }
  return entries;
}

/// How positions are counted where some tokens are padding.
struct PaddedPositionsOptions {
  std::int64_t first = 0;    ///< position of the first token that is not padding
  std::int64_t padding = 0;  ///< position of every padding token
};

/// Positions that count only the tokens that are not padding.
///
///   mask             0 0 1 1 1
///   {}               0 0 0 1 2     Bloom, Falcon, x-transformers:  (cumsum(mask) - 1) * mask
///   {.first = 2,
///    .padding = 1}   1 1 2 3 4     RoBERTa, fairseq with padding_idx = 1:  cumsum(mask) * mask + padding_idx
///                                  and OPT, whose table has an offset of 2
///
/// \param mask one entry a token; zero (or false) is padding. Any range of integers or bools.
template <std::ranges::input_range Mask>
std::vector<std::int64_t> padded_positions(const Mask& mask, const PaddedPositionsOptions& options = {}) {
  std::vector<std::int64_t> entries;
  std::int64_t next = options.first;
  for (const auto& visible : mask) entries.push_back(visible ? next++ : options.padding);
  return entries;
}

/// The smallest and the largest position of a view. {0, -1} for an empty one.
struct PositionRange {
  std::int64_t first = 0;
  std::int64_t last = -1;
};

/// At no cost where positions are contiguous.
inline PositionRange range(const Positions& positions) {
  if (positions.size() == 0) return {};
  if (positions.is_contiguous()) return {positions[0], positions[positions.size() - 1]};
  PositionRange range{positions[0], positions[0]};
  for (Index t = 1; t < positions.size(); ++t) {
    range.first = std::min(range.first, positions[t]);
    range.last = std::max(range.last, positions[t]);
  }
  return range;
}

namespace detail {

/// Angles are computed in double, which holds every integer up to 2^53: std::out_of_range for a position beyond it.
template <class Value>
void require_exact_positions(const BasicPositions<Value>& positions, const char* rule) {
  constexpr auto limit = static_cast<Value>(std::int64_t{1} << 53);
  for (Index a = 0; a < positions.num_axes(); ++a) {
    const BasicPositions<Value> axis = positions.axis(a);
    const auto is_exact = [&](Index t) { return axis[t] >= -limit && axis[t] <= limit; };
    const Index n = axis.size();
    if (axis.is_contiguous() && n > 0 && is_exact(0) && is_exact(n - 1)) continue;
    for (Index t = 0; t < n; ++t) require_in_range(is_exact(t), rule, axis[t]);
  }
}

}  // namespace detail

}  // namespace posenc::inline v0
