// A folder for small trainings of three batches an epoch, and whether two of them are the same to the last bit.
#pragma once

#include <doctest/doctest.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "nn/io/checkpoint.h"
#include "tests/support/run_figures.h"
#include "tests/support/training_folder.h"

namespace tessera::testing {

struct Workshop : TrainingFolder {
  explicit Workshop(int val = 4)
      : TrainingFolder({.train = 10, .val = val, .size = 64}, {"batch=4", "epochs=3", "nbs=8", "close_mosaic=1"}) {}
  Config config(const std::string& name, std::vector<std::string> more = {}) const {
    more.insert(more.begin(), "name=" + name);
    return TrainingFolder::config(more);
  }
};

inline bool same_tensors(const StateDict& a, const StateDict& b) {
  if (a.size() != b.size()) return false;
  for (const auto& [name, tensor] : a) {
    const Tensor* other = b.find(name);
    if (other == nullptr || other->shape() != tensor.shape() || other->dtype() != tensor.dtype()) return false;
    if (std::memcmp(tensor.contiguous().raw(), other->contiguous().raw(), size_t(tensor.numel()) * size_of(tensor.dtype())) != 0) {
      MESSAGE("differs: " << name);
      return false;
    }
  }
  return true;
}

inline bool same_state(const std::filesystem::path& a, const std::filesystem::path& b) {
  const Checkpoint x = load_checkpoint(a), y = load_checkpoint(b);
  bool same = same_tensors(x.model, y.model) && x.sections.size() == y.sections.size();
  for (const auto& [name, section] : x.sections) same = same && same_tensors(section, y.sections.at(name));
  return same;
}

// Epoch and batch of every step line of log.jsonl, in order.
inline std::vector<std::string> steps_logged(const std::filesystem::path& folder) {
  std::ifstream in(folder / "log.jsonl");
  std::vector<std::string> steps;
  for (std::string line; std::getline(in, line);) {
    if (line.find("\"step\"") != std::string::npos) steps.push_back(line.substr(0, line.find("\"loss\"")));
  }
  return steps;
}

}  // namespace tessera::testing
