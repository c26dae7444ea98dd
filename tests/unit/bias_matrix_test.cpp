// SPDX-License-Identifier: MIT

#include <posenc/bias_matrix.hpp>

#include <posenc/alibi.hpp>
#include <posenc/masks.hpp>

#include <Eigen/Core>
#include <limits>
#include <stdexcept>
#include <type_traits>

#include "../catch.hpp"

using namespace posenc;

TEST_CASE("A bias written out is what it adds to zeros", "[bias_matrix]") {
  const Alibi alibi(4);
  const auto bias = bias_matrix(alibi, positions(5), positions(2, 3), 2);
  STATIC_REQUIRE(std::is_same_v<decltype(bias), const Matrix<float>>);
  Matrix<float> expected = Matrix<float>::Zero(5, 2);
  alibi(expected, positions(5), positions(2, 3), 2);
  CHECK(bias == expected);
  CHECK(bias(0, 1) == -4 * static_cast<float>(alibi.slopes()[2]));

  const Matrix<double> mask = bias_matrix<double>(CausalMask{}, positions(2), positions(2));
  CHECK(mask(1, 0) == -std::numeric_limits<double>::infinity());
  CHECK(mask(0, 1) == 0);
}

TEST_CASE("A bias of the user's own with a plain signature is written out as well", "[bias_matrix]") {
  struct Own {
    void add_bias(Eigen::Ref<Eigen::MatrixXf> scores, const Positions&, const Positions&, Index head) const {
      scores.array() += static_cast<float>(head);
    }
  };
  CHECK(bias_matrix(Own{}, positions(2), positions(3), 7) == Matrix<float>::Constant(2, 3, 7));
}

TEST_CASE("Nothing to write out, and errors of the bias", "[bias_matrix]") {
  CHECK(bias_matrix(CausalMask{}, positions(0), positions(3)).rows() == 0);
  CHECK(bias_matrix(CausalMask{}, positions(3), positions(0)).cols() == 0);
  CHECK_THROWS_AS(bias_matrix(Alibi(2), positions(1), positions(1), 2), std::out_of_range);
}
