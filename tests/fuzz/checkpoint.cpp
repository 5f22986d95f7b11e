// A .safetensors file: as a plain one from memory, as a checkpoint from the disk.
#include "nn/io/checkpoint.h"

#include "tests/fuzz/fuzz.h"

using namespace tessera;

namespace {

void read_all(const StateDict& tensors) {
  for (const auto& [name, tensor] : tensors) tensor.contiguous().to(DType::kF64).to_vector<double>();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string file = fuzz::file_with("last.safetensors", data, size);
  fuzz::takes_or_refuses(file, [&] { read_all(read_safetensors(file, FileMemory::kCopied).tensors); });
  fuzz::takes_or_refuses(file, [&] {
    const Checkpoint read = load_checkpoint(file);
    read_all(read.model);
    for (const auto& [name, section] : read.sections) read_all(section);
  });
  return 0;
}
