// SPDX-License-Identifier: MIT
#include <posenc/rope_llama3.hpp>

#include <cmath>
#include <numbers>
#include <stdexcept>
#include <vector>

#include "../catch.hpp"
#include "../exact.hpp"
#include "../support.hpp"

using namespace posenc;
using exact::Number;
using support::message_of;

namespace {

/// By wavelengths, as Meta's code has it: lambda = 2 pi / w.
std::vector<Number> llama3(Index rotary_dim, double base, const Llama3RopeOptions& options) {
  const Number length(static_cast<double>(options.original_max_position_embeddings));
  const Number low(options.low_freq_factor), high(options.high_freq_factor), factor(options.factor);
  auto frequencies = exact::geometric(rotary_dim, Number(base));
  for (Number& frequency : frequencies) {
    const Number wavelength = Number(2) * exact::pi() / frequency;
    if (wavelength < length / high) continue;
    if (wavelength > length / low) {
      frequency = frequency / factor;
      continue;
    }
    const Number t = (length / wavelength - low) / (high - low);
    frequency = (Number(1) - t) * frequency / factor + t * frequency;
  }
  return frequencies;
}

}  // namespace

TEST_CASE("llama3_rope_frequencies: the formula", "[rope_llama3]") {
  const auto options =
      GENERATE(Llama3RopeOptions{}, Llama3RopeOptions{.factor = 32},
               Llama3RopeOptions{
                   .factor = 16, .low_freq_factor = 1, .high_freq_factor = 1, .original_max_position_embeddings = 8192},
               Llama3RopeOptions{
                   .factor = 4, .low_freq_factor = 2, .high_freq_factor = 8, .original_max_position_embeddings = 512},
               Llama3RopeOptions{.factor = 0.5}, Llama3RopeOptions{.factor = 8, .low_freq_factor = 0.3});
  const Index rotary_dim = GENERATE(2, 32, 128);
  const double base = GENERATE(10000.0, 500000.0);
  CAPTURE(rotary_dim, base, options.factor);
  const auto got = llama3_rope_frequencies(rotary_dim, base, options);
  const auto error = exact::accuracy(got, llama3(rotary_dim, base, options));
  CHECK(error.frequencies < 1e-30);
  CHECK(error.float_ulps <= 1);
  CHECK(error.double_ulps <= 1);
  CHECK(got.magnitude == 1);
}

TEST_CASE("llama3_rope_frequencies: Llama 3.1", "[rope_llama3]") {
  // 128 features, base 500000: waves shorter than 2048 stay, those longer than 8192 are 8 times as long.
  const auto plain = rope_frequencies(128, 500000), scaled = llama3_rope_frequencies(128, 500000);
  Index kept = 0, between = 0, slowed = 0;
  for (Index i = 0; i < 64; ++i) {
    const double wavelength = 2 * std::numbers::pi / plain.values[i], divisor = plain.values[i] / scaled.values[i];
    if (wavelength < 2048) {
      CHECK(divisor == 1);
      ++kept;
    } else if (wavelength > 8192) {
      CHECK(divisor == 8);
      ++slowed;
    } else {
      CHECK((divisor > 1 && divisor < 8));
      ++between;
    }
  }
  CHECK(kept == 29);
  CHECK(between == 6);
  CHECK(slowed == 29);
}

TEST_CASE("llama3_rope_frequencies: factor 1 changes nothing", "[rope_llama3]") {
  const auto plain = rope_frequencies(64, 500000), same = llama3_rope_frequencies(64, 500000, {.factor = 1});
  CHECK((plain.values - same.values).cwiseAbs().maxCoeff() < 1e-16);
}

TEST_CASE("llama3_rope_frequencies: errors", "[rope_llama3]") {
  const auto message = [](Index rotary_dim, double base, const Llama3RopeOptions& options) {
    return message_of<std::invalid_argument>([&] { llama3_rope_frequencies(rotary_dim, base, options); });
  };
  CHECK(message(9, 10000, {}) == "posenc::rope_frequencies: rotary_dim must be even, got 9");
  CHECK(message(8, 0, {}) == "posenc::rope_frequencies: base must be positive and finite, got 0");
  CHECK(message(8, 10000, {.factor = 0}) ==
        "posenc::llama3_rope_frequencies: factor must be positive and finite, got 0");
  CHECK(message(8, 10000, {.low_freq_factor = 0}) ==
        "posenc::llama3_rope_frequencies: low_freq_factor must be positive and finite, got 0");
  CHECK(message(8, 10000, {.high_freq_factor = -4}) ==
        "posenc::llama3_rope_frequencies: high_freq_factor must be positive and finite, got -4");
  CHECK(message(8, 10000, {.low_freq_factor = 4, .high_freq_factor = 1}) ==
        "posenc::llama3_rope_frequencies: high_freq_factor must be at least low_freq_factor, got 1");
  CHECK(message(8, 10000, {.original_max_position_embeddings = 0}) ==
        "posenc::llama3_rope_frequencies: original_max_position_embeddings must be positive, got 0");
}
