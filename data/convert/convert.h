// Other label forms to YOLO segmentation labels and back. What is written is read again and its masks are compared with those it
// was made of, so that a conversion says what it lost.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "data/finding.h"
#include "data/progress.h"

namespace tessera {

struct ConvertReport {
  int64_t images = 0, background = 0;  // read; without any object
  int64_t objects = 0;                 // written
  int64_t crowds = 0, duplicates = 0,
          empty = 0;            // left out: crowd regions; class and box of an object above; no area, or no polygon
  int64_t boxes = 0, runs = 0;  // written: boxes without a mask, as their four corners; run-length masks, by their outlines
  int64_t joined = 0;           // several parts or holes, written as one chain of vertices
  int64_t changed = 0;          // whose mask, read back, has an IoU below kFaithfulIou with what it was made of
  double least_iou = 1, sum_iou = 0;
  int64_t linked = 0;                // images linked into the new set
  std::vector<std::string> written;  // files and folders, for the user
  std::vector<Finding> findings;     // notes, and what was lost: the first kMaxFindings

  double mean_iou() const { return objects > 0 ? sum_iou / double(objects) : 1; }
  void add(const ConvertReport& more);
};
constexpr double kFaithfulIou = 0.9;

// COCO instances JSON -> `to`/labels/<split>/*.txt, `to`/images/<split>/ (links to images that are found) and `to`/data.yaml, a
// data set that trains. By the original's rules (spec 10.1: rows in the order of annotations, crowds and repeated boxes left out,
// six digits), so that the text is the same where they keep the object; beyond them:
// - classes count the categories by rising id, and data.yaml has their names;
// - run-length masks are converted (mask_outline), boxes without a mask become their four corners;
// - coordinates outside the image are clipped; sub-folders in file_name are kept.
// `from`: a JSON file; or a folder with such files, or with sub-folders that hold an _annotations.coco.json. A split is called as
// its file without "instances_" and ".json", or as its sub-folder. Images are sought in `images` (may be empty), beside the JSON,
// and in the folders images/<split> and <split> beside it and one above. Error(kUsage) when `to` has labels of that split already;
// errors of read_coco_instances; Error(kData) for a file_name that leaves the folder, and for categories that differ from those of
// another split in `to`.
ConvertReport coco_to_yolo(const std::filesystem::path& from, const std::filesystem::path& to,
                           const std::filesystem::path& images = {}, const ProgressHook& progress = {});

// Grey images in which a pixel's value is its class + 1 and 0 is background (two values, 0 and 255: one class; otherwise 255 is
// left out) -> the same layout as coco_to_yolo's. An object is an 8-connected component of one value. `from`: a folder of images,
// the split "train"; or of such folders, one for each split. Error(kData) for images with colours.
ConvertReport masks_to_yolo(const std::filesystem::path& from, const std::filesystem::path& to,
                            const std::filesystem::path& images = {}, const ProgressHook& progress = {});

// The labels of a split of a data yaml -> COCO instances JSON: polygons in pixels to two decimals, area and bbox of each,
// categories class + 1, or COCO's own where is_coco_set(). A file_name begins below the folder that all images share. Image ids
// are the numbers that file stems are, or count from 1. Bad rows are left out and are findings, as in training. Errors of
// load_dataset_yaml, list_images and scan_labels.
ConvertReport yolo_to_coco(const std::string& data, std::string_view split, const std::filesystem::path& to,
                           const std::filesystem::path& data_root = {}, const ProgressHook& progress = {});

}  // namespace tessera
