// The frame of a chart: a rectangle on a canvas with value ranges, ticks at round numbers, grid lines and titles.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "yolo/report/canvas.h"

namespace tessera {

struct ValueRange {
  double low = 0, high = 1;  // of the left and right, or lower and upper end; may fall
};

// Multiples of 1, 2, 2.5 or 5 times a power of ten inside the range, about `wanted` of them; `whole`: whole numbers only.
std::vector<double> tick_values(const ValueRange& range, int wanted, bool whole = false);
std::string tick_label(double value);
// The range of the finite values with a margin of 5 % on both sides; 0..1 for none, and never of length zero.
ValueRange padded_range(std::span<const double> values, double margin = 0.05);

struct Axes {
  double left = 0, top = 0, width = 1, height = 1;  // of the plot area on the canvas
  ValueRange x, y;
  std::string title, x_label, y_label;
  bool whole_x = false;

  double to_x(double v) const { return left + (v - x.low) / (x.high - x.low) * width; }
  double to_y(double v) const { return top + height - (v - y.low) / (y.high - y.low) * height; }
  // Background, grid, ticks with their numbers, titles.
  void draw(Canvas& canvas) const;
  // Connects the finite points in order; gaps are left where a value is not finite.
  void plot(Canvas& canvas, std::span<const double> xs, std::span<const double> ys, Rgb color, double line_width, double alpha = 1,
            bool dots = false) const;
};

}  // namespace tessera
