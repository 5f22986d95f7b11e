// Chapter 1 of the tour; the text is 01_tensor.md.
#include "docs/tour/tour.h"
#include "tensor/cpu/install.h"
#include "tensor/tensor.h"

using namespace tessera;
using tour::claim;
using tour::heading;

int main() {
  install_cpu_backends();

  heading("A handle on memory");
  const Tensor a = Tensor::from_floats({0, 1, 2, 3, 4, 5}, {2, 3});
  claim(to_string(a) == "f32[2, 3] {0, 1, 2, 3, 4, 5}", "a tensor prints as " + to_string(a));

  const Tensor b = a;
  b.fill(7);
  claim(a.data<float>()[4] == 7, "a copy of the handle is the same memory");
  const Tensor c = a.clone();
  c.fill(8);
  claim(a.data<float>()[4] == 7, "a clone is memory of its own");

  heading("Views");
  const Tensor m = Tensor::from_floats({0, 1, 2, 3, 4, 5}, {2, 3});
  const Tensor row = m.select(0, 1), part = m.narrow(1, 1, 2), turned = m.permute({1, 0});
  claim(row.to_vector<float>() == std::vector<float>{3, 4, 5}, "select(0, 1) is row 1");
  claim(part.to_vector<float>() == std::vector<float>{1, 2, 4, 5}, "narrow(1, 1, 2) is columns 1 and 2");
  claim(turned.to_vector<float>() == std::vector<float>{0, 3, 1, 4, 2, 5}, "permute({1, 0}) is the transpose");
  claim(row.shares_storage(m) && part.shares_storage(m) && turned.shares_storage(m), "none of them has copied anything");
  claim(turned.strides() == Strides{1, 3}, "they differ in strides: the transpose has " + to_string(turned.strides()));

  heading("Images have their channels innermost");
  const Tensor image = Tensor::zeros({1, 2, 3, 8});  // N, H, W, C
  const int64_t n = 0, y = 1, x = 2, channel = 5;
  image.data<float>()[((n * 2 + y) * 3 + x) * 8 + channel] = 42;
  claim(image.select(0, n).select(0, y).select(0, x).select(0, channel).item() == 42, "(n, y, x, c) is at ((n H + y) W + x) C + c");

  heading("A slice of channels is rows with a pitch");
  const Tensor slice = image.narrow(-1, 4, 4);  // channels 4 to 7 of every pixel
  claim(slice.layout() == Layout::kPitched, "its layout is Pitched");
  const RowsView rows = slice.rows();
  claim(rows.rows == 6 && rows.cols == 4 && rows.pitch == 8, "a kernel sees 6 rows of 4 values, 8 apart");
  claim(data<float>(rows)[5 * rows.pitch + 1] == 42, "pixel (1, 2) is row 5, and channel 5 its second column");
  claim(image.permute({0, 3, 1, 2}).layout() == Layout::kGeneral, "channels first is General: kernels get a copy of it");

  heading("Slices that lie side by side are one tensor again");
  const Tensor joined = Tensor::join_adjacent(image.narrow(-1, 0, 4), slice);
  claim(joined.defined() && joined.shares_storage(image) && joined.is_dense(), "two halves of the channels are the image");
  claim(!Tensor::join_adjacent(slice, image.narrow(-1, 0, 4)).defined(), "in the wrong order they are nothing");

  heading("Types");
  const Tensor third = Tensor::scalar(1.0 / 3).to(DType::kBF16);
  claim(third.item() == 0.333984375, "1/3 has 8 bits in bf16: 0.333984375");
  claim(wide_of(DType::kBF16) == DType::kF32, "sums beside bf16 are f32");

  heading("Mistakes say what came and what was expected");
  std::string message;
  try {
    slice.view({24});
  } catch (const Error& e) {
    message = e.message();
  }
  fmt::print("  {}\n", message);
  claim(message.find("the last axis must stay") != std::string::npos, "a pitched tensor cannot be flattened without a copy");
  claim(slice.contiguous().view({24}).numel() == 24, "after contiguous() it can");
  return 0;
}
