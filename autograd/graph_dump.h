// Shows a recorded graph: which operations, in which order, and what each keeps for the backward pass.
#pragma once

#include <string>

#include "autograd/variable.h"

namespace tessera {

// One line for each node, oldest first: number, operation, inputs (numbers, or names of leaves), saved bytes; then the totals.
std::string graph_text(const Variable& root);
// The same as a Graphviz digraph.
std::string graph_dot(const Variable& root);
int64_t graph_saved_bytes(const Variable& root);  // shared tensors count once for each node that keeps them

}  // namespace tessera
