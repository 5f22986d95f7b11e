#include "yolo/train/step_profile.h"

#include <map>

#include "nn/layer_names.h"
#include "tensor/base/parallel.h"

namespace tessera {

namespace {

std::string direction_of(OpKind kind, bool backward) {
  switch (kind) {
    case OpKind::kForward: return "forward";
    case OpKind::kBackwardData: return "backward data";
    case OpKind::kBackwardWeights: return "backward weights";
    case OpKind::kNorm: return "norm";
    case OpKind::kNormBackward: return "norm backward";
    case OpKind::kPointwise: return backward ? "pointwise backward" : "pointwise";
    case OpKind::kLoss: return "loss";
    case OpKind::kOptimizer: return "optimizer";
    case OpKind::kTransfer: return "transfer";
  }
  return "?";
}

}  // namespace

StepProfile::StepProfile(Device device, int64_t steps, Roof roof)
    : device_(device), steps_(steps), roof_(roof), profiler_(backend_for(device)) {}

void StepProfile::name(Module& model) {
  for (auto& [owner, text] : layer_names(model)) names_.push_back({owner, std::move(text), {}});
}

void StepProfile::name(const void* owner, std::string text, std::string all) {
  names_.push_back({owner, std::move(text), std::move(all)});
}

void StepProfile::resume() {
  if (!measuring()) return;
  guard_.emplace(profiler_);
  since_ = Clock::now();
}

void StepProfile::pause() {
  guard_.reset();  // the little after the last step_done(), the loader finding that no batch is left, belongs to no step
}

bool StepProfile::step_done(double loader_wait_seconds) {
  if (complete()) return false;
  const auto now = Clock::now();
  if (measuring() && guard_) {
    seconds_ += std::chrono::duration<double>(now - since_).count();
    loader_seconds_ += loader_wait_seconds;
    since_ = now;
  }
  ++steps_done_;
  if (steps_done_ == kWarmUp) resume();
  if (!complete()) return false;
  guard_.reset();
  return true;
}

Profile StepProfile::result() const {
  Profile p;
  p.steps = std::max<int64_t>(steps_done_ - kWarmUp, 0);
  p.warm_up = kWarmUp;
  p.device = to_string(device_);
  p.backend = std::string(profiler_.name());
  p.threads = device_ == Device::cpu() ? compute_threads() : 0;
  p.roof = roof_;
  const double steps = double(std::max<int64_t>(p.steps, 1));
  p.step_ms = seconds_ * 1e3 / steps;
  p.loader_ms = loader_seconds_ * 1e3 / steps;
  // Several owners may share a name, and several kinds a direction; the rows come in the order of the names.
  std::map<std::pair<size_t, std::string>, ProfileRow> rows;
  std::map<std::string, size_t> places;
  for (const Name& n : names_) places.emplace(n.text, places.size());
  for (const auto& [key, total] : profiler_.totals()) {
    const auto& [owner, kind, backward] = key;
    std::string layer = "elsewhere", direction = direction_of(kind, backward);
    for (const Name& n : names_) {
      if (n.owner != owner) continue;
      layer = n.text;
      if (!n.all.empty()) direction = n.all;
    }
    const auto place = places.find(layer);
    ProfileRow& row = rows[{place == places.end() ? names_.size() : place->second, direction}];
    row.layer = layer;
    row.direction = direction;
    row.calls += double(total.calls) / steps;
    row.ms += total.seconds * 1e3 / steps;
    row.operations += total.operations / steps;
    row.bytes += total.bytes / steps;
  }
  for (auto& [place, row] : rows) p.rows.push_back(std::move(row));
  return p;
}

}  // namespace tessera
