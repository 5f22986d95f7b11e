// A model in evaluation mode, folded, for one scope; then back in the mode that it had.
#pragma once

#include "yolo/model.h"

namespace tessera {

class EvaluationMode {
 public:
  explicit EvaluationMode(YoloSeg& model) : model_(model), was_training_(model.training()) {
    model_.train(false);
    model_.fold();
  }
  ~EvaluationMode() {
    model_.unfold();
    model_.train(was_training_);
  }
  EvaluationMode(const EvaluationMode&) = delete;
  EvaluationMode& operator=(const EvaluationMode&) = delete;

 private:
  YoloSeg& model_;
  bool was_training_;
};

}  // namespace tessera
