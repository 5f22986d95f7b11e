// `bench op`: the convolutions and the batch norm passes of a network one by one, each beside its bound.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "yolo/config.h"

namespace tessera {

// Each shape once, of all five scales for --model all. A list of rows
//   {"op","shape","direction","ms","gflops","gbytes_per_s","peak","of_peak","bound_ms","of_bound","max_error"}
// ms is the median of --runs measurements; on the CPU each has the peak of multiply-adds measured right before it, and of_peak is
// the median of the ratios: a machine that others share changes its speed by the minute. bound_ms: operations over the peak or
// bytes, each tensor counted once, over the bandwidth of a copy, whichever is longer. max_error: the largest difference of some
// results from sums in f64 of the same numbers, over the largest of them. Passes of batch norm have no peak and no error here.
nlohmann::ordered_json op_benchmark(const Config& config, double copy_gbytes_per_s);

}  // namespace tessera
