#include "data/download/sources.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <array>
#include <string_view>

#include "data/download/fetch.h"
#include "data/download/unpack.h"
#include "tensor/base/env.h"

namespace tessera {

namespace fs = std::filesystem;

namespace {

constexpr const char* kForm = "download: https://.../set.zip, or a list of such, or of {url: ..., to: folder, sha256: ...}";

class Reader {
 public:
  explicit Reader(const DatasetText& yaml) : yaml_(yaml), root_(YAML::Load(yaml.text)) {}

  std::vector<DownloadSource> sources() const {
    const YAML::Node node = root_["download"];
    std::vector<DownloadSource> out;
    if (!node || node.IsNull()) return out;
    if (node.IsSequence()) {
      for (const YAML::Node& item : node)
        out.push_back(item.IsMap() ? source_of(item) : DownloadSource{address(text(item), item), {}, {}, place(item)});
    } else {
      for (const std::string& line : lines(text(node))) out.push_back({address(line, node), {}, {}, place(node)});
    }
    if (const YAML::Node sum = root_["sha256"]; sum && !sum.IsNull()) {
      if (out.size() != 1 || !out[0].sha256.empty()) fail("'sha256' beside 'download' is for a single address", sum, kForm);
      out[0].sha256 = checked_sum(sum);
    }
    return out;
  }

 private:
  [[noreturn]] void fail(const std::string& message, const YAML::Node& node, const std::string& hint) const {
    throw Error(ErrorCode::kData, message, place(node), hint);
  }

  FileLocation place(const YAML::Node& node) const {
    const YAML::Mark mark = node.Mark();
    return mark.is_null() ? FileLocation{yaml_.source} : FileLocation{yaml_.source, mark.line + 1, mark.column + 1};
  }

  std::string text(const YAML::Node& node) const {
    if (!node.IsScalar()) fail("an address was expected here", node, kForm);
    return node.Scalar();
  }

  static std::vector<std::string> lines(const std::string& text) {
    std::vector<std::string> out;
    for (size_t at = 0; at < text.size();) {
      const size_t end = std::min(text.find('\n', at), text.size());
      const size_t first = text.find_first_not_of(" \t\r", at);
      if (first < end && text[first] != '#') out.push_back(text.substr(first, text.find_last_not_of(" \t\r\n", end) - first + 1));
      at = end + 1;
    }
    return out;
  }

  std::string address(const std::string& text, const YAML::Node& node) const {
    const bool known = std::any_of(kSchemes.begin(), kSchemes.end(), [&](std::string_view s) { return text.starts_with(s); });
    if (!known || text.find_first_of(" \t\n") != std::string::npos) {
      fail("'download' holds a script or a command, which is never run", node,
           "read what it does and do it by hand, or write the addresses: " + std::string(kForm));
    }
    return text;
  }

  std::string checked_sum(const YAML::Node& node) const {
    if (!node.IsScalar() || !is_sha256(node.Scalar()))
      fail("'sha256' must be 64 hexadecimal digits", node, "sha256sum FILE prints them");
    return normalized_sha256(node.Scalar());
  }

  DownloadSource source_of(const YAML::Node& item) const {
    DownloadSource out{{}, {}, {}, place(item)};
    for (const auto& entry : item) {
      const std::string key = text(entry.first);
      if (key == "url") {
        out.url = address(text(entry.second), entry.second);
      } else if (key == "sha256") {
        out.sha256 = checked_sum(entry.second);
      } else if (key == "to") {
        out.to = text(entry.second);
        if (!is_inside(out.to))
          fail(fmt::format("'to: {}' leads out of the folder of the data", out.to), entry.second,
               "give a relative folder without '..'");
      } else {
        fail(fmt::format("'{}' is no key of an address", key), entry.first, kForm);
      }
    }
    if (out.url.empty()) fail("'url' is missing", item, kForm);
    return out;
  }

  static constexpr std::array<std::string_view, 3> kSchemes = {"http://", "https://", "file://"};
  const DatasetText& yaml_;
  const YAML::Node root_;
};

template <class F>
auto parsed(const DatasetText& yaml, F&& f) {
  try {
    return f();
  } catch (const YAML::Exception& e) {
    throw Error(ErrorCode::kData, fmt::format("this is not valid yaml: {}", e.msg),
                {yaml.source, e.mark.line + 1, e.mark.column + 1}, "check indentation, colons, quotes and tabs");
  }
}

}  // namespace

std::vector<DownloadSource> download_sources(const DatasetText& yaml) {
  return parsed(yaml, [&] { return Reader(yaml).sources(); });
}

DownloadPlace download_place(const DatasetText& yaml, const fs::path& data_root) {
  const std::string key = parsed(yaml, [&] {
    const YAML::Node path = YAML::Load(yaml.text)["path"];
    return path && path.IsScalar() ? path.Scalar() : std::string();
  });
  const fs::path wanted = fs::path(key).lexically_normal();
  if ((key.empty() || wanted == "." || wanted == "./") && !yaml.folder.empty()) return {yaml.folder, {}};
  const fs::path last = wanted.has_filename() ? wanted.filename() : wanted.parent_path().filename();
  if (wanted.is_absolute()) return {(wanted.has_filename() ? wanted : wanted.parent_path()).parent_path(), last};
  // Where a training looks for it first (load_dataset_yaml).
  const std::string elsewhere = env("TESSERA_DATA").value_or("");
  const fs::path base = !data_root.empty() ? data_root : fs::path(elsewhere);
  if (!base.empty()) return {base, is_inside(key) ? wanted : last};
  const fs::path full = ("datasets" / wanted).lexically_normal();
  return is_inside(full.string()) ? DownloadPlace{full.parent_path(), full.filename()} : DownloadPlace{"datasets", last};
}

FoundData find_data(const std::string& name, const fs::path& data_root) {
  constexpr std::string_view kNeeded[] = {"train", "val"};
  FoundData out;
  std::error_code ignored;
  try {
    const DatasetYaml yaml = load_dataset_yaml(name, data_root, kNeeded);
    out.root = yaml.root.string();
    for (const char* split : {"train", "val", "test"}) {
      if (!yaml.splits.contains(split)) continue;
      if (std::string_view(split) == "test" && !fs::exists(yaml.splits.at(split).front(), ignored)) continue;
      FoundSplit found{.name = split};
      for (const std::string& image : list_images(yaml, split)) {
        const bool there = fs::exists(image, ignored);
        found.images += there;
        found.missing += !there;
        found.labels += there && fs::exists(label_path(image), ignored);
      }
      if (found.missing > 0)
        out.trouble = fmt::format("{} of {} images of '{}' are missing", found.missing, found.images + found.missing, split);
      out.splits.push_back(found);
    }
  } catch (const Error& e) {
    if (e.code() != ErrorCode::kData) throw;
    out.trouble = e.message();
  }
  return out;
}

}  // namespace tessera
