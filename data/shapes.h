// The embedded default data set: drawn objects on textured backgrounds, made on demand in about a second, so that a first training
// needs no download. A standard YOLO folder comes out: images/{train,val}, labels/{train,val} with polygons, data.yaml.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "data/image.h"
#include "data/polygon.h"

namespace tessera {

struct ShapesOptions {
  int train = 256, val = 64;  // images of each split
  int size = 160;             // pixels a side, 32 .. 4096
  uint64_t seed = 0;
  bool operator==(const ShapesOptions&) const = default;
};

struct ShapesObject {
  // circle, square, triangle, star, cross: told apart by outline only; colour, texture, angle and size are random for each object.
  int32_t class_id = 0;
  Polygon polygon;  // fractions of the image; whole even where a later object covers it
};

struct ShapesSample {
  Image image;
  std::vector<ShapesObject> objects;  // 1 to 6, back to front
};

// Image `index` of the set; training images come first. A function of its arguments alone.
ShapesSample draw_shapes(const ShapesOptions& options, int64_t index);

// Makes the folder unless it already holds exactly this set, and returns the path of its data.yaml. The set is written beside it
// and moved into place at the end: the folder is complete or absent. A set of other options is replaced; a folder that holds
// something else is refused with Error(kUsage). Error(kUsage) for options out of range, Error(kIo) when the disk refuses.
std::filesystem::path make_shapes(const std::filesystem::path& folder, const ShapesOptions& options = {});

}  // namespace tessera
