// Reads Python pickles (protocols 2 to 5) as inert data. A pickle is a program for a small stack machine that may call anything;
// here nothing is imported or called. Tensors, containers, numbers and strings become values; every other class becomes a
// record of its name, arguments and state that can be looked at. A pickle that names a function made to run code is refused.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tensor/tensor.h"

namespace tessera {

struct PickleValue {
  enum class Kind : uint8_t {
    kNone,
    kBool,         // integer
    kInt,          // integer
    kFloat,        // number
    kString,       // text (UTF-8)
    kBytes,        // text
    kTuple,        // items
    kList,         // items
    kSet,          // items
    kDict,         // items: key, value, key, value, ...
    kGlobal,       // a class or function: text = "module.name"
    kObject,       // an instance or result: text = "module.name" of its class or function, items = arguments, state
    kStorage,      // text = key in the archive, integer = elements; type
    kTensor,       // tensor
    kUnsupported,  // a tensor that cannot be represented: text = why
  };
  Kind kind = Kind::kNone;
  DType type = DType::kF32;
  int64_t integer = 0;
  double number = 0;
  std::string text;
  std::vector<PickleValue*> items;
  PickleValue* state = nullptr;    // what __setstate__ would have received (kObject, or attributes of a kDict)
  PickleValue* entries = nullptr;  // kObject that is also a dict or list: its entries
  const Tensor* tensor = nullptr;

  bool is(Kind k) const { return kind == k; }
  bool is_none() const { return kind == Kind::kNone; }
  bool is_number() const { return kind == Kind::kBool || kind == Kind::kInt || kind == Kind::kFloat; }
  double as_number() const { return kind == Kind::kFloat ? number : double(integer); }
  // Value of a string key of a kDict, or of an attribute in the state dict of a kObject; null when absent.
  const PickleValue* find(std::string_view key) const;
};

// Owns every value: they may refer to each other in circles, so none owns another.
class Pickle {
 public:
  const PickleValue& root() const { return *root_; }

 private:
  friend class Unpickler;
  std::deque<PickleValue> values_;
  std::deque<Tensor> tensors_;
  PickleValue* root_ = nullptr;
};

// The bytes of one tensor storage of the archive by its key; null when there is none. Kept alive by the tensors.
struct StorageBytes {
  std::shared_ptr<std::byte> data;
  size_t size = 0;
};
using StorageLookup = std::function<const StorageBytes*(const std::string& key)>;

// Runs the pickle. `file` is named in messages. Error(kData): damaged, truncated, beyond the limits (a million values, 64 MiB), or
// naming code ("holds code (posix.system)"). Tensors wrap the storages.
Pickle read_pickle(std::span<const std::byte> bytes, const StorageLookup& storages, const std::string& file);

// The value as JSON text: strings quoted, None null, tuples and sets as lists, keys as text, tensors and objects as
// "<name>". Nesting beyond 32 levels is cut to "...".
std::string to_json_text(const PickleValue& value);

}  // namespace tessera
