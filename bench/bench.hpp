// SPDX-License-Identifier: MIT
#pragma once

// What all benchmarks have in common. A benchmark is a case: some data, and the same work done in two ways on it.
//
//   struct RopeCase {
//     using Limit = bench::Scale;                                  // what no implementation can beat
//     RopeCase(Index num_heads, Index head_dim, Index num_tokens);  // the arguments that its name shows; a fixed seed
//     void ours();                                                 // the library
//     void plain();                                                // the loop that a careful user would write
//     auto& result();                                              // the matrix that both write (a copy will do)
//     bench::Work work();                                          // what one call gets done
//   };
//
// If the case has no plain(), there is nothing to compare with, and nothing is checked; it may have no Limit either, and
// it may state two constants:
//
//     static constexpr double tolerance = 1e-5;                    // of the comparison, if not a few roundings
//     static constexpr const char* other = "torch";                // what plain() is, if not a plain loop
//
//   bench::add<RopeCase>("rope/half_split/float", {"H", "D", "T"}, {{32, 128, 4096}, {8, 64, 512}});
//
// makes three benchmarks of every shape, one below the other:
//
//   rope/half_split/float/H:32/D:128/T:4096
//   rope/half_split/float/plain/H:32/D:128/T:4096
//   rope/half_split/float/limit/H:32/D:128/T:4096
//
// Before ours or plain is timed, each runs once on fresh data: both must change it, and in the same way. Bytes are
// those that must be read and written, so bytes/s of ours over bytes/s of the limit is the share of the limit.

#include <benchmark/benchmark.h>

#include <Eigen/Core>
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <memory>
#include <string>
#include <tuple>
#include <type_traits>
#include <vector>

#include <posenc/concepts.hpp>

namespace bench {

using posenc::Index;
using posenc::Matrix;
using posenc::Vector;

/// The same numbers in [-1, 1) in every run.
template <class Scalar>
Matrix<Scalar> random_matrix(Index rows, Index cols, std::uint32_t seed = 1) {
  return Matrix<Scalar>::NullaryExpr(rows, cols, [&] {
    seed = seed * 1664525 + 1013904223;
    return static_cast<Scalar>(static_cast<float>(static_cast<std::int32_t>(seed)) * 0x1p-31F);
  });
}

template <class Scalar>
std::string scalar_name() {
  if constexpr (std::is_same_v<Scalar, float>) return "float";
  if constexpr (std::is_same_v<Scalar, double>) return "double";
  if constexpr (std::is_same_v<Scalar, Eigen::half>) return "half";
  if constexpr (std::is_same_v<Scalar, Eigen::bfloat16>) return "bfloat16";
}

/// What one call gets done.
struct Work {
  Index tokens;
  Index bytes;      ///< read and written
  Index flops = 0;  ///< where arithmetic is the limit, not memory
};

template <class X>
Index bytes_of(const X& x) {
  return x.size() * static_cast<Index>(sizeof(typename X::Scalar));
}

/// What a case does not state: some roundings, and what the angles of a plain loop lose in double.
template <class Scalar>
double default_tolerance() {
  return 16 * static_cast<double>(Eigen::NumTraits<Scalar>::epsilon()) + 1e-12;
}

/// Whether a and b are the same to rounding: infinities in the same places, and no NaN.
template <class X>
bool agree(const X& a, const X& b, double tolerance = default_tolerance<typename X::Scalar>()) {
  for (Index j = 0; j < a.cols(); ++j)
    for (Index i = 0; i < a.rows(); ++i) {
      const auto x = static_cast<double>(a(i, j)), y = static_cast<double>(b(i, j));
      const bool close = std::isfinite(y) ? std::abs(x - y) <= tolerance * (1 + std::abs(y)) : x == y;
      if (!close) return false;
    }
  return true;
}

/// As many floats as x has bytes for, in whole blocks of 64.
template <class X>
Vector<float> as_large_as(const X& x) {
  return random_matrix<float>((bytes_of(x) + 255) / 256 * 64, 1);
}
template <class Case>
Vector<float> as_large_as_result(Case& of) {
  return as_large_as(of.result());
}

/// In the first cache a few packets at a time are fastest, beyond it what the compiler makes of a loop.
constexpr Index max_size_in_blocks = 8192;
using Block = Eigen::Array<float, 64, 1>;

/// The limit of what is changed in place: the bytes of the result read, scaled and written.
class Scale {
 public:
  template <class Case>
  explicit Scale(Case& of) : x_(as_large_as_result(of)) {}
  void operator()() {
    const Index n = x_.size();
    float* const x = x_.data();
    const float one = one_;
    if (n <= max_size_in_blocks)
      for (Index i = 0; i < n; i += Block::SizeAtCompileTime) Eigen::Map<Block>(x + i) *= one;
    else
      for (Index i = 0; i < n; ++i) x[i] *= one;
  }

 private:
  Vector<float> x_;
  float one_ = 1;
};

/// The limit of what is written: the bytes of the result.
class Fill {
 public:
  template <class Case>
  explicit Fill(Case& of) : x_(as_large_as_result(of)) {}
  void operator()() { std::fill(x_.begin(), x_.end(), one_); }

 private:
  Vector<float> x_;
  float one_ = 1;
};

/// The limit of what is added to the result: x += y.
class Add {
 public:
  template <class Case>
  explicit Add(Case& of) : x_(as_large_as_result(of)), y_(x_) {}
  void operator()() {
    const Index n = x_.size();
    float* EIGEN_RESTRICT const x = x_.data();
    const float* EIGEN_RESTRICT const y = y_.data();
    if (n <= max_size_in_blocks)
      for (Index i = 0; i < n; i += Block::SizeAtCompileTime)
        Eigen::Map<Block>(x + i) += Eigen::Map<const Block>(y + i);
    else
      for (Index i = 0; i < n; ++i) x[i] += y[i];
  }

 private:
  Vector<float> x_, y_;
};

/// Set by a failed check; the program then exits with status 1.
inline bool failed = false;

/// Whether results are compared before they are timed. What has passed once need not be compared again.
inline bool checks = true;

namespace detail {

template <std::size_t N>
using Shape = std::array<Index, N>;

template <class Data, class Run>
void measure(benchmark::State& state, const Work& work, Data& data, Run run) {
  for (auto _ : state) {
    run(data);
    benchmark::DoNotOptimize(&data);  // and with it all that data points to
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.iterations() * work.tokens);
  state.SetBytesProcessed(state.iterations() * work.bytes);
  if (work.flops > 0)
    state.counters["flop/s"] =
        benchmark::Counter(static_cast<double>(work.flops), benchmark::Counter::kIsIterationInvariantRate);
}

/// What the last benchmarks worked on, made once for all rounds of a group: ours and plain have the same data.
struct Kept {
  const void* group = nullptr;
  std::shared_ptr<void> what{};
};
inline Kept kept_case, kept_limit;

template <class Make>
auto& keep(Kept& kept, const void* group, Make make) {
  using What = std::remove_pointer_t<decltype(make())>;
  if (kept.group != group) {
    kept = {};  // its memory is free before more is asked for
    kept.what = std::shared_ptr<What>(make());
    kept.group = group;
  }
  return *static_cast<What*>(kept.what.get());
}

template <class Case, std::size_t N>
Case& case_of(const Shape<N>& shape, const void* group) {
  return keep(kept_case, group, [&] { return std::apply([](auto... sizes) { return new Case(sizes...); }, shape); });
}

template <class Case>
inline constexpr bool has_plain = requires(Case& data) {
  data.plain();
};

/// What plain() is called in the names.
template <class Case>
const char* other() {
  if constexpr (requires { Case::other; })
    return Case::other;
  else
    return "plain";
}

/// What is wrong with ours or plain, or nullptr.
template <class Case, std::size_t N>
const char* fault(const Shape<N>& shape) {
  if constexpr (has_plain<Case>) {
    Case before = std::make_from_tuple<Case>(shape), ours = before, plain = before;
    double tolerance = default_tolerance<typename std::remove_cvref_t<decltype(ours.result())>::Scalar>();
    if constexpr (requires { Case::tolerance; }) tolerance = Case::tolerance;
    ours.ours();
    if (agree(before.result(), ours.result(), tolerance)) return "ours does nothing";
    plain.plain();
    if (!agree(ours.result(), plain.result(), tolerance)) return "ours and plain differ";
  }
  return nullptr;
}

template <class Case, std::size_t N, class Body>
void add_one(const std::string& name, const std::array<const char*, N>& arg_names, const Shape<N>& shape, Body body) {
  auto* const one = benchmark::RegisterBenchmark(name.c_str(), std::move(body))
                        ->ArgNames({arg_names.begin(), arg_names.end()})
                        ->Args({shape.begin(), shape.end()});
  if constexpr (requires { Case::in_real_time; }) one->UseRealTime();
}

template <class Case, std::size_t N, class Run>
auto checked(const Shape<N>& shape, std::shared_ptr<bool> passed, Run run) {
  return [=](benchmark::State& state) {
    if (const char* wrong = *passed || !checks ? nullptr : fault<Case>(shape)) {
      failed = true;
      state.SkipWithError(wrong);
      return;
    }
    *passed = true;
    Case& data = case_of<Case>(shape, passed.get());
    measure(state, data.work(), data, run);
  };
}

}  // namespace detail

/// Registers a case in some shapes.
template <class Case, std::size_t N>
void add(const std::string& name, const char* const (&arg_names)[N],
         std::type_identity_t<const std::vector<std::array<Index, N>>&> shapes) {
  const auto names = std::to_array(arg_names);
  for (const auto& shape : shapes) {
    const auto passed = std::make_shared<bool>(false);
    const auto ours = [](Case& data) { data.ours(); };
    detail::add_one<Case>(name, names, shape, detail::checked<Case>(shape, passed, ours));
    if constexpr (detail::has_plain<Case>) {
      const auto plain = [](Case& data) { data.plain(); };
      detail::add_one<Case>(name + '/' + detail::other<Case>(), names, shape,
                            detail::checked<Case>(shape, passed, plain));
    }
    if constexpr (requires { typename Case::Limit; })
      detail::add_one<Case>(name + "/limit", names, shape, [=](benchmark::State& state) {
        Case& data = detail::case_of<Case>(shape, passed.get());
        auto& limit = detail::keep(detail::kept_limit, passed.get(), [&] { return new typename Case::Limit(data); });
        detail::measure(state, data.work(), limit, [](auto& run) { run(); });
      });
  }
}

}  // namespace bench

/// Defined by each file of benchmarks: calls bench::add.
void add_benchmarks();
