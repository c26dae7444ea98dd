// SPDX-License-Identifier: MIT
#pragma once

// The laws that every positional encoding obeys, run on one:
//
//   TEST_CASE("my encoding obeys the laws") {
//     laws::obeys<float, double>(laws::Subject(MyEncoding(), {.num_features = 8}));
//   }
//
// Which laws it is held to follows from its hooks and from the flags that it states (concepts.hpp). The first of the
// scalars is the one that all laws are tried with. battery_rejects_test.cpp shows for each law a wrong encoding that
// breaks it.

#include "laws.hpp"
#include "rotation_laws.hpp"

#include <functional>
#include <string>
#include <type_traits>

#include "../catch.hpp"

namespace laws {

/// What a law says of all hooks of an encoding that act on matrices of a scalar.
template <class Law, class Scalar, class E, class... Other>
Verdict verdict(const Subject<E>& subject, const Other&... other) {
  static_assert(posenc::PositionalEncoding<E, Scalar>, "the encoding has no hook for this scalar");
  return for_all_cases(subject.limits, [&](const Case& c) {
    Verdict all;
    const auto test = [&]<Hook hook>(std::integral_constant<Hook, hook>) {
      if constexpr (acts<hook, E, Scalar>())
        if (all.holds()) {
          const Verdict one = [&] {
            if constexpr (sizeof...(Other) > 0)
              return Law::template test<hook>(subject, other..., c);
            else
              return Law::template test<hook, Scalar>(subject, c);
          }();
          if (!one.holds()) all = Verdict(std::string(name(hook)) + ": " + one.violation());
        }
    };
    test(std::integral_constant<Hook, Hook::add_to>());
    test(std::integral_constant<Hook, Hook::apply_query>());
    test(std::integral_constant<Hook, Hook::apply_key>());
    test(std::integral_constant<Hook, Hook::add_bias>());
    test(std::integral_constant<Hook, Hook::add_scores>());
    test(std::integral_constant<Hook, Hook::add_values>());
    return all;
  });
}

namespace sections {

template <class Law, class Scalar, class E, class... Other>
void law(const Subject<E>& subject, const Other&... other) {
  SECTION(Law::name) {
    const Verdict found = verdict<Law, Scalar>(subject, other...);
    INFO(found.violation());
    CHECK(found.holds());
  }
}

/// Laws of what an encoding means: tried with every scalar that is computed with.
template <class Scalar, class E>
void laws_of_meaning(const Subject<E>& subject) {
  if constexpr (posenc::is_relative<E>) law<ShiftedPositions, Scalar>(subject);
  if constexpr (posenc::preserves_norm<E>) {
    law<LengthStays, Scalar>(subject);
    law<Orthogonal, Scalar>(subject);
    if constexpr (posenc::is_relative<E>) {
      law<SumOfPositions, Scalar>(subject);
      law<RelativeProduct, Scalar>(subject);
    }
  }
}

template <class Scalar, class E>
void laws_of_another_scalar(const Subject<E>& subject) {
  if constexpr (std::is_same_v<Scalar, double>) {
    SECTION("double") {
      law<FloatIsDouble, float>(subject, subject.encoding);
      laws_of_meaning<double>(subject);
    }
  } else {
    SECTION(std::is_same_v<Scalar, Eigen::half> ? "half" : "bfloat16") { law<StorageIsRounded, Scalar>(subject); }
  }
}

}  // namespace sections

/// One law. To Catch2 two sections of the same name at the same line are one, which it enters once: so call it once a
/// test case with the same law.
template <class Law, class Scalar, class E, class... Other>
void require(const Subject<E>& subject, const Other&... other) {
  sections::law<Law, Scalar>(subject, other...);
}

/// A law that is a function of a case.
inline void require(const char* name, const Limits& limits, const std::function<Verdict(const Case&)>& law) {
  SECTION(name) {
    const Verdict found = for_all_cases(limits, law);
    INFO(found.violation());
    CHECK(found.holds());
  }
}

/// All laws, with matrices of the first scalar; of the others float and double are to agree, and half and bfloat16 to be
/// float, rounded.
template <class Scalar, class... Others, class E>
void obeys(const Subject<E>& subject, int line = __builtin_LINE()) {
  using namespace sections;
  DYNAMIC_SECTION("line " << line) {
    law<EmptyIsLegal, Scalar>(subject);
    law<OneTokenAlone, Scalar>(subject);
    law<OddTails, Scalar>(subject);
    law<ChunkedIsWhole, Scalar>(subject);
    law<PermutedPositions, Scalar>(subject);
    law<EveryView, Scalar>(subject);
    law<UntouchedFeatures, Scalar>(subject);
    law<NoAllocation, Scalar>(subject);
    law<ThrowsBeforeItWrites, Scalar>(subject);
    law<SameBitsInThreads, Scalar>(subject);
    laws_of_meaning<Scalar>(subject);
    (laws_of_another_scalar<Others>(subject), ...);
  }
}

}  // namespace laws
