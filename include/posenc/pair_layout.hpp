// SPDX-License-Identifier: MIT
#pragma once

#include <Eigen/Core>
#include <array>
#include <type_traits>

#include <posenc/concepts.hpp>
#include <posenc/detail/check.hpp>
#include <posenc/detail/rotate.hpp>

namespace posenc::inline v0 {

/// Which two features are a pair. A head of 8 features, 4 of which rotate; the same letter marks a pair, '.' is left:
///
///   interleaved   [aabb....]   (0, 1) (2, 3) ...            Llama's own code, GPT-J, complex numbers; ggml NORMAL
///   half_split    [abab....]   (0, r/2) (1, r/2 + 1) ...    GPT-NeoX, Hugging Face Llama (rotate_half); ggml NEOX
///
/// r is the number of features that rotate. A checkpoint is trained with one of them, and the other gives noise.
enum class PairLayout { interleaved, half_split };

/// Which features of a head are rotary.
struct RotaryFeatures {
  Index head_dim = 0;
  Index rotary_dim = 0;     ///< how many; 0: all from rotary_offset on
  Index rotary_offset = 0;  ///< the first of them
};

namespace detail {

/// The largest rotary_dim whose features can be reordered: a column of them is kept on the stack meanwhile.
inline constexpr Index max_reordered_features = 1024;

/// rotary_dim spelled out, after the checks that all users of these three numbers share.
inline Index checked_rotary_dim(const RotaryFeatures& features) {
  const Index rest = features.head_dim - features.rotary_offset;
  require(features.head_dim > 0, "posenc::Rope: head_dim must be positive", features.head_dim);
  require(features.rotary_dim >= 0, "posenc::Rope: rotary_dim must not be negative", features.rotary_dim);
  require(features.rotary_dim % 2 == 0, "posenc::Rope: rotary_dim must be even", features.rotary_dim);
  require(features.rotary_offset >= 0, "posenc::Rope: rotary_offset must not be negative", features.rotary_offset);
  require(features.rotary_offset < features.head_dim, "posenc::Rope: rotary_offset must be below head_dim",
          features.rotary_offset);
  require(features.rotary_dim <= rest, "posenc::Rope: rotary_dim must be at most head_dim - rotary_offset",
          features.rotary_dim);
  if (features.rotary_dim != 0) return features.rotary_dim;
  require(rest % 2 == 0, "posenc::Rope: head_dim must be even", features.head_dim);
  return rest;
}

inline HeadLayout head_layout(const RotaryFeatures& features, PairLayout layout) {
  const Index num_pairs = checked_rotary_dim(features) / 2;
  const bool interleaved = layout == PairLayout::interleaved;
  return {.head_dim = features.head_dim,
          .first = features.rotary_offset,
          .num_pairs = num_pairs,
          .pair_step = interleaved ? 2 : 1,
          .partner = interleaved ? 1 : num_pairs};
}

/// Reorders the rotary features of every head of every column.
template <class X>
void reorder(X& x, const HeadLayout& from, const HeadLayout& to) {
  using Scalar = typename X::Scalar;
  std::array<Scalar, max_reordered_features> features;
  for (Index column = 0; column < x.cols(); ++column)
    for (Index head = 0; head < x.rows(); head += from.head_dim) {
      for (Index i = 0; i < from.num_pairs; ++i) {
        features[static_cast<std::size_t>(2 * i)] = x.coeff(head + from.feature(i), column);
        features[static_cast<std::size_t>(2 * i + 1)] = x.coeff(head + from.feature(i) + from.partner, column);
      }
      for (Index i = 0; i < to.num_pairs; ++i) {
        x.coeffRef(head + to.feature(i), column) = features[static_cast<std::size_t>(2 * i)];
        x.coeffRef(head + to.feature(i) + to.partner, column) = features[static_cast<std::size_t>(2 * i + 1)];
      }
    }
}

}  // namespace detail

/// Moves the rotary features of every head from one pair layout to the other, in place.
///
///   interleaved [a a b b . .]  ->  half_split [a b a b . .]
///
/// The inverse is the call with from and to exchanged.
///
/// What is to be reordered so that a model trained with one layout runs with the other: the *rows* of W_q and W_k
/// (num_heads and num_kv_heads heads of them), their biases, the weights of a normalisation of q and k, and keys in a
/// cache. Not W_v and not W_o.
///
///   change_pair_layout(w_q, {.head_dim = 128}, PairLayout::interleaved, PairLayout::half_split);   // (H * 128) x in
///   change_pair_layout(b_q, {.head_dim = 128}, PairLayout::interleaved, PairLayout::half_split);   // (H * 128) x 1
///
/// \param x  rows: any number of heads, one below the other; columns: anything. Any scalar, storage order and stride.
/// \throws std::invalid_argument if the features are not those of a Rope, the rows not whole heads, or more than 1024
///         features of a head rotate; x is then unchanged.
template <MutableDense X>
void change_pair_layout(X&& x, const RotaryFeatures& features, PairLayout from, PairLayout to) {
  const detail::HeadLayout source = detail::head_layout(features, from);
  detail::require(2 * source.num_pairs <= detail::max_reordered_features,
                  "posenc::change_pair_layout: rotary_dim must be at most 1024", 2 * source.num_pairs);
  detail::require_heads(x.rows(), features.head_dim, "posenc::change_pair_layout");
  detail::reorder(x, source, detail::head_layout(features, to));
}

}  // namespace posenc::inline v0
