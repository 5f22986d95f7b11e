#include "yolo/report/canvas.h"

#include <cairo.h>

#include <numbers>
#include <vector>

#include "tensor/base/check.h"

#if defined(__SANITIZE_ADDRESS__)
// fontconfig keeps about a kilobyte for the life of the process.
extern "C" const char* __lsan_default_suppressions() { return "leak:libfontconfig\n"; }
#endif

namespace tessera {

namespace {

constexpr Rgb kPalette[20] = {
    {230, 57, 70},   {29, 122, 243}, {46, 178, 80},  {255, 140, 26},  {145, 70, 220},  {0, 184, 200},   {240, 82, 170},
    {150, 190, 30},  {120, 80, 50},  {255, 200, 20}, {20, 130, 120},  {100, 110, 255}, {255, 115, 105}, {90, 40, 140},
    {130, 215, 255}, {180, 30, 100}, {110, 140, 60}, {200, 150, 255}, {40, 80, 140},   {160, 160, 160},
};

// Cairo stops drawing for good after invalid UTF-8, so nothing else may reach it.
std::string valid_utf8(std::string_view in) {
  std::string out;
  for (size_t i = 0; i < in.size();) {
    const auto byte = [&](size_t k) { return k < in.size() ? uint32_t(static_cast<unsigned char>(in[k])) : 0u; };
    const uint32_t lead = byte(i);
    const size_t length = lead < 0x80 ? 1 : lead >> 5 == 6 ? 2 : lead >> 4 == 14 ? 3 : lead >> 3 == 30 ? 4 : 0;
    uint32_t code = length <= 1 ? lead : lead & (0x7Fu >> length);
    bool good = length > 0 && lead >= 0x20;  // control characters have no glyph
    for (size_t k = 1; k < length; ++k) {
      good = good && byte(i + k) >> 6 == 2;
      code = code << 6 | (byte(i + k) & 0x3F);
    }
    constexpr uint32_t kSmallest[5] = {0, 0, 0x80, 0x800, 0x10000};
    good = good && code >= kSmallest[length] && code <= 0x10FFFF && (code < 0xD800 || code > 0xDFFF);
    if (good) {
      out.append(in.substr(i, length));
      i += length;
    } else {
      out += '?';
      ++i;
    }
  }
  return out;
}

}  // namespace

Rgb class_color(int32_t class_id) { return kPalette[(class_id % 20 + 20) % 20]; }

Rgb text_color_on(Rgb c) {
  const double luminance = 0.299 * c.r + 0.587 * c.g + 0.114 * c.b;
  return luminance > 150 ? Rgb{0, 0, 0} : Rgb{255, 255, 255};
}

struct Canvas::Impl {
  cairo_surface_t* surface;
  cairo_t* cairo;
  int width, height;

  Impl(int w, int h)
      : surface(cairo_image_surface_create(CAIRO_FORMAT_RGB24, w, h)), cairo(cairo_create(surface)), width(w), height(h) {
    cairo_font_options_t* options = cairo_font_options_create();
    cairo_font_options_set_antialias(options, CAIRO_ANTIALIAS_GRAY);
    cairo_font_options_set_hint_metrics(options, CAIRO_HINT_METRICS_OFF);
    cairo_set_font_options(cairo, options);
    cairo_font_options_destroy(options);
    cairo_set_line_join(cairo, CAIRO_LINE_JOIN_ROUND);
  }
  ~Impl() {
    cairo_destroy(cairo);
    cairo_surface_destroy(surface);
  }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  void color(Rgb c, double alpha) { cairo_set_source_rgba(cairo, c.r / 255.0, c.g / 255.0, c.b / 255.0, alpha); }
  void font(double size, bool bold) {
    cairo_select_font_face(cairo, "DejaVu Sans", CAIRO_FONT_SLANT_NORMAL, bold ? CAIRO_FONT_WEIGHT_BOLD : CAIRO_FONT_WEIGHT_NORMAL);
    cairo_set_font_size(cairo, size);
  }
};

Canvas::Canvas(int width, int height, Rgb background) {
  TESSERA_CHECK(width > 0 && height > 0 && width <= 32767 && height <= 32767, "canvas of {} x {} pixels", width, height);
  impl_ = std::make_unique<Impl>(width, height);
  if (cairo_status(impl_->cairo) == CAIRO_STATUS_NO_MEMORY) {
    throw Error(ErrorCode::kMemory, fmt::format("no memory for a drawing of {} x {} pixels", width, height));
  }
  fill_rect(0, 0, width, height, background);
}

Canvas::~Canvas() = default;

void Canvas::fill_rect(double x, double y, double width, double height, Rgb color, double alpha) {
  impl_->color(color, alpha);
  cairo_rectangle(impl_->cairo, x, y, width, height);
  cairo_fill(impl_->cairo);
}

void Canvas::stroke_rect(double x, double y, double width, double height, Rgb color, double line_width, double alpha) {
  impl_->color(color, alpha);
  cairo_set_line_width(impl_->cairo, line_width);
  cairo_rectangle(impl_->cairo, x, y, width, height);
  cairo_stroke(impl_->cairo);
}

void Canvas::fill_circle(double x, double y, double radius, Rgb color, double alpha) {
  impl_->color(color, alpha);
  cairo_new_path(impl_->cairo);
  cairo_arc(impl_->cairo, x, y, radius, 0, 2 * std::numbers::pi);
  cairo_fill(impl_->cairo);
}

void Canvas::polyline(std::span<const Point> points, Rgb color, double line_width, double alpha, bool dots) {
  if (points.empty()) return;
  cairo_t* c = impl_->cairo;
  impl_->color(color, alpha);
  cairo_set_line_width(c, line_width);
  const double pattern[2] = {0.01, 2 * line_width};  // with round caps a dash of no length is a dot
  if (dots) {
    cairo_set_dash(c, pattern, 2, 0);
    cairo_set_line_cap(c, CAIRO_LINE_CAP_ROUND);
  }
  cairo_new_path(c);
  for (const Point& p : points) cairo_line_to(c, double(p.x), double(p.y));
  cairo_stroke(c);
  cairo_set_dash(c, nullptr, 0, 0);
  cairo_set_line_cap(c, CAIRO_LINE_CAP_BUTT);
}

void Canvas::line(double x1, double y1, double x2, double y2, Rgb color, double line_width, double alpha) {
  const Point ends[2] = {{float(x1), float(y1)}, {float(x2), float(y2)}};
  polyline(ends, color, line_width, alpha);
}

void Canvas::text(double x, double y, std::string_view text, const TextStyle& style) {
  cairo_t* c = impl_->cairo;
  const double width = text_width(text, style.size, style.bold);  // selects the font
  impl_->color(style.color, 1);
  cairo_save(c);
  cairo_translate(c, x, y);
  cairo_rotate(c, -style.angle * std::numbers::pi / 180);
  const double shift = style.horizontal == Align::kStart ? 0 : style.horizontal == Align::kMiddle ? width / 2 : width;
  cairo_move_to(c, -shift, 0.36 * style.size);  // half of what a capital letter reaches above the base line
  cairo_show_text(c, valid_utf8(text).c_str());
  cairo_restore(c);
}

double Canvas::text_width(std::string_view text, double size, bool bold) {
  impl_->font(size, bold);
  cairo_text_extents_t extents{};
  cairo_text_extents(impl_->cairo, valid_utf8(text).c_str(), &extents);
  return extents.x_advance;
}

void Canvas::clip(double x, double y, double width, double height) {
  cairo_save(impl_->cairo);
  cairo_rectangle(impl_->cairo, x, y, width, height);
  cairo_clip(impl_->cairo);
}

void Canvas::unclip() { cairo_restore(impl_->cairo); }

Image Canvas::image() const {
  cairo_surface_flush(impl_->surface);
  Image out(impl_->height, impl_->width);
  const unsigned char* data = cairo_image_surface_get_data(impl_->surface);
  const int stride = cairo_image_surface_get_stride(impl_->surface);
  for (int y = 0; y < out.height; ++y) {
    const auto* in = reinterpret_cast<const uint32_t*>(data + size_t(y) * size_t(stride));  // 0x00RRGGBB, native order
    uint8_t* row = out.row(y);
    for (int x = 0; x < out.width; ++x) {
      row[3 * x] = uint8_t(in[x] >> 16), row[3 * x + 1] = uint8_t(in[x] >> 8), row[3 * x + 2] = uint8_t(in[x]);
    }
  }
  return out;
}

}  // namespace tessera
