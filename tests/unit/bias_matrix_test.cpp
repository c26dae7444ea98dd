// SPDX-License-Identifier: MIT

#include <posenc/bias_matrix.hpp>

#include <posenc/alibi.hpp>
#include <posenc/masks.hpp>

#include <Eigen/Core>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <type_traits>
#include <vector>

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

TEST_CASE("A bias is written over what is there, in any order and stride", "[bias_matrix]") {
  using RowMajor = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const Alibi alibi(12);
  const Matrix<float> expected = bias_matrix(alibi, positions(9), positions(7, 5), 10);
  Matrix<float> zeros = Matrix<float>::Zero(9, 7);
  alibi(zeros, positions(9), positions(7, 5), 10);
  CHECK(expected == zeros);

  Matrix<float> around = Matrix<float>::Constant(11, 9, 3);
  write_bias(alibi, around.block(1, 1, 9, 7), positions(9), positions(7, 5), 10);
  CHECK(around.block(1, 1, 9, 7) == expected);
  around.block(1, 1, 9, 7).setConstant(3);
  CHECK(around == Matrix<float>::Constant(11, 9, 3));
  RowMajor rows = RowMajor::Constant(9, 7, 3);
  write_bias(alibi, rows, positions(9), positions(7, 5), 10);
  CHECK(rows == expected);
  Eigen::ArrayXXf array = Eigen::ArrayXXf::Constant(9, 7, 3);
  write_bias(alibi, array, positions(9), positions(7, 5), 10);
  CHECK(array.matrix() == expected);

  const std::vector<std::int64_t> keys{0, 1, 2, 3, 4, 5, 6, 7, 8};  // the same positions, not known to be contiguous
  write_bias(alibi, rows.setConstant(3), keys, positions(7, 5), 10);
  CHECK(rows == expected);
  const Alibi key_only(AlibiOptions{.num_heads = 12, .form = AlibiForm::key_only});  // not by distance
  write_bias(key_only, rows, positions(9), positions(7, 5), 10);
  CHECK(rows == bias_matrix(key_only, positions(9), positions(7, 5), 10));

  CHECK_THROWS_AS(write_bias(alibi, rows, positions(8), positions(7), 0), std::invalid_argument);
  CHECK_THROWS_AS(write_bias(alibi, rows, positions(9), positions(7), 12), std::out_of_range);
  CHECK(rows == bias_matrix(key_only, positions(9), positions(7, 5), 10));
}

TEST_CASE("A bias that is written around the caches", "[bias_matrix]") {
  const Alibi alibi(3);
  Matrix<float> zeros = Matrix<float>::Zero(1501, 1500);
  alibi(zeros, positions(1501, 4), positions(1500), 2);
  CHECK(bias_matrix(alibi, positions(1501, 4), positions(1500), 2) == zeros);
}
