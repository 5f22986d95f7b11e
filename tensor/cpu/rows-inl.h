// Loops over rows of f32 or bf16: how a view is cut into chunks and runs, and how a function of vectors is applied to a run. The
// element type T is that of the memory; vectors are f32.
#if defined(TESSERA_CPU_ROWS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TESSERA_CPU_ROWS_INL_H_
#undef TESSERA_CPU_ROWS_INL_H_
#else
#define TESSERA_CPU_ROWS_INL_H_
#endif

#include <algorithm>
#include <vector>

#include "tensor/base/parallel.h"
#include "tensor/cpu/past_caches.h"
#include "tensor/cpu/vec_math-inl.h"
#include "tensor/views.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu {
namespace HWY_NAMESPACE {

template <class T = float>
T* at(const RowsView& v, int64_t row, int64_t column = 0) {
  return data<T>(v) + row * v.pitch + column;
}

// Calls body(T()) with the element type T of a view that is f32 or bf16.
template <class F>
HWY_INLINE void with_element(DType t, const F& body) {
  if (t == DType::kBF16) {
    body(BFloat16());
  } else {
    body(float());
  }
}

// Cuts equal-sized views into chunks of about kGrain elements; dense views as if they were one row.
class RowCut {
 public:
  static constexpr int64_t kGrain = 1 << 15;

  template <class... Views>
  explicit RowCut(const RowsView& x, const Views&... more) : rows_(x.rows), cols_(x.cols) {
    flat_ = ((x.rows <= 1 || x.pitch == x.cols) && ... && (more.rows <= 1 || more.pitch == more.cols));
    if (flat_) {
      step_ = kGrain;
      chunks_ = (rows_ * cols_ + step_ - 1) / step_;
    } else {
      step_ = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, cols_));
      chunks_ = cols_ == 0 ? 0 : (rows_ + step_ - 1) / step_;
    }
  }

  int64_t chunks() const { return chunks_; }

  // Calls run(row, column, count) for each run of adjacent elements of a chunk.
  template <class F>
  HWY_INLINE void for_each_run(int64_t chunk, const F& run) const {
    const int64_t begin = chunk * step_;
    if (flat_) {
      run(int64_t{0}, begin, size_t(std::min(step_, rows_ * cols_ - begin)));
    } else {
      for (int64_t row = begin, end = std::min(rows_, begin + step_); row < end; ++row) run(row, int64_t{0}, size_t(cols_));
    }
  }

 private:
  int64_t rows_, cols_, step_, chunks_;
  bool flat_;
};

// A full vector, and the first lanes of one at the end of a run.
struct Whole {
  template <class T>
  HWY_INLINE V get(const T* p) const {
    return load(p);
  }
  template <class T>
  HWY_INLINE void put(V v, T* p) const {
    store(v, p);
  }
  HWY_INLINE V only(V v) const { return v; }
  HWY_INLINE V or_else(V v, V) const { return v; }
};
struct Part {
  M m;
  size_t n;
  template <class T>
  HWY_INLINE V get(const T* p) const {
    return load(m, n, p);
  }
  template <class T>
  HWY_INLINE void put(V v, T* p) const {
    store(m, n, v, p);
  }
  HWY_INLINE V only(V v) const { return hn::IfThenElseZero(m, v); }  // zero in the other lanes
  HWY_INLINE V or_else(V v, V other) const { return hn::IfThenElse(m, v, other); }
};

// Calls body(i, part) for each vector of a run of n elements, i its first element.
template <class F>
HWY_INLINE void for_each_vector(size_t n, const F& body) {
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) body(i, Whole());
  if (i < n) body(i, Part{first(n - i), n - i});
}

template <class T>
HWY_INLINE bool is_aligned(const T* p) {
  return reinterpret_cast<uintptr_t>(p) % (kLanes * sizeof(T)) == 0;
}

// y[i] = f(x[i]...) for i < n. `stream` bypasses the caches where y is aligned.
template <class Out, class F, class... In>
HWY_INLINE void map_run(size_t n, Out* y, bool stream, const F& f, const In*... x) {
  const size_t whole = stream && is_aligned(y) ? n / kLanes * kLanes : 0;
  for (size_t i = 0; i < whole; i += kLanes) store_past_cache(f(load(x + i)...), y + i);
  for_each_vector(n - whole, [&](size_t i, auto part) HWY_ATTR { part.put(f(part.get(x + whole + i)...), y + whole + i); });
}

// y = f(x...) elementwise over views of equal size, in parallel, y of T, x of In. An input may be y itself.
template <class T = float, class In = T, class F, class... Views>
void map_rows(const RowsView& y, const F& f, const Views&... x) {
  const RowCut cut(y, x...);
  const bool stream = ((y.rows * y.cols * int64_t(sizeof(T)) >= kStreamBytes) && ... && (x.p != y.p));
  parallel_chunks(cut.chunks(), [&](int64_t chunk) HWY_ATTR {
    cut.for_each_run(chunk, [&](int64_t row, int64_t column, size_t n) HWY_ATTR {
      map_run(n, at<T>(y, row, column), stream, f, static_cast<const In*>(at<In>(x, row, column))...);
    });
    if (stream) hwy::FlushStream();
  });
}

// Sum of f(x[i]...) over a run, f a function of vectors: f32 sums of at most 32 values in each of the two times kLanes lanes, in
// double from there, always in the same order.
template <class F, class... In>
HWY_INLINE double sum_run(size_t n, const F& f, const In*... x) {
  constexpr size_t kPair = 2 * kLanes;
  double total = 0;
  for (size_t i = 0; i < n;) {
    const size_t end = i + std::min(n - i, 32 * kPair);
    V a = hn::Zero(F32());
    V b = hn::Zero(F32());
    for (; i + kPair <= end; i += kPair) {
      a = hn::Add(a, f(load(x + i)...));
      b = hn::Add(b, f(load(x + i + kLanes)...));
    }
    for_each_vector(end - i, [&](size_t j, auto part) HWY_ATTR { a = hn::Add(a, part.only(f(part.get(x + i + j)...))); });
    i = end;
    total += double(hn::GetLane(hn::SumOfLanes(F32(), hn::Add(a, b))));
  }
  return total;
}

// Sum of f(x...) over all elements of views of equal size, in parallel.
template <class F, class... Views>
double sum_rows(const F& f, const RowsView& x, const Views&... more) {
  const RowCut cut(x, more...);
  std::vector<double> partial(size_t(cut.chunks()));
  parallel_chunks(cut.chunks(), [&](int64_t chunk) HWY_ATTR {
    double total = 0;
    cut.for_each_run(chunk, [&](int64_t row, int64_t column, size_t n) HWY_ATTR {
      total += sum_run(n, f, static_cast<const float*>(at(x, row, column)), static_cast<const float*>(at(more, row, column))...);
    });
    partial[size_t(chunk)] = total;
  });
  double total = 0;
  for (double p : partial) total += p;
  return total;
}

}  // namespace HWY_NAMESPACE
}  // namespace tessera::cpu
HWY_AFTER_NAMESPACE();

#endif
