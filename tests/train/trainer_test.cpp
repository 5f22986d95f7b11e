// The training loop on a handful of drawn images: resume bit for bit, thread independence, faults, files.
#include "yolo/train/trainer.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <set>
#include <thread>
#include <tuple>

#include "data/image.h"
#include "nn/io/checkpoint.h"
#include "tensor/base/interrupt.h"
#include "tensor/base/parallel.h"
#include "tests/support/narrow_model.h"
#include "tests/support/training_folder.h"
#include "yolo/eval/coco_eval.h"
#include "yolo/eval/evaluator.h"
#include "yolo/io/weights.h"
#include "yolo/train/multi_scale.h"
#include "yolo/train/train_state.h"
#include "yolo/train/training_data.h"

using namespace tessera;
using namespace tessera::testing;
namespace fs = std::filesystem;

namespace {

struct Workshop : TrainingFolder {
  Workshop() : TrainingFolder({.train = 10, .val = 4, .size = 64}, {"batch=4", "epochs=3", "nbs=8", "close_mosaic=1"}) {}
  Config config(const std::string& name, std::vector<std::string> more = {}) const {
    more.insert(more.begin(), "name=" + name);
    return TrainingFolder::config(more);
  }
};

bool same_tensors(const StateDict& a, const StateDict& b) {
  if (a.size() != b.size()) return false;
  for (const auto& [name, tensor] : a) {
    const Tensor* other = b.find(name);
    if (other == nullptr || other->shape() != tensor.shape() || other->dtype() != tensor.dtype()) return false;
    if (std::memcmp(tensor.contiguous().raw(), other->contiguous().raw(), size_t(tensor.numel()) * size_of(tensor.dtype())) != 0) {
      MESSAGE("differs: " << name);
      return false;
    }
  }
  return true;
}

bool same_state(const fs::path& a, const fs::path& b) {
  const Checkpoint x = load_checkpoint(a), y = load_checkpoint(b);
  bool same = same_tensors(x.model, y.model) && x.sections.size() == y.sections.size();
  for (const auto& [name, section] : x.sections) same = same && same_tensors(section, y.sections.at(name));
  return same;
}

// results.csv without the time column.
std::string results(const fs::path& folder) {
  std::ifstream in(folder / "results.csv");
  std::string text;
  for (std::string line; std::getline(in, line);) {
    const size_t first = line.find(','), second = line.find(',', first + 1);
    text += line.substr(0, first) + line.substr(second) + "\n";
  }
  return text;
}

// Epoch and batch of every step line of log.jsonl, in order.
std::vector<std::string> steps_logged(const fs::path& folder) {
  std::ifstream in(folder / "log.jsonl");
  std::vector<std::string> steps;
  for (std::string line; std::getline(in, line);) {
    if (line.find("\"step\"") != std::string::npos) steps.push_back(line.substr(0, line.find("\"loss\"")));
  }
  return steps;
}

const std::vector<std::string> kValidationPlots = {
    "val_batch0_labels.png", "val_batch0_pred.png", "confusion_matrix.png", "confusion_matrix_normalized.png",
    "BoxPR_curve.png",       "BoxF1_curve.png",     "BoxP_curve.png",       "BoxR_curve.png",
    "MaskPR_curve.png",      "MaskF1_curve.png",    "MaskP_curve.png",      "MaskR_curve.png"};

// Each can be read and shows something.
void check_plots(const fs::path& folder, const std::vector<std::string>& names) {
  for (const std::string& name : names) {
    CAPTURE(name);
    REQUIRE(fs::exists(folder / name));
    const Image image = read_image(folder / name);
    CHECK(std::min(image.width, image.height) > 100);
    const auto [darkest, brightest] = std::minmax_element(image.pixels.begin(), image.pixels.end());
    CHECK((*darkest < 128 && *brightest > 128));
  }
}

}  // namespace

TEST_CASE("--cache ram changes no bit of a training, whether its budget holds the set or not") {
  const Workshop shop;
  const auto train = [&](const std::string& name, std::vector<std::string> more) {
    more.insert(more.end(), {"epochs=2", "imgsz=320", "batch=2", "val=false"});  // ten images of 307,200 bytes
    Trainer t(shop.config(name, more), LogStyle::kQuiet);
    t.fit();
    return t.run_folder();
  };
  const fs::path plain = train("plain", {"cache=false"}), cached = train("cached", {"cache=ram"}),
                 partly = train("partly", {"cache=ram", "cache_mib=1"});
  CHECK(same_state(plain / "weights/last.safetensors", cached / "weights/last.safetensors"));
  CHECK(same_state(plain / "weights/last.safetensors", partly / "weights/last.safetensors"));
}

TEST_CASE("--cache disk changes no bit of a training, cold, warm, too small, left by a killed run, or across a resume") {
  const Workshop shop;
  std::this_thread::sleep_for(std::chrono::milliseconds(2100));  // images that have just changed are not kept
  const fs::path cache = shop.root / "cache";
  const auto config = [&](const std::string& name, std::vector<std::string> more) {
    // Ten images of 307,200 bytes.
    more.insert(more.end(), {"epochs=2", "imgsz=320", "batch=2", "val=false"});
    if (more[0] == "cache=disk") more.push_back("cache_dir=" + cache.string());
    return shop.config(name, more);
  };
  const auto train = [&](const std::string& name, const std::vector<std::string>& more) {
    Trainer t(config(name, more), LogStyle::kQuiet);
    t.fit();
    return t.run_folder() / "weights/last.safetensors";
  };
  std::vector<fs::path> entries;
  const auto list = [&] {
    entries.clear();
    for (const auto& e : fs::recursive_directory_iterator(cache))
      if (e.path().extension() == ".rgb") entries.push_back(e.path());
    return entries.size();
  };
  const fs::path plain = train("plain", {"cache=false"});
  CHECK(!fs::exists(cache));
  CHECK(same_state(plain, train("cold", {"cache=disk"})));
  CHECK(list() == 10);
  CHECK(same_state(plain, train("warm", {"cache=disk"})));
  CHECK(same_state(plain, train("small", {"cache=disk", "cache_mib=1"})));
  CHECK(list() == 3);
  fs::resize_file(entries[0], 1000);
  fs::remove(entries[1]);
  std::ofstream(cache / "incoming/1-2") << "half";
  std::ofstream(cache / "usage") << "x";
  CHECK(same_state(plain, train("left", {"cache=disk"})));
  CHECK(list() == 10);
  CHECK(fs::is_empty(cache / "incoming"));

  fs::path folder;
  {
    Trainer broken(config("broken", {"cache=disk"}), LogStyle::kQuiet);
    folder = broken.run_folder();
    request_interrupt();
    CHECK(broken.fit().interrupted);
    clear_interrupt();
  }
  Config again(kTrain);
  again.read_arguments({"resume=" + folder.string(), "cache_dir=" + (shop.root / "another").string()});
  Trainer(again, LogStyle::kQuiet).fit();
  CHECK(fs::exists(shop.root / "another/CACHEDIR.TAG"));
  CHECK(same_state(plain, folder / "weights/last.safetensors"));
}

TEST_CASE("a run that is interrupted and resumed ends with the same bits as one that is not") {
  const Workshop shop;
  std::vector<std::string> settings;
  SUBCASE("as it is") {}
  SUBCASE("batches of several sizes, images joined") {
    settings = {"multi_scale=true", "cutmix=0.5", "mixup=0.3", "copy_paste=0.5", "copy_paste_mode=mixup"};
  }
  SUBCASE("rectangular batches") { settings = {"rect=true", "multi_scale=true"}; }
  SUBCASE("updates after three batches") { settings = {"nbs=12", "warmup_epochs=0", "optimizer=SGD"}; }
  Trainer whole(shop.config("whole", settings), LogStyle::kQuiet);
  const TrainSummary summary = whole.fit();
  CHECK(summary.epochs_done == 3);
  CHECK(fs::exists(summary.best));

  // Stopped after the first batch of the first epoch, then in the middle of each epoch again.
  fs::path folder;
  {
    Trainer broken(shop.config("broken", settings), LogStyle::kQuiet);
    folder = broken.run_folder();
    request_interrupt();
    CHECK(broken.fit().interrupted);
    clear_interrupt();
  }
  for (int sitting = 0; sitting < 12; ++sitting) {
    Config config(kTrain);
    config.read_arguments({"resume=" + folder.string()});
    Trainer resumed(config, LogStyle::kQuiet);
    if (sitting < 11) request_interrupt();
    const TrainSummary s = resumed.fit();
    clear_interrupt();
    if (!s.interrupted) break;
  }
  CHECK(same_state(summary.last, folder / "weights" / "last.safetensors"));
  CHECK(results(summary.run_folder) == results(folder));
  CHECK(steps_logged(folder) == steps_logged(summary.run_folder));
}

TEST_CASE("--best: the named figure chooses the weights that are kept and ends the run, across a resume too") {
  const Workshop shop;
  std::ofstream(shop.root / "yolov8n-seg.yaml") << kNarrowModel;
  // Learns fast enough for figures above 0: the images as they are, and the same ones to validate on.
  std::ofstream(shop.root / "same.yaml") << fmt::format("path: {}\ntrain: images/train\nval: images/train\nnames: [a, b, c, d, e]\n",
                                                        fs::path(shop.data).parent_path().string());
  const auto config = [&](const std::string& name, std::vector<std::string> more) {
    for (const char* given : {"epochs=24", "batch=2", "nbs=2", "optimizer=AdamW", "lr0=0.01", "warmup_epochs=0", "single_cls=true", "mosaic=0",
                              "scale=0", "translate=0", "fliplr=0"}) {
      more.emplace_back(given);
    }
    more.insert(more.end(), {"data=" + (shop.root / "same.yaml").string(), "model=" + (shop.root / "yolov8n-seg.yaml").string()});
    return shop.config(name, more);
  };
  const TrainSummary whole = Trainer(config("whole", {"patience=0", "save_period=1"}), LogStyle::kQuiet).fit();
  const std::vector<EpochRow> rows = ResultsCsv(whole.run_folder / "results.csv", 24).rows();
  REQUIRE(rows.size() == 24);

  const int64_t patience = 2;
  std::set<int64_t> ends;
  for (const auto& [name, value] : std::map<std::string, double (*)(const EpochRow&)>{
           {"fitness", [](const EpochRow& r) { return 0.1 * (r.box.map50 + r.mask.map50) + 0.9 * (r.box.map + r.mask.map); }},
           {"mask-map50", [](const EpochRow& r) { return r.mask.map50; }},
           {"box-map", [](const EpochRow& r) { return r.box.map; }}}) {
    CAPTURE(name);
    BestEpoch expected;
    int64_t done = 0;
    for (; done < 24 && !expected.too_long_ago(done, patience); ++done) {
      expected.take(done, std::nearbyint(value(rows[size_t(done)]) * 1e5) / 1e5);
    }
    fs::path folder;
    {
      Trainer first(config(name, {"best=" + name, fmt::format("patience={}", patience)}), LogStyle::kQuiet);
      folder = first.run_folder();
      first.on_batch = [](int64_t epoch, int64_t, Batch&) {
        if (epoch == 2) request_interrupt();
      };
      CHECK(first.fit().interrupted);
      clear_interrupt();
    }
    Config again(kTrain);
    again.read_arguments({"resume=" + folder.string(), "best=" + std::string(name == "box-map" ? "mask-map" : "box-map")});
    CHECK_THROWS_WITH_AS(Trainer(again, LogStyle::kQuiet), doctest::Contains(("--best cannot change in a resumed run (it is '" + name).c_str()), Error);
    Config resumed(kTrain);
    resumed.read_arguments({"resume=" + folder.string()});
    const TrainSummary s = Trainer(resumed, LogStyle::kQuiet).fit();
    CHECK(s.epochs_done == done);
    CHECK(s.best_epoch == expected.kept + 1);
    CHECK(s.best_value == doctest::Approx(expected.value).epsilon(0.02));  // five decimals of small figures
    CHECK(same_state(s.best, whole.run_folder / "weights" / fmt::format("epoch{}.safetensors", expected.kept)));
    const CheckpointMeta meta = load_checkpoint(s.best).meta;
    CHECK(best_metric_of(meta) == name);
    CHECK(describe_training(meta) == fmt::format("epoch {}; best by {}, epoch {}: {:.5g}", s.best_epoch, name, s.best_epoch, s.best_value));
    ends.insert(done);
    if (done == 24) continue;
    std::ofstream(folder / "metrics.json") << fmt::format("{{\"epoch\":{}}}", done);  // as the program leaves it
    const std::string ended = fmt::format("--patience {} ended it after epoch {}", patience, done);
    CHECK_THROWS_WITH_AS(Trainer(resumed, LogStyle::kQuiet), doctest::Contains(ended.c_str()), Error);
  }
  CHECK(rows[23].box.map50 > 0);
  MESSAGE("ends after " << ends.size() << " different epochs");
  CHECK_THROWS_WITH_AS(Trainer(config("none", {"best=mask-map", "val=false"}), LogStyle::kQuiet), doctest::Contains("needs validations"), Error);
}

TEST_CASE("--save-minutes saves within an epoch: a run killed there goes on from its last save to the same bits") {
  const Workshop shop;
  Trainer whole(shop.config("whole"), LogStyle::kQuiet);
  const TrainSummary summary = whole.fit();

  struct Killed {};
  for (const auto& [minutes, batches_kept] : {std::pair{"1e-9", 1}, std::pair{"0", 0}}) {
    CAPTURE(minutes);
    fs::path folder;
    {
      Trainer killed(shop.config(fmt::format("killed{}", batches_kept), {fmt::format("save_minutes={}", minutes)}),
                     LogStyle::kQuiet);
      folder = killed.run_folder();
      killed.on_batch = [](int64_t epoch, int64_t index, Batch&) {
        if (epoch == 1 && index == 1) throw Killed{};
      };
      CHECK_THROWS_AS(killed.fit(), Killed);
    }
    const Checkpoint left = load_checkpoint(folder / "weights/last.safetensors");
    CHECK(left.meta.epoch == 0);  // the last whole one
    CHECK(left.meta.counters.at("progress.batch") == batches_kept);
    CHECK(left.meta.numbers.at("progress.seconds") > 0);
    Config config(kTrain);
    config.read_arguments({"resume=" + folder.string()});
    Trainer(config, LogStyle::kQuiet).fit();
    CHECK(same_state(summary.last, folder / "weights/last.safetensors"));
    CHECK(results(summary.run_folder) == results(folder));
    CHECK(steps_logged(folder) == steps_logged(summary.run_folder));
  }
}

TEST_CASE("results do not depend on compute threads or loader workers") {
  const Workshop shop;
  const int threads = compute_threads();
  set_compute_threads(1);
  Trainer one(shop.config("one", {"epochs=1", "workers=0"}), LogStyle::kQuiet);
  const TrainSummary a = one.fit();
  set_compute_threads(3);
  Trainer three(shop.config("three", {"epochs=1", "workers=3"}), LogStyle::kQuiet);
  const TrainSummary b = three.fit();
  set_compute_threads(threads);
  CHECK(same_state(a.last, b.last));
  CHECK(results(a.run_folder) == results(b.run_folder));
}

TEST_CASE("a validation that writes no masks has the figures of one that does") {
  const Workshop shop;
  Trainer t(shop.config("trained", {"epochs=2"}), LogStyle::kQuiet);
  t.fit();
  const auto set = open_split(t.config(), "val", false, LogStyle::kQuiet);
  const LoadedModel loaded = load_model((t.run_folder() / "weights/last.safetensors").string());
  for (const MapStyle style : {MapStyle::kCoco, MapStyle::kOriginal}) {
    EvaluatorOptions how;
    how.style = style;
    how.confidence = 1e-5f;
    int64_t masks = 0, without_object = 0;  // in images that have no object of their class
    EvaluatorHooks writing;
    writing.detections = [&](std::span<const std::vector<ScoredDetection>> images) {
      for (const auto& found : images) {
        for (const ScoredDetection& d : found) {
          const auto& objects = set->image(d.image).objects;
          const bool compared =
              std::any_of(objects.begin(), objects.end(), [&](const auto& o) { return o.class_id == d.class_id; });
          masks += rle_area(d.mask) > 0;
          without_object += !compared && rle_area(d.mask) > 0;
        }
      }
    };
    LoaderOptions options;
    options.batch = 3;
    Loader loader(*set, options), again(*set, options);
    const ValidationResult a = Evaluator(set->names(), how).run(*loaded.model, *set, loader);
    const ValidationResult b = Evaluator(set->names(), how).run(*loaded.model, *set, again, writing);
    CHECK(std::memcmp(&a.box, &b.box, sizeof a.box) == 0);
    CHECK(std::memcmp(&a.mask, &b.mask, sizeof a.mask) == 0);
    CHECK(masks > without_object);
    CHECK(without_object > 0);
  }
}

TEST_CASE("a mask that a validation does not compare shares no pixel with an object of its class, or others come first") {
  const Workshop shop;
  Trainer t(shop.config("trained", {"epochs=2"}), LogStyle::kQuiet);
  t.fit();
  const auto set = open_split(t.config(), "val", false, LogStyle::kQuiet);
  const LoadedModel loaded = load_model((t.run_folder() / "weights/last.safetensors").string());
  for (const bool single_class : {false, true}) {
    EvaluatorOptions how;
    how.confidence = 1e-5f, how.single_class = single_class;
    int64_t compared = 0, apart = 0, late = 0;
    EvaluatorHooks hooks;
    hooks.detections = [&](std::span<const std::vector<ScoredDetection>> images) {
      for (const auto& found : images) {
        std::map<int32_t, int64_t> seen;
        for (const ScoredDetection& d : found) {
          const ScanImage& labels = set->image(d.image);
          std::vector<Rle> objects;  // of the class
          for (const LabelObject& o : labels.objects) {
            if (o.class_id != d.class_id) continue;
            std::vector<double> xy;
            for (const Point& p : o.polygon) xy.insert(xy.end(), {double(p.x) * labels.width, double(p.y) * labels.height});
            objects.push_back(rle_from_polygon(xy, labels.height, labels.width));
          }
          const auto iou = rle_iou({&d.mask, 1}, objects, {});
          const bool meets = std::any_of(iou.begin(), iou.end(), [](double v) { return v > 0; });
          const bool first = ++seen[d.class_id] <= kComparedDetections;
          if (first && meets) CHECK(d.compared);
          if (!first) CHECK(!d.compared);
          compared += d.compared, late += !first && meets,
              apart += !d.compared && first && !objects.empty() && rle_area(d.mask) > 0;
        }
      }
    };
    LoaderOptions options;
    options.batch = 3;
    Loader loader(*set, options);
    Evaluator(set->names(), how).run(*loaded.model, *set, loader, hooks);
    CHECK(compared > 0);
    CHECK(apart > 0);
    CHECK((late > 0) == single_class);
  }
}

TEST_CASE("--multi-scale: every batch in the size that is drawn for it, its images as they were") {
  const Workshop shop;
  Trainer plain(shop.config("plain", {"epochs=2"}), LogStyle::kQuiet);
  Trainer scaled(shop.config("scaled", {"epochs=2", "multi_scale=true"}), LogStyle::kQuiet);
  std::vector<std::vector<uint8_t>> images;
  std::set<int> sides;
  plain.on_batch = [&](int64_t, int64_t, Batch& batch) {
    CHECK(batch.resized == Size{});
    images.push_back(batch.images.to_vector<uint8_t>());
  };
  size_t at = 0;
  const TrainSummary first = plain.fit();
  scaled.on_batch = [&](int64_t epoch, int64_t index, Batch& batch) {
    const int side = int(multi_scale_side(64, 0, epoch, index));
    CHECK(batch.resized == Size{side, side});
    CHECK(batch.input_height() == side);
    CHECK(batch.images.to_vector<uint8_t>() == images.at(at++));
    sides.insert(side);
  };
  const TrainSummary second = scaled.fit();
  CHECK(at == images.size());
  CHECK(sides.size() > 1);
  CHECK(results(first.run_folder) != results(second.run_folder));
}

TEST_CASE("--rect: batches by rising height over width, each in its shape and order, of single images") {
  const Workshop shop;
  const fs::path folder = shop.root / "uneven";
  fs::create_directories(folder / "images");
  fs::create_directories(folder / "labels");
  const Size sizes[] = {{64, 64}, {32, 64}, {64, 30}, {48, 64}, {30, 64}, {64, 20}, {64, 62}, {20, 64}};
  for (size_t i = 0; i < std::size(sizes); ++i) {
    Image image(sizes[i].height, sizes[i].width);
    std::fill(image.pixels.begin(), image.pixels.end(), uint8_t(30 * i));
    write_png(folder / fmt::format("images/{}.png", i), image);
    std::ofstream(folder / fmt::format("labels/{}.txt", i)) << "0 0.2 0.2 0.8 0.2 0.8 0.8 0.2 0.8\n";
  }
  std::ofstream(folder / "data.yaml") << "path: .\ntrain: images\nval: images\nnames: [a]\n";
  Trainer trainer(shop.config("rect", {"rect=true", "batch=2", "data=" + (folder / "data.yaml").string(), "mosaic=1", "mixup=1",
                                       "cutmix=1", "epochs=2", "translate=0", "scale=0", "hsv_h=0", "hsv_s=0", "hsv_v=0"}),
                  LogStyle::kQuiet);
  struct Row {
    Size shape;
    std::vector<int> files;
  };
  const std::vector<Row> expected = {{{32, 64}, {7, 4}}, {{64, 64}, {1, 3}}, {{64, 64}, {0, 6}}, {{64, 32}, {2, 5}}};
  int64_t batches = 0;
  trainer.on_batch = [&](int64_t, int64_t index, Batch& batch) {
    ++batches;
    CAPTURE(index);
    const Row& row = expected.at(size_t(index));
    CHECK(batch.height() == row.shape.height);
    CHECK(batch.width() == row.shape.width);
    REQUIRE(batch.files.size() == row.files.size());
    for (size_t k = 0; k < row.files.size(); ++k) {
      CHECK(fs::path(batch.files[k]).stem().string() == std::to_string(row.files[k]));
      const Tensor image = batch.images.select(0, int64_t(k));
      CHECK(std::abs(int(image.select(0, batch.height() / 2).select(0, batch.width() / 2).to_vector<uint8_t>()[0]) -
                     30 * row.files[k]) <= 1);
    }
  };
  trainer.fit();
  CHECK(batches == 8);
}

TEST_CASE("a profile, a planned batch and a memory plan in between change nothing in the results") {
  const Workshop shop;
  Trainer plain(shop.config("plain", {"batch=8", "workers=0"}), LogStyle::kQuiet);
  const TrainSummary a = plain.fit();
  // nbs is 8 here: what --batch -1 comes to where memory does not matter.
  Trainer planned(shop.config("planned", {"batch=-1", "profile=2"}), LogStyle::kQuiet, {100, 10});
  CHECK(planned.config().integer("batch") == 8);
  MemoryRequest request;
  request.spec = planned.model().spec();
  request.imgsz = 64;
  MemoryPlan(request).peak_bytes(3);
  const TrainSummary b = planned.fit();
  CHECK(same_state(a.last, b.last));
  CHECK(results(a.run_folder) == results(b.run_folder));
  CHECK(b.planned_peak_bytes > 0);
  CHECK(!fs::exists(a.run_folder / "profile.csv"));
  std::ifstream csv(b.run_folder / "profile.csv");
  const std::string text{std::istreambuf_iterator<char>(csv), {}};
  CHECK(text.find("\nmodel.2.m.0.cv1,backward weights,1,") != std::string::npos);
  CHECK(text.find("\n,loader wait,,") != std::string::npos);
}

TEST_CASE("a run shorter than its profile keeps what it has; a resumed run is not profiled again") {
  const Workshop shop;
  Trainer trainer(shop.config("short", {"epochs=2", "profile=50"}), LogStyle::kQuiet);
  const TrainSummary s = trainer.fit();
  CHECK(fs::exists(s.run_folder / "profile.csv"));
  fs::remove(s.run_folder / "profile.csv");
  Config again(kTrain);
  again.read_arguments({"resume=" + s.run_folder.string(), "epochs=4"});
  Trainer resumed(again, LogStyle::kQuiet);
  CHECK(resumed.config().integer("profile") == 0);
  resumed.fit();
  CHECK(!fs::exists(s.run_folder / "profile.csv"));
}

TEST_CASE("the averaged weights are a model of their own, and a complete run cannot be resumed by mistake") {
  const Workshop shop;
  Trainer trainer(shop.config("run", {"epochs=1"}), LogStyle::kQuiet);
  const TrainSummary s = trainer.fit();
  const LoadedModel best = load_model(s.best.string());
  CHECK(best.pretrained);
  CHECK(best.names.size() == 5);
  CHECK(best.model->nc() == 5);
  Config again(kTrain);
  again.read_arguments({"resume=" + s.run_folder.string()});
  // Without the figures of its end the run is not complete: that is all a resume makes then.
  const TrainSummary end = Trainer(again, LogStyle::kQuiet).fit();
  CHECK(end.epochs_done == 1);
  CHECK(end.best_epoch == 1);
  CHECK(end.validation.images == s.validation.images);
  CHECK(end.validation.mask.map50 == s.validation.mask.map50);
  std::ofstream(s.run_folder / "metrics.json") << R"({"epoch":1})";  // as the program leaves it
  CHECK_THROWS_WITH_AS(Trainer(again, LogStyle::kQuiet), doctest::Contains("complete"), Error);
  again.read_arguments({"epochs=2"});
  CHECK(Trainer(again, LogStyle::kQuiet).fit().epochs_done == 2);
  again.read_arguments({"epochs=3", "batch=2"});
  CHECK_THROWS_WITH_AS(Trainer(again, LogStyle::kQuiet), doctest::Contains("cannot change"), Error);
  Config from_best(kTrain);
  from_best.read_arguments({"resume=" + s.best.string()});
  CHECK_THROWS_WITH_AS(Trainer(from_best, LogStyle::kQuiet), doctest::Contains("weights only"), Error);
}

// Ten images: 2 updates an epoch, of which more than 10,000 make it SGD.
TEST_CASE("the automatic optimizer of a run stays when its epochs change in a resume") {
  const Workshop shop;
  const auto started = [&](const std::string& name, const char* epochs) {
    Trainer t(shop.config(name, {"optimizer=auto", epochs, "val=false"}), LogStyle::kQuiet);
    request_interrupt();
    CHECK(t.fit().interrupted);
    clear_interrupt();
    return t.run_folder();
  };
  for (const auto& [name, epochs, later] : {std::tuple{"adamw", "epochs=2", "epochs=6000"}, {"sgd", "epochs=6000", "epochs=1"}}) {
    CAPTURE(name);
    const fs::path folder = started(name, epochs), file = folder / "weights" / "last.safetensors";
    Config config(kTrain);
    config.read_arguments({"resume=" + folder.string(), later});
    const bool is_adam = std::string(name) == "adamw";
    std::optional<Trainer> resumed;
    REQUIRE_NOTHROW(resumed.emplace(config, LogStyle::kQuiet));
    if (is_adam) request_interrupt();
    CHECK(resumed->fit().interrupted == is_adam);
    clear_interrupt();
    const Checkpoint c = load_checkpoint(file);
    CHECK((c.section("optimizer", "").find("optimizer.0.second_moment") != nullptr) == is_adam);
    CHECK(c.meta.numbers.at("optimizer.lr0") == doctest::Approx(is_adam ? 0.001111 : 0.01));
  }
}

TEST_CASE("a run goes on with more or fewer images, also from the middle of an epoch, and updates as often as before") {
  const Workshop shop;  // 3 batches an epoch; in the warm-up each makes an update
  const auto data_of = [&](int train) {
    return make_shapes(shop.root / fmt::format("of{}", train), {.train = train, .val = 4, .size = 64}).string();
  };
  for (const auto& [images, batches] : {std::pair<int, int64_t>{4, 1}, {18, 5}}) {
    CAPTURE(images);
    fs::path folder;
    {
      Trainer t(shop.config(fmt::format("to{}", images), {"epochs=4", "val=false"}), LogStyle::kQuiet);
      t.on_batch = [](int64_t epoch, int64_t index, const Batch&) {
        if (epoch == 2 && index == 1) request_interrupt();
      };
      CHECK(t.fit().interrupted);
      clear_interrupt();
      folder = t.run_folder();
    }
    Config config(kTrain);
    config.read_arguments({"resume=" + folder.string(), "data=" + data_of(images)});
    const TrainSummary end = Trainer(config, LogStyle::kQuiet).fit();
    CHECK(end.epochs_done == 4);
    const Checkpoint c = load_checkpoint(end.last);
    const int64_t after = std::max<int64_t>(batches - 2, 0) + batches;  // of the epoch that was interrupted, and of the last
    CHECK(saved_count(c.section("optimizer", ""), "optimizer.steps") == 2 * 3 + 2 + after);
    CHECK(c.meta.counters.at("progress.last_step") == 4 * batches - 1);
  }
}

TEST_CASE("with another number of batches an update is due after as many as before, the first one too") {
  const auto changed = [](int64_t epoch, int64_t batch, int64_t last_step, int64_t then, int64_t now) {
    TrainProgress p;
    p.epoch = epoch, p.batch = batch, p.last_step = last_step;
    change_batches(p, then, now);
    return std::pair{p.batch, p.last_step};
  };
  CHECK(changed(0, 1, -1, 3, 3) == std::pair<int64_t, int64_t>{1, -1});  // no update yet
  CHECK(changed(2, 2, 7, 3, 3) == std::pair<int64_t, int64_t>{2, 7});
  CHECK(changed(2, 2, 7, 3, 5) == std::pair<int64_t, int64_t>{2, 11});  // one batch ago
  CHECK(changed(2, 2, 7, 3, 1) == std::pair<int64_t, int64_t>{1, 2});
}

TEST_CASE("a run that was on another device is not resumed on the CPU unasked") {
  const Workshop shop;
  const fs::path last = Trainer(shop.config("gpu", {"epochs=1"}), LogStyle::kQuiet).fit().last;
  Checkpoint c = load_checkpoint(last);
  c.meta.args["device"] = "cuda";
  save_checkpoint(last, c);
  Config config(kTrain);
  config.read_arguments({"resume=" + last.string(), "epochs=2"});
  CHECK_THROWS_WITH_AS(Trainer(config, LogStyle::kQuiet), doctest::Contains("--device cuda"), Error);
  config.read_arguments({"device=cpu"});
  CHECK_NOTHROW(Trainer(config, LogStyle::kQuiet));
}

TEST_CASE("gradients that are not finite: updates are skipped, then the run gives up and says where") {
  const Workshop shop;
  Trainer trainer(shop.config("nan", {"epochs=40", "val=false", "warmup_epochs=0"}), LogStyle::kQuiet);
  const Tensor weights = trainer.arena().values(ParamGroup::kWeight);
  const std::vector<float> before = weights.to_vector<float>();
  weights.data<float>()[0] = std::nanf("");
  try {
    trainer.fit();
    FAIL("expected an error");
  } catch (const Error& e) {
    CHECK(e.code() == ErrorCode::kNonFinite);
    CHECK(std::string(e.what()).find("first bad tensor: model.0.bn.bias") != std::string::npos);
  }
  const std::vector<float> after = weights.to_vector<float>();
  CHECK(std::equal(before.begin() + 1, before.end(), after.begin() + 1));
}

TEST_CASE("gradients that are not finite now and then do not end a run, and a loss that is not finite ends with its epoch") {
  const Workshop shop;
  std::ofstream(shop.root / "yolov8n-seg.yaml") << kNarrowModel;
  Trainer trainer(shop.config("often", {"epochs=16", "val=false", "warmup_epochs=0", "nbs=4", "imgsz=32", "patience=0",
                                        "model=" + (shop.root / "yolov8n-seg.yaml").string()}),
                  LogStyle::kQuiet);
  float* const weight = trainer.arena().values(ParamGroup::kWeight).data<float>();
  float* const gradient = trainer.arena().grads(ParamGroup::kWeight).data<float>();
  const float sound = *weight;
  int64_t bad = 0;
  trainer.on_batch = [&](int64_t epoch, int64_t index, Batch&) {
    if (epoch == 0 && index == 1) *weight = std::nanf("");
    if (epoch == 0 && index == 2) *weight = sound;
    if ((3 * epoch + index) % 2 == 1) *gradient = std::nanf(""), ++bad;
  };
  const TrainSummary s = trainer.fit();
  CHECK(s.epochs_done == 16);
  CHECK(bad == 24);  // more than may come one after the other
  const std::vector<EpochRow> rows = ResultsCsv(s.run_folder / "results.csv", 16).rows();
  REQUIRE(rows.size() == 16);
  CHECK(std::isnan(rows[0].train.cls));
  for (size_t i = 1; i < rows.size(); ++i) CHECK(std::isfinite(rows[i].train.cls));
}

TEST_CASE("an epoch whose validation fails is not trained again") {
  const Workshop shop;
  const auto config = [&](const std::string& name) { return shop.config(name, {"epochs=2"}); };
  const TrainSummary whole = Trainer(config("whole"), LogStyle::kQuiet).fit();
  fs::path missing;
  for (const auto& entry : fs::directory_iterator(fs::path(shop.data).parent_path() / "images/val")) missing = entry.path();
  const fs::path aside = shop.root / "aside.png";
  fs::path folder;
  {
    Trainer first(config("first"), LogStyle::kQuiet);
    folder = first.run_folder();
    first.on_batch = [&](int64_t epoch, int64_t index, Batch&) {
      if (epoch == 0 && index == 2) fs::rename(missing, aside);
    };
    CHECK_THROWS_AS(first.fit(), Error);
  }
  fs::rename(aside, missing);
  Config resumed(kTrain);
  resumed.read_arguments({"resume=" + folder.string()});
  Trainer second(resumed, LogStyle::kQuiet);
  int64_t batches = 0;
  second.on_batch = [&](int64_t epoch, int64_t, Batch&) {
    ++batches;
    CHECK(epoch == 1);
  };
  const TrainSummary s = second.fit();
  CHECK(batches == 3);
  CHECK(same_state(s.last, whole.last));
}

TEST_CASE("the run folder holds what the documentation promises") {
  const Workshop shop;
  Trainer trainer(shop.config("files", {"epochs=2", "plots=true"}), LogStyle::kQuiet);
  const TrainSummary s = trainer.fit();
  for (const char* name : {"args.yaml", "results.csv", "log.jsonl", "weights/last.safetensors", "weights/best.safetensors"}) {
    CAPTURE(name);
    CHECK(fs::exists(s.run_folder / name));
  }
  check_plots(s.run_folder, {"train_batch0.png", "labels.png", "results.png"});
  check_plots(s.run_folder, kValidationPlots);
  // args.yaml runs the run again.
  Config config(kTrain);
  config.read_file(s.run_folder / "args.yaml");
  CHECK(config.integer("imgsz") == 64);
  CHECK(config.text("data") == shop.data);
  // A second run of the same name gets a folder of its own.
  Trainer second(shop.config("files", {"epochs=1"}), LogStyle::kQuiet);
  CHECK(second.run_folder().filename() == "files2");
}

TEST_CASE("a run without validations in between draws the one at its end") {
  const Workshop shop;
  Trainer trainer(shop.config("last", {"epochs=2", "plots=true", "val=false", "map_style=original"}), LogStyle::kQuiet);
  check_plots(trainer.fit().run_folder, kValidationPlots);
}
