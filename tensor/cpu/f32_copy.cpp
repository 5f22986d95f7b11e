#include "tensor/cpu/f32_copy.h"

#include "tensor/cpu/kernels.h"
#include "tensor/ref/ref_backend.h"

namespace tessera::cpu {

namespace {

StridedView strided(const RowsView& v) { return {v.p, v.t, {v.rows, v.cols}, {v.pitch, 1}}; }

void convert(const RowsView& from, const RowsView& to) {
  if (!copy(strided(from), strided(to))) RefBackend().copy(strided(from), strided(to));
}

}  // namespace

F32Copy::F32Copy(const ImageView& v, bool read) : size_{v.n, v.h, v.w, v.c}, memory_(v.p == nullptr ? 0 : numel(size_)) {
  if (v.p != nullptr && read) convert(v.rows(), image().rows());
}

F32Copy::F32Copy(const FilterView& v) : size_{v.o, v.kh, v.kw, v.i}, memory_(numel(size_)) {
  convert({v.p, v.t, v.o * v.kh * v.kw, v.i, v.i}, image().rows());
}

void F32Copy::round_to(const ImageView& v) const { convert(image().rows(), v.rows()); }

}  // namespace tessera::cpu
