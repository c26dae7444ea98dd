// SPDX-License-Identifier: MIT

#include "attention_laws.hpp"
#include "battery.hpp"

#include <posenc/alibi.hpp>
#include <posenc/clipped_relative.hpp>
#include <posenc/masks.hpp>
#include <posenc/rope.hpp>
#include <posenc/rope_table.hpp>

#include <cstdint>
#include <vector>

using posenc::Alibi;
using posenc::CausalMask;
using posenc::ClippedRelative;
using posenc::Rope;

namespace {

/// Every law of attention with a pack.
template <class P>
void obeys(const laws::PackSubject<P>& subject) {
  using laws::Case;
  const auto require = [&](const char* name, const auto& law) { laws::require(name, subject.limits, law); };
  require("shifted positions: the same outputs",
          [&](const Case& c) { return laws::attention_is_relative<double>(subject, c); });
  require("shifted positions: the same outputs, in float",
          [&](const Case& c) { return laws::attention_is_relative<float>(subject, c); });
  if (!subject.by_token)
    require("permuted keys: the same outputs",
            [&](const Case& c) { return laws::order_of_keys_does_not_matter<double>(subject, c); });
  require("one query at a time = all at once",
          [&](const Case& c) { return laws::one_query_at_a_time<double>(subject, c); });
  require("weights are distributions",
          [&](const Case& c) { return laws::weights_are_distributions<float>(subject, c); });
  require("every view of an input = the plain matrix",
          [&](const Case& c) { return laws::every_input_view<float>(subject, c); });
  require("float = double, rounded", [&](const Case& c) { return laws::attention_in_float_is_double(subject, c); });
  require("two threads, the same bits", [&](const Case& c) { return laws::attention_in_threads<float>(subject, c); });
}

template <class... Encodings>
laws::PackSubject<laws::Pack<Encodings...>> pack_of(Encodings... encodings) {
  return {.pack = laws::Pack<Encodings...>(std::move(encodings)...)};
}

const Rope rope({.head_dim = 8});

/// Of double, so that it serves attention in float and in double.
ClippedRelative<double> clipped_relative() {
  return {laws::random_matrix<double>(8, 7, 1), laws::random_matrix<double>(8, 7, 2)};
}

}  // namespace

TEST_CASE("Attention alone: laws", "[attention][property]") { obeys(pack_of()); }

TEST_CASE("Rope in attention: laws", "[attention][property]") { obeys(pack_of(rope)); }

TEST_CASE("Rope, Alibi and a causal mask in attention: laws", "[attention][property]") {
  auto subject = pack_of(rope, Alibi(6), CausalMask{});
  subject.limits.num_heads = 6;
  obeys(subject);
}

TEST_CASE("ClippedRelative and a window in attention: laws", "[attention][property]") {
  obeys(pack_of(clipped_relative(), posenc::SlidingWindow({.left = 5, .right = 3})));
}

TEST_CASE("All at once in attention: laws", "[attention][property]") {
  auto subject = pack_of(Rope({.head_dim = 8, .rotary_dim = 4, .layout = posenc::PairLayout::interleaved}),
                         clipped_relative(), Alibi(2), CausalMask{}, posenc::SlidingWindow({.left = 20}));
  subject.limits.num_heads = 2;
  obeys(subject);
}

TEST_CASE("Masks of tokens in attention: laws", "[attention][property]") {
  std::vector<std::int64_t> documents(20, 0);
  documents.resize(40, 1);
  auto subject = pack_of(rope, posenc::DocumentMask(documents), posenc::PaddingMask(documents));
  subject.by_token = true;
  obeys(subject);
}

TEST_CASE("Alibi by keys alone in attention: laws", "[attention][property]") {
  // Only the weights are relative: the scores of a query change by the same number. It grows with the position, and so
  // does its rounding: 1000 positions at a slope of 1/2 from 0.
  auto subject = pack_of(Alibi({.num_heads = 4, .form = posenc::AlibiForm::key_only}), CausalMask{});
  subject.limits = {.first_position = -1000, .last_position = 1000, .num_heads = 4, .queries_near_keys = true};
  subject.bound = 2 * 1000 * 0.5 + 300;
  obeys(subject);
}
