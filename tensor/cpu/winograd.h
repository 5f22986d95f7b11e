// 3x3 convolutions by Winograd's minimal filtering, in f32 whatever the images hold (the notes in winograd_tile.h): with stride 1 a
// quarter of the multiplications, for rounding errors five times as large; with stride 2 9 for 16, for those of the plain sum.
// Arguments as those of tensor/cpu/conv.h, which calls these where they are faster; --conv direct keeps to the plain sum.
#pragma once

#include "tensor/cpu/channel_moments.h"
#include "tensor/ops/conv.h"

namespace tessera::cpu {

// Whether filters of this shape and type have this form at all, for a gradient or where the image is large enough (below). Does not
// depend on anything that changes while a packed filter lives.
bool takes_winograd(ConvPass pass, const FilterView& w, const ConvParams& p);
// Whether one that is packed goes this way: not with stride 2, where few images do not repay four times the memory.
bool packs_winograd(const FilterView& w, const ConvParams& p);
// Whether the convolution with output y goes this way: it must repay the transform of a filter that was not packed.
bool repays_winograd(ConvPass pass, const FilterView& w, const ImageView& y, const ConvParams& p);

int64_t winograd_filter_size(const FilterView& w);  // elements of w's type
void winograd_pack_filter(const FilterView& w, void* packed);

// Of a convolution that repays_winograd(), or of a packed filter.
ConvScratch winograd_scratch(ConvPass pass, const ImageView& x, const FilterView& w, const ImageView& y, const ConvParams& p);

// Gathers the moments of y where they are not null.
void winograd_conv2d(const ImageView& x, const FilterView& w, const ImageView& y, const ConvParams& p, const ConvEpilogue& epilogue,
                     ChannelMoments* moments = nullptr);
void winograd_backward_data(const ImageView& dy, const FilterView& w, const ImageView& dx, const ConvParams& p, bool accumulate);
void winograd_backward_weight(const ImageView& x, const ImageView& dy, const FilterView& dw, const ConvParams& p, bool accumulate);

}  // namespace tessera::cpu
