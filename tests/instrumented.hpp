// SPDX-License-Identifier: MIT
#pragma once

// Under a sanitizer code is ten times as slow, and finds nothing in the numbers that it does not find without: tests with
// many cases of one kind then try fewer of them.

#if defined(__SANITIZE_ADDRESS__)  // g++
inline constexpr bool is_instrumented = true;
#elif defined(__has_feature)  // clang
inline constexpr bool is_instrumented = __has_feature(address_sanitizer);
#else
inline constexpr bool is_instrumented = false;
#endif
