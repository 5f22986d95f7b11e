// The convolution of the input image: 3 x 3 over 3 channels at stride 2, in 16 bits. Three channels make no packs of 16 bytes, and
// 27 values of k are one step of a tile: the tiled kernel would spend its time on addresses. Here a block copies a patch of the
// image to shared memory once, as it lies, and the fragments of the matrix of windows are read out of it.
//
// Note [Windows of the stem]: under row ky of the filter a window reads 9 neighbours in memory, (kx, c), from an even place on if
// the patch begins with a window. So k = 10 ky + 3 kx + c, with a gap after each row of the filter: pairs of k, which is what a
// register holds, are pairs in the patch, aligned. The gaps are zeros in both operands.
#include "cuda/conv.h"
#include "cuda/device/batch_stats.cuh"
#include "cuda/device/element.cuh"
#include "cuda/device/math.cuh"
#include "cuda/device/reduce.cuh"
#include "cuda/device/tensor_core.cuh"
#include "cuda/launch.cuh"

namespace tessera::cuda::stem {

namespace {

constexpr int kThreads = 256, kWarps = kThreads / kWarp;
constexpr int kChannels = 3, kTaps = 3, kStride = 2;
constexpr int kRow = kTaps * kChannels;                // of the filter, in numbers
constexpr int kPadded = kRow + 1;                      // with the gap; three and nothing are the 32 values of k of two products
constexpr int kAcross = 64, kDown = 8;                 // result pixels of a block
constexpr int kLines = (kDown - 1) * kStride + kTaps;  // of the patch
constexpr int kLine = ((kAcross - 1) * kStride + kTaps) * kChannels + 1;
constexpr int kOuts = 16;  // results of a pixel that are computed at once

struct alignas(16) Patch {
  uint16_t v[kLines][kLine];

  // What the windows of the tile's pixels read, zeros outside of the input image.
  template <class T>
  __device__ void fill(const Images<const T>& x, int n, int first_row, int first_col, int pad) {
    const T* const image = x.pixel(n, 0, 0);
    const int numbers = x.w * kChannels;
    const int above = first_row * kStride - pad;
    const int before = (first_col * kStride - pad) * kChannels;
    constexpr int kTogether = 13;  // reads under way at once
    for (int first = int(threadIdx.x); first < kLines * kLine; first += kTogether * kThreads) {
      uint16_t read[kTogether];
#pragma unroll
      for (int i = 0; i < kTogether; ++i) {
        const int at = first + i * kThreads;
        const int row = above + at / kLine;
        const int in_row = before + at % kLine;
        const bool inside = at < kLines * kLine && unsigned(row) < unsigned(x.h) && unsigned(in_row) < unsigned(numbers);
        read[i] = inside ? image[int64_t(row) * numbers + in_row].bits : uint16_t(0);
      }
#pragma unroll
      for (int i = 0; i < kTogether; ++i) {
        const int at = first + i * kThreads;
        if (at < kLines * kLine) (&v[0][0])[at] = read[i];
      }
    }
  }
};

struct Shared {
  Patch patch;
  alignas(16) uint16_t results[kWarps][16][kOuts];  // of each warp: 16 pixels
  Moments parts[kWarps * kWarp / (kOuts / 2)][kOuts];
};

__device__ int block_of_grid() { return (int(blockIdx.z) * int(gridDim.y) + int(blockIdx.y)) * int(gridDim.x) + int(blockIdx.x); }

// y[n, a, b, o] = act(bias[o] + sum over (ky, kx, c) of x[n, 2 a + ky - pad, 2 b + kx - pad, c] w[o, ky, kx, c])
//
// Block (strip of columns, strip of rows, image). A warp has one line of results: four times 16 pixels, one matrix of windows each.
// `stats`: of a result that is nothing but the sums; there a lane has two outputs of every fourth pixel.
template <class T>
__global__ void __launch_bounds__(kThreads, 4)
    stem_kernel(Images<const T> x, Filters<const T> w, Images<T> y, int pad, const float* bias, Activation act, Chunks<Moments> stats) {
  TESSERA_SHARED(shared, Shared);
  const int first_col = int(blockIdx.x) * kAcross;
  const int first_row = int(blockIdx.y) * kDown;
  const int n = int(blockIdx.z);
  const int lane = int(threadIdx.x % kWarp), warp = int(threadIdx.x / kWarp);

  wait_for_kernel_before();
  shared.patch.fill(x, n, first_row, first_col, pad);
  // Of the pairs of k that the lane holds: k = 2 (lane % 4) + 8 i.
  int pair_line[4], pair_at[4];
  unsigned keep[4];  // bits of the pair that are no gap
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int k = lane % 4 * 2 + 8 * i;
    pair_line[i] = k / kPadded;
    pair_at[i] = k % kPadded;
    keep[i] = pair_line[i] >= kTaps ? 0 : pair_at[i] + 1 < kRow ? ~0u : 0xFFFFu;
    if (keep[i] == 0) pair_line[i] = 0;
  }
  __syncthreads();

  const int row = first_row + warp;
  const int ends = row < y.h ? y.w - first_col : 0;  // pixels of the line
  if (ends == 0 && !stats.wanted()) return;
  for (int out = 0; out < y.c; out += kOuts) {
    Deviations of[2];
    unsigned b[2][4];  // of 8 outputs each
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const int o = out + j * 8 + lane / 4;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const T* const from = w.p + int64_t(o) * (kTaps * kRow) + pair_line[i] * kRow + pair_at[i];
        b[j][i] = 0;
        if (o < y.c && keep[i] != 0) b[j][i] = from[0].bits | (keep[i] == ~0u ? unsigned(from[1].bits) << 16 : 0u);
      }
    }
    for (int first = 0; first < min(kAcross, ends); first += 16) {
      unsigned a[2][4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int pixel = first + lane / 4 + half * 8;
          const uint16_t* const from = &shared.patch.v[warp * kStride + pair_line[i]][pixel * kStride * kChannels + pair_at[i]];
          a[i / 2][i % 2 * 2 + half] = *reinterpret_cast<const unsigned*>(from) & keep[i];
        }
      }
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        float sum[2][2] = {};
#pragma unroll
        for (int step = 0; step < 2; ++step) multiply_add<T>(sum, a[step], b[j][step * 2], b[j][step * 2 + 1]);
        const int in_outs = j * 8 + lane % 4 * 2;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          Pack<T, 2> v;
#pragma unroll
          for (int i = 0; i < 2; ++i) {
            const int o = out + in_outs + i;
            v.v[i] = activate(act, sum[half][i] + (bias != nullptr && o < y.c ? bias[o] : 0.0f));
          }
          store_pack<2>(reinterpret_cast<T*>(&shared.results[warp][lane / 4 + half * 8][in_outs]), v);
        }
      }
      __syncwarp();
      const int pixel = first + lane / 2;
      const int o = out + lane % 2 * 8;
      if (pixel < ends && o < y.c) {
        *reinterpret_cast<Packed<uint16_t, 8>*>(y.pixel(n, row, first_col + pixel) + o) =
            *reinterpret_cast<const Packed<uint16_t, 8>*>(&shared.results[warp][lane / 2][lane % 2 * 8]);
      }
      if (stats.wanted()) {
        for (int i = lane / 8; i < min(16, ends - first); i += kWarp / 8) {
          const Pack<T, 2> v = load_pack<2>(reinterpret_cast<const T*>(&shared.results[warp][i][lane % 8 * 2]));
          const bool none = first + i < kWarp / 8;
#pragma unroll
          for (int j = 0; j < 2; ++j) {
            if (none) of[j].first = v.v[j];
            of[j].add(v.v[j]);
          }
        }
      }
      __syncwarp();
    }
    if (!stats.wanted()) continue;
    const int pixels = (min(kAcross, ends) - lane / 8 + kWarp / 8 - 1) / (kWarp / 8);
#pragma unroll
    for (int i = 0; i < 2; ++i) shared.parts[warp * 4 + lane / 8][lane % 8 * 2 + i] = of[i].moments(pixels);
    fold_in_block<1>(&shared.parts[0][0], kOuts, kWarps * 4, CombinedMoments{});
    const int o = int(threadIdx.x);
    if (o < kOuts && out + o < y.c) stats.row(block_of_grid())[out + o] = shared.parts[0][o];
    __syncthreads();  // of the outputs after these
  }
}

struct WeightShared {
  Patch patch;
  BitPanel<kOuts, kAcross, false> dy[kWarps];  // of each line
};

// partial[chunk, o, ky, kx, c] = sum over the chunk's pixels (n, a, b) of dy[n, a, b, o] x[n, 2 a + ky - pad, 2 b + kx - pad, c]
//
// Block (chunk, kOuts outputs); a chunk is a number of tiles. A warp multiplies its line of each tile, outputs x pixels by
// pixels x k, and at the end the warps' sums meet in shared memory.
template <class T>
__global__ void __launch_bounds__(kThreads, 4)
    stem_weight_kernel(Images<const T> x, Images<const T> dy, int pad, int tiles, int per_chunk, float* partial) {
  TESSERA_SHARED(shared, WeightShared);
  const int lane = int(threadIdx.x % kWarp), warp = int(threadIdx.x / kWarp);
  const int out = int(blockIdx.y) * kOuts;
  const int tiles_across = (dy.w + kAcross - 1) / kAcross;
  const int tiles_down = (dy.h + kDown - 1) / kDown;

  constexpr int kParts = 4;  // of 8 values of k each
  const uint16_t* window[kParts];
#pragma unroll
  for (int i = 0; i < kParts; ++i) {
    const int k = i * 8 + lane / 4;
    const int line = min(k / kPadded, kTaps - 1);  // past the last the result is nobody's
    window[i] = &shared.patch.v[warp * kStride + line][k % kPadded];
  }
  auto pair = [&](int part, int pixel) {
    const uint16_t* const first = window[part] + pixel * (kStride * kChannels);
    return first[0] | unsigned(first[kStride * kChannels]) << 16;
  };

  wait_for_kernel_before();
  float sum[kParts][2][2] = {};
  const int begin = int(blockIdx.x) * per_chunk;
  const int end = min(begin + per_chunk, tiles);
  for (int tile = begin; tile < end; ++tile) {
    const int first_col = tile % tiles_across * kAcross;
    const int line = tile / tiles_across;
    const int first_row = line % tiles_down * kDown;
    const int n = line / tiles_down;
    __syncthreads();
    const int row = first_row + warp;
#pragma unroll
    for (int i = 0; i < kAcross * kOuts / 8 / kWarp; ++i) {
      const int pixel = lane / 2 + i * (kWarp / 2);
      const int o = lane % 2 * 8;
      const bool inside = row < dy.h && first_col + pixel < dy.w && out + o < dy.c;
      copy_ahead(shared.dy[warp].place(pixel, o), dy.pixel(n, row, first_col + pixel) + out + o, inside);
    }
    close_copies();
    shared.patch.fill(x, n, first_row, first_col, pad);
    wait_for_copies<0>();
    __syncthreads();
#pragma unroll
    for (int pixel = 0; pixel < kAcross; pixel += 16) {
      unsigned a[4];
      shared.dy[warp].template load_blocks<true>(a, 0, pixel);
      const int mine = pixel + lane % 4 * 2;
#pragma unroll
      for (int i = 0; i < kParts; ++i) multiply_add<T>(sum[i], a, pair(i, mine), pair(i, mine + 8));
    }
  }

  __syncthreads();
  auto* const sums = reinterpret_cast<float(*)[kOuts][kParts * 8]>(&shared);  // of each warp
#pragma unroll
  for (int i = 0; i < kParts; ++i) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int j = 0; j < 2; ++j) sums[warp][lane / 4 + half * 8][i * 8 + lane % 4 * 2 + j] = sum[i][half][j];
    }
  }
  __syncthreads();
  float* const to = partial + int64_t(blockIdx.x) * dy.c * (kTaps * kRow);
  for (int i = int(threadIdx.x); i < kOuts * kTaps * kRow; i += kThreads) {
    const int o = i / (kTaps * kRow);
    const int at = i % (kTaps * kRow);
    if (out + o >= dy.c) break;
    float all = 0;
    for (int w = 0; w < kWarps; ++w) all += sums[w][o][at / kRow * kPadded + at % kRow];
    to[(out + o) * (kTaps * kRow) + at] = all;
  }
}

bool is_stem(const ImageView& x, const FilterView& w, const ImageView& y, const ConvParams& p) {
  return x.t != DType::kF32 && x.c == kChannels && x.pitch == kChannels && w.kh == kTaps && w.kw == kTaps && p.stride == kStride &&
         y.c % 8 == 0 && rows_are_aligned(y.rows());
}

}  // namespace

bool conv2d(ImageView x, FilterView w, ImageView y, const ConvParams& p, const ConvEpilogue& epilogue, ResultStats* stats) {
  if (!is_stem(x, w, y, p) || epilogue.residual.p != nullptr) return false;
  constexpr int64_t kMostAlongYZ = 65535;  // blocks that CUDA's grids have in these directions
  if (y.n > kMostAlongYZ || blocks_for(y.h, kDown) > kMostAlongYZ) return false;
  for_floating("conv2d", x.t, [&]<class T>() {
    if constexpr (sizeof(T) == 2) {
      const dim3 blocks(blocks_for(y.w, kAcross), blocks_for(y.h, kDown), unsigned(y.n));
      launch("conv2d, stem", early({blocks, dim3(kThreads)}), stem_kernel<T>, images_of<const T>(x), filters_of<const T>(w),
             images_of<T>(y), size32(p.pad), static_cast<const float*>(epilogue.bias), epilogue.activation,
             chunks_of(stats, int64_t(blocks.x) * blocks.y * blocks.z, y.c));
    }
  });
  return true;
}

bool conv2d_backward_weight(const ImageView& x, const ImageView& dy, const FilterView& dw, const ConvParams& p, bool accumulate) {
  if (!is_stem(x, dw, dy, p)) return false;
  const int tiles = size32(dy.n * blocks_for(dy.h, kDown) * blocks_for(dy.w, kAcross));
  const tiled::TileChunks chunks = tiled::tile_chunks(tiles, 2 * enough_blocks());  // about four for each multiprocessor
  const Scratch<float> partial(int64_t(chunks.count) * dw.o * kTaps * kRow);
  for_floating("conv2d_backward_weight", x.t, [&]<class T>() {
    if constexpr (sizeof(T) == 2) {
      launch("conv2d_backward_weight, stem", early({dim3(unsigned(chunks.count), blocks_for(dy.c, kOuts)), dim3(kThreads)}),
             stem_weight_kernel<T>, images_of<const T>(x), images_of<const T>(dy), size32(p.pad), tiles, chunks.tiles_each,
             partial.get());
    }
  });
  tiled::add_filter_chunks(partial, chunks.count, dw, accumulate);
  return true;
}

}  // namespace tessera::cuda::stem
