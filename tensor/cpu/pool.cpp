// Max pooling and 2x upsampling. Work is cut by rows of the written image; the channels of a pixel are the vectors.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tensor/cpu/pool.cpp"
#include <cstddef>
#include <cstring>
#include <vector>

#include "tensor/cpu/highway.h"
// After highway.h, once per target:
#include "tensor/cpu/kernels.h"
#include "tensor/cpu/rows-inl.h"
#include "tensor/ops/bilinear.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu {
namespace HWY_NAMESPACE {
namespace {

using I32 = hn::RebindToSigned<F32>;
using VI = hn::Vec<I32>;
using U8 = hn::Rebind<uint8_t, F32>;

template <class T>
T* pixel(const ImageView& v, int64_t n, int64_t y, int64_t x) {
  return data<T>(v) + ((n * v.h + y) * v.w + x) * v.pitch;
}

// Calls body(n, y) for each row of pixels of an image, in parallel.
template <class F>
void for_each_image_row(const ImageView& v, const F& body) {
  const int64_t grain = std::max<int64_t>(1, RowCut::kGrain / std::max<int64_t>(1, v.w * v.c));
  parallel_for(v.n * v.h, grain, [&](int64_t begin, int64_t end) HWY_ATTR {
    for (int64_t row = begin; row < end; ++row) body(row / v.h, row % v.h);
  });
}

// The part [begin, end) of a window that starts at `start` and lies inside [0, size).
struct Window {
  Window(int64_t start, int64_t kernel, int64_t size) : begin(std::max<int64_t>(start, 0)), end(std::min(start + kernel, size)) {}
  int64_t begin, end;
};

// Before AVX-512 there are no masked loads of bytes: the last, incomplete vector of a pixel goes through a buffer.
template <class Part>
HWY_INLINE VI load_index(Part, const uint8_t* p, size_t lanes) {
  if constexpr (std::is_same_v<Part, Whole>) {
    return hn::PromoteTo(I32(), hn::LoadU(U8(), p));
  } else {
    uint8_t buffer[kLanes] = {};
    std::memcpy(buffer, p, lanes);
    return hn::PromoteTo(I32(), hn::LoadU(U8(), buffer));
  }
}
template <class Part>
HWY_INLINE void store_index(Part, VI v, uint8_t* p, size_t lanes) {
  if constexpr (std::is_same_v<Part, Whole>) {
    hn::StoreU(hn::DemoteTo(U8(), v), U8(), p);
  } else {
    uint8_t buffer[kLanes];
    hn::StoreU(hn::DemoteTo(U8(), v), U8(), buffer);
    std::memcpy(p, buffer, lanes);
  }
}

// The first maximum in scan order wins: only a larger value replaces the best.
template <class T>
void pool_row_with_index(const ImageView& x, const ImageView& y, const ImageView& index, const PoolParams& p, int64_t n,
                         int64_t oy) {
  const int64_t top = oy * p.stride - p.pad;
  const Window rows(top, p.kernel, x.h);
  for (int64_t ox = 0; ox < y.w; ++ox) {
    const int64_t left = ox * p.stride - p.pad;
    const Window cols(left, p.kernel, x.w);
    T* out = pixel<T>(y, n, oy, ox);
    uint8_t* taps = pixel<uint8_t>(index, n, oy, ox);
    const auto channels = size_t(y.c);
    for_each_vector(channels, [&](size_t c, auto part) HWY_ATTR {
      V best = part.get(pixel<T>(x, n, rows.begin, cols.begin) + c);
      VI tap = hn::Set(I32(), int32_t((rows.begin - top) * p.kernel + cols.begin - left));
      for (int64_t iy = rows.begin; iy < rows.end; ++iy) {
        const T* in = pixel<T>(x, n, iy, cols.begin) + c;
        for (int64_t ix = cols.begin; ix < cols.end; ++ix, in += x.pitch) {
          const V v = part.get(in);
          const M larger = hn::Gt(v, best);
          best = hn::IfThenElse(larger, v, best);
          tap = hn::IfThenElse(hn::RebindMask(I32(), larger), hn::Set(I32(), int32_t((iy - top) * p.kernel + ix - left)), tap);
        }
      }
      part.put(best, out + c);
      store_index(part, tap, taps + c, channels - c);
    });
  }
}

// Down the columns into a scratch row, then along it: 2 k comparisons instead of k^2.
template <class T>
void pool_row(const ImageView& x, const ImageView& y, const PoolParams& p, int64_t n, int64_t oy) {
  thread_local std::vector<float> scratch;
  scratch.resize(size_t(x.w * x.c));
  const Window rows(oy * p.stride - p.pad, p.kernel, x.h);
  const auto channels = size_t(x.c);
  for (int64_t ix = 0; ix < x.w; ++ix) {
    for_each_vector(channels, [&](size_t c, auto part) HWY_ATTR {
      const T* in = pixel<T>(x, n, rows.begin, ix) + c;
      V best = part.get(in);
      for (int64_t iy = rows.begin + 1; iy < rows.end; ++iy) best = hn::Max(part.get(in += x.w * x.pitch), best);
      part.put(best, scratch.data() + size_t(ix) * channels + c);
    });
  }
  for (int64_t ox = 0; ox < y.w; ++ox) {
    const Window cols(ox * p.stride - p.pad, p.kernel, x.w);
    T* out = pixel<T>(y, n, oy, ox);
    for_each_vector(channels, [&](size_t c, auto part) HWY_ATTR {
      const float* in = scratch.data() + size_t(cols.begin) * channels + c;
      V best = part.get(in);
      for (int64_t ix = cols.begin + 1; ix < cols.end; ++ix) best = hn::Max(part.get(in += channels), best);
      part.put(best, out + c);
    });
  }
}

void MaxPool2d(ImageView x, ImageView y, ImageView index, const PoolParams& p) {
  with_element(x.t, [&](auto element) HWY_ATTR {
    using T = decltype(element);
    for_each_image_row(y, [&](int64_t n, int64_t oy) HWY_ATTR {
      if (index.p != nullptr) {
        pool_row_with_index<T>(x, y, index, p, n, oy);
      } else {
        pool_row<T>(x, y, p, n, oy);
      }
    });
  });
}

// Each input pixel asks the windows that cover it whether it was their maximum: no two threads write the same pixel.
template <class T>
void max_pool_backward(const ImageView& dy, const ImageView& index, const ImageView& dx, const PoolParams& p, bool accumulate) {
  for_each_image_row(dx, [&](int64_t n, int64_t iy) HWY_ATTR {
    // Windows o with o * stride <= i + pad < o * stride + kernel.
    const auto first_window = [&](int64_t i) { return std::max<int64_t>(0, (i + p.pad - p.kernel + p.stride) / p.stride); };
    const int64_t y_begin = first_window(iy), y_end = std::min(dy.h, (iy + p.pad) / p.stride + 1);
    const auto channels = size_t(dx.c);
    for (int64_t ix = 0; ix < dx.w; ++ix) {
      const int64_t x_begin = first_window(ix), x_end = std::min(dy.w, (ix + p.pad) / p.stride + 1);
      T* out = pixel<T>(dx, n, iy, ix);
      for_each_vector(channels, [&](size_t c, auto part) HWY_ATTR {
        V sum = accumulate ? part.get(out + c) : hn::Zero(F32());
        for (int64_t oy = y_begin; oy < y_end; ++oy) {
          const uint8_t* taps = pixel<uint8_t>(index, n, oy, x_begin) + c;
          const T* gradient = pixel<T>(dy, n, oy, x_begin) + c;
          VI tap = hn::Set(I32(), int32_t((iy + p.pad - oy * p.stride) * p.kernel + ix + p.pad - x_begin * p.stride));
          for (int64_t ox = x_begin; ox < x_end; ++ox, taps += index.pitch, gradient += dy.pitch) {
            const M chosen = hn::RebindMask(F32(), hn::Eq(load_index(part, taps, channels - c), tap));
            sum = hn::Add(sum, hn::IfThenElseZero(chosen, part.get(gradient)));
            tap = hn::Sub(tap, hn::Set(I32(), int32_t(p.stride)));
          }
        }
        part.put(sum, out + c);
      });
    }
  });
}

void MaxPool2dBackward(ImageView dy, ImageView index, ImageView dx, const PoolParams& p, bool accumulate) {
  with_element(dx.t, [&](auto element) HWY_ATTR { max_pool_backward<decltype(element)>(dy, index, dx, p, accumulate); });
}

template <class T>
void upsample_backward(const ImageView& dy, const ImageView& dx, bool accumulate) {
  for_each_image_row(dx, [&](int64_t n, int64_t iy) HWY_ATTR {
    for (int64_t ix = 0; ix < dx.w; ++ix) {
      const T* upper = pixel<T>(dy, n, 2 * iy, 2 * ix);
      const T* lower = pixel<T>(dy, n, 2 * iy + 1, 2 * ix);
      T* out = pixel<T>(dx, n, iy, ix);
      for_each_vector(size_t(dx.c), [&](size_t c, auto part) HWY_ATTR {
        const V top = hn::Add(part.get(upper + c), part.get(upper + dy.pitch + c));
        const V sum = hn::Add(top, hn::Add(part.get(lower + c), part.get(lower + dy.pitch + c)));
        part.put(accumulate ? hn::Add(part.get(out + c), sum) : sum, out + c);
      });
    }
  });
}

void Upsample2xBackward(ImageView dy, ImageView dx, bool accumulate) {
  with_element(dx.t, [&](auto element) HWY_ATTR { upsample_backward<decltype(element)>(dy, dx, accumulate); });
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace tessera::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera::cpu {

HWY_EXPORT(MaxPool2d);
HWY_EXPORT(MaxPool2dBackward);
HWY_EXPORT(Upsample2xBackward);

void max_pool2d(ImageView x, ImageView y, ImageView index, const PoolParams& p) { HWY_DYNAMIC_DISPATCH(MaxPool2d)(x, y, index, p); }
void max_pool2d_backward(ImageView dy, ImageView index, ImageView dx, const PoolParams& p, bool accumulate) {
  HWY_DYNAMIC_DISPATCH(MaxPool2dBackward)(dy, index, dx, p, accumulate);
}
void upsample2x_backward(ImageView dy, ImageView dx, bool accumulate) {
  HWY_DYNAMIC_DISPATCH(Upsample2xBackward)(dy, dx, accumulate);
}

void upsample2x(ImageView x, ImageView y) {
  const auto size = int64_t(size_of(x.t));
  const auto bytes = size_t(x.c * size);
  parallel_for(y.n * y.h, std::max<int64_t>(1, (1 << 15) / std::max<int64_t>(1, y.w * y.c)), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {  // row / 2 is the input row: the height of y is even
      const auto* in = data<std::byte>(x) + row / 2 * x.w * x.pitch * size;
      auto* out = data<std::byte>(y) + row * y.w * y.pitch * size;
      for (int64_t ix = 0; ix < x.w; ++ix, in += x.pitch * size, out += 2 * y.pitch * size) {
        std::memcpy(out, in, bytes);
        std::memcpy(out + y.pitch * size, in, bytes);
      }
    }
  });
}

// Two rows of x are blended once for each row of y, then columns of the result.
void resize_bilinear(ImageView x, ImageView y) {
  std::vector<Tap> columns;
  for (int64_t ox = 0; ox < y.w; ++ox) columns.push_back(tap_of(int(ox), int(x.w), int(y.w)));
  parallel_for(y.n * y.h, std::max<int64_t>(1, (1 << 14) / std::max<int64_t>(1, y.w * y.c)), [&](int64_t begin, int64_t end) {
    std::vector<float> blended(size_t(x.w * x.c));
    for (int64_t row = begin; row < end; ++row) {
      const int64_t n = row / y.h;
      const Tap v = tap_of(int(row % y.h), int(x.h), int(y.h));
      const float* upper = data<float>(x) + (n * x.h + v.i0) * x.w * x.pitch;
      const float* lower = data<float>(x) + (n * x.h + v.i1) * x.w * x.pitch;
      for (int64_t ix = 0; ix < x.w; ++ix, upper += x.pitch, lower += x.pitch) {
        for (int64_t c = 0; c < x.c; ++c) blended[size_t(ix * x.c + c)] = v.w0 * upper[c] + v.w1 * lower[c];
      }
      float* out = data<float>(y) + row * y.w * y.pitch;
      for (int64_t ox = 0; ox < y.w; ++ox, out += y.pitch) {
        const Tap& h = columns[size_t(ox)];
        const float *left = blended.data() + h.i0 * x.c, *right = blended.data() + h.i1 * x.c;
        for (int64_t c = 0; c < x.c; ++c) out[c] = h.w0 * left[c] + h.w1 * right[c];
      }
    }
  });
}

}  // namespace tessera::cpu
#endif
