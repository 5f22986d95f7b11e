#include "yolo/model.h"

#include <algorithm>

#include "autograd/functions/pointwise.h"
#include "nn/conv_kernels.h"
#include "nn/init.h"
#include "tensor/base/scope.h"
#include "tensor/ops/pointwise.h"
#include "yolo/blocks/c2f.h"
#include "yolo/blocks/sppf.h"

namespace tessera {

namespace {

std::unique_ptr<Module> make_module(const LayerSpec& l) {
  if (l.module == "Conv") return std::make_unique<ConvBnAct>(l.in[0], l.out, l.kernel, l.stride);
  if (l.module == "C2f") return std::make_unique<C2f>(l.in[0], l.out, l.repeats, l.shortcut);
  if (l.module == "SPPF") return std::make_unique<Sppf>(l.in[0], l.out, l.kernel);
  if (l.module == "Upsample") return std::make_unique<Upsample>();
  if (l.module == "Concat") return std::make_unique<Concat>();
  TESSERA_CHECK(l.module == "Segment", "no layer of kind {}", l.module);
  return std::make_unique<Segment>(l.nc, l.masks, l.prototype_width, std::array{l.in[0], l.in[1], l.in[2]});
}

// Of a layer, the block whose result is the layer's; null: none.
ConvBnAct* last_block(Module& layer) {
  if (auto* c2f = dynamic_cast<C2f*>(&layer)) return &c2f->cv2;
  if (auto* sppf = dynamic_cast<Sppf*>(&layer)) return &sppf->cv2;
  return dynamic_cast<ConvBnAct*>(&layer);
}

// Layers that begin with a convolution of their input, which nothing else of them reads.
bool begins_with_convolution(const LayerSpec& l) { return l.module == "Conv" || l.module == "C2f" || l.module == "SPPF"; }

}  // namespace

Variable normalize(const Tensor& u8_images, DType type) { return Variable(ops::scale_u8(u8_images, 1.0 / 255.0, type)); }

YoloSeg::YoloSeg(ModelSpec spec) : spec_(std::move(spec)), last_use_(spec_.layers.size(), -1), places_(spec_.layers.size()) {
  for (const LayerSpec& layer : spec_.layers) {
    layers_.push_back(make_module(layer));
    child(fmt::format("model.{}", layer.index), *layers_.back());
    for (int64_t from : layer.from) {
      if (from >= 0) last_use_[size_t(from)] = layer.index;
    }
    if (layer.module != "Concat") continue;
    int64_t start = 0;
    for (size_t i = 0; i < layer.from.size(); start += layer.in[i++]) {
      if (layer.from[i] >= 0) places_[size_t(layer.from[i])] = {layer.index, start};
    }
  }
  for (size_t i = 0; i < layers_.size(); ++i) {
    int64_t readers = 0, convolutions = 0;
    for (const LayerSpec& layer : spec_.layers) {
      const int64_t n = std::count(layer.from.begin(), layer.from.end(), int64_t(i));
      readers += n, convolutions += begins_with_convolution(layer) ? n : 0;
    }
    if (ConvBnAct* block = last_block(*layers_[i])) block->feeds_convolution = readers == 1 && convolutions == 1;
  }
  for (size_t i = 0; i < kAnchorLevels; ++i) {
    const int64_t from = spec_.layers.back().from[i];
    strides_[i] = from < 0 ? 1 : spec_.layers[size_t(from)].reduction;
  }
  for (const LayerSpec& layer : spec_.layers) max_stride_ = std::max(max_stride_, layer.reduction);
  choose_conv_kernels(*this);
}

std::vector<std::array<int64_t, 2>> YoloSeg::output_sizes(int64_t h, int64_t w) const {
  std::vector<std::array<int64_t, 2>> sizes;
  for (const LayerSpec& l : spec_.layers) {
    std::array<int64_t, 2> size = l.from[0] < 0 ? std::array{h, w} : sizes[size_t(l.from[0])];
    for (int64_t& s : size) {
      if (l.module == "Conv") s = (s + 2 * (l.kernel / 2) - l.kernel) / l.stride + 1;
      if (l.module == "Upsample") s *= 2;
    }
    sizes.push_back(size);
  }
  return sizes;
}

Variable YoloSeg::run_layer(const LayerSpec& layer, std::span<const Variable> inputs, const Tensor& into) {
  Module& module = *layers_[size_t(layer.index)];
  if (auto* concat = dynamic_cast<Concat*>(&module)) return concat->forward(inputs);
  return static_cast<UnaryModule&>(module).forward(inputs[0], into);
}

RawOutputs YoloSeg::forward(const Variable& images) {
  const Shape& shape = images.shape();
  TESSERA_CHECK(shape.rank() == 4 && shape[3] == 3 && shape[1] % max_stride() == 0 && shape[2] % max_stride() == 0,
                "YoloSeg: got images {}, expected (N, H, W, 3) with H and W multiples of {}", to_string(shape), max_stride());
  const Variable x = ag::cast(images.data().dtype() == DType::kU8 ? normalize(images.data(), compute_type_) : images, compute_type_);
  std::vector<Variable> outputs(layers_.size());
  const auto sizes = output_sizes(shape[1], shape[2]);
  std::vector<Tensor> joined(layers_.size());  // of concatenations, while their parts are made
  const auto place_of = [&](size_t layer) {
    const auto [concat, start] = places_[layer];
    if (concat < 0 || sizes[layer] != sizes[size_t(concat)]) return Tensor();
    const auto [h, w] = sizes[layer];
    Tensor& all = joined[size_t(concat)];
    if (!all.defined()) all = Tensor::empty({shape[0], h, w, spec_.layers[size_t(concat)].out}, compute_type_, x.data().device());
    return all.narrow(-1, start, spec_.layers[layer].out);
  };
  for (const LayerSpec& layer : spec_.layers) {
    std::vector<Variable> inputs;
    for (int64_t from : layer.from) inputs.push_back(from < 0 ? x : outputs[size_t(from)]);
    for (int64_t from : layer.from) {
      if (from >= 0 && last_use_[size_t(from)] == layer.index) outputs[size_t(from)] = {};
    }
    const ScopeGuard scope(layers_[size_t(layer.index)].get());
    if (&layer == &spec_.layers.back()) {
      RawOutputs raw = head().forward(inputs);  // logits come in f32
      if (!training()) raw.prototypes = ag::cast(raw.prototypes, DType::kF32);  // the loss takes them as they are
      return raw;
    }
    outputs[size_t(layer.index)] = run_layer(layer, inputs, place_of(size_t(layer.index)));
    joined[size_t(layer.index)] = {};
  }
  TESSERA_CHECK(false, "YoloSeg: no head");
}

void YoloSeg::init(uint64_t seed) {
  for_each_module([](const std::string&, Module& m) {
    auto* bn = dynamic_cast<BatchNorm2d*>(&m);
    if (!bn) return;
    bn->weight.data().fill(1);
    bn->bias.data().fill(0);
    bn->running_mean.fill(0);
    bn->running_var.fill(1);
    bn->num_batches_tracked.fill(0);
  });
  init_parameters(*this, seed);
  head().init_biases(strides_);
}

void YoloSeg::fold() {
  if (folded_for_good_) return;
  fold_batch_norm(*this, compute_type_);
  folded_ = true;
}

void YoloSeg::fold_for_good() {
  for_each_module([this](const std::string&, Module& m) {
    auto* block = dynamic_cast<ConvBnAct*>(&m);
    if (block == nullptr) return;
    block->fold(compute_type_);
    block->release_weight();
  });
  folded_ = folded_for_good_ = true;
}

void YoloSeg::unfold() {
  if (folded_for_good_) return;
  unfold_batch_norm(*this);
  folded_ = false;
}

void YoloSeg::freeze(std::span<const int32_t> layers) {
  frozen_.assign(layers.begin(), layers.end());
  for (const int32_t i : frozen_) {
    layers_.at(size_t(i))->for_each_parameter([](const std::string&, Variable& p) { p.set_requires_grad(false); });
  }
  train(training());
}

void YoloSeg::train(bool on) {
  Module::train(on);
  for (const int32_t i : frozen_) layers_[size_t(i)]->train(false);
}

std::vector<LayerSummary> YoloSeg::layer_table(int64_t h, int64_t w) const {
  const auto sizes = output_sizes(h, w);
  std::vector<LayerSummary> table;
  for (const LayerSpec& l : spec_.layers) {
    const size_t i = size_t(l.index);
    Module& module = *layers_[i];
    LayerSummary row{l.index, l.from, l.repeats, module.parameter_count(), l.module, l.arguments, {}, 0, 0};
    if (&l == &spec_.layers.back()) {
      std::array<int64_t, kAnchorLevels> pixels{};
      for (size_t level = 0; level < kAnchorLevels; ++level) {
        const auto [y, x] = sizes[size_t(l.from[level])];
        pixels[level] = y * x;
        for (int64_t channels : {kBoxLogits, l.nc, l.masks}) row.outputs.push_back({y, x, channels});
      }
      const auto [y, x] = sizes[size_t(l.from[0])];
      row.outputs.push_back({2 * y, 2 * x, l.masks});
      row.flops = 2.0 * double(head().macs(pixels));
    } else {
      row.outputs.push_back({sizes[i][0], sizes[i][1], l.out});
      row.flops = 2.0 * double(conv_weights(module) * sizes[i][0] * sizes[i][1]);
    }
    for (const Shape& shape : row.outputs) row.bytes += numel(shape) * int64_t(sizeof(float));
    table.push_back(std::move(row));
  }
  return table;
}

ModelCounts YoloSeg::counts() {
  ModelCounts c;
  c.layers = 2;  // the shared SiLU and the DFL convolution
  for_each_module([&](const std::string&, Module& m) {
    if (auto* block = dynamic_cast<ConvBnAct*>(&m)) {
      ++c.conv_blocks;
      c.fused_parameters -= block->bn.weight.data().numel();  // gain and shift become one bias
    }
    if (dynamic_cast<Sppf*>(&m)) ++c.layers;  // its pool
    for (const char* leaf : {"Conv2d", "BatchNorm2d", "ConvTranspose2d", "Upsample", "Concat"}) c.layers += m.kind() == leaf;
  });
  for_each_parameter([&](const std::string&, Variable& p) {
    c.parameters += p.data().numel();
    if (p.requires_grad()) c.trainable += p.data().numel();
  });
  c.state_entries = int64_t(state_dict().size());
  c.fused_parameters += c.parameters;
  c.fused_layers = c.layers - c.conv_blocks;
  c.fused_state_entries = c.state_entries - 4 * c.conv_blocks;  // weight and five of batch norm become weight and bias
  return c;
}

std::string format_layer_table(YoloSeg& model, int64_t h, int64_t w) {
  std::string text = fmt::format("{:>3}  {:<14}{:>2} {:>11}  {:<9}{:<34}{:>18}{:>9}{:>9}\n", "", "from", "n", "parameters",
                                 "module", "arguments", "output", "GFLOP", "MiB");
  double flops = 0;
  for (const LayerSummary& row : model.layer_table(h, w)) {
    std::string from, output;
    for (int64_t f : row.from) from += (from.empty() ? "" : ", ") + std::to_string(f);
    const Shape& s = row.outputs.back();
    output =
        fmt::format("{}x{}x{}{}", s[0], s[1], s[2], row.outputs.size() > 1 ? fmt::format(" + {}", row.outputs.size() - 1) : "");
    text += fmt::format("{:>3}  {:<14}{:>2} {:>11}  {:<9}{:<34}{:>18}{:>9.3f}{:>9.2f}\n", row.index, from, row.repeats,
                        row.parameters, row.module, row.arguments, output, row.flops / 1e9, double(row.bytes) / double(1 << 20));
    flops += row.flops;
  }
  const ModelCounts c = model.counts();
  return text + fmt::format("{}: {} layers, {} parameters, {} gradients, {:.1f} GFLOP at {}x{} ({} layers, {} parameters folded)\n",
                            model.spec().name, c.layers, c.parameters, c.trainable, flops / 1e9, h, w, c.fused_layers,
                            c.fused_parameters);
}

}  // namespace tessera
