// From the raw maps of the head to one row for each anchor: box in pixels, class probabilities, mask coefficients (spec 2).
#pragma once

#include <cstdint>
#include <span>

namespace tessera {

// One level of one image, channels last; a pitch is the number of floats from pixel to pixel. For maps that hold boxes and classes
// side by side, cls = box + 64 with the same pitch.
struct HeadLevel {
  const float* box = nullptr;  // height x width x 64: logits, side (left, top, right, bottom) * 16 + distance bin
  int64_t box_pitch = 64;
  const float* cls = nullptr;  // height x width x nc: logits
  int64_t cls_pitch = 0;
  const float* coefficients = nullptr;  // height x width x masks; may be null when masks = 0
  int64_t coefficients_pitch = 0;
  int height = 0, width = 0;
  int stride = 0;  // pixels of the network input per map pixel
};

int64_t anchor_count(std::span<const HeadLevel> levels);

// rows[a * pitch ...] = [cx, cy, w, h, sigma(class logits), coefficients], anchors counting row by row over (level, y, x). A side
// is the expectation of its softmax over 16 bins, times the stride; boxes are not clipped. With skip_below > 0, anchors none of
// whose scores could be above that confidence get zeros instead, which is all that non-maximum suppression at that confidence needs
// to know.
void decode_head(std::span<const HeadLevel> levels, int64_t nc, int64_t masks, float* rows, int64_t pitch, float skip_below = 0);

}  // namespace tessera
