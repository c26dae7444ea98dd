// SPDX-License-Identifier: MIT
// The reference attention of one head, with each of the encodings that act in it.

#include <posenc/alibi.hpp>
#include <posenc/attention.hpp>
#include <posenc/clipped_relative.hpp>
#include <posenc/masks.hpp>
#include <posenc/rope.hpp>
#include <posenc/rope_table.hpp>

#include <tuple>

#include "bench.hpp"

namespace {

using bench::Index;
using bench::Matrix;
using bench::Vector;
using posenc::Positions;

/// The limit of attention that keeps its scores: the two products.
class Products {
 public:
  template <class Case>
  explicit Products(Case& of) : q_(of.q), k_(of.k), v_(of.v), s_(q_.cols(), k_.cols()), o_(of.o) {}
  void operator()() {
    s_.noalias() = k_.transpose() * q_;
    o_.noalias() = v_ * s_;
  }

 private:
  Matrix<float> q_, k_, v_, s_, o_;
};

/// `With` gives the encodings of ours, as a tuple, and what the plain loop does in their stead.
template <class With>
struct AttentionCase {
  using Limit = Products;

  AttentionCase(Index head_dim, Index num_keys, Index num_queries)
      : q(bench::random_matrix<float>(head_dim, num_queries, 1)),
        k(bench::random_matrix<float>(head_dim, num_keys, 2)),
        v(bench::random_matrix<float>(head_dim, num_keys, 3)),
        o(Matrix<float>::Zero(head_dim, num_queries)),
        with(head_dim, num_keys),
        encodings(with.encodings()) {}

  Index first_query() const { return k.cols() - q.cols(); }

  void ours() {
    const posenc::AttentionOptions options{.query_positions = posenc::positions(q.cols(), first_query()),
                                           .key_positions = posenc::positions(k.cols())};
    o = std::apply([&](const auto&... encoding) { return posenc::attend(q, k, v, options, encoding...); }, encodings);
  }

  /// A query at a time.
  void plain() {
    const float scale = 1 / std::sqrt(static_cast<float>(q.rows()));
    Matrix<float> queries = q, keys = k;
    with.rotate(queries, first_query());
    with.rotate(keys, 0);
    Vector<float> s(k.cols());
    for (Index query = 0; query < q.cols(); ++query) {
      const Index at = first_query() + query;
      s.noalias() = keys.transpose() * queries.col(query);
      with.add_scores(s, q.col(query), at);
      s *= scale;
      with.add_bias(s, at);
      s = (s.array() - s.maxCoeff()).exp();
      s /= s.sum();
      o.col(query).noalias() = v * s;
      with.add_values(o.col(query), s, at);
    }
  }
  auto& result() { return o; }
  bench::Work work() {
    return {.tokens = q.cols(),
            .bytes = bench::bytes_of(q) + bench::bytes_of(k) + bench::bytes_of(v) + bench::bytes_of(o),
            .flops = 4 * q.size() * k.cols()};
  }

  Matrix<float> q, k, v, o;
  With with;
  decltype(std::declval<With>().encodings()) encodings;
};

/// No position at all.
struct Nothing {
  Nothing(Index /*head_dim*/, Index /*num_keys*/) {}
  auto encodings() const { return std::tuple(); }
  void rotate(Matrix<float>&, Index) const {}
  template <class Scores, class Query>
  void add_scores(Scores&, const Query&, Index) const {}
  template <class Scores>
  void add_bias(Scores&, Index) const {}
  template <class Output, class Weights>
  void add_values(Output&&, const Weights&, Index) const {}
};

struct Causal : Nothing {
  using Nothing::Nothing;
  auto encodings() const { return std::tuple(posenc::CausalMask{}); }
  template <class Scores>
  void add_bias(Scores& s, Index at) const {
    s.tail(s.size() - 1 - at).setConstant(-std::numeric_limits<float>::infinity());
  }
};

struct Rope : Nothing {
  Rope(Index head_dim, Index num_keys)
      : Nothing(head_dim, num_keys), table(posenc::Rope({.head_dim = head_dim}), num_keys) {}
  auto encodings() const { return std::tuple(table); }
  void rotate(Matrix<float>& x, Index first) const {
    const Index n = x.rows() / 2;
    for (Index t = 0; t < x.cols(); ++t)
      for (Index i = 0; i < n; ++i) {
        const float a = x(i, t), b = x(n + i, t), cos = table.cos()(i, first + t), sin = table.sin()(i, first + t);
        x(i, t) = a * cos - b * sin;
        x(n + i, t) = a * sin + b * cos;
      }
  }
  posenc::RopeTable<float> table;
};

struct Alibi : Nothing {
  using Nothing::Nothing;
  auto encodings() const { return std::tuple(posenc::Alibi(8)); }
  template <class Scores>
  void add_bias(Scores& s, Index at) const {
    for (Index key = 0; key < s.size(); ++key) s[key] -= 0.5F * static_cast<float>(key < at ? at - key : key - at);
  }
};

struct ClippedRelative : Nothing {
  ClippedRelative(Index head_dim, Index num_keys)
      : Nothing(head_dim, num_keys),
        key_table(bench::random_matrix<float>(head_dim, 2 * clip + 1, 4)),
        value_table(bench::random_matrix<float>(head_dim, 2 * clip + 1, 5)) {}
  auto encodings() const { return std::tuple(posenc::ClippedRelative<float>(key_table, value_table)); }
  static Index column(Index key, Index at) { return std::clamp(key - at, -clip, clip) + clip; }
  template <class Scores, class Query>
  void add_scores(Scores& s, const Query& query, Index at) const {
    const Vector<float> by_distance = key_table.transpose() * query;
    for (Index key = 0; key < s.size(); ++key) s[key] += by_distance[column(key, at)];
  }
  template <class Output, class Weights>
  void add_values(Output&& o, const Weights& w, Index at) const {
    Vector<float> by_distance = Vector<float>::Zero(2 * clip + 1);
    for (Index key = 0; key < w.size(); ++key) by_distance[column(key, at)] += w[key];
    o.noalias() += value_table * by_distance;
  }
  static constexpr Index clip = 64;
  Matrix<float> key_table, value_table;
};

template <class With>
void add(const std::string& name) {
  bench::add<AttentionCase<With>>("attention/" + name + "/float", {"D", "Tk", "Tq"},
                                  {{64, 4096, 1},
                                   {64, 500, 500},
                                   {64, 512, 512},
                                   {80, 512, 512},
                                   {128, 512, 512},
                                   {64, 2048, 2048},
                                   {64, 4096, 4096}});
}

}  // namespace

void add_benchmarks() {
  add<Nothing>("no_encoding");
  add<Causal>("causal_mask");
  add<Rope>("rope");
  add<Alibi>("alibi");
  add<ClippedRelative>("clipped_relative");
}
