// What the trainer does around its steps, against the original's (tests/golden/engine.json, made by tools/golden/engine.py).
#include <doctest/doctest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>

#include "nn/layers/batch_norm2d.h"
#include "tests/support/error_of.h"
#include "tests/support/golden.h"
#include "tests/support/training_folder.h"
#include "yolo/config_values.h"
#include "yolo/train/best_epoch.h"
#include "yolo/train/results_csv.h"
#include "yolo/train/resumed_config.h"
#include "yolo/train/trainer.h"
#include "yolo/train/training_data.h"

using namespace tessera;
using namespace tessera::testing;
using nlohmann::json;
namespace fs = std::filesystem;

namespace {

const json& golden() {
  static const json all = read_json(golden_dir() / "engine.json");
  return all;
}

std::string text_of(const json& value) {
  if (value.is_string()) return value.get<std::string>();
  return value.dump();
}

// As many training images as the original was shown.
struct Workshop : TrainingFolder {
  Workshop() : TrainingFolder({.train = 37, .val = 2, .size = 32}, {"batch=8"}) {}
  Config config(const json& arguments, std::vector<std::string> more = {}) const {
    for (const auto& [name, value] : arguments.items()) more.push_back(fmt::format("{}={}", name, text_of(value)));
    return TrainingFolder::config(more);
  }
};

Schedule schedule_of(const Config& c, const OptimizerChoice& choice, const json& s) {
  return Schedule(schedule_config(c, choice, s.at("batches").get<int64_t>()));
}

}  // namespace

TEST_CASE("rates, momentum and accumulation of every iteration, and which of them update, equal the original's") {
  const Workshop shop;
  for (const json& s : golden().at("schedules")) {
    CAPTURE(s.at("arguments").dump());
    const Config c = shop.config(s.at("arguments"));
    const OptimizerChoice choice = choose_optimizer(c, 37, 3);
    const Schedule schedule = schedule_of(c, choice, s);
    const int64_t batches = s.at("batches").get<int64_t>();
    for (const json& row : s.at("rows")) {
      CAPTURE(row.dump());
      const int64_t i = row[0].get<int64_t>();
      const ScheduleValues now = schedule.at(i / batches, i % batches);
      for (size_t g = 0; g < kTrainedGroups; ++g) CHECK(now.lr[g] == doctest::Approx(row[1 + g].get<double>()).epsilon(1e-12));
      const double momentum = choice.rule == UpdateRule::kSgd ? now.momentum : choice.momentum;
      CHECK(momentum == doctest::Approx(row[4].get<double>()).epsilon(1e-12));
      CHECK(now.accumulate == row[5].get<int64_t>());
    }
  }
}

// Across epochs whose last batch is smaller, through a warm-up in which the accumulation grows to 12 batches, and without one.
TEST_CASE("a training updates after the iterations after which the original does") {
  const Workshop shop;
  for (const size_t k : {1, 2}) {
    const json& s = golden().at("schedules")[k];
    CAPTURE(s.at("arguments").dump());
    Trainer trainer(shop.config(s.at("arguments"), {"val=false", fmt::format("name=schedule{}", k)}), LogStyle::kQuiet);
    const TrainSummary done = trainer.fit();
    const Checkpoint left = load_checkpoint(done.last);
    const std::vector<int64_t> updates = s.at("updates").get<std::vector<int64_t>>();
    CHECK(left.meta.counters.at("progress.last_step") == updates.back());
    CHECK(int64_t(left.sections.at("ema").at("ema.updates").item()) == int64_t(updates.size()));
    // The same iteration by iteration, from what the run says of itself.
    std::ifstream log(done.run_folder / "log.jsonl");
    std::vector<int64_t> seen;
    int64_t i = 0, last = -1;
    for (std::string line; std::getline(log, line);) {
      const json step = json::parse(line);
      if (step.at("event") != "step") continue;
      if (i - last >= step.at("accumulate").get<int64_t>()) seen.push_back(last = i);
      ++i;
    }
    CHECK(i == s.at("iterations").get<int64_t>());
    CHECK(seen == updates);
  }
}

TEST_CASE("the decay of the average at every update equals the original's") {
  YoloSeg model(parse_model_yaml("yolov8n-seg", "", 3));
  const ParameterArena arena(model);
  const Ema ema(arena);
  for (const json& e : golden().at("ema")) CHECK(ema.decay_at(e[0].get<int64_t>()) == doctest::Approx(e[1].get<double>()).epsilon(1e-12));
}

TEST_CASE("the automatic optimizer, decays, groups, fractions and classes equal the original's") {
  const Workshop shop;
  YoloSeg model(parse_model_yaml("yolov8n-seg", "", 3));
  const ParameterArena arena(model);
  for (const json& s : golden().at("setups")) {
    CAPTURE(s.dump());
    const json& given = s.at("arguments");
    const Config c = shop.config(given);
    const bool single = given.contains("single_cls");
    const auto set = open_split(c, "train", true, LogStyle::kQuiet);
    CHECK(set->size() == s.at("used_images").get<int64_t>());
    const int64_t classes = single ? int64_t(set->names().size()) : s.at("classes").get<int64_t>();
    CHECK(classes == s.at("used_classes").get<int64_t>());
    const OptimizerChoice choice = choose_optimizer(c, set->size(), classes);
    const std::string name = choice.rule == UpdateRule::kSgd ? "SGD" : choice.rule == UpdateRule::kAdam ? "Adam" : "AdamW";
    CHECK(name == s.at("optimizer").get<std::string>());
    CHECK(s.at("nesterov").get<bool>() == (choice.rule == UpdateRule::kSgd));
    // With optimizer=auto the original overrules what was given; here it wins (docs/cli.md).
    const bool automatic = given.at("optimizer") == "auto";
    CHECK(choice.lr0 == (automatic && given.contains("lr0") ? given["lr0"] : s.at("lr")[1]).get<double>());
    CHECK(choice.momentum == (automatic && given.contains("momentum") ? given["momentum"] : s.at("momentum")).get<double>());
    CHECK(choice.warmup_bias_lr == (given.contains("warmup_bias_lr") ? given["warmup_bias_lr"] : s.at("warmup_bias_lr")).get<double>());
    CHECK(scaled_weight_decay(train_options(c)) == doctest::Approx(s.at("decay")[1].get<double>()).epsilon(1e-12));
    CHECK((s.at("decay")[0] == 0 && s.at("decay")[2] == 0));
    for (size_t g = 0; g < kTrainedGroups; ++g) {
      // The original's weights hold the fixed projection of the DFL too.
      const int64_t fixed = ParamGroup(g) == ParamGroup::kWeight ? 1 : 0;
      CHECK(int64_t(arena.entries(ParamGroup(g)).size()) + fixed == s.at("size")[g].get<int64_t>());
    }
  }
}

TEST_CASE("frozen layers are the original's: by number and by list, with the statistics of their norms") {
  for (const json& f : golden().at("freeze")) {
    CAPTURE(f.dump());
    Config c(kTrain);
    c.read_arguments({"freeze=" + text_of(f.at("freeze"))});
    YoloSeg model(parse_model_yaml("yolov8n-seg", "", 3));
    model.freeze(frozen_layers_of(c));
    model.train(false);
    model.train(true);
    std::vector<int64_t> trained(model.spec().layers.size()), held(trained.size()), moving(trained.size()), norms(trained.size());
    const auto layer_of = [](const std::string& name) { return size_t(std::stoll(name.substr(name.find('.') + 1))); };
    model.for_each_parameter([&](const std::string& name, Variable& p) {
      if (name.find("dfl") == std::string::npos) ++(p.requires_grad() ? trained : held)[layer_of(name)];
    });
    model.for_each_module([&](const std::string& name, Module& m) {
      if (dynamic_cast<BatchNorm2d*>(&m) == nullptr) return;
      ++norms[layer_of(name)];
      moving[layer_of(name)] += m.training();
    });
    std::vector<int64_t> frozen, fixed;
    for (size_t i = 0; i < trained.size(); ++i) {
      if (held[i] > 0 && trained[i] == 0) frozen.push_back(int64_t(i));
      if (norms[i] > 0 && moving[i] == 0) fixed.push_back(int64_t(i));
    }
    CHECK(frozen == f.at("frozen").get<std::vector<int64_t>>());
    CHECK(fixed == f.at("fixed").get<std::vector<int64_t>>());
  }
}

TEST_CASE("a training leaves every number of a frozen layer as it was, and changes the others") {
  const Workshop shop;
  for (const char* freeze : {"3", "[0, 4, 12]"}) {
    CAPTURE(freeze);
    Trainer trainer(shop.config({{"epochs", 2}, {"freeze", freeze}}, {"val=false", "nbs=8"}), LogStyle::kQuiet);
    std::map<std::string, std::vector<double>> before;
    for (const auto& [name, tensor] : trainer.model().state_dict()) before[name] = tensor.clone().to(DType::kF64).to_vector<double>();
    trainer.fit();
    Config c(kTrain);
    c.read_arguments({fmt::format("freeze={}", freeze)});
    const std::vector<int32_t> layers = frozen_layers_of(c);
    for (const auto& [name, tensor] : trainer.model().state_dict()) {
      CAPTURE(name);
      if (name.find("dfl") != std::string::npos) continue;
      const int32_t layer = std::stoi(name.substr(name.find('.') + 1));
      const bool frozen = std::find(layers.begin(), layers.end(), layer) != layers.end();
      const bool same = tensor.clone().to(DType::kF64).to_vector<double>() == before[name];
      if (frozen) CHECK(same);
      // Boxes have no gradient in a batch without positives; weights decay all the same.
      if (!frozen && (name.ends_with("running_mean") || name.ends_with("conv.weight"))) CHECK(!same);
    }
  }
  CHECK_THROWS_AS(Trainer(shop.config({{"freeze", 23}}), LogStyle::kQuiet), Error);
  CHECK_THROWS_AS(Trainer(shop.config({{"freeze", "[23]"}}), LogStyle::kQuiet), Error);
}

TEST_CASE("mosaic closes at the epoch at which the original's does") {
  const Workshop shop;
  for (const json& m : golden().at("mosaic")) {
    CAPTURE(m.dump());
    const Config c = shop.config({{"epochs", m[0]}, {"close_mosaic", m[1]}});
    CHECK(open_split(c, "train", true, LogStyle::kQuiet)->config().close_mosaic_at == m[2].get<int>());
  }
}

TEST_CASE("best weights, the end of patience and the epochs that are kept are the original's") {
  for (const json& s : golden().at("stops")) {
    CAPTURE(s.dump());
    if (!s.at("val").get<bool>()) continue;  // the trainer's own, below
    const json& fitness = s.at("fitness");
    const int64_t patience = s.at("patience").get<int64_t>();
    BestEpoch best;
    std::vector<int64_t> saved;
    int64_t done = 0;
    while (done < int64_t(fitness.size()) && !best.too_long_ago(done, patience)) {
      if (best.take(done, fitness[size_t(done)].get<double>())) saved.push_back(done);
      ++done;
    }
    CHECK(done == s.at("epochs").get<int64_t>());
    CHECK(saved == s.at("best").get<std::vector<int64_t>>());
  }
}

TEST_CASE("--best: every choice is a figure of the validation, rounded as the original's") {
  ValidationResult r;
  r.box = {.map = 0.300004, .map50 = 0.4, .map75 = 0.9, .f1 = 0.51};
  r.mask = {.map = 0.200006, .map50 = 0.6, .map75 = 0.9, .f1 = 0.52};
  const std::map<std::string_view, double> expected = {{"fitness", 0.1 * 0.4 + 0.9 * 0.3 + 0.1 * 0.6 + 0.9 * 0.20001},
                                                       {"mask-map", 0.20001}, {"mask-map50", 0.6}, {"mask-f1", 0.52},
                                                       {"box-map", 0.3}, {"box-map50", 0.4}, {"box-f1", 0.51}};
  std::string names;
  for (const BestMetric& m : best_metrics()) {
    CAPTURE(m.name);
    names += fmt::format("{}{}", names.empty() ? "" : "|", m.name);
    CHECK(m.of(r) == doctest::Approx(expected.at(m.name)).epsilon(2e-5));
    CHECK(std::abs(m.of(r) * 1e5 - std::nearbyint(m.of(r) * 1e5)) < 1e-9);
  }
  // Two halves of a step are one: what fitness is made of has not been rounded before.
  r.box = {.map = 0.3000044}, r.mask = {.map = 0.2000044};
  CHECK(best_metric("fitness").of(r) == doctest::Approx(0.45001).epsilon(1e-9));
  CHECK(best_metrics().size() == expected.size());
  CHECK(names == find_option("best")->choices);
  CHECK(best_metrics()[0].name == find_option("best")->fallback);
}

TEST_CASE("the best epoch is the one whose weights are kept, ties included, and goes through a checkpoint") {
  BestEpoch best;
  CheckpointMeta meta;
  CHECK(describe_training(meta).empty());  // no training
  meta.args["best"] = "mask-map50";
  CHECK(describe_training(meta) == "none complete");
  for (const double value : {0.25, 0.5, 0.125, 0.5, 0.25}) {
    ++meta.epoch;
    best.take(meta.epoch, value);
    best.save(meta);
    const BestEpoch back = BestEpoch::restored(meta);
    CHECK(back.value == best.value);
    CHECK(back.epoch == best.epoch);
    CHECK(back.kept == best.kept);
  }
  CHECK(best.epoch == 1);  // patience counts from here
  CHECK(best.kept == 3);
  CHECK(describe_training(meta) == "epoch 5; best by mask-map50, epoch 4: 0.5");
  meta.args.erase("best"), meta.args["epochs"] = "5", meta.counters.clear();  // as files of before were
  CHECK(describe_training(meta) == "epoch 5; best by fitness, epoch 2: 0.5");
  meta.counters["best.kept"] = INT64_MAX;  // no epoch
  CHECK(describe_training(meta) == "epoch 5; best by fitness, epoch 2: 0.5");
}

// Found by tests/fuzz.
TEST_CASE("a training state that arithmetic cannot go on from is refused") {
  const TrainingFolder shop({.train = 2, .val = 2, .size = 32}, {});
  const fs::path file = shop.root / "last.safetensors";
  Checkpoint c;
  c.model.add("w", Tensor::zeros({1}));
  c.sections["arena"].add("values.0", Tensor::zeros({1}));
  const auto load = [&] {
    save_checkpoint(file, c);
    return load_to_resume(file);
  };
  CHECK_NOTHROW(load());
  for (const auto& [name, value] : std::multimap<std::string, int64_t>{{"progress.batch", -1}, {"progress.batch", INT64_MAX}, {"progress.last_step", INT64_MIN}}) {
    c.meta.counters = {{name, value}};
    CAPTURE(name);
    const Error e = error_of(load);
    CHECK(e.code() == ErrorCode::kData);
    CHECK(e.where().file == file.string());
    CHECK(e.message() == "the run cannot be where its training state says");
  }
  c.meta.counters.clear();
  c.meta.numbers["progress.seconds"] = NAN;
  CHECK(error_of(load).message() == "the run cannot be where its training state says");
  c.meta.numbers.clear();
  save_choice({.rule = UpdateRule::kAdamW, .lr0 = 0.002, .momentum = 0.9, .warmup_bias_lr = 0, .reason = ""}, c.meta);
  CHECK_NOTHROW(load());
  for (const double rate : {-1.0, double(NAN), 2.0}) {
    c.meta.numbers["optimizer.lr0"] = rate;
    CHECK(error_of(load).message() == "there is no such optimizer as its training state says");
  }
  c.meta.numbers["optimizer.lr0"] = 0.002;
  c.meta.counters["optimizer.rule"] = 3;
  CHECK(error_of(load).where().file == file.string());
  c.meta.counters.clear(), c.meta.numbers.clear();
  c.meta.epoch = INT64_MAX;
  CHECK(error_of(load).message() == "the training state in the metadata contradicts itself");
}

TEST_CASE("a training keeps the weights of the epochs that the original keeps, validated or not") {
  const Workshop shop;
  const auto run = [&](const json& s, const std::string& name) {
    return Trainer(shop.config({{"epochs", s.at("epochs")}, {"patience", 0}, {"save_period", s.at("save_period")}, {"val", s.at("val")}},
                               {"fraction=0.2", "name=" + name}),
                   LogStyle::kQuiet)
        .fit();
  };
  for (const json& s : golden().at("stops")) {
    const int64_t period = s.at("save_period").get<int64_t>();
    if (period < 1) continue;
    CAPTURE(s.dump());
    const TrainSummary done = run(s, fmt::format("period{}", period));
    std::vector<int64_t> kept;
    for (int64_t e = 0; e < s.at("epochs").get<int64_t>(); ++e) {
      if (fs::exists(done.run_folder / "weights" / fmt::format("epoch{}.safetensors", e))) kept.push_back(e);
    }
    CHECK(kept == s.at("kept").get<std::vector<int64_t>>());
  }
  for (const json& s : golden().at("stops")) {
    if (s.at("val").get<bool>()) continue;
    CAPTURE(s.dump());
    // Without validation the last weights are the best at every epoch.
    CHECK(s.at("best").size() == s.at("epochs").get<size_t>());
    const TrainSummary done = run(s, "unvalidated");
    CHECK(load_checkpoint(done.best).meta.epoch == s.at("best").back().get<int64_t>());
  }
}

TEST_CASE("results.csv has the original's columns and form of numbers") {
  const Workshop shop;
  const fs::path file = shop.root / "results.csv";
  const json& s = golden().at("schedules")[0];
  const Config c = shop.config(s.at("arguments"));
  EpochRow row;
  row.epoch = 24;
  row.lr = schedule_of(c, choose_optimizer(c, 37, 3), s).at(23, 4).lr;
  ResultsCsv(file, 0).append(row);
  std::ifstream in(file);
  std::string header, line, expected;
  std::getline(in, header);
  std::getline(in, line);
  for (const json& name : golden().at("csv").at("header")) expected += fmt::format("{}{}", expected.empty() ? "" : ",", name.get<std::string>());
  CHECK(header == expected);
  std::string rates;
  for (const json& lr : golden().at("csv").at("lr")) rates += fmt::format(",{}", lr.get<std::string>());
  CHECK(line.ends_with(rates));
}
