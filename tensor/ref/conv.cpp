#include <vector>

#include "tensor/ops/pointwise_functors.h"
#include "tensor/ref/element.h"
#include "tensor/ref/ref_backend.h"

namespace tessera {

namespace {
// The filter's channel vector for output o at (ky, kx).
template <class T>
T* tap(const FilterView& w, int64_t o, int64_t ky, int64_t kx) {
  return data<T>(w) + ((o * w.kh + ky) * w.kw + kx) * w.i;
}

template <class T>
double dot(const T* a, const T* b, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += ref::load(a[i]) * ref::load(b[i]);
  return sum;
}

// The output position whose window has input position `in` at tap k; -1: none.
int64_t output_at(int64_t in, int64_t k, int64_t outputs, const ConvParams& p) {
  const int64_t shifted = in + p.pad - k;
  if (shifted < 0 || shifted % p.stride != 0) return -1;
  const int64_t out = shifted / p.stride;
  return out < outputs ? out : -1;
}

template <class F>
void for_each_pixel(const ImageView& v, F&& f) {
  for (int64_t n = 0; n < v.n; ++n) {
    for (int64_t y = 0; y < v.h; ++y) {
      for (int64_t x = 0; x < v.w; ++x) f(n, y, x);
    }
  }
}

template <class F>
void for_each_tap(const FilterView& w, F&& f) {
  for (int64_t ky = 0; ky < w.kh; ++ky) {
    for (int64_t kx = 0; kx < w.kw; ++kx) f(ky, kx);
  }
}

bool inside(const ImageView& v, int64_t y, int64_t x) { return y >= 0 && y < v.h && x >= 0 && x < v.w; }

// sums += factor * values
template <class T>
void add_to(std::vector<double>& sums, double factor, const T* values) {
  for (size_t i = 0; i < sums.size(); ++i) sums[i] += factor * ref::load(values[i]);
}

template <class T>
void put_all(T* out, const std::vector<double>& sums, bool accumulate) {
  for (size_t i = 0; i < sums.size(); ++i) ref::put(out[i], sums[i], accumulate);
}
}  // namespace

void RefBackend::conv2d(ImageView x, FilterView w, ImageView y, const ConvParams& p, const ConvEpilogue& epilogue) {
  ref::for_floating(x.t, [&]<class T>() {
    for_each_pixel(y, [&](int64_t n, int64_t oy, int64_t ox) {
      for (int64_t o = 0; o < w.o; ++o) {
        double sum = epilogue.bias ? double(static_cast<const ref::Wide<T>*>(epilogue.bias)[o]) : 0.0;
        for_each_tap(w, [&](int64_t ky, int64_t kx) {
          const int64_t iy = oy * p.stride + ky - p.pad;
          const int64_t ix = ox * p.stride + kx - p.pad;
          if (inside(x, iy, ix)) sum += dot(ref::pixel<T>(x, n, iy, ix), tap<T>(w, o, ky, kx), w.i);
        });
        if (epilogue.activation == Activation::kSilu) sum = functors::Silu::f(sum);
        if (epilogue.residual.p) sum += ref::load(ref::pixel<T>(epilogue.residual, n, oy, ox)[o]);
        ref::pixel<T>(y, n, oy, ox)[o] = ref::rounded<T>(sum);
      }
    });
  });
}

void RefBackend::conv2d_backward_data(ImageView dy, FilterView w, ImageView dx, const ConvParams& p, bool accumulate) {
  ref::for_floating(dy.t, [&]<class T>() {
    std::vector<double> sums(size_t(w.i));
    for_each_pixel(dx, [&](int64_t n, int64_t iy, int64_t ix) {
      sums.assign(sums.size(), 0.0);
      for_each_tap(w, [&](int64_t ky, int64_t kx) {
        const int64_t oy = output_at(iy, ky, dy.h, p);
        const int64_t ox = output_at(ix, kx, dy.w, p);
        if (oy < 0 || ox < 0) return;
        for (int64_t o = 0; o < w.o; ++o) add_to(sums, ref::load(ref::pixel<T>(dy, n, oy, ox)[o]), tap<T>(w, o, ky, kx));
      });
      put_all(ref::pixel<T>(dx, n, iy, ix), sums, accumulate);
    });
  });
}

void RefBackend::conv2d_backward_weight(ImageView x, ImageView dy, FilterView dw, const ConvParams& p, bool accumulate) {
  ref::for_floating(x.t, [&]<class T>() {
    std::vector<double> sums(size_t(dw.i));
    for (int64_t o = 0; o < dw.o; ++o) {
      for_each_tap(dw, [&](int64_t ky, int64_t kx) {
        sums.assign(sums.size(), 0.0);
        for_each_pixel(dy, [&](int64_t n, int64_t oy, int64_t ox) {
          const int64_t iy = oy * p.stride + ky - p.pad;
          const int64_t ix = ox * p.stride + kx - p.pad;
          if (inside(x, iy, ix)) add_to(sums, ref::load(ref::pixel<T>(dy, n, oy, ox)[o]), ref::pixel<T>(x, n, iy, ix));
        });
        put_all(tap<ref::Wide<T>>(dw, o, ky, kx), sums, accumulate);
      });
    }
  });
}

void RefBackend::bias_backward(RowsView dy, void* dbias, bool accumulate) {
  ref::for_floating(dy.t, [&]<class T>() {
    std::vector<double> sums(size_t(dy.cols), 0.0);
    for (int64_t r = 0; r < dy.rows; ++r) add_to(sums, 1.0, ref::row<T>(dy, r));
    put_all(static_cast<ref::Wide<T>*>(dbias), sums, accumulate);
  });
}

// Kernel = stride: every output pixel has exactly one input pixel and one tap.
void RefBackend::conv_transpose2x2(ImageView x, FilterView w, ImageView y, const void* bias) {
  ref::for_floating(x.t, [&]<class T>() {
    for_each_pixel(y, [&](int64_t n, int64_t oy, int64_t ox) {
      const T* in = ref::pixel<T>(x, n, oy / 2, ox / 2);
      for (int64_t o = 0; o < w.o; ++o) {
        const double start = bias ? double(static_cast<const ref::Wide<T>*>(bias)[o]) : 0.0;
        ref::pixel<T>(y, n, oy, ox)[o] = ref::rounded<T>(start + dot(in, tap<T>(w, o, oy % 2, ox % 2), w.i));
      }
    });
  });
}

void RefBackend::conv_transpose2x2_backward_data(ImageView dy, FilterView w, ImageView dx, bool accumulate) {
  ref::for_floating(dy.t, [&]<class T>() {
    std::vector<double> sums(size_t(w.i));
    for_each_pixel(dx, [&](int64_t n, int64_t iy, int64_t ix) {
      sums.assign(sums.size(), 0.0);
      for_each_tap(w, [&](int64_t a, int64_t b) {
        const T* gradient = ref::pixel<T>(dy, n, 2 * iy + a, 2 * ix + b);
        for (int64_t o = 0; o < w.o; ++o) add_to(sums, ref::load(gradient[o]), tap<T>(w, o, a, b));
      });
      put_all(ref::pixel<T>(dx, n, iy, ix), sums, accumulate);
    });
  });
}

void RefBackend::conv_transpose2x2_backward_weight(ImageView x, ImageView dy, FilterView dw, bool accumulate) {
  ref::for_floating(x.t, [&]<class T>() {
    std::vector<double> sums(size_t(dw.i));
    for (int64_t o = 0; o < dw.o; ++o) {
      for_each_tap(dw, [&](int64_t a, int64_t b) {
        sums.assign(sums.size(), 0.0);
        for_each_pixel(x, [&](int64_t n, int64_t iy, int64_t ix) {
          add_to(sums, ref::load(ref::pixel<T>(dy, n, 2 * iy + a, 2 * ix + b)[o]), ref::pixel<T>(x, n, iy, ix));
        });
        put_all(tap<ref::Wide<T>>(dw, o, a, b), sums, accumulate);
      });
    }
  });
}

}  // namespace tessera
