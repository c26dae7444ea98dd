// SPDX-License-Identifier: MIT
// The hot kernels, each in a function of its own that callgrind counts the instructions of: bench/instructions.sh.

#include <posenc/alibi.hpp>
#include <posenc/attention.hpp>
#include <posenc/clipped_relative.hpp>
#include <posenc/kv_cache.hpp>
#include <posenc/learned.hpp>
#include <posenc/masks.hpp>
#include <posenc/rope.hpp>
#include <posenc/rope_table.hpp>
#include <posenc/sinusoidal.hpp>
#include <posenc/streaming_attention.hpp>
#include <posenc/t5_bias.hpp>

#include <cstdio>

/// What callgrind counts: all that happens while this runs.
extern "C" [[gnu::noinline]] void posenc_measured(void (*run)(const void*), const void* kernel) {
  run(kernel);
  asm volatile("" ::: "memory");  // not a jump to run, which would leave before it is done
}

namespace {

using posenc::Index;
using posenc::Matrix;
using posenc::PairLayout;
using posenc::Rope;
using posenc::RopeTable;

constexpr Index head_dim = 64, num_heads = 8, num_tokens = 512;

template <class Scalar = float>
Matrix<Scalar> random(Index rows, Index cols) {
  return Matrix<float>::Random(rows, cols).cast<Scalar>();
}

const posenc::Positions at = posenc::positions(num_tokens);

template <class Kernel>
void measured(const Kernel& kernel) {
  posenc_measured([](const void* k) { (*static_cast<const Kernel*>(k))(); }, &kernel);
}

template <class Scalar, PairLayout layout>
void rope() {
  Matrix<Scalar> x = random<Scalar>(num_heads * head_dim, num_tokens);
  const RopeTable<float> table(Rope({.head_dim = head_dim, .layout = layout}), num_tokens);
  measured([&] { table(x, at); });
}

template <class Bias>
void bias(const Bias& bias) {
  Matrix<float> scores = random(num_tokens, num_tokens);
  measured([&] { bias.add_bias(scores, at, at, 1); });
}

template <class... Encodings>
void attention(const Encodings&... encodings) {
  const Matrix<float> q = random(head_dim, num_tokens), k = random(head_dim, num_tokens),
                      v = random(head_dim, num_tokens);
  Matrix<float> o;
  measured([&] { o = posenc::attend(q, k, v, at, encodings...); });
}

template <class... Encodings>
void streaming(Index num_queries, const Encodings&... encodings) {
  constexpr Index num_keys = 1024;
  const Matrix<float> q = random(head_dim, num_queries), k = random(head_dim, num_keys), v = random(head_dim, num_keys);
  Matrix<float> o(head_dim, num_queries);
  posenc::AttentionWorkspace<float> workspace(head_dim, head_dim);
  measured([&] {
    posenc::streaming_attend_into(o, q, k, v,
                                  {.query_positions = posenc::positions(num_queries, num_keys - num_queries),
                                   .key_positions = posenc::positions(num_keys),
                                   .head = 1},
                                  workspace, encodings...);
  });
}

posenc::ClippedRelative<float> clipped() { return {random(head_dim, 129), random(head_dim, 129)}; }

struct Kernel {
  const char* name;
  void (*run)();
};

const Kernel kernels[] = {
    {"rope_half_split_float", rope<float, PairLayout::half_split>},
    {"rope_half_split_half", rope<Eigen::half, PairLayout::half_split>},
    {"rope_half_split_bfloat16", rope<Eigen::bfloat16, PairLayout::half_split>},
    {"rope_interleaved_float", rope<float, PairLayout::interleaved>},
    {"rope_table_free",
     [] {
       Matrix<float> x = random(num_heads * head_dim, num_tokens);
       const Rope rope({.head_dim = head_dim});
       measured([&] { rope(x, at); });
     }},
    {"rope_table",
     [] {
       const Rope rope({.head_dim = head_dim});
       measured([&] { RopeTable<float>(rope, num_tokens); });
     }},
    {"sinusoidal_on_the_fly",
     [] {
       Matrix<float> x = random(num_heads * head_dim, num_tokens);
       const posenc::Sinusoidal sinusoidal({.dim = x.rows()});
       measured([&] { sinusoidal(x, at); });
     }},
    {"sinusoidal_table",
     [] {
       const posenc::Sinusoidal sinusoidal({.dim = num_heads * head_dim});
       Matrix<float> table;
       measured([&] { table = sinusoidal.table<float>(at); });
     }},
    {"learned",
     [] {
       Matrix<float> x = random(num_heads * head_dim, num_tokens);
       const posenc::LearnedAbsolute<float> learned(random(x.rows(), num_tokens));
       measured([&] { learned(x, at); });
     }},
    {"alibi", [] { bias(posenc::Alibi(num_heads)); }},
    {"t5_bias", [] { bias(posenc::T5Bias(random(num_heads, 32))); }},
    {"causal_mask", [] { bias(posenc::CausalMask{}); }},
    {"sliding_window", [] { bias(posenc::SlidingWindow({.left = 127, .right = 0})); }},
    {"clipped_relative_scores",
     [] {
       const auto relative = clipped();
       const Matrix<float> k = random(head_dim, num_tokens), q = random(head_dim, num_tokens);
       Matrix<float> scores = random(num_tokens, num_tokens);
       measured([&] { relative.add_scores(scores, k, q, at, at); });
     }},
    {"clipped_relative_values",
     [] {
       const auto relative = clipped();
       const Matrix<float> weights = random(num_tokens, num_tokens);
       Matrix<float> outputs = random(head_dim, num_tokens);
       measured([&] { relative.add_values(outputs, weights, at, at); });
     }},
    {"attention_causal", [] { attention(posenc::CausalMask{}); }},
    {"streaming_causal", [] { streaming(1024, posenc::CausalMask{}); }},
    {"streaming_alibi", [] { streaming(1024, posenc::Alibi(num_heads), posenc::CausalMask{}); }},
    {"streaming_clipped_relative", [] { streaming(1024, clipped(), posenc::CausalMask{}); }},
    {"streaming_decode", [] { streaming(1, posenc::Alibi(num_heads)); }},
    {"kv_cache_append_rotated",
     [] {
       const RopeTable<float> table(Rope({.head_dim = head_dim}), num_tokens);
       const Matrix<float> x = random(num_heads * head_dim, num_tokens);
       posenc::KvCache<float> cache({.num_kv_heads = num_heads, .head_dim = head_dim, .capacity = num_tokens});
       measured([&] { cache.append(x, x, table); });
     }},
};

}  // namespace

/// Runs all, and says their names in the order in which they are counted.
int main() {
  for (const Kernel& kernel : kernels) {
    std::puts(kernel.name);
    kernel.run();
  }
}
