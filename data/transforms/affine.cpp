#include "data/transforms/affine.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "data/transforms/mosaic.h"

namespace tessera {

AffineDraw draw_affine(Rng& rng, const AugmentConfig& c) {
  AffineDraw d;
  d.perspective_x = rng.uniform(-c.perspective, c.perspective);
  d.perspective_y = rng.uniform(-c.perspective, c.perspective);
  d.angle = rng.uniform(-c.degrees, c.degrees);
  d.scale = rng.uniform(1 - c.scale, 1 + c.scale);
  d.shear_x = rng.uniform(-c.shear, c.shear);
  d.shear_y = rng.uniform(-c.shear, c.shear);
  d.translate_x = rng.uniform(0.5 - c.translate, 0.5 + c.translate);
  d.translate_y = rng.uniform(0.5 - c.translate, 0.5 + c.translate);
  return d;
}

namespace {

Matrix3 multiply(const Matrix3& a, const Matrix3& b) {
  Matrix3 c{};
  for (size_t i = 0; i < 3; ++i)
    for (size_t j = 0; j < 3; ++j) c[3 * i + j] = a[3 * i] * b[j] + a[3 * i + 1] * b[3 + j] + a[3 * i + 2] * b[6 + j];
  return c;
}

// Box of the vertices inside the frame (spec 6.2, step 2).
BoxXyxy inside_box(const Polygon& polygon, float width, float height) {
  const BoxXyxy all = bounding_box(polygon);
  if (all.x1 >= 0 && all.y1 >= 0 && all.x2 <= width && all.y2 <= height) return all.x2 > 0 ? all : BoxXyxy{};
  const bool clamp = int(all.x1 < 0) + int(all.y1 < 0) + int(all.x2 > width) + int(all.y2 > height) >= 3;
  BoxXyxy box{};
  bool any = false, nonzero = false;
  for (Point p : polygon) {
    if (clamp) p = {std::clamp(p.x, 0.0f, width), std::clamp(p.y, 0.0f, height)};
    if (!(p.x >= 0 && p.y >= 0 && p.x <= width && p.y <= height)) continue;
    box = any ? BoxXyxy{std::min(box.x1, p.x), std::min(box.y1, p.y), std::max(box.x2, p.x), std::max(box.y2, p.y)}
              : BoxXyxy{p.x, p.y, p.x, p.y};
    any = true;
    nonzero |= p.x != 0;
  }
  return nonzero ? box : BoxXyxy{};
}

bool is_candidate(const BoxXyxy& before, const BoxXyxy& after, float scale) {
  constexpr float kEps = 1e-16f, kMinSide = 2, kMaxAspect = 100, kMinArea = 0.01f;
  const float w1 = (before.x2 * scale) - (before.x1 * scale), h1 = (before.y2 * scale) - (before.y1 * scale);
  const float w2 = after.width(), h2 = after.height();
  const float aspect = std::max(w2 / (h2 + kEps), h2 / (w2 + kEps));
  return w2 > kMinSide && h2 > kMinSide && w2 * h2 / (w1 * h1 + kEps) > kMinArea && aspect < kMaxAspect;
}

}  // namespace

Matrix3 affine_matrix(const AffineDraw& d, int height, int width, int out_height, int out_width) {
  constexpr double kRadians = std::numbers::pi / 180;
  const Matrix3 centre = {1, 0, float(-width / 2.0), 0, 1, float(-height / 2.0), 0, 0, 1};
  const Matrix3 perspective = {1, 0, 0, 0, 1, 0, float(d.perspective_x), float(d.perspective_y), 1};
  const float c = float(d.scale * std::cos(d.angle * kRadians)), s = float(d.scale * std::sin(d.angle * kRadians));
  const Matrix3 rotation = {c, s, 0, -s, c, 0, 0, 0, 1};
  const Matrix3 shear = {1, float(std::tan(d.shear_x * kRadians)), 0, float(std::tan(d.shear_y * kRadians)), 1, 0, 0, 0, 1};
  const Matrix3 translation = {1, 0, float(d.translate_x * out_width), 0, 1, float(d.translate_y * out_height), 0, 0, 1};
  return multiply(multiply(multiply(multiply(translation, shear), rotation), perspective), centre);
}

PixelBox warp_footprint(const Matrix3& m, int height, int width, int out_height, int out_width) {
  const double det = double(m[0]) * m[4] - double(m[1]) * m[3];
  if (det == 0) return {0, 0, width, height};
  double x0 = 1e30, y0 = 1e30, x1 = -1e30, y1 = -1e30;
  for (const int corner : {0, 1, 2, 3}) {
    const double u = (corner & 1 ? out_width - 1 : 0) - double(m[2]), v = (corner & 2 ? out_height - 1 : 0) - double(m[5]);
    const double x = (m[4] * u - m[1] * v) / det, y = (m[0] * v - m[3] * u) / det;
    x0 = std::min(x0, x), y0 = std::min(y0, y), x1 = std::max(x1, x), y1 = std::max(y1, y);
  }
  constexpr double kMargin = 3;  // the second tap, the bytes read beyond it, and rounding
  const auto within = [](double v, int last) { return int(std::clamp(v, 0.0, double(last))); };
  return {within(x0 - kMargin, width), within(y0 - kMargin, height), within(x1 + kMargin, width), within(y1 + kMargin, height)};
}

void transform_instances(std::vector<Instance>& instances, const Matrix3& m, double scale, int out_height, int out_width) {
  std::vector<Instance> kept;
  kept.reserve(instances.size());
  const float w = float(out_width), h = float(out_height);
  const bool plain = m[6] == 0 && m[7] == 0 && m[8] == 1;
  for (Instance& i : instances) {
    for (Point& p : i.polygon) {
      const float x = m[0] * p.x + m[1] * p.y + m[2], y = m[3] * p.x + m[4] * p.y + m[5];
      if (plain) {
        p = {x, y};
      } else {
        const float z = m[6] * p.x + m[7] * p.y + m[8];
        p = {x / z, y / z};
      }
    }
    const BoxXyxy before = i.box;
    i.box = inside_box(i.polygon, w, h);
    clamp_points(i.polygon, i.box);
    i.box = {std::clamp(i.box.x1, 0.0f, w), std::clamp(i.box.y1, 0.0f, h), std::clamp(i.box.x2, 0.0f, w),
             std::clamp(i.box.y2, 0.0f, h)};
    if (is_candidate(before, i.box, float(scale))) kept.push_back(std::move(i));
  }
  instances = std::move(kept);
}

}  // namespace tessera
