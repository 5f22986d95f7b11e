// scan_labels: images and label files of a split, checked in parallel and summed up in order.
#include "data/label_scan.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <filesystem>
#include <set>
#include <unordered_set>

#include "data/dataset_yaml.h"
#include "data/image.h"
#include "tensor/base/file.h"
#include "tensor/base/parallel.h"

namespace tessera {

namespace fs = std::filesystem;

namespace {

constexpr int kMinSide = 10;
constexpr size_t kHeadBytes = size_t(64) << 10;  // holds nearly every header
constexpr size_t kMaxLabelBytes = size_t(256) << 20, kMaxImageBytes = size_t(2) << 30;

// First and last bytes of a file.
struct FileEnds {
  std::vector<uint8_t> head;
  std::array<uint8_t, 12> tail{};
  size_t size = 0;
};

FileEnds read_ends(const std::string& path) {
  FileEnds ends;
  const int fd = open_regular_file(path, ends.size);
  ends.head.resize(std::min(ends.size, kHeadBytes));
  errno = 0;
  bool good = ::pread(fd, ends.head.data(), ends.head.size(), 0) == ssize_t(ends.head.size());
  if (good && ends.size >= ends.tail.size())
    good = ::pread(fd, ends.tail.data(), ends.tail.size(), off_t(ends.size - ends.tail.size())) == ssize_t(ends.tail.size());
  const int error = good ? 0 : errno != 0 ? errno : EIO;  // it may have become shorter meanwhile
  ::close(fd);
  if (!good) throw_file_error("read", path, error);
  return ends;
}

ImageInfo probe_file(const std::string& path, const FileEnds& ends) {
  try {
    return probe_image(ends.head, path);
  } catch (const Error&) {
    if (ends.size <= ends.head.size()) throw;
    const std::string whole = read_file(path, kMaxImageBytes, FileKind::kRegular);  // a long EXIF or colour profile before the size
    return probe_image({reinterpret_cast<const uint8_t*>(whole.data()), whole.size()}, path);
  }
}

// A file that ends as its format ends is taken as complete; any other is decoded to see.
bool ends_well(ImageFormat format, const FileEnds& ends) {
  if (ends.size < ends.tail.size()) return false;
  if (format == ImageFormat::kJpeg) return ends.tail[10] == 0xFF && ends.tail[11] == 0xD9;
  if (format == ImageFormat::kPng) return std::string_view(reinterpret_cast<const char*>(ends.tail.data()) + 4, 4) == "IEND";
  return false;
}

struct Slot {
  ScanImage image;
  std::vector<Finding> findings;
  LabelFile labels;
  bool usable = false, has_label_file = false;
};

Finding from_error(const char* code, const Error& e) {
  return {Severity::kWarning, code, e.where(), e.message() + "; the image is left out", e.hint()};
}

void scan_one(const std::string& file, int64_t classes, const ScanOptions& options, Slot& slot) {
  slot.image.file = file;
  slot.image.label_file = label_path(file);
  try {
    const FileEnds ends = read_ends(file);
    const ImageInfo info = probe_file(file, ends);
    if (options.verify_pixels || !ends_well(info.format, ends)) read_image(file);
    slot.image.height = info.height;
    slot.image.width = info.width;
    const bool scan_differs =
        info.orientation == 5 || info.orientation == 7 || (info.format == ImageFormat::kPng && info.orientation > 4);
    if (options.policy == LabelPolicy::kOriginal && scan_differs) std::swap(slot.image.height, slot.image.width);
    if (info.height < kMinSide || info.width < kMinSide)
      throw Error(ErrorCode::kData,
                  fmt::format("the image has {} x {} pixels, a side needs at least {}", info.width, info.height, kMinSide), {file},
                  "remove it");
  } catch (const Error& e) {
    const bool small = slot.image.height > 0 && std::min(slot.image.height, slot.image.width) < kMinSide;
    if (options.policy == LabelPolicy::kStrict) throw;
    slot.findings.push_back(from_error(small ? "image-small" : "image-unreadable", e));
    return;
  }
  // A file that may not be looked at, or a link that leads nowhere, is no reason to take the image for background.
  std::error_code unknown, ignored;
  slot.has_label_file = fs::exists(slot.image.label_file, unknown) || unknown || fs::is_symlink(slot.image.label_file, ignored);
  if (slot.has_label_file) {
    try {
      slot.labels = parse_labels(read_file(slot.image.label_file, kMaxLabelBytes, FileKind::kRegular), slot.image.label_file, classes,
                                 options.policy, options.single_cls);
    } catch (const Error& e) {
      if (options.policy == LabelPolicy::kStrict) throw;
      slot.findings.push_back(from_error("file-unreadable", e));
      return;
    }
    slot.findings = std::move(slot.labels.findings);
  }
  slot.usable = !slot.labels.unusable;
  slot.image.objects = std::move(slot.labels.objects);
}

// Label files beside those of the images that belong to no image.
std::vector<std::string> orphans(const std::vector<std::string>& images) {
  std::set<fs::path> folders;
  std::unordered_set<std::string> expected;
  for (const std::string& image : images) {
    const std::string label = label_path(image);
    expected.insert(label);
    folders.insert(fs::path(label).parent_path());
  }
  std::vector<std::string> out;
  for (const fs::path& folder : folders) {
    if (folder == fs::path(images[0]).parent_path()) continue;  // labels beside images: other text files may lie there
    std::error_code ignored;
    for (const auto& entry : fs::directory_iterator(folder, ignored))
      if (entry.path().extension() == ".txt" && !expected.contains(entry.path().generic_string()))
        out.push_back(entry.path().generic_string());
  }
  // An image that is there but not in this list belongs to another split.
  if (!out.empty()) {
    std::set<fs::path> image_folders;
    for (const std::string& image : images) image_folders.insert(fs::path(image).parent_path());
    for (const fs::path& folder : image_folders) {
      std::error_code ignored;
      for (const auto& entry : fs::directory_iterator(folder, ignored)) expected.insert(label_path(entry.path().generic_string()));
    }
    std::erase_if(out, [&](const std::string& label) { return expected.contains(label); });
  }
  std::sort(out.begin(), out.end());
  return out;
}

std::vector<Slot> scan_each(const std::vector<std::string>& images, int64_t classes, const ScanOptions& options,
                            ProgressCounter& progress) {
  std::vector<Slot> slots(images.size());
  std::vector<std::exception_ptr> errors(images.size());  // the first in order counts, not the first in time
  parallel_for(int64_t(images.size()), 8, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      try {
        scan_one(images[size_t(i)], classes, options, slots[size_t(i)]);
      } catch (...) {
        errors[size_t(i)] = std::current_exception();
      }
      progress.image_done();
    }
  });
  for (const std::exception_ptr& e : errors)
    if (e) std::rethrow_exception(e);
  return slots;
}

// Label files with rows that are boxes.
struct BoxFiles {
  int64_t count = 0;
  std::string first;
};

// Counters, findings and usable images, in the order of the slots.
LabelScan sum_up(std::vector<Slot>& slots, BoxFiles& boxes) {
  LabelScan scan;
  for (Slot& slot : slots) {
    scan.findings.insert(scan.findings.end(), std::make_move_iterator(slot.findings.begin()),
                         std::make_move_iterator(slot.findings.end()));
    scan.dropped_rows += slot.labels.dropped;
    scan.duplicates += slot.labels.duplicates;
    scan.box_rows += slot.labels.box_rows;
    if (slot.labels.box_rows > 0 && boxes.count++ == 0) boxes.first = slot.image.label_file;
    if (!slot.usable) {
      ++scan.left_out;
      continue;
    }
    if (!slot.has_label_file)
      ++scan.missing;
    else if (slot.image.objects.empty())
      ++scan.empty;
    else
      ++scan.found;
    scan.objects += int64_t(slot.image.objects.size());
    scan.images.push_back(std::move(slot.image));
  }
  return scan;
}

bool has_polygon(const ScanImage& image) {
  return std::any_of(image.objects.begin(), image.objects.end(), [](const LabelObject& o) { return !o.polygon.empty(); });
}

// Sets that cannot be trained on: an Error, or a finding where the caller wants to go on (ScanOptions::refuse).
void judge(LabelScan& scan, const std::vector<std::string>& images, const BoxFiles& boxes, const ScanOptions& options) {
  const std::string place = fs::path(images[0]).parent_path().string();
  const auto refuse = [&](const char* code, const Error& e) {
    if (options.refuse) throw e;
    Finding& f = scan.findings.emplace_back();
    f.code = code;
    f.where = e.where();
    f.message = e.message();
    f.hint = e.hint();
  };
  if (boxes.count > 0 && std::none_of(scan.images.begin(), scan.images.end(), has_polygon))
    refuse("set-boxes",
           Error(ErrorCode::kData,
                 fmt::format("all {} label rows are boxes: this is a detection set, segmentation needs polygons", scan.box_rows),
                 {boxes.first}, "use segmentation labels: class x1 y1 x2 y2 x3 y3 ..."));
  if (options.policy == LabelPolicy::kOriginal && boxes.count > 0)
    throw Error(
        ErrorCode::kData,
        fmt::format("{} files hold boxes and others polygons; the original then discards all polygons and fails", boxes.count),
        {place}, "use the lenient label policy, or remove the box files");
  if (scan.images.empty())
    refuse("set-unusable",
           Error(ErrorCode::kData,
                 fmt::format("none of the {} images can be used; the first reason: {}", images.size(),
                             scan.findings.empty() ? "" : to_string(scan.findings[0])),
                 {place}, "correct or remove that file, then the next one that is named"));
}

// Label files without an image, images without a label file.
void note_unpaired_files(LabelScan& scan, const std::vector<std::string>& images) {
  const auto note = [&](const char* code, const std::string& file, const std::string& message, const std::string& hint) {
    Finding& f = scan.findings.emplace_back();
    f.severity = Severity::kNote;
    f.code = code;
    f.where.file = file;
    f.message = message;
    f.hint = hint;
  };
  if (scan.missing > 0) {
    std::string hint;
    if (scan.missing == int64_t(scan.images.size())) hint = fmt::format("labels are sought at e.g. {}", label_path(images[0]));
    note("labels-missing", fs::path(images[0]).parent_path().string(),
         fmt::format("{} images have no label file and count as background", scan.missing), hint);
  }
  const std::vector<std::string> lone = orphans(images);
  scan.orphan_labels = int64_t(lone.size());
  for (size_t i = 0; i < std::min<size_t>(lone.size(), size_t(kMaxFindings)); ++i)
    note("labels-orphan", lone[i], "there is no image for this label file", "add the image, or remove the file");
}

}  // namespace

LabelScan scan_labels(const std::vector<std::string>& images, int64_t classes, const ScanOptions& options) {
  const ProgressHook nobody;
  ProgressCounter progress(nobody, {}, 0);
  return scan_labels(images, classes, options, progress);
}

LabelScan scan_labels(const std::vector<std::string>& images, int64_t classes, const ScanOptions& options,
                      ProgressCounter& progress) {
  TESSERA_CHECK(!images.empty() && classes > 0, "scan_labels: {} images, {} classes", images.size(), classes);
  std::vector<Slot> slots = scan_each(images, classes, options, progress);
  BoxFiles boxes;
  LabelScan scan = sum_up(slots, boxes);
  judge(scan, images, boxes, options);
  note_unpaired_files(scan, images);
  return scan;
}

std::string label_rows(const std::vector<LabelObject>& objects) {
  std::string text;
  for (const LabelObject& o : objects) {
    text += fmt::format("{}", o.class_id);
    for (const Point& p : o.polygon) fmt::format_to(std::back_inserter(text), " {} {}", p.x, p.y);
    text += '\n';
  }
  return text;
}

std::string summary(const LabelScan& s) {
  std::string text =
      fmt::format("{} images ({} background), {} objects", s.found + s.missing + s.empty, s.missing + s.empty, s.objects);
  if (s.left_out > 0) text += fmt::format("; {} images left out", s.left_out);
  if (s.dropped_rows > 0) text += fmt::format("; {} rows skipped", s.dropped_rows);
  if (s.orphan_labels > 0) text += fmt::format("; {} label files without an image", s.orphan_labels);
  return text;
}

}  // namespace tessera
