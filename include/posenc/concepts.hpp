// SPDX-License-Identifier: MIT
#pragma once

// Start reading here: what a positional encoding is in this library, and where it acts.
//
//   D features, H heads, T tokens, Tq queries, Tk keys
//
//   X : D x T      embeddings, one token a column
//   Q : D x Tq     queries of one head            K : D x Tk     keys            V : Dv x Tk    values
//   S : Tk x Tq    scores, a column is a query    S = K^T Q
//   W : Tk x Tq    softmax of each column of S
//   O : Dv x Tq    outputs                        O = V W
//
// An encoding is any type with one of five member functions, the hooks. There is no base class and nothing to register.
//
//   concept           hook                                                             acts on
//   InputEncoding     add_to(X, positions)                                             embeddings
//   QueryKeyEncoding  apply_query(Q, positions, head), apply_key(K, positions, head)   queries and keys
//   ScoreBias         add_bias(S, key_positions, query_positions, head)                scores, whatever their content
//   ScoreTerm         add_scores(S, K, Q, key_positions, query_positions, head)        scores, from their content
//   ValueTerm         add_values(O, W, key_positions, query_positions, head)           outputs
//
// Hooks are const, return nothing, write into their first argument and allocate nothing. Every hook works on a tile:
// S may be any block of keys by any block of queries, with the positions of that block. Positions come in the order of
// the matrix's dimensions, rows before columns.
//
// A concept sees only syntax. Meaning is stated on the type, as a constant that is false where it is absent:
//
//   static constexpr bool is_relative = true;      only the difference of positions matters, for scores and outputs
//   static constexpr bool preserves_norm = true;   apply_query and apply_key leave the length of a vector as it is

#include <Eigen/Core>
#include <complex>
#include <concepts>
#include <cstdint>
#include <type_traits>

#include <posenc/positions.hpp>

namespace posenc::inline v0 {

/// The matrix that this library makes: one token a column, columns contiguous, whatever Eigen's default order is.
template <class Scalar>
using Matrix = Eigen::Matrix<Scalar, Eigen::Dynamic, Eigen::Dynamic, Eigen::ColMajor>;

template <class Scalar>
using Vector = Eigen::Matrix<Scalar, Eigen::Dynamic, 1, Eigen::ColMajor>;

/// Any Eigen matrix or array expression. (A part of a vector, head(n), derives from the DenseBase of another type.)
template <class X>
concept DenseExpression = requires(const std::remove_cvref_t<X>& x) {
  []<class Derived>(const Eigen::DenseBase<Derived>&) {}(x);
};

/// What a hook may write through: an lvalue with direct access to its memory, or a temporary *view* of one (a block, a
/// map, a transpose). Not a const object, not an expression that is computed, and not a temporary matrix, in which the
/// result would be lost.
template <class X>
concept MutableDense = DenseExpression<X> && !std::is_const_v<std::remove_reference_t<X>> &&
                       static_cast<bool>(std::remove_cvref_t<X>::Flags & Eigen::LvalueBit) &&
                       static_cast<bool>(std::remove_cvref_t<X>::Flags & Eigen::DirectAccessBit) &&
                       (std::is_lvalue_reference_v<X> ||
                        !std::same_as<typename std::remove_cvref_t<X>::PlainObject, std::remove_cvref_t<X>>);

/// Scalars that matrices may hold. The two small ones are storage: arithmetic on them is done in float.
template <class Scalar>
concept RealScalar = std::same_as<Scalar, float> || std::same_as<Scalar, double> || std::same_as<Scalar, Eigen::half> ||
    std::same_as<Scalar, Eigen::bfloat16>;

/// What the concepts below are checked against. A hook may be a template or take a plain Eigen::Ref.
namespace archetype {
template <class Scalar>
using Mutable = Eigen::Ref<Matrix<Scalar>>;
template <class Scalar>
using Readable = Eigen::Ref<const Matrix<Scalar>>;
}  // namespace archetype

template <class E, class Scalar = float>
concept InputEncoding = requires(const E& e, archetype::Mutable<Scalar>& x, const Positions& positions) {
  { e.add_to(x, positions) } -> std::same_as<void>;
};

template <class E, class Scalar = float>
concept QueryKeyEncoding = requires(const E& e, archetype::Mutable<Scalar>& x, const Positions& positions, Index head) {
  { e.apply_query(x, positions, head) } -> std::same_as<void>;
  { e.apply_key(x, positions, head) } -> std::same_as<void>;
};

template <class E, class Scalar = float>
concept ScoreBias = requires(const E& e, archetype::Mutable<Scalar>& scores, const Positions& key_positions,
                             const Positions& query_positions, Index head) {
  { e.add_bias(scores, key_positions, query_positions, head) } -> std::same_as<void>;
};

template <class E, class Scalar = float>
concept ScoreTerm = requires(const E& e, archetype::Mutable<Scalar>& scores, const archetype::Readable<Scalar>& keys,
                             const archetype::Readable<Scalar>& queries, const Positions& key_positions,
                             const Positions& query_positions, Index head) {
  { e.add_scores(scores, keys, queries, key_positions, query_positions, head) } -> std::same_as<void>;
};

template <class E, class Scalar = float>
concept ValueTerm = requires(const E& e, archetype::Mutable<Scalar>& outputs,
                             const archetype::Readable<Scalar>& weights, const Positions& key_positions,
                             const Positions& query_positions, Index head) {
  { e.add_values(outputs, weights, key_positions, query_positions, head) } -> std::same_as<void>;
};

/// A type that acts in at least one of the five places.
template <class E, class Scalar = float>
concept PositionalEncoding = InputEncoding<E, Scalar> || QueryKeyEncoding<E, Scalar> || ScoreBias<E, Scalar> ||
    ScoreTerm<E, Scalar> || ValueTerm<E, Scalar>;

/// The smallest and the largest bias in a tile of scores.
struct BiasBounds {
  double lowest;
  double highest;
};

/// A bias may state bounds for a tile, from its positions alone. Streaming attention leaves out a tile whose weights are
/// proved to be zero, -inf in the first place, and does not call the hook where it would add nothing but zeros.
template <class E>
concept BoundedBias = requires(const E& e, const Positions& key_positions, const Positions& query_positions,
                               Index head) {
  { e.bounds(key_positions, query_positions, head) } -> std::same_as<BiasBounds>;
};

/// A bias may be a function of the difference of positions, key - query. Streaming attention then computes it once for
/// every difference that a block meets, and begins its sums with it at no cost. A type for which that depends on how it
/// was made says so with a member `bool is_by_distance() const`.
template <class E>
concept DistanceBias = requires(const E& e, std::int64_t key_minus_query, Index head) {
  { e.at_distance(key_minus_query, head) } -> std::same_as<double>;
};

/// A content term may be a vector for every clipped difference of positions, <q, a_c> with c = clip(key - query + max_left,
/// 0, num_distances - 1), and the same for values. Streaming attention then makes the products once a panel of queries
/// and begins its sums with them. `is_by_distance()` says whether an object is of that form.
template <class E>
concept DistanceTerm = requires(const E& e, Index head) {
  { e.is_by_distance() } -> std::same_as<bool>;
  { e.max_left() } -> std::same_as<Index>;
  { e.num_distances() } -> std::same_as<Index>;
  e.key_vectors(head);    // D x num_distances, or nothing
  e.value_vectors(head);  // Dv x num_distances, or nothing
};

/// Whether E states that only differences of positions matter.
template <class E>
inline constexpr bool is_relative = requires {
  requires E::is_relative;
};

/// Whether E states that its rotation leaves lengths as they are.
template <class E>
inline constexpr bool preserves_norm = requires {
  requires E::preserves_norm;
};

}  // namespace posenc::inline v0
