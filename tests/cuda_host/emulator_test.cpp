// The emulated GPU notices what it should: small kernels that are right, and the same ones broken.
#include "tests/cuda_host/emulator.h"

#include <doctest/doctest.h>

#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <numeric>

#include "cuda/context.h"
#include "cuda/device/reduce.cuh"
#include "cuda/launch.cuh"
#include "tensor/ops/pointwise.h"
#include "tensor/tensor.h"
#include "tests/cuda_host/ahead_kernels.h"

namespace tessera::testing {
namespace {

constexpr int kN = 256;

// Sum of 256 numbers by a tree in shared memory; `broken` leaves out the barriers.
void tree_sum(const float* x, float* y, bool broken) {
  TESSERA_SHARED(s, float[kN]);
  const unsigned t = threadIdx.x;
  s[t] = x[t];
  for (unsigned half = kN / 2; half > 0; half /= 2) {
    if (!broken) __syncthreads();
    if (t < half) s[t] += s[t + half];
  }
  if (t == 0) *y = s[0];
}

void shuffled_sum(const float* x, float* y) {
  const float all = cuda::block_reduce<cuda::Add>(x[threadIdx.x], 0.0f);
  if (threadIdx.x == 0) *y = all;
}

// Two reductions in a row share their memory: nobody may write for the second before all have read for the first.
void reduced_twice(const float* x, float* y) {
  const float once = cuda::block_reduce<cuda::Add>(x[threadIdx.x], 0.0f);
  const float twice = cuda::block_reduce<cuda::Add>(once, 0.0f);
  if (twice != 256.0f * 32896.0f) *y = -1;
  if (threadIdx.x == 0 && *y == 0) *y = twice;
}

void counts(const float* x, float* y) {
  const int positive = __syncthreads_count(x[threadIdx.x] > 100.0f);
  const unsigned votes = __ballot_sync(~0u, threadIdx.x % 2 == 0);
  if (threadIdx.x == 0) *y = float(positive) + float(__popc(votes));
}

void left_before_barrier(const float* x, float* y) {
  if (threadIdx.x >= 200) return;
  __syncthreads();
  atomicAdd(y, x[threadIdx.x]);
}

void two_barriers(const float* x, float* y) {
  if (threadIdx.x & 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
  atomicAdd(y, x[threadIdx.x]);
}

void lanes_missing(const float* x, float* y) {
  if (threadIdx.x % 32 < 20) atomicAdd(y, __shfl_xor_sync(~0u, x[threadIdx.x], 1));
}

void source_outside_mask(const float* x, float* y) {
  if (threadIdx.x % 32 < 16) atomicAdd(y, __shfl_sync(0xffffu, x[threadIdx.x], 20));
}

void static_overflow(const float* x, float* y) {
  TESSERA_SHARED(s, float[16][16]);
  const unsigned row = threadIdx.x / 16;
  s[row + (row == 15)][threadIdx.x % 16] = x[threadIdx.x];
  *y = 0;
}

void dynamic_overflow(const float* x, float*) {
  TESSERA_DYNAMIC_SHARED(float, s);
  s[threadIdx.x + (threadIdx.x == 255)] = x[threadIdx.x];
}

void far_outside(const float* x, float* y) { y[size_t(threadIdx.x) << 20] = x[0]; }

void null_pointer(const float*, float*) { *static_cast<volatile float*>(nullptr) = 1; }

void assertion(const float* x, float*) { TESSERA_DEVICE_ASSERT(x == nullptr); }

void copies_early(const float* x, float* y, bool waits) {
  if (waits || threadIdx.x == 0) cuda::wait_for_kernel_before();
  if (threadIdx.x == 0) *y = x[0];
}

struct Device {
  float* x = nullptr;
  float* y = nullptr;
  Device() {
    REQUIRE(cudaMalloc(reinterpret_cast<void**>(&x), kN * sizeof(float)) == cudaSuccess);
    REQUIRE(cudaMalloc(reinterpret_cast<void**>(&y), sizeof(float)) == cudaSuccess);
    std::vector<float> values(kN);
    std::iota(values.begin(), values.end(), 1.0f);
    cuda::upload(x, values.data(), kN * sizeof(float));
    const float zero = 0;
    cuda::upload(y, &zero, sizeof zero);
  }
  ~Device() {
    cudaFree(x);
    cudaFree(y);
  }
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;
};

// Runs a kernel under ten orders; the first report, or what the result is.
template <class... A>
std::string outcome_of(bool early, void (*kernel)(const float*, float*, A...), float expected, A... arguments) {
  const uint64_t before = emulated::seed();
  std::string seen = "right";
  for (uint64_t s = 0; s < 10 && seen == "right"; ++s) {
    emulated::set_seed(s);
    Device d;
    try {
      cuda::launch("kernel", {dim3(1), dim3(kN), kN * sizeof(float), early}, kernel, static_cast<const float*>(d.x), d.y, arguments...);
      if (!(cuda::fetch(d.y) == expected)) seen = "wrong";
    } catch (const Error& e) {
      seen = e.message();
    }
    const auto reports = emulated::take_reports();
    if (!reports.empty()) seen = reports[0];
  }
  emulated::set_seed(before);
  return seen;
}

template <class... A>
std::string outcome(void (*kernel)(const float*, float*, A...), float expected, A... arguments) {
  return outcome_of(false, kernel, expected, arguments...);
}

bool says(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

TEST_CASE("right kernels run right in any order") {
  constexpr float kSum = kN * (kN + 1) / 2;
  CHECK(outcome(tree_sum, kSum, false) == "right");
  CHECK(outcome(shuffled_sum, kSum) == "right");
  CHECK(outcome(reduced_twice, 256.0f * 32896.0f) == "right");
  CHECK(outcome(counts, 156.0f + 16.0f) == "right");
  CHECK(outcome_of(true, copies_early, 1, true) == "right");
  CHECK(outcome(copies, kSum, Mistake::kNone) == "right");
  CHECK(outcome(products, 16, Mistake::kNone) == "right");
}

TEST_CASE("mistakes show") {
  emulated::print_reports(false);
  CHECK(outcome(tree_sum, float(kN * (kN + 1) / 2), true) == "wrong");
  CHECK(says(outcome(left_before_barrier, 0), "divergent barrier: 200 threads wait"));
  CHECK(says(outcome(two_barriers, 0), "divergent barrier: thread 0 waits"));
  CHECK(says(outcome(lanes_missing, 0), "never completes"));
  CHECK(says(outcome(source_outside_mask, 0), "lane 20, which is not in its mask 0000ffff"));
  CHECK(says(outcome(static_overflow, 0), "past the end of 's' (1024 bytes)"));
  CHECK(says(outcome(dynamic_overflow, 0), "past the end of 'dynamic shared memory' (1024 bytes)"));
  CHECK(says(outcome(far_outside, 0), "device memory outside any buffer"));
  CHECK(says(outcome(null_pointer, 0), "bad access"));
  CHECK(says(outcome(assertion, 0), "assertion x == nullptr"));
  CHECK(says(outcome_of(true, copies_early, 1, false), "launched early 1 threads of 256 waited"));
  CHECK(outcome(copies, kN * (kN + 1) / 2, Mistake::kNoWait) == "wrong");
  CHECK(says(outcome(copies, kN * (kN + 1) / 2, Mistake::kNoClose), "without having waited for its copies"));
  CHECK(says(outcome(products, 16, Mistake::kNoWait), "without having waited for its products"));
  CHECK(says(outcome(products, 16, Mistake::kNoClose), "without having waited for its products"));
  CHECK(says(outcome(products, 16, Mistake::kNoOpen), "without open_products() after the wait for those before"));
  CHECK(outcome(products, 16, Mistake::kOverwritten) == "wrong");
  CHECK(says(outcome(products, 16, Mistake::kSumsWritten), "sums were written while a product"));
  CHECK(outcome(shuffled_sum, float(kN * (kN + 1) / 2)) == "right");  // the machine still works
  emulated::print_reports(true);
}

TEST_CASE("a buffer written past its end is reported when it is freed") {
  void* p = nullptr;
  REQUIRE(cudaMalloc(&p, 100) == cudaSuccess);
  static_cast<char*>(p)[100] = 1;
  emulated::print_reports(false);
  CHECK(cudaFree(p) == cudaSuccess);
  emulated::print_reports(true);
  const auto reports = emulated::take_reports();
  REQUIRE(reports.size() == 1);
  CHECK(says(reports[0], "a device buffer of 100 bytes was written past its end"));
}

TEST_CASE("device memory that is closed to the host is the kernels' and the copies' only") {
  const Tensor x = Tensor::full({3}, 2, DType::kF32, tessera::Device::cuda());
  emulated::allow_host_access(false);
  CHECK(ops::scale(x, 3).to_vector<float>() == std::vector<float>{6, 6, 6});
  const pid_t child = fork();  // does what must end it
  if (child == 0) {
    std::signal(SIGSEGV, SIG_DFL);
    _exit(*x.data<float>() == 2 ? 0 : 1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  emulated::allow_host_access(true);
  CHECK((WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV));
  CHECK(*x.data<float>() == 2);
}

}  // namespace
}  // namespace tessera::testing
