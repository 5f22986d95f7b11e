// Gradients of weights beside the chain of a recorded backward pass: the bits of the calls in turn, in whatever order the graph
// allows.
#include "cuda/side_work.h"

#include <doctest/doctest.h>

#include <cstring>
#include <vector>

#include "tensor/backend.h"
#include "tensor/ops/conv.h"
#include "tensor/ops/pointwise.h"
#include "tensor/ops/random.h"
#include "tests/cuda_host/emulator.h"
#include "tests/support/error_of.h"

namespace tessera::testing {
namespace {

const Device kCuda = Device::cuda();

struct Orders {
  uint64_t seed = emulated::seed();
  int calls = cuda::side_calls();
  ~Orders() {
    emulated::set_seed(seed);
    emulated::delay_forks(false);
    cuda::set_side_calls(calls);
  }
};

// Layers of one size, so that a buffer that is free too early is the next one's at once. What a layer leaves of its gradient
// depends on all before.
struct Layers {
  static constexpr int kCount = 7;
  Layers() {
    for (int i = 0; i < kCount; ++i) {
      Tensor x = Tensor::empty({1, 5, 6, 8});
      ops::uniform(x, {7, RngPurpose::kTest, uint32_t(i)}, -1, 1);
      inputs.push_back(x.to(kCuda));
    }
    gradients = Tensor::zeros({kCount, 8 * 3 * 3 * 8 + 8}, DType::kF32, kCuda);
    seen = Tensor::zeros(gradients.shape(), DType::kF32, kCuda);
  }
  Tensor filter(int i) const { return gradients.select(0, i).narrow(0, 0, 8 * 3 * 3 * 8).view({8, 3, 3, 8}); }
  Tensor bias(int i) const { return gradients.select(0, i).narrow(0, 8 * 3 * 3 * 8, 8); }

  void backward() const {
    Tensor dy = ops::scale(inputs[0], 3);
    for (int i = 0; i < kCount; ++i) {
      Tensor x = ops::unary(UnaryOp::kSquare, inputs[size_t(i)]);
      {
        const BesideGuard guard;
        ops::bias_backward(dy, bias(i), true);
        ops::conv2d_backward_weight(x, dy, filter(i), {1, 1}, true);
      }
      x = {};
      dy = ops::binary(BinaryOp::kAdd, ops::scale(dy, 0.75), inputs[size_t(i)]);
    }
    backend_for(kCuda).join_calls_beside();
    ops::add_scaled(gradients, 1, seen);
  }
  std::vector<float> values() const { return seen.to_vector<float>(); }

  std::vector<Tensor> inputs;
  Tensor gradients, seen;
};

TEST_CASE("calls beside have the bits of the same calls in turn, in whatever order the graph allows") {
  const Orders orders;
  const Layers in_turn;
  for (int i = 0; i < 3; ++i) in_turn.backward();
  for (const int calls : {0, 1, 2, 3, 64}) {
    cuda::set_side_calls(calls);
    for (uint64_t order = 0; order < 12; ++order) {
      CAPTURE(calls);
      CAPTURE(order);
      emulated::set_seed(order);
      emulated::delay_forks(order == 1);
      const Layers beside;
      const auto recorder = backend_for(kCuda).recorder();
      const auto first = recorder->record([&] { beside.backward(); });
      first->replay();
      const auto second = recorder->record([&] { beside.backward(); });
      second->replay();
      first->replay();
      CHECK(beside.values() == in_turn.values());
    }
  }
  CHECK(emulated::take_reports().empty());
}

TEST_CASE("of calls beside each waits for what it reads, and the chain for whole groups of them, one behind") {
  const Orders orders;
  const Layers layers;
  const auto waits = [&](int calls) {
    cuda::set_side_calls(calls);
    const auto recorder = backend_for(kCuda).recorder();
    const uint64_t before = emulated::calls("cudaStreamWaitEvent");
    const auto recording = recorder->record([&] { layers.backward(); });
    return emulated::calls("cudaStreamWaitEvent") - before;
  };
  constexpr int kCalls = 2 * Layers::kCount;
  CHECK(waits(0) == 0);
  CHECK(waits(1) == kCalls + (kCalls - 1) + 1);
  CHECK(waits(4) == kCalls + (kCalls / 4 - 1) + 1);
  CHECK(waits(64) == kCalls + 1);
}

TEST_CASE("calls beside are in turn where nothing is recorded, or where nobody says that they may be beside") {
  const Layers layers;
  const uint64_t before = emulated::calls("cudaStreamWaitEvent");
  layers.backward();
  const auto recorder = backend_for(kCuda).recorder();
  const auto recording = recorder->record([&] { ops::bias_backward(layers.inputs[0], layers.bias(0), true); });
  CHECK(emulated::calls("cudaStreamWaitEvent") == before);
}

TEST_CASE("a recording that fails with calls beside under way leaves the device as it was") {
  const Layers layers;
  {
    const auto recorder = backend_for(kCuda).recorder();
    const Error e = error_of([&] {
      recorder->record([&] {
        const BesideGuard guard;
        ops::bias_backward(ops::scale(layers.inputs[0], 2), layers.bias(0), true);
        throw Error(ErrorCode::kData, "of the work");
      });
    });
    CHECK(says(e, "of the work"));
  }
  CHECK(cudaGetLastError() == cudaSuccess);
  CHECK(cuda::SideWork::here() == nullptr);
  const Layers in_turn;
  in_turn.backward();
  const auto recorder = backend_for(kCuda).recorder();
  recorder->record([&] { layers.backward(); })->replay();
  CHECK(layers.values() == in_turn.values());
}

}  // namespace
}  // namespace tessera::testing
