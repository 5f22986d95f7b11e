// The fast CPU backend: the reference backend with every op replaced that has a vectorised kernel. What a kernel does not handle
// (f64, 16-bit floats, unusual layouts) falls back to the reference.
#pragma once

#include "tensor/ref/ref_backend.h"

namespace tessera {

class CpuBackend : public RefBackend {
 public:
  // The vector instructions in use: "avx512" or "avx2" (cpu/targets.h).
  std::string_view name() const override;
};

}  // namespace tessera
