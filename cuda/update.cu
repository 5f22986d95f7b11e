// A whole update of a training: three launches over the flat arena, between which no number leaves the device.
#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "cuda/device/element.cuh"
#include "cuda/device/reduce.cuh"
#include "cuda/kernels.h"
#include "cuda/launch.cuh"

namespace tessera::cuda {

namespace {

constexpr int kThreads = 256;
constexpr int64_t kMostBlocks = 1024;  // a constant, not a property of the device: the order of sums must not depend on it
constexpr int kNone = std::numeric_limits<int>::max();

// What is the same in every update of a run.
struct UpdateConstants {
  double max_norm, beta1, beta2, average_decay, average_tau, growth, backoff;
  double weight_decay[kTrainedGroups];
  double growth_interval;
  bool adam, decoupled;
};

// What the second kernel decides for the third.
struct UpdateControl {
  bool finite;
  float grad_scale, momentum, root_factor, average_weight;
  float lr[kTrainedGroups];            // Adam: lr / (1 - beta1^t)
  float weight_decay[kTrainedGroups];  // in the gradient
  float kept[kTrainedGroups];          // 1 - lr * decay of the decoupled form, else 1
};

// squares[b] = sum of the squares of block b's packs, first[b] = where the first NaN or infinity among them is.
// Thread t of a block has every pack number t of its stretch, so a warp reads 512 neighbouring bytes; then a tree. Which elements
// meet in what order depends on the size alone.
__global__ void __launch_bounds__(kThreads) gradient_kernel(const float* g, int packs, double* squares, int* first) {
  wait_for_kernel_before();
  double sum = 0;
  int bad = kNone;
  for (int i = int(blockIdx.x * kThreads + threadIdx.x); i < packs; i += int(gridDim.x) * kThreads) {
    const Pack<float, 4> v = load_pack<4>(g + 4 * int64_t(i));
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      sum += double(v.v[k]) * double(v.v[k]);  // exact
      if (!std::isfinite(v.v[k])) bad = min(bad, 4 * i + k);
    }
  }
  sum = block_reduce<Add>(sum, 0.0);
  bad = block_reduce<Min>(bad, kNone);
  if (threadIdx.x == 0) squares[blockIdx.x] = sum, first[blockIdx.x] = bad;
}

// One block: the norm from `blocks` partial sums, then one thread decides. In double, as on the host.
__global__ void __launch_bounds__(kThreads)
    control_kernel(const double* squares, const int* first, int blocks, const double* settings, double* state,
                   UpdateControl* control, UpdateConstants c) {
  wait_for_kernel_before();
  double sum = 0;
  int bad = kNone;
  for (int i = int(threadIdx.x); i < blocks; i += kThreads) {
    sum += squares[i];
    bad = min(bad, first[i]);
  }
  sum = block_reduce<Add>(sum, 0.0);
  bad = block_reduce<Min>(bad, kNone);
  if (threadIdx.x != 0) return;
  const double scale = state[kScale];
  const double norm = std::sqrt(sum) / scale;
  const bool finite = std::isfinite(norm);
  const double step = state[kUpdates] + (finite ? 1 : 0);
  state[kUpdates] = step;
  state[kGradNorm] = norm;
  state[kFirstBad] = bad == kNone ? -1 : bad;
  control->finite = finite;
  control->grad_scale = float((c.max_norm > 0 ? min(1.0, c.max_norm / (norm + 1e-6)) : 1.0) / scale);
  control->momentum = float(settings[kMomentum]);
  control->root_factor = c.adam ? float(1.0 / std::sqrt(1.0 - std::pow(c.beta2, step))) : 0;
  control->average_weight = float(1.0 - c.average_decay * (1.0 - std::exp(-step / c.average_tau)));
  for (int group = 0; group < kTrainedGroups; ++group) {
    const double lr = settings[kRateBias + group];
    const double decay = c.weight_decay[group];
    control->lr[group] = float(c.adam ? lr / (1.0 - std::pow(c.beta1, step)) : lr);
    control->weight_decay[group] = c.decoupled ? 0 : float(decay);
    control->kept[group] = c.decoupled ? float(1.0 - lr * decay) : 1;
  }
  if (c.growth_interval == 0) return;
  if (!finite) {
    state[kScale] = double(float(scale * c.backoff));
    state[kGoodUpdates] = 0;
    return;
  }
  const double good = state[kGoodUpdates] + 1;
  const float grown = float(scale * c.growth);
  if (good == c.growth_interval && std::isfinite(grown)) state[kScale] = double(grown);
  state[kGoodUpdates] = good == c.growth_interval ? 0 : good;
}

struct UpdateMemory {
  float *values, *grads, *first, *second, *average;
  int end[kTrainedGroups + 1];  // of the groups
};
struct AdamConstants {
  float beta1, one_less_beta1, beta2, one_less_beta2, eps;
};

// A thread has four neighbours, all of one group. Gradients in, zeros out; unless the update is left out, moments and values move
// as in sgd_kernel and adam_kernel, and the average follows as in lerp_kernel. A warp moves full lines of each array.
template <bool kAdam>
__global__ void __launch_bounds__(kThreads)
    update_kernel(UpdateMemory m, const UpdateControl* control, AdamConstants a, bool nesterov) {
  wait_for_kernel_before();
  constexpr int N = 4;
  const int at = int(blockIdx.x * kThreads + threadIdx.x) * N;
  if (at >= m.end[kTrainedGroups]) return;
  const bool finite = control->finite;
  const bool trained = at < m.end[kTrainedGroups - 1];
  Pack<float, N> grad{};
  if (trained) {
    grad = load_pack<N>(m.grads + at);
    store_pack<N>(m.grads + at, Pack<float, N>{});
  }
  if (!finite) return;
  Pack<float, N> weight = load_pack<N>(m.values + at);
  if (trained) {
    const int group = at >= m.end[1] ? 2 : at >= m.end[0] ? 1 : 0;
    const float grad_scale = control->grad_scale;
    const float lr = control->lr[group];
    const float decay = control->weight_decay[group];
    Pack<float, N> first = load_pack<N>(m.first + at);
    if constexpr (kAdam) {
      Pack<float, N> second = load_pack<N>(m.second + at);
      const float kept = control->kept[group];
      const float root_factor = control->root_factor;
#pragma unroll
      for (int i = 0; i < N; ++i) {
        const float gradient = grad.v[i] * grad_scale + decay * weight.v[i];
        first.v[i] = a.beta1 * first.v[i] + a.one_less_beta1 * gradient;
        second.v[i] = a.beta2 * second.v[i] + a.one_less_beta2 * gradient * gradient;
        weight.v[i] = kept * weight.v[i] - lr * first.v[i] / (std::sqrt(second.v[i]) * root_factor + a.eps);
      }
      store_pack<N>(m.second + at, second);
    } else {
      const float momentum = control->momentum;
#pragma unroll
      for (int i = 0; i < N; ++i) {
        const float gradient = grad.v[i] * grad_scale + decay * weight.v[i];
        first.v[i] = momentum * first.v[i] + gradient;
        weight.v[i] -= lr * (nesterov ? gradient + momentum * first.v[i] : first.v[i]);
      }
    }
    store_pack<N>(m.first + at, first);
    store_pack<N>(m.values + at, weight);
  }
  Pack<float, N> average = load_pack<N>(m.average + at);
  const float average_weight = control->average_weight;
#pragma unroll
  for (int i = 0; i < N; ++i) average.v[i] += average_weight * (weight.v[i] - average.v[i]);
  store_pack<N>(m.average + at, average);
}

}  // namespace

void update(const UpdateArrays<RowsView>& arrays, const double* settings, double* state, const UpdateParams& p) {
  expect_f32("update", arrays.values.t);
  const bool adam = p.rule != UpdateRule::kSgd;
  const UpdateConstants constants{
      .max_norm = p.max_norm,
      .beta1 = p.beta1,
      .beta2 = p.beta2,
      .average_decay = p.average_decay,
      .average_tau = p.average_tau,
      .growth = p.growth,
      .backoff = p.backoff,
      .weight_decay = {p.weight_decay[0], p.weight_decay[1], p.weight_decay[2]},
      .growth_interval = double(p.growth_interval),
      .adam = adam,
      .decoupled = p.rule == UpdateRule::kAdamW,
  };
  UpdateMemory memory{};
  for (const auto& [view, into] : {std::pair{arrays.values, &memory.values},
                                   {arrays.grads, &memory.grads},
                                   {arrays.first, &memory.first},
                                   {arrays.second, &memory.second},
                                   {arrays.average, &memory.average}}) {
    TESSERA_CHECK(rows_are_aligned(view), "update: an array does not begin at a multiple of 16 bytes");
    *into = static_cast<float*>(view.p);
  }
  for (int group = 0; group <= kTrainedGroups; ++group) memory.end[group] = size32(arrays.ends[size_t(group)]);
  const AdamConstants rates{float(p.beta1), float(1.0 - p.beta1), float(p.beta2), float(1.0 - p.beta2), float(p.eps)};

  const int packs = memory.end[kTrainedGroups - 1] / 4;
  const int blocks = int(std::min<int64_t>(kMostBlocks, blocks_for(packs, kThreads)));
  const Scratch<double> squares(kMostBlocks);
  const Scratch<int> first(kMostBlocks);
  const Scratch<UpdateControl> control(1);
  launch("update", early(Grid{dim3(unsigned(blocks)), dim3(kThreads)}), gradient_kernel, static_cast<const float*>(memory.grads),
         packs, squares.get(), first.get());
  launch("update", early(Grid{dim3(1), dim3(kThreads)}), control_kernel, static_cast<const double*>(squares.get()),
         static_cast<const int*>(first.get()), blocks, settings, state, control.get(), constants);
  launch("update", early(one_thread_each(memory.end[kTrainedGroups] / 4, kThreads)),
         adam ? update_kernel<true> : update_kernel<false>, memory, static_cast<const UpdateControl*>(control.get()), rates,
         p.nesterov);
}

}  // namespace tessera::cuda
