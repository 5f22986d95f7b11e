// Runs an ONNX file with our reader: run_onnx MODEL.onnx IN.safetensors OUT.safetensors. IN holds "images" (N, 3, H, W) in f32, OUT will
// hold the file's outputs by name. tools/golden/onnx_peers.py compares them with ONNX Runtime's. Also prints milliseconds, the median of
// five runs.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <vector>

#include "nn/io/safetensors.h"
#include "tensor/cpu/install.h"
#include "yolo/io/onnx_program.h"

using namespace tessera;

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  install_cpu_backends();
  try {
    const OnnxProgram program(read_onnx(argv[1]), argv[1]);
    const Tensor images = read_safetensors(argv[2]).tensors.at("images").permute({0, 2, 3, 1}).contiguous().permute({0, 3, 1, 2});
    std::vector<double> ms;
    std::vector<Tensor> outputs;
    for (int run = 0; run < 5; ++run) {
      const auto start = std::chrono::steady_clock::now();
      outputs = program.run(images);
      ms.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count());
    }
    std::sort(ms.begin(), ms.end());
    StateDict out;
    for (size_t i = 0; i < outputs.size(); ++i) out.add(program.graph().outputs[i].name, outputs[i].contiguous());
    write_safetensors(argv[3], out);
    fmt::print("{:.2f} ms\n", ms[2]);
    return 0;
  } catch (const Error& e) {
    fmt::print(stderr, "error: {}\n", e.what());
    return int(e.code());
  }
}
