// A matrix product as the vendor's library is asked for it; the pattern is that of conv_plan.h. cublaslt_planner.cpp is the planner
// with cuBLASLt, no_cublaslt.cpp stands in for it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "tensor/views.h"

namespace tessera::cuda {

// c (+)= a b, each matrix in rows (`step` elements from row to row) or, transposed, in columns. A batch step of 0 repeats a matrix.
// Compared and hashed as bytes, so it has no padding.
struct GemmKey {
  int64_t a_batch_step = 0, b_batch_step = 0, c_batch_step = 0;
  int64_t a_step = 0, b_step = 0, c_step = 0;
  int32_t type = 0;  // DType of all three
  int32_t batch = 1, rows = 0, cols = 0, depth = 0;
  int32_t a_transposed = 0, b_transposed = 0, c_transposed = 0;
  int32_t a_alignment = 0, b_alignment = 0, c_alignment = 0;  // of the addresses, in bytes, at most 16
  int32_t accumulate = 0, deterministic = 0, tf32 = 0, device = 0, reserved = 0;

  DType dtype() const { return DType(type); }
};
static_assert(std::has_unique_object_representations_v<GemmKey>);

// "matmul bf16 3x[17 x 33] * [33 x 9]", for messages.
std::string text_of(const GemmKey& key);

struct GemmRules {
  bool deterministic = false, tf32 = false;
  int device = 0;
};
// None where a matrix has neither adjacent rows nor adjacent columns: the library has no name for that.
std::optional<GemmKey> gemm_key(const MatrixView& a, const MatrixView& b, const MatrixView& c, bool accumulate,
                                const GemmRules& rules);

struct GemmBuffers {
  const void *a = nullptr, *b = nullptr;
  void* c = nullptr;
};

class GemmPlan {
 public:
  virtual ~GemmPlan() = default;
  virtual std::string name() const = 0;
  virtual size_t workspace_bytes() const = 0;
  virtual void run(const GemmBuffers& buffers, void* workspace, void* stream) const = 0;
};

struct GemmPlans {
  std::vector<std::unique_ptr<GemmPlan>> list;  // that keep the key's rules; the one thought fastest first; at most a handful
  std::string refusal;
  bool layouts_accepted = false;  // the library knows what is asked for, whether or not it can do it here
};

class GemmPlanner {
 public:
  virtual ~GemmPlanner() = default;
  virtual GemmPlans plans(const GemmKey& key, size_t most_workspace) = 0;
};

std::unique_ptr<GemmPlanner> make_cublaslt_planner();  // null without cuBLASLt in the build
std::string describe_cublaslt();                       // "cuBLASLt 13.0.2" or "no cuBLASLt"

}  // namespace tessera::cuda
