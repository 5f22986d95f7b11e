// Stands in for cudnn_planner.cpp in builds without cuDNN.
#include "cuda/vendor/conv_plan.h"

namespace tessera::cuda {

std::unique_ptr<ConvPlanner> make_cudnn_planner(const std::string&) { return nullptr; }

std::string describe_cudnn() { return "no cuDNN"; }

}  // namespace tessera::cuda
