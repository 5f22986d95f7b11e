// What cuBLASLt wants of the addresses it is given, on the GPU at hand: prints the status of one small product in variations. Not a
// check; run it when cuBLASLt refuses (test_cuda --no-skip --test-case='cuBLASLt: *', with CUBLASLT_LOG_LEVEL=2 for its own words).
#include <cublasLt.h>
#include <doctest/doctest.h>
#include <fmt/format.h>

#include "cuda/context.h"
#include "tensor/base/check.h"
#include "tensor/base/shared_library.h"

namespace tessera::testing {
namespace {

struct Library {
  SharedLibrary library{"libcublasLt.so.13", "libcublasLt.so.12"};
#define TESSERA_TAKE(name) decltype(&::name) name = library.function<decltype(&::name)>(#name)
  TESSERA_TAKE(cublasLtCreate);
  TESSERA_TAKE(cublasLtGetStatusName);
  TESSERA_TAKE(cublasLtMatmul);
  TESSERA_TAKE(cublasLtMatmulAlgoGetHeuristic);
  TESSERA_TAKE(cublasLtMatmulDescCreate);
  TESSERA_TAKE(cublasLtMatmulDescInit_internal);
  TESSERA_TAKE(cublasLtMatmulPreferenceCreate);
  TESSERA_TAKE(cublasLtMatmulPreferenceSetAttribute);
  TESSERA_TAKE(cublasLtMatrixLayoutCreate);
  TESSERA_TAKE(cublasLtMatrixLayoutSetAttribute);
#undef TESSERA_TAKE
};

struct Variation {
  const char* text;
  size_t workspace_offset = 0, data_offset = 0;  // bytes from an address with all the alignment that there is
  bool workspace = true, batch = false, own_memory = false, algorithm = true;
};

TEST_CASE("cuBLASLt: what it wants of addresses" * doctest::skip()) {
  const Library l;
  if (!l.library.complete()) {
    MESSAGE("skipped: ", l.library.trouble());
    return;
  }
  cublasLtHandle_t handle = nullptr;
  REQUIRE(l.cublasLtCreate(&handle) == CUBLAS_STATUS_SUCCESS);
  constexpr size_t kMany = size_t{1} << 20, kWorkspace = size_t{32} << 20;
  const cuda::Scratch<std::byte> data(3 * kMany), work(kWorkspace + 4096);
  const auto aligned = [](std::byte* p) { return p + (256 - reinterpret_cast<uintptr_t>(p) % 256) % 256; };
  constexpr struct { int m, n, k; } kSizes[] = {{6, 5, 7}, {1, 672, 16}, {64, 2048, 256}};
  const Variation variations[] = {
      {.text = "all aligned to 256"},
      {.text = "no workspace", .workspace = false},
      {.text = "workspace aligned to 128", .workspace_offset = 128},
      {.text = "workspace aligned to 64", .workspace_offset = 64},
      {.text = "workspace aligned to 16", .workspace_offset = 16},
      {.text = "matrices aligned to 64", .data_offset = 64},
      {.text = "matrices aligned to 4", .data_offset = 4},
      {.text = "batch of 1 said", .batch = true},
      {.text = "operation in memory of ours", .own_memory = true},
      {.text = "no algorithm", .algorithm = false},
      {.text = "no algorithm, workspace aligned to 64", .workspace_offset = 64, .algorithm = false},
  };
  for (const auto& [m, n, k] : kSizes) {
    for (const Variation& v : variations) {
      cublasLtMatmulDescOpaque_t ours{};
      cublasLtMatmulDesc_t operation = &ours;
      if (v.own_memory) {
        REQUIRE(l.cublasLtMatmulDescInit_internal(operation, sizeof ours, CUBLAS_COMPUTE_32F, CUDA_R_32F) == CUBLAS_STATUS_SUCCESS);
      } else {
        REQUIRE(l.cublasLtMatmulDescCreate(&operation, CUBLAS_COMPUTE_32F, CUDA_R_32F) == CUBLAS_STATUS_SUCCESS);
      }
      const auto layout = [&](int rows, int cols) {
        cublasLtMatrixLayout_t made = nullptr;
        REQUIRE(l.cublasLtMatrixLayoutCreate(&made, CUDA_R_32F, uint64_t(rows), uint64_t(cols), rows) == CUBLAS_STATUS_SUCCESS);
        const int32_t one = 1;
        const int64_t step = int64_t(rows) * cols;
        if (v.batch) {
          l.cublasLtMatrixLayoutSetAttribute(made, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &one, sizeof one);
          l.cublasLtMatrixLayoutSetAttribute(made, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &step, sizeof step);
        }
        return made;
      };
      const cublasLtMatrixLayout_t a = layout(m, k), b = layout(k, n), c = layout(m, n);
      cublasLtMatmulPreference_t wishes = nullptr;
      REQUIRE(l.cublasLtMatmulPreferenceCreate(&wishes) == CUBLAS_STATUS_SUCCESS);
      const uint64_t most = v.workspace ? kWorkspace : 0;
      l.cublasLtMatmulPreferenceSetAttribute(wishes, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &most, sizeof most);
      const uint32_t alignment = v.data_offset == 0 ? 256 : uint32_t(v.data_offset);
      for (const auto name : {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                              CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
        l.cublasLtMatmulPreferenceSetAttribute(wishes, name, &alignment, sizeof alignment);
      }
      cublasLtMatmulHeuristicResult_t found[8] = {};
      int count = 0;
      const cublasStatus_t asked = l.cublasLtMatmulAlgoGetHeuristic(handle, operation, a, b, c, c, wishes, 8, found, &count);
      std::string line = fmt::format("{} x {} x {}, {}: heuristics {}, {} algorithms:", m, n, k, v.text, l.cublasLtGetStatusName(asked), count);
      std::byte* const base = aligned(data.get()) + v.data_offset;
      std::byte* const workspace = v.workspace ? aligned(work.get()) + v.workspace_offset : nullptr;
      for (int i = 0; i < (v.algorithm ? count : 1); ++i) {
        const float one = 1, zero = 0;
        const size_t bytes = !v.workspace ? 0 : v.algorithm ? found[i].workspaceSize : kWorkspace;
        const cublasStatus_t ran =
            l.cublasLtMatmul(handle, operation, &one, base, a, base + kMany / 2, b, &zero, base + kMany, c, base + kMany, c,
                             v.algorithm ? &found[i].algo : nullptr, workspace, bytes, cuda::current_stream());
        cuda::synchronize();
        line += fmt::format(" {} ({} bytes)", ran == CUBLAS_STATUS_SUCCESS ? "runs" : l.cublasLtGetStatusName(ran), bytes);
      }
      fmt::print("{}\n", line);
    }
  }
}

}  // namespace
}  // namespace tessera::testing
