// SPDX-License-Identifier: MIT

// The test of the tests: for each law an encoding with one deliberate mistake, which must break it. The same encodings
// without a mistake obey all laws, so it is the mistake that is found.

#include "attention_laws.hpp"
#include "battery.hpp"

#include <posenc/concepts.hpp>
#include <posenc/detail/scalar.hpp>
#include <posenc/positions.hpp>

#include <Eigen/Core>
#include <algorithm>
#include <atomic>
#include <cmath>
#include <complex>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace {

using laws::Case;
using laws::Verdict;
using posenc::Index;
using posenc::MutableDense;
using posenc::Positions;
using posenc::detail::add;

enum class Mistake {
  none,
  // of the formula
  wrong_sign_for_keys,
  longer_vectors,
  not_orthogonal,
  zero_is_one,
  float_angles,
  by_column,
  by_distance_from_first,
  // of the numbers
  loses_digits,
  computes_in_storage,
  gives_nan,
  // of the walk over the matrix
  needs_a_token,
  leaves_out_the_tail,
  ignores_strides,
  ignores_storage_order,
  reads_beside,
  writes_beside,
  reads_the_others,
  writes_the_others,
  // of manners
  allocates,
  allocates_in_eigen,
  writes_before_it_throws,
  accepts_any_shape,
  accepts_any_position,
  accepts_any_head,
  throws_another_error,
  remembers,
};

template <Mistake mistake, class X>
void check_shape(const X& x, Index rows, Index cols) {
  if (mistake == Mistake::accepts_any_shape || (x.rows() == rows && x.cols() == cols)) return;
  if (mistake == Mistake::throws_another_error) throw std::runtime_error("shape");
  throw std::invalid_argument("shape");
}

/// Mistakes that have nothing to do with what is computed: made first by every hook below.
template <Mistake mistake, class X>
void begin(X& x, const Positions& positions) {
  using Scalar = typename X::Scalar;
  [[maybe_unused]] const bool has_gap = x.size() > 0 && x.outerStride() > x.innerSize();
  if constexpr (mistake == Mistake::needs_a_token)
    if (positions.size() == 0) throw std::invalid_argument("there must be a token");
  if constexpr (mistake == Mistake::writes_before_it_throws)
    if (x.size() > 0) x.coeffRef(0, 0) += Scalar(1);
  if constexpr (mistake == Mistake::writes_beside)
    if (has_gap) (&x.coeffRef(0, 0))[x.innerSize()] = Scalar(1);
  if constexpr (mistake == Mistake::reads_beside)
    if (has_gap) x.coeffRef(0, 0) += (&x.coeffRef(0, 0))[x.innerSize()] * Scalar(0);
  if constexpr (mistake == Mistake::gives_nan)
    if (x.size() > 0) x.coeffRef(0, 0) = std::numeric_limits<Scalar>::quiet_NaN();
  if constexpr (mistake == Mistake::allocates) {
    const std::vector<double> scratch(static_cast<std::size_t>(x.size() + 1));
    [[maybe_unused]] const volatile double used = scratch.back();
  }
  if constexpr (mistake == Mistake::allocates_in_eigen) {
    const Eigen::VectorXd scratch = Eigen::VectorXd::Zero(x.size() + 1);
    [[maybe_unused]] const volatile double used = scratch[0];
  }
}

/// Where column (or row) t is.
template <Mistake mistake>
std::int64_t position_of(const Positions& positions, Index t) {
  if (mistake == Mistake::by_column) return t;
  if (mistake == Mistake::by_distance_from_first) return positions[0] + t;
  if (mistake == Mistake::zero_is_one && positions[t] == 0) return 1;
  return positions[t];
}

/// How many of n columns are written.
template <Mistake mistake>
Index columns(Index n) {
  return mistake == Mistake::leaves_out_the_tail ? n / 4 * 4 : n;
}

/// About 0.3 and 0.07 radians a position, in so few bits that a product with a position is exact in long double.
constexpr long double frequencies[] = {19661 / 65536.0L, 4587 / 65536.0L};

/// Turns two pairs of 6 features, at positions up to 2^40.
template <Mistake mistake, bool half_split = false>
class Rotation {
 public:
  static constexpr bool is_relative = true;
  static constexpr bool preserves_norm = true;

  template <MutableDense X>
  void apply_query(X&& x, const Positions& positions, Index = 0) const {
    turn(x, positions, 1);
  }
  template <MutableDense X>
  void apply_key(X&& x, const Positions& positions, Index = 0) const {
    turn(x, positions, mistake == Mistake::wrong_sign_for_keys ? -1 : 1);
  }
  template <MutableDense X>
  void operator()(X&& x, const Positions& positions) const {
    turn(x, positions, 1);
  }
  template <MutableDense X>
  void apply_inverse(X&& x, const Positions& positions) const {
    turn(x, positions, mistake == Mistake::wrong_sign_for_keys ? 1 : -1);
  }

 private:
  template <class X>
  void turn(X& x, const Positions& positions, double sign) const {
    using Scalar = typename X::Scalar;
    using Real = posenc::detail::compute_t<Scalar>;
    begin<mistake>(x, positions);
    check_shape<mistake>(x, 6, positions.size());
    for (Index t = 0; t < positions.size(); ++t)
      if (mistake != Mistake::accepts_any_position && std::abs(positions[t]) > std::int64_t{1} << 40)
        throw std::out_of_range("position");

    const int offset = mistake == Mistake::remembers ? calls_++ % 2 : 0;  // every second call is off by a position
    for (Index t = 0; t < columns<mistake>(std::min(positions.size(), x.cols())); ++t)
      for (Index pair = 0; pair < 2; ++pair) {
        auto p = static_cast<double>(position_of<mistake>(positions, t));
        p += offset;
        const long double w = frequencies[pair];
        const long double angle =
            mistake == Mistake::float_angles ? static_cast<float>(p) * static_cast<float>(w) : p * w;
        auto cos = static_cast<Real>(std::cos(sign * angle)), sin = static_cast<Real>(std::sin(sign * angle));
        if (mistake == Mistake::longer_vectors) cos *= Real(1.001), sin *= Real(1.001);
        if (mistake == Mistake::not_orthogonal) sin *= Real(0.999);
        if (mistake == Mistake::loses_digits) cos += std::is_same_v<Real, float> ? Real(1e-5) : Real(0);
        if (mistake == Mistake::computes_in_storage) cos = Real(Scalar(cos)), sin = Real(Scalar(sin));

        Scalar& x0 = entry(x, half_split ? pair : 2 * pair, t);
        Scalar& x1 = entry(x, half_split ? pair + 2 : 2 * pair + 1, t);
        const auto a = static_cast<Real>(x0), b = static_cast<Real>(x1);
        x0 = static_cast<Scalar>(a * cos - b * sin);
        x1 = static_cast<Scalar>(b * cos + a * sin);
        if (mistake == Mistake::reads_the_others) x0 += entry(x, 5, t) * Scalar(0);
        if (mistake == Mistake::writes_the_others) entry(x, 5, t) += Scalar(0);
      }
  }

  template <class X>
  static typename X::Scalar& entry(X& x, Index i, Index t) {
    if (mistake == Mistake::ignores_strides)
      return (&x.coeffRef(0, 0))[X::IsRowMajor ? i * x.cols() + t : t * x.rows() + i];
    if (mistake == Mistake::ignores_storage_order) return (&x.coeffRef(0, 0))[t * x.rows() + i];
    return x.coeffRef(i, t);
  }

  mutable std::atomic<int> calls_ = 0;
};

/// The same on three complex numbers, of which two turn.
template <Mistake mistake>
struct ComplexRotation {
  template <class X>
  void apply_query(X& z, const Positions& positions) const {
    using Real = typename X::RealScalar;
    const double sign = mistake == Mistake::wrong_sign_for_keys ? -1 : 1;
    for (Index t = 0; t < z.cols(); ++t)
      for (Index pair = 0; pair < 2; ++pair) {
        const long double angle = sign * static_cast<double>(positions[t]) * frequencies[pair];
        const auto cos = static_cast<Real>(std::cos(angle)), sin = static_cast<Real>(std::sin(angle));
        const std::complex<Real> old = z(pair, t);
        z(pair, t) = {old.real() * cos - old.imag() * sin, old.imag() * cos + old.real() * sin};
      }
  }
};

/// x(i, t) += 0.3 sin(p_t / 2 + i).
template <Mistake mistake>
struct Added {
  template <MutableDense X>
  void add_to(X&& x, const Positions& positions) const {
    using Scalar = typename std::remove_cvref_t<X>::Scalar;
    begin<mistake>(x, positions);
    check_shape<mistake>(x, 5, positions.size());
    for (Index t = 0; t < columns<mistake>(std::min(x.cols(), positions.size())); ++t)
      for (Index i = 0; i < 5; ++i) {
        const auto p = static_cast<double>(position_of<mistake>(positions, t));
        double value = 0.3 * std::sin(p / 2 + static_cast<double>(i));
        if (mistake == Mistake::loses_digits && std::is_same_v<Scalar, float>) value *= 1.00001;
        if (mistake == Mistake::computes_in_storage) value = static_cast<float>(Scalar(static_cast<float>(value)));
        add(x.coeffRef(i, t), value);
      }
  }
};

/// -|n - m| / 4 on the scores of two heads.
template <Mistake mistake>
struct Bias {
  static constexpr bool is_relative = true;

  template <MutableDense Scores>
  void add_bias(Scores&& scores, const Positions& keys, const Positions& queries, Index head = 0) const {
    begin<mistake>(scores, queries);
    if (mistake != Mistake::accepts_any_head && (head < 0 || head >= 2)) throw std::out_of_range("head");
    check_shape<mistake>(scores, keys.size(), queries.size());
    for (Index query = 0; query < columns<mistake>(std::min(queries.size(), scores.cols())); ++query)
      for (Index key = 0; key < std::min(keys.size(), scores.rows()); ++key) {
        const auto n = static_cast<double>(position_of<mistake>(keys, key));
        const auto m = static_cast<double>(position_of<mistake>(queries, query));
        const bool in_float = mistake == Mistake::float_angles;
        add(scores.coeffRef(key, query), in_float
                                             ? -std::abs(0.3f * static_cast<float>(n) - 0.3f * static_cast<float>(m))
                                             : -0.25 * std::abs(n - m));
      }
  }
};

/// A vector of 5 features for each distance up to 2, for scores and for values.
template <Mistake mistake>
struct Relative {
  static constexpr bool is_relative = true;

  template <MutableDense Scores, class Keys, class Queries>
  void add_scores(Scores&& scores, const Keys&, const Queries& q, const Positions& keys, const Positions& queries,
                  Index = 0) const {
    begin<mistake>(scores, queries);
    check_shape<mistake>(scores, keys.size(), queries.size());
    check_shape<mistake>(q, 5, queries.size());
    for (Index query = 0; query < columns<mistake>(std::min(queries.size(), q.cols())); ++query)
      for (Index key = 0; key < keys.size(); ++key) {
        double term = 0;
        for (Index i = 0; i < 5; ++i)
          term += vector(i, keys, key, queries, query) * static_cast<double>(entry(q, i, query));
        add(scores.coeffRef(key, query), term);
      }
  }

  template <MutableDense Outputs, class Weights>
  void add_values(Outputs&& outputs, const Weights& weights, const Positions& keys, const Positions& queries,
                  Index = 0) const {
    begin<mistake>(outputs, queries);
    check_shape<mistake>(outputs, 5, queries.size());
    check_shape<mistake>(weights, keys.size(), queries.size());
    for (Index query = 0; query < columns<mistake>(queries.size()); ++query)
      for (Index i = 0; i < 5; ++i) {
        double sum = 0;
        for (Index key = 0; key < std::min(keys.size(), weights.rows()); ++key)
          sum += vector(i, keys, key, queries, query) * static_cast<double>(entry(weights, key, query));
        add(outputs.coeffRef(i, query), sum);
      }
  }

 private:
  static double vector(Index i, const Positions& keys, Index key, const Positions& queries, Index query) {
    const std::int64_t n = position_of<mistake>(keys, key), m = position_of<mistake>(queries, query);
    return std::sin(static_cast<double>(7 * std::clamp<std::int64_t>(n - m, -2, 2) + i));
  }

  template <class M>
  static auto entry(const M& matrix, Index i, Index j) {
    return mistake == Mistake::ignores_storage_order ? matrix.data()[j * matrix.rows() + i] : matrix.coeff(i, j);
  }
};

template <Mistake mistake, bool half_split = false>
const laws::Subject<Rotation<mistake, half_split>> rotation({.num_features = 6,
                                                             .untouched = {4, 5},
                                                             .refused = {std::int64_t{1} << 41}});
template <Mistake mistake>
const laws::Subject<Added<mistake>> added({.num_features = 5});
template <Mistake mistake>
const laws::Subject<Bias<mistake>> bias({.limits = {.num_heads = 2}, .refused_heads = {-1, 2}});
template <Mistake mistake>
const laws::Subject<Relative<mistake>> relative({.num_features = 5});

/// A law must not hold, and a case must have shown it: not an error of the test itself.
void check_rejected(const char* law, const Verdict& found) {
  INFO(law << ": " << found.violation());
  CHECK_FALSE(found.holds());
  CHECK(found.violation().find("; seed ") != std::string::npos);
}

template <class Law, class Scalar = float, class Subject>
void rejects(const Subject& subject) {
  check_rejected(Law::name, laws::verdict<Law, Scalar>(subject));
}

}  // namespace

TEST_CASE("The encodings without a mistake obey every law", "[battery]") {
  SECTION("rotation") { laws::obeys<float, double, Eigen::half, Eigen::bfloat16>(rotation<Mistake::none>); }
  SECTION("added") { laws::obeys<float, double, Eigen::half, Eigen::bfloat16>(added<Mistake::none>); }
  SECTION("bias") { laws::obeys<float, double>(bias<Mistake::none>); }
  SECTION("relative") { laws::obeys<float, double>(relative<Mistake::none>); }
}

TEST_CASE("Rejected: what depends on where the text begins", "[battery]") {
  rejects<laws::ShiftedPositions>(rotation<Mistake::wrong_sign_for_keys>);
  rejects<laws::ShiftedPositions>(rotation<Mistake::zero_is_one>);
  rejects<laws::ShiftedPositions>(rotation<Mistake::float_angles>);
  rejects<laws::ShiftedPositions, double>(rotation<Mistake::float_angles>);
  rejects<laws::ShiftedPositions>(bias<Mistake::zero_is_one>);
  rejects<laws::ShiftedPositions>(bias<Mistake::float_angles>);
  rejects<laws::ShiftedPositions>(relative<Mistake::zero_is_one>);
}

TEST_CASE("Rejected: what is no rotation", "[battery]") {
  rejects<laws::LengthStays>(rotation<Mistake::longer_vectors>);
  rejects<laws::LengthStays, double>(rotation<Mistake::not_orthogonal>);
  rejects<laws::Orthogonal>(rotation<Mistake::not_orthogonal>);
  rejects<laws::Orthogonal, double>(rotation<Mistake::longer_vectors>);
  rejects<laws::SumOfPositions>(rotation<Mistake::float_angles>);
  rejects<laws::SumOfPositions>(rotation<Mistake::not_orthogonal>);
  rejects<laws::RelativeProduct>(rotation<Mistake::wrong_sign_for_keys>);
  rejects<laws::RelativeProduct>(rotation<Mistake::zero_is_one>);
}

TEST_CASE("Rejected: forms that are not the same rotation", "[battery]") {
  const auto& right = rotation<Mistake::none>;
  const auto all_cases = [&](const auto& law) { return laws::for_all_cases(right.limits, law); };

  const auto inverse = [](const auto& subject) {
    return [&](const Case& c) { return laws::inverse_undoes<float>(subject, c); };
  };
  CHECK(all_cases(inverse(right)).holds());
  check_rejected("inverse", all_cases(inverse(rotation<Mistake::wrong_sign_for_keys>)));

  const auto complex = [&](const auto& encoding) {
    return [&](const Case& c) { return laws::complex_is_interleaved<float>(right, encoding, c); };
  };
  CHECK(all_cases(complex(ComplexRotation<Mistake::none>())).holds());
  check_rejected("complex", all_cases(complex(ComplexRotation<Mistake::wrong_sign_for_keys>())));

  const auto half_split = [&](const auto& encoding) {
    return [&](const Case& c) { return laws::interleaved_is_half_split<float>(right, encoding, 6, 4, c); };
  };
  CHECK(all_cases(half_split(rotation<Mistake::none, true>.encoding)).holds());
  check_rejected("half-split", all_cases(half_split(rotation<Mistake::none, false>.encoding)));
}

TEST_CASE("Rejected: what goes by the number of a column", "[battery]") {
  rejects<laws::ChunkedIsWhole>(rotation<Mistake::by_column>);
  rejects<laws::ChunkedIsWhole>(added<Mistake::by_distance_from_first>);
  rejects<laws::ChunkedIsWhole>(bias<Mistake::by_column>);
  rejects<laws::ChunkedIsWhole>(relative<Mistake::by_column>);
  rejects<laws::OneTokenAlone>(rotation<Mistake::by_distance_from_first>);
  rejects<laws::OneTokenAlone>(added<Mistake::by_column>);
  rejects<laws::OneTokenAlone>(bias<Mistake::by_column>);
  rejects<laws::OneTokenAlone>(relative<Mistake::by_column>);
  rejects<laws::PermutedPositions>(rotation<Mistake::by_column>);
  rejects<laws::PermutedPositions>(added<Mistake::by_column>);
  rejects<laws::PermutedPositions>(bias<Mistake::by_distance_from_first>);
  rejects<laws::PermutedPositions>(relative<Mistake::by_distance_from_first>);
}

TEST_CASE("Rejected: lengths that are left out", "[battery]") {
  rejects<laws::OddTails>(rotation<Mistake::leaves_out_the_tail>);
  rejects<laws::OddTails>(added<Mistake::leaves_out_the_tail>);
  rejects<laws::OddTails>(bias<Mistake::leaves_out_the_tail>);
  rejects<laws::OddTails>(relative<Mistake::leaves_out_the_tail>);
  rejects<laws::EmptyIsLegal>(rotation<Mistake::needs_a_token>);
  rejects<laws::EmptyIsLegal>(added<Mistake::needs_a_token>);
  rejects<laws::EmptyIsLegal>(bias<Mistake::needs_a_token>);
  rejects<laws::EmptyIsLegal>(relative<Mistake::needs_a_token>);
}

TEST_CASE("Rejected: what takes every matrix for a plain one", "[battery]") {
  rejects<laws::EveryView>(rotation<Mistake::ignores_strides>);
  rejects<laws::EveryView>(rotation<Mistake::ignores_storage_order>);
  rejects<laws::EveryView>(relative<Mistake::ignores_storage_order>);
  rejects<laws::EveryView>(rotation<Mistake::reads_beside>);
  rejects<laws::EveryView>(added<Mistake::reads_beside>);
  rejects<laws::EveryView>(rotation<Mistake::writes_beside>);
  rejects<laws::EveryView>(bias<Mistake::writes_beside>);
  rejects<laws::EveryView>(relative<Mistake::writes_beside>);
}

TEST_CASE("Rejected: what does not leave other features alone", "[battery]") {
  rejects<laws::UntouchedFeatures>(rotation<Mistake::writes_the_others>);
  rejects<laws::UntouchedFeatures>(rotation<Mistake::reads_the_others>);
}

TEST_CASE("Rejected: what allocates", "[battery]") {
  rejects<laws::NoAllocation>(rotation<Mistake::allocates>);
  rejects<laws::NoAllocation>(rotation<Mistake::allocates_in_eigen>);
  rejects<laws::NoAllocation>(bias<Mistake::allocates>);
  rejects<laws::NoAllocation>(relative<Mistake::allocates_in_eigen>);
}

TEST_CASE("Rejected: what does not refuse, or not in time", "[battery]") {
  rejects<laws::ThrowsBeforeItWrites>(rotation<Mistake::writes_before_it_throws>);
  rejects<laws::ThrowsBeforeItWrites>(rotation<Mistake::accepts_any_shape>);
  rejects<laws::ThrowsBeforeItWrites>(rotation<Mistake::accepts_any_position>);
  rejects<laws::ThrowsBeforeItWrites>(rotation<Mistake::throws_another_error>);
  rejects<laws::ThrowsBeforeItWrites>(added<Mistake::writes_before_it_throws>);
  rejects<laws::ThrowsBeforeItWrites>(bias<Mistake::accepts_any_head>);
  rejects<laws::ThrowsBeforeItWrites>(bias<Mistake::accepts_any_shape>);
  rejects<laws::ThrowsBeforeItWrites>(relative<Mistake::accepts_any_shape>);
  rejects<laws::ThrowsBeforeItWrites>(relative<Mistake::writes_before_it_throws>);
}

TEST_CASE("Rejected: what remembers", "[battery]") { rejects<laws::SameBitsInThreads>(rotation<Mistake::remembers>); }

TEST_CASE("Rejected: what is less exact than its scalar", "[battery]") {
  const auto float_is_double = [](const auto& subject) {
    check_rejected(laws::FloatIsDouble::name, laws::verdict<laws::FloatIsDouble, float>(subject, subject.encoding));
  };
  float_is_double(rotation<Mistake::loses_digits>);
  float_is_double(added<Mistake::loses_digits>);
  rejects<laws::StorageIsRounded, Eigen::half>(rotation<Mistake::computes_in_storage>);
  rejects<laws::StorageIsRounded, Eigen::bfloat16>(rotation<Mistake::computes_in_storage>);
  rejects<laws::StorageIsRounded, Eigen::bfloat16>(added<Mistake::computes_in_storage>);
}

TEST_CASE("Rejected: packs with a mistake in attention", "[battery]") {
  const auto rejected = [](const char* name, const auto& law, const auto& encoding) {
    const laws::Pack pack(encoding);
    const laws::PackSubject<laws::Pack<std::remove_cvref_t<decltype(encoding)>>> subject{.pack = pack};
    check_rejected(name, laws::for_all_cases(subject.limits, [&](const Case& c) { return law(subject, c); }));
  };
  rejected(
      "relative", [](const auto& s, const Case& c) { return laws::attention_is_relative<double>(s, c); },
      Bias<Mistake::zero_is_one>());
  rejected(
      "order of keys", [](const auto& s, const Case& c) { return laws::order_of_keys_does_not_matter<double>(s, c); },
      Bias<Mistake::by_column>());
  rejected(
      "one query", [](const auto& s, const Case& c) { return laws::one_query_at_a_time<double>(s, c); },
      Bias<Mistake::leaves_out_the_tail>());
  rejected(
      "distributions", [](const auto& s, const Case& c) { return laws::weights_are_distributions<float>(s, c); },
      Bias<Mistake::gives_nan>());
}
