// Pasting mirrored objects of the same picture where they cover little of the others (spec 6.3, flip mode).
#pragma once

#include "data/instance.h"

namespace tessera {

// Mirrored objects that cover less than 30 % of every object are eligible; the first round(share * eligible), half to even, by
// rising coverage (equal ones in order) are pasted: pixels under the filled polygon, box and polygon appended. No random numbers.
void copy_paste_flip(LabeledImage& picture, double share);

}  // namespace tessera
