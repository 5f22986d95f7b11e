// Part of a plane of cells enlarged bilinearly without aligned corners (spec 14.3) and cut at a threshold: masks of detections and
// of labels, on the host.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "tensor/ops/detect.h"

namespace tessera {

// One axis: which cells and weights the outputs [begin, end) of `out` take from `in` cells.
class BilinearAxis {
 public:
  BilinearAxis() = default;
  BilinearAxis(int in, int out, int begin, int end) { set(in, out, begin, end); }
  void set(int in, int out, int begin, int end);

  int size() const { return int(i0.size()); }
  // Output begin + o = w0[o] * cell[i0[o]] + w1[o] * cell[i1[o]]; taps never decrease. Outputs from `out` on take the last cell.
  std::vector<int> i0, i1;
  std::vector<float> w0, w1;
};

// Outputs [first, last) of `out` that take something from the cells [begin, end) of `in`.
std::pair<int, int> touched_outputs(int in, int out, int begin, int end);

// cells: `rect` of the plane, row by row; it holds all that the axes take. words: axis_y.size() rows of axis_x.size() bits
// (tensor/bit_rows.h), 1 where the result is above the threshold. Horizontal first, once for each row of cells.
void enlarge(const float* cells, const PixelBox& rect, const BilinearAxis& axis_x, const BilinearAxis& axis_y, float threshold,
             uint32_t* words);

}  // namespace tessera
