#include "data/coco_json.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>

#include "tensor/base/check.h"
#include "tests/support/temp_folder.h"

using namespace tessera;

namespace {

struct TempFile {
  explicit TempFile(const std::string& text, const std::string& name = "file.json") : path(folder.write(name, text)) {}

  testing::TempFolder folder;
  std::filesystem::path path;
};

const std::string kGood = R"({"info": {"a": [1, "}"]},
 "images": [{"id": 7, "height": 4, "width": 6, "file_name": "sub/000007.jpg"}, {"id": 8, "height": 5, "width": 6, "file_name": "b \"quoted\" \\.png"}],
 "categories": [{"id": 3, "name": "cat", "supercategory": "animal"}],
 "annotations": [
  {"id": 1, "image_id": 7, "category_id": 3, "iscrowd": 0, "area": 6, "bbox": [2, 1, 3, 2], "segmentation": [[1, 1, 4, 1, 4, 3, 1, 3], [0, 0, 1, 0, 1, 1]]},
  {"id": 2, "image_id": 7, "category_id": 3, "iscrowd": 1, "area": 6.5, "bbox": [2, 1, 3, 2], "segmentation": {"size": [4, 6], "counts": [9, 2, 2, 2, 2, 2, 5]}},
  {"id": 3, "image_id": 8, "category_id": 3, "area": 1e1, "bbox": [0, 0, 1, 1], "segmentation": {"counts": "9220009", "size": [5, 6]}},
  {"id": 4, "image_id": 8, "category_id": 3}
 ]
})";

Error failure(auto call) {
  try {
    call();
  } catch (const Error& e) {
    return e;
  }
  return Error(ErrorCode(0), "no error");
}

Error instances_failure(const std::string& text) {
  const TempFile file(text);
  const Error e = failure([&] { read_coco_instances(file.path); });
  if (e.code() == ErrorCode::kData) CHECK(e.where().file == file.path.string());
  return e;
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  REQUIRE(at != text.npos);
  return text.replace(at, from.size(), to);
}

}  // namespace

TEST_CASE("coco json: instances") {
  const TempFile file(kGood);
  const CocoInstances in = read_coco_instances(file.path);
  REQUIRE(in.images.size() == 2);
  CHECK((in.images[1].id == 8 && in.images[1].height == 5 && in.images[1].file_name == "b \"quoted\" \\.png"));
  CHECK(in.find_image(7) == &in.images[0]);
  CHECK(in.find_image(9) == nullptr);
  REQUIRE(in.annotations.size() == 4);
  CHECK(in.annotations[0].polygons.size() == 2);
  CHECK(in.annotations[0].polygons[1] == std::vector<double>{0, 0, 1, 0, 1, 1});
  CHECK((in.annotations[1].crowd && *in.annotations[1].area == 6.5));
  CHECK(rle_to_string(*in.annotations[1].rle) == "9220003");
  CHECK(rle_area(*in.annotations[2].rle) == 6);
  CHECK((!in.annotations[3].area && !in.annotations[3].box && !in.annotations[3].rle));
  CHECK(in.categories[0].name == "cat");
  CHECK(rle_area(coco_mask(in.annotations[0], 4, 6)) == 6 + rle_area(rle_from_polygon(in.annotations[0].polygons[1], 4, 6)));
  CHECK(rle_area(coco_mask(in.annotations[3], 4, 6)) == 0);
}

TEST_CASE("coco json: what is wrong is named with its place") {
  Error e = instances_failure(replaced(kGood, "\"id\": 2, \"image_id\"", "\"id\": 2 \"image_id\""));
  CHECK((e.code() == ErrorCode::kData && e.where().line == 6 && e.where().column > 10));
  e = instances_failure(replaced(kGood, "\"image_id\": 8", "\"image_id\": 80"));
  CHECK((e.code() == ErrorCode::kData && e.where().line == 7 && e.where().column == 3));
  CHECK(e.message().find("80") != std::string::npos);
  CHECK(!e.hint().empty());
  const auto refused = [&](const std::string& from, const std::string& to) {
    return instances_failure(replaced(kGood, from, to)).code() == ErrorCode::kData;
  };
  CHECK(refused("\"id\": 2,", "\"id\": 1,"));  // twice
  CHECK(refused("\"id\": 8,", "\"id\": 7,"));
  CHECK(refused("\"id\": 2,", "\"id\": \"2\","));  // mistyped
  CHECK(refused("\"id\": 2,", "\"id\": 2.5,"));
  CHECK(refused("\"id\": 2,", "\"id\": 99999999999999999999,"));
  CHECK(refused("\"category_id\": 3", "\"category_id\": 4"));  // unknown
  CHECK(refused("\"image_id\": 7, ", ""));                     // missing
  CHECK(refused("\"height\": 4, ", ""));
  CHECK(refused("\"height\": 4", "\"height\": -4"));
  CHECK(refused("\"size\": [4, 6]", "\"size\": [6, 4]"));  // not of this image
  CHECK(refused("\"size\": [4, 6], ", ""));
  CHECK(refused("[9, 2, 2, 2, 2, 2, 5]", "[9, 2, 2, 2, 2, 2, 4]"));
  CHECK(refused("[9, 2, 2, 2, 2, 2, 5]", "[9, 2, 2, [2], 2, 2, 5]"));
  CHECK(refused("\"9220009\"", "\"92200\""));
  CHECK(refused("[2, 1, 3, 2]", "[2, 1, 3]"));
  CHECK(refused("[[1, 1, 4, 1, 4, 3, 1, 3], [0, 0, 1, 0, 1, 1]]", "[1, 1, 4, 1, 4, 3, 1, 3]"));
  CHECK(refused("\"annotations\"", "\"annotation\""));
  CHECK(refused("\"categories\": [{", "\"categories\": [[{"));
  CHECK(refused("6.5", "NaN"));
  CHECK(refused("\"a\": [1, \"}\"]", "\"a\": [1, ]"));
  for (size_t cut = 0; cut + 1 < kGood.size(); cut += 7) CHECK(instances_failure(kGood.substr(0, cut)).code() == ErrorCode::kData);
  CHECK(instances_failure("[]").code() == ErrorCode::kData);
  CHECK(failure([] { read_coco_instances("/nonexistent/file.json"); }).code() == ErrorCode::kData);
  CHECK(failure([] { read_coco_instances(std::filesystem::temp_directory_path()); }).code() == ErrorCode::kData);
}

TEST_CASE("coco json: results in every form") {
  const TempFile gt(kGood);
  const CocoInstances in = read_coco_instances(gt.path);
  const TempFile file(
      R"( [{"image_id": 7, "category_id": 3, "score": 0.5, "bbox": [1, 2, 3, 1.5], "segmentation": {"size": [4, 6], "counts": "9220003"}},
  {"image_id": "000007", "category_id": 9, "score": 1, "segmentation": {"size": [4, 6], "counts": [9, 2, 2, 2, 2, 2, 5]}},
  {"image_id": 8, "category_id": 3, "score": 0.25, "bbox": [1, 1, 2, 2]},
  {"image_id": 8, "category_id": 3, "score": 0.125, "segmentation": [[1, 1, 4, 1, 4, 3, 1, 3]]}]  )");
  const CocoResults r = read_coco_results(file.path, in, ReadMasks::kAll);
  REQUIRE(r.records.size() == 4);
  REQUIRE(r.masks.size() == 4);
  CHECK((r.records[0].image == 0 && r.records[0].area == 4.5 && r.masks.area(0) == 6));
  CHECK((r.records[1].image == 0 && r.records[1].box == BoxLtwh{2, 1, 3, 2} && r.records[1].area == 6));
  CHECK((r.records[2].image == 1 && r.masks.area(2) == 4 && !r.records[2].has_mask));
  CHECK((r.records[3].box == BoxLtwh{1, 1, 3, 2} && r.masks.area(3) == 6));
  const CocoResults boxes = read_coco_results(file.path, in, ReadMasks::kNo);
  CHECK((boxes.masks.size() == 0 && boxes.records[1].box == BoxLtwh{2, 1, 3, 2}));
  const CocoResults some = read_coco_results(file.path, in, ReadMasks::kComparable);
  CHECK((some.masks.area(0) == 6 && some.records[1].area == 6));  // category 9 has no annotation

  const auto refused = [&](const std::string& text) {
    const TempFile bad(text);
    return failure([&] { read_coco_results(bad.path, in, ReadMasks::kAll); });
  };
  Error e = refused(
      "[{\"image_id\": 7, \"category_id\": 3, \"score\": 0.5, \"bbox\": [1, 2, 3, 1]},\n {\"image_id\": 70, \"category_id\": 3, "
      "\"score\": 0.5, \"bbox\": [1, 2, 3, 1]}]");
  CHECK((e.code() == ErrorCode::kData && e.where().line == 2 && e.where().column == 2));
  CHECK(refused(R"([{"image_id": 7, "category_id": 3, "bbox": [1, 2, 3, 1]}])").code() == ErrorCode::kData);
  CHECK(refused(R"([{"image_id": 7, "category_id": 3, "score": 1}])").code() == ErrorCode::kData);
  CHECK(refused(R"([{"image_id": 7, "category_id": 3, "score": "1", "bbox": [1, 2, 3, 1]}])").code() == ErrorCode::kData);
  CHECK(refused(R"([{"image_id": 7, "category_id": 3, "score": 1, "bbox": [1, 2, 3, 1]} {}])").code() == ErrorCode::kData);
  CHECK(refused(R"([5])").code() == ErrorCode::kData);
  CHECK(refused(R"([[5]])").code() == ErrorCode::kData);
  CHECK(refused(kGood).code() == ErrorCode::kData);
  CHECK(refused("").code() == ErrorCode::kData);
  CHECK(refused("[]").code() == ErrorCode(0));
  // A cut inside the run-length text is placed in the text; a fault behind it keeps its column.
  e = refused(R"([{"segmentation": {"counts": "9220003", "size": [4, 6]}, "image_id": 7, "category_id": x, "score": 1}])");
  CHECK((e.where().line == 1 && e.where().column > 85));
  CHECK(refused(R"([{"image_id": 7, "category_id": 3, "score": 1, "segmentation": {"size": [4, 6], "counts": "922\u00300003"}}])")
            .code() == ErrorCode::kData);
  CHECK(refused(R"([{"image_id": 7, "category_id": 3, "score": 1, "segmentation": {"size": [4, 6], "counts": "922000\u0033"}}])")
            .code() == ErrorCode(0));
}

TEST_CASE("coco json: what is written is read back") {
  const TempFile gt(kGood), folder("");
  const CocoInstances in = read_coco_instances(gt.path);
  std::vector<uint8_t> mask(30, 0);
  for (size_t i = 0; i < 30; i += 3) mask[i] = 1;
  const Rle rle = rle_encode(mask.data(), 5, 6);
  const auto path = folder.path.parent_path() / "predictions.json";
  {
    CocoResultsWriter out(path);
    CocoResultsText first, second, none;
    first.add("000007", 3, {1.23456, -0.0001, 3, 1e-9}, 0.123456789, nullptr);
    out.add(first);
    CHECK(!std::filesystem::exists(path));
    second.add("8", 3, {0.0005, 0.0015, 2.5, 100}, 1, &rle);
    out.add(none);
    out.add(second);
    out.close();
  }
  const CocoResults r = read_coco_results(path, in, ReadMasks::kAll);
  REQUIRE(r.records.size() == 2);
  CHECK((r.records[0].image == 0 && r.records[0].score == 0.12346 && r.records[0].box == BoxLtwh{1.235, 0, 3, 0}));
  CHECK((r.records[1].image == 1 && r.masks.area(1) == 10 && r.records[1].has_mask));
  {
    CocoResultsWriter unfinished(folder.path.parent_path() / "other.json");
    CocoResultsText text;
    text.add("a\"b", 1, {}, 0.5, nullptr);
    unfinished.add(text);
  }
  CHECK(!std::filesystem::exists(folder.path.parent_path() / "other.json"));
  CHECK(!std::filesystem::exists(folder.path.parent_path() / "other.json.part"));
  CHECK(failure([] { CocoResultsWriter("/nonexistent/folder/x.json"); }).code() == ErrorCode::kIo);
  {
    CocoResultsWriter named(folder.path.parent_path() / "named.json");
    CocoResultsText text;
    text.add("b \"quoted\" \\", 3, {1, 2, 3, 4}, 1e-5, nullptr);
    named.add(text);
    named.close();
  }
  CHECK(read_coco_results(folder.path.parent_path() / "named.json", in, ReadMasks::kNo).records[0].image == 1);
  CocoResultsText latin1;
  latin1.add("caf\xe9\n", 1, {}, 0.5, nullptr);
  CHECK(nlohmann::json::parse(latin1.text())["image_id"] == "caf\ufffd\n");
}

TEST_CASE("coco json: decimals are those of the exact value, without zeros at the end") {
  const auto box_text = [](const BoxLtwh& box) {
    CocoResultsText text;
    text.add("1", 1, box, 0.5, nullptr);
    const std::string& all = text.text();
    const size_t begin = all.find('[');
    return all.substr(begin, all.find(']') - begin + 1);
  };
  CHECK(box_text({0.0005, 0.0625, 0.0615, 2.0005}) == "[0.001, 0.062, 0.061, 2.001]");  // above a tie, on it, below it, above it
  CHECK(box_text({-0.0001, -0.0, -12.3456, 1e12}) == "[0.0, 0.0, -12.346, 1000000000000.0]");
  CHECK(box_text({0.9999, 0.99951, 10, 100.01}) == "[1.0, 1.0, 10.0, 100.01]");
  std::mt19937_64 rng(3);
  for (int i = 0; i < 2000; ++i) {
    const double value = double(float(std::ldexp(double(rng() % 2000001) - 1e6, -int(rng() % 24))));
    std::string expected = fmt::format("{:.3f}", value);
    while (expected.ends_with('0') && !expected.ends_with(".0")) expected.pop_back();
    if (expected == "-0.0") expected = "0.0";
    CHECK(box_text({value, 0, 0, 0}) == "[" + expected + ", 0.0, 0.0, 0.0]");
  }
}

TEST_CASE("coco json: roundings, ids and the category table") {
  CHECK(round_decimals(0.0005, 3) == 0.001);  // the double is above the tie
  CHECK(round_decimals(2.5, 0) == 2);         // a true tie goes to even
  CHECK(round_decimals(1.005, 2) == 1.0);
  CHECK(round_decimals(-123.45678, 3) == -123.457);
  CHECK(coco_image_id("000000532481") == 532481);
  CHECK(!coco_image_id("12a"));
  CHECK(!coco_image_id(""));
  CHECK(!coco_image_id("99999999999999999999999"));
  CHECK((coco_category_of_class(0) == 1 && coco_category_of_class(11) == 13 && coco_category_of_class(79) == 90));
  CHECK((coco_category_of_class(80) == -1 && coco_category_of_class(-1) == -1));
  for (int c = 1; c < 80; ++c) {
    CHECK(coco_category_of_class(c) > coco_category_of_class(c - 1));
    for (int unused : {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}) CHECK(coco_category_of_class(c) != unused);
  }
}
