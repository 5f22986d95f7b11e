#include "yolo/train/best_epoch.h"

#include <algorithm>
#include <cmath>

#include "tensor/base/check.h"

namespace tessera {

namespace {

constexpr const char* kKeptEpoch = "best.kept";

double rounded(double x) { return std::nearbyint(x * 1e5) / 1e5; }

// 0.1 mAP50 + 0.9 mAP50-95 of boxes plus the same of masks, rounded once (spec 8.8).
double fitness(const ValidationResult& r) {
  const auto one = [](const MetricSet& m) { return 0.1 * m.map50 + 0.9 * m.map; };
  return rounded(one(r.box) + one(r.mask));
}

constexpr BestMetric kMetrics[] = {
    {"fitness", fitness},
    {"mask-map", [](const ValidationResult& r) { return rounded(r.mask.map); }},
    {"mask-map50", [](const ValidationResult& r) { return rounded(r.mask.map50); }},
    {"mask-f1", [](const ValidationResult& r) { return rounded(r.mask.f1); }},
    {"box-map", [](const ValidationResult& r) { return rounded(r.box.map); }},
    {"box-map50", [](const ValidationResult& r) { return rounded(r.box.map50); }},
    {"box-f1", [](const ValidationResult& r) { return rounded(r.box.f1); }},
};

}  // namespace

std::span<const BestMetric> best_metrics() { return kMetrics; }

const BestMetric& best_metric(std::string_view name) {
  const auto it = std::find_if(std::begin(kMetrics), std::end(kMetrics), [&](const BestMetric& m) { return m.name == name; });
  TESSERA_CHECK(it != std::end(kMetrics), "no metric '{}'", name);
  return *it;
}

bool BestEpoch::take(int64_t at, double v) {
  const bool best = epoch < 0 || v >= value;
  if (epoch < 0 || v > value || value == 0) epoch = at;
  if (best) kept = at;
  value = std::max(value, v);
  return best;
}

void BestEpoch::save(CheckpointMeta& meta) const {
  meta.best_fitness = value;
  meta.best_epoch = epoch;
  meta.counters[kKeptEpoch] = kept;
}

BestEpoch BestEpoch::restored(const CheckpointMeta& meta) {
  const auto kept = meta.counters.find(kKeptEpoch);  // older files did not tell ties
  const bool told = kept != meta.counters.end() && kept->second >= -1 && kept->second <= kMostEpochs;
  return {meta.best_fitness, meta.best_epoch, told ? kept->second : meta.best_epoch};
}

std::string best_metric_of(const CheckpointMeta& meta) {
  const auto named = meta.args.find("best");  // older files knew one alone
  return named == meta.args.end() ? std::string(kMetrics[0].name) : named->second;
}

std::string describe_training(const CheckpointMeta& meta) {
  if (meta.args.empty()) return "";
  std::string text = meta.epoch < 0 ? "none complete" : fmt::format("epoch {}", meta.epoch + 1);
  if (const BestEpoch best = BestEpoch::restored(meta); best.kept >= 0) {
    text += fmt::format("; best by {}, epoch {}: {:.5g}", best_metric_of(meta), best.kept + 1, best.value);
  }
  return text;
}

}  // namespace tessera
