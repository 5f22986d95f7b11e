#include "nn/io/safetensors.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>
#include <tuple>
#include <utility>
#include <vector>

#include "tensor/base/checksum.h"
#include "tensor/base/file.h"
#include "tensor/base/parallel.h"

namespace tessera {

static_assert(std::endian::native == std::endian::little, "the formats of nn/io are little-endian and are read without conversion");

namespace {

using nlohmann::json;

constexpr uint64_t kMaxHeader = 100'000'000;  // the limit of the format's own library
constexpr size_t kLengthBytes = 8;
constexpr size_t kAlignment = 64;
constexpr const char* kMetadataKey = "__metadata__";
constexpr const char* kChecksumKey = "crc32c";
constexpr size_t kDigits = 8;  // of a checksum

constexpr std::pair<std::string_view, DType> kTypes[] = {{"F64", DType::kF64}, {"F32", DType::kF32},  {"BF16", DType::kBF16},
                                                         {"F16", DType::kF16}, {"I64", DType::kI64},  {"I32", DType::kI32},
                                                         {"U8", DType::kU8},   {"BOOL", DType::kBool}};

std::string_view code_of(DType type) {
  const auto* it = std::find_if(std::begin(kTypes), std::end(kTypes), [&](const auto& t) { return t.second == type; });
  return it->first;
}

// Where the checksums stand in a header, with what is around them; no text inside of it can look so, its quotes are escaped.
std::string checksum_field(const std::string& digits) { return fmt::format("\"{}\":\"{}\"", kChecksumKey, digits); }

uint32_t header_checksum(uint64_t length, std::string_view text) {
  return crc32c(std::as_bytes(std::span(text)), crc32c(std::as_bytes(std::span(&length, 1))));
}

// Reads one header and reports every fault with the file and the entry.
class Reader {
 public:
  Reader(std::span<std::byte> bytes, std::shared_ptr<const void> owner, std::string name)
      : bytes_(bytes), owner_(std::move(owner)), file_(std::move(name)) {}

  Safetensors read() {
    const json header = parse_header();
    Safetensors result;
    std::vector<Item> items;
    for (const auto& [name, value] : header.items()) {
      if (name == kMetadataKey) {
        read_metadata(value, result.metadata);
      } else {
        items.push_back(read_item(name, value));
      }
    }
    std::sort(items.begin(), items.end(),
              [](const Item& a, const Item& b) { return std::tie(a.begin, a.end) < std::tie(b.begin, b.end); });
    check_cover(items);
    if (const auto digits = result.metadata.find(kChecksumKey); digits != result.metadata.end()) {
      check_sums(items, digits->second);
      result.metadata.erase(digits);
    }
    for (Item& item : items) {
      Tensor tensor = make_tensor(item);
      result.tensors.add(std::move(item.name), std::move(tensor));
    }
    return result;
  }

 private:
  struct Item {
    std::string name;
    DType type;
    Shape shape;
    uint64_t begin, end;
  };

  [[noreturn]] void fail(const std::string& message,
                         const std::string& hint = "the file is damaged or was cut short: copy or download it again") const {
    throw Error(ErrorCode::kData, message, {file_}, hint);
  }
  [[noreturn]] void fail_entry(const std::string& entry, const std::string& message) const {
    fail(fmt::format("entry '{}': {}", entry, message));
  }

  json parse_header() {
    const std::string hint = "expected a .safetensors file; a file of the original's trainer needs its ending .pt";
    if (bytes_.size() < kLengthBytes) fail(fmt::format("{} bytes are too few for a safetensors file", bytes_.size()));
    uint64_t length = 0;
    std::memcpy(&length, bytes_.data(), kLengthBytes);
    if (length > kMaxHeader) fail(fmt::format("not a safetensors file: the header length reads as {}", length), hint);
    if (length > bytes_.size() - kLengthBytes)
      fail(fmt::format("the header takes {} bytes but only {} follow", length, bytes_.size() - kLengthBytes));
    const char* text = reinterpret_cast<const char*>(bytes_.data() + kLengthBytes);
    values_ = bytes_.subspan(kLengthBytes + length);
    header_ = {text, size_t(length)};
    if (length == 0 || text[0] != '{') fail("not a safetensors file: the header is not a JSON object", hint);
    // The parser keeps the last of two equal keys, so they are looked for while it runs; depth is bounded for the same reason.
    std::vector<std::set<std::string>> keys;
    const auto watch = [&](int depth, json::parse_event_t event, json& parsed) {
      if (depth > 3) fail("the header is nested too deeply");
      if (event == json::parse_event_t::object_start) keys.emplace_back();
      if (event == json::parse_event_t::object_end) keys.pop_back();
      if (event == json::parse_event_t::key && !keys.back().insert(parsed.get<std::string>()).second)
        fail_entry(parsed.get<std::string>(), "the name occurs twice");
      return true;
    };
    try {
      return json::parse(text, text + length, watch);
    } catch (const json::exception& e) {
      fail(fmt::format("the header is not valid JSON ({})", e.what()));
    }
  }

  void read_metadata(const json& value, std::map<std::string, std::string>& metadata) const {
    if (!value.is_object()) fail_entry(kMetadataKey, "is not an object");
    for (const auto& [key, text] : value.items()) {
      if (!text.is_string()) fail_entry(kMetadataKey, fmt::format("'{}' is not a string", key));
      metadata[key] = text.get<std::string>();
    }
  }

  Item read_item(const std::string& name, const json& value) const {
    if (!value.is_object() || value.size() != 3 || !value.contains("dtype") || !value.contains("shape") ||
        !value.contains("data_offsets"))
      fail_entry(name, "needs exactly dtype, shape and data_offsets");
    if (!value["dtype"].is_string()) fail_entry(name, "dtype is not a string");
    const auto code = value["dtype"].get<std::string>();
    const auto* type = std::find_if(std::begin(kTypes), std::end(kTypes), [&](const auto& t) { return t.first == code; });
    if (type == std::end(kTypes))
      fail(fmt::format("entry '{}': element type {} is not supported", name, code), "convert it to F32, F16 or BF16 first");
    Item item{name, type->second, {}, 0, 0};

    const json& sizes = value["shape"];
    if (!sizes.is_array()) fail_entry(name, "shape is not a list");
    if (sizes.size() > size_t(kMaxRank))
      fail_entry(name, fmt::format("{} dimensions, at most {} are supported", sizes.size(), kMaxRank));
    uint64_t bytes = size_of(item.type);  // sizes of zero count as one: strides are products of the others
    bool overflow = false, none = false;
    for (const json& size : sizes) {
      if (!size.is_number_unsigned() || size.get<uint64_t>() > uint64_t(INT64_MAX))
        fail_entry(name, "a size in shape is not a natural number");
      item.shape.push_back(size.get<int64_t>());
      none |= item.shape.back() == 0;
      overflow |= __builtin_mul_overflow(bytes, std::max<uint64_t>(size.get<uint64_t>(), 1), &bytes);
    }
    if (overflow || bytes > uint64_t(INT64_MAX)) fail_entry(name, "the shape is absurdly large");
    if (none) bytes = 0;

    const json& offsets = value["data_offsets"];
    if (!offsets.is_array() || offsets.size() != 2 || !offsets[0].is_number_unsigned() || !offsets[1].is_number_unsigned())
      fail_entry(name, "data_offsets are not two natural numbers");
    item.begin = offsets[0].get<uint64_t>();
    item.end = offsets[1].get<uint64_t>();
    if (item.begin > item.end) fail_entry(name, fmt::format("data_offsets [{}, {}] run backwards", item.begin, item.end));
    if (item.end > values_.size())
      fail_entry(name, fmt::format("data_offsets [{}, {}] reach beyond the {} bytes of values in the file", item.begin, item.end,
                                   values_.size()));
    if (item.end - item.begin != bytes)
      fail_entry(name, fmt::format("{}{} needs {} bytes but data_offsets give {}", code, to_string(item.shape), bytes,
                                   item.end - item.begin));
    return item;
  }

  // The format wants the values without gaps and overlaps, in full.
  void check_cover(const std::vector<Item>& items) const {
    uint64_t reached = 0;
    for (const Item& item : items) {
      if (item.begin < reached) fail_entry(item.name, "its values overlap those of another entry");
      if (item.begin > reached)
        fail_entry(item.name, fmt::format("{} bytes before its values belong to no entry", item.begin - reached));
      reached = item.end;
    }
    if (reached != values_.size()) fail(fmt::format("{} bytes at the end belong to no entry", values_.size() - reached));
  }

  void check_sums(const std::vector<Item>& items, const std::string& digits) const {
    constexpr const char* kHint =
        "the file has changed since it was written: copy or download it again; a program that means to change it must drop the "
        "metadata key 'crc32c'";
    const std::string field = checksum_field(digits);
    const size_t place = header_.find(field);
    if (digits.size() != kDigits * (items.size() + 1) || digits.find_first_not_of("0123456789abcdef") != std::string::npos ||
        place == std::string_view::npos)
      fail("the checksums in its header cannot be read", kHint);
    const auto stated = [&](size_t i) { return uint32_t(std::stoul(digits.substr(kDigits * i, kDigits), nullptr, 16)); };
    std::string blank(header_);
    blank.replace(place, field.size(), checksum_field(std::string(digits.size(), '0')));
    if (header_checksum(header_.size(), blank) != stated(0)) fail("the header does not match its checksum", kHint);
    std::vector<uint32_t> found(items.size());
    parallel_for(int64_t(items.size()), 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const Item& item = items[size_t(i)];
        found[size_t(i)] = crc32c(values_.subspan(item.begin, item.end - item.begin));
      }
    });
    for (size_t i = 0; i < items.size(); ++i) {
      if (found[i] != stated(i + 1)) fail(fmt::format("entry '{}': the values do not match their checksum", items[i].name), kHint);
    }
  }

  Tensor make_tensor(const Item& item) const {
    std::byte* p = values_.data() + item.begin;
    const size_t bytes = size_t(item.end - item.begin);
    if (item.type == DType::kBool && std::any_of(p, p + bytes, [](std::byte b) { return b > std::byte{1}; }))
      fail_entry(item.name, "a BOOL value is neither 0 nor 1");
    const bool aligned = reinterpret_cast<uintptr_t>(p) % size_of(item.type) == 0;
    if (owner_ != nullptr && aligned && bytes > 0) return Tensor::wrap(p, item.shape, item.type, owner_);
    Tensor tensor = Tensor::empty(item.shape, item.type);
    if (bytes > 0) std::memcpy(tensor.raw(), p, bytes);
    return tensor;
  }

  std::span<std::byte> bytes_;
  std::shared_ptr<const void> owner_;
  std::string file_;
  std::string_view header_;
  std::span<std::byte> values_;
};

}  // namespace

Safetensors read_safetensors(const std::filesystem::path& path, FileMemory memory) {
  const auto file = MappedFile::open(path);
  return parse_safetensors(file->bytes(), memory == FileMemory::kMapped ? file : nullptr, path.string());
}

Safetensors parse_safetensors(std::span<std::byte> bytes, const std::shared_ptr<const void>& owner, const std::string& name) {
  return Reader(bytes, owner, name).read();
}

void write_safetensors(const std::filesystem::path& path, const StateDict& tensors,
                       const std::map<std::string, std::string>& metadata) {
  std::vector<const StateDict::Entry*> order;
  for (const auto& entry : tensors) {
    TESSERA_CHECK(entry.tensor.defined(), "write_safetensors: '{}' is an undefined tensor", entry.name);
    TESSERA_CHECK(entry.name != kMetadataKey, "write_safetensors: a tensor cannot be called {}", kMetadataKey);
    order.push_back(&entry);
  }
  std::stable_sort(order.begin(), order.end(),
                   [](const auto* a, const auto* b) { return size_of(a->tensor.dtype()) > size_of(b->tensor.dtype()); });

  json header = json::object();
  header[kMetadataKey] = metadata;
  const std::string blank(kDigits * (order.size() + 1), '0');
  header[kMetadataKey][kChecksumKey] = blank;
  uint64_t offset = 0;
  for (const auto* entry : order) {
    const Tensor& t = entry->tensor;
    const uint64_t end = offset + uint64_t(t.numel()) * size_of(t.dtype());
    json& item = header[entry->name];
    item["dtype"] = code_of(t.dtype());
    item["shape"] = std::vector<int64_t>(t.shape().begin(), t.shape().end());
    item["data_offsets"] = {offset, end};
    offset = end;
  }
  std::string text = header.dump();
  text.append((kAlignment - (kLengthBytes + text.size()) % kAlignment) % kAlignment, ' ');
  TESSERA_CHECK(text.size() <= kMaxHeader, "write_safetensors: a header of {} bytes is too long for the format", text.size());
  const uint64_t length = text.size();

  std::string checksums = fmt::format("{:08x}", header_checksum(length, text));

  write_file_atomic(path, [&](AtomicFile& file) {
    file.write(std::as_bytes(std::span(&length, 1)));
    file.write(text);
    std::vector<std::span<const std::byte>> pieces;  // dense tensors, written together
    const auto write_pieces = [&] {
      std::vector<uint32_t> sums(pieces.size());
      parallel_for(int64_t(pieces.size()), 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) sums[size_t(i)] = crc32c(pieces[size_t(i)]);
      });
      for (const uint32_t sum : sums) checksums += fmt::format("{:08x}", sum);
      file.write(pieces);
      pieces.clear();
    };
    for (const auto* entry : order) {
      const Tensor& t = entry->tensor;
      const size_t bytes = size_t(t.numel()) * size_of(t.dtype());
      const Tensor dense = t.to(Device::cpu()).contiguous();
      pieces.push_back({static_cast<const std::byte*>(dense.raw()), bytes});
      if (!dense.shares_storage(t)) write_pieces();  // before the copy goes away
    }
    write_pieces();
    file.rewrite(kLengthBytes + text.find(checksum_field(blank)) + checksum_field("").size() - 1, checksums);
  });
}

}  // namespace tessera
