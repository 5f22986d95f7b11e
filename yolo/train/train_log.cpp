#include "yolo/train/train_log.h"

#include <cerrno>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tensor/base/file.h"
#include "tensor/base/memory.h"
#include "tensor/base/standard_streams.h"
#include "yolo/metrics_json.h"

namespace tessera {

namespace {
nlohmann::ordered_json loss_json(const LossItems& l) { return {{"box", l.box}, {"seg", l.seg}, {"cls", l.cls}, {"dfl", l.dfl}}; }
}  // namespace

TrainLog::TrainLog(std::filesystem::path file, LogStyle style, int64_t epoch, int64_t batches) : file_(std::move(file)), style_(style) {
  std::string kept;
  std::ifstream in(file_);
  for (std::string line; std::getline(in, line);) {
    const auto j = nlohmann::json::parse(line, nullptr, false);
    const auto whole = [&](const char* key) {
      const auto found = j.is_object() ? j.find(key) : j.end();
      return found != j.end() && found->is_number_integer() ? found->get<int64_t>() : int64_t(-1);
    };
    const int64_t at = whole("epoch"), batch = whole("batch");  // 1-based in the file
    if (at < 0) continue;                                       // cut by a kill
    const bool step_done = batch >= 0 && batch <= batches && at == epoch + 1 && j.contains("event") && j["event"] == "step";
    if (at <= epoch || step_done) kept += line + "\n";
  }
  write_file_atomic(file_, kept);
}

void TrainLog::append(const std::string& line) {
  std::ofstream out(file_, std::ios::app);
  out << line << '\n';
  if (!out.flush()) throw_file_error("write", file_, errno);
}

void TrainLog::step(int64_t epoch, int64_t batch, const LossItems& items, const ScheduleValues& values) {
  nlohmann::ordered_json j = {{"event", "step"}, {"epoch", epoch}, {"batch", batch}, {"loss", loss_json(items)}};
  j["lr"] = values.lr;
  j["momentum"] = values.momentum;
  j["accumulate"] = values.accumulate;
  append(j.dump());
}

void TrainLog::epoch(const EpochRow& row, const ValidationResult* result, double images_per_s) {
  nlohmann::ordered_json j = {{"event", "epoch"}, {"epoch", row.epoch}, {"seconds", row.seconds}, {"loss", loss_json(row.train)}};
  if (result != nullptr) {
    j["val_loss"] = loss_json(row.val);
    auto metrics = to_json(*result);
    metrics.erase("classes");
    j["val"] = metrics;
  }
  j["images_per_s"] = images_per_s;
  j["rss_mib"] = resident_bytes() >> 20;
  j["peak_rss_mib"] = peak_resident_bytes() >> 20;
  append(j.dump());
  if (style_ == LogStyle::kJson) print_stderr("{}\n", j.dump());
}

}  // namespace tessera
