// The segmentation head (spec 1.4): on each of three levels a box branch (64 = 4 sides x 16 distance bins), a class branch and a
// branch of mask coefficients; and the mask prototypes, from the finest level.
#pragma once

#include <array>
#include <memory>
#include <span>

#include "tensor/ops/assign.h"
#include "yolo/blocks/head_branch.h"
#include "yolo/blocks/proto.h"

namespace tessera {

inline constexpr int64_t kDistanceBins = 16;              // reg_max
inline constexpr int64_t kBoxLogits = 4 * kDistanceBins;  // channel side * 16 + bin; sides left, top, right, bottom

// What the network gives, finest level first. Box and class logits stay apart (the original joins them to 64 + nc channels), which
// saves the copy; anchors count row by row over (level, y, x).
struct RawOutputs {
  std::array<Variable, kAnchorLevels> box;           // (N, h, w, 64)
  std::array<Variable, kAnchorLevels> cls;           // (N, h, w, nc)
  std::array<Variable, kAnchorLevels> coefficients;  // (N, h, w, masks)
  // (N, 2 h0, 2 w0, masks), h0 and w0 of level 0. In training of the type that the network computes in; all else is f32.
  Variable prototypes;
  // Of an exported file: box holds cx cy w h in pixels (4 channels) and cls probabilities.
  bool decoded = false;
};

// Distribution focal loss projection: the expectation over bins 0..15 (spec 1.3). Holds the frozen parameter of the original's
// files; decoding uses the constants.
class Dfl : public Module {
 public:
  Dfl();
  std::string kind() const override { return "DFL"; }

  Variable weight;  // (1, 1, 1, 16): 0, 1, ..., 15; needs no gradient
};

class Segment : public Module {
 public:
  // `hidden` is the width of the prototype branch.
  Segment(int64_t nc, int64_t masks, int64_t hidden, const std::array<int64_t, kAnchorLevels>& channels);

  RawOutputs forward(std::span<const Variable> features);  // kAnchorLevels feature maps
  std::string kind() const override { return "Segment"; }

  // Box biases 1; class biases ln(5 / nc / (640 / stride)^2): about five objects of any class in an image (spec 1.5).
  void init_biases(const std::array<int64_t, kAnchorLevels>& strides);

  // Multiply-accumulate operations of the convolutions for one image whose levels have these pixel counts.
  int64_t macs(const std::array<int64_t, kAnchorLevels>& pixels);

  int64_t classes() const { return nc_; }
  int64_t masks() const { return masks_; }

  std::array<std::unique_ptr<HeadBranch>, kAnchorLevels> cv2, cv3;  // box, class
  Dfl dfl;
  Proto proto;
  std::array<std::unique_ptr<HeadBranch>, kAnchorLevels> cv4;  // mask coefficients

 private:
  int64_t nc_, masks_;
};

// Weights of all convolutions below `module`: what one output pixel of each costs in multiply-accumulate operations.
int64_t conv_weights(Module& module);

}  // namespace tessera
