#include "yolo/eval/decode.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "tensor/base/check.h"
#include "tensor/base/parallel.h"

namespace tessera {

namespace {

constexpr int kBins = 16, kSides = 4;
constexpr int64_t kAnchorsPerTask = 512;

// e^x to about one unit in the last place, |x| limited to 87; NaN for infinities and NaN. Free of branches and of comparisons of
// floats, which would keep loops over it from vectorising: the limit is taken on the bits of |x|.
inline float exp_of(float logit) {
  const int32_t bits = std::bit_cast<int32_t>(logit), magnitude = bits & 0x7FFFFFFF;
  constexpr int32_t kLimit = std::bit_cast<int32_t>(87.0f);
  const float x = std::bit_cast<float>((magnitude < kLimit ? magnitude : kLimit) | (bits & INT32_MIN));
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

// Expectation of softmax(logits) over the bins 0 .. 15.
float distance(const float* logits) {
  float top = logits[0];
  for (int b = 1; b < kBins; ++b) top = std::max(top, logits[b]);
  float e[kBins];
  for (int b = 0; b < kBins; ++b) e[b] = exp_of(logits[b] - top);
  float sum = 0, moment = 0;
  for (int b = 0; b < kBins; ++b) sum += e[b];
  for (int b = 0; b < kBins; ++b) moment += float(b) * (e[b] / sum);
  return moment;
}

void decode_anchor(const HeadLevel& level, int64_t pixel, int64_t nc, int64_t masks, float skip_logit, float* row) {
  const float* logits = level.cls + pixel * level.cls_pitch;
  float* scores = row + kSides;
  const auto above = [&](float v) { return v > skip_logit; };
  if (skip_logit > -std::numeric_limits<float>::infinity() && std::none_of(logits, logits + nc, above)) {
    std::fill_n(row, kSides + nc + masks, 0.0f);
    return;
  }
  const float* box = level.box + pixel * level.box_pitch;
  const float x = float(pixel % level.width) + 0.5f, y = float(pixel / level.width) + 0.5f, stride = float(level.stride);
  const float x1 = x - distance(box), y1 = y - distance(box + kBins);
  const float x2 = x + distance(box + 2 * kBins), y2 = y + distance(box + 3 * kBins);
  row[0] = (x1 + x2) / 2 * stride, row[1] = (y1 + y2) / 2 * stride, row[2] = (x2 - x1) * stride, row[3] = (y2 - y1) * stride;
  for (int64_t c = 0; c < nc; ++c) scores[c] = 1.0f / (1.0f + exp_of(-logits[c]));
  if (masks > 0) std::copy_n(level.coefficients + pixel * level.coefficients_pitch, masks, scores + nc);
}

}  // namespace

int64_t anchor_count(std::span<const HeadLevel> levels) {
  int64_t n = 0;
  for (const HeadLevel& l : levels) n += int64_t{l.height} * l.width;
  return n;
}

void decode_head(std::span<const HeadLevel> levels, int64_t nc, int64_t masks, float* rows, int64_t pitch, float skip_below) {
  TESSERA_CHECK(nc > 0 && masks >= 0 && pitch >= kSides + nc + masks, "decode_head: pitch {} for {} classes and {} coefficients",
                pitch, nc, masks);
  // A little below the exact limit, so that rounding never hides an anchor.
  const float skip_logit =
      skip_below > 0 && skip_below < 1 ? std::log(skip_below / (1 - skip_below)) - 1e-3f : -std::numeric_limits<float>::infinity();
  int64_t first = 0;
  for (const HeadLevel& level : levels) {
    const int64_t pixels = int64_t{level.height} * level.width;
    TESSERA_CHECK(level.box && level.cls && (masks == 0 || level.coefficients), "decode_head: a map of a level is missing");
    TESSERA_CHECK(level.box_pitch >= kSides * kBins && level.cls_pitch >= nc && (masks == 0 || level.coefficients_pitch >= masks),
                  "decode_head: pitches {}, {}, {} for {} classes and {} coefficients", level.box_pitch, level.cls_pitch,
                  level.coefficients_pitch, nc, masks);
    parallel_for(pixels, kAnchorsPerTask, [&](int64_t begin, int64_t end) {
      for (int64_t p = begin; p < end; ++p) decode_anchor(level, p, nc, masks, skip_logit, rows + (first + p) * pitch);
    });
    first += pixels;
  }
}

}  // namespace tessera
