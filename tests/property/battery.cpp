// SPDX-License-Identifier: MIT

#include "battery.hpp"

namespace laws {

void require(const char* name, const Limits& limits, const std::function<Verdict(const Case&)>& law) {
  sections::law(name, [&] { return for_all_cases(limits, law); });
}

namespace sections {
namespace {

template <class Law, class First, class... Other>
void one_law(const First& hooks, const Other&... other) {
  law(Law::name, [&] { return verdict_of<Law>(hooks, other...); });
}

/// Tried with every scalar that is computed with.
template <class Scalar>
void laws_of_meaning(const Hooks<Scalar>& hooks) {
  if (hooks.is_relative) one_law<ShiftedPositions>(hooks);
  if (hooks.preserves_norm) {
    one_law<LengthStays>(hooks);
    one_law<Orthogonal>(hooks);
    if (hooks.is_relative) {
      one_law<SumOfPositions>(hooks);
      one_law<RelativeProduct>(hooks);
    }
  }
}

template <class Scalar>
void all_laws(const Hooks<Scalar>& hooks) {
  one_law<EmptyIsLegal>(hooks);
  one_law<OneTokenAlone>(hooks);
  one_law<OddTails>(hooks);
  one_law<ChunkedIsWhole>(hooks);
  one_law<PermutedPositions>(hooks);
  one_law<UntouchedFeatures>(hooks);
  one_law<NoAllocation>(hooks);
  one_law<ThrowsBeforeItWrites>(hooks);
  one_law<SameBitsInThreads>(hooks);
  laws_of_meaning(hooks);
}

}  // namespace

void law(const char* name, const std::function<Verdict()>& verdict) {
  SECTION(name) {
    const Verdict found = verdict();
    INFO(found.violation());
    CHECK(found.holds());
  }
}

void every_law(const HooksOfViews<float>& hooks) {
  all_laws<float>(hooks);
  one_law<EveryView>(hooks);
}
void every_law(const Hooks<double>& hooks) { all_laws(hooks); }

void laws_of_another_scalar(const Hooks<double>& hooks, const Hooks<float>& of_float) {
  SECTION("double") {
    one_law<FloatIsDouble>(of_float, hooks);
    laws_of_meaning(hooks);
  }
}
void laws_of_another_scalar(const Hooks<Eigen::half>& hooks, const Hooks<float>& of_float) {
  SECTION("half") { one_law<StorageIsRounded>(hooks, of_float); }
}
void laws_of_another_scalar(const Hooks<Eigen::bfloat16>& hooks, const Hooks<float>& of_float) {
  SECTION("bfloat16") { one_law<StorageIsRounded>(hooks, of_float); }
}

}  // namespace sections
}  // namespace laws
