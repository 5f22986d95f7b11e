#include "yolo/report/charts.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "tensor/base/check.h"
#include "yolo/report/axes.h"

namespace tessera {

namespace {

constexpr Rgb kBlue{31, 107, 190}, kOrange{235, 125, 30}, kGray{150, 150, 150}, kText{40, 40, 40};

// The text cut to `width` pixels, with a mark of the cut.
std::string fitted(Canvas& canvas, std::string text, double size, double width) {
  if (canvas.text_width(text, size) <= width) return text;
  while (!text.empty() && canvas.text_width(text + "…", size) > width) {
    size_t end = text.size() - 1;
    while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;  // whole characters only
    text.resize(end);
  }
  return text + "…";
}

// White to dark blue.
Rgb heat(double v) {
  v = std::clamp(v, 0.0, 1.0);
  const auto mix = [&](double light, double mid, double dark) {
    return uint8_t(std::lround(v < 0.5 ? light + (mid - light) * 2 * v : mid + (dark - mid) * (2 * v - 1)));
  };
  return {mix(252, 110, 8), mix(252, 172, 48), mix(252, 214, 107)};
}

}  // namespace

std::vector<double> gaussian_smooth(std::span<const double> y, double sigma) {
  TESSERA_CHECK(sigma > 0, "gaussian_smooth: sigma = {}", sigma);
  const int64_t n = int64_t(y.size()), radius = int64_t(4 * sigma + 0.5);
  std::vector<double> kernel;
  double total = 0;
  for (int64_t k = -radius; k <= radius; ++k) {
    kernel.push_back(std::exp(-0.5 * double(k * k) / (sigma * sigma)));
    total += kernel.back();
  }
  std::vector<double> out;
  for (int64_t i = 0; i < n; ++i) {
    double sum = 0;
    for (int64_t k = -radius; k <= radius; ++k) {
      const int64_t j = ((i + k) % (2 * n) + 2 * n) % (2 * n);  // mirrored with period 2n
      sum += kernel[size_t(k + radius)] * y[size_t(j < n ? j : 2 * n - 1 - j)];
    }
    out.push_back(sum / total);
  }
  return out;
}

void draw_curve_grid(const std::filesystem::path& file, std::span<const Curve> curves, int columns, const std::string& x_label) {
  TESSERA_CHECK(columns >= 1 && !curves.empty(), "draw_curve_grid: {} curves in {} columns", curves.size(), columns);
  constexpr int kWidth = 290, kHeight = 250, kTop = 40, kBottom = 28;
  const int rows = (int(curves.size()) + columns - 1) / columns;
  Canvas canvas(columns * kWidth + 20, rows * kHeight + kTop + kBottom);
  canvas.text(20, 20, "values", {12, kBlue, Align::kStart, 0, true});
  canvas.text(20 + canvas.text_width("values   ", 12, true), 20, "smoothed (Gaussian, sigma 3)",
              {12, kOrange, Align::kStart, 0, true});
  for (size_t i = 0; i < curves.size(); ++i) {
    const Curve& c = curves[i];
    TESSERA_CHECK(c.x.size() == c.y.size(), "curve '{}': {} x for {} y", c.title, c.x.size(), c.y.size());
    std::vector<double> x, y;  // the finite points
    for (size_t k = 0; k < c.x.size(); ++k) {
      if (std::isfinite(c.x[k]) && std::isfinite(c.y[k])) x.push_back(c.x[k]), y.push_back(c.y[k]);
    }
    Axes axes;
    axes.left = int(i) % columns * kWidth + 62;
    axes.top = int(i) / columns * kHeight + kTop + 26;
    axes.width = kWidth - 76;
    axes.height = kHeight - 66;
    axes.x = padded_range(x);
    axes.y = padded_range(y);
    axes.title = c.title;
    axes.whole_x = true;
    if (int(i) / columns == rows - 1) axes.x_label = x_label;
    axes.draw(canvas);
    axes.plot(canvas, x, y, kBlue, 1.8);
    if (x.size() <= 60) {
      for (size_t k = 0; k < x.size(); ++k) canvas.fill_circle(axes.to_x(x[k]), axes.to_y(y[k]), 2.6, kBlue);
    }
    if (x.size() >= 3) axes.plot(canvas, x, gaussian_smooth(y, 3), kOrange, 3, 1, true);
    if (x.empty()) canvas.text(axes.left + axes.width / 2, axes.top + axes.height / 2, "no values", {12, kGray, Align::kMiddle});
  }
  write_png(file, canvas.image());
}

void draw_class_curves(const std::filesystem::path& file, const ClassCurves& curves) {
  constexpr int kPlot = 620;
  const bool named = curves.classes.size() <= 20;
  Canvas canvas(kPlot + 380, kPlot + 110);
  Axes axes;
  axes.left = 74, axes.top = 44, axes.width = kPlot, axes.height = kPlot;
  axes.x = {0, 1}, axes.y = {0, 1};
  axes.title = curves.title, axes.x_label = curves.x_label, axes.y_label = curves.y_label;
  axes.draw(canvas);
  double legend = axes.top + 10;
  const double legend_left = axes.left + axes.width + 18;
  const auto entry = [&](const std::string& text, Rgb color, double width) {
    canvas.line(legend_left, legend, legend_left + 24, legend, color, width);
    canvas.text(legend_left + 32, legend, fitted(canvas, text, 12, 240), {12, kText});
    legend += 22;
  };
  for (size_t i = 0; i < curves.classes.size(); ++i) {
    const Curve& c = curves.classes[i];
    axes.plot(canvas, curves.x, c.y, named ? class_color(int32_t(i)) : kGray, named ? 1.4 : 0.8, named ? 0.9 : 0.5);
    if (named) entry(c.title, class_color(int32_t(i)), 2);
  }
  if (!named) entry(fmt::format("{} classes", curves.classes.size()), kGray, 1);
  if (!curves.mean.y.empty()) {
    axes.plot(canvas, curves.x, curves.mean.y, kText, 3.5);
    entry(curves.mean.title, kText, 3.5);
  }
  write_png(file, canvas.image());
}

namespace {

void draw_histogram(Canvas& canvas, const Axes& frame, const std::vector<std::string>& names, std::span<const int64_t> counts) {
  Axes axes = frame;
  const double n = double(std::max<size_t>(counts.size(), 1));
  axes.x = {0, n};
  int64_t largest = 1;
  for (const int64_t c : counts) largest = std::max(largest, c);
  axes.y = {0, double(largest) * 1.05};
  axes.title = "objects of each class";
  // The numbers of an axis say nothing here: classes are named instead.
  canvas.text(axes.left + axes.width / 2, axes.top - 12, axes.title, {13, kText, Align::kMiddle, 0, true});
  for (const double v : tick_values(axes.y, 6, true)) {
    canvas.line(axes.left, std::floor(axes.to_y(v)) + 0.5, axes.left + axes.width, std::floor(axes.to_y(v)) + 0.5, {226, 226, 226},
                1);
    canvas.text(axes.left - 6, axes.to_y(v), tick_label(v), {10.5, kText, Align::kEnd});
  }
  const double slot = axes.width / n;
  const size_t every = size_t(std::ceil(11 / slot));
  for (size_t i = 0; i < counts.size(); ++i) {
    const double x = axes.to_x(double(i)), y = axes.to_y(double(counts[i]));
    canvas.fill_rect(x + slot * 0.1, y, slot * 0.8, axes.top + axes.height - y, class_color(int32_t(i)));
    if (i % every != 0) continue;
    const std::string name = i < names.size() ? names[i] : std::to_string(i);
    const double size = 10.5;
    if (slot > canvas.text_width(name, size) + 6) {
      canvas.text(x + slot / 2, axes.top + axes.height + 12, name, {size, kText, Align::kMiddle});
    } else {
      canvas.text(x + slot / 2, axes.top + axes.height + 6, fitted(canvas, name, size, 62), {size, kText, Align::kEnd, 90});
    }
  }
  canvas.line(axes.left, axes.top + axes.height + 0.5, axes.left + axes.width, axes.top + axes.height + 0.5, {120, 120, 120}, 1);
}

// Two-dimensional histogram of points in [0, 1]^2; `down`: y grows downwards, as in an image.
void draw_density(Canvas& canvas, Axes axes, std::span<const std::array<float, 4>> boxes, size_t x, size_t y, bool down) {
  constexpr int kBins = 50;
  std::vector<int64_t> bins(size_t(kBins * kBins));
  int64_t largest = 1;
  for (const auto& b : boxes) {
    if (!std::isfinite(b[x]) || !std::isfinite(b[y])) continue;
    const auto bin = [](float v) { return size_t(std::clamp(int(v * float(kBins)), 0, kBins - 1)); };
    largest = std::max(largest, ++bins[bin(b[y]) * kBins + bin(b[x])]);
  }
  axes.x = {0, 1};
  axes.y = down ? ValueRange{1, 0} : ValueRange{0, 1};
  axes.draw(canvas);
  const double w = axes.width / kBins, h = axes.height / kBins;
  for (int j = 0; j < kBins; ++j) {
    for (int i = 0; i < kBins; ++i) {
      const int64_t n = bins[size_t(j) * kBins + size_t(i)];
      if (n == 0) continue;
      const double left = axes.left + i * w, top = down ? axes.top + j * h : axes.top + axes.height - (j + 1) * h;
      canvas.fill_rect(left, top, w, h, heat(0.25 + 0.75 * std::sqrt(double(n) / double(largest))));
    }
  }
}

}  // namespace

void draw_label_statistics(const std::filesystem::path& file, const std::vector<std::string>& names,
                           std::span<const int64_t> counts, std::span<const std::array<float, 4>> boxes) {
  constexpr int kCell = 500, kPlot = 400;
  Canvas canvas(2 * kCell, 2 * kCell);
  const auto frame = [&](int column, int row) {
    Axes a;
    a.left = column * kCell + 74, a.top = row * kCell + 34, a.width = kPlot, a.height = kPlot;
    return a;
  };
  Axes histogram = frame(0, 0);
  histogram.height -= 25;  // room for the names
  draw_histogram(canvas, histogram, names, counts);

  Axes all = frame(1, 0);
  all.x = {-0.5, 0.5}, all.y = {0.5, -0.5};
  all.title = "boxes, centres moved together";
  all.draw(canvas);
  canvas.clip(all.left, all.top, all.width, all.height);
  const size_t step = std::max<size_t>(1, boxes.size() / 1000);  // a thousand lines say as much as a million
  for (size_t i = 0; i < boxes.size(); i += step) {
    const double w = double(boxes[i][2]) * all.width, h = double(boxes[i][3]) * all.height;
    if (!std::isfinite(w) || !std::isfinite(h)) continue;
    canvas.stroke_rect(all.left + (all.width - w) / 2, all.top + (all.height - h) / 2, w, h, class_color(int32_t(i / step)), 1,
                       0.35);
  }
  canvas.unclip();

  Axes centers = frame(0, 1), sizes = frame(1, 1);
  centers.title = "centres", centers.x_label = "x / width", centers.y_label = "y / height";
  draw_density(canvas, centers, boxes, 0, 1, true);
  sizes.title = "sizes", sizes.x_label = "box width / width", sizes.y_label = "box height / height";
  draw_density(canvas, sizes, boxes, 2, 3, false);
  write_png(file, canvas.image());
}

namespace {

struct MatrixLayout {
  explicit MatrixLayout(size_t rows) : n(rows) {}
  size_t n;  // classes and the background
  bool numbers = n <= 31;
  static constexpr double kMostSide = 6000;  // of thousands of classes: a canvas has no more than 32767 pixels a side
  double cell = std::min(std::max(numbers ? 36.0 : 9.0, n <= 12 ? 600.0 / double(n) : 0.0), kMostSide / double(n));
  double side = cell * double(n), left = 150, top = 50;
  int width = int(left + side) + 110, height = int(top + side) + 150;
};

Image confusion_image(const std::vector<std::string>& names, const ConfusionValue& value, bool normalized) {
  const auto [n, numbers, cell, side, left, top, width, height] = MatrixLayout(names.size() + 1);
  const double name_size = std::min(11.5, cell * 0.95);
  Canvas canvas(width, height);
  double largest = normalized ? 1.0 : 1e-9;
  for (size_t r = 0; r < n; ++r) {
    for (size_t c = 0; c < n; ++c) {
      const double v = value(r, c);
      if (std::isfinite(v)) largest = std::max(largest, v);
    }
  }
  canvas.text(left + side / 2, 22, normalized ? "confusion matrix, columns normalised" : "confusion matrix",
              {15, kText, Align::kMiddle, 0, true});
  canvas.fill_rect(left, top, side, side, {252, 252, 252});
  for (size_t r = 0; r < n; ++r) {
    for (size_t c = 0; c < n; ++c) {
      const double v = value(r, c), x = left + double(c) * cell, y = top + double(r) * cell;
      if (!std::isfinite(v) || v < (normalized ? 0.005 : 0.5)) continue;
      const Rgb color = heat(v / largest);
      canvas.fill_rect(x, y, cell, cell, color);
      if (!numbers) continue;
      const std::string text = normalized ? fmt::format("{:.2f}", v) : fmt::format("{:.0f}", v);
      canvas.text(x + cell / 2, y + cell / 2, text, {std::min(13.0, cell * 0.32), text_color_on(color), Align::kMiddle});
    }
  }
  double longest = 0;
  for (size_t i = 0; i < n; ++i) {
    const std::string name = fitted(canvas, i + 1 < n ? names[i] : "background", name_size, 108);
    const double at = (double(i) + 0.5) * cell;
    canvas.text(left - 6, top + at, name, {name_size, kText, Align::kEnd});
    canvas.text(left + at, top + side + 6, name, {name_size, kText, Align::kEnd, 90});
    longest = std::max(longest, canvas.text_width(name, name_size));
    if (numbers && i > 0) {
      canvas.line(left + double(i) * cell, top, left + double(i) * cell, top + side, {230, 230, 230}, 1);
      canvas.line(left, top + double(i) * cell, left + side, top + double(i) * cell, {230, 230, 230}, 1);
    }
  }
  canvas.stroke_rect(left, top, side, side, {120, 120, 120}, 1);
  canvas.text(left + side / 2, top + side + longest + 22, "true", {14, kText, Align::kMiddle});
  canvas.text(left - longest - 24, top + side / 2, "predicted", {14, kText, Align::kMiddle, 90});
  const double bar = left + side + 24;
  for (int i = 0; i < 100; ++i) canvas.fill_rect(bar, top + side * (99 - i) / 100.0, 18, side / 100 + 0.5, heat((i + 0.5) / 100));
  for (const double v : tick_values({0, largest}, 5))
    canvas.text(bar + 24, top + side * (1 - v / largest), tick_label(v), {10.5, kText});
  return canvas.image();
}

}  // namespace

void draw_confusion_matrix(const std::filesystem::path& file, const std::vector<std::string>& names, const ConfusionValue& value,
                           bool normalized) {
  write_png(file, confusion_image(names, value, normalized));  // the canvas is gone before the file is made
}

int64_t confusion_drawing_bytes(int64_t classes) {
  const MatrixLayout layout(size_t(classes) + 1);
  // Four bytes a pixel of the canvas beside three of the image; then those beside three that are filtered, and what they are
  // packed to.
  return int64_t{8} * layout.width * layout.height;
}

}  // namespace tessera
