// SPDX-License-Identifier: MIT
#pragma once

// What a law calls a hook with, and how it compares what comes out. All that does not depend on the encoding is here,
// and compiled once (calls.cpp), for float, double, half and bfloat16.

#include "allocations.hpp"

#include <posenc/concepts.hpp>

#include <Eigen/Core>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#include <vector>

#include "cases.hpp"

namespace laws {

using posenc::Index;
using posenc::Matrix;
using posenc::Positions;

template <class Scalar>
using RowMajorMatrix = Eigen::Matrix<Scalar, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

/// The five concepts are six hooks, each of which writes one matrix.
enum class Hook { add_to, apply_query, apply_key, add_bias, add_scores, add_values };

const char* name(Hook hook);

/// Writes features x queries; the others but add_values write keys x queries.
constexpr bool writes_features(Hook hook) {
  return hook == Hook::add_to || hook == Hook::apply_query || hook == Hook::apply_key;
}
constexpr bool writes_scores(Hook hook) { return hook == Hook::add_bias || hook == Hook::add_scores; }

/// Whether it adds numbers up, which Eigen does in an order that depends on storage and alignment.
constexpr bool sums(Hook hook) { return hook == Hook::add_scores || hook == Hook::add_values; }

/// What one must know of an encoding to try it.
struct About {
  Index num_features = 1;                  ///< rows of embeddings, queries and keys; of outputs as well
  Limits limits = {};                      ///< positions and heads that it takes
  std::vector<Index> untouched = {};       ///< features that it leaves as they are
  std::vector<std::int64_t> refused = {};  ///< positions for which it throws std::out_of_range
  std::vector<Index> refused_heads = {};   ///< likewise for heads
  std::vector<Hook> idle = {};             ///< hooks that do nothing, as without a table, and so refuse nothing
  bool by_token = false;                   ///< goes by the number of a token in the sequence, not by its position
  bool scores_are_relative = true;         ///< false: only the weights are, as with a bias that is constant for a query
};

/// Where the tokens of a tile are. A hook with one set of positions gets those of the queries.
struct Place {
  Positions keys, queries;
  Index head = 0;

  Place tile(Index key, Index num_keys, Index query, Index num_queries) const {
    return {keys.segment(key, num_keys), queries.segment(query, num_queries), head};
  }
};

inline Place place(const Case& c) { return {.keys = c.key_positions, .queries = c.query_positions, .head = c.head}; }

/// The case with all positions moved by its shift.
Case shifted(const Case& c);

// Numbers.

/// Numbers from -1 to 1 that every scalar holds exactly.
template <class Scalar>
Matrix<Scalar> random_matrix(Index rows, Index cols, std::uint64_t seed);

template <class Scalar>
Matrix<double> to_double(const Matrix<Scalar>& x);

/// 1 x T, the length of each column.
Matrix<double> lengths(const Matrix<double>& x);

/// The distance from 1 to the next larger number.
template <class Scalar>
constexpr double epsilon() {
  if (std::is_same_v<Scalar, Eigen::half>) return 0x1p-10;  // Eigen 3.4 has another number in NumTraits
  if (std::is_same_v<Scalar, Eigen::bfloat16>) return 0x1p-7;
  return static_cast<double>(std::numeric_limits<Scalar>::epsilon());
}

template <class Scalar>
bool same_bits(const Matrix<Scalar>& a, const Matrix<Scalar>& b) {
  return a.rows() == b.rows() && a.cols() == b.cols() &&
         (a.size() == 0 || std::memcmp(a.data(), b.data(), static_cast<std::size_t>(a.size()) * sizeof(Scalar)) == 0);
}

/// |a - b| <= bound everywhere; equal infinities and two NaN are close. A bound of one column or row is for all.
bool close(const Matrix<double>& a, const Matrix<double>& b, const Matrix<double>& bound);

// Calls.

/// What hooks read: D x Tk, D x Tq, Tk x Tq.
template <class M>
struct Inputs {
  M keys, queries, weights;
};

/// What a hook is called with.
template <class Scalar>
struct Call {
  Hook hook;
  Matrix<Scalar> out;  ///< what is written, as it is before
  Inputs<Matrix<Scalar>> in;
  Place at;

  /// The call of a case. It refers to the positions of the case.
  Call(Hook hook, Index num_features, const Case& c);
  Call(Hook hook, Matrix<Scalar> out, Inputs<Matrix<Scalar>> in, const Place& at);

  /// The part for some keys and queries.
  Call tile(Index key, Index num_keys, Index query, Index num_queries) const;

  /// Puts the result of such a part into that of the whole.
  void place_tile(Matrix<Scalar>& result, const Matrix<Scalar>& part, Index key, Index query) const;

  /// How far each number of a result may be from the exact one.
  ///
  ///   add_to, add_bias     the encoding is rounded, then its sum with x     4 eps (|x| + |result|)
  ///   apply_...            cos, sin, two products and a sum                 4 eps of the length of the column
  ///   add_scores           n = D + 2 products of numbers up to 1, summed    eps n (n + |x|)
  ///   add_values           n = Tk + 2 weights and columns, summed           eps n (n + |x|)
  Matrix<double> rounding_bound(const Matrix<Scalar>& result) const;

  /// Whether two ways to compute the same agree: to the bit, but within the bound above where a hook sums, and where
  /// the compiler may fuse a product and a sum in one loop and not in another.
  bool agree(const Matrix<Scalar>& a, const Matrix<Scalar>& b) const;

  /// Whether a result of half or bfloat16 is that of float, rounded once; outputs of add_values once a run of keys.
  bool is_rounded(const Matrix<Scalar>& stored, const Call<float>& in_float, const Matrix<float>& computed) const;
};

/// The same tokens in another order.
template <class Scalar>
struct Permuted {
  std::vector<Index> keys, queries;
  std::vector<std::int64_t> key_positions, query_positions;
  Call<Scalar> call;

  Permuted(const Call<Scalar>& given, std::uint64_t seed);
  Permuted(const Permuted&) = delete;  // the call refers to the positions
  Permuted& operator=(const Permuted&) = delete;

  /// A result of the given call, permuted.
  Matrix<Scalar> permute(const Matrix<Scalar>& out) const;
};

/// A call that must be refused.
template <class Scalar>
struct BadCall {
  enum class Refusal { invalid_argument, out_of_range };

  const char* what;
  Refusal refusal;
  Call<Scalar> call;
  std::vector<std::int64_t> query_positions = {};  ///< if not empty, those of the call

  static std::vector<BadCall> all(const Call<Scalar>& given, const About& about);
};

}  // namespace laws
