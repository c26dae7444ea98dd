// SPDX-License-Identifier: MIT
#pragma once

#include <Eigen/Core>
#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstddef>
#include <optional>
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
/// A few queries, those of a step of decoding, are computed side by side, all heads of a task together: keys and values are
/// then read once for all heads that share them, and in the order of memory. There are as many tasks as workspaces.
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
  using Scalar = typename std::remove_cvref_t<decltype(workspaces[0])>::Scalar;
  for (Index head = 0; head < num_heads && q.cols() > 0; ++head) {
    [[maybe_unused]] const AttentionOptions one = of_head(head);
    (detail::AttentionTrial<Scalar>(workspaces[0], one)(encodings), ...);
  }

  std::atomic<Index> tiles = 0, skipped = 0;
  const auto add = [&](const StreamCount& count) {
    tiles += count.tiles;
    skipped += count.skipped;
  };
  if (detail::are_few_queries<Scalar>(q.cols())) {
    // A task for every worker, unless that were too many for a workspace: all its heads and queries side by side.
    using Out = typename std::remove_cvref_t<Outputs>::Scalar;
    using Single = detail::SingleHead<Scalar, std::remove_cvref_t<decltype(q.block(0, 0, 0, 0))>,
                                      std::remove_cvref_t<decltype(k.middleRows(0, 0))>,
                                      std::remove_cvref_t<decltype(v.middleRows(0, 0))>, Encodings...>;
    const Index num_singles = num_heads * q.cols();
    const Index most = Single::Stream::most_side_by_side(workspaces[0]);
    const Index num_tasks =
        std::max((num_singles + most - 1) / most, std::min(static_cast<Index>(std::size(workspaces)), num_singles));
    parallel_for(num_tasks, [&](Index task, Index worker) {
      std::array<std::optional<Single>, Single::Stream::max_streams> singles;
      std::array<typename Single::Stream*, Single::Stream::max_streams> streams;
      const Index first = task * num_singles / num_tasks, last = (task + 1) * num_singles / num_tasks;
      for (Index i = first; i < last; ++i) {
        const Index head = i / q.cols(), query = i % q.cols();
        AttentionOptions one = of_head(head);
        one.query_positions = options.query_positions.segment(query, 1);
        auto& single = singles[static_cast<std::size_t>(i - first)];
        single.emplace(q.block(head * dim, query, dim, 1), k.middleRows(one.kv_head * dim, dim),
                       v.middleRows(one.kv_head * value_dim, value_dim), one,
                       workspaces[static_cast<std::size_t>(worker)], encodings...);
        streams[static_cast<std::size_t>(i - first)] = &single->stream;
        single->stream.begin(0, i - first);
      }
      add(Single::Stream::run_side_by_side({streams.data(), static_cast<std::size_t>(last - first)},
                                           [&](Index i, Scalar, Scalar sum, const Scalar* values) {
                                             const Index head = (first + i) / q.cols(), query = (first + i) % q.cols();
                                             const Scalar factor = sum == 0 ? Scalar(0) : 1 / sum;
                                             auto output = outputs.col(query).segment(head * value_dim, value_dim);
                                             for (Index d = 0; d < output.size(); ++d)
                                               output.coeffRef(d) = static_cast<Out>(values[d] * factor);
                                           }));
    });
    return {tiles, skipped};
  }

  // As large as a workspace holds, which is the fastest, but for few heads not so large that there are too few tasks.
  const Index most = workspaces[0].block_queries();
  const Index block = std::clamp(q.cols() * num_heads / 8 / 64 * 64, std::min<Index>(most, 256), most);
  const Index num_blocks = (q.cols() + block - 1) / block;
  parallel_for(num_heads * num_blocks, [&](Index task, Index worker) {
    const Index head = task % num_heads;
    const Index first = (num_blocks - 1 - task / num_heads) * block;  // the longest of a causal attention first
    const Index size = std::min(block, q.cols() - first);
    AttentionOptions one = of_head(head);
    one.query_positions = options.query_positions.segment(first, size);
    add(streaming_attend_into(outputs.block(head * value_dim, first, value_dim, size),
                              q.block(head * dim, first, dim, size), k.middleRows(one.kv_head * dim, dim),
                              v.middleRows(one.kv_head * value_dim, value_dim), one,
                              workspaces[static_cast<std::size_t>(worker)], encodings...));
  });
  return {tiles, skipped};
}

}  // namespace posenc::inline v0
