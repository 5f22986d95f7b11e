// The scan of yolo_txt.h for sets that take a while: it tells after each image that this one is done.
#pragma once

#include "data/progress.h"
#include "data/yolo_txt.h"

namespace tessera {

LabelScan scan_labels(const std::vector<std::string>& images, int64_t classes, const ScanOptions& options,
                      ProgressCounter& progress);

}  // namespace tessera
