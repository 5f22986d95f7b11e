#include "cuda/vendor/nccl_api.h"

#include "tensor/base/check.h"
#include "tensor/base/shared_library.h"

namespace tessera::cuda::vendor {

namespace {
struct Opened {
  SharedLibrary library{"libnccl.so.2", "/usr/local/cuda/lib64/libnccl.so.2"};
  NcclApi api{};
  Opened() {
    const auto find = [&]<class F>(F& function, const char* name) { function = library.function<F>(name); };
    find(api.version, "ncclGetVersion");
    find(api.unique_id, "ncclGetUniqueId");
    find(api.init_rank, "ncclCommInitRank");
    find(api.all_reduce, "ncclAllReduce");
    find(api.all_gather, "ncclAllGather");
    find(api.broadcast, "ncclBroadcast");
    find(api.async_error, "ncclCommGetAsyncError");
    find(api.abort, "ncclCommAbort");
    find(api.error_string, "ncclGetErrorString");
    find(api.last_error, "ncclGetLastError");
  }
};
const Opened& opened() {
  static const Opened o;
  return o;
}
const NcclApi* of_test = nullptr;  // set_nccl_api()

int version_of(const NcclApi& api) {
  int version = 0;
  return api.version(&version) == kNcclSuccess ? version : 0;
}
const NcclApi* found() {
  if (of_test != nullptr) return of_test;
  return opened().library.complete() ? &opened().api : nullptr;
}
}  // namespace

const NcclApi* nccl_api() {
  const NcclApi* const api = found();
  return api != nullptr && version_of(*api) >= kOldestNccl ? api : nullptr;
}

void set_nccl_api(const NcclApi* api) { of_test = api; }

std::string describe_nccl() {
  const NcclApi* const api = found();
  if (api == nullptr) return "NCCL cannot be loaded: " + opened().library.trouble();
  const int v = version_of(*api);
  if (v == 0) return "NCCL that does not tell its version";
  return fmt::format("NCCL {}.{}.{}{}", v / 10000, v / 100 % 100, v % 100, v < kOldestNccl ? ", older than 2.10: not used" : "");
}

}  // namespace tessera::cuda::vendor
