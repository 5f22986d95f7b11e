#include "cuda/conv_vendor.h"

#include <cstdio>
#include <limits>
#include <optional>
#include <utility>

#include "cuda/check.h"
#include "cuda/context.h"
#include "cuda/kernels.h"
#include "cuda/vendor/limits.h"
#include "tensor/base/standard_streams.h"

namespace tessera::cuda::vendor {

namespace {

using ConvCache = PlanCache<ConvKey, ConvPlan>;
using GemmCache = PlanCache<GemmKey, GemmPlan>;

template <class Planner, class Cache>
struct Library {
  std::unique_ptr<Planner> planner;
  Cache cache;
  double most_seconds = std::numeric_limits<double>::infinity();  // for plans of all keys
};
using ConvLibrary = Library<ConvPlanner, ConvCache>;
using GemmLibrary = Library<GemmPlanner, GemmCache>;

// Never destroyed: the driver may be gone by then.
std::unique_ptr<ConvLibrary>& conv_library() {
  static auto* const l = new std::unique_ptr<ConvLibrary>(new ConvLibrary{make_cudnn_planner(), ConvCache(most_workspace()), plan_seconds()});
  return *l;
}
std::unique_ptr<GemmLibrary>& gemm_library() {
  static auto* const l = new std::unique_ptr<GemmLibrary>(new GemmLibrary{make_cublaslt_planner(), GemmCache(most_workspace())});
  return *l;
}

size_t bytes_of(const ImageView& v) { return size_t(v.n * v.h * v.w * v.pitch) * size_of(v.t); }
size_t bytes_of(const FilterView& v) { return size_t(v.o * v.kh * v.kw * v.i) * size_of(v.t); }

// Memory that a library works in. It wants more alignment than the allocator gives: cuBLASLt answers 64 bytes with "an unsupported
// value or parameter".
class Workspace {
 public:
  explicit Workspace(size_t bytes) {
    if (bytes > 0) memory_.emplace(int64_t(bytes + kAlignment));
  }
  void* get() const {
    return memory_ ? memory_->get() + (kAlignment - reinterpret_cast<uintptr_t>(memory_->get()) % kAlignment) % kAlignment : nullptr;
  }

 private:
  static constexpr size_t kAlignment = 256;
  std::optional<Scratch<std::byte>> memory_;
};

// Where the result of a trial goes: as much aligned as the real one, and no more.
class TrialResult {
 public:
  TrialResult(size_t bytes, int32_t alignment) : memory_(int64_t(bytes) + alignment), alignment_(alignment) {}
  void* get() const { return memory_.get() + alignment_; }

 private:
  Scratch<std::byte> memory_;
  int32_t alignment_;
};

// The seconds of a plan on the buffers at hand. In deterministic mode no time counts: whether it runs.
template <class Plan, class Buffers>
double try_plan(const Plan& plan, const Buffers& buffers, bool deterministic, double least) {
  const Workspace workspace(plan.workspace_bytes());
  const auto start = [&] { plan.run(buffers, workspace.get(), current_stream()); };
  try {
    if (!deterministic) return least_seconds(start, least);
    start();
    synchronize();
    return 0;
  } catch (const Error&) {
    (void)cudaGetLastError();  // else the next kernel is blamed for it
    throw;
  }
}

// The entry of a key. While a graph is recorded nothing can be planned or timed: null, and the project's own kernels are recorded.
// The warm steps before have planned whatever they need.
template <class Cache, class Key, class Make, class Trial>
const typename Cache::Entry* entry_of(Cache& cache, const Key& key, const Make& make, const Trial& trial) {
  if (recording()) return cache.find_planned(key);
  return &cache.find(key, make, trial, key.deterministic ? Cache::Rule::kFirstThatRuns : Cache::Rule::kFastest);
}

void say_once(bool& said, const std::string& line) {
  if (!std::exchange(said, true)) print_stderr("note: {}\n", line);
}

// Whether the plan of an entry was started. One that does not start is struck off: the project's own kernels do that shape then.
template <class Cache, class Key, class Buffers>
bool run_entry(Cache& cache, const Key& key, const typename Cache::Entry* entry, const Buffers& buffers) {
  if (entry == nullptr || entry->plan == nullptr) return false;
  const Workspace workspace(entry->plan->workspace_bytes());
  try {
    entry->plan->run(buffers, workspace.get(), current_stream());
  } catch (const Error& e) {
    (void)cudaGetLastError();
    cache.strike(key, e.message());
    static bool said = false;
    say_once(said, e.message() + "; the project's own kernels do it from here on, and whatever else is refused so");
    return false;
  }
  return true;
}

// Plans for a key that has none; `spent`: seconds that went into plans so far. To compile a plan takes long: only the library's
// best guess is, and half of the time is left for plain convolutions.
ConvCache::Offer offer_plans(const ConvLibrary& l, const ConvKey& key, double spent) {
  constexpr size_t kCompiledPlans = 1, kPlainPlans = 3;  // the heuristics put the good ones first
  const bool compiled = is_compiled(key);
  if (!key.deterministic && spent > (compiled ? l.most_seconds / 2 : l.most_seconds)) {
    static bool said = false;
    say_once(said,
             fmt::format("{:.0f} s went into plans of cuDNN, of at most {:.0f} (TESSERA_PLAN_SECONDS): not all shapes have one, "
                         "the others run as own",
                         spent, l.most_seconds));
    return {{}, "no time was left to plan it"};
  }
  ConvPlans plans = l.planner->plans(key, compiled ? kCompiledPlans : kPlainPlans);
  return {std::move(plans.list), std::move(plans.refusal)};
}

// What a pass writes: its place among the buffers, and its alignment in the key.
struct ResultOfPass {
  void* ConvBuffers::*place;
  int32_t ConvKey::*alignment;
};
ResultOfPass result_of(ConvPass pass) {
  switch (pass) {
    case ConvPass::kForward: break;
    case ConvPass::kBackwardData: return {&ConvBuffers::x, &ConvKey::x_alignment};
    case ConvPass::kBackwardWeight: return {&ConvBuffers::w, &ConvKey::w_alignment};
  }
  return {&ConvBuffers::y, &ConvKey::y_alignment};
}

bool run(const ConvKey& key, const ConvBuffers& buffers, size_t result_bytes) {
  if (is_compiled(key) && size_of(key.dtype()) == 2 && !lies_in_packs(key)) return false;
  ConvLibrary& l = *conv_library();
  const double spent = l.cache.stats().seconds;  // asked here: the cache is locked while it calls `make`
  const auto make = [&](const ConvKey& k) { return offer_plans(l, k, spent); };
  const auto trial = [&](const ConvPlan& plan, double least) {
    const ResultOfPass written = result_of(key.which());
    const TrialResult result(result_bytes, key.*written.alignment);
    ConvBuffers b = buffers;
    b.*written.place = result.get();
    return try_plan(plan, b, key.deterministic, least);
  };
  return run_entry(l.cache, key, entry_of(l.cache, key, make, trial), buffers);
}

ConvRules rules() { return {deterministic(), tf32(), device().index}; }

}  // namespace

bool has_conv() { return conv_library()->planner != nullptr; }
bool has_gemm() { return gemm_library()->planner != nullptr; }

bool conv2d(const ImageView& x, const FilterView& w, const ImageView& y, const ConvParams& p, const ConvEpilogue& epilogue) {
  if (!has_conv()) return false;
  return run(forward_key(x, w, y, p, epilogue, rules()), {x.p, w.p, y.p, epilogue.bias, epilogue.residual.p}, bytes_of(y));
}

bool conv2d_backward_data(const ImageView& dy, const FilterView& w, const ImageView& dx, const ConvParams& p, bool accumulate) {
  if (!has_conv()) return false;
  if (run(backward_data_key(dy, w, dx, p, accumulate, rules()), {dx.p, w.p, dy.p}, bytes_of(dx))) return true;
  if (!accumulate) return false;
  const Scratch<std::byte> product(dx.n * dx.h * dx.w * dx.c * int64_t(size_of(dx.t)));
  const ImageView into{product.get(), dx.t, dx.n, dx.h, dx.w, dx.c, dx.c};
  if (!run(backward_data_key(dy, w, into, p, false, rules()), {into.p, w.p, dy.p}, bytes_of(into))) return false;
  add_scaled(into.rows(), 1, dx.rows());
  return true;
}

bool conv2d_backward_weight(const ImageView& x, const ImageView& dy, const FilterView& dw, const ConvParams& p, bool accumulate) {
  if (!has_conv()) return false;
  if (run(backward_weight_key(x, dy, dw, p, accumulate, rules()), {x.p, dw.p, dy.p}, bytes_of(dw))) return true;
  if (!accumulate) return false;
  const Scratch<std::byte> product{int64_t(bytes_of(dw))};
  const FilterView into{product.get(), dw.t, dw.o, dw.kh, dw.kw, dw.i};
  if (!run(backward_weight_key(x, dy, into, p, false, rules()), {x.p, into.p, dy.p}, bytes_of(into))) return false;
  const int64_t count = dw.o * dw.kh * dw.kw * dw.i;
  add_scaled({into.p, dw.t, 1, count, count}, 1, {dw.p, dw.t, 1, count, count});
  return true;
}

bool matmul(const MatrixView& a, const MatrixView& b, const MatrixView& c, bool accumulate) {
  if (!has_gemm()) return false;
  const std::optional<GemmKey> key = gemm_key(a, b, c, accumulate, {deterministic(), tf32(), device().index});
  if (!key) return false;
  GemmLibrary& l = *gemm_library();
  const auto make = [&](const GemmKey& k) {
    GemmPlans plans = l.planner->plans(k, l.cache.most_workspace());
    return GemmCache::Offer{std::move(plans.list), std::move(plans.refusal)};
  };
  const auto trial = [&](const GemmPlan& plan, double least) {
    const int64_t elements = int64_t(key->batch - 1) * key->c_batch_step + (key->c_transposed ? key->cols : key->rows) * key->c_step;
    const TrialResult result(size_t(elements) * size_of(c.t), key->c_alignment);
    return try_plan(plan, GemmBuffers{a.p, b.p, result.get()}, key->deterministic, least);
  };
  return run_entry(l.cache, *key, entry_of(l.cache, *key, make, trial), GemmBuffers{a.p, b.p, c.p});
}

PlanCacheStats conv_stats() { return conv_library()->cache.stats(); }
PlanCacheStats gemm_stats() { return gemm_library()->cache.stats(); }

void set_conv_planner(std::unique_ptr<ConvPlanner> planner, size_t most, double most_seconds) {
  conv_library().reset(new ConvLibrary{std::move(planner), ConvCache(most), most_seconds});
}
void set_gemm_planner(std::unique_ptr<GemmPlanner> planner, size_t most) {
  gemm_library().reset(new GemmLibrary{std::move(planner), GemmCache(most)});
}

}  // namespace tessera::cuda::vendor
