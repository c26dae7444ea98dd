// SPDX-License-Identifier: MIT

// Text that is generated token by token. A key is rotated once, at its own position, and stays in the cache; the new
// query attends to all of it. The result is that of the whole text at once.

#include <cmath>
#include <iostream>
#include <posenc/attention.hpp>
#include <posenc/masks.hpp>
#include <posenc/rope.hpp>

int main() {
  const posenc::Index head_dim = 8, num_tokens = 6;
  const auto some_numbers = [&](float seed) -> posenc::Matrix<float> {
    return posenc::Matrix<float>::NullaryExpr(head_dim, num_tokens, [=](posenc::Index i, posenc::Index t) {
      return std::sin(seed * float(1 + 3 * i + 7 * t));
    });
  };
  const auto q = some_numbers(1), k = some_numbers(2), v = some_numbers(3);
  const posenc::Rope rope({.head_dim = head_dim});

  posenc::Matrix<float> key_cache(head_dim, num_tokens), value_cache(head_dim, num_tokens);  // room for the whole text
  posenc::Matrix<float> outputs(head_dim, num_tokens);
  for (posenc::Index t = 0; t < num_tokens; ++t) {
    const auto position = posenc::positions(1, t);  // one token, at position t

    key_cache.col(t) = k.col(t);
    value_cache.col(t) = v.col(t);
    rope.apply_key(key_cache.col(t), position);

    posenc::Matrix<float> query = q.col(t);
    rope.apply_query(query, position);

    // Queries and keys are rotated already, and no later token is in the cache: no encoding and no mask is left to
    // give.
    outputs.col(t) = posenc::attend(query, key_cache.leftCols(t + 1), value_cache.leftCols(t + 1),
                                    {.query_positions = position, .key_positions = posenc::positions(t + 1)});
    std::cout << "token " << t << ": keys in the cache: " << t + 1 << '\n';
  }

  const posenc::Matrix<float> whole =
      posenc::attend(q, k, v, posenc::positions(num_tokens), rope, posenc::CausalMask{});
  std::cout << "the same as the whole text at once: " << (outputs.isApprox(whole, 1e-5f) ? "yes" : "no") << '\n';
}
