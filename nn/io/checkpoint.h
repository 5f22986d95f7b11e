// The file that training leaves: one safetensors file that any reader of that format can use as a plain model, and that also
// holds everything needed to go on with training.
//
// Note [Names in a checkpoint]: entries without '/' are the model to use, under their plain names (the EMA weights while training).
// Everything else is called "<section>/<name>": "arena/values.1", the weights of group 1 that training goes on with,
// "optimizer/...", "ema/...", "update/...". No name of a PyTorch model holds a '/'. The rest of the state is one JSON object under
// the metadata key "tessera".
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "nn/io/safetensors.h"
#include "nn/io/state_dict.h"

namespace tessera {

constexpr int64_t kMostEpochs = int64_t(1) << 30;  // that a file may speak of

struct CheckpointMeta {
  int64_t format = 0;  // set by load: version of this layout, 0 for a plain safetensors file
  // the model
  std::string task;   // "segment"
  std::string scale;  // "n", "s", "m", "l", "x"
  std::string model_yaml;  // description of a network of the user's own; empty: the built-in one of this scale
  int64_t nc = 0;     // classes; 0: not stated
  std::vector<std::string> class_names;
  // progress
  int64_t epoch = -1;  // 0-based last finished epoch; -1: none
  int64_t step = 0;    // optimizer steps
  double best_fitness = 0;  // of what the trainer compares epochs by
  int64_t best_epoch = -1;
  // what else the trainer needs to go on; names of numbers begin with that of their part ("progress.batch")
  std::map<std::string, std::string> args;  // every training argument as text
  std::map<std::string, int64_t> counters;
  std::map<std::string, double> numbers;  // exact, also when infinite or NaN
};

struct Checkpoint {
  CheckpointMeta meta;
  StateDict model;
  std::map<std::string, StateDict> sections;

  // The section, Error(kData) naming `file` when a checkpoint (a plain model, say) lacks it.
  const StateDict& section(const std::string& name, const std::string& file) const;
};

// Replaces `path` atomically: a kill or a full disk at any moment leaves the old file whole (tensor/base/file.h).
void save_checkpoint(const std::filesystem::path& path, const Checkpoint& checkpoint);

// Error(kData): as read_safetensors; metadata of a newer version, of another form or contradicting itself; no weights.
Checkpoint load_checkpoint(const std::filesystem::path& path, FileMemory memory = FileMemory::kMapped);

}  // namespace tessera
