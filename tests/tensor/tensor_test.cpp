// The tensor handle: views, layouts, joins, conversions, versions.
#include "tensor/tensor.h"

#include <doctest/doctest.h>

#include <numeric>

#include "tensor/backend.h"

namespace tessera {
namespace {

Tensor counting(const Shape& shape) {
  std::vector<float> values(size_t(numel(shape)));
  std::iota(values.begin(), values.end(), 0.0f);
  return Tensor::from_vector(values, shape);
}
std::vector<float> floats(const Tensor& t) { return t.to_vector<float>(); }

TEST_CASE("new tensors have the values, the shape and the alignment asked for; what cannot be made is an error") {
  CHECK_FALSE(Tensor().defined());
  CHECK(floats(Tensor::zeros({2, 2})) == std::vector<float>(4, 0));
  CHECK(floats(Tensor::full({3}, 2.5)) == std::vector<float>(3, 2.5f));
  CHECK(Tensor::full({2}, 3, DType::kI64).to_vector<int64_t>() == std::vector<int64_t>{3, 3});
  CHECK(Tensor::scalar(4).item() == 4);
  CHECK(Tensor::scalar(4).rank() == 0);
  CHECK(Tensor::empty({0, 5}).numel() == 0);
  CHECK_THROWS_AS(Tensor::empty({-1}), Error);
  CHECK_THROWS_AS(Tensor::from_floats({1, 2, 3}, {2}), Error);
  CHECK_THROWS_AS(counting({2}).item(), Error);
  CHECK_THROWS_AS(counting({2}).data<double>(), Error);
  CHECK_THROWS_AS(Tensor().data<float>(), Error);
  CHECK(size_t(Tensor::empty({1}).raw()) % 64 == 0);
}

TEST_CASE("a shape whose bytes do not fit into a number is refused, and none wraps around to a small block") {
  constexpr int64_t kHuge = int64_t{1} << 31;
  for (const Shape& shape : {Shape{kHuge, kHuge}, Shape{kHuge, kHuge, 4}, Shape{kHuge, kHuge, kHuge, kHuge},
                             Shape{kHuge, kHuge, kHuge, 0}, Shape{0, kHuge, kHuge, kHuge}}) {
    CAPTURE(to_string(shape));
    try {
      Tensor::empty(shape, DType::kF32);
      FAIL_CHECK("expected an error");
    } catch (const Error& e) {
      CHECK(e.code() == ErrorCode::kMemory);
    }
  }
  CHECK(Tensor::empty({0, kHuge}, DType::kF32).numel() == 0);
}

TEST_CASE("wrapped memory keeps its owner alive") {
  auto owner = std::make_shared<std::vector<float>>(std::vector<float>{1, 2, 3, 4});
  const std::weak_ptr<std::vector<float>> watch = owner;
  float* memory = owner->data();
  Tensor view = Tensor::wrap(memory, {2, 2}, DType::kF32, std::move(owner)).narrow(0, 1, 1);
  CHECK_FALSE(watch.expired());
  CHECK(floats(view) == std::vector<float>{3, 4});
  view.fill(9);
  CHECK(memory[2] == 9);
  view = {};
  CHECK(watch.expired());
}

TEST_CASE("narrow and select share memory") {
  const Tensor t = counting({2, 3, 4});
  const Tensor part = t.narrow(1, 1, 2);
  CHECK(part.shape() == Shape{2, 2, 4});
  CHECK(floats(part) == std::vector<float>{4, 5, 6, 7, 8, 9, 10, 11, 16, 17, 18, 19, 20, 21, 22, 23});
  CHECK(part.shares_storage(t));
  CHECK(floats(t.select(0, 1).select(1, 2)) == std::vector<float>{14, 18, 22});
  CHECK(floats(t.select(-1, 3)) == std::vector<float>{3, 7, 11, 15, 19, 23});
  t.narrow(2, 0, 1).fill(-1);
  CHECK(t.data<float>()[4] == -1);
  CHECK(t.narrow(0, 2, 0).numel() == 0);
  CHECK_THROWS_AS(t.narrow(0, 1, 2), Error);
  CHECK_THROWS_AS(t.narrow(0, -1, 1), Error);
  CHECK_THROWS_AS(t.narrow(3, 0, 1), Error);
  CHECK_THROWS_AS(t.select(1, 3), Error);
}

TEST_CASE("layouts") {
  const Tensor image = counting({2, 3, 4, 8});
  CHECK(image.layout() == Layout::kDense);
  CHECK(image.narrow(-1, 2, 4).layout() == Layout::kPitched);
  CHECK(image.narrow(0, 1, 1).layout() == Layout::kDense);
  CHECK(image.narrow(1, 1, 1).layout() == Layout::kGeneral);
  CHECK(image.narrow(0, 0, 1).narrow(1, 1, 1).layout() == Layout::kDense);  // one image, one row of pixels
  CHECK(image.narrow(2, 0, 2).layout() == Layout::kGeneral);
  CHECK(image.permute({0, 3, 1, 2}).layout() == Layout::kGeneral);
  CHECK(image.permute({0, 1, 2, 3}).layout() == Layout::kDense);
  CHECK(Tensor::scalar(1).layout() == Layout::kDense);
  CHECK(counting({5}).layout() == Layout::kDense);
  CHECK(counting({5}).narrow(0, 1, 3).layout() == Layout::kDense);
  CHECK(counting({5, 1}).narrow(1, 0, 1).layout() == Layout::kDense);
  CHECK(counting({5, 3}).narrow(1, 0, 1).layout() == Layout::kPitched);
  CHECK(counting({5, 3}).select(1, 0).layout() == Layout::kGeneral);
  CHECK(counting({1, 3}).expand({4, 3}).layout() == Layout::kGeneral);
  CHECK(counting({4, 3}).permute({1, 0}).permute({1, 0}).layout() == Layout::kDense);
}

TEST_CASE("views that kernels receive") {
  const Tensor slice = counting({2, 3, 4, 8}).narrow(-1, 2, 5);
  const RowsView rows = slice.rows();
  CHECK(rows.rows == 24);
  CHECK(rows.cols == 5);
  CHECK(rows.pitch == 8);
  CHECK(*data<float>(rows) == 2);
  const ImageView image = slice.image();
  CHECK(image.n == 2);
  CHECK(image.h == 3);
  CHECK(image.w == 4);
  CHECK(image.c == 5);
  CHECK(image.pitch == 8);
  CHECK_THROWS_AS(slice.filter(), Error);
  CHECK_THROWS_AS(counting({2, 3}).image(), Error);
  CHECK_THROWS_AS(counting({2, 3}).permute({1, 0}).rows(), Error);
  const RowsView scalar = Tensor::scalar(1).rows();
  CHECK(scalar.rows * scalar.cols == 1);
  CHECK(counting({7}).rows().rows == 1);
  CHECK(counting({5, 0}).rows().rows * counting({5, 0}).rows().cols == 0);
}

TEST_CASE("view regroups what memory allows") {
  const Tensor t = counting({2, 3, 4});
  CHECK(t.view({6, 4}).shape() == Shape{6, 4});
  CHECK(t.view({-1}).shape() == Shape{24});
  CHECK(t.view({2, -1, 2}).shape() == Shape{2, 6, 2});
  CHECK(floats(t.view({4, 6})) == floats(t));
  CHECK(counting({1}).view({}).rank() == 0);
  CHECK(Tensor::scalar(2).view({1, 1}).item() == 2);
  const Tensor pitched = t.narrow(-1, 1, 2);
  CHECK(floats(pitched.view({6, 2})) == floats(pitched));
  CHECK(floats(pitched.view({1, 3, 2, 2})) == floats(pitched));
  CHECK(pitched.view({6, 2}).layout() == Layout::kPitched);
  CHECK_THROWS_AS(pitched.view({12}), Error);
  CHECK_THROWS_AS(t.view({5, 5}), Error);
  CHECK_THROWS_AS(t.view({-1, 5}), Error);
  CHECK_THROWS_AS(t.view({-1, -1}), Error);
  CHECK_THROWS_AS(t.permute({1, 0, 2}).view({24}), Error);
}

TEST_CASE("permute and expand are views with other strides, and refuse axes and sizes that do not fit") {
  const Tensor t = counting({2, 3});
  CHECK(floats(t.permute({1, 0})) == std::vector<float>{0, 3, 1, 4, 2, 5});
  CHECK(floats(counting({2, 1, 3}).permute({-1, 0, 1})) == std::vector<float>{0, 3, 1, 4, 2, 5});
  CHECK_THROWS_AS(t.permute({0}), Error);
  CHECK_THROWS_AS(t.permute({0, 0}), Error);
  CHECK_THROWS_AS(t.permute({0, 2}), Error);
  CHECK(floats(counting({3}).expand({2, 3})) == std::vector<float>{0, 1, 2, 0, 1, 2});
  CHECK(floats(counting({2, 1}).expand({2, 2})) == std::vector<float>{0, 0, 1, 1});
  CHECK(floats(Tensor::scalar(5).expand({3})) == std::vector<float>{5, 5, 5});
  CHECK_THROWS_AS(t.expand({3}), Error);
  CHECK_THROWS_AS(t.expand({2, 4}), Error);
  CHECK_THROWS_AS(t.expand({3, 3}), Error);
}

TEST_CASE("join_adjacent finds neighbouring channel slices") {
  const Tensor buffer = counting({2, 2, 2, 8});
  const Tensor left = buffer.narrow(-1, 1, 3);
  const Tensor right = buffer.narrow(-1, 4, 2);
  const Tensor joined = Tensor::join_adjacent(left, right);
  REQUIRE(joined.defined());
  CHECK(joined.shares_storage(buffer));
  CHECK(floats(joined) == floats(buffer.narrow(-1, 1, 5)));
  CHECK_FALSE(Tensor::join_adjacent(right, left).defined());
  CHECK_FALSE(Tensor::join_adjacent(left, buffer.narrow(-1, 5, 2)).defined());
  CHECK_FALSE(Tensor::join_adjacent(left, right.clone()).defined());
  CHECK_FALSE(Tensor::join_adjacent(left, right.narrow(0, 0, 1)).defined());
  CHECK_FALSE(Tensor::join_adjacent(left, Tensor()).defined());
  CHECK_FALSE(Tensor::join_adjacent(buffer.select(0, 0), buffer.select(0, 1)).defined());
  const Tensor all = Tensor::join_adjacent(buffer.narrow(-1, 0, 4), buffer.narrow(-1, 4, 4));
  CHECK(all.is_dense());
  // Dense tensors one behind the other in memory are no channel slices of one buffer.
  const Tensor two = counting({2, 3});
  CHECK_FALSE(Tensor::join_adjacent(counting({2, 3}).narrow(0, 0, 1).narrow(1, 0, 3), two.narrow(0, 1, 1)).defined());
}

TEST_CASE("copies and conversions") {
  const Tensor t = counting({2, 3});
  CHECK(t.contiguous().shares_storage(t));
  CHECK_FALSE(t.clone().shares_storage(t));
  CHECK_FALSE(t.permute({1, 0}).contiguous().shares_storage(t));
  CHECK(t.to(DType::kF32).shares_storage(t));
  CHECK(Tensor::from_floats({1.9f, -1.9f, 0, 300}, {4}).to(DType::kI32).to_vector<int32_t>() ==
        std::vector<int32_t>{1, -1, 0, 300});
  CHECK(floats(Tensor::from_floats({1.00390625f}, {1}).to(DType::kBF16).to(DType::kF32)) ==
        std::vector<float>{1.0f});  // ties to even
  CHECK(floats(Tensor::from_floats({0.1f}, {1}).to(DType::kF16).to(DType::kF32)) == std::vector<float>{0.0999755859375f});
  const auto truth = Tensor::from_floats({0.25f, 0, -3}, {3}).to(DType::kBool).to_vector<bool>();
  CHECK(truth == std::vector<bool>{true, false, true});
  const int64_t big = (int64_t{1} << 53) + 1;  // not a double
  CHECK(Tensor::from_vector<int64_t>({big}, {1}).clone().to_vector<int64_t>()[0] == big);
  t.copy_from(Tensor::from_vector<uint8_t>({9, 8, 7, 6, 5, 4}, {2, 3}));
  CHECK(floats(t) == std::vector<float>{9, 8, 7, 6, 5, 4});
  CHECK_THROWS_AS(t.copy_from(counting({3, 2})), Error);
}

TEST_CASE("versions count writes per region") {
  const Tensor buffer = Tensor::zeros({2, 8});
  const Tensor left = buffer.narrow(1, 0, 4);
  const Tensor right = buffer.narrow(1, 4, 4);
  const uint64_t before = left.version();
  right.fill(1);
  CHECK(left.version() == before);
  left.fill(2);
  CHECK(left.version() > before);
  const Tensor same = left;
  CHECK(same.version() == left.version());
  CHECK(left.view({2, 1, 4}).version() == left.version());  // a regrouped view is the same region
}

TEST_CASE("a tensor as text: type and shape, with the values where they are few") {
  CHECK(describe(counting({2, 3})) == "f32[2, 3]");
  CHECK(describe(Tensor()) == "undefined tensor");
  CHECK(to_string(Tensor::from_floats({1, 2.5f}, {2})) == "f32[2] {1, 2.5}");
  CHECK(to_string(Tensor::zeros({100})) == "f32[100]");
}

TEST_CASE("backends: lookup and guard") {
  CHECK(find_backend("ref") != nullptr);
  CHECK(find_backend("no such backend") == nullptr);
  CHECK_THROWS_AS(backend_for(Device::cuda()), Error);
  Backend& usual = backend_for(Device::cpu());
  {
    const BackendGuard guard(*find_backend("ref"));
    CHECK(backend_for(Device::cpu()).name() == "ref");
  }
  CHECK(&backend_for(Device::cpu()) == &usual);
}

}  // namespace
}  // namespace tessera
