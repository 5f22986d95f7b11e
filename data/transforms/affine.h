// Random rotation, scale, shear, shift and perspective of an image and its objects (spec 6.2, 14.2).
#pragma once

#include <array>
#include <vector>

#include "data/augment_config.h"
#include "data/instance.h"
#include "data/transforms/collage.h"
#include "tensor/base/rng.h"

namespace tessera {

// The random numbers of one transform, in the order in which they are drawn.
struct AffineDraw {
  double perspective_x = 0, perspective_y = 0;
  double angle = 0;  // degrees, counter-clockwise on the screen
  double scale = 1;
  double shear_x = 0, shear_y = 0;              // degrees
  double translate_x = 0.5, translate_y = 0.5;  // where the centre goes, in shares of the output
};
AffineDraw draw_affine(Rng& rng, const AugmentConfig& config);

using Matrix3 = std::array<float, 9>;  // row-major

// M = T S R P C, from pixels of a height x width image to pixels of the output; float32 as in the original.
Matrix3 affine_matrix(const AffineDraw& draw, int height, int width, int out_height, int out_width);

// Receives the rows of an image as they are finished.
class RowSink {
 public:
  virtual ~RowSink() = default;
  virtual uint8_t* row(int y) = 0;  // where row y is to be written; room for all its pixels
  // Row y is finished: the pixels of `made` are written, all others are border and left as they were.
  virtual void done(int y, uint8_t* row, Columns made) = 0;
};

// Rows into an image of the output's size, with their border.
class ImageRows final : public RowSink {
 public:
  explicit ImageRows(Image& image) : image_(image) {}
  uint8_t* row(int y) override { return image_.row(y); }
  void done(int y, uint8_t* row, Columns made) override;

 private:
  Image& image_;
};

// Whether M only scales and shifts, the usual case, which warp_rows does with a third of the work.
bool keeps_axes(const Matrix3& m);

// warp() of a canvas that need not exist, for an M that keeps the axes. Rows arrive in order.
void warp_rows(const Collage& source, const Matrix3& m, int out_height, int out_width, RowSink& sink);

// out(x, y) = source at M^-1 (x, y), bilinear in float32, rounded to nearest even; taps outside the source count as kBorderValue.
// `out` gets out_height x out_width pixels; its memory is used again. The third row of M is obeyed when `perspective` is set.
void warp(const Image& source, const Matrix3& m, bool perspective, int out_height, int out_width, Image& out);

// What warp() and warp_rows() multiply positions of the output with: M^-1, formed in double, rounded to float32. Without perspective the
// third row is 0 0 1. A matrix without inverse: zeros.
Matrix3 inverse_map(const Matrix3& m, bool perspective);

// The pixels of a height x width source that warp() without perspective may look at.
PixelBox warp_footprint(const Matrix3& m, int height, int width, int out_height, int out_width);

// Objects through M: boxes from the vertices that stay inside, vertices clamped to that box, objects that become too small, too
// thin or lose more than 99 % of their area dropped (spec 6.2). `scale` is that of the draw.
void transform_instances(std::vector<Instance>& instances, const Matrix3& m, double scale, int out_height, int out_width);

}  // namespace tessera
