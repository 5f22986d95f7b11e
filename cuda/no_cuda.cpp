// Stands in for the whole of cuda/ in builds without the toolkit.
#include "cuda/install.h"
#include "tensor/base/check.h"

namespace tessera {

void install_cuda_backend(int index) {
  throw Error(ErrorCode::kUsage, fmt::format("this build has no CUDA, so no device {}", index), {},
              "configure with -DTESSERA_CUDA=ON where nvcc is installed");
}

bool has_cudnn() { return false; }
std::string describe_cudnn() { return "this build has no CUDA"; }

void device_matmul(const Tensor&, const Tensor&, const Tensor&) { throw Error(ErrorCode::kBug, "this build has no CUDA"); }
int64_t exchange_enough_blocks(int64_t) { return 0; }
VendorUse vendor_use() { return {}; }

std::unique_ptr<Communicator> device_communicator(Communicator&) { return nullptr; }
std::string describe_nccl() { return "this build has no CUDA"; }

std::string describe_cuda() { return "not in this build"; }

}  // namespace tessera
