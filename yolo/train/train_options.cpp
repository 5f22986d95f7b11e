#include "yolo/train/train_options.h"

#include <algorithm>
#include <cmath>

#include "tensor/base/check.h"
#include "yolo/config_values.h"

namespace tessera {

namespace {

constexpr const char *kRule = "optimizer.rule", *kRate = "optimizer.lr0", *kMomentumName = "optimizer.momentum",
                     *kBiasRate = "optimizer.warmup_bias_lr";

}  // namespace

TrainOptions train_options(const Config& c) {
  TrainOptions o;
  o.epochs = c.integer("epochs");
  o.batch = c.integer("batch");
  o.imgsz = (c.integer("imgsz") + 31) / 32 * 32;
  o.nbs = c.integer("nbs");
  o.workers = c.integer("workers");
  o.seed = c.integer("seed");
  o.best = c.text("best");
  o.patience = c.integer("patience");
  o.save_period = c.integer("save_period");
  o.save_minutes = c.number("save_minutes");
  o.multi_scale = c.flag("multi_scale");
  o.frozen_layers = frozen_layers_of(c);
  o.hours = c.number("time");
  o.validate = c.flag("val");
  o.save = c.flag("save");
  o.plots = c.flag("plots");
  o.gains = {c.number("box"), c.number("cls"), c.number("dfl")};
  o.weight_decay = c.number("weight_decay");
  o.iou = c.number("iou");
  o.max_det = c.integer("max_det");
  o.original_map = c.text("map_style") == "original";
  o.project = c.text("project");
  o.name = c.is_set("name") ? c.text("name") : "train";
  o.exist_ok = c.flag("exist_ok");
  if (!o.validate && o.best != "fitness") {
    throw Error(ErrorCode::kUsage, fmt::format("--best {} needs validations, and --val is false", o.best), {},
                "leave one of the two out; without validations the last epoch's weights are kept as the best");
  }
  return o;
}

void save_choice(const OptimizerChoice& choice, CheckpointMeta& meta) {
  meta.counters[kRule] = int64_t(choice.rule);
  meta.numbers[kRate] = choice.lr0;
  meta.numbers[kMomentumName] = choice.momentum;
  meta.numbers[kBiasRate] = choice.warmup_bias_lr;
}

bool restore_choice(const CheckpointMeta& meta, OptimizerChoice& choice, const std::filesystem::path& file) {
  const auto rule = meta.counters.find(kRule);
  if (rule == meta.counters.end()) return false;
  bool sound = rule->second >= int64_t(UpdateRule::kSgd) && rule->second <= int64_t(UpdateRule::kAdamW);
  const auto number = [&](const char* name) {
    const auto it = meta.numbers.find(name);
    sound = sound && it != meta.numbers.end() && it->second >= 0 && it->second <= 1;
    return sound ? it->second : 0;
  };
  choice.lr0 = number(kRate), choice.momentum = number(kMomentumName), choice.warmup_bias_lr = number(kBiasRate);
  if (!sound)
    throw Error(ErrorCode::kData, "there is no such optimizer as its training state says", {file.string()},
                "the file is damaged; start a new run");
  choice.rule = UpdateRule(rule->second);
  return true;
}

OptimizerChoice choose_optimizer(const Config& c, int64_t train_images, int64_t classes, const CheckpointMeta* resumed) {
  OptimizerChoice choice;
  choice.lr0 = c.number("lr0");
  choice.momentum = c.number("momentum");
  choice.warmup_bias_lr = c.number("warmup_bias_lr");
  const std::string& name = c.text("optimizer");
  const auto checked = [&] {
    if (choice.rule != UpdateRule::kSgd && choice.momentum >= 1) {
      throw Error(ErrorCode::kUsage, fmt::format("momentum={}: the beta1 of Adam and AdamW has to be below 1", c.text("momentum")),
                  {}, "0.9 is usual");
    }
    return choice;
  };
  if (name == "SGD") return choice;
  if (name == "Adam" || name == "AdamW") {
    choice.rule = name == "Adam" ? UpdateRule::kAdam : UpdateRule::kAdamW;
    return checked();
  }
  if (resumed != nullptr && restore_choice(*resumed, choice, {})) {
    choice.reason = "auto, as the run began";
    return checked();
  }
  const int64_t denominator = std::max(c.integer("batch"), c.integer("nbs"));
  const int64_t iterations = (train_images + denominator - 1) / denominator * c.integer("epochs");
  const bool long_run = iterations > 10000;
  choice.rule = long_run ? UpdateRule::kSgd : UpdateRule::kAdamW;
  if (!c.is_explicit("lr0")) choice.lr0 = long_run ? 0.01 : std::nearbyint(0.002 * 5 / double(4 + classes) * 1e6) / 1e6;
  if (!c.is_explicit("momentum")) choice.momentum = 0.9;
  if (!c.is_explicit("warmup_bias_lr")) choice.warmup_bias_lr = 0.0;
  choice.reason = fmt::format("auto: {} planned updates of {} images, {} classes", iterations, denominator, classes);
  return checked();
}

double scaled_weight_decay(const TrainOptions& o) {
  const double accumulate = std::max(std::nearbyint(double(o.nbs) / double(o.batch)), 1.0);
  return o.weight_decay * double(o.batch) * accumulate / double(o.nbs);
}

ScheduleConfig schedule_config(const Config& c, const OptimizerChoice& choice, int64_t batches_per_epoch) {
  ScheduleConfig s;
  s.lr0 = choice.lr0;
  s.lrf = c.number("lrf");
  s.cosine = c.flag("cos_lr");
  s.epochs = c.integer("epochs");
  s.batches_per_epoch = batches_per_epoch;
  s.batch = c.integer("batch");
  s.nbs = c.integer("nbs");
  s.warmup_epochs = c.number("warmup_epochs");
  // The target of the warm-up ramp, also when auto chose another momentum (spec 8.3), which stays where there is no warm-up.
  s.momentum = s.warmup_epochs > 0 ? c.number("momentum") : choice.momentum;
  s.warmup_momentum = c.number("warmup_momentum");
  s.warmup_bias_lr = choice.warmup_bias_lr;
  return s;
}

}  // namespace tessera
