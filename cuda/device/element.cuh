// Elements in kernels: 16-bit floats are read as float and rounded once when they are stored; 16 bytes move in one access.
#pragma once

#include <cstdint>
#include <type_traits>

#include "cuda/device/platform.cuh"
#include "tensor/dtype.h"

namespace tessera::cuda {

// The type that arithmetic on T is done in.
template <class T>
struct ComputeOf {
  using type = T;
};
template <>
struct ComputeOf<BFloat16> {
  using type = float;
};
template <>
struct ComputeOf<Half> {
  using type = float;
};
template <class T>
using Compute = typename ComputeOf<std::remove_const_t<T>>::type;

template <class T>
__device__ Compute<T> load(T value) {
  if constexpr (std::is_same_v<T, BFloat16>) {
    return __uint_as_float(unsigned(value.bits) << 16);
  } else if constexpr (std::is_same_v<T, Half>) {
    return f16_value(value.bits);
  } else {
    return value;
  }
}

template <class T>
__device__ T rounded(Compute<T> value) {
  if constexpr (std::is_same_v<T, BFloat16>) {
    BFloat16 r;
    r.bits = bf16_bits(value);
    return r;
  } else if constexpr (std::is_same_v<T, Half>) {
    Half r;
    r.bits = f16_bits(value);
    return r;
  } else {
    return value;
  }
}

// Two neighbours of a 16-bit type, as they lie in memory: the first in the low half.
template <class T>
__device__ uint32_t rounded_pair(float first, float second) {
  if constexpr (std::is_same_v<T, BFloat16>) {
    return bf16_bits(first, second);
  } else {
    static_assert(std::is_same_v<T, Half>);
    return f16_bits(first, second);
  }
}

// The two of a pair.
template <class T>
__device__ float first_of(uint32_t pair) {
  if constexpr (std::is_same_v<T, BFloat16>) {
    return __uint_as_float(pair << 16);
  } else {
    return f16_value(uint16_t(pair));
  }
}
template <class T>
__device__ float second_of(uint32_t pair) {
  if constexpr (std::is_same_v<T, BFloat16>) {
    return __uint_as_float(pair & 0xffff0000u);
  } else {
    return f16_value(uint16_t(pair >> 16));
  }
}

// y = value, or y += value.
template <class T>
__device__ void put(T& y, Compute<T> value, bool accumulate) {
  y = rounded<T>(accumulate ? load(y) + value : value);
}

// Elements of T in the widest access there is.
template <class T>
inline constexpr int kWide = int(16 / sizeof(T));

// N neighbours in registers, in the type of the arithmetic.
template <class T, int N>
struct Pack {
  Compute<T> v[N];
};

template <class T, int N>
struct alignas(N * sizeof(T)) Packed {
  T v[N];
};

// `count` of N elements (the rest reads as 0); all N in one access, which the address must be aligned for.
template <int N, class T>
__device__ Pack<T, N> load_pack(const T* p, int count = N) {
  Pack<T, N> r;
  if (count >= N) {
    TESSERA_DEVICE_ASSERT(reinterpret_cast<uintptr_t>(p) % sizeof(Packed<T, N>) == 0);
    const Packed<T, N> raw = *reinterpret_cast<const Packed<T, N>*>(p);
#pragma unroll
    for (int i = 0; i < N; ++i) r.v[i] = load(raw.v[i]);
  } else {
#pragma unroll
    for (int i = 0; i < N; ++i) r.v[i] = i < count ? load(p[i]) : Compute<T>(0);
  }
  return r;
}

// Two neighbours of a 16-bit type as a pair.
template <class T>
__device__ uint32_t load_pair(const T* p) {
  static_assert(sizeof(T) == 2);
  TESSERA_DEVICE_ASSERT(reinterpret_cast<uintptr_t>(p) % 4 == 0);
  return *reinterpret_cast<const uint32_t*>(p);
}

// A pack as it lies in memory: half the registers, for the reads of several packs that are under way together.
template <int N, class T>
__device__ Packed<T, N> load_packed(const T* p) {
  TESSERA_DEVICE_ASSERT(reinterpret_cast<uintptr_t>(p) % sizeof(Packed<T, N>) == 0);
  return *reinterpret_cast<const Packed<T, N>*>(p);
}
template <class T, int N>
__device__ Pack<T, N> unpacked(const Packed<T, N>& raw) {
  Pack<T, N> r;
#pragma unroll
  for (int i = 0; i < N; ++i) r.v[i] = load(raw.v[i]);
  return r;
}

template <int N, class T>
__device__ void store_pack(T* p, const Pack<T, N>& values, int count = N) {
  if (count >= N) {
    TESSERA_DEVICE_ASSERT(reinterpret_cast<uintptr_t>(p) % sizeof(Packed<T, N>) == 0);
    Packed<T, N> raw;
#pragma unroll
    for (int i = 0; i < N; ++i) raw.v[i] = rounded<T>(values.v[i]);
    *reinterpret_cast<Packed<T, N>*>(p) = raw;
  } else {
#pragma unroll
    for (int i = 0; i < N; ++i) {
      if (i < count) p[i] = rounded<T>(values.v[i]);
    }
  }
}

// All N, in as many accesses of 16 bytes as that takes.
template <int N, class T>
__device__ void store_packs(T* p, const Pack<T, N>& values) {
  constexpr int kPart = N < kWide<T> ? N : kWide<T>;
#pragma unroll
  for (int first = 0; first < N; first += kPart) {
    Pack<T, kPart> part;
#pragma unroll
    for (int i = 0; i < kPart; ++i) part.v[i] = values.v[first + i];
    store_pack<kPart>(p + first, part);
  }
}

}  // namespace tessera::cuda
