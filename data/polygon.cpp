#include "data/polygon.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "tensor/base/check.h"
#include "tensor/bit_rows.h"

namespace tessera {

BoxXyxy bounding_box(std::span<const Point> polygon) {
  if (polygon.empty()) return {};
  BoxXyxy box{polygon[0].x, polygon[0].y, polygon[0].x, polygon[0].y};
  const auto include = [&](const BoxXyxy& b) {
    box = {std::min(box.x1, b.x1), std::min(box.y1, b.y1), std::max(box.x2, b.x2), std::max(box.y2, b.y2)};
  };
  // Four boxes in turns: each vertex would wait for the one before.
  constexpr size_t kTurns = 4;
  std::array<BoxXyxy, kTurns> boxes;
  boxes.fill(box);
  size_t i = 0;
  for (; i + kTurns <= polygon.size(); i += kTurns)
    for (size_t k = 0; k < kTurns; ++k) {
      const Point p = polygon[i + k];
      boxes[k] = {std::min(boxes[k].x1, p.x), std::min(boxes[k].y1, p.y), std::max(boxes[k].x2, p.x), std::max(boxes[k].y2, p.y)};
    }
  for (const BoxXyxy& b : boxes) include(b);
  for (; i < polygon.size(); ++i) include({polygon[i].x, polygon[i].y, polygon[i].x, polygon[i].y});
  return box;
}

void clamp_points(std::span<Point> polygon, const BoxXyxy& box) {
  for (Point& p : polygon) {
    p.x = std::min(std::max(p.x, box.x1), box.x2);
    p.y = std::min(std::max(p.y, box.y1), box.y2);
  }
}

int64_t resample_count(int64_t longest_polygon) { return longest_polygon > 1000 ? longest_polygon + 1 : 1000; }

Polygon resample(std::span<const Point> polygon, int64_t count) {
  const int64_t k = int64_t(polygon.size());
  TESSERA_CHECK(k > 0 && count > 1, "resample: {} vertices to {}", k, count);
  if (k == count) return Polygon(polygon.begin(), polygon.end());
  Polygon out(static_cast<size_t>(count));
  Point* next = out.data();
  const bool keep_vertices = k + 1 < count;
  const int64_t spaced = keep_vertices ? count - (k + 1) : count;  // parameters over [0, k], both ends included
  const double step = spaced > 1 ? double(k) / double(spaced - 1) : 0.0;
  const int64_t before_end = spaced > 1 ? spaced - 1 : spaced;  // all but the last, which is k itself
  int64_t i = 0;
  for (int64_t vertex = 0; vertex < k; ++vertex) {
    const Point a = polygon[size_t(vertex)], b = polygon[size_t(vertex + 1 < k ? vertex + 1 : 0)];
    if (keep_vertices) *next++ = a;
    // Those between this vertex and the next; the quotient is rounded, what it is to find is not.
    int64_t end = step > 0 ? std::min(int64_t(double(vertex + 1) / step) + 1, before_end) : before_end;
    while (end > i && double(end - 1) * step >= double(vertex + 1)) --end;
    while (end < before_end && double(end) * step < double(vertex + 1)) ++end;
    const double x = a.x, y = a.y, dx = double(b.x) - x, dy = double(b.y) - y, begin = double(vertex);
    for (; i < end; ++i) {
      const double f = double(int32_t(i)) * step - begin;
      *next++ = {float(x + f * dx), float(y + f * dy)};
    }
  }
  if (keep_vertices) *next++ = polygon[0];
  if (spaced > 1) {
    const Point a = polygon[size_t(k - 1)], b = polygon[0];
    *next++ = {float(a.x + (double(b.x) - a.x)), float(a.y + (double(b.y) - a.y))};
  }
  return out;
}

// ---- filling ---------------------------------------------------------------------------------------------------------

namespace {

struct Edge {
  int64_t x1, y1, x2, y2;
};

// Moves the end (x, y) to the nearer of the sides y = 0 and y = last, along the line to (ox, oy).
void clip_end(int64_t& x, int64_t& y, int64_t ox, int64_t oy, int64_t last) {
  if (y >= 0 && y <= last) return;
  const int64_t side = y < 0 ? 0 : last;
  x += int64_t(double(side - y) * double(ox - x) / double(oy - y));
  y = side;
}

// Integer clipping of a line to the image (spec 14.6, step 1); false when nothing of it is inside.
bool clip_edge(Edge& e, int64_t right, int64_t bottom) {
  const auto beyond = [&](int64_t a, int64_t b, int64_t last) { return (a < 0 && b < 0) || (a > last && b > last); };
  if (beyond(e.y1, e.y2, bottom) || beyond(e.x1, e.x2, right)) return false;
  clip_end(e.x1, e.y1, e.x2, e.y2, bottom);
  clip_end(e.x2, e.y2, e.x1, e.y1, bottom);
  if (beyond(e.x1, e.x2, right)) return false;
  clip_end(e.y1, e.x1, e.y2, e.x2, right);
  clip_end(e.y2, e.x2, e.y1, e.x1, right);
  return true;
}

constexpr int64_t kOne = int64_t(1) << 16;

}  // namespace

PixelBox PolygonBits::draw(std::span<const Point> polygon, int height, int width) {
  pixels_.resize(polygon.size());
  for (size_t i = 0; i < polygon.size(); ++i) pixels_[i] = {int(polygon[i].x), int(polygon[i].y)};
  return draw(pixels_, height, width);
}

PixelBox PolygonBits::draw(std::span<const PixelPoint> polygon, int height, int width) {
  clear();
  if (polygon.empty() || height <= 0 || width <= 0) return {};
  if (height != height_ || width != width_) {
    height_ = height, width_ = width;
    pitch_ = (width + kBits - 1) / kBits;
    words_.assign(size_t(height) * size_t(pitch_), {});
  }
  drawn_ = {width, height, 0, 0};
  const auto inside = [&](PixelPoint p) { return unsigned(p.x) < unsigned(width) && unsigned(p.y) < unsigned(height); };
  PixelPoint last = polygon.back();
  bool last_inside = inside(last);
  if (last_inside) set(last.x, last.y), cover(last.x, last.y);
  for (const PixelPoint p : polygon) {
    if (p == last) continue;
    const bool p_inside = inside(p);
    if (p_inside && last_inside && std::abs(p.x - last.x) <= 1 &&
        std::abs(p.y - last.y) <= 1) {  // most edges of a resampled outline
      set(p.x, p.y), cover(p.x, p.y);
      if (p.y > last.y) word(last.x, last.y).toggles ^= bit(last.x);
      if (p.y < last.y) word(p.x, p.y).toggles ^= bit(p.x);
    } else {
      add_edge(last, p, last_inside && p_inside);
    }
    last = p, last_inside = p_inside;
  }
  if (drawn_.empty()) drawn_ = {};
  return drawn_;
}

void PolygonBits::row(int y, uint64_t* words) const {
  uint64_t carry = 0;  // all bits set where the word before ended inside
  for (int w = first_word(); w < end_word(); ++w) {
    const Word& from = words_[size_t(y) * size_t(pitch_) + size_t(w)];
    uint64_t inner = from.toggles;  // bit by bit the parity of the toggles up to there
    for (int shift = 1; shift < kBits; shift *= 2) inner ^= inner << shift;
    inner ^= carry;
    carry = uint64_t(int64_t(inner) >> (kBits - 1));
    *words++ = from.outline | inner;
  }
  // A row that goes in and does not come out again is inside up to the side, not up to the end of the word.
  if (end_word() == pitch_ && width_ % kBits != 0) words[-1] &= bit(width_) - 1;
}

void PolygonBits::clear() {
  for (int y = drawn_.y0; y < drawn_.y1; ++y) {
    Word* const row = words_.data() + size_t(y) * size_t(pitch_);
    std::fill(row + first_word(), row + end_word(), Word{});
  }
  drawn_ = {};
}

void PolygonBits::cover(int x, int y) {
  drawn_ = {std::min(drawn_.x0, x), std::min(drawn_.y0, y), std::max(drawn_.x1, x + 1), std::max(drawn_.y1, y + 1)};
}

void PolygonBits::add_line(int64_t x1, int64_t y1, int64_t x2, int64_t y2) {
  if (x2 < x1) std::swap(x1, x2), std::swap(y1, y2);
  const int64_t dx = x2 - x1, dy = std::abs(y2 - y1), down = y2 < y1 ? -1 : 1;
  const bool steep = dy > dx;
  const int64_t length = steep ? dy : dx, across = steep ? dx : dy;
  int64_t x = x1, y = y1, error = length - 2 * across;
  for (int64_t i = 0; i <= length; ++i) {
    set(int(x), int(y));
    const bool both = error < 0;
    if (both) error += 2 * length;
    error -= 2 * across;
    if (!steep || both) ++x;
    if (steep || both) y += down;
  }
}

// The row's inner pixels begin or end at x (16.16). They lie between the first and second crossing, the third and fourth, and so
// on, both ends included: the first whole column at or behind x changes sides, and one hit exactly belongs to them either way.
void PolygonBits::cross(int64_t x, int y) {
  const int64_t column = std::max<int64_t>((x + kOne - 1) >> 16, 0);
  if (column >= width_) return cover(width_ - 1, y);
  if (column * kOne == x) set(int(column), y);
  word(int(column), y).toggles ^= bit(int(column));
  cover(int(column), y);
}

void PolygonBits::add_edge(PixelPoint a, PixelPoint b, bool inside) {
  const int64_t right = width_ - 1, bottom = height_ - 1;
  const Edge edge{a.x, a.y, b.x, b.y};
  Edge clipped = edge;
  if (inside || clip_edge(clipped, right, bottom)) {
    add_line(clipped.x1, clipped.y1, clipped.x2, clipped.y2);
    cover(int(clipped.x1), int(clipped.y1)), cover(int(clipped.x2), int(clipped.y2));
  }
  if (edge.y1 == edge.y2) return;
  // The clipped ends define the slope and the point it goes through (spec 14.6, step 2).
  const bool flat = clipped.y1 == clipped.y2;
  const int64_t ya = flat ? edge.y1 : clipped.y1, yb = flat ? edge.y2 : clipped.y2;
  const int64_t xa = clipped.x1 * kOne, xb = clipped.x2 * kOne, slope = (xb - xa) / (yb - ya);
  const int64_t top = std::min(edge.y1, edge.y2), end = std::min<int64_t>(std::max(edge.y1, edge.y2), height_);
  int64_t x = edge.y1 < edge.y2 ? xa + (edge.y1 - ya) * slope : xb + (edge.y2 - yb) * slope;  // of the upper end
  const int64_t from = std::max<int64_t>(top, 0);
  x += (from - top) * slope;
  for (int64_t y = from; y < end; ++y, x += slope) cross(x, int(y));
}

namespace {
// What fill_polygon does, for vertices of either kind.
template <class Vertex>
PixelBox fill(std::span<const Vertex> polygon, uint8_t* plane, int height, int width, uint8_t value) {
  thread_local PolygonBits bits;
  thread_local std::vector<uint64_t> words;
  const PixelBox box = bits.draw(polygon, height, width);
  words.resize(size_t(bits.end_word() - bits.first_word()));
  for (int y = box.y0; y < box.y1; ++y) {
    bits.row(y, words.data());
    uint8_t* to = plane + int64_t(y) * width + bits.first_word() * PolygonBits::kBits;
    for (uint64_t left : words) {
      while (left != 0) {
        const int begin = std::countr_zero(left), count = std::countr_one(left >> begin);
        std::memset(to + begin, value, size_t(count));
        left = count == PolygonBits::kBits ? 0 : left & ~(((uint64_t(1) << count) - 1) << begin);
      }
      to += PolygonBits::kBits;
    }
  }
  return box;
}
}  // namespace

PixelBox fill_polygon(std::span<const PixelPoint> polygon, uint8_t* plane, int height, int width, uint8_t value) {
  return fill(polygon, plane, height, width, value);
}
PixelBox fill_polygon(std::span<const Point> polygon, uint8_t* plane, int height, int width, uint8_t value) {
  return fill(polygon, plane, height, width, value);
}

// ---- contours --------------------------------------------------------------------------------------------------------

namespace {

constexpr int kDx[8] = {1, 1, 0, -1, -1, -1, 0, 1};  // E NE N NW W SW S SE, y down
constexpr int kDy[8] = {0, -1, -1, -1, 0, 1, 1, 1};
constexpr int kEast = 0, kWest = 4;

// A pixel and its neighbours are nine bits, row by row.
constexpr bool is_set(unsigned nine, int d) { return nine >> (3 * kDy[d] + kDx[d] + 4) & 1; }

// Where the contour goes on from a pixel that it came to from direction `from`: to the first set neighbour counter-clockwise, with
// marks for those passed over. kSteps[nine * 8 + from].
constexpr unsigned kDirection = 7, kPassedWest = 8, kPassedEast = 16;
constexpr auto kSteps = [] {
  std::array<uint8_t, 512 * 8> steps{};
  for (unsigned nine = 0; nine < 512; ++nine) {
    for (int from = 0; from < 8; ++from) {
      unsigned passed = 0;
      int d = (from + 1) % 8;
      for (; d != from && !is_set(nine, d); d = (d + 1) % 8) passed |= d == kWest ? kPassedWest : d == kEast ? kPassedEast : 0;
      steps[nine * 8 + unsigned(from)] = uint8_t(unsigned(d) | passed);
    }
  }
  return steps;
}();

// The mask with a border of an empty pixel on every side, so column x is bit x + 1, and what is known of its outer contours: the
// pixels with the outside directly to their left (`enters`) and to their right (`leaves`).
struct ContourPlane {
  static constexpr int kBits = 64;
  int64_t pitch = 0;  // words of a row
  std::vector<uint64_t> set, enters, leaves;

  void assign(const uint32_t* words, int height, int width) {
    pitch = (int64_t{width} + 2 + kBits - 1) / kBits;
    const size_t n = size_t(pitch * (height + 2));
    enters.assign(n, 0), leaves.assign(n, 0);
    set.resize(n + 1);  // one more to read behind the last
    std::fill_n(set.begin(), pitch, 0);
    std::fill(set.end() - pitch - 1, set.end(), 0);
    const int64_t row_words = words_of_row(width);
    for (int64_t y = 0; y < height; ++y) {
      uint64_t* const to = set.data() + (y + 1) * pitch;
      const uint32_t* const row = words + y * row_words;
      uint64_t last = 0;  // pixel of the word before
      for (int64_t w = 0; w < pitch; ++w) {
        const auto half = [&](int64_t i) { return i < row_words ? uint64_t{row[i]} : 0; };
        const uint64_t word = half(2 * w) | half(2 * w + 1) << kBitsOfWord;
        to[w] = word << 1 | last;
        last = word >> (kBits - 1);
      }
    }
  }
  // The pixel at bit x of row y and its neighbours.
  unsigned nine(int x, int y) const {
    const auto three = [&](int row) {
      uint32_t v;
      std::memcpy(&v, reinterpret_cast<const char*>(set.data() + row * pitch) + (x - 1) / 8, sizeof(v));
      return v >> (x - 1) % 8 & 7;
    };
    return three(y - 1) | three(y) << 3 | three(y + 1) << 6;
  }
};

// The contour whose first pixel in raster order is at bit x0 of row y0; its marks are added to the plane.
void trace(ContourPlane& plane, int x0, int y0, std::vector<PixelPoint>& contour) {
  const unsigned around = plane.nine(x0, y0);
  int to_p1 = -1;
  for (int k = 1; k <= 7 && to_p1 < 0; ++k) {  // downwards from W: NW, N, NE, E, SE, S, SW
    const int d = (kWest - k + 8) % 8;
    if (is_set(around, d)) to_p1 = d;
  }
  const auto mark = [&](int x, int y, unsigned step) {
    const int64_t w = y * plane.pitch + x / ContourPlane::kBits;
    const int bit = x % ContourPlane::kBits;
    plane.enters[size_t(w)] |= uint64_t((step & kPassedWest) != 0) << bit;
    plane.leaves[size_t(w)] |= uint64_t((step & kPassedEast) != 0) << bit;
  };
  if (to_p1 < 0) {
    mark(x0, y0, kPassedWest | kPassedEast);
    contour.push_back({x0 - 1, y0 - 1});
    return;
  }
  const int x1 = x0 + kDx[to_p1], y1 = y0 + kDy[to_p1];
  int x = x0, y = y0;
  unsigned from = unsigned(to_p1), previous = (from + 4) % 8;  // as if the walk had come from p1
  for (;;) {
    const unsigned step = kSteps[plane.nine(x, y) * 8 + from], d = step & kDirection;
    mark(x, y, step);
    if (d != previous) contour.push_back({x - 1, y - 1});
    const int next_x = x + kDx[d], next_y = y + kDy[d];
    if (next_x == x0 && next_y == y0 && x == x1 && y == y1) return;
    previous = d, from = (d + 4) % 8;
    x = next_x, y = next_y;
  }
}

}  // namespace

// A contour begins at the next set pixel that lies within none. Within one is, along a row, a pixel that enters and what follows up
// to the next that leaves: as the carry of an addition runs from a bit that makes one to the next that stops it.
std::vector<std::vector<PixelPoint>> external_contours(const uint32_t* words, int height, int width) {
  thread_local ContourPlane plane;
  thread_local std::vector<PixelPoint> contour;
  plane.assign(words, height, width);
  std::vector<std::vector<PixelPoint>> contours;
  for (int y = 1; y <= height; ++y) {
    uint64_t within = 0;  // the carry out of the word before
    for (int64_t w = y * plane.pitch; w < (y + 1) * plane.pitch; ++w) {
      for (;;) {
        const uint64_t enters = plane.enters[size_t(w)], stays = ~plane.leaves[size_t(w)];
        const uint64_t makes = enters & stays, sum = stays + makes + within;
        const uint64_t first = plane.set[size_t(w)] & ~enters & ~(sum ^ stays ^ makes);
        if (first == 0) {
          within = (makes | (stays & ~sum)) >> 63;
          break;
        }
        contour.clear();
        trace(plane, int((w - y * plane.pitch) * ContourPlane::kBits) + std::countr_zero(first), y, contour);
        contours.push_back(contour);
      }
    }
  }
  std::reverse(contours.begin(), contours.end());
  return contours;
}

// ---- parts -----------------------------------------------------------------------------------------------------------

namespace {

template <class Chain>
Chain merge(std::span<const Chain> all) {
  std::vector<Chain> parts;
  for (const Chain& p : all)
    if (!p.empty()) parts.push_back(p);
  if (parts.empty()) return {};
  if (parts.size() == 1) return parts[0];
  const size_t k = parts.size();
  std::vector<std::vector<int64_t>> links(k);
  for (size_t i = 1; i < k; ++i) {
    double best = std::numeric_limits<double>::infinity();
    int64_t best_u = 0, best_v = 0;
    for (size_t u = 0; u < parts[i - 1].size(); ++u)
      for (size_t v = 0; v < parts[i].size(); ++v) {
        const double dx = double(parts[i - 1][u].x) - parts[i][v].x, dy = double(parts[i - 1][u].y) - parts[i][v].y;
        const double distance = dx * dx + dy * dy;
        if (distance < best) best = distance, best_u = int64_t(u), best_v = int64_t(v);
      }
    links[i - 1].push_back(best_u);
    links[i].push_back(best_v);
  }
  Chain out;
  for (size_t i = 0; i < k; ++i) {
    const bool middle = links[i].size() == 2;
    if (middle && links[i][0] > links[i][1]) {
      std::reverse(parts[i].begin(), parts[i].end());  // the indices stay those of the old order, as the original does
      std::swap(links[i][0], links[i][1]);
    }
    std::rotate(parts[i].begin(), parts[i].begin() + links[i][0], parts[i].end());
    parts[i].push_back(parts[i].front());
    const int64_t span = middle ? links[i][1] - links[i][0] : int64_t(parts[i].size()) - 1;
    out.insert(out.end(), parts[i].begin(), parts[i].begin() + span + 1);
  }
  for (size_t i = k - 1; i-- > 1;) out.insert(out.end(), parts[i].begin() + links[i][1] - links[i][0], parts[i].end());
  return out;
}

}  // namespace

Polygon merge_parts(std::span<const Polygon> parts) { return merge(parts); }
PrecisePolygon merge_parts(std::span<const PrecisePolygon> parts) { return merge(parts); }

}  // namespace tessera
