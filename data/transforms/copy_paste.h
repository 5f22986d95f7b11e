// Pasting objects where they cover little of those that are there (spec 6.3): the image's own, mirrored, or another image's.
#pragma once

#include "data/instance.h"

namespace tessera {

// Candidates that cover less than 30 % of every object are eligible; the first round(share * eligible), half to even, by rising
// coverage (equal ones in order) are pasted: pixels under the filled polygon, box and polygon appended. An image without objects
// stays as it is. No random numbers.
void copy_paste_flip(LabeledImage& target, double share);
void copy_paste_from(LabeledImage& target, const LabeledImage& other, double share);  // of the same size

bool has_polygons(const std::vector<Instance>& instances);

}  // namespace tessera
