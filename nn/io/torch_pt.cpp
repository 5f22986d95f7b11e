#include "nn/io/torch_pt.h"

#include <algorithm>
#include <unordered_set>
#include <utility>

namespace tessera {

namespace {

using Kind = PickleValue::Kind;

constexpr int kMaxModuleDepth = 64;
constexpr size_t kMaxEntries = 200'000;

bool present(const PickleValue* value) { return value != nullptr && !value->is_none(); }

class Decoder {
 public:
  Decoder(const TorchArchive& archive, const TorchOptions& options) : archive_(archive), options_(options) {
    for (const auto& [key, storage] : archive.storages) stored_bytes_ += storage.size;
  }

  TorchFile decode(const PickleValue& root) {
    const PickleValue* weights = choose(root);
    if (present(weights->find("_modules"))) {
      walk_module(*weights, "", 0);
      describe_module(*weights);
    } else {
      const PickleValue* dict = weights->is(Kind::kObject) && weights->entries != nullptr ? weights->entries : weights;
      if (dict->is(Kind::kDict)) walk_dict(*dict);
    }
    if (result_.tensors.empty()) fail("holds no weights");
    if (root.is(Kind::kDict)) read_training_keys(root);
    return std::move(result_);
  }

 private:
  [[noreturn]] void fail(const std::string& message) const {
    throw Error(ErrorCode::kData, message, {archive_.file},
                "expected a checkpoint of the original trainer or a state dict of tensors");
  }

  const PickleValue* choose(const PickleValue& root) {
    if (root.is(Kind::kDict)) {
      for (const char* key : {"ema", "model", "state_dict"}) {
        const PickleValue* value = root.find(key);
        if (!present(value) || value->is(Kind::kTensor)) continue;
        result_.used = key;
        return value;
      }
    }
    return &root;
  }

  // --- weights -----------------------------------------------------------------------------------------------------------------
  void add(const std::string& name, const PickleValue& value) {
    if (value.is(Kind::kUnsupported)) fail(fmt::format("entry '{}': {}", name, value.text));
    if (!value.is(Kind::kTensor)) fail(fmt::format("entry '{}' is not a tensor that can be read", name));
    if (result_.tensors.contains(name)) fail(fmt::format("entry '{}' occurs twice", name));
    Tensor tensor = *value.tensor;
    // Entries may share a storage, but a small file must not unfold into many large ones.
    used_bytes_ += size_t(tensor.numel()) * size_of(tensor.dtype());
    if (used_bytes_ > 16 * stored_bytes_ || result_.tensors.size() >= kMaxEntries) fail("its entries share storages beyond reason");
    if (options_.to_f32 && (tensor.dtype() == DType::kF16 || tensor.dtype() == DType::kBF16)) tensor = tensor.to(DType::kF32);
    result_.tensors.add(name, std::move(tensor));
  }

  // Order of PyTorch's Module.state_dict(): own parameters, own persistent buffers, then the children in order of registration.
  void walk_module(const PickleValue& module, const std::string& prefix, int depth) {
    if (depth > kMaxModuleDepth || ++modules_ > kMaxEntries) fail("its modules are nested beyond reason");
    each(module.find("_parameters"), [&](const std::string& name, const PickleValue& value) {
      if (!value.is_none()) add(prefix + name, value);
    });
    const PickleValue* transient = module.find("_non_persistent_buffers_set");
    each(module.find("_buffers"), [&](const std::string& name, const PickleValue& value) {
      const bool kept = transient == nullptr || std::none_of(transient->items.begin(), transient->items.end(),
                                                             [&](const PickleValue* item) { return item->text == name; });
      if (!value.is_none() && kept) add(prefix + name, value);
    });
    each(module.find("_modules"), [&](const std::string& name, const PickleValue& value) {
      if (!value.is_none()) walk_module(value, prefix + name + ".", depth + 1);
    });
  }

  template <class Visit>
  void each(const PickleValue* dict, Visit visit) const {
    if (dict == nullptr || dict->is_none()) return;
    if (!dict->is(Kind::kDict)) fail("a module's parts are not in a dict");
    for (size_t i = 0; i + 1 < dict->items.size(); i += 2) {
      if (!dict->items[i]->is(Kind::kString)) fail("a module's part has no name");
      visit(dict->items[i]->text, *dict->items[i + 1]);
    }
  }

  // A bare state dict; entries that are no tensors (counters, versions) are left out.
  void walk_dict(const PickleValue& dict) {
    for (size_t i = 0; i + 1 < dict.items.size(); i += 2) {
      const PickleValue& value = *dict.items[i + 1];
      if (dict.items[i]->is(Kind::kString) && (value.is(Kind::kTensor) || value.is(Kind::kUnsupported)))
        add(dict.items[i]->text, value);
    }
  }

  // --- descriptions: what is missing or of another kind stays empty
  // ---------------------------------------------------------------
  void describe_module(const PickleValue& module) {
    result_.model_class = module.text;
    if (const PickleValue* layers = module.find("_modules"); layers->find("model") != nullptr) {
      const PickleValue* sequence = layers->find("model")->find("_modules");
      if (present(sequence) && sequence->items.size() >= 2) result_.head_class = sequence->items.back()->text;
    }
    if (const PickleValue* yaml = module.find("yaml"); present(yaml)) {
      result_.yaml = to_json_text(*yaml);
      if (const PickleValue* scale = yaml->find("scale"); present(scale)) result_.scale = scale->text;
      read_int(yaml->find("nc"), result_.nc);
    }
    read_int(module.find("nc"), result_.nc);
    if (const PickleValue* names = module.find("names"); present(names)) read_names(*names);
    if (const PickleValue* stride = module.find("stride"); present(stride)) read_stride(*stride);
  }

  void read_names(const PickleValue& names) {
    if (names.is(Kind::kList) || names.is(Kind::kTuple)) {
      for (size_t i = 0; i < names.items.size(); ++i) result_.names[int64_t(i)] = names.items[i]->text;
    } else if (names.is(Kind::kDict)) {
      for (size_t i = 0; i + 1 < names.items.size(); i += 2)
        if (names.items[i]->is(Kind::kInt)) result_.names[names.items[i]->integer] = names.items[i + 1]->text;
    }
  }

  void read_stride(const PickleValue& stride) {
    if (stride.is(Kind::kTensor) && stride.tensor->numel() <= 16) {
      result_.stride = stride.tensor->to(DType::kF64).to_vector<double>();
    } else {
      for (const PickleValue* item : stride.items)
        if (item->is_number()) result_.stride.push_back(item->as_number());
    }
  }

  static void read_int(const PickleValue* value, std::optional<int64_t>& out) {
    if (value != nullptr && value->is(Kind::kInt)) out = value->integer;
  }

  void read_training_keys(const PickleValue& root) {
    read_int(root.find("epoch"), result_.epoch);
    read_int(root.find("updates"), result_.updates);
    if (const PickleValue* fitness = root.find("best_fitness"); fitness != nullptr && fitness->is_number())
      result_.best_fitness = fitness->as_number();
    if (const PickleValue* version = root.find("version"); version != nullptr) result_.version = version->text;
    if (const PickleValue* date = root.find("date"); date != nullptr) result_.date = date->text;
    const PickleValue* arguments = root.find("train_args");
    if (arguments == nullptr || !arguments->is(Kind::kDict)) return;
    for (size_t i = 0; i + 1 < arguments->items.size(); i += 2) {
      const PickleValue& value = *arguments->items[i + 1];
      result_.train_args[arguments->items[i]->text] = value.is(Kind::kString) ? value.text : to_json_text(value);
    }
  }

  const TorchArchive& archive_;
  TorchOptions options_;
  TorchFile result_;
  size_t stored_bytes_ = 0, used_bytes_ = 0, modules_ = 0;
};

}  // namespace

TorchFile read_torch_pt(const std::filesystem::path& path, const TorchOptions& options) {
  return decode_torch(read_torch_archive(path), options);
}

TorchFile decode_torch(const TorchArchive& archive, const TorchOptions& options) {
  const StorageLookup lookup = [&](const std::string& key) {
    const auto it = archive.storages.find(key);
    return it == archive.storages.end() ? nullptr : &it->second;
  };
  const Pickle pickle = read_pickle(std::as_bytes(std::span(archive.pickle)), lookup, archive.file);
  return Decoder(archive, options).decode(pickle.root());
}

}  // namespace tessera
