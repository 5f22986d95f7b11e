#include <algorithm>

#include "tensor/ops/bilinear.h"
#include "tensor/ref/element.h"
#include "tensor/ref/ref_backend.h"

namespace tessera {

void RefBackend::max_pool2d(ImageView x, ImageView y, ImageView index, const PoolParams& p) {
  ref::for_floating(x.t, [&]<class T>() {
    for (int64_t n = 0; n < y.n; ++n) {
      for (int64_t oy = 0; oy < y.h; ++oy) {
        for (int64_t ox = 0; ox < y.w; ++ox) {
          const int64_t top = oy * p.stride - p.pad;
          const int64_t left = ox * p.stride - p.pad;
          for (int64_t c = 0; c < y.c; ++c) {
            const T* best = nullptr;
            int64_t best_tap = 0;
            for (int64_t iy = std::max<int64_t>(top, 0); iy < std::min(top + p.kernel, x.h); ++iy) {
              for (int64_t ix = std::max<int64_t>(left, 0); ix < std::min(left + p.kernel, x.w); ++ix) {
                const T* candidate = ref::pixel<T>(x, n, iy, ix) + c;
                if (best != nullptr && !(ref::load(*candidate) > ref::load(*best))) continue;
                best = candidate;
                best_tap = (iy - top) * p.kernel + ix - left;
              }
            }
            ref::pixel<T>(y, n, oy, ox)[c] = *best;
            if (index.p) ref::pixel<uint8_t>(index, n, oy, ox)[c] = uint8_t(best_tap);
          }
        }
      }
    }
  });
}

// Each input pixel asks the windows that cover it whether it was their maximum.
void RefBackend::max_pool2d_backward(ImageView dy, ImageView index, ImageView dx, const PoolParams& p, bool accumulate) {
  ref::for_floating(dy.t, [&]<class T>() {
    for (int64_t n = 0; n < dx.n; ++n) {
      for (int64_t iy = 0; iy < dx.h; ++iy) {
        for (int64_t ix = 0; ix < dx.w; ++ix) {
          for (int64_t c = 0; c < dx.c; ++c) {
            double sum = 0;
            for (int64_t ky = 0; ky < p.kernel; ++ky) {
              for (int64_t kx = 0; kx < p.kernel; ++kx) {
                const int64_t sy = iy + p.pad - ky;
                const int64_t sx = ix + p.pad - kx;
                if (sy < 0 || sx < 0 || sy % p.stride != 0 || sx % p.stride != 0) continue;
                const int64_t oy = sy / p.stride;
                const int64_t ox = sx / p.stride;
                if (oy >= dy.h || ox >= dy.w) continue;
                if (ref::pixel<uint8_t>(index, n, oy, ox)[c] == ky * p.kernel + kx)
                  sum += ref::load(ref::pixel<T>(dy, n, oy, ox)[c]);
              }
            }
            ref::put(ref::pixel<T>(dx, n, iy, ix)[c], sum, accumulate);
          }
        }
      }
    }
  });
}

void RefBackend::upsample2x(ImageView x, ImageView y) {
  ref::for_floating(x.t, [&]<class T>() {
    for (int64_t n = 0; n < y.n; ++n) {
      for (int64_t oy = 0; oy < y.h; ++oy) {
        for (int64_t ox = 0; ox < y.w; ++ox) {
          const T* in = ref::pixel<T>(x, n, oy / 2, ox / 2);
          std::copy(in, in + x.c, ref::pixel<T>(y, n, oy, ox));
        }
      }
    }
  });
}

void RefBackend::upsample2x_backward(ImageView dy, ImageView dx, bool accumulate) {
  ref::for_floating(dy.t, [&]<class T>() {
    for (int64_t n = 0; n < dx.n; ++n) {
      for (int64_t iy = 0; iy < dx.h; ++iy) {
        for (int64_t ix = 0; ix < dx.w; ++ix) {
          for (int64_t c = 0; c < dx.c; ++c) {
            double sum = 0;
            for (int64_t a = 0; a < 2; ++a) {
              for (int64_t b = 0; b < 2; ++b) sum += ref::load(ref::pixel<T>(dy, n, 2 * iy + a, 2 * ix + b)[c]);
            }
            ref::put(ref::pixel<T>(dx, n, iy, ix)[c], sum, accumulate);
          }
        }
      }
    }
  });
}

void RefBackend::resize_bilinear(ImageView x, ImageView y) {
  ref::for_floating(x.t, [&]<class T>() {
    for (int64_t n = 0; n < y.n; ++n) {
      for (int64_t oy = 0; oy < y.h; ++oy) {
        const Tap v = tap_of(int(oy), int(x.h), int(y.h));
        for (int64_t ox = 0; ox < y.w; ++ox) {
          const Tap h = tap_of(int(ox), int(x.w), int(y.w));
          for (int64_t c = 0; c < y.c; ++c) {
            const auto at = [&](int iy, int ix) { return double(ref::load(ref::pixel<T>(x, n, iy, ix)[c])); };
            const double upper = double(h.w0) * at(v.i0, h.i0) + double(h.w1) * at(v.i0, h.i1);
            const double lower = double(h.w0) * at(v.i1, h.i0) + double(h.w1) * at(v.i1, h.i1);
            ref::put(ref::pixel<T>(y, n, oy, ox)[c], double(v.w0) * upper + double(v.w1) * lower, false);
          }
        }
      }
    }
  });
}

}  // namespace tessera
