#include <sys/utsname.h>

#include <cstdio>
#include <fstream>

#include "cuda/install.h"
#include "data/download/fetch.h"
#include "nn/io/onnx_graph.h"
#include "tensor/backend.h"
#include "tensor/base/env.h"
#include "tensor/base/memory.h"
#include "tensor/base/parallel.h"
#include "tensor/comm.h"
#include "tensor/conv_choice.h"
#include "tensor/cpu/amx.h"
#include "tools/verbs/json_text.h"
#include "tools/verbs/verbs.h"

namespace tessera {

namespace {

std::string cpu_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  }
  return "unknown";
}

std::vector<std::string> cpu_features() {
  std::vector<std::string> found;
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2")) found.emplace_back("avx2");
  if (__builtin_cpu_supports("fma")) found.emplace_back("fma");
  if (__builtin_cpu_supports("avx512f")) found.emplace_back("avx512f");
  if (__builtin_cpu_supports("avx512bw")) found.emplace_back("avx512bw");
  if (__builtin_cpu_supports("avx512bf16")) found.emplace_back("avx512bf16");
  if (cpu::has_amx()) found.emplace_back("amx_bf16");
  return found;
}

// What --conv comes to on each device.
std::string conv_kernels() {
  const bool plain = conv_choice() == ConvChoice::kNaive;
  const std::string_view cpu = backend_for(Device::cpu()).name();
  const std::string tiled = fmt::format("register-tiled {}{}", cpu, conv_choice() == ConvChoice::kDirect ? "" : ", Winograd for 3x3");
  return fmt::format("cpu {}, cuda {}", plain || cpu == "ref" ? "plain loops" : tiled,
                     plain                                 ? "naive"
                     : conv_choice() == ConvChoice::kCudnn ? "cudnn, own where it refuses"
                                                           : "own");
}

}  // namespace

std::string made_by(const Config& config) {
  return fmt::format("tessera {}, on {}: {} threads of {}", TESSERA_VERSION, config.text("device"), compute_threads(), cpu_name());
}

int run_info(const Config& config) {
  utsname system{};
  uname(&system);
  nlohmann::ordered_json backends = nlohmann::ordered_json::array();
  for (Backend* b : available_backends()) backends.push_back(b->name());
  nlohmann::ordered_json switches;
  for (const EnvSwitch& s : env_switches()) {
    const auto value = env(s.name);
    switches[std::string(s.name)] = {{"value", value ? nlohmann::ordered_json(*value) : nlohmann::ordered_json()},
                                     {"meaning", s.meaning}};
  }
  const nlohmann::ordered_json j = {{"command", "info"},
                                    {"version", TESSERA_VERSION},
                                    {"build", TESSERA_BUILD_TYPE},
                                    {"compiler", "gcc-compatible " __VERSION__},
                                    {"system", fmt::format("{} {} {}", system.sysname, system.release, system.machine)},
                                    {"cpu", cpu_name()},
                                    {"cpu_features", cpu_features()},
                                    {"threads", compute_threads()},
                                    {"memory_available_mib", available_memory_bytes() >> 20},
                                    {"memory_limit", available_memory().what},
                                    {"backends", backends},
                                    {"active_backend", backend_for(Device::cpu()).name()},
                                    {"conv", std::string(name_of(conv_choice())) + ": " + conv_kernels()},
                                    {"cuda", describe_cuda()},
                                    {"mpi", describe_mpi()},
                                    {"nccl", describe_nccl()},
                                    {"onnx", describe_onnx()},
                                    {"download", describe_download()},
                                    {"environment", switches}};
  if (config.flag("json")) {
    print_json(j);
    return 0;
  }
  for (const auto& [key, value] : j.items()) {
    if (key == "command" || key == "environment") continue;
    std::string text = value.is_string() ? value.get<std::string>() : value.dump();
    fmt::print("{:<22} {}\n", key, text);
  }
  fmt::print("\nEnvironment switches\n");
  for (const EnvSwitch& s : env_switches()) {
    const auto value = env(s.name);
    fmt::print("  {:<22} {:<10} {}\n", s.name, value ? *value : "unset", s.meaning);
  }
  return 0;
}

}  // namespace tessera
