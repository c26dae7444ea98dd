// SPDX-License-Identifier: MIT
#pragma once

#include <Eigen/Core>
#include <algorithm>
#include <cmath>

#include <posenc/concepts.hpp>
#include <posenc/detail/check.hpp>
#include <posenc/detail/lines.hpp>
#include <posenc/detail/scalar.hpp>

namespace posenc::inline v0 {

/// Multiplies queries by a factor that grows with their position, so that attention stays sharp in long sequences. Keys
/// are left alone. It stacks with any rotation.
///
///   log_n       max(1, ln(m + 1) / ln L)                     Qwen 1 (logn_attn), L its trained length
///   llama4      1 + scale ln(1 + floor((m + 1) / L))         Llama 4, in its layers without RoPE: scale 0.1, L 8192
///   ministral   1 + scale ln(1 + floor(m / L))               Ministral 3: scale 0.1, L the original length
///
/// m is the position of the query.
///
///   m              0   2047  8190  8191   16383  65535  1048575
///   log_n, L 2048  1   1     1.18  1.18   1.27   1.45   1.82
///   llama4         1   1     1     1.07   1.11   1.22   1.49
///
/// \param queries any number of rows; written in place. Any storage order and stride.
/// Errors:   std::invalid_argument for a shape that does not fit, std::out_of_range for a negative position; nothing is
///           written then.
/// Accuracy: the factor is computed in double and rounded once.
/// Source:   log_n: Su 2021, "Attention scaled by log n"; the others from the published code of the models.
class QueryTemperature {
 public:
  /// \throws std::invalid_argument unless length is above 1.
  static QueryTemperature log_n(Index length) {
    detail::require(length > 1, "posenc::QueryTemperature: length must be above 1", length);
    return {Form::log_n, 0, length};
  }

  /// \throws std::invalid_argument unless length is positive and scale finite.
  static QueryTemperature llama4(double scale = 0.1, Index length = 8192) { return {Form::llama4, scale, length}; }
  static QueryTemperature ministral(double scale, Index length) { return {Form::ministral, scale, length}; }

  /// The factor of a query.
  double factor(std::int64_t position) const {
    const auto m = static_cast<double>(position), length = static_cast<double>(length_);
    switch (form_) {
      case Form::log_n:
        return std::max(1.0, std::log(m + 1) / std::log(length));
      case Form::llama4:
        return 1 + scale_ * std::log1p(std::floor((m + 1) / length));
      case Form::ministral:
        break;
    }
    return 1 + scale_ * std::log1p(std::floor(m / length));
  }

  template <MutableDense X>
  void operator()(X&& queries, const Positions& positions) const {
    using Scalar = typename std::remove_cvref_t<X>::Scalar;
    using Real = detail::compute_t<Scalar>;
    detail::require_size(queries.cols(), positions.size(),
                         "posenc::QueryTemperature: columns must be the number of positions");
    for (Index t = 0; t < positions.size(); ++t)
      detail::require_in_range(positions[t] >= 0, "posenc::QueryTemperature: a position must not be negative",
                               positions[t]);
    for (Index t = 0; t < queries.cols(); ++t) {
      const Real scale = static_cast<Real>(factor(positions[t]));
      if constexpr (!std::remove_cvref_t<X>::IsRowMajor)
        if (queries.innerStride() == 1) {
          detail::scale_line(&queries.coeffRef(0, t), queries.rows(), scale);
          continue;
        }
      for (Index i = 0; i < queries.rows(); ++i)
        queries.coeffRef(i, t) = static_cast<Scalar>(static_cast<Real>(queries.coeff(i, t)) * scale);
    }
  }

  /// The hooks of QueryKeyEncoding.
  template <MutableDense X>
  void apply_query(X&& queries, const Positions& positions, Index /*head*/ = 0) const {
    (*this)(queries, positions);
  }
  template <MutableDense X>
  void apply_key(X&& keys, const Positions& positions, Index /*head*/ = 0) const {
    detail::require_size(keys.cols(), positions.size(),
                         "posenc::QueryTemperature: columns must be the number of positions");
  }

 private:
  enum class Form { log_n, llama4, ministral };

  QueryTemperature(Form form, double scale, Index length) : form_(form), scale_(scale), length_(length) {
    detail::require(length > 0, "posenc::QueryTemperature: length must be positive", length);
    detail::require(std::isfinite(scale), "posenc::QueryTemperature: scale must be finite", scale);
  }

  Form form_;
  double scale_;
  Index length_;
};

}  // namespace posenc::inline v0
