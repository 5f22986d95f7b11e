#include "yolo/eval/masks.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <tuple>
#include <utility>

#include "tensor/base/check.h"
#include "tensor/base/parallel.h"

namespace tessera {

namespace {

int round_even(double v) { return static_cast<int>(std::nearbyint(v)); }

// First integer i with i >= v, kept within [0, n].
int first_at_least(float v, int n) { return v > 0 ? (v < float(n) ? static_cast<int>(std::ceil(v)) : n) : 0; }

// Pixels whose upper left corner lies in the box: i >= v1 and i < v2.
PixelBox pixels_in(const BoxXyxy& box, int height, int width) {
  if (!(box.x1 < box.x2) || !(box.y1 < box.y2)) return {};
  return {first_at_least(box.x1, width), first_at_least(box.y1, height), first_at_least(box.x2, width),
          first_at_least(box.y2, height)};
}

// One axis of a bilinear resize without aligned corners: output o = w0 * in[i0] + w1 * in[i1].
struct Axis {
  std::vector<int> i0, i1;
  std::vector<float> w0, w1;

  Axis(int in, int out) {
    const float scale = float(in) / float(out);
    for (int o = 0; o < out; ++o) {
      const float at = std::max(scale * (float(o) + 0.5f) - 0.5f, 0.0f);
      const int i = std::min(static_cast<int>(at), in - 1);
      i0.push_back(i), i1.push_back(std::min(i + 1, in - 1));
      w1.push_back(std::clamp(at - float(i), 0.0f, 1.0f)), w0.push_back(1.0f - w1.back());
    }
  }

  // Outputs [first, last) with a tap in inputs [begin, end); taps never decrease.
  std::pair<int, int> touched(int begin, int end) const {
    const int first = int(std::partition_point(i1.begin(), i1.end(), [&](int i) { return i < begin; }) - i1.begin());
    const int last = int(std::partition_point(i0.begin(), i0.end(), [&](int i) { return i < end; }) - i0.begin());
    return {first, std::max(first, last)};
  }
};

// logits[y][x] of the cells of `where`, rows `pitch` apart.
void mask_logits(const Prototypes& p, const float* k, const PixelBox& where, float* logits, int64_t pitch) {
  for (int y = where.y0; y < where.y1; ++y) {
    float* row = logits + (y - where.y0) * pitch;
    for (int x = where.x0; x < where.x1; ++x) {
      const float* cell = p.data + (int64_t{y} * p.width + x) * p.pitch;
      float lane[8] = {};
      int c = 0;
      for (; c + 8 <= p.channels; c += 8) {
        for (int i = 0; i < 8; ++i) lane[i] += k[c + i] * cell[c + i];
      }
      for (; c < p.channels; ++c) lane[0] += k[c] * cell[c];
      row[x - where.x0] = ((lane[0] + lane[4]) + (lane[1] + lane[5])) + ((lane[2] + lane[6]) + (lane[3] + lane[7]));
    }
  }
}

// Enlarges `source` (the cells of `cells`, whose coordinates the axes use) to the outputs of `where`; a pixel is set where the
// result is > `threshold`. Horizontal first, once for each source row.
void enlarge(const std::vector<float>& source, const PixelBox& cells, const Axis& ax, const Axis& ay, const PixelBox& where,
             float threshold, std::vector<uint8_t>& pixels) {
  const int columns = where.x1 - where.x0, cell_columns = cells.x1 - cells.x0;
  thread_local std::vector<float> wide;
  wide.resize(size_t(cells.y1 - cells.y0) * size_t(columns));
  for (int y = cells.y0; y < cells.y1; ++y) {
    const float* in = source.data() + size_t(y - cells.y0) * size_t(cell_columns);
    float* out = wide.data() + size_t(y - cells.y0) * size_t(columns);
    for (int x = 0; x < columns; ++x) {
      const size_t o = size_t(where.x0 + x);
      out[x] = ax.w0[o] * in[ax.i0[o] - cells.x0] + ax.w1[o] * in[ax.i1[o] - cells.x0];
    }
  }
  pixels.resize(size_t(where.y1 - where.y0) * size_t(columns));
  for (int y = where.y0; y < where.y1; ++y) {
    const float* upper = wide.data() + size_t(ay.i0[size_t(y)] - cells.y0) * size_t(columns);
    const float* lower = wide.data() + size_t(ay.i1[size_t(y)] - cells.y0) * size_t(columns);
    const float w0 = ay.w0[size_t(y)], w1 = ay.w1[size_t(y)];
    uint8_t* out = pixels.data() + size_t(y - where.y0) * size_t(columns);
    for (int x = 0; x < columns; ++x) out[x] = w0 * upper[x] + w1 * lower[x] > threshold;
  }
}

// Prototype cells that the target covers, and the axes between them.
struct NativeGrid {
  PixelBox slice;
  Axis ax, ay;

  NativeGrid(const Prototypes& p, int height, int width)
      : slice(middle(p, height, width)), ax(slice.x1 - slice.x0, width), ay(slice.y1 - slice.y0, height) {}

  static PixelBox middle(const Prototypes& p, int height, int width) {
    const double gain = std::min(double(p.height) / height, double(p.width) / width);
    const double pad_w = (p.width - width * gain) / 2, pad_h = (p.height - height * gain) / 2;
    PixelBox slice{round_even(pad_w - 0.1), round_even(pad_h - 0.1), p.width - round_even(pad_w + 0.1), p.height - round_even(pad_h + 0.1)};
    // Of an image a hundred times as long as wide less than a cell is left.
    slice.x1 = std::max(slice.x1, slice.x0 + 1);
    slice.y1 = std::max(slice.y1, slice.y0 + 1);
    return slice;
  }
};

MaskPatch native_mask(const Prototypes& p, const float* k, const BoxXyxy& box, int height, int width, const NativeGrid& grid) {
  MaskPatch out{height, width, pixels_in(box, height, width), {}};
  if (out.where.empty()) return out.where = {}, out;
  const auto cell = [](const Axis& a, int begin, int end) { return std::pair{a.i0[size_t(begin)], a.i1[size_t(end - 1)] + 1}; };
  const auto [cx0, cx1] = cell(grid.ax, out.where.x0, out.where.x1);
  const auto [cy0, cy1] = cell(grid.ay, out.where.y0, out.where.y1);
  const PixelBox cells{cx0, cy0, cx1, cy1};
  thread_local std::vector<float> logits;
  logits.resize(size_t(cx1 - cx0) * size_t(cy1 - cy0));
  mask_logits(p, k, {cx0 + grid.slice.x0, cy0 + grid.slice.y0, cx1 + grid.slice.x0, cy1 + grid.slice.y0}, logits.data(), cx1 - cx0);
  enlarge(logits, cells, grid.ax, grid.ay, out.where, 0, out.pixels);
  return out;
}

BoxXyxy in_prototype_pixels(const Prototypes& p, const BoxXyxy& b, int network_height, int network_width) {
  const float sx = float(double(p.width) / network_width), sy = float(double(p.height) / network_height);
  return {b.x1 * sx, b.y1 * sy, b.x2 * sx, b.y2 * sy};
}

MaskPatch prototype_mask(const Prototypes& p, const float* k, const BoxXyxy& box) {
  MaskPatch out{p.height, p.width, pixels_in(box, p.height, p.width), {}};
  if (out.where.empty()) return out.where = {}, out;
  const int columns = out.where.x1 - out.where.x0;
  thread_local std::vector<float> logits;
  logits.resize(size_t(columns) * size_t(out.where.y1 - out.where.y0));
  mask_logits(p, k, out.where, logits.data(), columns);
  out.pixels.resize(logits.size());
  std::transform(logits.begin(), logits.end(), out.pixels.begin(), [](float v) { return uint8_t(v > 0); });
  return out;
}

// Cropped at prototype size, zero around; interpolation carries the zeros of the neighbouring cells.
MaskPatch network_mask(const Prototypes& p, const float* k, const BoxXyxy& box, int height, int width, const Axis& ax,
                       const Axis& ay) {
  MaskPatch out{height, width, {}, {}};
  const PixelBox inside = pixels_in(box, p.height, p.width);
  if (inside.empty()) return out;
  const PixelBox cells{std::max(inside.x0 - 1, 0), std::max(inside.y0 - 1, 0), std::min(inside.x1 + 1, p.width),
                       std::min(inside.y1 + 1, p.height)};
  const int columns = cells.x1 - cells.x0;
  thread_local std::vector<float> logits;
  logits.assign(size_t(columns) * size_t(cells.y1 - cells.y0), 0.0f);
  mask_logits(p, k, inside, logits.data() + size_t(inside.y0 - cells.y0) * size_t(columns) + (inside.x0 - cells.x0), columns);
  std::tie(out.where.x0, out.where.x1) = ax.touched(inside.x0, inside.x1);
  std::tie(out.where.y0, out.where.y1) = ay.touched(inside.y0, inside.y1);
  enlarge(logits, cells, ax, ay, out.where, 0, out.pixels);
  return out;
}

// Axis of OpenCV's 8-bit bilinear resize with weights of 2048 (spec 14.1); of 0/1 masks only the position matters.
struct ByteAxis {
  std::vector<int> i0, i1, w0, w1;

  enum class Border { kColumns, kRows };
  ByteAxis(int in, int out, Border border) {
    const double scale = double(in) / out;
    for (int o = 0; o < out; ++o) {
      float f = float((o + 0.5) * scale - 0.5);
      int s = static_cast<int>(std::floor(f));
      f -= float(s);
      if (border == Border::kColumns && s < 0) s = 0, f = 0;
      if (border == Border::kColumns && s >= in - 1) s = in - 1, f = 0;
      i0.push_back(std::clamp(s, 0, in - 1)), i1.push_back(std::clamp(s + 1, 0, in - 1));
      w0.push_back(round_even((1.0f - f) * 2048.0f)), w1.push_back(round_even(f * 2048.0f));
    }
  }
};

// A 0/1 patch within a frame of in_height x in_width, resized as an 8-bit image to height x width: bit for bit what the resize of
// data/image.h gives, but only where set pixels can arise.
struct ByteResize {
  int in_height, in_width, height, width;
  ByteAxis ax, ay;

  ByteResize(int ih, int iw, int h, int w)
      : in_height(ih),
        in_width(iw),
        height(h),
        width(w),
        ax(iw, w, ByteAxis::Border::kColumns),
        ay(ih, h, ByteAxis::Border::kRows) {}

  MaskPatch operator()(const MaskPatch& in) const {
    if (in.where.empty() || (in_height == height && in_width == width)) return {height, width, in.where, in.pixels};
    const bool halves = in_height == 2 * height && in_width == 2 * width;  // taken as an area average
    const auto touched = [&](const ByteAxis& a, int begin, int end) {
      const int first = int(std::partition_point(a.i1.begin(), a.i1.end(), [&](int i) { return i < begin; }) - a.i1.begin());
      const int last = int(std::partition_point(a.i0.begin(), a.i0.end(), [&](int i) { return i < end; }) - a.i0.begin());
      return std::pair{first, std::max(first, last)};
    };
    MaskPatch out{height, width, {}, {}};
    std::tie(out.where.x0, out.where.x1) = touched(ax, in.where.x0, in.where.x1);
    std::tie(out.where.y0, out.where.y1) = touched(ay, in.where.y0, in.where.y1);
    if (out.where.empty()) return out.where = {}, out;
    const int columns = out.where.x1 - out.where.x0, in_columns = in.where.x1 - in.where.x0;
    // Rows of the source, horizontally resized, with the rounding of the vertical step; an outside row is all zero.
    const int rows = in.where.y1 - in.where.y0;
    thread_local std::vector<int32_t> wide;
    wide.assign(size_t(rows + 1) * size_t(columns), 0);
    thread_local std::vector<uint8_t> line;
    line.assign(size_t(in_columns) + 2, 0);  // one zero on either side
    const auto column = [&](int i) { return size_t(std::clamp(i - in.where.x0, -1, in_columns) + 1); };
    for (int y = 0; y < rows; ++y) {
      std::memcpy(line.data() + 1, in.pixels.data() + size_t(y) * size_t(in_columns), size_t(in_columns));
      int32_t* sums = wide.data() + size_t(y) * size_t(columns);
      for (int x = 0; x < columns; ++x) {
        const size_t o = size_t(out.where.x0 + x);
        const int a = line[column(ax.i0[o])], b = line[column(ax.i1[o])];
        sums[x] = halves ? a + b : (a * ax.w0[o] + b * ax.w1[o]) >> 4;
      }
    }
    const auto row = [&](int i) {
      const int y = i >= in.where.y0 && i < in.where.y1 ? i - in.where.y0 : rows;
      return wide.data() + size_t(y) * size_t(columns);
    };
    out.pixels.resize(size_t(columns) * size_t(out.where.y1 - out.where.y0));
    for (int y = out.where.y0; y < out.where.y1; ++y) {
      const int32_t *upper = row(ay.i0[size_t(y)]), *lower = row(ay.i1[size_t(y)]);
      const int b0 = ay.w0[size_t(y)], b1 = ay.w1[size_t(y)];
      uint8_t* to = out.pixels.data() + size_t(y - out.where.y0) * size_t(columns);
      for (int x = 0; x < columns; ++x) {
        to[x] = halves ? upper[x] + lower[x] >= 2 : ((b0 * upper[x]) >> 16) + ((b1 * lower[x]) >> 16) >= 2;
      }
    }
    return out;
  }
};

// The patch seen from a frame whose corner lies at (left, top) and that has height x width pixels.
MaskPatch cut(const MaskPatch& in, int left, int top, int height, int width) {
  MaskPatch out{height, width, {}, {}};
  const PixelBox kept{std::max(in.where.x0, left), std::max(in.where.y0, top), std::min(in.where.x1, left + width),
                      std::min(in.where.y1, top + height)};
  if (kept.empty()) return out;
  out.where = {kept.x0 - left, kept.y0 - top, kept.x1 - left, kept.y1 - top};
  for (int y = kept.y0; y < kept.y1; ++y) {
    const uint8_t* from = in.pixels.data() + size_t(y - in.where.y0) * size_t(in.where.x1 - in.where.x0) + (kept.x0 - in.where.x0);
    out.pixels.insert(out.pixels.end(), from, from + (kept.x1 - kept.x0));
  }
  return out;
}

// Runs make(i) for all i on all threads and joins the results in order.
template <class Make>
RunList collect_runs(int64_t n, Make make) {
  std::vector<Rle> rles(static_cast<size_t>(n));
  parallel_for(n, 4, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) rles[size_t(i)] = make(i);
  });
  RunList runs;
  runs.reserve(n);
  for (const Rle& r : rles) runs.push(r);
  return runs;
}

}  // namespace

bool MaskPatch::any() const { return std::find(pixels.begin(), pixels.end(), 1) != pixels.end(); }

void MaskPatch::paint(uint8_t* mask) const {
  std::memset(mask, 0, size_t(height) * size_t(width));
  const size_t columns = size_t(where.x1 - where.x0);
  for (int y = where.y0; y < where.y1; ++y) {
    std::memcpy(mask + size_t(y) * size_t(width) + size_t(where.x0), pixels.data() + size_t(y - where.y0) * columns, columns);
  }
}

MaskPatch process_mask(const Prototypes& p, const float* k, const BoxXyxy& box, int network_height, int network_width,
                       MaskSize size) {
  switch (size) {
    case MaskSize::kPrototype: return prototype_mask(p, k, in_prototype_pixels(p, box, network_height, network_width));
    case MaskSize::kNetwork:
      return network_mask(p, k, in_prototype_pixels(p, box, network_height, network_width), network_height, network_width,
                          Axis(p.width, network_width), Axis(p.height, network_height));
    case MaskSize::kNative: break;
  }
  return process_mask_native(p, k, box, network_height, network_width);
}

MaskPatch process_mask_native(const Prototypes& p, const float* k, const BoxXyxy& box, int height, int width) {
  return native_mask(p, k, box, height, width, NativeGrid(p, height, width));
}

RunList detection_masks(const Prototypes& p, const Detections& detections, int network_height, int network_width, MaskSize size) {
  TESSERA_CHECK(detections.masks == p.channels || detections.size() == 0, "detection_masks: {} coefficients for {} prototypes",
                detections.masks, p.channels);
  const NativeGrid grid(p, network_height, network_width);
  const Axis ax(p.width, network_width), ay(p.height, network_height);
  return collect_runs(detections.size(), [&](int64_t i) {
    const BoxXyxy& box = detections.boxes[size_t(i)];
    const float* k = detections.coefficients_of(i);
    const BoxXyxy small = in_prototype_pixels(p, box, network_height, network_width);
    switch (size) {
      case MaskSize::kPrototype: return prototype_mask(p, k, small).rle();
      case MaskSize::kNetwork: return network_mask(p, k, small, network_height, network_width, ax, ay).rle();
      case MaskSize::kNative: break;
    }
    return native_mask(p, k, box, network_height, network_width, grid).rle();
  });
}

RunList label_masks(const int32_t* masks, LabelMasks form, int64_t labels, int height, int width, int target_height,
                    int target_width) {
  const int64_t pixels = int64_t{height} * width;
  // Where each label lies, so that only that is looked at again.
  std::vector<PixelBox> where(size_t(labels), PixelBox{width, height, 0, 0});
  const auto see = [&](PixelBox& b, int y, int x) {
    b.x0 = std::min(b.x0, x), b.x1 = std::max(b.x1, x + 1), b.y0 = std::min(b.y0, y), b.y1 = std::max(b.y1, y + 1);
  };
  for (int64_t plane = 0; plane < (form == LabelMasks::kOverlap ? 1 : labels); ++plane) {
    for (int64_t i = 0; i < pixels; ++i) {
      const int32_t v = masks[plane * pixels + i];
      const int64_t label = form == LabelMasks::kOverlap ? int64_t{v} - 1 : v != 0 ? plane : -1;
      if (label >= 0 && label < labels) see(where[size_t(label)], int(i / width), int(i % width));
    }
  }
  const Axis ax(width, target_width), ay(height, target_height);
  const bool same = height == target_height && width == target_width;
  return collect_runs(labels, [&](int64_t j) {
    PixelBox box = where[size_t(j)];
    MaskPatch patch{target_height, target_width, {}, {}};
    if (box.empty()) return patch.rle();
    const PixelBox inside = box;
    if (!same) box = {std::max(box.x0 - 1, 0), std::max(box.y0 - 1, 0), std::min(box.x1 + 1, width), std::min(box.y1 + 1, height)};
    std::vector<float> values;
    for (int y = box.y0; y < box.y1; ++y) {
      for (int x = box.x0; x < box.x1; ++x) {
        const int64_t i = int64_t{y} * width + x;
        values.push_back(form == LabelMasks::kOverlap ? masks[i] == j + 1 : masks[j * pixels + i] != 0);
      }
    }
    if (same) {
      patch.where = box;
      patch.pixels.assign(values.begin(), values.end());
    } else {
      std::tie(patch.where.x0, patch.where.x1) = ax.touched(inside.x0, inside.x1);
      std::tie(patch.where.y0, patch.where.y1) = ay.touched(inside.y0, inside.y1);
      if (patch.where.empty())
        patch.where = {};
      else
        enlarge(values, box, ax, ay, patch.where, 0.5f, patch.pixels);
    }
    return patch.rle();
  });
}

BoxXyxy scale_box(const BoxXyxy& box, const ResultGeometry& g) {
  double gain = g.gain;
  int left = g.pad_left, top = g.pad_top;
  if (!g.has_ratio) {
    gain = std::min(double(g.network_height) / g.original_height, double(g.network_width) / g.original_width);
    left = round_even((g.network_width - g.original_width * gain) / 2 - 0.1);
    top = round_even((g.network_height - g.original_height * gain) / 2 - 0.1);
  }
  const float divisor = float(gain);
  const auto back = [&](float v, int pad, int limit) { return std::clamp((v - float(pad)) / divisor, 0.0f, float(limit)); };
  return {back(box.x1, left, g.original_width), back(box.y1, top, g.original_height), back(box.x2, left, g.original_width),
          back(box.y2, top, g.original_height)};
}

BoxLtwh to_ltwh(const BoxXyxy& b) {
  const float w = b.x2 - b.x1, h = b.y2 - b.y1;
  return {(b.x1 + b.x2) / 2 - w / 2, (b.y1 + b.y2) / 2 - h / 2, w, h};
}

std::vector<Rle> json_masks(const Prototypes& p, const Detections& detections, const ResultGeometry& g) {
  TESSERA_CHECK(g.has_ratio, "json_masks: needs the padding of the loader");
  // The same padding is taken off on both sides, also where the letterbox is one pixel wider on the right or at the bottom.
  const int top = round_even(g.pad_top - 0.1), left = round_even(g.pad_left - 0.1);
  const int height = g.network_height - round_even(g.pad_top + 0.1) - top,
            width = g.network_width - round_even(g.pad_left + 0.1) - left;
  TESSERA_CHECK(height > 0 && width > 0, "json_masks: padding {} and {} leaves nothing of {} x {}", g.pad_top, g.pad_left,
                g.network_height, g.network_width);
  const NativeGrid grid(p, g.network_height, g.network_width);
  const ByteResize resize(height, width, g.original_height, g.original_width);
  std::vector<Rle> out(size_t(detections.size()));
  parallel_for(detections.size(), 4, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const MaskPatch mask =
          native_mask(p, detections.coefficients_of(i), detections.boxes[size_t(i)], g.network_height, g.network_width, grid);
      out[size_t(i)] = resize(cut(mask, left, top, height, width)).rle();
    }
  });
  return out;
}

MaskPatch to_original(const MaskPatch& mask, const PixelBox& inner, int original_height, int original_width) {
  const int height = inner.y1 - inner.y0, width = inner.x1 - inner.x0;
  TESSERA_CHECK(height > 0 && width > 0, "to_original: an image of {} x {}", height, width);
  return ByteResize(height, width, original_height, original_width)(cut(mask, inner.x0, inner.y0, height, width));
}

std::vector<Polygon> mask_rings(const MaskPatch& mask) {
  std::vector<Polygon> rings;
  if (mask.where.empty()) return rings;
  for (const auto& contour : external_contours(mask.pixels.data(), mask.where.y1 - mask.where.y0, mask.where.x1 - mask.where.x0)) {
    Polygon& ring = rings.emplace_back();
    for (const PixelPoint& p : contour) ring.push_back({float(p.x + mask.where.x0), float(p.y + mask.where.y0)});
  }
  return rings;
}

Polygon mask_polygon(const MaskPatch& mask) {
  const std::vector<Polygon> rings = mask_rings(mask);
  return rings.empty() ? Polygon{} : merge_parts(rings);
}

void scale_polygon(std::span<Point> polygon, int mask_height, int mask_width, int original_height, int original_width) {
  const double gain = std::min(double(mask_height) / original_height, double(mask_width) / original_width);
  const float pad_x = float((mask_width - original_width * gain) / 2), pad_y = float((mask_height - original_height * gain) / 2);
  for (Point& p : polygon) {
    p.x = std::clamp((p.x - pad_x) / float(gain), 0.0f, float(original_width));
    p.y = std::clamp((p.y - pad_y) / float(gain), 0.0f, float(original_height));
  }
}

}  // namespace tessera
