// YOLO segmentation labels: text files with one object a row, "class x1 y1 x2 y2 ..." in fractions of the image, and the scan of a
// whole split: image sizes from the headers, labels, and every fault named with file, line, column and remedy.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "data/finding.h"
#include "data/polygon.h"

namespace tessera {

enum class LabelPolicy {
  kLenient,   // a bad row costs its object, never its neighbours; everything is reported
  kStrict,    // the first warning is an Error(kData)
  kOriginal,  // spec 5.3 to the letter, for parity runs: a bad row costs the image, duplicates re-sort the rows
};

struct LabelObject {
  int32_t class_id = 0;
  std::array<float, 4> box{};  // centre x, centre y, width, height of the vertices, in fractions
  Polygon polygon;             // fractions; empty for a box-only row, which only kOriginal lets through
};

// Codes of findings in label files. Warnings: row-nan, row-inf, row-number (text, decimal comma), row-class (not an id of this
// set), row-range (beyond 0..1 by more than kLabelTolerance), row-odd, row-short (less than three points), row-box (a box, not a
// polygon), row-flat (width or height zero), row-twice, file-text (binary, UTF-16), file-unusable (no row can be used: the image is
// left out), and under kOriginal file-corrupt. Notes: file-bom, row-clipped (beyond 0..1 by less than the tolerance; clipped).
constexpr float kLabelTolerance = 0.01f;

struct LabelFile {
  std::vector<LabelObject> objects;
  std::vector<Finding> findings;  // at most kMaxFindings of them, then a count
  int64_t rows = 0;               // rows that are not blank
  int64_t dropped = 0, box_rows = 0, duplicates = 0;
  bool unusable = false;  // rows are there, none can be used: the image must not pass for background
};
constexpr int64_t kMaxFindings = 50;

// Parses the text of one label file. `classes`: ids run from 0 to classes - 1. With `single_cls` every id from 0 on becomes 0.
// Accepted besides the plain form: blank lines, tabs, CRLF, a byte-order mark, exponents, a class written as "1.0".
// kStrict throws; otherwise never. `file` is the name in the findings.
LabelFile parse_labels(std::string_view text, const std::string& file, int64_t classes, LabelPolicy policy,
                       bool single_cls = false);

struct ScanImage {
  std::string file, label_file;
  int32_t height = 0,
          width = 0;  // as decoded; under kOriginal as the original's scan sees it (spec 5.3: no transpose for 5, 7, PNG)
  std::vector<LabelObject> objects;
};

struct ScanOptions {
  LabelPolicy policy = LabelPolicy::kLenient;
  bool single_cls = false;
  bool verify_pixels = false;  // decode every image (the linter); otherwise headers and end marks only
  bool refuse = true;          // a set that cannot train is an Error; otherwise one more finding: set-boxes, set-unusable
};

struct LabelScan {
  std::vector<ScanImage> images;                            // in the order given, without those left out
  std::vector<Finding> findings;                            // in that order too
  int64_t found = 0, missing = 0, empty = 0, left_out = 0;  // images: with rows, without file, with empty file, not usable
  int64_t objects = 0, dropped_rows = 0, duplicates = 0, box_rows = 0;
  int64_t orphan_labels = 0;  // label files without an image
};

// Scans the images of a split and their label files, on the compute threads; the result does not depend on their number.
// Images that cannot be read, are cut short, or have a side below 10 pixels are left out with a warning (image-unreadable,
// image-small), and so are those whose label file is there, if only as a link, and cannot be read (file-unreadable). Codes of
// notes: labels-missing (a count), labels-orphan. Error(kData) when no image is left or the rows are boxes only (a detection set),
// unless options.refuse is false, and at the first warning under kStrict.
LabelScan scan_labels(const std::vector<std::string>& images, int64_t classes, const ScanOptions& options = {});

// The rows of a label file that are read as these objects, bit for bit.
std::string label_rows(const std::vector<LabelObject>& objects);

// One paragraph for the log: "128 images (2 background, ...), 929 objects; 3 rows skipped".
std::string summary(const LabelScan& scan);

}  // namespace tessera
