// Shared by the tests of the file formats.
#pragma once

#include <doctest/doctest.h>
#include <stdlib.h>

#include <cstring>
#include <filesystem>
#include <string>

#include "nn/io/state_dict.h"
#include "tensor/base/check.h"
#include "tests/support/error_of.h"
#include "tests/support/temp_folder.h"

namespace tessera {

using testing::error_of;
using testing::TempFolder;

// How many entries a folder has.
inline int entries_in(const std::filesystem::path& folder) {
  int count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(folder)) ++count;
  return count;
}

inline bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

// Same names, types, shapes and bits, in any order. The golden scripts store scalars as vectors of one element.
inline void check_equal(const StateDict& a, const StateDict& b, bool scalars_are_vectors = false) {
  CHECK(a.size() == b.size());
  for (const auto& [name, tensor] : a) {
    CAPTURE(name);
    const Tensor* other = b.find(name);
    REQUIRE(other != nullptr);
    REQUIRE(describe(scalars_are_vectors && other->rank() == 0 ? other->view({1}) : *other) == describe(tensor));
    const Tensor x = tensor.contiguous(), y = other->contiguous();
    CHECK(std::memcmp(x.raw(), y.raw(), size_t(x.numel()) * size_of(x.dtype())) == 0);
  }
}

// A safetensors file whose checksums stand under a key that no reader knows.
inline std::string without_checksums(std::string bytes) {
  const size_t key = bytes.find("\"crc32c\"");
  REQUIRE(key != std::string::npos);
  return bytes.replace(key, 8, "\"crc32x\"");
}

inline std::filesystem::path golden(const std::string& name) {
  return std::filesystem::path(TESSERA_SOURCE_DIR) / "tests" / "golden" / name;
}

}  // namespace tessera
