// SPDX-License-Identifier: MIT
#pragma once

// In front of a loop of a few rounds whose sums are to stay in registers.

#if defined(__clang__)
#define POSENC_DETAIL_UNROLL _Pragma("unroll")
#elif defined(__GNUC__)
#define POSENC_DETAIL_UNROLL _Pragma("GCC unroll 16")
#else
#define POSENC_DETAIL_UNROLL
#endif
