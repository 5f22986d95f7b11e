#include "data/rle.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <utility>

#include "data/rle_bounds.h"
#include "tensor/base/check.h"
#include "tensor/bit_rows.h"

namespace tessera {

namespace {

constexpr double kMaxCoordinate = 1e6;
constexpr size_t kBlock = 1 << 16;  // boundaries in a block of a RunList
constexpr int kFine = 5;            // sub-pixel grid of the polygon rule

int64_t checked_pixels(int64_t height, int64_t width) {
  if (height < 0 || width < 0 || (height > 0 && width > int64_t{std::numeric_limits<uint32_t>::max()} / height)) {
    throw Error(ErrorCode::kData, fmt::format("a mask of {} x {} pixels cannot be run-length coded", height, width));
  }
  return height * width;
}

[[noreturn]] void bad_sum(uint64_t sum, int64_t height, int64_t width) {
  throw Error(ErrorCode::kData,
              fmt::format("run lengths cover {}{} pixels, the mask has {} x {} = {}",
                          sum > uint64_t(height * width) ? "at least " : "", sum, height, width, height * width),
              {}, "the size [height, width] and the counts do not belong together");
}

// One signed number of the compressed text from `at` on, which then stands behind it, group by group.
[[gnu::noinline]] int64_t parse_number_slowly(std::string_view text, size_t& at) {
  int64_t value = 0;
  int shift = 0;
  for (bool more = true; more; shift += 5) {
    if (at == text.size()) throw Error(ErrorCode::kData, "the run-length text ends in the middle of a number");
    const unsigned group = static_cast<unsigned char>(text[at]) - 48u;
    if (group > 63)
      throw Error(ErrorCode::kData, fmt::format("character {} of the run-length text is not part of a COCO mask", at + 1));
    if (shift > 30)
      throw Error(ErrorCode::kData, fmt::format("the number before character {} of the run-length text is too long", at + 1));
    ++at;
    value |= int64_t(group & 0x1f) << shift;
    more = group & 0x20;
    if (!more && (group & 0x10)) value |= int64_t(~uint64_t{0} << (shift + 5));
  }
  return value;
}

// The same, up to seven groups at once. Most numbers have one or two, but which is unpredictable, so there is no branch on it.
[[gnu::always_inline]] inline int64_t parse_number(std::string_view text, size_t& at) {
  if constexpr (std::endian::native == std::endian::little) {
    if (at + 8 <= text.size()) {
      uint64_t x;
      std::memcpy(&x, text.data() + at, 8);
      x -= 0x3030303030303030;
      const uint64_t last = ~x & 0x2020202020202020;  // groups that end a number
      const int groups = last == 0 ? 9 : std::countr_zero(last) / 8 + 1;
      if (groups <= 7) {
        const uint64_t used = (uint64_t{1} << (8 * groups)) - 1;
        if ((x & 0xC0C0C0C0C0C0C0C0 & used) == 0) {
          x &= 0x1F1F1F1F1F1F1F1F & used;
          x = (x & 0x001F001F001F001F) | (x & 0x1F001F001F001F00) >> 3;
          x = (x & 0x000003FF000003FF) | (x & 0x03FF000003FF0000) >> 6;
          x = (x & 0x00000000000FFFFF) | (x & 0x000FFFFF00000000) >> 12;
          at += static_cast<size_t>(groups);
          const int unused = 64 - 5 * groups;
          return static_cast<int64_t>(x << unused) >> unused;
        }
      }
    }
  }
  return parse_number_slowly(text, at);
}

// Calls run(count) for each run length of the compressed text and checks everything that can be wrong with it.
template <class Run>
void parse_counts(std::string_view text, int64_t height, int64_t width, Run run) {
  const int64_t pixels = checked_pixels(height, width);
  int64_t before[2] = {0, 0};  // the last two counts, newest first
  int64_t sum = 0;
  size_t at = 0;
  for (int64_t index = 0; at < text.size(); ++index) {
    int64_t value = parse_number(text, at);
    value += index > 2 ? before[1] : 0;
    if (value < 0)
      throw Error(ErrorCode::kData, fmt::format("run {} of the run-length text has the negative length {}", index + 1, value));
    sum += value;
    if (sum > pixels) bad_sum(uint64_t(sum), height, width);
    before[1] = before[0], before[0] = value;
    run(static_cast<uint32_t>(value));
  }
  if (sum != pixels) bad_sum(uint64_t(sum), height, width);
}

std::vector<uint32_t> bounds_to_counts(std::span<const uint32_t> bounds, int64_t pixels) {
  const uint32_t last = bounds.empty() ? 0 : bounds.back();
  const bool open = pixels > last || bounds.empty();
  std::vector<uint32_t> counts(bounds.size() + open);
  for (size_t i = 1; i < bounds.size(); ++i) counts[i] = bounds[i] - bounds[i - 1];  // std::adjacent_difference takes them one by one
  if (!bounds.empty()) counts[0] = bounds[0];
  if (open) counts.back() = static_cast<uint32_t>(pixels - last);
  return counts;
}

// Adds [begin, end) to a boundary list, joining runs that touch.
void add_run(std::vector<uint32_t>& bounds, uint32_t begin, uint32_t end) {
  if (begin == end) return;
  if (!bounds.empty() && begin <= bounds.back()) {
    bounds.back() = std::max(bounds.back(), end);
  } else {
    bounds.push_back(begin), bounds.push_back(end);
  }
}

std::vector<uint32_t> counts_to_bounds(std::span<const uint32_t> counts) {
  std::vector<uint32_t> bounds;
  uint32_t at = 0;
  for (size_t i = 0; i < counts.size(); at += counts[i], ++i) {
    if (i % 2) add_run(bounds, at, at + counts[i]);
  }
  return bounds;
}

BoxLtwh box_of_bounds(const uint32_t* bounds, size_t n, int64_t height) {
  if (n == 0) return {0, 0, 0, 0};
  const uint32_t h = static_cast<uint32_t>(height);
  uint32_t top = h, bottom = 0;
  uint32_t column = bounds[0] / h * h;  // its first position; to divide for every run would take longer than all else
  for (size_t i = 0; i < n; i += 2) {
    const uint32_t first = bounds[i], last = bounds[i + 1] - 1;
    if (first - column >= h) column = first / h * h;
    const uint32_t y0 = first - column, y1 = last - column;
    if (y1 >= h) {  // reaches into the next column
      top = 0, bottom = h - 1;
      break;
    }
    top = std::min(top, y0), bottom = std::max(bottom, y1);
  }
  const uint32_t left = bounds[0] / h, right = (bounds[n - 1] - 1) / h;
  return {double(left), double(top), double(right - left + 1), double(bottom - top + 1)};
}

bool boxes_overlap(const BoxLtwh& a, const BoxLtwh& b) {
  return std::min(a[0] + a[2], b[0] + b[2]) > std::max(a[0], b[0]) && std::min(a[1] + a[3], b[1] + b[3]) > std::max(a[1], b[1]);
}

std::vector<uint32_t> union_of(std::span<const uint32_t> a, std::span<const uint32_t> b) {
  std::vector<uint32_t> out;
  out.reserve(a.size() + b.size());
  size_t i = 0, j = 0;
  while (i < a.size() || j < b.size()) {
    const bool from_a = j >= b.size() || (i < a.size() && a[i] <= b[j]);
    const auto& from = from_a ? a : b;
    size_t& at = from_a ? i : j;
    add_run(out, from[at], from[at + 1]);
    at += 2;
  }
  return out;
}

}  // namespace

Rle rle_encode(const uint8_t* mask, int height, int width, int64_t pitch) {
  checked_pixels(height, width);
  if (pitch == 0) pitch = width;
  std::vector<uint32_t> words(size_t(words_of_row(width) * height));
  for (int64_t y = 0; y < height; ++y) pack_bits(mask + y * pitch, width, words.data() + y * words_of_row(width));
  return rle_encode(words.data(), PixelBox{0, 0, width, height}, height, width);
}

Rle rle_encode(const uint32_t* words, const PixelBox& where, int height, int width) {
  const int64_t pixels = checked_pixels(height, width);
  std::span<const uint32_t> bounds;
  if (!where.empty()) {
    TESSERA_CHECK(where.x0 >= 0 && where.y0 >= 0 && where.x1 <= width && where.y1 <= height,
                  "rle_encode: columns {} to {}, rows {} to {} of {} x {}", where.x0, where.x1, where.y0, where.y1, height, width);
    const uint32_t first = uint32_t(int64_t{where.x0} * height + where.y0);
    bounds = find_bounds({words, where.width(), where.height(), first, uint32_t(height)});
  }
  return {height, width, bounds_to_counts(bounds, pixels)};
}

void rle_decode(const Rle& rle, uint8_t* mask) {
  const int64_t h = rle.height, w = rle.width;
  std::memset(mask, 0, static_cast<size_t>(h * w));
  int64_t at = 0;
  for (size_t i = 0; i < rle.counts.size(); ++i) {
    const int64_t end = at + rle.counts[i];
    TESSERA_CHECK(end <= h * w, "rle_decode: runs cover {} pixels, the mask has {}", end, h * w);
    if (i % 2) {
      int64_t x = at / h, y = at % h;
      for (int64_t k = at; k < end; ++k) {
        mask[y * w + x] = 1;
        if (++y == h) y = 0, ++x;
      }
    }
    at = end;
  }
}

int64_t rle_area(const Rle& rle) {
  int64_t area = 0;
  for (size_t i = 1; i < rle.counts.size(); i += 2) area += rle.counts[i];
  return area;
}

BoxLtwh rle_box(const Rle& rle) {
  RunList one;
  one.reserve(1, rle.counts.size() + 1);
  one.push(rle);
  return one.box(0);
}

Rle rle_union(std::span<const Rle> masks) {
  if (masks.empty()) return {};
  if (masks.size() == 1) return masks[0];
  const Rle& first = masks[0];
  std::vector<uint32_t> bounds = counts_to_bounds(first.counts);
  for (const Rle& m : masks.subspan(1)) {
    if (m.height != first.height || m.width != first.width) {
      throw Error(ErrorCode::kData,
                  fmt::format("masks of {} x {} and {} x {} cannot be united", first.height, first.width, m.height, m.width));
    }
    bounds = union_of(bounds, counts_to_bounds(m.counts));
  }
  return {first.height, first.width, bounds_to_counts(bounds, int64_t{first.height} * first.width)};
}

namespace {

// The text of one number of up to three groups, as nearly all are: how many is unpredictable, so eight bytes are written either way.
struct ShortNumber {
  char text[7];
  uint8_t size;
};
constexpr int kShort = 1024;  // numbers from -kShort to kShort - 1: also those between two columns of a mask that is not high
using ShortNumbers = std::array<ShortNumber, 2 * kShort>;

// Calls put(character) for the groups of x.
template <class Put>
constexpr void each_group(int64_t x, RleText form, Put put) {
  for (bool more = true; more;) {
    const int64_t group = x & 0x1f;
    x >>= 5;
    more = x != -(group >> 4);  // what is left is more than the group's sign
    const char character = static_cast<char>(group + 48 + (more ? 0x20 : 0));
    if (form == RleText::kJson && character == '\\') put('\\');
    put(character);
  }
}

constexpr ShortNumbers short_numbers(RleText form) {
  ShortNumbers numbers{};
  for (int x = -kShort; x < kShort; ++x) {
    ShortNumber& n = numbers[size_t(x + kShort)];
    each_group(x, form, [&](char c) { n.text[n.size++] = c; });
  }
  return numbers;
}
constexpr ShortNumbers kShortNumbers[] = {short_numbers(RleText::kPlain), short_numbers(RleText::kJson)};

}  // namespace

void append_rle_string(const Rle& rle, RleText form, std::string& text) {
  constexpr size_t kAtOnce = 64, kLongest = 14;  // counts; characters of one, each escaped
  const ShortNumbers& numbers = kShortNumbers[size_t(form)];
  const uint32_t* const counts = rle.counts.data();
  char piece[kAtOnce * kLongest];
  size_t n = 0;
  const auto put = [&](int64_t x) {
    if (const uint64_t i = uint64_t(x + kShort); i < numbers.size()) {
      std::memcpy(piece + n, &numbers[i], sizeof(ShortNumber));
      n += numbers[i].size;
    } else {
      each_group(x, form, [&](char c) { piece[n++] = c; });
    }
  };
  for (size_t i = 0; i < rle.counts.size(); text.append(piece, std::exchange(n, 0))) {
    const size_t end = std::min(i + kAtOnce, rle.counts.size());
    for (; i < std::min<size_t>(end, 3); ++i) put(counts[i]);
    for (; i < end; ++i) put(int64_t{counts[i]} - counts[i - 2]);
  }
}

std::string rle_to_string(const Rle& rle) {
  std::string text;
  append_rle_string(rle, RleText::kPlain, text);
  return text;
}

Rle rle_from_string(std::string_view text, int64_t height, int64_t width) {
  Rle rle;
  parse_counts(text, height, width, [&](uint32_t count) { rle.counts.push_back(count); });
  rle.height = static_cast<int32_t>(height), rle.width = static_cast<int32_t>(width);
  return rle;
}

void rle_check_string(std::string_view text, int64_t height, int64_t width) {
  parse_counts(text, height, width, [](uint32_t) {});
}

Rle rle_from_counts(std::span<const int64_t> counts, int64_t height, int64_t width) {
  const int64_t pixels = checked_pixels(height, width);
  Rle rle{static_cast<int32_t>(height), static_cast<int32_t>(width), {}};
  rle.counts.reserve(counts.size());
  int64_t sum = 0;
  for (size_t i = 0; i < counts.size(); ++i) {
    if (counts[i] < 0) throw Error(ErrorCode::kData, fmt::format("run {} has the negative length {}", i + 1, counts[i]));
    if (counts[i] > pixels - sum) bad_sum(uint64_t(sum) + uint64_t(counts[i]), height, width);
    sum += counts[i];
    rle.counts.push_back(static_cast<uint32_t>(counts[i]));
  }
  if (sum != pixels) bad_sum(uint64_t(sum), height, width);
  return rle;
}

Rle rle_from_polygon(std::span<const double> xy, int64_t height, int64_t width) {
  const int64_t pixels = checked_pixels(height, width);
  if (xy.empty() || xy.size() % 2) {
    throw Error(ErrorCode::kData, fmt::format("a polygon has {} coordinates, expected x and y of each point", xy.size()), {}, "correct it, or leave the polygon out");
  }
  for (double v : xy) {
    if (!(std::abs(v) <= kMaxCoordinate)) throw Error(ErrorCode::kData, fmt::format("a polygon has the coordinate {}", v), {}, "correct it: coordinates are pixels of the image");
  }
  const size_t k = xy.size() / 2;
  std::vector<int32_t> x(k + 1), y(k + 1);
  for (size_t i = 0; i < k; ++i) {
    x[i] = static_cast<int32_t>(kFine * xy[2 * i] + 0.5);  // truncation toward zero, also of negative values
    y[i] = static_cast<int32_t>(kFine * xy[2 * i + 1] + 0.5);
  }
  x[k] = x[0], y[k] = y[0];

  // A boundary lies where the fine x changes from f to f + 1, in the upper of the two rows; of the fine columns only every fifth is
  // a pixel column, (f + 0.5) / 5 - 0.5 = integer.
  constexpr int32_t kMiddle = kFine / 2;
  std::vector<uint32_t> positions;
  const auto boundary = [&](int32_t f, int32_t v, int32_t w) {
    const double row = std::ceil(std::clamp((std::min(v, w) + 0.5) / kFine - 0.5, 0.0, double(height)));
    positions.push_back(uint32_t(int64_t{f / kFine} * height + int64_t(row)));
  };
  const int64_t last_fine = kFine * (width - 1) + kMiddle;
  for (size_t i = 0; i < k; ++i) {
    int32_t xs = x[i], xe = x[i + 1], ys = y[i], ye = y[i + 1];
    const int32_t dx = std::abs(xe - xs), dy = std::abs(ye - ys);
    if ((dx >= dy && xs > xe) || (dx < dy && ys > ye)) std::swap(xs, xe), std::swap(ys, ye);
    if (dx >= dy) {
      const double slope = dx == 0 ? 0.0 : double(ye - ys) / dx;
      const auto row = [&](int32_t u) { return static_cast<int32_t>(ys + slope * (u - xs) + 0.5); };
      const int32_t first = xs <= kMiddle ? kMiddle : xs + (kFine + kMiddle - xs % kFine) % kFine;
      for (int32_t f = first; f < xe && f <= last_fine; f += kFine) boundary(f, row(f), row(f + 1));
    } else {
      const double slope = double(xe - xs) / dy;
      int32_t last_u = static_cast<int32_t>(xs + 0.5);
      for (int32_t d = 1; d <= dy; ++d) {
        const int32_t u = static_cast<int32_t>(xs + slope * d + 0.5);
        const int32_t f = std::min(u, last_u);
        if (u != last_u && f >= 0 && f <= last_fine && f % kFine == kMiddle) boundary(f, ys + d - 1, ys + d);
        last_u = u;
      }
    }
  }
  std::sort(positions.begin(), positions.end());
  // Two boundaries at one position cancel.
  std::vector<uint32_t> bounds;
  for (uint32_t p : positions) {
    if (!bounds.empty() && bounds.back() == p) {
      bounds.pop_back();
    } else {
      bounds.push_back(p);
    }
  }
  if (bounds.size() % 2) bounds.push_back(static_cast<uint32_t>(pixels));
  if (!bounds.empty() && bounds[bounds.size() - 1] == bounds[bounds.size() - 2]) bounds.resize(bounds.size() - 2);
  return {static_cast<int32_t>(height), static_cast<int32_t>(width), bounds_to_counts(bounds, pixels)};
}

Rle rle_from_box(const BoxLtwh& b, int64_t height, int64_t width) {
  const double x1 = b[0] + b[2], y1 = b[1] + b[3];
  const double xy[8] = {b[0], b[1], b[0], y1, x1, y1, x1, b[1]};
  return rle_from_polygon(xy, height, width);
}

double box_iou_ltwh(const BoxLtwh& d, const BoxLtwh& g, bool crowd) {
  const double w = std::min(d[2] + d[0], g[2] + g[0]) - std::max(d[0], g[0]);
  if (w <= 0) return 0;
  const double h = std::min(d[3] + d[1], g[3] + g[1]) - std::max(d[1], g[1]);
  if (h <= 0) return 0;
  const double intersection = w * h, area = d[2] * d[3];
  return intersection / (crowd ? area : area + g[2] * g[3] - intersection);
}

std::vector<double> box_iou_ltwh(std::span<const BoxLtwh> detections, std::span<const BoxLtwh> ground_truths,
                                 std::span<const uint8_t> crowd) {
  std::vector<double> iou;
  iou.reserve(detections.size() * ground_truths.size());
  for (const BoxLtwh& d : detections) {
    for (size_t g = 0; g < ground_truths.size(); ++g) iou.push_back(box_iou_ltwh(d, ground_truths[g], !crowd.empty() && crowd[g]));
  }
  return iou;
}

std::vector<double> rle_iou(std::span<const Rle> detections, std::span<const Rle> ground_truths, std::span<const uint8_t> crowd) {
  RunList d, g;
  for (const Rle& r : detections) d.push(r);
  for (const Rle& r : ground_truths) g.push(r);
  std::vector<double> iou;
  iou.reserve(detections.size() * ground_truths.size());
  for (int64_t i = 0; i < d.size(); ++i) {
    for (int64_t j = 0; j < g.size(); ++j) {
      const Rle &a = detections[size_t(i)], &b = ground_truths[size_t(j)];
      TESSERA_CHECK(a.height == b.height && a.width == b.width, "rle_iou: masks of {} x {} and {} x {}", a.height, a.width,
                    b.height, b.width);
      iou.push_back(run_iou(d, i, g, j, !crowd.empty() && crowd[size_t(j)]));
    }
  }
  return iou;
}

void RunList::add_block(size_t bounds) {
  blocks_.push_back(std::make_unique_for_overwrite<uint32_t[]>(bounds));
  free_ = blocks_.back().get(), left_ = bounds;
}

uint32_t* RunList::room(size_t bounds) {
  if (bounds > left_) add_block(std::max(bounds, kBlock));
  return free_;
}

void RunList::finish(const uint32_t* end, int64_t height) {
  const size_t n = static_cast<size_t>(end - free_);
  int64_t area = 0;
  for (size_t i = 0; i < n; i += 2) area += int64_t{free_[i + 1]} - free_[i];
  masks_.push_back({free_, static_cast<uint32_t>(n), area, box_of_bounds(free_, n, height)});
  free_ += n, left_ -= n;
}

void RunList::push_counts(std::span<const uint32_t> counts, int64_t height, int64_t width) {
  const int64_t pixels = checked_pixels(height, width);
  uint32_t* out = room(counts.size() + 1);
  uint32_t at = 0;
  for (size_t i = 0; i < counts.size(); ++i) {
    if (counts[i] > uint64_t(pixels - at)) bad_sum(uint64_t{at} + counts[i], height, width);
    if (i % 2 && counts[i] > 0) *out++ = at, *out++ = at + counts[i];
    at += counts[i];
  }
  finish(out, height);
}

void RunList::push_string(std::string_view text, int64_t height, int64_t width) {
  uint32_t* out = room(text.size() + 2);
  uint32_t at = 0;
  bool set = false;
  parse_counts(text, height, width, [&](uint32_t count) {
    // Written always, kept when set: cheaper than a branch.
    out[0] = at, out[1] = at += count;
    out += set && count > 0 ? 2 : 0;
    set = !set;
  });
  finish(out, height);
}

void RunList::push_empty() { finish(room(0), 1); }

void RunList::reserve(int64_t masks, size_t bounds) {
  masks_.reserve(size_t(masks));
  if (bounds > left_) add_block(bounds);
}

void RunList::append(RunList&& other) {
  masks_.insert(masks_.end(), other.masks_.begin(), other.masks_.end());
  for (auto& block : other.blocks_) blocks_.push_back(std::move(block));
  other = RunList();
}

// The advance is arithmetic, not a branch: which
// run ends first is a coin toss to the branch predictor.
int64_t run_intersection(std::span<const uint32_t> a, std::span<const uint32_t> b) {
  if (a.empty() || b.empty()) return 0;
  // First run that ends after the other list begins.
  const auto first = [](std::span<const uint32_t> runs, uint32_t begin) {
    size_t low = 0, high = runs.size() / 2;
    while (low < high) {
      const size_t middle = (low + high) / 2;
      if (runs[2 * middle + 1] <= begin)
        low = middle + 1;
      else
        high = middle;
    }
    return 2 * low;
  };
  size_t i = first(a, b[0]), j = first(b, a[0]);
  int64_t sum = 0;
  while (i < a.size() && j < b.size()) {
    const uint32_t a_end = a[i + 1], b_end = b[j + 1];
    const int64_t overlap = int64_t{std::min(a_end, b_end)} - int64_t{std::max(a[i], b[j])};
    sum += overlap > 0 ? overlap : 0;
    const size_t a_first = a_end <= b_end;
    i += 2 * a_first, j += 2 * (1 - a_first);
  }
  return sum;
}

double run_iou(const RunList& detections, int64_t d, const RunList& ground_truths, int64_t g, bool crowd) {
  if (!boxes_overlap(detections.box(d), ground_truths.box(g))) return 0;
  const int64_t common = run_intersection(detections.bounds(d), ground_truths.bounds(g));
  if (common == 0) return 0;
  const int64_t whole = crowd ? detections.area(d) : detections.area(d) + ground_truths.area(g) - common;
  return double(common) / double(whole);
}

}  // namespace tessera
