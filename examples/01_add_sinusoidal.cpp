// SPDX-License-Identifier: MIT

// Tells a model where each word stands, by adding waves to the embeddings: "no, no, no" becomes three different
// columns.

#include <iomanip>
#include <iostream>
#include <posenc/sinusoidal.hpp>

int main() {
  // A column is a token. The same word three times: 6 features, 3 tokens.
  posenc::Matrix<float> x = posenc::Matrix<float>::Constant(6, 3, 0.5f);

  const posenc::Sinusoidal sinusoidal({.dim = 6});
  sinusoidal(x, posenc::positions(3));  // positions 0, 1, 2

  std::cout << std::fixed << std::setprecision(3);
  std::cout << "the same word at positions 0, 1 and 2:\n" << x << "\n\n";

  // Nothing is tabulated, so any position will do. Here the text goes on a million words later.
  posenc::Matrix<float> later = posenc::Matrix<float>::Constant(6, 2, 0.5f);
  sinusoidal(later, posenc::positions(2, 1'000'000));
  std::cout << "and at positions 1000000 and 1000001:\n" << later << '\n';
}
