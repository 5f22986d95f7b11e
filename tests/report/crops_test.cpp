// Crops beside those of the original: their place recorded from it, their names as it gives them.
#include "yolo/report/crops.h"

#include <doctest/doctest.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "tests/support/temp_folder.h"

using namespace tessera;
namespace fs = std::filesystem;

TEST_CASE("crop boxes are the original's") {
  struct Row {
    BoxXyxy box;
    PixelBox expected;
  };
  // Of an image of 200 x 300 pixels, the original's function called with these boxes.
  const Row rows[] = {{{81, 3, 191, 8}, {74, 0, 197, 13}},
                      {{243.981079f, 121.327156f, 273.82666f, 145.899307f}, {238, 116, 279, 151}},
                      {{163.087494f, 0.547700047f, 280.521729f, 163.170715f}, {156, 0, 286, 169}},
                      {{10, 35, 257, 146}, {2, 28, 264, 152}},
                      {{162.43837f, 59.942379f, 258.953674f, 84.5374451f}, {156, 54, 264, 89}},
                      {{8.49590111f, 129.437897f, 37.2849846f, 134.124878f}, {3, 124, 42, 139}},
                      {{115, 196, 185, 199}, {109, 190, 190, 200}},
                      {{195.137787f, 77.7842865f, 205.662598f, 137.689346f}, {190, 72, 210, 143}},
                      {{10, 10, 10, 10}, {5, 5, 15, 15}}};
  for (const auto& [box, expected] : rows) {
    const PixelBox got = crop_box(box, 200, 300);
    INFO("box " << box.x1 << " " << box.y1);
    CHECK(got.x0 == expected.x0);
    CHECK(got.y0 == expected.y0);
    CHECK(got.x1 == expected.x1);
    CHECK(got.y1 == expected.y1);
  }
  CHECK(crop_box({400, 10, 500, 20}, 200, 300).empty());
  const float nan = std::numeric_limits<float>::quiet_NaN();
  CHECK(crop_box({nan, nan, nan, nan}, 200, 300).empty());
}

TEST_CASE("crops hold the image's pixels, have names of their own and stay in their folder") {
  const testing::TempFolder temporary;
  const fs::path& folder = temporary.path();
  Image image(60, 80);
  for (int y = 0; y < 60; ++y) {
    for (int x = 0; x < 80; ++x) std::memset(image.row(y) + 3 * x, x < 40 ? 50 : 200, 3);
  }
  CropWriter crops(folder / "crops");
  crops.add(image, {50, 10, 70, 30}, "dog", "a");
  crops.add(image, {5, 10, 20, 30}, "dog", "a");
  crops.add(image, {5, 10, 20, 30}, "dog", "a");
  crops.add(image, {5, 10, 20, 30}, "dog", "a2");  // the second of a has this name
  crops.add(image, {5, 10, 20, 30}, "cat", "a");
  crops.add(image, {100, 10, 120, 30}, "cat", "outside");
  crops.add(image, {5, 10, 20, 30}, "../../up", "a");
  crops.add(image, {5, 10, 20, 30}, "..", "a");
  crops.add(image, {5, 10, 20, 30}, "", "a");
  const std::string longest(251, 'l');  // with .jpg the longest name there is
  for (int i = 0; i < 2; ++i) crops.add(image, {5, 10, 20, 30}, "owl", longest);
  std::vector<std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (entry.is_regular_file()) files.push_back(entry.path().lexically_relative(folder).string());
  }
  std::sort(files.begin(), files.end());
  CHECK(files == std::vector<std::string>{"crops/.._.._up/a.jpg", "crops/_../a.jpg", "crops/_/a.jpg", "crops/cat/a.jpg",
                                          "crops/dog/a.jpg", "crops/dog/a2.jpg", "crops/dog/a22.jpg", "crops/dog/a3.jpg",
                                          "crops/owl/" + longest.substr(1) + "2.jpg", "crops/owl/" + longest + ".jpg"});
  for (const auto& [name, grey] : {std::pair{"a", 200}, {"a2", 50}}) {
    const Image crop = read_image(folder / "crops/dog" / (std::string(name) + ".jpg"));
    CHECK(crop.height == 31);  // of 20 * 1.02 + 10: from 4.8 to 35.2, both truncated
    CHECK(std::all_of(crop.pixels.begin(), crop.pixels.end(), [&](uint8_t v) { return std::abs(int(v) - grey) < 3; }));
  }
  // A later run into the folder: what it does not write of these images goes, other images' stay.
  crops.add(image, {5, 10, 20, 30}, "dog", "b");
  CropWriter again(folder / "crops");
  again.begin("a");
  again.add(image, {50, 10, 70, 30}, "dog", "a");
  again.add(image, {50, 10, 70, 30}, "dog", "a");
  again.begin("a2");  // whose name the second of a has
  again.begin(longest);
  files.clear();
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (entry.is_regular_file()) files.push_back(entry.path().lexically_relative(folder).string());
  }
  std::sort(files.begin(), files.end());
  CHECK(files == std::vector<std::string>{"crops/dog/a.jpg", "crops/dog/a2.jpg", "crops/dog/b.jpg"});
}
