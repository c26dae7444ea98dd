// SPDX-License-Identifier: MIT

#include "battery.hpp"

#include <posenc/rope.hpp>
#include <posenc/rope_table.hpp>

#include <Eigen/Core>
#include <cstdint>
#include <limits>

using posenc::PairLayout;
using posenc::Rope;
using posenc::RopeTable;

namespace {

constexpr std::int64_t first = -200, last = 250;

/// The cases are in the middle half of the table, so that sums and differences of positions are in it as well.
template <class Scalar>
laws::Subject<RopeTable<Scalar>> subject(PairLayout layout) {
  const Rope rope({.head_dim = 10, .rotary_dim = 6, .layout = layout});
  return laws::Subject(RopeTable<Scalar>(rope, last - first + 1, first),
                       {.num_features = 20,
                        .limits = {.first_position = first / 2, .last_position = last / 2 - 50, .num_heads = 4},
                        .untouched = {6, 7, 8, 9, 16, 17, 18, 19},
                        .refused = {first - 1, last + 1, std::numeric_limits<std::int64_t>::min(),
                                    std::numeric_limits<std::int64_t>::max()}});
}

}  // namespace

TEST_CASE("RopeTable of float: laws", "[rope_table][property]") {
  const auto s = subject<float>(GENERATE(PairLayout::half_split, PairLayout::interleaved));
  laws::obeys<float, Eigen::half, Eigen::bfloat16>(s);
}

TEST_CASE("RopeTable of double: laws", "[rope_table][property]") {
  const auto s = subject<double>(GENERATE(PairLayout::half_split, PairLayout::interleaved));
  laws::obeys<double>(s);
}

TEST_CASE("RopeTable: what its forms have to do with each other", "[rope_table][property]") {
  const auto interleaved = subject<float>(PairLayout::interleaved), half_split = subject<float>(PairLayout::half_split);
  using laws::Case;
  laws::require<laws::FloatIsDouble, float>(interleaved, subject<double>(PairLayout::interleaved).encoding);
  laws::require("table = computed", half_split.limits, [&](const Case& c) {
    const laws::Call<float> given(laws::Hook::apply_query, 20, c);
    const Rope rope({.head_dim = 10, .rotary_dim = 6});
    return given.agree(laws::result<laws::Hook::apply_query>(rope, given),
                       laws::result<laws::Hook::apply_query>(half_split.encoding, given))
               ? laws::Verdict()
               : laws::Verdict("the table gives other numbers");
  });
  laws::require("the inverse undoes", interleaved.limits,
                [&](const Case& c) { return laws::inverse_undoes<float>(interleaved, c); });
  laws::require("complex = interleaved", interleaved.limits, [&](const Case& c) {
    return laws::complex_is_interleaved<float>(interleaved, half_split.encoding, c);
  });
  laws::require("interleaved = permuted half-split", interleaved.limits, [&](const Case& c) {
    return laws::interleaved_is_half_split<float>(interleaved, half_split.encoding, 10, 6, c);
  });
}
