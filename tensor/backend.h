// A backend implements every op family for one kind of device. Methods take views, run to completion in order on the current
// stream, never allocate their outputs and never look at gradients. RefBackend is the contract as code; CpuBackend derives from it
// and overrides what has a fast kernel; CudaBackend stands beside them.
#pragma once

#include <cstring>
#include <memory>
#include <span>
#include <string_view>

#include "tensor/caching_allocator.h"
#include "tensor/capture.h"
#include "tensor/device.h"
#include "tensor/ops/assign.h"
#include "tensor/ops/conv.h"
#include "tensor/ops/copy.h"
#include "tensor/ops/detect.h"
#include "tensor/ops/index.h"
#include "tensor/ops/losses.h"
#include "tensor/ops/matmul.h"
#include "tensor/ops/norm.h"
#include "tensor/ops/optim.h"
#include "tensor/ops/pointwise.h"
#include "tensor/ops/pool.h"
#include "tensor/ops/random.h"
#include "tensor/ops/reduce.h"
#include "tensor/ops/softmax.h"
#include "tensor/ops/update.h"
#include "tensor/upload_ring.h"

namespace tessera {

class Backend : public CopyOps,
                public PointwiseOps,
                public ReduceOps,
                public MatmulOps,
                public ConvOps,
                public PoolOps,
                public NormOps,
                public SoftmaxOps,
                public IndexOps,
                public LossOps,
                public AssignOps,
                public DetectOps,
                public OptimOps,
                public UpdateOps,
                public RandomOps {
 public:
  virtual std::string_view name() const = 0;  // "ref", "avx512", "cuda", ...
  virtual Device::Kind device_kind() const = 0;
  virtual CachingAllocator& allocator() = 0;
  virtual int64_t available_bytes();  // what allocator() could still get from the system; 0: unknown
  virtual void synchronize() {}       // waits for what was started
  virtual std::unique_ptr<Recorder> recorder() { return nullptr; }  // null: calls cannot be recorded here
  virtual std::unique_ptr<UploadRing> upload_ring() { return nullptr; }  // null: nothing has to be brought here
  // Bytes between the host and this device; complete on return. For the host itself a plain copy.
  virtual void upload(void* device, const void* host, size_t bytes) { std::memcpy(device, host, bytes); }
  virtual void download(void* host, const void* device, size_t bytes) { std::memcpy(host, device, bytes); }
  // Of calls within a BesideGuard (tensor/beside.h) so many may be under way before memory that they read is used again; 0: they are
  // made in turn.
  virtual int calls_beside() const { return 0; }
  virtual void join_calls_beside() {}  // what is called from now on sees their results
};

// Registers a backend; the last one installed for a kind of device is the one that runs.
void install(std::unique_ptr<Backend> backend);
std::span<Backend* const> available_backends();
Backend& backend_for(Device device);      // Error(kUsage) when none is installed for this kind
Backend* find_backend(std::string_view name);  // null: not installed

// The allocator of a device: that of the backend which a BackendGuard forces, else the device's own. The host's works before any
// backend is installed.
CachingAllocator& allocator_for(Device device);

// Makes `backend` the one that runs on this thread, for tests and comparisons.
class BackendGuard {
 public:
  explicit BackendGuard(Backend& backend);
  ~BackendGuard();
  BackendGuard(const BackendGuard&) = delete;
  BackendGuard& operator=(const BackendGuard&) = delete;

 private:
  Backend* previous_;
};

}  // namespace tessera
