// The arithmetic of the task-aligned assigner in f32, for one box or one anchor. Shared by the reference backend and device code,
// so it includes no more than it must.
#pragma once

#include <cmath>

#include "tensor/ops/host_device.h"

namespace tessera::assign_math {

inline constexpr float kEps = 1e-7f;
inline constexpr float kInsideMargin = 1e-9f;  // an anchor on the border is outside
inline constexpr float kNormEps = 1e-9f;

TESSERA_HOST_DEVICE inline float anchor_at(int cell, float stride) { return (float(cell) + 0.5f) * stride; }

// atan(w / (h + eps)) of a corner box.
TESSERA_HOST_DEVICE inline float box_angle(const float* box) { return std::atan((box[2] - box[0]) / (box[3] - box[1] + kEps)); }

// Complete IoU of corner boxes, eps 1e-7 (spec 7.4), with box_angle() of both given.
TESSERA_HOST_DEVICE inline float ciou(const float* a, const float* b, float angle_a, float angle_b) {
  const float w1 = a[2] - a[0], h1 = a[3] - a[1] + kEps;
  const float w2 = b[2] - b[0], h2 = b[3] - b[1] + kEps;
  const float inter =
      larger(smaller(a[2], b[2]) - larger(a[0], b[0]), 0.0f) * larger(smaller(a[3], b[3]) - larger(a[1], b[1]), 0.0f);
  const float iou = inter / (w1 * h1 + w2 * h2 - inter + kEps);
  const float cw = larger(a[2], b[2]) - smaller(a[0], b[0]);
  const float ch = larger(a[3], b[3]) - smaller(a[1], b[1]);
  const float dx = b[0] + b[2] - a[0] - a[2];
  const float dy = b[1] + b[3] - a[1] - a[3];
  const float distance = (dx * dx + dy * dy) / 4 / (cw * cw + ch * ch + kEps);
  const float angle = angle_b - angle_a;
  const float v = float(4 / (3.14159265358979323846 * 3.14159265358979323846)) * angle * angle;
  const float alpha = v / (v - iou + (1 + kEps));
  return iou - (distance + v * alpha);
}

// Expectation of a side's distance over the bins, in strides.
TESSERA_HOST_DEVICE inline float expected_bin(const float* logits, int bins) {
  float largest = logits[0];
  for (int b = 1; b < bins; ++b) largest = larger(largest, logits[b]);
  float sum = 0, weighted = 0;
  for (int b = 0; b < bins; ++b) {
    const float e = std::exp(logits[b] - largest);
    sum += e;
    weighted += e * float(b);
  }
  return weighted / sum;
}

TESSERA_HOST_DEVICE inline float score_of_logit(float logit) { return 1.0f / (1.0f + std::exp(-logit)); }

// Which cells of a row or column of `cells` have their anchor inside (low, high): first_inside <= cell < end_inside. The estimate
// may be a cell off; what counts is the comparison.
TESSERA_HOST_DEVICE inline int clamped_cell(float cell, int cells) {
  return cell >= 0 ? cell <= float(cells) ? int(cell) : cells : 0;  // NaN: 0
}
TESSERA_HOST_DEVICE inline int first_inside(float low, int cells, float stride) {
  int cell = clamped_cell(low / stride - 1.5f, cells);
  while (cell < cells && !(anchor_at(cell, stride) - low > kInsideMargin)) ++cell;
  return cell;
}
TESSERA_HOST_DEVICE inline int end_inside(float high, int cells, float stride) {
  int cell = clamped_cell(high / stride + 1.5f, cells);
  while (cell > 0 && !(high - anchor_at(cell - 1, stride) > kInsideMargin)) --cell;
  return cell;
}
TESSERA_HOST_DEVICE inline bool is_inside(const float* box, float x, float y) {
  return x - box[0] > kInsideMargin && y - box[1] > kInsideMargin && box[2] - x > kInsideMargin && box[3] - y > kInsideMargin;
}

}  // namespace tessera::assign_math
