// What a resumed run finds in its folder: results.csv, the log, and the arguments and progress in a checkpoint's metadata. The
// first byte says which of them the rest is.
#include <nlohmann/json.hpp>

#include "nn/io/checkpoint.h"
#include "tests/fuzz/fuzz.h"
#include "yolo/io/weights.h"
#include "yolo/train/best_epoch.h"
#include "yolo/train/event_file.h"
#include "yolo/train/results_csv.h"
#include "yolo/train/resumed_config.h"
#include "yolo/train/train_log.h"
#include "yolo/train/train_state.h"

using namespace tessera;

namespace {

void read_csv(std::string_view text) {
  const ResultsCsv csv(fuzz::file_with("results.csv", text), 1 << 20);
  for (const EpochRow& row : csv.rows()) {
    fuzz::require(row.epoch >= 1 && row.epoch <= 1 << 20, "an epoch that is kept");
    scalars_record(row, 0);
  }
}

void read_log(std::string_view text) { TrainLog(fuzz::file_with("log.jsonl", text), LogStyle::kQuiet, 3, 10); }

void read_checkpoint(std::string_view meta) {
  StateDict tensors;
  tensors.add("model.0.conv.weight", Tensor::zeros({1}));
  tensors.add("arena/values.0", Tensor::zeros({1}));
  const std::filesystem::path file = fuzz::folder() / "last.safetensors";
  try {
    write_safetensors(file, tensors, {{"format", "pt"}, {"tessera", std::string(meta)}});
  } catch (const nlohmann::json::exception&) {
    return;  // not UTF-8, which no such file holds
  }
  fuzz::takes_or_refuses(file.string(),
                         [&] {
                           const Checkpoint c = load_to_resume(file);
                           spec_of_checkpoint(c, file.string());
                           progress_of(c.meta);
                           describe_training(c.meta);
                           compare_classes({"cat", "dog"}, c.meta, file);
                           resumed_config(Config(kTrain), c.meta.args, file);
                         },
                         {ErrorCode::kData, ErrorCode::kUsage});  // of a device that is not the one that is asked for
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view rest = fuzz::text_of(data + 1, size - 1);
  switch (data[0] % 3) {
    case 0: read_csv(rest); break;
    case 1: read_log(rest); break;
    default: read_checkpoint(rest); break;
  }
  return 0;
}
