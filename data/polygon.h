// Polygons in pixels or fractions of an image: boxes, resampling, filling and contour tracing with OpenCV's exact pixels, and the
// joining of several parts into one chain.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "tensor/pixel_box.h"

namespace tessera {

struct Point {
  float x = 0, y = 0;
  bool operator==(const Point&) const = default;
};

struct PixelPoint {
  int x = 0, y = 0;
  bool operator==(const PixelPoint&) const = default;
};

using Polygon = std::vector<Point>;  // one ring, not closed: the last vertex is joined to the first

struct BoxXyxy {
  float x1 = 0, y1 = 0, x2 = 0, y2 = 0;
  float width() const { return x2 - x1; }
  float height() const { return y2 - y1; }
  bool operator==(const BoxXyxy&) const = default;
};

// Minimum and maximum over the vertices; all zero for no vertex.
BoxXyxy bounding_box(std::span<const Point> polygon);
void clamp_points(std::span<Point> polygon, const BoxXyxy& box);

// How many vertices all polygons of one image are brought to: 1000, or one more than the longest (spec 5.5).
int64_t resample_count(int64_t longest_polygon);
// `count` points along the closed ring, equally spaced in the vertex index; every vertex stays when the ring is shorter than that.
// A ring of exactly `count` vertices is returned unchanged (spec 5.5). Needs at least one vertex.
Polygon resample(std::span<const Point> polygon, int64_t count);

// A filled polygon in rows of bits: the pixels of OpenCV's fillPoly with 8-connected lines (spec 14.6), that is the outline and the
// even-odd interior. The outline is drawn as it is; of the interior only the columns are noted where a row goes in or out, and
// their parity up to a column says whether it is inside. Memory for one polygon after the other.
class PolygonBits {
 public:
  static constexpr int kBits = 64;  // column x of a row is bit x % 64 of word x / 64

  // Draws on a plane of height x width, instead of what was there before. Vertices may lie anywhere in +-2^24; fractions are
  // truncated toward zero, as the labels are drawn (spec 5.6). Returns a rectangle that holds all that was drawn.
  PixelBox draw(std::span<const PixelPoint> polygon, int height, int width);
  PixelBox draw(std::span<const Point> polygon, int height, int width);

  // Words [first_word, end_word) of row y of that rectangle, outside of which all are 0.
  void row(int y, uint64_t* words) const;
  int first_word() const { return drawn_.x0 / kBits; }
  int end_word() const { return (drawn_.x1 + kBits - 1) / kBits; }

 private:
  struct Word {
    uint64_t outline = 0, toggles = 0;
  };
  static uint64_t bit(int x) { return uint64_t(1) << x % kBits; }
  Word& word(int x, int y) { return words_[size_t(y) * size_t(pitch_) + size_t(x / kBits)]; }
  void set(int x, int y) { word(x, y).outline |= bit(x); }
  void cover(int x, int y);
  void clear();
  void add_edge(PixelPoint a, PixelPoint b, bool inside);
  void add_line(int64_t x1, int64_t y1, int64_t x2, int64_t y2);
  void cross(int64_t x, int y);

  int height_ = 0, width_ = 0, pitch_ = 0;
  std::vector<Word> words_;  // height x pitch, all 0 outside `drawn_`
  PixelBox drawn_;
  std::vector<PixelPoint> pixels_;
};

// The same pixels set to `value` in a plane of height x width bytes; those outside the polygon keep theirs. Returns the same rectangle.
PixelBox fill_polygon(std::span<const PixelPoint> polygon, uint8_t* plane, int height, int width, uint8_t value = 1);
PixelBox fill_polygon(std::span<const Point> polygon, uint8_t* plane, int height, int width, uint8_t value = 1);

// Outer contours of the 8-connected components of the set pixels of a mask (rows of bits, tensor/bit_rows.h), corner points only,
// in OpenCV's order: by first pixel in raster order, last component first; components inside a hole of another are left out
// (spec 14.7).
std::vector<std::vector<PixelPoint>> external_contours(const uint32_t* words, int height, int width);

// In double, as label text is computed from COCO's numbers.
struct PrecisePoint {
  double x = 0, y = 0;
  bool operator==(const PrecisePoint&) const = default;
};
using PrecisePolygon = std::vector<PrecisePoint>;

// Joins the parts of one object into one chain of vertices through the closest pairs of parts that follow one another, including the
// quirk of reversed middle parts (spec 10.3): their bridges are longer than they need to be, the pixels inside are the same. One part
// is returned as it is, parts without vertices are left out.
Polygon merge_parts(std::span<const Polygon> parts);
PrecisePolygon merge_parts(std::span<const PrecisePolygon> parts);

}  // namespace tessera
