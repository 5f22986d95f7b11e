// StateDict: the tensors of a model by name, in order of insertion; and the report of what a partial load did.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "tensor/tensor.h"

namespace tessera {

class StateDict {
 public:
  struct Entry {
    std::string name;
    Tensor tensor;
  };

  // Appends; a name that is there already is a bug of the caller.
  void add(std::string name, Tensor tensor) {
    TESSERA_CHECK(index_.emplace(name, entries_.size()).second, "state dict holds '{}' already", name);
    entries_.push_back({std::move(name), std::move(tensor)});
  }
  // Replaces the tensor of a name, or appends.
  void set(std::string name, Tensor tensor) {
    const auto it = index_.find(name);
    if (it == index_.end()) return add(std::move(name), std::move(tensor));
    entries_[it->second].tensor = std::move(tensor);
  }

  const Tensor* find(const std::string& name) const {  // null: not there
    const auto it = index_.find(name);
    return it == index_.end() ? nullptr : &entries_[it->second].tensor;
  }
  const Tensor& at(const std::string& name) const {
    const Tensor* tensor = find(name);
    TESSERA_CHECK(tensor != nullptr, "state dict of {} entries has no '{}'", size(), name);
    return *tensor;
  }
  bool contains(const std::string& name) const { return find(name) != nullptr; }
  size_t size() const { return entries_.size(); }
  bool empty() const { return entries_.empty(); }
  auto begin() const { return entries_.begin(); }
  auto end() const { return entries_.end(); }

 private:
  std::vector<Entry> entries_;
  std::unordered_map<std::string, size_t> index_;
};

// The one number that an entry of a training state holds, and one that counts something. Error(kData): missing, more than one, no
// such number.
double saved_number(const StateDict& state, const std::string& name);
int64_t saved_count(const StateDict& state, const std::string& name);

// What a load found (spec 1.8). Names are in the order of the target, unexpected ones in the order of the source.
struct LoadReport {
  struct Mismatch {
    std::string name;
    Shape in_file, in_model;
  };
  std::vector<std::string> matched;
  std::vector<std::string> missing;     // in the model, not in the file
  std::vector<std::string> unexpected;  // in the file, not in the model
  std::vector<Mismatch> mismatched;     // in both, with different shapes

  bool complete() const { return missing.empty() && mismatched.empty(); }
  // "transferred 381/417 entries; 36 differ in shape (model.22.cv3.0.0.conv.weight: file [80, 64, 3, 3], model [64, 64, 3, 3];
  // ...)".
  std::string summary() const;
};

// Copies every entry of `source` whose name and shape `target` has into the tensors of `target` (their memory is overwritten,
// values are converted to their type) and leaves the rest as it was.
LoadReport load_matching(const StateDict& source, const StateDict& target);

// The same, but Error(kData) naming `file` when an entry of the target is missing or differs in shape; then nothing is copied.
LoadReport load_strict(const StateDict& source, const StateDict& target, const std::string& file);

}  // namespace tessera
