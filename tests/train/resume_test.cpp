// Runs that end before their last epoch, interrupted, killed or at a fault, and go on: to the same bits, with the same files.
#include <doctest/doctest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <tuple>

#include "tensor/base/interrupt.h"
#include "tensor/comm.h"
#include "tests/support/narrow_model.h"
#include "tests/train/small_runs.h"
#include "yolo/io/weights.h"
#include "yolo/train/results_csv.h"
#include "yolo/train/train_log.h"
#include "yolo/train/train_state.h"
#include "yolo/train/trainer.h"

using namespace tessera;
using namespace tessera::testing;
namespace fs = std::filesystem;

namespace {

// A single process that says what it is about to exchange: within a validation nothing else is called back.
class Listener final : public Communicator {
 public:
  std::function<void(std::string_view what)> heard;

  using Communicator::all_gather;
  using Communicator::broadcast;
  int rank() const override { return 0; }
  int size() const override { return 1; }
  int local_rank() const override { return 0; }
  int local_size() const override { return 1; }
  std::unique_ptr<PendingReduce> start_all_reduce(const Tensor& tensor, Reduce op, std::string_view what) override {
    return one_.start_all_reduce(tensor, op, what);
  }
  void all_gather(const void* mine, int64_t bytes, void* all, std::string_view what) override {
    if (heard) heard(what);
    one_.all_gather(mine, bytes, all, what);
  }
  std::vector<std::string> gather(std::string_view mine, int root, std::string_view what) override {
    return one_.gather(mine, root, what);
  }
  void broadcast(void* data, int64_t bytes, int root, std::string_view what) override { one_.broadcast(data, bytes, root, what); }
  void barrier(std::string_view what) override { one_.barrier(what); }

 private:
  Communicator& one_ = single_process();
};

}  // namespace

TEST_CASE("a run that is interrupted and resumed ends with the same bits as one that is not") {
  const Workshop shop(10);  // two batches of a validation
  std::ofstream(shop.root / "yolov8n-seg.yaml") << kNarrowModel;
  std::vector<std::string> settings;
  SUBCASE("as it is") {}
  SUBCASE("batches of several sizes, images joined") {
    settings = {"multi_scale=true", "cutmix=0.5", "mixup=0.3", "copy_paste=0.5", "copy_paste_mode=mixup"};
  }
  SUBCASE("rectangular batches") { settings = {"rect=true", "multi_scale=true"}; }
  SUBCASE("updates after three batches") { settings = {"nbs=12", "warmup_epochs=0", "optimizer=SGD"}; }
  settings.push_back("model=" + (shop.root / "yolov8n-seg.yaml").string());
  Trainer whole(shop.config("whole", settings), LogStyle::kQuiet);
  const TrainSummary summary = whole.fit();
  CHECK(summary.epochs_done == 3);
  CHECK(fs::exists(summary.best));

  // Where each sitting ends: after so many batches of an epoch, or within the validation that follows all three.
  struct Place {
    int64_t epoch, batches;
    bool validates = false;
  };
  Listener ranks;
  const auto validates = [](std::string_view what) { return what == "the state of a validation batch"; };
  fs::path folder;
  const auto resumed = [&] {
    Config config(kTrain);
    config.read_arguments({"resume=" + folder.string()});
    return config;
  };
  int64_t trained = 0;  // the epoch of the last batch
  for (const Place& end : {Place{0, 1}, {0, 2}, {0, 3, true}, {0, 3, true}, {1, 2}, {1, 3}, {1, 3, true}, {2, 1}, {2, 3, true}}) {
    CAPTURE(end.epoch);
    CAPTURE(end.batches);
    Trainer trainer(folder.empty() ? shop.config("broken", settings) : resumed(), LogStyle::kQuiet, {}, ranks);
    folder = trainer.run_folder();
    trainer.on_batch = [&](int64_t epoch, int64_t index, Batch&) {
      trained = epoch;
      if (!end.validates && epoch == end.epoch && index + 1 == end.batches) request_interrupt();
    };
    ranks.heard = [&](std::string_view what) {
      if (end.validates && trained == end.epoch && validates(what)) request_interrupt();
    };
    CHECK(trainer.fit().interrupted);
    clear_interrupt();
    const CheckpointMeta left = load_checkpoint(folder / "weights/last.safetensors").meta;
    CHECK(left.epoch + 1 == end.epoch);
    CHECK(left.counters.at("progress.batch") == end.batches);
  }
  CHECK(!Trainer(resumed(), LogStyle::kQuiet).fit().interrupted);
  CHECK(same_state(summary.last, folder / "weights" / "last.safetensors"));
  CHECK(figures_in(summary.run_folder) == figures_in(folder));
  CHECK(steps_logged(folder) == steps_logged(summary.run_folder));
  // The figures of its end are of no epoch, and can be interrupted too.
  Trainer at_the_end(resumed(), LogStyle::kQuiet, {}, ranks);
  ranks.heard = [&](std::string_view what) {
    if (validates(what)) request_interrupt();
  };
  CHECK_THROWS_WITH_AS(at_the_end.fit(), doctest::Contains("interrupted in the final validation"), Error);
  clear_interrupt();
}

TEST_CASE("log.jsonl and results.csv: what a resumed run makes again is taken out, wherever the files had come to") {
  const TempFolder folder;
  const auto step = [](int epoch, int batch) {
    return fmt::format(R"({{"event":"step","epoch":{},"batch":{}}})", epoch, batch) + "\n";
  };
  const auto closed = [](int epoch) { return fmt::format(R"({{"event":"epoch","epoch":{}}})", epoch) + "\n"; };
  const std::string kept = step(1, 1) + step(1, 2) + closed(1) + step(2, 1);
  const fs::path log = folder.write("log.jsonl", kept + step(2, 2) + closed(2) + step(3, 1) + closed(3) + R"({"event":"st)");
  { const TrainLog resumed(log, LogStyle::kQuiet, 1, 1); }
  std::ifstream in(log);
  CHECK(std::string(std::istreambuf_iterator<char>(in), {}) == kept);

  const fs::path table = folder.path() / "results.csv";
  {
    ResultsCsv csv(table, 0);
    for (const int64_t epoch : {1, 2, 3}) {
      EpochRow row;
      row.epoch = epoch;
      csv.append(row);
    }
  }
  const ResultsCsv resumed(table, 2);
  REQUIRE(resumed.rows().size() == 2);
  CHECK(resumed.rows()[1].epoch == 2);
}

TEST_CASE("--best: the named figure chooses the weights that are kept and ends the run, across a resume too") {
  const Workshop shop;
  std::ofstream(shop.root / "yolov8n-seg.yaml") << kNarrowModel;
  // Learns fast enough for figures above 0: the images as they are, and the same ones to validate on.
  std::ofstream(shop.root / "same.yaml") << fmt::format(
      "path: {}\ntrain: images/train\nval: images/train\nnames: [a, b, c, d, e]\n", fs::path(shop.data).parent_path().string());
  const auto config = [&](const std::string& name, std::vector<std::string> more) {
    for (const char* given : {"epochs=24", "batch=2", "nbs=2", "optimizer=AdamW", "lr0=0.01", "warmup_epochs=0", "single_cls=true",
                              "mosaic=0", "scale=0", "translate=0", "fliplr=0"}) {
      more.emplace_back(given);
    }
    more.insert(more.end(), {"data=" + (shop.root / "same.yaml").string(), "model=" + (shop.root / "yolov8n-seg.yaml").string()});
    return shop.config(name, more);
  };
  const TrainSummary whole = Trainer(config("whole", {"patience=0", "save_period=1"}), LogStyle::kQuiet).fit();
  const std::vector<EpochRow> rows = ResultsCsv(whole.run_folder / "results.csv", 24).rows();
  REQUIRE(rows.size() == 24);
  // An epoch's figures are those of the weights that are kept of it: the averaged ones.
  CHECK(rows.at(size_t(whole.best_epoch - 1)).val.seg == doctest::Approx(whole.validation.loss.seg).epsilon(1e-5));

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
    CHECK_THROWS_WITH_AS(Trainer(again, LogStyle::kQuiet),
                         doctest::Contains(("--best cannot change in a resumed run (it is '" + name).c_str()), Error);
    Config resumed(kTrain);
    resumed.read_arguments({"resume=" + folder.string()});
    const TrainSummary s = Trainer(resumed, LogStyle::kQuiet).fit();
    CHECK(s.epochs_done == done);
    CHECK(s.best_epoch == expected.kept + 1);
    CHECK(s.best_value == doctest::Approx(expected.value).epsilon(0.02));  // five decimals of small figures
    CHECK(same_state(s.best, whole.run_folder / "weights" / fmt::format("epoch{}.safetensors", expected.kept)));
    const CheckpointMeta meta = load_checkpoint(s.best).meta;
    CHECK(best_metric_of(meta) == name);
    CHECK(describe_training(meta) ==
          fmt::format("epoch {}; best by {}, epoch {}: {:.5g}", s.best_epoch, name, s.best_epoch, s.best_value));
    ends.insert(done);
    // Killed before the figures of its end, a run makes those and no epoch.
    CHECK(Trainer(resumed, LogStyle::kQuiet).fit().epochs_done == done);
    if (done == 24) continue;
    std::ofstream(folder / "metrics.json") << fmt::format("{{\"epoch\":{}}}", done);  // as the program leaves it
    const std::string ended = fmt::format("--patience {} ended it after epoch {}", patience, done);
    CHECK_THROWS_WITH_AS(Trainer(resumed, LogStyle::kQuiet), doctest::Contains(ended.c_str()), Error);
  }
  CHECK(rows[23].box.map50 > 0);
  MESSAGE("ends after " << ends.size() << " different epochs");
  CHECK_THROWS_WITH_AS(Trainer(config("none", {"best=mask-map", "val=false"}), LogStyle::kQuiet),
                       doctest::Contains("needs validations"), Error);
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
    CHECK(figures_in(summary.run_folder) == figures_in(folder));
    CHECK(steps_logged(folder) == steps_logged(summary.run_folder));
  }
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
