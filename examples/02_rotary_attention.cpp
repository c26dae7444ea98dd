// SPDX-License-Identifier: MIT

// Attention with rotary positions. What a token sees depends on how far away the others are and not on where the text
// stands: moved by a million positions, the attention is the same.

#include <iomanip>
#include <iostream>
#include <posenc/attention.hpp>
#include <posenc/masks.hpp>
#include <posenc/rope.hpp>

int main() {
  // One head of 8 features. Every token asks and offers the same, so only positions make a difference.
  const posenc::Index head_dim = 8, num_tokens = 5;
  const posenc::Matrix<float> q = posenc::Matrix<float>::Ones(head_dim, num_tokens);
  const posenc::Matrix<float> k = q;
  const posenc::Matrix<float> v = posenc::Matrix<float>::Identity(num_tokens, num_tokens);  // outputs are the weights

  const posenc::Rope rope({.head_dim = head_dim});
  const posenc::CausalMask causal;

  const auto here = posenc::positions(num_tokens), far_away = posenc::positions(num_tokens, 1'000'000);
  const posenc::Matrix<float> attention = posenc::attend(q, k, v, here, rope, causal);
  const posenc::Matrix<float> moved = posenc::attend(q, k, v, far_away, rope, causal);

  std::cout << std::fixed << std::setprecision(3);
  std::cout << "a column is a query, and says how much it attends to each token:\n" << attention << "\n\n";
  std::cout << "the same a million positions later: " << (moved.isApprox(attention, 1e-5f) ? "yes" : "no") << '\n';
}
