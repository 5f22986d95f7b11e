// Stands in for the toolkit's header of this name, so that a plain C++ compiler reads the sources of cuda/ and the emulator runs
// them: keywords, built-in variables, warp and block operations, atomics, intrinsics, and the calls of the runtime that cuda/ uses.
// What is missing here is missing on purpose: a kernel may use only what the emulation can check.
//
// __shared__ is not among the keywords: TESSERA_SHARED gives every variable of a block a red zone and poison
// (cuda/device/platform.cuh).
#pragma once

#define TESSERA_EMULATED_CUDA 1

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <numbers>
#include <source_location>
#include <tuple>
#include <type_traits>

#include "tensor/dtype.h"

#define __host__
#define __device__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(n) alignas(n)

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

// The machine sets these whenever it changes over to another thread or block.
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;

// ---- the machine (grid.cpp)
// ------------------------------------------------------------------------------------------------------

namespace tessera::emulated {

using Place = std::source_location;

// Runs when the last lane of `mask` arrives, for all of them: lanes[i] is what lane i brought.
using WarpAction = void (*)(void* const* lanes, unsigned mask);

extern unsigned lane_of_warp;  // of the thread that runs now

int block_barrier(int predicate, const Place& where);  // how many threads came with a true predicate
void group_barrier(const Place& where);                // of the 128 threads of a warpgroup
void warp_meet(unsigned mask, void* mine, WarpAction action, const Place& where);
void report(const char* format, ...) __attribute__((format(printf, 1, 2)));
void touch_atomic(const void* p, size_t bytes, const void* from);  // tells the access checker (access.h)
[[noreturn]] void fail(const char* what, const Place& where);  // reports and ends the launch

// A shared variable of the running block. `slot` is the variable's own memory of where it lies in this launch.
struct SharedSlot {
  unsigned launch = 0;
  void* p = nullptr;
};
void* shared_variable(SharedSlot& slot, size_t bytes, size_t alignment, const char* name);
void* dynamic_shared();

void wait_for_kernel_before();
void memory_fence();  // of the running thread

// Copies of the running thread that go on by themselves (copy_ahead() of cuda/device/platform.cuh): 16 bytes, or zeros from null.
void copy_ahead(void* to, const void* from);
void close_copies();
void wait_for_copies(int left);

// Products of the running thread that go on by themselves. `read` tells the access checker what the thread's share of it reads.
struct Product {
  float* d;
  unsigned numbers;  // of d
  const uint16_t *a, *b;
  void (*read)(const uint16_t* a, const uint16_t* b);
  void (*multiply)(float* d, const uint16_t* a, const uint16_t* b);
};
void open_products();
void begin_product(const Product& product, const Place& where);
void close_products();
void wait_for_products();
void publish_to_products();
void touch_for_product(const void* p, size_t bytes);

template <class T>
struct Exchange {
  T in, out;
  unsigned source;
};
template <class T>
T shuffle(unsigned mask, T value, unsigned source, const Place& where) {
  Exchange<T> mine{value, value, source};
  warp_meet(
      mask, &mine,
      [](void* const* lanes, unsigned members) {
        for (unsigned i = 0; i < 32; ++i) {
          if (!(members >> i & 1)) continue;
          auto& lane = *static_cast<Exchange<T>*>(lanes[i]);
          if (members >> lane.source & 1) {
            lane.out = static_cast<Exchange<T>*>(lanes[lane.source])->in;
          } else {
            report("a shuffle reads lane %u, which is not in its mask %08x", lane.source, members);
          }
        }
      },
      where);
  return mine.out;
}

template <class T>
using Same = T;

}  // namespace tessera::emulated

// ---- second definition of cuda/device/platform.cuh
// -------------------------------------------------------------------------------

#define TESSERA_SHARED(name, ...)                                                                                \
  static ::tessera::emulated::SharedSlot tessera_slot_##name;                                                    \
  auto& name = *static_cast<::tessera::emulated::Same<__VA_ARGS__>*>(                                            \
      ::tessera::emulated::shared_variable(tessera_slot_##name, sizeof(::tessera::emulated::Same<__VA_ARGS__>),  \
                                           alignof(::tessera::emulated::Same<__VA_ARGS__>), #name))
#define TESSERA_DYNAMIC_SHARED(T, name) T* const name = static_cast<T*>(::tessera::emulated::dynamic_shared())
#define TESSERA_DEVICE_ASSERT(condition) \
  ((condition) ? void() : ::tessera::emulated::fail("assertion " #condition, std::source_location::current()))

namespace tessera::cuda {
inline uint16_t bf16_bits(float value) { return BFloat16(value).bits; }
inline uint16_t f16_bits(float value) { return Half(value).bits; }
inline uint32_t bf16_bits(float first, float second) { return bf16_bits(first) | uint32_t(bf16_bits(second)) << 16; }
inline uint32_t f16_bits(float first, float second) { return f16_bits(first) | uint32_t(f16_bits(second)) << 16; }
inline float f16_value(uint16_t bits) {
  Half h;
  h.bits = bits;
  return float(h);
}
inline void wait_for_kernel_before() { emulated::wait_for_kernel_before(); }
inline void sin_cos_pi(double x, double& sine, double& cosine) {
  sine = std::sin(std::numbers::pi * x);
  cosine = std::cos(std::numbers::pi * x);
}

template <bool kTransposed>
void load_matrices(unsigned (&m)[4], const uint16_t* row, const std::source_location& where = std::source_location::current()) {
  struct Lane {
    const uint16_t* row;
    unsigned* out;
  } mine{row, m};
  if (reinterpret_cast<uintptr_t>(row) % 16 != 0) emulated::fail("a row of load_matrices() that is not aligned", where);
  emulated::warp_meet(
      ~0u, &mine,
      [](void* const* lanes, unsigned) {
        for (unsigned l = 0; l < 32; ++l) {
          for (unsigned i = 0; i < 4; ++i) {
            auto number = [&](unsigned r, unsigned c) {
              if (kTransposed) std::swap(r, c);
              return unsigned(static_cast<Lane*>(lanes[8 * i + r])->row[c]);
            };
            static_cast<Lane*>(lanes[l])->out[i] = number(l / 4, l % 4 * 2) | number(l / 4, l % 4 * 2 + 1) << 16;
          }
        }
      },
      where);
}

// Sums in the order of k; the hardware's order is its own.
template <class T>
void multiply_add(float (&d)[2][2], const unsigned (&a)[4], unsigned b0, unsigned b1,
                  const std::source_location& where = std::source_location::current()) {
  struct Lane {
    float (*d)[2];
    const unsigned* a;
    unsigned b[2];
  } mine{d, a, {b0, b1}};
  emulated::warp_meet(
      ~0u, &mine,
      [](void* const* lanes, unsigned) {
        auto value = [](unsigned two, unsigned which) {
          T number;
          number.bits = uint16_t(two >> 16 * which);
          return float(number);
        };
        float left[16][16], right[16][8];
        for (unsigned l = 0; l < 32; ++l) {
          const auto& lane = *static_cast<Lane*>(lanes[l]);
          for (unsigned i = 0; i < 2; ++i) {
            for (unsigned m = 0; m < 4; ++m) left[l / 4 + m % 2 * 8][l % 4 * 2 + i + m / 2 * 8] = value(lane.a[m], i);
            for (unsigned m = 0; m < 2; ++m) right[l % 4 * 2 + i + m * 8][l / 4] = value(lane.b[m], i);
          }
        }
        for (unsigned l = 0; l < 32; ++l) {
          for (unsigned h = 0; h < 2; ++h) {
            for (unsigned i = 0; i < 2; ++i) {
              float& sum = static_cast<Lane*>(lanes[l])->d[h][i];
              for (unsigned k = 0; k < 16; ++k) sum += left[l / 4 + 8 * h][k] * right[k][l % 4 * 2 + i];
            }
          }
        }
      },
      where);
}

// Copies that go on by themselves run at once or when they are waited for, in turns from launch to launch: what must not be
// overwritten yet shows in the one, what has not arrived yet in the other.
inline void copy_ahead(void* to, const void* from, bool there,
                       const std::source_location& where = std::source_location::current()) {
  if (reinterpret_cast<uintptr_t>(to) % 16 != 0) emulated::fail("a copy to shared memory that is not aligned", where);
  if (there && reinterpret_cast<uintptr_t>(from) % 16 != 0) emulated::fail("a copy from memory that is not aligned", where);
  emulated::copy_ahead(to, there ? from : nullptr);
}
inline void close_copies() { emulated::close_copies(); }
template <int kLeft>
void wait_for_copies() {
  emulated::wait_for_copies(kLeft);
}

// Of warpgroups: a thread forms its own numbers, when they are waited for. That is as late as it may be: panels that were overwritten
// too soon, sums that were read or written meanwhile and products that nobody waited for show.
template <bool kAlongK, int kStep>
uintptr_t place_in_panel(const uint16_t* first, unsigned at, unsigned k) {
  const unsigned line = kAlongK ? at / 8 * kStep + at % 8 : k / 8 * kStep + k % 8;
  const uintptr_t p = reinterpret_cast<uintptr_t>(first) + line * 128 + (kAlongK ? k * 2 : at / 64 * 8192 + at % 64 * 2);
  return p ^ (p >> 7 & 7) << 4;
}
struct ProductOperand {
  const uint16_t* first;
  ProductOperand(const uint16_t* first_) : first(first_) {}
  ProductOperand at(int lines, int numbers = 0) const { return first + lines * 64 + numbers; }
};
template <class T, bool kLeftAlongK, bool kRightAlongK, int kLeftStep = 8, int kRightStep = 8, int kN>
void begin_multiply_add(float (&d)[kN][2][2], const ProductOperand& a, const ProductOperand& b,
                        const std::source_location& where = std::source_location::current()) {
  // A warp reads its rows of `a` and all of `b`, in pieces of 16 bytes that the lanes share.
  auto read = [](const uint16_t* left, const uint16_t* right) {
    const unsigned l = threadIdx.x % 32, warp = threadIdx.x % 128 / 32;
    auto touch = [](uintptr_t p) { emulated::touch_for_product(reinterpret_cast<const void*>(p), 16); };
    touch(kLeftAlongK ? place_in_panel<true, kLeftStep>(left, 16 * warp + l / 2, l % 2 * 8)
                      : place_in_panel<false, kLeftStep>(left, 16 * warp + l % 2 * 8, l / 2));
    for (unsigned i = l; i < 16 * kN; i += 32) {
      touch(kRightAlongK ? place_in_panel<true, kRightStep>(right, i / 2, i % 2 * 8)
                         : place_in_panel<false, kRightStep>(right, i % kN * 8, i / kN));
    }
  };
  auto multiply = [](float* sums, const uint16_t* left, const uint16_t* right) {
    const unsigned l = threadIdx.x % 32, warp = threadIdx.x % 128 / 32;
    auto value = [](uintptr_t p) {
      T number;
      number.bits = *reinterpret_cast<const uint16_t*>(p);
      return float(number);
    };
    for (unsigned k = 0; k < 16; ++k) {
      const float of_left[2] = {value(place_in_panel<kLeftAlongK, kLeftStep>(left, 16 * warp + l / 4, k)),
                                value(place_in_panel<kLeftAlongK, kLeftStep>(left, 16 * warp + l / 4 + 8, k))};
      for (unsigned j = 0; j < kN; ++j) {
        for (unsigned i = 0; i < 2; ++i) {
          const float of_right = value(place_in_panel<kRightAlongK, kRightStep>(right, 8 * j + l % 4 * 2 + i, k));
          for (unsigned h = 0; h < 2; ++h) sums[j * 4 + h * 2 + i] += of_left[h] * of_right;
        }
      }
    }
  };
  emulated::begin_product({&d[0][0][0], kN * 4, a.first, b.first, read, multiply}, where);
}
inline void open_products() { emulated::open_products(); }
inline void close_products() { emulated::close_products(); }
template <int kN>
void wait_for_products(float (&)[kN][2][2]) {
  emulated::wait_for_products();
}
template <int kN>
void write_sums(float (&)[kN][2][2]) {}
inline void publish_to_products() { emulated::publish_to_products(); }
inline void sync_warpgroup(const std::source_location& where = std::source_location::current()) { emulated::group_barrier(where); }
}  // namespace tessera::cuda

// ---- block and warp operations
// ---------------------------------------------------------------------------------------------------

inline void __syncthreads(const std::source_location& where = std::source_location::current()) {
  tessera::emulated::block_barrier(0, where);
}
inline int __syncthreads_count(int predicate, const std::source_location& where = std::source_location::current()) {
  return tessera::emulated::block_barrier(predicate != 0, where);
}
inline int __syncthreads_or(int predicate, const std::source_location& where = std::source_location::current()) {
  return tessera::emulated::block_barrier(predicate != 0, where) != 0;
}
inline void __syncwarp(unsigned mask = ~0u, const std::source_location& where = std::source_location::current()) {
  tessera::emulated::warp_meet(mask, nullptr, nullptr, where);
}
template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32,
              const std::source_location& where = std::source_location::current()) {
  const unsigned lane = tessera::emulated::lane_of_warp;
  return tessera::emulated::shuffle(mask, value, (lane & ~unsigned(width - 1)) | (unsigned(source) & unsigned(width - 1)), where);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int with, int width = 32,
                  const std::source_location& where = std::source_location::current()) {
  const unsigned lane = tessera::emulated::lane_of_warp;
  const unsigned source = lane ^ unsigned(with);
  return tessera::emulated::shuffle(mask, value, source > (lane | unsigned(width - 1)) ? lane : source, where);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32,
                   const std::source_location& where = std::source_location::current()) {
  const unsigned lane = tessera::emulated::lane_of_warp;
  const unsigned source = lane + by;
  return tessera::emulated::shuffle(mask, value, source > (lane | unsigned(width - 1)) ? lane : source, where);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32,
                 const std::source_location& where = std::source_location::current()) {
  const unsigned lane = tessera::emulated::lane_of_warp;
  const bool inside = lane >= (lane & ~unsigned(width - 1)) + by;
  return tessera::emulated::shuffle(mask, value, inside ? lane - by : lane, where);
}
inline unsigned __ballot_sync(unsigned mask, int predicate, const std::source_location& where = std::source_location::current()) {
  struct Vote {
    bool in;
    unsigned out;
  } mine{predicate != 0, 0};
  tessera::emulated::warp_meet(
      mask, &mine,
      [](void* const* lanes, unsigned members) {
        unsigned result = 0;
        for (unsigned i = 0; i < 32; ++i) {
          if (members >> i & 1 && static_cast<Vote*>(lanes[i])->in) result |= 1u << i;
        }
        for (unsigned i = 0; i < 32; ++i) {
          if (members >> i & 1) static_cast<Vote*>(lanes[i])->out = result;
        }
      },
      where);
  return mine.out;
}
inline int __any_sync(unsigned mask, int predicate, const std::source_location& where = std::source_location::current()) {
  return __ballot_sync(mask, predicate, where) != 0;
}
inline int __all_sync(unsigned mask, int predicate, const std::source_location& where = std::source_location::current()) {
  return __ballot_sync(mask, predicate, where) == mask;
}
inline void __threadfence() { tessera::emulated::memory_fence(); }
inline void __threadfence_block() {}

// ---- atomics: fibers never run at the same time, so plain code is atomic
// ---------------------------------------------------------

// Their own accesses are not instrumented: touch_atomic() stands for them.
#define TESSERA_ATOMIC __attribute__((no_sanitize("thread"), noinline))
template <class T>
TESSERA_ATOMIC T atomicAdd(T* p, std::type_identity_t<T> value) {
  tessera::emulated::touch_atomic(p, sizeof(T), __builtin_return_address(0));
  const T old = *p;
  *p = T(old + value);
  return old;
}
template <class T>
TESSERA_ATOMIC T atomicMax(T* p, std::type_identity_t<T> value) {
  tessera::emulated::touch_atomic(p, sizeof(T), __builtin_return_address(0));
  const T old = *p;
  *p = old < value ? value : old;
  return old;
}
template <class T>
TESSERA_ATOMIC T atomicMin(T* p, std::type_identity_t<T> value) {
  tessera::emulated::touch_atomic(p, sizeof(T), __builtin_return_address(0));
  const T old = *p;
  *p = value < old ? value : old;
  return old;
}
template <class T>
TESSERA_ATOMIC T atomicOr(T* p, std::type_identity_t<T> value) {
  tessera::emulated::touch_atomic(p, sizeof(T), __builtin_return_address(0));
  const T old = *p;
  *p = T(old | value);
  return old;
}
TESSERA_ATOMIC inline unsigned atomicInc(unsigned* p, unsigned most) {  // and 0 after `most`
  tessera::emulated::touch_atomic(p, sizeof(unsigned), __builtin_return_address(0));
  const unsigned old = *p;
  *p = old >= most ? 0 : old + 1;
  return old;
}
template <class T>
TESSERA_ATOMIC T atomicExch(T* p, std::type_identity_t<T> value) {
  tessera::emulated::touch_atomic(p, sizeof(T), __builtin_return_address(0));
  const T old = *p;
  *p = value;
  return old;
}
template <class T>
TESSERA_ATOMIC T atomicCAS(T* p, std::type_identity_t<T> expected, std::type_identity_t<T> value) {
  tessera::emulated::touch_atomic(p, sizeof(T), __builtin_return_address(0));
  const T old = *p;
  if (old == expected) *p = value;
  return old;
}

// ---- intrinsics
// ------------------------------------------------------------------------------------------------------------------

template <class T>
T __ldg(const T* p) {
  return *p;
}
template <class T>
T __ldcg(const T* p) {
  return *p;
}
inline float __expf(float x) { return std::exp(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
inline float __int_as_float(int x) { return std::bit_cast<float>(x); }
inline int __popc(unsigned x) { return std::popcount(x); }
inline int __popcll(unsigned long long x) { return std::popcount(x); }
inline int __clz(int x) { return std::countl_zero(unsigned(x)); }
inline int __ffs(int x) { return x == 0 ? 0 : std::countr_zero(unsigned(x)) + 1; }
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned(uint64_t{a} * b >> 32); }
using std::max;
using std::min;

// ---- runtime (runtime.cpp, memory.cpp, streams.cpp)
// -------------------------------------------------------------------------------------------------------

#define CUDART_VERSION 13000

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorInsufficientDriver = 35,
  cudaErrorNoDevice = 100,
  cudaErrorInvalidDevice = 101,
  cudaErrorLaunchOutOfResources = 701,
  cudaErrorIllegalAddress = 700,
  cudaErrorLaunchFailure = 719,
  cudaErrorNotReady = 600,
  cudaErrorStreamCaptureUnsupported = 900,
  cudaErrorStreamCaptureInvalidated = 901,
  cudaErrorStreamCaptureMerge = 902,
  cudaErrorStreamCaptureUnmatched = 903,
  cudaErrorStreamCaptureUnjoined = 904,
  cudaErrorStreamCaptureIsolation = 905,
  cudaErrorStreamCaptureImplicit = 906,
  cudaErrorCapturedEvent = 907,
};
using cudaStream_t = struct CUstream_st*;
using cudaGraph_t = struct CUgraph_st*;
using cudaGraphExec_t = struct CUgraphExec_st*;
enum cudaStreamCaptureStatus { cudaStreamCaptureStatusNone, cudaStreamCaptureStatusActive, cudaStreamCaptureStatusInvalidated };
enum cudaStreamCaptureMode { cudaStreamCaptureModeGlobal, cudaStreamCaptureModeThreadLocal, cudaStreamCaptureModeRelaxed };
constexpr unsigned cudaStreamNonBlocking = 1, cudaEventDisableTiming = 2;
constexpr unsigned long long cudaGraphInstantiateFlagUseNodePriority = 8;
using cudaEvent_t = struct CUevent_st*;
enum cudaMemcpyKind {
  cudaMemcpyHostToHost,
  cudaMemcpyHostToDevice,
  cudaMemcpyDeviceToHost,
  cudaMemcpyDeviceToDevice,
  cudaMemcpyDefault
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
struct cudaDeviceProp {
  char name[256];
  size_t totalGlobalMem;
  int major, minor, multiProcessorCount;
};
enum cudaLaunchAttributeID { cudaLaunchAttributeProgrammaticStreamSerialization = 6 };
struct cudaLaunchAttribute {
  cudaLaunchAttributeID id;
  struct {
    int programmaticStreamSerializationAllowed;
  } val;
};
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes;
  cudaStream_t stream;
  cudaLaunchAttribute* attrs;
  unsigned numAttrs;
};
struct cudaFuncAttributes {
  int ptxVersion;
};

const char* cudaGetErrorString(cudaError_t error);
const char* cudaGetErrorName(cudaError_t error);
cudaError_t cudaGetLastError();
cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaMemGetInfo(size_t* left, size_t* total);
cudaError_t cudaMalloc(void** p, size_t bytes);
cudaError_t cudaFree(void* p);
cudaError_t cudaMallocHost(void** p, size_t bytes);
cudaError_t cudaFreeHost(void* p);
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream);
cudaError_t cudaMemsetAsync(void* p, int value, size_t bytes, cudaStream_t stream);
cudaError_t cudaStreamCreate(cudaStream_t* stream);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags);
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int priority);
cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph);
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status);
cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long flags = 0);
cudaError_t cudaGraphUpload(cudaGraphExec_t exec, cudaStream_t stream);
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaEventCreate(cudaEvent_t* event);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventQuery(cudaEvent_t event);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags = 0);
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* of, const void* kernel);
cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value);

namespace tessera::emulated {
cudaError_t run_grid(const void* kernel, const cudaLaunchConfig_t& config, void (*body)(void*), void* argument,
                     size_t argument_bytes);
// Work for a stream: run at once, or, when the stream is captured, kept for the graph.
cudaError_t submit(cudaStream_t stream, std::function<cudaError_t()> work);
cudaError_t accept_early(cudaStream_t stream);  // a kernel that is launched early
}

template <class... P, class... A>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(P...), A&&... arguments) {
  struct Call {
    void (*kernel)(P...);
    std::tuple<P...> arguments;
  } call{kernel, std::tuple<P...>(P(arguments)...)};
  if (config->numAttrs != 0) {
    if (const cudaError_t error = tessera::emulated::accept_early(config->stream); error != cudaSuccess) return error;
  }
  return tessera::emulated::submit(config->stream, [call, config = *config]() mutable {
    config.attrs = nullptr;  // the caller's; that there were some says that it is launched early
    return tessera::emulated::run_grid(
        reinterpret_cast<const void*>(call.kernel), config,
        [](void* p) { std::apply(static_cast<Call*>(p)->kernel, static_cast<Call*>(p)->arguments); }, &call, sizeof call);
  });
}
