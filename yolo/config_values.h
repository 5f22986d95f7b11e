// Arguments whose text stands for something else: a device, a type, a list of numbers.
#pragma once

#include <cstdint>
#include <vector>

#include "tensor/device.h"
#include "tensor/dtype.h"
#include "yolo/config.h"

namespace tessera {

// What `device` names: "cpu", "cuda", the number of one CUDA device, or with several ranks on a machine one number for each: "0,1".
// "cuda" is then the device with the rank's number. Error(kUsage): anything else.
Device device_of(const Config& config, int local_rank = 0, int local_size = 1);

DType compute_type_of(const Config& config);  // of --precision; Error(kUsage): fp16 on the CPU

bool recompute_of(const Config& config, Device device);  // of --recompute

// Of --classes: "0,2,5", also in brackets, as the original's lists are written; empty: all. Error(kUsage): anything else.
std::vector<int32_t> classes_of(const Config& config);

// Of --freeze: "10" is layers 0 to 9; "0,2,22", "[9]" single layers; empty: none. Error(kUsage): anything else, or a layer that is
// not there.
std::vector<int32_t> frozen_layers_of(const Config& config);

}  // namespace tessera
