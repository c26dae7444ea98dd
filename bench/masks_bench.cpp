// SPDX-License-Identifier: MIT
// Masks on the scores of one head. A mask writes only what it hides, so it may pass the limit, which writes all.

#include <posenc/masks.hpp>

#include <limits>

#include "bench.hpp"

namespace {

using bench::Index;
using bench::Matrix;

/// The three masks below make this case of it.
template <class Scalar>
struct MaskCase {
  using Limit = bench::Scale;

  MaskCase(Index num_keys, Index num_queries) : scores(bench::random_matrix<Scalar>(num_keys, num_queries)) {}

  posenc::Positions keys() const { return posenc::positions(scores.rows()); }
  posenc::Positions queries() const { return posenc::positions(scores.cols(), scores.rows() - scores.cols()); }

  template <class Visible>
  void plain_mask(Visible visible) {
    const Index first_query = scores.rows() - scores.cols();
    const auto hidden = static_cast<Scalar>(-std::numeric_limits<float>::infinity());
    for (Index query = 0; query < scores.cols(); ++query)
      for (Index key = 0; key < scores.rows(); ++key)
        if (!visible(key, first_query + query)) scores(key, query) = hidden;
  }
  auto& result() { return scores; }
  bench::Work work() { return {.tokens = scores.cols(), .bytes = 2 * bench::bytes_of(scores)}; }

  Matrix<Scalar> scores;
};

template <class Scalar>
struct CausalCase : MaskCase<Scalar> {
  using MaskCase<Scalar>::MaskCase;
  void ours() { posenc::CausalMask{}(this->scores, this->keys(), this->queries()); }
  void plain() {
    this->plain_mask([](Index key, Index query) { return key <= query; });
  }
};

template <class Scalar>
struct WindowCase : MaskCase<Scalar> {
  using MaskCase<Scalar>::MaskCase;
  void ours() { posenc::SlidingWindow({.left = window - 1, .right = 0})(this->scores, this->keys(), this->queries()); }
  void plain() {
    this->plain_mask([](Index key, Index query) { return query - window < key && key <= query; });
  }
  static constexpr Index window = 128;
};

template <class Scalar>
struct PaddingCase : MaskCase<Scalar> {
  PaddingCase(Index num_keys, Index num_queries)
      : MaskCase<Scalar>(num_keys, num_queries), visible(static_cast<std::size_t>(num_keys), 1), mask(hide(visible)) {}

  void ours() { mask(this->scores, this->keys(), this->queries()); }
  void plain() {
    this->plain_mask([this](Index key, Index) { return visible[static_cast<std::size_t>(key)] != 0; });
  }

  /// The first quarter is padding.
  static const std::vector<char>& hide(std::vector<char>& visible) {
    std::fill_n(visible.begin(), visible.size() / 4, char{0});
    return visible;
  }
  std::vector<char> visible;
  posenc::PaddingMask mask;
};

using Shapes = std::vector<std::array<Index, 2>>;
const Shapes shapes = {{500, 500}, {512, 512}, {4096, 4096}};
const Shapes with_decode = {{4096, 1}, {500, 500}, {512, 512}, {4096, 4096}};

}  // namespace

void add_benchmarks() {
  bench::add<CausalCase<float>>("masks/causal/float", {"Tk", "Tq"}, shapes);
  bench::add<WindowCase<float>>("masks/window/float", {"Tk", "Tq"}, with_decode);
  bench::add<PaddingCase<float>>("masks/padding/float", {"Tk", "Tq"}, with_decode);
  bench::add<CausalCase<double>>("masks/causal/double", {"Tk", "Tq"}, {{512, 512}});
  bench::add<CausalCase<Eigen::half>>("masks/causal/half", {"Tk", "Tq"}, {{512, 512}});
  bench::add<CausalCase<Eigen::bfloat16>>("masks/causal/bfloat16", {"Tk", "Tq"}, {{512, 512}});
}
