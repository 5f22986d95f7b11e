// A convolution as the vendor's library is asked for it: the key holds everything that a plan depends on, a planner turns keys into
// plans. cudnn_planner.cpp is the one with cuDNN, no_cudnn.cpp stands in for it; tests have planners of their own.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

#include "tensor/ops/conv.h"

namespace tessera::cuda {

// x is the image on the side of the input (dx of backward data), y the one on the side of the output (dy of both backward passes),
// w the filter (dw of backward weight). Compared and hashed as bytes, so it has no padding.
struct ConvKey {
  int32_t pass = 0;  // ConvPass
  int32_t type = 0;  // DType of x and y
  int32_t filter_type = 0;
  int32_t n = 0, h = 0, w = 0, c = 0, x_pitch = 0;
  int32_t o = 0, kh = 0, kw = 0;
  int32_t oh = 0, ow = 0, y_pitch = 0;
  int32_t stride = 1, pad = 0;
  int32_t x_alignment = 0, w_alignment = 0, y_alignment = 0;  // of the addresses, in bytes, at most 16
  int32_t bias = 0, activation = 0, residual = 0;             // the epilogue: 0 or 1, Activation, 0 or 1
  int32_t residual_pitch = 0, residual_alignment = 0;
  int32_t accumulate = 0;     // the result is added to what is there
  int32_t deterministic = 0;  // two runs give the same bits
  int32_t tf32 = 0;           // f32 products may round their factors to 10 bits
  int32_t device = 0;

  ConvPass which() const { return ConvPass(pass); }
  DType dtype() const { return DType(type); }
};
static_assert(std::has_unique_object_representations_v<ConvKey>);

// "conv2d bf16 16x160x160x32 (pitch 64) * 32x3x3 s1 p1 -> 160x160 (pitch 32)", for messages.
std::string text_of(const ConvKey& key);

// What a pass has to keep to that is not in the shapes.
struct ConvRules {
  bool deterministic = false, tf32 = false;
  int device = 0;
};
ConvKey forward_key(const ImageView& x, const FilterView& w, const ImageView& y, const ConvParams& p, const ConvEpilogue& epilogue,
                    const ConvRules& rules);
ConvKey backward_data_key(const ImageView& dy, const FilterView& w, const ImageView& dx, const ConvParams& p, bool accumulate,
                          const ConvRules& rules);
ConvKey backward_weight_key(const ImageView& x, const ImageView& dy, const FilterView& dw, const ConvParams& p, bool accumulate,
                            const ConvRules& rules);

// Whether the library compiles a kernel for it when it is planned: anything but a plain convolution of one type.
bool is_compiled(const ConvKey& key);
// Compiled plans of cuDNN 9.19 (sm_90) take 16-bit numbers that do not lie in packs of 16 bytes, and then leave the result unwritten
// without an error. False for those: nobody should be asked.
bool lies_in_packs(const ConvKey& key);

// Addresses on the device, in the roles of the key.
struct ConvBuffers {
  void *x = nullptr, *w = nullptr, *y = nullptr;
  const void *bias = nullptr, *residual = nullptr;
};

class ConvPlan {
 public:
  virtual ~ConvPlan() = default;
  virtual std::string name() const = 0;
  virtual size_t workspace_bytes() const = 0;
  // Starts the work on `stream` (a cudaStream_t). Error when the library refuses.
  virtual void run(const ConvBuffers& buffers, void* workspace, void* stream) const = 0;
};

struct ConvPlans {
  std::vector<std::unique_ptr<ConvPlan>>
      list;                     // that keep the key's rules; the one thought fastest first; at most as many as asked
  std::string refusal;          // in the library's words, why there are none or fewer
  bool graph_accepted = false;  // the library knows what is asked for, whether or not it can do it here
  int64_t engines_named = 0;    // by its heuristics, before they were asked whether they can run here
};

class ConvPlanner {
 public:
  virtual ~ConvPlanner() = default;
  virtual ConvPlans plans(const ConvKey& key, size_t most) = 0;
};

// Null without cuDNN in the build. `device`: a JSON text that describes one, as cuDNN writes it, for a machine that has none: its
// plans cannot be run. Empty: the device in use.
std::unique_ptr<ConvPlanner> make_cudnn_planner(const std::string& device = {});

// "cuDNN 9.19.0" or "no cuDNN".
std::string describe_cudnn();

}  // namespace tessera::cuda
