// SPDX-License-Identifier: MIT

#include "battery.hpp"

#include <posenc/query_temperature.hpp>
#include <posenc/rope.hpp>
#include <posenc/xpos.hpp>

#include <Eigen/Core>
#include <cstdint>
#include <limits>

using posenc::PairLayout;
using posenc::QueryTemperature;
using posenc::Rope;
using posenc::XPos;

namespace {

constexpr std::int64_t far = (std::int64_t{1} << 53) + 1;

}  // namespace

TEST_CASE("Rope of a middle slice: laws", "[rope_options][property]") {
  const auto layout = GENERATE(PairLayout::half_split, PairLayout::interleaved);
  laws::obeys<float, double, Eigen::half, Eigen::bfloat16>(
      laws::Subject(Rope({.head_dim = 9, .rotary_dim = 4, .rotary_offset = 3, .layout = layout}),
                    {.num_features = 18, .untouched = {0, 1, 2, 7, 8, 9, 10, 11, 16, 17}, .refused = {far, -far}}));
}

TEST_CASE("Rope of some heads, and turned the other way round: laws", "[rope_options][property]") {
  laws::obeys<float, double>(
      laws::Subject(Rope(posenc::reversed(posenc::rope_frequencies(6)),
                         {.head_dim = 6, .layout = PairLayout::interleaved, .num_rotary_heads = 2}),
                    {.num_features = 12, .refused = {far}}));
}

TEST_CASE("XPos: laws", "[xpos][property]") {
  // Powers of almost 1, so that errors are those of a rotation; xpos_test.cpp goes far.
  const laws::Limits limits{.first_position = -15000, .last_position = 17000, .num_heads = 3};
  const auto layout = GENERATE(PairLayout::half_split, PairLayout::interleaved);
  laws::obeys<float, double, Eigen::bfloat16>(laws::Subject(
      XPos(Rope({.head_dim = 10, .rotary_dim = 6, .layout = layout}), {.scale_base = 2e6, .center = 1000}),
      {.num_features = 10,
       .limits = limits,
       .untouched = {6, 7, 8, 9},
       .refused = {std::int64_t{1} << 40, -(std::int64_t{1} << 40), std::numeric_limits<std::int64_t>::min()}}));
}

TEST_CASE("QueryTemperature: laws", "[query_temperature][property]") {
  const auto temperature =
      GENERATE(QueryTemperature::log_n(2048), QueryTemperature::llama4(), QueryTemperature::ministral(0.1, 16384));
  const laws::Limits limits{.first_position = 0, .last_position = std::int64_t{1} << 33};
  laws::obeys<float, double, Eigen::half, Eigen::bfloat16>(laws::Subject(
      temperature,
      {.num_features = 5,
       .limits = limits,
       .idle = {laws::Hook::apply_query, laws::Hook::apply_key}}));  // any number of features; see the unit test
}
