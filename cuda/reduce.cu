// Sum, mean and maximum over axes; argmax and top-k over the last axis. Every result is formed in one order that only the shapes
// decide, so it has the same bits on every run and on every device.
#include <bit>
#include <cmath>
#include <limits>

#include "cuda/device/element.cuh"
#include "cuda/device/reduce.cuh"
#include "cuda/device/strided.cuh"
#include "cuda/kernels.h"
#include "cuda/launch.cuh"

namespace tessera::cuda {

namespace {

constexpr int kThreads = 256;

// How the threads of a block share `outputs` x `inputs`: `lanes` of them (a power of two) work on one output, each block on
// kThreads / lanes outputs. Neighbouring threads are neighbours in memory: on the inputs of one output (`across_inputs`) or on
// outputs.
struct ReducePlan {
  int lanes;
  bool across_inputs;
  int chunks;     // blocks that share the inputs of an output; with more than one a second launch adds up what they leave
  int per_chunk;  // inputs of a chunk
};

template <class Sum>
__device__ Sum combine(ReduceOp op, Sum a, Sum b) {
  return op == ReduceOp::kMax ? (a < b ? b : a) : a + b;
}

template <class Sum>
__device__ Sum neutral(ReduceOp op) {
  if constexpr (std::is_floating_point_v<Sum>) {
    return op == ReduceOp::kMax ? Sum(-INFINITY) : Sum(0);
  } else {
    return op == ReduceOp::kMax ? std::numeric_limits<Sum>::lowest() : Sum(0);
  }
}

// y[o] = sum over i of x[o, i] (or the maximum), times `factor`.
//
// Block (bx, by): outputs bx * kThreads / lanes onwards, inputs of chunk by. A thread adds every `lanes`-th input of its chunk,
// then the lanes of an output meet in a tree in shared memory: partial sums stay short, which keeps the rounding error near log n.
// With several chunks y is (chunks, outputs) of type Sum and is reduced once more by the same kernel.
template <class T, class Sum, class Out>
__global__ void __launch_bounds__(kThreads) reduce_kernel(ReduceOp op, const T* x, StridedLoop<2> outputs, StridedLoop<1> inputs,
                                                          Out* y, bool partial, Sum divisor, ReducePlan plan) {
  wait_for_kernel_before();
  TESSERA_SHARED(tree, Sum[kThreads]);
  const int t = int(threadIdx.x);
  const int per_block = kThreads / plan.lanes;
  const int lane = plan.across_inputs ? t % plan.lanes : t / per_block;
  const int mine = plan.across_inputs ? t / plan.lanes : t % per_block;
  const int output = int(blockIdx.x) * per_block + mine;
  int64_t at[2] = {0, 0};
  Sum sum = neutral<Sum>(op);
  if (output < outputs.count) {
    outputs.offsets(output, at);
    const int begin = int(blockIdx.y) * plan.per_chunk;
    const int end = min(begin + plan.per_chunk, inputs.count);
    for (int i = begin + lane; i < end; i += plan.lanes) {
      int64_t inside[1];
      inputs.offsets(i, inside);
      sum = combine(op, sum, Sum(load(x[at[0] + inside[0]])));
    }
  }
  const int slot = lane * per_block + mine;
  tree[slot] = sum;
  for (int half = plan.lanes / 2; half > 0; half /= 2) {
    __syncthreads();
    if (lane < half) tree[slot] = combine(op, tree[slot], tree[slot + half * per_block]);
  }
  if (lane != 0 || output >= outputs.count) return;
  if (partial) {
    y[int64_t(blockIdx.y) * outputs.count + output] = rounded<Out>(Compute<Out>(tree[slot]));
  } else {
    y[at[1]] = rounded<Out>(Compute<Out>(tree[slot] / divisor));
  }
}

ReducePlan plan_for(int outputs, int inputs, bool across_inputs) {
  ReducePlan p{};
  p.across_inputs = across_inputs;
  const int wanted = int(std::bit_ceil(unsigned(std::max(1, inputs))));
  p.lanes =
      across_inputs ? std::min(kThreads, wanted) : kThreads / std::min(kWarp, int(std::bit_ceil(unsigned(std::max(1, outputs)))));
  const int per_block = kThreads / p.lanes;
  const int blocks = (outputs + per_block - 1) / per_block;
  constexpr int kEnoughBlocks = 1024;   // fills any device several times over
  constexpr int kLeastForAThread = 16;  // below this a second launch costs more than it saves
  const int most = std::max(1, inputs / (p.lanes * kLeastForAThread));
  p.chunks = std::clamp(kEnoughBlocks / std::max(1, blocks), 1, most);
  p.per_chunk = (inputs + p.chunks - 1) / p.chunks;
  return p;
}

template <class T, class Sum>
void reduce_as(ReduceOp op, const StridedView& x, const StridedView& y) {
  Shape kept, reduced;
  Strides kept_x, kept_y, reduced_x;
  for (int i = 0; i < x.shape.rank(); ++i) {
    if (x.shape[i] == y.shape[i]) {
      kept.push_back(x.shape[i]);
      kept_x.push_back(x.strides[i]);
      kept_y.push_back(y.strides[i]);
    } else {
      reduced.push_back(x.shape[i]);
      reduced_x.push_back(x.strides[i]);
    }
  }
  const auto outputs = strided_loop<2>(kept, {kept_x, kept_y});
  const auto inputs = strided_loop<1>(reduced, {reduced_x});
  const int64_t output_step = outputs.rank ? outputs.stride[outputs.rank - 1][0] : std::numeric_limits<int64_t>::max();
  const int64_t input_step = inputs.rank ? inputs.stride[inputs.rank - 1][0] : std::numeric_limits<int64_t>::max();
  const ReducePlan plan = plan_for(outputs.count, inputs.count, input_step < output_step);
  const Sum divisor = op == ReduceOp::kMean ? Sum(inputs.count) : Sum(1);
  auto grid = [&](const ReducePlan& p) {
    return Grid{dim3(blocks_for(outputs.count, kThreads / p.lanes), unsigned(p.chunks)), dim3(kThreads)};
  };
  const T* const from = static_cast<const T*>(x.p);
  T* const to = static_cast<T*>(y.p);
  if (plan.chunks == 1) {
    launch("reduce", early(grid(plan)), reduce_kernel<T, Sum, T>, op, from, outputs, inputs, to, false, divisor, plan);
    return;
  }
  const Scratch<Sum> partial(int64_t(plan.chunks) * outputs.count);
  launch("reduce", early(grid(plan)), reduce_kernel<T, Sum, Sum>, op, from, outputs, inputs, partial.get(), true, divisor, plan);
  const auto sums = strided_loop<2>(kept, {dense_strides(kept), kept_y});  // from a dense array of sums to y
  const auto chunks = strided_loop<1>({plan.chunks}, {Strides{outputs.count}});
  const ReducePlan last{plan_for(outputs.count, plan.chunks, false).lanes, false, 1, plan.chunks};
  launch("reduce partial results", early(grid(last)), reduce_kernel<Sum, Sum, T>, op, static_cast<const Sum*>(partial.get()), sums,
         chunks, to, false, divisor, last);
}

// What values are compared as.
template <class T>
using Comparable = std::conditional_t<std::is_integral_v<T>, int64_t, float>;

// A value and where it stands; the order of argmax and top-k: larger first, then earlier.
template <class C>
struct Ranked {
  C value;
  int index;
  __device__ bool before(const Ranked& other) const { return value > other.value || (value == other.value && index < other.index); }
};

template <class C>
__device__ Ranked<C> better(const Ranked<C>& a, const Ranked<C>& b) {
  return b.before(a) ? b : a;
}

template <class C>
__device__ Ranked<C> warp_best(Ranked<C> best) {
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    const Ranked<C> other{__shfl_xor_sync(kAllLanes, best.value, distance), __shfl_xor_sync(kAllLanes, best.index, distance)};
    best = better(best, other);
  }
  return best;
}

// index[r] = position of the first maximum of row r.
// One warp a row: lane l reads columns l, l + 32, ..., so the warp reads 32 neighbours at a time. Every lane starts from column 0,
// which makes a NaN there win as it does in a plain loop.
template <class T>
__global__ void __launch_bounds__(kThreads) argmax_kernel(Rows<const T> x, Rows<int64_t> index) {
  const int lane = int(threadIdx.x) % kWarp;
  const int r = int(blockIdx.x) * (kThreads / kWarp) + int(threadIdx.x) / kWarp;
  if (r >= x.rows) return;  // whole warps leave; there is no barrier of the block
  const T* const row = x.row(r);
  Ranked<Comparable<T>> best{load(row[0]), 0};
  for (int c = lane; c < x.cols; c += kWarp) {
    const Ranked<Comparable<T>> candidate{load(row[c]), c};
    if (candidate.value > best.value) best = candidate;
  }
  best = warp_best(best);
  if (lane == 0) *index.row(r) = best.index;
}

// The k largest of a row, descending; equal values by ascending position.
// One block a row and k passes: pass j finds the first in order after the winner of pass j - 1. Nothing is stored in between, so
// rows may have any length; the row comes from the cache after the first pass. Good for the small k of assigning and suppression.
template <class T>
__global__ void __launch_bounds__(kThreads) topk_kernel(Rows<const T> x, Rows<T> values, Rows<int64_t> indices) {
  using R = Ranked<Comparable<T>>;
  TESSERA_SHARED(shared_value, Comparable<T>[kThreads / kWarp]);
  TESSERA_SHARED(shared_index, int[kThreads / kWarp]);
  const int t = int(threadIdx.x);
  const int r = int(blockIdx.x);
  const T* const row = x.row(r);
  constexpr int kNone = std::numeric_limits<int>::max();
  R last{Comparable<T>(0), -1};  // the winner of the pass before; -1: none yet
  for (int pass = 0; pass < values.cols; ++pass) {
    R best{Comparable<T>(0), kNone};
    for (int c = t; c < x.cols; c += kThreads) {
      const R candidate{load(row[c]), c};
      if (last.index >= 0 && !last.before(candidate)) continue;
      if (best.index == kNone || candidate.before(best)) best = candidate;
    }
    auto choose = [](const R& a, const R& b) { return b.index == kNone ? a : a.index == kNone ? b : better(a, b); };
    for (int distance = kWarp / 2; distance > 0; distance /= 2) {
      best = choose(best, R{__shfl_xor_sync(kAllLanes, best.value, distance), __shfl_xor_sync(kAllLanes, best.index, distance)});
    }
    if (t % kWarp == 0) {
      shared_value[t / kWarp] = best.value;
      shared_index[t / kWarp] = best.index;
    }
    __syncthreads();
    best = R{shared_value[0], shared_index[0]};
    for (int w = 1; w < kThreads / kWarp; ++w) best = choose(best, R{shared_value[w], shared_index[w]});
    if (t == 0) {
      values.row(r)[pass] = row[best.index];
      indices.row(r)[pass] = best.index;
    }
    last = best;
    __syncthreads();  // all have read the shared winners before the next pass writes
  }
}

}  // namespace

void reduce(ReduceOp op, const StridedView& x, const StridedView& y) {
  for_numbers(name_of(op).data(), x.t,
              [&]<class T>() { reduce_as<T, std::conditional_t<std::is_integral_v<T>, int64_t, float>>(op, x, y); });
}

void argmax(RowsView x, RowsView index) {
  for_numbers("argmax", x.t, [&]<class T>() {
    launch("argmax", {dim3(blocks_for(x.rows, kThreads / kWarp)), dim3(kThreads)}, argmax_kernel<T>, rows_of<const T>(x),
           rows_of<int64_t>(index));
  });
}

void topk(RowsView x, RowsView values, RowsView indices) {
  for_numbers("topk", x.t, [&]<class T>() {
    launch("topk", {dim3(blocks_for(x.rows, 1)), dim3(kThreads)}, topk_kernel<T>, rows_of<const T>(x), rows_of<T>(values),
           rows_of<int64_t>(indices));
  });
}

}  // namespace tessera::cuda
