#include "cuda/conv_vendor.h"

#include <optional>
#include <utility>

#include "cuda/context.h"
#include "cuda/kernels.h"
#include "cuda/vendor/limits.h"

namespace tessera::cuda::vendor {

namespace {

using ConvCache = PlanCache<ConvKey, ConvPlan>;
using GemmCache = PlanCache<GemmKey, GemmPlan>;

template <class Planner, class Cache>
struct Library {
  std::unique_ptr<Planner> planner;
  Cache cache;
};
using ConvLibrary = Library<ConvPlanner, ConvCache>;
using GemmLibrary = Library<GemmPlanner, GemmCache>;

// Never destroyed: the driver may be gone by then.
std::unique_ptr<ConvLibrary>& conv_library() {
  static auto* const l = new std::unique_ptr<ConvLibrary>(new ConvLibrary{make_cudnn_planner(), ConvCache(most_workspace())});
  return *l;
}
std::unique_ptr<GemmLibrary>& gemm_library() {
  static auto* const l = new std::unique_ptr<GemmLibrary>(new GemmLibrary{make_cublaslt_planner(), GemmCache(most_workspace())});
  return *l;
}

size_t bytes_of(const ImageView& v) { return size_t(v.n * v.h * v.w * v.pitch) * size_of(v.t); }
size_t bytes_of(const FilterView& v) { return size_t(v.o * v.kh * v.kw * v.i) * size_of(v.t); }

// The entry of a key. While a graph is recorded nothing can be planned or timed: null, and the project's own kernels are recorded.
// The warm steps before have planned whatever they need.
template <class Cache, class Key, class Make, class Seconds>
const typename Cache::Entry* entry_of(Cache& cache, const Key& key, const Make& make, const Seconds& seconds) {
  if (recording()) return cache.find_planned(key);
  return key.deterministic ? &cache.find(key, make) : &cache.find(key, make, seconds);
}

// The plan of a key, or null. It is timed on the buffers at hand, with its result going to scratch memory of `result_bytes`.
const ConvPlan* plan_for(const ConvKey& key, const ConvBuffers& buffers, size_t result_bytes) {
  ConvLibrary& l = *conv_library();
  const auto make = [&](const ConvKey& k) {
    constexpr size_t kMost = 8;  // to time; the heuristics put the good ones first
    ConvPlans plans = l.planner->plans(k, kMost);
    return ConvCache::Offer{std::move(plans.list), std::move(plans.refusal)};
  };
  const auto seconds = [&](const ConvPlan& plan) {
    const Scratch<std::byte> result{int64_t(result_bytes)}, workspace{int64_t(plan.workspace_bytes())};
    ConvBuffers b = buffers;
    (key.which() == ConvPass::kForward ? b.y : key.which() == ConvPass::kBackwardData ? b.x : b.w) = result.get();
    return least_seconds([&] { plan.run(b, workspace.get(), current_stream()); });
  };
  const ConvCache::Entry* const entry = entry_of(l.cache, key, make, seconds);
  return entry != nullptr ? entry->plan.get() : nullptr;
}

bool run(const ConvKey& key, const ConvBuffers& buffers, size_t result_bytes) {
  const ConvPlan* const plan = plan_for(key, buffers, result_bytes);
  if (plan == nullptr) return false;
  const Scratch<std::byte> workspace{int64_t(plan->workspace_bytes())};
  plan->run(buffers, workspace.get(), current_stream());
  return true;
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
  const auto seconds = [&](const GemmPlan& plan) {
    const int64_t lines = c.batch * c.batch_stride + (key->c_transposed ? key->cols : key->rows) * key->c_step;
    const Scratch<std::byte> result{lines * int64_t(size_of(c.t))}, workspace{int64_t(plan.workspace_bytes())};
    return least_seconds([&] { plan.run({a.p, b.p, result.get()}, workspace.get(), current_stream()); });
  };
  const GemmCache::Entry* const entry = entry_of(l.cache, *key, make, seconds);
  if (entry == nullptr || entry->plan == nullptr) return false;
  const GemmPlan* const plan = entry->plan.get();
  const Scratch<std::byte> workspace{int64_t(plan->workspace_bytes())};
  plan->run({a.p, b.p, c.p}, workspace.get(), current_stream());
  return true;
}

PlanCacheStats conv_stats() { return conv_library()->cache.stats(); }
PlanCacheStats gemm_stats() { return gemm_library()->cache.stats(); }

void set_conv_planner(std::unique_ptr<ConvPlanner> planner, size_t most) {
  conv_library().reset(new ConvLibrary{std::move(planner), ConvCache(most)});
}
void set_gemm_planner(std::unique_ptr<GemmPlanner> planner, size_t most) {
  gemm_library().reset(new GemmLibrary{std::move(planner), GemmCache(most)});
}

}  // namespace tessera::cuda::vendor
