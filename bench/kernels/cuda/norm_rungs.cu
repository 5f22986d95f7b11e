// The backward pass of batch norm with SiLU: two sums over all rows of each channel, then one pass over the elements. All of it is
// memory: x and dy are read twice, dx is written once. What the rungs differ in is how the sums are formed:
//
//   1 a thread a channel      neighbours read neighbours, but a layer of 64 channels occupies two warps of the whole device
//   2 a block a channel       all threads work, and each reads 2 bytes of a line of 128: the rest is fetched for nobody
//   3 tiles and atomics       32 channels by a chunk of rows a block; sums meet by atomicAdd, in another order on every run
//   4 packs, then a merge     the project's kernel (cuda/norm.cu): 16 bytes a read, partial sums merged in a fixed order
#include "bench/kernels/cuda/rungs.h"
#include "cuda/device/element.cuh"
#include "cuda/device/math.cuh"
#include "cuda/device/reduce.cuh"
#include "cuda/kernels.h"
#include "cuda/launch.cuh"

namespace tessera::study {

namespace {

using cuda::Add;
using cuda::block_reduce;
using cuda::load;
using cuda::Rows;

struct Channels {
  const float *mean, *rstd, *gamma, *beta;
};

struct Terms {
  float xhat, dz;
};
__device__ Terms terms_of(const Rows<const BFloat16>& x, const Rows<const BFloat16>& dy, const Channels& bn, int r, int c) {
  const float xhat = (load(x.row(r)[c]) - bn.mean[c]) * bn.rstd[c];
  return {xhat, load(dy.row(r)[c]) * cuda::activation_slope(Activation::kSilu, xhat * bn.gamma[c] + bn.beta[c])};
}

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads)
    thread_sums_kernel(Rows<const BFloat16> x, Rows<const BFloat16> dy, Channels bn, float* dgamma, float* dbeta) {
  const int c = int(blockIdx.x * blockDim.x + threadIdx.x);
  if (c >= x.cols) return;
  float gamma = 0;
  float beta = 0;
  for (int r = 0; r < x.rows; ++r) {
    const Terms t = terms_of(x, dy, bn, r, c);
    gamma += t.dz * t.xhat;
    beta += t.dz;
  }
  dgamma[c] = gamma;
  dbeta[c] = beta;
}

__global__ void __launch_bounds__(kThreads)
    block_sums_kernel(Rows<const BFloat16> x, Rows<const BFloat16> dy, Channels bn, float* dgamma, float* dbeta) {
  const int c = int(blockIdx.x);
  float gamma = 0;
  float beta = 0;
  for (int r = int(threadIdx.x); r < x.rows; r += kThreads) {
    const Terms t = terms_of(x, dy, bn, r, c);
    gamma += t.dz * t.xhat;
    beta += t.dz;
  }
  gamma = block_reduce<Add>(gamma, 0.0f);
  beta = block_reduce<Add>(beta, 0.0f);
  if (threadIdx.x == 0) {
    dgamma[c] = gamma;
    dbeta[c] = beta;
  }
}

constexpr int kColumns = 32;
constexpr int kRowsOfBlock = 1024;

// dgamma and dbeta are zero before.
__global__ void __launch_bounds__(kThreads)
    atomic_sums_kernel(Rows<const BFloat16> x, Rows<const BFloat16> dy, Channels bn, float* dgamma, float* dbeta) {
  const int c = int(blockIdx.y) * kColumns + int(threadIdx.x) % kColumns;
  if (c >= x.cols) return;
  const int first = int(blockIdx.x) * kRowsOfBlock;
  const int end = min(first + kRowsOfBlock, x.rows);
  float gamma = 0;
  float beta = 0;
  for (int r = first + int(threadIdx.x) / kColumns; r < end; r += kThreads / kColumns) {
    const Terms t = terms_of(x, dy, bn, r, c);
    gamma += t.dz * t.xhat;
    beta += t.dz;
  }
  atomicAdd(&dgamma[c], gamma);
  atomicAdd(&dbeta[c], beta);
}

// One thread an element; dx = gamma rstd (dz - mean(dz) - xhat mean(dz xhat)).
__global__ void __launch_bounds__(kThreads) dx_kernel(Rows<const BFloat16> x, Rows<const BFloat16> dy, Channels bn,
                                                      const float* dgamma, const float* dbeta, Rows<BFloat16> dx) {
  const int64_t index = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (index >= int64_t(x.rows) * x.cols) return;
  const int r = int(index / x.cols);
  const int c = int(index - int64_t(r) * x.cols);
  const Terms t = terms_of(x, dy, bn, r, c);
  const float n = float(x.rows);
  dx.row(r)[c] = cuda::rounded<BFloat16>(bn.gamma[c] * bn.rstd[c] * (t.dz - dbeta[c] / n - t.xhat * (dgamma[c] / n)));
}

Channels channels_of(const BatchNormView& bn) {
  const auto as_floats = [](const void* p) { return static_cast<const float*>(p); };
  return {as_floats(bn.mean), as_floats(bn.rstd), as_floats(bn.gamma), as_floats(bn.beta)};
}

template <class Kernel>
void run(const NormGradients& g, const char* name, const cuda::Grid& grid, Kernel* sums) {
  const auto x = cuda::rows_of<const BFloat16>(g.x);
  const auto dy = cuda::rows_of<const BFloat16>(g.dy);
  const Channels bn = channels_of(g.bn);
  cuda::launch(name, grid, sums, x, dy, bn, g.dgamma, g.dbeta);
  cuda::launch("dx", cuda::one_thread_each(g.x.rows * g.x.cols, kThreads), dx_kernel, x, dy, bn,
               static_cast<const float*>(g.dgamma), static_cast<const float*>(g.dbeta), cuda::rows_of<BFloat16>(g.dx));
}

void thread_a_channel(const NormGradients& g) {
  run(g, "thread_sums", cuda::one_thread_each(g.x.cols, kThreads), thread_sums_kernel);
}
void block_a_channel(const NormGradients& g) {
  run(g, "block_sums", {dim3(unsigned(g.x.cols)), dim3(kThreads)}, block_sums_kernel);
}
void tiles_and_atomics(const NormGradients& g) {
  Backend& backend = backend_for(Device::cuda());
  for (float* sums : {g.dgamma, g.dbeta}) backend.fill({sums, DType::kF32, Shape{g.x.cols}, Strides{1}}, 0);
  const dim3 blocks(cuda::blocks_for(g.x.rows, kRowsOfBlock), cuda::blocks_for(g.x.cols, kColumns));
  run(g, "atomic_sums", {blocks, dim3(kThreads)}, atomic_sums_kernel);
}
void packs_and_merge(const NormGradients& g) {
  cuda::batch_norm_backward(g.x, g.dy, g.bn, Activation::kSilu, g.dx, g.dgamma, g.dbeta, false);
}

}  // namespace

std::vector<Rung<NormRung>> norm_rungs() {
  return {{"1 a thread a channel", thread_a_channel, true},
          {"2 a block a channel", block_a_channel, true},
          {"3 tiles and atomics", tiles_and_atomics, false},
          {"4 packs, then a merge", packs_and_merge, true}};
}

}  // namespace tessera::study
