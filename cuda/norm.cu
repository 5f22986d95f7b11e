// Batch normalisation, alone or fused with SiLU and a residual sum, over the columns (channels) of a matrix
// (cuda/device/columns.cuh). All of it is memory: each thread has several reads of 16 bytes under way, and no branch between them.
// T is the type of the batch; arithmetic and what belongs to a channel is f32.
#include <algorithm>
#include <type_traits>

#include "cuda/conv.h"
#include "cuda/device/batch_stats.cuh"
#include "cuda/device/columns.cuh"
#include "cuda/device/math.cuh"
#include "cuda/device/moments.cuh"
#include "cuda/device/rows.cuh"
#include "cuda/kernels.h"

namespace tessera::cuda {

namespace {

constexpr int kThreads = 256;

constexpr int kResident = 3;  // blocks of a multiprocessor, of the elementwise kernels

// An elementwise kernel. Every thread gets so many rows that all blocks are resident at once: a second wave of a few blocks would
// take as long as the first. Rows are read in groups of up to four.
template <int N>
ColumnPlan plan_elementwise(const RowsView& x) {
  constexpr int64_t kThreadsAtOnce = kResident * kPlannedMultiprocessors * kThreads, kAnyNumberOfBlocks = int64_t{1} << 30;
  const int64_t rows = std::max<int64_t>(1, (x.rows * x.cols / N + kThreadsAtOnce - 1) / kThreadsAtOnce);
  return plan_columns<N>(x, kThreads, kWarp, kAnyNumberOfBlocks, rows <= 4 ? rows : (rows + 3) / 4 * 4);
}

// Whether a kernel subtracts the mean before it scales, or has the mean in the shift: scale (x - mean) + beta, or scale x + shift
// in one instruction. The second rounds at the size of x, the first at that of its deviation. An f32 batch would lose bits by the
// second; a 16-bit x was itself rounded at its size, thousands of times coarser.
template <class T>
inline constexpr bool kCentered = std::is_same_v<T, float>;

// N entries of a per-channel vector. Parameters lie in an arena and may begin at any element, hence the path without wide accesses.
template <int N>
__device__ Pack<float, N> channels(const float* v, int col) {
  constexpr int kStep = N < 4 ? N : 4;
  Pack<float, N> r;
  if (reinterpret_cast<uintptr_t>(v) % 16 == 0) {
#pragma unroll
    for (int i = 0; i < N; i += kStep) {
      const Packed<float, kStep> four = load_packed<kStep>(v + col + i);
#pragma unroll
      for (int k = 0; k < kStep; ++k) r.v[i + k] = four.v[k];
    }
  } else {
#pragma unroll
    for (int i = 0; i < N; ++i) r.v[i] = v[col + i];
  }
  return r;
}

// Rows `row`, row + step, ... of a thread's N channels, U of them read together. Past the end the thread's row `instead` is read.
template <int U, int N, class T>
__device__ void load_group(Packed<T, N> (&group)[U], const Rows<const T>& x, const ColumnPlace& at, int row, int instead) {
#pragma unroll
  for (int k = 0; k < U; ++k) {
    const int r = row + k * at.step;
    group[k] = load_packed<N>(x.row(r < at.end ? r : instead) + at.col);
  }
}

// ---- what is formed over the rows of a channel

// The two sums of the backward pass.
struct Sums {
  float dz, dz_deviation;
};
struct JoinedSums {
  double dz, dz_deviation;
  JoinedSums() = default;
  __device__ explicit JoinedSums(const Sums&) : dz(0), dz_deviation(0) {}
  __device__ void add(const Sums& part) {
    dz += double(part.dz);
    dz_deviation += double(part.dz_deviation);
  }
  __device__ void add(const JoinedSums& other) {
    dz += other.dz;
    dz_deviation += other.dz_deviation;
  }
  __device__ Sums result() const { return {float(dz), float(dz_deviation)}; }
};
struct CombinedSums {
  template <class Get>
  __device__ Sums operator()(int parts, const Get& part) const {
    Sums all{};
    for (int k = 0; k < parts; ++k) {
      const Sums s = part(k);
      all.dz += s.dz;
      all.dz_deviation += s.dz_deviation;
    }
    return all;
  }
};

// ---- statistics

// Moments of a chunk of rows of every channel, of x - row 0: deviations stay small numbers however far from 0 the channel lies.
// Thread: N channels; sums of d and d^2, d being the deviation from the thread's own first row. That row is among the values, so
// its own squared deviation from the mean bounds what the subtraction at the end can lose: an error of some roundings for each row
// of a thread, whatever the values are. d of a row past the end is 0.
constexpr int kStatsGroup = 4;
template <class T, int N>
__global__ void __launch_bounds__(kReductionThreads, 2) stats_kernel(Rows<const T> x, Chunks<Moments> chunks, ColumnPlan plan) {
  wait_for_kernel_before();
  TESSERA_SHARED(parts, Moments[N * kReductionThreads]);
  const ColumnPlace at = column_place<N>(plan, x.rows, x.cols);
  Moments mine[N] = {};
  if (at.any) {
    float sum[N] = {}, squares[N] = {};
    const Packed<T, N> first = load_packed<N>(x.row(at.row) + at.col);
    const Pack<T, N> own = unpacked(first);
    for (int row = at.row; row < at.end; row += kStatsGroup * at.step) {
      Packed<T, N> group[kStatsGroup];
      load_group(group, x, at, row, at.row);
#pragma unroll
      for (int k = 0; k < kStatsGroup; ++k) {
        const Pack<T, N> v = unpacked(group[k]);
#pragma unroll
        for (int i = 0; i < N; ++i) {
          const float d = v.v[i] - own.v[i];
          sum[i] += d;
          squares[i] += d * d;
        }
      }
    }
    const float n = float((at.end - at.row + at.step - 1) / at.step);
    const float one_of_n = 1.0f / n;
    const Pack<T, N> origin = unpacked(load_packed<N>(x.row(0) + at.col));
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const float mean = sum[i] * one_of_n;
      mine[i] = {n, own.v[i] - origin.v[i] + mean, max(0.0f, squares[i] - sum[i] * mean)};
    }
  }
  leave_chunk(chunks, parts, mine, plan, at, CombinedMoments{});
}

// With several ranks: what one tells the others (batch_norm_part of tensor/ops/norm.h).
template <class T>
struct StorePart {
  const T* origin;
  double* rows;
  double* sums;
  double* squares;  // about the mean
  __device__ void operator()(int c, const JoinedMoments::Wide& m) const {
    if (c == 0) rows[0] = m.n;
    sums[c] = m.n * (double(load(origin[c])) + m.mean);
    squares[c] = m.m2;
  }
};

// Both launches of the statistics. `store` is called with row 0 of x, from which the kernel's moments are counted, and returns the
// functor that takes the moments of each channel.
template <class Store>
void stats(const char* name, RowsView x, const Store& store) {
  for_floating(name, x.t, [&]<class T>() {
    with_whole_packs<T>(
        [&]<int N>() {
          const ColumnPlan plan = plan_reduction<N>(x, kStatsGroup);
          const ChunkRoom<Moments> room(plan.chunks, x.cols);
          launch(name, plan.grid(), stats_kernel<T, N>, rows_of<const T>(x), room.get(), plan);
          join_chunks<JoinedMoments>(name, room, store(static_cast<const T*>(x.p)));
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
// Thread: N channels, rows `height` apart, a group of them together; the first are read before the numbers of the channels.
template <class T, int N, Activation kAct, bool kResidual>
__global__ void __launch_bounds__(kThreads, kResident)
    apply_kernel(Rows<const T> x, Channels bn, Rows<const T> residual, Rows<T> y, ColumnPlan plan) {
  wait_for_kernel_before();
  constexpr int kGroup = kResidual ? 2 : 4;
  const ColumnPlace at = column_place<N>(plan, x.rows, x.cols);
  if (!at.any) return;
  Packed<T, N> group[kGroup], addend[kGroup];
  load_group(group, x, at, at.row, at.row);
  if constexpr (kResidual) load_group(addend, residual, at, at.row, at.row);
  const Pack<float, N> mean = channels<N>(bn.mean, at.col);
  Pack<float, N> shift = channels<N>(bn.beta, at.col);
  Pack<float, N> scale = channels<N>(bn.rstd, at.col);
  const Pack<float, N> gamma = channels<N>(bn.gamma, at.col);
#pragma unroll
  for (int i = 0; i < N; ++i) {
    scale.v[i] *= gamma.v[i];
    if constexpr (!kCentered<T>) shift.v[i] -= mean.v[i] * scale.v[i];
  }
  for (int row = at.row;;) {
#pragma unroll
    for (int k = 0; k < kGroup; ++k) {
      const int r = row + k * at.step;
      Pack<T, N> v = unpacked(group[k]);
#pragma unroll
      for (int i = 0; i < N; ++i) {
        if constexpr (kCentered<T>) v.v[i] -= mean.v[i];
        v.v[i] = activate<T, kAct>(v.v[i] * scale.v[i] + shift.v[i]);
      }
      if constexpr (kResidual) {
        const Pack<T, N> more = unpacked(addend[k]);
#pragma unroll
        for (int i = 0; i < N; ++i) v.v[i] += more.v[i];
      }
      if (r < at.end) store_pack<N>(y.row(r) + at.col, v);
    }
    row += kGroup * at.step;
    if (row >= at.end) return;
    load_group(group, x, at, row, row);
    if constexpr (kResidual) load_group(addend, residual, at, row, row);
  }
}

// ---- backward

// What the second pass needs of a channel: z = scale v + shift and dx = scale dz + slope v + offset, where v is x - mean or x
// itself.
struct BackwardChannels {
  float *scale, *shift, *slope, *offset;
};

// dgamma = sum of dz xhat with xhat = (x - mean) rstd, dbeta = sum of dz, and the second pass's numbers.
template <bool kOfDeviation>
struct StoreGradients {
  Channels bn;
  float* dgamma;
  float* dbeta;
  bool accumulate;
  float rows;
  BackwardChannels out;
  __device__ void operator()(int c, const Sums& s) const {
    const float rstd = bn.rstd[c];
    const float scale = bn.gamma[c] * rstd;
    const float dz_normalized = s.dz_deviation * rstd;
    put(dgamma[c], dz_normalized, accumulate);
    put(dbeta[c], s.dz, accumulate);
    const float slope = -scale * rstd * (dz_normalized / rows);
    const float zero_at = kOfDeviation ? 0.0f : bn.mean[c];
    out.scale[c] = scale;
    out.shift[c] = bn.beta[c] - scale * zero_at;
    out.slope[c] = slope;
    out.offset[c] = -scale * (s.dz / rows) - slope * zero_at;
  }
};

// First pass: over a chunk of rows of every channel, sum of dz and of dz (x - mean), with z = (x - mean) rstd gamma + beta and
// dz = dy act'(z). z and its sigmoid are computed again: cheaper than a tensor more to write and to read. Thread: N channels, rows
// `height` apart, kBackwardGroup of them together; a row past the end has dy = 0.
constexpr int kBackwardGroup = 2;
template <class T, int N, Activation kAct>
__global__ void __launch_bounds__(kReductionThreads, 2)
    backward_sums_kernel(Rows<const T> x, Rows<const T> dy, Channels bn, Chunks<Sums> chunks, ColumnPlan plan) {
  wait_for_kernel_before();
  TESSERA_SHARED(parts, Sums[N * kReductionThreads]);
  const ColumnPlace at = column_place<N>(plan, x.rows, x.cols);
  Sums mine[N] = {};
  if (at.any) {
    const Pack<float, N> mean = channels<N>(bn.mean, at.col);
    const Pack<float, N> beta = channels<N>(bn.beta, at.col);
    Pack<float, N> scale = channels<N>(bn.rstd, at.col);
    const Pack<float, N> gamma = channels<N>(bn.gamma, at.col);
#pragma unroll
    for (int i = 0; i < N; ++i) scale.v[i] *= gamma.v[i];
    for (int row = at.row; row < at.end; row += kBackwardGroup * at.step) {
      Packed<T, N> group[kBackwardGroup], gradient[kBackwardGroup];
      load_group(group, x, at, row, row);
#pragma unroll
      for (int k = 0; k < kBackwardGroup; ++k) {
        const int r = row + k * at.step;
        gradient[k] = r < at.end ? load_packed<N>(dy.row(r) + at.col) : Packed<T, N>{};
      }
#pragma unroll
      for (int k = 0; k < kBackwardGroup; ++k) {
        const Pack<T, N> v = unpacked(group[k]);
        const Pack<T, N> g = unpacked(gradient[k]);
#pragma unroll
        for (int i = 0; i < N; ++i) {
          const float deviation = v.v[i] - mean.v[i];
          const float dz = g.v[i] * activation_slope<T, kAct>(deviation * scale.v[i] + beta.v[i]);
          mine[i].dz += dz;
          mine[i].dz_deviation += dz * deviation;
        }
      }
    }
  }
  leave_chunk(chunks, parts, mine, plan, at, CombinedSums{});
}

// Second pass: dx = gamma rstd (dz - mean(dz) - xhat mean(dz xhat)): what is left when the parts that act through mean and variance
// are taken away. Threads as in apply_kernel; dx may be dy: a thread reads its packs before it writes them.
template <class T, int N, Activation kAct>
__global__ void __launch_bounds__(kThreads, kResident)
    backward_dx_kernel(Rows<const T> x, Rows<const T> dy, const float* mean, BackwardChannels of, Rows<T> dx, ColumnPlan plan) {
  wait_for_kernel_before();
  const ColumnPlace at = column_place<N>(plan, x.rows, x.cols);
  if (!at.any) return;
  Packed<T, N> group[kBackwardGroup], gradient[kBackwardGroup];
  load_group(group, x, at, at.row, at.row);
  load_group(gradient, dy, at, at.row, at.row);
  Pack<float, N> center;
  if constexpr (kCentered<T>) center = channels<N>(mean, at.col);
  const Pack<float, N> scale = channels<N>(of.scale, at.col);
  const Pack<float, N> shift = channels<N>(of.shift, at.col);
  const Pack<float, N> slope = channels<N>(of.slope, at.col);
  const Pack<float, N> offset = channels<N>(of.offset, at.col);
  for (int row = at.row;;) {
#pragma unroll
    for (int k = 0; k < kBackwardGroup; ++k) {
      const int r = row + k * at.step;
      Pack<T, N> v = unpacked(group[k]);
      Pack<T, N> g = unpacked(gradient[k]);
#pragma unroll
      for (int i = 0; i < N; ++i) {
        if constexpr (kCentered<T>) v.v[i] -= center.v[i];
        const float dz = g.v[i] * activation_slope<T, kAct>(v.v[i] * scale.v[i] + shift.v[i]);
        g.v[i] = scale.v[i] * dz + (slope.v[i] * v.v[i] + offset.v[i]);
      }
      if (r < at.end) store_pack<N>(dx.row(r) + at.col, g);
    }
    row += kBackwardGroup * at.step;
    if (row >= at.end) return;
    load_group(group, x, at, row, row);
    load_group(gradient, dy, at, row, row);
  }
}

// ---- several ranks

__device__ double all_rows(const Rows<const double>& parts) {
  double rows = 0;
  for (int r = 0; r < parts.rows; ++r) rows += parts.row(r)[0];
  return rows;
}

// mean = sum over the ranks of sum_r / n, var = sum of (squares_r + n_r (sum_r / n_r - mean)^2) / n. Thread: a channel, through the
// parts in rank order; a warp reads neighbours. In double, as on the host: a few values for each channel.
__global__ void __launch_bounds__(kThreads)
    join_kernel(Rows<const double> parts, int channels, double eps, Running running, float* mean, float* rstd) {
  const int c = int(blockIdx.x) * kThreads + int(threadIdx.x);
  if (c >= channels) return;
  const double rows = all_rows(parts);
  double center = 0, var = 0;
  for (int r = 0; r < parts.rows; ++r) {
    center += parts.row(r)[1 + c];
  }
  center /= rows;
  for (int r = 0; r < parts.rows; ++r) {
    const double* const part = parts.row(r);
    const double off = part[1 + c] / part[0] - center;
    var += part[1 + channels + c] + part[0] * off * off;
  }
  var /= rows;
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
    correction_kernel(Rows<const double> parts, Rows<const float> sums, int channels, int own, const float* gamma,
                      const float* rstd, float* slope, float* offset) {
  const int c = int(blockIdx.x) * kThreads + int(threadIdx.x);
  if (c >= channels) return;
  const double rows = all_rows(parts), own_rows = parts.row(own)[0];
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

void batch_norm_stats(ImageView x, double eps, const RunningStatsView& running, void* mean, void* rstd) {
  stats("batch_norm_stats", x.rows(), [&]<class T>(const T* origin) {
    return StoreStats<T>{origin, float(eps), running_of(running), static_cast<float*>(mean), static_cast<float*>(rstd)};
  });
}

void conv2d_with_stats(ImageView x, FilterView w, ImageView y, const ConvParams& p, double eps, const RunningStatsView& running,
                       void* mean, void* rstd) {
  ResultStats stats({nullptr, float(eps), running_of(running), static_cast<float*>(mean), static_cast<float*>(rstd)});
  conv2d(x, w, y, p, {}, &stats);
  stats.there() ? stats.join() : batch_norm_stats(y, eps, running, mean, rstd);
}

void batch_norm_rstd(RowsView var, double eps, void* rstd) {
  expect_f32("batch_norm_rstd", var.t);
  launch("batch_norm_rstd", one_thread_each(var.cols, kThreads), rstd_kernel, rows_of<const float>(var), float(eps),
         static_cast<float*>(rstd));
}

void batch_norm_apply(RowsView x, const BatchNormView& bn, Activation act, RowsView residual, RowsView y) {
  for_floating("batch_norm_apply", x.t, [&]<class T>() {
    with_whole_packs<T>(
        [&]<int N>() {
          with_activation(act, [&]<Activation kAct>() {
            const ColumnPlan plan = plan_elementwise<N>(x);
            launch("batch_norm_apply", plan.grid(), residual.p ? apply_kernel<T, N, kAct, true> : apply_kernel<T, N, kAct, false>,
                   rows_of<const T>(x), channels_of(bn), rows_of<const T>(residual), rows_of<T>(y), plan);
          });
        },
        x, residual, y);
  });
}

void batch_norm_backward(RowsView x, RowsView dy, const BatchNormView& bn, Activation act, RowsView dx, void* dgamma, void* dbeta,
                         bool accumulate) {
  const int64_t cols = (x.cols + 3) / 4 * 4;  // each vector aligned for wide accesses
  const Scratch<float> vectors(4 * cols);
  const BackwardChannels of{vectors.get(), vectors.get() + cols, vectors.get() + 2 * cols, vectors.get() + 3 * cols};
  const Channels in = channels_of(bn);
  for_floating("batch_norm_backward", x.t, [&]<class T>() {
    with_whole_packs<T>(
        [&]<int N>() {
          with_activation(act, [&]<Activation kAct>() {
            const ColumnPlan sums = plan_reduction<N>(x, kBackwardGroup);
            const ChunkRoom<Sums> room(sums.chunks, x.cols);
            const StoreGradients<kCentered<T>> store{
                in, static_cast<float*>(dgamma), static_cast<float*>(dbeta), accumulate, float(x.rows), of};
            launch("batch_norm_backward, sums", sums.grid(), backward_sums_kernel<T, N, kAct>, rows_of<const T>(x),
                   rows_of<const T>(dy), in, room.get(), sums);
            join_chunks<JoinedSums>("batch_norm_backward, joined", room, store);
            const ColumnPlan plan = plan_elementwise<N>(x);
            launch("batch_norm_backward, dx", plan.grid(), backward_dx_kernel<T, N, kAct>, rows_of<const T>(x),
                   rows_of<const T>(dy), in.mean, of, rows_of<T>(dx), plan);
          });
        },
        x, dy, dx);
  });
}

void batch_norm_part(ImageView x, double* part) {
  stats("batch_norm_part", x.rows(), [&]<class T>(const T* origin) {
    return StorePart<T>{origin, part, part + 1, part + 1 + x.c};
  });
}

void batch_norm_join(RowsView parts, double eps, const RunningStatsView& running, DType type, void* mean, void* rstd) {
  expect_f32("batch_norm_join", type);
  const int channels = size32((parts.cols - 1) / 2);
  launch("batch_norm_join", one_thread_each(channels, kThreads), join_kernel, rows_of<const double>(parts), channels, eps,
         running_of(running), static_cast<float*>(mean), static_cast<float*>(rstd));
}

void batch_norm_correction(RowsView parts, RowsView sums, int64_t own, const void* gamma, const void* rstd, void* slope,
                           void* offset) {
  expect_f32("batch_norm_correction", sums.t);
  const int channels = size32((parts.cols - 1) / 2);
  launch("batch_norm_correction", one_thread_each(channels, kThreads), correction_kernel, rows_of<const double>(parts),
         rows_of<const float>(sums), channels, size32(own), static_cast<const float*>(gamma), static_cast<const float*>(rstd),
         static_cast<float*>(slope), static_cast<float*>(offset));
}

}  // namespace tessera::cuda
