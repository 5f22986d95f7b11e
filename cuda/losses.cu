// Loss kernels: cross-entropy, CIoU, distribution focal loss. Formulas: tensor/ops/losses.h.
//
// A sum is formed in two stages: every block leaves the sum of its share, the last one adds up what they left. Which element goes
// into which partial sum depends on shapes only. Partial sums are in double: the terms of a batch run into millions.
#include <algorithm>
#include <cmath>

#include "cuda/device/element.cuh"
#include "cuda/device/loss_sum.cuh"
#include "cuda/device/reduce.cuh"
#include "cuda/device/rows.cuh"
#include "cuda/kernels.h"
#include "cuda/launch.cuh"
#include "tensor/ops/pointwise_functors.h"

namespace tessera::cuda {

namespace {

// ---- binary cross-entropy

// The sum of the cross-entropy.
// A block takes 1024 packs one after the other in memory, a thread four of them, 256 packs apart: a warp reads 512 adjacent bytes
// of both inputs at a time.
template <int N>
__global__ void __launch_bounds__(kThreads)
    bce_kernel(Rows<const float> x, Rows<const float> target, int packs_of_row, BlockSums sums) {
  wait_for_kernel_before();
  const int begin = int(blockIdx.x) * kPacksOfBlock;
  const int end = min(begin + kPacksOfBlock, x.rows * packs_of_row);
  double sum = 0;
  for (int i = begin + int(threadIdx.x); i < end; i += kThreads) {
    const int row = i / packs_of_row;
    const int col = (i - row * packs_of_row) * N;
    const int count = x.cols - col;
    const Pack<float, N> v = load_pack<N>(x.row(row) + col, count);
    const Pack<float, N> t = load_pack<N>(target.row(row) + col, count);
    float of_pack = 0;
#pragma unroll
    for (int j = 0; j < N; ++j) of_pack += j < count ? cross_entropy(v.v[j], t.v[j]) : 0.0f;
    sum += of_pack;
  }
  add_to_total(sums, sum);
}

// dx = (sigmoid(x) - t) scale, or dx += that.
// A thread handles N neighbours: 16 bytes where rows are aligned, so a warp reads and writes 512 adjacent bytes.
template <int N>
__global__ void __launch_bounds__(kThreads) bce_backward_kernel(Rows<const float> x, Rows<const float> target, const float* scale,
                                                                Rows<float> dx, bool accumulate, int col_tiles) {
  wait_for_kernel_before();
  const RowPlace at = row_place<N>(dx.rows, dx.cols, col_tiles);
  if (at.count <= 0) return;
  Pack<float, N> v = load_pack<N>(x.row(at.row) + at.col, at.count);
  const Pack<float, N> t = load_pack<N>(target.row(at.row) + at.col, at.count);
  float* const out = dx.row(at.row) + at.col;
  const float factor = *scale;
#pragma unroll
  for (int i = 0; i < N; ++i) v.v[i] = (functors::Sigmoid::f(v.v[i]) - t.v[i]) * factor;
  if (accumulate) {
    const Pack<float, N> before = load_pack<N>(out, at.count);
#pragma unroll
    for (int i = 0; i < N; ++i) v.v[i] += before.v[i];
  }
  store_pack<N>(out, v, at.count);
}

// ---- CIoU

// 1 where a > b, 0 where a < b; where both are equal each side of a maximum counts half.
__device__ double above(double a, double b) { return a > b ? 1.0 : a < b ? 0.0 : 0.5; }

// One axis of two boxes. Derivatives are with respect to the low and the high corner of the predicted one.
struct Axis {
  double size, target_size;
  double overlap, d_overlap[2];  // of both intervals
  double cover, d_cover[2];      // length of the interval around both
  double offset;                 // twice the distance of the centres; its derivative is -1 for both corners

  __device__ Axis(double low, double high, double target_low, double target_high)
      : size(high - low),
        target_size(target_high - target_low),
        overlap((high < target_high ? high : target_high) - (low > target_low ? low : target_low)),
        d_overlap{-above(low, target_low), above(target_high, high)},
        cover((high > target_high ? high : target_high) - (low < target_low ? low : target_low)),
        d_cover{-above(target_low, low), above(high, target_high)},
        offset(target_low + target_high - low - high) {
    if (overlap < 0) overlap = d_overlap[0] = d_overlap[1] = 0;
  }
};

// Complete IoU of corner boxes: iou - distance / diagonal - alpha v, with the eps placement of spec 7.4. In double throughout:
// boxes are few, and differences of corners in pixels are small.
struct Ciou {
  static constexpr double kEps = 1e-7;
  static constexpr double kPi = 3.14159265358979323846;

  __device__ Ciou(const float* p, const float* t) : x(p[0], p[2], t[0], t[2]), y(p[1], p[3], t[1], t[3]) {
    y.size += kEps;
    y.target_size += kEps;
    const double inter = x.overlap * y.overlap;
    united = x.size * y.size + x.target_size * y.target_size - inter + kEps;
    iou = inter / united;
    diagonal = x.cover * x.cover + y.cover * y.cover + kEps;
    distance = (x.offset * x.offset + y.offset * y.offset) / 4 / diagonal;
    angle = std::atan(x.target_size / y.target_size) - std::atan(x.size / y.size);
    const double v = 4 / (kPi * kPi) * angle * angle;
    alpha = v / (v - iou + 1 + kEps);
    value = iou - distance - alpha * v;
  }

  // Of `value`, for the low and the high corner of axis `a`; `b` is the other one, `d_angle` the derivative of the angle for
  // a.size.
  __device__ double gradient(const Axis& a, const Axis& b, double d_angle, int corner) const {
    const double sign = corner == 0 ? -1 : 1;  // of d a.size
    const double d_inter = a.d_overlap[corner] * b.overlap;
    const double d_iou = (d_inter * (1 + iou) - iou * sign * b.size) / united;
    const double d_distance = (-a.offset / 2 - distance * 2 * a.cover * a.d_cover[corner]) / diagonal;
    const double d_v = 8 / (kPi * kPi) * angle * sign * d_angle;
    return d_iou - d_distance - alpha * d_v;  // no gradient through alpha
  }
  __device__ double gradient_x(int corner) const { return gradient(x, y, -y.size / (x.size * x.size + y.size * y.size), corner); }
  __device__ double gradient_y(int corner) const { return gradient(y, x, x.size / (x.size * x.size + y.size * y.size), corner); }

  Axis x, y;
  double united, iou, diagonal, distance, angle, alpha, value;
};

// The sum of weight (1 - CIoU); ciou, where it is asked for, gets the CIoU.
// One thread a box: four neighbouring numbers of each input.
__global__ void __launch_bounds__(kThreads)
    ciou_kernel(Rows<const float> boxes, Rows<const float> target, const float* weight, float* ciou, BlockSums sums) {
  wait_for_kernel_before();
  const int i = int(blockIdx.x) * kThreads + int(threadIdx.x);
  double term = 0;
  if (i < boxes.rows) {
    const double value = Ciou(boxes.row(i), target.row(i)).value;
    if (ciou != nullptr) ciou[i] = float(value);
    term = weight[i] * (1 - value);
  }
  add_to_total(sums, term);
}

// dboxes = -scale weight dCIoU/dboxes. One thread a box.
__global__ void __launch_bounds__(kThreads) ciou_backward_kernel(Rows<const float> boxes, Rows<const float> target,
                                                                 const float* weight, const float* scale, Rows<float> dboxes) {
  wait_for_kernel_before();
  const int i = int(blockIdx.x) * kThreads + int(threadIdx.x);
  if (i >= boxes.rows) return;
  const Ciou c(boxes.row(i), target.row(i));
  const double factor = -double(*scale) * weight[i];
  float* const out = dboxes.row(i);
#pragma unroll
  for (int corner = 0; corner < 2; ++corner) {
    out[2 * corner] = float(factor * c.gradient_x(corner));
    out[2 * corner + 1] = float(factor * c.gradient_y(corner));
  }
}

// ---- groups of eight lanes, four in a warp: one for each side of a box

constexpr int kGroup = 8;

// Every lane gets combine() of its group.
template <class Op>
__device__ float group_reduce(float value, Op combine = {}) {
#pragma unroll
  for (int distance = kGroup / 2; distance > 0; distance /= 2) {
    value = combine(value, __shfl_xor_sync(kAllLanes, value, distance));
  }
  return value;
}

// ---- distribution focal loss

// What a thread of the DFL kernels works on: one warp a box, whose 4 * bins logits lie side by side, and a group a side; lane l of
// the group has the bins l, l + 8, ... The target lies between the bins `low` and low + 1, which get the weights 1 - share and
// share.
struct DflSide {
  int row, first_bin, lane, low;
  bool valid;                 // of the last block, some warps have no box; they do the last one over
  float share, largest, sum;  // maximum of the logits, sum of exp(logit - largest)

  __device__ DflSide(const Rows<const float>& logits, const Rows<const float>& target, int bins) {
    const int t = int(threadIdx.x);
    const int side = t % kWarp / kGroup;
    row = int(blockIdx.x) * kWarps + t / kWarp;
    valid = row < logits.rows;
    row = min(row, logits.rows - 1);
    first_bin = side * bins;
    lane = t % kGroup;
    const float wanted = target.row(row)[side];
    low = int(wanted);
    share = wanted - float(low);
    TESSERA_DEVICE_ASSERT(low >= 0 && low + 1 < bins);
    const float* const x = logits.row(row) + first_bin;
    largest = -INFINITY;
    for (int b = lane; b < bins; b += kGroup) largest = Max()(largest, x[b]);
    largest = group_reduce<Max>(largest);
    sum = 0;
    for (int b = lane; b < bins; b += kGroup) sum += std::exp(x[b] - largest);
    sum = group_reduce<Add>(sum);
  }
};

// The sum over the boxes, eight a block, of weight * mean over the sides of (1 - share) CE(low) + share CE(low + 1), where
// CE(b) = largest + log(sum) - logit[b]. Threads: DflSide; a warp reads one row, 256 adjacent bytes for 16 bins.
__global__ void __launch_bounds__(kThreads)
    dfl_kernel(Rows<const float> logits, Rows<const float> target, const float* weight, int bins, BlockSums sums) {
  wait_for_kernel_before();
  const DflSide s(logits, target, bins);
  double term = 0;
  if (s.valid && s.lane == 0) {
    const float* const x = logits.row(s.row) + s.first_bin;
    const double expected = (1.0 - s.share) * x[s.low] + double(s.share) * x[s.low + 1];
    term = weight[s.row] * (s.largest - expected + std::log(s.sum)) / 4;
  }
  add_to_total(sums, term);
}

// dlogits = weight scale / 4 (softmax - two-bin target), or dlogits += that. Threads and memory as in dfl_kernel.
__global__ void __launch_bounds__(kThreads)
    dfl_backward_kernel(Rows<const float> logits, Rows<const float> target, const float* weight, const float* scale, int bins,
                        Rows<float> dlogits, bool accumulate) {
  wait_for_kernel_before();
  const DflSide s(logits, target, bins);
  if (!s.valid) return;
  const float factor = float(double(*scale) * weight[s.row] / 4);
  const float* const x = logits.row(s.row) + s.first_bin;
  float* const out = dlogits.row(s.row) + s.first_bin;
  for (int b = s.lane; b < bins; b += kGroup) {
    const float wanted = b == s.low ? 1.0f - s.share : b == s.low + 1 ? s.share : 0.0f;
    put(out[b], factor * (std::exp(x[b] - s.largest) / s.sum - wanted), accumulate);
  }
}

}  // namespace

void bce_with_logits(RowsView x, RowsView target, float* sum) {
  expect_f32("bce_with_logits", x.t);
  join_dense_rows(x, target);
  with_pack<float>(
      [&]<int N>() {
        const int packs_of_row = size32((x.cols + N - 1) / N);
        const unsigned blocks = blocks_for(size32(x.rows * packs_of_row), kPacksOfBlock);
        sum_of_blocks(blocks, sum, [&](const BlockSums& sums) {
          launch("bce_with_logits", early({dim3(blocks), dim3(kThreads)}), bce_kernel<N>, rows_of<const float>(x),
                 rows_of<const float>(target), packs_of_row, sums);
        });
      },
      x, target);
}

void bce_with_logits_backward(RowsView x, RowsView target, const float* scale, RowsView dx, bool accumulate) {
  expect_f32("bce_with_logits_backward", x.t);
  join_dense_rows(x, target, dx);
  with_pack<float>(
      [&]<int N>() {
        const RowGrid g = row_grid<N>(dx.rows, dx.cols);
        launch("bce_with_logits_backward", early(g.grid), bce_backward_kernel<N>, rows_of<const float>(x),
               rows_of<const float>(target), scale, rows_of<float>(dx), accumulate, g.col_tiles);
      },
      x, target, dx);
}

void ciou_loss(RowsView boxes, RowsView target, const float* weight, float* ciou, float* sum) {
  expect_f32("ciou_loss", boxes.t);
  const Grid grid = one_thread_each(boxes.rows, kThreads);
  sum_of_blocks(grid.blocks.x, sum, [&](const BlockSums& sums) {
    launch("ciou_loss", early(grid), ciou_kernel, rows_of<const float>(boxes), rows_of<const float>(target), weight, ciou, sums);
  });
}

void ciou_loss_backward(RowsView boxes, RowsView target, const float* weight, const float* scale, RowsView dboxes) {
  expect_f32("ciou_loss_backward", boxes.t);
  launch("ciou_loss_backward", early(one_thread_each(boxes.rows, kThreads)), ciou_backward_kernel, rows_of<const float>(boxes),
         rows_of<const float>(target), weight, scale, rows_of<float>(dboxes));
}

void dfl_loss(RowsView logits, RowsView target, const float* weight, float* sum) {
  expect_f32("dfl_loss", logits.t);
  const unsigned blocks = blocks_for(logits.rows, kWarps);
  sum_of_blocks(blocks, sum, [&](const BlockSums& sums) {
    launch("dfl_loss", early({dim3(blocks), dim3(kThreads)}), dfl_kernel, rows_of<const float>(logits),
           rows_of<const float>(target), weight, size32(logits.cols / 4), sums);
  });
}

void dfl_loss_backward(RowsView logits, RowsView target, const float* weight, const float* scale, RowsView dlogits,
                       bool accumulate) {
  expect_f32("dfl_loss_backward", logits.t);
  launch("dfl_loss_backward", early({dim3(blocks_for(logits.rows, kWarps)), dim3(kThreads)}), dfl_backward_kernel,
         rows_of<const float>(logits), rows_of<const float>(target), weight, scale, size32(logits.cols / 4),
         rows_of<float>(dlogits), accumulate);
}

}  // namespace tessera::cuda
