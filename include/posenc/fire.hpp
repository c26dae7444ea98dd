// SPDX-License-Identifier: MIT
#pragma once

#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include <posenc/concepts.hpp>
#include <posenc/detail/check.hpp>
#include <posenc/detail/scalar.hpp>
#include <posenc/detail/tile.hpp>

namespace posenc::inline v0 {

/// What FIRE has learned: a network of one hidden layer of W units, and two numbers. Weights are [out x in].
template <class Scalar>
struct FireWeights {
  Vector<Scalar> hidden_weight;  ///< W entries
  Vector<Scalar> hidden_bias;    ///< W entries
  Matrix<Scalar> output_weight;  ///< H x W, a row a head
  Vector<Scalar> output_bias;    ///< H entries
  double c = 0.1;                ///< how soon the logarithm flattens distances; its sign does not matter
  double threshold = 512;  ///< L: a query before it counts as at it. Where a factor of 512 was learned, the product
  double epsilon = 1e-6;   ///< added to the denominator, as in the published code; the formula has 0
};

/// Functional interpolation of relative positions: a small network turns the distance of a key, as a fraction of how far
/// the query is from the beginning, into a bias for each head.
///
///   psi(x)   = ln(|c x| + 1)
///   x(n, m)  = psi(m - n) / (psi(max(m, L)) + epsilon)             0 for the query itself, 1 for the first token
///   S(n, m) += b_h + sum_i v_hi max(0, w_i x + u_i)
///
/// It depends on where the query is, not on the distance alone, and so on positions being counted from the beginning of
/// the sequence: 0, 1, ... A query before position 0 counts as at L too.
///
/// \param scores          Tk x Tq, written in place: any storage order and stride; after the factor 1/sqrt(D).
/// \param key_positions   Tk entries.   \param query_positions   Tq entries.
/// \param head            0, ..., num_heads() - 1.
/// Accuracy: the bias is computed in double and rounded once.
/// Errors:   std::invalid_argument for a shape that does not fit, std::out_of_range for a head; nothing is written
///           then.
/// Cost:     a logarithm and 4 W flops a score. Allocates nothing.
/// Source:   Li et al. 2023, FIRE, arXiv:2310.04418v2.
class Fire {
 public:
  /// \throws std::invalid_argument unless the weights fit each other and are finite, c is not 0, threshold is positive
  ///         and epsilon is not negative.
  template <class Scalar>
  explicit Fire(const FireWeights<Scalar>& weights)
      : hidden_weight_(weights.hidden_weight.template cast<double>()),
        hidden_bias_(weights.hidden_bias.template cast<double>()),
        output_weight_(weights.output_weight.template cast<double>()),
        output_bias_(weights.output_bias.template cast<double>()),
        c_(weights.c),
        threshold_(weights.threshold),
        epsilon_(weights.epsilon) {
    const Index width = hidden_weight_.size();
    detail::require(output_bias_.size() > 0, "posenc::Fire: there must be at least one head", output_bias_.size());
    detail::require_size(hidden_bias_.size(), width,
                         "posenc::Fire: entries of hidden_bias must be those of hidden_weight");
    detail::require_size(output_weight_.cols(), width,
                         "posenc::Fire: columns of output_weight must be the entries of hidden_weight");
    detail::require_size(output_weight_.rows(), output_bias_.size(),
                         "posenc::Fire: rows of output_weight must be the entries of output_bias");
    for (const Vector<double>* part : {&hidden_weight_, &hidden_bias_, &output_bias_})
      detail::require_finite(*part, "posenc::Fire: weights must be finite");
    detail::require_finite(output_weight_, "posenc::Fire: weights must be finite");
    detail::require(c_ != 0 && std::isfinite(c_), "posenc::Fire: c must be finite and not 0", c_);
    detail::require(threshold_ > 0 && std::isfinite(threshold_), "posenc::Fire: threshold must be positive and finite",
                    threshold_);
    detail::require(epsilon_ >= 0 && std::isfinite(epsilon_), "posenc::Fire: epsilon must be finite and not negative",
                    epsilon_);

    // The network is linear between the points where a unit begins or ends to count: there it has its extremes.
    kinks_.resize(width);
    at_kinks_.resize(num_heads(), width);
    for (Index i = 0; i < width; ++i) {
      kinks_[i] = -hidden_bias_[i] / hidden_weight_[i];
      for (Index head = 0; head < num_heads(); ++head) at_kinks_(head, i) = network(kinks_[i], head);
    }
  }

  Index num_heads() const { return output_bias_.size(); }
  Index width() const { return hidden_weight_.size(); }

  /// The bias of one score.
  /// \throws std::out_of_range for a head that is not there; so does bounds.
  double bias(std::int64_t key_position, std::int64_t query_position, Index head) const {
    require_head(head);
    return network(psi(detail::offset(key_position, query_position)) / denominator(static_cast<double>(query_position)),
                   head);
  }

  /// The extremes in a tile, as if each of its distances occurred with each of its queries; see BoundedBias.
  BiasBounds bounds(const Positions& key_positions, const Positions& query_positions, Index head) const {
    require_head(head);
    if (key_positions.size() == 0 || query_positions.size() == 0) return {0, 0};
    const auto [first, last] = detail::offsets(key_positions, query_positions);
    const PositionRange queries = range(query_positions);
    const double nearest = first > 0 ? first : last < 0 ? -last : 0, farthest = std::max(-first, last);
    const double low = psi(nearest) / denominator(static_cast<double>(queries.last)),
                 high = psi(farthest) / denominator(static_cast<double>(queries.first));
    const double a = network(low, head), b = network(high, head);
    BiasBounds found{std::min(a, b), std::max(a, b)};
    for (Index i = 0; i < width(); ++i)
      if (low < kinks_[i] && kinks_[i] < high)
        found = {std::min(found.lowest, at_kinks_(head, i)), std::max(found.highest, at_kinks_(head, i))};

    // Rounding: W + 4 ulps of everything that is summed, on both sides.
    double size = std::abs(output_bias_[head]);
    for (Index i = 0; i < width(); ++i)
      size += std::abs(output_weight_(head, i)) * (std::abs(hidden_weight_[i]) * high + std::abs(hidden_bias_[i]));
    size *= static_cast<double>(width() + 4) * std::numeric_limits<double>::epsilon();
    return {found.lowest - size, found.highest + size};
  }

  template <MutableDense Scores>
  void operator()(Scores&& scores, const Positions& key_positions, const Positions& query_positions,
                  Index head = 0) const {
    detail::require_tile(scores, key_positions, query_positions, "posenc::Fire");
    require_head(head);
    Index known = -1;  // the query whose denominator is at hand
    double below = 1;
    detail::for_each_score(scores, [&](Index key, Index query, auto& score) {
      if (query != known) {
        below = denominator(static_cast<double>(query_positions[query]));
        known = query;
      }
      detail::add(score, network(psi(detail::offset(key_positions[key], query_positions[query])) / below, head));
    });
  }

  /// The hook of ScoreBias.
  template <MutableDense Scores>
  void add_bias(Scores&& scores, const Positions& key_positions, const Positions& query_positions,
                Index head = 0) const {
    (*this)(scores, key_positions, query_positions, head);
  }

 private:
  void require_head(Index head) const {
    detail::require_in_range(head >= 0 && head < num_heads(), "posenc::Fire: head must be below num_heads", head);
  }

  double psi(double x) const { return std::log1p(std::abs(c_ * x)); }
  double denominator(double query_position) const { return psi(std::max(query_position, threshold_)) + epsilon_; }

  double network(double x, Index head) const {
    double sum = output_bias_[head];
    for (Index i = 0; i < hidden_weight_.size(); ++i)
      sum += output_weight_(head, i) * std::max(0.0, hidden_weight_[i] * x + hidden_bias_[i]);
    return sum;
  }

  Vector<double> hidden_weight_, hidden_bias_;
  Matrix<double> output_weight_;
  Vector<double> output_bias_;
  double c_, threshold_, epsilon_;
  Vector<double> kinks_;     // where a unit of the hidden layer is at 0
  Matrix<double> at_kinks_;  // H x W: the bias there
};

}  // namespace posenc::inline v0
