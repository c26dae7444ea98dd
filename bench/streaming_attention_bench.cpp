// SPDX-License-Identifier: MIT
// Streaming attention of eight heads: what the encodings cost, long sequences, and steps of decoding with a cache.

#include <posenc/alibi.hpp>
#include <posenc/clipped_relative.hpp>
#include <posenc/detail/packet.hpp>
#include <posenc/kv_cache.hpp>
#include <posenc/masks.hpp>
#include <posenc/rope.hpp>
#include <posenc/rope_table.hpp>
#include <posenc/streaming_heads.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <thread>
#include <tuple>
#include <vector>

#include "bench.hpp"

namespace {

using bench::Index;
using bench::Matrix;
using bench::Vector;

constexpr Index num_heads = 8;

/// The limit of arithmetic: as many flops as the products of a case need, in registers.
class MultiplyAdd {
 public:
  template <class Case>
  explicit MultiplyAdd(Case& of, Index num_threads = 1) : flops_(of.work().flops / num_threads) {}
  void operator()() {
    using posenc::detail::Simd;
    constexpr int sums = Simd<float>::tile_rows * Simd<float>::tile_packets;
    const auto factor = posenc::detail::broadcast(factor_), added = posenc::detail::broadcast(added_);
    Simd<float>::Packet x[sums];
    std::fill(x, x + sums, added);
    for (Index done = 0; done < flops_; done += 2 * sums * Simd<float>::lanes) {
#if defined(__clang__)
#pragma unroll
#elif defined(__GNUC__)
#pragma GCC unroll 24
#endif
      for (auto& one : x) one = posenc::detail::multiply_add(one, factor, added);
    }
    auto total = added;  // so that none of them is left out
    for (const auto& one : x) total = posenc::detail::sum(total, one);
    posenc::detail::store(out_.data(), total);
  }

 private:
  Index flops_;
  float factor_ = 0.999F, added_ = 1e-3F;
  std::array<float, static_cast<std::size_t>(posenc::detail::Simd<float>::lanes)> out_{};
};

/// `With` gives the encodings of ours, as a tuple, and what the plain loop does in their stead. Causal, at consecutive
/// positions.
template <class With>
struct StreamingCase {
  using Limit = MultiplyAdd;
  static constexpr double tolerance = 1e-5;

  StreamingCase(Index head_dim, Index num_tokens)
      : q(bench::random_matrix<float>(num_heads * head_dim, num_tokens, 1)),
        k(bench::random_matrix<float>(num_heads * head_dim, num_tokens, 2)),
        v(bench::random_matrix<float>(num_heads * head_dim, num_tokens, 3)),
        o(Matrix<float>::Zero(num_heads * head_dim, num_tokens)),
        with(head_dim, num_tokens),
        workspaces(1, posenc::AttentionWorkspace<float>(head_dim, head_dim)) {}

  Index head_dim() const { return q.rows() / num_heads; }

  void ours() { attend(posenc::OnCallingThread{}); }
  template <class ParallelFor>
  void attend(const ParallelFor& parallel_for) {
    const auto here = posenc::positions(q.cols());
    const posenc::HeadsOptions options{.query_positions = here, .key_positions = here, .num_heads = num_heads};
    std::apply(
        [&](const auto&... encoding) {
          posenc::streaming_attend_heads_into(o, q, k, v, options, workspaces, parallel_for, encoding...,
                                              posenc::CausalMask{});
        },
        with.encodings);
  }

  /// A query at a time, over the keys that it sees. Long sequences are left out: nothing is learned by waiting.
  void plain() requires(With::has_plain) {
    const float scale = 1 / std::sqrt(static_cast<float>(head_dim()));
    Vector<float> s(q.cols());
    for (Index head = 0; head < num_heads; ++head) {
      Matrix<float> queries = q.middleRows(head * head_dim(), head_dim()),
                    keys = k.middleRows(head * head_dim(), head_dim());
      const Matrix<float> values = v.middleRows(head * head_dim(), head_dim());
      with.rotate(queries);
      with.rotate(keys);
      for (Index at = 0; at < q.cols(); ++at) {
        auto scores = s.head(at + 1);
        scores.noalias() = keys.leftCols(at + 1).transpose() * queries.col(at);
        with.add_scores(scores, queries.col(at));
        scores *= scale;
        with.add_bias(scores, head);
        scores = (scores.array() - scores.maxCoeff()).exp();
        scores /= scores.sum();
        auto output = o.col(at).segment(head * head_dim(), head_dim());
        output.noalias() = values.leftCols(at + 1) * scores;
        with.add_values(output, scores);
      }
    }
  }
  auto& result() { return o; }
  bench::Work work() {
    return {.tokens = q.cols(), .bytes = 4 * bench::bytes_of(q), .flops = 2 * q.size() * (q.cols() + 1)};
  }

  Matrix<float> q, k, v, o;
  With with;
  std::vector<posenc::AttentionWorkspace<float>> workspaces;
};

/// The mask alone.
struct Causal {
  static constexpr bool has_plain = true;
  Causal(Index /*head_dim*/, Index /*num_tokens*/) {}
  void rotate(Matrix<float>& /*x*/) const {}
  template <class Scores, class Query>
  void add_scores(Scores& /*s*/, const Query& /*query*/) const {}
  template <class Scores>
  void add_bias(Scores& /*s*/, Index /*head*/) const {}
  template <class Output, class Weights>
  void add_values(Output& /*output*/, const Weights& /*w*/) const {}
  std::tuple<> encodings;
};

struct Alibi : Causal {
  using Causal::Causal;
  template <class Scores>
  void add_bias(Scores& s, Index head) const {
    const float slope = std::exp2(-static_cast<float>(head + 1));
    for (Index key = 0; key < s.size(); ++key) s[key] -= slope * static_cast<float>(s.size() - 1 - key);
  }
  std::tuple<posenc::Alibi> encodings{posenc::Alibi(num_heads)};
};

template <class With>
struct WithoutPlain : With {
  static constexpr bool has_plain = false;
  using With::With;
};

struct RopeTable : Causal {
  RopeTable(Index head_dim, Index num_tokens)
      : Causal(head_dim, num_tokens),
        encodings(posenc::RopeTable<float>(posenc::Rope({.head_dim = head_dim}), num_tokens)) {}
  void rotate(Matrix<float>& x) const {
    const auto& table = std::get<0>(encodings);
    const Index n = x.rows() / 2;
    for (Index t = 0; t < x.cols(); ++t)
      for (Index i = 0; i < n; ++i) {
        const float a = x(i, t), b = x(n + i, t), cos = table.cos()(i, t), sin = table.sin()(i, t);
        x(i, t) = a * cos - b * sin;
        x(n + i, t) = a * sin + b * cos;
      }
  }
  std::tuple<posenc::RopeTable<float>> encodings;
};

template <Index clip>
struct ClippedRelative : Causal {
  ClippedRelative(Index head_dim, Index num_tokens)
      : Causal(head_dim, num_tokens),
        encodings(posenc::ClippedRelative<float>(bench::random_matrix<float>(head_dim, 2 * clip + 1, 4),
                                                 bench::random_matrix<float>(head_dim, 2 * clip + 1, 5))) {}
  /// Of a key, when the query is the last of `size`.
  static Index column(Index key, Index size) { return std::max(key - (size - 1), -clip) + clip; }
  template <class Scores, class Query>
  void add_scores(Scores& s, const Query& query) const {
    const Vector<float> by_distance = std::get<0>(encodings).key_table().leftCols(clip + 1).transpose() * query;
    for (Index key = 0; key < s.size(); ++key) s[key] += by_distance[column(key, s.size())];
  }
  template <class Output, class Weights>
  void add_values(Output& output, const Weights& w) const {
    Vector<float> by_distance = Vector<float>::Zero(clip + 1);
    for (Index key = 0; key < w.size(); ++key) by_distance[column(key, w.size())] += w[key];
    output.noalias() += std::get<0>(encodings).value_table().leftCols(clip + 1) * by_distance;
  }
  std::tuple<posenc::ClippedRelative<float>> encodings;
};

/// The calling thread and another, which is made for every call; each takes the next task when it is done with one.
struct TwoThreads {
  template <class Body>
  void operator()(Index num_tasks, Body body) const {
    std::atomic<Index> next = 0;
    const auto work = [&](Index worker) {
      for (Index task = next++; task < num_tasks; task = next++) body(task, worker);
    };
    std::thread other(work, Index{1});
    work(0);
    other.join();
  }
};

/// The limit of two threads.
class TwoMultiplyAdds {
 public:
  template <class Case>
  explicit TwoMultiplyAdds(Case& of) : here_(of, 2), there_(of, 2) {}
  void operator()() {
    std::thread other([&] { there_(); });
    here_();
    other.join();
  }

 private:
  MultiplyAdd here_, there_;
};

/// Two threads, by the clock on the wall, against one.
struct TwoThreadsCase : StreamingCase<WithoutPlain<Causal>> {
  using Limit = TwoMultiplyAdds;
  static constexpr bool in_real_time = true;

  TwoThreadsCase(Index head_dim, Index num_tokens) : StreamingCase(head_dim, num_tokens) {
    workspaces.emplace_back(head_dim, head_dim);
  }
  void ours() { attend(TwoThreads{}); }
  void plain() { attend(posenc::OnCallingThread{}); }
};

/// The limit of a step of decoding: reading the keys and values.
class ReadCache {
 public:
  template <class Case>
  explicit ReadCache(Case& of) : x_(of.cache.keys()), y_(of.cache.values()) {}
  void operator()() { sum_ = x_.sum() + y_.sum(); }

 private:
  Matrix<float> x_, y_;
  float sum_ = 0;
};

/// One token: its query, over the keys of a cache.
struct DecodeCase {
  using Limit = ReadCache;
  static constexpr double tolerance = 1e-5;

  DecodeCase(Index kv_heads, Index head_dim, Index num_keys)
      : q(bench::random_matrix<float>(num_heads * head_dim, 1, 1)),
        o(Matrix<float>::Zero(num_heads * head_dim, 1)),
        cache({.num_kv_heads = kv_heads, .head_dim = head_dim, .capacity = num_keys}),
        workspaces(1, posenc::AttentionWorkspace<float>(head_dim, head_dim)) {
    cache.append(bench::random_matrix<float>(kv_heads * head_dim, num_keys, 2),
                 bench::random_matrix<float>(kv_heads * head_dim, num_keys, 3));
  }

  void ours() {
    const posenc::HeadsOptions options{.query_positions = posenc::positions(1, cache.size() - 1),
                                       .key_positions = cache.positions(),
                                       .num_heads = num_heads,
                                       .num_kv_heads = cache.num_kv_heads()};
    posenc::streaming_attend_heads_into(o, q, cache.keys(), cache.values(), options, workspaces,
                                        posenc::OnCallingThread{});
  }
  void plain() {
    const Index dim = cache.head_dim();
    for (Index head = 0; head < num_heads; ++head) {
      const Index kv_head = head * cache.num_kv_heads() / num_heads;
      Vector<float> s = cache.keys(kv_head).transpose() * q.middleRows(head * dim, dim);
      s *= 1 / std::sqrt(static_cast<float>(dim));
      s = (s.array() - s.maxCoeff()).exp();
      s /= s.sum();
      o.middleRows(head * dim, dim).noalias() = cache.values(kv_head) * s;
    }
  }
  auto& result() { return o; }
  bench::Work work() {
    return {.tokens = 1, .bytes = 2 * bench::bytes_of(cache.keys()), .flops = 4 * q.rows() * cache.size()};
  }

  Matrix<float> q, o;
  posenc::KvCache<float> cache;
  std::vector<posenc::AttentionWorkspace<float>> workspaces;
};

template <class With>
void add(const std::string& name) {
  bench::add<StreamingCase<With>>("streaming/" + name + "/float", {"D", "T"},
                                  {{64, 1024}, {64, 2048}, {64, 4096}, {128, 2048}});
}
template <class With>
void add_long(const std::string& name) {
  bench::add<StreamingCase<WithoutPlain<With>>>("streaming/" + name + "/float", {"D", "T"}, {{64, 32768}});
}

}  // namespace

void add_benchmarks() {
  add<Causal>("causal");
  add<Alibi>("alibi");
  add<RopeTable>("rope_table");
  add<ClippedRelative<16>>("clipped_relative_k16");
  add<ClippedRelative<64>>("clipped_relative_k64");
  add<ClippedRelative<128>>("clipped_relative_k128");
  bench::add<TwoThreadsCase>("streaming/two_threads/float", {"D", "T"}, {{64, 2048}});
  add_long<Causal>("causal");
  add_long<Alibi>("alibi");
  bench::add<DecodeCase>("streaming/decode/float", {"Hkv", "D", "Tk"},
                         {{8, 64, 4096}, {8, 128, 4096}, {2, 128, 4096}, {2, 128, 32768}, {1, 128, 131072}});
}
