// SPDX-License-Identifier: MIT
#pragma once

#include <Eigen/Core>
#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#include <posenc/concepts.hpp>
#include <posenc/detail/check.hpp>
#include <posenc/detail/packet.hpp>
#include <posenc/detail/scalar.hpp>
#include <posenc/detail/score_lines.hpp>
#include <posenc/detail/tile.hpp>

namespace posenc::inline v0 {

/// The two kernels of the paper, with two learned positive numbers a head.
enum class KerpleForm {
  logarithmic,  ///< -p ln(1 + a |m - n|)
  power,        ///< -a |m - n|^p, 0 < p <= 2
};

/// Kernelised relative bias: the score falls with the distance as a learned kernel says, a logarithm or a power.
///
///   S(n, m) += -p_h ln(1 + a_h |m - n|)        Kerple::logarithmic(p, a)
///   S(n, m) += -a_h |m - n|^(p_h)              Kerple::power(a, p);  p_h = 1 is ALiBi with slopes a_h
///
///   |m - n|               0      1      2      4      8     16
///   logarithmic, p=a=1    0  -0.69  -1.10  -1.61  -2.20  -2.83
///   power, a=1, p=1/2     0     -1  -1.41     -2  -2.83     -4
///
/// The paper has r_1 and r_2 for the first and the second number of each. Training code clamps them at 0.01; give what
/// the forward pass uses. The paper is about causal models: combine it with a CausalMask.
///
/// \param scores          Tk x Tq, written in place: any storage order and stride; after the factor 1/sqrt(D).
/// \param key_positions   Tk entries.   \param query_positions   Tq entries.
/// \param head            0, ..., num_heads() - 1.
/// Accuracy: the bias is computed in double, to 2 ulp for scores of double and 1e-13 for others, and rounded once.
/// Errors:   std::invalid_argument for a shape that does not fit, std::out_of_range for a head; nothing is written
///           then.
/// Cost:     a sum a score, and a logarithm or a power for each distance of 256 x 256 scores at contiguous positions, for
///           each score at others. Allocates nothing.
/// Source:   Chi et al. 2022, KERPLE, arXiv:2205.09921v2, the logarithmic and the power variant.
class Kerple {
 public:
  static constexpr bool is_relative = true;

  /// -p ln(1 + a |m - n|): any Eigen vectors, an entry a head.
  /// \throws std::invalid_argument unless they have the same size, at least 1, and all are positive and finite.
  template <DenseExpression P, DenseExpression A>
  static Kerple logarithmic(const P& p, const A& a) {
    return {KerpleForm::logarithmic, a.template cast<double>(), p.template cast<double>()};
  }

  /// -a |m - n|^p.
  /// \throws std::invalid_argument likewise, and for a p above 2, with which it is no kernel.
  template <DenseExpression A, DenseExpression P>
  static Kerple power(const A& a, const P& p) {
    return {KerpleForm::power, a.template cast<double>(), p.template cast<double>()};
  }

  Index num_heads() const { return a_.size(); }
  KerpleForm form() const { return form_; }
  const Vector<double>& a() const { return a_; }
  const Vector<double>& p() const { return p_; }

  /// Depends on key - query alone; see DistanceBias.
  /// \throws std::out_of_range for a head that is not there; so does bounds.
  double at_distance(std::int64_t key_minus_query, Index head) const {
    require_head(head);
    return at(std::abs(static_cast<double>(key_minus_query)), head);
  }

  /// The extremes in a tile; see BoundedBias.
  BiasBounds bounds(const Positions& key_positions, const Positions& query_positions, Index head) const {
    require_head(head);
    const auto [first, last] = detail::offsets(key_positions, query_positions);
    const double nearest = first > 0 ? first : last < 0 ? -last : 0, farthest = std::max(-first, last);
    return {at(farthest, head), at(nearest, head)};
  }

  template <MutableDense Scores>
  void operator()(Scores&& scores, const Positions& key_positions, const Positions& query_positions,
                  Index head = 0) const {
    detail::require_tile(scores, key_positions, query_positions, "posenc::Kerple");
    require_head(head);
    if constexpr (!std::is_same_v<typename std::remove_cvref_t<Scores>::Scalar, double>)
      if (form_ == KerpleForm::power && detail::are_lines(key_positions, query_positions))
        return detail::add_by_distance(scores, key_positions, query_positions, Powers(a_[head], p_[head]));
    detail::add_by_distance(scores, key_positions, query_positions,
                            [&](double offset) { return at(std::abs(offset), head); });
  }

  /// The hook of ScoreBias.
  template <MutableDense Scores>
  void add_bias(Scores&& scores, const Positions& key_positions, const Positions& query_positions,
                Index head = 0) const {
    (*this)(scores, key_positions, query_positions, head);
  }

 private:
  Kerple(KerpleForm form, Vector<double> a, Vector<double> p) : form_(form), a_(std::move(a)), p_(std::move(p)) {
    detail::require(a_.size() > 0, "posenc::Kerple: there must be at least one head", a_.size());
    detail::require_size(p_.size(), a_.size(), "posenc::Kerple: entries of p must be those of a");
    for (Index head = 0; head < a_.size(); ++head) {
      detail::require(a_[head] > 0 && std::isfinite(a_[head]), "posenc::Kerple: a must be positive and finite",
                      a_[head]);
      detail::require(p_[head] > 0 && std::isfinite(p_[head]), "posenc::Kerple: p must be positive and finite",
                      p_[head]);
      detail::require(form == KerpleForm::logarithmic || p_[head] <= 2,
                      "posenc::Kerple: p of the power form must be at most 2", p_[head]);
    }
  }

  void require_head(Index head) const {
    detail::require_in_range(head >= 0 && head < num_heads(), "posenc::Kerple: head must be below num_heads", head);
  }

  double at(double distance, Index head) const {
    if (form_ == KerpleForm::power) return -a_[head] * std::pow(distance, p_[head]);
    const auto plus_x = [&](double y) { return detail::sum_of_products(a_[head], distance, y, 1.0); };
    const double sum = plus_x(1);  // 1 + x, and (x - (sum - 1)) / sum is what its rounding loses
    return -p_[head] * (std::log(sum) + plus_x(1 - sum) / sum);
  }

  /// The power form of distances that follow each other, for scores that are not of double: 16 at a time, in the middle
  /// of which is c, from one power and a series.
  ///
  ///   -a (c + i)^p = -a c^p (1 + p i/c + p (p - 1)/2 (i/c)^2 + ...)        i = -8, ..., 7
  class Powers {
   public:
    Powers(double a, double p) : a_(a), p_(p) {
      for (std::size_t n = 1; n < binomials_.size(); ++n)
        binomials_[n] = binomials_[n - 1] * ((p + 1) / static_cast<double>(n) - 1);
    }

    double operator()(double offset) {
      const auto distance = static_cast<std::int64_t>(std::abs(offset));
      if (distance / some != block_) fill(distance / some);
      return values_[static_cast<std::size_t>(distance % some)];
    }

   private:
    static constexpr std::int64_t some = 16, nearest = 16;  // the block from which on i/c is below 1/32

    void fill(std::int64_t block) {
      using detail::broadcast, detail::load, detail::multiply, detail::multiply_add, detail::store;
      constexpr Index lanes = detail::Simd<double>::lanes;
      static_assert(some % lanes == 0);
      block_ = block;
      const auto middle = static_cast<double>(some * block + some / 2);
      std::array<double, static_cast<std::size_t>(some)> i;
      for (std::size_t n = 0; n < i.size(); ++n) i[n] = static_cast<double>(n) - static_cast<double>(some / 2);
      if (block < nearest) {
        for (std::size_t n = 0; n < i.size(); ++n) values_[n] = -a_ * std::pow(middle + i[n], p_);
        return;
      }
      const auto inverse = broadcast(1 / middle), power = broadcast(-a_ * std::pow(middle, p_));
      for (Index n = 0; n < some; n += lanes) {
        const auto x = multiply(load(i.data() + n), inverse);
        auto series = broadcast(binomials_.back());
        for (std::size_t term = binomials_.size() - 1; term-- > 0;)
          series = multiply_add(series, x, broadcast(binomials_[term]));
        store(values_.data() + n, multiply(series, power));
      }
    }

    double a_, p_;
    std::array<double, 9> binomials_{1};
    std::int64_t block_ = -1;
    std::array<double, static_cast<std::size_t>(some)> values_;
  };

  KerpleForm form_;
  Vector<double> a_, p_;
};

}  // namespace posenc::inline v0
