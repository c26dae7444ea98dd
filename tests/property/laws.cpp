// SPDX-License-Identifier: MIT

#include "laws.hpp"

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
#include <vector>

namespace laws {

template <class Scalar>
Matrix<Scalar> Hooks<Scalar>::result(const Call<Scalar>& given) const {
  Matrix<Scalar> out = given.out;
  call(given.hook, out, given.in, given.at);
  return out;
}

template <class Scalar>
Verdict EmptyIsLegal::test(const Hooks<Scalar>& hooks, Hook hook, const Case& c) {
  Case no_keys = c, no_queries = c, nothing = c;
  no_keys.key_positions.clear();
  no_queries.query_positions.clear();
  nothing.key_positions.clear();
  nothing.query_positions.clear();
  for (const Case* empty : {&no_keys, &no_queries, &nothing}) {
    if (writes_features(hook) && empty == &no_keys) continue;
    const Call<Scalar> given = hooks.given(hook, *empty);
    try {
      if (!same_bits(hooks.result(given), given.out)) return Verdict("something was written");
    } catch (const std::exception& error) {
      return Verdict(std::string("it throws: ") + error.what());
    }
  }
  return {};
}

namespace {

template <class Scalar>
Verdict in_chunks(const Hooks<Scalar>& hooks, Hook hook, const Case& c, const std::function<Index()>& any_size) {
  const Call<Scalar> given = hooks.given(hook, c);
  const Index num_keys = given.at.keys.size(), num_queries = given.at.queries.size();
  Call<Scalar> pieces = given;
  for (Index query = 0, q = 0; query < num_queries; query += q) {
    q = std::min(any_size(), num_queries - query);
    for (Index key = 0, k = 1; key < num_keys || (key == 0 && writes_features(hook)); key += std::max<Index>(k, 1)) {
      k = writes_features(hook) ? num_keys : std::min(any_size(), num_keys - key);
      const Call<Scalar> tile = pieces.tile(key, k, query, q);
      pieces.place_tile(pieces.out, hooks.result(tile), key, query);
    }
  }
  if (given.agree(hooks.result(given), pieces.out)) return {};
  return Verdict("tiles and the whole differ");
}

}  // namespace

template <class Scalar>
Verdict ChunkedIsWhole::test(const Hooks<Scalar>& hooks, Hook hook, const Case& c) {
  std::mt19937_64 engine(c.seed);
  return in_chunks(hooks, hook, c, [&] { return static_cast<Index>(1 + engine() % 9); });
}

template <class Scalar>
Verdict OneTokenAlone::test(const Hooks<Scalar>& hooks, Hook hook, const Case& c) {
  return in_chunks(hooks, hook, c, [] { return Index{1}; });
}

template <class Scalar>
Verdict OddTails::test(const Hooks<Scalar>& hooks, Hook hook, const Case& c) {
  const Call<Scalar> given = hooks.given(hook, c);
  const Call<Scalar> whole(hook, hooks.result(given), given.in, given.at);
  for (Index n = 0; n <= given.at.queries.size(); ++n) {
    const Index keys = writes_scores(hook) ? std::min(n, given.at.keys.size()) : given.at.keys.size();
    const Call<Scalar> part = given.tile(0, keys, 0, n);
    if (!part.agree(hooks.result(part), whole.tile(0, keys, 0, n).out))
      return Verdict(std::to_string(n) + " tokens alone differ from the first of more");
  }
  return {};
}

template <class Scalar>
Verdict PermutedPositions::test(const Hooks<Scalar>& hooks, Hook hook, const Case& c) {
  if (hooks.about.by_token) return {};
  const Call<Scalar> given = hooks.given(hook, c);
  const Permuted<Scalar> permuted(given, c.seed);
  if (permuted.call.agree(hooks.result(permuted.call), permuted.permute(hooks.result(given)))) return {};
  return Verdict("the order of the columns matters");
}

template <class Scalar>
Verdict EveryView::test(const HooksOfViews<Scalar>& hooks, Hook hook, const Case& c) {
  using ColMajor = Matrix<Scalar>;
  using RowMajor = RowMajorMatrix<Scalar>;
  using Outer = Eigen::OuterStride<>;
  using Any = Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>;

  const Call<Scalar> given = hooks.given(hook, c);
  const Index rows = given.out.rows(), cols = given.out.cols();
  const Matrix<Scalar> plain = hooks.result(given);
  std::string wrong;
  const auto apply = [&]<class V>(const V& view) {
    hooks.call_on_view(hook, View<Scalar>(std::in_place_type<V>, view), given.in, given.at);
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
  check(
      "Ref with a distance between columns",
      [&](Scalar* p) { return Eigen::Map<ColMajor, 0, Outer>(p, rows, cols, Outer(rows + 3)); },
      [&](auto& view) { apply(Eigen::Ref<ColMajor>(view)); });
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
  apply(&row_major);
  if (!given.agree(plain, ColMajor(row_major))) wrong = "a row-major matrix differs from the plain matrix";
  if (sums(hook)) {  // the matrices that are read
    Matrix<Scalar> out = given.out;
    const Inputs<RowMajor> row_major_inputs{given.in.keys, given.in.queries, given.in.weights};
    hooks.call_with_row_major(hook, out, row_major_inputs, given.at);
    if (!given.agree(plain, out)) wrong = "a row-major input differs from a plain one";
  }
  return Verdict(wrong);
}

template <class Scalar>
Verdict UntouchedFeatures::test(const Hooks<Scalar>& hooks, Hook hook, const Case& c) {
  if (!writes_features(hook)) return {};
  Call<Scalar> given = hooks.given(hook, c);
  Matrix<Scalar> expected = hooks.result(given);
  for (const Scalar value : {static_cast<Scalar>(-0.0f), std::numeric_limits<Scalar>::quiet_NaN()}) {
    for (const Index i : hooks.about.untouched)
      for (Index t = 0; t < expected.cols(); ++t) given.out(i, t) = expected(i, t) = value;
    if (!same_bits(hooks.result(given), expected))
      return Verdict("features that are to be left alone were written, or others took from them");
  }
  return {};
}

template <class Scalar>
Verdict NoAllocation::test(const Hooks<Scalar>& hooks, Hook hook, const Case& c) {
  const Call<Scalar> given = hooks.given(hook, c);
  Matrix<Scalar> out = given.out;
  RowMajorMatrix<Scalar> row_major = given.out;
  if (allocates([&] { hooks.call(hook, out, given.in, given.at); })) return Verdict("it allocates");
  const auto* views = dynamic_cast<const HooksOfViews<Scalar>*>(&hooks);
  if (views == nullptr) return {};
  const View<Scalar> view(std::in_place_index<0>, &row_major);
  if (allocates([&] { views->call_on_view(hook, view, given.in, given.at); }))
    return Verdict("it allocates for a row-major matrix");
  return {};
}

template <class Scalar>
Verdict ThrowsBeforeItWrites::test(const Hooks<Scalar>& hooks, Hook hook, const Case& c) {
  using Bad = BadCall<Scalar>;
  for (Bad bad : Bad::all(hooks.given(hook, c), hooks.about)) {
    if (!bad.query_positions.empty()) bad.call.at.queries = bad.query_positions;
    Matrix<Scalar> out = bad.call.out;
    const char* wrong = "accepted";
    try {
      hooks.call(hook, out, bad.call.in, bad.call.at);
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

template <class Scalar>
Verdict SameBitsInThreads::test(const Hooks<Scalar>& hooks, Hook hook, const Case& c) {
  const Call<Scalar> given = hooks.given(hook, c);
  const Matrix<Scalar> alone = hooks.result(given);
  Matrix<Scalar> here, there;
  std::atomic<int> ready = 0;
  const std::function<void(Matrix<Scalar>&)> run = [&](Matrix<Scalar>& out) {
    ++ready;
    while (ready < 2) std::this_thread::yield();
    out = hooks.result(given);
  };
  std::thread other(run, std::ref(there));
  run(here);
  other.join();
  if (same_bits(alone, here) && same_bits(alone, there)) return {};
  return Verdict("a second call gives other bits");
}

Verdict FloatIsDouble::test(const Hooks<float>& hooks, const Hooks<double>& of_double, Hook hook, const Case& c) {
  const Call<float> given = hooks.given(hook, c);
  const Matrix<float> a = hooks.result(given);
  const Matrix<double> b = of_double.result(Call<double>(hook, hooks.about.num_features, c));
  if (close(to_double(a), b, given.rounding_bound(a))) return {};
  return Verdict("float is further from double than its rounding");
}

template <class Scalar>
Verdict StorageIsRounded::test(const Hooks<Scalar>& hooks, const Hooks<float>& of_float, Hook hook, const Case& c) {
  const Call<Scalar> given = hooks.given(hook, c);
  const Call<float> in_float = of_float.given(hook, c);
  if (given.is_rounded(hooks.result(given), in_float, of_float.result(in_float))) return {};
  return Verdict("further from float than the rounding of the storage");
}

template <class Scalar>
Verdict ShiftedPositions::test(const Hooks<Scalar>& hooks, Hook hook, const Case& c) {
  const Case moved = shifted(c);
  if (hook == Hook::apply_query) {  // and apply_key
    const Call<Scalar> given = hooks.given(hook, c);
    const auto scores = [&](const Case& at) -> Matrix<double> {
      Matrix<Scalar> queries = given.in.queries, keys = given.in.keys;
      hooks.call(Hook::apply_query, queries, {}, place(at));
      hooks.call(Hook::apply_key, keys, {}, {.keys = {}, .queries = at.key_positions, .head = at.head});
      return to_double(keys).transpose() * to_double(queries);
    };
    // Each cosine and sine is within 1 ulp, two products and their sum are rounded: less than 3 eps of the length of
    // a vector, of which there are two in each of two scores.
    const Matrix<double> bound =
        12 * epsilon<Scalar>() * lengths(to_double(given.in.keys)).transpose() * lengths(to_double(given.in.queries));
    if (!close(scores(c), scores(moved), bound)) return Verdict("scores depend on where the tokens are");
  } else if (!writes_features(hook)) {
    if (!hooks.about.scores_are_relative) return {};
    if (!same_bits(hooks.result(hooks.given(hook, c)), hooks.result(hooks.given(hook, moved))))
      return Verdict("scores or outputs depend on where the tokens are");
  }
  return {};
}

// float and double obey all laws; half and bfloat16 are storage.

template struct Hooks<float>;
template struct Hooks<double>;
template struct Hooks<Eigen::half>;
template struct Hooks<Eigen::bfloat16>;

template Verdict EmptyIsLegal::test(const Hooks<float>&, Hook, const Case&);
template Verdict EmptyIsLegal::test(const Hooks<double>&, Hook, const Case&);
template Verdict ChunkedIsWhole::test(const Hooks<float>&, Hook, const Case&);
template Verdict ChunkedIsWhole::test(const Hooks<double>&, Hook, const Case&);
template Verdict OneTokenAlone::test(const Hooks<float>&, Hook, const Case&);
template Verdict OneTokenAlone::test(const Hooks<double>&, Hook, const Case&);
template Verdict OddTails::test(const Hooks<float>&, Hook, const Case&);
template Verdict OddTails::test(const Hooks<double>&, Hook, const Case&);
template Verdict PermutedPositions::test(const Hooks<float>&, Hook, const Case&);
template Verdict PermutedPositions::test(const Hooks<double>&, Hook, const Case&);
template Verdict EveryView::test(const HooksOfViews<float>&, Hook, const Case&);
template Verdict UntouchedFeatures::test(const Hooks<float>&, Hook, const Case&);
template Verdict UntouchedFeatures::test(const Hooks<double>&, Hook, const Case&);
template Verdict NoAllocation::test(const Hooks<float>&, Hook, const Case&);
template Verdict NoAllocation::test(const Hooks<double>&, Hook, const Case&);
template Verdict ThrowsBeforeItWrites::test(const Hooks<float>&, Hook, const Case&);
template Verdict ThrowsBeforeItWrites::test(const Hooks<double>&, Hook, const Case&);
template Verdict SameBitsInThreads::test(const Hooks<float>&, Hook, const Case&);
template Verdict SameBitsInThreads::test(const Hooks<double>&, Hook, const Case&);
template Verdict ShiftedPositions::test(const Hooks<float>&, Hook, const Case&);
template Verdict ShiftedPositions::test(const Hooks<double>&, Hook, const Case&);
template Verdict StorageIsRounded::test(const Hooks<Eigen::half>&, const Hooks<float>&, Hook, const Case&);
template Verdict StorageIsRounded::test(const Hooks<Eigen::bfloat16>&, const Hooks<float>&, Hook, const Case&);

}  // namespace laws
