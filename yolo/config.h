// Every argument of the program in one table: name, type, default, allowed range, meaning and the verbs that take it. Values are
// checked when they are set and remember where they came from: default < --cfg file < environment TESSERA_ARG_<NAME> < command line.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tensor/device.h"
#include "tensor/dtype.h"

namespace tessera {

enum Verb : unsigned {
  kTrain = 1, kVal = 2, kPredict = 4, kInspect = 8, kBench = 16, kSelftest = 32, kInfo = 64, kExport = 128, kConvert = 256, kLint = 512,
  kDownload = 1024, kCompletion = 2048, kMan = 4096,
};
constexpr unsigned kAllVerbs = 2 * kMan - 1;

// Stand in the choices of a text for any path.
constexpr std::string_view kAnyFile = "FILE", kAnyFolder = "FOLDER";

enum class OptionType { kBool, kInt, kFloat, kText, kChoice };

struct OptionSpec {
  std::string_view name;      // as the original spells it: lower case, underscores
  OptionType type;
  std::string_view fallback;  // default value; empty: unset
  double low, high;           // allowed range of numbers, both ends included
  std::string_view choices;   // of kChoice, separated by '|'; of kText what a shell may offer, a path as kAnyFile or kAnyFolder
  unsigned verbs;             // bits of Verb
  std::string_view group;     // heading in --help
  std::string_view help;
};

std::span<const OptionSpec> option_specs();
// The one that these verbs take; else that of other verbs; null: nobody's.
const OptionSpec* find_option(std::string_view name, unsigned verbs = ~0u);

// "conv-f" and "CONV_F" are "conv_f".
std::string normalize_option_name(std::string_view name);
// "conv_f" as it is shown: "conv-f".
std::string shown_name(std::string_view name);
// What an option means, with its choices and its default, as --help shows it.
std::string option_note(const OptionSpec& option);
// Of true, 1, yes, on and false, 0, no, off, in any case.
std::optional<bool> boolean_of(std::string_view text);
// The known name with the smallest edit distance, when it is close enough to be meant; of a verb's options, or of any list.
std::optional<std::string> nearest_option(std::string_view name, unsigned verb);
std::optional<std::string> nearest_name(std::string_view name, std::span<const std::string_view> known);

class Config {
 public:
  explicit Config(Verb verb);  // defaults

  // Error(kUsage) for an unknown name (with the nearest one), a value of another type or out of range. An empty value
  // stands for the default. An argument that only the original has (yolo/original_arguments.h): what to do instead; it is passed
  // over where it says what is so anyway.
  void set(std::string_view name, std::string_view value, std::string_view origin);
  // YAML map; Error(kData) with file and line. A file of the original, told by a name that only the original has, lists every
  // argument: values that are its defaults count as not given, so that automatic choices stay; what has no meaning here is left
  // out and noted, what asks for something that is not there is Error(kUsage).
  void read_file(const std::filesystem::path& path);
  void read_environment();                            // TESSERA_ARG_<NAME>; Error(kUsage) for a name that no verb knows
  // Arguments after the verb: --key value, --key=value, key=value, and --key alone for a true boolean.
  void read_arguments(const std::vector<std::string>& arguments);

  Verb verb() const { return verb_; }
  // How the user called the program with this verb, for messages that tell a command: "./train_seg", "build/bin/tessera train".
  const std::string& command() const { return command_; }
  void set_command(std::string command) { command_ = std::move(command); }
  bool is_set(std::string_view name) const;         // has a value at all
  bool is_explicit(std::string_view name) const;    // was given by file, environment or command line
  std::string_view origin(std::string_view name) const;
  bool flag(std::string_view name) const;
  int64_t integer(std::string_view name) const;
  double number(std::string_view name) const;
  const std::string& text(std::string_view name) const;

  std::vector<std::string> notes() const;  // what was left out of a file, for the log

  // Names of this verb in table order with their current values.
  std::vector<std::string> names() const;
  std::string print() const;    // one line for each argument: name, value, origin
  // Re-runs the run through --cfg. Defaults are comments: as values they would count as given and switch off automatic choices.
  std::string to_yaml() const;

 private:
  struct Value {
    std::string text;
    std::string origin;
  };
  const Value& value(std::string_view name) const;
  bool takes(std::string_view name) const;
  // Whether an item of a file is not to be set. `defaults`: what equals a default of the original is not.
  bool passes_over(const std::string& name, const std::string& text, bool defaults);

  Verb verb_;
  std::string command_ = "train_seg";
  std::map<std::string, Value, std::less<>> values_;
  std::string file_;                   // that was read
  std::vector<std::string> left_out_;  // of it
  bool amp_ = false;                   // asked for by it
};

// What `device` names: "cpu", "cuda", the number of one CUDA device, or with several ranks on a machine one number for each: "0,1".
// "cuda" is then the device with the rank's number. Error(kUsage): anything else.
Device device_of(const Config& config, int local_rank = 0, int local_size = 1);

DType compute_type_of(const Config& config);  // of --precision; Error(kUsage): fp16 on the CPU

bool recompute_of(const Config& config, Device device);  // of --recompute

// Of --classes: "0,2,5", also in brackets, as the original's lists are written; empty: all. Error(kUsage): anything else.
std::vector<int32_t> classes_of(const Config& config);

// Of --freeze: "10" is layers 0 to 9; "0,2,22", "[9]" single layers; empty: none. Error(kUsage): anything else, or a layer that is not there.
std::vector<int32_t> frozen_layers_of(const Config& config);

// --help of a verb: usage, examples, arguments by group.
std::string verb_help(Verb verb, std::string_view verb_name, std::string_view purpose, std::string_view examples);

}  // namespace tessera
