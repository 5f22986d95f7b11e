#include "tensor/cpu/conv_plan.h"

#include <algorithm>

#include "tensor/base/parallel.h"
#include "tensor/cpu/conv_band.h"

namespace tessera::cpu {

namespace {

constexpr int64_t kBandFloats = 40 * 1024;     // input of one task, 160 KiB: shares L2 with the weights of one group
constexpr int64_t kEnoughTasks = 96;           // keeps 64 threads busy and 2 threads balanced
constexpr int64_t kLeastWork = 2 * 1000 * 1000;  // multiply-adds that are worth a task of their own

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The window of input that all parts read for grid rows [first, last).
struct Reach {
  int64_t row, row_end, column, column_end;  // relative to (grid row * stride, grid column * stride)
  int64_t rows = 0, columns = 0;             // largest grid
};

Reach reach_of(const std::vector<ConvPart>& parts) {
  Reach u{parts[0].row, parts[0].row, parts[0].column, parts[0].column};
  for (const ConvPart& p : parts) {
    u.row = std::min(u.row, p.row);
    u.row_end = std::max(u.row_end, p.row + p.kh);
    u.column = std::min(u.column, p.column);
    u.column_end = std::max(u.column_end, p.column + p.kw);
    u.rows = std::max(u.rows, p.rows);
    u.columns = std::max(u.columns, p.columns);
  }
  return u;
}

// A task takes `rows` grid rows of an image and one of `splits` shares of the groups; it works on `band` rows at a time.
struct Cut {
  int64_t tasks, rows, band, splits;  // tasks per image
};

// Cuts `images` x `rows` units of work, each of `work` multiply-adds and `floats` floats of input.
Cut cut(int64_t images, int64_t rows, int64_t work, int64_t floats, int64_t groups) {
  const int64_t least = ceil_div(kLeastWork, std::max<int64_t>(work, 1));
  const int64_t height = std::clamp<int64_t>(std::max(least, ceil_div(images * rows, kEnoughTasks)), 1, rows);
  Cut c;
  c.tasks = ceil_div(rows, height);
  c.rows = ceil_div(rows, c.tasks);
  c.tasks = ceil_div(rows, c.rows);
  const int64_t bands = ceil_div(c.rows, std::clamp<int64_t>(kBandFloats / std::max<int64_t>(floats, 1), 1, c.rows));
  c.band = ceil_div(c.rows, bands);
  c.splits = std::clamp<int64_t>(std::min(ceil_div(kEnoughTasks, images * c.tasks), c.rows * work / kLeastWork), 1, groups);
  return c;
}

void set_group(RowJob& job, const RowJob& epilogue, const ChannelGroup& group, int64_t packed_start) {
  job.vectors = group.vectors;
  job.channels = group.channels;
  job.bias = epilogue.bias ? epilogue.bias + packed_start : nullptr;
}

}  // namespace

std::vector<ChannelGroup> channel_groups(int64_t channels, const TileKernels& k) {
  const int64_t vectors = ceil_div(channels, k.lanes);
  // 16 registers: pairs, and one triple for an odd number. 32 registers: pairs (least weight traffic), a triple or five for an odd one.
  std::vector<int> sizes;
  int64_t left = vectors;
  if (left % 2 == 1 && left > 1) {
    const int odd = left % 5 == 0 && k.max_vectors >= 5 ? 5 : 3;
    sizes.push_back(odd);
    left -= odd;
  }
  while (left > 0) {
    const int n = static_cast<int>(std::min<int64_t>(left, 2));
    sizes.push_back(n);
    left -= n;
  }
  std::vector<ChannelGroup> groups;
  int64_t start = 0;
  for (const int n : sizes) {
    groups.push_back({start, std::min(channels - start, n * k.lanes), n});
    start += n * k.lanes;
  }
  return groups;
}

std::vector<int64_t> packed_starts(const std::vector<ChannelGroup>& groups, const TileKernels& k) {
  std::vector<int64_t> starts;
  int64_t width = 0;
  for (const ChannelGroup& g : groups) {
    starts.push_back(width);
    width += g.vectors * k.lanes;
  }
  return starts;
}

int64_t packed_width(const std::vector<ChannelGroup>& groups, const TileKernels& k) {
  int64_t width = 0;
  for (const ChannelGroup& g : groups) width += g.vectors * k.lanes;
  return width;
}

void pad_bias(const float* bias, const std::vector<ChannelGroup>& groups, const TileKernels& k, float* out) {
  for (const ChannelGroup& g : groups) {
    std::copy_n(bias + g.start, g.channels, out);
    std::fill(out + g.channels, out + g.vectors * k.lanes, 0.0f);
    out += g.vectors * k.lanes;
  }
}

void run(const ConvPlan& plan) {
  const ImageView& x = plan.x;
  const ImageView& y = plan.y;
  const Reach reach = reach_of(plan.parts);
  if (x.n == 0 || reach.rows == 0 || reach.columns == 0 || plan.groups.empty()) return;
  // 1x1 parts read the image as it lies.
  const bool direct = plan.stride == 1 && reach.row == 0 && reach.column == 0 && reach.row_end == 1 && reach.column_end == 1 &&
                      reach.rows <= x.h && reach.columns <= x.w;
  const int64_t band_columns = (reach.columns - 1) * plan.stride + reach.column_end - reach.column;
  const int64_t row_pitch = ceil_div(band_columns * x.c, 16) * 16 + 16;
  int64_t work = 0;
  for (const ConvPart& p : plan.parts) work += p.columns * p.kh * p.kw * x.c * y.c;
  const Cut tasks = cut(x.n, reach.rows, work, row_pitch * plan.stride, static_cast<int64_t>(plan.groups.size()));
  const std::vector<int64_t> packed_start = packed_starts(plan.groups, plan.kernels);
  const auto groups = static_cast<int64_t>(plan.groups.size());
  parallel_chunks(x.n * tasks.tasks * tasks.splits, [&](int64_t chunk) {
    const int64_t split = chunk % tasks.splits;
    const int64_t task = chunk / tasks.splits % tasks.tasks;
    const int64_t n = chunk / tasks.splits / tasks.tasks;
    const int64_t first_group = split * groups / tasks.splits;
    const int64_t end = std::min(reach.rows, (task + 1) * tasks.rows);
    for (int64_t first = task * tasks.rows; first < end; first += tasks.band) {
      const int64_t last = std::min(end, first + tasks.band);
      RowJob job = plan.epilogue;
      job.next_tile_ahead = direct;
      const float* origin = nullptr;  // input of (first, column 0) at the reach's corner
      if (direct) {
        origin = data<const float>(x) + (n * x.h + first) * x.w * x.pitch;
        job.a_row = x.w * x.pitch;
        job.a_step = x.pitch;
      } else {
        const int64_t rows = (last - first - 1) * plan.stride + reach.row_end - reach.row;
        float* band = thread_scratch(((tasks.band - 1) * plan.stride + reach.row_end - reach.row) * row_pitch + 16);
        copy_band(x, {n, first * plan.stride + reach.row, rows, reach.column, band_columns}, band, row_pitch);
        origin = band;
        job.a_row = row_pitch;
        job.a_step = plan.stride * x.c;
      }
      const int64_t pixel = direct ? x.pitch : x.c;
      for (int64_t g = first_group; g < (split + 1) * groups / tasks.splits; ++g) {
        const ChannelGroup& group = plan.groups[static_cast<size_t>(g)];
        const int64_t start = packed_start[static_cast<size_t>(g)];
        set_group(job, plan.epilogue, group, start);
        for (const ConvPart& part : plan.parts) {
          job.kernel_rows = part.kh;
          job.run = part.kw * x.c;
          job.w = part.weights + start * part.kh * job.run;
          job.pixels = part.columns;
          job.y_step = plan.out_step * y.pitch;
          const bool fetch = !direct && g == first_group && &part == plan.parts.data() && last < end;
          for (int64_t j = first; j < std::min(last, part.rows); ++j) {
            job.a = origin + ((j - first) * plan.stride + part.row - reach.row) * job.a_row + (part.column - reach.column) * pixel;
            const int64_t out = (n * y.h + part.out_row + j * plan.out_step) * y.w + part.out_column;
            job.y = data<float>(y) + out * y.pitch + group.start;
            if (plan.epilogue.residual) {
              job.residual_step = plan.out_step * plan.epilogue.residual_step;
              job.residual = plan.epilogue.residual + out * plan.epilogue.residual_step + group.start;
            }
            const int64_t next = (j + last - first) * plan.stride + reach.row_end - plan.stride;  // input row
            job.ahead = fetch ? ahead_of(x, (n * x.h + next) * x.w, plan.stride * x.w, 0, x.c) : Ahead();
            plan.kernels.row(job);
          }
        }
      }
    }
  });
}

void run(const RowsProduct& product, const std::vector<ChannelGroup>& groups, const TileKernels& kernels) {
  if (product.rows == 0 || groups.empty()) return;
  constexpr int64_t kUnit = 20;  // rows; a multiple of most tile heights
  const int64_t units = ceil_div(product.rows, kUnit);
  const int64_t work = kUnit * product.depth * packed_width(groups, kernels);
  const auto count = static_cast<int64_t>(groups.size());
  const Cut tasks = cut(1, units, work, kUnit * product.depth, count);
  const std::vector<int64_t> packed_start = packed_starts(groups, kernels);
  parallel_chunks(tasks.tasks * tasks.splits, [&](int64_t chunk) {
    const int64_t split = chunk % tasks.splits;
    const int64_t task = chunk / tasks.splits;
    const int64_t end = std::min(product.rows, (task + 1) * tasks.rows * kUnit);
    RowJob job = product.epilogue;
    job.kernel_rows = 1;
    job.next_tile_ahead = true;
    job.run = product.depth;
    job.a_step = product.a_pitch;
    job.y_step = product.y_pitch;
    for (int64_t first = task * tasks.rows * kUnit; first < end; first += tasks.band * kUnit) {
      job.a = product.a + first * product.a_pitch;
      job.pixels = std::min(end - first, tasks.band * kUnit);
      for (int64_t g = split * count / tasks.splits; g < (split + 1) * count / tasks.splits; ++g) {
        const ChannelGroup& group = groups[static_cast<size_t>(g)];
        const int64_t start = packed_start[static_cast<size_t>(g)];
        set_group(job, product.epilogue, group, start);
        job.w = product.weights + start * product.depth;
        job.y = product.y + first * product.y_pitch + group.start;
        if (product.epilogue.residual) job.residual = product.epilogue.residual + first * job.residual_step + group.start;
        kernels.row(job);
      }
    }
  });
}

}  // namespace tessera::cpu
