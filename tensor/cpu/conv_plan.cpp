#include "tensor/cpu/conv_plan.h"

#include <hwy/cache_control.h>

#include <algorithm>

#include "tensor/base/parallel.h"
#include "tensor/cpu/conv_band.h"
#include "tensor/cpu/conv_windows.h"

namespace tessera::cpu {

namespace {

constexpr int64_t kWeightBytes = 512 * 1024;     // weights of one task: stay in L2 while it and the next ones use them
constexpr int64_t kBandBytes = 320 * 1024;       // input that all weights of a task pass over: fits an L2 of 1 MiB beside them
constexpr int64_t kRowsBytes = 480 * 1024;       // the same of 1x1, whose weights are read past L2 where they do not fit
constexpr int64_t kEnoughTasks = 96;             // keeps 64 threads busy and 2 threads balanced
constexpr int64_t kLeastWork = 2 * 1000 * 1000;  // multiply-adds that are worth a task of their own
// The same of units whose kernels take bands: a task copies some rows that its neighbour copies too, and they are many times as
// fast; but few tasks are made smaller.
constexpr int64_t kLeastBandWork = 4 * 1000 * 1000, kMostBandWork = 16 * 1000 * 1000, kFewTasks = 8;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t floor_div(int64_t a, int64_t b) { return a / b - (a % b < 0); }

// Note [Crowded sets]: rows of a whole number of pages apart compete for the same few lines of the L1 cache: 8, where a tile has up
// to 14 rows. Matrices are then copied with a line between the rows, and images are not fetched ahead. 12 lines are enough: 1x1 of
// 1024 channels at 20 pixels, batch 1, makes 86 % of the peak of such a Xeon in place, and 67 % with the copy.
template <class T>
bool crowded(int64_t pitch, const TileShape& tile) {
  constexpr int64_t kEnoughWays = 12;
  return tile.l1_ways < kEnoughWays && pitch * int64_t(sizeof(T)) % 4096 == 0;
}

// The window of input that all parts read for grid rows [first, last).
struct Reach {
  int64_t row, row_end, column, column_end;  // relative to (grid row * stride, grid column * stride)
  int64_t rows = 0, columns = 0;             // largest grid
};

template <class T>
Reach reach_of(const std::vector<ConvPart<T>>& parts) {
  Reach u{parts[0].row, parts[0].row, parts[0].column, parts[0].column};
  for (const ConvPart<T>& p : parts) {
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

// Cuts `images` x `rows` units of work, each of `work` multiply-adds and `bytes` of input, in bands of `band_bytes`. The groups are
// cut into `shares` at least, and all tasks of a share come before those of the next.
Cut cut(int64_t images, int64_t rows, int64_t work, int64_t bytes, int64_t groups, int64_t band_bytes, int64_t shares = 1,
        int64_t least_work = kLeastWork) {
  const int64_t least = ceil_div(least_work * shares, std::max<int64_t>(work, 1));
  const int64_t height = std::clamp<int64_t>(std::max(least, ceil_div(images * rows * shares, kEnoughTasks)), 1, rows);
  Cut c;
  c.tasks = ceil_div(rows, height);
  c.rows = ceil_div(rows, c.tasks);
  c.tasks = ceil_div(rows, c.rows);
  const int64_t bands = ceil_div(c.rows, std::clamp<int64_t>(band_bytes / std::max<int64_t>(bytes, 1), 1, c.rows));
  c.band = ceil_div(c.rows, bands);
  c.splits = std::clamp<int64_t>(std::min(ceil_div(kEnoughTasks, images * c.tasks), c.rows * work / least_work), shares, groups);
  return c;
}

template <class T>
int64_t band_pitch(int64_t columns, int64_t depth) {
  return (ceil_div(columns * depth, kLine<T>) + 1) * kLine<T>;
}

// Channels of the groups [group, end).
int64_t channels_of(const std::vector<ChannelGroup>& groups, int64_t group, int64_t end) {
  const ChannelGroup& last = groups[static_cast<size_t>(end - 1)];
  return last.start + last.channels - groups[static_cast<size_t>(group)].start;
}

template <class T>
void set_group(RowJob<T>& job, const RowJob<T>& epilogue, const ChannelGroup& group, int64_t packed_start) {
  job.vectors = group.vectors;
  job.channels = group.channels;
  job.bias = epilogue.bias ? epilogue.bias + packed_start : nullptr;
}

}  // namespace

std::vector<ChannelGroup> channel_groups(int64_t channels, const TileShape& tile) {
  const int64_t vectors = ceil_div(channels, tile.lanes);
  // 16 registers: pairs, and one triple for an odd number. 32 registers: pairs (least weight traffic), a triple or five for an odd
  // one.
  std::vector<int> sizes;
  int64_t left = vectors;
  if (left % 2 == 1 && left > 1 && tile.max_vectors >= 3) {
    const int odd = left % 5 == 0 && tile.max_vectors >= 5 ? 5 : 3;
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
    groups.push_back({start, std::min(channels - start, n * tile.lanes), n});
    start += n * tile.lanes;
  }
  return groups;
}

std::vector<int64_t> packed_starts(const std::vector<ChannelGroup>& groups, const TileShape& tile) {
  std::vector<int64_t> starts;
  int64_t width = 0;
  for (const ChannelGroup& g : groups) {
    starts.push_back(width);
    width += g.vectors * tile.lanes;
  }
  return starts;
}

int64_t packed_width(const std::vector<ChannelGroup>& groups, const TileShape& tile) {
  int64_t width = 0;
  for (const ChannelGroup& g : groups) width += g.vectors * tile.lanes;
  return width;
}

void pad_bias(const float* bias, const std::vector<ChannelGroup>& groups, const TileShape& tile, float* out) {
  for (const ChannelGroup& g : groups) {
    std::copy_n(bias + g.start, g.channels, out);
    std::fill(out + g.channels, out + g.vectors * tile.lanes, 0.0f);
    out += g.vectors * tile.lanes;
  }
}

namespace {

// Runs one image's bands of a plan.
//
// Note [Reading in place]: grid points whose window lies inside the image read x as it lies, one run per tap where pixels have a
// pitch; at the top and bottom without the rows of the kernel that lie outside. Windows of the first and last columns are few: they
// are copied, one after the other, and form columns of the output. Narrow images and large kernels copy the whole band with a zero
// border instead. So do rows at the top and bottom for kernels that take bands.
template <class T>
class ImageBands {
 public:
  ImageBands(const ConvPlan<T>& plan, const Reach& reach, const std::vector<int64_t>& packed_start, int64_t n)
      : plan_(plan), reach_(reach), packed_start_(packed_start), n_(n), depth_(whole_sums<T>(plan.x.c)) {
    const int64_t s = plan.stride;
    inner_row_ = 0, inner_row_end_ = reach.rows;
    if (plan.kernels.band) {
      inner_row_ = ceil_div(std::max<int64_t>(0, -reach.row), s);
      inner_row_end_ = std::max(inner_row_, floor_div(plan.x.h - reach.row_end, s) + 1);
    }
    inner_column_ = ceil_div(std::max<int64_t>(0, -reach.column), s);
    inner_column_end_ = std::max(inner_column_, floor_div(plan.x.w - reach.column_end, s) + 1);
    const int64_t outer = inner_column_ + std::max<int64_t>(0, reach.columns - inner_column_end_);
    // Several parts read each pixel several times, which a compact copy in L2 serves better. A copy can be padded to whole sums.
    // Tiles read a band in a copy, without columns of their own.
    const bool inner = plan.kernels.band ? outer == 0 : reach.columns - outer >= kLeastColumns * outer;
    in_place_ = inner && (plan.parts.size() == 1 || outer == 0) && depth_ == plan.x.c;
  }

  // What run() leaves out of the rows [first, end), once for all bands of a task: columns of few pixels would be tiles of few rows.
  void run_outer_columns(int64_t first, int64_t end, int64_t group, int64_t group_end) const {
    if (!in_place_) return;
    int64_t size = 0;  // of the windows of a row
    for_each_outer_column([&](const ConvPart<T>& part, int64_t) { size += part.kh * part.kw * plan_.x.c; });
    if (size == 0) return;
    const int64_t pieces = ceil_div((end - first) * size * int64_t(sizeof(T)), kBandBytes);
    for (int64_t i = 0; i < pieces; ++i)
      run_outer_windows(first + i * (end - first) / pieces, first + (i + 1) * (end - first) / pieces, size, group, group_end);
  }

  // Grid rows [first, end) for the groups [group, group_end); `next` is the row after them that comes next, or end.
  void run(int64_t first, int64_t end, int64_t next, int64_t group, int64_t group_end) {
    while (first < end) {
      const bool in_place = in_place_ && first >= inner_row_ && first < inner_row_end_;
      const int64_t stop = in_place ? inner_row_end_ : in_place_ && first < inner_row_ ? inner_row_ : end;
      const int64_t last = std::min(end, stop);
      if (in_place) {
        run_in_place(first, last, group, group_end);
      } else {
        run_copied(first, last, last < end || next > end, group, group_end);
      }
      first = last;
    }
  }

 private:
  static constexpr int64_t kLeastColumns = 12;  // inner ones per outer one

  RowJob<T> job_of(int64_t g, const ConvPart<T>& part) const {
    const ChannelGroup& group = plan_.groups[static_cast<size_t>(g)];
    const int64_t start = packed_start_[static_cast<size_t>(g)];
    RowJob<T> job = plan_.epilogue;
    set_group(job, plan_.epilogue, group, start);
    job.kernel_rows = part.kh;
    job.run = part.kw * depth_;
    job.w = part.weights + start * part.kh * job.run;
    return job;
  }

  // Output of grid point (j, i) and of those to its right, or below it.
  void set_output(RowJob<T>& job, const ConvPart<T>& part, int64_t g, int64_t j, int64_t i, bool down) const {
    const ImageView& y = plan_.y;
    const int64_t pixel = (n_ * y.h + part.out_row + j * plan_.out_step) * y.w + part.out_column + i * plan_.out_step;
    const int64_t pixels = plan_.out_step * (down ? y.w : 1);
    const int64_t channel = plan_.groups[static_cast<size_t>(g)].start;
    job.y = data<T>(y) + pixel * y.pitch + channel;
    job.y_step = pixels * y.pitch;
    if (!plan_.epilogue.residual) return;
    job.residual = plan_.epilogue.residual + pixel * plan_.epilogue.residual_step + channel;
    job.residual_step = pixels * plan_.epilogue.residual_step;
  }

  // Input rows that the grid's rows [j, j + rows) are the first to read; behind an image, those of the next.
  Ahead ahead_of_rows(int64_t j, int64_t rows) const {
    const ImageView& x = plan_.x;
    const int64_t row = (j - 1) * plan_.stride + reach_.row_end;
    return ahead_of<T>(x, (n_ * x.h + row) * x.w, rows * plan_.stride * x.w, 0, x.c);
  }

  // The rows [first, last) of a part's grid, as `job` reads the first of them.
  void run_band(const RowJob<T>& job, const ConvPart<T>& part, int64_t first, int64_t last, int64_t a_next, int64_t group,
                int64_t group_end) const {
    if (first >= last) return;
    std::vector<RowJob<T>> jobs;
    for (int64_t g = group; g < group_end; ++g) {
      RowJob<T> of_group = job_of(g, part);
      of_group.a = job.a, of_group.a_step = job.a_step, of_group.a_row = job.a_row, of_group.a_tap = job.a_tap;
      of_group.taps = job.taps, of_group.run = job.run, of_group.pixels = job.pixels, of_group.ahead = job.ahead;
      set_output(of_group, part, g, first, 0, false);
      jobs.push_back(of_group);
    }
    const int64_t pixels = plan_.out_step * plan_.y.w;  // from row to row
    plan_.kernels.band({jobs, last - first, a_next, pixels * plan_.y.pitch, pixels * plan_.epilogue.residual_step});
  }

  // Input rows that row j + rows of the grid is the first to read.
  Ahead ahead_of_row(int64_t j, int64_t rows) const {
    const ImageView& x = plan_.x;
    const int64_t row = (j + rows - 1) * plan_.stride + reach_.row_end;
    return ahead_of<T>(x, (n_ * x.h + row) * x.w, plan_.stride * x.w, 0, x.c);
  }

  void run_copied(int64_t first, int64_t last, bool more, int64_t group, int64_t group_end) {
    const ImageView& x = plan_.x;
    const int64_t columns = (reach_.columns - 1) * plan_.stride + reach_.column_end - reach_.column;
    const int64_t row_pitch = band_pitch<T>(columns, depth_);
    const int64_t rows = (last - first - 1) * plan_.stride + reach_.row_end - reach_.row;
    T* band = thread_scratch<T>(rows * row_pitch + kLine<T>);
    copy_band(x, {n_, first * plan_.stride + reach_.row, rows, reach_.column, columns}, depth_, band, row_pitch);
    if (plan_.kernels.band) {
      for (const ConvPart<T>& part : plan_.parts) {
        RowJob<T> job;
        job.a = band + (part.row - reach_.row) * row_pitch + (part.column - reach_.column) * depth_;
        job.a_row = row_pitch;
        job.a_step = plan_.stride * depth_;
        job.pixels = part.columns;
        job.run = part.kw * depth_;
        if (&part == plan_.parts.data()) job.ahead = ahead_of_rows(last, last - first);
        run_band(job, part, first, std::min(last, part.rows), plan_.stride * row_pitch, group, group_end);
      }
      return;
    }
    for (int64_t g = group; g < group_end; ++g) {
      for (const ConvPart<T>& part : plan_.parts) {
        RowJob<T> job = job_of(g, part);
        job.a_row = row_pitch;
        job.a_step = plan_.stride * depth_;
        job.pixels = part.columns;
        const bool fetch = more && g == group && &part == plan_.parts.data();
        for (int64_t j = first; j < std::min(last, part.rows); ++j) {
          job.a = band + ((j - first) * plan_.stride + part.row - reach_.row) * row_pitch + (part.column - reach_.column) * depth_;
          job.ahead = fetch ? ahead_of_row(j, last - first) : Ahead();
          set_output(job, part, g, j, 0, false);
          plan_.kernels.row(job);
        }
      }
    }
  }

  void run_in_place(int64_t first, int64_t last, int64_t group, int64_t group_end) {
    const ImageView& x = plan_.x;
    const int64_t s = plan_.stride;
    // Fetching a tile's input ahead pays where its windows hardly overlap, each pixel has lines of its own and they do not push
    // each other out (Note [Crowded sets]).
    const bool fresh = s * x.pitch >= kLine<T> && !crowded<T>(s * x.pitch, plan_.kernels);
    const bool dense = x.pitch == x.c;
    if (plan_.kernels.band) {
      for (const ConvPart<T>& part : plan_.parts) {
        RowJob<T> job;
        job.a = data<const T>(x) + ((n_ * x.h + first * s + part.row) * x.w + part.column) * x.pitch;
        job.a_row = x.w * x.pitch;
        job.a_step = s * x.pitch;
        job.a_tap = x.pitch;
        job.taps = dense ? 1 : part.kw;
        job.run = dense ? part.kw * x.c : x.c;
        job.pixels = part.columns;
        if (&part == plan_.parts.data()) job.ahead = ahead_of_rows(last, last - first);
        run_band(job, part, first, std::min(last, part.rows), s * x.w * x.pitch, group, group_end);
      }
      return;
    }
    for (int64_t g = group; g < group_end; ++g) {
      for (const ConvPart<T>& part : plan_.parts) {
        const int64_t rows = std::min(last, part.rows) - first;
        RowJob<T> job = job_of(g, part);
        const T* const w = job.w;
        const int64_t row_weights = part.kw * x.c * job.vectors * plan_.kernels.lanes;  // of a row of the kernel
        job.taps = dense ? 1 : part.kw;
        job.run = dense ? part.kw * x.c : x.c;
        job.next_tile_ahead = fresh && (s > 1 || part.kh * part.kw == 1);
        job.a_tap = x.pitch;
        job.a_row = x.w * x.pitch;
        job.a_step = s * x.pitch;
        job.pixels = std::min(inner_column_end_, part.columns) - inner_column_;
        const bool fetch = g == group && &part == plan_.parts.data();
        for (int64_t j = first; j < first + rows; ++j) {
          const int64_t top = j * s + part.row;
          const int64_t outside = std::clamp<int64_t>(-top, 0, part.kh);  // rows of the kernel above the image
          job.kernel_rows = std::clamp<int64_t>(x.h - top, outside, part.kh) - outside;
          job.w = w + outside * row_weights;
          job.a = data<const T>(x) + ((n_ * x.h + top + outside) * x.w + inner_column_ * s + part.column) * x.pitch;
          job.ahead = fetch ? ahead_of_row(j, 1) : Ahead();
          set_output(job, part, g, j, inner_column_, false);
          plan_.kernels.row(job);
        }
      }
    }
  }

  bool inner_column(int64_t i) const { return i >= inner_column_ && i < inner_column_end_; }

  // visit(part, i) for the columns i of a part's grid whose windows leave the image.
  template <class Visit>
  void for_each_outer_column(const Visit& visit) const {
    for (const ConvPart<T>& part : plan_.parts) {
      for (int64_t i = 0; i < part.columns; ++i) {
        if (inner_column(i)) i = std::min(inner_column_end_, part.columns);
        if (i < part.columns) visit(part, i);
      }
    }
  }

  // Windows of the outer columns, `size` values for each of the rows [first, last), copied one after the other.
  void run_outer_windows(int64_t first, int64_t last, int64_t size, int64_t group, int64_t group_end) const {
    T* const windows = thread_scratch<T>(size * (last - first));
    T* to = windows;
    for_each_outer_column([&](const ConvPart<T>& part, int64_t i) {
      for (int64_t j = first; j < std::min(last, part.rows); ++j, to += part.kh * part.kw * plan_.x.c) {
        copy_band(plan_.x, {n_, j * plan_.stride + part.row, part.kh, i * plan_.stride + part.column, part.kw}, plan_.x.c, to,
                  part.kw * plan_.x.c);
      }
    });
    for (int64_t g = group; g < group_end; ++g) {
      const T* window = windows;
      for_each_outer_column([&](const ConvPart<T>& part, int64_t i) {
        RowJob<T> job = job_of(g, part);
        job.run *= part.kh;
        job.kernel_rows = 1;
        job.a = window;
        job.a_step = job.run;
        job.pixels = std::min(last, part.rows) - first;
        set_output(job, part, g, first, i, true);
        plan_.kernels.row(job);
        window += job.pixels * job.run;
      });
    }
  }

  const ConvPlan<T>& plan_;
  const Reach& reach_;
  const std::vector<int64_t>& packed_start_;
  const int64_t n_;
  const int64_t depth_;                                                  // channels of a copied pixel
  int64_t inner_row_, inner_row_end_, inner_column_, inner_column_end_;  // of the grid
  bool in_place_;
};

// Whether the plan's rows are so short that it runs as products of windows.
template <class T>
bool runs_as_windows(const ConvPlan<T>& plan, const Reach& reach) {
  int64_t most = 0;
  for (const ConvPart<T>& p : plan.parts) {
    if (p.kh * p.kw == 0) return false;
    most = std::max(most, p.kh * p.kw);
  }
  return takes_windows(reach.columns, most) && (plan.parts.size() == 1 || !plan.epilogue.residual);
}

// visit(pixel of the output, point of the grid) for all images.
template <class T, class Visit>
void for_each_point(const ConvPlan<T>& plan, const ConvPart<T>& part, const Visit& visit) {
  parallel_for(plan.y.n * part.rows, 8, [&](int64_t first, int64_t last) {
    for (int64_t at = first; at < last; ++at) {
      const int64_t row = at / part.rows * plan.y.h + part.out_row + at % part.rows * plan.out_step;
      for (int64_t i = 0; i < part.columns; ++i) visit(row * plan.y.w + part.out_column + i * plan.out_step, at * part.columns + i);
    }
  });
}

template <class T>
void run_windows(const ConvPlan<T>& plan) {
  const ImageView& y = plan.y;
  const int64_t depth = whole_sums<T>(plan.x.c);
  for (const ConvPart<T>& part : plan.parts) {
    const int64_t size = part.kh * part.kw * depth, points = plan.x.n * part.rows * part.columns;
    const HostScratch<T> windows(points * size);
    copy_windows(plan.x, {part.kh, part.kw, part.row, part.column, plan.stride, part.rows, part.columns}, depth, windows.get());
    RowsProduct<T> product{windows.get(), size, points, size, part.weights, data<T>(y), y.pitch, plan.epilogue, plan.moments};
    product.epilogue.past_caches = false;
    if (plan.parts.size() == 1) {
      run(product, plan.groups, plan.kernels);
      continue;
    }
    const HostScratch<T> grid(points * y.c);  // points of this part lie apart in the output
    if (plan.epilogue.accumulate)
      for_each_point(plan, part,
                     [&](int64_t pixel, int64_t p) { std::copy_n(data<T>(y) + pixel * y.pitch, y.c, grid.get() + p * y.c); });
    product.y = grid.get();
    product.y_pitch = y.c;
    run(product, plan.groups, plan.kernels);
    for_each_point(plan, part,
                   [&](int64_t pixel, int64_t p) { std::copy_n(grid.get() + p * y.c, y.c, data<T>(y) + pixel * y.pitch); });
  }
}

}  // namespace

template <class T>
void run(const ConvPlan<T>& plan) {
  const Reach reach = reach_of(plan.parts);
  if (plan.x.n == 0 || reach.rows == 0 || reach.columns == 0 || plan.groups.empty()) return;
  if (runs_as_windows(plan, reach)) return run_windows(plan);
  const auto groups = static_cast<int64_t>(plan.groups.size());
  int64_t work = 0, taps = 0;
  for (const ConvPart<T>& p : plan.parts) {
    work += p.columns * p.kh * p.kw * plan.x.c * plan.y.c;
    taps += p.kh * p.kw;
  }
  // Weights beyond L2 come from farther away once for each band; in shares that fit, they stay and the input comes once for each
  // share. That pays where an input serves many taps.
  const int64_t weights = taps * plan.x.c * packed_width(plan.groups, plan.kernels) * int64_t(sizeof(T));
  const Cut tasks =
      cut(plan.x.n, reach.rows, work, plan.x.w * plan.x.c * plan.stride * int64_t(sizeof(T)), groups, kBandBytes,
          std::clamp<int64_t>(ceil_div(weights, kWeightBytes), 1, groups),
          plan.kernels.band ? std::clamp(plan.x.n * reach.rows * work / kFewTasks, kLeastBandWork, kMostBandWork) : kLeastWork);
  const std::vector<int64_t> packed_start = packed_starts(plan.groups, plan.kernels);
  const ImageView& y = plan.y;
  if (plan.moments) plan.moments->start(plan.x.n * tasks.tasks * tasks.splits);
  parallel_chunks(plan.x.n * tasks.tasks * tasks.splits, [&](int64_t chunk) {
    const int64_t task = chunk % tasks.tasks, n = chunk / tasks.tasks % plan.x.n, split = chunk / tasks.tasks / plan.x.n;
    const int64_t group = split * groups / tasks.splits, group_end = (split + 1) * groups / tasks.splits;
    const int64_t end = std::min(reach.rows, (task + 1) * tasks.rows);
    ImageBands<T> image(plan, reach, packed_start, n);
    image.run_outer_columns(task * tasks.rows, end, group, group_end);
    for (int64_t first = task * tasks.rows; first < end; first += tasks.band) {
      const int64_t last = std::min(end, first + tasks.band);
      image.run(first, last, end, group, group_end);
      if (!plan.moments) continue;
      const int64_t channel = plan.groups[static_cast<size_t>(group)].start;
      plan.moments->add(chunk,
                        {data<T>(y) + (n * y.h + first) * y.w * y.pitch + channel, y.t, (last - first) * y.w,
                         channels_of(plan.groups, group, group_end), y.pitch},
                        channel);
    }
    if (plan.epilogue.past_caches) hwy::FlushStream();
  });
}

template <class T>
int64_t most_band_bytes(const ImageView& x, int64_t kh, int64_t kw, int64_t stride) {
  const int64_t row_bytes = std::max<int64_t>(x.w * x.c * stride * int64_t(sizeof(T)), 1);
  const int64_t band = std::clamp<int64_t>((kh * kw == 1 ? kRowsBytes : kBandBytes) / row_bytes, 1, x.h);
  const int64_t windows = x.h * (kw - 1) * kh * kw * x.c * int64_t(sizeof(T));  // of outer columns, of which are fewer than kw
  return std::max(((band - 1) * stride + kh) * band_pitch<T>(x.w + kw, whole_sums<T>(x.c)) * int64_t(sizeof(T)),
                  std::min(windows, kBandBytes));
}
template int64_t most_band_bytes<float>(const ImageView&, int64_t, int64_t, int64_t);
template int64_t most_band_bytes<BFloat16>(const ImageView&, int64_t, int64_t, int64_t);

constexpr int64_t kRowsWeightBytes = 1024 * 1024;
constexpr int64_t kSpreadBytes = 512;  // of a row: a pass has room to fetch a share of the next band
constexpr int64_t kDeepRows = 64;      // shorter rows of a single group gain nothing by being fetched two tiles ahead

template <class T>
void run(const RowsProduct<T>& product, const std::vector<ChannelGroup>& groups, const TileKernels<T>& kernels) {
  if (product.rows == 0 || groups.empty()) return;
  constexpr int64_t kUnit = 20;  // rows; a multiple of most tile heights
  const int64_t units = ceil_div(product.rows, kUnit);
  const int64_t work = kUnit * product.depth * packed_width(groups, kernels);
  const auto count = static_cast<int64_t>(groups.size());
  // Weights far beyond L2 are shared out like those of a plan, though an input serves one tap and comes again for every share.
  const int64_t weights = product.depth * packed_width(groups, kernels) * int64_t(sizeof(T));
  int64_t shares = weights / kRowsWeightBytes;
  // Fewer numbers in the rows than in the weights: sharing out these has less of both come from what another core has packed.
  if (product.rows < packed_width(groups, kernels)) shares = std::max(shares, units * work / kLeastWork);
  shares = std::clamp<int64_t>(shares, 1, count);
  const Cut tasks = cut(1, units, work, kUnit * product.depth * int64_t(sizeof(T)), count, kRowsBytes, shares);
  const std::vector<int64_t> packed_start = packed_starts(groups, kernels);
  const bool copies = crowded<T>(product.a_pitch, kernels);
  // The next band is fetched evenly while all groups pass over this one, where they take long enough; else by the first of them,
  // two tiles ahead.
  const bool spreads = copies || product.depth * int64_t(sizeof(T)) >= kSpreadBytes;
  const bool next_task_too = tasks.tasks >= 2 * compute_threads();  // most are followed by the next one on their thread
  const int64_t copy_pitch = product.depth + kLine<T>;
  const int64_t band = tasks.band * kUnit;
  if (product.moments) product.moments->start(tasks.tasks * tasks.splits);
  parallel_chunks(tasks.tasks * tasks.splits, [&](int64_t chunk) {
    const int64_t task = chunk % tasks.tasks, split = chunk / tasks.tasks;
    const int64_t first_group = split * count / tasks.splits, end_group = (split + 1) * count / tasks.splits;
    // Few rows are shared out evenly; of many, tasks take whole tiles.
    const auto start_of = [&](int64_t t) {
      return units > kEnoughTasks ? std::min(product.rows, t * tasks.rows * kUnit) : t * product.rows / tasks.tasks;
    };
    const int64_t end = start_of(task + 1);
    T* const copy = copies ? thread_scratch<T>(band * copy_pitch) : nullptr;
    std::vector<RowJob<T>> jobs;  // of a band
    RowJob<T> job = product.epilogue;
    job.kernel_rows = 1;
    job.next_tile_ahead = !copies;
    job.run = product.depth;
    job.a_step = copies ? copy_pitch : product.a_pitch;
    job.y_step = product.y_pitch;
    for (int64_t first = start_of(task); first < end; first += band) {
      job.a = product.a + first * product.a_pitch;
      job.second_tile_ahead = !spreads && (product.depth >= kDeepRows || count > 1);
      job.pixels = std::min(end - first, band);
      if (copies) {
        for (int64_t r = 0; r < job.pixels; ++r) std::copy_n(job.a + r * product.a_pitch, product.depth, copy + r * copy_pitch);
        job.a = copy;
      }
      const int64_t next = first + job.pixels, next_end = std::min(next + band, next_task_too ? product.rows : end);
      const Ahead ahead{reinterpret_cast<const char*>(product.a + next * product.a_pitch), next_end - next,
                        product.depth * int64_t(sizeof(T)), product.a_pitch * int64_t(sizeof(T))};
      jobs.clear();
      for (int64_t g = first_group; g < end_group; ++g) {
        const ChannelGroup& group = groups[static_cast<size_t>(g)];
        const int64_t start = packed_start[static_cast<size_t>(g)];
        set_group(job, product.epilogue, group, start);
        if (spreads) job.ahead = kernels.band ? ahead : ahead.part(g - first_group, end_group - first_group);
        job.w = product.weights + start * product.depth;
        job.y = product.y + first * product.y_pitch + group.start;
        if (product.epilogue.residual) job.residual = product.epilogue.residual + first * job.residual_step + group.start;
        if (kernels.band) {
          jobs.push_back(job);
          continue;
        }
        kernels.row(job);
        job.second_tile_ahead = false;  // fetched once
      }
      if (kernels.band) kernels.band({jobs});
      if (!product.moments) continue;
      const int64_t channel = groups[static_cast<size_t>(first_group)].start;
      product.moments->add(chunk,
                           {product.y + first * product.y_pitch + channel, kDTypeOf<T>, job.pixels,
                            channels_of(groups, first_group, end_group), product.y_pitch},
                           channel);
    }
    if (product.epilogue.past_caches) hwy::FlushStream();
  });
}

template void run(const ConvPlan<float>&);
template void run(const ConvPlan<BFloat16>&);
template void run(const RowsProduct<float>&, const std::vector<ChannelGroup>&, const TileKernels<float>&);
template void run(const RowsProduct<BFloat16>&, const std::vector<ChannelGroup>&, const TileKernels<BFloat16>&);

}  // namespace tessera::cpu
