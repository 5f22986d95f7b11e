// What a resumed training takes from its checkpoint: the arguments, but for what was given anew and may be, and the classes.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "nn/io/checkpoint.h"
#include "yolo/config.h"
#include "yolo/model_yaml.h"

namespace tessera {

// What --resume names. A lone one beside a file of weights as --model means that file, as in the original's "resume model=last.pt".
std::string run_to_resume(const Config& given);

// Error(kData) as load_checkpoint, naming the weights beside the file that a new run can start from; weights without training state.
Checkpoint load_to_resume(const std::filesystem::path& file);

// The network of a resumed run, under the name that it had when the run began.
ModelSpec spec_of_run(const Checkpoint& checkpoint, const Config& config);

// Error(kData): the data has another number of classes than the checkpoint, or the same names in other places, so that labels mean
// something else. Otherwise the names that differ, as a line for the log; empty: none.
std::string compare_classes(const std::vector<std::string>& data, const CheckpointMeta& meta, const std::filesystem::path& file);

// Why the file of the best weights so far cannot be that any more (it is gone, or damaged), as a sentence; empty: it can.
std::string why_lost(const std::filesystem::path& best_weights);

// Every argument as text, and under a key of its own which of them the user had given.
std::map<std::string, std::string> stored_arguments(const Config& config);

// `file`: the checkpoint that `stored` is from. Error(kUsage): an argument that cannot change was given another value, or the run
// was on another device and --device is not given. Error(kData): stored arguments are damaged.
Config resumed_config(const Config& given, const std::map<std::string, std::string>& stored, const std::filesystem::path& file);

}  // namespace tessera
