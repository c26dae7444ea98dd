// SPDX-License-Identifier: MIT

// What the concepts accept and what they reject, one block a concept. Compiling this file is the test.
// decltype((x)) is what a forwarding reference sees: T& for an lvalue, T for a temporary.

#include <posenc/posenc.hpp>

#include <Eigen/SparseCore>
#include <complex>
#include <cstdint>
#include <list>
#include <type_traits>
#include <utility>
#include <vector>

using posenc::Index;
using posenc::Positions;
using posenc::RealPositions;

using Eigen::MatrixXf;
using RowMajorMatrixXf = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using StridedMap = Eigen::Map<MatrixXf, Eigen::Unaligned, Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>>;

namespace {

template <class X>
X any();  // a value of type X, where only its type matters

// DenseExpression: whatever Eigen can compute and index.

using posenc::DenseExpression;
static_assert(DenseExpression<MatrixXf>);
static_assert(DenseExpression<const MatrixXf&>);
static_assert(DenseExpression<Eigen::ArrayXXd&>);
static_assert(DenseExpression<Eigen::Matrix3f>);
static_assert(DenseExpression<Eigen::Ref<const MatrixXf>>);
static_assert(DenseExpression<decltype(any<MatrixXf&>() + any<MatrixXf&>())>);
static_assert(DenseExpression<decltype(any<MatrixXf&>() * any<MatrixXf&>())>);
static_assert(DenseExpression<decltype(MatrixXf::Zero(2, 2))>);
static_assert(DenseExpression<decltype(any<const Eigen::VectorXf&>().head(2))>);
static_assert(!DenseExpression<float>);
static_assert(!DenseExpression<std::vector<float>>);
static_assert(!DenseExpression<MatrixXf*>);
static_assert(!DenseExpression<Eigen::SparseMatrix<float>>);

// MutableDense: what a hook may write through, so that the caller sees the result.

using posenc::MutableDense;
static_assert(MutableDense<MatrixXf&>);
static_assert(MutableDense<RowMajorMatrixXf&>);
static_assert(MutableDense<Eigen::VectorXf&>);
static_assert(MutableDense<Eigen::RowVectorXd&>);
static_assert(MutableDense<Eigen::Matrix4f&>);
static_assert(MutableDense<Eigen::ArrayXXf&>);
static_assert(MutableDense<posenc::Matrix<Eigen::half>&>);
static_assert(MutableDense<posenc::Matrix<Eigen::bfloat16>&>);
static_assert(MutableDense<posenc::Matrix<std::complex<float>>&>);
// Views, kept in a variable or temporary.
static_assert(MutableDense<Eigen::Map<MatrixXf>&>);
static_assert(MutableDense<Eigen::Map<MatrixXf>>);
static_assert(MutableDense<Eigen::Map<RowMajorMatrixXf>>);
static_assert(MutableDense<StridedMap>);
static_assert(MutableDense<Eigen::Ref<MatrixXf>&>);
static_assert(MutableDense<Eigen::Ref<MatrixXf>>);
static_assert(MutableDense<decltype(any<MatrixXf&>().block(0, 0, 2, 2))>);
static_assert(MutableDense<decltype(any<MatrixXf&>().leftCols(2))>);
static_assert(MutableDense<decltype(any<MatrixXf&>().middleRows(2, 2))>);
static_assert(MutableDense<decltype(any<MatrixXf&>().col(0))>);
static_assert(MutableDense<decltype(any<MatrixXf&>().row(0))>);
static_assert(MutableDense<decltype(any<MatrixXf&>().transpose())>);
static_assert(MutableDense<decltype(any<MatrixXf&>().transpose().topRows(2))>);
static_assert(MutableDense<decltype(any<MatrixXf&>().array())>);
static_assert(MutableDense<decltype(any<Eigen::Map<MatrixXf>&>().rightCols(1))>);
static_assert(MutableDense<decltype(any<Eigen::VectorXf&>().segment(1, 2))>);
static_assert(MutableDense<decltype(any<Eigen::RowVectorXf&>().tail<2>())>);
static_assert(MutableDense<decltype(posenc::tokens(any<float*>(), {}))>);
// Nothing may be written to these.
static_assert(!MutableDense<const MatrixXf&>);
static_assert(!MutableDense<const Eigen::ArrayXXf&>);
static_assert(!MutableDense<Eigen::Map<const MatrixXf>>);
static_assert(!MutableDense<Eigen::Map<const MatrixXf>&>);
static_assert(!MutableDense<Eigen::Ref<const MatrixXf>&>);
static_assert(!MutableDense<decltype(any<const MatrixXf&>().leftCols(2))>);
static_assert(!MutableDense<decltype(any<const Eigen::VectorXf&>().head(2))>);
static_assert(!MutableDense<decltype(any<const MatrixXf&>().transpose())>);
static_assert(!MutableDense<decltype(posenc::tokens(any<const float*>(), {}))>);
// The result would be lost.
static_assert(!MutableDense<MatrixXf>);
static_assert(!MutableDense<Eigen::ArrayXXf>);
static_assert(!MutableDense<decltype(any<MatrixXf&>() + any<MatrixXf&>())>);
static_assert(!MutableDense<decltype(any<MatrixXf&>() * any<MatrixXf&>())>);
static_assert(!MutableDense<decltype(2 * any<MatrixXf&>())>);
static_assert(!MutableDense<decltype(MatrixXf::Zero(2, 2))>);
static_assert(!MutableDense<decltype(any<MatrixXf&>().transpose().eval())>);
// No memory of numbers behind these.
static_assert(!MutableDense<float&>);
static_assert(!MutableDense<std::vector<float>&>);
static_assert(!MutableDense<Eigen::SparseMatrix<float>&>);

// RealScalar: what a matrix of real numbers may hold.

using posenc::RealScalar;
static_assert(RealScalar<float> && RealScalar<double> && RealScalar<Eigen::half> && RealScalar<Eigen::bfloat16>);
static_assert(!RealScalar<int> && !RealScalar<bool> && !RealScalar<long double> && !RealScalar<std::complex<float>>);

// Positions: a range that lies in memory, of exactly the type of the positions.

static_assert(std::is_convertible_v<std::vector<std::int64_t>&, Positions>);
static_assert(std::is_convertible_v<std::vector<double>&, RealPositions>);
static_assert(!std::is_convertible_v<std::vector<int>&, Positions>);
static_assert(!std::is_convertible_v<std::vector<double>&, Positions>);
static_assert(!std::is_convertible_v<std::list<std::int64_t>&, Positions>);
static_assert(!std::is_convertible_v<int, Positions>);

// The five hooks. A user's own type writes them as templates or with plain Eigen::Ref arguments.

struct TemplateHooks {
  template <MutableDense X>
  void add_to(X&&, const Positions&) const {}
  template <MutableDense X>
  void apply_query(X&&, const Positions&, Index = 0) const {}
  template <MutableDense X>
  void apply_key(X&&, const Positions&, Index = 0) const {}
  template <MutableDense S>
  void add_bias(S&&, const Positions&, const Positions&, Index = 0) const {}
  template <MutableDense S, DenseExpression K, DenseExpression Q>
  void add_scores(S&&, const K&, const Q&, const Positions&, const Positions&, Index = 0) const {}
  template <MutableDense O, DenseExpression W>
  void add_values(O&&, const W&, const Positions&, const Positions&, Index = 0) const {}
};

struct RefHooks {
  using Out = Eigen::Ref<MatrixXf>;
  using In = Eigen::Ref<const MatrixXf>;
  void add_to(Out, const Positions&) const {}
  void apply_query(Out, const Positions&, Index) const {}
  void apply_key(Out, const Positions&, Index) const {}
  void add_bias(Out, const Positions&, const Positions&, Index) const {}
  void add_scores(Out, const In&, const In&, const Positions&, const Positions&, Index) const {}
  void add_values(Out, const In&, const Positions&, const Positions&, Index) const {}
};

struct Empty {};

/// Each hook with one mistake.
struct NotConst {
  void add_to(Eigen::Ref<MatrixXf>, const Positions&) {}
  void apply_query(Eigen::Ref<MatrixXf>, const Positions&, Index) {}
  void apply_key(Eigen::Ref<MatrixXf>, const Positions&, Index) {}
  void add_bias(Eigen::Ref<MatrixXf>, const Positions&, const Positions&, Index) {}
};
struct ReturnsSomething {
  MatrixXf add_to(Eigen::Ref<MatrixXf>, const Positions&) const { return {}; }
  bool add_bias(Eigen::Ref<MatrixXf>, const Positions&, const Positions&, Index) const { return true; }
};
struct QueryOnly {
  void apply_query(Eigen::Ref<MatrixXf>, const Positions&, Index) const {}
};
struct BiasWithoutHead {
  void add_bias(Eigen::Ref<MatrixXf>, const Positions&, const Positions&) const {}
};
struct BiasWithoutKeyPositions {
  void add_bias(Eigen::Ref<MatrixXf>, const Positions&, Index) const {}
};
struct BiasOnIntegers {
  void add_bias(Eigen::Ref<Eigen::MatrixXi>, const Positions&, const Positions&, Index) const {}
};
struct TermWithoutQueries {
  void add_scores(Eigen::Ref<MatrixXf>, Eigen::Ref<const MatrixXf>, const Positions&, const Positions&, Index) const {}
};
struct ValuesThroughConst {
  template <class O>
  requires MutableDense<const O&>
  void add_values(const O&, const MatrixXf&, const Positions&, const Positions&, Index) const {}
};

using posenc::InputEncoding;
static_assert(InputEncoding<TemplateHooks> && InputEncoding<TemplateHooks, double>);
static_assert(InputEncoding<TemplateHooks, Eigen::half> && InputEncoding<TemplateHooks, Eigen::bfloat16>);
static_assert(InputEncoding<RefHooks> && !InputEncoding<RefHooks, double>);
static_assert(InputEncoding<posenc::Sinusoidal> && InputEncoding<posenc::Sinusoidal, Eigen::bfloat16>);
static_assert(InputEncoding<posenc::LearnedAbsolute<float>>);
static_assert(!InputEncoding<Empty> && !InputEncoding<NotConst> && !InputEncoding<ReturnsSomething>);
static_assert(!InputEncoding<posenc::Rope> && !InputEncoding<posenc::Alibi> && !InputEncoding<int>);

using posenc::QueryKeyEncoding;
static_assert(QueryKeyEncoding<TemplateHooks> && QueryKeyEncoding<TemplateHooks, Eigen::half>);
static_assert(QueryKeyEncoding<RefHooks> && !QueryKeyEncoding<RefHooks, double>);
static_assert(QueryKeyEncoding<posenc::Rope> && QueryKeyEncoding<posenc::Rope, double>);
static_assert(QueryKeyEncoding<posenc::Rope, Eigen::half> && QueryKeyEncoding<posenc::Rope, Eigen::bfloat16>);
static_assert(QueryKeyEncoding<posenc::RopeTable<float>>);
static_assert(!QueryKeyEncoding<Empty> && !QueryKeyEncoding<NotConst> && !QueryKeyEncoding<QueryOnly>);
static_assert(!QueryKeyEncoding<posenc::Sinusoidal> && !QueryKeyEncoding<posenc::Alibi>);

using posenc::ScoreBias;
static_assert(ScoreBias<TemplateHooks> && ScoreBias<TemplateHooks, double>);
static_assert(ScoreBias<RefHooks> && !ScoreBias<RefHooks, double>);
static_assert(ScoreBias<posenc::Alibi> && ScoreBias<posenc::Alibi, Eigen::half>);
static_assert(ScoreBias<posenc::CausalMask> && ScoreBias<posenc::SlidingWindow>);
static_assert(ScoreBias<posenc::PaddingMask> && ScoreBias<posenc::DocumentMask>);
static_assert(!ScoreBias<Empty> && !ScoreBias<NotConst> && !ScoreBias<ReturnsSomething>);
static_assert(!ScoreBias<BiasWithoutHead> && !ScoreBias<BiasWithoutKeyPositions> && !ScoreBias<BiasOnIntegers>);
static_assert(!ScoreBias<posenc::Rope>);

using posenc::ScoreTerm;
static_assert(ScoreTerm<TemplateHooks> && ScoreTerm<RefHooks> && !ScoreTerm<RefHooks, double>);
static_assert(ScoreTerm<posenc::ClippedRelative<float>>);
static_assert(!ScoreTerm<Empty> && !ScoreTerm<TermWithoutQueries> && !ScoreTerm<posenc::Alibi>);

using posenc::ValueTerm;
static_assert(ValueTerm<TemplateHooks> && ValueTerm<RefHooks> && !ValueTerm<RefHooks, double>);
static_assert(ValueTerm<posenc::ClippedRelative<float>>);
static_assert(!ValueTerm<Empty> && !ValueTerm<ValuesThroughConst> && !ValueTerm<posenc::Alibi>);

// PositionalEncoding: any of the five.

using posenc::PositionalEncoding;
static_assert(PositionalEncoding<TemplateHooks> && PositionalEncoding<RefHooks>);
static_assert(PositionalEncoding<posenc::Sinusoidal> && PositionalEncoding<posenc::Rope>);
static_assert(PositionalEncoding<posenc::Alibi> && PositionalEncoding<posenc::ClippedRelative<float>>);
static_assert(!PositionalEncoding<Empty> && !PositionalEncoding<QueryOnly> && !PositionalEncoding<MatrixXf>);

// Flags: false where a type does not state them.

struct StatesTheContrary {
  static constexpr bool is_relative = false;
};
static_assert(posenc::is_relative<posenc::Rope> && posenc::is_relative<posenc::Alibi>);
static_assert(!posenc::is_relative<posenc::Sinusoidal> && !posenc::is_relative<StatesTheContrary>);
static_assert(!posenc::is_relative<Empty> && !posenc::is_relative<posenc::PaddingMask>);
static_assert(posenc::preserves_norm<posenc::Rope> && posenc::preserves_norm<posenc::RopeTable<double>>);
static_assert(!posenc::preserves_norm<posenc::Alibi> && !posenc::preserves_norm<Empty>);

}  // namespace
