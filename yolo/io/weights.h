// One door for everything that --model may name: a scale, a model yaml, our .safetensors, a .pt of the original.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "nn/io/checkpoint.h"
#include "yolo/model.h"

namespace tessera {

struct ModelOptions {
  int64_t nc = 0;     // classes of the model to build; 0: as the file says
  std::string scale;  // for yamls without a letter in their name
  uint64_t seed = 0;  // of the weights that no file gives
  std::string from{};  // weights for a scale or a yaml: entries of this file whose names and shapes fit; or the same file
};

struct LoadedModel {
  std::unique_ptr<YoloSeg> model;
  std::vector<std::string> names;  // of the classes; "0", "1", ... when the file has none or nc was changed
  bool pretrained = false;         // weights came from a file
  CheckpointMeta meta;             // of a .safetensors of this program, else empty
  std::map<std::string, std::string> arguments;  // of its training, as text; empty: the file does not tell
  LoadReport report;               // what was transferred; complete unless nc was changed or the weights are of another model
  std::vector<std::string> warnings;
};

// Reads and builds. With options.nc other than the file's, entries whose shapes fit are transferred into a fresh model of that many
// classes (spec 1.8) and `report` tells which; else all must fit. The scale of a bare weight file is told by its shapes.
// Error(kUsage): no such model; weights where a file of weights was to be given, or twice. Error(kData) with the file: damaged,
// another task (a detector), weights that do not fit.
LoadedModel load_model(const std::string& name_or_path, const ModelOptions& options = {});

// Of yolov8n-seg.pt and its larger brothers: the names under which the original publishes its weights, which the verb download fetches.
bool is_original_weights(std::string_view name);

// The model part of a checkpoint: task, scale, class count and names; the yaml when it is not the built-in one.
void describe_model(const YoloSeg& model, const std::vector<std::string>& names, CheckpointMeta& meta);
// The description of the network that a checkpoint's weights belong to; `file` for messages.
ModelSpec spec_of_checkpoint(const Checkpoint& checkpoint, const std::string& file);

// Weights and description only, replaced atomically; any safetensors reader can use the file as a PyTorch model.
void save_model(const std::string& path, YoloSeg& model, const std::vector<std::string>& names);

std::vector<std::string> numbered_names(int64_t nc);

}  // namespace tessera
