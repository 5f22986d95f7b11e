// 3 x 3 convolution of few channels at stride 1, and its gradients, in 16 bits on the warpgroup instructions of sm_90a.
// Compiled for sm_90a and nothing else (cmake/cuda.cmake).
//
// The tiled kernel copies each pixel to shared memory nine times, once for each tap, and the filter once for each tile. Here the
// filter stays in shared memory while a block works through its tiles, and the pixels of a tile are copied once, with a border of
// one. The tensor cores read the windows of all taps out of that patch: Note [Windows in a patch] of cuda/device/patches.cuh.
#include <algorithm>

#include "cuda/conv_launch.cuh"
#include "cuda/device/fragment_moments.cuh"
#include "cuda/device/patches.cuh"
#include "cuda/device/warpgroup.cuh"

namespace tessera::cuda::wgmma {

namespace {

constexpr int kSide = 8;  // of a tile, in pixels: the 64 rows of a product

template <int kCols, bool kFilterAlongK>
struct PatchShared {
  using Filter = SwizzledPanel<kCols, kFilterAlongK>;
  using Patches = Patch<kSide>[2];
  static constexpr int kPitch = kCols + 8;  // of results; the eight more put neighbouring lines on different banks
  using Results = uint16_t[kSide * kSide][kPitch];
  // Warpgroups of a block, which has the multiprocessor to itself: as many as registers allow, and shared memory beside the filter.
  static constexpr int kByRegisters = kCols <= 16 ? 6 : 5;
  static constexpr int kGroups =
      std::min<int>(kByRegisters, (shared_of_block(1) - kTaps * sizeof(Filter)) / (sizeof(Patches) + sizeof(Results)));
  static constexpr int kThreads = kGroups * kWarpgroup;

  Filter filter[kTaps];
  Patches patches[kGroups];
  alignas(16) Results results[kGroups];
};

// y[pixel, column] = act(bias[column] + sum over (tap, channel) of x[pixel at tap, channel] * w[tap, channel, column])
//                    + residual[pixel, column]
// with w[tap, channel, column] = w[column, tap, channel] (kFilterAlongK) or w[channel, 8 - tap, column].
//
// Block (b, column tile). Each of its warpgroups goes through tiles of its own and waits for no other: while one waits for its
// pixels or stores, others multiply. A warpgroup has two patches: the next one is being copied while this one is multiplied.
// `stats`: moments of the result, asked for only without bias, activation and residual.
template <class T, int kCols, bool kFilterAlongK>
__global__ void __launch_bounds__(PatchShared<kCols, kFilterAlongK>::kThreads, 1)
    conv_patch_kernel(Images<const T> x, Filters<const T> w, Images<T> y, PatchTiles tiles, const float* bias, Activation act,
                      Images<const T> residual, Chunks<Moments> stats) {
  using Shared = PatchShared<kCols, kFilterAlongK>;
  constexpr int kGroups = Shared::kGroups, kThreads = Shared::kThreads;
  TESSERA_DYNAMIC_SHARED(Shared, shared);
  const int first_col = int(blockIdx.y) * kCols;
  const int in_group = int(threadIdx.x % kWarpgroup), group = int(threadIdx.x / kWarpgroup);
  const int lane = in_group % kWarp, warp = in_group / kWarp;
  constexpr int kPieces = kLineChannels / 8, kFilterLines = int(sizeof(typename Shared::Filter) / 128);

  wait_for_kernel_before();
  {
    const int piece = int(threadIdx.x % kPieces) * 8;
    constexpr int kLinesAtOnce = kThreads / kPieces;
    if constexpr (kFilterAlongK) {
      for (int line = int(threadIdx.x) / kPieces; line < kTaps * kCols; line += kLinesAtOnce) {
        const int tap = line / kCols;
        const int col = line - tap * kCols;
        if (piece >= x.c) break;
        copy_ahead(shared->filter[tap].place(piece, col), w.p + (int64_t(first_col + col) * kTaps + tap) * w.i + piece,
                   first_col + col < y.c);
      }
    } else {
      static_assert(kFilterAlongK || kCols <= 64);
      for (int line = int(threadIdx.x) / kPieces; line < kTaps * kLineChannels; line += kLinesAtOnce) {
        const int tap = line / kLineChannels;
        const int channel = line - tap * kLineChannels;
        if (piece >= kCols || channel >= x.c) continue;
        copy_ahead(shared->filter[tap].place(channel, piece),
                   w.p + (int64_t(channel) * kTaps + kTaps - 1 - tap) * w.i + first_col + piece, first_col + piece < y.c);
      }
    }
  }

  auto fill = [&](Patch<kSide>& patch, int tile) {
    if (tile < tiles.count) {
      const PatchTiles::Place at = tiles.place<kSide>(tile);
      patch.fill(x, at.n, at.row, at.col, 0, in_group, kWarpgroup);
    }
    close_copies();
  };

  FragmentMoments<T, kFilterAlongK ? kCols : 8> moments;
  auto& results = shared->results[group];
  const int step = int(gridDim.x) * kGroups;
  int tile = int(blockIdx.x) + int(gridDim.x) * group;
  fill(shared->patches[group][0], tile);
  fill(shared->patches[group][1], tile + step);
  wait_for_copies<1>();
  publish_to_products();
  __syncthreads();  // the filter is there
  for (int now = 0; tile < tiles.count; now = 1 - now) {
    Patch<kSide>& patch = shared->patches[group][now];
    float sum[kCols / 8][2][2] = {};
    open_products();
    const ProductOperand window = patch.window(0, 0), filter = shared->filter[0].first(0, 0);
#pragma unroll 1
    for (int k = 0; k < x.c; k += 16) {
#pragma unroll
      for (int tap = 0; tap < kTaps; ++tap) {
        begin_multiply_add<T, true, kFilterAlongK, Patch<kSide>::kPitch>(
            sum, window.at(Patch<kSide>::window_line(tap), k),
            kFilterAlongK ? filter.at(tap * kFilterLines, k) : filter.at(tap * kFilterLines + k));
      }
    }
    close_products();
    const PatchTiles::Place at = tiles.place<kSide>(tile);
    const int col = at.col + lane / 4;
    // What a gradient is added to is read while the products go on; in the forward pass the moments need these registers.
    uint32_t added[2][kCols / 8] = {};
    if constexpr (!kFilterAlongK) {
      if (residual.p != nullptr) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
#pragma unroll
          for (int j = 0; j < kCols / 8; ++j) added[half][j] = pair_of(residual, at, first_col, half, j);
        }
      }
    }
    wait_for_products(sum);
    sync_warpgroup();  // the patch has been read
    tile += step;
    fill(patch, tile + step);

    uint32_t pairs[2][kCols / 8];
    round_results<T, kCols>(
        sum, first_col, y.c, {bias, act, residual.p != nullptr},
        [&](int half, int j) {
          if constexpr (kFilterAlongK) return pair_of(residual, at, first_col, half, j);
          return added[half][j];
        },
        pairs);
    if constexpr (kFilterAlongK) {
      if (stats.wanted()) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          if (at.row + warp * 2 + half < y.h && col < y.w) moments.add(pairs[half]);
        }
      }
    }
    store_lines<T, kCols>(pairs, results, first_col, y.c, PixelLines<T>(y, at));
    wait_for_copies<1>();
    publish_to_products();
    sync_warpgroup();  // the next patch is there
  }
  if constexpr (kFilterAlongK) {
    if (!stats.wanted()) return;
    __syncthreads();  // no patch is used any more; the last groups of copies are empty
    auto* const parts = reinterpret_cast<typename decltype(moments)::Parts*>(&shared->patches[0]);
    static_assert(sizeof(*parts) * kThreads / kWarp <= sizeof(shared->patches));
    moments.template store<kThreads>(parts, y.c - first_col, stats.row(int(blockIdx.x)) + first_col);
  }
}

// ---- dw = gradient by the filter

constexpr int kWeightThreads = 3 * kWarpgroup;  // a warpgroup for each row of the filter
constexpr int kOuts = 64;                       // outputs of a block: the rows of its products
constexpr int kWeightSide = 16;                 // of a tile, in pixels: the values of k of its products

struct WeightShared {
  struct alignas(1024) Tile {
    uint16_t v[kWeightSide * kWeightSide][kOuts];
  };
  Patch<kWeightSide> x[2];
  Tile dy[2];
};

// partial[chunk, o, ky, kx, c] = sum over the chunk's pixels of dy[pixel, o] x[pixel at (ky, kx), c]
//
// Block (chunk, tile of outputs, tile of channels); a chunk is a run of the images' tiles. A product has kOuts rows, kCols columns
// and 2 x 8 pixels for its 16 values of k, so a line of either operand is a pixel. The next tile is copied while this one is
// multiplied.
template <class T, int kCols>
__global__ void __launch_bounds__(kWeightThreads, 1)
    conv_patch_weight_kernel(Images<const T> x, Images<const T> dy, PatchTiles tiles, int per_chunk, float* partial) {
  TESSERA_DYNAMIC_SHARED(WeightShared, shared);
  const int first_out = int(blockIdx.y) * kOuts;
  const int first_col = int(blockIdx.z) * kCols;
  const int lane = int(threadIdx.x % kWarp), warp = int(threadIdx.x % kWarpgroup / kWarp), ky = int(threadIdx.x / kWarpgroup);
  constexpr int kPieces = 8;
  const int piece = int(threadIdx.x % kPieces) * 8;
  const int first_line = int(threadIdx.x / kPieces);
  constexpr int kLinesAtOnce = kWeightThreads / kPieces;

  const int end = min((int(blockIdx.x) + 1) * per_chunk, tiles.count);
  auto fill = [&](int at, int tile) {
    if (tile < end) {
      const auto [n, first_row, first] = tiles.place<kWeightSide>(tile);
      if (piece < kCols) {
        for (int line = first_line; line < Patch<kWeightSide>::kLines; line += kLinesAtOnce) {
          const int in_patch = line / Patch<kWeightSide>::kPitch;
          const int row = first_row - Patch<kWeightSide>::kBorder + in_patch;
          const int col = first - Patch<kWeightSide>::kBorder + line - in_patch * Patch<kWeightSide>::kPitch;
          const bool inside = unsigned(row) < unsigned(x.h) && unsigned(col) < unsigned(x.w) && first_col + piece < x.c;
          copy_ahead(&shared->x[at].v[line][piece ^ line % 8 * 8], x.pixel(n, row, col) + first_col + piece, inside);
        }
      }
      for (int line = first_line; line < kWeightSide * kWeightSide; line += kLinesAtOnce) {
        const int row = first_row + line / kWeightSide;
        const int col = first + line % kWeightSide;
        const bool inside = row < dy.h && col < dy.w && first_out + piece < dy.c;
        copy_ahead(&shared->dy[at].v[line][piece ^ line % 8 * 8], dy.pixel(n, row, col) + first_out + piece, inside);
      }
    }
    close_copies();
  };

  wait_for_kernel_before();
  float sum[3][kCols / 8][2][2] = {};  // of each kx
  int now = 0;
  const int begin = int(blockIdx.x) * per_chunk;
  fill(0, begin);
  for (int tile = begin; tile < end; ++tile) {
    fill(1 - now, tile + 1);
    wait_for_copies<1>();
    publish_to_products();
    __syncthreads();
    const ProductOperand of_dy = shared->dy[now].v[0], of_x = shared->x[now].v[ky * Patch<kWeightSide>::kPitch];
    open_products();
#pragma unroll
    for (int step = 0; step < kWeightSide * kWeightSide / 16; ++step) {
      const int row = step / 2 * 2, col = step % 2 * 8;
#pragma unroll
      for (int kx = 0; kx < 3; ++kx) {
        begin_multiply_add<T, false, false, kWeightSide, Patch<kWeightSide>::kPitch>(
            sum[kx], of_dy.at(row * kWeightSide + col), of_x.at(row * Patch<kWeightSide>::kPitch + col + kx));
      }
    }
    close_products();
#pragma unroll
    for (int kx = 0; kx < 3; ++kx) wait_for_products(sum[kx]);
    now = 1 - now;
    __syncthreads();  // the tile after the next may come
  }

#pragma unroll
  for (int kx = 0; kx < 3; ++kx) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int out = first_out + warp * 16 + half * 8 + lane / 4;
      float* const to = partial + ((int64_t(blockIdx.x) * dy.c + out) * kTaps + ky * 3 + kx) * x.c;
#pragma unroll
      for (int j = 0; j < kCols / 8; ++j) {
        const int col = first_col + j * 8 + lane % 4 * 2;
        if (out < dy.c && col < x.c) store_pack<2>(to + col, Pack<float, 2>{{sum[kx][j][half][0], sum[kx][j][half][1]}});
      }
    }
  }
}

// ---- launches

// kFilterAlongK: conv2d; else its gradient by the data, where x is dy and y is dx.
template <bool kFilterAlongK>
bool run(const char* name, const ImageView& x, const FilterView& w, const ImageView& y, const ConvParams& p,
         const ConvEpilogue& epilogue, ResultStats* stats = nullptr) {
  if (!has_wgmma() || !is_square(w, p, 3, 1)) return false;
  if (x.c > kLineChannels || x.c % 16 != 0) return false;  // one line of a patch; a product is 16 values of k
  return for_16_bits(x.t, [&]<class T>() {
    if (!in_packs<T>(x, w, y, epilogue.residual)) return false;
    auto tile = [&]<int kCols>() {
      using Shared = PatchShared<kCols, kFilterAlongK>;
      const PatchTiles tiles = patch_tiles(y, kSide, kCols);
      const dim3 blocks(persistent_blocks(tiles.count, tiles.cols), unsigned(tiles.cols));
      launch(name, early({blocks, dim3(unsigned(Shared::kThreads)), sizeof(Shared)}), conv_patch_kernel<T, kCols, kFilterAlongK>,
             images_of<const T>(x), filters_of<const T>(w), images_of<T>(y), tiles, static_cast<const float*>(epilogue.bias),
             epilogue.activation, images_of<const T>(epilogue.residual), chunks_of(stats, blocks.x, y.c));
    };
    // The narrowest tile that holds all columns, else 64. 80, the box branch's width in the head of x, would leave most of a second
    // tile idle.
    if (y.c <= 16) {
      tile.template operator()<16>();
    } else if (y.c <= 32) {
      tile.template operator()<32>();
    } else if (kFilterAlongK && y.c > 64 && y.c <= 80) {
      if constexpr (kFilterAlongK) tile.template operator()<80>();
    } else {
      tile.template operator()<64>();
    }
    return true;
  });
}

}  // namespace

bool patch_conv2d(const ImageView& x, const FilterView& w, const ImageView& y, const ConvParams& p, const ConvEpilogue& epilogue,
                  ResultStats* stats) {
  return run<true>("conv2d, patches", x, w, y, p, epilogue, stats);
}

bool patch_conv2d_backward_data(const ImageView& dy, const FilterView& w, const ImageView& dx, const ConvParams& p,
                                const ConvEpilogue& epilogue) {
  return run<false>("conv2d_backward_data, patches", dy, w, dx, p, epilogue);
}

bool patch_conv2d_backward_weight(const ImageView& x, const ImageView& dy, const FilterView& dw, const ConvParams& p,
                                  bool accumulate) {
  if (!has_wgmma() || !is_square(dw, p, 3, 1)) return false;
  return for_16_bits(x.t, [&]<class T>() {
    if (!in_packs(x) || !in_packs(dy)) return false;
    auto tile = [&]<int kCols>() {
      const PatchTiles tiles = patch_tiles(dy, kWeightSide, kOuts);
      const unsigned out_tiles = unsigned(tiles.cols), in_tiles = blocks_for(x.c, kCols);
      // One block fills a multiprocessor, hence the half of enough_blocks(); with more chunks there would be more filters to add.
      const tiled::TileChunks chunks = tiled::tile_chunks(tiles.count, enough_blocks() / 2 / (out_tiles * in_tiles));
      const Scratch<float> partial(int64_t(chunks.count) * dw.o * kTaps * dw.i);
      launch("conv2d_backward_weight, patches",
             early({dim3(unsigned(chunks.count), out_tiles, in_tiles), dim3(kWeightThreads), sizeof(WeightShared)}),
             conv_patch_weight_kernel<T, kCols>, images_of<const T>(x), images_of<const T>(dy), tiles, chunks.tiles_each,
             partial.get());
      tiled::add_filter_chunks(partial, chunks.count, dw, accumulate);
    };
    x.c <= 32 ? tile.template operator()<32>() : tile.template operator()<64>();
    return true;
  });
}

}  // namespace tessera::cuda::wgmma
