// Mirroring (spec 6.8). The pixels are mirrored while they are copied out, see copy_flipped.
#pragma once

#include <vector>

#include "data/instance.h"

namespace tessera {

// x -> width - x (boxes: the centre only; width and height keep their bits).
void flip_horizontal(std::vector<Instance>& instances, int width);
void flip_vertical(std::vector<Instance>& instances, int height);

// Copies height x width RGB pixels, mirrored as asked, red and blue exchanged with `swap_channels`.
struct CopyOptions {
  bool horizontal = false, vertical = false, swap_channels = false;
};
void copy_flipped(const uint8_t* source, int height, int width, uint8_t* target, const CopyOptions& options);

}  // namespace tessera
