// Gather and scatter of rows.
#include "cuda/kernels.h"
#include "cuda/unfinished.h"

namespace tessera::cuda {

void gather_rows(RowsView, const int64_t*, RowsView) { no_kernel("gather_rows"); }
void scatter_add_rows(RowsView, const int64_t*, RowsView) { no_kernel("scatter_add_rows"); }

}  // namespace tessera::cuda
