// 3x3 convolutions with stride 1 by Winograd's minimal filtering (Note [Winograd] in winograd_tile.h): a quarter of the
// multiplications, in f32 whatever the images hold, for rounding errors five times as large. Arguments as those of
// tensor/cpu/conv.h, which calls these where they are faster; --conv direct keeps to the plain sum.
#pragma once

#include "tensor/cpu/channel_moments.h"
#include "tensor/ops/conv.h"

namespace tessera::cpu {

// Whether a filter of this shape and type goes this way when it is packed, or when the image is large enough (below). Does not
// depend on anything that changes while a packed filter lives.
bool takes_winograd(const FilterView& w, const ConvParams& p);
// Whether `n` images of `h` x `w` outputs repay the transform of a filter that was not packed.
bool repays_winograd(int64_t n, int64_t h, int64_t w);

int64_t winograd_filter_size(const FilterView& w);  // elements of w's type
void winograd_pack_filter(const FilterView& w, void* packed);

// Of `y.n` images that repay_winograd(), or of a packed filter.
ConvScratch winograd_scratch(ConvPass pass, const ImageView& x, const FilterView& w, const ImageView& y);

// Gathers the moments of y where they are not null.
void winograd_conv2d(const ImageView& x, const FilterView& w, const ImageView& y, const ConvParams& p, const ConvEpilogue& epilogue,
                     ChannelMoments* moments = nullptr);
void winograd_backward_data(const ImageView& dy, const FilterView& w, const ImageView& dx, const ConvParams& p, bool accumulate);
void winograd_backward_weight(const ImageView& x, const ImageView& dy, const FilterView& dw, const ConvParams& p,
                              bool accumulate);

}  // namespace tessera::cpu
