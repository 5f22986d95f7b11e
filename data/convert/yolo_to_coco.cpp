#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "data/coco_json.h"
#include "data/convert/label_folder.h"
#include "data/dataset_yaml.h"
#include "data/label_scan.h"
#include "tensor/base/file.h"

namespace tessera {

namespace fs = std::filesystem;

namespace {

// Two decimals, as COCO's own files have, without zeros at the end.
std::string decimal(double value) {
  std::string text = fmt::format("{:.2f}", value);
  while (text.back() == '0') text.pop_back();
  if (text.back() == '.') text.pop_back();
  return text == "-0" ? "0" : text;
}

double rounded(double value) { return round_decimals(value, 2); }

std::string quoted(const std::string& text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

// File stems as numbers, where all are and no two are the same; else 1, 2, 3, ... (spec 9.6).
std::vector<int64_t> image_ids(const std::vector<ScanImage>& images) {
  std::vector<int64_t> ids;
  std::set<int64_t> seen;
  for (const ScanImage& image : images) {
    const auto id = coco_image_id(fs::path(image.file).stem().string());
    if (!id || !seen.insert(*id).second) break;
    ids.push_back(*id);
  }
  if (ids.size() == images.size()) return ids;
  ids.resize(images.size());
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = int64_t(i) + 1;
  return ids;
}

// The folder that all images lie below.
fs::path common_folder(const std::vector<ScanImage>& images) {
  fs::path folder = fs::path(images[0].file).parent_path();
  for (const ScanImage& image : images) {
    const auto below = [&] {
      const fs::path own = fs::path(image.file).parent_path();
      return std::mismatch(folder.begin(), folder.end(), own.begin(), own.end()).first == folder.end();
    };
    while (!below()) folder = folder.parent_path();
  }
  return folder;
}

std::string annotation_text(const LabelObject& object, const ScanImage& image, int64_t id, int64_t image_id, int64_t category,
                            ConvertReport& report) {
  std::vector<double> xy, exact;
  std::string polygon;
  double x1 = INFINITY, y1 = INFINITY, x2 = -INFINITY, y2 = -INFINITY;
  for (const Point& p : object.polygon) {
    const double x = double(p.x) * image.width, y = double(p.y) * image.height;
    exact.insert(exact.end(), {x, y});
    xy.insert(xy.end(), {rounded(x), rounded(y)});
    x1 = std::min(x1, xy[xy.size() - 2]), x2 = std::max(x2, xy[xy.size() - 2]);
    y1 = std::min(y1, xy.back()), y2 = std::max(y2, xy.back());
    polygon += fmt::format("{}{}, {}", polygon.empty() ? "" : ", ", decimal(x), decimal(y));
  }
  const Rle written = rle_from_polygon(xy, image.height, image.width), truth = rle_from_polygon(exact, image.height, image.width);
  const double iou = rle_area(truth) == 0 ? 1 : rle_iou({&written, 1}, {&truth, 1}, {})[0];
  report.sum_iou += iou;
  report.least_iou = std::min(report.least_iou, iou);
  report.changed += iou < kFaithfulIou;
  ++report.objects;
  return fmt::format(
      R"({{"id": {}, "image_id": {}, "category_id": {}, "iscrowd": 0, "area": {}, "bbox": [{}, {}, {}, {}], "segmentation": [[{}]]}})",
      id, image_id, category, rle_area(written), decimal(x1), decimal(y1), decimal(x2 - x1), decimal(y2 - y1), polygon);
}

}  // namespace

ConvertReport yolo_to_coco(const std::string& data, std::string_view split, const fs::path& to, const fs::path& data_root,
                           const ProgressHook& progress) {
  const DatasetYaml yaml = load_dataset_yaml(data, data_root, {&split, 1}, SplitKeys::kAny);
  const std::vector<std::string> files = list_images(yaml, split);
  ProgressCounter counter(progress, fmt::format("reading {}", split), int64_t(files.size()));
  const LabelScan scan = scan_labels(files, int64_t(yaml.names.size()), {}, counter);
  ConvertReport report;
  report.findings = scan.findings;
  const bool official = is_coco_set(data, yaml.names.size());
  const std::vector<int64_t> ids = image_ids(scan.images);
  const fs::path folder = common_folder(scan.images);

  if (!to.parent_path().empty()) convert::make_folders(to.parent_path());
  write_file_atomic(to, [&](AtomicFile& out) {
    out.write(fmt::format("{{\"info\": {{\"description\": {}}},\n\"categories\": [",
                          quoted(fmt::format("{} of {}, by tessera convert", split, yaml.source))));
    for (size_t i = 0; i < yaml.names.size(); ++i) {
      out.write(fmt::format("{}{{\"id\": {}, \"name\": {}}}", i == 0 ? "\n" : ",\n",
                            official ? coco_category_of_class(int(i)) : int(i) + 1, quoted(yaml.names[i])));
    }
    out.write("],\n\"images\": [");
    for (size_t i = 0; i < scan.images.size(); ++i) {
      const ScanImage& image = scan.images[i];
      out.write(fmt::format("{}{{\"id\": {}, \"file_name\": {}, \"width\": {}, \"height\": {}}}", i == 0 ? "\n" : ",\n", ids[i],
                            quoted(fs::path(image.file).lexically_relative(folder).generic_string()), image.width, image.height));
    }
    out.write("],\n\"annotations\": [");
    for (size_t i = 0; i < scan.images.size(); ++i) {
      const ScanImage& image = scan.images[i];
      std::string text;
      for (const LabelObject& object : image.objects) {
        text += report.objects == 0 ? "\n" : ",\n";
        const int64_t category = official ? coco_category_of_class(object.class_id) : object.class_id + 1;
        text += annotation_text(object, image, report.objects + 1, ids[i], category, report);
      }
      out.write(text);
      ++report.images;
      report.background += image.objects.empty();
    }
    out.write("]}\n");
  });
  report.written.push_back(to.string());
  return report;
}

}  // namespace tessera
