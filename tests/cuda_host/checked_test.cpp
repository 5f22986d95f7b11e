// The access checker (access.h): names what is wrong in small kernels that are broken, and finds nothing in the kernels of cuda/ on
// a short list of small cases. This file is instrumented like they are.
#include <algorithm>
#include <cstdlib>
#include <numeric>
#include <sstream>

#include "cuda/context.h"
#include "cuda/conv.h"
#include "cuda/device/chunks.cuh"
#include "cuda/device/reduce.cuh"
#include "cuda/launch.cuh"
#include "tests/cuda_host/ahead_kernels.h"
#include "tests/cuda_host/emulator.h"
#include "tests/op_cases/op_cases.h"

namespace tessera::testing {
namespace {

constexpr int kN = 256;

// Sum by a tree in shared memory. The barrier that is left out: 0 none, 1 before the first step, 2 between the steps.
void tree_sum(const float* x, float* y, int without) {
  TESSERA_SHARED(tree, float[kN]);
  const unsigned t = threadIdx.x;
  tree[t] = x[t];
  if (without != 1) __syncthreads();
  for (unsigned half = kN / 2; half > 0; half /= 2) {
    if (t < half) tree[t] += tree[t + half];
    if (without != 2) __syncthreads();
  }
  if (t == 0) *y = tree[0];
}

// Lanes of one warp hand values on in shared memory; a shuffle between them is no barrier.
void neighbours(const float* x, float* y, bool synchronised) {
  TESSERA_SHARED(row, float[kN]);
  const unsigned t = threadIdx.x;
  row[t] = x[t];
  if (synchronised) {
    __syncwarp();
  } else {
    __shfl_xor_sync(~0u, x[t], 1);
  }
  atomicAdd(y, row[t ^ 1]);
}

void two_passes(const float* x, float* y, bool barrier) {  // `sum` is used again while others may still read it
  TESSERA_SHARED(sum, float[1]);
  for (int pass = 0; pass < 2; ++pass) {
    if (threadIdx.x == 0) sum[0] = x[pass];
    __syncthreads();
    atomicAdd(y, sum[0]);
    if (barrier) __syncthreads();
  }
}

enum class Slip { kNone, kNoBarrier, kOfOthers };

// Each warpgroup hands values on by itself, round after round, the second one twice as often.
void of_groups(const float* x, float* y, Slip slip) {
  TESSERA_SHARED(row, float[kN]);
  const unsigned t = threadIdx.x, group = t / 128;
  for (unsigned round = 0; round <= group; ++round) {
    row[t] = x[t];
    if (slip != Slip::kNoBarrier) cuda::sync_warpgroup();
    atomicAdd(y, row[slip == Slip::kOfOthers ? t ^ 128 : t ^ 64]);
    cuda::sync_warpgroup();
  }
}

void counted(const float*, float* y, bool atomic) {
  TESSERA_SHARED(count, int[1]);
  if (threadIdx.x == 0) count[0] = 0;
  __syncthreads();
  if (atomic) {
    atomicAdd(&count[0], 1);
  } else {
    count[0] += 1;
  }
  __syncthreads();
  if (threadIdx.x == 0) *y = float(count[0]);
}

void partly_written(const float* x, float* y) {
  TESSERA_SHARED(half, float[kN]);
  if (threadIdx.x < kN / 2) half[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  if (threadIdx.x == kN / 2) *y = half[threadIdx.x];
}

void past_shared(const float* x, float* y) {
  TESSERA_SHARED(small, float[kN - 1]);
  small[threadIdx.x] = x[threadIdx.x];
  if (threadIdx.x == 0) *y = small[0];
}

void past_buffer(const float* x, float* y) {
  if (threadIdx.x == 0) *y = x[kN];
}

void before_buffer(const float* x, float* y) {
  if (threadIdx.x == 0) y[-1] = x[0];
}

void one_word(const float* x, float* y) { *y = x[threadIdx.x]; }

// Every block adds to one number.
void blocks_add(const float* x, float* y, bool atomic) {
  if (threadIdx.x != 0) return;
  if (atomic) {
    atomicAdd(y, x[blockIdx.x]);
  } else {
    *y += x[blockIdx.x];
  }
}

// Reads what the next block writes.
void in_place(float* x, bool shifted) {
  const unsigned i = blockIdx.x * 64 + threadIdx.x;
  if (i + 1 < kN) x[i] = x[shifted ? i + 1 : i] * 2;
}

void through_barrier(const float* x, float* y, bool barrier) {  // threads of one block may pass values in global memory
  if (threadIdx.x == 3) *y = x[3];
  if (barrier) __syncthreads();
  if (threadIdx.x == 77) *y = *y + 1;
}

void wide(const float* x, float* y, int offset) {
  if (threadIdx.x == 0) *reinterpret_cast<Four*>(y) = *reinterpret_cast<const Four*>(x + offset);
}

void reads_ahead(const float* x, float* y, bool ahead) {
  float before = 0;
  if (ahead) before = x[threadIdx.x];
  cuda::wait_for_kernel_before();
  if (threadIdx.x == 0) *y = before + x[1];
}

enum class Omitted { kNothing, kBarrier, kFenceBefore, kFenceAfter, kFenceInTime, kTicket };

// Every block leaves 64 numbers, and the last one to come adds up what all have left. A step of handing over is omitted.
void last_adds(const float* x, float* parts, float* y, float* ticket, Omitted step) {
  TESSERA_SHARED(last, bool[1]);
  const unsigned t = threadIdx.x;
  parts[blockIdx.x * 64 + t] = x[t];
  if (step != Omitted::kBarrier) __syncthreads();
  if (t == 0) {
    if (step != Omitted::kFenceBefore) __threadfence();
    last[0] = step == Omitted::kTicket ? blockIdx.x == 3
                                       : atomicInc(reinterpret_cast<unsigned*>(ticket), gridDim.x - 1) == gridDim.x - 1;
    if (step != Omitted::kFenceAfter && step != Omitted::kFenceInTime) __threadfence();
  }
  __syncthreads();
  if (step == Omitted::kFenceInTime && t == 0) __threadfence();
  if (!last[0]) return;
  float sum = 0;
  for (unsigned b = 0; b < gridDim.x; ++b) sum += parts[b * 64 + t];
  y[t] = sum;
}

// A block leaves a row of x.
constexpr int kColumns = 61;
void leave_row(const float* x, cuda::Chunks<float> chunks) {
  const int col = int(threadIdx.x), row = int(blockIdx.x);
  if (col < kColumns) chunks.row(row)[col] = x[row * kColumns + col];
}
struct StoreSum {
  float* y;
  void operator()(int col, float sum) const { y[col] = sum; }
};

struct DeviceArray {
  float* p = nullptr;
  explicit DeviceArray(int count, float first = 0) {
    REQUIRE(cudaMalloc(reinterpret_cast<void**>(&p), size_t(count) * sizeof(float)) == cudaSuccess);
    std::vector<float> values(static_cast<size_t>(count));
    std::iota(values.begin(), values.end(), first);
    cuda::upload(p, values.data(), values.size() * sizeof(float));
  }
  ~DeviceArray() { cudaFree(p); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;
};

// The first report of a launch, or "nothing".
template <class... P, class... A>
std::string report_of(const cuda::Grid& grid, void (*kernel)(P...), A... arguments) {
  try {
    cuda::launch("kernel", grid, kernel, arguments...);
  } catch (const Error&) {
  }
  const auto reports = emulated::take_reports();
  return reports.empty() ? "nothing" : reports[0];
}

template <class... P, class... A>
std::string report_of(int blocks, void (*kernel)(P...), A... arguments) {
  return report_of(cuda::Grid{dim3(unsigned(blocks)), dim3(blocks == 1 ? kN : 64)}, kernel, arguments...);
}

#define CHECK_SAYS(text, part)                                                                 \
  do {                                                                                         \
    const std::string said = text;                                                             \
    CHECK_MESSAGE(said.find(part) != std::string::npos, "expected '", part, "', got: ", said); \
  } while (false)

TEST_CASE("kernels without a mistake pass every check") {
  const DeviceArray x(kN, 1), y(1);
  CHECK(report_of(1, tree_sum, x.p, y.p, 0) == "nothing");
  CHECK(report_of(1, neighbours, x.p, y.p, true) == "nothing");
  CHECK(report_of(1, two_passes, x.p, y.p, true) == "nothing");
  CHECK(report_of(1, of_groups, x.p, y.p, Slip::kNone) == "nothing");
  CHECK(report_of(1, counted, x.p, y.p, true) == "nothing");
  CHECK(report_of(4, blocks_add, x.p, y.p, true) == "nothing");
  CHECK(report_of(4, in_place, x.p, false) == "nothing");
  CHECK(report_of(1, through_barrier, x.p, y.p, true) == "nothing");
  CHECK(report_of(1, wide, x.p, x.p + 8, 4) == "nothing");
  for (int order = 0; order < 2; ++order) {  // copies run at once and when they are waited for, in turns
    CHECK(report_of(1, copies, x.p, y.p, Mistake::kNone) == "nothing");
    CHECK(report_of(1, products, x.p, y.p, Mistake::kNone) == "nothing");
  }
  CHECK(report_of(cuda::early({dim3(1), dim3(kN)}), reads_ahead, x.p, y.p, false) == "nothing");
  const DeviceArray numbers(64, 1), parts(7 * 64), sums(64), ticket(1);
  for (int launch = 0; launch < 3; ++launch) {  // in another order of blocks each; the ticket is 0 again
    CHECK(report_of(7, last_adds, numbers.p, parts.p, sums.p, ticket.p, Omitted::kNothing) == "nothing");
    for (int t = 0; t < 64; ++t) CHECK(cuda::fetch(sums.p + t) == 7.0f * float(t + 1));
  }
}

TEST_CASE("chunks that blocks leave are joined, by small blocks or by large ones") {
  for (const int rows : {1, 3, 64, 257, 700}) {
    CAPTURE(rows);
    const DeviceArray x(rows * kColumns), y(kColumns, -1);
    const cuda::ChunkRoom<float> room(rows, kColumns);
    for (int launch = 0; launch < 2; ++launch) {
      CHECK(report_of(cuda::Grid{dim3(unsigned(rows)), dim3(64)}, leave_row, x.p, room.get()) == "nothing");
      cuda::join_chunks<cuda::JoinedSum>("join", room, StoreSum{y.p});
      CHECK(emulated::take_reports().empty());
      for (int c = 0; c < kColumns; ++c) CHECK(cuda::fetch(y.p + c) == float(rows * (rows - 1) / 2 * kColumns + rows * c));
    }
  }
}

TEST_CASE("what is handed from block to block without a step of it is named") {
  emulated::print_reports(false);
  const DeviceArray x(kN, 1), parts(7 * 64), sums(64);
  using enum Omitted;
  for (const Omitted step : {kBarrier, kFenceBefore, kFenceAfter, kFenceInTime, kTicket}) {
    CAPTURE(int(step));
    for (int launch = 0; launch < 3; ++launch) {
      const DeviceArray ticket(1);
      CHECK_SAYS(report_of(7, last_adds, x.p, parts.p, sums.p, ticket.p, step), "race on a device buffer of 1792 bytes, byte ");
    }
  }
  emulated::print_reports(true);
}

// By one order of threads: no luck is needed.
TEST_CASE("missing barriers and atomics are named") {
  emulated::print_reports(false);
  const DeviceArray x(kN, 1), y(1);
  CHECK_SAYS(report_of(1, tree_sum, x.p, y.p, 1), " shared 'tree', byte ");  // a race, or read before it was written
  CHECK_SAYS(report_of(1, tree_sum, x.p, y.p, 2), "race on shared 'tree', byte ");
  CHECK_SAYS(report_of(1, neighbours, x.p, y.p, false), "race on shared 'row', byte ");
  CHECK_SAYS(report_of(1, two_passes, x.p, y.p, false), "race on shared 'sum', byte 0");
  CHECK_SAYS(report_of(1, of_groups, x.p, y.p, Slip::kNoBarrier), " shared 'row', byte ");
  CHECK_SAYS(report_of(1, of_groups, x.p, y.p, Slip::kOfOthers), " shared 'row', byte ");
  CHECK_SAYS(report_of(1, counted, x.p, y.p, false), "race on shared 'count', byte 0");
  CHECK_SAYS(report_of(1, one_word, x.p, y.p), "race on a device buffer of 4 bytes, byte 0: this write");
  CHECK_SAYS(report_of(4, blocks_add, x.p, y.p, false), "race on a device buffer of 4 bytes, byte 0: this");
  CHECK_SAYS(report_of(4, in_place, x.p, true), "race on a device buffer of 1024 bytes");
  CHECK_SAYS(report_of(1, through_barrier, x.p, y.p, false), "race on a device buffer of 4 bytes");
  CHECK_SAYS(report_of(1, two_passes, x.p, y.p, false), "checked_test.cpp:");  // where: needs addr2line
  emulated::print_reports(true);
}

TEST_CASE("what goes on by itself and was not waited for is named") {
  emulated::print_reports(false);
  const DeviceArray x(kN, 1), y(1);
  for (int order = 0; order < 2; ++order) {
    CHECK_SAYS(report_of(1, copies, x.p, y.p, Mistake::kNoWait), "read of shared 'row', byte ");
    CHECK_SAYS(report_of(1, copies, x.p, y.p, Mistake::kNoClose), "while a copy into it goes on");
    CHECK_SAYS(report_of(1, copies, x.p, y.p, Mistake::kNoBarrier), "shared 'row', byte ");
    CHECK_SAYS(report_of(1, products, x.p, y.p, Mistake::kNoWait), "without having waited for its products");
    CHECK_SAYS(report_of(1, products, x.p, y.p, Mistake::kNoClose), "without having waited for its products");
    CHECK_SAYS(report_of(1, products, x.p, y.p, Mistake::kNoBarrier), " shared '");
    CHECK_SAYS(report_of(1, products, x.p, y.p, Mistake::kNoOpen), "without open_products()");
    CHECK_SAYS(report_of(1, products, x.p, y.p, Mistake::kNoPublish), "and not published");
    CHECK_SAYS(report_of(1, products, x.p, y.p, Mistake::kSumsWritten), "sums were written while a product");
  }
  const cuda::Grid early = cuda::early({dim3(1), dim3(kN)});
  CHECK_SAYS(report_of(early, reads_ahead, x.p, y.p, true), "read of device memory by a thread that has not waited");
  CHECK_SAYS(report_of(early, past_buffer, x.p, y.p), "of device memory by a thread that has not waited");
  emulated::print_reports(true);
}

TEST_CASE("accesses out of bounds are named") {
  emulated::print_reports(false);
  const DeviceArray x(kN, 1), y(1);
  float on_host = 0;
  CHECK_SAYS(report_of(1, partly_written, x.p, y.p), "read of shared 'half', byte 512, which nobody has written in this block");
  CHECK_SAYS(report_of(1, past_shared, x.p, y.p), "write outside shared memory: 4 bytes at byte 1020 of 'small' (1020 bytes)");
  CHECK_SAYS(report_of(1, past_buffer, x.p, y.p), "read outside device memory: 4 bytes at byte 1024 of a buffer of 1024");
  CHECK_SAYS(report_of(1, before_buffer, x.p, y.p), "write outside device memory: 4 bytes at byte ");
  CHECK_SAYS(report_of(1, wide, x.p, x.p + 8, 1), "misaligned read of 16 bytes");
  float* volatile from_host = &on_host;
  CHECK_SAYS(report_of(1, past_buffer, static_cast<float*>(from_host), y.p), "read of host memory by a kernel");
  void* freed = nullptr;
  REQUIRE(cudaMalloc(&freed, 64) == cudaSuccess);
  cudaFree(freed);
  CHECK_SAYS(report_of(1, past_buffer, static_cast<float*>(freed), y.p), "outside");
  CHECK(report_of(1, tree_sum, x.p, y.p, 0) == "nothing");  // the machine still works
  emulated::print_reports(true);
}

void run_checked(const std::vector<OpCase>& cases) {
  REQUIRE(!cases.empty());
  run_cases(cases, Device::Kind::kCuda);
  const auto reports = emulated::take_reports();
  CHECK_MESSAGE(reports.empty(), reports.size(), " reports of the emulated GPU, seed ", emulated::seed(),
                ", the first: ", reports.empty() ? "" : reports[0]);
}

TEST_CASE("the kernels, on a short list") { run_checked(small_op_cases()); }
TEST_CASE("warpgroup kernels") {
  std::vector<OpCase> cases, wide;
  for (const OpCase& c : conv_cases()) {
    const auto is = [&](const char* channels) { return c.detail.find(channels) != c.detail.npos; };
    const bool with_stats = c.method == "conv2d_with_stats" && is("averages");
    if ((c.method == "conv2d" || with_stats) && (is("24->40") || is("16->72"))) cases.push_back(c);
    // Out of patches, and gradients.
    if ((c.method == "conv2d" || c.method == "conv2d_backward_data" || with_stats) && (is("17x16 16->32") || is("3x2x2 32->40"))) {
      cases.push_back(c);
    }
    if (c.method.starts_with("conv2d") && !c.method.ends_with("stats") && (is("35x21 16->32") || is("17x18 48->24"))) {
      cases.push_back(c);
    }
    if (with_stats && is("13x10 3->16")) cases.push_back(c);
    if ((c.method == "conv2d" || c.method == "conv2d_backward_data" || with_stats) && is("3x5x7 144->24")) cases.push_back(c);
    if ((c.method == "conv2d" || c.method == "conv2d_backward_data" || with_stats) && is("80->96")) wide.push_back(c);
    if (with_stats && is("128->120")) wide.push_back(c);
    if (c.method == "conv2d_backward_weight" && is("17x16 16->32")) wide.push_back(c);  // a block has several patches
    if ((c.method == "conv2d" || c.method == "conv2d_backward_data" || with_stats) && is("20x33 32->40"))
      wide.push_back(c);  // 1 x 1
    if (c.method == "conv2d_backward_weight" && (is("20x33 32->40") || is("9x10 16->72"))) wide.push_back(c);
  }
  cuda::set_conv_kernels(cuda::ConvKernels::kWgmma);
  run_checked(cases);
  const int64_t enough = cuda::enough_blocks();
  cuda::set_enough_blocks(0);
  run_checked(wide);
  cuda::set_enough_blocks(enough);
  cuda::set_conv_kernels(cuda::ConvKernels::kTiled);
}
TEST_CASE("the kernels, on every case" * doctest::skip()) { run_checked(all_op_cases()); }  // minutes; mutations.py asks for it

// For mutations.py: the cases that TESSERA_TEST_CASES names, "method" or "method:part of the detail" with commas between, small ones
// first, so that most mistakes are found soon; on the convolution kernels of TESSERA_TEST_CONV, in TESSERA_TEST_TYPE alone where it
// is set, with TESSERA_TEST_BLOCKS being enough.
TEST_CASE("the kernels, on chosen cases" * doctest::skip()) {
  const auto value_of = [](const char* name) {
    const char* const value = std::getenv(name);
    return std::string(value != nullptr ? value : "");
  };
  std::vector<OpCase> cases;
  const std::vector<OpCase> all = all_op_cases();
  std::stringstream wanted(value_of("TESSERA_TEST_CASES"));
  for (std::string one; std::getline(wanted, one, ',');) {
    const size_t colon = std::min(one.find(':'), one.size());
    const size_t before = cases.size();
    for (const OpCase& c : all) {
      if (c.method == one.substr(0, colon) && c.detail.find(one.substr(std::min(colon + 1, one.size()))) != c.detail.npos) {
        cases.push_back(c);
      }
    }
    REQUIRE_MESSAGE(cases.size() > before, "no case is called ", one);
  }
  const auto elements = [](const OpCase& c) {
    return std::accumulate(c.slots.begin(), c.slots.end(), int64_t{0}, [](int64_t n, const Slot& s) { return n + numel(s.shape); });
  };
  std::stable_sort(cases.begin(), cases.end(), [&](const OpCase& a, const OpCase& b) { return elements(a) < elements(b); });
  const std::string type = value_of("TESSERA_TEST_TYPE");
  for (OpCase& c : cases) std::erase_if(c.types, [&](DType t) { return !type.empty() && name_of(t) != type; });
  using enum cuda::ConvKernels;
  const std::string conv = value_of("TESSERA_TEST_CONV");
  cuda::set_conv_kernels(conv == "wgmma" ? kWgmma : conv == "naive" ? kNaive : kTiled);
  const int64_t enough = cuda::enough_blocks();
  const std::string blocks = value_of("TESSERA_TEST_BLOCKS");
  if (!blocks.empty()) cuda::set_enough_blocks(std::stoll(blocks));
  run_checked(cases);
  cuda::set_enough_blocks(enough);
  cuda::set_conv_kernels(kTiled);
}

}  // namespace
}  // namespace tessera::testing
