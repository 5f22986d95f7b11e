#include "cuda/vendor/conv_plan.h"

#include <bit>

#include "tensor/base/check.h"

namespace tessera::cuda {

namespace {

int32_t number(int64_t size) {
  TESSERA_CHECK(size >= 0 && size <= INT32_MAX, "convolution: a size of {}, expected at most {}", size, INT32_MAX);
  return int32_t(size);
}

int32_t alignment(const void* p) {
  constexpr int kMost = 16;  // of a vector access
  const auto address = reinterpret_cast<uintptr_t>(p);
  return address == 0 ? kMost : std::min(kMost, 1 << std::min(std::countr_zero(address), 4));
}

ConvKey key_of(ConvPass pass, const ImageView& x, const FilterView& w, const ImageView& y, const ConvParams& p, bool accumulate,
               const ConvRules& rules) {
  ConvKey k;
  k.pass = int32_t(pass);
  k.type = int32_t(x.t);
  k.filter_type = int32_t(w.t);
  k.n = number(x.n), k.h = number(x.h), k.w = number(x.w), k.c = number(x.c), k.x_pitch = number(x.pitch);
  k.o = number(w.o), k.kh = number(w.kh), k.kw = number(w.kw);
  k.oh = number(y.h), k.ow = number(y.w), k.y_pitch = number(y.pitch);
  k.stride = number(p.stride), k.pad = number(p.pad);
  k.x_alignment = alignment(x.p), k.w_alignment = alignment(w.p), k.y_alignment = alignment(y.p);
  k.accumulate = accumulate;
  k.deterministic = rules.deterministic;
  k.tf32 = x.t == DType::kF32 && rules.tf32;
  k.device = rules.device;
  return k;
}

}  // namespace

ConvKey forward_key(const ImageView& x, const FilterView& w, const ImageView& y, const ConvParams& p, const ConvEpilogue& epilogue,
                    const ConvRules& rules) {
  ConvKey k = key_of(ConvPass::kForward, x, w, y, p, false, rules);
  k.bias = epilogue.bias != nullptr;
  k.activation = int32_t(epilogue.activation);
  k.residual = epilogue.residual.p != nullptr;
  if (k.residual) k.residual_pitch = number(epilogue.residual.pitch), k.residual_alignment = alignment(epilogue.residual.p);
  return k;
}

ConvKey backward_data_key(const ImageView& dy, const FilterView& w, const ImageView& dx, const ConvParams& p, bool accumulate,
                          const ConvRules& rules) {
  return key_of(ConvPass::kBackwardData, dx, w, dy, p, accumulate, rules);
}

ConvKey backward_weight_key(const ImageView& x, const ImageView& dy, const FilterView& dw, const ConvParams& p, bool accumulate,
                            const ConvRules& rules) {
  return key_of(ConvPass::kBackwardWeight, x, dw, dy, p, accumulate, rules);
}

bool is_compiled(const ConvKey& k) {
  return k.bias || k.residual || Activation(k.activation) != Activation::kNone || k.filter_type != k.type;
}

bool lies_in_packs(const ConvKey& k) {
  constexpr int32_t kPack = 16;
  const auto fits = [&](int32_t address, int32_t pitch) { return address >= kPack && pitch * int32_t(size_of(k.dtype())) % kPack == 0; };
  return fits(k.x_alignment, k.x_pitch) && fits(k.y_alignment, k.y_pitch) && k.w_alignment >= kPack &&
         (!k.residual || fits(k.residual_alignment, k.residual_pitch));
}

std::string text_of(const ConvKey& k) {
  constexpr const char* kPasses[] = {"conv2d", "conv2d_backward_data", "conv2d_backward_weight"};
  std::string text = fmt::format("{} {} {}x{}x{}x{} (pitch {}) * {}x{}x{} {} s{} p{} -> {}x{} (pitch {})", kPasses[k.pass],
                                 name_of(k.dtype()), k.n, k.h, k.w, k.c, k.x_pitch, k.o, k.kh, k.kw, name_of(DType(k.filter_type)),
                                 k.stride, k.pad, k.oh, k.ow, k.y_pitch);
  if (k.bias) text += " + bias";
  if (Activation(k.activation) == Activation::kSilu) text += ", silu";
  if (k.residual) text += fmt::format(" + residual (pitch {})", k.residual_pitch);
  if (k.accumulate) text += ", added";
  if (k.deterministic) text += ", deterministic";
  return text;
}

}  // namespace tessera::cuda
