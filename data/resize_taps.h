// What both resizes of 8-bit images take each output from (data/image.h for pixels, data/bit_resize.h for rows of bits): OpenCV's
// bilinear resize with weights of 2048 (spec 14.1).
#pragma once

#include <algorithm>
#include <cmath>

namespace tessera {

inline int tap_weight(float f) { return int(std::lrint(f * 2048.0f)); }  // half to even, as OpenCV's saturate_cast

// Calls take(output, i0, i1, fraction): the two source positions and the share of the second. Columns zero the fraction at the
// borders, rows clamp the two positions and keep it.
template <class Take>
void for_each_tap(int source, int target, bool columns, Take take) {
  const double scale = double(source) / target;
  for (int o = 0; o < target; ++o) {
    float f = float((o + 0.5) * scale - 0.5);
    int s = int(std::floor(f));
    f -= float(s);
    if (columns && s < 0) s = 0, f = 0;
    if (columns && s >= source - 1) s = source - 1, f = 0;
    take(o, std::clamp(s, 0, source - 1), std::clamp(s + 1, 0, source - 1), f);
  }
}

}  // namespace tessera
