// SPDX-License-Identifier: MIT
#pragma once

// Checks that hold in every build. The test is inline and cheap; the message is put together only when it fails, in
// cold functions, in the form "posenc::Rope: head_dim must be even, got 7".

#include <Eigen/Core>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <sstream>
#include <stdexcept>
#include <string>

#if defined(__GNUC__)
#define POSENC_DETAIL_COLD [[gnu::cold, gnu::noinline]]
#else
#define POSENC_DETAIL_COLD
#endif

namespace posenc::inline v0::detail {

/// Without exceptions there is nothing to catch: the message is printed and the program ends.
template <class Exception>
POSENC_DETAIL_COLD [[noreturn]] void fail(const std::string& message) {
#if defined(__cpp_exceptions)
  throw Exception(message);
#else
  std::fprintf(stderr, "%s\n", message.c_str());
  std::abort();
#endif
}

template <class Exception, class Value>
POSENC_DETAIL_COLD [[noreturn]] void fail(const char* rule, Value got) {
  std::ostringstream message;
  message.precision(17);
  message << rule << ", got " << got;
  fail<Exception>(message.str());
}

POSENC_DETAIL_COLD [[noreturn]] inline void fail_size(const char* rule, Eigen::Index expected, Eigen::Index got) {
  std::ostringstream message;
  message << rule << " = " << expected << ", got " << got;
  fail<std::invalid_argument>(message.str());
}

/// A configuration or a shape: std::invalid_argument("<rule>, got <value>") unless ok.
template <class Value>
requires std::integral<Value> || std::floating_point<Value>
void require(bool ok, const char* rule, Value got) {
  if (!ok) [[unlikely]]
    fail<std::invalid_argument>(rule, got);
}

/// Two sizes that must agree: std::invalid_argument("<rule> = <expected>, got <got>") unless they do.
inline void require_size(Eigen::Index got, Eigen::Index expected, const char* rule) {
  if (got != expected) [[unlikely]]
    fail_size(rule, expected, got);
}

/// All numbers of a matrix that lies in memory must be finite: the same, with the first that is not.
template <class X>
void require_finite(const X& x, const char* rule) {
  for (Eigen::Index i = 0; i < x.size(); ++i) require(std::isfinite(x.data()[i]), rule, x.data()[i]);
}

/// A position or a head outside what an object holds: std::out_of_range("<rule>, got <value>") unless ok.
template <class Value>
void require_in_range(bool ok, const char* rule, Value got) {
  if (!ok) [[unlikely]]
    fail<std::out_of_range>(rule, got);
}

}  // namespace posenc::inline v0::detail

#undef POSENC_DETAIL_COLD
