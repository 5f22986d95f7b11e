#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <span>

#include "data/convert/label_folder.h"
#include "data/convert/mask_outline.h"
#include "data/image.h"
#include "tensor/base/file.h"
#include "tensor/bit_rows.h"

namespace tessera {

namespace fs = std::filesystem;
using namespace convert;

namespace {

constexpr uint8_t kVoid = 255;

std::vector<fs::path> masks_in(const fs::path& folder) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string suffix = entry.path().extension().string();
    if (entry.is_regular_file() && (suffix == ".png" || suffix == ".PNG" || suffix == ".bmp" || suffix == ".pgm"))
      files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

// Split -> its mask images.
std::map<std::string, std::vector<fs::path>> masks_by_split(const fs::path& from) {
  if (!fs::is_directory(from))
    throw Error(ErrorCode::kData, "neither a folder nor COCO JSON", {from.string()}, "masks come in a folder");
  std::map<std::string, std::vector<fs::path>> splits;
  if (std::vector<fs::path> files = masks_in(from); !files.empty()) splits["train"] = std::move(files);
  if (splits.empty()) {
    for (const auto& entry : fs::directory_iterator(from)) {
      if (!entry.is_directory()) continue;
      if (std::vector<fs::path> files = masks_in(entry.path()); !files.empty())
        splits[entry.path().filename().string()] = std::move(files);
    }
  }
  if (splits.empty()) {
    throw Error(ErrorCode::kData, "no mask images in this folder", {from.string()},
                "masks are png, bmp or pgm, in the folder itself or in one sub-folder for each split");
  }
  return splits;
}

struct GreyMask {
  int height = 0, width = 0;
  std::vector<uint8_t> values;  // class + 1
  int most = 0;                 // the largest
  bool only_255 = true;         // no other value but 0
};

GreyMask read_mask(const fs::path& file) {
  const std::string bytes = read_file(file, kMaxImageBytes, FileKind::kRegular);
  const std::span data(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
  // A decoded image has the upper 8 bits of 16, and fewer are stretched to 8: other values than those that stand there. Of one
  // bit they become 0 and 255, which is one class.
  if (const int bits = probe_image(data, file.string()).sample_bits; bits != 8 && bits != 1) {
    throw Error(ErrorCode::kData, fmt::format("the values of the mask have {} bits", bits), {file.string()},
                "write it with 8 bits: class + 1 as the grey value of each pixel, 0 for background");
  }
  const Image image = decode_image(data, file.string());
  GreyMask mask{image.height, image.width, std::vector<uint8_t>(size_t(image.height) * size_t(image.width)), 0, true};
  for (size_t i = 0; i < mask.values.size(); ++i) {
    const uint8_t* rgb = image.pixels.data() + 3 * i;
    if (rgb[0] != rgb[1] || rgb[1] != rgb[2]) {
      throw Error(ErrorCode::kData, "the mask has colours; its values must be grey", {file.string()},
                  "write class + 1 as the grey value of each pixel, 0 for background");
    }
    mask.values[i] = rgb[0];
    if (rgb[0] == kVoid || rgb[0] == 0) continue;
    mask.only_255 = false;
    mask.most = std::max(mask.most, int(rgb[0]));
  }
  return mask;
}

// The rows of one image, by the first pixel of each object.
ConvertReport convert_mask(const GreyMask& mask, bool binary, const fs::path& file, std::string& rows) {
  ConvertReport report;
  std::vector<uint8_t> values = mask.values;
  for (uint8_t& v : values) {
    if (v == kVoid) v = binary ? 1 : 0;
  }
  std::vector<int32_t> component;
  const int count = label_components(values.data(), mask.height, mask.width, component);
  std::vector<PixelBox> boxes(static_cast<size_t>(count), PixelBox{mask.width, mask.height, 0, 0});
  std::vector<int> class_of(boxes.size());
  for (int y = 0; y < mask.height; ++y) {
    for (int x = 0; x < mask.width; ++x) {
      const size_t at = size_t(y) * size_t(mask.width) + size_t(x);
      if (component[at] == 0) continue;
      PixelBox& b = boxes[size_t(component[at] - 1)];
      b = {std::min(b.x0, x), std::min(b.y0, y), std::max(b.x1, x + 1), std::max(b.y1, y + 1)};
      class_of[size_t(component[at] - 1)] = values[at] - 1;
    }
  }
  std::vector<uint8_t> pixels;
  std::vector<uint32_t> words;
  for (int c = 0; c < count; ++c) {
    const PixelBox& b = boxes[size_t(c)];
    const int height = b.y1 - b.y0, width = b.x1 - b.x0;
    pixels.resize(size_t(height) * size_t(width));
    words.resize(size_t(words_of_row(width) * height));
    for (int y = 0; y < height; ++y) {
      uint8_t* const row = pixels.data() + size_t(y) * size_t(width);
      const int32_t* const of_row = component.data() + size_t(y + b.y0) * size_t(mask.width) + size_t(b.x0);
      for (int x = 0; x < width; ++x) row[x] = of_row[x] == c + 1;
      pack_bits(row, width, words.data() + y * words_of_row(width));
    }
    const std::vector<PrecisePolygon> parts = mask_outline(pixels.data(), height, width);
    PrecisePolygon polygon = merge_parts(parts);
    for (PrecisePoint& p : polygon) p = {(p.x + b.x0) / mask.width, (p.y + b.y0) / mask.height};
    Row row = make_row(class_of[size_t(c)], polygon, rle_encode(words.data(), b, mask.height, mask.width));
    if (row.text.empty()) {
      ++report.empty;
      continue;
    }
    ++report.objects;
    ++report.runs;
    report.joined += parts.size() > 1;
    report.sum_iou += row.iou;
    report.least_iou = std::min(report.least_iou, row.iou);
    if (row.iou < kFaithfulIou) {
      ++report.changed;
      add_finding(report, Severity::kWarning, "object-changed", file.string(),
                  fmt::format("as one polygon the object at x {}, y {} keeps an IoU of {:.3f}", b.x0, b.y0, row.iou),
                  fmt::format("its outline has {} rings", parts.size()));
    }
    rows += row.text + "\n";
  }
  report.images = 1;
  report.background = report.objects == 0;
  return report;
}

fs::path image_of(const fs::path& images, const std::string& split, const std::string& stem) {
  std::error_code ignored;
  if (images.empty()) return {};
  for (const fs::path& folder : {images, images / split}) {
    for (const char* suffix : {".jpg", ".jpeg", ".png", ".bmp", ".JPG", ".PNG"}) {
      if (fs::path file = folder / (stem + suffix); fs::exists(file, ignored)) return file;
    }
  }
  return {};
}

}  // namespace

ConvertReport masks_to_yolo(const fs::path& from, const fs::path& to, const fs::path& images, const ProgressHook& progress) {
  const auto splits = masks_by_split(from);
  // Of several splits none is converted unless all can be.
  for (const auto& [split, files] : splits) {
    check_no_labels(to, split);
    std::vector<fs::path> image_names;
    for (const fs::path& file : files) image_names.push_back(file.filename());
    check_own_labels(image_names, files[0].parent_path().string());
  }
  // Which values are classes is a matter of the whole set, so it is read twice.
  int classes = 1;
  bool binary = true;
  for (const auto& [split, files] : splits) {
    for (const fs::path& file : files) {
      const GreyMask mask = read_mask(file);
      classes = std::max(classes, mask.most);
      binary = binary && mask.only_255;
    }
  }
  std::vector<std::string> names;
  for (int c = 0; c < classes; ++c) names.push_back(fmt::format("class{}", c));

  check_names(to, names);
  ConvertReport report;
  for (const auto& entry : splits) {
    const std::string& split = entry.first;
    const std::vector<fs::path>& files = entry.second;
    LabelFolder folder(to, split);
    ProgressCounter counter(progress, "converting " + split, int64_t(files.size()));
    const auto convert_one = [&](int64_t i) {
      const fs::path& file = files[size_t(i)];
      std::string rows;
      ConvertReport r = convert_mask(read_mask(file), binary, file, rows);
      folder.write(file.filename(), rows);
      if (const fs::path image = image_of(images, split, file.stem().string()); !image.empty()) {
        folder.link(image.filename(), image);
        r.linked = 1;
      }
      return r;
    };
    ConvertReport part = convert_each(int64_t(files.size()), convert_one, counter);
    note_missing_images(part, files[0].parent_path().string(), to / "images" / split);
    report.add(part);
    folder.finish(report);
  }
  write_data_yaml(to, names, report);
  return report;
}

}  // namespace tessera
