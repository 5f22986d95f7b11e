// Note [Winograd] and Note [Winograd, stride 2] of winograd_tile.h, compiled once per CPU target.
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

// One axis of each transform; of the second axis element c goes as element kept(c) into the transform, and as it is to copied(c);
// or not: -1. The first kGiven elements of the result come from the transform.
template <int kElements, int kResults>
struct Whole {
  static constexpr int kFrom = kElements, kTo = kResults, kKept = kFrom, kGiven = kTo;
  static constexpr int kept(int c) { return c; }
  static constexpr int copied(int) { return -1; }
};

// Stride 1:
struct InputTransform : Whole<6, 6> {  // B^T: 6 -> 6
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
struct OutputTransform : Whole<6, 4> {  // A^T: 6 -> 4
  static HWY_INLINE void apply(const V (&m)[6], V (&y)[4]) {
    const V even_a = hn::Add(m[1], m[2]), odd_a = hn::Sub(m[1], m[2]);
    const V even_b = hn::Add(m[3], m[4]), odd_b = hn::Sub(m[3], m[4]);
    y[0] = hn::Add(m[0], hn::Add(even_a, even_b));
    y[1] = plus_times(times(kA, odd_a), kB, odd_b);
    y[2] = plus_times(times(kA2, even_a), kB2, even_b);
    y[3] = plus_times(plus_times(m[5], kA2 * kA, odd_a), kB2 * kB, odd_b);
  }
};
struct GradientTransform : Whole<4, 6> {  // A: 4 -> 6
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
struct FilterTransform : Whole<3, 6> {  // G: 3 -> 6
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
struct FilterGradientTransform : Whole<6, 3> {  // G^T: 6 -> 3
  static HWY_INLINE void apply(const V (&u)[6], V (&g)[3]) {
    const V even_a = hn::Add(u[1], u[2]), odd_a = hn::Sub(u[1], u[2]);
    const V even_b = hn::Add(u[3], u[4]), odd_b = hn::Sub(u[3], u[4]);
    g[0] = plus_times(plus_times(times(float(1.0 / (double(kA2) * kB2)), u[0]), float(1 / kAtA), even_a), float(1 / kAtB), even_b);
    g[1] = plus_times(times(float(kA / kAtA), odd_a), float(kB / kAtB), odd_b);
    g[2] = plus_times(plus_times(u[5], float(kA2 / kAtA), even_a), float(kB2 / kAtB), even_b);
  }
};

// Stride 2: the two-tap filter at the points +-kC, +-kD and infinity, which are the elements 0 to 4 of what is transformed.
constexpr float kC = 0.5f, kD = 1.5f;
constexpr float kC2 = kC * kC, kD2 = kD * kD;
constexpr float kAtC = 2 * kC * (kC2 - kD2), kAtD = 2 * kD * (kD2 - kC2);

template <int kStep>
HWY_INLINE void two_tap_input(const V* d, V* t) {
  const V even_c = times(kC, minus_times(d[2 * kStep], kD2, d[0])), odd_c = minus_times(d[3 * kStep], kD2, d[kStep]);
  const V even_d = times(kD, minus_times(d[2 * kStep], kC2, d[0])), odd_d = minus_times(d[3 * kStep], kC2, d[kStep]);
  t[0] = hn::Add(odd_c, even_c);
  t[1] = hn::Sub(odd_c, even_c);
  t[2] = hn::Add(odd_d, even_d);
  t[3] = hn::Sub(odd_d, even_d);
  t[4] = plus_times(minus_times(d[4 * kStep], kC2 + kD2, d[2 * kStep]), kC2 * kD2, d[0]);
}
// The four sums of m[0..4], and those of plus[0..3] where there are any.
template <int kStep>
HWY_INLINE void two_tap_output(const V* m, const V* plus, V* y) {
  const V even_c = hn::Add(m[0], m[1]), odd_c = hn::Sub(m[0], m[1]);
  const V even_d = hn::Add(m[2], m[3]), odd_d = hn::Sub(m[2], m[3]);
  y[0] = hn::Add(even_c, even_d);
  y[kStep] = plus_times(times(kC, odd_c), kD, odd_d);
  y[2 * kStep] = plus_times(times(kC2, even_c), kD2, even_d);
  y[3 * kStep] = plus_times(plus_times(m[4], kC2 * kC, odd_c), kD2 * kD, odd_d);
  if (plus == nullptr) return;
  for (int i = 0; i < 4; ++i) y[i * kStep] = hn::Add(y[i * kStep], plus[i]);
}
struct Stride2Input {  // B^T: 9 -> 9
  static constexpr int kFrom = 9, kTo = 9, kKept = 5, kGiven = 5;
  static constexpr int kept(int c) { return c % 2 == 0 ? c / 2 : -1; }
  static constexpr int copied(int c) { return c % 2 == 0 ? -1 : 5 + c / 2; }
  static HWY_INLINE void apply(const V (&d)[9], V (&t)[9]) {
    two_tap_input<2>(d, t);
    for (int i = 0; i < 4; ++i) t[5 + i] = d[2 * i + 1];
  }
  static HWY_INLINE void apply_two_tap(const V (&d)[5], V (&t)[5]) { two_tap_input<1>(d, t); }
};
struct Stride2Output : Whole<9, 4> {  // A^T: 9 -> 4
  static HWY_INLINE void apply(const V (&m)[9], V (&y)[4]) { two_tap_output<1>(m, m + 5, y); }
};
struct Stride2Gradient {  // A: 4 -> 9
  static constexpr int kFrom = 4, kTo = 9, kKept = 4, kGiven = 5;
  static constexpr int kept(int c) { return c; }
  static constexpr int copied(int c) { return 5 + c; }
  static HWY_INLINE void apply(const V (&y)[4], V (&t)[9]) {
    apply_two_tap(y, t);
    for (int i = 0; i < 4; ++i) t[5 + i] = y[i];
  }
  static HWY_INLINE void apply_two_tap(const V (&y)[4], V* t) {
    const V even_c = plus_times(y[0], kC2, y[2]), odd_c = plus_times(y[1], kC2, y[3]);
    const V even_d = plus_times(y[0], kD2, y[2]), odd_d = plus_times(y[1], kD2, y[3]);
    t[0] = plus_times(even_c, kC, odd_c);
    t[1] = minus_times(even_c, kC, odd_c);
    t[2] = plus_times(even_d, kD, odd_d);
    t[3] = minus_times(even_d, kD, odd_d);
    t[4] = y[3];
  }
};
struct Stride2DataInput {  // 5 -> 9
  static constexpr int kFrom = 5, kTo = 9, kKept = 5, kGiven = 5;
  static constexpr int kept(int c) { return c; }
  static constexpr int copied(int c) { return c < 4 ? 5 + c : -1; }
  static HWY_INLINE void apply(const V (&d)[5], V (&t)[9]) {
    two_tap_input<1>(d, t);
    for (int i = 0; i < 4; ++i) t[5 + i] = d[i];
  }
  static HWY_INLINE void apply_two_tap(const V (&d)[5], V (&t)[5]) { two_tap_input<1>(d, t); }
};
struct Stride2DataOutput : Whole<9, 8> {  // 9 -> 8
  static HWY_INLINE void apply(const V (&m)[9], V (&y)[8]) {
    two_tap_output<2>(m, nullptr, y + 1);
    for (int i = 0; i < 4; ++i) y[2 * i] = m[5 + i];
  }
};
struct Stride2Filter : Whole<3, 6> {  // G: 3 -> 6
  static HWY_INLINE void apply(const V (&g)[3], V (&t)[6]) {
    const V even_c = times(1 / kAtC, g[0]), odd_c = times(kC / kAtC, g[2]);
    const V even_d = times(1 / kAtD, g[0]), odd_d = times(kD / kAtD, g[2]);
    t[0] = hn::Add(odd_c, even_c);
    t[1] = hn::Sub(odd_c, even_c);
    t[2] = hn::Add(odd_d, even_d);
    t[3] = hn::Sub(odd_d, even_d);
    t[4] = g[2];
    t[5] = g[1];
  }
};
struct Stride2FilterGradient : Whole<6, 3> {  // G^T: 6 -> 3
  static HWY_INLINE void apply(const V (&u)[6], V (&g)[3]) {
    const V even_c = hn::Sub(u[0], u[1]), odd_c = hn::Add(u[0], u[1]);
    const V even_d = hn::Sub(u[2], u[3]), odd_d = hn::Add(u[2], u[3]);
    g[0] = plus_times(times(1 / kAtC, even_c), 1 / kAtD, even_d);
    g[1] = u[5];
    g[2] = plus_times(plus_times(u[4], kC / kAtC, odd_c), kD / kAtD, odd_d);
  }
};

// Both axes: columns first, then rows. at(r, c) loads element (r, c), put(r, c, v) takes one of the result. Elements of the second
// axis that are only copied are put at once.
template <class Transform, class At, class Put>
HWY_INLINE void both_axes(const At& at, const Put& put) {
  V middle[Transform::kTo][Transform::kKept];
#pragma GCC unroll 9
  for (int c = 0; c < Transform::kFrom; ++c) {
    V from[Transform::kFrom], to[Transform::kTo];
#pragma GCC unroll 9
    for (int r = 0; r < Transform::kFrom; ++r) from[r] = at(r, c);
    Transform::apply(from, to);
#pragma GCC unroll 9
    for (int r = 0; r < Transform::kTo; ++r) {
      if (Transform::kept(c) >= 0) middle[r][Transform::kept(c)] = to[r];
      if (Transform::copied(c) >= 0) put(r, Transform::copied(c), to[r]);
    }
  }
#pragma GCC unroll 9
  for (int r = 0; r < Transform::kTo; ++r) {
    V to[Transform::kGiven];
    if constexpr (Transform::kGiven == Transform::kTo) {
      Transform::apply(middle[r], to);
    } else {
      Transform::apply_two_tap(middle[r], to);
    }
#pragma GCC unroll 9
    for (int c = 0; c < Transform::kGiven; ++c) put(r, c, to[c]);
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

// Of kSize rows, the kStep columns that the tile to the right adds.
template <int kSize, int kStep, int kForWriting, class T>
HWY_INLINE void fetch_right(const PixelBlock<T>& d, int64_t i) {
#pragma GCC unroll 1
  for (int r = 0; r < kSize; ++r) {
#pragma GCC unroll 8
    for (int c = kSize; c < kSize + kStep; ++c) __builtin_prefetch(d.p + r * d.row + c * d.pixel + i, kForWriting);
  }
}

// The values of one tile: where that of product (r, c), channel 0 lies. r and c are known where this is expanded.
template <int kPoints, class F>
struct TileValues {
  static constexpr int kLast = int(kFilterPoints) - 1, kShared = kPoints - kLast;
  F* p[3];  // of frequencies that are shared by no axis, by one, by both
  int64_t plane, pitch;
  HWY_INLINE TileValues(const TransformedTiles<F>& v, int64_t tile) : plane(v.plane), pitch(v.pitch) {
    p[0] = v.p + tile * pitch;
    p[1] = v.p + tile * kShared * pitch;
    p[2] = v.p + tile * kShared * kShared * pitch;
  }
  HWY_INLINE F* at(int r, int c) const {
    constexpr WinogradForm kForm{0, 0, 0, kPoints};
    const int fr = std::min(r, kLast), fc = std::min(c, kLast);
    const int within = (r - fr) * int(kForm.sharing_of_axis(fc)) + c - fc;
    return p[(fr == kLast) + (fc == kLast)] + kForm.before(fr * kFilterPoints + fc) * plane + within * pitch;
  }
};

// v = the transform of a square.
template <class Transform, int kStep, class T>
void transform_square(const PixelSquare<T>& d, int64_t channels, const TransformedTiles<float>& v, int64_t tile) {
  constexpr uint32_t kAll = (1u << Transform::kFrom) - 1;
  alignas(64) static constexpr T kZeros[HWY_LANES(float)] = {};
  const TileValues<Transform::kTo, float> to(v, tile);
  const bool inside = d.rows == kAll && d.columns == kAll;
  each_vector(channels, [&](int64_t i, int64_t count) HWY_ATTR {
    const PixelBlock<const T> block{d.block.p + i, d.block.row, d.block.pixel};
    const auto put = [=](int r, int c, V t) HWY_ATTR { store(t, to.at(r, c) + i); };
    if (kStep <= 4) fetch_right<Transform::kFrom, kStep, 0>(block, 0);
    if (inside && count == int64_t(kLanes)) {
      both_axes<Transform>([=](int r, int c) HWY_ATTR { return load(block.p + r * block.row + c * block.pixel); }, put);
    } else {
      both_axes<Transform>(
          [&](int r, int c) HWY_ATTR {
            const bool there = (d.rows >> r & d.columns >> c & 1) != 0;
            return load_first(there ? block.p + r * block.row + c * block.pixel : kZeros, count);
          },
          put);
    }
  });
}

template <class Transform, class T>
void output(const WinogradOutput<T>& job) {
  constexpr int kSize = Transform::kTo;
  const bool as_it_is = !job.silu && !job.accumulate && !job.residual.p && !job.bias && job.rows == kSize && job.columns == kSize;
  const TileValues<Transform::kFrom, const float> m(job.m, job.tile);
  each_vector(job.channels, [&](int64_t i, int64_t count) HWY_ATTR {
    const PixelBlock<T> y{job.y.p + i, job.y.row, job.y.pixel};
    fetch_right<kSize, kSize, 1>(y, 0);
    const auto product = [=](int r, int c) HWY_ATTR { return load(m.at(r, c) + i); };
    if (as_it_is && count == int64_t(kLanes)) {
      both_axes<Transform>(product, [=](int r, int c, V v) HWY_ATTR { store(v, y.p + r * y.row + c * y.pixel); });
      return;
    }
    HWY_ALIGN float tile[kSize * kSize * HWY_LANES(float)];
    const V bias = job.bias ? load(job.bias + i) : hn::Zero(F32());
    both_axes<Transform>(product, [&](int r, int c, V v) HWY_ATTR { store(hn::Add(v, bias), tile + (r * kSize + c) * kLanes); });
    for (int64_t r = 0; r < job.rows; ++r) {
      T* to = y.p + r * y.row;
      const T* residual = job.residual.p ? job.residual.p + r * job.residual.row + i : nullptr;
      for (int64_t c = 0; c < job.columns; ++c, to += y.pixel) {
        V v = load(tile + (r * kSize + c) * int64_t(kLanes));
        if (job.silu) v = hn::Mul(v, sigmoid_for<T>(v));
        if (residual) v = hn::Add(v, load_first(residual + c * job.residual.pixel, count));
        if (job.accumulate) v = hn::Add(v, load_first(to, count));
        store_first(v, to, count);
      }
    }
  });
}

template <class Transform, class T>
void filter(const T* g, int64_t tap_step, bool flipped, int64_t channels, float* u, int64_t plane) {
  each_vector(channels, [&](int64_t i, int64_t count) HWY_ATTR {
    both_axes<Transform>(
        [&](int r, int c) HWY_ATTR {
          const int tap = r * 3 + c;
          return load_first(g + (flipped ? 8 - tap : tap) * tap_step + i, count);
        },
        [&](int r, int c, V t) HWY_ATTR { store(t, u + (r * Transform::kTo + c) * plane + i); });
  });
}

template <class Transform>
void filter_gradient(const float* u, int64_t plane, int64_t channels, float* dg, int64_t tap_step, bool accumulate) {
  each_vector(channels, [&](int64_t i, int64_t count) HWY_ATTR {
    both_axes<Transform>([&](int r, int c) HWY_ATTR { return load(u + (r * Transform::kFrom + c) * plane + i); },
                         [&](int r, int c, V v) HWY_ATTR {
                           float* to = dg + (r * 3 + c) * tap_step + i;
                           store_first(accumulate ? hn::Add(v, load_first(to, count)) : v, to, count);
                         });
  });
}

template <class T>
WinogradKernels<T> kernels_of(const WinogradForm& form) {
  constexpr int64_t lanes = int64_t(kLanes);
  if (form.points == kStride1Form.points) {
    return {lanes,
            transform_square<InputTransform, 4, T>,
            output<OutputTransform, T>,
            transform_square<GradientTransform, 4, T>,
            filter<FilterTransform, T>,
            filter_gradient<FilterGradientTransform>};
  }
  if (form.outputs == kStride2Form.outputs) {
    return {lanes,
            transform_square<Stride2Input, 8, T>,
            output<Stride2Output, T>,
            transform_square<Stride2Gradient, 4, T>,
            filter<Stride2Filter, T>,
            filter_gradient<Stride2FilterGradient>};
  }
  return {lanes,  transform_square<Stride2DataInput, 4, T>, output<Stride2DataOutput, T>, nullptr, filter<Stride2Filter, T>,
          nullptr};
}
WinogradKernels<float> f32_kernels(const WinogradForm& form) { return kernels_of<float>(form); }
WinogradKernels<BFloat16> bf16_kernels(const WinogradForm& form) { return kernels_of<BFloat16>(form); }

}  // namespace tessera::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera::cpu {

HWY_EXPORT(f32_kernels);
HWY_EXPORT(bf16_kernels);
template <>
WinogradKernels<float> winograd_kernels<float>(const WinogradForm& form) {
  return HWY_DYNAMIC_DISPATCH(f32_kernels)(form);
}
template <>
WinogradKernels<BFloat16> winograd_kernels<BFloat16>(const WinogradForm& form) {
  return HWY_DYNAMIC_DISPATCH(bf16_kernels)(form);
}

}  // namespace tessera::cpu
#endif
