// SPDX-License-Identifier: MIT
// Clipped relative positions: what they add to the scores of one head, and to its outputs.

#include <posenc/clipped_relative.hpp>

#include "bench.hpp"

namespace {

using bench::Index;
using bench::Matrix;
using bench::Vector;
using posenc::ClippedRelative;

template <class Scalar>
struct ClippedCase {
  using Real = posenc::detail::compute_t<Scalar>;

  // Sums of D products in another order, rounded to what is stored.
  static constexpr double tolerance = std::is_same_v<Scalar, Real> ? 1e-5 : 0.02;

  ClippedCase(Index clip, Index head_dim, Index num_keys, Index num_queries)
      : relative(bench::random_matrix<Scalar>(head_dim, 2 * clip + 1, 3),
                 bench::random_matrix<Scalar>(head_dim, 2 * clip + 1, 4)),
        keys(bench::random_matrix<Scalar>(head_dim, num_keys, 5)),
        queries(bench::random_matrix<Scalar>(head_dim, num_queries, 6)),
        by_distance(2 * clip + 1),
        scores(bench::random_matrix<Scalar>(num_keys, num_queries, 7)) {}

  posenc::Positions key_positions() const { return posenc::positions(scores.rows()); }
  posenc::Positions query_positions() const { return posenc::positions(scores.cols(), scores.rows() - scores.cols()); }

  Index column(Index key, Index query) const {
    const Index clip = relative.max_left(), distance = key - (scores.rows() - scores.cols() + query);
    return std::clamp(distance, -clip, clip) + clip;
  }

  ClippedRelative<Scalar> relative;
  Matrix<Scalar> keys, queries;
  Vector<Real> by_distance;
  Matrix<Scalar> scores;
};

template <class Scalar>
struct ScoresCase : ClippedCase<Scalar> {
  using Limit = bench::Scale;
  using Real = posenc::detail::compute_t<Scalar>;
  using ClippedCase<Scalar>::ClippedCase;

  void ours() {
    this->relative.add_scores(this->scores, this->keys, this->queries, this->key_positions(), this->query_positions());
  }
  /// A product for each distance, then a look-up for each score.
  void plain() {
    for (Index query = 0; query < this->scores.cols(); ++query) {
      this->by_distance.noalias() =
          this->relative.key_table().template cast<Real>().transpose() * this->queries.col(query).template cast<Real>();
      for (Index key = 0; key < this->scores.rows(); ++key)
        posenc::detail::add(this->scores(key, query), this->by_distance[this->column(key, query)]);
    }
  }
  auto& result() { return this->scores; }
  bench::Work work() { return {.tokens = this->scores.cols(), .bytes = 2 * bench::bytes_of(this->scores)}; }
};

/// The limit of what depends on all weights: reading them.
class Sum {
 public:
  template <class Case>
  explicit Sum(Case& of) : x_(bench::as_large_as(of.scores)) {}
  void operator()() { sum_ = x_.sum(); }

 private:
  bench::Vector<float> x_;
  float sum_ = 0;
};

template <class Scalar>
struct ValuesCase : ClippedCase<Scalar> {
  using Limit = Sum;
  using Real = posenc::detail::compute_t<Scalar>;

  ValuesCase(Index clip, Index head_dim, Index num_keys, Index num_queries)
      : ClippedCase<Scalar>(clip, head_dim, num_keys, num_queries),
        outputs(bench::random_matrix<Scalar>(head_dim, num_queries, 8)) {
    this->scores = this->scores.cwiseAbs() / static_cast<Scalar>(num_keys);  // weights
  }
  void ours() { this->relative.add_values(outputs, this->scores, this->key_positions(), this->query_positions()); }
  /// The weights of each distance summed, then one product.
  void plain() {
    for (Index query = 0; query < this->scores.cols(); ++query) {
      this->by_distance.setZero();
      for (Index key = 0; key < this->scores.rows(); ++key)
        this->by_distance[this->column(key, query)] += static_cast<Real>(this->scores(key, query));
      const Vector<Real> sum = this->relative.value_table().template cast<Real>() * this->by_distance;
      for (Index i = 0; i < sum.size(); ++i) posenc::detail::add(outputs(i, query), sum[i]);
    }
  }
  auto& result() { return outputs; }
  bench::Work work() { return {.tokens = outputs.cols(), .bytes = bench::bytes_of(this->scores)}; }

  Matrix<Scalar> outputs;
};

template <class Scalar>
void add(const std::vector<std::array<Index, 4>>& shapes) {
  const std::string scalar = bench::scalar_name<Scalar>();
  bench::add<ScoresCase<Scalar>>("clipped_relative/scores/" + scalar, {"k", "D", "Tk", "Tq"}, shapes);
  bench::add<ValuesCase<Scalar>>("clipped_relative/values/" + scalar, {"k", "D", "Tk", "Tq"}, shapes);
}

}  // namespace

void add_benchmarks() {
  add<float>({{64, 64, 4096, 1},
              {16, 64, 512, 512},
              {64, 64, 500, 500},
              {64, 64, 512, 512},
              {64, 80, 512, 512},
              {64, 128, 512, 512},
              {64, 64, 4096, 4096}});
  add<double>({{64, 64, 512, 512}});
  add<Eigen::half>({{64, 64, 512, 512}});
  add<Eigen::bfloat16>({{64, 64, 512, 512}});
}
