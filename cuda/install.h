// Registers the CUDA backend, or says why not. The one header of cuda/ that the program includes; no_cuda.cpp stands in where there
// is no toolkit.
#pragma once

#include <memory>
#include <string>

#include "tensor/comm.h"

namespace tessera {

class Tensor;

// Makes device `index` the one in use and installs the backend for it. Error(kUsage), in the driver's words, when it is not there.
void install_cuda_backend(int index);

bool has_cudnn();              // whether --conv cudnn can be done: the build knows it, and its library is here
std::string describe_cudnn();  // "cuDNN 9.19.0", or why there is none

// c = a b of dense matrices on the device, by the fastest kernels that there are for it, whatever --conv says: what can be reached.
void device_matmul(const Tensor& a, const Tensor& b, const Tensor& c);

// For tests: sets how many blocks of large tiles keep a device busy (cuda/conv.h) and returns what it was; with 0 small cases take
// large tiles.
int64_t exchange_enough_blocks(int64_t blocks);

// What cuDNN and cuBLASLt were asked for so far.
struct VendorUse {
  int64_t planned = 0;  // shapes
  int64_t refused = 0;  // of them, or struck off later: they run as own
  double seconds = 0;   // that planning took
};
VendorUse vendor_use();

// The same ranks, whose device tensors go over NCCL; null where it is not on every rank, or TESSERA_NCCL=0: then over the host.
std::unique_ptr<Communicator> device_communicator(Communicator& hosts);
std::string describe_nccl();  // "NCCL 2.28.9", or why there is none

// For people: "CUDA 13.0, cuDNN 9.19.0, cuBLASLt 13.0.2, 1 device: NVIDIA H100 80GB HBM3 (sm_90, 79 GiB)", "..., no device: ..." or
// "not in this build".
std::string describe_cuda();

}  // namespace tessera
