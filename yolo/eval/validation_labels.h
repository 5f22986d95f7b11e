// Detections of a validation as label files, in the form of predict's: labels/<image>.txt, one line an object (docs/cli.md).
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "yolo/eval/evaluator.h"

namespace tessera {

// The text of each image of a part of a batch, which begins at image `first` of it (EvaluatorHooks::part_done). Outlines are traced
// at network size, of the exactly cropped mask, as the original does in a validation, but are put where the image lies within its
// padding: the original measures in the padded image, so its outlines are moved and shrunk.
std::vector<std::string> validation_labels(const Batch& batch, int64_t first, const BatchDetections& found, bool confidence);

class ValidationLabels {
 public:
  // Creates the folder. Error(kIo) when that fails.
  ValidationLabels(std::filesystem::path folder, const SegDataset& data, bool confidence);
  void listen(EvaluatorHooks& hooks);  // this object must outlive the run

 private:
  void add(const Batch& batch, int64_t first, const BatchDetections& found) const;

  std::filesystem::path folder_;
  std::vector<std::string> stems_;  // by index in the data set
  bool confidence_;
};

}  // namespace tessera
