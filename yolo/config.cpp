#include "yolo/config.h"

#include <fmt/ranges.h>
#include <unistd.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <charconv>
#include <optional>

#include "data/yaml_keys.h"
#include "tensor/base/check.h"
#include "tensor/base/csv_field.h"
#include "tensor/base/file.h"
#include "yolo/original_arguments.h"

namespace tessera {

namespace {

constexpr size_t kMaxFileBytes = size_t(1) << 20;
constexpr std::string_view kEnvironmentPrefix = "TESSERA_ARG_";
constexpr const char* kDefaultOrigin = "default";

}  // namespace

Config::Config(Verb verb) : verb_(verb) {
  for (const OptionSpec& o : option_specs()) {
    if (o.verbs & verb) values_.emplace(o.name, Value{std::string(o.fallback), kDefaultOrigin});
  }
}

bool Config::takes(std::string_view name) const { return values_.contains(name); }

void Config::set(std::string_view given, std::string_view text, std::string_view origin) {
  const std::string name = normalize_option_name(given);
  const OptionSpec* o = find_option(name, verb_);
  if (!takes(name)) {
    const OriginalArgument* const theirs = find_original(name);
    if (theirs != nullptr && takes(theirs->now)) {
      const RenamedArgument r = renamed(*theirs, text);
      return set(r.name, r.value, origin);
    }
    if (theirs != nullptr && !text.empty() && is_one_of_values(text, theirs->holds)) return;
    if (theirs != nullptr && !theirs->instead.empty()) {
      throw Error(ErrorCode::kUsage, fmt::format("{}={}: an argument of the original that is not taken here", given, text), {}, std::string(theirs->instead));
    }
    const auto nearest = nearest_option(name, verb_);
    const std::string why = o == nullptr ? "unknown argument" : "this verb takes no argument";
    throw Error(ErrorCode::kUsage, fmt::format("{} '{}'", why, given), {},
                nearest ? fmt::format("did you mean --{}?", shown_name(*nearest)) : std::string("--help lists them all"));
  }
  Value& v = values_.find(name)->second;
  const bool planned = verb_ == kTrain && name == "batch" && is_one_of_values(text, "-1");  // outside of the range, and meant
  if (text.empty()) {
    v = {std::string(o->fallback), kDefaultOrigin};  // not given: automatic choices stay
  } else {
    v = {planned ? "-1" : checked_value(*o, text), std::string(origin)};
  }
}

namespace {

std::optional<std::string> text_of(const YAML::Node& value) {
  if (value.IsScalar()) return value.Scalar();
  if (!value.IsSequence()) return std::nullopt;
  std::vector<std::string> items;
  for (const auto& item : value) {
    if (!item.IsScalar()) return std::nullopt;
    items.push_back(item.Scalar());
  }
  return fmt::format("[{}]", fmt::join(items, ","));
}

bool is_of_original(const YAML::Node& root) {
  return std::any_of(root.begin(), root.end(), [](const auto& item) {
    const std::string name = item.first.IsScalar() ? normalize_option_name(item.first.Scalar()) : "";
    return find_option(name) == nullptr && find_original(name) != nullptr;
  });
}

}  // namespace

bool Config::passes_over(const std::string& name, const std::string& text, bool defaults) {
  const OriginalArgument* theirs = find_original(name);
  if (theirs == nullptr) return false;
  if (!theirs->now.empty()) {
    const RenamedArgument r = renamed(*theirs, text);
    return passes_over(r.name, r.value, defaults);
  }
  if (name == "amp") amp_ = boolean_of(text).value_or(true);
  if (is_one_of_values(text, theirs->fallback) && (defaults || !takes(name))) return true;
  if (takes(name)) return false;
  if (theirs->verbs & verb_) {
    throw Error(ErrorCode::kUsage, fmt::format("{}: {} asks for something that is not there", name, text), {}, std::string(theirs->instead));
  }
  left_out_.push_back(fmt::format("{}: {}", name, text));
  return true;
}

std::vector<std::string> Config::notes() const {
  std::vector<std::string> out;
  if (!left_out_.empty()) out.push_back(fmt::format("note: left out of {}, without meaning here: {}", file_, fmt::join(left_out_, ", ")));
  if (amp_ && verb_ == kTrain && text("device") != "cpu" && !is_explicit("precision")) {
    out.push_back(fmt::format("note: amp: true of {} is not taken, the training is in fp32; --precision fp16 or bf16 mixes precisions", file_));
  }
  return out;
}

void Config::read_file(const std::filesystem::path& path) {
  constexpr const char* kForm = "the file holds lines of 'name: value', as args.yaml of a run";
  const auto place = [&](const YAML::Mark& mark) { return FileLocation{path.string(), mark.line + 1, mark.column + 1}; };
  YAML::Node root;
  try {
    root = YAML::Load(tessera::read_file(path, kMaxFileBytes));
  } catch (const YAML::Exception& e) {
    throw Error(ErrorCode::kData, fmt::format("this is not valid yaml: {}", e.msg), place(e.mark), kForm);
  }
  if (root.IsNull()) return;
  if (!root.IsMap()) throw Error(ErrorCode::kData, "this is not a file of arguments", {path.string()}, kForm);
  check_unique_keys(root, path.string());
  file_ = path.string();
  const bool theirs = is_of_original(root);
  // The original's default.yaml names its default task and no model; with a model the file is of a run for that task.
  const YAML::Node model = root["model"];
  const bool names_model = model.IsDefined() && !model.IsNull();
  for (const auto& item : root) {
    if (!item.first.IsScalar()) throw Error(ErrorCode::kData, "a name must be plain text", place(item.first.Mark()), kForm);
    const std::string& given = item.first.Scalar();
    const std::string name = normalize_option_name(given);
    const bool known = find_option(name) != nullptr || find_original(name) != nullptr;
    if (known && item.second.IsNull()) continue;
    const std::optional<std::string> text = item.second.IsNull() ? "" : text_of(item.second);
    if (!text) {
      throw Error(ErrorCode::kData, fmt::format("'{}' must be a single value or a list", given), place(item.second.Mark()), kForm);
    }
    try {
      const bool other_task = name == "task" && names_model && !is_one_of_values(*text, "segment");
      if (other_task || !passes_over(name, *text, theirs)) set(given, *text, path.string());
    } catch (const Error& e) {
      throw Error(ErrorCode::kUsage, e.message(), place(item.first.Mark()), e.hint().empty() ? "correct the value there" : e.hint());
    }
  }
}

void Config::read_environment() {
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    const size_t equals = text.find('=');
    if (!text.starts_with(kEnvironmentPrefix) || equals == std::string_view::npos) continue;
    const std::string name = normalize_option_name(text.substr(kEnvironmentPrefix.size(), equals - kEnvironmentPrefix.size()));
    const OptionSpec* o = find_option(name, verb_);
    if (o != nullptr && !(o->verbs & verb_)) continue;  // meant for another verb
    try {
      set(name, text.substr(equals + 1), text.substr(0, equals));
    } catch (const Error& e) {
      throw Error(e.code(), fmt::format("{}: {}", text.substr(0, equals), e.message()), {}, e.hint());
    }
  }
}

namespace {
Error not_an_argument(std::string_view word) {
  return {ErrorCode::kUsage, fmt::format("'{}' is not an argument", word), {}, "write --name value or name=value"};
}
}  // namespace

void Config::read_arguments(const std::vector<std::string>& arguments) {
  for (std::span<const std::string> rest = arguments; !rest.empty();) rest = rest.subspan(read_argument(rest));
}

size_t Config::read_argument(std::span<const std::string> words) {
  constexpr std::string_view kOrigin = "command line";
  std::string_view given = words[0];
  given.remove_prefix(std::min(given.find_first_not_of('-'), given.size()));
  if (given.empty()) throw not_an_argument(words[0]);  // "-", "--"
  if (const size_t equals = given.find('='); equals != std::string_view::npos) {
    set(given.substr(0, equals), given.substr(equals + 1), kOrigin);
    return 1;
  }
  if (!words[0].starts_with("-")) {
    throw not_an_argument(given);
  }
  const std::string name = normalize_option_name(given);
  const OptionSpec* o = find_option(name, verb_);
  if (o == nullptr && name.starts_with("no_")) {  // --no-graph is --graph false, for every boolean
    const OptionSpec* denied = find_option(name.substr(3), verb_);
    if (denied != nullptr && denied->type == OptionType::kBool) {
      set(denied->name, "false", kOrigin);
      return 1;
    }
  }
  const bool has_next = words.size() > 1;
  const auto is_plain = [&](size_t i) {  // neither --name nor name=value
    return i < words.size() && !words[i].starts_with("-") && words[i].find('=') == std::string::npos;
  };
  if (o != nullptr && o->type == OptionType::kBool) {
    // A boolean takes a value only when the next word is one.
    const std::optional<bool> next = has_next ? boolean_of(words[1]) : std::nullopt;
    set(given, next.value_or(true) ? "true" : "false", kOrigin);
    return next ? 2 : 1;
  }
  if (o == nullptr || !(o->verbs & verb_)) {
    // Throws, unless it is an argument of the original that holds anyway: a boolean may stand alone.
    set(given, is_plain(1) ? words[1] : find_original(name) ? "true" : "", kOrigin);
    return is_plain(1) ? 2 : 1;
  }
  const bool next_is_option = has_next && words[1].starts_with("--");
  if (name == "resume" && (!has_next || next_is_option)) {
    set(given, "auto", kOrigin);  // a lone "--resume" continues the newest run
    return 1;
  }
  if (name == "profile" && (!has_next || words[1].find_first_not_of("0123456789") != std::string::npos)) {
    set(given, "10", kOrigin);  // a lone "--profile" takes ten steps
    return 1;
  }
  if (!has_next || next_is_option)
    throw Error(ErrorCode::kUsage, fmt::format("--{} needs a value", shown_name(name)), {}, range_text(*o));
  if (name == "source" && is_plain(2)) {
    // A pattern that the shell has expanded: all its files, in quotes, so that commas in their names divide nothing.
    std::string files = csv_quoted(words[1]);
    size_t count = 2;
    for (; is_plain(count); ++count) files += "," + csv_quoted(words[count]);
    set(given, files, kOrigin);
    return count;
  }
  set(given, words[1], kOrigin);
  return 2;
}

const Config::Value& Config::value(std::string_view name) const {
  const auto it = values_.find(name);
  TESSERA_CHECK(it != values_.end(), "argument '{}' is not one of this verb", name);
  return it->second;
}

bool Config::is_set(std::string_view name) const { return !value(name).text.empty(); }
bool Config::is_explicit(std::string_view name) const { return value(name).origin != kDefaultOrigin; }
std::string_view Config::origin(std::string_view name) const { return value(name).origin; }
bool Config::flag(std::string_view name) const { return value(name).text == "true"; }
const std::string& Config::text(std::string_view name) const { return value(name).text; }

int64_t Config::integer(std::string_view name) const {
  const std::string& s = text(name);
  int64_t n = 0;
  std::from_chars(s.data(), s.data() + s.size(), n);
  return n;
}

double Config::number(std::string_view name) const {
  const std::string& s = text(name);
  double x = 0;
  std::from_chars(s.data(), s.data() + s.size(), x);
  return x;
}

std::vector<std::string> Config::names() const {
  std::vector<std::string> out;
  for (const OptionSpec& o : option_specs()) {
    if (o.verbs & verb_) out.emplace_back(o.name);
  }
  return out;
}

std::string Config::print() const {
  std::string out;
  for (const std::string& name : names()) {
    const Value& v = value(name);
    out += fmt::format("{:<18} {:<24} {}\n", name, v.text.empty() ? "-" : v.text, v.origin);
  }
  return out;
}

std::string Config::to_yaml() const {
  std::string text;
  for (const std::string& name : names()) {
    if (name == "cfg" || name == "print_config" || name == "resume") continue;
    const Value& v = value(name);
    YAML::Emitter line;
    line << YAML::BeginMap << YAML::Key << name << YAML::Value;
    if (v.text.empty()) {
      line << YAML::Null;
    } else {
      line << v.text;
    }
    line << YAML::EndMap;
    text += fmt::format("{}{}\n", is_explicit(name) ? "" : "# ", line.c_str());
  }
  return text;
}

}  // namespace tessera
