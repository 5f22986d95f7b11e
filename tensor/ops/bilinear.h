// Positions and weights of a bilinear resize without aligned corners, as PyTorch's interpolate takes them: the same on every
// backend.
#pragma once

#include "tensor/ops/host_device.h"

namespace tessera {

// Of `in` cells to `out` along one axis: output o = w0 * in[i0] + w1 * in[i1].
struct Tap {
  int i0, i1;
  float w0, w1;
};
TESSERA_HOST_DEVICE inline Tap tap_of(int o, int in, int out) {
  const float scale = float(in) / float(out);
  const float at = larger(scale * (float(o) + 0.5f) - 0.5f, 0.0f);
  const int i0 = int(at) < in - 1 ? int(at) : in - 1;
  const float rest = at - float(i0), w1 = rest < 1 ? rest : 1.0f;  // never below 0
  return {i0, i0 + 1 < in ? i0 + 1 : in - 1, 1.0f - w1, w1};
}

}  // namespace tessera
