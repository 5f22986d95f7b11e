#include "tensor/cpu/conv_weight_in_place.h"

#include "tensor/cpu/conv_band.h"
#include "tensor/cpu/conv_scratch.h"

namespace tessera::cpu {

namespace {

constexpr int64_t kWindowBytes = 256 * 1024;  // of windows that are copied where the rest is read in place
constexpr int64_t kInnerColumns = 12;         // that are read in place, per column that is copied
constexpr int64_t kTapChannels = 64;          // from so many on, taps are summed one by one

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// From pixel to pixel of a copy of dy: an odd number of lines.
int64_t spread(int64_t outputs) { return (ceil_div(outputs, kLine<float>) / 2 * 2 + 1) * kLine<float>; }

}  // namespace

InPlaceGradient::InPlaceGradient(const WeightGradient<float>& g) : g_(g) {
  const ImageView &x = g.x, &dy = g.dy;
  by_tap_ = x.pitch != x.c || x.c >= kTapChannels;
  taps_of_row_ = by_tap_ ? g.dw.kw : 1;
  run_ = g.dw.kw * x.c / taps_of_row_;
  columns_ = {0, dy.w};
  if (!by_tap_) columns_ = columns_under(0);
  window_ = g.dw.kh * g.dw.kw * x.c;
  most_ = std::max<int64_t>(1, kWindowBytes / (window_ * int64_t(sizeof(float))));
  most_rows_ = ceil_div(g.k.job_pixels, std::max<int64_t>(columns_.size(), 1));
}

bool InPlaceGradient::pays() const {
  return run_ % g_.k.lanes == 0 && columns_.size() > 0 && columns_.size() >= kInnerColumns * (g_.dy.w - columns_.size());
}

Range InPlaceGradient::columns_under(int64_t tap) const {
  const int64_t pad = g_.p.pad - tap, width = g_.dw.kw / taps_of_row_, stride = g_.p.stride;
  const int64_t last = g_.x.w + pad - width;  // column of the padded image where the last window inside starts
  const int64_t begin = std::clamp<int64_t>(ceil_div(pad, stride), 0, g_.dy.w);
  return {begin, std::clamp<int64_t>(last < 0 ? 0 : last / stride + 1, begin, g_.dy.w)};
}

// Pixels of dy whole KiB apart share few sets of L1: those of a job are copied.
bool InPlaceGradient::copies_dy() const { return g_.dy.pitch * int64_t(sizeof(float)) % 1024 == 0; }

int64_t InPlaceGradient::scratch(int64_t outputs) const {
  const int64_t windows = columns_.size() == g_.dy.w ? 0 : std::min(most_, g_.dy.h) * window_ + kLine<float>;
  return std::max(windows, copies_dy() ? std::min(most_rows_, g_.dy.h) * columns_.size() * spread(outputs) : 0);
}

Ahead InPlaceGradient::under_tap(int64_t n, int64_t y, int64_t column, int64_t rows, Range q) const {
  const ImageView& x = g_.x;
  const int64_t first = std::max<int64_t>(0, (n * x.h + y) * x.w + column), step = g_.p.stride;
  const int64_t pixels = std::clamp<int64_t>((x.n * x.h * x.w - first) / step, 0, rows * x.w);  // rows in between, too
  constexpr auto kSize = int64_t(sizeof(float));
  return {reinterpret_cast<const char*>(data<const float>(x) + first * x.pitch + q.begin), pixels, q.size() * kSize,
          step * x.pitch * kSize};
}

void InPlaceGradient::sum_rows(Range at, Range o, Range taps, Range q, float* out, bool accumulate) const {
  const auto& [k, x, dy, dw, p] = g_;
  WeightJob<float> job;
  job.outputs = o.size();
  job.dw_step = window_;
  job.run = q.size();
  job.x_row = p.stride * x.w * x.pitch;
  job.x_step = p.stride * x.pitch;
  const bool copies = copies_dy();
  job.d_step = copies ? spread(job.outputs) : dy.pitch;
  job.d_row = copies ? columns_.size() * job.d_step : dy.w * dy.pitch;
  for (int64_t row = at.begin; row < at.end;) {
    const int64_t n = row / dy.h, y = row % dy.h;
    const int64_t rows = std::min(at.end - row, dy.h - y), jobs = ceil_div(rows, most_rows_);
    for (int64_t i = 0; i < jobs; ++i) {
      const Range r = share(rows, jobs, i);
      // The rows that the next job is the first to read.
      const int64_t below = (y + r.end) * p.stride - p.pad + std::max<int64_t>(0, dw.kh - p.stride);
      const Ahead x_ahead = ahead_of<float>(x, (n * x.h + below) * x.w, r.size() * p.stride * x.w, 0, x.c);
      const Ahead d_ahead = ahead_of<float>(dy, (row + r.end) * dy.w, r.size() * dy.w, o.begin, job.outputs);
      const float* d = data<const float>(dy) + ((row + r.begin) * dy.w + columns_.begin) * dy.pitch + o.begin;
      if (copies) {
        float* memory = thread_scratch<float>(r.size() * job.d_row);
        for (int64_t j = 0; j < r.size(); ++j) {
          for (int64_t c = 0; c < columns_.size(); ++c)
            std::copy_n(d + (j * dy.w + c) * dy.pitch, job.outputs, memory + j * job.d_row + c * job.d_step);
        }
        d = memory;
      }
      for (int64_t tap = taps.begin; tap < taps.end; ++tap) {
        const int64_t ky = tap / taps_of_row_, kx = tap % taps_of_row_;
        const int64_t first = (y + r.begin) * p.stride - p.pad + ky;  // row of x
        const int64_t above = std::clamp<int64_t>(ceil_div(-first, p.stride), 0, r.size());
        job.rows = std::clamp<int64_t>(ceil_div(x.h - first, p.stride), above, r.size()) - above;
        const Range columns = columns_under(kx);
        job.pixels = columns.size();
        job.accumulate = accumulate || i > 0;
        if (job.rows * job.pixels == 0 && job.accumulate) continue;
        job.d = d + above * job.d_row + (columns.begin - columns_.begin) * job.d_step;
        const int64_t column = columns.begin * p.stride - p.pad + kx;
        job.x = data<const float>(x) + ((n * x.h + first + above * p.stride) * x.w + column) * x.pitch + q.begin;
        job.dw = out + o.begin * window_ + (ky * dw.kw + kx) * x.c + q.begin;
        job.x_ahead = taps.size() > 1 ? x_ahead.part(tap - taps.begin, taps.size())
                                      : under_tap(n, first + r.size() * p.stride, column, r.size(), q);
        job.d_ahead = d_ahead.part(tap - taps.begin, taps.size());
        k.weight(job);
      }
    }
    if (columns_.size() < dy.w) sum_outer_windows(n, y, rows, o, out);
    row += rows;
    accumulate = true;
  }
}

// Of the output rows [y, y + rows) of image n.
void InPlaceGradient::sum_outer_windows(int64_t n, int64_t y, int64_t rows, Range o, float* out) const {
  const auto& [k, x, dy, dw, p] = g_;
  WeightJob<float> job;
  job.outputs = o.size();
  job.run = job.x_row = job.dw_step = window_;
  job.d_row = dy.w * dy.pitch;
  job.pixels = 1;
  job.dw = out + o.begin * window_;
  job.accumulate = true;
  for (int64_t column = 0; column < dy.w; ++column) {
    if (column >= columns_.begin && column < columns_.end) column = columns_.end;
    if (column >= dy.w) break;
    for (int64_t r = 0; r < rows; r += job.rows) {
      job.rows = std::min(rows - r, most_);
      float* memory = thread_scratch<float>(job.rows * window_ + kLine<float>);
      for (int64_t i = 0; i < job.rows; ++i) {
        const BandWindow window{n, (y + r + i) * p.stride - p.pad, dw.kh, column * p.stride - p.pad, dw.kw};
        copy_band(x, window, x.c, memory + i * window_, dw.kw * x.c);
      }
      job.x = memory;
      job.d = data<const float>(dy) + ((n * dy.h + y + r) * dy.w + column) * dy.pitch + o.begin;
      k.weight(job);
    }
  }
}

}  // namespace tessera::cpu
