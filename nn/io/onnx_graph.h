// ONNX files as plain values: what a graph consists of, read and written over the format's own definition (onnx.proto). What the
// operators mean is not known here. A build without protobuf has no_onnx.cpp instead: both functions then say what to install.
//
// Note [Checksums of constants]: files written here hold a CRC-32C of each constant, in its doc_string beside the type and the sizes
// that it is of. Other readers pass over it; a tool that changes a tensor's type or sizes makes it void; bits that flip are found.
#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "tensor/tensor.h"

namespace tessera {

struct OnnxAttribute {
  // A graph, a list of texts or of tensors and the like has no value here, only its kind.
  struct Other {
    std::string kind;
  };
  std::string name;
  std::variant<Other, int64_t, float, std::string, std::vector<int64_t>, std::vector<float>, Tensor> value;
};

struct OnnxNode {
  std::string op;    // of another domain than ONNX's own: "domain::Op"
  std::string name;  // may be empty
  std::vector<std::string> inputs, outputs;  // an empty name: an optional one that is left out
  std::vector<OnnxAttribute> attributes;

  const OnnxAttribute* find(std::string_view attribute) const {  // null: not there
    const auto it = std::find_if(attributes.begin(), attributes.end(), [&](const OnnxAttribute& a) { return a.name == attribute; });
    return it == attributes.end() ? nullptr : &*it;
  }
};

struct OnnxDim {
  int64_t size = -1;  // -1: free
  std::string name;   // of a free one
};

struct OnnxValue {
  std::string name;
  DType type = DType::kF32;
  std::vector<OnnxDim> dims;
};

struct OnnxGraph {
  int64_t ir_version = 8, opset = 17;
  std::string producer, producer_version, name;
  std::vector<std::pair<std::string, std::string>> metadata;
  std::vector<OnnxValue> inputs, outputs;
  std::vector<std::pair<std::string, Tensor>> constants;  // ONNX's initializers, row-major in the file
  std::vector<OnnxNode> nodes;                            // each after those whose results it reads

  std::string_view metadata_of(std::string_view key) const {  // empty: not there
    const auto it = std::find_if(metadata.begin(), metadata.end(), [&](const auto& m) { return m.first == key; });
    return it == metadata.end() ? std::string_view{} : std::string_view(it->second);
  }
};

// Error(kData) with the file, and the value or node at fault, when it is cut, damaged or holds what is not supported: types other than
// F64 F32 BF16 F16 I64 I32 U8 BOOL, more than five axes, functions. Values may lie in files beside it, below its folder.
OnnxGraph read_onnx(const std::filesystem::path& path);
// The same of bytes in memory; values may lie below `folder`.
OnnxGraph parse_onnx(std::string_view bytes, const std::string& name, const std::filesystem::path& folder);

// Replaces `path` atomically. All values lie in the file. Error(kUsage) above the 2 GiB that such a file can hold.
void write_onnx(const std::filesystem::path& path, const OnnxGraph& graph);

bool has_onnx();
std::string describe_onnx();  // for `info`

}  // namespace tessera
