// Whole-arena kernels of the optimizers.
#include "cuda/kernels.h"
#include "cuda/unfinished.h"

namespace tessera::cuda {

void sgd(RowsView, RowsView, RowsView, double, const SgdParams&) { no_kernel("sgd"); }
void adam(RowsView, RowsView, RowsView, RowsView, double, const AdamParams&) { no_kernel("adam"); }
void lerp(RowsView, RowsView, double) { no_kernel("lerp"); }
double sum_of_squares(RowsView) { no_kernel("sum_of_squares"); }
bool all_finite(RowsView) { no_kernel("all_finite"); }

}  // namespace tessera::cuda
