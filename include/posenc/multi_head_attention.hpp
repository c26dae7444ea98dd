// SPDX-License-Identifier: MIT
#pragma once

#include <Eigen/Core>
#include <array>
#include <cmath>
#include <tuple>
#include <utility>

#include <posenc/attention.hpp>
#include <posenc/attention_workspace.hpp>
#include <posenc/concepts.hpp>
#include <posenc/detail/check.hpp>
#include <posenc/streaming_heads.hpp>

namespace posenc::inline v0 {

/// The linear maps of an attention layer, y = W x + b: `[out, in]` as checkpoints store them.
///
///   query   (num_heads    * head_dim)  x  query features        head h is rows h * head_dim, ...
///   key     (num_kv_heads * head_dim)  x  key features
///   value   (num_kv_heads * value_dim) x  value features
///   output  out features x (num_heads * value_dim)
///
/// A bias is a vector of as many entries as its map has rows, or empty, which is none.
template <class Scalar>
struct ProjectionWeights {
  Matrix<Scalar> query, key, value, output;
  Vector<Scalar> query_bias = {}, key_bias = {}, value_bias = {}, output_bias = {};
};

/// How the attention of a head is computed. The results are the same to rounding.
enum class AttentionAlgorithm {
  reference,  ///< attend: the whole matrix of scores, as the formula says it
  streaming,  ///< streaming_attend: tiles, in memory that does not grow with the sequence
};

struct MultiHeadAttentionOptions {
  Index num_heads = 0;
  Index num_kv_heads = 0;  ///< each serves num_heads / num_kv_heads query heads; 0: num_heads, 1: multi-query attention
  double scale = 0;        ///< factor of the scores; 0: 1 / sqrt(head_dim)
  double soft_cap = 0;     ///< see AttentionOptions; 0: none
  Vector<double> sinks = {};  ///< see AttentionOptions; one a query head, or none
  AttentionAlgorithm algorithm = AttentionAlgorithm::reference;
};

/// Multi-head attention with any positional encodings.
///
///   X'   = X + input encodings
///   q, k, v = W_q X' + b_q, W_k X' + b_k, W_v X' + b_v
///   o_h  = attend(q_h, k_g, v_g, encodings)       for every head h, g = h / (num_heads / num_kv_heads)
///   Y    = W_o [o_0; o_1; ...] + b_o
///
///   posenc::MultiHeadAttention layer(weights, {.num_heads = 8, .num_kv_heads = 2}, rope, posenc::CausalMask{});
///   Matrix<float> y = layer(x, posenc::positions(T));
///
/// For long sequences: {..., .algorithm = AttentionAlgorithm::streaming}.
///
/// Encodings are held by value and used where they have a hook; they stack in their order. Arithmetic on half and
/// bfloat16 weights is done in float.
///
/// Source: Vaswani et al. 2017, arXiv:1706.03762v7, section 3.2.2; grouped heads: Ainslie et al. 2023,
///         arXiv:2305.13245v3.
template <class Scalar_, class... Encodings>
class MultiHeadAttention {
 public:
  using Scalar = Scalar_;
  using Real = detail::compute_t<Scalar>;
  static_assert((PositionalEncoding<Encodings, Real> && ...),
                "posenc::MultiHeadAttention: every encoding needs one of the five hooks with this scalar; concepts.hpp "
                "lists them");

  /// \throws std::invalid_argument if the numbers of heads or the shapes of the weights do not fit.
  explicit MultiHeadAttention(ProjectionWeights<Scalar> weights, const MultiHeadAttentionOptions& options,
                              Encodings... encodings)
      : weights_(std::move(weights)), options_(options), encodings_(std::move(encodings)...) {
    detail::require(options_.num_heads > 0, "posenc::MultiHeadAttention: num_heads must be positive",
                    options_.num_heads);
    detail::require(options_.soft_cap >= 0 && std::isfinite(options_.soft_cap),
                    "posenc::MultiHeadAttention: soft_cap must be 0 or positive and finite", options_.soft_cap);
    if (options_.sinks.size() != 0)
      detail::require_size(options_.sinks.size(), options_.num_heads,
                           "posenc::MultiHeadAttention: the number of sinks must be num_heads");
    if (options_.num_kv_heads == 0) options_.num_kv_heads = options_.num_heads;
    detail::require(options_.num_kv_heads > 0 && options_.num_heads % options_.num_kv_heads == 0,
                    "posenc::MultiHeadAttention: num_kv_heads must divide num_heads", options_.num_kv_heads);
    detail::require(weights_.query.rows() > 0 && weights_.query.rows() % options_.num_heads == 0,
                    "posenc::MultiHeadAttention: rows of the query weights must be a multiple of num_heads",
                    weights_.query.rows());
    detail::require_size(weights_.key.rows(), head_dim() * options_.num_kv_heads,
                         "posenc::MultiHeadAttention: rows of the key weights must be num_kv_heads * head_dim");
    detail::require(weights_.value.rows() > 0 && weights_.value.rows() % options_.num_kv_heads == 0,
                    "posenc::MultiHeadAttention: rows of the value weights must be a multiple of num_kv_heads",
                    weights_.value.rows());
    detail::require_size(weights_.output.cols(), value_dim() * options_.num_heads,
                         "posenc::MultiHeadAttention: columns of the output weights must be num_heads * value_dim");
    require_bias(weights_.query_bias, weights_.query);
    require_bias(weights_.key_bias, weights_.key);
    require_bias(weights_.value_bias, weights_.value);
    require_bias(weights_.output_bias, weights_.output);
  }

  Index num_heads() const { return options_.num_heads; }
  Index num_kv_heads() const { return options_.num_kv_heads; }
  Index head_dim() const { return weights_.query.rows() / options_.num_heads; }
  Index value_dim() const { return weights_.value.rows() / options_.num_kv_heads; }

  /// Self-attention. \param x features x T. \returns out features x T.
  template <DenseExpression X>
  Matrix<Scalar> operator()(const X& x, const Positions& positions) const {
    return (*this)(x, x, x, positions, positions);
  }

  /// Cross attention. \param query_input features x Tq. \param key_input, value_input features x Tk; the three may have
  /// different numbers of features. \returns out features x Tq.
  /// \throws std::invalid_argument if a shape does not fit.
  template <DenseExpression QueryInput, DenseExpression KeyInput, DenseExpression ValueInput>
  Matrix<Scalar> operator()(const QueryInput& query_input, const KeyInput& key_input, const ValueInput& value_input,
                            const Positions& query_positions, const Positions& key_positions) const {
    const Matrix<Real> q = project(weights_.query, weights_.query_bias, query_input, query_positions);
    const Matrix<Real> k = project(weights_.key, weights_.key_bias, key_input, key_positions);
    const Matrix<Real> v = project(weights_.value, weights_.value_bias, value_input, key_positions);

    Matrix<Real> heads(num_heads() * value_dim(), q.cols());
    with_attention_encodings([&](const auto&... encodings) {
      if (options_.algorithm == AttentionAlgorithm::streaming) {
        std::array workspaces{AttentionWorkspace<Real>(head_dim(), value_dim())};
        streaming_attend_heads_into(heads, q, k, v, all_heads_options(query_positions, key_positions), workspaces,
                                    OnCallingThread{}, encodings...);
        return;
      }
      for (Index h = 0; h < num_heads(); ++h)
        heads.middleRows(h * value_dim(), value_dim()) =
            attend(q.middleRows(h * head_dim(), head_dim()), k.middleRows(kv_head(h) * head_dim(), head_dim()),
                   v.middleRows(kv_head(h) * value_dim(), value_dim()), head_options(query_positions, key_positions, h),
                   encodings...);
    });
    return apply(weights_.output, weights_.output_bias, heads).template cast<Scalar>();
  }

  /// The weights of one head, Tk x Tq: to look at.
  /// \throws std::out_of_range for a head that is not there, std::invalid_argument if a shape does not fit.
  template <DenseExpression QueryInput, DenseExpression KeyInput>
  Matrix<Real> weights(const QueryInput& query_input, const KeyInput& key_input, const Positions& query_positions,
                       const Positions& key_positions, Index head) const {
    detail::require_in_range(head >= 0 && head < num_heads(),
                             "posenc::MultiHeadAttention: head must be below num_heads", head);
    const Matrix<Real> q = project(weights_.query, weights_.query_bias, query_input, query_positions);
    const Matrix<Real> k = project(weights_.key, weights_.key_bias, key_input, key_positions);
    return with_attention_encodings([&](const auto&... encodings) {
      return attention_weights(q.middleRows(head * head_dim(), head_dim()),
                               k.middleRows(kv_head(head) * head_dim(), head_dim()),
                               head_options(query_positions, key_positions, head), encodings...);
    });
  }
  template <DenseExpression X>
  Matrix<Real> weights(const X& x, const Positions& positions, Index head) const {
    return weights(x, x, positions, positions, head);
  }

 private:
  Index kv_head(Index head) const { return head / (num_heads() / num_kv_heads()); }

  AttentionOptions head_options(const Positions& query_positions, const Positions& key_positions, Index head) const {
    return {.query_positions = query_positions,
            .key_positions = key_positions,
            .scale = options_.scale,
            .soft_cap = options_.soft_cap,
            .sink = options_.sinks.size() == 0 ? AttentionOptions{}.sink : options_.sinks[head],
            .head = head,
            .kv_head = kv_head(head)};
  }
  HeadsOptions all_heads_options(const Positions& query_positions, const Positions& key_positions) const {
    return {.query_positions = query_positions,
            .key_positions = key_positions,
            .num_heads = num_heads(),
            .num_kv_heads = num_kv_heads(),
            .scale = options_.scale,
            .soft_cap = options_.soft_cap,
            .sinks = options_.sinks};
  }

  /// Calls action with the encodings that act inside attention: all but those that only act on the input.
  template <class Action>
  auto with_attention_encodings(Action action) const {
    const auto pick = [](const auto& encoding) {
      if constexpr (detail::acts_in_attention<Real, std::remove_cvref_t<decltype(encoding)>>)
        return std::tie(encoding);
      else
        return std::tuple<>();
    };
    return std::apply([&](const auto&... encodings) { return std::apply(action, std::tuple_cat(pick(encodings)...)); },
                      encodings_);
  }

  template <class Input>
  Matrix<Real> project(const Matrix<Scalar>& map, const Vector<Scalar>& bias, const Input& input,
                       const Positions& positions) const {
    detail::require_size(input.rows(), map.cols(),
                         "posenc::MultiHeadAttention: rows of an input must be the columns of its weights");
    detail::require_size(input.cols(), positions.size(),
                         "posenc::MultiHeadAttention: columns of an input must be the number of its positions");
    Matrix<Real> x = input.template cast<Real>();
    std::apply([&](const auto&... encodings) { (add_input(encodings, x, positions), ...); }, encodings_);
    return apply(map, bias, x);
  }

  template <class Encoding>
  static void add_input(const Encoding& encoding, Matrix<Real>& x, const Positions& positions) {
    if constexpr (InputEncoding<Encoding, Real>) {
      Eigen::Ref<Matrix<Real>> view = x;
      encoding.add_to(view, positions);
    }
  }

  static Matrix<Real> apply(const Matrix<Scalar>& map, const Vector<Scalar>& bias, const Matrix<Real>& x) {
    Matrix<Real> y = map.template cast<Real>() * x;
    if (bias.size() > 0) y.colwise() += bias.template cast<Real>();
    return y;
  }

  static void require_bias(const Vector<Scalar>& bias, const Matrix<Scalar>& map) {
    if (bias.size() > 0)
      detail::require_size(bias.size(), map.rows(),
                           "posenc::MultiHeadAttention: entries of a bias must be the rows of its weights");
  }

  ProjectionWeights<Scalar> weights_;
  MultiHeadAttentionOptions options_;
  std::tuple<Encodings...> encodings_;
};

}  // namespace posenc::inline v0
