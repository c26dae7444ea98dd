// SPDX-License-Identifier: MIT

// Sinusoidal tables and what is done with them: sinusoidal.

#include <posenc/sinusoidal.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <string>
#include <vector>

#include "files.hpp"

namespace golden {
namespace {

using posenc::Positions;
using posenc::RealPositions;
using posenc::Sinusoidal;
using posenc::SinusoidalExponent;
using posenc::SinusoidalLayout;
using posenc::SinusoidalOddDim;
using posenc::SinusoidalOptions;

/// Two peers compute in double. The others' float32 angles are the less exact the further the position. A sum with an
/// embedding may be rounded to the float next to the peer's.
Tolerance tolerance_at(const std::string& peer, double position, double largest_sum = 0) {
  if (peer == "xlm" || peer == "roformer") return Tolerance::absolute(6e-8);
  const double of_angle = 1.5e-7 * (position + 1) + 1e-6;
  if (largest_sum == 0) return Tolerance::absolute(of_angle, "1.5e-7 (p + 1) + 1e-6");
  return Tolerance::absolute(of_angle + 0x1p-23 * largest_sum, "1.5e-7 (p + 1) + 1e-6 + 2^-23 |x|");
}

/// Column t of `ours` and of `peer` belong to positions[t].
template <class SomePositions, class Ours, class Peer>
void compare_columns(Case& c, const std::string& check, const SomePositions& positions, const Ours& ours,
                     const Peer& peer) {
  if (positions.size() != peer.cols() || ours.cols() != peer.cols()) throw UnknownKind("a table of another length");
  for (Index t = 0; t < positions.size(); ++t)
    c.compare(check, tolerance_at(c.peer(), static_cast<double>(positions[t])), ours.col(t), peer.col(t));
}

/// "layout" and "denominator" say which formula a table has.
SinusoidalOptions table_options(Case& c) {
  SinusoidalOptions options{.dim = c.get<Index>("dim")};
  const auto layout = c.get<std::string>("layout");
  if (layout == "concat")
    options.layout = SinusoidalLayout::sin_cos;
  else if (layout != "interleaved")
    throw UnknownKind("layout " + layout);

  const auto denominator = c.get<std::string>("denominator");
  if (denominator == "dim/2-1" || denominator == "dim/2-1 (at least 1)") {
    options.exponent = SinusoidalExponent::i_over_half_dim_minus_one;
    options.odd_dim = SinusoidalOddDim::trailing_zero;
  } else if (denominator != "dim") {
    throw UnknownKind("denominator " + denominator);
  }

  if (c.has("min_timescale")) {
    const auto min_timescale = c.get<double>("min_timescale");
    options.base = c.get<double>("max_timescale") / min_timescale;
    options.frequency_scale = min_timescale;
  } else {
    options.base = c.get<double>("base");
  }
  options.scale = c.get_or("scale", 1.0);
  return options;
}

/// A table [positions, dim].
void table(Case& c) {
  const Sinusoidal sinusoidal(table_options(c));
  const auto position_ids = c.array<std::int64_t>("positions");
  const Positions positions(position_ids.row());
  for (const char* first : {"start_index", "offset"})
    if (c.has(first)) c.expect(first, positions[0]);

  const auto peer = c.array<float>("table");
  compare_columns(c, "table", positions, sinusoidal.table<float>(positions), peer.matrix());
  Matrix<float> added = Matrix<float>::Zero(sinusoidal.dim(), positions.size());
  sinusoidal(added, positions);
  compare_columns(c, "added to zeros", positions, added, peer.matrix());
}

/// fairseq, M2M-100: ids count what is not padding, from padding_idx + 1 on, and the row of padding is zero.
void counted_past_padding(Case& c) {
  const auto padding_idx = c.get<std::int64_t>("padding_idx");
  const auto past = c.get_or<std::int64_t>("past_key_values_length", 0);
  auto options = SinusoidalOptions::fairseq(c.get<Index>("dim"), padding_idx);
  options.first_position = 0;  // the ids below have padding_idx + 1 in them, as the peers' have
  const Sinusoidal sinusoidal(options);

  const auto tokens = c.array<std::int64_t>("tokens");
  const auto peer = c.array<float>("out");
  for (Index batch = 0; batch < tokens.size(0); ++batch) {
    std::vector<bool> mask;
    for (const auto token : tokens.row(batch)) mask.push_back(token != padding_idx);
    const auto ids = posenc::padded_positions(mask, {.first = padding_idx + 1 + past, .padding = padding_idx});
    compare_columns(c, "past padding", Positions(ids), sinusoidal.table<float>(ids), peer.at(batch));
    if (!c.has_array("positions")) continue;
    const auto peer_ids = c.array<std::int64_t>("positions");
    c.require("ids past padding", std::ranges::equal(ids, peer_ids.row(batch)));
  }
}

/// OpenNMT-py: embeddings times sqrt(dim), then the table's rows from `step` on.
void added_to_embeddings(Case& c) {
  const Sinusoidal sinusoidal(SinusoidalOptions::vaswani(c.get<Index>("dim")));
  const auto emb = c.array<float>("emb");
  const auto peer = c.array<float>("out");
  const auto& step = c.json("step");
  const Positions positions = posenc::positions(emb.size(1), step.is_null() ? 0 : step.get<std::int64_t>());
  for (Index batch = 0; batch < emb.size(0); ++batch) {
    Matrix<float> x = std::sqrt(static_cast<float>(sinusoidal.dim())) * emb.at(batch);
    sinusoidal.add_to(x, positions);
    for (Index t = 0; t < x.cols(); ++t)
      c.compare("added to embeddings",
                tolerance_at(c.peer(), static_cast<double>(positions[t]),
                             static_cast<double>(x.col(t).cwiseAbs().maxCoeff())),
                x.col(t), peer.at(batch).col(t));
  }
}

/// DETR: the features of y above those of x, each axis counted from 1 over what the mask shows, and where that is
/// normalised, as a fraction of 2 pi.
void two_axes(Case& c) {
  const Index dim = c.get<Index>("num_position_features");
  const Index height = c.get<Index>("height"), width = c.get<Index>("width");
  const bool normalize = c.get<bool>("normalize");
  auto options = SinusoidalOptions::vaswani(dim);
  options.base = c.get<double>("temperature");
  const Sinusoidal axis(options);

  const auto mask = c.array<float>("mask");  // [b, h, w]
  const auto peer = c.array<float>("out");   // [b, 2 dim, h, w]
  for (Index batch = 0; batch < mask.size(0); ++batch) {
    // Token y * width + x is the pixel (y, x); its two positions are running counts of the mask.
    std::vector<double> rows(static_cast<std::size_t>(height * width)), columns(rows.size());
    const auto token = [&](Index y, Index x) { return static_cast<std::size_t>(y * width + x); };
    for (Index y = 0; y < height; ++y)
      for (Index x = 0; x < width; ++x) {
        const double visible = mask(batch, y, x);
        rows[token(y, x)] = visible + (y > 0 ? rows[token(y - 1, x)] : 0);
        columns[token(y, x)] = visible + (x > 0 ? columns[token(y, x - 1)] : 0);
      }
    if (normalize) {
      const auto counted_rows = rows, counted_columns = columns;
      const auto fraction = [](double count, double last) { return count / (last + 1e-6) * 2 * std::numbers::pi; };
      for (Index y = 0; y < height; ++y)
        for (Index x = 0; x < width; ++x) {
          rows[token(y, x)] = fraction(counted_rows[token(y, x)], counted_rows[token(height - 1, x)]);
          columns[token(y, x)] = fraction(counted_columns[token(y, x)], counted_columns[token(y, width - 1)]);
        }
    }

    Matrix<float> ours = Matrix<float>::Zero(2 * dim, height * width);
    axis(ours.topRows(dim), RealPositions(rows));
    axis(ours.bottomRows(dim), RealPositions(columns));
    for (Index feature = 0; feature < 2 * dim; ++feature) {
      const auto& positions = feature < dim ? rows : columns;
      for (Index y = 0; y < height; ++y)
        for (Index x = 0; x < width; ++x)
          c.compare("two axes", tolerance_at(c.peer(), positions[token(y, x)]),
                    ours.row(feature).segment(y * width + x, 1),
                    Matrix<float>::Constant(1, 1, peer(batch, feature, y, x)));
    }
  }
}

}  // namespace

void sinusoidal(Case& c) {
  if (c.has_array("table"))
    table(c);
  else if (c.has_array("tokens"))
    counted_past_padding(c);
  else if (c.has_array("emb"))
    added_to_embeddings(c);
  else if (c.has_array("mask"))
    two_axes(c);
  else
    throw UnknownKind("it has neither table nor tokens nor emb nor mask");
}

}  // namespace golden
