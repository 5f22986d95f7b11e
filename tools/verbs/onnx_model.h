// --model best.onnx, of val and predict.
#pragma once

#include <memory>

#include "yolo/config.h"
#include "yolo/io/onnx_network.h"

namespace tessera {

// Null: --model is something else. Error(kUsage) for a device or precision that such a file is not run with.
std::unique_ptr<OnnxNetwork> open_onnx(const Config& config);

// The arguments as the file has them (spec 11.3): imgsz and batch of a fixed one, rect off; of a free one those of its metadata unless
// given. Error(kUsage): another imgsz was given for a file of one size.
Config fitted_to(const OnnxNetwork& network, const Config& config);

}  // namespace tessera
