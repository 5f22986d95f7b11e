// Counts of single images, worked out by hand.
#include "yolo/eval/image_scores.h"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <cmath>

#include "tensor/base/parallel.h"

using namespace tessera;

namespace {

// Two classes in three images of 100 x 100 pixels; boxes and masks are the same rectangles unless said.
struct Set {
  CocoEval eval{{{0, "a"}, {1, "b"}}};
  ImageScores scores;

  Set() {
    for (int64_t i = 0; i < 3; ++i) {
      eval.add_image(i, 100, 100);
      scores.images.push_back({10 + i, 0, 0, {}, {}, 0});
    }
  }
  static Rle mask(const BoxLtwh& b) {
    const double xy[] = {b[0], b[1], b[0] + b[2], b[1], b[0] + b[2], b[1] + b[3], b[0], b[1] + b[3]};
    return rle_from_polygon(xy, 100, 100);
  }
  void object(int64_t image, int32_t category, const BoxLtwh& box, bool crowd = false) {
    const Rle m = mask(box);
    CocoTruth t;
    t.image = image, t.category = category, t.crowd = crowd, t.area = double(rle_area(m)), t.box = box;
    eval.add_truth(t, &m);
    scores.images[size_t(image)].objects += !crowd;
  }
  void detection(int64_t image, int32_t category, double score, const BoxLtwh& box, const BoxLtwh& masked) {
    const Rle m = mask(masked);
    eval.add_detection({image, category, score, box, box[2] * box[3]}, &m);
  }
  void detection(int64_t image, int32_t category, double score, const BoxLtwh& box) { detection(image, category, score, box, box); }

  const ImageScores& count() {
    std::vector<DetectionMatch> box, mask;
    eval.evaluate(IouKind::kBox, nullptr, &box);
    scores.confidence = eval.evaluate(IouKind::kMask, nullptr, &mask).confidence;
    count_matches(box, mask, scores);
    return scores;
  }
};

void check(const ImageScore::Counts& c, int64_t tp, int64_t fp, int64_t fn) {
  CHECK(c.tp == tp);
  CHECK(c.fp == fp);
  CHECK(c.fn == fn);
}

void fill(Set& s) {
  // Image 0: two found (IoU 1 and 0.8), one missed; one object found twice, and one of the other class.
  s.object(0, 0, {0, 0, 20, 20});
  s.object(0, 0, {40, 0, 20, 20});
  s.object(0, 1, {70, 70, 20, 20});
  s.detection(0, 0, 0.9, {0, 0, 20, 20});
  s.detection(0, 0, 0.8, {0, 0, 20, 20});
  s.detection(0, 0, 0.7, {40, 0, 20, 16});
  s.detection(0, 0, 0.9, {70, 70, 20, 20});
  // Image 1: the box fits (IoU 0.75), the mask does not (0.25); and what is found at 0.01 only counts as missed.
  s.object(1, 1, {10, 10, 40, 40});
  s.object(1, 1, {60, 60, 20, 20});
  s.detection(1, 1, 0.95, {10, 10, 40, 30}, {10, 10, 40, 10});
  s.detection(1, 1, 0.01, {0, 90, 10, 10});
  // Image 2: all right.
  s.object(2, 1, {30, 30, 20, 20});
  s.detection(2, 1, 0.85, {30, 30, 20, 20});
}

}  // namespace

TEST_CASE("image scores: what was found, missed and made up in each image") {
  Set s;
  fill(s);
  const ImageScores& scores = s.count();
  // All but the one at 0.01 count.
  CHECK(scores.confidence <= 0.7);
  CHECK(scores.confidence > 0.01);
  const std::vector<ImageScore>& i = scores.images;
  CHECK(i[0].detections == 4);
  check(i[0].box, 2, 2, 1);
  check(i[0].mask, 2, 2, 1);
  CHECK(i[0].mask_iou == doctest::Approx(0.9).epsilon(1e-12));
  CHECK(i[0].mask_f1() == doctest::Approx(4.0 / 7));
  CHECK(i[1].detections == 1);
  check(i[1].box, 1, 0, 1);
  check(i[1].mask, 0, 1, 2);
  CHECK(i[1].mask_iou == 0);
  CHECK(i[1].mask_f1() == 0);
  CHECK(i[2].detections == 1);
  check(i[2].mask, 1, 0, 0);
  CHECK(i[2].mask_iou == 1);
  CHECK(scores.worst_first() == std::vector<size_t>{1, 0, 2});  // three errors each; the first has no mask that fits

  const std::string csv =
      to_csv(scores, [](int64_t index) { return index == 10 ? "a,\"b\".jpg" : std::to_string(index) + ".jpg"; });
  const std::string c = fmt::format("{:g}", scores.confidence);
  CHECK(csv ==
        "image,objects,detections,box_tp,box_fp,box_fn,mask_tp,mask_fp,mask_fn,mask_f1,mask_iou,confidence\n"
        "11.jpg,2,1,1,0,1,0,1,2,0.0000,," +
            c + "\n" + "\"a,\"\"b\"\".jpg\",3,4,2,2,1,2,2,1,0.5714,0.9000," + c + "\n" + "12.jpg,1,1,1,0,0,1,0,0,1.0000,1.0000," +
            c + "\n");
}

TEST_CASE("image scores: counts add up to the report's, for any number of threads") {
  const int before = compute_threads();
  std::string first;
  for (const int threads : {1, 2, 3}) {
    set_compute_threads(threads);
    Set s;
    fill(s);
    for (int n = 0; n < 200; ++n) s.detection(n % 3, n % 2, 0.001 * (n % 7), {double(n % 50), double(n % 40), 30, 30});
    const ImageScores scores = s.count();
    const CocoReport report = s.eval.evaluate(IouKind::kMask);
    CHECK(report.confidence == scores.confidence);
    int64_t tp = 0, fp = 0, objects = 0, expected_tp = 0;
    for (const ImageScore& i : scores.images) tp += i.mask.tp, fp += i.mask.fp, objects += i.objects;
    double expected_all = 0;
    for (const CocoClassResult& c : report.classes) {
      const double found = c.recall * double(c.instances);
      expected_tp += std::llround(found);
      if (c.precision > 0) expected_all += found / c.precision;
    }
    CHECK(objects == 6);
    CHECK(tp == expected_tp);
    CHECK(double(tp + fp) == doctest::Approx(expected_all));
    const std::string csv = to_csv(scores, [](int64_t index) { return std::to_string(index); });
    if (first.empty()) first = csv;
    CHECK(csv == first);
  }
  set_compute_threads(before);
}

TEST_CASE("image scores: what lies in a crowd is neither found nor made up") {
  Set s;
  s.object(0, 0, {0, 0, 20, 20});
  s.object(0, 0, {40, 40, 50, 50}, true);
  s.detection(0, 0, 0.9, {0, 0, 20, 20});
  s.detection(0, 0, 0.9, {50, 50, 10, 10});
  const ImageScore& image = s.count().images[0];
  CHECK(image.detections == 1);
  check(image.box, 1, 0, 0);
  check(image.mask, 1, 0, 0);
}

TEST_CASE("image scores: nothing found, nothing to find") {
  Set s;
  s.object(1, 0, {10, 10, 20, 20});
  const ImageScores& scores = s.count();
  CHECK(scores.confidence == 0);
  check(scores.images[1].mask, 0, 0, 1);
  check(scores.images[0].mask, 0, 0, 0);
  CHECK(scores.images[0].mask_f1() == 1);
  CHECK(scores.worst_first().front() == 1);
}
