// Average precision and recall of boxes and masks as COCO defines them (spec 9.7): the twelve figures of pycocotools, in double
// precision and equal to it, crowds, area ranges and detection limits included. Data is flat, each IoU is computed once, and work
// is spread over (category, image) pairs; results do not depend on the number of threads.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "data/coco_json.h"
#include "data/rle.h"
#include "yolo/eval/detection_curves.h"

namespace tessera {

enum class IouKind { kBox, kMask };

// Of each category so many detections of an image are compared with its objects, those with the highest scores.
inline constexpr int64_t kComparedDetections = 100;

// The twelve figures in the order of pycocotools; -1 where nothing could be measured (no object of that size).
struct CocoSummary {
  double values[12] = {-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1};

  double map() const { return values[0]; }    // AP, mean over IoU 0.50:0.05:0.95
  double map50() const { return values[1]; }  // AP at IoU 0.50
  double map75() const { return values[2]; }
  double maps() const { return values[3]; }  // AP of objects below 32 x 32 pixels,
  double mapm() const { return values[4]; }  // up to 96 x 96,
  double mapl() const { return values[5]; }  // and above
  double ar1() const { return values[6]; }   // recall with at most 1, 10, 100 detections for each image and category
  double ar10() const { return values[7]; }
  double ar100() const { return values[8]; }
  double ars() const { return values[9]; }
  double arm() const { return values[10]; }
  double arl() const { return values[11]; }
};

// The twelve lines that pycocotools prints.
std::string to_string(const CocoSummary& summary);

struct CocoClassResult {
  int64_t category_id = 0;
  std::string name;
  int64_t images = 0, instances = 0;         // with / of objects that are not crowds
  double ap = -1, ap50 = -1;                 // -1 without objects
  double precision = 0, recall = 0, f1 = 0;  // at the report's operating point; 0 without detections there
};

// Operating point: the confidence c of 0, 0.001, ..., 1 (the lowest of equals) at which the mean over the categories with objects
// of F1 = 2TP / (2TP + FP + FN) is largest, counting detections with score >= c at IoU 0.50, all areas, 100 detections for each
// image and category. precision and recall are the unweighted category means there, f1 the mean F1.
struct CocoReport {
  IouKind kind = IouKind::kBox;
  CocoSummary summary;
  std::vector<CocoClassResult> classes;  // in ascending category id
  double precision = 0, recall = 0, f1 = 0, confidence = 0;
};

// What became of a detection at IoU 0.50, all areas.
struct DetectionMatch {
  int64_t image = 0;  // as add_image returned it
  double score = 0;
  double iou = 0;  // with the object that it found; 0: none
};

struct CocoTruth {
  int64_t image = 0;     // as add_image returned it
  int32_t category = 0;  // position in the list of categories
  bool crowd = false;
  double area = 0;  // of the annotation, in pixels; decides the size class for boxes and masks
  BoxLtwh box{};
  int64_t id = -1;  // only 0 has a meaning: pycocotools never credits a match with annotation 0, and neither do we
};

struct CocoDetection {
  int64_t image = 0;
  int32_t category = 0;
  double score = 0;
  BoxLtwh box{};
  double area = 0;  // box width * height, also for masks (spec 9.7); mask area only where there is no box
};

class CocoEval {
 public:
  explicit CocoEval(std::vector<CocoCategory> categories);  // throws kData when an id occurs twice
  // Everything of the two files. Masks are taken when results.masks was read. Throws kData when an annotation lacks its area, or
  // its box where there are no masks. Detections of unknown categories are left out, as in pycocotools.
  CocoEval(const CocoInstances& instances, CocoResults results);

  int64_t add_image(int64_t id, int32_t height, int32_t width);  // throws kData when the id occurs twice
  // mask: of the size of the image; all calls with one, or all without. Throws kData for a score that is not a number.
  void add_truth(const CocoTruth& truth, const Rle* mask = nullptr);
  void add_detection(const CocoDetection& detection, const Rle* mask = nullptr);
  // The same for several, in order, with a mask for each.
  void add_detections(std::span<const CocoDetection> detections, RunList&& masks);

  int64_t detections() const { return static_cast<int64_t>(detections_.size()); }
  int64_t truths() const { return static_cast<int64_t>(truths_.size()); }

  // May be called any number of times. kMask needs the masks of all truths and detections. `drawn`, if given, gets the curves of a
  // run folder's plots, `matches` every detection that counts, in an order that depends on the data alone.
  CocoReport evaluate(IouKind kind, DetectionCurves* drawn = nullptr, std::vector<DetectionMatch>* matches = nullptr) const;

 private:
  void append(const CocoDetection& detection);

  struct Image {
    int64_t id;
    int32_t height, width;
  };

  std::vector<CocoCategory> categories_;
  std::vector<Image> images_;
  std::unordered_map<int64_t, int64_t> image_index_;
  std::vector<CocoTruth> truths_;
  std::vector<CocoDetection> detections_;
  RunList truth_masks_, detection_masks_;
  int64_t unknown_category_ = 0;  // detections left out
};

}  // namespace tessera
