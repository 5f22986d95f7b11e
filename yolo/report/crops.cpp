#include "yolo/report/crops.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "tensor/base/file.h"

namespace tessera {

namespace {

// A model file names the classes: '..' or a '/' must not lead out of the folder.
std::string folder_name(std::string name) {
  std::replace_if(
      name.begin(), name.end(), [](char c) { return c == '/' || c == '\0'; }, '_');
  if (name.empty() || name == "." || name == "..") name = "_" + name;
  return name;
}

// Of the n-th crop of a class and a stem, from 1 on; a stem that leaves no room for the number is cut.
std::string file_name(const std::string& stem, int n) {
  constexpr size_t kLongestName = 255;  // bytes, of most file systems
  const std::string end = n == 1 ? ".jpg" : fmt::format("{}.jpg", n);
  return stem.substr(0, kLongestName - end.size()) + end;
}

}  // namespace

PixelBox crop_box(const BoxXyxy& b, int height, int width) {
  // float32 throughout, truncated towards 0.
  const float cx = (b.x1 + b.x2) / 2, cy = (b.y1 + b.y2) / 2;
  const float w = (b.x2 - b.x1) * 1.02f + 10, h = (b.y2 - b.y1) * 1.02f + 10;
  const auto pixel = [](float v, int limit) { return v > 0 ? int(std::min(v, float(limit))) : 0; };
  return {pixel(cx - w / 2, width), pixel(cy - h / 2, height), pixel(cx + w / 2, width), pixel(cy + h / 2, height)};
}

void CropWriter::begin(const std::string& stem) const {
  std::error_code failed;
  for (const auto& folder : std::filesystem::directory_iterator(folder_, failed)) {
    for (int n = 1;; ++n) {
      const std::filesystem::path file = folder.path() / file_name(stem, n);
      if (!std::filesystem::exists(file, failed)) break;
      if (written_.contains(file.string())) continue;
      if (!std::filesystem::remove(file, failed)) throw_file_error("remove", file, failed.value());
    }
  }
}

void CropWriter::add(const Image& image, const BoxXyxy& box, const std::string& class_name, const std::string& stem) {
  const PixelBox where = crop_box(box, image.height, image.width);
  if (where.empty()) return;
  Image crop(where.height(), where.width());
  for (int y = 0; y < crop.height; ++y) std::memcpy(crop.row(y), image.row(where.y0 + y) + 3 * where.x0, size_t(crop.width) * 3);

  const std::filesystem::path folder = folder_ / folder_name(class_name);
  std::filesystem::path file = folder / file_name(stem, 1);
  for (int n = 2; !written_.insert(file.string()).second; ++n) file = folder / file_name(stem, n);
  std::error_code failed;
  std::filesystem::create_directories(folder, failed);
  if (failed) throw_file_error("create", folder, failed.value());
  const std::vector<uint8_t> bytes = encode_jpeg(crop, 95, Chroma::kFull);
  write_file_atomic(file, {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
}

}  // namespace tessera
