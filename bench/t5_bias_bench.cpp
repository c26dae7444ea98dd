// SPDX-License-Identifier: MIT
// T5's learned biases of buckets of distances.

#include <posenc/t5_bias.hpp>

#include "bias_case.hpp"

namespace {

using bench::Index;
using posenc::T5Direction;

/// The bucket by its formula, in float as the published code has it.
template <T5Direction direction>
struct T5 {
  template <class Real>
  Real plain(Index key, Index query) const {
    constexpr bool both = direction == T5Direction::bidirectional;
    constexpr Index count = both ? 16 : 32, single = count / 2;
    const Index offset = key - query, distance = both ? std::abs(offset) : std::max<Index>(-offset, 0);
    Index bucket = both && offset > 0 ? count : 0;
    if (distance < single)
      bucket += distance;
    else
      bucket += std::min(
          count - 1, single + static_cast<Index>(std::log(static_cast<float>(distance) / static_cast<float>(single)) /
                                                 std::log(128.0F / static_cast<float>(single)) *
                                                 static_cast<float>(count - single)));
    return static_cast<Real>(bias.table()(1, bucket));
  }
  posenc::T5Bias bias{bench::random_matrix<float>(8, 32), {.direction = direction}};
};

}  // namespace

void add_benchmarks() {
  bench::add_bias<T5<T5Direction::bidirectional>>("t5_bias/bidirectional", 4096);
  bench::add_bias<T5<T5Direction::causal>>("t5_bias/causal", 4096);
}
