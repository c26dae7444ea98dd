// SPDX-License-Identifier: MIT
#pragma once

// Cosines and sines at integer positions without a call of cos and sin for each. A position is split by its bits,
//
//   p = 2^20 h + 2^19 b_19 + ... + 2^5 b_5 + r,   r = 0, ..., 31,      h = 0 where 0 <= p < 2^20
//   e^{i p w} = e^{i 2^20 h w}  e^{i 2^19 w b_19} ... e^{i 2^5 w b_5}  e^{i r w}
//
// and its rotation is the product in this order, in double, of factors that were computed exactly. The last factor is
// the token's own, the product of all others serves 32 tokens: four multiplications a token and frequency. What comes
// out depends on the position alone, not on the tokens around it, so that tables and tiles agree to the bit.
//
// At most 20 products have an error of at most 1e-14 in all: a float is the nearest to the exact value
// unless that is within the error of the middle between two. A cosine or sine so small that the error would show is
// computed from its angle.

#include <Eigen/Core>
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include <posenc/detail/angle.hpp>
#include <posenc/detail/packet.hpp>
#include <posenc/detail/read_ahead.hpp>
#include <posenc/positions.hpp>

namespace posenc::inline v0::detail {

/// Complex numbers of length 1, cosines and sines apart.
template <class Real>
struct Waves {
  Real *cos, *sin;

  Waves from(Index j) const { return {cos + j, sin + j}; }
};

/// z = a b, n numbers each: a multiple of a packet.
inline void multiply(Waves<const double> a, Waves<const double> b, Index n, Waves<double> z) {
  for (Index j = 0; j < n; j += Simd<double>::lanes) {
    const auto a_cos = load(a.cos + j), a_sin = load(a.sin + j), b_cos = load(b.cos + j), b_sin = load(b.sin + j);
    store(z.cos + j, multiply_add(negate(a_sin), b_sin, multiply(a_cos, b_cos)));
    store(z.sin + j, multiply_add(a_cos, b_sin, multiply(a_sin, b_cos)));
  }
}

/// Rotations of a token in float, as they are written:
///
///   separate      cos:  c c c c ...   sin:  s s s s ...
///   interleaved   s c s c s c s c ...
enum class WaveOrder { separate, interleaved };

/// What is done with the products.
enum class WaveAction {
  write,
  stream,  ///< written around the caches
  add,     ///< to what is there, of which `kept` gets a copy
};

/// The products of z with a row of factors for each of some tokens, in float; returns the smallest magnitude of them.
/// What is read reaches to the end of the last packet, what is written does not.
template <WaveOrder order, WaveAction action>
float write_products(Waves<const double> z, const double* minus_sin, Waves<const double> row, Index row_stride, Index n,
                     Index num_tokens, Waves<float> to, Index to_stride, Waves<float> kept, Index kept_stride) {
  constexpr Index lanes = Simd<double>::lanes, unit = Simd<float>::lanes;
  constexpr bool interleaved = order == WaveOrder::interleaved, adds = action == WaveAction::add;
  constexpr Index stride = interleaved ? 2 : 1;
  const auto next_token = [&] {
    row = row.from(row_stride);
    to = to.from(to_stride);
    if constexpr (adds) kept = kept.from(kept_stride);
  };
  if constexpr (unit == 2 * lanes) {
    auto smallest = broadcast(std::numeric_limits<float>::max());
    const auto put = [&](const packet_t<float>& waves, float* x, float* old) {
      smallest = smaller(smallest, magnitude(waves));
      if constexpr (adds) {
        prefetch_line<2>(x + to_stride);  // of the next token: no machine foresees what is in another page
        const auto before = load(x);
        store(old, before);
        store(x, sum(before, waves));
      } else if constexpr (action == WaveAction::stream) {
        stream(x, waves);
      } else {
        store(x, waves);
      }
    };
    const auto put_all = [&](Index j, Waves<float> x, Waves<float> old) {
      const auto cosines = [&](Index i) {
        return multiply_add(load(minus_sin + i), load(row.sin + i), multiply(load(z.cos + i), load(row.cos + i)));
      };
      const auto sines = [&](Index i) {
        return multiply_add(load(z.cos + i), load(row.sin + i), multiply(load(z.sin + i), load(row.cos + i)));
      };
      if constexpr (interleaved) {
        put(rounded<Order::zipped>(sines(j), cosines(j)), x.sin, old.sin);
      } else {
        put(rounded<Order::joined>(cosines(j), cosines(j + lanes)), x.cos, old.cos);
        put(rounded<Order::joined>(sines(j), sines(j + lanes)), x.sin, old.sin);
      }
    };
    constexpr Index step = interleaved ? lanes : unit;
    for (; num_tokens > 0; --num_tokens, next_token()) {
      Index j = 0;
      for (; j + step <= n; j += step) put_all(j, to.from(stride * j), adds ? kept.from(stride * j) : kept);
      if (const Index rest = n - j; rest > 0) {
        float cos[unit] = {}, sin[unit] = {}, old_cos[unit], old_sin[unit];
        const auto copy = [&](const Waves<float>& from, const Waves<float>& into) {
          if constexpr (!interleaved) std::copy_n(from.cos, rest, into.cos);
          std::copy_n(from.sin, stride * rest, into.sin);
        };
        if constexpr (adds) copy(to.from(stride * j), {cos, sin});
        put_all(j, {cos, sin}, {old_cos, old_sin});
        copy({cos, sin}, to.from(stride * j));
        if constexpr (adds) copy({old_cos, old_sin}, kept.from(stride * j));
      }
    }
    return smallest_element(smallest);
  } else {  // no packets of double, or none at all
    float smallest = std::numeric_limits<float>::max();
    const auto put = [&](double wave, float* x, float* old) {
      smallest = std::min(smallest, std::abs(static_cast<float>(wave)));
      if constexpr (adds) *old = *x;
      *x = static_cast<float>(wave) + (adds ? *x : 0);
    };
    for (; num_tokens > 0; --num_tokens, next_token())
      for (Index j = 0; j < n; ++j) {
        const Waves<float> x = to.from(stride * j), old = adds ? kept.from(stride * j) : kept;
        put(z.cos[j] * row.cos[j] + minus_sin[j] * row.sin[j], x.cos, old.cos);
        put(z.sin[j] * row.cos[j] + z.cos[j] * row.sin[j], x.sin, old.sin);
      }
    return smallest;
  }
}

/// The bits that occur in first, first + 1, ..., last.
inline std::int64_t bits_of_range(std::int64_t first, std::int64_t last) {
  const auto differing = static_cast<unsigned>(std::bit_width(static_cast<std::uint64_t>(first ^ last)));
  return first | last | (differing == 0 ? 0 : static_cast<std::int64_t>(~std::uint64_t{0} >> (64 - differing)));
}

/// Rotations in float by integer positions of up to 2^54, for any number of frequencies.
///
/// Memory: at most 768 bytes a frequency.
class IntegerRotations {
 public:
  static constexpr Index unit = Simd<float>::lanes;  ///< a group of frequencies begins at a multiple of this
  static constexpr Index max_group = 512;            ///< and is at most so large

  IntegerRotations() = default;

  /// \param frequency i -> DoubleDouble, for i = 0, ..., count - 1.
  /// \param bits      of all positions that will be asked for, a bitwise or: nothing else is computed.
  template <class Frequency>
  IntegerRotations(Index count, double scale, Frequency frequency, std::int64_t bits = -1)
      : count_(count),
        padded_((count + unit - 1) / unit * unit),
        scale_(scale),
        frequencies_(padded_, 2),
        factors_(2 * padded_, num_factors(bits)) {
    for (Index i = 0; i < padded_; ++i) {  // behind the last frequency are copies of it: packets without zeros
      const DoubleDouble w = frequency(std::min(i, count - 1));
      frequencies_(i, 0) = w.high;
      frequencies_(i, 1) = w.low;
    }
    for (Index f = 0; padded_ > 0 && f < factors_.cols(); ++f) {
      const std::int64_t step = f < num_rows ? f : num_rows << (f - num_rows);
      if ((step & ~bits) != 0) continue;
      const Index lowest_bit = step & -step;
      if (step == lowest_bit)
        for (Index i = 0; i < padded_; ++i) {
          const CosSin exact = step == 0 ? CosSin{1, 0} : cos_sin(static_cast<double>(step), this->frequency(i));
          factors_(i, f) = exact.cos;
          factors_(padded_ + i, f) = exact.sin;
        }
      else
        multiply(factor(f - lowest_bit), factor(lowest_bit), padded_, {&factors_(0, f), &factors_(padded_, f)});
    }
  }

  /// Whether a table of so many bytes is large enough to be written around the caches, and nothing but whole packets.
  bool can_stream(const float* to, const float* also_to, Index stride, Index bytes) const {
    return bytes >= streamed_bytes && may_stream(to) && may_stream(also_to) && stride % unit == 0 && count_ == padded_;
  }

  /// Tokens at consecutive positions, and their rotations for a group of frequencies.
  class Run {
   public:
    Index size() const { return num_tokens_; }

    /// The rotations of each token `stride` behind those of the one before.
    template <WaveOrder order>
    void write(Waves<float> to, Index stride) const {
      if (!products<order, WaveAction::write>(to, stride, {nullptr, nullptr}, 0)) correct<order>(to, stride);
    }
    /// The same around the caches, if can_stream; finish_streaming comes behind.
    template <WaveOrder order>
    void stream(Waves<float> to, Index stride) const {
      if (!products<order, WaveAction::stream>(to, stride, {nullptr, nullptr}, 0)) correct<order>(to, stride);
    }

    /// Adds them to what is there, of which `kept` gets a copy. False if some must be corrected: write, then.
    template <WaveOrder order>
    [[nodiscard]] bool add(Waves<float> to, Index stride, Waves<float> kept, Index kept_stride) const {
      return products<order, WaveAction::add>(to, stride, kept, kept_stride);
    }

   private:
    template <WaveOrder order>
    void correct(Waves<float> to, Index stride) const {
      for (Index t = 0; t < num_tokens_; ++t)
        all_.correct(position_ + t, begin_, size_, to.from(t * stride), order == WaveOrder::interleaved ? 2 : 1);
    }

    template <WaveOrder order, WaveAction action>
    bool products(Waves<float> to, Index stride, Waves<float> kept, Index kept_stride) const {
      const Waves<const double> row = all_.factor(position_ & (num_rows - 1)).from(begin_);
      const float smallest = write_products<order, action>(z_, minus_sin_, row, all_.factors_.rows(), size_,
                                                           num_tokens_, to, stride, kept, kept_stride);
      return smallest >= all_.least_product() || position_ == 0;  // where all is exact
    }

    friend class IntegerRotations;
    const IntegerRotations& all_;
    Waves<const double> z_;
    const double* minus_sin_;
    std::int64_t position_;
    Index num_tokens_, begin_, size_;

    Run(const IntegerRotations& all, Waves<const double> z, const double* minus_sin, std::int64_t position,
        Index num_tokens, Index begin, Index size)
        : all_(all),
          z_(z),
          minus_sin_(minus_sin),
          position_(position),
          num_tokens_(num_tokens),
          begin_(begin),
          size_(size) {}
  };

  /// Calls action(t, Run) for all tokens, a run of at most max_tokens from token t on at a time, with frequencies
  /// begin, ..., begin + size - 1.
  template <class Action>
  void for_each_run(const Positions& positions, std::int64_t shift, Index begin, Index size, Index max_tokens,
                    Action action) const {
    using Doubles = std::array<double, static_cast<std::size_t>(max_group)>;
    alignas(64) Doubles chunk_cos, chunk_sin;             // the product but for the last 8 bits
    alignas(64) Doubles block_cos, block_sin, minus_sin;  // and but for the last 5
    const Waves<double> chunk{chunk_cos.data(), chunk_sin.data()}, block{block_cos.data(), block_sin.data()};
    const Index n = (size + unit - 1) / unit * unit;
    std::int64_t before = 0;
    for (Index t = 0, num_tokens; t < positions.size(); t += num_tokens) {
      const std::int64_t position = positions[t] + shift;
      const auto most = static_cast<Index>(
          std::min<std::int64_t>({max_tokens, positions.size() - t, num_rows - (position & (num_rows - 1))}));
      if (position == 0)  // alone, since it has zeros
        num_tokens = 1;
      else if (positions.is_contiguous())
        num_tokens = most;
      else
        for (num_tokens = 1; num_tokens < most && positions[t + num_tokens] + shift == position + num_tokens;)
          ++num_tokens;

      if (t == 0 || position >> 8 != before >> 8) {
        start(position >> num_bits, begin, n, chunk);
        multiply_bits(position, num_bits - 1, 8, begin, n, chunk);
      }
      if (t == 0 || position >> 5 != before >> 5) {
        std::copy_n(chunk.cos, n, block.cos);
        std::copy_n(chunk.sin, n, block.sin);
        multiply_bits(position, 7, 5, begin, n, block);
        std::transform(block.sin, block.sin + n, minus_sin.begin(), [](double sin) { return -sin; });
      }
      before = position;
      action(t, Run(*this, {block.cos, block.sin}, minus_sin.data(), position, num_tokens, begin, size));
    }
  }

 private:
  static constexpr int num_bits = 20;
  static constexpr std::int64_t num_rows = 32;  ///< of the last five bits

  /// Of positions that have these bits: a row for each number of the last five, and a factor for each bit before them.
  static Index num_factors(std::int64_t bits) {
    const int width = std::min(static_cast<int>(std::bit_width(static_cast<std::uint64_t>(bits))), num_bits);
    return width <= 5 ? Index{1} << width : num_rows + width - 5;
  }

  Waves<const double> factor(Index f) const {
    const double* const cos = factors_.data() + f * factors_.rows();
    return {cos, cos + padded_};
  }

  /// scale e^{i 2^20 h w}.
  void start(std::int64_t h, Index begin, Index n, Waves<double> z) const {
    const double position = static_cast<double>(h) * static_cast<double>(std::int64_t{1} << num_bits);
    for (Index j = 0; j < n; ++j) {
      const auto [cos, sin] = h == 0 ? CosSin{1, 0} : cos_sin(position, frequency(begin + j));
      z.cos[j] = scale_ * cos;
      z.sin[j] = scale_ * sin;
    }
  }

  void multiply_bits(std::int64_t position, int from, int to, Index begin, Index n, Waves<double> z) const {
    for (int bit = from; bit >= to; --bit)
      if ((position >> bit & 1) != 0) multiply({z.cos, z.sin}, factor(num_rows + bit - 5).from(begin), n, z);
  }

  DoubleDouble frequency(Index i) const { return {frequencies_(i, 0), frequencies_(i, 1)}; }

  /// Below this, an error of the products would show in a float.
  float least_product() const { return static_cast<float>(0x1p-20 * std::abs(scale_)); }

  /// Writes small numbers again. Where a frequency is 0, none needs it.
  void correct(std::int64_t position, Index begin, Index size, Waves<float> to, Index stride) const {
    for (Index j = 0; j < size; ++j) {
      float &cos = to.cos[j * stride], &sin = to.sin[j * stride];
      const bool small_cos = std::abs(cos) < least_product(), small_sin = std::abs(sin) < least_product();
      if (!(small_cos || small_sin) || frequency(begin + j).high == 0) continue;
      const CosSin exact = cos_sin(static_cast<double>(position), frequency(begin + j));
      if (small_cos) cos = static_cast<float>(scale_ * exact.cos);
      if (small_sin) sin = static_cast<float>(scale_ * exact.sin);
    }
  }

  Index count_ = 0, padded_ = 0;
  double scale_ = 1;
  Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::ColMajor> frequencies_, factors_;
};

}  // namespace posenc::inline v0::detail
