// SPDX-License-Identifier: MIT
// libtorch on the same buffers, one thread, without gradients. RoPE in place, in the forms that need the fewest passes;
// scaled_dot_product_attention with its causal flag, or with a mask of ALiBi's biases that is ready when the clock
// starts. OpenBLAS should be the BLAS of the system (libopenblas0-pthread); main.cpp keeps the heap.

#include <posenc/version.hpp>

#include "peer_cases.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>
#include <torch/version.h>

namespace {

using bench::Index;
using bench::PeerBias;
using posenc::PairLayout;

at::Tensor view(const float* data, at::IntArrayRef shape) { return at::from_blob(const_cast<float*>(data), shape); }

/// A tensor on memory that may have moved: a case is copied when it is checked.
class View {
 public:
  const at::Tensor& operator()(const float* data, at::IntArrayRef shape) {
    if (!tensor_.defined() || tensor_.data_ptr() != data) tensor_ = view(data, shape);
    return tensor_;
  }

 private:
  at::Tensor tensor_;
};

template <PairLayout layout>
struct Rope : bench::PeerRope<layout> {
  static constexpr const char* other = "torch";

  Rope(Index num_heads, Index head_dim, Index num_tokens) : bench::PeerRope<layout>(num_heads, head_dim, num_tokens) {
    const auto rows = [&](const bench::Matrix<float>& matrix) {
      return view(matrix.col(this->first_position()).data(), {num_tokens, 1, head_dim / 2}).clone();
    };
    cos = rows(this->table.cos());
    sin = rows(this->table.sin());
    turns = at::complex(cos, sin);
  }

  void plain() {
    const Index n = this->head_dim() / 2;
    if constexpr (layout == PairLayout::interleaved) {
      const at::Tensor& x = x_view(this->x.data(), {this->x.cols(), this->heads, n, 2});
      at::view_as_complex(x).mul_(turns);
    } else {
      const at::Tensor& x = x_view(this->x.data(), {this->x.cols(), this->heads, 2 * n});
      at::Tensor first = x.narrow(2, 0, n), second = x.narrow(2, n, n), turned = first * sin;
      first.mul_(cos).addcmul_(second, sin, -1);
      second.mul_(cos).add_(turned);
    }
  }

  at::Tensor cos, sin, turns;
  View x_view;
};

/// Causal where there is no mask.
at::Tensor attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& mask) {
#if TORCH_VERSION_MAJOR >= 2
  return mask.defined() ? at::scaled_dot_product_attention(q, k, v, mask, 0, false)
                        : at::scaled_dot_product_attention(q, k, v, {}, 0, true);
#else
  return std::get<0>(mask.defined() ? at::_scaled_dot_product_attention(q, k, v, mask, 0, false, false)
                                    : at::_scaled_dot_product_attention(q, k, v, {}, 0, false, true));
#endif
}

template <PeerBias bias>
struct Attention : bench::PeerAttention<bias> {
  static constexpr const char* other = "torch";

  Attention(Index head_dim, Index num_tokens) : bench::PeerAttention<bias>(head_dim, num_tokens) {
    if constexpr (bias == PeerBias::alibi) {
      bench::Matrix<float> biases = bench::Matrix<float>::Zero(num_tokens, this->num_heads * num_tokens);
      const auto at = posenc::positions(num_tokens);
      for (Index h = 0; h < this->num_heads; ++h) {
        this->alibi(biases.middleCols(h * num_tokens, num_tokens), at, at, h);
        posenc::CausalMask{}(biases.middleCols(h * num_tokens, num_tokens), at, at);
      }
      mask = view(biases.data(), {1, this->num_heads, num_tokens, num_tokens}).clone();
    }
  }

  void plain() {
    const std::array<std::int64_t, 4> shape{1, this->num_heads, this->num_tokens(), this->head_dim()};
    const auto &q = q_view(this->q.data(), shape), &k = k_view(this->k.data(), shape),
               &v = v_view(this->v.data(), shape);
    out = attend(q, k, v, mask);
  }

  /// What torch made, in a matrix of ours; outside of the clock.
  bench::Matrix<float> result() {
    if (!out.defined()) return this->o;
    const at::Tensor whole = out.contiguous();
    return Eigen::Map<const bench::Matrix<float>>(whole.data_ptr<float>(), this->o.rows(), this->o.cols());
  }

  at::Tensor mask, out;  // the mask is undefined where there is no bias
  View q_view, k_view, v_view;
};

}  // namespace

void add_benchmarks() {
  at::set_num_threads(1);
  static const c10::InferenceMode no_gradients;
  benchmark::AddCustomContext("torch", TORCH_VERSION);
  bench::add_peer<Rope, Attention>("torch");
}
