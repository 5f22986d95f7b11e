// The table of the program's arguments: name, type, default, allowed range, meaning and the verbs that take each; how their names
// and values are read, and how --help shows them.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace tessera {

enum Verb : unsigned {
  kTrain = 1,
  kVal = 2,
  kPredict = 4,
  kInspect = 8,
  kBench = 16,
  kSelftest = 32,
  kInfo = 64,
  kExport = 128,
  kConvert = 256,
  kLint = 512,
  kDownload = 1024,
  kCompletion = 2048,
  kMan = 4096,
};
constexpr unsigned kAllVerbs = 2 * kMan - 1;

// Among the choices of a text: any path of a file, or of a folder.
constexpr std::string_view kAnyFile = "FILE", kAnyFolder = "FOLDER";

enum class OptionType { kBool, kInt, kFloat, kText, kChoice };

struct OptionSpec {
  std::string_view name;  // as the original spells it: lower case, underscores
  OptionType type;
  std::string_view fallback;  // default value; empty: unset
  double low, high;           // allowed range of numbers, both ends included
  std::string_view choices;   // of kChoice, separated by '|'; of kText what a shell may offer, a path as kAnyFile or kAnyFolder
  unsigned verbs;             // bits of Verb
  std::string_view group;     // heading in --help
  std::string_view help;
};

std::span<const OptionSpec> option_specs();
// The option of this name that one of these verbs takes; else one that only other verbs take; null: no verb has it.
const OptionSpec* find_option(std::string_view name, unsigned verbs = ~0u);

// "conv-f" and "CONV_F" are "conv_f".
std::string normalize_option_name(std::string_view name);
// "conv_f" as it is shown: "conv-f".
std::string shown_name(std::string_view name);
// What the option means, with its choices and its default, as --help shows it.
std::string option_note(const OptionSpec& option);
// true, 1, yes, on are true; false, 0, no, off are false, in any case; anything else is no boolean.
std::optional<bool> boolean_of(std::string_view text);
std::optional<int64_t> whole_number(std::string_view text);
// The known name with the smallest edit distance, when it is close enough to be meant; of a verb's options, or of any list.
std::optional<std::string> nearest_option(std::string_view name, unsigned verb);
std::optional<std::string> nearest_name(std::string_view name, std::span<const std::string_view> known);

// The value as it is stored, "true" for "yes"; Error(kUsage) for one of another type or out of range. `text` is not empty.
std::string checked_value(const OptionSpec& option, std::string_view text);
// What the option takes, in words: "a whole number from 1 to 1024".
std::string range_text(const OptionSpec& option);

// --help of a verb: usage, examples, arguments by group.
std::string verb_help(Verb verb, std::string_view verb_name, std::string_view purpose, std::string_view examples);

}  // namespace tessera
