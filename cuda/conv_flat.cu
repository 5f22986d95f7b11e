// Convolution 3x3 in 16 bits out of patches of the image, on the warpgroup instructions of sm_90a. Compiled for sm_90a and nothing
// else (cmake/cuda.cmake).
#include "cuda/conv_flat.h"

#include <algorithm>

#include "cuda/conv_launch.cuh"
#include "cuda/device/conv_flat.cuh"
#include "tensor/base/env.h"

namespace tessera::cuda::flat {

namespace {

constexpr size_t kBlockShared = 227 << 10, kMultiprocessorShared = 228 << 10, kSystemShared = 1 << 10;

// What only a device can tell: read once.
struct Trial {
  bool base_offset;
  int strip;  // 0: by rule
};
const Trial& trial() {
  static const Trial t = [] {
    return Trial{env("TESSERA_CONV_FLAT") == "base_offset", std::stoi(env("TESSERA_CONV_STRIP").value_or("0"))};
  }();
  return t;
}
bool& on() {
  static bool value = env("TESSERA_CONV_FLAT") != "0";
  return value;
}

PatchPlane plane_of(const ImageView& x, int64_t widest) {
  const int64_t strips = (x.w + widest - 1) / widest;
  const int64_t strip = (x.w + strips - 1) / strips;
  const int64_t width = strip + (strips == 1 ? 1 : 2), height = x.h + 1;
  return {size32(strips), size32(strip), size32(width), size32(height), size32(x.n * strips * height * width)};
}

template <class T, int kCols, bool kFilterAlongK, bool kStreamed, int kSteps>
bool run(const ImageView& x, const FilterView& w, const ImageView& y, const ConvEpilogue& epilogue) {
  using Panel = TurningPanel<kCols, kFilterAlongK>;
  constexpr const char* name = kFilterAlongK ? "conv2d, wgmma, flat" : "conv2d_backward_data, wgmma, flat";
  // Narrow strips have small patches, wide ones little between them.
  const PatchPlane plane = plane_of(x, trial().strip > 0 ? trial().strip : kStreamed ? 40 : 80);
  const size_t patch = size_t(plane.lines() + 7) / 8 * 8 * sizeof(PatchLine);
  const int64_t tiles = blocks_for(plane.positions, kPatchRows), col_tiles = blocks_for(y.c, kCols);
  const PatchResult<T> result{images_of<T>(y), static_cast<const float*>(epilogue.bias), epilogue.activation,
                              images_of<const T>(epilogue.residual)};
  if constexpr (kStreamed) {
    const size_t bytes = kPatchStages * sizeof(Panel) + 2 * patch;
    if (bytes > kBlockShared) return false;
    launch(name, {dim3(blocks_for(tiles * col_tiles, 1)), dim3(kTileThreads), bytes},
           patch_streamed_kernel<T, kCols, kFilterAlongK, kSteps>, images_of<const T>(x), filters_of<const T>(w), result, plane,
           trial().base_offset);
  } else {
    const size_t one = 9 * sizeof(Panel) + patch;
    if (one > kBlockShared) return false;
    // A block that is alone brings the next patch itself while it multiplies.
    const int64_t fit = std::min<int64_t>(kMultiprocessorShared / (one + kSystemShared), kPatchBlocks<kCols>);
    const int buffers = fit == 1 && one + patch <= kBlockShared ? 2 : 1;
    // Who computes a tile is of no matter to its bits.
    const int64_t resident = std::max<int64_t>(1, fit * device().multiprocessors / col_tiles);
    launch(name, {dim3(unsigned(std::min(tiles, resident)), unsigned(col_tiles)), dim3(kTileThreads), one + size_t(buffers - 1) * patch},
           patch_resident_kernel<T, kCols, kFilterAlongK, kSteps>, images_of<const T>(x), filters_of<const T>(w), result, plane,
           buffers, trial().base_offset);
  }
  return true;
}

template <class T>
bool run_type(const ImageView& x, const FilterView& w, const ImageView& y, bool turned, const ConvEpilogue& epilogue) {
  if (!in_packs<T>(x, w, y)) return false;
  auto steps = [&]<int kCols, bool kFilterAlongK>() {
    if (x.c <= 32) return run<T, kCols, kFilterAlongK, false, 2>(x, w, y, epilogue);
    if (x.c <= 64) return run<T, kCols, kFilterAlongK, false, 4>(x, w, y, epilogue);
    if (x.c <= 96) return run<T, kCols, kFilterAlongK, true, 3>(x, w, y, epilogue);  // 48 twice and not 64 twice
    return run<T, kCols, kFilterAlongK, true, 4>(x, w, y, epilogue);
  };
  auto cols = [&]<int kCols>() {
    return turned ? steps.template operator()<kCols, false>() : steps.template operator()<kCols, true>();
  };
  if (y.c <= 32) return cols.template operator()<32>();
  if (y.c > 64 && y.c <= 96) return cols.template operator()<96>();
  return cols.template operator()<64>();
}

}  // namespace

bool enabled() { return on(); }
void set_enabled(bool value) { on() = value; }

bool conv3x3(const ImageView& x, const FilterView& w, const ImageView& y, bool turned, const ConvEpilogue& epilogue) {
  if (!on() || x.n * x.h * x.w == 0 || x.c == 0) return false;
  switch (x.t) {
    case DType::kBF16: return run_type<BFloat16>(x, w, y, turned, epilogue);
    case DType::kF16: return run_type<Half>(x, w, y, turned, epilogue);
    default: return false;
  }
}

}  // namespace tessera::cuda::flat
