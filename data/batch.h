// Samples of one size joined into a Batch.
#pragma once

#include <vector>

#include "data/sample.h"

namespace tessera {

// Images become u8 (N, H, W, 3), plans of images a list of tiles; targets follow image by image; masks i32 (N, mh, mw) in overlap
// form, (targets, mh, mw) in separate form. All samples must agree in size, mask size and form, and all have pixels or all a plan,
// and there must be at least one. `images`: the pixels of all samples if they have been written in place; the samples have none
// then.
Batch collate(std::vector<Sample>&& samples, Tensor images = {});

}  // namespace tessera
