// SPDX-License-Identifier: MIT

// ALiBi takes from every score in proportion to the distance. Each head has a slope of its own, so that some look near
// and some look far.

#include <iomanip>
#include <iostream>
#include <posenc/alibi.hpp>
#include <posenc/masks.hpp>

int main() {
  const posenc::Alibi alibi(4);
  std::cout << std::fixed << std::setprecision(4) << "slopes of 4 heads: " << alibi.slopes().transpose() << "\n\n";

  // Six keys, of which the last two are the new tokens and also ask: positions 0 to 5, and 4 to 5.
  const auto keys = posenc::positions(6), queries = posenc::positions(2, 4);

  for (const posenc::Index head : {0, 1}) {
    posenc::Matrix<float> scores = posenc::Matrix<float>::Zero(6, 2);  // keys x queries: a column is a query
    alibi(scores, keys, queries, head);
    posenc::CausalMask()(scores, keys, queries);  // biases stack
    std::cout << "added in head " << head << ", a line for each key:\n" << scores << "\n\n";
  }
}
