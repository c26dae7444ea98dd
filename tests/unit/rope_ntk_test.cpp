// SPDX-License-Identifier: MIT
#include <posenc/rope_ntk.hpp>

#include <limits>
#include <stdexcept>
#include <vector>

#include "../catch.hpp"
#include "../exact.hpp"
#include "../support.hpp"

using namespace posenc;
using exact::Number;
using support::message_of;

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

/// (b f^(r / (r - 2)))^(-2 i / r)
std::vector<Number> ntk(Index rotary_dim, double base, const Number& factor) {
  const Number r(static_cast<double>(rotary_dim));
  return exact::geometric(rotary_dim, Number(base) * pow(factor, r / (r - Number(2))));
}

/// (b s)^(-2 i / r) s^(-2 / r)
std::vector<Number> ntk_fixed(Index rotary_dim, double base, double factor) {
  const Number r(static_cast<double>(rotary_dim)), s(factor);
  auto frequencies = exact::geometric(rotary_dim, Number(base) * s);
  for (Number& frequency : frequencies) frequency = frequency * pow(s, Number(-2) / r);
  return frequencies;
}

/// w_i / exp(a (i + 1)^beta), a = ln s / (r / 2)^beta
std::vector<Number> ntk_mixed(Index rotary_dim, double base, double factor, double beta) {
  auto frequencies = exact::geometric(rotary_dim, Number(base));
  const Number a = log(Number(factor)) / pow(Number(static_cast<double>(rotary_dim / 2)), Number(beta));
  for (std::size_t i = 0; i < frequencies.size(); ++i)
    frequencies[i] = frequencies[i] / exp(a * pow(Number(static_cast<double>(i + 1)), Number(beta)));
  return frequencies;
}

/// b (s T* / max - (s - 1))^(r / (r - 2)), T* = max(T, max)
std::vector<Number> dynamic(Index rotary_dim, double base, double factor, Index trained, Index num_tokens) {
  const Number s(factor), longest(static_cast<double>(std::max(num_tokens, trained)));
  return ntk(rotary_dim, base, s * longest / Number(static_cast<double>(trained)) - (s - Number(1)));
}

void check_accuracy(const RopeFrequencies& got, const std::vector<Number>& expected) {
  const auto error = exact::accuracy(got, expected);
  CHECK(error.frequencies < 1e-30);
  CHECK(error.float_ulps <= 1);
  CHECK(error.double_ulps <= 1);
  CHECK(got.magnitude == 1);
  CHECK(got.axes.empty());
}

}  // namespace

TEST_CASE("ntk_rope_frequencies: the formula", "[rope_ntk]") {
  const Index rotary_dim = GENERATE(4, 8, 128);
  const double base = GENERATE(10000.0, 500000.0), factor = GENERATE(0.5, 1.0, 4.0, 31.7);
  CAPTURE(rotary_dim, base, factor);
  check_accuracy(ntk_rope_frequencies(rotary_dim, base, factor), ntk(rotary_dim, base, Number(factor)));
}

TEST_CASE("ntk_rope_frequencies: the slowest is divided by the factor, the fastest stays", "[rope_ntk]") {
  const auto plain = rope_frequencies(64, 10000), scaled = ntk_rope_frequencies(64, 10000, 8);
  CHECK(scaled.values[0] == 1);
  CHECK_THAT(plain.values[31] / scaled.values[31], Catch::Matchers::WithinRel(8.0, 1e-15));
  for (Index i = 1; i < 31; ++i) {
    const double divisor = plain.values[i] / scaled.values[i];
    CHECK((divisor > 1 && divisor < 8));
  }
}

TEST_CASE("ntk_fixed_rope_frequencies: the formula", "[rope_ntk]") {
  const Index rotary_dim = GENERATE(2, 8, 128);
  const double factor = GENERATE(0.5, 1.0, 4.0);
  check_accuracy(ntk_fixed_rope_frequencies(rotary_dim, 10000, factor), ntk_fixed(rotary_dim, 10000, factor));
}

TEST_CASE("ntk_mixed_rope_frequencies: the formula", "[rope_ntk]") {
  const Index rotary_dim = GENERATE(2, 8, 128);
  const double factor = GENERATE(1.0, 4.0), beta = GENERATE(0.625, 1.0, 2.0);
  check_accuracy(ntk_mixed_rope_frequencies(rotary_dim, 10000, factor, beta),
                 ntk_mixed(rotary_dim, 10000, factor, beta));
}

TEST_CASE("NTK fixed and mixed: every pair is slowed, the slowest by the factor", "[rope_ntk]") {
  const auto plain = rope_frequencies(32, 10000);
  for (const auto& scaled : {ntk_fixed_rope_frequencies(32, 10000, 4), ntk_mixed_rope_frequencies(32, 10000, 4)}) {
    CHECK_THAT(plain.values[15] / scaled.values[15], Catch::Matchers::WithinRel(4.0, 1e-14));
    for (Index i = 0; i < 16; ++i) CHECK(scaled.values[i] < plain.values[i]);
  }
}

TEST_CASE("dynamic_ntk_rope_frequencies: the model's own up to its length, then the formula", "[rope_ntk]") {
  const DynamicNtkOptions options{.factor = 2, .max_position_embeddings = 2048};
  const auto plain = rope_frequencies(64, 10000);
  for (const Index num_tokens : {0, 1, 2047, 2048}) {
    const auto same = dynamic_ntk_rope_frequencies(64, 10000, options, num_tokens);
    CHECK(support::same_bits(same.values, plain.values));
  }
  for (const Index num_tokens : {2049, 3000, 4096, 131072, 10000000})
    check_accuracy(dynamic_ntk_rope_frequencies(64, 10000, options, num_tokens),
                   dynamic(64, 10000, 2, 2048, num_tokens));
  check_accuracy(dynamic_ntk_rope_frequencies(8, 500000, {.factor = 1.7, .max_position_embeddings = 100}, 333),
                 dynamic(8, 500000, 1.7, 100, 333));
  check_accuracy(dynamic_ntk_rope_frequencies(8, 10000, {.factor = 1, .max_position_embeddings = 100}, 333),
                 dynamic(8, 10000, 1, 100, 333));
}

TEST_CASE("NTK: errors", "[rope_ntk]") {
  using Invalid = std::invalid_argument;
  CHECK(message_of<Invalid>([] { ntk_rope_frequencies(2, 10000, 2); }) ==
        "posenc::ntk_rope_frequencies: rotary_dim must be above 2, got 2");
  CHECK(message_of<Invalid>([] { ntk_rope_frequencies(7, 10000, 2); }) ==
        "posenc::rope_frequencies: rotary_dim must be even, got 7");
  CHECK(message_of<Invalid>([] { ntk_rope_frequencies(0, 10000, 2); }) ==
        "posenc::rope_frequencies: rotary_dim must be positive, got 0");
  CHECK(message_of<Invalid>([] { ntk_rope_frequencies(8, -1, 2); }) ==
        "posenc::rope_frequencies: base must be positive and finite, got -1");
  CHECK(message_of<Invalid>([] { ntk_rope_frequencies(8, 10000, 0); }) ==
        "posenc::ntk_rope_frequencies: factor must be positive and finite, got 0");
  CHECK(message_of<Invalid>([] { ntk_rope_frequencies(8, 10000, infinity); }) ==
        "posenc::ntk_rope_frequencies: factor must be positive and finite, got inf");
  CHECK(message_of<Invalid>([] { ntk_rope_frequencies(8, 10000, -infinity); }) ==
        "posenc::ntk_rope_frequencies: factor must be positive and finite, got -inf");
  CHECK(message_of<Invalid>([] { ntk_fixed_rope_frequencies(8, 10000, -2); }) ==
        "posenc::ntk_fixed_rope_frequencies: factor must be positive and finite, got -2");
  CHECK(message_of<Invalid>([] { ntk_fixed_rope_frequencies(8, infinity, 2); }) ==
        "posenc::rope_frequencies: base must be positive and finite, got inf");
  CHECK(message_of<Invalid>([] { ntk_mixed_rope_frequencies(8, 10000, 0); }) ==
        "posenc::ntk_mixed_rope_frequencies: factor must be positive and finite, got 0");
  CHECK(message_of<Invalid>([] { ntk_mixed_rope_frequencies(8, 10000, 2, 0); }) ==
        "posenc::ntk_mixed_rope_frequencies: exponent must be positive and finite, got 0");
  CHECK(message_of<Invalid>([] { dynamic_ntk_rope_frequencies(8, 10000, {.factor = 2}, 5); }) ==
        "posenc::dynamic_ntk_rope_frequencies: max_position_embeddings must be positive, got 0");
  CHECK(message_of<Invalid>([] {
          dynamic_ntk_rope_frequencies(8, 10000, {.factor = 0.5, .max_position_embeddings = 10}, 5);
        }) == "posenc::dynamic_ntk_rope_frequencies: factor must be at least 1, got 0.5");
  CHECK(message_of<Invalid>([] {
          dynamic_ntk_rope_frequencies(8, 10000, {.factor = 2, .max_position_embeddings = 10}, -1);
        }) == "posenc::dynamic_ntk_rope_frequencies: num_tokens must not be negative, got -1");
  CHECK(message_of<Invalid>([] {
          dynamic_ntk_rope_frequencies(2, 10000, {.factor = 2, .max_position_embeddings = 10}, 5);
        }) == "posenc::ntk_rope_frequencies: rotary_dim must be above 2, got 2");
}
