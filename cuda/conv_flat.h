// The convolution of 3x3, stride 1, pad 1 out of patches (cuda/device/conv_flat.cuh), and its gradient by the data.
#pragma once

#include "cuda/conv.h"

namespace tessera::cuda::flat {

// Whether it takes anything; for tests and measurements.
bool enabled();
void set_enabled(bool on);

// x * w into y, or, turned, the gradient y of the input from that of the output, x. False, and nothing done: not for this type or
// shape. Of devices it asks for sm_90.
bool conv3x3(const ImageView& x, const FilterView& w, const ImageView& y, bool turned, const ConvEpilogue& epilogue);

}  // namespace tessera::cuda::flat
