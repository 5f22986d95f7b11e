// The pickle of a .pt file, with storages behind it as an archive would have them. Its keys are "0" to "31".
#include "nn/io/torch_pt.h"
#include "tests/fuzz/fuzz.h"

using namespace tessera;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const StorageBytes storage = [] {
    constexpr size_t kBytes = 4096;
    StorageBytes bytes{std::shared_ptr<std::byte>(new std::byte[kBytes](), std::default_delete<std::byte[]>()), kBytes};
    return bytes;
  }();
  TorchArchive archive;
  archive.file = "model.pt";
  archive.pickle.assign(reinterpret_cast<const char*>(data), size);
  for (int key = 0; key < 32; ++key) archive.storages.emplace(std::to_string(key), storage);
  fuzz::takes_or_refuses("model.pt", [&] {
    for (const auto& [name, tensor] : decode_torch(archive, {.to_f32 = true}).tensors) {
      tensor.contiguous().to(DType::kF64).to_vector<double>();  // a tensor that reaches out of its memory shows
    }
  });
  return 0;
}
