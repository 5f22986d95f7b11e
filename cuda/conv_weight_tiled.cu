// Gradients of filters and biases: sums over all pixels. A filter has few numbers and each sums very many terms, so the pixels are
// split into chunks that blocks work on at the same time. Each chunk leaves its sums in scratch memory and a second kernel adds
// them in order: how many chunks there are depends on the shapes alone, so the result has the same bits on every run and every
// device.
#include <algorithm>

#include "cuda/conv.h"
#include "cuda/device/element.cuh"
#include "cuda/device/sources.cuh"
#include "cuda/launch.cuh"

namespace tessera::cuda::tiled {

namespace {

constexpr int kThreads = 256;
constexpr int kEnoughBlocks = 1024;  // fills any device several times over

// y[i] (+)= sum over chunks of partial[chunk, i], in order. One thread a number; each chunk is read in full lines.
__global__ void __launch_bounds__(kThreads) add_chunks_kernel(const float* partial, int chunks, int count, float* y, bool accumulate) {
  const int i = int(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= count) return;
  float sum = 0.0f;
  for (int chunk = 0; chunk < chunks; ++chunk) sum += partial[int64_t(chunk) * count + i];
  put(y[i], sum, accumulate);
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
  const int chunks = std::clamp(kEnoughBlocks / std::max(1, tiles), 1, std::max(1, pixels / kLeast));
  const int per_chunk = ((pixels + chunks - 1) / chunks + 31) / 32 * 32;
  for_floating(name, plain.t, [&]<class T>() {
    const Scratch<float> partial(int64_t(chunks) * count);
    const Grid grid{dim3(unsigned(tiles), unsigned(chunks)), dim3(kTileThreads)};
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
    launch("add chunks", one_thread_each(count, kThreads), add_chunks_kernel, static_cast<const float*>(partial.get()), chunks,
           count, static_cast<float*>(dw.p), accumulate);
  });
}

// partial[chunk, c] = sum over the chunk's rows of dy[r, c].
//
// A block of 32 channels x 8 rows: a warp reads 32 neighbouring channels of one row, every 8th row is its own; the 8 sums of a
// channel then meet in shared memory.
constexpr int kBiasRows = 8;
template <class T>
__global__ void __launch_bounds__(kThreads) bias_kernel(Rows<const T> dy, int per_chunk, float* partial) {
  TESSERA_SHARED(sums, float[kBiasRows][32]);
  const int lane = int(threadIdx.x) % 32;
  const int warp = int(threadIdx.x) / 32;
  const int c = int(blockIdx.x) * 32 + lane;
  const int begin = int(blockIdx.y) * per_chunk;
  const int end = min(begin + per_chunk, dy.rows);
  float sum = 0.0f;
  if (c < dy.cols) {
    for (int r = begin + warp; r < end; r += kBiasRows) sum += load(dy.row(r)[c]);
  }
  sums[warp][lane] = sum;
  __syncthreads();
  if (warp != 0 || c >= dy.cols) return;
  for (int w = 1; w < kBiasRows; ++w) sum += sums[w][lane];
  partial[int64_t(blockIdx.y) * dy.cols + c] = sum;
}

}  // namespace

void conv2d_backward_weight(ImageView x, ImageView dy, FilterView dw, const ConvParams& p, bool accumulate) {
  const int in = size32(dw.i);
  weight_product("conv2d_backward_weight", dy, x, dw, size32(p.stride), size32(p.pad), {size32(dw.kh * dw.kw * dw.i), in, 1},
                 accumulate);
}

// The roles change: x is read pixel by pixel and dy under the taps, so rows are inputs and columns are (a, b, output).
void conv_transpose2x2_backward_weight(ImageView x, ImageView dy, FilterView dw, bool accumulate) {
  const int in = size32(dw.i);
  weight_product("conv_transpose2x2_backward_weight", x, dy, dw, 2, 0, {1, in, 4 * in}, accumulate);
}

void bias_backward(RowsView dy, void* dbias, bool accumulate) {
  const int rows = size32(dy.rows);
  const int cols = size32(dy.cols);
  const int blocks = int(blocks_for(cols, 32));
  constexpr int kLeast = 128;  // rows of a chunk, 16 for a thread
  const int chunks = std::clamp(kEnoughBlocks / std::max(1, blocks), 1, std::max(1, rows / kLeast));
  const int per_chunk = (rows + chunks - 1) / chunks;
  for_floating("bias_backward", dy.t, [&]<class T>() {
    const Scratch<float> partial(int64_t(chunks) * cols);
    launch("bias_backward", {dim3(unsigned(blocks), unsigned(chunks)), dim3(kThreads)}, bias_kernel<T>, rows_of<const T>(dy),
           per_chunk, partial.get());
    launch("add chunks", one_thread_each(cols, kThreads), add_chunks_kernel, static_cast<const float*>(partial.get()), chunks,
           cols, static_cast<float*>(dbias), accumulate);
  });
}

}  // namespace tessera::cuda::tiled
