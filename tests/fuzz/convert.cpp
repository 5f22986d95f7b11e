// COCO annotations to a data set in YOLO's form and back: what is written is read, as the objects and classes that were told.
#include "data/convert/convert.h"

#include "data/coco_json.h"
#include "data/dataset_yaml.h"
#include "data/image.h"
#include "data/yolo_txt.h"
#include "tensor/base/file.h"
#include "tests/fuzz/fuzz.h"

using namespace tessera;

namespace fs = std::filesystem;

namespace {

int64_t objects_in(const fs::path& labels, int64_t classes) {
  int64_t objects = 0;
  for (const auto& entry : fs::recursive_directory_iterator(labels)) {
    if (!entry.is_regular_file()) continue;
    const LabelFile file = parse_labels(read_file(entry.path()), "labels", classes, LabelPolicy::kLenient);
    objects += int64_t(file.objects.size());
    for (const Finding& f : file.findings)  // two annotations may become equal rows
      fuzz::require(std::string_view(f.code) == "row-twice", "rows that are written can be used");
    objects += file.duplicates;
  }
  return objects;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const fs::path images = [] {
    const fs::path folder = fuzz::folder() / "images";
    fs::create_directories(folder / "sub");
    fs::create_directories(fuzz::folder() / "in");
    const Image image(16, 24);
    for (const char* name : {"sub/7.png", "b.png", "c.png"}) write_png(folder / name, image);
    return folder;
  }();
  const std::string file = fuzz::file_with("in/instances_train.json", data, size);
  fuzz::file_with("in/instances_val.json", data, size);
  const fs::path to = fuzz::folder() / "to", back = fuzz::folder() / "back.json";
  fs::remove_all(to);
  fs::remove(back);
  ConvertReport report;
  const auto answers = {ErrorCode::kData, ErrorCode::kIo};  // names that the file system refuses
  if (!fuzz::takes_or_refuses(
          fuzz::folder().string(), [&] { report = coco_to_yolo(fuzz::folder() / "in", to, images); }, answers))
    return 0;
  fuzz::require(report.least_iou >= 0 && report.mean_iou() >= report.least_iou && report.mean_iou() <= 1,
                "overlaps are parts of 1");
  const DatasetYaml yaml = load_dataset_yaml((to / "data.yaml").string());
  CocoInstances truth = read_coco_instances(file);
  std::sort(truth.categories.begin(), truth.categories.end(), [](const auto& a, const auto& b) { return a.id < b.id; });
  fuzz::require(yaml.names.size() == truth.categories.size(), "a class for each category");
  for (size_t i = 0; i < yaml.names.size(); ++i)
    fuzz::require(yaml.names[i] == truth.categories[i].name, "classes are called as their categories");
  fuzz::require(objects_in(to / "labels", int64_t(yaml.names.size())) == report.objects, "the rows are as many as was told");
  if (report.linked == 0) return 0;
  if (fuzz::takes_or_refuses(
          fuzz::folder().string(), [&] { yolo_to_coco((to / "data.yaml").string(), "train", back); }, answers))
    read_coco_instances(back);
  return 0;
}
