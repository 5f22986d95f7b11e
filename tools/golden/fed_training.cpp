// Trains on batches that another framework drew, to compare trainings on the very same numbers (docs/parity.md):
//
//   fed_training FOLDER name=value ...            the arguments of `tessera train`
//
// FOLDER/epoch<e>.safetensors holds the batches as training_batches writes them; original_batches.py records those of the original,
// with its initial weights: model=FOLDER/initial.pt.
#include <filesystem>

#include "nn/io/safetensors.h"
#include "tensor/base/check.h"
#include "tensor/cpu/install.h"
#include "tools/golden/train_config.h"
#include "yolo/train/trainer.h"

namespace tessera {

namespace {

// Puts the recorded batches in the place of drawn ones.
class Feed {
 public:
  explicit Feed(std::filesystem::path folder) : folder_(std::move(folder)) {}

  void operator()(int64_t epoch, int64_t index, Batch& batch) {
    if (epoch_ != epoch) tensors_ = read_safetensors(folder_ / fmt::format("epoch{}.safetensors", epoch)).tensors;
    epoch_ = epoch;
    batch.images = tensors_.at(fmt::format("{}.images", index));
    batch.masks = tensors_.at(fmt::format("{}.masks", index)).to(DType::kI32);
    batch.targets.clear();
    batch.target_image.clear();
    const Tensor rows = tensors_.at(fmt::format("{}.targets", index));
    constexpr int64_t kColumns = 6;
    for (int64_t t = 0; t < rows.size(0); ++t) {
      const float* row = rows.data<float>() + t * kColumns;
      batch.target_image.push_back(int32_t(row[0]));
      batch.targets.push_back({int32_t(row[1]), {row[2], row[3], row[4], row[5]}});
    }
  }

 private:
  std::filesystem::path folder_;
  int64_t epoch_ = -1;
  StateDict tensors_;
};

}  // namespace

}  // namespace tessera

int main(int argc, char** argv) {
  using namespace tessera;
  try {
    install_cpu_backends();
    const Config config = train_config(argc, argv);
    Trainer trainer(config, LogStyle::kLines);
    trainer.on_batch = Feed(argv[1]);
    fmt::print("{}\n", trainer.fit().run_folder.string());
  } catch (const std::exception& e) {
    fmt::print(stderr, "error: {}\n", e.what());
    return 1;
  }
}
