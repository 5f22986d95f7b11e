#include "nn/rounded_weights.h"

#include <doctest/doctest.h>

#include "nn/layers/conv2d.h"
#include "tensor/ops/random.h"

using namespace tessera;

namespace {
struct Pair : Module {
  Pair() {
    child("a", a);
    child("b", b);
  }
  std::string kind() const override { return "Pair"; }
  Conv2d a{3, 5, 3}, b{5, 2, 1};
};

std::vector<float> numbers(const Tensor& t) { return t.to(DType::kF32).to_vector<float>(); }
}  // namespace

TEST_CASE("weights that are rounded together are those that are rounded alone, for as long as they are asked for") {
  Pair pair;
  const ParameterArena arena(pair);
  ops::uniform(arena.values(ParamGroup::kWeight), {7, RngPurpose::kTest, 1}, -1, 1);
  const Tensor pixels = Tensor::empty({1, 6, 6, 3});
  ops::uniform(pixels, {7, RngPurpose::kTest, 2}, -1, 1);
  const auto result = [&](DType type) { return numbers(pair.b.forward(pair.a.forward(Variable(pixels.to(type)))).data()); };
  for (const DType type : {DType::kBF16, DType::kF16, DType::kF32}) {
    CAPTURE(name_of(type));
    const std::vector<float> alone = result(type);
    {
      const RoundedWeights rounded(arena, type);
      CHECK(pair.a.weight.rounded().defined() == (type != DType::kF32));
      CHECK(result(type) == alone);
      CHECK(result(DType::kF32) != result(DType::kBF16));  // another type than the kept one
    }
    CHECK(!pair.a.weight.rounded().defined());
    arena.values(ParamGroup::kWeight).fill(0.25);
    CHECK(result(type) != alone);
    ops::uniform(arena.values(ParamGroup::kWeight), {7, RngPurpose::kTest, 1}, -1, 1);
  }
}
