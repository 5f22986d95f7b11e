#include "data/convert/convert.h"

#include <cstdio>
#include <filesystem>

#include "data/dataset_yaml.h"
#include "tools/verbs/finding_json.h"
#include "tools/verbs/json_text.h"
#include "tools/verbs/split_progress.h"
#include "tools/verbs/verbs.h"

namespace tessera {

namespace {

namespace fs = std::filesystem;

bool holds_json(const fs::path& folder) {
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored)) {
    if (entry.path().extension() == ".json" || fs::exists(entry.path() / "_annotations.coco.json", ignored)) return true;
  }
  return false;
}

ConvertReport convert_any(const Config& config, const ProgressHook& progress) {
  const fs::path from = config.text("from"), to = config.text("to"), images = config.text("images");
  std::error_code ignored;
  if (!images.empty() && !fs::is_directory(images, ignored)) {
    throw Error(ErrorCode::kData, "no such folder of images", {images.string()}, "--images takes a folder");
  }
  const bool yaml = from.extension() == ".yaml" || from.extension() == ".yml" || fs::exists(from / "data.yaml", ignored) ||
                    builtin_dataset_yaml(from.string()).has_value();
  if (!yaml) {
    if (!fs::exists(from, ignored)) {
      throw Error(ErrorCode::kData, "no such file or folder", {from.string()},
                  "--from takes a COCO JSON file or a folder of them, a folder of mask images, or a data yaml");
    }
    return from.extension() == ".json" || holds_json(from) ? coco_to_yolo(from, to, images, progress)
                                                             : masks_to_yolo(from, to, images, progress);
  }
  if (to.extension() != ".json") {
    throw Error(ErrorCode::kUsage, fmt::format("--to {}: a data yaml becomes a COCO JSON file", to.string()), {},
                "end its name in .json");
  }
  return yolo_to_coco(from.string(), config.text("split"), to, config.text("data_root"), progress);
}

}  // namespace

int run_convert(const Config& config) {
  const LogStyle log = prepare(config);
  for (const char* name : {"from", "to"}) {
    if (!config.is_set(name)) {
      throw Error(ErrorCode::kUsage, fmt::format("--{} is missing", name), {},
                  "tessera convert --from instances_val.json --to my-set; --help has more");
    }
  }
  SplitProgress progress(log);
  const ConvertReport r = convert_any(
      config, [&](const std::string& what, int64_t done, int64_t total) { progress.update(what, done, total); });
  if (config.flag("json")) {
    const nlohmann::ordered_json left_out = {{"crowds", r.crowds}, {"duplicates", r.duplicates}, {"empty", r.empty}};
    print_json({{"command", "convert"},
                {"from", config.text("from")},
                {"to", config.text("to")},
                {"images", r.images},
                {"background", r.background},
                {"objects", r.objects},
                {"left_out", left_out},
                {"from_boxes", r.boxes},
                {"from_masks", r.runs},
                {"joined", r.joined},
                {"mean_iou", r.mean_iou()},
                {"least_iou", r.least_iou},
                {"changed", r.changed},
                {"pictures", r.linked},
                {"written", r.written},
                {"findings", findings_json(r.findings)}});
    return 0;
  }
  for (const Finding& f : r.findings) fmt::print("{}\n", line_of(f));
  fmt::print("{} images ({} background), {} objects; left out: {} crowd regions, {} repeated, {} without area\n", r.images,
             r.background, r.objects, r.crowds, r.duplicates, r.empty);
  if (r.joined + r.boxes + r.runs > 0) {
    fmt::print("{} objects of several parts or holes joined to one chain, {} from masks, {} from boxes alone\n", r.joined, r.runs,
               r.boxes);
  }
  fmt::print("masks read back: mean IoU {:.4f}, least {:.4f}, {} below {:.1f}\n", r.mean_iou(), r.least_iou, r.changed,
             kFaithfulIou);
  if (r.linked > 0) fmt::print("{} images linked\n", r.linked);
  for (const std::string& path : r.written) fmt::print("written  {}\n", path);
  return 0;
}

}  // namespace tessera
