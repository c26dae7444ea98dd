// SPDX-License-Identifier: MIT

#include <posenc/detail/angle.hpp>

#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <utility>
#include <vector>

#include "../catch.hpp"
#include "../exact.hpp"

using namespace posenc::detail;
using exact::Number;

namespace {

double random_number(std::mt19937_64& engine) { return std::ldexp(static_cast<double>(engine() >> 11), -53); }

/// Of all sizes up to small_angle: at random, near multiples of pi / 32, and in the middle between two of them.
std::vector<DoubleDouble> angles() {
  std::mt19937_64 engine(1);
  std::vector<DoubleDouble> angles{{0, 0}, {0x1p-1000, 0}, {0x1p-40, 0x1p-100}, {std::nextafter(small_angle, 0.0), 0}};
  const DoubleDouble step = pi / 32.0;
  for (int n = 0; n < 20000; ++n) {
    const double high = std::ldexp(random_number(engine), static_cast<int>(engine() % 35) - 10);
    const double k = std::round(high / step.high) + (n % 3 == 2 ? 0.5 : 0);
    const DoubleDouble near = DoubleDouble{k} * step + DoubleDouble{(random_number(engine) - 0.5) * 0x1p-16};
    angles.push_back(n % 3 == 0 ? DoubleDouble{high, high * 0x1p-54 * random_number(engine)} : near);
  }
  for (std::size_t n = angles.size(); n-- > 0;) angles.push_back({-angles[n].high, -angles[n].low});
  std::erase_if(angles, [](const DoubleDouble& angle) { return !(std::abs(angle.high) < small_angle); });
  return angles;
}

}  // namespace

TEST_CASE("The table of cosines and sines is right to 78 bits, and its heads have 26", "[cos_sin]") {
  for (std::size_t k = 0; k < 64; ++k) {
    CAPTURE(k);
    const Number angle = exact::pi() * Number(static_cast<double>(k)) / Number(32);
    const auto& parts = sines_and_cosines[k].parts;
    for (std::size_t part = 0; part < 2; ++part) {
      const Number value = part == 0 ? sin(angle) : cos(angle);
      const int exponent = parts[part] == 0 ? 0 : std::ilogb(parts[part]);
      const double in_units = std::ldexp(parts[part], 25 - exponent);
      CHECK(in_units == std::round(in_units));
      CHECK(static_cast<double>(abs(Number(parts[part]) + Number(parts[part + 2]) - value)) <=
            0x1p-78 * std::abs(parts[part]) + 0x1p-100);
    }
  }
}

TEST_CASE("Cosines and sines of small angles are within 0.51 ulp of double", "[cos_sin][accuracy]") {
  double worst = 0;
  for (const DoubleDouble& angle : angles()) {
    const auto [got_cos, got_sin] = cos_sin<long double>(angle);
    const Number exact = Number(angle.high) + Number(angle.low);
    for (const auto& [got, expected] : {std::pair{got_cos, cos(exact)}, std::pair{got_sin, sin(exact)}})
      if (std::abs(got) >= 0x1p-50 * std::abs(angle.high)) worst = std::max(worst, exact::ulps(got, expected));
  }
  CHECK(worst <= 0.51);
}

TEST_CASE("Cosines and sines of larger angles are within 1.3e-16", "[cos_sin]") {
  for (const double high : {small_angle, 0x1.8000001p24, 0x1.921fb54442d18p30, 0x1p52}) {
    const DoubleDouble angle{high, high * 0x1p-55};
    const auto [got_cos, got_sin] = cos_sin<long double>(angle);
    const Number exact = Number(angle.high) + Number(angle.low);
    CHECK(static_cast<double>(abs(Number(got_cos) - cos(exact))) <= 1.3e-16);
    CHECK(static_cast<double>(abs(Number(got_sin) - sin(exact))) <= 1.3e-16);
  }
  CHECK(std::isnan(cos_sin<long double>({std::nan(""), 0}).cos));
}

TEST_CASE("Many frequencies at a time have the cosines and sines that each has alone", "[cos_sin]") {
  std::mt19937_64 engine(2);
  for (int n = 0; n < 2000; ++n) {
    const auto size = static_cast<Eigen::Index>(engine() % 20);
    const double position = std::floor(std::ldexp(random_number(engine), static_cast<int>(engine() % 54)));
    Eigen::VectorXd high(size), low(size), cos(size), sin(size);
    for (Eigen::Index i = 0; i < size; ++i) {
      high[i] = std::ldexp(random_number(engine) - 0.5, -static_cast<int>(engine() % 40));
      low[i] = high[i] * 0x1p-54 * random_number(engine);
    }
    cos_sin<long double>(position, high.data(), low.data(), size, largest_magnitude(high), cos.data(), sin.data());
    for (Eigen::Index i = 0; i < size; ++i) {
      CAPTURE(position, high[i], low[i]);
      const CosSin alone = cos_sin<long double>(position, {high[i], low[i]});
      REQUIRE(cos[i] == alone.cos);
      REQUIRE(sin[i] == alone.sin);
    }
  }
}

TEST_CASE("A frequency that cannot be split turns nothing at position 0", "[cos_sin]") {
  const CosSin at_zero = cos_sin<long double>(0, {1e305, 0});
  CHECK(at_zero.cos == 1);
  CHECK(at_zero.sin == 0);
}
