// Charts as PNG files, written atomically: training curves, precision and recall curves of classes, label statistics and confusion
// matrices. Values that are not finite are left out of a chart, never an error. All throw Error(kIo) when the disk refuses.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <vector>

namespace tessera {

struct Curve {
  std::string title;
  std::vector<double> x, y;  // of equal length
};

// A grid of small charts, row by row: the values with dots and, from three points on, their Gaussian-smoothed course (sigma 3
// points) as a dotted line (results.png, spec 8.10). `x_label` stands below the last row.
void draw_curve_grid(const std::filesystem::path& file, std::span<const Curve> curves, int columns,
                     const std::string& x_label = "epoch");

// y filtered by a Gaussian of `sigma` points, cut off at 4 sigma, the ends mirrored (d c b a | a b c d | d c b a).
std::vector<double> gaussian_smooth(std::span<const double> y, double sigma);

// One line for each class over a common x in [0, 1], and their mean, thick: the PR, F1, P and R curves.
struct ClassCurves {
  std::string title, x_label, y_label;
  std::vector<double> x;
  std::vector<Curve> classes;  // title: class name and what the legend says of it; y over the common x
  Curve mean;                  // likewise; no values: not drawn
};
// Up to 20 classes are coloured and named, more are thin and grey.
void draw_class_curves(const std::filesystem::path& file, const ClassCurves& curves);

// Objects of each class, all boxes drawn on one another, and where centres and sizes lie (labels.png). boxes: centre x, centre y,
// width, height in fractions of their image.
void draw_label_statistics(const std::filesystem::path& file, const std::vector<std::string>& names,
                           std::span<const int64_t> counts, std::span<const std::array<float, 4>> boxes);

// value(predicted, actual) with 0 .. names, the last of each is background: rows predicted, columns true. `normalized`: fractions,
// shown with two digits from 0.005 on (spec 9.5); else counts. Called instead of stored: of thousands of classes there are
// millions.
using ConfusionValue = std::function<double(size_t predicted, size_t actual)>;
void draw_confusion_matrix(const std::filesystem::path& file, const std::vector<std::string>& names, const ConfusionValue& value,
                           bool normalized = true);
// What drawing takes at most, while it goes on.
int64_t confusion_drawing_bytes(int64_t classes);

}  // namespace tessera
