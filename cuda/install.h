// Registers the CUDA backend, or says why not. The one header of cuda/ that the program includes; no_cuda.cpp stands in where there
// is no toolkit.
#pragma once

#include <string>

namespace tessera {

// Makes device `index` the one in use and installs the backend for it. Error(kUsage), in the driver's words, when it is not there.
void install_cuda_backend(int index);

bool has_cudnn();               // whether --conv cudnn can be done: the build knows it, and its library is here
std::string describe_cudnn();  // "cuDNN 9.19.0", or why there is none

// For people: "CUDA 13.0, cuDNN 9.19.0, cuBLASLt 13.0.2, 1 device: NVIDIA H100 80GB HBM3 (sm_90, 79 GiB)", "..., no device: ..." or "not in this build".
std::string describe_cuda();

}  // namespace tessera
