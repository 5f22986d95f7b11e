#include "nn/init.h"

#include <cmath>

#include "nn/layers/conv2d.h"
#include "nn/layers/conv_transpose2d.h"
#include "tensor/ops/random.h"

namespace tessera {

namespace {

uint32_t stream_of(const std::string& name) {  // FNV-1a
  uint32_t h = 2166136261u;
  for (unsigned char c : name) h = (h ^ c) * 16777619u;
  return h;
}

void uniform(const Variable& p, const std::string& name, uint64_t seed, double bound) {
  ops::uniform(p.data(), {seed, RngPurpose::kInit, stream_of(name)}, -bound, bound);
}

}  // namespace

void init_parameters(Module& root, uint64_t seed) {
  root.for_each_module([&](const std::string& name, Module& m) {
    if (auto* conv = dynamic_cast<Conv2d*>(&m)) {
      const Shape& w = conv->weight.shape();
      const double bound = 1.0 / std::sqrt(double(w[1] * w[2] * w[3]));
      uniform(conv->weight, name + ".weight", seed, bound);
      if (conv->bias.defined()) uniform(conv->bias, name + ".bias", seed, bound);
    } else if (auto* up = dynamic_cast<ConvTranspose2d*>(&m)) {
      const double bound = 1.0 / std::sqrt(double(up->weight.shape()[0] * 4));  // the framework's fan_in of a transposed conv
      uniform(up->weight, name + ".weight", seed, bound);
      uniform(up->bias, name + ".bias", seed, bound);
    }
  });
}

}  // namespace tessera
