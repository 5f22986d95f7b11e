// A drawing surface for charts and labels: anti-aliased lines, rectangles and text through Cairo, which stays out of this header.
// Coordinates are pixels, x to the right, y down; pixel (0, 0) covers [0, 1) x [0, 1).
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "data/image.h"
#include "data/polygon.h"

namespace tessera {

struct Rgb {
  uint8_t r = 0, g = 0, b = 0;
  bool operator==(const Rgb&) const = default;
};

// Twenty colours that can be told apart, by class mod 20 as in the original's overlays (spec 4.5).
Rgb class_color(int32_t class_id);
// Black or white, whichever is easier to read on `background`.
Rgb text_color_on(Rgb background);

enum class Align { kStart, kMiddle, kEnd };

struct TextStyle {
  double size = 12;  // pixels
  Rgb color;
  Align horizontal = Align::kStart;  // which point of the text lies at x; y is the middle of its lower-case letters
  double angle = 0;                  // degrees, counter-clockwise
  bool bold = false;
};

class Canvas {
 public:
  Canvas(int width, int height, Rgb background = {255, 255, 255});
  ~Canvas();
  Canvas(const Canvas&) = delete;
  Canvas& operator=(const Canvas&) = delete;

  void fill_rect(double x, double y, double width, double height, Rgb color, double alpha = 1);
  void stroke_rect(double x, double y, double width, double height, Rgb color, double line_width, double alpha = 1);
  void fill_circle(double x, double y, double radius, Rgb color, double alpha = 1);
  // `dots`: round dots instead of a continuous line.
  void polyline(std::span<const Point> points, Rgb color, double line_width, double alpha = 1, bool dots = false);
  void line(double x1, double y1, double x2, double y2, Rgb color, double line_width, double alpha = 1);

  // Font DejaVu Sans; without any font installed nothing or a substitute is drawn. Bytes that are not UTF-8 become '?'.
  void text(double x, double y, std::string_view text, const TextStyle& style);
  double text_width(std::string_view text, double size, bool bold = false);

  // All drawing is kept inside until the matching unclip().
  void clip(double x, double y, double width, double height);
  void unclip();

  Image image() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tessera
