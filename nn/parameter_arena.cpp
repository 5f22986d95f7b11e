#include "nn/parameter_arena.h"

#include <cmath>

#include "nn/layers/batch_norm2d.h"
#include "tensor/ops/optim.h"

namespace tessera {

namespace {
// Slices start on cache lines, so kernels over single parameters stay aligned.
constexpr int64_t kAlignElements = 16;

struct Placed {
  ParameterArena::Entry entry;
  Variable* parameter = nullptr;
  Tensor* buffer = nullptr;
};
}  // namespace

ParameterArena::ParameterArena(Module& module) {
  std::array<std::vector<Placed>, kAllGroups> placed;
  std::array<int64_t, kAllGroups> size{};
  auto place = [&](ParamGroup group, const std::string& name, const Shape& shape, Variable* parameter, Tensor* buffer) {
    const size_t g = size_t(group);
    const int64_t count = numel(shape);
    placed[g].push_back({{name, size[g], count, shape}, parameter, buffer});
    size[g] += (count + kAlignElements - 1) / kAlignElements * kAlignElements;
  };
  module.for_each_module([&](const std::string& path, Module& m) {
    // Own parameters only: children are visited by themselves, in the same depth-first order.
    const bool norm = dynamic_cast<BatchNorm2d*>(&m) != nullptr;
    m.for_each_parameter([&](const std::string& name, Variable& p) {
      if (name.find('.') != std::string::npos || !p.requires_grad()) return;
      const ParamGroup group = name.find("bias") != std::string::npos ? ParamGroup::kBias : norm ? ParamGroup::kNorm : ParamGroup::kWeight;
      place(group, path.empty() ? name : path + "." + name, p.shape(), &p, nullptr);
    });
    m.for_each_buffer([&](const std::string& name, Tensor& b) {
      if (name.find('.') != std::string::npos || !is_floating(b.dtype())) return;
      place(ParamGroup::kBuffers, path.empty() ? name : path + "." + name, b.shape(), nullptr, &b);
    });
  });
  const Device device = module.device();
  for (size_t g = 0; g < size_t(kAllGroups); ++g) ends_[g] = (g == 0 ? 0 : ends_[g - 1]) + size[g];
  all_values_ = Tensor::zeros({ends_[kAllGroups - 1]}, DType::kF32, device);
  all_grads_ = Tensor::zeros({ends_[kTrainedGroups - 1]}, DType::kF32, device);
  for (size_t g = 0; g < size_t(kAllGroups); ++g) {
    values_[g] = part(all_values_, ParamGroup(g));
    if (g < size_t(kTrainedGroups)) grads_[g] = part(all_grads_, ParamGroup(g));
    for (Placed& p : placed[g]) {
      const Tensor slot = values_[g].narrow(0, p.entry.offset, p.entry.count).view(p.entry.shape);
      if (p.parameter) {
        slot.copy_from(p.parameter->data());
        p.parameter->set_data(slot);
        p.parameter->set_grad(grads_[g].narrow(0, p.entry.offset, p.entry.count).view(p.entry.shape));
        if (ParamGroup(g) == ParamGroup::kWeight) weights_.push_back(*p.parameter);
      } else {
        slot.copy_from(*p.buffer);
        *p.buffer = slot;
      }
      entries_[g].push_back(std::move(p.entry));
    }
  }
}

Tensor ParameterArena::part(const Tensor& all, ParamGroup group) const {
  const size_t g = size_t(group);
  const int64_t begin = g == 0 ? 0 : ends_[g - 1];
  return all.narrow(0, begin, ends_[g] - begin);
}

const ParameterArena::Entry* ParameterArena::entry_at(int64_t place) const {
  for (size_t g = 0; g < size_t(kTrainedGroups); ++g) {
    const int64_t at = place - (g == 0 ? 0 : ends_[g - 1]);
    for (const Entry& e : entries_[g]) {
      if (at >= e.offset && at < e.offset + e.count) return &e;
    }
  }
  return nullptr;
}

void ParameterArena::zero_grad() const {
  for (const Tensor& g : grads_) {
    if (g.defined()) g.fill(0.0);
  }
}

double ParameterArena::grad_norm() const {
  double sum = 0.0;
  for (const Tensor& g : grads_) {
    if (g.defined()) sum += ops::sum_of_squares(g);
  }
  return std::sqrt(sum);
}

}  // namespace tessera
