// The arithmetic of detection and of masks, for one box, one pair of boxes or one cell. In f32, every operation rounded by itself
// and in one order (the compilers are told not to fuse), so that all backends give the same bits. Shared with device code.
#pragma once

#include <bit>
#include <cstdint>

#include "tensor/ops/bilinear.h"
#include "tensor/ops/host_device.h"

namespace tessera::detect_math {

inline constexpr int kBins = 16, kSides = 4;
inline constexpr float kClassOffset = 7680;  // pixels between the boxes of two classes

// e^x to about one unit in the last place, |x| limited to 87; NaN for infinities and NaN. Free of branches and of comparisons of
// floats, which would keep loops over it from vectorising: the limit is taken on the bits of |x|.
TESSERA_HOST_DEVICE inline float exp_of(float logit) {
  constexpr int32_t kLimit = 0x42AE0000, kSign = INT32_MIN;  // 87
  const int32_t bits = std::bit_cast<int32_t>(logit), magnitude = bits & 0x7FFFFFFF;
  const float x = std::bit_cast<float>((magnitude < kLimit ? magnitude : kLimit) | (bits & kSign));
  const float shifted = x * 1.44269504f + 12582912.0f;  // adding 1.5 * 2^23 rounds to the nearest integer
  const float n = shifted - 12582912.0f;
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;  // ln 2 in two parts
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  // The integer stands in the low bits of `shifted`; moved into the exponent it doubles p n times.
  return std::bit_cast<float>(std::bit_cast<uint32_t>(p) + (std::bit_cast<uint32_t>(shifted) << 23)) + logit * 0.0f;
}

TESSERA_HOST_DEVICE inline float score_of(float logit) { return 1.0f / (1.0f + exp_of(-logit)); }

// Expectation of softmax(logits) over the bins 0 .. 15.
TESSERA_HOST_DEVICE inline float side_distance(const float* logits) {
  float top = logits[0];
  for (int b = 1; b < kBins; ++b) top = larger(top, logits[b]);
  float e[kBins];
  for (int b = 0; b < kBins; ++b) e[b] = exp_of(logits[b] - top);
  float sum = 0, moment = 0;
  for (int b = 0; b < kBins; ++b) sum += e[b];
  for (int b = 0; b < kBins; ++b) moment += float(b) * (e[b] / sum);
  return moment;
}

struct Corners {
  float x1, y1, x2, y2;
  TESSERA_HOST_DEVICE Corners shifted(float by) const { return {x1 + by, y1 + by, x2 + by, y2 + by}; }
  TESSERA_HOST_DEVICE float area() const { return (x2 - x1) * (y2 - y1); }
};

TESSERA_HOST_DEVICE inline Corners corners_of(float cx, float cy, float w, float h) {
  return {cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2};
}

// The box of the anchor in cell (x, y) from its distances to left, top, right and bottom, by way of centre and size.
TESSERA_HOST_DEVICE inline Corners box_at(int x, int y, const float* distance, float stride) {
  const float at_x = float(x) + 0.5f, at_y = float(y) + 0.5f;
  const float x1 = at_x - distance[0], y1 = at_y - distance[1], x2 = at_x + distance[2], y2 = at_y + distance[3];
  return corners_of((x1 + x2) / 2 * stride, (y1 + y2) / 2 * stride, (x2 - x1) * stride, (y2 - y1) * stride);
}

// intersection / union > threshold, for boxes whose areas are given.
TESSERA_HOST_DEVICE inline bool suppresses(const Corners& a, float area_a, const Corners& b, float area_b, double threshold) {
  const float w = smaller(a.x2, b.x2) - larger(a.x1, b.x1);
  const float h = smaller(a.y2, b.y2) - larger(a.y1, b.y1);
  if (!(w > 0) || !(h > 0)) return false;
  const float inter = w * h;
  return double(inter / (area_a + area_b - inter)) > threshold;
}

using tessera::Tap;
using tessera::tap_of;

// Sum over the channels of coefficient * prototype, in eight lanes that are joined at the end.
struct LogitSum {
  float lane[8] = {};
  TESSERA_HOST_DEVICE float sum() const {
    return ((lane[0] + lane[4]) + (lane[1] + lane[5])) + ((lane[2] + lane[6]) + (lane[3] + lane[7]));
  }
};
TESSERA_HOST_DEVICE inline float mask_logit(const float* coefficients, const float* cell, int channels) {
  LogitSum s;
  int c = 0;
  for (; c + 8 <= channels; c += 8) {
    for (int i = 0; i < 8; ++i) s.lane[i] += coefficients[c + i] * cell[c + i];
  }
  for (; c < channels; ++c) s.lane[0] += coefficients[c] * cell[c];
  return s.sum();
}

}  // namespace tessera::detect_math
