// The denominators of a profile, measured now.
#pragma once

#include "tensor/device.h"
#include "tensor/dtype.h"
#include "yolo/report/profile_table.h"

namespace tessera {

// CPU: multiply-adds of `type` and a copy on all compute threads (tensor/cpu/peak.h). Another device: a copy through its backend; its
// arithmetic has no such measurement yet and stays 0.
Roof measured_roof(Device device, DType type);

}  // namespace tessera
