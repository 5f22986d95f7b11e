#include "nn/io/pickle.h"

#include <algorithm>
#include <bit>
#include <charconv>
#include <cstring>
#include <nlohmann/json.hpp>
#include <unordered_map>
#include <utility>

#include "nn/io/pickle_globals.h"

namespace tessera {

namespace {

using Kind = PickleValue::Kind;

constexpr size_t kMaxBytes = size_t(64) << 20;
constexpr size_t kMaxValues = 1'000'000;
constexpr size_t kMaxCopies = 16'000'000;  // list entries that calls may copy: a few bytes can ask for the same long list again
constexpr int kMaxJsonDepth = 32;
constexpr int64_t kMaxJsonNodes = 200'000;  // values may contain each other many times over

const PickleValue* find_in_dict(const PickleValue* dict, std::string_view key) {
  if (dict == nullptr || !dict->is(Kind::kDict)) return nullptr;
  for (size_t i = dict->items.size(); i >= 2; i -= 2)  // from the end: the last of two equal keys counts
    if (dict->items[i - 2]->is(Kind::kString) && dict->items[i - 2]->text == key) return dict->items[i - 1];
  return nullptr;
}

// Protocol 2 writes bytes as _codecs.encode(text, "latin1").
std::string latin1_bytes(const std::string& utf8) {
  std::string bytes;
  for (size_t i = 0; i < utf8.size(); ++i) {
    const auto c = uint8_t(utf8[i]);
    const bool two = c >= 0xc2 && c <= 0xc3 && i + 1 < utf8.size();
    bytes.push_back(two ? char((c & 3) << 6 | (uint8_t(utf8[++i]) & 0x3f)) : char(c));
  }
  return bytes;
}

}  // namespace

const PickleValue* PickleValue::find(std::string_view key) const {
  if (is(Kind::kDict)) return find_in_dict(this, key);
  if (state != nullptr && state->is(Kind::kTuple)) {  // (attributes, slots)
    for (const PickleValue* part : state->items)
      if (const PickleValue* found = find_in_dict(part, key)) return found;
    return nullptr;
  }
  return find_in_dict(state, key);
}

// The stack machine (the opcodes are described in Python's Lib/pickletools.py).
class Unpickler {
 public:
  Unpickler(std::span<const std::byte> bytes, const StorageLookup& storages, const std::string& file)
      : bytes_(bytes), storages_(storages), file_(file) {}

  Pickle run() {
    if (bytes_.size() > kMaxBytes) fail(fmt::format("{} bytes are more than a model's description takes", bytes_.size()));
    while (!step(char(take(1)[0]))) {
    }
    return std::move(result_);
  }

 private:
  [[noreturn]] void fail(const std::string& message) const {
    throw Error(ErrorCode::kData, fmt::format("damaged pickle, byte {}: {}", position_, message), {file_},
                "copy or download the file again");
  }

  // --- input -------------------------------------------------------------------------------------------------------------------
  std::span<const std::byte> take(uint64_t n) {
    if (n > bytes_.size() - position_) fail("ends too early");
    const auto part = bytes_.subspan(position_, size_t(n));
    position_ += size_t(n);
    return part;
  }
  template <class T>
  T number() {
    T value;
    std::memcpy(&value, take(sizeof(T)).data(), sizeof(T));
    return value;
  }
  std::string text(uint64_t n) {
    const auto part = take(n);
    return {reinterpret_cast<const char*>(part.data()), part.size()};
  }
  std::string line() {
    const auto* begin = reinterpret_cast<const char*>(bytes_.data()) + position_;
    const void* end = std::memchr(begin, '\n', bytes_.size() - position_);
    if (end == nullptr) fail("ends too early");
    std::string content = text(uint64_t(static_cast<const char*>(end) - begin));
    ++position_;
    return content;
  }
  template <class T>
  T parse(std::string content) {
    if (!content.empty() && content.back() == 'L') content.pop_back();
    T value{};
    const auto [end, error] = std::from_chars(content.data(), content.data() + content.size(), value);
    if (error != std::errc() || end != content.data() + content.size()) fail(fmt::format("'{}' is not a number in range", content));
    return value;
  }

  // --- values and stack --------------------------------------------------------------------------------------------------------
  PickleValue* make(Kind kind) {
    if (result_.values_.size() >= kMaxValues) fail(fmt::format("more than {} values", kMaxValues));
    PickleValue& value = result_.values_.emplace_back();
    value.kind = kind;
    return &value;
  }
  PickleValue* make_text(Kind kind, std::string content) {
    PickleValue* value = make(kind);
    value->text = std::move(content);
    return value;
  }
  PickleValue* make_list(Kind kind, std::vector<PickleValue*> items) {
    PickleValue* value = make(kind);
    value->items = std::move(items);
    return value;
  }
  PickleValue* make_int(int64_t i, Kind kind = Kind::kInt) {
    PickleValue* value = make(kind);
    value->integer = i;
    return value;
  }
  PickleValue* make_float(double x) {
    PickleValue* value = make(Kind::kFloat);
    value->number = x;
    return value;
  }
  // Two's complement, little-endian, any length; those beyond 64 bits stay opaque.
  PickleValue* make_long(uint64_t length) {
    const auto part = take(length);
    if (length > 8) return make_text(Kind::kObject, "builtins.int");
    uint64_t value = length > 0 && std::to_integer<int>(part.back()) >= 0x80 ? ~uint64_t(0) : 0;
    for (size_t i = part.size(); i > 0; --i) value = value << 8 | std::to_integer<uint64_t>(part[i - 1]);
    return make_int(int64_t(value));
  }
  void push(PickleValue* value) { stack_.push_back(value); }
  size_t bottom() const { return marks_.empty() ? 0 : marks_.back(); }
  PickleValue* pop() {
    PickleValue* value = top();
    stack_.pop_back();
    return value;
  }
  PickleValue* top() {
    if (stack_.size() <= bottom()) fail("takes a value from an empty stack");
    return stack_.back();
  }
  std::vector<PickleValue*> pop_to_mark() {
    if (marks_.empty()) fail("looks for a mark that was never set");
    const auto first = stack_.begin() + std::ptrdiff_t(marks_.back());
    std::vector<PickleValue*> items(first, stack_.end());
    stack_.erase(first, stack_.end());
    marks_.pop_back();
    return items;
  }
  std::vector<PickleValue*> pop_last(size_t n) {
    std::vector<PickleValue*> items(n);
    for (size_t i = n; i > 0; --i) items[i - 1] = pop();
    return items;
  }
  void recall(uint64_t index) {
    const auto it = memo_.find(index);
    if (it == memo_.end()) fail(fmt::format("refers to memo {} that was never stored", index));
    push(it->second);
  }

  // --- containers --------------------------------------------------------------------------------------------------------------
  void append(PickleValue* target, const std::vector<PickleValue*>& items) {
    PickleValue* list = entries_of(target, Kind::kList);
    if (!list->is(Kind::kList) && !list->is(Kind::kSet)) fail("appends to something that is no list");
    list->items.insert(list->items.end(), items.begin(), items.end());
  }
  void set_items(PickleValue* target, const std::vector<PickleValue*>& items) {
    PickleValue* dict = entries_of(target, Kind::kDict);
    if (!dict->is(Kind::kDict) || items.size() % 2 != 0) fail("sets entries of something that is no dict");
    dict->items.insert(dict->items.end(), items.begin(), items.end());
  }
  // An instance of a class derived from list or dict keeps its entries beside its state.
  PickleValue* entries_of(PickleValue* target, Kind kind) {
    if (!target->is(Kind::kObject)) return target;
    if (target->entries == nullptr) target->entries = make(kind);
    return target->entries;
  }

  // --- globals and calls: nothing is called, known names build values, all others become records --------------------------------
  PickleValue* global(std::string module, const std::string& name) {
    if (names_code(module, name))
      throw Error(ErrorCode::kData, fmt::format("holds code ({}.{}) and is refused; nothing of it was run", module, name), {file_},
                  "a model file needs tensors only: get it from its publisher, or have its weights saved as safetensors");
    if (module == "__builtin__") module = "builtins";
    return make_text(Kind::kGlobal, module + "." + name);
  }

  PickleValue* call(PickleValue* function, PickleValue* arguments) {
    if (!arguments->is(Kind::kTuple)) fail("calls with arguments that are no tuple");
    const auto& a = arguments->items;
    copied_items_ += a.size() + (a.empty() ? 0 : a[0]->items.size());
    if (copied_items_ > kMaxCopies) fail("copies the same long lists over and over");
    const std::string name = function->is(Kind::kGlobal) ? function->text : "";
    const auto listed = [&](Kind kind) {
      return make_list(
          kind, !a.empty() && a[0]->kind >= Kind::kTuple && a[0]->kind <= Kind::kSet ? a[0]->items : std::vector<PickleValue*>());
    };
    if (name == "torch._utils._rebuild_tensor_v2" || name == "torch._utils._rebuild_tensor") return rebuild_tensor(a);
    if ((name == "torch._utils._rebuild_parameter" || name == "torch._utils._rebuild_parameter_with_state") && !a.empty())
      return a[0];
    if (name == "torch._tensor._rebuild_from_type_v2" && a.size() >= 3 && a[0]->is(Kind::kGlobal) && a[0]->text != name)
      return call(a[0], a[2]);
    if (name == "torch.Size" || name == "builtins.tuple") return listed(Kind::kTuple);
    if (name == "builtins.list") return listed(Kind::kList);
    if (name == "builtins.set" || name == "builtins.frozenset") return listed(Kind::kSet);
    if (name == "collections.OrderedDict" || name == "builtins.dict") return ordered_dict(a);
    if (name == "collections.defaultdict") return make(Kind::kDict);
    if (name == "_codecs.encode" && !a.empty() && a[0]->is(Kind::kString)) return make_text(Kind::kBytes, latin1_bytes(a[0]->text));
    if ((name == "numpy.core.multiarray.scalar" || name == "numpy._core.multiarray.scalar") && a.size() == 2) {
      if (PickleValue* value = numpy_scalar(*a[0], *a[1])) return value;
    }
    if (name == "copyreg._reconstructor" || name == "copy_reg._reconstructor") {
      if (!a.empty() && a[0]->is(Kind::kGlobal)) return make_text(Kind::kObject, a[0]->text);
    }
    PickleValue* object = make_text(Kind::kObject, name.empty() ? "?" : name);
    object->items = a;
    return object;
  }

  PickleValue* ordered_dict(const std::vector<PickleValue*>& arguments) {
    PickleValue* dict = make(Kind::kDict);
    if (arguments.empty()) return dict;
    if (arguments[0]->is(Kind::kDict)) dict->items = arguments[0]->items;
    if (arguments[0]->is(Kind::kList))
      for (const PickleValue* pair : arguments[0]->items)
        if (pair->items.size() == 2) dict->items.insert(dict->items.end(), pair->items.begin(), pair->items.end());
    return dict;
  }

  // numpy.float64 and its like, as metrics hold them: dtype("f8") and the bytes. Null: another type.
  PickleValue* numpy_scalar(const PickleValue& type, const PickleValue& value) {
    if (type.items.empty() || !type.items[0]->is(Kind::kString) || !(value.is(Kind::kBytes) || value.is(Kind::kString)))
      return nullptr;
    const std::string& code = type.items[0]->text;
    const std::string& raw = value.text;
    const auto read = [&]<class T>(T zero) {
      std::memcpy(&zero, raw.data(), sizeof(T));
      return zero;
    };
    if (code == "f8" && raw.size() == 8) return make_float(read(0.0));
    if (code == "f4" && raw.size() == 4) return make_float(double(read(0.0f)));
    if (code == "i8" && raw.size() == 8) return make_int(read(int64_t(0)));
    if (code == "i4" && raw.size() == 4) return make_int(read(int32_t(0)));
    return nullptr;
  }

  // --- tensors -----------------------------------------------------------------------------------------------------------------
  // ("storage", torch.FloatStorage, key, location, elements)
  PickleValue* persistent(const PickleValue& id) {
    const auto& a = id.items;
    if (!id.is(Kind::kTuple) || a.size() < 5 || !a[0]->is(Kind::kString) || a[0]->text != "storage" || !a[1]->is(Kind::kGlobal) ||
        !a[2]->is(Kind::kString) || !a[4]->is(Kind::kInt) || a[4]->integer < 0)
      fail("a persistent id is not a tensor storage");
    const std::string type_name = a[1]->text.substr(a[1]->text.rfind('.') + 1);
    const auto type = storage_type(type_name);
    if (!type) return make_text(Kind::kUnsupported, fmt::format("its storage type {} is not supported", type_name));
    PickleValue* storage = make_text(Kind::kStorage, a[2]->text);
    storage->type = *type;
    storage->integer = a[4]->integer;
    return storage;
  }

  Dims dims(const PickleValue& list) {
    Dims result;
    if (!list.is(Kind::kTuple)) fail("a tensor's shape is no tuple");
    for (const PickleValue* item : list.items) {
      if (!item->is(Kind::kInt) || item->integer < 0) fail("a tensor's shape holds something else than natural numbers");
      result.push_back(item->integer);
    }
    return result;
  }

  // (storage, offset, size, stride, ...)
  PickleValue* rebuild_tensor(const std::vector<PickleValue*>& a) {
    if (a.size() < 4) fail("a tensor without storage, offset, size and stride");
    if (a[0]->is(Kind::kUnsupported)) return a[0];
    if (!a[0]->is(Kind::kStorage) || !a[1]->is(Kind::kInt) || a[1]->integer < 0) fail("a tensor without storage and offset");
    if (a[2]->items.size() > size_t(kMaxRank))
      return make_text(Kind::kUnsupported,
                       fmt::format("it has {} dimensions, at most {} are supported", a[2]->items.size(), kMaxRank));
    if (a[3]->items.size() != a[2]->items.size()) fail("a tensor has other numbers of sizes and strides");
    const Shape shape = dims(*a[2]);
    const Strides strides = dims(*a[3]);
    PickleValue* value = make(Kind::kTensor);
    value->tensor = &result_.tensors_.emplace_back(view_storage(*a[0], a[1]->integer, shape, strides));
    return value;
  }

  Tensor view_storage(const PickleValue& storage, int64_t offset, const Shape& shape, const Strides& strides) {
    const StorageBytes* bytes = storages_(storage.text);
    const size_t width = size_of(storage.type);
    if (bytes == nullptr) fail(fmt::format("storage '{}' is missing from the archive", storage.text));
    const int64_t available = int64_t(bytes->size / width);
    if (storage.integer > available)
      fail(fmt::format("storage '{}' should hold {} elements but has {}", storage.text, storage.integer, available));
    first_use(storage, *bytes);

    int64_t last = offset, count = 1;  // index of the last element; elements
    bool overflow = false, none = false, dense = true;
    for (int i = shape.rank() - 1; i >= 0; --i) {
      int64_t reach = 0;
      none |= shape[i] == 0;
      dense &= shape[i] <= 1 || strides[i] == count;
      overflow |= __builtin_mul_overflow(std::max<int64_t>(shape[i] - 1, 0), strides[i], &reach) ||
                  __builtin_add_overflow(last, reach, &last) ||
                  __builtin_mul_overflow(count, std::max<int64_t>(shape[i], 1), &count);
    }
    if (overflow || count > (int64_t(1) << 56)) fail("a tensor of absurd size");
    if (none) return Tensor::empty(shape, storage.type);
    // More elements than the storage has would be a broadcast view, which could be made absurdly large.
    if (last >= storage.integer || count > storage.integer)
      fail(fmt::format("a tensor of shape {} reaches beyond its storage '{}' of {} elements", to_string(shape), storage.text,
                       storage.integer));
    std::byte* first = bytes->data.get() + size_t(offset) * width;
    if (dense) return Tensor::wrap(first, shape, storage.type, bytes->data);
    copied_bytes_ += size_t(count) * width;
    if (copied_bytes_ > 4 * storage_bytes_) fail("too many views of the same storage");
    return gather(first, shape, strides, storage.type);
  }

  void first_use(const PickleValue& storage, const StorageBytes& bytes) {
    const auto [it, inserted] = used_.emplace(storage.text, storage.type);
    if (!inserted && it->second == storage.type) return;
    if (!inserted) fail(fmt::format("storage '{}' is used with two types", storage.text));
    storage_bytes_ += bytes.size;
    const std::byte* p = bytes.data.get();
    if (storage.type == DType::kBool && std::any_of(p, p + bytes.size, [](std::byte b) { return b > std::byte{1}; }))
      fail(fmt::format("boolean storage '{}' holds other values than 0 and 1", storage.text));
  }

  static Tensor gather(const std::byte* first, const Shape& shape, Strides strides, DType type) {
    for (int i = 0; i < shape.rank(); ++i) {
      if (shape[i] == 1) strides[i] = 0;  // never taken, and of any size
    }
    Tensor tensor = Tensor::empty(shape, type);
    auto* out = static_cast<std::byte*>(tensor.raw());
    const size_t width = size_of(type);
    Dims index = Dims::filled(shape.rank(), 0);
    for (int64_t n = tensor.numel(), from = 0; n > 0; --n, out += width) {
      std::memcpy(out, first + size_t(from) * width, width);
      for (int i = shape.rank() - 1; i >= 0; --i) {
        from += strides[i];
        if (++index[i] < shape[i]) break;
        from -= index[i] * strides[i];
        index[i] = 0;
      }
    }
    return tensor;
  }

  // --- one instruction; true at the end -----------------------------------------------------------------------------------------
  bool step(char op) {
    switch (op) {
      case '\x80':  // PROTO
        if (const int version = number<uint8_t>(); version < 2 || version > 5)
          fail(fmt::format("protocol {} is not supported", version));
        break;
      case '\x95': number<uint64_t>(); break;  // FRAME
      case '.': result_.root_ = pop(); return true;

      case '(': marks_.push_back(stack_.size()); break;
      case '0':  // POP, of a value or of the mark above all values
        if (!marks_.empty() && marks_.back() == stack_.size()) {
          marks_.pop_back();
        } else {
          pop();
        }
        break;
      case '1': pop_to_mark(); break;
      case '2': push(top()); break;

      case 'N': push(make(Kind::kNone)); break;
      case '\x88': push(make_int(1, Kind::kBool)); break;
      case '\x89': push(make_int(0, Kind::kBool)); break;
      case 'I': {
        const std::string content = line();
        push(content == "00" || content == "01" ? make_int(content[1] - '0', Kind::kBool) : make_int(parse<int64_t>(content)));
        break;
      }
      case 'L': push(make_int(parse<int64_t>(line()))); break;
      case 'J': push(make_int(number<int32_t>())); break;
      case 'K': push(make_int(number<uint8_t>())); break;
      case 'M': push(make_int(number<uint16_t>())); break;
      case '\x8a': push(make_long(number<uint8_t>())); break;
      case '\x8b': push(make_long(number<uint32_t>())); break;
      case 'F': push(make_float(parse<double>(line()))); break;
      case 'G': push(make_float(std::bit_cast<double>(__builtin_bswap64(number<uint64_t>())))); break;

      case 'V': push(make_text(Kind::kString, line())); break;
      case 'X': push(make_text(Kind::kString, text(number<uint32_t>()))); break;
      case '\x8c': push(make_text(Kind::kString, text(number<uint8_t>()))); break;
      case '\x8d': push(make_text(Kind::kString, text(number<uint64_t>()))); break;
      case 'T': push(make_text(Kind::kString, text(number<uint32_t>()))); break;  // str of Python 2
      case 'U': push(make_text(Kind::kString, text(number<uint8_t>()))); break;
      case 'B': push(make_text(Kind::kBytes, text(number<uint32_t>()))); break;
      case 'C': push(make_text(Kind::kBytes, text(number<uint8_t>()))); break;
      case '\x8e':
      case '\x96': push(make_text(Kind::kBytes, text(number<uint64_t>()))); break;

      case ')': push(make(Kind::kTuple)); break;
      case 't': push(make_list(Kind::kTuple, pop_to_mark())); break;
      case '\x85': push(make_list(Kind::kTuple, pop_last(1))); break;
      case '\x86': push(make_list(Kind::kTuple, pop_last(2))); break;
      case '\x87': push(make_list(Kind::kTuple, pop_last(3))); break;
      case ']': push(make(Kind::kList)); break;
      case 'l': push(make_list(Kind::kList, pop_to_mark())); break;
      case '}': push(make(Kind::kDict)); break;
      case 'd': {
        const auto items = pop_to_mark();
        push(make(Kind::kDict));
        set_items(top(), items);
        break;
      }
      case '\x8f': push(make(Kind::kSet)); break;
      case '\x91': push(make_list(Kind::kSet, pop_to_mark())); break;  // FROZENSET
      case 'a': {
        const auto item = pop_last(1);
        append(top(), item);
        break;
      }
      case 'e':
      case '\x90': {  // APPENDS, ADDITEMS
        const auto items = pop_to_mark();
        append(top(), items);
        break;
      }
      case 's': {
        const auto items = pop_last(2);
        set_items(top(), items);
        break;
      }
      case 'u': {
        const auto items = pop_to_mark();
        set_items(top(), items);
        break;
      }

      case 'q': memo_[number<uint8_t>()] = top(); break;
      case 'r': memo_[number<uint32_t>()] = top(); break;
      case 'p': memo_[parse<uint64_t>(line())] = top(); break;
      case '\x94': memo_.emplace(memo_.size(), top()); break;
      case 'h': recall(number<uint8_t>()); break;
      case 'j': recall(number<uint32_t>()); break;
      case 'g': recall(parse<uint64_t>(line())); break;

      case 'c': {
        std::string module = line();
        push(global(std::move(module), line()));
        break;
      }
      case '\x93': {
        const auto names = pop_last(2);
        if (!names[0]->is(Kind::kString) || !names[1]->is(Kind::kString)) fail("a global without a name");
        push(global(names[0]->text, names[1]->text));
        break;
      }
      case 'R':
      case '\x81': {  // REDUCE, NEWOBJ
        const auto items = pop_last(2);
        push(call(items[0], items[1]));
        break;
      }
      case '\x92': {  // NEWOBJ_EX: class, arguments, keywords
        const auto items = pop_last(3);
        push(call(items[0], items[1]));
        break;
      }
      case 'o': {  // OBJ: mark, class, arguments
        auto items = pop_to_mark();
        if (items.empty()) fail("an object without a class");
        PickleValue* type = items.front();
        items.erase(items.begin());
        push(call(type, make_list(Kind::kTuple, std::move(items))));
        break;
      }
      case 'i': {  // INST
        std::string module = line();
        PickleValue* type = global(std::move(module), line());
        push(call(type, make_list(Kind::kTuple, pop_to_mark())));
        break;
      }
      case 'b': {  // BUILD
        PickleValue* state = pop();
        top()->state = state;
        break;
      }
      case 'Q': {
        const PickleValue* id = pop();
        push(persistent(*id));
        break;
      }
      default: fail(fmt::format("instruction 0x{:02x} is not supported", uint8_t(op)));
    }
    return false;
  }

  std::span<const std::byte> bytes_;
  size_t position_ = 0;
  const StorageLookup& storages_;
  const std::string& file_;
  Pickle result_;
  std::vector<PickleValue*> stack_;
  std::vector<size_t> marks_;
  std::unordered_map<uint64_t, PickleValue*> memo_;
  std::unordered_map<std::string, DType> used_;  // storages seen so far
  size_t storage_bytes_ = 0, copied_bytes_ = 0, copied_items_ = 0;
};

Pickle read_pickle(std::span<const std::byte> bytes, const StorageLookup& storages, const std::string& file) {
  return Unpickler(bytes, storages, file).run();
}

namespace {

std::string dump(const nlohmann::json& value) { return value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace); }

nlohmann::json to_json(const PickleValue& value, int depth, int64_t& budget) {
  using nlohmann::json;
  if (depth > kMaxJsonDepth || budget < 0) return "...";
  budget -= int64_t(1 + value.text.size() / 16);
  switch (value.kind) {
    case Kind::kNone: return nullptr;
    case Kind::kBool: return value.integer != 0;
    case Kind::kInt: return value.integer;
    case Kind::kFloat: return value.number;
    case Kind::kString: return value.text;
    case Kind::kBytes: return fmt::format("<{} bytes>", value.text.size());
    case Kind::kTuple:
    case Kind::kList:
    case Kind::kSet: {
      json list = json::array();
      for (const PickleValue* item : value.items) list.push_back(to_json(*item, depth + 1, budget));
      return list;
    }
    case Kind::kDict: {
      json object = json::object();
      for (size_t i = 0; i + 1 < value.items.size(); i += 2) {
        const PickleValue& key = *value.items[i];
        // Containers as keys would be texts inside texts, which grow with every level.
        const std::string name = key.is(Kind::kString)              ? key.text
                                 : key.is_number() || key.is_none() ? dump(to_json(key, depth + 1, budget))
                                                                    : "<key>";
        object[name] = to_json(*value.items[i + 1], depth + 1, budget);
      }
      return object;
    }
    case Kind::kTensor: return "<" + describe(*value.tensor) + ">";
    default: return "<" + value.text + ">";
  }
}

}  // namespace

std::string to_json_text(const PickleValue& value) {
  int64_t budget = kMaxJsonNodes;
  return dump(to_json(value, 0, budget));
}

}  // namespace tessera
