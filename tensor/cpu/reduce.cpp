// Sum, mean and max over all axes, over the last ones (row by row) or over the leading ones (column by column); other combinations
// of axes are left to the reference.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tensor/cpu/reduce.cpp"
#include <limits>

#include "tensor/cpu/highway.h"
// After highway.h, once per target:
#include "tensor/cpu/kernels.h"
#include "tensor/cpu/strided.h"
#include "tensor/cpu/wide_rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu {
namespace HWY_NAMESPACE {
namespace {

struct SumOp {
  static constexpr float kStart = 0;
  static HWY_INLINE V join(V a, V b) { return hn::Add(a, b); }
  static double join(double a, double b) { return a + b; }
  template <class T>
  static double of_run(const T* x, size_t n) {
    return sum_run(
        n, [](V v) HWY_ATTR { return v; }, x);
  }
};
// The first operand wins unless the second is larger: a NaN is passed over, as the reference does.
struct MaxOp {
  static constexpr float kStart = -std::numeric_limits<float>::infinity();
  static HWY_INLINE V join(V a, V b) { return hn::Max(b, a); }
  static double join(double a, double b) { return std::max(a, b); }
  template <class T>
  static double of_run(const T* x, size_t n) {
    const V start = splat(kStart);
    V a = start;
    V b = start;
    size_t i = 0;
    for (; i + 2 * kLanes <= n; i += 2 * kLanes) {
      a = join(a, load(x + i));
      b = join(b, load(x + i + kLanes));
    }
    for (; i < n; i += kLanes) {
      const size_t rest = std::min(n - i, kLanes);
      const M m = first(rest);
      a = join(a, hn::IfThenElse(m, load(m, rest, x + i), start));
    }
    return double(hn::GetLane(hn::MaxOfLanes(F32(), join(a, b))));
  }
};

template <class Op, class T>
double reduce_all(const T* x, int64_t n) {
  constexpr int64_t kGrain = 1 << 16;
  std::vector<double> partial(size_t((n + kGrain - 1) / kGrain));
  parallel_for(n, kGrain, [&](int64_t begin, int64_t end) HWY_ATTR {
    partial[size_t(begin / kGrain)] = Op::of_run(x + begin, size_t(end - begin));
  });
  double total = double(Op::kStart);
  for (double p : partial) total = Op::join(total, p);
  return total;
}

// One result for each of `rows` rows of n adjacent elements.
template <class Op, class T>
void reduce_rows(const T* x, int64_t rows, int64_t pitch, int64_t n, T* y, int64_t y_step, double factor) {
  constexpr int64_t kLong = 1 << 18;  // a row that is worth several threads
  if (n >= kLong) {
    for (int64_t r = 0; r < rows; ++r) y[r * y_step] = T(float(factor * reduce_all<Op>(x + r * pitch, n)));
    return;
  }
  parallel_for(rows, std::max<int64_t>(1, RowCut::kGrain / n), [&](int64_t begin, int64_t end) HWY_ATTR {
    for (int64_t r = begin; r < end; ++r) y[r * y_step] = T(float(factor * Op::of_run(x + r * pitch, size_t(n))));
  });
}

template <class Op, class T, size_t kVectors, class Part>
HWY_INLINE void join_block(const RowsView& block, int64_t column, Part part, float* result) {
  V v[kVectors];
  for (size_t i = 0; i < kVectors; ++i) v[i] = splat(Op::kStart);
  for (int64_t r = 0; r < block.rows; ++r) {
    const T* x = at<T>(block, r, column);
    for (size_t i = 0; i < kVectors; ++i) v[i] = Op::join(v[i], part.get(x + i * kLanes));
  }
  for (size_t i = 0; i < kVectors; ++i) {
    float* p = result + column + i * kLanes;
    part.put(Op::join(part.get(p), v[i]), p);
  }
}

template <class Op, class T>
void reduce_columns(const RowsView& x, T* y, double factor) {
  const WideRows cut(x);
  const auto width = size_t(cut.width);
  std::vector<float> partial(size_t(cut.chunks) * width, Op::kStart);
  parallel_chunks(cut.chunks, [&](int64_t chunk) HWY_ATTR {
    const RowsView part = cut.slice(x, chunk);
    float* result = partial.data() + size_t(chunk) * width;
    for (int64_t r = 0; r < part.rows; r += kBlockRows) {
      const RowsView block = block_of<T>(part, r, kBlockRows);
      for_each_strip(part.cols,
                     [&](int64_t c, auto vectors, auto lanes) HWY_ATTR { join_block<Op, T, vectors()>(block, c, lanes, result); });
    }
  });
  const auto channels = size_t(cut.channels);
  std::vector<double> total(channels, double(Op::kStart));
  for (size_t i = 0; i < partial.size(); i += channels) {
    for (size_t c = 0; c < channels; ++c) total[c] = Op::join(total[c], double(partial[i + c]));
  }
  for (size_t c = 0; c < channels; ++c) y[c] = T(float(factor * total[c]));
}

template <class Op, class T>
bool reduce_as(const JointShape<2>& shape, const T* x, T* y, double factor) {
  // Per dimension the steps of x and y; a step of 0 in y marks a reduced one.
  const auto reduced = [&](int d) { return shape.stride[size_t(d)][1] == 0; };
  const auto step = [&](int d) { return shape.stride[size_t(d)][0]; };
  const int last = shape.rank - 1;
  const int64_t inner = shape.inner();
  if (inner > 1 && step(last) != 1) return false;
  if (reduced(last)) {
    if (last == 0) {
      *y = T(float(factor * reduce_all<Op>(x, inner)));
      return true;
    }
    if (last == 1 && !reduced(0)) {
      reduce_rows<Op>(x, shape.size[0], step(0), inner, y, shape.stride[0][1], factor);
      return true;
    }
    return false;
  }
  if (last == 0 || shape.stride[size_t(last)][1] != 1 || !reduced(last - 1) || last > 2) return false;
  if (last == 2 && reduced(0)) return false;  // two reduced dimensions that do not join
  const int64_t pitch = step(last - 1);
  if (pitch < inner) return false;  // a broadcast input
  for (int64_t i = 0; i < (last == 2 ? shape.size[0] : 1); ++i) {
    T* p = const_cast<T*>(x) + (last == 2 ? i * step(0) : 0);
    reduce_columns<Op>({p, kDTypeOf<T>, shape.size[size_t(last - 1)], inner, pitch}, y + (last == 2 ? i * shape.stride[0][1] : 0),
                       factor);
  }
  return true;
}

bool Reduce(ReduceOp op, const StridedView& x, const StridedView& y) {
  const int64_t inputs = numel(x.shape), outputs = numel(y.shape);
  if (inputs == 0 || inputs == outputs) return false;
  StridedView target = y;
  target.shape = x.shape;
  for (int axis = 0; axis < x.shape.rank(); ++axis) {
    if (y.shape[axis] == 1) target.strides[axis] = 0;
  }
  const JointShape<2> shape({&x, &target});
  bool done = false;
  with_element(x.t, [&](auto element) HWY_ATTR {
    const auto* px = data<const decltype(element)>(x);
    auto* py = data<decltype(element)>(y);
    done = op == ReduceOp::kMax ? reduce_as<MaxOp>(shape, px, py, 1.0)
                                : reduce_as<SumOp>(shape, px, py, op == ReduceOp::kMean ? double(outputs) / double(inputs) : 1.0);
  });
  return done;
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace tessera::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera::cpu {

HWY_EXPORT(Reduce);

bool reduce(ReduceOp op, const StridedView& x, const StridedView& y) { return HWY_DYNAMIC_DISPATCH(Reduce)(op, x, y); }

}  // namespace tessera::cpu
#endif
