// The JSON files of COCO: instances (images, annotations, categories) and results (one record per detection). Both readers cut the
// file into records with a scan that only follows quotes and brackets, then parse the records in parallel with a SAX handler: no
// document tree, a few hundred megabytes per second. Every complaint names file, line and column of the record.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "data/rle.h"

namespace tessera {

struct CocoImage {
  int64_t id = 0;
  int32_t height = 0, width = 0;
  std::string file_name;
};

struct CocoCategory {
  int64_t id = 0;
  std::string name;
};

struct CocoAnnotation {
  int64_t id = 0, image_id = 0, category_id = 0;
  bool crowd = false;
  std::optional<double> area;
  std::optional<BoxLtwh> box;
  std::vector<std::vector<double>> polygons;  // x0 y0 x1 y1 ... in pixels; empty when the mask is run-length coded or absent
  std::optional<Rle> rle;
};

struct CocoInstances {
  std::string file;
  std::vector<CocoImage> images;  // in file order, as all three lists
  std::vector<CocoAnnotation> annotations;
  std::vector<CocoCategory> categories;
  std::unordered_map<int64_t, int64_t> image_index;  // id -> position in images

  const CocoImage* find_image(int64_t id) const;
};

// Reads instances_*.json. Throws kIo when the file cannot be read; kData when it is not there, for malformed JSON, missing or mistyped
// keys, masks whose runs do not fit their size or their image, ids that occur twice, and annotations of unknown images or categories.
CocoInstances read_coco_instances(const std::filesystem::path& file);

// The mask of an annotation in an image of height x width; polygons are rasterized and united (spec 9.7). A first polygon of four
// numbers stands for a box, as in pycocotools. Without segmentation the mask is empty.
Rle coco_mask(const CocoAnnotation& annotation, int32_t height, int32_t width);

struct CocoResult {
  int64_t image = 0;  // position in CocoInstances::images
  int64_t category_id = 0;
  double score = 0;
  BoxLtwh box{};    // of the record, else of its mask
  double area = 0;  // of the record's box, else of its mask (spec 9.7)
  bool has_mask = false;
};

struct CocoResults {
  std::string file;
  std::vector<CocoResult> records;  // in file order
  RunList masks;                    // one per record, when they were asked for
};

// kComparable keeps the masks of detections whose image holds an annotation of their category, the only ones an evaluation looks
// at; of the others, compressed ones are checked and left empty. A record without segmentation has the mask of its box, as in
// pycocotools.
enum class ReadMasks { kNo, kComparable, kAll };

// Reads a results file: [{"image_id", "category_id", "score", "bbox" and/or "segmentation"}, ...]. Image ids may be file stems
// (spec 9.6). Segmentations are compressed or uncompressed run lengths or polygons. With kNo they are skipped where a bbox is
// given. Errors as read_coco_instances; also an unknown image.
CocoResults read_coco_results(const std::filesystem::path& file, const CocoInstances& instances, ReadMasks masks);

// Records of predictions.json as text, which several threads may make for one writer.
class CocoResultsText {
 public:
  // stem: of the image file; all digits make it a number in the file. mask may be null.
  void add(std::string_view stem, int64_t category_id, const BoxLtwh& box, double score, const Rle* mask);
  const std::string& text() const { return text_; }
  void clear() { text_.clear(); }  // its memory stays

 private:
  std::string text_;  // separated by commas
};

// predictions.json (spec 9.6): box rounded to 3, score to 5 decimals. The file appears under its name when close() has succeeded;
// an unfinished one is removed. Throws kIo.
class CocoResultsWriter {
 public:
  explicit CocoResultsWriter(std::filesystem::path file);
  ~CocoResultsWriter();
  CocoResultsWriter(const CocoResultsWriter&) = delete;
  CocoResultsWriter& operator=(const CocoResultsWriter&) = delete;

  void add(const CocoResultsText& records);
  void close();

 private:
  void check(bool good, const char* what);

  std::filesystem::path file_, part_;
  std::ofstream out_;
  bool first_ = true, closed_ = false;
};

// The image id of a file stem: its number when all characters are digits (spec 9.6).
std::optional<int64_t> coco_image_id(std::string_view stem);

// Decimal rounding, half to even on the exact binary value: what a reader of the written number gets.
double round_decimals(double value, int decimals);

// Class 0 .. 79 -> COCO category id 1 .. 90; -1 for anything else.
int coco_category_of_class(int class_id);
// Whether classes of this data yaml have COCO's own category ids (spec 9.6); those of other sets are class + 1.
bool is_coco_set(std::string_view data_yaml, size_t classes);

}  // namespace tessera
