#include "yolo/config_values.h"

#include <algorithm>
#include <charconv>
#include <numeric>
#include <optional>
#include <string>
#include <string_view>

#include "tensor/base/check.h"

namespace tessera {

bool recompute_of(const Config& config, Device device) {
  const std::string choice = config.text("recompute");
  return choice == "auto" ? device == Device::cpu() : choice == "true";
}

namespace {

constexpr int32_t kLayers = 23;  // of the network, its head included (spec 1.2)

// Of "0,2,5" or "[0, 2, 5]"; nothing: not a list of whole numbers.
std::optional<std::vector<int32_t>> number_list(std::string_view list) {
  if (list.starts_with('[') && list.ends_with(']')) list = list.substr(1, list.size() - 2);
  std::vector<int32_t> out;
  for (const char *p = list.data(), *end = p + list.size(); p < end;) {
    int32_t id = 0;
    const auto [next, failed] = std::from_chars(p, end, id);
    if (failed != std::errc() || (next < end && *next != ',' && *next != ' ')) return std::nullopt;
    out.push_back(id);
    p = next < end ? next + 1 : end;
    while (p < end && *p == ' ') ++p;
  }
  return out;
}

}  // namespace

std::vector<int32_t> classes_of(const Config& config) {
  const std::string& text = config.text("classes");
  const auto list = number_list(text);
  if (!list) {
    throw Error(ErrorCode::kUsage, fmt::format("classes={}: expected class numbers separated by commas", text), {},
                "for example --classes 0,2,5");
  }
  return *list;
}

std::vector<int32_t> frozen_layers_of(const Config& config) {
  const std::string& text = config.text("freeze");
  auto list = number_list(text);
  const bool counted = list && list->size() == 1 && text.find_first_of("[,") == std::string::npos;
  const auto fits = [&](int32_t n) { return n >= 0 && n < kLayers + (counted ? 1 : 0); };
  if (!list || !std::all_of(list->begin(), list->end(), fits)) {
    throw Error(
        ErrorCode::kUsage, fmt::format("freeze={}: expected how many layers, or a list of them", text), {},
        fmt::format("the layers are 0 to {}: --freeze 10 for the first ten, --freeze 0,2,22 or [9] for single ones", kLayers - 1));
  }
  if (counted) {
    list->resize(size_t(list->front()));
    std::iota(list->begin(), list->end(), 0);
  }
  return *list;
}

DType compute_type_of(const Config& config) {
  const std::string& name = config.text("precision");
  if (name == "fp16" && config.text("device") == "cpu") {
    throw Error(ErrorCode::kUsage, "--precision fp16 is for a GPU: the CPU computes in fp32 or bf16", {},
                "use --precision bf16, or --device cuda");
  }
  return name == "bf16" ? DType::kBF16 : name == "fp16" ? DType::kF16 : DType::kF32;
}

Device device_of(const Config& config, int local_rank, int local_size) {
  std::string_view name = config.text("device");
  if (name.starts_with('[') && name.ends_with(']')) name = name.substr(1, name.size() - 2);
  if (name == "cpu") return Device::cpu();
  if (name == "cuda") return Device::cuda(local_rank);
  std::vector<int> indices;
  const char *p = name.data(), *const end = p + name.size();
  for (int index = 0;; ++p) {
    const auto [next, failed] = std::from_chars(p, end, index);
    if (failed != std::errc() || (next != end && *next != ',')) {
      throw Error(ErrorCode::kUsage,
                  fmt::format("device '{}' is not there: expected cpu, cuda or the number of one CUDA device", name), {},
                  "use --device cpu; tessera info says what there is");
    }
    indices.push_back(index);
    p = next;
    if (p == end) break;
  }
  if (int(indices.size()) != local_size) {
    throw Error(ErrorCode::kUsage,
                fmt::format("device '{}' names {} device{} for {} process{}", name, indices.size(), indices.size() == 1 ? "" : "s",
                            local_size, local_size == 1 ? "" : "es"),
                {}, fmt::format("one process for each device: mpirun -n {} train_seg --device {} ...", indices.size(), name));
  }
  return Device::cuda(indices[size_t(local_rank)]);
}

}  // namespace tessera
