// SPDX-License-Identifier: MIT
#include <posenc/rope_parity.hpp>

#include <posenc/rope_axes.hpp>

#include <cmath>
#include <cstdint>
#include <stdexcept>
#include <vector>

#include "../catch.hpp"
#include "../support.hpp"

using namespace posenc;
using support::message_of;

namespace {

constexpr float pi = 3.14159265358979f;

/// The angle of a pair in ggml, as its formulas say: repeated products in float32, interpolated and not, mixed.
float ggml_angle(const GgmlRopeOptions& options, std::int64_t position, Index pair, Index in_section) {
  float theta = static_cast<float>(position);
  const float step = std::pow(options.freq_base, -2.0f / static_cast<float>(options.n_dims));
  for (Index i = 0; i < in_section; ++i) theta *= step;
  if (options.freq_factors.size() != 0) theta /= options.freq_factors[pair];
  const float interpolated = options.freq_scale * theta;
  if (options.ext_factor == 0) return interpolated;
  const auto end = [&](float beta) {
    const auto n = static_cast<float>(options.n_dims);
    return n * std::log(static_cast<float>(options.n_ctx_orig) / (beta * 2 * pi)) / (2 * std::log(options.freq_base));
  };
  const float low = std::max(0.0f, std::floor(end(options.beta_fast)));
  const float high = std::min(static_cast<float>(options.n_dims - 1), std::ceil(end(options.beta_slow)));
  const float ramp = (static_cast<float>(pair) - low) / std::max(0.001f, high - low);
  const float mix = (1 - std::min(1.0f, std::max(0.0f, ramp))) * options.ext_factor;
  return interpolated * (1 - mix) + theta * mix;
}

/// The largest difference to a table: of an ulp of the result, and with YaRN, where a product may be fused with a sum,
/// of two of the angle; 1 is as much as may be.
double difference(const RopeTable<float>& table, const GgmlRopeOptions& options, float magnitude) {
  double worst = 0;
  const auto& frequencies = table.rope().frequencies();
  for (Index t = 0; t < table.num_positions(); ++t)
    for (Index i = 0, in_section = 0; i < table.cos().rows(); ++i, ++in_section) {
      if (options.restart_axes && i > 0 && frequencies.axis(i) != frequencies.axis(i - 1)) in_section = 0;
      const float angle = ggml_angle(options, table.first_position() + t, i, in_section);
      const double slack =
          options.ext_factor == 0 ? 1.2e-7 * magnitude : 3e-7 + 2.4e-7 * std::abs(static_cast<double>(angle));
      const double error = std::max(std::abs(table.cos()(i, t) - std::cos(angle) * magnitude),
                                    std::abs(table.sin()(i, t) - std::sin(angle) * magnitude));
      worst = std::max(worst, error / slack);
    }
  return worst;
}

}  // namespace

TEST_CASE("float32_rope_frequencies: every step in float32", "[rope_parity]") {
  for (const Index rotary_dim : {2, 8, 128})
    for (const double base : {10000.0, 500000.0}) {
      const auto exact = rope_frequencies(rotary_dim, base), rounded = float32_rope_frequencies(rotary_dim, base);
      REQUIRE(rounded.size() == rotary_dim / 2);
      for (Index i = 0; i < rounded.size(); ++i) {
        CHECK(rounded.values[i] == static_cast<double>(static_cast<float>(rounded.values[i])));
        CHECK(std::abs(rounded.values[i] / exact.values[i] - 1) < 1e-6);
      }
    }
  CHECK((float32_rope_frequencies(128).values - rope_frequencies(128).values).cwiseAbs().maxCoeff() > 1e-9);
}

TEST_CASE("float32_rope_table: the product of the angle in float32", "[rope_parity]") {
  const double magnitude = GENERATE(1.0, 1.2);
  RopeFrequencies frequencies = float32_rope_frequencies(16, 500000);
  frequencies.magnitude = magnitude;
  const Rope rope(frequencies, {.head_dim = 16});
  for (const std::int64_t first : {std::int64_t{-5}, std::int64_t{0}, std::int64_t{1000000}, std::int64_t{16777215}}) {
    const auto table = float32_rope_table(rope, 4, first);
    CHECK(table.first_position() == first);
    for (Index t = 0; t < 4; ++t)
      for (Index i = 0; i < 8; ++i) {
        const float angle = static_cast<float>(first + t) * static_cast<float>(frequencies.values[i]);
        CHECK(table.cos()(i, t) == std::cos(angle) * static_cast<float>(magnitude));
        CHECK(table.sin()(i, t) == std::sin(angle) * static_cast<float>(magnitude));
      }
    const auto before = support::random_matrix<float>(16, 4);
    Matrix<float> x = before;
    table(x, positions(4, first));
    table.apply_inverse(x, positions(4, first));
    CHECK(support::distance(x, before) < 2e-6);
  }
}

TEST_CASE("float32_rope_table: as wrong as its origin", "[rope_parity]") {
  const Rope rope({.head_dim = 128});
  const auto off = [&](std::int64_t position) {
    return support::distance(float32_rope_table(rope, 100, position).cos(),
                             RopeTable<float>(rope, 100, position).cos());
  };
  CHECK(off(0) < 1e-5);
  CHECK(off(131072) > 1e-3);
  CHECK(off(1000000) > 1e-2);
  CHECK(off(1000000) < 0.1);  // "up to 0.1 at a million tokens"
}

TEST_CASE("ggml_rope_table: repeated products in float32", "[rope_parity]") {
  const Rope rope({.head_dim = 64});
  const GgmlRopeOptions plain{.n_dims = 64};
  CHECK(difference(ggml_rope_table(rope, plain, 20, -3), plain, 1) <= 1);
  CHECK(difference(ggml_rope_table(rope, plain, 20, 1000000), plain, 1) <= 1);
  CHECK(support::distance(ggml_rope_table(rope, plain, 20).cos(), RopeTable<float>(rope, 20).cos()) < 1e-5);
  CHECK(support::distance(ggml_rope_table(rope, plain, 100, 131072).cos(), RopeTable<float>(rope, 100, 131072).cos()) >
        1e-3);

  GgmlRopeOptions options{.n_dims = 64, .freq_base = 500000, .freq_scale = 0.25f, .attn_factor = 1.5f};
  CHECK(difference(ggml_rope_table(rope, options, 10, 5000), options, 1.5f) <= 1);
  options.freq_factors = Vector<float>::LinSpaced(32, 1, 30);
  CHECK(difference(ggml_rope_table(rope, options, 10, 5000), options, 1.5f) <= 1);
}

TEST_CASE("ggml_rope_table: YaRN", "[rope_parity]") {
  const Rope rope({.head_dim = 64});
  GgmlRopeOptions options{.n_dims = 64, .freq_scale = 0.25f, .ext_factor = 1, .n_ctx_orig = 2048};
  const float magnitude = 1.0f + 0.1f * std::log(4.0f);
  CHECK(difference(ggml_rope_table(rope, options, 10, 3000), options, magnitude) <= 1);
  options.ext_factor = 0.5f;
  options.attn_factor = 1.2f;
  options.beta_fast = 16;
  options.beta_slow = 2;
  CHECK(difference(ggml_rope_table(rope, options, 10, 3000), options, 1.2f * magnitude) <= 1);
  options.n_ctx_orig = 5;  // an empty ramp
  CHECK(difference(ggml_rope_table(rope, options, 10, 3000), options, 1.2f * magnitude) <= 1);
}

TEST_CASE("ggml_rope_table: axes, with a progression that begins anew or not", "[rope_parity]") {
  RopeFrequencies frequencies = rope_frequencies(16);
  frequencies.axes = mrope_chunks({3, 3, 2});
  const Rope rope(frequencies, {.head_dim = 16});
  GgmlRopeOptions options{.n_dims = 16};
  CHECK(difference(ggml_rope_table(rope, options, 30), options, 1) <= 1);
  options.n_dims = 8;
  options.restart_axes = true;
  CHECK(difference(ggml_rope_table(rope, options, 30), options, 1) <= 1);
  options.freq_scale = 0.5f;  // the ramp goes by the number of the pair in the head, whatever section it is in
  options.ext_factor = 1;
  options.n_ctx_orig = 256;
  CHECK(difference(ggml_rope_table(rope, options, 30), options, 1.0f + 0.1f * std::log(2.0f)) <= 1);
}

TEST_CASE("ggml_rope_table: the inverse takes the magnitude back", "[rope_parity]") {
  const Rope rope({.head_dim = 8, .layout = PairLayout::interleaved});
  const auto table = ggml_rope_table(rope, {.n_dims = 8, .attn_factor = 1.5f}, 10);
  const auto before = support::random_matrix<float>(8, 10);
  Matrix<float> x = before;
  table(x, positions(10));
  CHECK(std::abs(x.norm() / before.norm() - 1.5f) < 1e-5f);
  table.apply_inverse(x, positions(10));
  CHECK(support::distance(x, before) < 2e-6);
}

TEST_CASE("Parity tables: errors", "[rope_parity]") {
  using Invalid = std::invalid_argument;
  const Rope rope({.head_dim = 8});
  CHECK(message_of<Invalid>([&] { float32_rope_frequencies(7); }) ==
        "posenc::rope_frequencies: rotary_dim must be even, got 7");
  CHECK(message_of<Invalid>([&] { float32_rope_table(rope, -1); }) ==
        "posenc::float32_rope_table: num_positions must not be negative, got -1");
  const auto message = [&](const GgmlRopeOptions& options, Index num_positions = 3) {
    return message_of<Invalid>([&] { ggml_rope_table(rope, options, num_positions); });
  };
  CHECK(message({.n_dims = 8}) == "accepted");
  CHECK(message({.n_dims = 8}, -1) == "posenc::ggml_rope_table: num_positions must not be negative, got -1");
  CHECK(message({}) == "posenc::ggml_rope_table: n_dims must be positive and even, got 0");
  CHECK(message({.n_dims = 7}) == "posenc::ggml_rope_table: n_dims must be positive and even, got 7");
  CHECK(message({.n_dims = 8, .freq_base = 0}) == "posenc::ggml_rope_table: freq_base must be positive, got 0");
  CHECK(message({.n_dims = 8, .freq_scale = -1}) == "posenc::ggml_rope_table: freq_scale must be positive, got -1");
  CHECK(message({.n_dims = 8, .ext_factor = 1}) == "posenc::ggml_rope_table: n_ctx_orig must be positive, got 0");
  CHECK(message({.n_dims = 8, .ext_factor = 1, .beta_slow = 0, .n_ctx_orig = 10}) ==
        "posenc::ggml_rope_table: beta_fast and beta_slow must be positive, got 0");
  CHECK(message({.n_dims = 8, .freq_factors = Vector<float>::Ones(3)}) ==
        "posenc::ggml_rope_table: freq_factors must be as many as the pairs = 4, got 3");
}
