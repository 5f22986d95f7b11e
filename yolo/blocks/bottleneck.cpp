#include "yolo/blocks/bottleneck.h"

namespace tessera {

Bottleneck::Bottleneck(int64_t channels, bool shortcut)
    : cv1(channels, channels, 3), cv2(channels, channels, 3), shortcut_(shortcut) {
  child("cv1", cv1);
  child("cv2", cv2);
  cv1.feeds_convolution = true;
}

Variable Bottleneck::forward(const Variable& x, const Tensor& into) {
  return cv2.forward(cv1.forward(x), shortcut_ ? x : Variable{}, into);
}

std::string Bottleneck::summary() const { return fmt::format("{}{}", cv1.summary(), shortcut_ ? ", shortcut" : ""); }

}  // namespace tessera
