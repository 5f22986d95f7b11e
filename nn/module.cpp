#include "nn/module.h"

#include <algorithm>

namespace tessera {

namespace {
std::string join(const std::string& prefix, const std::string& name) { return prefix.empty() ? name : prefix + "." + name; }
}  // namespace

void Module::parameter(std::string name, Variable& member) {
  member.set_name(name);
  entries_.push_back({std::move(name), &member, nullptr, nullptr});
}
void Module::buffer(std::string name, Tensor& member) { entries_.push_back({std::move(name), nullptr, &member, nullptr}); }
void Module::child(std::string name, Module& member) { entries_.push_back({std::move(name), nullptr, nullptr, &member}); }

void Module::for_each_parameter(const std::function<void(const std::string&, Variable&)>& visit, const std::string& prefix) {
  for (Entry& e : entries_) {
    if (e.parameter) visit(join(prefix, e.name), *e.parameter);
    if (e.child) e.child->for_each_parameter(visit, join(prefix, e.name));
  }
}

void Module::for_each_buffer(const std::function<void(const std::string&, Tensor&)>& visit, const std::string& prefix) {
  for (Entry& e : entries_) {
    if (e.buffer) visit(join(prefix, e.name), *e.buffer);
    if (e.child) e.child->for_each_buffer(visit, join(prefix, e.name));
  }
}

void Module::for_each_module(const std::function<void(const std::string&, Module&)>& visit, const std::string& prefix) {
  visit(prefix, *this);
  for (Entry& e : entries_) {
    if (e.child) e.child->for_each_module(visit, join(prefix, e.name));
  }
}

StateDict Module::state_dict(const std::string& prefix) {
  StateDict state;
  for (Entry& e : entries_) {
    const std::string name = join(prefix, e.name);
    if (e.parameter) state.add(name, e.parameter->data());
    if (e.buffer) state.add(name, *e.buffer);
    if (e.child) {
      for (const auto& [child_name, tensor] : e.child->state_dict(name)) state.add(child_name, tensor);
    }
  }
  return state;
}

LoadReport Module::load(const StateDict& state, const std::string& prefix) { return load_matching(state, state_dict(prefix)); }

void Module::to(Device device) {
  for_each_parameter([&](const std::string&, Variable& p) {
    p.set_data(p.data().to(device));
    if (p.grad().defined()) p.set_grad(p.grad().to(device));
  });
  for_each_buffer([&](const std::string&, Tensor& b) {
    if (is_floating(b.dtype())) b = b.to(device);
  });
}

Device Module::device() const {
  for (const Entry& e : entries_) {
    if (e.parameter) return e.parameter->data().device();
    if (e.child && e.child->has_parameters()) return e.child->device();
  }
  return Device::cpu();
}

bool Module::has_parameters() const {
  return std::any_of(entries_.begin(), entries_.end(),
                     [](const Entry& e) { return e.parameter || (e.child && e.child->has_parameters()); });
}

void Module::train(bool on) {
  training_ = on;
  for (Entry& e : entries_) {
    if (e.child) e.child->train(on);
  }
}

int64_t Module::parameter_count() {
  int64_t n = 0;
  for_each_parameter([&](const std::string&, Variable& p) { n += p.data().numel(); });
  return n;
}

}  // namespace tessera
