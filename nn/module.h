// Module: a named tree of parameters and buffers. Names are given once, in the constructor, and are the names of the original's
// state dict, so that reading its weights is a lookup.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "autograd/variable.h"
#include "nn/io/state_dict.h"

namespace tessera {

class Module {
 public:
  Module() = default;
  virtual ~Module() = default;
  Module(const Module&) = delete;  // children are members, known by address
  Module& operator=(const Module&) = delete;

  // In order of registration, depth first; names are joined by dots below `prefix`.
  void for_each_parameter(const std::function<void(const std::string& name, Variable& parameter)>& visit,
                          const std::string& prefix = {});
  void for_each_buffer(const std::function<void(const std::string& name, Tensor& buffer)>& visit, const std::string& prefix = {});
  void for_each_module(const std::function<void(const std::string& name, Module& module)>& visit, const std::string& prefix = {});

  // Parameters and buffers by name; tensors share memory with the module.
  StateDict state_dict(const std::string& prefix = {});
  // Copies entries whose name and shape match into the module and reports the rest.
  LoadReport load(const StateDict& state, const std::string& prefix = {});

  // Moves parameters, their gradients and floating-point buffers to the device. Integer buffers are counters that the host alone
  // reads, and stay there. Call it before an arena is made (nn/parameter_arena.h), which would not notice.
  void to(Device device);
  Device device() const;  // of the first parameter; the host's when there is none

  virtual void train(bool on = true);  // also all children
  bool training() const { return training_; }
  int64_t parameter_count();

  virtual std::string kind() const = 0;               // "Conv2d"
  virtual std::string summary() const { return {}; }  // "64, 128, k3 s2"

 protected:
  void parameter(std::string name, Variable& member);
  void buffer(std::string name, Tensor& member);
  void child(std::string name, Module& member);

 private:
  struct Entry {
    std::string name;
    Variable* parameter = nullptr;
    Tensor* buffer = nullptr;
    Module* child = nullptr;
  };
  bool has_parameters() const;

  std::vector<Entry> entries_;
  bool training_ = true;
};

// A module with one input and one output.
class UnaryModule : public Module {
 public:
  // `into`, when defined, is the channel slice that receives the result.
  virtual Variable forward(const Variable& x, const Tensor& into = {}) = 0;
};

}  // namespace tessera
