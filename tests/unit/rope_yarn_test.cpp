// SPDX-License-Identifier: MIT
#include <posenc/rope_yarn.hpp>

#include <cmath>
#include <limits>
#include <stdexcept>
#include <utility>
#include <vector>

#include "../catch.hpp"
#include "../exact.hpp"
#include "../support.hpp"

using namespace posenc;
using Catch::Matchers::WithinAbs;
using exact::Number;
using support::message_of;

namespace {

/// r ln(L / (2 pi beta)) / (2 ln b): the pair that turns beta times within L.
Number pair_that_turns(Index rotary_dim, double base, const YarnOptions& options, double beta) {
  const Number length(static_cast<double>(options.original_max_position_embeddings));
  return Number(static_cast<double>(rotary_dim)) * log(length / (Number(2) * exact::pi() * Number(beta))) /
         (Number(2) * log(Number(base)));
}

/// The ends of the ramp.
std::pair<Number, Number> ramp(Index rotary_dim, double base, const YarnOptions& options) {
  Number low = pair_that_turns(rotary_dim, base, options, options.beta_fast);
  Number high = pair_that_turns(rotary_dim, base, options, options.beta_slow);
  if (options.truncate) {
    low = floor(low);
    high = ceil(high);
  }
  return {max(low, Number(0)), min(high, Number(static_cast<double>(rotary_dim - 1)))};
}

std::vector<Number> yarn(Index rotary_dim, double base, const YarnOptions& options) {
  const auto [low, high] = ramp(rotary_dim, base, options);
  auto frequencies = exact::geometric(rotary_dim, Number(base));
  for (std::size_t i = 0; i < frequencies.size(); ++i) {
    const Number share =
        clip((Number(static_cast<double>(i)) - low) / max(high - low, Number(0.001)), Number(0), Number(1));
    const Number kept = (Number(1) - share) * Number(options.extrapolation);
    frequencies[i] = frequencies[i] * (kept + (Number(1) - kept) / Number(options.factor));
  }
  return frequencies;
}

/// Below 1e-30, and every cosine and sine within 1 ulp.
void check_schedule(Index rotary_dim, double base, const YarnOptions& options) {
  RopeFrequencies got = yarn_rope_frequencies(rotary_dim, base, options);
  got.magnitude = 1;
  const auto error = exact::accuracy(got, yarn(rotary_dim, base, options));
  CHECK(error.frequencies < 1e-30);
  CHECK(error.float_ulps <= 1);
  CHECK(error.double_ulps <= 1);
}

double magnitude(const YarnOptions& options) { return yarn_rope_frequencies(8, 10000, options).magnitude; }

/// By what each frequency is divided.
Eigen::VectorXd divisors(Index rotary_dim, double base, const YarnOptions& options) {
  return rope_frequencies(rotary_dim, base)
      .values.cwiseQuotient(yarn_rope_frequencies(rotary_dim, base, options).values);
}

}  // namespace

TEST_CASE("yarn_rope_frequencies: the formula", "[rope_yarn]") {
  check_schedule(64, 10000, {.factor = 4, .original_max_position_embeddings = 2048});
  check_schedule(128, 10000, {.factor = 16, .original_max_position_embeddings = 4096});
  check_schedule(64, 10000, {.factor = 8, .original_max_position_embeddings = 2048, .beta_fast = 16, .beta_slow = 2});
  check_schedule(64, 150000, {.factor = 32, .original_max_position_embeddings = 4096, .truncate = false});
  check_schedule(32, 10000, {.factor = 16, .original_max_position_embeddings = 1024, .extrapolation = 0.5});
  check_schedule(32, 500000, {.factor = 1, .original_max_position_embeddings = 8192});
  check_schedule(32, 10000, {.factor = 0.5, .original_max_position_embeddings = 8192});  // closer than trained
  check_schedule(2, 10000, {.factor = 4, .original_max_position_embeddings = 4096});
}

TEST_CASE("yarn_rope_frequencies: the ramp of the two published examples", "[rope_yarn]") {
  SECTION("128 features, base 10000, 4096 tokens: [20, 46]") {
    const YarnOptions options{.factor = 4, .original_max_position_embeddings = 4096};
    CHECK_THAT(static_cast<double>(pair_that_turns(128, 10000, options, 32)), WithinAbs(20.94, 0.005));
    CHECK_THAT(static_cast<double>(pair_that_turns(128, 10000, options, 1)), WithinAbs(45.03, 0.005));
    const auto divided_by = divisors(128, 10000, options);
    CHECK((divided_by.head(21).array() == 1).all());
    CHECK((divided_by(21) > 1 && divided_by(45) < 4));
    for (Index i = 21; i < 46; ++i) CHECK(divided_by(i) < divided_by(i + 1));
    CHECK((divided_by.tail(18).array() == 4).all());
  }
  SECTION("gpt-oss, not truncated: [8.09, 17.40]") {
    const YarnOptions options{.factor = 32, .original_max_position_embeddings = 4096, .truncate = false};
    const auto [low, high] = ramp(64, 150000, options);
    CHECK_THAT(static_cast<double>(low), WithinAbs(8.09, 0.005));
    CHECK_THAT(static_cast<double>(high), WithinAbs(17.40, 0.005));
    const auto divided_by = divisors(64, 150000, options);
    CHECK((divided_by.head(9).array() == 1).all());
    CHECK((divided_by(9) > 1 && divided_by(17) < 32));
    CHECK((divided_by.tail(14).array() == 32).all());
  }
}

TEST_CASE("yarn_rope_frequencies: a ramp that is empty or runs backwards is a step", "[rope_yarn]") {
  SECTION("low == high") {  // 5 tokens: both ends are pair 0
    const YarnOptions options{.factor = 4, .original_max_position_embeddings = 5};
    const auto [low, high] = ramp(8, 10000, options);
    CHECK(static_cast<double>(low) == static_cast<double>(high));
    check_schedule(8, 10000, options);
    CHECK(divisors(8, 10000, options) == Eigen::Vector4d(1, 4, 4, 4));
  }
  SECTION("low > high") {  // 1 token: no pair turns even once
    const YarnOptions options{.factor = 4, .original_max_position_embeddings = 1};
    const auto [low, high] = ramp(128, 10000, options);
    CHECK(low > high);
    check_schedule(128, 10000, options);
    const auto divided_by = divisors(128, 10000, options);
    CHECK(divided_by(0) == 1);
    CHECK((divided_by.tail(63).array() == 4).all());
  }
  SECTION("the betas exchanged") {
    const YarnOptions options{.factor = 4, .original_max_position_embeddings = 4096, .beta_fast = 1, .beta_slow = 32};
    const auto [low, high] = ramp(128, 10000, options);
    CHECK(low > high);
    check_schedule(128, 10000, options);
    const auto divided_by = divisors(128, 10000, options);  // a step behind pair 45: never a ramp from slow to fast
    CHECK((divided_by.head(46).array() == 1).all());
    CHECK((divided_by.tail(18).array() == 4).all());
  }
  SECTION("both ends behind the last pair") {
    const YarnOptions options{.factor = 4, .original_max_position_embeddings = 1000000000};
    check_schedule(8, 10000, options);
  }
}

TEST_CASE("yarn_rope_frequencies: beyond r/2 - 1, to r - 1, the high end is kept", "[rope_yarn]") {
  // 8 features of base 10000: the pair that turns once within 10^5 is number 4.2, so pair 3 is still on the ramp.
  const auto divided_by =
      divisors(8, 10000, {.factor = 4, .original_max_position_embeddings = 100000, .truncate = false});
  CHECK((divided_by(3) > 1.1 && divided_by(3) < 1.3));
}

TEST_CASE("yarn_magnitude", "[rope_yarn]") {
  CHECK_THAT(yarn_magnitude(4), WithinAbs(1.13863, 5e-6));
  CHECK_THAT(yarn_magnitude(16), WithinAbs(1.27726, 5e-6));
  CHECK(yarn_magnitude(1) == 1);
  CHECK(yarn_magnitude(0.25) == 1);
  CHECK_THAT(yarn_magnitude(4, 0.7), WithinAbs(1 + 0.07 * std::log(4.0), 1e-15));
  CHECK(yarn_magnitude(4, 0) == 1);
}

TEST_CASE("yarn_rope_frequencies: which magnitude", "[rope_yarn]") {
  const YarnOptions plain{.factor = 40, .original_max_position_embeddings = 4096};
  const auto with = [&](auto change) {
    YarnOptions options = plain;
    change(options);
    return magnitude(options);
  };
  CHECK(magnitude(plain) == yarn_magnitude(40));
  CHECK(with([](auto& o) { o.attention_factor = 0.9; }) == 0.9);
  CHECK(with([](auto& o) { o.mscale = 1, o.mscale_all_dim = 0.8; }) == yarn_magnitude(40, 1) / yarn_magnitude(40, 0.8));
  CHECK(with([](auto& o) { o.mscale = 1, o.mscale_all_dim = 1; }) == 1);
  CHECK(with([](auto& o) { o.mscale = 0.707; }) == yarn_magnitude(40));          // one alone counts for nothing
  CHECK(with([](auto& o) { o.mscale_all_dim = 0.707; }) == yarn_magnitude(40));  // nor does the other
  CHECK(with([](auto& o) { o.mscale = 0, o.mscale_all_dim = 1; }) == yarn_magnitude(40));
  CHECK(with([](auto& o) { o.attention_factor = 1.5, o.mscale = 1, o.mscale_all_dim = 0.8; }) == 1.5);
  CHECK(with([](auto& o) { o.factor = 1; }) == 1);
}

TEST_CASE("YaRN's magnitude multiplies the rotated features and no others, and the inverse takes it back",
          "[rope_yarn]") {
  const auto frequencies = yarn_rope_frequencies(8, 10000, {.factor = 4, .original_max_position_embeddings = 4096});
  const Rope rope(frequencies, {.head_dim = 12});
  const auto before = support::random_matrix<double>(12, 5);
  auto x = before;
  rope(x, positions(5, 1000));
  for (Index t = 0; t < 5; ++t)
    CHECK_THAT(x.col(t).head(8).norm() / before.col(t).head(8).norm(), WithinAbs(yarn_magnitude(4), 1e-14));
  CHECK(support::same_bits(x.bottomRows(4), before.bottomRows(4)));
  rope.apply_inverse(x, positions(5, 1000));
  CHECK(support::distance(x, before) < 1e-14);
}

TEST_CASE("yarn_rope_frequencies: errors", "[rope_yarn]") {
  using Invalid = std::invalid_argument;
  constexpr double infinity = std::numeric_limits<double>::infinity();
  const auto message = [](Index rotary_dim, double base, const YarnOptions& options) {
    return message_of<Invalid>([&] { yarn_rope_frequencies(rotary_dim, base, options); });
  };
  const YarnOptions fine{.factor = 4, .original_max_position_embeddings = 4096};
  CHECK(message(8, 10000, fine) == "accepted");
  CHECK(message(7, 10000, fine) == "posenc::rope_frequencies: rotary_dim must be even, got 7");
  CHECK(message(0, 10000, fine) == "posenc::rope_frequencies: rotary_dim must be positive, got 0");
  CHECK(message(8, 1, fine) == "posenc::yarn_rope_frequencies: base must be above 1, got 1");
  CHECK(message(8, infinity, fine) == "posenc::rope_frequencies: base must be positive and finite, got inf");
  CHECK(message(8, 10000, {.factor = 4}) ==
        "posenc::yarn_rope_frequencies: original_max_position_embeddings must be positive, got 0");
  const auto changed = [&](auto change) {
    YarnOptions options = fine;
    change(options);
    return message(8, 10000, options);
  };
  CHECK(changed([](auto& o) { o.factor = 0; }) ==
        "posenc::yarn_rope_frequencies: factor must be positive and finite, got 0");
  CHECK(changed([](auto& o) { o.beta_fast = -32; }) ==
        "posenc::yarn_rope_frequencies: beta_fast must be positive and finite, got -32");
  CHECK(changed([](auto& o) { o.beta_slow = infinity; }) ==
        "posenc::yarn_rope_frequencies: beta_slow must be positive and finite, got inf");
  CHECK(changed([](auto& o) { o.extrapolation = 1.5; }) ==
        "posenc::yarn_rope_frequencies: extrapolation must be between 0 and 1, got 1.5");
  CHECK(changed([](auto& o) { o.attention_factor = 0; }) ==
        "posenc::yarn_rope_frequencies: the magnitude must be positive and finite, got 0");
  CHECK(changed([](auto& o) {
          o.mscale = -10, o.mscale_all_dim = 1;
        }).starts_with("posenc::yarn_rope_frequencies: the magnitude must be positive and finite, got -"));
}
