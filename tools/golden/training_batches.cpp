// Writes what a training run would see, so that another framework can be trained on the very same numbers (docs/parity.md):
//
//   training_batches FOLDER name=value ...        the arguments of `tessera train`
//
// FOLDER/initial.safetensors   the weights before the first step, names and layout of the original's state dict
// FOLDER/epoch<e>.safetensors  for each batch b: `<b>.images` u8 (N, H, W, 3) RGB; `<b>.targets` f32 (T, 6): image, class, centre x,
//                              centre y, width, height in fractions; `<b>.masks` u8 (N, mh, mw): position of the target + 1
#include <filesystem>

#include "data/loader.h"
#include "nn/io/safetensors.h"
#include "tensor/base/check.h"
#include "tensor/cpu/install.h"
#include "tools/golden/train_config.h"
#include "yolo/io/ultralytics_names.h"
#include "yolo/io/weights.h"
#include "yolo/train/training_data.h"

namespace tessera {

namespace {

Tensor target_rows(const Batch& batch) {
  constexpr int64_t kColumns = 6;
  Tensor rows = Tensor::empty({int64_t(batch.targets.size()), kColumns});
  float* out = rows.data<float>();
  for (size_t i = 0; i < batch.targets.size(); ++i) {
    *out++ = float(batch.target_image[i]);
    *out++ = float(batch.targets[i].class_id);
    for (const float v : batch.targets[i].box) *out++ = v;
  }
  return rows;
}

void write_batches(const std::filesystem::path& folder, const Config& config) {
  std::filesystem::create_directories(folder);
  const auto data = open_split(config, "train", true, LogStyle::kLines);
  const LoadedModel model = load_model(config.text("model"), {int64_t(data->names().size()), "", uint64_t(config.integer("seed"))});
  write_safetensors(folder / "initial.safetensors", to_file_layout(model.model->state_dict()));

  LoaderOptions options;
  options.batch = config.integer("batch");
  options.threads = int(config.integer("workers"));
  options.shuffle = true;
  Loader loader(*data, options);
  for (int epoch = 0; epoch < config.integer("epochs"); ++epoch) {
    loader.start_epoch(epoch);
    StateDict all;
    int64_t b = 0;
    for (Batch batch; loader.next(batch); ++b) {
      TESSERA_CHECK(batch.overlap, "training_batches: only overlap masks are written");
      all.add(fmt::format("{}.images", b), batch.images);
      all.add(fmt::format("{}.targets", b), target_rows(batch));
      all.add(fmt::format("{}.masks", b), batch.masks.to(DType::kU8));
    }
    write_safetensors(folder / fmt::format("epoch{}.safetensors", epoch), all);
  }
}

}  // namespace

}  // namespace tessera

int main(int argc, char** argv) {
  using namespace tessera;
  try {
    install_cpu_backends();
    const Config config = train_config(argc, argv);
    write_batches(argv[1], config);
  } catch (const std::exception& e) {
    fmt::print(stderr, "error: {}\n", e.what());
    return 1;
  }
}
