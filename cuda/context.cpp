#include "cuda/context.h"

#include "cuda/check.h"

namespace tessera::cuda {

namespace {
DeviceInfo& in_use() {
  static DeviceInfo info;
  return info;
}
thread_local cudaStream_t stream = nullptr;  // null: the device's default stream
}  // namespace

int device_count() {
  int count = 0;
  TESSERA_CUDA_CHECK(cudaGetDeviceCount(&count));
  return count;
}

DeviceInfo describe_device(int index) {
  const int count = device_count();
  if (index < 0 || index >= count) {
    throw Error(ErrorCode::kUsage,
                fmt::format("CUDA: {}: {} asked for, {} there", cudaGetErrorString(cudaErrorInvalidDevice), index, count));
  }
  cudaDeviceProp properties{};
  TESSERA_CUDA_CHECK(cudaGetDeviceProperties(&properties, index));
  return {index, properties.name, properties.major, properties.minor, properties.multiProcessorCount, properties.totalGlobalMem};
}

void use_device(int index) {
  DeviceInfo info = describe_device(index);
  TESSERA_CUDA_CHECK(cudaSetDevice(index));
  in_use() = std::move(info);
}

const DeviceInfo& device() { return in_use(); }

cudaStream_t current_stream() { return stream; }

bool recording() {
  if (stream == nullptr) return false;  // the default stream cannot
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  TESSERA_CUDA_CHECK(cudaStreamIsCapturing(stream, &status));
  return status != cudaStreamCaptureStatusNone;
}

StreamGuard::StreamGuard(cudaStream_t next) : previous_(stream) { stream = next; }
StreamGuard::~StreamGuard() { stream = previous_; }

void synchronize() { TESSERA_CUDA_CHECK(cudaStreamSynchronize(stream)); }

int64_t free_bytes() {
  size_t left = 0, total = 0;
  TESSERA_CUDA_CHECK(cudaMemGetInfo(&left, &total));
  return int64_t(left);
}

void upload(void* to, const void* host, size_t bytes) {
  if (bytes == 0) return;
  TESSERA_CUDA_CHECK(cudaMemcpyAsync(to, host, bytes, cudaMemcpyHostToDevice, stream));
  synchronize();
}

void download(void* host, const void* from, size_t bytes) {
  if (bytes == 0) return;
  TESSERA_CUDA_CHECK(cudaMemcpyAsync(host, from, bytes, cudaMemcpyDeviceToHost, stream));
  synchronize();
}

}  // namespace tessera::cuda
