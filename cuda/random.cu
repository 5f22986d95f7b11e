// Random fills from a named Philox stream.
#include "cuda/kernels.h"
#include "cuda/unfinished.h"

namespace tessera::cuda {

void uniform(RowsView, const RandomStream&, double, double) { no_kernel("uniform"); }
void normal(RowsView, const RandomStream&, double, double) { no_kernel("normal"); }

}  // namespace tessera::cuda
