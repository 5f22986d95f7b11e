// 3 x 3 convolution of few channels at stride 1, and its gradients, in 16 bits on the warpgroup instructions of sm_90a.
// Compiled for sm_90a and nothing else (cmake/cuda.cmake).
//
// The tiled kernel brings each pixel to shared memory nine times, and the filter once for each tile. Here the filter stays in shared
// memory while a block works through its tiles, and of each tile the pixels come once, with a border. Nothing is copied on the way
// to the tensor cores:
//
// Note [Windows in a patch]: a pixel is a line of the patch, 64 channels in 128 bytes, so eight neighbours are eight lines as an
// operand wants them, wherever they begin: pieces take turns by the address, not by the row. Eight rows of A are eight pixels side
// by side, the next eight are those below, a patch's width further; another tap is another first line.
#include <algorithm>

#include "cuda/conv_launch.cuh"
#include "cuda/device/warpgroup.cuh"

namespace tessera::cuda::wgmma {

namespace {

constexpr int kSide = 16;  // of a tile, in pixels; a warpgroup has a quarter of 8 x 8
constexpr int kBorder = 1;
constexpr int kPatchSide = kSide + 2 * kBorder;
constexpr int kThreads = 512;
constexpr int kTaps = 9;
constexpr int kMostChannels = 64;

template <int kCols, bool kFilterAlongK>
struct PatchShared {
  static constexpr int kLines = (kPatchSide * kPatchSide + 7) / 8 * 8;
  static constexpr int kPitch = kCols + (kCols <= 64 ? 8 : 0);  // of results; the eight put neighbours on other banks
  struct alignas(1024) Patch {
    uint16_t v[kLines][kMostChannels];
  };
  TurningPanel<kCols, kFilterAlongK> filter[kTaps];
  Patch patches[2];
  static_assert(sizeof(Patch) >= kSide * kSide * kPitch * sizeof(uint16_t));  // results go where the patch was
};

struct PatchTiles {
  int across, down, count;
  int cols;  // tiles of channels
};

// y[pixel, column] = act(bias[column] + sum over (tap, channel) of x[pixel at tap, channel] * w[tap, channel, column])
//                    + residual[pixel, column]
// with w[tap, channel, column] = w[column, tap, channel] (kFilterAlongK) or w[channel, 8 - tap, column].
//
// Block (b, column tile): every gridDim.x-th tile of the images. The next patch comes while this one is multiplied.
// `stats`: of a result that is nothing but the sums.
template <class T, int kCols, bool kFilterAlongK>
__global__ void __launch_bounds__(kThreads, 1)
    conv_patch_kernel(Images<const T> x, Filters<const T> w, Images<T> y, PatchTiles tiles, const float* bias, Activation act,
                      Images<const T> residual, Chunks<Moments> stats) {
  using Shared = PatchShared<kCols, kFilterAlongK>;
  TESSERA_DYNAMIC_SHARED(Shared, shared);
  const int first_col = int(blockIdx.y) * kCols;
  const int lane = int(threadIdx.x % kWarp), warp = int(threadIdx.x % 128 / kWarp), group = int(threadIdx.x / 128);
  const int top = group / 2 * 8, left = group % 2 * 8;  // of the warpgroup's pixels in the tile

  constexpr int kPieces = kMostChannels / 8;
  const int piece = int(threadIdx.x % kPieces) * 8;
  const int first_line = int(threadIdx.x / kPieces);
  constexpr int kLinesAtOnce = kThreads / kPieces;

  wait_for_kernel_before();
  if constexpr (kFilterAlongK) {
    for (int line = first_line; line < kTaps * kCols; line += kLinesAtOnce) {
      const int tap = line / kCols;
      const int col = line - tap * kCols;
      if (piece >= x.c) break;
      copy_ahead(shared->filter[tap].place(piece, col), w.p + (int64_t(first_col + col) * kTaps + tap) * w.i + piece,
                 first_col + col < y.c);
    }
  } else {
    static_assert(kFilterAlongK || kCols <= 64);
    for (int line = first_line; line < kTaps * kMostChannels; line += kLinesAtOnce) {
      const int tap = line / kMostChannels;
      const int channel = line - tap * kMostChannels;
      if (piece >= kCols || channel >= x.c) continue;
      copy_ahead(shared->filter[tap].place(channel, piece),
                 w.p + (int64_t(channel) * kTaps + kTaps - 1 - tap) * w.i + first_col + piece, first_col + piece < y.c);
    }
  }

  struct Place {
    int n, row, col;
  };
  auto place_of = [&](int tile) {
    const int line = tile / tiles.across;
    const int n = line / tiles.down;
    return Place{n, (line - n * tiles.down) * kSide, (tile - line * tiles.across) * kSide};
  };
  auto fill = [&](typename Shared::Patch& patch, int tile) {
    if (tile < tiles.count && piece < x.c) {
      const Place at = place_of(tile);
      for (int line = first_line; line < kPatchSide * kPatchSide; line += kLinesAtOnce) {
        const int in_patch = line / kPatchSide;
        const int row = at.row - kBorder + in_patch;
        const int col = at.col - kBorder + line - in_patch * kPatchSide;
        const bool inside = unsigned(row) < unsigned(x.h) && unsigned(col) < unsigned(x.w);
        copy_ahead(&patch.v[line][piece ^ line % 8 * 8], x.pixel(at.n, row, col) + piece, inside);
      }
    }
    close_copies();
  };

  // Of moments: two columns of every kGroups-th pixel.
  constexpr int kGroups = kThreads / (kCols / 2);
  const int pair = int(threadIdx.x) % (kCols / 2) * 2;
  const int first_pixel = int(threadIdx.x) / (kCols / 2);
  int pixels = 0;
  Deviations of[2];

  fill(shared->patches[0], int(blockIdx.x));
  int now = 0;
  for (int tile = int(blockIdx.x); tile < tiles.count; tile += int(gridDim.x)) {
    typename Shared::Patch& patch = shared->patches[now];
    now = 1 - now;
    fill(shared->patches[now], tile + int(gridDim.x));
    wait_for_copies<1>();
    publish_to_products();
    __syncthreads();

    float sum[kCols / 8][2][2] = {};
    for (int k = 0; k < x.c; k += 16) {
      open_products();
#pragma unroll
      for (int tap = 0; tap < kTaps; ++tap) {
        const uint16_t* const first = &patch.v[(top + tap / 3) * kPatchSide + left + tap % 3][k];
        begin_multiply_add<T, true, kFilterAlongK, kPatchSide>(sum, first, shared->filter[tap].first(k, 0));
      }
      close_products();
      wait_for_products(sum);
    }
    __syncthreads();  // the patch has been read

    const Place at = place_of(tile);
    auto* const results = reinterpret_cast<T(*)[Shared::kPitch]>(&patch) + (group * 64 + warp * 16);  // of the warp: 2 x 8 pixels
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = at.row + top + warp * 2 + half;
      const int col = at.col + left + lane / 4;
      const bool inside = row < y.h && col < y.w;
#pragma unroll
      for (int j = 0; j < kCols / 8; ++j) {
        const int in_tile = j * 8 + lane % 4 * 2;
        const int column = first_col + in_tile;
        Pack<T, 2> added{};
        if (residual.p != nullptr && inside && column < y.c) added = load_pack<2>(residual.pixel(at.n, row, col) + column);
        Pack<T, 2> v;
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const float b = bias != nullptr && column < y.c ? bias[column + i] : 0.0f;
          v.v[i] = activate(act, sum[j][half][i] + b) + added.v[i];
        }
        store_pack<2>(&results[half * 8 + lane / 4][in_tile], v);
      }
    }
    __syncwarp();
    constexpr int kPacks = kCols / 8;
#pragma unroll
    for (int i = 0; i < 16 * kPacks / kWarp; ++i) {
      const int index = lane + i * kWarp;
      const int pixel = index / kPacks;
      const int in_tile = index % kPacks * 8;
      const int row = at.row + top + warp * 2 + pixel / 8;
      const int col = at.col + left + pixel % 8;
      if (row < y.h && col < y.w && first_col + in_tile < y.c) {
        *reinterpret_cast<Packed<T, 8>*>(y.pixel(at.n, row, col) + first_col + in_tile) = load_raw<8>(&results[pixel][in_tile]);
      }
    }
    if (kFilterAlongK && stats.wanted()) {
      __syncthreads();
      const auto* const all = reinterpret_cast<const T(*)[Shared::kPitch]>(&patch);
      for (int pixel = first_pixel; first_pixel < kGroups && pixel < kSide * kSide; pixel += kGroups) {
        const int row = at.row + pixel / 128 * 8 + pixel % 64 / 8;
        const int col = at.col + pixel / 64 % 2 * 8 + pixel % 8;
        if (row >= y.h || col >= y.w) continue;
        const Pack<T, 2> v = load_pack<2>(&all[pixel][pair]);
        const bool none = pixels++ == 0;
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          if (none) of[i].first = v.v[i];
          of[i].add(v.v[i]);
        }
      }
    }
    __syncthreads();  // the results have been read: the patch after the next may come
  }
  if (kFilterAlongK && stats.wanted()) {
    auto* const parts = reinterpret_cast<Moments*>(&shared->patches[0]);
    static_assert(sizeof(Moments) * kThreads <= sizeof(shared->patches[0]));
    if (first_pixel < kGroups) {
#pragma unroll
      for (int i = 0; i < 2; ++i) parts[first_pixel * kCols + pair + i] = of[i].moments(pixels);
    }
    fold_in_block<1>(parts, kCols, kGroups, CombinedMoments{});
    const int t = int(threadIdx.x);
    if (t < min(kCols, y.c - first_col)) stats.row(int(blockIdx.x))[first_col + t] = parts[t];
  }
}

constexpr int kWeightThreads = 384;  // a warpgroup for each row of the filter
constexpr int kOuts = 64;

struct WeightShared {
  struct alignas(1024) Patch {
    uint16_t v[(kPatchSide * kPatchSide + 7) / 8 * 8][kMostChannels];
  };
  struct alignas(1024) Tile {
    uint16_t v[kSide * kSide][kOuts];
  };
  Patch x[2];
  Tile dy[2];
};

// partial[chunk, o, ky, kx, c] = sum over the chunk's pixels of dy[pixel, o] x[pixel at (ky, kx), c]
//
// Block (chunk, tile of outputs, tile of channels): a run of the images' tiles. A product has kOuts rows, kCols columns, and two by
// eight pixels for k: lines of both panels are pixels. The next tile comes while this one is multiplied.
template <class T, int kCols>
__global__ void __launch_bounds__(kWeightThreads, 1)
    conv_patch_weight_kernel(Images<const T> x, Images<const T> dy, PatchTiles tiles, int per_chunk, float* partial) {
  TESSERA_DYNAMIC_SHARED(WeightShared, shared);
  const int first_out = int(blockIdx.y) * kOuts;
  const int first_col = int(blockIdx.z) * kCols;
  const int lane = int(threadIdx.x % kWarp), warp = int(threadIdx.x % 128 / kWarp), ky = int(threadIdx.x / 128);
  constexpr int kPieces = 8;
  const int piece = int(threadIdx.x % kPieces) * 8;
  const int first_line = int(threadIdx.x / kPieces);
  constexpr int kLinesAtOnce = kWeightThreads / kPieces;

  const int end = min((int(blockIdx.x) + 1) * per_chunk, tiles.count);
  auto fill = [&](int at, int tile) {
    if (tile < end) {
      const int above = tile / tiles.across;
      const int n = above / tiles.down;
      const int first_row = (above - n * tiles.down) * kSide;
      const int first = (tile - above * tiles.across) * kSide;
      if (piece < kCols) {
        for (int line = first_line; line < kPatchSide * kPatchSide; line += kLinesAtOnce) {
          const int in_patch = line / kPatchSide;
          const int row = first_row - kBorder + in_patch;
          const int col = first - kBorder + line - in_patch * kPatchSide;
          const bool inside = unsigned(row) < unsigned(x.h) && unsigned(col) < unsigned(x.w) && first_col + piece < x.c;
          copy_ahead(&shared->x[at].v[line][piece ^ line % 8 * 8], x.pixel(n, row, col) + first_col + piece, inside);
        }
      }
      for (int line = first_line; line < kSide * kSide; line += kLinesAtOnce) {
        const int row = first_row + line / kSide;
        const int col = first + line % kSide;
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
    open_products();
#pragma unroll
    for (int step = 0; step < kSide * kSide / 16; ++step) {
      const int row = step / 2 * 2, col = step % 2 * 8;
#pragma unroll
      for (int kx = 0; kx < 3; ++kx) {
        begin_multiply_add<T, false, false, kSide, kPatchSide>(sum[kx], shared->dy[now].v[row * kSide + col],
                                                               shared->x[now].v[(row + ky) * kPatchSide + col + kx]);
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

PatchTiles tiles_of(const ImageView& y, int cols) {
  PatchTiles tiles{int(blocks_for(y.w, kSide)), int(blocks_for(y.h, kSide)), 0, int(blocks_for(y.c, cols))};
  tiles.count = size32(int64_t(tiles.across) * tiles.down * y.n);
  return tiles;
}

template <bool kFilterAlongK>
bool run(const char* name, const ImageView& x, const FilterView& w, const ImageView& y, const ConvParams& p,
         const ConvEpilogue& epilogue, ResultStats* stats = nullptr) {
  if (device().major != 9 || w.kh != 3 || w.kw != 3 || p.stride != 1 || p.pad != 1) return false;
  if (x.c > kMostChannels || x.c % 16 != 0) return false;
  return for_16_bits(x.t, [&]<class T>() {
    if (!in_packs<T>(x, w, y)) return false;
    auto tile = [&]<int kCols>() {
      const PatchTiles tiles = tiles_of(y, kCols);
      const dim3 blocks(unsigned(std::min(tiles.count, std::max(1, device().multiprocessors / tiles.cols))), unsigned(tiles.cols));
      launch(name, early({blocks, dim3(kThreads), sizeof(PatchShared<kCols, kFilterAlongK>)}),
             conv_patch_kernel<T, kCols, kFilterAlongK>, images_of<const T>(x), filters_of<const T>(w), images_of<T>(y), tiles,
             static_cast<const float*>(epilogue.bias), epilogue.activation, images_of<const T>(epilogue.residual),
             stats != nullptr ? stats->make(blocks.x, y.c) : Chunks<Moments>{});
    };
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

bool conv2d_backward_weight(const ImageView& x, const ImageView& dy, const FilterView& dw, const ConvParams& p, bool accumulate) {
  if (device().major != 9 || dw.kh != 3 || dw.kw != 3 || p.stride != 1 || p.pad != 1) return false;
  return for_16_bits(x.t, [&]<class T>() {
    if (x.c % kWide<T> != 0 || dy.c % kWide<T> != 0 || !rows_are_aligned(x.rows()) || !rows_are_aligned(dy.rows())) return false;
    auto tile = [&]<int kCols>() {
      const PatchTiles tiles = tiles_of(dy, kOuts);
      const int parts = tiles.cols * int(blocks_for(x.c, kCols));
      // A block fills a multiprocessor, and every chunk more is a filter more to add.
      const int most = int(std::clamp<int64_t>(enough_blocks() / 2 / parts, 1, std::max(1, tiles.count)));
      const int per_chunk = (tiles.count + most - 1) / most;
      const int chunks = std::max(1, (tiles.count + per_chunk - 1) / std::max(1, per_chunk));
      const Scratch<float> partial(int64_t(chunks) * dw.o * kTaps * dw.i);
      launch(
          "conv2d_backward_weight, patches",
          early({dim3(unsigned(chunks), unsigned(tiles.cols), blocks_for(x.c, kCols)), dim3(kWeightThreads), sizeof(WeightShared)}),
          conv_patch_weight_kernel<T, kCols>, images_of<const T>(x), images_of<const T>(dy), tiles, per_chunk, partial.get());
      tiled::add_filter_chunks(partial, chunks, dw, accumulate);
    };
    x.c <= 32 ? tile.template operator()<32>() : tile.template operator()<64>();
    return true;
  });
}

}  // namespace tessera::cuda::wgmma
