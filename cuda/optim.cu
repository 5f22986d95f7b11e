// Whole-arena kernels of the optimizers: one launch updates all parameters of a group.
#include <algorithm>
#include <cmath>

#include "cuda/device/reduce.cuh"
#include "cuda/device/rows.cuh"
#include "cuda/kernels.h"

namespace tessera::cuda {

namespace {

// What is the same for all elements, formed in double on the host and rounded once.
struct SgdFactors {
  float grad_scale, lr, momentum, weight_decay;
  bool nesterov, first_step;
};
struct AdamFactors {
  float grad_scale;
  float beta1, one_less_beta1, beta2, one_less_beta2;
  float lr_corrected;  // lr / (1 - beta1^t)
  float root_factor;   // 1 / sqrt(1 - beta2^t)
  float eps;
  float weight_decay;  // in the gradient
  float kept;          // 1 - lr * decay of the decoupled form, else 1
};

// g' = g grad_scale + weight_decay p; v = momentum v + g' (g' at the first step); p -= lr (nesterov ? g' + momentum v : v).
// A thread handles N neighbours: 16 bytes of each of three tensors in, of two out; a warp moves full lines.
template <int N>
__global__ void __launch_bounds__(256) sgd_kernel(Rows<float> p, Rows<const float> g, Rows<float> v, SgdFactors s, int col_tiles) {
  const RowPlace at = row_place<N>(p.rows, p.cols, col_tiles);
  if (at.count <= 0) return;
  Pack<float, N> weight = load_pack<N>(p.row(at.row) + at.col, at.count);
  const Pack<float, N> grad = load_pack<N>(g.row(at.row) + at.col, at.count);
  Pack<float, N> velocity{};
  if (!s.first_step) velocity = load_pack<N>(v.row(at.row) + at.col, at.count);  // else it may be anything, NaN too
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const float gradient = grad.v[i] * s.grad_scale + s.weight_decay * weight.v[i];
    const float moved = s.first_step ? gradient : s.momentum * velocity.v[i] + gradient;
    velocity.v[i] = moved;
    weight.v[i] -= s.lr * (s.nesterov ? gradient + s.momentum * moved : moved);
  }
  store_pack<N>(v.row(at.row) + at.col, velocity, at.count);
  store_pack<N>(p.row(at.row) + at.col, weight, at.count);
}

// m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2; p = kept p - lr / (1 - b1^t) m / (sqrt(v) / sqrt(1 - b2^t) + eps).
// Threads as in sgd_kernel; four tensors in, three out.
template <int N>
__global__ void __launch_bounds__(256)
    adam_kernel(Rows<float> p, Rows<const float> g, Rows<float> m, Rows<float> v, AdamFactors a, int col_tiles) {
  const RowPlace at = row_place<N>(p.rows, p.cols, col_tiles);
  if (at.count <= 0) return;
  Pack<float, N> weight = load_pack<N>(p.row(at.row) + at.col, at.count);
  const Pack<float, N> grad = load_pack<N>(g.row(at.row) + at.col, at.count);
  Pack<float, N> first = load_pack<N>(m.row(at.row) + at.col, at.count);
  Pack<float, N> second = load_pack<N>(v.row(at.row) + at.col, at.count);
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const float gradient = grad.v[i] * a.grad_scale + a.weight_decay * weight.v[i];
    first.v[i] = a.beta1 * first.v[i] + a.one_less_beta1 * gradient;
    second.v[i] = a.beta2 * second.v[i] + a.one_less_beta2 * gradient * gradient;
    weight.v[i] = a.kept * weight.v[i] - a.lr_corrected * first.v[i] / (std::sqrt(second.v[i]) * a.root_factor + a.eps);
  }
  store_pack<N>(m.row(at.row) + at.col, first, at.count);
  store_pack<N>(v.row(at.row) + at.col, second, at.count);
  store_pack<N>(p.row(at.row) + at.col, weight, at.count);
}

// y = (1 - w) y + w x, as y + w (x - y): a rounded 1 - w beside a small w would pull the average of a constant away from it.
// Threads as in sgd_kernel.
template <int N>
__global__ void __launch_bounds__(256) lerp_kernel(Rows<float> y, Rows<const float> x, float weight, int col_tiles) {
  const RowPlace at = row_place<N>(y.rows, y.cols, col_tiles);
  if (at.count <= 0) return;
  Pack<float, N> average = load_pack<N>(y.row(at.row) + at.col, at.count);
  const Pack<float, N> newest = load_pack<N>(x.row(at.row) + at.col, at.count);
#pragma unroll
  for (int i = 0; i < N; ++i) average.v[i] += weight * (newest.v[i] - average.v[i]);
  store_pack<N>(y.row(at.row) + at.col, average, at.count);
}

struct Square {
  using Sum = double;
  __device__ static double of(float value) { return double(value) * double(value); }  // exact
};
struct NotFinite {
  using Sum = int;
  __device__ static int of(float value) { return std::isfinite(value) ? 0 : 1; }
};

constexpr int kThreads = 256;

// partial[b] = sum of F::of over the packs of block b: b * kThreads onwards, again after a whole grid, and so on.
// Thread t of a block has every pack number t of its stretch, so a warp reads 512 neighbouring bytes; then a tree. Which elements
// meet in what order depends on the shape alone.
template <class F, class T, int N>
__global__ void __launch_bounds__(kThreads)
    sum_kernel(Rows<const T> x, unsigned packs_of_row, unsigned packs, typename F::Sum* partial) {
  typename F::Sum sum{};
  for (unsigned i = blockIdx.x * kThreads + threadIdx.x; i < packs; i += gridDim.x * kThreads) {
    const unsigned r = i / packs_of_row;
    const int col = int(i - r * packs_of_row) * N;
    const Pack<T, N> v = load_pack<N>(x.row(int(r)) + col, x.cols - col);  // past the row's end: 0, which adds nothing
#pragma unroll
    for (int k = 0; k < N; ++k) sum += F::of(v.v[k]);
  }
  sum = block_reduce<Add>(sum, typename F::Sum{});
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// *total = sum of n partial sums, by one block.
template <class Sum>
__global__ void __launch_bounds__(kThreads) total_kernel(const Sum* partial, int n, Sum* total) {
  Sum sum{};
  for (int i = int(threadIdx.x); i < n; i += kThreads) sum += partial[i];
  sum = block_reduce<Add>(sum, Sum{});
  if (threadIdx.x == 0) *total = sum;
}

template <class F>
typename F::Sum sum_over(const char* name, RowsView x) {
  using Sum = typename F::Sum;
  join_dense_rows(x);
  constexpr int64_t kMostBlocks = 1024;  // a constant, not a property of the device: the order must not depend on it
  const Scratch<Sum> partial(kMostBlocks + 1);
  Sum* const total = partial.get() + kMostBlocks;
  for_floating(name, x.t, [&]<class T>() {
    with_pack<T>(
        [&]<int N>() {
          const int64_t packs_of_row = (x.cols + N - 1) / N;
          const int packs = size32(x.rows * packs_of_row);
          const int blocks = int(std::min<int64_t>(kMostBlocks, blocks_for(packs, kThreads)));
          launch(name, {dim3(unsigned(blocks)), dim3(kThreads)}, sum_kernel<F, T, N>, rows_of<const T>(x), unsigned(packs_of_row),
                 unsigned(packs), partial.get());
          launch(name, {dim3(1), dim3(kThreads)}, total_kernel<Sum>, static_cast<const Sum*>(partial.get()), blocks, total);
        },
        x);
  });
  return fetch(total);
}

}  // namespace

void sgd(RowsView p, RowsView g, RowsView v, double grad_scale, const SgdParams& s) {
  expect_f32("sgd", p.t);
  join_dense_rows(p, g, v);
  const SgdFactors factors{
      float(grad_scale), float(s.lr), float(s.momentum), float(s.weight_decay), s.nesterov, s.first_step,
  };
  with_pack<float>(
      [&]<int N>() {
        const RowGrid grid = row_grid<N>(p.rows, p.cols);
        launch("sgd", grid.grid, sgd_kernel<N>, rows_of<float>(p), rows_of<const float>(g), rows_of<float>(v), factors,
               grid.col_tiles);
      },
      p, g, v);
}

void adam(RowsView p, RowsView g, RowsView m, RowsView v, double grad_scale, const AdamParams& a) {
  expect_f32("adam", p.t);
  join_dense_rows(p, g, m, v);
  const AdamFactors factors{
      .grad_scale = float(grad_scale),
      .beta1 = float(a.beta1),
      .one_less_beta1 = float(1.0 - a.beta1),
      .beta2 = float(a.beta2),
      .one_less_beta2 = float(1.0 - a.beta2),
      .lr_corrected = float(a.lr / (1.0 - std::pow(a.beta1, double(a.step)))),
      .root_factor = float(1.0 / std::sqrt(1.0 - std::pow(a.beta2, double(a.step)))),
      .eps = float(a.eps),
      .weight_decay = a.decoupled ? 0.0f : float(a.weight_decay),
      .kept = a.decoupled ? float(1.0 - a.lr * a.weight_decay) : 1.0f,
  };
  with_pack<float>(
      [&]<int N>() {
        const RowGrid grid = row_grid<N>(p.rows, p.cols);
        launch("adam", grid.grid, adam_kernel<N>, rows_of<float>(p), rows_of<const float>(g), rows_of<float>(m), rows_of<float>(v),
               factors, grid.col_tiles);
      },
      p, g, m, v);
}

void lerp(RowsView y, RowsView x, double weight) {
  expect_f32("lerp", y.t);
  join_dense_rows(y, x);
  with_pack<float>(
      [&]<int N>() {
        const RowGrid grid = row_grid<N>(y.rows, y.cols);
        launch("lerp", grid.grid, lerp_kernel<N>, rows_of<float>(y), rows_of<const float>(x), float(weight), grid.col_tiles);
      },
      y, x);
}

double sum_of_squares(RowsView x) { return sum_over<Square>("sum_of_squares", x); }
bool all_finite(RowsView x) { return sum_over<NotFinite>("all_finite", x) == 0; }

}  // namespace tessera::cuda
