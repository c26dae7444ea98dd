// SPDX-License-Identifier: MIT

#include "../property/allocations.hpp"  // before Eigen

#include <posenc/attention.hpp>
#include <posenc/kv_cache.hpp>
#include <posenc/masks.hpp>
#include <posenc/rope.hpp>
#include <posenc/rope_frequencies.hpp>
#include <posenc/rope_table.hpp>
#include <posenc/rope_yarn.hpp>
#include <posenc/streaming_heads.hpp>
#include <posenc/xpos.hpp>

#include <Eigen/Core>
#include <array>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <utility>
#include <vector>

#include "../catch.hpp"
#include "../support.hpp"

using namespace posenc;
using support::message_of;
using support::random_matrix;
using support::same_bits;

namespace {

constexpr Index heads = 2, dim = 8, value_dim = 5;

KvCacheOptions room_for(Index capacity) {
  return {.num_kv_heads = heads, .head_dim = dim, .value_dim = value_dim, .capacity = capacity};
}
template <class Scalar = float>
Matrix<Scalar> some_keys(Index num_tokens, std::uint64_t seed = 1) {
  return random_matrix<Scalar>(heads * dim, num_tokens, seed);
}
template <class Scalar = float>
Matrix<Scalar> some_values(Index num_tokens, std::uint64_t seed = 2) {
  return random_matrix<Scalar>(heads * value_dim, num_tokens, seed);
}

std::vector<std::int64_t> entries(const Positions& positions) {
  std::vector<std::int64_t> numbers;
  for (Index axis = 0; axis < positions.num_axes(); ++axis)
    for (Index t = 0; t < positions.size(); ++t) numbers.push_back(positions.axis(axis)[t]);
  return numbers;
}
using Entries = std::vector<std::int64_t>;

template <class Scalar>
Matrix<Scalar> rotated(Matrix<Scalar> keys, const Rope& rope, const Positions& positions) {
  rope(keys, positions);
  return keys;
}

/// Everything that one can see of a cache.
template <class Scalar>
struct Seen {
  Matrix<Scalar> keys, values;
  Entries positions;
  std::int64_t next;

  explicit Seen(const KvCache<Scalar>& cache)
      : keys(cache.keys()),
        values(cache.values()),
        positions(entries(cache.positions())),
        next(cache.next_position()) {}
  bool operator==(const Seen& other) const {
    return same_bits(keys, other.keys) && same_bits(values, other.values) && positions == other.positions &&
           next == other.next;
  }
};

/// An encoding of a user: plain signature, and another rotation for every head.
struct NegatedByHead {
  static void negate(Eigen::Ref<Matrix<float>> x, const Positions& positions, Index head) {
    for (Index t = 0; t < x.cols(); ++t)
      if ((positions[t] + head) % 2 == 0) x.col(t) = -x.col(t);
  }
  void apply_query(Eigen::Ref<Matrix<float>> x, const Positions& positions, Index head) const {
    negate(x, positions, head);
  }
  void apply_key(Eigen::Ref<Matrix<float>> x, const Positions& positions, Index head) const {
    negate(x, positions, head);
  }
};

const Rope rope({.head_dim = dim});

}  // namespace

TEMPLATE_TEST_CASE("A cache gives back what was appended, one token or many at a time", "[kv_cache]", float, double,
                   Eigen::half, Eigen::bfloat16) {
  KvCache<TestType> cache(room_for(20));
  CHECK(cache.size() == 0);
  CHECK(cache.keys().cols() == 0);
  CHECK(cache.positions().size() == 0);
  CHECK(cache.positions().is_contiguous());
  CHECK(cache.next_position() == 0);

  const auto k = some_keys<TestType>(20);
  const auto v = some_values<TestType>(20);
  Index filled = 0;
  for (const Index some : {1, 7, 0, 1, 11}) {
    cache.append(k.middleCols(filled, some), v.middleCols(filled, some));
    filled += some;
    CHECK(cache.size() == filled);
    CHECK(same_bits(cache.keys(), k.leftCols(filled)));
    CHECK(same_bits(cache.values(), v.leftCols(filled)));
    CHECK(cache.positions().is_contiguous());
    CHECK(cache.next_position() == filled);
  }
  CHECK(cache.size() == cache.capacity());
  for (Index head = 0; head < heads; ++head) {
    CHECK(same_bits(cache.keys(head), k.middleRows(head * dim, dim)));
    CHECK(same_bits(cache.values(head), v.middleRows(head * value_dim, value_dim)));
  }
  CHECK(cache.keys().data() == cache.keys(0).data());
  CHECK(cache.keys().outerStride() == heads * dim);
}

TEST_CASE("Keys are rotated when they come, by any encoding, and values are not", "[kv_cache]") {
  const auto k = some_keys(11);
  const auto v = some_values(11);
  const Entries anywhere{5, 5, -3, 100, 0, 1, 2, 1 << 20, 7, 6, 5};

  KvCache<float> cache(room_for(30));
  cache.append(k.leftCols(4), v.leftCols(4), rope);
  cache.append(k.rightCols(7), v.rightCols(7), rope);
  CHECK(same_bits(cache.keys(), rotated(k, rope, positions(11))));
  CHECK(same_bits(cache.values(), v));

  KvCache<float> at(room_for(30));
  at.append(k, v, anywhere, rope);
  CHECK(same_bits(at.keys(), rotated(k, rope, anywhere)));
  CHECK(entries(at.positions()) == anywhere);
  CHECK(at.next_position() == (1 << 20) + 1);
  at.append(k.col(0), v.col(0), rope);
  CHECK(at.positions()[11] == (1 << 20) + 1);

  KvCache<float> from_table(room_for(30));
  from_table.append(k, v, RopeTable<float>(rope, 30));
  CHECK(same_bits(from_table.keys(), rotated(k, rope, positions(11))));

  const XPos xpos(rope);
  KvCache<float> decayed(room_for(30));
  decayed.append(k, v, positions(11, 40), xpos);
  Matrix<float> expected = k;
  xpos.apply_key(expected, positions(11, 40));
  CHECK(same_bits(decayed.keys(), expected));

  KvCache<float> by_head(room_for(30));
  by_head.append(k, v, NegatedByHead{}, rope);  // in their order
  expected = k;
  for (Index head = 0; head < heads; ++head)
    NegatedByHead{}.apply_key(expected.middleRows(head * dim, dim), positions(11), head);
  CHECK(same_bits(by_head.keys(), rotated(expected, rope, positions(11))));
}

TEMPLATE_TEST_CASE("Keys in small scalars are rotated in float and rounded once", "[kv_cache]", Eigen::half,
                   Eigen::bfloat16) {
  const auto k = some_keys<float>(150);  // more than are rotated at a time
  const auto v = some_values<float>(150);
  KvCache<TestType> cache(room_for(200));
  cache.append(k, v, positions(150, 1000), rope, NegatedByHead{});
  Matrix<float> expected = rotated(k, rope, positions(150, 1000));
  for (Index head = 0; head < heads; ++head)
    NegatedByHead{}.apply_key(expected.middleRows(head * dim, dim), positions(150, 1000), head);
  CHECK(same_bits(cache.keys(), expected.template cast<TestType>()));
  CHECK(same_bits(cache.values(), v.template cast<TestType>()));
}

TEST_CASE("What is appended may have any scalar, storage order and stride", "[kv_cache]") {
  using RowMajor = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const auto k = some_keys(9);
  const auto v = some_values(9);
  KvCache<float> cache(room_for(40));
  const RowMajor row_major = k.cast<double>();
  const Matrix<float> transposed = v.transpose();
  cache.append(row_major, transposed.transpose(), rope);
  CHECK(same_bits(cache.keys(), rotated(k, rope, positions(9))));
  CHECK(same_bits(cache.values(), v));
  cache.append(k(Eigen::seqN(0, k.rows()), Eigen::seq(0, 8, 2)), 2 * v(Eigen::seqN(0, v.rows()), Eigen::seq(0, 8, 2)));
  CHECK(same_bits(cache.keys().col(10), k.col(2)));
  CHECK(same_bits(cache.values().col(10), 2 * v.col(2)));
  cache.append(cache.keys().leftCols(2), cache.values().leftCols(2));  // its own
  CHECK(same_bits(cache.keys().rightCols(2), cache.keys().leftCols(2)));
}

TEST_CASE("Positions that count up are known to, however they were given", "[kv_cache]") {
  const auto k = some_keys(10);
  const auto v = some_values(10);
  KvCache<float> cache(room_for(30));
  cache.append(k.leftCols(3), v.leftCols(3), Entries{7, 8, 9});
  cache.append(k.col(0), v.col(0), Entries{10});
  cache.append(k.col(0), v.col(0));
  CHECK(cache.positions().is_contiguous());
  CHECK(entries(cache.positions()) == Entries{7, 8, 9, 10, 11});

  cache.append(k.leftCols(2), v.leftCols(2), Entries{13, 14});  // a gap
  CHECK_FALSE(cache.positions().is_contiguous());
  CHECK(entries(cache.positions()) == Entries{7, 8, 9, 10, 11, 13, 14});
  CHECK(cache.next_position() == 15);
  cache.append(k.col(0), v.col(0));
  CHECK_FALSE(cache.positions().is_contiguous());

  cache.truncate(5);  // before the gap
  CHECK(cache.positions().is_contiguous());
  CHECK(cache.next_position() == 12);
  cache.append(k.col(0), v.col(0), Entries{12});
  CHECK(cache.positions().is_contiguous());
  cache.evict({.num_tokens = 2});
  CHECK(cache.positions().is_contiguous());
  CHECK(entries(cache.positions()) == Entries{9, 10, 11, 12});

  cache.reset();
  CHECK(cache.size() == 0);
  CHECK(cache.next_position() == 0);
  cache.append(k.leftCols(2), v.leftCols(2), Entries{3, 1});
  CHECK_FALSE(cache.positions().is_contiguous());
  cache.evict({.num_tokens = 1});
  CHECK(cache.positions().is_contiguous());
}

TEST_CASE("Positions of several axes", "[kv_cache]") {
  auto options = room_for(20);
  options.num_axes = 3;
  KvCache<float> cache(options);
  const auto k = some_keys(6);
  const auto v = some_values(6);
  const Entries image{4, 4, 4, 4, /**/ 4, 4, 5, 5, /**/ 4, 5, 4, 5};
  const RopeFrequencies plain = rope_frequencies(dim);
  RopeFrequencies frequencies = plain;
  frequencies.axes = {0, 1, 2, 1};
  const Rope axial(frequencies, {.head_dim = dim});

  cache.append(k.leftCols(2), v.leftCols(2), axial);  // the same on all axes
  CHECK(cache.positions().num_axes() == 3);
  CHECK(entries(cache.positions()) == Entries{0, 1, 0, 1, 0, 1});
  cache.append(k.rightCols(4), v.rightCols(4), Positions::axes(image, 3), axial);
  CHECK(entries(cache.positions()) == Entries{0, 1, 4, 4, 4, 4, 0, 1, 4, 4, 5, 5, 0, 1, 4, 5, 4, 5});
  CHECK(cache.next_position() == 6);
  Matrix<float> expected = k.rightCols(4);
  axial(expected, Positions::axes(image, 3));
  CHECK(same_bits(cache.keys().rightCols(4), expected));

  cache.evict({.num_tokens = 1, .num_sink_tokens = 1}, axial);  // the image moves up by 3 on every axis
  CHECK(entries(cache.positions()) == Entries{0, 1, 1, 1, 1, 0, 1, 1, 2, 2, 0, 1, 2, 1, 2});
  const Entries moved{1, 1, 1, 1, 1, 1, 2, 2, 1, 2, 1, 2};
  expected = k.rightCols(4);
  axial(expected, Positions::axes(moved, 3));
  CHECK(support::distance(cache.keys().rightCols(4), expected) < 1e-6);
}

TEST_CASE("Eviction closes the gap behind the sinks; positions and keys stay", "[kv_cache]") {
  const auto k = some_keys(10);
  const auto v = some_values(10);
  KvCache<float> cache(room_for(10));
  cache.append(k, v, rope);
  cache.evict({.num_tokens = 5, .num_sink_tokens = 2});
  CHECK(entries(cache.positions()) == Entries{0, 1, 7, 8, 9});
  const std::vector<Index> kept{0, 1, 7, 8, 9};
  CHECK(same_bits(cache.keys(), rotated(k, rope, positions(10))(Eigen::seqN(0, k.rows()), kept)));
  CHECK(same_bits(cache.values(), v(Eigen::seqN(0, v.rows()), kept)));
  CHECK(cache.next_position() == 10);

  cache.evict({.num_tokens = 0, .num_sink_tokens = 3});
  CHECK(cache.size() == 5);
  cache.evict({.num_tokens = 3, .num_sink_tokens = 2});  // all behind the sinks
  CHECK(entries(cache.positions()) == Entries{0, 1});
  CHECK(cache.positions().is_contiguous());
  cache.evict({.num_tokens = 2});
  CHECK(cache.size() == 0);
}

TEST_CASE("Eviction may move the tokens behind the gap, by one exact rotation", "[kv_cache]") {
  const auto k = some_keys<double>(10);
  const auto v = some_values<double>(10);
  const Rope yarn(yarn_rope_frequencies(dim, 10000, {.factor = 4, .original_max_position_embeddings = 64}),
                  {.head_dim = dim});
  REQUIRE(yarn.frequencies().magnitude > 1.1);
  KvCache<double> cache(room_for(10));
  cache.append(k, v, positions(10, 1 << 20), yarn);
  cache.evict({.num_tokens = 5, .num_sink_tokens = 2}, yarn);
  CHECK(cache.positions().is_contiguous());
  CHECK(entries(cache.positions()) == entries(positions(5, 1 << 20)));
  const std::vector<Index> kept{0, 1, 7, 8, 9};
  const Matrix<double> left = k(Eigen::seqN(0, k.rows()), kept);
  CHECK(support::distance(cache.keys(), rotated(left, yarn, positions(5, 1 << 20))) < 1e-14);  // one magnitude
  CHECK(same_bits(cache.keys().leftCols(2), rotated(k, yarn, positions(10, 1 << 20)).leftCols(2)));
  CHECK(same_bits(cache.values(), v(Eigen::seqN(0, v.rows()), kept)));

  cache.evict({.num_tokens = 3, .num_sink_tokens = 2}, yarn);  // nothing is left to be moved
  CHECK(cache.size() == 2);
}

TEST_CASE("A hundred evictions in float stay within the promise of move_keys", "[kv_cache]") {
  const auto k = some_keys(400);
  const auto v = some_values(400);
  KvCache<float> cache(room_for(40));
  cache.append(k.leftCols(40), v.leftCols(40), rope);
  for (Index t = 40; t < 400; ++t) {
    if (cache.size() == cache.capacity()) cache.evict({.num_tokens = 3, .num_sink_tokens = 4}, rope);
    cache.append(k.col(t), v.col(t), rope);
    CHECK(cache.positions().is_contiguous());
  }
  Matrix<float> kept(heads * dim, cache.size());
  kept << k.leftCols(4), k.rightCols(cache.size() - 4);
  CHECK(same_bits(cache.values().rightCols(cache.size() - 4), v.rightCols(cache.size() - 4)));
  const Matrix<float> expected = rotated(kept, rope, positions(cache.size()));
  CHECK(support::distance(cache.keys(), expected) < 8 * 0x1p-23 * 4);  // 8 ulp of a pair shorter than 4
}

TEST_CASE("Keys move to another base, and to other positions", "[kv_cache]") {
  const auto k = some_keys<double>(10);
  const auto v = some_values<double>(10);
  const Rope longer({.head_dim = dim, .base = 5e5});
  KvCache<double> cache(room_for(12));
  cache.append(k, v, rope);
  cache.move_keys(rope, longer, cache.positions());
  CHECK(support::distance(cache.keys(), rotated(k, longer, positions(10))) < 1e-14);
  CHECK(cache.positions().is_contiguous());
  const Entries spread{0, 2, 4, 6, 8, 10, 12, 14, 16, 18};
  cache.move_keys(longer, spread);
  CHECK(support::distance(cache.keys(), rotated(k, longer, spread)) < 1e-14);
  CHECK(entries(cache.positions()) == spread);
  CHECK_FALSE(cache.positions().is_contiguous());
  CHECK(cache.next_position() == 19);

  const XPos near(rope, {.center = 0}), far(rope, {.center = 400});
  KvCache<double> decayed(room_for(12));
  decayed.append(k, v, near);
  decayed.move_keys(near, far, decayed.positions());
  decayed.evict({.num_tokens = 4, .num_sink_tokens = 1}, far);
  Matrix<double> expected = k(Eigen::seqN(0, k.rows()), std::vector<Index>{0, 5, 6, 7, 8, 9});
  far.apply_key(expected, positions(6));
  CHECK(support::distance(decayed.keys(), expected) < 1e-13);
}

TEST_CASE("What does not fit is an error, and the cache is as it was", "[kv_cache]") {
  KvCache<float> cache(room_for(10));
  cache.append(some_keys(6), some_values(6), Entries{3, 1, 4, 1, 5, 9}, rope);
  const Seen before(cache);
  const auto k = some_keys(4, 8);
  const auto v = some_values(4, 9);
  const auto invalid = [&](const auto& action) { return message_of<std::invalid_argument>(action); };
  const auto out_of_range = [&](const auto& action) { return message_of<std::out_of_range>(action); };

  CHECK(out_of_range([&] { cache.append(some_keys(5), some_values(5), rope); }) ==
        "posenc::KvCache: tokens must be at most the capacity, got 11");
  CHECK(invalid([&] { cache.append(k.topRows(3), v); }) ==
        "posenc::KvCache: rows of the keys must be num_kv_heads * head_dim = 16, got 3");
  CHECK(invalid([&] { cache.append(k, v.topRows(3)); }) ==
        "posenc::KvCache: rows of the values must be num_kv_heads * value_dim = 10, got 3");
  CHECK(invalid([&] { cache.append(k, v.leftCols(3)); }) ==
        "posenc::KvCache: columns of the values must be those of the keys = 4, got 3");
  CHECK(invalid([&] { cache.append(k, v, positions(3)); }) ==
        "posenc::KvCache: positions must be as many as the keys = 4, got 3");
  const Entries two_axes(8, 1);
  CHECK(invalid([&] { cache.append(k, v, Positions::axes(two_axes, 2)); }) ==
        "posenc::KvCache: axes of the positions must be 1 or num_axes = 1, got 2");
  CHECK(out_of_range([&] { cache.append(k, v, positions(4, 8), RopeTable<float>(rope, 10)); }) ==
        "posenc::RopeTable: a position must be in the table, got 10");
  CHECK(invalid([&] { cache.append(k, v, Rope({.head_dim = 6})); }) ==
        "posenc::Rope: features of a column must be a multiple of head_dim = 6, got 8");

  CHECK(out_of_range([&] { cache.evict({.num_tokens = 5, .num_sink_tokens = 2}); }) ==
        "posenc::KvCache: what is evicted must be behind the sinks and in the cache, got 5");
  CHECK(out_of_range([&] { cache.evict({.num_tokens = 0, .num_sink_tokens = 7}, rope); }) ==
        "posenc::KvCache: what is evicted must be behind the sinks and in the cache, got 0");
  CHECK(invalid([&] { cache.evict({.num_tokens = -1}); }) ==
        "posenc::KvCache: num_tokens must not be negative, got -1");
  CHECK(invalid([&] { cache.evict({.num_sink_tokens = -1}); }) ==
        "posenc::KvCache: num_sink_tokens must not be negative, got -1");
  CHECK(invalid([&] { cache.evict({.num_tokens = 1}, Rope({.head_dim = 6})); }) ==
        "posenc::move_keys: features of a column must be a multiple of head_dim = 6, got 16");
  CHECK(out_of_range([&] { cache.truncate(7); }) ==
        "posenc::KvCache: what is kept must be among the tokens in the cache, got 7");
  CHECK(out_of_range([&] { cache.truncate(-1); }) ==
        "posenc::KvCache: what is kept must be among the tokens in the cache, got -1");
  CHECK(out_of_range([&] { cache.keys(2); }) == "posenc::KvCache: head must be below num_kv_heads, got 2");
  CHECK(out_of_range([&] { cache.values(-1); }) == "posenc::KvCache: head must be below num_kv_heads, got -1");
  CHECK(invalid([&] { cache.move_keys(rope, positions(5)); }) ==
        "posenc::KvCache: positions must be as many as the keys = 6, got 5");
  const Entries too_far(6, (std::int64_t{1} << 53) + 1);
  CHECK(out_of_range([&] { cache.move_keys(rope, too_far); }) ==
        "posenc::move_keys: |position| must be at most 2^53, got 9007199254740993");
  CHECK(Seen(cache) == before);

  const auto refused = [&](const KvCacheOptions& options) { return invalid([&] { KvCache<float> made(options); }); };
  CHECK(refused({.head_dim = 8}) == "posenc::KvCache: capacity must be positive, got 0");
  CHECK(refused({.capacity = 8}) == "posenc::KvCache: head_dim must be positive, got 0");
  CHECK(refused({.num_kv_heads = 0, .head_dim = 8, .capacity = 8}) ==
        "posenc::KvCache: num_kv_heads must be positive, got 0");
  CHECK(refused({.head_dim = 8, .value_dim = -1, .capacity = 8}) ==
        "posenc::KvCache: value_dim must be positive, got -1");
  CHECK(refused({.head_dim = 8, .capacity = 8, .num_axes = 0}) == "posenc::KvCache: num_axes must be positive, got 0");
  CHECK(KvCache<float>({.head_dim = 8, .capacity = 8}).value_dim() == 8);
}

TEMPLATE_TEST_CASE("Nothing is allocated after construction", "[kv_cache]", float, Eigen::half) {
  KvCache<TestType> cache(room_for(100));
  const auto k = some_keys(100);
  const auto v = some_values(100);
  const Entries anywhere(20, 3);
  const RopeTable<float> table(rope, 200);
  CHECK_FALSE(laws::allocates([&] {
    cache.append(k.leftCols(70), v.leftCols(70), table);
    cache.append(k.leftCols(20), v.leftCols(20), anywhere, rope);
    cache.append(k.col(0), v.col(0));
    cache.evict({.num_tokens = 30, .num_sink_tokens = 4});
    cache.evict({.num_tokens = 20, .num_sink_tokens = 4}, rope);
    cache.move_keys(rope, cache.positions());
    cache.truncate(7);
    cache.reset();
  }));
}

TEST_CASE("A text in chunks gives what it gives as a whole", "[kv_cache]") {
  const Index num_tokens = 150, num_heads = 4;
  const auto q = random_matrix<float>(num_heads * dim, num_tokens, 3);
  const auto k = some_keys(num_tokens);
  const auto v = some_values(num_tokens);
  const RopeTable<float> table(rope, num_tokens);
  std::array workspaces{AttentionWorkspace<float>(dim, value_dim)};

  Matrix<float> whole(num_heads * value_dim, num_tokens);
  const auto all = positions(num_tokens);
  streaming_attend_heads_into(
      whole, q, k, v, {.query_positions = all, .key_positions = all, .num_heads = num_heads, .num_kv_heads = heads},
      workspaces, OnCallingThread{}, table, CausalMask{});

  KvCache<float> at_once(room_for(num_tokens));
  at_once.append(k, v, table);
  for (const Index chunk : {1, 7, 64, 150}) {
    CAPTURE(chunk);
    KvCache<float> cache(room_for(num_tokens));
    Matrix<float> outputs(num_heads * value_dim, num_tokens);
    for (Index first = 0; first < num_tokens; first += chunk) {
      const Index some = std::min(chunk, num_tokens - first);
      const Positions here = positions(some, cache.next_position());
      cache.append(k.middleCols(first, some), v.middleCols(first, some), table);
      Matrix<float> queries = q.middleCols(first, some);
      table(queries, here);
      streaming_attend_heads_into(
          outputs.middleCols(first, some), queries, cache.keys(), cache.values(),
          {.query_positions = here, .key_positions = cache.positions(), .num_heads = num_heads, .num_kv_heads = heads},
          workspaces, OnCallingThread{}, CausalMask{});
    }
    CHECK(same_bits(cache.keys(), at_once.keys()));  // keys do not depend on the chunks
    CHECK(same_bits(cache.values(), at_once.values()));
    CHECK(support::distance(outputs, whole) <= 2e-6 * static_cast<double>(whole.cwiseAbs().maxCoeff()));
  }
}

TEST_CASE("A window with sinks: the cache attends as a mask over the whole text does", "[kv_cache]") {
  const Index num_tokens = 60, window = 16, sinks = 4;
  const auto q = random_matrix<float>(heads * dim, num_tokens, 3);
  const auto k = some_keys(num_tokens);
  const auto v = some_values(num_tokens);
  KvCache<float> cache(room_for(window + sinks));
  for (Index t = 0; t < num_tokens; ++t) {
    if (cache.size() == cache.capacity()) cache.evict({.num_tokens = 1, .num_sink_tokens = sinks});
    cache.append(k.col(t), v.col(t), positions(1, t), rope);
    Matrix<float> query = q.col(t);
    rope(query, positions(1, t));
    std::vector<int> visible;
    for (Index n = 0; n <= t; ++n) visible.push_back(n < sinks || t - n < window ? 1 : 0);
    for (Index head = 0; head < heads; ++head) {
      const auto ours = streaming_attend(query.middleRows(head * dim, dim), cache.keys(head), cache.values(head),
                                         {.query_positions = positions(1, t), .key_positions = cache.positions()});
      const auto masked =
          attend(q.middleRows(head * dim, dim).col(t), k.middleRows(head * dim, dim).leftCols(t + 1),
                 v.middleRows(head * value_dim, value_dim).leftCols(t + 1),
                 {.query_positions = positions(1, t), .key_positions = positions(t + 1)}, rope, PaddingMask(visible));
      REQUIRE(support::distance(ours, masked) < 5e-6);
    }
  }
}
