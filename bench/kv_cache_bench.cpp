// SPDX-License-Identifier: MIT
// The KV cache: tokens appended, with rotation and without, and a window that rolls on behind sink tokens.

#include <posenc/kv_cache.hpp>
#include <posenc/rope.hpp>
#include <posenc/rope_table.hpp>

#include <cstring>

#include "bench.hpp"

namespace {

using bench::Index;
using bench::Matrix;
using posenc::KvCache;
using posenc::Rope;
using posenc::RopeTable;

/// The limit of what is copied: the bytes of the result.
class Copy {
 public:
  template <class Case>
  explicit Copy(Case& of) : x_(bench::random_matrix<float>(of.work().bytes / 8, 1)), y_(x_) {}
  void operator()() { std::memcpy(y_.data(), x_.data(), static_cast<std::size_t>(x_.size()) * sizeof(float)); }

 private:
  bench::Vector<float> x_, y_;
};

constexpr Index num_heads = 8;

template <class Scalar>
Matrix<Scalar> tokens(Index head_dim, Index count, std::uint32_t seed) {
  return bench::random_matrix<Scalar>(num_heads * head_dim, count, seed);
}

/// T tokens behind a prefix of 64, which are forgotten again before the next call.
template <class Scalar>
struct AppendCase {
  using Limit = Copy;
  using Real = posenc::detail::compute_t<Scalar>;
  static constexpr Index prefix = 64;

  AppendCase(Index head_dim, Index num_tokens)
      : keys(tokens<Real>(head_dim, num_tokens, 1)),
        values(tokens<Real>(head_dim, num_tokens, 2)),
        cache({.num_kv_heads = num_heads, .head_dim = head_dim, .capacity = prefix + num_tokens}),
        plain_keys(num_heads * head_dim, prefix + num_tokens),
        plain_values(num_heads * head_dim, prefix + num_tokens),
        table(Rope({.head_dim = head_dim}), prefix + num_tokens) {
    cache.append(tokens<Real>(head_dim, prefix, 3), tokens<Real>(head_dim, prefix, 4));
    plain_keys.leftCols(prefix) = cache.keys();
    plain_values.leftCols(prefix) = cache.values();
    plain_keys.rightCols(num_tokens).setZero();
    plain_values.rightCols(num_tokens).setZero();
  }

  /// What was written last, by whichever of the two.
  Matrix<Scalar> result() {
    Matrix<Scalar> both(2 * plain_keys.rows(), plain_keys.cols());
    both << plain_keys, plain_values;
    if (cache.size() > prefix) both << cache.keys(), cache.values();
    return both;
  }
  bench::Work work() { return {.tokens = keys.cols(), .bytes = 4 * keys.size() * static_cast<Index>(sizeof(Scalar))}; }

  Matrix<Real> keys, values;
  KvCache<Scalar> cache;
  Matrix<Scalar> plain_keys, plain_values;
  RopeTable<Real> table;
};

template <class Scalar>
struct CopiedCase : AppendCase<Scalar> {
  using AppendCase<Scalar>::AppendCase;

  void ours() {
    this->cache.truncate(this->prefix);
    this->cache.append(this->keys, this->values);
  }
  void plain() {
    for (Index t = 0; t < this->keys.cols(); ++t)
      for (Index i = 0; i < this->keys.rows(); ++i) {
        this->plain_keys(i, this->prefix + t) = static_cast<Scalar>(this->keys(i, t));
        this->plain_values(i, this->prefix + t) = static_cast<Scalar>(this->values(i, t));
      }
  }
};

template <class Scalar>
struct RotatedCase : AppendCase<Scalar> {
  using AppendCase<Scalar>::AppendCase;

  void ours() {
    this->cache.truncate(this->prefix);
    this->cache.append(this->keys, this->values, this->table);
  }
  void plain() {
    const auto &cos = this->table.cos(), &sin = this->table.sin();
    const Index n = cos.rows();
    for (Index t = 0; t < this->keys.cols(); ++t) {
      const Index at = this->prefix + t;
      for (Index row = 0; row < this->keys.rows(); row += 2 * n)
        for (Index i = 0; i < n; ++i) {
          const auto a = this->keys(row + i, t), b = this->keys(row + n + i, t);
          this->plain_keys(row + i, at) = static_cast<Scalar>(a * cos(i, at) - b * sin(i, at));
          this->plain_keys(row + n + i, at) = static_cast<Scalar>(a * sin(i, at) + b * cos(i, at));
        }
      for (Index i = 0; i < this->values.rows(); ++i)
        this->plain_values(i, at) = static_cast<Scalar>(this->values(i, t));
    }
  }
};

/// A full cache of T tokens: the oldest 64 behind 4 sinks leave, and 64 come.
struct RollCase {
  using Limit = Copy;
  static constexpr Index sinks = 4, step = 64;

  RollCase(Index head_dim, Index num_tokens)
      : new_keys(tokens<float>(head_dim, step, 3)),
        cache({.num_kv_heads = num_heads, .head_dim = head_dim, .capacity = num_tokens}),
        plain_keys(tokens<float>(head_dim, num_tokens, 1)),
        plain_values(tokens<float>(head_dim, num_tokens, 2)) {
    cache.append(plain_keys, plain_values);
  }

  void ours() {
    cache.evict({.num_tokens = step, .num_sink_tokens = sinks});
    cache.append(new_keys, new_keys);
    rolled = true;
  }
  void plain() {
    const Index left = plain_keys.cols() - sinks - step;
    for (Matrix<float>* x : {&plain_keys, &plain_values}) {
      std::memmove(x->col(sinks).data(), x->col(sinks + step).data(),
                   static_cast<std::size_t>(left * x->rows()) * sizeof(float));
      x->rightCols(step) = new_keys;
    }
  }
  Matrix<float> result() {
    Matrix<float> both(2 * plain_keys.rows(), plain_keys.cols());
    both << plain_keys, plain_values;
    if (rolled) both << cache.keys(), cache.values();
    return both;
  }
  bench::Work work() { return {.tokens = step, .bytes = 2 * 2 * bench::bytes_of(plain_keys)}; }

  Matrix<float> new_keys;
  KvCache<float> cache;
  Matrix<float> plain_keys, plain_values;
  bool rolled = false;
};

template <class Scalar>
void add(const std::vector<std::array<Index, 2>>& shapes) {
  const std::string scalar = bench::scalar_name<Scalar>();
  bench::add<CopiedCase<Scalar>>("kv_cache/append/" + scalar, {"D", "T"}, shapes);
  bench::add<RotatedCase<Scalar>>("kv_cache/append_rotated/" + scalar, {"D", "T"}, shapes);
}

}  // namespace

void add_benchmarks() {
  add<float>({{64, 1}, {128, 1}, {64, 500}, {64, 512}, {80, 512}, {128, 512}, {128, 4096}});
  add<double>({{64, 512}});
  add<Eigen::half>({{64, 512}});
  add<Eigen::bfloat16>({{64, 512}});
  bench::add<RollCase>("kv_cache/roll/float", {"D", "T"}, {{64, 512}, {128, 4096}});
}
