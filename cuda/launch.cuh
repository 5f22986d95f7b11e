// The one way to start a kernel. A launch that fails says which kernel and what it was given:
//
//   cuda kernel silu(f32 rows [3 x 19, pitch 24], ..., 5) <<<1, 256>>>: invalid configuration argument
//
// Kernels fail late: what one did wrong shows at some later call. TESSERA_SYNC=1 waits after every launch, so that the message
// names the guilty one. One that never ends fails nowhere: TESSERA_SYNC=2 names each on stderr before it starts, too.
#pragma once

#include <cuda_runtime.h>

#include <string>
#include <type_traits>

#include "cuda/context.h"
#include "cuda/device/views.cuh"
#include "tensor/base/check.h"

namespace tessera::cuda {

struct Grid {
  dim3 blocks;
  dim3 threads;             // a multiple of 32 in all
  size_t shared_bytes = 0;  // dynamic shared memory of a block
  bool early = false;       // see early()
};

// Blocks that cover `items` when each takes `per_block` of them.
inline unsigned blocks_for(int64_t items, int64_t per_block) {
  const int64_t blocks = (items + per_block - 1) / per_block;
  TESSERA_CHECK(blocks < (int64_t{1} << 31), "cuda: {} items of {} a block are too many for one grid", items, per_block);
  return unsigned(blocks);
}
// Of a kernel that calls wait_for_kernel_before(): it may be started while the kernel before it still runs (programmatic dependent
// launch).
inline Grid early(Grid grid) {
  grid.early = true;
  return grid;
}
inline Grid one_thread_each(int64_t items, unsigned threads = 256) { return {dim3(blocks_for(items, threads)), dim3(threads)}; }

namespace detail {
bool sync_after_launch();  // TESSERA_SYNC
bool names_launches();     // TESSERA_SYNC=2
void name_launch(const char* name, const std::string& arguments, const Grid& grid);
bool starts_early(const void* kernel);
[[noreturn]] void launch_failed(cudaError_t error, const char* name, const std::string& arguments, const Grid& grid, bool ran);

// The name of an element type; kernels that only move bytes have unsigned ones.
template <class T>
std::string type_text() {
  using E = std::remove_const_t<T>;
  if constexpr (requires { DTypeOf<E>::value; }) {
    return std::string(name_of(kDTypeOf<E>));
  } else {
    return fmt::format("{}-byte", sizeof(E));
  }
}

inline std::string text(bool value) { return value ? "true" : "false"; }
template <class T>
std::string text(const Rows<T>& v) {
  return fmt::format("{} rows [{} x {}, pitch {}]", type_text<T>(), v.rows, v.cols, v.pitch);
}
template <class T>
std::string text(const Images<T>& v) {
  return fmt::format("{} images [{}, {}, {}, {}, pitch {}]", type_text<T>(), v.n, v.h, v.w, v.c, v.pitch);
}
template <class T>
std::string text(const Filters<T>& v) {
  return fmt::format("{} filters [{}, {}, {}, {}]", type_text<T>(), v.o, v.kh, v.kw, v.i);
}
template <class T>
std::string text(const T& value) {
  if constexpr (std::is_arithmetic_v<T>) {
    return fmt::format("{}", value);
  } else if constexpr (std::is_enum_v<T>) {
    return fmt::format("{}", int(value));
  } else if constexpr (std::is_pointer_v<T>) {
    return value == nullptr ? "null" : "pointer";
  } else {
    return "...";
  }
}

// Not called where nothing fails: the text costs more than a launch.
template <class... A>
std::string list(const A&... arguments) {
  std::string all;
  ((all += (all.empty() ? "" : ", ") + text(arguments)), ...);
  return all;
}
}  // namespace detail

// Runs `kernel` on the current stream. A grid without blocks is no work and no launch. `name` is what a message calls it.
template <class... P, class... A>
void launch(const char* name, const Grid& grid, void (*kernel)(P...), const A&... arguments) {
  if (grid.blocks.x == 0 || grid.blocks.y == 0 || grid.blocks.z == 0) return;
  auto fail_on = [&](cudaError_t error, bool ran) {
    if (error != cudaSuccess) detail::launch_failed(error, name, detail::list(arguments...), grid, ran);
  };
  if (detail::names_launches()) detail::name_launch(name, detail::list(arguments...), grid);
  constexpr size_t kSharedBytesByDefault = 48 << 10;  // for more than this CUDA must be asked
  if (grid.shared_bytes > kSharedBytesByDefault) {
    fail_on(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 int(grid.shared_bytes)),
            false);
  }
  cudaLaunchConfig_t config{};
  config.gridDim = grid.blocks;
  config.blockDim = grid.threads;
  config.dynamicSmemBytes = grid.shared_bytes;
  config.stream = current_stream();
  cudaLaunchAttribute overlap{};
  overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  overlap.val.programmaticStreamSerializationAllowed = 1;
  if (grid.early && detail::starts_early(reinterpret_cast<const void*>(kernel))) {
    config.attrs = &overlap;
    config.numAttrs = 1;
  }
  fail_on(cudaLaunchKernelEx(&config, kernel, P(arguments)...), false);
  fail_on(cudaGetLastError(), false);
  if (detail::sync_after_launch()) fail_on(cudaStreamSynchronize(current_stream()), true);
}

}  // namespace tessera::cuda
