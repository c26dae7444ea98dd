// SPDX-License-Identifier: MIT

// The umbrella header: everything that a user finds in the folder is found through it. No other header is included.

#include <posenc/posenc.hpp>

#include "../catch.hpp"

TEST_CASE("posenc.hpp brings every encoding and what they plug into", "[posenc]") {
  const posenc::Index dim = 8, tokens = 5;
  const posenc::Positions at = posenc::positions(tokens);
  posenc::Matrix<float> x = posenc::Matrix<float>::Random(dim, tokens);

  posenc::Sinusoidal({.dim = dim})(x, at);
  posenc::LearnedAbsolute<float>::normal({.dim = dim, .num_positions = tokens})(x, at);
  const posenc::Rope rope({.head_dim = dim});
  const posenc::RopeTable<float> table(rope, tokens);
  const posenc::ClippedRelative<float> relative(posenc::Matrix<float>::Random(dim, 3), {});

  const auto y = posenc::attend(x, x, x, at, table, relative, posenc::Alibi(1), posenc::CausalMask{},
                                posenc::SlidingWindow({.left = 2}), posenc::PaddingMask(std::vector<int>(5, 1)),
                                posenc::DocumentMask(std::vector<std::int64_t>(5, 0)));
  CHECK(y.rows() == dim);
  CHECK(y.cols() == tokens);
  CHECK(y.allFinite());
  CHECK(posenc::bias_matrix(posenc::CausalMask{}, at, at).rows() == tokens);
  CHECK(posenc::tokens(x.data(), {.num_features = dim, .num_tokens = tokens}) == x);
  CHECK(posenc::rope_frequencies(dim).size() == dim / 2);

  const auto square = [] { return posenc::Matrix<float>(posenc::Matrix<float>::Random(8, 8)); };
  const posenc::MultiHeadAttention layer(posenc::ProjectionWeights<float>{square(), square(), square(), square()},
                                         {.num_heads = 2}, posenc::Alibi(2));
  CHECK(layer(x, at).allFinite());
  CHECK(POSENC_VERSION_MAJOR >= 0);
}
