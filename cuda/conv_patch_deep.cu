// 3 x 3 convolution of many channels at stride 1, and its gradient by the data, in 16 bits on the warpgroup instructions of sm_90a.
// Compiled for sm_90a and nothing else (cmake/cuda.cmake).
//
// The tiled kernel reads each pixel from L2 nine times, and that bounds it: 128 x 128 results take 32 KiB for every 64 values of k,
// which at 24 bytes a cycle and multiprocessor is twice as long as their products. Here 64 channels of a tile's pixels are copied
// once for all nine taps, with a border, and the taps of the filter follow one another through a ring of buffers. With few channels
// there is room for the whole filter, and cuda/conv_patch.cu keeps it.
#include <algorithm>

#include "cuda/conv_launch.cuh"
#include "cuda/device/patches.cuh"
#include "cuda/device/warpgroup.cuh"

namespace tessera::cuda::wgmma {

namespace {

constexpr int kSide = 8;    // of a tile, in pixels: the 64 rows of a product
constexpr int kGroups = 2;  // warpgroups of a block, each with a tile
constexpr int kThreads = kGroups * kWarpgroup;
constexpr int kResident = 2;  // blocks of a multiprocessor

template <int kCols, bool kFilterAlongK>
struct DeepShared {
  using Filter = SwizzledPanel<kFilterAlongK || kCols == 64 ? kCols : 128, kFilterAlongK>;  // of one tap, 64 channels
  using Patches = Patch<kSide>[kGroups][2];
  static constexpr int kStages = std::min<int>(6, (shared_of_block(kResident) - sizeof(Patches)) / sizeof(Filter));  // of the ring

  Patches patches;
  Filter filter[kStages];
};
// What takes the place of the panels once all of them have been multiplied.
template <int kCols>
struct DeepResults {
  static constexpr int kLanes = kThreads / kCols;  // threads that share a column
  uint16_t v[kGroups][kSide * kSide][kCols + 8];   // the eight more put neighbouring lines on different banks
  Moments parts[kLanes][kCols];
};

// y[pixel, column] = act(bias[column] + sum over (tap, channel) of x[pixel at tap, channel] * w[tap, channel, column])
//                    + residual[pixel, column]
// with w[tap, channel, column] = w[column, tap, channel] (kFilterAlongK) or w[channel, 8 - tap, column].
//
// Block (b, column tile): tiles 2 b and 2 b + 1 of the images, one for each warpgroup. A step is one tap of 64 channels. The copy
// of its filter began kStages - 1 steps before; that of the patch of the next 64 channels begins at the first tap of these.
// `stats`: moments of the result, asked for only without bias, activation and residual.
template <class T, int kCols, bool kFilterAlongK>
__global__ void __launch_bounds__(kThreads, kResident)
    conv_patch_deep_kernel(Images<const T> x, Filters<const T> w, Images<T> y, PatchTiles tiles, const float* bias, Activation act,
                           Images<const T> residual, Chunks<Moments> stats) {
  using Shared = DeepShared<kCols, kFilterAlongK>;
  constexpr int kStages = Shared::kStages, kAhead = kStages - 1;
  TESSERA_DYNAMIC_SHARED(Shared, shared);
  const int first_col = int(blockIdx.y) * kCols;
  const int group = int(threadIdx.x / kWarpgroup);
  const int tile = int(blockIdx.x) * kGroups + group;
  // A group without a tile computes the last one once more, for nothing: a branch around the products would hold them up.
  const bool any = tile < tiles.count;
  const PatchTiles::Place at = tiles.place<kSide>(min(tile, tiles.count - 1));
  const int steps = (x.c + kLineChannels - 1) / kLineChannels * kTaps;

  // The copy of a patch belongs to the group of the filter that is copied after it. Groups of copies end in their order, so the
  // patch is there when that filter is.
  auto fill = [&](int slab) {
    shared->patches[group][slab % 2].fill(x, at.n, at.row, at.col, slab * kLineChannels, int(threadIdx.x % kWarpgroup), kWarpgroup);
  };
  int stage = 0;  // that is filled next
  // The thread's first piece of a filter, of tap 0 and channel 0. Its panel has a line for each output (kFilterAlongK) or channel.
  constexpr int kAcross = kFilterAlongK ? kLineChannels / 8 : kCols / 8;  // threads side by side
  constexpr int kLinesAtOnce = kThreads / kAcross;
  const int piece = int(threadIdx.x) % kAcross * 8, first_line = int(threadIdx.x) / kAcross;
  const int line_pitch = kTaps * w.i;  // from output to output
  const T* const my_filter = kFilterAlongK ? w.p + int64_t(first_col + first_line) * line_pitch + piece
                                           : w.p + int64_t(first_line) * line_pitch + first_col + piece;
  auto copy_filter = [&](int step) {
    if (step < steps) {
      typename Shared::Filter& filter = shared->filter[stage];
      const int slab = step / kTaps, tap = step - slab * kTaps, channel0 = slab * kLineChannels;
      if constexpr (kFilterAlongK) {
        const T* const from = my_filter + (tap * w.i + channel0);
        if (piece < x.c - channel0) {
#pragma unroll
          for (int i = 0; i < (kCols + kLinesAtOnce - 1) / kLinesAtOnce; ++i) {
            const int col = first_line + i * kLinesAtOnce;
            if (kCols % kLinesAtOnce != 0 && col >= kCols) break;
            copy_ahead(filter.place(piece, col), from + i * kLinesAtOnce * line_pitch, first_col + col < y.c);
          }
        }
      } else {
        const T* const from = my_filter + int64_t(channel0) * line_pitch + (kTaps - 1 - tap) * w.i;
        const int channels = min(kLineChannels, x.c - channel0);
        const bool there = first_col + piece < y.c;
#pragma unroll
        for (int i = 0; i < (kLineChannels + kLinesAtOnce - 1) / kLinesAtOnce; ++i) {
          const int channel = first_line + i * kLinesAtOnce;
          if (channel < channels && (kThreads % kAcross == 0 || first_line < kLinesAtOnce)) {
            copy_ahead(filter.place(channel, piece), from + i * kLinesAtOnce * line_pitch, there);
          }
        }
      }
    }
    close_copies();
    stage = stage + 1 == kStages ? 0 : stage + 1;
  };

  wait_for_kernel_before();
  fill(0);
  for (int step = 0; step < kAhead; ++step) copy_filter(step);
  float sum[kCols / 8][2][2] = {};
  int now = 0;
  for (int step = 0; step < steps; ++step) {
    wait_for_copies<kAhead - 1>();
    publish_to_products();
    __syncthreads();  // the step's panels are there, and those of the step before have been read
    const int slab = step / kTaps, tap = step - slab * kTaps;
    const int channels = min(kLineChannels, x.c - slab * kLineChannels);
    const ProductOperand window = shared->patches[group][slab % 2].window(tap, 0), filter = shared->filter[now].first(0, 0);
    open_products();
    for (int k = 0; k < channels; k += 16) {
      begin_multiply_add<T, true, kFilterAlongK, Patch<kSide>::kPitch>(sum, window.at(0, k),
                                                                       kFilterAlongK ? filter.at(0, k) : filter.at(k));
    }
    close_products();
    if (tap == 0 && (slab + 1) * kLineChannels < x.c) fill(slab + 1);
    copy_filter(step + kAhead);
    wait_for_products(sum);
    now = now + 1 == kStages ? 0 : now + 1;
  }
  __syncthreads();  // all panels have been read; the last groups of copies are empty

  auto* const results = reinterpret_cast<DeepResults<kCols>*>(shared);
  static_assert(sizeof(*results) <= sizeof(Shared));
  if (any) {
    uint32_t pairs[2][kCols / 8];
    round_results<T, kCols>(sum, first_col, y.c, {bias, act, residual.p != nullptr},
                            [&](int half, int j) { return pair_of(residual, at, first_col, half, j); }, pairs);
    store_lines<T, kCols>(pairs, results->v[group], first_col, y.c, PixelLines<T>(y, at));
  }
  if constexpr (kFilterAlongK) {
    if (!stats.wanted()) return;
    // The moments of the numbers as they are stored. Thread: one column, every kLanes-th pixel.
    constexpr int kLanes = DeepResults<kCols>::kLanes;
    __syncthreads();
    const int t = int(threadIdx.x), column = t % kCols;
    if (t < kLanes * kCols) {
      Deviations of;
      int n = 0;
      for (int pixel = t / kCols; pixel < kGroups * kSide * kSide; pixel += kLanes) {
        const int of_tile = pixel / (kSide * kSide);
        if (int(blockIdx.x) * kGroups + of_tile >= tiles.count) break;
        const PatchTiles::Place there = tiles.place<kSide>(int(blockIdx.x) * kGroups + of_tile);
        const int in_tile = pixel % (kSide * kSide);
        if (there.row + in_tile / kSide >= y.h || there.col + in_tile % kSide >= y.w) continue;
        const float value = load(*reinterpret_cast<const T*>(&results->v[of_tile][in_tile][column]));
        if (n++ == 0) of.first = value;
        of.add(value);
      }
      results->parts[t / kCols][column] = of.moments(n);
    }
    __syncthreads();
    if (t < min(kCols, y.c - first_col)) {
      stats.row(int(blockIdx.x))[first_col + t] = CombinedMoments{}(kLanes, [&](int k) { return results->parts[k][t]; });
    }
  }
}

// The width of column tiles of which the last one has the fewest idle columns; of equals the widest.
int tile_columns(int64_t columns) {
  int best = 64;
  for (const int width : {80, 96, 128}) {
    if (blocks_for(columns, width) * width <= blocks_for(columns, best) * best) best = width;
  }
  return best;
}

// kFilterAlongK: conv2d; else its gradient by the data, where x is dy and y is dx.
template <bool kFilterAlongK>
bool run(const char* name, const ImageView& x, const FilterView& w, const ImageView& y, const ConvParams& p,
         const ConvEpilogue& epilogue, ResultStats* stats) {
  if (!has_wgmma() || !is_square(w, p, 3, 1)) return false;
  if (x.c <= kLineChannels) return false;        // conv_patch.cu has room for the whole filter
  if (x.c % 16 != 0 || y.c <= 16) return false;  // a product is 16 values of k; most of the narrowest tile would be idle
  return for_16_bits(x.t, [&]<class T>() {
    if (!in_packs<T>(x, w, y, epilogue.residual)) return false;
    auto tile = [&]<int kCols>() {
      const PatchTiles tiles = patch_tiles(y, kSide, kCols);
      const dim3 blocks(unsigned((tiles.count + kGroups - 1) / kGroups), unsigned(tiles.cols));
      using Shared = DeepShared<kCols, kFilterAlongK>;
      launch(name, early({blocks, dim3(kThreads), sizeof(Shared)}), conv_patch_deep_kernel<T, kCols, kFilterAlongK>,
             images_of<const T>(x), filters_of<const T>(w), images_of<T>(y), tiles, static_cast<const float*>(epilogue.bias),
             epilogue.activation, images_of<const T>(epilogue.residual), chunks_of(stats, blocks.x, y.c));
    };
    int columns = tile_columns(y.c);
    // Where the wide tiles would be fewer blocks than multiprocessors, narrower ones keep more of them busy.
    const int64_t blocks = patch_tiles(y, kSide, columns).count / kGroups * blocks_for(y.c, columns);
    if (columns > 64 && blocks * 2 < enough_blocks()) columns = 64;
    switch (columns) {
      case 128: tile.template operator()<128>(); break;
      case 96: tile.template operator()<96>(); break;
      case 80: tile.template operator()<80>(); break;
      default: tile.template operator()<64>();
    }
    return true;
  });
}

}  // namespace

bool deep_conv2d(const ImageView& x, const FilterView& w, const ImageView& y, const ConvParams& p, const ConvEpilogue& epilogue,
                 ResultStats* stats) {
  return run<true>("conv2d, patches of many channels", x, w, y, p, epilogue, stats);
}

bool deep_conv2d_backward_data(const ImageView& dy, const FilterView& w, const ImageView& dx, const ConvParams& p,
                               const ConvEpilogue& epilogue) {
  return run<false>("conv2d_backward_data, patches of many channels", dy, w, dx, p, epilogue, nullptr);
}

}  // namespace tessera::cuda::wgmma
