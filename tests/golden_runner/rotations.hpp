// SPDX-License-Identifier: MIT
#pragma once

// What the cases of rotations share: heads before and after, cosines and sines that the peer used, and the schedule of
// frequencies that a configuration describes.

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <posenc/positions.hpp>
#include <posenc/rope.hpp>
#include <posenc/rope_frequencies.hpp>
#include <posenc/rope_table.hpp>

#include "golden.hpp"
#include "heads.hpp"

namespace golden {

using posenc::PairLayout;
using posenc::Positions;
using posenc::Rope;
using posenc::RopeFrequencies;
using posenc::RopeOptions;
using posenc::RopeTable;

/// Of the rotation step alone, from the cosines and sines that the peer used.
inline Tolerance given_angles() { return Tolerance::absolute(2e-6); }

/// Of frequencies that the peer computed in float32.
inline Tolerance float_frequencies() { return Tolerance::relative(5e-6); }

/// Heads before and after the peer's rotation.
struct Rotated {
  Heads before, after;
  bool are_keys;
};

/// Rotates one head after the other, as an attention would, by a Rope or a RopeTable: `rotation(batch)` at
/// `positions(batch)`.
template <class RotationOf, class PositionsOf>
void compare_heads(Case& c, const std::string& check, const Tolerance& tolerance, const Rotated& rotated,
                   RotationOf rotation, PositionsOf positions) {
  Heads ours = rotated.before;
  for (Index batch = 0; batch < ours.num_batches(); ++batch) {
    const auto& rotation_here = rotation(batch);
    const Positions positions_here = positions(batch);
    for (Index head = 0; head < ours.num_heads(); ++head) {
      auto x = ours(batch, head);
      if (rotated.are_keys)
        rotation_here.apply_key(x, positions_here, head);
      else
        rotation_here.apply_query(x, positions_here, head);
      c.compare(check, tolerance, x, rotated.after(batch, head));
    }
  }
}

/// Cosines or sines of a peer as rotary_dim/2 x T. A peer gives one a pair, or repeats them as [c0 c1 c0 c1], or as
/// [c0 c0 c1 c1].
Matrix<float> one_per_pair(const Eigen::Ref<const Matrix<float>>& given, Index num_pairs);

/// The cosines and sines of a table at the positions of tokens, one column a token.
struct CosSinColumns {
  Matrix<float> cos, sin;
};

/// What the float32 arithmetic of PyTorch makes of the frequencies of a Rope.
CosSinColumns float32_columns(const Rope& rope, const Positions& positions);

/// The number of features that rotate, as Hugging Face computes it from a head and "partial_rotary_factor".
Index partial_rotary_dim(Index head_dim, const nlohmann::json& rope_parameters);

/// What a configuration says besides its dictionary of RoPE.
struct RopeContext {
  Index head_dim = 0;
  Index max_position_embeddings = 0;           ///< 0: not known
  Index original_max_position_embeddings = 0;  ///< 0: not given outside the dictionary
  Index num_tokens = 0;                        ///< of the sequence, cache included
};

/// The frequencies that "rope_parameters" of Hugging Face describe (in older versions "rope_scaling" and "rope_theta").
/// Every key is used; one that nobody knows is an UnknownKind.
RopeFrequencies scheduled_frequencies(const nlohmann::json& rope_parameters, const RopeContext& context);

/// "rope_type", or "type" in older ones.
std::string rope_type(const nlohmann::json& rope_parameters);

}  // namespace golden
