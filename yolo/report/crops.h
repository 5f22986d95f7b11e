// Detected objects cut out of their image, for a classifier or a look at each: crops/<class name>/<stem>.jpg, as the original names
// them; further ones of a class and a stem are <stem>2.jpg, <stem>3.jpg, ...
#pragma once

#include <filesystem>
#include <set>
#include <string>

#include "data/image.h"
#include "data/polygon.h"
#include "tensor/pixel_box.h"

namespace tessera {

// What is cut out: 1.02 times the box and 10 pixels more in each direction, within the image (spec 4.5); by the original's
// roundings.
PixelBox crop_box(const BoxXyxy& box, int height, int width);

class CropWriter {
 public:
  explicit CropWriter(std::filesystem::path folder) : folder_(std::move(folder)) {}

  // Before the crops of an image: those that an earlier run into this folder left by the same stem are removed. Error(kIo) as below.
  void begin(const std::string& stem) const;

  // JPEG of quality 95 with full chroma. A box outside of the image has no crop. What no folder may be called becomes '_' in a
  // class name. Error(kIo) when the disk refuses.
  void add(const Image& image, const BoxXyxy& box, const std::string& class_name, const std::string& stem);

 private:
  std::filesystem::path folder_;
  std::set<std::string> written_;  // by this run
};

}  // namespace tessera
