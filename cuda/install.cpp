#include "cuda/install.h"

#include <memory>

#include "cuda/augment.h"
#include "cuda/check.h"
#include "cuda/comm_nccl.h"
#include "cuda/context.h"
#include "cuda/conv.h"
#include "cuda/conv_vendor.h"
#include "cuda/cuda_backend.h"
#include "cuda/vendor/nccl_api.h"
#include "tensor/tensor.h"

namespace tessera {

void install_cuda_backend(int index) {
  cuda::use_device(index);
  set_augment_kernel(Device::Kind::kCuda, cuda::augment);
  if (find_backend("cuda") == nullptr) install(std::make_unique<CudaBackend>());
}

bool has_cudnn() { return cuda::vendor::has_conv(); }
std::string describe_cudnn() { return cuda::describe_cudnn(); }

void device_matmul(const Tensor& a, const Tensor& b, const Tensor& c) {
  const auto matrix = [](const Tensor& t) { return MatrixView{t.raw(), t.dtype(), 1, t.size(0), t.size(1), 0, t.size(1), 1}; };
  if (!cuda::vendor::matmul(matrix(a), matrix(b), matrix(c), false)) cuda::tiled::matmul(matrix(a), matrix(b), matrix(c), false);
}

int64_t exchange_enough_blocks(int64_t blocks) {
  const int64_t before = cuda::enough_blocks();
  cuda::set_enough_blocks(blocks);
  return before;
}

VendorUse vendor_use() {
  VendorUse use;
  for (const cuda::PlanCacheStats& s : {cuda::vendor::conv_stats(), cuda::vendor::gemm_stats()}) {
    use.planned += s.misses;
    use.refused += s.refused + s.struck;
    use.seconds += s.seconds;
  }
  return use;
}

std::unique_ptr<Communicator> device_communicator(Communicator& hosts) {
  return hosts.alone() ? nullptr : cuda::nccl_communicator(hosts);
}
std::string describe_nccl() { return cuda::vendor::describe_nccl(); }

std::string describe_cuda() {
  std::string text = fmt::format("CUDA {}.{}", CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10);
  text += fmt::format(", {}, {}", cuda::describe_cudnn(), cuda::describe_cublaslt());
  try {
    const int count = cuda::device_count();
    text += fmt::format(", {} device{}: ", count, count == 1 ? "" : "s");
    for (int i = 0; i < count; ++i) {
      const cuda::DeviceInfo d = cuda::describe_device(i);
      text += fmt::format("{}{} (sm_{}{}, {} GiB)", i ? ", " : "", d.name, d.major, d.minor, d.total_bytes >> 30);
    }
  } catch (const Error& e) {
    text += ", no device: " + e.message();
  }
  return text;
}

}  // namespace tessera
