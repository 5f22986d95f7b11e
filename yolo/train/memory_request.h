// What a training asks of the memory plan, from its arguments and its data.
#pragma once

#include <vector>

#include "data/dataset.h"
#include "yolo/train/memory_plan.h"

namespace tessera {

// Sizes of the images in training batches, each once. Before the data is open (null) the square, which holds all of them.
std::vector<Size> image_sizes(const Config& config, const SegDataset* train_set);

// The data sets may be null: they are not open yet.
MemoryRequest memory_request(const Config& config, Device device, const ModelSpec& spec, UpdateRule rule,
                             const SegDataset* train_set, const SegDataset* val_set);

}  // namespace tessera
