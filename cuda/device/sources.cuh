// Where the panels of a tiled matrix product come from (cuda/device/tile.cuh): a matrix, the pixels of an image under the taps of a
// filter, a filter. next(f) calls f(i, address, whether there is anything) for each of the thread's packs of the next kDepth values
// of k. fetch() reads them into registers, zeros where there is nothing, and put() stores them; copy() sends them to a panel.
#pragma once

#include "cuda/device/tile.cuh"
#include "cuda/device/views.cuh"

namespace tessera::cuda {

// How the threads of a block share a panel. They read along what is adjacent in memory, k or the width: kAcross threads side by
// side with N elements each make a line, and the block reads kAtOnce lines at once, kCount times.
template <class T, int N, int kWidth, int kDepth, bool kAlongK>
struct Staging {
  static constexpr unsigned kAcross = (kAlongK ? kDepth : kWidth) / N;
  static constexpr int kAtOnce = int(kTileThreads / kAcross);
  static constexpr int kLines = kAlongK ? kWidth : kDepth;
  static constexpr int kCount = kLines > kAtOnce ? kLines / kAtOnce : 1;
  static constexpr int kPack = N;

  Packed<T, N> pack[kCount];

  static __device__ int across() { return int(threadIdx.x % kAcross) * N; }
  static __device__ int line(int i) { return int(threadIdx.x / kAcross) + i * kAtOnce; }
  static __device__ bool has(int i) { return kLines >= kAtOnce || line(i) < kLines; }

  template <class Panel>
  static __device__ auto* place(Panel& panel, int i) {
    return panel.place(kAlongK ? across() : line(i), kAlongK ? line(i) : across());
  }
  template <class Panel>
  __device__ void put(Panel& panel) const {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      if (!has(i)) continue;
      panel.template put<kAlongK>(kAlongK ? across() : line(i), kAlongK ? line(i) : across(), pack[i]);
    }
  }
};

template <class Source>
__device__ void fetch(Source& source) {
  source.next([&](int i, const auto* from, bool inside) {
    source.pack[i] = inside ? load_raw<Source::kPack>(from) : decltype(load_raw<Source::kPack>(from)){};
  });
}

template <class Source, class Panel>
__device__ void copy(Source& source, Panel& panel) {
  source.next([&](int i, const auto* from, bool inside) {
    if (Source::has(i)) copy_ahead(source.place(panel, i), from, inside);
  });
}

// p[position * step + k * k_step] for `positions` of the width and k up to `k_end`. N > 1: the step along the lines is 1.
template <class T, int N, int kWidth, int kDepth, bool kAlongK>
struct MatrixSource : Staging<T, N, kWidth, kDepth, kAlongK> {
  const T* p;
  int64_t step, k_step;
  int positions, k, k_end;

  __device__ MatrixSource(const T* p_, int64_t step_, int64_t k_step_, int positions_, int k_begin, int k_end_)
      : p(p_), step(step_), k_step(k_step_), positions(positions_), k(k_begin), k_end(k_end_) {}

  template <class F>
  __device__ void next(F&& f) {
#pragma unroll
    for (int i = 0; i < this->kCount; ++i) {
      const int at = kAlongK ? this->line(i) : this->across();
      const int here = k + (kAlongK ? this->across() : this->line(i));
      f(i, p + at * step + here * k_step, at < positions && here < k_end);
    }
    k += kDepth;
  }
};

// A place in k = (tap, channel), channels innermost. Steps are small, so that a loop is cheaper than a division.
struct TapWalk {
  int c, x, y;
  __device__ TapWalk(int k, int channels, int taps_x) : c(0), x(0), y(0) { advance(k, channels, taps_x); }
  __device__ void advance(int by, int channels, int taps_x) {
    c += by;
    while (c >= channels) {
      c -= channels;
      if (++x == taps_x) {
        x = 0;
        ++y;
      }
    }
  }
};

// How the rows of a product, the pixels (n, a, b) of a plane, and the taps (i, j) of a filter meet an image:
//   y = a * step + i * tap_step + y0,   x = b * step + j * tap_step + x0,   zero outside.
// Tap (i, j) is (first_ky + i * tap_stride, first_kx + j * tap_stride) of the filter.
struct Window {
  int h, w;  // of the plane
  int step, tap_step, y0, x0;
  int taps_y, taps_x;
  int first_ky, first_kx, tap_stride;
};

// A[row, k]: the pixels under a window, k = (tap, channel); channels are adjacent. Each thread has one place in k and kCount rows.
template <class T, int N, int kWidth, int kDepth>
struct WindowSource : Staging<T, N, kWidth, kDepth, true> {
  using Base = Staging<T, N, kWidth, kDepth, true>;
  const Images<const T>& image;
  const Window& window;
  TapWalk walk;
  int pixel[Base::kCount], y[Base::kCount], x[Base::kCount];  // of each row: where tap (0, 0) reads, in all images and in its own

  __device__ WindowSource(const Images<const T>& image_, const Window& window_, int first_row, int rows)
      : image(image_), window(window_), walk(Base::across(), image_.c, window_.taps_x) {
#pragma unroll
    for (int i = 0; i < Base::kCount; ++i) {
      const int row = first_row + Base::line(i);
      const int line = row / window.w;
      const int n = line / window.h;
      y[i] = (line - n * window.h) * window.step + window.y0;
      x[i] = (row - line * window.w) * window.step + window.x0;
      pixel[i] = (n * image.h + y[i]) * image.w + x[i];
      if (row >= rows) y[i] = -(1 << 30);  // never inside
    }
  }

  template <class F>
  __device__ void next(F&& f) {
    const bool tap = walk.y < window.taps_y;
    const int down = walk.y * window.tap_step;
    const int right = walk.x * window.tap_step;
#pragma unroll
    for (int i = 0; i < Base::kCount; ++i) {
      const bool inside = tap && unsigned(y[i] + down) < unsigned(image.h) && unsigned(x[i] + right) < unsigned(image.w);
      f(i, image.pixel(pixel[i] + down * image.w + right) + walk.c, inside);
    }
    walk.advance(kDepth, image.c, window.taps_x);
  }
};

// B[k, column] = w[o, tap, column] with k = (tap, o): the filter turned around, for gradients. Columns are adjacent.
template <class T, int N, int kWidth, int kDepth>
struct TurnedFilterSource : Staging<T, N, kWidth, kDepth, false> {
  using Base = Staging<T, N, kWidth, kDepth, false>;
  const Filters<const T>& w;
  const Window& window;
  TapWalk walk;  // of line 0; the others are a few outputs further
  int column;

  __device__ TurnedFilterSource(const Filters<const T>& w_, const Window& window_, int first_column)
      : w(w_), window(window_), walk(Base::line(0), w_.o, window_.taps_x), column(first_column + Base::across()) {}

  template <class F>
  __device__ void next(F&& f) {
    TapWalk at = walk;
#pragma unroll
    for (int i = 0; i < Base::kCount; ++i) {
      const int ky = window.first_ky + at.y * window.tap_stride;
      const int kx = window.first_kx + at.x * window.tap_stride;
      f(i, w.tap(at.c, ky, kx) + column, Base::has(i) && at.y < window.taps_y && column < w.i);
      at.advance(Base::kAtOnce, w.o, window.taps_x);
    }
    walk.advance(kDepth, w.o, window.taps_x);
  }
};

// B[k, column] = image[n, a * stride + ky - pad, b * stride + kx - pad, c] with k the pixel (n, a, b) of a plane, column =
// (ky, kx, c); channels are adjacent. Each thread has one column (N of them) and kCount pixels, which it walks along the plane.
template <class T, int N, int kWidth, int kDepth>
struct TapSource : Staging<T, N, kWidth, kDepth, false> {
  using Base = Staging<T, N, kWidth, kDepth, false>;
  const Images<const T>& image;
  int h, w, stride;  // of the plane
  int y0, x0, c;     // of the column: ky - pad, kx - pad; the channel, -1 past the last column
  int k, k_end;      // pixel of line 0
  int n[Base::kCount], a[Base::kCount], b[Base::kCount];

  __device__ TapSource(const Images<const T>& image_, int h_, int w_, int stride_, int pad, int kh, int kw, int first_column,
                       int k_begin, int k_end_)
      : image(image_), h(h_), w(w_), stride(stride_), k(k_begin + Base::line(0)), k_end(k_end_) {
    const int column = first_column + Base::across();
    const int tap = column / image.c;
    c = tap < kh * kw ? column - tap * image.c : -1;
    y0 = tap / kw - pad;
    x0 = tap % kw - pad;
#pragma unroll
    for (int i = 0; i < Base::kCount; ++i) {
      const int pixel = k + i * Base::kAtOnce;
      const int line = pixel / w;
      b[i] = pixel - line * w;
      n[i] = line / h;
      a[i] = line - n[i] * h;
    }
  }

  template <class F>
  __device__ void next(F&& f) {
#pragma unroll
    for (int i = 0; i < Base::kCount; ++i) {
      const int y = a[i] * stride + y0;
      const int x = b[i] * stride + x0;
      const bool inside = Base::has(i) && c >= 0 && k + i * Base::kAtOnce < k_end && unsigned(y) < unsigned(image.h) &&
                          unsigned(x) < unsigned(image.w);
      f(i, image.pixel(n[i], y, x) + c, inside);
      b[i] += kDepth;
      while (b[i] >= w) {
        b[i] -= w;
        if (++a[i] == h) {
          a[i] = 0;
          ++n[i];
        }
      }
    }
    k += kDepth;
  }
};

}  // namespace tessera::cuda
