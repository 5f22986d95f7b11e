#include "yolo/io/onnx_operators.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <optional>
#include <string_view>

#include "tensor/ops/copy.h"
#include "tensor/ops/pointwise.h"
#include "tensor/ops/pool.h"
#include "tensor/ops/softmax.h"

namespace tessera {

void onnx_fail(const OnnxNode& node, const std::string& what) {
  throw Error(ErrorCode::kData, fmt::format("node '{}' ({}): {}", node.name, node.op, what));
}

Tensor onnx_number(const Tensor& stored) { return stored.to(is_floating(stored.dtype()) ? DType::kF32 : DType::kI64); }

namespace {

using Ints = std::vector<int64_t>;

// --- attributes and inputs ------------------------------------------------------------------------------------------------------

template <class T>
std::optional<T> attribute(const OnnxNode& node, std::string_view name) {
  const OnnxAttribute* a = node.find(name);
  if (a == nullptr) return std::nullopt;
  if (const T* value = std::get_if<T>(&a->value)) return *value;
  onnx_fail(node, fmt::format("attribute '{}' is of another kind than it should be", name));
}

int64_t integer(const OnnxNode& node, std::string_view name, int64_t fallback) { return attribute<int64_t>(node, name).value_or(fallback); }
std::string text(const OnnxNode& node, std::string_view name, const char* fallback) {
  return attribute<std::string>(node, name).value_or(fallback);
}

// The attribute may be absent, or must have this value.
void only(const OnnxNode& node, std::string_view name, int64_t value) {
  const int64_t found = integer(node, name, value);
  if (found != value) onnx_fail(node, fmt::format("attribute '{}' is {}, only {} is run", name, found, value));
}
void only(const OnnxNode& node, std::string_view name, const Ints& value) {
  const Ints found = attribute<Ints>(node, name).value_or(value);
  if (found != value) onnx_fail(node, fmt::format("attribute '{}' is [{}], only [{}] is run", name, fmt::join(found, ", "), fmt::join(value, ", ")));
}
void only(const OnnxNode& node, std::string_view name, std::initializer_list<std::string_view> values, const char* fallback) {
  const std::string found = text(node, name, fallback);
  if (std::find(values.begin(), values.end(), found) == values.end()) {
    onnx_fail(node, fmt::format("attribute '{}' is '{}', only {} is run", name, found, fmt::join(values, " or ")));
  }
}

// Equal in both directions, which is what kernels here know: strides [2, 2], pads [1, 1, 1, 1].
int64_t even(const OnnxNode& node, std::string_view name, size_t count, int64_t fallback, int64_t most) {
  const Ints found = attribute<Ints>(node, name).value_or(Ints(count, fallback));
  const bool fits = found.size() == count && std::all_of(found.begin(), found.end(), [&](int64_t v) { return v == found[0] && v >= 0 && v <= most; });
  if (!fits) onnx_fail(node, fmt::format("attribute '{}' is [{}], only equal ones up to {} are run", name, fmt::join(found, ", "), most));
  return found[0];
}

const Tensor& input(const OnnxCall& call, size_t i) {
  if (i >= call.in.size() || !call.in[i].defined()) onnx_fail(call.node, fmt::format("input {} is missing", i));
  return call.in[i];
}
bool has(const OnnxCall& call, size_t i) { return i < call.in.size() && call.in[i].defined(); }

const Tensor& floats(const OnnxCall& call, size_t i, int rank = -1) {
  const Tensor& t = input(call, i);
  if (t.dtype() != DType::kF32) onnx_fail(call.node, fmt::format("input {} holds whole numbers", i));
  if (rank >= 0 && t.rank() != rank) onnx_fail(call.node, fmt::format("input {} is {}, expected {} axes", i, to_string(t.shape()), rank));
  return t;
}

Ints ints(const OnnxCall& call, size_t i) {
  const Tensor& t = input(call, i);
  if (t.dtype() != DType::kI64 || t.rank() > 1) onnx_fail(call.node, fmt::format("input {} is {}, expected a list of whole numbers", i, describe(t)));
  return t.to_vector<int64_t>();
}

Tensor list_of(const Ints& values) { return Tensor::from_vector(values, {int64_t(values.size())}); }

int axis_of(const OnnxCall& call, int64_t axis, int rank) {
  if (axis < -rank || axis >= rank) onnx_fail(call.node, fmt::format("axis {} of a value of {} axes", axis, rank));
  return int(axis < 0 ? axis + rank : axis);
}

// Before anything of this shape is made. Sizes of zero count as one: strides are products of the others.
const Shape& allowed(const OnnxCall& call, const Shape& shape) {
  int64_t count = 1;
  for (const int64_t d : shape) {
    if (d < 0 || __builtin_mul_overflow(count, std::max<int64_t>(d, 1), &count) || count > call.most) {
      onnx_fail(call.node, fmt::format("a result of {} is out of proportion to the input", to_string(shape)));
    }
  }
  return shape;
}

Shape shape_of(const OnnxCall& call, const Ints& sizes) {
  if (sizes.size() > size_t(kMaxRank)) onnx_fail(call.node, fmt::format("a result of {} axes, at most {} are run", sizes.size(), kMaxRank));
  Shape shape;
  for (const int64_t s : sizes) shape.push_back(s);
  return allowed(call, shape);
}

// --- memory order ---------------------------------------------------------------------------------------------------------------

Tensor permuted(const Tensor& t, const std::array<int, kMaxRank>& o) {
  switch (t.rank()) {
    case 2: return t.permute({o[0], o[1]});
    case 3: return t.permute({o[0], o[1], o[2]});
    case 4: return t.permute({o[0], o[1], o[2], o[3]});
    case 5: return t.permute({o[0], o[1], o[2], o[3], o[4]});
    default: return t;
  }
}

// Axis `from` becomes axis `to`, the others keep their order.
Tensor moved(const Tensor& t, int from, int to) {
  std::array<int, kMaxRank> order{};
  int next = 0;
  for (int i = 0; i < t.rank(); ++i) {
    if (next == from) ++next;
    order[size_t(i)] = i == to ? from : next++;
  }
  return permuted(t, order);
}
Tensor to_last(const Tensor& t) { return moved(t, 1, t.rank() - 1); }
Tensor from_last(const Tensor& t) { return moved(t, t.rank() - 1, 1); }

bool channels_last(const Tensor& t) { return t.rank() >= 3 && t.size(1) > 1 && t.strides()[1] == 1; }

int last_axis(int axis, int rank) { return axis == 0 ? 0 : axis == 1 ? rank - 1 : axis - 1; }  // where to_last() puts it

// --- operators ------------------------------------------------------------------------------------------------------------------

void sigmoid(OnnxCall& c) {
  const Tensor& x = floats(c, 0);
  c.out[0] = channels_last(x) ? from_last(ops::unary(UnaryOp::kSigmoid, to_last(x))) : ops::unary(UnaryOp::kSigmoid, x);
}

int64_t of_ints(const OnnxCall& c, BinaryOp op, int64_t a, int64_t b) {
  int64_t y = 0;
  bool failed = false;
  switch (op) {
    case BinaryOp::kAdd: failed = __builtin_add_overflow(a, b, &y); break;
    case BinaryOp::kSubtract: failed = __builtin_sub_overflow(a, b, &y); break;
    case BinaryOp::kMultiply: failed = __builtin_mul_overflow(a, b, &y); break;
    default: failed = b == 0 || (a == INT64_MIN && b == -1); y = failed ? 0 : a / b; break;
  }
  if (failed) onnx_fail(c.node, fmt::format("{} and {}: there is no such result", a, b));
  return y;
}

void binary(OnnxCall& c, BinaryOp op) {
  const Tensor &a = input(c, 0), &b = input(c, 1);
  if (a.dtype() != b.dtype()) onnx_fail(c.node, fmt::format("inputs are {} and {}", describe(a), describe(b)));
  const Shape shape = allowed(c, broadcast(a.shape(), b.shape()));
  if (a.dtype() == DType::kI64) {
    const Ints x = a.expand(shape).to_vector<int64_t>(), y = b.expand(shape).to_vector<int64_t>();
    Ints z;
    for (size_t i = 0; i < x.size(); ++i) z.push_back(of_ints(c, op, x[i], y[i]));
    c.out[0] = Tensor::from_vector(z, shape);
    return;
  }
  const auto alike = [&](const Tensor& t) { return t.rank() == shape.rank() || t.numel() == 1; };
  if ((channels_last(a) || channels_last(b)) && alike(a) && alike(b)) {
    const auto order = [&](const Tensor& t) { return t.rank() == shape.rank() ? to_last(t) : t; };
    c.out[0] = from_last(ops::binary(op, order(a), order(b)));
    return;
  }
  c.out[0] = ops::binary(op, a, b);
}

void concat(OnnxCall& c) {
  const int rank = input(c, 0).rank(), axis = axis_of(c, integer(c.node, "axis", 0), rank);
  const bool last = channels_last(c.in[0]);
  Shape shape = c.in[0].shape();
  shape[axis] = 0;
  std::vector<Tensor> parts;
  for (size_t i = 0; i < c.in.size(); ++i) {
    const Tensor& t = input(c, i);
    Shape fits = c.in[0].shape();
    if (t.rank() == rank) fits[axis] = t.size(axis);
    if (t.shape() != fits || t.dtype() != c.in[0].dtype()) onnx_fail(c.node, fmt::format("input {} is {}, input 0 {}", i, describe(t), describe(c.in[0])));
    if (__builtin_add_overflow(shape[axis], t.size(axis), &shape[axis])) onnx_fail(c.node, "impossible sizes");
    parts.push_back(last ? to_last(t) : t);
  }
  allowed(c, shape);
  const Tensor y = ops::concat(parts, last ? last_axis(axis, rank) : axis);
  c.out[0] = last ? from_last(y) : y;
}

void split(OnnxCall& c) {
  const Tensor& x = input(c, 0);
  const int axis = axis_of(c, integer(c.node, "axis", 0), x.rank());
  const int64_t count = int64_t(c.out.size());
  only(c.node, "num_outputs", count);
  Ints sizes;
  if (has(c, 1)) {
    sizes = ints(c, 1);
  } else if (const auto listed = attribute<Ints>(c.node, "split")) {
    sizes = *listed;
  } else {
    const int64_t each = (x.size(axis) + count - 1) / count;
    for (int64_t i = 0; i < count; ++i) sizes.push_back(std::min(each, x.size(axis) - i * each));
  }
  int64_t at = 0;
  for (size_t i = 0; i < c.out.size(); ++i) {
    if (sizes.size() != c.out.size() || sizes[i] < 0 || sizes[i] > x.size(axis) - at) {
      onnx_fail(c.node, fmt::format("parts of [{}] on axis {} of {}", fmt::join(sizes, ", "), axis, to_string(x.shape())));
    }
    c.out[i] = x.narrow(axis, at, sizes[i]);
    at += sizes[i];
  }
}

void slice(OnnxCall& c) {
  Tensor x = input(c, 0);
  const Ints starts = ints(c, 1), ends = ints(c, 2);
  Ints axes(starts.size());
  std::iota(axes.begin(), axes.end(), 0);
  if (has(c, 3)) axes = ints(c, 3);
  const Ints steps = has(c, 4) ? ints(c, 4) : Ints(starts.size(), 1);
  if (ends.size() != starts.size() || axes.size() != starts.size() || steps.size() != starts.size()) onnx_fail(c.node, "its lists differ in length");
  for (size_t i = 0; i < starts.size(); ++i) {
    if (steps[i] != 1) onnx_fail(c.node, fmt::format("a step of {}, only 1 is run", steps[i]));
    const int axis = axis_of(c, axes[i], x.rank());
    const int64_t size = x.size(axis);
    const auto within = [&](int64_t v) { return std::clamp<int64_t>(v < 0 ? std::max(v, -size) + size : v, 0, size); };
    const int64_t first = within(starts[i]);
    x = x.narrow(axis, first, std::max<int64_t>(within(ends[i]) - first, 0));
  }
  c.out[0] = x;
}

void max_pool(OnnxCall& c) {
  const Tensor& x = floats(c, 0, 4);
  only(c.node, "auto_pad", {"NOTSET", "VALID"}, "NOTSET");
  only(c.node, "ceil_mode", 0);
  only(c.node, "storage_order", 0);
  only(c.node, "dilations", Ints{1, 1});
  if (c.out.size() != 1) onnx_fail(c.node, "indices are not given out");
  const PoolParams p{even(c.node, "kernel_shape", 2, 0, 15), even(c.node, "strides", 2, 1, 15), even(c.node, "pads", 4, 0, 7)};
  if (p.kernel < 1 || p.stride < 1) onnx_fail(c.node, "a kernel or stride of 0");
  allowed(c, {x.size(0), x.size(1), (x.size(2) + 2 * p.pad) / p.stride + 1, (x.size(3) + 2 * p.pad) / p.stride + 1});
  c.out[0] = from_last(ops::max_pool2d(to_last(x), p, false).first);
}

// Twice as high and wide, each value four times.
void resize(OnnxCall& c) {
  const Tensor& x = floats(c, 0, 4);
  const bool upsample = c.node.op == "Upsample";  // until opset 9
  only(c.node, "mode", {"nearest"}, "nearest");
  if (!upsample) {
    // For a factor of two these come to the same.
    const std::string where = text(c.node, "coordinate_transformation_mode", "half_pixel"), nearest = text(c.node, "nearest_mode", "round_prefer_floor");
    const bool floor = where == "asymmetric" && nearest == "floor", centre = where == "half_pixel" && nearest.starts_with("round_prefer_");
    if (!floor && !centre) onnx_fail(c.node, fmt::format("attributes 'coordinate_transformation_mode' {} and 'nearest_mode' {} are not run together", where, nearest));
    only(c.node, "antialias", 0);
    only(c.node, "exclude_outside", 0);
    only(c.node, "keep_aspect_ratio_policy", {"stretch"}, "stretch");
  }
  bool doubles = false;
  if (const size_t at = upsample ? 1 : 2; has(c, at) && c.in[at].numel() > 0) {
    doubles = floats(c, at).to_vector<float>() == std::vector<float>{1, 1, 2, 2};
  } else if (has(c, 3)) {
    doubles = ints(c, 3) == Ints{x.size(0), x.size(1), 2 * x.size(2), 2 * x.size(3)};
  }
  if (!doubles) onnx_fail(c.node, "only twice the height and width is run");
  allowed(c, {x.size(0), x.size(1), 2 * x.size(2), 2 * x.size(3)});
  c.out[0] = from_last(ops::upsample2x(to_last(x)));
}

void conv_transpose(OnnxCall& c) {
  const Tensor &x = floats(c, 0, 4), &w = floats(c, 1, 4);
  only(c.node, "auto_pad", {"NOTSET", "VALID"}, "NOTSET");
  only(c.node, "dilations", Ints{1, 1});
  only(c.node, "group", 1);
  only(c.node, "kernel_shape", Ints{2, 2});
  only(c.node, "strides", Ints{2, 2});
  only(c.node, "pads", Ints{0, 0, 0, 0});
  only(c.node, "output_padding", Ints{0, 0});
  if (!attribute<Ints>(c.node, "strides")) onnx_fail(c.node, "attribute 'strides' is missing, only [2, 2] is run");
  const int64_t channels = w.size(1);
  if (w.size(0) != x.size(1) || w.size(2) != 2 || w.size(3) != 2) onnx_fail(c.node, fmt::format("filter {} for {}", describe(w), describe(x)));
  allowed(c, {x.size(0), channels, 2 * x.size(2), 2 * x.size(3)});
  const Tensor bias = has(c, 2) ? floats(c, 2, 1).contiguous() : Tensor::zeros({channels});
  c.out[0] = from_last(ops::conv_transpose2x2(to_last(x), w.permute({1, 2, 3, 0}).contiguous(), bias));
}

void softmax(OnnxCall& c) {
  const Tensor& x = floats(c, 0);
  const int axis = axis_of(c, integer(c.node, "axis", c.opset < 13 ? 1 : -1), x.rank());
  if (c.opset < 13 && axis != x.rank() - 1) onnx_fail(c.node, "before opset 13 only the last axis is run");
  c.out[0] = moved(ops::softmax(moved(x, axis, x.rank() - 1).contiguous()), x.rank() - 1, axis);
}

void transpose(OnnxCall& c) {
  const Tensor& x = input(c, 0);
  Ints order(size_t(x.rank()));
  for (size_t i = 0; i < order.size(); ++i) order[i] = int64_t(order.size() - 1 - i);
  order = attribute<Ints>(c.node, "perm").value_or(order);
  Ints sorted = order;
  std::sort(sorted.begin(), sorted.end());
  std::array<int, kMaxRank> axes{};
  for (size_t i = 0; i < sorted.size(); ++i) {
    if (sorted.size() != size_t(x.rank()) || sorted[i] != int64_t(i)) onnx_fail(c.node, fmt::format("attribute 'perm' [{}] for {}", fmt::join(order, ", "), describe(x)));
    axes[i] = int(order[i]);
  }
  c.out[0] = permuted(x, axes);
}

// Joins the pixels of a map, or parts its channels, where it lies; else by a copy.
Tensor reshaped(const Tensor& x, const Shape& shape) {
  const Tensor last = channels_last(x) ? to_last(x) : Tensor();
  if (last.defined() && last.layout() != Layout::kGeneral) {
    const int64_t n = x.size(0), channels = x.size(1);
    if (shape.rank() == 3 && shape[0] == n && shape[1] == channels) return last.view({n, shape[2], channels}).permute({0, 2, 1});
    if (x.rank() == 3 && shape.rank() == 4 && shape[0] == n && shape[3] == x.size(2)) {
      return last.contiguous().view({n, shape[3], shape[1], shape[2]}).permute({0, 2, 3, 1});
    }
  }
  return x.contiguous().view(shape);
}

void reshape(OnnxCall& c) {
  const Tensor& x = input(c, 0);
  const Ints wanted = ints(c, 1);
  const bool zeros_stay = integer(c.node, "allowzero", 0) == 0;
  Ints sizes = wanted;
  int64_t known = 1;
  size_t open = sizes.size();
  for (size_t i = 0; i < sizes.size(); ++i) {
    if (sizes[i] == 0 && zeros_stay && i < size_t(x.rank())) sizes[i] = x.size(int(i));
    if (sizes[i] == -1 && open == sizes.size()) {
      open = i;
    } else if (sizes[i] < 0 || __builtin_mul_overflow(known, sizes[i], &known)) {
      known = -1;
      break;
    }
  }
  if (open < sizes.size() && known > 0) sizes[open] = x.numel() / known;
  const bool fits = known >= 0 && (open < sizes.size() ? known > 0 && sizes[open] * known == x.numel() : known == x.numel());
  if (!fits) onnx_fail(c.node, fmt::format("{} as [{}]", describe(x), fmt::join(wanted, ", ")));
  c.out[0] = reshaped(x, shape_of(c, sizes));
}

void shape(OnnxCall& c) {
  const Shape& s = input(c, 0).shape();
  const int64_t rank = s.rank();
  const auto within = [&](int64_t v) { return std::clamp<int64_t>(v < 0 ? std::max(v, -rank) + rank : v, 0, rank); };
  const int64_t first = within(integer(c.node, "start", 0)), end = within(integer(c.node, "end", rank));
  Ints sizes;
  for (int64_t i = first; i < end; ++i) sizes.push_back(s[int(i)]);
  c.out[0] = list_of(sizes);
}

void gather(OnnxCall& c) {
  const Tensor& x = input(c, 0);
  const int axis = axis_of(c, integer(c.node, "axis", 0), x.rank());
  const Ints indices = ints(c, 1);
  std::vector<Tensor> parts;
  for (const int64_t i : indices) {
    if (i < -x.size(axis) || i >= x.size(axis)) onnx_fail(c.node, fmt::format("index {} on axis {} of {}", i, axis, describe(x)));
    parts.push_back(x.narrow(axis, i < 0 ? i + x.size(axis) : i, 1));
  }
  if (input(c, 1).rank() == 0) {
    c.out[0] = parts[0].select(axis, 0);
    return;
  }
  if (parts.empty()) onnx_fail(c.node, "no indices");
  Shape result = x.shape();
  result[axis] = int64_t(parts.size());
  allowed(c, result);
  c.out[0] = ops::concat(parts, axis);
}

// Sizes without, or with further, axes of size 1.
void change_axes(OnnxCall& c, bool remove) {
  const Tensor& x = input(c, 0);
  Ints axes = has(c, 1) ? ints(c, 1) : attribute<Ints>(c.node, "axes").value_or(Ints{});
  Ints sizes(x.shape().begin(), x.shape().end());
  if (remove && axes.empty()) {
    for (size_t i = 0; i < sizes.size(); ++i) {
      if (sizes[i] == 1) axes.push_back(int64_t(i));
    }
  }
  const int rank = remove ? x.rank() : x.rank() + int(std::min<size_t>(axes.size(), 16));
  for (int64_t& a : axes) a = axis_of(c, a, rank);
  std::sort(axes.begin(), axes.end());
  if (std::adjacent_find(axes.begin(), axes.end()) != axes.end()) onnx_fail(c.node, "an axis twice");
  if (remove) std::reverse(axes.begin(), axes.end());
  for (const int64_t a : axes) {
    if (remove && sizes[size_t(a)] != 1) onnx_fail(c.node, fmt::format("axis {} of {} is not of size 1", a, describe(x)));
    if (remove) sizes.erase(sizes.begin() + a);
    if (!remove) sizes.insert(sizes.begin() + a, 1);
  }
  c.out[0] = x.contiguous().view(shape_of(c, sizes));
}

void cast(OnnxCall& c) {
  const Tensor& x = input(c, 0);
  switch (integer(c.node, "to", 0)) {
    case 1: case 10: case 11: case 16: c.out[0] = x.to(DType::kF32); return;  // floating types
    case 2: case 6: case 7: break;                                        // whole numbers
    default: onnx_fail(c.node, fmt::format("attribute 'to' is {}, which is no type that is run", integer(c.node, "to", 0)));
  }
  if (x.dtype() == DType::kF32) {
    Ints values;
    for (const float v : x.to_vector<float>()) {
      if (!(std::abs(v) < 9e18f)) onnx_fail(c.node, fmt::format("{} is no whole number", v));
      values.push_back(int64_t(v));
    }
    c.out[0] = Tensor::from_vector(values, x.shape());
    return;
  }
  c.out[0] = x;
}

void range(OnnxCall& c) {
  const auto number = [&](size_t i) {
    const Tensor& t = input(c, i);
    if (t.numel() != 1 || t.dtype() != input(c, 0).dtype()) onnx_fail(c.node, fmt::format("input {} is {}", i, describe(t)));
    return t.item();
  };
  const double first = number(0), limit = number(1), step = number(2);
  const double count = std::max(std::ceil((limit - first) / step), 0.0);
  if (!(count <= double(c.most))) onnx_fail(c.node, fmt::format("from {} to {} by {}", first, limit, step));
  const bool whole = c.in[0].dtype() == DType::kI64;
  std::vector<double> values;
  for (int64_t i = 0; i < int64_t(count); ++i) values.push_back(first + double(i) * step);
  c.out[0] = Tensor::from_vector(values, {int64_t(count)}).to(whole ? DType::kI64 : DType::kF32);
}

void expand(OnnxCall& c) {
  const Tensor& x = input(c, 0);
  const Shape wanted = broadcast(x.shape(), shape_of(c, ints(c, 1)));
  c.out[0] = x.expand(allowed(c, wanted));
}

void constant_of_shape(OnnxCall& c) {
  const Shape sizes = shape_of(c, ints(c, 0));
  const auto value = attribute<Tensor>(c.node, "value");
  if (value && value->numel() != 1) onnx_fail(c.node, "attribute 'value' is not one number");
  c.out[0] = value ? onnx_number(*value).contiguous().view({}).expand(sizes) : Tensor::zeros(sizes);
}

void constant(OnnxCall& c) {
  if (const auto t = attribute<Tensor>(c.node, "value")) {
    c.out[0] = onnx_number(*t);
  } else if (const auto i = attribute<int64_t>(c.node, "value_int")) {
    c.out[0] = list_of({*i}).view({});
  } else if (const auto list = attribute<Ints>(c.node, "value_ints")) {
    c.out[0] = list_of(*list);
  } else if (const auto f = attribute<float>(c.node, "value_float")) {
    c.out[0] = Tensor::scalar(double(*f));
  } else if (const auto numbers = attribute<std::vector<float>>(c.node, "value_floats")) {
    c.out[0] = Tensor::from_vector(*numbers, {int64_t(numbers->size())});
  } else {
    onnx_fail(c.node, "it has no value");
  }
}

// --- the table ------------------------------------------------------------------------------------------------------------------

struct Operator {
  std::string_view name;
  void (*run)(OnnxCall&);
  std::vector<std::string_view> attributes;
};

const std::vector<Operator>& operators() {
  static const std::vector<Operator> list = {
      {"Conv", nullptr, {"auto_pad", "dilations", "group", "kernel_shape", "pads", "strides"}},
      {"ConvTranspose", conv_transpose, {"auto_pad", "dilations", "group", "kernel_shape", "output_padding", "pads", "strides"}},
      {"MaxPool", max_pool, {"auto_pad", "ceil_mode", "dilations", "kernel_shape", "pads", "storage_order", "strides"}},
      {"Resize", resize,
       {"antialias", "coordinate_transformation_mode", "cubic_coeff_a", "exclude_outside", "extrapolation_value",
        "keep_aspect_ratio_policy", "mode", "nearest_mode"}},
      {"Upsample", resize, {"mode"}},
      {"Sigmoid", sigmoid, {}},
      {"Softmax", softmax, {"axis"}},
      {"Add", [](OnnxCall& c) { binary(c, BinaryOp::kAdd); }, {}},
      {"Sub", [](OnnxCall& c) { binary(c, BinaryOp::kSubtract); }, {}},
      {"Mul", [](OnnxCall& c) { binary(c, BinaryOp::kMultiply); }, {}},
      {"Div", [](OnnxCall& c) { binary(c, BinaryOp::kDivide); }, {}},
      {"Concat", concat, {"axis"}},
      {"Split", split, {"axis", "num_outputs", "split"}},
      {"Slice", slice, {}},
      {"Reshape", reshape, {"allowzero"}},
      {"Transpose", transpose, {"perm"}},
      {"Identity", [](OnnxCall& c) { c.out[0] = input(c, 0); }, {}},
      {"Constant", constant, {"value", "value_float", "value_floats", "value_int", "value_ints"}},
      {"ConstantOfShape", constant_of_shape, {"value"}},
      {"Shape", shape, {"end", "start"}},
      {"Gather", gather, {"axis"}},
      {"Unsqueeze", [](OnnxCall& c) { change_axes(c, false); }, {"axes"}},
      {"Squeeze", [](OnnxCall& c) { change_axes(c, true); }, {"axes"}},
      {"Cast", cast, {"saturate", "to"}},
      {"Range", range, {}},
      {"Expand", expand, {}},
  };
  return list;
}

const Operator* find(std::string_view name) {
  const auto it = std::find_if(operators().begin(), operators().end(), [&](const Operator& o) { return o.name == name; });
  return it == operators().end() ? nullptr : &*it;
}

}  // namespace

void check_onnx_node(const OnnxNode& node, const std::string& file) {
  const Operator* known = find(node.op);
  const auto refuse = [&](const std::string& what) {
    std::vector<std::string_view> names;
    for (const Operator& o : operators()) names.push_back(o.name);
    throw Error(ErrorCode::kData, fmt::format("node '{}' ({}): {}", node.name, node.op, what), {file},
                fmt::format("run are YOLOv8-seg files of Tessera and of the original, exported without nms and int8: {}", fmt::join(names, " ")));
  };
  if (known == nullptr) refuse("this operator is not run here");
  for (const OnnxAttribute& a : node.attributes) {
    if (std::find(known->attributes.begin(), known->attributes.end(), a.name) == known->attributes.end()) {
      refuse(fmt::format("attribute '{}' is not known", a.name));
    }
  }
  if (node.outputs.empty()) refuse("it has no result");
}

OnnxConv prepare_onnx_conv(const OnnxNode& node, const Tensor& weight, const Tensor& bias) {
  if (!weight.defined() || weight.dtype() != DType::kF32 || weight.rank() != 4) onnx_fail(node, "its filter is no constant of four axes");
  const int64_t k = weight.size(2);
  if (weight.numel() == 0 || weight.size(3) != k || k > 15) onnx_fail(node, fmt::format("filter {}: only square ones up to 15 are run", describe(weight)));
  only(node, "auto_pad", {"NOTSET", "VALID"}, "NOTSET");
  only(node, "dilations", Ints{1, 1});
  only(node, "group", 1);
  only(node, "kernel_shape", Ints{k, k});
  const ConvParams p{even(node, "strides", 2, 1, 8), even(node, "pads", 4, 0, k / 2)};
  if (p.stride < 1) onnx_fail(node, "a stride of 0");
  OnnxConv out;
  out.bias = bias.defined() ? bias.contiguous() : Tensor::zeros({weight.size(0)});
  if (out.bias.dtype() != DType::kF32 || out.bias.rank() != 1 || out.bias.size(0) != weight.size(0)) onnx_fail(node, fmt::format("bias {} for filter {}", describe(bias), describe(weight)));
  out.filter = ops::PackedFilter(weight.permute({0, 2, 3, 1}).contiguous(), p);
  return out;
}

Tensor run_onnx_conv(const OnnxConv& conv, const Tensor& x, const OnnxCall& call) {
  const Shape& w = conv.filter.shape();
  const int64_t pad = conv.filter.params().pad, stride = conv.filter.params().stride;
  if (!x.defined() || x.rank() != 4 || x.dtype() != DType::kF32 || x.size(1) != w[3] || x.size(2) + 2 * pad < w[1] || x.size(3) + 2 * pad < w[2]) {
    onnx_fail(call.node, fmt::format("{} for filters of {} channels, {} x {}", x.defined() ? describe(x) : "nothing", w[3], w[1], w[2]));
  }
  allowed(call, {x.size(0), w[0], (x.size(2) + 2 * pad - w[1]) / stride + 1, (x.size(3) + 2 * pad - w[2]) / stride + 1});
  return from_last(ops::conv2d(to_last(x), conv.filter, conv.bias, conv.activation));
}

void run_onnx_node(OnnxCall& call) { find(call.node.op)->run(call); }

}  // namespace tessera
