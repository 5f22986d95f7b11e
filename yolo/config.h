// The arguments of one call of the program: a value for each option of its verb (yolo/options.h), checked when it is set, with the
// place it came from: default < --cfg file < environment TESSERA_ARG_<NAME> < command line.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "yolo/options.h"

namespace tessera {

class Config {
 public:
  explicit Config(Verb verb);  // defaults

  // Error(kUsage) for an unknown name (with the nearest one), a value of another type or out of range. An empty value
  // stands for the default and counts as not given. An argument that only the original has (yolo/original_arguments.h) is ignored
  // where its value asks for what this program does anyway, else Error(kUsage) that says what to do instead.
  void set(std::string_view name, std::string_view value, std::string_view origin);
  // YAML map; Error(kData) with file and line. A file of the original, told by a name that only the original has, lists every
  // argument: values that are its defaults count as not given, so that automatic choices stay; what has no meaning here is left
  // out and noted, what asks for something that is not there is Error(kUsage).
  void read_file(const std::filesystem::path& path);
  void read_environment();  // TESSERA_ARG_<NAME>; Error(kUsage) for a name that no verb knows
  // Arguments after the verb: --key value, --key=value, key=value, and --key alone for a true boolean.
  void read_arguments(const std::vector<std::string>& arguments);

  Verb verb() const { return verb_; }
  // How the user called the program with this verb, for messages that tell a command: "./train_seg", "build/bin/tessera train".
  const std::string& command() const { return command_; }
  void set_command(std::string command) { command_ = std::move(command); }
  bool is_set(std::string_view name) const;       // has a value at all
  bool is_explicit(std::string_view name) const;  // was given by file, environment or command line
  std::string_view origin(std::string_view name) const;
  bool flag(std::string_view name) const;
  int64_t integer(std::string_view name) const;
  double number(std::string_view name) const;
  const std::string& text(std::string_view name) const;

  std::vector<std::string> notes() const;  // what was left out of a file, for the log

  std::vector<std::string> names() const;  // of the verb's arguments, in table order
  std::string print() const;               // one line for each argument: name, value, origin
  // A file for --cfg that repeats the run. Defaults are comments: as values they would count as given and switch off automatic
  // choices.
  std::string to_yaml() const;

 private:
  struct Value {
    std::string text;
    std::string origin;
  };
  const Value& value(std::string_view name) const;
  bool takes(std::string_view name) const;
  // Sets the argument that these words of a command line begin with; returns how many of them it takes.
  size_t read_argument(std::span<const std::string> words);
  // Whether an item of a file is to be left out instead of set. `defaults`: so are those that equal the original's default.
  bool passes_over(const std::string& name, const std::string& text, bool defaults);

  Verb verb_;
  std::string command_ = "train_seg";
  std::map<std::string, Value, std::less<>> values_;
  std::string file_;                   // the file that was read
  std::vector<std::string> left_out_;  // its items without a meaning here
  bool amp_ = false;                   // it says amp: true
};

}  // namespace tessera
