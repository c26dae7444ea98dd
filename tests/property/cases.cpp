// SPDX-License-Identifier: MIT

#include "cases.hpp"

#include <rapidcheck.h>
#include <rapidcheck/detail/TestListenerAdapter.h>

#include <algorithm>
#include <sstream>
#include <unordered_map>

#include "../instrumented.hpp"

namespace laws {
namespace {

using Position = std::int64_t;

constexpr int num_cases = is_instrumented ? 10 : 100;
constexpr std::uint64_t seed = 1;

/// Drawn from its whole range, however small the case is.
template <class T>
T any(const rc::Gen<T>& generator) {
  return *rc::gen::resize(rc::kNominalSize, generator);
}

/// A place to be tried around: small, or where a float, an int32 or a product of floats gives up.
Position any_center(const Limits& limits) {
  const Position center =
      any(rc::gen::oneOf(rc::gen::inRange<Position>(-100, 100),
                         rc::gen::element<Position>(4096, 1'000'000, 1'000'000'000, -1'000'000'000, (1LL << 24) + 1,
                                                    (1LL << 31) - 1, limits.first_position, limits.last_position)));
  return std::clamp(center, limits.first_position, limits.last_position);
}

std::vector<Position> any_positions(const Limits& limits, Position center) {
  const int size = *rc::gen::inRange(0, limits.max_tokens + 1);
  const bool contiguous = any(rc::gen::arbitrary<bool>());
  const Position first = std::max(std::min(center, limits.last_position - size + 1), limits.first_position);

  std::vector<Position> positions;
  for (int t = 0; t < size; ++t)
    positions.push_back(
        contiguous ? first + t
                   : std::clamp(center + any(rc::gen::inRange(-9, 10)), limits.first_position, limits.last_position));
  return positions;
}

Case any_case(const Limits& limits) {
  Case c;
  const Position center = any_center(limits);
  c.key_positions = any_positions(limits, center);
  c.query_positions =
      any_positions(limits, limits.queries_near_keys || any(rc::gen::arbitrary<bool>()) ? center : any_center(limits));

  Position lowest = limits.last_position, highest = limits.first_position;
  for (const auto* positions : {&c.key_positions, &c.query_positions})
    for (const Position p : *positions) {
      lowest = std::min(lowest, p);
      highest = std::max(highest, p);
    }
  if (lowest <= highest) {
    const Position shift = any(rc::gen::element<Position>(1, -1, 1000, 1'000'000, -1'000'000, 1'000'000'000,
                                                          limits.first_position, limits.last_position));
    c.shift = std::clamp(shift, limits.first_position - lowest, limits.last_position - highest);
  }
  c.head = any(rc::gen::inRange(0, limits.num_heads));
  c.seed = any(rc::gen::arbitrary<std::uint64_t>());
  return c;
}

/// Keeps rapidcheck from printing.
class Silent : public rc::detail::TestListenerAdapter {};

}  // namespace

std::string to_string(const Case& c) {
  std::ostringstream text;
  text << "keys at";
  for (const Position p : c.key_positions) text << ' ' << p;
  text << "; queries at";
  for (const Position p : c.query_positions) text << ' ' << p;
  text << "; shift " << c.shift << "; head " << c.head << "; seed " << c.seed;
  return text.str();
}

Verdict for_all_cases(const Limits& limits, const std::function<Verdict(const Case&)>& law) {
  std::string smallest;  // the last case that fails is the one that could not be made smaller
  const auto holds = [&] {
    const Case c = any_case(limits);
    const Verdict verdict = law(c);
    if (!verdict.holds()) smallest = verdict.violation() + "\n  " + to_string(c);
    RC_ASSERT(verdict.holds());
  };
  // With parameters and a listener of its own, nothing is read from the environment: a run is the same everywhere.
  rc::detail::TestParams params;
  params.seed = seed;
  params.maxSuccess = num_cases;
  Silent listener;
  const std::unordered_map<std::string, rc::detail::Reproduce> nothing_to_reproduce;
  const auto result =
      rc::detail::checkTestable(holds, rc::detail::TestMetadata(), params, listener, nothing_to_reproduce);
  if (result.is<rc::detail::SuccessResult>()) return {};
  if (!smallest.empty()) return Verdict(smallest);
  std::ostringstream text;  // an exception of the test itself
  rc::detail::printResultMessage(result, text);
  return Verdict(text.str());
}

}  // namespace laws
