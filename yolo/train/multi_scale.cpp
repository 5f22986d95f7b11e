#include "yolo/train/multi_scale.h"

#include <algorithm>
#include <cmath>

#include "tensor/base/rng.h"

namespace tessera {

namespace {
constexpr int64_t kStride = 32;

// Whole numbers from begin to end, of which one is drawn and rounded down to a multiple of the stride.
struct Drawn {
  int64_t begin, end;
};
Drawn drawn_from(int64_t imgsz) { return {imgsz / 2, imgsz * 3 / 2 + kStride}; }

// 0 of the original's smallest images would be no image.
int64_t side_of(int64_t drawn) { return std::max(drawn / kStride * kStride, kStride); }
}  // namespace

int64_t multi_scale_side(int64_t imgsz, uint64_t seed, int64_t epoch, int64_t batch) {
  const Drawn d = drawn_from(imgsz);
  Rng rng(seed, RngPurpose::kMultiScale, uint64_t(epoch) << 40 | uint64_t(batch));
  return side_of(d.begin + rng.below(d.end - d.begin));
}

MultiScaleRange multi_scale_range(int64_t imgsz) {
  const Drawn d = drawn_from(imgsz);
  return {side_of(d.begin), side_of(d.end - 1)};
}

Size multi_scale_input(Size images, int64_t side) {
  const double factor = double(side) / std::max(images.height, images.width);
  if (factor == 1) return images;
  const auto scaled = [&](int length) { return int(std::ceil(length * factor / kStride) * kStride); };
  return {scaled(images.height), scaled(images.width)};
}

}  // namespace tessera
