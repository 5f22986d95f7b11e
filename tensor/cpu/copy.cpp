// Fill and copy. Same-type copies and fills need no vector code of their own: the C library's memcpy and the compiler's loops run
// at the speed of memory. The one conversion that a training step makes, u8 images to f32, is written out.
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

void FloatFromU8(const uint8_t* x, float* y, size_t n, bool stream) {
  const F32 d;
  const hn::Rebind<int32_t, F32> di;
  const hn::Rebind<uint8_t, F32> du;
  const bool past_cache = stream && is_aligned(y);
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const V v = hn::ConvertTo(d, hn::PromoteTo(di, hn::LoadU(du, x + i)));
    past_cache ? store_past_cache(v, y + i) : store(v, y + i);
  }
  for (; i < n; ++i) y[i] = float(x[i]);
  if (stream) hwy::FlushStream();
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace tessera::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera::cpu {

HWY_EXPORT(FloatFromU8);

namespace {

constexpr int64_t kGrain = 1 << 16;
constexpr int64_t kStreamElements = int64_t{4} << 20;

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
    default: return false;
  }
}

bool copy(const StridedView& x, const StridedView& y) {
  const int64_t elements = numel(y.shape);
  if (elements == 0) return true;
  const JointShape<2> shape({&x, &y});
  if (x.t == y.t) {
    switch (size_of(x.t)) {
      case 1: copy_as<uint8_t>(shape, x.p, y.p); return true;
      case 2: copy_as<uint16_t>(shape, x.p, y.p); return true;
      case 4: copy_as<uint32_t>(shape, x.p, y.p); return true;
      default: copy_as<uint64_t>(shape, x.p, y.p); return true;
    }
  }
  const auto step = shape.inner_stride();
  if (x.t != DType::kU8 || y.t != DType::kF32 || (shape.inner() > 1 && (step[0] != 1 || step[1] != 1))) return false;
  for_each_piece(shape, [&](const auto& offset, int64_t n) {
    HWY_DYNAMIC_DISPATCH(FloatFromU8)
    (data<uint8_t>(x) + offset[0], data<float>(y) + offset[1], size_t(n), elements >= kStreamElements);
  });
  return true;
}

}  // namespace tessera::cpu
#endif
