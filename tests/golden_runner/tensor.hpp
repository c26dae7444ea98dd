// SPDX-License-Identifier: MIT
#pragma once

// An array of a golden file, and how it is seen as this library's matrices.
//
// The files are row-major, the last axis fastest. A token is a column here, and so a row-major [..., T, D] array *is* a
// column-major D x T matrix for each of its leading indices, byte for byte: everything below is a map, nothing a copy.

#include <Eigen/Core>
#include <algorithm>
#include <array>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <posenc/concepts.hpp>

namespace golden {

using posenc::Index;
using posenc::Matrix;
using posenc::Vector;

/// "[2, 3, 5, 4]"
std::string to_string(std::span<const Index> shape);

template <class T>
class Tensor {
 public:
  Tensor() = default;
  Tensor(std::vector<Index> shape, std::vector<T> data) : shape_(std::move(shape)), data_(std::move(data)) {}

  Index rank() const { return static_cast<Index>(shape_.size()); }
  const std::vector<Index>& shape() const { return shape_; }
  Index size() const { return static_cast<Index>(data_.size()); }
  Index size(Index axis) const { return shape_.at(static_cast<std::size_t>(axis)); }

  T* data() { return data_.data(); }
  const T* data() const { return data_.data(); }

  /// One entry, by all its indices.
  template <class... Indices>
  const T& operator()(Indices... indices) const {
    return data_[static_cast<std::size_t>(offset<sizeof...(Indices)>({static_cast<Index>(indices)...}))];
  }

  /// The last axis down a column, all others one column behind the other: [B, T, D] is D x (B*T), [D] is D x 1.
  Eigen::Map<Matrix<T>> matrix() { return {data_.data(), column_size(), num_columns()}; }
  Eigen::Map<const Matrix<T>> matrix() const { return {data_.data(), column_size(), num_columns()}; }

  /// The last two axes at the given leading indices, [..., T, D] as D x T.
  template <class... Leading>
  Eigen::Map<Matrix<T>> at(Leading... leading) {
    return {data_.data() + matrix_offset<sizeof...(Leading)>({static_cast<Index>(leading)...}), size(rank() - 1),
            size(rank() - 2)};
  }
  template <class... Leading>
  Eigen::Map<const Matrix<T>> at(Leading... leading) const {
    return {data_.data() + matrix_offset<sizeof...(Leading)>({static_cast<Index>(leading)...}), size(rank() - 1),
            size(rank() - 2)};
  }

  /// The last axis at the given leading indices, as a span: a row of position ids, for instance.
  template <class... Leading>
  std::span<const T> row(Leading... leading) const {
    require_rank(static_cast<Index>(sizeof...(Leading)) + 1);
    const Index begin = offset<sizeof...(Leading) + 1>({static_cast<Index>(leading)..., Index{0}});
    return {data_.data() + begin, static_cast<std::size_t>(size(rank() - 1))};
  }

 private:
  void require_rank(Index expected) const {
    if (rank() != expected)
      throw std::invalid_argument("an array of rank " + std::to_string(expected) + " is expected, the shape is " +
                                  to_string(shape_));
  }

  template <std::size_t count>
  Index offset(const std::array<Index, count>& indices) const {
    require_rank(static_cast<Index>(count));
    Index flat = 0;
    for (std::size_t axis = 0; axis < count; ++axis) {
      if (indices[axis] < 0 || (indices[axis] >= shape_[axis] && shape_[axis] != 0))
        throw std::out_of_range("index " + std::to_string(indices[axis]) + " is outside shape " + to_string(shape_));
      flat = flat * shape_[axis] + indices[axis];
    }
    return flat;
  }

  template <std::size_t count>
  Index matrix_offset(const std::array<Index, count>& leading) const {
    std::array<Index, count + 2> indices{};
    std::copy(leading.begin(), leading.end(), indices.begin());
    return offset(indices);
  }

  Index column_size() const { return shape_.empty() ? 1 : shape_.back(); }
  Index num_columns() const { return column_size() == 0 ? 0 : size() / column_size(); }

  std::vector<Index> shape_;
  std::vector<T> data_;
};

}  // namespace golden
