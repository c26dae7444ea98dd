// SPDX-License-Identifier: MIT

// Rotates buffers of other libraries where they lie, without a copy: a tensor [B, T, H, D], as flash-attention and ggml
// have it, and the same numbers as [B, H, T, D], as PyTorch's attention and MLX have it.

#include <iomanip>
#include <iostream>
#include <posenc/rope.hpp>
#include <posenc/views.hpp>
#include <vector>

int main() {
  const posenc::TensorShape shape{.num_batches = 2, .num_tokens = 3, .num_heads = 2, .head_dim = 4};
  const auto bthd = posenc::TensorLayout::bthd, bhtd = posenc::TensorLayout::bhtd;

  // Two plain buffers: nothing of Eigen, nothing of posenc.
  std::vector<float> tokens_first(2 * 3 * 2 * 4), heads_first(2 * 3 * 2 * 4);
  for (std::size_t i = 0; i < tokens_first.size(); ++i) tokens_first[i] = static_cast<float>(i) / 10;

  // A view of a head is an ordinary Eigen::Map, features x tokens, so Eigen can copy from one layout to the other.
  for (posenc::Index batch = 0; batch < shape.num_batches; ++batch)
    for (posenc::Index head = 0; head < shape.num_heads; ++head)
      posenc::head_view(heads_first.data(), shape, bhtd, batch, head) =
          posenc::head_view(tokens_first.data(), shape, bthd, batch, head);

  const posenc::Rope rope({.head_dim = 4});
  const auto positions = posenc::positions(shape.num_tokens);
  for (posenc::Index batch = 0; batch < shape.num_batches; ++batch) {
    // In [B, T, H, D] the heads of a token lie together: one call rotates them all.
    rope(posenc::all_heads_view(tokens_first.data(), shape, batch), positions);
    // In [B, H, T, D] every head is a matrix of its own.
    for (posenc::Index head = 0; head < shape.num_heads; ++head)
      rope(posenc::head_view(heads_first.data(), shape, bhtd, batch, head), positions);
  }

  bool same = true;
  for (posenc::Index batch = 0; batch < shape.num_batches; ++batch)
    for (posenc::Index head = 0; head < shape.num_heads; ++head)
      same &= posenc::head_view(tokens_first.data(), shape, bthd, batch, head)
                  .isApprox(posenc::head_view(heads_first.data(), shape, bhtd, batch, head), 1e-6f);

  std::cout << std::fixed << std::setprecision(3) << "batch 1, head 0, after the rotation (features x tokens):\n"
            << posenc::head_view(tokens_first.data(), shape, bthd, 1, 0) << "\n\n"
            << "the same in both layouts: " << (same ? "yes" : "no") << '\n';
}
