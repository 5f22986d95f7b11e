// The loss of the original (spec 7): box (CIoU), mask (cross-entropy inside the box), class (cross-entropy over all anchors) and
// distance bins (DFL), on the anchors that the task-aligned assigner chose (tensor/ops/assign.h).
#pragma once

#include <optional>

#include "tensor/comm.h"
#include "tensor/ops/assign.h"
#include "yolo/blocks/segment.h"
#include "yolo/metrics.h"
#include "yolo/train/targets.h"

namespace tessera {

struct LossGains {
  double box = 7.5;  // also of the mask term, as in the original
  double cls = 0.5;
  double dfl = 1.5;
};

// What the loss needs of a batch: the ground truth, on the device of the network.
struct LossTargets {
  PaddedTargets objects;
  Tensor masks;  // i32, of the size of the prototypes: (N, mh, mw) or, without overlap, (targets, mh, mw); undefined: no targets
  bool overlap = true;            // one index map for each image; false: a mask of 0 and 1 for each target
  int64_t height = 0, width = 0;  // pixels of the network input
};

struct LossResult {
  // The scalar to differentiate, on the device of the network: the batch size times the sum of the four LossItems, whose gains are
  // in them.
  Variable total;

  // Waits for the device and fetches the sums in one copy.
  LossReport report() const;
  // The two halves of report(), for a caller that has more to fetch: write_sums() leaves totals and terms in f64 (kSums) on the
  // device, report_of() says what they mean once they are on the host.
  static constexpr int64_t kTerms = 4, kSums = 2 + kTerms;
  void write_sums(const Tensor& into) const;
  static LossReport report_of(const double* sums, const LossGains& gains);

  LossGains gains;
  Tensor terms;   // f32 (kTerms): class, box, distance and mask term, each a sum without gain and divisor
  Tensor totals;  // f64 (2), of ops::Positives: sum of the scores, number of positives
};

class SegmentationLoss {
 public:
  // With several `ranks` a batch is one part of theirs. Each term is divided by what is counted over all ranks and multiplied by
  // their number, so that the mean of their gradients is the gradient that one process would get from the whole batch. A report
  // stays that of the part. The graph of every rank has the same nodes, whether it has targets or not.
  explicit SegmentationLoss(const LossGains& gains = {}, const std::array<int64_t, kAnchorLevels>& strides = {8, 16, 32},
                            Communicator* ranks = nullptr)
      : gains_(gains), strides_(strides), ranks_(ranks != nullptr && !ranks->alone() ? ranks : nullptr) {}

  // The targets of a batch, still on the host but in the shapes that `device` wants. Read of the batch: targets, target_image,
  // overlap, and masks (i32; of another size than the prototypes they are resized by nearest neighbour; undefined where there are
  // no targets). height and width are pixels of the network input.
  //
  // A device gets room for more objects than there are. The room only grows, by doubling, so that shapes rarely change: a recorded
  // step (yolo/step_replay.h) holds for one set of shapes.
  LossTargets prepare_targets(const Batch& batch, int64_t images, int64_t height, int64_t width, Device device) const;
  // The same, moved to the device.
  LossTargets upload_targets(const Batch& batch, int64_t images, int64_t height, int64_t width, Device device) const;
  const LossGains& gains() const { return gains_; }

  // Outputs f32, recorded or not, on the device of the targets. On a device neither this nor the backward pass waits or copies:
  // every shape follows from those of outputs and targets, and rows beyond the positives weigh nothing. The CPU, which knows the
  // number of positives without waiting, computes their rows only.
  LossResult operator()(const RawOutputs& outputs, const LossTargets& targets) const;
  LossResult operator()(const RawOutputs& outputs, const Batch& batch) const;  // upload_targets(), then the one above

 private:
  struct Constants {
    Tensor bins;      // (16, 1): 0, 1, ...
    Tensor outwards;  // (4): -1, -1, 1, 1, the signs that lead from an anchor to left, top, right, bottom
    Tensor gains;     // (4) of class, box, distance and mask term, times the number of ranks
  };
  const Constants& constants(Device device) const;
  std::array<double, 4> gains_of_terms() const { return {gains_.cls, gains_.box, gains_.dfl, gains_.box}; }
  bool several_ranks() const { return ranks_ != nullptr; }

  // The steps of operator().
  ops::Positives collect_positives(const ops::AnchorMaps& maps, const RawOutputs& outputs, const LossTargets& targets,
                                   const ops::Assignment& assignment) const;
  void scale_over_ranks(ops::Positives& p, int64_t images, Device device) const;
  std::vector<Variable> terms(const RawOutputs& outputs, const LossTargets& targets, const Tensor& score, ops::Positives& p,
                              const Tensor& sums) const;

  LossGains gains_;
  std::array<int64_t, kAnchorLevels> strides_;
  Communicator* ranks_;             // null: one process
  mutable int64_t room_ = 16;       // objects that an image has room for, on a device
  mutable int64_t mask_room_ = 16;  // masks that a batch without overlap has room for, on a device
  mutable std::optional<Constants> constants_;
};

// i32 masks (planes, h, w) at another size; source row = floor(row * h / height), likewise columns (spec 14.3).
Tensor resize_masks(const Tensor& masks, int64_t height, int64_t width);

}  // namespace tessera
