// The network as an ONNX graph, as the original exports it (spec 11.2): batch norm folded, boxes and scores decoded.
//   images  (N, 3, H, W)          RGB, 0 to 1
//   output0 (N, 4 + nc + 32, A)   cx cy w h in pixels of the input, probabilities, coefficients as they are; A anchors over (level, y, x)
//   output1 (N, 32, H/4, W/4)     prototypes
// Nodes are named after the modules: "model.0/conv", "model.2.m.0.cv1/mul". Our filters (O, kH, kW, I) become ONNX's (O, I, kH, kW).
#pragma once

#include <string>
#include <vector>

#include "nn/io/onnx_graph.h"
#include "yolo/model.h"

namespace tessera {

// Operators as they have been since opset 13; later versions of them add types and attributes whose defaults mean the same.
inline constexpr int64_t kMinOnnxOpset = 13, kMaxOnnxOpset = 22;
// The newest that ONNX Runtime 1.12, TensorRT 8.5 and OpenVINO 2022.3 already read; what came since changes nothing here.
inline constexpr int64_t kDefaultOnnxOpset = 17;

struct OnnxExportOptions {
  int64_t batch = 1, height = 640, width = 640;  // multiples of max_stride()
  int64_t opset = kDefaultOnnxOpset;
  bool half = false;     // weights, inputs and outputs in fp16
  bool dynamic = false;  // batch, height and width are free; those above stand in the metadata as the usual ones
};

// Of a model whose weights were not let go of. Error(kUsage) for sizes or an opset that are not allowed.
OnnxGraph build_onnx(YoloSeg& model, const std::vector<std::string>& names, const OnnxExportOptions& options);

// {0: 'person', 1: 'traffic light'}: how the original writes names into metadata, and reads them.
std::string python_names(const std::vector<std::string>& names);

}  // namespace tessera
