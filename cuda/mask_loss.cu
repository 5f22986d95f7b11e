// Cropped mask cross-entropy (tensor/ops/losses.h).
//
// Many items lie on the same prototypes: those of one image overlap, and those of one object have the same box. A block for each
// item would read the prototypes under a box ten times over. So a block has a tile of 16 x 16 prototype pixels, reads it once, and
// goes through the items that reach into it, which are few.
#include <algorithm>
#include <cmath>
#include <utility>

#include "cuda/device/element.cuh"
#include "cuda/device/loss_sum.cuh"
#include "cuda/device/math.cuh"
#include "cuda/device/reduce.cuh"
#include "cuda/device/rows.cuh"
#include "cuda/kernels.h"
#include "cuda/launch.cuh"

namespace tessera::cuda {

namespace {

// First whole number >= v, kept in [0, size]: pixels with v <= p start here, pixels with p < v end here.
__device__ int first_pixel(float v, int size, int if_nan) {
  return v == v ? int(fminf(fmaxf(std::ceil(v), 0.0f), float(size))) : if_nan;
}

// The pixels of an item: x0 <= x < x1, y0 <= y < y1.
struct ItemPixels {
  int x0, y0, x1, y1;
  __device__ bool any() const { return x1 > x0 && y1 > y0; }
  __device__ bool contains(int x, int y) const { return x >= x0 && x < x1 && y >= y0 && y < y1; }
  __device__ bool meets(int x, int y, int size) const { return any() && x0 < x + size && x1 > x && y0 < y + size && y1 > y; }
};

// What the mask kernels read.
template <class T>
struct MaskProblem {
  Rows<const float> coefficients;
  Images<const T> prototypes;
  const int32_t* masks;
  MaskLossItems items;
  int tiles_x, tiles_y;  // of an image

  __device__ ItemPixels box(int item) const {
    const float* const corners = items.boxes + 4 * int64_t(item);
    const int w = prototypes.w, h = prototypes.h;
    return {first_pixel(corners[0], w, 0), first_pixel(corners[1], h, 0), first_pixel(corners[2], w, w),
            first_pixel(corners[3], h, h)};
  }
  __device__ int pixels() const { return prototypes.h * prototypes.w; }
  __device__ int32_t mask(int plane, int pixel) const { return masks[int64_t(plane) * pixels() + pixel]; }
};

constexpr int kTile = 16;  // a block has a square of 256 prototype pixels, one a thread
static_assert(kTile * kTile == kThreads);
constexpr int kChannels = 32;  // of a prototype that a thread holds
constexpr int kQuads = kChannels / 4;
constexpr int kBatch = kWarps;  // items in shared memory at a time: each warp brings one

// A block's tile, and where pixel t of it is: a warp has 8 x 4, so that few warps reach beyond a box.
struct Tile {
  int number, image, x0, y0;  // number: of the image's tiles

  __device__ Tile(int tiles_x, int tiles_y) {
    image = int(blockIdx.x) / (tiles_x * tiles_y);
    number = int(blockIdx.x) - image * tiles_x * tiles_y;
    y0 = number / tiles_x * kTile;
    x0 = number % tiles_x * kTile;
  }
  __device__ int x(int t) const { return x0 + t / kWarp % 2 * 8 + t % 8; }
  __device__ int y(int t) const { return y0 + t / (2 * kWarp) * 4 + t % kWarp / 8; }
};

// Prototypes, or their gradients, of a tile in shared memory: four channels a place, in an order that keeps the threads that read or
// write theirs apart on the banks.
using Quad = Packed<float, 4>;
using TileQuads = Quad[kThreads * kQuads];
__device__ int quad_place(int t, int quad) { return t * kQuads + (quad ^ t % kQuads); }

// Calls f(t, channel - first_channel, its address, how many there are from there on) for each pack of the tile in the image, by
// neighbouring threads for neighbouring ones.
template <int N, class T, class F>
__device__ void for_each_pack(const Images<T>& of, const Tile& tile, int first_channel, F&& f) {
  constexpr int kPacks = kChannels / N;
#pragma unroll 2
  for (int round = 0; round < kPacks; ++round) {
    const int i = round * kThreads + int(threadIdx.x);
    const int t = i / kPacks, channel = i % kPacks * N;
    const int x = tile.x(t), y = tile.y(t);
    const bool there = x < of.w && y < of.h;
    f(t, channel, of.pixel(tile.image, min(y, of.h - 1), min(x, of.w - 1)) + first_channel + channel,
      there ? of.c - first_channel - channel : 0);
  }
}

// Zeros where there is nothing.
template <int N, class T>
__device__ void load_tile(const Images<const T>& prototypes, const Tile& tile, int first_channel, TileQuads& quads) {
  for_each_pack<N>(prototypes, tile, first_channel, [&](int t, int channel, const T* from, int count) {
    const Pack<T, N> v = load_pack<N>(from, count);
#pragma unroll
    for (int n = 0; n < N; n += 4) {
      if constexpr (N == 1) {
        quads[quad_place(t, channel / 4)].v[channel % 4] = v.v[0];
      } else {
        quads[quad_place(t, channel / 4 + n / 4)] = {v.v[n], v.v[n + 1], v.v[n + 2], v.v[n + 3]};
      }
    }
  });
}

template <int N, class T>
__device__ void store_tile(const Images<T>& gradients, const Tile& tile, int first_channel, const TileQuads& quads) {
  for_each_pack<N>(gradients, tile, first_channel, [&](int t, int channel, T* to, int count) {
    Pack<T, N> v;
#pragma unroll
    for (int n = 0; n < N; ++n) v.v[n] = quads[quad_place(t, (channel + n) / 4)].v[(channel + n) % 4];
    store_pack<N>(to, v, count);
  });
}

// A few items as the threads of a block work on them.
struct Batch {
  Quad coefficients[kBatch][kQuads];  // of the block's channels
  ItemPixels box[kBatch];
  float weight[kBatch];  // 1 / area
  int target[kBatch], item[kBatch];
};

// Calls f(count) for the items that reach into the tile, in their order, `count` of them in `batch` at a time, and before the first
// of all load(). The block looks through the items 1024 at a time and lists those it wants; the next batch is read while f works.
template <class T, class Load, class F>
__device__ void for_each_batch(const MaskProblem<T>& m, const Tile& tile, int first_channel, Batch& batch, Load&& load, F&& f) {
  constexpr int kLooks = kWarp / kWarps;  // so that a warp has a lane for each count
  TESSERA_SHARED(found, int[kLooks * kThreads]);
  TESSERA_SHARED(counts, int[kLooks * kWarps]);
  const int t = int(threadIdx.x);
  const int lane = t % kWarp;
  const int warp = t / kWarp;
  const int channel = first_channel + lane;
  bool loaded = false;
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
      hits[q] = __ballot_sync(kAllLanes, of_image[q] == tile.image && m.box(candidate).meets(tile.x0, tile.y0, kTile));
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
      if (hits[q] >> lane & 1) found[place] = first + q * kThreads + t;
    }
    if (count > 0 && !loaded) {
      load();
      loaded = true;
    }
    __syncthreads();
    for (int begin = 0; begin < count; begin += kBatch) {
      if (begin + warp < count) {
        const int item = found[begin + warp];
        batch.coefficients[warp][lane / 4].v[lane % 4] = channel < m.prototypes.c ? m.coefficients.row(item)[channel] : 0.0f;
        if (lane == 0) {
          batch.box[warp] = m.box(item);
          batch.weight[warp] = 1.0f / m.items.area[item];
          batch.target[warp] = m.items.target[item];
          batch.item[warp] = item;
        }
      }
      __syncthreads();
      f(min(kBatch, count - begin));
      __syncthreads();  // the batch, and after the last the list, is free for the next
    }
  }
}

// What a thread knows of its own pixel.
template <class T>
struct OwnPixel {
  int x, y, number;  // number: in the image, of the last pixel where the tile reaches beyond it; no box does
  int32_t object;    // overlap: the value of the index map

  __device__ OwnPixel(const MaskProblem<T>& m, const Tile& tile)
      : x(tile.x(int(threadIdx.x))),
        y(tile.y(int(threadIdx.x))),
        number(min(y, m.prototypes.h - 1) * m.prototypes.w + min(x, m.prototypes.w - 1)),
        object(m.items.overlap ? m.mask(tile.image, number) : 0) {}

  // 1 where the pixel belongs to the object.
  __device__ float wanted(const MaskProblem<T>& m, int target) const {
    return (m.items.overlap ? object == target : m.mask(target, number) != 0) ? 1.0f : 0.0f;
  }
};

// Channels of the thread's pixel in registers, while a batch is worked on.
struct OwnChannels {
  float v[kChannels];
  __device__ explicit OwnChannels(const TileQuads& quads) {
#pragma unroll
    for (int q = 0; q < kQuads; ++q) {
      const Quad four = quads[quad_place(int(threadIdx.x), q)];
#pragma unroll
      for (int n = 0; n < 4; ++n) v[4 * q + n] = four.v[n];
    }
  }
};

// sum over k of c[k] p[k]. Channels beyond those of the block come from memory: no model has them, and with wide packs (N > 1) there
// are none (with_tile_packs).
template <int N, class T>
__device__ float logit_of(const MaskProblem<T>& m, const Tile& tile, int first_channel, const Batch& batch, int b, int pixel,
                          const OwnChannels& own) {
  float sum[4] = {};
#pragma unroll
  for (int q = 0; q < kQuads; ++q) {
    const Quad c = batch.coefficients[b][q];
#pragma unroll
    for (int n = 0; n < 4; ++n) sum[n] += c.v[n] * own.v[4 * q + n];
  }
  float all = (sum[0] + sum[1]) + (sum[2] + sum[3]);
  if (N > 1 || m.prototypes.c <= kChannels) return all;
  const T* const prototype = m.prototypes.pixel(int64_t(tile.image) * m.pixels() + pixel);
  const float* const coefficients = m.coefficients.row(batch.item[b]);
  for (int k = 0; k < m.prototypes.c; ++k) {
    if (k < first_channel || k >= first_channel + kChannels) all += coefficients[k] * load(prototype[k]);
  }
  return all;
}

// The sum over the pixels of all boxes of the cross-entropy of the logit, / (pixels of the image * area). No logit leaves the
// registers.
template <class T, int N>
__global__ void __launch_bounds__(kThreads, N > 1 ? 3 : 2) mask_kernel(MaskProblem<T> m, BlockSums sums) {
  wait_for_kernel_before();
  TESSERA_SHARED(quads, TileQuads);
  TESSERA_SHARED(batch, Batch);
  const Tile tile(m.tiles_x, m.tiles_y);
  const OwnPixel<T> own(m, tile);
  double sum = 0;
  const auto load = [&] { load_tile<N>(m.prototypes, tile, 0, quads); };
  for_each_batch(m, tile, 0, batch, load, [&](int count) {
    const OwnChannels channels(quads);
    for (int b = 0; b < count; ++b) {
      const bool inside = batch.box[b].contains(own.x, own.y);
      if (!__any_sync(kAllLanes, inside)) continue;
      const float logit = logit_of<N>(m, tile, 0, batch, b, own.number, channels);
      if (inside) sum += batch.weight[b] * cross_entropy(logit, own.wanted(m, batch.target[b]));
    }
  });
  add_to_total(sums, sum / m.pixels());
}

// dprototypes[pixel, k] = sum over the items whose box holds the pixel of gradient * coefficient[item, k], and
// partial[item, tile, k] = sum over the tile's pixels in the item's box of gradient * prototype[k], where gradient is that of the
// loss for the logit of pixel and item. Block (., y): channels 32 y onwards.
//
// The first is summed by the pixel's thread. For the second a warp leaves the gradients of a batch in shared memory and a lane takes
// a channel over all of the warp's pixels; then the warps meet, in order.
template <class T, int N>
__global__ void __launch_bounds__(kThreads, N > 4 ? 2 : 1)
    mask_backward_kernel(MaskProblem<T> m, const float* factor, float* partial, Images<T> dprototypes) {
  wait_for_kernel_before();
  TESSERA_SHARED(quads, TileQuads);
  TESSERA_SHARED(batch, Batch);
  TESSERA_SHARED(exchange, Quad[kThreads * kBatch / 4]);  // gradients of a batch for four pixels, then its sums: a part for each warp
  const int t = int(threadIdx.x);
  const int lane = t % kWarp;
  const int warp = t / kWarp;
  const int first_channel = int(blockIdx.y) * kChannels;
  const Tile tile(m.tiles_x, m.tiles_y);
  const float unit = *factor / float(m.pixels());
  const OwnPixel<T> own(m, tile);
  float gradient[kChannels] = {};
  const auto load = [&] { load_tile<N>(m.prototypes, tile, first_channel, quads); };
  for_each_batch(m, tile, first_channel, batch, load, [&](int count) {
    Quad* const of_warp = exchange + warp * kBatch * kQuads;
    bool any = false;  // the same for the whole warp
    {
      const OwnChannels channels(quads);
#pragma unroll 1
      for (int b = 0; b < kBatch; ++b) {
        float own_gradient = 0;
        const bool inside = b < count && batch.box[b].contains(own.x, own.y);
        if (__any_sync(kAllLanes, inside)) {
          any = true;
          const float logit = logit_of<N>(m, tile, first_channel, batch, b, own.number, channels);
          if (inside) own_gradient = (sigmoid<T>(logit) - own.wanted(m, batch.target[b])) * (unit * batch.weight[b]);
#pragma unroll
          for (int q = 0; q < kQuads; ++q) {
            const Quad c = batch.coefficients[b][q];
#pragma unroll
            for (int n = 0; n < 4; ++n) gradient[4 * q + n] += own_gradient * c.v[n];
          }
        }
        of_warp[b * kQuads + lane / 4].v[lane % 4] = own_gradient;
      }
    }
    __syncwarp();
    float sum[kBatch] = {};
#pragma unroll 1
    for (int four = 0; any && four < kWarp / 4; ++four) {
      float v[4];
#pragma unroll
      for (int n = 0; n < 4; ++n) v[n] = quads[quad_place(warp * kWarp + 4 * four + n, lane / 4)].v[lane % 4];
#pragma unroll
      for (int b = 0; b < kBatch; ++b) {
        const Quad of_pixel = of_warp[b * kQuads + four];
#pragma unroll
        for (int n = 0; n < 4; ++n) sum[b] += of_pixel.v[n] * v[n];
      }
    }
    __syncwarp();
#pragma unroll
    for (int b = 0; b < kBatch; ++b) of_warp[b * kQuads + lane / 4].v[lane % 4] = sum[b];
    __syncthreads();
    if (warp < count && first_channel + lane < m.prototypes.c) {
      float total = 0;
#pragma unroll
      for (int w = 0; w < kWarps; ++w) total += exchange[(w * kBatch + warp) * kQuads + lane / 4].v[lane % 4];
      partial[(int64_t(batch.item[warp]) * m.tiles_x * m.tiles_y + tile.number) * m.prototypes.c + first_channel + lane] = total;
    }
  });
  // for_each_batch ends with a barrier where it had a batch; else nobody has touched the tile.
#pragma unroll
  for (int q = 0; q < kQuads; ++q) {
    quads[quad_place(t, q)] = {gradient[4 * q], gradient[4 * q + 1], gradient[4 * q + 2], gradient[4 * q + 3]};
  }
  __syncthreads();
  store_tile<N>(dprototypes, tile, first_channel, quads);
}

// dcoefficients[item, k] = sum over the tiles that the item reaches into of partial[item, tile, k].
// Block (item, y): channels 32 y onwards, a lane each; a warp has every eighth tile.
template <class T>
__global__ void __launch_bounds__(kThreads)
    mask_coefficients_kernel(MaskProblem<T> m, const float* partial, Rows<float> dcoefficients) {
  wait_for_kernel_before();
  TESSERA_SHARED(sums, float[kWarps][kWarp]);
  const int lane = int(threadIdx.x) % kWarp;
  const int warp = int(threadIdx.x) / kWarp;
  const int item = int(blockIdx.x);
  const int channel = int(blockIdx.y) * kWarp + lane;
  const ItemPixels box = m.box(item);
  const int first_x = box.x0 / kTile, first_y = box.y0 / kTile;
  const int width = (box.x1 - 1) / kTile + 1 - first_x;
  const int count = box.any() ? width * ((box.y1 - 1) / kTile + 1 - first_y) : 0;
  float sum = 0;
  if (channel < m.prototypes.c) {
#pragma unroll 4
    for (int i = warp; i < count; i += kWarps) {
      const int row = i / width;
      const int tile = (first_y + row) * m.tiles_x + first_x + i - row * width;
      sum += partial[(int64_t(item) * m.tiles_x * m.tiles_y + tile) * m.prototypes.c + channel];
    }
  }
  sums[warp][lane] = sum;
  __syncthreads();
  if (warp > 0 || channel >= m.prototypes.c) return;
  float total = 0;
#pragma unroll
  for (int w = 0; w < kWarps; ++w) total += sums[w][lane];
  dcoefficients.row(item)[channel] = total;
}

template <class T>
MaskProblem<T> mask_problem(const RowsView& coefficients, const ImageView& prototypes, const int32_t* masks,
                            const MaskLossItems& items) {
  size32(items.count);  // throws where the kernels' 32 bits do not do
  size32(prototypes.h * prototypes.w);
  return {rows_of<const float>(coefficients),
          images_of<const T>(prototypes),
          masks,
          items,
          int(blocks_for(prototypes.w, kTile)),
          int(blocks_for(prototypes.h, kTile))};
}

// As with_pack (cuda/device/rows.cuh), but element by element where a pixel has more channels than a block holds: with packs the
// kernels take it that theirs are all (logit_of).
template <class T, class F, class... V>
void with_tile_packs(F&& f, const ImageView& prototypes, const V&... others) {
  if (prototypes.c <= kChannels) {
    with_pack<T>(std::forward<F>(f), prototypes.rows(), others.rows()...);
  } else {
    f.template operator()<1>();
  }
}

}  // namespace

void mask_loss(RowsView coefficients, ImageView prototypes, const int32_t* masks, const MaskLossItems& items, float* sum) {
  expect_f32("mask_loss", coefficients.t);
  for_floating("mask_loss", prototypes.t, [&]<class T>() {
    const auto m = mask_problem<T>(coefficients, prototypes, masks, items);
    const unsigned blocks = blocks_for(prototypes.n * m.tiles_x * m.tiles_y, 1);
    with_tile_packs<T>(
        [&]<int N>() {
          sum_of_blocks(blocks, sum, [&](const BlockSums& sums) {
            launch("mask_loss", early({dim3(blocks), dim3(kThreads)}), mask_kernel<T, N>, m, sums);
          });
        },
        prototypes);
  });
}

void mask_loss_backward(RowsView coefficients, ImageView prototypes, const int32_t* masks, const MaskLossItems& items,
                        const float* scale, RowsView dcoefficients, ImageView dprototypes) {
  expect_f32("mask_loss_backward", coefficients.t);
  for_floating("mask_loss_backward", prototypes.t, [&]<class T>() {
    const auto m = mask_problem<T>(coefficients, prototypes, masks, items);
    const int64_t tiles = int64_t(m.tiles_x) * m.tiles_y;
    const unsigned channel_blocks = blocks_for(prototypes.c, kChannels);
    const Scratch<float> partial(std::max<int64_t>(items.count * tiles * prototypes.c, 1));
    with_tile_packs<T>(
        [&]<int N>() {
          launch("mask_loss_backward", early({dim3(blocks_for(prototypes.n * tiles, 1), channel_blocks), dim3(kThreads)}),
                 mask_backward_kernel<T, N>, m, scale, partial.get(), images_of<T>(dprototypes));
        },
        prototypes, dprototypes);
    launch("mask_loss_backward, coefficients", early({dim3(blocks_for(items.count, 1), channel_blocks), dim3(kThreads)}),
           mask_coefficients_kernel<T>, m, static_cast<const float*>(partial.get()), rows_of<float>(dcoefficients));
  });
}

}  // namespace tessera::cuda
