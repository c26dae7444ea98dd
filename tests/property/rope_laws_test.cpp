// SPDX-License-Identifier: MIT

#include "battery.hpp"

#include <posenc/rope.hpp>

#include <Eigen/Core>
#include <cstdint>
#include <limits>

using posenc::PairLayout;
using posenc::Rope;

namespace {

laws::Subject<Rope> subject(const posenc::RopeOptions& options, Eigen::Index num_heads = 1) {
  laws::Subject s(Rope(options), {.num_features = num_heads * options.head_dim});
  s.limits.num_heads = 4;  // any: it does not look at the head
  s.refused = {(std::int64_t{1} << 53) + 1, std::numeric_limits<std::int64_t>::min()};
  for (Eigen::Index head = 0; head < num_heads; ++head)
    for (Eigen::Index i = s.encoding.rotary_dim(); i < options.head_dim; ++i)
      s.untouched.push_back(head * options.head_dim + i);
  return s;
}

}  // namespace

TEST_CASE("Rope, half-split: laws", "[rope][property]") {
  laws::obeys<float, double, Eigen::half, Eigen::bfloat16>(subject({.head_dim = 8}));
}

TEST_CASE("Rope, interleaved: laws", "[rope][property]") {
  laws::obeys<float, double, Eigen::half, Eigen::bfloat16>(subject({.head_dim = 8, .layout = PairLayout::interleaved}));
}

TEST_CASE("Rope, partial, several heads: laws", "[rope][property]") {
  const auto layout = GENERATE(PairLayout::half_split, PairLayout::interleaved);
  const auto base = GENERATE(10000.0, 500000.0, 10.0);
  laws::obeys<float, double>(subject({.head_dim = 11, .rotary_dim = 6, .base = base, .layout = layout}, 3));
}

TEST_CASE("Rope, every head size around a packet: laws", "[rope][property]") {
  const auto layout = GENERATE(PairLayout::half_split, PairLayout::interleaved);
  const Eigen::Index head_dim = GENERATE(2, 4, 6, 10, 14, 16, 18, 30, 32, 34);
  laws::obeys<float>(subject({.head_dim = head_dim, .layout = layout}));
}

TEST_CASE("Rope of more pairs than it takes at a time: laws", "[rope][property]") {
  auto s = subject({.head_dim = 2 * 128 + 2});
  s.limits.max_tokens = 5;
  laws::require<laws::EveryView, float>(s);
  laws::require<laws::OneTokenAlone, float>(s);
  laws::require<laws::LengthStays, float>(s);
  laws::require<laws::SumOfPositions, float>(s);
  laws::require<laws::RelativeProduct, float>(s);
}

TEST_CASE("Rope of more tokens than it takes at a time: laws", "[rope][property]") {
  auto s = subject({.head_dim = 2});
  s.limits.max_tokens = 300;
  laws::require<laws::EveryView, float>(s);
  laws::require<laws::OneTokenAlone, float>(s);
}

TEST_CASE("Rope with frequencies of one's own: laws", "[rope][property]") {
  const Eigen::VectorXd values = (Eigen::VectorXd(3) << 2.5, -0.125, 0).finished();
  laws::obeys<float, double>(laws::Subject(Rope({.values = values}, {.head_dim = 6}), {.num_features = 6}));
}

TEST_CASE("Rope: what its forms have to do with each other", "[rope][property]") {
  const Eigen::Index head_dim = 10, rotary_dim = 6, num_heads = 2;
  const auto interleaved =
      subject({.head_dim = head_dim, .rotary_dim = rotary_dim, .layout = PairLayout::interleaved}, num_heads);
  const auto half_split = subject({.head_dim = head_dim, .rotary_dim = rotary_dim}, num_heads);
  using laws::Case;
  laws::require("the inverse undoes", interleaved.limits, [&](const Case& c) {
    const auto verdict = laws::inverse_undoes<float>(interleaved, c);
    return verdict.holds() ? laws::inverse_undoes<double>(half_split, c) : verdict;
  });
  laws::require("complex = interleaved", interleaved.limits, [&](const Case& c) {
    const auto verdict = laws::complex_is_interleaved<float>(interleaved, half_split.encoding, c);
    return verdict.holds() ? laws::complex_is_interleaved<double>(interleaved, interleaved.encoding, c) : verdict;
  });
  laws::require("interleaved = permuted half-split", interleaved.limits, [&](const Case& c) {
    return laws::interleaved_is_half_split<float>(interleaved, half_split.encoding, head_dim, rotary_dim, c);
  });
}
