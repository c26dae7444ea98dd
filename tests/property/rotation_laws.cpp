// SPDX-License-Identifier: MIT

#include "rotation_laws.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace laws {
namespace {

/// R_p x, with a position for each column.
template <class Scalar>
Matrix<double> turned(const Hooks<Scalar>& hooks, Hook hook, const Matrix<Scalar>& x,
                      const std::vector<std::int64_t>& positions, Index head) {
  Matrix<Scalar> y = x;
  hooks.call(hook, y, {}, {.keys = {}, .queries = positions, .head = head});
  return to_double(y);
}

/// Two positions a column, such that their sum and difference are positions as well.
struct TwoPositions {
  std::vector<std::int64_t> a, b, sum, difference;

  explicit TwoPositions(const Case& c) {
    for (std::size_t t = 0; t < c.query_positions.size(); ++t) {
      a.push_back(c.query_positions[t] / 2);
      b.push_back(c.key_positions.empty() ? 0 : c.key_positions[t % c.key_positions.size()] / 2);
      sum.push_back(a[t] + b[t]);
      difference.push_back(b[t] - a[t]);
    }
  }
};

}  // namespace

template <class Scalar>
Verdict LengthStays::test(const Hooks<Scalar>& hooks, Hook hook, const Case& c) {
  const Call<Scalar> given = hooks.given(hook, c);
  const Matrix<double> before = lengths(to_double(given.out));
  const Matrix<double> after = lengths(turned(hooks, hook, given.out, c.query_positions, c.head));
  if (close(before, after, 3 * epsilon<Scalar>() * before)) return {};
  return Verdict("the length of a vector changes");
}

template <class Scalar>
Verdict Orthogonal::test(const Hooks<Scalar>& hooks, Hook hook, const Case& c) {
  const Index n = hooks.about.num_features;
  const Matrix<Scalar> identity = Matrix<Scalar>::Identity(n, n);
  const Matrix<double> bound = Matrix<double>::Constant(1, 1, 6 * epsilon<Scalar>());
  for (std::size_t t = 0; t < std::min<std::size_t>(c.query_positions.size(), 2); ++t) {
    const std::vector<std::int64_t> everywhere(static_cast<std::size_t>(n), c.query_positions[t]);
    const Matrix<double> r = turned(hooks, hook, identity, everywhere, c.head);
    if (!close(r.transpose() * r, to_double(identity), bound)) return Verdict("a rotation is not orthogonal");
  }
  return {};
}

template <class Scalar>
Verdict SumOfPositions::test(const Hooks<Scalar>& hooks, Hook hook, const Case& c) {
  const TwoPositions at(c);
  const Call<Scalar> given = hooks.given(hook, c);
  Matrix<Scalar> x = given.out;
  hooks.call(hook, x, given.in, {.keys = {}, .queries = at.b, .head = c.head});
  if (close(turned(hooks, hook, x, at.a, c.head), turned(hooks, hook, given.out, at.sum, c.head),
            9 * epsilon<Scalar>() * lengths(to_double(given.out))))
    return {};
  return Verdict("two rotations are not the one of the sum");
}

template <class Scalar>
Verdict RelativeProduct::test(const Hooks<Scalar>& hooks, Hook hook, const Case& c) {
  const TwoPositions at(c);
  const Call<Scalar> given = hooks.given(hook, c);
  const Matrix<double> x = to_double(given.out), y = to_double(given.in.queries);
  const Matrix<double> x_a = turned(hooks, Hook::apply_query, given.out, at.a, c.head);
  const Matrix<double> y_b = turned(hooks, Hook::apply_key, given.in.queries, at.b, c.head);
  const Matrix<double> y_difference = turned(hooks, Hook::apply_key, given.in.queries, at.difference, c.head);
  if (close(x_a.cwiseProduct(y_b).colwise().sum(), x.cwiseProduct(y_difference).colwise().sum(),
            9 * epsilon<Scalar>() * lengths(x).cwiseProduct(lengths(y))))
    return {};
  return Verdict("the product depends on more than the difference of positions");
}

template Verdict LengthStays::test(const Hooks<float>&, Hook, const Case&);
template Verdict LengthStays::test(const Hooks<double>&, Hook, const Case&);
template Verdict Orthogonal::test(const Hooks<float>&, Hook, const Case&);
template Verdict Orthogonal::test(const Hooks<double>&, Hook, const Case&);
template Verdict SumOfPositions::test(const Hooks<float>&, Hook, const Case&);
template Verdict SumOfPositions::test(const Hooks<double>&, Hook, const Case&);
template Verdict RelativeProduct::test(const Hooks<float>&, Hook, const Case&);
template Verdict RelativeProduct::test(const Hooks<double>&, Hook, const Case&);

}  // namespace laws
