// The training loop on a handful of drawn images: thread independence, caches, shapes of batches, faults, files.
#include "yolo/train/trainer.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <thread>

#include "data/image.h"
#include "nn/io/checkpoint.h"
#include "tensor/base/interrupt.h"
#include "tensor/base/parallel.h"
#include "tests/support/narrow_model.h"
#include "tests/train/small_runs.h"
#include "yolo/eval/coco_eval.h"
#include "yolo/eval/evaluator.h"
#include "yolo/io/weights.h"
#include "yolo/train/multi_scale.h"
#include "yolo/train/training_data.h"

using namespace tessera;
using namespace tessera::testing;
namespace fs = std::filesystem;

namespace {

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
  CHECK(figures_in(a.run_folder) == figures_in(b.run_folder));
}

TEST_CASE("a validation in between changes nothing of a training") {
  const Workshop shop;
  const TrainSummary with = Trainer(shop.config("with", {"epochs=2"}), LogStyle::kQuiet).fit();
  const TrainSummary without = Trainer(shop.config("without", {"epochs=2", "val=false"}), LogStyle::kQuiet).fit();
  CHECK(same_state(with.last, without.last));
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
  CHECK(figures_in(first.run_folder) != figures_in(second.run_folder));
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
  CHECK(figures_in(a.run_folder) == figures_in(b.run_folder));
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

TEST_CASE("the weight decay of a training takes from weights, not from norms and biases") {
  const Workshop shop;
  std::ofstream(shop.root / "yolov8n-seg.yaml") << kNarrowModel;
  using Groups = std::array<std::vector<float>, kTrainedGroups>;
  const auto values = [](Trainer& t) {
    Groups all;
    for (int g = 0; g < kTrainedGroups; ++g) all[size_t(g)] = t.arena().values(ParamGroup(g)).to_vector<float>();
    return all;
  };
  Groups start;
  const auto after_step = [&](const std::string& decay) {
    Trainer t(shop.config("decay" + decay, {"weight_decay=" + decay, "optimizer=SGD", "momentum=0.5", "lr0=0.01", "warmup_epochs=0",
                                            "nbs=4", "model=" + (shop.root / "yolov8n-seg.yaml").string()}),
              LogStyle::kQuiet);
    start = values(t);
    Batch batch;
    t.train_loader().start_epoch(0);
    REQUIRE(t.train_loader().next(batch));
    t.step(batch);
    return values(t);
  };
  const Groups without = after_step("0"), with = after_step("0.1");
  CHECK(without[size_t(ParamGroup::kNorm)] == with[size_t(ParamGroup::kNorm)]);
  CHECK(without[size_t(ParamGroup::kBias)] == with[size_t(ParamGroup::kBias)]);
  const size_t w = size_t(ParamGroup::kWeight);
  double largest = 0, worst = 0;
  for (size_t i = 0; i < start[w].size(); ++i) {
    const double taken = 0.01 * 0.1 * (1 + 0.5) * double(start[w][i]);  // Nesterov's first step: the gradient and momentum times it
    largest = std::max(largest, std::abs(taken));
    worst = std::max(worst, std::abs(double(without[w][i]) - double(with[w][i]) - taken));
  }
  CHECK(largest > 1e-4);
  CHECK(worst < 1e-6);
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
  // They are counted, across a resume too.
  const auto skipped = [&] { return load_checkpoint(s.last).meta.counters.at("progress.skipped"); };
  CHECK(skipped() == bad);
  Config again(kTrain);
  again.read_arguments({"resume=" + s.run_folder.string(), "epochs=17"});
  CHECK(Trainer(again, LogStyle::kQuiet).fit().epochs_done == 17);
  CHECK(skipped() == bad);
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
