// Batch normalisation, alone or fused with SiLU and a residual sum. Every kernel works on tiles of columns (channels): a thread
// keeps N neighbouring channels and walks down the rows, so what belongs to a channel is read once and stays in registers, and a
// warp reads the neighbouring channels of one row or of a few rows.
//
// Results over all rows of a channel take two launches: blocks reduce chunks of rows, then a few blocks merge the chunks. Both
// follow an order that only the shapes decide. T is the type of the batch; arithmetic and what belongs to a channel is f32.
#include <algorithm>
#include <bit>

#include "cuda/device/math.cuh"
#include "cuda/device/reduce.cuh"
#include "cuda/device/rows.cuh"
#include "cuda/kernels.h"

namespace tessera::cuda {

namespace {

constexpr int kThreads = 256;

// How blocks share a matrix: `width` threads side by side, N channels each, and kThreads / width rows at a time. Block b has tile
// b % col_tiles of channels and chunk b / col_tiles of rows.
struct ColumnPlan {
  int width;  // a power of two
  int col_tiles;
  int chunks, rows_per_chunk;
  Grid grid() const { return {dim3(unsigned(col_tiles) * unsigned(chunks)), dim3(kThreads)}; }
};

template <int N>
ColumnPlan plan_columns(const RowsView& x, int64_t most_blocks, int64_t rows_of_thread) {
  ColumnPlan plan{};
  const int64_t packs = (x.cols + N - 1) / N;
  plan.width = int(std::bit_ceil(uint64_t(std::min<int64_t>(packs, kWarp))));
  plan.col_tiles = size32((packs + plan.width - 1) / plan.width);
  const int64_t height = kThreads / plan.width;
  const int64_t most_chunks = std::max<int64_t>(1, most_blocks / plan.col_tiles);
  int64_t rows = std::max((x.rows + most_chunks - 1) / most_chunks, rows_of_thread * height);
  rows = (rows + height - 1) / height * height;
  plan.rows_per_chunk = size32(std::min(rows, x.rows));
  plan.chunks = size32((x.rows + rows - 1) / rows);
  blocks_for(int64_t(plan.col_tiles) * plan.chunks, 1);  // throws if these are too many for a grid
  return plan;
}

// A reduction: no more blocks than fill any device several times over, and at least one full group of rows for every thread. A
// group of 16-byte reads is held in at most 32 registers.
template <int N>
inline constexpr int kGroup = N > 4 ? 4 : 8;
template <int N>
ColumnPlan plan_reduction(const RowsView& x) {
  return plan_columns<N>(x, /*most_blocks=*/1024, /*rows_of_thread=*/kGroup<N>);
}
// An elementwise kernel: enough rows for a thread to make reading the channel's numbers cheap.
template <int N>
ColumnPlan plan_elementwise(const RowsView& x) {
  return plan_columns<N>(x, /*most_blocks=*/int64_t{1} << 30, /*rows_of_thread=*/8);
}

// Where a thread works: channels col .. col + count - 1 (count <= 0: none), rows `row`, row + step, ... below end.
struct ColumnPlace {
  int col, count;
  int row, step, end;
  int chunk;
};

template <int N>
__device__ ColumnPlace column_place(const ColumnPlan& plan, int rows, int cols) {
  const int t = int(threadIdx.x);
  const int chunk = int(blockIdx.x) / plan.col_tiles;
  const int tile = int(blockIdx.x) - chunk * plan.col_tiles;
  ColumnPlace at;
  at.col = (tile * plan.width + t % plan.width) * N;
  at.count = cols - at.col;
  const int begin = chunk * plan.rows_per_chunk;
  at.row = begin + t / plan.width;
  at.step = kThreads / plan.width;
  at.end = begin + min(plan.rows_per_chunk, rows - begin);
  at.chunk = chunk;
  return at;
}

// N entries of a per-channel vector. One by one: parameters lie in an arena at any element.
template <int N>
__device__ Pack<float, N> channels(const float* v, const ColumnPlace& at) {
  Pack<float, N> r;
#pragma unroll
  for (int i = 0; i < N; ++i) r.v[i] = i < at.count ? v[at.col + i] : 0.0f;
  return r;
}

// ---- what is formed over the rows of a channel

// Number, mean and sum of squared deviations of some values (Chan, Golub and LeVeque 1983). Nothing large is subtracted from
// something large anywhere, as E[x^2] - E[x]^2 would do.
struct Moments {
  float n, mean, m2;
};
__device__ Moments merged(const Moments& a, const Moments& b) {
  const float n = a.n + b.n;
  const float share = n > 0 ? b.n / n : 0.0f;
  const float delta = b.mean - a.mean;
  return {n, a.mean + delta * share, a.m2 + b.m2 + delta * delta * a.n * share};
}

// The two sums of the backward pass.
struct Sums {
  float dz, dz_normalized;
};
__device__ Sums merged(const Sums& a, const Sums& b) { return {a.dz + b.dz, a.dz_normalized + b.dz_normalized}; }

// Merges what the threads of a block have for the same channel, thread t with t + half, in a tree. Afterwards entry i * kThreads +
// t of `tree` is channel i of thread t for the first `width` threads.
template <int N, class Part>
__device__ void merge_in_block(Part* tree, const Part (&mine)[N], int width) {
  const int t = int(threadIdx.x);
#pragma unroll
  for (int i = 0; i < N; ++i) tree[i * kThreads + t] = mine[i];
  for (int half = kThreads / 2; half >= width; half /= 2) {
    __syncthreads();
    if (t < half) {
#pragma unroll
      for (int i = 0; i < N; ++i) tree[i * kThreads + t] = merged(tree[i * kThreads + t], tree[i * kThreads + t + half]);
    }
  }
}

// Entry (chunk, c) of `partial`, a matrix of chunks x cols.
template <int N, class Part>
__device__ void store_partial(Part* partial, const Part* tree, const ColumnPlan& plan, const ColumnPlace& at, int cols) {
  if (int(threadIdx.x) >= plan.width) return;
#pragma unroll
  for (int i = 0; i < N; ++i) {
    if (i < at.count) partial[int64_t(at.chunk) * cols + at.col + i] = tree[i * kThreads + int(threadIdx.x)];
  }
}

// Hands finish(c, part) the merged chunks of channel c.
// Thread t: channel t % 8 of the block's eight, chunks t / 8, t / 8 + 32, ...; then a tree. A chunk's eight parts are neighbours.
constexpr int kMergeChannels = 8;
template <class Part, class Finish>
__global__ void __launch_bounds__(kThreads) merge_chunks_kernel(const Part* partial, int chunks, int cols, Finish finish) {
  TESSERA_SHARED(tree, Part[kThreads]);
  const int t = int(threadIdx.x);
  const int c = int(blockIdx.x) * kMergeChannels + t % kMergeChannels;
  Part mine[1] = {};
  if (c < cols) {
    for (int k = t / kMergeChannels; k < chunks; k += kThreads / kMergeChannels) {
      mine[0] = merged(mine[0], partial[int64_t(k) * cols + c]);
    }
  }
  merge_in_block<1>(tree, mine, kMergeChannels);
  if (t < kMergeChannels && c < cols) finish(c, tree[t]);
}

template <class Part, class Finish>
void merge_chunks(const char* name, const Scratch<Part>& partial, const ColumnPlan& plan, int64_t cols, const Finish& finish) {
  launch(name, {dim3(blocks_for(cols, kMergeChannels)), dim3(kThreads)}, merge_chunks_kernel<Part, Finish>,
         static_cast<const Part*>(partial.get()), plan.chunks, size32(cols), finish);
}

// ---- statistics

// Moments of a chunk of rows of every channel, of x - row 0: deviations stay small numbers however far from 0 the channel lies.
// Thread: N channels, its rows in groups. A group is held in registers, so its mean is known before the deviations from
// it are squared, and its reads of 16 bytes are under way together.
template <class T, int N>
__global__ void __launch_bounds__(kThreads) stats_kernel(Rows<const T> x, Moments* partial, ColumnPlan plan) {
  TESSERA_SHARED(tree, Moments[N * kThreads]);
  const ColumnPlace at = column_place<N>(plan, x.rows, x.cols);
  Moments mine[N] = {};
  if (at.count > 0) {
    const Pack<T, N> origin = load_pack<N>(x.row(0) + at.col, at.count);
    for (int first = at.row; first < at.end; first += kGroup<N> * at.step) {
      Pack<T, N> group[kGroup<N>];
#pragma unroll
      for (int k = 0; k < kGroup<N>; ++k) {
        // The last group repeats its first row, which is not counted.
        const int r = first + k * at.step;
        group[k] = load_pack<N>(x.row(r < at.end ? r : first) + at.col, at.count);
      }
      const int n = min(kGroup<N>, (at.end - first + at.step - 1) / at.step);
      const float one_of_n = 1.0f / float(n);
#pragma unroll
      for (int i = 0; i < N; ++i) {
        float sum = 0;
#pragma unroll
        for (int k = 0; k < kGroup<N>; ++k) sum += k < n ? group[k].v[i] - origin.v[i] : 0.0f;
        Moments m{float(n), sum * one_of_n, 0};
#pragma unroll
        for (int k = 0; k < kGroup<N>; ++k) {
          const float deviation = k < n ? group[k].v[i] - origin.v[i] - m.mean : 0.0f;
          m.m2 += deviation * deviation;
        }
        mine[i] = merged(mine[i], m);
      }
    }
  }
  merge_in_block<N>(tree, mine, plan.width);
  store_partial<N>(partial, tree, plan, at, x.cols);
}

// RunningStatsView, a channel at a time. average + w (value - average), as in lerp_kernel of optim.cu.
struct Running {
  float* mean;
  float* var;
  float momentum;
  __device__ void move(int c, float batch_mean, float unbiased) const {
    if (mean == nullptr) return;
    mean[c] += momentum * (batch_mean - mean[c]);
    var[c] += momentum * (unbiased - var[c]);
  }
};
Running running_of(const RunningStatsView& r) { return {static_cast<float*>(r.mean), static_cast<float*>(r.var), float(r.momentum)}; }

// What normalises the batch, and the step of the running statistics, where the moments of all rows are known: any other place is a
// launch more.
template <class T>
struct StoreStats {
  const T* origin;
  float eps;
  Running running;
  float* mean;
  float* rstd;
  __device__ void operator()(int c, const Moments& m) const {
    const float batch_mean = load(origin[c]) + m.mean;
    mean[c] = batch_mean;
    rstd[c] = 1.0f / std::sqrt(m.m2 / m.n + eps);
    running.move(c, batch_mean, m.m2 / fmaxf(m.n - 1, 1.0f));
  }
};

// What a rank tells the others.
template <class T>
struct StorePart {
  const T* origin;
  float* rows;
  float* mean;
  float* var;
  __device__ void operator()(int c, const Moments& m) const {
    if (c == 0) rows[0] = m.n;
    mean[c] = load(origin[c]) + m.mean;
    var[c] = m.m2 / m.n;
  }
};

// store(origin) gives the functor that takes the moments of a channel; origin is row 0 of x, as the kernel reads it.
template <class Store>
void stats(const char* name, const char* merge_name, RowsView x, const Store& store) {
  for_floating(name, x.t, [&]<class T>() {
    with_pack<T>(
        [&]<int N>() {
          const ColumnPlan plan = plan_reduction<N>(x);
          const Scratch<Moments> partial(int64_t(plan.chunks) * x.cols);
          launch(name, plan.grid(), stats_kernel<T, N>, rows_of<const T>(x), partial.get(), plan);
          merge_chunks(merge_name, partial, plan, x.cols, store(static_cast<const T*>(x.p)));
        },
        x);
  });
}

// ---- forward

struct Channels {
  const float *mean, *rstd, *gamma, *beta;
};
Channels channels_of(const BatchNormView& bn) {
  auto as_floats = [](const void* p) { return static_cast<const float*>(p); };
  return {as_floats(bn.mean), as_floats(bn.rstd), as_floats(bn.gamma), as_floats(bn.beta)};
}

// y = act((x - mean) rstd gamma + beta) + residual, in one pass: x and residual are read once, y is written once, as a slice of a
// wider tensor if need be.
// Thread: N channels, rows `height` apart. x - mean comes first: x scale + shift would round at the size of x, not of its
// deviation.
template <class T, int N>
__global__ void __launch_bounds__(kThreads)
    apply_kernel(Rows<const T> x, Channels bn, Activation act, Rows<const T> residual, Rows<T> y, ColumnPlan plan) {
  const ColumnPlace at = column_place<N>(plan, x.rows, x.cols);
  if (at.count <= 0) return;
  const Pack<float, N> mean = channels<N>(bn.mean, at);
  const Pack<float, N> beta = channels<N>(bn.beta, at);
  Pack<float, N> scale = channels<N>(bn.rstd, at);
  const Pack<float, N> gamma = channels<N>(bn.gamma, at);
#pragma unroll
  for (int i = 0; i < N; ++i) scale.v[i] *= gamma.v[i];
  for (int r = at.row; r < at.end; r += at.step) {
    Pack<T, N> v = load_pack<N>(x.row(r) + at.col, at.count);
#pragma unroll
    for (int i = 0; i < N; ++i) v.v[i] = activate(act, (v.v[i] - mean.v[i]) * scale.v[i] + beta.v[i]);
    if (residual.p) {
      const Pack<T, N> addend = load_pack<N>(residual.row(r) + at.col, at.count);
#pragma unroll
      for (int i = 0; i < N; ++i) v.v[i] += addend.v[i];
    }
    store_pack<N>(y.row(r) + at.col, v, at.count);
  }
}

// ---- backward

// The numbers of N channels that give xhat and dz of an element back from x and dy.
template <int N>
struct Recompute {
  Pack<float, N> mean, rstd, gamma, beta;

  __device__ Recompute(const Channels& bn, const ColumnPlace& at)
      : mean(channels<N>(bn.mean, at)),
        rstd(channels<N>(bn.rstd, at)),
        gamma(channels<N>(bn.gamma, at)),
        beta(channels<N>(bn.beta, at)) {}
  __device__ float normalized(int i, float x) const { return (x - mean.v[i]) * rstd.v[i]; }
  __device__ float dz(int i, Activation act, float xhat, float dy) const {
    return dy * activation_slope(act, xhat * gamma.v[i] + beta.v[i]);
  }
};

// First pass: over a chunk of rows of every channel, sum of dz and of dz xhat, with xhat = (x - mean) rstd, z = xhat gamma + beta
// and dz = dy act'(z). z and its sigmoid are computed again: cheaper than a tensor more to write and to read. Thread: N channels,
// rows `height` apart; then a tree. The 2 or 3 blocks are a permission: left alone, ptxas saves registers on sm_80 until it spills.
template <class T, int N>
__global__ void __launch_bounds__(kThreads, N > 4 ? 2 : 3)
    backward_sums_kernel(Rows<const T> x, Rows<const T> dy, Channels bn, Activation act, Sums* partial, ColumnPlan plan) {
  TESSERA_SHARED(tree, Sums[N * kThreads]);
  const ColumnPlace at = column_place<N>(plan, x.rows, x.cols);
  Sums mine[N] = {};
  if (at.count > 0) {
    const Recompute<N> of(bn, at);
    for (int r = at.row; r < at.end; r += at.step) {
      const Pack<T, N> v = load_pack<N>(x.row(r) + at.col, at.count);
      const Pack<T, N> g = load_pack<N>(dy.row(r) + at.col, at.count);
#pragma unroll
      for (int i = 0; i < N; ++i) {
        const float xhat = of.normalized(i, v.v[i]);
        const float dz = of.dz(i, act, xhat, g.v[i]);
        mine[i] = merged(mine[i], Sums{dz, dz * xhat});
      }
    }
  }
  merge_in_block<N>(tree, mine, plan.width);
  store_partial<N>(partial, tree, plan, at, x.cols);
}

// dgamma = sum of dz xhat, dbeta = sum of dz; the means over the rows stay for the second pass.
struct StoreGradients {
  float* dgamma;
  float* dbeta;
  bool accumulate;
  float rows;
  float* mean_dz;
  float* mean_dz_normalized;
  __device__ void operator()(int c, const Sums& s) const {
    put(dgamma[c], s.dz_normalized, accumulate);
    put(dbeta[c], s.dz, accumulate);
    mean_dz[c] = s.dz / rows;
    mean_dz_normalized[c] = s.dz_normalized / rows;
  }
};

// Second pass: dx = gamma rstd (dz - mean(dz) - xhat mean(dz xhat)): what is left when the parts that act through mean and variance
// are taken away. Threads as in apply_kernel; dx may be dy: a thread reads its pack before it writes it.
template <class T, int N>
__global__ void __launch_bounds__(kThreads)
    backward_dx_kernel(Rows<const T> x, Rows<const T> dy, Channels bn, Activation act, const float* mean_dz,
                       const float* mean_dz_normalized, Rows<T> dx, ColumnPlan plan) {
  const ColumnPlace at = column_place<N>(plan, x.rows, x.cols);
  if (at.count <= 0) return;
  const Recompute<N> of(bn, at);
  const Pack<float, N> constant = channels<N>(mean_dz, at);
  const Pack<float, N> slope = channels<N>(mean_dz_normalized, at);
  for (int r = at.row; r < at.end; r += at.step) {
    const Pack<T, N> v = load_pack<N>(x.row(r) + at.col, at.count);
    Pack<T, N> g = load_pack<N>(dy.row(r) + at.col, at.count);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const float xhat = of.normalized(i, v.v[i]);
      const float through_statistics = constant.v[i] + xhat * slope.v[i];
      g.v[i] = of.gamma.v[i] * of.rstd.v[i] * (of.dz(i, act, xhat, g.v[i]) - through_statistics);
    }
    store_pack<N>(dx.row(r) + at.col, g, at.count);
  }
}

// ---- several ranks

__device__ double all_rows(const Rows<const float>& parts) {
  double rows = 0;
  for (int r = 0; r < parts.rows; ++r) rows += double(parts.row(r)[0]);
  return rows;
}

// mean = sum over the ranks of n_r / n mean_r, var = sum of n_r / n (var_r + (mean_r - mean)^2). Thread: a channel, through the
// parts in rank order; a warp reads neighbours. In double, as on the host: a few values for each channel.
__global__ void __launch_bounds__(kThreads)
    join_kernel(Rows<const float> parts, int channels, double eps, Running running, float* mean, float* rstd) {
  const int c = int(blockIdx.x) * kThreads + int(threadIdx.x);
  if (c >= channels) return;
  const double rows = all_rows(parts);
  double center = 0, var = 0;
  for (int r = 0; r < parts.rows; ++r) {
    const float* const part = parts.row(r);
    center += double(part[0]) / rows * double(part[1 + c]);
  }
  for (int r = 0; r < parts.rows; ++r) {
    const float* const part = parts.row(r);
    const double off = double(part[1 + c]) - center;
    var += double(part[0]) / rows * (double(part[1 + channels + c]) + off * off);
  }
  mean[c] = float(center);
  rstd[c] = float(1 / sqrt(var + eps));
  running.move(c, float(center), float(rows > 1 ? var * (rows / (rows - 1)) : var));
}

// Thread: a channel; a warp reads neighbours.
__global__ void __launch_bounds__(kThreads) rstd_kernel(Rows<const float> var, float eps, float* rstd) {
  const int c = int(blockIdx.x) * kThreads + int(threadIdx.x);
  if (c < var.cols) rstd[c] = 1.0f / std::sqrt(var.row(0)[c] + eps);
}

// slope = gamma rstd (own dgamma / own rows - sum of dgamma / all rows), offset alike from dbeta. Thread: a channel; a warp reads
// neighbours.
__global__ void __launch_bounds__(kThreads)
    correction_kernel(Rows<const float> parts, Rows<const float> sums, int channels, int own, const float* gamma, const float* rstd,
                      float* slope, float* offset) {
  const int c = int(blockIdx.x) * kThreads + int(threadIdx.x);
  if (c >= channels) return;
  const double rows = all_rows(parts), own_rows = double(parts.row(own)[0]);
  double dgamma = 0, dbeta = 0;
  for (int r = 0; r < sums.rows; ++r) {
    dgamma += double(sums.row(r)[c]);
    dbeta += double(sums.row(r)[channels + c]);
  }
  const double scale = double(gamma[c]) * double(rstd[c]);
  slope[c] = float(scale * (double(sums.row(own)[c]) / own_rows - dgamma / rows));
  offset[c] = float(scale * (double(sums.row(own)[channels + c]) / own_rows - dbeta / rows));
}

}  // namespace

void batch_norm_stats(RowsView x, double eps, const RunningStatsView& running, void* mean, void* rstd) {
  stats("batch_norm_stats", "batch_norm_stats, merge", x, [&]<class T>(const T* origin) {
    return StoreStats<T>{origin, float(eps), running_of(running), static_cast<float*>(mean), static_cast<float*>(rstd)};
  });
}

void batch_norm_rstd(RowsView var, double eps, void* rstd) {
  expect_f32("batch_norm_rstd", var.t);
  launch("batch_norm_rstd", one_thread_each(var.cols, kThreads), rstd_kernel, rows_of<const float>(var), float(eps),
         static_cast<float*>(rstd));
}

void batch_norm_apply(RowsView x, const BatchNormView& bn, Activation act, RowsView residual, RowsView y) {
  for_floating("batch_norm_apply", x.t, [&]<class T>() {
    with_pack<T>(
        [&]<int N>() {
          const ColumnPlan plan = plan_elementwise<N>(x);
          launch("batch_norm_apply", plan.grid(), apply_kernel<T, N>, rows_of<const T>(x), channels_of(bn), act,
                 rows_of<const T>(residual), rows_of<T>(y), plan);
        },
        x, residual, y);
  });
}

void batch_norm_backward(RowsView x, RowsView dy, const BatchNormView& bn, Activation act, RowsView dx, void* dgamma, void* dbeta,
                         bool accumulate) {
  const Scratch<float> means(2 * x.cols);
  float* const mean_dz = means.get();
  float* const mean_dz_normalized = mean_dz + x.cols;
  for_floating("batch_norm_backward", x.t, [&]<class T>() {
    with_pack<T>(
        [&]<int N>() {
          const ColumnPlan sums = plan_reduction<N>(x);
          const Scratch<Sums> partial(int64_t(sums.chunks) * x.cols);
          launch("batch_norm_backward, sums", sums.grid(), backward_sums_kernel<T, N>, rows_of<const T>(x), rows_of<const T>(dy),
                 channels_of(bn), act, partial.get(), sums);
          merge_chunks("batch_norm_backward, merge", partial, sums, x.cols,
                       StoreGradients{static_cast<float*>(dgamma), static_cast<float*>(dbeta), accumulate, float(x.rows), mean_dz,
                                      mean_dz_normalized});
          const ColumnPlan plan = plan_elementwise<N>(x);
          launch("batch_norm_backward, dx", plan.grid(), backward_dx_kernel<T, N>, rows_of<const T>(x), rows_of<const T>(dy),
                 channels_of(bn), act, static_cast<const float*>(mean_dz), static_cast<const float*>(mean_dz_normalized),
                 rows_of<T>(dx), plan);
        },
        x, dy, dx);
  });
}

void batch_norm_part(RowsView x, void* part) {
  float* const rows = static_cast<float*>(part);
  stats("batch_norm_part", "batch_norm_part, merge", x,
        [&]<class T>(const T* origin) { return StorePart<T>{origin, rows, rows + 1, rows + 1 + x.cols}; });
}

void batch_norm_join(RowsView parts, double eps, const RunningStatsView& running, void* mean, void* rstd) {
  expect_f32("batch_norm_join", parts.t);
  const int channels = size32((parts.cols - 1) / 2);
  launch("batch_norm_join", one_thread_each(channels, kThreads), join_kernel, rows_of<const float>(parts), channels, eps,
         running_of(running), static_cast<float*>(mean), static_cast<float*>(rstd));
}

void batch_norm_correction(RowsView parts, RowsView sums, int64_t own, const void* gamma, const void* rstd, void* slope,
                           void* offset) {
  expect_f32("batch_norm_correction", parts.t);
  const int channels = size32((parts.cols - 1) / 2);
  launch("batch_norm_correction", one_thread_each(channels, kThreads), correction_kernel, rows_of<const float>(parts),
         rows_of<const float>(sums), channels, size32(own), static_cast<const float*>(gamma), static_cast<const float*>(rstd),
         static_cast<float*>(slope), static_cast<float*>(offset));
}

}  // namespace tessera::cuda
