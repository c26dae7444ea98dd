// SPDX-License-Identifier: MIT

#include "battery.hpp"

#include <posenc/alibi.hpp>
#include <posenc/fire.hpp>
#include <posenc/kerple.hpp>
#include <posenc/masks.hpp>
#include <posenc/sandwich.hpp>
#include <posenc/swin_bias.hpp>
#include <posenc/t5_bias.hpp>

#include <Eigen/Core>
#include <cstdint>
#include <vector>

using posenc::Alibi;
using posenc::AlibiForm;

namespace {

laws::Subject<Alibi> subject(AlibiForm form) {
  return laws::Subject(
      Alibi({.num_heads = 6, .total_heads = 7, .form = form}),
      {.limits = {.num_heads = 7},
       .refused_heads = {-1, 7},
       .scores_are_relative = form != AlibiForm::key_only});  // attention_laws_test.cpp looks at its weights
}

/// For 40 tokens, more than a case has.
std::vector<std::int64_t> every_third(std::int64_t value, std::int64_t other) {
  std::vector<std::int64_t> entries;
  for (int t = 0; t < 40; ++t) entries.push_back(t % 3 == 1 ? value : other);
  return entries;
}

}  // namespace

TEST_CASE("Alibi, every form: laws", "[alibi][property]") {
  laws::obeys<float, double>(subject(GENERATE(AlibiForm::distance, AlibiForm::causal, AlibiForm::key_only)));
}

TEST_CASE("Alibi in small scalars: laws", "[alibi][property]") {
  // Near by, so that half does not overflow.
  auto s = subject(GENERATE(AlibiForm::distance, AlibiForm::causal));
  s.limits.first_position = 0;
  s.limits.last_position = 3000;
  laws::obeys<float, Eigen::half, Eigen::bfloat16>(s);
}

TEST_CASE("T5Bias: laws", "[t5_bias][property]") {
  const auto direction = GENERATE(posenc::T5Direction::bidirectional, posenc::T5Direction::causal);
  laws::obeys<float, double, Eigen::half, Eigen::bfloat16>(
      laws::Subject(posenc::T5Bias(laws::random_matrix<float>(3, 32, 1), {.direction = direction}),
                    {.limits = {.num_heads = 3}, .refused_heads = {-1, 3}}));
}

TEST_CASE("Kerple, both forms: laws", "[kerple][property]") {
  const Eigen::Vector3d a(0.01, 0.5, 2), p(0.1, 0.6, 1);
  const auto encoding = GENERATE_COPY(posenc::Kerple::logarithmic(p, a), posenc::Kerple::power(a, p));
  laws::Subject s(encoding, {.limits = {.num_heads = 3}, .refused_heads = {-1, 3}});
  laws::obeys<float, double>(s);
  s.limits.first_position = 0;  // near by, so that half does not overflow
  s.limits.last_position = 3000;
  laws::obeys<float, Eigen::half, Eigen::bfloat16>(s);
}

TEST_CASE("Sandwich: laws", "[sandwich][property]") {
  laws::obeys<float, double, Eigen::half, Eigen::bfloat16>(
      laws::Subject(posenc::Sandwich({.num_heads = 3, .dim = 16, .table_size = 100}),
                    {.limits = {.num_heads = 3}, .refused = {(std::int64_t{1} << 53) + 1}, .refused_heads = {-1, 3}}));
}

TEST_CASE("Fire: laws", "[fire][property]") {
  const posenc::Fire fire(posenc::FireWeights<float>{.hidden_weight = laws::random_matrix<float>(8, 1, 1),
                                                     .hidden_bias = laws::random_matrix<float>(8, 1, 2),
                                                     .output_weight = laws::random_matrix<float>(3, 8, 3),
                                                     .output_bias = laws::random_matrix<float>(3, 1, 4)});
  laws::obeys<float, double, Eigen::half, Eigen::bfloat16>(
      laws::Subject(fire, {.limits = {.num_heads = 3}, .refused_heads = {-1, 3}}));
}

TEST_CASE("SwinBias: laws", "[swin_bias][property]") {
  laws::obeys<float, double, Eigen::half, Eigen::bfloat16>(
      laws::Subject(posenc::SwinBias(laws::random_matrix<float>(3, 13 * 15, 1), {.height = 7, .width = 8}),
                    {.limits = {.first_position = 0, .last_position = 55, .num_heads = 3},
                     .refused = {-1, 56},
                     .refused_heads = {-1, 3}}));
}

TEST_CASE("CausalMask: laws", "[masks][property]") {
  laws::obeys<float, double, Eigen::half, Eigen::bfloat16>(
      laws::Subject(posenc::CausalMask{}, {.limits = {.num_heads = 3}}));
}

TEST_CASE("SlidingWindow: laws", "[masks][property]") {
  const auto options =
      GENERATE(posenc::SlidingWindowOptions{.left = 3, .right = 0}, posenc::SlidingWindowOptions{.left = 2},
               posenc::SlidingWindowOptions{.right = 4}, posenc::SlidingWindowOptions{});
  laws::obeys<float, double, Eigen::half, Eigen::bfloat16>(
      laws::Subject(posenc::SlidingWindow(options), {.limits = {.num_heads = 3}}));
}

TEST_CASE("PaddingMask: laws", "[masks][property]") {
  const laws::Subject s(posenc::PaddingMask(every_third(0, 1)), {.limits = {.num_heads = 3}, .by_token = true});
  laws::obeys<float, double, Eigen::half, Eigen::bfloat16>(s);
  laws::require<laws::ShiftedPositions, float>(s);  // it does not look at positions
}

TEST_CASE("DocumentMask: laws", "[masks][property]") {
  const laws::Subject s(posenc::DocumentMask(every_third(5, 7)), {.limits = {.num_heads = 3}, .by_token = true});
  laws::obeys<float, double, Eigen::half, Eigen::bfloat16>(s);
  laws::require<laws::ShiftedPositions, float>(s);
  laws::obeys<float>(laws::Subject(posenc::DocumentMask(every_third(5, 7), every_third(7, 7)), {.by_token = true}));
}
