// SPDX-License-Identifier: MIT

#include "../property/allocations.hpp"  // before Eigen

#include <posenc/alibi.hpp>
#include <posenc/clipped_relative.hpp>
#include <posenc/masks.hpp>
#include <posenc/rope.hpp>
#include <posenc/rope_table.hpp>
#include <posenc/streaming_heads.hpp>

#include <Eigen/Core>
#include <algorithm>
#include <atomic>
#include <stdexcept>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "../instrumented.hpp"
#include "../streaming.hpp"

using namespace posenc;
using namespace streaming;
using support::message_of;
using support::random_matrix;
using support::same_bits;

namespace {

/// Tasks from a counter, to as many threads as there are workspaces.
struct Threads {
  Index num_threads;

  template <class Body>
  void operator()(Index num_tasks, Body body) const {
    std::atomic<Index> next = 0;
    const auto work = [&](Index worker) {
      for (Index task = next++; task < num_tasks; task = next++) body(task, worker);
    };
    std::vector<std::thread> threads;
    for (Index worker = 1; worker < num_threads; ++worker) threads.emplace_back(work, worker);
    work(0);
    for (std::thread& thread : threads) thread.join();
  }
};

/// The last task first.
struct Backwards {
  template <class Body>
  void operator()(Index num_tasks, Body body) const {
    for (Index task = num_tasks - 1; task >= 0; --task) body(task, Index{0});
  }
};

/// Heads whose nearest keys are not the same: every other one takes the 500th and later ones for far.
struct FarHeads {
  template <class Scores>
  void add_bias(Scores&& scores, const Positions& keys, const Positions& queries, Index head) const {
    for (Index j = 0; j < queries.size(); ++j)
      for (Index i = 0; i < keys.size(); ++i) scores(i, j) -= is_far(keys.token(i), head) ? 3 : 0;
  }
  BiasBounds bounds(const Positions& keys, const Positions& /*queries*/, Index head) const {
    return {is_far(keys.token(keys.size() - 1), head) ? -3.0 : 0.0, is_far(keys.token(0), head) ? -3.0 : 0.0};
  }
  static bool is_far(Index token, Index head) { return head % 2 == 1 && token >= 500; }
};

constexpr Index dim = 16, value_dim = 9;

struct Heads {
  Index num_heads, num_kv_heads, num_queries, num_keys;
  Matrix<float> q = random_matrix<float>(num_heads * dim, num_queries, 1);
  Matrix<float> k = random_matrix<float>(num_kv_heads * dim, num_keys, 2);
  Matrix<float> v = random_matrix<float>(num_kv_heads * value_dim, num_keys, 3);

  HeadsOptions options() const {
    const Place place = behind_a_cache(num_queries, num_keys);
    return {.query_positions = place.queries(),
            .key_positions = place.keys(),
            .num_heads = num_heads,
            .num_kv_heads = num_kv_heads};
  }

  template <class ParallelFor, class... Encodings>
  Matrix<float> streamed(const HeadsOptions& options, Index num_workers, const ParallelFor& parallel_for,
                         const Encodings&... encodings) const {
    std::vector<AttentionWorkspace<float>> workspaces(static_cast<std::size_t>(num_workers),
                                                      AttentionWorkspace<float>(dim, value_dim));
    Matrix<float> outputs(num_heads * value_dim, num_queries);
    streaming_attend_heads_into(outputs, q, k, v, options, workspaces, parallel_for, encodings...);
    return outputs;
  }
};

}  // namespace

TEST_CASE("Heads, grouped or not, are attended to each for itself", "[streaming_heads]") {
  for (const auto& [num_heads, num_kv_heads] : {std::pair<Index, Index>{1, 1}, {3, 3}, {6, 2}, {4, 1}, {8, 4}})
    for (const Index num_queries : {0, 1, 2, 70, is_instrumented ? 130 : 600}) {
      const Heads x{num_heads, num_kv_heads, num_queries, 601};
      const Alibi alibi(num_heads);
      HeadsOptions options = x.options();
      options.soft_cap = 20;
      options.sinks = Vector<double>::LinSpaced(num_heads, -1, 1);
      const Matrix<float> ours = x.streamed(options, 1, OnCallingThread{}, alibi, CausalMask{});
      Matrix<double> expected(num_heads * value_dim, num_queries);
      for (Index head = 0; head < num_heads; ++head) {
        const Index group = head / (num_heads / num_kv_heads);
        expected.middleRows(head * value_dim, value_dim) =
            attend(x.q.middleRows(head * dim, dim).cast<double>(), x.k.middleRows(group * dim, dim).cast<double>(),
                   x.v.middleRows(group * value_dim, value_dim).cast<double>(),
                   {.query_positions = options.query_positions,
                    .key_positions = options.key_positions,
                    .soft_cap = 20,
                    .sink = options.sinks[head],
                    .head = head,
                    .kv_head = group},
                   alibi, CausalMask{});
      }
      CHECK(relative_distance(ours, expected) <= 2e-6);
    }
}

TEST_CASE("num_kv_heads is num_heads where it is not named", "[streaming_heads]") {
  const Heads x{3, 3, 20, 30};
  HeadsOptions options = x.options();
  options.num_kv_heads = 0;
  CHECK(same_bits(x.streamed(options, 1, OnCallingThread{}), x.streamed(x.options(), 1, OnCallingThread{})));
}

TEST_CASE("Two threads give the same bits as one, and so does any order of tasks", "[streaming_heads]") {
  const Heads x{4, 2, 700, 900};
  const RopeTable<float> rope(Rope({.head_dim = dim}), 900, 1000);
  const Matrix<float> once = x.streamed(x.options(), 1, OnCallingThread{}, rope, Alibi(4), CausalMask{});
  for (const Index num_threads : {2, 3})
    CHECK(same_bits(x.streamed(x.options(), num_threads, Threads{num_threads}, rope, Alibi(4), CausalMask{}), once));
  CHECK(same_bits(x.streamed(x.options(), 1, Backwards{}, rope, Alibi(4), CausalMask{}), once));
}

TEMPLATE_TEST_CASE("Few queries side by side give the bits of each alone, on any number of threads",
                   "[streaming_heads]", float, Eigen::half) {
  const Index num_keys = 1100;  // three stretches
  for (const auto& heads : {std::pair<Index, Index>{6, 6}, {8, 2}, {7, 1}, {40, 8}})
    for (const Index num_queries : {1, 2}) {
      const Index num_heads = heads.first, num_kv_heads = heads.second;
      CAPTURE(num_heads, num_kv_heads, num_queries);
      const auto q = random_matrix<TestType>(num_heads * dim, num_queries, 1);
      const auto k = random_matrix<TestType>(num_kv_heads * dim, num_keys, 2);
      const auto v = random_matrix<TestType>(num_kv_heads * value_dim, num_keys, 3);
      const Place place = behind_a_cache(num_queries, num_keys);
      HeadsOptions options{.query_positions = place.queries(),
                           .key_positions = place.keys(),
                           .num_heads = num_heads,
                           .num_kv_heads = num_kv_heads};
      const auto check = [&](const auto&... encodings) {
        Matrix<float> alone(num_heads * value_dim, num_queries);
        AttentionWorkspace<float> workspace(dim, value_dim);
        StreamCount count;
        for (Index head = 0; head < num_heads; ++head) {
          const Index group = head / (num_heads / num_kv_heads);
          AttentionOptions one = place.options();
          one.soft_cap = options.soft_cap;
          if (options.sinks.size() > 0) one.sink = options.sinks[head];
          one.head = head;
          one.kv_head = group;
          count += streaming_attend_into(alone.middleRows(head * value_dim, value_dim), q.middleRows(head * dim, dim),
                                         k.middleRows(group * dim, dim), v.middleRows(group * value_dim, value_dim),
                                         one, workspace, encodings...);
        }
        for (const Index num_threads : {1, 2, 3, 16}) {
          std::vector<AttentionWorkspace<float>> workspaces(static_cast<std::size_t>(num_threads), workspace);
          Matrix<float> outputs(num_heads * value_dim, num_queries);
          const StreamCount together =
              streaming_attend_heads_into(outputs, q, k, v, options, workspaces, Threads{num_threads}, encodings...);
          CHECK(same_bits(outputs, alone));
          CHECK(together.tiles == count.tiles);
          CHECK(together.skipped == count.skipped);
        }
      };
      if constexpr (std::is_same_v<TestType, float>) {
        check();
        check(ClippedRelative<float>(random_matrix<float>(dim, 9, 4), random_matrix<float>(value_dim, 9, 5)));
        check(FarHeads{}, SlidingWindow({.left = 700}));
      }
      options.sinks = Vector<double>::LinSpaced(num_heads, -1, 1);
      options.soft_cap = 20;
      check(RopeTable<float>(Rope({.head_dim = dim}), num_keys, 1000), Alibi(num_heads), CausalMask{});
    }
}

TEST_CASE("Every task is counted", "[streaming_heads]") {
  const Heads x{4, 2, 700, 900};
  std::vector<AttentionWorkspace<float>> workspaces(2, AttentionWorkspace<float>(dim, value_dim));
  Matrix<float> outputs(4 * value_dim, 700);
  const auto count = [&](const auto& parallel_for, const auto&... encodings) {
    return streaming_attend_heads_into(outputs, x.q, x.k, x.v, x.options(), workspaces, parallel_for, encodings...);
  };
  const StreamCount all = count(OnCallingThread{}), causal = count(OnCallingThread{}, CausalMask{});
  CHECK(all.skipped == 0);
  CHECK(causal.skipped > 0);
  CHECK(causal.tiles + causal.skipped == all.tiles);
  const StreamCount threaded = count(Threads{2}, CausalMask{});
  CHECK(threaded.tiles == causal.tiles);
  CHECK(threaded.skipped == causal.skipped);
}

TEST_CASE("All heads work without allocation", "[streaming_heads]") {
  const Index num_queries = GENERATE(1, 70);
  const Heads x{4, 2, num_queries, 900};
  std::vector<AttentionWorkspace<float>> workspaces(1, AttentionWorkspace<float>(dim, value_dim));
  Matrix<float> outputs(4 * value_dim, num_queries);
  HeadsOptions options = x.options();
  options.sinks = Vector<double>::Zero(4);
  const RopeTable<float> rope(Rope({.head_dim = dim}), 900, 1000);
  const Alibi alibi(4);
  CHECK_FALSE(laws::allocates([&] {
    streaming_attend_heads_into(outputs, x.q, x.k, x.v, options, workspaces, OnCallingThread{}, rope, alibi,
                                CausalMask{});
  }));
}

TEST_CASE("What does not fit is an error, and nothing is written", "[streaming_heads]") {
  const Heads x{4, 2, 5, 9};
  std::vector<AttentionWorkspace<float>> workspaces(2, AttentionWorkspace<float>(dim, value_dim));
  Matrix<float> outputs = random_matrix<float>(4 * value_dim, 5, 9);
  const Matrix<float> before = outputs;
  const auto error = [&](const auto& change, const Matrix<float>& q, const Matrix<float>& k, const Matrix<float>& v) {
    HeadsOptions options = x.options();
    change(options);
    return message_of<std::invalid_argument>(
        [&] { streaming_attend_heads_into(outputs, q, k, v, options, workspaces, OnCallingThread{}, CausalMask{}); });
  };
  const auto with = [&](const auto& change) { return error(change, x.q, x.k, x.v); };
  const auto as_it_is = [](HeadsOptions&) {};
  CHECK(with([](auto& o) { o.num_heads = 0; }) == "posenc::streaming_attend_heads: num_heads must be positive, got 0");
  CHECK(with([](auto& o) { o.num_kv_heads = 3; }) ==
        "posenc::streaming_attend_heads: num_kv_heads must divide num_heads, got 3");
  CHECK(error(as_it_is, x.q.topRows(62), x.k, x.v) ==
        "posenc::streaming_attend_heads: rows of the queries must be a multiple of num_heads, got 62");
  CHECK(error(as_it_is, x.q, x.k, x.v.topRows(17)) ==
        "posenc::streaming_attend_heads: rows of the values must be a multiple of num_kv_heads, got 17");
  CHECK(error(as_it_is, x.q, x.k.topRows(16), x.v) ==
        "posenc::streaming_attend_heads: rows of the keys must be num_kv_heads * head_dim = 32, got 16");
  CHECK(error(as_it_is, x.q, x.k, x.v.topRows(16)) ==
        "posenc::streaming_attend_heads: rows of the outputs must be num_heads * value_dim = 32, got 36");
  CHECK(error(as_it_is, x.q.leftCols(4), x.k, x.v) ==
        "posenc::streaming_attend_heads: columns of the outputs must be those of the queries = 4, got 5");
  CHECK(with([](auto& o) { o.sinks = Vector<double>::Zero(2); }) ==
        "posenc::streaming_attend_heads: the number of sinks must be num_heads = 4, got 2");
  CHECK(with([](auto& o) { o.sinks = Vector<double>::Constant(4, streaming::infinity); }) ==
        "posenc::attend: sink must be below infinity, got inf");
  CHECK(with([](auto& o) { o.query_positions = positions(4); }) ==
        "posenc::attend: columns of the queries must be the number of query positions = 4, got 5");
  CHECK(error(as_it_is, x.q, x.k, x.v.leftCols(8)) ==
        "posenc::streaming_attend: columns of the values must be those of the keys = 9, got 8");
  workspaces[1] = AttentionWorkspace<float>(dim, 3);
  CHECK(with(as_it_is) == "posenc::streaming_attend: rows of the values must be value_dim of the workspace = 3, got 9");
  workspaces.clear();
  CHECK(with(as_it_is) == "posenc::streaming_attend_heads: there must be at least one workspace, got 0");
  CHECK(same_bits(outputs, before));
}
