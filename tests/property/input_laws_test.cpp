// SPDX-License-Identifier: MIT

#include "battery.hpp"

#include <posenc/learned.hpp>
#include <posenc/sinusoidal.hpp>

#include <Eigen/Core>
#include <cstdint>
#include <limits>

using posenc::LearnedAbsolute;
using posenc::OutOfRange;
using posenc::Sinusoidal;
using posenc::SinusoidalOptions;

TEST_CASE("Sinusoidal, every preset: laws", "[sinusoidal][property]") {
  const Eigen::Index dim = GENERATE(2, 7, 8);
  const auto options = GENERATE_COPY(SinusoidalOptions::vaswani(dim), SinusoidalOptions::roformer(dim),
                                     SinusoidalOptions::x_transformers(dim), SinusoidalOptions::fairseq(dim),
                                     SinusoidalOptions::ctranslate2(dim), SinusoidalOptions::mlx(dim),
                                     SinusoidalOptions::diffusion_timestep(dim));
  laws::Subject<Sinusoidal> s(Sinusoidal(options), {.num_features = dim});
  if (dim % 2 == 1 && options.odd_dim == posenc::SinusoidalOddDim::trailing_zero) s.untouched = {dim - 1};
  laws::obeys<float, double>(s);
}

TEST_CASE("Sinusoidal in small scalars: laws", "[sinusoidal][property]") {
  laws::obeys<float, Eigen::half, Eigen::bfloat16>(laws::Subject(Sinusoidal({.dim = 9}), {.num_features = 9}));
}

TEST_CASE("LearnedAbsolute: laws", "[learned][property]") {
  const auto table = laws::random_matrix<float>(7, 120, /*seed=*/1);
  const std::int64_t offset = GENERATE(0, 2, -3);
  laws::obeys<float, double, Eigen::half, Eigen::bfloat16>(
      laws::Subject(LearnedAbsolute<float>(table, {.offset = offset, .scale = 0.3}),
                    {.num_features = 7,
                     .limits = {.first_position = -offset, .last_position = 119 - offset},
                     .refused = {-offset - 1, 120 - offset, std::numeric_limits<std::int64_t>::min(),
                                 std::numeric_limits<std::int64_t>::max()}}));
}

TEST_CASE("LearnedAbsolute with another policy: laws", "[learned][property]") {
  const auto policy = GENERATE(OutOfRange::clamp, OutOfRange::skip);
  laws::obeys<float, double>(
      laws::Subject(LearnedAbsolute<float>(laws::random_matrix<float>(5, 40, /*seed=*/1), {.out_of_range = policy}),
                    {.num_features = 5}));
}

TEST_CASE("LearnedAbsolute of double: laws", "[learned][property]") {
  laws::obeys<double>(laws::Subject(LearnedAbsolute<double>(laws::random_matrix<double>(3, 64, /*seed=*/1)),
                                    {.num_features = 3, .limits = {.first_position = 0, .last_position = 63}}));
}
