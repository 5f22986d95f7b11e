// Matrix products through cuBLASLt. It counts in columns: our rows are its columns, so c = a b is asked for as c' = b' a', where a
// matrix in rows is already the transposed one.
//
// The only file that includes cuBLASLt.
#include <cublasLt.h>

#include <array>
#include <utility>

#include "cuda/vendor/gemm_plan.h"
#include "tensor/base/check.h"
#include "tensor/base/shared_library.h"

namespace tessera::cuda {

namespace {

// The functions of the library. Called only when describe_cublaslt() or a planner has seen that they are there. The header's own
// ...Init() are shells of those with _internal.
#define TESSERA_FUNCTION(name) decltype(&::name) name = library.function<decltype(&::name)>(#name)
struct CublasLt {
  SharedLibrary library{TESSERA_CUBLASLT_NAME, TESSERA_CUBLASLT_LIBRARY};
  TESSERA_FUNCTION(cublasLtCreate);
  TESSERA_FUNCTION(cublasLtGetStatusString);
  TESSERA_FUNCTION(cublasLtGetVersion);
  TESSERA_FUNCTION(cublasLtMatmul);
  TESSERA_FUNCTION(cublasLtMatmulAlgoGetHeuristic);
  TESSERA_FUNCTION(cublasLtMatmulDescInit_internal);
  TESSERA_FUNCTION(cublasLtMatmulDescSetAttribute);
  TESSERA_FUNCTION(cublasLtMatmulPreferenceInit_internal);
  TESSERA_FUNCTION(cublasLtMatmulPreferenceSetAttribute);
  TESSERA_FUNCTION(cublasLtMatrixLayoutInit_internal);
  TESSERA_FUNCTION(cublasLtMatrixLayoutSetAttribute);
};
#undef TESSERA_FUNCTION

const CublasLt& api() {
  static const CublasLt functions;
  return functions;
}

struct Refused {
  std::string words;
};
void or_refused(cublasStatus_t status, const char* what) {
  if (status != CUBLAS_STATUS_SUCCESS) throw Refused{fmt::format("{}: {}", what, api().cublasLtGetStatusString(status))};
}

// Never destroyed: the driver may be gone by then.
cublasLtHandle_t handle() {
  static const cublasLtHandle_t ours = [] {
    cublasLtHandle_t made = nullptr;
    or_refused(api().cublasLtCreate(&made), "cublasLtCreate");
    return made;
  }();
  return ours;
}

cudaDataType_t cuda_type(DType t) {
  switch (t) {
    case DType::kF32: return CUDA_R_32F;
    case DType::kF16: return CUDA_R_16F;
    case DType::kBF16: return CUDA_R_16BF;
    default: throw Refused{fmt::format("{} is not a type of its products here", name_of(t))};
  }
}

// The four descriptions of one product. The structs of the library are plain memory and need no device.
struct Product {
  cublasLtMatmulDescOpaque_t operation{};
  cublasLtMatrixLayoutOpaque_t left{}, right{}, result{};

  explicit Product(const GemmKey& k) {
    const cudaDataType_t type = cuda_type(k.dtype());
    or_refused(api().cublasLtMatmulDescInit_internal(&operation, sizeof operation, k.tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F, CUDA_R_32F),
               "operation");
    struct Operand {
      cublasLtMatrixLayoutOpaque_t* layout;
      bool transposed;           // as the library sees it
      int64_t rows, cols, step;  // of memory, counted in columns
      int64_t batch_step;
    };
    const Operand a{nullptr, false, k.a_transposed ? k.rows : k.depth, k.a_transposed ? k.depth : k.rows, k.a_step, k.a_batch_step};
    const Operand b{nullptr, false, k.b_transposed ? k.depth : k.cols, k.b_transposed ? k.cols : k.depth, k.b_step, k.b_batch_step};
    Operand first = k.c_transposed ? a : b, second = k.c_transposed ? b : a;
    first.transposed = k.c_transposed ? !k.a_transposed : k.b_transposed;
    second.transposed = k.c_transposed ? !k.b_transposed : k.a_transposed;
    first.layout = &left, second.layout = &right;
    const Operand out{&result, false, k.c_transposed ? k.rows : k.cols, k.c_transposed ? k.cols : k.rows, k.c_step, k.c_batch_step};
    for (const Operand& o : {first, second, out}) {
      or_refused(api().cublasLtMatrixLayoutInit_internal(o.layout, sizeof *o.layout, type, uint64_t(o.rows), uint64_t(o.cols), o.step), "layout");
      if (k.batch == 1) continue;
      or_refused(api().cublasLtMatrixLayoutSetAttribute(o.layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &k.batch, sizeof k.batch), "batch");
      or_refused(api().cublasLtMatrixLayoutSetAttribute(o.layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &o.batch_step,
                                                  sizeof o.batch_step),
                 "batch step");
    }
    const std::pair<cublasLtMatmulDescAttributes_t, bool> sides[] = {{CUBLASLT_MATMUL_DESC_TRANSA, first.transposed},
                                                                     {CUBLASLT_MATMUL_DESC_TRANSB, second.transposed}};
    for (const auto& [name, transposed] : sides) {
      const cublasOperation_t op = transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
      or_refused(api().cublasLtMatmulDescSetAttribute(&operation, name, &op, sizeof op), "transposition");
    }
  }
};

class CublasLtPlan final : public GemmPlan {
 public:
  CublasLtPlan(const GemmKey& key, const Product& product, const cublasLtMatmulHeuristicResult_t& found, int number)
      : key_(key),
        product_(product),
        algorithm_(found.algo),
        workspace_(found.workspaceSize),
        name_(fmt::format("algorithm {}", number)) {}
  std::string name() const override { return name_; }
  size_t workspace_bytes() const override { return workspace_; }

  void run(const GemmBuffers& b, void* workspace, void* stream) const override {
    const float one = 1, before = key_.accumulate ? 1 : 0;
    const void* const first = key_.c_transposed ? b.a : b.b;
    const void* const second = key_.c_transposed ? b.b : b.a;
    const cublasStatus_t status = api().cublasLtMatmul(handle(), &product_.operation, &one, first, &product_.left, second,
                                                 &product_.right, &before, b.c, &product_.result, b.c, &product_.result,
                                                 &algorithm_, workspace, workspace_, static_cast<cudaStream_t>(stream));
    if (status == CUBLAS_STATUS_SUCCESS) return;
    throw Error(ErrorCode::kBug, fmt::format("cuBLASLt: {}: {} ({})", text_of(key_), api().cublasLtGetStatusString(status), name_), {},
                "--conv own does without cuBLASLt");
  }

 private:
  const GemmKey key_;
  mutable Product product_;  // the library reads it through pointers that are not const
  const cublasLtMatmulAlgo_t algorithm_;
  const size_t workspace_;
  const std::string name_;
};

class CublasLtPlanner final : public GemmPlanner {
 public:
  GemmPlans plans(const GemmKey& key, size_t most_workspace) override {
    GemmPlans out;
    try {
      Product product(key);
      out.layouts_accepted = true;
      cublasLtMatmulPreferenceOpaque_t wishes{};
      or_refused(api().cublasLtMatmulPreferenceInit_internal(&wishes, sizeof wishes), "preferences");
      const uint64_t most = most_workspace;
      // Parts are added in f32 and in an order of the shapes' own; the other ways add in the type of the result.
      const uint32_t sums = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
      set(wishes, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, most);
      set(wishes, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, sums);
      const int32_t first = key.c_transposed ? key.a_alignment : key.b_alignment;
      const int32_t second = key.c_transposed ? key.b_alignment : key.a_alignment;
      set(wishes, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, uint32_t(first));
      set(wishes, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, uint32_t(second));
      set(wishes, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, uint32_t(key.c_alignment));
      set(wishes, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, uint32_t(key.c_alignment));
      std::array<cublasLtMatmulHeuristicResult_t, 8> found{};
      int count = 0;
      or_refused(api().cublasLtMatmulAlgoGetHeuristic(handle(), &product.operation, &product.left, &product.right, &product.result,
                                                &product.result, &wishes, int(found.size()), found.data(), &count),
                 "heuristics");
      for (int i = 0; i < count; ++i) {
        if (found[size_t(i)].state == CUBLAS_STATUS_SUCCESS) {
          out.list.push_back(std::make_unique<CublasLtPlan>(key, product, found[size_t(i)], i));
        }
      }
    } catch (const Refused& r) {
      out.refusal = r.words;
    }
    return out;
  }

 private:
  template <class T>
  static void set(cublasLtMatmulPreferenceOpaque_t& wishes, cublasLtMatmulPreferenceAttributes_t name, const T& value) {
    or_refused(api().cublasLtMatmulPreferenceSetAttribute(&wishes, name, &value, sizeof value), "preference");
  }
};

}  // namespace

std::unique_ptr<GemmPlanner> make_cublaslt_planner() {
  if (!api().library.complete()) return nullptr;
  return std::make_unique<CublasLtPlanner>();
}

std::string describe_cublaslt() {
  if (!api().library.complete()) return "cuBLASLt cannot be loaded: " + api().library.trouble();
  const size_t v = api().cublasLtGetVersion();
  return fmt::format("cuBLASLt {}.{}.{}", v / 10000, v / 100 % 100, v % 100);
}

}  // namespace tessera::cuda
