// Cross-entropy, CIoU, distribution focal loss, cropped masks.
#include <array>

#include "tests/op_cases/op_cases.h"

namespace tessera::testing {
namespace {

// Boxes x1 y1 x2 y2 with positive sides, row by row.
Values corners() {
  return [low = std::vector<double>(2)](Rng& rng, int64_t i) mutable {
    const size_t side = size_t(i % 4);
    if (side < 2) return low[side] = rng.uniform(0, 8);
    return low[side - 2] + rng.uniform(1, 8);
  };
}

// Five objects in two images; the box of the last holds no pixel.
std::vector<Slot> mask_items(bool overlap) {
  const std::vector<double> target = overlap ? std::vector<double>{1, 2, 1, 2, 1} : std::vector<double>{0, 3, 2, 1, 2};
  return {{"image", {5}, Role::kIn, Fit::kDense, listed({0, 1, 1, 0, 1}), DType::kI32},
          {"target", {5}, Role::kIn, Fit::kDense, listed(target), DType::kI32},
          {"boxes",
           {5, 4},
           Role::kIn,
           Fit::kDense,
           listed({1, 1, 6, 5, 2.5, 1.2, 9, 4.4, 2, 0, 5, 7, -3, 1.75, 4, 99, 3.1, 3.1, 3.9, 3.9}),
           DType::kF32},
          {"area", {5}, Role::kIn, Fit::kDense, listed({0.4, 0.35, 0.375, 0.3, 0.01}), DType::kF32}};
}

// In an image of several tiles; some tiles and the other image have none.
std::vector<Slot> few_mask_items() {
  const std::vector<double> boxes = {1, 1, 6, 5, 2.5, 1.2, 9, 4.4, 2, 0, 5, 7, 33, 1, 40, 6};
  return {{"image", {4}, Role::kIn, Fit::kDense, whole(0, 0), DType::kI32},
          {"target", {4}, Role::kIn, Fit::kDense, listed({1, 2, 1, 2}), DType::kI32},
          {"boxes", {4, 4}, Role::kIn, Fit::kDense, listed(boxes), DType::kF32},
          {"area", {4}, Role::kIn, Fit::kDense, listed({0.4, 0.35, 0.375, 0.3}), DType::kF32}};
}

// More than a block of threads holds, in images of several tiles: the first box covers an image, the others are small.
std::vector<Slot> many_mask_items(int64_t n) {
  const auto boxes = [low = std::vector<double>(2)](Rng& rng, int64_t i) mutable {
    const size_t side = size_t(i % 4);
    if (i < 4) return side < 2 ? -1.0 : 200.0;
    return side < 2 ? low[side] = rng.uniform(-2, side == 0 ? 126 : 62) : low[side - 2] + rng.uniform(0, 7);
  };
  return {{"image", {n}, Role::kIn, Fit::kDense, whole(0, 1), DType::kI32},
          {"target", {n}, Role::kIn, Fit::kDense, whole(1, 3), DType::kI32},
          {"boxes", {n, 4}, Role::kIn, Fit::kDense, boxes, DType::kF32},
          {"area", {n}, Role::kIn, Fit::kDense, uniform(0.1, 1), DType::kF32}};
}

// What a forward leaves and what a backward is given.
Slot sum() { return {"sum", {}, Role::kOut, Fit::kDense}; }
Slot scale(double value) { return {"scale", {}, Role::kIn, Fit::kDense, listed({value})}; }

std::vector<Slot> with(std::vector<Slot> slots, const std::vector<Slot>& more) {
  slots.insert(slots.end(), more.begin(), more.end());
  return slots;
}

MaskLossItems mask_items(const Bound& t, bool overlap) {
  return {t["image"].numel(),       t["image"].data<int32_t>(), t["target"].data<int32_t>(),
          t["boxes"].data<float>(), t["area"].data<float>(),    overlap};
}

void add_bce(std::vector<OpCase>& list, const std::vector<Shape>& shapes) {
  for (const Shape& shape : shapes) {
    const std::vector<Slot> slots = {{"x", shape, Role::kIn, Fit::kRows, uniform(-8, 8)},
                                     {"target", shape, Role::kIn, Fit::kRows, uniform(0, 1)}};
    list.push_back({.method = "bce_with_logits",
                    .detail = to_string(shape),
                    .slots = with(slots, {sum()}),
                    .run = [](Backend& b, const Bound& t,
                              bool) { return b.bce_with_logits(t.rows("x"), t.rows("target"), t.raw("sum")), 0.0; },
                    .length = 8});
    list.push_back(
        {.method = "bce_with_logits_backward",
         .detail = to_string(shape),
         .slots = with(slots, {scale(0.37), {"dx", shape, Role::kOut}}),
         .run =
             [](Backend& b, const Bound& t, bool accumulate) {
               return b.bce_with_logits_backward(t.rows("x"), t.rows("target"), t.raw("scale"), t.rows("dx"), accumulate), 0.0;
             },
         .accumulates = true});
  }
}

// Maps of a few rows each; `classes` of none, of some, and of the last column.
void add_bce_with_labels(std::vector<OpCase>& list, const std::vector<int64_t>& all_classes) {
  for (int64_t classes : all_classes) {
    constexpr int64_t kRows[] = {40, 9, 3};
    constexpr int64_t kAll = 52;
    std::vector<Slot> slots, gradients;
    for (size_t m = 0; m < 3; ++m) {
      slots.push_back({fmt::format("x{}", m), {kRows[m], classes}, Role::kIn, Fit::kRows, uniform(-8, 8)});
      gradients.push_back({fmt::format("dx{}", m), {kRows[m], classes}, Role::kOut});
    }
    const Values label = [=](Rng& rng, int64_t i) { return i % 5 == 0 ? double(rng.below(classes)) : i % 7 == 0 ? double(classes - 1) : -1.0; };
    slots.push_back({"label", {kAll}, Role::kIn, Fit::kDense, label, DType::kI32});
    slots.push_back({"score", {kAll}, Role::kIn, Fit::kDense, uniform(0, 1), DType::kF32});
    const auto maps = [](const Bound& t, const std::string& name) {
      return std::array{t.rows(name + "0"), t.rows(name + "1"), t.rows(name + "2")};
    };
    list.push_back({.method = "bce_with_labels",
                    .detail = fmt::format("{} classes", classes),
                    .slots = with(slots, {sum()}),
                    .run =
                        [=](Backend& b, const Bound& t, bool) {
                          b.bce_with_labels(maps(t, "x"), t["label"].data<int32_t>(), t["score"].data<float>(), t.raw("sum"));
                          return 0.0;
                        },
                    .length = 8});
    gradients.push_back(scale(0.37));
    list.push_back({.method = "bce_with_labels_backward",
                    .detail = fmt::format("{} classes", classes),
                    .slots = with(slots, gradients),
                    .run =
                        [=](Backend& b, const Bound& t, bool) {
                          b.bce_with_labels_backward(maps(t, "x"), t["label"].data<int32_t>(), t["score"].data<float>(), t.raw("scale"),
                                                     maps(t, "dx"));
                          return 0.0;
                        }});
    // Wide logits with narrow gradients.
    std::vector<Slot> mixed = with(slots, gradients);
    for (Slot& s : mixed) s.wide = s.wide || s.name[0] == 'x' || s.name == "scale";
    list.push_back({.method = "bce_with_labels_backward",
                    .detail = fmt::format("{} classes, narrow gradients", classes),
                    .slots = mixed,
                    .run =
                        [=](Backend& b, const Bound& t, bool) {
                          const auto run = [&](const Tensor& d0, const Tensor& d1, const Tensor& d2) {
                            const std::array dx{d0.rows(), d1.rows(), d2.rows()};
                            b.bce_with_labels_backward(maps(t, "x"), t["label"].data<int32_t>(), t["score"].data<float>(),
                                                       t.raw("scale"), dx);
                          };
                          if (b.losses_take_narrow()) return run(t["dx0"], t["dx1"], t["dx2"]), 0.0;
                          // What is there instead: the gradients rounded.
                          const auto wide = [&](const char* name) { return Tensor::zeros(t[name].shape(), t["scale"].dtype()); };
                          const Tensor d0 = wide("dx0"), d1 = wide("dx1"), d2 = wide("dx2");
                          run(d0, d1, d2);
                          t["dx0"].copy_from(d0), t["dx1"].copy_from(d1), t["dx2"].copy_from(d2);
                          return 0.0;
                        },
                    .types = {DType::kBF16, DType::kF16}});
  }
}

void add_boxes(std::vector<OpCase>& list, const std::vector<int64_t>& counts) {
  for (int64_t n : counts) {
    const std::vector<Slot> boxes = {{"boxes", {n, 4}, Role::kIn, Fit::kRows, corners()},
                                     {"target", {n, 4}, Role::kIn, Fit::kRows, corners()},
                                     {"weight", {n}, Role::kIn, Fit::kDense, uniform(0, 1)}};
    list.push_back({.method = "ciou_loss",
                    .detail = fmt::format("{} boxes", n),
                    .slots = with(boxes, {sum(), {"ciou", {n}, Role::kOut, Fit::kDense}}),
                    .run =
                        [](Backend& b, const Bound& t, bool) {
                          b.ciou_loss(t.rows("boxes"), t.rows("target"), t.raw("weight"), t.raw("ciou"), t.raw("sum"));
                          return 0.0;
                        },
                    .length = 8});
    list.push_back({.method = "ciou_loss",
                    .detail = fmt::format("{} boxes, sum only", n),
                    .slots = with(boxes, {sum()}),
                    .run =
                        [](Backend& b, const Bound& t, bool) {
                          b.ciou_loss(t.rows("boxes"), t.rows("target"), t.raw("weight"), nullptr, t.raw("sum"));
                          return 0.0;
                        },
                    .length = 8});
    list.push_back({.method = "ciou_loss_backward",
                    .detail = fmt::format("{} boxes", n),
                    .slots = with(boxes, {scale(1.7), {"dboxes", {n, 4}, Role::kOut}}),
                    .run =
                        [](Backend& b, const Bound& t, bool) {
                          b.ciou_loss_backward(t.rows("boxes"), t.rows("target"), t.raw("weight"), t.raw("scale"),
                                               t.rows("dboxes"));
                          return 0.0;
                        },
                    .length = 64});
    for (int64_t bins : {2, 16, 33}) {
      // Every third side lies so far above the others that none may see it.
      const Values logits = [bins](Rng& rng, int64_t i) { return rng.uniform(-6, 6) + (i / bins % 3 == 2 ? 120 : 0); };
      const std::vector<Slot> slots = {{"logits", {n, 4 * bins}, Role::kIn, Fit::kRows, logits},
                                       {"target", {n, 4}, Role::kIn, Fit::kRows, uniform(0, double(bins) - 1.01)},
                                       {"weight", {n}, Role::kIn, Fit::kDense, uniform(0, 1)}};
      list.push_back(
          {.method = "dfl_loss",
           .detail = fmt::format("{} boxes, {} bins", n, bins),
           .slots = with(slots, {sum()}),
           .run = [](Backend& b, const Bound& t,
                     bool) { return b.dfl_loss(t.rows("logits"), t.rows("target"), t.raw("weight"), t.raw("sum")), 0.0; },
           .length = double(bins)});
      list.push_back({.method = "dfl_loss_backward",
                      .detail = fmt::format("{} boxes, {} bins", n, bins),
                      .slots = with(slots, {scale(0.6), {"dlogits", {n, 4 * bins}, Role::kOut}}),
                      .run =
                          [](Backend& b, const Bound& t, bool accumulate) {
                            b.dfl_loss_backward(t.rows("logits"), t.rows("target"), t.raw("weight"), t.raw("scale"),
                                                t.rows("dlogits"), accumulate);
                            return 0.0;
                          },
                      .length = double(bins),
                      .accumulates = true});
    }
  }
}

// Images, masks and items of one call, forward and backward.
void add_masks(std::vector<OpCase>& list, const std::string& detail, bool overlap, int64_t k, int64_t planes, int64_t h, int64_t w,
               const std::vector<Slot>& items) {
  const int64_t n = items[0].shape[0];
  std::vector<Slot> slots = {{"coefficients", {n, k}},
                             {"prototypes", {2, h, w, k}},
                             {"masks", {planes, h, w}, Role::kIn, Fit::kDense, whole(0, overlap ? 2 : 1), DType::kI32}};
  slots.insert(slots.end(), items.begin(), items.end());
  list.push_back({.method = "mask_loss",
                  .detail = detail,
                  .slots = with(slots, {sum()}),
                  .run =
                      [overlap](Backend& b, const Bound& t, bool) {
                        b.mask_loss(t.rows("coefficients"), t.image("prototypes"), t["masks"].data<int32_t>(),
                                    mask_items(t, overlap), t.raw("sum"));
                        return 0.0;
                      },
                  .length = double(k)});
  list.push_back(
      {.method = "mask_loss_backward",
       .detail = detail,
       .slots = with(slots, {scale(0.8), {"dcoefficients", {n, k}, Role::kOut}, {"dprototypes", {2, h, w, k}, Role::kOut}}),
       .run =
           [overlap](Backend& b, const Bound& t, bool) {
             b.mask_loss_backward(t.rows("coefficients"), t.image("prototypes"), t["masks"].data<int32_t>(), mask_items(t, overlap),
                                  t.raw("scale"), t.rows("dcoefficients"), t.image("dprototypes"));
             return 0.0;
           },
       .length = 63});
  // Narrow prototypes beside wide coefficients.
  std::vector<Slot> mixed = slots;
  for (Slot& s : mixed) s.wide = s.name == "coefficients";
  Slot wide_sum = sum(), wide_scale = scale(0.8);
  wide_sum.wide = wide_scale.wide = true;
  const auto prototypes = [](Backend& b, const Bound& t, DType wide) {
    return b.losses_take_narrow() ? t["prototypes"] : t["prototypes"].to(wide);
  };
  list.push_back({.method = "mask_loss",
                  .detail = detail + ", narrow",
                  .slots = with(mixed, {wide_sum}),
                  .run =
                      [=](Backend& b, const Bound& t, bool) {
                        const Tensor p = prototypes(b, t, t["sum"].dtype());
                        b.mask_loss(t.rows("coefficients"), p.image(), t["masks"].data<int32_t>(), mask_items(t, overlap),
                                    t.raw("sum"));
                        return 0.0;
                      },
                  .types = {DType::kBF16, DType::kF16},
                  .length = double(k)});
  list.push_back({.method = "mask_loss_backward",
                  .detail = detail + ", narrow",
                  .slots = with(mixed, {wide_scale,
                                        {.name = "dcoefficients", .shape = {n, k}, .role = Role::kOut, .wide = true},
                                        {"dprototypes", {2, h, w, k}, Role::kOut}}),
                  .run =
                      [=](Backend& b, const Bound& t, bool) {
                        const Tensor p = prototypes(b, t, t["scale"].dtype());
                        const bool as_they_are = p.dtype() == t["dprototypes"].dtype();
                        const Tensor dp = as_they_are ? t["dprototypes"] : Tensor::zeros(p.shape(), p.dtype());
                        b.mask_loss_backward(t.rows("coefficients"), p.image(), t["masks"].data<int32_t>(), mask_items(t, overlap),
                                             t.raw("scale"), t.rows("dcoefficients"), dp.image());
                        if (!as_they_are) t["dprototypes"].copy_from(dp);
                        return 0.0;
                      },
                  .types = {DType::kBF16, DType::kF16},
                  .length = 63,
                  .rounded_once = true});
}

}  // namespace

std::vector<OpCase> loss_cases() {
  std::vector<OpCase> list;
  add_bce(list, {{0, 80}, {5, 7}, {129, 80}, {1, 3000}});
  add_bce_with_labels(list, {1, 7, 80});
  add_boxes(list, {1, 7, 100});
  for (bool overlap : {true, false}) {
    for (int64_t k : {1, 5, 32}) {
      add_masks(list, fmt::format("{}, {} prototypes", overlap ? "overlap" : "separate", k), overlap, k, overlap ? 2 : 4, 7, 9,
                mask_items(overlap));
    }
  }
  add_masks(list, "4 items, 4 prototypes", true, 4, 2, 7, 40, few_mask_items());
  add_masks(list, "260 items, 36 prototypes", true, 36, 2, 64, 128, many_mask_items(260));
  add_masks(list, "1100 items, 4 prototypes", true, 4, 2, 16, 20, many_mask_items(1100));  // more than a block looks at in one go
  return list;
}

std::vector<OpCase> random_loss_cases(Draw& draw) {
  std::vector<OpCase> list;
  add_bce(list, {{draw.side(), draw.channels()}});
  add_bce_with_labels(list, {draw.channels()});
  add_boxes(list, {draw.channels()});
  const bool overlap = draw.below(2) == 0;
  const int64_t n = 1 + draw.below(40), h = draw.side(), w = draw.side();
  std::vector<Slot> items = many_mask_items(n);
  if (!overlap) items[1].values = whole(0, 3);  // a plane
  const int64_t k = draw.below(2) == 0 ? 32 : 1 + draw.below(70);
  add_masks(list, fmt::format("{} items, {} prototypes of {}x{}{}", n, k, h, w, overlap ? "" : ", separate"), overlap, k,
            overlap ? 2 : 4, h, w, items);
  return list;
}

}  // namespace tessera::testing
