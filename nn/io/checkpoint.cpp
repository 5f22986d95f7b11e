#include "nn/io/checkpoint.h"

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

namespace tessera {

namespace {

using nlohmann::json;

constexpr int64_t kFormat = 1;
constexpr const char* kMetaKey = "tessera";

// JSON has no infinities and no NaN.
json number_to_json(double x) {
  if (std::isfinite(x)) return x;
  return std::isnan(x) ? "nan" : x > 0 ? "inf" : "-inf";
}

double number_from_json(const json& value) {
  if (!value.is_string()) return value.get<double>();
  const auto text = value.get<std::string>();
  const double infinity = std::numeric_limits<double>::infinity();
  return text == "inf" ? infinity : text == "-inf" ? -infinity : std::numeric_limits<double>::quiet_NaN();
}

// get<int64_t>() would also take fractions and numbers beyond 64 bits, of which the conversion is undefined.
int64_t whole(const json& value) { return value.get_ref<const json::number_integer_t&>(); }

std::string to_text(const CheckpointMeta& meta) {
  json numbers = json::object();
  for (const auto& [name, value] : meta.numbers) numbers[name] = number_to_json(value);
  const json object = {{"format", kFormat},
                       {"task", meta.task},
                       {"scale", meta.scale},
                       {"model_yaml", meta.model_yaml},
                       {"nc", meta.nc},
                       {"class_names", meta.class_names},
                       {"epoch", meta.epoch},
                       {"step", meta.step},
                       {"best_fitness", number_to_json(meta.best_fitness)},
                       {"best_epoch", meta.best_epoch},
                       {"args", meta.args},
                       {"counters", meta.counters},
                       {"numbers", numbers}};
  return object.dump(-1, ' ', false, json::error_handler_t::replace);
}

CheckpointMeta parse_meta(const std::string& text, const std::string& file) {
  const auto fail = [&](const std::string& message, const std::string& hint) -> void {
    throw Error(ErrorCode::kData, message, {file}, hint);
  };
  CheckpointMeta meta;
  try {
    const json object = json::parse(text);
    meta.format = whole(object.at("format"));
    if (meta.format > kFormat)
      fail(fmt::format("checkpoint format {} is newer than this program, which reads up to {}", meta.format, kFormat),
           "use the version that wrote it, or a newer one");
    meta.task = object.at("task").get<std::string>();
    meta.scale = object.at("scale").get<std::string>();
    meta.model_yaml = object.value("model_yaml", std::string());
    meta.nc = whole(object.at("nc"));
    meta.class_names = object.at("class_names").get<std::vector<std::string>>();
    meta.epoch = whole(object.at("epoch"));
    meta.step = whole(object.at("step"));
    meta.best_fitness = number_from_json(object.at("best_fitness"));
    meta.best_epoch = whole(object.at("best_epoch"));
    meta.args = object.at("args").get<std::map<std::string, std::string>>();
    for (const auto& [name, value] : object.at("counters").get_ref<const json::object_t&>()) meta.counters[name] = whole(value);
    for (const auto& [name, value] : object.at("numbers").get_ref<const json::object_t&>())
      meta.numbers[name] = number_from_json(value);
  } catch (const json::exception& e) {
    fail(fmt::format("the training state in the metadata cannot be read ({})", e.what()),
         "the file was changed by another program; use its weights as a model");
  }
  const auto is_epoch = [](int64_t n) { return n >= -1 && n <= kMostEpochs; };
  if (meta.format < 1 || meta.nc < 0 || meta.step < 0 || !is_epoch(meta.epoch) || !is_epoch(meta.best_epoch) ||
      (!meta.class_names.empty() && int64_t(meta.class_names.size()) != meta.nc))
    fail("the training state in the metadata contradicts itself",
         "the file was changed by another program; use its weights as a model");
  return meta;
}

}  // namespace

const StateDict& Checkpoint::section(const std::string& name, const std::string& file) const {
  const auto it = sections.find(name);
  if (it == sections.end())
    throw Error(ErrorCode::kData, fmt::format("holds no training state '{}'", name), {file},
                "it is a model for use or fine-tuning; resume from the last.safetensors of the run");
  return it->second;
}

void save_checkpoint(const std::filesystem::path& path, const Checkpoint& checkpoint) {
  StateDict all;
  for (const auto& [name, tensor] : checkpoint.model) {
    TESSERA_CHECK(name.find('/') == std::string::npos, "checkpoint: model entry '{}' holds a '/'", name);
    all.add(name, tensor);
  }
  for (const auto& [section, state] : checkpoint.sections) {
    TESSERA_CHECK(!section.empty() && section.find('/') == std::string::npos, "checkpoint: '{}' is no section name", section);
    for (const auto& [name, tensor] : state) all.add(section + "/" + name, tensor);
  }
  // "format": "pt" is what other readers look for to take the weights as those of a PyTorch model.
  write_safetensors(path, all, {{"format", "pt"}, {kMetaKey, to_text(checkpoint.meta)}});
}

Checkpoint load_checkpoint(const std::filesystem::path& path, FileMemory memory) {
  const std::string file = path.string();
  const Safetensors content = read_safetensors(path, memory);
  Checkpoint checkpoint;
  if (const auto it = content.metadata.find(kMetaKey); it != content.metadata.end()) checkpoint.meta = parse_meta(it->second, file);
  for (const auto& [name, tensor] : content.tensors) {
    const size_t slash = name.find('/');
    StateDict& target = slash == std::string::npos ? checkpoint.model : checkpoint.sections[name.substr(0, slash)];
    target.add(slash == std::string::npos ? name : name.substr(slash + 1), tensor);
  }
  if (checkpoint.model.empty())
    throw Error(ErrorCode::kData, "holds no model weights", {file}, "expected a .safetensors model or checkpoint");
  return checkpoint;
}

}  // namespace tessera
