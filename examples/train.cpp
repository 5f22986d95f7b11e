// Trains a small network of one's own with the framework: bright squares on noise, and for every pixel whether it belongs to one.
//   train [steps]
#include <array>
#include <cstdio>
#include <cstdlib>

#include "autograd/functions/loss.h"
#include "autograd/functions/pointwise.h"
#include "autograd/functions/shape.h"
#include "nn/init.h"
#include "nn/layers/conv_bn_act.h"
#include "nn/optim/optimizer.h"
#include "nn/parameter_arena.h"
#include "tensor/backend.h"
#include "tensor/base/rng.h"
#include "tensor/cpu/install.h"

using namespace tessera;

namespace {

constexpr int64_t kBatch = 4, kSide = 32;

// (N, H, W, 3) to logits (N, H, W, 1).
class Net final : public UnaryModule {
 public:
  Net() {
    child("stem", stem);
    child("head", head);
  }
  Variable forward(const Variable& x, const Tensor& into = {}) override { return head.forward(stem.forward(x), into); }
  std::string kind() const override { return "Net"; }

  ConvBnAct stem{3, 16, 3};
  Conv2d head{16, 1, 1};
};

struct Batch {
  Tensor images = Tensor::empty({kBatch, kSide, kSide, 3});
  Tensor truth = Tensor::zeros({kBatch, kSide, kSide, 1});
};

Batch draw(Rng& rng) {
  Batch batch;
  for (int64_t n = 0; n < kBatch; ++n) {
    const int64_t side = 8 + rng.below(9), top = rng.below(kSide - side), left = rng.below(kSide - side);
    for (int64_t y = 0; y < kSide; ++y) {
      for (int64_t x = 0; x < kSide; ++x) {
        const bool inside = y >= top && y < top + side && x >= left && x < left + side;
        const int64_t pixel = (n * kSide + y) * kSide + x;
        batch.truth.data<float>()[pixel] = inside ? 1.0f : 0.0f;
        for (int c = 0; c < 3; ++c) batch.images.data<float>()[pixel * 3 + c] = float(rng.uniform() + (inside ? 0.5 : 0.0));
      }
    }
  }
  return batch;
}

}  // namespace

int main(int argc, char** argv) {
  const int steps = argc > 1 ? std::atoi(argv[1]) : 50;
  install_cpu_backends();  // no backend installs itself
  std::printf("backend %s\n", std::string(backend_for(Device::cpu()).name()).c_str());

  Net net;
  init_parameters(net, /*seed=*/0);
  ParameterArena arena(net);
  Adam adam(arena, /*decoupled=*/false, /*beta1=*/0.9);
  Rng rng(0, RngPurpose::kUser);
  const int64_t pixels = kBatch * kSide * kSide;
  for (int step = 0; step < steps; ++step) {
    const Batch batch = draw(rng);
    const Variable logits = net.forward(Variable(batch.images));
    const Variable loss =
        ag::scale(ag::bce_with_logits(ag::view(logits, {pixels, 1}), batch.truth.view({pixels, 1})), 1 / double(pixels));
    loss.backward();
    adam.step({.lr = {0.05, 0.05, 0.05}});  // of biases, weights and the gains of batch norm
    arena.zero_grad();
    std::printf("step %d loss %.4f\n", step, loss.data().item());
  }
  return 0;
}
