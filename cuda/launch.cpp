#include "cuda/launch.cuh"

#include "cuda/check.h"
#include "cuda/event.h"
#include "tensor/base/env.h"

namespace tessera::cuda::detail {

namespace {
constexpr int kSm90 = 90;  // as cudaFuncAttributes counts

const std::string& sync_switch() {
  static const std::string value = env("TESSERA_SYNC").value_or("0");
  return value;
}

std::string text_of(const char* name, const std::string& arguments, const Grid& grid) {
  const dim3 b = grid.blocks;
  const dim3 t = grid.threads;
  return fmt::format("cuda kernel {}({}) <<<{}x{}x{}, {}x{}x{}, {}>>>", name, arguments, b.x, b.y, b.z, t.x, t.y, t.z,
                     grid.shared_bytes);
}
}  // namespace

bool sync_after_launch() { return sync_switch() != "0"; }
bool names_launches() { return sync_switch() == "2"; }

void name_launch(const char* name, const std::string& arguments, const Grid& grid) {
  fmt::print(stderr, "{}\n", text_of(name, arguments, grid));  // unbuffered
}

// Only code for sm_90 and later waits by itself for the kernel before it, so no other may be started early. All kernels are
// compiled for the same devices: the first that is asked about answers for all. Nor is a kernel started early that also follows
// work of another stream: a graph would have to be told, for each kernel before it, whether this one waits for it by itself.
bool starts_early(const void* kernel) {
  static const bool early = [&] {
    cudaFuncAttributes of{};
    return cudaFuncGetAttributes(&of, kernel) == cudaSuccess && of.ptxVersion >= kSm90;
  }();
  return early && !take_wait(current_stream());
}

void launch_failed(cudaError_t error, const char* name, const std::string& arguments, const Grid& grid, bool ran) {
  (void)cudaGetLastError();
  throw Error(code_of(error),
              fmt::format("{}: {} ({})", text_of(name, arguments, grid), cudaGetErrorString(error), cudaGetErrorName(error)), {},
              ran || sync_after_launch() ? "" : "an earlier kernel may be the cause: TESSERA_SYNC=1 locates it");
}

}  // namespace tessera::cuda::detail
