// What the conversions to YOLO labels share: a row with its check, the folders of a split, data.yaml.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "data/convert/convert.h"
#include "data/polygon.h"
#include "data/rle.h"

namespace tessera::convert {

// One object as its row will be read.
struct Row {
  std::string text;  // "class x y ...", six digits; empty: nothing is left of it
  double iou = 1;    // of the mask that a reader of the row sees and `truth`
};
Row make_row(int64_t class_id, const PrecisePolygon& fractions, const Rle& truth);

// Error(kUsage) when labels of the split are there.
void check_no_labels(const std::filesystem::path& to, const std::string& split);

// Writes the labels of one split: into a hidden folder first, which gets its name at the end.
class LabelFolder {
 public:
  LabelFolder(const std::filesystem::path& to, const std::string& split);  // check_no_labels
  ~LabelFolder();
  LabelFolder(const LabelFolder&) = delete;
  LabelFolder& operator=(const LabelFolder&) = delete;

  // name: of the image, relative. Any thread.
  void write(const std::filesystem::path& name, const std::string& rows) const;
  void link(const std::filesystem::path& name, const std::filesystem::path& image) const;
  void finish(ConvertReport& report);

 private:
  std::filesystem::path labels_, images_, part_;
};

// convert(i) of every image of a split, on all threads: the reports added up in order; of errors the first in order is thrown.
ConvertReport convert_each(int64_t images, const std::function<ConvertReport(int64_t i)>& convert, ProgressCounter& progress);
// A note, unless each image of the report was found. `source`: what was converted; `images`: where the new set wants them.
void note_missing_images(ConvertReport& report, const std::string& source, const std::filesystem::path& images);

// A path from a file that must stay below the folder it is put into.
std::filesystem::path checked_name(const std::string& file_name, const std::string& where);

// Error(kData) when two of these images, relative names of one split, would have one label file.
void check_own_labels(const std::vector<std::filesystem::path>& names, const std::string& where);

// Error(kData) when `to` holds a set of other classes; before anything is written.
void check_names(const std::filesystem::path& to, const std::vector<std::string>& names);
// data.yaml of all splits below `to`.
void write_data_yaml(const std::filesystem::path& to, const std::vector<std::string>& names, ConvertReport& report);

void make_folders(const std::filesystem::path& folder);  // Error(kIo)

void add_finding(ConvertReport& report, Severity severity, const char* code, const std::string& file, std::string message,
                 std::string hint);
void add_finding(ConvertReport& report, const Finding& finding);

}  // namespace tessera::convert
