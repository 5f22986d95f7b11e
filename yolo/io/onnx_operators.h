// The operators of ONNX that YOLOv8-seg files are made of, over our own kernels: what the original's exports (8.3.159; static and
// dynamic, opset 9 to 22, simplified or not) and ours hold. Anything else is an Error(kData) that names the node and what it wants.
//
// A value has the sizes that ONNX gives it, (N, C, H, W), but images lie channels last in memory: an axis is a stride, so slices and
// transpositions copy nothing and convolutions find what they like. Numbers are f32 and i64, whatever the file's types are.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "nn/io/onnx_graph.h"
#include "tensor/ops/conv.h"

namespace tessera {

// What a node's run may use.
struct OnnxCall {
  const OnnxNode& node;
  int64_t opset;
  int64_t most;  // numbers in a value: beyond it the file is damaged, not large
  std::span<const Tensor> in;  // undefined: left out
  std::vector<Tensor> out;     // to be filled, one for each of the node's
};

// Of a convolution, once for many inputs.
struct OnnxConv {
  ops::PackedFilter filter;
  Tensor bias;
  Activation activation = Activation::kNone;  // kSilu: a product with its sigmoid that followed is made in one pass
};

// Error(kData): not an operator or attribute that is known; of a file, for the message.
void check_onnx_node(const OnnxNode& node, const std::string& file);
// Ready to run; weight (O, I, k, k) and bias are constants of the graph.
OnnxConv prepare_onnx_conv(const OnnxNode& node, const Tensor& weight, const Tensor& bias);
Tensor run_onnx_conv(const OnnxConv& conv, const Tensor& x, const OnnxCall& call);
// Any other node.
void run_onnx_node(OnnxCall& call);

Tensor onnx_number(const Tensor& stored);  // as f32 or i64

// An error of the node that is being run; the program adds the file.
[[noreturn]] void onnx_fail(const OnnxNode& node, const std::string& what);

}  // namespace tessera
