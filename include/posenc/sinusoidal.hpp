// SPDX-License-Identifier: MIT
#pragma once

#include <Eigen/Core>
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <optional>
#include <type_traits>

#include <posenc/concepts.hpp>
#include <posenc/detail/angle.hpp>
#include <posenc/detail/check.hpp>
#include <posenc/detail/integer_rotations.hpp>
#include <posenc/detail/scalar.hpp>
#include <posenc/positions.hpp>

namespace posenc::inline v0 {

/// Which feature holds which wave. A picture for dim 6 and 7, with frequencies a > b > c > d:
///
///   feature          0  1  2  3  4  5  6
///   interleaved     sa ca sb cb sc cc         dim 6        sa ca sb cb sc cc sd    dim 7, SinusoidalOddDim::extra_sin
///   sin_cos         sa sb sc ca cb cc                      sa sb sc sd ca cb cc
///   cos_sin         ca cb cc sa sb sc                      ca cb cc sa sb sc sd
enum class SinusoidalLayout { interleaved, sin_cos, cos_sin };

/// How the exponent of base falls, frequency by frequency (i = 0, 1, ...).
///
///   two_i_over_dim               base^(-2i/D)           the paper; the last frequency stays above 1/base
///   i_over_half_dim_minus_one    base^(-i/(D/2 - 1))    tensor2tensor; the last frequency is 1/base
///
/// With dim 2 or 3 the second form has one frequency only, which is 1, where its formula would divide by zero.
enum class SinusoidalExponent { two_i_over_dim, i_over_half_dim_minus_one };

/// What happens to the feature that has no partner when dim is odd.
///
///   extra_sin        one more sine than cosines, as the formula of the paper gives it
///   trailing_zero    the last feature is left as it is, and the others are encoded as if dim were one less
enum class SinusoidalOddDim { extra_sin, trailing_zero };

/// The convention of a Sinusoidal. A model must use the one that it was trained with: four that cannot be exchanged are
/// in wide use, and their names are below. The default is the paper's.
///
///   preset               layout        exponent     odd dim         used by
///   vaswani              interleaved   2i/D         extra_sin       the paper; XLM, OpenNMT-py, each axis of DETR
///   roformer             sin_cos       2i/D         extra_sin       RoFormer, Marian and CTRL of Hugging Face
///   x_transformers       sin_cos       2i/D         extra_sin       x-transformers, scale D^-0.5 (learned from there)
///   tensor2tensor        sin_cos       i/(D/2-1)    trailing_zero   tensor2tensor, Whisper, OpenNMT-py "concat"
///   fairseq              sin_cos       i/(D/2-1)    trailing_zero   fairseq, M2M-100: first position 2, zero padding
///   ctranslate2          sin_cos       i/(D/2-1)    trailing_zero   CTranslate2: first position 1
///   mlx                  sin_cos       i/(D/2-1)    trailing_zero   MLX: scale sqrt(2/D)
///   diffusion_timestep   cos_sin       2i/D         trailing_zero   timesteps of diffusion models, ggml
///
/// A preset is a starting point: `auto options = SinusoidalOptions::mlx(64); options.layout = ...`.
struct SinusoidalOptions {
  Index dim = 0;  ///< features of a token
  SinusoidalLayout layout = SinusoidalLayout::interleaved;
  SinusoidalExponent exponent = SinusoidalExponent::two_i_over_dim;
  SinusoidalOddDim odd_dim = SinusoidalOddDim::extra_sin;
  double base = 10000;                          ///< "max_period", "temperature" or "max_timescale" elsewhere
  double frequency_scale = 1;                   ///< multiplies every frequency; 2 pi counts in turns (MLX full_turns)
  double first_position = 0;                    ///< added to every position
  double scale = 1;                             ///< multiplies the encoding
  std::optional<std::int64_t> zero_position{};  ///< where the encoding is zero, counted with first_position: padding

  /// The paper.
  static SinusoidalOptions vaswani(Index dim) { return {.dim = dim}; }

  /// All sines, then all cosines, of the paper's frequencies: its features in another order.
  static SinusoidalOptions roformer(Index dim) { return {.dim = dim, .layout = SinusoidalLayout::sin_cos}; }

  /// The same, in the scale that x-transformers begins with; replace `scale` by the learned one.
  static SinusoidalOptions x_transformers(Index dim) {
    return {.dim = dim, .layout = SinusoidalLayout::sin_cos, .scale = 1 / std::sqrt(static_cast<double>(dim))};
  }

  /// Frequencies from min_timescale down to min_timescale^2 / max_timescale. (The code multiplies by min_timescale
  /// where its comment speaks of dividing; with the usual 1 there is no difference.)
  static SinusoidalOptions tensor2tensor(Index dim, double min_timescale = 1, double max_timescale = 10000) {
    return {.dim = dim,
            .layout = SinusoidalLayout::sin_cos,
            .exponent = SinusoidalExponent::i_over_half_dim_minus_one,
            .odd_dim = SinusoidalOddDim::trailing_zero,
            .base = max_timescale / min_timescale,
            .frequency_scale = min_timescale};
  }

  /// Position 0 is the first token and -1 is padding: padded_positions(mask, {.padding = -1}). For ids that already
  /// begin at padding_idx + 1, as fairseq has them, set first_position to 0.
  static SinusoidalOptions fairseq(Index dim, std::int64_t padding_idx = 1) {
    SinusoidalOptions options = tensor2tensor(dim);
    options.first_position = static_cast<double>(padding_idx + 1);
    options.zero_position = padding_idx;
    return options;
  }

  static SinusoidalOptions ctranslate2(Index dim) {
    SinusoidalOptions options = tensor2tensor(dim);
    options.first_position = 1;
    return options;
  }

  /// For full_turns multiply frequency_scale by 2 pi, for cos_first take SinusoidalLayout::cos_sin.
  static SinusoidalOptions mlx(Index dim, double min_frequency = 1e-4, double max_frequency = 1) {
    SinusoidalOptions options = tensor2tensor(dim);
    options.base = max_frequency / min_frequency;
    options.frequency_scale = max_frequency;
    options.scale = std::sqrt(2 / static_cast<double>(dim));
    return options;
  }

  /// Timesteps are the positions; they may be fractions (RealPositions).
  static SinusoidalOptions diffusion_timestep(Index dim, double max_period = 10000) {
    return {.dim = dim,
            .layout = SinusoidalLayout::cos_sin,
            .odd_dim = SinusoidalOddDim::trailing_zero,
            .base = max_period};
  }
};

/// Adds to each token sines and cosines of its position, each pair of features slower than the one before.
///
///   x(2i,     t) += scale sin(p w_i)      p   = positions(t) + first_position
///   x(2i + 1, t) += scale cos(p w_i)      w_i = frequency_scale * base^(-2i/D), rad per position
///
///   dim 8      feature       0     1     2     3     4     5     6     7
///              is           sin   cos   sin   cos   sin   cos   sin   cos
///              with a wave of   6.3         63         630        6300       positions
///
/// This is SinusoidalLayout::interleaved with the paper's exponent; SinusoidalOptions tells all conventions. Positions
/// are not tabulated, so any to 2^53 will do. A table, where one is wanted, is `sinusoidal.table(positions)`.
///
///   Sinusoidal sinusoidal({.dim = 512});
///   sinusoidal(x, positions(x.cols()));
///
/// Several axes, as in DETR, are several blocks of features, each with a position of its own for every token:
///
///   const Sinusoidal axis(SinusoidalOptions::vaswani(dim / 2));
///   axis(x.topRows(dim / 2), rows);        // std::vector<double>, or int64, with one entry a token
///   axis(x.bottomRows(dim / 2), columns);
///
/// Units:    positions in tokens (integers, or any real number), frequencies in radians per position.
/// Accuracy: a table of float, half or bfloat16 is within 1 ulp of the formula, one of double within 1.2e-16, for every
///           |p| <= 2^31, scale 1 and frequencies up to 2 pi. x + encoding is rounded once more; where x is float it
///           is x + table to the bit.
/// Cost:     four multiplications a pair of features and token, by rotations that are kept, some 50 a pair. A sine
///           and a cosine instead in double, for real positions and where first_position is a fraction. No allocation.
/// Source:   Vaswani et al. 2017, arXiv:1706.03762v7, section 3.5.
class Sinusoidal {
 public:
  /// \throws std::invalid_argument unless dim, base and frequency_scale are positive, and all options are finite.
  explicit Sinusoidal(const SinusoidalOptions& options) : options_(options) {
    detail::require(options.dim > 0, "posenc::Sinusoidal: dim must be positive", options.dim);
    detail::require(options.base > 0 && std::isfinite(options.base),
                    "posenc::Sinusoidal: base must be positive and finite", options.base);
    detail::require(options.frequency_scale > 0 && std::isfinite(options.frequency_scale),
                    "posenc::Sinusoidal: frequency_scale must be positive and finite", options.frequency_scale);
    detail::require(std::isfinite(options.first_position), "posenc::Sinusoidal: first_position must be finite",
                    options.first_position);
    detail::require(std::isfinite(options.scale), "posenc::Sinusoidal: scale must be finite", options.scale);

    const Index encoded = options.odd_dim == SinusoidalOddDim::extra_sin ? options.dim : options.dim / 2 * 2;
    const Index count = (encoded + 1) / 2;
    frequencies_.resize(count);
    low_parts_.resize(count);
    for (Index i = 0; i < count; ++i) {
      const bool paper = options.exponent == SinusoidalExponent::two_i_over_dim;
      const auto numerator = static_cast<double>(paper ? 2 * i : i);
      const auto denominator = static_cast<double>(paper ? encoded : count - 1);
      const auto power = detail::geometric_frequency(options.base, numerator, denominator);
      detail::require(std::isfinite(options.frequency_scale * power.high),
                      "posenc::Sinusoidal: every frequency must be finite", options.frequency_scale * power.high);
      const auto frequency = detail::DoubleDouble{options.frequency_scale} * power;
      frequencies_[i] = frequency.high;
      low_parts_[i] = frequency.low;
    }
    if (has_integer_positions())
      rotations_ = detail::IntegerRotations(count, options.scale, [&](Index i) {
        return detail::DoubleDouble{frequencies_[i], low_parts_[i]};
      });
  }

  /// Adds the encoding of positions(t) to column t.
  ///
  /// \param x         dim() x T, one token a column; any storage order and stride.
  /// \param positions T entries; may be negative, repeated or unordered.
  /// \throws std::invalid_argument if the shapes do not fit; x is then unchanged.
  /// \throws std::out_of_range     if a position is beyond 2^53 or not a number; likewise.
  template <MutableDense X>
  void add_to(X&& x, const Positions& positions) const {
    add(x, positions);
  }
  template <MutableDense X>
  void add_to(X&& x, const RealPositions& positions) const {
    add(x, positions);
  }

  /// add_to.
  template <MutableDense X>
  void operator()(X&& x, const Positions& positions) const {
    add(x, positions);
  }
  template <MutableDense X>
  void operator()(X&& x, const RealPositions& positions) const {
    add(x, positions);
  }

  /// The encodings of the positions, dim() x T: a column a position.
  template <RealScalar Scalar = float>
  Matrix<Scalar> table(const Positions& positions) const {
    return table_of<Scalar>(positions);
  }
  template <RealScalar Scalar = float>
  Matrix<Scalar> table(const RealPositions& positions) const {
    return table_of<Scalar>(positions);
  }

  Index dim() const { return options_.dim; }
  const SinusoidalOptions& options() const { return options_; }

  /// In radians per position, the fastest first (if base is above 1): one for each sine.
  const Vector<double>& frequencies() const { return frequencies_; }

 private:
  struct Features {
    Index sin, cos;
  };

  /// Where the sine and the cosine of frequency i are.
  Features features(Index i) const {
    switch (options_.layout) {
      case SinusoidalLayout::interleaved:
        return {2 * i, 2 * i + 1};
      case SinusoidalLayout::sin_cos:
        return {i, frequencies_.size() + i};
      case SinusoidalLayout::cos_sin:
        break;
    }
    return {dim() / 2 + i, i};
  }

  template <class X, class Value>
  void add(X& x, const BasicPositions<Value>& positions) const {
    static_assert(RealScalar<typename X::Scalar>, "posenc::Sinusoidal: x must hold float, double, half or bfloat16");
    detail::require_size(x.rows(), dim(), "posenc::Sinusoidal: rows of x must be dim");
    detail::require_size(x.cols(), positions.size(),
                         "posenc::Sinusoidal: columns of x must be the number of positions");
    detail::require_exact_positions(positions, "posenc::Sinusoidal: |position| must be at most 2^53");

    using Real = detail::compute_t<typename X::Scalar>;
    if constexpr (std::is_same_v<Real, float> && std::is_same_v<Value, std::int64_t>)
      if (has_integer_positions()) return add_rotations(x, positions);

    constexpr Index some = 128;  // at a time
    std::array<double, static_cast<std::size_t>(some)> cos, sin;
    const double fastest = detail::largest_magnitude(frequencies_);
    const Index step = options_.layout == SinusoidalLayout::interleaved ? 2 : 1;
    for (Index t = 0; t < x.cols(); ++t) {
      const double position = static_cast<double>(positions[t]) + options_.first_position;
      if (options_.zero_position && position == static_cast<double>(*options_.zero_position)) continue;
      for (Index i = 0; i < frequencies_.size(); i += some) {
        const Index sines = std::min(some, frequencies_.size() - i), cosines = std::min(sines, dim() / 2 - i);
        detail::cos_sin<detail::wide_t<Real>>(position, &frequencies_[i], &low_parts_[i], sines, fastest, cos.data(),
                                              sin.data());
        const auto add_waves = [&](Index feature, const auto& waves, Index n) {
          for (Index j = 0; j < n; ++j)
            detail::add(x.coeffRef(feature + step * j, t), options_.scale * waves[static_cast<std::size_t>(j)]);
        };
        add_waves(features(i).sin, sin, sines);
        add_waves(features(i).cos, cos, cosines);
      }
    }
  }

  /// Then the rotations are those of integers, and products of a few that are known.
  bool has_integer_positions() const {
    return options_.first_position == std::floor(options_.first_position) &&
           std::abs(options_.first_position) <= 0x1p53;
  }
  std::int64_t shift() const { return static_cast<std::int64_t>(options_.first_position); }
  bool is_zero(std::int64_t position) const {
    return options_.zero_position && position + shift() == *options_.zero_position;
  }

  /// Through a buffer in the first cache; but where the products can be added at once, it keeps what was there before,
  /// in case that one of them must be corrected.
  template <class X>
  void add_rotations(X& x, const Positions& positions) const {
    using detail::IntegerRotations, detail::WaveOrder, detail::Waves;
    const bool interleaved = options_.layout == SinusoidalLayout::interleaved;
    constexpr bool in_floats = std::is_same_v<typename X::Scalar, float> && !X::IsRowMajor;
    [[maybe_unused]] const bool at_once =
        in_floats && x.innerStride() == 1 && 2 * frequencies_.size() == dim() && !options_.zero_position;
    constexpr Index max = X::IsRowMajor ? IntegerRotations::unit : IntegerRotations::max_group, buffered = 1024;
    alignas(64) std::array<float, static_cast<std::size_t>(buffered)> buffer;
    for (Index begin = 0; begin < frequencies_.size(); begin += max) {
      const Index size = std::min(max, frequencies_.size() - begin), cosines = std::min(size, dim() / 2 - begin);
      const Index stride = 2 * size;  // of the buffer, from token to token
      const Features feature = features(begin);
      const Waves<float> waves{buffer.data() + (interleaved ? 1 : size), buffer.data()};
      const auto add_run = [&](Index t, const IntegerRotations::Run& run) {
        if constexpr (in_floats)
          if (at_once) {
            const Waves<float> to{&x.coeffRef(feature.cos, t), &x.coeffRef(feature.sin, t)};
            if (interleaved ? run.add<WaveOrder::interleaved>(to, x.outerStride(), waves, stride)
                            : run.add<WaveOrder::separate>(to, x.outerStride(), waves, stride))
              return;
            for_each_feature(x, feature, t, waves, size, cosines, run.size(), stride,
                             [](float& of_x, float old) { of_x = old; });
          }
        if (interleaved)
          run.write<WaveOrder::interleaved>(waves, stride);
        else
          run.write<WaveOrder::separate>(waves, stride);
        if (options_.zero_position)
          for (Index k = 0; k < run.size(); ++k)  // adding -0 changes nothing
            if (is_zero(positions[t + k])) std::fill_n(buffer.data() + stride * k, stride, -0.0F);
        for_each_feature(x, feature, t, waves, size, cosines, run.size(), stride,
                         [](auto& of_x, float wave) { detail::add(of_x, wave); });
      };
      rotations_.for_each_run(positions, shift(), begin, size, buffered / stride, add_run);
    }
  }

  /// action(x(feature.cos, t), *waves.cos) and the same with sines, for all frequencies of a group and tokens of a run.
  template <class X, class Action>
  void for_each_feature(X& x, Features feature, Index t, detail::Waves<float> waves, Index sines, Index cosines,
                        Index num_tokens, Index stride, Action action) const {
    const Index step = options_.layout == SinusoidalLayout::interleaved ? 2 : 1;
    const auto visit = [&](Index first, const float* from, Index n) {
      if constexpr (X::IsRowMajor) {
        for (Index i = 0; i < n; ++i)
          for (Index k = 0; k < num_tokens; ++k)
            action(x.coeffRef(first + step * i, t + k), from[step * i + stride * k]);
      } else {
        for (Index k = 0; k < num_tokens; ++k)
          for (Index i = 0; i < n; ++i) action(x.coeffRef(first + step * i, t + k), from[step * i + stride * k]);
      }
    };
    visit(feature.sin, waves.sin, sines);
    visit(feature.cos, waves.cos, cosines);
  }

  /// A table without features or tokens that are left at zero, written as the products come out.
  template <detail::WaveOrder order>
  void write_rotations(Matrix<float>& table, const Positions& positions) const {
    using detail::IntegerRotations;
    const Index bytes = table.size() * static_cast<Index>(sizeof(float));
    const bool around = rotations_.can_stream(table.data(), table.data() + dim() / 2, dim(), bytes);
    for (Index begin = 0; begin < frequencies_.size(); begin += IntegerRotations::max_group) {
      const Features feature = features(begin);
      const detail::Waves<float> first{table.data() + feature.cos, table.data() + feature.sin};
      const auto write = [&](Index t, const IntegerRotations::Run& run) {
        if (around)
          run.stream<order>(first.from(t * dim()), dim());
        else
          run.write<order>(first.from(t * dim()), dim());
      };
      const Index size = std::min(IntegerRotations::max_group, frequencies_.size() - begin);
      rotations_.for_each_run(positions, shift(), begin, size, positions.size(), write);
    }
    if (around) detail::finish_streaming();
  }

  template <class Scalar, class Value>
  Matrix<Scalar> table_of(const BasicPositions<Value>& positions) const {
    if constexpr (std::is_same_v<Scalar, float> && std::is_same_v<Value, std::int64_t>)
      if (has_integer_positions() && 2 * frequencies_.size() == dim() && !options_.zero_position) {
        detail::require_exact_positions(positions, "posenc::Sinusoidal: |position| must be at most 2^53");
        Matrix<float> table(dim(), positions.size());
        if (options_.layout == SinusoidalLayout::interleaved)
          write_rotations<detail::WaveOrder::interleaved>(table, positions);
        else
          write_rotations<detail::WaveOrder::separate>(table, positions);
        return table;
      }
    Matrix<Scalar> table = Matrix<Scalar>::Zero(dim(), positions.size());
    add(table, positions);
    return table;
  }

  SinusoidalOptions options_;
  Vector<double> frequencies_, low_parts_;
  detail::IntegerRotations rotations_;
};

}  // namespace posenc::inline v0
