// SPDX-License-Identifier: MIT
#pragma once

#include <array>
#include <cstddef>

#include <posenc/concepts.hpp>

namespace posenc::inline v0::detail {

/// Some keys of a tile and those packets of the panel of queries that see one of them.
struct TileRun {
  Index key, num_keys, packet, num_packets;
};

/// The parts of a tile of up to 64 keys that are computed.
class TileRuns {
 public:
  static constexpr Index keys = 16;  ///< how finely a tile is divided

  const TileRun* begin() const { return runs_.data(); }
  const TileRun* end() const { return runs_.data() + size_; }

  /// Behind all others; joined with the last if they are one.
  void add(const TileRun& run) {
    if (run.num_packets == 0) return;
    if (size_ > 0) {
      TileRun& last = runs_[size_ - 1];
      if (last.key + last.num_keys == run.key && last.packet == run.packet && last.num_packets == run.num_packets) {
        last.num_keys += run.num_keys;
        return;
      }
    }
    runs_[size_++] = run;
  }

  /// Whether there is one part of all these packets.
  bool is_whole(Index num_packets) const { return size_ == 1 && runs_[0].num_packets == num_packets; }

 private:
  std::array<TileRun, 4> runs_;
  std::size_t size_ = 0;
};

}  // namespace posenc::inline v0::detail
