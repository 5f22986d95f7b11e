// A few thousand damaged model files: each is read or refused with its name and a remedy.
#include "tests/support/damage.h"

#include <fstream>

#include "nn/io/checkpoint.h"
#include "nn/io/torch_pt.h"
#include "tensor/base/file.h"
#include "tests/nn/io_helpers.h"

using namespace tessera;
using namespace std::string_literals;
using testing::Damage;
using testing::takes_or_refuses;
using testing::Verdicts;

namespace {

void replace_file(const std::filesystem::path& path, const std::string& bytes) {
  std::filesystem::remove(path);  // truncating would flush to the disk
  std::ofstream(path, std::ios::binary) << bytes;
}

// Every value is read, so that a tensor that reaches out of its memory shows.
double sum_of(const StateDict& tensors) {
  double sum = 0;
  for (const auto& [name, tensor] : tensors)
    for (const double x : tensor.contiguous().to(DType::kF64).to_vector<double>()) sum += x;
  return sum;
}

}  // namespace

TEST_CASE("damage: checkpoints are read or refused by name") {
  const TempFolder folder;
  Checkpoint c;
  c.meta.task = "segment", c.meta.scale = "n", c.meta.nc = 2, c.meta.class_names = {"cat", "dog"};
  c.meta.epoch = 3, c.meta.step = 40, c.meta.best_fitness = 0.5, c.meta.best_epoch = 2;
  c.meta.args = {{"epochs", "9"}, {"data", "a.yaml"}};
  c.meta.counters = {{"progress.batch", 3}};
  c.meta.numbers = {{"progress.seconds", 1e300}, {"x", std::numeric_limits<double>::infinity()}};
  c.model.add("model.0.conv.weight", Tensor::full({2, 3, 1, 1}, 0.5f));
  c.model.add("model.0.bn.num_batches_tracked", Tensor::zeros({}, DType::kI64));
  c.sections["arena"].add("values.0", Tensor::full({7}, 2.f));
  c.sections["ema"].add("updates", Tensor::zeros({1}, DType::kI64));
  const std::filesystem::path file = folder / "last.safetensors";
  save_checkpoint(file, c);
  const std::string good = without_checksums(read_file(file));  // which would refuse nearly all, unread
  Damage damage(1, {"\"F64\"", "\"BOOL\"", "[]", "{}", "null", "true", "\\u0000", "\\ud800", ",\"x\":1", "\"dtype\":\"F32\"", "[0,4]", "/", "\""});
  Verdicts verdicts;
  for (int round = 0; round < 6000; ++round) {
    CAPTURE(round);
    replace_file(file, damage(good));
    takes_or_refuses(
        file.string(),
        [&] {
          const Checkpoint read = load_checkpoint(file);
          sum_of(read.model);
          for (const auto& [name, section] : read.sections) sum_of(section);
        },
        verdicts);
  }
  CHECK(verdicts.refused > 1000);
}

TEST_CASE("damage: .pt files are read or refused by name") {
  const TempFolder folder;
  const std::filesystem::path file = folder / "model.pt";
  for (const char* name : {"pt/checkpoint.pt", "pt/stripped.pt", "pt/state_dict.pt", "checkpoint/running.pt", "checkpoint/state_dict.pt"}) {
    CAPTURE(name);
    const std::string good = read_file(golden(name));
    TorchArchive archive = read_torch_archive(golden(name));
    archive.file = file.string();
    const std::string pickle = archive.pickle;
    const std::vector<std::string> words = {"\x8a\xff", "(", ".", "b", "R", "\x93", "\x94", "q\0"s, "h\0"s, "h\1", "}", "]", "\x85", "\x87", "0", "2", "Q", "K\xff", "J\xff\xff\xff\xff", "X\xff\xff\xff\x7f", "PK\1\2", "PK\3\4", "PK\5\6"};
    Damage damage(2, words);
    Verdicts in_archive, in_pickle;
    for (int round = 0; round < 1500; ++round) {
      CAPTURE(round);
      replace_file(file, damage(good));
      takes_or_refuses(file.string(), [&] { sum_of(read_torch_pt(file, {.to_f32 = true}).tensors); }, in_archive);
      archive.pickle = damage(pickle);
      takes_or_refuses(file.string(), [&] { sum_of(decode_torch(archive, {.to_f32 = true}).tensors); }, in_pickle);
    }
    CHECK(in_archive.refused > 300);
    CHECK(in_pickle.refused > 300);
    CHECK(in_pickle.taken > 10);
  }
}
