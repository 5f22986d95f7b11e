// Which vector instruction sets the CPU kernels can use here, and a switch to run them with a lesser one (tests, comparisons).
#pragma once

#include <string_view>
#include <vector>

namespace tessera::cpu {

// Names of the targets that this CPU can run, best first: "avx512", "avx2". Empty on a CPU without AVX2.
std::vector<std::string_view> runnable_targets();

// The target that the kernels use now; empty when there is none.
std::string_view current_target();

// Makes the kernels use `name`, one of runnable_targets(), from now on in all threads. Not while kernels run.
void force_target(std::string_view name);

}  // namespace tessera::cpu
