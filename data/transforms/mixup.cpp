#include "data/transforms/mixup.h"

#include <iterator>

#include "tensor/base/check.h"

namespace tessera {

void mixup(LabeledImage& into, LabeledImage&& other, double r) {
  TESSERA_CHECK(into.image.height == other.image.height && into.image.width == other.image.width, "mixup: {}x{} and {}x{}",
                into.image.height, into.image.width, other.image.height, other.image.width);
  uint8_t* a = into.image.pixels.data();
  const uint8_t* b = other.image.pixels.data();
  const double s = 1 - r;
  for (size_t i = 0, n = into.image.pixels.size(); i < n; ++i) a[i] = uint8_t(a[i] * r + b[i] * s);
  into.instances.insert(into.instances.end(), std::make_move_iterator(other.instances.begin()),
                        std::make_move_iterator(other.instances.end()));
}

}  // namespace tessera
