// SPDX-License-Identifier: MIT
#pragma once

// The laws of every hook, whatever the encoding. Each is a type with a name and a function `test`, which looks at one
// case of one hook.

#include "calls.hpp"

#include <posenc/concepts.hpp>

#include <Eigen/Core>
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <exception>
#include <functional>
#include <limits>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

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

/// T = 0: no keys, no queries, nothing happens.
struct EmptyIsLegal {
  static constexpr auto name = "no tokens: nothing happens";

  template <Hook hook, class Scalar, class E>
  static Verdict test(const Subject<E>& subject, const Case& c) {
    Case no_keys = c, no_queries = c, nothing = c;
    no_keys.key_positions.clear();
    no_queries.query_positions.clear();
    nothing.key_positions.clear();
    nothing.query_positions.clear();
    for (const Case* empty : {&no_keys, &no_queries, &nothing}) {
      if (writes_features(hook) && empty == &no_keys) continue;
      const Call<Scalar> given(hook, subject.num_features, *empty);
      try {
        if (!same_bits(result<hook>(subject.encoding, given), given.out)) return Verdict("something was written");
      } catch (const std::exception& error) {
        return Verdict(std::string("it throws: ") + error.what());
      }
    }
    return {};
  }
};

/// Several calls on tiles, with the positions of the tiles, are one call on the whole: what a KV cache and a streaming
/// attention do.
struct ChunkedIsWhole {
  static constexpr auto name = "chunked = whole";

  template <Hook hook, class Scalar, class E>
  static Verdict test(const Subject<E>& subject, const Case& c) {
    std::mt19937_64 engine(c.seed);
    return in_chunks<hook, Scalar>(subject, c, [&] { return static_cast<Index>(1 + engine() % 9); });
  }

  template <Hook hook, class Scalar, class E>
  static Verdict in_chunks(const Subject<E>& subject, const Case& c, const std::function<Index()>& any_size) {
    const Call<Scalar> given(hook, subject.num_features, c);
    const Index num_keys = given.at.keys.size(), num_queries = given.at.queries.size();
    Call<Scalar> pieces = given;
    for (Index query = 0, q = 0; query < num_queries; query += q) {
      q = std::min(any_size(), num_queries - query);
      for (Index key = 0, k = 1; key < num_keys || (key == 0 && writes_features(hook)); key += std::max<Index>(k, 1)) {
        k = writes_features(hook) ? num_keys : std::min(any_size(), num_keys - key);
        const Call<Scalar> tile = pieces.tile(key, k, query, q);
        pieces.place_tile(pieces.out, result<hook>(subject.encoding, tile), key, query);
      }
    }
    if (given.agree(result<hook>(subject.encoding, given), pieces.out)) return {};
    return Verdict("tiles and the whole differ");
  }
};

/// T = 1.
struct OneTokenAlone {
  static constexpr auto name = "a token alone = its column among others";

  template <Hook hook, class Scalar, class E>
  static Verdict test(const Subject<E>& subject, const Case& c) {
    return ChunkedIsWhole::in_chunks<hook, Scalar>(subject, c, [] { return Index{1}; });
  }
};

/// Lengths around the sizes of SIMD packets: the first T tokens alone are as they are among more.
struct OddTails {
  static constexpr auto name = "every length, odd tails too";

  template <Hook hook, class Scalar, class E>
  static Verdict test(const Subject<E>& subject, const Case& c) {
    const Call<Scalar> given(hook, subject.num_features, c);
    const Call<Scalar> whole(hook, result<hook>(subject.encoding, given), given.in, given.at);
    for (Index n = 0; n <= given.at.queries.size(); ++n) {
      const Index keys = writes_scores(hook) ? std::min(n, given.at.keys.size()) : given.at.keys.size();
      const Call<Scalar> part = given.tile(0, keys, 0, n);
      if (!part.agree(result<hook>(subject.encoding, part), whole.tile(0, keys, 0, n).out))
        return Verdict(std::to_string(n) + " tokens alone differ from the first of more");
    }
    return {};
  }
};

/// Positions in another order are the same tokens in another order: nothing goes by the number of a column.
struct PermutedPositions {
  static constexpr auto name = "permuted positions = permuted columns";

  template <Hook hook, class Scalar, class E>
  static Verdict test(const Subject<E>& subject, const Case& c) {
    if (subject.by_token) return {};
    const Call<Scalar> given(hook, subject.num_features, c);
    const Permuted<Scalar> permuted(given, c.seed);
    if (permuted.call.agree(result<hook>(subject.encoding, permuted.call),
                            permuted.permute(result<hook>(subject.encoding, given))))
      return {};
    return Verdict("the order of the columns matters");
  }
};

/// Maps, strides, orders, blocks, transposes, arrays: the same numbers, and not a byte beside the view.
struct EveryView {
  static constexpr auto name = "every view = the plain matrix";

  template <Hook hook, class Scalar, class E>
  static Verdict test(const Subject<E>& subject, const Case& c) {
    using ColMajor = Matrix<Scalar>;
    using RowMajor = RowMajorMatrix<Scalar>;
    using Outer = Eigen::OuterStride<>;
    using Any = Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>;

    const Call<Scalar> given(hook, subject.num_features, c);
    const Index rows = given.out.rows(), cols = given.out.cols();
    const Matrix<Scalar> plain = result<hook>(subject.encoding, given);
    std::string wrong;
    const auto apply = [&](auto&& view) {
      call<hook>(subject.encoding, std::forward<decltype(view)>(view), given.in, given.at);
    };
    const auto check = [&](const char* what, const auto& view_of, const auto& action) {
      // Larger than any of the views, not aligned, and full of NaN that nothing may read or write.
      std::vector<Scalar> buffer(static_cast<std::size_t>((2 * rows + 5) * (2 * cols + 5) + 8),
                                 std::numeric_limits<Scalar>::quiet_NaN());
      auto&& view = view_of(buffer.data() + 1);
      view = given.out;
      std::vector<Scalar> expected = buffer;
      action(view);
      const ColMajor got = view;
      auto&& expected_view = view_of(expected.data() + 1);
      expected_view = got;  // what the view does not cover must still be as it was
      if (!given.agree(plain, got)) wrong = std::string(what) + " differs from the plain matrix";
      if (std::memcmp(buffer.data(), expected.data(), buffer.size() * sizeof(Scalar)) != 0)
        wrong = std::string(what) + ": memory beside the view was written";
    };
    const auto map = [&](Scalar* p) { return Eigen::Map<ColMajor>(p, rows, cols); };
    check("Map", map, apply);
    check("array", map, [&](auto& view) { apply(view.array()); });
    check("Ref", map, [&](auto& view) { apply(Eigen::Ref<ColMajor>(view)); });
    check("temporary block", map, [&](auto& view) { apply(view.leftCols(cols)); });
    check(
        "Map with a distance between columns",
        [&](Scalar* p) { return Eigen::Map<ColMajor, 0, Outer>(p, rows, cols, Outer(rows + 3)); }, apply);
    check(
        "Map with a distance between features",
        [&](Scalar* p) { return Eigen::Map<ColMajor, 0, Any>(p, rows, cols, Any(2 * rows + 1, 2)); }, apply);
    check(
        "row-major Map", [&](Scalar* p) { return Eigen::Map<RowMajor>(p, rows, cols); }, apply);
    check(
        "row-major Map with strides",
        [&](Scalar* p) { return Eigen::Map<RowMajor, 0, Any>(p, rows, cols, Any(2 * cols + 2, 2)); }, apply);
    check(
        "block of a matrix",
        [&](Scalar* p) { return Eigen::Map<ColMajor>(p, rows + 3, cols + 2).block(2, 1, rows, cols); }, apply);
    check(
        "block of a row-major matrix",
        [&](Scalar* p) { return Eigen::Map<RowMajor>(p, rows + 3, cols + 2).block(2, 1, rows, cols); }, apply);
    check(
        "transpose", [&](Scalar* p) { return Eigen::Map<ColMajor>(p, cols, rows).transpose(); }, apply);
    check(
        "transpose of a row-major matrix", [&](Scalar* p) { return Eigen::Map<RowMajor>(p, cols, rows).transpose(); },
        apply);

    RowMajor row_major = given.out;
    apply(row_major);
    if (!given.agree(plain, ColMajor(row_major))) wrong = "a row-major matrix differs from the plain matrix";
    if constexpr (sums(hook)) {  // the matrices that are read
      Matrix<Scalar> out = given.out;
      const Inputs<RowMajor> row_major_inputs{given.in.keys, given.in.queries, given.in.weights};
      call<hook>(subject.encoding, out, row_major_inputs, given.at);
      if (!given.agree(plain, out)) wrong = "a row-major input differs from a plain one";
    }
    return Verdict(wrong);
  }
};

/// Features that an encoding does not act on keep their bits, of a negative zero and of NaN too, and no other feature
/// takes anything from them.
struct UntouchedFeatures {
  static constexpr auto name = "other features keep their bits";

  template <Hook hook, class Scalar, class E>
  static Verdict test(const Subject<E>& subject, const Case& c) {
    if constexpr (writes_features(hook)) {
      Call<Scalar> given(hook, subject.num_features, c);
      Matrix<Scalar> expected = result<hook>(subject.encoding, given);
      for (const Scalar value : {static_cast<Scalar>(-0.0f), std::numeric_limits<Scalar>::quiet_NaN()}) {
        for (const Index i : subject.untouched)
          for (Index t = 0; t < expected.cols(); ++t) given.out(i, t) = expected(i, t) = value;
        if (!same_bits(result<hook>(subject.encoding, given), expected))
          return Verdict("features that are to be left alone were written, or others took from them");
      }
    }
    return {};
  }
};

/// Hooks allocate nothing.
struct NoAllocation {
  static constexpr auto name = "allocates nothing";

  template <Hook hook, class Scalar, class E>
  static Verdict test(const Subject<E>& subject, const Case& c) {
    const Call<Scalar> given(hook, subject.num_features, c);
    Matrix<Scalar> out = given.out;
    RowMajorMatrix<Scalar> row_major = given.out;
    if (allocates([&] { call<hook>(subject.encoding, out, given.in, given.at); })) return Verdict("it allocates");
    if (allocates([&] { call<hook>(subject.encoding, row_major, given.in, given.at); }))
      return Verdict("it allocates for a row-major matrix");
    return {};
  }
};

/// A call that throws leaves its arguments as they were; shapes that do not fit throw std::invalid_argument, positions
/// and heads that are not there std::out_of_range.
struct ThrowsBeforeItWrites {
  static constexpr auto name = "throws before it writes";

  template <Hook hook, class Scalar, class E>
  static Verdict test(const Subject<E>& subject, const Case& c) {
    using Bad = BadCall<Scalar>;
    for (Bad bad : Bad::all(Call<Scalar>(hook, subject.num_features, c), subject)) {
      if (!bad.query_positions.empty()) bad.call.at.queries = bad.query_positions;
      Matrix<Scalar> out = bad.call.out;
      const char* wrong = "accepted";
      try {
        call<hook>(subject.encoding, out, bad.call.in, bad.call.at);
      } catch (const std::invalid_argument&) {
        wrong = bad.refusal == Bad::Refusal::invalid_argument ? nullptr : "std::invalid_argument";
      } catch (const std::out_of_range&) {
        wrong = bad.refusal == Bad::Refusal::out_of_range ? nullptr : "std::out_of_range";
      } catch (const std::exception&) {
        wrong = "an error of another type";
      }
      if (wrong == nullptr && !same_bits(out, bad.call.out)) wrong = "written before it threw";
      if (wrong != nullptr) return Verdict(std::string(bad.what) + ": " + wrong);
    }
    return {};
  }
};

/// A const encoding may be used by several threads at once, and gives each of them the same bits.
struct SameBitsInThreads {
  static constexpr auto name = "two threads, the same bits";

  template <Hook hook, class Scalar, class E>
  static Verdict test(const Subject<E>& subject, const Case& c) {
    const Call<Scalar> given(hook, subject.num_features, c);
    const Matrix<Scalar> alone = result<hook>(subject.encoding, given);
    Matrix<Scalar> here, there;
    std::atomic<int> ready = 0;
    const std::function<void(Matrix<Scalar>&)> run = [&](Matrix<Scalar>& out) {
      ++ready;
      while (ready < 2) std::this_thread::yield();
      out = result<hook>(subject.encoding, given);
    };
    std::thread other(run, std::ref(there));
    run(here);
    other.join();
    if (same_bits(alone, here) && same_bits(alone, there)) return {};
    return Verdict("a second call gives other bits");
  }
};

/// float and double agree to the rounding of float. Two objects, since some hold what they know in one scalar.
struct FloatIsDouble {
  static constexpr auto name = "float = double, rounded";

  template <Hook hook, class E, class F>
  static Verdict test(const Subject<E>& subject, const F& of_double, const Case& c) {
    const Call<float> given(hook, subject.num_features, c);
    const Matrix<float> a = result<hook>(subject.encoding, given);
    const Matrix<double> b = result<hook>(of_double, Call<double>(hook, subject.num_features, c));
    if (close(to_double(a), b, given.rounding_bound(a))) return {};
    return Verdict("float is further from double than its rounding");
  }
};

/// half and bfloat16 are storage: the result is that of float, rounded.
struct StorageIsRounded {
  static constexpr auto name = "half and bfloat16 = float, rounded";

  template <Hook hook, class Scalar, class E>
  static Verdict test(const Subject<E>& subject, const Case& c) {
    const Call<Scalar> given(hook, subject.num_features, c);
    const Call<float> in_float(hook, subject.num_features, c);
    if (given.is_rounded(result<hook>(subject.encoding, given), in_float, result<hook>(subject.encoding, in_float)))
      return {};
    return Verdict("further from float than the rounding of the storage");
  }
};

/// Only differences of positions matter: all of them shifted by any amount, scores and outputs are what they were.
///
///   <f(q, m), f(k, n)> = g(q, k, m - n)
struct ShiftedPositions {
  static constexpr auto name = "shifted positions: the same scores";

  template <Hook hook, class Scalar, class E>
  static Verdict test(const Subject<E>& subject, const Case& c) {
    const Case moved = shifted(c);
    if constexpr (hook == Hook::apply_query) {  // and apply_key
      const Call<Scalar> given(hook, subject.num_features, c);
      const auto scores = [&](const Case& at) -> Matrix<double> {
        Matrix<Scalar> queries = given.in.queries, keys = given.in.keys;
        subject.encoding.apply_query(queries, at.query_positions, at.head);
        subject.encoding.apply_key(keys, at.key_positions, at.head);
        return to_double(keys).transpose() * to_double(queries);
      };
      // Each cosine and sine is within 1 ulp, two products and their sum are rounded: less than 3 eps of the length of
      // a vector, of which there are two in each of two scores.
      const Matrix<double> bound =
          12 * epsilon<Scalar>() * lengths(to_double(given.in.keys)).transpose() * lengths(to_double(given.in.queries));
      if (!close(scores(c), scores(moved), bound)) return Verdict("scores depend on where the tokens are");
    } else if constexpr (!writes_features(hook)) {
      if (!subject.scores_are_relative) return {};
      const Call<Scalar> before(hook, subject.num_features, c), after(hook, subject.num_features, moved);
      if (!same_bits(result<hook>(subject.encoding, before), result<hook>(subject.encoding, after)))
        return Verdict("scores or outputs depend on where the tokens are");
    }
    return {};
  }
};

}  // namespace laws
