// SPDX-License-Identifier: MIT

// Streaming attention gives what `attend` gives, for every encoding, shape and place. What else it promises is tested in
// streaming_attention_promises_test.cpp.

#include <posenc/alibi.hpp>
#include <posenc/clipped_relative.hpp>
#include <posenc/masks.hpp>
#include <posenc/rope.hpp>
#include <posenc/rope_table.hpp>
#include <posenc/streaming_attention.hpp>
#include <posenc/xpos.hpp>

#include <Eigen/Core>
#include <cmath>
#include <cstdint>
#include <tuple>
#include <vector>

#include "../streaming.hpp"

using namespace posenc;
using namespace streaming;

namespace {

/// For every place: many tokens, one query, and the tails around a tile.
template <bool scores_are_large = false, class P>
void expect_reference_everywhere(const P& encodings, Index dim = 20, Index value_dim = 7) {
  for (const auto& [num_queries, num_keys] : {std::pair<Index, Index>{70, 130}, {1, 130}, {2, 65}, {33, 600}}) {
    const Tokens<float> x({num_queries, num_keys, dim, value_dim});
    for (const Place& place : places(num_queries, num_keys)) {
      CAPTURE(place.name);
      expect_reference<scores_are_large>(x, place.options(), encodings);
    }
  }
}

std::vector<int> padding(Index size) {
  std::vector<int> mask;
  for (Index t = 0; t < size; ++t) mask.push_back(t % 7 == 3 || t < 5 ? 0 : 1);
  return mask;
}
std::vector<std::int64_t> documents(Index size, Index length) {
  std::vector<std::int64_t> numbers;
  for (Index t = 0; t < size; ++t) numbers.push_back(t / length);
  return numbers;
}

/// Encodings of a user, with the signatures of the README: all five hooks that attention has, without any other member.
template <class Scalar>
struct SameParity {
  void add_bias(Eigen::Ref<Matrix<Scalar>> scores, const Positions& keys, const Positions& queries, Index) const {
    for (Index m = 0; m < scores.cols(); ++m)
      for (Index n = 0; n < scores.rows(); ++n)
        if ((queries[m] - keys[n]) % 2 == 0) scores(n, m) += 1;
  }
};
template <class Scalar>
struct Mirror {
  static void mirror(Eigen::Ref<Matrix<Scalar>> x, const Positions& positions) {
    for (Index t = 0; t < x.cols(); ++t)
      if (positions[t] % 3 == 0) x.col(t) = -x.col(t);
  }
  void apply_query(Eigen::Ref<Matrix<Scalar>> x, const Positions& positions, Index) const { mirror(x, positions); }
  void apply_key(Eigen::Ref<Matrix<Scalar>> x, const Positions& positions, Index) const { mirror(x, positions); }
};
template <class Scalar>
struct FirstFeatures {
  void add_scores(Eigen::Ref<Matrix<Scalar>> scores, const Eigen::Ref<const Matrix<Scalar>>& keys,
                  const Eigen::Ref<const Matrix<Scalar>>& queries, const Positions& key_positions,
                  const Positions& query_positions, Index head) const {
    for (Index m = 0; m < scores.cols(); ++m)
      for (Index n = 0; n < scores.rows(); ++n)
        scores(n, m) += keys(0, n) * queries(1, m) * Scalar(1 + head) *
                        static_cast<Scalar>(std::cos(0.1 * double(query_positions[m] - key_positions[n])));
  }
};
template <class Scalar>
struct WeighedPositions {
  void add_values(Eigen::Ref<Matrix<Scalar>> outputs, const Eigen::Ref<const Matrix<Scalar>>& weights,
                  const Positions& key_positions, const Positions& query_positions, Index) const {
    for (Index m = 0; m < outputs.cols(); ++m)
      for (Index n = 0; n < weights.rows(); ++n)
        outputs(0, m) +=
            weights(n, m) * static_cast<Scalar>(std::sin(0.3 * double(query_positions[m] - key_positions[n])));
  }
};
/// A distance that is hidden, and nothing else: bounds are not told.
struct HiddenDistance {
  std::int64_t hidden;
  double at_distance(std::int64_t key_minus_query, Index) const {
    return key_minus_query == hidden ? -streaming::infinity : 0.01 * static_cast<double>(key_minus_query % 5);
  }
  template <MutableDense Scores>
  void add_bias(Scores&& scores, const Positions& keys, const Positions& queries, Index head) const {
    for (Index m = 0; m < scores.cols(); ++m)
      for (Index n = 0; n < scores.rows(); ++n)
        scores(n, m) +=
            static_cast<typename std::remove_cvref_t<Scores>::Scalar>(at_distance(keys[n] - queries[m], head));
  }
};
static_assert(DistanceBias<HiddenDistance> && !BoundedBias<HiddenDistance>);

ClippedRelative<float> clipped(Index dim, Index value_dim, Index k) {
  return {support::random_matrix<float>(dim, 2 * k + 1, 11), support::random_matrix<float>(value_dim, 2 * k + 1, 12)};
}

}  // namespace

TEST_CASE("No encoding at all", "[streaming]") { expect_reference_everywhere(pack()); }

TEST_CASE("Rotations: RoPE in both layouts, from a table, on a part of the head, xPos", "[streaming]") {
  for (const PairLayout layout : {PairLayout::interleaved, PairLayout::half_split})
    for (const Index rotary_dim : {0, 8}) {
      const Rope rope({.head_dim = 20, .rotary_dim = rotary_dim, .layout = layout});
      expect_reference_everywhere(pack(rope));
    }
  const Rope rope({.head_dim = 20});
  expect_reference_everywhere(
      pack(std::tuple(RopeTable<float>(rope, 3000, -100)), std::tuple(RopeTable<double>(rope, 3000, -100))));
  expect_reference_everywhere(pack(XPos(rope, {.center = 800}), CausalMask{}));
}

TEST_CASE("ALiBi in all forms", "[streaming]") {
  for (const AlibiForm form : {AlibiForm::distance, AlibiForm::causal, AlibiForm::key_only})
    for (const double slope : {0.5, 0.01, 0.0, -0.1}) {
      CAPTURE(static_cast<int>(form), slope);
      expect_reference_everywhere<true>(pack(Alibi(Vector<double>::Constant(1, slope), form)));
    }
}

TEST_CASE("Masks: causal, windows, padding, documents", "[streaming]") {
  expect_reference_everywhere(pack(CausalMask{}));
  expect_reference_everywhere(pack(SlidingWindow({.left = 9, .right = 3})));
  expect_reference_everywhere(pack(SlidingWindow({.left = 100, .right = 0}), PaddingMask(padding(600))));
  expect_reference_everywhere(pack(DocumentMask(documents(600, 50), documents(600, 20)), CausalMask{}));
}

TEST_CASE("Clipped-relative keys and values", "[streaming]") {
  const auto both = clipped(20, 7, 4);
  expect_reference_everywhere(pack(both));
  expect_reference_everywhere(pack(both, CausalMask{}));
  expect_reference_everywhere(pack(ClippedRelative<float>(both.key_table(), {}), CausalMask{}));
  expect_reference_everywhere(pack(ClippedRelative<float>({}, both.value_table()), CausalMask{}));
  expect_reference_everywhere(pack(clipped(20, 7, 100), CausalMask{}));
  expect_reference_everywhere(pack(clipped(20, 7, 300)));  // more distances than are fused
  expect_reference_everywhere(
      pack(ClippedRelative<float>(both.key_table(), both.value_table(), {.max_left = 8}), Alibi(1)));
  expect_reference_everywhere(pack(
      ClippedRelative<float>(both.key_table(), both.value_table(), {.direction = RelativeDirection::query_minus_key}),
      CausalMask{}));
}

TEST_CASE("Clipped-relative with a distance that is hidden while those beyond it are not", "[streaming]") {
  for (const std::int64_t hidden : {2, 4, 5, -4}) {
    CAPTURE(hidden);
    expect_reference_everywhere(pack(clipped(20, 7, 4), HiddenDistance{hidden}));
  }
}

TEST_CASE("Clipped-relative of many features together with a rotation", "[streaming]") {
  const Tokens<float> x({70, 70, 640, 3});
  expect_reference(x, from_zero(70, 70).options(), pack(clipped(640, 3, 3), Rope({.head_dim = 640}), CausalMask{}));
}

TEST_CASE("Clipped-relative tables of half, of several heads", "[streaming]") {
  const ClippedRelative<Eigen::half> halves(support::random_matrix<Eigen::half>(40, 9, 3),
                                            support::random_matrix<Eigen::half>(14, 9, 4), {.num_heads = 2});
  AttentionOptions options = from_zero(70, 130).options();
  options.head = 1;
  expect_reference(Tokens<float>({70, 130, 20, 7}), options, pack(halves, CausalMask{}));
  options = behind_a_cache(200, 640).options();  // two stretches of keys
  options.head = 1;
  expect_reference(Tokens<float>({200, 640, 20, 7}), options, pack(halves, CausalMask{}));
}

TEST_CASE("The relative keys of BERT", "[streaming]") {
  for (const RelativeScores scores : {RelativeScores::query, RelativeScores::query_and_key}) {
    const auto bert = ClippedRelative<float>::bert(support::random_matrix<float>(20, 2 * 150 - 1, 5), scores);
    expect_reference(Tokens<float>({140, 140, 20, 20}), from_zero(140, 140).options(), pack(bert));
    expect_reference(Tokens<float>({1, 140, 20, 20}), from_zero(1, 140).options(), pack(bert));
  }
}

TEST_CASE("Encodings of a user, with plain signatures", "[streaming]") {
  expect_reference_everywhere(
      pack(std::tuple(SameParity<float>{}, Mirror<float>{}), std::tuple(SameParity<double>{}, Mirror<double>{})));
  expect_reference_everywhere(pack(std::tuple(FirstFeatures<float>{}, WeighedPositions<float>{}, CausalMask{}),
                                   std::tuple(FirstFeatures<double>{}, WeighedPositions<double>{}, CausalMask{})));
  expect_reference_everywhere(pack(HiddenDistance{-3}));
}

TEST_CASE("Packs of encodings", "[streaming]") {
  const Rope rope({.head_dim = 20});
  expect_reference_everywhere(pack(rope, Alibi(1), CausalMask{}));
  expect_reference_everywhere(pack(rope, clipped(20, 7, 6), Alibi(1), SlidingWindow({.left = 40}),
                                   PaddingMask(padding(600)), DocumentMask(documents(600, 200), documents(600, 20))));
  expect_reference_everywhere(
      pack(std::tuple(clipped(20, 7, 6), FirstFeatures<float>{}, WeighedPositions<float>{}, SameParity<float>{}),
           std::tuple(clipped(20, 7, 6), FirstFeatures<double>{}, WeighedPositions<double>{}, SameParity<double>{})));
}

TEST_CASE("Scale, soft cap and sinks", "[streaming]") {
  const Index num_queries = 70, num_keys = 130;
  const Tokens<float> x({num_queries, num_keys, 20, 7});
  for (const double scale : {0.0, 1.0, -0.3})
    for (const double cap : {0.0, 2.0, 50.0})
      for (const double sink : {-streaming::infinity, -3.0, 0.0, 9.0, 200.0})
        for (const Place& place : places(num_queries, num_keys)) {
          CAPTURE(scale, cap, sink, place.name);
          AttentionOptions options = place.options();
          options.scale = scale;
          options.soft_cap = cap;
          options.sink = sink;
          expect_reference<true>(x, options, pack(Alibi(1), CausalMask{}));
          options.query_positions = options.query_positions.segment(3, 1);
          const Tokens<float> one({1, num_keys, 20, 7});
          expect_reference<true>(one, options, pack(Alibi(1), CausalMask{}));
        }
  AttentionOptions options = from_zero(num_queries, num_keys).options();
  options.soft_cap = 3;
  options.sink = 1;
  expect_reference(x, options, pack(clipped(20, 7, 6), Rope({.head_dim = 20}), CausalMask{}));
}

TEST_CASE("Heads: slopes and tables of their own, rotations of the first heads only", "[streaming]") {
  const Tokens<float> x({70, 130, 20, 7});
  AttentionOptions options = from_zero(70, 130).options();
  for (const Index head : {0, 3, 7}) {
    options.head = head;
    options.kv_head = head / 4;
    expect_reference(x, options, pack(Rope({.head_dim = 20, .num_rotary_heads = 1}), Alibi(8), CausalMask{}));
  }
}

TEST_CASE("Every number of queries by every number of keys", "[streaming]") {
  const auto encodings = pack(Rope({.head_dim = 6}), Alibi(1), CausalMask{});
  for (const Index num_queries : {0, 1, 2, 63, 64, 65, 513})
    for (const Index num_keys : {0, 1, 63, 64, 65, 511, 512, 513, 1300}) {
      const Tokens<float> x({num_queries, num_keys, 6, 5});
      expect_reference(x, from_zero(num_queries, num_keys).options(), encodings);
      expect_reference(x, behind_a_cache(num_queries, num_keys).options(), encodings);
    }
}

TEST_CASE("Every number of features, and another one of the values", "[streaming]") {
  for (const Index dim : {1, 7, 20, 64, 80, 128, 512})
    for (const Index value_dim : {dim, Index{1}, Index{33}, Index{512}})
      for (const auto& [num_queries, num_keys] : {std::pair<Index, Index>{1, 200}, {66, 200}}) {
        const Tokens<float> x({num_queries, num_keys, dim, value_dim});
        expect_reference(x, behind_a_cache(num_queries, num_keys).options(), pack(Alibi(1), CausalMask{}));
      }
}

TEST_CASE("Double, half and bfloat16", "[streaming]") {
  const Rope rope({.head_dim = 20});
  const auto encodings = pack(rope, Alibi(1), CausalMask{});
  for (const auto& [num_queries, num_keys] : {std::pair<Index, Index>{70, 130}, {1, 600}, {300, 300}})
    for (const Place& place : places(num_queries, num_keys)) {
      CAPTURE(place.name);
      const Shape shape{num_queries, num_keys, 20, 7};
      expect_reference(Tokens<double>(shape), place.options(), encodings);
      expect_reference(Tokens<Eigen::half>(shape), place.options(), encodings);
      expect_reference(Tokens<Eigen::bfloat16>(shape), place.options(), encodings);
    }
  const ClippedRelative<double> wide(support::random_matrix<double>(20, 9, 3), support::random_matrix<double>(7, 9, 4));
  expect_reference(Tokens<double>({70, 130, 20, 7}), from_zero(70, 130).options(), pack(rope, wide, CausalMask{}));
}
