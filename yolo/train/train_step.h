// One training step: forward pass, loss, backward pass and, when enough batches have been accumulated, the update of the weights.
//
// On a device the host stays out of the way (docs/adr/0007-step-without-the-host.md). The batch is uploaded while the step before
// it runs (tensor/upload_ring.h) and copied into buffers that keep their addresses. The step itself neither copies nor waits, so it
// can be recorded and replayed as a whole (yolo/step_replay.h). One small download at the end says what happened.
#pragma once

#include <array>
#include <deque>
#include <vector>

#include "data/sample.h"
#include "nn/data_parallel.h"
#include "nn/optim/schedule.h"
#include "nn/optim/weight_update.h"
#include "tensor/upload_ring.h"
#include "yolo/model.h"
#include "yolo/train/loss.h"
#include "yolo/step_replay.h"

namespace tessera {

struct StepResult {
  LossReport loss;
  UpdateReport update;  // only of a step that makes one
  StepReplay::Ran ran = StepReplay::Ran::kCalls;
};

class TrainStep {
 public:
  // All references must outlive this object. own_statistics: the batch norms of each rank take statistics of their own part of the
  // batch, so after each step all ranks take over rank 0's running statistics, as in the original. False with sync_bn, where they
  // are the same anyway.
  TrainStep(YoloSeg& model, const SegmentationLoss& loss, DataParallel& ranks, WeightUpdate& update, StepReplay replay,
            bool own_statistics = true);

  // start() adds the gradients of the batch to the arena's and, with_update, makes an update of them. On a device it returns while
  // the work is still going on; finish() waits for it. run() does both.
  void start(const Batch& batch, const ScheduleValues& values, bool with_update);
  StepResult finish();
  StepResult run(const Batch& batch, const ScheduleValues& values, bool with_update);

  // The work of the last start() once more, on the batch that is on the device: for measurements.
  void repeat();

  // Uploads the batch of the next start() while the device works; its host memory is free on return. Does nothing on the CPU.
  void prefetch(const Batch& batch);

  // u8 (N, H, W, 3), the images of the last step on the device; undefined on the CPU.
  const Tensor& images() const { return images_; }
  // Gives back the memory of recordings and batches, for other work between steps. A batch that was prefetched is forgotten.
  void release();

 private:
  // A batch as the step needs it. On a device the tensors of the targets travel in the upload ring, and are left out here.
  struct Prepared {
    LossTargets targets;
    Shape images;
    bool from_tiles = false;  // the device still has to make the images (data/pixel_plan.h)
  };
  Prepared prepare(const Batch& batch) const;
  void bring_over(const Batch& batch);  // images_ and targets_ are those of the batch afterwards
  void take_upload();
  Variable network_input() const;  // the images as they are, or resized (Batch::resized)
  void compute();                  // the step itself, on images_ and targets_

  YoloSeg& model_;
  const SegmentationLoss& loss_;
  DataParallel& ranks_;
  WeightUpdate& update_;
  StepReplay replay_;
  bool own_statistics_;
  std::unique_ptr<UploadRing> ring_;
  std::deque<Prepared> uploading_;  // one for each parcel of the ring that was not taken yet
  bool with_update_ = false;        // of the step under way
  StepReplay::Ran ran_ = StepReplay::Ran::kCalls;
  Tensor images_;  // u8 (N, H, W, 3)
  LossTargets targets_;
  Tensor feedback_;                  // f64: LossResult::kSums sums of the loss, then kUpdateSlots of the update's state
  std::vector<BatchNorm2d*> norms_;  // whose counters of batches are on the host
};

}  // namespace tessera
