// One training step, with the host out of the way where the network is on a device: the batch comes over beside the step before it
// (tensor/upload_ring.h) and goes into buffers that stay, then network, loss, backward pass and update run without a copy or a wait,
// and one small copy tells what happened. Recorded and replayed as a whole where the device can (step_replay.h).
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
  UpdateReport update;  // of a step that makes one
  StepReplay::Ran ran = StepReplay::Ran::kCalls;
};

class TrainStep {
 public:
  // All of them must outlive this. Of several ranks, rank 0's running statistics are taken by all after each step, as in the
  // original, so that there is one model; not when they are the same already (own_statistics false: sync_bn).
  TrainStep(YoloSeg& model, const SegmentationLoss& loss, DataParallel& ranks, WeightUpdate& update, StepReplay replay,
            bool own_statistics = true);

  // Gradients of the batch are added up; with_update: and then an update is made of them. A device works after start(), until
  // finish() has waited for it.
  void start(const Batch& batch, const ScheduleValues& values, bool with_update);
  StepResult finish();
  StepResult run(const Batch& batch, const ScheduleValues& values, bool with_update);  // both

  // The work of the last start() once more on what that brought to the device: for measurements.
  void again();

  // Brings a batch over while the device works: the next one to be started. Its host memory is free on return. The host needs none.
  void send(const Batch& batch);

  // Of the last step, on the device; the host keeps none.
  const Tensor& images() const { return images_; }
  // Memory of recordings and of batches goes back, for other work between steps. A batch that was sent is forgotten.
  void release();

 private:
  // What came over, or is on its way.
  struct Sent {
    LossTargets targets;  // their tensors: of the host, where it is the network's place
    Shape images;
    bool tiles = false;  // images are still to be made
  };
  Sent prepare(const Batch& batch) const;
  void place(const Batch& batch);
  Variable network_input() const;  // the images as they are, or resized (Batch::resized)
  void work(bool with_update);

  YoloSeg& model_;
  const SegmentationLoss& loss_;
  DataParallel& ranks_;
  WeightUpdate& update_;
  StepReplay replay_;
  bool own_statistics_;
  std::unique_ptr<UploadRing> ring_;
  std::deque<Sent> sent_;  // parcels of the ring that were not taken yet
  bool with_update_ = false;
  StepReplay::Ran ran_ = StepReplay::Ran::kCalls;
  Tensor images_;  // u8 (N, H, W, 3)
  LossTargets targets_;
  Tensor feedback_;                   // f64: sums of the loss, then the state of the update
  std::vector<BatchNorm2d*> norms_;  // whose counters are on the host
};

}  // namespace tessera
