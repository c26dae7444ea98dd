// SPDX-License-Identifier: MIT
#pragma once

#include <posenc/concepts.hpp>

namespace posenc::inline v0::detail::config {

/// What no configuration of a real model exceeds. Larger numbers are refused before anything is made from them.
inline constexpr Index max_head_dim = 1 << 14;
inline constexpr Index max_heads = 1 << 14;
inline constexpr Index max_layers = 1 << 14;
inline constexpr Index max_features = 1 << 26;
inline constexpr Index max_length = Index{1} << 40;
inline constexpr double max_factor = 1e9;
inline constexpr double max_base = 1e30;

}  // namespace posenc::inline v0::detail::config
