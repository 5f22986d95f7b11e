// What a run folder gets of a validation besides figures: validation batches with labels and predictions, the confusion matrix, curves
// of precision and recall, the images that fail; and the statistics of the labels.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "yolo/eval/evaluator.h"
#include "yolo/eval/original_ap.h"
#include "yolo/report/batch_images.h"

namespace tessera {

inline constexpr int64_t kPlottedBatches = 3;  // of each kind

// Collects while a validation runs and writes (on rank 0, which draws its own part of a batch) val_batch{0,1,2}_{labels,pred}.png,
// {Box,Mask}{PR,F1,P,R}_curve.png and, in finish(), confusion_matrix.png and confusion_matrix_normalized.png.
class ValidationPlots {
 public:
  // No folder: counts only, for another rank to draw. confidence: of the validation; the confusion matrix counts what is above it
  // (spec 9.5).
  ValidationPlots(std::filesystem::path folder, std::vector<std::string> class_names, double confidence);
  void listen(EvaluatorHooks& hooks);  // part_done and curves; this object must outlive the run
  const ConfusionMatrix& confusion() const { return confusion_; }
  // Joins what several ranks have counted; rank 0 draws.
  void finish(Communicator& ranks = single_process());

 private:
  void add(int64_t batch_index, const Batch& batch, int64_t first, const BatchDetections& found);
  void draw_curves(const std::string& kind, const DetectionCurves& curves) const;

  std::filesystem::path folder_;
  std::vector<std::string> class_names_;
  ConfusionMatrix confusion_;
  std::vector<std::vector<PredictedObject>> shown_;  // of the parts of a batch so far, image by image
};

// What the figures of a validation take at most, with `plots` beside its curves and confusion matrix: of thousands of classes
// much. with_objects: classes, which have curves.
int64_t report_bytes(int64_t classes, int64_t with_objects, bool plots);

inline constexpr size_t kWorstImages = 16;

// images.csv, and worst_images.png if asked for: the kWorstImages worst images with labels and, beside them, the detections that
// count; those without an error are left out, and without any there is no plot.
class FailingImages {
 public:
  // folder: of rank 0; others write nothing.
  FailingImages(std::filesystem::path folder, const SegDataset& data, bool plot);
  void listen(EvaluatorHooks& hooks);  // images and again; this object must outlive the run
  void finish() const;                 // draws

 private:
  std::vector<int64_t> write(const ImageScores& scores);

  std::filesystem::path folder_;
  const SegDataset& data_;
  bool plot_;
  double confidence_ = 0;
  std::vector<ImageScore> worst_;
  std::vector<ImageComparison> shown_;
};

// labels.png: objects of each class, boxes drawn on one another, centres and sizes.
void draw_dataset_labels(const std::filesystem::path& folder, const SegDataset& data);

}  // namespace tessera
