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

namespace sections {

/// A section in which a law must hold.
void law(const char* name, const std::function<Verdict()>& verdict);

}  // namespace sections

/// What a law says of all hooks of an encoding. The first ones are those that are tried; with others they are compared.
template <class Law, class First, class... Other>
Verdict verdict_of(const First& hooks, const Other&... other) {
  return for_all_cases(hooks.about.limits, [&](const Case& c) {
    for (const Hook hook :
         {Hook::add_to, Hook::apply_query, Hook::apply_key, Hook::add_bias, Hook::add_scores, Hook::add_values}) {
      if (!hooks.has(hook)) continue;
      const Verdict one = Law::test(hooks, other..., hook, c);
      if (!one.holds()) return Verdict(std::string(name(hook)) + ": " + one.violation());
    }
    return Verdict();
  });
}

template <class Law, class Scalar, class E>
Verdict verdict(const Subject<E>& subject) {
  if constexpr (std::is_same_v<Law, StorageIsRounded>)
    return verdict_of<Law>(HooksOf<E, Scalar>(subject), HooksOf<E, float>(subject));
  else if constexpr (std::is_same_v<Law, EveryView> || std::is_same_v<Law, NoAllocation>)
    return verdict_of<Law>(HooksOfViewsOf<E, Scalar>(subject));
  else
    return verdict_of<Law>(HooksOf<E, Scalar>(subject));
}

/// FloatIsDouble, with the object that is computed with in double.
template <class Law, class Scalar, class E, class F>
Verdict verdict(const Subject<E>& subject, const F& of_double) {
  return verdict_of<Law>(HooksOf<E, Scalar>(subject), HooksOf<F, double>(subject, of_double));
}

/// A law that is a function of a case.
void require(const char* name, const Limits& limits, const std::function<Verdict(const Case&)>& law);

/// One law. To Catch2 two sections of the same name at the same line are one, which it enters once: so call it once a
/// test case with the same law.
template <class Law, class Scalar, class E, class... Other>
void require(const Subject<E>& subject, const Other&... other) {
  sections::law(Law::name, [&] { return verdict<Law, Scalar>(subject, other...); });
}

namespace sections {

// Compiled once (battery.cpp), as a section a law.

/// All laws of one scalar. Views are walked in the same way whatever they hold, and take long to compile: float only.
void every_law(const HooksOfViews<float>& hooks);
void every_law(const Hooks<double>& hooks);

/// Laws of what an encoding means, and how a scalar agrees with the first.
void laws_of_another_scalar(const Hooks<double>& hooks, const Hooks<float>& of_float);
void laws_of_another_scalar(const Hooks<Eigen::half>& hooks, const Hooks<float>& of_float);
void laws_of_another_scalar(const Hooks<Eigen::bfloat16>& hooks, const Hooks<float>& of_float);

}  // namespace sections

/// All laws, with matrices of the first scalar; of the others float and double are to agree, and half and bfloat16 to be
/// float, rounded.
template <class Scalar, class... Others, class E>
void obeys(const Subject<E>& subject, int line = __builtin_LINE()) {
  DYNAMIC_SECTION("line " << line) {
    const std::conditional_t<std::is_same_v<Scalar, float>, HooksOfViewsOf<E, Scalar>, HooksOf<E, Scalar>> hooks(
        subject);
    sections::every_law(hooks);
    (sections::laws_of_another_scalar(HooksOf<E, Others>(subject), hooks), ...);
  }
}

}  // namespace laws
