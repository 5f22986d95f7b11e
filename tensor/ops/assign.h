// Task-aligned assignment of anchors to objects (spec 7.2; Feng et al. 2021, "TOOD"), and the targets of the loss that follow from
// it. Every shape depends on the sizes of the batch alone, never on what is in it, so that a device gets from the network's outputs
// to its loss without the host.
#pragma once

#include <array>

#include "tensor/tensor.h"

namespace tessera {

inline constexpr int kAnchorLevels = 3;
inline constexpr int64_t kLargestTopk = 32;

// Predictions of one level, one row for each anchor in the order (image, y, x). The anchor lies in the middle of its cell:
// ((x + 0.5) stride, (y + 0.5) stride) pixels.
struct AnchorLevel {
  // Logits of the distances: column side * bins + bin, sides left, top, right, bottom; or, decoded, x1 y1 x2 y2 in pixels.
  RowsView box;
  RowsView cls;  // logits of the classes; or, decoded, their scores
  int64_t h, w;
  float stride;
};

// Rows of the assigner's results are those of the levels one after the other; within an image, anchors are counted in this order
// too.
struct AssignInput {
  std::array<AnchorLevel, kAnchorLevels> levels;  // f32
  bool decoded;
  int64_t images, width;   // N; G: objects that an image has room for
  const float* boxes;      // (N, G, 4): x1 y1 x2 y2, pixels
  const int32_t* classes;  // (N, G); -1: no object

  int64_t first_row(int level) const {
    int64_t cells = 0;
    for (int i = 0; i < level; ++i) cells += levels[size_t(i)].h * levels[size_t(i)].w;
    return images * cells;
  }
  int64_t rows() const { return first_row(kAnchorLevels); }
};

struct AssignParams {
  int64_t topk = 10;   // 1 .. kLargestTopk
  float alpha = 0.5f;  // power of the score
  float beta = 6.0f;   // power of the overlap
};

struct PositivesParams {
  float max_distance = 14.99f;                // distances are held at this, so that both bins around them exist
  int64_t image_height = 0, image_width = 0;  // pixels
  int64_t mask_height = 0, mask_width = 0;
  std::array<double, 4> gains{1, 1, 1, 1};  // of class, box, distance and mask term
};

// One row for each positive, an anchor that learns an object, in the order of the assigner's rows; from their count on to
// `capacity` rows that change nothing: index -1, weight 0, area 1, all else 0.
struct PositivesView {
  int64_t capacity;
  int64_t* index;     // (levels, capacity): row of the level's maps; -1: of another level
  float* anchors;     // (capacity, 4): x, y, x, y of the anchor, in strides
  float* corners;     // (capacity, 4): box of the object, in strides
  float* distances;   // (capacity, 4): from the anchor to left, top, right, bottom of the box, held in [0, max_distance]
  float* weights;     // (capacity): the assigner's score
  int32_t* image;     // (capacity)
  int32_t* mask;      // (capacity): mask_ids of the object
  float* mask_boxes;  // (capacity, 4): box of the object in pixels of the masks
  float* area;        // (capacity): of the box, as a fraction of the image's; 1 for a box without area
  int32_t* label;     // of all rows of the assigner: the class of the object that the anchor learns; -1: none
  double* totals;     // (2): sum of the scores; number of positives
  float* scales;      // (4): gain / max(sum of the scores, 1) * N of class, box and distance term, gain / max(positives, 1) * N of
                      // the mask's
};

class AssignOps {
 public:
  virtual ~AssignOps() = default;
  // For each row the object (0 .. G - 1) that the anchor learns or -1, and its score in [0, 1].
  //
  // The metric of an anchor for an object whose box it lies in is score^alpha * CIoU^beta. Each object takes the topk anchors of
  // its image with the largest metric, of equal ones the first; anchors outside the box have metric 0, take places and are not
  // kept. An anchor taken by several objects goes to the one of all around it with the largest CIoU, of equal ones the first; to
  // object 0 where all are 0. score = metric * (largest CIoU among the object's anchors) / (their largest metric + 1e-9).
  virtual void assign(const AssignInput& in, const AssignParams& params, int32_t* target, float* score) = 0;

  // What the terms of the loss compare with. mask_ids (N, G): what the masks call the object. The capacity must be enough:
  // min(rows, N * G * topk) always is.
  virtual void collect_positives(const AssignInput& in, const int32_t* mask_ids, const int32_t* target, const float* score,
                                 const PositivesParams& params, const PositivesView& out) = 0;
};

namespace ops {

// The maps of AnchorLevel as (N, h, w, channels), all on one device.
struct AnchorMaps {
  std::array<Tensor, kAnchorLevels> box, cls;
  std::array<float, kAnchorLevels> strides;
  bool decoded = false;
};

struct Assignment {
  Tensor target;  // i32 (rows)
  Tensor score;   // f32 (rows)
};
// boxes f32 (N, G, 4), classes i32 (N, G), dense, where the maps are.
Assignment assign(const AnchorMaps& maps, const Tensor& boxes, const Tensor& classes, const AssignParams& params = {});

// The fields of PositivesView.
struct Positives {
  Tensor index, anchors, corners, distances, weights, image, mask, mask_boxes, area, label;
  Tensor totals, scales;
};
Positives collect_positives(const AnchorMaps& maps, const Tensor& boxes, const Tensor& classes, const Tensor& mask_ids,
                            const Assignment& assignment, const PositivesParams& params, int64_t capacity);

}  // namespace ops

}  // namespace tessera
