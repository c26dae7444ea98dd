// SPDX-License-Identifier: MIT
// ggml on the same buffers, one thread, on the fastest of its CPU backends: RoPE in place, and flash_attn_ext with a
// causal mask, which for ALiBi holds the distances, as llama.cpp makes it. Keys and values are float, like ours, or
// half, which it reads faster.

#include "peer_cases.hpp"

#include <ggml-alloc.h>
#include <ggml-backend.h>
#include <ggml.h>

#include <limits>
#include <memory>
#include <stdexcept>

namespace {

using bench::Index;
using bench::PeerBias;
using posenc::PairLayout;

ggml_backend_t backend() {
  static const ggml_backend_t only = [] {
    ggml_backend_load_all();
    const ggml_backend_t cpu = ggml_backend_init_by_type(GGML_BACKEND_DEVICE_TYPE_CPU, nullptr);
    if (cpu == nullptr) throw std::runtime_error("ggml has no CPU backend here");
    const auto registry = ggml_backend_dev_backend_reg(ggml_backend_get_device(cpu));
    const auto set_threads = reinterpret_cast<ggml_backend_set_n_threads_t>(
        ggml_backend_reg_get_proc_address(registry, "ggml_backend_set_n_threads"));
    if (set_threads != nullptr) set_threads(cpu, 1);
    return cpu;
  }();
  return only;
}

/// One operation on memory of ours.
class Graph {
 public:
  Graph()
      : context_(ggml_init({.mem_size = std::size_t{1} << 20, .mem_buffer = nullptr, .no_alloc = true}), ggml_free) {}

  ggml_context* context() { return context_.get(); }

  /// A tensor that lies at data.
  ggml_tensor* tensor(ggml_type type, const std::array<std::int64_t, 3>& shape, const void* data) {
    ggml_tensor* t = ggml_new_tensor_3d(context(), type, shape[0], shape[1], shape[2]);
    const auto buffer = ggml_backend_cpu_buffer_from_ptr(const_cast<void*>(data), ggml_nbytes(t));
    buffers_.emplace_back(buffer, ggml_backend_buffer_free);
    ggml_backend_tensor_alloc(buffer, t, const_cast<void*>(data));
    return t;
  }
  void set_result(ggml_tensor* result) {
    graph_ = ggml_new_graph(context());
    ggml_build_forward_expand(graph_, result);
    buffers_.emplace_back(ggml_backend_alloc_ctx_tensors(context(), backend()), ggml_backend_buffer_free);
  }
  void run() {
    if (ggml_backend_graph_compute(backend(), graph_) != GGML_STATUS_SUCCESS) throw std::runtime_error("ggml failed");
  }

 private:
  std::unique_ptr<ggml_context, void (*)(ggml_context*)> context_;
  std::vector<std::unique_ptr<ggml_backend_buffer, void (*)(ggml_backend_buffer*)>> buffers_;
  ggml_cgraph* graph_ = nullptr;
};

template <PairLayout layout>
struct Rope : bench::PeerRope<layout> {
  static constexpr const char* other = "ggml";
  static constexpr double tolerance = 2e-3;  // its angles are products in float, one on top of the other

  Rope(Index num_heads, Index head_dim, Index num_tokens)
      : bench::PeerRope<layout>(num_heads, head_dim, num_tokens), positions(num_tokens) {
    for (Index t = 0; t < num_tokens; ++t) positions[t] = static_cast<std::int32_t>(this->first_position() + t);
  }

  void plain() {
    if (of != this->x.data()) {
      of = this->x.data();
      graph = std::make_shared<Graph>();
      ggml_tensor* x = graph->tensor(GGML_TYPE_F32, {this->head_dim(), this->heads, this->x.cols()}, of);
      ggml_tensor* p = graph->tensor(GGML_TYPE_I32, {this->x.cols(), 1, 1}, positions.data());
      const int mode = layout == PairLayout::interleaved ? 0 : GGML_ROPE_TYPE_NEOX;
      graph->set_result(ggml_rope_ext_inplace(graph->context(), x, p, nullptr, static_cast<int>(this->head_dim()), mode,
                                              0, 10000, 1, 0, 1, 32, 1));
    }
    graph->run();
  }

  bench::Vector<std::int32_t> positions;  // aligned, as ggml wants it
  const float* of = nullptr;              // what the graph works on
  std::shared_ptr<Graph> graph;
};

template <PeerBias bias, class Stored>
struct StoredAttention : bench::PeerAttention<bias> {
  static constexpr const char* other = "ggml";
  static constexpr double tolerance =
      std::is_same_v<Stored, float> ? 2e-3 : 1e-2;  // it rounds the queries or sums in half

  StoredAttention(Index head_dim, Index num_tokens)
      : bench::PeerAttention<bias>(head_dim, num_tokens), mask(num_tokens, num_tokens) {
    for (Index query = 0; query < num_tokens; ++query)
      for (Index key = 0; key < num_tokens; ++key) {
        const float distance = bias == PeerBias::alibi ? static_cast<float>(key - query) : 0;
        mask(key, query) = Eigen::half(key <= query ? distance : -std::numeric_limits<float>::infinity());
      }
  }

  void plain() {
    if (of != this->q.data()) {
      of = this->q.data();
      keys = this->k.template cast<Stored>();
      values = this->v.template cast<Stored>();
      graph = std::make_shared<Graph>();
      const std::array<std::int64_t, 3> shape{this->head_dim(), this->num_tokens(), this->num_heads};
      constexpr ggml_type stored = std::is_same_v<Stored, float> ? GGML_TYPE_F32 : GGML_TYPE_F16;
      out = ggml_flash_attn_ext(graph->context(), graph->tensor(GGML_TYPE_F32, shape, of),
                                graph->tensor(stored, shape, keys.data()), graph->tensor(stored, shape, values.data()),
                                graph->tensor(GGML_TYPE_F16, {this->num_tokens(), this->num_tokens(), 1}, mask.data()),
                                1 / std::sqrt(static_cast<float>(this->head_dim())),
                                bias == PeerBias::alibi ? 8.0F : 0.0F, 0);
      graph->set_result(out);
    }
    graph->run();
  }

  /// ggml writes [T, H, D].
  bench::Matrix<float> result() {
    if (graph == nullptr) return this->o;
    const auto* data = static_cast<const float*>(out->data);
    bench::Matrix<float> heads(this->o.rows(), this->o.cols());
    for (Index h = 0; h < this->num_heads; ++h)
      for (Index t = 0; t < this->num_tokens(); ++t)
        heads.col(h * this->num_tokens() + t) = Eigen::Map<const bench::Vector<float>>(
            data + (t * this->num_heads + h) * this->head_dim(), this->head_dim());
    return heads;
  }

  bench::Matrix<Eigen::half> mask;
  bench::Matrix<Stored> keys, values;
  const float* of = nullptr;
  std::shared_ptr<Graph> graph;
  ggml_tensor* out = nullptr;
};

template <PeerBias bias>
using Attention = StoredAttention<bias, float>;
template <PeerBias bias>
using HalfAttention = StoredAttention<bias, Eigen::half>;

}  // namespace

void add_benchmarks() {
  benchmark::AddCustomContext("ggml", std::string(ggml_version()) + ", " + ggml_backend_name(backend()));
  bench::add_peer<Rope, Attention>("ggml");
  bench::add<HalfAttention<PeerBias::none>>("ggml/attention_causal_half_kv", {"D", "T"}, {{64, 2048}});
  bench::add<HalfAttention<PeerBias::alibi>>("ggml/attention_alibi_half_kv", {"D", "T"}, {{64, 2048}});
}
