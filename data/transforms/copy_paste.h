// Pasting objects where they cover little of those that are there (spec 6.3): the picture's own, mirrored, or another picture's.
#pragma once

#include "data/instance.h"

namespace tessera {

// Candidates that cover less than 30 % of every object are eligible; the first round(share * eligible), half to even, by rising
// coverage (equal ones in order) are pasted: pixels under the filled polygon, box and polygon appended. A picture without objects
// stays as it is. No random numbers.
void copy_paste_flip(LabeledImage& picture, double share);
void copy_paste_from(LabeledImage& picture, const LabeledImage& other, double share);  // of the same size

bool has_polygons(const std::vector<Instance>& instances);

}  // namespace tessera
