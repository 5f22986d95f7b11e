// A .safetensors file where --model takes one: entries renamed, reshaped, retyped and missing, and the description of the network
// in its metadata. (The file format itself: checkpoint.) Of the bytes, the first says what the entries are of, how many classes are
// asked for and whether another network takes the weights, the second how many entries are changed, by four bytes each, and whether
// what was read is written and read again; the rest is the metadata.
#include "yolo/io/weights.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "tests/fuzz/fuzz.h"

using namespace tessera;

namespace {

constexpr const char* kModel = R"(nc: 2
scales:
  n: [0.33, 0.0625, 256]
backbone:
  - [-1, 1, Conv, [64, 3, 2]]
  - [-1, 1, Conv, [128, 3, 2]]
  - [-1, 3, C2f, [128, True]]
  - [-1, 1, Conv, [256, 3, 2]]
  - [-1, 1, SPPF, [256, 5]]
head:
  - [-1, 1, nn.Upsample, [None, 2, "nearest"]]
  - [[-1, 2], 1, Concat, [1]]
  - [[0, 6, 4], 1, Segment, [nc, 4, 64]]
)";

// As a checkpoint holds them.
const StateDict& entries_of(bool small) {
  static const StateDict whole = [] {
    const std::string file = (fuzz::folder() / "whole.safetensors").string();
    YoloSeg model(parse_model_text(kModel, "net.yaml", "n", 2));
    model.init(1);
    save_model(file, model, {"cat", "dog"});
    return load_checkpoint(file, FileMemory::kCopied).model;
  }();
  // What the scale of a bare file is told by.
  static const StateDict told = [] {
    StateDict state;
    state.add("model.0.conv.weight", Tensor::zeros({16, 3, 3, 3}));
    state.add("model.1.conv.weight", Tensor::zeros({32, 16, 3, 3}));
    state.add("model.3.conv.weight", Tensor::zeros({64, 32, 3, 3}));
    state.add("model.22.cv3.0.2.weight", Tensor::zeros({2, 64, 1, 1}));
    return state;
  }();
  return small ? whole : told;
}

struct Change {
  uint16_t entry;
  uint8_t kind, how;
};

Tensor reshaped(const Tensor& t, uint8_t how) {
  std::vector<int64_t> sides;
  for (int i = 0; i < t.rank(); ++i) sides.push_back(t.size(i));
  switch (how % 6) {
    case 0: sides.assign(1, t.numel()); break;
    case 1: std::reverse(sides.begin(), sides.end()); break;
    case 2:
      if (sides.size() < 5) sides.push_back(1);
      break;
    case 3: sides.assign({0, 1, 2, 3}); break;
    case 4: sides.assign(size_t(how / 6 % 6), 1); break;
    default:
      if (!sides.empty()) sides[size_t(how / 6) % sides.size()] = how;
      break;
  }
  Shape shape;
  for (const int64_t n : sides) shape.push_back(n);
  return numel(shape) == t.numel() ? t.contiguous().view(shape) : Tensor::zeros(shape, t.dtype());
}

void change(std::vector<StateDict::Entry>& entries, const Change& c) {
  if (entries.empty()) return;
  const size_t i = c.entry % entries.size();
  StateDict::Entry& e = entries[i];
  constexpr DType kTypes[] = {DType::kF64, DType::kF16, DType::kBF16, DType::kI64, DType::kI32, DType::kU8, DType::kBool};
  switch (c.kind % 6) {
    case 0: entries.erase(entries.begin() + std::ptrdiff_t(i)); break;
    case 1: e.name = (c.how % 2 ? "module." : "model.") + e.name; break;
    case 2: entries.push_back({(c.how % 2 ? "module." : "model.") + e.name, e.tensor}); break;
    case 3: e.tensor = reshaped(e.tensor, c.how); break;
    case 4: e.tensor = e.tensor.to(kTypes[c.how % std::size(kTypes)]); break;
    default: std::swap(e.tensor, entries[c.how % entries.size()].tensor); break;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const StateDict& base = entries_of(data[0] % 2 == 0);
  std::vector<StateDict::Entry> entries(base.begin(), base.end());
  // 0: as the file says. Entries without a description stand for a network that takes long to make.
  const int64_t nc = data[0] % 2 ? 0 : data[0] / 2 % 5;
  const size_t changes = std::min<size_t>(data[1] % 8, (size - 2) / 4);
  for (size_t i = 0; i < changes; ++i) {
    const uint8_t* const c = data + 2 + 4 * i;
    change(entries, {uint16_t(c[0] | c[1] << 8), c[2], c[3]});
  }
  StateDict tensors;
  for (const StateDict::Entry& e : entries) tensors.set(e.name, e.tensor);
  const std::string_view meta = fuzz::text_of(data + 2 + 4 * changes, size - 2 - 4 * changes);
  const std::string file = (fuzz::folder() / "best.safetensors").string();
  std::map<std::string, std::string> metadata;
  if (!meta.empty()) metadata["tessera"] = std::string(meta);
  try {
    write_safetensors(file, tensors, metadata);
  } catch (const nlohmann::json::exception&) {
    return 0;  // not UTF-8, which no such file holds
  }
  const bool again = data[1] >= 128;
  const auto check = [&](LoadedModel loaded) {
    fuzz::require(int64_t(loaded.names.size()) == loaded.model->nc(), "each class has a name");
    fuzz::require(loaded.pretrained, "weights were read");
    if (!again) return;
    save_model((fuzz::folder() / "again.safetensors").string(), *loaded.model, loaded.names);
    load_model((fuzz::folder() / "again.safetensors").string());
  };
  ModelOptions options;
  options.nc = nc;
  static const std::string own = fuzz::file_with("net.yaml", kModel);
  const bool into_own = data[0] / 10 % 2 == 1;
  if (into_own) options.from = file;
  const auto answers = {ErrorCode::kData, ErrorCode::kUsage};  // more classes than are possible, a scale that is not there
  fuzz::takes_or_refuses(
      file, [&] { check(load_model(into_own ? own : file, options)); }, answers);
  return 0;
}
