// SPDX-License-Identifier: MIT

// Linear biases: alibi_slopes, alibi_bias. (alibi_attention is with the other whole layers, in alibi_attention.cpp.)

#include <posenc/alibi.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include <posenc/bias_matrix.hpp>
#include <posenc/masks.hpp>

#include "files.hpp"

namespace golden {
namespace {

using posenc::Alibi;
using posenc::AlibiForm;
using posenc::bias_matrix;
using posenc::Positions;

const Tolerance to_the_float = Tolerance::relative(1e-6);

/// A bias of a peer, [..., heads, query, key], against ours for all its heads. Where every query has the same bias, a
/// peer gives one row only; ours then is that of any query.
template <class Bias>
void compare_heads(Case& c, const Bias& ours, const Tensor<float>& peer, std::optional<Index> batch,
                   const Positions& keys, const Positions& queries) {
  const Index heads = peer.size(batch ? 1 : 0);
  for (Index head = 0; head < heads; ++head) {
    const auto theirs = batch ? peer.at(*batch, head) : peer.at(head);
    c.compare("bias", to_the_float, bias_matrix<float>(ours, keys, queries, head), theirs);
  }
}

/// -slope |m - n|, with the queries at the end of the keys. Heads from n_heads on have no bias.
void symmetric(Case& c) {
  const auto peer = c.array<float>("bias");
  const Index num_queries = c.get<Index>("q_len"), num_keys = c.get<Index>("k_len");
  posenc::AlibiOptions options{.num_heads = c.get<Index>("n_heads")};
  if (c.has("total_heads")) {
    c.expect("shape", "total_heads,query,key; trailing heads have zero bias");
    options.total_heads = c.get<Index>("total_heads");
  } else {
    c.expect("shape", "heads,query,key");
  }
  const Alibi alibi(options);
  c.require("number of heads", alibi.num_heads() == peer.size(0));
  compare_heads(c, alibi, peer, {}, posenc::positions(num_keys),
                posenc::positions(num_queries, num_keys - num_queries));
}

/// The same at any positions, which may differ from batch to batch.
void at_positions(Case& c) {
  const Alibi alibi(c.get<Index>("n_heads"));
  const auto peer = c.array<float>("bias");
  const auto queries = c.array<std::int64_t>("pos_q"), keys = c.array<std::int64_t>("pos_k");
  if (queries.rank() == 1) {
    c.expect("shape", "heads,query,key");
    return compare_heads(c, alibi, peer, {}, keys.row(), queries.row());
  }
  c.expect("shape", "batch,heads,query,key");
  for (Index batch = 0; batch < peer.size(0); ++batch)
    compare_heads(c, alibi, peer, batch, keys.row(batch), queries.row(batch));
}

/// slope (n - anchor) for every query; only what a causal mask shows is given.
void key_only(Case& c, std::int64_t anchor) {
  const Alibi alibi({.num_heads = c.get<Index>("n_heads"), .form = AlibiForm::key_only, .anchor = anchor});
  const auto peer = c.array<float>("bias");
  const auto positions = posenc::positions(c.get<Index>("seq"));
  if (!c.has_array("visible")) {
    c.expect("shape", "heads,1,key");
    return compare_heads(c, alibi, peer, {}, positions, posenc::positions(1, anchor));
  }

  c.expect("shape", "heads,query,key");
  const auto visible = c.array<std::int64_t>("visible");
  for (Index head = 0; head < peer.size(0); ++head) {
    Matrix<float> ours = bias_matrix<float>(alibi, positions, positions, head);
    posenc::CausalMask{}(ours, positions, positions);
    const auto hidden = (visible.at(head).array() == 0).eval();
    c.require("causal mask", ((ours.array() == -std::numeric_limits<float>::infinity()) == hidden).all());
    c.compare("bias", to_the_float, hidden.select(0.f, ours), peer.at(head));
  }
}

/// Bloom: positions count what is not padding, from 0 on; padding is at 0.
void padded(Case& c) {
  c.expect("shape", "batch,heads,1,key");
  const Alibi alibi({.num_heads = c.get<Index>("n_heads"), .form = AlibiForm::key_only});
  const auto peer = c.array<float>("bias");
  const auto mask = c.array<std::int64_t>("attention_mask");
  c.expect("seq", mask.size(1));
  for (Index batch = 0; batch < peer.size(0); ++batch)
    compare_heads(c, alibi, peer, batch, posenc::padded_positions(mask.row(batch)), posenc::positions(1));
}

/// flash-attention: slopes given for each batch. Query i is compared with key i + keys - queries, padding not counted.
void given_slopes(Case& c) {
  const auto peer = c.array<float>("bias");
  const auto slopes = c.array<float>("slopes");
  c.expect("n_heads", slopes.size(1));
  const auto slopes_of = [&](Index batch) { return Vector<double>(slopes.matrix().col(batch).cast<double>()); };

  if (!c.has_array("key_padding_mask")) {  // one row, slope (n - last key)
    c.expect("shape", "batch,heads,1,key");
    const Index num_keys = c.get<Index>("k_len");
    c.get<Index>("q_len");  // the row is that of every query
    for (Index batch = 0; batch < peer.size(0); ++batch)
      compare_heads(c, Alibi(slopes_of(batch), AlibiForm::key_only, num_keys - 1), peer, batch,
                    posenc::positions(num_keys), posenc::positions(1, num_keys - 1));
    return;
  }

  const auto shape = c.get<std::string>("shape");
  if (!shape.starts_with("batch,heads,query,key; row aligned")) throw UnknownKind("shape " + shape);
  const auto query_mask = c.array<std::int64_t>("query_padding_mask");
  const auto key_mask = c.array<std::int64_t>("key_padding_mask");
  c.expect("q_len", query_mask.size(1));
  c.expect("k_len", key_mask.size(1));
  for (Index batch = 0; batch < peer.size(0); ++batch) {
    const std::int64_t offset = key_mask.matrix().col(batch).sum() - query_mask.matrix().col(batch).sum();
    compare_heads(c, Alibi(slopes_of(batch)), peer, batch, posenc::positions(key_mask.size(1)),
                  posenc::positions(query_mask.size(1), offset));
  }
}

}  // namespace

/// Generators of several projects, in arrays called <peer>_<type>. MPT lets the exponent of the last slope be chosen:
/// <peer>_bias_max<exponent>_<type>.
void alibi_slopes(Case& c) {
  const auto num_heads = c.get<Index>("n_heads");
  const auto mpt_max_bias = c.get<double>("mpt_alibi_bias_max");
  const std::set<std::string> peers = {"paper", "onmt", "flash", "xtr", "bloom", "mpt"};
  for (const auto& array : c.array_names()) {
    const auto peer = array.substr(0, array.find('_'));
    if (peer == "falcon") {  // rounded to bfloat16 by the peer: not compared
      c.array<double>(array);
      continue;
    }
    if (!peers.contains(peer)) throw UnknownKind("slopes of peer " + peer);
    const auto given = array.find("bias_max");
    const double max_bias = given != std::string::npos ? std::stod(array.substr(given + 8))
                            : peer == "mpt"            ? mpt_max_bias
                                                       : 8;
    c.compare("slopes", to_the_float, posenc::alibi_slopes(num_heads, max_bias), c.array<double>(array).matrix());
  }
}

/// Peers differ by a constant of each query, which softmax does not see; what a case holds tells which form it has.
void alibi_bias(Case& c) {
  if (c.has_array("slopes"))
    given_slopes(c);
  else if (c.has_array("attention_mask"))
    padded(c);
  else if (c.has_array("pos_q"))
    at_positions(c);
  else if (c.has("q_len"))
    symmetric(c);
  else if (c.has_array("visible"))
    key_only(c, /*anchor=*/0);
  else
    key_only(c, /*anchor=*/c.get<std::int64_t>("seq") - 1);
}

}  // namespace golden
