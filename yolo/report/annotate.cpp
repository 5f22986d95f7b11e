#include "yolo/report/annotate.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "tensor/base/check.h"
#include "yolo/report/canvas.h"

namespace tessera {

namespace {

int automatic_line_width(const Image& image) {
  if (std::max(image.height, image.width) < 200) return 1;
  return std::max(int(std::lround((image.height + image.width + 3) / 2.0 * 0.003)), 2);
}

void put(uint8_t* pixel, Rgb c) { pixel[0] = c.r, pixel[1] = c.g, pixel[2] = c.b; }

// Blends the mask, and draws its outline in full colour, `outline` pixels wide, inside the mask.
void draw_mask(Image& image, const MaskArea& mask, Rgb color, double alpha, int outline) {
  const int width = mask.where.width(), height = mask.where.height(), left = mask.where.x0, top = mask.where.y0;
  TESSERA_CHECK(mask.bytes.size() == size_t(width) * size_t(height), "mask of {} x {} with {} bytes", height, width,
                mask.bytes.size());
  const auto inside = [&](int y, int x) {
    return x >= 0 && x < width && y >= 0 && y < height && mask.bytes[size_t(y) * size_t(width) + size_t(x)] != 0;
  };
  const int weight = int(std::lround(std::clamp(alpha, 0.0, 1.0) * 256));
  const auto mix = [&](uint8_t a, uint8_t b) { return uint8_t((a * (256 - weight) + b * weight + 128) >> 8); };
  const int first_y = std::max(0, -top), last_y = std::min(height, image.height - top);
  const int first_x = std::max(0, -left), last_x = std::min(width, image.width - left);
  for (int y = first_y; y < last_y; ++y) {
    uint8_t* row = image.row(top + y);
    for (int x = first_x; x < last_x; ++x) {
      if (!inside(y, x)) continue;
      bool border = false;
      for (int k = 1; k <= outline && !border; ++k) {
        border = !inside(y, x - k) || !inside(y, x + k) || !inside(y - k, x) || !inside(y + k, x);
      }
      uint8_t* p = row + 3 * (left + x);
      if (border) {
        put(p, color);
      } else {
        p[0] = mix(p[0], color.r), p[1] = mix(p[1], color.g), p[2] = mix(p[2], color.b);
      }
    }
  }
}

struct PixelBounds {
  int64_t x0, y0, x1, y1;
};

int64_t to_pixel(float v) { return std::isfinite(v) ? std::llround(std::clamp(double(v), -1e6, 1e6)) : 0; }
PixelBounds pixel_bounds(const BoxXyxy& b) { return {to_pixel(b.x1), to_pixel(b.y1), to_pixel(b.x2), to_pixel(b.y2)}; }

void fill(Image& image, int64_t x0, int64_t y0, int64_t x1, int64_t y1, Rgb color) {
  x0 = std::max<int64_t>(x0, 0), y0 = std::max<int64_t>(y0, 0);
  x1 = std::min<int64_t>(x1, image.width), y1 = std::min<int64_t>(y1, image.height);
  for (int64_t y = y0; y < y1; ++y) {
    uint8_t* row = image.row(int(y));
    for (int64_t x = x0; x < x1; ++x) put(row + 3 * x, color);
  }
}

// Lines centred on the edges, so the outer half lies outside of the box.
void draw_box(Image& image, const BoxXyxy& box, Rgb color, int width) {
  const PixelBounds b = pixel_bounds(box);
  const int64_t out = width / 2, in = width - out;
  fill(image, b.x0 - out, b.y0 - out, b.x1 + out, b.y0 + in, color);
  fill(image, b.x0 - out, b.y1 - in, b.x1 + out, b.y1 + out, color);
  fill(image, b.x0 - out, b.y0 - out, b.x0 + in, b.y1 + out, color);
  fill(image, b.x1 - in, b.y0 - out, b.x1 + out, b.y1 + out, color);
}

void draw_label(Image& image, const Annotation& a, Rgb color, int line_width, double font_size) {
  const double text = Canvas(1, 1).text_width(a.label, font_size);
  const int width = std::clamp(int(std::ceil(text + 0.6 * font_size)), 1, std::max(1, std::min(image.width, 4096)));
  const int height = std::min(int(std::ceil(font_size * 1.35)), image.height);
  if (height < 1) return;
  const PixelBounds b = pixel_bounds(a.box);
  const int64_t left = std::clamp<int64_t>(b.x0 - line_width / 2, 0, image.width - width);
  int64_t top = b.y0 - line_width / 2 - height;
  if (top < 0) top = std::max<int64_t>(b.y0, 0);  // no room above
  top = std::clamp<int64_t>(top, 0, image.height - height);
  Canvas canvas(width, height, color);
  canvas.text(0.3 * font_size, height / 2.0, a.label, {font_size, text_color_on(color)});
  const Image patch = canvas.image();
  for (int y = 0; y < height; ++y) std::memcpy(image.row(int(top) + y) + 3 * left, patch.row(y), size_t(width) * 3);
}

}  // namespace

void annotate(Image& image, std::span<const Annotation> annotations, const AnnotateOptions& options) {
  if (image.empty()) return;
  const int line_width = options.line_width > 0 ? options.line_width : automatic_line_width(image);
  const double font_size =
      options.font_size > 0 ? options.font_size : std::clamp((image.height + image.width) / 2.0 * 0.02, 9.0, 28.0);
  const auto back_to_front = [&](auto draw) {
    for (auto a = annotations.rbegin(); a != annotations.rend(); ++a) draw(*a, class_color(a->class_id));
  };
  if (options.masks) {
    back_to_front([&](const Annotation& a, Rgb color) {
      if (!a.mask.bytes.empty()) draw_mask(image, a.mask, color, options.alpha, std::max(1, line_width / 2));
    });
  }
  if (options.boxes) {
    back_to_front([&](const Annotation& a, Rgb color) { draw_box(image, a.box, color, line_width); });
  }
  if (options.labels) {
    back_to_front([&](const Annotation& a, Rgb color) {
      if (!a.label.empty()) draw_label(image, a, color, line_width, font_size);
    });
  }
}

Image enlarge(const Image& image, int factor) {
  TESSERA_CHECK(factor >= 1, "enlarge: factor = {}", factor);
  Image out(image.height * factor, image.width * factor);
  for (int y = 0; y < out.height; ++y) {
    if (y % factor != 0) {
      std::memcpy(out.row(y), out.row(y - 1), size_t(out.width) * 3);
      continue;
    }
    const uint8_t* in = image.row(y / factor);
    uint8_t* row = out.row(y);
    for (int x = 0; x < out.width; ++x) std::memcpy(row + 3 * x, in + 3 * (x / factor), 3);
  }
  return out;
}

Annotation scaled(const Annotation& a, double factor) {
  TESSERA_CHECK(factor > 0, "scaled: factor = {}", factor);
  const float f = float(factor);
  Annotation out{a.class_id, a.label, {a.box.x1 * f, a.box.y1 * f, a.box.x2 * f, a.box.y2 * f}, {}};
  const auto scale = [&](int v) { return int(std::lround(v * factor)); };
  const PixelBox from = a.mask.where, to{scale(from.x0), scale(from.y0), scale(from.x1), scale(from.y1)};
  if (a.mask.bytes.empty() || to.empty()) return out;
  out.mask.where = to;
  const auto source = [&](int pixel, int first, int size) {
    return size_t(std::clamp(int(std::floor((pixel + 0.5) / factor)) - first, 0, size - 1));
  };
  for (int y = to.y0; y < to.y1; ++y) {
    const uint8_t* row = a.mask.bytes.data() + source(y, from.y0, from.height()) * size_t(from.width());
    for (int x = to.x0; x < to.x1; ++x) out.mask.bytes.push_back(row[source(x, from.x0, from.width())]);
  }
  return out;
}

}  // namespace tessera
