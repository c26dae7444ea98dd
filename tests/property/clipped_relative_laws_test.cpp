// SPDX-License-Identifier: MIT

#include "battery.hpp"

#include <posenc/clipped_relative.hpp>

#include <Eigen/Core>

using posenc::ClippedRelative;
using posenc::ClippedRelativeOptions;
using posenc::RelativeDirection;
using posenc::RelativeScores;

namespace {

/// Tables for heads of 5 features and 7 distances.
template <class Scalar>
laws::Subject<ClippedRelative<Scalar>> subject(const ClippedRelativeOptions& options) {
  const auto rows = 5 * options.num_heads;
  return laws::Subject(
      ClippedRelative<Scalar>(laws::random_matrix<Scalar>(rows, 7, 1), laws::random_matrix<Scalar>(rows, 7, 2),
                              options),
      {.num_features = 5, .limits = {.num_heads = static_cast<int>(options.num_heads)}, .refused_heads = {-1}});
}

}  // namespace

TEST_CASE("ClippedRelative: laws", "[clipped_relative][property]") {
  laws::obeys<float, Eigen::half, Eigen::bfloat16>(subject<float>({}));
}

TEST_CASE("ClippedRelative, not symmetric, the other direction: laws", "[clipped_relative][property]") {
  const Eigen::Index max_left = GENERATE(0, 2, 6);
  laws::obeys<float>(subject<float>({.max_left = max_left, .direction = RelativeDirection::query_minus_key}));
}

TEST_CASE("ClippedRelative with tables of each head: laws", "[clipped_relative][property]") {
  auto s = subject<float>({.num_heads = 3});
  s.refused_heads = {-1, 3};
  laws::obeys<float>(s);
}

TEST_CASE("ClippedRelative, query_and_key: laws", "[clipped_relative][property]") {
  const auto s = subject<float>({.scores = RelativeScores::query_and_key});
  laws::obeys<float>(s);
  laws::require<laws::FloatIsDouble, float>(s, subject<double>({.scores = RelativeScores::query_and_key}).encoding);
}

TEST_CASE("ClippedRelative of double: laws", "[clipped_relative][property]") {
  laws::obeys<double>(subject<double>({}));
  laws::require<laws::FloatIsDouble, float>(subject<float>({}), subject<double>({}).encoding);
}

TEST_CASE("ClippedRelative of keys alone and of values alone: laws", "[clipped_relative][property]") {
  const auto table = laws::random_matrix<float>(5, 7, 1);
  const bool keys = GENERATE(true, false);
  laws::obeys<float>(
      laws::Subject(keys ? ClippedRelative<float>(table, {}) : ClippedRelative<float>({}, table),
                    {.num_features = 5, .idle = {keys ? laws::Hook::add_values : laws::Hook::add_scores}}));
}

TEST_CASE("ClippedRelative of BERT: laws", "[clipped_relative][property]") {
  const auto scores = GENERATE(RelativeScores::query, RelativeScores::query_and_key);
  laws::obeys<float>(
      laws::Subject(ClippedRelative<float>::bert(laws::random_matrix<float>(5, 2 * 64 - 1, 1), scores),
                    {.num_features = 5,
                     .limits = {.first_position = 0, .last_position = 63},  // less far from each other than 64
                     .refused = {200},
                     .idle = {laws::Hook::add_values}}));
}
