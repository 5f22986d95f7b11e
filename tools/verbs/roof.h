// The denominators of a profile and of a benchmark, measured now; and how work on a device is timed.
#pragma once

#include <functional>
#include <vector>

#include "tensor/device.h"
#include "tensor/dtype.h"
#include "yolo/report/profile_table.h"

namespace tessera {

// CPU: multiply-adds of `type` on all compute threads (tensor/cpu/peak.h). Another device: a matrix product of random numbers, large
// enough to be bound by arithmetic, by the fastest kernels that there are for it (cuBLASLt where the build has it).
double measured_gflops(Device device, DType type);
// Read and written by a copy far larger than the caches, which takes 512 MiB: not before the peak of memory is read.
double measured_copy_gbytes(Device device);
Roof measured_roof(Device device, DType type);

double median_of(std::vector<double> values);  // at least one

// Seconds of one call of `start`, the median of `runs` measurements. Each is a row of calls of at least 4 ms: on a device, without
// synchronisation between them, the wait at its end does not count and the host runs ahead.
double device_seconds(Device device, int64_t runs, const std::function<void()>& start);

}  // namespace tessera
