// Convolutions and matrix products by the vendor's libraries (cuDNN, cuBLASLt): what stands between the contracts of tensor/ops/
// and a library that may refuse a shape.
#pragma once

#include <limits>
#include <memory>

#include "cuda/vendor/conv_plan.h"
#include "cuda/vendor/gemm_plan.h"
#include "cuda/vendor/limits.h"
#include "cuda/vendor/plan_cache.h"
#include "tensor/backend.h"

namespace tessera::cuda::vendor {

bool has_conv();  // the build has cuDNN
bool has_gemm();  // the build has cuBLASLt

// Each starts the work and returns true, or starts nothing and returns false: the library has no plan for the shape, or one that
// does not start, and the caller takes the project's own kernels. Where the library cannot add to a result, the product goes to
// scratch memory and is added from there.
bool conv2d(const ImageView& x, const FilterView& w, const ImageView& y, const ConvParams& p, const ConvEpilogue& epilogue);
bool conv2d_backward_data(const ImageView& dy, const FilterView& w, const ImageView& dx, const ConvParams& p, bool accumulate);
bool conv2d_backward_weight(const ImageView& x, const ImageView& dy, const FilterView& dw, const ConvParams& p, bool accumulate);

bool matmul(const MatrixView& a, const MatrixView& b, const MatrixView& c, bool accumulate);

PlanCacheStats conv_stats();
PlanCacheStats gemm_stats();

// For tests: plans come from here from now on and all earlier ones are forgotten; null is a build without the library.
void set_conv_planner(std::unique_ptr<ConvPlanner> planner, size_t most_workspace = kDefaultWorkspace,
                      double most_seconds = std::numeric_limits<double>::infinity());
void set_gemm_planner(std::unique_ptr<GemmPlanner> planner, size_t most_workspace = kDefaultWorkspace);

}  // namespace tessera::cuda::vendor
