// SPDX-License-Identifier: MIT

#include <posenc/rope_frequencies.hpp>

#include <Eigen/Core>
#include <cstddef>
#include <limits>
#include <stdexcept>

#include "../catch.hpp"
#include "../exact.hpp"

using namespace posenc;
using Catch::Matchers::Message;

TEST_CASE("Frequencies are base^(-2i/rotary_dim)", "[rope_frequencies]") {
  const auto frequencies = rope_frequencies(8);
  REQUIRE(frequencies.size() == 4);
  CHECK(frequencies.values.isApprox(Eigen::Vector4d(1, 0.1, 0.01, 0.001), 1e-15));
  CHECK(frequencies.values[0] == 1);
  CHECK(frequencies.low_parts[0] == 0);
  CHECK(frequencies.magnitude == 1);
  CHECK(rope_frequencies(2).values == Eigen::Matrix<double, 1, 1>(1.0));
  CHECK(rope_frequencies(6, 1).values == Eigen::Vector3d::Ones());
}

TEST_CASE("values + low_parts is within 1e-30 of the formula", "[rope_frequencies][accuracy]") {
  const double base = GENERATE(10000.0, 500000.0, 1e6, 150000.0, 1e7, 2.0, 10.0, 1.5, 1e9, 0.25);
  for (Index dim = 2; dim <= 256; dim += dim < 32 ? 2 : 14) {
    const auto frequencies = rope_frequencies(dim, base);
    const auto expected = exact::geometric(dim, base);
    CAPTURE(base, dim);
    CHECK(exact::worst_relative(frequencies, expected) <= 1e-30);
    for (Index i = 0; i < dim / 2; ++i)  // the value alone is the nearest double
      CHECK(exact::ulps(frequencies.values[i], expected[static_cast<std::size_t>(i)]) <= 0.5);
  }
}

TEST_CASE("Frequencies that make no sense are refused", "[rope_frequencies]") {
  CHECK_THROWS_MATCHES(rope_frequencies(7), std::invalid_argument,
                       Message("posenc::rope_frequencies: rotary_dim must be even, got 7"));
  CHECK_THROWS_MATCHES(rope_frequencies(0), std::invalid_argument,
                       Message("posenc::rope_frequencies: rotary_dim must be positive, got 0"));
  CHECK_THROWS_MATCHES(rope_frequencies(-2), std::invalid_argument,
                       Message("posenc::rope_frequencies: rotary_dim must be positive, got -2"));
  CHECK_THROWS_MATCHES(rope_frequencies(8, 0), std::invalid_argument,
                       Message("posenc::rope_frequencies: base must be positive and finite, got 0"));
  CHECK_THROWS_MATCHES(rope_frequencies(8, -10000), std::invalid_argument,
                       Message("posenc::rope_frequencies: base must be positive and finite, got -10000"));
  CHECK_THROWS_AS(rope_frequencies(8, std::numeric_limits<double>::infinity()), std::invalid_argument);
  CHECK_THROWS_AS(rope_frequencies(8, std::numeric_limits<double>::quiet_NaN()), std::invalid_argument);
}
