// The filter gradient of a network's first layer, 3x3 on three channels. The tile of conv_weight_tile-inl.h has vectors of (kx, channel),
// of which nine numbers of a row of this filter fill little more than half; here they hold output channels instead.
#pragma once

#include <cstdint>

#include "tensor/ops/conv.h"

namespace tessera::cpu {

// f32, three channels side by side, any stride and padding.
bool is_stem(const ImageView& x, const FilterView& dw);

// Sums the output rows [begin, end), counted over all images, into `out`, which is laid out as dw.
void stem_weight_rows(const ImageView& x, const ImageView& dy, const FilterView& dw, const ConvParams& p, int64_t begin, int64_t end,
                      float* out, bool accumulate);

}  // namespace tessera::cpu
