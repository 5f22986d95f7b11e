// Random fills from a named Philox stream.
#include <cmath>

#include "cuda/device/element.cuh"
#include "cuda/device/philox.cuh"
#include "cuda/kernels.h"
#include "cuda/launch.cuh"

namespace tessera::cuda {

namespace {

// Four numbers of a distribution from the four words of a block. In double, as the reference forms them: fills happen once, and
// every backend is to start from the same weights.
struct Uniform {
  double low, width;
  __device__ void make(const PhiloxBlock& b, double (&v)[4]) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) v[i] = low + width * (double(b.word[i] >> 8) * 0x1p-24);
  }
};

// Box-Muller on two pairs: radius from the first word of each, angle from the second.
struct Normal {
  double mean, deviation;
  __device__ void make(const PhiloxBlock& b, double (&v)[4]) const {
#pragma unroll
    for (int i = 0; i < 4; i += 2) {
      const double radius = std::sqrt(-2.0 * std::log((b.word[i] + 0.5) * 0x1p-32));
      double sine, cosine;
      sin_cos_pi((b.word[i + 1] + 0.5) * 0x1p-31, sine, cosine);
      v[i] = mean + deviation * radius * cosine;
      v[i + 1] = mean + deviation * radius * sine;
    }
  }
};

struct Stream {
  uint32_t purpose, index, key0, key1;
};

// y(4b .. 4b + 3) = four numbers from block b of the stream.
// Thread b makes block b, whatever the grid is, and writes its numbers in one access where y allows: a warp writes 128 neighbours.
template <class T, class Distribution>
__global__ void __launch_bounds__(256) random_kernel(T* y, int64_t n, Stream s, Distribution distribution, bool aligned) {
  const int64_t b = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  const int count = int(min(n - 4 * b, int64_t{4}));
  if (count <= 0) return;
  double v[4];
  distribution.make(philox({{uint32_t(b), s.purpose, s.index, 0}}, s.key0, s.key1), v);
  Pack<T, 4> numbers;
#pragma unroll
  for (int i = 0; i < 4; ++i) numbers.v[i] = float(v[i]);
  T* const out = y + 4 * b;
  if (aligned) {
    store_pack<4>(out, numbers, count);
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (i < count) out[i] = rounded<T>(numbers.v[i]);
    }
  }
}

template <class Distribution>
void fill_random(const char* name, RowsView y, const RandomStream& s, const Distribution& distribution) {
  const int64_t n = y.rows * y.cols;
  for_floating(name, y.t, [&]<class T>() {
    T* const out = data<T>(y);
    const bool aligned = reinterpret_cast<uintptr_t>(out) % (4 * sizeof(T)) == 0;
    launch(name, one_thread_each((n + 3) / 4), random_kernel<T, Distribution>, out, n,
           Stream{uint32_t(s.purpose), s.index, uint32_t(s.seed), uint32_t(s.seed >> 32)}, distribution, aligned);
  });
}

}  // namespace

void uniform(RowsView y, const RandomStream& s, double low, double high) { fill_random("uniform", y, s, Uniform{low, high - low}); }
void normal(RowsView y, const RandomStream& s, double mean, double deviation) {
  fill_random("normal", y, s, Normal{mean, deviation});
}

}  // namespace tessera::cuda
