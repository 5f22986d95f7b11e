// Stands in for cublaslt_planner.cpp in builds without cuBLASLt.
#include "cuda/vendor/gemm_plan.h"

namespace tessera::cuda {

std::unique_ptr<GemmPlanner> make_cublaslt_planner() { return nullptr; }

std::string describe_cublaslt() { return "no cuBLASLt"; }

}  // namespace tessera::cuda
