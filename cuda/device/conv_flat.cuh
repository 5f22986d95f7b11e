// Convolution 3x3 of stride 1 and pad 1 in 16 bits whose image goes through the cache once instead of nine times, on the warpgroup
// instructions of sm_90a.
//
// The pixels of an image with zeros around it are numbered line by line (PatchPlane). In these numbers the input of a tap lies a
// constant further than that of the tap before, for all pixels: the rows of A of tap (ky, kx) are consecutive lines of one patch of
// the image, from line ky * width + kx on. A block copies the patch of kPatchRows positions, kPatchRows + 2 width + 2 lines of up to
// 64 channels, to shared memory once and multiplies nine times out of it, each time from another line on. What is computed at
// positions between the images' lines is not stored.
//
// Bytes from L2 for P pixels, C <= 64 channels to 64, lines of 80 pixels: 2 C P (128 + 164) / 128 * 81 / 80, 2.3 times the image and
// not 9 times, and the filter once for each block that stays on the device (patch_resident_kernel) and not once for each 128
// pixels. Bounds of 16 x 80 x 80 x 64 to 64 at 4.3 TB/s and 790 TFLOP/s: 6.1 us of memory, 9.6 us of products; from L2 30 MB of
// patches and 19 MB of filters.
#pragma once

#include "cuda/device/math.cuh"
#include "cuda/device/sources.cuh"
#include "cuda/device/warpgroup.cuh"

namespace tessera::cuda {

inline constexpr int kPatchRows = 128;   // positions of a block, 64 of each warpgroup
inline constexpr int kPatchDepth = 64;   // channels that a line has room for
inline constexpr int kPatchStages = 3;   // panels of a streamed filter

// Images are cut into strips of `strip` columns, each with the column left of it first, and one line of zeros above each strip of
// each image, which is below the one before too. If there is one strip, the zero left of a line also ends the line before.
struct PatchPlane {
  int strips, strip;
  int width;   // of a line: strip + 1 if there is one strip, else + 2
  int height;  // lines of an image's strip: h + 1
  int positions;
  __host__ __device__ int lines() const { return kPatchRows + 2 * width + 2; }
};

// A place in the plane, x and y being 0 at zeros to the left and above.
struct PatchPlace {
  int x, y, strip, n;

  __device__ PatchPlace(const PatchPlane& p, int position) {
    const int line = position / p.width;
    x = position - line * p.width;
    const int piece = line / p.height;
    y = line - piece * p.height;
    n = p.strips == 1 ? piece : piece / p.strips;
    strip = piece - n * p.strips;
  }
  __device__ void advance(const PatchPlane& p, int by) {
    x += by;
    while (x >= p.width) {
      x -= p.width;
      if (++y < p.height) continue;
      y = 0;
      if (++strip < p.strips) continue;
      strip = 0;
      ++n;
    }
  }
};

using PatchLine = uint16_t[kPatchDepth];

// Channels are taken 16 kSteps at once, up to 64; past the last one are zeros. A line of so many has this many pieces of 16 bytes,
// and the threads that copy it are a power of two.
inline constexpr int patch_pieces(int steps) { return 2 * steps; }
inline constexpr int patch_threads(int steps) { return steps <= 2 ? 4 : 8; }

// Copies part `part` of `parts` of the patch that begins at position `first` of the plane, pieces in turns as in a TurningPanel.
template <int kSteps, class T>
__device__ void copy_patch(const Images<const T>& image, const PatchPlane& plane, int first, int first_channel, int part, int parts,
                           PatchLine* patch) {
  constexpr int kThreads = patch_threads(kSteps), kAtOnce = kTileThreads / kThreads;
  const int piece = int(threadIdx.x) % kThreads;
  if (piece >= patch_pieces(kSteps)) return;
  const int channel = first_channel + piece * 8;
  const int images = channel < image.c ? image.n : 0;
  const T* const from = image.p + channel;
  const int lines = plane.lines();
  int line = int(threadIdx.x) / kThreads + part * kAtOnce;
  static_assert(kAtOnce % 8 == 0);
  const int at = (piece ^ line % 8) * 8;  // in all lines of the thread
  PatchPlace place(plane, first + line);
#pragma unroll 1
  for (; line < lines; line += parts * kAtOnce) {
    const int x = place.strip * plane.strip + place.x - 1;
    const bool inside = place.y > 0 && place.n < images && unsigned(x) < unsigned(image.w);
    const int pixel = (place.n * image.h + place.y - 1) * image.w + x;
    copy_ahead(&patch[line][at], from + int64_t(pixel) * image.pitch, inside);
    place.advance(plane, parts * kAtOnce);
  }
}

// The filter's taps as B, columns from first_col on: w[column, tap, k], or, turned, w[k, tap, column].
template <class T, int kCols, bool kFilterAlongK, int kSteps>
struct PatchFilter {
  using Panel = TurningPanel<kCols, kFilterAlongK>;
  const Filters<const T>& w;
  int first_col;

  __device__ void copy(int channel, int tap, Panel& panel) const {
    constexpr int kPieces = kFilterAlongK ? patch_pieces(kSteps) : kCols / 8;
    constexpr int kLines = kFilterAlongK ? kCols : kSteps * 16;
    const int ky = tap / 3, kx = tap % 3;
    for (int i = int(threadIdx.x); i < kLines * kPieces; i += kTileThreads) {
      const int line = i / kPieces, piece = i % kPieces * 8;
      if constexpr (kFilterAlongK) {
        copy_ahead(panel.place(piece, line), w.tap(first_col + line, ky, kx) + channel + piece,
                   first_col + line < w.o && channel + piece < w.i);
      } else {
        copy_ahead(panel.place(line, piece), w.tap(channel + line, ky, kx) + first_col + piece,
                   channel + line < w.o && first_col + piece < w.i);
      }
    }
  }
};

// The line of the patch that position 0 of the block reads at a tap. Turned, tap (0, 0) is the last.
template <bool kFilterAlongK>
__device__ int tap_line(const PatchPlane& plane, int ky, int kx) {
  return kFilterAlongK ? ky * plane.width + kx : (2 - ky) * plane.width + 2 - kx;
}

// Begins the products of one tap.
template <class T, bool kFilterAlongK, int kSteps, class Panel, int kN>
__device__ void multiply_tap(float (&sum)[kN][2][2], const PatchPlane& plane, const PatchLine* patch, int tap, const Panel& filter,
                             bool base_offset) {
  const PatchLine* const left = patch + tap_line<kFilterAlongK>(plane, tap / 3, tap % 3) + int(threadIdx.x) / 128 * 64;
#pragma unroll
  for (int k = 0; k < kSteps; ++k) {
    begin_multiply_add<T, true, kFilterAlongK>(sum, &left[0][k * 16], filter.first(k * 16, 0), base_offset);
  }
}

// w[j] of lane q of four becomes w[q] of lane j.
__device__ inline void turn_four(unsigned (&w)[4]) {
  const bool odd = threadIdx.x & 1, high = threadIdx.x & 2;
#pragma unroll
  for (int i = 0; i < 4; i += 2) {
    const unsigned other = __shfl_xor_sync(~0u, odd ? w[i] : w[i + 1], 1);
    (odd ? w[i] : w[i + 1]) = other;
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const unsigned other = __shfl_xor_sync(~0u, high ? w[i] : w[i + 2], 2);
    (high ? w[i] : w[i + 2]) = other;
  }
}

// What is done with the sums: y = act(sum + bias) + residual.
template <class T>
struct PatchResult {
  Images<T> y;
  const float* bias;
  Activation act;
  Images<const T> residual;
};

// Stores the sums of the tile at position `first`. Four lanes share a row; of each 32 columns a lane stores 8. kPlain: as they are.
template <bool kPlain, class T, int kN>
__device__ void store_patch_as(const PatchResult<T>& result, const PatchPlane& plane, int first, int first_col,
                            const float (&sum)[kN][2][2]) {
  static_assert(kN % 4 == 0);
  const Images<T>& y = result.y;
  const int lane = int(threadIdx.x % kWarp);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const PatchPlace place(plane, first + int(threadIdx.x) / kWarp * 16 + half * 8 + lane / 4);
    const int x = place.strip * plane.strip + place.x;
    const bool inside = place.x < plane.strip && x < y.w && place.y < y.h && place.n < y.n;
    const int64_t pixel = int64_t(place.n * y.h + place.y) * y.w + x;
#pragma unroll
    for (int j = 0; j < kN; j += 4) {
      unsigned two[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int col = first_col + (j + i) * 8 + lane % 4 * 2;
        Pack<float, 2> bias{};
        Pack<T, 2> added{};
        if (!kPlain && result.bias != nullptr && col < y.c) bias = Pack<float, 2>{{result.bias[col], result.bias[col + 1]}};
        if (!kPlain && result.residual.p != nullptr && inside && col < y.c) added = load_pack<2>(result.residual.pixel(pixel) + col);
        auto bits = [&](int k) {
          const float z = sum[j + i][half][k] + bias.v[k];
          return unsigned(rounded<T>((!kPlain && result.act == Activation::kSilu ? activate<T, Activation::kSilu>(z) : z) + added.v[k]).bits);
        };
        two[i] = bits(0) | bits(1) << 16;
      }
      if constexpr (!kPlain) __syncwarp();  // the residual may be y: all lanes have read it before one writes
      turn_four(two);
      const int col = first_col + (j + lane % 4) * 8;
      if (inside && col < y.c) {
        *reinterpret_cast<Packed<unsigned, 4>*>(y.pixel(pixel) + col) = {{two[0], two[1], two[2], two[3]}};
      }
    }
  }
}

template <class T, int kN>
__device__ void store_patch(const PatchResult<T>& result, const PatchPlane& plane, int first, int first_col,
                            const float (&sum)[kN][2][2]) {
  if (result.bias == nullptr && result.residual.p == nullptr && result.act == Activation::kNone) {
    store_patch_as<true>(result, plane, first, first_col, sum);
  } else {
    store_patch_as<false>(result, plane, first, first_col, sum);
  }
}

template <int kCols>
inline constexpr int kPatchBlocks = kCols <= 32 ? 3 : 2;  // that share a multiprocessor, if their memory fits

// Up to 64 channels: the filter stays in shared memory while the block walks over tiles. With two `buffers` a tile's patch comes
// while the one before is multiplied; with one while its results are stored, and other blocks of the multiprocessor multiply.
template <class T, int kCols, bool kFilterAlongK, int kSteps>
__global__ void __launch_bounds__(kTileThreads, kPatchBlocks<kCols>)
    patch_resident_kernel(Images<const T> x, Filters<const T> w, PatchResult<T> result, PatchPlane plane, int buffers,
                          bool base_offset) {
  using Filter = PatchFilter<T, kCols, kFilterAlongK, kSteps>;
  using Panel = typename Filter::Panel;
  TESSERA_DYNAMIC_SHARED(Panel, panels);
  auto* const patches = reinterpret_cast<PatchLine*>(panels + 9);
  const int patch_lines = (plane.lines() + 7) / 8 * 8;
  const Filter filter{w, int(blockIdx.y) * kCols};
  const int step = int(gridDim.x) * kPatchRows;
  int first = int(blockIdx.x) * kPatchRows;
  int buffer = 0;  // where the next patch goes
  auto copy_next = [&](int position) {
    if (position < plane.positions) copy_patch<kSteps>(x, plane, position, 0, 0, 1, patches + buffer * patch_lines);
    buffer = buffers - 1 - buffer;
  };

  {  // The first tile: a tap is multiplied as soon as it is there.
    copy_next(first);
#pragma unroll 1
    for (int tap = 0; tap < 9; ++tap) {
      filter.copy(0, tap, panels[tap]);
      close_copies();
    }
    float sum[kCols / 8][2][2] = {};
    auto next = [&]<int kTap>() {
      wait_for_copies<8 - kTap>();
      publish_to_products();
      __syncthreads();
      open_products();
      multiply_tap<T, kFilterAlongK, kSteps>(sum, plane, patches, kTap, panels[kTap], base_offset);
      close_products();
    };
    next.template operator()<0>();
    next.template operator()<1>();
    next.template operator()<2>();
    next.template operator()<3>();
    next.template operator()<4>();
    next.template operator()<5>();
    next.template operator()<6>();
    next.template operator()<7>();
    next.template operator()<8>();
    wait_for_products(sum);
    if (buffers == 1) __syncthreads();  // all have read the patch
    copy_next(first + step);
    close_copies();
    store_patch(result, plane, first, filter.first_col, sum);
  }
#pragma unroll 1
  for (int now = buffers - 1; (first += step) < plane.positions; now = buffers - 1 - now) {
    wait_for_copies<0>();
    publish_to_products();
    __syncthreads();
    if (buffers == 2) {
      copy_next(first + step);
      close_copies();
    }
    float sum[kCols / 8][2][2] = {};
#pragma unroll 1  // nine times the addresses would not fit in the registers
    for (int tap = 0; tap < 9; tap += 3) {
      open_products();
#pragma unroll
      for (int i = 0; i < 3; ++i) {
        multiply_tap<T, kFilterAlongK, kSteps>(sum, plane, patches + now * patch_lines, tap + i, panels[tap + i], base_offset);
      }
      close_products();
    }
    wait_for_products(sum);
    if (buffers == 1) {
      __syncthreads();
      copy_next(first + step);
      close_copies();
    }
    store_patch(result, plane, first, filter.first_col, sum);
  }
}

// Any channels: one tile for each block. The filter's panels come two steps ahead; the patch of the next channels comes while these
// are multiplied, a part at each tap.
template <class T, int kCols, bool kFilterAlongK, int kSteps>
__global__ void __launch_bounds__(kTileThreads, 2)
    patch_streamed_kernel(Images<const T> x, Filters<const T> w, PatchResult<T> result, PatchPlane plane, bool base_offset) {
  using Filter = PatchFilter<T, kCols, kFilterAlongK, kSteps>;
  using Panel = typename Filter::Panel;
  constexpr int kAhead = kPatchStages - 1, kParts = 9 - kAhead, kDepth = kSteps * 16;
  TESSERA_DYNAMIC_SHARED(Panel, panels);
  auto* const patches = reinterpret_cast<PatchLine*>(panels + kPatchStages);
  const int patch_lines = (plane.lines() + 7) / 8 * 8;
  const int col_tiles = (result.y.c + kCols - 1) / kCols;
  const Filter filter{w, int(blockIdx.x) % col_tiles * kCols};
  const int first = int(blockIdx.x) / col_tiles * kPatchRows;

  int ahead_channel = 0, ahead_tap = 0, filled = 0;  // of the panel that comes next, and its place
  auto copy_panel = [&] {
    if (ahead_channel < x.c) filter.copy(ahead_channel, ahead_tap, panels[filled]);
    if (++ahead_tap == 9) {
      ahead_tap = 0;
      ahead_channel += kDepth;
    }
    filled = filled + 1 == kPatchStages ? 0 : filled + 1;
  };
  copy_patch<kSteps>(x, plane, first, 0, 0, 1, patches);
  for (int i = 0; i < kAhead; ++i) {
    copy_panel();
    close_copies();
  }
  float sum[kCols / 8][2][2] = {};
  int now = 0, buffer = 0, tap = 0, channel = 0;
  const int steps = (x.c + kDepth - 1) / kDepth * 9;
#pragma unroll 1
  for (int step = 0; step < steps; ++step) {
    wait_for_copies<kAhead - 1>();
    publish_to_products();
    __syncthreads();
    open_products();
    multiply_tap<T, kFilterAlongK, kSteps>(sum, plane, patches + buffer * patch_lines, tap, panels[now], base_offset);
    close_products();
    copy_panel();
    if (tap < kParts && channel + kDepth < x.c) {
      copy_patch<kSteps>(x, plane, first, channel + kDepth, tap, kParts, patches + (1 - buffer) * patch_lines);
    }
    close_copies();
    wait_for_products(sum);
    now = now + 1 == kPatchStages ? 0 : now + 1;
    if (++tap == 9) {
      tap = 0;
      channel += kDepth;
      buffer = 1 - buffer;
    }
  }
  store_patch(result, plane, first, filter.first_col, sum);
}

}  // namespace tessera::cuda
