// SPDX-License-Identifier: MIT
#pragma once

// Buffers of other libraries as Eigen maps, without a copy. A row-major [T, D] buffer of PyTorch, ggml, MLX or NumPy
// *is* a column-major D x T matrix, byte for byte.
//
// Strides are counted in elements, as PyTorch counts them; ggml and NumPy count bytes. Take strides from the tensor and
// not from its shape: a transposed PyTorch tensor has another shape and the same memory.

#include <Eigen/Core>
#include <type_traits>

#include <posenc/concepts.hpp>
#include <posenc/detail/check.hpp>

namespace posenc::inline v0 {

/// A writable (or, for a const pointer, readable) view of a foreign buffer: features x tokens, a token a column.
/// It promises no alignment, since a head may begin anywhere.
template <class Scalar>
using TokenMap =
    Eigen::Map<std::conditional_t<std::is_const_v<Scalar>, const Matrix<std::remove_const_t<Scalar>>, Matrix<Scalar>>,
               Eigen::Unaligned, Eigen::OuterStride<>>;

struct TokensShape {
  Index num_features = 0;  ///< contiguous features of a token
  Index num_tokens = 0;
  Index token_stride = 0;  ///< elements from a token to the next; 0: num_features, tokens lie one behind the other
};

/// Tokens that lie `token_stride` elements apart: num_features x num_tokens.
///
///   tokens(p, {.num_features = D, .num_tokens = T})                                row-major [T, D]
///   tokens(p + h * D, {.num_features = D, .num_tokens = T, .token_stride = H * D})  head h of [T, H, D]
///
/// \throws std::invalid_argument if a size is negative, or tokens would overlap.
template <class Scalar>
TokenMap<Scalar> tokens(Scalar* data, const TokensShape& shape) {
  const Index stride = shape.token_stride == 0 ? shape.num_features : shape.token_stride;
  detail::require(shape.num_features >= 0, "posenc::tokens: num_features must not be negative", shape.num_features);
  detail::require(shape.num_tokens >= 0, "posenc::tokens: num_tokens must not be negative", shape.num_tokens);
  detail::require(stride >= shape.num_features, "posenc::tokens: token_stride must be at least num_features", stride);
  return {data, shape.num_features, shape.num_tokens, Eigen::OuterStride<>(stride)};
}

/// How a contiguous tensor of batches, tokens, heads and features lies in memory, slowest dimension first.
///
///   bthd   [B, T, H, D]   flash-attention, ggml, llama2.c: the heads of a token lie together
///   bhtd   [B, H, T, D]   PyTorch's attention, Hugging Face after its transpose, MLX
enum class TensorLayout { bthd, bhtd };

struct TensorShape {
  Index num_batches = 1;
  Index num_tokens = 0;
  Index num_heads = 0;
  Index head_dim = 0;
};

namespace detail {

inline void require_shape(const TensorShape& shape) {
  require(shape.num_batches >= 0, "posenc::TensorShape: num_batches must not be negative", shape.num_batches);
  require(shape.num_tokens >= 0, "posenc::TensorShape: num_tokens must not be negative", shape.num_tokens);
  require(shape.num_heads >= 0, "posenc::TensorShape: num_heads must not be negative", shape.num_heads);
  require(shape.head_dim >= 0, "posenc::TensorShape: head_dim must not be negative", shape.head_dim);
}

}  // namespace detail

/// One head of one batch: head_dim x num_tokens.
/// \throws std::invalid_argument for a negative size, std::out_of_range for a batch or head that is not there.
template <class Scalar>
TokenMap<Scalar> head_view(Scalar* data, const TensorShape& shape, TensorLayout layout, Index batch, Index head) {
  detail::require_shape(shape);
  detail::require_in_range(batch >= 0 && batch < shape.num_batches, "posenc::head_view: batch must be in the tensor",
                           batch);
  detail::require_in_range(head >= 0 && head < shape.num_heads, "posenc::head_view: head must be in the tensor", head);
  const Index d = shape.head_dim, t = shape.num_tokens, h = shape.num_heads;
  Scalar* const of_batch = data + batch * t * h * d;
  if (layout == TensorLayout::bthd)
    return tokens(of_batch + head * d, {.num_features = d, .num_tokens = t, .token_stride = h * d});
  return tokens(of_batch + head * t * d, {.num_features = d, .num_tokens = t});
}

/// All heads of one batch of a [B, T, H, D] tensor, one below the other: (num_heads * head_dim) x num_tokens.
/// \throws std::invalid_argument for a negative size, std::out_of_range for a batch that is not there.
template <class Scalar>
TokenMap<Scalar> all_heads_view(Scalar* data, const TensorShape& shape, Index batch) {
  detail::require_shape(shape);
  detail::require_in_range(batch >= 0 && batch < shape.num_batches,
                           "posenc::all_heads_view: batch must be in the tensor", batch);
  const Index features = shape.num_heads * shape.head_dim;
  return tokens(data + batch * shape.num_tokens * features, {.num_features = features, .num_tokens = shape.num_tokens});
}

}  // namespace posenc::inline v0
