#include "yolo/report/axes.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace tessera {

namespace {
constexpr Rgb kFrame{120, 120, 120}, kGrid{226, 226, 226}, kText{50, 50, 50};
constexpr double kTickSize = 10.5, kTitleSize = 13;
}  // namespace

std::vector<double> tick_values(const ValueRange& range, int wanted, bool whole) {
  const double low = std::min(range.low, range.high), high = std::max(range.low, range.high), span = high - low;
  if (!(span > 0) || !std::isfinite(span)) return {};
  const double rough = span / std::max(1, wanted), power = std::pow(10, std::floor(std::log10(rough)));
  double step = 10 * power;
  for (const double s : {1.0, 2.0, 2.5, 5.0}) {
    if (s * power >= rough * 0.999) {
      step = s * power;
      break;
    }
  }
  if (whole) step = std::max(1.0, std::ceil(step));
  std::vector<double> out;
  for (double k = std::ceil(low / step - 1e-9); k * step <= high + 1e-9 * span; ++k) out.push_back(k == 0 ? 0.0 : k * step);
  return out;
}

std::string tick_label(double value) { return fmt::format("{:.6g}", value); }

ValueRange padded_range(std::span<const double> values, double margin) {
  ValueRange r{INFINITY, -INFINITY};
  for (const double v : values) {
    if (std::isfinite(v)) r.low = std::min(r.low, v), r.high = std::max(r.high, v);
  }
  if (r.low > r.high) return {0, 1};
  double pad = (r.high - r.low) * margin;
  if (!(pad > 1e-12 * std::max(std::abs(r.low), std::abs(r.high)))) pad = r.low == 0 ? 0.5 : std::abs(r.low) * 0.1;
  return {r.low - pad, r.high + pad};
}

void Axes::draw(Canvas& canvas) const {
  canvas.fill_rect(left, top, width, height, {252, 252, 252});
  const auto crisp = [](double v) { return std::floor(v) + 0.5; };  // one-pixel lines fall onto pixels
  for (const double v : tick_values(y, std::max(2, int(height / 36)))) {
    canvas.line(left, crisp(to_y(v)), left + width, crisp(to_y(v)), kGrid, 1);
    canvas.text(left - 6, to_y(v), tick_label(v), {kTickSize, kText, Align::kEnd});
  }
  for (const double v : tick_values(x, std::max(2, int(width / 60)), whole_x)) {
    canvas.line(crisp(to_x(v)), top, crisp(to_x(v)), top + height, kGrid, 1);
    canvas.text(to_x(v), top + height + 11, tick_label(v), {kTickSize, kText, Align::kMiddle});
  }
  canvas.stroke_rect(crisp(left), crisp(top), std::floor(width), std::floor(height), kFrame, 1);
  canvas.text(left + width / 2, top - 12, title, {kTitleSize, {20, 20, 20}, Align::kMiddle, 0, true});
  canvas.text(left + width / 2, top + height + 30, x_label, {kTickSize + 1, kText, Align::kMiddle});
  canvas.text(left - 48, top + height / 2, y_label, {kTickSize + 1, kText, Align::kMiddle, 90});
}

void Axes::plot(Canvas& canvas, std::span<const double> xs, std::span<const double> ys, Rgb color, double line_width, double alpha,
                bool dots) const {
  std::vector<Point> run;
  const auto flush = [&] {
    if (run.size() > 1) canvas.polyline(run, color, line_width, alpha, dots);
    if (run.size() == 1) canvas.fill_circle(double(run[0].x), double(run[0].y), line_width, color, alpha);
    run.clear();
  };
  canvas.clip(left - 2, top - 2, width + 4, height + 4);
  for (size_t i = 0; i < std::min(xs.size(), ys.size()); ++i) {
    if (std::isfinite(xs[i]) && std::isfinite(ys[i])) {
      run.push_back({float(to_x(xs[i])), float(to_y(ys[i]))});
    } else {
      flush();
    }
  }
  flush();
  canvas.unclip();
}

}  // namespace tessera
