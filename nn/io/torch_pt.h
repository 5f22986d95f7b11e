// Reads PyTorch's .pt files (zip archives of one pickle and raw tensor storages), in particular the checkpoints of the original
// trainer, without running anything of them (nn/io/pickle.h).
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "nn/io/pickle.h"
#include "nn/io/state_dict.h"

namespace tessera {

struct TorchFile {
  // Names and memory order of PyTorch ("model.0.conv.weight"; filters (O, I, kH, kW), transposed ones (I, O, kH, kW)).
  StateDict tensors;
  std::string used;         // where they came from: "ema", "model", "state_dict", or "" when the file is the model itself
  std::string model_class;  // "ultralytics.nn.tasks.SegmentationModel"; empty for a bare state dict
  std::string head_class;   // class of the last layer, "ultralytics.nn.modules.head.Segment"; tells the task
  std::map<int64_t, std::string> names;  // class id -> name
  std::optional<int64_t> nc;
  std::vector<double> stride;
  std::string scale;                              // "n", "s", ...; empty when not stated
  std::string yaml;                               // the model's description as JSON text; empty when there is none
  std::map<std::string, std::string> train_args;  // values as JSON text, strings without quotes
  std::optional<int64_t> epoch;                   // 0-based last finished epoch; -1 in a finished (stripped) file
  std::optional<int64_t> updates;                 // EMA counter
  std::optional<double> best_fitness;
  std::string version, date;
};

struct TorchOptions {
  bool to_f32 = false;  // convert fp16 and bf16 entries to fp32
};

// Loading rule (spec 1.8): the entry `ema` when present and not None, else `model`; each may be a module (its parameters and
// persistent buffers in the order of PyTorch's state_dict()) or a dict of tensors. Also accepted: {"state_dict": ...}, a bare
// state dict, a module saved by itself.
// Error(kData): no zip archive (the form before PyTorch 1.6, other files), TorchScript, damaged, holding code, without weights.
TorchFile read_torch_pt(const std::filesystem::path& path, const TorchOptions& options = {});

// The two halves of read_torch_pt: what lies in the archive, and what it means.
struct TorchArchive {
  std::string file;  // for messages
  std::string pickle;
  std::map<std::string, StorageBytes> storages;
};
TorchArchive read_torch_archive(const std::filesystem::path& path);
TorchFile decode_torch(const TorchArchive& archive, const TorchOptions& options = {});

}  // namespace tessera
