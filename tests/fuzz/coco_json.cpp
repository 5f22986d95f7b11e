// COCO instances and results, read and scored against each other. The first byte says which of the two the rest is.
#include "data/coco_json.h"

#include "tests/fuzz/fuzz.h"
#include "yolo/eval/coco_eval.h"

using namespace tessera;

namespace {

constexpr std::string_view kTruth =
    R"({"images": [{"id": 7, "height": 4, "width": 6, "file_name": "sub/7.jpg"}, {"id": 8, "height": 5, "width": 6, "file_name": "b.png"}],
 "categories": [{"id": 3, "name": "cat"}, {"id": 5, "name": "dog"}],
 "annotations": [
  {"id": 1, "image_id": 7, "category_id": 3, "iscrowd": 0, "area": 6, "bbox": [2, 1, 3, 2], "segmentation": [[1, 1, 4, 1, 4, 3, 1, 3]]},
  {"id": 2, "image_id": 7, "category_id": 5, "iscrowd": 1, "area": 6.5, "bbox": [2, 1, 3, 2], "segmentation": {"size": [4, 6], "counts": [9, 2, 2, 2, 2, 2, 5]}}]})";
constexpr std::string_view kFound =
    R"([{"image_id": 7, "category_id": 3, "bbox": [2, 1, 3, 2], "score": 0.9, "segmentation": {"size": [4, 6], "counts": "52203"}},
 {"image_id": "b", "category_id": 3, "bbox": [0, 0, 1, 1], "score": 1e-3, "segmentation": [[0, 0, 3, 0, 3, 3.5]]}])";

// Scoring walks all pairs of an image and all runs of a mask.
void score(const CocoInstances& truth, CocoResults results, bool masks) {
  masks = masks && !results.records.empty();
  for (const CocoResult& r : results.records) masks = masks && r.has_mask;
  const CocoEval eval(truth, std::move(results));
  for (const IouKind kind : {IouKind::kBox, IouKind::kMask}) {
    if (kind == IouKind::kMask && !masks) continue;
    const double map = eval.evaluate(kind).summary.map();
    fuzz::require(map >= -1 && map <= 1, "a mean precision is -1 or 0 to 1");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  static const CocoInstances known = read_coco_instances(fuzz::file_with("known.json", kTruth));
  static const std::string found = fuzz::file_with("found.json", kFound);
  const int kind = data[0] % 4;
  const std::string file = fuzz::file_with("file.json", data + 1, size - 1);
  if (kind == 3) {
    CocoInstances truth;
    if (!fuzz::takes_or_refuses(file, [&] { truth = read_coco_instances(file); })) return 0;
    fuzz::takes_or_refuses(found, [&] { score(truth, read_coco_results(found, truth, ReadMasks::kAll), true); });
  } else {
    const ReadMasks masks = std::array{ReadMasks::kNo, ReadMasks::kComparable, ReadMasks::kAll}[size_t(kind)];
    fuzz::takes_or_refuses(file, [&] { score(known, read_coco_results(file, known, masks), masks != ReadMasks::kNo); });
  }
  return 0;
}
