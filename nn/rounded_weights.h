// The weights of a training step in 16 bits, all of them in one pass: a pass for each layer is a launch for each layer, of a few
// thousand numbers, on a device.
#pragma once

#include "nn/parameter_arena.h"

namespace tessera {

class RoundedWeights {
 public:
  // Until this goes, layers whose activations are of this type multiply by the weights as they are now. Not 16 bits: nothing is
  // done. The arena must outlive it.
  RoundedWeights(const ParameterArena& arena, DType type);
  ~RoundedWeights();
  RoundedWeights(const RoundedWeights&) = delete;
  RoundedWeights& operator=(const RoundedWeights&) = delete;

 private:
  std::vector<Variable> weights_;
};

}  // namespace tessera
