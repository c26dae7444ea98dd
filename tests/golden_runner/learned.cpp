// SPDX-License-Identifier: MIT

// Look-ups in learned tables: learned_absolute.

#include <posenc/learned.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "files.hpp"

namespace golden {
namespace {

using posenc::LearnedAbsolute;
using posenc::LearnedAbsoluteOptions;
using posenc::Positions;

const Tolerance exact = Tolerance::exact();

/// What is looked up at the positions: added to zeros.
Matrix<float> rows_at(const LearnedAbsolute<float>& learned, const Positions& positions) {
  Matrix<float> x = Matrix<float>::Zero(learned.dim(), positions.size());
  learned(x, positions);
  return x;
}

/// BERT: the embeddings of words, token types and positions are added and normalised. (An embedding is looked up by the
/// number of a word as it is by that of a position.)
void bert_block(Case& c) {
  const LearnedAbsolute<float> words(c.array<float>("word").matrix());  // [N, D] in memory is our D x N
  const LearnedAbsolute<float> types(c.array<float>("token_type").matrix());
  const LearnedAbsolute<float> learned(c.array<float>("position").matrix());
  c.expect("vocab", words.num_positions());
  c.expect("dim", learned.dim());
  c.expect("max_positions", learned.num_positions());

  const auto input_ids = c.array<std::int64_t>("input_ids"), type_ids = c.array<std::int64_t>("token_type_ids");
  const Vector<float> weight = c.array<float>("ln_w").matrix(), bias = c.array<float>("ln_b").matrix();
  const auto epsilon = static_cast<float>(c.get<double>("layer_norm_eps"));
  const auto out = c.array<float>("out");

  // Either ids of the case's own, or contiguous positions behind `past`.
  const bool own_ids = c.has_array("position_ids");
  const auto position_ids = own_ids ? c.array<std::int64_t>("position_ids") : Tensor<std::int64_t>();
  const std::int64_t past = own_ids ? 0 : c.get<std::int64_t>("past");
  for (Index batch = 0; batch < input_ids.size(0); ++batch) {
    const Positions positions =
        own_ids ? Positions(position_ids.row(batch)) : posenc::positions(input_ids.size(1), past);
    if (c.has_array("pos_rows"))
      c.compare("look-up", exact, rows_at(learned, positions), c.array<float>("pos_rows").at(0));

    Matrix<float> x = rows_at(words, input_ids.row(batch)) + rows_at(types, type_ids.row(batch));
    learned.add_to(x, positions);
    for (auto token : x.colwise()) {
      token.array() -= token.mean();
      token /= std::sqrt(token.squaredNorm() / static_cast<float>(token.size()) + epsilon);
      token = token.cwiseProduct(weight) + bias;
    }
    c.compare("whole block", Tolerance::absolute(5e-6), x, out.at(batch));
  }
}

/// OPT: positions count what is not padding, padding is position -1, and the columns before `past` are dropped.
void behind_padding(Case& c) {
  c.expect("offset", LearnedAbsoluteOptions::opt().offset);
  const LearnedAbsolute<float> learned(c.array<float>("table").matrix(), LearnedAbsoluteOptions::opt());
  const auto mask = c.array<std::int64_t>("attention_mask");
  const auto past = c.get<Index>("past");
  const auto out = c.array<float>("out");
  for (Index batch = 0; batch < mask.size(0); ++batch) {
    const auto all = posenc::padded_positions(mask.row(batch), {.padding = -1});
    c.compare("look-up", exact, rows_at(learned, Positions(all).segment(past, mask.size(1) - past)), out.at(batch));
  }
}

/// fairseq: the same with a column of zeros for padding, which is told from the tokens.
void behind_padding_tokens(Case& c) {
  const auto padding_idx = c.get<std::int64_t>("padding_idx");
  const LearnedAbsolute<float> learned(c.array<float>("table").matrix(), LearnedAbsoluteOptions::roberta(padding_idx));
  const auto tokens = c.array<std::int64_t>("tokens"), peer_columns = c.array<std::int64_t>("positions");
  const auto out = c.array<float>("out");
  for (Index batch = 0; batch < tokens.size(0); ++batch) {
    std::vector<bool> mask;
    for (const auto token : tokens.row(batch)) mask.push_back(token != padding_idx);
    const auto positions = posenc::padded_positions(mask, {.padding = -1});
    for (Index t = 0; t < tokens.size(1); ++t)
      c.require("column", positions[static_cast<std::size_t>(t)] + learned.options().offset == peer_columns(batch, t));
    c.compare("look-up", exact, rows_at(learned, positions), out.at(batch));
  }
}

/// BART: contiguous positions behind `past`, two columns on.
void behind_offset(Case& c) {
  c.expect("offset", LearnedAbsoluteOptions::bart().offset);
  const LearnedAbsolute<float> learned(c.array<float>("table").matrix(), LearnedAbsoluteOptions::bart());
  const Matrix<float> rows = rows_at(learned, posenc::positions(c.get<Index>("seq"), c.get<std::int64_t>("past")));
  const auto out = c.array<float>("out");
  for (Index batch = 0; batch < out.size(0); ++batch) c.compare("look-up", exact, rows, out.at(batch));
}

/// x-transformers: columns times D^-0.5. An offset is added to all positions. Each batch may start at a token of its
/// own, and what would be in front of the table is in its first column.
void scaled(Case& c) {
  const auto table = c.array<float>("table");
  auto options = LearnedAbsoluteOptions::x_transformers(table.size(1));
  c.compare("scale", Tolerance::relative(1e-6), Matrix<double>::Constant(1, 1, options.scale),
            Matrix<double>::Constant(1, 1, c.get<double>("scale")));
  options.offset = c.get_or<std::int64_t>("offset", 0);
  const LearnedAbsolute<float> learned(table.matrix(), options);
  const auto out = c.array<float>("out");
  if (!c.has_array("seq_start"))
    return c.compare("look-up, scaled", exact, rows_at(learned, posenc::positions(out.size(0))), out.matrix());

  const auto seq_start = c.array<std::int64_t>("seq_start");
  for (Index batch = 0; batch < out.size(0); ++batch) {
    std::vector<std::int64_t> positions;
    for (Index t = 0; t < out.size(1); ++t)
      positions.push_back(std::max<std::int64_t>(-options.offset, t - seq_start(batch)));
    c.compare("look-up, scaled", exact, rows_at(learned, positions), out.at(batch));
  }
}

}  // namespace

void learned_absolute(Case& c) {
  if (c.has_array("word"))
    bert_block(c);
  else if (c.has_array("attention_mask"))
    behind_padding(c);
  else if (c.has_array("tokens"))
    behind_padding_tokens(c);
  else if (c.has("scale"))
    scaled(c);
  else if (c.has("offset"))
    behind_offset(c);
  else
    throw UnknownKind("it has neither word nor attention_mask nor tokens nor scale nor offset");
}

}  // namespace golden
