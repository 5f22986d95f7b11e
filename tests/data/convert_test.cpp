// Conversions between label forms: text equal to the original's converter, masks equal after a round trip, refusals.
#include "data/convert/convert.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <numeric>

#include "data/coco_json.h"
#include "data/convert/mask_outline.h"
#include "data/image.h"
#include "data/yolo_txt.h"
#include "tensor/base/checksum.h"
#include "tensor/base/file.h"
#include "tests/data/support.h"
#include "tests/support/error_of.h"
#include "tests/support/golden.h"

using namespace tessera;
using namespace tessera::test;
using namespace tessera::testing;
using nlohmann::json;
namespace fs = std::filesystem;

namespace {

std::vector<fs::path> files_in(const fs::path& folder) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder)) files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  return files;
}

// Rings of a mask, drawn again by the COCO rule; an odd number of rings is inside.
std::vector<uint8_t> drawn(const std::vector<PrecisePolygon>& rings, int height, int width) {
  std::vector<uint8_t> out(size_t(height) * size_t(width)), one(out.size());
  for (const PrecisePolygon& ring : rings) {
    std::vector<double> xy;
    for (const PrecisePoint& p : ring) xy.insert(xy.end(), {p.x, p.y});
    rle_decode(rle_from_polygon(xy, height, width), one.data());
    for (size_t i = 0; i < out.size(); ++i) out[i] ^= one[i];
  }
  return out;
}

// Blobs with holes and pixels that meet in corners.
std::vector<uint8_t> noise_mask(int height, int width, uint64_t seed, double density) {
  Rng rng(seed, RngPurpose::kTest);
  std::vector<uint8_t> mask(size_t(height) * size_t(width));
  for (uint8_t& v : mask) v = rng.uniform(0, 1) < density;
  return mask;
}

void write_grey(const fs::path& file, const std::vector<uint8_t>& values, int height, int width) {
  Image image(height, width);
  for (size_t i = 0; i < values.size(); ++i) std::fill_n(image.pixels.begin() + int64_t(3 * i), 3, values[i]);
  fs::create_directories(file.parent_path());
  write_png(file, image);
}

}  // namespace

TEST_CASE("mask outline: its rings have the mask's pixels by the COCO rule, holes and corners included") {
  for (const auto& [height, width] : {std::pair{1, 1}, {1, 7}, {9, 1}, {13, 17}, {40, 33}}) {
    for (const double density : {0.1, 0.5, 0.9, 1.0}) {
      CAPTURE(height);
      CAPTURE(width);
      CAPTURE(density);
      const std::vector<uint8_t> mask = noise_mask(height, width, uint64_t(height * 100 + width), density);
      const std::vector<PrecisePolygon> rings = mask_outline(mask.data(), height, width);
      CHECK(drawn(rings, height, width) == mask);
      for (const PrecisePolygon& ring : rings) {  // corners only: a turn at each
        for (size_t i = 0; i < ring.size(); ++i) {
          const PrecisePoint &a = ring[i], &b = ring[(i + 1) % ring.size()], &c = ring[(i + 2) % ring.size()];
          CHECK((a.x == b.x) != (b.x == c.x));
        }
      }
    }
  }
  CHECK(mask_outline(std::vector<uint8_t>(12).data(), 3, 4).empty());
  const std::vector<PrecisePolygon> square = mask_outline(std::vector<uint8_t>{0, 0, 0, 1}.data(), 2, 2);
  CHECK(square == std::vector<PrecisePolygon>{{{1, 1}, {2, 1}, {2, 2}, {1, 2}}});
}

TEST_CASE("mask outline: components are 8-connected pixels of one value, by the first pixel") {
  const std::vector<uint8_t> values = {1, 0, 2, 2,  //
                                       0, 1, 0, 0,  //
                                       3, 3, 0, 1};
  std::vector<int32_t> component;
  CHECK(label_components(values.data(), 3, 4, component) == 4);
  CHECK(component == std::vector<int32_t>{1, 0, 2, 2, 0, 1, 0, 0, 3, 3, 0, 4});
}

TEST_CASE("merge_parts: the way back is the way there, so the chain has the pixels of its parts") {
  // The second part is entered at a later vertex than it is left at, and so reversed.
  const std::vector<PrecisePolygon> parts = {{{2, 26}, {10, 26}, {10, 34}, {2, 34}},
                                             {{30, 26}, {38, 26}, {38, 34}, {30, 34}, {14, 30}},
                                             {{30, 4}, {34, 4}, {34, 12}, {30, 12}},
                                             {{50, 26}, {58, 26}, {58, 34}, {50, 34}}};
  CHECK(drawn({merge_parts(parts)}, 40, 64) == drawn(parts, 40, 64));
}

TEST_CASE("convert: the text of COCO labels is the original's, byte for byte") {
  const json golden = read_json(golden_dir() / "coco_labels.json");
  const TempFolder folder;
  const fs::path from = folder.write("instances_train.json", golden.at("instances").dump());
  const ConvertReport r = coco_to_yolo(from, folder.path() / "set");
  json labels = json::object();
  for (const fs::path& file : files_in(folder.path() / "set/labels/train")) labels[file.filename().string()] = read_file(file);
  CHECK(labels == golden.at("labels"));
  CHECK(r.images == 7);
  CHECK(r.background == 3);  // one with a crowd only, two without annotations
  CHECK(r.objects == 24);
  CHECK(r.crowds == 2);
  CHECK(r.duplicates == 1);
  CHECK(r.empty == 1);
  CHECK(r.joined == 16);
  CHECK(r.least_iou > 0.86);  // stars whose parts overlap: inside twice is outside
}

TEST_CASE("convert: labels of real annotations have the original's sums") {
  const json golden = read_json(golden_dir() / "coco_labels.json").at("coco_tiny");
  for (const auto& [split, expected] : golden.items()) {
    const auto from =
        fs::path(TESSERA_SOURCE_DIR) / ".." / "shared" / "data" / "coco-tiny" / "annotations" / ("instances_" + split + ".json");
    if (!fs::exists(from)) {
      MESSAGE("skipped: " << from.string() << " is not there");
      continue;
    }
    const TempFolder folder;
    const ConvertReport r = coco_to_yolo(from, folder.path());
    std::string text;
    for (const fs::path& file : files_in(folder.path() / "labels" / split)) text += read_file(file);
    CHECK(int64_t(text.size()) == expected.at("bytes").get<int64_t>());
    CHECK(crc32c(std::as_bytes(std::span(text))) == expected.at("crc32c").get<uint32_t>());
    CHECK(r.changed == 0);
    CHECK(r.mean_iou() > 0.998);
  }
}

TEST_CASE("convert: run-length masks, boxes without a mask, file names with folders; the set trains from its data.yaml") {
  const TempFolder folder;
  const int height = 40, width = 50;
  std::vector<uint8_t> ringed(size_t(height) * width);
  for (int y = 5; y < 30; ++y)
    for (int x = 8; x < 40; ++x) ringed[size_t(y * width + x)] = !(y > 10 && y < 20 && x > 15 && x < 30);  // with a hole
  const Rle rle = rle_encode(ringed.data(), height, width);
  json j = {{"images", {{{"id", 1}, {"file_name", "a/one.jpg"}, {"height", height}, {"width", width}}}},
            {"categories", {{{"id", 7}, {"name", "it's \"b\""}}, {{"id", 3}, {"name", "a"}}}},
            {"annotations", json::array()}};
  const auto add = [&](int category, const json& segmentation, std::vector<double> box) {
    j["annotations"].push_back(
        {{"id", j["annotations"].size() + 1}, {"image_id", 1}, {"category_id", category}, {"iscrowd", 0}, {"bbox", box}});
    if (!segmentation.is_null()) j["annotations"].back()["segmentation"] = segmentation;
  };
  add(7, {{"size", {height, width}}, {"counts", rle_to_string(rle)}}, {8, 5, 32, 25});
  add(3, nullptr, {2, 3, 10, 20});
  add(3, {{-8, 2, 20, 2, 20, 20, -8, 20}}, {-8, 2, 28, 18});  // leaves the image: clipped
  const fs::path from = folder.write("part/_annotations.coco.json", j.dump());
  write_grey(folder.path() / "part/a/one.png", ringed, height, width);
  fs::rename(folder.path() / "part/a/one.png", folder.path() / "part/a/one.jpg");
  const fs::path to = folder.path() / "set";
  const ConvertReport r = coco_to_yolo(folder.path(), to);
  CHECK(r.objects == 3);
  CHECK(r.runs == 1);
  CHECK(r.boxes == 1);
  CHECK(r.joined == 1);
  CHECK(r.linked == 1);
  CHECK(r.least_iou == 1);
  CHECK(fs::is_symlink(to / "images/part/a/one.jpg"));
  const LabelFile labels = parse_labels(read_file(to / "labels/part/a/one.txt"), "", 2, LabelPolicy::kStrict);
  REQUIRE(labels.objects.size() == 3);
  CHECK(labels.objects[0].class_id == 1);  // classes by rising category id
  CHECK(labels.objects[1].class_id == 0);
  CHECK(labels.objects[1].polygon == Polygon{{0.04f, 0.075f}, {0.24f, 0.075f}, {0.24f, 0.575f}, {0.04f, 0.575f}});
  CHECK(labels.objects[2].polygon[0].x == 0);
  CHECK(read_file(to / "data.yaml").find("1: \"it's \\\"b\\\"\"") != std::string::npos);
  CHECK(r.findings.size() == 2);  // neither train nor val

  CHECK(says(error_of([&] { coco_to_yolo(from, to); }), "has labels already"));
  j["images"][0]["file_name"] = "../one.jpg";
  CHECK(says(error_of([&] { coco_to_yolo(folder.write("out.json", j.dump()), to); }), "not a path below"));
  j["images"][0]["file_name"] = "one.jpg";
  j["categories"][0]["name"] = "other";
  CHECK(says(error_of([&] { coco_to_yolo(folder.write("val.json", j.dump()), to); }), "classes here are not those"));
  CHECK(!fs::exists(to / "labels/val"));

  // Of several files that do not go together none is converted.
  folder.write("several/b.json", j.dump());
  j["categories"][0]["name"] = "another";
  folder.write("several/c.json", j.dump());
  const fs::path set = folder.path() / "several-set";
  CHECK(says(error_of([&] { coco_to_yolo(folder.path() / "several", set); }), "its categories are not those"));
  fs::remove(folder.path() / "several/c.json");
  folder.write("several/instances_b.json", read_file(folder.path() / "several/b.json"));
  CHECK(says(error_of([&] { coco_to_yolo(folder.path() / "several", set); }), "the split 'b' is that of"));
  folder.write("several/c.json", "{\"images\": [");
  fs::remove(folder.path() / "several/instances_b.json");
  error_of([&] { coco_to_yolo(folder.path() / "several", set); });
  CHECK(!fs::exists(set));

  // A mask that is none names its file and annotation.
  json odd = j;
  odd["annotations"] = {{{"id", 5},
                         {"image_id", j["images"][0]["id"]},
                         {"category_id", j["categories"][0]["id"]},
                         {"bbox", {1, 1, 8, 8}},
                         {"segmentation", {{1, 1, 9, 1, 9, 9, 1}}}}};
  const fs::path odd_file = folder.write("odd.json", odd.dump());
  const Error no_mask = error_of([&] { coco_to_yolo(odd_file, folder.path() / "odd-set"); });
  CHECK(says(no_mask, "annotation 5 of one.jpg: a polygon has 7 coordinates"));
  CHECK(no_mask.where().file == odd_file.string());

  // Images that would share a label file.
  const auto refused = [&](const char* first, const char* second) {
    json two = j;
    two["annotations"] = json::array();
    two["images"] = {{{"id", 1}, {"file_name", first}, {"height", height}, {"width", width}},
                     {{"id", 2}, {"file_name", second}, {"height", height}, {"width", width}}};
    return error_of([&] { coco_to_yolo(folder.write("two.json", two.dump()), set); });
  };
  CHECK(says(refused("a/x.jpg", "a/x.png"), "the images 'a/x.jpg' and 'a/x.png' would have one label file"));
  CHECK(says(refused("x.jpg", "./x.jpg"), "the image 'x.jpg' is there twice"));
  CHECK(!fs::exists(set));

  // A polygon of no points is told with its file.
  j["annotations"][0]["segmentation"] = json::array({json::array()});
  const std::string pointless = folder.write("pointless.json", j.dump()).string();
  const Error e = error_of([&] { coco_to_yolo(pointless, set); });
  CHECK(e.where().file == pointless);
  CHECK(says(e, "annotation 1 of one.jpg: a polygon has 0 coordinates"));
  CHECK(!fs::exists(set / "labels/pointless"));
}

TEST_CASE("convert: mask images to labels, and labels to COCO JSON: the same pixels at the end") {
  const TempFolder folder;
  const int height = 48, width = 61;
  std::vector<uint8_t> values(size_t(height) * width);
  for (int y = 4; y < 20; ++y)
    for (int x = 3; x < 30; ++x) values[size_t(y * width + x)] = (y > 8 && y < 14 && x > 8 && x < 20) ? 0 : 2;
  for (int y = 25; y < 44; ++y)
    for (int x = 20; x < 60 - y / 2; ++x) values[size_t(y * width + x)] = 1;
  values[0] = 255;  // void
  write_grey(folder.path() / "masks/val/7.png", values, height, width);
  write_grey(folder.path() / "masks/train/7.png", values, height, width);
  write_grey(folder.path() / "photos/val/7.png", values, height, width);
  const fs::path to = folder.path() / "set";
  const ConvertReport r = masks_to_yolo(folder.path() / "masks", to, folder.path() / "photos");
  CHECK(r.images == 2);
  CHECK(r.objects == 4);
  CHECK(r.joined == 2);
  CHECK(r.least_iou == 1);
  CHECK(r.linked == 1);

  const fs::path file = folder.path() / "instances.json";
  const ConvertReport back = yolo_to_coco((to / "data.yaml").string(), "val", file);
  CHECK(back.objects == 2);
  const CocoInstances coco = read_coco_instances(file);
  REQUIRE(coco.annotations.size() == 2);
  CHECK(coco.images[0].id == 7);
  CHECK(coco.images[0].file_name == "7.png");
  CHECK(coco.categories.size() == 2);
  CHECK(coco.categories[1].id == 2);
  for (const CocoAnnotation& a : coco.annotations) {
    std::vector<uint8_t> mask(values.size());
    rle_decode(coco_mask(a, height, width), mask.data());
    int64_t differ = 0;
    for (size_t i = 0; i < mask.size(); ++i) differ += (mask[i] != 0) != (values[i] == uint8_t(a.category_id));
    CHECK(differ == 0);
    CHECK(*a.area == double(std::count_if(values.begin(), values.end(), [&](uint8_t v) { return v == uint8_t(a.category_id); })));
  }

  // Images of one name in several folders stay apart, and come back.
  for (const char* name : {"nested/images/train/a/1.png", "nested/images/train/b/c/1.png"})
    write_grey(folder.path() / name, values, height, width);
  folder.write("nested/labels/train/a/1.txt", read_file(to / "labels/val/7.txt"));
  folder.write("nested/data.yaml", "train: images/train\nval: images/train\nnames: [x, y]\n");
  yolo_to_coco((folder.path() / "nested").string(), "train", file);
  const CocoInstances nested = read_coco_instances(file);
  REQUIRE(nested.images.size() == 2);
  CHECK(nested.images[0].file_name == "a/1.png");
  CHECK(nested.images[1].file_name == "b/c/1.png");
  CHECK(coco_to_yolo(file, folder.path() / "back").objects == 2);
  CHECK(fs::exists(folder.path() / "back/labels/instances/a/1.txt"));

  values[5] = 1;
  Image colours(height, width);
  std::iota(colours.pixels.begin(), colours.pixels.end(), uint8_t(0));
  write_png(folder.path() / "masks/val/8.png", colours);
  CHECK(says(error_of([&] { masks_to_yolo(folder.path() / "masks", folder.path() / "again"); }), "the mask has colours"));
  CHECK(!fs::exists(folder.path() / "again/labels/val"));
  fs::remove(folder.path() / "masks/val/8.png");
  // Values of 16 bits would lose the lower ones, which are the classes.
  folder.write("masks/val/8.pgm", "P5 2 1 65535\n" + std::string("\0\1\0\2", 4));
  CHECK(says(error_of([&] { masks_to_yolo(folder.path() / "masks", folder.path() / "again"); }), "have 16 bits"));
  fs::remove(folder.path() / "masks/val/8.pgm");
  std::string deep = read_file(folder.path() / "masks/val/7.png");
  deep[24] = 16;
  folder.write("masks/val/8.png", deep);
  CHECK(says(error_of([&] { masks_to_yolo(folder.path() / "masks", folder.path() / "again"); }), "have 16 bits"));
  fs::remove(folder.path() / "masks/val/8.png");
  // Of two splits none is converted unless both can be.
  fs::create_directories(folder.path() / "again/labels/val");
  CHECK(says(error_of([&] { masks_to_yolo(folder.path() / "masks", folder.path() / "again"); }), "has labels already"));
  CHECK(!fs::exists(folder.path() / "again/labels/train"));
  write_grey(folder.path() / "masks/val/7.bmp.png", values, height, width);
  fs::rename(folder.path() / "masks/val/7.bmp.png", folder.path() / "masks/val/7.bmp");
  CHECK(says(error_of([&] { masks_to_yolo(folder.path() / "masks", folder.path() / "third"); }),
             "the images '7.bmp' and '7.png' would have one label file"));
  fs::create_directories(folder.path() / "empty");
  CHECK(says(error_of([&] { masks_to_yolo(folder.path() / "empty", folder.path() / "again"); }), "no mask images"));

  // 0 and 255 alone: one class.
  for (uint8_t& v : values) v = v == 2 ? 255 : 0;
  write_grey(folder.path() / "binary/9.png", values, height, width);
  CHECK(masks_to_yolo(folder.path() / "binary", folder.path() / "two").objects == 1);
  CHECK(read_file(folder.path() / "two/labels/train/9.txt").starts_with("0 "));
}
