// The verbs of the program in one table. Its help, shell completion and the manual page are made of it and of the table of
// arguments (yolo/options.h).
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "yolo/config.h"

namespace tessera {

struct VerbEntry {
  std::string_view name;
  Verb verb;
  int (*run)(const Config&);
  std::string_view purpose;
  std::string_view examples;
  std::string_view first_word{};  // name of the argument that the first word may give without saying its name
};
std::span<const VerbEntry> verb_entries();
// Names of the verbs that take an option.
std::vector<std::string_view> verbs_of(const OptionSpec& option);

// Names of the program with a verb implied: train_seg is tessera train.
std::span<const std::string_view> further_names();

}  // namespace tessera
