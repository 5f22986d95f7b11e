// Assignment of anchors to objects, and the rows that the losses compare with.
#include "tests/op_cases/op_cases.h"

namespace tessera::testing {
namespace {

// Sizes of one problem; the image has 8 pixels for each cell of the first level.
struct Sizes {
  const char* name;
  int64_t images, objects, classes, bins;  // bins 0: decoded boxes and scores
  std::array<std::array<int64_t, 2>, kAnchorLevels> maps;
  int64_t topk = 10;
  double latest = 0.8;  // where the objects' boxes begin, in parts of the image
  bool far = false;     // bins 0: few boxes have any overlap

  int64_t cells() const {
    int64_t n = 0;
    for (const auto& [h, w] : maps) n += h * w;
    return n;
  }
  int64_t rows() const { return images * cells(); }
  double height() const { return double(8 * maps[0][0]); }
  double width() const { return double(8 * maps[0][1]); }
};

// Corners of boxes inside the image and over its borders; every sixth object has the box of the one before.
Values object_boxes(const Sizes& s) {
  return [w = s.width(), h = s.height(), latest = s.latest, box = std::vector<double>(4)](Rng& rng, int64_t i) mutable {
    const size_t side = size_t(i % 4);
    if (side == 0 && i / 4 % 6 != 5) {
      for (size_t k : {0u, 1u}) {
        const double length = k == 0 ? w : h;
        box[k] = rng.uniform(-0.1, latest) * length;
        box[k + 2] = box[k] + rng.uniform(0.02, 1.2) * length;
      }
    }
    return box[side];
  };
}

// Boxes as a network predicts them: somewhere near the anchor, some of them alike and some without any overlap, or most.
Values decoded_boxes(int64_t w, double stride, bool far) {
  return [=](Rng& rng, int64_t i) {
    const int64_t cell = i / 4, side = i % 4;
    const double anchor = (double(side % 2 == 0 ? cell % w : cell / w) + 0.5) * stride;
    if (far ? cell % 7 != 5 : cell % 7 == 3) return side < 2 ? 900.0 : 901.0;
    const double distance = cell % 3 == 1 ? 20.0 : rng.uniform(1, 60);
    return side < 2 ? anchor - distance : anchor + distance;
  };
}

std::vector<Slot> inputs(const Sizes& s) {
  std::vector<Slot> slots;
  for (size_t l = 0; l < kAnchorLevels; ++l) {
    const int64_t rows = s.images * s.maps[l][0] * s.maps[l][1];
    const Values boxes = s.bins > 0 ? uniform(-2, 2) : decoded_boxes(std::max<int64_t>(s.maps[l][1], 1), double(8 << l), s.far);
    slots.push_back({fmt::format("box{}", l), {rows, std::max<int64_t>(4 * s.bins, 4)}, Role::kIn, Fit::kRows, boxes, DType::kF32});
    slots.push_back({fmt::format("cls{}", l),
                     {rows, s.classes},
                     Role::kIn,
                     Fit::kRows,
                     s.bins > 0 ? uniform(-4, 4) : uniform(0, 1),
                     DType::kF32});
  }
  slots.push_back({"boxes", {s.images, s.objects, 4}, Role::kIn, Fit::kDense, object_boxes(s), DType::kF32});
  slots.push_back({"classes", {s.images, s.objects}, Role::kIn, Fit::kDense, whole(-1, s.classes - 1), DType::kI32});
  return slots;
}

AssignInput input_of(const Sizes& s, const Bound& t) {
  AssignInput in{};
  for (size_t l = 0; l < kAnchorLevels; ++l) {
    in.levels[l] = {t.rows(fmt::format("box{}", l)), t.rows(fmt::format("cls{}", l)), s.maps[l][0], s.maps[l][1], float(8 << l)};
  }
  in.decoded = s.bins == 0;
  in.images = s.images;
  in.width = s.objects;
  in.boxes = t["boxes"].data<float>();
  in.classes = t["classes"].data<int32_t>();
  return in;
}

OpCase assign_case(const Sizes& s) {
  std::vector<Slot> slots = inputs(s);
  slots.push_back({"target", {s.rows()}, Role::kOut, Fit::kDense, {}, DType::kI32});
  slots.push_back({"score", {s.rows()}, Role::kOut, Fit::kDense, {}, DType::kF32});
  return {.method = "assign",
          .detail = s.name,
          .slots = slots,
          .run =
              [s](Backend& b, const Bound& t, bool) {
                AssignParams params;
                params.topk = s.topk;
                b.assign(input_of(s, t), params, t["target"].data<int32_t>(), t["score"].data<float>());
                return 0.0;
              },
          .length = 64};
}

// `positives`: of how many anchors one is.
OpCase collect_case(const Sizes& s, int64_t positives, int64_t capacity) {
  std::vector<Slot> slots = inputs(s);
  const Values target = [=](Rng& rng, int64_t) { return rng.below(positives) == 0 ? double(rng.below(s.objects)) : -1.0; };
  slots.push_back({"mask_ids", {s.images, s.objects}, Role::kIn, Fit::kDense, whole(1, 50), DType::kI32});
  slots.push_back({"target", {s.rows()}, Role::kIn, Fit::kDense, target, DType::kI32});
  slots.push_back({"score", {s.rows()}, Role::kIn, Fit::kDense, uniform(0, 1), DType::kF32});
  slots.push_back({"index", {kAnchorLevels, capacity}, Role::kOut, Fit::kDense, {}, DType::kI64});
  for (const char* name : {"anchors", "corners", "distances", "mask_boxes"}) {
    slots.push_back({name, {capacity, 4}, Role::kOut, Fit::kDense, {}, DType::kF32});
  }
  for (const char* name : {"weights", "area"}) slots.push_back({name, {capacity}, Role::kOut, Fit::kDense, {}, DType::kF32});
  for (const char* name : {"image", "mask"}) slots.push_back({name, {capacity}, Role::kOut, Fit::kDense, {}, DType::kI32});
  slots.push_back({"label", {s.rows()}, Role::kOut, Fit::kDense, {}, DType::kI32});
  slots.push_back({"totals", {2}, Role::kOut, Fit::kDense, {}, DType::kF64});
  slots.push_back({"scales", {4}, Role::kOut, Fit::kDense, {}, DType::kF32});
  return {.method = "collect_positives",
          .detail = fmt::format("{}, one in {}, capacity {}", s.name, positives, capacity),
          .slots = slots,
          .run =
              [s](Backend& b, const Bound& t, bool) {
                PositivesParams params;
                params.image_height = int64_t(s.height());
                params.image_width = int64_t(s.width());
                params.mask_height = 2 * s.maps[0][0];
                params.mask_width = 2 * s.maps[0][1];
                params.max_distance = 5.5f;
                params.gains = {0.5, 7.5, 1.5, 7.25};
                PositivesView out{};
                out.capacity = t["weights"].numel();
                out.index = t["index"].data<int64_t>();
                out.anchors = t["anchors"].data<float>();
                out.corners = t["corners"].data<float>();
                out.distances = t["distances"].data<float>();
                out.weights = t["weights"].data<float>();
                out.image = t["image"].data<int32_t>();
                out.mask = t["mask"].data<int32_t>();
                out.mask_boxes = t["mask_boxes"].data<float>();
                out.area = t["area"].data<float>();
                out.label = t["label"].data<int32_t>();
                out.totals = t["totals"].data<double>();
                out.scales = t["scales"].data<float>();
                b.collect_positives(input_of(s, t), t["mask_ids"].data<int32_t>(), t["target"].data<int32_t>(),
                                    t["score"].data<float>(), params, out);
                return 0.0;
              },
          .length = double(s.rows())};
}

}  // namespace

std::vector<OpCase> assign_cases() {
  const Sizes small{"small", 2, 4, 3, 16, {{{6, 5}, {3, 3}, {2, 1}}}};
  const Sizes decoded{"decoded", 2, 9, 2, 0, {{{8, 10}, {4, 5}, {2, 3}}}};
  const Sizes crowded{"crowded", 1, 40, 5, 2, {{{12, 12}, {6, 6}, {3, 3}}}};
  const Sizes few{"top 3", 3, 5, 1, 4, {{{4, 4}, {2, 2}, {1, 1}}}, 3};
  const Sizes places{"top 3, few overlap", 3, 8, 1, 0, {{{4, 4}, {2, 2}, {1, 1}}}, 3, 0, true};  // the first anchors take the places left
  const Sizes large{"large", 2, 4, 2, 2, {{{72, 56}, {36, 28}, {18, 14}}}};  // more in a box than a block holds at once
  const Sizes chunks{"large, decoded", 1, 6, 1, 0, {{{72, 56}, {36, 28}, {18, 14}}}, 10, 0};  // and the best of them in several chunks
  const Sizes many{"many images", 6, 5, 2, 0, {{{6, 6}, {3, 3}, {2, 2}}}};     // whose objects lie on those of the next
  const Sizes one_level{"one level", 1, 12, 2, 0, {{{1, 7}, {0, 0}, {0, 0}}}, 32};
  std::vector<OpCase> list;
  for (const Sizes& s : {small, decoded, crowded, few, places, large, chunks, many, one_level}) list.push_back(assign_case(s));
  const Sizes none{"no objects", 2, 0, 3, 16, {{{2, 2}, {1, 1}, {1, 1}}}};
  list.push_back(assign_case(none));
  list.push_back(collect_case(small, 3, small.rows()));
  list.push_back(collect_case(decoded, 5, decoded.rows()));
  list.push_back(collect_case(crowded, 1, crowded.rows()));  // all of them
  list.push_back(collect_case(large, 40, 1000));
  list.push_back(collect_case(large, 1, large.rows()));
  list.push_back(collect_case(small, 1'000'000, 7));  // none
  return list;
}

}  // namespace tessera::testing
