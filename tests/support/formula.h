// Weights and images from a formula, so that fixtures of whole models store no weights: splitmix64 over the FNV-1a hash of the name
// and the flat index in PyTorch order. The same formula lives in tools/golden/.
#pragma once

#include <cmath>
#include <cstdint>
#include <string_view>

#include "tensor/tensor.h"

namespace tessera::testing {

inline uint64_t fnv1a(std::string_view text) {
  uint64_t h = 0xcbf29ce484222325u;
  for (char c : text) h = (h ^ uint8_t(c)) * 0x100000001b3u;
  return h;
}

inline uint64_t splitmix64(uint64_t x) {
  x += 0x9E3779B97F4A7C15u;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

// In [0, 1), 53 bits.
inline double formula_fraction(uint64_t hash, int64_t i) { return double(splitmix64(hash + uint64_t(i)) >> 11) * 0x1p-53; }

// Value of element i of the state-dict entry `name` ("model.0.conv.weight") of this PyTorch shape: (O, I, kH, kW) filters, and
// (I, O, 2, 2) for the transposed convolution ("...upsample.weight"). dfl.conv.weight keeps what the model has, 0 to 15.
inline double formula_value(std::string_view name, int64_t i, const Shape& shape) {
  auto ends = [&](std::string_view suffix) { return name.ends_with(suffix); };
  const double u = formula_fraction(fnv1a(name), i) * 2 - 1;
  if (ends("num_batches_tracked")) return 0;
  if (ends("dfl.conv.weight")) return double(i);
  if (ends("bn.weight")) return 1 + 0.1 * u;
  if (ends("running_var")) return 1 + 0.2 * u;
  if (shape.rank() == 4) {
    const int64_t fan_in = ends("upsample.weight") ? shape[0] : shape[1] * shape[2] * shape[3];
    return u * std::sqrt(9.0 / double(fan_in));
  }
  if (name.find(".cv3.") != std::string_view::npos && ends(".2.bias")) return -2 + 0.5 * u;  // class branch, last layer
  return 0.1 * u;                                                                            // other biases, running_mean
}

// The f32 tensor of a state-dict entry, in PyTorch's shape.
inline Tensor formula_weight(std::string_view name, const Shape& torch_shape) {
  Tensor t = Tensor::empty(torch_shape);
  for (int64_t i = 0; i < t.numel(); ++i) t.data<float>()[i] = float(formula_value(name, i, torch_shape));
  return t;
}

// Input images in [0, 1), (N, H, W, C) in memory; the formula counts in NCHW order.
inline Tensor formula_image(int64_t n, int64_t h, int64_t w, int64_t c = 3) {
  Tensor t = Tensor::empty({n, c, h, w});
  const uint64_t hash = fnv1a("image");
  for (int64_t i = 0; i < t.numel(); ++i) t.data<float>()[i] = float(formula_fraction(hash, i));
  return t.permute({0, 2, 3, 1}).contiguous();
}

}  // namespace tessera::testing
