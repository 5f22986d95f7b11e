// YoloSeg: the network of a model yaml (spec 1): its layers in order, the wiring between them, and what is known of it without
// running.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "yolo/blocks/join.h"
#include "yolo/blocks/segment.h"
#include "yolo/model_yaml.h"

namespace tessera {

// One line of a model table. Sizes and costs are for one image.
struct LayerSummary {
  int64_t index = 0;
  std::vector<int64_t> from;
  int64_t repeats = 1;
  int64_t parameters = 0;
  std::string module, arguments;
  std::vector<Shape> outputs;  // (H, W, C); of Segment: box and class logits and coefficients of each level, then the prototypes
  double flops = 0;            // 2 * multiply-accumulate operations of the convolutions (spec 1.6)
  int64_t bytes = 0;           // of the outputs in f32
};

// Counted as the original prints them (spec 1.6).
struct ModelCounts {
  int64_t layers = 0, fused_layers = 0;          // leaf modules, the shared SiLU once
  int64_t parameters = 0, fused_parameters = 0;  // with the 16 frozen DFL weights
  int64_t trainable = 0;
  int64_t state_entries = 0, fused_state_entries = 0;
  int64_t conv_blocks = 0;
};

// u8 images (N, H, W, 3) as the network takes them: divided by 255, where they are.
Variable normalize(const Tensor& u8_images, DType type = DType::kF32);

class YoloSeg : public Module {
 public:
  // Parameters are zeros and ones until init() or a load.
  explicit YoloSeg(ModelSpec spec);

  // Images f32 (N, H, W, 3) in [0, 1] (u8 images are normalised) on the model's device, H and W multiples of max_stride(). A
  // feature map is let go as soon as no later layer reads it. Without recording and in eval mode the folded weights are used when
  // fold() was called.
  RawOutputs forward(const Variable& images);

  // Framework defaults for every weight, then the head's biases (spec 1.5). Batch norm statistics and gains start anew.
  void init(uint64_t seed);

  // Batch norm inside the convolutions, for prediction and validation. Valid until a parameter or a statistic changes or moves:
  // fold anew then.
  void fold();
  void unfold();
  bool folded() const { return folded_; }
  // For a program that does nothing else: layer by layer, and each lets go of the weights that the folded ones were made of. Such a
  // model stays folded (fold() and unfold() do nothing), cannot be trained, saved, moved or given another compute type.
  void fold_for_good();

  // The type of activations and of the filters that multiply them: f32, bf16 or (on a device) f16. Master weights, sums,
  // statistics, and box and class logits and coefficients stay f32. Call it before fold().
  void set_compute_type(DType type) { compute_type_ = type; }
  DType compute_type() const { return compute_type_; }

  // Less memory for a training step: recompute_activations() of nn/layers/conv_bn_act.h.
  void set_recompute(bool on) { recompute_activations(*this, on); }

  // These layers stay as they are: no gradients, and batch norm with its running statistics, which train() does not change.
  void freeze(std::span<const int32_t> layers);
  void train(bool on = true) override;

  const ModelSpec& spec() const { return spec_; }
  int64_t nc() const { return spec_.nc; }
  int64_t masks() const { return head().masks(); }
  const std::array<int64_t, kAnchorLevels>& strides() const { return strides_; }  // 8, 16, 32
  int64_t max_stride() const { return max_stride_; }  // of any layer
  Module& layer(int64_t index) const { return *layers_.at(size_t(index)); }  // of spec().layers
  Segment& head() const { return *static_cast<Segment*>(layers_.back().get()); }

  std::vector<LayerSummary> layer_table(int64_t h, int64_t w) const;
  ModelCounts counts();

  std::string kind() const override { return "YoloSeg"; }
  std::string summary() const override { return fmt::format("{}, {} classes", spec_.name, spec_.nc); }

 private:
  // (height, width) of each layer's output, Segment's left out.
  std::vector<std::array<int64_t, 2>> output_sizes(int64_t h, int64_t w) const;
  Variable run_layer(const LayerSpec& layer, std::span<const Variable> inputs, const Tensor& into);

  ModelSpec spec_;
  std::vector<std::unique_ptr<Module>> layers_;
  std::vector<int64_t> last_use_;  // index of the last layer that reads a layer's output
  // Where a layer's output lies in that of the concatenation that reads it, so that joining them is no copy.
  struct Place {
    int64_t concat = -1;  // index of the layer; -1: none reads it
    int64_t start = 0;    // channel
  };
  std::vector<Place> places_;
  std::array<int64_t, kAnchorLevels> strides_{};
  int64_t max_stride_ = 1;
  std::vector<int32_t> frozen_;
  bool folded_ = false, folded_for_good_ = false;
  DType compute_type_ = DType::kF32;
};

// The table of `inspect`: a line for each layer, and the totals.
std::string format_layer_table(YoloSeg& model, int64_t h, int64_t w);

}  // namespace tessera
