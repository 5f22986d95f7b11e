// Task-aligned assignment and the targets that follow from it. Contracts: tensor/ops/assign.h.
//
// No launch depends on a number that only the device knows: grids are as large as the shapes allow, and threads that have nothing
// to do return. Where threads of different blocks find something out about the same anchor or object, they combine it by atomic
// minima, maxima and counts of integers, whose result does not depend on the order. Floats of at least 0 are compared as the
// integers of their bits.
#include <algorithm>
#include <limits>

#include "cuda/device/element.cuh"
#include "cuda/device/reduce.cuh"
#include "cuda/kernels.h"
#include "cuda/launch.cuh"
#include "tensor/ops/assign_math.h"

namespace tessera::cuda {

namespace {

using namespace assign_math;

constexpr int kThreads = 256;
constexpr int kNone = std::numeric_limits<int>::max();

struct Level {
  Rows<const float> box, cls;
  int h, w;
  float stride;
  int first;         // of the assigner's rows
  int first_anchor;  // of an image's anchors
};

// Where a row of the assigner is.
struct Place {
  int level, row, image, x, y;  // row: of the level's maps
};

// What the kernels read.
struct AssignProblem {
  Level levels[kAnchorLevels];
  bool decoded;
  int images, width, rows;
  const float* boxes;
  const int32_t* classes;

  __device__ Place place(int row) const {
    Place at;
    at.level = row >= levels[2].first ? 2 : row >= levels[1].first ? 1 : 0;
    const Level& l = levels[at.level];
    at.row = row - l.first;
    at.image = at.row / (l.h * l.w);
    const int cell = at.row - at.image * l.h * l.w;
    at.y = cell / l.w;
    at.x = cell - at.y * l.w;
    return at;
  }
  __device__ const float* object_box(int object) const { return boxes + 4 * int64_t(object); }

  // CIoU of the object with what the anchor predicts, not below 0.
  __device__ float overlap(int object, const float* predicted) const {
    const float* const box = object_box(object);
    return larger(ciou(box, predicted, box_angle(box), box_angle(predicted)), 0.0f);
  }
  __device__ float metric(int object, int level, int row, float overlap, const AssignParams& params) const {
    const float raw = levels[level].cls.row(row)[classes[object]];
    const float score = decoded ? raw : score_of_logit(raw);
    return std::pow(score, params.alpha) * std::pow(overlap, params.beta);
  }
};

// What one kernel leaves for the next.
struct AssignWork {
  float* predicted;     // (rows, 4): x1 y1 x2 y2
  int* picks;           // (rows): how many objects took the anchor
  int* first;           // (rows): the lowest of them, in its image
  int* largest_metric;  // (N G): bits of the largest metric of the object's anchors
  int* largest_overlap;  // (N G): bits of their largest CIoU
};

constexpr int kPackedBins = 16;

// predicted = anchor -+ expected bin * stride, or the corners as they are given; the rest of `work` is set to nothing found.
// Thread i: side i % 4 of row i / 4. The sides of a warp lie one after the other in memory, 2 KiB with the 16 bins that every model
// has; a thread reads its 16 in wide accesses where they are aligned (`wide`).
__global__ void __launch_bounds__(kThreads) decode_kernel(AssignProblem p, bool wide, AssignWork work) {
  wait_for_kernel_before();
  const int i = int(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < p.images * p.width) work.largest_metric[i] = work.largest_overlap[i] = 0;
  const int row = i / 4, side = i % 4;
  if (row >= p.rows) return;
  const Place at = p.place(row);
  const Level& l = p.levels[at.level];
  const float* const in = l.box.row(at.row);
  float corner;
  if (p.decoded) {
    corner = in[side];
  } else {
    const int bins = l.box.cols / 4;
    const float* const logits = in + side * bins;
    float expected;
    if (bins == kPackedBins && wide) {
      Pack<float, kPackedBins> all;
#pragma unroll
      for (int first = 0; first < kPackedBins; first += 4) {
        const Packed<float, 4> four = load_packed<4>(logits + first);
#pragma unroll
        for (int b = 0; b < 4; ++b) all.v[first + b] = four.v[b];
      }
      expected = expected_bin(all.v, kPackedBins);
    } else {
      expected = expected_bin(logits, bins);
    }
    const float distance = expected * l.stride;
    const float anchor = anchor_at(side % 2 == 0 ? at.x : at.y, l.stride);
    corner = side < 2 ? anchor - distance : anchor + distance;
  }
  work.predicted[i] = corner;
  if (side == 0) {
    work.picks[row] = 0;
    work.first[row] = kNone;
  }
}

// The cells of a level whose anchors lie in a box.
struct CellBox {
  int x0, y0, w, count;
};

__device__ CellBox cells_in(const Level& l, const float* box) {
  const int x0 = first_inside(box[0], l.w, l.stride), x1 = end_inside(box[2], l.w, l.stride);
  const int y0 = first_inside(box[1], l.h, l.stride), y1 = end_inside(box[3], l.h, l.stride);
  const int w = x1 - x0, h = y1 - y0;
  return {x0, y0, w, w > 0 && h > 0 ? w * h : 0};
}

// A candidate as one number: the larger metric is the larger number, and of equal ones the first candidate. 0: none, or metric 0.
__device__ unsigned long long key_of(float metric, int candidate) {
  if (!(metric > 0)) return 0;
  return (static_cast<unsigned long long>(__float_as_uint(metric)) << 32) | (0xffffffffu - unsigned(candidate));
}
__device__ int candidate_of(unsigned long long key) { return int(0xffffffffu - unsigned(key & 0xffffffffu)); }

constexpr int kPickThreads = 1024;  // objects are fewer than multiprocessors, and a metric takes long
constexpr int kChunk = 2 * kPickThreads;  // candidates whose metrics a block holds at a time

// The topk anchors of each object: counts them in picks, and leaves the object's number in first where it is the lowest.
// Block: one object. Its candidates are the anchors in its box, in their order. The block goes through them kChunk at a time, each
// thread through every 1024th. From a chunk and the best so far it draws the new best, one after the other: all threads offer their
// best, the largest offer is taken, and the thread that made it looks for its next. Most boxes hold less than a chunk.
__global__ void __launch_bounds__(kPickThreads) pick_kernel(AssignProblem p, AssignParams params, AssignWork work) {
  wait_for_kernel_before();
  TESSERA_SHARED(cells, CellBox[kAnchorLevels]);
  TESSERA_SHARED(metric, float[kChunk]);
  TESSERA_SHARED(best, unsigned long long[kLargestTopk]);
  TESSERA_SHARED(taken, int[kLargestTopk]);
  const int t = int(threadIdx.x);
  const int object = int(blockIdx.x);
  const int image = object / p.width;
  const int topk = int(params.topk);
  if (p.classes[object] < 0) return;  // the whole block
  if (t < kAnchorLevels) cells[t] = cells_in(p.levels[t], p.object_box(object));
  __syncthreads();
  const int count = cells[0].count + cells[1].count + cells[2].count;
  // Calls f(level, row of its maps, place among the image's anchors) for a candidate.
  auto locate = [&](int i, auto&& f) {
    int level = 0;
    while (level < kAnchorLevels - 1 && i >= cells[level].count) i -= cells[level++].count;
    const CellBox c = cells[level];
    const Level& l = p.levels[level];
    const int cell = (c.y0 + i / c.w) * l.w + c.x0 + i % c.w;
    f(level, image * l.h * l.w + cell, l.first_anchor + cell);
  };
  int found = 0;
  for (int first = 0; first < count; first += kChunk) {
    const int n = min(kChunk, count - first);
    for (int i = t; i < n; i += kPickThreads) {
      locate(first + i, [&](int level, int row, int) {
        const float overlap = p.overlap(object, work.predicted + 4 * int64_t(p.levels[level].first + row));
        metric[i] = p.metric(object, level, row, overlap, params);
      });
    }
    unsigned long long carried = t < found ? best[t] : 0;
    auto offer = [&] {
      unsigned long long most = carried;
      for (int i = t; i < n; i += kPickThreads) most = max(most, key_of(metric[i], first + i));
      return most;
    };
    unsigned long long mine = offer();
    for (found = 0; found < topk; ++found) {
      const unsigned long long top = block_reduce<Max>(mine, 0ull);  // whose barriers come between reading and writing `best`
      if (top == 0) break;
      if (t == 0) best[found] = top;
      if (mine != top) continue;
      if (carried == top) {
        carried = 0;
      } else {
        metric[candidate_of(top) - first] = 0;
      }
      mine = offer();
    }
    __syncthreads();  // `best` is complete
  }
  auto take = [&](int row) {
    atomicAdd(&work.picks[row], 1);
    atomicMin(&work.first[row], object - image * p.width);
  };
  if (t < found) {
    locate(candidate_of(best[t]), [&](int level, int row, int anchor) {
      taken[t] = anchor;
      take(p.levels[level].first + row);
    });
  }
  __syncthreads();
  // Fewer than topk candidates had a metric above 0. The anchors with metric 0 take the places that are left, as in the original,
  // from the image's first anchor on, which is among its first topk anchors; of those the ones in the box are kept.
  if (found == topk || t >= topk) return;
  int before = 0;  // anchors below t that have a place by their metric
  for (int i = 0; i < found; ++i) {
    if (taken[i] == t) return;
    before += taken[i] < t ? 1 : 0;
  }
  if (t - before >= topk - found) return;
  const int level = t >= p.levels[2].first_anchor ? 2 : t >= p.levels[1].first_anchor ? 1 : 0;
  const Level& l = p.levels[level];
  const int cell = t - l.first_anchor;
  if (cell >= l.h * l.w) return;
  if (is_inside(p.object_box(object), anchor_at(cell % l.w, l.stride), anchor_at(cell / l.w, l.stride))) {
    take(l.first + image * l.h * l.w + cell);
  }
}

// target = the object that the anchor learns, score = its metric; also finds the largest metric and overlap of each object.
// Thread: one row. An anchor that several objects took, which is rare, is compared with all objects whose box it lies in.
__global__ void __launch_bounds__(kThreads)
    resolve_kernel(AssignProblem p, AssignParams params, AssignWork work, int32_t* target, float* score) {
  wait_for_kernel_before();
  const int row = int(blockIdx.x * blockDim.x + threadIdx.x);
  if (row >= p.rows) return;
  const int picks = work.picks[row];
  if (picks == 0) {
    target[row] = -1;
    score[row] = 0;
    return;
  }
  const Place at = p.place(row);
  const Level& l = p.levels[at.level];
  const float* const predicted = work.predicted + 4 * int64_t(row);
  const int objects = at.image * p.width;  // the first of the image's
  int chosen = work.first[row];
  float overlap = 0;
  if (picks == 1) {
    overlap = p.overlap(objects + chosen, predicted);
  } else {
    chosen = 0;
    const float x = anchor_at(at.x, l.stride), y = anchor_at(at.y, l.stride);
    for (int g = 0; g < p.width; ++g) {
      if (p.classes[objects + g] < 0 || !is_inside(p.object_box(objects + g), x, y)) continue;
      const float of_object = p.overlap(objects + g, predicted);
      if (of_object > overlap) {
        overlap = of_object;
        chosen = g;
      }
    }
  }
  const float metric = picks > 1 && overlap == 0 ? 0.0f : p.metric(objects + chosen, at.level, at.row, overlap, params);
  target[row] = chosen;
  score[row] = metric;
  if (metric > 0) atomicMax(&work.largest_metric[objects + chosen], __float_as_int(metric));
  if (overlap > 0) atomicMax(&work.largest_overlap[objects + chosen], __float_as_int(overlap));
}

// score = metric * largest overlap / (largest metric + eps). One thread a row.
__global__ void __launch_bounds__(kThreads)
    normalise_kernel(AssignProblem p, AssignWork work, const int32_t* target, float* score) {
  wait_for_kernel_before();
  const int row = int(blockIdx.x * blockDim.x + threadIdx.x);
  if (row >= p.rows) return;
  if (target[row] < 0) return;
  const int object = p.place(row).image * p.width + target[row];
  score[row] = score[row] * __int_as_float(work.largest_overlap[object]) / (__int_as_float(work.largest_metric[object]) + kNormEps);
}

// ---- positives

constexpr int kRowsOfBlock = 4 * kThreads;

// Of the block's 1024 rows: how many are positive, and the sum of their scores. A thread has every 256th, warps read lines.
__global__ void __launch_bounds__(kThreads)
    count_positives_kernel(const int32_t* target, const float* score, int rows, int* counts, double* sums) {
  wait_for_kernel_before();
  const int end = min((int(blockIdx.x) + 1) * kRowsOfBlock, rows);
  int count = 0;
  double sum = 0;
  for (int row = int(blockIdx.x) * kRowsOfBlock + int(threadIdx.x); row < end; row += kThreads) {
    if (target[row] < 0) continue;
    ++count;
    sum += score[row];
  }
  count = block_reduce<Add>(count, 0);
  sum = block_reduce<Add>(sum, 0.0);
  if (threadIdx.x == 0) {
    counts[blockIdx.x] = count;
    sums[blockIdx.x] = sum;
  }
}

// list[p] = row of positive p, in order, and the label of every row; block 0 also forms totals and scales. Blocks and rows as in
// count_positives_kernel: the list of a block begins behind what the blocks before it have counted.
__global__ void __launch_bounds__(kThreads)
    list_positives_kernel(AssignProblem p, const int32_t* target, const int* counts, const double* sums, PositivesParams params,
                          int* list, int32_t* label, double* totals, float* scales) {
  wait_for_kernel_before();
  const int t = int(threadIdx.x);
  if (blockIdx.x == 0) {
    int count = 0;
    double sum = 0;
    for (int block = t; block < int(gridDim.x); block += kThreads) {
      count += counts[block];
      sum += sums[block];
    }
    count = block_reduce<Add>(count, 0);
    sum = block_reduce<Add>(sum, 0.0);
    if (t < 4) {
      const double divisor = t < 3 ? sum : double(count);
      scales[t] = float(params.gains[size_t(t)] / (divisor > 1 ? divisor : 1.0) * p.images);
    }
    if (t == 0) {
      totals[0] = sum;
      totals[1] = count;
    }
  }
  int place = 0;
  for (int block = t; block < int(blockIdx.x); block += kThreads) place += counts[block];
  place = block_reduce<Add>(place, 0);
  for (int first = int(blockIdx.x) * kRowsOfBlock; first < (int(blockIdx.x) + 1) * kRowsOfBlock; first += kThreads) {
    const int row = first + t;
    const int object = row < p.rows ? target[row] : -1;
    const bool positive = object >= 0;
    // An anchor without any overlap may have gone to an object that is none, whose class is -1.
    if (row < p.rows) label[row] = positive ? p.classes[p.place(row).image * p.width + object] : -1;
    int total = 0;
    const int before = sum_before(positive ? 1 : 0, total);
    if (positive) list[place + before] = row;
    place += total;
  }
}

__device__ void put4(float* p, float a, float b, float c, float d) { store_pack<4>(p, Pack<float, 4>{{a, b, c, d}}); }

// The targets of every positive, and behind the last of them rows that change nothing. Thread: one row of `out`.
__global__ void __launch_bounds__(kThreads)
    positive_rows_kernel(AssignProblem p, const int32_t* mask_ids, const int32_t* target, const float* score, const int* list,
                         PositivesParams params, PositivesView out) {
  wait_for_kernel_before();
  const int i = int(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= int(out.capacity)) return;
  const bool positive = i < int(out.totals[1]);
  const Place at = positive ? p.place(list[i]) : Place{-1, 0, 0, 0, 0};
  for (int level = 0; level < kAnchorLevels; ++level) out.index[level * out.capacity + i] = level == at.level ? at.row : -1;
  const int64_t four = 4 * int64_t(i);
  if (!positive) {
    put4(out.anchors + four, 0, 0, 0, 0);
    put4(out.corners + four, 0, 0, 0, 0);
    put4(out.distances + four, 0, 0, 0, 0);
    put4(out.mask_boxes + four, 0, 0, 0, 0);
    out.weights[i] = 0;
    out.image[i] = out.mask[i] = 0;
    out.area[i] = 1;
    return;
  }
  const Level& l = p.levels[at.level];
  const int object = at.image * p.width + target[list[i]];
  const float* const box = p.object_box(object);
  const float x = anchor_at(at.x, l.stride) / l.stride, y = anchor_at(at.y, l.stride) / l.stride;
  const float left = box[0] / l.stride, top = box[1] / l.stride, right = box[2] / l.stride, bottom = box[3] / l.stride;
  auto held = [&](float distance) { return distance < 0 ? 0.0f : distance > params.max_distance ? params.max_distance : distance; };
  put4(out.anchors + four, x, y, x, y);
  put4(out.corners + four, left, top, right, bottom);
  put4(out.distances + four, held(x - left), held(y - top), held(right - x), held(bottom - y));
  const float image_w = float(params.image_width), image_h = float(params.image_height);
  const float mask_w = float(params.mask_width), mask_h = float(params.mask_height);
  const float x1 = box[0] / image_w, y1 = box[1] / image_h, x2 = box[2] / image_w, y2 = box[3] / image_h;
  put4(out.mask_boxes + four, x1 * mask_w, y1 * mask_h, x2 * mask_w, y2 * mask_h);
  const float area = (x2 - x1) * (y2 - y1);
  out.area[i] = area > 0 ? area : 1.0f;
  out.weights[i] = score[list[i]];
  out.image[i] = at.image;
  out.mask[i] = mask_ids[object];
}

AssignProblem problem_of(const AssignInput& in) {
  AssignProblem p{};
  int first_anchor = 0;
  for (int i = 0; i < kAnchorLevels; ++i) {
    const AnchorLevel& l = in.levels[size_t(i)];
    expect_f32("assign", l.box.t);
    p.levels[i] = {rows_of<const float>(l.box),
                   rows_of<const float>(l.cls),
                   size32(l.h),
                   size32(l.w),
                   l.stride,
                   size32(in.first_row(i)),
                   first_anchor};
    first_anchor += size32(l.h * l.w);
  }
  p.decoded = in.decoded;
  p.images = size32(in.images);
  p.width = size32(in.width);
  size32(in.images * in.width);
  p.rows = size32(in.rows());
  p.boxes = in.boxes;
  p.classes = in.classes;
  return p;
}

}  // namespace

void assign(const AssignInput& in, const AssignParams& params, int32_t* target, float* score) {
  const AssignProblem p = problem_of(in);
  const int64_t objects = in.images * in.width;
  const Scratch<float> predicted(4 * in.rows());
  const Scratch<int> of_row(2 * in.rows());
  const Scratch<int> of_object(2 * objects);
  const AssignWork work{predicted.get(), of_row.get(), of_row.get() + in.rows(), of_object.get(), of_object.get() + objects};
  const Grid rows = one_thread_each(in.rows(), kThreads);
  const bool wide = std::all_of(in.levels.begin(), in.levels.end(), [](const AnchorLevel& l) { return rows_are_aligned(l.box); });
  launch("assign, decode", early(one_thread_each(std::max(4 * in.rows(), objects), kThreads)), decode_kernel, p, wide, work);
  launch("assign, pick", early({dim3(blocks_for(objects, 1)), dim3(kPickThreads)}), pick_kernel, p, params, work);
  launch("assign, resolve", early(rows), resolve_kernel, p, params, work, target, score);
  launch("assign, normalise", early(rows), normalise_kernel, p, work, static_cast<const int32_t*>(target), score);
}

void collect_positives(const AssignInput& in, const int32_t* mask_ids, const int32_t* target, const float* score,
                       const PositivesParams& params, const PositivesView& out) {
  const AssignProblem p = problem_of(in);
  size32(out.capacity);
  const unsigned blocks = std::max(blocks_for(in.rows(), kRowsOfBlock), 1u);
  const Scratch<int> counts(blocks);
  const Scratch<double> sums(blocks);
  const Scratch<int> list(out.capacity);
  launch("collect_positives, count", early({dim3(blocks), dim3(kThreads)}), count_positives_kernel, target, score, p.rows,
         counts.get(), sums.get());
  launch("collect_positives, list", early({dim3(blocks), dim3(kThreads)}), list_positives_kernel, p, target,
         static_cast<const int*>(counts.get()), static_cast<const double*>(sums.get()), params, list.get(), out.label, out.totals,
         out.scales);
  launch("collect_positives, rows", early(one_thread_each(out.capacity, kThreads)), positive_rows_kernel, p, mask_ids, target,
         score, static_cast<const int*>(list.get()), params, out);
}

}  // namespace tessera::cuda
