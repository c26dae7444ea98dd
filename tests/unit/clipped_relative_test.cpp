// SPDX-License-Identifier: MIT

#include <posenc/clipped_relative.hpp>

#include <Eigen/Core>
#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <utility>
#include <vector>

#include "../catch.hpp"
#include "../instrumented.hpp"

using namespace posenc;
using Catch::Matchers::Message;

static_assert(ScoreTerm<ClippedRelative<float>> && ValueTerm<ClippedRelative<float>>);
static_assert(ScoreTerm<ClippedRelative<double>, double> && ValueTerm<ClippedRelative<double>, double>);
static_assert(ScoreTerm<ClippedRelative<Eigen::half>, float> && is_relative<ClippedRelative<float>>);
static_assert(!ScoreBias<ClippedRelative<float>> && !QueryKeyEncoding<ClippedRelative<float>>);

// every member is compiled for every scalar, used or not
template class posenc::ClippedRelative<float>;
template class posenc::ClippedRelative<double>;
template class posenc::ClippedRelative<Eigen::half>;
template class posenc::ClippedRelative<Eigen::bfloat16>;

namespace {

using Entries = std::vector<std::int64_t>;

/// As the paper writes it: a vector for every pair of a key and a query, Tk x Tq of them, and three loops.
struct Naive {
  Matrix<double> key_table, value_table;  ///< of one head
  std::int64_t left, right;
  bool query_minus_key = false, with_keys = false;

  Index column(std::int64_t key, std::int64_t query) const {
    const std::int64_t distance = query_minus_key ? query - key : key - query;
    return static_cast<Index>(std::min(std::max(distance, -left), right) + left);
  }
  Matrix<double> scores(const Matrix<double>& k, const Matrix<double>& q, const Entries& keys,
                        const Entries& queries) const {
    Matrix<double> s = Matrix<double>::Zero(k.cols(), q.cols());
    for (Index n = 0; n < k.cols(); ++n)
      for (Index m = 0; m < q.cols(); ++m)
        for (Index i = 0; i < q.rows(); ++i) {
          const double a =
              key_table(i, column(keys[static_cast<std::size_t>(n)], queries[static_cast<std::size_t>(m)]));
          s(n, m) += q(i, m) * a + (with_keys ? k(i, n) * a : 0);
        }
    return s;
  }
  Matrix<double> values(const Matrix<double>& w, const Entries& keys, const Entries& queries) const {
    Matrix<double> o = Matrix<double>::Zero(value_table.rows(), w.cols());
    for (Index n = 0; n < w.rows(); ++n)
      for (Index m = 0; m < w.cols(); ++m)
        for (Index i = 0; i < o.rows(); ++i)
          o(i, m) +=
              w(n, m) * value_table(i, column(keys[static_cast<std::size_t>(n)], queries[static_cast<std::size_t>(m)]));
    return o;
  }
};

/// What the encoding adds to zeros must be what the loops add.
template <class Scalar>
void check_against(const Naive& naive, const ClippedRelative<Scalar>& encoding, const Entries& keys,
                   const Entries& queries, Index head = 0) {
  const auto tk = static_cast<Index>(keys.size()), tq = static_cast<Index>(queries.size());
  const Matrix<double> k = Matrix<double>::Random(naive.key_table.rows(), tk);
  const Matrix<double> q = Matrix<double>::Random(naive.key_table.rows(), tq);
  const Matrix<double> w = Matrix<double>::Random(tk, tq).cwiseAbs();
  Matrix<double> s = Matrix<double>::Zero(tk, tq), o = Matrix<double>::Zero(naive.value_table.rows(), tq);
  if (encoding.has_keys()) {
    encoding.add_scores(s, k, q, keys, queries, head);
    CHECK((s - naive.scores(k, q, keys, queries)).cwiseAbs().maxCoeff() < 1e-13);
  }
  if (encoding.has_values()) {
    encoding.add_values(o, w, keys, queries, head);
    CHECK((o - naive.values(w, keys, queries)).cwiseAbs().maxCoeff() < 1e-13);
  }
}

const Entries in_order{0, 1, 2, 3, 4, 5, 6, 7, 8};
const Entries unordered{7, -3, 7, 7, 100, 0, -3, 1};
const Entries behind{8, 9};

}  // namespace

TEST_CASE("The columns are those of the picture", "[clipped_relative]") {
  const ClippedRelative<float> relative(Matrix<float>::Zero(1, 5), {});
  CHECK(relative.max_left() == 2);
  CHECK(relative.max_right() == 2);
  const Index expected[5][5] = {{2, 1, 0, 0, 0},  //
                                {3, 2, 1, 0, 0},
                                {4, 3, 2, 1, 0},
                                {4, 4, 3, 2, 1},
                                {4, 4, 4, 3, 2}};
  for (int key = 0; key < 5; ++key)
    for (int query = 0; query < 5; ++query) CHECK(relative.column(key, query) == expected[key][query]);
  const std::int64_t far = std::int64_t{1} << 62;
  CHECK(relative.column(-far, far) == 0);
  CHECK(relative.column(far, -far) == 4);
}

TEST_CASE("Keys and values against three loops, wherever the tokens are", "[clipped_relative]") {
  const Naive naive{
      .key_table = Matrix<double>::Random(5, 7), .value_table = Matrix<double>::Random(3, 7), .left = 3, .right = 3};
  const ClippedRelative<double> relative(naive.key_table, naive.value_table);
  for (const Entries& keys : {in_order, unordered})
    for (const Entries& queries : {in_order, unordered, behind}) check_against(naive, relative, keys, queries);
}

TEST_CASE("Each table alone", "[clipped_relative]") {
  const Naive naive{
      .key_table = Matrix<double>::Random(4, 3), .value_table = Matrix<double>::Random(6, 3), .left = 1, .right = 1};
  const ClippedRelative<double> keys_alone(naive.key_table, {}), values_alone({}, naive.value_table);
  CHECK((keys_alone.has_keys() && !keys_alone.has_values() && !values_alone.has_keys() && values_alone.has_values()));
  check_against(naive, keys_alone, in_order, unordered);
  check_against(naive, values_alone, in_order, unordered);

  Matrix<double> untouched = Matrix<double>::Constant(6, 2, 5);
  keys_alone.add_values(untouched, Matrix<double>::Ones(9, 2), in_order, behind);
  CHECK(untouched == Matrix<double>::Constant(6, 2, 5));
}

TEST_CASE("Clipping may differ to the left and to the right", "[clipped_relative]") {
  const Index left = GENERATE(0, 1, 4);
  const Naive naive{.key_table = Matrix<double>::Random(5, 5),
                    .value_table = Matrix<double>::Random(5, 5),
                    .left = left,
                    .right = 4 - left};
  const ClippedRelative<double> relative(naive.key_table, naive.value_table, {.max_left = left});
  CHECK(relative.max_left() == left);
  CHECK(relative.max_right() == 4 - left);
  check_against(naive, relative, in_order, in_order);
  check_against(naive, relative, unordered, behind);
  // An even number of columns is only for those who say where the middle is.
  CHECK(ClippedRelative<double>(Matrix<double>::Zero(5, 4), {}, {.max_left = 1}).max_right() == 2);
}

TEST_CASE("Heads may have tables of their own, one below the other", "[clipped_relative]") {
  const Matrix<double> keys = Matrix<double>::Random(15, 5), values = Matrix<double>::Random(6, 5);
  const ClippedRelative<double> relative(keys, values, {.num_heads = 3});
  for (Index head = 0; head < 3; ++head)
    check_against({.key_table = keys.middleRows(5 * head, 5),
                   .value_table = values.middleRows(2 * head, 2),
                   .left = 2,
                   .right = 2},
                  relative, unordered, in_order, head);
  // A shared table serves any head.
  const ClippedRelative<double> shared(keys.topRows(5), {});
  check_against({.key_table = keys.topRows(5), .value_table = values, .left = 2, .right = 2}, shared, in_order, behind,
                11);
}

TEST_CASE("BERT counts the other way round and does not clip", "[clipped_relative]") {
  const bool with_keys = GENERATE(false, true);
  const Index longest = 9;
  const Naive naive{.key_table = Matrix<double>::Random(4, 2 * longest - 1),
                    .value_table = Matrix<double>::Zero(4, 1),
                    .left = longest - 1,
                    .right = longest - 1,
                    .query_minus_key = true,
                    .with_keys = with_keys};
  const auto bert =
      ClippedRelative<double>::bert(naive.key_table, with_keys ? RelativeScores::query_and_key : RelativeScores::query);
  CHECK_FALSE(bert.has_values());
  CHECK(bert.column(0, 8) == 16);
  CHECK(bert.column(8, 0) == 0);
  check_against(naive, bert, in_order, in_order);
  check_against(naive, bert, in_order, {3, 3, 0});

  Matrix<double> scores = Matrix<double>::Ones(1, 2);
  const Matrix<double> k = Matrix<double>::Ones(4, 1), q = Matrix<double>::Ones(4, 2);
  CHECK_THROWS_MATCHES(bert.add_scores(scores, k, q, positions(1), positions(2, 8)), std::out_of_range,
                       Message("posenc::ClippedRelative: a distance must be in the table, got 9"));
  CHECK(scores == Matrix<double>::Ones(1, 2));
}

TEST_CASE("It adds to what is there, on tables and matrices of any scalar", "[clipped_relative]") {
  const Matrix<double> keys = Matrix<double>::Random(4, 3), values = Matrix<double>::Random(4, 3);
  const ClippedRelative<Eigen::bfloat16> small(keys.cast<Eigen::bfloat16>(), values.cast<Eigen::bfloat16>());
  const Naive naive{.key_table = small.key_table().cast<double>(),
                    .value_table = small.value_table().cast<double>(),
                    .left = 1,
                    .right = 1};
  check_against(naive, small, in_order, unordered);

  const Matrix<float> q = Matrix<float>::Random(4, 2), k = Matrix<float>::Random(4, 9),
                      before = Matrix<float>::Random(9, 2);
  Matrix<float> scores = before;
  small.add_scores(scores, k, q, in_order, behind);
  const Matrix<float> expected =
      before + naive.scores(k.cast<double>(), q.cast<double>(), in_order, behind).cast<float>();
  CHECK(scores.isApprox(expected, 1e-6f));
}

TEST_CASE("No keys, no queries", "[clipped_relative]") {
  const ClippedRelative<float> relative(Matrix<float>::Random(4, 3), Matrix<float>::Random(4, 3));
  Matrix<float> no_queries(2, 0), no_keys(0, 2), outputs = Matrix<float>::Ones(4, 2);
  const Matrix<float> q(4, 2), none(4, 0);
  CHECK_NOTHROW(relative.add_scores(no_queries, q, none, positions(2), positions(0)));
  CHECK_NOTHROW(relative.add_scores(no_keys, none, q, positions(0), positions(2)));
  relative.add_values(outputs, no_keys, positions(0), positions(2));
  CHECK(outputs == Matrix<float>::Ones(4, 2));
}

TEST_CASE("Tables that make no sense are refused", "[clipped_relative]") {
  const auto make = [](Index key_rows, Index key_cols, Index value_rows, Index value_cols,
                       const ClippedRelativeOptions& options = {}) {
    return ClippedRelative<float>(Matrix<float>(key_rows, key_cols), Matrix<float>(value_rows, value_cols), options);
  };
  CHECK_THROWS_MATCHES(make(0, 0, 0, 0), std::invalid_argument,
                       Message("posenc::ClippedRelative: there must be a key table or a value table, got 0"));
  CHECK_THROWS_MATCHES(
      make(4, 5, 4, 3), std::invalid_argument,
      Message("posenc::ClippedRelative: columns of the value table must be those of the key table = 5, got 3"));
  CHECK_THROWS_MATCHES(
      make(4, 4, 0, 0), std::invalid_argument,
      Message("posenc::ClippedRelative: a table without max_left must have an odd number of columns, got 4"));
  CHECK_THROWS_MATCHES(make(4, 4, 0, 0, {.max_left = 4}), std::invalid_argument,
                       Message("posenc::ClippedRelative: max_left must be a column of the table, got 4"));
  CHECK_THROWS_AS(make(4, 4, 0, 0, {.max_left = -1}), std::invalid_argument);
  CHECK_THROWS_MATCHES(make(4, 5, 0, 0, {.num_heads = 0}), std::invalid_argument,
                       Message("posenc::ClippedRelative: num_heads must be positive, got 0"));
  CHECK_THROWS_MATCHES(
      make(4, 5, 0, 0, {.num_heads = 3}), std::invalid_argument,
      Message("posenc::ClippedRelative: rows of the key table must be a multiple of num_heads, got 4"));
  CHECK_THROWS_MATCHES(
      make(0, 0, 4, 5, {.num_heads = 3}), std::invalid_argument,
      Message("posenc::ClippedRelative: rows of the value table must be a multiple of num_heads, got 4"));
}

TEST_CASE("What does not fit is refused, and nothing is written", "[clipped_relative]") {
  const ClippedRelative<float> relative(Matrix<float>::Random(8, 3), Matrix<float>::Random(4, 3), {.num_heads = 2});
  const Matrix<float> q = Matrix<float>::Random(4, 2), k = Matrix<float>::Random(4, 3), w = Matrix<float>::Random(3, 2);
  const Matrix<float> scores_before = Matrix<float>::Random(3, 2), outputs_before = Matrix<float>::Random(2, 2);
  Matrix<float> s = scores_before, o = outputs_before;

  CHECK_THROWS_MATCHES(
      relative.add_scores(s, k, q, positions(2), positions(2)), std::invalid_argument,
      Message("posenc::ClippedRelative: rows of the scores must be the number of key positions = 2, got 3"));
  CHECK_THROWS_MATCHES(
      relative.add_scores(s, k, q.topRows(3), positions(3), positions(2)), std::invalid_argument,
      Message("posenc::ClippedRelative: rows of the queries must be those of the key table = 4, got 3"));
  CHECK_THROWS_MATCHES(
      relative.add_scores(s, k, q.leftCols(1), positions(3), positions(2)), std::invalid_argument,
      Message("posenc::ClippedRelative: columns of the queries must be those of the scores = 2, got 1"));
  for (const Index head : {-1, 2}) {
    CHECK_THROWS_AS(relative.add_scores(s, k, q, positions(3), positions(2), head), std::out_of_range);
    CHECK_THROWS_AS(relative.add_values(o, w, positions(3), positions(2), head), std::out_of_range);
  }
  CHECK_THROWS_MATCHES(relative.add_scores(s, k, q, positions(3), positions(2), 2), std::out_of_range,
                       Message("posenc::ClippedRelative: head must be below num_heads, got 2"));
  CHECK_THROWS_MATCHES(
      relative.add_values(o.topRows(1), w, positions(3), positions(2)), std::invalid_argument,
      Message("posenc::ClippedRelative: rows of the outputs must be those of the value table = 2, got 1"));
  CHECK_THROWS_MATCHES(
      relative.add_values(o.leftCols(1), w, positions(3), positions(2)), std::invalid_argument,
      Message("posenc::ClippedRelative: columns of the outputs must be those of the weights = 2, got 1"));
  CHECK_THROWS_AS(relative.add_values(o, w.topRows(2), positions(3), positions(2)), std::invalid_argument);

  const ClippedRelative<float> with_keys(Matrix<float>::Random(4, 3), {}, {.scores = RelativeScores::query_and_key});
  CHECK_THROWS_MATCHES(with_keys.add_scores(s, k.topRows(2), q, positions(3), positions(2)), std::invalid_argument,
                       Message("posenc::ClippedRelative: rows of the keys must be those of the key table = 4, got 2"));
  CHECK_THROWS_MATCHES(
      with_keys.add_scores(s, k.leftCols(2), q, positions(3), positions(2)), std::invalid_argument,
      Message("posenc::ClippedRelative: columns of the keys must be the rows of the scores = 3, got 2"));
  CHECK(s == scores_before);
  CHECK(o == outputs_before);
}

TEST_CASE("Contiguous positions in blocks against three loops", "[clipped_relative]") {
  const bool query_minus_key = GENERATE(false, true);
  const auto [num_distances, left] = GENERATE(std::pair<Index, Index>{129, 64}, std::pair<Index, Index>{40, 3},
                                              std::pair<Index, Index>{1501, 750}, std::pair<Index, Index>{1, 0});
  const Naive naive{.key_table = Matrix<double>::Random(5, num_distances),
                    .value_table = Matrix<double>::Random(4, num_distances),
                    .left = left,
                    .right = num_distances - 1 - left,
                    .query_minus_key = query_minus_key,
                    .with_keys = GENERATE(false, true)};
  const ClippedRelative<double> relative(
      naive.key_table, naive.value_table,
      {.max_left = left,
       .direction = query_minus_key ? RelativeDirection::query_minus_key : RelativeDirection::key_minus_query,
       .scores = naive.with_keys ? RelativeScores::query_and_key : RelativeScores::query});
  for (const std::int64_t first : {-900, 0, 30}) {
    if (is_instrumented && first != 30) continue;
    Entries keys, queries;
    for (std::int64_t t = 0; t < 1100; ++t) keys.push_back(t);
    for (std::int64_t t = 0; t < 70; ++t) queries.push_back(first + t);
    const Matrix<double> k = Matrix<double>::Random(5, 1100), q = Matrix<double>::Random(5, 70),
                         w = Matrix<double>::Random(1100, 70).cwiseAbs();
    Matrix<double> s = Matrix<double>::Zero(1100, 70), o = Matrix<double>::Zero(4, 70);
    relative.add_scores(s, k, q, positions(1100), positions(70, first));
    relative.add_values(o, w, positions(1100), positions(70, first));
    CHECK((s - naive.scores(k, q, keys, queries)).cwiseAbs().maxCoeff() < 1e-13);
    CHECK((o - naive.values(w, keys, queries)).cwiseAbs().maxCoeff() < 1e-11);
  }
}
