#include "tensor/cpu/conv.h"

#include <algorithm>

#include "tensor/base/parallel.h"
#include "tensor/cpu/conv_plan.h"
#include "tensor/cpu/conv_windows.h"
#include "tensor/cpu/f32_copy.h"
#include "tensor/cpu/kernels.h"
#include "tensor/cpu/winograd.h"

namespace tessera::cpu {

namespace {

// Where a packed weight of output channel c, tap (r, t) and input channel i comes from: base + c*column_step + taps + i*k_step.
template <class T>
struct PackSource {
  const T* base;
  int64_t column_step, k_step;
};

// Packs one part: `offset(r, t)` gives the filter element of tap (r, t) at channel 0 of both sides.
template <class T, class Offset>
void pack_part(const TileKernels<T>& k, const std::vector<ChannelGroup>& groups, int64_t kh, int64_t kw, int64_t depth,
               PackSource<T> source, T* out, const Offset& offset) {
  const int64_t packed_depth = whole_sums<T>(depth);
  const std::vector<int64_t> start = packed_starts(groups, k);
  // Filters whose depth is not adjacent are read a few at a time: all taps of one lie together.
  constexpr int64_t kDepthAtOnce = 16;
  const int64_t step = source.k_step == 1 ? depth : kDepthAtOnce;
  parallel_chunks(static_cast<int64_t>(groups.size()), [&](int64_t chunk) {
    const ChannelGroup& g = groups[static_cast<size_t>(chunk)];
    const int64_t columns = g.vectors * k.lanes;
    T* const to = out + start[static_cast<size_t>(chunk)] * kh * kw * packed_depth;
    for (int64_t first = 0; first < depth; first += step) {
      for (int64_t tap = 0; tap < kh * kw; ++tap) {
        const T* from = source.base + offset(tap / kw, tap % kw) + g.start * source.column_step + first * source.k_step;
        k.pack(to + (tap * packed_depth + first) * columns, columns, from, source.column_step, source.k_step, g.channels,
               std::min(step, depth - first));
      }
    }
  });
}

int64_t floor_mod(int64_t a, int64_t b) { return (a % b + b) % b; }

// Of w.o channels in groups; where the depth is whole, the filter of an output channel goes in one go.
template <class T>
void pack_for_conv2d(const TileKernels<T>& k, const std::vector<ChannelGroup>& groups, const FilterView& w, T* packed) {
  const bool whole = whole_sums<T>(w.i) == w.i;
  pack_part(k, groups, whole ? 1 : w.kh, whole ? 1 : w.kw, whole ? w.kh * w.kw * w.i : w.i,
            PackSource<T>{data<const T>(w), w.kh * w.kw * w.i, 1}, packed,
            [&](int64_t r, int64_t t) { return (r * w.kw + t) * w.i; });
}

// Elements of a packed filter of `taps` taps with `depth` channels to sum.
template <class T>
int64_t packed_size(const TileKernels<T>& k, const std::vector<ChannelGroup>& groups, int64_t taps, int64_t depth) {
  return packed_width(groups, k) * taps * whole_sums<T>(depth);
}
template <class T>
int64_t packed_size(const FilterView& w) {
  const TileKernels<T> k = tile_kernels<T>();
  return packed_size(k, channel_groups(w.o, k), w.kh * w.kw, w.i);
}

template <class T>
void run_conv2d(const ImageView& x, const FilterView& w, const ImageView& y, const ConvParams& p, const ConvEpilogue& epilogue,
                ChannelMoments* moments = nullptr) {
  const TileKernels<T> k = tile_kernels<T>();
  const std::vector<ChannelGroup> groups = channel_groups(w.o, k);
  const int64_t width = packed_width(groups, k);
  const HostScratch<T> own(w.packed ? 0 : packed_size<T>(w));
  const HostScratch<float> bias(epilogue.bias ? width : 0);
  if (!w.packed) pack_for_conv2d(k, groups, w, own.get());
  const T* packed = w.packed ? static_cast<const T*>(w.packed) : own.get();
  RowJob<T> end;
  if (epilogue.bias) {
    pad_bias(static_cast<const float*>(epilogue.bias), groups, k, bias.get());
    end.bias = bias.get();
  }
  end.silu = epilogue.activation == Activation::kSilu;
  end.residual = data<const T>(epilogue.residual);
  end.residual_step = epilogue.residual.pitch;
  end.past_caches = !moments && !end.silu && !end.residual && writes_past_caches<T>(y, k.lanes);
  if (w.kh == 1 && w.kw == 1 && p.stride == 1 && p.pad == 0 && whole_sums<T>(w.i) == w.i) {
    run({data<const T>(x), x.pitch, x.n * x.h * x.w, x.c, packed, data<T>(y), y.pitch, end, moments}, groups, k);
    return;
  }
  run(ConvPlan<T>{x, y, p.stride, 1, {{w.kh, w.kw, -p.pad, -p.pad, 0, 0, y.h, y.w, packed}}, end, groups, k, moments});
}

// Of one axis of a data gradient, for the inputs of one remainder (below): its first tap, how many taps, the first input of the
// grid and its size, and the output that the last tap meets there.
struct GradientAxis {
  int64_t tap, taps, first, size, origin;
  GradientAxis(int64_t remainder, int64_t kernel, int64_t length, const ConvParams& p)
      : tap(remainder),
        taps(kernel > remainder ? (kernel - remainder + p.stride - 1) / p.stride : 0),
        first(floor_mod(remainder - p.pad, p.stride)),
        size(length > first ? (length - first + p.stride - 1) / p.stride : 0),
        origin((first + p.pad - remainder) / p.stride - std::max<int64_t>(taps - 1, 0)) {}
};

// dx[iy, ix] sums w[ky, kx] over the taps with (iy + pad - ky) divisible by the stride s. The inputs of one remainder of iy + pad
// and ix + pad form a grid of its own, on which this is a convolution with stride 1 and every s-th tap, in reverse order.
template <class T>
void run_backward_data(const ImageView& dy, const FilterView& w, const ImageView& dx, const ConvParams& p, bool accumulate) {
  const TileKernels<T> k = tile_kernels<T>();
  const std::vector<ChannelGroup> groups = channel_groups(w.i, k);
  const int64_t width = packed_width(groups, k);
  const int64_t depth = whole_sums<T>(w.o);
  const int64_t s = p.stride;
  const HostScratch<T> scratch(packed_size(k, groups, w.kh * w.kw, w.o));
  const PackSource<T> source{data<const T>(w), 1, w.kh * w.kw * w.i};
  ConvPlan<T> plan{dy, dx, 1, s, {}, {}, groups, k, nullptr};
  plan.epilogue.accumulate = accumulate;
  plan.epilogue.past_caches = !accumulate && writes_past_caches<T>(dx, k.lanes);
  T* packed = scratch.get();
  for (int64_t ry = 0; ry < s; ++ry) {
    const GradientAxis v(ry, w.kh, dx.h, p);
    for (int64_t rx = 0; rx < s; ++rx) {
      const GradientAxis h(rx, w.kw, dx.w, p);
      const int64_t kh = h.taps > 0 ? v.taps : 0;
      const int64_t kw = v.taps > 0 ? h.taps : 0;
      plan.parts.push_back({kh, kw, v.origin, h.origin, v.first, h.first, v.size, h.size, packed});
      pack_part(k, groups, kh, kw, w.o, source, packed,
                [&](int64_t r, int64_t t) { return ((v.tap + (kh - 1 - r) * s) * w.kw + h.tap + (kw - 1 - t) * s) * w.i; });
      packed += width * kh * kw * depth;
    }
  }
  if (w.kh == 1 && w.kw == 1 && s == 1 && p.pad == 0 && depth == w.o) {
    run({data<const T>(dy), dy.pitch, dy.n * dy.h * dy.w, dy.c, scratch.get(), data<T>(dx), dx.pitch, plan.epilogue, nullptr},
        groups, k);
    return;
  }
  run(plan);
}

// Four 1x1 convolutions, each onto its own quarter of the output pixels.
template <class T>
void run_conv_transpose(const ImageView& x, const FilterView& w, const ImageView& y, const float* bias) {
  const TileKernels<T> k = tile_kernels<T>();
  const std::vector<ChannelGroup> groups = channel_groups(w.o, k);
  const int64_t width = packed_width(groups, k);
  const int64_t depth = whole_sums<T>(w.i);
  const HostScratch<T> scratch(packed_size(k, groups, 4, w.i));
  const HostScratch<float> padded(bias ? width : 0);
  ConvPlan<T> plan{x, y, 1, 2, {}, {}, groups, k, nullptr};
  for (int64_t part = 0; part < 4; ++part) {
    T* packed = scratch.get() + part * width * depth;
    pack_part(k, groups, 1, 1, w.i, PackSource<T>{data<const T>(w), 4 * w.i, 1}, packed,
              [&](int64_t, int64_t) { return part * w.i; });
    plan.parts.push_back({1, 1, 0, 0, part / 2, part % 2, x.h, x.w, packed});
  }
  if (bias) {
    pad_bias(bias, groups, k, padded.get());
    plan.epilogue.bias = padded.get();
  }
  run(plan);
}

// A 2x2 convolution with stride 2 whose filter is w with input and output channels exchanged.
template <class T>
void run_transpose_backward_data(const ImageView& dy, const FilterView& w, const ImageView& dx, bool accumulate) {
  const TileKernels<T> k = tile_kernels<T>();
  const std::vector<ChannelGroup> groups = channel_groups(w.i, k);
  const HostScratch<T> packed(packed_size(k, groups, 4, w.o));
  pack_part(k, groups, 2, 2, w.o, PackSource<T>{data<const T>(w), 1, 4 * w.i}, packed.get(),
            [&](int64_t r, int64_t t) { return (r * 2 + t) * w.i; });
  ConvPlan<T> plan{dy, dx, 2, 1, {{2, 2, 0, 0, 0, 0, dx.h, dx.w, packed.get()}}, {}, groups, k, nullptr};
  plan.epilogue.accumulate = accumulate;
  run(plan);
}

// Of the direct kernels, for a forward pass or a data gradient to `to`: the packed filter, and the band that a thread copies, or
// the windows of a narrow image (conv_windows.h), grid by grid.
template <class T>
ConvScratch direct_scratch(bool forward, const ImageView& from, const FilterView& w, const ImageView& to, const ConvParams& p) {
  const TileKernels<T> k = tile_kernels<T>();
  int64_t values = w.packed ? 0 : packed_size(k, channel_groups(forward ? w.o : w.i, k), w.kh * w.kw, forward ? w.i : w.o);
  const int64_t s = forward ? 1 : p.stride, depth = whole_sums<T>(from.c);
  const int64_t most_taps = (w.kh + s - 1) / s * ((w.kw + s - 1) / s);
  const bool all_have_taps = std::min(w.kh, w.kw) >= s;
  if (all_have_taps && takes_windows((to.w + s - 1) / s, most_taps)) {
    int64_t most = 0;
    for (int64_t ry = 0; ry < s; ++ry) {
      for (int64_t rx = 0; rx < s; ++rx) {
        const GradientAxis v(ry, w.kh, to.h, {s, p.pad}), h(rx, w.kw, to.w, {s, p.pad});
        most = std::max(most, to.n * v.size * h.size * (v.taps * h.taps * depth + (s > 1 ? to.c : 0)));
      }
    }
    values += most;
  }
  return {values * int64_t(sizeof(T)), most_band_bytes<T>(from, w.kh, w.kw, forward ? p.stride : 1)};
}

bool widened(DType t) { return t == DType::kBF16 && !multiplies_bf16(); }

// The copies of what is multiplied as f32.
int64_t widened_bytes(ConvPass pass, const ImageView& x, const FilterView& w, const ImageView& y) {
  const int64_t filter = pass == ConvPass::kBackwardWeight ? 0 : w.o * w.kh * w.kw * w.i;
  const int64_t residual = pass == ConvPass::kForward ? y.n * y.h * y.w * y.c : 0;  // that there may be
  return (x.n * x.h * x.w * x.c + y.n * y.h * y.w * y.c + filter + residual) * int64_t(sizeof(float));
}

ConvScratch direct_scratch(ConvPass pass, const ImageView& x, const FilterView& w, const ImageView& y, const ConvParams& p) {
  if (pass == ConvPass::kBackwardWeight) return backward_weight_scratch(x, y, w, p);
  const bool forward = pass == ConvPass::kForward, bf16 = x.t == DType::kBF16 && multiplies_bf16();
  const ImageView &from = forward ? x : y, &to = forward ? y : x;
  return bf16 ? direct_scratch<BFloat16>(forward, from, w, to, p) : direct_scratch<float>(forward, from, w, to, p);
}

}  // namespace

ConvScratch conv2d_scratch(ConvPass pass, const ImageView& x, const FilterView& w, const ImageView& y, const ConvParams& p) {
  FilterView same = w;  // a gradient's is wider
  same.t = x.t;
  if (repays_winograd(pass, same, y, p)) return winograd_scratch(pass, x, same, y, p);
  ConvScratch s = direct_scratch(pass, x, same, y, p);
  if (widened(x.t)) s.call += widened_bytes(pass, x, w, y);
  return s;
}

// The forward pass is four 1x1 convolutions, the gradients are those of a 2x2 convolution with stride 2 from y to x.
ConvScratch conv_transpose2x2_scratch(ConvPass pass, const ImageView& x, const FilterView& w, const ImageView& y) {
  FilterView turned{nullptr, x.t, w.i, 2, 2, w.o};
  if (pass == ConvPass::kBackwardWeight) {
    ConvScratch s = conv2d_scratch(pass, y, turned, x, {2, 0});
    s.call += w.o * 4 * w.i * int64_t(sizeof(float));
    return s;
  }
  const bool forward = pass == ConvPass::kForward;
  ImageView to = forward ? y : x;
  if (forward) turned = {nullptr, x.t, w.o, 2, 2, w.i}, to.w = std::max<int64_t>(y.w, 4);  // 1x1: never narrow
  ConvScratch s = direct_scratch(ConvPass::kForward, forward ? x : y, turned, to, {forward ? 1 : 2, 0});
  if (widened(x.t)) s.call += widened_bytes(ConvPass::kBackwardData, x, w, y);
  return s;
}

int64_t packed_filter_size(const FilterView& w, const ConvParams& p) {
  if (packs_winograd(w, p)) return winograd_filter_size(w);
  if (w.t == DType::kF32) return packed_size<float>(w);
  return w.t == DType::kBF16 && multiplies_bf16() ? packed_size<BFloat16>(w) : 0;
}

void pack_filter(const FilterView& w, const ConvParams& p, void* packed) {
  if (packs_winograd(w, p)) return winograd_pack_filter(w, packed);
  const auto pack = [&]<class T>(T* to) {
    const TileKernels<T> k = tile_kernels<T>();
    pack_for_conv2d(k, channel_groups(w.o, k), w, to);
  };
  w.t == DType::kBF16 ? pack(static_cast<BFloat16*>(packed)) : pack(static_cast<float*>(packed));
}

void conv2d(const ImageView& x, const FilterView& w, const ImageView& y, const ConvParams& p, const ConvEpilogue& epilogue) {
  if (repays_winograd(ConvPass::kForward, w, y, p)) return winograd_conv2d(x, w, y, p, epilogue);
  if (x.t != DType::kBF16) return run_conv2d<float>(x, w, y, p, epilogue);
  if (multiplies_bf16()) return run_conv2d<BFloat16>(x, w, y, p, epilogue);
  const F32Copy x32(x), w32(w), y32(y, false);
  ConvEpilogue wide = epilogue;
  const F32Copy residual(epilogue.residual);
  if (epilogue.residual.p != nullptr) wide.residual = residual.image();
  run_conv2d<float>(x32.image(), w32.filter(), y32.image(), p, wide);
  y32.round_to(y);
}

void conv2d_with_stats(const ImageView& x, const FilterView& w, const ImageView& y, const ConvParams& p, double* sums,
                       double* squares) {
  ChannelMoments moments(y.c);
  if (repays_winograd(ConvPass::kForward, w, y, p)) {
    winograd_conv2d(x, w, y, p, {}, &moments);
  } else if (x.t != DType::kBF16) {
    run_conv2d<float>(x, w, y, p, {}, &moments);
  } else if (multiplies_bf16()) {
    run_conv2d<BFloat16>(x, w, y, p, {}, &moments);
  } else {
    conv2d(x, w, y, p, {});
    return batch_norm_moments(y, sums, squares);
  }
  moments.join(sums, squares);
}

void conv2d_backward_data(const ImageView& dy, const FilterView& w, const ImageView& dx, const ConvParams& p, bool accumulate) {
  if (repays_winograd(ConvPass::kBackwardData, w, dy, p)) return winograd_backward_data(dy, w, dx, p, accumulate);
  if (dy.t != DType::kBF16) return run_backward_data<float>(dy, w, dx, p, accumulate);
  if (multiplies_bf16()) return run_backward_data<BFloat16>(dy, w, dx, p, accumulate);
  const F32Copy dy32(dy), w32(w), dx32(dx, accumulate);
  run_backward_data<float>(dy32.image(), w32.filter(), dx32.image(), p, accumulate);
  dx32.round_to(dx);
}

void conv_transpose2x2(const ImageView& x, const FilterView& w, const ImageView& y, const float* bias) {
  if (x.t != DType::kBF16) return run_conv_transpose<float>(x, w, y, bias);
  if (multiplies_bf16()) return run_conv_transpose<BFloat16>(x, w, y, bias);
  const F32Copy x32(x), w32(w), y32(y, false);
  run_conv_transpose<float>(x32.image(), w32.filter(), y32.image(), bias);
  y32.round_to(y);
}

void conv_transpose2x2_backward_data(const ImageView& dy, const FilterView& w, const ImageView& dx, bool accumulate) {
  if (dy.t != DType::kBF16) return run_transpose_backward_data<float>(dy, w, dx, accumulate);
  if (multiplies_bf16()) return run_transpose_backward_data<BFloat16>(dy, w, dx, accumulate);
  const F32Copy dy32(dy), w32(w), dx32(dx, accumulate);
  run_transpose_backward_data<float>(dy32.image(), w32.filter(), dx32.image(), accumulate);
  dx32.round_to(dx);
}

}  // namespace tessera::cpu
