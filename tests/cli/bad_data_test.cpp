// Bad labels, images and data yamls: by default a bad row costs its object and a bad image itself, counted and named; with
// --strict it ends the run with exit code 3. Either way file, line, column and remedy are told.
#include <sys/stat.h>

#include "tests/cli/workshop.h"

using namespace tessera::test;

namespace {

struct BadRow {
  const char* name;
  std::string row;
  int column;
  std::string message;
};

const std::vector<BadRow>& bad_rows() {
  static const std::vector<BadRow> rows = {
      {"nan", "0 0.1 0.1 nan 0.1 0.9 0.9", 11, "a coordinate is NaN"},
      {"infinite", "0 0.1 0.1 0.9 -inf 0.9 0.9", 15, "a coordinate is infinite"},
      {"overflow", "0 0.1 0.1 0.9 0.1 1e999 0.9", 19, "a coordinate is infinite"},
      {"pixels", "0 0.1 0.1 320 0.1 0.9 0.9", 11, "outside 0..1 (coordinates are fractions"},
      {"negative", "0 0.1 -0.5 0.9 0.1 0.9 0.9", 7, "outside 0..1"},
      {"odd", "0 0.1 0.1 0.9 0.1 0.9", 1, "5 coordinates: one is missing"},
      {"few", "0 0.1 0.1", 1, "2 coordinates are fewer than three points"},
      {"box", "0 0.5 0.5 0.2 0.2", 1, "a box (class and 4 numbers), not a polygon"},
      {"class", "2 0.1 0.1 0.9 0.1 0.9 0.9", 1, "class 2 is not in this data set"},
      {"minus", "-1 0.1 0.1 0.9 0.1 0.9 0.9", 1, "class -1 is not in this data set"},
      {"fraction", "0.5 0.1 0.1 0.9 0.1 0.9 0.9", 1, "the class '0.5' is not a whole number"},
      {"name", "cat 0.1 0.1 0.9 0.1 0.9 0.9", 1, "'cat' is not a number"},
      {"comma", "0 0,1 0.1 0.9 0.1 0.9 0.9", 3, "'0,1' is not a number: it holds a comma"},
      {"flat", "0 0.1 0.1 0.1 0.5 0.1 0.9", 1, "the polygon has no area"},
  };
  return rows;
}

}  // namespace

TEST_CASE("cli: bad label rows cost their object, are counted and named; --strict ends the run at the first") {
  const Workshop w;
  for (const BadRow& bad : bad_rows()) {
    CAPTURE(bad.name);
    w.sample("bad.png", image_png(48, 40), fmt::format("{}\n{}\n", kGoodRow, bad.row));
    const std::string place = fmt::format("labels/train/bad.txt:2:{}: ", bad.column);
    refused(w.train("strict", {"--strict"}), 3, {w / "labels/train/bad.txt", place, bad.message}, w.here());
  }
  CHECK(!fs::exists(w / "runs"));
  fs::remove(w / "images/train/bad.png");
  fs::remove(w / "labels/train/bad.txt");

  // Two trainings, since only the first ten findings are listed.
  for (size_t half = 0; half < 2; ++half) {
    const size_t first = half * 7, last = first + 7;
    for (size_t i = 0; i < bad_rows().size(); ++i) {
      const std::string name = fmt::format("{:02}{}", i, bad_rows()[i].name);
      if (i >= first && i < last) {
        w.sample(name + ".png", image_png(48, 40), fmt::format("{}\n{}\n", kGoodRow, bad_rows()[i].row));
      } else {
        fs::remove(w / ("images/train/" + name + ".png"));
        fs::remove(w / ("labels/train/" + name + ".txt"));
      }
    }
    const Outcome outcome = run(w.train("lenient"), w.here());
    INFO(outcome.err);
    CHECK(outcome.code == 0);
    CHECK(says(outcome.err, "train: 13 images (0 background), 13 objects; 7 rows skipped"));
    for (size_t i = first; i < last; ++i) {
      CHECK(says(outcome.err, fmt::format("labels/train/{:02}{}.txt:2:{}: ", i, bad_rows()[i].name, bad_rows()[i].column)));
      CHECK(says(outcome.err, bad_rows()[i].message));
    }
    CHECK(fs::exists(w / "runs/lenient/weights/best.safetensors"));
  }
}

TEST_CASE("cli: label files that are no text, whole sets of boxes, missing label files") {
  const Workshop w;
  w.sample("junk.png", image_png(48, 40), std::string("\x00\xFF\x93junk\x00\x01\n", 10));
  w.sample("wide.png", image_png(48, 40), std::string("\xFF\xFE\x30\x00\x20\x00", 6));
  const Outcome outcome = run(w.train("junk"), w.here());
  INFO(outcome.err);
  CHECK(outcome.code == 0);
  CHECK(says(outcome.err, "2 images left out"));
  CHECK(says(outcome.err, "labels/train/junk.txt: the label file is not text"));
  CHECK(says(outcome.err, "labels/train/wide.txt: the label file is UTF-16 text"));
  refused(w.train("strict", {"--strict"}), 3, {w / "labels/train/junk.txt", "is not text"}, w.here());
  fs::remove(w / "labels/train/junk.txt");
  fs::remove(w / "labels/train/wide.txt");
  const Outcome background = run(w.train("background"), w.here());
  CHECK(background.code == 0);
  CHECK(says(background.err, "train: 8 images (2 background)"));

  for (int i = 0; i < 6; ++i) w.sample(fmt::format("t{}.png", i), image_png(48, 40), "0 0.5 0.5 0.2 0.2\n");
  refused(w.train("boxes"), 3, {"labels/train/", "6 label rows are boxes", "segmentation labels: class x1 y1"}, w.here());
}

TEST_CASE("cli: odd images are used, unreadable ones are left out and named; --strict ends the run") {
  const Workshop w;
  const std::string rows = std::string(kGoodRow) + "\n", jpeg = image_jpeg(48, 40), png = image_png(48, 40);
  struct Row {
    const char *name, *message;
    std::string image;
  };
  for (const Row& good :
       {Row{"png_called.jpg", "", png}, Row{"jpeg_called.png", "", jpeg}, Row{"sixteen_bits.png", "", raw_png(48, 40, 16)},
        Row{"cmyk.jpg", "", cmyk_jpeg(48, 40)}, Row{"turned.jpg", "", turned(jpeg)}, Row{"UPPER.JPG", "", jpeg}}) {
    w.sample(good.name, good.image, rows);
  }
  const Outcome used = run(w.train("odd", {"--strict"}), w.here());
  INFO(used.err);
  CHECK(used.code == 0);
  CHECK(says(used.err, "train: 12 images (0 background), 12 objects\n"));

  const std::vector<Row> bad = {{"cut.jpg", "cut short", jpeg.substr(0, jpeg.size() / 2)},
                                {"cut.png", "cut short", png.substr(0, png.size() / 2)},
                                {"empty.jpg", "the image file is empty", ""},
                                {"junk.jpg", "not an image in a known format", "this is text"},
                                {"webp.jpg", "WebP images cannot be read", std::string("RIFF\x24\0\0\0WEBPVP8 ", 16)},
                                {"one.png", "1 x 1 pixels", raw_png(1, 1)},
                                {"huge.jpg", "60000 x 60000 pixels", enormous(jpeg)},
                                {"huge.png", "60000 x 60000 pixels", raw_png(48, 40, 8, 60000, 60000)}};
  for (const Row& row : bad) {
    CAPTURE(row.name);
    w.sample(row.name, row.image, rows);
    refused(w.train("strict", {"--strict"}), 3, {w / "images/train" + std::string("/") + row.name, row.message}, w.here());
    fs::remove(w / "images/train" + std::string("/") + row.name);
  }
  for (const Row& row : bad) {
    w.sample(row.name, row.image, rows);
    w.sample(row.name, row.image, rows, "val");
  }
  const Outcome outcome = run(w.train("mixed", {"--log", "text"}), w.here());
  INFO(outcome.err);
  CHECK(outcome.code == 0);
  CHECK(says(outcome.err, "train: 12 images (0 background), 12 objects; 8 images left out"));
  CHECK(says(outcome.err, "val: 2 images (0 background), 2 objects; 8 images left out"));
  for (const Row& row : bad) CHECK(says(outcome.err, std::string(row.name) + ": "));
  CHECK(fs::exists(w / "runs/mixed/weights/best.safetensors"));

  // Validation of the finished model on the same mixed set.
  const Outcome val =
      run({"val", "--model", w / "runs/mixed/weights/best.safetensors", "--data", w / "data.yaml", "--imgsz", "32", "--json"},
          w.here());
  CHECK(val.code == 0);
  CHECK(val.json()["images"] == 2);

  const Workshop none;
  for (int i = 0; i < 6; ++i) none.write(fmt::format("images/train/t{}.png", i), "nothing");
  refused(none.train("none"), 3, {none / "images/train", "none of the 6 images can be used", "not an image in a known format"},
          none.here());
}

TEST_CASE("cli: predict reports a bad image by name and goes on with the rest") {
  const Workshop w;
  const std::string jpeg = image_jpeg(48, 40);
  const std::vector<std::pair<std::string, std::string>> bad = {
      {"a_cut.jpg", jpeg.substr(0, jpeg.size() / 2)}, {"b_empty.png", ""}, {"c_huge.jpg", enormous(jpeg)}, {"d_text.jpg", "text"}};
  w.write("mixed/e_good.png", jpeg);  // a JPEG by another name
  w.write("mixed/f_sixteen.png", raw_png(48, 40, 16));
  w.write("mixed/g_cmyk.jpg", cmyk_jpeg(48, 40));
  w.write("mixed/h_turned.jpg", turned(jpeg));
  w.write("mixed/i_one.png", raw_png(1, 1));
  const Arguments base = {"predict",   "--model", Workshop::trained(), "--imgsz", "32", "--conf", "0",
                          "--max-det", "2",       "--project",         w / "runs"};
  const auto with = [&](Arguments more) {
    Arguments all = base;
    all.insert(all.end(), more.begin(), more.end());
    return all;
  };
  for (const auto& [name, bytes] : bad) {
    CAPTURE(name);
    const std::string file = w.write("mixed/" + name, bytes);
    const Outcome outcome = run(with({"--source", file}), w.here());
    CHECK(outcome.code == 3);
    CHECK(says(outcome.err, "error: " + file + ": "));
  }
  const Outcome outcome = run(with({"--source", w / "mixed", "--json"}), w.here());
  INFO(outcome.err);
  CHECK(outcome.code == 3);
  const Json j = outcome.json();
  REQUIRE(j.is_object());
  REQUIRE(j["results"].size() == 5);
  REQUIRE(j["errors"].size() == 4);
  for (size_t i = 0; i < bad.size(); ++i) {
    CHECK(j["errors"][i]["file"] == w / ("mixed/" + bad[i].first));
    CHECK(j["errors"][i]["code"] == 3);
    CHECK(says(outcome.err, bad[i].first));
  }
  CHECK(j["results"][3]["width"] == 48);  // turned upright
  CHECK(j["results"][3]["height"] == 40);
  CHECK(j["results"][4]["width"] == 1);
}

TEST_CASE("cli: data yamls that are absent, malformed, incomplete or point nowhere") {
  const Workshop w;
  struct Row {
    const char* text;
    std::string place;  // after the file
    std::vector<std::string> parts;
  };
  for (const Row& row : std::vector<Row>{
           {"train: images/train\nval: images/val\nnames: [cat, dog\n", ":4:1: ", {"not valid yaml"}},
           {"train: images/train\n\tval: images/val\nnames: [cat]\n", ":2:", {"not valid yaml"}},
           {"train: images/train\nval: images/val\n", ": ", {"neither 'names' nor 'nc' is given", "names: [cat, dog]"}},
           {"train: images/train\nval: images/val\nnames: []\n", ":3:8: ", {"'names' is empty"}},
           {"train: images/train\nval: images/val\nnames: {0: cat, 2: dog}\n", ":3:8: ", {"without gaps"}},
           {"train: images/train\nval: images/val\nnc: 3\nnames: [cat, dog]\n", ":3:5: ", {"'nc' is 3, but 'names' has 2 entries"}},
           {"train: images/train\nnames: [cat, dog]\n", ": ", {"the key 'val' is missing", "val: images/val"}},
           {"- train\n- val\n", ":1:1: ", {"'key: value' lines", "path, train, val, names"}},
           {"", ":1:1: ", {"'key: value' lines"}},
       }) {
    CAPTURE(row.text);
    const std::string file = w.write("bad.yaml", row.text);
    std::vector<std::string> parts = row.parts;
    parts.push_back(file + row.place);
    const Outcome outcome = run({"train", "--data", file}, w.here());
    INFO(outcome.err);
    CHECK(outcome.code == 3);
    for (const std::string& part : parts) CHECK(says(error_line(outcome), part));
  }
  w.write("bad.yaml", std::string("\0\1\2", 3));
  refused({"train", "--data", w / "bad.yaml"}, 3, {w / "bad.yaml", "not a text file"}, w.here());
  refused({"train", "--data", "nowhere.yaml"}, 3, {"there is no data yaml 'nowhere.yaml'", "coco128-seg.yaml, coco8-seg.yaml"},
          w.here());

  // Every place that was looked at is listed, on one line.
  const std::string lost = w.write(
      "lost.yaml", "path: lost\ntrain: images/train\nval: images/val\nnames: [cat, dog]\ndownload: |\n  import os\n  os.x()\n");
  RunOptions elsewhere = w.here();
  elsewhere.environment = {"TESSERA_DATA=" + (w / "env")};
  fs::create_directories(w / "other");
  elsewhere.folder = w / "other";
  refused({"train", "--data", lost, "--data-root", w / "root"}, 3,
          {lost + ":1:7: the images are not there", w / "root/lost/images/train", w / "root/images/train",
           w / "env/lost/images/train", w / "other/lost/images/train", w / "lost/images/train",
           w / "other/datasets/lost/images/train", "--data-root or TESSERA_DATA"},
          elsewhere);
  CHECK(!fs::exists(w / "runs"));
}

TEST_CASE("cli: a shipped data yaml works from any folder, or says where it looked") {
  const Workshop w;
  const Outcome outcome = refused({"train", "--data", "coco128-seg.yaml"}, 3,
                                  {"coco128-seg.yaml:2:7: the images are not there", w / "coco128-seg/images/train2017",
                                   w / "datasets/coco128-seg/images/train2017", "TESSERA_DATA", "tessera download --data coco128-seg.yaml"},
                                  w.here());
  CHECK(outcome.out.empty());
  const fs::path shared = fs::path(TESSERA_SOURCE_DIR) / "../shared/data";
  if (!fs::exists(shared / "coco128-seg/images/train2017")) {
    MESSAGE("skipped: no coco128-seg data set");
    return;
  }
  RunOptions options = w.here();
  options.environment = {"TESSERA_DATA=" + fs::canonical(shared).string()};
  const Outcome found =
      run({"train", "--data", "coco128-seg.yaml", "--model", w / "yolov8n-seg.yaml", "--epochs", "1", "--imgsz", "32", "--batch",
           "4", "--fraction", "0.05", "--val", "false", "--plots", "false", "--project", w / "runs"},
          options);
  INFO(found.err);
  CHECK(found.code == 0);
  CHECK(says(found.err, "80 classes; coco128-seg.yaml: 6 training and 128 validation images"));
}

TEST_CASE("cli: pipes, devices and folders in a file's place are named, nothing waits for them") {
  const Workshop w;
  for (const char* name : {"images/train/p.png", "labels/train/t1.txt", "pipe.jpg", "pipe.safetensors", "pipe.json"}) {
    fs::remove(w / name);
    REQUIRE(mkfifo((w / name).c_str(), 0666) == 0);
  }
  const Outcome outcome = run(w.train("pipes"), w.here());
  INFO(outcome.err);
  CHECK(outcome.code == 0);
  CHECK(says(outcome.err, "2 images left out"));
  for (const char* name : {"images/train/p.png", "labels/train/t1.txt"}) {
    CHECK(says(outcome.err, w / name + std::string(": this is a pipe or a device, not a file")));
  }
  const Arguments predict = {"predict", "--imgsz", "32", "--save", "false"};
  const auto with = [&](const std::string& model, const std::string& source) {
    Arguments all = predict;
    all.insert(all.end(), {"--model", model, "--source", source});
    return all;
  };
  refused(with(Workshop::trained(), w / "pipe.jpg"), 3, {w / "pipe.jpg", "a pipe or a device"}, w.here());
  refused(with(Workshop::trained(), "/dev/zero"), 3, {"/dev/zero", "a pipe or a device"}, w.here());
  refused(with(w / "pipe.safetensors", w / "images/val"), 3, {w / "pipe.safetensors", "a pipe or a device"}, w.here());
  refused({"val", "--gt", w / "pipe.json", "--predictions", w / "pipe.json"}, 3, {w / "pipe.json", "a pipe or a device"}, w.here());
  refused({"inspect", "--model", w / "images.safetensors"}, 3, {w / "images.safetensors"}, w.here());
  fs::create_directories(w / "images.safetensors");
  refused({"inspect", "--model", w / "images.safetensors"}, 3, {w / "images.safetensors", "Is a directory"}, w.here());
}

TEST_CASE("cli: model yamls that describe no network are refused by line") {
  const Workshop w;
  const std::string good = content(w / "yolov8n-seg.yaml");
  const auto edited = [&](std::string from, const std::string& to) {
    std::string text = good;
    REQUIRE(says(text, from));
    text.replace(text.find(from), from.size(), to);
    return text;
  };
  for (const auto& [text, message] : std::vector<std::pair<std::string, const char*>>{
           {edited("  n: [", "  [a, b]: ["), "a scale's letter must be plain text"},
           {edited("Conv, [128, 3, 2]", "Conv, [128, 3, 1]"), "Segment"},
           {edited("Conv, [128, 3, 2]", "Conv, [128, 4, 2]"), "the kernel of Conv must be odd"},
           {edited("Conv, [128, 3, 2]", "Conv, [128, 3, 3]"), "this map would be 1/6 of the image"},
           {edited("Conv, [64, 3, 2]", "Conv, [64, 3, 8]"), "this map would be 1/64 of the image"},
           {edited("[[-1, 6], 1, Concat", "[[-1, 4], 1, Concat"), "these are 1/16, 1/8 of the image"},
           {edited("[15, 18, 21]", "[21, 18, 15]"), "finest first"},
           {edited("0.0625, 256]", "100, 65536]"), "more than 500000000 parameters"},
           {edited("[0.33,", "[100,"), "repeats, at most 100"},
           {good + "nc: 3\n", "the key 'nc' stands here twice"},
           {edited("\"nearest\"", "[nearest]"), "Upsample takes"},
           {"a: &a [*a]\nbackbone: *a\nhead: []\nnc: 2\n", "a layer is"},
           {std::string(100000, '['), "not YAML"},
       }) {
    CAPTURE(message);
    const std::string file = w.write("bad/yolov8n-seg.yaml", text);
    if (std::string_view(message) == "Segment") {  // half as far down: still a network
      CHECK(run({"inspect", "--model", file}, w.here()).code == 0);
      continue;
    }
    refused({"inspect", "--model", file, "--imgsz", "64"}, 3, {file + ":", message}, w.here());
  }
  w.write("cfg.yaml", "epochs: 3\nlr0: 0.1\nepochs: 4\n");
  refused({"train", "--cfg", w / "cfg.yaml"}, 3, {w / "cfg.yaml:3:1: the key 'epochs' stands here twice"}, w.here());
  w.write("data.yaml", "train: images/train\nval: images/val\nnames: [cat, dog]\ntrain: images/val\n");
  refused({"train", "--data", w / "data.yaml"}, 3, {w / "data.yaml:4:1: the key 'train' stands here twice"}, w.here());
}

TEST_CASE("cli: names of files and classes are shown on one line, without commands to the terminal") {
  const Workshop w;
  w.write("data.yaml", "train: images/train\nval: images/val\nnames: [cat, \"d\\eg\"]\n");
  w.sample("a\nb\x1B[2J.png", image_png(48, 40), fmt::format("{}\n0 0.1 0.1 nan 0.1 0.9 0.9\n", kGoodRow), "val");
  const std::string shown = "/val/a?b?[2J.";
  const Outcome lint = run({"lint", "--data", w / "data.yaml", "--split", "val"}, w.here());
  CHECK(says(lint.out, shown + "txt:2:11: warning: a coordinate is NaN"));
  const Outcome predict =
      run({"predict", "--model", Workshop::trained(), "--source", w / "images/val", "--conf", "0", "--no-save"}, w.here());
  CHECK(says(predict.out, shown + "png: 40x48, "));
  const Outcome val = run({"val", "--model", Workshop::trained(), "--data", w / "data.yaml"}, w.here());
  CHECK(says(val.out, " d?g "));
  for (const Outcome& o : {lint, predict, val}) {
    INFO(o.out << o.err);
    CHECK(o.out.find('\x1B') == std::string::npos);
    CHECK(o.err.find('\x1B') == std::string::npos);
  }
}

TEST_CASE("cli: lint names every fault with its place and ends with 3; --fix mends label files, then a training takes all of them") {
  const Workshop w;
  w.sample("bad.png", image_png(48, 40), fmt::format("{}\n0 0.1 0.1 nan 0.1 0.9 0.9\n", kGoodRow));
  Arguments lint = {"lint", "--data", w / "data.yaml"};
  const Outcome both = run(lint, w.here());
  CHECK(both.code == 3);
  CHECK(says(both.out, "images/val/v0.png: warning: the split 'train' has this image too: "));
  CHECK(says(both.out, "3 warnings; "));
  CHECK(both.err == "checking train: 7 images\nchecking val: 2 images\ncomparing images: 9 images\n");
  CHECK(run({"lint", "--data", w / "data.yaml", "--quiet"}, w.here()).err.empty());
  lint.insert(lint.end(), {"--split", "train"});
  const Outcome found = run(lint, w.here());
  INFO(found.out);
  CHECK(found.code == 3);
  CHECK(says(found.out, "labels/train/bad.txt:2:11: warning: a coordinate is NaN (correct or remove the row) [row-nan]\n"));
  CHECK(says(found.out, "1 warnings; "));
  Arguments with_json = lint;
  with_json.push_back("--json");
  const Outcome json = run(with_json, w.here());
  CHECK(json.code == 3);
  CHECK(json.json().at("warnings") == 1);
  CHECK(json.json().at("splits")[0].at("findings")[0].at("line") == 2);

  Arguments fix = lint;
  fix.push_back("--fix");
  CHECK(run(fix, w.here()).code == 0);
  CHECK(fs::exists(w / "labels/train/bad.txt.orig"));
  const Outcome clean = run(lint, w.here());
  CHECK(clean.code == 0);
  CHECK(says(clean.out, "nothing to correct"));
  CHECK(run(w.train("strict", {"--strict"}), w.here()).code == 0);
  refused({"lint"}, 2, {"--data is missing"}, w.here());
  refused({"lint", "--data", "shapes"}, 2, {"has no files to check"}, w.here());
}

TEST_CASE("cli: convert goes from labels to COCO JSON and back; the new set trains") {
  const Workshop w;
  const Outcome there = run({"convert", "--from", w / "data.yaml", "--split", "train", "--to", "annotations/instances_train.json"}, w.here());
  INFO(there.err);
  CHECK(there.code == 0);
  CHECK(says(there.out, "6 images (0 background), 6 objects"));
  CHECK(run({"convert", "--from", w / "data.yaml", "--to", "annotations/instances_val.json"}, w.here()).code == 0);
  const Outcome back = run({"convert", "--from", "annotations", "--to", "set", "--images", "images", "--json"}, w.here());
  INFO(back.err);
  CHECK(back.code == 0);
  CHECK(back.json().at("objects") == 8);
  CHECK(back.json().at("pictures") == 8);
  CHECK(back.json().at("least_iou") > 0.95);
  CHECK(run({"lint", "--data", "set/data.yaml", "--split", "train"}, w.here()).code == 0);
  CHECK(run({"train", "--data", "set/data.yaml", "--epochs", "1", "--imgsz", "32", "--batch", "2", "--no-plots", "--name", "x", "--strict"}, w.here()).code == 0);

  refused({"convert", "--from", "annotations", "--to", "set"}, 2, {"set/labels/", "has labels already"}, w.here());
  refused({"convert", "--from", "annotations"}, 2, {"--to is missing"}, w.here());
  refused({"convert", "--from", "nowhere.json", "--to", "new"}, 3, {"nowhere.json: no such file or folder"}, w.here());
  refused({"convert", "--from", w / "data.yaml", "--to", "new"}, 2, {"becomes a COCO JSON file"}, w.here());
  refused({"convert", "--from", "annotations", "--to", "new", "--images", "nowhere"}, 3, {"nowhere", "no such folder"}, w.here());
}
