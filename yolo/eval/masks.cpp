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
  return {first_at_least(box.x1, width), first_at_least(box.y1, height), first_at_least(box.x2, width),
          first_at_least(box.y2, height)};
}

// Prototype cells that a target of height x width covers.
MaskRect middle(int ph, int pw, int height, int width) {
  const double gain = std::min(double(ph) / height, double(pw) / width);
  const double pad_w = (pw - width * gain) / 2, pad_h = (ph - height * gain) / 2;
  MaskRect slice{round_even(pad_w - 0.1), round_even(pad_h - 0.1), pw - round_even(pad_w + 0.1), ph - round_even(pad_h + 0.1)};
  // Of an image a hundred times as long as wide less than a cell is left.
  slice.x1 = std::max(slice.x1, slice.x0 + 1);
  slice.y1 = std::max(slice.y1, slice.y0 + 1);
  return slice;
}

MaskRect rect_of(const PixelBox& b) { return b.empty() ? MaskRect{} : MaskRect{b.x0, b.y0, b.x1, b.y1}; }

MaskPatch patch_of(const MaskItem& m) { return {m.height, m.width, {m.where.x0, m.where.y0, m.where.x1, m.where.y1}, {}}; }

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
// data/image.h gives, but only where set pixels can arise. Where all that a pixel is taken from is set, so is the pixel, whatever
// the rounding: weights sum to 2048 but for one, which leaves at least 3.96 before the two halves are rounded down. So arithmetic
// is left to the words of 32 pixels around a contour, and there it is 16-bit: no product of weights is as large as 2^18.
struct ByteResize {
  int in_height, in_width, height, width;
  bool halves;  // taken as an area average
  ByteAxis ax, ay;
  std::vector<int> first0, first1;  // of a column of the source: the first output whose i0, i1 is not before it
  std::vector<uint16_t> w0, w1;     // of ax and a word more

  ByteResize(int ih, int iw, int h, int w)
      : in_height(ih),
        in_width(iw),
        height(h),
        width(w),
        halves(ih == 2 * h && iw == 2 * w),
        ax(iw, w, ByteAxis::Border::kColumns),
        ay(ih, h, ByteAxis::Border::kRows),
        w0(ax.w0.begin(), ax.w0.end()),
        w1(ax.w1.begin(), ax.w1.end()) {
    first_of(ax.i0, first0), first_of(ax.i1, first1);
    w0.resize(w0.size() + kBitsOfWord), w1.resize(w1.size() + kBitsOfWord);
  }

  MaskPatch operator()(MaskPatch in) const {
    MaskPatch out{height, width, {}, {}};
    if (in.where.empty()) return out;
    if (in_height == height && in_width == width) return in;
    PixelBox& to = out.where;
    to.x0 = first_from(ax.i1, in.where.x0), to.x1 = first_from(ax.i0, in.where.x1);
    to.y0 = first_from(ay.i1, in.where.y0), to.y1 = first_from(ay.i0, in.where.y1);
    if (to.empty()) return to = {}, out;
    thread_local std::vector<Word> words;
    set_words(in, to, words);
    const size_t row_words = words.size();
    thread_local Row rows[3];  // two neighbouring ones of the patch, and in the last what lies outside
    for (Row& r : rows) r.assign(row_words);
    const auto row = [&](int y) -> Row& {
      if (y < in.where.y0 || y >= in.where.y1) return rows[2];
      for (Row* r : {&rows[0], &rows[1]}) {
        if (r->holds(y)) return *r;
        if (r->holds(y - 1) && same_rows(in, y - 1, y)) return r->end = y + 1, *r;
      }
      Row& r = rows[rows[0].holds(y - 1) ? 1 : 0];
      see(in, y, words, r);
      return r;
    };
    out.words.resize(row_words * size_t(to.y1 - to.y0));
    uint32_t* bits = out.words.data();
    for (int y = to.y0; y < to.y1; ++y, bits += row_words) {
      Row &upper = row(ay.i0[size_t(y)]), &lower = row(ay.i1[size_t(y)]);
      if (upper.empty && lower.empty) continue;
      uint32_t some = 0;
      for (size_t w = 0; w < row_words; ++w) {
        bits[w] = upper.all[w] & lower.all[w];
        some |= (upper.any[w] | lower.any[w]) & ~bits[w];
      }
      if (some == 0) continue;
      const uint16_t b0 = uint16_t(ay.w0[size_t(y)]), b1 = uint16_t(ay.w1[size_t(y)]);
      for (size_t w = 0; w < row_words; ++w) {
        if (((upper.any[w] | lower.any[w]) & ~bits[w]) == 0) continue;
        const uint16_t *const above = sums(in, words, upper, w), *const below = sums(in, words, lower, w);
        uint8_t set[kBitsOfWord];
        if (halves) {
          for (int x = 0; x < kBitsOfWord; ++x) set[x] = uint8_t((above[x] + below[x]) >> 1);
        } else {
          for (int x = 0; x < kBitsOfWord; ++x) {
            const uint16_t high = uint16_t(uint32_t{b0} * above[x] >> 16), low = uint16_t(uint32_t{b1} * below[x] >> 16);
            set[x] = uint8_t(uint16_t(high + low) >> 1);
          }
        }
        pack_bits(set, kBitsOfWord, bits + w);
        bits[w] &= words[w].used;
      }
    }
    return out;
  }

 private:
  // Of 32 outputs of a row.
  struct Word {
    int x;                    // the first
    uint32_t used;            // those that there are
    int from, count, second;  // columns of the source, from the patch's left on: i0 of the first, so many, i1 of the first
    uint64_t asked() const { return (uint64_t{1} << count) - 1; }
    bool narrow() const { return count <= 56; }  // it can be had with one load
  };
  // Rows [y, end) of the source, which are the same, by word of the result.
  struct Row {
    int y, end;
    bool empty;
    std::vector<uint32_t> any, all;  // ~0 or 0, `used` or 0
    std::vector<uint64_t> columns;   // of narrow words
    std::vector<uint8_t> summed;
    std::vector<uint16_t> sums;  // horizontally resized, with the rounding of the vertical step

    bool holds(int row) const { return row >= y && row < end; }
    void assign(size_t words) {
      y = end = -1;
      empty = true;
      any.assign(words, 0), all.assign(words, 0), columns.assign(words, 0), summed.assign(words, 0);
      sums.resize(words * kBitsOfWord);
    }
  };

  static int first_from(const std::vector<int>& taps, int column) {
    return int(std::lower_bound(taps.begin(), taps.end(), column) - taps.begin());
  }
  void first_of(const std::vector<int>& taps, std::vector<int>& first) const {
    first.resize(size_t(in_width) + 1);
    int o = 0;
    for (int c = 0; c <= in_width; ++c) {
      while (o < width && taps[size_t(o)] < c) ++o;
      first[size_t(c)] = o;
    }
  }

  void set_words(const MaskPatch& in, const PixelBox& to, std::vector<Word>& words) const {
    words.clear();
    for (int x = to.x0; x < to.x1; x += kBitsOfWord) {
      const int n = std::min(to.x1 - x, kBitsOfWord), from = ax.i0[size_t(x)];
      words.push_back(
          {x, ~0u >> (kBitsOfWord - n), from - in.where.x0, ax.i1[size_t(x + n - 1)] + 1 - from, ax.i1[size_t(x)] - from});
    }
  }

  static bool is_set(const MaskPatch& in, int y, int column) {
    const int columns = in.where.x1 - in.where.x0;
    if (y < in.where.y0 || y >= in.where.y1 || column < 0 || column >= columns) return false;
    return in.words[size_t((y - in.where.y0) * words_of_row(columns) + column / kBitsOfWord)] >> (column % kBitsOfWord) & 1;
  }

  static bool same_rows(const MaskPatch& in, int y0, int y1) {
    const size_t words = size_t(words_of_row(in.where.x1 - in.where.x0));
    const uint32_t* const first = in.words.data();
    return std::memcmp(first + size_t(y0 - in.where.y0) * words, first + size_t(y1 - in.where.y0) * words,
                       words * sizeof(uint32_t)) == 0;
  }

  void see(const MaskPatch& in, int y, const std::vector<Word>& words, Row& row) const {
    constexpr int kBefore = kBitsOfWord;  // bits that lie outside
    const size_t in_words = size_t(words_of_row(in.where.x1 - in.where.x0));
    thread_local std::vector<uint32_t> line;
    line.assign(in_words + 4, 0);
    std::copy_n(in.words.begin() + std::ptrdiff_t(size_t(y - in.where.y0) * in_words), in_words, line.begin() + 1);
    row.y = y, row.end = y + 1;
    row.empty = std::all_of(line.begin(), line.end(), [](uint32_t word) { return word == 0; });
    for (size_t w = 0; w < words.size(); ++w) {
      const Word& word = words[w];
      bool any = false, all = true;
      if (word.narrow()) {
        const int first = word.from + kBefore;
        uint64_t columns;
        std::memcpy(&columns, reinterpret_cast<const char*>(line.data()) + first / 8, sizeof(columns));
        columns = columns >> first % 8 & word.asked();
        row.columns[w] = columns;
        any = columns != 0, all = columns == word.asked();
      } else {
        for (int c = word.from; c < word.from + word.count; ++c) {
          const bool set = is_set(in, y, c);
          any = any || set, all = all && set;
        }
      }
      row.any[w] = any ? ~0u : 0, row.all[w] = all ? word.used : 0;
      row.summed[w] = 0;
    }
  }

  // Whether the pixels that the outputs take first, or second, are set. Between two changes along the source they all are or are
  // not.
  std::pair<uint32_t, uint32_t> taken(const MaskPatch& in, const Word& word, const Row& row, size_t w) const {
    uint32_t a = 0, b = 0;
    if (!word.narrow()) {
      for (int i = 0; i < kBitsOfWord && word.x + i < width; ++i) {
        a |= uint32_t(is_set(in, row.y, ax.i0[size_t(word.x + i)] - in.where.x0)) << i;
        b |= uint32_t(is_set(in, row.y, ax.i1[size_t(word.x + i)] - in.where.x0)) << i;
      }
      return {a, b};
    }
    const uint64_t columns = row.columns[w];
    a = columns & 1 ? ~0u : 0, b = columns >> word.second & 1 ? ~0u : 0;
    const int left = word.from + in.where.x0;
    for (uint64_t changes = (columns ^ columns << 1) & word.asked() & ~uint64_t{1}; changes != 0; changes &= changes - 1) {
      const int i = std::countr_zero(changes);
      const auto flip = [&](uint32_t& bits, int first) {
        if (first - word.x < kBitsOfWord) bits ^= ~0u << (first - word.x);
      };
      flip(a, first0[size_t(left + i)]);
      if (i > word.second) flip(b, first1[size_t(left + i)]);
    }
    return {a, b};
  }

  const uint16_t* sums(const MaskPatch& in, const std::vector<Word>& words, Row& row, size_t w) const {
    uint16_t* const sums = row.sums.data() + w * kBitsOfWord;
    if (std::exchange(row.summed[w], 1) != 0) return sums;
    const auto [a, b] = taken(in, words[w], row, w);
    uint8_t first[kBitsOfWord], second[kBitsOfWord];
    unpack_bits(&a, kBitsOfWord, first);
    unpack_bits(&b, kBitsOfWord, second);
    if (halves) {
      for (int x = 0; x < kBitsOfWord; ++x) sums[x] = uint16_t(first[x] + second[x]);
    } else {
      const uint16_t *const by0 = w0.data() + words[w].x, *const by1 = w1.data() + words[w].x;
      for (int x = 0; x < kBitsOfWord; ++x)
        sums[x] = uint16_t(uint16_t(uint16_t(first[x] * by0[x]) + uint16_t(second[x] * by1[x])) >> 4);
    }
    return sums;
  }
};

// The patch seen from a frame whose corner lies at (left, top) and that has height x width pixels.
MaskPatch cut(MaskPatch in, int left, int top, int height, int width) {
  MaskPatch out{height, width, {}, {}};
  const PixelBox kept{std::max(in.where.x0, left), std::max(in.where.y0, top), std::min(in.where.x1, left + width),
                      std::min(in.where.y1, top + height)};
  if (kept.empty()) return out;
  out.where = {kept.x0 - left, kept.y0 - top, kept.x1 - left, kept.y1 - top};
  const int columns = kept.x1 - kept.x0;
  const int64_t in_words = words_of_row(in.where.x1 - in.where.x0), out_words = words_of_row(columns);
  const uint32_t* const first = in.words.data() + (kept.y0 - in.where.y0) * in_words;
  if (kept.y0 == in.where.y0 && kept.x0 == in.where.x0 && kept.x1 == in.where.x1) {
    in.words.resize(size_t(out_words * (kept.y1 - kept.y0)));
    out.words = std::move(in.words);
  } else if (kept.x0 == in.where.x0 && kept.x1 == in.where.x1) {
    out.words.assign(first, first + in_words * (kept.y1 - kept.y0));
  } else {
    out.words.resize(size_t(out_words * (kept.y1 - kept.y0)));
    for (int y = 0; y < kept.y1 - kept.y0; ++y) {
      copy_bits(first + y * in_words, kept.x0 - in.where.x0, columns, out.words.data() + y * out_words);
    }
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

bool MaskPatch::any() const {
  return std::any_of(words.begin(), words.end(), [](uint32_t w) { return w != 0; });
}

std::vector<uint8_t> MaskPatch::pixels() const {
  const int columns = where.x1 - where.x0, rows = where.y1 - where.y0;
  std::vector<uint8_t> bytes(size_t(columns) * size_t(rows));
  for (int y = 0; y < rows; ++y) {
    unpack_bits(words.data() + y * words_of_row(columns), columns, bytes.data() + size_t(y) * size_t(columns));
  }
  return bytes;
}

void MaskPatch::paint(uint8_t* mask) const {
  std::memset(mask, 0, size_t(height) * size_t(width));
  const int columns = where.x1 - where.x0;
  for (int y = where.y0; y < where.y1; ++y) {
    unpack_bits(words.data() + (y - where.y0) * words_of_row(columns), columns,
                mask + size_t(y) * size_t(width) + size_t(where.x0));
  }
}

MaskItem mask_item(const BatchDetections& found, int64_t image, int64_t i, int network_height, int network_width, MaskSize size) {
  const BoxXyxy& box = found.images[size_t(image)].boxes[size_t(i)];
  if (size == MaskSize::kNative) return native_mask_item(found, image, i, box, network_height, network_width);
  const int ph = int(found.prototypes.size(1)), pw = int(found.prototypes.size(2));
  const float sx = float(double(pw) / network_width), sy = float(double(ph) / network_height);
  const PixelBox inside = pixels_in({box.x1 * sx, box.y1 * sy, box.x2 * sx, box.y2 * sy}, ph, pw);
  MaskItem m;
  m.image = int32_t(image), m.row = found.row(image, i);
  m.slice = {0, 0, pw, ph};
  m.crop = rect_of(inside);
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
  m.where = rect_of(pixels_in(box, height, width));
  m.crop = m.slice;
  return m;
}

// The host computes a few masks where they are used. Of a device so many words come at a time that neither side holds much.
void for_each_mask(const BatchDetections& found, std::span<const MaskItem> items,
                   const std::function<void(int64_t item, MaskPatch patch)>& take) {
  const Device device = found.prototypes.device();
  if (device == Device::cpu()) {
    ops::each_mask(found.prototypes, found.coefficients, items, [&](int64_t i, const uint32_t* words) {
      MaskPatch patch = patch_of(items[size_t(i)]);
      patch.words.assign(words, words + items[size_t(i)].words());
      take(i, std::move(patch));
    });
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
    parallel_chunks(int64_t(run.size()), [&](int64_t i) {
      MaskPatch patch = patch_of(run[size_t(i)]);
      const int32_t* const begin = fetched.data<int32_t>() + run[size_t(i)].offset;
      patch.words.assign(begin, begin + run[size_t(i)].words());
      take(int64_t(first) + i, std::move(patch));
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
      const int columns = box.x1 - box.x0;
      patch.words.resize(size_t(words_of_row(columns) * (box.y1 - box.y0)));
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
      patch.words.resize(size_t(words_of_row(to.x1 - to.x0) * (to.y1 - to.y0)));
      enlarge(values.data(), rect_of(box), {width, target_width, to.x0, to.x1}, {height, target_height, to.y0, to.y1}, 0.5f,
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

PixelBox json_frame(const ResultGeometry& g) {
  TESSERA_CHECK(g.has_ratio, "json_mask: needs the padding of the loader");
  // The same padding is taken off on both sides, also where the letterbox is one pixel wider on the right or at the bottom.
  const PixelBox frame{round_even(g.pad_left - 0.1), round_even(g.pad_top - 0.1), g.network_width - round_even(g.pad_left + 0.1),
                       g.network_height - round_even(g.pad_top + 0.1)};
  TESSERA_CHECK(!frame.empty(), "json_mask: padding {} and {} leaves nothing of {} x {}", g.pad_top, g.pad_left, g.network_height,
                g.network_width);
  return frame;
}

std::function<Rle(MaskPatch)> json_mask(const ResultGeometry& g) {
  const PixelBox frame = json_frame(g);
  const int height = frame.y1 - frame.y0, width = frame.x1 - frame.x0;
  return [=, resize = ByteResize(height, width, g.original_height, g.original_width)](MaskPatch native) {
    return resize(cut(std::move(native), frame.x0, frame.y0, height, width)).rle();
  };
}

MaskPatch to_original(MaskPatch mask, const PixelBox& inner, int original_height, int original_width) {
  const int height = inner.y1 - inner.y0, width = inner.x1 - inner.x0;
  TESSERA_CHECK(height > 0 && width > 0, "to_original: an image of {} x {}", height, width);
  return ByteResize(height, width, original_height, original_width)(cut(std::move(mask), inner.x0, inner.y0, height, width));
}

std::vector<Polygon> mask_rings(const MaskPatch& mask) {
  std::vector<Polygon> rings;
  if (mask.where.empty()) return rings;
  for (const auto& contour : external_contours(mask.words.data(), mask.where.y1 - mask.where.y0, mask.where.x1 - mask.where.x0)) {
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
