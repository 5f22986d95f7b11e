// From the head's maps to objects (spec 2, 4.1) and from prototypes to the pixels of their masks (spec 4.3). What goes in stays
// where it is; what comes out is small: a table of at most max_detections rows an image, and the rectangles of the masks. Shapes
// depend on the sizes of the batch alone. All backends give the same bits (detect_math.h).
#pragma once

#include <array>
#include <functional>
#include <span>

#include "tensor/bit_rows.h"
#include "tensor/ops/assign.h"
#include "tensor/pixel_box.h"
#include "tensor/tensor.h"

namespace tessera {

// Maps of one level, f32 and channels last. An image's anchors count row by row over (level, y, x).
struct DetectLevel {
  ImageView box;  // (N, h, w, 64): logits, side (left, top, right, bottom) * 16 + distance bin; or, decoded, cx cy w h in pixels
  ImageView cls;  // (N, h, w, classes): logits; or, decoded, scores
  ImageView coefficients;  // (N, h, w, masks)
  float stride;            // pixels of the network input for each cell
};

struct DetectInput {
  std::array<DetectLevel, kAnchorLevels> levels;
  bool decoded;
  const uint8_t* wanted;  // (classes): 0 for those to leave out; null: none

  int64_t images() const { return levels[0].box.n; }
  int64_t classes() const { return levels[0].cls.c; }
  int64_t masks() const { return levels[0].coefficients.c; }
  int64_t first_anchor(int level) const {
    int64_t cells = 0;
    for (int i = 0; i < level; ++i) cells += levels[size_t(i)].box.h * levels[size_t(i)].box.w;
    return cells;
  }
  int64_t anchors() const { return first_anchor(kAnchorLevels); }
};

struct DetectParams {
  float confidence = 0.25f;        // scores must be greater; 0 to 1
  double iou = 0.7;                // overlaps must be greater to suppress; 0 to 1
  bool multi_label = false;        // a candidate for each class above the confidence, not only for the best (validation)
  bool agnostic = false;           // classes suppress each other
  int64_t max_detections = 300;    // an image
  int64_t max_candidates = 30000;  // the best of an image that are looked at
};

// Columns of a detection: x1, y1, x2, y2 in pixels of the network input, not clipped; score; class; anchor.
inline constexpr int64_t kDetectionColumns = 7;

// A rectangle of one mask. The target, of height x width pixels, covers the cells `slice` of the prototypes.
struct MaskItem {
  int32_t image = 0, row = 0;  // of the prototypes; of the coefficients
  PixelBox slice;
  int32_t height = 0, width = 0;
  PixelBox where;      // pixels to compute, within the target
  PixelBox crop;       // cells of the prototypes; those outside count as logit 0
  int64_t offset = 0;  // of the first word in the result

  int64_t words() const { return words_of_row(where.width()) * where.height(); }
};

// Gets the words of one item, which are good until it returns.
using TakeMask = std::function<void(int64_t item, const uint32_t* words)>;

class DetectOps {
 public:
  virtual ~DetectOps() = default;
  // detections (N, max_detections, 7): of each image, by falling score; from the last one on rows of zeros, and no other row has
  // score 0. coefficients (N, max_detections, masks): of the same anchors, or 0.
  //
  // A side of a box is the expectation of its softmax over the bins, times the stride; a score is sigma(logit). Of the candidates
  // above the confidence the max_candidates best are gone through by falling score, equal ones by anchor, then class: one is kept
  // unless its IoU with one kept before is above the limit. Unless agnostic, boxes are moved by class * 7680 pixels first, which
  // keeps classes apart and, in f32, quantises the boxes of high classes as it does in the original. NaN is no candidate.
  virtual void detect(const DetectInput& in, const DetectParams& params, float* detections, float* coefficients) = 0;
  // Bytes of the device's memory that it takes meanwhile.
  virtual int64_t detect_scratch_bytes(const DetectInput& /*in*/, const DetectParams& /*params*/) { return 0; }

  // For every item the pixels of `where` as rows of bits (tensor/bit_rows.h), from its offset on: 1 where the logit L = sum over
  // channels of coefficient * prototype, 0 outside of the crop, enlarged bilinearly from the slice to the target, is above 0. A
  // target of the slice's size takes the logits as they are. prototypes (N, h, w, k), coefficients (rows, k): f32; `items`: host.
  virtual void mask_patches(ImageView prototypes, RowsView coefficients, std::span<const MaskItem> items, uint32_t* words) = 0;
  // For memory of the host: the same, but handed on item by item instead of kept, on any thread and in any order. Offsets say nothing.
  virtual void each_mask(ImageView prototypes, RowsView coefficients, std::span<const MaskItem> items, const TakeMask& take);
};

namespace ops {

// The maps of DetectLevel, all on one device.
struct DetectMaps {
  std::array<Tensor, kAnchorLevels> box, cls, coefficients;
  std::array<float, kAnchorLevels> strides;
  bool decoded = false;
};

// Where the maps are; max_detections is lowered to the number of candidates that there can be.
struct DetectResult {
  Tensor detections;    // f32 (N, max_detections, 7)
  Tensor coefficients;  // f32 (N, max_detections, masks)
};
// classes: when not empty, only these. Error(kUsage) for a confidence or an IoU outside 0 to 1.
DetectResult detect(const DetectMaps& maps, const DetectParams& params, std::span<const int32_t> classes = {});

// coefficients (..., k); words: memory where the prototypes are, up to the end of the last item.
void mask_patches(const Tensor& prototypes, const Tensor& coefficients, std::span<const MaskItem> items, uint32_t* words);
// Of tensors of the host.
void each_mask(const Tensor& prototypes, const Tensor& coefficients, std::span<const MaskItem> items, const TakeMask& take);

}  // namespace ops

}  // namespace tessera
