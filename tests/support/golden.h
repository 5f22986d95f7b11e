// Reads the fixtures of tests/golden: a small safetensors reader of its own, so that tests of the lower layers need nothing of
// nn/io and the reader of nn/io is tested against a second one.
#pragma once

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tensor/tensor.h"

namespace tessera::testing {

using TensorMap = std::map<std::string, Tensor>;

// Of the source that was built, or of TESSERA_SOURCE_DIR where programs run on another machine (tools/gpu_pack.sh).
inline std::filesystem::path golden_dir() {
  const char* const elsewhere = std::getenv("TESSERA_SOURCE_DIR");
  return std::filesystem::path(elsewhere != nullptr ? elsewhere : TESSERA_SOURCE_DIR) / "tests" / "golden";
}

inline DType safetensors_type(const std::string& name) {
  static const std::map<std::string, DType> types = {{"F64", DType::kF64}, {"F32", DType::kF32},  {"BF16", DType::kBF16},
                                                     {"F16", DType::kF16}, {"I64", DType::kI64},  {"I32", DType::kI32},
                                                     {"U8", DType::kU8},   {"BOOL", DType::kBool}};
  const auto it = types.find(name);
  TESSERA_CHECK(it != types.end(), "safetensors: got type {}, which no tensor has", name);
  return it->second;
}

// Every tensor of a safetensors file, on the CPU; the shapes are those of the file.
inline TensorMap read_safetensors(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  TESSERA_CHECK(in.good(), "cannot open {}", path.string());
  uint64_t header_bytes = 0;
  in.read(reinterpret_cast<char*>(&header_bytes), sizeof(header_bytes));
  TESSERA_CHECK(in.good() && header_bytes < (uint64_t{1} << 24), "{}: not a safetensors file", path.string());
  std::string header(header_bytes, '\0');
  in.read(header.data(), std::streamsize(header_bytes));
  const std::string data{std::istreambuf_iterator<char>(in), {}};
  TensorMap tensors;
  const auto entries = nlohmann::json::parse(header);
  for (const auto& [name, entry] : entries.items()) {
    if (name == "__metadata__") continue;
    Shape shape;
    for (const auto& d : entry.at("shape")) shape.push_back(d.get<int64_t>());
    Tensor t = Tensor::empty(shape, safetensors_type(entry.at("dtype").get<std::string>()));
    const size_t begin = entry.at("data_offsets").at(0).get<size_t>();
    const size_t end = entry.at("data_offsets").at(1).get<size_t>();
    TESSERA_CHECK(begin <= end && end <= data.size() && end - begin == size_t(t.numel()) * size_of(t.dtype()),
                  "{}: {} is cut short", path.string(), name);
    if (end > begin) std::memcpy(t.raw(), data.data() + begin, end - begin);
    tensors.emplace(name, t);
  }
  return tensors;
}

inline nlohmann::json read_json(const std::filesystem::path& path) {
  std::ifstream in(path);
  TESSERA_CHECK(in.good(), "cannot open {}", path.string());
  return nlohmann::json::parse(in);
}

}  // namespace tessera::testing
