// The two layers of the neck without parameters: nearest-neighbour upsampling by 2 and concatenation of channels.
#pragma once

#include <span>

#include "autograd/functions/concat.h"
#include "autograd/functions/pool.h"
#include "nn/module.h"

namespace tessera {

class Upsample : public UnaryModule {
 public:
  Variable forward(const Variable& x, const Tensor& into = {}) override { return ag::upsample2x(x, into); }
  std::string kind() const override { return "Upsample"; }
  std::string summary() const override { return "x2 nearest"; }
};

class Concat : public Module {
 public:
  Variable forward(std::span<const Variable> parts) { return ag::concat_channels(parts); }
  std::string kind() const override { return "Concat"; }
};

}  // namespace tessera
