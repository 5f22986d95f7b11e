#include "nn/io/onnx_graph.h"

#include <onnx.pb.h>

#include <bit>
#include <charconv>
#include <cstring>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <span>

#include "tensor/base/checksum.h"
#include "tensor/base/file.h"

namespace tessera {

static_assert(std::endian::native == std::endian::little, "the formats of nn/io are little-endian and are read without conversion");

namespace {

namespace fs = std::filesystem;

constexpr const char* kDamaged = "the file is damaged or was cut: export it again, or copy it again";
constexpr const char* kSupported = "Tessera reads YOLOv8-seg models as it and the original (8.3.159) export them";
constexpr size_t kMaxBytes = size_t(std::numeric_limits<int32_t>::max());  // of a protobuf message

constexpr std::pair<onnx::TensorProto_DataType, DType> kTypes[] = {
    {onnx::TensorProto_DataType_FLOAT, DType::kF32},       {onnx::TensorProto_DataType_FLOAT16, DType::kF16},
    {onnx::TensorProto_DataType_INT64, DType::kI64},       {onnx::TensorProto_DataType_INT32, DType::kI32},
    {onnx::TensorProto_DataType_BOOL, DType::kBool},       {onnx::TensorProto_DataType_UINT8, DType::kU8},
    {onnx::TensorProto_DataType_BFLOAT16, DType::kBF16},   {onnx::TensorProto_DataType_DOUBLE, DType::kF64},
};

std::optional<DType> type_of(int32_t code) {
  for (const auto& [number, type] : kTypes) {
    if (number == code) return type;
  }
  return std::nullopt;
}

int32_t code_of(DType type) {
  for (const auto& [number, candidate] : kTypes) {
    if (candidate == type) return number;
  }
  TESSERA_CHECK(false, "ONNX has no type for {}", name_of(type));
}

// See Note [Checksums of constants].
std::string checksum_text(const Tensor& dense) {
  const std::span bytes(static_cast<const std::byte*>(dense.raw()), size_t(dense.numel()) * size_of(dense.dtype()));
  return fmt::format("{}{} crc32c={:08x}", name_of(dense.dtype()), to_string(dense.shape()), crc32c(bytes));
}

class Reader {
 public:
  Reader(std::string file, fs::path folder) : file_(std::move(file)), folder_(std::move(folder)) {}

  OnnxGraph read(std::string_view bytes) {
    onnx::ModelProto model;
    if (bytes.size() > kMaxBytes || !model.ParseFromArray(bytes.data(), int(bytes.size())) || !model.has_graph()) {
      refuse("this is no ONNX file", kDamaged);
    }
    OnnxGraph out;
    out.ir_version = model.ir_version();
    out.opset = opset_of(model);
    out.producer = model.producer_name(), out.producer_version = model.producer_version();
    for (const auto& p : model.metadata_props()) out.metadata.emplace_back(p.key(), p.value());
    if (model.functions_size() > 0) refuse(fmt::format("function '{}': functions are not read", model.functions(0).name()), kSupported);
    onnx::GraphProto& graph = *model.mutable_graph();
    out.name = graph.name();
    for (onnx::TensorProto& t : *graph.mutable_initializer()) {
      out.constants.emplace_back(t.name(), tensor(t, fmt::format("constant '{}'", t.name())));
      t.Clear();  // so that values are not kept twice
    }
    if (graph.sparse_initializer_size() > 0) refuse("sparse constants are not read", kSupported);
    for (const auto& v : graph.input()) out.inputs.push_back(value(v));
    for (const auto& v : graph.output()) out.outputs.push_back(value(v));
    for (const auto& n : graph.node()) out.nodes.push_back(node(n));
    return out;
  }

 private:
  [[noreturn]] void refuse(const std::string& what, const char* hint) const { throw Error(ErrorCode::kData, what, {file_}, hint); }

  int64_t opset_of(const onnx::ModelProto& model) const {
    for (const auto& set : model.opset_import()) {
      if (set.domain().empty() || set.domain() == "ai.onnx") return set.version();
    }
    refuse("no version of ONNX's operators is named", kDamaged);
  }

  Tensor tensor(const onnx::TensorProto& t, const std::string& what) {
    const std::optional<DType> type = type_of(t.data_type());
    if (!type) refuse(fmt::format("{}: its type, number {} of ONNX, is not read", what, t.data_type()), kSupported);
    if (t.dims_size() > kMaxRank) refuse(fmt::format("{}: {} axes, at most {} are read", what, t.dims_size(), kMaxRank), kSupported);
    Shape shape;
    int64_t reach = 1;  // sizes of zero count as one: strides are products of the others
    for (const int64_t d : t.dims()) {
      if (d < 0 || __builtin_mul_overflow(reach, std::max<int64_t>(d, 1), &reach) || reach > int64_t(kMaxBytes)) {
        refuse(fmt::format("{}: impossible sizes", what), kDamaged);
      }
      shape.push_back(d);
    }
    const int64_t count = numel(shape);
    const size_t bytes = size_t(count) * size_of(*type);
    const auto same = [&](size_t found, size_t expected, const char* unit) {
      if (found != expected) refuse(fmt::format("{}: {} {} for sizes {} of {}", what, found, unit, to_string(shape), name_of(*type)), kDamaged);
    };
    if (t.data_location() == onnx::TensorProto_DataLocation_EXTERNAL) {
      const std::span<const std::byte> values = external(t, what);
      same(values.size(), bytes, "bytes");
      return filled(shape, *type, values.data(), bytes);
    }
    if (t.has_raw_data()) {
      same(t.raw_data().size(), bytes, "bytes");
      const Tensor out = filled(shape, *type, t.raw_data().data(), bytes);
      check_sum(t, out, what);
      return out;
    }
    const auto listed = [&](const auto& list) {
      same(size_t(list.size()), size_t(count), "values");
      return filled(shape, *type, list.data(), bytes);
    };
    switch (*type) {
      case DType::kF32: return listed(t.float_data());
      case DType::kF64: return listed(t.double_data());
      case DType::kI64: return listed(t.int64_data());
      case DType::kI32: return listed(t.int32_data());
      default: break;  // narrower types lie in 32 bits each
    }
    same(size_t(t.int32_data_size()), size_t(count), "values");
    const Tensor out = Tensor::empty(shape, *type);
    for (int64_t i = 0; i < count; ++i) {
      const int32_t v = t.int32_data(int(i));
      std::memcpy(static_cast<std::byte*>(out.raw()) + size_t(i) * size_of(*type), &v, size_of(*type));
    }
    return out;
  }

  static Tensor filled(const Shape& shape, DType type, const void* values, size_t bytes) {
    const Tensor out = Tensor::empty(shape, type);
    if (bytes > 0) std::memcpy(out.raw(), values, bytes);
    return out;
  }

  void check_sum(const onnx::TensorProto& t, const Tensor& tensor, const std::string& what) const {
    constexpr std::string_view kMark = " crc32c=";
    const std::string& stated = t.doc_string();
    if (stated.size() < kMark.size() + 8 || stated.compare(stated.size() - 8 - kMark.size(), kMark.size(), kMark) != 0) return;
    const std::string found = checksum_text(tensor);
    if (found != stated && found.compare(0, found.size() - 8, stated, 0, stated.size() - 8) == 0) {
      refuse(fmt::format("{}: its values do not match their checksum", what), kDamaged);
    }
  }

  // The values in a file beside this one.
  std::span<const std::byte> external(const onnx::TensorProto& t, const std::string& what) {
    std::string location;
    size_t offset = 0;
    std::optional<size_t> length;
    const auto number = [&](const std::string& text) {
      size_t n = 0;
      const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), n);
      if (failed != std::errc() || end != text.data() + text.size()) refuse(fmt::format("{}: '{}' is no place in a file", what, text), kDamaged);
      return n;
    };
    for (const auto& e : t.external_data()) {
      if (e.key() == "location") location = e.value();
      if (e.key() == "offset") offset = number(e.value());
      if (e.key() == "length") length = number(e.value());
    }
    const fs::path relative = fs::path(location).lexically_normal();
    if (location.empty() || relative.is_absolute() || relative.begin()->string() == ".." || location.find('\0') != std::string::npos) {
      refuse(fmt::format("{}: its values are said to lie in '{}', which is not below the model's folder", what, location), kDamaged);
    }
    auto& mapped = external_[relative.string()];
    if (mapped == nullptr) {
      std::error_code failed;
      if (!fs::is_regular_file(folder_ / relative, failed)) {
        refuse(fmt::format("{}: its values lie in '{}', which is not there", what, (folder_ / relative).string()),
               "copy that file too: it belongs to this one");
      }
      mapped = MappedFile::open(folder_ / relative);
    }
    const std::span<const std::byte> all = mapped->bytes();
    if (offset > all.size() || length.value_or(0) > all.size() - offset) {
      refuse(fmt::format("{}: its values reach beyond the end of '{}'", what, (folder_ / relative).string()), kDamaged);
    }
    return all.subspan(offset, length.value_or(all.size() - offset));
  }

  OnnxValue value(const onnx::ValueInfoProto& v) const {
    OnnxValue out;
    out.name = v.name();
    const auto& type = v.type().tensor_type();
    const std::optional<DType> element = type_of(type.elem_type());
    if (!element) refuse(fmt::format("'{}' is no tensor of a type that is read", v.name()), kSupported);
    out.type = *element;
    for (const auto& d : type.shape().dim()) {
      out.dims.push_back(d.has_dim_value() ? OnnxDim{d.dim_value(), {}} : OnnxDim{-1, d.dim_param()});
      if (d.has_dim_value() && d.dim_value() < 0) refuse(fmt::format("'{}': a size is negative", v.name()), kDamaged);
    }
    return out;
  }

  OnnxNode node(const onnx::NodeProto& n) {
    OnnxNode out;
    const bool own = n.domain().empty() || n.domain() == "ai.onnx";
    out.op = own ? n.op_type() : n.domain() + "::" + n.op_type();
    out.name = n.name();
    out.inputs.assign(n.input().begin(), n.input().end());
    out.outputs.assign(n.output().begin(), n.output().end());
    for (const auto& a : n.attribute()) out.attributes.push_back({a.name(), attribute(a, n)});
    return out;
  }

  decltype(OnnxAttribute::value) attribute(const onnx::AttributeProto& a, const onnx::NodeProto& n) {
    switch (a.type()) {
      case onnx::AttributeProto_AttributeType_INT: return int64_t(a.i());
      case onnx::AttributeProto_AttributeType_FLOAT: return a.f();
      case onnx::AttributeProto_AttributeType_STRING: return a.s();
      case onnx::AttributeProto_AttributeType_INTS: return std::vector<int64_t>(a.ints().begin(), a.ints().end());
      case onnx::AttributeProto_AttributeType_FLOATS: return std::vector<float>(a.floats().begin(), a.floats().end());
      case onnx::AttributeProto_AttributeType_TENSOR:
        return tensor(a.t(), fmt::format("node '{}' ({}), attribute '{}'", n.name(), n.op_type(), a.name()));
      default: return OnnxAttribute::Other{fmt::format("kind {}", int(a.type()))};
    }
  }

  std::string file_;
  fs::path folder_;
  std::map<std::string, std::shared_ptr<const MappedFile>> external_;
};

void set_tensor(const Tensor& tensor, onnx::TensorProto& out) {
  const Tensor dense = tensor.contiguous();
  out.set_data_type(code_of(dense.dtype()));
  for (const int64_t d : dense.shape()) out.add_dims(d);
  out.set_raw_data(dense.raw(), size_t(dense.numel()) * size_of(dense.dtype()));
}

void set_value(const OnnxValue& value, onnx::ValueInfoProto& out) {
  out.set_name(value.name);
  auto& type = *out.mutable_type()->mutable_tensor_type();
  type.set_elem_type(code_of(value.type));
  auto& shape = *type.mutable_shape();
  for (const OnnxDim& d : value.dims) {
    auto& dim = *shape.add_dim();
    if (d.size >= 0) dim.set_dim_value(d.size);
    if (d.size < 0) dim.set_dim_param(d.name);
  }
}

void set_attribute(const OnnxAttribute& attribute, onnx::AttributeProto& out) {
  out.set_name(attribute.name);
  if (const auto* i = std::get_if<int64_t>(&attribute.value)) {
    out.set_type(onnx::AttributeProto_AttributeType_INT);
    out.set_i(*i);
  } else if (const auto* f = std::get_if<float>(&attribute.value)) {
    out.set_type(onnx::AttributeProto_AttributeType_FLOAT);
    out.set_f(*f);
  } else if (const auto* s = std::get_if<std::string>(&attribute.value)) {
    out.set_type(onnx::AttributeProto_AttributeType_STRING);
    out.set_s(*s);
  } else if (const auto* ints = std::get_if<std::vector<int64_t>>(&attribute.value)) {
    out.set_type(onnx::AttributeProto_AttributeType_INTS);
    for (const int64_t v : *ints) out.add_ints(v);
  } else if (const auto* floats = std::get_if<std::vector<float>>(&attribute.value)) {
    out.set_type(onnx::AttributeProto_AttributeType_FLOATS);
    for (const float v : *floats) out.add_floats(v);
  } else if (const auto* tensor = std::get_if<Tensor>(&attribute.value)) {
    out.set_type(onnx::AttributeProto_AttributeType_TENSOR);
    set_tensor(*tensor, *out.mutable_t());
  } else {
    TESSERA_CHECK(false, "attribute '{}' has no value to write", attribute.name);
  }
}

}  // namespace

OnnxGraph parse_onnx(std::string_view bytes, const std::string& name, const fs::path& folder) { return Reader(name, folder).read(bytes); }

OnnxGraph read_onnx(const fs::path& path) {
  const auto mapped = MappedFile::open(path);
  const std::span<const std::byte> bytes = mapped->bytes();
  return parse_onnx({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, path.string(), path.parent_path());
}

void write_onnx(const fs::path& path, const OnnxGraph& graph) {
  onnx::ModelProto model;
  model.set_ir_version(graph.ir_version);
  auto& operators = *model.add_opset_import();
  operators.set_domain("");
  operators.set_version(graph.opset);
  model.set_producer_name(graph.producer);
  model.set_producer_version(graph.producer_version);
  for (const auto& [key, text] : graph.metadata) {
    auto& property = *model.add_metadata_props();
    property.set_key(key);
    property.set_value(text);
  }
  onnx::GraphProto& out = *model.mutable_graph();
  out.set_name(graph.name);
  for (const OnnxValue& v : graph.inputs) set_value(v, *out.add_input());
  for (const OnnxValue& v : graph.outputs) set_value(v, *out.add_output());
  size_t bytes = 0;
  for (const auto& [name, tensor] : graph.constants) bytes += size_t(tensor.numel()) * size_of(tensor.dtype());
  constexpr size_t kRest = size_t(1) << 24;  // nodes and names, generously
  if (bytes > kMaxBytes - kRest) {
    throw Error(ErrorCode::kUsage, "the model's weights are above the 2 GiB that an ONNX file holds", {path.string()}, "write it with --half");
  }
  for (const auto& [name, tensor] : graph.constants) {
    onnx::TensorProto& t = *out.add_initializer();
    t.set_name(name);
    set_tensor(tensor, t);
    t.set_doc_string(checksum_text(tensor.contiguous()));
  }
  for (const OnnxNode& node : graph.nodes) {
    onnx::NodeProto& n = *out.add_node();
    n.set_name(node.name);
    n.set_op_type(node.op);
    for (const std::string& input : node.inputs) n.add_input(input);
    for (const std::string& output : node.outputs) n.add_output(output);
    for (const OnnxAttribute& a : node.attributes) set_attribute(a, *n.add_attribute());
  }
  write_file_atomic(path, model.SerializeAsString());
}

bool has_onnx() { return true; }
std::string describe_onnx() {
  constexpr int v = GOOGLE_PROTOBUF_VERSION;
  return fmt::format("read and written, protobuf {}.{}.{}", v / 1000000, v / 1000 % 1000, v % 1000);
}

}  // namespace tessera
