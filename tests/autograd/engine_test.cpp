// The engine itself: shared inputs, slices, deep chains, version check, no-grad, freed graphs.
#include <doctest/doctest.h>

#include <cmath>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "autograd/functions/concat.h"
#include "autograd/functions/conv.h"
#include "autograd/functions/norm.h"
#include "autograd/functions/pointwise.h"
#include "autograd/functions/reduce.h"
#include "autograd/functions/shape.h"
#include "autograd/grad_mode.h"
#include "autograd/graph_dump.h"
#include "autograd/node.h"
#include "tensor/beside.h"
#include "tensor/caching_allocator.h"
#include "tensor/observing_backend.h"

using namespace tessera;

namespace {
Variable leaf(std::initializer_list<float> values, const Shape& shape) {
  return Variable(Tensor::from_floats(values, shape), true);
}
}  // namespace

TEST_CASE("a variable used several times gets the sum of its gradients") {
  const Variable x = leaf({1, 2, 3}, {3});
  const Variable y = ag::add(ag::add(x, x), ag::multiply(x, x));  // 2x + x^2: gradient 2 + 2x
  ag::sum(y).backward();
  CHECK(x.grad().to_vector<float>() == std::vector<float>{4, 6, 8});
}

TEST_CASE("gradients accumulate over backward passes, into a given tensor too") {
  Variable x = leaf({1, 2}, {2});
  const Tensor target = Tensor::full({2}, 10.0);
  x.set_grad(target);
  ag::sum(ag::scale(x, 3.0)).backward();
  ag::sum(ag::scale(x, 3.0)).backward();
  CHECK(target.to_vector<float>() == std::vector<float>{16, 16});
}

TEST_CASE("channel slices of one buffer concatenate without a copy and their gradients come back as slices") {
  const Tensor buffer = Tensor::zeros({2, 6});
  const Variable x = leaf({1, 2, 3, 4, 5, 6, 7, 8}, {2, 4});
  const Variable a = ag::narrow_channels(x, 0, 2), b = ag::narrow_channels(x, 2, 2);
  const Variable parts[] = {a, b};
  const Variable joined = ag::concat_channels(parts);
  CHECK(joined.data().raw() == x.data().raw());
  const Variable w(Tensor::from_floats({1, 2, 3, 4, 5, 6, 7, 8}, {2, 4}));
  ag::sum(ag::multiply(joined, w)).backward();
  CHECK(x.grad().to_vector<float>() == w.data().to_vector<float>());
}

TEST_CASE("one slice used, the other not: the rest of the gradient is zero") {
  const Variable x = leaf({1, 2, 3, 4}, {1, 4});
  const Variable y = ag::silu(x);
  ag::sum(ag::narrow_channels(ag::scale(y, 1.0), 1, 2)).backward();
  const auto g = x.grad().to_vector<float>();
  CHECK(g[0] == 0.0f);
  CHECK(g[1] != 0.0f);
  CHECK(g[2] != 0.0f);
  CHECK(g[3] == 0.0f);
}

TEST_CASE("partially overlapping slices add up") {
  const Variable x = leaf({1, 2, 3, 4}, {1, 4});
  const Variable y = ag::scale(x, 1.0);
  const Variable total = ag::add(ag::sum(ag::narrow_channels(y, 0, 3)), ag::sum(ag::narrow_channels(y, 1, 3)));
  total.backward();
  CHECK(x.grad().to_vector<float>() == std::vector<float>{1, 2, 2, 1});
}

TEST_CASE("a chain of 200 000 nodes needs no recursion, neither backward nor when dropped") {
  const Variable x = leaf({1}, {1});
  {
    Variable y = x;
    for (int i = 0; i < 200000; ++i) y = ag::scale(y, 1.0);
    ag::sum(y).backward();
  }
  CHECK(x.grad().item() == 1.0);
  Variable dropped = x;
  for (int i = 0; i < 200000; ++i) dropped = ag::scale(dropped, 1.0);
}

TEST_CASE("a saved tensor that is written to afterwards is noticed") {
  const Variable x = leaf({1, 2}, {2});
  const Variable y = ag::silu(x);
  x.data().fill(0.0);
  CHECK_THROWS_WITH_AS(ag::sum(y).backward(), doctest::Contains("written to afterwards"), Error);
}

TEST_CASE("nothing is recorded without a gradient, or under NoGrad") {
  const Variable constant(Tensor::from_floats({1}, {1}));
  CHECK(ag::silu(constant).node() == nullptr);
  const Variable x = leaf({1}, {1});
  {
    NoGrad guard;
    CHECK(ag::silu(x).node() == nullptr);
  }
  CHECK(ag::silu(x).node() != nullptr);
  CHECK_THROWS_AS(constant.backward(), Error);
}

TEST_CASE("running backward twice over one graph is an error that says so") {
  const Variable x = leaf({1}, {1});
  const Variable y = ag::sum(ag::silu(x));
  y.backward();
  CHECK_THROWS_WITH_AS(y.backward(), doctest::Contains("ran twice"), Error);
  CHECK(x.grad().defined());
}

TEST_CASE("the graph dump names operations and saved bytes") {
  const Variable x = leaf({1, 2}, {2});
  const Variable y = ag::sum(ag::silu(x));
  const std::string text = graph_text(y);
  CHECK(text.find("silu") != std::string::npos);
  CHECK(text.find("2 nodes, 8 bytes saved") != std::string::npos);
  CHECK(graph_dot(y).find("digraph") == 0);
  CHECK(graph_saved_bytes(y) == 8);
}

namespace {
// Gradients of x and of both filters through norm + SiLU (+ residual) and a cast between two convolutions; the bytes that the graph
// keeps.
struct Chain {
  std::vector<std::vector<float>> gradients;
  int64_t saved_bytes;
};
Chain chain(bool recompute, DType type = DType::kF32, bool residual = false, bool into = false) {
  const auto ramp = [](const Shape& shape, double step) {
    std::vector<float> v;
    for (int64_t i = 0; i < numel(shape); ++i) v.push_back(float(0.4 * std::sin(step * double(i) + 1)));
    return Variable(Tensor::from_vector(v, shape), true);
  };
  const Variable x = ramp({2, 4, 4, 3}, 0.7), w = ramp({5, 3, 3, 3}, 1.1), w2 = ramp({4, 1, 1, 5}, 0.9), gamma = ramp({5}, 2),
                 beta = ramp({5}, 3);
  const ag::BatchNormState state{Tensor::zeros({5}), Tensor::full({5}, 1.0), 0.03, 1e-3, nullptr, recompute};
  const Variable plus = residual ? ag::cast(ramp({2, 4, 4, 5}, 0.3), type) : Variable{};
  const Tensor wide = Tensor::empty({2, 4, 4, 9}, type);
  const Variable z = ag::batch_norm_train(ag::conv2d(ag::cast(x, type), w, {}, {1, 1}), gamma, beta, state, Activation::kSilu, plus,
                                          into ? wide.narrow(-1, 2, 5) : Tensor{});
  const Variable y = ag::sum(ag::conv2d(ag::cast(z, DType::kF32), w2, {}, {1, 0}));
  const int64_t bytes = graph_saved_bytes(y);
  y.backward();
  return {{x.grad().to_vector<float>(), w.grad().to_vector<float>(), w2.grad().to_vector<float>()}, bytes};
}
}  // namespace

TEST_CASE("convolutions of one input add their gradients in place, to those of slices too") {
  const auto value = [](int64_t i) { return float(0.3 * std::sin(0.9 * double(i))); };
  const auto filled = [&](const Shape& shape) {
    std::vector<float> v;
    for (int64_t i = 0; i < numel(shape); ++i) v.push_back(value(i));
    return Tensor::from_vector(v, shape);
  };
  const Tensor w1 = filled({4, 3, 3, 6}), w2 = filled({5, 1, 1, 6}), w3 = filled({2, 3, 3, 3});
  // Which of the three readers of silu(x) are there.
  const auto gradient = [&](bool first, bool second, bool slice) {
    const Variable x(filled({2, 5, 7, 6}), true);
    const Variable z = ag::silu(x);
    Variable total;
    const auto add = [&](const Variable& y) { total = total.defined() ? ag::add(total, ag::sum(y)) : ag::sum(y); };
    if (first) add(ag::conv2d(z, Variable(w1), {}, {1, 1}));
    if (second) add(ag::conv2d(z, Variable(w2), {}, {1, 0}));
    if (slice) add(ag::conv2d(ag::narrow_channels(z, 2, 3), Variable(w3), {}, {1, 1}));
    total.backward();
    return x.grad().to_vector<float>();
  };
  const std::vector<float> a = gradient(true, false, false), b = gradient(false, true, false), c = gradient(false, false, true);
  const std::vector<float> two = gradient(true, true, false), three = gradient(true, true, true);
  for (size_t i = 0; i < a.size(); ++i) {
    CHECK(two[i] == doctest::Approx(a[i] + b[i]).epsilon(1e-5));
    CHECK(three[i] == doctest::Approx(a[i] + b[i] + c[i]).epsilon(1e-5));
  }
}

TEST_CASE("gradients of weights are called beside, and joined before anybody reads them") {
  struct Watched : ObservingBackend {
    using ObservingBackend::ObservingBackend;
    void observe(const OpCost&, const std::function<void()>& run) override { run(); }
    void conv2d_backward_weight(ImageView x, ImageView dy, FilterView dw, const ConvParams& p, bool accumulate) override {
      seen += BesideGuard::here() ? "beside " : "in turn ";
      ObservingBackend::conv2d_backward_weight(x, dy, dw, p, accumulate);
    }
    void add_scaled(RowsView x, double alpha, RowsView y) override {
      seen += "add ";
      ObservingBackend::add_scaled(x, alpha, y);
    }
    void join_calls_beside() override { seen += "join "; }
    std::string seen;
  };
  Watched backend(backend_for(Device::cpu()));
  const BackendGuard guard(backend);
  const Variable x(Tensor::full({1, 2, 3, 4}, 0.5)), w(Tensor::full({4, 1, 1, 4}, 0.25), true);
  const auto seen_in = [&](const Variable& y) {
    backend.seen.clear();
    y.backward();
    return backend.seen;
  };
  CHECK(seen_in(ag::sum(ag::conv2d(x, w, {}, {1, 0}))) == "in turn ");  // there is nothing to add to
  CHECK(seen_in(ag::sum(ag::conv2d(ag::conv2d(x, w, {}, {1, 0}), w, {}, {1, 0}))) == "beside beside join ");
  // The older of two readers adds to the gradient itself.
  const Variable twice = ag::scale(w, 2);
  CHECK(seen_in(ag::add(ag::sum(twice), ag::sum(ag::conv2d(x, w, {}, {1, 0})))) == "beside join add ");
}

TEST_CASE("a convolution of channels adds its gradient in place to that of the whole result") {
  struct Watched : ObservingBackend {
    using ObservingBackend::ObservingBackend;
    void observe(const OpCost&, const std::function<void()>& run) override { run(); }
    void add_scaled(RowsView x, double alpha, RowsView y) override {
      ++additions;
      ObservingBackend::add_scaled(x, alpha, y);
    }
    int additions = 0;
  };
  std::vector<float> numbers;
  for (int64_t i = 0; i < 2 * 4 * 6 * 6; ++i) numbers.push_back(float(std::sin(0.9 * double(i))));
  const auto filter = [&](const Shape& shape) {
    return Variable(Tensor::from_vector(std::vector<float>(numbers.begin(), numbers.begin() + numel(shape)), shape));
  };
  using Reader = std::function<Variable(const Variable&)>;
  const std::vector<Reader> readers = {  // the last one runs backwards first
      [&](const Variable& z) { return ag::conv2d(ag::narrow_channels(z, 2, 3), filter({2, 3, 3, 3}), {}, {1, 1}); },
      [&](const Variable& z) { return ag::conv2d(z, filter({4, 1, 1, 6}), {}, {1, 0}); },
  };
  const auto gradient = [&](std::span<const Reader> of, int& additions) {
    Watched backend(backend_for(Device::cpu()));
    const BackendGuard guard(backend);
    const Variable x(Tensor::from_vector(numbers, {2, 4, 6, 6}), true);
    const Variable z = ag::silu(x);
    std::vector<Variable> read;
    for (const Reader& r : of) read.push_back(ag::sum(r(z)));
    Variable total = read[0];
    for (size_t i = 1; i < read.size(); ++i) total = ag::add(total, read[i]);
    backend.additions = 0;
    total.backward();
    additions = backend.additions;
    return x.grad().to_vector<float>();
  };
  int additions = 0;
  std::vector<float> sum(numbers.size());
  for (const Reader& r : readers) {
    const std::vector<float> one = gradient({&r, 1}, additions);
    for (size_t i = 0; i < sum.size(); ++i) sum[i] += one[i];
  }
  const std::vector<float> all = gradient(readers, additions);
  CHECK(additions == 0);
  for (size_t i = 0; i < sum.size(); ++i) CHECK(all[i] == doctest::Approx(sum[i]).epsilon(1e-5));
}

TEST_CASE("adding in place takes no second tensor") {
  constexpr int64_t kPixels = 64 * 64, kBytes = kPixels * 32 * 4;
  const Tensor w = Tensor::full({1, 1, 1, 32}, 0.5);
  const auto peak_of_backward = [&](int readers) {
    const Variable x(Tensor::full({1, 64, 64, 1}, 0.25), true);
    const Variable z = ag::conv2d(x, Variable(Tensor::full({32, 1, 1, 1}, 0.5)), {}, {1, 0});  // its own gradient is small
    Variable total;
    for (int i = 0; i < readers; ++i) {
      const Variable y = ag::sum(ag::conv2d(z, Variable(w), {}, {1, 0}));
      total = total.defined() ? ag::add(total, y) : y;
    }
    const int64_t before = host_allocator().stats().bytes_in_use;
    host_allocator().reset_peaks();
    total.backward();
    return host_allocator().stats().peak_in_use - before;
  };
  const int64_t one = peak_of_backward(1);
  CHECK(one >= kBytes);
  CHECK(peak_of_backward(3) < one + kBytes / 2);
}

TEST_CASE("a convolution does not keep an input that can be made again") {
  constexpr int64_t kInput = 2 * 4 * 4 * 5 * 4;  // of the second convolution, in f32
  for (const DType type : {DType::kF32, DType::kBF16}) {
    CAPTURE(name_of(type));
    const Chain kept = chain(false, type), made_again = chain(true, type);
    CHECK(made_again.gradients == kept.gradients);
    CHECK(made_again.saved_bytes == kept.saved_bytes - kInput);
  }
  // A residual is not kept, and a slice of another tensor is there anyway.
  for (const bool residual : {true, false})
    CHECK(chain(true, DType::kF32, residual, !residual).saved_bytes == chain(false).saved_bytes);
}

TEST_CASE("a transposed convolution makes its result again, from an input that is made again itself") {
  const auto wave = [](const Shape& shape, double step) {
    std::vector<float> v;
    for (int64_t i = 0; i < numel(shape); ++i) v.push_back(float(0.4 * std::sin(step * double(i) + 1)));
    return Variable(Tensor::from_vector(v, shape), true);
  };
  const auto run = [&](bool recompute) {
    const Variable x = wave({2, 3, 4, 3}, 0.7), up = wave({4, 2, 2, 3}, 1.1), bias = wave({4}, 0.9), w = wave({5, 3, 3, 4}, 0.8),
                   gamma = wave({3}, 2), beta = wave({3}, 3);
    const ag::BatchNormState state{Tensor::zeros({3}), Tensor::full({3}, 1.0), 0.03, 1e-3, nullptr, recompute};
    const Variable y = ag::conv_transpose2x2(ag::batch_norm_train(x, gamma, beta, state, Activation::kSilu), up, bias, recompute);
    const Variable z = ag::sum(ag::silu(ag::conv2d(y, w, {}, {1, 1})));
    const int64_t bytes = graph_saved_bytes(z);
    z.backward();
    std::vector<std::vector<float>> gradients;
    for (const Variable* v : {&x, &up, &bias, &w, &gamma, &beta}) gradients.push_back(v->grad().to_vector<float>());
    return std::pair{gradients, bytes};
  };
  const auto kept = run(false), again = run(true);
  CHECK(again.first == kept.first);
  constexpr int64_t kNorm = 2 * 3 * 4 * 3 * 4, kUp = 2 * 6 * 8 * 4 * 4;  // bytes of both results
  CHECK(again.second == kept.second - kNorm - kUp);
}
