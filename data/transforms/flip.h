// Mirroring (spec 6.8). Pixels are mirrored on their way into the sample (data/dataset.cpp), or on the device.
#pragma once

#include <vector>

#include "data/instance.h"

namespace tessera {

// What was drawn for one image; swap_channels: red and blue are exchanged.
struct FlipDraw {
  bool horizontal = false, vertical = false, swap_channels = false;
};

// x -> width - x (boxes: the centre only; width and height keep their bits).
void flip_horizontal(std::vector<Instance>& instances, int width);
void flip_vertical(std::vector<Instance>& instances, int height);

}  // namespace tessera
