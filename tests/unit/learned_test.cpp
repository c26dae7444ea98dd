// SPDX-License-Identifier: MIT

#include <posenc/learned.hpp>

#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "../catch.hpp"

using namespace posenc;
using Catch::Matchers::WithinAbs;

static_assert(InputEncoding<LearnedAbsolute<float>, float> && InputEncoding<LearnedAbsolute<double>, float>);
static_assert(InputEncoding<LearnedAbsolute<float>, Eigen::half>);
static_assert(InputEncoding<LearnedAbsolute<Eigen::bfloat16>, float>);
static_assert(!QueryKeyEncoding<LearnedAbsolute<float>> && !ScoreBias<LearnedAbsolute<float>>);

// every member is compiled for every scalar, used or not
template class posenc::LearnedAbsolute<float>;
template class posenc::LearnedAbsolute<double>;
template class posenc::LearnedAbsolute<Eigen::half>;
template class posenc::LearnedAbsolute<Eigen::bfloat16>;

namespace {

template <class Scalar>
using RowMajor = Eigen::Matrix<Scalar, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr std::int64_t first_int64 = std::numeric_limits<std::int64_t>::min();
constexpr std::int64_t last_int64 = std::numeric_limits<std::int64_t>::max();

template <class Scalar>
Matrix<Scalar> random_matrix(Index rows, Index cols) {
  return Matrix<double>::Random(rows, cols).template cast<Scalar>();
}

/// What is added at the given positions.
template <class Scalar>
Matrix<Scalar> rows_at(const LearnedAbsolute<Scalar>& learned, const Positions& where) {
  Matrix<Scalar> x = Matrix<Scalar>::Zero(learned.dim(), where.size());
  learned(x, where);
  return x;
}

/// A table of one feature with the given columns.
Matrix<double> one_feature(const std::vector<double>& values) {
  return Eigen::Map<const Matrix<double>>(values.data(), 1, static_cast<Index>(values.size()));
}

template <class Action>
std::string message_of(Action action) {
  try {
    action();
  } catch (const std::exception& error) {
    return error.what();
  }
  return "nothing thrown";
}

/// Bilinear interpolation as it is usually written, with coordinates in double and without any care for exactness.
double bilinear(const Matrix<double>& grid, double row, double col) {
  const auto clamped = [](double at, Index size) { return std::min(std::max(at, 0.0), static_cast<double>(size - 1)); };
  row = clamped(row, grid.rows());
  col = clamped(col, grid.cols());
  double sum = 0;  // each old point weighs by a tent of width 1 around it
  for (Index r = 0; r < grid.rows(); ++r)
    for (Index c = 0; c < grid.cols(); ++c)
      sum += grid(r, c) * std::max(0.0, 1 - std::abs(row - static_cast<double>(r))) *
             std::max(0.0, 1 - std::abs(col - static_cast<double>(c)));
  return sum;
}

double old_coordinate(Index k, Index from, Index to, TableAlignment alignment) {
  const auto at = static_cast<double>(k), old_size = static_cast<double>(from), new_size = static_cast<double>(to);
  if (alignment == TableAlignment::centers) return (at + 0.5) * old_size / new_size - 0.5;
  return to == 1 ? 0 : at * (old_size - 1) / (new_size - 1);
}

}  // namespace

TEST_CASE("learned: each token gets the column of its position", "[learned]") {
  const Matrix<float> table = random_matrix<float>(5, 9);
  const LearnedAbsolute<float> learned(table);
  CHECK(learned.dim() == 5);
  CHECK(learned.num_positions() == 9);
  CHECK(learned.table() == table);

  CHECK(rows_at(learned, positions(9)) == table);
  CHECK(rows_at(learned, positions(3, 4)) == table.middleCols(4, 3));
  const std::vector<std::int64_t> unordered{8, 0, 0, 3};
  const Matrix<float> rows = rows_at(learned, unordered);
  for (Index t = 0; t < 4; ++t) CHECK(rows.col(t) == table.col(unordered[static_cast<std::size_t>(t)]));

  Matrix<float> x = random_matrix<float>(5, 4);
  const Matrix<float> sum = x + rows;
  learned.add_to(x, unordered);
  CHECK(x == sum);

  const LearnedAbsolute deduced(table);
  CHECK(std::is_same_v<decltype(deduced)::Scalar, float>);
}

TEST_CASE("learned: a row-major [N, D] buffer is a table as it lies", "[learned]") {
  const std::vector<float> weight{1, 2, 3, 4, 5, 6};  // nn.Embedding(2, 3): two rows
  const LearnedAbsolute<float> learned(Eigen::Map<const Matrix<float>>(weight.data(), 3, 2));
  CHECK(rows_at(learned, positions(1, 1)) == Eigen::Vector3f(4, 5, 6));
}

TEST_CASE("learned: offset and scale", "[learned]") {
  const Matrix<float> table = random_matrix<float>(4, 8);
  const LearnedAbsolute<float> later(table, {.offset = 3, .scale = 0.5});
  CHECK(rows_at(later, positions(5)) == 0.5F * table.rightCols(5));
  CHECK(rows_at(later, positions(2, -3)) == 0.5F * table.leftCols(2));
  const LearnedAbsolute<float> earlier(table, {.offset = -100});
  CHECK(rows_at(earlier, positions(8, 100)) == table);
}

TEST_CASE("learned: presets", "[learned]") {
  const Matrix<float> table = random_matrix<float>(4, 10);
  const std::vector<int> mask{0, 0, 1, 1, 1};

  const LearnedAbsolute<float> bart(table, LearnedAbsoluteOptions::bart());
  CHECK(rows_at(bart, positions(3, 4)) == table.middleCols(6, 3));

  const LearnedAbsolute<float> opt(table, LearnedAbsoluteOptions::opt());
  const Matrix<float> padded = rows_at(opt, padded_positions(mask, {.padding = -1}));
  CHECK(padded.col(0) == table.col(1));
  CHECK(padded.col(1) == table.col(1));
  CHECK(padded.rightCols(3) == table.middleCols(2, 3));

  const LearnedAbsolute<float> roberta(table, LearnedAbsoluteOptions::roberta(4));
  const Matrix<float> shifted = rows_at(roberta, padded_positions(mask, {.padding = -1}));
  CHECK(shifted.col(0) == table.col(4));
  CHECK(shifted.rightCols(3) == table.middleCols(5, 3));
  const LearnedAbsolute<float> with_ids(table);
  CHECK(shifted == rows_at(with_ids, padded_positions(mask, {.first = 5, .padding = 4})));

  const LearnedAbsolute<float> scaled(table, LearnedAbsoluteOptions::x_transformers(4));
  CHECK(rows_at(scaled, positions(10)) == 0.5F * table);
}

TEST_CASE("learned: a position outside the table is an error unless asked for", "[learned]") {
  const Matrix<float> table = random_matrix<float>(3, 4);
  const std::vector<std::int64_t> where{-3, -2, 1, 2, first_int64, last_int64};  // -2 ... 1 are in the table
  const auto with = [&](OutOfRange out_of_range) {
    return LearnedAbsolute<float>(table, {.offset = 2, .out_of_range = out_of_range});
  };

  SECTION("error, before anything is written") {
    for (const std::int64_t bad : {std::int64_t{-3}, std::int64_t{2}, first_int64, last_int64}) {
      Matrix<float> x = random_matrix<float>(3, 3);
      const Matrix<float> before = x;
      const std::vector<std::int64_t> last_is_bad{0, 1, bad};
      CHECK_THROWS_AS(with(OutOfRange::error)(x, last_is_bad), std::out_of_range);
      CHECK(x == before);
    }
    Matrix<float> x = Matrix<float>::Zero(3, 2);
    CHECK(message_of([&] { with(OutOfRange::error)(x, positions(2, 1)); }) ==
          "posenc::LearnedAbsolute: positions must be in the table, got 2");
    with(OutOfRange::error)(x, positions(2, 0));
    CHECK(x == table.rightCols(2));
  }
  SECTION("clamp to the nearest column") {
    const Matrix<float> rows = rows_at(with(OutOfRange::clamp), where);
    for (const Index t : {0, 1, 4}) CHECK(rows.col(t) == table.col(0));
    for (const Index t : {2, 3, 5}) CHECK(rows.col(t) == table.col(3));
  }
  SECTION("skip the token") {
    const Matrix<float> rows = rows_at(with(OutOfRange::skip), where);
    for (const Index t : {0, 3, 4, 5}) CHECK(rows.col(t).isZero(0));
    CHECK(rows.col(1) == table.col(0));
    CHECK(rows.col(2) == table.col(3));
  }
  SECTION("no sum with an offset wraps around") {
    const std::int64_t far = std::int64_t{1} << 62;
    for (const std::int64_t offset : {far, -far})
      for (const std::int64_t position : {first_int64, std::int64_t{0}, last_int64}) {
        const LearnedAbsolute<float> learned(table, {.offset = offset, .out_of_range = OutOfRange::clamp});
        const bool before = position < -offset;
        CHECK(rows_at(learned, positions(1, position)) == table.col(before ? 0 : 3));
      }
  }
}

TEMPLATE_TEST_CASE("learned: every view gives what the plain matrix gives", "[learned]", float, double, Eigen::half,
                   Eigen::bfloat16) {
  using Stride = Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>;
  const Index tokens = 6;
  for (const Index dim : {1, 2, 7, 12}) {
    const LearnedAbsolute<TestType> learned(random_matrix<TestType>(dim, 5),
                                            {.offset = 1, .scale = 0.5, .out_of_range = OutOfRange::skip});
    const Positions where = positions(tokens, -2);  // the first is skipped
    const Matrix<TestType> start = random_matrix<TestType>(dim, tokens);
    Matrix<TestType> plain = start;
    learned(plain, where);
    CHECK(plain.col(0) == start.col(0));
    for (Index t = 1; t < tokens; ++t)
      for (Index i = 0; i < dim; ++i) {
        using Real = detail::compute_t<TestType>;
        const Real sum = static_cast<Real>(start(i, t)) + Real(0.5) * static_cast<Real>(learned.table()(i, t - 1));
        CHECK(plain(i, t) == static_cast<TestType>(sum));
      }

    RowMajor<TestType> row_major = start;
    learned(row_major, where);
    CHECK(row_major == plain);

    Matrix<TestType> transposed = start.transpose();
    learned(transposed.transpose(), where);
    CHECK(transposed.transpose() == plain);

    Matrix<TestType> around = random_matrix<TestType>(dim + 3, tokens + 2);
    const Matrix<TestType> before = around;
    around.block(1, 1, dim, tokens) = start;
    learned(around.block(1, 1, dim, tokens), where);
    CHECK(around.block(1, 1, dim, tokens) == plain);
    around.block(1, 1, dim, tokens) = before.block(1, 1, dim, tokens);
    CHECK(around == before);

    std::vector<TestType> memory(static_cast<std::size_t>(3 * dim * tokens), TestType(0));
    Eigen::Map<Matrix<TestType>, 0, Stride> strided(memory.data(), dim, tokens, Stride(3 * dim, 3));
    strided = start;
    learned(strided, where);
    CHECK(strided == plain);

    Eigen::Array<TestType, Eigen::Dynamic, Eigen::Dynamic> array = start.array();
    learned(array, where);
    CHECK((array.matrix() == plain));
  }
}

TEST_CASE("learned: the table and x may hold different scalars", "[learned]") {
  const Matrix<double> table = random_matrix<double>(6, 4);
  Matrix<float> x = Matrix<float>::Zero(6, 4);
  LearnedAbsolute<double>{table}(x, positions(4));
  CHECK(x == table.cast<float>());

  Matrix<Eigen::half> y = Matrix<Eigen::half>::Zero(6, 4);
  LearnedAbsolute<float>{table.cast<float>()}(y, positions(4));
  CHECK(y == table.cast<float>().cast<Eigen::half>());

  Matrix<double> z = Matrix<double>::Zero(6, 4);
  LearnedAbsolute<Eigen::bfloat16>{table.cast<Eigen::bfloat16>()}(z, positions(4));
  CHECK(z == table.cast<Eigen::bfloat16>().cast<float>().cast<double>());
}

TEST_CASE("learned: chunks, and sequences of no and one token", "[learned]") {
  const LearnedAbsolute<float> learned(random_matrix<float>(7, 30));
  Matrix<float> whole = random_matrix<float>(7, 11), chunked = whole;
  learned(whole, positions(11, 5));
  for (Index t = 0; t < 11; t += 4) {
    const Index n = std::min<Index>(4, 11 - t);
    learned(chunked.middleCols(t, n), positions(n, 5 + t));
  }
  CHECK(chunked == whole);
  Matrix<float> none(7, 0);
  learned(none, positions(0, 1000));
  CHECK(rows_at(learned, positions(1, 29)) == learned.table().col(29));
}

TEST_CASE("learned: shapes that do not fit throw and change nothing", "[learned]") {
  const LearnedAbsolute<float> learned(random_matrix<float>(4, 6));
  const auto message = [&](Index rows, Index cols, const Positions& where) {
    Matrix<float> x = random_matrix<float>(rows, cols);
    const Matrix<float> before = x;
    const std::string text = message_of([&] { learned(x, where); });
    CHECK(x == before);
    return text;
  };
  CHECK(message(3, 2, positions(2)) == "posenc::LearnedAbsolute: rows of x must be dim = 4, got 3");
  CHECK(message(4, 2, positions(3)) ==
        "posenc::LearnedAbsolute: columns of x must be the number of positions = 3, got 2");
}

TEST_CASE("learned: adding allocates nothing", "[learned]") {
  const LearnedAbsolute<float> learned(random_matrix<float>(33, 20), {.scale = 0.1});
  Matrix<float> x = random_matrix<float>(33, 20);
  RowMajor<Eigen::half> y = random_matrix<Eigen::half>(33, 20);
  Eigen::internal::set_is_malloc_allowed(false);
  learned(x, positions(20));
  learned.add_to(y.leftCols(10), positions(10, 3));
  Eigen::internal::set_is_malloc_allowed(true);
  CHECK(x.allFinite());
}

TEMPLATE_TEST_CASE("learned: normal tables are the same for the same seed", "[learned]", float, double, Eigen::half,
                   Eigen::bfloat16) {
  using Learned = LearnedAbsolute<TestType>;
  const NormalTable drawn{.dim = 16, .num_positions = 10, .seed = 7};
  const Learned first = Learned::normal(drawn), second = Learned::normal(drawn);
  CHECK(first.table() == second.table());
  CHECK(first.table() != Learned::normal({.dim = 16, .num_positions = 10, .seed = 8}).table());
  CHECK(Learned::normal({.dim = 2, .num_positions = 2, .stddev = 0}).table().isZero(TestType(0)));
  CHECK(Learned::normal(drawn, LearnedAbsoluteOptions::opt()).options().offset == 2);
}

TEST_CASE("learned: normal tables are normal", "[learned]") {
  const LearnedAbsolute<double> learned =
      LearnedAbsolute<double>::normal({.dim = 400, .num_positions = 500, .seed = 1});
  const auto entries = learned.table().reshaped();
  const double n = static_cast<double>(entries.size());  // 200000: bounds are 5 standard errors
  const Vector<double> z = entries / 0.02;
  CHECK_THAT(z.mean(), WithinAbs(0, 5 / std::sqrt(n)));
  CHECK_THAT(z.cwiseAbs2().mean(), WithinAbs(1, 5 * std::sqrt(2 / n)));
  CHECK_THAT(z.array().cube().mean(), WithinAbs(0, 5 * std::sqrt(15 / n)));
  CHECK_THAT(z.array().square().square().mean(), WithinAbs(3, 5 * std::sqrt(96 / n)));
  CHECK_THAT((z.array().abs() < 1).cast<double>().mean(), WithinAbs(0.6826895, 5 * std::sqrt(0.2166 / n)));
  // neighbours in a column, and in a row, have nothing to do with each other
  const Matrix<double>& table = learned.table();
  const double scale = 0.02 * 0.02;
  CHECK_THAT((table.topRows(399).array() * table.bottomRows(399).array()).mean() / scale,
             WithinAbs(0, 5 / std::sqrt(n)));
  CHECK_THAT((table.leftCols(499).array() * table.rightCols(499).array()).mean() / scale,
             WithinAbs(0, 5 / std::sqrt(n)));
}

TEST_CASE("learned: a table that was drawn once can be drawn again", "[learned]") {
  // The first draws of a Mersenne twister of 64 bits, seed 42, by Box and Muller's formula: computed apart from this.
  const auto learned = LearnedAbsolute<double>::normal({.dim = 2, .num_positions = 2, .stddev = 1, .seed = 42});
  Matrix<double> apart(2, 2);
  apart << -0.4812176998018444, 0.3745542688498134, 0.49458385623521306, -0.7344560350419198;
  CHECK((learned.table() - apart).cwiseAbs().maxCoeff() < 1e-14);
}

TEST_CASE("learned: truncated and extended", "[learned]") {
  using Learned = LearnedAbsolute<float>;
  const Learned drawn =
      Learned::normal({.dim = 3, .num_positions = 6, .stddev = 0.5, .seed = 9}, LearnedAbsoluteOptions::opt());

  const Learned shorter = drawn.truncated(4);
  CHECK(shorter.table() == drawn.table().leftCols(4));
  CHECK(shorter.options().offset == 2);
  CHECK(drawn.truncated(6).table() == drawn.table());

  const Learned longer = drawn.extended(9, 0.5, 9);
  CHECK(longer.table().leftCols(6) == drawn.table());
  CHECK(longer.options().offset == 2);
  CHECK(longer.table() == Learned::normal({.dim = 3, .num_positions = 9, .stddev = 0.5, .seed = 9}).table());
  CHECK(longer.table().rightCols(3) != drawn.extended(9, 0.5, 10).table().rightCols(3));
  CHECK(drawn.extended(8, 0).table().rightCols(2).isZero(0));
  CHECK(drawn.extended(6).table() == drawn.table());
  CHECK(shorter.extended(6, 0.5, 9).table() == drawn.table());
}

TEST_CASE("learned: interpolated, by hand", "[learned]") {
  using enum TableAlignment;
  const LearnedAbsolute<double> learned(one_feature({1, 2, 4}));
  CHECK(learned.interpolated(5, corners).table() == one_feature({1, 1.5, 2, 3, 4}));
  CHECK(learned.interpolated(2, corners).table() == one_feature({1, 4}));
  CHECK(learned.interpolated(1, corners).table() == one_feature({1}));
  CHECK(learned.interpolated(6, centers).table() == one_feature({1, 1.25, 1.75, 2.5, 3.5, 4}));
  CHECK(learned.interpolated(1, centers).table() == one_feature({2}));
  CHECK(LearnedAbsolute<double>(one_feature({1, 2, 3, 4})).interpolated(2, centers).table() == one_feature({1.5, 3.5}));
  CHECK(LearnedAbsolute<double>(one_feature({7})).interpolated(3, corners).table() == one_feature({7, 7, 7}));
  CHECK(LearnedAbsolute<double>(one_feature({7})).interpolated(3, centers).table() == one_feature({7, 7, 7}));

  const LearnedAbsolute<double> opt(one_feature({-8, -9, 1, 2, 4}), LearnedAbsoluteOptions::opt());
  const LearnedAbsolute<double> longer = opt.interpolated(7, corners, 2);
  CHECK(longer.table() == one_feature({-8, -9, 1, 1.5, 2, 3, 4}));
  CHECK(longer.options().offset == 2);
}

TEST_CASE("learned: interpolated_2d, by hand", "[learned]") {
  using enum TableAlignment;
  const LearnedAbsolute<double> grid(one_feature({100, 0, 1, 2, 3}));  // a class token, then 2 x 2
  CHECK(grid.interpolated_2d({2, 2}, {2, 3}, corners, 1).table() == one_feature({100, 0, 0.5, 1, 2, 2.5, 3}));
  CHECK(grid.interpolated_2d({2, 2}, {3, 3}, corners, 1).table() ==
        one_feature({100, 0, 0.5, 1, 1, 1.5, 2, 2, 2.5, 3}));
  CHECK(grid.interpolated_2d({2, 2}, {1, 1}, corners, 1).table() == one_feature({100, 0}));
  CHECK(grid.interpolated_2d({2, 2}, {1, 1}, centers, 1).table() == one_feature({100, 1.5}));
  CHECK(LearnedAbsolute<double>(one_feature({1, 2, 4, 5})).interpolated_2d({2, 2}, {4, 4}, centers).table() ==
        one_feature({1, 1.25, 1.75, 2, 1.75, 2, 2.5, 2.75, 3.25, 3.5, 4, 4.25, 4, 4.25, 4.75, 5}));
}

TEST_CASE("learned: interpolated_2d against an independent computation", "[learned]") {
  const Index dim = 3, prefix = 2;
  const GridShape shapes[] = {{1, 1}, {1, 5}, {4, 1}, {2, 3}, {7, 5}, {14, 9}};
  for (const auto alignment : {TableAlignment::corners, TableAlignment::centers})
    for (const GridShape& from : shapes)
      for (const GridShape& to : shapes) {
        CAPTURE(static_cast<int>(alignment), from.rows, from.cols, to.rows, to.cols);
        const LearnedAbsolute<double> learned(random_matrix<double>(dim, prefix + from.rows * from.cols));
        const Matrix<double> table = learned.interpolated_2d(from, to, alignment, prefix).table();
        REQUIRE(table.cols() == prefix + to.rows * to.cols);
        REQUIRE(table.leftCols(prefix) == learned.table().leftCols(prefix));
        double error = 0;
        for (Index i = 0; i < dim; ++i) {
          const RowMajor<double> grid =
              learned.table().row(i).tail(from.rows * from.cols).reshaped<Eigen::RowMajor>(from.rows, from.cols);
          for (Index r = 0; r < to.rows; ++r)
            for (Index c = 0; c < to.cols; ++c)
              error = std::max(error, std::abs(table(i, prefix + r * to.cols + c) -
                                               bilinear(grid, old_coordinate(r, from.rows, to.rows, alignment),
                                                        old_coordinate(c, from.cols, to.cols, alignment))));
        }
        CHECK(error < 1e-14);
        if (from.rows == to.rows && from.cols == to.cols) CHECK(table == learned.table());
      }
}

TEMPLATE_TEST_CASE("learned: interpolation is rounded once", "[learned]", float, Eigen::half, Eigen::bfloat16) {
  const Matrix<TestType> table = random_matrix<TestType>(4, 12);
  const Matrix<double> wide = table.template cast<float>().template cast<double>();
  const auto rounded = LearnedAbsolute<TestType>(table).interpolated_2d({3, 4}, {5, 7}, TableAlignment::centers);
  const auto exact = LearnedAbsolute<double>(wide).interpolated_2d({3, 4}, {5, 7}, TableAlignment::centers);
  CHECK(rounded.table() == exact.table().template cast<float>().template cast<TestType>());
}

TEST_CASE("learned: mistakes in making and resizing a table", "[learned]") {
  using Learned = LearnedAbsolute<float>;
  using enum TableAlignment;
  const Learned learned(random_matrix<float>(2, 6));
  const std::string who = "posenc::LearnedAbsolute: ";
  CHECK(message_of([] { Learned(Matrix<float>(0, 4)); }) == who + "dim must be positive, got 0");
  CHECK(message_of([] { Learned(Matrix<float>(4, 0)); }) == who + "num_positions must be positive, got 0");
  CHECK(message_of([] { Learned(Matrix<float>(2, 2), {.scale = infinity}); }) == who + "scale must be finite, got inf");
  CHECK(message_of([] { Learned(Matrix<float>(2, 2), {.offset = first_int64}); }) ==
        who + "offset must be at most 2^62 from 0, got -9223372036854775808");
  CHECK(message_of([] { Learned::normal({.num_positions = 3}); }) == who + "dim must be positive, got 0");
  CHECK(message_of([] { Learned::normal({.dim = 3, .num_positions = -1}); }) ==
        who + "num_positions must be positive, got -1");
  CHECK(message_of([] { Learned::normal({.dim = 3, .num_positions = 3, .stddev = -1}); }) ==
        who + "stddev must not be negative and must be finite, got -1");
  CHECK(message_of([&] { learned.truncated(7); }) == who + "truncated needs from 1 to num_positions columns, got 7");
  CHECK(message_of([&] { learned.truncated(0); }) == who + "truncated needs from 1 to num_positions columns, got 0");
  CHECK(message_of([&] { learned.extended(5); }) == who + "extended needs at least num_positions columns, got 5");
  CHECK(message_of([&] { learned.interpolated(0, corners); }) == who + "sides of a grid must be positive, got 0");
  CHECK(message_of([&] { learned.interpolated(8, corners, 6); }) == who + "sides of a grid must be positive, got 0");
  CHECK(message_of([&] { learned.interpolated(8, corners, -1); }) ==
        who + "num_prefix_tokens must not be negative, got -1");
  CHECK(message_of([&] {
          learned.interpolated_2d({2, 2}, {4, 4}, corners, 1);
        }) == who + "prefix and grid must be num_positions = 6, got 5");
}
