// The weights of a training step rounded to 16 bits, all of them in one pass over the arena. Layer by layer a device would need a
// launch for every few thousand numbers.
#pragma once

#include "nn/parameter_arena.h"

namespace tessera {

class RoundedWeights {
 public:
  // As long as this object lives, layers with activations of `type` multiply by the weights as they are now, rounded to it. Nothing
  // is done for a type that is not of 16 bits. The arena must outlive the object.
  RoundedWeights(const ParameterArena& arena, DType type);
  ~RoundedWeights();
  RoundedWeights(const RoundedWeights&) = delete;
  RoundedWeights& operator=(const RoundedWeights&) = delete;

 private:
  std::vector<Variable> weights_;
};

}  // namespace tessera
