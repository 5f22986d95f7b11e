// Label files, data yamls and the scan of a split: what is accepted, what is refused, and how it is said.
#include <doctest/doctest.h>

#include <algorithm>

#include "data/dataset_yaml.h"
#include "data/yolo_txt.h"
#include "tests/data/support.h"
#include "tests/support/error_of.h"

using namespace tessera;
using tessera::testing::error_of;
using tessera::testing::says_in_full;
using namespace tessera::test;
namespace fs = std::filesystem;

namespace {

constexpr const char* kGood = "0 .1 .1 .6 .2 .5 .8\n";

LabelFile parse(std::string_view text, LabelPolicy policy = LabelPolicy::kLenient) {
  return parse_labels(text, "label.txt", 3, policy);
}

const Finding* finding(const std::vector<Finding>& all, std::string_view code) {
  const auto it = std::find_if(all.begin(), all.end(), [&](const Finding& f) { return f.code == code; });
  return it == all.end() ? nullptr : &*it;
}

// A data set of three 40 x 30 images with one object each.
fs::path make_set(const TempFolder& folder, const std::string& name = "set") {
  for (const char* stem : {"a", "b", "c"}) {
    fs::create_directories(folder.path() / name / "images/train");
    write_png(folder.path() / name / "images/train" / (std::string(stem) + ".png"), noise_image(30, 40));
    folder.write(name + "/labels/train/" + stem + ".txt", kGood);
  }
  return folder.write(name + "/data.yaml", "train: images/train\nval: images/train\nnames: [cat, dog, owl]\n");
}

}  // namespace

TEST_CASE("a good row gives class, polygon and the box around it") {
  const LabelFile f = parse("1 .1 .1 .6 .2 .5 .8\n");
  REQUIRE(f.objects.size() == 1);
  CHECK(f.findings.empty());
  CHECK(f.objects[0].class_id == 1);
  CHECK(f.objects[0].polygon == Polygon{{.1f, .1f}, {.6f, .2f}, {.5f, .8f}});
  const std::array<float, 4> box = {.35f, .45f, .5f, .7f};
  for (size_t i = 0; i < 4; ++i) CHECK(f.objects[0].box[i] == doctest::Approx(box[i]));
}

TEST_CASE("forms of the same row that are accepted") {
  for (const char* text :
       {"0 .1 .1 .6 .2 .5 .8", "0\t.1\t.1  .6 .2 .5 .8 \r\n\r\n", "\n\n  0 1e-1 +.1 6E-1 .2 .5 .8\n", "0.0 .1 .1 .6 .2 .5 .8",
        "\xEF\xBB\xBF"
        "0 .1 .1 .6 .2 .5 .8"}) {
    CAPTURE(text);
    const LabelFile f = parse(text);
    REQUIRE(f.objects.size() == 1);
    CHECK(f.objects[0].polygon == Polygon{{.1f, .1f}, {.6f, .2f}, {.5f, .8f}});
    CHECK(f.dropped == 0);
    CHECK_NOTHROW(parse(text, LabelPolicy::kStrict));
  }
  CHECK(finding(parse("\xEF\xBB\xBF").findings, "file-bom") != nullptr);
  CHECK(parse("").objects.empty());
  CHECK_FALSE(parse(" \n \r\n").unusable);
}

TEST_CASE("a number that is too small for a float is 0 and one that is too large infinite, however they are written") {
  const std::string zeros(60, '0');
  for (const std::string& small : {"0." + zeros + "1", "." + zeros + "1", "-0." + zeros + "1", std::string("1e-99"),
                                   std::string("1E-99999999999999999999"), "0." + zeros + zeros + "1e+60", "1" + zeros + "e-300"}) {
    CAPTURE(small);
    const LabelFile f = parse("0 " + small + " .1 .6 .2 .5 .8\n");
    REQUIRE(f.objects.size() == 1);
    CHECK(f.findings.empty());
    CHECK(f.objects[0].polygon[0].x == 0);
  }
  for (const std::string& large : {"1" + zeros, "1" + zeros + ".5", std::string("1e+99"), std::string("1e99999999999999999999"),
                                   "0." + zeros + "1e300", "1" + zeros + zeros + "e-60"}) {
    CAPTURE(large);
    const LabelFile f = parse("0 " + large + " .1 .6 .2 .5 .8\n");
    CHECK(f.objects.empty());
    CHECK(finding(f.findings, "row-inf") != nullptr);
  }
}

TEST_CASE("with a single class every id from 0 on is that class, also beyond those that have names") {
  for (const LabelPolicy policy : {LabelPolicy::kLenient, LabelPolicy::kStrict, LabelPolicy::kOriginal}) {
    const LabelFile f = parse_labels("1 .1 .1 .6 .2 .5 .8\n79 .2 .1 .6 .2 .5 .8\n", "a.txt", 1, policy, true);
    CHECK(f.findings.empty());
    REQUIRE(f.objects.size() == 2);
    CHECK(f.objects[1].class_id == 0);
  }
  CHECK(parse_labels("-1 .1 .1 .6 .2 .5 .8\n", "a.txt", 1, LabelPolicy::kLenient, true).objects.empty());
}

TEST_CASE("bad rows: named with code, line and column; neighbours stay") {
  struct Case {
    const char *row, *code;
    int64_t column;
  };
  const Case cases[] = {
      {"0 nan .1 .6 .2 .5 .8", "row-nan", 3},
      {"0 .1 .1 -inf .2 .5 .8", "row-inf", 9},
      {"0 1e99 .1 .6 .2 .5 .8", "row-inf", 3},
      {"0 0,1 .1 .6 .2 .5 .8", "row-number", 3},
      {"0 .1 .1 .6 .2 .5 0.8x", "row-number", 18},
      {"cat .1 .1 .6 .2 .5 .8", "row-number", 1},
      {"3 .1 .1 .6 .2 .5 .8", "row-class", 1},
      {"-1 .1 .1 .6 .2 .5 .8", "row-class", 1},
      {"1.7 .1 .1 .6 .2 .5 .8", "row-class", 1},
      {"99999999999 .1 .1 .6 .2 .5 .8", "row-class", 1},
      {"0 .1 .1 .6 1.2 .5 .8", "row-range", 12},
      {"0 .1 .1 320 .2 .5 .8", "row-range", 9},
      {"0 -.2 .1 .6 .2 .5 .8", "row-range", 3},
      {"0 .1 .1 .6 .2 .5", "row-odd", 1},
      {"0 .1 .1 .6 .2 .5 .8 .9", "row-odd", 1},
      {"0 .1 .1", "row-short", 1},
      {"0", "row-short", 1},
      {"0 .5 .5 .2 .2", "row-box", 1},
      {"0 .1 .1 .1 .2 .1 .8", "row-flat", 1},
      {kGood, "row-twice", 1},
  };
  for (const Case& c : cases) {
    CAPTURE(c.row);
    const std::string text = std::string(kGood) + "1 .2 .1 .6 .2 .5 .8\n" + c.row + "\n2 .3 .1 .6 .2 .5 .8\n";
    const LabelFile f = parse(text);
    CHECK(f.objects.size() == 3);
    REQUIRE(f.findings.size() == 1);
    CHECK(f.findings[0].code == c.code);
    CHECK(f.findings[0].severity == Severity::kWarning);
    CHECK(f.findings[0].where.file == "label.txt");
    CHECK(f.findings[0].where.line == 3);
    CHECK(f.findings[0].where.column == c.column);
    CHECK_FALSE(f.findings[0].hint.empty());
    const Error e = error_of([&] { parse(text, LabelPolicy::kStrict); });
    CHECK(e.code() == ErrorCode::kData);
    CHECK(e.where().line == 3);
  }
}

TEST_CASE("a coordinate a little outside is clipped with a note") {
  const LabelFile f = parse("0 -.005 .1 .6 .2 .5 1.004\n");
  REQUIRE(f.objects.size() == 1);
  CHECK(f.objects[0].polygon[0].x == 0);
  CHECK(f.objects[0].polygon[2].y == 1);
  CHECK(finding(f.findings, "row-clipped")->severity == Severity::kNote);
}

TEST_CASE("files that are no text, and files of which no row can be used") {
  for (const std::string& text : {std::string("\xFF\xFE"
                                              "0\0 \0",
                                              6),
                                  std::string("0 .1\0 .1", 8), std::string("\x89PNG\r\n\x1a\n"), std::string("\xC3(")}) {
    const LabelFile f = parse(text);
    CHECK(f.unusable);
    CHECK(finding(f.findings, "file-text") != nullptr);
    CHECK(error_of([&] { parse(text, LabelPolicy::kStrict); }).code() == ErrorCode::kData);
  }
  CHECK(parse("0 nan .1 .6 .2 .5 .8\n").unusable);
  CHECK(finding(parse("0 nan .1 .6 .2 .5 .8\n").findings, "file-unusable") != nullptr);
}

TEST_CASE("thousands of bad rows are counted, not listed") {
  std::string text = kGood;
  for (int i = 0; i < 5000; ++i) text += "7 .1 .1 .6 .2 .5 .8\n";
  const LabelFile f = parse(text);
  CHECK(f.dropped == 5000);
  CHECK(int64_t(f.findings.size()) == kMaxFindings + 1);
  CHECK(f.findings.back().message.find("4950") != std::string::npos);
}

TEST_CASE("built-in data yamls, found by bare name; missing images list every path and the remedy") {
  for (const std::string_view name : builtin_dataset_names()) {
    const DatasetYaml yaml = load_dataset_yaml(std::string(name));
    CHECK(yaml.names.size() == 80);
    CHECK(yaml.names[0] == "person");
    CHECK(yaml.names[79] == "toothbrush");
  }
  const std::string_view needed[] = {"train", "val"};
  const Error e = error_of([&] { load_dataset_yaml("coco128-seg.yaml", "/nowhere", needed); });
  CHECK(e.code() == ErrorCode::kData);
  CHECK(says_in_full(e, "/nowhere/coco128-seg/images/train2017"));
  CHECK(says_in_full(e, "TESSERA_DATA"));
  CHECK(says_in_full(e, "tessera download --data coco128-seg.yaml --data-root /nowhere fetches it"));
}

TEST_CASE("an unknown data yaml lists what was tried and what there is") {
  const Error e = error_of([] { load_dataset_yaml("coco128seg.yaml", "/nowhere"); });
  CHECK(e.code() == ErrorCode::kData);
  CHECK(says_in_full(e, "/nowhere/coco128seg.yaml"));
  CHECK(says_in_full(e, "coco128-seg.yaml"));
}

TEST_CASE("data yaml: faults with place") {
  const TempFolder folder;
  struct Case {
    const char *text, *message;
    int64_t line;
  };
  const Case cases[] = {
      {"train: a\nval: b\nnames: [cat\n", "not valid yaml", 4},
      {"train: a\nval: b\n\tnames: [cat]\n", "not valid yaml", 3},
      {"- a\n- b\n", "'key: value'", 1},
      {"train: a\nval: b\n", "neither 'names' nor 'nc'", 0},
      {"train: a\nnames: [cat]\n", "'val' is missing", 0},
      {"val: a\nnames: [cat]\n", "'train' is missing", 0},
      {"train: a\nval: b\nnc: 2\nnames: [cat]\n", "'nc' is 2", 3},
      {"train: a\nval: b\nnc: many\n", "'nc' is 'many'", 3},
      {"train: a\nval: b\nnames: {0: cat, 2: dog}\n", "without gaps", 3},
      {"train: a\nval: b\nnames: {0: cat, x: dog}\n", "not a whole number", 3},
      {"train: a\nval: b\nnames: {0: cat, 0: dog}\n", "given twice", 3},
      {"train: a\nval: b\nnames: cat\n", "'names' must be", 3},
      {"train: a\nval: b\nnames: []\n", "'names' is empty", 3},
      {"train: {a: b}\nval: b\nnames: [cat]\n", "'train' must be", 1},
      {"train: a\nval: b\nnames: [cat]\nchannels: 4\n", "3 channels", 4},
  };
  for (const Case& c : cases) {
    CAPTURE(c.text);
    const std::string file = folder.write("bad.yaml", c.text).string();
    const Error e = error_of([&] { load_dataset_yaml(file); });
    CHECK(e.code() == ErrorCode::kData);
    CHECK(says_in_full(e, c.message));
    CHECK(e.where().file == file);
    CHECK(e.where().line == c.line);
  }
  const std::string deep = folder.write("deep.yaml", "names: " + std::string(100000, '[')).string();
  CHECK(says_in_full(error_of([&] { load_dataset_yaml(deep); }), "nested"));
  const std::string dashes = folder
                                 .write("dashes.yaml",
                                        [] {
                                          std::string s;
                                          for (int i = 0; i < 100000; ++i) s += "- ";
                                          return s;
                                        }())
                                 .string();
  CHECK(says_in_full(error_of([&] { load_dataset_yaml(dashes); }), "nested"));
  CHECK(says_in_full(error_of([&] { load_dataset_yaml(folder.write("zero.yaml", std::string("a\0b", 3)).string()); }), "not a text file"));
}

TEST_CASE("data yaml: roots, splits, lists and names in all their forms") {
  const TempFolder folder;
  const fs::path yaml_file = make_set(folder);
  const std::string_view needed[] = {"train"};
  const std::vector<std::string> expected = {(folder.path() / "set/images/train/a.png").string(),
                                             (folder.path() / "set/images/train/b.png").string(),
                                             (folder.path() / "set/images/train/c.png").string()};
  CHECK(list_images(load_dataset_yaml(yaml_file.string(), {}, needed), "train") == expected);
  CHECK(list_images(load_dataset_yaml((folder.path() / "set").string(), {}, needed), "train") == expected);  // the folder itself

  const auto images_of = [&](const std::string& text, const fs::path& data_root = {}) {
    return list_images(load_dataset_yaml(folder.write("other/x.yaml", text).string(), data_root, needed), "train");
  };
  const std::string names = "names: {0: cat, '1': dog, 2: 7}\n";
  CHECK(images_of("path: " + (folder.path() / "set").string() + "\ntrain: images/train\nval: images/train\n" + names) == expected);
  CHECK(images_of("path: set\ntrain: images/train\nval: images/train\n" + names, folder.path()) == expected);
  CHECK(images_of("path: ../datasets/set\ntrain: images/train\nval: images/train\n" + names, folder.path()) == expected);
  CHECK(images_of("path: set\ntrain: images/train\nval: images/train\n" + names, folder.path() / "set") == expected);
  CHECK(images_of("path: ../set\ntrain: images/train\nval: images/train\n" + names) == expected);  // beside the yaml
  CHECK(images_of("path: ../set\ntrain: [images/train, images/train]\nvalidation: images/train\n" + names).size() == 6);
  folder.write("set/list.txt", "./images/train/b.png\r\n\n" + expected[0] + "\nimages/train/c.png\nreadme.md\n");
  CHECK(images_of("path: ../set\ntrain: list.txt\nval: list.txt\n" + names) == expected);
  CHECK(load_dataset_yaml((folder.path() / "other/x.yaml").string()).names == std::vector<std::string>{"cat", "dog", "7"});
  CHECK(load_dataset_yaml(folder.write("nc.yaml", "train: a\nval: b\nnc: 2\n").string()).names ==
        std::vector<std::string>{"class_0", "class_1"});

  CHECK(says_in_full(error_of([&] { list_images(load_dataset_yaml(yaml_file.string()), "test"); }), "'test'"));
  fs::create_directories(folder.path() / "set/images/empty");
  CHECK(says_in_full(error_of([&] { images_of("path: ../set\ntrain: images/empty\nval: images/empty\n" + names); }), "no image"));
}

TEST_CASE("image lists: suffixes in any case, hidden files, code-point order, fraction") {
  const TempFolder folder;
  for (const char* name : {"b.JPG", "a.jpeg", "Z.png", ".hidden.png", "sub/c.bmp", ".git/d.png", "readme.txt", "noext"})
    folder.write(std::string("i/") + name, "x");
  const std::string yaml = folder.write("d.yaml", "train: i\nval: i\nnames: [a]\n").string();
  std::vector<std::string> images = list_images(load_dataset_yaml(yaml), "train");
  std::vector<std::string> stems;
  for (const std::string& i : images) stems.push_back(fs::path(i).filename().string());
  CHECK(stems == std::vector<std::string>{"Z.png", "a.jpeg", "b.JPG", "c.bmp"});
  keep_fraction(images, 0.6);  // 2.4
  CHECK(images.size() == 2);
  CHECK_THROWS_AS(keep_fraction(images, 0.0), Error);
  fs::create_directory_symlink("..", folder.path() / "i/up");
  fs::create_directory_symlink(".", folder.path() / "i/here");
  CHECK(list_images(load_dataset_yaml(yaml), "train").size() == stems.size());  // no image twice
  CHECK(label_path("/x/images/y/images/z.b.jpg") == "/x/images/y/labels/z.b.txt");
  CHECK(label_path("/x/photos/z.jpg") == "/x/photos/z.txt");
}

TEST_CASE("scan: counts, order, backgrounds, orphans") {
  const TempFolder folder;
  make_set(folder);
  fs::remove(folder.path() / "set/labels/train/b.txt");
  folder.write("set/labels/train/c.txt", "");
  folder.write("set/labels/train/z.txt", kGood);
  const std::vector<std::string> images = list_images(load_dataset_yaml((folder.path() / "set/data.yaml").string()), "train");
  const LabelScan scan = scan_labels(images, 3);
  CHECK(scan.images.size() == 3);
  CHECK(scan.images[0].height == 30);
  CHECK(scan.images[0].width == 40);
  CHECK(scan.found == 1);
  CHECK(scan.missing == 1);
  CHECK(scan.empty == 1);
  CHECK(scan.orphan_labels == 1);
  CHECK(finding(scan.findings, "labels-orphan")->where.file.ends_with("z.txt"));
  CHECK(finding(scan.findings, "labels-missing")->severity == Severity::kNote);
  CHECK(summary(scan).find("3 images (2 background), 1 objects") == 0);
  // A list of some images of a folder, as of a split: the labels of the others have their images.
  const LabelScan part = scan_labels({images[0]}, 3);
  CHECK(part.orphan_labels == 1);
  CHECK(finding(part.findings, "labels-orphan")->where.file.ends_with("z.txt"));
}

TEST_CASE("scan: unreadable, cut and small images are left out and named") {
  const TempFolder folder;
  make_set(folder);
  const std::string images = "set/images/train/";
  const std::vector<uint8_t> jpeg = encode_jpeg(noise_image(40, 40), 90);
  folder.write(images + "cut.jpg", text_of(jpeg).substr(0, jpeg.size() / 2));
  folder.write(images + "empty.jpg", "");
  folder.write(images + "text.jpg", "this is not an image");
  folder.write(images + "tail.jpg", std::string(text_of(jpeg)) + std::string(20, '\0'));
  write_png(folder.path() / images / "tiny.png", noise_image(9, 40));
  fs::create_directory(folder.path() / images / "folder.jpg");
  const DatasetYaml yaml = load_dataset_yaml((folder.path() / "set/data.yaml").string());
  const LabelScan scan = scan_labels(list_images(yaml, "train"), 3);
  CHECK(scan.images.size() == 4);  // a, b, c, tail
  CHECK(scan.left_out == 4);
  CHECK(finding(scan.findings, "image-small")->where.file.ends_with("tiny.png"));
  CHECK(finding(scan.findings, "image-unreadable")->where.file.ends_with("cut.jpg"));
  ScanOptions strict;
  strict.policy = LabelPolicy::kStrict;
  CHECK(error_of([&] { scan_labels(list_images(yaml, "train"), 3, strict); }).where().file.ends_with("cut.jpg"));
}

TEST_CASE("scan: one bad file costs its image, one bad row its object") {
  const TempFolder folder;
  make_set(folder);
  folder.write("set/labels/train/a.txt", std::string(kGood) + "0 .5 .5 .2 .2\n");
  folder.write("set/labels/train/b.txt", std::string("\0\1\2", 3));
  const LabelScan scan = scan_labels(list_images(load_dataset_yaml((folder.path() / "set/data.yaml").string()), "train"), 3);
  CHECK(scan.images.size() == 2);
  CHECK(scan.objects == 2);
  CHECK(scan.dropped_rows == 1);
  CHECK(scan.box_rows == 1);
}

TEST_CASE("scan: a label file that is there and cannot be read does not make its image background") {
  const TempFolder folder;
  make_set(folder);
  const fs::path labels = folder.path() / "set/labels/train";
  fs::remove(labels / "a.txt"), fs::remove(labels / "b.txt"), fs::remove(labels / "c.txt");
  fs::create_symlink("nowhere.txt", labels / "a.txt");
  fs::create_symlink("b.txt", labels / "b.txt");  // leads to itself: the file system refuses to look
  const LabelScan scan = scan_labels(list_images(load_dataset_yaml((folder.path() / "set/data.yaml").string()), "train"), 3);
  CHECK(scan.images.size() == 1);  // c has none
  CHECK(scan.missing == 1);
  CHECK(scan.left_out == 2);
  CHECK(std::count_if(scan.findings.begin(), scan.findings.end(),
                      [](const Finding& f) { return f.code == std::string("file-unreadable"); }) == 2);
}

TEST_CASE("scan: a detection set is an error that says so, under every policy") {
  const TempFolder folder;
  make_set(folder);
  for (const char* stem : {"a", "b", "c"})
    folder.write(std::string("set/labels/train/") + stem + ".txt", "0 .5 .5 .2 .2\n1 .4 .4 .2 .2\n");
  const std::vector<std::string> images = list_images(load_dataset_yaml((folder.path() / "set/data.yaml").string()), "train");
  for (const LabelPolicy policy : {LabelPolicy::kLenient, LabelPolicy::kOriginal}) {
    ScanOptions options;
    options.policy = policy;
    CHECK(says_in_full(error_of([&] { scan_labels(images, 3, options); }), "detection set"));
  }
}

TEST_CASE("coco128-seg as found in the wild") {
  const fs::path root = shared_data("coco128-seg");
  if (!fs::exists(root)) {
    MESSAGE("skipped: no shared/data/coco128-seg");
    return;
  }
  const std::string_view needed[] = {"train", "val"};
  const DatasetYaml yaml = load_dataset_yaml("coco128-seg.yaml", root.parent_path(), needed);
  const LabelScan scan = scan_labels(list_images(yaml, "train"), int64_t(yaml.names.size()));
  CHECK(scan.images.size() == 128);
  CHECK(scan.missing == 2);
  CHECK(scan.orphan_labels == 2);
  CHECK(scan.dropped_rows == 0);
  CHECK(scan.objects == 929);
}
