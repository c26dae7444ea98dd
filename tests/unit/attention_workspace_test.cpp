// SPDX-License-Identifier: MIT

#include <posenc/alibi.hpp>
#include <posenc/attention_workspace.hpp>
#include <posenc/masks.hpp>
#include <posenc/streaming_attention.hpp>

#include <Eigen/Core>
#include <stdexcept>

#include "../streaming.hpp"

using namespace posenc;
using namespace streaming;
using support::message_of;
using support::same_bits;

TEST_CASE("A workspace takes at most 2 MiB for heads and values of up to 512 features", "[attention_workspace]") {
  Index most = 0, most_of_double = 0;
  for (Index dim = 1; dim <= 512; dim += dim < 70 ? 1 : 13)
    for (Index value_dim = 1; value_dim <= 512; value_dim += value_dim < 70 ? 1 : 13) {
      most = std::max(most, AttentionWorkspace<float>(dim, value_dim).num_bytes());
      most_of_double = std::max(most_of_double, AttentionWorkspace<double>(dim, value_dim).num_bytes());
    }
  for (const Index dim : {64, 80, 96, 128, 192, 256, 512}) {
    most = std::max(most, AttentionWorkspace<float>(dim, dim).num_bytes());
    most_of_double = std::max(most_of_double, AttentionWorkspace<double>(dim, dim).num_bytes());
  }
  CAPTURE(most, most_of_double);
  CHECK(most <= 2 << 20);
  CHECK(most_of_double <= 2 << 20);
}

TEST_CASE("A workspace knows what it was made for", "[attention_workspace]") {
  const AttentionWorkspace<float> workspace(64, 80);
  CHECK(workspace.head_dim() == 64);
  CHECK(workspace.value_dim() == 80);
  CHECK(workspace.block_queries() >= 1);
  CHECK(workspace.num_bytes() > 0);
  CHECK(message_of<std::invalid_argument>([] { AttentionWorkspace<float>(0, 8); }) ==
        "posenc::AttentionWorkspace: head_dim must be positive, got 0");
  CHECK(message_of<std::invalid_argument>([] { AttentionWorkspace<double>(8, -2); }) ==
        "posenc::AttentionWorkspace: value_dim must be positive, got -2");
}

TEST_CASE("A workspace carries nothing from one call to the next", "[attention_workspace]") {
  const auto attention = [](const Shape& shape, AttentionWorkspace<float>& workspace) {
    const Tokens<float> x(shape);
    Matrix<float> outputs(shape.value_dim, shape.num_queries);
    streaming_attend_into(outputs, x.q, x.k, x.v, behind_a_cache(shape.num_queries, shape.num_keys).options(),
                          workspace, Alibi(1), CausalMask{});
    return outputs;
  };
  const Shape small{5, 70, 20, 7}, large{130, 700, 20, 7};
  AttentionWorkspace<float> fresh(20, 7), used(20, 7);
  const Matrix<float> once = attention(small, fresh);
  Tokens<float> poison(large);
  poison.v.setConstant(std::numeric_limits<float>::quiet_NaN());
  poison.q.col(3).setConstant(std::numeric_limits<float>::infinity());
  Matrix<float> poisoned(7, 130);
  streaming_attend_into(poisoned, poison.q, poison.k, poison.v, from_zero(130, 700).options(), used, Alibi(1));
  CHECK(poisoned.hasNaN());
  CHECK(same_bits(attention(small, used), once));
  CHECK(same_bits(attention(large, used), attention(large, fresh)));
}
