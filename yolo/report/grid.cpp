#include "yolo/report/grid.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "tensor/base/check.h"
#include "yolo/report/canvas.h"

namespace tessera {

namespace {

constexpr int kGap = 2;

void copy_into(Image& sheet, const Image& image, int left, int top) {
  for (int y = 0; y < image.height; ++y) std::memcpy(sheet.row(top + y) + 3 * left, image.row(y), size_t(image.width) * 3);
}

void draw_caption(Image& sheet, const std::string& caption, int left, int top, int room) {
  constexpr double kSize = 12;
  const int width = std::min(int(std::ceil(Canvas(1, 1).text_width(caption, kSize) + 8)), room), height = 17;
  if (caption.empty() || width < 1 || top + height > sheet.height) return;
  Canvas canvas(width, height, {40, 40, 40});
  canvas.text(4, height / 2.0, caption, {kSize, {255, 255, 255}});
  copy_into(sheet, canvas.image(), left, top);
}

}  // namespace

Image tile_images(std::span<const Image> images, std::span<const std::string> captions, int columns, int max_side) {
  TESSERA_CHECK(columns >= 1 && max_side >= 1, "tile_images: {} columns, side {}", columns, max_side);
  TESSERA_CHECK(captions.empty() || captions.size() == images.size(), "tile_images: {} captions for {} images", captions.size(),
                images.size());
  int height = 0, width = 0;
  for (const Image& i : images) height = std::max(height, i.height), width = std::max(width, i.width);
  columns = std::min(columns, std::max(1, int(images.size())));
  const int rows = (int(images.size()) + columns - 1) / columns;
  const auto side = [&](int cells, int cell) { return cells * cell + (cells + 1) * kGap; };
  const auto fit = [&](int cells, int cell) {
    return double(std::max(1, max_side - (cells + 1) * kGap)) / std::max(1, cells * cell);
  };
  const double shrink = std::min({1.0, fit(columns, width), fit(rows, height)});
  if (shrink < 1) height = std::max(1, int(height * shrink)), width = std::max(1, int(width * shrink));
  Image sheet(std::max(1, side(rows, height)), side(columns, width));
  std::memset(sheet.pixels.data(), 255, sheet.pixels.size());
  for (size_t i = 0; i < images.size(); ++i) {
    const int left = kGap + int(i) % columns * (width + kGap), top = kGap + int(i) / columns * (height + kGap);
    if (images[i].empty()) continue;
    const auto smaller = [&](int v, int limit) { return std::clamp(int(v * shrink), 1, limit); };
    copy_into(
        sheet,
        shrink < 1 ? resize_bilinear(images[i], smaller(images[i].height, height), smaller(images[i].width, width)) : images[i],
        left, top);
    if (!captions.empty()) draw_caption(sheet, captions[i], left, top, width);
  }
  return sheet;
}

GridPlan plan_grid(int count, int height, int width, int side) {
  TESSERA_CHECK(count >= 1 && height >= 1 && width >= 1 && side >= 1, "plan_grid: {} images of {} x {}", count, height, width);
  // The number of columns that makes the sheet's longer side shortest.
  int columns = 1;
  int64_t best = INT64_MAX;
  for (int c = 1; c <= count; ++c) {
    const int64_t longer = std::max(int64_t(c) * width, int64_t((count + c - 1) / c) * height);
    if (longer <= best) best = longer, columns = c;  // rather wide than high
  }
  const double fit = double(side) / double(best);
  return {columns, fit >= 1 ? std::min(std::floor(fit), 8.0) : fit};
}

}  // namespace tessera
