// The functions of NCCL that are used here, declared without its header: the library is opened where it is installed, so one build serves
// machines with it and without. tests/cudnn/nccl_test.cpp holds the numbers against the header.
#pragma once

#include <cstddef>
#include <string>

namespace tessera::cuda::vendor {

struct NcclId {
  char bytes[128];
};
using NcclComm = void*;
inline constexpr int kNcclFloat32 = 7, kNcclUint8 = 1, kNcclSum = 0, kNcclAvg = 4, kNcclSuccess = 0, kNcclInProgress = 7;

struct NcclApi {
  int (*version)(int*);
  int (*unique_id)(NcclId*);
  int (*init_rank)(NcclComm*, int ranks, NcclId, int rank);
  int (*all_reduce)(const void* from, void* to, size_t count, int type, int op, NcclComm, void* stream);
  int (*all_gather)(const void* from, void* to, size_t count_of_one, int type, NcclComm, void* stream);
  int (*broadcast)(const void* from, void* to, size_t count, int type, int root, NcclComm, void* stream);
  int (*async_error)(NcclComm, int*);
  int (*abort)(NcclComm);
  const char* (*error_string)(int);
  const char* (*last_error)(NcclComm);
};

inline constexpr int kOldestNccl = 21000;  // means over the ranks since 2.10, calls in CUDA graphs since 2.9

const NcclApi* nccl_api();    // null: it is not here, or too old
std::string describe_nccl();  // "NCCL 2.28.9", or why there is none

// For tests: what nccl_api() returns from now on; null: the library again.
void set_nccl_api(const NcclApi* api);

}  // namespace tessera::cuda::vendor
