#include "yolo/eval/masks.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <tuple>
#include <utility>

#include "tensor/base/check.h"
#include "tensor/base/parallel.h"
#include "tensor/bilinear.h"
#include "tensor/bit_rows.h"

namespace tessera {

namespace {

int round_even(double v) { return static_cast<int>(std::nearbyint(v)); }

// First integer i with i >= v, kept within [0, n].
int first_at_least(float v, int n) { return v > 0 ? (v < float(n) ? static_cast<int>(std::ceil(v)) : n) : 0; }

// Pixels whose upper left corner lies in the box: i >= v1 and i < v2.
PixelBox pixels_in(const BoxXyxy& box, int height, int width) {
  if (!(box.x1 < box.x2) || !(box.y1 < box.y2)) return {};
  const PixelBox pixels{first_at_least(box.x1, width), first_at_least(box.y1, height), first_at_least(box.x2, width),
                        first_at_least(box.y2, height)};
  return pixels.empty() ? PixelBox{} : pixels;
}

// Prototype cells that a target of height x width covers.
PixelBox middle(int ph, int pw, int height, int width) {
  const double gain = std::min(double(ph) / height, double(pw) / width);
  const double pad_w = (pw - width * gain) / 2, pad_h = (ph - height * gain) / 2;
  PixelBox slice{round_even(pad_w - 0.1), round_even(pad_h - 0.1), pw - round_even(pad_w + 0.1), ph - round_even(pad_h + 0.1)};
  // Of an image a hundred times as long as wide less than a cell is left.
  slice.x1 = std::max(slice.x1, slice.x0 + 1);
  slice.y1 = std::max(slice.y1, slice.y0 + 1);
  return slice;
}

MaskView view_of(const MaskItem& m, const uint32_t* words) { return {m.height, m.width, m.where, words}; }

// The mask seen from a frame within it. Its words are still those of the mask, or in `memory`.
MaskView cut(const MaskView& in, const PixelBox& frame, std::vector<uint32_t>& memory) {
  MaskView out{frame.height(), frame.width(), {}, nullptr};
  const PixelBox kept = common(in.where, frame);
  if (kept.empty()) return out;
  out.where = {kept.x0 - frame.x0, kept.y0 - frame.y0, kept.x1 - frame.x0, kept.y1 - frame.y0};
  const uint32_t* const first = in.words + (kept.y0 - in.where.y0) * in.row_words();
  out.words = first;
  if (kept.x0 == in.where.x0 && kept.x1 == in.where.x1) return out;
  memory.resize(size_t(out.row_words() * kept.height()));
  for (int y = 0; y < kept.height(); ++y) {
    copy_bits(first + y * in.row_words(), kept.x0 - in.where.x0, kept.width(), memory.data() + y * out.row_words());
  }
  out.words = memory.data();
  return out;
}

// The part of the network input that the JSON file shows.
PixelBox json_frame(const ResultGeometry& g) {
  TESSERA_CHECK(g.has_ratio, "JsonMask: needs the padding of the loader");
  // The same padding is taken off on both sides, also where the letterbox is one pixel wider on the right or at the bottom.
  const PixelBox frame{round_even(g.pad_left - 0.1), round_even(g.pad_top - 0.1), g.network_width - round_even(g.pad_left + 0.1),
                       g.network_height - round_even(g.pad_top + 0.1)};
  TESSERA_CHECK(!frame.empty(), "JsonMask: padding {} and {} leaves nothing of {} x {}", g.pad_top, g.pad_left, g.network_height,
                g.network_width);
  return frame;
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

bool MaskView::any() const {
  return std::any_of(words, words + row_words() * where.height(), [](uint32_t w) { return w != 0; });
}

std::vector<uint8_t> MaskView::pixels() const {
  const int columns = where.width(), rows = where.height();
  std::vector<uint8_t> bytes(size_t(columns) * size_t(rows));
  for (int y = 0; y < rows; ++y) unpack_bits(words + y * row_words(), columns, bytes.data() + size_t(y) * size_t(columns));
  return bytes;
}

void MaskView::paint(uint8_t* mask, int64_t pitch) const {
  if (pitch == 0) pitch = width;
  for (int y = 0; y < height; ++y) {
    uint8_t* row = mask + y * pitch;
    std::memset(row, 0, size_t(width));
    if (y >= where.y0 && y < where.y1) unpack_bits(words + (y - where.y0) * row_words(), where.width(), row + where.x0);
  }
}

MaskPatch MaskView::copy() const { return {height, width, where, {words, words + row_words() * where.height()}}; }

MaskItem mask_item(const BatchDetections& found, int64_t image, int64_t i, int network_height, int network_width, MaskSize size) {
  const BoxXyxy& box = found.images[size_t(image)].boxes[size_t(i)];
  if (size == MaskSize::kNative) return native_mask_item(found, image, i, box, network_height, network_width);
  const int ph = int(found.prototypes.size(1)), pw = int(found.prototypes.size(2));
  const float sx = float(double(pw) / network_width), sy = float(double(ph) / network_height);
  const PixelBox inside = pixels_in({box.x1 * sx, box.y1 * sy, box.x2 * sx, box.y2 * sy}, ph, pw);
  MaskItem m;
  m.image = int32_t(image), m.row = found.row(image, i);
  m.slice = {0, 0, pw, ph};
  m.crop = inside;
  if (size == MaskSize::kPrototype) {
    m.height = ph, m.width = pw;
    m.where = m.crop;
    return m;
  }
  // Cropped at prototype size, zero around: interpolation carries the zeros of the neighbouring cells.
  m.height = network_height, m.width = network_width;
  if (inside.empty()) return m;
  std::tie(m.where.x0, m.where.x1) = touched_outputs(pw, network_width, inside.x0, inside.x1);
  std::tie(m.where.y0, m.where.y1) = touched_outputs(ph, network_height, inside.y0, inside.y1);
  return m;
}

MaskItem native_mask_item(const BatchDetections& found, int64_t image, int64_t i, const BoxXyxy& box, int height, int width) {
  MaskItem m;
  m.image = int32_t(image), m.row = found.row(image, i);
  m.slice = middle(int(found.prototypes.size(1)), int(found.prototypes.size(2)), height, width);
  m.height = height, m.width = width;
  m.where = pixels_in(box, height, width);
  m.crop = m.slice;
  return m;
}

// The host computes a few masks where they are used. Of a device so many words come at a time that neither side holds much.
void for_each_mask(const BatchDetections& found, std::span<const MaskItem> items,
                   const std::function<void(int64_t item, const MaskView& mask)>& take) {
  const Device device = found.prototypes.device();
  if (device == Device::cpu()) {
    ops::each_mask(found.prototypes, found.coefficients, items,
                   [&](int64_t i, const uint32_t* words) { take(i, view_of(items[size_t(i)], words)); });
    return;
  }
  for (size_t first = 0; first < items.size();) {
    std::vector<MaskItem> run;
    int64_t words = 0;
    for (; first + run.size() < items.size(); words += run.back().words()) {
      const MaskItem& next = items[first + run.size()];
      if (!run.empty() && words + next.words() > kMaskWordsAtOnce) break;
      run.push_back(next);
      run.back().offset = words;
    }
    const Tensor computed = Tensor::empty({words}, DType::kI32, device);
    ops::mask_patches(found.prototypes, found.coefficients, run, static_cast<uint32_t*>(computed.raw()));
    const Tensor fetched = computed.to(Device::cpu());
    const uint32_t* const all = static_cast<const uint32_t*>(fetched.raw());
    parallel_chunks(int64_t(run.size()), [&](int64_t i) {
      const MaskItem& item = run[size_t(i)];
      take(int64_t(first) + i, view_of(item, all + item.offset));
    });
    first += run.size();
  }
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
  const bool same = height == target_height && width == target_width;
  return collect_runs(labels, [&](int64_t j) {
    PixelBox box = where[size_t(j)];
    MaskPatch patch{target_height, target_width, {}, {}};
    if (box.empty()) return patch.rle();
    const PixelBox inside = box;
    if (!same) box = {std::max(box.x0 - 1, 0), std::max(box.y0 - 1, 0), std::min(box.x1 + 1, width), std::min(box.y1 + 1, height)};
    const auto is_set = [&](int x, int y) {
      const int64_t i = int64_t{y} * width + x;
      return form == LabelMasks::kOverlap ? masks[i] == j + 1 : masks[j * pixels + i] != 0;
    };
    if (same) {
      patch.where = box;
      const int columns = box.width();
      patch.words.resize(size_t(words_of_row(columns) * box.height()));
      std::vector<uint8_t> line(static_cast<size_t>(columns));
      for (int y = box.y0; y < box.y1; ++y) {
        for (int x = box.x0; x < box.x1; ++x) line[size_t(x - box.x0)] = is_set(x, y);
        pack_bits(line.data(), columns, patch.words.data() + (y - box.y0) * words_of_row(columns));
      }
    } else {
      std::vector<float> values;
      for (int y = box.y0; y < box.y1; ++y) {
        for (int x = box.x0; x < box.x1; ++x) values.push_back(is_set(x, y));
      }
      PixelBox& to = patch.where;
      std::tie(to.x0, to.x1) = touched_outputs(width, target_width, inside.x0, inside.x1);
      std::tie(to.y0, to.y1) = touched_outputs(height, target_height, inside.y0, inside.y1);
      if (to.empty()) return to = {}, patch.rle();
      patch.words.resize(size_t(words_of_row(to.width()) * to.height()));
      enlarge(values.data(), box, {width, target_width, to.x0, to.x1}, {height, target_height, to.y0, to.y1}, 0.5f,
              patch.words.data());
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

MaskResize::MaskResize(int in_height, int in_width, int height, int width)
    : height_(height), width_(width) {
  if (in_height != height || in_width != width) bits_.emplace(in_height, in_width, height, width);
}

PixelBox MaskResize::reach(const PixelBox& from) const {
  if (!bits_ || from.empty()) return from;
  const PixelBox to = bits_->reach(from);
  return to.empty() ? PixelBox{} : to;
}

MaskView MaskResize::operator()(const MaskView& in, std::vector<uint32_t>& memory) const {
  if (!bits_) return in;
  MaskView out{height_, width_, reach(in.where), nullptr};
  if (out.where.empty()) return out;
  memory.resize(size_t(out.row_words() * out.where.height()));
  (*bits_)(in.words, in.where, out.where, memory.data());
  out.words = memory.data();
  return out;
}

JsonMask::JsonMask(const ResultGeometry& g)
    : frame_(json_frame(g)), resize_(frame_.height(), frame_.width(), g.original_height, g.original_width) {}

PixelBox JsonMask::shown(const PixelBox& native) const { return common(native, frame_); }

PixelBox JsonMask::reach(const PixelBox& shown) const {
  if (shown.empty()) return {};
  return resize_.reach({shown.x0 - frame_.x0, shown.y0 - frame_.y0, shown.x1 - frame_.x0, shown.y1 - frame_.y0});
}

Rle JsonMask::operator()(const MaskView& native) const {
  thread_local std::vector<uint32_t> inner, resized;
  return resize_(cut(native, frame_, inner), resized).rle();
}

MaskPatch to_original(const MaskView& mask, const PixelBox& inner, int original_height, int original_width) {
  TESSERA_CHECK(!inner.empty(), "to_original: an image of {} x {}", inner.height(), inner.width());
  thread_local std::vector<uint32_t> kept, resized;
  const MaskResize resize(inner.height(), inner.width(), original_height, original_width);
  return resize(cut(mask, inner, kept), resized).copy();
}

std::vector<Polygon> mask_rings(const MaskView& mask) {
  std::vector<Polygon> rings;
  if (mask.where.empty()) return rings;
  for (const auto& contour : external_contours(mask.words, mask.where.height(), mask.where.width())) {
    Polygon& ring = rings.emplace_back();
    for (const PixelPoint& p : contour) ring.push_back({float(p.x + mask.where.x0), float(p.y + mask.where.y0)});
  }
  return rings;
}

Polygon mask_polygon(const MaskView& mask) {
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
