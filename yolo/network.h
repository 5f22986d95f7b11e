// What validation and prediction ask of a network, whoever runs it: our own modules (yolo/eval/replayed_forward.h) or a file of another
// form (yolo/io/onnx_network.h).
#pragma once

#include <array>

#include "yolo/blocks/segment.h"

namespace tessera {

class SegNetwork {
 public:
  virtual ~SegNetwork() = default;

  virtual int64_t nc() const = 0;
  virtual const std::array<int64_t, kAnchorLevels>& strides() const = 0;
  virtual int64_t max_stride() const = 0;
  virtual Device device() const = 0;

  // u8 images (N, H, W, 3) of the host, to where the network is.
  virtual void place(const Tensor& images) = 0;
  // The outputs for them, good until place() is called again, or this goes.
  virtual RawOutputs run() = 0;
};

}  // namespace tessera
