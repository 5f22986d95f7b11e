// Runs a model over a validation loader and scores boxes and masks, as COCO does or as the original does. Detections and the pixels of
// masks are computed where the model is. Work on the images of a batch is spread over the compute threads and over the ranks; results
// do not depend on their number.
#pragma once

#include <chrono>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "data/loader.h"
#include "tensor/comm.h"
#include "yolo/eval/detection_curves.h"
#include "yolo/eval/detections.h"
#include "yolo/eval/image_result.h"
#include "yolo/eval/image_scores.h"
#include "yolo/metrics.h"
#include "yolo/model.h"
#include "yolo/network.h"

namespace tessera {

struct EvaluatorOptions {
  float confidence = 0.001f;
  double iou = 0.7;
  int64_t max_detections = 300;
  bool agnostic = false;
  bool single_class = false;  // detections of any class count as class 0
  MapStyle style = MapStyle::kCoco;
};

struct EvaluatorHooks {
  // Loss of a batch, to be averaged over batches; empty: not computed. The outputs are on the model's device. Of several ranks,
  // each is asked about its part of the batch.
  std::function<LossReport(const RawOutputs&, const Batch&)> loss;
  std::function<void(int64_t done, int64_t total)> progress;
  // Detections in network-input pixels, with what their masks are made from, of images `first` and on of a batch; part by part in
  // order, on every rank of its own batch. Any number of listeners.
  std::vector<std::function<void(int64_t batch_index, const Batch&, int64_t first, const BatchDetections&)>> part_done;
  // Every detection with its mask at original size (predictions.json): images in order, some at a time.
  std::function<void(std::span<const std::vector<ScoredDetection>> images)> detections;
  // What the plots of precision and recall are made of; computed only for this.
  std::function<void(const DetectionCurves& box, const DetectionCurves& mask)> curves;
  // What became of each image, in the order of the data set; computed only for this. Those that it returns (their indices in the data
  // set) go through the network once more, each alone, for `again`.
  std::function<std::vector<int64_t>(const ImageScores&)> images;
  std::function<void(const Batch&, const BatchDetections&)> again;
  std::function<bool()> stop;  // true: leave after this batch
};

class Evaluator {
 public:
  Evaluator(std::vector<std::string> class_names, EvaluatorOptions options);

  // Puts the model into evaluation mode, folded, and back into the mode it had. Error(kInterrupted) when stop() said so.
  //
  // ranks: each has its share of the images (LoaderOptions, fill = false), the same model, and the same hooks set. Rank 0 scores
  // the detections of all, in the order of one process; the others get its figures, without those of single classes. `detections`,
  // `curves`, `images` and `again` are called on rank 0 alone. Any rank's stop() stops all, after the same batch.
  ValidationResult run(YoloSeg& model, const SegDataset& data, Loader& loader, const EvaluatorHooks& hooks = {},
                       Communicator& ranks = single_process()) const;
  // The same of any network; one whose outputs are decoded has no loss.
  ValidationResult run(SegNetwork& network, const SegDataset& data, Loader& loader, const EvaluatorHooks& hooks = {},
                       Communicator& ranks = single_process()) const;

 private:
  // The loader's epoch was started at `start`.
  ValidationResult run_epoch(std::chrono::steady_clock::time_point start, SegNetwork& network, const SegDataset& data, Loader& loader,
                             const EvaluatorHooks& hooks, Communicator& ranks) const;

  std::vector<std::string> class_names_;
  EvaluatorOptions options_;
};

// Of a batch of `images` with so many pixels each, how many go through the network at a time in evaluation: on the CPU so many that
// their feature maps stay near the caches and small in all.
int64_t images_at_once(int64_t images, int64_t pixels, Device device);

}  // namespace tessera
