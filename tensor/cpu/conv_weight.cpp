// Gradients of filters and biases.
//
// Note [Fixed partition]: the output pixels are cut into partitions and the output channels into ranges, by the shapes alone. A
// task sums one partition for one range into memory of its own; the partitions are then added in order. So the result does not
// depend on the number of threads, and no task waits for another.
#include <algorithm>
#include <cstring>
#include <vector>

#include "tensor/base/parallel.h"
#include "tensor/cpu/conv.h"
#include "tensor/cpu/conv_band.h"
#include "tensor/cpu/conv_plan.h"
#include "tensor/cpu/conv_weight_in_place.h"
#include "tensor/cpu/conv_weight_stem.h"
#include "tensor/cpu/conv_windows.h"
#include "tensor/cpu/f32_copy.h"
#include "tensor/cpu/winograd.h"

namespace tessera::cpu {

namespace {

constexpr int64_t kEnoughTasks = 32;
constexpr int64_t kFewTasks = 12;
constexpr int64_t kTileOutputs = 6;     // ranges of output channels are multiples of the tile's height
// Ranges of 1x1 and of a single tap: a block of dw that stays in L2 next to the pixels of a job. Each range of outputs reads x
// again.
constexpr int64_t kTapOutputs = 320, kFewerTapOutputs = 90, kTapInputs = 256;
constexpr int64_t kCheapPixels = 1600;  // per partition: its sums are written and read once more, then about 4 % of the time
constexpr int64_t kLeastPixels = 400;   // the same when there would be too few tasks
constexpr int64_t kLeastWork = 2 * 1000 * 1000;      // multiply-adds of a task
constexpr int64_t kPartialFloats = 4 * 1024 * 1024;  // all partitions together
constexpr int64_t kBandBytes = 800 * 1024;           // most of L2: short bands make short jobs and copy shared rows again
constexpr int64_t kBiasRows = 512;                   // of a task of bias_backward, at least
constexpr int64_t kBiasChunks = 256;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Tasks are parts of the pixels x taps of the filter x ranges of output channels x ranges of input channels. Taps and input
// channels are shared out only where x is read in place.
struct Partition {
  int64_t parts, taps, outputs, inputs;  // how many of each
  int64_t tasks_of_part() const { return taps * outputs * inputs; }
};

// `most_outputs`, `fewer_outputs`: of a range, and of a range when there would be too few tasks.
Partition partition(int64_t pixels, int64_t units, const FilterView& dw, int64_t most_outputs, int64_t fewer_outputs,
                    int64_t taps = 1, int64_t inputs = 1) {
  const int64_t size = dw.o * dw.kh * dw.kw * dw.i;
  Partition p{1, taps, ceil_div(dw.o, most_outputs), inputs};
  const int64_t most =
      std::max<int64_t>(1, std::min({units, kPartialFloats / std::max<int64_t>(size, 1), pixels * size / kLeastWork}));
  const auto tasks = [&](int64_t least_pixels) {
    p.parts = std::clamp<int64_t>(std::min(pixels / least_pixels, ceil_div(kEnoughTasks, p.tasks_of_part())), 1, most);
    return p.parts * p.tasks_of_part();
  };
  if (tasks(kCheapPixels) >= kFewTasks) return p;
  p.outputs = ceil_div(dw.o, fewer_outputs);
  if (tasks(kCheapPixels) < kFewTasks) tasks(kLeastPixels);
  return p;
}

// Of units that take several rows of the kernel at once and are many times as fast: partitions are fewer, since their sums weigh
// more, and pixels are cut before outputs, for each range of which x is brought into pairs again.
constexpr int64_t kTileUnitOutputs = 16, kMostTileOutputs = 128, kFewerTileOutputs = 32;
constexpr int64_t kCheapTilePixels = 6400, kLeastTilePixels = 1600, kFewTileTasks = 4;

Partition tile_partition(int64_t pixels, int64_t units, const FilterView& dw, bool direct) {
  const int64_t size = dw.o * dw.kh * dw.kw * dw.i;
  const int64_t most = std::max<int64_t>(1, std::min(units, kPartialFloats / std::max<int64_t>(size, 1)));
  Partition p{1, 1, ceil_div(dw.o, kMostTileOutputs), direct ? ceil_div(dw.i, 256) : 1};
  const auto enough = [&](int64_t least_pixels) {
    p.parts = std::clamp<int64_t>(std::min(pixels / least_pixels, ceil_div(kEnoughTasks, p.tasks_of_part())), 1, most);
    return p.parts * p.tasks_of_part() >= kFewTileTasks;
  };
  if (enough(kCheapTilePixels) || enough(kLeastTilePixels)) return p;
  p.outputs = ceil_div(dw.o, kFewerTileOutputs);
  if (!enough(kLeastTilePixels)) enough(kLeastTilePixels / 2);
  return p;
}

// Rows of x that a task copies: of f32 as they lie, of bf16 two side by side (Note [Pairs]).
template <class T>
struct RowBand {
  int64_t columns, row_pitch, d_row;
  int64_t most;  // rows of output at a time, or pairs of rows
  RowBand(const ImageView& x, const ImageView& dy, const FilterView& dw, int64_t stride, int64_t outputs)
      : columns((dy.w - 1) * stride + dw.kw),
        row_pitch(ceil_div(kSummed<T> * columns * x.c, kLine<T>) * kLine<T> + kLine<T>),
        d_row(kSummed<T> > 1 ? kSummed<T> * dy.w * outputs : 0),
        most(std::max<int64_t>(1, kBandBytes / ((kSummed<T> * stride * row_pitch + d_row) * int64_t(sizeof(T))))) {}
  // Of so many rows of output, or pairs.
  int64_t in_rows(int64_t rows, int64_t stride, int64_t kh) const { return (rows - 1) * kSummed<T> * stride + kh; }
  int64_t size(int64_t rows, int64_t stride, int64_t kh) const {
    return in_rows(rows, stride, kh) * row_pitch + rows * d_row + 4 * kLine<T>;
  }
};

// The same for units that take several rows of the kernel at once: the pixels of all pairs of rows are one sequence, in which a tap
// is an offset. Each row of pairs is as long as the windows reach, and d is zero beyond the image. Rows of x that follow each other
// under one tap are a set.
struct FlatBand {
  int64_t stride, kh, slots;  // slots: rows of x from one pair of output rows to the next
  int64_t pixels, x_step;     // of a row of pairs; values of x from pixel to pixel
  int64_t d_step, slack;      // slack: behind a set, as far as a last window reaches
  int64_t most;               // pairs of rows at a time
  FlatBand(const ImageView& x, const ImageView& dy, const FilterView& dw, int64_t stride_, int64_t outputs)
      : stride(stride_),
        kh(dw.kh),
        slots(2 * stride_),
        pixels(ceil_div((dy.w - 1) * stride_ + dw.kw, stride_)),
        x_step(2 * stride_ * x.c),
        d_step(2 * outputs),
        slack(ceil_div(2 * dw.kw * x.c, kLine<BFloat16>) * kLine<BFloat16>) {
    const int64_t pair = pixels * (std::min(slots, kh) * x_step + d_step);
    most = std::max<int64_t>(1, kBandBytes / int64_t(sizeof(BFloat16)) / pair);
  }
  int64_t sets() const { return std::min(slots, kh); }
  int64_t set_rows(int64_t pairs) const { return pairs + (kh - 1) / slots; }
  int64_t set_size(int64_t pairs) const {
    return ceil_div(set_rows(pairs) * pixels * x_step, kLine<BFloat16>) * kLine<BFloat16> + slack;
  }
  int64_t size(int64_t pairs) const { return sets() * set_size(pairs) + pairs * pixels * d_step + 4 * kLine<BFloat16>; }
};

// Sums the output rows `at` (counted over all images) for the output channels `o` into `out`, laid out as dw; where the partition
// shares them out, only the taps `taps` of the input channels `q`.
void sum_rows(const WeightGradient<float>& g, Range at, Range o, Range taps, Range q, float* out, bool accumulate) {
  const auto& [k, x, dy, dw, p] = g;
  if (const InPlaceGradient in(g); in.pays()) {
    return in.by_tap() ? in.sum_rows(at, o, taps, q, out, accumulate) : in.sum_rows(at, o, out, accumulate);
  }
  const RowBand<float> band(x, dy, dw, p.stride, o.end - o.begin);
  const int64_t columns = band.columns, row_pitch = band.row_pitch;
  WeightJob<float> job;
  job.pixels = dy.w;
  job.outputs = o.end - o.begin;
  job.run = dw.kw * x.c;
  job.dw_step = dw.kh * job.run;
  job.x_row = p.stride * row_pitch;
  job.x_step = p.stride * x.c;
  job.d_row = dy.w * dy.pitch;
  job.d_step = dy.pitch;
  job.accumulate = accumulate;
  for (int64_t row = at.begin; row < at.end;) {
    const int64_t n = row / dy.h;
    const int64_t y = row % dy.h;
    const int64_t rows = std::min({band.most, at.end - row, dy.h - y});
    const int64_t in_rows = band.in_rows(rows, p.stride, dw.kh);
    float* memory = thread_scratch<float>(band.size(rows, p.stride, dw.kh));
    copy_band(x, {n, y * p.stride - p.pad, in_rows, -p.pad, columns}, x.c, memory, row_pitch);
    const int64_t jobs = ceil_div(rows, ceil_div(k.job_pixels, dy.w));
    for (int64_t i = 0; i < jobs; ++i) {
      const Range r = share(rows, jobs, i);
      job.rows = r.end - r.begin;
      job.d = data<const float>(dy) + (row + r.begin) * job.d_row + o.begin;
      for (int64_t ky = 0; ky < dw.kh; ++ky) {
        job.d_ahead = ahead_of<float>(dy, (row + r.end) * dy.w, job.rows * dy.w, o.begin, job.outputs).part(ky, dw.kh);
        job.x = memory + (r.begin * p.stride + ky) * row_pitch;
        job.dw = out + o.begin * job.dw_step + ky * job.run;
        k.weight(job);
      }
      job.accumulate = true;
    }
    row += rows;
  }
}

// The same for 1x1, for the pixels `at` and the input channels `q`: x is read as it lies. Needs whole vectors of input channels.
void sum_pixels(const WeightGradient<float>& g, Range at, Range o, Range q, float* out, bool accumulate) {
  const auto& [k, x, dy, dw, p] = g;
  WeightJob<float> job;
  job.rows = 1;
  job.outputs = o.end - o.begin;
  job.run = q.end - q.begin;
  job.dw_step = x.c;
  job.x_step = x.pitch;
  job.d_step = dy.pitch;
  job.dw = out + o.begin * x.c + q.begin;
  job.accumulate = accumulate;
  const int64_t jobs = ceil_div(at.end - at.begin, k.job_pixels);
  for (int64_t i = 0; i < jobs; ++i) {
    const Range r = share(at.end - at.begin, jobs, i);
    job.pixels = r.end - r.begin;
    job.x = data<const float>(x) + (at.begin + r.begin) * x.pitch + q.begin;
    job.d = data<const float>(dy) + (at.begin + r.begin) * dy.pitch + o.begin;
    job.x_ahead = ahead_of<float>(x, at.begin + r.end, job.pixels, q.begin, job.run);
    job.d_ahead = ahead_of<float>(dy, at.begin + r.end, job.pixels, o.begin, job.outputs);
    k.weight(job);
    job.accumulate = true;
  }
}

// Two rows of an image side by side (Note [Pairs]): out[(c * channels + i) * 2 + half] for `columns` columns from `column` on, zero
// beyond the `width` of the rows. Null: a row of zeros.
void pair_rows(const TileKernels<BFloat16>& k, const BFloat16* first, const BFloat16* second, int64_t width, int64_t pitch,
               int64_t channels, int64_t column, int64_t columns, BFloat16* out) {
  const int64_t step = 2 * channels;
  const int64_t inner = std::clamp<int64_t>(-column, 0, columns);
  const int64_t inner_end = std::clamp(width - column, inner, columns);
  const BFloat16 zero(0.0f);
  std::fill(out, out + inner * step, zero);
  const int64_t from = (column + inner) * pitch;
  BFloat16* to = out + inner * step;
  if (first == nullptr || second == nullptr) {
    const std::vector<BFloat16> zeros(static_cast<size_t>(channels), zero);
    for (int64_t c = 0; c < inner_end - inner; ++c) {
      const auto at = [&](const BFloat16* row) { return row == nullptr ? zeros.data() : row + from + c * pitch; };
      k.interleave(to + c * step, at(first), at(second), channels);
    }
  } else if (pitch == channels) {
    k.interleave(to, first + from, second + from, (inner_end - inner) * channels);
  } else {
    k.pair_pixels(to, first + from, second + from, pitch, channels, inner_end - inner);
  }
  std::fill(out + inner_end * step, out + columns * step, zero);
}

// See FlatBand.
void sum_flat_rows(const WeightGradient<BFloat16>& g, Range at, Range o, float* out, bool accumulate) {
  const auto& [k, x, dy, dw, p] = g;
  const FlatBand band(x, dy, dw, p.stride, o.end - o.begin);
  WeightJob<BFloat16> job;
  job.rows = 1;
  job.outputs = o.end - o.begin;
  job.run = dw.kw * x.c;
  job.dw_step = dw.kh * job.run;
  job.dw = out + o.begin * job.dw_step;
  job.x_step = band.x_step;
  job.d_step = band.d_step;
  job.accumulate = accumulate;
  std::vector<int64_t> offsets(static_cast<size_t>(dw.kh));
  for (int64_t row = at.begin; row < at.end;) {
    const int64_t n = row / dy.h;
    const int64_t y = row % dy.h;
    const int64_t rows = std::min({2 * band.most, at.end - row, dy.h - y});
    const int64_t pairs = ceil_div(rows, 2);
    BFloat16* const memory = thread_scratch<BFloat16>(band.size(pairs));
    BFloat16* const memory_d = memory + band.sets() * band.set_size(pairs);
    const auto row_of_x = [&](int64_t r) -> const BFloat16* {
      const int64_t in = y * p.stride - p.pad + r;
      return in >= 0 && in < x.h ? data<const BFloat16>(x) + (n * x.h + in) * x.w * x.pitch : nullptr;
    };
    for (int64_t set = 0; set < band.sets(); ++set) {
      BFloat16* to = memory + set * band.set_size(pairs);
      for (int64_t i = 0; i < band.set_rows(pairs); ++i, to += band.pixels * band.x_step) {
        const int64_t r = i * band.slots + set;
        pair_rows(k, row_of_x(r), row_of_x(r + p.stride), x.w, x.pitch, x.c, -p.pad, band.pixels * p.stride, to);
      }
      std::fill_n(to, band.slack, BFloat16(0.0f));
    }
    const auto row_of_dy = [&](int64_t r) -> const BFloat16* {
      return r < rows ? data<const BFloat16>(dy) + (row + r) * dy.w * dy.pitch + o.begin : nullptr;
    };
    for (int64_t r = 0; r < pairs; ++r) {
      pair_rows(k, row_of_dy(2 * r), row_of_dy(2 * r + 1), dy.w, dy.pitch, job.outputs, 0, band.pixels,
                memory_d + r * band.pixels * band.d_step);
    }
    for (int64_t ky = 0; ky < dw.kh; ++ky)
      offsets[static_cast<size_t>(ky)] = ky % band.slots * band.set_size(pairs) + ky / band.slots * band.pixels * band.x_step;
    const int64_t pixels = pairs * band.pixels, jobs = ceil_div(pixels, k.job_pixels / 2);
    for (int64_t i = 0; i < jobs; ++i) {
      const Range r = share(pixels, jobs, i, k.lanes);  // whole tiles but for the last
      job.pixels = r.end - r.begin;
      job.d = memory_d + r.begin * band.d_step;
      job.x = memory + r.begin * band.x_step;
      k.weight_rows({job, offsets, job.run});
      job.accumulate = true;
    }
    row += rows;
  }
}

// The same on pairs of output rows: those of dy side by side, and under tap ky the rows of x one stride apart. A pair of rows of x
// serves all taps kx, whose runs overlap as in f32, and with stride 1 every second tap ky. A last single row is paired with zeros.
void sum_rows(const WeightGradient<BFloat16>& g, Range at, Range o, Range, Range, float* out, bool accumulate) {
  const auto& [k, x, dy, dw, p] = g;
  if (k.weight_rows) return sum_flat_rows(g, at, o, out, accumulate);
  const RowBand<BFloat16> band(x, dy, dw, p.stride, o.end - o.begin);
  const int64_t columns = band.columns, row_pitch = band.row_pitch;
  const int64_t slots = 2 * p.stride;  // rows of x from one pair of output rows to the next
  WeightJob<BFloat16> job;
  job.pixels = dy.w;
  job.outputs = o.end - o.begin;
  job.run = dw.kw * x.c;
  job.dw_step = dw.kh * job.run;
  job.x_row = slots * row_pitch;
  job.x_step = 2 * p.stride * x.c;
  job.d_step = 2 * job.outputs;
  job.d_row = band.d_row;
  job.accumulate = accumulate;
  for (int64_t row = at.begin; row < at.end;) {
    const int64_t n = row / dy.h;
    const int64_t y = row % dy.h;
    const int64_t rows = std::min({2 * band.most, at.end - row, dy.h - y});
    const int64_t pairs = ceil_div(rows, 2);
    const int64_t used = band.in_rows(pairs, p.stride, dw.kh);
    BFloat16* memory = thread_scratch<BFloat16>(band.size(pairs, p.stride, dw.kh));
    BFloat16* memory_d = memory + used * row_pitch + kLine<BFloat16>;
    const auto row_of_x = [&](int64_t r) -> const BFloat16* {
      const int64_t in = y * p.stride - p.pad + r;
      return in >= 0 && in < x.h ? data<const BFloat16>(x) + (n * x.h + in) * x.w * x.pitch : nullptr;
    };
    for (int64_t r = 0; r < used; ++r) {
      if (r % slots >= dw.kh) continue;  // no tap reads it
      pair_rows(k, row_of_x(r), row_of_x(r + p.stride), x.w, x.pitch, x.c, -p.pad, columns, memory + r * row_pitch);
    }
    const auto row_of_dy = [&](int64_t r) -> const BFloat16* {
      return r < rows ? data<const BFloat16>(dy) + (row + r) * dy.w * dy.pitch + o.begin : nullptr;
    };
    for (int64_t r = 0; r < pairs; ++r) {
      pair_rows(k, row_of_dy(2 * r), row_of_dy(2 * r + 1), dy.w, dy.pitch, job.outputs, 0, dy.w, memory_d + r * job.d_row);
    }
    const int64_t jobs = ceil_div(pairs, ceil_div(k.job_pixels, dy.w));
    for (int64_t i = 0; i < jobs; ++i) {
      const Range r = share(pairs, jobs, i);
      job.rows = r.end - r.begin;
      job.d = memory_d + r.begin * job.d_row;
      for (int64_t ky = 0; ky < dw.kh; ++ky) {
        job.x = memory + (r.begin * slots + ky) * row_pitch;
        job.dw = out + o.begin * job.dw_step + ky * job.run;
        k.weight(job);
      }
      job.accumulate = true;
    }
    row += rows;
  }
}

// Values from a pair of pixels to the next: whole columns, and an odd number of lines, so that the pixels of a job spread over the
// sets of L1.
int64_t pair_step(int64_t channels) { return (ceil_div(channels, kLine<BFloat16>) * 2 + 1) * kLine<BFloat16>; }

// 1x1: pairs of neighbouring pixels, wherever they lie. A last single pixel is paired with zeros. While a job runs, the pixels of
// the next are paired and those of the one after it fetched.
void sum_pixels(const WeightGradient<BFloat16>& g, Range at, Range o, Range q, float* out, bool accumulate) {
  const auto& [k, x, dy, dw, p] = g;
  WeightJob<BFloat16> job;
  job.rows = 1;
  job.outputs = o.end - o.begin;
  job.run = q.end - q.begin;
  job.dw_step = x.c;
  job.x_step = pair_step(job.run);
  job.d_step = pair_step(job.outputs);
  job.dw = out + o.begin * x.c + q.begin;
  job.accumulate = accumulate;
  const int64_t jobs = ceil_div(at.end - at.begin, k.job_pixels);
  const int64_t most = ceil_div(ceil_div(at.end - at.begin, 2), jobs);
  const int64_t size = most * (job.x_step + job.d_step);
  BFloat16* const memory = thread_scratch<BFloat16>(2 * size);  // of this job and of the next
  std::vector<PairColumn> columns;
  const auto prepare = [&](int64_t i) {
    columns.clear();
    if (i == jobs) return;
    const Range r = share(at.end - at.begin, jobs, i, 2);
    const int64_t pixels = r.end - r.begin;
    const auto add = [&](const ImageView& from, Range channels, BFloat16* to, int64_t to_step) {
      const BFloat16* first = data<const BFloat16>(from) + (at.begin + r.begin) * from.pitch;
      for (int64_t c = channels.begin; c < channels.end; c += kLine<BFloat16>) {
        const int64_t count = std::min(kLine<BFloat16>, channels.end - c);
        BFloat16* column = to + 2 * (c - channels.begin);
        columns.push_back(
            {first + c, first + from.pitch + c, 2 * from.pitch, column, to_step, pixels / 2, count, most * 2 * from.pitch});
        if (pixels % 2 == 0) continue;
        const BFloat16 zeros[kLine<BFloat16>] = {};
        k.interleave(column + pixels / 2 * to_step, first + (pixels - 1) * from.pitch + c, zeros, count);
      }
    };
    BFloat16* to = memory + i % 2 * size;
    add(x, q, to, job.x_step);
    add(dy, o, to + most * job.x_step, job.d_step);
  };
  prepare(0);
  for (const PairColumn& column : columns) k.pair_column(column);
  for (int64_t i = 0; i < jobs; ++i) {
    const Range r = share(at.end - at.begin, jobs, i, 2);
    job.pixels = ceil_div(r.end - r.begin, 2);
    job.x = memory + i % 2 * size;
    job.d = job.x + most * job.x_step;
    prepare(i + 1);
    job.columns_ahead = columns;
    k.weight(job);
    job.accumulate = true;
  }
}

template <class T>
bool direct(const TileKernels<T>& k, const FilterView& dw, const ConvParams& p) {
  return dw.kh == 1 && dw.kw == 1 && p.stride == 1 && p.pad == 0 &&
         (kSummed<T> > 1 || dw.i % k.lanes == 0);  // pairs are copied in any case
}

Partition stem_partition(const ImageView& dy, const FilterView& dw) {
  return partition(dy.n * dy.h * dy.w, dy.n * dy.h, dw, dw.o, dw.o);
}

template <class T>
int64_t outputs_unit(const TileKernels<T>& k) {
  return k.weight_rows ? kTileUnitOutputs : kTileOutputs;
}

template <class T>
Partition partition_of(const TileKernels<T>& k, const ImageView& x, const ImageView& dy, const FilterView& dw,
                       const ConvParams& p) {
  const bool pixelwise = direct(k, dw, p);
  const int64_t pixels = dy.n * dy.h * dy.w;
  if (k.weight_rows) return tile_partition(pixels, pixelwise ? pixels : dy.n * dy.h, dw, pixelwise);
  const int64_t inputs = ceil_div(dw.i, kTapInputs);
  if constexpr (kSummed<T> > 1) {
    if (pixelwise) return partition(pixels, pixels, dw, 126, 66, 1, inputs);
  } else if (pixelwise) {
    return partition(pixels, pixels, dw, kTapOutputs, kFewerTapOutputs, 1, inputs);
  }
  // Where x is copied, every range copies its band again, which costs more the larger the stride is.
  int64_t copied = p.stride;
  if constexpr (kSummed<T> == 1) {
    if (const InPlaceGradient in({k, x, dy, dw, p}); in.pays()) {
      if (in.by_tap() && dw.o * dw.i >= kTapwisePairs)
        return partition(pixels, dy.n * dy.h, dw, kTapOutputs, kFewerTapOutputs, dw.kh * dw.kw, inputs);
      copied = 1;
    }
  }
  return partition(pixels, dy.n * dy.h, dw, 96 * copied, 48 * copied);
}

template <class T>
bool takes_windows_of_weights(const TileKernels<T>& k, const ImageView& dy, const FilterView& dw) {
  return weights_take_windows(dy.w, dw.kh * dw.kw) && dw.i % k.lanes == 0;
}
// The windows of all pixels of dy as the pixels of a 1x1 convolution.
template <class T>
struct Windowed {
  ImageView x, dy;
  FilterView dw;
  Windowed(T* windows, const ImageView& x_, const ImageView& dy_, const FilterView& dw_) {
    const int64_t size = dw_.kh * dw_.kw * dw_.i, pixels = dy_.n * dy_.h * dy_.w;
    x = {windows, x_.t, 1, 1, pixels, size, size};
    dy = {dy_.p, dy_.t, 1, 1, pixels, dy_.c, dy_.pitch};
    dw = {dw_.p, dw_.t, dw_.o, 1, 1, size};
  }
  int64_t values() const { return x.w * x.c; }
};

template <class T>
ConvScratch scratch_of(const ImageView& x, const ImageView& dy, const FilterView& dw, const ConvParams& p) {
  const TileKernels<T> k = tile_kernels<T>();
  if (dy.n * dy.h * dy.w == 0) return {};
  if (takes_windows_of_weights(k, dy, dw)) {
    const Windowed<T> g(nullptr, x, dy, dw);
    ConvScratch s = scratch_of<T>(g.x, g.dy, g.dw, {1, 0});
    s.call += g.values() * int64_t(sizeof(T));
    return s;
  }
  const bool stem = is_stem(x, dw);
  const Partition cut = stem ? stem_partition(dy, dw) : partition_of(k, x, dy, dw, p);
  ConvScratch s{cut.parts > 1 ? cut.parts * dw.o * dw.kh * dw.kw * dw.i * int64_t(sizeof(float)) : 0, 0};
  if (stem) return s;
  const int64_t outputs = std::min(dw.o, ceil_div(ceil_div(dw.o, outputs_unit(k)), cut.outputs) * outputs_unit(k));
  if (direct(k, dw, p)) {  // pairs of the pixels of two jobs
    const int64_t inputs = ceil_div(dw.i, cut.inputs), pairs = std::min(k.job_pixels, ceil_div(dy.n * dy.h * dy.w, cut.parts)) / 2;
    if (kSummed<T> > 1) s.thread = 2 * pairs * (pair_step(inputs) + pair_step(outputs)) * int64_t(sizeof(T));
    return s;
  }
  if constexpr (kSummed<T> == 1) {
    if (const InPlaceGradient in({k, x, dy, dw, p}); in.pays()) {
      s.thread = in.scratch(outputs) * int64_t(sizeof(T));
      return s;
    }
  }
  if (k.weight_rows) {
    const FlatBand band(x, dy, dw, p.stride, outputs);
    s.thread = band.size(std::min(band.most, ceil_div(dy.h, 2))) * int64_t(sizeof(T));
    return s;
  }
  const RowBand<T> band(x, dy, dw, p.stride, outputs);
  s.thread = band.size(std::min(band.most, ceil_div(dy.h, kSummed<T>)), p.stride, dw.kh) * int64_t(sizeof(T));
  return s;
}

template <class T>
void run_backward_weight(const ImageView& x, const ImageView& dy, const FilterView& dw, const ConvParams& p, bool accumulate) {
  if (takes_windows_of_weights(tile_kernels<T>(), dy, dw)) {
    const HostScratch<T> windows(dy.n * dy.h * dy.w * dw.kh * dw.kw * dw.i);
    copy_windows(x, {dw.kh, dw.kw, -p.pad, -p.pad, p.stride, dy.h, dy.w}, x.c, windows.get());
    const Windowed<T> g(windows.get(), x, dy, dw);
    return run_backward_weight<T>(g.x, g.dy, g.dw, {1, 0}, accumulate);
  }
  const WeightGradient<T> g{tile_kernels<T>(), x, dy, dw, p};
  const int64_t size = dw.o * dw.kh * dw.kw * dw.i;
  const int64_t pixels = dy.n * dy.h * dy.w;
  if (pixels == 0) {
    if (!accumulate) std::fill_n(data<float>(dw), size, 0.0f);
    return;
  }
  const bool pixelwise = direct(g.k, dw, p), stem = is_stem(x, dw);
  const int64_t units = pixelwise ? pixels : dy.n * dy.h;
  const Partition cut = stem ? stem_partition(dy, dw) : partition_of(g.k, x, dy, dw, p);
  const HostScratch<float> partial(cut.parts > 1 ? cut.parts * size : 0);
  parallel_chunks(cut.parts * cut.tasks_of_part(), [&](int64_t task) {
    const int64_t part = task / cut.tasks_of_part();
    const Range at = share(units, cut.parts, part, kSummed<T>);
    const Range taps = share(dw.kh * dw.kw, cut.taps, task / (cut.outputs * cut.inputs) % cut.taps);
    const Range o = share(dw.o, cut.outputs, task / cut.inputs % cut.outputs, outputs_unit(g.k));
    const Range q = share(dw.i, cut.inputs, task % cut.inputs, g.k.lanes);
    float* out = cut.parts > 1 ? partial.get() + part * size : data<float>(dw);
    const bool add = cut.parts == 1 && accumulate;
    if (stem) {
      stem_weight_rows(x, dy, dw, p, at.begin, at.end, out, add);
    } else if (pixelwise) {
      sum_pixels(g, at, o, q, out, add);
    } else {
      sum_rows(g, at, o, taps, q, out, add);
    }
  });
  if (cut.parts > 1) add_partials(partial.get(), cut.parts, size, data<float>(dw), accumulate);
}

}  // namespace

void add_partials(const float* partial, int64_t parts, int64_t size, float* out, bool accumulate) {
  constexpr int64_t kGrain = 4096;
  parallel_for(size, kGrain, [&](int64_t first, int64_t last) {
    if (!accumulate) std::fill(out + first, out + last, 0.0f);
    for (int64_t part = 0; part < parts; ++part) {
      const float* from = partial + part * size;
      for (int64_t i = first; i < last; ++i) out[i] += from[i];
    }
  });
}

ConvScratch backward_weight_scratch(const ImageView& x, const ImageView& dy, const FilterView& dw, const ConvParams& p) {
  return x.t == DType::kBF16 && multiplies_bf16() ? scratch_of<BFloat16>(x, dy, dw, p) : scratch_of<float>(x, dy, dw, p);
}

void conv2d_backward_weight(const ImageView& x, const ImageView& dy, const FilterView& dw, const ConvParams& p, bool accumulate) {
  if (repays_winograd(ConvPass::kBackwardWeight, {dw.p, x.t, dw.o, dw.kh, dw.kw, dw.i}, dy, p)) {
    return winograd_backward_weight(x, dy, dw, p, accumulate);
  }
  if (x.t != DType::kBF16) return run_backward_weight<float>(x, dy, dw, p, accumulate);
  if (multiplies_bf16()) return run_backward_weight<BFloat16>(x, dy, dw, p, accumulate);
  const F32Copy x32(x), dy32(dy);
  run_backward_weight<float>(x32.image(), dy32.image(), dw, p, accumulate);
}

// The data gradient of the transposed convolution is a 2x2 convolution with stride 2, so its filter gradient has x and dy
// exchanged, and so have the channels of the result.
void conv_transpose2x2_backward_weight(const ImageView& x, const ImageView& dy, const FilterView& dw, bool accumulate) {
  const HostScratch<float> swapped(dw.o * 4 * dw.i);
  conv2d_backward_weight(dy, x, {swapped.get(), dw.t, dw.i, 2, 2, dw.o}, {2, 0}, false);
  float* out = data<float>(dw);
  parallel_for(dw.o, 8, [&](int64_t first, int64_t last) {
    for (int64_t o = first; o < last; ++o) {
      for (int64_t tap = 0; tap < 4; ++tap) {
        for (int64_t i = 0; i < dw.i; ++i) {
          float& to = out[(o * 4 + tap) * dw.i + i];
          const float value = swapped.get()[(i * 4 + tap) * dw.o + o];
          to = accumulate ? to + value : value;
        }
      }
    }
  });
}

namespace {

template <class T>
void run_bias_backward(const RowsView& dy, float* dbias, bool accumulate) {
  const int64_t chunks = std::min(ceil_div(dy.rows, kBiasRows), kBiasChunks);
  const HostScratch<float> partial(std::max<int64_t>(chunks, 1) * dy.cols);
  parallel_chunks(chunks, [&](int64_t chunk) {
    float* sum = partial.get() + chunk * dy.cols;
    std::fill_n(sum, dy.cols, 0.0f);
    const T* row = data<const T>(dy) + chunk * dy.rows / chunks * dy.pitch;
    for (int64_t r = chunk * dy.rows / chunks; r < (chunk + 1) * dy.rows / chunks; ++r, row += dy.pitch) {
      for (int64_t c = 0; c < dy.cols; ++c) sum[c] += float(row[c]);
    }
  });
  if (!accumulate) std::fill_n(dbias, dy.cols, 0.0f);
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    for (int64_t c = 0; c < dy.cols; ++c) dbias[c] += partial.get()[chunk * dy.cols + c];
  }
}

}  // namespace

void bias_backward(const RowsView& dy, float* dbias, bool accumulate) {
  dy.t == DType::kBF16 ? run_bias_backward<BFloat16>(dy, dbias, accumulate) : run_bias_backward<float>(dy, dbias, accumulate);
}

}  // namespace tessera::cpu
