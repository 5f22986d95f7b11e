// Loss kernels: cross-entropy, CIoU, distribution focal loss, cropped mask cross-entropy. Formulas: tensor/ops/losses.h.
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
// A block takes 2048 packs one after the other in memory, a thread eight of them, 256 packs apart: a warp reads 512 adjacent bytes
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

// ---- groups of eight lanes, four in a warp: one for each side of a box (DFL), or for eight pixels (masks)

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

// ---- masks

// First whole number >= v, kept in [0, size]: pixels with v <= p start here, pixels with p < v end here.
__device__ int first_pixel(float v, int size, int if_nan) {
  return v == v ? int(fminf(fmaxf(std::ceil(v), 0.0f), float(size))) : if_nan;
}

// The pixels of an item: x0 <= x < x1, y0 <= y < y1.
struct ItemPixels {
  int x0, y0, x1, y1;
  __device__ int count() const { return x1 > x0 && y1 > y0 ? (x1 - x0) * (y1 - y0) : 0; }
  __device__ bool contains(int x, int y) const { return x >= x0 && x < x1 && y >= y0 && y < y1; }
  __device__ bool meets(int x, int y, int size) const { return count() > 0 && x0 < x + size && x1 > x && y0 < y + size && y1 > y; }
};
__device__ ItemPixels item_pixels(const float* corners, int w, int h) {
  return {first_pixel(corners[0], w, 0), first_pixel(corners[1], h, 0), first_pixel(corners[2], w, w),
          first_pixel(corners[3], h, h)};
}

// What the mask kernels read.
struct MaskProblem {
  Rows<const float> coefficients;
  Images<const float> prototypes;
  const int32_t* masks;
  MaskLossItems items;

  __device__ ItemPixels box(int item) const { return item_pixels(items.boxes + 4 * int64_t(item), prototypes.w, prototypes.h); }
  __device__ int pixels() const { return prototypes.h * prototypes.w; }
  // Of the item's pixels in the sum of all.
  __device__ float weight(int item, double scale) const { return float(scale / pixels() / items.area[item]); }
  // 1 where the pixel belongs to the object. Asked for before the logit is formed, which takes as long as the read.
  __device__ float wanted(int item, int pixel) const {
    const int plane = items.overlap ? items.image[item] : items.target[item];
    const int32_t value = masks[int64_t(plane) * pixels() + pixel];
    return (items.overlap ? value == items.target[item] : value != 0) ? 1.0f : 0.0f;
  }
  // Logits of eight pixels of the item's image by a group of lanes. A lane brings the number of its pixel and gets that pixel's
  // logit: work per pixel, as the exponentials, is then shared by all lanes.
  template <int N>
  __device__ float logit(int item, int own_pixel) const;
};

// sum over k of c[k] p[k].
// For each of the eight pixels the lanes have neighbouring channels, so that a group reads whole prototypes; the eight loads of a
// lane do not wait for each other. Then the lanes' parts are added up and handed out in one: at each step a lane passes on the sums
// of the half of the pixels that its partner keeps. 4 + 2 + 1 shuffles instead of 8 * 3.
template <int N>
__device__ float MaskProblem::logit(int item, int own_pixel) const {
  const int lane = int(threadIdx.x) % kGroup;
  const int k = prototypes.c;
  const float* const image = prototypes.pixel(items.image[item], 0, 0);
  const float* const c = coefficients.row(item);
  const float* pixel[kGroup];
#pragma unroll
  for (int j = 0; j < kGroup; ++j) {
    pixel[j] = image + int64_t(__shfl_sync(kAllLanes, own_pixel, j, kGroup)) * prototypes.pitch;
  }
  float sum[kGroup] = {};
  for (int channel = lane * N; channel < k; channel += kGroup * N) {
    const Pack<float, N> weight = load_pack<N>(c + channel, k - channel);
#pragma unroll
    for (int j = 0; j < kGroup; ++j) {
      const Pack<float, N> p = load_pack<N>(pixel[j] + channel, k - channel);
#pragma unroll
      for (int n = 0; n < N; ++n) sum[j] += weight.v[n] * p.v[n];
    }
  }
#pragma unroll
  for (int half = kGroup / 2; half > 0; half /= 2) {
    const bool upper = (lane & half) != 0;
#pragma unroll
    for (int j = 0; j < half; ++j) {
      const float kept = upper ? sum[j + half] : sum[j];
      const float given = upper ? sum[j] : sum[j + half];
      sum[j] = kept + __shfl_xor_sync(kAllLanes, given, half);
    }
  }
  return sum[0];
}

// Blocks that share the pixels of one item: large boxes must not make a block run long after the others.
int slices_of(const ImageView& prototypes) { return int(std::clamp<int64_t>(prototypes.h * prototypes.w / 4096, 1, 16)); }

// Calls f(pixel number in the image, whether there is one) for the block's share of the item's box, eight neighbours a group.
// Groups without pixels left do the last one over until their whole warp has none.
template <class F>
__device__ void for_each_pixel(const ItemPixels& box, int width, int slice, int slices, F&& f) {
  const int count = box.count();
  const int box_width = box.x1 - box.x0;
  const int t = int(threadIdx.x);
  for (int first = slice * kThreads + t / kWarp * kWarp; first < count; first += slices * kThreads) {
    const int i = min(first + t % kWarp, count - 1);
    const int y = i / box_width;
    f((box.y0 + y) * width + box.x0 + i - y * box_width, first + t % kWarp < count);
  }
}

// The sum over the pixels of all boxes of the cross-entropy of the logit, / (pixels of the image * area).
// Block: one slice of one item; no logit leaves the registers. A warp takes 32 neighbouring pixels of the box, 4 KiB of prototypes
// with 32 channels.
template <int N>
__global__ void __launch_bounds__(kThreads) mask_kernel(MaskProblem m, int slices, BlockSums sums) {
  wait_for_kernel_before();
  const int item = int(blockIdx.x) / slices;
  double sum = 0;
  for_each_pixel(m.box(item), m.prototypes.w, int(blockIdx.x) % slices, slices, [&](int pixel, bool valid) {
    const float wanted = m.wanted(item, pixel);
    const float logit = m.logit<N>(item, pixel);
    if (valid) sum += cross_entropy(logit, wanted);
  });
  add_to_total(sums, sum / m.pixels() / m.items.area[item]);
}

// Gradients are formed for 32 channels at a time, four for each lane of a group: pack q of a lane starts at channel_of(q).
constexpr int kChannels = 32;
template <int N>
inline constexpr int kPacks = kChannels / kGroup / N;
template <int N>
__device__ int channel_of(int q) {
  return int(blockIdx.y) * kChannels + (q * kGroup + int(threadIdx.x) % kGroup) * N;
}

// Gradient of the loss for the logit of a pixel.
__device__ float mask_gradient(float logit, float wanted, float weight) { return (functors::Sigmoid::f(logit) - wanted) * weight; }

// partial[item, slice, k] = sum over the slice's pixels of gradient * prototype[k].
// Blocks and pixels as in mask_kernel, block (., y) for the channels 32 y onwards. A group reads its prototypes a second time, from
// the L1 cache; each lane sums four channels over all pixels of its group, then the groups of the warp meet in shuffles and the
// warps in shared memory, in order.
template <int N>
__global__ void __launch_bounds__(kThreads)
    mask_coefficients_backward_kernel(MaskProblem m, const float* factor, int slices, float* partial) {
  wait_for_kernel_before();
  TESSERA_SHARED(sums, float[kWarps][kChannels]);
  const int item = int(blockIdx.x) / slices;
  const float weight = m.weight(item, *factor);
  const int k = m.prototypes.c;
  const float* const image = m.prototypes.pixel(m.items.image[item], 0, 0);
  float sum[kPacks<N>][N] = {};
  for_each_pixel(m.box(item), m.prototypes.w, int(blockIdx.x) % slices, slices, [&](int pixel, bool valid) {
    const float wanted = m.wanted(item, pixel);
    const float logit = m.logit<N>(item, pixel);
    const float own = valid ? mask_gradient(logit, wanted, weight) : 0.0f;
#pragma unroll
    for (int j = 0; j < kGroup; ++j) {
      const float gradient = __shfl_sync(kAllLanes, own, j, kGroup);
      const float* const p = image + int64_t(__shfl_sync(kAllLanes, pixel, j, kGroup)) * m.prototypes.pitch;
#pragma unroll
      for (int q = 0; q < kPacks<N>; ++q) {
        const int channel = channel_of<N>(q);
        const Pack<float, N> v = load_pack<N>(p + channel, k - channel);
#pragma unroll
        for (int n = 0; n < N; ++n) sum[q][n] += gradient * v.v[n];
      }
    }
  });
  const int t = int(threadIdx.x);
#pragma unroll
  for (int q = 0; q < kPacks<N>; ++q) {
#pragma unroll
    for (int n = 0; n < N; ++n) {
      float s = sum[q][n];
      s += __shfl_xor_sync(kAllLanes, s, kGroup);
      s += __shfl_xor_sync(kAllLanes, s, 2 * kGroup);
      if (t % kWarp < kGroup) sums[t / kWarp][channel_of<N>(q) % kChannels + n] = s;
    }
  }
  __syncthreads();
  const int channel = int(blockIdx.y) * kChannels + t;
  if (t >= kChannels || channel >= k) return;
  float total = 0;
#pragma unroll
  for (int w = 0; w < kWarps; ++w) total += sums[w][t];
  partial[int64_t(blockIdx.x) * k + channel] = total;
}

// dcoefficients[item, k] = sum over the slices of partial[item, slice, k]. One thread a coefficient, neighbours read neighbours.
__global__ void __launch_bounds__(kThreads)
    mask_coefficients_sum_kernel(const float* partial, int slices, Rows<float> dcoefficients) {
  wait_for_kernel_before();
  const int i = int(blockIdx.x) * kThreads + int(threadIdx.x);
  const int item = i / dcoefficients.cols;
  const int channel = i - item * dcoefficients.cols;
  if (item >= dcoefficients.rows) return;
  float sum = 0;
  for (int s = 0; s < slices; ++s) sum += partial[(int64_t(item) * slices + s) * dcoefficients.cols + channel];
  dcoefficients.row(item)[channel] = sum;
}

constexpr int kTile = 16;  // a block has a square of 256 prototype pixels

// dprototypes[pixel, k] = sum over the items whose box holds the pixel of gradient * coefficient[item, k].
// Gathered, so that no two threads write one place: block (x, y) owns a tile of 16 x 16 pixels and the channels 32 y onwards, a
// group eight neighbouring pixels of a row, with all their sums in registers. The block looks through the items 1024 at a time and
// lists, in order, those that reach into its tile; then its warps walk the list, passing over items that miss their two rows.
// Prototypes come from the L1 cache after the first item: a tile with 32 channels is 32 KiB.
template <int N>
__global__ void __launch_bounds__(kThreads)
    mask_prototypes_backward_kernel(MaskProblem m, const float* factor, Images<float> dprototypes, int tiles_x, int tiles_y) {
  wait_for_kernel_before();
  const double scale = *factor;
  constexpr int kLooks = kWarp / kWarps;  // so that a warp has a lane for each count
  TESSERA_SHARED(found, int[kLooks * kThreads]);
  TESSERA_SHARED(boxes, ItemPixels[kLooks * kThreads]);
  TESSERA_SHARED(weights, float[kLooks * kThreads]);
  TESSERA_SHARED(counts, int[kLooks * kWarps]);
  const int t = int(threadIdx.x);
  const int lane = t % kWarp;
  const int warp = t / kWarp;
  const int h = dprototypes.h, w = dprototypes.w, k = dprototypes.c;
  const int image = int(blockIdx.x) / (tiles_x * tiles_y);
  const int tile_y = int(blockIdx.x) / tiles_x % tiles_y * kTile;
  const int tile_x = int(blockIdx.x) % tiles_x * kTile;
  const int y = tile_y + t / kTile;  // of the group's eight pixels, and of the lane's own
  const int x = tile_x + t % kTile;
  const int own_pixel = min(y, h - 1) * w + min(x, w - 1);
  float sum[kGroup][kPacks<N>][N] = {};
  for (int first = 0; first < m.items.count; first += kLooks * kThreads) {
    int of_image[kLooks];
#pragma unroll
    for (int q = 0; q < kLooks; ++q) {
      const int candidate = first + q * kThreads + t;
      of_image[q] = candidate < m.items.count ? m.items.image[candidate] : -1;
    }
    unsigned hits[kLooks];
#pragma unroll
    for (int q = 0; q < kLooks; ++q) {
      const int candidate = first + q * kThreads + t;
      hits[q] = __ballot_sync(kAllLanes, of_image[q] == image && m.box(candidate).meets(tile_x, tile_y, kTile));
      if (lane == 0) counts[q * kWarps + warp] = __popc(hits[q]);
    }
    __syncthreads();
    int before = counts[lane];  // afterwards of this count and all before it
#pragma unroll
    for (int distance = 1; distance < kWarp; distance *= 2) {
      const int other = __shfl_up_sync(kAllLanes, before, unsigned(distance));
      if (lane >= distance) before += other;
    }
    const int count = __shfl_sync(kAllLanes, before, kWarp - 1);
    before -= counts[lane];
#pragma unroll
    for (int q = 0; q < kLooks; ++q) {
      const int place = __shfl_sync(kAllLanes, before, q * kWarps + warp) + __popc(hits[q] & ((1u << lane) - 1));
      if (!(hits[q] >> lane & 1)) continue;
      const int item = first + q * kThreads + t;
      found[place] = item;
      boxes[place] = m.box(item);
      weights[place] = m.weight(item, scale);
    }
    __syncthreads();
    for (int f = 0; f < count; ++f) {
      const int item = found[f];
      const bool inside = boxes[f].contains(x, y);  // no box goes beyond the image
      if (!__any_sync(kAllLanes, inside)) continue;
      const float wanted = m.wanted(item, own_pixel);
      const float logit = m.logit<N>(item, own_pixel);
      const float own = inside ? mask_gradient(logit, wanted, weights[f]) : 0.0f;
      Pack<float, N> weight[kPacks<N>];
#pragma unroll
      for (int q = 0; q < kPacks<N>; ++q)
        weight[q] = load_pack<N>(m.coefficients.row(item) + channel_of<N>(q), k - channel_of<N>(q));
#pragma unroll
      for (int j = 0; j < kGroup; ++j) {
        const float gradient = __shfl_sync(kAllLanes, own, j, kGroup);
#pragma unroll
        for (int q = 0; q < kPacks<N>; ++q) {
#pragma unroll
          for (int n = 0; n < N; ++n) sum[j][q][n] += gradient * weight[q].v[n];
        }
      }
    }
    __syncthreads();  // the list is free for the next items
  }
#pragma unroll
  for (int j = 0; j < kGroup; ++j) {
    const int at = x - t % kGroup + j;
    if (y >= h || at >= w) continue;
    float* const out = dprototypes.pixel(image, y, at);
#pragma unroll
    for (int q = 0; q < kPacks<N>; ++q) {
      const int channel = channel_of<N>(q);
      if (channel >= k) continue;
      Pack<float, N> v;
#pragma unroll
      for (int n = 0; n < N; ++n) v.v[n] = sum[j][q][n];
      store_pack<N>(out + channel, v, k - channel);
    }
  }
}

MaskProblem mask_problem(const RowsView& coefficients, const ImageView& prototypes, const int32_t* masks,
                         const MaskLossItems& items) {
  size32(items.count);
  size32(prototypes.h * prototypes.w);
  return {rows_of<const float>(coefficients), images_of<const float>(prototypes), masks, items};
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

void mask_loss(RowsView coefficients, ImageView prototypes, const int32_t* masks, const MaskLossItems& items, float* sum) {
  expect_f32("mask_loss", prototypes.t);
  const MaskProblem m = mask_problem(coefficients, prototypes, masks, items);
  const int slices = slices_of(prototypes);
  const unsigned blocks = blocks_for(items.count * slices, 1);
  with_pack<float>(
      [&]<int N>() {
        sum_of_blocks(blocks, sum, [&](const BlockSums& sums) {
          launch("mask_loss", early({dim3(blocks), dim3(kThreads)}), mask_kernel<N>, m, slices, sums);
        });
      },
      coefficients, prototypes.rows());
}

void mask_loss_backward(RowsView coefficients, ImageView prototypes, const int32_t* masks, const MaskLossItems& items,
                        const float* scale, RowsView dcoefficients, ImageView dprototypes) {
  expect_f32("mask_loss_backward", prototypes.t);
  const MaskProblem m = mask_problem(coefficients, prototypes, masks, items);
  const int slices = slices_of(prototypes);
  const unsigned channel_blocks = blocks_for(prototypes.c, kChannels);
  const Scratch<float> partial(std::max<int64_t>(items.count * slices * prototypes.c, 1));
  with_pack<float>(
      [&]<int N>() {
        launch("mask_loss_backward, coefficients",
               early({dim3(blocks_for(items.count * slices, 1), channel_blocks), dim3(kThreads)}),
               mask_coefficients_backward_kernel<N>, m, scale, slices, partial.get());
        const unsigned tiles_x = blocks_for(prototypes.w, kTile), tiles_y = blocks_for(prototypes.h, kTile);
        launch("mask_loss_backward, prototypes",
               early({dim3(blocks_for(prototypes.n * tiles_x * tiles_y, 1), channel_blocks), dim3(kThreads)}),
               mask_prototypes_backward_kernel<N>, m, scale, images_of<float>(dprototypes), int(tiles_x), int(tiles_y));
      },
      coefficients, prototypes.rows(), dprototypes.rows());
  launch("mask_loss_backward, slices", early(one_thread_each(items.count * prototypes.c, kThreads)), mask_coefficients_sum_kernel,
         static_cast<const float*>(partial.get()), slices, rows_of<float>(dcoefficients));
}

}  // namespace tessera::cuda
