// The kernel of tensor/augment.h.
#pragma once

#include "tensor/augment.h"

namespace tessera::cuda {

void augment(const AugmentItem* items, const uint8_t* tiles, ImageView images);

}  // namespace tessera::cuda
