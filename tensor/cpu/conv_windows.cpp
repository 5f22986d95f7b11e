#include "tensor/cpu/conv_windows.h"

#include "tensor/base/parallel.h"
#include "tensor/cpu/conv_band.h"

namespace tessera::cpu {

namespace {

constexpr int64_t kMostColumns = 3;  // four pixels of two vectors keep the multipliers busy
constexpr int64_t kMostColumnsOfWeights = 4;

}  // namespace

bool takes_windows(int64_t columns, int64_t taps) { return columns <= kMostColumns && taps > 1; }
bool weights_take_windows(int64_t columns, int64_t taps) { return columns <= kMostColumnsOfWeights && taps > 1; }

template <class T>
void copy_windows(const ImageView& x, const Windows& w, int64_t depth, T* out) {
  const int64_t run = w.kw * depth, size = w.kh * run;
  parallel_for(x.n * w.rows, 8, [&](int64_t first, int64_t last) {
    T* to = out + first * w.columns * size;
    for (int64_t at = first; at < last; ++at) {
      for (int64_t i = 0; i < w.columns; ++i, to += size) {
        const BandWindow window{at / w.rows, at % w.rows * w.stride + w.row, w.kh, i * w.stride + w.column, w.kw};
        copy_band(x, window, depth, to, run);
      }
    }
  });
}

template void copy_windows(const ImageView&, const Windows&, int64_t, float*);
template void copy_windows(const ImageView&, const Windows&, int64_t, BFloat16*);

}  // namespace tessera::cpu
