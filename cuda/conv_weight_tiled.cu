// Gradients of filters and biases: sums over all pixels. A filter has few numbers and each sums very many terms, so the pixels are
// split into chunks that blocks work on at the same time. Each chunk leaves its sums in scratch memory and a second kernel adds
// them in a fixed order: how many chunks there are depends on the shapes alone, so the result has the same bits on every run and
// every device.
#include <algorithm>
#include <bit>
#include <string>

#include "cuda/conv.h"
#include "cuda/device/columns.cuh"
#include "cuda/device/element.cuh"
#include "cuda/device/rows.cuh"
#include "cuda/device/sources.cuh"
#include "cuda/launch.cuh"

namespace tessera::cuda::tiled {

namespace {

constexpr int kThreads = 256;

// y[i] (+)= sum over chunks of partial[chunk, i]. Block: kThreads / groups neighbouring numbers. Thread: one of them, every
// groups-th chunk, eight read together; the groups' sums then meet in shared memory, in order.
constexpr int kAddTogether = 8, kMostGroups = 32;
__global__ void __launch_bounds__(kThreads)
    add_chunks_kernel(const float* partial, int chunks, int count, int groups, float* y, bool accumulate) {
  wait_for_kernel_before();
  TESSERA_SHARED(sums, float[kThreads]);
  const int numbers = kThreads / groups;
  const int t = int(threadIdx.x);
  const int group = t / numbers;
  const int i = int(blockIdx.x) * numbers + t - group * numbers;
  float sum = 0.0f;
  if (i < count) {
    for (int first = group; first < chunks; first += kAddTogether * groups) {
      float read[kAddTogether];
#pragma unroll
      for (int k = 0; k < kAddTogether; ++k) {
        const int chunk = first + k * groups;
        read[k] = chunk < chunks ? partial[int64_t(chunk) * count + i] : 0.0f;
      }
#pragma unroll
      for (int k = 0; k < kAddTogether; ++k) sum += read[k];
    }
  }
  sums[t] = sum;
  __syncthreads();
  if (group != 0 || i >= count) return;
  for (int g = 1; g < groups; ++g) sum += sums[g * numbers + t];
  put(y[i], sum, accumulate);
}

void add_chunks(const Scratch<float>& partial, int chunks, int count, void* y, bool accumulate) {
  const int groups = int(std::bit_ceil(unsigned(std::min((chunks + kAddTogether - 1) / kAddTogether, kMostGroups))));
  const Grid grid = early({dim3(blocks_for(count, kThreads / groups)), dim3(kThreads)});
  launch("add chunks", grid, add_chunks_kernel, static_cast<const float*>(partial.get()), chunks, count, groups,
         static_cast<float*>(y), accumulate);
}

// Where number (row, tap, channel) of the product lies in the filter.
struct FilterLayout {
  int row, tap, channel;
};

// partial[chunk, o, ky, kx, i] = sum over the chunk's pixels (n, a, b) of
//                                plain[n, a, b, o] * image[n, a * stride + ky - pad, b * stride + kx - pad, i]
//
// A matrix product (cuda/device/tile.cuh) with rows o, columns (ky, kx, i) and k the pixels. Both operands are read along channels,
// kDepth pixels at a time. Block (t, chunk): tile t of the filter, tiles of the same rows are neighbours.
template <class T, int N>
__global__ void __launch_bounds__(kTileThreads, 2)
    weight_kernel(Images<const T> plain, Images<const T> image, int kh, int kw, int stride, int pad, int per_chunk,
                  FilterLayout layout, float* partial) {
  constexpr int kRows = 64, kCols = 64;
  using TileT = Tile<T, kRows, kCols, false, false>;
  const int columns = kh * kw * image.c;
  const int col_tiles = (columns + kCols - 1) / kCols;
  const int first_row = int(blockIdx.x) / col_tiles * kRows;
  const int first_col = int(blockIdx.x) % col_tiles * kCols;
  const int begin = int(blockIdx.y) * per_chunk;
  const int end = min(begin + per_chunk, plain.n * plain.h * plain.w);
  TileT tile;
  MatrixSource<T, N, kRows, TileT::kDepth, false> left(plain.p + first_row, 1, plain.pitch, plain.c - first_row, begin, end);
  TapSource<T, N, kCols, TileT::kDepth> right(image, plain.h, plain.w, stride, pad, kh, kw, first_col, begin, end);
  const int steps = (max(0, end - begin) + TileT::kDepth - 1) / TileT::kDepth;
  wait_for_kernel_before();
  if constexpr (N == 8) {
    TESSERA_SHARED(stages, Stage<TileT>[TileT::kStages]);
    multiply_panels_ahead(tile, left, right, steps, stages);
  } else {
    multiply_panels(tile, left, right, steps);
  }

  float* const out = partial + int64_t(blockIdx.y) * plain.c * columns;
  tile.each([&](int row, int col, const float(&sums)[TileT::kGroup]) {
    row += first_row;
    if (row >= plain.c) return;
#pragma unroll
    for (int i = 0; i < TileT::kGroup; ++i) {
      const int column = first_col + col + i;
      if (column >= columns) continue;
      const int tap = column / image.c;
      out[int64_t(row) * layout.row + tap * layout.tap + (column - tap * image.c) * layout.channel] = sums[i];
    }
  });
}

void weight_product(const char* name, const ImageView& plain, const ImageView& image, const FilterView& dw, int stride, int pad,
                    const FilterLayout& layout, bool accumulate) {
  const int count = size32(dw.o * dw.kh * dw.kw * dw.i);
  const int pixels = size32(plain.n * plain.h * plain.w);
  const int tiles = int(blocks_for(plain.c, 64) * blocks_for(dw.kh * dw.kw * image.c, 64));
  constexpr int kLeast = 256;  // pixels of a chunk: with fewer the tile costs more to store than to compute
  // With more blocks than keep a device busy, adding the chunks costs more than it gains.
  const int chunks = int(std::clamp<int64_t>(enough_blocks() / std::max(1, tiles), 1, std::max(1, pixels / kLeast)));
  const int per_chunk = ((pixels + chunks - 1) / chunks + 31) / 32 * 32;
  for_floating(name, plain.t, [&]<class T>() {
    const Scratch<float> partial(int64_t(chunks) * count);
    const Grid grid = early({dim3(unsigned(tiles), unsigned(chunks)), dim3(kTileThreads)});
    auto run = [&]<int N>() {
      launch(name, grid, weight_kernel<T, N>, images_of<const T>(plain), images_of<const T>(image), size32(dw.kh), size32(dw.kw),
             stride, pad, per_chunk, layout, partial.get());
    };
    constexpr int64_t n = kWide<T>;
    if (plain.c % n == 0 && image.c % n == 0 && rows_are_aligned(plain.rows()) && rows_are_aligned(image.rows())) {
      run.template operator()<kWide<T>>();
    } else {
      run.template operator()<1>();
    }
    add_chunks(partial, chunks, count, dw.p, accumulate);
  });
}

// partial[chunk, c] = sum over the chunk's rows of dy[r, c]. Thread: N channels, rows `height` apart, four read together.
constexpr int kBiasGroup = 4;
struct CombinedBias {
  template <class Get>
  __device__ float operator()(int parts, const Get& part) const {
    float sum = 0.0f;
    for (int k = 0; k < parts; ++k) sum += part(k);
    return sum;
  }
};
struct StoreBias {
  float* dbias;
  bool accumulate;
  __device__ void operator()(int c, float sum) const { put(dbias[c], sum, accumulate); }
};
template <class T, int N>
__global__ void __launch_bounds__(kReductionThreads, 2)
    bias_kernel(Rows<const T> dy, Chunks<float> chunks, ColumnPlan plan) {
  wait_for_kernel_before();
  TESSERA_SHARED(parts, float[N * kReductionThreads]);
  const ColumnPlace at = column_place<N>(plan, dy.rows, dy.cols);
  float mine[N] = {};
  if (at.any) {
    for (int row = at.row; row < at.end; row += kBiasGroup * at.step) {
      Packed<T, N> group[kBiasGroup];
#pragma unroll
      for (int k = 0; k < kBiasGroup; ++k) {
        const int r = row + k * at.step;
        group[k] = r < at.end ? load_packed<N>(dy.row(r) + at.col) : Packed<T, N>{};
      }
#pragma unroll
      for (int k = 0; k < kBiasGroup; ++k) {
        const Pack<T, N> v = unpacked(group[k]);
#pragma unroll
        for (int i = 0; i < N; ++i) mine[i] += v.v[i];
      }
    }
  }
  leave_chunk(chunks, parts, mine, plan, at, CombinedBias{});
}

}  // namespace

void conv2d_backward_weight(ImageView x, ImageView dy, FilterView dw, const ConvParams& p, bool accumulate) {
  const int in = size32(dw.i);
  if (stem::conv2d_backward_weight(x, dy, dw, p, accumulate)) return;
  weight_product("conv2d_backward_weight", dy, x, dw, size32(p.stride), size32(p.pad), {size32(dw.kh * dw.kw * dw.i), in, 1},
                 accumulate);
}

void add_filter_chunks(const Scratch<float>& partial, int chunks, const FilterView& dw, bool accumulate) {
  add_chunks(partial, chunks, size32(dw.o * dw.kh * dw.kw * dw.i), dw.p, accumulate);
}

// The roles change: x is read pixel by pixel and dy under the taps, so rows are inputs and columns are (a, b, output).
void conv_transpose2x2_backward_weight(ImageView x, ImageView dy, FilterView dw, bool accumulate) {
  const int in = size32(dw.i);
  weight_product("conv_transpose2x2_backward_weight", x, dy, dw, 2, 0, {1, in, 4 * in}, accumulate);
}

void bias_backward(RowsView dy, void* dbias, bool accumulate) {
  for_floating("bias_backward", dy.t, [&]<class T>() {
    with_whole_packs<T>(
        [&]<int N>() {
          const ColumnPlan plan = plan_reduction<N>(dy, kBiasGroup);
          const ChunkRoom<float> room(plan.chunks, dy.cols);
          launch("bias_backward", plan.grid(), bias_kernel<T, N>, rows_of<const T>(dy), room.get(), plan);
          join_chunks<JoinedSum>("bias_backward, joined", room, StoreBias{static_cast<float*>(dbias), accumulate});
        },
        dy);
  });
}

}  // namespace tessera::cuda::tiled
