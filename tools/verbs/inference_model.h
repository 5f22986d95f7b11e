// The network of --model, ready to run and no longer to train: of val and predict, for all files but .onnx (onnx_model.h).
#pragma once

#include "yolo/config.h"
#include "yolo/io/weights.h"
#include "yolo/report/progress.h"

namespace tessera {

// On --device, computing in --precision, folded; warnings of the file go to the log. What untrained weights mean is the caller's to
// say.
LoadedModel load_inference_model(const Config& config, LogStyle log);

// With what the training of the model says where nothing is given: the image size, and for val the data and whether its classes
// were one, as the original has it. The log tells what was taken.
Config with_arguments_of_training(const LoadedModel& loaded, const Config& given, LogStyle log);

}  // namespace tessera
