// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <string>
#include <utility>

namespace golden {

/// 2e-5, as one writes it by hand; plain digits for what needs no exponent.
inline std::string short_scientific(double value, int digits = 1) {
  char text[32];
  if (value == 0 || (value >= 0.1 && value < 100)) {
    std::snprintf(text, sizeof text, "%.*g", digits + 1, value);
    return text;
  }
  std::snprintf(text, sizeof text, "%.*e", digits - 1, value);
  std::string result(text);
  for (const char* zero : {"e-0", "e+0"})
    if (const auto at = result.find(zero); at != std::string::npos) result.erase(at + 2, 1);
  return result;
}

/// How far a number may be from the recorded one, and in which unit that distance is measured.
///
/// The limits are those of tests/golden/README.md, word for word; none was fitted to what this library computes. They
/// are for numbers around 1: where scores or embeddings are far larger, their last digit in float is allowed as well.
class Tolerance {
 public:
  /// |ours - peer| <= limit
  static Tolerance absolute(double limit) { return {Unit::absolute, limit, short_scientific(limit)}; }

  /// The same with words for the table, where the limit differs from entry to entry.
  static Tolerance absolute(double limit, std::string words) { return {Unit::absolute, limit, std::move(words)}; }

  /// |ours - peer| <= limit |peer|
  static Tolerance relative(double limit) { return {Unit::relative, limit, short_scientific(limit) + " relative"}; }

  /// ours == peer
  static Tolerance exact() { return {Unit::absolute, 0, "exact"}; }

  /// |ours - peer| <= limit times the distance from |peer| to the next larger double
  static Tolerance ulps(double limit) { return {Unit::ulp, limit, short_scientific(limit) + " ulp"}; }

  const std::string& words() const { return words_; }

  /// The distance, in this tolerance's unit; NaN if either number is.
  double error(double ours, double peer) const {
    if (ours == peer) return 0;  // infinities too
    const double distance = std::abs(ours - peer);
    switch (unit_) {
      case Unit::relative:
        return distance / std::abs(peer);
      case Unit::ulp:
        return distance / (std::nextafter(std::abs(peer), std::numeric_limits<double>::infinity()) - std::abs(peer));
      default:
        return distance;
    }
  }

  /// False for NaN.
  bool allows(double error) const { return error <= limit_; }

 private:
  enum class Unit : std::uint8_t { absolute, relative, ulp };

  Tolerance(Unit unit, double limit, std::string words) : unit_(unit), limit_(limit), words_(std::move(words)) {}

  Unit unit_;
  double limit_;
  std::string words_;
};

}  // namespace golden
