#include "yolo/eval/eval_bench.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <fstream>
#include <numbers>

#include "tensor/base/check.h"
#include "tensor/base/parallel.h"
#include "tensor/base/rng.h"

namespace tessera {

namespace {

struct Shape2d {  // a wobbly ellipse
  double x, y, w, h;
};

struct Object {
  Shape2d shape;
  int class_id;
};

std::vector<double> outline(Rng& draw, const Shape2d& s, const EvalBenchOptions& o) {
  constexpr int kCorners = 24;
  std::vector<double> xy;
  for (int k = 0; k < kCorners; ++k) {
    const double t = 2 * std::numbers::pi * k / kCorners, r = 1 + 0.15 * draw.normal();
    xy.push_back(round_decimals(std::clamp(s.x + s.w / 2 * r * std::cos(t), 0.0, double(o.width)), 2));
    xy.push_back(round_decimals(std::clamp(s.y + s.h / 2 * r * std::sin(t), 0.0, double(o.height)), 2));
  }
  return xy;
}

Shape2d anywhere(Rng& draw, const EvalBenchOptions& o) {
  const double size = std::exp(draw.uniform(std::log(8.0), std::log(0.55 * o.width)));
  return {draw.uniform(0, o.width), draw.uniform(0, o.height), size * draw.uniform(0.6, 1.4), size * draw.uniform(0.6, 1.4)};
}

struct MadeDetection {
  int class_id;
  double score;
  Rle mask;
};

struct MadeImage {
  std::vector<std::string> annotations;  // JSON without id
  std::vector<MadeDetection> detections;
};

MadeImage make_image(int64_t index, const EvalBenchOptions& o) {
  Rng draw(o.seed, RngPurpose::kUser, uint64_t(index));  // a stream for each image: they can be made in any order
  MadeImage image;
  std::vector<Object> objects;
  const int count = static_cast<int>(o.objects_per_image * draw.uniform(0, 2) + 0.5);
  for (int k = 0; k < count; ++k) {
    const Object object{anywhere(draw, o), int(draw.below(o.classes))};
    objects.push_back(object);
    const std::vector<double> xy = outline(draw, object.shape, o);
    const Rle mask = rle_from_polygon(xy, o.height, o.width);
    const BoxLtwh box = rle_box(mask);
    const bool crowd = draw.uniform() < 0.012;
    const std::string segmentation =
        crowd ? fmt::format("{{\"size\": [{}, {}], \"counts\": [{}]}}", o.height, o.width, fmt::join(mask.counts, ", "))
              : fmt::format("[[{}]]", fmt::join(xy, ", "));
    image.annotations.push_back(fmt::format(
        "\"image_id\": {}, \"category_id\": {}, \"iscrowd\": {}, \"area\": {}, \"bbox\": [{}, {}, {}, {}], \"segmentation\": {}",
        index + 1, object.class_id + 1, int(crowd), rle_area(mask), box[0], box[1], box[2], box[3], segmentation));
  }
  for (int64_t k = 0; k < o.detections_per_image; ++k) {
    const bool near = !objects.empty() && draw.uniform() < 0.5;
    Object found{anywhere(draw, o), int(draw.below(o.classes))};
    if (near) {
      const Object& object = objects[size_t(draw.below(int64_t(objects.size())))];
      const Shape2d& s = object.shape;
      constexpr double kError = 0.08;
      found.shape = {s.x + kError * draw.normal() * s.w, s.y + kError * draw.normal() * s.h, s.w * std::exp(kError * draw.normal()),
                     s.h * std::exp(kError * draw.normal())};
      if (draw.uniform() < 0.8) found.class_id = object.class_id;
    }
    const double score = near ? draw.beta(2, 3) : draw.beta(1, 6);
    image.detections.push_back({found.class_id, score, rle_from_polygon(outline(draw, found.shape, o), o.height, o.width)});
  }
  return image;
}

class Clock {
 public:
  double lap() {
    const auto now = std::chrono::steady_clock::now();
    const double seconds = std::chrono::duration<double>(now - last_).count();
    last_ = now;
    return seconds;
  }

 private:
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

EvalBenchTimes time_evaluation(const std::filesystem::path& folder, IouKind kind, EvalBenchResult& result) {
  EvalBenchTimes times;
  Clock clock;
  const CocoInstances instances = read_coco_instances(folder / "instances.json");
  times.load_truth = clock.lap();
  CocoResults results =
      read_coco_results(folder / "results.json", instances, kind == IouKind::kMask ? ReadMasks::kComparable : ReadMasks::kNo);
  times.load_results = clock.lap();
  result.objects = static_cast<int64_t>(instances.annotations.size());
  result.detections = static_cast<int64_t>(results.records.size());
  const CocoEval eval(instances, std::move(results));
  times.prepare = clock.lap();
  times.summary = eval.evaluate(kind).summary;
  times.evaluate = clock.lap();
  return times;
}

class TempFolder {
 public:
  TempFolder() : path(std::filesystem::temp_directory_path() / fmt::format("tessera-eval-bench-{}", ::getpid())) {
    std::filesystem::create_directories(path);
  }
  ~TempFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
  const std::filesystem::path path;
};

}  // namespace

void write_eval_bench_set(const std::filesystem::path& folder, const EvalBenchOptions& o) {
  if (o.images < 1 || o.height < 16 || o.width < 16 || o.classes < 1 || o.detections_per_image < 0 || !(o.objects_per_image >= 0)) {
    throw Error(ErrorCode::kUsage, "bench eval: images and classes must be at least 1, height and width at least 16");
  }
  std::ofstream truth(folder / "instances.json", std::ios::trunc);
  truth << "{\"images\": [";
  for (int64_t i = 0; i < o.images; ++i) {
    truth << (i ? ", " : "")
          << fmt::format("{{\"id\": {0}, \"height\": {1}, \"width\": {2}, \"file_name\": \"{0:012}.jpg\"}}", i + 1, o.height,
                         o.width);
  }
  truth << "], \"categories\": [";
  for (int c = 0; c < o.classes; ++c) truth << (c ? ", " : "") << fmt::format("{{\"id\": {}, \"name\": \"class {}\"}}", c + 1, c);
  truth << "], \"annotations\": [";

  CocoResultsWriter results(folder / "results.json");
  int64_t annotation = 0;
  constexpr int64_t kAtOnce = 64;
  for (int64_t first = 0; first < o.images; first += kAtOnce) {
    std::vector<MadeImage> made(size_t(std::min(kAtOnce, o.images - first)));
    parallel_chunks(int64_t(made.size()), [&](int64_t k) { made[size_t(k)] = make_image(first + k, o); });
    for (size_t k = 0; k < made.size(); ++k) {
      for (const std::string& a : made[k].annotations) {
        truth << (annotation ? ", " : "") << "{\"id\": " << annotation + 1 << ", " << a << '}';
        ++annotation;
      }
      CocoResultsText text;
      for (const MadeDetection& d : made[k].detections) {
        text.add(std::to_string(first + int64_t(k) + 1), d.class_id + 1, rle_box(d.mask), d.score, &d.mask);
      }
      results.add(text);
    }
  }
  results.close();
  truth << "]}";
  truth.close();
  if (!truth) throw Error(ErrorCode::kIo, "writing failed", {(folder / "instances.json").string()}, "check that the disk has room");
}

EvalBenchResult run_eval_bench(const EvalBenchOptions& options) {
  const TempFolder folder;
  write_eval_bench_set(folder.path, options);
  EvalBenchResult result;
  result.images = options.images;
  result.bytes = static_cast<int64_t>(std::filesystem::file_size(folder.path / "instances.json") +
                                      std::filesystem::file_size(folder.path / "results.json"));
  result.box = time_evaluation(folder.path, IouKind::kBox, result);
  result.mask = time_evaluation(folder.path, IouKind::kMask, result);
  return result;
}

}  // namespace tessera
