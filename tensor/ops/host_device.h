// TESSERA_HOST_DEVICE: a function that the host and, under nvcc, the device has. For the arithmetic that backends share.
#pragma once

#ifdef __CUDACC__
#define TESSERA_HOST_DEVICE __host__ __device__
#else
#define TESSERA_HOST_DEVICE
#endif
