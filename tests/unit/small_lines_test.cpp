// SPDX-License-Identifier: MIT
// Half and bfloat16 in packets: what is read, rounded and added along memory is what Eigen makes of one number.

#include <posenc/detail/lines.hpp>

#include <Eigen/Core>
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <vector>

#include "../catch.hpp"

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wignored-attributes"  // of the vector type as a template argument, and harmless
#endif

using Eigen::Index;
using namespace posenc::detail;

namespace {

template <class Scalar>
std::uint16_t bits_of(Scalar x) {
  return std::bit_cast<std::uint16_t>(x);
}
template <class Scalar>
Scalar from_bits(std::uint32_t bits) {
  return std::bit_cast<Scalar>(static_cast<std::uint16_t>(bits));
}

/// Bit for bit, but any NaN for a NaN.
template <class Scalar>
bool same(Scalar a, Scalar b) {
  const auto x = static_cast<float>(a), y = static_cast<float>(b);
  return std::isnan(x) ? std::isnan(y) : bits_of(a) == bits_of(b);
}

/// Calls action(type) for the packets that numbers are computed in, from the widest on.
template <class Scalar, class Packet = working_packet_t<Scalar, float>, class Action>
void for_each_packet(Action action) {
  if constexpr (PacketMemory<Scalar, Packet>::available) action(std::type_identity<Packet>());
  using Half = half_packet_t<Packet>;
  if constexpr (size_of<Half> < size_of<Packet>) for_each_packet<Scalar, Half>(action);
}

/// Every sign, exponent and leading digits, with what is below: nothing, almost half, half, and a little more than half
/// of a unit of either scalar, and all ones. No signalling NaN, of which any arithmetic makes a quiet one.
std::vector<float> sample() {
  constexpr std::array<std::uint32_t, 14> below{0,      1,      0x0fff, 0x1000, 0x1001, 0x1fff, 0x2fff,
                                                0x3000, 0x3001, 0x7fff, 0x8000, 0x8001, 0xf000, 0xffff};
  std::vector<float> numbers;
  for (std::uint32_t upper = 0; upper < 0x10000; ++upper)
    for (const std::uint32_t lower : below)
      if (const float x = std::bit_cast<float>(upper << 16 | lower); !std::isnan(x) || (upper & 0x40) != 0)
        numbers.push_back(x);
  numbers.resize((numbers.size() + 63) / 64 * 64);  // whole packets
  return numbers;
}

/// Numbers that small scalars have, in some order, and exact when they are halved.
template <class Scalar>
std::vector<Scalar> numbers(Index n, std::uint32_t seed) {
  std::vector<Scalar> all;
  for (Index i = 0; i < n; ++i) {
    seed = seed * 1664525 + 1013904223;
    all.push_back(static_cast<Scalar>(static_cast<float>(static_cast<std::int32_t>(seed)) * 0x1p-28F));
  }
  return all;
}

constexpr Index max_length = 150, room = 256;  // some packets of each size, and all remainders

}  // namespace

TEMPLATE_TEST_CASE("packets of small scalars come back as they were", "[small_lines]", Eigen::half, Eigen::bfloat16) {
  for_each_packet<TestType>([]<class Packet>(std::type_identity<Packet>) {
    using Memory = PacketMemory<TestType, Packet>;
    constexpr auto size = static_cast<std::size_t>(size_of<Packet>);
    Index different = 0;
    for (std::uint32_t first = 0; first < 0x10000; first += size) {
      std::array<TestType, size> from, to;
      for (std::size_t i = 0; i < size; ++i) from[i] = from_bits<TestType>(first + static_cast<std::uint32_t>(i));
      Memory::store(to.data(), Memory::load(from.data()));
      for (std::size_t i = 0; i < size; ++i) different += same(from[i], to[i]) ? 0 : 1;
    }
    INFO("packets of " << size);
    CHECK(different == 0);
  });
}

TEMPLATE_TEST_CASE("packets round as Eigen rounds one number", "[small_lines]", Eigen::half, Eigen::bfloat16) {
  const std::vector<float> from = sample();
  for_each_packet<TestType>([&]<class Packet>(std::type_identity<Packet>) {
    constexpr auto size = static_cast<std::size_t>(size_of<Packet>);
    Index different = 0;
    for (std::size_t first = 0; first < from.size(); first += size) {
      std::array<TestType, size> to;
      PacketMemory<TestType, Packet>::store(to.data(), PacketMemory<float, Packet>::load(&from[first]));
      for (std::size_t i = 0; i < size; ++i) different += same(static_cast<TestType>(from[first + i]), to[i]) ? 0 : 1;
    }
    INFO("packets of " << size);
    CHECK(different == 0);
  });
}

TEMPLATE_TEST_CASE("what is added to a small scalar is added to its value", "[small_lines]", Eigen::half,
                   Eigen::bfloat16) {
  constexpr Index n = room;
  for (std::uint32_t first = 0; first < 0x10000; first += n) {
    std::array<TestType, n> x;
    std::array<float, n> opposite;
    Addends<TestType, n> opposites;
    for (Index i = 0; i < n; ++i) {
      x[i] = from_bits<TestType>(first + static_cast<std::uint32_t>(i));
      opposite[i] = -static_cast<float>(x[i]);
      opposites.set(i, opposite[i]);
    }
    std::array<TestType, n> y = x;
    add_line(x.data(), opposite.data(), n);
    opposites.add_to(y.data(), 0, n);
    const auto is_sum = [&](const std::array<TestType, n>& sums, Index i) {
      const auto sum = static_cast<float>(sums[i]);
      return std::isfinite(opposite[i]) ? bits_of(sums[i]) == 0 : std::isnan(sum);
    };
    for (Index i = 0; i < n; ++i)
      if (!is_sum(x, i) || !is_sum(y, i)) FAIL("number of bits " << first + static_cast<std::uint32_t>(i));
  }
}

TEMPLATE_TEST_CASE("lines of any length are added to and rounded", "[small_lines]", float, double, Eigen::half,
                   Eigen::bfloat16) {
  using Real = compute_t<TestType>;
  const auto before = numbers<TestType>(room, 1);
  const auto added = numbers<Real>(room, 2);
  const auto small = numbers<TestType>(room, 3);
  Addends<TestType, room> addends;
  for (Index i = 0; i < room; ++i) addends.set(i, added[static_cast<std::size_t>(i)]);
  for (Index n = 0; n <= max_length; ++n)
    for (const Index first : {0, 1, 2, 5}) {
      auto a = before, b = before, c = before, d = before;
      add_line(a.data(), added.data() + first, n, Real(-0.5));
      add_line(b.data(), small.data() + first, n);
      addends.add_to(c.data(), first, n);
      round_line(added.data() + first, n, d.data());
      for (std::size_t i = 0; i < before.size(); ++i) {
        const bool within = static_cast<Index>(i) < n;
        const auto at = i + static_cast<std::size_t>(first);
        const auto sum = [&](Real more) { return within ? TestType(Real(before[i]) + more) : before[i]; };
        INFO("n = " << n << ", first = " << first << ", i = " << i);
        if (a[i] != sum(within ? Real(-0.5) * added[at] : 0)) FAIL("add_line");
        if (b[i] != sum(within ? Real(small[at]) : 0)) FAIL("add_line of the scalar itself");
        if (c[i] != sum(within ? added[at] : 0)) FAIL("Addends");
        if (d[i] != (within ? TestType(added[at]) : before[i])) FAIL("round_line");
      }
    }
}

TEMPLATE_TEST_CASE("infinity, NaN and sums that overflow along lines", "[small_lines]", Eigen::half, Eigen::bfloat16) {
  constexpr float infinity = std::numeric_limits<float>::infinity();
  const auto nan = [](std::uint32_t bits) { return std::bit_cast<float>(bits); };
  const float largest = static_cast<float>(std::numeric_limits<TestType>::max());
  const std::vector<float> added{infinity, -infinity,       nan(0x7fffffff), nan(0xffffffff), nan(0x7fc08001),
                                 largest,  nan(0x7fc00000), -largest,        -0.0F,           0};
  constexpr Index n = 70;
  for (const float start : {0.0F, -0.0F, 1.0F, infinity, -infinity, largest, std::nanf("")}) {
    std::vector<TestType> a(n, static_cast<TestType>(start)), b = a;
    std::vector<float> all;
    Addends<TestType, room> addends;
    for (Index i = 0; i < n; ++i) {
      all.push_back(added[static_cast<std::size_t>(i) % added.size()]);
      addends.set(i, all.back());
    }
    add_line(a.data(), all.data(), n);
    addends.add_to(b.data(), 0, n);
    for (std::size_t i = 0; i < n; ++i) {
      const auto expected = static_cast<TestType>(start + all[i]);
      INFO(start << " + " << all[i]);
      CHECK(same(a[i], expected));
      CHECK(same(b[i], expected));
    }
  }
}
