// The data yaml (spec 5.1): where the images of each split are and what the classes are called. Nothing is downloaded here: that is the verb
// download (data/download/sources.h).
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/finding.h"

namespace tessera {

struct DatasetYaml {
  std::string source;                                                // the file, or the name of a built-in one
  std::filesystem::path root;                                        // absolute
  std::vector<std::string> names;                                    // class id -> name
  std::map<std::string, std::vector<std::filesystem::path>> splits;  // "train", "val", ...: absolute folders and list files
  std::vector<Finding> findings;                                     // notes: renamed keys, doubled class names
};

// Names of the data yamls inside the program (coco128-seg.yaml, coco8-seg.yaml, coco.yaml), and the text of one of them.
std::span<const std::string_view> builtin_dataset_names();
std::optional<std::string_view> builtin_dataset_yaml(std::string_view name);

// The text of a data yaml, from a file, from a folder that holds one, or built in, as below.
struct DatasetText {
  std::string source, text;
  std::filesystem::path folder;  // of the file, absolute; empty for a built-in one
};
DatasetText read_dataset_text(const std::string& name_or_path, const std::filesystem::path& data_root = {});

// Reads a data yaml from a file, from a folder that holds a data.yaml (or just one yaml), or, when no such file exists, the
// built-in one of that name ("coco128-seg" and "coco128-seg.yaml" are the same).
//
// The root of the images is `path:`, or the folder of the yaml without it. A relative one is sought, in this order, below
// `data_root`, TESSERA_DATA, the current folder, the folder of the yaml, and "datasets" in the current and in the parent folder;
// for the first two also its last part alone, and the folder itself. The first place where all wanted splits exist is taken.
//
// `needed`: splits that must exist on disk. Error(kData), with line and column where they are known, for an unknown file (lists
// what was tried), broken yaml, missing or ill-typed keys, nc that differs from the names, and for missing images: every path tried
// and how to get them. kTrainAndVal: both keys must be there; kAny: those of `needed`, and one at least.
enum class SplitKeys { kTrainAndVal, kAny };
DatasetYaml load_dataset_yaml(const std::string& name_or_path, const std::filesystem::path& data_root = {},
                              std::span<const std::string_view> needed = {}, SplitKeys keys = SplitKeys::kTrainAndVal);

// The image files of a split in the order of the original: folders are searched recursively (hidden names are passed over), list
// files hold one path a line ("./" is the folder of the list), sorted by code points; suffixes bmp dng jpeg jpg mpo png tif tiff
// webp pfm heic in any case (spec 5.2). Error(kData) when the split is not in the yaml, does not exist or holds no image.
std::vector<std::string> list_images(const DatasetYaml& yaml, std::string_view split);

// The first round(n * fraction), half to even; fraction in (0, 1] or Error(kUsage).
void keep_fraction(std::vector<std::string>& images, double fraction);

// The label file of an image: the last "/images/" becomes "/labels/", the suffix ".txt"; beside the image when there is none.
std::string label_path(std::string_view image_path);

}  // namespace tessera
