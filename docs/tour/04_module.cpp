// Chapter 4 of the tour; the text is 04_module.md.
#include <filesystem>

#include "autograd/functions/concat.h"
#include "autograd/functions/pointwise.h"
#include "autograd/functions/reduce.h"
#include "autograd/grad_mode.h"
#include "docs/tour/tour.h"
#include "nn/init.h"
#include "nn/io/safetensors.h"
#include "nn/layers/conv_bn_act.h"
#include "nn/optim/optimizer.h"
#include "nn/parameter_arena.h"
#include "tensor/cpu/install.h"

using namespace tessera;
using tour::claim;
using tour::heading;

namespace {

class Net final : public UnaryModule {
 public:
  explicit Net(int64_t outputs) : stem(3, 16, 3, 2), body(16, 16, 3), head(32, outputs, 1) {
    child("stem", stem);
    child("body", body);
    child("head", head);
  }

  // Both blocks write into slices of one buffer, side by side, so their concatenation is that buffer.
  Variable features(const Variable& x) {
    const Shape& s = x.shape();
    slots = Tensor::empty({s[0], s[1] / 2, s[2] / 2, 32}, x.data().dtype(), x.data().device());
    const Variable a = stem.forward(x, slots.narrow(-1, 0, 16));
    const Variable b = body.forward(a, slots.narrow(-1, 16, 16));
    const Variable parts[] = {a, b};
    return ag::concat_channels(parts);
  }
  Variable forward(const Variable& x, const Tensor& into = {}) override { return head.forward(features(x), into); }
  std::string kind() const override { return "Net"; }

  ConvBnAct stem, body;
  Conv2d head;
  Tensor slots;  // of the last pass
};

}  // namespace

int main() {
  install_cpu_backends();

  heading("Names come from the constructors");
  Net net(5);
  init_parameters(net, /*seed=*/0);
  for (const auto& [name, tensor] : net.state_dict()) fmt::print("  {:30} {}\n", name, describe(tensor));
  claim(net.state_dict().contains("body.bn.running_var"), "a name is the path of members: body.bn.running_var");
  claim(net.parameter_count() == 432 + 32 + 2304 + 32 + 165, "2965 parameters; running statistics are none");

  heading("A pass in training");
  const Variable x(tour::random({2, 32, 32, 3}, 1));
  const Tensor before = net.stem.bn.running_mean.clone();
  const Variable y = net.forward(x);
  claim(y.shape() == Shape{2, 16, 16, 5}, "the result is " + describe(y.data()));
  claim(tour::largest_difference(net.stem.bn.running_mean, before) > 0, "it moves the running statistics");
  claim(net.features(x).data().shares_storage(net.slots), "the concatenation has copied nothing");

  heading("Three paths through a Conv block, one result");
  const auto evaluate = [&](Net& network) {
    const NoGrad guard;
    return network.forward(x).data();
  };
  net.train(false);
  const Tensor fused = evaluate(net);
  ConvBnAct::use_plain_path(true);
  const Tensor plain = evaluate(net);
  ConvBnAct::use_plain_path(false);
  fold_batch_norm(net);
  const Tensor folded = evaluate(net);
  unfold_batch_norm(net);
  claim(tour::largest_difference(fused, plain) < 1e-5, "three operations and one fused agree");
  claim(tour::largest_difference(fused, folded) < 1e-4, "so does batch norm inside the filters");

  heading("Weights to a file and back");
  const std::filesystem::path file = "04_module.safetensors";
  write_safetensors(file, net.state_dict());
  const StateDict saved = read_safetensors(file, FileMemory::kCopied).tensors;
  std::filesystem::remove(file);

  Net twin(5);
  claim(twin.load(saved).complete(), "every entry is found by its name");
  twin.train(false);
  claim(tour::largest_difference(evaluate(twin), fused) == 0, "the twin gives the same bits");

  Net wider(7);
  const LoadReport report = wider.load(saved);
  fmt::print("  {}\n", report.summary());
  claim(!report.complete() && report.mismatched.size() == 2, "what does not fit is reported and left as it was");

  heading("The arena: all parameters in one buffer");
  const ParameterArena arena(net);
  claim(net.stem.conv.weight.data().shares_storage(arena.all_values()), "parameters have moved there, under their old names");
  claim(net.stem.conv.weight.grad().shares_storage(arena.all_grads()), "and have their gradients in a second one");
  const auto size = [&](ParamGroup g) { return arena.values(g).numel(); };
  fmt::print("  biases {}, weights {}, norms {}, buffers {} (each entry padded to 16)\n", size(ParamGroup::kBias),
             size(ParamGroup::kWeight), size(ParamGroup::kNorm), size(ParamGroup::kBuffers));

  net.train();
  const auto loss_of = [&] {
    const Variable out = net.forward(x);
    return ag::mean(ag::multiply(out, out));
  };
  const Variable loss = loss_of();
  loss.backward();
  claim(arena.grad_norm() > 0, "a backward pass adds into it");
  Sgd sgd(arena, /*nesterov=*/false);
  sgd.step({.lr = {0.05, 0.05, 0.05}});  // of biases, weights, norms
  arena.zero_grad();
  claim(loss_of().data().item() < loss.data().item(), "a step is one call for each group, and the loss falls");
  return 0;
}
