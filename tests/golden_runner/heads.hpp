// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>

#include <posenc/positions.hpp>
#include <posenc/views.hpp>

#include "golden.hpp"

namespace golden {

/// An array of heads, [batch, heads, seq, dim] or [batch, seq, heads, dim]: each head of it is a D x T view.
class Heads {
 public:
  Heads(Tensor<float> tensor, posenc::TensorLayout layout) : tensor_(std::move(tensor)), layout_(layout) {
    if (tensor_.rank() != 4) throw UnknownKind("heads of shape " + to_string(tensor_.shape()));
    const bool heads_first = layout == posenc::TensorLayout::bhtd;
    shape_ = {.num_batches = tensor_.size(0),
              .num_tokens = tensor_.size(heads_first ? 2 : 1),
              .num_heads = tensor_.size(heads_first ? 1 : 2),
              .head_dim = tensor_.size(3)};
  }

  Index num_batches() const { return shape_.num_batches; }
  Index num_tokens() const { return shape_.num_tokens; }
  Index num_heads() const { return shape_.num_heads; }
  Index head_dim() const { return shape_.head_dim; }

  posenc::TokenMap<float> operator()(Index batch, Index head) {
    return posenc::head_view(tensor_.data(), shape_, layout_, batch, head);
  }
  posenc::TokenMap<const float> operator()(Index batch, Index head) const {
    return posenc::head_view(tensor_.data(), shape_, layout_, batch, head);
  }

  /// All heads of a batch, one below the other: (H*D) x T.
  Matrix<float> together(Index batch) const {
    Matrix<float> all(num_heads() * head_dim(), num_tokens());
    for (Index head = 0; head < num_heads(); ++head)
      all.middleRows(head * head_dim(), head_dim()) = (*this)(batch, head);
    return all;
  }

 private:
  Tensor<float> tensor_;
  posenc::TensorLayout layout_;
  posenc::TensorShape shape_;
};

/// The order of axes that a parameter names; without it [batch, heads, seq, dim].
inline posenc::TensorLayout axes(Case& c, const std::string& parameter = "axes") {
  if (!c.has(parameter)) return posenc::TensorLayout::bhtd;
  const auto order = c.get<std::string>(parameter);
  if (order == "b s h d") return posenc::TensorLayout::bthd;
  if (order == "b h s d") return posenc::TensorLayout::bhtd;
  throw UnknownKind("axes in the order " + order);
}

inline Heads heads(Case& c, const std::string& array, posenc::TensorLayout layout = posenc::TensorLayout::bhtd) {
  return {c.array<float>(array), layout};
}

}  // namespace golden
