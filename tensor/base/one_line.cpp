#include "tensor/base/one_line.h"

#include <cstdint>

namespace tessera {

std::string one_line(std::string text) {
  for (char& c : text) {
    if (uint8_t(c) < 0x20 || c == 0x7F) c = '?';
  }
  return text;
}

}  // namespace tessera
