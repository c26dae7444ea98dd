// SPDX-License-Identifier: MIT

// Threads are yours: attention asks for a parallel-for, anything that is called with a number of tasks and a body, and runs
// body(task, worker) for every task. Two of them, and the same bits from both.

#include <atomic>
#include <iostream>
#include <posenc/alibi.hpp>
#include <posenc/masks.hpp>
#include <posenc/streaming_heads.hpp>
#include <thread>
#include <vector>
#ifdef _OPENMP
#include <omp.h>
#endif

/// Threads of the standard library, each taking the next task when it is done with one.
struct StdThreads {
  int num_threads;
  void operator()(posenc::Index num_tasks, auto body) const {
    std::atomic<posenc::Index> next = 0;
    const auto work = [&](posenc::Index worker) {
      for (posenc::Index task = next++; task < num_tasks; task = next++) body(task, worker);
    };
    std::vector<std::jthread> threads;  // joined at the end of the function
    for (int worker = 1; worker < num_threads; ++worker) threads.emplace_back(work, worker);
    work(0);
  }
};

/// A team of OpenMP, where the compiler has it.
struct OpenMp {
  int num_threads;
  void operator()(posenc::Index num_tasks, auto body) const {
#ifdef _OPENMP
#pragma omp parallel for schedule(dynamic) num_threads(num_threads)
    for (posenc::Index task = 0; task < num_tasks; ++task) body(task, posenc::Index{omp_get_thread_num()});
#else
    for (posenc::Index task = 0; task < num_tasks; ++task) body(task, posenc::Index{0});
#endif
  }
};

int main() {
  const posenc::Index num_heads = 8, head_dim = 16, num_tokens = 1000;
  const posenc::Matrix<float> q = posenc::Matrix<float>::Random(num_heads * head_dim, num_tokens), k = q, v = q;
  const auto at = posenc::positions(num_tokens);

  std::vector<posenc::AttentionWorkspace<float>> workspaces(2, {head_dim, head_dim});  // one a thread
  const auto attend = [&](const auto& parallel_for) {
    posenc::Matrix<float> o(num_heads * head_dim, num_tokens);
    posenc::streaming_attend_heads_into(o, q, k, v,
                                        {.query_positions = at, .key_positions = at, .num_heads = num_heads},
                                        workspaces, parallel_for, posenc::Alibi(num_heads), posenc::CausalMask{});
    return o;
  };
  const auto alone = attend(posenc::OnCallingThread{});
  std::cout << "std::thread: " << (attend(StdThreads{2}) == alone ? "the same bits" : "other bits") << '\n'
            << "OpenMP:      " << (attend(OpenMp{2}) == alone ? "the same bits" : "other bits") << '\n';
}
