// SPDX-License-Identifier: MIT
#include <posenc/rope_longrope.hpp>

#include <cmath>
#include <limits>
#include <stdexcept>
#include <vector>

#include "../catch.hpp"
#include "../exact.hpp"
#include "../support.hpp"

using namespace posenc;
using Catch::Matchers::WithinAbs;
using exact::Number;
using support::message_of;

namespace {

LongRopeOptions phi(Index pairs) {
  LongRopeOptions options{.short_factors = Vector<double>(pairs),
                          .long_factors = Vector<double>(pairs),
                          .original_max_position_embeddings = 4096,
                          .factor = 32};
  for (Index i = 0; i < pairs; ++i) {
    options.short_factors[i] = 1 + 0.01 * static_cast<double>(i);
    options.long_factors[i] = 1.07 + 1.3 * static_cast<double>(i);
  }
  return options;
}

/// b^(-2 i / r) / f_i
std::vector<Number> longrope(Index rotary_dim, double base, const Vector<double>& factors) {
  auto frequencies = exact::geometric(rotary_dim, Number(base));
  for (std::size_t i = 0; i < frequencies.size(); ++i)
    frequencies[i] = frequencies[i] / Number(factors[static_cast<Index>(i)]);
  return frequencies;
}

}  // namespace

TEST_CASE("longrope_frequencies: the formula, with the short list or the long one", "[rope_longrope]") {
  const Index rotary_dim = GENERATE(2, 16, 96);
  const double base = GENERATE(10000.0, 500000.0);
  const bool is_long = GENERATE(false, true);
  const auto options = phi(rotary_dim / 2);
  auto got = longrope_frequencies(rotary_dim, base, options, is_long ? 4097 : 4096);
  CHECK(got.magnitude == longrope_magnitude(32, 4096));
  got.magnitude = 1;
  const auto error =
      exact::accuracy(got, longrope(rotary_dim, base, is_long ? options.long_factors : options.short_factors));
  CHECK(error.frequencies < 1e-30);
  CHECK(error.float_ulps <= 1);
  CHECK(error.double_ulps <= 1);
}

TEST_CASE("longrope_frequencies: the trained length itself is short", "[rope_longrope]") {
  const auto options = phi(8);
  const auto is_long = [&](Index num_tokens) {
    const auto got = longrope_frequencies(16, 10000, options, num_tokens);
    const auto plain = rope_frequencies(16, 10000);
    const bool with_long =
        (got.values.array() * options.long_factors.array() / plain.values.array() - 1).abs().maxCoeff() < 1e-15;
    const bool with_short =
        (got.values.array() * options.short_factors.array() / plain.values.array() - 1).abs().maxCoeff() < 1e-15;
    CHECK(with_long != with_short);
    return with_long;
  };
  for (const Index num_tokens : {0, 1, 4095, 4096}) CHECK_FALSE(is_long(num_tokens));
  for (const Index num_tokens : {4097, 131072}) CHECK(is_long(num_tokens));
}

TEST_CASE("longrope_magnitude", "[rope_longrope]") {
  CHECK_THAT(longrope_magnitude(32, 4096), WithinAbs(1.1902, 5e-5));
  CHECK_THAT(longrope_magnitude(32, 4096), WithinAbs(std::sqrt(1 + std::log(32.0) / std::log(4096.0)), 1e-15));
  CHECK(longrope_magnitude(1, 4096) == 1);
  CHECK(longrope_magnitude(0.5, 4096) == 1);
  auto options = phi(4);
  options.attention_factor = 1.25;
  CHECK(longrope_frequencies(8, 10000, options, 5).magnitude == 1.25);
  CHECK(longrope_frequencies(8, 10000, options, 5000).magnitude == 1.25);
  options.attention_factor.reset();
  options.factor = 1;
  CHECK(longrope_frequencies(8, 10000, options, 5000).magnitude == 1);
}

TEST_CASE("longrope_frequencies: errors", "[rope_longrope]") {
  using Invalid = std::invalid_argument;
  CHECK(message_of<Invalid>([] { longrope_magnitude(32, 1); }) ==
        "posenc::longrope_magnitude: original_max_position_embeddings must be above 1, got 1");
  const auto message = [](auto change, Index rotary_dim = 8, Index num_tokens = 10) {
    auto options = phi(4);
    change(options);
    return message_of<Invalid>([&] { longrope_frequencies(rotary_dim, 10000, options, num_tokens); });
  };
  const auto as_it_is = [](auto&) {};
  CHECK(message(as_it_is) == "accepted");
  CHECK(message(as_it_is, 7) == "posenc::rope_frequencies: rotary_dim must be even, got 7");
  CHECK(message(as_it_is, 8, -1) == "posenc::longrope_frequencies: num_tokens must not be negative, got -1");
  CHECK(message([](auto& o) { o.original_max_position_embeddings = 1; }) ==
        "posenc::longrope_frequencies: original_max_position_embeddings must be above 1, got 1");
  CHECK(message([](auto& o) { o.factor = -1; }) ==
        "posenc::longrope_frequencies: factor must be positive and finite, got -1");
  CHECK(message([](auto& o) { o.attention_factor = 0; }) ==
        "posenc::longrope_frequencies: attention_factor must be positive and finite, got 0");
  // Both lists are checked, whichever of them is used.
  for (const Index num_tokens : {10, 5000}) {
    CHECK(message([](auto& o) { o.short_factors.conservativeResize(3); }, 8, num_tokens) ==
          "posenc::divided: the number of factors must be the number of frequencies = 4, got 3");
    CHECK(message([](auto& o) { o.long_factors = Vector<double>(); }, 8, num_tokens) ==
          "posenc::divided: the number of factors must be the number of frequencies = 4, got 0");
    CHECK(message([](auto& o) { o.long_factors[2] = 0; }, 8, num_tokens) ==
          "posenc::divided: factors must be positive and finite, got 0");
    CHECK(message([](auto& o) { o.short_factors[0] = std::numeric_limits<double>::quiet_NaN(); }, 8, num_tokens)
              .starts_with("posenc::divided: factors must be positive and finite, got "));
  }
}
