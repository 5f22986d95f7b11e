#include "tensor/cpu/conv_band.h"

#include <algorithm>
#include <cstring>

namespace tessera::cpu {

namespace {

void zero(float* p, int64_t floats) { std::memset(p, 0, static_cast<size_t>(floats) * sizeof(float)); }
void copy(float* to, const float* from, int64_t floats) { std::memcpy(to, from, static_cast<size_t>(floats) * sizeof(float)); }

}  // namespace

void copy_band(const ImageView& x, const BandWindow& window, float* out, int64_t row_pitch) {
  const int64_t c = x.c;
  const int64_t first = std::clamp<int64_t>(-window.column, 0, window.columns);         // first column inside the image
  const int64_t end = std::clamp<int64_t>(x.w - window.column, first, window.columns);  // first one behind it
  for (int64_t r = 0; r < window.rows; ++r, out += row_pitch) {
    const int64_t y = window.row + r;
    if (y < 0 || y >= x.h || first == end) {
      zero(out, window.columns * c);
      continue;
    }
    zero(out, first * c);
    zero(out + end * c, (window.columns - end) * c);
    const float* in = data<const float>(x) + ((window.n * x.h + y) * x.w + window.column + first) * x.pitch;
    float* to = out + first * c;
    if (x.pitch == c) {
      copy(to, in, (end - first) * c);
    } else {
      for (int64_t p = first; p < end; ++p, in += x.pitch, to += c) copy(to, in, c);
    }
  }
}

Ahead ahead_of(const ImageView& x, int64_t pixel, int64_t pixels, int64_t channel, int64_t channels) {
  pixels = std::clamp<int64_t>(x.n * x.h * x.w - pixel, 0, pixels);
  const float* p = data<const float>(x) + pixel * x.pitch + channel;
  if (x.pitch != channels) return {p, pixels, channels, x.pitch};
  constexpr int64_t kLine = 16;  // dense: by cache lines, however few channels there are
  return {p, (pixels * channels + kLine - 1) / kLine, kLine, kLine};
}

}  // namespace tessera::cpu
