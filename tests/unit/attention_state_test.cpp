// SPDX-License-Identifier: MIT

#include <posenc/alibi.hpp>
#include <posenc/attention_state.hpp>
#include <posenc/masks.hpp>
#include <posenc/streaming_attention.hpp>

#include <Eigen/Core>
#include <limits>
#include <stdexcept>
#include <vector>

#include "../streaming.hpp"

using namespace posenc;
using namespace streaming;
using support::message_of;
using support::same_bits;

namespace {

constexpr Index num_queries = 37, num_keys = 200, dim = 16, value_dim = 9;
const Tokens<float> tokens({num_queries, num_keys, dim, value_dim});
const Alibi alibi(Vector<double>::Constant(1, 0.05));

AttentionOptions options_with(double sink) {
  AttentionOptions options = behind_a_cache(num_queries, num_keys).options();
  options.sink = sink;
  return options;
}

/// Attention over keys first, ..., first + size - 1.
AttentionState<float> part(Index first, Index size, AttentionOptions options) {
  AttentionWorkspace<float> workspace(dim, value_dim);
  options.key_positions = options.key_positions.segment(first, size);
  return streaming_attend_part(tokens.q, tokens.k.middleCols(first, size), tokens.v.middleCols(first, size), options,
                               workspace, alibi, CausalMask{});
}

AttentionState<float> merged(AttentionState<float> a, const AttentionState<float>& b) {
  a.merge(b);
  return a;
}

bool same(const AttentionState<float>& a, const AttentionState<float>& b) {
  return same_bits(a.maxima, b.maxima) && same_bits(a.sums, b.sums) && same_bits(a.values, b.values);
}

}  // namespace

TEST_CASE("Split anywhere, the parts merge to the whole", "[attention_state]") {
  for (const double sink : {-streaming::infinity, 0.5, 30.0}) {
    const auto exact = attend(tokens.q.cast<double>(), tokens.k.cast<double>(), tokens.v.cast<double>(),
                              options_with(sink), alibi, CausalMask{});
    for (const Index split : {0, 1, 63, 64, 65, 150, 199, 200}) {
      CAPTURE(sink, split);
      // Only one part knows of the sink.
      const auto near = part(split, num_keys - split, options_with(sink));
      const auto far = part(0, split, options_with(-streaming::infinity));
      CHECK(relative_distance(merged(near, far).outputs(), exact) <= 2e-6);
      CHECK(relative_distance(merged(far, near).outputs(), exact) <= 2e-6);
    }
    AttentionState<float> all(value_dim, num_queries);
    all.merge(part(0, 10, options_with(sink)));
    for (Index first = 10; first < num_keys; first += 10)
      all.merge(part(first, 10, options_with(-streaming::infinity)));
    CHECK(relative_distance(all.outputs(), exact) <= 2e-6);
  }
}

TEST_CASE("Merging is commutative, associative within rounding, and has a zero", "[attention_state]") {
  const auto options = options_with(-streaming::infinity);
  const auto a = part(0, 90, options), b = part(90, 30, options), c = part(120, 80, options);
  CHECK(same(merged(a, b), merged(b, a)));
  CHECK(relative_distance(merged(merged(a, b), c).outputs(), merged(a, merged(b, c)).outputs()) <= 5e-7);
  const AttentionState<float> zero(value_dim, num_queries);
  CHECK(same(merged(a, zero), a));
  CHECK(same(merged(zero, a), a));
}

TEST_CASE("What no part has seen gives zeros, and a sink alone as well", "[attention_state]") {
  AttentionState<float> nothing(3, 4);
  CHECK(nothing.outputs().isZero(0));
  nothing.merge(AttentionState<float>(3, 4));
  CHECK(nothing.outputs().isZero(0));

  AttentionWorkspace<float> workspace(dim, value_dim);
  AttentionOptions options = from_zero(num_queries, num_keys).options();
  options.sink = 2;
  auto hidden = streaming_attend_part(tokens.q, tokens.k, tokens.v, options, workspace,
                                      PaddingMask(std::vector<int>(num_keys, 0)));
  CHECK(hidden.outputs().isZero(0));
  CHECK(hidden.maxima.isConstant(2));
  CHECK(hidden.sums.isOnes());
  hidden.merge(AttentionState<float>(value_dim, num_queries));
  CHECK(hidden.outputs().isZero(0));
}

TEST_CASE("Scores so far apart that a part weighs nothing, and scores that are infinite", "[attention_state]") {
  AttentionState<float> small(1, 3), large(1, 3);
  small.maxima << -1e30f, -1e30f, 0;
  small.sums.setOnes();
  small.values.setConstant(5);
  large.maxima << 1e30f, -std::numeric_limits<float>::infinity(), std::numeric_limits<float>::infinity();
  large.sums << 2, 0, 1;
  large.values << 6, 0, 1;
  const Matrix<float> outputs = merged(small, large).outputs();
  CHECK(outputs(0) == 3);
  CHECK(outputs(1) == 5);
  CHECK(std::isnan(outputs(2)));
  CHECK(same_bits(merged(large, small).outputs().leftCols(2), outputs.leftCols(2)));
}

TEST_CASE("States of different shapes do not merge", "[attention_state]") {
  AttentionState<double> state(3, 4);
  CHECK(message_of<std::invalid_argument>([&] { state.merge(AttentionState<double>(2, 4)); }) ==
        "posenc::AttentionState: value_dim of both must be equal = 3, got 2");
  CHECK(message_of<std::invalid_argument>([&] { state.merge(AttentionState<double>(3, 5)); }) ==
        "posenc::AttentionState: queries of both must be equal = 4, got 5");
  CHECK(state.outputs().isZero(0));
  CHECK(message_of<std::invalid_argument>([] { AttentionState<float>(-1, 4); }) ==
        "posenc::AttentionState: value_dim must not be negative, got -1");
  CHECK(message_of<std::invalid_argument>([] { AttentionState<float>(1, -4); }) ==
        "posenc::AttentionState: num_queries must not be negative, got -4");
}
