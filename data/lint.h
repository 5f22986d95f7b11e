// Everything that is wrong with a data set, found before a training: labels and images as the label scan sees them, every image
// decoded, images that occur twice, classes that nothing has; and label files rewritten without what cannot be used.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "data/progress.h"
#include "data/yolo_txt.h"

namespace tessera {

struct LintSplit {
  std::string name;
  LabelScan scan;                  // its findings include those below; its images have their objects
  std::vector<std::string> fixed;  // label files that were rewritten
};

// Codes beyond those of data/yolo_txt.h. Warnings: image-twice (the same bytes in another split: what is validated was trained on),
// split-missing, split-unreadable. Notes: image-repeated (in the same split), class-unused, and those of the data yaml.
struct LintReport {
  std::vector<std::string> names;  // of the classes
  std::vector<int64_t> objects_of_class;
  std::vector<LintSplit> splits;
  std::vector<Finding> findings;  // of the whole set
  int64_t warnings() const;       // that are still there: those that a fix removed do not count
};

// Scans the splits (all that the yaml names, when `split` is empty). With `fix`, label files with bad rows are rewritten: rows that
// can be used stay as the trainer reads them, bit for bit; the former file is kept beside it as NAME.txt.orig (an older one stays).
// Files without any usable row, images, and lone label files are never touched. Errors of load_dataset_yaml and list_images;
// Error(kIo) when a file cannot be written.
LintReport lint_dataset(const std::string& data, std::string_view split, bool fix, const std::filesystem::path& data_root = {},
                        const ProgressHook& progress = {});

}  // namespace tessera
