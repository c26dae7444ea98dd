// SPDX-License-Identifier: MIT
#pragma once

#include <Eigen/Core>
#include <algorithm>
#include <atomic>
#include <cmath>
#include <span>
#include <type_traits>

#include <posenc/concepts.hpp>
#include <posenc/detail/check.hpp>
#include <posenc/streaming_attention.hpp>

namespace posenc::inline v0 {

/// Where all heads of an attention are, and what else it needs to know.
struct HeadsOptions {
  Positions query_positions;  ///< Tq entries
  Positions key_positions;    ///< Tk entries
  Index num_heads = 0;
  Index num_kv_heads = 0;     ///< each serves num_heads / num_kv_heads query heads; 0: num_heads
  double scale = 0;           ///< see AttentionOptions; 0: 1 / sqrt(D)
  double soft_cap = 0;        ///< see AttentionOptions; 0: none
  Vector<double> sinks = {};  ///< one a query head, or none
};

/// Runs tasks one after the other on the calling thread: the default of what takes a parallel-for.
///
/// A parallel-for is anything that is called with a number of tasks and a body, calls body(task, worker) once for every
/// task below that number, on any thread, and returns when all are done. Two tasks that run at the same time must have
/// different workers; a worker is below the number of workspaces.
struct OnCallingThread {
  template <class Body>
  void operator()(Index num_tasks, Body body) const {
    for (Index task = 0; task < num_tasks; ++task) body(task, Index{0});
  }
};

/// Streaming attention of all heads, in tasks of a head and a block of queries that any threads may run.
///
///   std::vector<AttentionWorkspace<float>> workspaces(num_threads, AttentionWorkspace<float>(D, Dv));
///   streaming_attend_heads_into(o, q, k, v, {.query_positions = p, .key_positions = p, .num_heads = 8, .num_kv_heads = 2},
///                               workspaces, my_parallel_for, alibi, CausalMask{});
///
/// \param outputs (H * Dv) x Tq, written in place.
/// \param q       (H * D) x Tq   \param k  (num_kv_heads * D) x Tk   \param v  (num_kv_heads * Dv) x Tk
/// \param parallel_for see OnCallingThread; examples/07_threads.cpp has two.
/// \returns how many tiles were computed and skipped.
/// \throws  std::invalid_argument if shapes or options do not fit, and what an encoding throws at the outermost positions;
///          nothing is written then.
/// The rest is as for streaming_attend_into; the results do not depend on the threads.
template <MutableDense Outputs, DenseExpression Queries, DenseExpression Keys, DenseExpression Values, class Workspaces,
          class ParallelFor, class... Encodings>
StreamCount streaming_attend_heads_into(Outputs&& outputs, const Queries& q, const Keys& k, const Values& v,
                                        const HeadsOptions& options, Workspaces& workspaces,
                                        const ParallelFor& parallel_for, const Encodings&... encodings) {
  const Index num_heads = options.num_heads;
  const Index num_kv_heads = options.num_kv_heads == 0 ? num_heads : options.num_kv_heads;
  detail::require(num_heads > 0, "posenc::streaming_attend_heads: num_heads must be positive", num_heads);
  detail::require(num_kv_heads > 0 && num_heads % num_kv_heads == 0,
                  "posenc::streaming_attend_heads: num_kv_heads must divide num_heads", num_kv_heads);
  detail::require(q.rows() % num_heads == 0 && q.rows() > 0,
                  "posenc::streaming_attend_heads: rows of the queries must be a multiple of num_heads", q.rows());
  detail::require(v.rows() % num_kv_heads == 0 && v.rows() > 0,
                  "posenc::streaming_attend_heads: rows of the values must be a multiple of num_kv_heads", v.rows());
  const Index dim = q.rows() / num_heads, value_dim = v.rows() / num_kv_heads;
  detail::require_size(k.rows(), dim * num_kv_heads,
                       "posenc::streaming_attend_heads: rows of the keys must be num_kv_heads * head_dim");
  detail::require_size(outputs.rows(), value_dim * num_heads,
                       "posenc::streaming_attend_heads: rows of the outputs must be num_heads * value_dim");
  detail::require_size(outputs.cols(), q.cols(),
                       "posenc::streaming_attend_heads: columns of the outputs must be those of the queries");
  if (options.sinks.size() != 0)
    detail::require_size(options.sinks.size(), num_heads,
                         "posenc::streaming_attend_heads: the number of sinks must be num_heads");
  detail::require(std::size(workspaces) > 0, "posenc::streaming_attend_heads: there must be at least one workspace",
                  std::size(workspaces));

  const auto of_head = [&](Index head) {
    return AttentionOptions{
        .query_positions = options.query_positions,
        .key_positions = options.key_positions,
        .scale = options.scale,
        .soft_cap = options.soft_cap,
        .sink = options.sinks.size() == 0 ? AttentionOptions{}.sink : options.sinks[head],
        .head = head,
        .kv_head = head / (num_heads / num_kv_heads),
    };
  };
  for (Index head = 0; head < num_heads; ++head) {
    [[maybe_unused]] const AttentionOptions one = of_head(head);
    for (const auto& workspace : workspaces)
      detail::require_streaming<std::remove_cvref_t<decltype(workspace)>, Encodings...>(
          q.middleRows(head * dim, dim), k.middleRows(one.kv_head * dim, dim),
          v.middleRows(one.kv_head * value_dim, value_dim), one, workspace);
  }
  for (Index head = 0; head < num_heads && q.cols() > 0; ++head) {
    using Scalar = typename std::remove_cvref_t<decltype(workspaces[0])>::Scalar;
    [[maybe_unused]] const AttentionOptions one = of_head(head);
    (detail::AttentionTrial<Scalar>(workspaces[0], one)(encodings), ...);
  }

  // As large as a workspace holds, which is the fastest, but for few heads not so large that there are too few tasks.
  const Index most = workspaces[0].block_queries();
  const Index block = std::clamp(q.cols() * num_heads / 8 / 64 * 64, std::min<Index>(most, 256), most);
  const Index num_blocks = (q.cols() + block - 1) / block;
  std::atomic<Index> tiles = 0, skipped = 0;
  parallel_for(num_heads * num_blocks, [&](Index task, Index worker) {
    const Index head = task % num_heads;
    const Index first = (num_blocks - 1 - task / num_heads) * block;  // the longest of a causal attention first
    const Index size = std::min(block, q.cols() - first);
    AttentionOptions one = of_head(head);
    one.query_positions = options.query_positions.segment(first, size);
    const StreamCount count = streaming_attend_into(
        outputs.block(head * value_dim, first, value_dim, size), q.block(head * dim, first, dim, size),
        k.middleRows(one.kv_head * dim, dim), v.middleRows(one.kv_head * value_dim, value_dim), one,
        workspaces[static_cast<std::size_t>(worker)], encodings...);
    tiles += count.tiles;
    skipped += count.skipped;
  });
  return {tiles, skipped};
}

}  // namespace posenc::inline v0
