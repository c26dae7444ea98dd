// SPDX-License-Identifier: MIT
#pragma once

#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>

#include <posenc/concepts.hpp>
#include <posenc/detail/check.hpp>
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
/// Accuracy: the bias is computed in double and rounded once.
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
    const double x = a_[head] * distance, sum = 1 + x;  // and (x - (sum - 1)) / sum is what its rounding loses
    return -p_[head] * (std::log(sum) + (x - (sum - 1)) / sum);
  }

  KerpleForm form_;
  Vector<double> a_, p_;
};

}  // namespace posenc::inline v0
