// What convolutions take beside their arguments against what they say they take, which plans of memory believe.
#include "tensor/cpu/conv_scratch.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <functional>
#include <thread>
#include <tuple>

#include "tensor/backend.h"
#include "tensor/base/parallel.h"
#include "tensor/conv_choice.h"
#include "tensor/cpu/amx.h"
#include "tensor/cpu/cpu_backend.h"
#include "tensor/cpu/targets.h"
#include "tensor/ops/conv.h"

namespace tessera {
namespace {

struct Case {
  Shape x, w;
  ConvParams p;
};

// On one thread that has taken nothing before.
void check_call(const std::string& what, const ConvScratch& told, const std::function<void()>& call) {
  CAPTURE(what);
  CachingAllocator& allocator = host_allocator();
  int64_t taken = 0, held = 0;
  std::thread([&] {
    allocator.reset_peaks();
    const int64_t before = allocator.stats().bytes_in_use;
    call();
    taken = allocator.stats().peak_in_use - before;
    held = int64_t(cpu::thread_scratch_held());
  }).join();
  constexpr int64_t kSmall = 256 << 10;  // a bias, sums of channels, the rounding of blocks
  CHECK(taken >= told.call);
  CHECK(taken <= told.call + told.call / 8 + kSmall);
  CHECK(held <= told.thread + kSmall);
  CHECK(held >= told.thread / 2 - kSmall);  // bands are told as the largest of them
}

void check_conv(const Case& c, DType type) {
  CpuBackend backend;
  const Tensor x = Tensor::zeros(c.x, type), w = Tensor::zeros(c.w, type), y = Tensor::zeros(ops::conv2d_shape(c.x, c.w, c.p), type);
  const Tensor dw = Tensor::zeros(c.w, DType::kF32),
               residual = Tensor::zeros(y.shape(), type);  // where bf16 is widened, it is copied
  const ConvEpilogue epilogue{nullptr, Activation::kNone, residual.image()};
  const ImageView xv = x.image(), yv = y.image();
  const FilterView wv = w.filter(), dwv = dw.filter();
  CAPTURE(to_string(c.x));
  CAPTURE(to_string(c.w));
  check_call("forward", backend.conv2d_scratch(ConvPass::kForward, xv, wv, yv, c.p),
             [&] { backend.conv2d(xv, wv, yv, c.p, epilogue); });
  check_call("data gradient", backend.conv2d_scratch(ConvPass::kBackwardData, xv, wv, yv, c.p),
             [&] { backend.conv2d_backward_data(yv, wv, xv, c.p, false); });
  check_call("weight gradient", backend.conv2d_scratch(ConvPass::kBackwardWeight, xv, dwv, yv, c.p),
             [&] { backend.conv2d_backward_weight(xv, yv, dwv, c.p, true); });
  const ops::PackedFilter packed(w, c.p);
  const FilterView pv = packed.view(backend.name());
  check_call("packed", backend.conv2d_scratch(ConvPass::kForward, xv, pv, yv, c.p),
             [&] { backend.conv2d(xv, pv, yv, c.p, epilogue); });
}

}  // namespace

TEST_CASE("convolutions take the memory that they say") {
  set_compute_threads(1);
  for (const char* choice : {"auto", "direct"}) {
    set_conv_choice(choice);
    for (const DType type : {DType::kF32, DType::kBF16}) {
      CAPTURE(choice);
      CAPTURE(name_of(type));
      check_conv({{2, 40, 40, 64}, {64, 3, 3, 64}, {1, 1}}, type);
      check_conv({{1, 10, 10, 256}, {256, 3, 3, 256}, {1, 1}}, type);
      check_conv({{2, 64, 64, 32}, {64, 3, 3, 32}, {2, 1}}, type);
      check_conv({{1, 160, 160, 3}, {16, 3, 3, 3}, {2, 1}}, type);
      check_conv({{2, 40, 40, 128}, {96, 1, 1, 128}, {1, 0}}, type);
      check_conv({{1, 20, 20, 512}, {512, 3, 3, 512}, {2, 1}}, type);  // weights by tap, dy copied
      // Narrow: windows of all pixels. In the second the grids of the data gradient differ in taps and rows.
      check_conv({{16, 20, 3, 128}, {96, 3, 3, 128}, {1, 1}}, type);
      check_conv({{16, 41, 5, 96}, {96, 3, 3, 96}, {2, 1}}, type);
      check_conv({{16, 40, 4, 96}, {80, 3, 3, 96}, {1, 1}}, type);  // that of the weights alone
    }
  }
  set_conv_choice("auto");
  set_compute_threads(2);
}

TEST_CASE("convolutions on the twin of AMX take the memory that they say") {
  if (!__builtin_cpu_supports("avx512bf16") || cpu::current_target() != "avx512") return;
  set_compute_threads(1);
  const cpu::TileUnit before = cpu::tile_unit();
  cpu::force_tile_unit(cpu::TileUnit::kTwin);
  check_conv({{2, 40, 40, 64}, {64, 3, 3, 64}, {1, 1}}, DType::kBF16);
  check_conv({{1, 64, 64, 32}, {48, 3, 3, 32}, {2, 1}}, DType::kBF16);
  check_conv({{2, 40, 40, 128}, {96, 1, 1, 128}, {1, 0}}, DType::kBF16);
  check_conv({{16, 20, 3, 128}, {96, 3, 3, 128}, {1, 1}}, DType::kBF16);
  cpu::force_tile_unit(before);
  set_compute_threads(2);
}

TEST_CASE("transposed convolutions take the memory that they say") {
  set_compute_threads(1);
  CpuBackend backend;
  for (const auto& [n, h, side, type] :
       {std::tuple{2, 20, 20, DType::kF32}, {2, 20, 20, DType::kBF16}, {16, 30, 3, DType::kF32}, {16, 30, 3, DType::kBF16}}) {
    const Tensor x = Tensor::zeros({n, h, side, 96}, type), w = Tensor::zeros({128, 2, 2, 96}, type),
                 y = Tensor::zeros({n, 2 * h, 2 * side, 128}, type);
    const Tensor dw = Tensor::zeros(w.shape(), DType::kF32);
    const ImageView xv = x.image(), yv = y.image();
    const FilterView wv = w.filter(), dwv = dw.filter();
    CAPTURE(name_of(type));
    CAPTURE(side);
    check_call("forward", backend.conv_transpose2x2_scratch(ConvPass::kForward, xv, wv, yv),
               [&] { backend.conv_transpose2x2(xv, wv, yv, nullptr); });
    check_call("data gradient", backend.conv_transpose2x2_scratch(ConvPass::kBackwardData, xv, wv, yv),
               [&] { backend.conv_transpose2x2_backward_data(yv, wv, xv, false); });
    check_call("weight gradient", backend.conv_transpose2x2_scratch(ConvPass::kBackwardWeight, xv, dwv, yv),
               [&] { backend.conv_transpose2x2_backward_weight(xv, yv, dwv, true); });
  }
  set_compute_threads(2);
}

}  // namespace tessera
