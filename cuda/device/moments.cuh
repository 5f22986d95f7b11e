// Number, mean and sum of squared deviations of some values, and how parts of them are joined (Chan, Golub and LeVeque 1983).
// Nothing large is subtracted from something large anywhere, as E[x^2] - E[x]^2 would do.
#pragma once

#include <cmath>

#include "cuda/device/platform.cuh"

namespace tessera::cuda {

struct Moments {
  float n, mean, m2;
};

struct CombinedMoments {
  template <class Get>
  __device__ Moments operator()(int parts, const Get& part) const {
    Moments all{};
    for (int k = 0; k < parts; ++k) {
      const Moments m = part(k);
      all.n += m.n;
      all.mean += m.n * m.mean;
    }
    all.mean = all.n > 0 ? all.mean / all.n : 0.0f;
    for (int k = 0; k < parts; ++k) {
      const Moments m = part(k);
      const float delta = m.mean - all.mean;
      all.m2 += m.m2 + m.n * delta * delta;
    }
    return all;
  }
};

// All chunks' moments (cuda/device/chunks.cuh): sums of the deviations of their means from the first one's, and of the squares about
// it. In double, which leaves of what is subtracted at the end no more than a rounding.
struct JoinedMoments {
  double n, sum, squares;
  float origin;
  JoinedMoments() = default;
  __device__ explicit JoinedMoments(const Moments& first) : n(0), sum(0), squares(0), origin(first.mean) {}
  __device__ void add(const Moments& m) {
    const double d = double(m.mean) - double(origin);
    n += double(m.n);
    sum += double(m.n) * d;
    squares += double(m.m2) + double(m.n) * d * d;
  }
  __device__ void add(const JoinedMoments& other) {
    n += other.n;
    sum += other.sum;
    squares += other.squares;
  }
  struct Wide {
    double n, mean, m2;
  };
  __device__ Wide result() const {
    const double mean = n > 0 ? sum / n : 0.0;
    return {n, double(origin) + mean, fmax(0.0, squares - sum * mean)};
  }
};

// Of n values of one thread: the sums of their deviations from the first, and of the squares. The first being among them, its own
// squared deviation from the mean bounds what the subtraction at the end can lose: an error of some roundings for each value,
// whatever the values are.
struct Deviations {
  float first = 0, sum = 0, squares = 0;

  __device__ void add(float value) {
    const float d = value - first;
    sum += d;
    squares += d * d;
  }
  __device__ Moments moments(int n) const {
    if (n <= 0) return {};
    const float mean = sum / float(n);
    return {float(n), first + mean, fmaxf(0.0f, squares - sum * mean)};
  }
};

}  // namespace tessera::cuda
