// The manual page, written from the table of verbs, the table of arguments and the list of environment switches.
#include <fmt/ranges.h>

#include <algorithm>
#include <cstdio>

#include "tensor/base/env.h"
#include "tools/verbs/json_text.h"
#include "tools/verbs/verb_table.h"
#include "tools/verbs/verbs.h"

namespace tessera {

namespace {

// Text as roff: '\' and '-' are what they look like, and no line begins with a request.
std::string roff(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if ((c == '.' || c == '\'') && (out.empty() || out.back() == '\n')) out += "\\&";
    if (c == '\\') {
      out += "\\e";
    } else if (c == '-') {
      out += "\\-";
    } else {
      out += c;
    }
  }
  return out;
}

std::string value_of(const OptionSpec& o) {
  switch (o.type) {
    case OptionType::kBool: return "true|false";
    case OptionType::kInt: return "n";
    case OptionType::kFloat: return "x";
    case OptionType::kChoice: return std::string(o.choices);
    case OptionType::kText: break;
  }
  return o.choices.ends_with(kAnyFile) ? "file" : o.choices.ends_with(kAnyFolder) ? "folder" : "text";
}

std::string arguments() {
  std::string text, group;
  for (const OptionSpec& o : option_specs()) {
    if (o.group != group) {
      group = o.group;
      std::string heading = group;
      heading[0] = char(std::toupper(heading[0]));
      text += fmt::format(".SS {}\n", roff(heading));
    }
    const std::vector<std::string_view> verbs = verbs_of(o);
    const std::string all = verbs.size() == verb_entries().size() ? "every verb" : fmt::format("{}", fmt::join(verbs, ", "));
    text += fmt::format(".TP\n\\fB\\-\\-{}\\fR \\fI{}\\fR\n{} ({})\n", roff(shown_name(o.name)), roff(value_of(o)),
                        roff(option_note(o)), all);
  }
  return text;
}

constexpr const char* kDescription =
    "Trains, validates and runs YOLOv8 instance segmentation, on CPUs and on GPUs, without Python. Each verb has its own\n"
    ".BR \\-\\-help .\n"
    "An argument is written as \\fB\\-\\-name\\fR \\fIvalue\\fR, \\fB\\-\\-name=\\fR\\fIvalue\\fR or \\fBname=\\fR\\fIvalue\\fR; a "
    "boolean also as \\fB\\-\\-name\\fR and \\fB\\-\\-no\\-name\\fR. \\- and _ inside a name are the same. Values count in the "
    "order default, "
    "\\fB\\-\\-cfg\\fR file, environment, command line, the last one most; \\fB\\-\\-print\\-config\\fR shows where each came "
    "from.\n";

struct ExitCode {
  int code;
  const char* meaning;
};
constexpr ExitCode kExitCodes[] = {
    {0, "done"},
    {1, "a bug: please report it"},
    {int(ErrorCode::kUsage), "unknown argument, or a value that is not allowed"},
    {int(ErrorCode::kData), "something is wrong in a data or model file, which is named"},
    {int(ErrorCode::kMemory), "not enough memory"},
    {int(ErrorCode::kNonFinite), "the training became non-finite and could not go on"},
    {int(ErrorCode::kIo), "reading or writing failed, or another process of the run has ended"},
    {int(ErrorCode::kInterrupted), "interrupted, the state is saved"},
};

struct RunFile {
  const char *name, *meaning;
};
constexpr RunFile kRunFiles[] = {
    {"args.yaml", "the arguments, for --cfg"},
    {"results.csv", "a row for each epoch"},
    {"log.jsonl", "a JSON object for each step and each epoch"},
    {"metrics.json", "the figures of the best weights"},
    {"report.html", "the run on one page: figures and plots"},
    {"images.csv", "what was found and missed in each image of the validation, worst first"},
    {"weights/best.safetensors", "the weights of the best epoch, by --best"},
    {"weights/last.safetensors", "the state that --resume goes on with"},
};

std::string page() {
  std::string text = fmt::format(".TH TESSERA 1 \"\" \"tessera {}\"\n.nh\n.ad l\n.SH NAME\n", TESSERA_VERSION);
  text += fmt::format("tessera, {} \\- train, validate and run YOLOv8 instance segmentation\n", fmt::join(further_names(), ", "));
  text += ".SH SYNOPSIS\n\\fBtessera\\fR \\fIverb\\fR [\\fIarguments\\fR]\n";
  for (const std::string_view name : further_names()) text += fmt::format(".br\n\\fB{}\\fR [\\fIarguments\\fR]\n", name);
  text += fmt::format(".SH DESCRIPTION\n{}.SH VERBS\n", kDescription);
  for (const VerbEntry& v : verb_entries()) text += fmt::format(".TP\n\\fB{}\\fR\n{}\n", v.name, roff(v.purpose));
  text += ".SH ARGUMENTS\nIn parentheses: the verbs that take it.\n" + arguments();
  text += ".SH EXAMPLES\n.nf\n";
  for (const VerbEntry& v : verb_entries()) text += roff(v.examples);
  text += ".fi\n.SH EXIT STATUS\n";
  for (const ExitCode& e : kExitCodes) text += fmt::format(".TP\n{}\n{}\n", e.code, roff(e.meaning));
  text += ".SH ENVIRONMENT\n.TP\nTESSERA_ARG_\\fINAME\\fR\nvalue of the argument \\fIname\\fR, below that of the command line\n";
  for (const EnvSwitch& s : env_switches()) text += fmt::format(".TP\n{}\n{}\n", s.name, roff(s.meaning));
  text += ".SH FILES\nIn the folder of a training, \\fIruns/segment/train\\fR, then \\fItrain2\\fR and so on:\n";
  for (const RunFile& f : kRunFiles) text += fmt::format(".TP\n\\fI{}\\fR\n{}\n", f.name, roff(f.meaning));
  return text;
}

}  // namespace

int run_man(const Config& config) {
  if (config.flag("json")) {
    print_json({{"command", "man"}, {"page", page()}});
  } else {
    fmt::print("{}", page());
  }
  return 0;
}

}  // namespace tessera
