// A whole .onnx file: as a graph, and as a network that is run on images of its size.
#include "nn/io/onnx_graph.h"
#include "tests/fuzz/fuzz.h"
#include "yolo/io/onnx_network.h"

using namespace tessera;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (!fuzz::takes_or_refuses("a.onnx", [&] { parse_onnx(fuzz::text_of(data, size), "a.onnx", fuzz::folder()); })) return 0;
  const std::string file = fuzz::file_with("model.onnx", data, size);
  fuzz::takes_or_refuses(file, [&] {
    OnnxNetwork network(file);
    fuzz::require(network.nc() > 0, "a network has classes");
    const auto [height, width] =
        network.dynamic() ? std::array<int64_t, 2>{network.max_stride(), network.max_stride()} : network.size();
    constexpr int64_t kQuick = int64_t(1) << 14;  // pixels
    if (height * width * network.batch() > kQuick) return;
    network.place(Tensor::zeros({1, height, width, 3}, DType::kU8));
    network.run();
  });
  return 0;
}
