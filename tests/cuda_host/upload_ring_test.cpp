// The ring that brings batches over beside the device's work, on the emulated runtime with copies that run as late as they may.
#include "tensor/upload_ring.h"

#include <doctest/doctest.h>

#include "cuda/context.h"
#include "tensor/backend.h"
#include "tests/cuda_host/emulator.h"

namespace tessera::testing {
namespace {

struct LateCopies {
  LateCopies() { emulated::defer_copies(true); }
  ~LateCopies() { emulated::defer_copies(false); }
};

std::vector<Tensor> parcel(float value, int64_t count) {
  return {Tensor::full({count, 3}, value), Tensor::full({2}, value, DType::kI32), Tensor::empty({0, 4})};
}

void check_parcel(const std::vector<Tensor>& parts, float value, int64_t count) {
  REQUIRE(parts.size() == 3);
  CHECK(parts[0].device() == Device::cuda());
  CHECK(parts[0].shape() == Shape{count, 3});
  CHECK(parts[0].to_vector<float>() == std::vector<float>(size_t(3 * count), value));
  CHECK(parts[1].to_vector<int32_t>() == std::vector<int32_t>(2, int32_t(value)));
  CHECK(parts[2].shape() == Shape{0, 4});
}

TEST_CASE("upload ring: parcels come in the order in which they were sent, of any size; the host's memory is free at once") {
  const LateCopies late;
  const auto ring = backend_for(Device::cuda()).upload_ring();
  const int64_t sizes[] = {100, 100, 7, 1000, 1001, 1, 1000, 2000};
  const auto send = [&](int64_t i) {
    std::vector<Tensor> parts = parcel(float(i), sizes[i]);
    ring->send(parts);
    for (const Tensor& t : parts) t.fill(-1);
  };
  send(0);
  for (int64_t i = 0; i < 8; ++i) {
    CAPTURE(i);
    const std::vector<Tensor> parts = ring->take();
    if (i + 1 < 8) send(i + 1);
    check_parcel(parts, float(i), sizes[i]);  // read after the next was sent
  }
  CHECK(ring->waiting() == 0);
  CHECK(emulated::take_reports().empty());
}

TEST_CASE("upload ring: a copy waits for what still reads its slot, the work for the copy, the host for its pinned memory") {
  const LateCopies late;
  const auto ring = backend_for(Device::cuda()).upload_ring();
  const auto waits = [] { return std::pair{emulated::calls("cudaStreamWaitEvent"), emulated::calls("cudaEventSynchronize")}; };
  const auto of = [&](auto&& call) {
    const auto before = waits();
    call();
    const auto after = waits();
    return std::pair{after.first - before.first, after.second - before.second};
  };
  using Waits = std::pair<uint64_t, uint64_t>;
  CHECK(of([&] { ring->send(parcel(1, 5)); }) == Waits{0, 0});
  CHECK(of([&] { ring->take(); }) == Waits{1, 0});
  CHECK(of([&] { ring->send(parcel(2, 5)); }) == Waits{0, 0});  // the other slot
  CHECK(of([&] { ring->take(); }) == Waits{1, 0});
  CHECK(of([&] { ring->send(parcel(3, 5)); }) == Waits{1, 1});
  check_parcel(ring->take(), 3, 5);
}

TEST_CASE("upload ring: nothing that has found room is allocated or waited for again") {
  const auto ring = backend_for(Device::cuda()).upload_ring();
  for (int i = 0; i < 2; ++i) ring->send(parcel(float(i), 50)), ring->take();
  const uint64_t allocations = emulated::calls("cudaMalloc"), pinned = emulated::calls("cudaMallocHost"),
                 stops = emulated::calls("cudaStreamSynchronize");
  for (int i = 0; i < 6; ++i) ring->send(parcel(float(i), 50 - i)), ring->take();
  CHECK(emulated::calls("cudaMalloc") == allocations);
  CHECK(emulated::calls("cudaMallocHost") == pinned);
  CHECK(emulated::calls("cudaStreamSynchronize") == stops);
}

TEST_CASE("upload ring: more parcels than slots, or none, is a mistake of the caller") {
  const auto ring = backend_for(Device::cuda()).upload_ring();
  CHECK_THROWS_AS(ring->take(), Error);
  ring->send(parcel(1, 5));
  ring->send(parcel(2, 5));
  CHECK_THROWS_AS(ring->send(parcel(3, 5)), Error);
  check_parcel(ring->take(), 1, 5);
  CHECK_THROWS_AS(ring->send(parcel(3, 5)), Error);  // the one that was taken is in use
  check_parcel(ring->take(), 2, 5);
  ring->send(parcel(3, 5));
  check_parcel(ring->take(), 3, 5);
  CHECK_THROWS_AS(ring->send(std::vector<Tensor>{Tensor::zeros({2}, DType::kF32, Device::cuda())}), Error);
}

TEST_CASE("upload ring: a parcel that could not be sent leaves the ring as it was") {
  const LateCopies late;
  cuda::pinned_allocator().trim();
  cuda::device_allocator().trim();
  const auto ring = backend_for(Device::cuda()).upload_ring();
  ring->send(parcel(1, 5));
  const int64_t large = int64_t(1) << 22;
  for (const auto& [call, error, code] : {std::tuple{"cudaMallocHost", cudaErrorMemoryAllocation, ErrorCode::kMemory},
                                          {"cudaMalloc", cudaErrorMemoryAllocation, ErrorCode::kMemory},
                                          {"cudaMemcpyAsync", cudaErrorIllegalAddress, ErrorCode::kBug},
                                          {"cudaEventRecord", cudaErrorIllegalAddress, ErrorCode::kBug}}) {
    CAPTURE(call);
    emulated::fail_call(call, 1, error, error == cudaErrorMemoryAllocation ? 2 : 1);
    try {
      ring->send(parcel(9, large));
      FAIL("it was sent");
    } catch (const Error& e) {
      CHECK(e.code() == code);
    }
    CHECK(ring->waiting() == 1);
    (void)cudaGetLastError();
  }
  check_parcel(ring->take(), 1, 5);
  ring->send(parcel(2, large));
  check_parcel(ring->take(), 2, large);
}

// The emulation really is late; or the tests above would show nothing.
TEST_CASE("a late copy runs when it is waited for, and not before") {
  const LateCopies late;
  cudaStream_t stream = nullptr;
  cudaEvent_t event = nullptr;
  REQUIRE(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess);
  REQUIRE(cudaEventCreateWithFlags(&event, cudaEventDisableTiming) == cudaSuccess);
  const Tensor to = Tensor::zeros({1}, DType::kF32, Device::cuda());
  float from = 5;
  REQUIRE(cudaMemcpyAsync(to.raw(), &from, sizeof from, cudaMemcpyHostToDevice, stream) == cudaSuccess);
  REQUIRE(cudaEventRecord(event, stream) == cudaSuccess);
  CHECK(to.item() == 0);
  from = 6;
  REQUIRE(cudaStreamWaitEvent(nullptr, event, 0) == cudaSuccess);
  CHECK(to.item() == 6);  // it read the host's memory only then
  CHECK(cudaEventDestroy(event) == cudaSuccess);
  CHECK(cudaStreamDestroy(stream) == cudaSuccess);
}

}  // namespace
}  // namespace tessera::testing
