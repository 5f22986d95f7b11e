// The loss of the original (spec 7): box (CIoU), mask (cross-entropy inside the box), class (cross-entropy over all anchors) and
// distance bins (DFL), on the anchors that the task-aligned assigner chose (tensor/ops/assign.h).
#pragma once

#include <optional>

#include "tensor/comm.h"
#include "yolo/blocks/segment.h"
#include "yolo/metrics.h"
#include "yolo/train/targets.h"

namespace tessera {

struct LossGains {
  double box = 7.5;  // also of the mask term, as in the original
  double cls = 0.5;
  double dfl = 1.5;
};

// What the loss needs of a batch, where the network is.
struct LossTargets {
  PaddedTargets objects;
  Tensor masks;  // i32 (N, mh, mw) or, separate, (targets, mh, mw), of the size of the prototypes; undefined: no targets
  bool overlap = true;
  int64_t height = 0, width = 0;  // of the network input
};

struct LossResult {
  Variable total;  // scalar to differentiate: sum of the four items times the batch size; where the network is

  // Waits for the device and fetches what it says, in one piece.
  LossReport report() const;
  // The two halves of it: f64 (kSums) where the network is, totals and then terms, and what they mean once they are fetched.
  static constexpr int64_t kTerms = 4, kSums = 2 + kTerms;
  void write_sums(const Tensor& into) const;
  static LossReport report_of(const double* sums, const LossGains& gains);

  LossGains gains;
  Tensor terms;   // f32 (kTerms): sums of class, box, distance and mask term
  Tensor totals;  // of ops::Positives
};

class SegmentationLoss {
 public:
  // ranks, of which there are several: the batch is one part of theirs. The mean of their gradients is then the gradient of the
  // whole batch on one: each term is divided by what is counted over all ranks, and multiplied by their number. Reports stay those
  // of the part. The graph of every rank has the same nodes, whether it has targets or not.
  explicit SegmentationLoss(const LossGains& gains = {}, const std::array<int64_t, kAnchorLevels>& strides = {8, 16, 32},
                            Communicator* ranks = nullptr)
      : gains_(gains), strides_(strides), ranks_(ranks != nullptr && !ranks->alone() ? ranks : nullptr) {}

  // Of the batch, which is on the host: targets, target_image, overlap and masks (i32, resized to the prototypes by nearest
  // neighbour when of another size); masks may be undefined when there are no targets. Height and width of the network input.
  //
  // A device gets room for more objects than there are: for a number that only grows, by doubling, so that shapes stay the same.
  LossTargets place(const Batch& batch, int64_t images, int64_t height, int64_t width, Device device) const;
  // The same, still on the host.
  LossTargets prepare(const Batch& batch, int64_t images, int64_t height, int64_t width, Device device) const;
  const LossGains& gains() const { return gains_; }

  // Outputs f32, recorded or not, on the device of the targets. Neither this nor the backward pass waits for the device or hands it
  // anything: shapes depend on those of outputs and targets alone. The host, which need not wait, works on the positives only.
  LossResult operator()(const RawOutputs& outputs, const LossTargets& targets) const;
  LossResult operator()(const RawOutputs& outputs, const Batch& batch) const;  // place(), then the one above

 private:
  struct Constants {
    Tensor bins;      // (16, 1): 0, 1, ...
    Tensor outwards;  // (4): -1, -1, 1, 1
    Tensor gains;     // (4) of class, box, distance and mask term, times the number of ranks
  };
  const Constants& constants(Device device) const;
  std::array<double, 4> gains_of_terms() const { return {gains_.cls, gains_.box, gains_.dfl, gains_.box}; }

  LossGains gains_;
  std::array<int64_t, kAnchorLevels> strides_;
  Communicator* ranks_;
  mutable int64_t room_ = 16;       // objects of an image, on a device
  mutable int64_t mask_room_ = 16;  // separate masks of a batch, likewise
  mutable std::optional<Constants> constants_;
};

// i32 masks (planes, h, w) at another size; source row = floor(row * h / height), likewise columns (spec 14.3).
Tensor resize_masks(const Tensor& masks, int64_t height, int64_t width);

}  // namespace tessera
