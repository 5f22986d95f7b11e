// The checked entry points: what they refuse and how they say it, `into`, version counts, and inputs of General layout.
#include <doctest/doctest.h>

#include "tensor/backend.h"
#include "tensor/ops/conv.h"
#include "tensor/ops/copy.h"
#include "tensor/ops/index.h"
#include "tensor/ops/losses.h"
#include "tensor/ops/matmul.h"
#include "tensor/ops/norm.h"
#include "tensor/ops/optim.h"
#include "tensor/ops/pointwise.h"
#include "tensor/ops/pool.h"
#include "tensor/ops/random.h"
#include "tensor/ops/reduce.h"
#include "tensor/ops/softmax.h"
#include "tensor/ref/ref_backend.h"

namespace tessera::testing {
namespace {

// The message of the Error that `call` throws; empty: it threw none.
template <class F>
std::string refusal(F&& call) {
  try {
    call();
  } catch (const Error& e) {
    return e.message();
  }
  return {};
}

#define CHECK_REFUSED(call, part)                                                                               \
  do {                                                                                                          \
    const std::string text = refusal([&] { (void)(call); });                                                    \
    CHECK_MESSAGE(text.find(part) != std::string::npos, #call, " says '", text, "', expected '", part, "'");    \
    CHECK_MESSAGE(text.find("expected") != std::string::npos, #call, " does not say what it expected: ", text); \
  } while (false)

Tensor f32(const Shape& shape) { return Tensor::full(shape, 0.5); }

TEST_CASE("entry points refuse what does not fit and say so") {
  const Tensor image = f32({1, 4, 4, 3});
  const Tensor filter = f32({5, 3, 3, 3});
  const Tensor rank2 = f32({2, 3});
  const Tensor integers = Tensor::zeros({2, 3}, DType::kI32);
  const Tensor none;
  CHECK_REFUSED(ops::unary(UnaryOp::kSilu, none), "silu: got an undefined x");
  CHECK_REFUSED(ops::unary(UnaryOp::kSilu, integers), "silu: got x i32[2, 3]");
  CHECK_REFUSED(ops::unary(UnaryOp::kSilu, rank2, f32({3, 2})), "silu: got into f32[3, 2]");
  CHECK_REFUSED(ops::unary_backward(UnaryOp::kSilu, rank2, f32({2, 4})), "silu: got dy f32[2, 4]");
  CHECK_REFUSED(ops::binary(BinaryOp::kAdd, rank2, integers), "add: got b i32[2, 3]");
  CHECK_REFUSED(ops::binary(BinaryOp::kDivide, integers, integers), "divide: got a i32[2, 3]");
  CHECK_REFUSED(ops::add_scaled(rank2, 1, f32({2})), "add_scaled: got y f32[2]");
  CHECK_REFUSED(ops::add_scaled(f32({3, 2}), 1, rank2.permute({1, 0})), "strides");
  CHECK_REFUSED(ops::copy(rank2, f32({3, 2})), "copy: got f32[2, 3]");
  CHECK_REFUSED(ops::concat({}, 0), "concat: got no tensors");
  CHECK_REFUSED(ops::concat({rank2, f32({2, 3, 1})}, 0), "concat: got part f32[2, 3, 1]");
  CHECK_REFUSED(ops::concat({rank2, f32({3, 4})}, 1), "concat: got part f32[3, 4]");
  CHECK_REFUSED(ops::reduce(ReduceOp::kMean, integers, {0}), "mean: got x i32[2, 3]");
  CHECK_REFUSED(ops::reduce(ReduceOp::kMax, f32({0, 3}), {0}), "max: got x f32[0, 3]");
  CHECK_REFUSED(ops::topk(rank2, 4), "topk: got k = 4");
  CHECK_REFUSED(ops::argmax(f32({2, 0})), "argmax: got x f32[2, 0]");
  CHECK_REFUSED(ops::matmul(rank2, rank2), "matmul: got 2 x 3 times 2 x 3");
  CHECK_REFUSED(ops::matmul(f32({3}), rank2), "matmul: got a f32[3]");
  CHECK_REFUSED(ops::conv2d(image, f32({5, 3, 3, 4}), {}), "conv2d: got x [1, 4, 4, 3] and w [5, 3, 3, 4]");
  CHECK_REFUSED(ops::conv2d(rank2, filter, {}), "conv2d: got x f32[2, 3]");
  CHECK_REFUSED(ops::conv2d(image, filter, {0, 1}), "stride 0");
  CHECK_REFUSED(ops::conv2d(f32({1, 2, 2, 3}), filter, {1, 0}), "conv2d: got x [1, 2, 2, 3] with pad 0");
  CHECK_REFUSED(ops::conv2d(image, filter, {1, 1}, f32({4})), "conv2d: got bias f32[4]");
  CHECK_REFUSED(ops::conv2d(image, filter, {1, 1}, {}, Activation::kNone, image), "conv2d: got residual f32[1, 4, 4, 3]");
  CHECK_REFUSED(ops::conv2d_backward_data(image, filter, {1, 4, 4, 3}, {1, 1}), "conv2d_backward_data: got dy f32[1, 4, 4, 3]");
  CHECK_REFUSED(ops::conv2d_backward_data(f32({1, 4, 4, 5}), filter, {1, 4, 4, 3}, {1, 1}, {}, true), "accumulate without into");
  CHECK_REFUSED(ops::conv2d_backward_weight(image, image, filter, {1, 1}, false), "conv2d_backward_weight: got dy");
  CHECK_REFUSED(ops::bias_backward(image, f32({4}), false), "bias_backward: got dbias f32[4]");
  CHECK_REFUSED(ops::conv_transpose2x2(image, filter, {}), "conv_transpose2x2: got x");
  CHECK_REFUSED(ops::conv_transpose2x2_backward_data(f32({1, 3, 4, 5}), f32({5, 2, 2, 3})), "dy f32[1, 3, 4, 5]");
  CHECK_REFUSED(ops::max_pool2d(image, {16, 1, 0}, true), "kernel 16");
  CHECK_REFUSED(ops::max_pool2d(image, {2, 1, 2}, true), "pad 2");
  CHECK_REFUSED(ops::max_pool2d_backward(image, f32({1, 4, 4, 3}), {1, 4, 4, 3}, {1, 1, 0}), "max_pool2d_backward: got index f32");
  CHECK_REFUSED(ops::upsample2x_backward(f32({1, 3, 4, 3})), "upsample2x_backward: got dy");
  CHECK_REFUSED(ops::resize_bilinear(image, 0, 4), "for 0x4");
  CHECK_REFUSED(ops::batch_norm_stats(rank2, 0), "eps = 0");
  CHECK_REFUSED(ops::batch_norm_apply(rank2, f32({3}), f32({3}), f32({2}), f32({3}), Activation::kNone),
                "batch_norm_apply: got gamma f32[2]");
  const Tensor narrow = f32({2, 3}).to(DType::kBF16);
  CHECK_REFUSED(ops::batch_norm_apply(narrow, f32({3}), f32({3}), f32({3}).to(DType::kBF16), f32({3}), Activation::kNone),
                "batch_norm_apply: got gamma bf16[3] on cpu, expected f32");
  CHECK_REFUSED(ops::batch_norm_stats(integers, 1e-3), "batch_norm_stats: got x i32[2, 3]");
  CHECK_REFUSED(ops::softmax(none), "softmax: got an undefined x");
  CHECK_REFUSED(ops::gather_rows(rank2, Tensor::from_vector<int64_t>({0, 2}, {2})), "index[1] = 2");
  CHECK_REFUSED(ops::gather_rows(rank2, Tensor::from_vector<int32_t>({0}, {1})), "gather_rows: got index i32[1]");
  CHECK_REFUSED(ops::scatter_add_rows(rank2, Tensor::from_vector<int64_t>({0}, {1}), rank2), "one index for each row");
  CHECK_REFUSED(ops::bce_with_logits(rank2, f32({3, 2})), "bce_with_logits: got target f32[3, 2]");
  CHECK_REFUSED(ops::ciou_loss(rank2, rank2, f32({2})), "ciou_loss: got boxes f32[2, 3]");
  CHECK_REFUSED(ops::dfl_loss(f32({2, 64}), f32({2, 4}), f32({3})), "dfl_loss: got weight f32[3]");
  CHECK_REFUSED(ops::dfl_loss(f32({2, 63}), f32({2, 4}), f32({2})), "dfl_loss: got logits f32[2, 63]");
  CHECK_REFUSED(ops::sgd(rank2, rank2, f32({2}), 1, {}), "sgd: got v f32[2]");
  CHECK_REFUSED(ops::adam(rank2, rank2, rank2, rank2, 1, AdamParams{}), "adam: got step 0");
  CHECK_REFUSED(ops::lerp(rank2, f32({2}), 0.5), "lerp: got x f32[2]");
  CHECK_REFUSED(ops::uniform(integers, {}, 0, 1), "uniform: got y i32[2, 3]");
  CHECK_REFUSED(ops::normal(f32({2, 4}).narrow(1, 0, 3), {}, 0, 1), "normal: got y f32[2, 3]");

  const int32_t image_index = 2;
  const int32_t object = 1;
  const float box[4] = {0, 0, 2, 2};
  const float area = 0.5f;
  const MaskLossItems items{1, &image_index, &object, box, &area, true};
  CHECK_REFUSED(ops::mask_loss(f32({1, 3}), f32({2, 4, 4, 3}), Tensor::zeros({2, 4, 4}, DType::kI32), items), "image[0] = 2");
  CHECK_REFUSED(ops::mask_loss(f32({1, 3}), f32({2, 4, 4, 3}), Tensor::zeros({1, 4, 4}, DType::kI32), items),
                "mask_loss: got masks i32[1, 4, 4]");
}

TEST_CASE("into receives the result in a slice and leaves the neighbours") {
  const Tensor buffer = Tensor::full({1, 4, 4, 12}, 7);
  const Tensor slot = buffer.narrow(-1, 4, 5);
  const Tensor x = f32({1, 4, 4, 3});
  const Tensor w = f32({5, 1, 1, 3});
  const uint64_t before = slot.version();
  const Tensor y = ops::conv2d(x, w, {}, {}, Activation::kNone, {}, slot);
  CHECK(y.shares_storage(buffer));
  CHECK(slot.version() > before);
  CHECK(slot.contiguous().to_vector<float>() == ops::conv2d(x, w, {}).to_vector<float>());
  CHECK(buffer.narrow(-1, 0, 4).to_vector<float>() == std::vector<float>(64, 7.0f));
  CHECK(buffer.narrow(-1, 9, 3).to_vector<float>() == std::vector<float>(48, 7.0f));
}

TEST_CASE("writes are counted") {
  const Tensor x = f32({2, 3});
  auto raised = [](const Tensor& t, auto&& write) {
    const uint64_t before = t.version();
    write();
    return t.version() > before;
  };
  const Tensor y = f32({2, 3});
  const Tensor v = f32({3});
  CHECK(raised(y, [&] { y.fill(1); }));
  CHECK(raised(y, [&] { y.copy_from(x); }));
  CHECK(raised(y, [&] { ops::add_scaled(x, 1, y); }));
  CHECK(raised(y, [&] { ops::lerp(y, x, 0.5); }));
  CHECK(raised(y, [&] { ops::unary(UnaryOp::kExp, x, y); }));
  CHECK(raised(y, [&] { ops::scatter_add_rows(x, Tensor::from_vector<int64_t>({1, 0}, {2}), y); }));
  CHECK(raised(y, [&] { ops::bce_with_logits_backward(x, x, Tensor::scalar(1), y, true); }));
  CHECK(raised(y, [&] { ops::uniform(y, {}, 0, 1); }));
  CHECK(raised(v, [&] { ops::bias_backward(x, v, true); }));
  CHECK_FALSE(raised(x, [&] { ops::unary(UnaryOp::kExp, x); }));
  CHECK_FALSE(raised(x, [&] { ops::sum_of_squares(x); }));
}

TEST_CASE("a packed filter gives the bits of the filter") {
  struct Case {
    int64_t in, out, kernel, stride, pad;
  };
  for (const DType type : {DType::kF32, DType::kBF16, DType::kF64}) {
    for (const Case& c :
         {Case{3, 16, 3, 2, 1}, {32, 32, 3, 1, 1}, {5, 7, 3, 1, 1}, {48, 80, 1, 1, 0}, {1024, 33, 1, 1, 0}, {7, 40, 2, 2, 0}}) {
      CAPTURE(name_of(type));
      CAPTURE(c.in);
      CAPTURE(c.out);
      const Tensor x = Tensor::empty({3, 12, 20, c.in}), w = Tensor::empty({c.out, c.kernel, c.kernel, c.in});
      ops::normal(x, {1, RngPurpose::kTest}, 0, 1);
      ops::normal(w, {2, RngPurpose::kTest}, 0, 0.1);
      const Tensor input = x.to(type), filter = w.to(type), bias = Tensor::full({c.out}, 0.25, wide_of(type));
      for (Backend* backend : available_backends()) {
        if (backend->device_kind() != Device::Kind::kCpu) continue;
        const BackendGuard use(*backend);
        const ops::PackedFilter packed(filter, {c.stride, c.pad});
        CHECK(packed.shape() == filter.shape());
        const ConvParams p{c.stride, c.pad};
        const Tensor a = ops::conv2d(input, filter, p, bias, Activation::kSilu),
                     b = ops::conv2d(input, packed, bias, Activation::kSilu);
        CHECK(a.to(DType::kF64).to_vector<double>() == b.to(DType::kF64).to_vector<double>());
      }
    }
  }
  const Tensor w = f32({16, 3, 3, 8}), x = f32({1, 8, 8, 8});
  const ops::PackedFilter packed(w, {});
  CHECK_REFUSED(ops::conv2d(f32({1, 8, 8, 4}), packed), "conv2d");
  CHECK_REFUSED(ops::conv2d(x.to(DType::kF64), packed), "conv2d");
  RefBackend other;
  if (backend_for(Device::cpu()).packed_filter_size(w.filter(), {}) == 0) return;
  const BackendGuard use(other);
  CHECK_REFUSED(ops::conv2d(x, packed), "packed for backend");
}

TEST_CASE("batch norm of 16-bit batches keeps its vectors in f32") {
  const Tensor x = Tensor::from_floats({1, 2, 3, 6}, {4, 1}).to(DType::kBF16);
  const ops::BatchNormStats s = ops::batch_norm_stats(x, 0.5);
  CHECK(s.mean.dtype() == DType::kF32);
  CHECK(s.mean.item() == 3);
  CHECK(s.rstd.item() == 0.5);
  const Tensor one = f32({1}), y = ops::batch_norm_apply(x, s.mean, s.rstd, one, one, Activation::kNone);
  CHECK(y.dtype() == DType::kBF16);
  CHECK(y.to(DType::kF32).to_vector<float>() == std::vector<float>{0, 0.25, 0.5, 1.25});
  const Tensor dgamma = Tensor::zeros({1}), dbeta = Tensor::zeros({1});
  const Tensor dx = ops::batch_norm_backward(x, Tensor::full(x.shape(), 1, DType::kBF16), s.mean, s.rstd, one, one,
                                             Activation::kNone, dgamma, dbeta, false);
  CHECK(dx.to(DType::kF32).to_vector<float>() == std::vector<float>(4, 0.0f));
  CHECK(dbeta.item() == 4);
  CHECK(dgamma.item() == 0);
}

// A permuted view gives what its dense copy gives.
TEST_CASE("General inputs are copied once") {
  const Tensor stored = Tensor::empty({1, 3, 4, 6});
  ops::uniform(stored, {.seed = 1}, -1, 1);
  const Tensor x = stored.permute({0, 2, 3, 1});
  REQUIRE(x.layout() == Layout::kGeneral);
  const Tensor dense = x.contiguous();
  auto same = [](const Tensor& a, const Tensor& b) {
    return a.shape() == b.shape() && a.to_vector<float>() == b.to_vector<float>();
  };
  const Tensor w = f32({2, 3, 3, 3});
  CHECK(same(ops::unary(UnaryOp::kSilu, x), ops::unary(UnaryOp::kSilu, dense)));
  CHECK(same(ops::scale(x, 2), ops::scale(dense, 2)));
  CHECK(same(ops::conv2d(x, w, {1, 1}), ops::conv2d(dense, w, {1, 1})));
  CHECK(same(ops::max_pool2d(x, {2, 2, 0}, false).first, ops::max_pool2d(dense, {2, 2, 0}, false).first));
  CHECK(same(ops::softmax(x), ops::softmax(dense)));
  CHECK(same(ops::topk(x, 2).first, ops::topk(dense, 2).first));
  CHECK(same(ops::batch_norm_stats(x, 1e-3).rstd, ops::batch_norm_stats(dense, 1e-3).rstd));
  CHECK(ops::sum_of_squares(x) == doctest::Approx(ops::sum_of_squares(dense)));
  const Tensor m = stored.view({12, 6});
  CHECK(same(ops::matmul(m.permute({1, 0}), m), ops::matmul(m, m, true, false)));
}

TEST_CASE("reduce drops or keeps the axes, negative ones count from the end") {
  const Tensor x = Tensor::from_floats({1, 2, 3, 4, 5, 6}, {2, 3});
  CHECK(ops::reduce(ReduceOp::kSum, x, {-1}).shape() == Shape{2});
  CHECK(ops::reduce(ReduceOp::kSum, x, {-1}, true).shape() == Shape{2, 1});
  CHECK(ops::reduce(ReduceOp::kSum, x, {}).shape() == Shape{});
  CHECK(ops::reduce(ReduceOp::kSum, x, {}).item() == 21);
  CHECK(ops::reduce(ReduceOp::kSum, f32({0, 3}), {0}).to_vector<float>() == std::vector<float>{0, 0, 0});
  CHECK(ops::reduce(ReduceOp::kMax, x, {0}).to_vector<float>() == std::vector<float>{4, 5, 6});
}

TEST_CASE("concat joins along any axis") {
  const Tensor a = Tensor::from_floats({1, 2, 3, 4}, {2, 2});
  const Tensor b = Tensor::from_floats({5, 6}, {2, 1});
  CHECK(ops::concat({a, b}, 1).to_vector<float>() == std::vector<float>{1, 2, 5, 3, 4, 6});
  CHECK(ops::concat({a, a}, 0).to_vector<float>() == std::vector<float>{1, 2, 3, 4, 1, 2, 3, 4});
}

// Same words as the sequential reader, on the grid of 2^-24; normal numbers of the expected spread.
TEST_CASE("random fills follow their stream") {
  const RandomStream s{.seed = 99, .purpose = RngPurpose::kTest, .index = 4};
  const Tensor y = Tensor::empty({1001});
  ops::uniform(y, s, 0, 1);
  Rng words(99, RngPurpose::kTest, 4);
  for (int64_t i = 0; i < y.numel(); ++i) REQUIRE(y.data<float>()[i] == float(words.next_u32() >> 8) * 0x1p-24f);
  const Tensor wide = Tensor::empty({1001}, DType::kF64);
  ops::uniform(wide, s, 0, 1);
  CHECK(wide.to(DType::kF32).to_vector<float>() == y.to_vector<float>());

  const Tensor z = Tensor::empty({100000}, DType::kF64);
  ops::normal(z, s, 2, 3);
  const double mean = ops::reduce(ReduceOp::kMean, z, {}).item();
  CHECK(mean == doctest::Approx(2).epsilon(0.02));
  ops::add_scaled(Tensor::full(z.shape(), 1, DType::kF64), -2, z);
  CHECK(ops::sum_of_squares(z) / 1e5 == doctest::Approx(9).epsilon(0.02));
}

}  // namespace
}  // namespace tessera::testing
