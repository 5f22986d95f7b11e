#include "tensor/bilinear.h"

#include <algorithm>

#include "tensor/ops/detect_math.h"

namespace tessera {

namespace {

// The first output for which past() holds; it holds for all after it.
template <class Past>
int first_output(int out, Past past) {
  int low = 0, high = out;
  while (low < high) {
    const int middle = low + (high - low) / 2;
    if (past(middle)) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return low;
}

}  // namespace

void BilinearAxis::set(int in, int out, int begin, int end) {
  const size_t n = size_t(end - begin);
  i0.resize(n), i1.resize(n), w0.resize(n), w1.resize(n);
  for (int o = begin; o < end; ++o) {
    const size_t i = size_t(o - begin);
    const detect_math::Tap tap = detect_math::tap_of(o, in, out);
    i0[i] = tap.i0, i1[i] = tap.i1, w0[i] = tap.w0, w1[i] = tap.w1;
  }
}

std::pair<int, int> touched_outputs(int in, int out, int begin, int end) {
  const int first = first_output(out, [&](int o) { return detect_math::tap_of(o, in, out).i1 >= begin; });
  const int last = first_output(out, [&](int o) { return detect_math::tap_of(o, in, out).i0 >= end; });
  return {first, std::max(first, last)};
}

void enlarge(const float* cells, const PixelBox& rect, const BilinearAxis& ax, const BilinearAxis& ay, float threshold,
             uint32_t* words) {
  const int columns = ax.size(), cell_columns = rect.width();
  thread_local std::vector<float> wide;
  wide.resize(size_t(rect.height()) * size_t(columns));
  for (int y = 0; y < rect.height(); ++y) {
    const float* in = cells + size_t(y) * size_t(cell_columns);
    float* out = wide.data() + size_t(y) * size_t(columns);
    for (int x = 0; x < columns; ++x) {
      const size_t o = size_t(x);
      out[x] = ax.w0[o] * in[ax.i0[o] - rect.x0] + ax.w1[o] * in[ax.i1[o] - rect.x0];
    }
  }
  thread_local std::vector<uint8_t> line;
  line.resize(size_t(columns));
  uint8_t* const out = line.data();
  for (int y = 0; y < ay.size(); ++y) {
    const float* upper = wide.data() + size_t(ay.i0[size_t(y)] - rect.y0) * size_t(columns);
    const float* lower = wide.data() + size_t(ay.i1[size_t(y)] - rect.y0) * size_t(columns);
    const float w0 = ay.w0[size_t(y)], w1 = ay.w1[size_t(y)];
    for (int x = 0; x < columns; ++x) out[x] = w0 * upper[x] + w1 * lower[x] > threshold;
    pack_bits(out, columns, words + y * words_of_row(columns));
  }
}

}  // namespace tessera
