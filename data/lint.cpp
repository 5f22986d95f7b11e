#include "data/lint.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "data/dataset_yaml.h"
#include "data/label_scan.h"
#include "tensor/base/checksum.h"
#include "tensor/base/file.h"
#include "tensor/base/parallel.h"

namespace tessera {

namespace fs = std::filesystem;

namespace {

void tell(std::vector<Finding>& findings, Severity severity, const char* code, const std::string& file, std::string message,
          std::string hint) {
  Finding& f = findings.emplace_back();
  f.severity = severity;
  f.code = code;
  f.where.file = file;
  f.message = std::move(message);
  f.hint = std::move(hint);
}

// Reads the label files of the findings again after rewriting them, so that the report says what is left.
void fix_labels(LintSplit& split, int64_t classes) {
  std::set<std::string> faulty;
  for (const Finding& f : split.scan.findings) faulty.insert(f.where.file);
  for (const ScanImage& image : split.scan.images) {
    if (!faulty.contains(image.label_file)) continue;
    const std::string kept = image.label_file + ".orig";
    if (!fs::exists(kept)) write_file_atomic(kept, read_file(image.label_file));
    const std::string text = label_rows(image.objects);
    write_file_atomic(image.label_file, text);
    split.fixed.push_back(image.label_file);
    std::erase_if(split.scan.findings, [&](const Finding& f) { return f.where.file == image.label_file; });
    const LabelFile again = parse_labels(text, image.label_file, classes, LabelPolicy::kLenient);
    split.scan.findings.insert(split.scan.findings.end(), again.findings.begin(), again.findings.end());
  }
}

struct ImageFile {
  std::string file;
  size_t split = 0;
};

// Images of the same bytes. Sums of a few bits say which may be equal; those are compared.
void find_repeated(LintReport& report, const ProgressHook& progress) {
  std::vector<ImageFile> images;
  for (size_t s = 0; s < report.splits.size(); ++s) {
    for (const ScanImage& image : report.splits[s].scan.images) images.push_back({image.file, s});
  }
  std::vector<std::pair<size_t, uint32_t>> sums(images.size());
  ProgressCounter counter(progress, "comparing images", int64_t(images.size()));
  parallel_for(int64_t(images.size()), 8, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const std::string bytes = read_file(images[size_t(i)].file);
      sums[size_t(i)] = {bytes.size(), crc32c(std::as_bytes(std::span(bytes)))};
      counter.image_done();
    }
  });
  std::map<std::pair<size_t, uint32_t>, std::vector<size_t>> alike;  // the first of each content
  for (size_t i = 0; i < images.size(); ++i) {
    std::vector<size_t>& group = alike[sums[i]];
    const ImageFile& mine = images[i];
    const auto equal = [&](size_t j) { return images[j].file == mine.file || read_file(images[j].file) == read_file(mine.file); };
    const auto first = std::find_if(group.begin(), group.end(), equal);
    if (first == group.end()) {
      group.push_back(i);
      continue;
    }
    const ImageFile& other = images[*first];
    LintSplit &here = report.splits[mine.split], &there = report.splits[other.split];
    const bool same = mine.split == other.split;
    if (same) {
      tell(here.scan.findings, Severity::kNote, "image-repeated", mine.file,
           fmt::format("the image has the bytes of {}", other.file), "keep one of them");
    } else {
      tell(here.scan.findings, Severity::kWarning, "image-twice", mine.file,
           fmt::format("the split '{}' has this image too{}", there.name, other.file == mine.file ? "" : ": " + other.file),
           "keep it in one split: figures measured on training images mean little");
    }
  }
}

}  // namespace

int64_t LintReport::warnings() const {
  const auto count = [](const std::vector<Finding>& list) {
    return std::count_if(list.begin(), list.end(), [](const Finding& f) { return f.severity == Severity::kWarning; });
  };
  int64_t n = count(findings);
  for (const LintSplit& s : splits) n += count(s.scan.findings);
  return n;
}

LintReport lint_dataset(const std::string& data, std::string_view split, bool fix, const fs::path& data_root,
                        const ProgressHook& progress) {
  std::vector<std::string_view> needed;
  if (!split.empty()) needed.push_back(split);
  const DatasetYaml yaml = load_dataset_yaml(data, data_root, needed, SplitKeys::kAny);
  LintReport report;
  report.names = yaml.names;
  report.objects_of_class.assign(yaml.names.size(), 0);
  report.findings = yaml.findings;
  for (const char* key : {"train", "val"}) {
    if (!split.empty() || yaml.splits.contains(key)) continue;
    tell(report.findings, Severity::kWarning, "split-missing", yaml.source, fmt::format("there is no split '{}'", key),
         fmt::format("training needs both: add a line such as '{}: images/{}'", key, key));
  }
  ScanOptions options;
  options.verify_pixels = true;
  options.refuse = false;
  std::map<std::vector<fs::path>, std::string> listed;
  for (const auto& [name, folders] : yaml.splits) {
    if (!split.empty() && name != split) continue;
    // coco8 and coco128 train and validate on the same images; that is meant, and told once.
    if (const auto [same, is_new] = listed.emplace(folders, name); !is_new) {
      tell(report.findings, Severity::kNote, "split-same", yaml.source,
           fmt::format("the splits '{}' and '{}' are the same images", same->second, name),
           "keep some for validation, so that its figures tell something about new images");
      continue;
    }
    std::vector<std::string> images;
    try {
      images = list_images(yaml, name);
    } catch (const Error& e) {
      if (!split.empty() || e.code() != ErrorCode::kData) throw;
      tell(report.findings, Severity::kWarning, "split-unreadable", e.where().file, e.message(), e.hint());
      continue;
    }
    LintSplit& s = report.splits.emplace_back();
    s.name = name;
    ProgressCounter counter(progress, "checking " + name, int64_t(images.size()));
    s.scan = scan_labels(images, int64_t(yaml.names.size()), options, counter);
    if (fix) fix_labels(s, int64_t(yaml.names.size()));
    for (const ScanImage& image : s.scan.images) {
      for (const LabelObject& o : image.objects) ++report.objects_of_class[size_t(o.class_id)];
    }
  }
  find_repeated(report, progress);
  std::string unused;
  int64_t count = 0;
  for (size_t i = 0; i < yaml.names.size(); ++i) {
    if (report.objects_of_class[i] > 0) continue;
    ++count;
    if (count <= 5) unused += (unused.empty() ? "" : ", ") + yaml.names[i];
  }
  if (count > 0) {
    tell(report.findings, Severity::kNote, "class-unused", yaml.source,
         fmt::format("{} of {} classes have no object here: {}{}", count, yaml.names.size(), unused, count > 5 ? ", ..." : ""), "");
  }
  return report;
}

}  // namespace tessera
