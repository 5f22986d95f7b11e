#include "data/coco_json.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstring>
#include <iterator>
#include <nlohmann/json.hpp>
#include <unordered_set>

#include "data/coco_records.h"
#include "tensor/base/check.h"
#include "tensor/base/parallel.h"

namespace tessera {

using coco::Extent;
using coco::JsonText;
using coco::Record;
using coco::Segmentation;

namespace {

constexpr int64_t kRecordsPerChunk = 512;
constexpr int64_t kMaxSide = 1 << 16;

void need(const JsonText& file, Extent where, const Record& record, uint32_t field, const char* name, const char* kind) {
  if (record.has & field) return;
  file.fail(where.begin, fmt::format("this {} has no '{}'", kind, name), "the key is required");
}

std::optional<BoxLtwh> box_of(const JsonText& file, Extent where, const Record& record) {
  if (!(record.has & Record::kBox) || record.box.empty()) return std::nullopt;
  if (record.box.size() != 4) {
    file.fail(where.begin, fmt::format("'bbox' has {} numbers, expected 4", record.box.size()), "write [left, top, width, height]");
  }
  return BoxLtwh{record.box[0], record.box[1], record.box[2], record.box[3]};
}

std::vector<std::vector<double>> polygons_of(const Record& record) {
  std::vector<std::vector<double>> polygons;
  size_t begin = 0;
  for (size_t end : record.ring_end) {
    polygons.emplace_back(record.coordinates.begin() + int64_t(begin), record.coordinates.begin() + int64_t(end));
    begin = end;
  }
  return polygons;
}

Rle polygons_to_mask(const std::vector<std::vector<double>>& polygons, int32_t height, int32_t width) {
  if (polygons.empty()) return {height, width, {static_cast<uint32_t>(int64_t{height} * width)}};
  const bool boxes = polygons[0].size() == 4;
  std::vector<Rle> parts;
  for (const auto& p : polygons) {
    parts.push_back(boxes && p.size() == 4 ? rle_from_box({p[0], p[1], p[2], p[3]}, height, width)
                                           : rle_from_polygon(p, height, width));
  }
  return rle_union(parts);
}

void check_size(const Record& record, const CocoImage& image) {
  if (record.size.size() != 2) throw Error(ErrorCode::kData, "the segmentation has no 'size' of two numbers");
  if (record.size[0] != image.height || record.size[1] != image.width) {
    throw Error(ErrorCode::kData, fmt::format("the segmentation is for {} x {} pixels, image {} has {} x {} (height x width)",
                                              record.size[0], record.size[1], image.id, image.height, image.width));
  }
}

// Runs body(); an Error without a place gets the place of the record.
template <class Body>
void at_record(const JsonText& file, Extent where, Body body) {
  try {
    body();
  } catch (const Error& e) {
    if (!e.where().file.empty()) throw;
    file.fail(where.begin, e.message(), e.hint());
  }
}

CocoImage image_of(const JsonText& file, Extent where, Record& r) {
  need(file, where, r, Record::kId, "id", "image");
  need(file, where, r, Record::kHeight, "height", "image");
  need(file, where, r, Record::kWidth, "width", "image");
  if (r.height < 1 || r.width < 1 || r.height > kMaxSide || r.width > kMaxSide) {
    file.fail(where.begin, fmt::format("image {} has {} x {} pixels (height x width)", r.id, r.height, r.width),
              "allowed are 1 to 65536");
  }
  return {r.id, static_cast<int32_t>(r.height), static_cast<int32_t>(r.width), std::move(r.file_name)};
}

CocoAnnotation annotation_of(const JsonText& file, Extent where, const Record& r, const CocoInstances& out) {
  need(file, where, r, Record::kId, "id", "annotation");
  need(file, where, r, Record::kImageId, "image_id", "annotation");
  need(file, where, r, Record::kCategoryId, "category_id", "annotation");
  const CocoImage* image = out.find_image(r.image_id);
  if (!image || !r.image_stem.empty()) {
    file.fail(where.begin,
              fmt::format("annotation {} belongs to image {}, which is not among the images", r.id,
                          r.image_stem.empty() ? std::to_string(r.image_id) : r.image_stem),
              "add the image or remove the annotation");
  }
  CocoAnnotation a;
  a.id = r.id, a.image_id = r.image_id, a.category_id = r.category_id, a.crowd = r.crowd;
  if (r.has & Record::kArea) a.area = r.area;
  a.box = box_of(file, where, r);
  at_record(file, where, [&] {
    switch (r.segmentation) {
      case Segmentation::kNone: break;
      case Segmentation::kPolygons: a.polygons = polygons_of(r); break;
      case Segmentation::kCounts: check_size(r, *image), a.rle = rle_from_counts(r.counts, r.size[0], r.size[1]); break;
      case Segmentation::kString: check_size(r, *image), a.rle = rle_from_string(r.text, r.size[0], r.size[1]); break;
    }
  });
  return a;
}

// Parses all records in parallel, chunk by chunk; make(record, extent, chunk) is called in file order within a chunk.
template <class Make>
void for_each_record(const JsonText& file, const std::vector<Extent>& records, Make make) {
  parallel_for(static_cast<int64_t>(records.size()), kRecordsPerChunk, [&](int64_t begin, int64_t end) {
    Record record;
    for (int64_t i = begin; i < end; ++i) {
      coco::parse_record(file, records[size_t(i)], record);
      make(record, records[size_t(i)], i);
    }
  });
}

template <class T>
void check_unique(const JsonText& file, const std::vector<Extent>& records, const std::vector<T>& items, const char* kind) {
  std::unordered_set<int64_t> seen;
  seen.reserve(items.size());
  for (size_t i = 0; i < items.size(); ++i) {
    if (!seen.insert(items[i].id).second) {
      file.fail(records[i].begin, fmt::format("{} id {} occurs twice", kind, items[i].id), "ids must be unique in the file");
    }
  }
}

std::string_view stem_of(std::string_view name) {
  const size_t slash = name.find_last_of('/');
  if (slash != name.npos) name.remove_prefix(slash + 1);
  const size_t dot = name.rfind('.');
  return dot == name.npos || dot == 0 ? name : name.substr(0, dot);
}

// The mask of a detection.
void push_mask(RunList& masks, const Record& r, const CocoImage& image, const std::optional<BoxLtwh>& box) {
  switch (r.segmentation) {
    case Segmentation::kString: check_size(r, image), masks.push_string(r.text, image.height, image.width); break;
    case Segmentation::kCounts: check_size(r, image), masks.push(rle_from_counts(r.counts, image.height, image.width)); break;
    case Segmentation::kPolygons: masks.push(polygons_to_mask(polygons_of(r), image.height, image.width)); break;
    case Segmentation::kNone: masks.push(rle_from_box(*box, image.height, image.width)); break;
  }
}

}  // namespace

const CocoImage* CocoInstances::find_image(int64_t id) const {
  const auto it = image_index.find(id);
  return it == image_index.end() ? nullptr : &images[size_t(it->second)];
}

CocoInstances read_coco_instances(const std::filesystem::path& path) {
  const JsonText file(path);
  const auto sections = coco::scan_object(file, {"images", "annotations", "categories"}, "images, annotations and categories");
  const auto section = [&](std::string_view key) -> const std::vector<Extent>& {
    for (const auto& s : sections) {
      if (s.key == key) return s.records;
    }
    file.fail(0, fmt::format("the file has no list '{}'", key), "an instances file has images, annotations and categories");
  };
  const auto &images = section("images"), &annotations = section("annotations"), &categories = section("categories");

  CocoInstances out;
  out.file = file.name();
  out.images.resize(images.size());
  for_each_record(file, images, [&](Record& r, Extent where, int64_t i) { out.images[size_t(i)] = image_of(file, where, r); });
  check_unique(file, images, out.images, "image");
  out.image_index.reserve(out.images.size());
  for (size_t i = 0; i < out.images.size(); ++i) out.image_index.emplace(out.images[i].id, int64_t(i));

  out.categories.resize(categories.size());
  for_each_record(file, categories, [&](Record& r, Extent where, int64_t i) {
    need(file, where, r, Record::kId, "id", "category");
    need(file, where, r, Record::kName, "name", "category");
    out.categories[size_t(i)] = {r.id, std::move(r.name)};
  });
  check_unique(file, categories, out.categories, "category");

  out.annotations.resize(annotations.size());
  for_each_record(file, annotations, [&](const Record& r, Extent where, int64_t i) {
    out.annotations[size_t(i)] = annotation_of(file, where, r, out);
  });
  check_unique(file, annotations, out.annotations, "annotation");
  std::unordered_set<int64_t> known;
  for (const auto& c : out.categories) known.insert(c.id);
  for (size_t i = 0; i < out.annotations.size(); ++i) {
    if (!known.contains(out.annotations[i].category_id)) {
      file.fail(annotations[i].begin,
                fmt::format("annotation {} has category {}, which is not among the categories", out.annotations[i].id,
                            out.annotations[i].category_id),
                "add the category or correct the annotation");
    }
  }
  return out;
}

Rle coco_mask(const CocoAnnotation& annotation, int32_t height, int32_t width) {
  return annotation.rle ? *annotation.rle : polygons_to_mask(annotation.polygons, height, width);
}

CocoResults read_coco_results(const std::filesystem::path& path, const CocoInstances& instances, ReadMasks read_masks) {
  const JsonText file(path);
  const std::vector<Extent> extents = coco::scan_array(file, "detections");
  const int64_t n = static_cast<int64_t>(extents.size());
  std::unordered_map<std::string_view, int64_t> by_stem;
  for (size_t i = 0; i < instances.images.size(); ++i) by_stem.emplace(stem_of(instances.images[i].file_name), int64_t(i));

  std::unordered_set<uint64_t> annotated;  // (image, category), hashed: a false hit only keeps a mask
  const auto pair = [](int64_t image, int64_t category) { return uint64_t(image) * 0x9E3779B97F4A7C15 + uint64_t(category); };
  if (read_masks == ReadMasks::kComparable) {
    annotated.reserve(instances.annotations.size());
    for (const CocoAnnotation& a : instances.annotations)
      annotated.insert(pair(instances.image_index.at(a.image_id), a.category_id));
  }

  CocoResults out;
  out.file = file.name();
  out.records.resize(extents.size());
  const int64_t chunks = (n + kRecordsPerChunk - 1) / kRecordsPerChunk;
  std::vector<RunList> masks(static_cast<size_t>(chunks));
  parallel_chunks(chunks, [&](int64_t chunk) {
    const int64_t begin = chunk * kRecordsPerChunk, end = std::min(n, begin + kRecordsPerChunk);
    RunList& runs = masks[size_t(chunk)];
    Record r;
    for (int64_t i = begin; i < end; ++i) {
      const Extent where = extents[size_t(i)];
      coco::parse_record(file, where, r);
      need(file, where, r, Record::kImageId, "image_id", "detection");
      need(file, where, r, Record::kCategoryId, "category_id", "detection");
      need(file, where, r, Record::kScore, "score", "detection");
      int64_t image = -1;
      if (r.image_stem.empty()) {
        if (const auto it = instances.image_index.find(r.image_id); it != instances.image_index.end()) image = it->second;
      } else if (const auto it = by_stem.find(r.image_stem); it != by_stem.end()) {
        image = it->second;
      }
      if (image < 0) {
        file.fail(where.begin,
                  fmt::format("this detection belongs to image {}, which is not in {}",
                              r.image_stem.empty() ? std::to_string(r.image_id) : "'" + r.image_stem + "'", instances.file),
                  "predictions and instances must be of the same data set");
      }
      const std::optional<BoxLtwh> box = box_of(file, where, r);
      const bool has_mask = r.segmentation != Segmentation::kNone;
      if (!box && !has_mask)
        file.fail(where.begin, "this detection has neither 'bbox' nor 'segmentation'", "one of the two is required");

      CocoResult& result = out.records[size_t(i)];
      result.image = image, result.category_id = r.category_id, result.score = r.score;
      result.has_mask = has_mask;
      if (box) result.box = *box, result.area = (*box)[2] * (*box)[3];
      if (read_masks == ReadMasks::kNo && box) continue;
      const bool compared = read_masks != ReadMasks::kComparable || annotated.contains(pair(image, r.category_id));
      at_record(file, where, [&] {
        if (!compared && box && r.segmentation == Segmentation::kString) {
          check_size(r, instances.images[size_t(image)]);
          rle_check_string(r.text, r.size[0], r.size[1]);
          runs.push_empty();
        } else {
          push_mask(runs, r, instances.images[size_t(image)], box);
        }
      });
      if (!box) result.box = runs.box(runs.size() - 1), result.area = double(runs.area(runs.size() - 1));
    }
  });
  if (read_masks != ReadMasks::kNo) {
    out.masks.reserve(n);
    for (RunList& m : masks) out.masks.append(std::move(m));
  }
  return out;
}

CocoResultsWriter::CocoResultsWriter(std::filesystem::path file) : file_(std::move(file)), part_(file_) {
  part_ += ".part";
  out_.open(part_, std::ios::binary | std::ios::trunc);
  check(out_.is_open(), "cannot create this file");
  out_ << '[';
}

CocoResultsWriter::~CocoResultsWriter() {
  if (closed_) return;
  out_.close();
  std::error_code ignored;
  std::filesystem::remove(part_, ignored);
}

void CocoResultsWriter::check(bool good, const char* what) {
  if (!good) throw Error(ErrorCode::kIo, what, {file_.string()}, "check that the folder exists, may be written and has room");
}

namespace {

// Shortest form of a rounded value that is still a JSON floating-point number.
void append_decimal(std::string& text, double value, int decimals) {
  // Unless the value lies so near the middle of two results that the product may have decided, whole numbers tell all digits.
  constexpr double kPowers[] = {1, 1e1, 1e2, 1e3, 1e4, 1e5};
  const double scaled = std::abs(value) * kPowers[decimals], whole = std::nearbyint(scaled);
  if (scaled < 1e9 && std::abs(std::abs(scaled - whole) - 0.5) > 1e-6) {
    const uint64_t power = uint64_t(kPowers[decimals]), digits = uint64_t(whole);
    if (value < 0 && digits > 0) text += '-';
    text += fmt::format_int(digits / power).c_str();
    text += '.';
    char fraction[8];
    uint64_t rest = digits % power;
    for (int i = decimals; i-- > 0; rest /= 10) fraction[i] = char('0' + rest % 10);
    int used = decimals;
    while (used > 1 && fraction[used - 1] == '0') --used;
    text.append(fraction, size_t(used));
    return;
  }
  const size_t begin = text.size();
  fmt::format_to(std::back_inserter(text), "{:.{}f}", value, decimals);
  while (text.ends_with('0') && text[text.size() - 2] != '.') text.pop_back();
  if (std::string_view(text).substr(begin) == "-0.0") text.erase(begin, 1);
}

// Bytes that are no UTF-8 become U+FFFD.
void append_quoted(std::string& text, std::string_view value) {
  const bool plain = std::all_of(value.begin(), value.end(), [](char c) { return c >= 0x20 && c < 0x7f && c != '"' && c != '\\'; });
  if (plain) {
    (text += '"').append(value) += '"';
  } else {
    text += nlohmann::json(value).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  }
}

}  // namespace

void CocoResultsText::add(std::string_view stem, int64_t category_id, const BoxLtwh& box, double score, const Rle* mask) {
  TESSERA_CHECK(std::isfinite(score) && std::isfinite(box[0] + box[1] + box[2] + box[3]), "detection of '{}' is not finite", stem);
  text_ += text_.empty() ? "{\"image_id\": " : ", {\"image_id\": ";
  if (const auto id = coco_image_id(stem)) {
    text_ += std::to_string(*id);
  } else {
    append_quoted(text_, stem);
  }
  text_ += ", \"category_id\": " + std::to_string(category_id) + ", \"bbox\": [";
  for (size_t i = 0; i < box.size(); ++i) {
    if (i > 0) text_ += ", ";
    append_decimal(text_, box[i], 3);
  }
  text_ += "], \"score\": ";
  append_decimal(text_, score, 5);
  if (mask) {
    fmt::format_to(std::back_inserter(text_), ", \"segmentation\": {{\"size\": [{}, {}], \"counts\": \"", mask->height, mask->width);
    append_rle_string(*mask, RleText::kJson, text_);
    text_ += "\"}";
  }
  text_ += '}';
}

void CocoResultsWriter::add(const CocoResultsText& records) {
  TESSERA_CHECK(!closed_, "CocoResultsWriter: add after close");
  if (records.text().empty()) return;
  out_ << (first_ ? "" : ", ") << records.text();
  first_ = false;
}

void CocoResultsWriter::close() {
  if (closed_) return;
  out_ << "]";
  out_.close();
  check(!out_.fail(), "writing failed");
  std::error_code failed;
  std::filesystem::rename(part_, file_, failed);
  check(!failed, "cannot give the finished file its name");
  closed_ = true;
}

std::optional<int64_t> coco_image_id(std::string_view stem) {
  if (stem.empty() || !std::all_of(stem.begin(), stem.end(), [](char c) { return c >= '0' && c <= '9'; })) return std::nullopt;
  int64_t id = 0;
  const auto [end, failed] = std::from_chars(stem.data(), stem.data() + stem.size(), id);
  if (failed != std::errc()) return std::nullopt;
  return id;
}

double round_decimals(double value, int decimals) {
  if (!std::isfinite(value)) return value;
  const std::string text = fmt::format("{:.{}f}", value, decimals);
  double rounded = 0;
  std::from_chars(text.data(), text.data() + text.size(), rounded);
  return rounded;
}

namespace {

// 1 .. 90 without the ids that COCO never used.
constexpr auto kCategoryOfClass = [] {
  std::array<int, 80> table{};
  size_t n = 0;
  for (int id = 1; id <= 90; ++id) {
    const bool skipped =
        id == 12 || id == 26 || id == 29 || id == 30 || id == 45 || id == 66 || id == 68 || id == 69 || id == 71 || id == 83;
    if (!skipped) table[n++] = id;
  }
  return table;
}();
static_assert(kCategoryOfClass[79] == 90);

}  // namespace

int coco_category_of_class(int class_id) { return class_id < 0 || class_id >= 80 ? -1 : kCategoryOfClass[size_t(class_id)]; }

bool is_coco_set(std::string_view data_yaml, size_t classes) {
  return classes == kCategoryOfClass.size() && data_yaml.find("coco.yaml") != std::string_view::npos;
}

}  // namespace tessera
