#include "data/convert/label_folder.h"

#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <map>
#include <set>

#include "data/yolo_txt.h"
#include "tensor/base/file.h"
#include "tensor/base/parallel.h"

namespace tessera {

void ConvertReport::add(const ConvertReport& more) {
  images += more.images, background += more.background, objects += more.objects;
  crowds += more.crowds, duplicates += more.duplicates, empty += more.empty;
  boxes += more.boxes, runs += more.runs, joined += more.joined, changed += more.changed, linked += more.linked;
  least_iou = std::min(least_iou, more.least_iou);
  sum_iou += more.sum_iou;
  written.insert(written.end(), more.written.begin(), more.written.end());
  for (const Finding& f : more.findings) convert::add_finding(*this, f);
}

}  // namespace tessera

namespace tessera::convert {

namespace fs = std::filesystem;

namespace {

// "train" of "train2017"; other splits keep their name.
std::string yaml_key(const std::string& split) {
  if (split.starts_with("train")) return "train";
  if (split.starts_with("val")) return "val";
  return split.starts_with("test") ? "test" : split;
}

// Of a file that write_data_yaml wrote, which may lack a split yet; of any other, nothing.
std::vector<std::string> names_in(const fs::path& file) {
  std::vector<std::string> names;
  try {
    for (const auto& entry : YAML::LoadFile(file.string())["names"]) names.push_back(entry.second.as<std::string>());
  } catch (const YAML::Exception&) {
    names.clear();
  }
  return names;
}

}  // namespace

void make_folders(const fs::path& folder) {
  std::error_code failed;
  fs::create_directories(folder, failed);
  if (failed) throw_file_error("create the folder", folder, failed.value());
}

Row make_row(int64_t class_id, const PrecisePolygon& fractions, const Rle& truth) {
  std::string text = fmt::format("{}", class_id);
  for (const PrecisePoint& p : fractions) {
    fmt::format_to(std::back_inserter(text), " {:g} {:g}", std::clamp(p.x, 0.0, 1.0), std::clamp(p.y, 0.0, 1.0));
  }
  const LabelFile read = parse_labels(text, "", class_id + 1, LabelPolicy::kLenient);
  if (read.objects.size() != 1) return {"", 0};
  std::vector<double> pixels;
  for (const Point& p : read.objects[0].polygon) {
    pixels.push_back(double(p.x) * truth.width);
    pixels.push_back(double(p.y) * truth.height);
  }
  const Rle seen = rle_from_polygon(pixels, truth.height, truth.width);
  return {std::move(text), rle_iou({&seen, 1}, {&truth, 1}, {})[0]};
}

void check_no_labels(const fs::path& to, const std::string& split) {
  std::error_code ignored;
  const fs::path labels = to / "labels" / split;
  if (!fs::exists(labels, ignored)) return;
  throw Error(ErrorCode::kUsage, "the folder has labels already", {labels.string()}, "give another folder as --to, or remove this one");
}

LabelFolder::LabelFolder(const fs::path& to, const std::string& split)
    : labels_(to / "labels" / split), images_(to / "images" / split), part_(to / "labels" / ("." + split + ".part")) {
  check_no_labels(to, split);
  std::error_code ignored;
  fs::remove_all(part_, ignored);  // of a conversion that was stopped
  make_folders(part_);
  make_folders(images_);
}

LabelFolder::~LabelFolder() {
  std::error_code ignored;
  fs::remove_all(part_, ignored);
}

void LabelFolder::write(const fs::path& name, const std::string& rows) const {
  const fs::path file = part_ / fs::path(name).replace_extension(".txt");
  make_folders(file.parent_path());
  std::ofstream out(file, std::ios::binary);
  out << rows;
  out.close();
  if (!out) throw_file_error("write", file, errno != 0 ? errno : EIO);
}

void LabelFolder::link(const fs::path& name, const fs::path& image) const {
  const fs::path file = images_ / name;
  make_folders(file.parent_path());
  std::error_code failed;
  if (fs::exists(fs::symlink_status(file, failed))) return;
  fs::create_symlink(fs::canonical(image), file, failed);
  if (failed) throw_file_error("link", file, failed.value());
}

void LabelFolder::finish(ConvertReport& report) {
  std::error_code failed;
  fs::rename(part_, labels_, failed);
  if (failed) throw_file_error("write", labels_, failed.value());
  report.written.push_back(labels_.string());
}

ConvertReport convert_each(int64_t images, const std::function<ConvertReport(int64_t i)>& convert, ProgressCounter& progress) {
  std::vector<ConvertReport> reports(static_cast<size_t>(images));
  std::vector<std::exception_ptr> errors(reports.size());
  parallel_for(images, 4, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      try {
        reports[size_t(i)] = convert(i);
      } catch (...) {
        errors[size_t(i)] = std::current_exception();
      }
      progress.image_done();
    }
  });
  for (const std::exception_ptr& e : errors) {
    if (e) std::rethrow_exception(e);
  }
  ConvertReport sum;
  for (const ConvertReport& r : reports) sum.add(r);
  return sum;
}

void note_missing_images(ConvertReport& report, const std::string& source, const fs::path& images) {
  if (report.linked == report.images) return;
  add_finding(report, Severity::kNote, "images-missing", source,
              fmt::format("{} of {} images were not found", report.images - report.linked, report.images),
              fmt::format("say where they are: --images FOLDER, or put them into {}", images.string()));
}

fs::path checked_name(const std::string& file_name, const std::string& where) {
  const fs::path path = fs::path(file_name).lexically_normal();
  if (path.is_absolute() || path.empty() || *path.begin() == ".." || !path.has_filename() || path.filename() == ".") {
    throw Error(ErrorCode::kData, fmt::format("the file_name '{}' is not a path below the folder of images", file_name), {where},
                "write it relative to the folder of images");
  }
  return path;
}

void check_own_labels(const std::vector<fs::path>& names, const std::string& where) {
  std::map<fs::path, const fs::path*> image_of;
  for (const fs::path& name : names) {
    const auto [first, is_new] = image_of.emplace(fs::path(name).replace_extension(".txt"), &name);
    if (is_new) continue;
    const bool same = *first->second == name;
    throw Error(ErrorCode::kData,
                same ? fmt::format("the image '{}' is there twice", name.string())
                     : fmt::format("the images '{}' and '{}' would have one label file", first->second->string(), name.string()),
                {where}, same ? "join what belongs to the two" : "rename one of them");
  }
}

void check_names(const fs::path& to, const std::vector<std::string>& names) {
  const fs::path file = to / "data.yaml";
  std::error_code ignored;
  if (fs::exists(file, ignored) && names_in(file) != names) {
    throw Error(ErrorCode::kData, "the classes here are not those of the set that is being converted", {file.string()},
                "give another folder as --to");
  }
}

void write_data_yaml(const fs::path& to, const std::vector<std::string>& names, ConvertReport& report) {
  const fs::path file = to / "data.yaml";
  std::error_code ignored;
  std::set<std::string> splits;
  for (const auto& entry : fs::directory_iterator(to / "labels", ignored)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with(".")) splits.insert(name);
  }
  YAML::Emitter yaml;
  yaml << YAML::Comment("Written by tessera convert: images in images/, labels in labels/.") << YAML::BeginMap;
  std::set<std::string> keys;
  for (const std::string& split : splits) {
    const std::string key = yaml_key(split);
    if (!keys.insert(key).second) {
      add_finding(report, Severity::kNote, "split-twice", file.string(),
                  fmt::format("'{}' is another {} split and is not listed", split, key), "edit the file to choose one");
      continue;
    }
    yaml << YAML::Key << key << YAML::Value << "images/" + split;
  }
  for (const char* needed : {"train", "val"}) {
    if (keys.contains(needed)) continue;
    add_finding(report, Severity::kNote, "split-missing", file.string(), fmt::format("there is no split '{}'", needed),
                "convert one into the same folder, or edit the file; training needs both");
  }
  yaml << YAML::Key << "names" << YAML::Value << YAML::BeginMap;
  for (size_t i = 0; i < names.size(); ++i) yaml << YAML::Key << i << YAML::Value << YAML::DoubleQuoted << names[i];
  yaml << YAML::EndMap << YAML::EndMap;
  write_file_atomic(file, std::string(yaml.c_str()) + "\n");
  report.written.push_back(file.string());
}

void add_finding(ConvertReport& report, Severity severity, const char* code, const std::string& file, std::string message,
                 std::string hint) {
  Finding f;
  f.severity = severity;
  f.code = code;
  f.where.file = file;
  f.message = std::move(message);
  f.hint = std::move(hint);
  add_finding(report, f);
}

void add_finding(ConvertReport& report, const Finding& finding) {
  const bool full = int64_t(report.findings.size()) >= kMaxFindings;
  if (finding.severity == Severity::kNote || !full) report.findings.push_back(finding);
}

}  // namespace tessera::convert
