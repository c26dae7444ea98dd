// SPDX-License-Identifier: MIT

#include <posenc/model_encoding_text.hpp>

#include <ios>
#include <sstream>
#include <string>

#include "../catch.hpp"

using namespace posenc;
using Catch::Matchers::ContainsSubstring;

namespace {

const ModelEncoding model{
    .model_type = "tiny",
    .num_heads = 4,
    .num_kv_heads = 2,
    .head_dim = 8,
    .num_layers = 3,
    .max_positions = 100,
    .softmax_scale = 0.5,
    .kinds = {{.encoding = ModelRope{.options = {.head_dim = 8, .rotary_dim = 8, .base = 10000}}}}};

std::string printed(const ModelEncoding& of) {
  std::ostringstream text;
  text << of;
  return text.str();
}

}  // namespace

TEST_CASE("Names of families and layouts", "[model_encoding_text]") {
  CHECK(name_of(EncodingFamily::none) == std::string("none"));
  CHECK(name_of(EncodingFamily::rope) == std::string("RoPE"));
  CHECK(name_of(EncodingFamily::alibi) == std::string("ALiBi"));
  CHECK(name_of(EncodingFamily::relative_buckets) == std::string("relative buckets"));
  CHECK(name_of(EncodingFamily::learned) == std::string("learned absolute"));
  CHECK(name_of(EncodingFamily::sinusoidal) == std::string("sinusoidal"));
  CHECK(name_of(PairLayout::interleaved) == std::string("interleaved"));
  CHECK(name_of(PairLayout::half_split) == std::string("half_split"));
}

TEST_CASE("A model prints what is stated, and a wavelength for a frequency", "[model_encoding_text]") {
  const std::string text = printed(model);
  for (const char* part : {"tiny: RoPE\n", "heads           4, keys and values 2, head_dim 8\n", "layers          3\n",
                           "positions       100\n", "softmax scale   0.5\n", "6.283185"})
    CHECK_THAT(text, ContainsSubstring(part));

  ModelEncoding unstated = model;
  unstated.num_layers = unstated.max_positions = 0;
  CHECK_THAT(printed(unstated), !ContainsSubstring("layers   ") && !ContainsSubstring("positions   "));
}

TEST_CASE("Flags of a stream do not change what is printed, and are left as they were", "[model_encoding_text]") {
  std::ostringstream other;
  other << std::hex << std::showpos << model;
  CHECK(other.str() == printed(model));
  CHECK((other.flags() & std::ios::hex) != 0);
}
