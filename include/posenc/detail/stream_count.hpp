// SPDX-License-Identifier: MIT
#pragma once

#include <posenc/concepts.hpp>

namespace posenc::inline v0 {

/// What a streaming attention did: tiles of 64 keys by a panel of queries, or of up to 512 keys by a single query.
struct StreamCount {
  Index tiles = 0;    ///< that were computed
  Index skipped = 0;  ///< that were not, since their weights are zero

  StreamCount& operator+=(const StreamCount& other) {
    tiles += other.tiles;
    skipped += other.skipped;
    return *this;
  }
};

}  // namespace posenc::inline v0
