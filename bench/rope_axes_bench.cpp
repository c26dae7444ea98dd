// SPDX-License-Identifier: MIT
// RoPE with positions of three axes, in the sections of Qwen2-VL, with a table and without one.

#include <posenc/rope.hpp>
#include <posenc/rope_axes.hpp>
#include <posenc/rope_table.hpp>

#include "bench.hpp"

namespace {

using bench::Index;
using bench::Matrix;
using posenc::Positions;
using posenc::Rope;
using posenc::RopeTable;

constexpr Index first_position = 1000, rows_of_image = 64;

posenc::RopeFrequencies frequencies(Index head_dim) {
  posenc::RopeFrequencies f = posenc::rope_frequencies(head_dim, 1e6);
  const Index quarter = head_dim / 8, rest = head_dim / 2 - quarter;
  f.axes = posenc::mrope_chunks({quarter, rest / 2, rest - rest / 2});
  return f;
}

template <class Scalar>
struct AxesCase {
  using Limit = bench::Scale;
  using Real = posenc::detail::compute_t<Scalar>;

  AxesCase(Index num_heads, Index head_dim, Index num_tokens)
      : x(bench::random_matrix<Scalar>(num_heads * head_dim, num_tokens)),
        rope(frequencies(head_dim), {.head_dim = head_dim}),
        ids(static_cast<std::size_t>(3 * num_tokens)) {
    for (Index t = 0; t < num_tokens; ++t) {  // an image in rows
      ids[static_cast<std::size_t>(t)] = first_position;
      ids[static_cast<std::size_t>(num_tokens + t)] = first_position + t / rows_of_image;
      ids[static_cast<std::size_t>(2 * num_tokens + t)] = first_position + t % rows_of_image;
    }
  }
  Positions positions() const { return Positions::axes(ids, 3); }

  /// \param cos_sin of a pair and a position.
  template <class CosSin>
  void plain_rotate(CosSin cos_sin) {
    const Index n = rope.frequencies().size(), head_dim = rope.head_dim(), num_tokens = x.cols();
    for (Index t = 0; t < num_tokens; ++t)
      for (Index i = 0; i < n; ++i) {
        const Index axis = rope.frequencies().axes[static_cast<std::size_t>(i)];
        const auto [cos, sin] = cos_sin(i, ids[static_cast<std::size_t>(axis * num_tokens + t)]);
        for (Index row = 0; row < x.rows(); row += head_dim) {
          const Real a = static_cast<Real>(x(row + i, t)), b = static_cast<Real>(x(row + n + i, t));
          x(row + i, t) = static_cast<Scalar>(a * cos - b * sin);
          x(row + n + i, t) = static_cast<Scalar>(a * sin + b * cos);
        }
      }
  }
  auto& result() { return x; }
  bench::Work work() { return {.tokens = x.cols(), .bytes = 2 * bench::bytes_of(x)}; }

  Matrix<Scalar> x;
  Rope rope;
  std::vector<std::int64_t> ids;
};

template <class Scalar>
struct TableCase : AxesCase<Scalar> {
  using typename AxesCase<Scalar>::Real;

  TableCase(Index num_heads, Index head_dim, Index num_tokens)
      : AxesCase<Scalar>(num_heads, head_dim, num_tokens),
        table(this->rope, std::max(rows_of_image, num_tokens / rows_of_image + 1), first_position) {}

  void ours() { table(this->x, this->positions()); }
  void plain() {
    this->plain_rotate([this](Index i, std::int64_t position) {
      return std::pair(table.cos()(i, position - first_position), table.sin()(i, position - first_position));
    });
  }
  RopeTable<Real> table;
};

template <class Scalar>
struct TableFreeCase : AxesCase<Scalar> {
  using typename AxesCase<Scalar>::Real;
  using AxesCase<Scalar>::AxesCase;

  void ours() { this->rope(this->x, this->positions()); }
  void plain() {
    this->plain_rotate([this](Index i, std::int64_t position) {
      const double angle = static_cast<double>(position) * this->rope.frequencies().values[i];
      return std::pair(static_cast<Real>(std::cos(angle)), static_cast<Real>(std::sin(angle)));
    });
  }
};

using Shapes = std::vector<std::array<Index, 3>>;

template <class Scalar>
void add(const Shapes& with_table, const Shapes& table_free) {
  const std::string scalar = bench::scalar_name<Scalar>();
  bench::add<TableCase<Scalar>>("rope_axes/" + scalar, {"H", "D", "T"}, with_table);
  bench::add<TableFreeCase<Scalar>>("rope_axes/" + scalar + "/table_free", {"H", "D", "T"}, table_free);
}

}  // namespace

void add_benchmarks() {
  add<float>({{32, 128, 1}, {8, 64, 500}, {8, 64, 512}, {16, 80, 512}, {32, 128, 512}, {32, 128, 4096}},
             {{32, 128, 1}, {8, 64, 512}, {32, 128, 512}});
  add<double>({{8, 64, 512}}, {});
  add<Eigen::half>({{8, 64, 512}}, {});
  add<Eigen::bfloat16>({{8, 64, 512}}, {});
}
