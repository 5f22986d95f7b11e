#include "yolo/io/onnx_program.h"

#include <algorithm>
#include <set>

namespace tessera {

namespace {

constexpr const char* kHint = "the file is damaged, or no YOLOv8-seg model as Tessera and the original export it";
constexpr int64_t kMostConstants = int64_t(1) << 26;  // numbers in a value that is computed beforehand
// Of numbers in any value for each of the input, and beyond: the widest map of the largest scale has 7 times as many, the scores of a
// thousand classes 9 times.
constexpr int64_t kMostForEach = 64, kMostBeside = int64_t(1) << 22;

}  // namespace

OnnxProgram::OnnxProgram(OnnxGraph graph, std::string file) : graph_(std::move(graph)), file_(std::move(file)) {
  try {
    prepare();
  } catch (const Error& e) {
    if (e.code() != ErrorCode::kData && e.code() != ErrorCode::kBug) throw;
    throw Error(ErrorCode::kData, e.message(), {file_}, e.hint().empty() ? kHint : e.hint());
  }
}

int OnnxProgram::slot_of(const std::string& name) const {
  const auto it = slots_.find(name);
  return it == slots_.end() ? -1 : it->second;
}

void OnnxProgram::prepare() {
  const auto refuse = [](const std::string& what) { throw Error(ErrorCode::kData, what); };
  const auto slot = [&](const std::string& name, const std::string& maker) {
    if (name.empty()) return -1;
    const auto [it, fresh] = slots_.emplace(name, int(constants_.size()));
    if (!fresh) refuse(fmt::format("{}: '{}' is made twice", maker, name));
    constants_.emplace_back();
    return it->second;
  };
  for (auto& [name, tensor] : graph_.constants) {
    const int at = slot(name, "a constant");
    if (at >= 0) constants_[size_t(at)] = onnx_number(tensor);
  }
  graph_.constants.clear();
  for (const OnnxValue& v : graph_.inputs) {
    if (slots_.contains(v.name)) continue;  // a constant that is listed among the inputs, as old files do
    if (input_ != nullptr) refuse(fmt::format("the inputs '{}' and '{}', where one is expected", input_->name, v.name));
    input_ = &v;
    input_slot_ = slot(v.name, "an input");
  }
  if (input_ == nullptr || input_slot_ < 0) refuse("the graph has no input");
  for (const OnnxNode& node : graph_.nodes) {
    check_onnx_node(node, file_);
    Step step;
    step.node = &node;
    bool constant = true;
    for (const std::string& name : node.inputs) {
      const int at = name.empty() ? -1 : slot_of(name);
      if (!name.empty() && at < 0) refuse(fmt::format("node '{}' ({}): nothing before it makes its input '{}'", node.name, node.op, name));
      step.in.push_back(at);
      constant = constant && (at < 0 || constants_[size_t(at)].defined());
    }
    for (const std::string& name : node.outputs) step.out.push_back(slot(name, fmt::format("node '{}' ({})", node.name, node.op)));
    if (step.out[0] < 0) refuse(fmt::format("node '{}' ({}): its result has no name", node.name, node.op));
    step.convolution = node.op == "Conv";
    if (step.convolution) {
      const auto constant_at = [&](size_t i) { return i < step.in.size() && step.in[i] >= 0 ? constants_[size_t(step.in[i])] : Tensor(); };
      if (step.in.empty() || step.in[0] < 0) onnx_fail(node, "it has no input");
      if (step.in.size() > 2 && step.in[2] >= 0 && !constant_at(2).defined()) onnx_fail(node, "its bias is no constant");
      step.conv = prepare_onnx_conv(node, constant_at(1), constant_at(2));
      step.in.resize(1);
    }
    if (constant) {
      run(step, constants_, kMostConstants);
    } else {
      steps_.push_back(std::move(step));
    }
  }
  for (const OnnxValue& v : graph_.outputs) {
    outputs_.push_back(slot_of(v.name));
    if (outputs_.back() < 0) refuse(fmt::format("nothing makes the output '{}'", v.name));
  }
  join_activations(steps_);
  // Who reads a value last lets go of it, and so what nobody reads; filters have gone into their steps.
  std::set<int> kept(outputs_.begin(), outputs_.end()), read = kept;
  for (auto step = steps_.rbegin(); step != steps_.rend(); ++step) {
    for (const std::vector<int>* list : {&step->out, &step->in}) {
      for (const int at : *list) {
        if (at >= 0) read.insert(at);
        if (at >= 0 && !constants_[size_t(at)].defined() && kept.insert(at).second) step->finished.push_back(at);
      }
    }
  }
  for (size_t i = 0; i < constants_.size(); ++i) {
    if (!read.contains(int(i))) constants_[i] = {};
  }
}

// y = conv(x), s = sigmoid(y), z = y * s with no other reader of y and s: z is made by the convolution.
void OnnxProgram::join_activations(std::vector<Step>& steps) const {
  std::map<int, std::vector<size_t>> readers;
  for (size_t i = 0; i < steps.size(); ++i) {
    for (const int at : steps[i].in) readers[at].push_back(i);
  }
  for (const int at : outputs_) readers[at].push_back(steps.size());
  std::set<size_t> gone;
  for (Step& step : steps) {
    const auto one_result = [](const Step& s) { return s.out.size() == 1; };  // more than that there are none: run() says so
    if (!step.convolution || !one_result(step)) continue;
    const std::vector<size_t>& of_y = readers[step.out[0]];
    if (of_y.size() != 2 || of_y[1] >= steps.size()) continue;
    const bool sigmoid_first = steps[of_y[0]].node->op == "Sigmoid";
    const size_t s = of_y[sigmoid_first ? 0 : 1], z = of_y[sigmoid_first ? 1 : 0];
    if (steps[s].node->op != "Sigmoid" || steps[z].node->op != "Mul" || readers[steps[s].out[0]] != std::vector<size_t>{z}) continue;
    if (!one_result(steps[s]) || !one_result(steps[z])) continue;
    step.conv.activation = Activation::kSilu;
    step.out = steps[z].out;
    gone.insert({s, z});
  }
  std::vector<Step> rest;
  for (size_t i = 0; i < steps.size(); ++i) {
    if (!gone.contains(i)) rest.push_back(std::move(steps[i]));
  }
  steps = std::move(rest);
}

void OnnxProgram::run(const Step& step, std::vector<Tensor>& slots, int64_t most) const {
  std::vector<Tensor> in;
  for (const int at : step.in) in.push_back(at < 0 ? Tensor() : slots[size_t(at)]);
  OnnxCall call{*step.node, graph_.opset, most, in, std::vector<Tensor>(step.out.size())};
  try {
    if (step.convolution) {
      call.out[0] = run_onnx_conv(step.conv, in[0], call);
    } else {
      run_onnx_node(call);
    }
  } catch (const Error& e) {
    if (e.code() != ErrorCode::kBug) throw;
    onnx_fail(*step.node, e.message());  // sizes that an operator of ours refused
  }
  for (size_t i = 0; i < step.out.size(); ++i) {
    if (step.out[i] < 0) continue;
    if (!call.out[i].defined()) onnx_fail(*step.node, fmt::format("it has no result number {}", i));
    slots[size_t(step.out[i])] = call.out[i];
  }
}

std::vector<Tensor> OnnxProgram::run(const Tensor& x) const {
  std::vector<Tensor> slots = constants_;
  slots[size_t(input_slot_)] = x;
  const int64_t most = x.numel() * kMostForEach + kMostBeside;
  std::vector<Tensor> out;
  try {
    for (const Step& step : steps_) {
      run(step, slots, most);
      for (const int at : step.finished) slots[size_t(at)] = {};
    }
  } catch (const Error& e) {
    if (e.code() != ErrorCode::kData) throw;
    throw Error(ErrorCode::kData, e.message(), {file_}, kHint);
  }
  for (const int at : outputs_) out.push_back(slots[size_t(at)]);
  return out;
}

}  // namespace tessera
