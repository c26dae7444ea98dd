// SPDX-License-Identifier: MIT
#pragma once

#include <Eigen/Core>
#include <algorithm>
#include <cstdint>
#include <type_traits>
#include <vector>

#include <posenc/concepts.hpp>
#include <posenc/detail/check.hpp>
#include <posenc/detail/lines.hpp>
#include <posenc/detail/scalar.hpp>
#include <posenc/positions.hpp>
#include <posenc/rope_move.hpp>

namespace posenc::inline v0 {

struct KvCacheOptions {
  Index num_kv_heads = 1;  ///< heads of the keys and values; query heads may be more
  Index head_dim = 0;      ///< features of a key
  Index value_dim = 0;     ///< features of a value; 0: head_dim
  Index capacity = 0;      ///< the most tokens that it can hold
  Index num_axes = 1;      ///< coordinates of a position: 1 for text, 3 for M-RoPE
};

/// Which tokens leave: num_tokens of them, behind the first num_sink_tokens.
struct KvEviction {
  Index num_tokens = 0;
  Index num_sink_tokens = 0;  ///< kept in front: the tokens that every query attends to (StreamingLLM)
};

/// Keys and values of one layer, kept for the queries to come: a token a column, contiguous, room for `capacity` of them.
///
///   token        0   1   2   3      size() - 1      capacity - 1
///   positions    0   1 105 106  ...     p      |                 any; as they were given
///   keys       [ k   k   k   k  ...     k      |   still free ]  (num_kv_heads * head_dim)  x capacity
///   values     [ v   v   v   v  ...     v      |   still free ]  (num_kv_heads * value_dim) x capacity
///
///   evict({.num_tokens = 2, .num_sink_tokens = 1})            k0 k1 k2 k3 k4   ->   k0 k3 k4
///     positions stay                                           0  1  2  3  4         0  3  4
///     positions move up, evict(..., rope)                      0  1  2  3  4         0  1  2     k3, k4 turned by -2
///
///   KvCache<float> cache({.num_kv_heads = 2, .head_dim = 64, .capacity = 4096});
///   const Positions here = positions(k.cols(), cache.next_position());
///   cache.append(k, v, rope);                          // rotated once, at `here`
///   rope(q, here);                                     // and so nothing is left to rotate for the attention
///   streaming_attend_heads_into(o, q, cache.keys(), cache.values(), {.query_positions = here,
///                               .key_positions = cache.positions(), .num_heads = 8, .num_kv_heads = 2}, ...);
///
/// A key is rotated when it comes, in the arithmetic of its scalar and rounded once to the storage; when it is moved, it
/// is turned by the exact difference, and a magnitude (YaRN, LongRoPE) is never applied twice. Values are not rotated.
/// Positions that count up by one are given back as such (Positions::is_contiguous), whatever they were given as.
///
/// Views stay valid until the next call that is not const.
///
/// \tparam Scalar_ float, double, half or bfloat16: how keys and values are stored. Arithmetic on the last two is done
///         in float.
/// Errors: std::invalid_argument for a shape that does not fit, std::out_of_range for tokens that there is no room for or
///         that are not there, and what an encoding throws. The cache is then as it was.
/// Memory: capacity * num_kv_heads * (head_dim + value_dim) scalars and two positions a token. Nothing is allocated after
///         construction.
/// Source: Xiao et al. 2023, StreamingLLM, arXiv:2309.17453v4 (sink tokens, and positions within the cache).
template <class Scalar_>
class KvCache {
  static_assert(RealScalar<Scalar_>, "posenc::KvCache: Scalar must be float, double, Eigen::half or Eigen::bfloat16");

 public:
  using Scalar = Scalar_;
  using Real = detail::compute_t<Scalar>;

  /// \throws std::invalid_argument if a number is not positive.
  explicit KvCache(const KvCacheOptions& options) : options_(options) {
    if (options_.value_dim == 0) options_.value_dim = options_.head_dim;
    detail::require(options_.num_kv_heads > 0, "posenc::KvCache: num_kv_heads must be positive", options_.num_kv_heads);
    detail::require(options_.head_dim > 0, "posenc::KvCache: head_dim must be positive", options_.head_dim);
    detail::require(options_.value_dim > 0, "posenc::KvCache: value_dim must be positive", options_.value_dim);
    detail::require(options_.capacity > 0, "posenc::KvCache: capacity must be positive", options_.capacity);
    detail::require(options_.num_axes > 0, "posenc::KvCache: num_axes must be positive", options_.num_axes);
    keys_.resize(num_kv_heads() * head_dim(), capacity());
    values_.resize(num_kv_heads() * value_dim(), capacity());
    positions_.resize(static_cast<std::size_t>(num_axes() * capacity()));
    moved_positions_.resize(positions_.size());
    if constexpr (!std::is_same_v<Scalar, Real>) rotated_.resize(head_dim(), std::min<Index>(capacity(), 64));
  }

  Index num_kv_heads() const { return options_.num_kv_heads; }
  Index head_dim() const { return options_.head_dim; }
  Index value_dim() const { return options_.value_dim; }
  Index capacity() const { return options_.capacity; }
  Index num_axes() const { return options_.num_axes; }

  /// How many tokens it holds.
  Index size() const { return size_; }

  /// All heads, (num_kv_heads * head_dim) x size() and (num_kv_heads * value_dim) x size().
  auto keys() const { return keys_.leftCols(size_); }
  auto values() const { return values_.leftCols(size_); }

  /// One head, head_dim x size() and value_dim x size().
  /// \throws std::out_of_range for a head that is not there.
  auto keys(Index head) const {
    require_head(head);
    return keys_.block(head * head_dim(), 0, head_dim(), size_);
  }
  auto values(Index head) const {
    require_head(head);
    return values_.block(head * value_dim(), 0, value_dim(), size_);
  }

  /// Where the tokens are.
  Positions positions() const {
    if (num_axes() == 1 && num_consecutive_ == size_) return {size_, size_ == 0 ? 0 : positions_[0]};
    return Positions::axes(positions_, num_axes()).segment(0, size_);
  }

  /// One more than the largest position, on all axes; 0 where the cache is empty.
  std::int64_t next_position() const {
    std::int64_t next = 0;
    const Positions all = positions();
    if (size_ > 0) next = range(all.axis(0)).last + 1;
    for (Index axis = 1; axis < num_axes(); ++axis) next = std::max(next, range(all.axis(axis)).last + 1);
    return next;
  }

  /// Appends tokens at given positions.
  ///
  /// \param keys      (num_kv_heads * head_dim) x T, rotated on the way in by `encodings`, head by head; not changed.
  /// \param values    (num_kv_heads * value_dim) x T
  /// \param positions T entries, of num_axes axes or of one, which is then the same on all.
  /// \param encodings any number of QueryKeyEncodings; none where the keys are rotated already, or never.
  template <DenseExpression Keys, DenseExpression Values, class... Encodings>
  void append(const Keys& keys, const Values& values, const Positions& positions, const Encodings&... encodings) {
    static_assert((QueryKeyEncoding<Encodings, Real> && ...),
                  "posenc::KvCache: what is given to append must rotate keys (QueryKeyEncoding in concepts.hpp); other "
                  "encodings are given to the attention");
    detail::require_size(keys.rows(), keys_.rows(),
                         "posenc::KvCache: rows of the keys must be num_kv_heads * head_dim");
    detail::require_size(values.rows(), values_.rows(),
                         "posenc::KvCache: rows of the values must be num_kv_heads * value_dim");
    detail::require_size(values.cols(), keys.cols(),
                         "posenc::KvCache: columns of the values must be those of the keys");
    require_positions(positions, keys.cols());
    detail::require_in_range(keys.cols() <= capacity() - size_, "posenc::KvCache: tokens must be at most the capacity",
                             size_ + keys.cols());

    // Behind the tokens that are there, where nobody looks until they are counted.
    const Index num_tokens = keys.cols();
    if constexpr (sizeof...(Encodings) == 0) {
      put(keys, keys_.middleCols(size_, num_tokens));
    } else if constexpr (std::is_same_v<Scalar, Real>) {
      keys_.middleCols(size_, num_tokens) = keys.template cast<Scalar>();
      for (Index head = 0; head < num_kv_heads(); ++head)
        rotate(keys_.block(head * head_dim(), size_, head_dim(), num_tokens), positions, head, encodings...);
    } else {  // in float, so that a key is rounded once
      for (Index begin = 0; begin < num_tokens; begin += rotated_.cols()) {
        const Index some = std::min(rotated_.cols(), num_tokens - begin);
        for (Index head = 0; head < num_kv_heads(); ++head) {
          auto rotated = rotated_.leftCols(some);
          rotated = keys.block(head * head_dim(), begin, head_dim(), some).template cast<Real>();
          rotate(rotated, positions.segment(begin, some), head, encodings...);
          put(rotated, keys_.block(head * head_dim(), size_ + begin, head_dim(), some));
        }
      }
    }
    put(values, values_.middleCols(size_, num_tokens));
    remember(positions, size_, positions_);
    size_ += num_tokens;
    count_consecutive();
  }

  /// Appends tokens at the next positions, next_position() and on.
  template <DenseExpression Keys, DenseExpression Values, class... Encodings>
  requires(QueryKeyEncoding<Encodings, detail::compute_t<Scalar_>>&&...) void append(const Keys& keys,
                                                                                     const Values& values,
                                                                                     const Encodings&... encodings) {
    append(keys, values, Positions(keys.cols(), next_position()), encodings...);
  }

  /// Removes tokens and closes the gap. All others stay at their positions, and their keys as they are.
  /// Cost: moves what is behind the gap. Evict many tokens at a time.
  void evict(const KvEviction& eviction) {
    require_tokens(eviction);
    close_gap(eviction);
  }

  /// The same, and the tokens behind the gap move up: the first of them comes to the position of the first that leaves,
  /// and the others as far. Their keys are turned by the exact difference.
  /// \param encoding the Rope or XPos that the keys were rotated with.
  template <class Encoding>
  void evict(const KvEviction& eviction, const Encoding& encoding) {
    require_tokens(eviction);
    const Index first = eviction.num_sink_tokens, behind = first + eviction.num_tokens, rest = size_ - behind;
    if (eviction.num_tokens > 0 && rest > 0) {
      const Positions all = positions(), old_positions = all.segment(behind, rest);
      const std::int64_t shift = all[behind] - all[first];
      for (Index axis = 0; axis < num_axes(); ++axis)
        for (Index t = 0; t < rest; ++t) entry(moved_positions_, axis, t) = old_positions.axis(axis)[t] - shift;
      const Positions new_positions = Positions::axes(moved_positions_, num_axes()).segment(0, rest);
      turn(keys_.middleCols(behind, rest), encoding, old_positions, encoding, new_positions);
      remember(new_positions, behind, positions_);
    }
    close_gap(eviction);
  }

  /// Moves all keys to other positions, by the exact difference.
  /// \param encoding the Rope or XPos that the keys were rotated with.
  template <class Encoding>
  void move_keys(const Encoding& encoding, const Positions& new_positions) {
    move_keys(encoding, encoding, new_positions);
  }

  /// Moves all keys to what another encoding makes of them: another base, another schedule, another centre.
  ///
  ///   cache.move_keys(short_rope, long_rope, cache.positions());      past the length that a model was trained at
  ///
  /// \param from, to two Ropes or two XPos; `from` is what the keys were rotated with.
  template <class Encoding>
  void move_keys(const Encoding& from, const Encoding& to, const Positions& new_positions) {
    require_positions(new_positions, size_);
    turn(keys_.leftCols(size_), from, positions(), to, new_positions);
    remember(new_positions, 0, positions_);
    count_consecutive(0);
  }

  /// Keeps the first tokens: back to an earlier point of the text.
  /// \throws std::out_of_range if there are not so many.
  void truncate(Index size) {
    detail::require_in_range(size >= 0 && size <= size_,
                             "posenc::KvCache: what is kept must be among the tokens in the cache", size);
    size_ = size;
    num_consecutive_ = std::min(num_consecutive_, size);
  }

  /// Forgets everything; memory is kept.
  void reset() { truncate(0); }

 private:
  void require_head(Index head) const {
    detail::require_in_range(head >= 0 && head < num_kv_heads(), "posenc::KvCache: head must be below num_kv_heads",
                             head);
  }
  void require_positions(const Positions& positions, Index num_tokens) const {
    detail::require_size(positions.size(), num_tokens, "posenc::KvCache: positions must be as many as the keys");
    if (positions.num_axes() != 1)
      detail::require_size(positions.num_axes(), num_axes(),
                           "posenc::KvCache: axes of the positions must be 1 or num_axes");
  }
  void require_tokens(const KvEviction& eviction) const {
    detail::require(eviction.num_tokens >= 0, "posenc::KvCache: num_tokens must not be negative", eviction.num_tokens);
    detail::require(eviction.num_sink_tokens >= 0, "posenc::KvCache: num_sink_tokens must not be negative",
                    eviction.num_sink_tokens);
    detail::require_in_range(
        eviction.num_sink_tokens <= size_ && eviction.num_tokens <= size_ - eviction.num_sink_tokens,
        "posenc::KvCache: what is evicted must be behind the sinks and in the cache", eviction.num_tokens);
  }

  /// to = from, rounded.
  template <class From, class To>
  static void put(const From& from, To&& to) {
    if constexpr (!std::is_same_v<Scalar, Real> && std::is_same_v<typename From::Scalar, Real> && !From::IsRowMajor &&
                  static_cast<bool>(From::Flags & Eigen::DirectAccessBit)) {
      if (from.innerStride() == 1) {
        for (Index t = 0; t < from.cols(); ++t)
          detail::round_line(from.data() + t * from.outerStride(), from.rows(), &to.coeffRef(0, t));
        return;
      }
    }
    to = from.template cast<Scalar>();
  }

  /// In double and float where they lie; a hook may be a template or take a plain Eigen::Ref.
  template <class Block, class... Encodings>
  static void rotate(Block&& keys, const Positions& positions, Index head, const Encodings&... encodings) {
    Eigen::Ref<Matrix<Real>> view = keys;
    (encodings.apply_key(view, positions, head), ...);
  }

  template <class Block, class Encoding>
  static void turn(Block&& keys, const Encoding& from, const Positions& old_positions, const Encoding& to,
                   const Positions& new_positions) {
    if constexpr (requires { from.move_keys(keys, old_positions, to, new_positions); }) {
      from.move_keys(keys, old_positions, to, new_positions);
    } else {
      static_assert(
          std::is_same_v<Encoding, Rope>,
          "posenc::KvCache: keys are moved by the Rope or XPos that rotated them; of a RopeTable give rope()");
      posenc::move_keys(keys, from, old_positions, to, new_positions);
    }
  }

  std::int64_t& entry(std::vector<std::int64_t>& entries, Index axis, Index token) const {
    return entries[static_cast<std::size_t>(axis * capacity() + token)];
  }

  void remember(const Positions& positions, Index first_token, std::vector<std::int64_t>& entries) const {
    for (Index axis = 0; axis < num_axes(); ++axis) {
      const Positions one = positions.axis(axis);
      for (Index t = 0; t < one.size(); ++t) entry(entries, axis, first_token + t) = one[t];
    }
  }

  /// Tokens 0, ..., num_consecutive_ - 1 are known to be at consecutive positions; looks whether more are.
  void count_consecutive() {
    if (num_consecutive_ == 0 && size_ > 0) num_consecutive_ = 1;
    while (num_consecutive_ < size_ &&
           entry(positions_, 0, num_consecutive_) == entry(positions_, 0, num_consecutive_ - 1) + 1)
      ++num_consecutive_;
  }
  void count_consecutive(Index known) {
    num_consecutive_ = std::min(num_consecutive_, known);
    count_consecutive();
  }

  void close_gap(const KvEviction& eviction) {
    const Index first = eviction.num_sink_tokens, behind = first + eviction.num_tokens;
    const auto move_columns = [&](Matrix<Scalar>& columns) {
      const Index rows = columns.rows();
      std::copy(columns.data() + behind * rows, columns.data() + size_ * rows, columns.data() + first * rows);
    };
    move_columns(keys_);
    move_columns(values_);
    for (Index axis = 0; axis < num_axes(); ++axis) {
      const auto entries = positions_.begin() + axis * capacity();
      std::copy(entries + behind, entries + size_, entries + first);
    }
    size_ -= eviction.num_tokens;
    count_consecutive(first);
  }

  KvCacheOptions options_;
  Matrix<Scalar> keys_, values_;
  std::vector<std::int64_t> positions_;        // axis by axis, capacity entries each
  std::vector<std::int64_t> moved_positions_;  // the same: where an eviction moves them
  Matrix<Real> rotated_;                       // some keys of a head, for small scalars
  Index size_ = 0;
  Index num_consecutive_ = 0;
};

}  // namespace posenc::inline v0
