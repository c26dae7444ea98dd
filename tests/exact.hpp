// SPDX-License-Identifier: MIT
#pragma once

// Numbers of 400 bits, by MPFR: what schedules, cosines and sines are compared with. Formulas are written with them as
// they stand in a paper.

#include <mpfr.h>

#include <posenc/rope.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <span>
#include <utility>
#include <vector>

#include "instrumented.hpp"

namespace exact {

class Number {
 public:
  Number(double value = 0) {  // NOLINT(google-explicit-constructor): a double is a number
    mpfr_init2(value_, 400);
    mpfr_set_d(value_, value, MPFR_RNDN);
  }
  Number(const Number& other) : Number() { mpfr_set(value_, other.value_, MPFR_RNDN); }
  Number& operator=(Number other) {
    mpfr_swap(value_, other.value_);
    return *this;
  }
  ~Number() { mpfr_clear(value_); }

  explicit operator double() const { return mpfr_get_d(value_, MPFR_RNDN); }

  friend Number operator+(const Number& a, const Number& b) { return apply(mpfr_add, a, b); }
  friend Number operator-(const Number& a, const Number& b) { return apply(mpfr_sub, a, b); }
  friend Number operator*(const Number& a, const Number& b) { return apply(mpfr_mul, a, b); }
  friend Number operator/(const Number& a, const Number& b) { return apply(mpfr_div, a, b); }
  friend Number operator-(const Number& a) { return Number() - a; }
  friend bool operator<(const Number& a, const Number& b) { return mpfr_cmp(a.value_, b.value_) < 0; }
  friend bool operator>(const Number& a, const Number& b) { return b < a; }

  friend Number pow(const Number& a, const Number& b) { return apply(mpfr_pow, a, b); }
  friend Number log(const Number& a) { return apply(mpfr_log, a); }
  friend Number exp(const Number& a) { return apply(mpfr_exp, a); }
  friend Number sqrt(const Number& a) { return apply(mpfr_sqrt, a); }
  friend Number cos(const Number& a) { return apply(mpfr_cos, a); }
  friend Number sin(const Number& a) { return apply(mpfr_sin, a); }
  friend Number acos(const Number& a) { return apply(mpfr_acos, a); }
  friend Number abs(const Number& a) { return apply(mpfr_abs, a); }
  friend Number floor(const Number& a) { return rounded(mpfr_floor, a); }
  friend Number ceil(const Number& a) { return rounded(mpfr_ceil, a); }
  friend Number max(const Number& a, const Number& b) { return a < b ? b : a; }
  friend Number min(const Number& a, const Number& b) { return b < a ? b : a; }
  friend Number clip(const Number& a, const Number& low, const Number& high) { return min(max(a, low), high); }

  /// The distance of neighbouring numbers of a floating-point type around this one.
  template <class Real>
  Number ulp() const {
    return pow(Number(2), Number(static_cast<double>(mpfr_get_exp(value_)) - std::numeric_limits<Real>::digits));
  }

 private:
  template <class Function, class... Numbers>
  static Number apply(Function function, const Numbers&... numbers) {
    Number result;
    function(result.value_, numbers.value_..., MPFR_RNDN);
    return result;
  }
  template <class Function>
  static Number rounded(Function function, const Number& a) {
    Number result;
    function(result.value_, a.value_);
    return result;
  }

  mpfr_t value_;
};

inline Number pi() { return acos(Number(-1)); }

/// |got - exact| in ulp of Real.
template <class Real>
double ulps(Real got, const Number& exact) {
  if (static_cast<double>(exact) == 0) return got == 0 ? 0 : std::numeric_limits<double>::infinity();
  return static_cast<double>(abs(Number(static_cast<double>(got)) - exact) / exact.ulp<Real>());
}

/// base^(-2 i / rotary_dim), i = 0, 1, ...
inline std::vector<Number> geometric(std::int64_t rotary_dim, const Number& base) {
  std::vector<Number> frequencies;
  for (std::int64_t i = 0; i < rotary_dim / 2; ++i)
    frequencies.push_back(pow(base, Number(static_cast<double>(-2 * i)) / Number(static_cast<double>(rotary_dim))));
  return frequencies;
}

/// The largest relative error of frequencies, their low parts included.
inline double worst_relative(const posenc::RopeFrequencies& got, const std::vector<Number>& frequencies) {
  if (got.size() != static_cast<posenc::Index>(frequencies.size())) return std::numeric_limits<double>::infinity();
  double worst = 0;
  for (posenc::Index i = 0; i < got.size(); ++i) {
    const Number& exact = frequencies[static_cast<std::size_t>(i)];
    const auto both = got.exact(i);
    worst = std::max(worst, static_cast<double>(abs(Number(both.high) + Number(both.low) - exact) / abs(exact)));
  }
  return worst;
}

/// Positions to `limit` at which a frequency turns nearest to a quarter of a circle, where a cosine or a sine is
/// smallest and an error of the angle is largest: the denominators of the continued fraction of frequency / (pi / 2).
inline std::vector<std::int64_t> hardest_positions(const Number& frequency, std::int64_t limit) {
  static const Number quarter = pi() / Number(2);
  std::vector<std::int64_t> positions;
  Number rest = abs(frequency) / quarter;
  double before = 1, now = 0;  // denominators of the convergents
  for (int n = 0; n < 60; ++n) {
    const Number whole = floor(rest);
    const double next = static_cast<double>(whole) * now + before;
    if (next > static_cast<double>(limit)) {  // the last of the convergents in between that is small enough
      const double times = std::floor((static_cast<double>(limit) - before) / std::max(now, 1.0));
      if (now > 0 && times > 0) positions.push_back(static_cast<std::int64_t>(before + times * now));
      break;
    }
    before = now;
    now = next;
    positions.push_back(static_cast<std::int64_t>(now));
    if (!(rest - whole > Number(1e-60))) break;
    rest = Number(1) / (rest - whole);
  }
  return positions;
}

/// Positions to `limit` that a test should try with a frequency: the first, the last, some at random, and the hardest;
/// both signs.
inline std::vector<std::int64_t> positions_to(std::int64_t limit, const Number& frequency) {
  std::vector<std::int64_t> positions{0, 1, 2, 3, 1000, 4095, 65537, limit - 1, limit};
  std::mt19937_64 engine(1);
  for (int n = 0; n < 10; ++n)
    positions.push_back(static_cast<std::int64_t>(engine() % static_cast<std::uint64_t>(limit)));
  for (const std::int64_t position : hardest_positions(frequency, limit)) positions.push_back(position);
  for (std::size_t n = positions.size(); n-- > 0;) positions.push_back(-positions[n]);
  return positions;
}

/// How far the cosines and sines that a Rope turns by are from exact, in ulp of Real, to a position: each frequency at
/// positions of its own.
template <class Real>
double worst_ulps(const posenc::RopeFrequencies& got, const std::vector<Number>& frequencies, std::int64_t limit) {
  std::vector<std::int64_t> positions;
  std::vector<std::size_t> pair_of;  // the frequency that a position is for
  for (std::size_t i = 0; i < frequencies.size(); i += is_instrumented ? 5 : 1) {
    for (const std::int64_t position : positions_to(limit, frequencies[i])) positions.push_back(position);
    pair_of.resize(positions.size(), i);
  }
  const posenc::Index pairs = got.size();
  const posenc::Rope rope(got, {.head_dim = 2 * pairs});
  posenc::Matrix<Real> x = posenc::Matrix<Real>::Zero(2 * pairs, static_cast<posenc::Index>(positions.size()));
  x.topRows(pairs).setOnes();  // (1, 0) turns into (cos, sin)
  rope(x, positions);
  double worst = 0;
  for (std::size_t n = 0; n < positions.size(); ++n) {
    const auto t = static_cast<posenc::Index>(n), pair = static_cast<posenc::Index>(pair_of[n]);
    const Number angle = Number(static_cast<double>(positions[n])) * frequencies[pair_of[n]];
    worst = std::max({worst, ulps(x(pair, t), cos(angle)), ulps(x(pairs + pair, t), sin(angle))});
  }
  return worst;
}

inline constexpr std::int64_t float_limit = (std::int64_t{1} << 31) - 1;
inline constexpr std::int64_t double_limit = std::int64_t{1} << 24;

/// The promise of Rope, for one schedule.
struct Accuracy {
  double frequencies;  ///< relative
  double float_ulps, double_ulps;
};

inline Accuracy accuracy(const posenc::RopeFrequencies& got, const std::vector<Number>& frequencies) {
  return {worst_relative(got, frequencies), worst_ulps<float>(got, frequencies, float_limit),
          worst_ulps<double>(got, frequencies, double_limit)};
}

}  // namespace exact
