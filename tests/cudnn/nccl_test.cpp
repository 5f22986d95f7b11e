// What cuda/vendor/nccl_api.h says without NCCL's header, against the header where there is one.
#include "cuda/vendor/nccl_api.h"

#include <doctest/doctest.h>

#if __has_include(<nccl.h>)
#include <nccl.h>
#define TESSERA_HAS_NCCL_HEADER 1
#endif

TEST_CASE("NCCL: numbers and functions are those of the header") {
#ifdef TESSERA_HAS_NCCL_HEADER
  using namespace tessera::cuda::vendor;
  CHECK(kNcclFloat32 == ncclFloat32);
  CHECK(kNcclUint8 == ncclUint8);
  CHECK(kNcclSum == ncclSum);
  CHECK(kNcclAvg == ncclAvg);
  CHECK(kNcclSuccess == ncclSuccess);
  CHECK(kNcclInProgress == ncclInProgress);
  CHECK(sizeof(NcclId) == sizeof(ncclUniqueId));
  CHECK(sizeof(NcclComm) == sizeof(ncclComm_t));
  CHECK(sizeof(ncclResult_t) == sizeof(int));
  CHECK(sizeof(ncclDataType_t) == sizeof(int));
  CHECK(sizeof(ncclRedOp_t) == sizeof(int));
  if (nccl_api() == nullptr) {
    MESSAGE("skipped: ", describe_nccl());
    return;
  }
  CHECK(describe_nccl().find("NCCL 2.") == 0);
  CHECK(std::string(nccl_api()->error_string(kNcclSuccess)) == "no error");
#else
  MESSAGE("skipped: no header of NCCL");
#endif
}
