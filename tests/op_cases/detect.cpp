// Detections from the head's maps, and pixels of masks: the same bits on every backend.
#include <algorithm>
#include <cmath>
#include <limits>

#include "tests/op_cases/op_cases.h"

namespace tessera::testing {
namespace {

struct Sizes {
  std::string name;
  int64_t images, classes, masks;
  std::array<std::array<int64_t, 2>, kAnchorLevels> maps;
  bool decoded = false;

  int64_t anchors() const {
    int64_t n = 0;
    for (const auto& [h, w] : maps) n += h * w;
    return n;
  }
};

// Centres and sizes, one box after the other, over `spread` pixels; every fifth box is that of the one before, and with `odd` some
// are no boxes.
Values decoded_boxes(double spread, bool odd = false) {
  return [=, box = std::vector<double>(4)](Rng& rng, int64_t i) mutable {
    if (i % 4 == 0 && i / 4 % 5 != 4) {
      for (double& v : box) v = rng.uniform(0, spread);
      if (odd) {
        const double unusual[] = {
            std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity(), 0, -1, 1e30, 3};
        box[size_t(rng.below(4))] = unusual[rng.below(6)];
      }
    }
    return box[size_t(i % 4)];
  };
}
Values odd_scores() {
  return [](Rng& rng, int64_t) {
    const double unusual[] = {
        std::numeric_limits<double>::quiet_NaN(), -std::numeric_limits<double>::infinity(), 0, -1, 0.25, 0.5, 1};
    return rng.below(3) == 0 ? unusual[rng.below(7)] : rng.uniform(0, 1);
  };
}

struct Inputs {
  Values boxes = uniform(-3, 3);
  Values scores = uniform(-6, 4);
  Values wanted{};  // empty: no filter
  Values before{};  // what the rows hold before; empty: NaN
};

OpCase detect_case(const Sizes& s, const DetectParams& params, const Inputs& in) {
  std::vector<Slot> slots;
  for (size_t l = 0; l < kAnchorLevels; ++l) {
    const int64_t rows = s.images * s.maps[l][0] * s.maps[l][1];
    slots.push_back({fmt::format("box{}", l), {rows, s.decoded ? 4 : 64}, Role::kIn, Fit::kRows, in.boxes, DType::kF32});
    slots.push_back({fmt::format("cls{}", l), {rows, s.classes}, Role::kIn, Fit::kRows, in.scores, DType::kF32});
    slots.push_back({fmt::format("k{}", l), {rows, s.masks}, Role::kIn, Fit::kRows, uniform(-1, 1), DType::kF32});
  }
  if (in.wanted) slots.push_back({"wanted", {s.classes}, Role::kIn, Fit::kDense, in.wanted, DType::kU8});
  const int64_t rows = s.images * params.max_detections;
  const Role role = in.before ? Role::kInOut : Role::kOut;
  slots.push_back({"detections", {rows, kDetectionColumns}, role, Fit::kDense, in.before, DType::kF32});
  slots.push_back({"coefficients", {rows, s.masks}, Role::kOut, Fit::kDense, {}, DType::kF32});
  return {.method = "detect",
          .detail = s.name,
          .slots = slots,
          .run =
              [=, filtered = bool(in.wanted)](Backend& b, const Bound& t, bool) {
                DetectInput input{};
                for (size_t l = 0; l < kAnchorLevels; ++l) {
                  const auto map = [&](const char* name) {
                    const RowsView v = t.rows(fmt::format("{}{}", name, l));
                    return ImageView{v.p, v.t, s.images, s.maps[l][0], s.maps[l][1], v.cols, v.pitch};
                  };
                  input.levels[l] = {map("box"), map("cls"), map("k"), float(8 << l)};
                }
                input.decoded = s.decoded;
                if (filtered) input.wanted = t["wanted"].data<uint8_t>();
                b.detect(input, params, t["detections"].data<float>(), t["coefficients"].data<float>());
                return 0.0;
              },
          .exact = true};
}

struct Masks {
  std::string name;
  int64_t images, h, w, channels;
  bool wide;  // targets of the slice's size or larger
  bool cropped;
  Values values = uniform(-1, 1);
  Values coefficients{};  // empty: as `values`
};

// Rows of 32 whose halves are the same, or opposite: a sum of products of the one and the other is 0 but for its rounding.
Values halves(double sign) {
  return [=, half = std::vector<double>(16)](Rng& rng, int64_t i) mutable {
    double& v = half[size_t(i % 16)];
    return i % 32 < 16 ? v = rng.uniform(-1, 1) : sign * v;
  };
}
// Contours with even areas between them: waves over a row of cells of `channels` each.
Values waves(int64_t channels) {
  return [=](Rng&, int64_t i) { return std::sin(0.0083 * double(i / channels) + 2 * double(i % channels)); };
}
// Areas of one sign, in which one cell of 200 has the other; of cells of `channels` each.
Values with_odd_cells(int64_t channels) {
  return [=](Rng&, int64_t i) { return i / channels % 200 == 77 ? -0.5 : 1 + 0.01 * double(i % 7); };
}
// Cells whose logit for coefficients of 1 and -1 in turn comes close to 0, to a few roundings and to some hundred in turn: what
// bounds of them leave open, and what they just do not.
Values close_to_zero(int64_t channels) {
  return [=](Rng& rng, int64_t i) {
    const int64_t cell = i / channels;
    return 1 + (i % 2 == 0 ? double(cell / 320 % 3 - 1) * std::exp2(double(cell / 40 % 8) - 20) + 0x1p-24 * double(rng.below(5)) : 0.0);
  };
}
Values in_turn() {
  return [](Rng&, int64_t i) { return i % 2 == 0 ? 1.0 : -1.0; };
}
// Now and then no number, or one whose sums are none.
Values overflowing() {
  return [](Rng& rng, int64_t) {
    const double infinity = std::numeric_limits<double>::infinity(), nan = std::numeric_limits<double>::quiet_NaN();
    const double unusual[] = {infinity, -infinity, nan, 3e38, -3e38};
    return rng.below(1000) == 0 ? unusual[rng.below(5)] : rng.uniform(-1, 1);
  };
}
// At the limits of what may be told from the signs of cells alone, in rows of 60 cells: what rounds to zero when it is weighted, and
// infinities, where the edges of the target give them the weight 0.
Values odd_logits() {
  return [](Rng& rng, int64_t i) {
    const double infinity = std::numeric_limits<double>::infinity(), nan = std::numeric_limits<double>::quiet_NaN();
    const double unusual[] = {0, 1, -1, -1e-45, 1e-30, 3e38, -3e38, infinity, -infinity, nan};
    const double usual[] = {1e-45, 1, -2};
    const int64_t row = i / 60, column = i % 60;
    if (row == 1 || (row > 6 && column == 1)) return infinity;
    return row > 15 && rng.below(16) == 0 ? unusual[rng.below(10)] : usual[row / 4 % 3];
  };
}

// Items of every kind that the sizes allow, their words one after the other in another order than the items.
std::vector<MaskItem> items_of(const Masks& m, int64_t rows) {
  Rng rng(5, RngPurpose::kTest, uint64_t(m.h * m.w + m.channels));
  const auto between = [&](int64_t low, int64_t high) { return int32_t(low + rng.below(high - low + 1)); };
  const auto part = [&](int64_t height, int64_t width) {
    PixelBox r;
    r.x0 = between(0, width - 1), r.y0 = between(0, height - 1);
    r.x1 = between(r.x0 + 1, width), r.y1 = between(r.y0 + 1, height);
    return r;
  };
  std::vector<MaskItem> items;
  for (int i = 0; i < 7; ++i) {
    MaskItem item;
    item.image = int32_t(rng.below(m.images));
    item.row = int32_t(rng.below(rows));
    item.slice = i % 3 == 0 ? PixelBox{0, 0, int32_t(m.w), int32_t(m.h)} : part(m.h, m.w);
    const int64_t sh = item.slice.height(), sw = item.slice.width();
    item.height = int32_t(i == 1 ? sh : m.wide ? between(sh, 4 * sh + 1) : between(1, sh));
    item.width = int32_t(i == 1 ? sw : m.wide ? between(sw, 4 * sw + 3) : between(1, sw));
    item.where = i == 0 ? PixelBox{0, 0, item.width, item.height} : i == 3 ? PixelBox{} : part(item.height, item.width);
    if (i == 4 && item.width >= kBitsOfWord) {  // rows that are a word, and no bit more
      item.where.x0 = between(0, item.width - kBitsOfWord);
      item.where.x1 = item.where.x0 + kBitsOfWord;
    }
    item.crop = m.cropped ? part(m.h, m.w) : item.slice;
    items.push_back(item);
  }
  int64_t offset = 0;
  for (const size_t i : {2u, 0u, 3u, 6u, 1u, 5u, 4u}) {
    items[i].offset = offset;
    offset += items[i].words();
  }
  return items;
}

// kItemByItem: by each_mask(), which is the host's; on a device by a call for each item.
enum class MaskCalls { kOne, kItemByItem };

OpCase mask_case(const Masks& m, MaskCalls calls = MaskCalls::kOne) {
  constexpr int64_t kRows = 5;
  const std::vector<MaskItem> items = items_of(m, kRows);
  const Values coefficients = m.channels == 1 ? uniform(1, 1) : m.coefficients ? m.coefficients : m.values;
  int64_t words = 0;
  for (const MaskItem& item : items) words += item.words();
  return {.method = calls == MaskCalls::kOne ? "mask_patches" : "each_mask",
          .detail = m.name,
          .slots = {{"prototypes", {m.images * m.h * m.w, m.channels}, Role::kIn, Fit::kRows, m.values, DType::kF32},
                    {"coefficients", {kRows, m.channels}, Role::kIn, Fit::kRows, coefficients, DType::kF32},
                    {"words", {words}, Role::kOut, Fit::kDense, {}, DType::kI32}},
          .run =
              [=](Backend& b, const Bound& t, bool) {
                const RowsView p = t.rows("prototypes"), k = t.rows("coefficients");
                const ImageView prototypes{p.p, p.t, m.images, m.h, m.w, p.cols, p.pitch};
                uint32_t* const out = static_cast<uint32_t*>(t["words"].raw());
                if (calls == MaskCalls::kOne) {
                  b.mask_patches(prototypes, k, items, out);
                } else if (b.device_kind() == Device::Kind::kCpu) {
                  b.each_mask(prototypes, k, items,
                              [&](int64_t i, const uint32_t* its) { std::copy_n(its, items[size_t(i)].words(), out + items[size_t(i)].offset); });
                } else {
                  for (const MaskItem& item : items) b.mask_patches(prototypes, k, {&item, 1}, out);
                }
                return 0.0;
              },
          .exact = true};
}

}  // namespace

std::vector<OpCase> detect_cases() {
  const auto params = [](float confidence, double iou, int64_t max_detections, bool multi_label = true) {
    DetectParams p;
    p.confidence = confidence, p.iou = iou, p.max_detections = max_detections, p.multi_label = multi_label;
    return p;
  };
  DetectParams agnostic = params(0.3f, 0.4, 30), capped = params(0.1f, 0.1, 300), few = params(0, 0.2, 40);
  DetectParams agnostic_odd = params(0.2f, 0.3, 300), agnostic_capped = params(0.1f, 0.1, 300), agnostic_deep = params(0.001f, 0.5, 300);
  agnostic.agnostic = agnostic_odd.agnostic = agnostic_capped.agnostic = agnostic_deep.agnostic = true;
  agnostic_capped.max_candidates = 2500;
  capped.max_candidates = 2500;
  few.max_candidates = 100;
  const Sizes small{"small", 2, 3, 5, {{{6, 5}, {3, 3}, {2, 1}}}};
  const Sizes wide{"many classes", 2, 80, 32, {{{6, 6}, {3, 3}, {2, 2}}}};
  const Sizes one_class{"one class", 3, 1, 4, {{{8, 6}, {4, 3}, {2, 2}}}};
  const Sizes decoded{"decoded", 2, 4, 3, {{{9, 9}, {5, 5}, {3, 3}}}, true};
  const Sizes large{"more than fits at once", 1, 3, 2, {{{24, 30}, {12, 15}, {6, 8}}}, true};
  const Sizes anchors{"more anchors than come first", 2, 3, 2, {{{40, 40}, {20, 20}, {10, 10}}}};
  const Sizes images{"more images than at once", 35, 2, 1, {{{2, 2}, {1, 1}, {1, 1}}}};
  const Sizes one_level{"one level", 1, 2, 1, {{{1, 7}, {0, 0}, {0, 0}}}};
  // All of one score but the last: on CUDA a chunk of candidates begins with one of them, and one is too many for the chunk.
  const Sizes in_chunks{"one box, one score", 1, 1, 1, {{{3, 1366}, {0, 0}, {0, 0}}}, true};
  const auto named = [](Sizes s, const char* name) {
    s.name = name;
    return s;
  };
  std::vector<OpCase> list;
  list.push_back(detect_case(small, params(0.001f, 0.7, 50), {}));
  list.push_back(detect_case(named(small, "best class"), params(0.25f, 0.7, 300, false), {}));
  list.push_back(detect_case(named(small, "ties"), params(0.2f, 0.5, 50), {.boxes = whole(-1, 1), .scores = whole(-2, 2)}));
  list.push_back(
      detect_case(named(small, "ties, best class"), params(0.2f, 0.5, 50, false), {.boxes = whole(-1, 1), .scores = whole(-2, 2)}));
  list.push_back(detect_case(named(small, "none"), params(1, 0.7, 10), {}));
  list.push_back(detect_case(named(small, "saturated"), params(0, 0.7, 100), {.scores = uniform(-200, 200)}));
  list.push_back(detect_case(named(small, "one row"), params(0, 0.7, 1), {}));
  list.push_back(detect_case(wide, params(0.5f, 0.6, 300), {}));
  list.push_back(detect_case(named(wide, "many classes, filter"), params(0.3f, 0.6, 100), {.wanted = whole(0, 1)}));
  list.push_back(detect_case(named(wide, "many classes, best, filter"), params(0.3f, 0.6, 100, false), {.wanted = whole(0, 1)}));
  list.push_back(detect_case(one_class, params(0.1f, 0.7, 80), {}));
  list.push_back(detect_case(decoded, params(0.2f, 0.5, 300), {.boxes = decoded_boxes(300), .scores = uniform(0, 1)}));
  list.push_back(detect_case(named(decoded, "agnostic"), agnostic, {.boxes = decoded_boxes(300), .scores = uniform(0, 1)}));
  list.push_back(
      detect_case(named(decoded, "agnostic, odd numbers"), agnostic_odd, {.boxes = decoded_boxes(300, true), .scores = odd_scores()}));
  list.push_back(
      detect_case(named(large, "agnostic, the best 2500"), agnostic_capped, {.boxes = decoded_boxes(200), .scores = uniform(0, 1)}));
  list.push_back(detect_case(named(anchors, "agnostic, all anchors"), agnostic_deep, {}));
  list.push_back(detect_case(named(decoded, "classes that meet"), params(0.2f, 0.3, 300),
                             {.boxes = decoded_boxes(40000), .scores = uniform(0, 1)}));
  list.push_back(detect_case(named(decoded, "odd numbers"), params(0.2f, 0.3, 300),
                             {.boxes = decoded_boxes(300, true), .scores = odd_scores()}));
  list.push_back(detect_case(named(large, "one score"), capped, {.boxes = decoded_boxes(200), .scores = uniform(0.5, 0.5)}));
  list.push_back(detect_case(named(decoded, "no limit of overlap"), params(0.2f, 1, 500),
                             {.boxes = decoded_boxes(300), .scores = uniform(0, 1)}));
  list.push_back(detect_case(named(decoded, "the best 100"), few, {.boxes = decoded_boxes(300), .scores = whole(0, 3)}));
  list.push_back(detect_case(large, capped, {.boxes = decoded_boxes(200), .scores = uniform(0, 1)}));
  list.push_back(
      detect_case(named(large, "many rows"), params(0.5f, 0.7, 900), {.boxes = decoded_boxes(2000), .scores = whole(0, 1)}));
  list.push_back(detect_case(anchors, params(0.001f, 0.7, 300), {}));
  list.push_back(detect_case(named(anchors, "more anchors, the first are not enough"), params(0.01f, 0.2, 2000), {}));
  list.push_back(detect_case(named(anchors, "more anchors, best class"), params(0.01f, 0.9, 1500, false), {}));
  list.push_back(detect_case(named(anchors, "more anchors, close scores"), params(0.01f, 0.3, 900), {.scores = uniform(0.5, 0.50001)}));
  list.push_back(detect_case(named(anchors, "more anchors, ties"), params(0.01f, 0.3, 900), {.scores = whole(-3, 3)}));
  list.push_back(detect_case(named(anchors, "more anchors, saturated"), params(0, 0.5, 400), {.scores = uniform(-200, 200)}));
  list.push_back(detect_case(named(anchors, "more anchors, filter"), params(0.01f, 0.5, 700, false), {.wanted = whole(0, 1)}));
  list.push_back(detect_case(images, params(0.1f, 0.5, 12), {}));
  list.push_back(detect_case(one_level, params(0.1f, 0.5, 14), {}));
  list.push_back(detect_case(in_chunks, params(0.1f, 0.5, 3),
                             {.boxes = uniform(10, 10), .scores = [](Rng&, int64_t i) { return i < 4097 ? 0.5 : 0.25; }}));
  const Values boxes_that_overlap = [](Rng&, int64_t i) { return std::array{0.0, 0.0, 300.0, 300.0, 1.0, 0.0, 0.0}[size_t(i % 7)]; };
  list.push_back(detect_case(named(small, "rows from before"), params(0.1f, 0.001, 50), {.before = boxes_that_overlap}));

  for (const int64_t channels : {32, 13, 4}) list.push_back(mask_case({"larger", 2, 20, 24, channels, true, false}));
  list.push_back(mask_case({"larger, cropped", 2, 20, 24, 32, true, true}));
  list.push_back(mask_case({"more than a tile", 1, 70, 90, 8, true, true}));
  list.push_back(mask_case({"smaller", 2, 20, 24, 32, false, false}));
  list.push_back(mask_case({"smaller, cropped", 1, 70, 90, 16, false, true}));
  list.push_back(mask_case({"logits of 0", 1, 9, 7, 8, true, true, whole(-1, 1)}));
  list.push_back(mask_case({"signs of rounding", 2, 30, 40, 32, true, true, halves(1), halves(-1)}));
  list.push_back(mask_case({"signs of rounding, smaller", 1, 30, 40, 32, false, false, halves(1), halves(-1)}));
  list.push_back(mask_case({"waves", 1, 45, 60, 16, true, false, waves(16)}));
  list.push_back(mask_case({"waves, cropped", 2, 40, 33, 8, true, true, waves(8)}));
  list.push_back(mask_case({"waves, smaller", 1, 50, 150, 8, false, false, waves(8)}));
  list.push_back(mask_case({"all above", 1, 37, 45, 32, true, false, uniform(0.5, 1)}));
  list.push_back(mask_case({"all above, cropped", 2, 37, 45, 16, true, true, uniform(0.5, 1)}));
  list.push_back(mask_case({"all above, smaller", 1, 70, 45, 8, false, true, uniform(0.5, 1)}));
  list.push_back(mask_case({"all below", 2, 37, 45, 32, true, true, uniform(0.5, 1), uniform(-1, -0.5)}));
  list.push_back(mask_case({"odd cells", 1, 43, 61, 8, true, false, with_odd_cells(8), uniform(0.5, 1)}));
  list.push_back(mask_case({"odd cells, cropped", 2, 43, 61, 32, true, true, with_odd_cells(32), uniform(-1, -0.5)}));
  list.push_back(mask_case({"odd cells, smaller", 1, 90, 130, 8, false, false, with_odd_cells(8), uniform(0.5, 1)}));
  list.push_back(mask_case({"close to 0", 1, 60, 40, 32, true, false, close_to_zero(32), in_turn()}));
  list.push_back(mask_case({"close to 0, smaller", 1, 60, 40, 8, false, true, close_to_zero(8), in_turn()}));
  list.push_back(mask_case({"waves, high", 1, 290, 17, 8, true, false, waves(8)}));
  list.push_back(mask_case({"waves, broad", 1, 5, 1100, 8, true, true, waves(8)}));
  list.push_back(mask_case({"odd cells, many channels", 1, 20, 33, 264, true, false, with_odd_cells(264), uniform(0.5, 1)}));
  list.push_back(mask_case({"odd numbers", 1, 30, 60, 1, true, false, odd_logits()}));
  list.push_back(mask_case({"overflowing", 2, 30, 60, 8, true, false, overflowing(), uniform(-2, 2)}));
  list.push_back(mask_case({"one cell", 1, 1, 1, 8, true, false}));
  list.push_back(mask_case({"larger, cropped", 2, 20, 24, 32, true, true}, MaskCalls::kItemByItem));
  list.push_back(mask_case({"smaller", 2, 20, 24, 13, false, false}, MaskCalls::kItemByItem));
  list.push_back(mask_case({"waves", 1, 45, 60, 16, true, false, waves(16)}, MaskCalls::kItemByItem));
  list.push_back(mask_case({"odd cells", 2, 43, 61, 8, true, true, with_odd_cells(8), uniform(0.5, 1)}, MaskCalls::kItemByItem));
  return list;
}

std::vector<OpCase> random_detect_cases(Draw& draw) {
  std::vector<OpCase> list;
  for (const MaskCalls calls : {MaskCalls::kOne, MaskCalls::kItemByItem}) {
    Masks m{"", 1 + draw.below(2), draw.side(), draw.side(), 1 + draw.below(70), draw.below(3) > 0, draw.below(2) == 0};
    const int64_t kind = draw.below(8);
    if (kind == 1) m.channels = 32, m.values = halves(1), m.coefficients = halves(-1);
    if (kind == 2) m.values = waves(m.channels);
    if (kind == 3) m.values = with_odd_cells(m.channels), m.coefficients = draw.below(2) == 0 ? uniform(0.5, 1) : uniform(-1, -0.5);
    if (kind == 4) m.values = close_to_zero(m.channels), m.coefficients = in_turn();
    if (kind == 5) m.values = overflowing(), m.coefficients = uniform(-2, 2);
    if (kind == 6) m.channels = 1, m.values = odd_logits();
    if (kind == 7) m.values = whole(-1, 1);
    m.name = fmt::format("{} of {}x{}x{}, {} channels{}{}", kind, m.images, m.h, m.w, m.channels, m.wide ? "" : ", smaller",
                         m.cropped ? ", cropped" : "");
    list.push_back(mask_case(m, calls));
  }
  const int64_t side = 1 + draw.below(30), other = 1 + draw.below(30);
  Sizes s{"",
          1 + draw.below(3),
          draw.below(3) == 0 ? 1 : 1 + draw.below(90),
          1 + draw.below(40),
          {{{side, other}, {(side + 1) / 2, (other + 1) / 2}, {(side + 3) / 4, (other + 3) / 4}}},
          draw.below(2) == 0};
  DetectParams p;
  const float confidences[] = {0, 0.001f, 0.1f, 0.25f, 0.9f};
  const double overlaps[] = {0.001, 0.3, 0.5, 0.7, 1};
  p.confidence = confidences[draw.below(5)], p.iou = overlaps[draw.below(5)],
  p.max_detections = 1 + draw.below(draw.below(2) == 0 ? 20 : 900);
  p.multi_label = draw.below(2) == 0, p.agnostic = draw.below(3) == 0;
  if (draw.below(3) == 0) p.max_candidates = 1 + draw.below(500);
  Inputs in;
  const int64_t kind = draw.below(4);
  if (s.decoded) in.boxes = decoded_boxes(kind == 0 ? 40000 : 300, kind == 1), in.scores = kind == 1 ? odd_scores() : uniform(0, 1);
  if (kind == 2) in.scores = s.decoded ? whole(0, 3) : whole(-2, 2);
  if (kind == 3 && !s.decoded) in.boxes = whole(-1, 1);
  if (draw.below(4) == 0) in.wanted = whole(0, 1);
  s.name = fmt::format("{} images of {}x{}, {} classes{}, conf {} iou {} most {} of {}{}{}, kind {}{}", s.images, side, other,
                       s.classes, s.decoded ? ", decoded" : "", p.confidence, p.iou, p.max_detections, p.max_candidates,
                       p.multi_label ? ", multi" : "", p.agnostic ? ", agnostic" : "", kind, in.wanted ? ", filter" : "");
  list.push_back(detect_case(s, p, in));
  return list;
}

}  // namespace tessera::testing
