// A few thousand damaged COCO files: each is read and scored, or refused with its name and a remedy.
#include "tests/support/damage.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "data/coco_json.h"
#include "tests/support/temp_folder.h"
#include "yolo/eval/coco_eval.h"

using namespace tessera;
using testing::Damage;
using testing::takes_or_refuses;
using testing::Verdicts;

namespace fs = std::filesystem;

namespace {

const std::string kTruth = R"({"info": {"a": [1, "}"]},
 "images": [{"id": 7, "height": 4, "width": 6, "file_name": "sub/000007.jpg"}, {"id": 8, "height": 5, "width": 6, "file_name": "b.png"}],
 "categories": [{"id": 3, "name": "cat", "supercategory": "animal"}, {"id": 5, "name": "dog"}],
 "annotations": [
  {"id": 1, "image_id": 7, "category_id": 3, "iscrowd": 0, "area": 6, "bbox": [2, 1, 3, 2], "segmentation": [[1, 1, 4, 1, 4, 3, 1, 3], [0, 0, 1, 0, 1, 1]]},
  {"id": 2, "image_id": 7, "category_id": 5, "iscrowd": 1, "area": 6.5, "bbox": [2, 1, 3, 2], "segmentation": {"size": [4, 6], "counts": [9, 2, 2, 2, 2, 2, 5]}},
  {"id": 3, "image_id": 8, "category_id": 3, "area": 1e1, "bbox": [0, 0, 1, 1], "segmentation": {"counts": "9220009", "size": [5, 6]}}
 ]
})";
const std::string kFound = R"([{"image_id": 7, "category_id": 3, "bbox": [2, 1, 3, 2], "score": 0.9, "segmentation": {"size": [4, 6], "counts": "52203"}},
 {"image_id": 7, "category_id": 5, "bbox": [0, 0, 2.5, 3], "score": 0.25, "segmentation": {"size": [4, 6], "counts": [9, 2, 13]}},
 {"image_id": "b", "category_id": 3, "bbox": [0, 0, 1, 1], "score": 1e-3, "segmentation": [[0, 0, 3, 0, 3, 3.5]]}
])";

// Not over an earlier file: some file systems flush one that is cut to nothing.
std::string written(const testing::TempFolder& folder, const char* name, const std::string& text) {
  fs::remove(folder / name);
  return folder.write(name, text).string();
}

void score(const CocoInstances& truth, CocoResults results, bool masks) {
  masks = masks && !results.records.empty();
  for (const CocoResult& r : results.records) masks = masks && r.has_mask;
  const CocoEval eval(truth, std::move(results));
  for (const IouKind kind : {IouKind::kBox, IouKind::kMask}) {
    if (kind == IouKind::kMask && !masks) continue;
    const CocoReport report = eval.evaluate(kind);
    CHECK((report.summary.map() >= -1 && report.summary.map() <= 1));  // -1: nothing to find; false for NaN
  }
}

const std::vector<std::string> kWords = {"\"iscrowd\": 1", "\"bbox\": []", "null", "true", "{}", "[]", "[[]]", "\"counts\": \"", "\\u0000", "\\ud800", ",", ":", "\"id\": 1,", "\"size\": [65536, 65536],", "\"height\": 65536, \"width\": 65536,", "\"score\": \"x\","};

}  // namespace

TEST_CASE("damage: COCO instances are read and scored, or refused by name") {
  const testing::TempFolder folder;
  const std::string results = written(folder, "results.json", kFound);
  Damage damage(1, kWords);
  Verdicts verdicts, scored;
  for (int round = 0; round < 5000; ++round) {
    CAPTURE(round);
    const std::string file = written(folder, "truth.json", damage(kTruth));
    takes_or_refuses(file, [&] {
      const CocoInstances truth = read_coco_instances(file);
      // The results may not fit this truth any more.
      takes_or_refuses(results, [&] { score(truth, read_coco_results(results, truth, ReadMasks::kAll), true); }, scored);
    }, verdicts);
  }
  CHECK(verdicts.taken > 300);
  CHECK(verdicts.refused > 1000);
}

TEST_CASE("damage: COCO results are read and scored, or refused by name") {
  const testing::TempFolder folder;
  const CocoInstances truth = read_coco_instances(written(folder, "truth.json", kTruth));
  Damage damage(2, kWords);
  Verdicts verdicts;
  for (int round = 0; round < 5000; ++round) {
    CAPTURE(round);
    const std::string file = written(folder, "results.json", damage(kFound));
    const ReadMasks masks = std::array{ReadMasks::kNo, ReadMasks::kComparable, ReadMasks::kAll}[size_t(round % 3)];
    takes_or_refuses(file, [&] { score(truth, read_coco_results(file, truth, masks), masks != ReadMasks::kNo); }, verdicts);
  }
  CHECK(verdicts.taken > 100);
  CHECK(verdicts.refused > 1000);
}
