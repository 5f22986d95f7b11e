// The pictures of a run folder that need the model's results: validation batches with labels and predictions, the confusion matrix, and the
// statistics of the labels.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "yolo/eval/evaluator.h"
#include "yolo/eval/original_ap.h"

namespace tessera {

inline constexpr int64_t kPicturedBatches = 3;  // of each kind

// Collects while a validation runs, as its batch_done hook; writes val_batch{0,1,2}_{labels,pred}.png and, in finish(), the confusion matrix.
class ValidationPictures {
 public:
  ValidationPictures(std::filesystem::path folder, std::vector<std::string> class_names);
  void add(int64_t batch_index, const Batch& batch, const std::vector<Detections>& detections, const RawOutputs& outputs);
  void finish() const;  // confusion_matrix.png, confusion_matrix_normalized.png

 private:
  std::filesystem::path folder_;
  std::vector<std::string> class_names_;
  ConfusionMatrix confusion_;
};

// labels.png: objects of each class, boxes drawn on one another, centres and sizes.
void draw_dataset_labels(const std::filesystem::path& folder, const SegDataset& data);

}  // namespace tessera
