// Opens the data sets that the arguments name, the embedded one ("shapes") included.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "yolo/config.h"
#include "yolo/report/progress.h"

namespace tessera {

// The data set of one split, with the label findings written to the log. `train`: augmentation as the arguments say; else letterbox
// in rectangular batches (or square with rect=false). Verbs: train, val, bench. Error(kUsage) when the command line says where or
// how much to keep of decoded images and nothing is to be kept; what a file or the environment says of it is then a line in the
// log. `sharers`: processes of this machine that divide the default of --cache-mib, unless it is that of a disk. `fixed`:
// DatasetConfig::fixed.
std::unique_ptr<SegDataset> open_split(const Config& config, const std::string& split, bool train, LogStyle log, int sharers = 1,
                                       Size fixed = {});

// Of file names and labels in their order: the same as long as a training has the same images with the same objects.
int64_t fingerprint(const SegDataset& set);

// Classes that the data yaml names; reads nothing else.
int64_t class_count(const Config& config);

}  // namespace tessera
