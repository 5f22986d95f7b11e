// Convolutions and matrix products by way of a vendor's library (cuda/conv_vendor.h), with planners that offer the project's own
// naive kernels: what is asked for is what the op cases want, whatever the library refuses, and plans are kept.
#include <doctest/doctest.h>

#include "cuda/context.h"
#include "cuda/conv.h"
#include "cuda/conv_vendor.h"
#include "tensor/backend.h"
#include "tensor/base/scope.h"
#include "tensor/conv_choice.h"
#include "tests/cuda_host/emulator.h"
#include "tests/op_cases/op_cases.h"

namespace tessera::testing {
namespace {

using namespace cuda;

struct Habits {
  bool adds = true;       // can add to a result
  bool wide = true;       // f32 gradients of 16-bit factors
  bool epilogues = true;  // anything but a plain convolution
  bool anything = true;
  std::vector<size_t> workspaces = {0};  // one plan for each
  int fails = -1;                        // this plan throws
};

struct Runs {
  int plans = 0;
  std::vector<int> of_plan = std::vector<int>(8);
  int left = -1;
};

// From the key alone, as a library has it: so what the key says is what runs.
class NaiveConvPlan : public ConvPlan {
 public:
  NaiveConvPlan(const ConvKey& key, size_t workspace, int number, bool fails, Runs& runs)
      : key_(key), workspace_(workspace), number_(number), fails_(fails), runs_(runs) {}
  std::string name() const override { return fmt::format("naive {}", number_); }
  size_t workspace_bytes() const override { return workspace_; }
  void run(const ConvBuffers& b, void* workspace, void* stream) const override {
    if (fails_) throw Error(ErrorCode::kBug, "this plan does not start");
    CHECK(stream == current_stream());
    CHECK((workspace != nullptr) == (workspace_ > 0));
    CHECK(reinterpret_cast<uintptr_t>(workspace) % 256 == 0);
    if (runs_.left-- == 0) throw Error(ErrorCode::kBug, "this plan does not start any more");
    ++runs_.of_plan[size_t(number_)];
    const ConvKey& k = key_;
    const ImageView x{b.x, k.dtype(), k.n, k.h, k.w, k.c, k.x_pitch}, y{b.y, k.dtype(), k.n, k.oh, k.ow, k.o, k.y_pitch};
    const FilterView w{b.w, DType(k.filter_type), k.o, k.kh, k.kw, k.c};
    const ConvParams p{k.stride, k.pad};
    switch (k.which()) {
      case ConvPass::kForward: {
        ConvEpilogue e{.bias = k.bias ? b.bias : nullptr, .activation = Activation(k.activation)};
        if (k.residual) e.residual = {const_cast<void*>(b.residual), k.dtype(), k.n, k.oh, k.ow, k.o, k.residual_pitch};
        return naive::conv2d(x, w, y, p, e);
      }
      case ConvPass::kBackwardData: return naive::conv2d_backward_data(y, w, x, p, k.accumulate);
      case ConvPass::kBackwardWeight: return naive::conv2d_backward_weight(x, y, w, p, k.accumulate);
    }
  }

 private:
  const ConvKey key_;
  const size_t workspace_;
  const int number_;
  const bool fails_;
  Runs& runs_;
};

class NaiveConvPlanner : public ConvPlanner {
 public:
  NaiveConvPlanner(const Habits& habits, Runs& runs) : habits_(habits), runs_(runs) {}
  ConvPlans plans(const ConvKey& key, size_t) override {
    ConvPlans out;
    const bool plain = !key.bias && !key.residual && key.activation == 0;
    const bool refuses = !habits_.anything || (key.accumulate && !habits_.adds) || (key.filter_type != key.type && !habits_.wide) ||
                         (!plain && !habits_.epilogues);
    if (refuses) return out.refusal = "not by this library", std::move(out);
    for (size_t i = 0; i < habits_.workspaces.size(); ++i) {
      ++runs_.plans;
      out.list.push_back(std::make_unique<NaiveConvPlan>(key, habits_.workspaces[i], int(i), int(i) == habits_.fails, runs_));
    }
    return out;
  }

 private:
  const Habits habits_;
  Runs& runs_;
};

class NaiveGemmPlan : public GemmPlan {
 public:
  explicit NaiveGemmPlan(const GemmKey& key) : key_(key) {}
  std::string name() const override { return "naive"; }
  size_t workspace_bytes() const override { return 0; }
  void run(const GemmBuffers& b, void*, void*) const override {
    const GemmKey& k = key_;
    const auto matrix = [&](const void* p, int64_t rows, int64_t cols, int64_t step, bool columns, int64_t batch_step) {
      return MatrixView{const_cast<void*>(p), k.dtype(), k.batch, rows, cols, batch_step, columns ? 1 : step, columns ? step : 1};
    };
    naive::matmul(matrix(b.a, k.rows, k.depth, k.a_step, k.a_transposed, k.a_batch_step),
                  matrix(b.b, k.depth, k.cols, k.b_step, k.b_transposed, k.b_batch_step),
                  matrix(b.c, k.rows, k.cols, k.c_step, k.c_transposed, k.c_batch_step), k.accumulate);
  }

 private:
  const GemmKey key_;
};

class NaiveGemmPlanner : public GemmPlanner {
 public:
  GemmPlans plans(const GemmKey& key, size_t) override {
    GemmPlans out;
    out.list.push_back(std::make_unique<NaiveGemmPlan>(key));
    return out;
  }
};

// The vendor's kernels for the length of a test, by planners that behave as told.
class Vendor {
 public:
  explicit Vendor(const Habits& habits, size_t most_workspace = 1 << 20) {
    set_conv_kernels(ConvKernels::kVendor);
    vendor::set_conv_planner(std::make_unique<NaiveConvPlanner>(habits, runs), most_workspace);
    vendor::set_gemm_planner(std::make_unique<NaiveGemmPlanner>());
  }
  ~Vendor() {
    vendor::set_conv_planner(nullptr);
    vendor::set_gemm_planner(nullptr);
    set_conv_kernels(ConvKernels::kTiled);
  }
  Runs runs;
};

void run_emulated(const std::vector<OpCase>& cases) {
  run_cases(cases, Device::Kind::kCuda);
  const auto reports = emulated::take_reports();
  CHECK_MESSAGE(reports.empty(), reports.size(), " reports, the first: ", reports.empty() ? "" : reports[0]);
}

TEST_CASE("a vendor's library: every convolution and matrix product through keys and plans") {
  Vendor vendor({});
  run_emulated(conv_cases());
  CHECK(vendor::conv_stats().refused == 0);
  CHECK(vendor::conv_stats().hits > 100);
  CHECK(vendor::gemm_stats().misses > 10);
}

TEST_CASE("a vendor's library that adds to nothing: products go to scratch memory and are added") {
  Vendor vendor({.adds = false});
  run_emulated(conv_cases());
  CHECK(vendor::conv_stats().refused > 0);
}

TEST_CASE("a vendor's library that refuses: the project's own kernels run") {
  for (const Habits& habits : {Habits{.wide = false, .epilogues = false}, Habits{.anything = false}}) {
    Vendor vendor(habits);
    std::vector<OpCase> few = conv_cases();
    std::erase_if(few,
                  [](const OpCase& c) { return c.detail.find("24->40") == c.detail.npos && c.detail.find("s2") == c.detail.npos; });
    run_emulated(few);
    CHECK(vendor::conv_stats().refused > 0);
    CHECK((vendor.runs.plans > 0) == habits.anything);
  }
}

Tensor some_conv(ConvChoice kernels = ConvChoice::kAuto) {
  const Tensor x = Tensor::full({1, 6, 6, 8}, 1, DType::kF32, Device::cuda());
  const Tensor w = Tensor::full({4, 3, 3, 8}, 1, DType::kF32, Device::cuda());
  const int layer = 0;  // its address
  set_conv_choice_of(&layer, kernels);
  const ScopeGuard scope(&layer);
  const Tensor y = ops::conv2d(x, w, {.stride = 1, .pad = 1});
  set_conv_choice_of(&layer, ConvChoice::kAuto);
  return y;
}

TEST_CASE("plans are timed once; what wants too much memory or does not start is passed over") {
  Vendor vendor({.workspaces = {(1 << 20) + 1, 64, 0, 1 << 20}, .fails = 1});
  const float middle = 72;
  const auto counted = [&] { return vendor.runs.of_plan[2] + vendor.runs.of_plan[3]; };
  CHECK(some_conv().to_vector<float>()[4 * 7] == middle);
  const int first = counted();
  CHECK(first > 10);  // both were timed, one ran
  for (int i = 0; i < 3; ++i) CHECK(some_conv().to_vector<float>()[4 * 7] == middle);
  CHECK(counted() == first + 3);
  CHECK(vendor.runs.of_plan[0] == 0);
  CHECK(vendor.runs.plans == 4);
  const PlanCacheStats s = vendor::conv_stats();
  CHECK(s.misses == 1);
  CHECK(s.hits == 3);
  CHECK(s.over_workspace == 1);
  CHECK(s.failed == 1);
  CHECK(s.timed == 2);
}

TEST_CASE("a plan that ran when it was tried and does not any more is struck off: the project's own kernels run") {
  Vendor vendor({});
  CHECK(some_conv().to_vector<float>()[4 * 7] == 72);
  vendor.runs.left = 0;
  const int before = vendor.runs.of_plan[0];
  for (int i = 0; i < 2; ++i) CHECK(some_conv().to_vector<float>()[4 * 7] == 72);
  CHECK(vendor.runs.of_plan[0] == before);
  CHECK(vendor::conv_stats().struck == 1);
  CHECK(vendor::conv_stats().misses == 1);
}

TEST_CASE("no time is left for plans: what is new runs as own, what was planned stays") {
  Vendor vendor({});
  vendor::set_conv_planner(std::make_unique<NaiveConvPlanner>(Habits{}, vendor.runs), 1 << 20, 0);
  CHECK(some_conv().to_vector<float>()[4 * 7] == 72);
  const Tensor x = Tensor::full({1, 6, 6, 8}, 1, DType::kF32, Device::cuda()), w = Tensor::full({4, 1, 1, 8}, 1, DType::kF32, Device::cuda());
  CHECK(ops::conv2d(x, w, {}).to_vector<float>()[5] == 8);
  CHECK(vendor.runs.plans == 1);
  CHECK(vendor::conv_stats().refused == 1);
  some_conv();
  CHECK(vendor::conv_stats().hits == 1);
}

TEST_CASE("timing writes to scratch memory: a result that is added to is added to once") {
  Vendor vendor({});
  const Tensor x = Tensor::full({1, 6, 6, 8}, 1, DType::kF32, Device::cuda()),
               dy = Tensor::full({1, 6, 6, 4}, 1, DType::kF32, Device::cuda());
  const Tensor dw = Tensor::full({4, 1, 1, 8}, 100, DType::kF32, Device::cuda());
  ops::conv2d_backward_weight(x, dy, dw, {}, true);
  CHECK(dw.to_vector<float>() == std::vector<float>(32, 136.0f));
}

TEST_CASE("no memory for a plan's workspace is no end: the next plan runs") {
  constexpr size_t kMuch = size_t{64} << 20;
  Vendor vendor({.workspaces = {kMuch, 0}}, kMuch);
  const Tensor x = Tensor::full({1, 300, 300, 8}, 1, DType::kF32, Device::cuda()),
               w = Tensor::full({4, 1, 1, 8}, 1, DType::kF32, Device::cuda());
  const Tensor y = Tensor::empty({1, 300, 300, 4}, DType::kF32, Device::cuda());
  device_allocator().release(device_allocator().allocate(8 << 20));  // for the result's scratch; the workspace is not to be had
  emulated::fail_call("cudaMalloc", 1, cudaErrorMemoryAllocation, 2);
  ops::conv2d(x, w, {}, {}, Activation::kNone, {}, y);
  CHECK(y.to(Device::cpu()).to_vector<float>()[5] == 8);
  CHECK(vendor::conv_stats().failed == 1);
}

TEST_CASE("nothing is planned while a graph is recorded: what was planned before is replayed, else the project's own kernels") {
  Vendor vendor({});
  const Tensor x = Tensor::full({1, 6, 6, 8}, 1, DType::kF32, Device::cuda());
  const Tensor w = Tensor::full({4, 3, 3, 8}, 1, DType::kF32, Device::cuda());
  const Tensor y = Tensor::empty({1, 6, 6, 4}, DType::kF32, Device::cuda());
  const auto work = [&] { ops::conv2d(x, w, {.stride = 1, .pad = 1}, {}, Activation::kNone, {}, y); };
  for (const bool planned : {false, true}) {
    CAPTURE(planned);
    if (planned) work();
    const auto recorder = backend_for(Device::cuda()).recorder();
    const auto recording = recorder->record(work);
    CHECK(vendor::conv_stats().misses == planned);
    CHECK(vendor::conv_stats().hits == planned);
    y.fill(0);
    recording->replay();
    CHECK(y.to_vector<float>()[4 * 7] == 72);
  }
  CHECK(emulated::take_reports().empty());
}

TEST_CASE("a single layer's kernels") {
  Vendor vendor({});
  some_conv(ConvChoice::kOwn);
  some_conv(ConvChoice::kNaive);
  CHECK(vendor.runs.plans == 0);
  some_conv(ConvChoice::kCudnn);
  CHECK(vendor.runs.plans == 1);
  set_conv_kernels(ConvKernels::kTiled);
  some_conv();
  CHECK(vendor::conv_stats().hits == 0);
  some_conv(ConvChoice::kCudnn);
  CHECK(vendor::conv_stats().hits == 1);
}

}  // namespace
}  // namespace tessera::testing
