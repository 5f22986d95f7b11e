// Gradients of filters and biases.
//
// Note [Fixed partition]: the output pixels are cut into partitions and the output channels into ranges, by the shapes alone. A task
// sums one partition for one range into memory of its own; the partitions are then added in order. So the result does not
// depend on the number of threads, and no task waits for another.
#include <algorithm>
#include <cstring>

#include "tensor/base/parallel.h"
#include "tensor/cpu/conv.h"
#include "tensor/cpu/conv_band.h"
#include "tensor/cpu/conv_plan.h"

namespace tessera::cpu {

namespace {

constexpr int64_t kEnoughTasks = 96;
constexpr int64_t kLeastWork = 2 * 1000 * 1000;      // multiply-adds of a task
constexpr int64_t kLeastPixels = 400;                // per partition: its sums are written and read once more
constexpr int64_t kPartialFloats = 4 * 1024 * 1024;  // all partitions together
constexpr int64_t kRangeChannels = 64;
constexpr int64_t kJobPixels = 96;                   // enough to hide loading and storing the accumulators, few enough for L1
constexpr int64_t kBandFloats = 48 * 1024;
constexpr int64_t kBiasRows = 512;  // of a task of bias_backward, at least
constexpr int64_t kBiasChunks = 256;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

struct Partition {
  int64_t parts, ranges;
};

Partition partition(int64_t pixels, int64_t rows, const FilterView& dw) {
  const int64_t size = dw.o * dw.kh * dw.kw * dw.i;
  const int64_t ranges = ceil_div(dw.o, kRangeChannels);
  int64_t parts = ceil_div(kEnoughTasks, ranges);
  parts = std::min({parts, rows, pixels / kLeastPixels, kPartialFloats / std::max<int64_t>(size, 1), pixels * size / kLeastWork});
  return {std::max<int64_t>(parts, 1), ranges};
}

// Sums rows [first, last) of all output rows (n, oy) for output channels [o, o_end) into dw.
void sum_rows(const TileKernels& k, const ImageView& x, const ImageView& dy, const FilterView& dw, const ConvParams& p, int64_t first,
              int64_t last, int64_t o, int64_t o_end, float* out, bool accumulate) {
  const int64_t columns = (dy.w - 1) * p.stride + dw.kw;
  const int64_t row_pitch = ceil_div(columns * x.c, 16) * 16 + 16;
  WeightJob job;
  job.pixels = dy.w;
  job.outputs = o_end - o;
  job.run = dw.kw * x.c;
  job.dw_step = dw.kh * job.run;
  job.x_row = p.stride * row_pitch;
  job.x_step = p.stride * x.c;
  job.d_row = dy.w * dy.pitch;
  job.d_step = dy.pitch;
  const int64_t band = std::max<int64_t>(1, kBandFloats / (p.stride * row_pitch));
  const int64_t chunk = ceil_div(kJobPixels, dy.w);
  job.accumulate = accumulate;
  for (int64_t row = first; row < last;) {
    const int64_t n = row / dy.h;
    const int64_t y = row % dy.h;
    const int64_t rows = std::min({band, last - row, dy.h - y});
    const int64_t in_rows = (rows - 1) * p.stride + dw.kh;
    float* memory = thread_scratch(in_rows * row_pitch + 64);
    copy_band(x, {n, y * p.stride - p.pad, in_rows, -p.pad, columns}, memory, row_pitch);
    const int64_t chunks = ceil_div(rows, chunk);
    for (int64_t c = 0, at = 0; c < chunks; ++c) {
      job.rows = (rows - at) / (chunks - c);
      job.d = data<const float>(dy) + (row + at) * job.d_row + o;
      for (int64_t ky = 0; ky < dw.kh; ++ky) {
        job.x = memory + (at * p.stride + ky) * row_pitch;
        job.dw = out + o * job.dw_step + ky * job.run;
        k.weight(job);
      }
      job.accumulate = true;
      at += job.rows;
    }
    row += rows;
  }
}

// The same for 1x1: pixels [first, last), x read as it lies. Needs whole vectors of input channels.
void sum_pixels(const TileKernels& k, const ImageView& x, const ImageView& dy, int64_t first, int64_t last, int64_t o, int64_t o_end,
                float* out, bool accumulate) {
  WeightJob job;
  job.rows = 1;
  job.outputs = o_end - o;
  job.run = x.c;
  job.dw_step = x.c;
  job.x_step = x.pitch;
  job.d_step = dy.pitch;
  job.dw = out + o * x.c;
  job.accumulate = accumulate;
  const int64_t chunks = ceil_div(last - first, kJobPixels);
  for (int64_t c = 0; c < chunks; ++c, first += job.pixels) {
    job.pixels = (last - first) / (chunks - c);
    job.x = data<const float>(x) + first * x.pitch;
    job.d = data<const float>(dy) + first * dy.pitch + o;
    k.weight(job);
    job.accumulate = true;
  }
}

}  // namespace

void conv2d_backward_weight(const ImageView& x, const ImageView& dy, const FilterView& dw, const ConvParams& p, bool accumulate) {
  const TileKernels k = tile_kernels();
  const int64_t size = dw.o * dw.kh * dw.kw * dw.i;
  const bool direct = dw.kh == 1 && dw.kw == 1 && p.stride == 1 && p.pad == 0 && dw.i % k.lanes == 0;
  const int64_t pixels = dy.n * dy.h * dy.w;
  if (pixels == 0) {
    if (!accumulate) std::fill_n(data<float>(dw), size, 0.0f);
    return;
  }
  const int64_t units = direct ? pixels : dy.n * dy.h;
  const Partition cut = partition(pixels, units, dw);
  const HostScratch partial(cut.parts > 1 ? cut.parts * size : 0);
  parallel_chunks(cut.parts * cut.ranges, [&](int64_t task) {
    const int64_t part = task / cut.ranges;
    const int64_t range = task % cut.ranges;
    const int64_t first = part * units / cut.parts;
    const int64_t last = (part + 1) * units / cut.parts;
    const int64_t o = range * dw.o / cut.ranges;
    const int64_t o_end = (range + 1) * dw.o / cut.ranges;
    float* out = cut.parts > 1 ? partial.get() + part * size : data<float>(dw);
    const bool add = cut.parts == 1 && accumulate;
    if (direct) {
      sum_pixels(k, x, dy, first, last, o, o_end, out, add);
    } else {
      sum_rows(k, x, dy, dw, p, first, last, o, o_end, out, add);
    }
  });
  if (cut.parts == 1) return;
  constexpr int64_t kGrain = 4096;
  parallel_for(size, kGrain, [&](int64_t first, int64_t last) {
    float* out = data<float>(dw);
    if (!accumulate) std::fill(out + first, out + last, 0.0f);
    for (int64_t part = 0; part < cut.parts; ++part) {
      const float* from = partial.get() + part * size;
      for (int64_t i = first; i < last; ++i) out[i] += from[i];
    }
  });
}

// The data gradient of the transposed convolution is a 2x2 convolution with stride 2, so its filter gradient has x and dy exchanged,
// and so have the channels of the result.
void conv_transpose2x2_backward_weight(const ImageView& x, const ImageView& dy, const FilterView& dw, bool accumulate) {
  const HostScratch swapped(dw.o * 4 * dw.i);
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

void bias_backward(const RowsView& dy, float* dbias, bool accumulate) {
  const int64_t chunks = std::min(ceil_div(dy.rows, kBiasRows), kBiasChunks);
  const HostScratch partial(std::max<int64_t>(chunks, 1) * dy.cols);
  parallel_chunks(chunks, [&](int64_t chunk) {
    float* sum = partial.get() + chunk * dy.cols;
    std::fill_n(sum, dy.cols, 0.0f);
    const float* row = data<const float>(dy) + chunk * dy.rows / chunks * dy.pitch;
    for (int64_t r = chunk * dy.rows / chunks; r < (chunk + 1) * dy.rows / chunks; ++r, row += dy.pitch) {
      for (int64_t c = 0; c < dy.cols; ++c) sum[c] += row[c];
    }
  });
  if (!accumulate) std::fill_n(dbias, dy.cols, 0.0f);
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    for (int64_t c = 0; c < dy.cols; ++c) dbias[c] += partial.get()[chunk * dy.cols + c];
  }
}

}  // namespace tessera::cpu
