// Gradients of filters and biases: sums over all pixels. A filter has few numbers and each sums very many terms, so the pixels are
// split into chunks that blocks work on at the same time. Each chunk leaves its sums in scratch memory and a second kernel adds
// them in a fixed order: how many chunks there are depends on the shapes alone, so the result has the same bits on every run and
// every device.
#include <algorithm>
#include <bit>

#include "cuda/conv_weight_launch.cuh"
#include "cuda/device/columns.cuh"
#include "cuda/device/element.cuh"
#include "cuda/device/rows.cuh"

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

template <class T>
using WeightTile = Tile<T, 64, 64, false, false>;

// As weight_ahead_kernel (cuda/device/weight_kernel.cuh), but for single elements and for f32.
template <class T, int N>
__global__ void __launch_bounds__(kTileThreads, 2)
    weight_kernel(Images<const T> plain, Images<const T> image, FilterTaps taps, int per_chunk, FilterLayout layout, float* partial) {
  using TileT = WeightTile<T>;
  const FilterBlock<TileT::kRows, TileT::kCols> block(taps.kh * taps.kw * image.c, per_chunk, plain.n * plain.h * plain.w);
  TileT tile;
  MatrixSource<T, N, TileT::kRows, TileT::kDepth, false> left(plain.p + block.first_row, 1, plain.pitch, plain.c - block.first_row,
                                                              block.begin, block.end);
  TapSource<T, N, TileT::kCols, TileT::kDepth> right(image, plain.h, plain.w, taps.stride, taps.pad, taps.kh, taps.kw,
                                                     block.first_col, block.begin, block.end);
  wait_for_kernel_before();
  multiply_panels(tile, left, right, (max(0, block.end - block.begin) + TileT::kDepth - 1) / TileT::kDepth);
  block.store(tile, plain.c, image.c, layout, partial);
}

void weight_product(const char* name, const WeightProduct& p) {
  for_floating(name, p.plain.t, [&]<class T>() {
    launch_weight<WeightTile<T>>(p, [&](const Grid& grid, int per_chunk, float* partial) {
      auto run = [&](auto kernel) {
        launch(name, grid, kernel, images_of<const T>(p.plain), images_of<const T>(p.image), p.taps, per_chunk, p.layout, partial);
      };
      if constexpr (sizeof(T) == 2) {
        if (p.reads_packs()) return launch_weight_ahead<WeightTile<T>, T, false>(name, p, grid, per_chunk, partial);
        run(weight_kernel<T, 1>);
      } else {
        p.reads_packs() ? run(weight_kernel<T, kWide<T>>) : run(weight_kernel<T, 1>);
      }
    });
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
  if (stem::conv2d_backward_weight(x, dy, dw, p, accumulate)) return;
  weight_product("conv2d_backward_weight", weight_product_of(x, dy, dw, p, accumulate));
}

TileChunks tile_chunks(int tiles, int64_t most) {
  const int limit = int(std::clamp<int64_t>(most, 1, std::max(1, tiles)));
  const int each = std::max(1, (tiles + limit - 1) / limit);
  return {std::max(1, (tiles + each - 1) / each), each};
}

void add_filter_chunks(const Scratch<float>& partial, int chunks, const FilterView& dw, bool accumulate) {
  add_chunks(partial, chunks, size32(dw.o * dw.kh * dw.kw * dw.i), dw.p, accumulate);
}

void conv_transpose2x2_backward_weight(ImageView x, ImageView dy, FilterView dw, bool accumulate) {
  weight_product("conv_transpose2x2_backward_weight", transposed_weight_product_of(x, dy, dw, accumulate));
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
