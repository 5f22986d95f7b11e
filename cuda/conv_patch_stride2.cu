// 3 x 3 convolution of few channels at stride 2, and its gradients, in 16 bits on the warpgroup instructions of sm_90a.
// Compiled for sm_90a and nothing else (cmake/cuda.cmake).
//
// As in cuda/conv_patch.cu (Note [Windows in a patch] of cuda/device/patches.cuh) the filter stays in shared memory and each pixel
// comes once. There a block of several warpgroups fills a multiprocessor; here a block is one warpgroup and a multiprocessor holds
// several of them, so that while one waits for its pixels, others multiply or store.
#include <algorithm>

#include "cuda/conv_launch.cuh"
#include "cuda/device/fragment_moments.cuh"
#include "cuda/device/patches.cuh"
#include "cuda/device/warpgroup.cuh"

namespace tessera::cuda::wgmma {

namespace {

constexpr int kThreads = kWarpgroup;
constexpr int kSide = 8;   // of a tile, in pixels of the smaller image
constexpr int kLine = 64;  // numbers of a line of an operand

// kCount lines in the 128-byte swizzle of operands (SwizzledPanel).
template <int kCount>
struct alignas(1024) Lines {
  uint16_t v[kCount][kLine];
  __device__ uint16_t* place(int line, int number) { return &v[line][number ^ line % 8 * 8]; }
};

template <class Shared>
constexpr int resident(int by_registers = 6) {
  return resident_blocks(sizeof(Shared), by_registers);
}

// What a tile of results reads of x. At stride 2 neighbouring results read every second pixel. So two pixels side by side share a
// line, the second kSlot numbers after the first: they are what tap columns 0 and 1 of one result read, and eight neighbouring
// results read eight neighbouring lines. Tap column 2 of a result is tap column 0 of the next one, hence the next line; the next
// row of results is two rows of pixels on.
template <int kSlot>
struct PairedPatch {
  static constexpr int kAcross = kSide + 1;  // lines
  static constexpr int kDown = 2 * kSide + 1;
  static constexpr int kStep = 2 * kAcross;  // lines from row to row of results
  Lines<(kAcross * kDown + 7) / 8 * 8> lines;

  __device__ const uint16_t* first(int ky, int kx, int number = 0) const {
    return &lines.v[ky * kAcross + kx / 2][kx % 2 * kSlot + number];
  }
  // Starts the copies of what the tile at `at` reads. All threads of the block call it.
  template <class T>
  __device__ void fill(const Images<const T>& x, const PatchTiles::Place& at) {
    constexpr int kPieces = kSlot / 8;
    constexpr int kLinesAtOnce = kThreads / (2 * kPieces);
    const int piece = int(threadIdx.x) % kPieces * 8;
    const int second = int(threadIdx.x) / kPieces % 2;  // of the two pixels of a line
    const int first_row = 2 * at.row - 1, first_col = 2 * at.col - 1 + second;
    const T* const corner = x.p + (int64_t(at.n * x.h + first_row) * x.w + first_col) * x.pitch + piece;
    for (int line = int(threadIdx.x) / (2 * kPieces); line < kAcross * kDown; line += kLinesAtOnce) {
      const int down = line / kAcross, right = 2 * (line - down * kAcross);
      const bool inside = unsigned(first_row + down) < unsigned(x.h) && unsigned(first_col + right) < unsigned(x.w) && piece < x.c;
      copy_ahead(lines.place(line, second * kSlot + piece), corner + (down * x.w + right) * x.pitch, inside);
    }
  }
};

// ---- y = conv(x)

template <int kCols, int kSlot>
struct ForwardShared {
  static constexpr int kPitch = kCols + 8;  // of results; the eight more put neighbouring lines on different banks
  static constexpr int kTapsOfLine = kLine / kSlot;
  using Patch = PairedPatch<kSlot>;
  Lines<kCols> filter[(kTaps + kTapsOfLine - 1) / kTapsOfLine];
  Patch patches[2];
  static_assert(sizeof(Patch) >= kSide * kSide * kPitch * sizeof(uint16_t));  // results go where the patch was
};

// y[pixel, column] = act(bias[column] + sum over (tap, channel) of x[pixel at tap, channel] * w[column, tap, channel])
//                    + residual[pixel, column]
//
// Block (b, column tile): every gridDim.x-th tile of the images. The next patch is copied while this one is multiplied.
// `stats`: moments of the result, asked for only without bias, activation and residual.
template <class T, int kCols, int kSlot>
__global__ void __launch_bounds__(kThreads, resident<ForwardShared<kCols, kSlot>>())
    conv_stride2_kernel(Images<const T> x, Filters<const T> w, Images<T> y, PatchTiles tiles, const float* bias, Activation act,
                        Images<const T> residual, Chunks<Moments> stats) {
  using Shared = ForwardShared<kCols, kSlot>;
  TESSERA_DYNAMIC_SHARED(Shared, shared);
  const int first_col = int(blockIdx.y) * kCols;
  const int lane = int(threadIdx.x % kWarp), warp = int(threadIdx.x / kWarp);

  wait_for_kernel_before();
  constexpr int kPieces = kSlot / 8;
  for (int i = int(threadIdx.x); i < kTaps * kCols * kPieces; i += kThreads) {
    const int piece = i % kPieces * 8;
    const int tap = i / kPieces % kTaps;
    const int col = i / (kPieces * kTaps);
    copy_ahead(shared->filter[tap / Shared::kTapsOfLine].place(col, tap % Shared::kTapsOfLine * kSlot + piece),
               w.p + (int64_t(first_col + col) * kTaps + tap) * w.i + piece, first_col + col < y.c && piece < x.c);
  }

  auto fill = [&](int at, int tile) {
    if (tile < tiles.count) shared->patches[at].fill(x, tiles.place<kSide>(tile));
    close_copies();
  };

  FragmentMoments<T, kCols> moments;
  fill(0, int(blockIdx.x));
  int now = 0;
  for (int tile = int(blockIdx.x); tile < tiles.count; tile += int(gridDim.x)) {
    wait_for_copies<0>();
    publish_to_products();
    __syncthreads();  // this patch is there, the other has been read
    fill(1 - now, tile + int(gridDim.x));

    typename Shared::Patch& patch = shared->patches[now];
    float sum[kCols / 8][2][2] = {};
    open_products();
#pragma unroll
    for (int tap = 0; tap < kTaps; ++tap) {
#pragma unroll
      for (int k = 0; k < kSlot; k += 16) {
        begin_multiply_add<T, true, true, Shared::Patch::kStep>(
            sum, patch.first(tap / 3, tap % 3, k),
            &shared->filter[tap / Shared::kTapsOfLine].v[0][tap % Shared::kTapsOfLine * kSlot + k]);
      }
    }
    close_products();
    wait_for_products(sum);
    now = 1 - now;
    __syncthreads();  // the patch has been read

    const PatchTiles::Place at = tiles.place<kSide>(tile);
    auto& results = *reinterpret_cast<uint16_t(*)[kSide * kSide][Shared::kPitch]>(&patch);
    uint32_t pairs[2][kCols / 8];
    round_results<T, kCols>(sum, first_col, y.c, {bias, act, residual.p != nullptr},
                            [&](int half, int j) { return pair_of(residual, at, first_col, half, j); }, pairs);
    if (stats.wanted()) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        if (at.row + warp * 2 + half < y.h && at.col + lane / 4 < y.w) moments.add(pairs[half]);
      }
    }
    store_lines<T, kCols>(pairs, results, first_col, y.c, PixelLines<T>(y, at));
  }
  if (stats.wanted()) {
    __syncthreads();  // no patch is used any more; the last group of copies is empty
    auto* const parts = reinterpret_cast<typename decltype(moments)::Parts*>(&shared->patches[0]);
    static_assert(sizeof(*parts) * kThreads / kWarp <= sizeof(shared->patches));
    moments.template store<kThreads>(parts, y.c - first_col, stats.row(int(blockIdx.x)) + first_col);
  }
}

// ---- dx = gradient by the data

// Row 2 a of dx gets row a of dy through tap row 1 of the filter; row 2 a + 1 gets row a through tap row 2 and row a + 1 through
// tap row 0. Columns likewise. So nine taps lead from a tile of dy to the four neighbours (2 a + i, 2 b + j) of each of its pixels.
// The two of the same i are columns of one product, and where no tap leads to the left one (j = 0) its part of the filter is zero.
struct Product {
  int down, right;  // which pixel of dy, from (a, b)
  int row;          // i

  static constexpr int kCount = 6;
  static __host__ __device__ constexpr Product at(int t) { return t < 4 ? Product{0, t / 2, t % 2} : Product{1, t - 4, 1}; }
  __device__ int tap(int col) const {  // j; or -1
    const int ky = row == 0 ? 1 : 2 - 2 * down;
    const int kx = col == 1 ? 2 - 2 * right : right == 0 ? 1 : -1;
    return kx < 0 ? -1 : ky * 3 + kx;
  }
};

template <int kCols, int kDepth>
struct DataShared {
  static constexpr int kPatchSide = kSide + 1;
  using Patch = Lines<(kPatchSide * kPatchSide + 7) / 8 * 8>;
  Lines<kDepth> filter[Product::kCount * 2 * kCols / kLine];  // a line: one channel of dy
  Patch patches[2];
};

// The 4 x 4 transpose among four neighbouring lanes: before, lane l holds part l of four pieces; afterwards piece l whole.
__device__ inline void transpose_in_four(unsigned (&v)[4]) {
  const bool odd = threadIdx.x % 2 != 0, upper = threadIdx.x % 4 >= 2;
#pragma unroll
  for (int i = 0; i < 4; i += 2) {
    const unsigned other = __shfl_xor_sync(~0u, odd ? v[i] : v[i + 1], 1);
    v[i] = odd ? other : v[i];
    v[i + 1] = odd ? v[i + 1] : other;
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const unsigned other = __shfl_xor_sync(~0u, upper ? v[i] : v[i + 2], 2);
    v[i] = upper ? other : v[i];
    v[i + 2] = upper ? v[i + 2] : other;
  }
}

// dx[2 a + i, 2 b + j, column] (+)= sum over (tap, channel) as above of dy[pixel, channel] * w[channel, tap, column]
//
// Block (b, column tile): every gridDim.x-th tile of dy. The next patch is copied while this one is multiplied.
template <class T, int kCols, int kDepth>
__global__ void __launch_bounds__(kThreads, resident<DataShared<kCols, kDepth>>())
    conv_stride2_data_kernel(Images<const T> dy, Filters<const T> w, Images<T> dx, PatchTiles tiles, bool accumulate) {
  using Shared = DataShared<kCols, kDepth>;
  TESSERA_DYNAMIC_SHARED(Shared, shared);
  const int first_col = int(blockIdx.y) * kCols;
  const int lane = int(threadIdx.x % kWarp), warp = int(threadIdx.x / kWarp);

  wait_for_kernel_before();
  constexpr int kFilterPieces = kCols / 8;
  for (int i = int(threadIdx.x); i < Product::kCount * 2 * kDepth * kFilterPieces; i += kThreads) {
    const int piece = i % kFilterPieces * 8;
    const int part = i / kFilterPieces % (Product::kCount * 2);
    const int channel = i / (kFilterPieces * Product::kCount * 2);
    const int tap = Product::at(part / 2).tap(part % 2);
    const int number = part * kCols + piece;
    copy_ahead(shared->filter[number / kLine].place(channel, number % kLine),
               w.p + (int64_t(channel) * kTaps + tap) * w.i + first_col + piece,
               tap >= 0 && channel < dy.c && first_col + piece < dx.c);
  }

  constexpr int kPieces = kDepth / 8;
  const int piece = int(threadIdx.x) % kPieces * 8;
  const int first_line = int(threadIdx.x) / kPieces;
  constexpr int kLinesAtOnce = kThreads / kPieces;
  auto fill = [&](typename Shared::Patch& patch, int tile) {
    if (tile < tiles.count) {
      const PatchTiles::Place at = tiles.place<kSide>(tile);
      const T* const corner = dy.pixel(at.n, at.row, at.col) + piece;
      for (int line = first_line; line < Shared::kPatchSide * Shared::kPatchSide; line += kLinesAtOnce) {
        const int down = line / Shared::kPatchSide, right = line - down * Shared::kPatchSide;
        copy_ahead(patch.place(line, piece), corner + (down * dy.w + right) * dy.pitch,
                   at.row + down < dy.h && at.col + right < dy.w && piece < dy.c);
      }
    }
    close_copies();
  };

  fill(shared->patches[0], int(blockIdx.x));
  int now = 0;
  for (int tile = int(blockIdx.x); tile < tiles.count; tile += int(gridDim.x)) {
    wait_for_copies<0>();
    publish_to_products();
    __syncthreads();  // this patch is there, the other has been read
    fill(shared->patches[1 - now], tile + int(gridDim.x));

    constexpr int kPacks = kCols / 8;
    float sum[2][2 * kPacks][2][2] = {};  // of each i: columns of j = 0, then of j = 1
    write_sums(sum[0]);
    write_sums(sum[1]);
    open_products();
#pragma unroll
    for (int t = 0; t < Product::kCount; ++t) {
      constexpr int kOfOne = 2 * kCols;
      const Product product = Product::at(t);
#pragma unroll
      for (int k = 0; k < kDepth; k += 16) {
        begin_multiply_add<T, true, false, Shared::kPatchSide>(
            sum[product.row], &shared->patches[now].v[product.down * Shared::kPatchSide + product.right][k],
            &shared->filter[t * kOfOne / kLine].v[k][t * kOfOne % kLine]);
      }
    }
    close_products();
#pragma unroll
    for (int i = 0; i < 2; ++i) wait_for_products(sum[i]);
    now = 1 - now;

    const PatchTiles::Place at = tiles.place<kSide>(tile);
    const int left = 2 * (at.col + lane / 4);
    if (accumulate) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int row = 2 * (at.row + warp * 2 + half) + i;
#pragma unroll
          for (int m = 0; m < 2 * kPacks; ++m) {
            const int col = left + m / kPacks;
            const int column = first_col + m % kPacks * 8 + lane % 4 * 2;
            if (row >= dx.h || col >= dx.w || column >= dx.c) continue;
            const Pack<T, 2> before = load_pack<2>(static_cast<const T*>(dx.pixel(at.n, row, col) + column));
#pragma unroll
            for (int e = 0; e < 2; ++e) sum[i][m][half][e] += before.v[e];
          }
        }
      }
      __syncwarp();  // other lanes store there
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int row = 2 * (at.row + warp * 2 + half) + i;
#pragma unroll
        for (int first = 0; first < 2 * kPacks; first += 4) {
          unsigned two[4];
#pragma unroll
          for (int m = 0; m < 4; ++m) {
            two[m] = rounded_pair<T>(sum[i][first + m][half][0], sum[i][first + m][half][1]);
          }
          transpose_in_four(two);
          const int mine = first + lane % 4;
          const int col = left + mine / kPacks;
          const int column = first_col + mine % kPacks * 8;
          if (row < dx.h && col < dx.w && column < dx.c) {
            Packed<T, 8> all;
#pragma unroll
            for (int m = 0; m < 8; ++m) all.v[m].bits = uint16_t(two[m / 2] >> m % 2 * 16);
            *reinterpret_cast<Packed<T, 8>*>(dx.pixel(at.n, row, col) + column) = all;
          }
        }
      }
    }
  }
}

// ---- dw = gradient by the filter

constexpr int kOuts = 64;  // rows of a product

template <int kSlot>
struct WeightShared {
  using Tile = Lines<kSide * kSide>;
  PairedPatch<kSlot> x[2];
  Tile dy[2];
  static constexpr int kResident = kSlot == 16 ? 4 : 2;  // by registers
};

// partial[b, o, ky, kx, c] = sum over the block's pixels of dy[pixel, o] x[pixel at (ky, kx), c]
//
// Block b: every gridDim.x-th tile of dy. The rows of a product are all outputs, its columns the channels of one tap column or of
// two, its 16 values of k are 2 x 8 pixels, so a line of either operand is a pixel. The next tile is copied while this one is
// multiplied.
template <class T, int kSlot>
__global__ void __launch_bounds__(kThreads, resident<WeightShared<kSlot>>(WeightShared<kSlot>::kResident))
    conv_stride2_weight_kernel(Images<const T> x, Images<const T> dy, PatchTiles tiles, float* partial) {
  using Shared = WeightShared<kSlot>;
  TESSERA_DYNAMIC_SHARED(Shared, shared);
  const int lane = int(threadIdx.x % kWarp), warp = int(threadIdx.x / kWarp);

  constexpr int kPieces = kOuts / 8;
  const int piece = int(threadIdx.x) % kPieces * 8;
  auto fill = [&](int at, int tile) {
    if (tile < tiles.count) {
      const PatchTiles::Place place = tiles.place<kSide>(tile);
      shared->x[at].fill(x, place);
      for (int line = int(threadIdx.x) / kPieces; line < kSide * kSide; line += kThreads / kPieces) {
        const int row = place.row + line / kSide;
        const int col = place.col + line % kSide;
        const bool inside = row < dy.h && col < dy.w && piece < dy.c;
        copy_ahead(shared->dy[at].place(line, piece), dy.pixel(place.n, row, col) + piece, inside);
      }
    }
    close_copies();
  };

  wait_for_kernel_before();
  float two[3][2 * kSlot / 8][2][2] = {};  // of each ky: kx = 0, then kx = 1
  float one[3][kSlot / 8][2][2] = {};      // kx = 2
#pragma unroll
  for (int ky = 0; ky < 3; ++ky) {
    write_sums(two[ky]);
    write_sums(one[ky]);
  }
  fill(0, int(blockIdx.x));
  int now = 0;
  for (int tile = int(blockIdx.x); tile < tiles.count; tile += int(gridDim.x)) {
    wait_for_copies<0>();
    publish_to_products();
    __syncthreads();  // this tile is there, the other has been read
    fill(1 - now, tile + int(gridDim.x));

    constexpr int kStep = PairedPatch<kSlot>::kStep;
    open_products();
#pragma unroll
    for (int row = 0; row < kSide; row += 2) {
#pragma unroll
      for (int ky = 0; ky < 3; ++ky) {
        const uint16_t* const of_dy = shared->dy[now].v[row * kSide];
        begin_multiply_add<T, false, false, kSide, kStep>(two[ky], of_dy, shared->x[now].first(2 * row + ky, 0));
        begin_multiply_add<T, false, false, kSide, kStep>(one[ky], of_dy, shared->x[now].first(2 * row + ky, 2));
      }
    }
    close_products();
#pragma unroll
    for (int ky = 0; ky < 3; ++ky) {
      wait_for_products(two[ky]);
      wait_for_products(one[ky]);
    }
    now = 1 - now;
  }

#pragma unroll
  for (int ky = 0; ky < 3; ++ky) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int out = warp * 16 + half * 8 + lane / 4;
      float* const to = partial + ((int64_t(blockIdx.x) * dy.c + out) * kTaps + ky * 3) * x.c;
      auto store = [&](const float(&sum)[2], int kx, int channel) {
        if (out < dy.c && channel < x.c) store_pack<2>(to + kx * x.c + channel, Pack<float, 2>{{sum[0], sum[1]}});
      };
#pragma unroll
      for (int j = 0; j < kSlot / 8; ++j) {
        const int channel = j * 8 + lane % 4 * 2;
        store(two[ky][j][half], 0, channel);
        store(two[ky][j + kSlot / 8][half], 1, channel);
        store(one[ky][j][half], 2, channel);
      }
    }
  }
}

// ---- launches

constexpr int kMostChannels = kLine;
constexpr int kMostPaired = kLine / 2;  // channels of x: two pixels share a line (PairedPatch)

bool takes(const FilterView& w, const ConvParams& p) {
  return has_wgmma() && is_square(w, p, 3, 2) && w.o <= kMostChannels && w.i <= kMostChannels;
}

// Persistent blocks for the tiles of the images and `col_tiles` tiles of channels.
template <class Shared>
Grid grid_of(const PatchTiles& tiles, unsigned col_tiles, int by_registers = 6) {
  const unsigned blocks = persistent_blocks(tiles.count, col_tiles, resident<Shared>(by_registers));
  return early({dim3(blocks, col_tiles), dim3(kThreads), sizeof(Shared)});
}

}  // namespace

bool stride2_conv2d(const ImageView& x, const FilterView& w, const ImageView& y, const ConvParams& p, const ConvEpilogue& epilogue,
                    ResultStats* stats) {
  if (!takes(w, p) || x.c > kMostPaired) return false;
  return for_16_bits(x.t, [&]<class T>() {
    if (!in_packs<T>(x, w, y, epilogue.residual)) return false;
    auto tile = [&]<int kCols, int kSlot>() {
      const PatchTiles tiles = patch_tiles(y, kSide, kLine);
      const Grid grid = grid_of<ForwardShared<kCols, kSlot>>(tiles, blocks_for(y.c, kCols));
      launch("conv2d, patches of stride 2", grid, conv_stride2_kernel<T, kCols, kSlot>, images_of<const T>(x),
             filters_of<const T>(w), images_of<T>(y), tiles, static_cast<const float*>(epilogue.bias), epilogue.activation,
             images_of<const T>(epilogue.residual), chunks_of(stats, grid.blocks.x, y.c));
    };
    if (y.c <= 32) {
      x.c <= 16 ? tile.template operator()<32, 16>() : tile.template operator()<32, 32>();
    } else {
      x.c <= 16 ? tile.template operator()<64, 16>() : tile.template operator()<64, 32>();
    }
    return true;
  });
}

bool stride2_conv2d_backward_data(const ImageView& dy, const FilterView& w, const ImageView& dx, const ConvParams& p,
                                  bool accumulate) {
  if (!takes(w, p)) return false;
  return for_16_bits(dy.t, [&]<class T>() {
    if (!in_packs<T>(dy, w, dx)) return false;
    auto tile = [&]<int kCols, int kDepth>() {
      const PatchTiles tiles = patch_tiles(dy, kSide, kLine);
      launch("conv2d_backward_data, patches of stride 2", grid_of<DataShared<kCols, kDepth>>(tiles, blocks_for(dx.c, kCols)),
             conv_stride2_data_kernel<T, kCols, kDepth>, images_of<const T>(dy), filters_of<const T>(w), images_of<T>(dx), tiles,
             accumulate);
    };
    if (dx.c <= 16) {
      dy.c <= 32 ? tile.template operator()<16, 32>() : tile.template operator()<16, 64>();
    } else {
      dy.c <= 32 ? tile.template operator()<32, 32>() : tile.template operator()<32, 64>();
    }
    return true;
  });
}

bool stride2_conv2d_backward_weight(const ImageView& x, const ImageView& dy, const FilterView& dw, const ConvParams& p,
                                    bool accumulate) {
  if (!takes(dw, p) || x.c > kMostPaired) return false;
  return for_16_bits(x.t, [&]<class T>() {
    if (!in_packs(x) || !in_packs(dy)) return false;
    auto tile = [&]<int kSlot>() {
      using Shared = WeightShared<kSlot>;
      const PatchTiles tiles = patch_tiles(dy, kSide, kLine);
      const Grid grid = grid_of<Shared>(tiles, 1, Shared::kResident);
      const Scratch<float> partial(int64_t(grid.blocks.x) * dw.o * kTaps * dw.i);
      launch("conv2d_backward_weight, patches of stride 2", grid, conv_stride2_weight_kernel<T, kSlot>, images_of<const T>(x),
             images_of<const T>(dy), tiles, partial.get());
      tiled::add_filter_chunks(partial, int(grid.blocks.x), dw, accumulate);
    };
    x.c <= 16 ? tile.template operator()<16>() : tile.template operator()<32>();
    return true;
  });
}

}  // namespace tessera::cuda::wgmma
