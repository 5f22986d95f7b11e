// What a kernel needs beyond the CUDA that a plain C++ compiler can be given: shared memory with a name, and single instructions of
// the GPU behind functions. tests/cuda_host runs the kernels on the CPU and brings a second definition of everything here.
//
//   TESSERA_SHARED(tile, float[8][33]);        shared memory of the block; `tile` is the array. No constructors.
//   TESSERA_DYNAMIC_SHARED(float, rows);       the launch's shared_bytes; `rows` is a pointer, 1024-byte aligned
//   TESSERA_DEVICE_ASSERT(condition);          checked in the emulation and in builds without NDEBUG
#pragma once

#include <cuda_runtime.h>

#ifndef TESSERA_EMULATED_CUDA

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cassert>
#include <cstdint>
#include <type_traits>

#include "tensor/dtype.h"

#define TESSERA_SHARED(name, ...) __shared__ ::tessera::cuda::Same<__VA_ARGS__> name
#define TESSERA_DYNAMIC_SHARED(T, name)                                     \
  extern __shared__ __align__(1024) unsigned char tessera_dynamic_shared[]; \
  T* const name = reinterpret_cast<T*>(tessera_dynamic_shared)
#define TESSERA_DEVICE_ASSERT(condition) assert(condition)

namespace tessera::cuda {

template <class T>
using Same = T;

#ifdef __CUDACC__  // launch.cpp reads this header too, through launch.cuh, and its compiler knows no device functions

// Conversions of the 16-bit floats in one instruction each, as bits: round to nearest even.
__device__ inline uint16_t bf16_bits(float value) { return __bfloat16_as_ushort(__float2bfloat16_rn(value)); }
__device__ inline uint16_t f16_bits(float value) { return __half_as_ushort(__float2half_rn(value)); }
// Of two at once, the first in the low half.
__device__ inline uint32_t bf16_bits(float first, float second) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(first, second);
  return uint32_t(__bfloat16_as_ushort(pair.x)) | uint32_t(__bfloat16_as_ushort(pair.y)) << 16;
}
__device__ inline uint32_t f16_bits(float first, float second) {
  const __half2 pair = __floats2half2_rn(first, second);
  return uint32_t(__half_as_ushort(__low2half(pair))) | uint32_t(__half_as_ushort(__high2half(pair))) << 16;
}
__device__ inline float f16_value(uint16_t bits) { return __half2float(__ushort_as_half(bits)); }

// sin(pi x) and cos(pi x). The pair in radians keeps a table on the stack for large arguments.
__device__ inline void sin_cos_pi(double x, double& sine, double& cosine) { sincospi(x, &sine, &cosine); }

// Copies from global to shared memory that go on while the thread does, 16 bytes each, aligned. Where nothing is `there` zeros are
// stored and nothing is read. Those since the last close_copies() are a group.
__device__ inline void copy_ahead(void* to, const void* from, bool there) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 16, %2;" ::"r"(unsigned(__cvta_generic_to_shared(to))),
               "l"(__cvta_generic_to_global(from)), "r"(there ? 16 : 0)
               : "memory");
}
__device__ inline void close_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// All groups of this thread but the last kLeft are there; for other threads they are after a barrier.
template <int kLeft>
__device__ inline void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kLeft) : "memory");
}

// The first statement of every thread of a kernel that is launched early (Grid::early): waits until the kernel before has ended and
// what it wrote is there; the kernel after this one may be brought onto the device meanwhile. That one waits in turn, for this one
// and so for all before it.
__device__ inline void wait_for_kernel_before() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;\n\tgriddepcontrol.wait;" ::: "memory");
#endif
}

// Tensor cores. All lanes of a warp call these together; a matrix is spread over their registers, two 16-bit numbers in each.
//
// Four 8 x 8 matrices from shared memory: lane 8 i + r brings the address of row r of matrix i, 16 bytes, aligned. Lane l gets of
// each matrix row l / 4, columns 2 (l % 4) and the next, the first in the low half; kTransposed: of the transposed matrix.
template <bool kTransposed>
__device__ inline void load_matrices(unsigned (&m)[4], const uint16_t* row) {
  const unsigned address = unsigned(__cvta_generic_to_shared(row));
  if constexpr (kTransposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
                 : "r"(address)
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
                 : "r"(address)
                 : "memory");
  }
}

// d += a b with a 16 x 16, b 16 x 8, both of T, and d 16 x 8 in f32. As loaded above: a is the matrices (rows 0.., k 0..),
// (rows 8.., k 0..), (rows 0.., k 8..), (rows 8.., k 8..); b0 and b1 are those of k 0.. and 8.., rows being columns of b.
// Lane l has d[h][i] at row l / 4 + 8 h, column 2 (l % 4) + i.
template <class T>
__device__ inline void multiply_add(float (&d)[2][2], const unsigned (&a)[4], unsigned b0, unsigned b1) {
  if constexpr (std::is_same_v<T, BFloat16>) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0][0]), "+f"(d[0][1]), "+f"(d[1][0]), "+f"(d[1][1])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  } else {
    static_assert(std::is_same_v<T, Half>);
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0][0]), "+f"(d[0][1]), "+f"(d[1][0]), "+f"(d[1][1])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
}

// Tensor cores of sm_90a alone (cuda/conv_wgmma.cu): the four warps of a warpgroup multiply together, straight out of shared
// memory, and go on meanwhile. An operand there is lines of 64 16-bit numbers, from a multiple of 1024 bytes on; piece p of 16 bytes
// of line r lies at place p ^ r % 8 of the line, so that the eight lines read at once are on different banks. A line is a row of A
// or a column of B, from k to k + 63 (along k); or it is one value of k for 64 rows or columns, 64 lines in the order of k, and then
// the next 64 rows or columns. kLeftStep, kRightStep: lines from eight of them to the next eight; the first may be any.
//
// d += a b begins, with a 64 x 16 and b 16 x 8 kN, both of T; both point at their first number as if the pieces lay in order. Warp
// w, lane l of the warpgroup has d[j][h][i] at row 16 w + l / 4 + 8 h, column 8 j + 2 (l % 4) + i.
//
// Where an operand lies, in units of 16 bytes, which instructions want: a step along it is one addition.
struct ProductOperand {
  uint32_t place;
  __device__ ProductOperand(const uint16_t* first) : place(uint32_t(__cvta_generic_to_shared(first)) >> 4) {}
  // Some lines on, and some numbers (a multiple of 8) along the line.
  __device__ ProductOperand at(int lines, int numbers = 0) const {
    ProductOperand moved = *this;
    moved.place += uint32_t(lines * 8 + numbers / 8);
    return moved;
  }
};
template <bool kAlongK, uint32_t kBytesOfEightLines = 1024>
__device__ inline uint64_t panel_descriptor(const ProductOperand& operand) {
  constexpr uint32_t kBytesOf64Lines = 8192, kPiecesTakeTurns = 1;
  constexpr uint32_t kNext64 = kAlongK ? 1 : kBytesOf64Lines >> 4;  // along k the next columns are the next lines
  return uint64_t(kBytesOfEightLines >> 4 | kPiecesTakeTurns << 30) << 32 | (operand.place + (kNext64 << 16));
}
#define TESSERA_FOUR(j) "+f"(d[j][0][0]), "+f"(d[j][0][1]), "+f"(d[j][1][0]), "+f"(d[j][1][1])
#define TESSERA_WGMMA_16(type) \
    asm volatile("wgmma.mma_async.sync.aligned.m64n16k16.f32." type "." type \
                 " {%0, %1, %2, %3, %4, %5, %6, %7}, %8, %9, 1, 1, 1, %10, %11;" \
                 : TESSERA_FOUR(0), TESSERA_FOUR(1) \
                 : "l"(left), "l"(right), "n"(kLeftAlongK ? 0 : 1), "n"(kRightAlongK ? 0 : 1))
#define TESSERA_WGMMA_32(type) \
    asm volatile("wgmma.mma_async.sync.aligned.m64n32k16.f32." type "." type \
                 " {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15}, %16, %17, 1, 1, 1, %18, %19;" \
                 : TESSERA_FOUR(0), TESSERA_FOUR(1), TESSERA_FOUR(2), TESSERA_FOUR(3) \
                 : "l"(left), "l"(right), "n"(kLeftAlongK ? 0 : 1), "n"(kRightAlongK ? 0 : 1))
#define TESSERA_WGMMA_64(type) \
    asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32." type "." type \
                 " {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, " \
                 "%22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, %32, %33, 1, 1, 1, %34, %35;" \
                 : TESSERA_FOUR(0), TESSERA_FOUR(1), TESSERA_FOUR(2), TESSERA_FOUR(3), TESSERA_FOUR(4), TESSERA_FOUR(5), \
                   TESSERA_FOUR(6), TESSERA_FOUR(7) \
                 : "l"(left), "l"(right), "n"(kLeftAlongK ? 0 : 1), "n"(kRightAlongK ? 0 : 1))
#define TESSERA_WGMMA_80(type) \
    asm volatile("wgmma.mma_async.sync.aligned.m64n80k16.f32." type "." type \
                 " {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, " \
                 "%22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39}, %40, %41, 1, 1, 1, %42, %43;" \
                 : TESSERA_FOUR(0), TESSERA_FOUR(1), TESSERA_FOUR(2), TESSERA_FOUR(3), TESSERA_FOUR(4), TESSERA_FOUR(5), \
                   TESSERA_FOUR(6), TESSERA_FOUR(7), TESSERA_FOUR(8), TESSERA_FOUR(9) \
                 : "l"(left), "l"(right), "n"(kLeftAlongK ? 0 : 1), "n"(kRightAlongK ? 0 : 1))
#define TESSERA_WGMMA_96(type) \
    asm volatile("wgmma.mma_async.sync.aligned.m64n96k16.f32." type "." type \
                 " {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, " \
                 "%22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, " \
                 "%42, %43, %44, %45, %46, %47}, %48, %49, 1, 1, 1, %50, %51;" \
                 : TESSERA_FOUR(0), TESSERA_FOUR(1), TESSERA_FOUR(2), TESSERA_FOUR(3), TESSERA_FOUR(4), TESSERA_FOUR(5), \
                   TESSERA_FOUR(6), TESSERA_FOUR(7), TESSERA_FOUR(8), TESSERA_FOUR(9), TESSERA_FOUR(10), TESSERA_FOUR(11) \
                 : "l"(left), "l"(right), "n"(kLeftAlongK ? 0 : 1), "n"(kRightAlongK ? 0 : 1))
#define TESSERA_WGMMA_128(type) \
    asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32." type "." type \
                 " {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, " \
                 "%22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, " \
                 "%42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, " \
                 "%62, %63}, %64, %65, 1, 1, 1, %66, %67;" \
                 : TESSERA_FOUR(0), TESSERA_FOUR(1), TESSERA_FOUR(2), TESSERA_FOUR(3), TESSERA_FOUR(4), TESSERA_FOUR(5), \
                   TESSERA_FOUR(6), TESSERA_FOUR(7), TESSERA_FOUR(8), TESSERA_FOUR(9), TESSERA_FOUR(10), TESSERA_FOUR(11), \
                   TESSERA_FOUR(12), TESSERA_FOUR(13), TESSERA_FOUR(14), TESSERA_FOUR(15) \
                 : "l"(left), "l"(right), "n"(kLeftAlongK ? 0 : 1), "n"(kRightAlongK ? 0 : 1))
#define TESSERA_WGMMA(columns)              \
  if constexpr (std::is_same_v<T, BFloat16>) { \
    TESSERA_WGMMA_##columns("bf16");        \
  } else {                                  \
    static_assert(std::is_same_v<T, Half>); \
    TESSERA_WGMMA_##columns("f16");         \
  }
template <class T, bool kLeftAlongK, bool kRightAlongK, int kLeftStep = 8, int kRightStep = 8, int kN>
__device__ inline void begin_multiply_add(float (&d)[kN][2][2], const ProductOperand& a, const ProductOperand& b) {
  const uint64_t left = panel_descriptor<kLeftAlongK, kLeftStep * 128>(a);
  const uint64_t right = panel_descriptor<kRightAlongK, kRightStep * 128>(b);
  if constexpr (kN == 2) {
    TESSERA_WGMMA(16)
  } else if constexpr (kN == 4) {
    TESSERA_WGMMA(32)
  } else if constexpr (kN == 8) {
    TESSERA_WGMMA(64)
  } else if constexpr (kN == 10) {
    TESSERA_WGMMA(80)
  } else if constexpr (kN == 12) {
    TESSERA_WGMMA(96)
  } else {
    static_assert(kN == 16);
    TESSERA_WGMMA(128)
  }
}
#undef TESSERA_WGMMA
#undef TESSERA_WGMMA_16
#undef TESSERA_WGMMA_32
#undef TESSERA_WGMMA_64
#undef TESSERA_WGMMA_80
#undef TESSERA_WGMMA_96
#undef TESSERA_WGMMA_128
// Around such products: registers that have been written can be d; those begun so far are a group; all groups are done. Between
// the first and the last nothing touches d.
__device__ inline void open_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void close_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int kN>
__device__ inline void wait_for_products(float (&d)[kN][2][2]) {
  asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
#pragma unroll
  for (int j = 0; j < kN; ++j) asm volatile("" : TESSERA_FOUR(j)::"memory");  // no read of d moves before the wait
}
// d is written before what follows. Of several that are products of one group, zeros would else be written when a product wants
// them, and wait for the products before it.
template <int kN>
__device__ inline void write_sums(float (&d)[kN][2][2]) {
#pragma unroll
  for (int j = 0; j < kN; ++j) asm volatile("" : TESSERA_FOUR(j));
}
#undef TESSERA_FOUR
// What this thread has stored in shared memory is there for products that begin after the next barrier.
__device__ inline void publish_to_products() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }


// A barrier of the 128 threads of a warpgroup, which a block may have up to eight of.
__device__ inline void sync_warpgroup() { asm volatile("bar.sync %0, 128;" ::"r"(int(threadIdx.x / 128) + 1) : "memory"); }

#endif  // __CUDACC__

}  // namespace tessera::cuda

#endif  // TESSERA_EMULATED_CUDA
