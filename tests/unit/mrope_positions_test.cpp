// SPDX-License-Identifier: MIT
#include <posenc/mrope_positions.hpp>

#include <posenc/positions.hpp>

#include <cstdint>
#include <limits>
#include <stdexcept>
#include <vector>

#include "../catch.hpp"
#include "../support.hpp"

using namespace posenc;
using support::message_of;

using Entries = std::vector<std::int64_t>;

TEST_CASE("MropePositions: text, image, text", "[mrope_positions]") {
  MropePositions ids;
  CHECK(ids.entries().empty());
  CHECK(ids.next() == 0);
  CHECK(ids.delta() == 0);
  ids.add_text(2);
  ids.add_grid({.rows = 2, .cols = 3});
  ids.add_text(1);
  CHECK(ids.num_tokens() == 9);
  CHECK(ids.entries() == Entries{0, 1, 2, 2, 2, 2, 2, 2, 5,  //
                                 0, 1, 2, 2, 2, 3, 3, 3, 5,  //
                                 0, 1, 2, 3, 4, 2, 3, 4, 5});
  CHECK(ids.next() == 6);
  CHECK(ids.delta() == 6 - 9);
  const auto entries = ids.entries();
  CHECK(Positions::axes(entries, 3).axis(2)[4] == 4);
}

TEST_CASE("MropePositions: text alone counts tokens", "[mrope_positions]") {
  MropePositions ids;
  ids.add_text(3);
  ids.add_text(0);
  ids.add_text(1);
  CHECK(ids.entries() == Entries{0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3});
  CHECK(ids.delta() == 0);
}

TEST_CASE("MropePositions: two images behind each other", "[mrope_positions]") {
  MropePositions ids;
  ids.add_grid({.rows = 3, .cols = 1});
  ids.add_grid({.rows = 1, .cols = 2});
  CHECK(ids.entries() == Entries{0, 0, 0, 3, 3, 0, 1, 2, 3, 3, 0, 0, 0, 3, 4});
  CHECK(ids.next() == 5);
}

TEST_CASE("MropePositions: the frames of a video", "[mrope_positions]") {
  const auto times = [](Index frames, double interval) {
    MropePositions ids;
    ids.add_text(1);
    ids.add_grid({.frames = frames, .rows = 1, .cols = 2}, interval);
    const auto entries = ids.entries();
    Entries one_a_frame;
    for (Index frame = 0; frame < frames; ++frame)
      one_a_frame.push_back(entries[static_cast<std::size_t>(1 + 2 * frame)]);
    CHECK(ids.next() == 3);  // behind the longer of rows and columns, however long the video is
    return one_a_frame;
  };
  CHECK(times(3, 1) == Entries{1, 2, 3});
  CHECK(times(4, 0.5) == Entries{1, 1, 2, 2});
  CHECK(times(4, 2.7) == Entries{1, 3, 6, 9});  // trunc(0, 2.7, 5.4, 8.1)
  CHECK(times(3, 50) == Entries{1, 51, 101});
  CHECK(times(2, 0) == Entries{1, 1});
}

TEST_CASE("MropePositions: the largest position counts, be it that of a long video", "[mrope_positions]") {
  MropePositions ids;
  ids.add_grid({.frames = 5, .rows = 1, .cols = 1});
  CHECK(ids.next() == 1);
  CHECK(ids.delta() == 5 - 5);
}

TEST_CASE("MropePositions: padding is not counted", "[mrope_positions]") {
  MropePositions ids;
  ids.add_padding(2);
  ids.add_text(2);
  ids.add_grid({.rows = 2, .cols = 2});
  ids.add_text(2);
  ids.add_padding(1, 1);
  CHECK(ids.entries() == Entries{0, 0, 0, 1, 2, 2, 2, 2, 4, 5, 1,  //
                                 0, 0, 0, 1, 2, 2, 3, 3, 4, 5, 1,  //
                                 0, 0, 0, 1, 2, 3, 2, 3, 4, 5, 1});
  CHECK(ids.delta() == 6 - 8);
  MropePositions mostly_padding;  // whose position is no larger than that of any token for the delta
  mostly_padding.add_padding(3, 1);
  CHECK(mostly_padding.delta() == 0);
  mostly_padding.add_text(1);
  CHECK(mostly_padding.delta() == 0);
}

TEST_CASE("MropePositions: errors change nothing", "[mrope_positions]") {
  using Invalid = std::invalid_argument;
  MropePositions ids;
  ids.add_text(2);
  CHECK(message_of<Invalid>([&] { ids.add_text(-1); }) ==
        "posenc::MropePositions: the number of tokens must not be negative, got -1");
  CHECK(message_of<Invalid>([&] { ids.add_padding(-2); }) ==
        "posenc::MropePositions: the number of tokens must not be negative, got -2");
  CHECK(message_of<Invalid>([&] { ids.add_grid({.rows = 2}); }) ==
        "posenc::MropePositions: a side of a grid must be positive, got 0");
  CHECK(message_of<Invalid>([&] { ids.add_grid({.frames = -1, .rows = 2, .cols = 2}); }) ==
        "posenc::MropePositions: a side of a grid must be positive, got -1");
  CHECK(message_of<Invalid>([&] { ids.add_grid({.rows = 2, .cols = 2}, -0.5); }) ==
        "posenc::MropePositions: the interval must not be negative and must be finite, got -0.5");
  CHECK(message_of<Invalid>([&] { ids.add_grid({.rows = 2, .cols = 2}, std::numeric_limits<double>::infinity()); }) ==
        "posenc::MropePositions: the interval must not be negative and must be finite, got inf");
  CHECK(message_of<std::out_of_range>([&] { ids.add_grid({.frames = 2, .rows = 1, .cols = 1}, 2e16); }) ==
        "posenc::MropePositions: the last frame must be at most at 2^53, got 20000000000000000");
  CHECK(ids.entries() == Entries{0, 1, 0, 1, 0, 1});
}

TEST_CASE("patch_positions: row by row, or in blocks", "[mrope_positions]") {
  CHECK(patch_positions({.rows = 2, .cols = 3}) == Entries{0, 0, 0, 1, 1, 1, 0, 1, 2, 0, 1, 2});
  CHECK(patch_positions({.rows = 2, .cols = 4}, 2) == Entries{0, 0, 1, 1, 0, 0, 1, 1, 0, 1, 0, 1, 2, 3, 2, 3});
  CHECK(patch_positions({.rows = 4, .cols = 2}, 2) == Entries{0, 0, 1, 1, 2, 2, 3, 3, 0, 1, 0, 1, 0, 1, 0, 1});
  CHECK(patch_positions({.frames = 2, .rows = 1, .cols = 2}) == Entries{0, 0, 0, 0, 0, 1, 0, 1});
}

TEST_CASE("patch_positions: errors", "[mrope_positions]") {
  using Invalid = std::invalid_argument;
  CHECK(message_of<Invalid>([] { patch_positions({.rows = 0, .cols = 2}); }) ==
        "posenc::patch_positions: a side must be positive, got 0");
  CHECK(message_of<Invalid>([] { patch_positions({.rows = 2, .cols = 2}, 0); }) ==
        "posenc::patch_positions: a side must be positive, got 0");
  CHECK(message_of<Invalid>([] { patch_positions({.rows = 3, .cols = 2}, 2); }) ==
        "posenc::patch_positions: merge must divide rows, got 3");
  CHECK(message_of<Invalid>([] { patch_positions({.rows = 2, .cols = 5}, 2); }) ==
        "posenc::patch_positions: merge must divide cols, got 5");
}
