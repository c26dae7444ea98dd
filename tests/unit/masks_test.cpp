// SPDX-License-Identifier: MIT

#include <posenc/masks.hpp>

#include <posenc/positions.hpp>

#include <Eigen/Core>
#include <cmath>
#include <cstdint>
#include <limits>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "../catch.hpp"

using namespace posenc;
using Catch::Matchers::Message;

static_assert(ScoreBias<CausalMask> && ScoreBias<SlidingWindow> && ScoreBias<PaddingMask> && ScoreBias<DocumentMask>);
static_assert(ScoreBias<CausalMask, Eigen::half> && ScoreBias<PaddingMask, Eigen::bfloat16>);
static_assert(is_relative<CausalMask> && is_relative<SlidingWindow>);
static_assert(!is_relative<PaddingMask> && !is_relative<DocumentMask>);

namespace {

using Entries = std::vector<std::int64_t>;

/// A row a key, '.' for visible and 'x' for hidden, as the documentation draws it. Visible scores must keep their bits.
template <class Mask>
std::string picture(const Mask& mask, const Positions& keys, const Positions& queries) {
  const Matrix<float> before = Matrix<float>::Random(keys.size(), queries.size());
  Matrix<float> scores = before;
  mask(scores, keys, queries);
  std::ostringstream text;
  for (Index key = 0; key < scores.rows(); ++key) {
    for (Index query = 0; query < scores.cols(); ++query) {
      const bool hidden = scores(key, query) == -std::numeric_limits<float>::infinity();
      text << (hidden ? 'x' : scores(key, query) == before(key, query) ? '.' : '?');
    }
    text << '\n';
  }
  return text.str();
}

template <class Mask>
std::string picture(const Mask& mask, Index num_tokens) {
  return picture(mask, positions(num_tokens), positions(num_tokens));
}

}  // namespace

TEST_CASE("CausalMask hides what comes after the query", "[masks]") {
  CHECK(picture(CausalMask{}, 4) ==
        "....\n"
        "x...\n"
        "xx..\n"
        "xxx.\n");
  CHECK(picture(CausalMask{}, positions(4), positions(2, 2)) == "..\n..\n..\nx.\n");  // behind a cache
  CHECK(picture(CausalMask{}, Entries{3, 0, 3}, Entries{2, 3}) == "x.\n..\nx.\n");
}

TEST_CASE("SlidingWindow shows what is near", "[masks]") {
  CHECK(picture(SlidingWindow({.left = 1, .right = 0}), 4) ==
        "..xx\n"
        "x..x\n"
        "xx..\n"
        "xxx.\n");
  CHECK(picture(SlidingWindow({.left = 1, .right = 2}), 5) ==
        "..xxx\n"
        "...xx\n"
        "....x\n"
        "x....\n"
        "xx...\n");
  CHECK(picture(SlidingWindow({.left = 0, .right = 0}), 2) == ".x\nx.\n");
  CHECK(picture(SlidingWindow({}), 2) == "..\n..\n");
  CHECK(picture(SlidingWindow({.right = 0}), 3) == picture(CausalMask{}, 3));
  const std::int64_t far = std::int64_t{1} << 62;
  CHECK(picture(SlidingWindow({}), Entries{-far, far}, Entries{far, -far}) == "..\n..\n");
  CHECK(picture(SlidingWindow({.left = 10}), Entries{-far, far}, Entries{far, -far}) == "x.\n..\n");
}

TEST_CASE("PaddingMask hides keys by the number of their token", "[masks]") {
  const PaddingMask mask(std::vector<int>{0, 0, 1, 1, 1});
  CHECK(picture(mask, positions(5), positions(2)) == "xx\nxx\n..\n..\n..\n");
  CHECK(picture(mask, Entries{9, 9, 9, 9, 9}, positions(1)) == "x\nx\n.\n.\n.\n");  // positions do not matter
  CHECK(picture(mask, positions(5, 100).segment(1, 3), positions(1)) == "x\n.\n.\n");
  CHECK(picture(PaddingMask(std::vector<bool>{true, false}), 2) == "..\nxx\n");
}

TEST_CASE("DocumentMask hides other documents", "[masks]") {
  const std::vector<Index> lengths{3, 2};
  const DocumentMask mask(packed_documents(lengths));
  CHECK(picture(mask, 5) ==
        "...xx\n"
        "...xx\n"
        "...xx\n"
        "xxx..\n"
        "xxx..\n");
  CHECK(picture(mask, positions(5).segment(2, 2), positions(5).segment(1, 3)) == "..x\nxx.\n");
  CHECK(picture(DocumentMask({0, 1}, {1, 0, 1}), positions(2), positions(3)) == "x.x\n.x.\n");
}

TEST_CASE("Masks stack with each other, and hide NaN as well", "[masks]") {
  Matrix<float> scores = Matrix<float>::Constant(2, 2, std::numeric_limits<float>::quiet_NaN());
  CausalMask{}(scores, positions(2), positions(2));
  CHECK(scores(1, 0) == -std::numeric_limits<float>::infinity());
  CHECK(std::isnan(scores(0, 0)));
  SlidingWindow({.left = 0})(scores, positions(2), positions(2));
  CHECK(scores(0, 1) == -std::numeric_limits<float>::infinity());
  CHECK(scores(1, 0) == -std::numeric_limits<float>::infinity());
}

TEST_CASE("What does not fit is refused, and nothing is written", "[masks]") {
  CHECK_THROWS_MATCHES(SlidingWindow({.left = -1}), std::invalid_argument,
                       Message("posenc::SlidingWindow: left must not be negative, got -1"));
  CHECK_THROWS_MATCHES(SlidingWindow({.right = -2}), std::invalid_argument,
                       Message("posenc::SlidingWindow: right must not be negative, got -2"));

  const Matrix<float> before = Matrix<float>::Random(3, 2);
  Matrix<float> scores = before;
  CHECK_THROWS_MATCHES(
      CausalMask{}(scores, positions(2), positions(2)), std::invalid_argument,
      Message("posenc::CausalMask: rows of the scores must be the number of key positions = 2, got 3"));
  CHECK_THROWS_AS(SlidingWindow({.left = 0})(scores, positions(3), positions(3)), std::invalid_argument);

  const PaddingMask padding(std::vector<int>{0, 1});
  CHECK_THROWS_MATCHES(padding(scores, positions(3), positions(2)), std::out_of_range,
                       Message("posenc::PaddingMask: keys must be at most the entries of the mask, got 3"));
  CHECK_THROWS_AS(padding(scores.topRows(2), positions(3).segment(1, 2), positions(2)), std::out_of_range);
  CHECK_THROWS_AS(padding(scores, positions(3), positions(3)), std::invalid_argument);

  const DocumentMask documents({0, 0, 1}, {0});
  CHECK_THROWS_MATCHES(documents(scores, positions(3), positions(2)), std::out_of_range,
                       Message("posenc::DocumentMask: queries must be at most the numbered ones, got 2"));
  CHECK_THROWS_MATCHES(DocumentMask({0, 0})(scores, positions(3), positions(2)), std::out_of_range,
                       Message("posenc::DocumentMask: keys must be at most the numbered ones, got 3"));
  CHECK(scores == before);
}

TEST_CASE("Contiguous positions are masked as an array of them is, in both orders", "[masks]") {
  const std::int64_t first = GENERATE(-40, -3, 0, 2, 40);  // of the queries; keys begin at 0
  Entries keys, queries;
  for (std::int64_t t = 0; t < 19; ++t) keys.push_back(t);
  for (std::int64_t t = 0; t < 13; ++t) queries.push_back(first + t);
  const auto check = [&](const auto& mask) {
    CHECK(picture(mask, positions(19), positions(13, first)) == picture(mask, keys, queries));
    Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> rows(19, 13);
    rows.setZero();
    Matrix<float> columns = rows;
    mask(rows, positions(19), positions(13, first));
    mask(columns, keys, queries);
    CHECK(rows == columns);
  };
  check(CausalMask{});
  for (const std::int64_t left : {0, 1, 5, 100})
    for (const std::int64_t right : {0, 2, 100}) check(SlidingWindow({.left = left, .right = right}));
  check(SlidingWindow({}));
  check(PaddingMask(std::vector<int>{1, 0, 0, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1, 0, 1, 1, 1, 0, 0, 0}));
  check(DocumentMask({0, 0, 0, 1, 1, 2, 1, 1, 3, 3, 3, 3, 0, 0, 5, 5, 5, 5, 5, 5}));
}

TEST_CASE("CausalMask's bounds at positions that a double does not tell apart", "[masks]") {
  const std::int64_t now = 1'700'000'000'000'000'000;
  const BiasBounds bounds = CausalMask{}.bounds(positions(4, now), positions(2, now), 0);
  CHECK(bounds.highest == 0);
  CHECK(bounds.lowest == -std::numeric_limits<double>::infinity());
}
