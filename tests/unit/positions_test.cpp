// SPDX-License-Identifier: MIT

#include <posenc/positions.hpp>

#include <array>
#include <cstdint>
#include <limits>
#include <span>
#include <stdexcept>
#include <vector>

#include "../catch.hpp"

using namespace posenc;
using Catch::Matchers::Message;
using Entries = std::vector<std::int64_t>;

namespace {

template <class Value>
std::vector<Value> entries(const BasicPositions<Value>& view) {
  std::vector<Value> result;
  for (Index t = 0; t < view.size(); ++t) result.push_back(view[t]);
  return result;
}

}  // namespace

TEST_CASE("Contiguous positions begin at an offset", "[positions]") {
  CHECK(entries(positions(5, 7)) == Entries{7, 8, 9, 10, 11});
  CHECK(entries(positions(3)) == Entries{0, 1, 2});
  CHECK(entries(positions(3, -1)) == Entries{-1, 0, 1});
  CHECK(entries(positions(2, std::int64_t{1} << 62)) == Entries{std::int64_t{1} << 62, (std::int64_t{1} << 62) + 1});
  CHECK(positions(0, 3).size() == 0);
  CHECK(Positions().size() == 0);
  CHECK(positions(2).is_contiguous());
  CHECK_THROWS_MATCHES(positions(-1), std::invalid_argument,
                       Message("posenc::positions: the number of tokens must not be negative, got -1"));
}

TEST_CASE("An array of positions is viewed and not copied", "[positions]") {
  Entries array{4, -2, 4, 1'000'000'000'000};
  const Positions view = array;
  CHECK(entries(view) == array);
  CHECK_FALSE(view.is_contiguous());
  array[1] = 5;
  CHECK(view[1] == 5);

  const std::array<std::int64_t, 2> fixed{3, 1};
  CHECK(entries(Positions(fixed)) == Entries{3, 1});
  CHECK(entries(Positions(std::span<const std::int64_t>(array).subspan(1, 2))) == Entries{5, 4});
  CHECK(Positions(Entries()).size() == 0);

  const std::vector<double> real{0.5, -1.25};
  CHECK(entries(RealPositions(real)) == real);
  CHECK(entries(RealPositions(3, 0.25)) == std::vector<double>{0.25, 1.25, 2.25});
}

TEST_CASE("A segment is the positions of a tile, and knows its tokens", "[positions]") {
  const Positions all = positions(10, 100);
  const Positions tile = all.segment(3, 4);
  CHECK(entries(tile) == Entries{103, 104, 105, 106});
  CHECK(tile.token(0) == 3);
  CHECK(tile.token(3) == 6);
  CHECK(entries(tile.segment(1, 2)) == Entries{104, 105});
  CHECK(tile.segment(1, 2).token(0) == 4);
  CHECK(tile.is_contiguous());

  const Entries array{5, 5, 0, 9};
  CHECK(entries(Positions(array).segment(1, 3)) == Entries{5, 0, 9});
  CHECK(Positions(array).segment(1, 3).token(2) == 3);
  CHECK(Positions(array).segment(4, 0).size() == 0);
  CHECK(Positions().segment(0, 0).size() == 0);

  CHECK_THROWS_MATCHES(all.segment(11, 0), std::invalid_argument,
                       Message("posenc::Positions: a segment must begin within the positions, got 11"));
  CHECK_THROWS_MATCHES(all.segment(-1, 1), std::invalid_argument,
                       Message("posenc::Positions: a segment must begin within the positions, got -1"));
  CHECK_THROWS_MATCHES(
      all.segment(8, 3), std::invalid_argument,
      Message("posenc::Positions: the size of a segment must be at most what is left from its begin on, got 3"));
  CHECK_THROWS_AS(all.segment(8, -1), std::invalid_argument);
  CHECK_THROWS_AS(all.segment(1, std::numeric_limits<Index>::max()), std::invalid_argument);
}

TEST_CASE("Tokens may have several coordinates", "[positions]") {
  const Entries array{0, 1, 2, 10, 11, 12};
  const Positions both = Positions::axes(array, 2);
  CHECK(both.size() == 3);
  CHECK(both.num_axes() == 2);
  CHECK(entries(both) == Entries{0, 1, 2});
  CHECK(entries(both.axis(1)) == Entries{10, 11, 12});
  CHECK(entries(both.segment(1, 2).axis(1)) == Entries{11, 12});
  CHECK(entries(positions(2, 5).axis(2)) == Entries{5, 6});  // a text has the same on all
  CHECK_THROWS_MATCHES(both.axis(2), std::out_of_range,
                       Message("posenc::Positions: axis must be below the number of axes, got 2"));
  CHECK_THROWS_AS(both.axis(-1), std::out_of_range);
  CHECK_THROWS_MATCHES(Positions::axes(array, 4), std::invalid_argument,
                       Message("posenc::Positions: entries must be a multiple of the number of axes, got 6"));
  CHECK_THROWS_MATCHES(Positions::axes(array, 0), std::invalid_argument,
                       Message("posenc::Positions: the number of axes must be positive, got 0"));
}

TEST_CASE("Packed documents begin again at 0", "[positions]") {
  const std::vector<Index> lengths{3, 0, 2};
  CHECK(packed_positions(lengths) == Entries{0, 1, 2, 0, 1});
  CHECK(packed_documents(lengths) == Entries{0, 0, 0, 2, 2});
  CHECK(packed_positions({}).empty());
  const std::vector<Index> negative{3, -2};
  CHECK_THROWS_MATCHES(packed_positions(negative), std::invalid_argument,
                       Message("posenc::packed_positions: a length must not be negative, got -2"));
  CHECK_THROWS_MATCHES(packed_documents(negative), std::invalid_argument,
                       Message("posenc::packed_documents: a length must not be negative, got -2"));
}

TEST_CASE("Padding is counted as the models count it", "[positions]") {
  const std::vector<int> left{0, 0, 1, 1, 1}, right{1, 1, 0};
  CHECK(padded_positions(left) == Entries{0, 0, 0, 1, 2});                              // Bloom
  CHECK(padded_positions(left, {.first = 2, .padding = 1}) == Entries{1, 1, 2, 3, 4});  // RoBERTa
  CHECK(padded_positions(left, {.padding = -1}) == Entries{-1, -1, 0, 1, 2});           // OPT, with an offset of 2
  CHECK(padded_positions(right, {.first = 5, .padding = 9}) == Entries{5, 6, 9});
  CHECK(padded_positions(std::vector<bool>{true, false, true}) == Entries{0, 0, 1});
  CHECK(padded_positions(std::vector<float>{}).empty());
}
