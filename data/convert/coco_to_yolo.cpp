#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <deque>
#include <set>
#include <unordered_map>

#include "data/coco_json.h"
#include "data/convert/label_folder.h"
#include "data/convert/mask_outline.h"

namespace tessera {

namespace fs = std::filesystem;
using namespace convert;

namespace {

constexpr std::string_view kRoboflow = "_annotations.coco.json";

std::string split_of(const fs::path& file) {
  if (file.filename() == kRoboflow) {
    const std::string folder = fs::absolute(file).parent_path().filename().string();
    return folder == "valid" ? "val" : folder;
  }
  std::string stem = file.stem().string();
  if (stem.starts_with("instances_")) stem.erase(0, std::string_view("instances_").size());
  return stem.empty() ? "train" : stem;
}

std::vector<fs::path> json_files(const fs::path& from) {
  if (!fs::is_directory(from)) return {from};
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(from)) {
    if (entry.path().extension() == ".json") files.push_back(entry.path());
    if (fs::exists(entry.path() / kRoboflow)) files.push_back(entry.path() / kRoboflow);
  }
  std::sort(files.begin(), files.end());
  if (files.empty()) {
    throw Error(ErrorCode::kData, "no COCO annotations in this folder", {from.string()},
                "give a JSON file, a folder with instances_*.json, or one whose sub-folders hold an _annotations.coco.json");
  }
  return files;
}

// Where images may lie.
class ImageFolders {
 public:
  ImageFolders(const fs::path& images, const fs::path& json, const std::string& split) {
    const fs::path here = fs::absolute(json).parent_path();
    if (!images.empty()) folders_ = {images, images / split};
    for (const fs::path& base : {here, here.parent_path()}) {
      folders_.insert(folders_.end(), {base / "images" / split, base / split});
    }
    folders_.push_back(here);
  }

  fs::path find(const fs::path& name) const {
    std::error_code ignored;
    for (const fs::path& folder : folders_) {
      if (fs::exists(folder / name, ignored)) return folder / name;
    }
    return {};
  }

 private:
  std::vector<fs::path> folders_;
};

// The rings that an annotation's row is made of, in pixels.
std::vector<PrecisePolygon> parts_of(const CocoAnnotation& a, const BoxLtwh& box, const Rle& mask) {
  std::vector<PrecisePolygon> parts;
  for (const std::vector<double>& xy : a.polygons) {
    if (xy.size() < 6) continue;  // encloses nothing, or stands for a box (coco_mask)
    PrecisePolygon& part = parts.emplace_back();
    for (size_t i = 0; i + 1 < xy.size(); i += 2) part.push_back({xy[i], xy[i + 1]});
  }
  if (!parts.empty()) return parts;
  if (!a.rle && a.polygons.empty()) {
    const double x1 = box[0], y1 = box[1], x2 = box[0] + box[2], y2 = box[1] + box[3];
    return {{{x1, y1}, {x2, y1}, {x2, y2}, {x1, y2}}};
  }
  std::vector<uint8_t> pixels(size_t(mask.height) * size_t(mask.width));
  rle_decode(mask, pixels.data());
  return mask_outline(pixels.data(), mask.height, mask.width);
}

class Converter {
 public:
  explicit Converter(const fs::path& file) : coco_(read_coco_instances(file)), of_image_(coco_.images.size()) {
    std::vector<CocoCategory> categories = coco_.categories;
    std::sort(categories.begin(), categories.end(), [](const CocoCategory& a, const CocoCategory& b) { return a.id < b.id; });
    for (size_t i = 0; i < categories.size(); ++i) {
      class_of_.emplace(categories[i].id, int64_t(i));
      names_.push_back(categories[i].name);
    }
    for (const CocoAnnotation& a : coco_.annotations) of_image_[size_t(coco_.image_index.at(a.image_id))].push_back(&a);
  }

  const std::vector<std::string>& names() const { return names_; }
  const CocoInstances& coco() const { return coco_; }

  // The label file of an image; `rows` is empty of text where it has none, as the original leaves it out (spec 10.1).
  ConvertReport convert(size_t image, std::string& rows) const {
    ConvertReport report;
    std::set<std::array<double, 5>> seen;
    for (const CocoAnnotation* a : of_image_[image]) convert(coco_.images[image], *a, seen, report, rows);
    report.images = 1;
    report.background = report.objects == 0;
    return report;
  }
  bool has_annotations(size_t image) const { return !of_image_[image].empty(); }

 private:
  // Empty where the annotation has a box alone.
  Rle mask_of(const CocoAnnotation& a, const CocoImage& image) const {
    if (!a.rle && a.polygons.empty()) return {};
    try {
      return coco_mask(a, image.height, image.width);
    } catch (const Error& e) {  // knows of no file
      throw Error(e.code(), fmt::format("annotation {} of {}: {}", a.id, image.file_name, e.message()), {coco_.file}, e.hint());
    }
  }

  void convert(const CocoImage& image, const CocoAnnotation& a, std::set<std::array<double, 5>>& seen, ConvertReport& report,
               std::string& rows) const {
    const auto lost = [&](const char* code, std::string message, std::string hint) {
      add_finding(report, Severity::kWarning, code, coco_.file,
                  fmt::format("annotation {} of {}: {}", a.id, image.file_name, message), std::move(hint));
    };
    if (a.crowd) {
      ++report.crowds;
      return;
    }
    const Rle mask = mask_of(a, image);
    const BoxLtwh box = a.box ? *a.box : rle_box(mask);
    const double width = image.width, height = image.height;
    const int64_t class_id = class_of_.at(a.category_id);
    const std::array<double, 5> key = {double(class_id), (box[0] + box[2] / 2) / width, (box[1] + box[3] / 2) / height,
                                       box[2] / width, box[3] / height};
    if (!(key[3] > 0 && key[4] > 0)) {
      ++report.empty;
      return lost("object-empty", "its box has no area, it is left out", "correct its bbox");
    }
    if (!seen.insert(key).second) {
      ++report.duplicates;
      return lost("object-twice", "class and box are those of an annotation above, it is left out", "remove it");
    }
    const bool from_box = mask.counts.empty();
    const Rle truth = from_box ? rle_from_box(box, image.height, image.width) : mask;
    const std::vector<PrecisePolygon> parts = parts_of(a, box, truth);
    PrecisePolygon polygon = merge_parts(parts);
    for (PrecisePoint& p : polygon) p = {p.x / width, p.y / height};
    Row row = make_row(class_id, polygon, truth);
    if (row.text.empty()) {
      ++report.empty;
      return lost("object-empty", "no polygon is left inside the image, it is left out", "correct its segmentation");
    }
    ++report.objects;
    report.boxes += from_box;
    report.runs += a.rle.has_value();
    report.joined += parts.size() > 1;
    report.sum_iou += row.iou;
    report.least_iou = std::min(report.least_iou, row.iou);
    if (row.iou < kFaithfulIou) {
      ++report.changed;
      lost("object-changed", fmt::format("as one polygon its mask keeps an IoU of {:.3f}", row.iou),
           parts.size() > 1 ? fmt::format("it has {} parts or holes, which one chain of vertices does not hold well", parts.size())
                            : "it is no larger than a few pixels, or leaves the image");
    }
    rows += row.text + "\n";
  }

  CocoInstances coco_;
  std::vector<std::string> names_;
  std::unordered_map<int64_t, int64_t> class_of_;
  std::vector<std::vector<const CocoAnnotation*>> of_image_;
};

// A file that can be converted: it is read, its image names are good, and the new set has no labels of its name.
struct Split {
  fs::path file;
  std::string name;
  Converter converter;
  std::vector<fs::path> image_names;

  Split(const fs::path& file_, const fs::path& to) : file(file_), name(split_of(file_)), converter(file_) {
    for (const CocoImage& image : converter.coco().images) image_names.push_back(checked_name(image.file_name, file.string()));
    check_own_labels(image_names, file.string());
    check_no_labels(to, name);
  }
};

}  // namespace

ConvertReport coco_to_yolo(const fs::path& from, const fs::path& to, const fs::path& images, const ProgressHook& progress) {
  // All files are read and compared before anything is written.
  std::deque<Split> splits;
  for (const fs::path& file : json_files(from)) {
    const Split& split = splits.emplace_back(file, to);
    if (split.converter.names() != splits.front().converter.names()) {
      throw Error(ErrorCode::kData, "its categories are not those of the files before it", {file.string()},
                  "convert it into a folder of its own");
    }
    const auto same = std::find_if(splits.begin(), splits.end(), [&](const Split& s) { return s.name == split.name; });
    if (&*same != &split) {
      throw Error(ErrorCode::kUsage, fmt::format("the split '{}' is that of {} too", split.name, same->file.string()), {file.string()},
                  "rename one of the two files");
    }
  }
  ConvertReport report;
  const std::vector<std::string> classes = splits.front().converter.names();
  check_names(to, classes);
  for (const Split& split : splits) {
    LabelFolder folder(to, split.name);
    const ImageFolders folders(images, split.file, split.name);
    ProgressCounter counter(progress, "converting " + split.name, int64_t(split.image_names.size()));
    const auto convert_one = [&](int64_t i) {
      const fs::path& name = split.image_names[size_t(i)];
      std::string rows;
      ConvertReport r = split.converter.convert(size_t(i), rows);
      if (split.converter.has_annotations(size_t(i))) folder.write(name, rows);
      if (const fs::path image = folders.find(name); !image.empty()) {
        folder.link(name, image);
        r.linked = 1;
      }
      return r;
    };
    ConvertReport part = convert_each(int64_t(split.image_names.size()), convert_one, counter);
    note_missing_images(part, split.file.string(), to / "images" / split.name);
    report.add(part);
    folder.finish(report);
  }
  write_data_yaml(to, classes, report);
  return report;
}

}  // namespace tessera
