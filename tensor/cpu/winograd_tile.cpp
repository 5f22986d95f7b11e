// Note [Winograd] of winograd_tile.h, compiled once per CPU target.
#include "tensor/cpu/winograd_tile.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tensor/cpu/winograd_tile.cpp"
#include "tensor/cpu/highway.h"
// After highway.h, once per target:
#include "tensor/cpu/vec_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu::HWY_NAMESPACE {

// The points a and b with -a and -b. Their powers are exact.
constexpr float kA = 0.625f, kB = 1.5f;
constexpr float kA2 = kA * kA, kB2 = kB * kB;
constexpr float kSum2 = kA2 + kB2, kProduct2 = kA2 * kB2;
// Denominators of the rows of G: the product of the differences to the other points.
constexpr double kAtA = 2.0 * kA2 * (double(kA2) - kB2), kAtB = 2.0 * kB2 * (double(kB2) - kA2);

HWY_INLINE V times(float c, V v) { return hn::Mul(splat(c), v); }
HWY_INLINE V plus_times(V sum, float c, V v) { return hn::MulAdd(splat(c), v, sum); }
HWY_INLINE V minus_times(V sum, float c, V v) { return hn::NegMulAdd(splat(c), v, sum); }

// One axis of each transform; out and in may be the same elements of different arrays only.
struct InputTransform {  // B^T: 6 -> 6
  static constexpr int kFrom = 6, kTo = 6;
  static HWY_INLINE void apply(const V (&d)[6], V (&t)[6]) {
    const V even_a = minus_times(d[4], kB2, d[2]), odd_a = minus_times(times(kA, d[3]), kA * kB2, d[1]);
    const V even_b = minus_times(d[4], kA2, d[2]), odd_b = minus_times(times(kB, d[3]), kB * kA2, d[1]);
    t[0] = plus_times(minus_times(d[4], kSum2, d[2]), kProduct2, d[0]);
    t[1] = hn::Add(even_a, odd_a);
    t[2] = hn::Sub(even_a, odd_a);
    t[3] = hn::Add(even_b, odd_b);
    t[4] = hn::Sub(even_b, odd_b);
    t[5] = plus_times(minus_times(d[5], kSum2, d[3]), kProduct2, d[1]);
  }
};
struct OutputTransform {  // A^T: 6 -> 4
  static constexpr int kFrom = 6, kTo = 4;
  static HWY_INLINE void apply(const V (&m)[6], V (&y)[4]) {
    const V even_a = hn::Add(m[1], m[2]), odd_a = hn::Sub(m[1], m[2]);
    const V even_b = hn::Add(m[3], m[4]), odd_b = hn::Sub(m[3], m[4]);
    y[0] = hn::Add(m[0], hn::Add(even_a, even_b));
    y[1] = plus_times(times(kA, odd_a), kB, odd_b);
    y[2] = plus_times(times(kA2, even_a), kB2, even_b);
    y[3] = plus_times(plus_times(m[5], kA2 * kA, odd_a), kB2 * kB, odd_b);
  }
};
struct GradientTransform {  // A: 4 -> 6
  static constexpr int kFrom = 4, kTo = 6;
  static HWY_INLINE void apply(const V (&y)[4], V (&t)[6]) {
    const V even_a = plus_times(y[0], kA2, y[2]), odd_a = plus_times(y[1], kA2, y[3]);
    const V even_b = plus_times(y[0], kB2, y[2]), odd_b = plus_times(y[1], kB2, y[3]);
    t[0] = y[0];
    t[1] = plus_times(even_a, kA, odd_a);
    t[2] = minus_times(even_a, kA, odd_a);
    t[3] = plus_times(even_b, kB, odd_b);
    t[4] = minus_times(even_b, kB, odd_b);
    t[5] = y[3];
  }
};
struct FilterTransform {  // G: 3 -> 6
  static constexpr int kFrom = 3, kTo = 6;
  static HWY_INLINE void apply(const V (&g)[3], V (&t)[6]) {
    const V even_a = plus_times(times(float(1 / kAtA), g[0]), float(kA2 / kAtA), g[2]), odd_a = times(float(kA / kAtA), g[1]);
    const V even_b = plus_times(times(float(1 / kAtB), g[0]), float(kB2 / kAtB), g[2]), odd_b = times(float(kB / kAtB), g[1]);
    t[0] = times(float(1.0 / (double(kA2) * kB2)), g[0]);
    t[1] = hn::Add(even_a, odd_a);
    t[2] = hn::Sub(even_a, odd_a);
    t[3] = hn::Add(even_b, odd_b);
    t[4] = hn::Sub(even_b, odd_b);
    t[5] = g[2];
  }
};
struct FilterGradientTransform {  // G^T: 6 -> 3
  static constexpr int kFrom = 6, kTo = 3;
  static HWY_INLINE void apply(const V (&u)[6], V (&g)[3]) {
    const V even_a = hn::Add(u[1], u[2]), odd_a = hn::Sub(u[1], u[2]);
    const V even_b = hn::Add(u[3], u[4]), odd_b = hn::Sub(u[3], u[4]);
    g[0] = plus_times(plus_times(times(float(1.0 / (double(kA2) * kB2)), u[0]), float(1 / kAtA), even_a), float(1 / kAtB), even_b);
    g[1] = plus_times(times(float(kA / kAtA), odd_a), float(kB / kAtB), odd_b);
    g[2] = plus_times(plus_times(u[5], float(kA2 / kAtA), even_a), float(kB2 / kAtB), even_b);
  }
};

// Both axes: columns first, then rows. at(r, c) loads element (r, c), put(r, c, v) takes one of the result.
template <class Transform, class At, class Put>
HWY_INLINE void both_axes(const At& at, const Put& put) {
  V middle[Transform::kTo][Transform::kFrom];
#pragma GCC unroll 6
  for (int c = 0; c < Transform::kFrom; ++c) {
    V from[Transform::kFrom], to[Transform::kTo];
#pragma GCC unroll 6
    for (int r = 0; r < Transform::kFrom; ++r) from[r] = at(r, c);
    Transform::apply(from, to);
#pragma GCC unroll 6
    for (int r = 0; r < Transform::kTo; ++r) middle[r][c] = to[r];
  }
#pragma GCC unroll 6
  for (int r = 0; r < Transform::kTo; ++r) {
    V to[Transform::kTo];
    Transform::apply(middle[r], to);
#pragma GCC unroll 6
    for (int c = 0; c < Transform::kTo; ++c) put(r, c, to[c]);
  }
}

// Calls body(channel, count) for each vector of channels; count < kLanes for the last one alone.
template <class Body>
HWY_INLINE void each_vector(int64_t channels, const Body& body) {
  for (int64_t c = 0; c < channels; c += int64_t(kLanes)) body(c, std::min<int64_t>(channels - c, int64_t(kLanes)));
}

template <class T>
HWY_INLINE V load_first(const T* p, int64_t count) {
  if (count == int64_t(kLanes)) return load(p);
  return load(first(static_cast<size_t>(count)), static_cast<size_t>(count), p);
}
template <class T>
HWY_INLINE void store_first(V v, T* p, int64_t count) {
  if (count == int64_t(kLanes)) return store(v, p);
  store(first(static_cast<size_t>(count)), static_cast<size_t>(count), v, p);
}

// Of kSize rows, the columns that the tile to the right adds.
template <int kSize, int kForWriting, class T>
HWY_INLINE void fetch_right(const PixelBlock<T>& d, int64_t i) {
#pragma GCC unroll 1
  for (int r = 0; r < kSize; ++r) {
#pragma GCC unroll 4
    for (int c = kSize; c < kSize + 4; ++c) __builtin_prefetch(d.p + r * d.row + c * d.pixel + i, kForWriting);
  }
}

template <class T>
void input(PixelBlock<const T> d, int64_t channels, float* v, int64_t plane) {
  each_vector(channels, [=](int64_t i, int64_t count) HWY_ATTR {
    fetch_right<6, 0>(d, i);
    const auto run = [=](auto from) HWY_ATTR {
      both_axes<InputTransform>([=](int r, int c) HWY_ATTR { return from(d.p + r * d.row + c * d.pixel + i); },
                                [=](int r, int c, V t) HWY_ATTR { store(t, v + (r * 6 + c) * plane + i); });
    };
    if (count == int64_t(kLanes)) {
      run([](const T* p) HWY_ATTR { return load(p); });
    } else {
      run([=](const T* p) HWY_ATTR { return load_first(p, count); });
    }
  });
}

template <class T>
void gradient(PixelBlock<const T> dy, int64_t channels, float* v, int64_t plane) {
  each_vector(channels, [=](int64_t i, int64_t count) HWY_ATTR {
    fetch_right<4, 0>(dy, i);
    both_axes<GradientTransform>([=](int r, int c) HWY_ATTR { return load_first(dy.p + r * dy.row + c * dy.pixel + i, count); },
                                 [=](int r, int c, V t) HWY_ATTR { store(t, v + (r * 6 + c) * plane + i); });
  });
}

template <class T>
void output(const WinogradOutput<T>& job) {
  const bool as_it_is = !job.silu && !job.accumulate && !job.residual.p && !job.bias && job.rows == 4 && job.columns == 4;
  each_vector(job.channels, [&](int64_t i, int64_t count) HWY_ATTR {
    const float* m = job.m + i;
    const int64_t plane = job.plane;
    const PixelBlock<T> y{job.y.p + i, job.y.row, job.y.pixel};
    fetch_right<4, 1>(y, 0);
    const auto product = [=](int r, int c) HWY_ATTR { return load(m + (r * 6 + c) * plane); };
    if (as_it_is && count == int64_t(kLanes)) {
      both_axes<OutputTransform>(product, [=](int r, int c, V v) HWY_ATTR { store(v, y.p + r * y.row + c * y.pixel); });
      return;
    }
    HWY_ALIGN float tile[kWinogradTile * kWinogradTile * HWY_LANES(float)];
    const V bias = job.bias ? load(job.bias + i) : hn::Zero(F32());
    both_axes<OutputTransform>(product, [&](int r, int c, V v) HWY_ATTR { store(hn::Add(v, bias), tile + (r * 4 + c) * kLanes); });
    for (int64_t r = 0; r < job.rows; ++r) {
      T* to = y.p + r * y.row;
      const T* residual = job.residual.p ? job.residual.p + r * job.residual.row + i : nullptr;
      for (int64_t c = 0; c < job.columns; ++c, to += y.pixel) {
        V v = load(tile + (r * 4 + c) * int64_t(kLanes));
        if (job.silu) v = hn::Mul(v, sigmoid_for<T>(v));
        if (residual) v = hn::Add(v, load_first(residual + c * job.residual.pixel, count));
        if (job.accumulate) v = hn::Add(v, load_first(to, count));
        store_first(v, to, count);
      }
    }
  });
}

template <class T>
void filter(const T* g, int64_t tap_step, bool flipped, int64_t channels, float* u, int64_t plane) {
  each_vector(channels, [&](int64_t i, int64_t count) HWY_ATTR {
    both_axes<FilterTransform>(
        [&](int r, int c) HWY_ATTR {
          const int tap = r * 3 + c;
          return load_first(g + (flipped ? 8 - tap : tap) * tap_step + i, count);
        },
        [&](int r, int c, V t) HWY_ATTR { store(t, u + (r * 6 + c) * plane + i); });
  });
}

void filter_gradient(const float* u, int64_t plane, int64_t channels, float* dg, int64_t tap_step, bool accumulate) {
  each_vector(channels, [&](int64_t i, int64_t count) HWY_ATTR {
    both_axes<FilterGradientTransform>([&](int r, int c) HWY_ATTR { return load(u + (r * 6 + c) * plane + i); },
                                       [&](int r, int c, V v) HWY_ATTR {
                                         float* to = dg + (r * 3 + c) * tap_step + i;
                                         store_first(accumulate ? hn::Add(v, load_first(to, count)) : v, to, count);
                                       });
  });
}

WinogradKernels<float> f32_kernels() {
  return {int64_t(kLanes), input<float>, output<float>, gradient<float>, filter<float>, filter_gradient};
}
WinogradKernels<BFloat16> bf16_kernels() {
  return {int64_t(kLanes), input<BFloat16>, output<BFloat16>, gradient<BFloat16>, filter<BFloat16>, filter_gradient};
}

}  // namespace tessera::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera::cpu {

HWY_EXPORT(f32_kernels);
HWY_EXPORT(bf16_kernels);
template <>
WinogradKernels<float> winograd_kernels<float>() {
  return HWY_DYNAMIC_DISPATCH(f32_kernels)();
}
template <>
WinogradKernels<BFloat16> winograd_kernels<BFloat16>() {
  return HWY_DYNAMIC_DISPATCH(bf16_kernels)();
}

}  // namespace tessera::cpu
#endif
