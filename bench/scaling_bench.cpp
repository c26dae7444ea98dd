// SPDX-License-Identifier: MIT
// How cost grows with the number of tokens, up to 131072, and with the number of heads: one encoding of every kind, in
// the form that an engine would use. The limits and the plain loops are in the files of the encodings.

#include <posenc/alibi.hpp>
#include <posenc/kv_cache.hpp>
#include <posenc/learned.hpp>
#include <posenc/masks.hpp>
#include <posenc/rope.hpp>
#include <posenc/rope_table.hpp>
#include <posenc/sinusoidal.hpp>
#include <posenc/streaming_heads.hpp>
#include <posenc/t5_bias.hpp>

#include <array>

#include "bench.hpp"

namespace {

using bench::Index;
using bench::Matrix;

constexpr Index head_dim = 64;

/// What is done to all features of T tokens of H heads.
struct Features {
  Features(Index num_heads, Index num_tokens) : x(bench::random_matrix<float>(num_heads * head_dim, num_tokens)) {}
  auto& result() { return x; }
  bench::Work work() { return {.tokens = x.cols(), .bytes = 2 * bench::bytes_of(x)}; }
  Matrix<float> x;
};

struct RopeCase : Features {
  using Limit = bench::Scale;
  RopeCase(Index num_heads, Index num_tokens)
      : Features(num_heads, num_tokens), table(posenc::Rope({.head_dim = head_dim}), num_tokens) {}
  void ours() { table(x, posenc::positions(x.cols())); }
  posenc::RopeTable<float> table;
};

struct TableFreeRopeCase : Features {
  using Limit = bench::Scale;
  using Features::Features;
  void ours() { rope(x, posenc::positions(x.cols())); }
  posenc::Rope rope{{.head_dim = head_dim}};
};

struct SinusoidalCase : Features {
  using Limit = bench::Scale;
  SinusoidalCase(Index num_heads, Index num_tokens)
      : Features(num_heads, num_tokens), sinusoidal({.dim = num_heads * head_dim}) {}
  void ours() { sinusoidal(x, posenc::positions(x.cols())); }
  posenc::Sinusoidal sinusoidal;
};

struct LearnedCase : Features {
  using Limit = bench::Add;
  LearnedCase(Index num_heads, Index num_tokens) : Features(num_heads, num_tokens), learned(x) {}
  void ours() { learned(x, posenc::positions(x.cols())); }
  posenc::LearnedAbsolute<float> learned;
};

struct AppendCase : Features {
  using Limit = bench::Scale;
  AppendCase(Index num_heads, Index num_tokens)
      : Features(num_heads, num_tokens),
        table(posenc::Rope({.head_dim = head_dim}), num_tokens),
        cache({.num_kv_heads = num_heads, .head_dim = head_dim, .capacity = num_tokens}) {}
  void ours() {
    cache.reset();
    cache.append(x, x, table);
  }
  posenc::RopeTable<float> table;
  posenc::KvCache<float> cache;
};

/// A step of decoding: a bias on the scores of one query and T keys, in every head.
template <class Bias>
struct BiasCase {
  using Limit = bench::Scale;
  BiasCase(Index num_heads, Index num_tokens)
      : bias(bench::random_matrix<float>(num_heads, std::is_same_v<Bias, posenc::T5Bias> ? 32 : 1).cwiseAbs()),
        scores(bench::random_matrix<float>(num_tokens, num_heads)) {}
  void ours() {
    for (Index h = 0; h < scores.cols(); ++h)
      bias.add_bias(scores.col(h), posenc::positions(scores.rows()), posenc::positions(1, scores.rows() - 1), h);
  }
  auto& result() { return scores; }
  bench::Work work() { return {.tokens = scores.rows(), .bytes = 2 * bench::bytes_of(scores)}; }
  Bias bias;
  Matrix<float> scores;
};

/// Attention of a step of decoding over T keys: it reads keys and values once.
struct DecodeCase {
  using Limit = bench::Scale;
  DecodeCase(Index num_heads, Index num_tokens)
      : k(bench::random_matrix<float>(num_heads * head_dim, num_tokens, 1)),
        v(bench::random_matrix<float>(num_heads * head_dim, num_tokens, 2)),
        q(bench::random_matrix<float>(num_heads * head_dim, 1, 3)),
        o(Matrix<float>::Zero(num_heads * head_dim, 1)),
        alibi(num_heads) {}
  void ours() {
    posenc::streaming_attend_heads_into(o, q, k, v,
                                        {.query_positions = posenc::positions(1, k.cols() - 1),
                                         .key_positions = posenc::positions(k.cols()),
                                         .num_heads = alibi.num_heads()},
                                        workspaces, posenc::OnCallingThread{}, alibi);
  }
  auto& result() { return k; }
  bench::Work work() { return {.tokens = k.cols(), .bytes = 2 * bench::bytes_of(k)}; }
  Matrix<float> k, v, q, o;
  posenc::Alibi alibi;
  std::array<posenc::AttentionWorkspace<float>, 1> workspaces{{{head_dim, head_dim}}};
};

/// T by H, and H by T.
template <class Case>
void add(const std::string& name) {
  bench::add<Case>(
      "scaling/" + name + "/float", {"H", "T"},
      {{8, 1}, {8, 512}, {8, 2048}, {8, 8192}, {8, 32768}, {8, 131072}, {1, 8192}, {32, 8192}, {128, 8192}});
}

}  // namespace

void add_benchmarks() {
  add<RopeCase>("rope");
  add<TableFreeRopeCase>("rope_table_free");
  add<SinusoidalCase>("sinusoidal");
  add<LearnedCase>("learned");
  add<AppendCase>("kv_cache_append_rotated");
  add<BiasCase<posenc::Alibi>>("alibi_decode");
  add<BiasCase<posenc::T5Bias>>("t5_bias_decode");
  add<DecodeCase>("attention_alibi_decode");
}
