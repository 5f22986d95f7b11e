// The arguments of the original (8.3.159, spec 8.11): what its args.yaml and default.yaml list and its tutorials write. Those that
// this program has too (yolo/options.h) are taken as they are; for the others the table says what they ask for and what to do here.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace tessera {

struct OriginalArgument {
  std::string_view name;
  std::string_view fallback;  // values that a file may hold without a word: its default there, one or several with '|'; "*": any
  std::string_view holds;     // values that say what this program does anyway: taken on the command line too
  unsigned verbs;             // bits of Verb where another value asks for something that is not there; elsewhere it has no meaning
  std::string_view instead;   // what to do here; empty: some verb takes it
  std::string_view now;       // its later name, of an argument that was renamed
};

std::span<const OriginalArgument> original_arguments();
const OriginalArgument* find_original(std::string_view name);  // null: the original does not have it either

// One of `values`, which are separated by '|': as a boolean, as a number, or letter for letter but for case.
bool is_one_of_values(std::string_view value, std::string_view values);

// The later name of an argument that was renamed, with its value: hide_labels=True is show_labels=False.
struct RenamedArgument {
  std::string name, value;
};
RenamedArgument renamed(const OriginalArgument& argument, std::string_view value);

}  // namespace tessera
