// SPDX-License-Identifier: MIT

#include <posenc/sinusoidal.hpp>

#include <Eigen/Core>
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <numbers>
#include <string>
#include <vector>

#include "../catch.hpp"

using namespace posenc;
using Catch::Matchers::WithinAbs;

static_assert(InputEncoding<Sinusoidal, float> && InputEncoding<Sinusoidal, double>);
static_assert(InputEncoding<Sinusoidal, Eigen::half> && InputEncoding<Sinusoidal, Eigen::bfloat16>);
static_assert(!QueryKeyEncoding<Sinusoidal> && !ScoreBias<Sinusoidal>);

namespace {

constexpr auto all_layouts =
    std::array{SinusoidalLayout::interleaved, SinusoidalLayout::sin_cos, SinusoidalLayout::cos_sin};
constexpr auto both_exponents =
    std::array{SinusoidalExponent::two_i_over_dim, SinusoidalExponent::i_over_half_dim_minus_one};
constexpr auto both_odd_dims = std::array{SinusoidalOddDim::extra_sin, SinusoidalOddDim::trailing_zero};

const std::vector<Index> dims{1, 2, 3, 4, 5, 7, 8, 16, 31, 64, 130};

/// Which wave a feature holds: 's' or 'c' and the number of its frequency; '0' for none.
struct Wave {
  char kind;
  Index frequency;
};

/// Read off the conventions feature by feature, as they are written down and not as the library computes them.
Wave wave_of(const SinusoidalOptions& options, Index feature) {
  Index dim = options.dim;
  if (dim % 2 == 1 && options.odd_dim == SinusoidalOddDim::trailing_zero) {
    if (feature == dim - 1) return {'0', 0};
    dim -= 1;
  }
  const Index sines = dim - dim / 2;
  const Index cosines = dim / 2;
  switch (options.layout) {
    case SinusoidalLayout::interleaved:
      return {feature % 2 == 0 ? 's' : 'c', feature / 2};
    case SinusoidalLayout::sin_cos:
      return feature < sines ? Wave{'s', feature} : Wave{'c', feature - sines};
    case SinusoidalLayout::cos_sin:
      return feature < cosines ? Wave{'c', feature} : Wave{'s', feature - cosines};
  }
  return {'?', 0};
}

/// The encoding of one feature in long double.
long double expected(const SinusoidalOptions& options, Index feature, long double position) {
  const Wave wave = wave_of(options, feature);
  if (wave.kind == '0') return 0;
  const bool odd_zero = options.dim % 2 == 1 && options.odd_dim == SinusoidalOddDim::trailing_zero;
  const Index dim = odd_zero ? options.dim - 1 : options.dim;
  const auto i = static_cast<long double>(wave.frequency);
  long double exponent = 2 * i / static_cast<long double>(dim);
  if (options.exponent == SinusoidalExponent::i_over_half_dim_minus_one)
    exponent = dim <= 2 ? 0 : i / (static_cast<long double>((dim + 1) / 2) - 1);
  const long double frequency = options.frequency_scale * std::pow(static_cast<long double>(options.base), -exponent);
  const long double angle = (position + options.first_position) * frequency;
  return options.scale * (wave.kind == 's' ? std::sin(angle) : std::cos(angle));
}

/// The letters of the pictures in the documentation: frequencies a > b > c ..., s for sine, c for cosine, 00 for zero.
/// Found from the numbers alone.
std::string picture(const SinusoidalOptions& options) {
  const Sinusoidal sinusoidal(options);
  const Matrix<double> table = sinusoidal.table<double>(positions(1, 3));
  std::string letters;
  for (Index feature = 0; feature < options.dim; ++feature) {
    std::string found = table(feature, 0) == 0 ? "00" : "??";
    for (Index i = 0; i < sinusoidal.frequencies().size(); ++i) {
      const double angle = 3 * sinusoidal.frequencies()[i];
      if (std::abs(table(feature, 0) - std::sin(angle)) < 1e-9) found = {'s', static_cast<char>('a' + i)};
      if (std::abs(table(feature, 0) - std::cos(angle)) < 1e-9) found = {'c', static_cast<char>('a' + i)};
    }
    letters += (feature > 0 ? " " : "") + found;
  }
  return letters;
}

/// The distance of two neighbouring numbers of Scalar around value.
template <class Scalar>
long double ulp(long double value) {
  int exponent = 0;
  std::frexp(value, &exponent);
  return std::ldexp(1.0L, exponent - std::numeric_limits<Scalar>::digits);
}
template <>
long double ulp<Eigen::half>(long double value) {
  int exponent = 0;
  std::frexp(value, &exponent);
  return std::ldexp(1.0L, std::max(exponent, -13) - 11);  // below 2^-14 the numbers of half are equally far apart
}
template <>
long double ulp<Eigen::bfloat16>(long double value) {
  int exponent = 0;
  std::frexp(value, &exponent);
  return std::ldexp(1.0L, exponent - 8);
}

template <class Scalar>
long double as_long_double(Scalar x) {
  return static_cast<long double>(static_cast<detail::compute_t<Scalar>>(x));
}

template <class Scalar>
Matrix<Scalar> random_matrix(Index rows, Index cols) {
  return Matrix<double>::Random(rows, cols).template cast<Scalar>();
}

}  // namespace

TEST_CASE("sinusoidal: the formula, in every convention", "[sinusoidal]") {
  const std::vector<std::int64_t> where{0, 1, 2, 3, -1, -77, 1000, 4999, 131071};
  for (const Index dim : dims)
    for (const auto layout : all_layouts)
      for (const auto exponent : both_exponents)
        for (const auto odd_dim : both_odd_dims) {
          const SinusoidalOptions options{.dim = dim,
                                          .layout = layout,
                                          .exponent = exponent,
                                          .odd_dim = odd_dim,
                                          .base = 500,
                                          .frequency_scale = 0.75,
                                          .first_position = 2.5,
                                          .scale = 0.125};
          const Matrix<double> table = Sinusoidal(options).table<double>(where);
          REQUIRE(table.rows() == dim);
          REQUIRE(table.cols() == 9);
          for (Index t = 0; t < table.cols(); ++t)
            for (Index feature = 0; feature < dim; ++feature) {
              const auto position = static_cast<long double>(where[static_cast<std::size_t>(t)]);
              const long double error = std::abs(table(feature, t) - expected(options, feature, position));
              CAPTURE(dim, static_cast<int>(layout), static_cast<int>(exponent), feature, position);
              // the reference has an error too: that of its long double angle
              REQUIRE(error <=
                      0.125L * (1.2e-16L + std::abs(position) * 8 * std::numeric_limits<long double>::epsilon()));
            }
        }
}

TEST_CASE("sinusoidal: layouts look as they are drawn", "[sinusoidal]") {
  using enum SinusoidalLayout;
  CHECK(picture({.dim = 6, .layout = interleaved}) == "sa ca sb cb sc cc");
  CHECK(picture({.dim = 6, .layout = sin_cos}) == "sa sb sc ca cb cc");
  CHECK(picture({.dim = 6, .layout = cos_sin}) == "ca cb cc sa sb sc");
  CHECK(picture({.dim = 7, .layout = interleaved}) == "sa ca sb cb sc cc sd");
  CHECK(picture({.dim = 7, .layout = sin_cos}) == "sa sb sc sd ca cb cc");
  CHECK(picture({.dim = 7, .layout = cos_sin}) == "ca cb cc sa sb sc sd");
  constexpr auto zero = SinusoidalOddDim::trailing_zero;
  CHECK(picture({.dim = 7, .layout = interleaved, .odd_dim = zero}) == "sa ca sb cb sc cc 00");
  CHECK(picture({.dim = 7, .layout = sin_cos, .odd_dim = zero}) == "sa sb sc ca cb cc 00");
  CHECK(picture({.dim = 7, .layout = cos_sin, .odd_dim = zero}) == "ca cb cc sa sb sc 00");
  CHECK(picture({.dim = 1}) == "sa");
  CHECK(picture({.dim = 1, .odd_dim = zero}) == "00");
}

TEST_CASE("sinusoidal: wavelengths of the documentation", "[sinusoidal]") {
  const Vector<double> waves = 2 * std::numbers::pi * Sinusoidal({.dim = 8}).frequencies().cwiseInverse();
  CHECK_THAT(waves[0], WithinAbs(6.3, 0.02));
  CHECK_THAT(waves[1], WithinAbs(63, 0.2));
  CHECK_THAT(waves[2], WithinAbs(630, 2));
  CHECK_THAT(waves[3], WithinAbs(6300, 20));
}

TEST_CASE("sinusoidal: presets are the conventions of other systems", "[sinusoidal]") {
  const double p = 3;

  SECTION("vaswani, roformer and x_transformers: frequency i is 10000^(-2i/D)") {
    CHECK(picture(SinusoidalOptions::vaswani(4)) == "sa ca sb cb");
    CHECK(picture(SinusoidalOptions::roformer(4)) == "sa sb ca cb");
    CHECK(picture(SinusoidalOptions::roformer(5)) == "sa sb sc ca cb");
    for (const auto& options : {SinusoidalOptions::vaswani(4), SinusoidalOptions::roformer(4)})
      CHECK_THAT(Sinusoidal(options).frequencies()[1], WithinAbs(1e-2, 1e-17));
    const Sinusoidal scaled(SinusoidalOptions::x_transformers(16));
    CHECK(scaled.options().scale == 0.25);
    CHECK(scaled.table<double>(positions(5)) ==
          0.25 * Sinusoidal(SinusoidalOptions::roformer(16)).table<double>(positions(5)));
  }

  SECTION("tensor2tensor: the last frequency is 1/base, an odd dim ends with a zero") {
    const Vector<double> frequencies = Sinusoidal(SinusoidalOptions::tensor2tensor(7)).frequencies();
    REQUIRE(frequencies.size() == 3);
    CHECK(frequencies[0] == 1);
    CHECK_THAT(frequencies[1], WithinAbs(1e-2, 1e-17));
    CHECK_THAT(frequencies[2], WithinAbs(1e-4, 1e-19));
    CHECK(picture(SinusoidalOptions::tensor2tensor(7)) == "sa sb sc ca cb cc 00");
  }

  SECTION("tensor2tensor: min_timescale multiplies") {
    const Vector<double> frequencies = Sinusoidal(SinusoidalOptions::tensor2tensor(8, 0.5, 500)).frequencies();
    for (Index i = 0; i < 4; ++i)
      CHECK_THAT(frequencies[i], WithinAbs(0.5 * std::pow(10.0, -static_cast<double>(i)), 1e-16));
  }

  SECTION("fairseq: counted from padding_idx + 1, padding is zero") {
    const Sinusoidal fairseq(SinusoidalOptions::fairseq(8, 1));
    const std::vector<int> mask{0, 0, 1, 1, 1};
    const Matrix<float> table = fairseq.table(padded_positions(mask, {.padding = -1}));
    CHECK(table.leftCols(2).isZero(0));
    CHECK(table.rightCols(3) == Sinusoidal(SinusoidalOptions::tensor2tensor(8)).table(positions(3, 2)));

    SinusoidalOptions with_ids = SinusoidalOptions::fairseq(8, 1);
    with_ids.first_position = 0;
    CHECK(table == Sinusoidal(with_ids).table(padded_positions(mask, {.first = 2, .padding = 1})));
    CHECK(fairseq.table(positions(1, 7)) == Sinusoidal(SinusoidalOptions::tensor2tensor(8)).table(positions(1, 9)));
  }

  SECTION("ctranslate2: the first token is at position 1") {
    CHECK(Sinusoidal(SinusoidalOptions::ctranslate2(8)).table(positions(5)) ==
          Sinusoidal(SinusoidalOptions::tensor2tensor(8)).table(positions(5, 1)));
  }

  SECTION("mlx: from the largest frequency to the smallest, scale sqrt(2/D)") {
    SinusoidalOptions options = SinusoidalOptions::mlx(6, 0.01, 10);
    options.frequency_scale *= 2 * std::numbers::pi;  // full_turns
    options.layout = SinusoidalLayout::cos_sin;       // cos_first
    const Sinusoidal mlx(options);
    const double two_pi = 2 * std::numbers::pi;
    CHECK_THAT(mlx.frequencies()[0], WithinAbs(10 * two_pi, 1e-14));
    CHECK_THAT(mlx.frequencies()[1], WithinAbs(std::sqrt(0.1) * two_pi, 1e-15));
    CHECK_THAT(mlx.frequencies()[2], WithinAbs(0.01 * two_pi, 1e-16));
    CHECK_THAT(mlx.table<double>(std::vector<double>{p})(2, 0),
               WithinAbs(std::sqrt(1.0 / 3) * std::cos(0.03 * two_pi), 1e-15));
    CHECK(Sinusoidal(SinusoidalOptions::mlx(2)).frequencies() == Vector<double>::Ones(1));
  }

  SECTION("diffusion_timestep: cosines first, an odd dim ends with a zero, max_period^(-i/floor(D/2))") {
    const Sinusoidal timestep(SinusoidalOptions::diffusion_timestep(5, 100));
    CHECK(picture(timestep.options()) == "ca cb sa sb 00");
    CHECK_THAT(timestep.frequencies()[1], WithinAbs(0.1, 1e-16));
  }
}

TEST_CASE("sinusoidal: one frequency where tensor2tensor's exponent would divide by zero", "[sinusoidal]") {
  for (const Index dim : {2, 3}) {
    const Sinusoidal sinusoidal(SinusoidalOptions::tensor2tensor(dim, 0.5));
    REQUIRE(sinusoidal.frequencies().size() == 1);
    CHECK(sinusoidal.frequencies()[0] == 0.5);
    CHECK(sinusoidal.table<double>(positions(4)).allFinite());
  }
}

TEMPLATE_TEST_CASE("sinusoidal: within 1 ulp to position 2^31, and double within 1.2e-16", "[sinusoidal]", float,
                   double, Eigen::half, Eigen::bfloat16) {
  struct Exact {
    std::int64_t position;
    Index frequency;
    long double sin, cos;
  };
  // from 60 decimal digits: position * 10000^(-2i/128), and position * 10000^(-i/31)
  const std::vector<Exact> paper{
      {1, 1, 0.7617204084716020268066L, 0.6479058722668407480962L},
      {7, 63, 0.0008083473012501571954985L, 0.9999996732872669101888L},
      {999983, 1, 0.8430510359117533592694L, 0.5378335717005024852608L},
      {16777215, 5, 0.84882263392648076031L, -0.5286777242650872588032L},
      {16777216, 21, -0.3586655562096497057558L, 0.9334661315703010589843L},
      {2147483647, 0, -0.7249165551445563905483L, -0.6888366918779438346798L},
      {2147483647, 1, -0.1915030406855291563124L, -0.9814920200430549423332L},
      {2147483647, 32, 0.7013495726180123790983L, -0.7128174920612788809564L},
      {-2147483648, 40, 0.588349831381671289395L, -0.8086065025172373430659L},
      {2147483647, 63, 0.3489958210840680429805L, -0.9371242803736637618084L},
  };
  const std::vector<Exact> closed{
      {1, 1, 0.6764737310600419362674L, 0.7364667617657337654941L},
      {16777215, 2, 0.8423588197789224856695L, -0.5389170796520191826449L},
      {2147483647, 3, -0.998888904547734720721L, -0.0471270237913080394053L},
      {2147483647, 1, -0.999701653399377323836L, 0.02442548240160773613386L},
      {-2147483648, 31, -0.9962547344448551077033L, -0.0864667803044107212178L},
  };
  const std::vector<Exact> turns{
      // the same times 2 pi, as a double has it
      {1, 0, -2.449293598294706354452e-16L, 1.0L},
      {999983, 3, -0.9956438401334083499173L, -0.09323810167737219853923L},
      {2147483647, 0, -5.25981794903942645541e-7L, 0.9999999999998616715757L},
      {-2147483648, 7, 0.9933146400762007286601L, -0.1154384069982248207941L},
  };
  const auto check = [](const Sinusoidal& sinusoidal, const Exact& exact) {
    const Matrix<TestType> table = sinusoidal.table<TestType>(positions(1, exact.position));
    for (const bool sine : {true, false}) {
      const long double value = sine ? exact.sin : exact.cos;
      const Index feature = sinusoidal.options().layout == SinusoidalLayout::interleaved
                                ? 2 * exact.frequency + (sine ? 0 : 1)
                                : exact.frequency + (sine ? 0 : sinusoidal.frequencies().size());
      const long double bound = std::is_same_v<TestType, double> ? 1.2e-16L : ulp<TestType>(value);
      CAPTURE(exact.position, exact.frequency, sine);
      CHECK(std::abs(as_long_double(table(feature, 0)) - value) <= bound);
    }
  };
  for (const Exact& exact : paper) check(Sinusoidal({.dim = 128}), exact);
  for (const Exact& exact : closed) check(Sinusoidal(SinusoidalOptions::tensor2tensor(64)), exact);
  SinusoidalOptions in_turns = SinusoidalOptions::tensor2tensor(64);
  in_turns.frequency_scale = 2 * std::numbers::pi;
  for (const Exact& exact : turns) check(Sinusoidal(in_turns), exact);
}

TEST_CASE("sinusoidal: a frequency that is exact, against the sine of an exact angle", "[sinusoidal]") {
  // base 2^32, dim 64: frequency i is 2^-i, so position * frequency is a double
  const Sinusoidal sinusoidal({.dim = 64, .base = 4294967296.0});
  for (const std::int64_t position : {std::int64_t{1}, std::int64_t{12345678901}, (std::int64_t{1} << 53) - 1}) {
    const Matrix<double> table = sinusoidal.table<double>(positions(1, position));
    for (Index i = 0; i < 32; ++i) {
      const double angle = std::ldexp(static_cast<double>(position), -static_cast<int>(i));
      CAPTURE(position, i);
      CHECK(sinusoidal.frequencies()[i] == std::ldexp(1.0, -static_cast<int>(i)));
      if (position <= std::int64_t{1} << 34) {
        CHECK_THAT(table(2 * i, 0), WithinAbs(std::sin(angle), 1.2e-16));
        CHECK_THAT(table(2 * i + 1, 0), WithinAbs(std::cos(angle), 1.2e-16));
      } else {
        CHECK(std::abs(table(2 * i, 0)) <= 1.1);  // no promise there, but still a wave
      }
    }
  }
}

TEST_CASE("sinusoidal: real positions", "[sinusoidal]") {
  const Sinusoidal sinusoidal({.dim = 10});
  const std::vector<double> fractions{0.5, -2.25, 1e-3, 700.125};
  const Matrix<double> table = sinusoidal.table<double>(fractions);
  for (Index t = 0; t < 4; ++t)
    for (Index feature = 0; feature < 10; ++feature)
      CHECK_THAT(table(feature, t),
                 WithinAbs(static_cast<double>(expected({.dim = 10}, feature, fractions[static_cast<std::size_t>(t)])),
                           2e-16));

  CHECK(sinusoidal.table<double>(RealPositions(6, -2.0)) == sinusoidal.table<double>(positions(6, -2)));
  Matrix<float> x = random_matrix<float>(10, 4), y = x;
  sinusoidal(x, fractions);
  sinusoidal.add_to(y, RealPositions(fractions));
  CHECK(x == y);
}

TEST_CASE("sinusoidal: two axes are two blocks of features", "[sinusoidal]") {
  const Index dim = 8, height = 2, width = 3;
  const std::vector<double> rows{1, 1, 1, 2, 2, 2}, columns{1, 2, 3, 1, 2, 3};
  const Sinusoidal axis(SinusoidalOptions::vaswani(dim / 2));
  Matrix<float> x = Matrix<float>::Zero(dim, height * width);
  axis(x.topRows(dim / 2), rows);
  axis(x.bottomRows(dim / 2), columns);
  for (Index t = 0; t < height * width; ++t) {
    CHECK(x.col(t).head(4) == axis.table(positions(1, 1 + t / width)));
    CHECK(x.col(t).tail(4) == axis.table(positions(1, 1 + t % width)));
  }
}

TEST_CASE("sinusoidal: a position of zeros", "[sinusoidal]") {
  SinusoidalOptions options{.dim = 6, .first_position = 3};
  options.zero_position = 5;  // counted with first_position: the position 2 of the caller
  const Sinusoidal sinusoidal(options);
  const Matrix<float> table = sinusoidal.table(positions(4));
  Matrix<float> expected_table = Sinusoidal({.dim = 6}).table(positions(4, 3));
  expected_table.col(2).setZero();
  CHECK(table == expected_table);
  CHECK(sinusoidal.table(std::vector<double>{2.0, 2.5}).col(0).isZero(0));
  CHECK_FALSE(sinusoidal.table(std::vector<double>{2.0, 2.5}).col(1).isZero(0));

  const Matrix<float> before = random_matrix<float>(6, 4);
  Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> x = before;
  sinusoidal(x, positions(4));
  CHECK(x == before + table);
}

TEMPLATE_TEST_CASE("sinusoidal: every view gives what the plain matrix gives", "[sinusoidal]", float, double,
                   Eigen::half, Eigen::bfloat16) {
  using RowMajor = Eigen::Matrix<TestType, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  using Stride = Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>;
  const Index tokens = 6;
  for (const Index dim : {1, 2, 7, 12}) {
    const Sinusoidal sinusoidal({.dim = dim, .scale = 0.5});
    const Positions where = positions(tokens, -2);
    const Matrix<TestType> start = random_matrix<TestType>(dim, tokens);
    Matrix<TestType> plain = start;
    sinusoidal(plain, where);
    CHECK(plain != start);

    Matrix<TestType> hook = start;
    sinusoidal.add_to(hook, where);
    CHECK(hook == plain);

    RowMajor row_major = start;
    sinusoidal(row_major, where);
    CHECK(row_major == plain);

    Matrix<TestType> transposed = start.transpose();
    sinusoidal(transposed.transpose(), where);
    CHECK(transposed.transpose() == plain);

    Matrix<TestType> around = random_matrix<TestType>(dim + 3, tokens + 2);
    const Matrix<TestType> before = around;
    around.block(1, 1, dim, tokens) = start;
    sinusoidal(around.block(1, 1, dim, tokens), where);
    CHECK(around.block(1, 1, dim, tokens) == plain);
    around.block(1, 1, dim, tokens) = before.block(1, 1, dim, tokens);
    CHECK(around == before);

    std::vector<TestType> memory(static_cast<std::size_t>(3 * dim * tokens), TestType(0));
    Eigen::Map<Matrix<TestType>, 0, Stride> strided(memory.data(), dim, tokens, Stride(3 * dim, 3));
    strided = start;
    sinusoidal(strided, where);
    CHECK(strided == plain);

    Eigen::Array<TestType, Eigen::Dynamic, Eigen::Dynamic> array = start.array();
    sinusoidal(array, where);
    CHECK((array.matrix() == plain));

    Vector<TestType> token = start.col(4);
    sinusoidal(token, positions(1, 2));
    CHECK(token == plain.col(4));
  }
}

TEST_CASE("sinusoidal: adding to floats is x + table, to the bit", "[sinusoidal]") {
  const Sinusoidal sinusoidal({.dim = 64, .scale = 0.3});
  const Matrix<float> x = random_matrix<float>(64, 50);
  Matrix<float> sum = x;
  sinusoidal(sum, positions(50));
  CHECK(sum == x + sinusoidal.table(positions(50)));
  CHECK(sinusoidal.table(positions(50)) == sinusoidal.table<double>(positions(50)).cast<float>());

  const Matrix<double> y = random_matrix<double>(64, 50);
  Matrix<double> sum_of_doubles = y;
  sinusoidal(sum_of_doubles, positions(50));
  CHECK((sum_of_doubles - (y + sinusoidal.table<double>(positions(50)))).cwiseAbs().maxCoeff() < 3e-16);
}

TEST_CASE("sinusoidal: chunks, permutations, and sequences of no and one token", "[sinusoidal]") {
  const Sinusoidal sinusoidal(SinusoidalOptions::tensor2tensor(9));
  Matrix<float> whole = random_matrix<float>(9, 11), chunked = whole;
  sinusoidal(whole, positions(11, 5));
  for (Index t = 0; t < 11; t += 4) {
    const Index n = std::min<Index>(4, 11 - t);
    sinusoidal(chunked.middleCols(t, n), positions(n, 5 + t));
  }
  CHECK(chunked == whole);

  const std::vector<std::int64_t> unordered{3, 0, 3, -2};
  const Matrix<float> table = sinusoidal.table(unordered), line = sinusoidal.table(positions(6, -2));
  for (Index t = 0; t < 4; ++t) CHECK(table.col(t) == line.col(unordered[static_cast<std::size_t>(t)] + 2));

  Matrix<float> none(9, 0);
  sinusoidal(none, positions(0));
  CHECK(sinusoidal.table(positions(0)).rows() == 9);
  CHECK(sinusoidal.table(positions(1, 3)) == line.col(5));
}

TEST_CASE("sinusoidal: an unencoded last feature is left as it is", "[sinusoidal]") {
  const Sinusoidal sinusoidal(SinusoidalOptions::tensor2tensor(5));
  Matrix<float> x = random_matrix<float>(5, 3);
  x.row(4).setConstant(-0.0F);
  x(4, 1) = std::numeric_limits<float>::quiet_NaN();
  const Matrix<float> before = x;
  sinusoidal(x, positions(3));
  CHECK(std::memcmp(&x(4, 0), &before(4, 0), sizeof(float)) == 0);
  CHECK(std::memcmp(&x(4, 1), &before(4, 1), sizeof(float)) == 0);
  CHECK(x.topRows(4) != before.topRows(4));
}

TEST_CASE("sinusoidal: shapes that do not fit throw and change nothing", "[sinusoidal]") {
  const Sinusoidal sinusoidal({.dim = 4});
  const auto message_of = [&](Matrix<float> x, const auto& where) -> std::string {
    const Matrix<float> before = x;
    try {
      sinusoidal(x, where);
    } catch (const std::invalid_argument& error) {
      CHECK(x == before);
      return error.what();
    }
    return "nothing thrown";
  };
  CHECK(message_of(random_matrix<float>(5, 2), positions(2)) == "posenc::Sinusoidal: rows of x must be dim = 4, got 5");
  CHECK(message_of(random_matrix<float>(4, 2), positions(3)) ==
        "posenc::Sinusoidal: columns of x must be the number of positions = 3, got 2");
  CHECK(message_of(random_matrix<float>(4, 2), RealPositions(1, 0.5)) ==
        "posenc::Sinusoidal: columns of x must be the number of positions = 1, got 2");
}

TEST_CASE("sinusoidal: positions that a double does not hold throw and change nothing", "[sinusoidal]") {
  const Sinusoidal sinusoidal({.dim = 4});
  const std::int64_t limit = std::int64_t{1} << 53;
  Matrix<float> x = random_matrix<float>(4, 2);
  const Matrix<float> before = x;
  for (const std::int64_t bad : {limit + 1, -limit - 1, std::numeric_limits<std::int64_t>::min()}) {
    const std::vector<std::int64_t> second_is_bad{0, bad};
    CHECK_THROWS_AS(sinusoidal(x, second_is_bad), std::out_of_range);
  }
  for (const double bad : {1e16, -1e300, std::numeric_limits<double>::quiet_NaN()}) {
    const std::vector<double> second_is_bad{0.5, bad};
    CHECK_THROWS_AS(sinusoidal(x, second_is_bad), std::out_of_range);
  }
  CHECK(x == before);
  CHECK(sinusoidal.table(std::vector<std::int64_t>{limit, -limit}).allFinite());
}

TEST_CASE("sinusoidal: options that make no sense", "[sinusoidal]") {
  const auto message_of = [](const SinusoidalOptions& options) -> std::string {
    try {
      static_cast<void>(Sinusoidal(options));
    } catch (const std::invalid_argument& error) {
      return error.what();
    }
    return "nothing thrown";
  };
  constexpr double infinity = std::numeric_limits<double>::infinity();
  CHECK(message_of({}) == "posenc::Sinusoidal: dim must be positive, got 0");
  CHECK(message_of(SinusoidalOptions::mlx(-2)) == "posenc::Sinusoidal: dim must be positive, got -2");
  CHECK(message_of({.dim = 4, .base = 0}) == "posenc::Sinusoidal: base must be positive and finite, got 0");
  CHECK(message_of({.dim = 4, .base = infinity}) == "posenc::Sinusoidal: base must be positive and finite, got inf");
  CHECK(message_of({.dim = 4, .frequency_scale = -1}) ==
        "posenc::Sinusoidal: frequency_scale must be positive and finite, got -1");
  CHECK(message_of({.dim = 4, .first_position = infinity}) ==
        "posenc::Sinusoidal: first_position must be finite, got inf");
  CHECK(message_of({.dim = 4, .scale = infinity}) == "posenc::Sinusoidal: scale must be finite, got inf");
  CHECK(message_of({.dim = 4, .base = 1e-300, .frequency_scale = 1e300}) ==
        "posenc::Sinusoidal: every frequency must be finite, got inf");
  CHECK(message_of({.dim = 4, .base = 1e-300}) == "nothing thrown");
}

TEST_CASE("sinusoidal: adding allocates nothing", "[sinusoidal]") {
  const Sinusoidal sinusoidal({.dim = 33});
  Matrix<float> x = random_matrix<float>(33, 20);
  Eigen::Matrix<Eigen::half, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> y = random_matrix<Eigen::half>(33, 20);
  const std::vector<double> fractions(20, 0.25);
  Eigen::internal::set_is_malloc_allowed(false);
  sinusoidal(x, positions(20));
  sinusoidal(x.topRows(33), RealPositions(fractions));
  sinusoidal.add_to(y, positions(20));
  Eigen::internal::set_is_malloc_allowed(true);
  CHECK(x.allFinite());
}

TEST_CASE("sinusoidal: positions in any order, tables and what is added have the same bits", "[sinusoidal]") {
  const Index dim = GENERATE(31, 64, 1040, 2054);  // the last two are more than one group of frequencies
  const auto layout = GENERATE(SinusoidalLayout::interleaved, SinusoidalLayout::sin_cos);
  const auto scale = GENERATE(1.0, -0.3);
  const Sinusoidal sinusoidal({.dim = dim, .layout = layout, .scale = scale});
  const Index tokens = 300, first = -100;
  const Matrix<float> table = sinusoidal.table(positions(tokens, first));
  CHECK(sinusoidal.table(positions(7, 40)) == table.middleCols(140, 7));
  CHECK((table.cast<double>() - sinusoidal.table<double>(positions(tokens, first))).cwiseAbs().maxCoeff() <= 3.1e-8);

  const Matrix<float> x = random_matrix<float>(dim, tokens);
  Matrix<float> sum = x;
  Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> row_major = x;
  sinusoidal(sum, positions(tokens, first));
  sinusoidal(row_major, positions(tokens, first));
  CHECK(sum == x + table);
  CHECK(row_major == sum);

  std::vector<std::int64_t> shuffled;
  for (Index t = 0; t < tokens; ++t) shuffled.push_back(t * 77 % tokens + first);
  const Matrix<float> of_shuffled = sinusoidal.table(shuffled);
  for (Index t = 0; t < tokens; ++t)
    CHECK(of_shuffled.col(t) == table.col(shuffled[static_cast<std::size_t>(t)] - first));
}

TEST_CASE("sinusoidal: a table that is written around the caches", "[sinusoidal]") {
  const Sinusoidal sinusoidal({.dim = 512});
  const Matrix<float> table = sinusoidal.table(positions(4200));
  CHECK(sinusoidal.table(positions(10, 4100)) == table.middleCols(4100, 10));
}
