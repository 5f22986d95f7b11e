// The machine-readable side: --json makes stdout exactly one JSON object with the keys of docs/cli.md, for results and for errors.
#include <cmath>

#include "tests/cli/workshop.h"

using namespace tessera::test;

namespace {

// stdout holds this object and nothing else.
Json one_object(const Outcome& outcome) {
  INFO(outcome.out.substr(0, 2000));
  INFO(outcome.err);
  const Json j = outcome.json();
  REQUIRE(j.is_object());
  CHECK(outcome.out.ends_with("}\n"));
  return j;
}

void check_keys(const Json& j, const std::vector<std::string>& keys) {
  for (const std::string& key : keys) {
    CAPTURE(key);
    CHECK(j.contains(key));
  }
}

void check_metrics(const Json& j) {
  for (const char* kind : {"box", "mask"}) {
    check_keys(j[kind], {"map", "map50", "map75", "precision", "recall", "f1"});
    for (const auto& [key, value] : j[kind].items()) {
      CAPTURE(key);
      CHECK(value.is_number());
      CHECK((value >= 0 && value <= 1));
    }
  }
  check_keys(j["speed_ms"], {"load", "preprocess", "inference", "loss", "postprocess", "evaluate"});
  REQUIRE(j["classes"].is_array());
  for (const Json& c : j["classes"]) {
    check_keys(c, {"name", "images", "instances", "box", "mask"});
    check_keys(c["box"], {"map", "map50", "precision", "recall", "f1"});
    check_keys(c["mask"], {"map", "map50", "precision", "recall", "f1"});
  }
  if (j["classes"].empty()) return;
  for (const char* kind : {"box", "mask"}) {
    for (const char* key : {"map", "map50", "precision", "recall"}) {  // unweighted means over the classes with objects
      double sum = 0;
      for (const Json& c : j["classes"]) sum += c[kind][key].get<double>();
      CAPTURE(key);
      CHECK(j[kind][key].get<double>() == doctest::Approx(sum / double(j["classes"].size())));
    }
  }
}

// A training that is refused: there is no such class.
Arguments with(const Workshop& w, Arguments more) {
  more.insert(more.end(), {"--classes", "7"});
  return w.train("x", more);
}

constexpr const char* kTruth = R"({
 "images": [{"id": 1, "width": 100, "height": 100, "file_name": "1.jpg"}, {"id": 2, "width": 100, "height": 100, "file_name": "2.jpg"}],
 "categories": [{"id": 1, "name": "cat"}],
 "annotations": [
  {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": 400, "bbox": [10, 10, 20, 20], "segmentation": [[10,10,30,10,30,30,10,30]]},
  {"id": 2, "image_id": 2, "category_id": 1, "iscrowd": 0, "area": 400, "bbox": [50, 50, 20, 20], "segmentation": [[50,50,70,50,70,70,50,70]]}]})";

}  // namespace

TEST_CASE("cli: train --json") {
  const Workshop w;
  const Outcome outcome = run(w.train("j", {"--json"}), w.here());
  CHECK(outcome.code == 0);
  const Json j = one_object(outcome);
  check_keys(j, {"command", "model", "data", "images", "instances", "epoch", "box", "mask", "classes", "speed_ms", "images_per_s",
                 "peak_rss_mib", "planned_peak_mib", "seconds", "run_dir", "weights"});
  check_metrics(j);
  CHECK(j["command"] == "train");
  CHECK(j["data"] == w / "data.yaml");
  CHECK(j["images"] == 2);
  CHECK(j["instances"] == 2);
  CHECK(j["epoch"] == 1);
  CHECK(j["classes"][0]["name"] == "dog");  // the one with objects
  CHECK(fs::exists(std::string(j["weights"])));
  CHECK(Json::parse(content(w / "runs/j/metrics.json")) == j);
  CHECK(j["best_epoch"] == 1);
  CHECK(j["best_metric"] == "fitness");
  const auto part = [&](const char* kind) { return 0.1 * double(j[kind]["map50"]) + 0.9 * double(j[kind]["map"]); };
  CHECK(double(j["best_value"]) == doctest::Approx(part("box") + part("mask")).epsilon(1e-4));
  // Log lines are JSON too when asked for.
  const Outcome log = run(w.train("l", {"--log", "json"}), w.here());
  std::stringstream lines(log.err);
  int64_t events = 0;
  for (std::string line; std::getline(lines, line); ++events) CHECK(Json::parse(line, nullptr, false).contains("event"));
  CHECK(events > 3);
  CHECK(run(w.train("q", {"--quiet"}), w.here()).err.empty());
}

TEST_CASE("cli: val --json, and its predictions scored again as a COCO result file") {
  const Workshop w;
  const Outcome outcome = run({"val", "--model", Workshop::trained(), "--data", w / "data.yaml", "--imgsz", "32", "--json",
                               "--save-json", "--project", w / "runs", "--max-det", "5"},
                              w.here());
  CHECK(outcome.code == 0);
  const Json j = one_object(outcome);
  check_keys(j, {"command", "model", "data", "images", "instances", "box", "mask", "classes", "speed_ms", "images_per_s",
                 "peak_rss_mib", "seconds", "map_style", "run_dir"});
  check_metrics(j);
  CHECK(j["map_style"] == "coco");
  CHECK(Json::parse(content(w / "runs/val/predictions.json")).is_array());
  for (const char* kind : {"Box", "Mask"}) {
    for (const char* chart : {"PR", "F1", "P", "R"}) {
      const tessera::Image image = tessera::read_image(w / fmt::format("runs/val/{}{}_curve.png", kind, chart));
      CHECK((image.width > 500 && image.height > 500));
    }
  }
  CHECK(tessera::read_image(w / "runs/val/confusion_matrix.png").width > 500);
  CHECK(tessera::read_image(w / "runs/val/val_batch0_pred.png").width > 100);
  const Outcome original = run({"val_seg", "--help"});
  CHECK(original.code == 2);  // a name of the program is no verb
  const Json o = one_object(
      run({"val", "--model", Workshop::trained(), "--data", w / "data.yaml", "--imgsz", "32", "--json", "--map-style", "original"},
          w.here()));
  CHECK(o["map_style"] == "original");
  // A model of two classes counts as one; --classes chooses among those of the labels.
  for (const char* classes : {"0,1", "1", "0"}) {
    const Json single = one_object(run({"val", "--model", Workshop::trained(), "--data", w / "data.yaml", "--imgsz", "32", "--json",
                                        "--single-cls", "--classes", classes},
                                       w.here()));
    CHECK(single["instances"] == (std::string_view(classes) == "0" ? 0 : 2));
    if (single["instances"] == 2) CHECK(single["classes"][0]["name"] == "item");
  }
  check_metrics(o);
}

TEST_CASE("cli: val leaves a run folder with plots when asked for") {
  const Workshop w;
  const auto val = [&](const Arguments& more) {
    Arguments all = {"val", "--model", Workshop::trained(), "--data",  w / "data.yaml", "--imgsz",
                     "32",  "--json",  "--project",         w / "runs"};
    all.insert(all.end(), more.begin(), more.end());
    return one_object(run(all, w.here()));
  };
  CHECK(!val({}).contains("run_dir"));
  CHECK(!fs::exists(w / "runs"));
  const Json j = val({"--plots", "--map-style", "original", "--conf", "0"});
  CHECK(j["run_dir"] == w / "runs/val");
  CHECK(fs::exists(w / "runs/val/MaskF1_curve.png"));
  CHECK(!fs::exists(w / "runs/val/predictions.json"));
  CHECK(Json::parse(content(w / "runs/val/metrics.json")) == j);
  val({"--plots", "false", "--save-json"});
  CHECK(fs::exists(w / "runs/val2/predictions.json"));
  CHECK(!fs::exists(w / "runs/val2/BoxPR_curve.png"));
  // Labels say what predictions.json says: the objects, from the most certain on.
  const Json t = val({"--plots", "false", "--save-txt", "--save-conf", "--save-json", "--max-det", "4"});
  for (const char* key : {"box", "mask"}) CHECK(t[key] == val({"--max-det", "4"})[key]);
  const Json records = Json::parse(content(w / "runs/val3/predictions.json"));
  for (const char* stem : {"v0", "v1"}) {
    CAPTURE(stem);
    std::istringstream lines(content(w / fmt::format("runs/val3/labels/{}.txt", stem)));
    std::vector<std::string> found, expected;
    for (std::string line; std::getline(lines, line);) {
      const double confidence = std::stod(line.substr(line.rfind(' ')));
      found.push_back(fmt::format("{} {:.4f}", line.substr(0, line.find(' ')), confidence));
    }
    for (const Json& r : records) {
      if (r["image_id"] != stem) continue;
      expected.push_back(fmt::format("{} {:.4f}", r["category_id"].get<int>() - 1, r["score"].get<double>()));
    }
    CHECK(found == expected);
    CHECK(found.size() == 4);
  }
}

TEST_CASE("cli: a validation names the images that fail, the same for any number of threads") {
  const Workshop w;
  for (const char* style : {"coco", "original"}) {
    CAPTURE(style);
    std::string first;
    for (const char* threads : {"1", "2"}) {
      const std::string name = fmt::format("{}{}", style, threads);
      const Json j = one_object(run({"val", "--model", Workshop::trained(), "--data", w / "data.yaml", "--imgsz", "32", "--json", "--plots",
                                     "--project", w / "runs", "--name", name, "--map-style", style, "--threads", threads},
                                    w.here()));
      const std::string csv = content(w / ("runs/" + name + "/images.csv"));
      if (first.empty()) first = csv;
      CHECK(csv == first);
      std::istringstream lines(csv);
      std::string line;
      std::getline(lines, line);
      CHECK(line == "image,objects,detections,box_tp,box_fp,box_fn,mask_tp,mask_fp,mask_fn,mask_f1,mask_iou,confidence");
      int64_t rows = 0, all = 0, errors = INT64_MAX;
      while (std::getline(lines, line)) {
        ++rows;
        CHECK(line.starts_with(w / "images/val/v"));
        int64_t objects = 0, detections = 0, box_tp = 0, box_fp = 0, box_fn = 0, tp = 0, fp = 0, fn = 0;
        const std::string numbers = line.substr(line.find(',') + 1);
        REQUIRE(std::sscanf(numbers.c_str(), "%ld,%ld,%ld,%ld,%ld,%ld,%ld,%ld", &objects, &detections, &box_tp, &box_fp, &box_fn, &tp, &fp,
                            &fn) == 8);
        CHECK(tp + fp == detections);
        CHECK(box_tp + box_fp == detections);
        CHECK(tp + fn == objects);
        CHECK(box_tp + box_fn == objects);
        CHECK(fp + fn <= errors);  // worst first
        errors = fp + fn;
        all += objects;
      }
      CHECK(rows == 2);
      CHECK(all == j["instances"]);
      CHECK(tessera::read_image(w / ("runs/" + name + "/worst_images.png")).width > 100);
    }
  }
  // A training leaves those of its final validation. Each row names a file, of the embedded data set too.
  REQUIRE(run(w.train("embedded", {"--data", "shapes", "--data-root", "sets", "--fraction", "0.02", "--batch", "32"}), w.here()).code == 0);
  std::istringstream lines(content(w / "runs/embedded/images.csv"));
  std::string line;
  std::getline(lines, line);
  int64_t files = 0;
  while (std::getline(lines, line)) files += fs::is_regular_file(line.substr(0, line.find(',')));
  CHECK(files == 64);
}

TEST_CASE("cli: val --gt --predictions gives the figures of pycocotools") {
  const Folder folder;
  const std::string truth = folder.write("gt.json", kTruth);
  const auto score = [&](const char* results, const Arguments& more = {"--json"}) {
    Arguments all = {"val", "--gt", truth, "--predictions", folder.write("dt.json", results)};
    all.insert(all.end(), more.begin(), more.end());
    return run(all);
  };
  // Both objects found exactly: everything is 1.
  const Json perfect = one_object(score(R"([
    {"image_id": 1, "category_id": 1, "score": 0.9, "bbox": [10,10,20,20], "segmentation": [[10,10,30,10,30,30,10,30]]},
    {"image_id": 2, "category_id": 1, "score": 0.8, "bbox": [50,50,20,20], "segmentation": [[50,50,70,50,70,70,50,70]]}])"));
  for (const char* kind : {"box", "mask"}) {
    check_keys(perfect[kind], {"map", "map50", "map75", "maps", "mapm", "mapl", "ar1", "ar10", "ar100", "ars", "arm", "arl"});
    for (const char* key : {"map", "map50", "map75", "maps", "ar1", "ar100"}) CHECK(perfect[kind][key] == doctest::Approx(1));
    CHECK(perfect[kind]["mapm"] == -1);  // no object of that size
  }
  CHECK(perfect["images"] == 2);
  CHECK(perfect["instances"] == 2);
  // One of two found with IoU 0.6 (20 x 20 against 20 x 12): precision 1 up to recall 0.5, that is 51 of 101 points, at three of
  // ten thresholds.
  const Json half = one_object(score(R"([{"image_id": 1, "category_id": 1, "score": 0.9, "bbox": [10,10,20,12]}])"));
  CHECK(half["box"]["map50"].get<double>() == doctest::Approx(51.0 / 101).epsilon(1e-12));
  CHECK(half["box"]["map"].get<double>() == doctest::Approx(51.0 / 101 * 0.3).epsilon(1e-12));
  CHECK(half["box"]["map75"] == 0);
  CHECK(half["box"]["ar100"].get<double>() == doctest::Approx(0.15));
  CHECK(!half.contains("mask"));
  const Outcome text = score(R"([{"image_id": 1, "category_id": 1, "score": 0.9, "bbox": [10,10,20,12]}])", {});
  CHECK(says(text.out, " Average Precision  (AP) @[ IoU=0.50      | area=   all | maxDets=100 ] = 0.505"));

  refused({"val", "--gt", truth, "--predictions", folder.write("bad.json", "[{\"image_id\": 1,\n \"category_id\": ]")}, 3,
          {folder / "bad.json"});
  refused({"val", "--gt", folder / "none.json", "--predictions", folder / "dt.json"}, 3, {folder / "none.json"});
}

TEST_CASE("cli: predict on a file, a folder and a glob; --json, --save-txt") {
  const Workshop w;
  const auto predict = [&](const std::string& source, const Arguments& more) {
    Arguments all = {"predict", "--model", Workshop::trained(), "--source", source,      "--imgsz", "32",
                     "--conf",  "0",       "--max-det",         "3",        "--project", w / "runs"};
    all.insert(all.end(), more.begin(), more.end());
    return run(all, w.here());
  };
  const Outcome outcome = predict(w / "images/val", {"--json", "--save-txt", "--save-json", "--name", "both"});
  CHECK(outcome.code == 0);
  const Json j = one_object(outcome);
  check_keys(j, {"command", "model", "images", "speed_ms", "run_dir", "results"});
  REQUIRE(j["results"].size() == 2);
  for (const Json& r : j["results"]) {
    check_keys(r, {"image", "width", "height", "speed_ms", "detections"});
    CHECK(r["width"] == 40);
    CHECK(r["height"] == 48);
    for (const Json& d : r["detections"]) {
      check_keys(d, {"class", "name", "confidence", "box", "rle", "rings"});
      CHECK(d["box"].size() == 4);
      CHECK(d["rle"]["size"] == Json({48, 40}));
      CHECK(d["rle"]["counts"].is_string());
    }
  }
  CHECK(Json::parse(content(w / "runs/both/predictions.json")) == j);
  const Outcome glob = predict("images/val/v*.png", {"--json", "--save", "false"});
  CHECK(one_object(glob)["results"].size() == 2);
  const Outcome file = predict("images/val/v1.png", {"--json", "--save", "false", "--retina-masks"});
  CHECK(one_object(file)["results"].size() == 1);
  CHECK(predict("images/val", {}).code == 0);
  // Images a thousand times as long as wide, and upright ones.
  w.write("long/a.png", raw_png(1, 2000));
  w.write("long/b.png", raw_png(3000, 2));
  for (const char* rect : {"true", "false"}) {
    const Outcome extreme = predict("long", {"--retina-masks", "--rect", rect, "--json", "--save", "false"});
    CHECK(extreme.code == 0);
    CHECK(one_object(extreme)["results"].size() == 2);
  }
  CHECK(fs::exists(w / "runs/predict"));
  for (const std::string& source : {w / "none.jpg", w / "none/*.jpg", w / "runs"}) {
    Arguments all = {"predict", "--model", Workshop::trained(), "--source", source};
    refused(all, 3, {source}, w.here());
  }
}

TEST_CASE("cli: inspect, bench, info and selftest --json") {
  const Workshop w;
  const Json inspect = one_object(run({"inspect", "--model", "yolov8n-seg", "--json"}));
  check_keys(inspect, {"model", "imgsz", "nc", "names", "parameters", "fused_parameters", "state_entries", "gflops", "layers"});
  CHECK(inspect["parameters"] == 3409968);
  CHECK(inspect["layers"].size() == 23);
  CHECK_FALSE(inspect.contains("best_epoch"));
  // Of a training: how far it was, which epoch is its best, and by which figure.
  const Outcome trained = run(w.train("by_masks", {"--best", "mask-map"}), w.here());
  const double value = double(Json::parse(content(w / "runs/by_masks/metrics.json"))["mask"]["map"]);
  CHECK(says(trained.out, fmt::format("epoch 1, best by mask-map: {:.5g})", std::round(value * 1e5) / 1e5)));
  const std::string weights = w / "runs/by_masks/weights/best.safetensors";
  const Json of_run = one_object(run({"inspect", "--model", weights, "--json"}));
  CHECK(of_run["nc"] == 2);
  CHECK(of_run["epoch"] == 1);
  CHECK(of_run["best_epoch"] == 1);
  CHECK(of_run["best_metric"] == "mask-map");
  CHECK(double(of_run["best_value"]) == doctest::Approx(value).epsilon(1e-4));
  CHECK(says(run({"inspect", "--model", weights}).out,
             fmt::format("\ntraining: epoch 1; best by mask-map, epoch 1: {:.5g}\n", double(of_run["best_value"]))));

  const Json step = one_object(
      run({"bench", "step", "--model", w / "yolov8n-seg.yaml", "--imgsz", "64", "--batch", "1", "--runs", "1", "--json"}));
  check_keys(step, {"what", "model", "imgsz", "batch", "precision", "device", "threads", "images_per_s", "ms", "gflops",
                    "bound_images_per_s", "of_bound", "peak_rss_mib", "runs"});
  CHECK(step["what"] == "step");
  CHECK(step["images_per_s"] > 0);
  const Json table =
      one_object(run({"bench", "op", "--model", w / "yolov8n-seg.yaml", "--imgsz", "64", "--batch", "1", "--runs", "1", "--json"}));
  int transposed = 0, norms = 0;
  for (const Json& row : table["ops"]) {
    check_keys(row, {"op", "shape", "direction", "ms", "gbytes_per_s", "bound_ms", "of_bound"});
    norms += row["op"] == "batch_norm_silu";
    if (row["op"] == "batch_norm" || row["op"] == "batch_norm_silu") continue;
    transposed += row["op"] == "conv_transpose2x2";
    check_keys(row, {"gflops", "peak", "of_peak", "max_error"});
    INFO(row["op"] << " " << row["shape"] << " " << row["direction"]);
    CHECK(row["max_error"] < 1e-5);  // f32, sums of up to 4608 products
  }
  CHECK(transposed == 3);
  CHECK(norms > 20);

  const Json info = one_object(run({"info", "--json"}));
  check_keys(info, {"version", "build", "cpu", "cpu_features", "threads", "backends", "active_backend", "environment"});
  const Json selftest = one_object(run({"selftest", "--json"}));
  CHECK(selftest["ok"] == true);
  for (const Json& check : selftest["checks"]) check_keys(check, {"name", "ok"});
}

TEST_CASE("cli: an error under --json is one object on stdout and the same sentence on stderr") {
  const Workshop w;
  w.sample("bad.png", image_png(48, 40), "0 0.1 0.1 nan 0.1 0.9 0.9\n");
  for (const Arguments& json : {Arguments{"--json"}, Arguments{"--json=true"}, Arguments{"json=1"}}) {
    Arguments more = {"--strict"};
    more.insert(more.end(), json.begin(), json.end());
    const Outcome outcome = refused(w.train("x", more), 3, {}, w.here());
    const Json e = one_object(outcome)["error"];
    CHECK(e["code"] == 3);
    CHECK(e["file"] == w / "labels/train/bad.txt");
    CHECK(e["line"] == 1);
    CHECK(e["column"] == 11);
    CHECK(e["message"] == "a coordinate is NaN");
    CHECK(e["hint"] == "correct or remove the row");
  }
  const Json usage = one_object(refused({"train", "--epocs", "3", "--json"}, 2, {}))["error"];
  CHECK(usage["code"] == 2);
  CHECK(usage["hint"] == "did you mean --epochs?");
  CHECK(!usage.contains("file"));
  RunOptions options;
  options.environment = {"TESSERA_ARG_JSON=1"};
  CHECK(one_object(refused({"train"}, 2, {}, options))["error"]["code"] == 2);
  // The flag in every form that the arguments have, and only there.
  const std::string file = w.write("json.yaml", "json: true\n");
  for (const Arguments& json : {Arguments{"--JSON"}, Arguments{"JSON=Yes"}, Arguments{"--json", "on"}, Arguments{"--cfg", file}}) {
    CAPTURE(json[0]);
    one_object(refused(with(w, json), 2, {}, w.here()));
  }
  for (const Arguments& text : {Arguments{"--json", "false"}, Arguments{"--json", "--no-json"}, Arguments{"--project", "json"}}) {
    CAPTURE(text[0]);
    CHECK(refused(with(w, text), 2, {}, w.here()).out.empty());
  }
  // Paths that are not UTF-8 are shown as well as they can be.
  CHECK(one_object(run({"train", "--data", "\xFF\xFE.yaml", "--json"}))["error"]["code"] == 3);
}

TEST_CASE("cli: --json makes one object of what ends a verb early too: help, version, the arguments, a signal") {
  const Workshop w;
  CHECK(says(one_object(run({"train", "--help", "--json"}))["help"].get<std::string>(), "Usage: tessera train"));
  CHECK(says(one_object(run({"help", "train", "--json"}))["help"].get<std::string>(), "Usage: tessera train"));
  CHECK(says(one_object(run({"--help", "--json"}))["help"].get<std::string>(), "Verbs:"));
  CHECK(one_object(run({"--version", "--json"}))["version"] == one_object(run({"info", "--json"}))["version"]);
  const Json arguments = one_object(run({"val", "--imgsz=64", "--print-config", "--json"}))["arguments"];
  CHECK(arguments["imgsz"]["value"] == "64");
  CHECK(arguments["imgsz"]["origin"] == "command line");
  CHECK(arguments["batch"]["origin"] == "default");
  for (const int number : {SIGTERM, SIGINT}) {
    Process bench({"bench", "infer", "--imgsz", "640", "--runs", "1000", "--json"});
    std::this_thread::sleep_for(std::chrono::milliseconds(1500));
    bench.send(number);
    const Outcome outcome = bench.finish();
    CHECK(outcome.code == 7);
    CHECK(one_object(outcome)["error"]["code"] == 7);
  }
  Process twice(w.train("twice", {"--model", "yolov8n-seg", "--imgsz", "640", "--batch", "6", "--epochs", "1000", "--json"}), w.here());
  CHECK(twice.wait_until([&] { return says(twice.err(), "run folder "); }));
  twice.send(SIGINT);
  CHECK(twice.wait_until([&] { return says(twice.err(), "Ctrl-C again: at once"); }));
  twice.send(SIGINT);
  const Outcome outcome = twice.finish();
  CHECK(outcome.code == 7);
  one_object(outcome);
}
