// Where a tensor lives.
#pragma once

#include <cstdint>
#include <string>

namespace tessera {

struct Device {
  enum class Kind : uint8_t { kCpu, kCuda };
  Kind kind = Kind::kCpu;
  int index = 0;

  static Device cpu() { return {}; }
  static Device cuda(int index = 0) { return {Kind::kCuda, index}; }
  friend bool operator==(const Device&, const Device&) = default;
};

inline std::string to_string(Device d) { return d.kind == Device::Kind::kCpu ? "cpu" : "cuda:" + std::to_string(d.index); }

}  // namespace tessera
