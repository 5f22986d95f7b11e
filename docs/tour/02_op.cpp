// Chapter 2 of the tour; the text is 02_op.md.
#include "docs/tour/tour.h"
#include "tensor/backend.h"
#include "tensor/cpu/install.h"
#include "tensor/ops/conv.h"
#include "tests/support/op_case.h"

using namespace tessera;
using tour::claim;
using tour::heading;

int main() {
  install_cpu_backends();

  heading("An entry point: tensors in, a tensor out");
  const Tensor x = tour::random({2, 9, 7, 16}, 1);   // N, H, W, I
  const Tensor w = tour::random({24, 3, 3, 16}, 2);  // O, kH, kW, I
  const Tensor bias = tour::random({24}, 3);
  const ConvParams params{.stride = 1, .pad = 1};
  const Tensor y = ops::conv2d(x, w, params, bias, Activation::kSilu);
  claim(y.shape() == Shape{2, 9, 7, 24}, "the result is " + describe(y));

  heading("The contract is the formula in the header");
  const int64_t n = 1, oy = 4, ox = 0, o = 23;  // at the left border
  double sum = bias.data<float>()[o];
  for (int64_t ky = 0; ky < 3; ++ky) {
    for (int64_t kx = 0; kx < 3; ++kx) {
      const int64_t iy = oy + ky - 1, ix = ox + kx - 1;
      if (iy < 0 || iy >= 9 || ix < 0 || ix >= 7) continue;  // reads outside the image are zero
      const float* pixel = x.data<float>() + ((n * 9 + iy) * 7 + ix) * 16;
      const float* tap = w.data<float>() + ((o * 3 + ky) * 3 + kx) * 16;
      for (int64_t i = 0; i < 16; ++i) sum += double(pixel[i]) * double(tap[i]);
    }
  }
  const double expected = sum / (1 + std::exp(-sum));
  const double found = y.data<float>()[((n * 9 + oy) * 7 + ox) * 24 + o];
  fmt::print("  by hand {:.7f}, by the op {:.7f}\n", expected, found);
  claim(std::abs(found - expected) < 1e-5, "they agree");

  heading("The same op on another backend");
  for (Backend* b : available_backends()) fmt::print("  installed: {}\n", b->name());
  Tensor by_reference;
  {
    const BackendGuard guard(*find_backend("ref"));
    by_reference = ops::conv2d(x, w, params, bias, Activation::kSilu);
  }
  claim(tour::largest_difference(y, by_reference) < 1e-5, "plain loops and vector kernels agree within rounding");

  heading("Results go where you say");
  const Tensor buffer = Tensor::full({2, 9, 7, 32}, -1);
  ops::conv2d(x, w, params, bias, Activation::kSilu, {}, buffer.narrow(-1, 8, 24));
  claim(tour::largest_difference(buffer.narrow(-1, 8, 24), y) < 1e-5, "a slice of a wider buffer receives the result");
  claim(tour::largest_difference(buffer.narrow(-1, 0, 8), Tensor::full({2, 9, 7, 8}, -1)) == 0, "its neighbours are untouched");

  heading("Mistakes are caught at the entry point");
  std::string message;
  try {
    ops::conv2d(x, tour::random({24, 3, 3, 15}, 4), params);
  } catch (const Error& e) {
    message = e.message();
  }
  fmt::print("  {}\n", message);
  claim(message.find("(O, kH, kW, I)") != std::string::npos, "the message names both shapes and what was expected");

  heading("How every kernel is tested: an OpCase");
  using namespace testing;
  const OpCase c{.method = "conv2d",
                 .detail = "3x3 with SiLU",
                 .slots = {{"x", {2, 9, 7, 16}}, {"w", {24, 3, 3, 16}, Role::kIn, Fit::kDense}, {"y", {2, 9, 7, 24}, Role::kOut}},
                 .run =
                     [&](Backend& b, const Bound& t, bool) {
                       b.conv2d(t.image("x"), t.filter("w"), t.image("y"), params, {.activation = Activation::kSilu});
                       return 0.0;
                     },
                 .length = 3 * 3 * 16};
  const op_case::Reference reference(c, DType::kF32);  // by the reference backend, in f64
  Backend& backend = backend_for(Device::cpu());
  const auto run = [&](op_case::Placement placement) {
    return op_case::execute(c, backend, {.type = DType::kF32, .value_type = DType::kF32, .placement = placement});
  };
  const op_case::Outcome dense = run(op_case::Placement::kDense), pitched = run(op_case::Placement::kPitchedOdd);
  claim(op_case::difference(c, DType::kF32, dense, reference.once).empty(), "every value is within its tolerance");
  claim(op_case::difference(c, DType::kF32, pitched, reference.once).empty(), "so it is in rows of a wider buffer");
  claim(dense.disturbed == 0 && pitched.disturbed == 0, "no byte around the results was written");
  claim(run(op_case::Placement::kDense).same_bits(dense), "a second run has the same bits");
  return 0;
}
