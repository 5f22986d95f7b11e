// Cross-entropy of class logits against labels (tensor/ops/losses.h): one class of a row has a target, or none.
#include <algorithm>

#include "cuda/device/element.cuh"
#include "cuda/device/loss_sum.cuh"
#include "cuda/kernels.h"

namespace tessera::cuda {

namespace {

// Packs of several maps as one sequence of blocks: block b belongs to the last map whose first_block is not above b.
template <class T>
struct LabelledMaps {
  int count;
  Rows<T> x[kMostMaps];
  int first_row[kMostMaps];    // in label and score
  int first_block[kMostMaps];
};

template <class T>
LabelledMaps<T> labelled_maps(std::span<const RowsView> x, int packs_of_row, unsigned& blocks) {
  LabelledMaps<T> maps{int(x.size()), {}, {}, {}};
  int64_t rows = 0;
  blocks = 0;
  for (size_t m = 0; m < x.size(); ++m) {
    maps.x[m] = rows_of<T>(x[m]);
    maps.first_row[m] = size32(rows);
    maps.first_block[m] = int(blocks);
    rows += x[m].rows;
    blocks += blocks_for(size32(x[m].rows * packs_of_row), kPacksOfBlock);
  }
  size32(rows);
  return maps;
}

// A pack of logits and what belongs to it.
template <int N>
struct LabelledPack {
  int map, row, col, count;
  Pack<float, N> x;
  int labelled;  // entry of the pack that has a target; none: -1
  float score;
};

// Calls f(pack) for the block's share of the packs: 1024 one after the other in memory, of which a thread has four, 256 apart, as in
// bce_kernel; they are read together. The label of a row is the same for all threads along it and comes from the cache.
template <int N, class F>
__device__ void for_each_labelled_pack(const LabelledMaps<const float>& maps, const int32_t* label, const float* score,
                                       int packs_of_row, F&& f) {
  LabelledPack<N> p;
  p.map = 0;
#pragma unroll
  for (int m = 1; m < int(kMostMaps); ++m) {
    if (m < maps.count && int(blockIdx.x) >= maps.first_block[m]) p.map = m;
  }
  const Rows<const float> x = maps.x[p.map];
  const int begin = (int(blockIdx.x) - maps.first_block[p.map]) * kPacksOfBlock;
  const int end = min(begin + kPacksOfBlock, x.rows * packs_of_row);
  const auto locate = [&](int i) {
    p.row = i / packs_of_row;
    p.col = (i - p.row * packs_of_row) * N;
    p.count = x.cols - p.col;
  };
  Pack<float, N> logits[kPacksOfThread];
  int labels[kPacksOfThread];
#pragma unroll
  for (int k = 0; k < kPacksOfThread; ++k) {
    const int i = begin + k * kThreads + int(threadIdx.x);
    if (i >= end) break;
    locate(i);
    logits[k] = load_pack<N>(x.row(p.row) + p.col, p.count);
    labels[k] = label[maps.first_row[p.map] + p.row];
  }
#pragma unroll
  for (int k = 0; k < kPacksOfThread; ++k) {
    const int i = begin + k * kThreads + int(threadIdx.x);
    if (i >= end) break;
    locate(i);
    p.x = logits[k];
    const int place = maps.first_row[p.map] + p.row;
    p.labelled = labels[k] - p.col;
    const bool here = p.labelled >= 0 && p.labelled < N;
    if (!here) p.labelled = -1;
    p.score = here ? score[place] : 0.0f;
    f(p);
  }
}

// The sum of the cross-entropy.
template <int N>
__global__ void __launch_bounds__(kThreads)
    bce_labels_kernel(LabelledMaps<const float> maps, const int32_t* label, const float* score, int packs_of_row, BlockSums sums) {
  wait_for_kernel_before();
  double sum = 0;
  for_each_labelled_pack<N>(maps, label, score, packs_of_row, [&](const LabelledPack<N>& p) {
    float of_pack = 0;
#pragma unroll
    for (int j = 0; j < N; ++j) of_pack += j < p.count ? cross_entropy(p.x.v[j], j == p.labelled ? p.score : 0.0f) : 0.0f;
    sum += of_pack;
  });
  add_to_total(sums, sum);
}

// dx = (sigmoid(x) - t) scale.
template <class T, int N>
__global__ void __launch_bounds__(kThreads)
    bce_labels_backward_kernel(LabelledMaps<const float> maps, const int32_t* label, const float* score, int packs_of_row,
                               const float* scale, LabelledMaps<T> dx) {
  wait_for_kernel_before();
  const float factor = *scale;
  for_each_labelled_pack<N>(maps, label, score, packs_of_row, [&](const LabelledPack<N>& p) {
    Pack<T, N> gradient;
#pragma unroll
    for (int j = 0; j < N; ++j) gradient.v[j] = (functors::Sigmoid::f(p.x.v[j]) - (j == p.labelled ? p.score : 0.0f)) * factor;
    store_pack<N>(dx.x[p.map].row(p.row) + p.col, gradient, p.count);
  });
}

bool all_aligned(std::span<const RowsView> maps) {
  return std::all_of(maps.begin(), maps.end(), [](const RowsView& v) { return rows_are_aligned(v); });
}

}  // namespace

void bce_with_labels(std::span<const RowsView> x, const int32_t* label, const float* score, float* sum) {
  expect_f32("bce_with_labels", x[0].t);
  const auto run = [&]<int N>() {
    const int packs_of_row = size32((x[0].cols + N - 1) / N);
    unsigned blocks = 0;
    const LabelledMaps<const float> maps = labelled_maps<const float>(x, packs_of_row, blocks);
    sum_of_blocks(blocks, sum, [&](const BlockSums& sums) {
      launch("bce_with_labels", early({dim3(blocks), dim3(kThreads)}), bce_labels_kernel<N>, maps, label, score, packs_of_row,
             sums);
    });
  };
  all_aligned(x) ? run.template operator()<kWide<float>>() : run.template operator()<1>();
}

void bce_with_labels_backward(std::span<const RowsView> x, const int32_t* label, const float* score, const float* scale,
                              std::span<const RowsView> dx) {
  expect_f32("bce_with_labels_backward", x[0].t);
  for_floating("bce_with_labels_backward", dx[0].t, [&]<class T>() {
    const auto run = [&]<int N>() {
      const int packs_of_row = size32((x[0].cols + N - 1) / N);
      unsigned blocks = 0;
      const LabelledMaps<const float> maps = labelled_maps<const float>(x, packs_of_row, blocks);
      launch("bce_with_labels_backward", early({dim3(blocks), dim3(kThreads)}), bce_labels_backward_kernel<T, N>, maps, label, score,
             packs_of_row, scale, labelled_maps<T>(dx, packs_of_row, blocks));
    };
    all_aligned(x) && all_aligned(dx) ? run.template operator()<kWide<float>>() : run.template operator()<1>();
  });
}

}  // namespace tessera::cuda
