// The one program. `tessera train ...`; called as train_seg, val_seg, predict_seg or export_seg the verb is implied.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <iterator>
#include <new>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "tensor/base/check.h"
#include "tensor/base/file.h"
#include "tensor/base/shell_word.h"
#include "tensor/base/standard_streams.h"
#include "tensor/comm.h"
#include "tensor/conv_choice.h"
#include "tensor/cpu/install.h"
#include "tools/verbs/error_report.h"
#include "tools/verbs/json_text.h"
#include "tools/verbs/verb_table.h"
#include "tools/verbs/verbs.h"

namespace {

using namespace tessera;

std::string overview() {
  std::string text = "Tessera: trains, validates and runs YOLOv8 instance segmentation.\n\nUsage: tessera <verb> [arguments]\n\nVerbs:\n";
  for (const VerbEntry& v : verb_entries()) text += fmt::format("  {:<10} {}\n", v.name, v.purpose);
  return text +
         fmt::format("\n  tessera <verb> --help lists the arguments of a verb. {} are further names of the program.\n", fmt::join(further_names(), ", ")) +
         "\nExample:\n  train_seg --data coco128-seg.yaml --epochs 100 --imgsz 640\n";
}

std::vector<std::string_view> verb_names() {
  std::vector<std::string_view> names;
  for (const VerbEntry& v : verb_entries()) names.push_back(v.name);
  return names;
}

// Of several processes the first owns stdout; what goes wrong in another is told on stderr.
bool json_is_ours() { return launched_rank() == 0; }

// Whether errors are to be JSON, as far as that can be told before all arguments are read: reading them may be what fails.
bool wants_json(const std::vector<std::string>& arguments) {
  Config config(kInfo);
  try {
    if (const char* value = std::getenv("TESSERA_ARG_JSON")) config.set("json", value, "environment");
    for (size_t i = 0; i < arguments.size(); ++i) {
      const std::string& a = arguments[i];
      const std::string name = normalize_option_name(std::string_view(a).substr(std::min(a.find_first_not_of('-'), a.size())));
      const bool alone = a.starts_with('-') && (name == "json" || name == "no_json");
      if (!alone && !name.starts_with("json=")) continue;
      std::vector<std::string> words = {a};
      if (alone && i + 1 < arguments.size() && boolean_of(arguments[i + 1])) words.push_back(arguments[i + 1]);
      config.read_arguments(words);
    }
  } catch (const Error&) {
    return false;  // no boolean: the run itself says so
  }
  return config.flag("json");
}

void print_help(const std::string& text, bool json) {
  if (json) return print_json({{"help", text}});
  fmt::print("{}", text);
}

void print_config(const Config& config, bool json) {
  if (!json) return fmt::print("{}", config.print());
  nlohmann::ordered_json arguments = nlohmann::ordered_json::object();
  for (const std::string& name : config.names()) arguments[name] = {{"value", config.text(name)}, {"origin", config.origin(name)}};
  print_json({{"arguments", arguments}});
}

const VerbEntry* find_verb(std::string_view name) {
  const auto verbs = verb_entries();
  const auto it = std::find_if(verbs.begin(), verbs.end(), [&](const VerbEntry& v) { return v.name == name; });
  return it == verbs.end() ? nullptr : &*it;
}

int run(std::vector<std::string> arguments, bool& json) {
  std::string command = arguments.front(), name = std::filesystem::path(command).filename().string();
  arguments.erase(arguments.begin());
  command = shell_word(command);
  if (name.ends_with("_seg")) {
    name.resize(name.size() - 4);
  } else {
    if (arguments.size() > 1 && arguments[0] == "help" && !arguments[1].starts_with("-")) {  // help VERB
      arguments[0] = "--help";
      std::swap(arguments[0], arguments[1]);
    }
    if (arguments.empty() || arguments.front() == "--help" || arguments.front() == "-h" || arguments.front() == "help") {
      print_help(overview(), json);
      return arguments.empty() ? int(ErrorCode::kUsage) : 0;
    }
    if (arguments.front() == "--version") {
      if (json) print_json({{"version", TESSERA_VERSION}});
      if (!json) fmt::print("tessera {}\n", TESSERA_VERSION);
      return 0;
    }
    name = arguments.front();
    arguments.erase(arguments.begin());
    command += " " + name;
  }
  const VerbEntry* entry = find_verb(name);
  if (entry == nullptr) {
    const auto nearest = nearest_name(name, verb_names());
    throw Error(ErrorCode::kUsage, fmt::format("unknown verb '{}'", name), {},
                nearest ? fmt::format("did you mean {}?", *nearest) : fmt::format("known: {}", fmt::join(verb_names(), ", ")));
  }
  if (std::any_of(arguments.begin(), arguments.end(), [](const std::string& a) { return a == "--help" || a == "-h"; })) {
    print_help(verb_help(entry->verb, entry->name, entry->purpose, entry->examples), json);
    return 0;
  }
  // bench takes what to time as its first word, completion the shell.
  const bool named = entry->first_word.empty() || arguments.empty() || arguments.front().find_first_of("-=") != std::string::npos;
  if (!named) arguments.front() = fmt::format("{}={}", entry->first_word, arguments.front());
  // download takes an address as its first word; it may hold a '='.
  if (entry->verb == kDownload && !arguments.empty() && arguments.front().find("://") < arguments.front().find_first_of("-=")) {
    arguments.front() = "url=" + arguments.front();
  }
  Config config(entry->verb);
  config.set_command(command);
  // The file stands below the environment and the command line, so it is looked for first.
  Config given(entry->verb);
  given.read_environment();
  given.read_arguments(arguments);
  if (given.is_set("cfg")) config.read_file(given.text("cfg"));
  config.read_environment();
  config.read_arguments(arguments);
  json = json_is_ours() && config.flag("json");
  if (config.flag("print_config")) {
    print_config(config, json);
    return 0;
  }
  if (find_option("conv")->verbs & entry->verb && config.is_explicit("conv")) set_conv_choice(config.text("conv"));
  install_cpu_backends();
  return entry->run(config);
}

// Also what stdout does not take of it shows: the last of it is written when all else is done.
int run_and_flush(const std::vector<std::string>& arguments, bool& json) {
  try {
    const int code = run(arguments, json);
    flush_stdout();
    return code;
  } catch (const std::system_error& e) {
    if (std::ferror(stdout) == 0) throw;
    stdout_failed(e.code().value());
  }
}

}  // namespace

int main(int argc, char** argv) {
  open_standard_streams();
  outlive_readers();
  const std::vector<std::string> arguments(argv, argv + argc);
  bool json = json_is_ours() && wants_json(arguments);
  if (json) end_at_interrupt(kInterruptedJson);
  std::signal(SIGXFSZ, SIG_IGN);  // a file size limit becomes an error of write(), with a message, instead of a death
  const auto failed = [&json](const Error& e) {
    const int code = failure_is_news() ? report_error(e, json) : int(e.code());
    return leave_world(code, false);
  };
  on_rank_lost([&json](const Error& e) { report_error(e, json); });
  try {
    return leave_world(run_and_flush(arguments, json), true);
  } catch (const Error& e) {
    return failed(e);
  } catch (const std::filesystem::filesystem_error& e) {
    return failed(Error(ErrorCode::kIo, e.code().message(), {e.path1().string()}, "check the path and its permissions"));
  } catch (const std::bad_alloc&) {
    return failed(Error(ErrorCode::kMemory, "out of memory", {}, "use a smaller batch or image size"));
  } catch (const std::exception& e) {
    return failed(Error(ErrorCode::kBug, e.what()));
  }
}
