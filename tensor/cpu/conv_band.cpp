#include "tensor/cpu/conv_band.h"

#include <algorithm>
#include <cstring>

namespace tessera::cpu {

namespace {

template <class T>
void zero(T* p, int64_t count) {
  std::memset(static_cast<void*>(p), 0, static_cast<size_t>(count) * sizeof(T));
}
template <class T>
void copy(T* to, const T* from, int64_t count) {
  std::memcpy(static_cast<void*>(to), from, static_cast<size_t>(count) * sizeof(T));
}

// Pixels of so few channels that a call for each would take most of the time: those of photos.
template <int kChannels, class T>
void copy_narrow_pixels(const T* in, int64_t pitch, int64_t pixels, T* to) {
  constexpr int64_t kDepth = whole_sums<T>(kChannels);
  for (int64_t p = 0; p < pixels; ++p, in += pitch, to += kDepth) {
    for (int64_t c = 0; c < kDepth; ++c) to[c] = c < kChannels ? in[c] : T();
  }
}

}  // namespace

template <class T>
void copy_band(const ImageView& x, const BandWindow& window, int64_t depth, T* out, int64_t row_pitch) {
  const int64_t first = std::clamp<int64_t>(-window.column, 0, window.columns);         // first column inside the image
  const int64_t end = std::clamp<int64_t>(x.w - window.column, first, window.columns);  // first one behind it
  for (int64_t r = 0; r < window.rows; ++r, out += row_pitch) {
    const int64_t y = window.row + r;
    if (y < 0 || y >= x.h || first == end) {
      zero(out, window.columns * depth);
      continue;
    }
    zero(out, first * depth);
    zero(out + end * depth, (window.columns - end) * depth);
    const T* in = data<const T>(x) + ((window.n * x.h + y) * x.w + window.column + first) * x.pitch;
    T* to = out + first * depth;
    if (x.pitch == depth) {
      copy(to, in, (end - first) * depth);
      continue;
    }
    if (x.c == 3 && depth == whole_sums<T>(3)) {
      copy_narrow_pixels<3>(in, x.pitch, end - first, to);
      continue;
    }
    for (int64_t p = first; p < end; ++p, in += x.pitch, to += depth) {
      copy(to, in, x.c);
      if (depth > x.c) zero(to + x.c, depth - x.c);
    }
  }
}

template <class T>
Ahead ahead_of(const ImageView& x, int64_t pixel, int64_t pixels, int64_t channel, int64_t channels) {
  pixels = std::clamp<int64_t>(x.n * x.h * x.w - pixel, 0, pixels);
  constexpr auto kSize = static_cast<int64_t>(sizeof(T));
  const auto* p = reinterpret_cast<const char*>(data<const T>(x) + pixel * x.pitch + channel);
  if (x.pitch != channels) return {p, pixels, channels * kSize, x.pitch * kSize};
  return {p, (pixels * channels * kSize + kLineBytes - 1) / kLineBytes, kLineBytes, kLineBytes};  // dense: by cache lines
}

template void copy_band(const ImageView&, const BandWindow&, int64_t, float*, int64_t);
template void copy_band(const ImageView&, const BandWindow&, int64_t, BFloat16*, int64_t);
template Ahead ahead_of<float>(const ImageView&, int64_t, int64_t, int64_t, int64_t);
template Ahead ahead_of<BFloat16>(const ImageView&, int64_t, int64_t, int64_t, int64_t);

}  // namespace tessera::cpu
