// Blending of two images (spec 6.4).
#pragma once

#include "data/instance.h"

namespace tessera {

// into = trunc(into * r + other * (1 - r)); the instances of both. Sizes must be equal.
void mixup(LabeledImage& into, LabeledImage&& other, double r);

}  // namespace tessera
