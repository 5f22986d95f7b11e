// What cuDNN and cuBLASLt say without a device to the shapes of the five scales. cuDNN takes the description of a device instead of
// one: operation graphs are built, its heuristics asked, and plans finalised. Those whose kernels it compiles when they are planned
// (an epilogue, f32 gradients of 16-bit factors) end at the driver; for them the graph and the heuristics are what can be shown.
#include <doctest/doctest.h>
#include <sys/mman.h>

#include <cstring>
#include <fstream>
#include <map>
#include <set>
#include <sstream>

#include "autograd/functions/loss.h"
#include "autograd/functions/pointwise.h"
#include "autograd/grad_mode.h"
#include "cuda/vendor/conv_plan.h"
#include "cuda/vendor/gemm_plan.h"
#include "tensor/observing_backend.h"
#include "tensor/ref/ref_backend.h"
#include "yolo/model.h"
#include "yolo/model_yaml.h"

namespace tessera::testing {
namespace {

using namespace cuda;

struct ByBytes {
  bool operator()(const ConvKey& a, const ConvKey& b) const { return std::memcmp(&a, &b, sizeof a) < 0; }
};

// Computes nothing, in memory that is not there, and keeps what convolutions were asked for.
class Recorder : public ObservingBackend {
 public:
  explicit Recorder(Backend& inner)
      : ObservingBackend(inner),
        allocator_({[](size_t bytes) -> void* {
                      void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
                      return p == MAP_FAILED ? nullptr : p;
                    },
                    [](void* p, size_t bytes) { munmap(p, bytes); }}) {}
  CachingAllocator& allocator() override { return allocator_; }

  void conv2d(ImageView x, FilterView w, ImageView y, const ConvParams& p, const ConvEpilogue& epilogue) override {
    keys.insert(forward_key(x, w, y, p, epilogue, {}));
    check(x), check(y);
  }
  void conv2d_backward_data(ImageView dy, FilterView w, ImageView dx, const ConvParams& p, bool accumulate) override {
    keys.insert(backward_data_key(dy, w, dx, p, accumulate, {}));
    check(dy), check(dx);
  }
  void conv2d_backward_weight(ImageView x, ImageView dy, FilterView dw, const ConvParams& p, bool accumulate) override {
    keys.insert(backward_weight_key(x, dy, dw, p, accumulate, {}));
    CHECK(dw.t == DType::kF32);
  }
  std::set<ConvKey, ByBytes> keys;

 protected:
  void observe(const OpCost&, const std::function<void()>&) override {}

 private:
  // Slots of joined maps stay aligned for vector access (the network's input has three channels).
  static void check(const ImageView& v) {
    CHECK(v.pitch >= v.c);
    if (v.c == 3) return;
    CHECK(reinterpret_cast<uintptr_t>(v.p) % 16 == 0);
    CHECK(v.pitch * int64_t(size_of(v.t)) % 16 == 0);
  }
  CachingAllocator allocator_;
};

std::set<ConvKey, ByBytes> keys_of(const std::string& scale, DType type) {
  RefBackend plain;
  Recorder recorder(plain);
  {
    const BackendGuard guard(recorder);
    YoloSeg model(parse_model_yaml(scale));
    model.set_compute_type(type);
    model.train(true);
    const Tensor images = Tensor::empty({16, 640, 640, 3}, DType::kF32).to(type);
    RawOutputs out = model.forward(Variable(images));
    const Variable prototypes = ag::cast(out.prototypes, DType::kF32);
    Variable total = ag::bce_with_logits(prototypes, Tensor::empty(prototypes.shape(), DType::kF32));
    for (const auto& level : {out.box, out.cls, out.coefficients}) {
      for (const Variable& v : level) total = ag::add(total, ag::bce_with_logits(v, Tensor::empty(v.shape(), v.data().dtype())));
    }
    total.backward();
    const NoGrad no_grad;
    model.train(false);
    model.fold();
    model.forward(Variable(images));
  }
  return recorder.keys;
}

std::string h100() {
  std::ifstream in(TESSERA_SOURCE_DIR "/tests/cudnn/h100.json");
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

struct Tally {
  int keys = 0, asked = 0, with_plans = 0, at_driver = 0;
  size_t least_workspace = 0;  // that the hungriest key needs at least
};

// Keys that are in `seen` were checked with another scale.
Tally check_scale(ConvPlanner& planner, const std::string& scale, DType type, std::set<ConvKey, ByBytes>& seen) {
  Tally t;
  int passes[3] = {};
  for (const ConvKey& key : keys_of(scale, type)) {
    CAPTURE(text_of(key));
    ++t.keys;
    ++passes[key.pass];
    if (!seen.insert(key).second) continue;
    ++t.asked;
    CHECK(key.n == 16);
    CHECK(key.oh == (key.h + 2 * key.pad - key.kh) / key.stride + 1);
    const cuda::ConvPlans plans = planner.plans(key, 1);
    CAPTURE(plans.refusal);
    const bool sum_of_wide = key.accumulate && key.filter_type != key.type;  // made of a product and an addition (conv_vendor.cpp)
    CHECK(plans.graph_accepted == !sum_of_wide);
    if (sum_of_wide) continue;
    CHECK(plans.engines_named > 0);
    const bool compiled = key.bias || key.activation != 0 || key.residual || key.filter_type != key.type;
    if (plans.list.empty()) {
      CHECK(compiled);
      ++t.at_driver;
      continue;
    }
    ++t.with_plans;
    size_t least = SIZE_MAX;
    for (const auto& plan : plans.list) least = std::min(least, plan->workspace_bytes());
    t.least_workspace = std::max(t.least_workspace, least);
  }
  for (const int n : passes) CHECK(n > 15);
  return t;
}

TEST_CASE("cuDNN graphs: every convolution of the five scales, forward and both ways back") {
  const auto planner = cuda::make_cudnn_planner(h100());
  if (planner == nullptr) {
    MESSAGE("skipped: no cuDNN in this build");
    return;
  }
  std::set<ConvKey, ByBytes> seen;
  for (const char* scale : {"yolov8n-seg", "yolov8s-seg", "yolov8m-seg", "yolov8l-seg", "yolov8x-seg"}) {
    const Tally t = check_scale(*planner, scale, DType::kBF16, seen);
    MESSAGE(std::string(scale), " bf16: ", t.keys, " keys, ", t.asked, " new; plans for ", t.with_plans, ", ", t.at_driver,
            " up to the driver; largest least workspace ", t.least_workspace >> 20, " MiB");
    CHECK(t.with_plans > t.asked / 3);
    CHECK(t.least_workspace <= size_t{256} << 20);
  }
}

TEST_CASE("cuDNN graphs: f32, f16 and deterministic plans") {
  const auto planner = cuda::make_cudnn_planner(h100());
  if (planner == nullptr) {
    MESSAGE("skipped: no cuDNN in this build");
    return;
  }
  std::set<ConvKey, ByBytes> seen;
  for (const DType type : {DType::kF32, DType::kF16}) {
    const Tally t = check_scale(*planner, "yolov8n-seg", type, seen);
    MESSAGE("yolov8n-seg ", std::string(name_of(type)), ": ", t.keys, " keys, ", t.asked, " new; plans for ", t.with_plans, ", ",
            t.at_driver, " up to the driver; largest least workspace ", t.least_workspace >> 20, " MiB");
    CHECK(t.with_plans > t.asked / 3);
  }
  for (ConvKey key : keys_of("yolov8n-seg", DType::kF32)) {
    if (key.bias || key.activation) continue;
    key.deterministic = 1;
    CAPTURE(text_of(key));
    CHECK(!planner->plans(key, 1).list.empty());
  }
}

TEST_CASE("cuDNN graphs: what is no convolution is refused in the library's words") {
  const auto planner = cuda::make_cudnn_planner(h100());
  if (planner == nullptr) {
    MESSAGE("skipped: no cuDNN in this build");
    return;
  }
  const ImageView x{nullptr, DType::kF32, 2, 20, 20, 16, 16};
  const FilterView w{nullptr, DType::kF32, 8, 3, 3, 16};
  ConvKey key = forward_key(x, w, {nullptr, DType::kF32, 2, 20, 20, 8, 8}, {.stride = 1, .pad = 1}, {}, {});
  CHECK(planner->plans(key, 1).graph_accepted);
  key.oh = 19;  // does not follow from the input
  const cuda::ConvPlans wrong = planner->plans(key, 1);
  CHECK(!wrong.graph_accepted);
  CHECK(wrong.list.empty());
  CHECK(wrong.refusal.find("CUDNN_STATUS_BAD_PARAM") != std::string::npos);
  const auto nowhere = cuda::make_cudnn_planner(R"({"deviceVer": 900})")->plans(key, 1);
  CHECK(nowhere.refusal.find("device properties: ") == 0);
}

TEST_CASE("cuBLASLt layouts: rows, columns, batches; without a device the heuristics refuse in its words") {
  const auto planner = cuda::make_cublaslt_planner();
  if (planner == nullptr) {
    MESSAGE("skipped: no cuBLASLt in this build");
    return;
  }
  for (const DType type : {DType::kF32, DType::kBF16, DType::kF16}) {
    for (int flips = 0; flips < 8; ++flips) {
      const auto matrix = [&](int64_t rows, int64_t cols, bool columns) {
        return columns ? MatrixView{nullptr, type, 3, rows, cols, rows * cols, 1, rows}
                       : MatrixView{nullptr, type, 3, rows, cols, rows * cols, cols, 1};
      };
      const auto key =
          gemm_key(matrix(64, 32, flips & 1), matrix(32, 48, flips & 2), matrix(64, 48, flips & 4), flips % 2 == 0, {});
      REQUIRE(key.has_value());
      const cuda::GemmPlans plans = planner->plans(*key, size_t{1} << 20);
      CAPTURE(text_of(*key));
      CHECK(plans.layouts_accepted);
      CHECK((!plans.list.empty() || !plans.refusal.empty()));
    }
  }
  cuda::GemmKey f64;
  f64.type = int32_t(DType::kF64);
  CHECK(!planner->plans(f64, 0).layouts_accepted);
}

}  // namespace
}  // namespace tessera::testing
