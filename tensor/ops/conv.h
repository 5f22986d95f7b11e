// 2-D convolution (cross-correlation, as the field calls it) and its transpose, channels last.
//
//   y[n, oy, ox, o] = bias[o] + sum over ky, kx, i of x[n, oy*stride + ky - pad, ox*stride + kx - pad, i] * w[o, ky, kx, i]
//
// Reads outside the image are zero. Output size: (h + 2*pad - k) / stride + 1.
//
// x, w, y, residual, dy and dx are of one floating type. bias, dw and dbias are of that type too, but f32 when it has 16 bits
// (wide_of): sums are formed in f32 or better, and what is stored in 16 bits is rounded once.
#pragma once

#include <string_view>

#include "tensor/tensor.h"

namespace tessera {

struct ConvParams {
  int64_t stride = 1;
  int64_t pad = 0;
  friend bool operator==(const ConvParams&, const ConvParams&) = default;
};

enum class Activation : uint8_t { kNone, kSilu };

// What happens to a convolution's result before it is stored: y = act(conv + bias) + residual.
struct ConvEpilogue {
  const void* bias = nullptr;  // O values of wide_of(the type of x); null: none
  Activation activation = Activation::kNone;
  ImageView residual{};         // p null: none; else the shape of y
};

// What a call takes beside its arguments, in bytes. Small tables (a bias, sums of channels) are left out.
struct ConvScratch {
  int64_t call = 0;    // from the backend's allocator, until it returns
  int64_t thread = 0;  // of each thread of the host, which keeps the most that it was ever asked for
};
enum class ConvPass : uint8_t { kForward, kBackwardData, kBackwardWeight };

class ConvOps {
 public:
  virtual ~ConvOps() = default;
  // x Pitched (N,H,W,I), w dense (O,kH,kW,I), y Pitched (N,OH,OW,O). y never overlaps x. Without a residual y may be f32 beside 16-bit
  // x and w where the backend says so.
  virtual void conv2d(ImageView x, FilterView w, ImageView y, const ConvParams& p, const ConvEpilogue& epilogue) = 0;
  virtual bool conv2d_writes_wide() const { return false; }  // whether that y may be f32
  // A filter in this backend's own order for p, which conv2d takes besides w.p: made once for many inputs. Elements of the type of w; 0:
  // there is no such order.
  virtual int64_t packed_filter_size(FilterView /*w*/, const ConvParams& /*p*/) { return 0; }
  virtual void pack_filter(FilterView /*w*/, const ConvParams& /*p*/, void* /*packed*/) {}
  // dx (+)= gradient of the sum of y*dy with respect to x.
  virtual void conv2d_backward_data(ImageView dy, FilterView w, ImageView dx, const ConvParams& p, bool accumulate) = 0;
  // dw (+)= gradient with respect to w, of wide_of(the type of x).
  virtual void conv2d_backward_weight(ImageView x, ImageView dy, FilterView dw, const ConvParams& p, bool accumulate) = 0;
  // dbias (+)= sum of dy over pixels (O values of wide_of(dy's type)).
  virtual void bias_backward(RowsView dy, void* dbias, bool accumulate) = 0;

  // Transposed convolution with kernel = stride = 2, no padding: y[n, 2i+a, 2j+b, o] = bias[o] + sum_c x[n,i,j,c] * w[o,a,b,c].
  // w is (O, 2, 2, I) with O the output channels.
  virtual void conv_transpose2x2(ImageView x, FilterView w, ImageView y, const void* bias) = 0;
  virtual void conv_transpose2x2_backward_data(ImageView dy, FilterView w, ImageView dx, bool accumulate) = 0;
  virtual void conv_transpose2x2_backward_weight(ImageView x, ImageView dy, FilterView dw, bool accumulate) = 0;

  // For plans of memory; reads shapes and types, no values. x and y: what goes in and comes out, or their gradients; w: the filter,
  // packed for a forward pass where that is. x and w of one type.
  virtual ConvScratch conv2d_scratch(ConvPass, ImageView /*x*/, FilterView /*w*/, ImageView /*y*/, const ConvParams&) { return {}; }
  virtual ConvScratch conv_transpose2x2_scratch(ConvPass, ImageView /*x*/, FilterView /*w*/, ImageView /*y*/) { return {}; }
};

namespace ops {
// A filter that many inputs will meet, in the order that the backend of its device likes; it holds for that backend.
class PackedFilter {
 public:
  PackedFilter() = default;  // undefined
  PackedFilter(const Tensor& w, const ConvParams& p);
  bool defined() const { return data_.defined(); }
  const Shape& shape() const { return shape_; }  // (O, kH, kW, I)
  const ConvParams& params() const { return params_; }
  const Tensor& data() const { return data_; }
  FilterView view(std::string_view backend) const;  // of the backend that will read it

 private:
  Shape shape_;
  ConvParams params_;
  Tensor data_;
  std::string_view backend_;  // whose order it is; empty: as it came
};

Shape conv2d_shape(const Shape& x, const Shape& w, const ConvParams& p);  // checks and computes (N, OH, OW, O)
// bias and residual may be undefined.
Tensor conv2d(const Tensor& x, const Tensor& w, const ConvParams& p, const Tensor& bias = {}, Activation act = Activation::kNone,
              const Tensor& residual = {}, const Tensor& into = {});
Tensor conv2d(const Tensor& x, const PackedFilter& w, const Tensor& bias = {}, Activation act = Activation::kNone,
              const Tensor& residual = {}, const Tensor& into = {});
// The result in wide_of(the type of x), as it is summed.
Tensor conv2d_wide(const Tensor& x, const Tensor& w, const ConvParams& p, const Tensor& bias);
Tensor conv2d_backward_data(const Tensor& dy, const Tensor& w, const Shape& x_shape, const ConvParams& p, const Tensor& into = {},
                            bool accumulate = false);
void conv2d_backward_weight(const Tensor& x, const Tensor& dy, const Tensor& dw, const ConvParams& p, bool accumulate);
void bias_backward(const Tensor& dy, const Tensor& dbias, bool accumulate);
Tensor conv_transpose2x2(const Tensor& x, const Tensor& w, const Tensor& bias);
Tensor conv_transpose2x2_backward_data(const Tensor& dy, const Tensor& w);
void conv_transpose2x2_backward_weight(const Tensor& x, const Tensor& dy, const Tensor& dw, bool accumulate);
}  // namespace ops

}  // namespace tessera
