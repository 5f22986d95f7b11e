// One OpCase per op and shape states what a kernel reads and writes; the harness runs it on every backend, in every layout that the
// contract allows, and compares with the reference backend in f64. The reference itself is held by goldens and gradient checks.
//
// What each case is put through, per backend (and per instruction set of the CPU backend) and element type:
//   dense          against the reference; a second run and a run with three threads give the same bits; on a device, in place of
//                  the threads, in buffers that end where the tensors do, as in a build with the address sanitizer beside them: for
//                  checkers that know the bounds of buffers
//   pitched        rows inside a wider buffer, at an aligned and at an odd offset
//   strided        memory order reversed, where the contract takes any strides
//   in place       where an output may be an input
//   accumulate     adds to what was there; twice gives twice
// Every byte around an input is 0xff (NaN): reading it spoils the result. Every byte around an output is 0xa5: writing it is
// reported.
#pragma once

#include <doctest/doctest.h>

#include <bit>
#include <chrono>
#include <cmath>
#include <cstring>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "tensor/backend.h"
#include "tensor/base/parallel.h"
#include "tensor/base/rng.h"
#include "tensor/conv_choice.h"
#include "tensor/cpu/targets.h"
#include "tensor/tensor.h"

namespace tessera::testing {

enum class Role { kIn, kOut, kInOut };
enum class Fit { kDense, kRows, kStrided };  // the loosest layout that the contract takes
using Values = std::function<double(Rng& rng, int64_t i)>;

inline Values uniform(double low, double high) {
  return [=](Rng& rng, int64_t) { return rng.uniform(low, high); };
}
// Whole numbers low .. high: exact in every type, and full of ties.
inline Values whole(int64_t low, int64_t high) {
  return [=](Rng& rng, int64_t) { return double(low + rng.below(high - low + 1)); };
}

// These, in row-major order.
inline Values listed(std::vector<double> values) {
  return [values = std::move(values)](Rng&, int64_t i) { return values[size_t(i)]; };
}

struct Slot {
  std::string name;
  Shape shape;
  Role role = Role::kIn;
  Fit fit = Fit::kRows;
  Values values = uniform(-1, 1);
  std::optional<DType> type{};  // unset: the type that the case runs in
  bool wide = false;            // f32 where the case runs in 16 bits: sums and per-channel vectors

  DType type_in(DType of_case) const { return type.value_or(wide ? wide_of(of_case) : of_case); }
};

// The tensors of one run, by slot name.
class Bound {
 public:
  void bind(const std::string& name, const Tensor& t) { tensors_[name] = t; }
  const Tensor& operator[](std::string_view name) const { return tensors_.find(name)->second; }
  RowsView rows(std::string_view name) const { return (*this)[name].rows(); }
  ImageView image(std::string_view name) const { return (*this)[name].image(); }
  FilterView filter(std::string_view name) const { return (*this)[name].filter(); }
  StridedView strided(std::string_view name) const { return (*this)[name].strided(); }
  void* raw(std::string_view name) const { return (*this)[name].raw(); }

 private:
  std::map<std::string, Tensor, std::less<>> tensors_;
};

struct OpCase {
  std::string method;  // of Backend: what the coverage test looks for
  std::string detail;
  std::vector<Slot> slots;
  std::function<double(Backend&, const Bound&, bool accumulate)> run;  // returns the op's number, or 0
  std::vector<DType> types = {DType::kF32};
  double length = 1;          // terms of the longest sum behind one output
  double magnitude = 1;       // tolerance: epsilon * (8 + length / 4) * (magnitude + |reference|)
  double winograd = 0;    // times this where a convolution takes Winograd's form (0: it has none): two further rows of backends
  bool exact = false;     // no tolerance at all
  bool rounded_once = false;  // 16-bit results: within 1.01 half units in the last place of what is within the tolerance of f32
  bool accumulates = false;
  std::vector<std::pair<std::string, std::string>> in_place{};  // (output, input) that may be one
  double flops = 0;
};

namespace op_case {

inline double epsilon(DType t) {
  switch (t) {
    case DType::kF64: return 0x1p-52;
    case DType::kF32: return 0x1p-23;
    case DType::kBF16: return 0x1p-7;
    case DType::kF16: return 0x1p-10;
    default: return 0;
  }
}

// Elements by hand: a test of copy kernels may not rest on them.
inline void store(const Tensor& t, int64_t offset, double v) {
  switch (t.dtype()) {
    case DType::kF64: t.data<double>()[offset] = v; break;
    case DType::kF32: t.data<float>()[offset] = float(v); break;
    case DType::kBF16: t.data<BFloat16>()[offset] = BFloat16(float(v)); break;
    case DType::kF16: t.data<Half>()[offset] = Half(float(v)); break;
    case DType::kI64: t.data<int64_t>()[offset] = int64_t(v); break;
    case DType::kI32: t.data<int32_t>()[offset] = int32_t(v); break;
    case DType::kU8: t.data<uint8_t>()[offset] = uint8_t(v); break;
    case DType::kBool: t.data<bool>()[offset] = v != 0; break;
  }
}
inline double load(const Tensor& t, int64_t offset) {
  switch (t.dtype()) {
    case DType::kF64: return t.data<double>()[offset];
    case DType::kF32: return double(t.data<float>()[offset]);
    case DType::kBF16: return double(float(t.data<BFloat16>()[offset]));
    case DType::kF16: return double(float(t.data<Half>()[offset]));
    case DType::kI64: return double(t.data<int64_t>()[offset]);
    case DType::kI32: return double(t.data<int32_t>()[offset]);
    case DType::kU8: return double(t.data<uint8_t>()[offset]);
    case DType::kBool: return double(t.data<bool>()[offset]);
  }
  return 0;
}
inline int64_t offset_of(int64_t i, const Tensor& t) {
  int64_t offset = 0;
  for (int axis = t.rank() - 1; axis >= 0; --axis) {
    offset += i % t.shape()[axis] * t.strides()[axis];
    i /= t.shape()[axis];
  }
  return offset;
}
inline std::vector<double> values_of(const Tensor& t) {
  std::vector<double> values(size_t(t.numel()));
  for (size_t i = 0; i < values.size(); ++i) values[i] = load(t, offset_of(int64_t(i), t));
  return values;
}

enum class Placement { kDense, kExact, kPitchedAligned, kPitchedOdd, kReversed };  // kExact: dense, with nothing around it

// A tensor inside a larger buffer. Of a tensor on a device this is the host's image of it: filled here, uploaded before the run and
// downloaded after it, with what lies around the tensor.
struct Placed {
  Tensor buffer;
  Tensor tensor;
  unsigned char around = 0xff;
  Tensor device_buffer{};  // undefined for the host
  Tensor device_tensor{};

  const Tensor& used() const { return device_buffer.defined() ? device_tensor : tensor; }
  size_t bytes() const { return size_t(buffer.numel()) * size_of(buffer.dtype()); }
  void upload(Backend& backend) const {
    if (device_buffer.defined()) backend.upload(device_buffer.raw(), buffer.raw(), bytes());
  }
  void download(Backend& backend) const {
    if (device_buffer.defined()) backend.download(buffer.raw(), device_buffer.raw(), bytes());
  }

  // Number of elements outside the tensor that were written.
  int64_t disturbed() const {
    std::vector<bool> inside(size_t(buffer.numel()), false);
    for (int64_t i = 0; i < tensor.numel(); ++i) inside[size_t(tensor.offset() + offset_of(i, tensor))] = true;
    const size_t size = size_of(buffer.dtype());
    const std::vector<unsigned char> untouched(size, around);
    int64_t count = 0;
    for (size_t i = 0; i < inside.size(); ++i) {
      if (!inside[i]) count += std::memcmp(static_cast<char*>(buffer.raw()) + i * size, untouched.data(), size) != 0;
    }
    return count;
  }
};

inline Placed place(const Slot& slot, DType type, Placement placement, Device device) {
  const Shape& s = slot.shape;
  if (placement == Placement::kReversed && (slot.fit != Fit::kStrided || s.rank() < 2)) placement = Placement::kDense;
  if (placement != Placement::kExact && (slot.fit == Fit::kDense || s.rank() == 0)) placement = Placement::kDense;
  constexpr int64_t kGuard = 16;
  const int64_t around = placement == Placement::kExact ? 0 : kGuard;
  Shape memory = s;  // the shape that is dense in memory
  int64_t before = 0;
  if (placement == Placement::kPitchedAligned || placement == Placement::kPitchedOdd) {
    if (placement == Placement::kPitchedOdd) {
      before = 3;
      memory[s.rank() - 1] += before + 2;
    } else {
      // Rows start at multiples of 16 elements whatever their length: wide accesses meet rows that end inside one.
      before = kGuard;
      memory[s.rank() - 1] = before + (s.back() / kGuard + 1) * kGuard;
    }
  } else if (placement == Placement::kReversed) {
    for (int i = 0; i < s.rank(); ++i) memory[i] = s[s.rank() - 1 - i];
  }
  Placed p;
  p.buffer = Tensor::empty({numel(memory) + 2 * around}, type);
  p.around = slot.role == Role::kIn ? 0xff : 0xa5;
  if (p.buffer.numel() > 0) std::memset(p.buffer.raw(), p.around, size_t(p.buffer.numel()) * size_of(type));
  auto inside = [&](const Tensor& buffer) {
    Tensor t = buffer.narrow(0, around, numel(memory)).view(memory);
    if (before > 0) t = t.narrow(-1, before, s.back());
    if (placement != Placement::kReversed) return t;
    if (s.rank() == 2) return t.permute({1, 0});
    if (s.rank() == 3) return t.permute({2, 1, 0});
    if (s.rank() == 4) return t.permute({3, 2, 1, 0});
    return t.permute({4, 3, 2, 1, 0});
  };
  p.tensor = inside(p.buffer);
  if (device.kind != Device::Kind::kCpu) {
    p.device_buffer = Tensor::empty(p.buffer.shape(), type, device);
    p.device_tensor = inside(p.device_buffer);
  }
  // Outputs start as NaN: what is left unwritten, or added to when it should not be, shows.
  for (int64_t i = 0; i < p.tensor.numel(); ++i) {
    std::memset(static_cast<char*>(p.tensor.raw()) + offset_of(i, p.tensor) * int64_t(size_of(type)), 0xff, size_of(type));
  }
  return p;
}

struct Plan {
  DType type;        // of the slots that have none of their own
  DType value_type;  // inputs are rounded to this type first
  Placement placement = Placement::kDense;
  bool in_place = false;
  bool accumulate_first = false;  // add to the initial values of the outputs
  int runs = 1;                   // from the second on accumulating
};

struct Outcome {
  double number = 0;
  std::map<std::string, std::vector<double>> outputs;
  int64_t disturbed = 0;
  double seconds = 0;

  bool same_bits(const Outcome& other) const {
    if (std::bit_cast<uint64_t>(number) != std::bit_cast<uint64_t>(other.number)) return false;
    for (const auto& [name, values] : outputs) {
      const auto& theirs = other.outputs.at(name);
      if (!values.empty() && std::memcmp(values.data(), theirs.data(), values.size() * sizeof(double)) != 0) return false;
    }
    return true;
  }
};

inline Outcome execute(const OpCase& c, Backend& backend, const Plan& plan) {
  const Device device{backend.device_kind(), 0};
  Bound bound;
  std::map<std::string, Placed> placed;
  uint64_t stream = 0;
  for (const Slot& slot : c.slots) {
    Placed p = place(slot, slot.type_in(plan.type), plan.placement, device);
    Rng rng(17, RngPurpose::kTest, stream++);
    const Tensor rounding = Tensor::empty({1}, slot.type_in(plan.value_type));
    const bool filled = slot.role != Role::kOut || plan.accumulate_first;
    for (int64_t i = 0; filled && i < p.tensor.numel(); ++i) {
      store(rounding, 0, slot.values(rng, i));
      store(p.tensor, offset_of(i, p.tensor), load(rounding, 0));
    }
    p.upload(backend);
    bound.bind(slot.name, p.used());
    placed.emplace(slot.name, p);
  }
  if (plan.in_place) {
    for (const auto& [output, input] : c.in_place) bound.bind(output, bound[input]);
  }
  Outcome result;
  const auto start = std::chrono::steady_clock::now();
  for (int run = 0; run < plan.runs; ++run) result.number = c.run(backend, bound, plan.accumulate_first || run > 0);
  backend.synchronize();
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  std::map<std::string, std::string> written_to;  // the slot whose memory an output has
  if (plan.in_place) written_to.insert(c.in_place.begin(), c.in_place.end());
  for (const auto& [name, p] : placed) {
    p.download(backend);
    result.disturbed += p.disturbed();
  }
  for (const Slot& slot : c.slots) {
    if (slot.role == Role::kIn) continue;
    const auto it = written_to.find(slot.name);
    result.outputs[slot.name] = values_of(placed.at(it == written_to.end() ? slot.name : it->second).tensor);
  }
  return result;
}

// Empty when every output is within tolerance of the reference; else what is worst.
inline std::string difference(const OpCase& c, DType type, const Outcome& got, const Outcome& want, double factor = 1,
                              double rounding = 1) {
  auto allowed = [&](DType t, double reference) {
    if (c.exact) return 0.0;
    const double size = std::abs(reference);
    const bool once = c.rounded_once && wide_of(t) != t;
    const double computed = factor * rounding * epsilon(once ? DType::kF32 : t) * (8 + c.length / 4) * (c.magnitude + size);
    return computed + (once ? 1.01 * factor * epsilon(t) / 2 * size : 0);
  };
  std::string worst;
  double worst_ratio = 1;
  auto compare = [&](const std::string& what, DType t, double value, double reference) {
    reference *= factor;
    if (value == reference || (std::isnan(value) && std::isnan(reference))) return;
    const double error = std::abs(value - reference);
    const double ratio = std::isfinite(error) ? error / std::max(allowed(t, reference), 1e-300) : 1e300;
    if (!(ratio > worst_ratio)) return;
    worst_ratio = ratio;
    worst = fmt::format("{} = {}, reference {}, allowed error {:.3g}", what, value, reference, allowed(t, reference));
  };
  compare("result", type == DType::kF64 ? DType::kF64 : DType::kF32, got.number, want.number);
  for (const Slot& slot : c.slots) {
    if (slot.role == Role::kIn) continue;
    const auto& values = got.outputs.at(slot.name);
    const auto& references = want.outputs.at(slot.name);
    const DType stored = slot.type_in(type);
    const DType formed = stored == DType::kF64 ? wide_of(type) : stored;  // no more digits than what it is formed from
    for (size_t i = 0; i < values.size(); ++i) compare(fmt::format("{}[{}]", slot.name, i), formed, values[i], references[i]);
  }
  return worst;
}

// A backend, with one of its instruction sets and of its forms of convolution.
struct Row {
  Backend* backend;
  std::string_view target;  // empty: it has only one
  bool winograd = false;    // convolutions by Winograd's form where there is one; else direct
};

inline std::vector<Row> rows(Device::Kind kind) {
  std::vector<Row> list;
  for (Backend* b : available_backends()) {
    if (b->device_kind() != kind) continue;
    if (kind != Device::Kind::kCpu || b->name() == "ref") {
      list.push_back({b, {}});
    } else {
      for (std::string_view target : cpu::runnable_targets()) {
        for (bool winograd : {false, true}) list.push_back({b, target, winograd});
      }
    }
  }
  return list;
}

inline void use(const Row& row) {
  if (row.target.empty()) return;
  cpu::force_target(row.target);
  set_conv_choice(row.winograd ? "own" : "direct");
}

// Restores thread count, instruction set and kernels of convolutions when a test ends.
class Settings {
 public:
  Settings() : threads_(compute_threads()), target_(cpu::current_target()), conv_(name_of(conv_choice())) {}
  ~Settings() {
    set_conv_choice(conv_);
    set_compute_threads(threads_);
    if (!target_.empty()) cpu::force_target(target_);
  }
  Settings(const Settings&) = delete;
  Settings& operator=(const Settings&) = delete;

 private:
  int threads_;
  std::string_view target_, conv_;
};

// What the reference backend makes of a case in f64 (integers: in their type), from inputs rounded to `type`.
struct Reference {
  Outcome once;
  Outcome accumulated;  // onto the initial values of the outputs; only for cases that accumulate

  Reference(const OpCase& c, DType type) {
    const DType wide = is_floating(type) ? DType::kF64 : type;
    Backend& ref = *find_backend("ref");
    once = execute(c, ref, {.type = wide, .value_type = type});
    if (c.accumulates) accumulated = execute(c, ref, {.type = wide, .value_type = type, .accumulate_first = true});
  }
};

// Kernels of this project give the same bits each time; a vendor's may not unless asked to.
inline bool bits_repeat = true;
// The address sanitizer knows where buffers of the host end.
#if defined(__SANITIZE_ADDRESS__)
inline constexpr bool kBoundsKnown = true;
#else
inline constexpr bool kBoundsKnown = false;
#endif
// And may sum f32 in other forms (Winograd's), with errors so many times as large.
inline double vendor_rounding = 1;

inline void run_on(const OpCase& c, const Row& row, DType type, const Reference& reference) {
  if (row.winograd && c.winograd == 0) return;
  use(row);
  const std::string label =
      fmt::format("{} {} {} on {}{}", c.method, c.detail, name_of(type), row.backend->name(), row.winograd ? " (Winograd)" : "");
  auto compare = [&](const std::string& variant, const Plan& plan, double factor = 1) {
    const Outcome got = execute(c, *row.backend, plan);
    const std::string why = difference(c, type, got, plan.accumulate_first ? reference.accumulated : reference.once, factor,
                                       row.winograd ? c.winograd : vendor_rounding);
    CHECK_MESSAGE(why.empty(), label, ", ", variant, ": ", why);
    CHECK_MESSAGE(got.disturbed == 0, label, ", ", variant, ": ", got.disturbed, " elements outside the tensors were written");
    return got;
  };
  const Plan dense{.type = type, .value_type = type};
  set_compute_threads(1);
  const Outcome first = compare("dense", dense);
  CHECK_MESSAGE((!bits_repeat || execute(c, *row.backend, dense).same_bits(first)), label, ": a second run gives other bits");
  set_compute_threads(3);
  const bool on_host = row.backend->device_kind() == Device::Kind::kCpu;
  Plan again = dense;
  if (!on_host || kBoundsKnown) again.placement = Placement::kExact;
  CHECK_MESSAGE((!bits_repeat || execute(c, *row.backend, again).same_bits(first)), label,
                on_host ? ": three threads give other bits than one" : ": buffers that end with the tensors give other bits");
  compare("pitched", {.type = type, .value_type = type, .placement = Placement::kPitchedAligned});
  compare("pitched at an odd offset", {.type = type, .value_type = type, .placement = Placement::kPitchedOdd});
  bool strided = false;
  for (const Slot& slot : c.slots) strided = strided || slot.fit == Fit::kStrided;
  if (strided) compare("strided", {.type = type, .value_type = type, .placement = Placement::kReversed});
  if (!c.in_place.empty()) {
    compare("in place", {.type = type, .value_type = type, .in_place = true});
    compare("in place, pitched", {.type = type, .value_type = type, .placement = Placement::kPitchedOdd, .in_place = true});
  }
  if (c.accumulates) {
    compare("accumulate", {.type = type, .value_type = type, .accumulate_first = true});
    compare("accumulate, pitched",
            {.type = type, .value_type = type, .placement = Placement::kPitchedOdd, .accumulate_first = true});
    compare("accumulated twice", {.type = type, .value_type = type, .runs = 2}, 2);
  }
}

}  // namespace op_case

// Every case on every backend of one kind of device.
inline void run_cases(const std::vector<OpCase>& cases, Device::Kind kind = Device::Kind::kCpu) {
  const op_case::Settings restored;
  for (const OpCase& c : cases) {
    for (DType type : c.types) {
      const op_case::Reference reference(c, type);
      for (const op_case::Row& row : op_case::rows(kind)) op_case::run_on(c, row, type, reference);
    }
  }
}

// Prints GB/s (each slot moved once) and GFLOP/s of every case: run with --no-skip --test-case="op rates". Of a device this is the
// time from the call until the device is done.
inline void print_rates(const std::vector<OpCase>& cases, Device::Kind kind = Device::Kind::kCpu) {
  const op_case::Settings restored;
  for (const OpCase& c : cases) {
    double bytes = 0;
    for (const Slot& slot : c.slots) bytes += double(numel(slot.shape)) * double(size_of(slot.type_in(c.types[0])));
    for (const op_case::Row& row : op_case::rows(kind)) {
      if (row.winograd && c.winograd == 0) continue;
      use(row);
      double best = 1e30;
      for (int i = 0; i < 5; ++i) {
        best = std::min(best, op_case::execute(c, *row.backend, {.type = c.types[0], .value_type = c.types[0]}).seconds);
      }
      fmt::print("{:28} {:24} {:8} {:9.3f} ms {:8.2f} GB/s {:8.2f} GFLOP/s\n", c.method, c.detail, row.backend->name(), best * 1e3,
                 bytes / best * 1e-9, c.flops / best * 1e-9);
    }
  }
}

}  // namespace tessera::testing
