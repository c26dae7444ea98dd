// SPDX-License-Identifier: MIT

#include "calls.hpp"

#include <posenc/detail/scalar.hpp>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <utility>

namespace laws {

const char* name(Hook hook) {
  constexpr const char* names[] = {"add_to", "apply_query", "apply_key", "add_bias", "add_scores", "add_values"};
  return names[static_cast<int>(hook)];
}

Case shifted(const Case& c) {
  Case result = c;
  for (std::int64_t& position : result.key_positions) position += c.shift;
  for (std::int64_t& position : result.query_positions) position += c.shift;
  return result;
}

template <class Scalar>
Matrix<Scalar> random_matrix(Index rows, Index cols, std::uint64_t seed) {
  std::mt19937_64 engine(seed);
  Matrix<Scalar> matrix(rows, cols);
  for (Index j = 0; j < cols; ++j)
    for (Index i = 0; i < rows; ++i) {
      const auto uniform = static_cast<float>(static_cast<std::int64_t>(engine()) >> 11) * 0x1p-52f;
      matrix(i, j) = static_cast<Scalar>(static_cast<float>(static_cast<Eigen::bfloat16>(uniform)));
    }
  return matrix;
}

template <class Scalar>
Matrix<double> to_double(const Matrix<Scalar>& x) {
  return x.template cast<posenc::detail::compute_t<Scalar>>().template cast<double>();
}

Matrix<double> lengths(const Matrix<double>& x) { return x.colwise().norm(); }

bool close(const Matrix<double>& a, const Matrix<double>& b, const Matrix<double>& bound) {
  if (a.rows() != b.rows() || a.cols() != b.cols()) return false;
  for (Index j = 0; j < a.cols(); ++j)
    for (Index i = 0; i < a.rows(); ++i) {
      const double x = a(i, j), y = b(i, j);
      if (x == y || (std::isnan(x) && std::isnan(y))) continue;
      if (!(std::abs(x - y) <= bound(bound.rows() == 1 ? 0 : i, bound.cols() == 1 ? 0 : j))) return false;
    }
  return true;
}

namespace {

template <class Scalar>
Matrix<Scalar> columns(const Matrix<Scalar>& x, const std::vector<Index>& indices) {
  Matrix<Scalar> result(x.rows(), x.cols());
  for (Index j = 0; j < x.cols(); ++j) result.col(j) = x.col(indices[static_cast<std::size_t>(j)]);
  return result;
}

template <class Scalar>
Matrix<Scalar> rows(const Matrix<Scalar>& x, const std::vector<Index>& indices) {
  Matrix<Scalar> result(x.rows(), x.cols());
  for (Index i = 0; i < x.rows(); ++i) result.row(i) = x.row(indices[static_cast<std::size_t>(i)]);
  return result;
}

/// The numbers below that of the positions in any order.
std::vector<Index> any_order(const Positions& positions, std::uint64_t seed) {
  std::vector<Index> indices(static_cast<std::size_t>(positions.size()));
  std::iota(indices.begin(), indices.end(), Index{0});
  std::shuffle(indices.begin(), indices.end(), std::mt19937_64(seed));
  return indices;
}

std::vector<std::int64_t> in_order(const Positions& positions, const std::vector<Index>& indices) {
  std::vector<std::int64_t> entries;
  for (const Index i : indices) entries.push_back(positions[i]);
  return entries;
}

}  // namespace

template <class Scalar>
Call<Scalar>::Call(Hook which, Index num_features, const Case& c) : hook(which), at(place(c)) {
  const Index num_keys = at.keys.size(), num_queries = at.queries.size();
  out = random_matrix<Scalar>(writes_scores(hook) ? num_keys : num_features, num_queries, c.seed);
  in.keys = random_matrix<Scalar>(num_features, num_keys, c.seed + 1);
  in.queries = random_matrix<Scalar>(num_features, num_queries, c.seed + 2);
  in.weights = random_matrix<Scalar>(num_keys, num_queries, c.seed + 3).cwiseAbs();
}

template <class Scalar>
Call<Scalar>::Call(Hook which, Matrix<Scalar> before, Inputs<Matrix<Scalar>> inputs, const Place& where)
    : hook(which), out(std::move(before)), in(std::move(inputs)), at(where) {}

template <class Scalar>
Call<Scalar> Call<Scalar>::tile(Index key, Index num_keys, Index query, Index num_queries) const {
  const Index row = writes_scores(hook) ? key : 0, num_rows = writes_scores(hook) ? num_keys : out.rows();
  return {hook,
          out.block(row, query, num_rows, num_queries),
          {in.keys.middleCols(key, num_keys), in.queries.middleCols(query, num_queries),
           in.weights.block(key, query, num_keys, num_queries)},
          at.tile(key, num_keys, query, num_queries)};
}

template <class Scalar>
void Call<Scalar>::place_tile(Matrix<Scalar>& result, const Matrix<Scalar>& part, Index key, Index query) const {
  result.block(writes_scores(hook) ? key : 0, query, part.rows(), part.cols()) = part;
}

template <class Scalar>
Matrix<double> Call<Scalar>::rounding_bound(const Matrix<Scalar>& result) const {
  const Matrix<double> x = to_double(out).cwiseAbs();
  constexpr double eps = epsilon<Scalar>();
  if (hook == Hook::apply_query || hook == Hook::apply_key)
    return 4 * eps * lengths(to_double(out)).replicate(x.rows(), 1);
  if (sums(hook)) {
    const auto n = static_cast<double>(2 + (hook == Hook::add_scores ? in.queries.rows() : at.keys.size()));
    return eps * n * (x.array() + n);
  }
  return 4 * eps * (x + to_double(result).cwiseAbs());
}

template <class Scalar>
bool Call<Scalar>::agree(const Matrix<Scalar>& a, const Matrix<Scalar>& b) const {
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
  constexpr bool rounds_alike = false;
#else
  constexpr bool rounds_alike = true;
#endif
  if (rounds_alike && !sums(hook)) return same_bits(a, b);
  return close(to_double(a), to_double(b), rounding_bound(a));
}

template <class Scalar>
bool Call<Scalar>::is_rounded(const Matrix<Scalar>& stored, const Call<float>& in_float,
                              const Matrix<float>& computed) const {
  const Matrix<double> of_float = in_float.rounding_bound(computed);
  const auto smallest = static_cast<double>(std::numeric_limits<Scalar>::denorm_min());
  Matrix<double> size = to_double(computed).cwiseAbs();
  double roundings = 1;
  if (hook == Hook::add_values) {
    size = of_float / epsilon<float>();
    roundings = static_cast<double>(at.keys.size() + 1);
  }
  const Matrix<double> bound = of_float.array() + roundings / 2 * (epsilon<Scalar>() * size.array() + smallest);
  return close(to_double(stored), to_double(computed), bound);
}

template <class Scalar>
Permuted<Scalar>::Permuted(const Call<Scalar>& given, std::uint64_t seed)
    : keys(any_order(given.at.keys, seed)),
      queries(any_order(given.at.queries, seed + 1)),
      key_positions(in_order(given.at.keys, keys)),
      query_positions(in_order(given.at.queries, queries)),
      call(given) {
  call.out = permute(given.out);
  call.in = {columns(given.in.keys, keys), columns(given.in.queries, queries),
             rows(columns(given.in.weights, queries), keys)};
  call.at = {.keys = key_positions, .queries = query_positions, .head = given.at.head};
}

template <class Scalar>
Matrix<Scalar> Permuted<Scalar>::permute(const Matrix<Scalar>& out) const {
  return writes_scores(call.hook) ? rows(columns(out, queries), keys) : columns(out, queries);
}

template <class Scalar>
std::vector<BadCall<Scalar>> BadCall<Scalar>::all(const Call<Scalar>& given, const About& about) {
  const Hook hook = given.hook;
  const Index num_keys = given.at.keys.size(), num_queries = given.at.queries.size();
  if (num_keys == 0 || num_queries == 0 || std::count(about.idle.begin(), about.idle.end(), hook)) return {};
  std::vector<BadCall> calls;
  const auto bad_shape = [&](const char* what) -> Call<Scalar>& {
    calls.push_back({what, Refusal::invalid_argument, given});
    return calls.back().call;
  };

  bad_shape("one query position too few").at.queries = given.at.queries.segment(0, num_queries - 1);
  if (!writes_features(hook)) bad_shape("one key position too few").at.keys = given.at.keys.segment(0, num_keys - 1);
  if (hook != Hook::add_bias) {
    Call<Scalar>& bad = bad_shape("one feature too many");
    Matrix<Scalar>& wider = hook == Hook::add_scores ? bad.in.queries : bad.out;
    wider.conservativeResize(wider.rows() + 1, wider.cols());
    wider.row(wider.rows() - 1).setZero();
  }
  if (hook == Hook::add_scores)
    bad_shape("one query too few").in.queries.conservativeResize(Eigen::NoChange, num_queries - 1);
  if (hook == Hook::add_values)
    bad_shape("one row of weights too few").in.weights.conservativeResize(num_keys - 1, Eigen::NoChange);

  for (const std::int64_t position : about.refused) {
    std::vector<std::int64_t> positions;
    for (Index t = 0; t < num_queries - 1; ++t) positions.push_back(given.at.queries[t]);
    positions.push_back(position);
    calls.push_back({"a position out of range", Refusal::out_of_range, given, positions});
  }
  if (hook != Hook::add_to)
    for (const Index head : about.refused_heads) {
      calls.push_back({"a head out of range", Refusal::out_of_range, given});
      calls.back().call.at.head = head;
    }
  return calls;
}

// All of it, for every scalar.

template Matrix<float> random_matrix<float>(Index, Index, std::uint64_t);
template Matrix<double> random_matrix<double>(Index, Index, std::uint64_t);
template Matrix<Eigen::half> random_matrix<Eigen::half>(Index, Index, std::uint64_t);
template Matrix<Eigen::bfloat16> random_matrix<Eigen::bfloat16>(Index, Index, std::uint64_t);

template Matrix<double> to_double(const Matrix<float>&);
template Matrix<double> to_double(const Matrix<double>&);
template Matrix<double> to_double(const Matrix<Eigen::half>&);
template Matrix<double> to_double(const Matrix<Eigen::bfloat16>&);

template struct Call<float>;
template struct Call<double>;
template struct Call<Eigen::half>;
template struct Call<Eigen::bfloat16>;

template struct Permuted<float>;
template struct Permuted<double>;
template struct Permuted<Eigen::half>;
template struct Permuted<Eigen::bfloat16>;

template struct BadCall<float>;
template struct BadCall<double>;
template struct BadCall<Eigen::half>;
template struct BadCall<Eigen::bfloat16>;

}  // namespace laws
