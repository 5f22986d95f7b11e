// The network in evaluation, batch after batch: on a device as a recording (a CUDA graph) once the same shape has come a few times in
// a row, for a small batch is done sooner than its hundred launches are made one by one.
#pragma once

#include <optional>

#include "yolo/model.h"
#include "yolo/network.h"
#include "yolo/step_replay.h"

namespace tessera {

class ReplayedForward : public SegNetwork {
 public:
  // The model must outlive this and stay as it is while this is used: a recording knows the addresses of its weights.
  explicit ReplayedForward(YoloSeg& model) : model_(model) {}

  int64_t nc() const override { return model_.nc(); }
  const std::array<int64_t, kAnchorLevels>& strides() const override { return model_.strides(); }
  int64_t max_stride() const override { return model_.max_stride(); }
  Device device() const override { return model_.device(); }
  void place(const Tensor& images) override;  // on a host they are normalised too
  RawOutputs run() override;                  // the bits of YoloSeg::forward

 private:
  YoloSeg& model_;
  std::optional<StepReplay> replay_;  // of this shape: another begins anew, so shapes that take turns are not recorded
  Tensor images_;                     // on a device u8, in memory that stays as long as the shape does
  RawOutputs outputs_;                // may lie in a recording's memory: goes before replay_
};

}  // namespace tessera
