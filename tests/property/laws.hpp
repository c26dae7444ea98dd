// SPDX-License-Identifier: MIT
#pragma once

// The laws of every hook, whatever the encoding. Each is a type with a name and a function `test`, which looks at one
// case of one hook. They see an encoding as Hooks, which have forgotten its type: so laws are compiled once (laws.cpp),
// and not for every encoding.

#include "calls.hpp"

#include <posenc/concepts.hpp>

#include <Eigen/Core>
#include <type_traits>
#include <utility>
#include <variant>

namespace laws {

/// An encoding and what one must know of it.
template <class E>
struct Subject : About {
  E encoding{};

  explicit Subject(const About& about) : About(about) {}
  explicit Subject(E tried, const About& about = {}) : About(about), encoding(std::move(tried)) {}
};

template <Hook hook, class E, class Scalar>
constexpr bool acts() {
  switch (hook) {
    case Hook::add_to:
      return posenc::InputEncoding<E, Scalar>;
    case Hook::apply_query:
    case Hook::apply_key:
      return posenc::QueryKeyEncoding<E, Scalar>;
    case Hook::add_bias:
      return posenc::ScoreBias<E, Scalar>;
    case Hook::add_scores:
      return posenc::ScoreTerm<E, Scalar>;
    case Hook::add_values:
      return posenc::ValueTerm<E, Scalar>;
  }
  return false;
}

template <Hook hook, class E, class Out, class M>
void call(const E& encoding, Out&& out, const Inputs<M>& in, const Place& at) {
  if constexpr (hook == Hook::add_to)
    encoding.add_to(std::forward<Out>(out), at.queries);
  else if constexpr (hook == Hook::apply_query)
    encoding.apply_query(std::forward<Out>(out), at.queries, at.head);
  else if constexpr (hook == Hook::apply_key)
    encoding.apply_key(std::forward<Out>(out), at.queries, at.head);
  else if constexpr (hook == Hook::add_bias)
    encoding.add_bias(std::forward<Out>(out), at.keys, at.queries, at.head);
  else if constexpr (hook == Hook::add_scores)
    encoding.add_scores(std::forward<Out>(out), in.keys, in.queries, at.keys, at.queries, at.head);
  else
    encoding.add_values(std::forward<Out>(out), in.weights, at.keys, at.queries, at.head);
}

template <Hook hook, class Scalar, class E>
Matrix<Scalar> result(const E& encoding, const Call<Scalar>& given) {
  Matrix<Scalar> out = given.out;
  call<hook>(encoding, out, given.in, given.at);
  return out;
}

/// The hooks of an encoding, for matrices of a scalar.
template <class Scalar>
struct Hooks {
  const About& about;
  bool is_relative, preserves_norm;

  Hooks(const About& a, bool relative, bool norm) : about(a), is_relative(relative), preserves_norm(norm) {}
  Hooks(const Hooks&) = delete;
  Hooks& operator=(const Hooks&) = delete;
  virtual ~Hooks() = default;

  virtual bool has(Hook hook) const = 0;
  virtual void call(Hook hook, Matrix<Scalar>& out, const Inputs<Matrix<Scalar>>& in, const Place& at) const = 0;

  Call<Scalar> given(Hook hook, const Case& c) const { return {hook, about.num_features, c}; }
  Matrix<Scalar> result(const Call<Scalar>& given) const;
};

/// What a hook may be given in place of a Matrix. Each takes as long to compile as the matrix itself, so there are not
/// two that a kernel walks alike.
template <class Scalar, class ColMajor = Matrix<Scalar>, class RowMajor = RowMajorMatrix<Scalar>,
          class Map = Eigen::Map<ColMajor>, class RowMajorMap = Eigen::Map<RowMajor>,
          class Any = Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>>
using View = std::variant<RowMajor*, Map, Eigen::Map<ColMajor, 0, Any>, RowMajorMap, Eigen::Map<RowMajor, 0, Any>,
                          Eigen::Ref<ColMajor>, Eigen::ArrayWrapper<Map>, Eigen::Block<Map>, Eigen::Block<RowMajorMap>,
                          Eigen::Transpose<Map>, Eigen::Transpose<RowMajorMap>>;

/// The same, and for views.
template <class Scalar>
struct HooksOfViews : Hooks<Scalar> {
  using Hooks<Scalar>::Hooks;
  virtual void call_on_view(Hook hook, View<Scalar> out, const Inputs<Matrix<Scalar>>& in, const Place& at) const = 0;
  virtual void call_with_row_major(Hook hook, Matrix<Scalar>& out, const Inputs<RowMajorMatrix<Scalar>>& in,
                                   const Place& at) const = 0;
};

/// Those of a subject, which it refers to.
template <class E, class Scalar, class Base = Hooks<Scalar>>
class HooksOf : public Base {
  static_assert(posenc::PositionalEncoding<E, Scalar>, "the encoding has no hook for this scalar");

 public:
  explicit HooksOf(const Subject<E>& subject)
      : Base(subject, posenc::is_relative<E>, posenc::preserves_norm<E>), encoding_(subject.encoding) {}
  HooksOf(const About& of_encoding, const E& encoding)
      : Base(of_encoding, posenc::is_relative<E>, posenc::preserves_norm<E>), encoding_(encoding) {}

  bool has(Hook hook) const override {
    bool found = false;
    with(hook, [&](auto) { found = true; });
    return found;
  }
  void call(Hook hook, Matrix<Scalar>& out, const Inputs<Matrix<Scalar>>& in, const Place& at) const override {
    with(hook, [&](auto h) { laws::call<h()>(encoding_, out, in, at); });
  }

 protected:
  /// Calls an action with the hook as a constant, if the encoding has it.
  template <class Action>
  static void with(Hook hook, const Action& action) {
    const auto if_it_is = [&]<Hook h>(std::integral_constant<Hook, h> constant) {
      if constexpr (acts<h, E, Scalar>())
        if (hook == h) action(constant);
    };
    if_it_is(std::integral_constant<Hook, Hook::add_to>());
    if_it_is(std::integral_constant<Hook, Hook::apply_query>());
    if_it_is(std::integral_constant<Hook, Hook::apply_key>());
    if_it_is(std::integral_constant<Hook, Hook::add_bias>());
    if_it_is(std::integral_constant<Hook, Hook::add_scores>());
    if_it_is(std::integral_constant<Hook, Hook::add_values>());
  }

  const E& encoding_;
};

template <class E, class Scalar>
class HooksOfViewsOf final : public HooksOf<E, Scalar, HooksOfViews<Scalar>> {
 public:
  using HooksOf<E, Scalar, HooksOfViews<Scalar>>::HooksOf;

  void call_on_view(Hook hook, View<Scalar> out, const Inputs<Matrix<Scalar>>& in, const Place& at) const override {
    const E& encoding = this->encoding_;
    const auto call_on = [&]<class V>(V& view) {
      this->with(hook, [&](auto h) {
        if constexpr (std::is_pointer_v<V>)
          laws::call<h()>(encoding, *view, in, at);
        else if constexpr (requires { view.nestedExpression(); })  // as one writes it: a temporary
          laws::call<h()>(encoding, std::move(view), in, at);
        else
          laws::call<h()>(encoding, view, in, at);
      });
    };
    std::visit(call_on, out);
  }
  void call_with_row_major(Hook hook, Matrix<Scalar>& out, const Inputs<RowMajorMatrix<Scalar>>& in,
                           const Place& at) const override {
    const E& encoding = this->encoding_;
    this->with(hook, [&](auto h) {
      if constexpr (sums(h())) laws::call<h()>(encoding, out, in, at);
    });
  }
};

// Each law says what it has to say of one case.

/// T = 0: no keys, no queries, nothing happens.
struct EmptyIsLegal {
  static constexpr auto name = "no tokens: nothing happens";
  template <class Scalar>
  static Verdict test(const Hooks<Scalar>& hooks, Hook hook, const Case& c);
};

/// Several calls on tiles, with the positions of the tiles, are one call on the whole: what a KV cache and a streaming
/// attention do.
struct ChunkedIsWhole {
  static constexpr auto name = "chunked = whole";
  template <class Scalar>
  static Verdict test(const Hooks<Scalar>& hooks, Hook hook, const Case& c);
};

/// T = 1.
struct OneTokenAlone {
  static constexpr auto name = "a token alone = its column among others";
  template <class Scalar>
  static Verdict test(const Hooks<Scalar>& hooks, Hook hook, const Case& c);
};

/// Lengths around the sizes of SIMD packets: the first T tokens alone are as they are among more.
struct OddTails {
  static constexpr auto name = "every length, odd tails too";
  template <class Scalar>
  static Verdict test(const Hooks<Scalar>& hooks, Hook hook, const Case& c);
};

/// Positions in another order are the same tokens in another order: nothing goes by the number of a column.
struct PermutedPositions {
  static constexpr auto name = "permuted positions = permuted columns";
  template <class Scalar>
  static Verdict test(const Hooks<Scalar>& hooks, Hook hook, const Case& c);
};

/// Maps, strides, orders, blocks, transposes, arrays: the same numbers, and not a byte beside the view.
struct EveryView {
  static constexpr auto name = "every view = the plain matrix";
  template <class Scalar>
  static Verdict test(const HooksOfViews<Scalar>& hooks, Hook hook, const Case& c);
};

/// Features that an encoding does not act on keep their bits, of a negative zero and of NaN too, and no other feature
/// takes anything from them.
struct UntouchedFeatures {
  static constexpr auto name = "other features keep their bits";
  template <class Scalar>
  static Verdict test(const Hooks<Scalar>& hooks, Hook hook, const Case& c);
};

/// Hooks allocate nothing, for a row-major matrix neither.
struct NoAllocation {
  static constexpr auto name = "allocates nothing";
  template <class Scalar>
  static Verdict test(const Hooks<Scalar>& hooks, Hook hook, const Case& c);
};

/// A call that throws leaves its arguments as they were; shapes that do not fit throw std::invalid_argument, positions
/// and heads that are not there std::out_of_range.
struct ThrowsBeforeItWrites {
  static constexpr auto name = "throws before it writes";
  template <class Scalar>
  static Verdict test(const Hooks<Scalar>& hooks, Hook hook, const Case& c);
};

/// A const encoding may be used by several threads at once, and gives each of them the same bits.
struct SameBitsInThreads {
  static constexpr auto name = "two threads, the same bits";
  template <class Scalar>
  static Verdict test(const Hooks<Scalar>& hooks, Hook hook, const Case& c);
};

/// float and double agree to the rounding of float. Two objects, since some hold what they know in one scalar.
struct FloatIsDouble {
  static constexpr auto name = "float = double, rounded";
  static Verdict test(const Hooks<float>& hooks, const Hooks<double>& of_double, Hook hook, const Case& c);
};

/// half and bfloat16 are storage: the result is that of float, rounded.
struct StorageIsRounded {
  static constexpr auto name = "half and bfloat16 = float, rounded";
  template <class Scalar>
  static Verdict test(const Hooks<Scalar>& hooks, const Hooks<float>& of_float, Hook hook, const Case& c);
};

/// Only differences of positions matter: all of them shifted by any amount, scores and outputs are what they were.
///
///   <f(q, m), f(k, n)> = g(q, k, m - n)
struct ShiftedPositions {
  static constexpr auto name = "shifted positions: the same scores";
  template <class Scalar>
  static Verdict test(const Hooks<Scalar>& hooks, Hook hook, const Case& c);
};

}  // namespace laws
