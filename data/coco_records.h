// Inside the COCO readers: a text file that can say where a byte stands, a scan that finds the records of its arrays without
// interpreting them, and the SAX handler that turns one record into plain fields. Records are independent, so they parse in
// parallel.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "tensor/base/check.h"

namespace tessera::coco {

class JsonText {
 public:
  explicit JsonText(const std::filesystem::path& file);  // maps the file; throws kIo
  ~JsonText();
  JsonText(const JsonText&) = delete;
  JsonText& operator=(const JsonText&) = delete;

  std::string_view text() const { return {bytes_, size_}; }
  const std::string& name() const { return name_; }
  FileLocation locate(size_t byte) const;
  [[noreturn]] void fail(size_t byte, std::string message, std::string hint = {}) const;  // kData

 private:
  std::string name_;
  const char* bytes_ = nullptr;
  size_t size_ = 0;
};

struct Extent {
  size_t begin = 0, end = 0;
};

struct Section {
  std::string key;
  std::vector<Extent> records;
};

// Top level is [value, ...]: the extents of the values. Separators are checked here, the values themselves by parse_record.
std::vector<Extent> scan_array(const JsonText& file, std::string_view what);
// Top level is {"key": ..., ...}: the sections named in `wanted` must be arrays and are cut into records; others are checked and
// skipped.
std::vector<Section> scan_object(const JsonText& file, const std::vector<std::string_view>& wanted, std::string_view what);

enum class Segmentation { kNone, kPolygons, kCounts, kString };

// The fields that any COCO record may have; `has` tells which were there.
struct Record {
  enum Field : uint32_t {
    kId = 1,
    kImageId = 2,
    kCategoryId = 4,
    kHeight = 8,
    kWidth = 16,
    kScore = 32,
    kArea = 64,
    kBox = 128,
    kFileName = 256,
    kName = 512,
  };
  uint32_t has = 0;
  int64_t id = 0, image_id = 0, category_id = 0, height = 0, width = 0;
  std::string image_stem;  // image_id given as text; else empty
  double score = 0, area = 0;
  bool crowd = false;
  std::vector<double> box;
  std::string file_name, name;

  Segmentation segmentation = Segmentation::kNone;
  std::vector<double> coordinates;  // of all polygons, one after the other
  std::vector<size_t> ring_end;     // end of each polygon in coordinates
  std::vector<int64_t> size, counts;
  std::string text;  // compressed counts

  void clear();
};

// Throws kData for malformed JSON and mistyped values; a missing field is the caller's matter.
void parse_record(const JsonText& file, Extent where, Record& record);

}  // namespace tessera::coco
