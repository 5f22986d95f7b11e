// For the arithmetic that backends share. TESSERA_HOST_DEVICE: a function that the host and, under nvcc, the device has.
#pragma once

#ifdef __CUDACC__
#define TESSERA_HOST_DEVICE __host__ __device__
#else
#define TESSERA_HOST_DEVICE
#endif

namespace tessera {

// Of the two; a where one of them is NaN.
TESSERA_HOST_DEVICE inline float larger(float a, float b) { return a < b ? b : a; }
TESSERA_HOST_DEVICE inline float smaller(float a, float b) { return b < a ? b : a; }

}  // namespace tessera
