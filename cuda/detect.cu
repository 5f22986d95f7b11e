// Detections from the head's maps. Contract: tensor/ops/detect.h.
//
// No launch depends on a number that only the device knows. Candidates are 64-bit keys: the smaller the better, and no two are
// equal, so that the order in which blocks list them is of no account. Compiled without fused multiply-adds: boxes, scores and
// overlaps have the bits that they have on the host.
#include <algorithm>

#include "cuda/device/reduce.cuh"
#include "cuda/kernels.h"
#include "cuda/launch.cuh"
#include "tensor/ops/detect_math.h"

namespace tessera::cuda {

namespace {

using namespace detect_math;
using Key = unsigned long long;

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
constexpr Key kNoKey = ~Key{0};

struct Level {
  Images<const float> box, cls, coefficients;
  float stride;
  int first_anchor;
};

struct DetectProblem {
  Level levels[kAnchorLevels];
  bool decoded;
  const uint8_t* wanted;
  DetectParams params;
  int images, anchors, classes, masks, rows;
  int64_t room;  // for the keys of an image

  __device__ const Level& level_of(int anchor) const {
    return levels[anchor >= levels[2].first_anchor ? 2 : anchor >= levels[1].first_anchor ? 1 : 0];
  }
  __device__ bool is_wanted(int class_id) const { return wanted == nullptr || wanted[class_id] != 0; }
  // The score in the upper half, then anchor and class.
  __device__ Key key_of(float score, int anchor, int class_id) const {
    return Key(~__float_as_uint(score)) << 32 | unsigned(anchor * classes + class_id);
  }
  __device__ int anchor_of(Key key) const { return int(unsigned(key) / unsigned(classes)); }
  __device__ int class_of(Key key) const { return int(unsigned(key) % unsigned(classes)); }
  __device__ float class_shift(int class_id) const { return params.agnostic ? 0.0f : float(class_id) * kClassOffset; }
};

__device__ float score_of_key(Key key) { return __uint_as_float(~unsigned(key >> 32)); }

// Lists the candidates of every image: counts[image] keys from keys[image * room] on, in any order.
// Warp: one anchor, block row: one image. A lane has every 32nd class, a warp reads lines.
__global__ void __launch_bounds__(kThreads) list_candidates_kernel(DetectProblem p, Key* keys, int* counts) {
  const int lane = int(threadIdx.x) % kWarp;
  const int anchor = int(blockIdx.x) * kWarps + int(threadIdx.x) / kWarp;
  const int image = int(blockIdx.y);
  if (anchor >= p.anchors) return;
  const Level& l = p.level_of(anchor);
  const float* const raw = l.cls.pixel(int64_t(image) * l.cls.h * l.cls.w + anchor - l.first_anchor);
  auto list = [&](Key key) {  // of the lanes that have one; all lanes come here
    const unsigned votes = __ballot_sync(kAllLanes, key != kNoKey);
    if (votes == 0) return;
    int place = 0;
    if (lane == 0) place = atomicAdd(&counts[image], __popc(votes));
    place = __shfl_sync(kAllLanes, place, 0) + __popc(votes & ((1u << lane) - 1));
    if (key != kNoKey) keys[image * p.room + place] = key;
  };
  Key best = kNoKey;
  for (int first = 0; first < p.classes; first += kWarp) {
    const int c = first + lane;
    Key key = kNoKey;
    if (c < p.classes) {
      const float score = p.decoded ? raw[c] : score_of(raw[c]);
      if (score > p.params.confidence) key = p.key_of(score, anchor, c);
    }
    if (!p.params.multi_label) {
      best = min(best, key);
    } else {
      list(c < p.classes && p.is_wanted(c) ? key : kNoKey);
    }
  }
  if (p.params.multi_label) return;
  best = warp_reduce<Min>(best);
  list(lane == 0 && best != kNoKey && p.is_wanted(p.class_of(best)) ? best : kNoKey);
}

// ---- suppression: one block for each image

constexpr int kChunk = 2048;  // candidates that are sorted at a time
constexpr int kBuckets = 256;
constexpr int kWindow = 64;                        // candidates that are compared with each other at a time
constexpr int kThreadsOfBox = kThreads / kWindow;  // a thread for each side of a box
static_assert(kBuckets == kThreads && kThreadsOfBox == kSides);

// A key such that at least half and at most all of kChunk keys from `begin` on are below it. There must be more than kChunk.
// Eight bits at a time, from the highest down: the keys with the bits chosen so far are counted by their next eight, and of the
// buckets the first is chosen that does not fit any more.
__device__ Key end_of_chunk(const Key* keys, int count, Key begin) {
  TESSERA_SHARED(buckets, int[kBuckets]);
  TESSERA_SHARED(chosen, int[2]);
  const int t = int(threadIdx.x);
  Key bits = 0;
  int room = kChunk;
  int shift = 64;
  do {
    shift -= 8;
    buckets[t] = 0;
    __syncthreads();
    for (int i = t; i < count; i += kThreads) {
      const Key key = keys[i];
      if (key >= begin && (shift == 56 || key >> (shift + 8) == bits)) atomicAdd(&buckets[key >> shift & (kBuckets - 1)], 1);
    }
    __syncthreads();
    const int own = buckets[t];
    int total = 0;
    const int before = sum_before(own, total);
    if (before <= room && before + own > room) {  // one thread
      chosen[0] = t;
      chosen[1] = before;
    }
    __syncthreads();
    bits = bits << 8 | Key(chosen[0]);
    room -= chosen[1];
  } while (room > kChunk / 2);
  return bits << shift;
}

// Ascending, in place: Batcher's bitonic network over the next power of two, filled up with kNoKey.
__device__ void sort_keys(Key* keys, int count) {
  const int t = int(threadIdx.x);
  int size = 2;
  while (size < count) size *= 2;
  for (int i = count + t; i < size; i += kThreads) keys[i] = kNoKey;
  __syncthreads();
  for (int span = 2; span <= size; span *= 2) {
    for (int distance = span / 2; distance > 0; distance /= 2) {
      for (int pair = t; pair < size / 2; pair += kThreads) {
        const int i = 2 * pair - (pair & (distance - 1));
        const Key a = keys[i], b = keys[i + distance];
        if ((a > b) == ((i & span) == 0)) {
          keys[i] = b;
          keys[i + distance] = a;
        }
      }
      __syncthreads();
    }
  }
}

// The number of rows that are kept after the next `count` candidates, at most kWindow, which are compared with the `kept` rows and
// with each other. Four threads have one candidate.
__device__ int suppress_window(const DetectProblem& p, int image, const Key* keys, int count, float* rows, int kept) {
  TESSERA_SHARED(moved, Corners[kWindow]);  // with the class offset
  // Bit i: candidate i before this one would suppress it; its own bit: a row does.
  TESSERA_SHARED(rivals, unsigned long long[kWindow]);
  const int t = int(threadIdx.x);
  const int own = t / kThreadsOfBox, side = t % kThreadsOfBox;
  const Key key = keys[min(own, count - 1)];
  const int anchor = p.anchor_of(key), class_id = p.class_of(key);
  const Level& l = p.level_of(anchor);
  const int cell = anchor - l.first_anchor;
  const float* const raw = l.box.pixel(int64_t(image) * l.box.h * l.box.w + cell);
  const float value = p.decoded ? raw[side] : side_distance(raw + side * kBins);
  auto of_side = [&](int k) { return __shfl_sync(kAllLanes, value, k, kSides); };
  const float values[kSides] = {of_side(0), of_side(1), of_side(2), of_side(3)};
  const Corners box =
      p.decoded ? corners_of(values[0], values[1], values[2], values[3]) : box_at(cell % l.box.w, cell / l.box.w, values, l.stride);
  const Corners own_moved = box.shifted(p.class_shift(class_id));
  const float own_area = own_moved.area();
  auto is_rival = [&](const Corners& other) { return suppresses(other, other.area(), own_moved, own_area, p.params.iou); };
  if (side == 0) moved[own] = own_moved;
  __syncthreads();
  bool gone = own >= count;
  for (int k = side; k < kept && !gone; k += kThreadsOfBox) {
    const float* const row = rows + int64_t(k) * kDetectionColumns;
    gone = is_rival(Corners{row[0], row[1], row[2], row[3]}.shifted(p.class_shift(int(row[5]))));
  }
  unsigned long long mine = gone ? 1ull << own : 0;
  for (int k = side; k < own; k += kThreadsOfBox) {
    if (is_rival(moved[k])) mine |= 1ull << k;
  }
  for (int distance = 1; distance < kThreadsOfBox; distance *= 2) mine |= __shfl_xor_sync(kAllLanes, mine, distance);
  if (side == 0) rivals[own] = mine;
  __syncthreads();
  unsigned long long alive = 0;  // every thread finds the same
  for (int k = 0; k < count; ++k) {
    if ((rivals[k] & (alive | 1ull << k)) == 0) alive |= 1ull << k;
  }
  const int place = kept + __popcll(alive & ((1ull << own) - 1));
  if ((alive >> own & 1) != 0 && side == 0 && place < p.rows) {
    const float row[kDetectionColumns] = {box.x1, box.y1, box.x2, box.y2, score_of_key(key), float(class_id), float(anchor)};
    for (int k = 0; k < int(kDetectionColumns); ++k) rows[int64_t(place) * kDetectionColumns + k] = row[k];
  }
  // What the next window reads and writes lies behind its first barrier, but for `moved`, which nobody reads after the second.
  return min(kept + __popcll(alive), p.rows);
}

// The rows of every image, zeros after the last. Block: one image. Its candidates are gone through from the best on, a chunk at a
// time in shared memory; most images need one.
__global__ void __launch_bounds__(kThreads)
    suppress_kernel(DetectProblem p, const Key* all_keys, const int* counts, float* detections) {
  TESSERA_SHARED(chunk, Key[kChunk]);
  TESSERA_SHARED(loaded, int[1]);
  const int t = int(threadIdx.x);
  const int image = int(blockIdx.x);
  const Key* const keys = all_keys + image * p.room;
  float* const rows = detections + int64_t(image) * p.rows * kDetectionColumns;
  const int count = counts[image];
  const int limit = int(min(int64_t(count), p.params.max_candidates));
  Key begin = 0;  // all keys below have been gone through,
  int done = 0;   // which are so many
  int kept = 0;
  while (done < limit && kept < p.rows) {
    const Key end = count - done > kChunk ? end_of_chunk(keys, count, begin) : kNoKey;
    if (t == 0) loaded[0] = 0;
    __syncthreads();
    for (int i = t; i < count; i += kThreads) {
      const Key key = keys[i];
      if (key >= begin && key < end) chunk[atomicAdd(&loaded[0], 1)] = key;
    }
    __syncthreads();
    const int n = loaded[0];
    sort_keys(chunk, n);
    const int used = min(n, limit - done);
    for (int first = 0; first < used && kept < p.rows; first += kWindow) {
      kept = suppress_window(p, image, chunk + first, min(kWindow, used - first), rows, kept);
    }
    done += n;
    begin = end;
  }
  for (int i = kept * int(kDetectionColumns) + t; i < p.rows * int(kDetectionColumns); i += kThreads) rows[i] = 0;
}

// coefficients[row] = those of the row's anchor, 0 for a row that is none. One thread a value.
__global__ void __launch_bounds__(kThreads)
    gather_coefficients_kernel(DetectProblem p, const float* detections, float* coefficients) {
  const int i = int(blockIdx.x) * kThreads + int(threadIdx.x);
  const int row = i / p.masks;
  if (row >= p.images * p.rows) return;
  const int image = row / p.rows;
  const float* const detection = detections + int64_t(row) * kDetectionColumns;
  const int anchor = int(detection[6]);
  const Level& l = p.level_of(anchor);
  const float* const from = l.coefficients.pixel(int64_t(image) * l.coefficients.h * l.coefficients.w + anchor - l.first_anchor);
  coefficients[i] = detection[4] == 0 ? 0.0f : from[i - row * p.masks];
}

DetectProblem problem_of(const DetectInput& in, const DetectParams& params) {
  DetectProblem p{};
  for (int i = 0; i < kAnchorLevels; ++i) {
    const DetectLevel& l = in.levels[size_t(i)];
    expect_f32("detect", l.box.t);
    p.levels[i] = {images_of<const float>(l.box), images_of<const float>(l.cls), images_of<const float>(l.coefficients), l.stride,
                   size32(in.first_anchor(i))};
  }
  p.decoded = in.decoded;
  p.wanted = in.wanted;
  p.params = params;
  p.images = size32(in.images());
  p.anchors = size32(in.anchors());
  p.classes = size32(in.classes());
  p.masks = size32(in.masks());
  p.rows = size32(params.max_detections);
  size32(in.images() * params.max_detections * std::max(in.masks(), kDetectionColumns));
  const int labels = size32(in.anchors() * in.classes());  // which a key numbers, also where only the best of an anchor has one
  p.room = params.multi_label ? labels : p.anchors;
  return p;
}

// The same for `images` from `first` on.
DetectProblem part_of(DetectProblem p, int first, int images) {
  for (Level& l : p.levels) {
    for (Images<const float>* map : {&l.box, &l.cls, &l.coefficients}) map->p += int64_t(first) * map->h * map->w * map->pitch;
  }
  p.images = images;
  return p;
}

// So many that the keys, of which there is room for all that there can be, stay within 128 MiB.
int images_at_once(const DetectProblem& p) {
  constexpr int64_t kMostKeys = int64_t{16} << 20, kMostImages = 32;
  return int(std::clamp<int64_t>(kMostKeys / p.room, 1, std::min<int64_t>(p.images, kMostImages)));
}

}  // namespace

int64_t detect_scratch_bytes(const DetectInput& in, const DetectParams& params) {
  const DetectProblem p = problem_of(in, params);
  if (p.images == 0 || p.rows == 0) return 0;
  return images_at_once(p) * (p.room * int64_t(sizeof(Key)) + int64_t(sizeof(int)));
}

void detect(const DetectInput& in, const DetectParams& params, float* detections, float* coefficients) {
  const DetectProblem all = problem_of(in, params);
  if (all.images == 0 || all.rows == 0) return;
  const int at_once = images_at_once(all);
  const Scratch<Key> keys(at_once * all.room);
  const Scratch<int> counts(at_once);
  for (int first = 0; first < all.images; first += at_once) {
    const DetectProblem p = part_of(all, first, std::min(at_once, all.images - first));
    float* const rows = detections + int64_t(first) * p.rows * kDetectionColumns;
    fill({counts.get(), DType::kI32, {at_once}, {1}}, 0);
    launch("detect, candidates", {dim3(blocks_for(p.anchors, kWarps), unsigned(p.images)), dim3(kThreads)}, list_candidates_kernel,
           p, keys.get(), counts.get());
    launch("detect, suppress", {dim3(unsigned(p.images)), dim3(kThreads)}, suppress_kernel, p, static_cast<const Key*>(keys.get()),
           static_cast<const int*>(counts.get()), rows);
    launch("detect, coefficients", one_thread_each(int64_t(p.images) * p.rows * p.masks, kThreads), gather_coefficients_kernel, p,
           static_cast<const float*>(rows), coefficients + int64_t(first) * p.rows * p.masks);
  }
}

}  // namespace tessera::cuda
