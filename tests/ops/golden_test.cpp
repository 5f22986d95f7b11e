// Every op against PyTorch's results and gradients (tests/golden/ops.*, made by tools/golden/ops.py), on every backend.
#include "tests/support/golden.h"

#include <doctest/doctest.h>

#include <cmath>

#include "tensor/backend.h"
#include "tensor/ops/conv.h"
#include "tensor/ops/copy.h"
#include "tensor/ops/index.h"
#include "tensor/ops/losses.h"
#include "tensor/ops/matmul.h"
#include "tensor/ops/norm.h"
#include "tensor/ops/pointwise.h"
#include "tensor/ops/pool.h"
#include "tensor/ops/reduce.h"
#include "tensor/ops/softmax.h"
#include "tests/support/every.h"
#include "tests/support/formula.h"

namespace tessera::testing {
namespace {

using Json = nlohmann::json;

// One stored case: inputs by name, and a check that says which case and backend differ.
class Golden {
 public:
  Golden(const TensorMap& tensors, std::string name, Json info)
      : tensors_(tensors), name_(std::move(name)), info_(std::move(info)) {}

  bool has(const std::string& key) const { return tensors_.contains(name_ + "." + key); }
  const Tensor& operator[](const std::string& key) const {
    REQUIRE_MESSAGE(has(key), name_, " has no tensor ", key);
    return tensors_.at(name_ + "." + key);
  }
  const Json& info() const { return info_; }
  std::string op() const { return info_.at("op"); }

  // |got - want| <= 2e-5 (1 + |want|): f32 kernels against exact values rounded to f32.
  void expect(const std::string& key, const Tensor& got, double tolerance = 2e-5) const {
    const Tensor& want = (*this)[key];
    REQUIRE_MESSAGE(got.numel() == want.numel(), name_, ".", key, ": ", describe(got), " for ", describe(want));
    const auto a = got.to(DType::kF64).to_vector<double>();
    const auto b = want.to(DType::kF64).to_vector<double>();
    double worst = 0;
    for (size_t i = 0; i < a.size(); ++i) {
      const double error = a[i] == b[i] ? 0 : std::abs(a[i] - b[i]) / (1 + std::abs(b[i]));
      if (!(error <= worst)) worst = error;
    }
    CHECK_MESSAGE(worst <= tolerance, backend_for(Device::cpu()).name(), " ", name_, ".", key, ": off by ", worst);
  }

 private:
  const TensorMap& tensors_;
  std::string name_;
  Json info_;
};

void check_conv(const Golden& g) {
  const Tensor bias = g.has("bias") ? g["bias"] : Tensor();
  const Tensor dw = Tensor::empty(g["w"].shape());
  if (g.op() == "conv2d") {
    const ConvParams p{g.info()["stride"], g.info()["pad"]};
    g.expect("y", ops::conv2d(g["x"], g["w"], p, bias));
    g.expect("dx", ops::conv2d_backward_data(g["dy"], g["w"], g["x"].shape(), p));
    ops::conv2d_backward_weight(g["x"], g["dy"], dw, p, false);
  } else {
    g.expect("y", ops::conv_transpose2x2(g["x"], g["w"], bias));
    g.expect("dx", ops::conv_transpose2x2_backward_data(g["dy"], g["w"]));
    ops::conv_transpose2x2_backward_weight(g["x"], g["dy"], dw, false);
  }
  g.expect("dw", dw);
  if (!bias.defined()) return;
  const Tensor dbias = Tensor::empty(bias.shape());
  ops::bias_backward(g["dy"], dbias, false);
  g.expect("dbias", dbias);
}

void check_batch_norm(const Golden& g) {
  const double eps = g.info()["eps"];
  const Activation act = g.info().value("silu", false) ? Activation::kSilu : Activation::kNone;
  // Batch norm far from zero loses what x itself has lost: 50 has a spacing of 4e-6.
  const double tolerance = g.has("batch_mean") && std::abs(ops::reduce(ReduceOp::kMax, g["x"], {}).item()) > 10 ? 2e-4 : 2e-5;
  if (!g.info()["train"]) {
    const Tensor rstd = ops::batch_norm_rstd(g["running_var"], eps);
    return g.expect("y", ops::batch_norm_apply(g["x"], g["running_mean"], rstd, g["gamma"], g["beta"], act));
  }
  const double rows = double(g["x"].numel()) / double(g["gamma"].numel());
  const ops::RunningStats running{Tensor::zeros(g["gamma"].shape()), Tensor::zeros(g["gamma"].shape()), 1};
  const auto s = ops::batch_norm_stats(g["x"], eps, running);
  g.expect("batch_mean", s.mean);
  g.expect("batch_mean", running.mean);
  g.expect("batch_var", ops::scale(running.var, (rows - 1) / rows));
  g.expect("y", ops::batch_norm_apply(g["x"], s.mean, s.rstd, g["gamma"], g["beta"], act), tolerance);
  const Tensor dgamma = Tensor::empty(s.mean.shape());
  const Tensor dbeta = Tensor::empty(s.mean.shape());
  g.expect("dx", ops::batch_norm_backward(g["x"], g["dy"], s.mean, s.rstd, g["gamma"], g["beta"], act, dgamma, dbeta, false),
           tolerance);
  g.expect("dgamma", dgamma, tolerance);
  g.expect("dbeta", dbeta, tolerance);
}

void check_pool(const Golden& g) {
  const PoolParams p{g.info()["kernel"], g.info()["stride"], g.info()["pad"]};
  const auto [y, index] = ops::max_pool2d(g["x"], p, true);
  g.expect("y", y, 0);
  g.expect("dx", ops::max_pool2d_backward(g["dy"], index, g["x"].shape(), p));
}

void check_loss(const Golden& g) {
  if (g.op() == "bce_with_logits_sum") {
    g.expect("y", ops::bce_with_logits(g["x"], g["target"]));
    const Tensor dx = Tensor::empty(g["x"].shape());
    ops::bce_with_logits_backward(g["x"], g["target"], Tensor::scalar(1), dx, false);
    g.expect("dx", dx);
  } else if (g.op() == "ciou_loss_sum") {
    const Tensor ciou = Tensor::empty(g["weight"].shape());
    g.expect("y", ops::ciou_loss(g["boxes"], g["target"], g["weight"], ciou));
    g.expect("ciou", ciou);
    g.expect("dboxes", ops::ciou_loss_backward(g["boxes"], g["target"], g["weight"], Tensor::scalar(1)));
  } else if (g.op() == "dfl_loss_sum") {
    g.expect("y", ops::dfl_loss(g["x"], g["target"], g["weight"]));
    g.expect("dx", ops::dfl_loss_backward(g["x"], g["target"], g["weight"], Tensor::scalar(1)));
  } else {
    const MaskLossItems items{g["image"].numel(),       g["image"].data<int32_t>(), g["target"].data<int32_t>(),
                              g["boxes"].data<float>(), g["area"].data<float>(),    g.info()["overlap"]};
    g.expect("y", ops::mask_loss(g["coefficients"], g["prototypes"], g["masks"], items));
    const Tensor dc = Tensor::zeros(g["coefficients"].shape());
    const Tensor dp = Tensor::zeros(g["prototypes"].shape());
    ops::mask_loss_backward(g["coefficients"], g["prototypes"], g["masks"], items, Tensor::scalar(1), dc, dp);
    g.expect("dcoefficients", dc);
    g.expect("dprototypes", dp);
  }
}

// Forward only where the gradient is the autograd layer's (sums over broadcast axes and the like).
bool check_simple(const Golden& g) {
  const std::string op = g.op();
  for (UnaryOp unary : every<UnaryOp>()) {
    if (op != name_of(unary)) continue;
    g.expect("y", ops::unary(unary, g["x"]));
    g.expect("dx", ops::unary_backward(unary, g["x"], g["dy"]));
    return true;
  }
  for (BinaryOp binary : every<BinaryOp>()) {
    if (op != name_of(binary)) continue;
    g.expect("y", ops::binary(binary, g["a"], g["b"]));
    return true;
  }
  for (ReduceOp reduce : every<ReduceOp>()) {
    if (op != name_of(reduce)) continue;
    const bool all = g.info()["axis"].is_string();
    g.expect("y", ops::reduce(reduce, g["x"], all ? std::vector<int>{} : std::vector<int>{g.info()["axis"].get<int>()}));
    return true;
  }
  return false;
}

void check_other(const Golden& g) {
  const std::string op = g.op();
  if (op == "softmax" || op == "log_softmax") {
    const bool log = op == "log_softmax";
    const Tensor y = log ? ops::log_softmax(g["x"]) : ops::softmax(g["x"]);
    g.expect("y", y);
    g.expect("dx", log ? ops::log_softmax_backward(y, g["dy"]) : ops::softmax_backward(y, g["dy"]));
  } else if (op == "matmul") {
    g.expect("y", ops::matmul(g["a"], g["b"], false, g.info().value("transpose_b", false)));
  } else if (op == "linear") {
    g.expect("y", ops::binary(BinaryOp::kAdd, ops::matmul(g["x"], g["w"], false, true), g["bias"]));
    g.expect("dx", ops::matmul(g["dy"], g["w"]));
    g.expect("dw", ops::matmul(g["dy"], g["x"], true, false));
  } else if (op == "upsample_nearest") {
    g.expect("y", ops::upsample2x(g["x"]), 0);
    g.expect("dx", ops::upsample2x_backward(g["dy"]));
  } else if (op == "resize_bilinear") {
    g.expect("y", ops::resize_bilinear(g["x"], g.info()["height"], g.info()["width"]), 2e-6);
  } else if (op == "concat") {
    g.expect("y", ops::concat({g["a"], g["b"], g["c"]}, -1), 0);
  } else {
    CHECK_MESSAGE(op == "gather_rows", "golden op ", op, " has no check");
    g.expect("y", ops::gather_rows(g["x"], g["index"]), 0);
    const Tensor dx = Tensor::zeros(g["x"].shape());
    ops::scatter_add_rows(g["dy"], g["index"], dx);
    g.expect("dx", dx);
  }
}

// The fixture's inputs are formula numbers: ours must be the same, or no fixture of a whole model can be.
TEST_CASE("formula numbers are those of the fixtures") {
  const Tensor x = read_safetensors(golden_dir() / "ops.safetensors").at("silu.x");
  const uint64_t hash = fnv1a("silu.x");
  for (int64_t i = 0; i < x.numel(); ++i) REQUIRE(x.data<float>()[i] == float(-6 + 12 * formula_fraction(hash, i)));
}

TEST_CASE("ops against PyTorch") {
  const TensorMap tensors = read_safetensors(golden_dir() / "ops.safetensors");
  const Json cases = read_json(golden_dir() / "ops.json").at("cases");
  CHECK(cases.size() > 60);
  for (Backend* backend : available_backends()) {
    if (backend->device_kind() != Device::Kind::kCpu) continue;
    const BackendGuard guard(*backend);
    for (const auto& [name, info] : cases.items()) {
      const Golden g(tensors, name, info);
      const std::string op = g.op();
      if (op == "atan") continue;  // not an op of its own here: CIoU has it inside
      if (op == "conv2d" || op == "conv_transpose2x2") {
        check_conv(g);
      } else if (op == "batch_norm") {
        check_batch_norm(g);
      } else if (op == "max_pool2d") {
        check_pool(g);
      } else if (op.find("_loss_sum") != std::string::npos || op == "bce_with_logits_sum") {
        check_loss(g);
      } else if (!check_simple(g)) {
        check_other(g);
      }
    }
  }
}

}  // namespace
}  // namespace tessera::testing
