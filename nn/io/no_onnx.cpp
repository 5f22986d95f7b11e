// Stands in for onnx_graph.cpp where protobuf was not found.
#include "nn/io/onnx_graph.h"

namespace tessera {

namespace {

constexpr const char* kRemedy = "install libprotobuf-dev and protobuf-compiler (tools/install_deps.sh does) and build anew; cmake says 'ONNX: protobuf' then";

[[noreturn]] void refuse(const std::string& file) {
  throw Error(ErrorCode::kUsage, "this build cannot read or write ONNX files", {file}, kRemedy);
}

}  // namespace

OnnxGraph read_onnx(const std::filesystem::path& path) { refuse(path.string()); }
OnnxGraph parse_onnx(std::string_view, const std::string& name, const std::filesystem::path&) { refuse(name); }
void write_onnx(const std::filesystem::path& path, const OnnxGraph&) { refuse(path.string()); }

bool has_onnx() { return false; }
std::string describe_onnx() { return std::string("not in this build: ") + kRemedy; }

}  // namespace tessera
