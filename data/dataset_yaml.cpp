#include "data/dataset_yaml.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <set>

#include "data/yaml_keys.h"
#include "tensor/base/env.h"
#include "tensor/base/file.h"
#include "tensor/base/shell_word.h"

namespace tessera {

namespace fs = std::filesystem;

namespace {

constexpr size_t kMaxYamlBytes = size_t(4) << 20;
constexpr std::array<std::string_view, 11> kSuffixes = {"bmp", "dng",  "jpeg", "jpg", "mpo", "png",
                                                        "tif", "tiff", "webp", "pfm", "heic"};

FileLocation place(const std::string& file, const YAML::Mark& mark) {
  return mark.is_null() ? FileLocation{file} : FileLocation{file, mark.line + 1, mark.column + 1};
}

[[noreturn]] void fail(const std::string& message, const FileLocation& where,
                       const std::string& hint = "correct this value in the data yaml") {
  throw Error(ErrorCode::kData, message, where, hint);
}

bool is_there(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

std::string join(const std::vector<std::string>& items) { return fmt::format("{}", fmt::join(items, ", ")); }

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = c >= 'A' && c <= 'Z' ? char(c - 'A' + 'a') : c;
  return out;
}

// yaml-cpp parses by recursion; text nested deeper than any data yaml would overflow the stack. Counts open brackets, and the
// dashes at the head of a line ("- - - x" nests too).
void check_nesting(std::string_view text, const std::string& file) {
  constexpr int kMaxDepth = 100;
  int brackets = 0, dashes = 0;
  bool at_head = true;
  int64_t line = 1, column = 0;
  for (const char c : text) {
    ++column;
    if (c == '[' || c == '{') ++brackets;
    if (c == ']' || c == '}') brackets = std::max(brackets - 1, 0);
    if (at_head && (c == '-' || c == '?')) ++dashes;
    if (c == '\n') {
      ++line, column = 0, dashes = 0;
      at_head = true;
    } else if (c != ' ' && c != '-' && c != '?') {
      at_head = false;
    }
    if (brackets > kMaxDepth || dashes > kMaxDepth)
      fail("the yaml is nested too deeply", {file, line, column}, "a data yaml has two levels");
  }
}

// The file to read: as named, with a suffix, or inside a folder; empty when there is none.
fs::path find_file(const std::string& name, const fs::path& data_root, std::vector<std::string>& tried) {
  std::vector<fs::path> candidates = {name};
  if (!name.ends_with(".yaml") && !name.ends_with(".yml")) candidates = {name, name + ".yaml", name + ".yml"};
  if (!data_root.empty() && fs::path(name).is_relative()) {
    const auto count = candidates.size();
    for (size_t i = 0; i < count; ++i) candidates.push_back(data_root / candidates[i]);
  }
  for (const fs::path& candidate : candidates) {
    std::error_code ignored;
    if (fs::is_directory(candidate, ignored)) {
      if (is_there(candidate / "data.yaml")) return candidate / "data.yaml";
      std::vector<fs::path> found;
      for (const auto& entry : fs::directory_iterator(candidate, ignored))
        if (entry.path().extension() == ".yaml" || entry.path().extension() == ".yml") found.push_back(entry.path());
      if (found.size() == 1) return found[0];
      tried.push_back((candidate / "data.yaml").string());
    } else if (is_there(candidate)) {
      return candidate;
    } else {
      tried.push_back(candidate.string());
    }
  }
  return {};
}

std::string scalar(const YAML::Node& node, const std::string& key, const std::string& file) {
  if (!node.IsScalar()) fail(fmt::format("'{}' must be one text value", key), place(file, node.Mark()));
  return node.Scalar();
}

std::optional<int64_t> integer(const std::string& text) {
  int64_t v = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), v);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return v;
}

std::vector<std::string> class_names(const YAML::Node& root, const std::string& file, std::vector<Finding>& findings) {
  const YAML::Node names = root["names"], nc = root["nc"];
  std::optional<int64_t> count;
  if (nc) {
    count = integer(scalar(nc, "nc", file));
    if (!count || *count < 1 || *count > 100000)
      fail(fmt::format("'nc' is '{}', expected a number of classes from 1 to 100000", nc.Scalar()), place(file, nc.Mark()));
  }
  if (!names || names.IsNull()) {
    if (!count) fail("neither 'names' nor 'nc' is given", {file}, "add the class names, e.g. names: [cat, dog]");
    std::vector<std::string> out;
    for (int64_t i = 0; i < *count; ++i) out.push_back(fmt::format("class_{}", i));
    return out;
  }
  std::map<int64_t, std::string> by_id;
  if (names.IsSequence()) {
    for (size_t i = 0; i < names.size(); ++i) by_id[int64_t(i)] = scalar(names[i], "names", file);
  } else if (names.IsMap()) {
    for (const auto& entry : names) {
      const std::optional<int64_t> id = integer(scalar(entry.first, "names", file));
      if (!id || *id < 0)
        fail(fmt::format("the class id '{}' is not a whole number from 0 on", entry.first.Scalar()),
             place(file, entry.first.Mark()));
      if (!by_id.emplace(*id, scalar(entry.second, "names", file)).second)
        fail(fmt::format("class id {} is given twice", *id), place(file, entry.first.Mark()));
    }
  } else {
    fail("'names' must be a list or a map from id to name", place(file, names.Mark()), "e.g. names: [cat, dog]");
  }
  if (by_id.empty()) fail("'names' is empty", place(file, names.Mark()), "add the class names, e.g. names: [cat, dog]");
  if (by_id.rbegin()->first != int64_t(by_id.size()) - 1)
    fail(
        fmt::format("the class ids must run from 0 to {} without gaps, the largest is {}", by_id.size() - 1, by_id.rbegin()->first),
        place(file, names.Mark()));
  if (count && *count != int64_t(by_id.size()))
    fail(fmt::format("'nc' is {}, but 'names' has {} entries", *count, by_id.size()), place(file, nc.Mark()),
         "correct one of them, or leave out nc");
  std::vector<std::string> out;
  std::set<std::string> seen;
  for (const auto& [id, name] : by_id) {
    if (!seen.insert(name).second)
      findings.push_back({Severity::kNote, "class-twice", place(file, names.Mark()),
                          fmt::format("class name '{}' is used twice", name), "give each class its own name"});
    out.push_back(name);
  }
  return out;
}

std::vector<std::string> split_entries(const YAML::Node& node, const std::string& key, const std::string& file) {
  if (node.IsScalar() && !node.Scalar().empty()) return {node.Scalar()};
  if (!node.IsSequence() || node.size() == 0)
    fail(fmt::format("'{}' must be a path or a list of paths", key), place(file, node.Mark()),
         fmt::format("e.g. {}: images/{}", key, key));
  std::vector<std::string> out;
  for (const YAML::Node& entry : node) out.push_back(scalar(entry, key, file));
  return out;
}

fs::path absolute_path(const fs::path& path) { return fs::absolute(path).lexically_normal(); }

// Where a relative root may be, most explicit first.
std::vector<fs::path> root_candidates(const std::string& path_key, const fs::path& yaml_folder, const fs::path& data_root) {
  if (path_key.empty() && !yaml_folder.empty()) return {absolute_path(yaml_folder)};
  const fs::path wanted = path_key;
  if (wanted.is_absolute()) return {wanted.lexically_normal()};
  fs::path last = wanted.filename();
  if (last.empty()) last = wanted.parent_path().filename();
  std::vector<fs::path> out;
  const auto add = [&](const fs::path& p) {
    const fs::path full = absolute_path(p);
    if (std::find(out.begin(), out.end(), full) == out.end()) out.push_back(full);
  };
  for (const fs::path& base : {data_root, fs::path(env("TESSERA_DATA").value_or(""))}) {
    if (base.empty()) continue;
    add(base / wanted);
    add(base / last);
    add(base);
  }
  add(wanted);
  if (!yaml_folder.empty()) add(yaml_folder / wanted);
  add(fs::path("datasets") / wanted);
  add(fs::path("..") / "datasets" / wanted);
  return out;
}

// root / value; "../" is dropped from the value when only that exists (spec 5.1, 3).
fs::path resolve(const fs::path& root, const std::string& value) {
  const fs::path full = (root / value).lexically_normal();
  if (!is_there(full) && value.starts_with("../") && is_there(root / value.substr(3)))
    return (root / value.substr(3)).lexically_normal();
  return full;
}

}  // namespace

DatasetText read_dataset_text(const std::string& name, const fs::path& data_root) {
  DatasetText out;
  std::vector<std::string> tried;
  const fs::path file = find_file(name, data_root, tried);
  if (!file.empty()) {
    out = {file.string(), read_file(file, kMaxYamlBytes), absolute_path(file).parent_path()};
  } else if (const auto builtin = builtin_dataset_yaml(name)) {
    out = {name, std::string(*builtin), {}};
  } else {
    std::vector<std::string> known(builtin_dataset_names().begin(), builtin_dataset_names().end());
    fail(fmt::format("there is no data yaml '{}'; tried {}", name, join(tried)), {},
         fmt::format("name a file, or one that the program brings: {}", join(known)));
  }
  if (out.text.find('\0') != std::string::npos) fail("this is not a text file", {out.source}, "name a data yaml");
  check_nesting(out.text, out.source);
  return out;
}

DatasetYaml load_dataset_yaml(const std::string& name, const fs::path& data_root, std::span<const std::string_view> needed,
                              SplitKeys keys) {
  const auto [source, text, folder] = read_dataset_text(name, data_root);
  DatasetYaml out;
  out.source = source;
  YAML::Node root;
  try {
    root = YAML::Load(text);
    if (!root.IsMap()) fail("a data yaml is a list of 'key: value' lines", {out.source, 1, 1}, "keys: path, train, val, names");

    check_unique_keys(root, out.source);
    out.names = class_names(root, out.source, out.findings);
    if (root["channels"] && integer(scalar(root["channels"], "channels", out.source)) != 3)
      fail("only images of 3 channels can be used", place(out.source, root["channels"].Mark()));

    std::map<std::string, std::vector<std::string>> entries;
    for (const char* key : {"train", "val", "test", "minival"})
      if (const YAML::Node node = root[key]; node && !node.IsNull()) entries[key] = split_entries(node, key, out.source);
    if (!entries.contains("val") && root["validation"]) {
      entries["val"] = split_entries(root["validation"], "validation", out.source);
      out.findings.push_back({Severity::kNote, "key-renamed", place(out.source, root["validation"].Mark()),
                              "'validation' is read as 'val'", "rename the key"});
    }
    for (const char* key : {"train", "val"})
      if (!entries.contains(key) && (keys == SplitKeys::kTrainAndVal || entries.empty()))
        fail(fmt::format("the key '{}' is missing", key), {out.source},
             fmt::format("add a line such as '{}: images/{}'", key, key));
    for (const std::string_view split : needed)
      if (!entries.contains(std::string(split)))
        fail(fmt::format("the split '{}' is not in the data yaml", split), {out.source},
             fmt::format("add a line such as '{}: images/{}'", split, split));

    const std::string path_key = root["path"] && !root["path"].IsNull() ? scalar(root["path"], "path", out.source) : "";
    const std::vector<fs::path> roots = root_candidates(path_key, folder, data_root);
    const auto complete = [&](const fs::path& candidate) {
      const auto all_there = [&](const std::string& split) {
        return std::all_of(entries[split].begin(), entries[split].end(),
                           [&](const std::string& e) { return is_there(resolve(candidate, e)); });
      };
      if (needed.empty()) return std::any_of(entries.begin(), entries.end(), [&](const auto& e) { return all_there(e.first); });
      return std::all_of(needed.begin(), needed.end(), [&](std::string_view split) { return all_there(std::string(split)); });
    };
    auto chosen = std::find_if(roots.begin(), roots.end(), complete);
    if (chosen == roots.end() && !needed.empty()) {
      std::vector<std::string> paths;
      for (const fs::path& candidate : roots)
        for (const std::string_view split : needed)
          for (const std::string& e : entries[std::string(split)])
            if (const std::string p = resolve(candidate, e).string(); !is_there(p)) paths.push_back(p);
      std::string hint = "correct 'path:', or say where the data is with --data-root or TESSERA_DATA";
      const YAML::Node download = root["download"];  // addresses, or a script, which is never run
      if (download && (download.IsSequence() || (download.IsScalar() && download.Scalar().find("://") < 6))) {
        hint += fmt::format("; tessera download --data {}{} fetches it", shell_word(name),
                            data_root.empty() ? "" : " --data-root " + shell_word(data_root.string()));
      }
      fail(fmt::format("the images are not there; tried {}", join(paths)),
           root["path"] ? place(out.source, root["path"].Mark()) : FileLocation{out.source}, hint);
    }
    if (chosen == roots.end()) chosen = std::find_if(roots.begin(), roots.end(), is_there);
    out.root = chosen == roots.end() ? roots.front() : *chosen;
    for (const auto& [split, values] : entries)
      for (const std::string& value : values) out.splits[split].push_back(resolve(out.root, value));
  } catch (const YAML::Exception& e) {
    fail(fmt::format("this is not valid yaml: {}", e.msg), place(out.source, e.mark), "check indentation, colons, quotes and tabs");
  }
  return out;
}

// ---- image list ------------------------------------------------------------------------------------------------------

namespace {

bool has_image_suffix(std::string_view path) {
  const size_t dot = path.rfind('.');
  if (dot == std::string_view::npos) return false;
  return std::find(kSuffixes.begin(), kSuffixes.end(), lower(path.substr(dot + 1))) != kSuffixes.end();
}

// A link to a folder that holds it would show every image again, once for each turn.
bool leads_up(const fs::path& link) {
  std::error_code ignored;
  const fs::path target = fs::canonical(link, ignored), here = fs::canonical(link.parent_path(), ignored);
  return !target.empty() && std::mismatch(target.begin(), target.end(), here.begin(), here.end()).first == target.end();
}

void add_folder(const fs::path& folder, std::vector<std::string>& out) {
  constexpr int kMaxDepth = 32;  // links that lead to each other would never end
  std::error_code error;
  fs::recursive_directory_iterator it(folder, fs::directory_options::follow_directory_symlink, error), end;
  for (; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (name.starts_with('.') || it.depth() >= kMaxDepth) {
      it.disable_recursion_pending();
      if (name.starts_with('.')) continue;
    }
    std::error_code ignored;
    if (it->is_symlink(ignored) && leads_up(it->path())) it.disable_recursion_pending();
    if (has_image_suffix(name) && !it->is_directory(ignored)) out.push_back(it->path().generic_string());
  }
  if (error) throw_file_error("read", folder, error.value());
}

void add_list(const fs::path& list, std::vector<std::string>& out) {
  const std::string text = read_file(list);
  if (text.find('\0') != std::string::npos)
    fail("this is not a list of images", {list.string()}, "a list file is text with one image path a line");
  const std::string folder = list.parent_path().generic_string() + "/";
  size_t at = text.starts_with("\xEF\xBB\xBF") ? 3 : 0;
  while (at < text.size()) {
    size_t end = text.find('\n', at);
    if (end == std::string::npos) end = text.size();
    std::string line = text.substr(at, end - at);
    at = end + 1;
    const size_t first = line.find_first_not_of(" \t\r");
    if (first == std::string::npos) continue;
    line = line.substr(first, line.find_last_not_of(" \t\r") - first + 1);
    if (!has_image_suffix(line)) continue;
    if (line.starts_with("./"))
      line = folder + line.substr(2);
    else if (!fs::path(line).is_absolute())
      line = is_there(line) ? absolute_path(line).generic_string() : folder + line;
    out.push_back(line);
  }
}

}  // namespace

std::vector<std::string> list_images(const DatasetYaml& yaml, std::string_view split) {
  const auto found = yaml.splits.find(std::string(split));
  if (found == yaml.splits.end())
    fail(fmt::format("the split '{}' is not in the data yaml", split), {yaml.source},
         fmt::format("add a line such as '{}: images/{}'", split, split));
  std::vector<std::string> out, places;
  for (const fs::path& entry : found->second) {
    places.push_back(entry.string());
    if (!is_there(entry))
      fail(fmt::format("'{}' of the split '{}' does not exist", entry.string(), split), {yaml.source},
           "correct the path, or use --data-root or TESSERA_DATA");
    std::error_code ignored;
    if (fs::is_directory(entry, ignored))
      add_folder(entry, out);
    else
      add_list(entry, out);
  }
  if (out.empty())
    fail(fmt::format("no image of a known kind in {}", join(places)), {yaml.source}, "images end in jpg, jpeg, png or bmp");
  std::sort(out.begin(), out.end());
  return out;
}

void keep_fraction(std::vector<std::string>& images, double fraction) {
  if (!(fraction > 0 && fraction <= 1))
    throw Error(ErrorCode::kUsage, fmt::format("fraction = {}", fraction), {}, "a value above 0, at most 1");
  if (fraction == 1) return;
  images.resize(std::min(images.size(), size_t(std::max(1.0, std::nearbyint(double(images.size()) * fraction)))));
}

std::string label_path(std::string_view image) {
  constexpr std::string_view kImages = "/images/";
  std::string out(image);
  if (const size_t at = out.rfind(kImages); at != std::string::npos) out.replace(at, kImages.size(), "/labels/");
  const size_t dot = out.rfind('.'), slash = out.rfind('/');
  if (dot != std::string::npos && (slash == std::string::npos || dot > slash)) out.resize(dot);
  return out + ".txt";
}

}  // namespace tessera
