// SPDX-License-Identifier: MIT
#pragma once

#include <Eigen/Core>
#include <algorithm>
#include <type_traits>

#include <posenc/concepts.hpp>
#include <posenc/detail/check.hpp>
#include <posenc/detail/packet.hpp>

namespace posenc::inline v0 {

namespace detail {
template <class Scalar, class Queries, class Keys, class Values, class... Encodings>
class AttentionInputs;
template <class Scalar, class Queries, class Keys, class Values, class... Encodings>
class SingleQueryStream;
template <class Scalar, class Queries, class Keys, class Values, class... Encodings>
class AttentionPanels;
template <class Scalar, class Queries, class Keys, class Values, class... Encodings>
class AttentionStream;
template <class Scalar, class Term>
class FusedTerm;
template <class Scalar>
class AttentionTrial;
}

/// The memory that streaming attention works in: made once for a size of heads, used for any number of calls and any
/// length of sequence, by one thread at a time.
///
///   a block of queries    D  x block_queries   as panels of transposed queries
///   and their outputs     Dv x block_queries
///   some of the queries   as columns           where they must be rotated or converted
///   a stretch of keys     D  x stretch_keys    where keys must be rotated, converted or brought together
///   and values            Dv x stretch_keys    the same
///   a tile of scores      tile_keys x panel
///   a term by distance    the products of a panel with up to 513 vectors, and the weights that they get
///   or single queries     and their scores with a stretch of keys, in the same place
///
/// Memory: at most 2 MiB for heads and values of up to 512 features.
///
/// \tparam Scalar_ float or double: the arithmetic of the attention; float for half and bfloat16 matrices.
template <class Scalar_>
class AttentionWorkspace {
  static_assert(std::is_same_v<Scalar_, float> || std::is_same_v<Scalar_, double>,
                "posenc::AttentionWorkspace: Scalar must be float or double");

 public:
  using Scalar = Scalar_;

  /// \throws std::invalid_argument if a dimension is not positive.
  AttentionWorkspace(Index head_dim, Index value_dim) : head_dim_(head_dim), value_dim_(value_dim) {
    detail::require(head_dim > 0, "posenc::AttentionWorkspace: head_dim must be positive", head_dim);
    detail::require(value_dim > 0, "posenc::AttentionWorkspace: value_dim must be positive", value_dim);
    const auto fitting = [](Index bytes, Index features, Index multiple, Index most) {
      return std::clamp(bytes / (features * static_cast<Index>(sizeof(Scalar))) / multiple * multiple, multiple, most);
    };
    const Index num_keys = fitting(Index{3} << 17, 2 * head_dim + value_dim, tile_keys, tile_keys * max_tiles);
    const Index key_bytes = num_keys * (2 * head_dim + value_dim) * static_cast<Index>(sizeof(Scalar));
    const Index num_queries =
        fitting((Index{7} << 17) - key_bytes, head_dim + value_dim, panel, static_cast<Index>(max_queries));
    query_columns_.resize(head_dim, std::min(num_queries, fitting(Index{1} << 16, head_dim, panel, max_queries)));
    rotated_columns_.resize(head_dim, panel);
    query_panels_.resize(head_dim * num_queries);
    output_panels_.resize(value_dim * num_queries);
    keys_.resize(head_dim, num_keys);
    rotated_keys_.resize(head_dim, num_keys);
    values_.resize(value_dim, num_keys);
    scores_.resize(tile_keys * panel);
    score_columns_.resize(tile_keys, panel);
    output_columns_.resize(value_dim, panel);
    distances_.resize(num_queries + num_keys);
    maxima_.resize(num_queries);
    sums_.resize(num_queries);
    shifts_.resize(num_queries / panel);
    term_.resize(max_distances * panel);
    edges_.resize(4 * num_queries);
    skewed_scores_.resize((max_distances + panel) * panel);
    skewed_weights_.resize((max_distances + panel) * panel);
  }

  Index head_dim() const { return head_dim_; }
  Index value_dim() const { return value_dim_; }

  /// How many queries are computed between two passes over the keys.
  Index block_queries() const { return maxima_.size(); }

  /// All memory that is held, in bytes.
  Index num_bytes() const {
    const Index scalars = query_columns_.size() + rotated_columns_.size() + query_panels_.size() +
                          output_panels_.size() + keys_.size() + rotated_keys_.size() + values_.size() +
                          scores_.size() + score_columns_.size() + output_columns_.size() + distances_.size() +
                          maxima_.size() + sums_.size() + shifts_.size() + term_.size() + edges_.size() +
                          skewed_scores_.size() + skewed_weights_.size();
    return scalars * static_cast<Index>(sizeof(Scalar));
  }

 private:
  template <class, class, class, class, class...>
  friend class detail::AttentionInputs;
  template <class, class, class, class, class...>
  friend class detail::SingleQueryStream;
  template <class, class, class, class, class...>
  friend class detail::AttentionPanels;
  template <class, class, class, class, class...>
  friend class detail::AttentionStream;
  template <class, class>
  friend class detail::FusedTerm;
  template <class>
  friend class detail::AttentionTrial;

  static constexpr Index panel = detail::Simd<Scalar>::tile_width;  ///< queries that are computed side by side
  static constexpr Index max_queries = 1024;                        ///< of a block
  static constexpr Index tile_keys = 64;                            ///< keys between two corrections of the softmax
  static constexpr Index max_tiles = 8;                             ///< of a stretch
  static constexpr Index max_distances = 513;                       ///< of a DistanceTerm that is fused

  Index head_dim_, value_dim_;
  Matrix<Scalar> query_columns_, rotated_columns_, keys_, rotated_keys_, values_, score_columns_, output_columns_;
  Vector<Scalar> query_panels_, output_panels_, scores_, distances_, maxima_, sums_, shifts_, term_, edges_,
      skewed_scores_, skewed_weights_;
};

}  // namespace posenc::inline v0
