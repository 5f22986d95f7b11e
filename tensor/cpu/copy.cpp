// Fill and copy. Same-type copies and fills need no vector code of their own: the C library's memcpy and the compiler's loops run
// at the speed of memory. The conversions that a training step makes are written out: u8 images to floats, f32 to bf16 and back.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tensor/cpu/copy.cpp"
#include <cstring>

#include "tensor/cpu/highway.h"
// After highway.h, once per target:
#include "tensor/cpu/kernels.h"
#include "tensor/cpu/rows-inl.h"
#include "tensor/cpu/strided.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu {
namespace HWY_NAMESPACE {
namespace {

struct FromU8 {
  using In = uint8_t;
  static HWY_INLINE V vector(const uint8_t* p) { return load(p); }
};
struct FromF32 {
  using In = float;
  static HWY_INLINE V vector(const float* p) { return quieted(load(p)); }
};
struct FromBF16 {
  using In = BFloat16;
  static HWY_INLINE V vector(const BFloat16* p) { return load(p); }
};

// Runs of adjacent elements; what does not fill a vector at the end of a run is converted one by one, as elsewhere are all.
template <class From, class Out>
void convert_as(const JointShape<2>& shape, const void* px, void* py) {
  using In = typename From::In;
  const auto step = shape.inner_stride();
  const int64_t inner = shape.inner();
  const bool adjacent = inner == 1 || (step[0] == 1 && step[1] == 1);
  const bool stream = adjacent && shape.outer() * inner * int64_t(sizeof(Out)) >= kStreamBytes;
  const auto run = [&](const In* x, Out* y, int64_t n) HWY_ATTR {
    int64_t i = 0;
    if (adjacent) {
      const bool past_cache = stream && is_aligned(y);
      for (; i + int64_t(kLanes) <= n; i += kLanes) {
        const V v = From::vector(x + i);
        past_cache ? store_past_cache(v, y + i) : store(v, y + i);
      }
    }
    for (; i < n; ++i) y[i * step[1]] = Out(float(x[i * step[0]]));
  };
  constexpr int64_t kGrain = 1 << 16;
  const auto* x = static_cast<const In*>(px);
  auto* y = static_cast<Out*>(py);
  if (shape.rank == 1) {
    parallel_for(inner, kGrain, [&](int64_t begin, int64_t end) HWY_ATTR {
      run(x + begin * step[0], y + begin * step[1], end - begin);
      if (stream) hwy::FlushStream();
    });
  } else {
    parallel_for(shape.outer(), std::max<int64_t>(1, kGrain / inner), [&](int64_t begin, int64_t end) HWY_ATTR {
      for (int64_t i = begin; i < end; ++i) {
        const auto offset = shape.run(i);
        run(x + offset[0], y + offset[1], inner);
      }
      if (stream) hwy::FlushStream();
    });
  }
}

bool Convert(const JointShape<2>& shape, const StridedView& x, const StridedView& y) {
  const auto is = [&](DType from, DType to) { return x.t == from && y.t == to; };
  if (is(DType::kU8, DType::kF32)) return convert_as<FromU8, float>(shape, x.p, y.p), true;
  if (is(DType::kU8, DType::kBF16)) return convert_as<FromU8, BFloat16>(shape, x.p, y.p), true;
  if (is(DType::kF32, DType::kBF16)) return convert_as<FromF32, BFloat16>(shape, x.p, y.p), true;
  if (is(DType::kBF16, DType::kF32)) return convert_as<FromBF16, float>(shape, x.p, y.p), true;
  return false;
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace tessera::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera::cpu {

HWY_EXPORT(Convert);

namespace {

constexpr int64_t kGrain = 1 << 16;

// Calls run(offsets, n) for all runs of the views, long ones in pieces, in parallel.
template <size_t kOperands, class F>
void for_each_piece(const JointShape<kOperands>& shape, const F& run) {
  const int64_t inner = shape.inner();
  if (shape.rank == 1) {
    parallel_for(inner, kGrain, [&](int64_t begin, int64_t end) {
      auto offset = shape.inner_stride();
      for (int64_t& o : offset) o *= begin;
      run(offset, end - begin);
    });
  } else {
    parallel_for(shape.outer(), std::max<int64_t>(1, kGrain / inner), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) run(shape.run(i), inner);
    });
  }
}

template <class T>
void fill_as(const JointShape<1>& shape, void* p, T value) {
  const int64_t step = shape.inner_stride()[0];
  for_each_piece(shape, [&](const auto& offset, int64_t n) {
    T* y = static_cast<T*>(p) + offset[0];
    if (step == 1) {
      std::fill(y, y + n, value);
    } else {
      for (int64_t i = 0; i < n; ++i) y[i * step] = value;
    }
  });
}

// T is any type of the size of the elements.
template <class T>
void copy_as(const JointShape<2>& shape, const void* x, void* y) {
  const auto step = shape.inner_stride();
  for_each_piece(shape, [&](const auto& offset, int64_t n) {
    const T* from = static_cast<const T*>(x) + offset[0];
    T* to = static_cast<T*>(y) + offset[1];
    if (step[0] == 1 && step[1] == 1) {
      std::memcpy(to, from, size_t(n) * sizeof(T));
    } else {
      for (int64_t i = 0; i < n; ++i) to[i * step[1]] = from[i * step[0]];
    }
  });
}

}  // namespace

bool fill(const StridedView& y, double value) {
  if (numel(y.shape) == 0) return true;
  const JointShape<1> shape({&y});
  switch (y.t) {
    case DType::kF64: fill_as(shape, y.p, value); return true;
    case DType::kF32: fill_as(shape, y.p, float(value)); return true;
    case DType::kI64: fill_as(shape, y.p, int64_t(value)); return true;
    case DType::kI32: fill_as(shape, y.p, int32_t(value)); return true;
    case DType::kU8: fill_as(shape, y.p, uint8_t(value)); return true;
    case DType::kBF16: fill_as(shape, y.p, BFloat16(float(value)).bits); return true;
    case DType::kF16: fill_as(shape, y.p, Half(float(value)).bits); return true;
    default: return false;
  }
}

bool copy(const StridedView& x, const StridedView& y) {
  if (numel(y.shape) == 0) return true;
  const JointShape<2> shape({&x, &y});
  if (x.t == y.t) {
    switch (size_of(x.t)) {
      case 1: copy_as<uint8_t>(shape, x.p, y.p); return true;
      case 2: copy_as<uint16_t>(shape, x.p, y.p); return true;
      case 4: copy_as<uint32_t>(shape, x.p, y.p); return true;
      default: copy_as<uint64_t>(shape, x.p, y.p); return true;
    }
  }
  return HWY_DYNAMIC_DISPATCH(Convert)(shape, x, y);
}

}  // namespace tessera::cpu
#endif
