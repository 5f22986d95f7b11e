#include "cuda/vendor/conv_plan.h"

#include "cuda/vendor/plan_key.h"

namespace tessera::cuda {

namespace {

ConvKey key_of(ConvPass pass, const ImageView& x, const FilterView& w, const ImageView& y, const ConvParams& p, bool accumulate,
               const ConvRules& rules) {
  ConvKey k;
  k.pass = int32_t(pass);
  k.type = int32_t(x.t);
  k.filter_type = int32_t(w.t);
  k.n = size_in_key(x.n), k.h = size_in_key(x.h), k.w = size_in_key(x.w), k.c = size_in_key(x.c), k.x_pitch = size_in_key(x.pitch);
  k.o = size_in_key(w.o), k.kh = size_in_key(w.kh), k.kw = size_in_key(w.kw);
  k.oh = size_in_key(y.h), k.ow = size_in_key(y.w), k.y_pitch = size_in_key(y.pitch);
  k.stride = size_in_key(p.stride), k.pad = size_in_key(p.pad);
  k.x_alignment = alignment_of(x.p), k.w_alignment = alignment_of(w.p), k.y_alignment = alignment_of(y.p);
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
  if (k.residual) k.residual_pitch = size_in_key(epilogue.residual.pitch), k.residual_alignment = alignment_of(epilogue.residual.p);
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
  const auto fits = [&](int32_t address, int32_t pitch) {
    return address >= kPackBytes && pitch * int32_t(size_of(k.dtype())) % kPackBytes == 0;
  };
  return fits(k.x_alignment, k.x_pitch) && fits(k.y_alignment, k.y_pitch) && k.w_alignment >= kPackBytes &&
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
