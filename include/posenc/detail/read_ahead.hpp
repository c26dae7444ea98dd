// SPDX-License-Identifier: MIT
#pragma once

#include <Eigen/Core>
#include <algorithm>
#include <array>
#include <cstddef>
#include <type_traits>

namespace posenc::inline v0::detail {

using Eigen::Index;

/// Asks for the line of an address: 3 for the first cache, 2 for the second.
template <int locality>
void prefetch_line([[maybe_unused]] const void* from) {
#if defined(__GNUC__)
  __builtin_prefetch(from, 0, locality);
#endif
}

/// Asks for the beginning of some bytes that are used soon: what follows, the machine foresees by itself.
inline void prefetch(const void* from, Index bytes) {
  for (Index i = 0; i < bytes && i < 512; i += 64) prefetch_line<3>(static_cast<const char*>(from) + i);
}

/// Columns of a matrix in memory, in bytes; none of an expression or of columns that are not contiguous.
struct ColumnBytes {
  const char* data = nullptr;
  Index step = 0, size = 0;
};
template <class X>
ColumnBytes column_bytes(const X& x) {
  if constexpr (!X::IsRowMajor && static_cast<bool>(X::Flags & Eigen::DirectAccessBit))
    if (x.innerStride() == 1) {
      constexpr auto bytes = static_cast<Index>(sizeof(typename X::Scalar));
      return {reinterpret_cast<const char*>(x.data()), x.outerStride() * bytes, x.rows() * bytes};
    }
  return {};
}

/// Columns that can be written where they are; nothing for those that cannot.
template <class Scalar>
struct OutputColumns {
  Scalar* data = nullptr;
  Index step = 0, size = 0;
};
template <class Scalar, class X>
OutputColumns<Scalar> output_columns(X& x) {
  if constexpr (!X::IsRowMajor && static_cast<bool>(X::Flags & Eigen::DirectAccessBit) &&
                std::is_same_v<typename X::Scalar, Scalar>)
    if (x.innerStride() == 1) return {x.data(), x.outerStride(), x.rows()};
  return {};
}
template <class Scalar>
ColumnBytes column_bytes(const OutputColumns<Scalar>& x) {
  constexpr auto bytes = static_cast<Index>(sizeof(Scalar));
  return {reinterpret_cast<const char*>(x.data), x.step * bytes, x.size * bytes};
}

/// Columns that will be read or written soon, brought into the second cache a few lines at a time while something else is
/// computed: heads of one matrix are short columns far from each other, which no machine foresees by itself.
class ReadAhead {
 public:
  /// To be done within so many calls of some().
  void add(const ColumnBytes& columns, Index first, Index size, Index num_calls) {
    if (columns.data == nullptr || size <= 0) return;
    if (begin_ == end_) begin_ = end_ = 0, num_lines_ = lines_a_call_ = 0;
    if (end_ == regions_.size()) return;
    regions_[end_++] = {{columns.data + first * columns.step, columns.step, columns.size}, size};
    num_lines_ += size * ((columns.size + line - 1) / line);
    lines_a_call_ = std::clamp<Index>(num_lines_ / std::max<Index>(num_calls, 1) + 1, lines_a_call_, 24);
  }

  void some() {
    for (Index lines = lines_a_call_; lines > 0 && begin_ < end_;) {
      auto& [columns, size] = regions_[begin_];
      for (Index i = 0; i < columns.size; i += line, --lines, --num_lines_) prefetch_line<2>(columns.data + i);
      columns.data += columns.step;
      if (--size == 0) ++begin_;
    }
  }

 private:
  static constexpr Index line = 64;
  struct Region {
    ColumnBytes columns;
    Index size;
  };
  std::array<Region, 8> regions_;
  std::size_t begin_ = 0, end_ = 0;
  Index num_lines_ = 0, lines_a_call_ = 0;
};

}  // namespace posenc::inline v0::detail
