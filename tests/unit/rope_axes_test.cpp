// SPDX-License-Identifier: MIT
#include <posenc/rope_axes.hpp>

#include <posenc/rope.hpp>
#include <posenc/rope_table.hpp>

#include <cmath>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "../catch.hpp"
#include "../exact.hpp"
#include "../support.hpp"

using namespace posenc;
using exact::Number;
using support::message_of;

namespace {

/// The axes of pairs as letters: time, height, width, extra.
std::string picture(const std::vector<Index>& axes) {
  std::string letters;
  for (const Index axis : axes) letters += "thwe"[axis];
  return letters;
}

/// Half-split, each pair by its own coordinate, in long double.
Matrix<double> rotated(const Matrix<double>& x, const RopeFrequencies& frequencies,
                       const std::vector<std::vector<double>>& coordinates) {
  Matrix<double> out = x;
  const Index pairs = frequencies.size();
  for (Index t = 0; t < x.cols(); ++t)
    for (Index i = 0; i < pairs; ++i) {
      const long double position =
          coordinates[static_cast<std::size_t>(frequencies.axis(i))][static_cast<std::size_t>(t)];
      const auto exact = frequencies.exact(i);
      const long double angle = position * (static_cast<long double>(exact.high) + exact.low);
      const long double a = x(i, t), b = x(pairs + i, t);
      out(i, t) = static_cast<double>(a * std::cos(angle) - b * std::sin(angle));
      out(pairs + i, t) = static_cast<double>(b * std::cos(angle) + a * std::sin(angle));
    }
  return out;
}

void check_accuracy(const RopeFrequencies& got, const std::vector<Number>& expected) {
  RopeFrequencies one_axis = got;
  one_axis.axes.clear();
  const auto error = exact::accuracy(one_axis, expected);
  CHECK(error.frequencies < 1e-30);
  CHECK(error.float_ulps <= 1);
  CHECK(error.double_ulps <= 1);
}

}  // namespace

TEST_CASE("M-RoPE: which axis turns which pair", "[rope_axes]") {
  CHECK(picture(mrope_chunks({2, 3, 3})) == "tthhhwww");
  CHECK(picture(mrope_chunks({2, 0, 1, 2})) == "ttwee");
  CHECK(picture(mrope_chunks({})).empty());
  CHECK(picture(mrope_interleaved({4, 2, 2})) == "thwthwtt");
  CHECK(picture(mrope_interleaved({4, 4, 4})) == "thwthwthwthw");
  CHECK(picture(mrope_interleaved({0, 0, 0})).empty());
  CHECK(picture(mrope_ernie({2, 2, 4})) == "hwhwtttt");
  CHECK(picture(mrope_ernie({0, 0, 2})) == "tt");
}

TEST_CASE("M-RoPE interleaved: the two conventions differ where no section reaches", "[rope_axes]") {
  const auto time = mrope_interleaved({24, 20, 20}), extra = mrope_interleaved({24, 20, 20}, MropeTail::extra);
  REQUIRE(time.size() == 64);
  for (std::size_t i = 0; i < 64; ++i) {
    CAPTURE(i);
    const bool differs = i == 61 || i == 62;  // 3 * 20 is the end of height and width
    CHECK(extra[i] == (differs ? 3 : time[i]));
  }
  CHECK(time[60] == 0);
  CHECK(time[63] == 0);
  CHECK(picture(mrope_interleaved({2, 3, 3}, MropeTail::extra)) == "thwthweh");
  CHECK(picture(mrope_interleaved({2, 3, 3})) == "thwthwth");
  // a fourth section has the pairs that are left over, wherever they are
  CHECK(picture(mrope_interleaved({2, 2, 2, 2}, MropeTail::extra)) == "thwthwee");
  CHECK(picture(mrope_interleaved({1, 3, 1, 3}, MropeTail::extra)) == "thweheeh");
}

TEST_CASE("M-RoPE of ERNIE 4.5 VL: 22, 22, 20", "[rope_axes]") {
  const auto axes = mrope_ernie({22, 22, 20});
  REQUIRE(axes.size() == 64);
  for (std::size_t i = 0; i < 44; ++i) CHECK(axes[i] == (i % 2 == 0 ? 1 : 2));
  for (std::size_t i = 44; i < 64; ++i) CHECK(axes[i] == 0);
}

TEST_CASE("Rope with axes: each pair turns by its own coordinate", "[rope_axes]") {
  const auto pair_axes =
      GENERATE(mrope_chunks({2, 3, 3}), mrope_interleaved({4, 2, 2}), mrope_ernie({2, 2, 4}),
               mrope_interleaved({4, 2, 2}, MropeTail::extra), std::vector<Index>{3, 3, 0, 1, 2, 0, 0, 1});
  RopeFrequencies frequencies = rope_frequencies(16, 10000);
  frequencies.axes = pair_axes;
  const Rope rope(frequencies, {.head_dim = 16});
  const std::vector<std::int64_t> entries{0, 1, 2, -7, 9, 0, 1, 5, 100, 9, 3, 1, 2, -1, 8, 1, 1, 4, 1000, 9};
  const auto positions = Positions::axes(entries, 4);
  std::vector<std::vector<double>> coordinates(4);
  for (std::size_t n = 0; n < entries.size(); ++n) coordinates[n / 5].push_back(static_cast<double>(entries[n]));
  const auto x = support::random_matrix<double>(16, 5);
  const auto expected = rotated(x, frequencies, coordinates);

  Matrix<double> ours = x;
  rope(ours, positions);
  CHECK(support::distance(ours, expected) < 1e-14);
  Matrix<double> table = x;
  RopeTable<double>(rope, 1011, -10)(table, positions);
  CHECK(support::same_bits(ours, table));
  Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> row_major = x;
  rope(row_major, positions);
  CHECK(support::same_bits(ours, row_major));
  RopeTable<double>(rope, 1011, -10)(row_major = x, positions);
  CHECK(support::same_bits(ours, row_major));
  rope.apply_inverse(ours, positions);
  CHECK(support::distance(ours, x) < 1e-14);

  // Tiles of the tokens, as an attention cuts them.
  Matrix<double> tiles = x;
  rope.apply_query(tiles.leftCols(2), positions.segment(0, 2));
  rope.apply_key(tiles.rightCols(3), positions.segment(2, 3));
  CHECK(support::same_bits(tiles, table));

  // Real positions.
  std::vector<double> real(entries.begin(), entries.end());
  Matrix<double> by_real = x;
  rope(by_real, RealPositions::axes(real, 4));
  CHECK(support::same_bits(by_real, table));
  for (double& entry : real) entry /= 3;
  for (auto& axis : coordinates)
    for (double& entry : axis) entry /= 3;
  by_real = x;
  rope(by_real, RealPositions::axes(real, 4));
  CHECK(support::distance(by_real, rotated(x, frequencies, coordinates)) < 1e-14);
}

TEST_CASE("Rope with axes: a text, whose coordinates are equal, is rotated as without", "[rope_axes]") {
  RopeFrequencies frequencies = rope_frequencies(16, 10000);
  const Rope plain(frequencies, {.head_dim = 16});
  frequencies.axes = mrope_interleaved({4, 2, 2});
  const Rope rope(frequencies, {.head_dim = 16});
  const auto x = support::random_matrix<float>(32, 4);
  Matrix<float> a = x, b = x, c = x;
  plain(a, positions(4, 90));
  rope(b, positions(4, 90));  // one axis is every axis
  const std::vector<std::int64_t> entries{90, 91, 92, 93, 90, 91, 92, 93, 90, 91, 92, 93};
  rope(c, Positions::axes(entries, 3));
  CHECK(support::same_bits(a, b));
  CHECK(support::same_bits(a, c));
}

TEST_CASE("Rope with axes: what the positions do not have", "[rope_axes]") {
  RopeFrequencies frequencies = rope_frequencies(8, 10000);
  frequencies.axes = {0, 1, 2, 3};
  const Rope rope(frequencies, {.head_dim = 8});
  const RopeTable<float> table(rope, 10);
  const std::vector<std::int64_t> entries{1, 2, 3, 4, 5, 6};
  const auto before = support::random_matrix<float>(8, 2);
  Matrix<float> x = before;
  CHECK(message_of<std::invalid_argument>([&] { rope(x, Positions::axes(entries, 3)); }) ==
        "posenc::Rope: an axis of the frequencies must be an axis of the positions, got 3");
  CHECK(message_of<std::invalid_argument>([&] { table(x, Positions::axes(entries, 3)); }) ==
        "posenc::RopeTable: an axis of the frequencies must be an axis of the positions, got 3");
  const std::vector<std::int64_t> beyond{1, 2, 3, 4, 5, 6, 7, 10};  // in the last axis
  CHECK(message_of<std::out_of_range>([&] { table(x, Positions::axes(beyond, 4)); }) ==
        "posenc::RopeTable: a position must be in the table, got 10");
  const std::vector<std::int64_t> far{1, 2, 3, 4, 5, 6, 7, (std::int64_t{1} << 53) + 1};
  CHECK(message_of<std::out_of_range>([&] { rope(x, Positions::axes(far, 4)); }) ==
        "posenc::Rope: |position| must be at most 2^53, got 9007199254740993");
  CHECK(support::same_bits(x, before));
  CHECK(message_of<std::invalid_argument>([&] {
          Rope({.values = Vector<double>::Ones(4), .axes = {0, 1, 2}}, {.head_dim = 8});
        }) == "posenc::Rope: axes must be as many as the frequencies = 4, got 3");
  CHECK(message_of<std::invalid_argument>([&] {
          Rope({.values = Vector<double>::Ones(2), .axes = {0, -1}}, {.head_dim = 4});
        }) == "posenc::Rope: an axis must not be negative, got -1");
}

TEST_CASE("axial_rope_frequencies: a block for every axis", "[rope_axes]") {
  for (const Index num_axes : {1, 2, 3}) {
    const Index rotary_dim = 12 * num_axes;
    CAPTURE(num_axes);
    std::vector<Number> restart, strided;
    const auto block = exact::geometric(12, Number(10000)), whole = exact::geometric(rotary_dim, Number(10000));
    for (Index axis = 0; axis < num_axes; ++axis)
      for (Index i = 0; i < 6; ++i) {
        restart.push_back(block[static_cast<std::size_t>(i)]);
        strided.push_back(whole[static_cast<std::size_t>(num_axes * i + axis)]);
      }
    const auto restarted = axial_rope_frequencies(num_axes, rotary_dim);
    check_accuracy(restarted, restart);
    check_accuracy(axial_rope_frequencies(num_axes, rotary_dim, 10000, AxialFrequencies::strided), strided);
    for (Index i = 0; i < restarted.size(); ++i) CHECK(restarted.axis(i) == i / 6);
  }
}

TEST_CASE("joined: parts of different lengths", "[rope_axes]") {
  const std::vector<RopeFrequencies> parts{
      {.values = Eigen::Vector2d(1, 2), .magnitude = 1.5},
      {.values = Vector<double>(0), .magnitude = 1.5},
      {.values = Eigen::Vector3d(3, 4, 5), .low_parts = Eigen::Vector3d(1e-20, 0, 0), .magnitude = 1.5}};
  const auto all = joined(parts);
  CHECK(all.values == (Vector<double>(5) << 1, 2, 3, 4, 5).finished());
  CHECK(all.low_parts == (Vector<double>(5) << 0, 0, 1e-20, 0, 0).finished());
  CHECK(all.axes == std::vector<Index>{0, 0, 2, 2, 2});
  CHECK(all.magnitude == 1.5);
}

TEST_CASE("pixel_rope_frequencies", "[rope_axes]") {
  const double max_frequency = GENERATE(10.0, 256.0, 2.0, 0.5);
  for (const Index pairs : {1, 2, 5}) {  // pi linspace(1, max / 2, n)
    CAPTURE(pairs, max_frequency);
    std::vector<Number> expected;
    for (Index i = 0; i < pairs; ++i) {
      const Number share =
          pairs == 1 ? Number(0) : Number(static_cast<double>(i)) / Number(static_cast<double>(pairs - 1));
      expected.push_back(exact::pi() * (Number(1) + share * (Number(max_frequency) / Number(2) - Number(1))));
    }
    const auto got = pixel_rope_frequencies(2 * pairs, max_frequency);
    CHECK(exact::worst_relative(got, expected) < 1e-30);
  }
}

TEST_CASE("Axes of RoPE: errors", "[rope_axes]") {
  using Invalid = std::invalid_argument;
  constexpr double infinity = std::numeric_limits<double>::infinity();
  CHECK(message_of<Invalid>([] {
          mrope_chunks({2, -1});
        }) == "posenc::mrope_chunks: a section must not be negative, got -1");
  CHECK(message_of<Invalid>([] {
          mrope_interleaved({1, 2});
        }) == "posenc::mrope_interleaved: there must be three sections, got 2");
  CHECK(message_of<Invalid>([] {
          mrope_interleaved({1, 2, 3, 4});  // the fourth is that of MropeTail::extra
        }) == "posenc::mrope_interleaved: there must be three sections, got 4");
  CHECK(message_of<Invalid>([] {
          mrope_interleaved({1, 2, -3});
        }) == "posenc::mrope_interleaved: a section must not be negative, got -3");
  CHECK(message_of<Invalid>([] {
          mrope_ernie({1, 1, 1, 1});
        }) == "posenc::mrope_ernie: there must be three sections, got 4");
  CHECK(message_of<Invalid>([] {
          mrope_ernie({-1, -1, 1});
        }) == "posenc::mrope_ernie: a section must not be negative, got -1");
  CHECK(message_of<Invalid>([] {
          mrope_ernie({2, 3, 1});
        }) == "posenc::mrope_ernie: the sections of height and width must be equal, got 3");
  CHECK(message_of<Invalid>([] { joined({}); }) == "posenc::joined: there must be at least one part, got 0");
  CHECK(message_of<Invalid>([] {
          joined(std::vector<RopeFrequencies>{{.values = Vector<double>::Ones(1)},
                                              {.values = Vector<double>::Ones(1), .magnitude = 2}});
        }) == "posenc::joined: the magnitudes of all parts must be equal, got 2");
  CHECK(message_of<Invalid>([] { axial_rope_frequencies(0, 8); }) ==
        "posenc::axial_rope_frequencies: num_axes must be positive, got 0");
  CHECK(message_of<Invalid>([] { axial_rope_frequencies(2, 6); }) ==
        "posenc::axial_rope_frequencies: rotary_dim must be a positive multiple of 2 * num_axes, got 6");
  CHECK(message_of<Invalid>([] { axial_rope_frequencies(2, 0); }) ==
        "posenc::axial_rope_frequencies: rotary_dim must be a positive multiple of 2 * num_axes, got 0");
  CHECK(message_of<Invalid>([] { axial_rope_frequencies(2, 8, -1); }) ==
        "posenc::rope_frequencies: base must be positive and finite, got -1");
  CHECK(message_of<Invalid>([] { pixel_rope_frequencies(3); }) ==
        "posenc::pixel_rope_frequencies: rotary_dim must be positive and even, got 3");
  CHECK(message_of<Invalid>([] { pixel_rope_frequencies(4, infinity); }) ==
        "posenc::pixel_rope_frequencies: max_frequency must be finite, got inf");
}

TEST_CASE("Positions::axes: errors", "[rope_axes]") {
  const std::vector<std::int64_t> entries{1, 2, 3, 4};
  CHECK(message_of<std::invalid_argument>([&] { Positions::axes(entries, 0); }) ==
        "posenc::Positions: the number of axes must be positive, got 0");
  CHECK(message_of<std::invalid_argument>([&] { Positions::axes(entries, 3); }) ==
        "posenc::Positions: entries must be a multiple of the number of axes, got 4");
  CHECK(message_of<std::out_of_range>([&] { Positions::axes(entries, 2).axis(2); }) ==
        "posenc::Positions: axis must be below the number of axes, got 2");
  CHECK(message_of<std::out_of_range>([&] { Positions::axes(entries, 2).axis(-1); }) ==
        "posenc::Positions: axis must be below the number of axes, got -1");
  const auto two = Positions::axes(entries, 2);
  CHECK(two.size() == 2);
  CHECK(two.num_axes() == 2);
  CHECK(two[1] == 2);
  CHECK(two.axis(1)[1] == 4);
  const auto last = two.segment(1, 1);
  CHECK(last.axis(0)[0] == 2);
  CHECK(last.axis(1)[0] == 4);
  CHECK(last.token(0) == 1);
  CHECK(Positions::axes({}, 3).size() == 0);
}
