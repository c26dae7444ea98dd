// SPDX-License-Identifier: MIT

// What streaming attention promises beyond its results: tiles that are left out, memory, views, numbers that are not finite,
// errors.

#include "../property/allocations.hpp"  // before Eigen

#include <posenc/alibi.hpp>
#include <posenc/clipped_relative.hpp>
#include <posenc/detail/attention_tile.hpp>
#include <posenc/detail/packet.hpp>
#include <posenc/masks.hpp>
#include <posenc/rope.hpp>
#include <posenc/rope_table.hpp>
#include <posenc/streaming_attention.hpp>

#include <Eigen/Core>
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <type_traits>
#include <vector>

#include "../instrumented.hpp"
#include "../streaming.hpp"

using namespace posenc;
using namespace streaming;
using support::message_of;
using support::random_matrix;
using support::same_bits;

namespace {

/// A bias that hides its bounds, so that nothing is left out. What is left of them is their order: that is the order in
/// which keys are walked, and with it how sums are rounded. The bounds of all keys together are told.
template <class Bias>
struct Unbounded {
  Bias bias;
  Index num_keys;

  template <MutableDense Scores>
  void add_bias(Scores&& scores, const Positions& keys, const Positions& queries, Index head) const {
    bias.add_bias(scores, keys, queries, head);
  }
  BiasBounds bounds(const Positions& keys, const Positions& queries, Index head) const {
    const BiasBounds exact = bias.bounds(keys, queries, head);
    return keys.size() == num_keys ? exact : BiasBounds{exact.lowest, 1e6 + std::max(exact.highest, -1e5)};
  }
  double at_distance(std::int64_t key_minus_query, Index head) const requires DistanceBias<Bias> {
    return bias.at_distance(key_minus_query, head);
  }
  bool is_by_distance() const requires DistanceBias<Bias> { return detail::is_by_distance(bias); }
};
static_assert(DistanceBias<Unbounded<CausalMask>> && !DistanceBias<Unbounded<DocumentMask>>);

template <class Scalar, class... Encodings>
StreamCount attend_into(Matrix<Scalar>& outputs, const Tokens<Scalar>& x, const AttentionOptions& options,
                        const Encodings&... encodings) {
  AttentionWorkspace<Scalar> workspace(x.q.rows(), x.v.rows());
  outputs.resize(x.v.rows(), x.q.cols());
  return streaming_attend_into(outputs, x.q, x.k, x.v, options, workspace, encodings...);
}

/// The bits of the results are those of a walk that leaves nothing out. Returns how many tiles were left out.
template <class Scalar, class... Biases>
Index skipped_with_same_bits(const Tokens<Scalar>& x, const AttentionOptions& options, const Biases&... biases) {
  Matrix<Scalar> skipping, complete;
  const StreamCount count = attend_into(skipping, x, options, biases...);
  const StreamCount all = attend_into(complete, x, options, Unbounded<Biases>{biases, x.k.cols()}...);
  CHECK(same_bits(skipping, complete));
  CHECK(all.skipped == 0);
  CHECK(count.tiles + count.skipped == all.tiles);
  return count.skipped;
}

std::vector<std::int64_t> documents(Index size, Index length) {
  std::vector<std::int64_t> numbers;
  for (Index t = 0; t < size; ++t) numbers.push_back(t / length);
  return numbers;
}

Alibi slope(double s, AlibiForm form = AlibiForm::distance) { return Alibi(Vector<double>::Constant(1, s), form); }

}  // namespace

TEMPLATE_TEST_CASE("Tiles that weigh nothing are left out, and the bits are the same", "[streaming]", float, double) {
  const Tokens<TestType> x({500, 700, 16, 9});
  for (const Place& place : {from_zero(500, 700), behind_a_cache(500, 700), as_arrays(behind_a_cache(500, 700))}) {
    if (is_instrumented && place.query_array.empty()) continue;
    CAPTURE(place.name);
    const AttentionOptions options = place.options();
    CHECK(skipped_with_same_bits(x, options, CausalMask{}) > 0);
    CHECK(skipped_with_same_bits(x, options, slope(8)) > 0);
    CHECK(skipped_with_same_bits(x, options, slope(8, AlibiForm::causal)) > 0);
    if constexpr (std::is_same_v<TestType, float>) {  // which tiles are left out does not depend on the scalar
      CHECK(skipped_with_same_bits(x, options, SlidingWindow({.left = 100, .right = 20})) > 0);
      CHECK(skipped_with_same_bits(x, options, DocumentMask(documents(700, 150), documents(500, 120))) > 0);
    }
    const Index causal = skipped_with_same_bits(x, options, CausalMask{});
    CHECK(skipped_with_same_bits(x, options, slope(8), CausalMask{}) > causal);
    CHECK(skipped_with_same_bits(x, options, slope(0.001)) == 0);
    CHECK(skipped_with_same_bits(x, options, slope(8, AlibiForm::key_only)) > 0);
  }
  skipped_with_same_bits(x, anywhere(500, 700).options(), slope(50), CausalMask{});
}

TEST_CASE("A fused term gives the same bits whatever is left out, over several panels of queries", "[streaming]") {
  const Tokens<float> x({300, 640, 16, 9});  // and two stretches of keys
  const auto both = [](Index k) {
    return ClippedRelative<float>(random_matrix<float>(16, 2 * k + 1, 5), random_matrix<float>(9, 2 * k + 1, 6));
  };
  for (const Place& place : {from_zero(300, 640), behind_a_cache(300, 640)})
    for (const Index k : {0, 1, 16, 64, 128}) {
      CAPTURE(place.name, k);
      const AttentionOptions options = place.options();
      const auto relative = both(k);
      const auto check = [&](const auto& bias) {
        Matrix<float> skipping, complete;
        const StreamCount count = attend_into(skipping, x, options, relative, bias);
        attend_into(complete, x, options, relative, Unbounded<std::remove_cvref_t<decltype(bias)>>{bias, x.k.cols()});
        CHECK(count.skipped > 0);
        CHECK(same_bits(skipping, complete));
        expect_reference(x, options, pack(relative, bias));
      };
      check(CausalMask{});
      check(SlidingWindow({.left = 40, .right = 3}));
    }
}

TEST_CASE("Weights: e^x to 2e-7 + 8e-8 |x|, and 0 below e^-87", "[streaming]") {
  constexpr Index n = detail::Simd<float>::tile_width;
  Vector<float> weights(n), maxima(n), sums(n);
  double excess = 0;
  for (const float maximum : {0.0F, 1.0F, 2097152.0F}) {  // at the last, powers of two would not do
    maxima.setConstant(maximum);
    for (double first = 0; first > -86.97; first -= 7e-3) {
      Vector<double> x(n);
      for (Index i = 0; i < n; ++i) {
        weights[i] = maximum + static_cast<float>(first - 1e-5 * static_cast<double>(i));
        x[i] = static_cast<double>(weights[i]) - static_cast<double>(maximum);
      }
      sums.setZero();
      detail::weigh<detail::Simd<float>::tile_packets>(weights.data(), 1, maxima.data(), sums.data());
      CHECK((sums.array() == weights.array()).all());
      // what rounding makes of the weight of the maximum is a factor of all
      Vector<float> largest = maxima;
      detail::weigh<detail::Simd<float>::tile_packets>(largest.data(), 1, maxima.data(), sums.data());
      for (Index i = 0; i < n; ++i) {
        if (x[i] <= -86.98) continue;
        const double error = std::abs(weights[i] / (std::exp(x[i]) * static_cast<double>(largest[i])) - 1);
        excess = std::max(excess, error - 8e-8 * std::abs(x[i]));
      }
    }
    for (const float nothing : {-88.0F, -103.0F, -1e30F, -static_cast<float>(streaming::infinity)}) {
      weights.setConstant(maximum + nothing);
      detail::weigh<detail::Simd<float>::tile_packets>(weights.data(), 1, maxima.data(), sums.data());
      CHECK((weights.array() == 0).all());
    }
  }
  CAPTURE(excess);
  CHECK(excess <= 2e-7);
}

TEST_CASE("Exponentials: e^x to 2e-7, to 4e-7 far below 1, and 0 below e^-87", "[streaming]") {
  constexpr Index n = detail::Simd<float>::lanes;
  Vector<float> x(n), weights(n);
  const auto exponentials = [&] {
    detail::store(weights.data(), detail::exp_of_negative<float>(detail::load(x.data())));
  };
  double near = 0, far = 0;
  for (double first = 0; first > -86.98; first -= 1e-4) {
    for (Index i = 0; i < n; ++i) x[i] = static_cast<float>(first - 1e-5 * static_cast<double>(i));
    exponentials();
    for (Index i = 0; i < n; ++i) {
      const double exact = std::exp(static_cast<double>(x[i]));
      if (x[i] <= -86.98F) continue;
      double& worst = x[i] > -16 ? near : far;
      worst = std::max(worst, std::abs(weights[i] / exact - 1));
    }
  }
  CAPTURE(near, far);
  CHECK(near <= 2e-7);
  CHECK(far <= 4e-7);
  for (const float nothing : {-87.0F, -88.0F, -103.0F, -1e30F, -static_cast<float>(streaming::infinity)}) {
    x.setConstant(nothing);
    exponentials();
    CHECK((weights.array() == 0).all());
  }
  x.setZero();
  exponentials();
  CHECK((weights.array() == 1).all());
  x.setConstant(std::numeric_limits<float>::quiet_NaN());
  exponentials();
  CHECK(weights.array().isNaN().all());
}

TEST_CASE("Tiles are left out for a single query too, with a cap, a sink and a negative scale", "[streaming]") {
  for (const Index num_queries : {1, 2, 65}) {
    const Tokens<float> x({num_queries, 2000, 16, 9});
    AttentionOptions options = behind_a_cache(num_queries, 2000).options();
    CHECK(skipped_with_same_bits(x, options, slope(2), CausalMask{}) > 0);
    CHECK(skipped_with_same_bits(x, options, SlidingWindow({.left = 100})) > 0);
    options.soft_cap = 5;
    options.sink = 1;
    CHECK(skipped_with_same_bits(x, options, slope(2), CausalMask{}) > 0);
    options.soft_cap = 0;
    options.scale = -2;
    CHECK(skipped_with_same_bits(x, options, slope(2), CausalMask{}) > 0);
  }
}

TEST_CASE("Large scores keep tiles that a bias alone would leave out", "[streaming]") {
  Tokens<float> x({130, 900, 16, 9});
  x.q *= 30;
  x.k.leftCols(3) *= 30;  // far away, and yet the largest scores
  const AttentionOptions options = behind_a_cache(130, 900).options();
  skipped_with_same_bits(x, options, slope(2), CausalMask{});
  expect_reference<true>(x, options, pack(slope(2), CausalMask{}));
}

TEST_CASE("Nothing is allocated once there is a workspace", "[streaming]") {
  const Tokens<float> x({130, 700, 20, 7});
  const Tokens<Eigen::half> small({130, 700, 20, 7});
  Matrix<float> outputs(7, 130);
  Matrix<Eigen::half> small_outputs(7, 130);
  AttentionWorkspace<float> workspace(20, 7);
  const Rope rope({.head_dim = 20});
  const RopeTable<float> table(rope, 2000);
  const Alibi alibi(1);
  const ClippedRelative<float> relative(random_matrix<float>(20, 9), random_matrix<float>(7, 9));
  const DocumentMask same_document(documents(700, 90));
  const PaddingMask padding(std::vector<int>(700, 1));
  for (const Place& place : places(130, 700)) {
    CAPTURE(place.name);
    AttentionOptions options = place.options();
    CHECK_FALSE(laws::allocates([&] {
      streaming_attend_into(outputs, x.q, x.k, x.v, options, workspace);
      streaming_attend_into(outputs, x.q, x.k, x.v, options, workspace, alibi, CausalMask{});
      streaming_attend_into(outputs, x.q, x.k, x.v, options, workspace, relative, rope, same_document, padding);
      streaming_attend_into(outputs, x.q, x.k, x.v, options, workspace, relative, CausalMask{});
      streaming_attend_into(small_outputs, small.q, small.k, small.v, options, workspace, rope, CausalMask{});
    }));
    options.query_positions = options.query_positions.segment(5, 1);
    options.soft_cap = 10;
    CHECK_FALSE(laws::allocates([&] {
      const auto q = x.q.col(5);
      auto o = outputs.col(5);
      streaming_attend_into(o, q, x.k, x.v, options, workspace, rope, alibi, CausalMask{});
      streaming_attend_into(o, q, x.k, x.v, options, workspace, relative, padding);
    }));
  }
  if (const Place place = from_zero(130, 700); true)
    CHECK_FALSE(laws::allocates(
        [&] { streaming_attend_into(outputs, x.q, x.k, x.v, place.options(), workspace, table, CausalMask{}); }));
}

TEST_CASE("Inputs of any storage order and stride, and outputs as well", "[streaming]") {
  using RowMajor = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  using Strided = Eigen::Map<const Matrix<float>, 0, Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>>;
  const Alibi alibi(1);
  for (const auto& lengths : {std::pair<Index, Index>{70, 600}, {1, 600}, {5, 3}}) {
    const Index num_queries = lengths.first, num_keys = lengths.second;
    const Tokens<float> x({num_queries, num_keys, 20, 7});
    const AttentionOptions options = behind_a_cache(num_queries, num_keys).options();
    AttentionWorkspace<float> workspace(20, 7);
    const auto expected = streaming_attend(x.q, x.k, x.v, options, alibi, CausalMask{});
    const auto check = [&](const auto& q, const auto& k, const auto& v) {
      Matrix<float> outputs(7, num_queries);
      streaming_attend_into(outputs, q, k, v, options, workspace, alibi, CausalMask{});
      CHECK(same_bits(outputs, expected));
    };
    check(RowMajor(x.q), RowMajor(x.k), RowMajor(x.v));
    const Matrix<float> q_of_tokens = x.q.transpose(), k_of_tokens = x.k.transpose(), v_of_tokens = x.v.transpose();
    check(q_of_tokens.transpose(), k_of_tokens.transpose(), v_of_tokens.transpose());

    Matrix<float> larger = Matrix<float>::Constant(60, num_keys + 2, std::numeric_limits<float>::quiet_NaN());
    larger.block(3, 1, 20, num_keys) = x.k;
    larger.block(30, 1, 7, num_keys) = x.v;
    check(x.q, larger.block(3, 1, 20, num_keys), larger.block(30, 1, 7, num_keys));

    Matrix<float> spread = Matrix<float>::Zero(40, num_keys * 2);
    for (Index t = 0; t < num_keys; ++t)
      for (Index d = 0; d < 20; ++d) spread(2 * d, 2 * t) = x.k(d, t);
    check(x.q, Strided(spread.data(), 20, num_keys, Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>(80, 2)), x.v);
    check(x.q * 1.0f, -(-x.k), x.v.reverse().reverse());  // expressions
    check(Eigen::Ref<const Matrix<float>>(x.q), Eigen::Ref<const Matrix<float>>(x.k), x.v);

    RowMajor row_major(7, num_queries);
    streaming_attend_into(row_major, x.q, x.k, x.v, options, workspace, alibi, CausalMask{});
    CHECK(same_bits(row_major, expected));
    Matrix<float> transposed(num_queries, 7);
    streaming_attend_into(transposed.transpose(), x.q, x.k, x.v, options, workspace, alibi, CausalMask{});
    CHECK(same_bits(transposed.transpose(), expected));
    Matrix<float> frame = Matrix<float>::Zero(9, num_queries + 2);
    streaming_attend_into(frame.block(1, 1, 7, num_queries), x.q, x.k, x.v, options, workspace, alibi, CausalMask{});
    CHECK(same_bits(frame.block(1, 1, 7, num_queries), expected));
    CHECK(frame.row(0).isZero(0));
    CHECK(frame.row(8).isZero(0));
    Matrix<Eigen::bfloat16> rounded(7, num_queries);
    streaming_attend_into(rounded, x.q, x.k, x.v, options, workspace, alibi, CausalMask{});
    CHECK(same_bits(rounded, expected.cast<Eigen::bfloat16>()));
  }
}

TEST_CASE("Vectors are matrices of one token", "[streaming]") {
  const Eigen::VectorXf q = Eigen::VectorXf::Random(8), k = Eigen::VectorXf::Random(8), v = Eigen::VectorXf::Random(5);
  const auto outputs = streaming_attend(q, k, v, positions(1), CausalMask{});
  CHECK(support::distance(outputs, v) < 1e-7);
  const Eigen::RowVectorXf one_feature = Eigen::RowVectorXf::Random(70);
  expect_reference(Tokens<float>({70, 70, 1, 1}), from_zero(70, 70).options(), pack(CausalMask{}));
  CHECK(relative_distance(streaming_attend(one_feature, one_feature, one_feature, positions(70)),
                          attend(one_feature, one_feature, one_feature, positions(70))) <= 2e-6);
}

TEST_CASE("A query that sees nothing gets zeros", "[streaming]") {
  for (const Index num_queries : {1, 2, 70}) {
    Tokens<float> x({num_queries, 130, 16, 9});
    const AttentionOptions early{.query_positions = positions(num_queries, -1000), .key_positions = positions(130)};
    CHECK(streaming_attend(x.q, x.k, x.v, early, CausalMask{}).isZero(0));
    CHECK(streaming_attend(x.q, x.k, x.v, early, Unbounded<CausalMask>{{}, 130}).isZero(0));
    CHECK(streaming_attend(x.q, x.k, x.v, early, PaddingMask(std::vector<int>(130, 0))).isZero(0));
    AttentionOptions with_sink = early;
    with_sink.sink = -5;
    CHECK(streaming_attend(x.q, x.k, x.v, with_sink, CausalMask{}).isZero(0));

    AttentionOptions half_way{.query_positions = positions(num_queries, -1), .key_positions = positions(130)};
    const auto outputs = streaming_attend(x.q, x.k, x.v, half_way, CausalMask{});
    CHECK(outputs.col(0).isZero(0));
    if (num_queries > 1) CHECK(support::distance(outputs.col(1), x.v.col(0)) < 1e-6);
    const Tokens<float> none({num_queries, 0, 16, 9});
    CHECK(streaming_attend(none.q, none.k, none.v, {.query_positions = positions(num_queries), .key_positions = {}})
              .isZero(0));
  }
}

TEST_CASE("Not a number: who sees it gets it, and nobody else", "[streaming]") {
  // The last is a NaN that carries a number, as one that comes from elsewhere may.
  const float plain = std::numeric_limits<float>::quiet_NaN(), negative = -plain,
              payload = std::bit_cast<float>(0x7fc00001u), full_payload = std::bit_cast<float>(0x7fffffffu);
  for (const float not_a_number : {plain, negative, payload, full_payload})
    for (const Index num_queries : {1, 70}) {
      CAPTURE(num_queries, std::bit_cast<std::uint32_t>(not_a_number));
      const AttentionOptions options = behind_a_cache(num_queries, 200).options();
      const Tokens<float> clean({num_queries, 200, 16, 9});
      const auto expected = streaming_attend(clean.q, clean.k, clean.v, options, CausalMask{});

      Tokens<float> query = clean;
      query.q(3, num_queries - 1) = not_a_number;
      const auto of_query = streaming_attend(query.q, query.k, query.v, options, CausalMask{});
      CHECK(of_query.col(num_queries - 1).array().isNaN().all());
      CHECK(same_bits(of_query.leftCols(num_queries - 1), expected.leftCols(num_queries - 1)));

      Tokens<float> key = clean;
      key.k(3, 100) = not_a_number;  // all queries see it
      CHECK(streaming_attend(key.q, key.k, key.v, options, CausalMask{}).array().isNaN().all());
      CHECK(streaming_attend(key.q, key.k, key.v, options, slope(50), CausalMask{}).array().isNaN().all());

      Tokens<float> value = clean;
      value.v(4, 100) = not_a_number;
      const auto of_value = streaming_attend(value.q, value.k, value.v, options, CausalMask{});
      CHECK(of_value.row(4).array().isNaN().all());
      CHECK(same_bits(of_value.topRows(4), expected.topRows(4)));
      CHECK(same_bits(of_value.bottomRows(4), expected.bottomRows(4)));
    }
}

TEST_CASE("A key that padding hides may hold anything", "[streaming]") {
  for (const float anything : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(), 1e38f})
    for (const Index num_queries : {1, 70}) {
      CAPTURE(anything, num_queries);
      const AttentionOptions options = behind_a_cache(num_queries, 200).options();
      const Tokens<float> clean({num_queries, 200, 16, 9});
      Tokens<float> x = clean;
      x.k.col(100).setConstant(anything);
      std::vector<int> visible(200, 1);
      visible[100] = 0;
      CHECK(same_bits(streaming_attend(x.q, x.k, x.v, options, PaddingMask(visible), CausalMask{}),
                      streaming_attend(clean.q, clean.k, clean.v, options, PaddingMask(visible), CausalMask{})));
    }
}

TEST_CASE("Scores that are huge, or minus infinity", "[streaming]") {
  for (const Index num_queries : {1, 70}) {
    const AttentionOptions options = behind_a_cache(num_queries, 200).options();
    Tokens<float> x({num_queries, 200, 16, 9});
    x.q *= 1e10f;  // one key takes it all
    x.k *= 1e10f;
    const auto huge = streaming_attend(x.q, x.k, x.v, options, CausalMask{});
    CHECK(huge.allFinite());
    CHECK(relative_distance(huge, attend(x.q, x.k, x.v, options, CausalMask{})) <= 2e-6);

    x = Tokens<float>({num_queries, 200, 16, 9});
    x.q.row(0).setOnes();
    x.k(0, 60) = -std::numeric_limits<float>::infinity();  // as good as hidden
    const auto minus = streaming_attend(x.q, x.k, x.v, options, CausalMask{});
    CHECK(minus.allFinite());
    CHECK(relative_distance(minus, attend(x.q, x.k, x.v, options, CausalMask{})) <= 2e-6);

    x.k(0, 60) = std::numeric_limits<float>::infinity();  // inf - inf
    CHECK(streaming_attend(x.q, x.k, x.v, options, CausalMask{}).array().isNaN().all());
    CHECK(attend(x.q, x.k, x.v, options, CausalMask{}).array().isNaN().all());
  }
}

TEST_CASE("What does not fit is an error, and nothing is written", "[streaming]") {
  const Tokens<float> x({5, 9, 16, 4});
  AttentionWorkspace<float> workspace(16, 4);
  Matrix<float> outputs = random_matrix<float>(4, 5, 9);
  const Matrix<float> before = outputs;
  const AttentionOptions fits = from_zero(5, 9).options();
  const auto error = [&](const Matrix<float>& q, const Matrix<float>& k, const Matrix<float>& v,
                         const AttentionOptions& options) {
    return message_of<std::invalid_argument>(
        [&] { streaming_attend_into(outputs, q, k, v, options, workspace, CausalMask{}); });
  };
  const auto with = [&](const auto& change) {
    AttentionOptions options = fits;
    change(options);
    return error(x.q, x.k, x.v, options);
  };
  CHECK(error(x.q, x.k.topRows(15), x.v, fits) ==
        "posenc::attend: rows of the keys must be those of the queries = 16, got 15");
  CHECK(error(x.q.topRows(15), x.k.topRows(15), x.v, fits) ==
        "posenc::streaming_attend: rows of the queries must be head_dim of the workspace = 16, got 15");
  CHECK(error(x.q, x.k, x.v.topRows(3), fits) ==
        "posenc::streaming_attend: rows of the values must be value_dim of the workspace = 4, got 3");
  CHECK(error(x.q, x.k, x.v.leftCols(8), fits) ==
        "posenc::streaming_attend: columns of the values must be those of the keys = 9, got 8");
  CHECK(with([](auto& o) { o.query_positions = positions(4); }) ==
        "posenc::attend: columns of the queries must be the number of query positions = 4, got 5");
  CHECK(with([](auto& o) { o.key_positions = positions(8); }) ==
        "posenc::attend: columns of the keys must be the number of key positions = 8, got 9");
  CHECK(with([](auto& o) { o.scale = streaming::nan; }) == "posenc::attend: scale must be finite, got nan");
  CHECK(with([](auto& o) { o.soft_cap = -2; }) == "posenc::attend: soft_cap must be 0 or positive and finite, got -2");
  CHECK(with([](auto& o) { o.sink = streaming::infinity; }) == "posenc::attend: sink must be below infinity, got inf");
  Matrix<float> other(4, 6), flat(3, 5);
  CHECK(message_of<std::invalid_argument>([&] {
          streaming_attend_into(other, x.q, x.k, x.v, fits, workspace, CausalMask{});
        }) == "posenc::streaming_attend: columns of the outputs must be those of the queries = 5, got 6");
  CHECK(message_of<std::invalid_argument>([&] {
          streaming_attend_into(flat, x.q, x.k, x.v, fits, workspace, CausalMask{});
        }) == "posenc::streaming_attend: rows of the outputs must be those of the values = 4, got 3");
  CHECK(same_bits(outputs, before));
}

TEST_CASE("What an encoding does not accept is its error, and nothing is written", "[streaming]") {
  const Index num_queries = 1300;  // in several blocks, of which only the last has something wrong
  const Tokens<float> x({num_queries, num_queries, 16, 4});
  AttentionWorkspace<float> workspace(16, 4);
  Matrix<float> outputs = random_matrix<float>(4, num_queries, 9);
  const Matrix<float> before = outputs;
  AttentionOptions options = from_zero(num_queries, num_queries).options();
  const auto error = [&](const auto&... encodings) {
    return message_of<std::out_of_range>(
        [&] { streaming_attend_into(outputs, x.q, x.k, x.v, options, workspace, encodings...); });
  };
  const Rope rope({.head_dim = 16});
  CHECK(error(RopeTable<float>(rope, 1299), CausalMask{}) ==
        "posenc::RopeTable: a position must be in the table, got 1299");
  CHECK(error(PaddingMask(std::vector<int>(1299, 1)), CausalMask{}) ==
        "posenc::PaddingMask: keys must be at most the entries of the mask, got 1300");
  CHECK(error(DocumentMask(std::vector<std::int64_t>(1299, 0))).find("posenc::DocumentMask: ") == 0);
  const auto bert = ClippedRelative<float>::bert(random_matrix<float>(16, 2 * 1299 - 1), RelativeScores::query);
  CHECK(error(bert).find("posenc::ClippedRelative: a distance must be in the table, got ") == 0);
  options.head = 2;
  CHECK(error(Alibi(2)) == "posenc::Alibi: head must be below num_heads, got 2");
  CHECK(error(ClippedRelative<float>(random_matrix<float>(32, 5), {}, {.num_heads = 2})) ==
        "posenc::ClippedRelative: head must be below num_heads, got 2");
  CHECK(same_bits(outputs, before));
}

TEST_CASE("A term by distance with keys far ahead, and a bias beyond what a float holds", "[streaming]") {
  const Matrix<float> q = Matrix<float>::Random(8, 70), k = Matrix<float>::Random(8, 90),
                      v = Matrix<float>::Random(8, 90);
  const Matrix<float> table = Matrix<float>::Random(8, 9);
  const ClippedRelative<float> relative(table, table);
  const std::int64_t far = std::int64_t{1} << 40;
  const AttentionOptions ahead{.query_positions = positions(70), .key_positions = positions(90, far)};
  CHECK(streaming_attend(q, k, v, ahead, relative, CausalMask{}).isZero(0));
  const Matrix<float> expected = attend(q, k, v, ahead, relative);
  CHECK((streaming_attend(q, k, v, ahead, relative) - expected).norm() <= 2e-6F * expected.norm());

  const Alibi steep(Eigen::VectorXd::Constant(1, 1e30));
  const AttentionOptions behind{.query_positions = positions(70, 1'000'000'000), .key_positions = positions(90)};
  CHECK(streaming_attend(q, k, v, behind, steep).isApprox(attend(q, k, v, behind, steep)));
}
