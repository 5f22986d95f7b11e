// 1 x 1 convolution at stride 1, and its gradient by the data, in 16 bits on the warpgroup instructions of sm_90a. Compiled for
// sm_90a and nothing else (cmake/cuda.cmake).
//
// The tiled kernel has a block for each tile, which waits for its first panels, copies the filter once more, and stores, while only
// the other blocks of its multiprocessor multiply; with few channels it does hardly anything else. Here the filter stays in shared
// memory while the warpgroups of a block go through tiles of 64 pixels, each by itself: while one stores, others multiply, and the
// pixels of the next tile are being copied before this one is finished.
#include <algorithm>
#include <optional>

#include "cuda/conv_launch.cuh"
#include "cuda/device/moments.cuh"
#include "cuda/device/result_lines.cuh"
#include "cuda/device/warpgroup.cuh"

namespace tessera::cuda::wgmma {

namespace {

constexpr int kPixels = 64;    // of a tile: the rows of a product
constexpr int kChannels = 64;  // of a slab: a line of a panel
constexpr int kStages = 4;     // slabs of pixels that a warpgroup has room for

// The shared memory of one warpgroup.
template <int kCols>
struct PointwiseGroup {
  using Results = uint16_t[kPixels][kCols + 8];  // the eight more put neighbouring lines on different banks

  SwizzledPanel<kPixels, true> pixels[kStages];
  alignas(16) Results results;
};

// The shared memory of a block: the filter, one panel for each slab, then the parts of the warpgroups.
template <int kCols, bool kFilterAlongK>
struct PointwiseShared {
  using Filter = SwizzledPanel<kCols, kFilterAlongK>;
  using Group = PointwiseGroup<kCols>;
  static constexpr int kMostGroups = kCols <= 32 ? 6 : kCols <= 64 ? 5 : kCols <= 96 ? 4 : 3;  // that registers allow

  // Warpgroups that find room beside a filter of so many slabs, in a block that has the multiprocessor to itself.
  static int groups(int slabs) {
    return std::min(kMostGroups, (int(shared_of_block(1)) - slabs * int(sizeof(Filter))) / int(sizeof(Group)));
  }
  static size_t bytes(int slabs, int groups) { return size_t(slabs) * sizeof(Filter) + size_t(groups) * sizeof(Group); }
};

// The pixels of a tile as lines of results (store_lines()).
template <class T>
struct FlatLines {
  T* first;
  int lines;  // that there are
  int pitch;
  __device__ bool has(int line) const { return line < lines; }
  __device__ int offset(int line) const { return line * pitch; }
};

// The moments of a tile's columns as they are stored, over all tiles of a thread: a pair of columns, every kLanes-th pixel.
template <class T, int kCols>
struct ColumnMoments {
  static constexpr int kPairs = kCols / 2, kLanes = kWarpgroup / kPairs;
  using Parts = Moments[kCols];

  Deviations of[2];
  int n = 0;

  static __device__ int pair() { return int(threadIdx.x % kWarpgroup) % kPairs; }
  static __device__ int lane() { return int(threadIdx.x % kWarpgroup) / kPairs; }

  __device__ void add(const typename PointwiseGroup<kCols>::Results& results, int pixels) {
    const int first = lane();
    if (first >= min(kLanes, pixels)) return;
    const auto pair_at = [&](int pixel) { return *reinterpret_cast<const uint32_t*>(&results[pixel][pair() * 2]); };
    if (n == 0) of[0].first = first_of<T>(pair_at(first)), of[1].first = second_of<T>(pair_at(first));
#pragma unroll 8
    for (int pixel = first; pixel < pixels; pixel += kLanes) {
      const uint32_t values = pair_at(pixel);
      of[0].add(first_of<T>(values));
      of[1].add(second_of<T>(values));
    }
    n += (pixels - first + kLanes - 1) / kLanes;
  }
  // to[c] = the moments of column c < cols of all threads of the block, which all come here. `parts`: kLanes for each warpgroup.
  __device__ void store(Parts* parts, int cols, Moments* to) const {
    if (lane() < kLanes) {
#pragma unroll
      for (int i = 0; i < 2; ++i) parts[int(threadIdx.x / kWarpgroup) * kLanes + lane()][pair() * 2 + i] = of[i].moments(n);
    }
    __syncthreads();
    const int t = int(threadIdx.x);
    if (t < min(kCols, cols)) to[t] = CombinedMoments{}(int(blockDim.x / kWarpgroup) * kLanes, [&](int k) { return parts[k][t]; });
  }
};

// y[pixel, column] = act(bias[column] + sum over channels of x[pixel, channel] * w[channel, column]) + residual[pixel, column]
// with w[channel, column] = w[column, channel] (kFilterAlongK) or as it is.
//
// Block (b, column tile). A step is one slab of one tile; the copy of its pixels began kStages - 1 steps before.
// `stats`: moments of the result, asked for only without bias, activation and residual.
template <class T, int kCols, bool kFilterAlongK>
__global__ void __launch_bounds__(PointwiseShared<kCols, kFilterAlongK>::kMostGroups * kWarpgroup, 1)
    conv_pointwise_kernel(Images<const T> x, Filters<const T> w, Images<T> y, const float* bias, Activation act,
                          Images<const T> residual, Chunks<Moments> stats) {
  using Shared = PointwiseShared<kCols, kFilterAlongK>;
  using Filter = typename Shared::Filter;
  constexpr int kAhead = kStages - 1, kPieces = kChannels / 8;
  TESSERA_DYNAMIC_SHARED(Filter, filter);
  const int slabs = (x.c + kChannels - 1) / kChannels;
  auto* const of_group = reinterpret_cast<typename Shared::Group*>(filter + slabs);
  const int in_group = int(threadIdx.x % kWarpgroup), groups = int(blockDim.x / kWarpgroup);
  // The shuffle tells the compiler that all of a warp have the same value; otherwise it makes the products wait for each other.
  const int group = __shfl_sync(kAllLanes, int(threadIdx.x / kWarpgroup), 0);
  auto& pixels = of_group[group].pixels;
  auto& results = of_group[group].results;
  const int first_col = int(blockIdx.y) * kCols;
  const int all = y.n * y.h * y.w;
  const int tiles = (all + kPixels - 1) / kPixels;
  const int stride = int(gridDim.x) * groups;
  const int first_tile = int(blockIdx.x) + int(gridDim.x) * group;

  // What copy_pixels() copies next: the slabs of the group's tiles, one after the other.
  int stage = 0, next_tile = first_tile, next_slab = 0;
  auto copy_lines = [&]<int kAcross>() {  // threads side by side: as many as a pixel has pieces
    const int channel = next_slab * kChannels + in_group % kAcross * 8, first = in_group / kAcross;
    if (channel >= x.c) return;
    const T* const from = x.pixel(int64_t(next_tile) * kPixels) + channel;
    const int left = all - next_tile * kPixels;
    constexpr int kAtOnce = kWarpgroup / kAcross;
#pragma unroll
    for (int line = first, i = 0; i < kPixels / kAtOnce; ++i, line += kAtOnce) {
      copy_ahead(pixels[stage].place(channel % kChannels, line), from + line * x.pitch, line < left);
    }
  };
  auto copy_pixels = [&] {
    if (next_tile < tiles) {
      if (x.c <= 16) {
        copy_lines.template operator()<2>();
      } else if (x.c <= 32) {
        copy_lines.template operator()<4>();
      } else {
        copy_lines.template operator()<8>();
      }
      if (++next_slab == slabs) {
        next_slab = 0;
        next_tile += stride;
      }
    }
    close_copies();
    stage = stage + 1 == kStages ? 0 : stage + 1;
  };

  wait_for_kernel_before();
  if constexpr (kFilterAlongK) {
    const int piece = int(threadIdx.x % kPieces) * 8;
    for (int line = int(threadIdx.x / kPieces); line < slabs * kCols; line += int(blockDim.x) / kPieces) {
      const int slab = line / kCols, col = line - slab * kCols;
      const int channel = slab * kChannels + piece;
      if (channel >= x.c) continue;
      copy_ahead(filter[slab].place(piece, col), w.p + int64_t(first_col + col) * w.i + channel, first_col + col < y.c);
    }
  } else {
    constexpr int kAcross = kCols / 8;
    for (int i = int(threadIdx.x); i < x.c * kAcross; i += int(blockDim.x)) {
      const int channel = i / kAcross, col = i % kAcross * 8;
      copy_ahead(filter[channel / kChannels].place(channel % kChannels, col), w.p + int64_t(channel) * w.i + first_col + col,
                 first_col + col < y.c);
    }
  }
  for (int step = 0; step < kAhead; ++step) copy_pixels();  // the filter is in the first group of copies
  wait_for_copies<kAhead - 1>();
  publish_to_products();
  __syncthreads();  // the filter is there

  ColumnMoments<T, kCols> moments;
  int now = 0;
  for (int tile = first_tile; tile < tiles; tile += stride) {
    float sum[kCols / 8][2][2] = {};
    int slab = 0;
    do {
      wait_for_copies<kAhead - 1>();
      publish_to_products();
      sync_warpgroup();  // this step's pixels are there; those of the last one and the last tile's results have been read
      const int channels = min(kChannels, x.c - slab * kChannels);
      const ProductOperand of_pixels = pixels[now].first(0, 0), of_filter = filter[slab].first(0, 0);
      open_products();
      for (int k = 0; k < channels; k += 16) {
        begin_multiply_add<T, true, kFilterAlongK>(sum, of_pixels.at(0, k), kFilterAlongK ? of_filter.at(0, k) : of_filter.at(k));
      }
      close_products();
      copy_pixels();
      wait_for_products(sum);
      now = now + 1 == kStages ? 0 : now + 1;
    } while (++slab < slabs);
    const int first_pixel = tile * kPixels;
    const ResultPlace place;
    uint32_t pairs[2][kCols / 8];
    round_results<T, kCols>(
        sum, first_col, y.c, {bias, act, residual.p != nullptr},
        [&](int half, int j) {
          const int pixel = first_pixel + place.line(half), column = first_col + place.column(j);
          return pixel < all && column < y.c ? load_pair(residual.pixel(int64_t(pixel)) + column) : 0;
        },
        pairs);
    store_lines<T, kCols>(pairs, results, first_col, y.c, FlatLines<T>{y.pixel(int64_t(first_pixel)), all - first_pixel, y.pitch});
    if constexpr (kFilterAlongK) {
      if (stats.wanted()) {
        sync_warpgroup();  // the results of all warps are there
        moments.add(results, min(kPixels, all - first_pixel));
      }
    }
  }
  if constexpr (kFilterAlongK) {
    if (!stats.wanted()) return;
    __syncthreads();  // no panel and no results are used any more; the last groups of copies are empty
    auto* const parts = reinterpret_cast<typename ColumnMoments<T, kCols>::Parts*>(of_group);
    static_assert(sizeof(*parts) * ColumnMoments<T, kCols>::kLanes <= sizeof(*of_group));
    moments.store(parts, y.c - first_col, stats.row(int(blockIdx.x)) + first_col);
  }
}

// The cheapest width of column tiles; none where the filter leaves no room for two warpgroups. Every tile costs its columns, the
// idle ones of the last tile too, and that all pixels are read once more, which takes about as long as multiplying 64 columns.
template <bool kFilterAlongK>
std::optional<int> tile_columns(int64_t channels, int64_t columns) {
  constexpr int64_t kPixelsAnew = 64;
  const int slabs = int(blocks_for(channels, kChannels));
  std::optional<int> best;
  int64_t least = 0;
  auto consider = [&]<int kCols>() {
    if (PointwiseShared<kCols, kFilterAlongK>::groups(slabs) < 2) return;
    const int64_t cost = int64_t(blocks_for(columns, kCols)) * (kPixelsAnew + kCols);
    if (!best || cost <= least) best = kCols, least = cost;
  };
  consider.template operator()<32>();
  consider.template operator()<64>();
  consider.template operator()<96>();
  consider.template operator()<128>();
  return best;
}

template <bool kFilterAlongK>
bool run(const char* name, const ImageView& x, const FilterView& w, const ImageView& y, const ConvParams& p,
         const ConvEpilogue& epilogue, ResultStats* stats) {
  if (!has_wgmma() || !is_square(w, p, 1, 1)) return false;
  if (x.c % 16 != 0 || y.c <= 16) return false;  // a product is 16 values of k; half of the narrowest tile would be idle
  const std::optional<int> columns = tile_columns<kFilterAlongK>(x.c, y.c);
  if (!columns) return false;
  const int64_t tiles = blocks_for(y.n * y.h * y.w, kPixels), col_tiles = blocks_for(y.c, *columns);
  if (tiles * col_tiles < enough_blocks() / 2) return false;  // the smaller tiles of conv_wgmma.cu keep more multiprocessors busy
  return for_16_bits(x.t, [&]<class T>() {
    if (!in_packs<T>(x, w, y, epilogue.residual)) return false;
    auto tile = [&]<int kCols>() {
      using Shared = PointwiseShared<kCols, kFilterAlongK>;
      const int slabs = int(blocks_for(x.c, kChannels));
      const unsigned blocks = persistent_blocks(tiles, col_tiles);
      const int groups = int(std::min<int64_t>(Shared::groups(slabs), (tiles + blocks - 1) / blocks));  // none without a tile
      launch(name, early({dim3(blocks, unsigned(col_tiles)), dim3(unsigned(groups * kWarpgroup)), Shared::bytes(slabs, groups)}),
             conv_pointwise_kernel<T, kCols, kFilterAlongK>, images_of<const T>(x), filters_of<const T>(w), images_of<T>(y),
             static_cast<const float*>(epilogue.bias), epilogue.activation, images_of<const T>(epilogue.residual),
             chunks_of(stats, blocks, y.c));
    };
    switch (*columns) {
      case 128: tile.template operator()<128>(); break;
      case 96: tile.template operator()<96>(); break;
      case 64: tile.template operator()<64>(); break;
      default: tile.template operator()<32>();
    }
    return true;
  });
}

}  // namespace

bool pointwise_conv2d(const ImageView& x, const FilterView& w, const ImageView& y, const ConvParams& p,
                      const ConvEpilogue& epilogue, ResultStats* stats) {
  return run<true>("conv2d, 1x1", x, w, y, p, epilogue, stats);
}

bool pointwise_conv2d_backward_data(const ImageView& dy, const FilterView& w, const ImageView& dx, const ConvParams& p,
                                    const ConvEpilogue& epilogue) {
  return run<false>("conv2d_backward_data, 1x1", dy, w, dx, p, epilogue, nullptr);
}

}  // namespace tessera::cuda::wgmma
