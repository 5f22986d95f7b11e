// A whole .pt file.
#include "nn/io/torch_pt.h"

#include "tests/fuzz/fuzz.h"

using namespace tessera;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string file = fuzz::file_with("model.pt", data, size);
  fuzz::takes_or_refuses(file, [&] {
    for (const auto& [name, tensor] : read_torch_pt(file, {.to_f32 = true}).tensors) {
      tensor.contiguous().to(DType::kF64).to_vector<double>();
    }
  });
  return 0;
}
