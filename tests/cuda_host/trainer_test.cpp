// Whole trainings on the emulated device: fp16 with its scale through a checkpoint, and steps that are replayed.
#include "yolo/train/trainer.h"

#include <doctest/doctest.h>

#include <cstring>
#include <filesystem>

#include "nn/io/checkpoint.h"
#include "tensor/base/file.h"
#include "tensor/base/interrupt.h"
#include "tests/cuda_host/emulator.h"
#include "tests/support/narrow_model.h"
#include "tests/support/training_folder.h"
#include "yolo/eval/evaluator.h"
#include "yolo/io/weights.h"
#include "yolo/train/results_csv.h"
#include "yolo/train/training_data.h"

namespace tessera::testing {
namespace {

namespace fs = std::filesystem;

struct Workshop : TrainingFolder {
  Workshop() : TrainingFolder({.train = 5, .val = 2, .size = 64}, {"batch=2", "nbs=2", "epochs=5", "device=cuda", "val=false"}) {
    write_file_atomic(root / "yolov8n-seg.yaml", std::string(kNarrowModel));
    emulated::allow_host_access(false);
  }
  ~Workshop() { emulated::allow_host_access(true); }
  Config config(const std::string& name, std::vector<std::string> more) const {
    more.insert(more.begin(), {"name=" + name, "model=" + (root / "yolov8n-seg.yaml").string()});
    return TrainingFolder::config(more);
  }
};

void check_same_state(const fs::path& a, const fs::path& b) {
  const Checkpoint x = load_checkpoint(a / "weights/last.safetensors"), y = load_checkpoint(b / "weights/last.safetensors");
  const auto same = [](const StateDict& left, const StateDict& right) {
    REQUIRE(left.size() == right.size());
    for (const auto& [name, t] : left) {
      CAPTURE(name);
      const Tensor& other = right.at(name);
      REQUIRE(t.shape() == other.shape());
      CHECK(std::memcmp(t.raw(), other.raw(), size_t(t.numel()) * size_of(t.dtype())) == 0);
    }
  };
  same(x.model, y.model);
  REQUIRE(x.sections.size() == y.sections.size());
  for (const auto& [name, section] : x.sections) same(section, y.sections.at(name));
}

TEST_CASE("a training in fp16 on a device: replayed or not, interrupted or not, the same bits") {
  const Workshop shop;
  const auto train = [&](const std::string& name, std::vector<std::string> more) {
    more.push_back("precision=fp16");
    Trainer t(shop.config(name, more), LogStyle::kQuiet);
    t.fit();
    return t.run_folder();
  };
  const uint64_t before = emulated::calls("cudaGraphLaunch");
  const fs::path calls = train("calls", {"graph=false"});
  CHECK(emulated::calls("cudaGraphLaunch") == before);
  const fs::path graph = train("graph", {"graph=true"});
  CHECK(emulated::calls("cudaGraphLaunch") > before);
  check_same_state(graph, calls);
  const StateDict update = load_checkpoint(graph / "weights/last.safetensors").sections.at("update");
  CHECK(update.at("scaler.scale").item() <= 65536);
  CHECK(update.at("scaler.scale").item() >= 1);
  CHECK(update.at("scaler.good_updates").item() > 0);

  fs::path folder;
  bool complete = false;
  for (int sitting = 0; sitting < 12 && !complete; ++sitting) {
    Config config = shop.config("broken", {"precision=fp16"});
    if (!folder.empty()) {
      config = Config(kTrain);
      config.read_arguments({"resume=" + folder.string(), "device=cuda"});
    }
    Trainer t(config, LogStyle::kQuiet);
    folder = t.run_folder();
    if (sitting < 8 && sitting % 2 == 0) request_interrupt();  // after one batch
    complete = !t.fit().interrupted;
    clear_interrupt();
  }
  CHECK(complete);
  check_same_state(folder, calls);
  CHECK(emulated::take_reports().empty());
}

TEST_CASE("a training whose images the device makes: the same objects, nearly the same losses, the same plots in the folder") {
  const Workshop shop;
  std::vector<std::string> settings = {"plots=true", "epochs=1"};
  SUBCASE("in one size") {}
  SUBCASE("in several sizes, some of them joined") { settings.insert(settings.end(), {"multi_scale=true", "cutmix=0.5"}); }
  SUBCASE("in rectangular batches") { settings.push_back("rect=true"); }
  const auto train = [&](const std::string& where) {
    std::vector<std::string> more = settings;
    more.push_back("augment=" + where);
    Trainer t(shop.config(where, more), LogStyle::kQuiet);
    t.on_batch = [&](int64_t, int64_t, Batch& batch) {
      CHECK(batch.tiles.has_value() == (where == "cuda"));
      CHECK(batch.images.defined() == (where == "cpu"));
      CHECK(batch.height() == 64);
    };
    t.fit();
    return t.run_folder();
  };
  const fs::path host = train("cpu"), device = train("cuda");
  CHECK(emulated::take_reports().empty());
  const EpochRow a = ResultsCsv(host / "results.csv", 1).rows().at(0), b = ResultsCsv(device / "results.csv", 1).rows().at(0);
  CHECK(b.train.box == doctest::Approx(a.train.box).epsilon(0.02));
  CHECK(b.train.seg == doctest::Approx(a.train.seg).epsilon(0.02));
  CHECK(b.train.cls == doctest::Approx(a.train.cls).epsilon(0.02));
  CHECK(fs::file_size(device / "train_batch0.png") > 1000);
}

TEST_CASE("a training in several sizes on a device has nearly the losses of one on the host, and no step is recorded") {
  const Workshop shop;
  const auto train = [&](const std::string& device) {
    std::vector<double> losses;
    Trainer t(shop.config(device, {"device=" + device, "multi_scale=true", "epochs=4", "optimizer=SGD"}), LogStyle::kQuiet);
    t.fit();
    const ResultsCsv results(t.run_folder() / "results.csv", 4);
    for (const EpochRow& row : results.rows()) losses.push_back(row.train.box + row.train.seg + row.train.cls);
    return losses;
  };
  const uint64_t before = emulated::calls("cudaGraphLaunch");
  const std::vector<double> device = train("cuda");
  CHECK(emulated::calls("cudaGraphLaunch") == before);
  CHECK(emulated::take_reports().empty());
  const std::vector<double> host = train("cpu");
  REQUIRE(device.size() == host.size());
  for (size_t i = 0; i < host.size(); ++i) CHECK(device[i] == doctest::Approx(host[i]).epsilon(0.01));
}

// Losses, both styles of scoring, masks at original size and plots.
TEST_CASE("a validation on a device has the figures of the host") {
  const Workshop shop;
  Trainer t(shop.config("trained", {"epochs=2", "val=true", "plots=true"}), LogStyle::kQuiet);
  t.fit();
  CHECK(fs::file_size(t.run_folder() / "val_batch0_pred.png") > 1000);
  const auto set = open_split(t.config(), "val", false, LogStyle::kQuiet);
  for (const MapStyle style : {MapStyle::kCoco, MapStyle::kOriginal}) {
    CAPTURE(int(style));
    std::vector<ValidationResult> results;
    std::vector<double> masked;
    for (const Device device : {Device::cuda(), Device::cpu()}) {
      const LoadedModel loaded = load_model((t.run_folder() / "weights/last.safetensors").string());
      loaded.model->to(device);
      LoaderOptions options;
      options.batch = 2;
      Loader loader(*set, options);
      EvaluatorHooks hooks;
      double area = 0;
      hooks.detections = [&](std::span<const std::vector<ScoredDetection>> images) {
        for (const auto& found : images) {
          for (const ScoredDetection& d : found) area += double(rle_area(d.mask));
        }
      };
      int64_t detected = 0;
      hooks.part_done.push_back([&](int64_t, const Batch&, int64_t, const BatchDetections& found) {
        CHECK(found.prototypes.device() == device);
        for (const Detections& d : found.images) detected += d.size();
      });
      EvaluatorOptions how;
      how.style = style;
      how.confidence = 1e-4f;
      how.max_detections = 50;
      results.push_back(Evaluator(set->names(), how).run(*loaded.model, *set, loader, hooks));
      masked.push_back(area);
      CHECK(detected > 50);
    }
    CHECK(emulated::take_reports().empty());
    const ValidationResult &a = results[0], &b = results[1];
    CHECK(a.images == 2);
    CHECK(a.instances == b.instances);
    CHECK(masked[1] > 1000);
    CHECK(masked[0] == doctest::Approx(masked[1]).epsilon(0.01));
    CHECK(a.box.map50 == doctest::Approx(b.box.map50).epsilon(0.01));
    CHECK(a.mask.map50 == doctest::Approx(b.mask.map50).epsilon(0.01));
  }
}

TEST_CASE("fp16 is refused on the CPU") {
  const Workshop shop;
  try {
    Trainer t(shop.config("cpu", {"device=cpu", "precision=fp16"}), LogStyle::kQuiet);
    FAIL("fp16 on the CPU");
  } catch (const Error& e) {
    CHECK(e.code() == ErrorCode::kUsage);
    CHECK(e.message().find("--precision fp16 is for a GPU") != std::string::npos);
  }
}

}  // namespace
}  // namespace tessera::testing
