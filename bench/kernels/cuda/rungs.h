// Kernels to learn from: the same work from the formula to the form that trains, a rung at a time. cuda_ladder times them on a
// device, tests/cuda_host/ladder_test.cpp checks them without one. The last rung of each ladder is the project's own kernel
// (cuda/).
#pragma once

#include <string_view>
#include <vector>

#include "tensor/backend.h"

namespace tessera::study {

// y = x * w: bf16, channels last and dense, 3x3, stride 1, a border of one pixel of zeros. All channels multiples of 16.
using ConvRung = void (*)(const ImageView& x, const FilterView& w, const ImageView& y);

// The gradients of silu(batch norm), bf16 and dense: dx of the shape of x, dgamma and dbeta f32 (C). The formulas stand in
// cuda/norm.cu.
struct NormGradients {
  RowsView x, dy;
  BatchNormView bn;
  RowsView dx;
  float *dgamma, *dbeta;
};
using NormRung = void (*)(const NormGradients& g);

template <class F>
struct Rung {
  std::string_view name;  // of a line in the table
  F run;
  bool repeatable;  // the same bits on every run
};
std::vector<Rung<ConvRung>> conv_rungs();
std::vector<Rung<NormRung>> norm_rungs();

}  // namespace tessera::study
