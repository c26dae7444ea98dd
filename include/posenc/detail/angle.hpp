// SPDX-License-Identifier: MIT
#pragma once

// Angles that are right at any position.
//
// The angle of a pair is position * frequency. Rounded to a double, a frequency is off by 1e-16 of itself, and the
// angle by 1e-16 of *it*self: at position 2^31 that is 2e-7, more than a float can resolve. So a frequency is carried
// as an unevaluated sum of two doubles, the product is formed with its rounding error, and the error is applied to the
// cosine and sine:
//
//   position * (high + low) = a + b,  a = round(position * high),  |b| <= ulp(a)
//   cos(a + b) = cos a cos b - sin a sin b,  cos b = 1 - b^2/2, sin b = b where b is small
//
// std::cos and std::sin reduce a double argument exactly, so nothing else is lost. Where that is to be right in double,
// and not only in float, it takes the functions of cos_sin.hpp. Under -ffast-math the low parts may be optimised away,
// and the error of plain double angles (2e-16 times the position) comes back.

#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <type_traits>

#include <posenc/detail/cos_sin.hpp>

namespace posenc::inline v0::detail {

/// A number as the unevaluated sum of two doubles, |low| <= ulp(high) / 2: about 106 bits.
struct DoubleDouble {
  double high = 0;
  double low = 0;
};

inline DoubleDouble fast_two_sum(double a, double b) {  // |a| >= |b|
  const double sum = a + b;
  return {sum, b - (sum - a)};
}

inline DoubleDouble two_sum(double a, double b) {
  const double sum = a + b;
  const double part = sum - a;
  return {sum, (a - (sum - part)) + (b - part)};
}

inline DoubleDouble two_product(double a, double b) {
  const double product = a * b;
  return {product, std::fma(a, b, -product)};
}

inline DoubleDouble operator+(DoubleDouble a, DoubleDouble b) {
  const DoubleDouble high = two_sum(a.high, b.high);
  const DoubleDouble low = two_sum(a.low, b.low);
  const DoubleDouble sum = fast_two_sum(high.high, high.low + low.high);
  return fast_two_sum(sum.high, sum.low + low.low);
}

inline DoubleDouble operator-(DoubleDouble a, DoubleDouble b) { return a + DoubleDouble{-b.high, -b.low}; }

inline DoubleDouble operator*(DoubleDouble a, DoubleDouble b) {
  const DoubleDouble product = two_product(a.high, b.high);
  return fast_two_sum(product.high, product.low + (a.high * b.low + a.low * b.high));
}

inline DoubleDouble operator/(DoubleDouble a, double b) {
  const double quotient = a.high / b;
  const DoubleDouble product = two_product(quotient, b);
  return fast_two_sum(quotient, ((a.high - product.high) - product.low + a.low) / b);
}

inline DoubleDouble operator/(DoubleDouble a, DoubleDouble b) {
  const double first = a.high / b.high;
  const DoubleDouble rest = a - DoubleDouble{first} * b;
  const double second = rest.high / b.high;
  const double third = (rest - DoubleDouble{second} * b).high / b.high;
  return fast_two_sum(first, second) + DoubleDouble{third};
}

inline constexpr DoubleDouble pi{3.1415926535897931, 1.2246467991473532e-16};

/// e^x: x = k ln 2 + r, then e^(r/512) - 1 by its series, squared nine times.
inline DoubleDouble exp(DoubleDouble x) {
  constexpr DoubleDouble ln_2{0.69314718055994531, 2.3190468138462996e-17};
  const double k = std::round(x.high / ln_2.high);
  const DoubleDouble r = (x + DoubleDouble{-k} * ln_2) / 512.0;
  DoubleDouble term = r, sum = r;
  for (int n = 2; n <= 9; ++n) {
    term = term * r / n;
    sum = sum + term;
  }
  for (int n = 0; n < 9; ++n) sum = sum + sum + sum * sum;
  sum = sum + DoubleDouble{1};
  return {std::ldexp(sum.high, static_cast<int>(k)), std::ldexp(sum.low, static_cast<int>(k))};
}

/// ln x: one Newton step on e^y = x from the double logarithm, y + (x e^-y - 1) to second order.
inline DoubleDouble log(double x) {
  const DoubleDouble y{std::log(x)};
  const DoubleDouble error = exp(DoubleDouble{-y.high}) * DoubleDouble{x} + DoubleDouble{-1};
  return y + error + error * error * DoubleDouble{-0.5};
}

inline DoubleDouble log(DoubleDouble x) { return log(x.high) + DoubleDouble{x.low / x.high}; }

/// base^(-numerator/denominator), to about 100 bits; the base is given by its logarithm.
inline DoubleDouble geometric_frequency(DoubleDouble log_base, double numerator, double denominator) {
  if (numerator == 0) return {1};
  return exp(DoubleDouble{-numerator} * log_base / denominator);
}
inline DoubleDouble geometric_frequency(double base, double numerator, double denominator) {
  return geometric_frequency(log(base), numerator, denominator);
}

/// Cosine and sine of an angle in radians: with double within 1 ulp of float; with long double within 0.51 ulp of double
/// where the angle is small (and what comes out above 2^-50 of it), beyond within 1 ulp where long double is wider.
template <class Wide = double>
CosSin cos_sin(DoubleDouble angle) {
  if constexpr (!std::is_same_v<Wide, double>)
    if (std::abs(angle.high) < small_angle) return cos_sin_of_small(angle.high, angle.low);
  const Wide a = angle.high, b = angle.low;
  const Wide cos_a = std::cos(a), sin_a = std::sin(a);
  // 1 - cos b and sin b - b; beyond 2^35 radians b is so large that the series would show.
  const bool small = std::abs(angle.low) < 0x1p-18;
  const Wide versine_b = small ? b * b / 2 : 1 - std::cos(b), sin_b = small ? b : std::sin(b);
  return {static_cast<double>(cos_a - (sin_a * sin_b + cos_a * versine_b)),
          static_cast<double>(sin_a + (cos_a * sin_b - sin_a * versine_b))};
}

/// position * frequency, for |position| <= 2^53.
inline DoubleDouble angle(double position, DoubleDouble frequency) {
  const DoubleDouble product = two_product(position, frequency.high);
  return fast_two_sum(product.high, product.low + position * frequency.low);
}

/// Cosine and sine of position * frequency.
template <class Wide = double>
CosSin cos_sin(double position, DoubleDouble frequency) {
  if constexpr (!std::is_same_v<Wide, double>)
    if (is_small(position, frequency.high)) return cos_sin_of_small(position, frequency.high, frequency.low);
  return cos_sin<Wide>(angle(position, frequency));
}

/// 0 if there are none.
template <class Numbers>
double largest_magnitude(const Numbers& numbers) {
  double largest = 0;
  for (const double number : numbers) largest = std::max(largest, std::abs(number));
  return largest;
}

/// Those of position * (high[i] + low[i]), i = 0, ..., n - 1, to the bit. \param fastest no smaller than any |high[i]|.
template <class Wide>
void cos_sin(double position, const double* high, const double* low, Eigen::Index n, double fastest, double* cos,
             double* sin) {
  if constexpr (!std::is_same_v<Wide, double>)
    if (is_small(position, fastest)) return cos_sin_of_small(position, high, low, n, cos, sin);
  for (Eigen::Index i = 0; i < n; ++i) {
    const CosSin exact = cos_sin<Wide>(position, {high[i], low[i]});
    cos[i] = exact.cos;
    sin[i] = exact.sin;
  }
}

/// What angles are summed in so that a Real comes out within 1 ulp.
template <class Real>
using wide_t = std::conditional_t<std::is_same_v<Real, double>, long double, double>;

}  // namespace posenc::inline v0::detail
