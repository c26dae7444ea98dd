// SPDX-License-Identifier: MIT

#include <posenc/model_encoding.hpp>

#include <Eigen/Core>
#include <stdexcept>

#include "../catch.hpp"
#include "../support.hpp"

using namespace posenc;
using support::message_of;

namespace {

const RopeOptions rotary{.head_dim = 8, .rotary_dim = 8, .base = 10000};

/// Two layers that rotate and one that does not.
ModelEncoding two_kinds() {
  return {.num_layers = 3,
          .kinds = {{.name = "global"}, {.name = "local", .encoding = ModelRope{.options = rotary}, .window = 16}},
          .layer_kinds = {1, 0, 1}};
}

}  // namespace

TEST_CASE("A layer is of its kind", "[model_encoding]") {
  const ModelEncoding model = two_kinds();
  CHECK(model.layer(0).name == "local");
  CHECK(model.layer(1).name == "global");
  CHECK(model.kind("local").window == 16);
  CHECK(&model.rope() == &model.rope("local"));
  CHECK(model.family() == EncodingFamily::rope);

  ModelEncoding one_kind = model;
  one_kind.layer_kinds = {};
  CHECK(one_kind.layer(2).name == "global");
}

TEST_CASE("What a model does not have", "[model_encoding]") {
  const ModelEncoding model = two_kinds();
  using Invalid = std::invalid_argument;
  CHECK(message_of<Invalid>([&] { model.kind("other"); }) ==
        "posenc::ModelEncoding: there are no layers of the kind other");
  CHECK(message_of<Invalid>([&] { model.rope("global"); }) ==
        "posenc::ModelEncoding: layers of the kind global do not rotate");
  CHECK(message_of<Invalid>([&] { model.alibi(); }) == "posenc::ModelEncoding: no layer has linear biases");
  CHECK(message_of<Invalid>([] { ModelEncoding().rope(); }) == "posenc::ModelEncoding: no layer rotates");
  CHECK(message_of<std::out_of_range>([&] { model.layer(3); }) ==
        "posenc::ModelEncoding: layer must be below num_layers, got 3");
  CHECK_THROWS_AS(model.layer(-1), std::out_of_range);
}

TEST_CASE("The family is that of the input, or of the first kind that has one", "[model_encoding]") {
  CHECK(ModelEncoding().family() == EncodingFamily::none);
  CHECK(ModelEncoding{.input = ModelLearned{}}.family() == EncodingFamily::learned);
  CHECK(ModelEncoding{.input = SinusoidalOptions{.dim = 8}}.family() == EncodingFamily::sinusoidal);
  CHECK(ModelEncoding{.kinds = {{}, {.encoding = ModelAlibi{}}}}.family() == EncodingFamily::alibi);
  CHECK(ModelEncoding{.kinds = {{.encoding = ModelBuckets{}}}}.family() == EncodingFamily::relative_buckets);
}

TEST_CASE("A rotation: scaling, then divisors, the factor on the magnitude, axes", "[model_encoding]") {
  const Vector<double> plain = rope_frequencies(8, 10000).values, divisors = Vector<double>::LinSpaced(4, 1, 4);
  const ModelRope rope{
      .options = rotary, .scaling = LinearRope{2}, .axes = {0, 1, 2, 0}, .divisors = divisors, .magnitude = 3};
  const RopeFrequencies frequencies = rope.frequencies();
  CHECK(frequencies.values.isApprox((plain.array() / 2 / divisors.array()).matrix(), 1e-15));
  CHECK(frequencies.magnitude == 3);
  CHECK(frequencies.axes == rope.axes);
  CHECK(rope.rope().frequencies().values == frequencies.values);
}

TEST_CASE("Which rotations depend on the length", "[model_encoding]") {
  CHECK_FALSE(ModelRope{.options = rotary}.depends_on_length());
  const ModelRope dynamic{.options = rotary, .scaling = DynamicNtkOptions{.factor = 2, .max_position_embeddings = 64}};
  CHECK(dynamic.depends_on_length());
  CHECK(dynamic.frequencies(64).values == dynamic.frequencies().values);
  CHECK(dynamic.frequencies(128).values != dynamic.frequencies().values);
}

TEST_CASE("Linear biases of a model", "[model_encoding]") {
  const Vector<double> slopes = (Vector<double>(2) << 0.5, 0.25).finished();
  const ModelEncoding model{.kinds = {{}, {.encoding = ModelAlibi{slopes, AlibiForm::causal}}}};
  CHECK(model.alibi().alibi().slopes() == slopes);
  CHECK(model.alibi().alibi().bias(1, 3, 0) == -1);
}
