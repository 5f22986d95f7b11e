// Convolutions through cuDNN's graph API: a key becomes an operation graph (one convolution, and the pointwise operations of its
// epilogue), the library's heuristics name engines for it, and each of these becomes an execution plan.
//
//   x, w --conv--> s --+bias--> s --swish--> s --+residual--> y      every s is virtual and f32: rounded once, when it is stored
//
// The only file that includes cuDNN.
#include <cudnn.h>

#include <algorithm>
#include <array>
#include <deque>
#include <map>
#include <utility>

#include "cuda/vendor/conv_plan.h"
#include "tensor/base/check.h"
#include "tensor/base/shared_library.h"

namespace tessera::cuda {

namespace {

// The functions of the library. Called only when describe_cudnn() or a planner has seen that they are there.
#define TESSERA_FUNCTION(name) decltype(&::name) name = library.function<decltype(&::name)>(#name)
struct Cudnn {
  SharedLibrary library{"libcudnn.so.9", TESSERA_CUDNN_LIBRARY};
  TESSERA_FUNCTION(cudnnBackendCreateDescriptor);
  TESSERA_FUNCTION(cudnnBackendDestroyDescriptor);
  TESSERA_FUNCTION(cudnnBackendExecute);
  TESSERA_FUNCTION(cudnnBackendFinalize);
  TESSERA_FUNCTION(cudnnBackendGetAttribute);
  TESSERA_FUNCTION(cudnnBackendSetAttribute);
  TESSERA_FUNCTION(cudnnCreate);
  TESSERA_FUNCTION(cudnnGetErrorString);
  TESSERA_FUNCTION(cudnnGetLastErrorString);
  TESSERA_FUNCTION(cudnnGetVersion);
  TESSERA_FUNCTION(cudnnSetStream);
};
#undef TESSERA_FUNCTION

const Cudnn& api() {
  static const Cudnn functions;
  return functions;
}

std::string last_words(cudnnStatus_t status) {
  char text[512] = "";
  api().cudnnGetLastErrorString(text, sizeof text);
  return *text ? fmt::format("{}: {}", api().cudnnGetErrorString(status), text) : std::string(api().cudnnGetErrorString(status));
}

// What the library does not support for a key is no mistake of anybody; it is caught where plans are made.
struct Refused {
  std::string words;
};
void or_refused(cudnnStatus_t status, const char* what) {
  if (status != CUDNN_STATUS_SUCCESS) throw Refused{fmt::format("{}: {}", what, last_words(status))};
}

class Descriptor {
 public:
  explicit Descriptor(cudnnBackendDescriptorType_t type) { or_refused(api().cudnnBackendCreateDescriptor(type, &raw_), "create"); }
  ~Descriptor() {
    if (raw_ != nullptr) api().cudnnBackendDestroyDescriptor(raw_);
  }
  Descriptor(Descriptor&& other) noexcept : raw_(std::exchange(other.raw_, nullptr)) {}
  Descriptor& operator=(Descriptor&&) = delete;
  cudnnBackendDescriptor_t raw() const { return raw_; }

  void set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, int64_t count, const void* values) {
    or_refused(api().cudnnBackendSetAttribute(raw_, name, type, count, values), "set attribute");
  }
  void set(cudnnBackendAttributeName_t name, int64_t value) { set(name, CUDNN_TYPE_INT64, 1, &value); }
  void set(cudnnBackendAttributeName_t name, cudnnDataType_t value) { set(name, CUDNN_TYPE_DATA_TYPE, 1, &value); }
  void set(cudnnBackendAttributeName_t name, float value) { set(name, CUDNN_TYPE_FLOAT, 1, &value); }
  void set(cudnnBackendAttributeName_t name, bool value) { set(name, CUDNN_TYPE_BOOLEAN, 1, &value); }
  void set(cudnnBackendAttributeName_t name, cudnnPointwiseMode_t value) { set(name, CUDNN_TYPE_POINTWISE_MODE, 1, &value); }
  void set(cudnnBackendAttributeName_t name, const Descriptor& value) { set(name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &value.raw_); }
  template <size_t kCount>
  void set(cudnnBackendAttributeName_t name, const std::array<int64_t, kCount>& values) {
    set(name, CUDNN_TYPE_INT64, int64_t(kCount), values.data());
  }
  void finalize(const char* what) { or_refused(api().cudnnBackendFinalize(raw_), what); }

  int64_t number(cudnnBackendAttributeName_t name) const {
    int64_t value = 0, count = 0;
    or_refused(api().cudnnBackendGetAttribute(raw_, name, CUDNN_TYPE_INT64, 1, &count, &value), "read attribute");
    return value;
  }

 private:
  cudnnBackendDescriptor_t raw_ = nullptr;
};

cudnnDataType_t cudnn_type(DType t) {
  switch (t) {
    case DType::kF32: return CUDNN_DATA_FLOAT;
    case DType::kF16: return CUDNN_DATA_HALF;
    case DType::kBF16: return CUDNN_DATA_BFLOAT16;
    default: throw Refused{fmt::format("{} is not a type of its convolutions here", name_of(t))};
  }
}

// Names of the buffers in a graph.
enum Uid : int64_t { kX = 1, kW, kY, kBias, kResidual, kVirtual };

// Dimensions (N, C, H, W), with strides that lay them out channels last; strides are in elements.
using Dims = std::array<int64_t, 4>;
Dims image_strides(int64_t h, int64_t w, int64_t pitch) { return {h * w * pitch, 1, w * pitch, pitch}; }

// An operation graph with all descriptors that it refers to.
class Graph {
 public:
  explicit Graph(const ConvKey& k) : key_(k), y_dims_{k.n, k.o, k.oh, k.ow} {
    const bool epilogue = k.bias || k.residual || Activation(k.activation) != Activation::kNone;
    const Descriptor& x = tensor(kX, k.dtype(), {k.n, k.c, k.h, k.w}, image_strides(k.h, k.w, k.x_pitch), k.x_alignment);
    const Descriptor& w = tensor(kW, DType(k.filter_type), {k.o, k.c, k.kh, k.kw}, image_strides(k.kh, k.kw, k.c), k.w_alignment);
    const Descriptor& y = tensor(kY, k.dtype(), y_dims_, image_strides(k.oh, k.ow, k.y_pitch), k.y_alignment);
    uids_ = {kX, kW, kY};

    Descriptor& conv = make(CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
    const cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
    conv.set(CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_DATA_FLOAT);
    conv.set(CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode);
    conv.set(CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, int64_t{2});
    conv.set(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, std::array<int64_t, 2>{k.pad, k.pad});
    conv.set(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, std::array<int64_t, 2>{k.pad, k.pad});
    conv.set(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, std::array<int64_t, 2>{k.stride, k.stride});
    conv.set(CUDNN_ATTR_CONVOLUTION_DILATIONS, std::array<int64_t, 2>{1, 1});
    conv.finalize("convolution");

    switch (k.which()) {
      case ConvPass::kForward: {
        const Descriptor& sums = epilogue ? between_images() : y;
        convolve(CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
                 {{CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, &conv},
                  {CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, &x},
                  {CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, &w},
                  {CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, &sums}},
                 CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA);
        if (epilogue) finish(sums, y);
        break;
      }
      case ConvPass::kBackwardData:
        convolve(CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
                 {{CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC, &conv},
                  {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY, &y},
                  {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W, &w},
                  {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX, &x}},
                 CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA);
        break;
      case ConvPass::kBackwardWeight: {
        // No engine stores f32 for factors of 16 bits by itself; as a virtual tensor that an operation copies out it can be had.
        const bool wide = k.filter_type != k.type;
        if (wide && k.accumulate) throw Refused{"a sum of f32 gradients with products of 16 bits"};
        const Descriptor& sums = wide ? between({k.o, k.c, k.kh, k.kw}, image_strides(k.kh, k.kw, k.c)) : w;
        convolve(CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
                 {{CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC, &conv},
                  {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X, &x},
                  {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY, &y},
                  {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW, &sums}},
                 CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA);
        if (wide) pointwise(CUDNN_POINTWISE_IDENTITY, sums, nullptr, w);
        break;
      }
    }
    graph_.set(CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, int64_t(operations_.size()), operations_.data());
    graph_.finalize("operation graph");
  }

  const Descriptor& descriptor() const { return graph_; }
  const std::vector<int64_t>& uids() const { return uids_; }

 private:
  Descriptor& make(cudnnBackendDescriptorType_t type) { return kept_.emplace_back(type); }

  const Descriptor& tensor(int64_t uid, DType type, const Dims& dims, const Dims& strides, int64_t alignment,
                           bool is_virtual = false) {
    Descriptor& t = make(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    t.set(CUDNN_ATTR_TENSOR_UNIQUE_ID, uid);
    t.set(CUDNN_ATTR_TENSOR_DATA_TYPE, cudnn_type(type));
    t.set(CUDNN_ATTR_TENSOR_DIMENSIONS, dims);
    t.set(CUDNN_ATTR_TENSOR_STRIDES, strides);
    t.set(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, alignment);
    t.set(CUDNN_ATTR_TENSOR_IS_VIRTUAL, is_virtual);
    t.finalize("tensor");
    return t;
  }

  // What lies between two operations and never in memory.
  const Descriptor& between(const Dims& dims, const Dims& strides) {
    return tensor(kVirtual + int64_t(operations_.size()), DType::kF32, dims, strides, 16, true);
  }
  const Descriptor& between_images() { return between(y_dims_, image_strides(key_.oh, key_.ow, key_.o)); }

  void convolve(cudnnBackendDescriptorType_t type,
                std::initializer_list<std::pair<cudnnBackendAttributeName_t, const Descriptor*>> operands,
                cudnnBackendAttributeName_t alpha, cudnnBackendAttributeName_t beta) {
    Descriptor& op = make(type);
    for (const auto& [name, operand] : operands) op.set(name, *operand);
    op.set(alpha, 1.0f);  // result = alpha * convolution + beta * result
    op.set(beta, key_.accumulate ? 1.0f : 0.0f);
    op.finalize("operation");
    operations_.push_back(op.raw());
  }

  void pointwise(cudnnPointwiseMode_t mode, const Descriptor& in, const Descriptor* with, const Descriptor& out) {
    Descriptor& what = make(CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
    what.set(CUDNN_ATTR_POINTWISE_MODE, mode);
    what.set(CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_DATA_FLOAT);
    what.finalize("pointwise");
    Descriptor& op = make(CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
    op.set(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, what);
    op.set(CUDNN_ATTR_OPERATION_POINTWISE_XDESC, in);
    if (with != nullptr) op.set(CUDNN_ATTR_OPERATION_POINTWISE_BDESC, *with);
    op.set(CUDNN_ATTR_OPERATION_POINTWISE_YDESC, out);
    op.finalize("pointwise operation");
    operations_.push_back(op.raw());
  }

  // The epilogue: y = act(sums + bias) + residual.
  void finish(const Descriptor& sums, const Descriptor& y) {
    std::vector<std::pair<cudnnPointwiseMode_t, const Descriptor*>> steps;  // null: nothing beside what comes in
    if (key_.bias) {
      steps.emplace_back(CUDNN_POINTWISE_ADD, &tensor(kBias, DType::kF32, {1, key_.o, 1, 1}, image_strides(1, 1, key_.o), 4));
      uids_.push_back(kBias);
    }
    if (Activation(key_.activation) == Activation::kSilu) steps.emplace_back(CUDNN_POINTWISE_SWISH_FWD, nullptr);
    if (key_.residual) {
      steps.emplace_back(
          CUDNN_POINTWISE_ADD,
          &tensor(kResidual, key_.dtype(), y_dims_, image_strides(key_.oh, key_.ow, key_.residual_pitch), key_.residual_alignment));
      uids_.push_back(kResidual);
    }
    const Descriptor* in = &sums;
    for (size_t i = 0; i < steps.size(); ++i) {
      const Descriptor& out = i + 1 == steps.size() ? y : between_images();
      pointwise(steps[i].first, *in, steps[i].second, out);
      in = &out;
    }
  }

  const ConvKey key_;
  const Dims y_dims_;
  std::deque<Descriptor> kept_;  // addresses stay
  std::vector<cudnnBackendDescriptor_t> operations_;
  std::vector<int64_t> uids_;  // of the buffers
  Descriptor graph_{CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR};
};

// A handle for each host thread: cuDNN's are not to be shared. Never destroyed, as the driver may be gone by then.
cudnnHandle_t handle() {
  thread_local cudnnHandle_t mine = nullptr;
  if (mine == nullptr) {
    const cudnnStatus_t status = api().cudnnCreate(&mine);
    if (status != CUDNN_STATUS_SUCCESS) throw Error(ErrorCode::kBug, "cuDNN: cudnnCreate: " + last_words(status));
  }
  return mine;
}

class CudnnPlan final : public ConvPlan {
 public:
  CudnnPlan(const ConvKey& key, std::shared_ptr<const Graph> graph, Descriptor config, const Descriptor& device, std::string name)
      : key_(key), graph_(std::move(graph)), config_(std::move(config)), name_(std::move(name)) {
    plan_.set(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, config_);
    plan_.set(CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, device);
    plan_.finalize("execution plan");
    workspace_ = size_t(plan_.number(CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE));
  }
  std::string name() const override { return name_; }
  size_t workspace_bytes() const override { return workspace_; }

  void run(const ConvBuffers& b, void* workspace, void* stream) const override {
    try {
      std::vector<const void*> pointers;
      for (const int64_t uid : graph_->uids()) {
        pointers.push_back(uid == kX ? b.x : uid == kW ? b.w : uid == kY ? b.y : uid == kBias ? b.bias : b.residual);
      }
      Descriptor pack(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
      pack.set(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, int64_t(pointers.size()), graph_->uids().data());
      pack.set(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, int64_t(pointers.size()), pointers.data());
      pack.set(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &workspace);
      pack.finalize("variant pack");
      or_refused(api().cudnnSetStream(handle(), static_cast<cudaStream_t>(stream)), "cudnnSetStream");
      or_refused(api().cudnnBackendExecute(handle(), plan_.raw(), pack.raw()), "execute");
    } catch (const Refused& r) {
      throw Error(ErrorCode::kBug, fmt::format("cuDNN: {}: {} ({})", text_of(key_), r.words, name_), {},
                  "--conv own does without cuDNN");
    }
  }

 private:
  const ConvKey key_;
  std::shared_ptr<const Graph> graph_;
  Descriptor config_;
  std::string name_;
  Descriptor plan_{CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR};
  size_t workspace_ = 0;
};

class CudnnPlanner final : public ConvPlanner {
 public:
  explicit CudnnPlanner(std::string device) : device_text_(std::move(device)) {}

  ConvPlans plans(const ConvKey& key, size_t most) override {
    ConvPlans out;
    try {
      const Descriptor& device = device_of(key.device);
      const auto graph = std::make_shared<const Graph>(key);
      out.graph_accepted = true;
      for (const cudnnBackendHeurMode_t mode : {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK}) {
        if (out.list.empty()) collect(key, graph, device, mode, most, out);
      }
    } catch (const Refused& r) {
      out.refusal = r.words;
    }
    if (out.list.empty() && out.refusal.empty()) {
      out.refusal = fmt::format("of {} engines none can do it here and keep the rules", out.engines_named);
    }
    return out;
  }

 private:
  void collect(const ConvKey& key, const std::shared_ptr<const Graph>& graph, const Descriptor& device, cudnnBackendHeurMode_t mode,
               size_t most, ConvPlans& out) const {
    Descriptor heuristics(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
    heuristics.set(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph->descriptor());
    heuristics.set(CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
    heuristics.set(CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, device);
    heuristics.finalize("heuristics");
    // Asked for their number it names all, asked for themselves those that can run.
    int64_t count = 0;
    or_refused(api().cudnnBackendGetAttribute(heuristics.raw(), CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, 0, &count,
                                        nullptr),
               "count engines");
    out.engines_named += count;
    std::vector<Descriptor> configs;
    std::vector<cudnnBackendDescriptor_t> raw;
    for (int64_t i = 0; i < count; ++i) raw.push_back(configs.emplace_back(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR).raw());
    or_refused(api().cudnnBackendGetAttribute(heuristics.raw(), CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, count,
                                        &count, raw.data()),
               "list engines");
    for (int64_t i = 0; i < count && out.list.size() < most; ++i) {
      try {
        std::string name;
        if (!keeps_rules(configs[size_t(i)], key, name)) continue;
        out.list.push_back(std::make_unique<CudnnPlan>(key, graph, std::move(configs[size_t(i)]), device, std::move(name)));
      } catch (const Refused& r) {
        out.refusal = r.words;  // of this engine; there may be others
      }
    }
  }

  // Whether the engine of a configuration sums as the contract of ConvOps says (in f32, without transforms that lose digits), and
  // as the key asks for.
  static bool keeps_rules(const Descriptor& config, const ConvKey& key, std::string& name) {
    Descriptor engine(CUDNN_BACKEND_ENGINE_DESCRIPTOR);
    cudnnBackendDescriptor_t raw = engine.raw();
    int64_t count = 0;
    or_refused(api().cudnnBackendGetAttribute(config.raw(), CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &count, &raw),
               "read engine");
    name = fmt::format("engine {}", engine.number(CUDNN_ATTR_ENGINE_GLOBAL_INDEX));
    std::array<cudnnBackendNumericalNote_t, CUDNN_NUMERICAL_NOTE_TYPE_COUNT> notes{};
    or_refused(api().cudnnBackendGetAttribute(engine.raw(), CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE,
                                        int64_t(notes.size()), &count, notes.data()),
               "read notes");
    return std::none_of(notes.begin(), notes.begin() + count, [&](cudnnBackendNumericalNote_t note) {
      switch (note) {
        case CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC: return key.deterministic != 0;
        case CUDNN_NUMERICAL_NOTE_TENSOR_CORE:
        case CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS: return key.dtype() == DType::kF32 && !key.tf32;
        case CUDNN_NUMERICAL_NOTE_STRICT_NAN_PROP: return false;
        default: return true;  // reduced-precision sums, FFT, Winograd
      }
    });
  }

  const Descriptor& device_of(int index) {
    const auto known = devices_.find(index);
    if (known != devices_.end()) return known->second;
    Descriptor d(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR);
    if (device_text_.empty()) {
      const auto id = int32_t(index);
      d.set(CUDNN_ATTR_DEVICEPROP_DEVICE_ID, CUDNN_TYPE_INT32, 1, &id);
    } else {
      d.set(CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, int64_t(device_text_.size()), device_text_.data());
    }
    d.finalize("device properties");
    return devices_.emplace(index, std::move(d)).first->second;
  }

  const std::string device_text_;
  std::map<int, Descriptor> devices_;
};

}  // namespace

std::unique_ptr<ConvPlanner> make_cudnn_planner(const std::string& device) {
  if (!api().library.complete()) return nullptr;
  return std::make_unique<CudnnPlanner>(device);
}

std::string describe_cudnn() {
  if (!api().library.complete()) return "cuDNN cannot be loaded: " + api().library.trouble();
  const size_t v = api().cudnnGetVersion();
  return fmt::format("cuDNN {}.{}.{}", v / 10000, v / 100 % 100, v % 100);
}

}  // namespace tessera::cuda
