// SPDX-License-Identifier: MIT
#pragma once

// What ours and a peer both work on: the buffers, and our side of it. A peer derives from these and adds plain().

#include <posenc/alibi.hpp>
#include <posenc/masks.hpp>
#include <posenc/rope.hpp>
#include <posenc/rope_table.hpp>
#include <posenc/streaming_attention.hpp>

#include <string>

#include "bench.hpp"

namespace bench {

using posenc::PairLayout;

/// RoPE in place on [T, H, D], from the same table or frequencies. Positions begin at 0, as those of a peer do.
template <PairLayout layout>
struct PeerRope {
  using Limit = Scale;

  PeerRope(Index num_heads, Index head_dim, Index num_tokens)
      : x(random_matrix<float>(num_heads * head_dim, num_tokens)),
        heads(num_heads),
        table(posenc::Rope({.head_dim = head_dim, .layout = layout}), num_tokens + 1) {}

  Index head_dim() const { return table.head_dim(); }
  /// One token is not at position 0, where nothing turns.
  Index first_position() const { return x.cols() == 1 ? 1 : 0; }

  void ours() { table(x, posenc::positions(x.cols(), first_position())); }
  auto& result() { return x; }
  Work work() { return {.tokens = x.cols(), .bytes = 2 * bytes_of(x)}; }

  Matrix<float> x;
  Index heads;
  posenc::RopeTable<float> table;
};

enum class PeerBias { none, alibi };

/// Causal attention of 8 heads, each of which lies together: [H, T, D], as peers like it best.
template <PeerBias bias>
struct PeerAttention {
  static constexpr Index num_heads = 8;
  static constexpr double tolerance = 2e-5;

  PeerAttention(Index head_dim, Index num_tokens)
      : q(random_matrix<float>(head_dim, num_heads * num_tokens, 1)),
        k(random_matrix<float>(head_dim, num_heads * num_tokens, 2)),
        v(random_matrix<float>(head_dim, num_heads * num_tokens, 3)),
        o(Matrix<float>::Zero(head_dim, num_heads * num_tokens)),
        workspace(head_dim, head_dim) {}

  Index head_dim() const { return q.rows(); }
  Index num_tokens() const { return q.cols() / num_heads; }

  void ours() {
    const auto at = posenc::positions(num_tokens());
    for (Index h = 0; h < num_heads; ++h) {
      const auto head = [&](auto& x) { return x.middleCols(h * num_tokens(), num_tokens()); };
      const posenc::AttentionOptions options{.query_positions = at, .key_positions = at, .head = h};
      if constexpr (bias == PeerBias::alibi)
        posenc::streaming_attend_into(head(o), head(q), head(k), head(v), options, workspace, alibi,
                                      posenc::CausalMask{});
      else
        posenc::streaming_attend_into(head(o), head(q), head(k), head(v), options, workspace, posenc::CausalMask{});
    }
  }
  auto& result() { return o; }
  /// Flop of the pairs that a query sees.
  Work work() { return {.tokens = num_tokens(), .bytes = 4 * bytes_of(q), .flops = 2 * q.size() * (num_tokens() + 1)}; }

  Matrix<float> q, k, v, o;
  posenc::AttentionWorkspace<float> workspace;
  posenc::Alibi alibi{num_heads};
};

using RopeShapes = std::vector<std::array<Index, 3>>;

/// The benchmarks of a peer, given its cases.
template <template <PairLayout> class Rope, template <PeerBias> class Attention>
void add_peer(const std::string& name) {
  const RopeShapes shapes = {{32, 128, 1}, {8, 64, 512}, {32, 128, 4096}};
  bench::add<Rope<PairLayout::interleaved>>(name + "/rope_interleaved", {"H", "D", "T"}, shapes);
  bench::add<Rope<PairLayout::half_split>>(name + "/rope_half_split", {"H", "D", "T"}, shapes);
  bench::add<Attention<PeerBias::none>>(name + "/attention_causal", {"D", "T"}, {{64, 1024}, {64, 2048}, {64, 4096}});
  bench::add<Attention<PeerBias::alibi>>(name + "/attention_alibi", {"D", "T"}, {{64, 1024}, {64, 2048}, {64, 4096}});
}

}  // namespace bench
