// The network in evaluation, batch after batch: on a device as a recording (a CUDA graph) once the same shape has come a few times in
// a row, for a small batch is done sooner than its hundred launches are made one by one.
#pragma once

#include <optional>

#include "yolo/model.h"
#include "yolo/step_replay.h"

namespace tessera {

class ReplayedForward {
 public:
  // The model must outlive this and stay as it is while this is used: a recording knows the addresses of its weights.
  explicit ReplayedForward(YoloSeg& model) : model_(model) {}

  // u8 images (N, H, W, 3) of the host, to where the model is; on a host they are normalised too.
  void place(const Tensor& images);
  // The network's outputs for them: the bits of YoloSeg::forward. Good until place() is called again, or this goes.
  RawOutputs run();

 private:
  YoloSeg& model_;
  std::optional<StepReplay> replay_;  // of this shape: another begins anew, so shapes that take turns are not recorded
  Tensor images_;                     // on a device u8, in memory that stays as long as the shape does
  RawOutputs outputs_;                // may lie in a recording's memory: goes before replay_
};

}  // namespace tessera
